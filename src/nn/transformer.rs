//! Transformer layers (Vaswani et al. 2017): encoder and decoder layers, and stacks of them.
//!
//! Each sublayer has a residual connection. With `norm_first` its input is normalised (Xiong et al.
//! 2020), otherwise the sum is normalised, as in the paper:
//!
//! ```text
//! x ← norm(x + part(x))        x ← x + part(norm(x))
//! ```

use crate::error::{Error, Result};
use crate::nn::attention::{MultiHeadAttention, MultiHeadAttentionConfig};
use crate::nn::dropout::Dropout;
use crate::nn::feed_forward::{FeedForward, FeedForwardConfig};
use crate::nn::kv_cache::KvLayer;
use crate::nn::module::Module;
use crate::nn::norm::{Norm, NormType};
use crate::nn::parameter::Parameters;
use crate::ops::{Activation, AttentionMask, Rope, inspect};
use crate::tensor::Tensor;

/// The settings of an [`EncoderLayer`] or a [`DecoderLayer`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct EncoderLayerConfig {
    /// Width of the activations.
    pub d_model: usize,
    /// The number of attention heads.
    pub n_heads: usize,
    /// The number of key and value heads of self-attention. Default: `n_heads`.
    pub n_kv_heads: Option<usize>,
    /// Inner width of the feed-forward layer.
    pub d_ff: usize,
    /// The activation of the feed-forward layer. Default: ReLU.
    pub activation: Activation,
    /// Whether the feed-forward layer has a gate. Default: false.
    pub gated: bool,
    /// Dropout probability of the output of each sublayer, of the attention probabilities and
    /// inside the feed-forward layer, in `[0, 1)`. Default: 0.1.
    pub dropout: f32,
    /// Whether the input of a sublayer is normalised instead of the sum. Default: false.
    pub norm_first: bool,
    /// The kind of the norms. Default: layer normalisation.
    pub norm: NormType,
    /// Added to the variance or the mean square by the norms. Default: 1e-5.
    pub eps: f32,
    /// Whether the linear layers have biases. Default: true.
    pub bias: bool,
    /// Rotary position embedding in self-attention. Default: none.
    pub rope: Option<Rope>,
}

/// The settings of a [`DecoderLayer`].
pub type DecoderLayerConfig = EncoderLayerConfig;

impl EncoderLayerConfig {
    /// Returns settings with PyTorch's defaults: normalised sums, ReLU, dropout of 0.1.
    pub fn new(d_model: usize, n_heads: usize, d_ff: usize) -> Self {
        Self {
            d_model,
            n_heads,
            n_kv_heads: None,
            d_ff,
            activation: Activation::Relu,
            gated: false,
            dropout: 0.1,
            norm_first: false,
            norm: NormType::Layer,
            eps: 1e-5,
            bias: true,
            rope: None,
        }
    }

    /// Sets the number of key and value heads of self-attention (default: `n_heads`).
    pub fn kv_heads(self, n_kv_heads: usize) -> Self {
        Self { n_kv_heads: Some(n_kv_heads), ..self }
    }

    /// Sets the activation (default: ReLU).
    pub fn activation(self, activation: Activation) -> Self {
        Self { activation, ..self }
    }

    /// Sets the activation of the feed-forward layer to SiLU with a gate (SwiGLU).
    pub fn swiglu(self) -> Self {
        Self { activation: Activation::Silu, gated: true, ..self }
    }

    /// Sets the dropout probability, in `[0, 1)` (default: 0.1).
    pub fn dropout(self, dropout: f32) -> Self {
        Self { dropout, ..self }
    }

    /// Sets whether the norms come before the sublayers instead of after them (default: false).
    pub fn norm_first(self, norm_first: bool) -> Self {
        Self { norm_first, ..self }
    }

    /// Sets the kind of the norms (default: layer normalisation).
    pub fn norm(self, norm: NormType) -> Self {
        Self { norm, ..self }
    }

    /// Sets the normalisation epsilon (default: 1e-5).
    pub fn eps(self, eps: f32) -> Self {
        Self { eps, ..self }
    }

