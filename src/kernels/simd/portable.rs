//! Four lanes in plain Rust, which the compiler maps to the target's vectors.

use half::{bf16, f16};

use super::isa::{Isa, SimdOp};

/// The token of [`Level::Portable`](super::Level::Portable), which every machine supports.
#[derive(Clone, Copy, Debug, Default)]
pub struct Portable(());

impl Portable {
    /// Returns the token; nothing has to be checked.
    #[inline(always)]
    pub fn new() -> Self {
        Portable(())
    }
}

const LANES: usize = 4;
type F32 = [f32; LANES];
type I32 = [i32; LANES];

#[inline(always)]
fn map<A: Copy, R>(a: [A; LANES], f: impl Fn(A) -> R) -> [R; LANES] {
    [f(a[0]), f(a[1]), f(a[2]), f(a[3])]
}

#[inline(always)]
fn zip<A: Copy, B: Copy, R>(a: [A; LANES], b: [B; LANES], f: impl Fn(A, B) -> R) -> [R; LANES] {
    [f(a[0], b[0]), f(a[1], b[1]), f(a[2], b[2]), f(a[3], b[3])]
}

/// All ones or all zeros, like the vector comparisons of every processor.
#[inline(always)]
fn truth(x: bool) -> u32 {
    (x as u32).wrapping_neg()
}

/// f16 → f32, exactly, without a branch: the exponent is moved and rebiased by a multiplication,
/// which also normalises subnormal numbers (F. Giesen, "Half to float done quick", 2012).
#[inline(always)]
pub(super) fn f16_to_f32(h: u16) -> f32 {
    const REBIAS: f32 = f32::from_bits((127 + 127 - 15) << 23);
    let magnitude = (h as u32 & 0x7fff) << 13;
    let finite = (f32::from_bits(magnitude) * REBIAS).to_bits();
    let quiet = truth(magnitude > 0x7c00 << 13) & 0x0040_0000;
    let special = truth(magnitude >= 0x7c00 << 13) & 0x7f80_0000;
    f32::from_bits(finite | special | quiet | ((h as u32 & 0x8000) << 16))
}

/// f32 → f16, to nearest even, without a branch (after F. Giesen's `float_to_half_fast3_rtne`,
/// 2016).
#[inline(always)]
pub(super) fn f32_to_f16(x: f32) -> u16 {
    let bits = x.to_bits();
    let sign = (bits >> 16) & 0x8000;
    let magnitude = bits & 0x7fff_ffff;
    // Subnormal or zero: adding this constant lets the addition round at the right bit.
    const ALIGN: u32 = ((127 - 15) + (23 - 10) + 1) << 23;
    let small = (f32::from_bits(magnitude) + f32::from_bits(ALIGN)).to_bits().wrapping_sub(ALIGN);
    // Normal: rebias, round half to even at bit 13. An overflow carries into infinity.
    let odd = (magnitude >> 13) & 1;
    let normal = magnitude.wrapping_sub((127 - 15) << 23).wrapping_add(0xfff + odd) >> 13;
    let nan = 0x7e00 | ((magnitude >> 13) & 0x3ff);
    let is_small = truth(magnitude < (127 - 14) << 23);
    let is_large = truth(magnitude >= (127 + 16) << 23);
    let is_nan = truth(magnitude > 0x7f80_0000);
    let finite = (small & is_small) | (normal & !is_small);
    let or_infinite = (0x7c00 & is_large) | (finite & !is_large);
    (sign | (nan & is_nan) | (or_infinite & !is_nan)) as u16
}

/// f32 → bf16, to nearest even.
#[inline(always)]
pub(super) fn f32_to_bf16(x: f32) -> u16 {
    let bits = x.to_bits();
    let rounded = bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16;
    let nan = (bits >> 16) | 0x40;
    let is_nan = truth(bits & 0x7fff_ffff > 0x7f80_0000);
    ((nan & is_nan) | (rounded & !is_nan)) as u16
}

