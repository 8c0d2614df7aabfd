//! Saving whole models: every key of a `config.json` is written, has the value that readers assume,
//! or is an error. Settings of training (dropout, initialisation) are left out.

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

/// Format of the matrices in a file saved by [`save_gguf`](crate::models::save_gguf). Norms, biases
/// and position embeddings are always f32.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum GgufFormat {
    /// f32.
    F32,
    /// IEEE half precision.
    F16,
    /// 8-bit blocks of 32 numbers with one scale; matrices whose row length is not a multiple of 32
    /// are saved in half precision.
    Q8_0,
}

impl GgufFormat {
    /// GGUF's number of the format.
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

/// Saves a model with its configuration, and its tokenizer if there is one, as a file of an
/// architecture.
///
/// # Errors
/// [`Error::Config`] for an option without a GGUF key; [`Error::Argument`] for a parameter without
/// a GGUF name, or a vocabulary with more tokens than the model; [`Error::Io`] if the file cannot
/// be written.
pub(crate) fn save(
    path: &Path,
    model: &impl Pretrained,
    vocabulary: Option<&GgmlVocabulary>,
    format: GgufFormat,
    architecture: &'static Architecture,
    observer: &mut dyn FnMut(u64, u64),
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
        let gguf = gguf.ok_or_else(|| Error::argument("parameter", "one with a name in GGUF", format!("`{path}`")))?;
        add(&mut writer, architecture, &gguf, parameter, heads, format)?;
        if architecture.repeats_table && gguf == "token_embd.weight" && !has_head {
            add(&mut writer, architecture, HEAD, parameter, heads, format)?;
        }
    }
    writer.save_with(path, observer)
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

/// Converts numbers to a tensor's bytes.
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

/// Returns the begin, end and padding tokens that the vocabulary does not define, from the
/// configuration. Up to three end tokens are supported, with the roles `eos`, `eot` and `eom`.
///
/// # Errors
/// [`Error::Config`](crate::Error::Config) for more end tokens.
fn roles(config: &Json, vocabulary: Option<&GgmlVocabulary>) -> Result<Vec<(String, u32)>> {
    // A token without a logit is never generated.
    let rows = config["vocab_size"].as_u64().unwrap_or(0);
    let id = |value: &Json| value.as_u64().filter(|&id| id < rows).and_then(|id| u32::try_from(id).ok());
    let role_id = |role: &str| vocabulary.and_then(|vocabulary| vocabulary.role(role));
    let mut new = Vec::new();
    // A tokenizer without such a token does not use it: templates spell it out.
    for (role, key) in [("bos", "bos_token_id"), ("padding", "pad_token_id")] {
        if let (None, Some(id)) = (vocabulary, id(&config[key])) {
            new.push((role.to_string(), id));
        }
    }
    let ends: Vec<u32> = match &config["eos_token_id"] {
        Json::Array(ids) => ids.iter().filter_map(id).collect(),
        one => id(one).into_iter().collect(),
    };
    let taken: Vec<u32> = ENDS.iter().filter_map(|role| role_id(role)).collect();
    let mut free = ENDS.iter().filter(|role| role_id(role).is_none());
    for (i, &id) in ends.iter().enumerate().filter(|(_, id)| !taken.contains(id)) {
        if ends[..i].contains(&id) {
            continue;
        }
        let Some(role) = free.next() else {
            let expected = "at most 3 ids including the tokenizer's (GGUF cannot store more)";
            return Err(Error::config("eos_token_id", expected, &config["eos_token_id"]));
        };
        new.push((role.to_string(), id));
    }
    Ok(new)
}
