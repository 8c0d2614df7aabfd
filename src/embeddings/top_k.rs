//! The best rows of a search, collected as scores are computed.

use std::cmp::Ordering;

/// The best `k` scores so far.
#[derive(Debug)]
pub(crate) struct TopK {
    k: usize,
    /// Up to `2k` of them, unordered; reduced to `k` when full.
    found: Vec<(usize, f32)>,
    /// A score below this cannot be among the best `k`.
    bar: f32,
}

impl TopK {
    pub(crate) fn new(k: usize) -> Self {
        TopK { k, found: Vec::new(), bar: f32::NEG_INFINITY }
    }

    pub(crate) fn offer(&mut self, start: usize, scores: &[f32], excluded: &[usize]) {
        if self.k == 0 {
            return;
        }
        for (block, chunk) in scores.chunks(64).enumerate() {
            // Most blocks contain no better score, which one comparison with their maximum (vector
            // code) shows.
            if !chunk.iter().fold(false, |any, &s| any | (s >= self.bar)) {
                continue;
            }
            for (i, &s) in chunk.iter().enumerate() {
                let row = start + block * 64 + i;
                if s >= self.bar && !excluded.contains(&row) {
                    self.found.push((row, s));
                    if self.found.len() >= self.k.saturating_mul(2).max(self.k + 1) {
                        self.cut();
                    }
                }
            }
        }
    }

    fn cut(&mut self) {
        if self.found.len() > self.k {
            self.found.select_nth_unstable_by(self.k - 1, better);
            self.found.truncate(self.k);
        }
        if self.found.len() == self.k {
            self.bar = self.found.iter().fold(f32::INFINITY, |m, f| m.min(f.1));
        }
    }

    pub(crate) fn merge(mut self, other: TopK) -> TopK {
        self.found.extend(other.found);
        self
    }

    pub(crate) fn into_sorted(mut self) -> Vec<(usize, f32)> {
        self.found.sort_unstable_by(better);
        self.found.truncate(self.k);
        self.found
    }
}

/// Higher scores first, then lower rows.
fn better(a: &(usize, f32), b: &(usize, f32)) -> Ordering {
    b.1.total_cmp(&a.1).then(a.0.cmp(&b.0))
}
