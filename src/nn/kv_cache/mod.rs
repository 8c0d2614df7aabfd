//! Keys and values of past positions, so that decoding computes each only once.
//!
//! The positions of a sequence are stored in pages that sequences share: cloning a cache or
//! reordering its sequences copies no page. Adding a position to a shared page copies that page
//! first.

mod pages;
mod ragged;

pub(crate) use ragged::{KvCaches, KvLayers};

use crate::error::{Error, Result};
use crate::ops::attention::paged::Paged;
use crate::ops::{Attention, AttentionMask};
use crate::tensor::{Tensor, tape};
use pages::Pages;

/// The keys and values of every layer of a model. The caller owns the cache and the model borrows
/// it, so that one model serves many sequences at the same time. A clone is cheap and independent.
///
/// ```
/// use loquat::{Tensor, nn::KvCache};
///
/// let mut cache = KvCache::new(2);
/// for layer in cache.layers_mut() {
///     layer.append(&Tensor::zeros(&[1, 3, 8]), &Tensor::zeros(&[1, 3, 8]))?;
/// }
/// assert_eq!(cache.len(), 3);
/// cache.truncate(2); // remove a rejected draft
/// cache.reorder(&[0, 0])?; // two beams from one
/// assert_eq!(cache.layer(1).keys().map(|k| k.shape().to_vec()), Some(vec![2, 2, 8]));
/// # Ok::<(), loquat::Error>(())
/// ```
#[derive(Clone)]
pub struct KvCache {
    layers: Vec<KvLayer>,
}

impl std::fmt::Debug for KvCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let batch = self.layers.first().map_or(0, KvLayer::batch);
        write!(f, "KvCache(n_layers={}, batch={batch}, len={})", self.layers.len(), self.len())
    }
}

impl KvCache {
    /// Creates an empty cache.
    pub fn new(n_layers: usize) -> Self {
        Self { layers: vec![KvLayer::new(); n_layers] }
    }

    /// Returns the number of positions that every layer has keys and values of.
    pub fn len(&self) -> usize {
        self.layers.iter().map(KvLayer::len).min().unwrap_or(0)
    }

    /// Returns whether the cache is empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the cache of layer `i`.
    ///
    /// # Panics
    /// If there is no such layer.
    pub fn layer(&self, i: usize) -> &KvLayer {
        &self.layers[i]
    }

    /// Returns the mutable cache of layer `i`.
    ///
    /// # Panics
    /// If there is no such layer.
    pub fn layer_mut(&mut self, i: usize) -> &mut KvLayer {
        &mut self.layers[i]
    }

    /// Returns an iterator over the mutable caches of the layers.
    pub fn layers_mut(&mut self) -> impl Iterator<Item = &mut KvLayer> {
        self.layers.iter_mut()
    }

    /// Returns the number of layers.
    pub(crate) fn n_layers(&self) -> usize {
        self.layers.len()
    }

    /// Removes the positions from `len` on, and keeps the memory for reuse.
    pub fn truncate(&mut self, len: usize) {
        self.layers.iter_mut().for_each(|layer| layer.truncate(len));
    }

    /// Replaces sequence `i` by sequence `rows[i]`, as in beam search; the number of sequences may
    /// change.
    ///
    /// # Errors
    /// [`Error::Id`] if a sequence does not exist.
    pub fn reorder(&mut self, rows: &[usize]) -> Result<()> {
        self.layers.iter_mut().try_for_each(|layer| layer.reorder(rows))
    }
}

/// The keys and values of one layer.
#[derive(Clone, Default)]
pub struct KvLayer {
    /// One per sequence, all of the same length.
    sequences: Vec<Pages>,
    /// Widths of a position's keys and values, in numbers.
    widths: [usize; 2],
}

impl KvLayer {
    /// Creates an empty cache.
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns the number of positions.
    pub fn len(&self) -> usize {
        self.sequences.first().map_or(0, Pages::len)
    }

    /// Returns whether there are no positions.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the number of sequences; 0 before the first use.
    pub(crate) fn batch(&self) -> usize {
        self.sequences.len()
    }

    /// Returns a copy of the keys, `[batch, len, n_kv_heads · head_dim]`; `None` before the first
    /// use.
    pub fn keys(&self) -> Option<Tensor> {
        let [width, _] = self.widths;
        let pages = |s: &Pages, y: &mut [f32]| s.copy_to(s.keys(self.widths), width, y);
        (!self.sequences.is_empty()).then(|| self.gathered(width, pages))
    }

    /// Returns a copy of the values; see [`KvLayer::keys`].
    pub fn values(&self) -> Option<Tensor> {
        let [_, width] = self.widths;
        let pages = |s: &Pages, y: &mut [f32]| s.copy_to(s.values(self.widths), width, y);
        (!self.sequences.is_empty()).then(|| self.gathered(width, pages))
    }

