//! Keys and values of the positions already seen, so that decoding computes each only once.

use crate::error::{Error, Result};
use crate::ops::{Attention, AttentionMask};
use crate::tensor::{Tensor, tape};

/// The keys and values of every layer of a model. The caller owns it; the model only borrows it, so that one model serves many
/// sequences at once.
///
/// ```
/// use loquat::{Tensor, nn::KvCache};
///
/// let mut cache = KvCache::new(2);
/// for layer in cache.layers_mut() {
///     layer.append(&Tensor::zeros(&[1, 3, 8]), &Tensor::zeros(&[1, 3, 8]))?;
/// }
/// assert_eq!(cache.len(), 3);
/// cache.truncate(2); // forget a draft
/// cache.reorder(&[0, 0])?; // two beams from one
/// assert_eq!(cache.layer(1).keys().map(|k| k.shape()[0]), Some(2));
/// # Ok::<(), loquat::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct KvCache {
    layers: Vec<KvLayer>,
}

impl KvCache {
    /// An empty cache that grows as needed.
    pub fn new(n_layers: usize) -> Self {
        Self::with_capacity(n_layers, 0)
    }

    /// An empty cache whose first use makes room for `positions` at once.
    pub fn with_capacity(n_layers: usize, positions: usize) -> Self {
        Self { layers: vec![KvLayer::with_capacity(positions); n_layers] }
    }

    /// The number of positions of which every layer has keys and values.
    pub fn len(&self) -> usize {
        self.layers.iter().map(KvLayer::len).min().unwrap_or(0)
    }

    /// Whether nothing was cached yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The cache of layer `i`.
    ///
    /// # Panics
    /// If there is no such layer.
    pub fn layer(&self, i: usize) -> &KvLayer {
        &self.layers[i]
    }

    /// The cache of layer `i`, to be appended to.
    ///
    /// # Panics
    /// If there is no such layer.
    pub fn layer_mut(&mut self, i: usize) -> &mut KvLayer {
        &mut self.layers[i]
    }

    /// The cache of each layer in turn.
    pub fn layers_mut(&mut self) -> impl Iterator<Item = &mut KvLayer> {
        self.layers.iter_mut()
    }

    /// The number of layers.
    pub fn n_layers(&self) -> usize {
        self.layers.len()
    }

    /// Forgets the positions from `len` on, and keeps the memory.
    pub fn truncate(&mut self, len: usize) {
        self.layers.iter_mut().for_each(|layer| layer.truncate(len));
    }

    /// Forgets everything, and keeps the memory if the next sequences are as many.
    pub fn clear(&mut self) {
        self.truncate(0);
    }

    /// Sequence `i` becomes what sequence `rows[i]` was, as beams need it; there may be more or fewer of them than before.
    ///
    /// # Errors
    /// [`Error::Id`] if there is no such sequence.
    pub fn reorder(&mut self, rows: &[usize]) -> Result<()> {
        self.layers.iter_mut().try_for_each(|layer| layer.reorder(rows))
    }
}

/// The keys and values of one layer.
#[derive(Clone, Debug, Default)]
pub struct KvLayer {
    /// `[batch, capacity, n_kv_heads · head_dim]` each, of which the first `len` positions are filled.
    stored: Option<(Tensor, Tensor)>,
    len: usize,
    capacity: usize,
}

/// Room for this many positions is made at first.
const FIRST_CAPACITY: usize = 32;

impl KvLayer {
    /// An empty cache that grows as needed.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty cache whose first use makes room for `positions`.
    pub fn with_capacity(positions: usize) -> Self {
        Self { stored: None, len: 0, capacity: positions }
    }

    /// The number of positions.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The keys, `[batch, capacity, n_kv_heads · head_dim]`, filled up to [`KvLayer::len`].
    pub fn keys(&self) -> Option<&Tensor> {
        self.stored.as_ref().map(|(keys, _)| keys)
    }

