//! [`Weight`]: a constant factor of products, in the number format in which it is stored.
//!
//! Decoding reads every weight once for each token, so it is limited by memory bandwidth: half the
//! bytes give twice the tokens per second. A weight in half precision is therefore never converted
//! as a whole: the kernels convert what they have just read, in registers, which is exact, and
//! compute in `f32`. Aligned numbers in a mapped file are not copied.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use half::{bf16, f16};

use super::{BlockTensor, Tensor, checked_len};
use crate::error::{Error, Result};
use crate::kernels::{parallel, vecmath};
use crate::mapped::MappedFile;

/// A factor of products, or a table of vectors, in one of the supported storage formats.
///
/// Only [`Weight::F32`] can be trained; the other formats get no gradient, but gradients flow
/// through their products to the other factor.
///
/// ```
/// use loquat::Tensor;
/// use loquat::tensor::Weight;
///
/// let weight = Weight::from(Tensor::full(&[2, 3], 0.1));
/// let half = weight.to_bf16();
/// assert_eq!((weight.bytes(), half.bytes()), (24, 12));
/// assert!((half.to_tensor().data()[0] - 0.1).abs() < 0.1 / 256.0);
/// # Ok::<(), loquat::Error>(())
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Weight {
    /// 32-bit floating point: the only format that can be trained.
    F32(Tensor),
    /// IEEE 754 half precision.
    F16(HalfTensor<f16>),
    /// bfloat16: the upper half of an `f32`.
    Bf16(HalfTensor<bf16>),
    /// Block-quantised, with a few bits per element.
    Blocks(BlockTensor),
}

impl Weight {
    /// Returns the length of each axis.
    pub fn shape(&self) -> &[usize] {
        match self {
            Self::F32(tensor) => tensor.shape(),
            Self::F16(half) => half.shape(),
            Self::Bf16(half) => half.shape(),
            Self::Blocks(blocks) => blocks.shape(),
        }
    }

    /// Returns the number of elements.
    pub fn len(&self) -> usize {
        super::shape_len(self.shape())
    }

    /// Returns whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns whether the elements have 16 bits.
    pub fn is_half(&self) -> bool {
        matches!(self, Self::F16(_) | Self::Bf16(_))
    }

    /// Returns whether the elements are f32 and can be trained.
    pub fn is_f32(&self) -> bool {
        matches!(self, Self::F32(_))
    }

    /// Returns the name of the number format: `f32`, `f16`, `bf16`, or ggml's name of the blocks
    /// (`Q4_K`).
    pub fn format_name(&self) -> &'static str {
        match self {
            Self::F32(_) => "f32",
            Self::F16(_) => "f16",
            Self::Bf16(_) => "bf16",
            Self::Blocks(blocks) => blocks.format().name(),
        }
    }

    /// Returns the size of the elements in memory or in the mapped file, in bytes.
    pub fn bytes(&self) -> usize {
        match self {
            Self::F32(_) => 4 * self.len(),
            Self::F16(_) | Self::Bf16(_) => 2 * self.len(),
            Self::Blocks(blocks) => blocks.bytes().len(),
        }
    }

    /// Converts the elements to f32: returns the tensor itself, or an exact copy.
    pub fn to_tensor(&self) -> Tensor {
        match self {
            Self::F32(tensor) => tensor.clone(),
            Self::F16(half) => half.to_f32(),
            Self::Bf16(half) => half.to_f32(),
            Self::Blocks(blocks) => blocks.dequantize(),
        }
    }

    /// Rounds the elements to IEEE half precision, to nearest even.
    pub fn to_f16(&self) -> Self {
        match self {
            Self::F16(_) => self.clone(),
            other => Self::F16(HalfTensor::round(&other.to_tensor())),
        }
    }

    /// Rounds the elements to bf16, to nearest even.
    pub fn to_bf16(&self) -> Self {
        match self {
            Self::Bf16(_) => self.clone(),
            other => Self::Bf16(HalfTensor::round(&other.to_tensor())),
        }
    }
}

impl Weight {
    /// Returns the place of the numbers in a mapped file, if they are in one.
    fn in_file(&self) -> Option<&FileNumbers> {
        let numbers = match self {
            Self::F32(tensor) => tensor.file_numbers(),
            Self::F16(half) => half.file_numbers(),
            Self::Bf16(half) => half.file_numbers(),
            Self::Blocks(_) => None,
        };
        numbers.filter(|numbers| numbers.file.is_mapped())
    }

    /// Returns where in a mapped file the numbers begin, as a fraction in [0, 1), if they are in
    /// one.
    pub(crate) fn place_in_file(&self) -> Option<f64> {
        self.in_file().map(|numbers| numbers.bytes.start as f64 / numbers.file.len() as f64)
    }

    /// Releases the memory of the numbers' part of a mapped file until it is read again.
    pub(crate) fn give_back(&self) {
        if let Some(numbers) = self.in_file() {
            numbers.file.give_back(numbers.bytes.clone());
        }
    }

    /// Returns the same numbers, detached from the tape.
    pub(crate) fn detach(&self) -> Self {
        match self {
            Self::F32(tensor) => Self::F32(tensor.detach()),
            other => other.clone(),
        }
    }
}

