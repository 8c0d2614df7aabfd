//! Gradients against central differences: the check of every backward formula.

use crate::error::{Error, Result};
use crate::random::Rng;
use crate::tensor::{Tensor, no_grad};

/// A comparison of gradients with central differences, with its step and tolerance.
///
/// The gradient of `s(x) = Σ cᵢ f(x)ᵢ`, with fixed random `c` in [0.5, 1.5), is compared in every
/// element of every input with `(s(x + step) - s(x - step)) / (2 step)`. In `f32` such a quotient
/// has about three correct digits, so the step is large and the tolerance relative.
///
/// Inputs should be a few steps away from points where `f` has no derivative, and have few
/// elements: `f` is called twice for each.
///
/// # Examples
/// ```
/// use loquat::{Tensor, ops::GradientCheck};
///
/// let x = Tensor::from_vec(vec![0.3, -1.2], &[2])?;
/// GradientCheck { tolerance: 0.005, ..GradientCheck::default() }.run(&[x], |x| Ok(x[0].tanh()))?;
/// # Ok::<(), loquat::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct GradientCheck {
    /// How far each element is moved, both ways. Default: 1/128.
    pub step: f32,
    /// The difference that is allowed, relative to the largest difference quotient of the input, or
    /// to 0.01 if all are smaller. Default: 0.02.
    pub tolerance: f64,
}

impl Default for GradientCheck {
    fn default() -> Self {
        Self { step: 1.0 / 128.0, tolerance: 0.02 }
    }
}

impl GradientCheck {
    /// Compares the gradients of `f` at `inputs` with central differences.
    ///
    /// An input on which the result does not depend has the gradient 0.
    ///
    /// # Errors
    /// [`Error::Gradient`] with the input, the element, the quotient and the gradient where they
    /// differ most in the first input where they do; [`Error::Argument`] if the step is not
    /// positive; the errors of `f` and of its backward formula.
    pub fn run(&self, inputs: &[Tensor], f: impl Fn(&[Tensor]) -> Result<Tensor>) -> Result<()> {
        self.run_dyn(inputs, &f)
    }

    fn run_dyn(&self, inputs: &[Tensor], f: &dyn Fn(&[Tensor]) -> Result<Tensor>) -> Result<()> {
        if !(self.step > 0.0 && self.step.is_finite()) {
            return Err(Error::argument("gradient check step", "a positive number", self.step));
        }
        let watched: Vec<Tensor> = inputs.iter().map(Tensor::watch).collect();
        let y = f(&watched)?;
        let c = Tensor::uniform(y.shape(), 0.5, 1.5, &mut Rng::seed(17));
        let gradients = y.backward_from(c.clone())?;
        let value = |inputs: &[Tensor]| -> Result<f64> {
            let y = no_grad(|| f(inputs))?;
            Ok(y.data().iter().zip(c.data()).map(|(&y, &c)| f64::from(y) * f64::from(c)).sum())
        };
        for (input, x) in watched.iter().enumerate() {
            let mut quotients = Vec::with_capacity(x.len());
            for (j, &at) in x.data().iter().enumerate() {
                let mut shifted = inputs.to_vec();
                let (high, low) = (at + self.step, at - self.step);
                shifted[input].make_mut()[j] = high;
                let above = value(&shifted)?;
                shifted[input].make_mut()[j] = low;
                quotients.push((above - value(&shifted)?) / f64::from(high - low));
            }
            let largest = quotients.iter().fold(1e-2f64, |m, g| m.max(g.abs()));
            let tolerance = self.tolerance * largest;
            let none = Tensor::zeros(x.shape());
            let found = gradients.of(x).unwrap_or(&none).data().iter().map(|&dx| f64::from(dx));
            // NaN on either side is worse than every difference.
            let errors =
                found.zip(&quotients).map(|(dx, q)| (dx - q).abs()).map(|e| if e.is_nan() { f64::MAX } else { e });
            let worst = errors.enumerate().max_by(|a, b| a.1.total_cmp(&b.1)).filter(|(_, error)| *error > tolerance);
            if let Some((j, _)) = worst {
                let found = f64::from(gradients.of(x).unwrap_or(&none).data()[j]);
                let element = place(j, x.shape());
                return Err(Error::Gradient { input, element, expected: quotients[j], tolerance, found });
            }
        }
        Ok(())
    }
}

