//! Sums and means.

use crate::error::Result;
use crate::kernels::vecmath;
use crate::ops::arithmetic::{broadcast_to, sum_to};
use crate::tensor::{Tensor, tape};

impl Tensor {
    /// The sum of all elements, a scalar.
    ///
    /// # Errors
    /// None in practice.
    pub fn sum(&self) -> Result<Tensor> {
        let y = Tensor::scalar(vecmath::sum(self.data()) as f32);
        let shape = self.shape().to_vec();
        Ok(tape::record("sum", &[self], y, || Box::new(move |dy, _| Ok(vec![Some(Tensor::full(&shape, dy.item()?))]))))
    }

    /// The mean of all elements, a scalar.
    ///
    /// # Errors
    /// None in practice; the mean of nothing is not a number.
    pub fn mean(&self) -> Result<Tensor> {
        Ok(self.sum()?.scale(1.0 / self.len() as f32))
    }

    /// The sum along `axis`, which stays with length 1.
    ///
    /// # Errors
    /// [`Error::Argument`](crate::Error::Argument) if there is no such axis.
    pub fn sum_axis(&self, axis: isize) -> Result<Tensor> {
        let mut shape = self.shape().to_vec();
        shape[self.axis(axis)?] = 1;
        let from = self.shape().to_vec();
        Ok(tape::record("sum_axis", &[self], sum_to(self.detach(), &shape), || {
            Box::new(move |dy, _| Ok(vec![Some(broadcast_to(&dy, &from))]))
        }))
    }

    /// The mean along `axis`, which stays with length 1.
    ///
    /// # Errors
    /// As for [`Tensor::sum_axis`].
    pub fn mean_axis(&self, axis: isize) -> Result<Tensor> {
        Ok(self.sum_axis(axis)?.scale(1.0 / self.dim(axis)? as f32))
    }

    /// The place of the largest element of each row along the last axis; the first of equals.
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
}
