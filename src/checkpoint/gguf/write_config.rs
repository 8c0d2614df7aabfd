//! A `config.json` as metadata: every key of it is written, or has the value that a reader takes
//! for granted, or is an error. What only training looks at (dropout, the spread of fresh weights)
//! is left out.

use serde_json::{Value as Json, json};

use super::config::{SLIDING, config_error};
use super::names::Architecture;
use super::vocabulary::GgmlVocabulary;
use super::{ARCHITECTURE, GgufWriter, Value, rope};
use crate::checkpoint::config_keys::check_other;
use crate::error::Result;

/// Keys that are written, or that only training looks at.
const GPT2: &[&str] = &[
    "activation_function",
    "attn_pdrop",
    "embd_pdrop",
    "initializer_range",
    "layer_norm_epsilon",
    "n_embd",
    "n_head",
    "n_inner",
    "n_layer",
    "n_positions",
    "resid_pdrop",
    "scale_attn_by_inverse_layer_idx",
    "scale_attn_weights",
    "tie_word_embeddings",
    "vocab_size",
];
const LLAMA: &[&str] = &[
    "attention_bias",
    "attention_dropout",
    "head_dim",
    "hidden_act",
    "hidden_size",
    "initializer_range",
    "intermediate_size",
    "layer_types",
    "max_position_embeddings",
    "max_window_layers",
    "mlp_bias",
    "num_attention_heads",
    "num_hidden_layers",
    "num_key_value_heads",
    "original_max_position_embeddings",
    "rms_norm_eps",
    "rope_parameters",
    "rope_scaling",
    "rope_theta",
    "sliding_window",
    "tie_word_embeddings",
    "use_sliding_window",
    "vocab_size",
];

/// The architecture in GGUF of a `config.json`, whose keys are written as metadata.
///
/// # Errors
/// [`Error::Config`](crate::Error::Config) for an architecture or option that GGUF cannot say, by
/// name.
pub(super) fn write(config: &Json, writer: &mut GgufWriter<'_>) -> Result<&'static Architecture> {
    let model_type = config["model_type"].as_str().unwrap_or("none");
    let name = if model_type == "mistral" { "llama" } else { model_type };
    let architecture = Architecture::find(name).filter(|a| a.name != "bert");
    let architecture =
        architecture.ok_or_else(|| config_error("model_type", "gpt2, llama, mistral, qwen2 or qwen3", model_type))?;
    writer.set(ARCHITECTURE, Value::String(architecture.name))?;
    let known = if architecture.name == "gpt2" { GPT2 } else { LLAMA };
    check_other(config.as_object().into_iter().flatten().filter(|(key, _)| !known.contains(&key.as_str())))?;
    let keys = Keys { config, architecture: architecture.name };
    if architecture.name == "gpt2" { keys.write_gpt2(writer) } else { keys.write_llama(model_type, writer) }?;
    Ok(architecture)
}

struct Keys<'c> {
    config: &'c Json,
    architecture: &'static str,
}

