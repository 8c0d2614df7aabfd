//! GPT-2: Radford et al., "Language Models are Unsupervised Multitask Learners", 2019; agrees with
//! `GPT2LMHeadModel` of Hugging Face's `transformers`.
//!
//! A decoder with learned positions and normalisation before each sublayer:
//! `x += attn(ln_1(x)); x += mlp(ln_2(x))`, then `ln_f` and an LM head that is tied to the token
//! embeddings.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::checkpoint::Pretrained;
use crate::checkpoint::config_keys::{activation, check_dropout, check_other, check_sizes, overlaid};
use crate::checkpoint::gguf::architecture::{Architecture, Arranged, KeyWriter, Keys};
use crate::error::{Error, Result};
use crate::models::decoder::{Decoder, DecoderBlock, DecoderCall, DecoderParts, NormRef};
use crate::models::family::{Family, Names, SizeKeys};
use crate::nn::attention::{AttentionNames, MultiHeadAttention, MultiHeadAttentionConfig, ProjectionNames};
use crate::nn::feed_forward::{FeedForward, FeedForwardConfig, Place};
use crate::nn::{Dropout, Embedding, Init, LayerNorm, Linear, Module, Parameters};
use crate::ops::Activation;
use crate::ops::linear::WeightLayout;
use crate::tensor::Tensor;

/// The entry of the family registry.
pub(super) const FAMILY: Family = Family {
    model_types: &["gpt2"],
    sizes: Some(SizeKeys {
        hidden: "n_embd",
        layers: "n_layer",
        heads: "n_head",
        kv_heads: "n_head",
        intermediate: "n_inner",
    }),
    open: Some(|source| {
        let config = Gpt2Config::from_json(source.config)?;
        source.load(&NAMES, config.tie_word_embeddings, |p| Gpt2::init(&config, p))
    }),
    gguf: &[GGUF],
    ..Family::NONE
};

/// Public checkpoints omit the prefix, and old ones contain the causal mask.
const NAMES: Names = Names {
    prefix: "transformer.",
    ignored: &[".attn.bias", ".attn.masked_bias"],
    table: "transformer.wte.weight",
    head: "lm_head.weight",
};

/// The sizes and options of a [`Gpt2`]: Hugging Face's `config.json`, key by key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Gpt2Config {
    /// Always `"gpt2"`.
    pub model_type: String,
    /// The class of `transformers` that opens the checkpoint.
    pub architectures: Vec<String>,
    /// The number of token ids.
    pub vocab_size: usize,
    /// The context length, in tokens.
    pub n_positions: usize,
    /// The width of the hidden states.
    pub n_embd: usize,
    /// The number of layers.
    pub n_layer: usize,
    /// The number of attention heads in each layer.
    pub n_head: usize,
    /// The inner width of the feed-forward layer. Default: four times `n_embd`.
    pub n_inner: Option<usize>,
    /// The activation: `"gelu_new"` (tanh approximation), `"gelu"` (exact), `"relu"` or `"silu"`.
    pub activation_function: String,
    /// Dropout probability of the output of each sublayer, in `[0, 1)`.
    pub resid_pdrop: f64,
    /// Dropout probability of the embeddings, in `[0, 1)`.
    pub embd_pdrop: f64,
    /// Dropout probability of the attention probabilities, in `[0, 1)`.
    pub attn_pdrop: f64,
    /// Added to the variance in layer normalisation.
    pub layer_norm_epsilon: f64,
    /// The standard deviation of initial weights.
    pub initializer_range: f64,
    /// Whether scores are divided by `√head_dim`.
    pub scale_attn_weights: bool,
    /// Whether scores are also divided by the number of the layer, counted from 1.
    pub scale_attn_by_inverse_layer_idx: bool,
    /// Whether the LM head is tied to the token embeddings.
    pub tie_word_embeddings: bool,
    /// The token at the start of a text, if any.
    pub bos_token_id: Option<u32>,
    /// The token at the end of a text, if any.
    pub eos_token_id: Option<u32>,
    /// All other keys of the file, kept unchanged.
    #[serde(flatten)]
    pub other: serde_json::Map<String, serde_json::Value>,
}

