//! Sixteen lanes: AVX-512 F, BW, VL and DQ.

use std::arch::x86_64::*;

use half::{bf16, f16};

use super::detect::{Level, ceiling};
use super::isa::{Isa, SimdOp};

/// The token of [`Level::Avx512`].
#[derive(Clone, Copy, Debug)]
pub struct Avx512(());

impl Avx512 {
    /// Returns the token if the processor has the instructions and `LOQUAT_ISA` allows them.
    #[inline(always)]
    pub fn new() -> Option<Self> {
        (ceiling() >= Level::Avx512).then_some(Avx512(()))
    }
}

/// Returns the mask of the first `n` lanes.
#[inline(always)]
fn lanes_below(n: usize) -> __mmask16 {
    if n >= 16 { !0 } else { (1 << n) - 1 }
}

// Every block below is sound for the same reason: `self` proves that the processor has the
// instructions, and they access memory only through pointers whose validity is the contract of the
// (then unsafe) method.
#[allow(clippy::undocumented_unsafe_blocks)]
impl Isa for Avx512 {
    const LANES: usize = 16;
    const REGISTERS: usize = 32;
    const FUSED: bool = true;

    type F32 = __m512;
    type I32 = __m512i;
    type Mask = __mmask16;

    fn run<Op: SimdOp>(self, op: Op) -> Op::Output {
        #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c")]
        fn run<Op: SimdOp>(isa: Avx512, op: Op) -> Op::Output {
            op.eval(isa)
        }
        unsafe { run(self, op) }
    }

