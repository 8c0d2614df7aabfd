//! GPT-NeoX: Black et al., "GPT-NeoX-20B: An Open-Source Autoregressive Language Model", 2022
//! (<https://arxiv.org/abs/2204.06745>), and Pythia (Biderman et al. 2023); agrees with
//! `GPTNeoXForCausalLM` of Hugging Face's `transformers`.
//!
//! A decoder with biases, layer normalisation, and rotary positions on the first columns of each
//! head. Attention and feed-forward layer read the same input:
//! `x += attention(input_layernorm(x)) + mlp(post_attention_layernorm(x))`, or, without
//! `use_parallel_residual`, one after the other; then `final_layer_norm` and the LM head.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::checkpoint::Pretrained;
use crate::checkpoint::config_keys::{activation, check_dropout, check_other, check_sizes, overlaid};
use crate::checkpoint::gguf::architecture::{Architecture, Arranged, KeyWriter, Keys};
use crate::checkpoint::gguf::{Value as GgufValue, rope};
use crate::checkpoint::rope_keys::{ORIGINAL_POSITIONS, RopeKeys};
use crate::error::{Error, Result};
use crate::models::decoder::{Decoder, DecoderBlock, DecoderCall, DecoderParts, NormRef};
use crate::models::family::{Family, Names, SizeKeys};
use crate::nn::attention::{AttentionNames, MultiHeadAttention, MultiHeadAttentionConfig, ProjectionNames};
use crate::nn::feed_forward::{FeedForward, FeedForwardConfig, Place};
use crate::nn::{Dropout, Embedding, Init, LayerNorm, Linear, Module, Parameters, RotaryPositions};
use crate::ops::linear::WeightLayout;
use crate::tensor::Tensor;

/// The entry of the family registry.
pub(super) const FAMILY: Family = Family {
    model_types: &["gpt_neox"],
    sizes: Some(SizeKeys { kv_heads: "num_attention_heads", ..SizeKeys::USUAL }),
    open: Some(|source| {
        let config = GptNeoXConfig::from_json(source.config)?;
        source.load(&NAMES, config.tie_word_embeddings, |p| GptNeoX::init(&config, p))
    }),
    gguf: &[GGUF],
    ..Family::NONE
};

/// Checkpoints of the bare model omit the prefix; old ones contain the causal mask and a table of
/// frequencies.
const NAMES: Names = Names {
    prefix: "gpt_neox.",
    ignored: &[".attention.bias", ".attention.masked_bias", ".rotary_emb.inv_freq"],
    table: "gpt_neox.embed_in.weight",
    head: "embed_out.weight",
};

/// The sizes and options of a [`GptNeoX`]: Hugging Face's `config.json`, key by key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct GptNeoXConfig {
    /// Always `"gpt_neox"`.
    pub model_type: String,
    /// The class of `transformers` that opens the checkpoint.
    pub architectures: Option<Vec<String>>,
    /// The number of token ids.
    pub vocab_size: usize,
    /// The width of the hidden states.
    pub hidden_size: usize,
    /// The number of layers.
    pub num_hidden_layers: usize,
    /// The number of attention heads in each layer.
    pub num_attention_heads: usize,
    /// The inner width of the feed-forward layer.
    pub intermediate_size: usize,
    /// The activation: `"gelu"` (exact), `"gelu_new"` (tanh approximation), `"relu"` or `"silu"`.
    pub hidden_act: String,
    /// Dropout probability of the attention probabilities, in `[0, 1)`.
    pub attention_dropout: f64,
    /// Dropout probability of the embeddings and of the output of each sublayer, in `[0, 1)`.
    pub hidden_dropout: f64,
    /// The context length, in tokens, before any scaling of the rotary frequencies.
    pub max_position_embeddings: usize,
    /// The standard deviation of initial weights.
    pub initializer_range: f64,
    /// Added to the variance in layer normalisation.
    pub layer_norm_eps: f64,
    /// Whether the LM head is tied to the token embeddings.
    pub tie_word_embeddings: bool,
    /// Whether attention and feed-forward layer read the same input.
    pub use_parallel_residual: bool,
    /// Whether the attention's projections have biases.
    pub attention_bias: bool,
    /// The fraction of each head's columns that are rotated, as written by `transformers` 4.
    /// Default: 0.25.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rotary_pct: Option<f64>,
    /// The base of the rotary frequencies, as written by `transformers` 4. Default: 10 000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rotary_emb_base: Option<f64>,
    /// Scaling of the rotary frequencies, as written by `transformers` 4.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rope_scaling: Option<Map<String, Value>>,
    /// All settings of the rotary positions, as written by `transformers` 5.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rope_parameters: Option<Map<String, Value>>,
    /// The token at the start of a text, if any.
    pub bos_token_id: Option<u32>,
    /// The token or tokens at the end of a text: a number or a list.
    pub eos_token_id: Value,
    /// All other keys of the file, kept unchanged.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

