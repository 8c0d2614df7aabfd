//! The order in which a batch of sequences of different lengths is processed, without steps for
//! padding.
//!
//! Sequences are sorted by length, the longest first; step `s` processes position `s` of the
//! sequences that have one, which are the first `active[s]`. All positions, step after step, are
//! the packed rows (`torch.nn.utils.rnn.pack_padded_sequence`).

use std::ops::Range;

use crate::error::{Error, Result};

/// The positions that each step processes.
#[derive(Clone, Debug)]
pub(super) struct Schedule {
    pub(super) batch: usize,
    pub(super) seq_len: usize,
    /// The sequences, the longest first, those of equal length in their original order.
    pub(super) order: Vec<u32>,
    /// The lengths in that order.
    lengths: Vec<usize>,
    /// The first packed row of each step, followed by the number of packed rows.
    starts: Vec<usize>,
    /// The row of `[batch · seq_len]` of each packed row.
    pub(super) rows: Vec<u32>,
}

impl Schedule {
    pub(super) fn new(batch: usize, seq_len: usize, lengths: Option<&[usize]>, reverse: bool) -> Result<Self> {
        if batch.checked_mul(seq_len).is_none_or(|n| n > u32::MAX as usize) {
            return Err(Error::shape("recurrent", "a number of positions below 2^32", [batch, seq_len]));
        }
        if let Some(lengths) = lengths.filter(|lengths| lengths.len() != batch) {
            return Err(Error::shape("recurrent lengths", format!("[{batch}]"), [lengths.len()]));
        }
        if let Some(&length) = lengths.and_then(|lengths| lengths.iter().find(|&&length| length > seq_len)) {
            return Err(Error::argument("recurrent length", format!("at most {seq_len}"), length));
        }
        let length = |b: usize| lengths.map_or(seq_len, |lengths| lengths[b]);
        let mut order: Vec<u32> = (0..batch as u32).collect();
        order.sort_by_key(|&b| std::cmp::Reverse(length(b as usize)));
        let lengths: Vec<usize> = order.iter().map(|&b| length(b as usize)).collect();
        let (mut starts, mut rows) = (vec![0], Vec::new());
        for step in 0..lengths.first().copied().unwrap_or(0) {
            let active = lengths.partition_point(|&length| length > step);
            for slot in 0..active {
                let position = if reverse { lengths[slot] - 1 - step } else { step };
                rows.push((order[slot] as usize * seq_len + position) as u32);
            }
            starts.push(rows.len());
        }
        Ok(Self { batch, seq_len, order, lengths, starts, rows })
    }

    pub(super) fn steps(&self) -> usize {
        self.starts.len() - 1
    }

    /// Returns the number of sequences in each step.
    pub(super) fn active(&self) -> impl Iterator<Item = usize> {
        self.starts.windows(2).map(|ends| ends[1] - ends[0])
    }

    /// Returns the packed rows of a step.
    pub(super) fn step(&self, step: usize) -> Range<usize> {
        self.starts[step]..self.starts[step + 1]
    }

    /// Returns the states before a step, as a range of a buffer of the `batch` initial states
    /// followed by the packed rows.
    pub(super) fn before(&self, step: usize) -> Range<usize> {
        let first = if step == 0 { 0 } else { self.batch + self.starts[step - 1] };
        first..first + self.step(step).len()
    }

    /// Returns the last state of each sequence in the same buffer, in the order of the batch.
    pub(super) fn last(&self) -> Vec<u32> {
        let mut last = vec![0; self.batch];
        for (slot, (&b, &length)) in self.order.iter().zip(&self.lengths).enumerate() {
            let row = if length == 0 { slot } else { self.batch + self.starts[length - 1] + slot };
            last[b as usize] = row as u32;
        }
        last
    }

    /// Returns whether there is no padding.
    pub(super) fn is_full(&self) -> bool {
        self.rows.len() == self.batch * self.seq_len
    }

    /// Returns whether the packed rows are in the original order.
    pub(super) fn is_identity(&self) -> bool {
        self.is_full() && self.rows.iter().zip(0..).all(|(&row, i)| row == i)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unequal_sequences_are_packed_longest_first() {
        let schedule = Schedule::new(3, 4, Some(&[2, 4, 0]), false).unwrap();
        assert_eq!(schedule.order, [1, 0, 2]);
        assert_eq!(schedule.rows, [4, 0, 5, 1, 6, 7]);
        assert_eq!((0..4).map(|s| schedule.step(s)).collect::<Vec<_>>(), [0..2, 2..4, 4..5, 5..6]);
        assert_eq!((0..4).map(|s| schedule.before(s)).collect::<Vec<_>>(), [0..2, 3..5, 5..6, 7..8]);
        assert_eq!(schedule.last(), [6, 8, 2]);
        let backwards = Schedule::new(3, 4, Some(&[2, 4, 0]), true).unwrap();
        assert_eq!(backwards.rows, [7, 1, 6, 0, 5, 4]);
    }

    #[test]
    fn one_full_sequence_is_read_as_it_is() {
        assert!(Schedule::new(1, 5, None, false).unwrap().is_identity());
        assert!(!Schedule::new(2, 5, None, false).unwrap().is_identity());
        assert!(Schedule::new(2, 5, None, true).unwrap().is_full());
        assert_eq!(Schedule::new(0, 5, None, true).unwrap().steps(), 0);
    }

    #[test]
    fn lengths_that_do_not_fit_are_errors() {
        assert!(Schedule::new(2, 3, Some(&[1]), false).is_err());
        assert!(Schedule::new(2, 3, Some(&[1, 4]), false).is_err());
        assert!(Schedule::new(usize::MAX, 2, None, false).is_err());
    }
}
