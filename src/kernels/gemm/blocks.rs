//! A B in blocks of a few bits a number, converted to f32 while it is multiplied with.
//!
//! The columns of B are rows of a weight, each a run of blocks. Whatever reads B asks for some
//! numbers of some columns:
//!
//! ```text
//! for each of the columns:  scratch[column] = the numbers of its blocks     (kernels/blocks)
//! use scratch as a B in f32 that is stored transposed                       (packing, tiles)
//! ```
//!
//! - Only whole blocks are converted, so whoever cuts `k` cuts it at multiples of [`Blocks::unit`].
//! - The scratch has [`DEPTH`] numbers of each column: it stays in the second-level cache, and each
//!   column's blocks are still read in runs that are long enough for the processor to fetch ahead.
//! - Columns lie [`GAP`] elements further apart than their numbers need: at a power of two, the
//!   first-level cache would keep only a few of them.
//!
//! An element of C is the same chain as with all of B converted before, so the bits are the same.

use std::ops::Range;

use super::micro::PANEL;
use super::packing::{Source, with_scratch};
use crate::kernels::blocks::{self, BlockFormat};
use crate::kernels::simd::Isa;

/// Numbers of a column that are converted at a time: whole blocks of every format.
const DEPTH: usize = 1024;
/// Elements between one column's numbers and the next's.
const GAP: usize = 16;

/// Columns in blocks, one after the other.
#[derive(Clone, Copy)]
pub struct Blocks {
    data: *const u8,
    format: BlockFormat,
    k: usize,
}

impl Blocks {
    /// The blocks of columns of `k` numbers.
    pub(super) fn new(format: BlockFormat, data: &[u8], k: usize) -> Self {
        Self { data: data.as_ptr(), format, k }
    }

    /// Numbers of a block: what reads B begins and ends at multiples of it in `k`.
    pub(super) fn unit(&self) -> usize {
        self.format.block_len()
    }

    /// Calls `f` with the numbers `rows` of the columns `cols`, some rows after the other: which
    /// these are, and where. At least once.
    ///
    /// # Safety
    ///
    /// * rows and columns are in B, the columns `PANEL` at most; the rows begin and end at
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
                blocks::widen_rows(isa, self.format, (bytes, stride), (scratch, along), (cols.len(), part.len()));
                f(part, Source { data: scratch.as_ptr(), along, deep: 1 });
            }
        });
    }
}
