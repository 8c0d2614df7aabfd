//! Training runs in files: safetensors, with settings and position as JSON in the metadata.
//!
//! This module has what the trainers share; each trainer defines its own arrays.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, Metadata, TensorInfo};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::atomic::write_file;
use crate::mapped::{Load, MappedFile};
use crate::{Error, Result};

/// A named array: `[rows, columns]`, or a list if `columns` is 0.
pub(super) struct Array<'a> {
    name: String,
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: &'a [u8],
}

impl<'a> Array<'a> {
    /// Rows of `dim` numbers.
    pub(super) fn rows(name: impl Into<String>, values: &'a [f32], dim: usize) -> Self {
        let shape = vec![values.len() / dim, dim];
        Array { name: name.into(), dtype: Dtype::F32, shape, bytes: bytemuck::cast_slice(values) }
    }

    /// A list of counts.
    pub(super) fn counts(name: &str, values: &'a [u64]) -> Self {
        Array { name: name.into(), dtype: Dtype::U64, shape: vec![values.len()], bytes: bytemuck::cast_slice(values) }
    }

    /// A UTF-8 text.
    pub(super) fn text(name: &str, text: &'a str) -> Self {
        Array { name: name.into(), dtype: Dtype::U8, shape: vec![text.len()], bytes: text.as_bytes() }
    }
}

/// The metadata of the file of a run.
#[derive(Default)]
pub(super) struct Notes(BTreeMap<&'static str, Value>);

impl Notes {
    /// Adds a value that can be serialised as JSON.
    pub(super) fn with(mut self, key: &'static str, value: &impl Serialize) -> Result<Self> {
        let json = serde_json::to_value(value)
            .map_err(|e| Error::argument("checkpoint", "a value that JSON can represent", e))?;
        self.0.insert(key, json);
        Ok(self)
    }
}

/// The key of the notes in the metadata of the file.
const NOTES: &str = "loquat";

/// Writes a run. The file is replaced atomically.
pub(super) fn write(path: &Path, arrays: &[Array<'_>], notes: &Notes) -> Result<()> {
    let mut end = 0;
    let place = |a: &Array<'_>| {
        let start = end;
        end += a.bytes.len();
        (a.name.clone(), TensorInfo { dtype: a.dtype, shape: a.shape.clone(), data_offsets: (start, end) })
    };
    let places = arrays.iter().map(place).collect();
    let notes = serde_json::to_string(&notes.0).expect("values are JSON");
    let header = Metadata::new(Some([(NOTES.to_string(), notes)].into_iter().collect()), places);
    let header = header.expect("offsets are consecutive");
    let mut header = serde_json::to_vec(&header).expect("names and numbers are JSON");
    header.resize(header.len().next_multiple_of(8), b' ');
    write_file(path, |file| {
        file.write_all(&(header.len() as u64).to_le_bytes())?;
        file.write_all(&header)?;
        arrays.iter().try_for_each(|a| file.write_all(a.bytes))
    })
}

/// The opened file of a run.
pub(super) struct Saved {
    path: PathBuf,
    file: MappedFile,
    notes: BTreeMap<String, Value>,
}

impl Saved {
    /// Opens a file that the trainer of `format` wrote.
    pub(super) fn open(path: &Path, format: &str) -> Result<Self> {
        let file = MappedFile::open(path, Load::Mmap)?;
        let (_, header) = SafeTensors::read_metadata(&file).map_err(|e| Error::format(path, e.to_string()))?;
        let notes = header.metadata().as_ref().and_then(|entries| entries.get(NOTES));
        let notes = notes.and_then(|notes| serde_json::from_str(notes).ok()).unwrap_or_default();
        let saved = Saved { path: path.into(), file, notes };
        match saved.notes.get("format").and_then(Value::as_str) {
            Some(found) if found == format => Ok(saved),
            found => Err(saved.wrong(format!("expected a run of `{format}`, found `{}`", found.unwrap_or("none")))),
        }
    }

    /// Returns an error about this file.
    pub(super) fn wrong(&self, reason: impl Into<String>) -> Error {
        Error::format(&self.path, reason)
    }

    /// Returns a value that [`Notes::with`] added.
    pub(super) fn note<T: DeserializeOwned>(&self, key: &str) -> Result<T> {
        let json = self.notes.get(key).cloned().unwrap_or_default();
        serde_json::from_value(json).map_err(|e| self.wrong(format!("{key}: {e}")))
    }

    fn bytes(&self, name: &str, dtype: Dtype) -> Result<&[u8]> {
        let tensors = SafeTensors::deserialize(&self.file).map_err(|e| self.wrong(e.to_string()))?;
        let tensor = tensors.tensor(name).map_err(|e| self.wrong(format!("{name}: {e}")))?;
        if tensor.dtype() != dtype {
            return Err(self.wrong(format!("{name}: expected {dtype:?}, found {:?}", tensor.dtype())));
        }
        Ok(tensor.data())
    }

    /// Returns `rows` rows of `dim` numbers.
    pub(super) fn rows(&self, name: &str, rows: usize, dim: usize) -> Result<Vec<f32>> {
        let (numbers, _) = self.bytes(name, Dtype::F32)?.as_chunks::<4>();
        if rows.checked_mul(dim) != Some(numbers.len()) {
            return Err(self.wrong(format!("{name}: expected {rows} rows of {dim}, found {} numbers", numbers.len())));
        }
        Ok(numbers.iter().map(|b| f32::from_le_bytes(*b)).collect())
    }

    /// Returns a list of counts.
    pub(super) fn counts(&self, name: &str) -> Result<Vec<u64>> {
        let (numbers, _) = self.bytes(name, Dtype::U64)?.as_chunks::<8>();
        Ok(numbers.iter().map(|b| u64::from_le_bytes(*b)).collect())
    }

    /// Returns a text.
    pub(super) fn text(&self, name: &str) -> Result<&str> {
        std::str::from_utf8(self.bytes(name, Dtype::U8)?).map_err(|e| self.wrong(format!("{name}: {e}")))
    }
}
