//! Metadata by key: reading it for a `config.json`, and writing it from one.

use serde_json::Value as Json;

use super::{GgufFile, GgufWriter, Value};
use crate::error::{Error, Result};

/// Keys with the architecture's prefix that every architecture may have.
const COMMON: [&str; 21] = [
    "attention.head_count",
    "attention.head_count_kv",
    "attention.layer_norm_epsilon",
    "attention.layer_norm_rms_epsilon",
    "block_count",
    "context_length",
    "embedding_length",
    "feed_forward_length",
    "rope.dimension_count",
    "rope.freq_base",
    "rope.scale_linear",
    "rope.scaling.attn_factor",
    "rope.scaling.factor",
    "rope.scaling.finetuned",
    "rope.scaling.original_context_length",
    "rope.scaling.type",
    "rope.scaling.yarn_beta_fast",
    "rope.scaling.yarn_beta_slow",
    "tensor_data_layout",
    "token_type_count",
    "vocab_size",
];

/// Keys with the values that have no effect.
const NEUTRAL: [(&str, f64); 2] = [("rope.scaling.yarn_attn_factor", 1.0), ("rope.scaling.yarn_ext_factor", 1.0)];

/// Reads metadata keys with an architecture's prefix.
pub(crate) struct Keys<'f> {
    pub(crate) file: &'f GgufFile,
    /// Name of the architecture.
    pub(super) architecture: &'static str,
    /// Keys that are read, besides those of every architecture.
    pub(super) known: &'static [&'static str],
    /// Whether attention is causal.
    pub(super) causal: bool,
}

impl Keys<'_> {
    pub(crate) fn key(&self, name: &str) -> String {
        format!("{}.{name}", self.architecture)
    }

    pub(crate) fn size(&self, name: &str) -> Result<usize> {
        self.file.require(&self.key(name), "a whole number", |v| v.as_usize())
    }

    pub(crate) fn optional_size(&self, name: &str) -> Result<Option<usize>> {
        self.file.optional(&self.key(name), "a whole number", |v| v.as_usize())
    }

    pub(crate) fn number(&self, name: &str) -> Result<f64> {
        self.file.require(&self.key(name), "a number", |v| v.as_f64())
    }

    pub(crate) fn optional_number(&self, name: &str) -> Result<Option<f64>> {
        self.file.optional(&self.key(name), "a number", |v| v.as_f64())
    }

    /// Number of rows of a tensor, for sizes that are not in the metadata.
    pub(crate) fn rows(&self, tensor: &str) -> Result<usize> {
        let tensor = self.file.tensor(tensor).map(|t| t.shape()[0]);
        let tokens = || self.file.get("tokenizer.ggml.tokens")?.as_array().map(|tokens| tokens.len());
        let size = tensor.or_else(|| self.optional_size("vocab_size").ok()?).or_else(tokens);
        size.ok_or_else(|| Error::format(self.file.path(), "the file has no tensor `token_embd.weight`"))
    }

    pub(crate) fn has(&self, tensor: &str) -> bool {
        self.file.tensor(tensor).is_some()
    }

    /// Whether the head is the token embedding: it is absent, or a copy, which some writers add for
    /// readers that expect a head.
    pub(crate) fn head_is_table(&self) -> bool {
        match (self.file.tensor("output.weight"), self.file.tensor("token_embd.weight")) {
            (Some(head), Some(table)) => head.tensor_type() == table.tensor_type() && head.bytes() == table.bytes(),
            (head, _) => head.is_none(),
        }
    }

    /// Numbers of query and key heads; 0 if the file has none.
    pub(crate) fn heads(&self) -> Result<(usize, usize)> {
        heads(self.file, self.architecture)
    }

    /// Checks that every key of the architecture is supported, or has a value without effect.
    pub(super) fn check(&self) -> Result<()> {
        let start = self.key("");
        let nothing = |key: &str, value: &Value<'_>| match value {
            Value::Bool(causal) if key == "attention.causal" => *causal == self.causal,
            Value::Bool(truth) => !truth,
            Value::String(text) => text.is_empty(),
            Value::Array(values) => values.is_empty(),
            number => {
                let number = number.as_f64().or(number.as_i64().map(|n| n as f64));
                number == Some(0.0) || NEUTRAL.iter().any(|&(name, neutral)| name == key && number == Some(neutral))
            }
        };
        for (name, value) in self.file.metadata() {
            let Some(key) = name.strip_prefix(&start) else { continue };
            let known = COMMON.contains(&key) || self.known.contains(&key);
            if !known && !nothing(key, &value) {
                return Err(Error::config(name, "no such key (it is unknown, and may change the result)", value));
            }
        }
        Ok(())
    }

    /// Whether each layer has a sliding window. The file stores a list of booleans, or a period
    /// `n`: every `n`-th layer has none. `None` if it stores neither.
    pub(crate) fn sliding_layers(&self, layers: usize) -> Result<Option<Vec<bool>>> {
        let key = self.key("attention.sliding_window_pattern");
        let expected = format!("a boolean for each of {layers} layers, or a whole number");
        self.file.optional(&key, &expected, |value| match value.as_array() {
            Some(truths) => {
                // Limited by the file's list: the number of layers is just the value of a key.
                let truths = truths.values().map(|v| v.as_bool()).collect::<Option<Vec<bool>>>()?;
                (truths.len() == layers).then_some(truths)
            }
            None => match value.as_usize()? {
                _ if layers > 1 << 20 => None,
                0 => Some(vec![true; layers]),
                n => Some((0..layers).map(|layer| layer % n < n - 1).collect()),
            },
        })
    }
}

