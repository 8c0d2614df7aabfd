//! Tensors, and automatic differentiation.
//!
//! | item | content |
//! |---|---|
//! | [`Tensor`] | `f32` of any rank, row-major, cheap to clone |
//! | [`Gradients`], [`no_grad`] | results and scope of differentiation |
//! | [`IdTensor`] | token ids and other indices |
//! | [`Weight`], [`WeightLayout`] | factors of products in the format in which they are stored |
//! | [`release_unused`] | returns the memory of dropped tensors to the system |
//!
//! Arrays of `ndarray` are converted with `From`, and back with [`Tensor::to_array`].

mod blocks;
mod convert;
mod ids;
mod memory;
mod storage;
pub(crate) mod tape;
mod weight;

use std::ops::Range;
use std::sync::Arc;

// Public because `Weight` holds them, but not part of the stable interface.
#[doc(hidden)]
pub use blocks::BlockTensor;
pub use ids::IdTensor;
pub(crate) use memory::has_room;
pub(crate) use storage::Buffer;
pub use storage::release_unused;
pub use tape::{Gradients, no_grad};
pub use weight::Weight;
pub use weight::WeightLayout;
#[doc(hidden)]
pub use weight::{Half, HalfTensor};

use crate::error::{Error, Result};
use crate::mapped::MappedFile;
use crate::random::Rng;

/// A row-major tensor of `f32` of any rank.
///
/// A clone shares the memory. A tensor never changes under a reader: writing to shared memory makes
/// a copy first.
///
/// # Operators
///
/// `+ - * /` and unary `-` take tensors, references to them and numbers (`&a + &b`, `2.0 * &a`),
/// and broadcast. They panic with both shapes if those do not go together, as in `ndarray`: a
/// formula would be hard to read with a `?` after each operation. The methods [`Tensor::add`],
/// [`Tensor::sub`], [`Tensor::mul`] and [`Tensor::div`] compute the same and return a [`Result`];
/// use them for shapes that come from outside.
///
/// ```
/// use loquat::Tensor;
///
/// let (x, y) = (Tensor::full(&[2, 3], 4.0), Tensor::full(&[3], 2.0));
/// let z = (&x - &y) * 2.0 / &y;
/// assert_eq!((z.shape(), z.to_vec()), (&[2, 3][..], vec![2.0; 6]));
/// assert!(x.add(&Tensor::zeros(&[2])).is_err());
/// ```
///
/// In a file that imports `std::ops::Add`, `x.add(&y)` means the operator if `x` is an owned
/// tensor: write `Tensor::add(&x, &y)` for the method there. The same is true of the others.
#[derive(Clone)]
pub struct Tensor {
    shape: Vec<usize>,
    storage: Arc<Buffer>,
    offset: usize,
    pub(crate) node: Option<Arc<tape::Node>>,
}

/// Returns the number of elements of `shape`, or an error if it overflows.
fn checked_len(shape: &[usize]) -> Result<usize> {
    shape
        .iter()
        .try_fold(1usize, |len, &d| len.checked_mul(d))
        .ok_or_else(|| Error::shape("tensor", "a number of elements that fits into a machine word", shape))
}

impl Tensor {
    /// Creates a tensor of `shape` that takes over `data`, in row-major order.
    ///
    /// # Errors
    /// [`Error::Shape`] if `data` does not have as many elements as `shape`.
    pub fn from_vec(data: Vec<f32>, shape: &[usize]) -> Result<Self> {
        if checked_len(shape)? != data.len() {
            return Err(Error::shape("tensor", format!("{shape:?}"), [data.len()]));
        }
        Ok(Self::from_buffer(Buffer::from_vec(data), shape))
    }

    /// Creates a tensor of zeros.
    ///
    /// # Panics
    /// If memory is exhausted.
    pub fn zeros(shape: &[usize]) -> Self {
        Self::from_buffer(Buffer::zeros(shape_len(shape)), shape)
    }

    /// Creates a tensor whose elements are all `value`.
    ///
    /// # Panics
    /// If memory is exhausted.
    pub fn full(shape: &[usize], value: f32) -> Self {
        Self::write(shape, |data| data.fill(value))
    }

    /// Creates a tensor of rank 0.
    pub fn scalar(value: f32) -> Self {
        Self::full(&[], value)
    }

    /// Creates a tensor of normal random numbers with mean 0 and standard deviation `std`.
    ///
    /// # Panics
    /// If memory is exhausted.
    pub fn normal(shape: &[usize], std: f32, rng: &mut Rng) -> Self {
        Self::write(shape, |data| data.iter_mut().for_each(|x| *x = std * rng.normal()))
    }

