//! The configuration of the Llama family: keys of `config.json`, and what each architecture makes of them.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::checkpoint::config_keys::check_other;
use crate::checkpoint::rope_keys::{ORIGINAL_POSITIONS, RopeKeys};
use crate::error::{Error, Result};
use crate::nn::{RopeScaling, RotaryPositions};
use crate::ops::Activation;

/// The `model_type`s that a [`Llama`](super::Llama) is made from.
pub const MODEL_TYPES: [&str; 4] = ["llama", "mistral", "qwen2", "qwen3"];

/// The sizes and options of a [`Llama`](super::Llama): Hugging Face's `config.json`, key by key.
///
/// Options that are `None` or `false` and that an architecture does not have are not written.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct LlamaConfig {
    /// One of [`MODEL_TYPES`].
    pub model_type: String,
    /// The class of `transformers` that opens the checkpoint.
    pub architectures: Option<Vec<String>>,
    /// The number of token ids.
    pub vocab_size: usize,
    /// Width.
    pub hidden_size: usize,
    /// Width inside the feed-forward part.
    pub intermediate_size: usize,
    /// The number of layers.
    pub num_hidden_layers: usize,
    /// Heads of the queries.
    pub num_attention_heads: usize,
    /// Heads of the keys and values, a divisor of `num_attention_heads`; as many if not given.
    pub num_key_value_heads: Option<usize>,
    /// Width of a head; `hidden_size / num_attention_heads` if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub head_dim: Option<usize>,
    /// `"silu"`, `"gelu"` (by erf), `"gelu_new"` or `"gelu_pytorch_tanh"` (by tanh), or `"relu"`.
    pub hidden_act: String,
    /// The largest number of positions, before any scaling of the rotary frequencies.
    pub max_position_embeddings: usize,
    /// Standard deviation of fresh weights.
    pub initializer_range: f64,
    /// Added to the mean square in normalisation.
    pub rms_norm_eps: f64,
    /// Whether the head is the token table.
    pub tie_word_embeddings: bool,
    /// Dropout of the attention probabilities, in `[0, 1)`.
    pub attention_dropout: f64,
    /// The slowest pair of columns turns by `θ^(-1)` radians, nearly.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rope_theta: Option<f64>,
    /// Scaling of the rotary frequencies, as `transformers` 4 writes it: `rope_type` (or `type`) and its numbers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rope_scaling: Option<Map<String, Value>>,
    /// The same with `rope_theta`, as `transformers` 5 writes it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rope_parameters: Option<Map<String, Value>>,
    /// Whether the attention's projections have biases (Llama, Qwen3; Qwen2's always have, but the last).
    pub attention_bias: bool,
    /// Whether the feed-forward part has biases (Llama).
    pub mlp_bias: bool,
    /// How many positions a query sees, in the layers that have such a window (Mistral: all).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sliding_window: Option<usize>,
    /// Whether `sliding_window` is meant (Qwen).
    pub use_sliding_window: bool,
    /// The first layer with a window (Qwen, without `layer_types`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_window_layers: Option<usize>,
    /// `"full_attention"` or `"sliding_attention"` for each layer (Qwen).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layer_types: Option<Vec<String>>,
    /// The token before a text, if any.
    pub bos_token_id: Option<u32>,
    /// The tokens after a text: a number or several.
    pub eos_token_id: Value,
    /// Every other key of the file, kept as it is.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

impl LlamaConfig {
    /// A Llama of these sizes, with as many key heads as query heads.
    ///
    /// ```
    /// use loquat::models::LlamaConfig;
    ///
    /// // TinyLlama's shape
    /// let mut config = LlamaConfig::new(32_000, 2048, 5632, 22, 32);
    /// config.num_key_value_heads = Some(4);
    /// assert_eq!(config.head_dim(), 64);
    /// ```
    pub fn new(
        vocab_size: usize,
        hidden_size: usize,
        intermediate_size: usize,
        num_hidden_layers: usize,
        num_attention_heads: usize,
    ) -> Self {
        Self {
            vocab_size,
            hidden_size,
            intermediate_size,
            num_hidden_layers,
            num_attention_heads,
            ..Self::of("llama").expect("a known model type")
        }
    }

