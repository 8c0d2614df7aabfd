//! The metadata of a file as the keys of a `config.json`, and back.

use serde_json::{Map, Value as Json, json};

use super::names::{Architecture, heads};
use super::{GgufFile, GgufWriter, TensorType, Value};
use crate::error::{Error, Result};

/// The rotary frequencies' divisors, one for each pair of columns: how Llama 3.1 and later are scaled.
pub(super) const ROPE_FREQS: &str = "rope_freqs.weight";

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
    let mut config = match name {
        "gpt2" => gpt2(&keys)?,
        "bert" => bert(&keys)?,
        _ => llama(&keys)?,
    };
    for key in ["bos_token_id", "eos_token_id"] {
        let id = file.get(&format!("tokenizer.ggml.{key}")).and_then(|id| id.as_u64());
        if let Some(id) = id.filter(|&id| id < u64::from(u32::MAX)) {
            config[key] = id.into();
        }
    }
    // Instruction-tuned models end a turn with another token than a text.
    let ends = ["eos", "eot", "eom"].map(|end| file.get(&format!("tokenizer.ggml.{end}_token_id"))?.as_u64());
    let mut ends: Vec<u64> = ends.into_iter().flatten().filter(|&id| id < u64::from(u32::MAX)).collect();
    ends.dedup();
    if name != "gpt2" && ends.len() > 1 {
        config["eos_token_id"] = ends.into();
    }
    if let Some(id) = file.get("tokenizer.ggml.padding_token_id").and_then(|id| id.as_u64()) {
        config["pad_token_id"] = id.into();
    }
    Ok(config)
}

fn config_error(key: &str, expected: &str, found: impl std::fmt::Display) -> Error {
    Error::Config { key: key.into(), expected: expected.into(), found: found.to_string() }
}

/// The keys below an architecture's name.
struct Keys<'f> {
    file: &'f GgufFile,
    architecture: &'f str,
}

impl Keys<'_> {
    fn key(&self, name: &str) -> String {
        format!("{}.{name}", self.architecture)
    }

    fn size(&self, name: &str) -> Result<usize> {
        self.file.require(&self.key(name), "a whole number", |v| v.as_usize())
    }

    fn optional_size(&self, name: &str) -> Result<Option<usize>> {
        self.file.optional(&self.key(name), "a whole number", |v| v.as_usize())
    }

    fn number(&self, name: &str) -> Result<f64> {
        self.file.require(&self.key(name), "a number", |v| v.as_f64())
    }

    fn optional_number(&self, name: &str) -> Result<Option<f64>> {
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
            }
        }
    }
    if let Some(scaling) = rope_scaling(keys, &config)? {
        config["rope_scaling"] = Json::Object(scaling);
    }
    Ok(config)
}

fn rope_scaling(keys: &Keys<'_>, config: &Json) -> Result<Option<Map<String, Json>>> {
    let object = |json: Json| match json {
        Json::Object(object) => Some(object),
        _ => None,
    };
    if let Some(divisors) = keys.file.tensor(ROPE_FREQS) {
        if divisors.tensor_type() != TensorType::F32 {
            return Err(config_error(ROPE_FREQS, "F32 numbers", divisors.tensor_type()));
        }
        let divisors: Vec<f32> = divisors.bytes().as_chunks().0.iter().map(|&x| f32::from_le_bytes(x)).collect();
        return llama3(&divisors, config).map(object);
    }
    let kind = keys.file.optional(&keys.key("rope.scaling.type"), "a string", |v| v.as_str())?;
    let factor = match keys.optional_number("rope.scaling.factor")? {
        Some(factor) => Some(factor),
        None => keys.optional_number("rope.scale_linear")?,
    };
    let need =
        |what: Option<f64>| what.ok_or_else(|| config_error(&keys.key("rope.scaling.factor"), "a number", "none"));
    match kind {
        None if factor.is_none_or(|factor| factor == 1.0) => Ok(None),
        Some("none") => Ok(None),
        None | Some("linear") => Ok(object(json!({ "rope_type": "linear", "factor": need(factor)? }))),
        Some("yarn") => {
            let mut scaling = json!({ "rope_type": "yarn", "factor": need(factor)? });
            if let Some(original) = keys.optional_size("rope.scaling.original_context_length")? {
                scaling["original_max_position_embeddings"] = original.into();
            }
            for (name, key) in [("yarn_beta_fast", "beta_fast"), ("yarn_beta_slow", "beta_slow")] {
                if let Some(beta) = keys.optional_number(&format!("rope.scaling.{name}"))? {
                    scaling[key] = beta.into();
                }
            }
            Ok(object(scaling))
        }
        Some(other) => Err(config_error(&keys.key("rope.scaling.type"), "none, linear or yarn", other)),
    }
}

