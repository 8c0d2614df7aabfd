//! Which keys a query attends to.

use std::ops::Range;

use super::AttentionShape;
use crate::kernels::extent::extent;
use crate::kernels::gemm::micro::{MicroKernel, PANEL};
use crate::kernels::gemm::packing::{Source, pack_panel};

/// A mask of single scores.
///
/// The matrix of queries × keys may be shared by heads and sequences: `batch_stride` and
/// `head_stride` are the elements from one matrix to the next, 0 where they share.
#[derive(Clone, Copy, Debug, Default)]
pub enum Mask<'a> {
    /// No mask.
    #[default]
    None,
    /// Added to the scaled scores; −∞ masks a key.
    Add {
        /// Matrices of `[T, S]`.
        data: &'a [f32],
        /// The distance between the matrices of consecutive sequences, in elements.
        batch_stride: usize,
        /// The distance between the matrices of consecutive heads, in elements.
        head_stride: usize,
    },
    /// A key is masked where this is false.
    Keep {
        /// Matrices of `[T, S]`.
        data: &'a [bool],
        /// The distance between the matrices of consecutive sequences, in elements.
        batch_stride: usize,
        /// The distance between the matrices of consecutive heads, in elements.
        head_stride: usize,
    },
}

impl Mask<'_> {
    pub(super) fn check(&self, shape: &AttentionShape<'_>) {
        let (len, batch_stride, head_stride) = match *self {
            Mask::None => return,
            Mask::Add { data, batch_stride, head_stride } => (data.len(), batch_stride, head_stride),
            Mask::Keep { data, batch_stride, head_stride } => (data.len(), batch_stride, head_stride),
        };
        let AttentionShape { batch, n_heads, queries, keys, .. } = *shape;
        let needed = extent([(batch, batch_stride), (n_heads, head_stride), (queries, keys), (keys, 1)]);
        assert!(
            needed.is_some_and(|needed| needed <= len),
            "attention: the mask needs {} elements, has {len}",
            needed.map_or("more than there can be".into(), |needed| needed.to_string())
        );
    }
}

/// The keys that the queries of one head of one sequence attend to.
#[derive(Clone, Copy)]
pub(super) struct Visible<'a> {
    /// The number of keys of the sequence.
    keys: usize,
    /// The position of query 0 among the keys, if causal.
    first: Option<usize>,
    window: usize,
    key_mask: Option<&'a [bool]>,
    mask: Mask<'a>,
    /// The offset of the matrix of `mask`, and its row length.
    mask_at: usize,
    mask_row: usize,
}

impl<'a> Visible<'a> {
    pub(super) fn new(shape: &AttentionShape<'a>, batch: usize, head: usize) -> Self {
        let first = shape.causal.then(|| shape.positions.map_or_else(|| shape.keys - shape.queries, |p| p[batch]));
        let mask_at = match shape.mask {
            // Without keys there is no mask, and the strides may be anything.
            _ if shape.keys == 0 => 0,
            Mask::None => 0,
            Mask::Add { batch_stride, head_stride, .. } | Mask::Keep { batch_stride, head_stride, .. } => {
                batch * batch_stride + head * head_stride
            }
        };
        Visible {
            keys: shape.key_lengths.map_or(shape.keys, |lengths| lengths[batch]),
            first,
            window: shape.window.unwrap_or(usize::MAX),
            key_mask: shape.key_mask.map(|mask| &mask[batch * shape.keys..(batch + 1) * shape.keys]),
            mask: shape.mask,
            mask_at,
            mask_row: shape.keys,
        }
    }

    /// Returns a range that contains all keys that any of these queries attends to.
    pub(super) fn range(&self, queries: Range<usize>) -> Range<usize> {
        match self.first {
            None => 0..self.keys,
            Some(first) => {
                let end = (first + queries.end).min(self.keys);
                (first + queries.start + 1).saturating_sub(self.window).min(end)..end
            }
        }
    }