    /// Creates a tensor of uniform random numbers in `[low, high)`.
    ///
    /// # Panics
    /// If memory is exhausted.
    pub fn uniform(shape: &[usize], low: f32, high: f32, rng: &mut Rng) -> Self {
        Self::write(shape, |data| data.iter_mut().for_each(|x| *x = low + (high - low) * rng.uniform()))
    }

    /// Creates a tensor whose elements are all written by `f`.
    pub(crate) fn write(shape: &[usize], f: impl FnOnce(&mut [f32])) -> Self {
        let mut buffer = Buffer::scratch(shape_len(shape));
        f(buffer.as_mut_slice());
        Self::from_buffer(buffer, shape)
    }

    /// Same as [`Tensor::write`], for a shape that may be too large for the memory.
    ///
    /// # Errors
    /// [`Error::Shape`] if it is.
    pub(crate) fn try_write(shape: &[usize], f: impl FnOnce(&mut [f32])) -> Result<Self> {
        let buffer = checked_len(shape).ok().and_then(Buffer::try_scratch);
        let mut buffer = buffer.ok_or_else(|| Error::shape("tensor", "one that fits into memory", shape))?;
        f(buffer.as_mut_slice());
        Ok(Self::from_buffer(buffer, shape))
    }

    /// Creates a tensor from little-endian `f32` in a file, without copying them if they are
    /// aligned and this machine is little-endian.
    ///
    /// # Errors
    /// [`Error::Format`] if the range is not in the file; [`Error::Shape`] if its length does not
    /// match `shape`.
    pub(crate) fn in_file(file: &Arc<MappedFile>, bytes: Range<usize>, shape: &[usize]) -> Result<Self> {
        let all = weight::slice(file, &bytes)?;
        if checked_len(shape)?.checked_mul(4) != Some(all.len()) {
            return Err(Error::shape("tensor in a file", format!("{shape:?}"), [all.len() / 4]));
        }
        let buffer = match weight::FileNumbers::new::<f32>(file, bytes.clone()) {
            Some(numbers) => Buffer::in_file(numbers),
            None => Buffer::from_vec(all.as_chunks::<4>().0.iter().map(|&b| f32::from_le_bytes(b)).collect()),
        };
        Ok(Self::from_buffer(buffer, shape))
    }

    /// Returns the place of the elements in a mapped file, if they are in one.
    fn file_numbers(&self) -> Option<&weight::FileNumbers> {
        self.storage.file_numbers()
    }

    fn from_buffer(buffer: Buffer, shape: &[usize]) -> Self {
        debug_assert_eq!(buffer.as_slice().len(), shape_len(shape));
        Self { shape: shape.to_vec(), storage: Arc::new(buffer), offset: 0, node: None }
    }

    /// Returns the length of each axis, outermost first.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Returns the number of axes.
    pub fn rank(&self) -> usize {
        self.shape.len()
    }

    /// Returns the number of elements.
    pub fn len(&self) -> usize {
        shape_len(&self.shape)
    }

    /// Returns whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the length of axis `axis`; a negative `axis` counts from the last.
    ///
    /// # Errors
    /// [`Error::Argument`] if there is no such axis.
    pub fn dim(&self, axis: isize) -> Result<usize> {
        Ok(self.shape[self.axis(axis)?])
    }

    /// Returns the index of axis `axis`; a negative `axis` counts from the last.
    pub(crate) fn axis(&self, axis: isize) -> Result<usize> {
        let rank = self.rank() as isize;
        let index = if axis < 0 { axis + rank } else { axis };
        if (0..rank).contains(&index) {
            Ok(index as usize)
        } else {
            Err(Error::argument("axis", format!("an axis of shape {:?}", self.shape), axis))
        }
    }

    /// Returns the length of the last axis; 1 for a scalar.
    pub(crate) fn last_dim(&self) -> usize {
        self.shape.last().copied().unwrap_or(1)
    }

    /// Returns the elements in row-major order.
    pub fn data(&self) -> &[f32] {
        &self.storage.as_slice()[self.offset..self.offset + self.len()]
    }

