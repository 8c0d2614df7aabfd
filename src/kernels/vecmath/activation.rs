//! Activation functions and their derivatives.
//!
//! | | y | dy/dx |
//! |---|---|---|
//! | ReLU | max(x, 0) | 1 where x > 0 |
//! | GELU | x Φ(x) | Φ(x) + x φ(x) |
//! | GELU, tanh form | x σ(2u), u = √(2/π)·(x + 0.044715 x³) | σ(2u) + x σ(2u) σ(-2u)·2u′ |
//! | SiLU | x σ(x) | σ(x) (1 + x σ(-x)) |
//! | sigmoid | σ(x) | σ(x) σ(-x) |
//! | tanh | tanh x | 1 - tanh² x |
//! | softplus | ln(1 + eˣ) | σ(x) |
//! | ELU | x, α (eˣ - 1) where x ≤ 0 | 1, α eˣ where x ≤ 0 |
//! | leaky ReLU | x, s x where x ≤ 0 | 1, s where x ≤ 0 |
//!
//! GELU is Hendrycks and Gimpel, *Gaussian Error Linear Units*, 2016 (arXiv:1606.08415), with Φ and
//! φ the normal distribution and its density. Its tanh form ½x(1 + tanh u) is written with σ, to
//! which it is equal: ½(1 + tanh u) = σ(2u). SiLU is also known as Swish. ELU is Clevert,
//! Unterthiner and Hochreiter, 2015 (arXiv:1511.07289).

use super::elementwise::{Lanes, lanes, map};
use super::erf::{normal_cdf_lanes, normal_pdf_lanes};
use super::exp::exp_lanes;
use super::tanh::{sigmoid_lanes, tanh_lanes};
use crate::kernels::simd::Isa;

/// An activation function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Activation {
    /// max(x, 0)
    Relu,
    /// x Φ(x), exact: PyTorch's `gelu`, Hugging Face's `gelu`.
    Gelu,
    /// The tanh form of GELU: PyTorch's `gelu(approximate="tanh")`, Hugging Face's `gelu_new` and
    /// `gelu_pytorch_tanh`.
    GeluTanh,
    /// x σ(x): Hugging Face's `silu` and `swish`.
    Silu,
    /// 1 / (1 + e⁻ˣ)
    Sigmoid,
    /// tanh x
    Tanh,
}

/// y = act(x)
///
/// Within 3 ulp. GELU and SiLU: within 3 ulp for x ≥ 0, below within 2⁻²² of |x|.
///
/// # Examples
///
/// ```
/// use loquat::kernels::vecmath::{Activation, activation};
///
/// let mut y = [0.0; 3];
/// activation(Activation::Relu, &[-1.0, 0.5, 2.0], &mut y);
/// assert_eq!(y, [0.0, 0.5, 2.0]);
/// ```
pub fn activation(act: Activation, x: &[f32], y: &mut [f32]) {
    match act {
        Activation::Relu => map(Relu, [x], y),
        Activation::Gelu => map(Gelu, [x], y),
        Activation::GeluTanh => map(GeluTanh, [x], y),
        Activation::Silu => map(Silu, [x], y),
        Activation::Sigmoid => super::sigmoid(x, y),
        Activation::Tanh => super::tanh(x, y),
    }
}

/// dx = dy · act′(x)
///
/// `x` is the input of the forward call.
pub fn activation_backward(act: Activation, dy: &[f32], x: &[f32], dx: &mut [f32]) {
    match act {
        Activation::Relu => map(ReluBackward, [dy, x], dx),
        Activation::Gelu => map(GeluBackward, [dy, x], dx),
        Activation::GeluTanh => map(GeluTanhBackward, [dy, x], dx),
        Activation::Silu => map(SiluBackward, [dy, x], dx),
        Activation::Sigmoid => map(SigmoidBackward, [dy, x], dx),
        Activation::Tanh => map(TanhBackward, [dy, x], dx),
    }
}

impl Activation {
    /// Computes act(x) of one vector, for kernels that apply it to their output. The choice of the
    /// activation should be outside of the loop.
    #[inline(always)]
    #[allow(dead_code)]
    pub(crate) fn lanes<I: Isa>(self, isa: I, x: I::F32) -> I::F32 {
        match self {
            Activation::Relu => Relu.lanes(isa, [x]),
            Activation::Gelu => Gelu.lanes(isa, [x]),
            Activation::GeluTanh => GeluTanh.lanes(isa, [x]),
            Activation::Silu => Silu.lanes(isa, [x]),
            Activation::Sigmoid => sigmoid_lanes(isa, x),
            Activation::Tanh => tanh_lanes(isa, x),
        }
    }
}