impl Default for GptNeoXConfig {
    /// Returns the configuration of GPT-NeoX-20B, the default in `transformers`.
    fn default() -> Self {
        Self {
            model_type: "gpt_neox".into(),
            architectures: Some(vec!["GPTNeoXForCausalLM".into()]),
            vocab_size: 50_432,
            hidden_size: 6144,
            num_hidden_layers: 44,
            num_attention_heads: 64,
            intermediate_size: 24_576,
            hidden_act: "gelu".into(),
            attention_dropout: 0.0,
            hidden_dropout: 0.0,
            max_position_embeddings: 2048,
            initializer_range: 0.02,
            layer_norm_eps: 1e-5,
            tie_word_embeddings: false,
            use_parallel_residual: true,
            attention_bias: true,
            rotary_pct: None,
            rotary_emb_base: None,
            rope_scaling: None,
            rope_parameters: None,
            bos_token_id: Some(0),
            eos_token_id: 2.into(),
            other: Map::new(),
        }
    }
}

impl GptNeoXConfig {
    /// Returns the configuration of a model of the given sizes, with an inner width of four times
    /// `hidden_size`.
    ///
    /// ```
    /// use loquat::models::GptNeoXConfig;
    ///
    /// let pythia_70m = GptNeoXConfig::new(50_304, 512, 6, 8);
    /// assert_eq!(pythia_70m.intermediate_size, 2048);
    /// ```
    pub fn new(vocab_size: usize, hidden_size: usize, num_hidden_layers: usize, num_attention_heads: usize) -> Self {
        let intermediate_size = hidden_size.saturating_mul(4);
        let sizes = Self { vocab_size, hidden_size, num_hidden_layers, num_attention_heads, ..Self::default() };
        Self { intermediate_size, ..sizes }
    }

    /// Parses the content of a `config.json`; missing keys have their default values.
    ///
    /// # Errors
    /// [`Error::Config`] if a key is wrong or not supported.
    pub fn from_json(config: &Value) -> Result<Self> {
        let config = overlaid(&Self::default(), config)?;
        Self::check(&config)?;
        Ok(config)
    }

    /// Returns the number of columns of each head that are rotated.
    ///
    /// # Errors
    /// [`Error::Config`] unless the fraction is from 0 to 1 and gives an even number of columns.
    pub(crate) fn rot_dim(&self) -> Result<usize> {
        let inside = self.rope_keys().partial_rotary_factor()?;
        let (share, head_dim) =
            (inside.or(self.rotary_pct).unwrap_or(0.25), self.hidden_size / self.num_attention_heads.max(1));
        let rot_dim = (share * head_dim as f64) as usize;
        if !(0.0..=1.0).contains(&share) || rot_dim == 0 || !rot_dim.is_multiple_of(2) {
            let expected = format!("a share of {head_dim} columns that is an even number of them, at least 2");
            return Err(Error::config("rotary_pct", expected, share));
        }
        Ok(rot_dim)
    }

