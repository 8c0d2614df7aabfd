//! AVX-512: tiles of up to 14 × 32, 28 accumulators; the other four registers hold two vectors of B and broadcasts.

use std::arch::x86_64::*;

use super::{MicroKernel, by_rows};
use crate::kernels::simd::Avx512;

#[derive(Clone, Copy)]
pub(in crate::kernels::gemm) struct Tile(pub(in crate::kernels::gemm) Avx512);

impl MicroKernel for Tile {
    type Isa = Avx512;
    const MR: usize = 14;
    const NR: usize = 32;

    #[inline(always)]
    fn isa(self) -> Avx512 {
        self.0
    }

    #[inline]
    unsafe fn tile(
        self,
        rows: usize,
        k: usize,
        a: *const f32,
        lda: usize,
        b: *const f32,
        ldb: usize,
        c: *mut f32,
        ldc: usize,
        load: bool,
    ) {
        // SAFETY: the token proves the instructions; the rest is this method's own contract.
        unsafe { by_rows!(rows, [1 2 3 4 5 6 7 8 9 10 11 12 13 14], tile, (k, a, lda, b, ldb, c, ldc, load)) }
    }

    const COLUMNS_MR: usize = 6;

    #[inline]
    unsafe fn columns(
        self,
        rows: usize,
        k: usize,
        a: *const f32,
        lda: usize,
        b: *const f32,
        ldb: usize,
        c: *mut f32,
        ldc: usize,
        load: bool,
    ) {
        // SAFETY: the token proves the instructions; the rest is this method's own contract.
        unsafe { by_rows!(rows, [1 2 3 4 5 6], columns, (k, a, lda, b, ldb, c, ldc, load)) }
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

/// # Safety
///
/// As [`MicroKernel::tile`] with `rows = R`.
#[target_feature(enable = "avx512f")]
unsafe fn tile<const R: usize>(
    k: usize,
    a: *const f32,
    lda: usize,
    b: *const f32,
    ldb: usize,
    c: *mut f32,
    ldc: usize,
    load: bool,
) {
    let mut acc = [[_mm512_setzero_ps(); 2]; R];
    // SAFETY: every address below is one that the caller lets us touch.
    unsafe {
        if load {
            for (i, acc) in acc.iter_mut().enumerate() {
                *acc = [_mm512_loadu_ps(c.add(i * ldc)), _mm512_loadu_ps(c.add(i * ldc + 16))];
            }
        }
        let (mut a, mut b) = (a, b);
        for _ in 0..k {
            let row = [_mm512_loadu_ps(b), _mm512_loadu_ps(b.wrapping_add(16))];
            for (i, acc) in acc.iter_mut().enumerate() {
                let x = _mm512_set1_ps(*a.add(i));
                *acc = [_mm512_fmadd_ps(x, row[0], acc[0]), _mm512_fmadd_ps(x, row[1], acc[1])];
            }
            a = a.wrapping_add(lda);
            b = b.wrapping_add(ldb);
        }
        for (i, acc) in acc.iter().enumerate() {
            _mm512_storeu_ps(c.add(i * ldc), acc[0]);
            _mm512_storeu_ps(c.add(i * ldc + 16), acc[1]);
        }
    }
}

/// Sixteen columns of B in the lanes: four rows at a time are gathered by loads of four numbers and transposed in
/// registers, then multiplied in ascending order.
///
/// # Safety
///
/// As [`MicroKernel::columns`] with `rows = R`.
#[target_feature(enable = "avx512f,avx512vl")]
unsafe fn columns<const R: usize>(
    k: usize,
    a: *const f32,
    lda: usize,
    b: *const f32,
    ldb: usize,
    c: *mut f32,
    ldc: usize,
    load: bool,
) {
    /// Elements that a row of B is fetched ahead.
    const AHEAD: usize = 128;
    let mut acc = [[_mm512_setzero_ps(); 2]; R];
    // SAFETY: every address below is one that the caller lets us touch; prefetches may be of any.
    unsafe {
        if load {
            for (i, acc) in acc.iter_mut().enumerate() {
                *acc = [_mm512_loadu_ps(c.add(i * ldc)), _mm512_loadu_ps(c.add(i * ldc + 16))];
            }
        }
        for p in (0..k & !3).step_by(4) {
            if p % 16 == 0 {
                for j in 0..32 {
                    _mm_prefetch::<_MM_HINT_T0>(b.wrapping_add(j * ldb + p + AHEAD).cast());
                }
            }
            for half in 0..2 {
                let column = |j: usize| _mm_loadu_ps(b.add((16 * half + j) * ldb + p));
                for (t, v) in transposed_quarter(column).into_iter().enumerate() {
                    for (i, acc) in acc.iter_mut().enumerate() {
                        acc[half] = _mm512_fmadd_ps(_mm512_set1_ps(*a.add((p + t) * lda + i)), v, acc[half]);
                    }
                }
            }
        }
        let (p, rest) = (k & !3, k % 4);
        if rest > 0 {
            let mask = (1u8 << rest) - 1;
            for half in 0..2 {
                let column = |j: usize| _mm_maskz_loadu_ps(mask, b.add((16 * half + j) * ldb + p));
                for (t, v) in transposed_quarter(column).into_iter().enumerate().take(rest) {
                    for (i, acc) in acc.iter_mut().enumerate() {
                        acc[half] = _mm512_fmadd_ps(_mm512_set1_ps(*a.add((p + t) * lda + i)), v, acc[half]);
                    }
                }
            }
        }
        for (i, acc) in acc.iter().enumerate() {
            _mm512_storeu_ps(c.add(i * ldc), acc[0]);
            _mm512_storeu_ps(c.add(i * ldc + 16), acc[1]);
        }
    }
}

/// Four numbers of each of sixteen rows, as four vectors of sixteen.
///
/// The loads gather four rows into one vector, which leaves two rounds of shuffles of the usual four.
#[inline]
#[target_feature(enable = "avx512f")]
fn transposed_quarter(row: impl Fn(usize) -> __m128) -> [__m512; 4] {
    // gathered[r]: rows r, r + 4, r + 8, r + 12.
    let gathered: [__m512; 4] = std::array::from_fn(|r| {
        let v = _mm512_castps128_ps512(row(r));
        let v = _mm512_insertf32x4::<1>(v, row(r + 4));
        let v = _mm512_insertf32x4::<2>(v, row(r + 8));
        _mm512_insertf32x4::<3>(v, row(r + 12))
    });
    let even = _mm512_unpacklo_ps(gathered[0], gathered[1]);
    let odd = _mm512_unpackhi_ps(gathered[0], gathered[1]);
    let even2 = _mm512_unpacklo_ps(gathered[2], gathered[3]);
    let odd2 = _mm512_unpackhi_ps(gathered[2], gathered[3]);
    [
        _mm512_shuffle_ps::<0x44>(even, even2),
        _mm512_shuffle_ps::<0xee>(even, even2),
        _mm512_shuffle_ps::<0x44>(odd, odd2),
        _mm512_shuffle_ps::<0xee>(odd, odd2),
    ]
}

/// # Safety
///
/// As [`MicroKernel::transpose`].
#[target_feature(enable = "avx512f")]
unsafe fn transpose(src: *const f32, lds: usize, rows: usize, cols: usize, dst: *mut f32, ldd: usize) {
    // SAFETY: rows from `rows` on repeat the first; columns are read one by one where there are not sixteen.
    unsafe {
        let row = |i: usize| src.add(if i < rows { i * lds } else { 0 });
        if cols < 16 {
            let lanes: [u32; 16] = std::array::from_fn(|i| if i < rows { i as u32 } else { 0 });
            for p in 0..cols {
                let column: [f32; 16] = std::array::from_fn(|i| *src.add(lanes[i] as usize * lds + p));
                _mm512_storeu_ps(dst.add(p * ldd), _mm512_loadu_ps(column.as_ptr()));
            }
            return;
        }
        let rows: [*const f32; 16] = std::array::from_fn(row);
        for quarter in 0..4 {
            let columns = transposed_quarter(|i| _mm_loadu_ps(rows[i].add(4 * quarter)));
            for (p, column) in columns.into_iter().enumerate() {
                _mm512_storeu_ps(dst.add((4 * quarter + p) * ldd), column);
            }
        }
    }
}

/// # Safety
///
/// As [`MicroKernel::copy`].
#[target_feature(enable = "avx512f")]
unsafe fn copy(src: *const f32, lds: usize, used: usize, width: usize, k: usize, dst: *mut f32) {
    // SAFETY: masked loads touch `used` elements only; stores end at most 16 elements past the row.
    unsafe {
        if used == 32 {
            for p in 0..k {
                let (src, dst) = (src.add(p * lds), dst.add(p * width));
                _mm512_storeu_ps(dst, _mm512_loadu_ps(src));
                _mm512_storeu_ps(dst.add(16), _mm512_loadu_ps(src.add(16)));
            }
            return;
        }
        let masks = [(1u32 << used.min(16)) - 1, (1u32 << used.saturating_sub(16)) - 1].map(|mask| mask as __mmask16);
        for p in 0..k {
            let (src, dst) = (src.add(p * lds), dst.add(p * width));
            _mm512_storeu_ps(dst, _mm512_maskz_loadu_ps(masks[0], src));
            if used > 16 {
                _mm512_storeu_ps(dst.add(16), _mm512_maskz_loadu_ps(masks[1], src.wrapping_add(16)));
            }
        }
    }
}
