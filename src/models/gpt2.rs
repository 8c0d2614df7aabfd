//! GPT-2: Radford et al., "Language Models are Unsupervised Multitask Learners", 2019; agrees with `GPT2LMHeadModel` of
//! Hugging Face's `transformers`.
//!
//! A decoder with learned positions and normalisation before each part:
//! `x += attn(ln_1(x)); x += mlp(ln_2(x))`, then `ln_f` and a head that shares the token table.
//!
//! Differences between field paths and checkpoint keys: public checkpoints leave out the prefix `transformer.`
//! ([`PREFIX`]); tensors that hold no parameter are ignored ([`IGNORED`]); with `tie_word_embeddings` the head is the token table.

use serde::{Deserialize, Serialize};

use crate::checkpoint::Pretrained;
use crate::checkpoint::config_keys::check_other;
use crate::error::{Error, Result};
use crate::models::causal::{CausalLm, DecodeState, LogitLens, check_batch, last_of_each, positions_and_mask};
use crate::nn::{Dropout, Embedding, Init, KvCache, KvCaches, KvLayers, LayerNorm, Linear, Parameters};
use crate::ops::linear::WeightLayout;
use crate::ops::{Activation, Attention, AttentionMask, inspect};
use crate::tensor::{IdTensor, Tensor};

/// The prefix that checkpoints of the bare model lack.
pub const PREFIX: &str = "transformer.";

/// Ends of names that hold the causal mask of old checkpoints: no parameters.
pub const IGNORED: [&str; 2] = [".attn.bias", ".attn.masked_bias"];

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
    /// The largest number of positions.
    pub n_positions: usize,
    /// Width.
    pub n_embd: usize,
    /// The number of layers.
    pub n_layer: usize,
    /// Attention heads of each.
    pub n_head: usize,
    /// Width inside the feed-forward part; four times `n_embd` if not given.
    pub n_inner: Option<usize>,
    /// `"gelu_new"` (by tanh), `"gelu"` (by erf), `"relu"` or `"silu"`.
    pub activation_function: String,
    /// Dropout after each part, in `[0, 1)`.
    pub resid_pdrop: f64,
    /// Dropout of the embeddings, in `[0, 1)`.
    pub embd_pdrop: f64,
    /// Dropout of the attention probabilities, in `[0, 1)`.
    pub attn_pdrop: f64,
    /// Added to the variance in layer normalisation.
    pub layer_norm_epsilon: f64,
    /// Standard deviation of fresh weights.
    pub initializer_range: f64,
    /// Whether scores are divided by `√head_dim`.
    pub scale_attn_weights: bool,
    /// Whether scores are also divided by the layer's number, counted from 1.
    pub scale_attn_by_inverse_layer_idx: bool,
    /// Whether the head is the token table.
    pub tie_word_embeddings: bool,
    /// The token before a text, if any.
    pub bos_token_id: Option<u32>,
    /// The token after a text, if any.
    pub eos_token_id: Option<u32>,
    /// Every other key of the file, kept as it is.
    #[serde(flatten)]
    pub other: serde_json::Map<String, serde_json::Value>,
}

impl Default for Gpt2Config {
    /// GPT-2 small, 124 million parameters.
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
    /// A model of these sizes without dropout.
    pub fn new(vocab_size: usize, n_positions: usize, n_embd: usize, n_layer: usize, n_head: usize) -> Self {
        Self { vocab_size, n_positions, n_embd, n_layer, n_head, ..Self::default() }.dropout(0.0)
    }

    /// Sets all three probabilities of dropout.
    pub fn dropout(mut self, p: f64) -> Self {
        (self.resid_pdrop, self.embd_pdrop, self.attn_pdrop) = (p, p, p);
        self
    }

    /// Width inside the feed-forward part.
    pub fn n_inner(&self) -> usize {
        self.n_inner.unwrap_or(4 * self.n_embd)
    }

    /// The function inside the feed-forward part.
    ///
    /// # Errors
    /// [`Error::Config`] for one that is not known.
    pub fn activation(&self) -> Result<Activation> {
        match self.activation_function.as_str() {
            "gelu_new" | "gelu_pytorch_tanh" | "gelu_fast" => Ok(Activation::GeluTanh),
            "gelu" => Ok(Activation::Gelu),
            "relu" => Ok(Activation::Relu),
            "silu" | "swish" => Ok(Activation::Silu),
            other => Err(config_error("activation_function", "gelu_new, gelu, relu or silu", other)),
        }
    }

