//! The exponential function.
//!
//! eˣ = 2ⁿ·eʳ with n the integer nearest to x/ln 2 and |r| ≤ ln 2 / 2 (W. J. Cody and W. Waite,
//! *Software Manual for the Elementary Functions*, 1980); eʳ by a polynomial of degree 6, minimax
//! in relative error (Remez exchange); 2ⁿ by adding n to the exponent's bits.

use super::elementwise::{Lanes, lanes, map};
use super::polynomial::polynomial;
use crate::kernels::simd::Isa;

/// 1/ln 2
pub(super) const LOG2_E: f32 = std::f32::consts::LOG2_E;
/// The first bits of ln 2, few enough that n times them is exact, …
const LN_2_HIGH: f32 = 0.693_359_4;
/// … and the remaining ones.
const LN_2_LOW: f32 = -2.121_944_4e-4;
/// (eʳ - 1 - r) / r², from the constant upwards; error 3.1e-9 of eʳ.
const POLYNOMIAL: [f32; 5] = [0.499_999_94, 0.166_665_21, 0.041_668_39, 8.368_717e-3, 1.381_459_9e-3];
/// Adding this to a number below 2²² rounds it to an integer, which is then in the lowest bits, in
/// two's complement.
pub(super) const ROUNDER: f32 = 12_582_912.0;
/// Below this, the result would be subnormal.
const UNDERFLOW: f32 = -87.336_54;
/// Above this, the result is infinite.
const OVERFLOW: f32 = 88.722_83;

/// y = eˣ
///
/// Within 1 ulp; zero below -87.3365, where the result would be subnormal, and infinite above
/// 88.7228.
///
/// # Examples
///
/// ```
/// let mut y = [0.0; 3];
/// loquat::kernels::vecmath::exp(&[0.0, 1.0, f32::NEG_INFINITY], &mut y);
/// assert_eq!(y, [1.0, std::f32::consts::E, 0.0]);
/// ```
pub fn exp(x: &[f32], y: &mut [f32]) {
    map(Exp, [x], y);
}

lanes!(struct Exp: 1 in 5.0 ns, |self, isa, [x]| exp_lanes(isa, x));

/// eˣ, see [`exp`].
#[inline(always)]
pub(crate) fn exp_lanes<I: Isa>(isa: I, x: I::F32) -> I::F32 {
    let too_large = isa.lt(isa.splat(OVERFLOW), x);
    isa.select(too_large, isa.splat(f32::INFINITY), exp_below_overflow(isa, x))
}

/// eˣ for x ≤ 88.7228, which saves a comparison: softmax and sigmoid have x ≤ 0.
#[inline(always)]
pub(crate) fn exp_below_overflow<I: Isa>(isa: I, x: I::F32) -> I::F32 {
    let (n_bits, r) = reduce(isa, x);
    let squared = isa.mul(r, r);
    let p = polynomial(isa, POLYNOMIAL, r, squared);
    let p = isa.add(isa.mul_add(p, squared, r), isa.splat(1.0));
    let y = isa.from_bits(isa.add_i32(isa.bits(p), isa.shl(n_bits, 23)));
    isa.select(isa.lt(x, isa.splat(UNDERFLOW)), isa.zero(), y)
}

/// n, in the lowest bits, and r: x = n ln 2 + r.
#[inline(always)]
fn reduce<I: Isa>(isa: I, x: I::F32) -> (I::I32, I::F32) {
    let rounder = isa.splat(ROUNDER);
    let shifted = isa.mul_add(x, isa.splat(LOG2_E), rounder);
    let n = isa.sub(shifted, rounder);
    let r = isa.neg_mul_add(n, isa.splat(LN_2_HIGH), x);
    let r = isa.neg_mul_add(n, isa.splat(LN_2_LOW), r);
    (isa.bits(shifted), r)
}

/// eˣ - 1 for x in [0, 88], within 1.5 ulp: near 0, the 1 is never added.
#[inline(always)]
pub(super) fn expm1_positive<I: Isa>(isa: I, x: I::F32) -> I::F32 {
    /// (eʳ - 1 - r) / r², from the constant upwards; error 1.3e-8 of eʳ - 1.
    const POLYNOMIAL: [f32; 5] = [0.5, 0.166_665_43, 0.041_666_28, 8.366_584e-3, 1.394_645_1e-3];
    let (n_bits, r) = reduce(isa, x);
    let squared = isa.mul(r, r);
    let p = isa.mul_add(polynomial(isa, POLYNOMIAL, r, squared), squared, r);
    let power = isa.from_bits(isa.add_i32(isa.shl(n_bits, 23), isa.splat_i32(127 << 23)));
    isa.mul_add(p, power, isa.sub(power, isa.splat(1.0)))
}

/// 2ˣ for x ≤ 127, within 1 ulp; zero below -126.
#[inline(always)]
pub(super) fn exp2_lanes<I: Isa>(isa: I, x: I::F32) -> I::F32 {
    /// (2ʳ - 1) / r for |r| ≤ ½, from the constant upwards; error 2.0e-9 of 2ʳ.
    const POLYNOMIAL: [f32; 6] =
        [std::f32::consts::LN_2, 0.240_226_48, 0.055_503_324, 9.618_437e-3, 1.339_887_7e-3, 1.535_336e-4];
    let rounder = isa.splat(ROUNDER);
    let shifted = isa.add(x, rounder);
    let r = isa.sub(x, isa.sub(shifted, rounder));
    let p = polynomial(isa, POLYNOMIAL, r, isa.mul(r, r));
    let p = isa.mul_add(p, r, isa.splat(1.0));
    let y = isa.from_bits(isa.add_i32(isa.bits(p), isa.shl(isa.bits(shifted), 23)));
    isa.select(isa.lt(x, isa.splat(-126.0)), isa.zero(), y)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{check_ulp, check_values};
    use super::*;

    #[test]
    fn exp_is_within_its_bound() {
        check_ulp(exp, f64::exp, -87.336..88.7228, 1.0);
        check_ulp(exp, f64::exp, -1.0..1.0, 1.0);
    }

    #[test]
    fn exp_of_the_ends() {
        let inf = f32::INFINITY;
        check_values(exp, &[(0.0, 1.0), (-0.0, 1.0), (1e-30, 1.0), (inf, inf), (-inf, 0.0), (f32::NAN, f32::NAN)]);
        check_values(exp, &[(88.73, inf), (1e30, inf), (-88.0, 0.0), (-1e30, 0.0)]);
    }
}
