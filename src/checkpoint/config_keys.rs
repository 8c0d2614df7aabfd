//! Common parts of configurations: ranges of values, and the keys of a `config.json` without
//! effect, so that every other unread key is an error instead of being ignored.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::error::{Error, Result};
use crate::ops::Activation;

/// Keys without effect on the logits: bookkeeping of `transformers`, labels and losses of heads,
/// settings of tokenizer and generation, and how a model was made.
const HARMLESS: &[&str] = &[
    // Written by `transformers` for itself.
    "_attn_implementation",
    "_attn_implementation_autoset",
    "_attn_implementation_internal",
    "_commit_hash",
    "_flash_attn_2_enabled",
    "_name_or_path",
    "_num_labels",
    "architectures",
    "attn_implementation",
    "auto_map",
    "chunk_size_feed_forward",
    "dtype",
    "gradient_checkpointing",
    "model_type",
    "name_or_path",
    "output_attentions",
    "output_hidden_states",
    "output_past",
    "pretraining_tp",
    "return_dict",
    "tf_legacy_loss",
    "torch_dtype",
    "torchscript",
    "transformers.js_config",
    "transformers_version",
    "use_bfloat16",
    "use_cache",
    "use_return_dict",
    // Heads, whose layers are in the checkpoint.
    "cls_token_id",
    "finetuning_task",
    "id2label",
    "label2id",
    "num_labels",
    "problem_type",
    "summary_activation",
    "summary_first_dropout",
    "summary_proj_to_labels",
    "summary_type",
    "summary_use_proj",
    "tie_encoder_decoder",
    // Settings of the tokenizer.
    "bos_token",
    "bos_token_id",
    "decoder_start_token_id",
    "eos_token",
    "eos_token_id",
    "gpt2_special_tokens",
    "mask_token_id",
    "pad_token",
    "pad_token_id",
    "prefix",
    "sep_token_id",
    "tokenizer_class",
    "unk_token_id",
    // Settings of generation, read from `generation_config.json`.
    "bad_words_ids",
    "begin_suppress_tokens",
    "diversity_penalty",
    "do_sample",
    "early_stopping",
    "encoder_no_repeat_ngram_size",
    "exponential_decay_length_penalty",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "length_penalty",
    "max_length",
    "max_new_tokens",
    "min_length",
    "no_repeat_ngram_size",
    "num_beam_groups",
    "num_beams",
    "num_return_sequences",
    "output_scores",
    "remove_invalid_values",
    "repetition_penalty",
    "return_dict_in_generate",
    "suppress_tokens",
    "task_specific_params",
    "temperature",
    "top_k",
    "top_p",
    "typical_p",
    // How the model was made.
    "directionality",
    "initializer_factor",
    "is_llama_config",
    "language",
    "model_max_length",
    "n_ctx",
    "name",
    "pooler_fc_size",
    "pooler_num_attention_heads",
    "pooler_num_fc_layers",
    "pooler_size_per_head",
    "pooler_type",
    "predict_special_tokens",
    "sentence_transformers",
    "tie_weights_",
    "train_batch_size",
    "unsloth_fixed",
    "unsloth_version",
];

/// Keys of related architectures, with the values that have no effect.
const NEUTRAL: [(&str, Neutral); 9] = [
    ("embedding_multiplier", Neutral::Number(1.0)),
    ("logit_scale", Neutral::Number(1.0)),
    ("logits_scaling", Neutral::Number(1.0)),
    ("num_experts", Neutral::Number(0.0)),
    ("num_local_experts", Neutral::Number(0.0)),
    ("partial_rotary_factor", Neutral::Number(1.0)),
    ("position_embedding_type", Neutral::Text("absolute")),
    // In f32, the order of scaling and the upcast of the scores have no effect.
    ("reorder_and_upcast_attn", Neutral::Truth(true)),
    ("residual_multiplier", Neutral::Number(1.0)),
];

