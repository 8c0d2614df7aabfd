//! A factor B in block-quantised formats, converted to f32 during the product.
//!
//! The columns of B are rows of a weight, each a run of blocks. The loops request some numbers of
//! some columns:
//!
//! ```text
//! for each of the columns:  scratch[column] = the numbers of its blocks     (kernels/blocks)
//! use scratch as a B in f32 that is stored transposed                       (packing, tiles)
//! ```
//!
//! - Only whole blocks are converted, so `k` must be cut at multiples of [`Blocks::unit`].
//! - The scratch memory holds [`DEPTH`] numbers of each column: it stays in the second-level cache,
//!   and the runs of blocks that are read from each column are still long enough for the hardware
//!   prefetcher.
//! - Columns are [`GAP`] elements further apart than necessary: at a distance of a power of two,
//!   the first-level cache could hold only a few of them.
//!
//! An element of C is the same chain as if all of B had been converted before, so the bits are the
//! same.

use std::ops::Range;

use super::micro::PANEL;
use super::packing::{Source, with_scratch};
use crate::kernels::blocks::{self, BlockFormat};
use crate::kernels::simd::Isa;

/// The number of elements of a column that are converted at a time: whole blocks of every format.
const DEPTH: usize = 1024;
/// The number of elements between the columns in the scratch memory.
const GAP: usize = 16;

/// Columns in blocks, one after another.
#[derive(Clone, Copy)]
pub struct Blocks {
    data: *const u8,
    format: BlockFormat,
    k: usize,
}

impl Blocks {
    /// Wraps the blocks of columns of `k` numbers.
    pub(super) fn new(format: BlockFormat, data: &[u8], k: usize) -> Self {
        Self { data: data.as_ptr(), format, k }
    }

    /// Returns the number of elements of a block; ranges of `k` begin and end at multiples of it.
    pub(super) fn unit(&self) -> usize {
        self.format.block_len()
    }

    /// Calls `f` with the numbers `rows` of the columns `cols`, in portions of rows: the range of
    /// the portion and its place. Calls it at least once.
    ///
    /// # Safety
    ///
    /// * rows and columns are in B; there are at most `PANEL` columns; the rows begin and end at
    ///   multiples of [`Blocks::unit`].
    pub(super) unsafe fn columns<I: Isa>(
        &self,
        isa: I,
        rows: Range<usize>,
        cols: Range<usize>,
        mut f: impl FnMut(Range<usize>, Source),
    ) {
        let stride = self.format.bytes_for(self.k);
        with_scratch(PANEL * (DEPTH.min(rows.len()) + GAP), |scratch| {
            for start in (rows.start..rows.end.max(rows.start + 1)).step_by(DEPTH) {
                let part = start..rows.end.min(start + DEPTH);
                let along = part.len() + GAP;
                let skipped = cols.start * stride + self.format.bytes_for(part.start);
                let len = (cols.len() - 1) * stride + self.format.bytes_for(part.len());
                // SAFETY: these are the bytes from the first column's blocks to the last column's,
                // all of them in B.
                let bytes = unsafe { std::slice::from_raw_parts(self.data.add(skipped), len) };
                blocks::dequantize_rows(isa, self.format, (bytes, stride), (scratch, along), (cols.len(), part.len()));
                f(part, Source { data: scratch.as_ptr(), along, deep: 1 });
            }
        });
    }
}