    /// Makes sure that a model of these sizes and options can exist.
    ///
    /// # Errors
    /// [`Error::Config`] with the first key that is wrong or not supported.
    pub fn check(&self) -> Result<()> {
        if self.model_type != "gpt2" {
            return Err(config_error("model_type", "gpt2", &self.model_type));
        }
        let sizes = [
            ("vocab_size", self.vocab_size),
            ("n_positions", self.n_positions),
            ("n_embd", self.n_embd),
            ("n_layer", self.n_layer),
            ("n_head", self.n_head),
            ("n_inner", self.n_inner.unwrap_or(1)),
        ];
        for (key, size) in sizes {
            if !(1..1 << 28).contains(&size) {
                return Err(config_error(key, "a number from 1 to 2^28 - 1", size));
            }
        }
        if !self.n_embd.is_multiple_of(self.n_head) {
            let expected = format!("a divisor of n_embd = {}", self.n_embd);
            return Err(config_error("n_head", &expected, self.n_head));
        }
        for (key, p) in
            [("resid_pdrop", self.resid_pdrop), ("embd_pdrop", self.embd_pdrop), ("attn_pdrop", self.attn_pdrop)]
        {
            if !(0.0..1.0).contains(&p) {
                return Err(config_error(key, "a probability in [0, 1)", p));
            }
        }
        check_other(&self.other)?;
        self.activation().map(drop)
    }
}

fn config_error(key: &str, expected: &str, found: impl std::fmt::Display) -> Error {
    Error::Config { key: key.into(), expected: expected.into(), found: found.to_string() }
}

/// Self-attention, its three projections in one.
#[derive(Clone, Debug)]
pub struct Gpt2Attention {
    /// `[n_embd, 3 · n_embd]`: query, key, value.
    pub c_attn: Linear,
    /// `[n_embd, n_embd]`.
    pub c_proj: Linear,
    attention: Attention,
    attn_dropout: Dropout,
    resid_dropout: Dropout,
}

crate::module!(Gpt2Attention { c_attn, c_proj, attn_dropout, resid_dropout; skip attention });

impl Gpt2Attention {
    fn init(config: &Gpt2Config, layer: usize, mut p: Parameters<'_>) -> Result<Self> {
        let width = config.n_embd;
        let mut scale = 1.0;
        if config.scale_attn_weights {
            scale /= ((width / config.n_head) as f32).sqrt();
        }
        if config.scale_attn_by_inverse_layer_idx {
            scale /= (layer + 1) as f32;
        }
        Ok(Self {
            c_attn: conv1d(width, 3 * width, config.initializer_range as f32, p.at("c_attn"))?,
            c_proj: conv1d(width, width, residual_std(config), p.at("c_proj"))?,
            attention: Attention { scale: Some(scale), ..Attention::new(config.n_head) },
            attn_dropout: Dropout::new(config.attn_pdrop as f32),
            resid_dropout: Dropout::new(config.resid_pdrop as f32),
        })
    }

    /// `residual + attention(x)`, all `[B, T, C]`.
    fn forward(
        &self,
        residual: &Tensor,
        x: &Tensor,
        mask: &AttentionMask,
        cache: Option<KvLayers<'_>>,
    ) -> Result<Tensor> {
        let qkv = self.c_attn.forward(x)?; // [B, T, 3C]
        let y = match cache {
            None => {
                let dropout = self.attn_dropout.key().map(|key| (self.attn_dropout.p, key));
                Attention { dropout, ..self.attention }.forward_packed(&qkv, mask)?
            }
            Some(cache) => {
                let [q, k, v] = &qkv.split(3, -1)?[..] else { unreachable!("split in three") };
                cache.attend(&self.attention, q, k, v, mask)?
            }
        };
        added(residual, &self.c_proj, &self.resid_dropout, &y)
    }
}

/// The feed-forward part.
#[derive(Clone, Debug)]
pub struct Gpt2Mlp {
    /// `[n_embd, n_inner]`.
    pub c_fc: Linear,
    /// `[n_inner, n_embd]`.
    pub c_proj: Linear,
    activation: Activation,
    dropout: Dropout,
}

