//! The error function and the normal distribution.
//!
//! Both tails of the normal distribution come from one polynomial: log₂ 2Φ(-t) = t·P(t), minimax
//! over [0, 6] with the weight that keeps the absolute error of Φ under 2⁻²⁶ and its relative error
//! under 2⁻¹⁷. Its last coefficient is negative, so it keeps falling past 6. (The idea, in base e
//! and for erf, is N. Juffa's `erff`.) Near 0, erf has its own polynomial, x + x·Q(x²), which keeps
//! the relative error small.

use super::elementwise::{Lanes, lanes, map};
use super::exp::exp2_lanes;
use super::polynomial::polynomial;
use crate::kernels::simd::Isa;

/// log₂ 2Φ(-t) / t, from the constant upwards.
const LOG2_TAIL: [f32; 10] = [
    -1.151_104_8,
    -0.459_214_57,
    -0.052_462_39,
    6.980_959e-3,
    -3.033_427e-5,
    -2.637_212_5e-4,
    7.140_876_6e-5,
    -1.002_548_6e-5,
    7.638_949_5e-7,
    -2.485_839_6e-8,
];
/// erf(x)/x - 1 in x², from the constant upwards, for |x| ≤ 0.56.
const NEAR_ZERO: [f32; 5] = [0.128_379_17, -0.376_125_66, 0.112_819_515, -0.026_699_54, 4.600_833e-3];

/// y = erf x = 2/√π ∫₀ˣ e^(-t²) dt
///
/// Within 2 ulp.
pub fn erf(x: &[f32], y: &mut [f32]) {
    map(Erf, [x], y);
}

lanes!(struct Erf: 1 in 9.0 ns, |self, isa, [x]| {
    let s = isa.mul(x, x);
    let near = isa.mul_add(polynomial(isa, NEAR_ZERO, s, isa.mul(s, s)), x, x);
    let t = isa.abs(x);
    let tails = twice_tail(isa, isa.mul(t, isa.splat(std::f32::consts::SQRT_2)));
    let far = isa.copysign(isa.sub(isa.splat(1.0), tails), x);
    isa.select(isa.lt(t, isa.splat(0.55)), near, far)
});

/// 2Φ(-t) for t ≥ 0.
#[inline(always)]
fn twice_tail<I: Isa>(isa: I, t: I::F32) -> I::F32 {
    // Where the powers are infinite, sums of pairs of them would be NaN; this order of operands
    // propagates NaN.
    let t = isa.min(isa.splat(64.0), t);
    let p = polynomial(isa, LOG2_TAIL, t, isa.mul(t, t));
    exp2_lanes(isa, isa.mul(p, t))
}

/// Φ(x), the normal distribution function; within 2⁻²⁴, and within 2⁻¹⁶ of itself in the lower tail
/// down to -6.
#[inline(always)]
pub(crate) fn normal_cdf_lanes<I: Isa>(isa: I, x: I::F32) -> I::F32 {
    let tail = isa.mul(isa.splat(0.5), twice_tail(isa, isa.abs(x)));
    isa.select(isa.lt(x, isa.zero()), tail, isa.sub(isa.splat(1.0), tail))
}

/// φ(x) = e^(-x²/2) / √2π, the normal density; within 2⁻²³.
#[inline(always)]
pub(super) fn normal_pdf_lanes<I: Isa>(isa: I, x: I::F32) -> I::F32 {
    const HALF_LOG2_E: f32 = 0.5 * super::exp::LOG2_E;
    const INV_SQRT_2PI: f32 = 0.398_942_3;
    let power = exp2_lanes(isa, isa.mul(isa.mul(x, isa.splat(-HALF_LOG2_E)), x));
    isa.mul(power, isa.splat(INV_SQRT_2PI))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{check_ulp, check_values, erf_f64};
    use super::*;

    #[test]
    fn erf_is_within_its_bound() {
        check_ulp(erf, erf_f64, -6.0..6.0, 2.0);
        check_ulp(erf, erf_f64, -0.6..0.6, 2.0);
        check_ulp(erf, erf_f64, -1e-3..1e-3, 2.0);
    }

    #[test]
    fn the_ends() {
        let inf = f32::INFINITY;
        check_values(erf, &[(0.0, 0.0), (-0.0, -0.0), (inf, 1.0), (-inf, -1.0), (1e20, 1.0), (f32::NAN, f32::NAN)]);
    }
}
