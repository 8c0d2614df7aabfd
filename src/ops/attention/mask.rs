//! Which keys a query may attend to.

use std::ops::Range;

use crate::error::{Error, Result};
use crate::tensor::{IdTensor, Tensor};

/// Which keys a query may attend to; parts combine with [`AttentionMask::and`].
///
/// A query whose every key is masked attends to nothing: its output is zero (PyTorch's is not a number).
///
/// ```
/// use loquat::{IdTensor, ops::AttentionMask};
///
/// // Two sequences, the second padded by two tokens, read from left to right.
/// let attention_mask = IdTensor::batch(&[[1, 1, 1, 1], [1, 1, 0, 0]])?;
/// let mask = AttentionMask::causal().and(&AttentionMask::padding(&attention_mask));
/// # let _ = mask;
/// # Ok::<(), loquat::Error>(())
/// ```
#[derive(Clone, Default)]
pub struct AttentionMask {
    causal: bool,
    window: Option<usize>,
    padding: Vec<IdTensor>,
    allowed: Vec<IdTensor>,
    additive: Vec<Tensor>,
}

impl std::fmt::Debug for AttentionMask {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { causal, window, padding, allowed, additive } = self;
        let window = window.filter(|_| *causal).map(|window| format!("window={window}"));
        let parts = [
            (*causal && window.is_none()).then(|| "causal".to_string()),
            window,
            (!padding.is_empty()).then(|| "padding".to_string()),
            (!allowed.is_empty()).then(|| "allowed".to_string()),
            (!additive.is_empty()).then(|| "additive".to_string()),
        ];
        write!(f, "AttentionMask({})", parts.into_iter().flatten().collect::<Vec<_>>().join(", "))
    }
}

impl AttentionMask {
    /// Every query attends to every key.
    pub fn none() -> Self {
        Self::default()
    }

    /// A query attends to its own position and those before. Queries are the *last* positions of the keys: of `T` queries and `S` keys,
    /// query `t` sees the keys up to `t + S - T`, which is what decoding over a cache needs.
    pub fn causal() -> Self {
        Self { causal: true, ..Self::default() }
    }

    /// As [`AttentionMask::causal`], and a query sees `window` keys at most: its own position and those just before (Beltagy et
    /// al. 2020).
    pub fn sliding_window(window: usize) -> Self {
        Self { causal: true, window: Some(window), ..Self::default() }
    }

    /// Keys with 0 are padding, those with another number are not: the tokenizer's `attention_mask`, `[batch, keys]`.
    ///
    /// Padding on either side is not just masked but left out: a sequence has the same bits alone and in a padded batch.
    pub fn padding(attention_mask: &IdTensor) -> Self {
        Self { padding: vec![attention_mask.clone()], ..Self::default() }
    }

    /// Any set of pairs: a query attends to a key where `allowed` is not 0. `[queries, keys]` for all, `[batch, queries, keys]`, or
    /// `[batch, heads, queries, keys]`; an axis of length 1 repeats.
    pub fn allowed(allowed: &IdTensor) -> Self {
        Self { allowed: vec![allowed.clone()], ..Self::default() }
    }

    /// Numbers added to the scores before the softmax, shaped as for [`AttentionMask::allowed`]; gradients flow to them.
    pub fn additive(bias: &Tensor) -> Self {
        Self { additive: vec![bias.clone()], ..Self::default() }
    }

    /// Allows what both allow, and adds what both add.
    pub fn and(&self, other: &Self) -> Self {
        let join = |a: &[IdTensor], b: &[IdTensor]| a.iter().chain(b).cloned().collect();
        Self {
            causal: self.causal || other.causal,
            window: self.window.into_iter().chain(other.window).min(),
            padding: join(&self.padding, &other.padding),
            allowed: join(&self.allowed, &other.allowed),
            additive: self.additive.iter().chain(&other.additive).cloned().collect(),
        }
    }

    /// Whether only the order of the positions says what is seen.
    pub(crate) fn is_order(&self) -> bool {
        self.padding.is_empty() && self.allowed.is_empty() && self.additive.is_empty()
    }

    /// Whether later keys are masked.
    pub(crate) fn is_causal(&self) -> bool {
        self.causal
    }

