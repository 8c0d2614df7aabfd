//! Attention with its projections.

use crate::error::{Error, Result};
use crate::nn::dropout::Dropout;
use crate::nn::kv_cache::KvLayer;
use crate::nn::linear::Linear;
use crate::nn::parameter::{Init, Parameter, Parameters};
use crate::ops::linear::WeightLayout;
use crate::ops::{self, Attention, AttentionMask, Rope};
use crate::tensor::{IdTensor, Tensor};

/// The settings of a [`MultiHeadAttention`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct MultiHeadAttentionConfig {
    /// Width of the queries and of the output.
    pub d_model: usize,
    /// Heads of the queries.
    pub n_heads: usize,
    /// Heads of the keys and values, a divisor of `n_heads`; as many if not given.
    pub n_kv_heads: Option<usize>,
    /// Width of a head; `d_model / n_heads` if not given.
    pub head_dim: Option<usize>,
    /// Width of what keys are made from; `d_model` if not given.
    pub key_dim: Option<usize>,
    /// Width of what values are made from; `d_model` if not given.
    pub value_dim: Option<usize>,
    /// Whether projections have a bias; they do at first.
    pub bias: bool,
    /// Dropout of the probabilities.
    pub dropout: f32,
    /// Rotary positions of queries and keys, for self-attention.
    pub rope: Option<Rope>,
}

impl MultiHeadAttentionConfig {
    /// As many key heads as query heads, with bias, without dropout or rotary positions.
    pub fn new(d_model: usize, n_heads: usize) -> Self {
        Self {
            d_model,
            n_heads,
            n_kv_heads: None,
            head_dim: None,
            key_dim: None,
            value_dim: None,
            bias: true,
            dropout: 0.0,
            rope: None,
        }
    }

    /// Another number of heads for keys and values.
    pub fn kv_heads(self, n_kv_heads: usize) -> Self {
        Self { n_kv_heads: Some(n_kv_heads), ..self }
    }

    /// Another width of a head.
    pub fn head_dim(self, head_dim: usize) -> Self {
        Self { head_dim: Some(head_dim), ..self }
    }

    /// Other widths of what keys and values are made from.
    pub fn memory_dims(self, key_dim: usize, value_dim: usize) -> Self {
        Self { key_dim: Some(key_dim), value_dim: Some(value_dim), ..self }
    }

    /// Projections with or without bias.
    pub fn bias(self, bias: bool) -> Self {
        Self { bias, ..self }
    }

    /// Dropout of the probabilities.
    pub fn dropout(self, dropout: f32) -> Self {
        Self { dropout, ..self }
    }

    /// Rotary positions.
    pub fn rope(self, rope: Rope) -> Self {
        Self { rope: Some(rope), ..self }
    }
}

/// Attention of a sequence over itself or over another, as `torch.nn.MultiheadAttention(batch_first=True)`.
///
/// ```
/// use loquat::nn::{MultiHeadAttention, MultiHeadAttentionConfig};
/// use loquat::{Rng, Tensor, ops::AttentionMask};
///
/// let mut rng = Rng::seed(1);
/// let attention = MultiHeadAttention::init(&MultiHeadAttentionConfig::new(8, 2), &mut rng)?;
/// let x = Tensor::normal(&[3, 5, 8], 1.0, &mut rng);
/// assert_eq!(attention.forward(&x, &AttentionMask::causal())?.shape(), [3, 5, 8]);
/// let (_, probs) = attention.cross_with_probs(&x, &x, &x, &AttentionMask::none())?;
/// assert_eq!(probs.shape(), [3, 2, 5, 5]);
/// # Ok::<(), loquat::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct MultiHeadAttention {
    /// Query, key and value projections below each other, `[(n_heads + 2 · n_kv_heads) · head_dim, d_model]`, where keys and
    /// values are made from vectors as wide as the queries.
    pub in_proj_weight: Option<Parameter>,
    /// The three projections apart, where they are not.
    pub q_proj_weight: Option<Parameter>,
    /// As `q_proj_weight`.
    pub k_proj_weight: Option<Parameter>,
    /// As `q_proj_weight`.
    pub v_proj_weight: Option<Parameter>,
    /// `[(n_heads + 2 · n_kv_heads) · head_dim]`.
    pub in_proj_bias: Option<Parameter>,
    /// From the heads' outputs side by side to the result.
    pub out_proj: Linear,
    /// Of the probabilities.
    pub dropout: Dropout,
    n_heads: usize,
    n_kv_heads: usize,
    head_dim: usize,
    rope: Option<Rope>,
}

