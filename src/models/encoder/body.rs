//! The body of an encoder: token ids to hidden states.

use super::architecture::{Architecture, LayerNames, Names};
use super::config::EncoderConfig;
use crate::checkpoint::Pretrained;
use crate::error::{Error, Result};
use crate::kernels::parallel;
use crate::nn::attention::Context;
use crate::nn::positions::relative_bucket;
use crate::nn::{
    Dropout, Embedding, FeedForward, FeedForwardConfig, Init, LayerNorm, Linear, Module, MultiHeadAttention,
    MultiHeadAttentionConfig, Parameters,
};
use crate::ops::attention::Span;
use crate::ops::linear::WeightLayout;
use crate::ops::{AttentionMask, inspect};
use crate::tensor::{IdTensor, Tensor};

/// A batch of tokenised texts, the input of an encoder; all tensors are `[batch, seq_len]`.
#[derive(Clone, Debug)]
pub struct TextBatch {
    /// The token ids.
    pub input_ids: IdTensor,
    /// 0 for padding, 1 elsewhere. Default: no padding.
    pub attention_mask: Option<IdTensor>,
    /// The index of the text of a pair that a token belongs to. Default: 0.
    pub token_type_ids: Option<IdTensor>,
}

impl TextBatch {
    /// Creates a batch without padding, with token types 0.
    pub fn new(input_ids: &IdTensor) -> Self {
        Self { input_ids: input_ids.clone(), attention_mask: None, token_type_ids: None }
    }

    /// Sets the attention mask, 0 for padding and 1 elsewhere.
    #[must_use]
    pub fn attention_mask(self, attention_mask: &IdTensor) -> Self {
        Self { attention_mask: Some(attention_mask.clone()), ..self }
    }

    /// Sets the token types: the index of the text of a pair that each token belongs to.
    #[must_use]
    pub fn token_type_ids(self, token_type_ids: &IdTensor) -> Self {
        Self { token_type_ids: Some(token_type_ids.clone()), ..self }
    }
}

/// The embeddings of an encoder: the normalised sum of token, position and token type embeddings.
#[derive(Clone)]
pub struct EncoderEmbeddings {
    /// The token embeddings.
    pub word_embeddings: Embedding,
    /// The position embeddings.
    pub position_embeddings: Embedding,
    /// The token type embeddings, if the architecture has types.
    pub token_type_embeddings: Option<Embedding>,
    /// The norm of the sum.
    pub layer_norm: LayerNorm,
    dropout: Dropout,
    pad_position: Option<u32>,
}

crate::module!(EncoderEmbeddings {
    word_embeddings,
    position_embeddings,
    token_type_embeddings,
    layer_norm = "LayerNorm",
    dropout;
    skip pad_position
});

impl std::fmt::Debug for EncoderEmbeddings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "EncoderEmbeddings({})", self.summary().in_short())
    }
}

impl EncoderEmbeddings {
    fn init(a: &Architecture, mut p: Parameters<'_>) -> Result<Self> {
        let std = a.initializer_range;
        let mut table = |name: &str, rows| Embedding::init(rows, a.d_model, std, p.at(name));
        Ok(Self {
            word_embeddings: table("word_embeddings", a.vocab_size)?,
            position_embeddings: table("position_embeddings", a.max_positions)?,
            token_type_embeddings: (a.token_types > 0)
                .then(|| table("token_type_embeddings", a.token_types))
                .transpose()?,
            layer_norm: LayerNorm::init(a.d_model, a.eps, p.at("LayerNorm"))?,
            dropout: Dropout::new(a.dropout),
            pad_position: a.pad_position,
        })
    }

    /// Returns the position of each token; `sequences` are the lengths of the sequences in `ids`.
    fn positions(&self, ids: &IdTensor, sequences: impl Iterator<Item = usize>) -> Result<IdTensor> {
        let mut positions = Vec::with_capacity(ids.len());
        let mut rest = ids.data();
        for len in sequences {
            let (sequence, behind) = rest.split_at(len);
            rest = behind;
            match self.pad_position {
                None => positions.extend(0..len as u32),
                Some(pad) => {
                    let mut next = pad;
                    positions.extend(sequence.iter().map(|&id| {
                        next += u32::from(id != pad);
                        if id == pad { pad } else { next }
                    }));
                }
            }
        }
        IdTensor::new(positions, ids.shape())
    }

