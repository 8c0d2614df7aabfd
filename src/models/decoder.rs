//! The decoder, written once: embedding, layers, final norm and head, over the whole text, over a
//! cache, and over several caches at once.
//!
//! A family says what its parts are ([`Decoder`]) and how its layer computes ([`DecoderBlock`]), and
//! is a [`CausalLm`] by that.

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
    /// # Shapes
    /// `x: [batch, seq_len, width]` and so the result.
    ///
    /// # Errors
    /// [`Error::Shape`] if `x` does not fit.
    fn forward(&self, x: &Tensor, call: DecoderCall<'_>) -> Result<Tensor>;
}

/// What a [`DecoderBlock`] reads beside its input.
pub struct DecoderCall<'a> {
    /// One for each of [`DecoderParts::rotary`].
    rotations: &'a [Rotation],
    mask: &'a AttentionMask,
    cache: Option<KvLayers<'a>>,
}

impl<'a> DecoderCall<'a> {
    /// What the layer's attention sees, and the rotation of its queries and keys by the model's
    /// rotary positions number `rotary`, if the model has that many.
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
    /// The paths of the embeddings' output and of the layers, for [`inspect`](mod@crate::ops::inspect).
    pub paths: [&'static str; 2],
    /// The largest number of positions.
    pub max_positions: usize,
    /// A vector for each token, `[vocab_size, width]`; the head too if there is no other.
    pub tokens: &'m Embedding,
    /// A vector for each position, if positions are learned.
    pub positions: Option<&'m Embedding>,
    /// Rotary positions: none, those of all layers, or several that layers choose from.
    pub rotary: &'m [RotaryPositions],
    /// Dropout of the embeddings' sum.
    pub dropout: Dropout,
    /// The layers, from the input up.
    pub layers: &'m [B],
    /// After the last layer.
    pub norm: NormRef<'m>,
    /// The head, if it is not the token table.
    pub head: Option<&'m Linear>,
}

/// The norm of a model's own kind.
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

/// A causal language model that is a stack of layers of one width with a cache of keys and values.
pub trait Decoder: Module + Send + Sync {
    /// Its layer.
    type Block: DecoderBlock;

    /// What it consists of.
    fn parts(&self) -> DecoderParts<'_, Self::Block>;

    /// The head: `hidden_states: […, width]` → `[…, vocab_size]`.
    ///
    /// # Errors
    /// [`Error::Shape`] if they do not fit.
    fn logits(&self, hidden_states: &Tensor) -> Result<Tensor> {
        let parts = self.parts();
        match parts.head {
            Some(head) => head.forward(hidden_states),
            None => parts.tokens.logits(hidden_states),
        }
    }

    /// The hidden states after the final norm, of the positions that follow those in `cache`.
    ///
    /// `attention_mask` is 0 where there is padding, in the cached and the new positions: `[batch, cached + seq_len]`. A sequence
    /// has the same bits alone and with padding before or after it: positions count what is not padding.
    ///
    /// # Shapes
    /// `input_ids: [batch, seq_len]` → `[batch, seq_len, width]`.
    ///
    /// # Errors
    /// Same as [`CausalLm::forward`]; [`Error::Shape`] if the mask does not fit.
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
    let mut even = attention_mask.is_none(); // all sequences are at the same positions
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

/// Whether calls that read the same positions in other parts differ.
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

/// The positions of new tokens behind `past` others, and what they see. Padding, where the mask is 0, is not counted and not seen.
///
/// `input_ids: [batch, seq_len]`, `attention_mask: [batch, past + seq_len]` → positions `[batch, seq_len]`.
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

/// The last row of each sequence of `x: [1, sum of lens, width]`: `[sequences, width]`.
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
