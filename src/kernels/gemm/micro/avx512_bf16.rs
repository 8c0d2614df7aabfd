//! AVX512-BF16: tiles of up to 14 × 32 of pairs of bf16, `vdpbf16ps`.

use std::arch::x86_64::*;

use super::avx512::{columns_by, first, quarters, transposed};
use super::{ColumnsKernel, GroupArgs, PANEL, PanelsKernel, TileArgs, TileKernel, by_rows};
use crate::kernels::gemm::packing::Source;
use crate::kernels::prefetch::prefetch_ahead;
use crate::kernels::simd::{self, Avx512};

/// The kernel, and proof that the processor has AVX512-BF16.
#[derive(Clone, Copy)]
pub(in crate::kernels) struct Avx512Bf16(Avx512);

impl Avx512Bf16 {
    pub(in crate::kernels) fn new() -> Option<Self> {
        if simd::features().avx512_bf16 { Avx512::new().map(Avx512Bf16) } else { None }
    }
}

impl Avx512Bf16 {
    /// The largest number of rows of a tile.
    pub(in crate::kernels) const MOST_ROWS: usize = 14;
}

impl ColumnsKernel for Avx512Bf16 {
    type Sum = f32;
    const ROWS: usize = 8;
    const STEP: usize = 1;

    fn begin(self, _: usize) -> impl Drop {
        super::Nothing
    }

    #[inline]
    unsafe fn columns(self, args: GroupArgs<f32>) {
        // SAFETY: the token proves the instructions; the rest is this method's own contract.
        unsafe { by_rows!([1 2 3 4 5 6 7 8], columns, args) }
    }
}

impl PanelsKernel for Avx512Bf16 {
    const ROWS_OF_A: bool = false;

    fn begin(self, _: usize) -> impl Drop {
        super::Nothing
    }

    #[inline]
    unsafe fn panel(self, args: GroupArgs<f32>) {
        // SAFETY: the caller's promises.
        unsafe { TileKernel::tile(self, args) }
    }
}

/// # Safety
///
/// Same as [`ColumnsKernel::columns`] with `rows = R`.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
unsafe fn columns<const R: usize>(args: GroupArgs<f32>) {
    // SAFETY: the vector types are bits to each other; the rest is the caller's promises.
    unsafe {
        let pairs = |x: __m512i| std::mem::transmute::<__m512i, __m512bh>(x);
        columns_by::<R, f32, u32>(args.cast(), |sum, x, v| {
            _mm512_dpbf16_ps(sum, pairs(_mm512_set1_epi32(x as i32)), pairs(_mm512_castps_si512(v)))
        });
    }
}

impl TileKernel for Avx512Bf16 {
    type Sum = f32;
    const MR: usize = Self::MOST_ROWS;
    const NR: usize = 32;
    const STEP: usize = 1;
    const ROWS_OF_A: bool = false;
    const NS: f32 = 0.15 / 32.0;

    fn begin(self) -> impl Drop {
        super::Nothing
    }

    #[inline]
    unsafe fn tile(self, args: GroupArgs<f32>) {
        // SAFETY: the token proves the instructions; the rest is this method's own contract.
        unsafe { by_rows!([1 2 3 4 5 6 7 8 9 10 11 12 13 14], tile, args) }
    }
}

/// # Safety
///
/// Same as [`TileKernel::tile`] with `rows = R`.
#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn tile<const R: usize>(args: GroupArgs<f32>) {
    let TileArgs { k, a, lda, b, c, ldc, load, .. } = args;
    let mut acc = [[_mm512_setzero_ps(); 2]; R];
    // SAFETY: every address below is one that the caller lets us touch; the vector types are bits
    // to each other.
    unsafe {
        let pairs = |x: __m512i| std::mem::transmute::<__m512i, __m512bh>(x);
        if load {
            for (i, acc) in acc.iter_mut().enumerate() {
                *acc = [_mm512_loadu_ps(c.add(i * ldc)), _mm512_loadu_ps(c.add(i * ldc + 16))];
            }
        }
        let (mut a, mut b) = (a, b);
        for _ in 0..k {
            let row = [_mm512_loadu_si512(b.cast()), _mm512_loadu_si512(b.wrapping_add(16).cast())].map(pairs);
            for (i, acc) in acc.iter_mut().enumerate() {
                let x = pairs(_mm512_set1_epi32(*a.add(i) as i32));
                *acc = [_mm512_dpbf16_ps(acc[0], x, row[0]), _mm512_dpbf16_ps(acc[1], x, row[1])];
            }
            a = a.wrapping_add(lda);
            b = b.wrapping_add(PANEL);
        }
        for (i, acc) in acc.iter().enumerate() {
            _mm512_storeu_ps(c.add(i * ldc), acc[0]);
            _mm512_storeu_ps(c.add(i * ldc + 16), acc[1]);
        }
    }
}

