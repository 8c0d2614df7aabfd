//! AVX2 + FMA: tiles of up to 6 × 16, 12 accumulators of the 16 registers.

use std::arch::x86_64::*;

use super::{MicroKernel, PANEL, TileArgs, by_rows};
use crate::kernels::simd::Avx2;

#[derive(Clone, Copy)]
pub(super) struct Tile(pub(super) Avx2);

impl MicroKernel for Tile {
    type Isa = Avx2;
    const MR: usize = 6;
    const NR: usize = 16;
    // Processors without wider vectors have a second-level cache of 256 or 512 KiB, shared by the
    // two threads of a core.
    const NC: usize = 192;

    #[inline(always)]
    fn isa(self) -> Avx2 {
        self.0
    }

    #[inline]
    unsafe fn tile(self, args: TileArgs) {
        // SAFETY: the token proves the instructions; the rest is this method's own contract.
        unsafe { by_rows!([1 2 3 4 5 6], tile, args) }
    }

    #[inline]
    unsafe fn transpose(self, src: *const f32, lds: usize, rows: usize, cols: usize, dst: *mut f32, ldd: usize) {
        // SAFETY: the token proves the instructions; the rest is this method's own contract.
        unsafe { transpose(src, lds, rows, cols, dst, ldd) }
    }

    #[inline]
    unsafe fn copy(self, src: *const f32, lds: usize, used: usize, width: usize, k: usize, dst: *mut f32) {
        // SAFETY: as above.
        unsafe { copy(src, lds, used, width, k, dst) }
    }
}

/// How many rows of B ahead of the current one are prefetched.
const AHEAD: usize = 8;
/// The number of steps of `k` that the loop over packed factors is unrolled by.
const UNROLL: usize = 4;

/// # Safety
///
/// Same as [`MicroKernel::tile`] with `rows = R`.
#[target_feature(enable = "avx2,fma")]
unsafe fn tile<const R: usize>(args: TileArgs) {
    let TileArgs { k, a, lda, b, ldb, c, ldc, load, .. } = args;
    let mut acc = [[_mm256_setzero_ps(); 2]; R];
    // SAFETY: every address below is one that the caller lets us touch.
    unsafe {
        if load {
            for (i, acc) in acc.iter_mut().enumerate() {
                *acc = [_mm256_loadu_ps(c.add(i * ldc)), _mm256_loadu_ps(c.add(i * ldc + 8))];
            }
        }
        let (mut a, mut b, mut k) = (a, b, k);
        if lda == R && ldb == PANEL {
            // For packed factors, addresses within an unrolled round are constants.
            for _ in 0..k / UNROLL {
                for p in 0..UNROLL {
                    step(&mut acc, a.wrapping_add(p * R), b.wrapping_add(p * PANEL), PANEL);
                }
                a = a.wrapping_add(UNROLL * R);
                b = b.wrapping_add(UNROLL * PANEL);
            }
            k %= UNROLL;
        }
        for _ in 0..k {
            step(&mut acc, a, b, ldb);
            a = a.wrapping_add(lda);
            b = b.wrapping_add(ldb);
        }
        for (i, acc) in acc.iter().enumerate() {
            _mm256_storeu_ps(c.add(i * ldc), acc[0]);
            _mm256_storeu_ps(c.add(i * ldc + 8), acc[1]);
        }
    }
}

/// Adds the product of a column of A and a row of B.
///
/// # Safety
///
/// * `a` may be read for `R` elements, `b` for 16.
#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn step<const R: usize>(acc: &mut [[__m256; 2]; R], a: *const f32, b: *const f32, ldb: usize) {
    // Half of a panel is half of each pair of lines, which the hardware prefetcher does not follow.
    if R >= 4 {
        _mm_prefetch::<_MM_HINT_T0>(b.wrapping_add(AHEAD * ldb).cast());
    }
    // SAFETY: the caller's promise.
    unsafe {
        let row = [_mm256_loadu_ps(b), _mm256_loadu_ps(b.add(8))];
        for (i, acc) in acc.iter_mut().enumerate() {
            let x = _mm256_set1_ps(*a.add(i));
            *acc = [_mm256_fmadd_ps(x, row[0], acc[0]), _mm256_fmadd_ps(x, row[1], acc[1])];
        }
    }
}

/// The loads pair quarters of rows, which leaves two of the usual three rounds of shuffles.
///
/// # Safety
///
/// Same as [`MicroKernel::transpose`].
#[target_feature(enable = "avx2")]
unsafe fn transpose(src: *const f32, lds: usize, rows: usize, cols: usize, dst: *mut f32, ldd: usize) {
    // SAFETY: rows from `rows` on repeat the first; columns are read one by one where there are not
    // four.
    unsafe {
        for first in (0..rows).step_by(8) {
            let dst = dst.add(first);
            if first > 0 && rows - first < 8 {
                // Whole vectors would overwrite what the first eight rows stored at the start of
                // the next column.
                for (p, i) in (0..cols).flat_map(|p| (0..rows - first).map(move |i| (p, i))) {
                    *dst.add(p * ldd + i) = *src.add((first + i) * lds + p);
                }
                continue;
            }
            let row = |i: usize| src.add(if first + i < rows { (first + i) * lds } else { 0 });
            for p in (0..cols & !3).step_by(4) {
                // gathered[r]: columns p.. of rows r and r + 4.
                let gathered: [__m256; 4] = std::array::from_fn(|r| {
                    let low = _mm256_castps128_ps256(_mm_loadu_ps(row(r).add(p)));
                    _mm256_insertf128_ps::<1>(low, _mm_loadu_ps(row(r + 4).add(p)))
                });
                let even = _mm256_unpacklo_ps(gathered[0], gathered[1]);
                let odd = _mm256_unpackhi_ps(gathered[0], gathered[1]);
                let even2 = _mm256_unpacklo_ps(gathered[2], gathered[3]);
                let odd2 = _mm256_unpackhi_ps(gathered[2], gathered[3]);
                _mm256_storeu_ps(dst.add(p * ldd), _mm256_shuffle_ps::<0x44>(even, even2));
                _mm256_storeu_ps(dst.add((p + 1) * ldd), _mm256_shuffle_ps::<0xee>(even, even2));
                _mm256_storeu_ps(dst.add((p + 2) * ldd), _mm256_shuffle_ps::<0x44>(odd, odd2));
                _mm256_storeu_ps(dst.add((p + 3) * ldd), _mm256_shuffle_ps::<0xee>(odd, odd2));
            }
            for p in cols & !3..cols {
                let column: [f32; 8] = std::array::from_fn(|i| *row(i).add(p));
                _mm256_storeu_ps(dst.add(p * ldd), _mm256_loadu_ps(column.as_ptr()));
            }
        }
    }
}

/// # Safety
///
/// Same as [`MicroKernel::copy`].
#[target_feature(enable = "avx2")]
unsafe fn copy(src: *const f32, lds: usize, used: usize, width: usize, k: usize, dst: *mut f32) {
    // SAFETY: masked loads touch `used` elements only; stores end at most 8 elements past the row.
    unsafe {
        let lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
        let tail = _mm256_cmpgt_epi32(_mm256_set1_epi32((used % 8) as i32), lanes);
        for p in 0..k {
            let (src, dst) = (src.add(p * lds), dst.add(p * width));
            let whole = used & !7;
            for i in (0..whole).step_by(8) {
                _mm256_storeu_ps(dst.add(i), _mm256_loadu_ps(src.add(i)));
            }
            if whole < used {
                _mm256_storeu_ps(dst.add(whole), _mm256_maskload_ps(src.add(whole), tail));
            }
        }
    }
}
