//! The registry of model families: whatever depends on `model_type`, or on the architecture of a GGUF
//! file, goes through it.

use std::path::Path;

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::checkpoint::gguf::architecture::Architecture;
use crate::checkpoint::gguf::{self, GgmlVocabulary, GgufFile, GgufFormat};
use crate::checkpoint::pretrained::CONFIG;
use crate::checkpoint::{Checkpoint, OpenOptions, Pretrained, is_gguf, recognise};
use crate::error::{Error, Result};
use crate::mapped::Load;
use crate::models::encoder::{self, EncoderConfig};
use crate::models::{LanguageModel, gpt_neox, gpt2, llama, mlp, rnn};
use crate::nn::Parameters;

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

/// What the crate knows of a family.
pub(crate) struct Family {
    /// The values of `model_type` in `config.json`.
    pub(crate) model_types: &'static [&'static str],
    /// The keys of its sizes, if it is a Transformer.
    pub(crate) sizes: Option<SizeKeys>,
    /// Opens a causal language model, if it is one.
    pub(crate) open: Option<fn(&Source<'_>) -> Result<LanguageModel>>,
    /// Reads the configuration of an encoder, if it is one.
    pub(crate) encoder: Option<fn(&Value) -> Result<EncoderConfig>>,
    /// Its architectures in GGUF.
    pub(crate) gguf: &'static [Architecture],
}

impl Family {
    /// To be filled in: nothing is known.
    pub(crate) const NONE: Self = Self { model_types: &[], sizes: None, open: None, encoder: None, gguf: &[] };
}

/// Keys of `config.json` for the sizes that [`estimate`](mod@super::estimate) reads.
pub(crate) struct SizeKeys {
    pub(crate) hidden: &'static str,
    pub(crate) layers: &'static str,
    pub(crate) heads: &'static str,
    pub(crate) kv_heads: &'static str,
    pub(crate) intermediate: &'static str,
}

impl SizeKeys {
    /// Those of Llama, BERT and most others.
    pub(crate) const USUAL: Self = Self {
        hidden: "hidden_size",
        layers: "num_hidden_layers",
        heads: "num_attention_heads",
        kv_heads: "num_key_value_heads",
        intermediate: "intermediate_size",
    };
}

/// In what the names of checkpoints differ from the paths of a model's fields.
pub(crate) struct Names {
    /// What checkpoints of the bare model leave out, with its dot.
    pub(crate) prefix: &'static str,
    /// Ends of names that hold no parameters.
    pub(crate) ignored: &'static [&'static str],
    /// The token table.
    pub(crate) table: &'static str,
    /// The head, which may be the token table.
    pub(crate) head: &'static str,
}

impl Names {
    /// Of a model that only this crate saves.
    pub(crate) const OWN: Self = Self { prefix: "", ignored: &[], table: "", head: "" };
}

/// A model's folder or file.
pub(crate) struct Source<'a> {
    pub(crate) path: &'a Path,
    pub(crate) config: &'a Value,
    pub(crate) options: &'a OpenOptions,
}

impl Source<'_> {
    /// The configuration.
    ///
    /// # Errors
    /// [`Error::Format`] naming the key that does not fit.
    pub(crate) fn config<C: DeserializeOwned>(&self) -> Result<C> {
        C::deserialize(self.config).map_err(|e| Error::format(self.path.join(CONFIG), e.to_string()))
    }

    /// The model with the parameters of the checkpoint; `tied` if the head is the token table.
    ///
    /// # Errors
    /// [`Error::Load`] with every tensor that does not fit; [`Error::Format`] or [`Error::Io`] for
    /// files that cannot be read.
    pub(crate) fn load<M>(
        &self,
        names: &Names,
        tied: bool,
        init: impl FnOnce(Parameters<'_>) -> Result<M>,
    ) -> Result<LanguageModel>
    where
        M: super::CausalLm<State: std::fmt::Debug + 'static> + Pretrained + Clone + std::fmt::Debug + 'static,
    {
        let checkpoint = open_checkpoint(self.path, self.options.load)?;
        let ignored = |name: &str| names.ignored.iter().any(|end| name.ends_with(end));
        let mut loader = checkpoint.loader().options(self.options).optional_prefix(names.prefix).ignore(ignored);
        if tied {
            loader = loader.tie(names.table, names.head);
        }
        loader.load(init).map(LanguageModel::new)
    }
}

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
