//! Scaled dot-product attention with many heads (Vaswani et al. 2017, "Attention is all you need").
//!
//! | file | what |
//! |---|---|
//! | [`mask`] | [`AttentionMask`] |
//! | `fused` | the kernel that keeps no matrix of scores |
//! | `paged` | the kernel over a cache whose positions lie in pages |
//! | `composed` | the formula in small operations, for what the kernel does not know |

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

/// The settings of an attention.
///
/// ```text
/// scores = q·kᵀ · scale + mask,   probs = softmax(scores),   output = probs·v
/// ```
///
/// for each head, a head being `head_dim` neighbouring columns of `[batch, seq_len, n_heads · head_dim]`. Keys and values may
/// have fewer heads, each shared by a group of neighbouring query heads (Ainslie et al. 2023, "GQA"). What a query may see is an
/// [`AttentionMask`].
///
/// ```
/// use loquat::{Rng, Tensor, ops::{Attention, AttentionMask}};
///
/// let x = Tensor::normal(&[2, 5, 12], 1.0, &mut Rng::seed(1));
/// let y = Attention::new(3).forward(&x, &x, &x, &AttentionMask::causal())?;
/// assert_eq!(y.shape(), [2, 5, 12]);
/// // The first token sees only itself.
/// assert!(y.data()[..12].iter().zip(x.data()).all(|(y, x)| (y - x).abs() < 1e-6));
/// # Ok::<(), loquat::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Attention {
    /// Heads of the queries.
    pub n_heads: usize,
    /// Heads of the keys and values, a divisor of `n_heads`.
    pub n_kv_heads: usize,
    /// What scores are multiplied by; `1/√head_dim` if not given.
    pub scale: Option<f32>,
    /// Dropout of the probabilities: the share that becomes zero, in `[0, 1)`, and the key of the random numbers.
    pub dropout: Option<(f32, u64)>,
    /// Replaces scores by `softcap · tanh(scores / softcap)`, before the mask (Gemma 2, Riviere et
    /// al. 2024). Default: none.
    pub softcap: Option<f32>,
    /// A learned logit for each query head, `[n_heads]`, which takes part in the softmax without
    /// adding a value: the probabilities of a row sum to less than one (Xiao et al. 2023,
    /// "Efficient streaming language models with attention sinks"; gpt-oss). Default: none.
    pub sinks: Option<Tensor>,
}

/// Sequences of one length, for [`Attention::forward_spans`].
#[derive(Clone, Debug)]
pub(crate) struct Span {
    /// How many.
    pub sequences: usize,
    /// Positions of each.
    pub len: usize,
    /// What the queries of each see.
    pub mask: AttentionMask,
}

/// More heads than any model's are a slip.
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
    /// `n_heads` heads of queries, keys and values, the usual scale, no dropout.
    pub fn new(n_heads: usize) -> Self {
        Self { n_heads, n_kv_heads: n_heads, scale: None, dropout: None, softcap: None, sinks: None }
    }

    /// Memory is linear in the lengths unless values wider than keys or a bias with a gradient need all probabilities.
    ///
    /// # Shapes
    /// `query: [batch, queries, n_heads · head_dim]`, `key: [batch, keys, n_kv_heads · head_dim]`,
    /// `value: [batch, keys, n_kv_heads · value_dim]` → `[batch, queries, n_heads · value_dim]`.
    ///
    /// # Errors
    /// [`Error::Shape`] if the shapes or the mask do not fit; [`Error::Argument`] if heads do not divide.
    pub fn forward(&self, query: &Tensor, key: &Tensor, value: &Tensor, mask: &AttentionMask) -> Result<Tensor> {
        let dims = self.dims(query, key, value)?;
        let mask = mask.resolve(dims.batch, dims.n_heads, dims.queries, dims.keys)?;
        inspect::attention(|| composed::probs(self, &dims, &query.detach(), &key.detach(), &mask))?;
        if !Fused::knows(&dims, &mask, self) {
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

    /// As [`Attention::forward`], with the probabilities (before dropout) beside: all of them in memory.
    ///
    /// # Shapes
    /// As there; the probabilities are `[batch, n_heads, queries, keys]`.
    ///
    /// # Errors
    /// As there.
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

    /// Self-attention from the output of one projection: each row is the query, the key and the value of a position, one after
    /// the other.
    ///
    /// # Shapes
    /// `qkv: [batch, seq_len, (n_heads + 2 · n_kv_heads) · head_dim]` → `[batch, seq_len, n_heads · head_dim]`.
    ///
    /// # Errors
    /// As for [`Attention::forward`].
    pub fn forward_packed(&self, qkv: &Tensor, mask: &AttentionMask) -> Result<Tensor> {
        let heads = self.n_kv_heads.checked_mul(2).and_then(|both| both.checked_add(self.n_heads));
        let heads = heads.ok_or_else(|| Error::argument("attention heads", "as many as a width has", self.n_heads))?;
        let &[batch, len, width] = qkv.shape() else {
            return Err(Error::shape("attention", "[batch, seq_len, width]", qkv.shape()));
        };
        if heads == 0 || width % heads != 0 {
            return Err(Error::shape("attention", format!("[{batch}, {len}, {heads} · head_dim]"), qkv.shape()));
        }
        let widths @ [q, k, v] = [self.n_heads, self.n_kv_heads, self.n_kv_heads].map(|n| width / heads * n);
        let dims = self.checked(batch, [len, len], widths)?;
        let resolved = mask.resolve(batch, dims.n_heads, len, len)?;
        if !Fused::knows(&dims, &resolved, self) || !resolved.starts_at_once() {
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

    /// Self-attention of sequences of any lengths, one after the other: no padding, and the bits that each has alone. Without
    /// gradients.
    ///
    /// # Shapes
    /// `query: [total, n_heads · head_dim]`, `key`, `value: [total, n_kv_heads · head_dim]`, where `total` is the sum over the spans →
    /// `[total, n_heads · head_dim]`.
    ///
    /// # Errors
    /// As for [`Attention::forward`]; [`Error::NoGradient`] if an input needs a gradient.
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
            if Fused::knows(&dims, &resolved, self) {
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

    /// Attention of new queries over the first `len` positions of a cache, which may have room for more; without gradients.
    ///
    /// # Shapes
    /// As for [`Attention::forward`], `keys` and `values` with at least `len` positions.
    ///
    /// # Errors
    /// As there; [`Error::NoGradient`] if an input needs a gradient.
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
        if !Fused::knows(&dims, &resolved, self) {
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
        // Every number divides a width of 0.
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
