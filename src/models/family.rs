//! The description of a model family, for the registry in `families`.

use std::fmt::Debug;
use std::path::Path;

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::checkpoint::gguf::architecture::Architecture;
use crate::checkpoint::pretrained::CONFIG;
use crate::checkpoint::{Checkpoint, OpenOptions, Pretrained};
use crate::error::{Error, Result};
use crate::mapped::Load;
use crate::models::encoder::EncoderConfig;
use crate::models::{CausalLm, LanguageModel};
use crate::nn::Parameters;

/// A model family.
pub(crate) struct Family {
    /// The values of `model_type` in `config.json`.
    pub(crate) model_types: &'static [&'static str],
    /// The keys of its sizes, if it is a transformer.
    pub(crate) sizes: Option<SizeKeys>,
    /// Opens a causal language model, if the family has one.
    pub(crate) open: Option<fn(&Source<'_>) -> Result<LanguageModel>>,
    /// Reads the configuration of an encoder, if the family has one.
    pub(crate) encoder: Option<fn(&Value) -> Result<EncoderConfig>>,
    /// The GGUF architectures of the family.
    pub(crate) gguf: &'static [Architecture],
}

impl Family {
    /// An empty description, to be filled in.
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
    /// The keys of Llama, BERT and most others.
    pub(crate) const USUAL: Self = Self {
        hidden: "hidden_size",
        layers: "num_hidden_layers",
        heads: "num_attention_heads",
        kv_heads: "num_key_value_heads",
        intermediate: "intermediate_size",
    };
}

/// How the names in checkpoints differ from the paths of a model's fields.
pub(crate) struct Names {
    /// The prefix, with its dot, that checkpoints of the bare model omit.
    pub(crate) prefix: &'static str,
    /// Suffixes of names that are not parameters.
    pub(crate) ignored: &'static [&'static str],
    /// The name of the token embeddings.
    pub(crate) table: &'static str,
    /// The name of the LM head, which may be tied to the token embeddings.
    pub(crate) head: &'static str,
}

impl Names {
    /// The names of a model that only this crate saves.
    pub(crate) const OWN: Self = Self { prefix: "", ignored: &[], table: "", head: "" };
}

/// The folder or file of a model.
pub(crate) struct Source<'a> {
    pub(crate) path: &'a Path,
    pub(crate) config: &'a Value,
    pub(crate) options: &'a OpenOptions,
    /// Opens the tensors under their names in `transformers`.
    pub(crate) checkpoint: fn(&Path, Load) -> Result<Checkpoint>,
}

impl Source<'_> {
    /// Parses the configuration.
    ///
    /// # Errors
    /// [`Error::Format`] if a key is missing or wrong.
    pub(crate) fn config<C: DeserializeOwned>(&self) -> Result<C> {
        C::deserialize(self.config).map_err(|e| Error::format(self.path.join(CONFIG), e.to_string()))
    }

    /// Loads the model's parameters from the checkpoint; `tied` if the LM head is tied to the token
    /// embeddings.
    ///
    /// # Errors
    /// [`Error::Load`] with every tensor that does not match; [`Error::Format`] or [`Error::Io`] if
    /// a file cannot be read.
    pub(crate) fn load<M>(
        &self,
        names: &Names,
        tied: bool,
        init: impl FnOnce(Parameters<'_>) -> Result<M>,
    ) -> Result<LanguageModel>
    where
        M: CausalLm<State: Debug + 'static> + Pretrained + Clone + Debug + 'static,
    {
        let checkpoint = (self.checkpoint)(self.path, self.options.load)?;
        let ignored = |name: &str| names.ignored.iter().any(|end| name.ends_with(end));
        let mut loader = checkpoint.loader().options(self.options).optional_prefix(names.prefix).ignore(ignored);
        if tied {
            loader = loader.tie(names.table, names.head);
        }
        loader.load(init).map(LanguageModel::new)
    }
}
