//! Any processor: tiles of up to 4 × 8, which the compiler maps to the target's vectors.
//!
//! A multiply–add rounds twice here: without the instruction, a fused one would be a library call
//! for each element.

use super::{MicroKernel, TileArgs, by_rows};
use crate::kernels::simd::Baseline;

#[derive(Clone, Copy)]
pub(super) struct Tile;

impl MicroKernel for Tile {
    type Isa = Baseline;
    const MR: usize = 4;
    const NR: usize = 8;

    #[inline(always)]
    fn isa(self) -> Baseline {
        Baseline::new()
    }

    #[inline]
    unsafe fn tile(self, args: TileArgs) {
        // SAFETY: this method's own contract.
        unsafe { by_rows!([1 2 3 4], tile, args) }
    }
}

/// # Safety
///
/// Same as [`MicroKernel::tile`] with `rows = R`.
unsafe fn tile<const R: usize>(args: TileArgs) {
    let TileArgs { k, a, lda, b, ldb, c, ldc, load, .. } = args;
    const N: usize = Tile::NR;
    let mut acc = [[0.0f32; N]; R];
    // SAFETY: every address below is one that the caller lets us touch; `[f32; N]` has the
    // alignment of `f32`.
    unsafe {
        if load {
            for (i, acc) in acc.iter_mut().enumerate() {
                *acc = *c.add(i * ldc).cast();
            }
        }
        let (mut a, mut b) = (a, b);
        for _ in 0..k {
            let row: [f32; N] = *b.cast();
            for (i, acc) in acc.iter_mut().enumerate() {
                let x = *a.add(i);
                for (acc, &y) in acc.iter_mut().zip(&row) {
                    *acc += x * y;
                }
            }
            a = a.wrapping_add(lda);
            b = b.wrapping_add(ldb);
        }
        for (i, acc) in acc.iter().enumerate() {
            *c.add(i * ldc).cast() = *acc;
        }
    }
}
