//! Sums and means.

use crate::error::Result;
use crate::kernels::vecmath;
use crate::ops::arithmetic::{broadcast_to, sum_to};
use crate::tensor::{Tensor, tape};

impl Tensor {
    /// Computes the sum of all elements, a scalar.
    ///
    /// # Errors
    /// None in practice.
    pub fn sum(&self) -> Result<Tensor> {
        let y = Tensor::scalar(vecmath::sum(self.data()) as f32);
        let shape = self.shape().to_vec();
        Ok(tape::record("sum", &[self], y, || Box::new(move |dy, _| Ok(vec![Some(Tensor::full(&shape, dy.item()?))]))))
    }

    /// Computes the mean of all elements, a scalar, even if their sum overflows f32.
    ///
    /// # Errors
    /// None in practice; the mean of an empty tensor is NaN.
    pub fn mean(&self) -> Result<Tensor> {
        let count = self.len() as f64;
        let y = Tensor::scalar((vecmath::sum(self.data()) / count) as f32);
        let shape = self.shape().to_vec();
        let backward = || -> tape::Backward {
            Box::new(move |dy, _| Ok(vec![Some(Tensor::full(&shape, (f64::from(dy.item()?) / count) as f32))]))
        };
        Ok(tape::record("mean", &[self], y, backward))
    }

    /// Computes the sum along `axis`, which is kept with length 1.
    ///
    /// # Errors
    /// [`Error::Argument`](crate::Error::Argument) if `axis` does not exist.
    pub fn sum_axis(&self, axis: isize) -> Result<Tensor> {
        let y = self.summed(axis, 1.0)?;
        let from = self.shape().to_vec();
        Ok(tape::record("sum_axis", &[self], y, || Box::new(move |dy, _| Ok(vec![Some(broadcast_to(&dy, &from))]))))
    }

    /// Computes the mean along `axis`, which is kept with length 1.
    ///
    /// # Errors
    /// Same as [`Tensor::sum_axis`].
    pub fn mean_axis(&self, axis: isize) -> Result<Tensor> {
        let factor = 1.0 / self.dim(axis)? as f32;
        let y = self.summed(axis, factor)?;
        let from = self.shape().to_vec();
        Ok(tape::record("mean_axis", &[self], y, || {
            Box::new(move |mut dy, _| {
                vecmath::scale(factor, dy.make_mut());
                Ok(vec![Some(broadcast_to(&dy, &from))])
            })
        }))
    }

    /// Computes the sums along an axis, each times a factor, detached from the tape.
    fn summed(&self, axis: isize, factor: f32) -> Result<Tensor> {
        let axis = self.axis(axis)?;
        let mut shape = self.shape().to_vec();
        shape[axis] = 1;
        let mut y = sum_to(self.detach(), &shape);
        if factor != 1.0 {
            vecmath::scale(factor, y.make_mut());
        }
        if y.data().iter().any(|y| !y.is_finite()) {
            // Perhaps because a partial sum overflowed.
            let (width, inner) = (self.shape()[axis], self.shape()[axis + 1..].iter().product::<usize>());
            let x = self.data();
            for (i, y) in y.make_mut().iter_mut().enumerate().filter(|(_, y)| !y.is_finite()) {
                let first = i / inner * width * inner + i % inner;
                let sum: f64 = (0..width).map(|j| f64::from(x[first + j * inner])).sum();
                *y = (sum * f64::from(factor)) as f32;
            }
        }
        Ok(y)
    }

    /// Returns the index of the largest element of each row along the last axis; the first of equal
    /// ones.
    pub fn argmax_rows(&self) -> Vec<u32> {
        let width = self.last_dim().max(1);
        let place = |row: &[f32]| (1..row.len()).fold(0, |best, i| if row[i] > row[best] { i } else { best });
        self.data().chunks_exact(width).map(|row| place(row) as u32).collect()
    }
}

#[cfg(test)]
mod tests {
    use crate::ops::gradient_check::{check, sample};
    use crate::tensor::Tensor;

    #[test]
    fn gradients_match_central_differences() {
        let x = [sample(&[2, 3, 5], 1)];
        check("sum", &x, |x| x[0].sum());
        check("mean", &x, |x| x[0].mean());
        for axis in -3..3 {
            check("sum_axis", &x, |x| x[0].sum_axis(axis));
            check("mean_axis", &x, |x| x[0].mean_axis(axis));
        }
    }

    #[test]
    fn sums_along_an_axis_keep_it() {
        let x = Tensor::from_vec((1..=6).map(|i| i as f32).collect(), &[2, 3]).unwrap();
        let rows = x.sum_axis(1).unwrap();
        assert_eq!((rows.shape(), rows.to_vec()), (&[2, 1][..], vec![6.0, 15.0]));
        assert_eq!(x.sum_axis(0).unwrap().to_vec(), [5.0, 7.0, 9.0]);
        assert_eq!(x.argmax_rows(), [2, 2]);
    }

    #[test]
    fn means_of_numbers_whose_sums_have_no_room() {
        let x = Tensor::from_vec(vec![1e38, -1e38, 3e38], &[3]).unwrap();
        assert_eq!(x.mean().unwrap().item().unwrap(), 1e38);
        assert_eq!(x.sum().unwrap().item().unwrap(), 3e38);
        let full = Tensor::full(&[2, 5, 3], 3e38);
        assert_eq!(full.mean().unwrap().item().unwrap(), 3e38);
        for axis in 0..3 {
            let mean = full.mean_axis(axis).unwrap();
            assert!(mean.data().iter().all(|&x| (x / 3e38 - 1.0).abs() < 1e-6), "{mean:?}");
        }
        // In this order, and along an axis that is not the last.
        let column = Tensor::from_vec(vec![1e38, 3e38, -1e38], &[3, 1]).unwrap();
        assert_eq!(column.sum_axis(0).unwrap().to_vec(), [3e38]);
        assert!(Tensor::full(&[2, 2], f32::NAN).mean_axis(0).unwrap().data()[0].is_nan());
    }
}