    /// Sets whether the linear layers have biases (default: true).
    pub fn bias(self, bias: bool) -> Self {
        Self { bias, ..self }
    }

    /// Sets the rotary position embedding of self-attention (default: none).
    pub fn rope(self, rope: Rope) -> Self {
        Self { rope: Some(rope), ..self }
    }

    fn self_attention(&self) -> MultiHeadAttentionConfig {
        MultiHeadAttentionConfig { n_kv_heads: self.n_kv_heads, rope: self.rope.clone(), ..self.cross_attention() }
    }

    fn cross_attention(&self) -> MultiHeadAttentionConfig {
        MultiHeadAttentionConfig::new(self.d_model, self.n_heads).bias(self.bias).dropout(self.dropout)
    }

    fn feed_forward(&self) -> FeedForwardConfig {
        FeedForwardConfig::new(self.d_model, self.d_ff)
            .activation(self.activation)
            .gated(self.gated)
            .bias(self.bias)
            .dropout(self.dropout)
    }
}

/// Returns `x + sublayer(norm(x))` or `norm(x + sublayer(x))`.
fn residual(
    x: &Tensor,
    norm: &Norm,
    norm_first: bool,
    dropout: &Dropout,
    part: impl FnOnce(&Tensor) -> Result<Tensor>,
) -> Result<Tensor> {
    if norm_first {
        x.add(&dropout.forward(&part(&norm.forward(x)?)?)?)
    } else {
        norm.forward(&x.add(&dropout.forward(&part(x)?)?)?)
    }
}

/// Self-attention and a feed-forward layer, like
/// `torch.nn.TransformerEncoderLayer(batch_first=True)`. With a causal mask it is the layer of a
/// GPT.
///
/// ```
/// use loquat::nn::{EncoderLayer, EncoderLayerConfig};
/// use loquat::{IdTensor, Rng, Tensor, ops::AttentionMask};
///
/// let mut rng = Rng::seed(1);
/// let block = EncoderLayer::init(&EncoderLayerConfig::new(8, 2, 32), &mut rng)?;
/// let x = Tensor::normal(&[2, 3, 8], 1.0, &mut rng);
/// let attention_mask = IdTensor::batch(&[[1, 1, 1], [1, 1, 0]])?;
/// let y = block.forward(&x, &AttentionMask::padding(&attention_mask))?;
/// assert_eq!(y.shape(), [2, 3, 8]);
/// # Ok::<(), loquat::Error>(())
/// ```
#[derive(Clone)]
pub struct EncoderLayer {
    /// Self-attention.
    pub self_attn: MultiHeadAttention,
    /// `linear1` and `linear2`.
    pub feed_forward: FeedForward,
    /// The norm of the attention sublayer.
    pub norm1: Norm,
    /// The norm of the feed-forward sublayer.
    pub norm2: Norm,
    dropout: Dropout,
    norm_first: bool,
}

crate::module!(EncoderLayer { self_attn, feed_forward = "", norm1, norm2, dropout; skip norm_first });

impl std::fmt::Debug for EncoderLayer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        describe("EncoderLayer", &self.self_attn, &self.feed_forward, f)
    }
}

