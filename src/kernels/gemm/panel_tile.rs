//! A tile of all columns of a panel of B, for products with few rows, where reading B dominates the
//! time.
//!
//! Each line of the panel should be read once, in memory order: a tile of half the columns of a
//! panel skips every second line and reads those lines later, which took a quarter longer from
//! memory. So a tile of one or two rows takes the whole panel, whatever the width of a vector. A
//! tile of more rows, whose sums fill the registers, takes the columns in portions, for as many
//! rows of B at a time as fit into the first-level cache.

use std::ops::Range;

use super::micro::{PANEL, TileArgs};
use super::operand::Group;
use crate::kernels::simd::{Isa, SimdOp};

/// The largest number of rows of [`panel_tile`].
pub(super) const PANEL_MR: usize = 6;
/// The number of rows of B that are read for some columns before the next columns.
const DEPTH: usize = 64;

/// Computes [`MicroKernel::tile`](super::micro::MicroKernel::tile) for `PANEL` columns of a B in
/// groups and a packed A; `k` and the bits are those of the same numbers in f32.
///
/// # Safety
///
/// Same as [`MicroKernel::tile`](super::micro::MicroKernel::tile), with `rows <= PANEL_MR`; `b` has
/// one group for each `Group::ROWS` rows of `k`, rounded up.
pub(super) unsafe fn panel_tile<I: Isa, G: Group>(isa: I, args: TileArgs<f32, G>) {
    match args.rows {
        1 => isa.run(Tile::<G, 1>(args)),
        2 => isa.run(Tile::<G, 2>(args)),
        3 => isa.run(Tile::<G, 3>(args)),
        4 => isa.run(Tile::<G, 4>(args)),
        5 => isa.run(Tile::<G, 5>(args)),
        6 => isa.run(Tile::<G, 6>(args)),
        rows => unreachable!("a tile of {rows} rows"),
    }
}

/// A tile of `R` rows.
struct Tile<G, const R: usize>(TileArgs<f32, G>);

impl<G: Group, const R: usize> SimdOp for Tile<G, R> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        let k = self.0.k;
        // Constants, so that only one arm is compiled.
        match const { if R <= 2 { PANEL / I::LANES } else { 2 } } {
            4 => self.columns::<I, 4>(isa, 0, 0..k),
            8 => self.columns::<I, 8>(isa, 0, 0..k),
            _ => {
                let depth = if const { PANEL / I::LANES == 2 } { k.max(1) } else { DEPTH };
                for p in (0..k.max(1)).step_by(depth) {
                    for j in (0..PANEL).step_by(2 * I::LANES) {
                        self.columns::<I, 2>(isa, j, p..k.min(p.saturating_add(depth)));
                    }
                }
            }
        }
    }
}

impl<G: Group, const R: usize> Tile<G, R> {
    /// Computes `V` vectors of columns starting at `j`, for some rows of B, which begin at a whole
    /// group.
    #[inline(always)]
    fn columns<I: Isa, const V: usize>(&self, isa: I, j: usize, rows: Range<usize>) {
        let TileArgs { a, b, ldb, c, ldc, load, .. } = self.0;
        let c = |i: usize, v: usize| c.wrapping_add(i * ldc + j + v * I::LANES);
        // SAFETY: the contract of `panel_tile`; so many vectors divide a panel.
        unsafe {
            let mut acc = [[isa.zero(); V]; R];
            if load || rows.start > 0 {
                for (i, acc) in acc.iter_mut().enumerate() {
                    for (v, acc) in acc.iter_mut().enumerate() {
                        *acc = isa.load_ptr(c(i, v));
                    }
                }
            }
            for first in rows.clone().step_by(G::ROWS) {
                let groups = b.add(first / G::ROWS * ldb + j);
                for row in 0..G::ROWS.min(rows.end - first) {
                    let mut y = [isa.zero(); V];
                    for (v, y) in y.iter_mut().enumerate() {
                        *y = G::row(isa, groups.add(v * I::LANES), row);
                    }
                    for (i, acc) in acc.iter_mut().enumerate() {
                        let x = isa.splat(*a.add((first + row) * R + i));
                        for v in 0..V {
                            acc[v] = isa.mul_add(x, y[v], acc[v]);
                        }
                    }
                }
            }
            for (i, acc) in acc.iter().enumerate() {
                for (v, &acc) in acc.iter().enumerate() {
                    isa.store_ptr(c(i, v), acc);
                }
            }
        }
    }
}