    /// The values, as [`KvLayer::keys`].
    pub fn values(&self) -> Option<&Tensor> {
        self.stored.as_ref().map(|(_, values)| values)
    }

    /// Adds the keys and values of the next positions.
    ///
    /// # Shapes
    /// `key` and `value`: `[batch, new positions, n_kv_heads · head_dim]`; the last axes may differ.
    ///
    /// # Errors
    /// [`Error::Shape`] if batch or width are not those of the positions before; [`Error::NoGradient`] if an input needs a gradient.
    pub fn append(&mut self, key: &Tensor, value: &Tensor) -> Result<()> {
        tape::refuse("kv_cache append", &[key, value])?;
        let (&[batch, new, key_width], &[value_batch, value_len, value_width]) = (key.shape(), value.shape()) else {
            return Err(Error::shape("kv_cache", "[batch, positions, width] for key and value", key.shape()));
        };
        if (value_batch, value_len) != (batch, new) {
            return Err(Error::shape("kv_cache value", format!("[{batch}, {new}, …]"), value.shape()));
        }
        if self.is_empty() && self.stored.as_ref().is_some_and(|(k, v)| !fits(k, key) || !fits(v, value)) {
            self.stored = None;
        }
        let len = self.len + new;
        let (keys, values) = self.stored.get_or_insert_with(|| {
            let room = self.capacity.max(len).max(FIRST_CAPACITY);
            (Tensor::zeros(&[batch, room, key_width]), Tensor::zeros(&[batch, room, value_width]))
        });
        for (stored, new, what) in [(keys, key, "kv_cache key"), (values, value, "kv_cache value")] {
            if !fits(stored, new) {
                let (batch, width) = (stored.shape()[0], stored.shape()[2]);
                return Err(Error::shape(what, format!("[{batch}, positions, {width}]"), new.shape()));
            }
            let room = stored.shape()[1];
            if len > room {
                *stored = resized(stored, (0..batch).collect(), self.len, len.max(2 * room));
            }
            write_positions(stored, new, self.len);
        }
        self.len = len;
        Ok(())
    }

    /// [`KvLayer::append`], then attention of `query` over everything cached: the layer's step in decoding.
    ///
    /// # Shapes
    /// `query: [batch, new positions, n_heads · head_dim]` and so the result.
    ///
    /// # Errors
    /// As for [`KvLayer::append`] and [`Attention::forward`].
    pub fn attend(
        &mut self,
        attention: &Attention,
        query: &Tensor,
        key: &Tensor,
        value: &Tensor,
        mask: &AttentionMask,
    ) -> Result<Tensor> {
        self.append(key, value)?;
        self.look_up(attention, query, mask)
    }

    /// Attention of `query` over what is cached, as cross-attention needs it at each step.
    ///
    /// # Shapes
    /// `query: [batch, queries, n_heads · head_dim]` and so the result.
    ///
    /// # Errors
    /// [`Error::Argument`] if nothing is cached; as for [`Attention::forward`].
    pub fn look_up(&self, attention: &Attention, query: &Tensor, mask: &AttentionMask) -> Result<Tensor> {
        match &self.stored {
            Some((keys, values)) => attention.forward_cached(query, keys, values, self.len, mask),
            None => Err(Error::argument("kv_cache", "keys and values", "none")),
        }
    }

    /// Forgets the positions from `len` on.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    /// Sequence `i` becomes what sequence `rows[i]` was.
    ///
    /// # Errors
    /// [`Error::Id`] if there is no such sequence.
    pub fn reorder(&mut self, rows: &[usize]) -> Result<()> {
        let Some((keys, values)) = &mut self.stored else { return Ok(()) };
        let (batch, room) = (keys.shape()[0], keys.shape()[1]);
        if let Some(&row) = rows.iter().find(|&&row| row >= batch) {
            return Err(Error::Id { what: "kv_cache sequence".into(), id: row as u64, limit: batch });
        }
        if !rows.iter().copied().eq(0..batch) {
            *keys = resized(keys, rows.to_vec(), self.len, room);
            *values = resized(values, rows.to_vec(), self.len, room);
        }
        Ok(())
    }
}

