//! AVX-512: tiles of up to 14 × 32, 28 accumulators; the other four registers hold two vectors of B
//! and broadcasts.

use std::arch::x86_64::*;

use super::{MicroKernel, TileArgs, by_rows};
use crate::kernels::gemm::operand::{self, Element, Kind};
use crate::kernels::simd::Avx512;

#[derive(Clone, Copy)]
pub(in crate::kernels) struct Tile(pub(in crate::kernels) Avx512);

impl MicroKernel for Tile {
    type Isa = Avx512;
    const MR: usize = 14;
    const NR: usize = 32;

    #[inline(always)]
    fn isa(self) -> Avx512 {
        self.0
    }

    #[inline]
    unsafe fn tile(self, args: TileArgs) {
        // SAFETY: the token proves the instructions; the rest is this method's own contract.
        unsafe { by_rows!([1 2 3 4 5 6 7 8 9 10 11 12 13 14], tile, args) }
    }

    const COLUMNS_MR: usize = 8;

    #[inline]
    unsafe fn columns<T: Element>(self, args: TileArgs<f32, T>) {
        // SAFETY: the token proves the instructions; the rest is this method's own contract.
        unsafe { by_rows!([1 2 3 4 5 6 7 8], columns<T>, args) }
    }

    #[inline]
    unsafe fn transpose(self, src: *const f32, lds: usize, rows: usize, cols: usize, dst: *mut f32, ldd: usize) {
        // SAFETY: the token proves the instructions; the rest is this method's own contract.
        unsafe { transpose(src, lds, rows, cols, dst, ldd) }
    }

    #[inline]
    unsafe fn transpose_half<T: Element>(
        self,
        src: *const T,
        lds: usize,
        rows: usize,
        k: usize,
        dst: *mut f32,
        ldd: usize,
    ) {
        // SAFETY: as above.
        unsafe {
            match rows {
                16 => columns_to_rows(src, lds, k, dst, ldd),
                _ => operand::transpose_half(self, src, lds, rows, k, dst, ldd),
            }
        }
    }

    #[inline]
    unsafe fn copy(self, src: *const f32, lds: usize, used: usize, width: usize, k: usize, dst: *mut f32) {
        // SAFETY: as above.
        unsafe { copy(src, lds, used, width, k, dst) }
    }
}