/// The index along each axis of element `i`.
fn place(mut i: usize, shape: &[usize]) -> Vec<usize> {
    let mut place = vec![0; shape.len()];
    for (place, &len) in place.iter_mut().zip(shape).rev() {
        (*place, i) = (i % len, i / len);
    }
    place
}

/// Compares the gradients of `f` at `inputs` with central differences, with the default step of
/// 1/128 and a tolerance of 2 % of an input's largest gradient; see [`GradientCheck`] for others.
///
/// # Errors
/// Same as [`GradientCheck::run`].
///
/// # Examples
/// ```
/// use loquat::{Rng, Tensor, ops};
///
/// let mut rng = Rng::seed(1);
/// let (x, w) = (Tensor::normal(&[2, 3], 1.0, &mut rng), Tensor::normal(&[3, 4], 1.0, &mut rng));
/// ops::gradient_check(&[x, w], |x| Ok(x[0].matmul(&x[1])?.tanh()))?;
/// # Ok::<(), loquat::Error>(())
/// ```
#[doc(alias = "gradcheck")]
pub fn gradient_check(inputs: &[Tensor], f: impl Fn(&[Tensor]) -> Result<Tensor>) -> Result<()> {
    GradientCheck::default().run(inputs, f)
}

/// [`gradient_check`] in the crate's tests; panics with `name`.
#[cfg(test)]
#[track_caller]
pub(crate) fn check(name: &str, inputs: &[Tensor], f: impl Fn(&[Tensor]) -> Result<Tensor>) {
    if let Err(error) = gradient_check(inputs, f) {
        panic!("{name}: {error}");
    }
}

/// A tensor of normal numbers that is the same in every run.
#[cfg(test)]
pub(crate) fn sample(shape: &[usize], seed: u64) -> Tensor {
    Tensor::normal(shape, 1.0, &mut Rng::seed(seed))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::custom_op;

    #[test]
    fn a_wrong_gradient_is_named_by_input_and_element() {
        let wrong = |x: &[Tensor]| {
            Ok(custom_op("wrong", &[&x[0], &x[1]], x[0].add(&x[1])?, |dy| {
                let mut db = dy.clone();
                db.make_mut()[4] = 7.0;
                Ok(vec![Some(dy.clone()), Some(db)])
            }))
        };
        let inputs = [sample(&[2, 3], 1), sample(&[2, 3], 2)];
        match gradient_check(&inputs, wrong).unwrap_err() {
            Error::Gradient { input, element, expected, found, .. } => {
                assert_eq!((input, &element[..], found), (1, &[1, 1][..], 7.0));
                assert!((0.4..1.6).contains(&expected));
            }
            other => panic!("{other}"),
        }
        let error = gradient_check(&inputs, wrong).unwrap_err().to_string();
        assert!(error.starts_with("gradient of input 1 at [1, 1]: expected "), "{error}");
        assert!(error.ends_with(", found 7"), "{error}");
    }

    #[test]
    fn what_cannot_be_compared_is_an_error() {
        let x = [Tensor::zeros(&[2])];
        let none = GradientCheck { step: 0.0, ..GradientCheck::default() };
        assert!(none.run(&x, |x| x[0].sum()).is_err());
        assert!(gradient_check(&x, |_| Ok(Tensor::scalar(1.0))).is_err());
        assert!(gradient_check(&x, |x| x[0].reshape(&[3])).is_err());
        // √ has no derivative at 0.
        assert!(gradient_check(&x, |x| Ok(x[0].sqrt())).is_err());
        assert!(gradient_check(&[x[0].clone(), x[0].clone()], |x| x[1].sum()).is_ok());
    }
}