impl EncoderLayer {
    /// Creates a layer with PyTorch's initial values.
    ///
    /// # Errors
    /// Same as [`MultiHeadAttention::init`].
    pub fn init<'a>(config: &EncoderLayerConfig, p: impl Into<Parameters<'a>>) -> Result<Self> {
        let mut p = p.into();
        Ok(Self {
            self_attn: MultiHeadAttention::init(&config.self_attention(), p.at("self_attn"))?,
            feed_forward: FeedForward::init(&config.feed_forward(), p.at(""))?,
            norm1: Norm::init(config.norm, config.d_model, config.eps, p.at("norm1"))?,
            norm2: Norm::init(config.norm, config.d_model, config.eps, p.at("norm2"))?,
            dropout: Dropout::new(config.dropout),
            norm_first: config.norm_first,
        })
    }

    /// Applies the layer to `x`.
    ///
    /// # Shapes
    /// `x: [batch, seq_len, d_model]` → `[batch, seq_len, d_model]`.
    ///
    /// # Errors
    /// [`Error::Shape`] if the shapes of `x` and the mask do not match.
    pub fn forward(&self, x: &Tensor, mask: &AttentionMask) -> Result<Tensor> {
        self.with_attention(x, |x| self.self_attn.forward(x, mask))
    }

    /// Same as [`EncoderLayer::forward`], and also returns the attention probabilities
    /// `[batch, n_heads, seq_len, seq_len]`.
    ///
    /// # Errors
    /// Same as [`EncoderLayer::forward`].
    pub fn forward_with_probs(&self, x: &Tensor, mask: &AttentionMask) -> Result<(Tensor, Tensor)> {
        let mut probs = None;
        let y = self.with_attention(x, |x| {
            let (y, p) = self.self_attn.forward_with_probs(x, mask)?;
            probs = Some(p);
            Ok(y)
        })?;
        Ok((y, probs.expect("the attention was called")))
    }

    /// Processes new positions that follow those in `cache`; see
    /// [`MultiHeadAttention::forward_cached`].
    ///
    /// # Errors
    /// Same as [`MultiHeadAttention::forward_cached`].
    pub fn forward_cached(&self, x: &Tensor, mask: &AttentionMask, cache: &mut KvLayer) -> Result<Tensor> {
        self.with_attention(x, |x| self.self_attn.forward_cached(x, mask, cache))
    }

    fn with_attention(&self, x: &Tensor, attention: impl FnOnce(&Tensor) -> Result<Tensor>) -> Result<Tensor> {
        let x = residual(x, &self.norm1, self.norm_first, &self.dropout, attention)?;
        residual(&x, &self.norm2, self.norm_first, &self.dropout, |x| self.feed_forward.forward(x))
    }
}

/// Prints the line for `Debug` of a layer.
fn describe(
    name: &str,
    attention: &MultiHeadAttention,
    feed_forward: &FeedForward,
    f: &mut std::fmt::Formatter<'_>,
) -> std::fmt::Result {
    let (d_model, d_ff) = (feed_forward.linear1.in_features(), feed_forward.linear1.out_features());
    let format = feed_forward.linear1.weight.weight().format_name();
    write!(f, "{name}(d_model={d_model}, n_heads={}, d_ff={d_ff}, {format})", attention.n_heads())
}

/// A stack of [`EncoderLayer`]s, like `torch.nn.TransformerEncoder`.
///
/// ```
/// use loquat::nn::{Encoder, EncoderLayerConfig};
/// use loquat::{AttentionMask, Rng, Tensor};
///
/// let mut rng = Rng::seed(1);
/// let config = EncoderLayerConfig::new(8, 2, 32).norm_first(true);
/// let encoder = Encoder::init(&config, 3, true, &mut rng)?;
/// let x = Tensor::normal(&[2, 5, 8], 1.0, &mut rng);
/// let (y, probs) = encoder.forward_with_probs(&x, &AttentionMask::none())?;
/// assert_eq!(y.shape(), [2, 5, 8]);
/// assert_eq!((probs.len(), probs[0].shape()), (3, &[2, 2, 5, 5][..]));
/// # Ok::<(), loquat::Error>(())
/// ```
#[derive(Clone)]
pub struct Encoder {
    /// The layers, from the input to the output.
    pub layers: Vec<EncoderLayer>,
    /// The norm of the output, if any; with `norm_first` there should be one.
    pub norm: Option<Norm>,
}

crate::module!(Encoder { layers, norm });

impl std::fmt::Debug for Encoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Encoder({})", self.summary().of_layers(self.layers.len()))
    }
}

