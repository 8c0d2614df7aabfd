//! Writing GGUF files, version 3.

use std::path::Path;

use super::header::DEFAULT_ALIGNMENT;
use super::save::to_bytes;
use super::value::{Array, Value};
use super::{MAGIC, TensorType};
use crate::atomic;
use crate::error::{Error, Result};
use crate::tensor::Tensor;

/// The version that is written.
const VERSION: u32 = 3;

type Bytes<'t> = Box<dyn Fn() -> Vec<u8> + 't>;

/// A writer of GGUF files. Keys and tensors are written in the order in which they are added.
#[doc(hidden)]
#[derive(Default)]
pub struct GgufWriter<'t> {
    entries: Vec<(String, Vec<u8>)>,
    tensors: Vec<New<'t>>,
}

struct New<'t> {
    name: String,
    tensor_type: TensorType,
    shape: Vec<usize>,
    bytes: Bytes<'t>,
}

impl<'t> GgufWriter<'t> {
    /// Numbers of query and key heads that were set for an architecture.
    pub(super) fn heads(&self, architecture: &str) -> (usize, usize) {
        let number = |name: &str| {
            let key = format!("{architecture}.attention.{name}");
            let (_, bytes) = self.entries.iter().find(|(set, _)| *set == key)?;
            Some(u32::from_le_bytes(*bytes.last_chunk()?) as usize)
        };
        let heads = number("head_count").unwrap_or(0);
        (heads, number("head_count_kv").unwrap_or(heads))
    }

    /// Creates a file without keys and tensors.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets a key.
    ///
    /// # Errors
    /// [`Error::Argument`] if the key is empty, set already, or the alignment, which is always 32.
    pub fn set(&mut self, key: &str, value: Value<'_>) -> Result<()> {
        let mut bytes = value.value_type().id().to_le_bytes().to_vec();
        push_value(&mut bytes, &value);
        self.push(key, bytes)
    }

    /// Sets a key to a list of strings.
    ///
    /// # Errors
    /// Same as [`GgufWriter::set`].
    pub fn set_strings<S: AsRef<str>>(&mut self, key: &str, strings: &[S]) -> Result<()> {
        let strings = strings.iter().map(|s| Value::String(s.as_ref()));
        self.set_list(key, super::ValueType::String, strings)
    }

    /// Sets a key to a list of f32 numbers.
    ///
    /// # Errors
    /// Same as [`GgufWriter::set`].
    pub fn set_f32s(&mut self, key: &str, numbers: &[f32]) -> Result<()> {
        self.set_list(key, super::ValueType::F32, numbers.iter().map(|&x| Value::F32(x)))
    }

    /// Sets a key to a list of integers.
    ///
    /// # Errors
    /// Same as [`GgufWriter::set`].
    pub fn set_i32s(&mut self, key: &str, numbers: &[i32]) -> Result<()> {
        self.set_list(key, super::ValueType::I32, numbers.iter().map(|&x| Value::I32(x)))
    }

    /// Sets a key to a list of booleans.
    ///
    /// # Errors
    /// Same as [`GgufWriter::set`].
    pub fn set_bools(&mut self, key: &str, truths: &[bool]) -> Result<()> {
        self.set_list(key, super::ValueType::Bool, truths.iter().map(|&x| Value::Bool(x)))
    }

