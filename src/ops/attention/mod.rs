//! Multi-head scaled dot-product attention (Vaswani et al. 2017, "Attention is all you need").
//!
//! | file | content |
//! |---|---|
//! | [`mask`] | [`AttentionMask`] |
//! | `fused` | calls of the kernel, which does not store a matrix of scores |
//! | `paged` | calls of the kernel over a cache whose positions are in pages |
//! | `composed` | small operations, for what the kernel does not support |

mod composed;
mod fused;
pub(crate) mod mask;
pub(crate) mod paged;

#[cfg(test)]
mod tests;

pub use mask::AttentionMask;

use crate::error::{Error, Result};
use crate::ops::inspect;
use crate::tensor::{Tensor, tape};
use fused::{Fused, Gradients, Place};

/// The settings of a scaled dot-product attention without projections.
///
/// ```text
/// scores = q·kᵀ · scale + mask,   probs = softmax(scores),   output = probs·v
/// ```
///
/// for each head; a head is `head_dim` adjacent columns of `[batch, seq_len, n_heads · head_dim]`.
/// Keys and values may have fewer heads, each shared by a group of adjacent query heads (Ainslie et
/// al. 2023, "GQA"). An [`AttentionMask`] limits the keys of each query.
///
/// ```
/// use loquat::{Rng, Tensor, ops::{Attention, AttentionMask}};
///
/// let x = Tensor::normal(&[2, 5, 12], 1.0, &mut Rng::seed(1));
/// let y = Attention::new(3).forward(&x, &x, &x, &AttentionMask::causal())?;
/// assert_eq!(y.shape(), [2, 5, 12]);
/// // The first token attends only to itself.
/// assert!(y.data()[..12].iter().zip(x.data()).all(|(y, x)| (y - x).abs() < 1e-6));
/// # Ok::<(), loquat::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Attention {
    /// The number of query heads.
    pub n_heads: usize,
    /// The number of key and value heads, a divisor of `n_heads`.
    pub n_kv_heads: usize,
    /// The factor of the scores. Default: `1/√head_dim`.
    pub scale: Option<f32>,
    /// Dropout of the probabilities: the dropout probability, in `[0, 1)`, and the key of the
    /// random numbers. Default: none.
    pub dropout: Option<(f32, u64)>,
    /// Caps scores to `softcap · tanh(scores / softcap)`, before the mask (Gemma 2, Riviere et al.
    /// 2024). Default: none.
    pub softcap: Option<f32>,
    /// A learned logit for each query head, `[n_heads]`, which takes part in the softmax but has no
    /// value, so that the probabilities of a row sum to less than one (Xiao et al. 2023, "Efficient
    /// streaming language models with attention sinks"; gpt-oss). Default: none.
    pub sinks: Option<Tensor>,
}

/// Sequences of equal length, for [`Attention::forward_spans`].
#[derive(Clone, Debug)]
pub(crate) struct Span {
    /// The number of sequences.
    pub sequences: usize,
    /// The length of each sequence, in positions.
    pub len: usize,
    /// The mask of each sequence.
    pub mask: AttentionMask,
}

/// Larger numbers of heads are a mistake in a configuration.
const MOST_HEADS: usize = 1 << 16;

/// Lengths of the axes.
#[derive(Clone, Copy)]
struct Dims {
    n_heads: usize,
    n_kv_heads: usize,
    batch: usize,
    queries: usize,
    keys: usize,
    head_dim: usize,
    value_dim: usize,
    scale: f32,
}

impl Attention {
    /// Returns settings with `n_heads` heads of queries, keys and values, the default scale and no
    /// dropout.
    pub fn new(n_heads: usize) -> Self {
        Self { n_heads, n_kv_heads: n_heads, scale: None, dropout: None, softcap: None, sinks: None }
    }

