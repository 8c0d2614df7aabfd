//! Sums, means, norms, and the logarithm of a sum of exponentials.

use crate::error::Result;
use crate::kernels::parallel;
use crate::kernels::vecmath;
use crate::ops::axis::{by_block, split_at};
use crate::ops::broadcast::{broadcast_to, map, sum_to};
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

    /// The Euclidean norm of all elements, a scalar: `√(Σ x²)`. The gradient at 0 is 0.
    ///
    /// # Errors
    /// None in practice.
    pub fn norm(&self) -> Result<Tensor> {
        let y = Tensor::scalar(vecmath::sum_squares(self.data()).sqrt() as f32);
        norm_recorded("norm", self, y)
    }

    /// The Euclidean norm along `axis`, which stays with length 1. The gradient at 0 is 0.
    ///
    /// # Errors
    /// Same as [`Tensor::sum_axis`].
    ///
    /// # Examples
    /// ```
    /// let x = loquat::Tensor::from_vec(vec![3.0, 4.0, 0.0, 2.0], &[2, 2])?;
    /// assert_eq!(x.norm_axis(-1)?.to_vec(), [5.0, 2.0]);
    /// # Ok::<(), loquat::Error>(())
    /// ```
    pub fn norm_axis(&self, axis: isize) -> Result<Tensor> {
        let axis = self.axis(axis)?;
        let mut shape = self.shape().to_vec();
        shape[axis] = 1;
        let y = Tensor::write(&shape, |y| norms(split_at(self.shape(), axis), self.data(), y));
        norm_recorded("norm_axis", self, y)
    }

    /// `ln Σ eˣ` along `axis`, which stays with length 1, without overflow: -∞ where all elements
    /// are -∞. The gradient is the softmax, and 0 where all elements are -∞.
    ///
    /// # Errors
    /// Same as [`Tensor::sum_axis`].
    ///
    /// # Examples
    /// ```
    /// let x = loquat::Tensor::from_vec(vec![1000.0, 1000.0], &[1, 2])?;
    /// assert_eq!(x.log_sum_exp(-1)?.to_vec(), [1000.0 + 2f32.ln()]);
    /// # Ok::<(), loquat::Error>(())
    /// ```
    #[doc(alias = "logsumexp")]
    pub fn log_sum_exp(&self, axis: isize) -> Result<Tensor> {
        let x = self.detach();
        // Subtracted before the exponential; an infinite maximum is not, ∞ - ∞ would be NaN.
        let finite = |mut shift: Tensor| {
            shift.make_mut().iter_mut().filter(|x| x.is_infinite()).for_each(|x| *x = 0.0);
            shift
        };
        let empty = self.dim(axis)? == 0;
        let largest = finite(if empty { x.sum_axis(axis)? } else { x.max_axis(axis)?.0 });
        let y = exp_of_difference(&x, &largest)?.summed(axis, 1.0)?.ln().add(&largest)?;
        let saved = y.clone();
        Ok(tape::record("log_sum_exp", &[self], y, || {
            Box::new(move |dy, _| {
                let probs = exp_of_difference(&x, &finite(saved))?;
                Ok(vec![Some(map(x.shape(), &[&probs, &dy], &|x, dx| vecmath::mul(x[0], x[1], dx))?)])
            })
        }))
    }

    /// The sums along an axis, each times a factor, detached from the tape.
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

/// Norms of `x`, `[outer, width, inner]`, along the middle axis; added in `f64` in a fixed order.
fn norms((_, width, inner): (usize, usize, usize), x: &[f32], y: &mut [f32]) {
    if x.is_empty() {
        return y.fill(0.0);
    }
    let chunk = parallel::chunk_len(y.len(), 16, 8.0 * width as f32);
    parallel::chunks_mut(y, chunk, |task, y| {
        for (block, column, y) in by_block(task * chunk, inner, y) {
            let x = &x[block * width * inner..][..width * inner];
            if inner == 1 {
                y[0] = vecmath::sum_squares(x).sqrt() as f32;
                continue;
            }
            let mut sums = vec![0.0f64; y.len()];
            for x in x.chunks_exact(inner) {
                let x = &x[column..column + sums.len()];
                sums.iter_mut().zip(x).for_each(|(sum, &x)| *sum += f64::from(x) * f64::from(x));
            }
            y.iter_mut().zip(&sums).for_each(|(y, sum)| *y = sum.sqrt() as f32);
        }
    });
}