    /// Checks the sizes and options.
    ///
    /// # Errors
    /// [`Error::Config`] with the first key that is wrong or not supported.
    pub(crate) fn check(&self) -> Result<()> {
        if self.model_type != "gpt_neox" {
            return Err(Error::config("model_type", "gpt_neox", &self.model_type));
        }
        check_sizes([
            ("vocab_size", self.vocab_size),
            ("hidden_size", self.hidden_size),
            ("num_hidden_layers", self.num_hidden_layers),
            ("num_attention_heads", self.num_attention_heads),
            ("intermediate_size", self.intermediate_size),
            ("max_position_embeddings", self.max_position_embeddings),
        ])?;
        if !self.hidden_size.is_multiple_of(self.num_attention_heads) {
            let expected = format!("a divisor of hidden_size = {}", self.hidden_size);
            return Err(Error::config("num_attention_heads", expected, self.num_attention_heads));
        }
        check_dropout([("attention_dropout", self.attention_dropout), ("hidden_dropout", self.hidden_dropout)])?;
        let read = [ORIGINAL_POSITIONS, "classifier_dropout"]; // the second by heads that classify
        check_other(self.other.iter().filter(|(key, _)| !read.contains(&key.as_str())))?;
        activation("hidden_act", &self.hidden_act)?;
        self.rotary().map(drop)
    }

    fn rope_keys(&self) -> RopeKeys<'_> {
        RopeKeys {
            theta: self.rotary_emb_base,
            scaling: self.rope_scaling.as_ref(),
            parameters: self.rope_parameters.as_ref(),
            max_positions: self.max_position_embeddings,
            original_max_positions: self.other.get(ORIGINAL_POSITIONS).and_then(Value::as_f64),
            partial: true,
        }
    }

    fn rotary(&self) -> Result<RotaryPositions> {
        let (theta, scaling) = self.rope_keys().read()?;
        RotaryPositions::new(self.rot_dim()?, theta, scaling)
    }

    fn fresh(&self) -> Init {
        Init::Normal { std: self.initializer_range as f32 }
    }

    fn layer_norm(&self, p: Parameters<'_>) -> Result<LayerNorm> {
        LayerNorm::init(self.hidden_size, self.layer_norm_eps as f32, p)
    }

    fn attention(&self) -> MultiHeadAttentionConfig {
        MultiHeadAttentionConfig {
            bias: self.attention_bias,
            dropout: self.attention_dropout as f32,
            fresh: Some([self.fresh(); 2]),
            names: &AttentionNames {
                projections: ProjectionNames::Interleaved("query_key_value"),
                out: "dense",
                ..AttentionNames::PYTORCH
            },
            ..MultiHeadAttentionConfig::new(self.hidden_size, self.num_attention_heads)
        }
    }

    fn feed_forward(&self) -> Result<FeedForwardConfig> {
        Ok(FeedForwardConfig {
            activation: activation("hidden_act", &self.hidden_act)?,
            fresh: Some([self.fresh(); 2]),
            names: &[(Place::Inner, "dense_h_to_4h"), (Place::Outer, "dense_4h_to_h")],
            ..FeedForwardConfig::new(self.hidden_size, self.intermediate_size)
        })
    }
}

/// A transformer layer of GPT-NeoX.
#[derive(Clone)]
pub struct GptNeoXBlock {
    /// The norm before the attention.
    pub input_layernorm: LayerNorm,
    /// The norm before the feed-forward layer.
    pub post_attention_layernorm: LayerNorm,
    /// Self-attention with one projection, in which query, key and value of each head are adjacent.
    pub attention: MultiHeadAttention,
    /// The feed-forward layer.
    pub mlp: FeedForward,
    dropout: Dropout,
    parallel: bool,
}

crate::module!(GptNeoXBlock { input_layernorm, post_attention_layernorm, attention, mlp, dropout; skip parallel });

impl std::fmt::Debug for GptNeoXBlock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "GptNeoXBlock({})", self.summary().in_short())
    }
}

impl GptNeoXBlock {
    fn init(config: &GptNeoXConfig, mut p: Parameters<'_>) -> Result<Self> {
        Ok(Self {
            input_layernorm: config.layer_norm(p.at("input_layernorm"))?,
            post_attention_layernorm: config.layer_norm(p.at("post_attention_layernorm"))?,
            attention: MultiHeadAttention::init(&config.attention(), p.at("attention"))?,
            mlp: FeedForward::init(&config.feed_forward()?, p.at("mlp"))?,
            dropout: Dropout::new(config.hidden_dropout as f32),
            parallel: config.use_parallel_residual,
        })
    }
}

