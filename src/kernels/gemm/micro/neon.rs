//! NEON: tiles of up to 8 × 8, 16 accumulators of the 32 registers.

use std::arch::aarch64::*;

use super::{MicroKernel, TileArgs, by_rows};
use crate::kernels::simd::Neon;

#[derive(Clone, Copy)]
pub(super) struct Tile(pub(super) Neon);

impl MicroKernel for Tile {
    type Isa = Neon;
    const MR: usize = 8;
    const NR: usize = 8;

    #[inline(always)]
    fn isa(self) -> Neon {
        self.0
    }

    #[inline]
    unsafe fn tile(self, args: TileArgs) {
        // SAFETY: the token proves the instructions; the rest is this method's own contract.
        unsafe { by_rows!([1 2 3 4 5 6 7 8], tile, args) }
    }

    #[inline]
    unsafe fn transpose(self, src: *const f32, lds: usize, rows: usize, cols: usize, dst: *mut f32, ldd: usize) {
        // SAFETY: the token proves the instructions; the rest is this method's own contract.
        unsafe { transpose(src, lds, rows, cols, dst, ldd) }
    }
}

/// # Safety
///
/// Same as [`MicroKernel::tile`] with `rows = R`.
#[target_feature(enable = "neon")]
unsafe fn tile<const R: usize>(args: TileArgs) {
    let TileArgs { k, a, lda, b, ldb, c, ldc, load, .. } = args;
    let mut acc = [[vdupq_n_f32(0.0); 2]; R];
    // SAFETY: every address below is one that the caller lets us touch.
    unsafe {
        if load {
            for (i, acc) in acc.iter_mut().enumerate() {
                *acc = [vld1q_f32(c.add(i * ldc)), vld1q_f32(c.add(i * ldc + 4))];
            }
        }
        let (mut a, mut b) = (a, b);
        for _ in 0..k {
            let row = [vld1q_f32(b), vld1q_f32(b.wrapping_add(4))];
            for (i, acc) in acc.iter_mut().enumerate() {
                let x = vdupq_n_f32(*a.add(i));
                *acc = [vfmaq_f32(acc[0], x, row[0]), vfmaq_f32(acc[1], x, row[1])];
            }
            a = a.wrapping_add(lda);
            b = b.wrapping_add(ldb);
        }
        for (i, acc) in acc.iter().enumerate() {
            vst1q_f32(c.add(i * ldc), acc[0]);
            vst1q_f32(c.add(i * ldc + 4), acc[1]);
        }
    }
}

/// # Safety
///
/// Same as [`MicroKernel::transpose`].
#[target_feature(enable = "neon")]
unsafe fn transpose(src: *const f32, lds: usize, rows: usize, cols: usize, dst: *mut f32, ldd: usize) {
    // SAFETY: rows and columns are read one by one where there are not four.
    unsafe {
        for first in (0..rows).step_by(4) {
            let dst = dst.add(first);
            if rows - first < 4 {
                for (p, i) in (0..cols).flat_map(|p| (0..rows - first).map(move |i| (p, i))) {
                    *dst.add(p * ldd + i) = *src.add((first + i) * lds + p);
                }
                continue;
            }
            let row = |i: usize| src.add((first + i) * lds);
            for p in (0..cols & !3).step_by(4) {
                let [a, b, c, d]: [float32x4_t; 4] = std::array::from_fn(|r| vld1q_f32(row(r).add(p)));
                let (ab, cd) = (vtrnq_f32(a, b), vtrnq_f32(c, d));
                let low = |x, y| vcombine_f32(vget_low_f32(x), vget_low_f32(y));
                let high = |x, y| vcombine_f32(vget_high_f32(x), vget_high_f32(y));
                vst1q_f32(dst.add(p * ldd), low(ab.0, cd.0));
                vst1q_f32(dst.add((p + 1) * ldd), low(ab.1, cd.1));
                vst1q_f32(dst.add((p + 2) * ldd), high(ab.0, cd.0));
                vst1q_f32(dst.add((p + 3) * ldd), high(ab.1, cd.1));
            }
            for p in cols & !3..cols {
                let column: [f32; 4] = std::array::from_fn(|i| *row(i).add(p));
                vst1q_f32(dst.add(p * ldd), vld1q_f32(column.as_ptr()));
            }
        }
    }
}
