//! `config.json` of an encoder, whichever architecture it is of.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Map, Value};

use super::bert::BertConfig;
use super::distilbert::DistilBertConfig;
use crate::checkpoint::config_keys::check_other;
use crate::error::{Error, Result};
use crate::ops::Activation;

/// The sizes and options of a [`TextEncoder`](super::TextEncoder).
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum EncoderConfig {
    /// Of BERT, RoBERTa and MPNet, as `model_type` says.
    Bert(BertConfig),
    /// Of DistilBERT.
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
    /// Reads the content of a `config.json`. Keys that it lacks have the values that `transformers` gives them.
    ///
    /// # Errors
    /// [`Error::Config`] for an architecture or option that is not known, with its key.
    pub fn from_json(json: &Value) -> Result<Self> {
        let model_type = json.get("model_type").and_then(Value::as_str).unwrap_or("none");
        let config = match model_type {
            "distilbert" => Self::DistilBert(overlaid(&DistilBertConfig::default(), json)?),
            other => match BertConfig::defaults(other) {
                Some(defaults) => Self::Bert(overlaid(&defaults, json)?),
                None => {
                    return Err(config_error("model_type", &format!("{} or distilbert", BertConfig::KNOWN), other));
                }
            },
        };
        config.architecture()?;
        Ok(config)
    }

    /// Whether [`EncoderConfig::from_json`] knows this `model_type`.
    pub fn knows(model_type: &str) -> bool {
        model_type == "distilbert" || BertConfig::defaults(model_type).is_some()
    }

    /// The content of a `config.json`.
    pub fn to_json(&self) -> Value {
        match self {
            Self::Bert(config) => serde_json::json!(config),
            Self::DistilBert(config) => serde_json::json!(config),
        }
    }

    /// The names of the classes that a head tells apart, in the order of its logits; `LABEL_0`, `LABEL_1` if the file names none.
    ///
    /// # Errors
    /// [`Error::Config`] if `id2label` is no map from 0, 1, 2 … to names, or `num_labels` differs from it.
    pub fn labels(&self) -> Result<Vec<String>> {
        let other = match self {
            Self::Bert(config) => &config.other,
            Self::DistilBert(config) => &config.other,
        };
        labels(other)
    }

    /// Names the classes that a head is to tell apart.
    pub fn set_labels<S: AsRef<str>>(&mut self, labels: &[S]) {
        match self {
            Self::Bert(config) => set_labels(&mut config.other, labels),
            Self::DistilBert(config) => set_labels(&mut config.other, labels),
        }
    }

    /// The width of the hidden states.
    pub fn hidden_size(&self) -> usize {
        match self {
            Self::Bert(config) => config.hidden_size,
            Self::DistilBert(config) => config.dim,
        }
    }

    /// The largest number of tokens in a sequence.
    pub fn max_seq_len(&self) -> usize {
        match self {
            Self::Bert(config) => config.max_seq_len(),
            Self::DistilBert(config) => config.max_position_embeddings,
        }
    }

    /// What the body and the heads are built from.
    pub(super) fn architecture(&self) -> Result<Architecture> {
        let architecture = match self {
            Self::Bert(config) => config.architecture()?,
            Self::DistilBert(config) => config.architecture()?,
        };
        architecture.check()?;
        Ok(architecture)
    }
}

/// The configuration that `defaults` becomes by what the file says.
fn overlaid<C: Serialize + serde::de::DeserializeOwned>(defaults: &C, json: &Value) -> Result<C> {
    let mut all = serde_json::json!(defaults);
    if let (Value::Object(all), Value::Object(given)) = (&mut all, json) {
        all.extend(given.clone());
    }
    C::deserialize(all).map_err(|e| config_error("config.json", "the keys of transformers", e))
}

pub(super) fn config_error(key: &str, expected: &str, found: impl std::fmt::Display) -> Error {
    Error::Config { key: key.into(), expected: expected.into(), found: found.to_string() }
}

/// The non-linearity that a key names.
pub(super) fn activation(key: &str, name: &str) -> Result<Activation> {
    match name {
        "gelu" => Ok(Activation::Gelu),
        "gelu_new" | "gelu_pytorch_tanh" | "gelu_fast" => Ok(Activation::GeluTanh),
        "relu" => Ok(Activation::Relu),
        "silu" | "swish" => Ok(Activation::Silu),
        other => Err(config_error(key, "gelu, gelu_new, relu or silu", other)),
    }
}

fn labels(other: &Map<String, Value>) -> Result<Vec<String>> {
    let count = other.get("num_labels").and_then(Value::as_u64);
    let Some(Value::Object(named)) = other.get("id2label") else {
        let count = count.unwrap_or(2);
        if !(1..1 << 20).contains(&count) {
            return Err(config_error("num_labels", "a number from 1 to 2^20", count));
        }
        return Ok((0..count).map(|i| format!("LABEL_{i}")).collect());
    };
    let mut by_id = BTreeMap::new();
    for (id, name) in named {
        let (Ok(id), Value::String(name)) = (id.parse::<usize>(), name) else {
            return Err(config_error("id2label", "a map from numbers to names", format_args!("{id}: {name}")));
        };
        by_id.insert(id, name.clone());
    }
    if by_id.is_empty() || !by_id.keys().copied().eq(0..by_id.len()) || named.len() != by_id.len() {
        return Err(config_error(
            "id2label",
            "the numbers from 0 on, each once",
            format_args!("{} others", named.len()),
        ));
    }
    if count.is_some_and(|count| count != by_id.len() as u64) {
        return Err(config_error("num_labels", &format!("{}, as in id2label", by_id.len()), count.unwrap_or(0)));
    }
    Ok(by_id.into_values().collect())
}

