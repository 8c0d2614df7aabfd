//! Functions of one element: exponential, logarithm, roots, powers, absolute value, limits; and the
//! larger or smaller of two.

use crate::error::{Error, Result};
use crate::kernels::vecmath;
use crate::ops::broadcast::{Loop, common_shape, map, sum_to};
use crate::tensor::{Tensor, tape};

/// `f` of each element, detached from the tape, in the memory of a tensor of `x`'s shape.
fn each(x: &Tensor, f: &Loop<'_>) -> Tensor {
    map(x.shape(), &[x], f).expect("there is memory for another tensor of the shape")
}

/// Puts `y`, a function of `x`, on the tape: `df` computes dx from dy and `saved`.
fn recorded(
    op: &'static str,
    x: &Tensor,
    y: Tensor,
    saved: &Tensor,
    df: impl Fn(&[&[f32]], &mut [f32]) + Send + Sync + 'static,
) -> Tensor {
    tape::record(op, &[x], y, || {
        let saved = saved.detach();
        Box::new(move |dy, _| Ok(vec![Some(map(dy.shape(), &[&dy, &saved], &df)?)]))
    })
}

/// `dx[i] = dy[i] · slope(saved[i])`: the loop of a derivative.
fn times(slope: impl Fn(f32) -> f32 + Copy) -> impl Fn(&[&[f32]], &mut [f32]) {
    move |x, dx| {
        for ((dx, &dy), &saved) in dx.iter_mut().zip(x[0]).zip(x[1]) {
            *dx = dy * slope(saved);
        }
    }
}

/// `y[i] = f(x[i])`: the loop of a function.
fn of(f: impl Fn(f32) -> f32) -> impl Fn(&[&[f32]], &mut [f32]) {
    move |x, y| y.iter_mut().zip(x[0]).for_each(|(y, &x)| *y = f(x))
}

/// Which of two elements is chosen.
#[derive(Clone, Copy)]
enum Extreme {
    Larger,
    Smaller,
}

impl Tensor {
    /// Returns eˣ of each element x.
    ///
    /// Accurate to 1 ulp. Zero where the result would be subnormal (x < -87.34), infinite above
    /// 88.72.
    pub fn exp(&self) -> Tensor {
        let y = Tensor::write(self.shape(), |y| vecmath::exp(self.data(), y));
        let saved = y.clone();
        recorded("exp", self, y, &saved, times(|y| y))
    }

    /// Returns the natural logarithm of each element: -∞ for 0, NaN below.
    ///
    /// Accurate to 1 ulp. The gradient at 0 is infinite.
    #[doc(alias = "log")]
    pub fn ln(&self) -> Tensor {
        let y = Tensor::write(self.shape(), |y| vecmath::ln(self.data(), y));
        recorded("ln", self, y, self, |x, dx| vecmath::div(x[0], x[1], dx))
    }

    /// Returns the square root of each element; NaN below 0. The gradient at 0 is infinite.
    pub fn sqrt(&self) -> Tensor {
        let y = Tensor::write(self.shape(), |y| vecmath::sqrt(self.data(), y));
        let saved = y.clone();
        recorded("sqrt", self, y, &saved, times(|y| 0.5 / y))
    }

    /// Returns 1/√x of each element x: ∞ for 0, NaN below.
    pub fn rsqrt(&self) -> Tensor {
        let y = each(self, &of(|x| 1.0 / x.sqrt()));
        let saved = y.clone();
        recorded("rsqrt", self, y, &saved, times(|y| -0.5 * (y * y * y)))
    }

