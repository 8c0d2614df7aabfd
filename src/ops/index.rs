//! Elements by index along an axis: `index_select` takes slices, `gather` single elements,
//! `scatter_add` is its adjoint; one-hot rows.
//!
//! Sums into one place are added in the order of the indices, whatever the number of threads.

use crate::error::{Error, Result};
use crate::kernels::{parallel, vecmath};
use crate::ops::axis::{by_block, split_at};
use crate::tensor::{IdTensor, Tensor, tape};

/// The three lengths that indexing along an axis sees: `[outer, width, inner]` for the tensor,
/// `[outer, count, inner]` for the indices or what they select.
#[derive(Clone, Copy)]
struct Extent {
    outer: usize,
    width: usize,
    count: usize,
    inner: usize,
}

impl Extent {
    /// How many of `outer` a task takes, of `len` elements each.
    fn outer_per_task(&self, len: usize) -> usize {
        parallel::chunk_len(self.outer, 1, len as f32)
    }

    /// y\[o, j, i\] = x\[o, ids\[o, j, i\], i\]
    fn gather(self, x: &[f32], ids: &[u32], y: &mut [f32]) {
        // Rows that read one block of `x` at one step from index to index.
        let row = if self.inner == 1 { self.count } else { self.inner };
        if y.is_empty() {
            return;
        }
        let chunk = parallel::chunk_len(y.len(), 16, 16.0);
        parallel::chunks_mut(y, chunk, |task, y| {
            let mut ids = &ids[task * chunk..];
            for (block, column, y) in by_block(task * chunk, row, y) {
                let (these, later) = ids.split_at(y.len());
                if self.inner == 1 {
                    let x = &x[block * self.width..][..self.width];
                    y.iter_mut().zip(these).for_each(|(y, &id)| *y = x[id as usize]);
                } else {
                    let x = &x[block / self.count * self.width * self.inner..][..self.width * self.inner];
                    for (i, (y, &id)) in (column..).zip(y.iter_mut().zip(these)) {
                        *y = x[id as usize * self.inner + i];
                    }
                }
                ids = later;
            }
        });
    }

    /// y\[o, ids\[o, j, i\], i\] += x\[o, j, i\], in the order of j
    fn scatter_add(self, x: &[f32], ids: &[u32], y: &mut [f32]) {
        let (from, to) = (self.count * self.inner, self.width * self.inner);
        if x.is_empty() {
            return;
        }
        let per_task = self.outer_per_task(from);
        parallel::chunks_mut(y, per_task * to, |task, y| {
            for (o, y) in y.chunks_exact_mut(to).enumerate() {
                let o = task * per_task + o;
                let (x, ids) = (&x[o * from..][..from], &ids[o * from..][..from]);
                for (x, ids) in x.chunks_exact(self.inner).zip(ids.chunks_exact(self.inner)) {
                    for (i, (x, &id)) in x.iter().zip(ids).enumerate() {
                        y[id as usize * self.inner + i] += x;
                    }
                }
            }
        });
    }

    /// y\[o, j\] = x\[o, ids\[j\]\], slices of `inner` elements
    fn select(self, x: &[f32], ids: &[u32], y: &mut [f32]) {
        let (from, to) = (self.width * self.inner, self.count * self.inner);
        if y.is_empty() {
            return;
        }
        if self.outer == 1 {
            return vecmath::gather(x, self.inner, ids, y);
        }
        let per_task = self.outer_per_task(to);
        parallel::chunks_mut(y, per_task * to, |task, y| {
            for (o, y) in y.chunks_exact_mut(to).enumerate() {
                let x = &x[(task * per_task + o) * from..][..from];
                if self.inner == 1 {
                    y.iter_mut().zip(ids).for_each(|(y, &id)| *y = x[id as usize]);
                    continue;
                }
                for (y, &id) in y.chunks_exact_mut(self.inner).zip(ids) {
                    y.copy_from_slice(&x[id as usize * self.inner..][..self.inner]);
                }
            }
        });
    }

    /// y\[o, ids\[j\]\] += x\[o, j\], slices of `inner` elements, in the order of j
    fn select_backward(self, x: &[f32], ids: &[u32], y: &mut [f32]) {
        let (from, to) = (self.count * self.inner, self.width * self.inner);
        if x.is_empty() {
            return;
        }
        if self.outer == 1 {
            return vecmath::scatter_add(x, self.inner, ids, y);
        }
        let per_task = self.outer_per_task(from);
        parallel::chunks_mut(y, per_task * to, |task, y| {
            for (o, y) in y.chunks_exact_mut(to).enumerate() {
                let x = &x[(task * per_task + o) * from..][..from];
                for (x, &id) in x.chunks_exact(self.inner).zip(ids) {
                    let y = &mut y[id as usize * self.inner..][..self.inner];
                    y.iter_mut().zip(x).for_each(|(y, x)| *y += x);
                }
            }
        });
    }
}