crate::module!(Gpt2Mlp { c_fc, c_proj, dropout; skip activation });

impl Gpt2Mlp {
    fn init(config: &Gpt2Config, mut p: Parameters<'_>) -> Result<Self> {
        Ok(Self {
            c_fc: conv1d(config.n_embd, config.n_inner(), config.initializer_range as f32, p.at("c_fc"))?,
            c_proj: conv1d(config.n_inner(), config.n_embd, residual_std(config), p.at("c_proj"))?,
            activation: config.activation()?,
            dropout: Dropout::new(config.resid_pdrop as f32),
        })
    }

    /// `residual + mlp(x)`, all `[B, T, C]`.
    fn forward(&self, residual: &Tensor, x: &Tensor) -> Result<Tensor> {
        let y = self.c_fc.forward_then(x, Some(self.activation), None)?; // [B, T, n_inner]
        added(residual, &self.c_proj, &self.dropout, &y)
    }
}

/// `x + dropout(linear(y))`
fn added(x: &Tensor, linear: &Linear, dropout: &Dropout, y: &Tensor) -> Result<Tensor> {
    match dropout.is_active() {
        true => x.add(&dropout.forward(&linear.forward(y)?)?),
        false => linear.forward_then(y, None, Some(x)),
    }
}

/// One layer.
#[derive(Clone, Debug)]
pub struct Gpt2Block {
    /// Before the attention.
    pub ln_1: LayerNorm,
    /// Self-attention.
    pub attn: Gpt2Attention,
    /// Before the feed-forward part.
    pub ln_2: LayerNorm,
    /// The feed-forward part.
    pub mlp: Gpt2Mlp,
}

crate::module!(Gpt2Block { ln_1, attn, ln_2, mlp });

impl Gpt2Block {
    fn init(config: &Gpt2Config, layer: usize, mut p: Parameters<'_>) -> Result<Self> {
        Ok(Self {
            ln_1: LayerNorm::init(config.n_embd, config.layer_norm_epsilon as f32, p.at("ln_1"))?,
            attn: Gpt2Attention::init(config, layer, p.at("attn"))?,
            ln_2: LayerNorm::init(config.n_embd, config.layer_norm_epsilon as f32, p.at("ln_2"))?,
            mlp: Gpt2Mlp::init(config, p.at("mlp"))?,
        })
    }

    fn forward(&self, x: &Tensor, mask: &AttentionMask, cache: Option<KvLayers<'_>>) -> Result<Tensor> {
        let x = self.attn.forward(x, &self.ln_1.forward(x)?, mask, cache)?;
        self.mlp.forward(&x, &self.ln_2.forward(&x)?)
    }
}

/// The stack of layers, from token ids to hidden states.
#[derive(Clone, Debug)]
pub struct Gpt2Model {
    /// A vector for each token.
    pub wte: Embedding,
    /// A vector for each position.
    pub wpe: Embedding,
    /// The layers.
    pub h: Vec<Gpt2Block>,
    /// After the last layer.
    pub ln_f: LayerNorm,
    embd_dropout: Dropout,
}

crate::module!(Gpt2Model { wte, wpe, h, ln_f, embd_dropout });

/// GPT-2 with its head. See the [module](self).
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
#[derive(Clone, Debug)]
pub struct Gpt2 {
    /// Sizes and options.
    pub config: Gpt2Config,
    /// The layers.
    pub transformer: Gpt2Model,
    /// The head, if it is not the token table.
    pub lm_head: Option<Linear>,
}

crate::module!(Gpt2 { transformer, lm_head; skip config });

