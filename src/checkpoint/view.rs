//! One tensor in a file.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use half::{bf16, f16};

use crate::error::{Error, Result};
use crate::kernels::blocks::{self, BlockFormat};
use crate::kernels::{parallel, vecmath};
use crate::mapped::MappedFile;
use crate::tensor::{BlockTensor, Half, HalfTensor, Tensor, Weight};

/// Number format in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DType {
    /// IEEE 754 single precision, 32 bits.
    F32,
    /// IEEE 754 half precision, 16 bits.
    F16,
    /// bfloat16: the upper half of an `F32`.
    Bf16,
    /// Quantised blocks.
    Blocks(BlockFormat),
    /// Any other format, which parameters cannot have, by its name in the file.
    Other(String),
}

impl std::fmt::Display for DType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            DType::F32 => "F32",
            DType::F16 => "F16",
            DType::Bf16 => "BF16",
            DType::Blocks(format) => format.name(),
            DType::Other(name) => name,
        })
    }
}

/// Format of a model's weights in memory. Norms and biases are always `f32`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum WeightFormat {
    /// Keep the file's format. Aligned weights stay in the mapped file (or in its one copy with
    /// [`Load::Read`](crate::Load::Read)). Half-precision weights cannot be trained.
    Keep,
    /// Convert to f32.
    #[default]
    F32,
    /// Convert to IEEE half precision, rounded to nearest.
    F16,
    /// Convert to bf16, rounded to nearest.
    Bf16,
}

/// Layout of a tensor in the file, relative to that of `transformers`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Arrangement {
    /// The same layout.
    #[default]
    Same,
    /// Rows `[outer, a, b, inner]`, which are `[outer, b, a, inner]` in the file.
    Rows {
        /// Length of the second axis.
        a: usize,
        /// Length of the third axis.
        b: usize,
        /// Length of the last axis.
        inner: usize,
    },
    /// The two axes are exchanged.
    Transposed,
}

impl Arrangement {
    /// Layout with the rows of each head in the order `0, d/2, 1, d/2 + 1, …`: its two halves
    /// interleaved.
    ///
    /// # Errors
    /// The reason, if the rows are not pairs for `heads` heads.
    pub(crate) fn pairs(rows: usize, heads: usize) -> std::result::Result<Self, String> {
        match rows.checked_div(heads).filter(|width| width * heads == rows && width.is_multiple_of(2)) {
            Some(width) => Ok(Self::Rows { a: 2, b: width / 2, inner: 1 }),
            None => Err(format!("expected pairs of rows for {heads} heads, found {rows} rows")),
        }
    }

    /// Layout with all queries, then all keys, then all values, instead of the three of each head.
    ///
    /// # Errors
    /// The reason, if the rows are not three per head.
    pub(crate) fn side_by_side(rows: usize, heads: usize) -> std::result::Result<Self, String> {
        match rows.checked_div(heads).filter(|width| width * heads == rows && width.is_multiple_of(3)) {
            Some(width) => Ok(Self::Rows { a: heads, b: 3, inner: width / 3 }),
            None => Err(format!("expected queries, keys and values of {heads} heads, found {rows} rows")),
        }
    }

    /// Returns the index in the file of row `row`.
    pub(crate) fn row_in_file(self, row: usize) -> usize {
        let Self::Rows { a, b, inner } = self else { return row };
        let (outer, within) = (row / (a * b * inner), row % (a * b * inner));
        let (i, j, rest) = (within / (b * inner), within / inner % b, within % inner);
        ((outer * b + j) * a + i) * inner + rest
    }
}

/// A tensor in a file, whose data is read on demand.
#[derive(Clone, Debug)]
pub struct TensorView<'a> {
    pub(super) name: &'a str,
    pub(super) dtype: &'a DType,
    pub(super) shape: &'a [usize],
    pub(super) file: &'a Arc<MappedFile>,
    /// Byte range in the file.
    pub(super) bytes: Range<usize>,
    /// Layout in the file, relative to `shape`.
    pub(super) arrangement: Arrangement,
}

