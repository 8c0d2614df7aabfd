//! Four lanes: Arm's NEON.

use std::arch::aarch64::*;
use std::arch::asm;

use half::{bf16, f16};

use super::detect::{Level, ceiling};
use super::isa::{Isa, SimdOp};

/// The token of [`Level::Neon`].
#[derive(Clone, Copy, Debug)]
pub struct Neon(());

impl Neon {
    /// Returns the token if the processor has the instructions and `LOQUAT_ISA` allows them.
    #[inline(always)]
    pub fn new() -> Option<Self> {
        (ceiling() == Level::Neon).then_some(Neon(()))
    }
}

// Every block below is sound for the same reason: `self` proves that the processor has the
// instructions, and they access memory only through pointers whose validity is the contract of the
// (then unsafe) method. The assembly implements the two conversions whose intrinsics are not
// stable; it accesses registers only.
#[allow(clippy::undocumented_unsafe_blocks, unused_unsafe)]
impl Isa for Neon {
    const LANES: usize = 4;
    const REGISTERS: usize = 32;
    const FUSED: bool = true;

    type F32 = float32x4_t;
    type I32 = int32x4_t;
    type Mask = uint32x4_t;

    fn run<Op: SimdOp>(self, op: Op) -> Op::Output {
        #[target_feature(enable = "neon")]
        fn run<Op: SimdOp>(isa: Neon, op: Op) -> Op::Output {
            op.eval(isa)
        }
        unsafe { run(self, op) }
    }

    methods! {
        splat(x: f32) -> float32x4_t { vdupq_n_f32(x) }
        splat_i32(x: i32) -> int32x4_t { vdupq_n_s32(x) }
        add(a: float32x4_t, b: float32x4_t) -> float32x4_t { vaddq_f32(a, b) }
        sub(a: float32x4_t, b: float32x4_t) -> float32x4_t { vsubq_f32(a, b) }
        mul(a: float32x4_t, b: float32x4_t) -> float32x4_t { vmulq_f32(a, b) }
        div(a: float32x4_t, b: float32x4_t) -> float32x4_t { vdivq_f32(a, b) }
        mul_add(a: float32x4_t, b: float32x4_t, c: float32x4_t) -> float32x4_t { vfmaq_f32(c, a, b) }
        neg_mul_add(a: float32x4_t, b: float32x4_t, c: float32x4_t) -> float32x4_t { vfmsq_f32(c, a, b) }
        max(a: float32x4_t, b: float32x4_t) -> float32x4_t { vbslq_f32(vcgtq_f32(a, b), a, b) }
        sqrt(a: float32x4_t) -> float32x4_t { vsqrtq_f32(a) }
        round(a: float32x4_t) -> float32x4_t { vrndnq_f32(a) }
        lt(a: float32x4_t, b: float32x4_t) -> uint32x4_t { vcltq_f32(a, b) }
        le(a: float32x4_t, b: float32x4_t) -> uint32x4_t { vcleq_f32(a, b) }
        eq(a: float32x4_t, b: float32x4_t) -> uint32x4_t { vceqq_f32(a, b) }
        eq_i32(a: int32x4_t, b: int32x4_t) -> uint32x4_t { vceqq_s32(a, b) }
        lt_i32(a: int32x4_t, b: int32x4_t) -> uint32x4_t { vcltq_s32(a, b) }
        mask_and(a: uint32x4_t, b: uint32x4_t) -> uint32x4_t { vandq_u32(a, b) }
        mask_or(a: uint32x4_t, b: uint32x4_t) -> uint32x4_t { vorrq_u32(a, b) }
        any(m: uint32x4_t) -> bool { vmaxvq_u32(m) != 0 }
        select(m: uint32x4_t, a: float32x4_t, b: float32x4_t) -> float32x4_t { vbslq_f32(m, a, b) }
        add_i32(a: int32x4_t, b: int32x4_t) -> int32x4_t { vaddq_s32(a, b) }
        sub_i32(a: int32x4_t, b: int32x4_t) -> int32x4_t { vsubq_s32(a, b) }
        mul_i32(a: int32x4_t, b: int32x4_t) -> int32x4_t { vmulq_s32(a, b) }
        and(a: int32x4_t, b: int32x4_t) -> int32x4_t { vandq_s32(a, b) }
        or(a: int32x4_t, b: int32x4_t) -> int32x4_t { vorrq_s32(a, b) }
        xor(a: int32x4_t, b: int32x4_t) -> int32x4_t { veorq_s32(a, b) }
        shl(a: int32x4_t, n: u32) -> int32x4_t { vshlq_s32(a, vdupq_n_s32(n as i32)) }
        bits(a: float32x4_t) -> int32x4_t { vreinterpretq_s32_f32(a) }
        from_bits(a: int32x4_t) -> float32x4_t { vreinterpretq_f32_s32(a) }
        to_i32(a: float32x4_t) -> int32x4_t { vcvtnq_s32_f32(a) }
        from_i32(a: int32x4_t) -> float32x4_t { vcvtq_f32_s32(a) }
        deinterleave(a: float32x4_t, b: float32x4_t) -> (float32x4_t, float32x4_t) {
            (vuzp1q_f32(a, b), vuzp2q_f32(a, b))
        }
        interleave(a: float32x4_t, b: float32x4_t) -> (float32x4_t, float32x4_t) {
            (vzip1q_f32(a, b), vzip2q_f32(a, b))
        }
        reduce_sum(a: float32x4_t) -> f32 {
            let a2 = vadd_f32(vget_low_f32(a), vget_high_f32(a));
            vget_lane_f32::<0>(a2) + vget_lane_f32::<1>(a2)
        }
    }

