//! Element-wise activations, softmax and log-softmax.

pub use crate::kernels::vecmath::Activation;

use crate::error::{Error, Result};
use crate::kernels::vecmath;
use crate::tensor::{Tensor, tape};

impl Tensor {
    /// Applies `activation` to each element.
    pub fn activate(&self, activation: Activation) -> Tensor {
        let y = Tensor::write(self.shape(), |y| vecmath::activation(activation, self.data(), y));
        tape::record("activation", &[self], y, || {
            let x = self.detach();
            Box::new(move |dy, _| {
                let dx =
                    Tensor::write(x.shape(), |dx| vecmath::activation_backward(activation, dy.data(), x.data(), dx));
                Ok(vec![Some(dx)])
            })
        })
    }

    /// Computes `max(x, 0)`.
    pub fn relu(&self) -> Tensor {
        self.activate(Activation::Relu)
    }

    /// Computes `x Φ(x)`, with the cumulative normal distribution `Φ` (Hendrycks and Gimpel 2016).
    pub fn gelu(&self) -> Tensor {
        self.activate(Activation::Gelu)
    }

    /// Computes the tanh approximation of [`Tensor::gelu`], as in GPT-2.
    pub fn gelu_tanh(&self) -> Tensor {
        self.activate(Activation::GeluTanh)
    }

    /// Computes `x σ(x)`, also called swish.
    pub fn silu(&self) -> Tensor {
        self.activate(Activation::Silu)
    }

    /// Computes `1 / (1 + e⁻ˣ)`.
    pub fn sigmoid(&self) -> Tensor {
        self.activate(Activation::Sigmoid)
    }

    /// Computes the hyperbolic tangent.
    pub fn tanh(&self) -> Tensor {
        self.activate(Activation::Tanh)
    }

    /// Computes `ln(1 + eˣ)`, a smooth [`Tensor::relu`].
    pub fn softplus(&self) -> Tensor {
        self.mapped("softplus", vecmath::softplus, vecmath::softplus_backward)
    }

    /// Computes `x` where `x > 0` and `alpha · (eˣ - 1)` elsewhere (Clevert, Unterthiner and
    /// Hochreiter 2015). PyTorch's default for `alpha` is 1.
    pub fn elu(&self, alpha: f32) -> Tensor {
        let backward = move |dy: &[f32], x: &[f32], dx: &mut [f32]| vecmath::elu_backward(alpha, dy, x, dx);
        self.mapped("elu", |x, y| vecmath::elu(alpha, x, y), backward)
    }

    /// Computes `x` where `x > 0` and `slope · x` elsewhere (Maas, Hannun and Ng 2013). PyTorch's
    /// default for `slope` is 0.01.
    pub fn leaky_relu(&self, slope: f32) -> Tensor {
        let backward = move |dy: &[f32], x: &[f32], dx: &mut [f32]| vecmath::leaky_relu_backward(slope, dy, x, dx);
        self.mapped("leaky_relu", |x, y| vecmath::leaky_relu(slope, x, y), backward)
    }

    /// Applies a function to each element; `backward` computes its gradient from `dy` and the
    /// element.
    fn mapped(
        &self,
        op: &'static str,
        f: impl FnOnce(&[f32], &mut [f32]),
        backward: impl FnOnce(&[f32], &[f32], &mut [f32]) + Send + 'static,
    ) -> Tensor {
        let y = Tensor::write(self.shape(), |y| f(self.data(), y));
        tape::record(op, &[self], y, || {
            let x = self.detach();
            Box::new(move |dy, _| Ok(vec![Some(Tensor::write(x.shape(), |dx| backward(dy.data(), x.data(), dx)))]))
        })
    }

    /// Computes `eˣ / Σ eˣ` along the last axis; a row whose elements are all -∞ gives zeros.
    ///
    /// # Errors
    /// [`Error::Shape`] for a scalar.
    pub fn softmax(&self) -> Result<Tensor> {
        let cols = rows_of(self, "softmax")?;
        let y = Tensor::write(self.shape(), |y| vecmath::softmax(self.data(), cols, y));
        let saved = y.clone();
        Ok(tape::record("softmax", &[self], y, || {
            Box::new(move |dy, _| {
                let dx =
                    Tensor::write(saved.shape(), |dx| vecmath::softmax_backward(dy.data(), saved.data(), cols, dx));
                Ok(vec![Some(dx)])
            })
        }))
    }

    /// Computes `x - ln Σ eˣ` along the last axis; a row whose elements are all -∞ stays as it is,
    /// which is the logarithm of [`Tensor::softmax`].
    ///
    /// # Errors
    /// [`Error::Shape`] for a scalar.
    pub fn log_softmax(&self) -> Result<Tensor> {
        let cols = rows_of(self, "log_softmax")?;
        let y = Tensor::write(self.shape(), |y| vecmath::log_softmax(self.data(), cols, y));
        let saved = y.clone();
        Ok(tape::record("log_softmax", &[self], y, || {
            Box::new(move |dy, _| {
                let write = |dx: &mut [f32]| vecmath::log_softmax_backward(dy.data(), saved.data(), cols, dx);
                Ok(vec![Some(Tensor::write(saved.shape(), write))])
            })
        }))
    }
}

/// Returns the length of the last axis, or an error for a scalar.
fn rows_of(x: &Tensor, op: &str) -> Result<usize> {
    x.shape().last().copied().ok_or_else(|| Error::shape(op, "at least one axis", x.shape()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::gradient_check::{check, sample};

    #[test]
    fn gradients_match_central_differences() {
        use Activation::{Gelu, GeluTanh, Relu, Sigmoid, Silu, Tanh};
        for shape in [&[7][..], &[3, 5], &[2, 17]] {
            // No element is within a step of the corner of ReLU.
            let mut x = sample(shape, 3);
            x.make_mut().iter_mut().for_each(|x| *x += 0.05 * x.signum());
            for activation in [Relu, Gelu, GeluTanh, Silu, Sigmoid, Tanh] {
                check(&format!("{activation:?}"), &[x.clone()], |x| Ok(x[0].activate(activation)));
            }
            check("softplus", &[x.clone()], |x| Ok(x[0].softplus()));
            check("elu", &[x.clone()], |x| Ok(x[0].elu(1.5)));
            check("leaky_relu", &[x.clone()], |x| Ok(x[0].leaky_relu(0.1)));
            check("softmax", &[x.clone()], |x| x[0].softmax());
            check("log_softmax", &[x], |x| x[0].log_softmax());
        }
    }

    #[test]
    fn softmax_of_an_empty_or_masked_row_is_no_poison() {
        let masked = Tensor::full(&[1, 3], f32::NEG_INFINITY).softmax().unwrap();
        assert_eq!(masked.to_vec(), [0.0; 3]);
        let log = Tensor::full(&[1, 3], f32::NEG_INFINITY).log_softmax().unwrap();
        assert_eq!(log.to_vec(), [f32::NEG_INFINITY; 3]);
        assert_eq!(Tensor::zeros(&[2, 0]).softmax().unwrap().shape(), [2, 0]);
        assert!(Tensor::scalar(1.0).softmax().is_err());
    }
}
