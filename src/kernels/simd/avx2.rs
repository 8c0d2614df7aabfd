//! Eight lanes: AVX2, FMA and F16C.

use std::arch::x86_64::*;

use half::{bf16, f16};

use super::detect::{Level, ceiling};
use super::isa::{Isa, SimdOp};

/// The token of [`Level::Avx2`].
#[derive(Clone, Copy, Debug)]
pub struct Avx2(());

impl Avx2 {
    /// Returns the token if the processor has the instructions and `LOQUAT_ISA` allows them.
    #[inline(always)]
    pub fn new() -> Option<Self> {
        (ceiling() >= Level::Avx2).then_some(Avx2(()))
    }
}

/// The window of eight of these numbers that starts at `8 - n` is the mask of the first `n` lanes.
static WINDOW: [i32; 16] = [-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0];

// Every block below is sound for the same reason: `self` proves that the processor has the
// instructions, and they access memory only through pointers whose validity is the contract of the
// (then unsafe) method.
#[allow(clippy::undocumented_unsafe_blocks)]
impl Isa for Avx2 {
    const LANES: usize = 8;
    const REGISTERS: usize = 16;
    const FUSED: bool = true;

    type F32 = __m256;
    type I32 = __m256i;
    type Mask = __m256i;

    fn run<Op: SimdOp>(self, op: Op) -> Op::Output {
        #[target_feature(enable = "avx2,fma,f16c")]
        fn run<Op: SimdOp>(isa: Avx2, op: Op) -> Op::Output {
            op.eval(isa)
        }
        unsafe { run(self, op) }
    }

    methods! {
        splat(x: f32) -> __m256 { _mm256_set1_ps(x) }
        splat_i32(x: i32) -> __m256i { _mm256_set1_epi32(x) }
        stream_fence() { _mm_sfence() }
        add(a: __m256, b: __m256) -> __m256 { _mm256_add_ps(a, b) }
        sub(a: __m256, b: __m256) -> __m256 { _mm256_sub_ps(a, b) }
        mul(a: __m256, b: __m256) -> __m256 { _mm256_mul_ps(a, b) }
        div(a: __m256, b: __m256) -> __m256 { _mm256_div_ps(a, b) }
        mul_add(a: __m256, b: __m256, c: __m256) -> __m256 { _mm256_fmadd_ps(a, b, c) }
        neg_mul_add(a: __m256, b: __m256, c: __m256) -> __m256 { _mm256_fnmadd_ps(a, b, c) }
        min(a: __m256, b: __m256) -> __m256 { _mm256_min_ps(a, b) }
        max(a: __m256, b: __m256) -> __m256 { _mm256_max_ps(a, b) }
        sqrt(a: __m256) -> __m256 { _mm256_sqrt_ps(a) }
        lt(a: __m256, b: __m256) -> __m256i { _mm256_castps_si256(_mm256_cmp_ps::<_CMP_LT_OQ>(a, b)) }
        le(a: __m256, b: __m256) -> __m256i { _mm256_castps_si256(_mm256_cmp_ps::<_CMP_LE_OQ>(a, b)) }
        eq(a: __m256, b: __m256) -> __m256i { _mm256_castps_si256(_mm256_cmp_ps::<_CMP_EQ_OQ>(a, b)) }
        eq_i32(a: __m256i, b: __m256i) -> __m256i { _mm256_cmpeq_epi32(a, b) }
        lt_i32(a: __m256i, b: __m256i) -> __m256i { _mm256_cmpgt_epi32(b, a) }
        mask_and(a: __m256i, b: __m256i) -> __m256i { _mm256_and_si256(a, b) }
        mask_or(a: __m256i, b: __m256i) -> __m256i { _mm256_or_si256(a, b) }
        any(m: __m256i) -> bool { _mm256_movemask_epi8(m) != 0 }
        select(m: __m256i, a: __m256, b: __m256) -> __m256 { _mm256_blendv_ps(b, a, _mm256_castsi256_ps(m)) }
        add_i32(a: __m256i, b: __m256i) -> __m256i { _mm256_add_epi32(a, b) }
        sub_i32(a: __m256i, b: __m256i) -> __m256i { _mm256_sub_epi32(a, b) }
        mul_i32(a: __m256i, b: __m256i) -> __m256i { _mm256_mullo_epi32(a, b) }
        and(a: __m256i, b: __m256i) -> __m256i { _mm256_and_si256(a, b) }
        or(a: __m256i, b: __m256i) -> __m256i { _mm256_or_si256(a, b) }
        xor(a: __m256i, b: __m256i) -> __m256i { _mm256_xor_si256(a, b) }
        shl(a: __m256i, n: u32) -> __m256i { _mm256_sllv_epi32(a, _mm256_set1_epi32(n as i32)) }
        shr(a: __m256i, n: u32) -> __m256i { _mm256_srlv_epi32(a, _mm256_set1_epi32(n as i32)) }
        bits(a: __m256) -> __m256i { _mm256_castps_si256(a) }
        from_bits(a: __m256i) -> __m256 { _mm256_castsi256_ps(a) }
        to_i32(a: __m256) -> __m256i { _mm256_cvtps_epi32(a) }
        from_i32(a: __m256i) -> __m256 { _mm256_cvtepi32_ps(a) }
        reduce_sum(a: __m256) -> f32 {
            let a4 = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
            let a2 = _mm_add_ps(a4, _mm_movehl_ps(a4, a4));
            _mm_cvtss_f32(_mm_add_ss(a2, _mm_shuffle_ps::<1>(a2, a2)))
        }
        reduce_max(a: __m256) -> f32 {
            let a4 = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
            let a2 = _mm_max_ps(a4, _mm_movehl_ps(a4, a4));
            _mm_cvtss_f32(_mm_max_ss(a2, _mm_shuffle_ps::<1>(a2, a2)))
        }
        deinterleave(a: __m256, b: __m256) -> (__m256, __m256) {
            // Per half: a0 a2 b0 b2 | a4 a6 b4 b6; then the middle pairs are exchanged.
            let even = _mm256_castps_pd(_mm256_shuffle_ps::<0b10_00_10_00>(a, b));
            let odd = _mm256_castps_pd(_mm256_shuffle_ps::<0b11_01_11_01>(a, b));
            let even = _mm256_permute4x64_pd::<0b11_01_10_00>(even);
            let odd = _mm256_permute4x64_pd::<0b11_01_10_00>(odd);
            (_mm256_castpd_ps(even), _mm256_castpd_ps(odd))
        }
        interleave(a: __m256, b: __m256) -> (__m256, __m256) {
            let low = _mm256_unpacklo_ps(a, b); // a0 b0 a1 b1 | a4 b4 a5 b5
            let high = _mm256_unpackhi_ps(a, b); // a2 b2 a3 b3 | a6 b6 a7 b7
            (_mm256_permute2f128_ps::<0x20>(low, high), _mm256_permute2f128_ps::<0x31>(low, high))
        }
    }