    pointer_methods! {
        load_ptr(x: *const f32) -> float32x4_t { vld1q_f32(x) }
        store_ptr(y: *mut f32, v: float32x4_t) { vst1q_f32(y, v) }
        stream_ptr(y: *mut f32, v: float32x4_t) { vst1q_f32(y, v) }
        load_i32_ptr(x: *const i32) -> int32x4_t { vld1q_s32(x) }
        store_i32_ptr(y: *mut i32, v: int32x4_t) { vst1q_s32(y, v) }
        load_bf16_ptr(x: *const bf16) -> float32x4_t {
            vreinterpretq_f32_u32(vshll_n_u16::<16>(vld1_u16(x.cast())))
        }
        load_f16_ptr(x: *const f16) -> float32x4_t {
            let half = vld1_u16(x.cast());
            let wide: float32x4_t;
            asm!("fcvtl {0:v}.4s, {1:v}.4h", out(vreg) wide, in(vreg) half,
                options(pure, nomem, nostack, preserves_flags));
            wide
        }
        store_f16_ptr(y: *mut f16, v: float32x4_t) {
            let half: uint16x4_t;
            asm!("fcvtn {0:v}.4h, {1:v}.4s", out(vreg) half, in(vreg) v,
                options(pure, nomem, nostack, preserves_flags));
            vst1_u16(y.cast(), half);
        }
        store_bf16_ptr(y: *mut bf16, v: float32x4_t) {
            let bits = vreinterpretq_u32_f32(v);
            let top = vshrq_n_u32::<16>(bits);
            let odd = vandq_u32(top, vdupq_n_u32(1));
            let rounded = vshrq_n_u32::<16>(vaddq_u32(bits, vaddq_u32(odd, vdupq_n_u32(0x7fff))));
            let number = vceqq_f32(v, v);
            let word = vbslq_u32(number, rounded, vorrq_u32(top, vdupq_n_u32(0x40)));
            vst1_u16(y.cast(), vmovn_u32(word));
        }
    }

    #[inline(always)]
    fn stream_fence(self) {}
    #[inline(always)]
    unsafe fn load_partial_ptr(self, x: *const f32, n: usize) -> float32x4_t {
        let mut v = [0.0; 4];
        unsafe {
            std::ptr::copy_nonoverlapping(x, v.as_mut_ptr(), n);
            vld1q_f32(v.as_ptr())
        }
    }
    #[inline(always)]
    unsafe fn store_partial_ptr(self, y: *mut f32, v: float32x4_t, n: usize) {
        let mut lanes = [0.0; 4];
        unsafe {
            vst1q_f32(lanes.as_mut_ptr(), v);
            std::ptr::copy_nonoverlapping(lanes.as_ptr(), y, n);
        }
    }
    #[inline(always)]
    fn prefetch<T>(self, x: *const T) {
        unsafe { asm!("prfm pldl1keep, [{0}]", in(reg) x, options(readonly, nostack, preserves_flags)) }
    }

    #[inline(always)]
    fn min(self, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        // Not `fmin`, which differs from x86 if one is NaN.
        unsafe { vbslq_f32(vcltq_f32(a, b), a, b) }
    }

    #[inline(always)]
    fn first_lanes(self, n: usize) -> uint32x4_t {
        const LANE: [u32; 4] = [0, 1, 2, 3];
        unsafe { vcltq_u32(vld1q_u32(LANE.as_ptr()), vdupq_n_u32(n.min(4) as u32)) }
    }

    #[inline(always)]
    fn shr(self, a: int32x4_t, n: u32) -> int32x4_t {
        // A left shift by a negative number is a right shift.
        unsafe { vreinterpretq_s32_u32(vshlq_u32(vreinterpretq_u32_s32(a), vdupq_n_s32(-(n as i32)))) }
    }

    #[inline(always)]
    fn reduce_max(self, a: float32x4_t) -> f32 {
        unsafe {
            let a2 = self.max(a, vextq_f32::<2>(a, a));
            vgetq_lane_f32::<0>(self.max(a2, vextq_f32::<1>(a2, a2)))
        }
    }
}
