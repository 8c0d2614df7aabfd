//! x86: `vpdpbusd` of AVX512-VNNI and AVX-VNNI, and `vpmaddwd` of AVX2.

use std::arch::x86_64::*;

use super::avx512::columns_by;
use super::{ColumnsKernel, GroupArgs, PANEL, TileArgs, TileKernel, by_rows};
use crate::kernels::simd::{self, Avx2, Avx512, Level};

/// Declares a kernel: its token, tile and feature check.
macro_rules! kernel {
    ($(#[$doc:meta])* $name:ident, $isa:ty, $available:expr, $mr:literal [$($n:literal)*] by $nr:literal, $tile:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy)]
        pub(in crate::kernels::gemm) struct $name($isa);

        impl $name {
            pub(in crate::kernels::gemm) fn new() -> Option<Self> {
                if $available { <$isa>::new().map($name) } else { None }
            }
        }

        impl TileKernel for $name {
            type Sum = i32;
            const MR: usize = $mr;
            const NR: usize = $nr;
            const STEP: usize = 1;
            const ROWS_OF_A: bool = false;
            const NS: f32 = 0.15 / $nr as f32;

            fn begin(self) -> impl Drop {
                super::Nothing
            }

            #[inline]
            unsafe fn tile(self, args: GroupArgs<i32>) {
                // SAFETY: the token proves the instructions; the rest is this method's own
                // contract.
                unsafe { by_rows!([$($n)*], $tile, args) }
            }
        }
    };
}

kernel! {
    /// AVX512-VNNI, the left factor unsigned.
    Avx512Vnni, Avx512, simd::features().avx512_vnni, 14 [1 2 3 4 5 6 7 8 9 10 11 12 13 14] by 32, avx512_vnni
}
kernel! {
    /// AVX-VNNI, the left factor unsigned.
    AvxVnni, Avx2, simd::features().avx_vnni, 6 [1 2 3 4 5 6] by 16, avx_vnni
}
kernel! {
    /// AVX2, pairs of 16 bits: `vpmaddubsw` on four of 8 bits would saturate.
    Avx2Int8, Avx2, simd::level() >= Level::Avx2, 6 [1 2 3 4 5 6] by 16, avx2
}

/// Defines the tile of 256-bit vectors around one multiply–add.
macro_rules! tile256 {
    ($tile:ident, $features:literal, |$acc:ident, $x:ident, $y:ident| $step:expr) => {
        /// # Safety
        ///
        /// Same as [`TileKernel::tile`] with `rows = R`.
        #[target_feature(enable = $features)]
        unsafe fn $tile<const R: usize>(args: GroupArgs<i32>) {
            let TileArgs { k, a, b, c, ldc, load, .. } = args;
            let mut acc = [[_mm256_setzero_si256(); 2]; R];
            // SAFETY: every address below is one that the caller lets us touch.
            unsafe {
                let at = |i: usize| [c.wrapping_add(i * ldc).cast(), c.wrapping_add(i * ldc + 8).cast()];
                if load {
                    for (i, acc) in acc.iter_mut().enumerate() {
                        *acc = at(i).map(|c| _mm256_loadu_si256(c));
                    }
                }
                let (mut a, mut b) = (a, b);
                for _ in 0..k {
                    let row = [_mm256_loadu_si256(b.cast()), _mm256_loadu_si256(b.wrapping_add(8).cast())];
                    for (i, acc) in acc.iter_mut().enumerate() {
                        let $x = _mm256_set1_epi32(*a.add(i) as i32);
                        for ($acc, $y) in acc.iter_mut().zip(row) {
                            *$acc = $step;
                        }
                    }
                    a = a.wrapping_add(R);
                    b = b.wrapping_add(PANEL);
                }
                for (i, acc) in acc.iter().enumerate() {
                    let [low, high] = at(i);
                    _mm256_storeu_si256(low, acc[0]);
                    _mm256_storeu_si256(high, acc[1]);
                }
            }
        }
    };
}

tile256!(avx_vnni, "avx2,avxvnni", |acc, x, y| _mm256_dpbusd_avx_epi32(*acc, x, y));
tile256!(avx2, "avx2", |acc, x, y| _mm256_add_epi32(*acc, _mm256_madd_epi16(x, y)));

/// # Safety
///
/// Same as [`TileKernel::tile`] with `rows = R`.
#[target_feature(enable = "avx512f,avx512vnni")]
unsafe fn avx512_vnni<const R: usize>(args: GroupArgs<i32>) {
    let TileArgs { k, a, b, c, ldc, load, .. } = args;
    let mut acc = [[_mm512_setzero_si512(); 2]; R];
    // SAFETY: every address below is one that the caller lets us touch.
    unsafe {
        let at = |i: usize| [c.wrapping_add(i * ldc).cast(), c.wrapping_add(i * ldc + 16).cast()];
        if load {
            for (i, acc) in acc.iter_mut().enumerate() {
                *acc = at(i).map(|c| _mm512_loadu_si512(c));
            }
        }
        let (mut a, mut b) = (a, b);
        for _ in 0..k {
            let row = [_mm512_loadu_si512(b.cast()), _mm512_loadu_si512(b.wrapping_add(16).cast())];
            for (i, acc) in acc.iter_mut().enumerate() {
                let x = _mm512_set1_epi32(*a.add(i) as i32);
                *acc = [_mm512_dpbusd_epi32(acc[0], x, row[0]), _mm512_dpbusd_epi32(acc[1], x, row[1])];
            }
            a = a.wrapping_add(R);
            b = b.wrapping_add(PANEL);
        }
        for (i, acc) in acc.iter().enumerate() {
            let [low, high] = at(i);
            _mm512_storeu_si512(low, acc[0]);
            _mm512_storeu_si512(high, acc[1]);
        }
    }
}

impl ColumnsKernel for Avx512Vnni {
    type Sum = i32;
    const ROWS: usize = 8;
    const STEP: usize = 1;

    fn begin(self, _: usize) -> impl Drop {
        super::Nothing
    }

    #[inline]
    unsafe fn columns(self, args: GroupArgs<i32>) {
        // SAFETY: the token proves the instructions; the rest is this method's own contract.
        unsafe { by_rows!([1 2 3 4 5 6 7 8], columns, args) }
    }
}

/// # Safety
///
/// Same as [`ColumnsKernel::columns`] with `rows = R`.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn columns<const R: usize>(args: GroupArgs<i32>) {
    // SAFETY: the caller's promises; vectors of numbers in f32 only carry the bits.
    unsafe {
        columns_by::<R, f32, u32>(args.cast(), |sum, x, v| {
            let (sum, v) = (_mm512_castps_si512(sum), _mm512_castps_si512(v));
            _mm512_castsi512_ps(_mm512_dpbusd_epi32(sum, _mm512_set1_epi32(x as i32), v))
        });
    }
}