/// The numbers behind the divisors, which are all that a file keeps. Published models differ in `factor` alone.
fn llama3(divisors: &[f32], config: &Json) -> Result<Json> {
    let factor = divisors.iter().fold(0f32, |max, &x| max.max(x));
    let theta = config["rope_theta"].as_f64().unwrap_or(10_000.0);
    let (low, high, original) = (1.0, 4.0, 8192.0);
    let expected = llama3_divisors(theta, 2 * divisors.len(), factor.into(), low, high, original);
    if divisors.iter().zip(&expected).any(|(a, b)| (a - b).abs() > 1e-4 * b) {
        let found = "divisors of other numbers";
        return Err(config_error(ROPE_FREQS, "llama3 scaling with frequency factors 1 and 4 of 8192 positions", found));
    }
    if config["head_dim"] != 2 * divisors.len() {
        return Err(config_error(ROPE_FREQS, "one divisor for two columns of a head", divisors.len()));
    }
    Ok(json!({
        "rope_type": "llama3",
        "factor": factor,
        "low_freq_factor": low,
        "high_freq_factor": high,
        "original_max_position_embeddings": original as usize,
    }))
}

fn llama3_divisors(theta: f64, width: usize, factor: f64, low: f64, high: f64, original: f64) -> Vec<f32> {
    let divisor = |i: usize| {
        let wave = 2.0 * std::f64::consts::PI * theta.powf(2.0 * i as f64 / width as f64);
        if wave < original / high {
            return 1.0;
        }
        if wave > original / low {
            return factor;
        }
        let smooth = (original / wave - low) / (high - low);
        1.0 / ((1.0 - smooth) / factor + smooth)
    };
    (0..width / 2).map(|i| divisor(i) as f32).collect()
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

/// The architecture's name in GGUF for a `config.json`, whose keys are written as metadata.
///
/// # Errors
/// [`Error::Config`] for an architecture or option that GGUF cannot say.
pub(super) fn write(config: &Json, writer: &mut GgufWriter<'_>) -> Result<&'static Architecture> {
    let model_type = config["model_type"].as_str().unwrap_or("none");
    let name = if model_type == "mistral" { "llama" } else { model_type };
    let architecture = Architecture::find(name).filter(|a| a.name != "bert");
    let architecture =
        architecture.ok_or_else(|| config_error("model_type", "gpt2, llama, mistral, qwen2 or qwen3", model_type))?;
    writer.set("general.architecture", Value::String(architecture.name))?;
    let key = |name: &str| format!("{}.{name}", architecture.name);
    let size = |writer: &mut GgufWriter<'_>, name: &str, value: &Json| match value.as_u64().map(u32::try_from) {
        Some(Ok(value)) => writer.set(&key(name), Value::U32(value)),
        _ => Err(config_error(name, "a whole number below 2^32", value)),
    };
    if architecture.name == "gpt2" {
        let n_embd = config["n_embd"].as_u64().unwrap_or(0);
        let n_inner = if config["n_inner"].is_null() { json!(4 * n_embd) } else { config["n_inner"].clone() };
        if !matches!(config["activation_function"].as_str(), Some("gelu_new" | "gelu_pytorch_tanh" | "gelu_fast")) {
            return Err(config_error("activation_function", "gelu_new", &config["activation_function"]));
        }
        for (option, neutral) in [("scale_attn_weights", true), ("scale_attn_by_inverse_layer_idx", false)] {
            if config[option].as_bool().is_some_and(|value| value != neutral) {
                return Err(config_error(option, &neutral.to_string(), !neutral));
            }
        }
        size(writer, "context_length", &config["n_positions"])?;
        size(writer, "embedding_length", &config["n_embd"])?;
        size(writer, "block_count", &config["n_layer"])?;
        size(writer, "feed_forward_length", &n_inner)?;
        size(writer, "attention.head_count", &config["n_head"])?;
        let eps = config["layer_norm_epsilon"].as_f64().unwrap_or(1e-5);
        writer.set(&key("attention.layer_norm_epsilon"), Value::F32(eps as f32))?;
        return Ok(architecture);
    }
    if config["hidden_act"].as_str().is_some_and(|act| act != "silu") {
        return Err(config_error("hidden_act", "silu", &config["hidden_act"]));
    }
    let heads = &config["num_attention_heads"];
    let key_heads = if config["num_key_value_heads"].is_null() { heads } else { &config["num_key_value_heads"] };
    let quotient = config["hidden_size"].as_u64().zip(heads.as_u64()).and_then(|(width, n)| width.checked_div(n));
    let head_dim = match config["head_dim"].as_u64() {
        Some(width) => json!(width),
        None => json!(quotient),
    };
    size(writer, "context_length", &config["max_position_embeddings"])?;
    size(writer, "embedding_length", &config["hidden_size"])?;
    size(writer, "block_count", &config["num_hidden_layers"])?;
    size(writer, "feed_forward_length", &config["intermediate_size"])?;
    size(writer, "attention.head_count", heads)?;
    size(writer, "attention.head_count_kv", key_heads)?;
    size(writer, "attention.key_length", &head_dim)?;
    size(writer, "attention.value_length", &head_dim)?;
    size(writer, "rope.dimension_count", &head_dim)?;
    size(writer, "vocab_size", &config["vocab_size"])?;
    let window = config["sliding_window"].as_u64().is_some();
    if window && (model_type == "mistral" || config["use_sliding_window"] == true) {
        size(writer, "attention.sliding_window", &config["sliding_window"])?;
    }
    let eps = config["rms_norm_eps"].as_f64().unwrap_or(1e-6);
    writer.set(&key("attention.layer_norm_rms_epsilon"), Value::F32(eps as f32))?;
    let both = [&config["rope_parameters"], &config["rope_scaling"]];
    let scaling = both.into_iter().find(|scaling| scaling.is_object()).unwrap_or(&Json::Null);
    let theta = config["rope_theta"].as_f64().or(scaling["rope_theta"].as_f64()).unwrap_or(10_000.0);
    writer.set(&key("rope.freq_base"), Value::F32(theta as f32))?;
    let number = |name: &str| {
        scaling[name].as_f64().ok_or_else(|| config_error(&format!("rope_scaling.{name}"), "a number", &scaling[name]))
    };
    match scaling["rope_type"].as_str().or(scaling["type"].as_str()) {
        None | Some("default") => {}
        Some(kind @ ("linear" | "yarn")) => {
            writer.set(&key("rope.scaling.type"), Value::String(kind))?;
            writer.set(&key("rope.scaling.factor"), Value::F32(number("factor")? as f32))?;
            if let Some(original) = scaling.get("original_max_position_embeddings").filter(|v| !v.is_null()) {
                size(writer, "rope.scaling.original_context_length", original)?;
            }
            for (name, option) in [("yarn_beta_fast", "beta_fast"), ("yarn_beta_slow", "beta_slow")] {
                if let Some(beta) = scaling[option].as_f64() {
                    writer.set(&key(&format!("rope.scaling.{name}")), Value::F32(beta as f32))?;
                }
            }
        }
        Some("llama3") => {
            let (low, high) = (number("low_freq_factor")?, number("high_freq_factor")?);
            let original = number("original_max_position_embeddings")?;
            let width = head_dim.as_u64().unwrap_or(0) as usize;
            let divisors = llama3_divisors(theta, width, number("factor")?, low, high, original);
            writer.tensor_f32(ROPE_FREQS, &[divisors.len()], divisors)?;
        }
        Some(other) => return Err(config_error("rope_scaling.rope_type", "default, linear, yarn or llama3", other)),
    }
    Ok(architecture)
}