/// # Safety
///
/// Same as [`MicroKernel::tile`] with `rows = R`.
#[target_feature(enable = "avx512f")]
unsafe fn tile<const R: usize>(args: TileArgs) {
    let TileArgs { k, a, lda, b, ldb, c, ldc, load, .. } = args;
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

/// # Safety
///
/// Same as [`MicroKernel::columns`] with `rows = R`.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
unsafe fn columns<const R: usize, T: Element>(args: TileArgs<f32, T>) {
    let add = |sum: __m512, x: f32, v: __m512| _mm512_fmadd_ps(_mm512_set1_ps(x), v, sum);
    // SAFETY: the caller's promises.
    unsafe { columns_by::<R, T, f32>(args, add) }
}

/// Computes two vectors of sixteen columns of B in the lanes; `add` adds an element of A times a
/// vector of B to a sum.
///
/// # Safety
///
/// Same as [`MicroKernel::columns`] with `rows = R`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
pub(super) unsafe fn columns_by<const R: usize, T: Element, X: Copy>(
    args: TileArgs<X, T>,
    add: impl Fn(__m512, X, __m512) -> __m512,
) {
    let TileArgs { k, a, b, ldb, c, ldc, load, .. } = args;
    for j in [0, 16] {
        let mut acc = [_mm512_setzero_ps(); R];
        // SAFETY: every address below is one that the caller lets us touch.
        unsafe {
            let c = c.add(j);
            if load {
                for (i, acc) in acc.iter_mut().enumerate() {
                    *acc = _mm512_loadu_ps(c.add(i * ldc));
                }
            }
            each_row_of_columns(k, b.add(j * ldb), ldb, |p, v| {
                for (i, acc) in acc.iter_mut().enumerate() {
                    *acc = add(*acc, *a.add(p * R + i), v);
                }
            });
            for (i, acc) in acc.iter().enumerate() {
                _mm512_storeu_ps(c.add(i * ldc), *acc);
            }
        }
    }
}

/// # Safety
///
/// Same as [`MicroKernel::transpose_half`] for sixteen rows.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
unsafe fn columns_to_rows<T: Element>(src: *const T, lds: usize, k: usize, dst: *mut f32, ldd: usize) {
    // SAFETY: the caller's promises.
    unsafe { each_row_of_columns(k, src, lds, |p, v| _mm512_storeu_ps(dst.add(p * ldd), v)) }
}

/// Calls `f` with `p` and the `p`-th elements of sixteen columns, each stored contiguously, for
/// ascending `p < k`.
///
/// A step takes a cache line of each column. Four columns at a time are gathered by loads of 16
/// bytes, so that a line is read completely before the next one can evict it from the first-level
/// cache, as columns at a distance of a multiple of 4 KiB would. 16-bit numbers are moved in pairs.
///
/// # Safety
///
/// * `b` may be read for `k` elements at each `j · ldb`, `j < 16`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
unsafe fn each_row_of_columns<T: Element>(k: usize, b: *const T, ldb: usize, mut f: impl FnMut(usize, __m512)) {
    let step = 64 / size_of::<T>();
    // Short columns end before the hardware prefetcher detects them: the next sixteen are
    // prefetched while these are used, which is 4 % faster at 3 KiB. From 4 KiB on it gains
    // nothing, and columns with a gap between them are not one run of memory.
    let short = ldb == k && ldb * size_of::<T>() < 4096;
    let mut next = b.wrapping_add(16 * ldb).cast::<i8>();
    let mut columns = [b, b.wrapping_add(4 * ldb), b.wrapping_add(8 * ldb), b.wrapping_add(12 * ldb)];
    let whole = k / step * step;
    // SAFETY: the steps are in the columns; prefetches may be of any address.
    unsafe {
        for p in (0..whole).step_by(step) {
            if short {
                for line in 0..16 {
                    _mm_prefetch::<_MM_HINT_T1>(next.wrapping_add(64 * line));
                }
                next = next.wrapping_add(1024);
            }
            // Columns j, j + 4, j + 8, j + 12 from four pointers, since there are not enough
            // registers for sixteen.
            let lines = gathered_lines::<T>(|j, quarter| {
                _mm_loadu_ps(columns[j / 4].wrapping_add(j % 4 * ldb).cast::<f32>().add(4 * quarter))
            });
            columns = columns.map(|column| column.wrapping_add(step));
            for (quarter, gathered) in lines.into_iter().enumerate() {
                for (unit, v) in transposed(gathered).into_iter().enumerate() {
                    let unit = 4 * quarter + unit;
                    if const { matches!(T::KIND, Kind::F32) } {
                        f(p + unit, v);
                    } else {
                        for (i, v) in pair::<T>(v).into_iter().enumerate() {
                            f(p + 2 * unit + i, v);
                        }
                    }
                }
            }
        }
        if whole < k {
            let lines = gathered_lines::<T>(|j, quarter| {
                let first = whole + quarter * (step / 4);
                let mask = (1u16 << k.saturating_sub(first).min(step / 4)) - 1;
                let at = b.wrapping_add(j * ldb + first);
                match T::KIND {
                    Kind::F32 => _mm_maskz_loadu_ps(mask as u8, at.cast()),
                    _ => _mm_castsi128_ps(_mm_maskz_loadu_epi16(mask as u8, at.cast())),
                }
            });
            let mut rest = [_mm512_setzero_ps(); 32];
            for (quarter, gathered) in lines.into_iter().enumerate() {
                for (unit, v) in transposed(gathered).into_iter().enumerate() {
                    let unit = 4 * quarter + unit;
                    match T::KIND {
                        Kind::F32 => rest[unit] = v,
                        _ => [rest[2 * unit], rest[2 * unit + 1]] = pair::<T>(v),
                    }
                }
            }
            for (i, &v) in rest[..k - whole].iter().enumerate() {
                f(whole + i, v);
            }
        }
    }
}

/// Loads a line of each of sixteen columns: for each quarter, the input of [`transposed`].
#[inline]
#[target_feature(enable = "avx512f")]
fn gathered_lines<T: Element>(load: impl Fn(usize, usize) -> __m128) -> [[__m512; 4]; 4] {
    let mut lines = [[_mm512_setzero_ps(); 4]; 4];
    for r in 0..4 {
        for (quarter, line) in lines.iter_mut().enumerate() {
            line[r] = gathered(|row| load(row, quarter), r);
        }
    }
    lines
}

/// Returns the two 16-bit numbers in each lane, the lower first.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn pair<T: Element>(v: __m512) -> [__m512; 2] {
    let v = _mm512_castps_si512(v);
    if T::KIND == Kind::Bf16 {
        let high = _mm512_and_si512(v, _mm512_set1_epi32(!0xffff));
        return [_mm512_castsi512_ps(_mm512_slli_epi32::<16>(v)), _mm512_castsi512_ps(high)];
    }
    const EVEN_THEN_ODD: [u16; 32] = {
        let mut order = [0; 32];
        let mut i = 0;
        while i < 32 {
            order[i] = (2 * i % 32 + i / 16) as u16;
            i += 1;
        }
        order
    };
    // SAFETY: an array is as long as the vector.
    let order = unsafe { _mm512_loadu_si512(EVEN_THEN_ODD.as_ptr().cast()) };
    let v = _mm512_permutexvar_epi16(order, v);
    [_mm512_cvtph_ps(_mm512_castsi512_si256(v)), _mm512_cvtph_ps(_mm512_extracti64x4_epi64::<1>(v))]
}

