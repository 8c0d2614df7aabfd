//! Hyperbolic tangent and the logistic sigmoid.
//!
//! tanh |x| = u / (u + 2) with u = e^(2|x|) - 1, which is accurate near 0; the sign is restored at
//! the end. σ(x) = 1 / (1 + e⁻ˣ) = eˣ / (1 + eˣ), in the form whose exponential does not overflow.

use super::elementwise::{Lanes, lanes, map};
use super::exp::{exp_below_overflow, expm1_positive};
use crate::kernels::simd::Isa;

/// From here on, tanh is 1 in `f32`.
const SATURATION: f32 = 9.02;

/// y = tanh x
///
/// Within 2.5 ulp.
pub fn tanh(x: &[f32], y: &mut [f32]) {
    map(Tanh, [x], y);
}

/// y = 1 / (1 + e⁻ˣ)
///
/// Within 2.5 ulp; zero below -87.3365.
pub fn sigmoid(x: &[f32], y: &mut [f32]) {
    map(Sigmoid, [x], y);
}

lanes!(struct Tanh: 1 in 8.0 ns, |self, isa, [x]| tanh_lanes(isa, x));

lanes!(struct Sigmoid: 1 in 7.0 ns, |self, isa, [x]| sigmoid_lanes(isa, x));

/// tanh x, see [`tanh`].
#[inline(always)]
pub(crate) fn tanh_lanes<I: Isa>(isa: I, x: I::F32) -> I::F32 {
    // This order of operands propagates NaN.
    let magnitude = isa.min(isa.splat(SATURATION), isa.abs(x));
    let u = expm1_positive(isa, isa.add(magnitude, magnitude));
    isa.copysign(isa.div(u, isa.add(u, isa.splat(2.0))), x)
}

/// σ(x), see [`sigmoid`].
#[inline(always)]
pub(crate) fn sigmoid_lanes<I: Isa>(isa: I, x: I::F32) -> I::F32 {
    let one = isa.splat(1.0);
    let e = exp_below_overflow(isa, isa.neg(isa.abs(x)));
    isa.div(isa.select(isa.lt(x, isa.zero()), e, one), isa.add(one, e))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{check_ulp, check_values};
    use super::*;

    #[test]
    fn tanh_is_within_its_bound() {
        check_ulp(tanh, f64::tanh, -10.0..10.0, 2.5);
        check_ulp(tanh, f64::tanh, -0.7..0.7, 2.5);
        check_ulp(tanh, f64::tanh, -1e-3..1e-3, 2.5);
    }

    #[test]
    fn sigmoid_is_within_its_bound() {
        check_ulp(sigmoid, |x| 1.0 / (1.0 + (-x).exp()), -87.0..100.0, 2.5);
        check_ulp(sigmoid, |x| 1.0 / (1.0 + (-x).exp()), -3.0..3.0, 2.5);
    }

    #[test]
    fn the_ends() {
        let inf = f32::INFINITY;
        check_values(tanh, &[(0.0, 0.0), (-0.0, -0.0), (1e-30, 1e-30), (inf, 1.0), (-inf, -1.0), (f32::NAN, f32::NAN)]);
        check_values(sigmoid, &[(0.0, 0.5), (inf, 1.0), (-inf, 0.0), (f32::NAN, f32::NAN), (-1e30, 0.0)]);
    }
}
