//! Multi-head attention with its projections.

use crate::error::{Error, Result};
use crate::nn::dropout::Dropout;
use crate::nn::kv_cache::{KvLayer, KvLayers};
use crate::nn::linear::Linear;
use crate::nn::module::{Module, below};
use crate::nn::norm::RmsNorm;
use crate::nn::parameter::{Init, Parameter, Parameters};
use crate::nn::rotary::Rotation;
use crate::ops::attention::Span;
use crate::ops::linear::WeightLayout;
use crate::ops::{Attention, AttentionMask, Rope};
use crate::tensor::{IdTensor, Tensor};

/// The settings of a [`MultiHeadAttention`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct MultiHeadAttentionConfig {
    /// Width of the queries and of the output.
    pub d_model: usize,
    /// The number of query heads.
    pub n_heads: usize,
    /// The number of key and value heads, a divisor of `n_heads`. Default: `n_heads`.
    pub n_kv_heads: Option<usize>,
    /// Width of a head. Default: `d_model / n_heads`.
    pub head_dim: Option<usize>,
    /// Width of the input of the keys. Default: `d_model`.
    pub key_dim: Option<usize>,
    /// Width of the input of the values. Default: `d_model`.
    pub value_dim: Option<usize>,
    /// Whether the projections have a bias. Default: true.
    pub bias: bool,
    /// Whether the output projection has a bias. Default: same as `bias`.
    pub out_bias: Option<bool>,
    /// Dropout probability of the attention probabilities, in `[0, 1)`. Default: 0.
    pub dropout: f32,
    /// Rotary position embedding of queries and keys in self-attention. Default: none.
    pub rope: Option<Rope>,
    /// The factor of the scores. Default: `1 / √head_dim`.
    pub scale: Option<f32>,
    /// Sliding window of self-attention: the number of positions that a query attends to, its own
    /// included. Default: unlimited.
    pub window: Option<usize>,
    /// Caps scores to `softcap · tanh(scores / softcap)`. Default: none.
    pub softcap: Option<f32>,
    /// Whether each query head has a learned [sink](Attention::sinks). Default: false.
    pub sinks: bool,
    /// RMS normalisation of queries and keys. Default: none.
    pub qk_norm: Option<QkNorm>,
    /// How the projections' weights are stored. Default: [`WeightLayout::OutIn`].
    pub(crate) layout: WeightLayout,
    /// The initial distributions of the input projections and of the output projection. Default:
    /// PyTorch's.
    pub(crate) fresh: Option<[Init; 2]>,
    pub(crate) names: &'static AttentionNames,
}

/// Settings of the RMS normalisation of queries and keys in a [`MultiHeadAttention`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct QkNorm {
    /// Added to the mean square.
    pub eps: f32,
    /// Whether all heads of a position are normalised together (OLMo 2), instead of each separately
    /// (Qwen3).
    pub across_heads: bool,
}

impl MultiHeadAttentionConfig {
    /// Returns settings with the default of every optional field.
    pub fn new(d_model: usize, n_heads: usize) -> Self {
        Self {
            d_model,
            n_heads,
            n_kv_heads: None,
            head_dim: None,
            key_dim: None,
            value_dim: None,
            bias: true,
            out_bias: None,
            dropout: 0.0,
            rope: None,
            scale: None,
            window: None,
            softcap: None,
            sinks: false,
            qk_norm: None,
            layout: WeightLayout::OutIn,
            fresh: None,
            names: &AttentionNames::PYTORCH,
        }
    }

    /// Sets the number of key and value heads (default: `n_heads`).
    pub fn kv_heads(self, n_kv_heads: usize) -> Self {
        Self { n_kv_heads: Some(n_kv_heads), ..self }
    }

    /// Sets the width of a head (default: `d_model / n_heads`).
    pub fn head_dim(self, head_dim: usize) -> Self {
        Self { head_dim: Some(head_dim), ..self }
    }

