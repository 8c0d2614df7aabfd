//! Element-wise arithmetic with NumPy's broadcasting: shapes are aligned at the last axis, and axes
//! of length 1 are repeated.
//!
//! ```
//! use loquat::Tensor;
//!
//! let x = Tensor::from_vec(vec![1.0, 2.0, 3.0, 4.0], &[2, 2])?;
//! let row = Tensor::from_vec(vec![10.0, 20.0], &[2])?;
//! assert_eq!(x.add(&row)?.to_vec(), [11.0, 22.0, 13.0, 24.0]);
//! # Ok::<(), loquat::Error>(())
//! ```

use crate::error::Result;
use crate::kernels::vecmath;
use crate::ops::broadcast::{common_shape, map, sum_to};
use crate::tensor::{Tensor, tape};

type Kernel = fn(&[f32], &[f32], &mut [f32]);

/// Rows at least this long are combined by the kernels for rows.
const ROW: usize = 16;

/// Multiplies two tensors, the second broadcast to the first, detached from the tape.
fn product(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    combine(a.shape(), a, b, vecmath::mul)
}

/// Applies `kernel` to the operands, broadcast to `shape`, detached from the tape.
fn combine(shape: &[usize], a: &Tensor, b: &Tensor, kernel: Kernel) -> Result<Tensor> {
    if a.shape() == b.shape() {
        return Tensor::try_write(shape, |y| kernel(a.data(), b.data(), y));
    }
    map(shape, &[a, b], &|x, y| kernel(x[0], x[1], y))
}

/// Applies `kernel` to the broadcast operands, detached from the tape.
fn forward(op: &'static str, a: &Tensor, b: &Tensor, kernel: Kernel) -> Result<Tensor> {
    let shape = common_shape(&[a.shape(), b.shape()])?;
    if a.shape() == shape && b.len() >= ROW && shape.ends_with(b.shape()) && a.shape() != b.shape() {
        let by_row: Option<Kernel> = match op {
            "add" => Some(vecmath::add_row),
            "mul" => Some(vecmath::mul_row),
            _ => None,
        };
        if let Some(by_row) = by_row {
            return Tensor::try_write(&shape, |y| by_row(a.data(), b.data(), y));
        }
    }
    combine(&shape, a, b, kernel)
}

impl Tensor {
    /// Computes `self + other` element-wise.
    ///
    /// # Errors
    /// [`Error::Mismatch`](crate::Error::Mismatch) if the shapes do not broadcast,
    /// [`Error::Shape`](crate::Error::Shape) if the result does not fit into memory.
    pub fn add(&self, other: &Tensor) -> Result<Tensor> {
        let y = forward("add", self, other, vecmath::add)?;
        let (a_shape, b_shape) = (self.shape().to_vec(), other.shape().to_vec());
        Ok(tape::record("add", &[self, other], y, || {
            Box::new(move |dy, needs| {
                let da = needs[0].then(|| sum_to(dy.clone(), &a_shape));
                Ok(vec![da, needs[1].then(|| sum_to(dy, &b_shape))])
            })
        }))
    }

    /// Computes `self - other` element-wise.
    ///
    /// # Errors
    /// Same as [`Tensor::add`].
    pub fn sub(&self, other: &Tensor) -> Result<Tensor> {
        let y = forward("sub", self, other, vecmath::sub)?;
        let (a_shape, b_shape) = (self.shape().to_vec(), other.shape().to_vec());
        Ok(tape::record("sub", &[self, other], y, || {
            Box::new(move |dy, needs| {
                let da = needs[0].then(|| sum_to(dy.clone(), &a_shape));
                let db = needs[1].then(|| {
                    let mut db = sum_to(dy, &b_shape);
                    vecmath::scale(-1.0, db.make_mut());
                    db
                });
                Ok(vec![da, db])
            })
        }))
    }

    /// Computes `self · other` element-wise.
    ///
    /// # Errors
    /// Same as [`Tensor::add`].
    pub fn mul(&self, other: &Tensor) -> Result<Tensor> {
        let y = forward("mul", self, other, vecmath::mul)?;
        Ok(tape::record("mul", &[self, other], y, || {
            let (a, b) = (self.detach(), other.detach());
            Box::new(move |dy, needs| {
                // d(ab) = b·da + a·db
                let da = needs[0].then(|| Ok(sum_to(product(&dy, &b)?, a.shape()))).transpose()?;
                Ok(vec![da, needs[1].then(|| Ok(sum_to(product(&dy, &a)?, b.shape()))).transpose()?])
            })
        }))
    }

