//! A file's tensors by their names in `transformers`, so that models do not depend on GGUF.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use super::GgufFile;
use super::architecture::Architecture;
use super::keys::heads;
use super::rope::ROPE_FREQS;
use crate::checkpoint::view::Arrangement;
use crate::checkpoint::{DType, TensorView};
use crate::error::{Error, Result};
use crate::mapped::MappedFile;

/// A file whose tensors have the names of `transformers`; tensors of an unknown architecture, and
/// those missing in its table, keep their own. The divisors of rotary frequencies are left out, as
/// they belong to the configuration.
pub(crate) struct GgufTensors {
    file: GgufFile,
    tensors: BTreeMap<String, Place>,
}

impl std::fmt::Debug for GgufTensors {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "GgufTensors({:?})", self.file)
    }
}

#[derive(Debug)]
struct Place {
    file: Arc<MappedFile>,
    bytes: Range<usize>,
    dtype: DType,
    shape: Vec<usize>,
    arrangement: Arrangement,
}

impl GgufTensors {
    /// Determines the names of a file's tensors.
    ///
    /// # Errors
    /// [`Error::Format`] if the number of heads is missing or does not divide the rows, or two
    /// tensors get the same name.
    pub(crate) fn new(file: GgufFile, architecture: Option<&Architecture>) -> Result<Self> {
        let heads = architecture.map_or(Ok((0, 0)), |architecture| heads(&file, architecture.name))?;
        let mut tensors = BTreeMap::new();
        for tensor in file.tensors().filter(|tensor| architecture.is_none() || tensor.name() != ROPE_FREQS) {
            let mut shape = tensor.shape().to_vec();
            let known = architecture.and_then(|a| Some((a.to_transformers(tensor.name())?, a)));
            let wrong = |reason: String| Error::format(file.path(), format!("tensor `{}`: {reason}", tensor.name()));
            let (name, arrangement) = match known {
                Some((name, architecture)) => {
                    (name, architecture.arrangement(tensor.name(), &shape, heads).map_err(wrong)?)
                }
                None => (tensor.name().to_string(), Arrangement::Same),
            };
            if arrangement == Arrangement::Transposed {
                shape.swap(0, 1);
            }
            let (file_of, dtype) = (tensor.file.clone(), tensor.tensor_type().dtype());
            let place = Place { file: file_of, bytes: tensor.range(), dtype, shape, arrangement };
            if tensors.insert(name.clone(), place).is_some() {
                return Err(wrong(format!("expected one tensor for `{name}`, found two")));
            }
        }
        Ok(Self { file, tensors })
    }

    /// The file.
    pub(crate) fn file(&self) -> &GgufFile {
        &self.file
    }

    /// The tensors' names in alphabetical order.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// Returns a tensor by name.
    pub(crate) fn tensor(&self, name: &str) -> Option<TensorView<'_>> {
        let (name, Place { file, bytes, dtype, shape, arrangement }) = self.tensors.get_key_value(name)?;
        let (bytes, arrangement) = (bytes.clone(), *arrangement);
        Some(TensorView { name, dtype, shape, file, bytes, arrangement })
    }
}
