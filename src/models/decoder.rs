//! The shared decoder of the transformer families: embedding, layers, final norm and LM head; for
//! whole texts, with a cache, and with several caches at once.
//!
//! A family provides its parts ([`Decoder`]) and the computation of its layer ([`DecoderBlock`]),
//! and becomes a [`CausalLm`].

use crate::error::{Error, Result};
use crate::models::causal::{CausalLm, check_batch, decode_by_sequence, decode_by_token};
use crate::nn::attention::Context;
use crate::nn::{
    Dropout, Embedding, KvCache, KvCaches, KvLayers, LayerNorm, Linear, Module, RmsNorm, RotaryPositions, Rotation,
};
use crate::ops::{AttentionMask, inspect};
use crate::tensor::{IdTensor, Tensor};

/// A layer of a [`Decoder`].
pub trait DecoderBlock: Module + Send + Sync {
    /// Applies the layer to `x`.
    ///
    /// # Shapes
    /// `x: [batch, seq_len, width]` → `[batch, seq_len, width]`.
    ///
    /// # Errors
    /// [`Error::Shape`] if the shape of `x` does not match.
    fn forward(&self, x: &Tensor, call: DecoderCall<'_>) -> Result<Tensor>;
}

/// The context of a call of a [`DecoderBlock`], apart from its input.
pub struct DecoderCall<'a> {
    /// One rotation for each of [`DecoderParts::rotary`].
    rotations: &'a [Rotation],
    mask: &'a AttentionMask,
    cache: Option<KvLayers<'a>>,
}

impl<'a> DecoderCall<'a> {
    /// Returns the context of the layer's attention, and the rotation of its queries and keys by
    /// entry `rotary` of [`DecoderParts::rotary`], if the model has that many.
    pub(crate) fn attention(self, rotary: usize) -> (Context<'a>, Option<&'a Rotation>) {
        let context = match self.cache {
            None => Context::Whole(self.mask),
            Some(cache) => Context::Cached(cache, self.mask),
        };
        (context, self.rotations.get(rotary))
    }
}

/// The parts of a [`Decoder`].
pub struct DecoderParts<'m, B> {
    /// The paths of the embeddings' output and of the layers, for
    /// [`inspect`](mod@crate::ops::inspect).
    pub paths: [&'static str; 2],
    /// The context length, in tokens.
    pub max_positions: usize,
    /// The token embeddings, `[vocab_size, width]`; also the LM head if `head` is `None`.
    pub tokens: &'m Embedding,
    /// The position embeddings, if positions are learned.
    pub positions: Option<&'m Embedding>,
    /// Rotary position embeddings: none, one for all layers, or several that layers choose from.
    pub rotary: &'m [RotaryPositions],
    /// Dropout of the sum of the embeddings.
    pub dropout: Dropout,
    /// The layers, from the input to the output.
    pub layers: &'m [B],
    /// The final norm.
    pub norm: NormRef<'m>,
    /// The LM head, if it is not tied to the token embeddings.
    pub head: Option<&'m Linear>,
}

/// A reference to a norm of either kind.
#[derive(Clone, Copy)]
pub enum NormRef<'m> {
    /// Layer normalisation.
    Layer(&'m LayerNorm),
    /// RMS normalisation.
    Rms(&'m RmsNorm),
}

impl NormRef<'_> {
    fn forward(self, x: &Tensor) -> Result<Tensor> {
        match self {
            Self::Layer(norm) => norm.forward(x),
            Self::Rms(norm) => norm.forward(x),
        }
    }
}

/// A causal language model that is a stack of layers of the same width, with a cache of keys and
/// values.
pub trait Decoder: Module + Send + Sync {
    /// The layer.
    type Block: DecoderBlock;

    /// Returns the parts of the model.
    fn parts(&self) -> DecoderParts<'_, Self::Block>;

    /// Applies the LM head: `hidden_states: […, width]` → `[…, vocab_size]`.
    ///
    /// # Errors
    /// [`Error::Shape`] if the shape does not match.
    fn logits(&self, hidden_states: &Tensor) -> Result<Tensor> {
        let parts = self.parts();
        match parts.head {
            Some(head) => head.forward(hidden_states),
            None => parts.tokens.logits(hidden_states),
        }
    }

    /// Returns the hidden states, after the final norm, of new positions that follow those in
    /// `cache`.
    ///
    /// `attention_mask` is 0 at padding, in the cached and the new positions:
    /// `[batch, cached + seq_len]`. A sequence has the same bits alone and with padding before or
    /// after it: padding is not counted in positions.
    ///
    /// # Shapes
    /// `input_ids: [batch, seq_len]` → `[batch, seq_len, width]`.
    ///
    /// # Errors
    /// Same as [`CausalLm::forward`]; [`Error::Shape`] if the shape of the mask does not match.
    fn hidden_states(
        &self,
        input_ids: &IdTensor,
        attention_mask: Option<&IdTensor>,
        cache: Option<&mut KvCache>,
    ) -> Result<Tensor> {
        hidden_states(self, input_ids, attention_mask, cache.map(KvCaches::Even))
    }
}

