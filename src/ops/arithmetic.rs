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

use crate::error::{Error, Result};
use crate::kernels::vecmath;
use crate::tensor::{Tensor, tape};

/// Returns the shape that two shapes broadcast to.
fn broadcast_shape(a: &[usize], b: &[usize]) -> Result<Vec<usize>> {
    let rank = a.len().max(b.len());
    let dim = |shape: &[usize], i: usize| if i + shape.len() < rank { 1 } else { shape[i + shape.len() - rank] };
    (0..rank)
        .map(|i| match (dim(a, i), dim(b, i)) {
            (x, y) if x == y => Ok(x),
            (1, y) => Ok(y),
            (x, 1) => Ok(x),
            _ => Err(Error::mismatch(format!("broadcast {a:?} with {b:?}"))),
        })
        .collect()
}

/// Returns whether a tensor of shape `from` can be broadcast to `to`.
pub(crate) fn broadcasts_to(from: &[usize], to: &[usize]) -> bool {
    let fits = |(from, to): (&usize, &usize)| from == to || *from == 1;
    from.len() <= to.len() && from.iter().zip(&to[to.len() - from.len()..]).all(fits)
}

/// Returns the strides in `from`'s memory along each axis of `to`: 0 where `from` is repeated.
fn broadcast_strides(from: &[usize], to: &[usize]) -> Vec<usize> {
    let mut strides = vec![0; to.len()];
    let mut stride = 1;
    for (i, &d) in from.iter().enumerate().rev() {
        if d != 1 {
            strides[i + to.len() - from.len()] = stride;
        }
        stride *= d;
    }
    strides
}

/// Calls `f(outer, inner)` for each run along the last axis, with its offsets in the larger and in
/// the smaller tensor.
fn for_each_run(to: &[usize], strides: &[usize], mut f: impl FnMut(usize, usize)) {
    let Some((&run, axes)) = to.split_last() else { return f(0, 0) };
    if to.contains(&0) {
        return;
    }
    let mut index = vec![0; axes.len()];
    let (mut outer, mut inner) = (0, 0);
    loop {
        f(outer, inner);
        outer += run;
        let mut axis = axes.len();
        loop {
            if axis == 0 {
                return;
            }
            axis -= 1;
            index[axis] += 1;
            inner += strides[axis];
            if index[axis] < axes[axis] {
                break;
            }
            inner -= strides[axis] * axes[axis];
            index[axis] = 0;
        }
    }
}

/// Broadcasts `x` to `shape`, detached from the tape; the caller has checked the shapes.
pub(crate) fn broadcast_to(x: &Tensor, shape: &[usize]) -> Tensor {
    if x.shape() == shape {
        return x.detach();
    }
    let strides = broadcast_strides(x.shape(), shape);
    let run = shape.last().copied().unwrap_or(1);
    Tensor::write(shape, |y| {
        let x = x.data();
        for_each_run(shape, &strides, |outer, inner| {
            let y = &mut y[outer..outer + run];
            if strides.last() == Some(&1) { y.copy_from_slice(&x[inner..inner + run]) } else { y.fill(x[inner]) }
        });
    })
}

/// The adjoint of [`broadcast_to`]: sums `dy` over the axes along which a tensor of `shape` was
/// repeated.
pub(crate) fn sum_to(dy: Tensor, shape: &[usize]) -> Tensor {
    if dy.shape() == shape {
        return dy;
    }
    let len: usize = shape.iter().product();
    if dy.shape().ends_with(shape) && len > 0 {
        return Tensor::write(shape, |dx| vecmath::sum_rows(dy.data(), len, dx, false));
    }
    let strides = broadcast_strides(shape, dy.shape());
    let run = dy.shape().last().copied().unwrap_or(1);
    Tensor::write(shape, |dx| {
        dx.fill(0.0);
        for_each_run(dy.shape(), &strides, |outer, inner| {
            let dy = &dy.data()[outer..outer + run];
            if strides.last() == Some(&1) {
                vecmath::add_assign(&mut dx[inner..inner + run], dy);
            } else {
                dx[inner] += vecmath::sum(dy) as f32;
            }
        });
    })
}

type Kernel = fn(&[f32], &[f32], &mut [f32]);

/// Multiplies two tensors of the same shape, detached from the tape.
fn product(a: &Tensor, b: &Tensor) -> Tensor {
    Tensor::write(a.shape(), |y| vecmath::mul(a.data(), b.data(), y))
}

/// Applies `kernel` to the broadcast operands, detached from the tape.
fn forward(op: &'static str, a: &Tensor, b: &Tensor, kernel: Kernel) -> Result<Tensor> {
    let shape = broadcast_shape(a.shape(), b.shape())?;
    let row = b.len();
    if a.shape() == shape && row > 0 && shape.ends_with(b.shape()) && a.shape() != b.shape() {
        let by_row: Option<Kernel> = match op {
            "add" => Some(vecmath::add_row),
            "mul" => Some(vecmath::mul_row),
            _ => None,
        };
        if let Some(by_row) = by_row {
            return Ok(Tensor::write(&shape, |y| by_row(a.data(), b.data(), y)));
        }
    }
    // Allocated before the operands are broadcast: two small operands can have a large result.
    let mut y = Tensor::try_write(&shape, |_| ())?;
    let (a, b) = (broadcast_to(a, &shape), broadcast_to(b, &shape));
    kernel(a.data(), b.data(), y.make_mut());
    Ok(y)
}

impl Tensor {
    /// Computes `self + other` element-wise.
    ///
    /// # Errors
    /// [`Error::Mismatch`] if the shapes do not broadcast, [`Error::Shape`] if the result does not
    /// fit into memory.
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
                let da = needs[0].then(|| sum_to(product(&dy, &broadcast_to(&b, dy.shape())), a.shape()));
                let db = needs[1].then(|| sum_to(product(&dy, &broadcast_to(&a, dy.shape())), b.shape()));
                Ok(vec![da, db])
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
                let wide = broadcast_to(&b, dy.shape());
                let da = Tensor::write(dy.shape(), |da| vecmath::div(dy.data(), wide.data(), da));
                let db = needs[1].then(|| {
                    let mut db = sum_to(product(&da, &saved), b.shape());
                    vecmath::scale(-1.0, db.make_mut());
                    db
                });
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
    /// None in practice, since a scalar broadcasts with every shape.
    pub fn add_scalar(&self, value: f32) -> Result<Tensor> {
        self.add(&Tensor::scalar(value))
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
