//! Shapes that broadcast as in NumPy: aligned at the last axis, an axis of length 1 repeats.
//!
//! [`map`] is the loop of every element-wise operation that has no kernel of its own. It cuts the
//! result into tiles of 1024 elements. An operand of the result's shape is read where it lies; one
//! that repeats is laid out for a tile at a time, so nothing is copied to the size of the result.

use crate::error::{Error, Result};
use crate::kernels::parallel;
use crate::kernels::vecmath;
use crate::ops::axis::by_block;
use crate::tensor::{Tensor, tape};

/// The shape that two shapes broadcast to.
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

/// The shape that all operands broadcast to.
///
/// # Errors
/// [`Error::Mismatch`] if there is none.
pub(crate) fn common_shape(x: &[&[usize]]) -> Result<Vec<usize>> {
    x.iter().try_fold(Vec::new(), |shape, x| broadcast_shape(&shape, x))
}

/// Whether a tensor of shape `from` can be repeated to `to`.
pub(crate) fn broadcasts_to(from: &[usize], to: &[usize]) -> bool {
    let fits = |(from, to): (&usize, &usize)| from == to || *from == 1;
    from.len() <= to.len() && from.iter().zip(&to[to.len() - from.len()..]).all(fits)
}

/// The step in `from`'s memory between neighbours along each axis of `to`: 0 where `from` repeats.
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

/// Elements for which a repeated operand is laid out at a time: 4 KiB.
const TILE: usize = 1024;
/// The most operands that [`map`] takes.
const OPERANDS: usize = 3;

/// An operand, read in the order of the result by a stride along each axis.
struct Operand<'a> {
    data: &'a [f32],
    /// Length and stride of each axis, neighbours merged where one stride serves both.
    axes: Vec<(usize, usize)>,
}

impl<'a> Operand<'a> {
    fn new(data: &'a [f32], shape: &[usize], strides: &[usize]) -> Self {
        let mut axes: Vec<(usize, usize)> = Vec::new();
        for (&len, &stride) in shape.iter().zip(strides).filter(|(len, _)| **len != 1) {
            match axes.last_mut() {
                Some(outer) if outer.1 == stride * len => *outer = (outer.0 * len, stride),
                _ => axes.push((len, stride)),
            }
        }
        Operand { data, axes }
    }

    /// Whether the operand has the result's elements in the result's order.
    fn is_whole(&self) -> bool {
        matches!(self.axes[..], [] | [(_, 1)])
    }

    /// Whether the operand is one element.
    fn is_one(&self) -> bool {
        matches!(self.axes[..], [(_, 0)])
    }

    /// Where element `i` of the result's order lies.
    fn offset(&self, mut i: usize) -> usize {
        let mut offset = 0;
        for &(len, stride) in self.axes.iter().rev() {
            offset += i % len * stride;
            i /= len;
        }
        offset
    }

    /// Writes the elements at `start ..` of the result's order.
    fn lay_out(&self, start: usize, mut out: &mut [f32]) {
        let Some((&(run, stride), outer)) = self.axes.split_last() else { return out.fill(self.data[0]) };
        let (mut rest, mut at) = (start / run, start % run);
        let mut index = vec![0; outer.len()];
        let mut offset = 0;
        for (i, &(len, stride)) in index.iter_mut().zip(outer).rev() {
            (*i, rest) = (rest % len, rest / len);
            offset += *i * stride;
        }
        while !out.is_empty() {
            let (now, later) = out.split_at_mut((run - at).min(out.len()));
            match stride {
                0 => now.fill(self.data[offset]),
                1 => now.copy_from_slice(&self.data[offset + at..][..now.len()]),
                _ => {
                    let x = self.data[offset + at * stride..].iter().step_by(stride);
                    now.iter_mut().zip(x).for_each(|(y, &x)| *y = x);
                }
            }
            (out, at) = (later, 0);
            for (i, &(len, stride)) in index.iter_mut().zip(outer).rev() {
                *i += 1;
                offset += stride;
                if *i < len {
                    break;
                }
                offset -= stride * len;
                *i = 0;
            }
        }
    }
}

