//! Opening of folders with `config.json` and `model.safetensors`, as written by all versions of
//! `transformers`.

use std::path::Path;

use serde_json::Value;

use super::architecture::Names;
use super::body::TextEncoder;
use super::config::EncoderConfig;
use super::heads::{Head, WithHead};
use crate::checkpoint::{Checkpoint, Loader, OpenOptions};
use crate::error::Result;
use crate::models::families::{self, open_checkpoint, read_config};

/// Prefixes of the names of heads. Tensors of a head that the model does not have are ignored,
/// while every tensor of the body must match.
const HEADS: [&str; 6] = ["cls.", "lm_head.", "vocab_", "classifier.", "pre_classifier.", "qa_outputs."];

impl EncoderConfig {
    /// Parses the content of a `config.json`. Missing keys have the default values of
    /// `transformers`.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config) if the architecture or an option is not supported.
    pub fn from_json(json: &Value) -> Result<Self> {
        let read = families::of(json)?.encoder.ok_or_else(|| families::unknown(json, |f| f.encoder.is_some()))?;
        let config = read(json)?;
        config.architecture()?;
        Ok(config)
    }

    /// Returns whether [`EncoderConfig::from_json`] supports this `model_type`.
    pub fn supports(model_type: &str) -> bool {
        families::find(model_type).is_some_and(|family| family.encoder.is_some())
    }
}

impl TextEncoder {
    /// Opens the encoder in a folder, with or without a head in the checkpoint, and with its pooler
    /// if there is one.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config) if the architecture or an option is not supported;
    /// [`Error::Load`](crate::Error::Load) with every tensor that does not match;
    /// [`Error::Format`](crate::Error::Format) or [`Error::Io`](crate::Error::Io) if a file cannot
    /// be read.
    pub fn open(folder: impl AsRef<Path>) -> Result<Self> {
        Self::open_with(folder, &OpenOptions::default())
    }

    /// Same as [`TextEncoder::open`], with options.
    ///
    /// # Errors
    /// Same as [`TextEncoder::open`].
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
    /// Same as [`TextEncoder::open`].
    pub fn open(folder: impl AsRef<Path>) -> Result<Self> {
        Self::open_with(folder, &OpenOptions::default())
    }

    /// Same as [`WithHead::open`], with options.
    ///
    /// # Errors
    /// Same as [`WithHead::open`].
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
    // Checkpoints that were converted from TensorFlow early have its names.
    for (ours, theirs) in [("weight", "gamma"), ("bias", "beta")] {
        if checkpoint.names().any(|name| name.ends_with(&format!("LayerNorm.{theirs}"))) {
            loader = loader.rename(&format!("LayerNorm.{ours}"), &format!("LayerNorm.{theirs}"));
        }
    }
    loader
}