    fn gathered(&self, width: usize, copy: impl Fn(&Pages, &mut [f32])) -> Tensor {
        let run = self.len() * width;
        Tensor::write(&[self.batch(), self.len(), width], |y| {
            for (y, sequence) in y.chunks_mut(run.max(1)).zip(&self.sequences) {
                copy(sequence, y);
            }
        })
    }

    /// Appends the keys and values of new positions.
    ///
    /// # Shapes
    /// `key` and `value`: `[batch, new_len, n_kv_heads · head_dim]`; the last axes may differ.
    ///
    /// # Errors
    /// [`Error::Shape`] if batch size or width differ from those of earlier positions;
    /// [`Error::NoGradient`] if an input needs a gradient.
    pub fn append(&mut self, key: &Tensor, value: &Tensor) -> Result<()> {
        tape::refuse("kv_cache append", &[key, value])?;
        let (&[batch, new, key_width], &[value_batch, value_len, value_width]) = (key.shape(), value.shape()) else {
            return Err(Error::shape("kv_cache", "[batch, positions, width] for key and value", key.shape()));
        };
        if (value_batch, value_len) != (batch, new) {
            return Err(Error::shape("kv_cache value", format!("[{batch}, {new}, …]"), value.shape()));
        }
        let widths = [key_width, value_width];
        if self.is_empty() && (self.batch(), self.widths) != (batch, widths) {
            (self.sequences, self.widths) = (vec![Pages::default(); batch], widths);
        }
        for (i, (x, what)) in [(key, "kv_cache key"), (value, "kv_cache value")].into_iter().enumerate() {
            if (batch, widths[i]) != (self.batch(), self.widths[i]) {
                return Err(Error::shape(
                    what,
                    format!("[{}, positions, {}]", self.batch(), self.widths[i]),
                    x.shape(),
                ));
            }
        }
        for (i, sequence) in self.sequences.iter_mut().enumerate() {
            let row = |width: usize| i * new * width..(i + 1) * new * width;
            sequence.append(&key.data()[row(key_width)], &value.data()[row(value_width)], new, widths);
        }
        Ok(())
    }

    /// Appends keys and values (see [`KvLayer::append`]), then computes attention of `query` over
    /// all cached positions.
    ///
    /// # Shapes
    /// `query: [batch, new_len, n_heads · head_dim]` → `[batch, new_len, n_heads · head_dim]`.
    ///
    /// # Errors
    /// Same as [`KvLayer::append`] and [`Attention::forward`].
    pub fn attend(
        &mut self,
        attention: &Attention,
        query: &Tensor,
        key: &Tensor,
        value: &Tensor,
        mask: &AttentionMask,
    ) -> Result<Tensor> {
        self.append(key, value)?;
        self.attend_cached(attention, query, mask)
    }

    /// Computes attention of `query` over the cached positions, for cross-attention.
    ///
    /// # Shapes
    /// `query: [batch, queries, n_heads · head_dim]` → `[batch, queries, n_heads · head_dim]`.
    ///
    /// # Errors
    /// [`Error::Argument`] if the cache is empty; also the errors of [`Attention::forward`].
    pub(crate) fn attend_cached(&self, attention: &Attention, query: &Tensor, mask: &AttentionMask) -> Result<Tensor> {
        if !self.sequences.is_empty()
            && let Some(y) = attention.forward_paged(query, &paged([self]), mask)?
        {
            return Ok(y);
        }
        let (Some(keys), Some(values)) = (self.keys(), self.values()) else {
            return Err(Error::argument("kv_cache", "keys and values", "none"));
        };
        attention.forward_cached(query, &keys, &values, self.len(), mask)
    }

    /// Removes the positions from `len` on.
    pub fn truncate(&mut self, len: usize) {
        self.sequences.iter_mut().for_each(|sequence| sequence.truncate(len));
    }

    /// Replaces sequence `i` by sequence `rows[i]`. Pages are shared, not copied.
    ///
    /// # Errors
    /// [`Error::Id`] if a sequence does not exist.
    pub fn reorder(&mut self, rows: &[usize]) -> Result<()> {
        if self.sequences.is_empty() || rows.iter().copied().eq(0..self.batch()) {
            return Ok(());
        }
        let row = |&row: &usize| {
            let limit = self.batch();
            let unknown = || Error::Id { what: "kv_cache sequence".into(), id: row as u64, limit };
            self.sequences.get(row).cloned().ok_or_else(unknown)
        };
        self.sequences = rows.iter().map(row).collect::<Result<_>>()?;
        Ok(())
    }
}

