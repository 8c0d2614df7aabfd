//! The Llama family: Touvron et al., "LLaMA: Open and efficient foundation language models", 2023; agrees with
//! `LlamaForCausalLM`, `MistralForCausalLM`, `Qwen2ForCausalLM` and `Qwen3ForCausalLM` of Hugging Face's `transformers`.
//!
//! A decoder with rotary positions, grouped heads and a gated feed-forward part, normalised before each:
//! `x += self_attn(input_layernorm(x)); x += mlp(post_attention_layernorm(x))`, then `norm` and the head.
//!
//! | `model_type` | what differs |
//! |---|---|
//! | `llama` (Llama 1–3, TinyLlama, SmolLM) | `attention_bias`, `mlp_bias` |
//! | `mistral` (Jiang et al. 2023) | each layer sees `sliding_window` positions |
//! | `qwen2` (Yang et al. 2024) | biases of query, key and value; windows in some layers |
//! | `qwen3` (Yang et al. 2025) | queries and keys of each head are normalised; `attention_bias`; windows in some layers |
//!
//! Differences between field paths and checkpoint keys: checkpoints of the bare model leave out the prefix `model.` ([`PREFIX`]);
//! tables of frequencies in old checkpoints are ignored ([`IGNORED`]); with `tie_word_embeddings` the head is the token table.

pub mod config;

pub use config::{LlamaConfig, MODEL_TYPES};

use crate::checkpoint::Pretrained;
use crate::error::{Error, Result};
use crate::models::causal::{
    CausalLm, LogitLens, check_batch, decode_by_sequence, decode_by_token, last_of_each, positions_and_mask,
};
use crate::nn::{
    Dropout, Embedding, Init, KvCache, KvCaches, KvLayers, Linear, Parameters, RmsNorm, RotaryPositions, Rotation,
};
use crate::ops::linear::WeightLayout;
use crate::ops::{Activation, Attention, AttentionMask, inspect};
use crate::tensor::{IdTensor, Tensor};

/// The prefix that checkpoints of the bare model lack.
pub const PREFIX: &str = "model.";

/// Ends of names that hold no parameters.
pub const IGNORED: [&str; 1] = [".rotary_emb.inv_freq"];

/// Self-attention.
#[derive(Clone, Debug)]
pub struct LlamaAttention {
    /// `[num_attention_heads · head_dim, hidden_size]`.
    pub q_proj: Linear,
    /// `[num_key_value_heads · head_dim, hidden_size]`.
    pub k_proj: Linear,
    /// `[num_key_value_heads · head_dim, hidden_size]`.
    pub v_proj: Linear,
    /// `[hidden_size, num_attention_heads · head_dim]`.
    pub o_proj: Linear,
    /// Of the queries of each head, if there is one.
    pub q_norm: Option<RmsNorm>,
    /// Of the keys of each head, if there is one.
    pub k_norm: Option<RmsNorm>,
    attention: Attention,
    dropout: Dropout,
    window: Option<usize>,
}

crate::module!(LlamaAttention { q_proj, k_proj, v_proj, o_proj, q_norm, k_norm, dropout; skip attention, window });

impl LlamaAttention {
    fn init(config: &LlamaConfig, layer: usize, mut p: Parameters<'_>) -> Result<Self> {
        let (n_heads, n_kv_heads) = (config.num_attention_heads, config.num_key_value_heads());
        let (width, head_dim) = (config.hidden_size, config.head_dim());
        let (qkv_bias, o_bias) = config.attention_biases();
        let mut norm = |name: &str| {
            let init = || RmsNorm::init(head_dim, config.rms_norm_eps as f32, p.at(name));
            config.qk_norm().then(init).transpose()
        };
        let (q_norm, k_norm) = (norm("q_norm")?, norm("k_norm")?);
        Ok(Self {
            q_proj: linear(config, width, n_heads * head_dim, qkv_bias, p.at("q_proj"))?,
            k_proj: linear(config, width, n_kv_heads * head_dim, qkv_bias, p.at("k_proj"))?,
            v_proj: linear(config, width, n_kv_heads * head_dim, qkv_bias, p.at("v_proj"))?,
            o_proj: linear(config, n_heads * head_dim, width, o_bias, p.at("o_proj"))?,
            q_norm,
            k_norm,
            attention: Attention { n_kv_heads, ..Attention::new(n_heads) },
            dropout: Dropout::new(config.attention_dropout as f32),
            window: config.window(layer),
        })
    }