    /// Computes `self / other` element-wise.
    ///
    /// # Errors
    /// Same as [`Tensor::add`].
    pub fn div(&self, other: &Tensor) -> Result<Tensor> {
        let y = forward("div", self, other, vecmath::div)?;
        let saved = y.clone();
        Ok(tape::record("div", &[self, other], y, || {
            let (a_shape, b) = (self.shape().to_vec(), other.detach());
            Box::new(move |dy, needs| {
                // da = dy / b, db = -da · y
                let da = combine(dy.shape(), &dy, &b, vecmath::div)?;
                let db = match needs[1] {
                    true => {
                        let mut db = sum_to(product(&da, &saved)?, b.shape());
                        vecmath::scale(-1.0, db.make_mut());
                        Some(db)
                    }
                    false => None,
                };
                Ok(vec![needs[0].then(|| sum_to(da, &a_shape)), db])
            })
        }))
    }

    /// Computes `factor · self`.
    pub fn scale(&self, factor: f32) -> Tensor {
        let y = Tensor::write(self.shape(), |y| vecmath::scale_into(factor, self.data(), y));
        tape::record("scale", &[self], y, || {
            Box::new(move |mut dy, _| {
                vecmath::scale(factor, dy.make_mut());
                Ok(vec![Some(dy)])
            })
        })
    }

    /// Computes `self + value`.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) if the result does not fit into memory.
    pub fn add_scalar(&self, value: f32) -> Result<Tensor> {
        let y = map(self.shape(), &[self], &|x, y| y.iter_mut().zip(x[0]).for_each(|(y, x)| *y = x + value))?;
        Ok(tape::record("add_scalar", &[self], y, || Box::new(move |dy, _| Ok(vec![Some(dy)]))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::gradient_check::{check, sample};

    const SHAPES: [(&[usize], &[usize]); 7] = [
        (&[3, 5], &[3, 5]),
        (&[3, 5], &[5]),
        (&[5], &[3, 5]),
        (&[2, 1, 3], &[4, 1]),
        (&[2, 3], &[]),
        (&[3, 1], &[1, 4]),
        (&[17], &[1]),
    ];

    #[test]
    fn gradients_match_central_differences() {
        for (i, (a, b)) in SHAPES.into_iter().enumerate() {
            let a = sample(a, i as u64);
            // Away from zero, for the quotient.
            let b = Tensor::uniform(b, 1.0, 2.0, &mut crate::random::Rng::seed(99 + i as u64));
            let inputs = [a, b];
            check("add", &inputs, |x| x[0].add(&x[1]));
            check("sub", &inputs, |x| x[0].sub(&x[1]));
            check("mul", &inputs, |x| x[0].mul(&x[1]));
            check("div", &inputs, |x| x[0].div(&x[1]));
        }
        check("add_scalar", &[sample(&[3, 3], 4)], |x| x[0].add_scalar(-2.5));
        check("scale", &[sample(&[3, 3], 4)], |x| Ok(x[0].scale(-2.5)));
    }

    #[test]
    fn an_input_used_twice_gets_both_gradients() {
        check("x·x + x", &[sample(&[4, 3], 1)], |x| x[0].mul(&x[0])?.add(&x[0]));
    }

    #[test]
    fn broadcasting_repeats_axes_of_length_one() {
        let a = Tensor::from_vec(vec![1.0, 2.0], &[2, 1]).unwrap();
        let b = Tensor::from_vec(vec![10.0, 20.0, 30.0], &[3]).unwrap();
        let y = a.add(&b).unwrap();
        assert_eq!((y.shape(), y.to_vec()), (&[2, 3][..], vec![11.0, 21.0, 31.0, 12.0, 22.0, 32.0]));
        let error = Tensor::zeros(&[2, 5]).add(&Tensor::zeros(&[3, 5])).unwrap_err().to_string();
        assert_eq!(error, "cannot broadcast [2, 5] with [3, 5]");
        let long = Tensor::zeros(&[1 << 22]);
        let error = long.mul(&long.reshape(&[1 << 22, 1]).unwrap()).unwrap_err().to_string();
        assert!(error.contains("expected one that fits into memory, found shape [4194304, 4194304]"), "{error}");
        assert_eq!(Tensor::zeros(&[0, 3]).add(&b).unwrap().shape(), [0, 3]);
    }

    #[test]
    fn an_empty_operand_is_allowed() {
        let y = Tensor::zeros(&[2, 0]).mul(&Tensor::zeros(&[0])).unwrap();
        assert_eq!(y.shape(), [2, 0]);
    }
}