impl Gpt2 {
    /// A model from random numbers or from a checkpoint. Fresh weights are normal with `initializer_range`, those that
    /// write into the residual stream divided by `√(2 · n_layer)`.
    ///
    /// # Errors
    /// [`Error::Config`] for sizes or options that cannot be; else as for [`Parameters::get`].
    pub fn init<'a>(config: &Gpt2Config, p: impl Into<Parameters<'a>>) -> Result<Self> {
        config.check()?;
        let mut p = p.into();
        let std = config.initializer_range as f32;
        let mut t = p.at("transformer");
        let transformer = Gpt2Model {
            wte: Embedding::init(config.vocab_size, config.n_embd, std, t.at("wte"))?,
            wpe: Embedding::init(config.n_positions, config.n_embd, std, t.at("wpe"))?,
            h: (0..config.n_layer).map(|i| Gpt2Block::init(config, i, t.at("h").at(i))).collect::<Result<_>>()?,
            ln_f: LayerNorm::init(config.n_embd, config.layer_norm_epsilon as f32, t.at("ln_f"))?,
            embd_dropout: Dropout::new(config.embd_pdrop as f32),
        };
        let head = |p| {
            let init = Init::Normal { std };
            Linear::init_with(config.n_embd, config.vocab_size, WeightLayout::OutIn, init, None, p)
        };
        let lm_head = (!config.tie_word_embeddings).then(|| head(p.at("lm_head"))).transpose()?;
        Ok(Self { config: config.clone(), transformer, lm_head })
    }

    /// The hidden states after `ln_f`, reading on from `cache` if there is one.
    ///
    /// `attention_mask` is 0 where there is padding, in the cached and the new positions: `[batch, cached + seq_len]`. A sequence
    /// has the same bits alone and with padding before or after it: positions count what is not padding.
    ///
    /// # Shapes
    /// `input_ids: [batch, seq_len]` → `[batch, seq_len, n_embd]`.
    ///
    /// # Errors
    /// As for [`CausalLm::forward`]; [`Error::Shape`] if the mask does not fit.
    pub fn hidden_states(
        &self,
        input_ids: &IdTensor,
        attention_mask: Option<&IdTensor>,
        cache: Option<&mut KvCache>,
    ) -> Result<Tensor> {
        self.hidden_states_of(input_ids, attention_mask, cache.map(KvCaches::Even))
    }

    fn hidden_states_of(
        &self,
        input_ids: &IdTensor,
        attention_mask: Option<&IdTensor>,
        mut caches: Option<KvCaches<'_, '_>>,
    ) -> Result<Tensor> {
        let (_, seq_len) = input_ids.batch_and_len()?;
        let end = caches.as_ref().map_or(seq_len, |c| c.end(seq_len));
        if end > self.config.n_positions {
            let expected = format!("at most {} positions", self.config.n_positions);
            return Err(Error::argument("input_ids", expected, end));
        }
        let t = &self.transformer;
        let past = if let Some(KvCaches::Even(cache)) = &caches { cache.len() } else { 0 };
        let (count, mask) = positions_and_mask(input_ids, attention_mask, past)?;
        let positions = match &caches {
            Some(caches @ KvCaches::Ragged(..)) => t.wpe.forward(&caches.positions(input_ids)?)?, // [B, T, C]
            _ if attention_mask.is_some() => t.wpe.forward(&count)?,                              // [B, T, C]
            _ => t.wpe.weight.tensor().narrow(0, past, seq_len)?,                                 // [T, C]
        };
        let mut x = t.embd_dropout.forward(&t.wte.forward(input_ids)?.add(&positions)?)?; // [B, T, C]
        inspect::hidden("transformer.embeddings", &x);
        for (i, block) in t.h.iter().enumerate() {
            let layer = caches.as_mut().map(|caches| caches.layer(i));
            x = inspect::layer("transformer.h", i, || block.forward(&x, &mask, layer))?;
        }
        t.ln_f.forward(&x)
    }

    /// The head: `hidden_states: […, n_embd]` → `[…, vocab_size]`.
    ///
    /// # Errors
    /// [`Error::Shape`] if they do not fit.
    pub fn logits(&self, hidden_states: &Tensor) -> Result<Tensor> {
        match &self.lm_head {
            Some(head) => head.forward(hidden_states),
            None => self.transformer.wte.logits(hidden_states),
        }
    }
}

impl Pretrained for Gpt2 {
    fn config_json(&self) -> serde_json::Value {
        serde_json::json!(self.config)
    }
}

/// GPT-2's linear layer, whose weight is stored `[in, out]`.
fn conv1d(n_in: usize, n_out: usize, std: f32, p: Parameters<'_>) -> Result<Linear> {
    Linear::init_with(n_in, n_out, WeightLayout::InOut, Init::Normal { std }, Some(Init::Zeros), p)
}

