//! Comparisons, as tensors of 1 where they hold and 0 where they do not.
//!
//! Both sides broadcast; compare with a number by [`Tensor::scalar`]. A comparison with NaN does
//! not hold, except `ne`. The derivative is 0 wherever there is one, so results are constants: they
//! are not recorded, whatever their inputs need.

use crate::error::Result;
use crate::ops::broadcast::{common_shape, map};
use crate::tensor::Tensor;

fn compare(a: &Tensor, b: &Tensor, holds: impl Fn(f32, f32) -> bool + Sync) -> Result<Tensor> {
    map(&common_shape(&[a.shape(), b.shape()])?, &[a, b], &|x, y| {
        for ((y, &a), &b) in y.iter_mut().zip(x[0]).zip(x[1]) {
            *y = if holds(a, b) { 1.0 } else { 0.0 };
        }
    })
}

impl Tensor {
    /// Returns 1 where `self = other`, 0 elsewhere, with broadcasting. NaN equals nothing. The
    /// result is a constant: no gradient flows through it.
    ///
    /// # Errors
    /// Same as [`Tensor::add`].
    ///
    /// # Examples
    /// ```
    /// use loquat::Tensor;
    ///
    /// let x = Tensor::from_vec(vec![-1.0, 0.0, 2.0], &[3])?;
    /// assert_eq!(x.eq(&Tensor::scalar(0.0))?.to_vec(), [0.0, 1.0, 0.0]);
    /// assert_eq!(x.gt(&Tensor::scalar(0.0))?.to_vec(), [0.0, 0.0, 1.0]);
    /// # Ok::<(), loquat::Error>(())
    /// ```
    pub fn eq(&self, other: &Tensor) -> Result<Tensor> {
        compare(self, other, |a, b| a == b)
    }

    /// Returns 1 where `self ≠ other`, 0 elsewhere; see [`Tensor::eq`].
    ///
    /// # Errors
    /// Same as [`Tensor::add`].
    pub fn ne(&self, other: &Tensor) -> Result<Tensor> {
        compare(self, other, |a, b| a != b)
    }

    /// Returns 1 where `self < other`, 0 elsewhere; see [`Tensor::eq`].
    ///
    /// # Errors
    /// Same as [`Tensor::add`].
    pub fn lt(&self, other: &Tensor) -> Result<Tensor> {
        compare(self, other, |a, b| a < b)
    }

    /// Returns 1 where `self ≤ other`, 0 elsewhere; see [`Tensor::eq`].
    ///
    /// # Errors
    /// Same as [`Tensor::add`].
    pub fn le(&self, other: &Tensor) -> Result<Tensor> {
        compare(self, other, |a, b| a <= b)
    }

    /// Returns 1 where `self > other`, 0 elsewhere; see [`Tensor::eq`].
    ///
    /// # Errors
    /// Same as [`Tensor::add`].
    pub fn gt(&self, other: &Tensor) -> Result<Tensor> {
        compare(self, other, |a, b| a > b)
    }

    /// Returns 1 where `self ≥ other`, 0 elsewhere; see [`Tensor::eq`].
    ///
    /// # Errors
    /// Same as [`Tensor::add`].
    pub fn ge(&self, other: &Tensor) -> Result<Tensor> {
        compare(self, other, |a, b| a >= b)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_comparison_holds_where_it_does() {
        let a = Tensor::from_vec(vec![1.0, 2.0, f32::NAN], &[3, 1]).unwrap().watch();
        let b = Tensor::from_vec(vec![1.0, 2.0], &[2]).unwrap();
        type Case = (fn(&Tensor, &Tensor) -> Result<Tensor>, [f32; 6]);
        let cases: [Case; 6] = [
            (Tensor::eq, [1.0, 0.0, 0.0, 1.0, 0.0, 0.0]),
            (Tensor::ne, [0.0, 1.0, 1.0, 0.0, 1.0, 1.0]),
            (Tensor::lt, [0.0, 1.0, 0.0, 0.0, 0.0, 0.0]),
            (Tensor::le, [1.0, 1.0, 0.0, 1.0, 0.0, 0.0]),
            (Tensor::gt, [0.0, 0.0, 1.0, 0.0, 0.0, 0.0]),
            (Tensor::ge, [1.0, 0.0, 1.0, 1.0, 0.0, 0.0]),
        ];
        for (f, expected) in cases {
            let y = f(&a, &b).unwrap();
            assert_eq!((y.shape(), y.to_vec()), (&[3, 2][..], expected.to_vec()));
            assert!(!y.requires_grad());
        }
        assert!(a.eq(&Tensor::zeros(&[2, 2])).is_err());
        assert_eq!(Tensor::zeros(&[0, 2]).lt(&b).unwrap().shape(), [0, 2]);
    }
}