    /// `ids: […]` → `[…, C]`.
    fn forward(&self, ids: &IdTensor, types: Option<&IdTensor>, positions: &IdTensor) -> Result<Tensor> {
        let mut x = self.word_embeddings.forward(ids)?;
        if let Some(table) = &self.token_type_embeddings {
            x = match types {
                Some(types) => x.add(&table.forward(types)?)?,
                None => x.add(&table.forward(&IdTensor::new(vec![0], &[1])?)?)?,
            };
        }
        let x = x.add(&self.position_embeddings.forward(positions)?)?;
        self.dropout.forward(&self.layer_norm.forward(&x)?)
    }
}

/// A transformer layer of an encoder. Its parts have the checkpoint names of the architecture.
#[derive(Clone)]
pub struct EncoderBlock {
    /// Self-attention.
    pub attention: MultiHeadAttention,
    /// The norm after the attention.
    pub attention_norm: LayerNorm,
    /// The feed-forward layer.
    pub feed_forward: FeedForward,
    /// The norm after the feed-forward layer.
    pub norm: LayerNorm,
    dropout: Dropout,
    names: &'static LayerNames,
}

crate::module!(EncoderBlock {
    attention = "",
    attention_norm = names.attention_norm,
    feed_forward = "",
    norm = names.norm,
    dropout;
    skip names
});

impl std::fmt::Debug for EncoderBlock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "EncoderBlock({})", self.summary().in_short())
    }
}

/// Creates a linear layer with the initial values of these models: normal weights, biases of zero.
pub(super) fn linear(a: &Architecture, n_in: usize, n_out: usize, p: Parameters<'_>) -> Result<Linear> {
    let weight = Init::Normal { std: a.initializer_range };
    Linear::init_with(n_in, n_out, WeightLayout::OutIn, weight, Some(Init::Zeros), p)
}

/// The sequences in a call of a layer.
enum View<'a> {
    /// `[B, T, C]` with one mask.
    Batch(AttentionMask),
    /// `[total, C]`, concatenated sequences.
    Spans(&'a [Span]),
}

impl EncoderBlock {
    fn init(a: &Architecture, mut p: Parameters<'_>) -> Result<Self> {
        let (c, names) = (a.d_model, &a.names.layer);
        let fresh = Some([Init::Normal { std: a.initializer_range }; 2]);
        let attention = MultiHeadAttentionConfig {
            dropout: a.attention_dropout,
            fresh,
            names: &names.attention,
            ..MultiHeadAttentionConfig::new(c, a.n_heads)
        };
        let feed_forward = FeedForwardConfig {
            activation: a.activation,
            fresh,
            names: names.feed_forward,
            ..FeedForwardConfig::new(c, a.d_ff)
        };
        Ok(Self {
            attention: MultiHeadAttention::init(&attention, p.at(""))?,
            attention_norm: LayerNorm::init(c, a.eps, p.at(names.attention_norm))?,
            feed_forward: FeedForward::init(&feed_forward, p.at(""))?,
            norm: LayerNorm::init(c, a.eps, p.at(names.norm))?,
            dropout: Dropout::new(a.dropout),
            names,
        })
    }

    /// `x: […, C]` → `[…, C]`.
    fn forward(&self, x: &Tensor, view: &View<'_>) -> Result<Tensor> {
        let context = match view {
            View::Batch(mask) => Context::Whole(mask),
            View::Spans(spans) => Context::Spans(spans),
        };
        let x = self.attention_norm.forward(&self.attention.forward_added(x, x, context, None, &self.dropout)?)?;
        self.norm.forward(&self.feed_forward.forward_added(&x, &x, &self.dropout)?)
    }
}

