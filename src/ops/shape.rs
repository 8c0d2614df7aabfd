//! The same numbers in another arrangement: reshape, squeeze, permute, narrow, split, concatenate,
//! stack.

use crate::error::{Error, Result};
use crate::ops::axis::split_at;
use crate::ops::broadcast::strided;
use crate::tensor::{Tensor, tape};

impl Tensor {
    /// Returns the same elements in the same order with another shape, without copying.
    ///
    /// # Errors
    /// [`Error::Mismatch`] if the number of elements differs.
    pub fn reshape(&self, shape: &[usize]) -> Result<Tensor> {
        if shape.iter().try_fold(1usize, |len, &d| len.checked_mul(d)) != Some(self.len()) {
            let action = format!("reshape {:?}, which has {} elements, to {shape:?}", self.shape(), self.len());
            return Err(Error::mismatch(action));
        }
        let from = self.shape().to_vec();
        Ok(tape::record("reshape", &[self], self.view(shape), || Box::new(move |dy, _| Ok(vec![Some(dy.view(&from))]))))
    }

    /// Inserts an axis of length 1 before axis `axis`, at the end if `axis` is the rank. Negative
    /// axes count from the last of the result: -1 adds a last axis. No copy.
    ///
    /// # Errors
    /// [`Error::Argument`] if the result would have no such axis.
    ///
    /// # Examples
    /// ```
    /// let x = loquat::Tensor::zeros(&[2, 3]);
    /// assert_eq!(x.unsqueeze(1)?.shape(), [2, 1, 3]);
    /// assert_eq!(x.unsqueeze(-1)?.shape(), [2, 3, 1]);
    /// # Ok::<(), loquat::Error>(())
    /// ```
    pub fn unsqueeze(&self, axis: isize) -> Result<Tensor> {
        let rank = self.rank() as isize;
        let place = if axis < 0 { axis + rank + 1 } else { axis };
        if !(0..=rank).contains(&place) {
            return Err(Error::argument("unsqueeze axis", format!("{}..={rank}", -rank - 1), axis));
        }
        let mut shape = self.shape().to_vec();
        shape.insert(place as usize, 1);
        self.reshape(&shape)
    }

    /// Removes an axis of length 1; negative ones count from the last. No copy.
    ///
    /// # Errors
    /// [`Error::Argument`] if there is no such axis; [`Error::Shape`] if its length is not 1.
    pub fn squeeze(&self, axis: isize) -> Result<Tensor> {
        let axis = self.axis(axis)?;
        if self.shape()[axis] != 1 {
            return Err(Error::shape("squeeze", format!("length 1 along axis {axis}"), self.shape()));
        }
        let mut shape = self.shape().to_vec();
        shape.remove(axis);
        self.reshape(&shape)
    }

    /// Axes in another order: axis `i` of the result is axis `axes[i]` of `self`. Copies.
    ///
    /// # Errors
    /// [`Error::Argument`] if `axes` is not a permutation of `0..rank`.
    pub fn permute(&self, axes: &[usize]) -> Result<Tensor> {
        let mut inverse = vec![usize::MAX; self.rank()];
        for (i, &axis) in axes.iter().enumerate() {
            if let Some(place) = inverse.get_mut(axis) {
                *place = i;
            }
        }
        if axes.len() != self.rank() || inverse.contains(&usize::MAX) {
            let expected = format!("a permutation of 0..{}", self.rank());
            return Err(Error::argument("permute axes", expected, format!("{axes:?}")));
        }
        Ok(tape::record("permute", &[self], permuted(self, axes), || {
            Box::new(move |dy, _| Ok(vec![Some(permuted(&dy, &inverse))]))
        }))
    }

    /// Exchanges two axes; negative ones count from the last. Copies.
    ///
    /// # Errors
    /// [`Error::Argument`] if an axis does not exist.
    pub fn transpose(&self, a: isize, b: isize) -> Result<Tensor> {
        let mut axes: Vec<usize> = (0..self.rank()).collect();
        axes.swap(self.axis(a)?, self.axis(b)?);
        self.permute(&axes)
    }

