//! The largest and smallest elements along an axis, and their indices.
//!
//! NaN counts as larger than every number for a maximum and smaller for a minimum, so it is never
//! hidden; of equal elements the first is chosen. Values are gathered by their indices, so the
//! gradient goes to the chosen elements and to no others.

use std::cmp::Ordering;

use crate::error::{Error, Result};
use crate::kernels::parallel;
use crate::ops::axis::{by_block, split_at};
use crate::tensor::{IdTensor, Tensor};

/// Whether `x` comes before `best` when the first is the largest (or, for `MIN`, the smallest).
fn beats<const MIN: bool>(x: f32, best: f32) -> bool {
    let beyond = if MIN { x < best } else { x > best };
    // Without branches, so that loops become vector instructions.
    beyond | (x.is_nan() & !best.is_nan())
}

/// The index of the extreme of a row that is not empty.
fn of_row<const MIN: bool>(row: &[f32]) -> u32 {
    /// Partial extremes, so that one comparison does not wait for the last.
    const LANES: usize = 16;
    if row.len() < 2 * LANES {
        let better = |best: usize, i: usize| if beats::<MIN>(row[i], row[best]) { i } else { best };
        return (1..row.len()).fold(0, better) as u32;
    }
    let (blocks, rest) = row.as_chunks::<LANES>();
    let mut best = [row[0]; LANES];
    for block in blocks {
        for (best, &x) in best.iter_mut().zip(block) {
            // A NaN is not lost: every later comparison with it is false, but for another NaN.
            *best = if beats::<MIN>(x, *best) { x } else { *best };
        }
    }
    let extreme = best.iter().chain(rest).fold(row[0], |best, &x| if beats::<MIN>(x, best) { x } else { best });
    let place = row.iter().position(|&x| x == extreme || x.is_nan());
    place.expect("the extreme is an element of the row") as u32
}

/// The indices of the extremes of some columns of `[width, inner]`, from `column` on.
fn of_columns<const MIN: bool>(x: &[f32], inner: usize, column: usize, indices: &mut [u32]) {
    let columns = column..column + indices.len();
    let mut best = x[columns.clone()].to_vec();
    indices.fill(0);
    for (j, row) in x.chunks_exact(inner).enumerate().skip(1) {
        let row = &row[columns.clone()];
        for ((index, best), &x) in indices.iter_mut().zip(&mut best).zip(row) {
            let better = beats::<MIN>(x, *best);
            *best = if better { x } else { *best };
            *index = if better { j as u32 } else { *index };
        }
    }
}

/// The indices of the extremes along an axis that stays with length 1.
fn indices<const MIN: bool>(op: &str, x: &Tensor, axis: isize) -> Result<IdTensor> {
    let axis = x.axis(axis)?;
    let (outer, width, inner) = split_at(x.shape(), axis);
    let mut shape = x.shape().to_vec();
    shape[axis] = 1;
    if width == 0 {
        return Err(Error::shape(op, "a non-empty axis", x.shape()));
    }
    let mut indices = vec![0u32; outer * inner];
    let chunk = parallel::chunk_len(indices.len(), 16, 16.0 * width as f32);
    parallel::chunks_mut(&mut indices, chunk, |task, indices| {
        for (block, column, part) in by_block(task * chunk, inner, indices) {
            let x = &x.data()[block * width * inner..][..width * inner];
            match inner {
                1 => part[0] = of_row::<MIN>(x),
                _ => of_columns::<MIN>(x, inner, column, part),
            }
        }
    });
    IdTensor::new(indices, &shape)
}

/// Largest first, NaN before all; equal elements by their index.
fn descending(row: &[f32], a: u32, b: u32) -> Ordering {
    let (x, y) = (row[a as usize], row[b as usize]);
    let by_value = y.partial_cmp(&x).unwrap_or_else(|| y.is_nan().cmp(&x.is_nan()));
    by_value.then(a.cmp(&b))
}

impl Tensor {
    /// Returns the index of the largest element along `axis`, which stays with length 1: of NaN if
    /// there is one, of the first of equal elements. Negative axes count from the last.
    ///
    /// # Errors
    /// [`Error::Argument`] if there is no such axis; [`Error::Shape`] if it is empty.
    pub fn argmax(&self, axis: isize) -> Result<IdTensor> {
        indices::<false>("argmax", self, axis)
    }

    /// Returns the index of the smallest element along `axis`, which stays with length 1: of NaN if
    /// there is one, of the first of equal elements. Negative axes count from the last.
    ///
    /// # Errors
    /// [`Error::Argument`] if there is no such axis; [`Error::Shape`] if it is empty.
    pub fn argmin(&self, axis: isize) -> Result<IdTensor> {
        indices::<true>("argmin", self, axis)
    }