/// y = ln(1 + eˣ), without overflow. Within 4 ulp.
pub fn softplus(x: &[f32], y: &mut [f32]) {
    map(Softplus, [x], y);
}

/// dx = dy · σ(x)
pub fn softplus_backward(dy: &[f32], x: &[f32], dx: &mut [f32]) {
    map(SoftplusBackward, [dy, x], dx);
}

/// y = x where x > 0, else `alpha` · (eˣ - 1). Within 5 ulp.
pub fn elu(alpha: f32, x: &[f32], y: &mut [f32]) {
    map(Elu(alpha), [x], y);
}

/// dx = dy where x > 0, else dy · `alpha` · eˣ
pub fn elu_backward(alpha: f32, dy: &[f32], x: &[f32], dx: &mut [f32]) {
    map(EluBackward(alpha), [dy, x], dx);
}

/// y = x where x > 0, else `slope` · x
pub fn leaky_relu(slope: f32, x: &[f32], y: &mut [f32]) {
    map(LeakyRelu(slope), [x], y);
}

/// dx = dy where x > 0, else `slope` · dy
pub fn leaky_relu_backward(slope: f32, dy: &[f32], x: &[f32], dx: &mut [f32]) {
    map(LeakyReluBackward(slope), [dy, x], dx);
}

lanes!(struct Softplus: 1 in 10.0 ns, |self, isa, [x]| {
    // max(x, 0) + ln(1 + u), u = e^-|x| in [0, 1]; ln(1 + u) = 2 artanh(s), s = u / (2 + u) in
    // [0, 1/3].
    let largest = isa.max(isa.zero(), x);
    let u = exp_lanes(isa, isa.neg(isa.abs(x)));
    let s = isa.div(u, isa.add(isa.splat(2.0), u));
    let z = isa.mul(s, s);
    // 1 + z/3 + z²/5 + …; the relative error of the truncation is below 2e-9.
    let series = [15.0, 13.0, 11.0, 9.0, 7.0, 5.0, 3.0, 1.0f32];
    let mut sum = isa.zero();
    for n in series {
        sum = isa.mul_add(sum, z, isa.splat(1.0 / n));
    }
    let twice = isa.add(s, s);
    isa.mul_add(twice, sum, largest)
});

lanes!(struct SoftplusBackward: 2 in 8.0 ns, |self, isa, [dy, x]| isa.mul(dy, sigmoid_lanes(isa, x)));

lanes!(struct Elu(f32): 1 in 9.0 ns, |self, isa, [x]| {
    // eˣ - 1 = 2 t / (1 - t), t = tanh(x/2), which keeps the digits near zero.
    let t = tanh_lanes(isa, isa.mul(isa.splat(0.5), x));
    let below = isa.div(isa.add(t, t), isa.sub(isa.splat(1.0), t));
    isa.select(isa.lt(isa.zero(), x), x, isa.mul(isa.splat(self.0), below))
});

lanes!(struct EluBackward(f32): 2 in 9.0 ns, |self, isa, [dy, x]| {
    let below = isa.mul(isa.mul(dy, isa.splat(self.0)), exp_lanes(isa, x));
    isa.select(isa.lt(isa.zero(), x), dy, below)
});

lanes!(struct LeakyRelu(f32): 1 in 2.0 ns, |self, isa, [x]| {
    isa.select(isa.lt(isa.zero(), x), x, isa.mul(isa.splat(self.0), x))
});

lanes!(struct LeakyReluBackward(f32): 2 in 3.0 ns, |self, isa, [dy, x]| {
    isa.select(isa.lt(isa.zero(), x), dy, isa.mul(isa.splat(self.0), dy))
});

lanes!(struct Relu: 1 in 2.0 ns, |self, isa, [x]| {
    // This order of operands propagates NaN.
    isa.max(isa.zero(), x)
});

lanes!(struct ReluBackward: 2 in 3.0 ns, |self, isa, [dy, x]| {
    isa.select(isa.lt(isa.zero(), x), dy, isa.zero())
});

lanes!(struct Gelu: 1 in 8.0 ns, |self, isa, [x]| isa.mul(x, normal_cdf_lanes(isa, x)));