    /// The mask for given numbers of sequences, heads, queries and keys.
    pub(crate) fn resolve(&self, batch: usize, heads: usize, queries: usize, keys: usize) -> Result<Resolved> {
        if self.causal && queries > keys {
            return Err(Error::shape("causal attention", format!("at most {keys} queries, one per key"), [queries]));
        }
        if self.window == Some(0) {
            return Err(Error::argument("attention window", "at least 1", 0));
        }
        let mut resolved = Resolved {
            dims: [batch, heads, queries, keys],
            causal: self.causal.then(|| keys - queries),
            window: self.window,
            ranges: vec![0..keys; batch],
            key_mask: None,
            bias: None,
        };
        for mask in &self.padding {
            if mask.shape() != [batch, keys] {
                return Err(Error::shape("padding mask", format!("[{batch}, {keys}]"), mask.shape()));
            }
            let mut holes = false;
            for (range, row) in resolved.ranges.iter_mut().zip(mask.data().chunks(keys.max(1))) {
                let start = row.iter().position(|&m| m != 0).unwrap_or(0);
                let end = row.iter().rposition(|&m| m != 0).map_or(0, |last| last + 1);
                holes |= row[start..end.max(start)].contains(&0);
                *range = range.start.max(start)..range.end.min(end);
                range.end = range.end.max(range.start);
            }
            if holes {
                let seen = resolved.key_mask.get_or_insert_with(|| vec![true; batch * keys]);
                seen.iter_mut().zip(mask.data()).for_each(|(seen, &m)| *seen &= m != 0);
            }
        }
        for mask in &self.allowed {
            let shape = resolved.shape_of("attention mask", mask.shape())?;
            resolved.add(closed(mask, &shape))?;
        }
        for bias in &self.additive {
            let shape = resolved.shape_of("attention bias", bias.shape())?;
            resolved.add(bias.reshape(&shape)?)?;
        }
        if resolved.bias.is_some() && !resolved.starts_at_once() {
            // A bias is one matrix for every sequence: padding before a sequence stays in it, masked.
            let seen = resolved.key_mask.get_or_insert_with(|| vec![true; batch * keys]);
            for (range, seen) in resolved.ranges.iter_mut().zip(seen.chunks_mut(keys)) {
                seen[..range.start].fill(false);
                range.start = 0;
            }
        }
        Ok(resolved)
    }
}

/// 0 where the mask is not 0, and -∞ where it is.
fn closed(mask: &IdTensor, shape: &[usize]) -> Tensor {
    Tensor::write(shape, |y| {
        for (y, &m) in y.iter_mut().zip(mask.data()) {
            *y = if m == 0 { f32::NEG_INFINITY } else { 0.0 };
        }
    })
}

/// A mask for known shapes.
#[derive(Clone, Debug)]
pub(crate) struct Resolved {
    /// Sequences, heads, queries, keys.
    dims: [usize; 4],
    /// Query `t` sees the keys up to `t +` this.
    pub(crate) causal: Option<usize>,
    /// It sees as many keys at most; with `causal` only.
    pub(crate) window: Option<usize>,
    /// The keys of each sequence without the padding around them. Where there is a bias, all start at 0.
    pub(crate) ranges: Vec<Range<usize>>,
    /// Which keys are seen, `[batch, keys]`, if there is padding between others.
    pub(crate) key_mask: Option<Vec<bool>>,
    /// Added to the scores; four axes, each of full length or 1.
    pub(crate) bias: Option<Tensor>,
}

impl Resolved {
    /// Whether no sequence has padding before it.
    pub(crate) fn starts_at_once(&self) -> bool {
        self.ranges.iter().all(|range| range.start == 0)
    }

    /// A mask's shape with all four axes.
    fn shape_of(&self, what: &str, shape: &[usize]) -> Result<[usize; 4]> {
        let [batch, heads, queries, keys] = self.dims;
        let full = match *shape {
            [t, s] => [1, 1, t, s],
            [b, t, s] => [b, 1, t, s],
            [b, h, t, s] => [b, h, t, s],
            _ => [0; 4],
        };
        if full.iter().zip(self.dims).all(|(&d, full)| d == full || d == 1) && (2..=4).contains(&shape.len()) {
            Ok(full)
        } else {
            let expected =
                format!("[{queries}, {keys}], [{batch}, {queries}, {keys}] or [{batch}, {heads}, {queries}, {keys}]");
            Err(Error::shape(what, expected, shape))
        }
    }

