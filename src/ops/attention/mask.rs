//! Attention masks: which keys a query may attend to.

use std::ops::Range;

use crate::error::{Error, Result};
use crate::tensor::{IdTensor, Tensor};

/// Which keys a query may attend to; masks are combined with [`AttentionMask::and`].
///
/// The output of a fully masked query is zero (in PyTorch it is NaN).
///
/// ```
/// use loquat::{IdTensor, ops::AttentionMask};
///
/// // Two sequences, the second padded by two tokens, with a causal mask.
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
    /// Returns a mask that masks nothing.
    pub fn none() -> Self {
        Self::default()
    }

    /// Returns the causal mask: a query attends to its own position and those before. Queries are
    /// the *last* positions of the keys: of `T` queries and `S` keys, query `t` attends to the keys
    /// up to `t + S - T`, as decoding with a cache requires.
    pub fn causal() -> Self {
        Self { causal: true, ..Self::default() }
    }

    /// Same as [`AttentionMask::causal`], but a query attends to at most `window` keys: its own
    /// position and those just before (Beltagy et al. 2020).
    pub fn sliding_window(window: usize) -> Self {
        Self { causal: true, window: Some(window), ..Self::default() }
    }

    /// Masks padding: keys where the tokenizer's `attention_mask`, `[batch, keys]`, is 0.
    ///
    /// Padding on either side is left out of the computation: a sequence has the same bits alone
    /// and in a padded batch.
    pub fn padding(attention_mask: &IdTensor) -> Self {
        Self { padding: vec![attention_mask.clone()], ..Self::default() }
    }

    /// Masks any set of pairs: a query attends to a key where `allowed` is not 0. Its shape is
    /// `[queries, keys]`, `[batch, queries, keys]` or `[batch, heads, queries, keys]`; axes of
    /// length 1 are repeated.
    pub fn allowed(allowed: &IdTensor) -> Self {
        Self { allowed: vec![allowed.clone()], ..Self::default() }
    }

    /// Returns a mask that is added to the scores before the softmax, with the shapes of
    /// [`AttentionMask::allowed`]; gradients flow to it.
    pub fn additive(bias: &Tensor) -> Self {
        Self { additive: vec![bias.clone()], ..Self::default() }
    }

    /// Combines two masks: allows the keys that both allow, and adds the numbers of both to the
    /// scores.
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

    /// Returns whether the mask depends only on the order of the positions.
    pub(crate) fn is_order(&self) -> bool {
        self.padding.is_empty() && self.allowed.is_empty() && self.additive.is_empty()
    }

    /// Returns whether later keys are masked.
    pub(crate) fn is_causal(&self) -> bool {
        self.causal
    }

    /// Resolves the mask for given numbers of sequences, heads, queries and keys.
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
            // A bias is one matrix for all sequences: padding before a sequence stays in it,
            // masked.
            let seen = resolved.key_mask.get_or_insert_with(|| vec![true; batch * keys]);
            for (range, seen) in resolved.ranges.iter_mut().zip(seen.chunks_mut(keys)) {
                seen[..range.start].fill(false);
                range.start = 0;
            }
        }
        Ok(resolved)
    }
}

/// Returns 0 where the mask is not 0, and -∞ where it is 0.
fn closed(mask: &IdTensor, shape: &[usize]) -> Tensor {
    Tensor::write(shape, |y| {
        for (y, &m) in y.iter_mut().zip(mask.data()) {
            *y = if m == 0 { f32::NEG_INFINITY } else { 0.0 };
        }
    })
}

/// A mask for known numbers of sequences, heads, queries and keys.
#[derive(Clone, Debug)]
pub(crate) struct Resolved {
    /// The numbers of sequences, heads, queries and keys.
    dims: [usize; 4],
    /// Query `t` attends to the keys up to `t + causal`.
    pub(crate) causal: Option<usize>,
    /// The largest number of keys that a query attends to; only with `causal`.
    pub(crate) window: Option<usize>,
    /// The keys of each sequence without the padding around them. If there is a bias, all ranges
    /// start at 0.
    pub(crate) ranges: Vec<Range<usize>>,
    /// The keys that are not masked, `[batch, keys]`, if there is padding between others.
    pub(crate) key_mask: Option<Vec<bool>>,
    /// Added to the scores; four axes, each of full length or 1.
    pub(crate) bias: Option<Tensor>,
}

impl Resolved {
    /// Returns whether no sequence has padding before it.
    pub(crate) fn starts_at_once(&self) -> bool {
        self.ranges.iter().all(|range| range.start == 0)
    }

    /// Returns a mask's shape with all four axes.
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

    /// Returns the whole mask as one term that is added to the scores, or `None` if nothing is
    /// masked.
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
