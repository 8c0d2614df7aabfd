//! The metadata of a file as the keys of a `config.json`.

use serde_json::{Value as Json, json};

use super::names::{Architecture, heads};
use super::write_config::ENDS;
use super::{GgufFile, Value, rope};
use crate::error::{Error, Result};

/// Keys behind an architecture's name that are read, or that say nothing of what a model computes.
const KNOWN: [&str; 28] = [
    "attention.head_count",
    "attention.head_count_kv",
    "attention.key_length",
    "attention.layer_norm_epsilon",
    "attention.layer_norm_rms_epsilon",
    "attention.sliding_window",
    "attention.sliding_window_pattern",
    "attention.value_length",
    "block_count",
    "classifier.output_labels",
    "context_length",
    "embedding_length",
    "expert_count",
    "feed_forward_length",
    "pooling_type",
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

/// Keys with the values at which they change nothing.
const NEUTRAL: [(&str, f64); 2] = [("rope.scaling.yarn_attn_factor", 1.0), ("rope.scaling.yarn_ext_factor", 1.0)];

/// What `config.json` would say of the model in a file.
///
/// # Errors
/// [`Error::Format`] naming a key that is missing or wrong; [`Error::Config`] for an architecture or option that is not known.
pub fn config_json(file: &GgufFile) -> Result<Json> {
    let Some(name) = file.architecture() else {
        return Err(Error::format(file.path(), "expected `general.architecture`, found none"));
    };
    if Architecture::find(name).is_none() {
        return Err(config_error("general.architecture", "llama, qwen2, qwen3, gpt2 or bert", name));
    }
    let keys = Keys { file, architecture: name };
    keys.check()?;
    let mut config = match name {
        "gpt2" => gpt2(&keys)?,
        "bert" => bert(&keys)?,
        _ => llama(&keys)?,
    };
    let id = |role: &str| {
        file.get(&format!("tokenizer.ggml.{role}_token_id"))?.as_u64().filter(|&id| id < u64::from(u32::MAX))
    };
    if let Some(id) = id("bos") {
        config["bos_token_id"] = id.into();
    }
    // Instruction-tuned models end a turn with another token than a text.
    let mut ends: Vec<u64> = Vec::new();
    for id in ENDS.iter().filter_map(|role| id(role)) {
        if !ends.contains(&id) {
            ends.push(id);
        }
    }
    match *ends {
        [] => {}
        [id] => config["eos_token_id"] = id.into(),
        // Of which GPT-2 knows one.
        [id, ..] if name == "gpt2" => config["eos_token_id"] = id.into(),
        _ => config["eos_token_id"] = ends.into(),
    }
    if let Some(id) = file.get("tokenizer.ggml.padding_token_id").and_then(|id| id.as_u64()) {
        config["pad_token_id"] = id.into();
    }
    Ok(config)
}

pub(super) fn config_error(key: &str, expected: &str, found: impl std::fmt::Display) -> Error {
    Error::Config { key: key.into(), expected: expected.into(), found: found.to_string() }
}

/// What `layer_types` calls a layer.
pub(super) const FULL: &str = "full_attention";
/// What `layer_types` calls a layer with a window.
pub(super) const SLIDING: &str = "sliding_attention";

/// The keys below an architecture's name.
pub(super) struct Keys<'f> {
    pub(super) file: &'f GgufFile,
    architecture: &'f str,
}

