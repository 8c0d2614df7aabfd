//! Products of matrices and of batches of matrices.

use crate::error::{Error, Result};
use crate::kernels::gemm::{Beta, Epilogue, Mat, gemm_batch, gemm_in};
use crate::ops::broadcast::common_shape;
use crate::ops::precision::{Precision, precision};
use crate::tensor::{Tensor, tape};

/// Which operand of a product is taken transposed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Transposed {
    Neither,
    A,
    B,
}

/// Computes a batch of products `A·B`, `Aᵀ·B` or `A·Bᵀ`, detached from the tape; the caller has
/// checked the shapes. `b` may be one matrix for the whole batch.
///
/// # Errors
/// [`Error::Shape`] if the result does not fit into memory.
fn product(precision: Precision, a: &Tensor, b: &Tensor, transposed: Transposed) -> Result<Tensor> {
    let matrix = |x: &Tensor| (x.shape()[x.rank() - 2], x.shape()[x.rank() - 1]);
    let ((a_rows, a_cols), (b_rows, b_cols)) = (matrix(a), matrix(b));
    let batch: usize = a.shape()[..a.rank() - 2].iter().product();
    let left = match transposed {
        Transposed::A => Mat::transposed(a.data(), a_cols, a_rows),
        _ => Mat::new(a.data(), a_rows, a_cols),
    };
    let right = match transposed {
        Transposed::B => Mat::transposed(b.data(), b_cols, b_rows),
        _ => Mat::new(b.data(), b_rows, b_cols),
    };
    let mut shape = a.shape()[..a.rank() - 2].to_vec();
    shape.extend([left.rows(), right.cols()]);
    let b_stride = if b.rank() == 2 { 0 } else { b_rows * b_cols };
    Tensor::try_write(&shape, |c| match batch {
        1 => gemm_in(precision, left, right, c, Beta::Zero, Epilogue::default()),
        _ => gemm_batch(batch, left, a_rows * a_cols, right, b_stride, c, Beta::Zero),
    })
}

/// Computes `probs · values`, where a probability of 0 contributes nothing even if the value is
/// infinite or NaN, so that masked values have no effect.
///
/// # Errors
/// Same as [`Tensor::matmul`].
pub(crate) fn weigh(probs: &Tensor, values: &Tensor) -> Result<Tensor> {
    let mut y = probs.detach().matmul(&values.detach())?;
    let precision = precision();
    if y.data().iter().any(|y| !y.is_finite()) {
        let (keys, width) = (probs.last_dim(), values.last_dim());
        let rows = probs.shape()[probs.rank() - 2].max(1);
        for (i, y) in y.make_mut().chunks_exact_mut(width).enumerate().filter(|(_, y)| y.iter().any(|y| !y.is_finite()))
        {
            let values = values.data()[i / rows * keys * width..].chunks_exact(width);
            y.fill(0.0);
            for (&p, value) in probs.data()[i * keys..][..keys].iter().zip(values).filter(|(p, _)| **p != 0.0) {
                y.iter_mut().zip(value).for_each(|(y, v)| *y = p.mul_add(*v, *y));
            }
        }
    }
    Ok(tape::record("weigh", &[probs, values], y, || {
        let (probs, values) = (probs.detach(), values.detach());
        Box::new(move |dy, needs| {
            let dprobs = needs[0].then(|| {
                let mut dprobs = product(precision, &dy, &values, Transposed::B)?;
                if dprobs.data().iter().any(|d| !d.is_finite()) {
                    let seen = dprobs.make_mut().iter_mut().zip(probs.data());
                    seen.filter(|(_, p)| **p == 0.0).for_each(|(d, _)| *d = 0.0);
                }
                Ok::<_, Error>(dprobs)
            });
            let dvalues = needs[1].then(|| product(precision, &probs, &dy, Transposed::A));
            Ok(vec![dprobs.transpose()?, dvalues.transpose()?])
        })
    }))
}

/// The matrices of `x`, repeated to the leading axes `batch`.
fn batch_of(x: &Tensor, batch: &[usize]) -> Result<Tensor> {
    x.expand(&[batch, &x.shape()[x.rank() - 2..]].concat())
}

impl Tensor {
    /// Computes the matrix product over the last two axes: `[…, m, k] · […, k, n] → […, m, n]`.
    ///
    /// The leading axes broadcast; `other` may be one matrix for all. A vector needs an axis of
    /// length 1 ([`Tensor::unsqueeze`]).
    ///
    /// # Errors
    /// [`Error::Mismatch`] if the shapes are incompatible; [`Error::Shape`] if the result does not
    /// fit into memory.
    pub fn matmul(&self, other: &Tensor) -> Result<Tensor> {
        let (a, b) = (self.shape(), other.shape());
        let refused = || Error::mismatch(format!("multiply {a:?} by {b:?}"));
        if a.len() < 2 || b.len() < 2 || a[a.len() - 1] != b[b.len() - 2] {
            return Err(refused());
        }
        if other.rank() == 2 && self.rank() > 2 {
            // One tall product.
            let rows = a[..a.len() - 1].iter().product();
            let mut shape = a[..a.len() - 1].to_vec();
            shape.push(b[1]);
            return self.reshape(&[rows, a[a.len() - 1]])?.matmul(other)?.reshape(&shape);
        }
        if a[..a.len() - 2] != b[..b.len() - 2] {
            let batch = common_shape(&[&a[..a.len() - 2], &b[..b.len() - 2]]).map_err(|_| refused())?;
            return batch_of(self, &batch)?.matmul(&batch_of(other, &batch)?);
        }
        let precision = precision();
        let y = product(precision, self, other, Transposed::Neither)?;
        Ok(tape::record("matmul", &[self, other], y, || {
            let (a, b) = (self.detach(), other.detach());
            Box::new(move |dy, needs| {
                // dA = dC·Bᵀ, dB = Aᵀ·dC
                let da = needs[0].then(|| product(precision, &dy, &b, Transposed::B)).transpose()?;
                Ok(vec![da, needs[1].then(|| product(precision, &a, &dy, Transposed::A)).transpose()?])
            })
        }))
    }