impl Encoder {
    /// Creates `n_layers` layers, followed by a norm if `final_norm`.
    ///
    /// # Errors
    /// Same as [`EncoderLayer::init`].
    pub fn init<'a>(
        config: &EncoderLayerConfig,
        n_layers: usize,
        final_norm: bool,
        p: impl Into<Parameters<'a>>,
    ) -> Result<Self> {
        let mut p = p.into();
        let layers = (0..n_layers).map(|i| EncoderLayer::init(config, p.at("layers").at(i))).collect::<Result<_>>()?;
        let norm = final_norm.then(|| Norm::init(config.norm, config.d_model, config.eps, p.at("norm"))).transpose()?;
        Ok(Self { layers, norm })
    }

    /// Applies the layers to `x`, one after another.
    ///
    /// # Shapes
    /// `x: [batch, seq_len, d_model]` → `[batch, seq_len, d_model]`.
    ///
    /// # Errors
    /// [`Error::Shape`] if the shapes of `x` and the mask do not match.
    pub fn forward(&self, x: &Tensor, mask: &AttentionMask) -> Result<Tensor> {
        let mut y = x.clone();
        for (i, layer) in self.layers.iter().enumerate() {
            y = inspect::layer("layers", i, || layer.forward(&y, mask))?;
        }
        finish(&self.norm, y)
    }

    /// Same as [`Encoder::forward`], and also returns the attention probabilities of each layer.
    ///
    /// # Errors
    /// Same as [`Encoder::forward`].
    pub fn forward_with_probs(&self, x: &Tensor, mask: &AttentionMask) -> Result<(Tensor, Vec<Tensor>)> {
        let (mut x, mut all) = (x.clone(), Vec::new());
        for layer in &self.layers {
            let (y, probs) = layer.forward_with_probs(&x, mask)?;
            x = y;
            all.push(probs);
        }
        Ok((finish(&self.norm, x)?, all))
    }
}

fn finish(norm: &Option<Norm>, x: Tensor) -> Result<Tensor> {
    norm.as_ref().map_or(Ok(x.clone()), |norm| norm.forward(&x))
}

/// Self-attention, cross-attention over a memory, and a feed-forward layer, like
/// `torch.nn.TransformerDecoderLayer(batch_first=True)`.
///
/// ```
/// use loquat::nn::{DecoderLayer, DecoderLayerConfig};
/// use loquat::{Rng, Tensor, ops::AttentionMask};
///
/// let mut rng = Rng::seed(1);
/// let block = DecoderLayer::init(&DecoderLayerConfig::new(8, 2, 32), &mut rng)?;
/// let [x, memory] = [3, 5].map(|len| Tensor::normal(&[2, len, 8], 1.0, &mut rng));
/// let y = block.forward(&x, &memory, &AttentionMask::causal(), &AttentionMask::none())?;
/// assert_eq!(y.shape(), [2, 3, 8]);
/// # Ok::<(), loquat::Error>(())
/// ```
#[derive(Clone)]
pub struct DecoderLayer {
    /// Self-attention.
    pub self_attn: MultiHeadAttention,
    /// Attention over the memory.
    pub multihead_attn: MultiHeadAttention,
    /// `linear1` and `linear2`.
    pub feed_forward: FeedForward,
    /// The norm of the self-attention sublayer.
    pub norm1: Norm,
    /// The norm of the cross-attention sublayer.
    pub norm2: Norm,
    /// The norm of the feed-forward sublayer.
    pub norm3: Norm,
    dropout: Dropout,
    norm_first: bool,
}

crate::module!(DecoderLayer {
    self_attn,
    multihead_attn,
    feed_forward = "",
    norm1,
    norm2,
    norm3,
    dropout;
    skip norm_first
});

impl std::fmt::Debug for DecoderLayer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        describe("DecoderLayer", &self.self_attn, &self.feed_forward, f)
    }
}

/// The cache of a [`DecoderLayer`] between steps: keys and values of the positions so far and of
/// the memory.
#[derive(Clone)]
pub struct DecoderLayerCache {
    /// Keys and values of the positions so far.
    pub positions: KvLayer,
    /// Keys and values of the memory.
    pub memory: KvLayer,
}

impl std::fmt::Debug for DecoderLayerCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "DecoderLayerCache({:?} over {:?})", self.positions, self.memory)
    }
}