/// A loop over equally long parts of operands, which writes that part of the result.
pub(crate) type Loop<'a> = dyn Fn(&[&[f32]], &mut [f32]) + Sync + 'a;

/// Applies `f` to the operands, each broadcast to `shape`, detached from the tape. Each element may
/// depend on its own place only. The caller has checked that the operands broadcast.
///
/// # Errors
/// [`Error::Shape`] if the result does not fit into memory.
pub(crate) fn map(shape: &[usize], x: &[&Tensor], f: &Loop<'_>) -> Result<Tensor> {
    /// Nanoseconds for a tile, roughly.
    const NS: f32 = 300.0;
    Tensor::try_write(shape, |y| {
        if y.is_empty() {
            return;
        }
        let strides = |x: &Tensor| broadcast_strides(x.shape(), shape);
        let operands: Vec<Operand> = x.iter().map(|x| Operand::new(x.data(), shape, &strides(x))).collect();
        let whole = operands.iter().all(Operand::is_whole);
        let chunk = parallel::chunk_len(y.len(), TILE, NS);
        parallel::chunks_mut(y, chunk, |task, y| {
            let mut parts: [&[f32]; OPERANDS] = [&[]; OPERANDS];
            if whole {
                for (part, x) in parts.iter_mut().zip(&operands) {
                    *part = &x.data[task * chunk..][..y.len()];
                }
                return f(&parts[..x.len()], y);
            }
            let mut scratch = vec![0.0; operands.len() * TILE];
            for (tile, x) in scratch.chunks_exact_mut(TILE).zip(&operands).filter(|(_, x)| x.is_one()) {
                tile.fill(x.data[0]);
            }
            for (i, y) in y.chunks_mut(TILE).enumerate() {
                let start = task * chunk + i * TILE;
                let mut parts: [&[f32]; OPERANDS] = [&[]; OPERANDS];
                for ((part, tile), x) in parts.iter_mut().zip(scratch.chunks_exact_mut(TILE)).zip(&operands) {
                    let tile = &mut tile[..y.len()];
                    *part = if x.is_whole() {
                        &x.data[start..][..y.len()]
                    } else {
                        if !x.is_one() {
                            x.lay_out(start, tile);
                        }
                        tile
                    };
                }
                f(&parts[..x.len()], y);
            }
        });
    })
}

/// Returns a tensor of `shape`, detached from the tape, whose neighbours along each axis are
/// `strides` apart in `x`.
pub(crate) fn strided(x: &[f32], shape: &[usize], strides: &[usize]) -> Tensor {
    /// Nanoseconds for 16 elements, roughly.
    const NS: f32 = 16.0;
    Tensor::write(shape, |y| {
        let operand = Operand::new(x, shape, strides);
        if let [outer @ .., (rows, 1), (cols, stride)] = &operand.axes[..]
            && (*rows).min(*cols) >= BLOCK
        {
            let matrices = Operand { data: x, axes: outer.to_vec() };
            let chunk = parallel::chunk_len(y.len(), BLOCK * cols, NS * *cols as f32);
            return parallel::chunks_mut(y, chunk, |task, y| {
                for (matrix, at, y) in by_block(task * chunk, rows * cols, y) {
                    transpose(&x[matrices.offset(matrix) + at / cols..], *stride, *cols, y);
                }
            });
        }
        let chunk = parallel::chunk_len(y.len(), 16, NS);
        parallel::chunks_mut(y, chunk, |task, y| operand.lay_out(task * chunk, y));
    })
}

/// Rows and columns that [`transpose`] moves at a time: a cache line of each.
const BLOCK: usize = 16;

