//! Names and keys of the Llama family in GGUF files.
//!
//! llama.cpp's `llama` rotates adjacent columns, so its rows of queries and keys are stored in
//! another order; with a sliding window it is the architecture of Mistral.

use serde_json::{Value, json};

use super::config::{FULL, LlamaConfig, SLIDING};
use crate::checkpoint::config_keys::activation;
use crate::checkpoint::gguf::architecture::{Architecture, Arranged, KeyWriter, Keys};
use crate::checkpoint::gguf::rope;
use crate::error::{Error, Result};
use crate::ops::Activation;

pub(super) static ARCHITECTURES: [Architecture; 4] = [
    LLAMA,
    Architecture { model_types: &["mistral"], write: Some(write_mistral), ..LLAMA },
    Architecture { name: "qwen2", model_types: &["qwen2"], read: read_qwen2, ..QWEN3 },
    QWEN3,
];

const LLAMA: Architecture = Architecture {
    name: "llama",
    model_types: &["llama"],
    blocks: "model.layers.",
    global: &[("token_embd", "model.embed_tokens"), ("output_norm", "model.norm"), ("output", "lm_head")],
    block: &[
        ("attn_norm", "input_layernorm"),
        ("attn_q", "self_attn.q_proj"),
        ("attn_k", "self_attn.k_proj"),
        ("attn_v", "self_attn.v_proj"),
        ("attn_output", "self_attn.o_proj"),
        ("attn_q_norm", "self_attn.q_norm"),
        ("attn_k_norm", "self_attn.k_norm"),
        ("ffn_norm", "post_attention_layernorm"),
        ("ffn_gate", "mlp.gate_proj"),
        ("ffn_up", "mlp.up_proj"),
        ("ffn_down", "mlp.down_proj"),
    ],
    arranged: &[("attn_q", Arranged::PairsOfQueries), ("attn_k", Arranged::PairsOfKeys)],
    keys: &[
        "attention.key_length",
        "attention.sliding_window",
        "attention.sliding_window_pattern",
        "attention.value_length",
        "expert_count",
    ],
    read: read_llama,
    write: Some(write_llama),
    repeats_table: false,
    ends: 3,
    causal: true,
};

const QWEN3: Architecture = Architecture {
    name: "qwen3",
    model_types: &["qwen3"],
    arranged: &[],
    read: read_qwen3,
    write: Some(write_qwen),
    ..LLAMA
};

/// Reads the configuration of a Llama, or of a Mistral if there is a window.
fn read_llama(keys: &Keys<'_>) -> Result<Value> {
    let Some(window) = window(keys)? else {
        let mut config = read(keys, "llama", "LlamaForCausalLM")?;
        config["attention_bias"] = keys.has("blk.0.attn_q.bias").into();
        config["mlp_bias"] = keys.has("blk.0.ffn_up.bias").into();
        return Ok(config);
    };
    let mut config = read(keys, "mistral", "MistralForCausalLM")?;
    config["sliding_window"] = window.into();
    layer_types(keys, &mut config)?;
    Ok(config)
}

/// Qwen2 has biases in the projections of query, key and value, without a key for them.
fn read_qwen2(keys: &Keys<'_>) -> Result<Value> {
    let mut config = read(keys, "qwen2", "Qwen2ForCausalLM")?;
    windows_of_layers(keys, &mut config)?;
    Ok(config)
}

fn read_qwen3(keys: &Keys<'_>) -> Result<Value> {
    let mut config = read(keys, "qwen3", "Qwen3ForCausalLM")?;
    config["attention_bias"] = keys.has("blk.0.attn_q.bias").into();
    windows_of_layers(keys, &mut config)?;
    Ok(config)
}

fn window(keys: &Keys<'_>) -> Result<Option<usize>> {
    Ok(keys.optional_size("attention.sliding_window")?.filter(|&window| window > 0))
}

fn windows_of_layers(keys: &Keys<'_>, config: &mut Value) -> Result<()> {
    let Some(window) = window(keys)? else { return Ok(()) };
    config["sliding_window"] = window.into();
    config["use_sliding_window"] = true.into();
    // Without a list, only the layers from the 28th on would have the window.
    config["max_window_layers"] = 0.into();
    layer_types(keys, config)
}

