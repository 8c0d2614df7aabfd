//! The decoder, written once: embedding, layers, final norm and head, over the whole text, over a
//! cache, and over several caches at once.
//!
//! A family says what its parts are ([`Decoder`]) and how its layer computes ([`DecoderBlock`]), and
//! is a [`CausalLm`] by that.

use crate::error::{Error, Result};
use crate::models::causal::{CausalLm, check_batch, decode_by_sequence, decode_by_token};
use crate::nn::attention::Context;
use crate::nn::{Embedding, KvCache, KvCaches, KvLayers, Module, RotaryPositions, Rotation};
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
    /// One for each of [`Decoder::rotary`].
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

/// The positions of a call's tokens in their sequences.
pub struct Positions {
    /// `[batch, seq_len]`.
    ids: IdTensor,
    /// The first, if all sequences have the same positions, one after the other.
    first: Option<usize>,
}

impl Positions {
    /// Learned vectors of the positions: `[seq_len, width]`, or `[batch, seq_len, width]` where
    /// sequences differ.
    ///
    /// # Errors
    /// [`Error::Id`] past the last row of the table.
    pub fn embed(&self, table: &Embedding) -> Result<Tensor> {
        match self.first {
            Some(first) => table.weight.tensor().narrow(0, first, self.ids.shape()[1]),
            None => table.forward(&self.ids),
        }
    }
}

/// A causal language model that is a stack of layers of one width with a cache of keys and values.
pub trait Decoder: Module + Send + Sync {
    /// Its layer.
    type Block: DecoderBlock;

    /// The paths of the embeddings' output and of the layers, for [`inspect`](mod@crate::ops::inspect).
    const PATHS: [&str; 2];

    /// The number of token ids.
    fn vocab_size(&self) -> usize;

    /// The largest number of positions.
    fn max_positions(&self) -> usize;

    /// The rotary positions: none, those of all layers, or several that layers choose from.
    fn rotary(&self) -> &[RotaryPositions] {
        &[]
    }

    /// The input of the first layer.
    ///
    /// # Shapes
    /// `input_ids: [batch, seq_len]` → `[batch, seq_len, width]`.
    ///
    /// # Errors
    /// [`Error::Id`] for an id outside the vocabulary.
    fn embed(&self, input_ids: &IdTensor, positions: &Positions) -> Result<Tensor>;

    /// From the input up.
    fn layers(&self) -> &[Self::Block];

    /// The norm after the last layer.
    ///
    /// # Errors
    /// [`Error::Shape`] if `x` does not fit.
    fn final_norm(&self, x: &Tensor) -> Result<Tensor>;

    /// The head: `hidden_states: […, width]` → `[…, vocab_size]`.
    ///
    /// # Errors
    /// [`Error::Shape`] if they do not fit.
    fn logits(&self, hidden_states: &Tensor) -> Result<Tensor>;

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
    let (_, seq_len) = input_ids.batch_and_len()?;
    let (end, limit) = (caches.as_ref().map_or(seq_len, |c| c.end(seq_len)), model.max_positions());
    if end > limit {
        return Err(Error::argument("input_ids", format!("at most {limit} positions"), end));
    }
    let past = if let Some(KvCaches::Even(cache)) = &caches { cache.len() } else { 0 };
    let (mut ids, mask) = positions_and_mask(input_ids, attention_mask, past)?;
    let ragged =
        if let Some(caches @ KvCaches::Ragged(..)) = &caches { Some(caches.positions(input_ids)?) } else { None };
    let first = (attention_mask.is_none() && ragged.is_none()).then_some(past);
    ids = ragged.unwrap_or(ids);
    let rotations = model.rotary().iter().map(|rotary| rotary.at(&ids)).collect::<Result<Vec<_>>>()?;
    let mut x = model.embed(input_ids, &Positions { ids, first })?; // [B, T, C]
    let [embeddings, layers] = D::PATHS;
    inspect::hidden(embeddings, &x);
    for (i, block) in model.layers().iter().enumerate() {
        let cache = caches.as_mut().map(|caches| caches.layer(i));
        let call = DecoderCall { rotations: &rotations, mask: &mask, cache };
        x = inspect::layer(layers, i, || block.forward(&x, call))?;
    }
    model.final_norm(&x)
}

/// Whether calls that read the same positions in other parts differ.
fn depends_on_parts<D: Decoder>(model: &D) -> bool {
    model.rotary().iter().any(RotaryPositions::is_dynamic)
}

impl<D: Decoder> CausalLm for D {
    type State = KvCache;

    fn vocab_size(&self) -> usize {
        Decoder::vocab_size(self)
    }

    fn max_seq_len(&self) -> Option<usize> {
        Some(self.max_positions())
    }

    fn forward(&self, input_ids: &IdTensor) -> Result<Tensor> {
        self.logits(&self.hidden_states(input_ids, None, None)?)
    }

    fn new_state(&self, _batch: usize) -> KvCache {
        KvCache::new(self.layers().len())
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
        self.logits(&self.final_norm(hidden_states)?)
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