/// Whether `new` has the sequences and the width of `stored`.
fn fits(stored: &Tensor, new: &Tensor) -> bool {
    (stored.shape()[0], stored.shape()[2]) == (new.shape()[0], new.shape()[2])
}

/// The first `len` positions of the sequences `rows`, with room for `room` positions.
fn resized(stored: &Tensor, rows: Vec<usize>, len: usize, room: usize) -> Tensor {
    let (old_room, width) = (stored.shape()[1], stored.shape()[2]);
    let mut y = Tensor::zeros(&[rows.len(), room, width]);
    for (y, row) in y.make_mut().chunks_mut((room * width).max(1)).zip(rows) {
        y[..len * width].copy_from_slice(&stored.data()[row * old_room * width..][..len * width]);
    }
    y
}

/// Writes the positions of `new` from position `at` on.
fn write_positions(stored: &mut Tensor, new: &Tensor, at: usize) {
    let (room, width, count) = (stored.shape()[1], stored.shape()[2], new.shape()[1]);
    let run = count * width;
    if run == 0 {
        return;
    }
    for (stored, new) in stored.make_mut().chunks_mut(room * width).zip(new.data().chunks(run)) {
        stored[at * width..][..run].copy_from_slice(new);
    }
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
        let x = Tensor::normal(&[2, 80, 3], 1.0, &mut Rng::seed(1));
        let mut layer = KvLayer::new();
        let mut at = 0;
        for step in [5, 1, 30, 1, 40, 3] {
            let new = x.narrow(1, at, step).unwrap();
            layer.append(&new, &new.scale(2.0)).unwrap();
            at += step;
        }
        assert_eq!(layer.len(), 80);
        for row in 0..2 {
            assert_eq!(positions(layer.keys().unwrap(), row, 80), x.data()[row * 240..][..240]);
            assert_eq!(positions(layer.values().unwrap(), row, 80), x.scale(2.0).data()[row * 240..][..240]);
        }
    }

    #[test]
    fn truncated_positions_are_written_again_and_rows_move() {
        let x = Tensor::normal(&[2, 4, 3], 1.0, &mut Rng::seed(1));
        let mut layer = KvLayer::with_capacity(4);
        layer.append(&x, &x).unwrap();
        layer.truncate(1);
        layer.append(&x.narrow(1, 3, 1).unwrap(), &x.narrow(1, 3, 1).unwrap()).unwrap();
        layer.reorder(&[1, 1, 0]).unwrap();
        let keys = layer.keys().unwrap();
        assert_eq!((keys.shape(), layer.len()), (&[3, 32, 3][..], 2));
        for (row, from) in [(0, 1), (1, 1), (2, 0)] {
            let row_of_x = &x.data()[from * 12..][..12];
            assert_eq!(positions(keys, row, 2), [&row_of_x[..3], &row_of_x[9..]].concat());
        }
        assert!(layer.reorder(&[3]).is_err());
    }

    #[test]
    fn an_emptied_cache_takes_another_batch() {
        let mut cache = KvCache::new(1);
        let of = |batch| Tensor::zeros(&[batch, 2, 3]);
        cache.layer_mut(0).append(&of(2), &of(2)).unwrap();
        assert!(cache.layer_mut(0).append(&of(1), &of(1)).is_err());
        assert!(cache.layer_mut(0).append(&of(2), &Tensor::zeros(&[2, 1, 3])).is_err());
        assert_eq!(cache.len(), 2);
        cache.clear();
        cache.layer_mut(0).append(&of(1), &of(1)).unwrap();
        assert_eq!((cache.len(), cache.layer(0).keys().unwrap().shape()[0]), (2, 1));
        assert!(KvLayer::new().append(&of(1).watch(), &of(1)).is_err());
    }
}