impl Default for Gpt2Config {
    /// Returns the configuration of GPT-2 small, with 124 million parameters.
    fn default() -> Self {
        Self {
            model_type: "gpt2".into(),
            architectures: vec!["GPT2LMHeadModel".into()],
            vocab_size: 50257,
            n_positions: 1024,
            n_embd: 768,
            n_layer: 12,
            n_head: 12,
            n_inner: None,
            activation_function: "gelu_new".into(),
            resid_pdrop: 0.1,
            embd_pdrop: 0.1,
            attn_pdrop: 0.1,
            layer_norm_epsilon: 1e-5,
            initializer_range: 0.02,
            scale_attn_weights: true,
            scale_attn_by_inverse_layer_idx: false,
            tie_word_embeddings: true,
            bos_token_id: None,
            eos_token_id: None,
            other: serde_json::Map::new(),
        }
    }
}

impl Gpt2Config {
    /// Returns the configuration of a model of the given sizes, without dropout.
    pub fn new(vocab_size: usize, n_positions: usize, n_embd: usize, n_layer: usize, n_head: usize) -> Self {
        Self { vocab_size, n_positions, n_embd, n_layer, n_head, ..Self::default() }.dropout(0.0)
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

    /// Sets all three probabilities of dropout.
    pub fn dropout(mut self, p: f64) -> Self {
        (self.resid_pdrop, self.embd_pdrop, self.attn_pdrop) = (p, p, p);
        self
    }

    /// Returns the inner width of the feed-forward layer.
    pub(crate) fn n_inner(&self) -> usize {
        self.n_inner.unwrap_or(4 * self.n_embd)
    }

    /// Checks the sizes and options.
    ///
    /// # Errors
    /// [`Error::Config`] with the first key that is wrong or not supported.
    pub(crate) fn check(&self) -> Result<()> {
        if self.model_type != "gpt2" {
            return Err(Error::config("model_type", "gpt2", &self.model_type));
        }
        check_sizes([
            ("vocab_size", self.vocab_size),
            ("n_positions", self.n_positions),
            ("n_embd", self.n_embd),
            ("n_layer", self.n_layer),
            ("n_head", self.n_head),
            ("n_inner", self.n_inner.unwrap_or(1)),
        ])?;
        if !self.n_embd.is_multiple_of(self.n_head) {
            return Err(Error::config("n_head", format!("a divisor of n_embd = {}", self.n_embd), self.n_head));
        }
        check_dropout([
            ("resid_pdrop", self.resid_pdrop),
            ("embd_pdrop", self.embd_pdrop),
            ("attn_pdrop", self.attn_pdrop),
        ])?;
        check_other(&self.other)?;
        activation("activation_function", &self.activation_function).map(drop)
    }

    /// Returns the initial distributions of weights that read the residual stream, and of those
    /// that write to it.
    fn fresh(&self) -> [Init; 2] {
        let std = self.initializer_range;
        let residual = std / (2.0 * self.n_layer as f64).sqrt();
        [Init::Normal { std: std as f32 }, Init::Normal { std: residual as f32 }]
    }

    /// Returns the settings of the attention in layer `layer`.
    fn attention(&self, layer: usize) -> MultiHeadAttentionConfig {
        let mut scale = 1.0;
        if self.scale_attn_weights {
            scale /= ((self.n_embd / self.n_head) as f32).sqrt();
        }
        if self.scale_attn_by_inverse_layer_idx {
            scale /= (layer + 1) as f32;
        }
        MultiHeadAttentionConfig {
            scale: Some(scale),
            dropout: self.attn_pdrop as f32,
            layout: WeightLayout::InOut,
            fresh: Some(self.fresh()),
            names: &AttentionNames {
                projections: ProjectionNames::Packed("c_attn"),
                out: "c_proj",
                ..AttentionNames::PYTORCH
            },
            ..MultiHeadAttentionConfig::new(self.n_embd, self.n_head)
        }
    }

    fn feed_forward(&self) -> Result<FeedForwardConfig> {
        Ok(FeedForwardConfig {
            activation: activation("activation_function", &self.activation_function)?,
            layout: WeightLayout::InOut,
            fresh: Some(self.fresh()),
            names: &[(Place::Inner, "c_fc"), (Place::Outer, "c_proj")],
            ..FeedForwardConfig::new(self.n_embd, self.n_inner())
        })
    }

    fn layer_norm(&self, p: Parameters<'_>) -> Result<LayerNorm> {
        LayerNorm::init(self.n_embd, self.layer_norm_epsilon as f32, p)
    }
}

/// A transformer layer of GPT-2.
#[derive(Clone)]
pub struct Gpt2Block {
    /// The norm before the attention.
    pub ln_1: LayerNorm,
    /// Self-attention with one packed projection.
    pub attn: MultiHeadAttention,
    /// The norm before the feed-forward layer.
    pub ln_2: LayerNorm,
    /// The feed-forward layer.
    pub mlp: FeedForward,
    dropout: Dropout,
}

crate::module!(Gpt2Block { ln_1, attn, ln_2, mlp, dropout });

impl std::fmt::Debug for Gpt2Block {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Gpt2Block({})", self.summary().in_short())
    }
}