impl<'w> From<&'w Weight> for Cow<'w, Weight> {
    fn from(weight: &'w Weight) -> Self {
        Cow::Borrowed(weight)
    }
}

impl<'w> From<&'w Tensor> for Cow<'w, Weight> {
    fn from(tensor: &'w Tensor) -> Self {
        Cow::Owned(Weight::F32(tensor.clone()))
    }
}

impl From<Tensor> for Weight {
    fn from(tensor: Tensor) -> Self {
        Self::F32(tensor)
    }
}

/// A 16-bit number format.
#[doc(hidden)]
pub trait Half: bytemuck::Pod + Send + Sync + sealed::Half {}

impl Half for f16 {}
impl Half for bf16 {}

mod sealed {
    #[doc(hidden)]
    pub trait Half: Sized {
        fn to_f32(x: &[Self], y: &mut [f32]);
        fn round(x: &[f32], y: &mut [Self]);
    }
}

impl sealed::Half for f16 {
    fn to_f32(x: &[Self], y: &mut [f32]) {
        vecmath::f16_to_f32(x, y);
    }
    fn round(x: &[f32], y: &mut [Self]) {
        vecmath::f32_to_f16(x, y);
    }
}

impl sealed::Half for bf16 {
    fn to_f32(x: &[Self], y: &mut [f32]) {
        vecmath::bf16_to_f32(x, y);
    }
    fn round(x: &[f32], y: &mut [Self]) {
        vecmath::f32_to_bf16(x, y);
    }
}

/// A constant tensor of 16-bit numbers of any rank, row-major. A clone shares the memory, which may
/// be a mapped file.
///
/// ```
/// use half::f16;
/// use loquat::tensor::HalfTensor;
///
/// let half = HalfTensor::from_vec(vec![f16::ONE; 6], &[2, 3])?;
/// assert_eq!(half.to_f32().data(), [1.0; 6]);
/// # Ok::<(), loquat::Error>(())
/// ```
#[doc(hidden)]
#[derive(Clone)]
pub struct HalfTensor<T> {
    shape: Vec<usize>,
    numbers: Numbers<T>,
}

#[derive(Clone)]
enum Numbers<T> {
    Owned(Arc<[T]>),
    File(FileNumbers),
}

impl<T: Half> HalfTensor<T> {
    /// Creates a tensor of `shape` from numbers in row-major order.
    ///
    /// # Errors
    /// [`Error::Shape`] if `data` does not have as many elements as `shape`.
    pub fn from_vec(data: Vec<T>, shape: &[usize]) -> Result<Self> {
        if checked_len(shape)? != data.len() {
            return Err(Error::shape("tensor", format!("{shape:?}"), [data.len()]));
        }
        Ok(Self { shape: shape.to_vec(), numbers: Numbers::Owned(data.into()) })
    }

    /// Creates a tensor from little-endian numbers in a file, without copying them if they are
    /// aligned and this machine is little-endian.
    ///
    /// # Errors
    /// [`Error::Format`] if the range is not in the file; [`Error::Shape`] if its length does not
    /// match `shape`.
    pub fn in_file(file: &Arc<MappedFile>, bytes: Range<usize>, shape: &[usize]) -> Result<Self> {
        let len = checked_len(shape)?;
        let all = slice(file, &bytes)?;
        if len.checked_mul(2) != Some(all.len()) {
            return Err(Error::shape("tensor in a file", format!("{shape:?}"), [all.len() / 2]));
        }
        let numbers = match FileNumbers::new::<T>(file, bytes.clone()) {
            Some(numbers) => Numbers::File(numbers),
            None => {
                let bits = all.as_chunks::<2>().0.iter().map(|&b| u16::from_le_bytes(b));
                Numbers::Owned(bits.map(bytemuck::cast).collect())
            }
        };
        Ok(Self { shape: shape.to_vec(), numbers })
    }

    /// Returns the length of each axis, outermost first.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Returns the elements in row-major order.
    pub fn data(&self) -> &[T] {
        match &self.numbers {
            Numbers::Owned(data) => data,
            Numbers::File(numbers) => numbers.get(),
        }
    }

    fn file_numbers(&self) -> Option<&FileNumbers> {
        match &self.numbers {
            Numbers::File(numbers) => Some(numbers),
            Numbers::Owned(_) => None,
        }
    }

    /// Returns whether the elements are in a mapped file.
    pub fn is_mapped(&self) -> bool {
        self.file_numbers().is_some_and(|numbers| numbers.file.is_mapped())
    }

    /// Converts the elements to f32, which is exact.
    pub fn to_f32(&self) -> Tensor {
        Tensor::write(&self.shape, |y| T::to_f32(self.data(), y))
    }

    /// Rounds the elements of `x` to nearest even.
    pub fn round(x: &Tensor) -> Self {
        let mut data = vec![T::zeroed(); x.len()];
        T::round(x.data(), &mut data);
        Self { shape: x.shape().to_vec(), numbers: Numbers::Owned(data.into()) }
    }