impl DecoderBlock for GptNeoXBlock {
    fn forward(&self, x: &Tensor, call: DecoderCall<'_>) -> Result<Tensor> {
        let (context, rotation) = call.attention(0);
        let y = self.input_layernorm.forward(x)?; // [B, T, C]
        let y = self.attention.forward_added(x, &y, context, rotation, &self.dropout)?; // [B, T, C]
        let read = if self.parallel { x } else { &y };
        let read = self.post_attention_layernorm.forward(read)?; // [B, T, C]
        self.mlp.forward_added(&y, &read, &self.dropout) // [B, T, C]
    }
}

/// The decoder without the LM head: token ids to hidden states.
#[derive(Clone)]
pub struct GptNeoXModel {
    /// The token embeddings.
    pub embed_in: Embedding,
    /// The decoder.
    pub layers: Vec<GptNeoXBlock>,
    /// The final norm.
    pub final_layer_norm: LayerNorm,
    dropout: Dropout,
    rotary: RotaryPositions,
}

crate::module!(GptNeoXModel { embed_in, layers, final_layer_norm, dropout; skip rotary });

impl std::fmt::Debug for GptNeoXModel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "GptNeoXModel({})", self.summary().of_layers(self.layers.len()))
    }
}

/// GPT-NeoX with its LM head (Black et al. 2022; Pythia, Biderman et al. 2023).
///
/// ```
/// use loquat::models::{CausalLm, GptNeoX, GptNeoXConfig};
/// use loquat::{IdTensor, Rng};
///
/// let model = GptNeoX::init(&GptNeoXConfig::new(65, 24, 2, 3), &mut Rng::seed(1))?;
/// let logits = model.forward(&IdTensor::sequence(&[1, 2, 3]))?;
/// assert_eq!(logits.shape(), [1, 3, 65]);
/// # Ok::<(), loquat::Error>(())
/// ```
#[derive(Clone)]
pub struct GptNeoX {
    /// Sizes and options.
    pub config: GptNeoXConfig,
    /// The decoder.
    pub gpt_neox: GptNeoXModel,
    /// The LM head, if it is not tied to the token embeddings.
    pub embed_out: Option<Linear>,
}

crate::module!(GptNeoX { gpt_neox, embed_out; skip config });

impl std::fmt::Debug for GptNeoX {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "GptNeoX({})", self.summary().of_layers(self.gpt_neox.layers.len()))
    }
}

/// Prints a table of the parameters: [`Module::summary`].
impl std::fmt::Display for GptNeoX {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.summary())
    }
}

impl GptNeoX {
    /// Creates a model with random parameters or with those of a checkpoint. Random weights are
    /// normal with standard deviation `initializer_range`.
    ///
    /// # Errors
    /// [`Error::Config`] if sizes or options are invalid; also the errors of [`Parameters::get`].
    pub fn init<'a>(config: &GptNeoXConfig, p: impl Into<Parameters<'a>>) -> Result<Self> {
        config.check()?;
        let mut p = p.into();
        let (vocab, width) = (config.vocab_size, config.hidden_size);
        let mut m = p.at("gpt_neox");
        let layers = (0..config.num_hidden_layers).map(|i| GptNeoXBlock::init(config, m.at("layers").at(i)));
        let layers = layers.collect::<Result<_>>()?;
        let gpt_neox = GptNeoXModel {
            embed_in: Embedding::init(vocab, width, config.initializer_range as f32, m.at("embed_in"))?,
            layers,
            final_layer_norm: config.layer_norm(m.at("final_layer_norm"))?,
            dropout: Dropout::new(config.hidden_dropout as f32),
            rotary: config.rotary()?,
        };
        let head = |p| Linear::init_with(width, vocab, WeightLayout::OutIn, config.fresh(), None, p);
        let embed_out = (!config.tie_word_embeddings).then(|| head(p.at("embed_out"))).transpose()?;
        Ok(Self { config: config.clone(), gpt_neox, embed_out })
    }
}

impl Decoder for GptNeoX {
    type Block = GptNeoXBlock;