impl Gpt2Block {
    fn init(config: &Gpt2Config, layer: usize, mut p: Parameters<'_>) -> Result<Self> {
        Ok(Self {
            ln_1: config.layer_norm(p.at("ln_1"))?,
            attn: MultiHeadAttention::init(&config.attention(layer), p.at("attn"))?,
            ln_2: config.layer_norm(p.at("ln_2"))?,
            mlp: FeedForward::init(&config.feed_forward()?, p.at("mlp"))?,
            dropout: Dropout::new(config.resid_pdrop as f32),
        })
    }
}

impl DecoderBlock for Gpt2Block {
    fn forward(&self, x: &Tensor, call: DecoderCall<'_>) -> Result<Tensor> {
        let (context, rotation) = call.attention(0);
        let y = self.ln_1.forward(x)?; // [B, T, C]
        let x = self.attn.forward_added(x, &y, context, rotation, &self.dropout)?; // [B, T, C]
        self.mlp.forward_added(&x, &self.ln_2.forward(&x)?, &self.dropout) // [B, T, C]
    }
}

/// The decoder without the LM head: token ids to hidden states.
#[derive(Clone)]
pub struct Gpt2Model {
    /// The token embeddings.
    pub wte: Embedding,
    /// The position embeddings.
    pub wpe: Embedding,
    /// The decoder.
    pub h: Vec<Gpt2Block>,
    /// The final norm.
    pub ln_f: LayerNorm,
    embd_dropout: Dropout,
}

crate::module!(Gpt2Model { wte, wpe, h, ln_f, embd_dropout });

impl std::fmt::Debug for Gpt2Model {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Gpt2Model({})", self.summary().of_layers(self.h.len()))
    }
}

/// GPT-2 with its LM head (Radford et al. 2019).
///
/// ```
/// use loquat::models::{CausalLm, Gpt2, Gpt2Config};
/// use loquat::{IdTensor, Rng};
///
/// let model = Gpt2::init(&Gpt2Config::new(65, 32, 24, 2, 3), &mut Rng::seed(1))?;
/// let logits = model.forward(&IdTensor::sequence(&[1, 2, 3]))?;
/// assert_eq!(logits.shape(), [1, 3, 65]);
/// # Ok::<(), loquat::Error>(())
/// ```
#[derive(Clone)]
pub struct Gpt2 {
    /// Sizes and options.
    pub config: Gpt2Config,
    /// The decoder.
    pub transformer: Gpt2Model,
    /// The LM head, if it is not tied to the token embeddings.
    pub lm_head: Option<Linear>,
}

crate::module!(Gpt2 { transformer, lm_head; skip config });

impl std::fmt::Debug for Gpt2 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Gpt2({})", self.summary().of_layers(self.transformer.h.len()))
    }
}

/// Prints a table of the parameters: [`Module::summary`].
impl std::fmt::Display for Gpt2 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.summary())
    }
}