enum Neutral {
    Number(f64),
    Truth(bool),
    Text(&'static str),
}

impl Neutral {
    fn is(&self, value: &Value) -> bool {
        match *self {
            Self::Number(number) => value.as_f64() == Some(number),
            Self::Truth(truth) => value.as_bool() == Some(truth),
            Self::Text(text) => value.as_str() == Some(text),
        }
    }
}

impl std::fmt::Display for Neutral {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Truth(truth) => truth.fmt(f),
            Self::Text(text) => write!(f, "{text:?}"),
        }
    }
}

/// Maximum number of rows, columns or layers; larger values are errors of the file.
pub(crate) const MAX_SIZE: usize = 1 << 28;

/// Checks that sizes are from 1 to 2^28 - 1.
///
/// # Errors
/// [`Error::Config`] for the first size that is not.
pub(crate) fn check_sizes<'k>(sizes: impl IntoIterator<Item = (&'k str, usize)>) -> Result<()> {
    match sizes.into_iter().find(|(_, size)| !(1..MAX_SIZE).contains(size)) {
        Some((key, size)) => Err(Error::config(key, "a number from 1 to 2^28 - 1", size)),
        None => Ok(()),
    }
}

/// Checks that dropout probabilities are in [0, 1).
///
/// # Errors
/// [`Error::Config`] for the first probability that is not.
pub(crate) fn check_dropout<'k>(probabilities: impl IntoIterator<Item = (&'k str, f64)>) -> Result<()> {
    match probabilities.into_iter().find(|(_, p)| !(0.0..1.0).contains(p)) {
        Some((key, p)) => Err(Error::config(key, "a probability in [0, 1)", p)),
        None => Ok(()),
    }
}

/// Returns the activation function with a name of `transformers`.
///
/// # Errors
/// [`Error::Config`] for an unsupported name.
pub(crate) fn activation(key: &str, name: &str) -> Result<Activation> {
    match name {
        "gelu" => Ok(Activation::Gelu),
        "gelu_new" | "gelu_pytorch_tanh" | "gelu_fast" => Ok(Activation::GeluTanh),
        "relu" => Ok(Activation::Relu),
        "silu" | "swish" => Ok(Activation::Silu),
        other => Err(Error::config(key, "gelu, gelu_new, gelu_pytorch_tanh, relu or silu", other)),
    }
}

/// Returns `defaults` with the keys of a file replaced.
///
/// # Errors
/// [`Error::Config`] for a value of the wrong type.
pub(crate) fn overlaid<C: Serialize + DeserializeOwned>(defaults: &C, json: &Value) -> Result<C> {
    let mut all = serde_json::json!(defaults);
    if let (Value::Object(all), Value::Object(given)) = (&mut all, json) {
        all.extend(given.clone());
    }
    C::deserialize(all).map_err(|e| Error::config("config.json", "the keys of its model_type", e))
}

/// Checks the keys that a configuration does not read: each must be known to have no effect, or
/// have a value without effect (`null`, `false`, empty, or a known default).
///
/// # Errors
/// [`Error::Config`] for the first other key.
pub(crate) fn check_other<'v>(other: impl IntoIterator<Item = (&'v String, &'v Value)>) -> Result<()> {
    let nothing = |value: &Value| match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty(),
        Value::Array(values) => values.is_empty(),
        Value::Object(values) => values.is_empty(),
        _ => false,
    };
    for (key, value) in other {
        if HARMLESS.contains(&key.as_str()) || nothing(value) {
            continue;
        }
        let expected = match NEUTRAL.iter().find(|(name, _)| name == key) {
            Some((_, neutral)) if neutral.is(value) => continue,
            Some((_, neutral)) => format!("{neutral} (nothing else is supported)"),
            None => "no such key (it is unknown, and may change the result)".into(),
        };
        return Err(Error::config(key, expected, value));
    }
    Ok(())
}
