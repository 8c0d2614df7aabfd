//! The registry of model families, for everything that depends on `model_type` or on the
//! architecture of a GGUF file.

use std::path::Path;

use serde_json::Value;

use crate::checkpoint::gguf::architecture::Architecture;
use crate::checkpoint::gguf::{self, GgmlVocabulary, GgufFile, GgufFormat};
use crate::checkpoint::pretrained::CONFIG;
use crate::checkpoint::{Checkpoint, Pretrained, is_gguf, recognise};
use crate::error::{Error, Result};
use crate::mapped::Load;
use crate::models::encoder;
use crate::models::family::Family;
use crate::models::{gpt_neox, gpt2, llama, mlp, rnn};

/// All families. A new one needs a file, its module in `mod.rs` and a line here.
const FAMILIES: &[&Family] = &[
    &gpt2::FAMILY,
    &gpt_neox::FAMILY, // also Pythia
    &llama::FAMILY,    // also Mistral, Qwen2 and Qwen3
    &rnn::FAMILY,
    &mlp::FAMILY,
    &encoder::bert::FAMILY, // also RoBERTa, XLM-RoBERTa, CamemBERT and MPNet
    &encoder::distilbert::FAMILY,
];

/// Returns the family of a `model_type`.
pub(crate) fn find(model_type: &str) -> Option<&'static Family> {
    FAMILIES.iter().copied().find(|family| family.model_types.contains(&model_type))
}

/// Returns the family of a `config.json`.
///
/// # Errors
/// [`Error::Config`] if its `model_type` is not supported.
pub(crate) fn of(config: &Value) -> Result<&'static Family> {
    let family = config.get("model_type").and_then(Value::as_str).and_then(find);
    family.ok_or_else(|| unknown(config, |_| true))
}

/// Returns the error for a `model_type` that is not one of the families that `fits` accepts.
pub(crate) fn unknown(config: &Value, fits: impl Fn(&Family) -> bool) -> Error {
    let known: Vec<&str> =
        FAMILIES.iter().copied().filter(|family| fits(family)).flat_map(|family| family.model_types).copied().collect();
    let (last, others) = known.split_last().unwrap_or((&"", &[]));
    let found = config.get("model_type").and_then(Value::as_str).unwrap_or("none");
    Error::config("model_type", format!("{} or {last}", others.join(", ")), found)
}

/// Returns the GGUF architectures of all families.
fn architectures() -> impl Iterator<Item = &'static Architecture> {
    FAMILIES.iter().copied().flat_map(|family| family.gguf)
}

/// Returns the architecture of a GGUF file, if it is supported.
fn architecture(file: &GgufFile) -> Option<&'static Architecture> {
    let name = file.architecture()?;
    architectures().find(|architecture| architecture.name == name)
}

/// Returns the content of a folder's `config.json`, or a configuration made from the metadata of a
/// `.gguf` file.
///
/// # Errors
/// [`Error::Io`] if the file cannot be read; [`Error::Format`] if it is not a JSON object, or if
/// the path holds something other than a model, with what it is and what to do; [`Error::Config`]
/// if the architecture of a `.gguf` file is not supported.
pub fn read_config(folder: impl AsRef<Path>) -> Result<Value> {
    if is_gguf(&folder) {
        return gguf_config(&GgufFile::open(folder, Load::Mmap)?);
    }
    let path = folder.as_ref().join(CONFIG);
    if !path.is_file() {
        return Err(recognise::no_config(folder.as_ref())?);
    }
    let text = std::fs::read_to_string(&path).map_err(|e| Error::io(&path, e))?;
    let config: Value = serde_json::from_str(&text).map_err(|e| Error::format(&path, e.to_string()))?;
    if !config.is_object() {
        return Err(Error::format(path, "expected a JSON object"));
    }
    Ok(config)
}

