//! Four lanes: SSE2, which every x86-64 processor has.
//!
//! The bits are those of [`Portable`](super::Portable): a multiply–add rounds twice. Vectors that
//! the compiler does not have to find first take it a fraction of the time.

use std::arch::x86_64::*;

use half::{bf16, f16};

use super::isa::{Isa, SimdOp};
use super::portable::{f16_to_f32, f32_to_bf16, f32_to_f16};

/// The token of [`Level::Portable`](super::Level::Portable) on x86-64.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sse2(());

impl Sse2 {
    /// Returns the token; no check is needed.
    #[inline(always)]
    pub fn new() -> Self {
        Sse2(())
    }
}

// Every block below is sound for the same reason: each x86-64 processor has the instructions, and
// they access memory only through pointers whose validity is the contract of the (then unsafe)
// method.
#[allow(clippy::undocumented_unsafe_blocks)]
impl Isa for Sse2 {
    const LANES: usize = 4;
    const REGISTERS: usize = 16;
    const FUSED: bool = false;

    type F32 = __m128;
    type I32 = __m128i;
    type Mask = __m128i;

    // One copy of each algorithm: inlined, it would be in each of its callers.
    #[inline(never)]
    fn run<Op: SimdOp>(self, op: Op) -> Op::Output {
        op.eval(self)
    }

    methods! {
        splat(x: f32) -> __m128 { _mm_set1_ps(x) }
        splat_i32(x: i32) -> __m128i { _mm_set1_epi32(x) }
        stream_fence() { _mm_sfence() }
        add(a: __m128, b: __m128) -> __m128 { _mm_add_ps(a, b) }
        sub(a: __m128, b: __m128) -> __m128 { _mm_sub_ps(a, b) }
        mul(a: __m128, b: __m128) -> __m128 { _mm_mul_ps(a, b) }
        div(a: __m128, b: __m128) -> __m128 { _mm_div_ps(a, b) }
        mul_add(a: __m128, b: __m128, c: __m128) -> __m128 { _mm_add_ps(_mm_mul_ps(a, b), c) }
        neg_mul_add(a: __m128, b: __m128, c: __m128) -> __m128 { _mm_sub_ps(c, _mm_mul_ps(a, b)) }
        min(a: __m128, b: __m128) -> __m128 { _mm_min_ps(a, b) }
        max(a: __m128, b: __m128) -> __m128 { _mm_max_ps(a, b) }
        sqrt(a: __m128) -> __m128 { _mm_sqrt_ps(a) }
        lt(a: __m128, b: __m128) -> __m128i { _mm_castps_si128(_mm_cmplt_ps(a, b)) }
        le(a: __m128, b: __m128) -> __m128i { _mm_castps_si128(_mm_cmple_ps(a, b)) }
        eq(a: __m128, b: __m128) -> __m128i { _mm_castps_si128(_mm_cmpeq_ps(a, b)) }
        eq_i32(a: __m128i, b: __m128i) -> __m128i { _mm_cmpeq_epi32(a, b) }
        lt_i32(a: __m128i, b: __m128i) -> __m128i { _mm_cmplt_epi32(a, b) }
        mask_and(a: __m128i, b: __m128i) -> __m128i { _mm_and_si128(a, b) }
        mask_or(a: __m128i, b: __m128i) -> __m128i { _mm_or_si128(a, b) }
        any(m: __m128i) -> bool { _mm_movemask_epi8(m) != 0 }
        select(m: __m128i, a: __m128, b: __m128) -> __m128 {
            let m = _mm_castsi128_ps(m);
            _mm_or_ps(_mm_and_ps(m, a), _mm_andnot_ps(m, b))
        }
        add_i32(a: __m128i, b: __m128i) -> __m128i { _mm_add_epi32(a, b) }
        sub_i32(a: __m128i, b: __m128i) -> __m128i { _mm_sub_epi32(a, b) }
        mul_i32(a: __m128i, b: __m128i) -> __m128i {
            // The products of lanes 0 and 2, and of 1 and 3; of each the lower half.
            let even = _mm_shuffle_epi32::<0b00_00_10_00>(_mm_mul_epu32(a, b));
            let odd = _mm_mul_epu32(_mm_srli_epi64::<32>(a), _mm_srli_epi64::<32>(b));
            _mm_unpacklo_epi32(even, _mm_shuffle_epi32::<0b00_00_10_00>(odd))
        }
        and(a: __m128i, b: __m128i) -> __m128i { _mm_and_si128(a, b) }
        or(a: __m128i, b: __m128i) -> __m128i { _mm_or_si128(a, b) }
        xor(a: __m128i, b: __m128i) -> __m128i { _mm_xor_si128(a, b) }
        shl(a: __m128i, n: u32) -> __m128i { _mm_sll_epi32(a, _mm_cvtsi32_si128(n as i32)) }
        shr(a: __m128i, n: u32) -> __m128i { _mm_srl_epi32(a, _mm_cvtsi32_si128(n as i32)) }
        bits(a: __m128) -> __m128i { _mm_castps_si128(a) }
        from_bits(a: __m128i) -> __m128 { _mm_castsi128_ps(a) }
        to_i32(a: __m128) -> __m128i { _mm_cvtps_epi32(a) }
        from_i32(a: __m128i) -> __m128 { _mm_cvtepi32_ps(a) }
        reduce_sum(a: __m128) -> f32 {
            let a2 = _mm_add_ps(a, _mm_movehl_ps(a, a));
            _mm_cvtss_f32(_mm_add_ss(a2, _mm_shuffle_ps::<1>(a2, a2)))
        }
        reduce_max(a: __m128) -> f32 {
            let a2 = _mm_max_ps(a, _mm_movehl_ps(a, a));
            _mm_cvtss_f32(_mm_max_ss(a2, _mm_shuffle_ps::<1>(a2, a2)))
        }
        deinterleave(a: __m128, b: __m128) -> (__m128, __m128) {
            (_mm_shuffle_ps::<0b10_00_10_00>(a, b), _mm_shuffle_ps::<0b11_01_11_01>(a, b))
        }
        interleave(a: __m128, b: __m128) -> (__m128, __m128) { (_mm_unpacklo_ps(a, b), _mm_unpackhi_ps(a, b)) }
        round(a: __m128) -> __m128 {
            // From 2^23 on every number is whole; below, adding and subtracting it leaves the
            // rounding to the addition.
            let sign = _mm_and_ps(a, _mm_set1_ps(-0.0));
            let whole = _mm_set1_ps((1 << 23) as f32);
            let magic = _mm_or_ps(whole, sign);
            let rounded = _mm_or_ps(_mm_andnot_ps(sign, _mm_sub_ps(_mm_add_ps(a, magic), magic)), sign);
            let small = _mm_cmplt_ps(_mm_andnot_ps(_mm_set1_ps(-0.0), a), whole);
            _mm_or_ps(_mm_and_ps(small, rounded), _mm_andnot_ps(small, a))
        }
        first_lanes(n: usize) -> __m128i {
            _mm_cmplt_epi32(_mm_set_epi32(3, 2, 1, 0), _mm_set1_epi32(n.min(4) as i32))
        }
    }