    /// The defaults of a `model_type`, those of `transformers`.
    ///
    /// # Errors
    /// [`Error::Config`] for a type that is not one of [`MODEL_TYPES`].
    pub fn of(model_type: &str) -> Result<Self> {
        let (class, qwen) = match model_type {
            "llama" => ("LlamaForCausalLM", false),
            "mistral" => ("MistralForCausalLM", false),
            "qwen2" => ("Qwen2ForCausalLM", true),
            "qwen3" => ("Qwen3ForCausalLM", true),
            other => return Err(error("model_type", &MODEL_TYPES.join(", "), other)),
        };
        let mistral = model_type == "mistral";
        Ok(Self {
            model_type: model_type.into(),
            architectures: Some(vec![class.into()]),
            vocab_size: if qwen { 151_936 } else { 32_000 },
            hidden_size: 4096,
            intermediate_size: [11_008, 14_336, 22_016][usize::from(mistral) + 2 * usize::from(qwen)],
            num_hidden_layers: 32,
            num_attention_heads: 32,
            num_key_value_heads: if mistral { Some(8) } else { qwen.then_some(32) },
            head_dim: (model_type == "qwen3").then_some(128),
            hidden_act: "silu".into(),
            max_position_embeddings: [2048, 131_072, 32_768][usize::from(mistral) + 2 * usize::from(qwen)],
            initializer_range: 0.02,
            rms_norm_eps: 1e-6,
            tie_word_embeddings: false,
            attention_dropout: 0.0,
            rope_theta: None,
            rope_scaling: None,
            rope_parameters: None,
            attention_bias: false,
            mlp_bias: false,
            sliding_window: (mistral || qwen).then_some(4096),
            use_sliding_window: false,
            max_window_layers: qwen.then_some(28),
            layer_types: None,
            bos_token_id: (!qwen).then_some(1),
            eos_token_id: if qwen { Value::Null } else { 2.into() },
            other: Map::new(),
        })
    }

    /// From the content of a `config.json`; keys that it lacks have the defaults of its `model_type`.
    ///
    /// # Errors
    /// [`Error::Config`] for a key that is wrong or not supported.
    pub fn from_json(config: &Value) -> Result<Self> {
        let model_type = config.get("model_type").and_then(Value::as_str).unwrap_or("none");
        let mut merged = json!(Self::of(model_type)?);
        for (key, value) in config.as_object().into_iter().flatten() {
            merged[key] = value.clone();
        }
        for (key, default) in [("eos_token_id", Value::Null), ("attention_dropout", 0.0.into())] {
            if merged[key].is_null() {
                merged[key] = default;
            }
        }
        let config: Self =
            serde_json::from_value(merged).map_err(|e| error("config.json", "the keys of its model_type", e))?;
        config.check()?;
        Ok(config)
    }

    /// The content of `config.json`.
    pub fn to_json(&self) -> Value {
        let mut config = json!(self);
        let own = |key: &str| match key {
            "attention_bias" => matches!(self.model_type.as_str(), "llama" | "qwen3"),
            "mlp_bias" => self.model_type == "llama",
            _ => self.model_type.starts_with("qwen"),
        };
        if let Some(config) = config.as_object_mut() {
            for key in ["attention_bias", "mlp_bias", "use_sliding_window"] {
                if !own(key) {
                    config.remove(key);
                }
            }
            // Without the key, the width would be 128.
            if self.model_type == "qwen3" {
                config.insert("head_dim".into(), self.head_dim().into());
            }
            // Without the key, the window would be the architecture's default.
            if self.model_type != "llama" {
                config.insert("sliding_window".into(), json!(self.sliding_window));
            }
        }
        config
    }

    /// Heads of the keys and values.
    pub fn num_key_value_heads(&self) -> usize {
        self.num_key_value_heads.unwrap_or(self.num_attention_heads)
    }

    /// Width of a head.
    pub fn head_dim(&self) -> usize {
        self.head_dim.unwrap_or(self.hidden_size / self.num_attention_heads.max(1))
    }

    /// Whether query, key and value projections have biases, and whether the output projection has one.
    pub fn attention_biases(&self) -> (bool, bool) {
        (self.attention_bias || self.model_type == "qwen2", self.attention_bias)
    }

    /// Whether the queries and keys of each head are normalised.
    pub fn qk_norm(&self) -> bool {
        self.model_type == "qwen3"
    }

    /// How many positions a query of this layer sees, itself included; `None` for all.
    pub fn window(&self, layer: usize) -> Option<usize> {
        let qwen = self.model_type.starts_with("qwen");
        let slides = match (&self.layer_types, self.model_type.as_str()) {
            (_, "mistral") => true,
            (Some(types), _) => types.get(layer).is_some_and(|t| t == SLIDING),
            (None, _) => qwen && self.max_window_layers.is_some_and(|first| layer >= first),
        };
        self.sliding_window.filter(|_| slides && (self.use_sliding_window || !qwen))
    }

    /// The ids of `eos_token_id`.
    pub fn eos_token_ids(&self) -> Vec<u32> {
        let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
        match &self.eos_token_id {
            Value::Array(ids) => ids.iter().filter_map(id).collect(),
            one => id(one).into_iter().collect(),
        }
    }

    /// The function inside the feed-forward part.
    ///
    /// # Errors
    /// [`Error::Config`] for one that is not known.
    pub fn activation(&self) -> Result<Activation> {
        match self.hidden_act.as_str() {
            "silu" | "swish" => Ok(Activation::Silu),
            "gelu" => Ok(Activation::Gelu),
            "gelu_new" | "gelu_pytorch_tanh" | "gelu_fast" => Ok(Activation::GeluTanh),
            "relu" => Ok(Activation::Relu),
            other => Err(error("hidden_act", "silu, gelu, gelu_new, gelu_pytorch_tanh or relu", other)),
        }
    }