    /// Returns each element to the power of `exponent`.
    ///
    /// Accurate to 1 ulp. Special values are those of [`f32::powf`]: a negative element to a power
    /// that is not whole gives NaN, anything to the power of 0 gives 1. The gradient is
    /// `exponent · x^(exponent - 1)`, and 0 everywhere if `exponent` is 0.
    ///
    /// For an exponent that is a tensor write `base.ln().mul(&exponent)?.exp()`.
    ///
    /// # Examples
    /// ```
    /// let x = loquat::Tensor::from_vec(vec![-2.0, 3.0], &[2])?;
    /// assert_eq!(x.pow(2.0).to_vec(), [4.0, 9.0]);
    /// # Ok::<(), loquat::Error>(())
    /// ```
    #[doc(alias = "powf")]
    pub fn pow(&self, exponent: f32) -> Tensor {
        recorded("pow", self, power(self, exponent), self, move |x, dx| {
            if exponent == 0.0 {
                return dx.fill(0.0);
            }
            power_into(x[1], exponent - 1.0, dx);
            dx.iter_mut().zip(x[0]).for_each(|(dx, dy)| *dx *= dy * exponent);
        })
    }

    /// Returns the absolute value of each element. The gradient at 0 is 0.
    pub fn abs(&self) -> Tensor {
        let sign = |x: f32| if x == 0.0 { 0.0 } else { 1f32.copysign(x) };
        recorded("abs", self, each(self, &of(f32::abs)), self, times(sign))
    }

    /// Returns each element with the other sign.
    pub fn neg(&self) -> Tensor {
        tape::record("neg", &[self], each(self, &of(|x| -x)), || {
            Box::new(move |dy, _| Ok(vec![Some(each(&dy, &of(|x| -x)))]))
        })
    }

    /// Returns each element, raised to `min` or lowered to `max` where it is beyond. NaN stays NaN.
    ///
    /// The gradient passes where `min ≤ x ≤ max`, limits included, and is 0 elsewhere (recent
    /// versions of PyTorch have 0 at the limits too). An infinite limit limits nothing.
    ///
    /// # Errors
    /// [`Error::Argument`] if `min` is larger than `max`, or one of them is NaN.
    pub fn clamp(&self, min: f32, max: f32) -> Result<Tensor> {
        if min > max || min.is_nan() || max.is_nan() {
            return Err(Error::argument("clamp limits", "min <= max", format!("min {min}, max {max}")));
        }
        let y = each(
            self,
            &of(move |x| {
                if x < min {
                    min
                } else if x > max {
                    max
                } else {
                    x
                }
            }),
        );
        let inside = move |x: f32| if x >= min && x <= max { 1.0 } else { 0.0 };
        Ok(recorded("clamp", self, y, self, times(inside)))
    }

    /// Returns the larger of each two elements, with broadcasting; NaN if one of them is NaN.
    ///
    /// The gradient goes to the larger element, half and half to equal ones.
    ///
    /// # Errors
    /// Same as [`Tensor::add`].
    pub fn maximum(&self, other: &Tensor) -> Result<Tensor> {
        extreme("maximum", self, other, Extreme::Larger)
    }

    /// Returns the smaller of each two elements, with broadcasting; NaN if one of them is NaN.
    ///
    /// The gradient goes to the smaller element, half and half to equal ones.
    ///
    /// # Errors
    /// Same as [`Tensor::add`].
    pub fn minimum(&self, other: &Tensor) -> Result<Tensor> {
        extreme("minimum", self, other, Extreme::Smaller)
    }
}

/// xᵖ, detached from the tape.
fn power(x: &Tensor, p: f32) -> Tensor {
    each(x, &move |x, y| power_into(x[0], p, y))
}

/// y = xᵖ; the common exponents by products and roots.
fn power_into(x: &[f32], p: f32, y: &mut [f32]) {
    let simple: &Loop<'_> = match p {
        0.0 => &of(|_| 1.0),
        1.0 => &of(|x| x),
        2.0 => &of(|x| x * x),
        -1.0 => &of(|x| 1.0 / x),
        _ => return vecmath::powf(x, p, y),
    };
    simple(&[x], y);
}

