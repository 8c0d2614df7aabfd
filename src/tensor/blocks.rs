//! [`BlockTensor`]: block-quantised constants of a few bits per element.

use std::ops::Range;
use std::sync::Arc;

use super::{Tensor, checked_len, weight};
use crate::error::{Error, Result};
use crate::kernels::blocks::{self, BlockFormat};
use crate::kernels::parallel;
use crate::mapped::MappedFile;

/// A constant tensor of any rank whose elements are quantised in blocks along the last axis,
/// row-major. A clone shares the memory, which may be a mapped file.
///
/// ```
/// use loquat::kernels::blocks::BlockFormat;
/// use loquat::tensor::BlockTensor;
///
/// let zeros = BlockTensor::from_vec(BlockFormat::Q8_0, vec![0; 2 * 34], &[2, 32])?;
/// assert_eq!(zeros.dequantize().data(), [0.0; 64]);
/// # Ok::<(), loquat::Error>(())
/// ```
#[doc(hidden)]
#[derive(Clone)]
pub struct BlockTensor {
    format: BlockFormat,
    shape: Vec<usize>,
    bytes: Bytes,
}

#[derive(Clone)]
enum Bytes {
    Owned(Arc<[u8]>),
    File(Arc<MappedFile>, Range<usize>),
}

impl BlockTensor {
    /// Creates a tensor of `shape` from its blocks, row by row.
    ///
    /// # Errors
    /// [`Error::Shape`] if the last axis is not a whole number of blocks, or the number of blocks
    /// does not match `shape`.
    pub fn from_vec(format: BlockFormat, bytes: Vec<u8>, shape: &[usize]) -> Result<Self> {
        Self::new(format, bytes.len(), Bytes::Owned(bytes.into()), shape)
    }

    /// Creates a tensor from blocks in a file, without copying them.
    ///
    /// # Errors
    /// [`Error::Format`] if the range is not in the file; also the errors of
    /// [`BlockTensor::from_vec`].
    pub fn in_file(format: BlockFormat, file: &Arc<MappedFile>, bytes: Range<usize>, shape: &[usize]) -> Result<Self> {
        let len = weight::slice(file, &bytes)?.len();
        Self::new(format, len, Bytes::File(file.clone(), bytes), shape)
    }

    fn new(format: BlockFormat, len: usize, bytes: Bytes, shape: &[usize]) -> Result<Self> {
        let row = shape.last().copied().unwrap_or(1);
        let fits = row.is_multiple_of(format.block_len()) && {
            let blocks = checked_len(shape)? / format.block_len();
            blocks.checked_mul(format.block_bytes()) == Some(len)
        };
        if !fits {
            let expected = format!("rows of whole blocks of {} numbers, {shape:?} in all", format.block_len());
            return Err(Error::shape(format!("tensor in {format}"), expected, [len]));
        }
        Ok(Self { format, shape: shape.to_vec(), bytes })
    }

    /// Returns the format of the blocks.
    pub fn format(&self) -> BlockFormat {
        self.format
    }

    /// Returns the length of each axis, outermost first.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Returns the blocks, row by row.
    pub fn bytes(&self) -> &[u8] {
        match &self.bytes {
            Bytes::Owned(bytes) => bytes,
            Bytes::File(file, bytes) => &file[bytes.clone()],
        }
    }

    /// Returns whether the blocks are in a mapped file.
    pub fn is_mapped(&self) -> bool {
        matches!(&self.bytes, Bytes::File(file, _) if file.is_mapped())
    }

    /// Dequantises the tensor to f32.
    pub fn dequantize(&self) -> Tensor {
        Tensor::write(&self.shape, |y| blocks::dequantize(self.format, self.bytes(), y))
    }

    /// Dequantises some rows of a matrix.
    pub(crate) fn dequantize_rows(&self, rows: Range<usize>, y: &mut [f32]) {
        let row = self.format.bytes_for(self.shape[1]);
        blocks::dequantize(self.format, &self.bytes()[rows.start * row..rows.end * row], y);
    }

    /// Gathers rows of a matrix by id, dequantised; the caller has checked the ids.
    pub(crate) fn gather(&self, row: usize, ids: &[u32], out: &mut [f32]) {
        let chunk = parallel::chunk_len(ids.len(), 1, row as f32);
        parallel::chunks_mut(out, chunk * row.max(1), |i, out| {
            for (out, &id) in out.chunks_exact_mut(row.max(1)).zip(&ids[i * chunk..]) {
                self.dequantize_rows(id as usize..id as usize + 1, out);
            }
        });
    }
}

impl std::fmt::Debug for BlockTensor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "BlockTensor<{}>{:?}", self.format, self.shape)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_must_be_as_many_as_the_shape_says() {
        let new = |bytes: usize, shape: &[usize]| BlockTensor::from_vec(BlockFormat::Q8_0, vec![0; bytes], shape);
        assert!(new(136, &[2, 64]).is_ok() && new(0, &[0, 32]).is_ok());
        for (bytes, shape) in
            [(136, &[2, 65][..]), (135, &[2, 64]), (136, &[128, 1]), (136, &[]), (34, &[usize::MAX, 32])]
        {
            assert!(new(bytes, shape).is_err(), "{bytes} {shape:?}");
        }
    }
}