/// Loads rows r, r + 4, r + 8, r + 12.
#[inline]
#[target_feature(enable = "avx512f")]
fn gathered(row: impl Fn(usize) -> __m128, r: usize) -> __m512 {
    let v = _mm512_castps128_ps512(row(r));
    let v = _mm512_insertf32x4::<1>(v, row(r + 4));
    let v = _mm512_insertf32x4::<2>(v, row(r + 8));
    _mm512_insertf32x4::<3>(v, row(r + 12))
}

/// Rearranges sixteen rows: for each quarter, the input of [`transposed`].
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn quarters(row: impl Fn(usize) -> __m512) -> [[__m512; 4]; 4] {
    let mut of_rows = [[_mm512_setzero_ps(); 4]; 4];
    for (r, quarters) in of_rows.iter_mut().enumerate() {
        let rows = [row(r), row(r + 4), row(r + 8), row(r + 12)];
        let low = [_mm512_shuffle_f32x4::<0x44>(rows[0], rows[1]), _mm512_shuffle_f32x4::<0x44>(rows[2], rows[3])];
        let high = [_mm512_shuffle_f32x4::<0xee>(rows[0], rows[1]), _mm512_shuffle_f32x4::<0xee>(rows[2], rows[3])];
        *quarters = [
            _mm512_shuffle_f32x4::<0x88>(low[0], low[1]),
            _mm512_shuffle_f32x4::<0xdd>(low[0], low[1]),
            _mm512_shuffle_f32x4::<0x88>(high[0], high[1]),
            _mm512_shuffle_f32x4::<0xdd>(high[0], high[1]),
        ];
    }
    [0, 1, 2, 3].map(|quarter| [of_rows[0][quarter], of_rows[1][quarter], of_rows[2][quarter], of_rows[3][quarter]])
}

/// Returns the columns of sixteen rows of four, which were [`gathered`].
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn transposed(gathered: [__m512; 4]) -> [__m512; 4] {
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

/// Lines are read whole: rows at a distance of a multiple of 4 KiB would evict each other from the
/// first-level cache.
///
/// # Safety
///
/// Same as [`MicroKernel::transpose`].
#[target_feature(enable = "avx512f")]
unsafe fn transpose(src: *const f32, lds: usize, rows: usize, cols: usize, dst: *mut f32, ldd: usize) {
    // SAFETY: rows from `rows` on repeat the first; masked loads touch `cols` elements only.
    unsafe {
        let mask = first(cols);
        let row = |i: usize| _mm512_maskz_loadu_ps(mask, src.add(if i < rows { i * lds } else { 0 }));
        for (quarter, lines) in quarters(row).into_iter().enumerate() {
            for (p, column) in transposed(lines).into_iter().enumerate() {
                if 4 * quarter + p < cols {
                    _mm512_storeu_ps(dst.add((4 * quarter + p) * ldd), column);
                }
            }
        }
    }
}

/// Returns the mask of the first `n` of sixteen lanes.
#[inline]
pub(super) fn first(n: usize) -> __mmask16 {
    if n >= 16 { !0 } else { (1 << n) - 1 }
}

/// # Safety
///
/// Same as [`MicroKernel::copy`].
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
        let masks = [first(used), first(used.saturating_sub(16))];
        for p in 0..k {
            let (src, dst) = (src.add(p * lds), dst.add(p * width));
            _mm512_storeu_ps(dst, _mm512_maskz_loadu_ps(masks[0], src));
            if used > 16 {
                _mm512_storeu_ps(dst.add(16), _mm512_maskz_loadu_ps(masks[1], src.wrapping_add(16)));
            }
        }
    }
}