fn hidden_states<D: Decoder + ?Sized>(
    model: &D,
    input_ids: &IdTensor,
    attention_mask: Option<&IdTensor>,
    mut caches: Option<KvCaches<'_, '_>>,
) -> Result<Tensor> {
    let parts = model.parts();
    let (_, seq_len) = input_ids.batch_and_len()?;
    let (end, limit) = (caches.as_ref().map_or(seq_len, |c| c.end(seq_len)), parts.max_positions);
    if end > limit {
        return Err(Error::argument("input_ids", format!("at most {limit} positions"), end));
    }
    let past = if let Some(KvCaches::Even(cache)) = &caches { cache.len() } else { 0 };
    let (mut positions, mask) = positions_and_mask(input_ids, attention_mask, past)?;
    let mut even = attention_mask.is_none(); // whether all sequences are at the same positions
    if let Some(caches @ KvCaches::Ragged(..)) = &caches {
        (positions, even) = (caches.positions(input_ids)?, false);
    }
    let mut x = parts.tokens.forward(input_ids)?; // [B, T, C]
    if let Some(table) = parts.positions {
        x = x.add(&match even {
            true => table.weight.tensor().narrow(0, past, seq_len)?, // [T, C]
            false => table.forward(&positions)?,                     // [B, T, C]
        })?;
    }
    x = parts.dropout.forward(&x)?;
    let rotations = parts.rotary.iter().map(|rotary| rotary.at(&positions)).collect::<Result<Vec<_>>>()?;
    let [embeddings, layers] = parts.paths;
    inspect::hidden(embeddings, &x);
    for (i, block) in parts.layers.iter().enumerate() {
        let cache = caches.as_mut().map(|caches| caches.layer(i));
        let call = DecoderCall { rotations: &rotations, mask: &mask, cache };
        x = inspect::layer(layers, i, || block.forward(&x, call))?;
    }
    parts.norm.forward(&x)
}

/// Returns whether calls that process the same positions in different portions give different
/// results.
fn depends_on_parts<D: Decoder>(model: &D) -> bool {
    model.parts().rotary.iter().any(RotaryPositions::is_dynamic)
}

impl<D: Decoder> CausalLm for D {
    type State = KvCache;

    fn vocab_size(&self) -> usize {
        self.parts().tokens.weight.shape()[0]
    }

    fn max_seq_len(&self) -> Option<usize> {
        Some(self.parts().max_positions)
    }

    fn forward(&self, input_ids: &IdTensor) -> Result<Tensor> {
        self.logits(&self.hidden_states(input_ids, None, None)?)
    }

    fn new_state(&self, _batch: usize) -> KvCache {
        KvCache::new(self.parts().layers.len())
    }

    fn decode(&self, input_ids: &IdTensor, state: &mut KvCache) -> Result<Tensor> {
        let (batch, new_len) = input_ids.batch_and_len()?;
        if new_len == 0 {
            return Err(Error::shape("input_ids", "[batch, at least 1]", input_ids.shape()));
        }
        let before = state.len();
        let x = self.hidden_states(input_ids, None, Some(&mut *state)).inspect_err(|_| state.truncate(before))?;
        let last = x.narrow(1, new_len - 1, 1)?.reshape(&[batch, x.last_dim()])?;
        self.logits(&last)
    }

    fn decode_all(&self, input_ids: &IdTensor, state: &mut KvCache) -> Result<Tensor> {
        if depends_on_parts(self) {
            return decode_by_token(self, input_ids, state);
        }
        self.logits(&self.hidden_states(input_ids, None, Some(state))?)
    }

    fn decode_batch(&self, input_ids: &[&[u32]], states: &mut [&mut KvCache]) -> Result<Tensor> {
        if depends_on_parts(self) {
            return decode_by_sequence(self, input_ids, states);
        }
        check_batch(input_ids, states.len())?;
        let (ids, lens) = (input_ids.concat(), input_ids.iter().map(|ids| ids.len()).collect::<Vec<_>>());
        let x = hidden_states(self, &IdTensor::sequence(&ids), None, Some(KvCaches::Ragged(states, &lens)))?;
        self.logits(&last_of_each(&x, &lens)?)
    }

    fn unembed(&self, hidden_states: &Tensor) -> Result<Tensor> {
        self.logits(&self.parts().norm.forward(hidden_states)?)
    }
}

/// Returns the positions of new tokens that follow `past` others, and their mask. Padding, where
/// the mask is 0, is not counted and masked.
///
/// `input_ids: [batch, seq_len]`, `attention_mask: [batch, past + seq_len]` → positions
/// `[batch, seq_len]`.
fn positions_and_mask(
    input_ids: &IdTensor,
    attention_mask: Option<&IdTensor>,
    past: usize,
) -> Result<(IdTensor, AttentionMask)> {
    let (batch, seq_len) = input_ids.batch_and_len()?;
    let len = past + seq_len;
    let mut mask = AttentionMask::causal();
    let mut positions: Vec<u32> = (0..batch).flat_map(|_| past as u32..len as u32).collect();
    if let Some(padding) = attention_mask {
        if padding.shape() != [batch, len] {
            return Err(Error::shape("attention_mask", format!("[{batch}, {len}]"), padding.shape()));
        }
        mask = mask.and(&AttentionMask::padding(padding));
        for (positions, seen) in positions.chunks_mut(seq_len.max(1)).zip(padding.data().chunks(len.max(1))) {
            let mut count = seen[..past].iter().filter(|&&m| m != 0).count() as u32;
            for (position, &m) in positions.iter_mut().zip(&seen[past..]) {
                *position = count;
                count += u32::from(m != 0);
            }
        }
    }
    Ok((IdTensor::new(positions, input_ids.shape())?, mask))
}

/// Returns the last row of each sequence of `x: [1, sum of lens, width]`: `[sequences, width]`.
fn last_of_each(x: &Tensor, lens: &[usize]) -> Result<Tensor> {
    let width = x.last_dim();
    let mut last = Vec::with_capacity(lens.len() * width);
    let mut end = 0;
    for len in lens {
        end += len;
        last.extend_from_slice(&x.data()[(end - 1) * width..end * width]);
    }
    Tensor::from_vec(last, &[lens.len(), width])
}