    /// `residual + attention(x)`, all `[B, T, C]`.
    fn forward(&self, residual: &Tensor, x: &Tensor, call: &Call, cache: Option<KvLayers<'_>>) -> Result<Tensor> {
        let Attention { n_heads, n_kv_heads, .. } = self.attention;
        let projections = [&self.q_proj, &self.k_proj, &self.v_proj].map(|layer| (layer, None));
        let [q, k, v] = Linear::forward_each(projections, x)?;
        let (q, k) = (normalise(&self.q_norm, q)?, normalise(&self.k_norm, k)?); // [B, T, H · D], [B, T, G · D]
        let (q, k) = (call.rotation.forward(&q, n_heads)?, call.rotation.forward(&k, n_kv_heads)?);
        let mask = match self.window {
            Some(window) => call.mask.and(&AttentionMask::sliding_window(window)),
            None => call.mask.clone(),
        };
        let y = match cache {
            None => {
                let dropout = self.dropout.key().map(|key| (self.dropout.p, key));
                Attention { dropout, ..self.attention }.forward(&q, &k, &v, &mask)?
            }
            Some(cache) => cache.attend(&self.attention, &q, &k, &v, &mask)?,
        };
        self.o_proj.forward_then(&y, None, Some(residual))
    }
}

/// Normalises each head of `x: [B, T, heads · D]`.
fn normalise(norm: &Option<RmsNorm>, x: Tensor) -> Result<Tensor> {
    let Some(norm) = norm else { return Ok(x) };
    let (shape, head_dim) = (x.shape().to_vec(), norm.weight.len());
    if head_dim == 0 {
        return Ok(x);
    }
    norm.forward(&x.reshape(&[x.len() / head_dim, head_dim])?)?.reshape(&shape)
}

/// The feed-forward part.
#[derive(Clone, Debug)]
pub struct LlamaMlp {
    /// `[intermediate_size, hidden_size]`.
    pub gate_proj: Linear,
    /// `[intermediate_size, hidden_size]`.
    pub up_proj: Linear,
    /// `[hidden_size, intermediate_size]`.
    pub down_proj: Linear,
    activation: Activation,
}

crate::module!(LlamaMlp { gate_proj, up_proj, down_proj; skip activation });

impl LlamaMlp {
    fn init(config: &LlamaConfig, mut p: Parameters<'_>) -> Result<Self> {
        let (width, inner, bias) = (config.hidden_size, config.intermediate_size, config.mlp_bias);
        Ok(Self {
            gate_proj: linear(config, width, inner, bias, p.at("gate_proj"))?,
            up_proj: linear(config, width, inner, bias, p.at("up_proj"))?,
            down_proj: linear(config, inner, width, bias, p.at("down_proj"))?,
            activation: config.activation()?,
        })
    }

    /// `residual + mlp(x)`, all `[B, T, C]`.
    fn forward(&self, residual: &Tensor, x: &Tensor) -> Result<Tensor> {
        let both = [(&self.gate_proj, Some(self.activation)), (&self.up_proj, None)];
        let [gate, up] = Linear::forward_each(both, x)?; // [B, T, F]
        self.down_proj.forward_then(&gate.mul(&up)?, None, Some(residual))
    }
}

/// One layer.
#[derive(Clone, Debug)]
pub struct LlamaBlock {
    /// Self-attention.
    pub self_attn: LlamaAttention,
    /// The feed-forward part.
    pub mlp: LlamaMlp,
    /// Before the attention.
    pub input_layernorm: RmsNorm,
    /// Before the feed-forward part.
    pub post_attention_layernorm: RmsNorm,
}

crate::module!(LlamaBlock { self_attn, mlp, input_layernorm, post_attention_layernorm });

