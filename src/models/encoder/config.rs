//! The configuration of an encoder of any supported architecture.

use serde_json::{Map, Value};

use super::architecture::{Architecture, labels, set_labels};
use super::bert::BertConfig;
use super::distilbert::DistilBertConfig;
use crate::error::Result;

/// The sizes and options of a [`TextEncoder`](super::TextEncoder).
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum EncoderConfig {
    /// BERT, RoBERTa or MPNet, according to `model_type`.
    Bert(BertConfig),
    /// DistilBERT.
    DistilBert(DistilBertConfig),
}

impl From<BertConfig> for EncoderConfig {
    fn from(config: BertConfig) -> Self {
        Self::Bert(config)
    }
}

impl From<DistilBertConfig> for EncoderConfig {
    fn from(config: DistilBertConfig) -> Self {
        Self::DistilBert(config)
    }
}

impl EncoderConfig {
    /// Returns the content of a `config.json`.
    pub fn to_json(&self) -> Value {
        match self {
            Self::Bert(config) => serde_json::json!(config),
            Self::DistilBert(config) => serde_json::json!(config),
        }
    }

    /// Returns the class names of a head, in the order of its logits; `LABEL_0`, `LABEL_1`, … if
    /// the file has none.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config) if `id2label` is not a map from 0, 1, 2, … to names,
    /// or `num_labels` is not its length.
    pub fn labels(&self) -> Result<Vec<String>> {
        labels(self.other())
    }

    /// Sets the class names of a head.
    pub fn set_labels<S: AsRef<str>>(&mut self, labels: &[S]) {
        set_labels(self.other_mut(), labels);
    }

    /// Returns the width of the hidden states.
    pub fn hidden_size(&self) -> usize {
        match self {
            Self::Bert(config) => config.hidden_size,
            Self::DistilBert(config) => config.dim,
        }
    }

    /// Returns the largest number of tokens in a sequence.
    pub fn max_seq_len(&self) -> usize {
        match self {
            Self::Bert(config) => config.max_seq_len(),
            Self::DistilBert(config) => config.max_position_embeddings,
        }
    }

    /// Returns the keys without a field.
    pub(crate) fn other(&self) -> &Map<String, Value> {
        match self {
            Self::Bert(config) => &config.other,
            Self::DistilBert(config) => &config.other,
        }
    }

    /// Same as [`EncoderConfig::other`], for changes.
    pub(crate) fn other_mut(&mut self) -> &mut Map<String, Value> {
        match self {
            Self::Bert(config) => &mut config.other,
            Self::DistilBert(config) => &mut config.other,
        }
    }

    /// Returns the description that the body and the heads are built from.
    pub(super) fn architecture(&self) -> Result<Architecture> {
        let architecture = match self {
            Self::Bert(config) => config.architecture()?,
            Self::DistilBert(config) => config.architecture()?,
        };
        architecture.check()?;
        Ok(architecture)
    }
}