/// Standard deviation of weights that write into the residual stream.
fn residual_std(config: &Gpt2Config) -> f32 {
    (config.initializer_range / (2.0 * config.n_layer as f64).sqrt()) as f32
}

impl DecodeState for KvCache {
    fn len(&self) -> usize {
        KvCache::len(self)
    }

    fn kv_cache(&self) -> Option<&KvCache> {
        Some(self)
    }

    fn kv_cache_mut(&mut self) -> Option<&mut KvCache> {
        Some(self)
    }

    fn can_truncate(&self) -> bool {
        true
    }

    fn truncate(&mut self, len: usize) -> bool {
        KvCache::truncate(self, len);
        true
    }
}

impl LogitLens for Gpt2 {
    fn unembed(&self, hidden_states: &Tensor) -> Result<Tensor> {
        self.logits(&self.transformer.ln_f.forward(hidden_states)?)
    }
}

impl CausalLm for Gpt2 {
    type State = KvCache;

    fn vocab_size(&self) -> usize {
        self.config.vocab_size
    }

    fn max_seq_len(&self) -> Option<usize> {
        Some(self.config.n_positions)
    }

    fn forward(&self, input_ids: &IdTensor) -> Result<Tensor> {
        self.logits(&self.hidden_states(input_ids, None, None)?)
    }

    fn new_state(&self, _batch: usize) -> KvCache {
        KvCache::new(self.config.n_layer)
    }

    fn decode(&self, input_ids: &IdTensor, state: &mut KvCache) -> Result<Tensor> {
        let (batch, new_len) = input_ids.batch_and_len()?;
        if new_len == 0 {
            return Err(Error::shape("input_ids", "[batch, at least 1]", input_ids.shape()));
        }
        let before = state.len();
        let x = self.hidden_states(input_ids, None, Some(&mut *state)).inspect_err(|_| state.truncate(before))?;
        let last = x.narrow(1, new_len - 1, 1)?.reshape(&[batch, self.config.n_embd])?;
        self.logits(&last)
    }

    fn decode_all(&self, input_ids: &IdTensor, state: &mut KvCache) -> Result<Tensor> {
        self.logits(&self.hidden_states(input_ids, None, Some(state))?)
    }