/// y\[i, j\] = x\[i + j · stride\], rows of `cols` elements.
///
/// By blocks, each read and written by whole lines: row by row, every element would be in another
/// line, and lines a power of two apart push each other out of the cache.
fn transpose(x: &[f32], stride: usize, cols: usize, y: &mut [f32]) {
    let mut block = [[0.0; BLOCK]; BLOCK];
    for (i, y) in y.chunks_mut(BLOCK * cols).enumerate() {
        let rows = y.len() / cols;
        for from in (0..cols).step_by(BLOCK) {
            let columns = &mut block[..BLOCK.min(cols - from)];
            for (j, column) in columns.iter_mut().enumerate() {
                column[..rows].copy_from_slice(&x[(from + j) * stride + i * BLOCK..][..rows]);
            }
            for (i, y) in y.chunks_exact_mut(cols).enumerate() {
                y[from..].iter_mut().zip(&*columns).for_each(|(y, column)| *y = column[i]);
            }
        }
    }
}

/// `x` repeated to `shape`, detached from the tape; the caller has checked that it broadcasts.
///
/// # Errors
/// [`Error::Shape`] if the result does not fit into memory.
pub(crate) fn try_broadcast_to(x: &Tensor, shape: &[usize]) -> Result<Tensor> {
    if x.shape() == shape {
        return Ok(x.detach());
    }
    map(shape, &[x], &|x, y| y.copy_from_slice(x[0]))
}

/// Same as [`try_broadcast_to`], for a shape that another tensor has already.
pub(crate) fn broadcast_to(x: &Tensor, shape: &[usize]) -> Tensor {
    try_broadcast_to(x, shape).expect("there is memory for another tensor of the shape")
}

/// Calls `f(outer, inner)` with the offset in the larger and in the smaller tensor of each run
/// along the last axis.
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