lanes!(struct GeluBackward: 2 in 14.0 ns, |self, isa, [dy, x]| {
    let slope = isa.mul_add(x, normal_pdf_lanes(isa, x), normal_cdf_lanes(isa, x));
    isa.mul(dy, slope)
});

/// 2√(2/π)
const TWICE_SQRT_2_OVER_PI: f32 = 1.595_769;
const CUBIC: f32 = 0.044_715;

lanes!(struct GeluTanh: 1 in 8.0 ns, |self, isa, [x]| {
    let s = isa.mul(x, x);
    let inner = isa.mul_add(isa.splat(TWICE_SQRT_2_OVER_PI * CUBIC), s, isa.splat(TWICE_SQRT_2_OVER_PI));
    isa.mul(x, sigmoid_lanes(isa, isa.mul(x, inner)))
});

lanes!(struct GeluTanhBackward: 2 in 10.0 ns, |self, isa, [dy, x]| {
    let s = isa.mul(x, x);
    let cubic = isa.splat(TWICE_SQRT_2_OVER_PI * CUBIC);
    let linear = isa.splat(TWICE_SQRT_2_OVER_PI);
    let sigma = sigmoid_lanes(isa, isa.mul(x, isa.mul_add(cubic, s, linear)));
    // 2u′
    let inner = isa.mul_add(isa.splat(3.0 * TWICE_SQRT_2_OVER_PI * CUBIC), s, linear);
    let rest = isa.sub(isa.splat(1.0), sigma);
    // σ (1 + x (1 - σ) 2u′)
    let slope = isa.mul(sigma, isa.mul_add(isa.mul(x, rest), inner, isa.splat(1.0)));
    isa.mul(dy, slope)
});

lanes!(struct Silu: 1 in 7.0 ns, |self, isa, [x]| isa.mul(x, sigmoid_lanes(isa, x)));

lanes!(struct SiluBackward: 2 in 9.0 ns, |self, isa, [dy, x]| {
    let one = isa.splat(1.0);
    let sigma = sigmoid_lanes(isa, x);
    let slope = isa.mul(sigma, isa.mul_add(x, isa.sub(one, sigma), one));
    isa.mul(dy, slope)
});

lanes!(struct SigmoidBackward: 2 in 8.0 ns, |self, isa, [dy, x]| {
    let sigma = sigmoid_lanes(isa, x);
    isa.mul(dy, isa.mul(sigma, isa.sub(isa.splat(1.0), sigma)))
});

lanes!(struct TanhBackward: 2 in 9.0 ns, |self, isa, [dy, x]| {
    let y = tanh_lanes(isa, x);
    isa.mul(dy, isa.neg_mul_add(y, y, isa.splat(1.0)))
});

#[cfg(test)]
mod tests {
    use super::super::testing::{check_ulp, check_values, normal_cdf_f64, slack};
    use super::*;
    use crate::kernels::simd::for_each_level;

    const ALL: [Activation; 6] = [
        Activation::Relu,
        Activation::Gelu,
        Activation::GeluTanh,
        Activation::Silu,
        Activation::Sigmoid,
        Activation::Tanh,
    ];