impl Keys<'_> {
    pub(super) fn key(&self, name: &str) -> String {
        format!("{}.{name}", self.architecture)
    }

    fn size(&self, name: &str) -> Result<usize> {
        self.file.require(&self.key(name), "a whole number", |v| v.as_usize())
    }

    pub(super) fn optional_size(&self, name: &str) -> Result<Option<usize>> {
        self.file.optional(&self.key(name), "a whole number", |v| v.as_usize())
    }

    fn number(&self, name: &str) -> Result<f64> {
        self.file.require(&self.key(name), "a number", |v| v.as_f64())
    }

    pub(super) fn optional_number(&self, name: &str) -> Result<Option<f64>> {
        self.file.optional(&self.key(name), "a number", |v| v.as_f64())
    }

    /// The rows of a tensor, for what the metadata leaves unsaid.
    fn rows(&self, tensor: &str) -> Result<usize> {
        let tensor = self.file.tensor(tensor).map(|t| t.shape()[0]);
        let tokens = || self.file.get("tokenizer.ggml.tokens")?.as_array().map(|tokens| tokens.len());
        let size = tensor.or_else(|| self.optional_size("vocab_size").ok()?).or_else(tokens);
        size.ok_or_else(|| Error::format(self.file.path(), "expected a tensor `token_embd.weight`, found none"))
    }

    fn has(&self, tensor: &str) -> bool {
        self.file.tensor(tensor).is_some()
    }

    /// Makes sure that every key of the architecture is known, or has a value at which it changes
    /// nothing.
    fn check(&self) -> Result<()> {
        let start = self.key("");
        let nothing = |key: &str, value: &Value<'_>| match value {
            Value::Bool(causal) if key == "attention.causal" => *causal == (self.architecture != "bert"),
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
            if !KNOWN.contains(&key) && !nothing(key, &value) {
                return Err(config_error(name, "none: it is not known, and may change the result", value));
            }
        }
        Ok(())
    }

    /// Whether each layer has a sliding window. The file stores a list of booleans, or a period `n`:
    /// every `n`-th layer has none. `None` if it stores neither.
    fn sliding_layers(&self, layers: usize) -> Result<Option<Vec<bool>>> {
        let key = self.key("attention.sliding_window_pattern");
        let expected = format!("a boolean for each of {layers} layers, or a whole number");
        self.file.optional(&key, &expected, |value| match value.as_array() {
            Some(truths) => {
                // No more than the file has: the number of layers is only what a key says.
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

fn llama(keys: &Keys<'_>) -> Result<Json> {
    let (heads, key_heads) = heads(keys.file, keys.architecture)?;
    if keys.optional_size("expert_count")?.unwrap_or(0) > 0 {
        return Err(config_error(&keys.key("expert_count"), "0", "a mixture of experts"));
    }
    let window = keys.optional_size("attention.sliding_window")?.filter(|&window| window > 0);
    let (model_type, class) = match keys.architecture {
        "qwen2" => ("qwen2", "Qwen2ForCausalLM"),
        "qwen3" => ("qwen3", "Qwen3ForCausalLM"),
        _ if window.is_some() => ("mistral", "MistralForCausalLM"),
        _ => ("llama", "LlamaForCausalLM"),
    };
    let hidden_size = keys.size("embedding_length")?;
    let head_dim = match keys.optional_size("attention.key_length")? {
        Some(width) => width,
        None => hidden_size.checked_div(heads).unwrap_or(0),
    };
    for name in ["attention.value_length", "rope.dimension_count"] {
        if let Some(found) = keys.optional_size(name)?.filter(|&found| found != head_dim) {
            return Err(config_error(&keys.key(name), &format!("{head_dim}, the width of a head"), found));
        }
    }
    let mut config = json!({
        "model_type": model_type,
        "architectures": [class],
        "vocab_size": keys.rows("token_embd.weight")?,
        "hidden_size": hidden_size,
        "intermediate_size": keys.size("feed_forward_length")?,
        "num_hidden_layers": keys.size("block_count")?,
        "num_attention_heads": heads,
        "num_key_value_heads": key_heads,
        "head_dim": head_dim,
        "hidden_act": "silu",
        "max_position_embeddings": keys.size("context_length")?,
        "rms_norm_eps": keys.number("attention.layer_norm_rms_epsilon")?,
        "rope_theta": keys.optional_number("rope.freq_base")?.unwrap_or(10_000.0),
        "tie_word_embeddings": !keys.has("output.weight"),
    });
    match model_type {
        "llama" => {
            config["attention_bias"] = keys.has("blk.0.attn_q.bias").into();
            config["mlp_bias"] = keys.has("blk.0.ffn_up.bias").into();
        }
        "mistral" => config["sliding_window"] = window.into(),
        _ => {
            // Qwen2's projections have biases, all of them but the last, without being asked.
            if model_type == "qwen3" {
                config["attention_bias"] = keys.has("blk.0.attn_q.bias").into();
            }
            if let Some(window) = window {
                config["sliding_window"] = window.into();
                config["use_sliding_window"] = true.into();
                // Without a list, the layers that have the window would be those from the 28th on.
                config["max_window_layers"] = 0.into();
            }
        }
    }
    let layers = keys.size("block_count")?;
    if let Some(sliding) = keys.sliding_layers(layers)?.filter(|sliding| window.is_some() && sliding.contains(&false)) {
        let name = |&slides: &bool| if slides { SLIDING } else { FULL };
        config["layer_types"] = sliding.iter().map(name).collect();
    }
    if let Some(scaling) = rope::read(keys, &config)? {
        config["rope_scaling"] = Json::Object(scaling);
    }
    Ok(config)
}

fn gpt2(keys: &Keys<'_>) -> Result<Json> {
    // Writers repeat the token table as the head, for readers that want one.
    let tied = match (keys.file.tensor("output.weight"), keys.file.tensor("token_embd.weight")) {
        (Some(head), Some(table)) => head.tensor_type() == table.tensor_type() && head.bytes() == table.bytes(),
        (head, _) => head.is_none(),
    };
    Ok(json!({
        "model_type": "gpt2",
        "architectures": ["GPT2LMHeadModel"],
        "vocab_size": keys.rows("token_embd.weight")?,
        "n_positions": keys.size("context_length")?,
        "n_embd": keys.size("embedding_length")?,
        "n_layer": keys.size("block_count")?,
        "n_head": heads(keys.file, keys.architecture)?.0,
        "n_inner": keys.optional_size("feed_forward_length")?,
        "activation_function": "gelu_new",
        "layer_norm_epsilon": keys.number("attention.layer_norm_epsilon")?,
        "tie_word_embeddings": tied,
    }))
}

fn bert(keys: &Keys<'_>) -> Result<Json> {
    let types = keys.file.tensor("token_types.weight").map(|t| t.shape()[0]);
    Ok(json!({
        "model_type": "bert",
        "architectures": ["BertModel"],
        "vocab_size": keys.rows("token_embd.weight")?,
        "max_position_embeddings": keys.size("context_length")?,
        "hidden_size": keys.size("embedding_length")?,
        "num_hidden_layers": keys.size("block_count")?,
        "num_attention_heads": heads(keys.file, keys.architecture)?.0,
        "intermediate_size": keys.size("feed_forward_length")?,
        "type_vocab_size": types.unwrap_or(1),
        "hidden_act": "gelu",
        "layer_norm_eps": keys.number("attention.layer_norm_epsilon")?,
    }))
}