    fn set_list<'v>(
        &mut self,
        key: &str,
        kind: super::ValueType,
        values: impl ExactSizeIterator<Item = Value<'v>>,
    ) -> Result<()> {
        let mut bytes = super::ValueType::Array.id().to_le_bytes().to_vec();
        bytes.extend(kind.id().to_le_bytes());
        bytes.extend((values.len() as u64).to_le_bytes());
        values.for_each(|value| push_value(&mut bytes, &value));
        self.push(key, bytes)
    }

    fn push(&mut self, key: &str, bytes: Vec<u8>) -> Result<()> {
        if key.is_empty() || key == super::header::ALIGNMENT || self.entries.iter().any(|(other, _)| other == key) {
            return Err(Error::argument("metadata key", "a non-empty, unused key other than the alignment", key));
        }
        self.entries.push((key.into(), bytes));
        Ok(())
    }

    /// Adds a tensor, whose data `bytes` returns when the file is saved.
    ///
    /// # Errors
    /// [`Error::Argument`] if the name is empty or used already; [`Error::Shape`] if there are not
    /// 1 to 4 axes, or the row length is not a multiple of the block size.
    pub fn tensor(
        &mut self,
        name: &str,
        tensor_type: TensorType,
        shape: &[usize],
        bytes: impl Fn() -> Vec<u8> + 't,
    ) -> Result<()> {
        if name.is_empty() || self.tensors.iter().any(|tensor| tensor.name == name) {
            return Err(Error::argument("tensor", "a non-empty, unused name", format!("`{name}`")));
        }
        let row = shape.last().copied().unwrap_or(0);
        if !(1..=4).contains(&shape.len()) || shape.contains(&0) || !row.is_multiple_of(tensor_type.block_len()) {
            let expected = format!("1 to 4 axes, the last a multiple of {}", tensor_type.block_len());
            return Err(Error::shape(format!("tensor `{name}`"), expected, shape));
        }
        self.tensors.push(New { name: name.into(), tensor_type, shape: shape.into(), bytes: Box::new(bytes) });
        Ok(())
    }

    /// Adds a tensor of f32 numbers.
    ///
    /// # Errors
    /// Same as [`GgufWriter::tensor`]; [`Error::Shape`] if the number of values differs from
    /// `shape`.
    pub fn tensor_f32(&mut self, name: &str, shape: &[usize], numbers: Vec<f32>) -> Result<()> {
        let numbers = Tensor::from_vec(numbers, shape)?;
        self.tensor(name, TensorType::F32, shape, move || to_bytes(TensorType::F32, numbers.data()))
    }

    /// Saves the file atomically.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be written, on Windows also if it is mapped (see
    /// [`save_module`](crate::checkpoint::save_module)).
    ///
    /// # Panics
    /// If the length of a tensor's data does not match its type and shape.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        self.save_with(path.as_ref(), &mut |_, _| ())
    }

    /// Same as [`GgufWriter::save`]; `observer` is called after each tensor with the bytes of
    /// tensors written and those of all.
    pub(super) fn save_with(&self, path: &Path, observer: &mut dyn FnMut(u64, u64)) -> Result<()> {
        let mut header = MAGIC.to_vec();
        header.extend(VERSION.to_le_bytes());
        header.extend((self.tensors.len() as u64).to_le_bytes());
        header.extend((self.entries.len() as u64).to_le_bytes());
        for (key, value) in &self.entries {
            push_string(&mut header, key);
            header.extend(value);
        }
        let mut offset = 0usize;
        for tensor in &self.tensors {
            push_string(&mut header, &tensor.name);
            header.extend((tensor.shape.len() as u32).to_le_bytes());
            tensor.shape.iter().rev().for_each(|&length| header.extend((length as u64).to_le_bytes()));
            header.extend(tensor.tensor_type.id().to_le_bytes());
            header.extend((offset as u64).to_le_bytes());
            offset = (offset + tensor.len()).next_multiple_of(DEFAULT_ALIGNMENT);
        }
        header.resize(header.len().next_multiple_of(DEFAULT_ALIGNMENT), 0);
        let all = self.tensors.iter().map(|tensor| tensor.len() as u64).sum();
        let mut written = 0;
        atomic::write_file(path, |file| {
            file.write_all(&header)?;
            self.tensors.iter().try_for_each(|tensor| {
                let bytes = (tensor.bytes)();
                assert_eq!(bytes.len(), tensor.len(), "tensor `{}`: data that matches its type and shape", tensor.name);
                file.write_all(&bytes)?;
                let padding = bytes.len().next_multiple_of(DEFAULT_ALIGNMENT) - bytes.len();
                file.write_all(&[0; DEFAULT_ALIGNMENT][..padding])?;
                written += bytes.len() as u64;
                observer(written, all);
                Ok(())
            })
        })
    }
}

impl New<'_> {
    fn len(&self) -> usize {
        let numbers: usize = self.shape.iter().product();
        numbers / self.tensor_type.block_len() * self.tensor_type.block_bytes()
    }
}

fn push_string(bytes: &mut Vec<u8>, text: &str) {
    bytes.extend((text.len() as u64).to_le_bytes());
    bytes.extend(text.as_bytes());
}

fn push_value(bytes: &mut Vec<u8>, value: &Value<'_>) {
    match value {
        Value::U8(x) => bytes.push(*x),
        Value::I8(x) => bytes.extend(x.to_le_bytes()),
        Value::U16(x) => bytes.extend(x.to_le_bytes()),
        Value::I16(x) => bytes.extend(x.to_le_bytes()),
        Value::U32(x) => bytes.extend(x.to_le_bytes()),
        Value::I32(x) => bytes.extend(x.to_le_bytes()),
        Value::F32(x) => bytes.extend(x.to_le_bytes()),
        Value::U64(x) => bytes.extend(x.to_le_bytes()),
        Value::I64(x) => bytes.extend(x.to_le_bytes()),
        Value::F64(x) => bytes.extend(x.to_le_bytes()),
        Value::Bool(x) => bytes.push(u8::from(*x)),
        Value::String(x) => push_string(bytes, x),
        Value::Array(Array { kind, len, bytes: elements }) => {
            bytes.extend(kind.id().to_le_bytes());
            bytes.extend((*len as u64).to_le_bytes());
            bytes.extend(*elements);
        }
    }
}