pub(super) fn set_labels<S: AsRef<str>>(other: &mut Map<String, Value>, labels: &[S]) {
    let names = || labels.iter().map(AsRef::as_ref).enumerate();
    other.remove("num_labels");
    other.insert("id2label".into(), names().map(|(i, name)| (i.to_string(), Value::from(name))).collect());
    other.insert("label2id".into(), names().map(|(i, name)| (name.to_string(), Value::from(i))).collect());
}

/// What the architectures have in common, by meaning instead of by key.
#[derive(Clone, Debug)]
pub(super) struct Architecture {
    pub(super) names: &'static Names,
    pub(super) vocab_size: usize,
    pub(super) d_model: usize,
    pub(super) n_layers: usize,
    pub(super) n_heads: usize,
    pub(super) d_ff: usize,
    pub(super) max_positions: usize,
    /// 0 if there are none.
    pub(super) token_types: usize,
    /// Buckets of distances that scores get a number for.
    pub(super) relative_buckets: Option<usize>,
    /// The token whose position is its own id, while the others count from the next.
    pub(super) pad_position: Option<u32>,
    pub(super) activation: Activation,
    pub(super) eps: f32,
    pub(super) initializer_range: f32,
    pub(super) dropout: f32,
    pub(super) attention_dropout: f32,
    pub(super) tie_word_embeddings: bool,
    pub(super) heads: HeadOptions,
}

/// Where the heads differ.
#[derive(Clone, Copy, Debug)]
pub(super) struct HeadOptions {
    /// Inside the head of masked language modelling.
    pub(super) mlm_activation: Activation,
    /// Between the two layers of the sequence classifier.
    pub(super) pooled_activation: Activation,
    /// Whether dropout comes before its first layer too.
    pub(super) dropout_first: bool,
    pub(super) sequence_dropout: f32,
    pub(super) token_dropout: f32,
    pub(super) span_dropout: f32,
}

/// The names of an architecture's checkpoints.
#[derive(Debug)]
pub(super) struct Names {
    /// What the classes of `transformers` begin with.
    pub(super) class: &'static str,
    /// What the body's names begin with where there is a head.
    pub(super) prefix: &'static str,
    pub(super) layers: &'static str,
    pub(super) layer: LayerNames,
    pub(super) mlm: MlmNames,
    /// The two layers of the sequence classifier.
    pub(super) pooled: &'static str,
    pub(super) classifier: &'static str,
}

#[derive(Debug)]
pub(super) struct LayerNames {
    pub(super) query: &'static str,
    pub(super) key: &'static str,
    pub(super) value: &'static str,
    pub(super) attention_output: &'static str,
    pub(super) attention_norm: &'static str,
    pub(super) intermediate: &'static str,
    pub(super) output: &'static str,
    pub(super) norm: &'static str,
}

#[derive(Debug)]
pub(super) struct MlmNames {
    pub(super) dense: &'static str,
    pub(super) norm: &'static str,
    /// The last layer, whose weight is usually the token table.
    pub(super) decoder: &'static str,
    /// The bias of the last layer.
    pub(super) bias: &'static str,
}

impl Architecture {
    fn check(&self) -> Result<()> {
        let sizes = [
            ("vocab_size", self.vocab_size),
            ("hidden size", self.d_model),
            ("number of layers", self.n_layers),
            ("number of heads", self.n_heads),
            ("intermediate size", self.d_ff),
            ("max_position_embeddings", self.max_positions),
            ("type_vocab_size", self.token_types.max(1)),
            ("relative_attention_num_buckets", self.relative_buckets.unwrap_or(1)),
        ];
        for (key, size) in sizes {
            if !(1..1 << 28).contains(&size) {
                return Err(config_error(key, "a number from 1 to 2^28 - 1", size));
            }
        }
        if !self.d_model.is_multiple_of(self.n_heads) {
            return Err(config_error("number of heads", &format!("a divisor of {}", self.d_model), self.n_heads));
        }
        let HeadOptions { sequence_dropout, token_dropout, span_dropout, .. } = self.heads;
        for p in [self.dropout, self.attention_dropout, sequence_dropout, token_dropout, span_dropout] {
            if !(0.0..1.0).contains(&p) {
                return Err(config_error("dropout", "a probability in [0, 1)", p));
            }
        }
        Ok(())
    }
}

/// Every key that may change what a model computes is an error.
pub(super) fn refuse(other: &Map<String, Value>) -> Result<()> {
    check_other(other)
}