    pointer_methods! {
        load_ptr(x: *const f32) -> __m256 { _mm256_loadu_ps(x) }
        store_ptr(y: *mut f32, v: __m256) { _mm256_storeu_ps(y, v) }
        stream_ptr(y: *mut f32, v: __m256) { _mm256_stream_ps(y, v) }
        load_i32_ptr(x: *const i32) -> __m256i { _mm256_loadu_si256(x.cast()) }
        store_i32_ptr(y: *mut i32, v: __m256i) { _mm256_storeu_si256(y.cast(), v) }
        load_f16_ptr(x: *const f16) -> __m256 { _mm256_cvtph_ps(_mm_loadu_si128(x.cast())) }
        store_f16_ptr(y: *mut f16, v: __m256) {
            _mm_storeu_si128(y.cast(), _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(v))
        }
        load_bf16_ptr(x: *const bf16) -> __m256 {
            let wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(x.cast()));
            _mm256_castsi256_ps(_mm256_slli_epi32::<16>(wide))
        }
        store_bf16_ptr(y: *mut bf16, v: __m256) {
            let bits = _mm256_castps_si256(v);
            let top = _mm256_srli_epi32::<16>(bits);
            let odd = _mm256_and_si256(top, _mm256_set1_epi32(1));
            let rounding = _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff));
            let rounded = _mm256_srli_epi32::<16>(_mm256_add_epi32(bits, rounding));
            let nan = _mm256_castps_si256(_mm256_cmp_ps::<_CMP_UNORD_Q>(v, v));
            let word = _mm256_blendv_epi8(rounded, _mm256_or_si256(top, _mm256_set1_epi32(0x40)), nan);
            let packed = _mm_packus_epi32(_mm256_castsi256_si128(word), _mm256_extracti128_si256::<1>(word));
            _mm_storeu_si128(y.cast(), packed)
        }
    }

    #[inline(always)]
    unsafe fn load_partial_ptr(self, x: *const f32, n: usize) -> __m256 {
        unsafe { _mm256_maskload_ps(x, self.first_lanes(n)) }
    }
    #[inline(always)]
    unsafe fn store_partial_ptr(self, y: *mut f32, v: __m256, n: usize) {
        unsafe { _mm256_maskstore_ps(y, self.first_lanes(n), v) }
    }
    #[inline(always)]
    fn prefetch<T>(self, x: *const T) {
        unsafe { _mm_prefetch::<_MM_HINT_T0>(x.cast()) }
    }

    #[inline(always)]
    fn round(self, a: __m256) -> __m256 {
        unsafe { _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a) }
    }

    #[inline(always)]
    fn first_lanes(self, n: usize) -> __m256i {
        // SAFETY: the start is at most 8, and 8 elements are read of 16.
        unsafe { _mm256_loadu_si256(WINDOW.as_ptr().add(8 - n.min(8)).cast()) }
    }
}
