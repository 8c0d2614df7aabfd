//! Custom operations: a value and its backward formula.

use crate::error::{Error, Result};
use crate::tensor::{Tensor, tape};

/// Returns `value` as the result of a differentiable operation on `inputs`, of which the crate
/// knows nothing but the backward formula.
///
/// `value` is what the operation computes from the inputs, by whatever means. `backward` gets the
/// gradient of the value, which has its shape, and returns one gradient per input, each with the
/// shape of its input: `None` for an input that needs none. It is called at most once, and only if
/// an input needs a gradient ([`Tensor::requires_grad`]). What it computes is not recorded.
///
/// `value` and the tensors that `backward` keeps may be computed with other operations: their own
/// record is dropped, so compute them in [`no_grad`](crate::no_grad) to save the memory. Check the
/// formula with [`gradient_check`](crate::ops::gradient_check()).
///
/// # Errors
/// None here. [`Tensor::backward`] returns what `backward` returns, and [`Error::Argument`] if the
/// number of gradients is not that of the inputs, [`Error::Shape`] if one has another shape than
/// its input, [`Error::NoGradient`] if one is `None` though its input needs a gradient. Each names
/// the operation.
///
/// # Examples
/// ```
/// use loquat::{Result, Tensor, ops};
///
/// /// sin x, which the crate does not have.
/// fn sin(x: &Tensor) -> Result<Tensor> {
///     let map = |x: &Tensor, f: fn(f32) -> f32| {
///         Tensor::from_vec(x.data().iter().map(|&x| f(x)).collect(), x.shape())
///     };
///     let saved = x.detach();
///     Ok(ops::custom_op("sin", &[x], map(x, f32::sin)?, move |dy| {
///         Ok(vec![Some(dy.mul(&map(&saved, f32::cos)?)?)])
///     }))
/// }
///
/// let x = Tensor::from_vec(vec![0.0, 0.5, 2.0], &[3])?;
/// ops::gradient_check(&[x], |x| sin(&x[0]))?;
/// # Ok::<(), loquat::Error>(())
/// ```
#[doc(alias = "autograd_function")]
pub fn custom_op(
    name: &'static str,
    inputs: &[&Tensor],
    value: Tensor,
    backward: impl FnOnce(&Tensor) -> Result<Vec<Option<Tensor>>> + Send + 'static,
) -> Tensor {
    let shapes: Vec<Vec<usize>> = inputs.iter().map(|x| x.shape().to_vec()).collect();
    tape::record(name, inputs, value.detach(), || {
        Box::new(move |dy, _| {
            let gradients = backward(&dy)?;
            if gradients.len() != shapes.len() {
                let what = format!("gradients of custom operation `{name}`");
                return Err(Error::argument(what, format!("{}, one per input", shapes.len()), gradients.len()));
            }
            for (i, (gradient, shape)) in gradients.iter().zip(&shapes).enumerate() {
                if let Some(gradient) = gradient.as_ref().filter(|gradient| gradient.shape() != shape) {
                    let what = format!("gradient of input {i} of custom operation `{name}`");
                    return Err(Error::shape(what, format!("{shape:?}"), gradient.shape()));
                }
            }
            Ok(gradients.into_iter().map(|gradient| gradient.map(|gradient| gradient.detach())).collect())
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::gradient_check::{check, sample};

    /// a · b by hand, with `None` for b's gradient if it needs none.
    fn product(a: &Tensor, b: &Tensor) -> Result<Tensor> {
        let (x, y, needed) = (a.detach(), b.detach(), b.requires_grad());
        Ok(custom_op("product", &[a, b], x.mul(&y)?, move |dy| {
            Ok(vec![Some(dy.mul(&y)?), needed.then(|| dy.mul(&x)).transpose()?])
        }))
    }

    #[test]
    fn gradients_flow_through_a_custom_operation() {
        let inputs = [sample(&[2, 3], 1), sample(&[2, 3], 2)];
        check("custom", &inputs, |x| product(&x[0].scale(2.0), &x[1]));
        check("custom twice", &inputs[..1], |x| product(&x[0], &x[0]));
        check("custom with a constant", &inputs[..1], |x| product(&x[0], &inputs[1]));
        assert!(!product(&inputs[0], &inputs[1]).unwrap().requires_grad());
    }

    #[test]
    fn wrong_gradients_are_errors_that_name_the_operation() {
        let x = sample(&[2, 3], 1).watch();
        let message = |gradients: Vec<Option<Tensor>>| {
            let y = custom_op("mine", &[&x], x.clone(), move |_| Ok(gradients));
            y.backward_from(Tensor::zeros(&[2, 3])).unwrap_err().to_string()
        };
        assert_eq!(message(vec![]), "gradients of custom operation `mine`: expected 1, one per input, found 0");
        let wrong = message(vec![Some(Tensor::zeros(&[3, 2]))]);
        assert_eq!(wrong, "gradient of input 0 of custom operation `mine`: expected shape [2, 3], found [3, 2]");
        assert_eq!(message(vec![None]), "operation `mine` has no gradient, but its input needs one");
    }
}