/// Sets the layers that have the window, if not all have it.
fn layer_types(keys: &Keys<'_>, config: &mut Value) -> Result<()> {
    let layers = keys.size("block_count")?;
    if let Some(sliding) = keys.sliding_layers(layers)?.filter(|sliding| sliding.contains(&false)) {
        let name = |&slides: &bool| if slides { SLIDING } else { FULL };
        config["layer_types"] = sliding.iter().map(name).collect();
    }
    Ok(())
}

/// Reads the keys that all architectures share.
fn read(keys: &Keys<'_>, model_type: &str, class: &str) -> Result<Value> {
    let (heads, key_heads) = keys.heads()?;
    if keys.optional_size("expert_count")?.unwrap_or(0) > 0 {
        return Err(Error::config(keys.key("expert_count"), "0", "a mixture of experts"));
    }
    let hidden_size = keys.size("embedding_length")?;
    let head_dim = match keys.optional_size("attention.key_length")? {
        Some(width) => width,
        None => hidden_size.checked_div(heads).unwrap_or(0),
    };
    for name in ["attention.value_length", "rope.dimension_count"] {
        if let Some(found) = keys.optional_size(name)?.filter(|&found| found != head_dim) {
            return Err(Error::config(keys.key(name), format!("{head_dim}, the width of a head"), found));
        }
    }
    let layers = keys.size("block_count")?;
    keys.sliding_layers(layers)?;
    let mut config = json!({
        "model_type": model_type,
        "architectures": [class],
        "vocab_size": keys.rows("token_embd.weight")?,
        "hidden_size": hidden_size,
        "intermediate_size": keys.size("feed_forward_length")?,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": key_heads,
        "head_dim": head_dim,
        "hidden_act": "silu",
        "max_position_embeddings": keys.size("context_length")?,
        "rms_norm_eps": keys.number("attention.layer_norm_rms_epsilon")?,
        "rope_theta": keys.optional_number("rope.freq_base")?.unwrap_or(10_000.0),
        "tie_word_embeddings": !keys.has("output.weight"),
    });
    if let Some(scaling) = rope::read(keys, &config, head_dim)? {
        config["rope_scaling"] = Value::Object(scaling);
    }
    Ok(config)
}

fn write_llama(keys: &mut KeyWriter<'_, '_>) -> Result<()> {
    write(keys).map(drop)
}

/// The window is in all layers.
fn write_mistral(keys: &mut KeyWriter<'_, '_>) -> Result<()> {
    match write(keys)?.sliding_window {
        Some(_) => keys.sizes([("attention.sliding_window", "sliding_window")]),
        None => Ok(()),
    }
}

/// The window is in the layers that the configuration lists.
fn write_qwen(keys: &mut KeyWriter<'_, '_>) -> Result<()> {
    let config = write(keys)?;
    let slides: Vec<bool> = (0..config.num_hidden_layers).map(|layer| config.window(layer).is_some()).collect();
    if slides.contains(&true) {
        keys.sizes([("attention.sliding_window", "sliding_window")])?;
        if slides.contains(&false) {
            keys.bools("attention.sliding_window_pattern", &slides)?;
        }
    }
    Ok(())
}

fn write(keys: &mut KeyWriter<'_, '_>) -> Result<LlamaConfig> {
    let config = LlamaConfig::from_json(keys.config)?;
    if activation("hidden_act", &config.hidden_act)? != Activation::Silu {
        return Err(Error::config("hidden_act", "silu", config.hidden_act));
    }
    keys.sizes([
        ("context_length", "max_position_embeddings"),
        ("embedding_length", "hidden_size"),
        ("block_count", "num_hidden_layers"),
        ("feed_forward_length", "intermediate_size"),
        ("attention.head_count", "num_attention_heads"),
        ("vocab_size", "vocab_size"),
    ])?;
    keys.size("attention.head_count_kv", "num_key_value_heads", &json!(config.num_key_value_heads()))?;
    for name in ["attention.key_length", "attention.value_length", "rope.dimension_count"] {
        keys.size(name, "head_dim", &json!(config.head_dim()))?;
    }
    keys.number("attention.layer_norm_rms_epsilon", "rms_norm_eps")?;
    rope::write(keys, &config.rope_keys(), config.head_dim())?;
    Ok(config)
}
