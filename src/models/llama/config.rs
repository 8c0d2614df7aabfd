//! The configuration of the Llama family: keys of `config.json`, and how the architectures differ.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::checkpoint::config_keys::{activation, check_dropout, check_other, check_sizes, overlaid};
use crate::checkpoint::rope_keys::{ORIGINAL_POSITIONS, RopeKeys};
use crate::error::{Error, Result};
use crate::nn::RotaryPositions;

/// The supported values of `model_type`.
pub(crate) const MODEL_TYPES: [&str; 4] = ["llama", "mistral", "qwen2", "qwen3"];

/// The differences between the architectures.
struct Variant {
    /// The class in `transformers`.
    class: &'static str,
    biases: Biases,
    /// Whether `mlp_bias` is a key.
    mlp_bias: bool,
    /// Whether the queries and keys of each head are normalised.
    qk_norm: bool,
    windows: Windows,
    /// The default values of `transformers` that differ.
    vocab_size: usize,
    intermediate_size: usize,
    num_key_value_heads: Option<usize>,
    head_dim: Option<usize>,
    max_position_embeddings: usize,
    max_window_layers: Option<usize>,
    bos_token_id: Option<u32>,
    eos_token_id: Option<u32>,
}

/// The projections of an attention that have biases.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Biases {
    /// None.
    None,
    /// All or none, by the key `attention_bias`.
    Configured,
    /// Those of query, key and value.
    Qkv,
}

/// The layers that have a sliding window.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Windows {
    /// None.
    None,
    /// All, if there is a `sliding_window`.
    All,
    /// Those listed in `layer_types` or given by `max_window_layers`, if `use_sliding_window` is
    /// set.
    Layers,
}

/// One for each of [`MODEL_TYPES`].
static VARIANTS: [Variant; 4] = [LLAMA, MISTRAL, QWEN2, QWEN3];

const LLAMA: Variant = Variant {
    class: "LlamaForCausalLM",
    biases: Biases::Configured,
    mlp_bias: true,
    qk_norm: false,
    windows: Windows::None,
    vocab_size: 32_000,
    intermediate_size: 11_008,
    num_key_value_heads: None,
    head_dim: None,
    max_position_embeddings: 2048,
    max_window_layers: None,
    bos_token_id: Some(1),
    eos_token_id: Some(2),
};

const MISTRAL: Variant = Variant {
    class: "MistralForCausalLM",
    biases: Biases::None,
    mlp_bias: false,
    windows: Windows::All,
    intermediate_size: 14_336,
    num_key_value_heads: Some(8),
    max_position_embeddings: 131_072,
    ..LLAMA
};

const QWEN2: Variant = Variant {
    class: "Qwen2ForCausalLM",
    biases: Biases::Qkv,
    mlp_bias: false,
    windows: Windows::Layers,
    vocab_size: 151_936,
    intermediate_size: 22_016,
    num_key_value_heads: Some(32),
    max_position_embeddings: 32_768,
    max_window_layers: Some(28),
    bos_token_id: None,
    eos_token_id: None,
    ..LLAMA
};

const QWEN3: Variant =
    Variant { class: "Qwen3ForCausalLM", biases: Biases::Configured, qk_norm: true, head_dim: Some(128), ..QWEN2 };

impl Variant {
    fn find(model_type: &str) -> Option<&'static Self> {
        MODEL_TYPES.iter().position(|&known| known == model_type).map(|i| &VARIANTS[i])
    }
}