/// Puts norms `y` of `x` on the tape: dx = dy · x / y, and 0 where y is 0.
fn norm_recorded(op: &'static str, x: &Tensor, y: Tensor) -> Result<Tensor> {
    let saved = y.clone();
    Ok(tape::record(op, &[x], y, || {
        let x = x.detach();
        Box::new(move |dy, _| {
            let factor = map(dy.shape(), &[&dy, &saved], &|x, factor| {
                for ((factor, &dy), &y) in factor.iter_mut().zip(x[0]).zip(x[1]) {
                    *factor = if y == 0.0 { 0.0 } else { dy / y };
                }
            })?;
            Ok(vec![Some(map(x.shape(), &[&x, &factor], &|x, dx| vecmath::mul(x[0], x[1], dx))?)])
        })
    }))
}

/// e to the power of `x - shift`, which broadcasts, detached from the tape.
fn exp_of_difference(x: &Tensor, shift: &Tensor) -> Result<Tensor> {
    let difference = map(x.shape(), &[x, shift], &|x, y| vecmath::sub(x[0], x[1], y))?;
    Tensor::try_write(x.shape(), |y| vecmath::exp(difference.data(), y))
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
    fn norms_and_log_sum_exp_have_their_gradients() {
        for shape in [&[7][..], &[2, 3, 5], &[2, 0, 3], &[3, 1]] {
            let x = [sample(shape, 1)];
            check("norm", &x, |x| x[0].norm());
            for axis in 0..shape.len() as isize {
                check("norm_axis", &x, |x| x[0].norm_axis(axis));
                check("log_sum_exp", &x, |x| x[0].log_sum_exp(axis));
            }
        }
        assert!(sample(&[2], 1).norm_axis(1).is_err() && sample(&[2], 1).log_sum_exp(1).is_err());
        let zero = Tensor::zeros(&[2, 3]).watch();
        let gradients = zero.norm_axis(1).unwrap().sum().unwrap().backward().unwrap();
        assert_eq!(gradients.of(&zero).unwrap().to_vec(), [0.0; 6]);
    }

    #[test]
    fn norms_and_log_sum_exp_match_the_naive_loops() {
        let x = sample(&[2, 3, 5], 1);
        for axis in 0..3 {
            let (_, width, inner) = crate::ops::axis::split_at(x.shape(), axis);
            let (norm, lse) = (x.norm_axis(axis as isize).unwrap(), x.log_sum_exp(axis as isize).unwrap());
            for i in 0..norm.len() {
                let at = |j: usize| f64::from(x.data()[(i / inner * width + j) * inner + i % inner]);
                let squares: f64 = (0..width).map(|j| at(j) * at(j)).sum();
                let exponentials: f64 = (0..width).map(|j| at(j).exp()).sum();
                assert!((f64::from(norm.data()[i]) - squares.sqrt()).abs() < 1e-6);
                assert!((f64::from(lse.data()[i]) - exponentials.ln()).abs() < 1e-6);
            }
        }
        let inf = f32::INFINITY;
        let x = Tensor::from_vec(vec![-inf, -inf, 1.0, inf, 0.0, -inf], &[3, 2]).unwrap().watch();
        let y = x.log_sum_exp(1).unwrap();
        assert_eq!(y.to_vec(), [-inf, inf, 0.0]);
        let dx = y.narrow(0, 0, 1).unwrap().backward().unwrap();
        assert_eq!(dx.of(&x).unwrap().data()[..2], [0.0, 0.0]);
        assert_eq!(Tensor::zeros(&[2, 0]).log_sum_exp(1).unwrap().to_vec(), [-inf; 2]);
        assert_eq!(Tensor::from_vec(vec![3e30, 4e30], &[2]).unwrap().norm().unwrap().item().unwrap(), 5e30);
    }

    #[test]
    fn threads_do_not_change_a_bit() {
        let x = sample(&[30, 50, 40], 1).watch();
        let run = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| {
                let of_axis = |axis| {
                    let y = x.norm_axis(axis).unwrap().add(&x.log_sum_exp(axis).unwrap()).unwrap();
                    let y = y.mul(&x.sum_axis(axis).unwrap()).unwrap();
                    let dx = y.backward_from(y.detach()).unwrap();
                    (y.to_vec(), dx.of(&x).unwrap().to_vec())
                };
                (0..3).map(of_axis).collect::<Vec<_>>()
            })
        };
        let alone = run(1);
        assert!((2..=4).all(|threads| run(threads) == alone));
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