/// The extent of indices that have the tensor's shape but for the axis, all of them in range.
fn extent_of(op: &str, x: &Tensor, axis: usize, ids: &IdTensor) -> Result<Extent> {
    let (outer, width, inner) = split_at(x.shape(), axis);
    let fits = ids.shape().len() == x.rank() && (0..x.rank()).all(|i| i == axis || ids.shape()[i] == x.shape()[i]);
    if !fits {
        let expected: Vec<String> =
            x.shape().iter().enumerate().map(|(i, d)| if i == axis { "_".into() } else { d.to_string() }).collect();
        return Err(Error::shape(format!("{op} indices"), format!("[{}]", expected.join(", ")), ids.shape()));
    }
    ids.check_below(width, &format!("{op} index"))?;
    Ok(Extent { outer, width, count: ids.shape()[axis], inner })
}

impl Tensor {
    /// Returns the slices at `ids` along `axis`, in that order; an index may occur several times.
    /// Negative axes count from the last. A slice's gradient is the sum over its uses.
    ///
    /// # Shapes
    /// `ids: [n]`; the result has length `n` along `axis`.
    ///
    /// # Errors
    /// [`Error::Argument`] if there is no such axis; [`Error::Shape`] if `ids` does not have one
    /// axis; [`Error::Id`] if an index is out of range.
    ///
    /// # Examples
    /// ```
    /// use loquat::{IdTensor, Tensor};
    ///
    /// let x = Tensor::from_vec(vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0], &[2, 3])?;
    /// let y = x.index_select(1, &IdTensor::new([2, 0], &[2])?)?;
    /// assert_eq!(y.to_vec(), [3.0, 1.0, 6.0, 4.0]);
    /// # Ok::<(), loquat::Error>(())
    /// ```
    pub fn index_select(&self, axis: isize, ids: &IdTensor) -> Result<Tensor> {
        let axis = self.axis(axis)?;
        let [count] = ids.shape() else { return Err(Error::shape("index_select indices", "[n]", ids.shape())) };
        let (outer, width, inner) = split_at(self.shape(), axis);
        ids.check_below(width, "index_select index")?;
        let extent = Extent { outer, width, count: *count, inner };
        let mut shape = self.shape().to_vec();
        shape[axis] = *count;
        let y = Tensor::try_write(&shape, |y| extent.select(self.data(), ids.data(), y))?;
        let (from, ids) = (self.shape().to_vec(), ids.clone());
        Ok(tape::record("index_select", &[self], y, || {
            Box::new(move |dy, _| {
                let mut dx = Tensor::zeros(&from);
                extent.select_backward(dy.data(), ids.data(), dx.make_mut());
                Ok(vec![Some(dx)])
            })
        }))
    }

    /// Returns the elements at `ids` along `axis`. For axis 1 of three:
    /// `y[i, j, k] = x[i, ids[i, j, k], k]`. Negative axes count from the last. The gradient of an
    /// element is the sum over its uses.
    ///
    /// # Shapes
    /// `ids` has the tensor's shape but for the length of `axis`, and is the shape of the result.
    ///
    /// # Errors
    /// [`Error::Argument`] if there is no such axis; [`Error::Shape`] if the shapes do not fit;
    /// [`Error::Id`] if an index is out of range.
    ///
    /// # Examples
    /// The log-probability of each row's label:
    /// ```
    /// use loquat::{IdTensor, Tensor};
    ///
    /// let log_probs = Tensor::from_vec(vec![-0.1, -2.4, -1.6, -0.2], &[2, 2])?;
    /// let labels = IdTensor::new([0, 1], &[2, 1])?;
    /// assert_eq!(log_probs.gather(1, &labels)?.to_vec(), [-0.1, -0.2]);
    /// # Ok::<(), loquat::Error>(())
    /// ```
    pub fn gather(&self, axis: isize, ids: &IdTensor) -> Result<Tensor> {
        let extent = extent_of("gather", self, self.axis(axis)?, ids)?;
        let y = Tensor::try_write(ids.shape(), |y| extent.gather(self.data(), ids.data(), y))?;
        let (from, ids) = (self.shape().to_vec(), ids.clone());
        Ok(tape::record("gather", &[self], y, || {
            Box::new(move |dy, _| {
                let mut dx = Tensor::zeros(&from);
                extent.scatter_add(dy.data(), ids.data(), dx.make_mut());
                Ok(vec![Some(dx)])
            })
        }))
    }