    /// Returns the largest element along `axis`, which stays with length 1, and its index
    /// ([`Tensor::argmax`]). The gradient goes to the element at the index.
    ///
    /// # Errors
    /// Same as [`Tensor::argmax`].
    ///
    /// # Examples
    /// ```
    /// let x = loquat::Tensor::from_vec(vec![1.0, 5.0, 3.0, 3.0], &[2, 2])?;
    /// let (values, indices) = x.max_axis(1)?;
    /// assert_eq!((values.shape(), values.to_vec()), (&[2, 1][..], vec![5.0, 3.0]));
    /// assert_eq!(indices.data(), [1, 0]);
    /// # Ok::<(), loquat::Error>(())
    /// ```
    #[doc(alias = "max")]
    pub fn max_axis(&self, axis: isize) -> Result<(Tensor, IdTensor)> {
        let indices = indices::<false>("max_axis", self, axis)?;
        Ok((self.gather(axis, &indices)?, indices))
    }

    /// Returns the smallest element along `axis`, which stays with length 1, and its index
    /// ([`Tensor::argmin`]). The gradient goes to the element at the index.
    ///
    /// # Errors
    /// Same as [`Tensor::argmin`].
    #[doc(alias = "min")]
    pub fn min_axis(&self, axis: isize) -> Result<(Tensor, IdTensor)> {
        let indices = indices::<true>("min_axis", self, axis)?;
        Ok((self.gather(axis, &indices)?, indices))
    }

