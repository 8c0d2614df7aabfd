//! The order in which an epoch visits its examples.
//!
//! The order is a function of the seed, the epoch and the lengths of the examples only: a resumed
//! run computes it again.

use crate::random::Rng;

/// How an epoch is ordered and cut into batches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Order {
    pub(super) batch_size: usize,
    /// The seed, or `None` for the order of the dataset.
    pub(super) shuffle: Option<u64>,
    pub(super) drop_last: bool,
    /// The number of batches that are sorted by length together, or 0 for no sorting.
    pub(super) bucket_batches: usize,
}

impl Order {
    /// Returns the number of batches of an epoch of `n` examples.
    pub(super) fn n_batches(&self, n: usize) -> usize {
        if self.drop_last { n / self.batch_size } else { n.div_ceil(self.batch_size) }
    }

    /// Returns the examples of each batch of an epoch. `length` is called only if batches are
    /// grouped by length.
    pub(super) fn batches(&self, n: usize, epoch: u64, length: impl Fn(usize) -> usize) -> Vec<Vec<usize>> {
        let mut order: Vec<usize> = (0..n).collect();
        let mut rng = self.shuffle.map(|seed| Rng::stream(seed, epoch));
        if let Some(rng) = &mut rng {
            rng.shuffle(&mut order);
        }
        if self.bucket_batches > 0 {
            // Without shuffling no randomness needs to be kept: the whole epoch is one bucket.
            let bucket = match rng {
                Some(_) => self.bucket_batches.saturating_mul(self.batch_size),
                None => n.max(1),
            };
            for bucket in order.chunks_mut(bucket) {
                bucket.sort_by_key(|&i| std::cmp::Reverse(length(i)));
            }
        }
        let mut batches: Vec<Vec<usize>> = order.chunks(self.batch_size).map(<[usize]>::to_vec).collect();
        // Removed before the batches are shuffled: the incomplete batch is the last one.
        let incomplete = batches.pop_if(|last| last.len() < self.batch_size);
        if let (Some(rng), true) = (&mut rng, self.bucket_batches > 0) {
            rng.shuffle(&mut batches);
        }
        batches.extend(incomplete.filter(|_| !self.drop_last));
        batches
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(batch_size: usize, shuffle: Option<u64>, drop_last: bool, bucket_batches: usize) -> Order {
        Order { batch_size, shuffle, drop_last, bucket_batches }
    }

    #[test]
    fn every_example_once_an_epoch() {
        for (n, size) in [(0, 3), (1, 3), (3, 3), (10, 3), (100, 7), (12, 1), (5, 50)] {
            for (shuffle, drop_last, buckets) in
                [(None, false, 0), (Some(1), false, 0), (Some(1), true, 4), (None, false, 2), (Some(2), false, 3)]
            {
                let order = order(size, shuffle, drop_last, buckets);
                let batches = order.batches(n, 5, |i| i * 7 % 11);
                assert_eq!(batches.len(), order.n_batches(n));
                assert!(batches.iter().rev().skip(1).all(|batch| batch.len() == size));
                let mut seen = batches.concat();
                seen.sort();
                seen.dedup();
                let left_out = if drop_last { n % size } else { 0 };
                assert_eq!(seen.len(), n - left_out, "{n} {size}");
            }
        }
    }

    #[test]
    fn epochs_and_seeds_differ_and_repeat() {
        let batches = |seed, epoch| order(4, Some(seed), false, 0).batches(40, epoch, |_| 0);
        assert_eq!(batches(1, 0), batches(1, 0));
        assert_ne!(batches(1, 0), batches(1, 1));
        assert_ne!(batches(1, 0), batches(2, 0));
        assert_eq!(order(4, None, false, 0).batches(8, 3, |_| 0), [[0, 1, 2, 3], [4, 5, 6, 7]]);
    }

    #[test]
    fn buckets_put_equal_lengths_together() {
        let length = |i: usize| i * 31 % 64;
        let filling = |order: &Order| -> usize {
            let batches = order.batches(640, 0, length);
            let filling = |batch: &Vec<usize>| {
                let longest = batch.iter().map(|&i| length(i)).max().unwrap();
                batch.iter().map(|&i| longest - length(i)).sum::<usize>()
            };
            batches.iter().map(filling).sum()
        };
        let (plain, buckets) = (filling(&order(8, Some(3), false, 0)), filling(&order(8, Some(3), false, 20)));
        assert!(buckets * 5 < plain, "{buckets} {plain}");
        assert_eq!(filling(&order(10, None, false, 1)), 0);
    }
}
