//! Folders: `config.json` and `model.safetensors`, as `transformers` writes and wrote them.

use std::path::Path;

use serde_json::Value;

use super::architecture::Names;
use super::body::TextEncoder;
use super::config::EncoderConfig;
use super::heads::{Head, WithHead};
use crate::checkpoint::{Checkpoint, Loader, OpenOptions};
use crate::error::Result;
use crate::models::families::{self, open_checkpoint, read_config};

/// Beginnings of the names of heads: what a model does not ask for of them, it does not need. Of the body, every name must fit.
const HEADS: [&str; 6] = ["cls.", "lm_head.", "vocab_", "classifier.", "pre_classifier.", "qa_outputs."];

impl EncoderConfig {
    /// Reads the content of a `config.json`. Keys that it lacks have the values that `transformers` gives them.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config) for an architecture or option that is not known, with its key.
    pub fn from_json(json: &Value) -> Result<Self> {
        let read = families::of(json)?.encoder.ok_or_else(|| families::unknown(json, |f| f.encoder.is_some()))?;
        let config = read(json)?;
        config.architecture()?;
        Ok(config)
    }

    /// Whether [`EncoderConfig::from_json`] knows this `model_type`.
    pub fn knows(model_type: &str) -> bool {
        families::find(model_type).is_some_and(|family| family.encoder.is_some())
    }
}

impl TextEncoder {
    /// Opens the body of a folder, whether there is a head on it or not; with the pooler if there is one.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config) for an architecture or option that is not known;
    /// [`Error::Load`](crate::Error::Load) with every tensor that does not fit; [`Error::Format`](crate::Error::Format) or
    /// [`Error::Io`](crate::Error::Io) for files that cannot be read.
    pub fn open(folder: impl AsRef<Path>) -> Result<Self> {
        Self::open_with(folder, &OpenOptions::default())
    }

    /// As [`TextEncoder::open`], with options.
    ///
    /// # Errors
    /// As there.
    pub fn open_with(folder: impl AsRef<Path>, options: &OpenOptions) -> Result<Self> {
        let (config, checkpoint) = read(folder.as_ref(), options)?;
        let names = config.architecture()?.names;
        let pooler = [String::new(), format!("{}.", names.prefix)]
            .iter()
            .any(|prefix| checkpoint.tensor(&format!("{prefix}pooler.dense.weight")).is_some());
        loader(&checkpoint, names).options(options).load(|p| Self::init(&config, pooler, p))
    }
}

impl<H: Head> WithHead<H> {
    /// Opens a folder whose checkpoint has this head.
    ///
    /// # Errors
    /// As for [`TextEncoder::open`].
    pub fn open(folder: impl AsRef<Path>) -> Result<Self> {
        Self::open_with(folder, &OpenOptions::default())
    }

    /// As [`WithHead::open`], with options.
    ///
    /// # Errors
    /// As there.
    pub fn open_with(folder: impl AsRef<Path>, options: &OpenOptions) -> Result<Self> {
        let (config, checkpoint) = read(folder.as_ref(), options)?;
        let names = config.architecture()?.names;
        let mut loader = loader(&checkpoint, names).options(options);
        let decoder_bias = format!("{}.bias", names.mlm.decoder);
        let tied = config.architecture()?.tie_word_embeddings;
        if tied || checkpoint.tensor(&decoder_bias).is_none() {
            loader = loader.tie(&decoder_bias, names.mlm.bias);
        }
        if tied {
            let table = format!("{}.embeddings.word_embeddings.weight", names.prefix);
            loader = loader.tie(&format!("{}.weight", names.mlm.decoder), &table);
        }
        loader.load(|p| Self::init(&config, p))
    }
}

fn read(folder: &Path, options: &OpenOptions) -> Result<(EncoderConfig, Checkpoint)> {
    Ok((EncoderConfig::from_json(&read_config(folder)?)?, open_checkpoint(folder, options.load)?))
}

fn loader<'c>(checkpoint: &'c Checkpoint, names: &'static Names) -> Loader<'c> {
    let mut loader = checkpoint.loader().optional_prefix(&format!("{}.", names.prefix)).ignore(move |name| {
        let inner = name.strip_prefix(names.prefix).map_or(name, |inner| inner.trim_start_matches('.'));
        HEADS.iter().any(|head| name.starts_with(head))
            || inner.starts_with("pooler.")
            || inner == "embeddings.position_ids"
            || inner == "embeddings.token_type_ids"
    });
    // The names of TensorFlow's checkpoints live on in those that were converted early.
    for (ours, theirs) in [("weight", "gamma"), ("bias", "beta")] {
        if checkpoint.names().any(|name| name.ends_with(&format!("LayerNorm.{theirs}"))) {
            loader = loader.rename(&format!("LayerNorm.{ours}"), &format!("LayerNorm.{theirs}"));
        }
    }
    loader
}