/// The sizes and options of a [`Llama`](super::Llama): Hugging Face's `config.json`, key by key.
///
/// Options that an architecture does not have are not written if they are `None` or `false`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct LlamaConfig {
    /// `"llama"`, `"mistral"`, `"qwen2"` or `"qwen3"`.
    pub model_type: String,
    /// The class of `transformers` that opens the checkpoint.
    pub architectures: Option<Vec<String>>,
    /// The number of token ids.
    pub vocab_size: usize,
    /// The width of the hidden states.
    pub hidden_size: usize,
    /// The inner width of the feed-forward layer.
    pub intermediate_size: usize,
    /// The number of layers.
    pub num_hidden_layers: usize,
    /// The number of query heads.
    pub num_attention_heads: usize,
    /// The number of key and value heads, a divisor of `num_attention_heads`. Default: the same
    /// number.
    pub num_key_value_heads: Option<usize>,
    /// The width of a head. Default: `hidden_size / num_attention_heads`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub head_dim: Option<usize>,
    /// The activation: `"silu"`, `"gelu"` (exact), `"gelu_new"` or `"gelu_pytorch_tanh"` (tanh
    /// approximation), or `"relu"`.
    pub hidden_act: String,
    /// The context length, in tokens, before any scaling of the rotary frequencies.
    pub max_position_embeddings: usize,
    /// The standard deviation of initial weights.
    pub initializer_range: f64,
    /// Added to the mean square in RMS normalisation.
    pub rms_norm_eps: f64,
    /// Whether the LM head is tied to the token embeddings.
    pub tie_word_embeddings: bool,
    /// Dropout probability of the attention probabilities, in `[0, 1)`.
    pub attention_dropout: f64,
    /// The base `θ` of the rotary frequencies.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rope_theta: Option<f64>,
    /// Scaling of the rotary frequencies, as written by `transformers` 4: `rope_type` (or `type`)
    /// and its numbers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rope_scaling: Option<Map<String, Value>>,
    /// Scaling and base of the rotary frequencies, as written by `transformers` 5.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rope_parameters: Option<Map<String, Value>>,
    /// Whether the attention projections have biases (Llama, Qwen3). Those of Qwen2 always have,
    /// except the output projection.
    pub attention_bias: bool,
    /// Whether the feed-forward layer has biases (Llama).
    pub mlp_bias: bool,
    /// The number of positions that a query attends to, in layers with a sliding window (Mistral:
    /// all layers).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sliding_window: Option<usize>,
    /// Whether `sliding_window` is used (Qwen).
    pub use_sliding_window: bool,
    /// The first layer with a window (Qwen, without `layer_types`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_window_layers: Option<usize>,
    /// `"full_attention"` or `"sliding_attention"` for each layer (Qwen).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layer_types: Option<Vec<String>>,
    /// The token at the start of a text, if any.
    pub bos_token_id: Option<u32>,
    /// The token or tokens at the end of a text: a number or a list.
    pub eos_token_id: Value,
    /// All other keys of the file, kept unchanged.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

impl LlamaConfig {
    /// Returns the configuration of a Llama of the given sizes, with as many key heads as query
    /// heads.
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

    /// Returns the default configuration of a `model_type` in `transformers`.
    ///
    /// # Errors
    /// [`Error::Config`] unless it is `llama`, `mistral`, `qwen2` or `qwen3`.
    pub fn of(model_type: &str) -> Result<Self> {
        let variant =
            Variant::find(model_type).ok_or_else(|| Error::config("model_type", MODEL_TYPES.join(", "), model_type))?;
        Ok(Self {
            model_type: model_type.into(),
            architectures: Some(vec![variant.class.into()]),
            vocab_size: variant.vocab_size,
            hidden_size: 4096,
            intermediate_size: variant.intermediate_size,
            num_hidden_layers: 32,
            num_attention_heads: 32,
            num_key_value_heads: variant.num_key_value_heads,
            head_dim: variant.head_dim,
            hidden_act: "silu".into(),
            max_position_embeddings: variant.max_position_embeddings,
            initializer_range: 0.02,
            rms_norm_eps: 1e-6,
            tie_word_embeddings: false,
            attention_dropout: 0.0,
            rope_theta: None,
            rope_scaling: None,
            rope_parameters: None,
            attention_bias: false,
            mlp_bias: false,
            sliding_window: (variant.windows != Windows::None).then_some(4096),
            use_sliding_window: false,
            max_window_layers: variant.max_window_layers,
            layer_types: None,
            bos_token_id: variant.bos_token_id,
            eos_token_id: json!(variant.eos_token_id),
            other: Map::new(),
        })
    }