    fn reference(act: Activation, x: f64) -> f64 {
        let sigma = |x: f64| 1.0 / (1.0 + (-x).exp());
        match act {
            Activation::Relu => x.max(0.0),
            Activation::Gelu => x * normal_cdf_f64(x),
            Activation::GeluTanh => x * sigma(2.0 * (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3))),
            Activation::Silu => x * sigma(x),
            Activation::Sigmoid => sigma(x),
            Activation::Tanh => x.tanh(),
        }
    }

    #[test]
    fn positive_inputs_are_within_their_bound() {
        for act in ALL {
            eprintln!("{act:?}");
            check_ulp(|x, y| activation(act, x, y), |x| reference(act, x), 0.0..12.0, 3.0);
        }
    }

    #[test]
    fn negative_inputs_are_within_their_bound() {
        for act in [Activation::Gelu, Activation::GeluTanh, Activation::Silu] {
            for_each_level(|level| {
                let x: Vec<f32> = (0..200_000).map(|i| -1e-4 * i as f32).collect();
                let mut y = vec![0.0; x.len()];
                activation(act, &x, &mut y);
                for (&x, &y) in x.iter().zip(&y) {
                    let bound = 2f64.powi(-22) * x.abs().max(1e-30) as f64 * (1.0 + slack(level));
                    let error = (y as f64 - reference(act, x as f64)).abs();
                    assert!(error <= bound, "{act:?} {level:?} at {x}: {error:e}");
                }
            });
        }
    }

    #[test]
    fn backward_is_the_derivative() {
        for act in ALL {
            for_each_level(|level| {
                let x: Vec<f32> = (0..4001).map(|i| (i - 2000) as f32 * 4.9e-3 + 1e-4).collect();
                let dy: Vec<f32> = (0..4001).map(|i| 1.0 + (i % 7) as f32).collect();
                let mut dx = vec![0.0; x.len()];
                activation_backward(act, &dy, &x, &mut dx);
                for i in 0..x.len() {
                    let (at, h) = (x[i] as f64, 1e-5);
                    let slope = (reference(act, at + h) - reference(act, at - h)) / (2.0 * h);
                    let error = (dx[i] as f64 / dy[i] as f64 - slope).abs();
                    assert!(error < 2e-6, "{act:?} {level:?} at {at}: {error:e}");
                }
            });
        }
    }

    #[test]
    fn the_ends() {
        let inf = f32::INFINITY;
        for act in [Activation::Relu, Activation::Gelu, Activation::GeluTanh, Activation::Silu] {
            let ends = [(0.0, 0.0), (inf, inf), (f32::NAN, f32::NAN), (30.0, 30.0), (1e10, 1e10), (-1e3, -0.0)];
            let ends: Vec<_> = ends.into_iter().filter(|&(x, _)| act != Activation::Relu || x != -1e3).collect();
            check_values(|x, y| activation(act, x, y), &ends);
        }
    }

    #[test]
    fn softplus_elu_and_leaky_relu_are_within_their_bounds() {
        let softplus_f64 = |x: f64| x.max(0.0) + (-x.abs()).exp().ln_1p();
        check_ulp(softplus, softplus_f64, 0.0..40.0, 4.0);
        check_ulp(softplus, softplus_f64, -80.0..0.0, 6.0);
        check_ulp(|x, y| elu(1.5, x, y), |x| if x > 0.0 { x } else { 1.5 * x.exp_m1() }, -20.0..5.0, 5.0);
        check_ulp(|x, y| leaky_relu(0.25, x, y), |x| if x > 0.0 { x } else { 0.25 * x }, -20.0..5.0, 0.5);
        let inf = f32::INFINITY;
        check_values(softplus, &[(inf, inf), (-inf, 0.0), (f32::NAN, f32::NAN), (1e30, 1e30), (-1e30, 0.0)]);
        check_values(
            |x, y| elu(2.0, x, y),
            &[(inf, inf), (-inf, -2.0), (f32::NAN, f32::NAN), (0.0, 0.0), (-1e30, -2.0)],
        );
        check_values(|x, y| leaky_relu(0.5, x, y), &[(inf, inf), (-inf, -inf), (f32::NAN, f32::NAN), (-3.0, -1.5)]);
    }

    #[test]
    fn their_backward_is_the_derivative() {
        type Case = (&'static str, fn(&[f32], &[f32], &mut [f32]), fn(f64) -> f64);
        let cases: [Case; 3] = [
            ("softplus", softplus_backward, |x| 1.0 / (1.0 + (-x).exp())),
            ("elu", |dy, x, dx| elu_backward(1.5, dy, x, dx), |x| if x > 0.0 { 1.0 } else { 1.5 * x.exp() }),
            ("leaky", |dy, x, dx| leaky_relu_backward(0.25, dy, x, dx), |x| if x > 0.0 { 1.0 } else { 0.25 }),
        ];
        for (name, backward, slope) in cases {
            for_each_level(|level| {
                let x: Vec<f32> = (0..4001).map(|i| (i - 2000) as f32 * 4.9e-3 + 1e-4).collect();
                let dy: Vec<f32> = (0..4001).map(|i| 1.0 + (i % 7) as f32).collect();
                let mut dx = vec![0.0; x.len()];
                backward(&dy, &x, &mut dx);
                for i in 0..x.len() {
                    let error = (dx[i] as f64 / dy[i] as f64 - slope(x[i] as f64)).abs();
                    assert!(error < 2e-6, "{name} {level:?} at {}: {error:e}", x[i]);
                }
            });
        }
    }
}