    /// Same as [`Tensor::matmul`] with the last two axes of `other` exchanged:
    /// `[…, m, k] · […, n, k]ᵀ → […, m, n]`.
    ///
    /// # Errors
    /// Same as [`Tensor::matmul`].
    pub fn matmul_transposed(&self, other: &Tensor) -> Result<Tensor> {
        let (a, b) = (self.shape(), other.shape());
        let refused = || Error::mismatch(format!("multiply {a:?} by the transpose of {b:?}"));
        if a.len() < 2 || b.len() < 2 || a.last() != b.last() {
            return Err(refused());
        }
        if a[..a.len() - 2] != b[..b.len() - 2] {
            let batch = common_shape(&[&a[..a.len() - 2], &b[..b.len() - 2]]).map_err(|_| refused())?;
            return batch_of(self, &batch)?.matmul_transposed(&batch_of(other, &batch)?);
        }
        let precision = precision();
        let y = product(precision, self, other, Transposed::B)?;
        Ok(tape::record("matmul_transposed", &[self, other], y, || {
            let (a, b) = (self.detach(), other.detach());
            Box::new(move |dy, needs| {
                // C = A·Bᵀ: dA = dC·B, dB = dCᵀ·A
                let da = needs[0].then(|| product(precision, &dy, &b, Transposed::Neither)).transpose()?;
                Ok(vec![da, needs[1].then(|| product(precision, &dy, &a, Transposed::A)).transpose()?])
            })
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::gradient_check::{check, sample};

    #[test]
    fn gradients_match_central_differences() {
        check("matmul", &[sample(&[3, 5], 1), sample(&[5, 2], 2)], |x| x[0].matmul(&x[1]));
        check("batched", &[sample(&[2, 3, 4], 1), sample(&[2, 4, 5], 2)], |x| x[0].matmul(&x[1]));
        for (a, b) in [(&[1][..], &[2][..]), (&[2], &[1]), (&[], &[2]), (&[2, 1], &[3]), (&[2, 1], &[1, 3])] {
            let inputs = [sample(&[a, &[3, 4]].concat(), 1), sample(&[b, &[4, 5]].concat(), 2)];
            check("broadcast", &inputs, |x| x[0].matmul(&x[1]));
            let inputs = [sample(&[a, &[3, 4]].concat(), 1), sample(&[b, &[5, 4]].concat(), 2)];
            check("broadcast transposed", &inputs, |x| x[0].matmul_transposed(&x[1]));
        }
        check("one for all", &[sample(&[2, 3, 4], 1), sample(&[4, 5], 2)], |x| x[0].matmul(&x[1]));
        let pair = [sample(&[2, 3, 4], 1), sample(&[2, 5, 4], 2)];
        check("transposed", &pair, |x| x[0].matmul_transposed(&x[1]));
        check("twice", &[sample(&[3, 3], 1)], |x| x[0].matmul(&x[0]));
        check("weigh", &[sample(&[2, 3, 4], 1), sample(&[2, 4, 5], 2)], |x| weigh(&x[0], &x[1]));
    }

    #[test]
    fn leading_axes_broadcast() {
        let (a, b) = (sample(&[2, 1, 3, 4], 1), sample(&[5, 4, 6], 2));
        let y = a.matmul(&b).unwrap();
        assert_eq!(y.shape(), [2, 5, 3, 6]);
        for i in 0..10 {
            let one = |x: &Tensor, at: usize, shape: &[usize]| {
                let len = shape[0] * shape[1];
                Tensor::from_vec(x.data()[at * len..][..len].to_vec(), shape).unwrap()
            };
            let expected = one(&a, i / 5, &[3, 4]).matmul(&one(&b, i % 5, &[4, 6])).unwrap();
            assert_eq!(one(&y, i, &[3, 6]).to_vec(), expected.to_vec());
        }
    }

    #[test]
    fn empty_products_are_zeros() {
        let (a, b) = (Tensor::zeros(&[2, 3, 0]), Tensor::zeros(&[0, 4]));
        let y = a.matmul(&b).unwrap();
        assert_eq!((y.shape(), y.to_vec()), (&[2, 3, 4][..], vec![0.0; 24]));
        assert_eq!(Tensor::zeros(&[0, 3, 2]).matmul(&Tensor::zeros(&[1, 2, 4])).unwrap().shape(), [0, 3, 4]);
    }

    #[test]
    fn shapes_that_do_not_fit_are_errors() {
        let x = Tensor::zeros(&[2, 3]);
        assert!(x.matmul(&Tensor::zeros(&[2, 3])).is_err());
        assert!(x.matmul(&Tensor::zeros(&[3])).is_err());
        let error = Tensor::zeros(&[3, 2, 5]).matmul(&Tensor::zeros(&[4, 5, 3])).unwrap_err().to_string();
        assert_eq!(error, "cannot multiply [3, 2, 5] by [4, 5, 3]");
        let error = x.matmul_transposed(&Tensor::zeros(&[3, 2])).unwrap_err().to_string();
        assert_eq!(error, "cannot multiply [2, 3] by the transpose of [3, 2]");
        let long = Tensor::zeros(&[1 << 22, 1]);
        assert!(long.matmul_transposed(&long).unwrap_err().to_string().contains("fits into memory"));
    }
}