    /// Computes attention. Memory is linear in the lengths, unless values are wider than keys or a
    /// bias requires a gradient: these need the whole matrix of probabilities.
    ///
    /// # Shapes
    /// `query: [batch, queries, n_heads · head_dim]`, `key: [batch, keys, n_kv_heads · head_dim]`,
    /// `value: [batch, keys, n_kv_heads · value_dim]` → `[batch, queries, n_heads · value_dim]`.
    ///
    /// # Errors
    /// [`Error::Shape`] if the shapes or the mask do not match; [`Error::Argument`] if the numbers
    /// of heads or columns are not divisible.
    pub fn forward(&self, query: &Tensor, key: &Tensor, value: &Tensor, mask: &AttentionMask) -> Result<Tensor> {
        let dims = self.dims(query, key, value)?;
        let mask = mask.resolve(dims.batch, dims.n_heads, dims.queries, dims.keys)?;
        inspect::attention(|| composed::probs(self, &dims, &query.detach(), &key.detach(), &mask))?;
        if !Fused::supports(&dims, &mask, self) {
            return Ok(composed::attention(self, &dims, query, key, value, &mask)?.0);
        }
        let inputs = [query, key, value];
        let fused = Fused::new(dims, mask, self.dropout);
        let places = inputs.map(|x| Place { first: 0, batch: x.shape()[1] * x.last_dim(), row: x.last_dim() });
        let (y, lse) = fused.forward(inputs.map(Tensor::data), places, tape::is_recording(&inputs));
        let saved = y.clone();
        Ok(tape::record("attention", &inputs, y, || {
            let inputs = inputs.map(Tensor::detach);
            Box::new(move |dy, _| {
                let data = inputs.each_ref().map(Tensor::data);
                let [mut dq, mut dk, mut dv] = inputs.each_ref().map(|x| fused.gradient_of(x));
                let gradients = Gradients::Apart([&mut dq, &mut dk, &mut dv].map(Tensor::make_mut));
                fused.backward(data, places, &dy, &saved, &lse, gradients);
                Ok(vec![Some(dq), Some(dk), Some(dv)])
            })
        }))
    }

    /// Same as [`Attention::forward`], and also returns the probabilities (before dropout), all of
    /// which are kept in memory.
    ///
    /// # Shapes
    /// Same as [`Attention::forward`]; the probabilities are `[batch, n_heads, queries, keys]`.
    ///
    /// # Errors
    /// Same as [`Attention::forward`].
    pub fn with_probs(
        &self,
        query: &Tensor,
        key: &Tensor,
        value: &Tensor,
        mask: &AttentionMask,
    ) -> Result<(Tensor, Tensor)> {
        let dims = self.dims(query, key, value)?;
        let mask = mask.resolve(dims.batch, dims.n_heads, dims.queries, dims.keys)?;
        let (y, probs) = composed::attention(self, &dims, query, key, value, &mask)?;
        inspect::attention(|| Ok(probs.clone()))?;
        Ok((y, probs))
    }

    /// Computes self-attention from the output of one projection: each row is the concatenation of
    /// the query, the key and the value of a position.
    ///
    /// # Shapes
    /// `qkv: [batch, seq_len, (n_heads + 2 · n_kv_heads) · head_dim]` →
    /// `[batch, seq_len, n_heads · head_dim]`.
    ///
    /// # Errors
    /// Same as [`Attention::forward`].
    pub fn forward_packed(&self, qkv: &Tensor, mask: &AttentionMask) -> Result<Tensor> {
        let heads = self.n_kv_heads.checked_mul(2).and_then(|both| both.checked_add(self.n_heads));
        let heads = heads.ok_or_else(|| {
            Error::argument("attention heads", "a number of heads that divides the width", self.n_heads)
        })?;
        let &[batch, len, width] = qkv.shape() else {
            return Err(Error::shape("attention", "[batch, seq_len, width]", qkv.shape()));
        };
        if heads == 0 || width % heads != 0 {
            return Err(Error::shape("attention", format!("[{batch}, {len}, {heads} · head_dim]"), qkv.shape()));
        }
        let widths @ [q, k, v] = [self.n_heads, self.n_kv_heads, self.n_kv_heads].map(|n| width / heads * n);
        let dims = self.checked(batch, [len, len], widths)?;
        let resolved = mask.resolve(batch, dims.n_heads, len, len)?;
        if !Fused::supports(&dims, &resolved, self) || !resolved.starts_at_once() {
            return self.forward(&qkv.narrow(-1, 0, q)?, &qkv.narrow(-1, q, k)?, &qkv.narrow(-1, q + k, v)?, mask);
        }
        inspect::attention(|| {
            let qkv = qkv.detach();
            composed::probs(self, &dims, &qkv.narrow(-1, 0, q)?, &qkv.narrow(-1, q, k)?, &resolved)
        })?;
        let fused = Fused::new(dims, resolved, self.dropout);
        let places = [0, q, q + k].map(|first| Place { first, batch: len * width, row: width });
        let (y, lse) = fused.forward([qkv.data(); 3], places, tape::is_recording(&[qkv]));
        let saved = y.clone();
        Ok(tape::record("attention", &[qkv], y, || {
            let qkv = qkv.detach();
            Box::new(move |dy, _| {
                let mut dqkv = fused.gradient_of(&qkv);
                let gradients = Gradients::Packed(dqkv.make_mut(), widths);
                fused.backward([qkv.data(); 3], places, &dy, &saved, &lse, gradients);
                Ok(vec![Some(dqkv)])
            })
        }))
    }

