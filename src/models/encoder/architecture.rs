//! The common description of the encoder architectures: sizes, options of the heads, names in
//! checkpoints, labels.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::checkpoint::config_keys::{check_dropout, check_sizes};
use crate::error::{Error, Result};
use crate::nn::attention::AttentionNames;
use crate::nn::feed_forward::FeedForwardNames;
use crate::ops::Activation;

/// The sizes and options of an encoder, independent of the keys of its `config.json`.
#[derive(Clone, Debug)]
pub(super) struct Architecture {
    pub(super) names: &'static Names,
    pub(super) vocab_size: usize,
    pub(super) d_model: usize,
    pub(super) n_layers: usize,
    pub(super) n_heads: usize,
    pub(super) d_ff: usize,
    pub(super) max_positions: usize,
    /// The number of token types; 0 if there are none.
    pub(super) token_types: usize,
    /// The number of buckets of the relative position bias, if there is one.
    pub(super) relative_buckets: Option<usize>,
    /// The token id that is also its own position; other tokens are at the positions after it.
    pub(super) pad_position: Option<u32>,
    pub(super) activation: Activation,
    pub(super) eps: f32,
    pub(super) initializer_range: f32,
    pub(super) dropout: f32,
    pub(super) attention_dropout: f32,
    pub(super) tie_word_embeddings: bool,
    pub(super) heads: HeadOptions,
}

/// The differences between the heads of the architectures.
#[derive(Clone, Copy, Debug)]
pub(super) struct HeadOptions {
    /// The activation in the masked-LM head.
    pub(super) mlm_activation: Activation,
    /// The activation between the two layers of the sequence classifier.
    pub(super) pooled_activation: Activation,
    /// Whether there also is dropout before its first layer.
    pub(super) dropout_first: bool,
    pub(super) sequence_dropout: f32,
    pub(super) token_dropout: f32,
    pub(super) span_dropout: f32,
}

/// The names in the checkpoints of an architecture.
#[derive(Debug)]
pub(super) struct Names {
    /// The prefix of the classes in `transformers`.
    pub(super) class: &'static str,
    /// The prefix of the body's names in checkpoints with a head.
    pub(super) prefix: &'static str,
    pub(super) layers: &'static str,
    pub(super) layer: LayerNames,
    pub(super) mlm: MlmNames,
    /// The first layer of the sequence classifier.
    pub(super) pooled: &'static str,
    pub(super) classifier: &'static str,
}

#[derive(Debug)]
pub(super) struct LayerNames {
    pub(super) attention: AttentionNames,
    pub(super) attention_norm: &'static str,
    pub(super) feed_forward: FeedForwardNames,
    pub(super) norm: &'static str,
}

#[derive(Debug)]
pub(super) struct MlmNames {
    pub(super) dense: &'static str,
    pub(super) norm: &'static str,
    /// The last layer, whose weight is usually tied to the token embeddings.
    pub(super) decoder: &'static str,
    /// The bias of the last layer.
    pub(super) bias: &'static str,
}

impl Architecture {
    pub(super) fn check(&self) -> Result<()> {
        check_sizes([
            ("vocab_size", self.vocab_size),
            ("hidden size", self.d_model),
            ("number of layers", self.n_layers),
            ("number of heads", self.n_heads),
            ("intermediate size", self.d_ff),
            ("max_position_embeddings", self.max_positions),
            ("type_vocab_size", self.token_types.max(1)),
            ("relative_attention_num_buckets", self.relative_buckets.unwrap_or(1)),
        ])?;
        if !self.d_model.is_multiple_of(self.n_heads) {
            return Err(Error::config("number of heads", format!("a divisor of {}", self.d_model), self.n_heads));
        }
        let HeadOptions { sequence_dropout, token_dropout, span_dropout, .. } = self.heads;
        let all = [self.dropout, self.attention_dropout, sequence_dropout, token_dropout, span_dropout];
        check_dropout(all.map(|p| ("dropout", p.into())))
    }
}

/// Returns the class names of a head, from the keys of a `config.json`.
pub(super) fn labels(other: &Map<String, Value>) -> Result<Vec<String>> {
    let count = other.get("num_labels").and_then(Value::as_u64);
    let Some(Value::Object(named)) = other.get("id2label") else {
        let count = count.unwrap_or(2);
        if !(1..1 << 20).contains(&count) {
            return Err(Error::config("num_labels", "a number from 1 to 2^20", count));
        }
        return Ok((0..count).map(|i| format!("LABEL_{i}")).collect());
    };
    let mut by_id = BTreeMap::new();
    for (id, name) in named {
        let (Ok(id), Value::String(name)) = (id.parse::<usize>(), name) else {
            return Err(Error::config("id2label", "a map from numbers to names", format_args!("{id}: {name}")));
        };
        by_id.insert(id, name.clone());
    }
    if by_id.is_empty() || !by_id.keys().copied().eq(0..by_id.len()) || named.len() != by_id.len() {
        return Err(Error::config(
            "id2label",
            "the numbers from 0 on, each once",
            format_args!("{} others", named.len()),
        ));
    }
    if count.is_some_and(|count| count != by_id.len() as u64) {
        return Err(Error::config("num_labels", format!("{}, as in id2label", by_id.len()), count.unwrap_or(0)));
    }
    Ok(by_id.into_values().collect())
}

/// Sets the class names of a head.
pub(super) fn set_labels<S: AsRef<str>>(other: &mut Map<String, Value>, labels: &[S]) {
    let names = || labels.iter().map(AsRef::as_ref).enumerate();
    other.remove("num_labels");
    other.insert("id2label".into(), names().map(|(i, name)| (i.to_string(), Value::from(name))).collect());
    other.insert("label2id".into(), names().map(|(i, name)| (name.to_string(), Value::from(i))).collect());
}