    methods! {
        splat(x: f32) -> __m512 { _mm512_set1_ps(x) }
        splat_i32(x: i32) -> __m512i { _mm512_set1_epi32(x) }
        stream_fence() { _mm_sfence() }
        add(a: __m512, b: __m512) -> __m512 { _mm512_add_ps(a, b) }
        sub(a: __m512, b: __m512) -> __m512 { _mm512_sub_ps(a, b) }
        mul(a: __m512, b: __m512) -> __m512 { _mm512_mul_ps(a, b) }
        div(a: __m512, b: __m512) -> __m512 { _mm512_div_ps(a, b) }
        mul_add(a: __m512, b: __m512, c: __m512) -> __m512 { _mm512_fmadd_ps(a, b, c) }
        neg_mul_add(a: __m512, b: __m512, c: __m512) -> __m512 { _mm512_fnmadd_ps(a, b, c) }
        min(a: __m512, b: __m512) -> __m512 { _mm512_min_ps(a, b) }
        max(a: __m512, b: __m512) -> __m512 { _mm512_max_ps(a, b) }
        sqrt(a: __m512) -> __m512 { _mm512_sqrt_ps(a) }
        lt(a: __m512, b: __m512) -> __mmask16 { _mm512_cmp_ps_mask::<_CMP_LT_OQ>(a, b) }
        le(a: __m512, b: __m512) -> __mmask16 { _mm512_cmp_ps_mask::<_CMP_LE_OQ>(a, b) }
        eq(a: __m512, b: __m512) -> __mmask16 { _mm512_cmp_ps_mask::<_CMP_EQ_OQ>(a, b) }
        eq_i32(a: __m512i, b: __m512i) -> __mmask16 { _mm512_cmpeq_epi32_mask(a, b) }
        lt_i32(a: __m512i, b: __m512i) -> __mmask16 { _mm512_cmplt_epi32_mask(a, b) }
        select(m: __mmask16, a: __m512, b: __m512) -> __m512 { _mm512_mask_blend_ps(m, b, a) }
        add_i32(a: __m512i, b: __m512i) -> __m512i { _mm512_add_epi32(a, b) }
        sub_i32(a: __m512i, b: __m512i) -> __m512i { _mm512_sub_epi32(a, b) }
        mul_i32(a: __m512i, b: __m512i) -> __m512i { _mm512_mullo_epi32(a, b) }
        and(a: __m512i, b: __m512i) -> __m512i { _mm512_and_si512(a, b) }
        or(a: __m512i, b: __m512i) -> __m512i { _mm512_or_si512(a, b) }
        xor(a: __m512i, b: __m512i) -> __m512i { _mm512_xor_si512(a, b) }
        shl(a: __m512i, n: u32) -> __m512i { _mm512_sllv_epi32(a, _mm512_set1_epi32(n as i32)) }
        shr(a: __m512i, n: u32) -> __m512i { _mm512_srlv_epi32(a, _mm512_set1_epi32(n as i32)) }
        bits(a: __m512) -> __m512i { _mm512_castps_si512(a) }
        from_bits(a: __m512i) -> __m512 { _mm512_castsi512_ps(a) }
        to_i32(a: __m512) -> __m512i { _mm512_cvtps_epi32(a) }
        from_i32(a: __m512i) -> __m512 { _mm512_cvtepi32_ps(a) }
        reduce_sum(a: __m512) -> f32 {
            let a8 = _mm256_add_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps::<1>(a));
            let a4 = _mm_add_ps(_mm256_castps256_ps128(a8), _mm256_extractf128_ps::<1>(a8));
            let a2 = _mm_add_ps(a4, _mm_movehl_ps(a4, a4));
            _mm_cvtss_f32(_mm_add_ss(a2, _mm_shuffle_ps::<1>(a2, a2)))
        }
        reduce_max(a: __m512) -> f32 {
            let a8 = _mm256_max_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps::<1>(a));
            let a4 = _mm_max_ps(_mm256_castps256_ps128(a8), _mm256_extractf128_ps::<1>(a8));
            let a2 = _mm_max_ps(a4, _mm_movehl_ps(a4, a4));
            _mm_cvtss_f32(_mm_max_ss(a2, _mm_shuffle_ps::<1>(a2, a2)))
        }
        deinterleave(a: __m512, b: __m512) -> (__m512, __m512) {
            let even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
            let odd = _mm512_setr_epi32(1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
            (_mm512_permutex2var_ps(a, even, b), _mm512_permutex2var_ps(a, odd, b))
        }
        interleave(a: __m512, b: __m512) -> (__m512, __m512) {
            let low = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
            let high = _mm512_setr_epi32(8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
            (_mm512_permutex2var_ps(a, low, b), _mm512_permutex2var_ps(a, high, b))
        }
    }

    pointer_methods! {
        load_ptr(x: *const f32) -> __m512 { _mm512_loadu_ps(x) }
        store_ptr(y: *mut f32, v: __m512) { _mm512_storeu_ps(y, v) }
        stream_ptr(y: *mut f32, v: __m512) { _mm512_stream_ps(y, v) }
        load_partial_ptr(x: *const f32, n: usize) -> __m512 { _mm512_maskz_loadu_ps(lanes_below(n), x) }
        store_partial_ptr(y: *mut f32, v: __m512, n: usize) { _mm512_mask_storeu_ps(y, lanes_below(n), v) }
        load_i32_ptr(x: *const i32) -> __m512i { _mm512_loadu_si512(x.cast()) }
        store_i32_ptr(y: *mut i32, v: __m512i) { _mm512_storeu_si512(y.cast(), v) }
        load_f16_ptr(x: *const f16) -> __m512 { _mm512_cvtph_ps(_mm256_loadu_si256(x.cast())) }
        store_f16_ptr(y: *mut f16, v: __m512) {
            _mm256_storeu_si256(y.cast(), _mm512_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(v))
        }
        load_bf16_ptr(x: *const bf16) -> __m512 {
            let wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(x.cast()));
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(wide))
        }
        store_bf16_ptr(y: *mut bf16, v: __m512) {
            // Not `vcvtneps2bf16`, which flushes subnormal numbers.
            let bits = _mm512_castps_si512(v);
            let top = _mm512_srli_epi32::<16>(bits);
            let odd = _mm512_and_si512(top, _mm512_set1_epi32(1));
            let rounding = _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff));
            let rounded = _mm512_srli_epi32::<16>(_mm512_add_epi32(bits, rounding));
            let nan = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(v, v);
            let word = _mm512_mask_or_epi32(rounded, nan, top, _mm512_set1_epi32(0x40));
            _mm256_storeu_si256(y.cast(), _mm512_cvtepi32_epi16(word))
        }
    }

    #[inline(always)]
    fn prefetch<T>(self, x: *const T) {
        unsafe { _mm_prefetch::<_MM_HINT_T0>(x.cast()) }
    }

    #[inline(always)]
    fn round(self, a: __m512) -> __m512 {
        unsafe { _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a) }
    }

    #[inline(always)]
    fn first_lanes(self, n: usize) -> __mmask16 {
        lanes_below(n)
    }
    #[inline(always)]
    fn mask_and(self, a: __mmask16, b: __mmask16) -> __mmask16 {
        a & b
    }
    #[inline(always)]
    fn mask_or(self, a: __mmask16, b: __mmask16) -> __mmask16 {
        a | b
    }
    #[inline(always)]
    fn any(self, m: __mmask16) -> bool {
        m != 0
    }
}