/// Returns the configuration of the model in a GGUF file.
///
/// # Errors
/// [`Error::Format`] if a key is missing or wrong; [`Error::Config`] if the architecture or an
/// option is not supported.
fn gguf_config(file: &GgufFile) -> Result<Value> {
    let Some(name) = file.architecture() else {
        return Err(Error::format(file.path(), "expected `general.architecture`, found none"));
    };
    match architecture(file) {
        Some(architecture) => architecture.config_json(file),
        None => {
            let mut known: Vec<&str> = architectures().map(|architecture| architecture.name).collect();
            known.dedup();
            Err(Error::config("general.architecture", known.join(", "), name))
        }
    }
}

/// Opens the tensors of a model under their names in `transformers`: [`Checkpoint::open`], with
/// translated names for `.gguf` files of a supported architecture.
///
/// # Errors
/// Same as [`Checkpoint::open`]; [`Error::Format`] if the tensors of a `.gguf` file do not match
/// its architecture.
pub fn open_checkpoint(path: impl AsRef<Path>, load: Load) -> Result<Checkpoint> {
    if !is_gguf(&path) {
        return Checkpoint::open_with(path, load);
    }
    let file = GgufFile::open(path, load)?;
    let architecture = architecture(&file);
    Checkpoint::from_gguf(file, architecture)
}

/// Writes a decoder with its configuration, and its tokenizer if given, as a GGUF file that
/// llama.cpp opens. The file is written atomically.
///
/// With [`GgufFormat::F32`], the model opened from the file has the same logits bit for bit, and
/// text ends at the tokens of `eos_token_id` and those of the vocabulary. Settings for training
/// (dropout, the standard deviation of initial weights) are not stored.
///
/// ```
/// use loquat::checkpoint::gguf::GgufFormat;
/// use loquat::models::{CausalLm, Gpt2, Gpt2Config, LanguageModel, save_gguf};
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
/// [`Error::Config`] if GGUF cannot represent the architecture or an option; [`Error::Argument`] if
/// a parameter has no GGUF name, or if the vocabulary has more tokens than the model; [`Error::Io`]
/// if the file cannot be written.
pub fn save_gguf(
    path: impl AsRef<Path>,
    model: &impl Pretrained,
    vocabulary: Option<&GgmlVocabulary>,
    format: GgufFormat,
) -> Result<()> {
    save_gguf_with(path, model, vocabulary, format, &mut |_, _| ())
}

/// Same as [`save_gguf`], and calls `observer` after each tensor, with the bytes of the tensors
/// written so far and those of all tensors.
///
/// ```
/// use loquat::checkpoint::gguf::GgufFormat;
/// use loquat::models::{Gpt2, Gpt2Config, save_gguf_with};
/// use loquat::Rng;
///
/// let path = std::env::temp_dir().join("loquat-save-gguf-with-doc.gguf");
/// let model = Gpt2::init(&Gpt2Config::new(13, 16, 32, 2, 4), &mut Rng::seed(1))?;
/// let mut calls = Vec::new();
/// let observer = &mut |written, all| calls.push((written, all));
/// save_gguf_with(&path, &model, None, GgufFormat::F32, observer)?;
/// let (written, all) = calls[calls.len() - 1];
/// assert!(calls.len() > 20 && written == all);
/// # std::fs::remove_file(&path).ok();
/// # Ok::<(), loquat::Error>(())
/// ```
///
/// # Errors
/// Same as [`save_gguf`].
pub fn save_gguf_with(
    path: impl AsRef<Path>,
    model: &impl Pretrained,
    vocabulary: Option<&GgmlVocabulary>,
    format: GgufFormat,
    observer: &mut dyn FnMut(u64, u64),
) -> Result<()> {
    let config = model.config_json();
    let model_type = config["model_type"].as_str().unwrap_or("none");
    let writes = |architecture: &&Architecture| architecture.write.is_some();
    match architectures().filter(writes).find(|architecture| architecture.model_types.contains(&model_type)) {
        Some(architecture) => gguf::save(path.as_ref(), model, vocabulary, format, architecture, observer),
        None => Err(unknown(&config, |family| family.gguf.iter().any(|architecture| writes(&architecture)))),
    }
}