    /// Computes self-attention of concatenated sequences of any lengths, without padding; each has
    /// the same bits as in a call of its own. Without gradients.
    ///
    /// # Shapes
    /// `query: [total, n_heads · head_dim]`, `key`, `value: [total, n_kv_heads · head_dim]`, where
    /// `total` is the sum over the spans → `[total, n_heads · head_dim]`.
    ///
    /// # Errors
    /// Same as [`Attention::forward`]; [`Error::NoGradient`] if an input needs a gradient.
    pub(crate) fn forward_spans(&self, query: &Tensor, key: &Tensor, value: &Tensor, spans: &[Span]) -> Result<Tensor> {
        let inputs = [query, key, value];
        tape::refuse("attention over spans", &inputs)?;
        let total = spans.iter().try_fold(0usize, |sum, s| s.sequences.checked_mul(s.len)?.checked_add(sum));
        if let Some(x) = inputs.iter().find(|x| x.rank() != 2 || Some(x.shape()[0]) != total) {
            let expected = format!("[{}, width]", total.unwrap_or(usize::MAX));
            return Err(Error::shape("attention over spans", expected, x.shape()));
        }
        // Each span writes its rows.
        let mut y = Tensor::write(&[query.shape()[0], query.last_dim()], |_| {});
        let mut start = 0;
        for Span { sequences, len, mask } in spans {
            let rows = sequences * len;
            let dims = self.checked(*sequences, [*len, *len], inputs.map(Tensor::last_dim))?;
            let resolved = mask.resolve(*sequences, dims.n_heads, *len, *len)?;
            let part = |x: &Tensor| x.rows(start, rows).view(&[*sequences, *len, x.last_dim()]);
            inspect::attention(|| composed::probs(self, &dims, &part(query), &part(key), &resolved))?;
            let width = query.last_dim();
            let out = &mut y.make_mut()[start * width..(start + rows) * width];
            if Fused::supports(&dims, &resolved, self) {
                let places =
                    inputs.map(|x| Place { first: start * x.last_dim(), batch: len * x.last_dim(), row: x.last_dim() });
                Fused::new(dims, resolved, self.dropout).forward_into(inputs.map(Tensor::data), places, out, None);
            } else {
                let (part, _) = composed::attention(self, &dims, &part(query), &part(key), &part(value), &resolved)?;
                out.copy_from_slice(part.data());
            }
            start += rows;
        }
        Ok(y)
    }