    /// Returns elements `start .. start + len` along `axis`; does not copy if it is the first axis.
    ///
    /// # Errors
    /// [`Error::Argument`] if the axis or the range does not exist.
    pub fn narrow(&self, axis: isize, start: usize, len: usize) -> Result<Tensor> {
        let axis = self.axis(axis)?;
        let (outer, width, inner) = split_at(self.shape(), axis);
        if start.checked_add(len).is_none_or(|end| end > width) {
            let found = format!("{start}..{start}+{len}");
            return Err(Error::argument("narrow range", format!("a range within 0..{width}"), found));
        }
        let mut shape = self.shape().to_vec();
        shape[axis] = len;
        let y = if axis == 0 {
            self.rows(start, len)
        } else {
            Tensor::write(&shape, |y| {
                copy_blocks(self.data(), width * inner, start * inner, y, len * inner, 0, len * inner)
            })
        };
        let from = self.shape().to_vec();
        Ok(tape::record("narrow", &[self], y, || {
            Box::new(move |dy, _| {
                let mut dx = Tensor::zeros(&from);
                if outer > 0 {
                    copy_blocks(dy.data(), len * inner, 0, dx.make_mut(), width * inner, start * inner, len * inner);
                }
                Ok(vec![Some(dx)])
            })
        }))
    }

    /// Splits the tensor into `count` parts of equal length along `axis`.
    ///
    /// # Errors
    /// [`Error::Argument`] if the axis does not exist or its length is not divisible by `count`; an
    /// empty axis is one part.
    pub fn split(&self, count: usize, axis: isize) -> Result<Vec<Tensor>> {
        let width = self.dim(axis)?;
        if count == 0 || width % count != 0 || count > width.max(1) {
            return Err(Error::argument("split count", format!("a divisor of {width}"), count));
        }
        (0..count).map(|i| self.narrow(axis, i * (width / count), width / count)).collect()
    }

    /// At most `count` parts along `axis`, all of the same length but the last, which may be
    /// shorter, as PyTorch's `chunk` has it. [`Tensor::split`] wants parts of equal length.
    ///
    /// # Errors
    /// [`Error::Argument`] if there is no such axis or `count` is 0.
    ///
    /// # Examples
    /// ```
    /// let parts = loquat::Tensor::zeros(&[2, 5]).chunk(2, 1)?;
    /// assert_eq!((parts[0].shape(), parts[1].shape()), (&[2, 3][..], &[2, 2][..]));
    /// # Ok::<(), loquat::Error>(())
    /// ```
    pub fn chunk(&self, count: usize, axis: isize) -> Result<Vec<Tensor>> {
        let width = self.dim(axis)?;
        if count == 0 {
            return Err(Error::argument("chunk count", "at least 1", count));
        }
        let len = width.div_ceil(count).max(1);
        let starts = (0..width.max(1)).step_by(len);
        starts.map(|start| self.narrow(axis, start, len.min(width - start))).collect()
    }
}

/// Copies a run of `run` numbers from each block of `x` to each block of `y`.
fn copy_blocks(x: &[f32], x_block: usize, x_at: usize, y: &mut [f32], y_block: usize, y_at: usize, run: usize) {
    if run == 0 {
        return;
    }
    for (x, y) in x.chunks_exact(x_block).zip(y.chunks_exact_mut(y_block)) {
        y[y_at..y_at + run].copy_from_slice(&x[x_at..x_at + run]);
    }
}

fn permuted(x: &Tensor, axes: &[usize]) -> Tensor {
    let rank = x.rank();
    let shape: Vec<usize> = axes.iter().map(|&a| x.shape()[a]).collect();
    let mut from = vec![1; rank];
    for i in (1..rank).rev() {
        from[i - 1] = from[i] * x.shape()[i];
    }
    let strides: Vec<usize> = axes.iter().map(|&a| from[a]).collect();
    strided(x.data(), &shape, &strides)
}