impl DecoderLayer {
    /// Creates a layer with PyTorch's initial values.
    ///
    /// # Errors
    /// Same as [`MultiHeadAttention::init`].
    pub fn init<'a>(config: &DecoderLayerConfig, p: impl Into<Parameters<'a>>) -> Result<Self> {
        let mut p = p.into();
        Ok(Self {
            self_attn: MultiHeadAttention::init(&config.self_attention(), p.at("self_attn"))?,
            multihead_attn: MultiHeadAttention::init(&config.cross_attention(), p.at("multihead_attn"))?,
            feed_forward: FeedForward::init(&config.feed_forward(), p.at(""))?,
            norm1: Norm::init(config.norm, config.d_model, config.eps, p.at("norm1"))?,
            norm2: Norm::init(config.norm, config.d_model, config.eps, p.at("norm2"))?,
            norm3: Norm::init(config.norm, config.d_model, config.eps, p.at("norm3"))?,
            dropout: Dropout::new(config.dropout),
            norm_first: config.norm_first,
        })
    }

    /// Applies the layer to `x`, with cross-attention over `memory`.
    ///
    /// # Shapes
    /// `x: [batch, seq_len, d_model]`, `memory: [batch, memory_len, d_model]` →
    /// `[batch, seq_len, d_model]`.
    ///
    /// # Errors
    /// [`Error::Shape`] if the shapes of `x`, `memory` and the masks do not match.
    pub fn forward(
        &self,
        x: &Tensor,
        memory: &Tensor,
        mask: &AttentionMask,
        memory_mask: &AttentionMask,
    ) -> Result<Tensor> {
        let over_memory = |x: &Tensor| self.multihead_attn.cross(x, memory, memory, memory_mask);
        self.with_attentions(x, |x| self.self_attn.forward(x, mask), over_memory)
    }

    /// Creates a cache without positions for `memory`.
    ///
    /// # Errors
    /// [`Error::Shape`] if the shape of `memory` does not match.
    pub fn start(&self, memory: &Tensor) -> Result<DecoderLayerCache> {
        let memory = self.multihead_attn.cache_memory(memory, memory)?;
        Ok(DecoderLayerCache { positions: KvLayer::new(), memory })
    }

    /// Processes new positions that follow those in `cache`; see
    /// [`MultiHeadAttention::forward_cached`].
    ///
    /// # Errors
    /// Same as [`MultiHeadAttention::forward_cached`].
    pub fn forward_cached(
        &self,
        x: &Tensor,
        mask: &AttentionMask,
        memory_mask: &AttentionMask,
        cache: &mut DecoderLayerCache,
    ) -> Result<Tensor> {
        let DecoderLayerCache { positions, memory } = cache;
        let over_memory = |x: &Tensor| self.multihead_attn.cross_cached(x, memory, memory_mask);
        self.with_attentions(x, |x| self.self_attn.forward_cached(x, mask, positions), over_memory)
    }

    fn with_attentions(
        &self,
        x: &Tensor,
        over_itself: impl FnOnce(&Tensor) -> Result<Tensor>,
        over_memory: impl FnOnce(&Tensor) -> Result<Tensor>,
    ) -> Result<Tensor> {
        let over_itself = |x: &Tensor| inspect::at("self_attn", || over_itself(x));
        let over_memory = |x: &Tensor| inspect::at("multihead_attn", || over_memory(x));
        let x = residual(x, &self.norm1, self.norm_first, &self.dropout, over_itself)?;
        let x = residual(&x, &self.norm2, self.norm_first, &self.dropout, over_memory)?;
        residual(&x, &self.norm3, self.norm_first, &self.dropout, |x| self.feed_forward.forward(x))
    }
}