impl std::fmt::Debug for KvLayer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [keys, values] = self.widths;
        write!(f, "KvLayer[{}, {}, {keys} + {values}]", self.batch(), self.len())
    }
}

/// Returns the pages of every sequence of some layers of equal widths.
fn paged<'a>(layers: impl IntoIterator<Item = &'a KvLayer>) -> Paged<'a> {
    let mut paged = Paged { keys: Vec::new(), values: Vec::new(), first: vec![0], lens: Vec::new(), widths: [0; 2] };
    for layer in layers {
        paged.widths = layer.widths;
        for sequence in &layer.sequences {
            paged.keys.extend(sequence.keys(layer.widths));
            paged.values.extend(sequence.values(layer.widths));
            paged.first.push(paged.keys.len());
            paged.lens.push(sequence.len());
        }
    }
    paged
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Rng;

    fn positions(tensor: &Tensor, row: usize, len: usize) -> Vec<f32> {
        let (room, width) = (tensor.shape()[1], tensor.shape()[2]);
        tensor.data()[row * room * width..][..len * width].to_vec()
    }

    #[test]
    fn positions_survive_growth() {
        let x = Tensor::normal(&[2, 300, 3], 1.0, &mut Rng::seed(1));
        let mut layer = KvLayer::new();
        let mut at = 0;
        for step in [5, 1, 30, 1, 40, 3, 48, 1, 150, 21] {
            let new = x.narrow(1, at, step).unwrap();
            layer.append(&new, &new.scale(2.0)).unwrap();
            at += step;
        }
        assert_eq!(layer.len(), 300);
        for row in 0..2 {
            assert_eq!(positions(&layer.keys().unwrap(), row, 300), x.data()[row * 900..][..900]);
            assert_eq!(positions(&layer.values().unwrap(), row, 300), x.scale(2.0).data()[row * 900..][..900]);
        }
    }

    #[test]
    fn truncated_positions_are_written_again_and_rows_move() {
        let x = Tensor::normal(&[2, 4, 3], 1.0, &mut Rng::seed(1));
        let mut layer = KvLayer::new();
        layer.append(&x, &x).unwrap();
        layer.truncate(1);
        layer.append(&x.narrow(1, 3, 1).unwrap(), &x.narrow(1, 3, 1).unwrap()).unwrap();
        layer.reorder(&[1, 1, 0]).unwrap();
        let keys = layer.keys().unwrap();
        assert_eq!((keys.shape(), layer.len()), (&[3, 2, 3][..], 2));
        for (row, from) in [(0, 1), (1, 1), (2, 0)] {
            let row_of_x = &x.data()[from * 12..][..12];
            assert_eq!(positions(&keys, row, 2), [&row_of_x[..3], &row_of_x[9..]].concat());
        }
        assert!(layer.reorder(&[3]).is_err());
    }

    #[test]
    fn another_order_shares_pages_and_a_writer_copies_one() {
        let x = Tensor::normal(&[1, 300, 3], 1.0, &mut Rng::seed(1));
        let mut layer = KvLayer::new();
        layer.append(&x, &x).unwrap();
        layer.reorder(&[0, 0, 0]).unwrap();
        assert!(layer.sequences.iter().all(|sequence| sequence.shared() == 3));
        let new = Tensor::normal(&[3, 1, 3], 1.0, &mut Rng::seed(2));
        layer.append(&new, &new).unwrap();
        assert!(layer.sequences.iter().all(|sequence| sequence.shared() == 2));
        let mut other = layer.clone();
        other.truncate(299);
        other.append(&new, &new).unwrap();
        for (layer, kept) in [(&layer, 300), (&other, 299)] {
            for row in 0..3 {
                let keys = positions(&layer.keys().unwrap(), row, kept + 1);
                assert_eq!(keys, [&x.data()[..3 * kept], &new.data()[3 * row..][..3]].concat());
            }
        }
    }

    #[test]
    fn an_emptied_cache_takes_another_batch() {
        let mut cache = KvCache::new(1);
        let of = |batch| Tensor::zeros(&[batch, 2, 3]);
        cache.layer_mut(0).append(&of(2), &of(2)).unwrap();
        assert!(cache.layer_mut(0).append(&of(1), &of(1)).is_err());
        assert!(cache.layer_mut(0).append(&of(2), &Tensor::zeros(&[2, 1, 3])).is_err());
        assert_eq!(cache.len(), 2);
        cache.truncate(0);
        cache.layer_mut(0).append(&of(1), &of(1)).unwrap();
        assert_eq!((cache.len(), cache.layer(0).keys().unwrap().shape()[0]), (2, 1));
        assert!(KvLayer::new().append(&of(1).watch(), &of(1)).is_err());
    }
}
