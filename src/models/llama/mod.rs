//! The Llama family: Touvron et al., "LLaMA: Open and efficient foundation language models", 2023;
//! agrees with `LlamaForCausalLM`, `MistralForCausalLM`, `Qwen2ForCausalLM` and `Qwen3ForCausalLM`
//! of Hugging Face's `transformers`.
//!
//! A decoder with rotary positions, grouped-query attention and a gated feed-forward layer, with
//! normalisation before each:
//! `x += self_attn(input_layernorm(x)); x += mlp(post_attention_layernorm(x))`, then `norm` and the
//! LM head.
//!
//! | `model_type` | differences |
//! |---|---|
//! | `llama` (Llama 1–3, TinyLlama, SmolLM) | `attention_bias`, `mlp_bias` |
//! | `mistral` (Jiang et al. 2023) | sliding window of `sliding_window` positions in each layer |
//! | `qwen2` (Yang et al. 2024) | biases of query, key and value; sliding window in some layers |
//! | `qwen3` (Yang et al. 2025) | queries and keys of each head are normalised; `attention_bias`; sliding window in some layers |
//!
//! | file | content |
//! |---|---|
//! | [`mod@self`] | [`Llama`]: layers and model |
//! | `config` | [`LlamaConfig`]: `config.json`, and how the architectures differ |
//! | `gguf` | names and keys in GGUF files |

mod config;
mod gguf;

pub use config::LlamaConfig;
use config::MODEL_TYPES;

use crate::checkpoint::Pretrained;
use crate::checkpoint::config_keys::activation;
use crate::error::Result;
use crate::models::decoder::{Decoder, DecoderBlock, DecoderCall, DecoderParts, NormRef};
use crate::models::family::{Family, Names, SizeKeys};
use crate::nn::attention::{AttentionNames, MultiHeadAttention, MultiHeadAttentionConfig, ProjectionNames, QkNorm};
use crate::nn::feed_forward::{FeedForward, FeedForwardConfig, Place};
use crate::nn::{Dropout, Embedding, Init, Linear, Module, Parameters, RmsNorm, RotaryPositions};
use crate::ops::linear::WeightLayout;
use crate::tensor::Tensor;

/// The entry of the family registry.
pub(super) const FAMILY: Family = Family {
    model_types: &MODEL_TYPES,
    sizes: Some(SizeKeys::USUAL),
    open: Some(|source| {
        let config = LlamaConfig::from_json(source.config)?;
        source.load(&NAMES, config.tie_word_embeddings, |p| Llama::init(&config, p))
    }),
    gguf: &gguf::ARCHITECTURES,
    ..Family::NONE
};

/// Checkpoints of the bare model omit the prefix; old ones contain tables of frequencies.
const NAMES: Names = Names {
    prefix: "model.",
    ignored: &[".rotary_emb.inv_freq"],
    table: "model.embed_tokens.weight",
    head: "lm_head.weight",
};

impl LlamaConfig {
    fn fresh(&self) -> Init {
        Init::Normal { std: self.initializer_range as f32 }
    }

    /// Returns the settings of the attention in layer `layer`.
    fn attention(&self, layer: usize) -> MultiHeadAttentionConfig {
        let (bias, out_bias) = self.attention_biases();
        MultiHeadAttentionConfig {
            n_kv_heads: Some(self.num_key_value_heads()),
            head_dim: Some(self.head_dim()),
            bias,
            out_bias: Some(out_bias),
            dropout: self.attention_dropout as f32,
            window: self.window(layer),
            qk_norm: self.qk_norm().then_some(QkNorm { eps: self.rms_norm_eps as f32, across_heads: false }),
            fresh: Some([self.fresh(); 2]),
            names: &AttentionNames {
                projections: ProjectionNames::Separate(["q_proj", "k_proj", "v_proj"]),
                out: "o_proj",
                ..AttentionNames::PYTORCH
            },
            ..MultiHeadAttentionConfig::new(self.hidden_size, self.num_attention_heads)
        }
    }

    fn feed_forward(&self) -> Result<FeedForwardConfig> {
        Ok(FeedForwardConfig {
            activation: activation("hidden_act", &self.hidden_act)?,
            gated: true,
            bias: self.mlp_bias,
            fresh: Some([self.fresh(); 2]),
            names: &[(Place::Inner, "gate_proj"), (Place::Gate, "up_proj"), (Place::Outer, "down_proj")],
            ..FeedForwardConfig::new(self.hidden_size, self.intermediate_size)
        })
    }

    fn norm(&self, p: Parameters<'_>) -> Result<RmsNorm> {
        RmsNorm::init(self.hidden_size, self.rms_norm_eps as f32, p)
    }
}

/// A transformer layer of the Llama family.
#[derive(Clone)]
pub struct LlamaBlock {
    /// Self-attention.
    pub self_attn: MultiHeadAttention,
    /// The feed-forward layer.
    pub mlp: FeedForward,
    /// The norm before the attention.
    pub input_layernorm: RmsNorm,
    /// The norm before the feed-forward layer.
    pub post_attention_layernorm: RmsNorm,
}

