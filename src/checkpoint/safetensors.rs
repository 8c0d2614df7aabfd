//! The safetensors format, based on the `safetensors` crate.
//!
//! A file consists of the length of its header (8 bytes), the header (JSON: number format, shape
//! and position of each tensor), and the tensors' data, which must cover the rest exactly
//! (<https://github.com/huggingface/safetensors>). A file is validated when it is opened; lengths
//! are checked against the file's size before anything is allocated.

use std::collections::BTreeMap;
use std::io::Write;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use half::{bf16, f16};
use safetensors::tensor::{Dtype, Metadata, TensorInfo};

use super::recognise;
use super::view::Arrangement;
use super::view::{DType, TensorView};
use crate::atomic;
use crate::error::{Error, Result};
use crate::mapped::{Load, MappedFile};
use crate::nn::Module;
use crate::tensor::{Tensor, Weight};

/// Bytes of the header's length.
const LENGTH: usize = 8;
/// Maximum length of a header, as in every implementation of the format.
const MAX_HEADER: usize = 100_000_000;

/// An open `.safetensors` file.
pub(crate) struct SafetensorsFile {
    file: Arc<MappedFile>,
    tensors: BTreeMap<String, Place>,
    metadata: BTreeMap<String, String>,
}

impl std::fmt::Debug for SafetensorsFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SafetensorsFile({:?}, tensors={})", self.path(), self.tensors.len())
    }
}

#[derive(Debug)]
struct Place {
    dtype: DType,
    shape: Vec<usize>,
    bytes: Range<usize>,
}

impl SafetensorsFile {
    /// Opens a file and validates its header.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be opened, [`Error::Format`] if it is truncated, of another
    /// format, or inconsistent.
    pub(crate) fn open(path: impl AsRef<Path>, load: Load) -> Result<Self> {
        let file = Arc::new(MappedFile::open(path, load)?);
        let wrong = |reason: String| match recognise::content(&file) {
            Some(what) => format!("expected a safetensors file, found {what}"),
            None => reason,
        };
        let (start, header) = read_header(&file).map_err(|reason| Error::format(file.path(), wrong(reason)))?;
        let place = |(name, info): (String, &TensorInfo)| {
            let bytes = start + info.data_offsets.0..start + info.data_offsets.1;
            let dtype = match info.dtype {
                Dtype::F32 => DType::F32,
                Dtype::F16 => DType::F16,
                Dtype::BF16 => DType::Bf16,
                other => DType::Other(other.to_string()),
            };
            (name, Place { dtype, shape: info.shape.clone(), bytes })
        };
        let tensors = header.tensors().into_iter().map(place).collect();
        let metadata = header.metadata().iter().flatten().map(|(k, v)| (k.clone(), v.clone())).collect();
        Ok(Self { file, tensors, metadata })
    }

    /// The file's path as given.
    pub(crate) fn path(&self) -> &Path {
        self.file.path()
    }

    /// The tensors' names in alphabetical order.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// Returns a tensor by name.
    pub(crate) fn tensor(&self, name: &str) -> Option<TensorView<'_>> {
        let (name, Place { dtype, shape, bytes }) = self.tensors.get_key_value(name)?;
        Some(TensorView { name, dtype, shape, file: &self.file, bytes: bytes.clone(), arrangement: Arrangement::Same })
    }

    /// Returns an entry of `__metadata__`.
    pub(crate) fn metadata(&self, key: &str) -> Option<&str> {
        self.metadata.get(key).map(String::as_str)
    }
}

/// Returns the offset of the tensors' data and the parsed header; the error is the reason why it is
/// invalid.
fn read_header(file: &[u8]) -> std::result::Result<(usize, Metadata), String> {
    let Some((length, rest)) = file.split_first_chunk::<LENGTH>() else {
        return Err(format!("expected a safetensors file, found one of {} bytes", file.len()));
    };
    let length = u64::from_le_bytes(*length);
    if length > MAX_HEADER as u64 {
        return Err(format!("expected a safetensors header of at most {MAX_HEADER} bytes, found a length of {length}"));
    }
    let length = length as usize;
    let Some((header, data)) = rest.split_at_checked(length) else {
        return Err(format!("expected a header of {length} bytes, found {} before the end of the file", rest.len()));
    };
    let header: Metadata = serde_json::from_slice(header).map_err(|e| format!("safetensors header: {e}"))?;
    if header.data_len() != data.len() {
        return Err(format!("expected {} bytes of tensors, found {}", header.data_len(), data.len()));
    }
    Ok((LENGTH + length, header))
}