    /// Returns a copy to which `source` is added at `ids` along `axis`, in order. For axis 1 of
    /// three: `y[i, ids[i, j, k], k] += source[i, j, k]`. Negative axes count from the last.
    ///
    /// # Shapes
    /// `ids` and `source` have the tensor's shape but for the length of `axis`.
    ///
    /// # Errors
    /// [`Error::Argument`] if there is no such axis; [`Error::Shape`] if the shapes do not fit;
    /// [`Error::Id`] if an index is out of range.
    ///
    /// # Examples
    /// ```
    /// use loquat::{IdTensor, Tensor};
    ///
    /// let counts = Tensor::zeros(&[3]);
    /// let ids = IdTensor::new([2, 0, 2], &[3])?;
    /// let ones = Tensor::full(&[3], 1.0);
    /// assert_eq!(counts.scatter_add(0, &ids, &ones)?.to_vec(), [1.0, 0.0, 2.0]);
    /// # Ok::<(), loquat::Error>(())
    /// ```
    pub fn scatter_add(&self, axis: isize, ids: &IdTensor, source: &Tensor) -> Result<Tensor> {
        let extent = extent_of("scatter_add", self, self.axis(axis)?, ids)?;
        if source.shape() != ids.shape() {
            return Err(Error::shape("scatter_add source", format!("{:?}", ids.shape()), source.shape()));
        }
        let mut y = self.detach();
        extent.scatter_add(source.data(), ids.data(), y.make_mut());
        let ids = ids.clone();
        Ok(tape::record("scatter_add", &[self, source], y, || {
            Box::new(move |dy, needs| {
                let gathered = |dy: &Tensor| Tensor::write(ids.shape(), |d| extent.gather(dy.data(), ids.data(), d));
                let dsource = needs[1].then(|| gathered(&dy));
                Ok(vec![Some(dy), dsource])
            })
        }))
    }
}