    /// Returns the variant of `model_type`; that of Llama for one that [`LlamaConfig::check`]
    /// rejects.
    fn variant(&self) -> &'static Variant {
        Variant::find(&self.model_type).unwrap_or(&VARIANTS[0])
    }

    /// Parses the content of a `config.json`; missing keys have the default values of its
    /// `model_type`.
    ///
    /// # Errors
    /// [`Error::Config`] if a key is wrong or not supported.
    pub fn from_json(config: &Value) -> Result<Self> {
        let model_type = config.get("model_type").and_then(Value::as_str).unwrap_or("none");
        let mut given = config.clone();
        for (key, default) in [("eos_token_id", Value::Null), ("attention_dropout", 0.0.into())] {
            if given.get(key).is_some_and(Value::is_null) {
                given[key] = default;
            }
        }
        let config: Self = overlaid(&Self::of(model_type)?, &given)?;
        config.check()?;
        Ok(config)
    }

    /// Returns the content of a `config.json`.
    pub(crate) fn to_json(&self) -> Value {
        let mut config = json!(self);
        let variant = self.variant();
        let keys = [
            ("attention_bias", variant.biases == Biases::Configured),
            ("mlp_bias", variant.mlp_bias),
            ("use_sliding_window", variant.windows == Windows::Layers),
        ];
        if let Some(config) = config.as_object_mut() {
            for (key, _) in keys.iter().filter(|(_, known)| !known) {
                config.remove(*key);
            }
            // Without the keys, these would have the defaults of the architecture.
            if variant.head_dim.is_some() {
                config.insert("head_dim".into(), self.head_dim().into());
            }
            if variant.windows != Windows::None {
                config.insert("sliding_window".into(), json!(self.sliding_window));
            }
        }
        config
    }

    /// Returns the number of key and value heads.
    pub(crate) fn num_key_value_heads(&self) -> usize {
        self.num_key_value_heads.unwrap_or(self.num_attention_heads)
    }

    /// Returns the width of a head.
    pub fn head_dim(&self) -> usize {
        self.head_dim.unwrap_or(self.hidden_size / self.num_attention_heads.max(1))
    }

    /// Returns whether query, key and value projections have biases, and whether the output
    /// projection has one.
    pub(super) fn attention_biases(&self) -> (bool, bool) {
        (self.attention_bias || self.variant().biases == Biases::Qkv, self.attention_bias)
    }

    /// Returns whether the queries and keys of each head are normalised.
    pub(super) fn qk_norm(&self) -> bool {
        self.variant().qk_norm
    }

    /// Returns the number of positions that a query of this layer attends to, its own included;
    /// `None` for all.
    pub(crate) fn window(&self, layer: usize) -> Option<usize> {
        let slides = match self.variant().windows {
            Windows::None => false,
            Windows::All => true,
            Windows::Layers => {
                self.use_sliding_window
                    && match &self.layer_types {
                        Some(types) => types.get(layer).is_some_and(|t| t == SLIDING),
                        None => self.max_window_layers.is_some_and(|first| layer >= first),
                    }
            }
        };
        self.sliding_window.filter(|_| slides)
    }

    /// Returns the rotary position embeddings of the model.
    ///
    /// # Errors
    /// [`Error::Config`] if a scaling is not supported or lacks a number; [`Error::Argument`] if a
    /// number is out of range.
    pub(crate) fn rotary(&self) -> Result<RotaryPositions> {
        let (theta, scaling) = self.rope_keys().read()?;
        RotaryPositions::new(self.head_dim(), theta, scaling)
    }

    pub(super) fn rope_keys(&self) -> RopeKeys<'_> {
        RopeKeys {
            theta: self.rope_theta,
            scaling: self.rope_scaling.as_ref(),
            parameters: self.rope_parameters.as_ref(),
            max_positions: self.max_position_embeddings,
            original_max_positions: self.other.get(ORIGINAL_POSITIONS).and_then(Value::as_f64),
            partial: false,
        }
    }

    /// Checks the sizes and options.
    ///
    /// # Errors
    /// [`Error::Config`] with the first key that is wrong or not supported.
    pub(crate) fn check(&self) -> Result<()> {
        let model_type = self.model_type.as_str();
        if Variant::find(model_type).is_none() {
            return Err(Error::config("model_type", MODEL_TYPES.join(", "), model_type));
        }
        check_sizes([
            ("vocab_size", self.vocab_size),
            ("hidden_size", self.hidden_size),
            ("intermediate_size", self.intermediate_size),
            ("num_hidden_layers", self.num_hidden_layers),
            ("num_attention_heads", self.num_attention_heads),
            ("num_key_value_heads", self.num_key_value_heads()),
            ("max_position_embeddings", self.max_position_embeddings),
            ("head_dim", self.head_dim.unwrap_or(2)),
            ("sliding_window", self.sliding_window.unwrap_or(1)),
        ])?;
        let heads = self.num_attention_heads;
        if self.head_dim.is_none() && !self.hidden_size.is_multiple_of(heads) {
            let expected = format!("a divisor of hidden_size = {}", self.hidden_size);
            return Err(Error::config("num_attention_heads", expected, heads));
        }
        if !heads.is_multiple_of(self.num_key_value_heads()) {
            let expected = format!("a divisor of num_attention_heads = {heads}");
            return Err(Error::config("num_key_value_heads", expected, self.num_key_value_heads()));
        }
        if !self.head_dim().is_multiple_of(2) {
            return Err(Error::config("head_dim", "an even number", self.head_dim()));
        }
        check_dropout([("attention_dropout", self.attention_dropout)])?;
        let variant = self.variant();
        let lacks = |key: &str, expected: &str| format!("{expected}, since {model_type} does not support `{key}`");
        if self.attention_bias && variant.biases != Biases::Configured {
            return Err(Error::config("attention_bias", lacks("attention_bias", "false"), true));
        }
        if self.mlp_bias && !variant.mlp_bias {
            return Err(Error::config("mlp_bias", lacks("mlp_bias", "false"), true));
        }
        if let Some(window) = self.sliding_window.filter(|_| variant.windows == Windows::None) {
            return Err(Error::config("sliding_window", lacks("sliding_window", "null"), window));
        }
        self.check_layer_types()?;
        // `rotary` reads this key.
        check_other(self.other.iter().filter(|(key, _)| *key != ORIGINAL_POSITIONS))?;
        activation("hidden_act", &self.hidden_act)?;
        self.rotary().map(drop)
    }

    fn check_layer_types(&self) -> Result<()> {
        let Some(types) = &self.layer_types else { return Ok(()) };
        if types.len() != self.num_hidden_layers {
            let expected = format!("{} entries, one per layer", self.num_hidden_layers);
            return Err(Error::config("layer_types", expected, types.len()));
        }
        let windows = self.variant().windows == Windows::Layers;
        match types.iter().find(|&t| t != FULL && (t != SLIDING || !windows)) {
            None => Ok(()),
            Some(other) if windows => Err(Error::config("layer_types", format!("{FULL} or {SLIDING}"), other)),
            Some(other) => {
                let expected = format!("{FULL}, the only type that {} supports", self.model_type);
                Err(Error::config("layer_types", expected, other))
            }
        }
    }
}

/// The value in `layer_types` of a layer without a window.
pub(super) const FULL: &str = "full_attention";
/// The value in `layer_types` of a layer with a sliding window.
pub(super) const SLIDING: &str = "sliding_attention";