impl Avx512Vnni {
    /// Computes the dot product of two vectors, the left one signed or not, the right one signed.
    pub(in crate::kernels::gemm) fn dot(self, a: &[u8], b: &[u8], signed: bool) -> i32 {
        // SAFETY: the token proves the instructions.
        unsafe { dot(a, b, signed) }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn dot(a: &[u8], b: &[u8], signed: bool) -> i32 {
    assert_eq!(a.len(), b.len());
    let flip = _mm512_set1_epi8(if signed { -128 } else { 0 });
    let ones = _mm512_set1_epi8(1);
    let (mut sums, mut sums_b) = ([_mm512_setzero_si512(); 4], _mm512_setzero_si512());
    for (i, (a, b)) in a.chunks(64).zip(b.chunks(64)).enumerate() {
        let mask = if a.len() == 64 { !0 } else { (1u64 << a.len()) - 1 };
        // SAFETY: masked loads touch the elements that exist only.
        let (x, y) = unsafe {
            (_mm512_maskz_loadu_epi8(mask, a.as_ptr().cast()), _mm512_maskz_loadu_epi8(mask, b.as_ptr().cast()))
        };
        sums[i % 4] = _mm512_dpbusd_epi32(sums[i % 4], _mm512_xor_si512(x, flip), y);
        if signed {
            sums_b = _mm512_dpbusd_epi32(sums_b, ones, y);
        }
    }
    let sum = _mm512_add_epi32(_mm512_add_epi32(sums[0], sums[1]), _mm512_add_epi32(sums[2], sums[3]));
    _mm512_reduce_add_epi32(sum).wrapping_sub(_mm512_reduce_add_epi32(sums_b).wrapping_mul(128))
}