/// Saves every parameter of a module under its path, in the layout of `transformers`;
/// half-precision parameters keep their format. The file is written atomically.
///
/// # Errors
/// [`Error::Io`] if the file cannot be written; an existing file is unchanged in that case. Windows
/// does not replace a file that is mapped into memory: drop a model that was opened from it, or
/// open it with [`Load::Read`](crate::Load::Read).
pub fn save_module(path: impl AsRef<Path>, module: &(impl Module + ?Sized)) -> Result<()> {
    let parameters = module.parameters();
    let weights = parameters.iter().map(|(path, parameter)| (path.as_str(), parameter.weight()));
    write_weights(path, weights, Some(("format", "pt")))
}

/// Writes tensors by name, with an optional entry of metadata. The file is written atomically, and
/// the same tensors give the same bytes.
///
/// # Errors
/// [`Error::Io`] if the file cannot be written, on Windows also if it is mapped (see
/// [`save_module`]); an existing file is unchanged in that case. [`Error::Argument`] for a
/// duplicate name.
pub fn write_tensors<'t>(
    path: impl AsRef<Path>,
    tensors: impl IntoIterator<Item = (&'t str, &'t Tensor)>,
    metadata: Option<(&str, &str)>,
) -> Result<()> {
    let weights: Vec<(&str, Weight)> = tensors.into_iter().map(|(name, t)| (name, Weight::F32(t.clone()))).collect();
    write_weights(path, weights.iter().map(|(name, weight)| (*name, weight)), metadata)
}

/// Same as [`write_tensors`], for weights of any format.
///
/// # Errors
/// Same as [`write_tensors`].
pub(crate) fn write_weights<'t>(
    path: impl AsRef<Path>,
    weights: impl IntoIterator<Item = (&'t str, &'t Weight)>,
    metadata: Option<(&str, &str)>,
) -> Result<()> {
    let path = path.as_ref();
    let mut sorted = BTreeMap::new();
    for (name, weight) in weights {
        if sorted.insert(name, weight).is_some() {
            return Err(Error::argument("names of tensors", "each name once", format!("`{name}` twice")));
        }
    }
    // The largest number format first, like other writers: then all numbers are aligned, and stay
    // in the file when it is opened.
    let mut sorted: Vec<(&str, &Weight)> = sorted.into_iter().collect();
    sorted.sort_by_key(|(_, weight)| weight.is_half());
    let mut end = 0;
    let place = |&(name, weight): &(&str, &Weight)| {
        let start = end;
        end += weight.len() * if weight.is_half() { 2 } else { 4 };
        let dtype = match weight {
            Weight::F32(_) => Dtype::F32,
            Weight::F16(_) => Dtype::F16,
            Weight::Bf16(_) => Dtype::BF16,
            // The format has no blocks.
            Weight::Blocks(_) => Dtype::F32,
        };
        (name.to_string(), TensorInfo { dtype, shape: weight.shape().to_vec(), data_offsets: (start, end) })
    };
    let places = sorted.iter().map(place).collect();
    // At most one entry: a map of several would be written in random order.
    let metadata = metadata.map(|(key, value)| [(key.to_string(), value.to_string())].into_iter().collect());
    let header = Metadata::new(metadata, places).expect("tensors are laid out one after the other");
    let mut header = serde_json::to_vec(&header).expect("names and numbers are JSON");
    header.resize(header.len().next_multiple_of(LENGTH), b' ');
    atomic::write_file(path, |file| {
        file.write_all(&(header.len() as u64).to_le_bytes())?;
        file.write_all(&header)?;
        sorted.iter().try_for_each(|(_, weight)| match weight {
            Weight::F32(tensor) => write_numbers(file, tensor.data(), f32::to_le_bytes),
            Weight::F16(half) => write_numbers(file, half.data(), f16::to_le_bytes),
            Weight::Bf16(half) => write_numbers(file, half.data(), bf16::to_le_bytes),
            Weight::Blocks(blocks) => write_numbers(file, blocks.dequantize().data(), f32::to_le_bytes),
        })
    })
}

fn write_numbers<T: bytemuck::Pod, const N: usize>(
    file: &mut dyn Write,
    numbers: &[T],
    to_bytes: fn(T) -> [u8; N],
) -> std::io::Result<()> {
    if cfg!(target_endian = "little") {
        return file.write_all(bytemuck::cast_slice(numbers));
    }
    numbers.iter().try_for_each(|&x| file.write_all(&to_bytes(x)))
}