    fn parts(&self) -> DecoderParts<'_, GptNeoXBlock> {
        let m = &self.gpt_neox;
        DecoderParts {
            paths: ["gpt_neox.embed_in", "gpt_neox.layers"],
            max_positions: m.rotary.stretched(self.config.max_position_embeddings),
            tokens: &m.embed_in,
            positions: None,
            rotary: std::slice::from_ref(&m.rotary),
            dropout: m.dropout,
            layers: &m.layers,
            norm: NormRef::Layer(&m.final_layer_norm),
            head: self.embed_out.as_ref(),
        }
    }
}

impl Pretrained for GptNeoX {
    fn config_json(&self) -> Value {
        json!(self.config)
    }
}

/// The architecture `gptneox` of llama.cpp.
const GGUF: Architecture = Architecture {
    name: "gptneox",
    model_types: &["gpt_neox"],
    blocks: "gpt_neox.layers.",
    global: &[
        ("token_embd", "gpt_neox.embed_in"),
        ("output_norm", "gpt_neox.final_layer_norm"),
        ("output", "embed_out"),
    ],
    block: &[
        ("attn_norm", "input_layernorm"),
        ("attn_qkv", "attention.query_key_value"),
        ("attn_output", "attention.dense"),
        ("ffn_norm", "post_attention_layernorm"),
        ("ffn_up", "mlp.dense_h_to_4h"),
        ("ffn_down", "mlp.dense_4h_to_h"),
    ],
    arranged: &[("attn_qkv", Arranged::SideBySide)],
    keys: &["use_parallel_residual"],
    read: read_gguf,
    write: Some(write_gguf),
    // Other readers require the LM head even if it is tied.
    repeats_table: true,
    ends: 3,
    causal: true,
};

fn read_gguf(keys: &Keys<'_>) -> Result<Value> {
    let (heads, _) = keys.heads()?;
    let hidden_size = keys.size("embedding_length")?;
    let head_dim = hidden_size.checked_div(heads).unwrap_or(0);
    let rot_dim = keys.optional_size("rope.dimension_count")?.unwrap_or(head_dim);
    if rot_dim > head_dim {
        return Err(Error::config(keys.key("rope.dimension_count"), format!("at most {head_dim}"), rot_dim));
    }
    let parallel = keys.file.require(&keys.key("use_parallel_residual"), "true or false", |v| v.as_bool())?;
    let mut config = json!({
        "model_type": "gpt_neox",
        "architectures": ["GPTNeoXForCausalLM"],
        "vocab_size": keys.rows("token_embd.weight")?,
        "hidden_size": hidden_size,
        "num_hidden_layers": keys.size("block_count")?,
        "num_attention_heads": heads,
        "intermediate_size": keys.size("feed_forward_length")?,
        "hidden_act": "gelu",
        "max_position_embeddings": keys.size("context_length")?,
        "layer_norm_eps": keys.number("attention.layer_norm_epsilon")?,
        "rotary_pct": rot_dim as f64 / head_dim.max(1) as f64,
        "rotary_emb_base": keys.optional_number("rope.freq_base")?.unwrap_or(10_000.0),
        "use_parallel_residual": parallel,
        "attention_bias": keys.has("blk.0.attn_qkv.bias"),
        "tie_word_embeddings": keys.head_is_table(),
    });
    if let Some(scaling) = rope::read(keys, &config, rot_dim)? {
        config["rope_scaling"] = Value::Object(scaling);
    }
    Ok(config)
}

fn write_gguf(keys: &mut KeyWriter<'_, '_>) -> Result<()> {
    let config = GptNeoXConfig::from_json(keys.config)?;
    keys.only("hidden_act", "gelu")?;
    keys.sizes([
        ("context_length", "max_position_embeddings"),
        ("embedding_length", "hidden_size"),
        ("block_count", "num_hidden_layers"),
        ("feed_forward_length", "intermediate_size"),
        ("attention.head_count", "num_attention_heads"),
        ("vocab_size", "vocab_size"),
    ])?;
    let rot_dim = config.rot_dim()?;
    keys.size("rope.dimension_count", "rotary_pct", &json!(rot_dim))?;
    keys.set("use_parallel_residual", GgufValue::Bool(config.use_parallel_residual))?;
    keys.number("attention.layer_norm_epsilon", "layer_norm_eps")?;
    rope::write(keys, &config.rope_keys(), rot_dim)
}