    /// Returns the `k` largest elements along `axis`, largest first, and their indices. NaN comes
    /// before every number, and equal elements are in the order of their indices. Negative axes
    /// count from the last. The gradient goes to the elements at the indices.
    ///
    /// # Shapes
    /// Both results have the tensor's shape but for length `k` along `axis`.
    ///
    /// # Errors
    /// [`Error::Argument`] if there is no such axis or `k` is larger than its length.
    ///
    /// # Examples
    /// ```
    /// let x = loquat::Tensor::from_vec(vec![0.1, 0.7, 0.2, 0.6, 0.3, 0.1], &[2, 3])?;
    /// let (values, indices) = x.topk(2, -1)?;
    /// assert_eq!(values.to_vec(), [0.7, 0.2, 0.6, 0.3]);
    /// assert_eq!(indices.data(), [1, 2, 0, 1]);
    /// # Ok::<(), loquat::Error>(())
    /// ```
    pub fn topk(&self, k: usize, axis: isize) -> Result<(Tensor, IdTensor)> {
        let axis = self.axis(axis)?;
        let (outer, width, inner) = split_at(self.shape(), axis);
        if k > width {
            return Err(Error::argument("topk k", format!("at most {width}, the length of axis {axis}"), k));
        }
        let mut shape = self.shape().to_vec();
        shape[axis] = k;
        let mut indices = vec![0u32; outer * k * inner];
        if !indices.is_empty() {
            let per_task = parallel::chunk_len(outer, 1, (width * inner) as f32 * 4.0);
            parallel::chunks_mut(&mut indices, per_task * k * inner, |task, indices| {
                let mut row = vec![0.0; width];
                let mut order: Vec<u32> = Vec::with_capacity(width);
                let x = self.data()[task * per_task * width * inner..].chunks_exact(width * inner);
                for (x, indices) in x.zip(indices.chunks_exact_mut(k * inner)) {
                    for i in 0..inner {
                        row.iter_mut().zip(x[i..].iter().step_by(inner)).for_each(|(row, &x)| *row = x);
                        order.clear();
                        order.extend(0..width as u32);
                        if k < width {
                            order.select_nth_unstable_by(k, |&a, &b| descending(&row, a, b));
                        }
                        order[..k].sort_unstable_by(|&a, &b| descending(&row, a, b));
                        indices[i..].iter_mut().step_by(inner).zip(&order).for_each(|(index, &j)| *index = j);
                    }
                }
            });
        }
        let indices = IdTensor::new(indices, &shape)?;
        Ok((self.gather(axis as isize, &indices)?, indices))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::gradient_check::{check, sample};

    /// The column of elements along `axis` for each place of the others.
    fn columns(x: &Tensor, axis: usize) -> Vec<Vec<f32>> {
        let (outer, width, inner) = split_at(x.shape(), axis);
        let column = |o: usize, i: usize| (0..width).map(|j| x.data()[(o * width + j) * inner + i]).collect();
        (0..outer).flat_map(|o| (0..inner).map(move |i| (o, i))).map(|(o, i)| column(o, i)).collect()
    }

    #[test]
    fn extremes_match_the_naive_loops() {
        for shape in [&[1][..], &[7], &[100], &[3, 5], &[2, 4, 3], &[2, 33, 5], &[3, 1, 2]] {
            // Rounded, so that some are equal.
            let mut x = sample(shape, 1);
            x.make_mut().iter_mut().for_each(|x| *x = (3.0 * *x).round());
            for (axis, &width) in shape.iter().enumerate() {
                let (max, largest) = x.max_axis(axis as isize).unwrap();
                let (min, smallest) = x.min_axis(axis as isize).unwrap();
                assert_eq!(max.shape()[axis], 1);
                for (i, column) in columns(&x, axis).iter().enumerate() {
                    let place = |beats: fn(f32, f32) -> bool| {
                        (0..column.len()).fold(0, |best, j| if beats(column[j], column[best]) { j } else { best })
                    };
                    let (high, low) = (place(|x, best| x > best), place(|x, best| x < best));
                    assert_eq!((largest.data()[i], max.data()[i]), (high as u32, column[high]));
                    assert_eq!((smallest.data()[i], min.data()[i]), (low as u32, column[low]));
                }
                for k in [0, 1, 2, width].into_iter().filter(|&k| k <= width) {
                    let (values, indices) = x.topk(k, axis as isize).unwrap();
                    let places: Vec<Vec<f32>> = columns(&values, axis);
                    assert_eq!(values.to_vec(), x.gather(axis as isize, &indices).unwrap().to_vec());
                    for (found, column) in places.iter().zip(columns(&x, axis)) {
                        let mut sorted = column.clone();
                        sorted.sort_by(|a, b| b.total_cmp(a));
                        assert_eq!(found[..], sorted[..k]);
                    }
                }
            }
        }
    }

    #[test]
    fn nan_is_chosen_and_ties_go_to_the_first() {
        let nan = f32::NAN;
        let x = Tensor::from_vec(vec![1.0, nan, 3.0, nan, 3.0, 3.0, 1.0, 1.0], &[2, 4]).unwrap();
        assert_eq!(x.argmax(1).unwrap().data(), [1, 0]);
        assert_eq!(x.argmin(1).unwrap().data(), [1, 2]);
        assert_eq!(x.argmax(0).unwrap().data(), [1, 0, 0, 0]);
        assert_eq!(x.topk(3, 1).unwrap().1.data(), [1, 3, 2, 0, 1, 2]);
        let mut long = vec![0.0; 100];
        (long[40], long[77]) = (nan, nan);
        let long = Tensor::from_vec(long, &[100]).unwrap();
        assert_eq!((long.argmax(0).unwrap().data(), long.argmin(0).unwrap().data()), (&[40][..], &[40][..]));
    }

    #[test]
    fn gradients_go_to_the_chosen_elements() {
        let x = [sample(&[2, 5, 3], 1).scale(4.0)];
        for axis in -3..3 {
            check("max_axis", &x, |x| Ok(x[0].max_axis(axis)?.0));
            check("min_axis", &x, |x| Ok(x[0].min_axis(axis)?.0));
            check("topk", &x, |x| Ok(x[0].topk(2, axis)?.0));
        }
        let x = Tensor::from_vec(vec![2.0, 2.0], &[2]).unwrap().watch();
        let gradients = x.max_axis(0).unwrap().0.backward().unwrap();
        assert_eq!(gradients.of(&x).unwrap().to_vec(), [1.0, 0.0]);
    }

    #[test]
    fn threads_do_not_change_an_index() {
        let x = sample(&[30, 50, 40], 1);
        let run = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| {
                (0..3).map(|axis| (x.argmax(axis).unwrap(), x.topk(3, axis).unwrap().1)).collect::<Vec<_>>()
            })
        };
        let alone = run(1);
        assert!((2..=4).all(|threads| run(threads) == alone));
    }

    #[test]
    fn empty_axes_and_large_counts_are_errors() {
        let x = Tensor::zeros(&[2, 0]);
        let error = x.max_axis(1).unwrap_err().to_string();
        assert_eq!(error, "max_axis: expected a non-empty axis, found shape [2, 0]");
        assert_eq!(x.argmax(0).unwrap().shape(), [1, 0]);
        assert_eq!(x.topk(0, 1).unwrap().0.shape(), [2, 0]);
        let error = x.topk(3, 0).unwrap_err().to_string();
        assert_eq!(error, "topk k: expected at most 2, the length of axis 0, found 3");
        assert!(x.argmin(2).is_err() && Tensor::scalar(1.0).argmax(0).is_err());
    }
}
