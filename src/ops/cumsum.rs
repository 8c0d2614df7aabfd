//! Running sums.

use crate::error::Result;
use crate::kernels::parallel;
use crate::ops::axis::split_at;
use crate::tensor::{Tensor, tape};

/// Running sums of `x`, `[outer, width, inner]`, along the middle axis, from its last element if
/// `backwards`. Each sum is kept in `f64`, in the order of the axis.
fn running((outer, width, inner): (usize, usize, usize), x: &[f32], y: &mut [f32], backwards: bool) {
    if y.is_empty() {
        return;
    }
    let len = width * inner;
    let per_task = parallel::chunk_len(outer, 1, len as f32);
    parallel::chunks_mut(y, per_task * len, |task, y| {
        let mut sums = vec![0.0f64; inner];
        for (x, y) in x[task * per_task * len..].chunks_exact(len).zip(y.chunks_exact_mut(len)) {
            sums.fill(0.0);
            for j in 0..width {
                let at = if backwards { width - 1 - j } else { j } * inner;
                for ((y, &x), sum) in y[at..at + inner].iter_mut().zip(&x[at..at + inner]).zip(&mut sums) {
                    *sum += f64::from(x);
                    *y = *sum as f32;
                }
            }
        }
    });
}

impl Tensor {
    /// Returns running sums along `axis`: `y[i] = x[0] + … + x[i]`. Negative axes count from the
    /// last.
    ///
    /// # Errors
    /// [`Error::Argument`](crate::Error::Argument) if there is no such axis.
    ///
    /// # Examples
    /// ```
    /// let x = loquat::Tensor::from_vec(vec![1.0, 2.0, 3.0], &[3])?;
    /// assert_eq!(x.cumsum(0)?.to_vec(), [1.0, 3.0, 6.0]);
    /// # Ok::<(), loquat::Error>(())
    /// ```
    pub fn cumsum(&self, axis: isize) -> Result<Tensor> {
        let extent = split_at(self.shape(), self.axis(axis)?);
        let y = Tensor::write(self.shape(), |y| running(extent, self.data(), y, false));
        Ok(tape::record("cumsum", &[self], y, || {
            // Each element is in all sums from its own on.
            Box::new(move |dy, _| Ok(vec![Some(Tensor::write(dy.shape(), |dx| running(extent, dy.data(), dx, true)))]))
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::gradient_check::{check, sample};

    #[test]
    fn sums_match_the_naive_loop() {
        for shape in [&[1][..], &[7], &[2, 5, 3], &[2, 0], &[0, 2]] {
            let x = sample(shape, 1);
            for axis in 0..shape.len() {
                let (_, width, inner) = split_at(shape, axis);
                let y = x.cumsum(axis as isize).unwrap();
                for (i, &y) in y.data().iter().enumerate() {
                    let j = i / inner % width;
                    let expected: f64 = (0..=j).map(|back| f64::from(x.data()[i - back * inner])).sum();
                    assert!((f64::from(y) - expected).abs() < 1e-6);
                }
                check("cumsum", std::slice::from_ref(&x), |x| x[0].cumsum(axis as isize));
            }
        }
        assert!(Tensor::scalar(1.0).cumsum(0).is_err());
    }

    #[test]
    fn threads_do_not_change_a_bit() {
        let x = sample(&[100, 50, 30], 1);
        let run = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| (x.cumsum(0).unwrap().to_vec(), x.cumsum(1).unwrap().to_vec()))
        };
        let alone = run(1);
        assert!((2..=4).all(|threads| run(threads) == alone));
    }
}
