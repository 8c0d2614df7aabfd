//! Several caches of different lengths in one call.

use super::{KvCache, KvLayer, paged};
use crate::error::{Error, Result};
use crate::ops::{self, Attention, AttentionMask};
use crate::tensor::{IdTensor, Tensor};

/// The caches that a call of a model reads and appends to.
///
/// Sequences of different lengths are concatenated without padding: all layers except attention
/// process rows independently, so each sequence has the same bits as in a call of its own.
pub(crate) enum KvCaches<'a, 'c> {
    /// One cache, for inputs `[batch, new_len]`.
    Even(&'a mut KvCache),
    /// Caches of one sequence each, with the number of new positions of each, for inputs
    /// `[1, sum of new positions]`.
    Ragged(&'a mut [&'c mut KvCache], &'a [usize]),
}

/// One layer of [`KvCaches`].
pub(crate) enum KvLayers<'a> {
    /// See [`KvCaches::Even`].
    Even(&'a mut KvLayer),
    /// See [`KvCaches::Ragged`].
    Ragged(Vec<&'a mut KvLayer>, &'a [usize]),
}

impl KvCaches<'_, '_> {
    /// Returns layer `i` of each cache.
    ///
    /// # Panics
    /// If there is no such layer.
    pub(crate) fn layer(&mut self, i: usize) -> KvLayers<'_> {
        match self {
            Self::Even(cache) => KvLayers::Even(cache.layer_mut(i)),
            Self::Ragged(caches, new) => {
                KvLayers::Ragged(caches.iter_mut().map(|cache| cache.layer_mut(i)).collect(), new)
            }
        }
    }

    /// Returns the position of each token of `input_ids` in its sequence.
    ///
    /// # Errors
    /// [`Error::Shape`] if `input_ids` do not have the shape of the new positions.
    pub(crate) fn positions(&self, input_ids: &IdTensor) -> Result<IdTensor> {
        let (batch, seq_len) = input_ids.batch_and_len()?;
        let from = |past: usize, new: usize| (past..past + new).map(|position| position as u32);
        let positions: Vec<u32> = match self {
            Self::Even(cache) => (0..batch).flat_map(|_| from(cache.len(), seq_len)).collect(),
            Self::Ragged(caches, new) => caches.iter().zip(*new).flat_map(|(c, &new)| from(c.len(), new)).collect(),
        };
        IdTensor::new(positions, input_ids.shape())
    }

    /// Returns the largest position plus one, over all sequences.
    pub(crate) fn end(&self, seq_len: usize) -> usize {
        match self {
            Self::Even(cache) => cache.len() + seq_len,
            Self::Ragged(caches, new) => caches.iter().zip(*new).map(|(c, new)| c.len() + new).max().unwrap_or(0),
        }
    }
}

impl KvLayers<'_> {
    /// Same as [`KvLayer::attend`].
    ///
    /// # Shapes
    /// `query: [batch, new_len, n_heads · head_dim]`, or `[1, sum of new positions, …]` for ragged
    /// caches; the result has the same shape.
    ///
    /// # Errors
    /// Same as [`KvLayer::attend`]; [`Error::Argument`] if the caches are ragged and the mask is
    /// not plainly causal.
    pub(crate) fn attend(
        self,
        attention: &Attention,
        query: &Tensor,
        key: &Tensor,
        value: &Tensor,
        mask: &AttentionMask,
    ) -> Result<Tensor> {
        let (mut layers, new) = match self {
            Self::Even(layer) => return layer.attend(attention, query, key, value, mask),
            Self::Ragged(layers, new) => (layers, new),
        };
        if let Some(x) = [query, key, value].iter().find(|x| x.rank() != 3 || x.shape()[..2] != [1, new.iter().sum()]) {
            return Err(Error::shape("attention", format!("[1, {}, width]", new.iter().sum::<usize>()), x.shape()));
        }
        let mut start = 0;
        for (layer, &new) in layers.iter_mut().zip(new) {
            layer.append(&key.narrow(1, start, new)?, &value.narrow(1, start, new)?)?;
            start += new;
        }
        // Steps of one token each are one call.
        let one_each = new.iter().all(|&new| new == 1) && layers.iter().all(|layer| layer.widths == layers[0].widths);
        if one_each && layers.len() > 1 {
            let rows = query.reshape(&[new.len(), 1, query.last_dim()])?;
            if let Some(y) = attention.forward_paged(&rows, &paged(layers.iter().map(|layer| &**layer)), mask)? {
                return y.reshape(&[1, new.len(), y.last_dim()]);
            }
        }
        let mut start = 0;
        let mut parts = Vec::with_capacity(new.len());
        for (layer, &new) in layers.iter().zip(new) {
            parts.push(layer.attend_cached(attention, &query.narrow(1, start, new)?, mask)?);
            start += new;
        }
        ops::concat(&parts.iter().collect::<Vec<_>>(), 1)
    }
}