/// Numbers of query and key heads.
pub(super) fn heads(file: &GgufFile, architecture: &str) -> Result<(usize, usize)> {
    let whole = "a whole number, the same for every layer";
    let read = |value: Value<'_>| match value.as_array() {
        // One number per layer; a configuration supports only equal ones.
        Some(array) => {
            let mut numbers = array.values().map(|value| value.as_usize());
            let first = numbers.next()??;
            numbers.all(|n| n == Some(first)).then_some(first)
        }
        None => value.as_usize(),
    };
    let heads = file.optional(&format!("{architecture}.attention.head_count"), whole, read)?;
    let key_heads = file.optional(&format!("{architecture}.attention.head_count_kv"), whole, read)?;
    let heads = heads.unwrap_or(0);
    Ok((heads, key_heads.unwrap_or(heads)))
}

/// Writes metadata keys with an architecture's prefix.
pub(crate) struct KeyWriter<'c, 't> {
    pub(crate) config: &'c Json,
    /// Name of the architecture.
    pub(super) architecture: &'static str,
    pub(super) writer: &'c mut GgufWriter<'t>,
}

impl<'c, 't> KeyWriter<'c, 't> {
    pub(crate) fn key(&self, name: &str) -> String {
        format!("{}.{name}", self.architecture)
    }

    pub(crate) fn set(&mut self, name: &str, value: Value<'_>) -> Result<()> {
        self.writer.set(&self.key(name), value)
    }

    pub(crate) fn bools(&mut self, name: &str, values: &[bool]) -> Result<()> {
        self.writer.set_bools(&self.key(name), values)
    }

    /// Writes an integer, which comes from the key `key` of the configuration.
    pub(crate) fn size(&mut self, name: &str, key: &str, value: &Json) -> Result<()> {
        match value.as_u64().map(u32::try_from) {
            Some(Ok(value)) => self.set(name, Value::U32(value)),
            _ => Err(Error::config(key, "a whole number below 2^32", value)),
        }
    }

    /// Writes integers of the configuration, given as pairs of GGUF name and key.
    pub(crate) fn sizes<const N: usize>(&mut self, names: [(&str, &str); N]) -> Result<()> {
        let config = self.config;
        names.iter().try_for_each(|(name, key)| self.size(name, key, &config[*key]))
    }

    /// Writes a number, which models use as f32.
    pub(crate) fn number(&mut self, name: &str, key: &str) -> Result<()> {
        match self.config[key].as_f64() {
            Some(number) => self.set(name, Value::F32(number as f32)),
            None => Err(Error::config(key, "a number", &self.config[key])),
        }
    }

    /// Checks that an option without a GGUF key is absent or has the value that readers assume.
    pub(crate) fn only(&self, key: &str, granted: impl Into<Json>) -> Result<()> {
        let granted = granted.into();
        match &self.config[key] {
            Json::Null => Ok(()),
            found if *found == granted => Ok(()),
            found => Err(Error::config(key, format!("{granted} (GGUF has no key for other values)"), found)),
        }
    }
}