/// A stack of [`DecoderLayer`]s, like `torch.nn.TransformerDecoder`.
///
/// ```
/// use loquat::nn::{Decoder, DecoderLayerConfig};
/// use loquat::{AttentionMask, Rng, Tensor, no_grad};
///
/// let mut rng = Rng::seed(1);
/// let decoder = Decoder::init(&DecoderLayerConfig::new(8, 2, 32), 2, false, &mut rng)?;
/// let [x, memory] = [3, 5].map(|len| Tensor::normal(&[1, len, 8], 1.0, &mut rng));
/// let (causal, none) = (AttentionMask::causal(), AttentionMask::none());
/// let whole = decoder.forward(&x, &memory, &causal, &none)?;
///
/// // The same bits, one position at a time.
/// no_grad(|| {
///     let mut cache = decoder.start(&memory)?;
///     for t in 0..3 {
///         let y = decoder.forward_cached(&x.narrow(1, t, 1)?, &causal, &none, &mut cache)?;
///         assert_eq!(y.to_vec(), whole.narrow(1, t, 1)?.to_vec());
///     }
///     Ok::<(), loquat::Error>(())
/// })?;
/// # Ok::<(), loquat::Error>(())
/// ```
#[derive(Clone)]
pub struct Decoder {
    /// The layers, from the input to the output.
    pub layers: Vec<DecoderLayer>,
    /// The norm of the output, if any; with `norm_first` there should be one.
    pub norm: Option<Norm>,
}

crate::module!(Decoder { layers, norm });

impl std::fmt::Debug for Decoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Decoder({})", self.summary().of_layers(self.layers.len()))
    }
}

/// The cache of a [`Decoder`] between steps.
#[derive(Clone)]
pub struct DecoderCache {
    layers: Vec<DecoderLayerCache>,
}

impl std::fmt::Debug for DecoderCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "DecoderCache(n_layers={}, len={})", self.layers.len(), self.len())
    }
}

impl DecoderCache {
    /// Returns the number of positions so far.
    pub fn len(&self) -> usize {
        self.layers.first().map_or(0, |layer| layer.positions.len())
    }

    /// Returns whether there are no positions yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Removes the positions from `len` on.
    pub fn truncate(&mut self, len: usize) {
        self.layers.iter_mut().for_each(|layer| layer.positions.truncate(len));
    }

    /// Replaces sequence `i`, with its memory, by sequence `rows[i]`.
    ///
    /// # Errors
    /// [`Error::Id`] if a sequence does not exist.
    pub fn reorder(&mut self, rows: &[usize]) -> Result<()> {
        self.layers.iter_mut().try_for_each(|layer| {
            layer.positions.reorder(rows)?;
            layer.memory.reorder(rows)
        })
    }
}