/// Rounds to the nearest integer, ties to even, without the library call that SSE2 would need.
#[inline(always)]
fn round(x: f32) -> f32 {
    // From 2^23 on, every number is an integer; below, adding and subtracting it makes the addition
    // round.
    const WHOLE: f32 = (1 << 23) as f32;
    let magic = WHOLE.copysign(x);
    let rounded = ((x + magic) - magic).copysign(x);
    if x.abs() < WHOLE { rounded } else { x }
}

impl Isa for Portable {
    const LANES: usize = LANES;
    const REGISTERS: usize = 16;
    const FUSED: bool = false;

    type F32 = F32;
    type I32 = I32;
    type Mask = [u32; LANES];

    // One copy of each algorithm: inlined, it would be in each of its callers.
    #[inline(never)]
    fn run<Op: SimdOp>(self, op: Op) -> Op::Output {
        op.eval(self)
    }

    safe_methods! {
        splat(x: f32) -> F32 { [x; LANES] }
        splat_i32(x: i32) -> I32 { [x; LANES] }
        add(a: F32, b: F32) -> F32 { zip(a, b, |a, b| a + b) }
        sub(a: F32, b: F32) -> F32 { zip(a, b, |a, b| a - b) }
        mul(a: F32, b: F32) -> F32 { zip(a, b, |a, b| a * b) }
        div(a: F32, b: F32) -> F32 { zip(a, b, |a, b| a / b) }
        sqrt(a: F32) -> F32 { map(a, f32::sqrt) }
        round(a: F32) -> F32 { map(a, round) }
        lt(a: F32, b: F32) -> Self::Mask { zip(a, b, |a, b| truth(a < b)) }
        le(a: F32, b: F32) -> Self::Mask { zip(a, b, |a, b| truth(a <= b)) }
        eq(a: F32, b: F32) -> Self::Mask { zip(a, b, |a, b| truth(a == b)) }
        eq_i32(a: I32, b: I32) -> Self::Mask { zip(a, b, |a, b| truth(a == b)) }
        lt_i32(a: I32, b: I32) -> Self::Mask { zip(a, b, |a, b| truth(a < b)) }
        first_lanes(n: usize) -> Self::Mask { map([0, 1, 2, 3], |lane| truth(lane < n)) }
        mask_and(a: Self::Mask, b: Self::Mask) -> Self::Mask { zip(a, b, |a, b| a & b) }
        mask_or(a: Self::Mask, b: Self::Mask) -> Self::Mask { zip(a, b, |a, b| a | b) }
        any(m: Self::Mask) -> bool { m[0] | m[1] | m[2] | m[3] != 0 }
        add_i32(a: I32, b: I32) -> I32 { zip(a, b, i32::wrapping_add) }
        sub_i32(a: I32, b: I32) -> I32 { zip(a, b, i32::wrapping_sub) }
        mul_i32(a: I32, b: I32) -> I32 { zip(a, b, i32::wrapping_mul) }
        and(a: I32, b: I32) -> I32 { zip(a, b, |a, b| a & b) }
        or(a: I32, b: I32) -> I32 { zip(a, b, |a, b| a | b) }
        xor(a: I32, b: I32) -> I32 { zip(a, b, |a, b| a ^ b) }
        shl(a: I32, n: u32) -> I32 { map(a, |a| a << n) }
        shr(a: I32, n: u32) -> I32 { map(a, |a| ((a as u32) >> n) as i32) }
        bits(a: F32) -> I32 { map(a, |a| a.to_bits() as i32) }
        from_bits(a: I32) -> F32 { map(a, |a| f32::from_bits(a as u32)) }
        to_i32(a: F32) -> I32 { map(a, |a| round(a) as i32) }
        from_i32(a: I32) -> F32 { map(a, |a| a as f32) }
        reduce_sum(a: F32) -> f32 { (a[0] + a[2]) + (a[1] + a[3]) }
        deinterleave(a: F32, b: F32) -> (F32, F32) { ([a[0], a[2], b[0], b[2]], [a[1], a[3], b[1], b[3]]) }
        interleave(a: F32, b: F32) -> (F32, F32) { ([a[0], b[0], a[1], b[1]], [a[2], b[2], a[3], b[3]]) }
    }