fn extreme(op: &'static str, a: &Tensor, b: &Tensor, extreme: Extreme) -> Result<Tensor> {
    let shape = common_shape(&[a.shape(), b.shape()])?;
    let forward: &Loop<'_> = match extreme {
        Extreme::Larger => &|x, y| choose(x, y, |a, b| a > b),
        Extreme::Smaller => &|x, y| choose(x, y, |a, b| a < b),
    };
    let y = map(&shape, &[a, b], forward)?;
    Ok(tape::record(op, &[a, b], y, || {
        let (a, b) = (a.detach(), b.detach());
        Box::new(move |dy, needs| {
            // The gradient of the first of two tensors: all, half or nothing of dy.
            let gradient = |x: &Tensor, other: &Tensor| {
                let share: &Loop<'_> = match extreme {
                    Extreme::Larger => &|x, dx| split(x, dx, |x, other| x > other),
                    Extreme::Smaller => &|x, dx| split(x, dx, |x, other| x < other),
                };
                Ok(sum_to(map(dy.shape(), &[&dy, x, other], share)?, x.shape()))
            };
            let da = needs[0].then(|| gradient(&a, &b)).transpose()?;
            Ok(vec![da, needs[1].then(|| gradient(&b, &a)).transpose()?])
        })
    }))
}

fn choose(x: &[&[f32]], y: &mut [f32], first: impl Fn(f32, f32) -> bool) {
    for ((y, &a), &b) in y.iter_mut().zip(x[0]).zip(x[1]) {
        *y = if first(a, b) || a.is_nan() { a } else { b };
    }
}