    fn decode_batch(&self, input_ids: &[&[u32]], states: &mut [&mut KvCache]) -> Result<Tensor> {
        check_batch(input_ids, states.len())?;
        let (ids, lens) = (input_ids.concat(), input_ids.iter().map(|ids| ids.len()).collect::<Vec<_>>());
        let x = self.hidden_states_of(&IdTensor::sequence(&ids), None, Some(KvCaches::Ragged(states, &lens)))?;
        self.logits(&last_of_each(&x, &lens)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::Module;
    use crate::random::Rng;
    use crate::tensor::no_grad;

    fn tiny() -> Gpt2 {
        Gpt2::init(&Gpt2Config::new(13, 16, 12, 2, 3), &mut Rng::seed(1)).unwrap()
    }

    #[test]
    fn cached_decode_matches_full_forward_bit_for_bit() {
        let model = tiny();
        let ids = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3];
        let whole = no_grad(|| model.forward(&IdTensor::sequence(&ids))).unwrap();
        for first in [1, 4, 9] {
            let mut cache = model.new_state(1);
            let mut at = 0;
            let steps = std::iter::once(first).chain(std::iter::repeat_n(1, ids.len() - first));
            for step in steps {
                let new = IdTensor::sequence(&ids[at..at + step]);
                let logits = no_grad(|| model.decode(&new, &mut cache)).unwrap();
                at += step;
                assert_eq!(logits.data(), &whole.data()[(at - 1) * 13..at * 13], "prompt of {first}, position {at}");
            }
        }
    }

    #[test]
    fn the_lens_at_the_last_layer_shows_the_logits() {
        let (model, ids) = (tiny(), IdTensor::sequence(&[3, 1, 4]));
        let lens = model.logit_lens(&ids).unwrap();
        assert_eq!(lens.len(), 3);
        assert_eq!(lens[0].1.shape(), [1, 3, 13]);
        assert_eq!(lens[2].1.data(), no_grad(|| model.forward(&ids)).unwrap().data());
        assert_ne!(lens[1].1.data(), lens[2].1.data());
    }

    #[test]
    fn a_batch_gives_the_bits_of_its_rows() {
        let model = tiny();
        let rows = [[3, 1, 4, 1], [5, 9, 2, 6], [0, 0, 12, 7]];
        let batch = no_grad(|| model.forward(&IdTensor::batch(&rows).unwrap())).unwrap();
        for (row, logits) in rows.iter().zip(batch.data().chunks_exact(4 * 13)) {
            assert_eq!(no_grad(|| model.forward(&IdTensor::sequence(row))).unwrap().data(), logits);
        }
    }

    #[test]
    fn sequences_of_different_lengths_have_the_bits_that_they_have_alone() {
        let model = tiny();
        let prompts: [&[u32]; 3] = [&[3, 1, 4, 1, 5], &[9], &[2, 6]];
        let mut states: Vec<KvCache> = prompts.iter().map(|_| model.new_state(1)).collect();
        let mut alone: Vec<KvCache> = states.clone();
        for step in 0..4 {
            let ids: Vec<Vec<u32>> = match step {
                0 => prompts.iter().map(|ids| ids.to_vec()).collect(),
                3 => vec![vec![1, 2], vec![3], vec![4, 5, 6]],
                _ => (0..3).map(|i| vec![step + i]).collect(),
            };
            let ids: Vec<&[u32]> = ids.iter().map(Vec::as_slice).collect();
            let mut together: Vec<&mut KvCache> = states.iter_mut().collect();
            let logits = no_grad(|| model.decode_batch(&ids, &mut together)).unwrap();
            for (row, (ids, state)) in ids.iter().zip(&mut alone).enumerate() {
                let logits_alone = no_grad(|| model.decode(&IdTensor::sequence(ids), state)).unwrap();
                assert_eq!(&logits.data()[row * 13..][..13], logits_alone.data(), "step {step}, row {row}");
            }
        }
        assert!(model.decode_batch(&[&[1]], &mut []).is_err());
        assert!(model.decode_batch(&[&[]], &mut [&mut states[0]]).is_err());
        assert!(model.decode_batch(&[&[0; 12]], &mut [&mut states[0]]).is_err());
    }

    #[test]
    fn every_parameter_gets_a_gradient() {
        let model = tiny();
        let logits = model.forward(&IdTensor::sequence(&[1, 2, 3])).unwrap();
        let loss = crate::ops::cross_entropy(&logits, &IdTensor::sequence(&[2, 3, 4])).unwrap();
        let gradients = loss.backward().unwrap();
        assert_eq!(model.without_gradient(&gradients), Vec::<String>::new());
    }

    #[test]
    fn names_are_those_of_the_checkpoint() {
        let model = tiny();
        let names: Vec<String> = model.parameters().into_iter().map(|(path, _)| path).collect();
        assert_eq!(
            names[..4],
            [
                "transformer.wte.weight",
                "transformer.wpe.weight",
                "transformer.h.0.ln_1.weight",
                "transformer.h.0.ln_1.bias"
            ]
        );
        assert!(names.contains(&"transformer.h.1.attn.c_attn.weight".to_string()));
        assert_eq!(names.len(), 2 + 2 * 12 + 2);
    }

    #[test]
    fn what_cannot_be_is_an_error() {
        let init = |config: Gpt2Config| Gpt2::init(&config, &mut Rng::seed(1)).unwrap_err().to_string();
        assert!(init(Gpt2Config::new(13, 16, 10, 2, 3)).contains("config `n_head`: expected a divisor of n_embd = 10"));
        assert!(init(Gpt2Config::new(0, 16, 12, 2, 3)).contains("vocab_size"));
        assert!(init(Gpt2Config::new(13, 16, 12, 2, 3).dropout(1.0)).contains("pdrop"));
        let unknown = Gpt2Config { activation_function: "mish".into(), ..Gpt2Config::new(13, 16, 12, 2, 3) };
        assert!(init(unknown).contains("activation_function"));
        let model = tiny();
        assert!(model.forward(&IdTensor::sequence(&[0; 17])).is_err());
        assert!(model.forward(&IdTensor::sequence(&[13])).is_err());
        let mut cache = model.new_state(1);
        assert!(model.decode(&IdTensor::sequence(&[0; 17]), &mut cache).is_err());
        assert!(model.decode(&IdTensor::sequence(&[]), &mut cache).is_err());
    }
}