/// Concatenates tensors along an axis; all other axes must have equal lengths.
///
/// # Errors
/// [`Error::Mismatch`] if the other axes differ; [`Error::Argument`] if there are no tensors or
/// `axis` does not exist; [`Error::Shape`] if the result does not fit into memory.
///
/// # Examples
/// ```
/// use loquat::{Tensor, ops};
///
/// let (a, b) = (Tensor::zeros(&[2, 1]), Tensor::full(&[2, 2], 1.0));
/// assert_eq!(ops::concat(&[&a, &b], -1)?.data(), [0.0, 1.0, 1.0, 0.0, 1.0, 1.0]);
/// # Ok::<(), loquat::Error>(())
/// ```
pub fn concat(tensors: &[&Tensor], axis: isize) -> Result<Tensor> {
    let first = tensors.first().ok_or_else(|| Error::argument("concat", "at least one tensor", "none"))?;
    let axis = first.axis(axis)?;
    let mut shape = first.shape().to_vec();
    for x in &tensors[1..] {
        let fits = x.rank() == shape.len() && (0..shape.len()).all(|i| i == axis || x.shape()[i] == shape[i]);
        if !fits {
            let (a, b) = (first.shape(), x.shape());
            return Err(Error::mismatch(format!("join {a:?} and {b:?} along axis {axis}: the other axes differ")));
        }
        shape[axis] = shape[axis].saturating_add(x.shape()[axis]);
    }
    let (_, width, inner) = split_at(&shape, axis);
    let widths: Vec<usize> = tensors.iter().map(|x| x.shape()[axis]).collect();
    let y = Tensor::try_write(&shape, |y| {
        let mut at = 0;
        for x in tensors {
            let run = x.shape()[axis] * inner;
            copy_blocks(x.data(), run, 0, y, width * inner, at, run);
            at += run;
        }
    })?;
    let mut part = shape.clone();
    Ok(tape::record("concat", tensors, y, || {
        Box::new(move |dy, needs| {
            let mut at = 0;
            let parts = widths.iter().zip(needs).map(|(&w, &needed)| {
                let start = at;
                at += w * inner;
                part[axis] = w;
                let run = w * inner;
                needed.then(|| Tensor::write(&part, |dx| copy_blocks(dy.data(), width * inner, start, dx, run, 0, run)))
            });
            Ok(parts.collect())
        })
    }))
}