    fn add(&mut self, bias: Tensor) -> Result<()> {
        self.bias = Some(match self.bias.take() {
            Some(sum) => sum.add(&bias)?,
            None => bias,
        });
        Ok(())
    }

    /// Everything as one term to add to the scores, `None` if nothing is masked.
    pub(crate) fn dense(&self) -> Result<Option<Tensor>> {
        let [batch, _, queries, keys] = self.dims;
        let mut all = self.bias.clone();
        let mut hide = |shape: &[usize], hidden: &dyn Fn(usize, usize) -> bool| {
            let term = Tensor::write(shape, |y| {
                for (i, row) in y.chunks_mut(keys.max(1)).enumerate() {
                    for (key, y) in row.iter_mut().enumerate() {
                        *y = if hidden(i, key) { f32::NEG_INFINITY } else { 0.0 };
                    }
                }
            });
            all = Some(match all.take() {
                Some(sum) => sum.add(&term)?,
                None => term,
            });
            Ok::<(), Error>(())
        };
        if let Some(offset) = self.causal {
            let window = self.window.unwrap_or(usize::MAX);
            hide(&[1, 1, queries, keys], &|query, key| key > query + offset || query + offset - key >= window)?;
        }
        if self.ranges.iter().any(|range| *range != (0..keys)) || self.key_mask.is_some() {
            let seen = |b: usize, key| self.key_mask.as_ref().is_none_or(|seen| seen[b * keys + key]);
            hide(&[batch, 1, 1, keys], &|b, key| !self.ranges[b].contains(&key) || !seen(b, key))?;
        }
        Ok(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(mask: &AttentionMask, batch: usize, queries: usize, keys: usize) -> Vec<f32> {
        mask.resolve(batch, 2, queries, keys).unwrap().dense().unwrap().unwrap().to_vec()
    }

    const X: f32 = f32::NEG_INFINITY;

    #[test]
    fn causal_queries_are_the_last_keys() {
        assert_eq!(rows(&AttentionMask::causal(), 1, 2, 3), [0.0, 0.0, X, 0.0, 0.0, 0.0]);
        assert!(AttentionMask::causal().resolve(1, 1, 3, 2).is_err());
        assert_eq!(rows(&AttentionMask::sliding_window(2), 1, 2, 3), [0.0, 0.0, X, X, 0.0, 0.0]);
        assert!(AttentionMask::sliding_window(0).resolve(1, 1, 1, 2).is_err());
    }

    #[test]
    fn padding_around_becomes_a_range_and_padding_inside_a_mask() {
        let mask = IdTensor::batch(&[[0, 1, 1, 0], [1, 0, 1, 1], [0, 0, 0, 0]]).unwrap();
        let resolved = AttentionMask::padding(&mask).resolve(3, 2, 5, 4).unwrap();
        assert_eq!(resolved.ranges, [1..3, 0..4, 0..0]);
        assert!(resolved.bias.is_none() && resolved.key_mask.is_some());
        let expected = [X, 0.0, 0.0, X, 0.0, X, 0.0, 0.0, X, X, X, X];
        assert_eq!(resolved.dense().unwrap().unwrap().to_vec(), expected);
    }

    #[test]
    fn parts_combine() {
        let allowed = AttentionMask::allowed(&IdTensor::batch(&[[0, 1], [1, 1]]).unwrap());
        let bias = AttentionMask::additive(&Tensor::full(&[1, 2, 1, 1], 3.0));
        assert_eq!(rows(&AttentionMask::causal().and(&allowed), 1, 2, 2), [X, X, 0.0, 0.0]);
        assert_eq!(rows(&bias.and(&allowed), 1, 2, 2), [X, 3.0, 3.0, 3.0, X, 3.0, 3.0, 3.0]);
        assert!(AttentionMask::none().resolve(1, 1, 1, 1).unwrap().dense().unwrap().is_none());
    }

    #[test]
    fn shapes_that_do_not_fit_are_errors() {
        let ids = |shape: &[usize]| IdTensor::new(vec![1; shape.iter().product()], shape).unwrap();
        assert!(AttentionMask::padding(&ids(&[2, 3])).resolve(2, 1, 3, 4).is_err());
        for shape in [&[3][..], &[2, 4], &[3, 3, 3], &[2, 2, 2, 3, 4]] {
            assert!(AttentionMask::allowed(&ids(shape)).resolve(2, 2, 3, 4).is_err(), "{shape:?}");
        }
    }
}
