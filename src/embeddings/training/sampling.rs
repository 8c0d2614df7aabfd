//! Random numbers of the training loops: a fast generator, negative samples, subsampling of
//! frequent words.

use crate::Rng;

/// A generator for inner loops: a counter multiplied to twice its width, with both halves folded
/// (wyrand by Wang Yi). It is seeded from [`Rng`] per chunk of text, so the numbers of a run do not
/// depend on its threads.
#[derive(Clone, Debug)]
pub(crate) struct FastRng(u64);

impl FastRng {
    /// The generator of item `item` of step `step`.
    pub(crate) fn new(seed: u64, step: u64, item: u64) -> Self {
        let mut rng = Rng::stream(seed ^ step.rotate_left(32), item);
        FastRng(rng.next_u64())
    }

    /// The next 64 random bits.
    #[inline]
    pub(crate) fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0xa076_1d64_78bd_642f);
        let product = u128::from(self.0) * u128::from(self.0 ^ 0xe703_7ed1_a0b4_28db);
        (product >> 64) as u64 ^ product as u64
    }

    /// Returns an integer below `n`, uniform up to 2^-32.
    #[inline]
    pub(crate) fn below(&mut self, n: u32) -> u32 {
        (((self.bits() >> 32) * u64::from(n)) >> 32) as u32
    }
}

/// An alias table, which samples from a distribution in constant time (Walker 1977, built as by
/// Vose 1991): column `i` returns `i` with its own probability and its alias otherwise.
#[derive(Clone, Debug)]
pub(crate) struct Alias {
    /// (probability of the column's own item in units of 2^-32, alias)
    columns: Vec<(u32, u32)>,
}

impl Alias {
    /// Builds the table of the distribution proportional to `weights`, which are not all zero.
    pub(crate) fn new(weights: &[f64]) -> Self {
        let total: f64 = weights.iter().sum();
        let mut share: Vec<f64> = weights.iter().map(|w| w / total * weights.len() as f64).collect();
        let mut columns: Vec<(u32, u32)> = (0..weights.len() as u32).map(|i| (u32::MAX, i)).collect();
        let (mut small, mut large): (Vec<usize>, Vec<usize>) = (0..weights.len()).partition(|&i| share[i] < 1.0);
        while let (Some(&s), Some(&l)) = (small.last(), large.last()) {
            small.pop();
            columns[s] = ((share[s] * 4_294_967_296.0) as u32, l as u32);
            share[l] -= 1.0 - share[s];
            if share[l] < 1.0 {
                large.pop();
                small.push(l);
            }
        }
        Alias { columns }
    }

    /// Builds Word2Vec's distribution of negative samples: counts to the power of 0.75.
    pub(crate) fn unigram(counts: &[u64]) -> Self {
        Alias::new(&counts.iter().map(|&c| (c as f64).powf(0.75)).collect::<Vec<_>>())
    }

    #[inline]
    pub(crate) fn sample(&self, rng: &mut FastRng) -> u32 {
        let bits = rng.bits();
        let column = (((bits >> 32) * self.columns.len() as u64) >> 32) as usize;
        let (own, other) = self.columns[column];
        if (bits as u32) < own || own == u32::MAX { column as u32 } else { other }
    }
}

/// Returns the probability of keeping each word, in units of 2^-32: √(t/f) + t/f for a word with
/// fraction f of the text, as in the code of word2vec (the paper has √(t/f)).
pub(crate) fn keep_probabilities(counts: &[u64], subsample: f64) -> Vec<u32> {
    let total: u64 = counts.iter().sum();
    let keep = |&count: &u64| {
        let ratio = subsample * total as f64 / count as f64;
        // The conversion saturates: numbers above 1 become 1.
        ((ratio.sqrt() + ratio) * 4_294_967_296.0) as u32
    };
    if subsample <= 0.0 { vec![u32::MAX; counts.len()] } else { counts.iter().map(keep).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alias_draws_by_weight() {
        for weights in [vec![1.0], vec![1.0, 3.0], vec![5.0, 0.0, 1.0, 2.0, 2.0]] {
            let (alias, mut rng) = (Alias::new(&weights), FastRng::new(1, 2, 3));
            let mut counts = vec![0u32; weights.len()];
            for _ in 0..100_000 {
                counts[alias.sample(&mut rng) as usize] += 1;
            }
            let total: f64 = weights.iter().sum();
            for (c, w) in counts.iter().zip(&weights) {
                assert!((f64::from(*c) / 1e5 - w / total).abs() < 0.01, "{counts:?} {weights:?}");
            }
        }
    }

    #[test]
    fn rare_words_are_always_kept() {
        let keep = keep_probabilities(&[1_000_000, 10], 1e-3);
        assert_eq!(keep[1], u32::MAX);
        let p = f64::from(keep[0]) / 4_294_967_296.0;
        assert!((p - (0.001f64.sqrt() + 0.001)).abs() < 1e-4, "{p}");
        assert_eq!(keep_probabilities(&[5, 1], 0.0), [u32::MAX; 2]);
    }

    #[test]
    fn numbers_below_are_uniform() {
        let mut rng = FastRng::new(7, 0, 0);
        let mut counts = [0; 5];
        (0..50_000).for_each(|_| counts[rng.below(5) as usize] += 1);
        assert!(counts.iter().all(|c| (9_600..10_400).contains(c)), "{counts:?}");
    }
}