    /// Returns the elements for a change in place; they are copied first if another tensor shares
    /// them.
    ///
    /// Values recorded on the tape are not affected: they share the old elements.
    pub fn make_mut(&mut self) -> &mut [f32] {
        let len = self.len();
        let whole = self.offset == 0 && self.storage.as_slice().len() == len;
        if !whole || !self.storage.is_writable() || Arc::get_mut(&mut self.storage).is_none() {
            let mut copy = Buffer::scratch(len);
            copy.as_mut_slice().copy_from_slice(self.data());
            self.storage = Arc::new(copy);
            self.offset = 0;
        }
        Arc::get_mut(&mut self.storage).expect("made unique above").as_mut_slice()
    }

    /// Returns a copy of the elements in row-major order.
    pub fn to_vec(&self) -> Vec<f32> {
        self.data().to_vec()
    }

    /// Returns the only element.
    ///
    /// # Errors
    /// [`Error::Shape`] if there is not exactly one.
    pub fn item(&self) -> Result<f32> {
        match self.data() {
            [x] => Ok(*x),
            _ => Err(Error::shape("item", "one element", &self.shape)),
        }
    }

    /// Returns the same elements detached from the tape: no gradient flows through the result.
    pub fn detach(&self) -> Self {
        Self { node: None, ..self.clone() }
    }

    /// Returns the same elements as a leaf of the tape, whose gradient [`Gradients::of`] returns.
    pub fn watch(&self) -> Self {
        Self { node: Some(tape::Node::leaf()), ..self.clone() }
    }

    /// Returns whether operations on this tensor are recorded.
    pub fn requires_grad(&self) -> bool {
        self.node.is_some()
    }

    /// Returns the same memory with another shape, detached from the tape; the caller has checked
    /// the length.
    pub(crate) fn view(&self, shape: &[usize]) -> Self {
        assert_eq!(shape_len(shape), self.len(), "a view keeps the number of elements");
        Self { shape: shape.to_vec(), node: None, ..self.clone() }
    }

    /// Returns rows `start .. start + count` of the first axis, sharing the memory and detached
    /// from the tape; the caller has checked the range.
    pub(crate) fn rows(&self, start: usize, count: usize) -> Self {
        let row = shape_len(&self.shape[1..]);
        assert!(start + count <= self.shape[0], "rows are inside the tensor");
        let mut shape = self.shape.clone();
        shape[0] = count;
        Self { shape, storage: self.storage.clone(), offset: self.offset + start * row, node: None }
    }
}

/// Returns the number of elements of a shape that does not come from outside the program.
fn shape_len(shape: &[usize]) -> usize {
    shape
        .iter()
        .try_fold(1usize, |len, &d| len.checked_mul(d))
        .expect("the number of elements fits into a machine word")
}

/// Formats the elements for `Debug`, on one line: the first 8 of more than 16.
fn first_of<T: std::fmt::Debug>(data: &[T]) -> String {
    let shown = if data.len() > 16 { &data[..8] } else { data };
    let mut list: Vec<String> = shown.iter().map(|x| format!("{x:?}")).collect();
    list.extend((shown.len() < data.len()).then(|| "…".to_string()));
    format!("[{}]", list.join(", "))
}

impl std::fmt::Debug for Tensor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tensor{:?} {}", self.shape, first_of(self.data()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_to_shared_memory_leaves_the_other_reader_alone() {
        let a = Tensor::from_vec(vec![1.0, 2.0], &[2]).unwrap();
        let mut b = a.clone();
        b.make_mut()[0] = 9.0;
        assert_eq!(a.to_vec(), [1.0, 2.0]);
        assert_eq!(b.to_vec(), [9.0, 2.0]);
    }

    #[test]
    fn a_write_to_rows_leaves_the_whole_alone() {
        let whole = Tensor::from_vec((0..6).map(|i| i as f32).collect(), &[3, 2]).unwrap();
        let mut row = whole.rows(1, 1);
        row.make_mut()[0] = 9.0;
        assert_eq!(row.to_vec(), [9.0, 3.0]);
        assert_eq!(whole.data()[2], 2.0);
    }

    #[test]
    fn wrong_lengths_are_errors() {
        assert!(Tensor::from_vec(vec![1.0; 3], &[2, 2]).is_err());
        assert!(Tensor::from_vec(vec![], &[usize::MAX, 2]).is_err());
        assert!(Tensor::zeros(&[2]).item().is_err());
        assert!(Tensor::zeros(&[2]).dim(1).is_err());
        assert!(Tensor::zeros(&[2]).backward().is_err());
    }

    #[test]
    fn tensors_cross_threads() {
        fn check<T: Send + Sync>() {}
        check::<Tensor>();
        check::<Gradients>();
        check::<IdTensor>();
    }
}