/// Stacks tensors of the same shape along a new axis.
///
/// # Errors
/// Same as [`concat()`].
pub fn stack(tensors: &[&Tensor], axis: usize) -> Result<Tensor> {
    let unsqueezed = tensors
        .iter()
        .map(|x| {
            if axis > x.rank() {
                return Err(Error::argument("stack axis", format!("at most {}", x.rank()), axis));
            }
            let mut shape = x.shape().to_vec();
            shape.insert(axis, 1);
            x.reshape(&shape)
        })
        .collect::<Result<Vec<_>>>()?;
    concat(&unsqueezed.iter().collect::<Vec<_>>(), axis as isize)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::gradient_check::{check, sample};

    #[test]
    fn gradients_match_central_differences() {
        let x = [sample(&[2, 3, 4], 1)];
        check("reshape", &x, |x| x[0].reshape(&[6, 4]));
        check("permute", &x, |x| x[0].permute(&[2, 0, 1]));
        check("permute with a run", &x, |x| x[0].permute(&[1, 0, 2]));
        check("transpose", &x, |x| x[0].transpose(-1, -2));
        for axis in 0..3 {
            check("narrow", &x, |x| x[0].narrow(axis, 1, 1));
        }
        check("unsqueeze", &x, |x| x[0].unsqueeze(-1));
        check("squeeze", &[sample(&[2, 1, 3], 1)], |x| x[0].squeeze(1));
        check("chunk", &x, |x| concat(&x[0].chunk(2, 1)?.iter().rev().collect::<Vec<_>>(), 1));
        check("split", &x, |x| concat(&x[0].split(3, 1)?.iter().rev().collect::<Vec<_>>(), 1));
        let two = [sample(&[2, 3, 4], 2), sample(&[2, 1, 4], 3)];
        check("concat", &two, |x| concat(&[&x[0], &x[1], &x[0]], 1));
        let two = [sample(&[2, 3], 2), sample(&[2, 3], 3)];
        for axis in 0..3 {
            check("stack", &two, |x| stack(&[&x[0], &x[1]], axis));
        }
    }

    #[test]
    fn permute_moves_each_element_to_its_place() {
        let x = Tensor::from_vec((0..6).map(|i| i as f32).collect(), &[2, 3]).unwrap();
        assert_eq!(x.permute(&[1, 0]).unwrap().to_vec(), [0.0, 3.0, 1.0, 4.0, 2.0, 5.0]);
        assert!(x.permute(&[0, 0]).is_err());
        assert!(x.permute(&[0]).is_err());
    }

    #[test]
    fn ranges_and_shapes_that_do_not_fit_are_errors() {
        let x = Tensor::zeros(&[2, 3]);
        assert!(x.narrow(1, 2, 2).is_err());
        assert!(x.narrow(1, usize::MAX, 2).is_err());
        assert!(x.narrow(2, 0, 1).is_err());
        let error = x.reshape(&[7]).unwrap_err().to_string();
        assert_eq!(error, "cannot reshape [2, 3], which has 6 elements, to [7]");
        assert!(x.split(2, 1).is_err());
        let empty = Tensor::zeros(&[2, 0]);
        assert!(empty.split(1 << 40, 1).is_err() && empty.split(0, 1).is_err());
        assert_eq!(empty.split(1, 1).unwrap().len(), 1);
        let error = x.squeeze(-1).unwrap_err().to_string();
        assert_eq!(error, "squeeze: expected length 1 along axis 1, found shape [2, 3]");
        let error = x.unsqueeze(3).unwrap_err().to_string();
        assert_eq!(error, "unsqueeze axis: expected -3..=2, found 3");
        assert!(x.unsqueeze(-4).is_err() && x.squeeze(2).is_err() && x.chunk(0, 1).is_err());
        let error = concat(&[&x, &Tensor::zeros(&[3, 3])], 1).unwrap_err().to_string();
        assert_eq!(error, "cannot join [2, 3] and [3, 3] along axis 1: the other axes differ");
        assert!(concat(&[], 0).is_err());
    }

    #[test]
    fn chunks_are_as_in_pytorch() {
        let lengths = |width: usize, count: usize| {
            let parts = Tensor::zeros(&[width]).chunk(count, 0).unwrap();
            parts.iter().map(Tensor::len).collect::<Vec<_>>()
        };
        assert_eq!(lengths(7, 3), [3, 3, 1]);
        assert_eq!(lengths(6, 4), [2, 2, 2]);
        assert_eq!(lengths(2, 5), [1, 1]);
        assert_eq!(lengths(0, 2), [0]);
    }

    #[test]
    fn axes_of_length_one_come_and_go() {
        let x = Tensor::zeros(&[2, 3]);
        for (axis, shape) in [(0, [1, 2, 3]), (1, [2, 1, 3]), (2, [2, 3, 1]), (-1, [2, 3, 1]), (-3, [1, 2, 3])] {
            let y = x.unsqueeze(axis).unwrap();
            assert_eq!((y.shape(), y.squeeze(axis).unwrap().shape()), (&shape[..], x.shape()));
        }
        assert_eq!(Tensor::scalar(1.0).unsqueeze(0).unwrap().squeeze(0).unwrap().rank(), 0);
    }

    #[test]
    fn empty_axes_are_allowed() {
        let x = Tensor::zeros(&[2, 0, 3]);
        assert_eq!(x.permute(&[2, 0, 1]).unwrap().shape(), [3, 2, 0]);
        assert_eq!(x.narrow(1, 0, 0).unwrap().shape(), [2, 0, 3]);
        assert_eq!(concat(&[&x, &Tensor::zeros(&[2, 2, 3])], 1).unwrap().shape(), [2, 2, 3]);
    }
}