/// An encoder of the BERT family without a task head. See the [module](super).
///
/// ```
/// use loquat::models::encoder::{BertConfig, EncoderConfig, TextBatch, TextEncoder};
/// use loquat::{IdTensor, Rng};
///
/// let config = EncoderConfig::from(BertConfig::new(50, 12, 2, 3, 24));
/// let encoder = TextEncoder::init(&config, true, &mut Rng::seed(1))?;
/// let ids = IdTensor::batch(&[[2, 7, 9, 3], [2, 8, 3, 0]])?;
/// let mask = IdTensor::batch(&[[1, 1, 1, 1], [1, 1, 1, 0]])?;
/// let hidden_states = encoder.forward(&TextBatch::new(&ids).attention_mask(&mask))?;
/// assert_eq!(hidden_states.shape(), [2, 4, 12]);
/// assert_eq!(encoder.pool(&hidden_states)?.shape(), [2, 12]);
/// # Ok::<(), loquat::Error>(())
/// ```
#[derive(Clone)]
pub struct TextEncoder {
    /// Sizes and options.
    pub config: EncoderConfig,
    /// The embeddings.
    pub embeddings: EncoderEmbeddings,
    /// The layers, from the input to the output.
    pub layers: Vec<EncoderBlock>,
    /// MPNet's relative position bias, `[buckets, n_heads]`, which is added to the scores.
    pub relative_attention_bias: Option<Embedding>,
    /// The pooler, if the checkpoint has one: a linear layer and tanh, applied to the hidden state
    /// of the first token.
    pub pooler: Option<Linear>,
    names: &'static Names,
}

impl std::fmt::Debug for TextEncoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let pooler = if self.pooler.is_some() { ", pooler" } else { "" };
        write!(f, "{}Model({}{pooler})", self.names.class, self.summary().of_layers(self.layers.len()))
    }
}

const RELATIVE_BIAS: &str = "encoder.relative_attention_bias";
const POOLER: &str = "pooler.dense";

crate::module!(TextEncoder {
    embeddings,
    layers = names.layers,
    relative_attention_bias = RELATIVE_BIAS,
    pooler = POOLER;
    skip config, names
});

/// Prints a table of the parameters: [`Module::summary`].
impl std::fmt::Display for TextEncoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.summary())
    }
}