    /// Returns whether all of these queries attend to all of these keys, and nothing is added to
    /// their scores.
    pub(super) fn all(&self, queries: Range<usize>, keys: Range<usize>) -> bool {
        let in_range = match self.first {
            None => keys.end <= self.keys,
            Some(_) => {
                let (start, end) =
                    (self.range(queries.start..queries.start + 1), self.range(queries.end - 1..queries.end));
                keys.end <= start.end && end.start <= keys.start
            }
        };
        in_range
            && matches!(self.mask, Mask::None)
            && self.key_mask.is_none_or(|mask| mask[keys].iter().all(|&seen| seen))
    }

    /// Returns the range (first, and one past the last) of the queries from `query` on, at most
    /// `PANEL`, that attend to the key.
    #[inline]
    pub(super) fn lanes(&self, query: usize, key: usize) -> (i32, i32) {
        if key >= self.keys || self.key_mask.is_some_and(|mask| !mask[key]) {
            return (0, 0);
        }
        match self.first {
            None => (0, PANEL as i32),
            Some(first) => {
                // Query i attends to the key iff key <= first + i < key + window.
                let lane = |i: usize| i.saturating_sub(first).saturating_sub(query).min(PANEL) as i32;
                (lane(key), lane(key.saturating_add(self.window)))
            }
        }
    }

    /// Writes the term that the mask adds to the scores of `PANEL` queries and some keys,
    /// `[keys, PANEL]`; returns false if there is no mask.
    ///
    /// # Safety
    ///
    /// * the queries and keys are in the matrix; `dst` may be written for
    ///   `keys.len() · PANEL + SLACK` elements.
    pub(super) unsafe fn added<K: MicroKernel>(
        &self,
        kernel: K,
        queries: Range<usize>,
        keys: Range<usize>,
        dst: *mut f32,
    ) -> bool {
        let at = |i: usize, j: usize| self.mask_at + i * self.mask_row + j;
        match self.mask {
            Mask::None => return false,
            Mask::Add { data, .. } => {
                let part = &data[at(queries.start, keys.start)..=at(queries.end - 1, keys.end - 1)];
                let source = Source { data: part.as_ptr(), along: self.mask_row, deep: 1 };
                // SAFETY: the slice above holds the block; the rest is the caller's promise.
                unsafe { pack_panel(kernel, source, queries.len(), PANEL, keys.len(), dst) };
            }
            Mask::Keep { data, .. } => {
                for (lane, i) in queries.enumerate() {
                    for (row, &seen) in data[at(i, keys.start)..at(i, keys.end)].iter().enumerate() {
                        // SAFETY: the caller's promise.
                        unsafe { *dst.add(row * PANEL + lane) = if seen { 0.0 } else { f32::NEG_INFINITY } };
                    }
                }
            }
        }
        true
    }

    /// Returns whether the key is masked for all queries, regardless of their positions.
    pub(super) fn hides(&self, key: usize) -> bool {
        self.key_mask.is_some_and(|mask| !mask[key])
    }

    /// Masks the scores of one query, for the keys from `first` on.
    pub(super) fn mask_row(&self, query: usize, first: usize, scores: &mut [f32]) {
        let range = self.range(query..query + 1);
        let at = self.mask_at + query * self.mask_row + first;
        match self.mask {
            Mask::None => {}
            Mask::Add { data, .. } => {
                for (score, &added) in scores.iter_mut().zip(&data[at..]) {
                    // Masked, even if the score is NaN.
                    *score = if added == f32::NEG_INFINITY { added } else { *score + added };
                }
            }
            Mask::Keep { data, .. } => {
                for (score, &seen) in scores.iter_mut().zip(&data[at..]) {
                    if !seen {
                        *score = f32::NEG_INFINITY;
                    }
                }
            }
        }
        if let Some(mask) = self.key_mask {
            for (score, &seen) in scores.iter_mut().zip(&mask[first..]) {
                if !seen {
                    *score = f32::NEG_INFINITY;
                }
            }
        }
        let len = scores.len();
        scores[..range.start.saturating_sub(first).min(len)].fill(f32::NEG_INFINITY);
        scores[range.end.saturating_sub(first).min(len)..].fill(f32::NEG_INFINITY);
    }
}