impl LlamaBlock {
    fn init(config: &LlamaConfig, layer: usize, mut p: Parameters<'_>) -> Result<Self> {
        let eps = config.rms_norm_eps as f32;
        Ok(Self {
            self_attn: LlamaAttention::init(config, layer, p.at("self_attn"))?,
            mlp: LlamaMlp::init(config, p.at("mlp"))?,
            input_layernorm: RmsNorm::init(config.hidden_size, eps, p.at("input_layernorm"))?,
            post_attention_layernorm: RmsNorm::init(config.hidden_size, eps, p.at("post_attention_layernorm"))?,
        })
    }

    fn forward(&self, x: &Tensor, call: &Call, cache: Option<KvLayers<'_>>) -> Result<Tensor> {
        let x = self.self_attn.forward(x, &self.input_layernorm.forward(x)?, call, cache)?;
        self.mlp.forward(&x, &self.post_attention_layernorm.forward(&x)?)
    }
}

/// What all layers share in a call.
struct Call {
    rotation: Rotation,
    mask: AttentionMask,
}

/// The stack of layers, from token ids to hidden states.
#[derive(Clone, Debug)]
pub struct LlamaModel {
    /// A vector for each token.
    pub embed_tokens: Embedding,
    /// The layers.
    pub layers: Vec<LlamaBlock>,
    /// After the last layer.
    pub norm: RmsNorm,
    rotary: RotaryPositions,
}

crate::module!(LlamaModel { embed_tokens, layers, norm; skip rotary });

/// A model of the Llama family with its head. See the [module](self).
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
#[derive(Clone, Debug)]
pub struct Llama {
    /// Sizes and options.
    pub config: LlamaConfig,
    /// The layers.
    pub model: LlamaModel,
    /// The head, if it is not the token table.
    pub lm_head: Option<Linear>,
}

crate::module!(Llama { model, lm_head; skip config });

impl Llama {
    /// A model from random numbers or from a checkpoint. Fresh weights are normal with `initializer_range`.
    ///
    /// # Errors
    /// [`Error::Config`] for sizes or options that cannot be; else as for [`Parameters::get`].
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
            norm: RmsNorm::init(width, config.rms_norm_eps as f32, m.at("norm"))?,
            rotary: config.rotary()?,
        };
        let head = |p| linear(config, width, vocab, false, p);
        let lm_head = (!config.tie_word_embeddings).then(|| head(p.at("lm_head"))).transpose()?;
        Ok(Self { config: config.clone(), model, lm_head })
    }

    /// The hidden states after `norm`, reading on from `cache` if there is one.
    ///
    /// `attention_mask` is 0 where there is padding, in the cached and the new positions: `[batch, cached + seq_len]`. A sequence
    /// has the same bits alone and with padding before or after it: positions count what is not padding.
    ///
    /// # Shapes
    /// `input_ids: [batch, seq_len]` → `[batch, seq_len, hidden_size]`.
    ///
    /// # Errors
    /// As for [`CausalLm::forward`]; [`Error::Shape`] if the mask does not fit.
    pub fn hidden_states(
        &self,
        input_ids: &IdTensor,
        attention_mask: Option<&IdTensor>,
        cache: Option<&mut KvCache>,
    ) -> Result<Tensor> {
        let call = self.call(input_ids, attention_mask, cache.as_ref().map_or(0, |c| c.len()))?;
        self.run(input_ids, &call, cache.map(KvCaches::Even))
    }

    fn run(&self, input_ids: &IdTensor, call: &Call, mut caches: Option<KvCaches<'_, '_>>) -> Result<Tensor> {
        let mut x = self.model.embed_tokens.forward(input_ids)?; // [B, T, C]
        inspect::hidden("model.embed_tokens", &x);
        for (i, block) in self.model.layers.iter().enumerate() {
            let layer = caches.as_mut().map(|caches| caches.layer(i));
            x = inspect::layer("model.layers", i, || block.forward(&x, call, layer))?;
        }
        self.model.norm.forward(&x)
    }

    /// The turns and the mask of a call's positions.
    fn call(&self, input_ids: &IdTensor, attention_mask: Option<&IdTensor>, past: usize) -> Result<Call> {
        let (len, limit) = (past + input_ids.batch_and_len()?.1, self.config.max_seq_len());
        if len > limit {
            return Err(Error::argument("input_ids", format!("at most {limit} positions"), len));
        }
        let (positions, mask) = positions_and_mask(input_ids, attention_mask, past)?;
        Ok(Call { rotation: self.model.rotary.at(&positions)?, mask })
    }

    /// The head: `hidden_states: […, hidden_size]` → `[…, vocab_size]`.
    ///
    /// # Errors
    /// [`Error::Shape`] if they do not fit.
    pub fn logits(&self, hidden_states: &Tensor) -> Result<Tensor> {
        match &self.lm_head {
            Some(head) => head.forward(hidden_states),
            None => self.model.embed_tokens.logits(hidden_states),
        }
    }
}

