//! The operations of vectors.

use half::{bf16, f16};

/// An algorithm that is generic over the instruction set; see [`dispatch`](super::dispatch).
pub trait SimdOp {
    /// The result of the algorithm.
    type Output;

    /// Runs the algorithm. Implementations are `#[inline(always)]`, and so is every function that
    /// they call with the token.
    fn eval<I: Isa>(self, isa: I) -> Self::Output;
}

/// A token that proves that the processor has an instruction set, and the operations of its
/// vectors.
///
/// Lane 0 is the first in memory. Operations are IEEE single precision, rounded to nearest even,
/// and do not trap; subnormal numbers are kept. Where a result could differ between processors, it
/// is specified here, so that all instruction sets give the same bits; the only exception is
/// [`Isa::mul_add`].
///
/// Slices must hold [`Isa::LANES`] elements unless the name contains `partial`; the check is
/// optimised away under `chunks_exact`.
pub trait Isa: Copy + Send + Sync + 'static {
    /// The number of lanes of a vector: a power of two, from 4 to 16.
    const LANES: usize;
    /// The number of vector registers, which micro-kernels choose their tile by.
    const REGISTERS: usize;
    /// Whether [`Isa::mul_add`] rounds once.
    const FUSED: bool;

    /// A vector of `f32`.
    type F32: Copy;
    /// A vector of 32-bit integers. Arithmetic wraps.
    type I32: Copy;
    /// One boolean per lane.
    type Mask: Copy;

    /// Runs `op` in a function compiled for this instruction set.
    fn run<Op: SimdOp>(self, op: Op) -> Op::Output;

    // ---- creation, loads, stores

    /// Returns a vector whose lanes are all `x`.
    fn splat(self, x: f32) -> Self::F32;
    /// Returns a vector whose lanes are all `x`.
    fn splat_i32(self, x: i32) -> Self::I32;
    /// Returns a vector of zeros.
    #[inline(always)]
    fn zero(self) -> Self::F32 {
        self.splat(0.0)
    }

    /// Reads [`Isa::LANES`] numbers.
    ///
    /// # Safety
    ///
    /// - `x` is valid for reads of `LANES` elements; no alignment beyond that of `f32` is needed.
    unsafe fn load_ptr(self, x: *const f32) -> Self::F32;
    /// Writes [`Isa::LANES`] numbers.
    ///
    /// # Safety
    ///
    /// - `y` is valid for writes of `LANES` elements; no alignment beyond that of `f32` is needed.
    unsafe fn store_ptr(self, y: *mut f32, v: Self::F32);
    /// Writes [`Isa::LANES`] numbers past the caches, if the processor can, for outputs larger than
    /// the last-level cache.
    ///
    /// # Safety
    ///
    /// - `y` is valid for writes of `LANES` elements and aligned to `4 * LANES` bytes;
    /// - the thread calls [`Isa::stream_fence`] before it makes the data available to another
    ///   thread.
    unsafe fn stream_ptr(self, y: *mut f32, v: Self::F32);
    /// Orders the stores of [`Isa::stream_ptr`] before all later ones.
    fn stream_fence(self);
    /// Reads `n` numbers; the other lanes are zero.
    ///
    /// # Safety
    ///
    /// - `n <= LANES`, and `x` is valid for reads of `n` elements.
    unsafe fn load_partial_ptr(self, x: *const f32, n: usize) -> Self::F32;
    /// Writes the first `n` lanes.
    ///
    /// # Safety
    ///
    /// - `n <= LANES`, and `y` is valid for writes of `n` elements.
    unsafe fn store_partial_ptr(self, y: *mut f32, v: Self::F32, n: usize);
    /// Reads [`Isa::LANES`] integers.
    ///
    /// # Safety
    ///
    /// - `x` is valid for reads of `LANES` elements.
    unsafe fn load_i32_ptr(self, x: *const i32) -> Self::I32;
    /// Writes [`Isa::LANES`] integers.
    ///
    /// # Safety
    ///
    /// - `y` is valid for writes of `LANES` elements.
    unsafe fn store_i32_ptr(self, y: *mut i32, v: Self::I32);
    /// Reads [`Isa::LANES`] half-precision numbers as f32, exactly; NaN becomes a quiet NaN.
    ///
    /// # Safety
    ///
    /// - `x` is valid for reads of `LANES` elements.
    unsafe fn load_f16_ptr(self, x: *const f16) -> Self::F32;
    /// Rounds to half precision, to nearest even, and writes.
    ///
    /// # Safety
    ///
    /// - `y` is valid for writes of `LANES` elements.
    unsafe fn store_f16_ptr(self, y: *mut f16, v: Self::F32);
    /// Reads [`Isa::LANES`] bfloat16 numbers as f32, exactly.
    ///
    /// # Safety
    ///
    /// - `x` is valid for reads of `LANES` elements.
    unsafe fn load_bf16_ptr(self, x: *const bf16) -> Self::F32;
    /// Rounds to bfloat16, to nearest even, and writes; NaN becomes a quiet NaN.
    ///
    /// # Safety
    ///
    /// - `y` is valid for writes of `LANES` elements.
    unsafe fn store_bf16_ptr(self, y: *mut bf16, v: Self::F32);

    /// Prefetches the cache line of `x`. Any address is allowed.
    fn prefetch<T>(self, x: *const T);

    /// Reads the first [`Isa::LANES`] elements of `x`.
    #[inline(always)]
    fn load(self, x: &[f32]) -> Self::F32 {
        assert!(x.len() >= Self::LANES);
        // SAFETY: checked above.
        unsafe { self.load_ptr(x.as_ptr()) }
    }
    /// Writes the first [`Isa::LANES`] elements of `y`.
    #[inline(always)]
    fn store(self, y: &mut [f32], v: Self::F32) {
        assert!(y.len() >= Self::LANES);
        // SAFETY: checked above.
        unsafe { self.store_ptr(y.as_mut_ptr(), v) }
    }
    /// Reads the first [`Isa::LANES`] elements of `x`, or all if there are fewer; the other lanes
    /// are zero.
    #[inline(always)]
    fn load_partial(self, x: &[f32]) -> Self::F32 {
        // Whole vectors are loaded without a mask, for which AVX2 has only slow instructions.
        // SAFETY: the number of lanes is bounded by both lengths.
        unsafe {
            if x.len() >= Self::LANES { self.load_ptr(x.as_ptr()) } else { self.load_partial_ptr(x.as_ptr(), x.len()) }
        }
    }
    /// Reads the first [`Isa::LANES`] elements of `x`, or all if there are fewer; the other lanes
    /// are `fill`.
    #[inline(always)]
    fn load_partial_or(self, x: &[f32], fill: f32) -> Self::F32 {
        self.select(self.first_lanes(x.len()), self.load_partial(x), self.splat(fill))
    }
    /// Writes as many lanes as `y` has elements.
    #[inline(always)]
    fn store_partial(self, y: &mut [f32], v: Self::F32) {
        // SAFETY: the number of lanes is bounded by both lengths.
        unsafe {
            if y.len() >= Self::LANES {
                self.store_ptr(y.as_mut_ptr(), v)
            } else {
                self.store_partial_ptr(y.as_mut_ptr(), v, y.len())
            }
        }
    }
    /// Reads the first [`Isa::LANES`] elements of `x`.
    #[inline(always)]
    fn load_i32(self, x: &[i32]) -> Self::I32 {
        assert!(x.len() >= Self::LANES);
        // SAFETY: checked above.
        unsafe { self.load_i32_ptr(x.as_ptr()) }
    }
    /// Writes the first [`Isa::LANES`] elements of `y`.
    #[inline(always)]
    fn store_i32(self, y: &mut [i32], v: Self::I32) {
        assert!(y.len() >= Self::LANES);
        // SAFETY: checked above.
        unsafe { self.store_i32_ptr(y.as_mut_ptr(), v) }
    }
    /// Reads as f32 the first [`Isa::LANES`] elements of `x`.
    #[inline(always)]
    fn load_f16(self, x: &[f16]) -> Self::F32 {
        assert!(x.len() >= Self::LANES);
        // SAFETY: checked above.
        unsafe { self.load_f16_ptr(x.as_ptr()) }
    }
    /// Rounds and writes the first [`Isa::LANES`] elements of `y`.
    #[inline(always)]
    fn store_f16(self, y: &mut [f16], v: Self::F32) {
        assert!(y.len() >= Self::LANES);
        // SAFETY: checked above.
        unsafe { self.store_f16_ptr(y.as_mut_ptr(), v) }
    }
    /// Reads as f32 the first [`Isa::LANES`] elements of `x`.
    #[inline(always)]
    fn load_bf16(self, x: &[bf16]) -> Self::F32 {
        assert!(x.len() >= Self::LANES);
        // SAFETY: checked above.
        unsafe { self.load_bf16_ptr(x.as_ptr()) }
    }
    /// Rounds and writes the first [`Isa::LANES`] elements of `y`.
    #[inline(always)]
    fn store_bf16(self, y: &mut [bf16], v: Self::F32) {
        assert!(y.len() >= Self::LANES);
        // SAFETY: checked above.
        unsafe { self.store_bf16_ptr(y.as_mut_ptr(), v) }
    }
    /// Reads as f32 the first [`Isa::LANES`] elements of `x`, or all if there are fewer; the
    /// other lanes are zero.
    #[inline(always)]
    fn load_f16_partial(self, x: &[f16]) -> Self::F32 {
        if x.len() >= Self::LANES {
            return self.load_f16(x);
        }
        let mut whole = [f16::ZERO; MAX_LANES];
        whole[..x.len()].copy_from_slice(x);
        self.load_f16(&whole)
    }
    /// Rounds and writes as many lanes as `y` has elements.
    #[inline(always)]
    fn store_f16_partial(self, y: &mut [f16], v: Self::F32) {
        let n = y.len().min(Self::LANES);
        let mut whole = [f16::ZERO; MAX_LANES];
        self.store_f16(&mut whole, v);
        y[..n].copy_from_slice(&whole[..n]);
    }
    /// Reads as f32 the first [`Isa::LANES`] elements of `x`, or all if there are fewer; the
    /// other lanes are zero.
    #[inline(always)]
    fn load_bf16_partial(self, x: &[bf16]) -> Self::F32 {
        if x.len() >= Self::LANES {
            return self.load_bf16(x);
        }
        let mut whole = [bf16::ZERO; MAX_LANES];
        whole[..x.len()].copy_from_slice(x);
        self.load_bf16(&whole)
    }
    /// Rounds and writes as many lanes as `y` has elements.
    #[inline(always)]
    fn store_bf16_partial(self, y: &mut [bf16], v: Self::F32) {
        let n = y.len().min(Self::LANES);
        let mut whole = [bf16::ZERO; MAX_LANES];
        self.store_bf16(&mut whole, v);
        y[..n].copy_from_slice(&whole[..n]);
    }

    // ---- arithmetic

    /// `a + b`
    fn add(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// `a - b`
    fn sub(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// `a * b`
    fn mul(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// `a / b`
    fn div(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// `a * b + c`, rounded once where [`Isa::FUSED`], twice elsewhere.
    fn mul_add(self, a: Self::F32, b: Self::F32, c: Self::F32) -> Self::F32;
    /// `c - a * b`, rounded as [`Isa::mul_add`].
    fn neg_mul_add(self, a: Self::F32, b: Self::F32, c: Self::F32) -> Self::F32;
    /// `a < b ? a : b`: `b` where either is NaN.
    fn min(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// `a > b ? a : b`: `b` where either is NaN.
    fn max(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// √a
    fn sqrt(self, a: Self::F32) -> Self::F32;
    /// Rounds to the nearest integer, ties to even.
    fn round(self, a: Self::F32) -> Self::F32;
    /// `-a`, also for zeros and NaN.
    #[inline(always)]
    fn neg(self, a: Self::F32) -> Self::F32 {
        self.from_bits(self.xor(self.bits(a), self.splat_i32(i32::MIN)))
    }
    /// |a|
    #[inline(always)]
    fn abs(self, a: Self::F32) -> Self::F32 {
        self.from_bits(self.and(self.bits(a), self.splat_i32(i32::MAX)))
    }
    /// Returns the magnitude of `a` with the sign of `s`.
    #[inline(always)]
    fn copysign(self, a: Self::F32, s: Self::F32) -> Self::F32 {
        let sign = self.and(self.bits(s), self.splat_i32(i32::MIN));
        self.from_bits(self.or(self.bits(self.abs(a)), sign))
    }

    // ---- comparison, selection

    /// `a < b`; false where either is NaN.
    fn lt(self, a: Self::F32, b: Self::F32) -> Self::Mask;
    /// `a <= b`; false where either is NaN.
    fn le(self, a: Self::F32, b: Self::F32) -> Self::Mask;
    /// `a == b`; false where either is NaN.
    fn eq(self, a: Self::F32, b: Self::F32) -> Self::Mask;
    /// `a == b`
    fn eq_i32(self, a: Self::I32, b: Self::I32) -> Self::Mask;
    /// `a < b`, signed.
    fn lt_i32(self, a: Self::I32, b: Self::I32) -> Self::Mask;
    /// True in the first `n` lanes, or in all if there are fewer.
    fn first_lanes(self, n: usize) -> Self::Mask;
    /// Lane-wise and.
    fn mask_and(self, a: Self::Mask, b: Self::Mask) -> Self::Mask;
    /// Lane-wise or.
    fn mask_or(self, a: Self::Mask, b: Self::Mask) -> Self::Mask;
    /// Returns whether any lane is true.
    fn any(self, m: Self::Mask) -> bool;
    /// `m ? a : b`
    fn select(self, m: Self::Mask, a: Self::F32, b: Self::F32) -> Self::F32;
    /// `m ? a : b`
    #[inline(always)]
    fn select_i32(self, m: Self::Mask, a: Self::I32, b: Self::I32) -> Self::I32 {
        self.bits(self.select(m, self.from_bits(a), self.from_bits(b)))
    }

    // ---- integers

    /// `a + b`, wrapping.
    fn add_i32(self, a: Self::I32, b: Self::I32) -> Self::I32;
    /// `a - b`, wrapping.
    fn sub_i32(self, a: Self::I32, b: Self::I32) -> Self::I32;
    /// `a * b`, wrapping.
    fn mul_i32(self, a: Self::I32, b: Self::I32) -> Self::I32;
    /// `a & b`
    fn and(self, a: Self::I32, b: Self::I32) -> Self::I32;
    /// `a | b`
    fn or(self, a: Self::I32, b: Self::I32) -> Self::I32;
    /// `a ^ b`
    fn xor(self, a: Self::I32, b: Self::I32) -> Self::I32;
    /// `a << n`; `n` is below 32, preferably a constant.
    fn shl(self, a: Self::I32, n: u32) -> Self::I32;
    /// `a >> n`, shifting in zeros; `n` is below 32, preferably a constant.
    fn shr(self, a: Self::I32, n: u32) -> Self::I32;
    /// Returns the bits of the numbers.
    fn bits(self, a: Self::F32) -> Self::I32;
    /// Returns the numbers with these bits.
    #[allow(clippy::wrong_self_convention)]
    fn from_bits(self, a: Self::I32) -> Self::F32;
    /// Converts to the nearest integer, ties to even. The number must be within the range of `i32`.
    fn to_i32(self, a: Self::F32) -> Self::I32;
    /// Converts to the nearest number.
    #[allow(clippy::wrong_self_convention)]
    fn from_i32(self, a: Self::I32) -> Self::F32;

    // ---- across lanes

    /// Returns the sum of the lanes, as a halving tree: lane i with lane i + n/2, and so on down to
    /// one.
    fn reduce_sum(self, a: Self::F32) -> f32;
    /// Returns the maximum of the lanes, by the same tree of [`Isa::max`].
    fn reduce_max(self, a: Self::F32) -> f32;
    /// Returns the elements of even index and those of odd index of the concatenation of `a` and
    /// `b`.
    fn deinterleave(self, a: Self::F32, b: Self::F32) -> (Self::F32, Self::F32);
    /// The inverse of [`Isa::deinterleave`]: `a0 b0 a1 b1 …` as two vectors.
    fn interleave(self, a: Self::F32, b: Self::F32) -> (Self::F32, Self::F32);

    /// Returns the lanes as the first [`Isa::LANES`] elements of an array, for tests and rare
    /// paths.
    #[inline(always)]
    fn to_array(self, a: Self::F32) -> [f32; MAX_LANES] {
        let mut lanes = [0.0; MAX_LANES];
        self.store(&mut lanes, a);
        lanes
    }
}

/// The largest number of lanes of a vector.
pub const MAX_LANES: usize = 16;