impl Gpt2 {
    /// Creates a model with random parameters or with those of a checkpoint. Random weights are
    /// normal with standard deviation `initializer_range`; those of weights that write to the
    /// residual stream are divided by `√(2 · n_layer)`.
    ///
    /// # Errors
    /// [`Error::Config`] if sizes or options are invalid; also the errors of [`Parameters::get`].
    pub fn init<'a>(config: &Gpt2Config, p: impl Into<Parameters<'a>>) -> Result<Self> {
        config.check()?;
        let mut p = p.into();
        let std = config.initializer_range as f32;
        let (vocab, width) = (config.vocab_size, config.n_embd);
        let mut t = p.at("transformer");
        let transformer = Gpt2Model {
            wte: Embedding::init(vocab, width, std, t.at("wte"))?,
            wpe: Embedding::init(config.n_positions, width, std, t.at("wpe"))?,
            h: (0..config.n_layer).map(|i| Gpt2Block::init(config, i, t.at("h").at(i))).collect::<Result<_>>()?,
            ln_f: config.layer_norm(t.at("ln_f"))?,
            embd_dropout: Dropout::new(config.embd_pdrop as f32),
        };
        let head = |p| Linear::init_with(width, vocab, WeightLayout::OutIn, Init::Normal { std }, None, p);
        let lm_head = (!config.tie_word_embeddings).then(|| head(p.at("lm_head"))).transpose()?;
        Ok(Self { config: config.clone(), transformer, lm_head })
    }
}

impl Decoder for Gpt2 {
    type Block = Gpt2Block;

    fn parts(&self) -> DecoderParts<'_, Gpt2Block> {
        let t = &self.transformer;
        DecoderParts {
            paths: ["transformer.embeddings", "transformer.h"],
            max_positions: self.config.n_positions,
            tokens: &t.wte,
            positions: Some(&t.wpe),
            rotary: &[],
            dropout: t.embd_dropout,
            layers: &t.h,
            norm: NormRef::Layer(&t.ln_f),
            head: self.lm_head.as_ref(),
        }
    }
}

impl Pretrained for Gpt2 {
    fn config_json(&self) -> Value {
        json!(self.config)
    }
}

/// The architecture `gpt2` of llama.cpp.
const GGUF: Architecture = Architecture {
    name: "gpt2",
    model_types: &["gpt2"],
    blocks: "transformer.h.",
    global: &[
        ("token_embd", "transformer.wte"),
        ("position_embd", "transformer.wpe"),
        ("output_norm", "transformer.ln_f"),
        ("output", "lm_head"),
    ],
    block: &[
        ("attn_norm", "ln_1"),
        ("attn_qkv", "attn.c_attn"),
        ("attn_output", "attn.c_proj"),
        ("ffn_norm", "ln_2"),
        ("ffn_up", "mlp.c_fc"),
        ("ffn_down", "mlp.c_proj"),
    ],
    arranged: &[
        ("attn_qkv.weight", Arranged::Transposed),
        ("attn_output.weight", Arranged::Transposed),
        ("ffn_up.weight", Arranged::Transposed),
        ("ffn_down.weight", Arranged::Transposed),
    ],
    keys: &[],
    read: read_gguf,
    write: Some(write_gguf),
    // Older versions of llama.cpp require the LM head even if it is tied.
    repeats_table: true,
    ends: 1,
    causal: true,
};

fn read_gguf(keys: &Keys<'_>) -> Result<Value> {
    Ok(json!({
        "model_type": "gpt2",
        "architectures": ["GPT2LMHeadModel"],
        "vocab_size": keys.rows("token_embd.weight")?,
        "n_positions": keys.size("context_length")?,
        "n_embd": keys.size("embedding_length")?,
        "n_layer": keys.size("block_count")?,
        "n_head": keys.heads()?.0,
        "n_inner": keys.optional_size("feed_forward_length")?,
        "activation_function": "gelu_new",
        "layer_norm_epsilon": keys.number("attention.layer_norm_epsilon")?,
        "tie_word_embeddings": keys.head_is_table(),
    }))
}

fn write_gguf(keys: &mut KeyWriter<'_, '_>) -> Result<()> {
    let config = Gpt2Config::from_json(keys.config)?;
    if activation("activation_function", &config.activation_function)? != Activation::GeluTanh {
        return Err(Error::config("activation_function", "gelu_new", config.activation_function));
    }
    keys.only("scale_attn_weights", true)?;
    keys.only("scale_attn_by_inverse_layer_idx", false)?;
    keys.sizes([("context_length", "n_positions"), ("embedding_length", "n_embd"), ("block_count", "n_layer")])?;
    keys.size("feed_forward_length", "n_inner", &json!(config.n_inner()))?;
    keys.sizes([("attention.head_count", "n_head")])?;
    keys.number("attention.layer_norm_epsilon", "layer_norm_epsilon")
}

#[cfg(test)]
mod tests;