/// Rounds `len` numbers of `used` columns to bf16 and packs them into groups: group `[p, i]` holds
/// `src[2p, i]` in the lower half and `src[2p + 1, i]` in the upper; missing numbers of the last
/// group are zero.
///
/// # Safety
///
/// * the processor has AVX512-BF16; `src` may be read at all `[p, i]`, `p < len`, `i < used`;
///   `used <= width`;
/// * `dst` may be written for `len.div_ceil(2) · width + SLACK` elements; those past `used` become
///   arbitrary;
/// * if `dst` is in the source, both begin at the same place, `src.along` is 1, and `used` and
///   `src.deep` are `width`, a multiple of 16.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16,avx512vl")]
pub(in crate::kernels) unsafe fn round_panel(src: Source, used: usize, width: usize, len: usize, dst: *mut u32) {
    let from = |i: usize| first(used - i);
    // SAFETY: the caller's promises; masked loads touch the numbers that exist only, and what is
    // stored past a row is overwritten by the next or in the slack.
    unsafe {
        if src.along == 1 {
            let order = _mm512_loadu_si512(ALTERNATING.as_ptr().cast());
            for p in (0..len).step_by(2) {
                for i in (0..used).step_by(16) {
                    let row = src.at(p, i).data;
                    let low = _mm512_maskz_loadu_ps(from(i), row);
                    let high = match p + 1 < len {
                        true => _mm512_maskz_loadu_ps(from(i), row.wrapping_add(src.deep)),
                        false => _mm512_setzero_ps(),
                    };
                    let joined = _mm512_permutexvar_epi16(order, rounded(low, high));
                    _mm512_storeu_si512(dst.add(p / 2 * width + i).cast(), joined);
                }
            }
            return;
        }
        for i in (0..used).step_by(16) {
            // Rows from `used` on repeat the first.
            let rows: [usize; 16] =
                std::array::from_fn(|r| if i + r < used { (i + r) * src.along } else { i * src.along });
            for p in (0..len).step_by(32) {
                let n = (len - p).min(32);
                let masks = [first(n), first(n.saturating_sub(16))];
                // Prefetch the next panel.
                for i in i..used.min(i + 16) {
                    prefetch_ahead(src.at(p, width + i).data, 32);
                }
                let row = |r: usize| {
                    let row = src.data.wrapping_add(p + rows[r]);
                    let low = _mm512_maskz_loadu_ps(masks[0], row);
                    let high = _mm512_maskz_loadu_ps(masks[1], row.wrapping_add(16));
                    _mm512_castsi512_ps(rounded(low, high))
                };
                for (quarter, lines) in quarters(row).into_iter().enumerate() {
                    for (group, v) in transposed(lines).into_iter().enumerate() {
                        let group = 4 * quarter + group;
                        if 2 * group < n {
                            _mm512_storeu_ps(dst.add((p / 2 + group) * width + i).cast(), v);
                        }
                    }
                }
            }
        }
    }
}

/// The permutation that takes 16-bit numbers from the lower and the upper half alternately.
const ALTERNATING: [u16; 32] = {
    let mut order = [0; 32];
    let mut i = 0;
    while i < 32 {
        order[i] = (i / 2 + i % 2 * 16) as u16;
        i += 1;
    }
    order
};

/// Returns two vectors, rounded to bf16 and concatenated.
#[inline]
#[target_feature(enable = "avx512f,avx512bf16")]
fn rounded(low: __m512, high: __m512) -> __m512i {
    // SAFETY: the types are bits to each other.
    unsafe { std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(high, low)) }
}

/// Rounds a run of numbers to bf16, two per group; missing numbers of the last group are zero.
///
/// # Safety
///
/// * the processor has AVX512-BF16; `x` may be read for `len` elements, `groups` written for half
///   as many, rounded up.
#[target_feature(enable = "avx512f,avx512bf16")]
pub(in crate::kernels::gemm) unsafe fn round_run(x: *const f32, len: usize, groups: *mut u32) {
    for i in (0..len).step_by(32) {
        let n = (len - i).min(32);
        // SAFETY: masked loads and stores touch the elements that exist only.
        unsafe {
            let low = _mm512_maskz_loadu_ps(first(n), x.add(i));
            let high = _mm512_maskz_loadu_ps(first(n.saturating_sub(16)), x.wrapping_add(i + 16));
            _mm512_mask_storeu_epi32(groups.add(i / 2).cast(), first(n.div_ceil(2)), rounded(low, high));
        }
    }
}