impl Pretrained for Llama {
    fn config_json(&self) -> serde_json::Value {
        self.config.to_json()
    }
}

impl LogitLens for Llama {
    fn unembed(&self, hidden_states: &Tensor) -> Result<Tensor> {
        self.logits(&self.model.norm.forward(hidden_states)?)
    }
}

/// A linear layer whose fresh weights are normal.
fn linear(config: &LlamaConfig, n_in: usize, n_out: usize, bias: bool, p: Parameters<'_>) -> Result<Linear> {
    let init = Init::Normal { std: config.initializer_range as f32 };
    Linear::init_with(n_in, n_out, WeightLayout::OutIn, init, bias.then_some(Init::Zeros), p)
}

impl CausalLm for Llama {
    type State = KvCache;

    fn vocab_size(&self) -> usize {
        self.config.vocab_size
    }

    fn max_seq_len(&self) -> Option<usize> {
        Some(self.config.max_seq_len())
    }

    fn forward(&self, input_ids: &IdTensor) -> Result<Tensor> {
        self.logits(&self.hidden_states(input_ids, None, None)?)
    }

    fn new_state(&self, _batch: usize) -> KvCache {
        KvCache::new(self.config.num_hidden_layers)
    }

    fn decode(&self, input_ids: &IdTensor, state: &mut KvCache) -> Result<Tensor> {
        let (batch, new_len) = input_ids.batch_and_len()?;
        if new_len == 0 {
            return Err(Error::shape("input_ids", "[batch, at least 1]", input_ids.shape()));
        }
        let before = state.len();
        let x = self.hidden_states(input_ids, None, Some(&mut *state)).inspect_err(|_| state.truncate(before))?;
        let last = x.narrow(1, new_len - 1, 1)?.reshape(&[batch, self.config.hidden_size])?;
        self.logits(&last)
    }

    fn decode_all(&self, input_ids: &IdTensor, state: &mut KvCache) -> Result<Tensor> {
        if self.model.rotary.is_dynamic() {
            return decode_by_token(self, input_ids, state);
        }
        self.logits(&self.hidden_states(input_ids, None, Some(state))?)
    }

    fn decode_batch(&self, input_ids: &[&[u32]], states: &mut [&mut KvCache]) -> Result<Tensor> {
        if self.model.rotary.is_dynamic() {
            return decode_by_sequence(self, input_ids, states);
        }
        check_batch(input_ids, states.len())?;
        let (ids, lens) = (input_ids.concat(), input_ids.iter().map(|ids| ids.len()).collect::<Vec<_>>());
        let ids = IdTensor::sequence(&ids);
        let caches = KvCaches::Ragged(states, &lens);
        let (end, limit) = (caches.end(ids.len()), self.config.max_seq_len());
        if end > limit {
            return Err(Error::argument("input_ids", format!("at most {limit} positions"), end));
        }
        let rotation = self.model.rotary.at(&caches.positions(&ids)?)?;
        let x = self.run(&ids, &Call { rotation, mask: AttentionMask::causal() }, Some(caches))?;
        self.logits(&last_of_each(&x, &lens)?)
    }
}

#[cfg(test)]
mod tests;