fn split(x: &[&[f32]], dx: &mut [f32], first: impl Fn(f32, f32) -> bool) {
    for (((dx, &dy), &x), &other) in dx.iter_mut().zip(x[0]).zip(x[1]).zip(x[2]) {
        let equal = if x == other { 0.5 * dy } else { 0.0 };
        *dx = if first(x, other) { dy } else { equal };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::simd::{Level, for_each_level};
    use crate::ops::gradient_check::{check, sample};
    use crate::random::Rng;

    fn vector(x: &[f32]) -> Tensor {
        Tensor::from_vec(x.to_vec(), &[x.len()]).unwrap()
    }

    /// The gradient of the sum of `f(x)`.
    fn gradient(x: &[f32], f: impl Fn(&Tensor) -> Tensor) -> Vec<f32> {
        let x = vector(x).watch();
        f(&x).sum().unwrap().backward().unwrap().of(&x).unwrap().to_vec()
    }

    #[test]
    fn gradients_match_central_differences() {
        for shape in [&[][..], &[1], &[3, 5], &[2, 0], &[2, 17]] {
            let x = [sample(shape, 1)];
            let positive = [Tensor::uniform(shape, 0.5, 2.0, &mut Rng::seed(2))];
            let mut away = sample(shape, 3);
            away.make_mut().iter_mut().for_each(|x| *x += 0.05 * x.signum());
            check("exp", &x, |x| Ok(x[0].exp()));
            check("neg", &x, |x| Ok(x[0].neg()));
            check("ln", &positive, |x| Ok(x[0].ln()));
            check("sqrt", &positive, |x| Ok(x[0].sqrt()));
            check("rsqrt", &positive, |x| Ok(x[0].rsqrt()));
            for p in [0.0, 1.0, 2.0, 3.0, 0.5, -1.0, -0.5, 1.7] {
                check(&format!("pow {p}"), &positive, |x| Ok(x[0].pow(p)));
            }
            check("cube", &x, |x| Ok(x[0].pow(3.0)));
            check("abs", &[away.clone()], |x| Ok(x[0].abs()));
            check("clamp", &[away], |x| x[0].clamp(f32::NEG_INFINITY, 0.0));
        }
        for (a, b) in [(&[3, 5][..], &[3, 5][..]), (&[3, 1], &[4]), (&[], &[7]), (&[2, 1, 3], &[4, 1])] {
            let inputs = [sample(a, 1), sample(b, 2)];
            check("maximum", &inputs, |x| x[0].maximum(&x[1]));
            check("minimum", &inputs, |x| x[0].minimum(&x[1]));
        }
    }

    #[test]
    fn kinks_have_the_gradients_of_pytorch() {
        assert_eq!(gradient(&[-2.0, 0.0, -0.0, 3.0], Tensor::abs), [-1.0, 0.0, 0.0, 1.0]);
        let inside = gradient(&[0.9, 1.0, 1.5, 2.0, 2.1], |x| x.clamp(1.0, 2.0).unwrap());
        assert_eq!(inside, [0.0, 1.0, 1.0, 1.0, 0.0]);
        let other = vector(&[1.0, 2.0, 3.0]);
        assert_eq!(gradient(&[2.0; 3], |x| x.maximum(&other).unwrap()), [1.0, 0.5, 0.0]);
        assert_eq!(gradient(&[2.0; 3], |x| x.minimum(&other).unwrap()), [0.0, 0.5, 1.0]);
        assert_eq!(gradient(&[0.0, 2.0], |x| x.pow(0.0)), [0.0, 0.0]);
        assert_eq!(gradient(&[0.0, 2.0], |x| x.pow(1.0)), [1.0, 1.0]);
        assert_eq!(gradient(&[0.0], Tensor::sqrt), [f32::INFINITY]);
    }

    #[test]
    fn values_are_those_of_the_standard_library_at_every_level() {
        let x: Vec<f32> = sample(&[1000], 1).data().iter().map(|x| x.abs()).collect();
        type Case = (fn(&Tensor) -> Tensor, fn(f64) -> f64);
        let cases: [Case; 7] = [
            (Tensor::exp, f64::exp),
            (Tensor::ln, f64::ln),
            (Tensor::sqrt, f64::sqrt),
            (Tensor::rsqrt, |x| 1.0 / x.sqrt()),
            (|x| x.pow(1.7), |x| x.powf(f64::from(1.7f32))),
            (|x| x.pow(-1.0), |x| 1.0 / x),
            (Tensor::neg, |x| -x),
        ];
        for (f, expected) in cases {
            for_each_level(|_| {
                for (y, &x) in f(&vector(&x)).data().iter().zip(&x) {
                    let expected = expected(f64::from(x));
                    assert!((f64::from(*y) - expected).abs() <= 4e-7 * expected.abs(), "{x}: {expected}, {y}");
                }
            });
        }
    }

    #[test]
    fn levels_with_fused_multiply_add_have_the_same_bits() {
        let x = Tensor::uniform(&[3, 333], 0.01, 5.0, &mut Rng::seed(4)).watch();
        let mut seen: Option<(Vec<f32>, Vec<f32>)> = None;
        for_each_level(|level| {
            let y = x.exp().add(&x.ln()).unwrap().maximum(&x.rsqrt()).unwrap().mul(&x.pow(-1.3)).unwrap();
            let dx = y.backward_from(x.detach()).unwrap();
            let bits = (y.to_vec(), dx.of(&x).unwrap().to_vec());
            if level != Level::Portable {
                assert!(*seen.get_or_insert_with(|| bits.clone()) == bits);
            }
        });
    }

    #[test]
    fn nan_stays_nan() {
        let x = vector(&[f32::NAN]);
        let other = vector(&[1.0]);
        let results = [x.clamp(0.0, 1.0), x.maximum(&other), other.maximum(&x), x.minimum(&other), other.minimum(&x)];
        assert!(results.iter().all(|y| y.as_ref().unwrap().item().unwrap().is_nan()));
    }

    #[test]
    fn limits_in_the_wrong_order_are_an_error() {
        let error = Tensor::zeros(&[2]).clamp(2.0, 1.0).unwrap_err().to_string();
        assert_eq!(error, "clamp limits: expected min <= max, found min 2, max 1");
        assert!(Tensor::zeros(&[2]).clamp(f32::NAN, 1.0).is_err());
        let error = Tensor::zeros(&[2]).maximum(&Tensor::zeros(&[3])).unwrap_err().to_string();
        assert_eq!(error, "cannot broadcast [2] with [3]");
    }
}