impl<'a> TensorView<'a> {
    /// Returns the name in the file.
    pub fn name(&self) -> &'a str {
        self.name
    }

    /// Returns the number format.
    pub fn dtype(&self) -> &'a DType {
        self.dtype
    }

    /// Returns the shape, slowest axis first.
    pub fn shape(&self) -> &'a [usize] {
        self.shape
    }

    /// Returns the data as stored in the file: little-endian, row-major (some tensors of GGUF files
    /// have another layout).
    pub fn bytes(&self) -> &'a [u8] {
        &self.file[self.bytes.clone()]
    }

    /// Whether the file has the two axes exchanged.
    pub(crate) fn is_transposed(&self) -> bool {
        self.arrangement == Arrangement::Transposed
    }

    /// Whether weights in the file's own format must be copied, because of their layout or
    /// alignment.
    pub(crate) fn must_be_copied(&self) -> bool {
        let align = match self.dtype {
            DType::F32 => align_of::<f32>(),
            DType::F16 | DType::Bf16 => align_of::<f16>(),
            _ => 1,
        };
        self.arrangement != Arrangement::Same || !self.bytes.start.is_multiple_of(align)
    }

    /// Returns the numbers in a format. Numbers that have this format already stay in the file if
    /// they are aligned.
    ///
    /// # Errors
    /// [`Error::Format`] if the numbers are not floating-point.
    pub fn to_weight(&self, format: WeightFormat) -> Result<Weight> {
        let (file, bytes) = (self.file, self.bytes.clone());
        let keep = format == WeightFormat::Keep;
        let same = self.arrangement == Arrangement::Same;
        Ok(match self.dtype {
            DType::F16 if !same && (keep || format == WeightFormat::F16) => Weight::F16(self.arranged_half()?),
            DType::Bf16 if !same && (keep || format == WeightFormat::Bf16) => Weight::Bf16(self.arranged_half()?),
            DType::Blocks(blocks) if keep => match self.arrangement {
                Arrangement::Same => Weight::Blocks(BlockTensor::in_file(*blocks, file, bytes, self.shape)?),
                Arrangement::Rows { .. } => {
                    let bytes = self.arranged_rows(self.bytes());
                    Weight::Blocks(BlockTensor::from_vec(*blocks, bytes, self.shape)?)
                }
                // Blocks are along the other axis.
                Arrangement::Transposed => Weight::F32(self.to_tensor()?),
            },
            DType::F32 if !same => self.narrowed(format)?,
            DType::F32 if keep => Weight::F32(Tensor::in_file(file, bytes, self.shape)?),
            DType::F16 if keep || format == WeightFormat::F16 => {
                Weight::F16(HalfTensor::in_file(file, bytes, self.shape)?)
            }
            DType::Bf16 if keep || format == WeightFormat::Bf16 => {
                Weight::Bf16(HalfTensor::in_file(file, bytes, self.shape)?)
            }
            _ => self.narrowed(format)?,
        })
    }

    /// Copies the numbers, rounded to the format.
    fn narrowed(&self, format: WeightFormat) -> Result<Weight> {
        let weight = Weight::F32(self.to_tensor()?);
        Ok(match format {
            WeightFormat::F16 => weight.to_f16(),
            WeightFormat::Bf16 => weight.to_bf16(),
            WeightFormat::Keep | WeightFormat::F32 => weight,
        })
    }

    /// Copies half-precision numbers in the layout of `transformers`.
    fn arranged_half<T: Half>(&self) -> Result<HalfTensor<T>> {
        let halves = |bytes: &[u8]| -> Vec<T> {
            bytes.as_chunks().0.iter().map(|&b| bytemuck::cast(u16::from_le_bytes(b))).collect()
        };
        let data = match self.arrangement {
            Arrangement::Same => halves(self.bytes()),
            Arrangement::Rows { .. } => halves(&self.arranged_rows(self.bytes())),
            Arrangement::Transposed => transposed(&halves(self.bytes()), self.shape[0], self.shape[1]),
        };
        HalfTensor::from_vec(data, self.shape)
    }

    /// Copies the numbers as f32. Half precision is converted exactly.
    ///
    /// # Errors
    /// [`Error::Format`] if the numbers are not floating-point.
    pub fn to_tensor(&self) -> Result<Tensor> {
        let tensor = self.in_files_order()?;
        Ok(match self.arrangement {
            Arrangement::Same => tensor,
            Arrangement::Rows { .. } => Tensor::from_vec(self.arranged_rows(tensor.data()), self.shape)?,
            Arrangement::Transposed => {
                Tensor::from_vec(transposed(tensor.data(), self.shape[0], self.shape[1]), self.shape)?
            }
        })
    }

    /// Returns the rows of a file in the layout of `transformers`.
    fn arranged_rows<T: Copy>(&self, data: &[T]) -> Vec<T> {
        let rows = self.shape[0];
        let len = data.len() / rows.max(1);
        (0..rows).flat_map(|row| &data[self.arrangement.row_in_file(row) * len..][..len]).copied().collect()
    }

    fn in_files_order(&self) -> Result<Tensor> {
        match self.dtype {
            DType::F32 => Ok(self.convert(f32::from_le_bytes, |x: &[f32], y: &mut [f32]| y.copy_from_slice(x))),
            DType::F16 => Ok(self.convert(f16::from_le_bytes, vecmath::f16_to_f32)),
            DType::Bf16 => Ok(self.convert(bf16::from_le_bytes, vecmath::bf16_to_f32)),
            DType::Blocks(format) => {
                Ok(Tensor::write(self.shape, |data| blocks::dequantize(*format, self.bytes(), data)))
            }
            DType::Other(name) => {
                let reason =
                    format!("tensor `{}`: expected F32, F16 or BF16 numbers or blocks, found {name}", self.name);
                Err(Error::format(self.file.path(), reason))
            }
        }
    }

    fn convert<T: bytemuck::Pod + Send + Sync, const N: usize>(
        &self,
        from_bytes: fn([u8; N]) -> T,
        convert: impl Fn(&[T], &mut [f32]) + Sync,
    ) -> Tensor {
        let numbers: Cow<'_, [T]> = match bytemuck::try_cast_slice(self.bytes()) {
            Ok(numbers) if cfg!(target_endian = "little") => Cow::Borrowed(numbers),
            // The format does not align numbers that follow shorter ones.
            _ => self.bytes().as_chunks::<N>().0.iter().map(|&bytes| from_bytes(bytes)).collect(),
        };
        const CHUNK: usize = 1 << 16;
        Tensor::write(self.shape, |data| {
            parallel::chunks_mut(data, CHUNK, |i, part| convert(&numbers[i * CHUNK..][..part.len()], part));
        })
    }
}