/// Returns 1 at each id's place of a new last axis, 0 elsewhere. A constant: ids have no gradient.
///
/// # Shapes
/// `ids: […]` → `[…, classes]`
///
/// # Errors
/// [`Error::Id`] if an id is not below `classes`; [`Error::Shape`] if the memory has no room for
/// the result.
///
/// # Examples
/// ```
/// use loquat::{IdTensor, ops::one_hot};
///
/// let labels = IdTensor::new([2, 0], &[2])?;
/// assert_eq!(one_hot(&labels, 3)?.to_vec(), [0.0, 0.0, 1.0, 1.0, 0.0, 0.0]);
/// # Ok::<(), loquat::Error>(())
/// ```
pub fn one_hot(ids: &IdTensor, classes: usize) -> Result<Tensor> {
    ids.check_below(classes, "one_hot class")?;
    let mut shape = ids.shape().to_vec();
    shape.push(classes);
    Tensor::try_write(&shape, |y| {
        y.fill(0.0);
        if classes > 0 {
            y.chunks_exact_mut(classes).zip(ids.data()).for_each(|(row, &id)| row[id as usize] = 1.0);
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::gradient_check::{check, sample};
    use crate::random::Rng;

    const SHAPES: [&[usize]; 6] = [&[5], &[3, 4], &[2, 3, 4], &[1, 7, 1], &[2, 0, 3], &[3, 4, 0]];

    fn ids(shape: &[usize], below: usize, seed: u64) -> IdTensor {
        let mut rng = Rng::seed(seed);
        let len: usize = shape.iter().product();
        IdTensor::new((0..len).map(|_| (rng.uniform() * below as f32) as u32).collect::<Vec<_>>(), shape).unwrap()
    }

    /// The shape with `n` along `axis`; none where there is nothing to select.
    fn along(shape: &[usize], axis: usize, n: usize) -> Vec<usize> {
        let mut shape = shape.to_vec();
        shape[axis] = if shape[axis] == 0 { 0 } else { n };
        shape
    }

    /// Calls `f` with the place of each element: before, along and after the axis.
    fn for_each(shape: &[usize], axis: usize, mut f: impl FnMut(usize, usize, usize)) {
        let (outer, width, inner) = split_at(shape, axis);
        (0..outer).for_each(|o| (0..width).for_each(|j| (0..inner).for_each(|i| f(o, j, i))));
    }

    #[test]
    fn values_match_the_naive_loops() {
        for shape in SHAPES {
            let x = sample(shape, 1);
            for axis in 0..shape.len() {
                let (_, width, inner) = split_at(shape, axis);
                let part = along(shape, axis, 6);
                let (places, source) = (ids(&part, width, 2), sample(&part, 3));
                let (mut gathered, mut scattered, mut selected) = (vec![], x.to_vec(), vec![]);
                let chosen = ids(&[part[axis]], width, 4);
                let mut at = 0;
                for_each(&part, axis, |o, j, i| {
                    let from = (o * width + places.data()[at] as usize) * inner + i;
                    gathered.push(x.data()[from]);
                    scattered[from] += source.data()[at];
                    selected.push(x.data()[(o * width + chosen.data()[j] as usize) * inner + i]);
                    at += 1;
                });
                let y = x.gather(axis as isize, &places).unwrap();
                assert_eq!((y.shape(), y.to_vec()), (&part[..], gathered));
                let y = x.index_select(axis as isize, &chosen).unwrap();
                assert_eq!((y.shape(), y.to_vec()), (&part[..], selected));
                assert_eq!(x.scatter_add(axis as isize, &places, &source).unwrap().to_vec(), scattered);
            }
        }
    }

    #[test]
    fn gradients_match_central_differences() {
        for shape in SHAPES {
            for axis in 0..shape.len() {
                let part = along(shape, axis, 6);
                let (places, chosen) = (ids(&part, shape[axis], 2), ids(&[part[axis]], shape[axis], 4));
                let (inputs, axis) = ([sample(shape, 1), sample(&part, 2)], axis as isize);
                check("gather", &inputs[..1], |x| x[0].gather(axis, &places));
                check("index_select", &inputs[..1], |x| x[0].index_select(axis, &chosen));
                check("scatter_add", &inputs, |x| x[0].scatter_add(axis, &places, &x[1]));
            }
        }
    }

    #[test]
    fn threads_do_not_change_a_bit() {
        for (shape, axis) in [(&[50, 40, 30][..], 1), (&[3000, 40], 0), (&[3000, 40], 1)] {
            let part = along(shape, axis, 100);
            let (places, chosen) = (ids(&part, shape[axis], 2), ids(&[100], shape[axis], 4));
            let run = |threads| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                pool.install(|| {
                    let x = sample(shape, 1).watch();
                    let y =
                        x.gather(axis as isize, &places).unwrap().add(&x.index_select(axis as isize, &chosen).unwrap());
                    let y = y.unwrap();
                    let dx = y.backward_from(sample(&part, 2)).unwrap();
                    (y.to_vec(), dx.of(&x).unwrap().to_vec())
                })
            };
            let alone = run(1);
            assert!((2..=4).all(|threads| run(threads) == alone));
        }
    }

    #[test]
    fn indices_and_shapes_that_do_not_fit_are_errors() {
        let x = Tensor::zeros(&[2, 3]);
        let message = |y: Result<Tensor>| y.unwrap_err().to_string();
        let one = IdTensor::new([3], &[1]).unwrap();
        assert_eq!(message(x.index_select(1, &one)), "index_select index at index 0: expected an id below 3, found 3");
        assert_eq!(message(x.gather(1, &one)), "gather indices: expected shape [2, _], found [1]");
        let pair = IdTensor::new([0, 7], &[2, 1]).unwrap();
        assert_eq!(message(x.gather(1, &pair)), "gather index at index 1: expected an id below 3, found 7");
        assert_eq!(message(x.index_select(0, &pair)), "index_select indices: expected shape [n], found [2, 1]");
        let ids = IdTensor::new([0, 1], &[2, 1]).unwrap();
        let error = message(x.scatter_add(1, &ids, &Tensor::zeros(&[2, 2])));
        assert_eq!(error, "scatter_add source: expected shape [2, 1], found [2, 2]");
        assert_eq!(message(x.gather(2, &ids)), "axis: expected an axis of shape [2, 3], found 2");
        assert!(Tensor::scalar(1.0).index_select(0, &one).is_err());
        assert_eq!(message(one_hot(&one, 3)), "one_hot class at index 0: expected an id below 3, found 3");
        assert_eq!(one_hot(&IdTensor::new([], &[2, 0]).unwrap(), 0).unwrap().shape(), [2, 0, 0]);
    }
}
