//! The registry of model families: whatever depends on `model_type`, or on the architecture of a GGUF
//! file, goes through it.

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

/// Every family: a new one is a file, its module in `mod.rs` and a line here.
const FAMILIES: &[&Family] = &[
    &gpt2::FAMILY,
    &gpt_neox::FAMILY, // Pythia too
    &llama::FAMILY,    // Mistral, Qwen2 and Qwen3 too
    &rnn::FAMILY,
    &mlp::FAMILY,
    &encoder::bert::FAMILY, // RoBERTa, XLM-RoBERTa, CamemBERT and MPNet too
    &encoder::distilbert::FAMILY,
];

/// The family of a `model_type`.
pub(crate) fn find(model_type: &str) -> Option<&'static Family> {
    FAMILIES.iter().copied().find(|family| family.model_types.contains(&model_type))
}

/// The family of a `config.json`.
///
/// # Errors
/// [`Error::Config`] for one that is not known.
pub(crate) fn of(config: &Value) -> Result<&'static Family> {
    let family = config.get("model_type").and_then(Value::as_str).and_then(find);
    family.ok_or_else(|| unknown(config, |_| true))
}

/// The error of a `model_type` that is not one of the families that `fits` accepts.
pub(crate) fn unknown(config: &Value, fits: impl Fn(&Family) -> bool) -> Error {
    let known: Vec<&str> =
        FAMILIES.iter().copied().filter(|family| fits(family)).flat_map(|family| family.model_types).copied().collect();
    let (last, others) = known.split_last().unwrap_or((&"", &[]));
    let found = config.get("model_type").and_then(Value::as_str).unwrap_or("none");
    Error::config("model_type", format!("{} or {last}", others.join(", ")), found)
}

/// Every architecture of GGUF files.
fn architectures() -> impl Iterator<Item = &'static Architecture> {
    FAMILIES.iter().copied().flat_map(|family| family.gguf)
}

/// The architecture of a GGUF file.
fn architecture(file: &GgufFile) -> Option<&'static Architecture> {
    let name = file.architecture()?;
    architectures().find(|architecture| architecture.name == name)
}

/// The content of a folder's `config.json`, or what the metadata of a `.gguf` file says in its stead.
///
/// # Errors
/// [`Error::Io`] if it cannot be read; [`Error::Format`] if it is no JSON object, or if there is
/// something else than a model, with what it is and what to do; [`Error::Config`] for an architecture
/// of a `.gguf` file that is not known.
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

/// The `config.json` of the model in a GGUF file.
///
/// # Errors
/// [`Error::Format`] naming a key that is missing or wrong; [`Error::Config`] for an architecture or
/// option that is not known.
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

/// Opens the tensors of a model under the names that `transformers` gives them: [`Checkpoint::open`],
/// with the names in a `.gguf` file translated if its architecture is known.
///
/// # Errors
/// Same as [`Checkpoint::open`]; [`Error::Format`] if the tensors of a `.gguf` file contradict its
/// architecture.
pub fn open_checkpoint(path: impl AsRef<Path>, load: Load) -> Result<Checkpoint> {
    if !is_gguf(&path) {
        return Checkpoint::open_with(path, load);
    }
    let file = GgufFile::open(path, load)?;
    let architecture = architecture(&file);
    Checkpoint::from_gguf(file, architecture)
}

/// Writes a decoder with its configuration, and its tokenizer if there is one, as a GGUF file that
/// llama.cpp opens. The file appears whole or not at all.
///
/// With [`GgufFormat::F32`] the file opens to a model of the same logits, to the bit, and a text
/// ends at the tokens of `eos_token_id` and at those of the vocabulary. What only training looks at
/// (dropout, the spread of fresh weights) is not in the file.
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
/// [`Error::Config`] for an architecture or option that GGUF cannot say; [`Error::Argument`] for a parameter without a name there, or
/// a vocabulary of more tokens than the model has;
/// [`Error::Io`] if the file cannot be written.
pub fn save_gguf(
    path: impl AsRef<Path>,
    model: &impl Pretrained,
    vocabulary: Option<&GgmlVocabulary>,
    format: GgufFormat,
) -> Result<()> {
    let config = model.config_json();
    let model_type = config["model_type"].as_str().unwrap_or("none");
    let writes = |architecture: &&Architecture| architecture.write.is_some();
    match architectures().filter(writes).find(|architecture| architecture.model_types.contains(&model_type)) {
        Some(architecture) => gguf::save(path.as_ref(), model, vocabulary, format, architecture),
        None => Err(unknown(&config, |family| family.gguf.iter().any(|architecture| writes(&architecture)))),
    }
}