/// Transposes `[columns, rows]` to `[rows, columns]`.
fn transposed<T: Copy>(data: &[T], rows: usize, columns: usize) -> Vec<T> {
    (0..rows).flat_map(|row| (0..columns).map(move |column| data[column * rows + row])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_put_in_order() {
        let order = |arrangement: Arrangement, rows: usize| -> Vec<usize> {
            (0..rows).map(|row| arrangement.row_in_file(row)).collect()
        };
        // Two heads of six rows: the file has 0 3 1 4 2 5 of each.
        let file: [usize; 12] = [0, 3, 1, 4, 2, 5, 6, 9, 7, 10, 8, 11];
        let ours: Vec<usize> = order(Arrangement::pairs(12, 2).unwrap(), 12).into_iter().map(|row| file[row]).collect();
        assert_eq!(ours, (0..12).collect::<Vec<_>>());
        // Two heads of a query, a key and a value of two rows each.
        let apart = order(Arrangement::side_by_side(12, 2).unwrap(), 12);
        assert_eq!(apart, [0, 1, 4, 5, 8, 9, 2, 3, 6, 7, 10, 11]);
        assert!(Arrangement::pairs(12, 5).is_err() && Arrangement::pairs(12, 0).is_err());
        assert!(Arrangement::side_by_side(12, 3).is_err());
    }
}
