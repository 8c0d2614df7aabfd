//! Writing GGUF files, version 3.

use std::collections::BTreeMap;
use std::path::Path;

use half::f16;

use super::header::DEFAULT_ALIGNMENT;
use super::names::{Architecture, Arrangement};
use super::value::{Array, Value};
use super::{ARCHITECTURE, GgmlVocabulary, MAGIC, TensorType, write_config};
use crate::atomic;
use crate::checkpoint::Pretrained;
use crate::error::{Error, Result};
use crate::kernels::{blocks, vecmath};
use crate::nn::Parameter;
use crate::tensor::Tensor;

/// The version that is written.
const VERSION: u32 = 3;
/// ggml's version of its block formats.
const QUANTIZATION_VERSION: u32 = 2;

type Bytes<'t> = Box<dyn Fn() -> Vec<u8> + 't>;

/// A GGUF file in the making: keys and tensors, in the order in which they are given.
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
    /// A file without keys and tensors.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets a key.
    ///
    /// # Errors
    /// [`Error::Argument`] if the key is empty, the alignment (which is always 32), or set already.
    pub fn set(&mut self, key: &str, value: Value<'_>) -> Result<()> {
        let mut bytes = value.value_type().id().to_le_bytes().to_vec();
        push_value(&mut bytes, &value);
        self.push(key, bytes)
    }

    /// Sets a key to a list of strings.
    ///
    /// # Errors
    /// As for [`GgufWriter::set`].
    pub fn set_strings<S: AsRef<str>>(&mut self, key: &str, strings: &[S]) -> Result<()> {
        let strings = strings.iter().map(|s| Value::String(s.as_ref()));
        self.set_list(key, super::ValueType::String, strings)
    }

    /// Sets a key to a list of numbers.
    ///
    /// # Errors
    /// As for [`GgufWriter::set`].
    pub fn set_f32s(&mut self, key: &str, numbers: &[f32]) -> Result<()> {
        self.set_list(key, super::ValueType::F32, numbers.iter().map(|&x| Value::F32(x)))
    }

    /// Sets a key to a list of whole numbers.
    ///
    /// # Errors
    /// As for [`GgufWriter::set`].
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
            return Err(Error::argument("metadata key", "one that is not empty, set or the alignment", key));
        }
        self.entries.push((key.into(), bytes));
        Ok(())
    }

    /// Adds a tensor, whose bytes `bytes` makes when the file is written.
    ///
    /// # Errors
    /// [`Error::Argument`] if the name is empty or taken; [`Error::Shape`] if there are not 1 to 4 axes or the rows do not fill
    /// whole blocks.
    pub fn tensor(
        &mut self,
        name: &str,
        tensor_type: TensorType,
        shape: &[usize],
        bytes: impl Fn() -> Vec<u8> + 't,
    ) -> Result<()> {
        if name.is_empty() || self.tensors.iter().any(|tensor| tensor.name == name) {
            return Err(Error::argument("tensor", "a name that is not empty or taken", format!("`{name}`")));
        }
        let row = shape.last().copied().unwrap_or(0);
        if !(1..=4).contains(&shape.len()) || shape.contains(&0) || !row.is_multiple_of(tensor_type.block_len()) {
            let expected = format!("1 to 4 axes, the last a multiple of {}", tensor_type.block_len());
            return Err(Error::shape(format!("tensor `{name}`"), expected, shape));
        }
        self.tensors.push(New { name: name.into(), tensor_type, shape: shape.into(), bytes: Box::new(bytes) });
        Ok(())
    }

    /// Adds a tensor of 32-bit numbers.
    ///
    /// # Errors
    /// As for [`GgufWriter::tensor`]; [`Error::Shape`] if there are not as many numbers as `shape` says.
    pub fn tensor_f32(&mut self, name: &str, shape: &[usize], numbers: Vec<f32>) -> Result<()> {
        let numbers = Tensor::from_vec(numbers, shape)?;
        self.tensor(name, TensorType::F32, shape, move || to_bytes(TensorType::F32, numbers.data()))
    }

    /// Writes the file, which appears whole or not at all.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be written.
    ///
    /// # Panics
    /// If a tensor's bytes are not as many as its type and shape say.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
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
        atomic::write_file(path, |file| {
            file.write_all(&header)?;
            self.tensors.iter().try_for_each(|tensor| {
                let bytes = (tensor.bytes)();
                assert_eq!(bytes.len(), tensor.len(), "tensor `{}`: bytes as its type and shape say", tensor.name);
                file.write_all(&bytes)?;
                file.write_all(&[0; DEFAULT_ALIGNMENT][..bytes.len().next_multiple_of(DEFAULT_ALIGNMENT) - bytes.len()])
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

/// Numbers as a tensor of a file has them.
fn to_bytes(tensor_type: TensorType, x: &[f32]) -> Vec<u8> {
    match tensor_type {
        TensorType::F16 => {
            let mut half = vec![f16::ZERO; x.len()];
            vecmath::f32_to_f16(x, &mut half);
            half.iter().flat_map(|x| x.to_le_bytes()).collect()
        }
        TensorType::Q8_0 => {
            let mut bytes = vec![0; blocks::BlockFormat::Q8_0.bytes_for(x.len())];
            blocks::quantize_q8_0(x, &mut bytes);
            bytes
        }
        _ => x.iter().flat_map(|x| x.to_le_bytes()).collect(),
    }
}

/// The format of the matrices in a file that [`save_gguf`] writes. Norms, biases and positions are always 32 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum GgufFormat {
    /// 32 bits.
    F32,
    /// IEEE half precision.
    F16,
    /// Eight bits and a scale for 32 numbers; a matrix whose rows are no multiple of 32 is written in half precision.
    Q8_0,
}

impl GgufFormat {
    /// The number by which GGUF calls it.
    fn file_type(self) -> u32 {
        match self {
            Self::F32 => 0,
            Self::F16 => 1,
            Self::Q8_0 => 7,
        }
    }

    /// The type of a tensor.
    fn of(self, gguf: &str, shape: &[usize]) -> TensorType {
        let wide = shape.len() != 2 || gguf.starts_with("position_embd") || gguf.starts_with("rope_freqs");
        match self {
            _ if wide => TensorType::F32,
            Self::F32 => TensorType::F32,
            Self::Q8_0 if shape[1].is_multiple_of(32) => TensorType::Q8_0,
            Self::F16 | Self::Q8_0 => TensorType::F16,
        }
    }
}

/// Writes a decoder model (GPT-2, Llama, Mistral, Qwen2 or Qwen3) with its configuration, and its tokenizer if there is one, as a
/// GGUF file that llama.cpp opens. The file appears whole or not at all.
///
/// With [`GgufFormat::F32`] the file opens to a model of the same logits, to the bit, and a text
/// ends at the tokens of `eos_token_id` and at those of the vocabulary. What only training looks at
/// (dropout, the spread of fresh weights) is not in the file.
///
/// ```
/// use loquat::checkpoint::gguf::{GgufFormat, save_gguf};
/// use loquat::models::{CausalLm, Gpt2, Gpt2Config, LanguageModel};
/// use loquat::{IdTensor, Rng};
///
/// let path = std::env::temp_dir().join("loquat-save-gguf-doc.gguf");
/// let model = Gpt2::init(&Gpt2Config::new(13, 16, 32, 2, 4), &mut Rng::seed(1))?;
/// save_gguf(&path, &model, None, GgufFormat::F32)?;
/// let same = LanguageModel::open(&path)?;
/// let ids = IdTensor::sequence(&[1, 2, 3]);
/// assert_eq!(same.forward(&ids)?.data(), model.forward(&ids)?.data());
/// # std::fs::remove_file(&path).ok();
/// # Ok::<(), loquat::Error>(())
/// ```
///
/// # Errors
/// [`Error::Config`] for an architecture or option that GGUF cannot say; [`Error::Argument`] for a parameter without a name there, or
/// a vocabulary of more tokens than the model has;
/// [`Error::Io`] if the file cannot be written.
pub fn save_gguf(
    path: impl AsRef<Path>,
    model: &impl Pretrained,
    vocabulary: Option<&GgmlVocabulary>,
    format: GgufFormat,
) -> Result<()> {
    let path = path.as_ref();
    let mut writer = GgufWriter::new();
    let config = model.config_json();
    let architecture = write_config::write(&config, &mut writer)?;
    if let Some(name) = path.file_stem() {
        writer.set("general.name", Value::String(&name.to_string_lossy()))?;
    }
    writer.set("general.file_type", Value::U32(format.file_type()))?;
    writer.set("general.quantization_version", Value::U32(QUANTIZATION_VERSION))?;
    debug_assert!(writer.entries.iter().any(|(key, _)| key == ARCHITECTURE));
    match vocabulary {
        Some(vocabulary) => {
            let rows = config["vocab_size"].as_u64().unwrap_or(0) as usize;
            vocabulary.filled_up(rows)?.write(&mut writer)?;
        }
        None => writer.set("tokenizer.ggml.model", Value::String("no_vocab"))?,
    }
    for (role, id) in write_config::roles(&config, vocabulary)? {
        writer.set(&format!("tokenizer.ggml.{role}_token_id"), Value::U32(id))?;
    }
    let size = |key: &str| config[key].as_u64().unwrap_or(0) as usize;
    let heads = size("num_attention_heads");
    let heads = (heads, if config["num_key_value_heads"].is_null() { heads } else { size("num_key_value_heads") });
    let parameters: BTreeMap<String, &Parameter> = model.parameters().into_iter().collect();
    for (path, parameter) in &parameters {
        let gguf = architecture.to_gguf(path);
        let gguf =
            gguf.ok_or_else(|| Error::argument("parameter", "one that GGUF has a name for", format!("`{path}`")))?;
        add(&mut writer, architecture, &gguf, parameter, heads, format)?;
        // Older versions of llama.cpp want GPT-2's head even where it is the token table.
        if architecture.name == "gpt2" && gguf == "token_embd.weight" && !parameters.contains_key("lm_head.weight") {
            add(&mut writer, architecture, "output.weight", parameter, heads, format)?;
        }
    }
    writer.save(path)
}

fn add<'t>(
    writer: &mut GgufWriter<'t>,
    architecture: &Architecture,
    gguf: &str,
    parameter: &'t Parameter,
    heads: (usize, usize),
    format: GgufFormat,
) -> Result<()> {
    let arrangement = architecture.arrangement(gguf, heads);
    let mut shape = parameter.shape().to_vec();
    let arrangement = match arrangement {
        Arrangement::Transposed if shape.len() == 2 => {
            shape.swap(0, 1);
            arrangement
        }
        Arrangement::Transposed => Arrangement::Same,
        other => other,
    };
    let tensor_type = format.of(gguf, &shape);
    let (rows, columns) = (shape[0], shape.iter().skip(1).product::<usize>());
    writer.tensor(gguf, tensor_type, &shape, move || {
        let tensor = parameter.weight().to_tensor();
        let x = tensor.data();
        match arrangement {
            Arrangement::Same => to_bytes(tensor_type, x),
            Arrangement::RowsInPairs { heads } => {
                let mut y = vec![0.0; x.len()];
                for (row, x) in x.chunks_exact(columns).enumerate() {
                    let place = Arrangement::row_in_file(rows, heads, row);
                    y[place * columns..][..columns].copy_from_slice(x);
                }
                to_bytes(tensor_type, &y)
            }
            Arrangement::Transposed => {
                let mut y = vec![0.0; x.len()];
                for (row, y) in y.chunks_exact_mut(columns).enumerate() {
                    y.iter_mut().enumerate().for_each(|(column, y)| *y = x[column * rows + row]);
                }
                to_bytes(tensor_type, &y)
            }
        }
    })
}