    /// Sets the widths of the inputs of keys and values (default: `d_model`).
    pub fn memory_dims(self, key_dim: usize, value_dim: usize) -> Self {
        Self { key_dim: Some(key_dim), value_dim: Some(value_dim), ..self }
    }

    /// Sets whether the projections have a bias (default: true).
    pub fn bias(self, bias: bool) -> Self {
        Self { bias, ..self }
    }

    /// Sets the dropout probability of the attention probabilities, in `[0, 1)` (default: 0).
    pub fn dropout(self, dropout: f32) -> Self {
        Self { dropout, ..self }
    }

    /// Sets the rotary position embedding (default: none).
    pub fn rope(self, rope: Rope) -> Self {
        Self { rope: Some(rope), ..self }
    }
}

/// The names of an attention's parameters in a checkpoint, below the attention's own path.
#[derive(Debug)]
pub(crate) struct AttentionNames {
    pub(crate) projections: ProjectionNames,
    pub(crate) out: &'static str,
    pub(crate) q_norm: &'static str,
    pub(crate) k_norm: &'static str,
    pub(crate) sinks: &'static str,
}

/// The names of the layers of [`Projections`], and how the layers are arranged.
#[derive(Debug)]
pub(crate) enum ProjectionNames {
    /// Three layers: query, key, value.
    Separate([&'static str; 3]),
    /// One layer, whose outputs are all queries, then all keys, then all values.
    Packed(&'static str),
    /// One layer, whose outputs are, for each key head, its queries, its key and its value.
    Interleaved(&'static str),
    /// The names of `torch.nn.MultiheadAttention`: `in_proj_weight`, or `q_proj_weight`,
    /// `k_proj_weight` and `v_proj_weight`; `in_proj_bias` in either case.
    PyTorch,
}

impl AttentionNames {
    /// The names of `torch.nn.MultiheadAttention`.
    pub(crate) const PYTORCH: Self = Self {
        projections: ProjectionNames::PyTorch,
        out: "out_proj",
        q_norm: "q_norm",
        k_norm: "k_norm",
        sinks: "sinks",
    };
}

/// The linear layers of a [`MultiHeadAttention`] that compute queries, keys and values.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Projections {
    /// One layer each for query `[n_heads · head_dim, d_model]`, key
    /// `[n_kv_heads · head_dim, key_dim]` and value `[n_kv_heads · head_dim, value_dim]`.
    Separate(Box<[Linear; 3]>),
    /// One layer, `[(n_heads + 2 · n_kv_heads) · head_dim, d_model]`, whose outputs are all
    /// queries, then all keys, then all values.
    Packed(Linear),
    /// One layer of the same shape, whose outputs are, for each key head, its queries, its key and
    /// its value (GPT-NeoX, Falcon).
    Interleaved(Linear),
}

/// Multi-head attention over the sequence itself or over another one, like
/// `torch.nn.MultiheadAttention(batch_first=True)`, with the options that language models add.
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
#[derive(Clone)]
pub struct MultiHeadAttention {
    /// The projections of the input to queries, keys and values.
    pub projections: Projections,
    /// The bias of three projections whose weights are separate, as PyTorch stores it,
    /// `[(n_heads + 2 · n_kv_heads) · head_dim]`.
    pub in_proj_bias: Option<Parameter>,
    /// The output projection, applied to the concatenated heads, `[d_model, n_heads · head_dim]`.
    pub out: Linear,
    /// The norm of the queries.
    pub q_norm: Option<RmsNorm>,
    /// The norm of the keys.
    pub k_norm: Option<RmsNorm>,
    /// The logit of each query head's sink, `[n_heads]`.
    pub sinks: Option<Parameter>,
    /// Dropout of the attention probabilities.
    pub dropout: Dropout,
    n_heads: usize,
    n_kv_heads: usize,
    head_dim: usize,
    scale: Option<f32>,
    softcap: Option<f32>,
    window: Option<usize>,
    rope: Option<Rope>,
    names: &'static AttentionNames,
}

impl std::fmt::Debug for MultiHeadAttention {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { n_heads, n_kv_heads, head_dim, .. } = self;
        let d_model = self.out.out_features();
        write!(f, "MultiHeadAttention(d_model={d_model}, n_heads={n_heads}, n_kv_heads={n_kv_heads}")?;
        if n_heads * head_dim != d_model {
            write!(f, ", head_dim={head_dim}")?;
        }
        write!(f, ", {})", self.out.weight.weight().format_name())
    }
}

/// The positions that the queries of a self-attention attend to.
pub(crate) enum Context<'a> {
    /// The positions of `x: [batch, seq_len, d_model]` under a mask.
    Whole(&'a AttentionMask),
    /// The positions of the query's own sequence, where several sequences are concatenated in
    /// `x: [total, d_model]`; without gradients.
    Spans(&'a [Span]),
    /// The positions in a cache, to which those of `x` are appended; without gradients.
    Cached(KvLayers<'a>, &'a AttentionMask),
}

/// Visits the parts of an attention under their names, by reference or by mutable reference.
macro_rules! visit_parts {
    ($visit:ident, $self:expr, $path:ident, $f:ident $(, $mut:tt)?) => {{
        let Self { projections, in_proj_bias, out, q_norm, k_norm, sinks, names, .. } = $self;
        match (projections, &names.projections) {
            (Projections::Separate(layers), ProjectionNames::Separate([q, k, v])) => {
                let [query, key, value] = &$($mut)? **layers;
                query.$visit(&below($path, q), $f);
                key.$visit(&below($path, k), $f);
                value.$visit(&below($path, v), $f);
            }
            (Projections::Separate(layers), _) => {
                let [query, key, value] = &$($mut)? **layers;
                query.weight.$visit(&below($path, "q_proj_weight"), $f);
                key.weight.$visit(&below($path, "k_proj_weight"), $f);
                value.weight.$visit(&below($path, "v_proj_weight"), $f);
            }
            (
                Projections::Packed(all) | Projections::Interleaved(all),
                ProjectionNames::Packed(name) | ProjectionNames::Interleaved(name),
            ) => all.$visit(&below($path, name), $f),
            (Projections::Packed(all) | Projections::Interleaved(all), _) => {
                all.weight.$visit(&below($path, "in_proj_weight"), $f);
                all.bias.$visit(&below($path, "in_proj_bias"), $f);
            }
        }
        in_proj_bias.$visit(&below($path, "in_proj_bias"), $f);
        out.$visit(&below($path, names.out), $f);
        q_norm.$visit(&below($path, names.q_norm), $f);
        k_norm.$visit(&below($path, names.k_norm), $f);
        sinks.$visit(&below($path, names.sinks), $f);
    }};
}

impl Module for MultiHeadAttention {
    fn visit<'m>(&'m self, path: &str, f: &mut dyn FnMut(&str, &'m Parameter)) {
        visit_parts!(visit, self, path, f);
    }

    fn visit_mut(&mut self, path: &str, f: &mut dyn FnMut(&str, &mut Parameter)) {
        visit_parts!(visit_mut, self, path, f, mut);
    }
}

impl MultiHeadAttention {
    /// Returns the number of query heads.
    pub fn n_heads(&self) -> usize {
        self.n_heads
    }

    /// Creates a layer with PyTorch's initial values.
    ///
    /// # Errors
    /// [`Error::Argument`] unless `n_kv_heads` divides `n_heads`, and `n_heads` divides `d_model`
    /// or `head_dim` is set; also the errors of [`Parameters::get`].
    pub fn init<'a>(config: &MultiHeadAttentionConfig, p: impl Into<Parameters<'a>>) -> Result<Self> {
        let mut p = p.into();
        let &MultiHeadAttentionConfig { d_model, n_heads, bias, layout, names, .. } = config;
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
        let norm = |width: usize, name: &str, p: &mut Parameters<'_>| {
            let of = |norm: QkNorm| if norm.across_heads { width } else { head_dim };
            config.qk_norm.map(|norm| RmsNorm::init(of(norm), norm.eps, p.at(name))).transpose()
        };
        let q_norm = norm(query, names.q_norm, &mut p)?;
        let k_norm = norm(kv, names.k_norm, &mut p)?;
        let xavier = |n_out: usize, n_in: usize| Init::Uniform { bound: (6.0 / (n_out + n_in).max(1) as f32).sqrt() };
        let fresh = |n_out, n_in| config.fresh.map_or_else(|| xavier(n_out, n_in), |[projections, _]| projections);
        let zeros = |bias: bool| bias.then_some(Init::Zeros);
        let mut linear = |name: &str, n_in, n_out| {
            Linear::init_with(n_in, n_out, layout, fresh(n_out, n_in), zeros(bias), p.at(name))
        };
        let all = query + 2 * kv;
        let mut in_proj_bias = None;
        let projections = match names.projections {
            ProjectionNames::Separate([q, k, v]) => Projections::Separate(Box::new([
                linear(q, d_model, query)?,
                linear(k, key_dim, kv)?,
                linear(v, value_dim, kv)?,
            ])),
            ProjectionNames::Packed(name) => Projections::Packed(linear(name, d_model, all)?),
            ProjectionNames::Interleaved(name) => Projections::Interleaved(linear(name, d_model, all)?),
            ProjectionNames::PyTorch => {
                let mut linear = |name: &str, n_in: usize, n_out: usize| {
                    let weight = p.get_weight(name, &[n_out, n_in], fresh(n_out, n_in))?;
                    Ok(Linear { weight, bias: None, layout: WeightLayout::OutIn })
                };
                let mut projections = if (key_dim, value_dim) == (d_model, d_model) {
                    Projections::Packed(linear("in_proj_weight", d_model, all)?)
                } else {
                    let query = linear("q_proj_weight", d_model, query)?;
                    let key = linear("k_proj_weight", key_dim, kv)?;
                    Projections::Separate(Box::new([query, key, linear("v_proj_weight", value_dim, kv)?]))
                };
                in_proj_bias = bias.then(|| p.get("in_proj_bias", &[all], Init::Zeros)).transpose()?;
                if let Projections::Packed(all) = &mut projections {
                    all.bias = in_proj_bias.take();
                }
                projections
            }
        };
        let uniform = Init::Uniform { bound: 1.0 / (query.max(1) as f32).sqrt() };
        let fresh = config.fresh.map_or(uniform, |[_, out]| out);
        let out_bias = zeros(config.out_bias.unwrap_or(bias));
        Ok(Self {
            projections,
            in_proj_bias,
            out: Linear::init_with(query, d_model, layout, fresh, out_bias, p.at(names.out))?,
            q_norm,
            k_norm,
            sinks: config.sinks.then(|| p.get(names.sinks, &[n_heads], Init::Zeros)).transpose()?,
            dropout: Dropout::new(config.dropout),
            n_heads,
            n_kv_heads,
            head_dim,
            scale: config.scale,
            softcap: config.softcap,
            window: config.window,
            rope: config.rope.clone(),
            names,
        })
    }

    /// Computes self-attention.
    ///
    /// # Shapes
    /// `x: [batch, seq_len, d_model]` → `[batch, seq_len, d_model]`.
    ///
    /// # Errors
    /// [`Error::Shape`] if the shapes of `x` and the mask do not match.
    pub fn forward(&self, x: &Tensor, mask: &AttentionMask) -> Result<Tensor> {
        self.out.forward(&self.attend(x, Context::Whole(mask), self.rotation(x, 0)?.as_ref())?)
    }

    /// Computes attention of `query` over another sequence; rotary positions and the window are not
    /// applied.
    ///
    /// # Shapes
    /// `query: [batch, queries, d_model]`, `key: [batch, keys, key_dim]`,
    /// `value: [batch, keys, value_dim]` → `[batch, queries, d_model]`.
    ///
    /// # Errors
    /// Same as [`MultiHeadAttention::forward`].
    pub fn cross(&self, query: &Tensor, key: &Tensor, value: &Tensor, mask: &AttentionMask) -> Result<Tensor> {
        let [q, k, v] = self.project_each([query, key, value])?;
        self.out.forward(&self.attention().forward(&q, &k, &v, mask)?)
    }

    /// Same as [`MultiHeadAttention::forward`], and also returns the attention probabilities
    /// `[batch, n_heads, seq_len, seq_len]`.
    ///
    /// # Errors
    /// Same as [`MultiHeadAttention::forward`].
    pub fn forward_with_probs(&self, x: &Tensor, mask: &AttentionMask) -> Result<(Tensor, Tensor)> {
        let [q, k, v] = self.project(x, self.rotation(x, 0)?.as_ref())?;
        let (y, probs) = self.attention().with_probs(&q, &k, &v, &self.windowed(mask))?;
        Ok((self.out.forward(&y)?, probs))
    }

    /// Same as [`MultiHeadAttention::cross`], and also returns the attention probabilities
    /// `[batch, n_heads, queries, keys]`.
    ///
    /// # Errors
    /// Same as [`MultiHeadAttention::cross`].
    pub fn cross_with_probs(
        &self,
        query: &Tensor,
        key: &Tensor,
        value: &Tensor,
        mask: &AttentionMask,
    ) -> Result<(Tensor, Tensor)> {
        let [q, k, v] = self.project_each([query, key, value])?;
        let (y, probs) = self.attention().with_probs(&q, &k, &v, mask)?;
        Ok((self.out.forward(&y)?, probs))
    }

    /// Computes self-attention of new positions that follow those in `cache`, and appends them to
    /// it. The caller passes the causal mask; padding masks cover cached and new positions.
    ///
    /// # Shapes
    /// `x: [batch, new_len, d_model]` → `[batch, new_len, d_model]`.
    ///
    /// # Errors
    /// Same as [`MultiHeadAttention::forward`] and [`KvLayer::append`].
    pub fn forward_cached(&self, x: &Tensor, mask: &AttentionMask, cache: &mut KvLayer) -> Result<Tensor> {
        let rotation = self.rotation(x, cache.len())?;
        let context = Context::Cached(KvLayers::Even(cache), mask);
        self.out.forward(&self.attend(x, context, rotation.as_ref())?)
    }

    /// Computes the keys and values of a sequence that stays the same in all steps, for
    /// [`MultiHeadAttention::cross_cached`].
    ///
    /// # Errors
    /// Same as [`MultiHeadAttention::forward`] and [`KvLayer::append`].
    pub fn cache_memory(&self, key: &Tensor, value: &Tensor) -> Result<KvLayer> {
        let mut layer = KvLayer::new();
        layer.append(&normalise(&self.k_norm, self.part(1, key)?)?, &self.part(2, value)?)?;
        Ok(layer)
    }

    /// Same as [`MultiHeadAttention::cross`], over the keys and values of
    /// [`MultiHeadAttention::cache_memory`].
    ///
    /// # Errors
    /// Same as [`MultiHeadAttention::cross`].
    pub fn cross_cached(&self, query: &Tensor, memory: &KvLayer, mask: &AttentionMask) -> Result<Tensor> {
        let q = normalise(&self.q_norm, self.part(0, query)?)?;
        self.out.forward(&memory.attend_cached(&self.attention(), &q, mask)?)
    }

    /// Returns `residual + dropout(attention(x))`.
    pub(crate) fn forward_added(
        &self,
        residual: &Tensor,
        x: &Tensor,
        context: Context<'_>,
        rotation: Option<&Rotation>,
        dropout: &Dropout,
    ) -> Result<Tensor> {
        dropout.added(residual, &self.out, &self.attend(x, context, rotation)?)
    }

    /// Returns the concatenated outputs of the heads, `[…, n_heads · head_dim]`, before the output
    /// projection.
    fn attend(&self, x: &Tensor, context: Context<'_>, rotation: Option<&Rotation>) -> Result<Tensor> {
        let attention = self.attention();
        let plain = rotation.is_none() && self.q_norm.is_none() && self.k_norm.is_none();
        if let (Projections::Packed(all), Context::Whole(mask), true) = (&self.projections, &context, plain) {
            return attention.forward_packed(&all.forward(x)?, &self.windowed(mask));
        }
        let [q, k, v] = self.project(x, rotation)?;
        match context {
            Context::Whole(mask) => attention.forward(&q, &k, &v, &self.windowed(mask)),
            Context::Spans(spans) => attention.forward_spans(&q, &k, &v, spans),
            Context::Cached(cache, mask) => {
                let attention = Attention { dropout: None, ..attention };
                cache.attend(&attention, &q, &k, &v, &self.windowed(mask))
            }
        }
    }

    /// Returns the attention operation, without projections.
    fn attention(&self) -> Attention {
        Attention {
            n_heads: self.n_heads,
            n_kv_heads: self.n_kv_heads,
            scale: self.scale,
            dropout: self.dropout.key().map(|key| (self.dropout.p, key)),
            softcap: self.softcap,
            sinks: self.sinks.as_ref().map(|sinks| sinks.tensor().clone()),
        }
    }

    /// Returns `mask`, limited to the window.
    fn windowed(&self, mask: &AttentionMask) -> AttentionMask {
        self.window.map_or(mask.clone(), |window| mask.and(&AttentionMask::sliding_window(window)))
    }

    /// Computes queries, keys and values of a self-attention, normalised and rotated.
    fn project(&self, x: &Tensor, rotation: Option<&Rotation>) -> Result<[Tensor; 3]> {
        let [q, k, v] = match &self.projections {
            Projections::Separate(layers) if self.in_proj_bias.is_none() => {
                Linear::forward_each(layers.each_ref().map(|layer| (layer, None)), x)?
            }
            Projections::Separate(_) => self.project_raw([x, x, x])?,
            Projections::Packed(all) => {
                let (qkv, [q, k, v]) = (all.forward(x)?, self.ranges());
                let part = |range: &std::ops::Range<usize>| qkv.narrow(-1, range.start, range.len());
                [part(&q)?, part(&k)?, part(&v)?]
            }
            Projections::Interleaved(all) => self.deinterleave(&all.forward(x)?)?,
        };
        let (q, k) = (normalise(&self.q_norm, q)?, normalise(&self.k_norm, k)?);
        let Some(rotation) = rotation else { return Ok([q, k, v]) };
        Ok([rotation.forward(&q, self.n_heads)?, rotation.forward(&k, self.n_kv_heads)?, v])
    }

    /// Computes queries, keys and values of an attention over another sequence, normalised.
    fn project_each(&self, inputs: [&Tensor; 3]) -> Result<[Tensor; 3]> {
        let [q, k, v] = self.project_raw(inputs)?;
        Ok([normalise(&self.q_norm, q)?, normalise(&self.k_norm, k)?, v])
    }

    fn project_raw(&self, [query, key, value]: [&Tensor; 3]) -> Result<[Tensor; 3]> {
        Ok([self.part(0, query)?, self.part(1, key)?, self.part(2, value)?])
    }

    /// Returns the output ranges of a packed projection that are queries, keys and values.
    fn ranges(&self) -> [std::ops::Range<usize>; 3] {
        let (query, kv) = (self.n_heads * self.head_dim, self.n_kv_heads * self.head_dim);
        [0..query, query..query + kv, query + kv..query + 2 * kv]
    }

    /// Computes projection 0 (query), 1 (key) or 2 (value) of `x`.
    fn part(&self, which: usize, x: &Tensor) -> Result<Tensor> {
        let range = self.ranges()[which].clone();
        match &self.projections {
            Projections::Separate(layers) => {
                let y = layers[which].forward(x)?;
                let Some(bias) = &self.in_proj_bias else { return Ok(y) };
                y.add(&bias.tensor().narrow(0, range.start, range.len())?)
            }
            Projections::Packed(all) => all.forward_rows(x, range),
            Projections::Interleaved(all) => {
                let parts: [Tensor; 3] = self.deinterleave(&all.forward(x)?)?;
                Ok(parts[which].clone())
            }
        }
    }

    /// Splits `[…, n_kv_heads · (group + 2) · head_dim]` into queries, keys and values, where
    /// `group` query heads share a key head.
    fn deinterleave(&self, qkv: &Tensor) -> Result<[Tensor; 3]> {
        let (outer, width) = (&qkv.shape()[..qkv.rank() - 1], self.head_dim);
        let group = self.n_heads / self.n_kv_heads;
        let each = qkv.reshape(&[outer, &[self.n_kv_heads, group + 2, width]].concat())?;
        let part = |start: usize, len: usize| {
            each.narrow(-2, start, len)?.reshape(&[outer, &[self.n_kv_heads * len * width]].concat())
        };
        Ok([part(0, group)?, part(group, 1)?, part(group + 1, 1)?])
    }

    /// Returns the rotation of the positions of `x` from position `start` on, if the layer has one.
    fn rotation(&self, x: &Tensor, start: usize) -> Result<Option<Rotation>> {
        let (Some(rope), &[batch, len, _]) = (&self.rope, x.shape()) else { return Ok(None) };
        let positions: Vec<u32> = (0..batch).flat_map(|_| start as u32..(start + len) as u32).collect();
        Ok(Some(Rotation::new(rope.clone(), IdTensor::new(positions, &[batch, len])?)))
    }
}

/// Normalises groups of columns of `x: […, heads · head_dim]` as wide as the norm: each head, or
/// all heads.
fn normalise(norm: &Option<RmsNorm>, x: Tensor) -> Result<Tensor> {
    let Some(norm) = norm else { return Ok(x) };
    let (shape, width) = (x.shape().to_vec(), norm.weight.len());
    if width == 0 {
        return Ok(x);
    }
    norm.forward(&x.reshape(&[x.len() / width, width])?)?.reshape(&shape)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::{Module, train_mode};
    use crate::ops;
    use crate::ops::gradient_check::{check, sample};
    use crate::random::Rng;
    use crate::tensor::{Weight, no_grad};

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

    /// Checks the gradients of the inputs and of every parameter.
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

    const INTERLEAVED: AttentionNames =
        AttentionNames { projections: ProjectionNames::Interleaved("qkv"), out: "out", ..AttentionNames::PYTORCH };
    const SEPARATE: AttentionNames = AttentionNames {
        projections: ProjectionNames::Separate(["q", "k", "v"]),
        out: "out",
        ..AttentionNames::PYTORCH
    };

    /// Every option at once, for each arrangement of the projections.
    fn options(names: &'static AttentionNames) -> MultiHeadAttentionConfig {
        MultiHeadAttentionConfig {
            scale: Some(0.4),
            window: Some(3),
            softcap: Some(2.0),
            sinks: true,
            qk_norm: Some(QkNorm { eps: 1e-5, across_heads: false }),
            names,
            ..MultiHeadAttentionConfig::new(8, 4).kv_heads(2)
        }
    }

    #[test]
    fn every_option_has_gradients_and_the_bits_of_the_whole_over_a_cache() {
        let x = sample(&[1, 9, 8], 1);
        let causal = AttentionMask::causal();
        for names in [&AttentionNames::PYTORCH, &INTERLEAVED, &SEPARATE] {
            for across_heads in [false, true] {
                let qk_norm = Some(QkNorm { eps: 1e-5, across_heads });
                let layer = layer(MultiHeadAttentionConfig { qk_norm, ..options(names) });
                check_layer("options", &layer, &[sample(&[1, 4, 8], 2)], &causal);
                no_grad(|| {
                    let full = layer.forward(&x, &causal).unwrap();
                    let mut cache = KvLayer::new();
                    for (start, len) in [(0, 4), (4, 1), (5, 3), (8, 1)] {
                        let new = x.narrow(1, start, len).unwrap();
                        let y = layer.forward_cached(&new, &causal, &mut cache).unwrap();
                        assert_eq!(y.to_vec(), full.narrow(1, start, len).unwrap().to_vec(), "{names:?}");
                    }
                });
            }
        }
    }

    /// Compares a packed projection, an interleaved one and three separate ones with the same
    /// values, in every format.
    #[test]
    fn arrangements_of_the_projections_agree_to_the_bit_in_every_format() {
        let [mut separate, mut packed, mut interleaved] =
            [&SEPARATE, &AttentionNames::PYTORCH, &INTERLEAVED].map(|names| layer(options(names)));
        let Projections::Separate(layers) = &separate.projections else { panic!("three layers") };
        let [q, k, v] = layers.each_ref().map(|layer| {
            let bias = layer.bias.as_ref().unwrap().tensor();
            [layer.weight.tensor().clone(), bias.reshape(&[bias.len(), 1]).unwrap()]
        });
        for i in [0, 1] {
            let rows = |x: &[Tensor; 2], start: usize, len: usize| x[i].narrow(0, start, len).unwrap().detach();
            let side_by_side = [q[i].clone(), k[i].clone(), v[i].clone()];
            // Two query heads of two columns, a key and a value for each of two key heads.
            let by_head = [0, 1].map(|g| [rows(&q, g * 4, 4), rows(&k, g * 2, 2), rows(&v, g * 2, 2)]).concat();
            for (layer, parts) in [(&mut packed, &side_by_side[..]), (&mut interleaved, &by_head)] {
                let all = ops::concat(&parts.iter().collect::<Vec<_>>(), 0).unwrap();
                let (Projections::Packed(one) | Projections::Interleaved(one)) = &mut layer.projections else {
                    panic!("one layer")
                };
                match i {
                    0 => one.weight.set(&all).unwrap(),
                    _ => one.bias.as_mut().unwrap().set(&all.reshape(&[all.len()]).unwrap()).unwrap(),
                }
            }
        }
        let (out, x, memory) = (separate.out.clone(), sample(&[2, 5, 8], 7), sample(&[2, 3, 8], 8));
        let formats: [fn(&Weight) -> Weight; 3] = [Clone::clone, Weight::to_f16, Weight::to_bf16];
        for format in formats {
            let outputs = [&mut separate, &mut packed, &mut interleaved].map(|layer| {
                layer.out = out.clone();
                layer.visit_mut("", &mut |path, parameter| {
                    if parameter.shape().len() == 2 && !path.starts_with("out") {
                        let weight = format(parameter.weight());
                        parameter.set_weight(&weight).unwrap();
                    }
                });
                let none = AttentionMask::none();
                no_grad(|| {
                    let own = layer.forward(&x, &AttentionMask::causal()).unwrap();
                    let cross = layer.cross(&x, &memory, &memory, &none).unwrap();
                    let cached = layer.cross_cached(&x, &layer.cache_memory(&memory, &memory).unwrap(), &none).unwrap();
                    assert_eq!(cached.to_vec(), cross.to_vec());
                    [own.to_vec(), cross.to_vec()]
                })
            });
            assert!(outputs[0] == outputs[1] && outputs[0] == outputs[2]);
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