    #[inline(always)]
    unsafe fn load_ptr(self, x: *const f32) -> F32 {
        // SAFETY: the caller's contract; an array may be read unaligned.
        unsafe { x.cast::<F32>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn store_ptr(self, y: *mut f32, v: F32) {
        // SAFETY: the caller's contract; an array may be written unaligned.
        unsafe { y.cast::<F32>().write_unaligned(v) }
    }
    #[inline(always)]
    unsafe fn stream_ptr(self, y: *mut f32, v: F32) {
        // SAFETY: the caller's contract.
        unsafe { self.store_ptr(y, v) }
    }
    #[inline(always)]
    fn stream_fence(self) {}
    #[inline(always)]
    unsafe fn load_partial_ptr(self, x: *const f32, n: usize) -> F32 {
        let mut v = [0.0; LANES];
        // SAFETY: `n` elements are readable, and `n <= LANES`.
        unsafe { std::ptr::copy_nonoverlapping(x, v.as_mut_ptr(), n) };
        v
    }
    #[inline(always)]
    unsafe fn store_partial_ptr(self, y: *mut f32, v: F32, n: usize) {
        // SAFETY: `n` elements are writable, and `n <= LANES`.
        unsafe { std::ptr::copy_nonoverlapping(v.as_ptr(), y, n) }
    }
    #[inline(always)]
    unsafe fn load_i32_ptr(self, x: *const i32) -> I32 {
        // SAFETY: the caller's contract.
        unsafe { x.cast::<I32>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn store_i32_ptr(self, y: *mut i32, v: I32) {
        // SAFETY: the caller's contract.
        unsafe { y.cast::<I32>().write_unaligned(v) }
    }
    #[inline(always)]
    unsafe fn load_f16_ptr(self, x: *const f16) -> F32 {
        // SAFETY: the caller's contract; `f16` is a transparent `u16`.
        let h = unsafe { x.cast::<[u16; LANES]>().read_unaligned() };
        map(h, f16_to_f32)
    }
    #[inline(always)]
    unsafe fn store_f16_ptr(self, y: *mut f16, v: F32) {
        // SAFETY: the caller's contract; `f16` is a transparent `u16`.
        unsafe { y.cast::<[u16; LANES]>().write_unaligned(map(v, f32_to_f16)) }
    }
    #[inline(always)]
    unsafe fn load_bf16_ptr(self, x: *const bf16) -> F32 {
        // SAFETY: the caller's contract; `bf16` is a transparent `u16`.
        let h = unsafe { x.cast::<[u16; LANES]>().read_unaligned() };
        map(h, |h| f32::from_bits((h as u32) << 16))
    }
    #[inline(always)]
    unsafe fn store_bf16_ptr(self, y: *mut bf16, v: F32) {
        // SAFETY: the caller's contract; `bf16` is a transparent `u16`.
        unsafe { y.cast::<[u16; LANES]>().write_unaligned(map(v, f32_to_bf16)) }
    }
    #[inline(always)]
    fn prefetch<T>(self, _x: *const T) {}

    #[inline(always)]
    fn mul_add(self, a: F32, b: F32, c: F32) -> F32 {
        self.add(self.mul(a, b), c)
    }
    #[inline(always)]
    fn neg_mul_add(self, a: F32, b: F32, c: F32) -> F32 {
        self.sub(c, self.mul(a, b))
    }
    #[inline(always)]
    fn min(self, a: F32, b: F32) -> F32 {
        zip(a, b, |a, b| if a < b { a } else { b })
    }
    #[inline(always)]
    fn max(self, a: F32, b: F32) -> F32 {
        zip(a, b, |a, b| if a > b { a } else { b })
    }

    #[inline(always)]
    fn select(self, m: Self::Mask, a: F32, b: F32) -> F32 {
        let chosen = zip(m, a, |m, a| m & a.to_bits());
        let other = zip(m, b, |m, b| !m & b.to_bits());
        zip(chosen, other, |a, b| f32::from_bits(a | b))
    }

    #[inline(always)]
    fn reduce_max(self, a: F32) -> f32 {
        let max = |a: f32, b: f32| if a > b { a } else { b };
        max(max(a[0], a[2]), max(a[1], a[3]))
    }
}