impl Decoder {
    /// Creates `n_layers` layers, followed by a norm if `final_norm`.
    ///
    /// # Errors
    /// Same as [`DecoderLayer::init`].
    pub fn init<'a>(
        config: &DecoderLayerConfig,
        n_layers: usize,
        final_norm: bool,
        p: impl Into<Parameters<'a>>,
    ) -> Result<Self> {
        let mut p = p.into();
        let layers = (0..n_layers).map(|i| DecoderLayer::init(config, p.at("layers").at(i))).collect::<Result<_>>()?;
        let norm = final_norm.then(|| Norm::init(config.norm, config.d_model, config.eps, p.at("norm"))).transpose()?;
        Ok(Self { layers, norm })
    }

    /// Applies the layers to `x`, one after another, with cross-attention over `memory`.
    ///
    /// # Shapes
    /// `x: [batch, seq_len, d_model]`, `memory: [batch, memory_len, d_model]` →
    /// `[batch, seq_len, d_model]`.
    ///
    /// # Errors
    /// [`Error::Shape`] if the shapes of `x`, `memory` and the masks do not match.
    pub fn forward(
        &self,
        x: &Tensor,
        memory: &Tensor,
        mask: &AttentionMask,
        memory_mask: &AttentionMask,
    ) -> Result<Tensor> {
        let mut y = x.clone();
        for (i, layer) in self.layers.iter().enumerate() {
            y = inspect::layer("layers", i, || layer.forward(&y, memory, mask, memory_mask))?;
        }
        finish(&self.norm, y)
    }

    /// Creates a cache without positions for `memory`, whose keys and values are computed here,
    /// once.
    ///
    /// # Errors
    /// [`Error::Shape`] if the shape of `memory` does not match.
    pub fn start(&self, memory: &Tensor) -> Result<DecoderCache> {
        Ok(DecoderCache { layers: self.layers.iter().map(|layer| layer.start(memory)).collect::<Result<_>>()? })
    }

    /// Processes new positions that follow those in `cache`; see
    /// [`MultiHeadAttention::forward_cached`].
    ///
    /// # Errors
    /// Same as [`Decoder::forward`]; [`Error::Argument`] if the cache belongs to a decoder with
    /// another number of layers.
    pub fn forward_cached(
        &self,
        x: &Tensor,
        mask: &AttentionMask,
        memory_mask: &AttentionMask,
        cache: &mut DecoderCache,
    ) -> Result<Tensor> {
        if cache.layers.len() != self.layers.len() {
            let expected = format!("a cache of {} layers", self.layers.len());
            return Err(Error::argument("decoder cache", expected, cache.layers.len()));
        }
        let mut y = x.clone();
        for (i, (layer, cache)) in self.layers.iter().zip(&mut cache.layers).enumerate() {
            y = inspect::layer("layers", i, || layer.forward_cached(&y, mask, memory_mask, cache))?;
        }
        finish(&self.norm, y)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::{Module, Parameter, train_mode};
    use crate::ops::gradient_check::{check, sample};
    use crate::random::Rng;
    use crate::tensor::{IdTensor, no_grad};

    /// Checks the gradients of the inputs and of every parameter.
    fn check_layer<M: Module + Clone>(
        name: &str,
        layer: &M,
        inputs: &[Tensor],
        f: impl Fn(&M, &[Tensor]) -> Result<Tensor>,
    ) {
        let mut all = inputs.to_vec();
        all.extend(layer.parameters().iter().map(|(_, p)| p.tensor().detach()));
        check(name, &all, |x| {
            let mut layer = layer.clone();
            let mut values = x[inputs.len()..].iter();
            layer.visit_mut("", &mut |_, p| *p = Parameter::from_tensor(values.next().unwrap().clone()));
            f(&layer, x)
        });
    }

    fn configs() -> [EncoderLayerConfig; 3] {
        // Not ReLU: difference quotients are wrong at its corner.
        let config = || EncoderLayerConfig::new(6, 2, 5).activation(Activation::Gelu);
        [config(), config().norm_first(true).bias(false), config().swiglu().kv_heads(1).norm_first(true)]
    }

    #[test]
    fn gradients_match_central_differences() {
        let (x, memory) = (sample(&[1, 3, 6], 1), sample(&[1, 2, 6], 2));
        for (i, config) in configs().iter().enumerate() {
            let encoder = Encoder::init(config, 1, i == 1, &mut Rng::seed(5)).unwrap();
            let (causal, none) = (AttentionMask::causal(), AttentionMask::none());
            check_layer("encoder", &encoder, std::slice::from_ref(&x), |layer, x| layer.forward(&x[0], &causal));
            let decoder = Decoder::init(config, 1, i == 1, &mut Rng::seed(5)).unwrap();
            let inputs = [x.clone(), memory.clone()];
            check_layer("decoder", &decoder, &inputs, |layer, x| layer.forward(&x[0], &x[1], &causal, &none));
        }
    }

    #[test]
    fn names_are_those_of_pytorch() {
        let config = EncoderLayerConfig::new(4, 2, 8);
        let encoder = Encoder::init(&config, 2, true, &mut Rng::seed(1)).unwrap();
        let names: Vec<String> = encoder.parameters().into_iter().map(|(name, _)| name).collect();
        let first = ["in_proj_weight", "in_proj_bias", "out_proj.weight", "out_proj.bias"];
        assert_eq!(names[..4], first.map(|name| format!("layers.0.self_attn.{name}")));
        assert_eq!(names[4..6], ["layers.0.linear1.weight", "layers.0.linear1.bias"]);
        assert_eq!(names[12 + 11], "layers.1.norm2.bias");
        assert_eq!(names[24..], ["norm.weight", "norm.bias"]);
        let decoder = DecoderLayer::init(&config, &mut Rng::seed(1)).unwrap();
        let names: Vec<String> = decoder.parameters().into_iter().map(|(name, _)| name).collect();
        assert_eq!((names.len(), names[4].as_str()), (18, "multihead_attn.in_proj_weight"));
    }

    #[test]
    fn cached_decode_matches_full_forward_to_the_bit() {
        let (x, memory) = (sample(&[2, 7, 6], 1), sample(&[2, 3, 6], 2));
        let padding = AttentionMask::padding(&IdTensor::batch(&[[1, 1, 1], [0, 1, 1]]).unwrap());
        let causal = AttentionMask::causal();
        for config in configs().into_iter().chain([configs()[0].clone().rope(Rope::new(2, 9, 100.0).unwrap())]) {
            let decoder = Decoder::init(&config, 2, true, &mut Rng::seed(5)).unwrap();
            no_grad(|| {
                let full = decoder.forward(&x, &memory, &causal, &padding).unwrap();
                let mut cache = decoder.start(&memory).unwrap();
                for (start, len) in [(0, 3), (3, 1), (4, 3)] {
                    let new = x.narrow(1, start, len).unwrap();
                    let y = decoder.forward_cached(&new, &causal, &padding, &mut cache).unwrap();
                    assert_eq!(y.to_vec(), full.narrow(1, start, len).unwrap().to_vec());
                }
                // Swap the sequences, and go back a step.
                cache.reorder(&[1, 0]).unwrap();
                cache.truncate(6);
                let last = x.narrow(1, 6, 1).unwrap();
                let swapped = Tensor::from_vec([&last.data()[6..], &last.data()[..6]].concat(), &[2, 1, 6]).unwrap();
                let padding = AttentionMask::padding(&IdTensor::batch(&[[0, 1, 1], [1, 1, 1]]).unwrap());
                let y = decoder.forward_cached(&swapped, &causal, &padding, &mut cache).unwrap();
                let full = full.narrow(1, 6, 1).unwrap();
                assert_eq!(y.to_vec(), [&full.data()[6..], &full.data()[..6]].concat());
            });
        }
    }

    #[test]
    fn later_positions_and_other_sequences_change_nothing() {
        let x = sample(&[3, 6, 6], 1);
        let mask = IdTensor::batch(&[[1; 6], [1, 1, 1, 1, 0, 0], [0, 1, 1, 1, 1, 1]]).unwrap();
        let mask = AttentionMask::causal().and(&AttentionMask::padding(&mask));
        for config in configs() {
            let encoder = Encoder::init(&config, 2, true, &mut Rng::seed(5)).unwrap();
            let y = encoder.forward(&x, &mask).unwrap();
            for (b, start, len) in [(0, 0, 6), (1, 0, 4), (2, 1, 5), (0, 0, 3)] {
                let part = |x: &Tensor| x.narrow(0, b, 1).unwrap().narrow(1, start, len).unwrap();
                let alone = encoder.forward(&part(&x), &AttentionMask::causal()).unwrap();
                assert_eq!(alone.to_vec(), part(&y).to_vec(), "sequence {b}, {len} positions");
            }
        }
    }

    #[test]
    fn probabilities_of_every_layer_come_with_the_output() {
        let encoder = Encoder::init(&configs()[0], 2, false, &mut Rng::seed(5)).unwrap();
        let x = sample(&[2, 3, 6], 1);
        let (y, probs) = encoder.forward_with_probs(&x, &AttentionMask::none()).unwrap();
        assert_eq!((probs.len(), probs[1].shape()), (2, &[2, 2, 3, 3][..]));
        let plain = encoder.forward(&x, &AttentionMask::none()).unwrap();
        assert!(y.data().iter().zip(plain.data()).all(|(a, b)| (a - b).abs() < 1e-5));
    }

    #[test]
    fn dropout_acts_in_training_only() {
        let layer = EncoderLayer::init(&configs()[0], &mut Rng::seed(5)).unwrap();
        let x = sample(&[2, 3, 6], 1);
        let run = || layer.forward(&x, &AttentionMask::none()).unwrap().to_vec();
        assert_eq!(run(), run());
        assert_ne!(train_mode(&mut Rng::seed(1), run), run());
    }
}
