//! Any processor: pairs of 16-bit numbers, which the compiler turns into `pmaddwd` or a similar
//! instruction where there is one.

use super::{GroupArgs, PANEL, TileArgs, TileKernel, by_rows};

#[derive(Clone, Copy)]
pub(in crate::kernels::gemm) struct Portable;

impl TileKernel for Portable {
    type Sum = i32;
    const MR: usize = 4;
    const NR: usize = 8;
    const STEP: usize = 1;
    const ROWS_OF_A: bool = false;
    const NS: f32 = 1.0;

    fn begin(self) -> impl Drop {
        super::Nothing
    }

    #[inline]
    unsafe fn tile(self, args: GroupArgs<i32>) {
        // SAFETY: this method's own contract.
        unsafe { by_rows!([1 2 3 4], tile, args) }
    }
}

/// # Safety
///
/// Same as [`TileKernel::tile`] with `rows = R`.
unsafe fn tile<const R: usize>(args: GroupArgs<i32>) {
    let TileArgs { k, a, b, c, ldc, load, .. } = args;
    const N: usize = 8;
    let mut acc = [[0i32; N]; R];
    // SAFETY: every address below is one that the caller lets us touch; arrays have their elements'
    // alignment.
    unsafe {
        if load {
            for (i, acc) in acc.iter_mut().enumerate() {
                *acc = *c.add(i * ldc).cast();
            }
        }
        for p in 0..k {
            let row: [u32; N] = *b.add(p * PANEL).cast();
            for (i, acc) in acc.iter_mut().enumerate() {
                let halves = |x: u32| [i32::from(x as i16), i32::from((x >> 16) as i16)];
                let [low, high] = halves(*a.add(p * R + i));
                for (acc, &y) in acc.iter_mut().zip(&row) {
                    let y = halves(y);
                    *acc = acc.wrapping_add(low * y[0]).wrapping_add(high * y[1]);
                }
            }
        }
        for (i, acc) in acc.iter().enumerate() {
            *c.add(i * ldc).cast() = *acc;
        }
    }
}
