//! Arm: `sdot` of four signed numbers, tiles of up to 8 × 8.

use std::arch::aarch64::*;
use std::arch::asm;

use super::{GroupArgs, PANEL, TileArgs, TileKernel, by_rows};
use crate::kernels::simd::{self, Neon};

/// The kernel, both factors signed, and proof that the processor has `dotprod`.
#[derive(Clone, Copy)]
pub(in crate::kernels::gemm) struct Dotprod(#[allow(dead_code)] Neon);

impl Dotprod {
    pub(in crate::kernels::gemm) fn new() -> Option<Self> {
        if simd::features().dotprod { Neon::new().map(Dotprod) } else { None }
    }
}

impl TileKernel for Dotprod {
    type Sum = i32;
    const MR: usize = 8;
    const NR: usize = 8;
    const STEP: usize = 1;
    const ROWS_OF_A: bool = false;
    const NS: f32 = 0.15 / 8.0;

    fn begin(self) -> impl Drop {
        super::Nothing
    }

    #[inline]
    unsafe fn tile(self, args: GroupArgs<i32>) {
        // SAFETY: the token proves the instructions; the rest is this method's own contract.
        unsafe { by_rows!([1 2 3 4 5 6 7 8], tile, args) }
    }
}

/// # Safety
///
/// Same as [`TileKernel::tile`] with `rows = R`.
#[target_feature(enable = "neon,dotprod")]
unsafe fn tile<const R: usize>(args: GroupArgs<i32>) {
    let TileArgs { k, a, b, c, ldc, load, .. } = args;
    let mut acc = [[vdupq_n_s32(0); 2]; R];
    // SAFETY: every address below is one that the caller lets us touch; `sdot` reads and writes
    // registers only.
    unsafe {
        if load {
            for (i, acc) in acc.iter_mut().enumerate() {
                *acc = [vld1q_s32(c.add(i * ldc)), vld1q_s32(c.add(i * ldc + 4))];
            }
        }
        let (mut a, mut b) = (a, b);
        for _ in 0..k {
            let row = [vld1q_u32(b), vld1q_u32(b.wrapping_add(4))];
            for (i, acc) in acc.iter_mut().enumerate() {
                let x = vdupq_n_u32(*a.add(i));
                for (acc, y) in acc.iter_mut().zip(row) {
                    asm!(
                        "sdot {acc:v}.4s, {x:v}.16b, {y:v}.16b",
                        acc = inout(vreg) *acc,
                        x = in(vreg) x,
                        y = in(vreg) y,
                        options(pure, nomem, nostack, preserves_flags),
                    );
                }
            }
            a = a.wrapping_add(R);
            b = b.wrapping_add(PANEL);
        }
        for (i, acc) in acc.iter().enumerate() {
            vst1q_s32(c.add(i * ldc), acc[0]);
            vst1q_s32(c.add(i * ldc + 4), acc[1]);
        }
    }
}