    /// The largest number of positions: what `max_position_embeddings` says, stretched by the scaling of the rotary frequencies.
    pub fn max_seq_len(&self) -> usize {
        let positions = self.max_position_embeddings;
        let stretched = match self.rope() {
            Ok((_, RopeScaling::Linear { factor } | RopeScaling::Dynamic { factor, .. })) => positions as f64 * factor,
            Ok((_, RopeScaling::Yarn { factor, original_max_positions, .. })) => original_max_positions as f64 * factor,
            _ => 0.0,
        };
        positions.max(stretched as usize).min(MAX_POSITIONS)
    }

    /// The rotary positions of the model.
    ///
    /// # Errors
    /// [`Error::Config`] for a scaling that is not known or lacks a number; [`Error::Argument`] for a number that cannot be.
    pub fn rotary(&self) -> Result<RotaryPositions> {
        let (theta, scaling) = self.rope()?;
        RotaryPositions::new(self.head_dim(), theta, scaling)
    }

    /// `theta` and the scaling, from whichever key has them.
    fn rope(&self) -> Result<(f64, RopeScaling)> {
        let keys = RopeKeys {
            theta: self.rope_theta,
            scaling: self.rope_scaling.as_ref(),
            parameters: self.rope_parameters.as_ref(),
            max_positions: self.max_position_embeddings,
            original_max_positions: self.other.get(ORIGINAL_POSITIONS).and_then(Value::as_f64),
        };
        keys.read()
    }

    /// Makes sure that a model of these sizes and options can exist.
    ///
    /// # Errors
    /// [`Error::Config`] with the first key that is wrong or not supported.
    pub fn check(&self) -> Result<()> {
        let model_type = self.model_type.as_str();
        if !MODEL_TYPES.contains(&model_type) {
            return Err(error("model_type", &MODEL_TYPES.join(", "), model_type));
        }
        let sizes = [
            ("vocab_size", self.vocab_size),
            ("hidden_size", self.hidden_size),
            ("intermediate_size", self.intermediate_size),
            ("num_hidden_layers", self.num_hidden_layers),
            ("num_attention_heads", self.num_attention_heads),
            ("num_key_value_heads", self.num_key_value_heads()),
            ("max_position_embeddings", self.max_position_embeddings),
            ("head_dim", self.head_dim.unwrap_or(2)),
            ("sliding_window", self.sliding_window.unwrap_or(1)),
        ];
        for (key, size) in sizes {
            if !(1..MAX_POSITIONS).contains(&size) {
                return Err(error(key, "a number from 1 to 2^28 - 1", size));
            }
        }
        let heads = self.num_attention_heads;
        if self.head_dim.is_none() && !self.hidden_size.is_multiple_of(heads) {
            return Err(error(
                "num_attention_heads",
                &format!("a divisor of hidden_size = {}", self.hidden_size),
                heads,
            ));
        }
        if !heads.is_multiple_of(self.num_key_value_heads()) {
            let expected = format!("a divisor of num_attention_heads = {heads}");
            return Err(error("num_key_value_heads", &expected, self.num_key_value_heads()));
        }
        if !self.head_dim().is_multiple_of(2) {
            return Err(error("head_dim", "an even number", self.head_dim()));
        }
        if !(0.0..1.0).contains(&self.attention_dropout) {
            return Err(error("attention_dropout", "a probability in [0, 1)", self.attention_dropout));
        }
        if self.attention_bias && !matches!(model_type, "llama" | "qwen3") {
            return Err(error("attention_bias", &format!("false, as {model_type} has it"), true));
        }
        if self.mlp_bias && model_type != "llama" {
            return Err(error("mlp_bias", &format!("false, as {model_type} has it"), true));
        }
        if let (Some(window), "llama") = (self.sliding_window, model_type) {
            return Err(error("sliding_window", "null, as llama has it", window));
        }
        self.check_layer_types()?;
        check_other(self.other.iter().filter(|(key, _)| *key != ORIGINAL_POSITIONS))?; // which `rope` reads
        self.activation()?;
        self.rotary().map(drop)
    }

    fn check_layer_types(&self) -> Result<()> {
        let Some(types) = &self.layer_types else { return Ok(()) };
        if types.len() != self.num_hidden_layers {
            let expected = format!("one of each of {} layers", self.num_hidden_layers);
            return Err(error("layer_types", &expected, types.len()));
        }
        let qwen = self.model_type.starts_with("qwen");
        match types.iter().find(|&t| t != FULL && (t != SLIDING || !qwen)) {
            None => Ok(()),
            Some(other) if qwen => Err(error("layer_types", &format!("{FULL} or {SLIDING}"), other)),
            Some(other) => Err(error("layer_types", &format!("{FULL}, as {} has it", self.model_type), other)),
        }
    }
}

const FULL: &str = "full_attention";
const SLIDING: &str = "sliding_attention";

/// More positions or columns are a mistake in a file.
const MAX_POSITIONS: usize = 1 << 28;

fn error(key: &str, expected: &str, found: impl std::fmt::Display) -> Error {
    Error::Config { key: key.into(), expected: expected.into(), found: found.to_string() }
}