impl TextEncoder {
    /// Creates a model with random parameters or with those of a checkpoint, with or without a
    /// pooler.
    ///
    /// # Errors
    /// [`Error::Config`] if sizes or options are invalid; also the errors of [`Parameters::get`].
    pub fn init<'a>(config: &EncoderConfig, pooler: bool, p: impl Into<Parameters<'a>>) -> Result<Self> {
        let a = config.architecture()?;
        let mut p = p.into();
        Ok(Self {
            config: config.clone(),
            embeddings: EncoderEmbeddings::init(&a, p.at("embeddings"))?,
            layers: (0..a.n_layers)
                .map(|i| EncoderBlock::init(&a, p.at(a.names.layers).at(i)))
                .collect::<Result<_>>()?,
            relative_attention_bias: a
                .relative_buckets
                .map(|buckets| Embedding::init(buckets, a.n_heads, a.initializer_range, p.at(RELATIVE_BIAS)))
                .transpose()?,
            pooler: pooler.then(|| linear(&a, a.d_model, a.d_model, p.at(POOLER))).transpose()?,
            names: a.names,
        })
    }

    /// Returns the hidden states after the last layer.
    ///
    /// # Shapes
    /// `[batch, seq_len]` → `[batch, seq_len, hidden_size]`.
    ///
    /// # Errors
    /// [`Error::Id`] if a token or type is not in its table, [`Error::Argument`] if a sequence is
    /// too long, [`Error::Shape`] if mask or types have another shape.
    pub fn forward(&self, batch: &TextBatch) -> Result<Tensor> {
        let (rows, seq_len) = batch.input_ids.batch_and_len()?;
        if let Some(types) = batch.token_type_ids.as_ref().filter(|t| t.shape() != [rows, seq_len]) {
            return Err(Error::shape("token_type_ids", format!("[{rows}, {seq_len}]"), types.shape()));
        }
        let mask = batch.attention_mask.as_ref().map_or(AttentionMask::none(), AttentionMask::padding);
        let view = View::Batch(mask.and(&self.distances(seq_len)?));
        let lengths = std::iter::repeat_n(seq_len, rows);
        self.layers(&batch.input_ids, batch.token_type_ids.as_ref(), lengths, &view)
    }

    /// Same as [`TextEncoder::forward`], for concatenated sequences of any lengths, without
    /// padding, which is the fastest way to encode texts. Each sequence has the same bits as in a
    /// call of its own. Without gradients.
    ///
    /// # Shapes
    /// `input_ids: [total]`, `token_type_ids: [total]`, where `lengths` sum to `total` →
    /// `[total, hidden_size]`.
    ///
    /// # Errors
    /// Same as [`TextEncoder::forward`]; [`Error::NoGradient`] outside of
    /// [`no_grad`](crate::no_grad).
    pub fn forward_ragged(
        &self,
        input_ids: &IdTensor,
        token_type_ids: Option<&IdTensor>,
        lengths: &[usize],
    ) -> Result<Tensor> {
        let total = lengths.iter().try_fold(0usize, |sum, &len| sum.checked_add(len));
        for (what, ids) in [("input_ids", Some(input_ids)), ("token_type_ids", token_type_ids)] {
            if let Some(ids) = ids.filter(|ids| Some(ids.len()) != total || ids.shape().len() != 1) {
                return Err(Error::shape(what, format!("[{}]", total.unwrap_or(0)), ids.shape()));
            }
        }
        let spans = lengths
            .chunk_by(|a, b| a == b)
            .map(|equal| Ok(Span { sequences: equal.len(), len: equal[0], mask: self.distances(equal[0])? }))
            .collect::<Result<Vec<_>>>()?;
        let view = View::Spans(&spans);
        parallel::team(|| self.layers(input_ids, token_type_ids, lengths.iter().copied(), &view))
    }

    fn layers(
        &self,
        ids: &IdTensor,
        types: Option<&IdTensor>,
        lengths: impl Iterator<Item = usize> + Clone,
        view: &View<'_>,
    ) -> Result<Tensor> {
        let limit = self.config.max_seq_len();
        if let Some(len) = lengths.clone().find(|&len| len > limit) {
            return Err(Error::argument("input_ids", format!("at most {limit} tokens"), len));
        }
        let positions = self.embeddings.positions(ids, lengths)?;
        let mut x = self.embeddings.forward(ids, types, &positions)?;
        inspect::hidden("embeddings", &x);
        for (i, block) in self.layers.iter().enumerate() {
            x = inspect::layer(self.names.layers, i, || block.forward(&x, view))?;
        }
        Ok(x)
    }

    /// Applies the pooler: the hidden state of the first token of each sequence, through a linear
    /// layer and tanh.
    ///
    /// # Shapes
    /// `hidden_states: [batch, seq_len, hidden_size]` → `[batch, hidden_size]`.
    ///
    /// # Errors
    /// [`Error::Mismatch`] if the model has no pooler; [`Error::Shape`] if the shape does not
    /// match.
    pub fn pool(&self, hidden_states: &Tensor) -> Result<Tensor> {
        match &self.pooler {
            Some(pooler) => Ok(pooler.forward(&first_token(hidden_states)?)?.tanh()),
            None => Err(Error::mismatch("pool: the model has no pooler")),
        }
    }

    /// Returns the relative position bias of `seq_len` queries and keys.
    fn distances(&self, seq_len: usize) -> Result<AttentionMask> {
        let Some(table) = &self.relative_attention_bias else { return Ok(AttentionMask::none()) };
        if seq_len > self.config.max_seq_len() {
            return Ok(AttentionMask::none()); // an error later
        }
        let buckets: Vec<u32> = (1 - seq_len as isize..seq_len as isize).map(|d| relative_bucket(d, 32)).collect();
        let rows = (0..seq_len).flat_map(|query| &buckets[seq_len - 1 - query..][..seq_len]).copied();
        let rows = IdTensor::new(rows.collect::<Vec<_>>(), &[seq_len, seq_len])?;
        let bias = table.forward(&rows)?.permute(&[2, 0, 1])?; // [H, T, T]
        let heads = bias.shape()[0];
        Ok(AttentionMask::additive(&bias.reshape(&[1, heads, seq_len, seq_len])?))
    }
}

/// `[B, T, C]` → `[B, C]`
pub(super) fn first_token(hidden_states: &Tensor) -> Result<Tensor> {
    match *hidden_states.shape() {
        [batch, len, width] if len > 0 => hidden_states.narrow(1, 0, 1)?.reshape(&[batch, width]),
        _ => Err(Error::shape("hidden_states", "[batch, at least 1, hidden_size]", hidden_states.shape())),
    }
}

impl Pretrained for TextEncoder {
    fn config_json(&self) -> serde_json::Value {
        let mut json = self.config.to_json();
        json["architectures"] = serde_json::json!([format!("{}Model", self.names.class)]);
        json
    }
}