    pointer_methods! {
        load_ptr(x: *const f32) -> __m128 { _mm_loadu_ps(x) }
        store_ptr(y: *mut f32, v: __m128) { _mm_storeu_ps(y, v) }
        stream_ptr(y: *mut f32, v: __m128) { _mm_stream_ps(y, v) }
        load_i32_ptr(x: *const i32) -> __m128i { _mm_loadu_si128(x.cast()) }
        store_i32_ptr(y: *mut i32, v: __m128i) { _mm_storeu_si128(y.cast(), v) }
        load_bf16_ptr(x: *const bf16) -> __m128 {
            _mm_castsi128_ps(_mm_unpacklo_epi16(_mm_setzero_si128(), _mm_loadl_epi64(x.cast())))
        }
        load_f16_ptr(x: *const f16) -> __m128 {
            let h = x.cast::<[u16; 4]>().read_unaligned();
            _mm_set_ps(f16_to_f32(h[3]), f16_to_f32(h[2]), f16_to_f32(h[1]), f16_to_f32(h[0]))
        }
        store_f16_ptr(y: *mut f16, v: __m128) {
            let v = std::mem::transmute::<__m128, [f32; 4]>(v);
            let h = [f32_to_f16(v[0]), f32_to_f16(v[1]), f32_to_f16(v[2]), f32_to_f16(v[3])];
            y.cast::<[u16; 4]>().write_unaligned(h)
        }
        store_bf16_ptr(y: *mut bf16, v: __m128) {
            let v = std::mem::transmute::<__m128, [f32; 4]>(v);
            let h = [f32_to_bf16(v[0]), f32_to_bf16(v[1]), f32_to_bf16(v[2]), f32_to_bf16(v[3])];
            y.cast::<[u16; 4]>().write_unaligned(h)
        }
        load_partial_ptr(x: *const f32, n: usize) -> __m128 {
            let mut v = [0.0f32; 4];
            std::ptr::copy_nonoverlapping(x, v.as_mut_ptr(), n);
            _mm_loadu_ps(v.as_ptr())
        }
        store_partial_ptr(y: *mut f32, v: __m128, n: usize) {
            let v = std::mem::transmute::<__m128, [f32; 4]>(v);
            std::ptr::copy_nonoverlapping(v.as_ptr(), y, n)
        }
    }

    #[inline(always)]
    fn prefetch<T>(self, x: *const T) {
        unsafe { _mm_prefetch::<_MM_HINT_T0>(x.cast()) }
    }
}