impl Keys<'_> {
    fn set(&self, writer: &mut GgufWriter<'_>, name: &str, value: Value<'_>) -> Result<()> {
        writer.set(&format!("{}.{name}", self.architecture), value)
    }

    /// Writes a whole number, of the key `key` of the configuration.
    fn size(&self, writer: &mut GgufWriter<'_>, name: &str, key: &str, value: &Json) -> Result<()> {
        match value.as_u64().map(u32::try_from) {
            Some(Ok(value)) => self.set(writer, name, Value::U32(value)),
            _ => Err(config_error(key, "a whole number below 2^32", value)),
        }
    }

    /// Writes whole numbers of the configuration.
    fn sizes<const N: usize>(&self, writer: &mut GgufWriter<'_>, names: [(&str, &str); N]) -> Result<()> {
        names.iter().try_for_each(|(name, key)| self.size(writer, name, key, &self.config[*key]))
    }

    /// Writes a number that models use in 32 bits.
    fn eps(&self, writer: &mut GgufWriter<'_>, name: &str, key: &str) -> Result<()> {
        match self.config[key].as_f64() {
            Some(eps) => self.set(writer, name, Value::F32(eps as f32)),
            None => Err(config_error(key, "a number", &self.config[key])),
        }
    }

    fn write_gpt2(&self, writer: &mut GgufWriter<'_>) -> Result<()> {
        let config = self.config;
        if !matches!(config["activation_function"].as_str(), Some("gelu_new" | "gelu_pytorch_tanh" | "gelu_fast")) {
            return Err(config_error("activation_function", "gelu_new", &config["activation_function"]));
        }
        for (option, neutral) in [("scale_attn_weights", true), ("scale_attn_by_inverse_layer_idx", false)] {
            if config[option] == !neutral {
                return Err(config_error(option, &neutral.to_string(), !neutral));
            }
        }
        let n_inner = match &config["n_inner"] {
            Json::Null => json!(config["n_embd"].as_u64().and_then(|width| width.checked_mul(4))),
            given => given.clone(),
        };
        self.sizes(
            writer,
            [("context_length", "n_positions"), ("embedding_length", "n_embd"), ("block_count", "n_layer")],
        )?;
        self.size(writer, "feed_forward_length", "n_inner", &n_inner)?;
        self.sizes(writer, [("attention.head_count", "n_head")])?;
        self.eps(writer, "attention.layer_norm_epsilon", "layer_norm_epsilon")
    }

    fn write_llama(&self, model_type: &str, writer: &mut GgufWriter<'_>) -> Result<()> {
        let config = self.config;
        if !matches!(config["hidden_act"].as_str(), None | Some("silu" | "swish")) {
            return Err(config_error("hidden_act", "silu", &config["hidden_act"]));
        }
        let heads = &config["num_attention_heads"];
        let key_heads = if config["num_key_value_heads"].is_null() { heads } else { &config["num_key_value_heads"] };
        let quotient = config["hidden_size"].as_u64().zip(heads.as_u64()).and_then(|(width, n)| width.checked_div(n));
        let head_dim = match &config["head_dim"] {
            Json::Null => json!(quotient),
            given => given.clone(),
        };
        self.sizes(
            writer,
            [
                ("context_length", "max_position_embeddings"),
                ("embedding_length", "hidden_size"),
                ("block_count", "num_hidden_layers"),
                ("feed_forward_length", "intermediate_size"),
                ("attention.head_count", "num_attention_heads"),
                ("vocab_size", "vocab_size"),
            ],
        )?;
        self.size(writer, "attention.head_count_kv", "num_key_value_heads", key_heads)?;
        for name in ["attention.key_length", "attention.value_length", "rope.dimension_count"] {
            self.size(writer, name, "head_dim", &head_dim)?;
        }
        self.write_window(model_type, writer)?;
        self.eps(writer, "attention.layer_norm_rms_epsilon", "rms_norm_eps")?;
        rope::write(config, head_dim.as_u64().unwrap_or(0) as usize, self.architecture, writer)
    }

    /// The window, and which layers have it if not all do.
    fn write_window(&self, model_type: &str, writer: &mut GgufWriter<'_>) -> Result<()> {
        let config = self.config;
        let layers = config["num_hidden_layers"].as_u64().unwrap_or(0);
        let slides: Vec<bool> = match model_type {
            _ if config["sliding_window"].is_null() => return Ok(()),
            "llama" => return Err(config_error("sliding_window", "null, as llama has it", &config["sliding_window"])),
            "mistral" => vec![],
            _ if config["use_sliding_window"] != true => return Ok(()),
            _ => match (&config["layer_types"], config["max_window_layers"].as_u64()) {
                (Json::Array(types), _) if types.len() as u64 == layers => types.iter().map(|t| t == SLIDING).collect(),
                (Json::Null, Some(first)) => (0..layers).map(|layer| layer >= first).collect(),
                (Json::Null, None) => return Ok(()),
                (types, _) => {
                    return Err(config_error("layer_types", &format!("one of each of {layers} layers"), types));
                }
            },
        };
        let (some, all) = (slides.contains(&true) || slides.is_empty(), !slides.contains(&false));
        if some {
            self.sizes(writer, [("attention.sliding_window", "sliding_window")])?;
        }
        if some && !all {
            writer.set_bools(&format!("{}.attention.sliding_window_pattern", self.architecture), &slides)?;
        }
        Ok(())
    }
}

/// What a vocabulary leaves unsaid of the tokens that begin, end and fill texts, from the
/// configuration. Up to three tokens may end a text: those of the roles `eos`, `eot` and `eom`.
///
/// # Errors
/// [`Error::Config`](crate::Error::Config) if more do.
pub(super) fn roles(config: &Json, vocabulary: Option<&GgmlVocabulary>) -> Result<Vec<(String, u32)>> {
    // No model writes a token that it has no logit for.
    let rows = config["vocab_size"].as_u64().unwrap_or(0);
    let id = |value: &Json| value.as_u64().filter(|&id| id < rows).and_then(|id| u32::try_from(id).ok());
    let said = |role: &str| vocabulary.and_then(|vocabulary| vocabulary.role(role));
    let mut new = Vec::new();
    // A tokenizer without such a token is meant to have none: templates write it out.
    for (role, key) in [("bos", "bos_token_id"), ("padding", "pad_token_id")] {
        if let (None, Some(id)) = (vocabulary, id(&config[key])) {
            new.push((role.to_string(), id));
        }
    }
    let ends: Vec<u32> = match &config["eos_token_id"] {
        Json::Array(ids) => ids.iter().filter_map(id).collect(),
        one => id(one).into_iter().collect(),
    };
    let taken: Vec<u32> = ENDS.iter().filter_map(|role| said(role)).collect();
    let mut free = ENDS.iter().filter(|role| said(role).is_none());
    for (i, &id) in ends.iter().enumerate().filter(|(_, id)| !taken.contains(id)) {
        if ends[..i].contains(&id) {
            continue;
        }
        let Some(role) = free.next() else {
            let expected = "at most 3 ids with the tokenizer's: GGUF has no place for more";
            return Err(config_error("eos_token_id", expected, &config["eos_token_id"]));
        };
        new.push((role.to_string(), id));
    }
    Ok(new)
}

/// Roles of tokens that end a text.
pub(super) const ENDS: [&str; 3] = ["eos", "eot", "eom"];
