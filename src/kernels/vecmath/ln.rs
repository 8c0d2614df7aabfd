//! The natural logarithm.
//!
//! ln x = n ln 2 + ln m with m in [√½, √2), and ln(1 + f) = f - f²/2 + f³·P(f) for f = m - 1: the
//! method and the polynomial of S. L. Moshier's `logf` (Cephes, 1989), n and m from the bits as in
//! musl.

use super::elementwise::{Lanes, lanes, map};
use super::polynomial::polynomial;
use crate::kernels::simd::Isa;

/// The bits of √½: the smallest mantissa of the reduced number.
const SQRT_HALF: i32 = 0x3f35_04f3;
/// The bits of 1.
const ONE: i32 = 0x3f80_0000;
/// (ln(1 + f) - f + f²/2) / f³, from the constant upwards.
#[allow(clippy::excessive_precision)]
const POLYNOMIAL: [f32; 9] = [
    3.333_333_117_4e-1,
    -2.499_999_399_3e-1,
    2.000_071_476_5e-1,
    -1.666_805_766_5e-1,
    1.424_932_278_7e-1,
    -1.242_014_084_6e-1,
    1.167_699_874_0e-1,
    -1.151_461_031_0e-1,
    7.037_683_629_2e-2,
];
/// The first bits of ln 2, few enough that n times them is exact, …
const LN_2_HIGH: f32 = 0.693_359_4;
/// … and the rest.
const LN_2_LOW: f32 = -2.121_944_4e-4;
/// 2²³, which makes a subnormal number a normal one.
const NORMALISE: f32 = (1 << 23) as f32;

/// y = ln x
///
/// Within 1 ulp; -∞ for 0, NaN below.
///
/// # Examples
///
/// ```
/// let mut y = [0.0; 3];
/// loquat::kernels::vecmath::ln(&[1.0, 0.0, f32::INFINITY], &mut y);
/// assert_eq!(y, [0.0, f32::NEG_INFINITY, f32::INFINITY]);
/// ```
pub fn ln(x: &[f32], y: &mut [f32]) {
    map(Ln, [x], y);
}

lanes!(struct Ln: 1 in 6.0 ns, |self, isa, [x]| ln_lanes(isa, x));

/// ln x, see [`ln`].
#[inline(always)]
fn ln_lanes<I: Isa>(isa: I, x: I::F32) -> I::F32 {
    let zero = isa.zero();
    let subnormal = isa.lt(x, isa.splat(f32::MIN_POSITIVE));
    let normal = isa.select(subnormal, isa.mul(x, isa.splat(NORMALISE)), x);
    // Counted from √½, the exponent of the bits is that of a number in [√½, √2).
    let bits = isa.add_i32(isa.bits(normal), isa.splat_i32(ONE - SQRT_HALF));
    let bias = isa.select(subnormal, isa.splat(127.0 + 23.0), isa.splat(127.0));
    let n = isa.sub(isa.from_i32(isa.shr(bits, 23)), bias);
    let mantissa = isa.add_i32(isa.and(bits, isa.splat_i32(0x007f_ffff)), isa.splat_i32(SQRT_HALF));
    let f = isa.sub(isa.from_bits(mantissa), isa.splat(1.0));
    let squared = isa.mul(f, f);
    let p = isa.mul(isa.mul(polynomial(isa, POLYNOMIAL, f, squared), squared), f);
    let p = isa.mul_add(n, isa.splat(LN_2_LOW), p);
    let p = isa.neg_mul_add(isa.splat(0.5), squared, p);
    let y = isa.mul_add(n, isa.splat(LN_2_HIGH), isa.add(f, p));
    // What is no positive finite number: ∞ and NaN stay, 0 gives -∞, below is NaN.
    let y = isa.select(isa.lt(x, isa.splat(f32::INFINITY)), y, x);
    let y = isa.select(isa.eq(x, zero), isa.splat(f32::NEG_INFINITY), y);
    isa.select(isa.lt(x, zero), isa.splat(f32::NAN), y)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{check_ulp, check_values};
    use super::*;

    #[test]
    fn ln_is_within_its_bound() {
        check_ulp(ln, f64::ln, 0.5..2.0, 1.0);
        check_ulp(ln, f64::ln, 1e-6..1e-3, 1.0);
        check_ulp(ln, f64::ln, 1e-38..1e-37, 1.0);
        check_ulp(ln, f64::ln, 1e-45..1e-39, 1.0);
        check_ulp(ln, f64::ln, 2.0..1e4, 1.0);
        check_ulp(ln, f64::ln, 1e4..3.4e38, 1.0);
    }

    #[test]
    fn ln_of_the_ends() {
        let inf = f32::INFINITY;
        check_values(ln, &[(1.0, 0.0), (0.0, -inf), (-0.0, -inf), (inf, inf), (f32::NAN, f32::NAN)]);
        check_values(ln, &[(-1.0, f32::NAN), (-1e-45, f32::NAN), (-inf, f32::NAN)]);
    }
}
