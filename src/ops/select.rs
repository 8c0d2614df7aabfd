//! One of two tensors by a mask: elements of the mask that are not 0 are true, as
//! [`Tensor::gt`] and the other comparisons make them.

use crate::error::Result;
use crate::ops::broadcast::{common_shape, map, sum_to};
use crate::tensor::{Tensor, tape};

/// Returns `on_true` where `mask` is not 0, and `on_false` elsewhere; all three broadcast.
///
/// The gradient of an element goes to the tensor that it came from; the mask gets none.
///
/// # Errors
/// Same as [`Tensor::add`].
///
/// # Examples
/// ```
/// use loquat::{Tensor, ops::where_};
///
/// let x = Tensor::from_vec(vec![-1.0, 4.0], &[2])?;
/// let root = where_(&x.gt(&Tensor::scalar(0.0))?, &x.sqrt(), &Tensor::scalar(0.0))?;
/// assert_eq!(root.to_vec(), [0.0, 2.0]);
/// # Ok::<(), loquat::Error>(())
/// ```
pub fn where_(mask: &Tensor, on_true: &Tensor, on_false: &Tensor) -> Result<Tensor> {
    let shape = common_shape(&[mask.shape(), on_true.shape(), on_false.shape()])?;
    let y = map(&shape, &[mask, on_true, on_false], &|x, y| {
        for (((y, &mask), &a), &b) in y.iter_mut().zip(x[0]).zip(x[1]).zip(x[2]) {
            *y = if mask != 0.0 { a } else { b };
        }
    })?;
    Ok(tape::record("where_", &[on_true, on_false], y, || {
        let (a_shape, b_shape) = (on_true.shape().to_vec(), on_false.shape().to_vec());
        let mask = mask.detach();
        Box::new(move |dy, needs| {
            let da = needs[0].then(|| kept(&dy, &mask, true)).transpose()?.map(|da| sum_to(da, &a_shape));
            let db = needs[1].then(|| kept(&dy, &mask, false)).transpose()?.map(|db| sum_to(db, &b_shape));
            Ok(vec![da, db])
        })
    }))
}

/// `x` where the mask is `truth`, 0 elsewhere, detached from the tape.
fn kept(x: &Tensor, mask: &Tensor, truth: bool) -> Result<Tensor> {
    map(x.shape(), &[x, mask], &|x, y| {
        for ((y, &x), &mask) in y.iter_mut().zip(x[0]).zip(x[1]) {
            *y = if (mask != 0.0) == truth { x } else { 0.0 };
        }
    })
}

impl Tensor {
    /// Returns `value` where `mask` is not 0, and the tensor's own element elsewhere. The mask
    /// broadcasts to the tensor. The gradient is 0 where `value` stands.
    ///
    /// # Errors
    /// Same as [`Tensor::add`].
    ///
    /// # Examples
    /// ```
    /// let scores = loquat::Tensor::from_vec(vec![0.5, 2.0, 0.5], &[3])?;
    /// let padding = loquat::Tensor::from_vec(vec![0.0, 0.0, 1.0], &[3])?;
    /// let probs = scores.masked_fill(&padding, f32::NEG_INFINITY)?.softmax()?;
    /// assert_eq!(probs.to_vec()[2], 0.0);
    /// # Ok::<(), loquat::Error>(())
    /// ```
    pub fn masked_fill(&self, mask: &Tensor, value: f32) -> Result<Tensor> {
        where_(mask, &Tensor::scalar(value), self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::gradient_check::{check, sample};

    #[test]
    fn gradients_match_central_differences() {
        let mask = sample(&[3, 4], 9).gt(&Tensor::scalar(0.0)).unwrap();
        for (a, b) in [(&[3, 4][..], &[3, 4][..]), (&[4], &[3, 1]), (&[2, 1, 4], &[]), (&[3, 4], &[1])] {
            let inputs = [sample(a, 1), sample(b, 2)];
            check("where_", &inputs, |x| where_(&mask, &x[0], &x[1]));
            check("masked_fill", &inputs[..1], |x| x[0].masked_fill(&mask, 3.0));
        }
    }

    #[test]
    fn what_is_not_chosen_is_not_seen() {
        let mask = Tensor::from_vec(vec![1.0, 0.0, f32::NAN, -2.0], &[4]).unwrap();
        let y = where_(&mask, &Tensor::scalar(1.0), &Tensor::scalar(f32::NAN)).unwrap();
        assert!(y.data()[1].is_nan());
        assert_eq!([y.data()[0], y.data()[2], y.data()[3]], [1.0; 3]);
        let x = Tensor::scalar(f32::INFINITY).watch();
        let y = where_(&Tensor::zeros(&[2]), &x, &Tensor::scalar(1.0)).unwrap().sum().unwrap();
        assert_eq!(y.backward().unwrap().of(&x).unwrap().item().unwrap(), 0.0);
    }

    #[test]
    fn shapes_that_do_not_broadcast_are_errors() {
        let error = Tensor::zeros(&[2, 3]).masked_fill(&Tensor::zeros(&[2]), 1.0).unwrap_err().to_string();
        assert_eq!(error, "cannot broadcast [2] with [2, 3]");
        assert_eq!(Tensor::zeros(&[0, 3]).masked_fill(&Tensor::zeros(&[3]), 1.0).unwrap().shape(), [0, 3]);
    }
}