crate::module!(MultiHeadAttention {
    in_proj_weight,
    q_proj_weight,
    k_proj_weight,
    v_proj_weight,
    in_proj_bias,
    out_proj,
    dropout;
    skip n_heads, n_kv_heads, head_dim, rope
});

impl MultiHeadAttention {
    /// A layer with PyTorch's initial values.
    ///
    /// # Errors
    /// [`Error::Argument`] if heads do not divide; as for [`Parameters::get`].
    pub fn init<'a>(config: &MultiHeadAttentionConfig, p: impl Into<Parameters<'a>>) -> Result<Self> {
        let mut p = p.into();
        let &MultiHeadAttentionConfig { d_model, n_heads, bias, .. } = config;
        if n_heads == 0 || config.head_dim.is_none() && d_model % n_heads != 0 {
            return Err(Error::argument("n_heads", format!("a divisor of d_model = {d_model}"), n_heads));
        }
        let n_kv_heads = config.n_kv_heads.unwrap_or(n_heads);
        if n_kv_heads == 0 || n_heads % n_kv_heads != 0 {
            return Err(Error::argument("n_kv_heads", format!("a divisor of n_heads = {n_heads}"), n_kv_heads));
        }
        let head_dim = config.head_dim.unwrap_or(d_model / n_heads);
        let (query, kv) = (n_heads * head_dim, n_kv_heads * head_dim);
        let (key_dim, value_dim) = (config.key_dim.unwrap_or(d_model), config.value_dim.unwrap_or(d_model));
        let xavier = |n_out: usize, n_in: usize| Init::Uniform { bound: (6.0 / (n_out + n_in).max(1) as f32).sqrt() };
        let mut weight = |name: &str, n_out, n_in| p.get(name, &[n_out, n_in], xavier(n_out, n_in)).map(Some);
        let (packed, q, k, v) = if (key_dim, value_dim) == (d_model, d_model) {
            (weight("in_proj_weight", query + 2 * kv, d_model)?, None, None, None)
        } else {
            let q = weight("q_proj_weight", query, d_model)?;
            let k = weight("k_proj_weight", kv, key_dim)?;
            (None, q, k, weight("v_proj_weight", kv, value_dim)?)
        };
        let in_proj_bias = bias.then(|| p.get("in_proj_bias", &[query + 2 * kv], Init::Zeros)).transpose()?;
        let uniform = Init::Uniform { bound: 1.0 / (query.max(1) as f32).sqrt() };
        let zeros = bias.then_some(Init::Zeros);
        Ok(Self {
            in_proj_weight: packed,
            q_proj_weight: q,
            k_proj_weight: k,
            v_proj_weight: v,
            in_proj_bias,
            out_proj: Linear::init_with(query, d_model, WeightLayout::OutIn, uniform, zeros, p.at("out_proj"))?,
            dropout: Dropout::new(config.dropout),
            n_heads,
            n_kv_heads,
            head_dim,
            rope: config.rope.clone(),
        })
    }

    /// Self-attention.
    ///
    /// # Shapes
    /// `x: [batch, seq_len, d_model]` and so the result.
    ///
    /// # Errors
    /// [`Error::Shape`] if `x` or the mask do not fit.
    pub fn forward(&self, x: &Tensor, mask: &AttentionMask) -> Result<Tensor> {
        match (&self.in_proj_weight, &self.rope) {
            (Some(weight), None) => {
                let bias = self.in_proj_bias.as_ref().map(Parameter::tensor);
                let qkv = ops::linear(x, weight.tensor(), bias, WeightLayout::OutIn)?;
                self.out_proj.forward(&self.attention().forward_packed(&qkv, mask)?)
            }
            _ => {
                let [q, k, v] = self.project(x, x, x)?;
                let (q, k) = self.turn(q, k, 0)?;
                self.out_proj.forward(&self.attention().forward(&q, &k, &v, mask)?)
            }
        }
    }

    /// Attention of `query` over another sequence; without rotary positions.
    ///
    /// # Shapes
    /// `query: [batch, queries, d_model]`, `key: [batch, keys, key_dim]`, `value: [batch, keys, value_dim]` →
    /// `[batch, queries, d_model]`.
    ///
    /// # Errors
    /// As for [`MultiHeadAttention::forward`].
    pub fn cross(&self, query: &Tensor, key: &Tensor, value: &Tensor, mask: &AttentionMask) -> Result<Tensor> {
        let [q, k, v] = self.project(query, key, value)?;
        self.out_proj.forward(&self.attention().forward(&q, &k, &v, mask)?)
    }

    /// As [`MultiHeadAttention::forward`], with the probabilities `[batch, n_heads, seq_len, seq_len]` beside.
    ///
    /// # Errors
    /// As there.
    pub fn forward_with_probs(&self, x: &Tensor, mask: &AttentionMask) -> Result<(Tensor, Tensor)> {
        let [q, k, v] = self.project(x, x, x)?;
        let (q, k) = self.turn(q, k, 0)?;
        let (y, probs) = self.attention().with_probs(&q, &k, &v, mask)?;
        Ok((self.out_proj.forward(&y)?, probs))
    }

    /// As [`MultiHeadAttention::cross`], with the probabilities `[batch, n_heads, queries, keys]` beside.
    ///
    /// # Errors
    /// As there.
    pub fn cross_with_probs(
        &self,
        query: &Tensor,
        key: &Tensor,
        value: &Tensor,
        mask: &AttentionMask,
    ) -> Result<(Tensor, Tensor)> {
        let [q, k, v] = self.project(query, key, value)?;
        let (y, probs) = self.attention().with_probs(&q, &k, &v, mask)?;
        Ok((self.out_proj.forward(&y)?, probs))
    }

    /// Self-attention of the positions that follow those in `cache`, which takes them up. A causal mask is the caller's to give;
    /// padding masks cover cached and new positions.
    ///
    /// # Shapes
    /// `x: [batch, new positions, d_model]` and so the result.
    ///
    /// # Errors
    /// As for [`MultiHeadAttention::forward`] and [`KvLayer::append`].
    pub fn forward_cached(&self, x: &Tensor, mask: &AttentionMask, cache: &mut KvLayer) -> Result<Tensor> {
        let [q, k, v] = self.project(x, x, x)?;
        let (q, k) = self.turn(q, k, cache.len())?;
        self.out_proj.forward(&cache.attend(&self.attention(), &q, &k, &v, mask)?)
    }

    /// The keys and values of a sequence that does not change from step to step, for [`MultiHeadAttention::cross_cached`].
    ///
    /// # Errors
    /// As for [`MultiHeadAttention::forward`] and [`KvLayer::append`].
    pub fn cache_memory(&self, key: &Tensor, value: &Tensor) -> Result<KvLayer> {
        let mut layer = KvLayer::new();
        layer.append(&self.linear(1, key)?, &self.linear(2, value)?)?;
        Ok(layer)
    }

    /// As [`MultiHeadAttention::cross`] over a memory whose keys and values are already there.
    ///
    /// # Errors
    /// As there.
    pub fn cross_cached(&self, query: &Tensor, memory: &KvLayer, mask: &AttentionMask) -> Result<Tensor> {
        self.out_proj.forward(&memory.look_up(&self.attention(), &self.linear(0, query)?, mask)?)
    }

    /// The attention between the projections.
    fn attention(&self) -> Attention {
        let dropout = self.dropout.key().map(|key| (self.dropout.p, key));
        Attention { n_heads: self.n_heads, n_kv_heads: self.n_kv_heads, scale: None, dropout }
    }

    /// Projection 0 (query), 1 (key) or 2 (value).
    fn linear(&self, which: usize, x: &Tensor) -> Result<Tensor> {
        let (query, kv) = (self.n_heads * self.head_dim, self.n_kv_heads * self.head_dim);
        let (start, len) = [(0, query), (query, kv), (query + kv, kv)][which];
        let apart = [&self.q_proj_weight, &self.k_proj_weight, &self.v_proj_weight][which];
        let bias = self.in_proj_bias.as_ref().map(|bias| bias.tensor().narrow(0, start, len)).transpose()?;
        match (&self.in_proj_weight, apart) {
            (Some(weight), _) => {
                ops::linear(x, &weight.tensor().narrow(0, start, len)?, bias.as_ref(), WeightLayout::OutIn)
            }
            (None, Some(weight)) => ops::linear(x, weight.tensor(), bias.as_ref(), WeightLayout::OutIn),
            (None, None) => Err(Error::argument("attention projections", "packed or apart", "neither")),
        }
    }

    fn project(&self, query: &Tensor, key: &Tensor, value: &Tensor) -> Result<[Tensor; 3]> {
        Ok([self.linear(0, query)?, self.linear(1, key)?, self.linear(2, value)?])
    }

    /// Rotary positions from `start` on.
    fn turn(&self, q: Tensor, k: Tensor, start: usize) -> Result<(Tensor, Tensor)> {
        let Some(rope) = &self.rope else { return Ok((q, k)) };
        let (batch, len) = (q.shape()[0], q.shape()[1]);
        let positions: Vec<u32> = (0..batch).flat_map(|_| start as u32..(start + len) as u32).collect();
        let positions = IdTensor::new(positions, &[batch, len])?;
        Ok((rope.forward(&q, self.n_heads, &positions)?, rope.forward(&k, self.n_kv_heads, &positions)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::{Module, train_mode};
    use crate::ops::gradient_check::{check, sample};
    use crate::random::Rng;
    use crate::tensor::no_grad;

    fn layer(config: MultiHeadAttentionConfig) -> MultiHeadAttention {
        let mut layer = MultiHeadAttention::init(&config, &mut Rng::seed(3)).unwrap();
        // Biases that are not zero.
        layer.visit_mut("", &mut |path, parameter| {
            if path.ends_with("bias") {
                let bias = Tensor::normal(parameter.shape(), 0.5, &mut Rng::seed(4));
                parameter.set(&bias).unwrap();
            }
        });
        layer
    }

    /// Gradients of the inputs and of every parameter.
    fn check_layer(name: &str, layer: &MultiHeadAttention, inputs: &[Tensor], mask: &AttentionMask) {
        let mut all = inputs.to_vec();
        all.extend(layer.parameters().iter().map(|(_, p)| p.tensor().detach()));
        check(name, &all, |x| {
            let mut layer = layer.clone();
            let mut values = x[inputs.len()..].iter();
            layer.visit_mut("", &mut |_, p| *p = Parameter::from_tensor(values.next().unwrap().clone()));
            match inputs.len() {
                1 => layer.forward(&x[0], mask),
                _ => layer.cross(&x[0], &x[1], &x[2], mask),
            }
        });
    }

    #[test]
    fn gradients_match_central_differences() {
        let rope = Rope::new(2, 8, 100.0).unwrap();
        let config = || MultiHeadAttentionConfig::new(6, 2);
        let x = [sample(&[2, 3, 6], 1)];
        check_layer("self", &layer(config()), &x, &AttentionMask::causal());
        check_layer("no bias", &layer(config().bias(false)), &x, &AttentionMask::none());
        check_layer("grouped", &layer(config().kv_heads(1).head_dim(2)), &x, &AttentionMask::none());
        check_layer("rotary", &layer(config().rope(rope)), &x, &AttentionMask::causal());
        let memory = [sample(&[2, 3, 6], 1), sample(&[2, 4, 6], 2), sample(&[2, 4, 6], 3)];
        check_layer("cross", &layer(config()), &memory, &AttentionMask::none());
        let memory = [sample(&[2, 3, 6], 1), sample(&[2, 4, 5], 2), sample(&[2, 4, 3], 3)];
        check_layer("apart", &layer(config().memory_dims(5, 3)), &memory, &AttentionMask::none());
    }

    #[test]
    fn cached_decode_matches_full_forward() {
        let rope = Rope::new(4, 16, 100.0).unwrap();
        let x = sample(&[2, 9, 8], 1);
        let padding = IdTensor::batch(&[[0, 0, 1, 1, 1, 1, 1, 1, 1], [1; 9]]).unwrap();
        for config in [MultiHeadAttentionConfig::new(8, 2), MultiHeadAttentionConfig::new(8, 2).kv_heads(1).rope(rope)]
        {
            let layer = layer(config);
            let mask = |len| {
                let rows = padding.data().chunks(9).map(|row| &row[..len]).collect::<Vec<_>>();
                AttentionMask::causal().and(&AttentionMask::padding(&IdTensor::batch(&rows).unwrap()))
            };
            no_grad(|| {
                let full = layer.forward(&x, &mask(9)).unwrap();
                let mut cache = KvLayer::new();
                for (start, len) in [(0, 4), (4, 1), (5, 3), (8, 1)] {
                    let new = x.narrow(1, start, len).unwrap();
                    let y = layer.forward_cached(&new, &mask(start + len), &mut cache).unwrap();
                    assert_eq!(y.to_vec(), full.narrow(1, start, len).unwrap().to_vec());
                }
                let memory = layer.cache_memory(&x, &x).unwrap();
                let y = layer.cross_cached(&x, &memory, &AttentionMask::none()).unwrap();
                assert_eq!(y.to_vec(), layer.cross(&x, &x, &x, &AttentionMask::none()).unwrap().to_vec());
            });
        }
    }

    #[test]
    fn probabilities_come_with_the_same_output() {
        let (layer, x) = (layer(MultiHeadAttentionConfig::new(6, 3)), sample(&[2, 4, 6], 1));
        let (y, probs) = layer.forward_with_probs(&x, &AttentionMask::causal()).unwrap();
        let plain = layer.forward(&x, &AttentionMask::causal()).unwrap();
        assert!(y.data().iter().zip(plain.data()).all(|(a, b)| (a - b).abs() < 1e-6));
        assert_eq!(probs.shape(), [2, 3, 4, 4]);
    }

    #[test]
    fn dropout_acts_in_training_only() {
        let (layer, x) = (layer(MultiHeadAttentionConfig::new(6, 3).dropout(0.5)), sample(&[2, 4, 6], 1));
        let run = || layer.forward(&x, &AttentionMask::none()).unwrap().to_vec();
        assert_eq!(run(), run());
        assert_ne!(train_mode(&mut Rng::seed(1), run), run());
        assert_eq!(train_mode(&mut Rng::seed(1), run), train_mode(&mut Rng::seed(1), run));
    }

    #[test]
    fn heads_that_do_not_divide_are_errors() {
        let init = |config| MultiHeadAttention::init(&config, &mut Rng::seed(1));
        assert!(init(MultiHeadAttentionConfig::new(6, 4)).is_err());
        assert!(init(MultiHeadAttentionConfig::new(6, 0)).is_err());
        assert!(init(MultiHeadAttentionConfig::new(6, 3).kv_heads(2)).is_err());
        assert!(init(MultiHeadAttentionConfig::new(6, 4).head_dim(3)).is_ok());
    }
}
