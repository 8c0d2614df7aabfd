//! The best rows of a search, as their scores come.

use std::cmp::Ordering;

/// The best `k` scores so far.
#[derive(Debug)]
pub(crate) struct Best {
    k: usize,
    /// Unordered, up to `2k` of them; cut back to `k` when full.
    found: Vec<(usize, f32)>,
    /// What a score must exceed, or equal with a smaller row, to matter.
    bar: f32,
}

impl Best {
    pub(crate) fn new(k: usize) -> Self {
        Best { k, found: Vec::new(), bar: f32::NEG_INFINITY }
    }

    pub(crate) fn offer(&mut self, start: usize, scores: &[f32], excluded: &[usize]) {
        if self.k == 0 {
            return;
        }
        for (block, chunk) in scores.chunks(64).enumerate() {
            // Most blocks hold nothing: one comparison of the largest, which becomes vector code.
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

    pub(crate) fn merge(mut self, other: Best) -> Best {
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