    /// Computes attention of new queries over the first `len` positions of a cache, whose capacity
    /// may be larger; without gradients.
    ///
    /// # Shapes
    /// Same as [`Attention::forward`]; `keys` and `values` have at least `len` positions.
    ///
    /// # Errors
    /// Same as [`Attention::forward`]; [`Error::NoGradient`] if an input requires a gradient.
    pub(crate) fn forward_cached(
        &self,
        query: &Tensor,
        keys: &Tensor,
        values: &Tensor,
        len: usize,
        mask: &AttentionMask,
    ) -> Result<Tensor> {
        let inputs = [query, keys, values];
        tape::refuse("attention over a cache", &inputs)?;
        if let Some(x) = inputs.iter().find(|x| x.rank() != 3 || x.shape()[0] != query.shape()[0]) {
            return Err(Error::shape("attention over a cache", "[batch, positions, width]", x.shape()));
        }
        if let Some(x) = [keys, values].iter().find(|x| x.shape()[1] < len) {
            return Err(Error::shape("attention over a cache", format!("at least {len} positions"), x.shape()));
        }
        let (batch, queries) = (query.shape()[0], query.shape()[1]);
        let dims = self.checked(batch, [queries, len], inputs.map(Tensor::last_dim))?;
        let resolved = mask.resolve(batch, dims.n_heads, queries, len)?;
        if !Fused::supports(&dims, &resolved, self) {
            return self.forward(query, &keys.narrow(1, 0, len)?, &values.narrow(1, 0, len)?, mask);
        }
        inspect::attention(|| composed::probs(self, &dims, query, &keys.narrow(1, 0, len)?, &resolved))?;
        let places = inputs.map(|x| Place { first: 0, batch: x.shape()[1] * x.last_dim(), row: x.last_dim() });
        Ok(Fused::new(dims, resolved, self.dropout).forward(inputs.map(Tensor::data), places, false).0)
    }

    fn dims(&self, query: &Tensor, key: &Tensor, value: &Tensor) -> Result<Dims> {
        let &[batch, queries, q_width] = query.shape() else {
            return Err(Error::shape("attention query", "[batch, queries, n_heads · head_dim]", query.shape()));
        };
        let (keys, k_width) = match *key.shape() {
            [b, keys, width] if b == batch => (keys, width),
            _ => return Err(Error::shape("attention key", format!("[{batch}, keys, width]"), key.shape())),
        };
        let v_width = match *value.shape() {
            [b, s, width] if (b, s) == (batch, keys) => width,
            _ => return Err(Error::shape("attention value", format!("[{batch}, {keys}, width]"), value.shape())),
        };
        self.checked(batch, [queries, keys], [q_width, k_width, v_width])
    }

    fn checked(&self, batch: usize, [queries, keys]: [usize; 2], [q, k, v]: [usize; 3]) -> Result<Dims> {
        let &Self { n_heads, n_kv_heads, .. } = self;
        if n_kv_heads == 0 || n_heads % n_kv_heads != 0 {
            let expected = format!("a divisor of the {n_heads} query heads");
            return Err(Error::argument("attention key/value heads", expected, n_kv_heads));
        }
        if n_heads == 0 || q % n_heads != 0 {
            return Err(Error::argument("attention heads", format!("a divisor of the width {q}"), n_heads));
        }
        // A width of 0 is divisible by every number.
        if n_heads > q.max(MOST_HEADS) {
            return Err(Error::argument("attention heads", format!("at most {MOST_HEADS} of no width"), n_heads));
        }
        let head_dim = q / n_heads;
        if k != n_kv_heads * head_dim {
            let expected = format!("[{batch}, {keys}, {n_kv_heads} · {head_dim}]");
            return Err(Error::shape("attention key", expected, [batch, keys, k]));
        }
        if v % n_kv_heads != 0 {
            let expected = format!("[{batch}, {keys}, a multiple of {n_kv_heads}]");
            return Err(Error::shape("attention value", expected, [batch, keys, v]));
        }
        if let Some(cap) = self.softcap.filter(|cap| !(cap.is_finite() && *cap > 0.0)) {
            return Err(Error::argument("attention softcap", "a number above 0", cap));
        }
        if let Some(sinks) = self.sinks.as_ref().filter(|sinks| sinks.shape() != [n_heads]) {
            return Err(Error::shape("attention sinks", format!("[{n_heads}]"), sinks.shape()));
        }
        let scale = self.scale.unwrap_or(1.0 / (head_dim.max(1) as f32).sqrt());
        Ok(Dims { n_heads, n_kv_heads, batch, queries, keys, head_dim, value_dim: v / n_kv_heads, scale })
    }
}