/// The adjoint of [`broadcast_to`]: `dy` summed over the axes along which a tensor of `shape` was
/// repeated.
pub(crate) fn sum_to(dy: Tensor, shape: &[usize]) -> Tensor {
    if dy.shape() == shape {
        return dy;
    }
    let len: usize = shape.iter().product();
    if dy.shape().ends_with(shape) && len > 0 {
        return Tensor::write(shape, |dx| vecmath::sum_rows(dy.data(), len, dx, false));
    }
    if let [outer @ .., 1] = shape
        && let [dy_outer @ .., run] = dy.shape()
        && outer == dy_outer
        && *run > 0
    {
        return Tensor::write(shape, |dx| {
            let per_task = parallel::chunk_len(len, 1, *run as f32 * 0.1);
            parallel::chunks_mut(dx, per_task, |task, dx| {
                let rows = dy.data()[task * per_task * run..].chunks_exact(*run);
                dx.iter_mut().zip(rows).for_each(|(dx, row)| *dx = 0.0 + vecmath::sum(row) as f32);
            });
        });
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

impl Tensor {
    /// Repeats axes of length 1, and new leading axes, to `shape`. Copies. The gradient is summed
    /// over what was repeated.
    ///
    /// # Errors
    /// [`Error::Mismatch`] if the shape does not broadcast to `shape`; [`Error::Shape`] if the
    /// memory has no room for the result.
    ///
    /// # Examples
    /// ```
    /// let column = loquat::Tensor::from_vec(vec![1.0, 2.0], &[2, 1])?;
    /// assert_eq!(column.expand(&[2, 3])?.to_vec(), [1.0, 1.0, 1.0, 2.0, 2.0, 2.0]);
    /// # Ok::<(), loquat::Error>(())
    /// ```
    #[doc(alias = "broadcast_to")]
    pub fn expand(&self, shape: &[usize]) -> Result<Tensor> {
        if !broadcasts_to(self.shape(), shape) {
            return Err(Error::mismatch(format!("expand {:?} to {shape:?}", self.shape())));
        }
        let from = self.shape().to_vec();
        Ok(tape::record("expand", &[self], try_broadcast_to(self, shape)?, || {
            Box::new(move |dy, _| Ok(vec![Some(sum_to(dy, &from))]))
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::gradient_check::{check, sample};

    const SHAPES: [(&[usize], &[usize]); 9] = [
        (&[], &[3, 5]),
        (&[3, 5], &[3, 5]),
        (&[5], &[3, 5]),
        (&[3, 1], &[3, 5]),
        (&[2, 1, 3], &[2, 4, 3]),
        (&[2, 1, 3, 1], &[2, 4, 3, 5]),
        (&[1, 1], &[1, 1, 1]),
        (&[70, 1, 3], &[70, 33, 3]),
        (&[1, 0], &[3, 0]),
    ];

    /// Each element by its index.
    fn naive(x: &Tensor, shape: &[usize]) -> Vec<f32> {
        let strides = broadcast_strides(x.shape(), shape);
        let len: usize = shape.iter().product();
        let at = |mut i: usize| {
            let mut offset = 0;
            for (&len, stride) in shape.iter().zip(&strides).rev() {
                offset += i % len * stride;
                i /= len;
            }
            x.data()[offset]
        };
        (0..len).map(at).collect()
    }

    #[test]
    fn each_element_comes_from_its_place() {
        for (i, (from, to)) in SHAPES.into_iter().enumerate() {
            let x = sample(from, i as u64);
            let y = x.expand(to).unwrap();
            assert_eq!((y.shape(), y.to_vec()), (to, naive(&x, to)), "{from:?} to {to:?}");
            let whole = sample(to, 77);
            let found = map(to, &[&whole, &x], &|x, y| vecmath::sub(x[0], x[1], y)).unwrap();
            let expected: Vec<f32> = whole.data().iter().zip(naive(&x, to)).map(|(w, x)| w - x).collect();
            assert_eq!(found.to_vec(), expected, "{from:?} to {to:?}");
        }
    }

    #[test]
    fn axes_in_another_order_match_the_naive_loop() {
        // Blocks of transposed matrices, whole and not; runs; single elements.
        let cases: [(&[usize], &[usize]); 8] = [
            (&[40, 35], &[1, 0]),
            (&[16, 16], &[1, 0]),
            (&[3, 40, 17], &[0, 2, 1]),
            (&[3, 40, 17], &[2, 0, 1]),
            (&[40, 3, 2, 33], &[2, 3, 1, 0]),
            (&[2, 300, 200], &[0, 2, 1]),
            (&[15, 40], &[1, 0]),
            (&[2, 5, 3, 4], &[0, 2, 1, 3]),
        ];
        for (shape, axes) in cases {
            let x = sample(shape, 1);
            let whole: Vec<usize> = (0..shape.len()).map(|i| shape[i + 1..].iter().product()).collect();
            let strides: Vec<usize> = axes.iter().map(|&axis| whole[axis]).collect();
            let to: Vec<usize> = axes.iter().map(|&axis| shape[axis]).collect();
            let operand = Operand { data: x.data(), axes: to.iter().copied().zip(strides).collect() };
            let expected: Vec<f32> = (0..x.len()).map(|i| x.data()[operand.offset(i)]).collect();
            for threads in [1, 3] {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                assert_eq!(pool.install(|| x.permute(axes)).unwrap().to_vec(), expected, "{shape:?} {axes:?}");
            }
        }
    }

    #[test]
    fn threads_do_not_change_a_bit() {
        let (x, y) = (sample(&[300, 1, 31], 1), sample(&[40, 1], 2));
        let run = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| x.mul(&y).unwrap().to_vec())
        };
        let alone = run(1);
        assert!((2..=4).all(|threads| run(threads) == alone));
    }

    #[test]
    fn gradients_match_central_differences() {
        for (from, to) in SHAPES.into_iter().filter(|(_, to)| to.len() < 4 && to[0] < 10) {
            check("expand", &[sample(from, 1)], |x| x[0].expand(to));
        }
    }

    #[test]
    fn shapes_that_do_not_broadcast_are_errors() {
        let error = Tensor::zeros(&[2, 3]).expand(&[3, 3]).unwrap_err().to_string();
        assert_eq!(error, "cannot expand [2, 3] to [3, 3]");
        assert!(Tensor::zeros(&[2, 3]).expand(&[3]).is_err());
        assert!(Tensor::zeros(&[1]).expand(&[1 << 31, 1 << 31]).unwrap_err().to_string().contains("fits into memory"));
        assert!(common_shape(&[&[2], &[3, 1], &[4]]).is_err());
    }
}
