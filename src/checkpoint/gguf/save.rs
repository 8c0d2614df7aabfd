//! Whole models as files: every key of a `config.json` is written, or has the value that a reader
//! takes for granted, or is an error. What only training reads (dropout, the spread of fresh weights)
//! is left out.

use std::collections::BTreeMap;
use std::path::Path;

use half::f16;
use serde_json::Value as Json;

use super::architecture::Architecture;
use super::keys::KeyWriter;
use super::vocabulary::GgmlVocabulary;
use super::{ARCHITECTURE, ENDS, GgufWriter, TensorType, Value};
use crate::checkpoint::Pretrained;
use crate::checkpoint::view::Arrangement;
use crate::error::{Error, Result};
use crate::kernels::{blocks, vecmath};
use crate::nn::Parameter;

/// ggml's version of its block formats.
const QUANTIZATION_VERSION: u32 = 2;

/// The format of the matrices in a file that [`save_gguf`](crate::models::save_gguf) writes. Norms, biases and positions are always 32 bits.
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

/// Writes a model with its configuration, and its tokenizer if there is one, as a file of an
/// architecture.
///
/// # Errors
/// [`Error::Config`] for an option that GGUF has no key for; [`Error::Argument`] for a parameter
/// without a name there, or a vocabulary of more tokens than the model has; [`Error::Io`] if the file
/// cannot be written.
pub(crate) fn save(
    path: &Path,
    model: &impl Pretrained,
    vocabulary: Option<&GgmlVocabulary>,
    format: GgufFormat,
    architecture: &'static Architecture,
) -> Result<()> {
    let mut writer = GgufWriter::new();
    let config = model.config_json();
    writer.set(ARCHITECTURE, Value::String(architecture.name))?;
    if let Some(write) = architecture.write {
        write(&mut KeyWriter { config: &config, architecture: architecture.name, writer: &mut writer })?;
    }
    if let Some(name) = path.file_stem() {
        writer.set("general.name", Value::String(&name.to_string_lossy()))?;
    }
    writer.set("general.file_type", Value::U32(format.file_type()))?;
    writer.set("general.quantization_version", Value::U32(QUANTIZATION_VERSION))?;
    match vocabulary {
        Some(vocabulary) => {
            let rows = config["vocab_size"].as_u64().unwrap_or(0) as usize;
            vocabulary.filled_up(rows)?.write(&mut writer)?;
        }
        None => writer.set("tokenizer.ggml.model", Value::String("no_vocab"))?,
    }
    for (role, id) in roles(&config, vocabulary)? {
        writer.set(&format!("tokenizer.ggml.{role}_token_id"), Value::U32(id))?;
    }
    let heads = writer.heads(architecture.name);
    let parameters: BTreeMap<String, &Parameter> = model.parameters().into_iter().collect();
    const HEAD: &str = "output.weight";
    let has_head = parameters.keys().any(|path| architecture.to_gguf(path).as_deref() == Some(HEAD));
    for (path, parameter) in &parameters {
        let gguf = architecture.to_gguf(path);
        let gguf =
            gguf.ok_or_else(|| Error::argument("parameter", "one that GGUF has a name for", format!("`{path}`")))?;
        add(&mut writer, architecture, &gguf, parameter, heads, format)?;
        if architecture.repeats_table && gguf == "token_embd.weight" && !has_head {
            add(&mut writer, architecture, HEAD, parameter, heads, format)?;
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
    let mut shape = parameter.shape().to_vec();
    let arrangement = architecture.arrangement(gguf, &shape, heads);
    let arrangement = arrangement.map_err(|reason| Error::argument("parameter", reason, format!("`{gguf}`")))?;
    if arrangement == Arrangement::Transposed {
        shape.swap(0, 1);
    }
    let tensor_type = format.of(gguf, &shape);
    let (rows, columns) = (shape[0], shape.iter().skip(1).product::<usize>());
    writer.tensor(gguf, tensor_type, &shape, move || {
        let tensor = parameter.weight().to_tensor();
        let x = tensor.data();
        match arrangement {
            Arrangement::Same => to_bytes(tensor_type, x),
            Arrangement::Rows { .. } => {
                let mut y = vec![0.0; x.len()];
                for (row, x) in x.chunks_exact(columns).enumerate() {
                    let place = arrangement.row_in_file(row);
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

/// Numbers as a tensor of a file has them.
pub(super) fn to_bytes(tensor_type: TensorType, x: &[f32]) -> Vec<u8> {
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

/// What a vocabulary leaves unsaid of the tokens that begin, end and fill texts, from the
/// configuration. Up to three tokens may end a text: those of the roles `eos`, `eot` and `eom`.
///
/// # Errors
/// [`Error::Config`](crate::Error::Config) if more do.
fn roles(config: &Json, vocabulary: Option<&GgmlVocabulary>) -> Result<Vec<(String, u32)>> {
    // No model writes a token that it has no logit for.
    let rows = config["vocab_size"].as_u64().unwrap_or(0);
    let id = |value: &Json| value.as_u64().filter(|&id| id < rows).and_then(|id| u32::try_from(id).ok());
    let said = |role: &str| vocabulary.and_then(|vocabulary| vocabulary.role(role));
    let mut new = Vec::new();
    // A tokenizer without such a token is meant to have none: templates write it out.
    for (role, key) in [("bos", "bos_token_id"), ("padding", "pad_token_id")] {
        if let (None, Some(id)) = (vocabulary, id(&config[key])) {
            new.push((role.to_string(), id));
        }
    }
    let ends: Vec<u32> = match &config["eos_token_id"] {
        Json::Array(ids) => ids.iter().filter_map(id).collect(),
        one => id(one).into_iter().collect(),
    };
    let taken: Vec<u32> = ENDS.iter().filter_map(|role| said(role)).collect();
    let mut free = ENDS.iter().filter(|role| said(role).is_none());
    for (i, &id) in ends.iter().enumerate().filter(|(_, id)| !taken.contains(id)) {
        if ends[..i].contains(&id) {
            continue;
        }
        let Some(role) = free.next() else {
            let expected = "at most 3 ids with the tokenizer's: GGUF has no place for more";
            return Err(Error::config("eos_token_id", expected, &config["eos_token_id"]));
        };
        new.push((role.to_string(), id));
    }
    Ok(new)
}