    /// Gathers rows of a matrix by id, in f32; the caller has checked the ids.
    pub(crate) fn gather(&self, row: usize, ids: &[u32], out: &mut [f32]) {
        let data = self.data();
        let chunk = parallel::chunk_len(ids.len(), 1, row as f32);
        parallel::chunks_mut(out, chunk * row.max(1), |i, out| {
            for (out, &id) in out.chunks_exact_mut(row).zip(&ids[i * chunk..]) {
                T::to_f32(&data[id as usize * row..][..row], out);
            }
        });
    }
}

impl<T> std::fmt::Debug for HalfTensor<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "HalfTensor<{}>{:?}", std::any::type_name::<T>().rsplit(':').next().unwrap_or_default(), self.shape)
    }
}

/// Aligned numbers of a file, in this machine's byte order.
#[derive(Clone)]
pub(crate) struct FileNumbers {
    file: Arc<MappedFile>,
    bytes: Range<usize>,
}

impl FileNumbers {
    /// Returns the numbers if they can be read in place; the range must be in the file.
    pub(crate) fn new<T: bytemuck::Pod>(file: &Arc<MappedFile>, bytes: Range<usize>) -> Option<Self> {
        let readable =
            cfg!(target_endian = "little") && bytemuck::try_cast_slice::<u8, T>(&file[bytes.clone()]).is_ok();
        readable.then(|| Self { file: file.clone(), bytes })
    }

    pub(crate) fn get<T: bytemuck::Pod>(&self) -> &[T] {
        bytemuck::cast_slice(&self.file[self.bytes.clone()])
    }
}

/// Returns part of a file, or an error if the range is not in it.
pub(crate) fn slice<'f>(file: &'f MappedFile, bytes: &Range<usize>) -> Result<&'f [u8]> {
    file.get(bytes.clone()).ok_or_else(|| {
        let reason = format!("expected a tensor at bytes {bytes:?}, found a file of {} bytes", file.len());
        Error::format(file.path(), reason)
    })
}

/// How a layer's weight matrix is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WeightLayout {
    /// `[out_features, in_features]`, as in `torch.nn.Linear`.
    OutIn,
    /// `[in_features, out_features]`, as in GPT-2's checkpoints.
    InOut,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mapped::Load;

    #[test]
    fn halves_convert_exactly_and_round_to_nearest() {
        let x = Tensor::from_vec(vec![1.0, -0.5, 65504.0, 1.0 + f32::EPSILON], &[2, 2]).unwrap();
        let weight = Weight::from(x);
        for half in [weight.to_f16(), weight.to_bf16()] {
            assert!(half.is_half() && half.bytes() == 8 && half.shape() == [2, 2]);
            assert_eq!(half.to_tensor().data()[..2], [1.0, -0.5]);
            assert_eq!(half.to_tensor().data()[3], 1.0);
            assert_eq!(half.to_f16().to_bf16().shape(), [2, 2]);
        }
        assert_eq!(weight.to_f16().to_tensor().data()[2], 65504.0);
    }

    #[test]
    fn numbers_stay_in_the_file_if_they_are_aligned() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("numbers");
        let numbers: Vec<f16> = (0..10).map(|i| f16::from_f32(i as f32)).collect();
        let mut bytes = vec![0u8; 8];
        numbers.iter().for_each(|x| bytes.extend(x.to_le_bytes()));
        bytes.push(0);
        numbers.iter().for_each(|x| bytes.extend(x.to_le_bytes()));
        std::fs::write(&path, &bytes).unwrap();
        for load in [Load::Mmap, Load::Read] {
            let file = Arc::new(MappedFile::open(&path, load).unwrap());
            for (start, aligned) in [(8, true), (29, false)] {
                let half = HalfTensor::<f16>::in_file(&file, start..start + 20, &[2, 5]).unwrap();
                assert_eq!(half.data(), numbers);
                assert_eq!(half.is_mapped(), aligned && load == Load::Mmap);
                let mut rows = vec![0.0; 10];
                half.gather(5, &[1, 1], &mut rows);
                assert_eq!(rows[5..], [5.0, 6.0, 7.0, 8.0, 9.0]);
            }
            assert!(HalfTensor::<f16>::in_file(&file, 40..60, &[2, 5]).is_err());
            assert!(HalfTensor::<f16>::in_file(&file, 8..28, &[2, 4]).is_err());
            assert!(HalfTensor::<f16>::in_file(&file, 8..28, &[usize::MAX, 2]).is_err());
        }
    }

    #[test]
    fn a_tensor_in_a_file_is_copied_before_it_is_written_to() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("numbers");
        std::fs::write(&path, bytemuck::cast_slice(&[1.0f32, 2.0])).unwrap();
        let file = Arc::new(MappedFile::open(&path, Load::Mmap).unwrap());
        let a = Tensor::in_file(&file, 0..8, &[2]).unwrap();
        let mut b = a.clone();
        b.make_mut()[0] = 9.0;
        let mut c = a.clone();
        drop(a);
        c.make_mut()[1] = 7.0;
        assert_eq!((b.to_vec(), c.to_vec()), (vec![9.0, 2.0], vec![1.0, 7.0]));
    }
}