crate::module!(LlamaBlock { self_attn, mlp, input_layernorm, post_attention_layernorm });

impl std::fmt::Debug for LlamaBlock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "LlamaBlock({})", self.summary().in_short())
    }
}

impl LlamaBlock {
    fn init(config: &LlamaConfig, layer: usize, mut p: Parameters<'_>) -> Result<Self> {
        Ok(Self {
            self_attn: MultiHeadAttention::init(&config.attention(layer), p.at("self_attn"))?,
            mlp: FeedForward::init(&config.feed_forward()?, p.at("mlp"))?,
            input_layernorm: config.norm(p.at("input_layernorm"))?,
            post_attention_layernorm: config.norm(p.at("post_attention_layernorm"))?,
        })
    }
}

impl DecoderBlock for LlamaBlock {
    fn forward(&self, x: &Tensor, call: DecoderCall<'_>) -> Result<Tensor> {
        let (none, (context, rotation)) = (Dropout::new(0.0), call.attention(0));
        let y = self.input_layernorm.forward(x)?; // [B, T, C]
        let x = self.self_attn.forward_added(x, &y, context, rotation, &none)?; // [B, T, C]
        self.mlp.forward_added(&x, &self.post_attention_layernorm.forward(&x)?, &none) // [B, T, C]
    }
}

/// The decoder without the LM head: token ids to hidden states.
#[derive(Clone)]
pub struct LlamaModel {
    /// The token embeddings.
    pub embed_tokens: Embedding,
    /// The decoder.
    pub layers: Vec<LlamaBlock>,
    /// The final norm.
    pub norm: RmsNorm,
    rotary: RotaryPositions,
}

crate::module!(LlamaModel { embed_tokens, layers, norm; skip rotary });

impl std::fmt::Debug for LlamaModel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "LlamaModel({})", self.summary().of_layers(self.layers.len()))
    }
}

/// A model of the Llama family (Touvron et al. 2023) with its LM head: Llama, Mistral, Qwen2 or
/// Qwen3.
///
/// ```
/// use loquat::models::{CausalLm, Llama, LlamaConfig};
/// use loquat::{IdTensor, Rng};
///
/// let mut config = LlamaConfig::new(65, 24, 64, 2, 6);
/// config.num_key_value_heads = Some(2);
/// let model = Llama::init(&config, &mut Rng::seed(1))?;
/// let logits = model.forward(&IdTensor::sequence(&[1, 2, 3]))?;
/// assert_eq!(logits.shape(), [1, 3, 65]);
/// # Ok::<(), loquat::Error>(())
/// ```
#[derive(Clone)]
pub struct Llama {
    /// Sizes and options.
    pub config: LlamaConfig,
    /// The decoder.
    pub model: LlamaModel,
    /// The LM head, if it is not tied to the token embeddings.
    pub lm_head: Option<Linear>,
}

crate::module!(Llama { model, lm_head; skip config });

impl std::fmt::Debug for Llama {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Llama({})", self.summary().of_layers(self.model.layers.len()))
    }
}

/// Prints a table of the parameters: [`Module::summary`].
impl std::fmt::Display for Llama {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.summary())
    }
}

impl Llama {
    /// Creates a model with random parameters or with those of a checkpoint. Random weights are
    /// normal with standard deviation `initializer_range`.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config) if sizes or options are invalid; also the errors of
    /// [`Parameters::get`].
    pub fn init<'a>(config: &LlamaConfig, p: impl Into<Parameters<'a>>) -> Result<Self> {
        config.check()?;
        let mut p = p.into();
        let (vocab, width) = (config.vocab_size, config.hidden_size);
        let mut m = p.at("model");
        let layers = (0..config.num_hidden_layers).map(|i| LlamaBlock::init(config, i, m.at("layers").at(i)));
        let layers = layers.collect::<Result<_>>()?;
        let model = LlamaModel {
            embed_tokens: Embedding::init(vocab, width, config.initializer_range as f32, m.at("embed_tokens"))?,
            layers,
            norm: config.norm(m.at("norm"))?,
            rotary: config.rotary()?,
        };
        let head = |p| Linear::init_with(width, vocab, WeightLayout::OutIn, config.fresh(), None, p);
        let lm_head = (!config.tie_word_embeddings).then(|| head(p.at("lm_head"))).transpose()?;
        Ok(Self { config: config.clone(), model, lm_head })
    }
}

impl Decoder for Llama {
    type Block = LlamaBlock;

    fn parts(&self) -> DecoderParts<'_, LlamaBlock> {
        let m = &self.model;
        DecoderParts {
            paths: ["model.embed_tokens", "model.layers"],
            max_positions: m.rotary.stretched(self.config.max_position_embeddings),
            tokens: &m.embed_tokens,
            positions: None,
            rotary: std::slice::from_ref(&m.rotary),
            dropout: Dropout::new(0.0),
            layers: &m.layers,
            norm: NormRef::Rms(&m.norm),
            head: self.lm_head.as_ref(),
        }
    }
}

impl Pretrained for Llama {
    fn config_json(&self) -> serde_json::Value {
        self.config.to_json()
    }
}

#[cfg(test)]
mod tests;
