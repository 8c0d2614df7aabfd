//! Attention: `out = softmax(scale · Q·Kᵀ + mask) · V`, forward and backward, without the matrix of
//! scores.
//!
//! Keys are processed in blocks, with an online softmax (Milakov and Gimelshein, "Online normalizer
//! calculation for softmax", 2018; Dao et al., "FlashAttention", 2022, and "FlashAttention-2",
//! 2023). For a query with scores `s`:
//!
//! ```text
//! m ← −∞;  l ← 0;  o ← 0
//! for each block of keys {
//!     m' ← max(m, max s);  α ← exp(m − m');  p ← exp(s − m')
//!     l ← α·l + Σ p;       o ← α·o + p·V;    m ← m'
//! }
//! out = o / l;  lse = m + ln l
//! ```
//!
//! Memory is linear in the length: the forward pass stores one number per query (`lse`), from which
//! the backward pass recomputes the probabilities, block by block.
//!
//! Blocks begin at multiples of 128 keys regardless of the query, sums run in ascending order, and
//! a masked key contributes nothing: one query over a cache gives the same bits as the same row of
//! the full product, on any number of threads. The output of a fully masked query is zero, and so
//! are its gradients. The value of a masked key may be infinite or NaN: since a probability of zero
//! times it is not zero, a row that is not finite is recomputed with zeros for the masked values.
//!
//! Queries are in the lanes of the vectors: the scores are computed transposed, so that maximum and
//! sum are computed lane by lane, and the scores are already a packed factor of the second product,
//! whose other factor V is read in place. If there are few queries, keys are in the lanes instead.
//!
//! In [`Precision::Bf16`] the factors of both products are rounded when they are packed, in either
//! case in the same way.
//!
//! | file | content |
//! |---|---|
//! | `heads` | views of `[batch, length, heads, head_dim]` in wider or permuted activations |
//! | `visible` | which keys a query attends to |
//! | `products` | the products, in f32 or with factors rounded to bf16 |
//! | `softmax` | one block of the online softmax, forward and backward |
//! | `args` | the arguments of the forward pass |
//! | `forward`, `few_queries`, `backward` | the loops |
//!
//! # Examples
//!
//! ```
//! use loquat::kernels::attention::{AttentionShape, Heads, HeadsMut, attention};
//!
//! // one sequence of two tokens, one head of two numbers; the second token sees both
//! let (query, key) = ([1.0, 0.0, 0.0, 1.0], [1.0, 0.0, 0.0, 1.0]);
//! let value = [1.0, 2.0, 3.0, 4.0];
//! let mut out = [0.0; 4];
//! let shape = AttentionShape { causal: true, ..AttentionShape::new(1, 1, 2, 2, 2) };
//! let view = |x| Heads::rows(x, 2, 1, 2);
//! let rows = HeadsMut::rows(&mut out, 2, 1, 2);
//! attention(&shape, view(&query), view(&key), view(&value), rows, None);
//! assert_eq!(out[..2], [1.0, 2.0]);
//! assert!(out[2] > 2.0 && out[2] < 3.0);
//! ```

mod args;
mod backward;
mod few_queries;
mod forward;
mod heads;
mod products;
mod softmax;
mod visible;

#[cfg(test)]
mod tests;

pub use heads::{Heads, HeadsMut, PAGE};
pub use visible::Mask;

use super::extent::size;
use super::gemm::Precision;
use super::gemm::micro::{KernelOp, MicroKernel, with_kernel};
use products::{Products, ProductsOp, with_products};

/// The shape and the masks of an attention.
///
/// Letters: `B` batch, `H` heads, `T` queries, `S` keys, `D` head_dim.
#[derive(Clone, Copy, Debug)]
pub struct AttentionShape<'a> {
    /// The number of sequences.
    pub batch: usize,
    /// The number of query heads.
    pub n_heads: usize,
    /// The number of key and value heads, a divisor of `n_heads`; each is shared by a group of
    /// consecutive query heads.
    pub n_kv_heads: usize,
    /// The number of queries in a sequence.
    pub queries: usize,
    /// The number of keys in a sequence.
    pub keys: usize,
    /// The width of a head.
    pub head_dim: usize,
    /// The factor of the scores. Default: 1/√D.
    pub scale: f32,
    /// Whether keys after the query's own position are masked.
    pub causal: bool,
    /// The largest number of keys that a query attends to, up to and including its own position.
    /// Default: all. Only with `causal`.
    pub window: Option<usize>,
    /// The position among the keys of each sequence's first query, `[B]`. Default: `keys − queries`
    /// (the queries are the last of the keys). Only with `causal`.
    pub positions: Option<&'a [usize]>,
    /// The number of keys of each sequence, `[B]`; those after it are padding. Default: all.
    pub key_lengths: Option<&'a [usize]>,
    /// The keys that are not masked, `[B, S]`. Default: all.
    pub key_mask: Option<&'a [bool]>,
    /// A further mask of single scores.
    pub mask: Mask<'a>,
    /// Dropout of the probabilities, if any; [`attention_probs`] returns them without it.
    pub dropout: Option<Dropout>,
    /// In [`Precision::Bf16`], [`attention`] rounds scaled queries, keys, values and probabilities
    /// before the products; sums and everything else are f32.
    pub precision: Precision,
}

/// Dropout of the probabilities, without a stored mask: the same as
/// [`dropout`](super::vecmath::dropout) on the matrices `[B, H, T, S]` (as long as they have less
/// than 2³² elements), and the same in the forward and the backward pass.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Dropout {
    /// The dropout probability, in (0, 1].
    pub p: f32,
    /// The seed of the hash.
    pub seed: u64,
    /// The index of the first element.
    pub offset: u64,
}

impl<'a> AttentionShape<'a> {
    /// Returns an attention without masks, with as many key heads as query heads and scale
    /// 1/√`head_dim`.
    pub fn new(batch: usize, n_heads: usize, queries: usize, keys: usize, head_dim: usize) -> Self {
        AttentionShape {
            batch,
            n_heads,
            n_kv_heads: n_heads,
            queries,
            keys,
            head_dim,
            scale: 1.0 / (head_dim as f32).sqrt(),
            causal: false,
            window: None,
            positions: None,
            key_lengths: None,
            key_mask: None,
            mask: Mask::None,
            dropout: None,
            precision: Precision::F32,
        }
    }

    /// Returns the number of query heads that share one key head.
    fn group(&self) -> usize {
        self.n_heads / self.n_kv_heads
    }

    fn check(&self) {
        let AttentionShape { batch, n_heads, n_kv_heads, queries, keys, .. } = *self;
        assert!(
            n_heads == 0 || n_kv_heads > 0 && n_heads.is_multiple_of(n_kv_heads),
            "attention: {n_heads} heads of queries cannot share {n_kv_heads} of keys"
        );
        assert!(self.window.is_none() || self.causal, "attention: a window needs `causal`");
        assert!(self.window != Some(0), "attention: a window of no keys");
        assert!(
            self.positions.is_some() || !self.causal || keys >= queries,
            "attention: {queries} causal queries cannot be the last of {keys} keys"
        );
        assert!(self.positions.is_none_or(|p| p.len() == batch), "attention: one position a sequence");
        assert!(
            self.positions.is_none_or(|p| p.iter().all(|p| p.checked_add(queries).is_some())),
            "attention: the positions of {queries} queries overflow a machine word"
        );
        assert!(
            self.key_lengths.is_none_or(|l| l.len() == batch && l.iter().all(|&l| l <= keys)),
            "attention: one key length a sequence, at most {keys}"
        );
        assert!(
            self.key_mask.is_none_or(|m| Some(m.len()) == size([batch, keys])),
            "attention: the key mask is {batch} × {keys}"
        );
        assert!(self.dropout.is_none_or(|d| d.p > 0.0 && d.p <= 1.0), "attention: a probability of dropout in (0, 1]");
        self.mask.check(self);
    }
}

/// Computes attention for all heads and sequences; `lse`, if given, receives what
/// [`attention_backward`] needs.
///
/// # Shapes
///
/// `query`, `out`: `[B, T, H, D]`; `key`, `value`: `[B, S, n_kv_heads, D]`; `lse`: `[B, H, T]`.
///
/// # Panics
///
/// If the shapes do not match each other or the slices.
pub fn attention(
    shape: &AttentionShape<'_>,
    query: Heads<'_>,
    key: Heads<'_>,
    value: Heads<'_>,
    out: HeadsMut<'_>,
    lse: Option<&mut [f32]>,
) {
    shape.check();
    let AttentionShape { batch, n_heads, n_kv_heads, queries, keys, head_dim, .. } = *shape;
    assert!(!query.is_paged(), "attention: pages are for keys and values");
    let query = query.checked("attention: query", batch, queries, None, n_heads, head_dim);
    let key = key.checked("attention: key", batch, keys, shape.key_lengths, n_kv_heads, head_dim);
    let value = value.checked("attention: value", batch, keys, shape.key_lengths, n_kv_heads, head_dim);
    let out = out.checked("attention: out", batch, queries, n_heads, head_dim);
    let rows = size([batch, n_heads, queries]);
    if let Some(lse) = &lse {
        assert_eq!(Some(lse.len()), rows, "attention: lse is {batch} × {n_heads} × {queries}");
    }
    if rows == Some(0) || head_dim == 0 && lse.is_none() {
        return;
    }
    let lse = lse.map_or(std::ptr::null_mut(), |lse| lse.as_mut_ptr());
    with_products(shape.precision, Forward(args::Args { shape, query, key, value, out, lse }));
}

struct Forward<'a>(args::Args<'a>);

impl ProductsOp for Forward<'_> {
    fn run<P: Products>(self, products: P) {
        let shape = self.0.shape;
        if shape.queries * shape.group() <= few_queries::MAX_ROWS {
            few_queries::run(products, &self.0)
        } else {
            forward::run(products, &self.0)
        }
    }
}

/// Computes the gradients of [`attention`]; overwrites `dquery`, `dkey` and `dvalue`.
///
/// # Shapes
///
/// `dout`, `query`, `out`, `dquery`: `[B, T, H, D]`; `key`, `value`, `dkey`, `dvalue`:
/// `[B, S, n_kv_heads, D]`; `lse`: `[B, H, T]`, from the forward pass.
///
/// # Panics
///
/// If the shapes do not match each other or the slices.
pub fn attention_backward(
    shape: &AttentionShape<'_>,
    dout: Heads<'_>,
    query: Heads<'_>,
    key: Heads<'_>,
    value: Heads<'_>,
    out: Heads<'_>,
    lse: &[f32],
    dquery: HeadsMut<'_>,
    dkey: HeadsMut<'_>,
    dvalue: HeadsMut<'_>,
) {
    shape.check();
    let AttentionShape { batch, n_heads, n_kv_heads, queries, keys, head_dim, .. } = *shape;
    assert!(![dout, query, key, value, out].iter().any(Heads::is_paged), "attention_backward: no pages");
    let dout = dout.checked("attention_backward: dout", batch, queries, None, n_heads, head_dim);
    let query = query.checked("attention_backward: query", batch, queries, None, n_heads, head_dim);
    let key = key.checked("attention_backward: key", batch, keys, None, n_kv_heads, head_dim);
    let value = value.checked("attention_backward: value", batch, keys, None, n_kv_heads, head_dim);
    let out = out.checked("attention_backward: out", batch, queries, None, n_heads, head_dim);
    let dquery = dquery.checked("attention_backward: dquery", batch, queries, n_heads, head_dim);
    let dkey = dkey.checked("attention_backward: dkey", batch, keys, n_kv_heads, head_dim);
    let dvalue = dvalue.checked("attention_backward: dvalue", batch, keys, n_kv_heads, head_dim);
    let rows = size([batch, n_heads, queries]);
    assert_eq!(Some(lse.len()), rows, "attention_backward: lse is {batch} × {n_heads} × {queries}");
    if head_dim == 0 || rows == Some(0) && size([batch, n_kv_heads, keys]) == Some(0) {
        return;
    }
    with_kernel(Backward(backward::Args { shape, dout, query, key, value, out, lse, dquery, dkey, dvalue }));
}

struct Backward<'a>(backward::Args<'a>);

impl KernelOp for Backward<'_> {
    type Output = ();
    fn run<K: MicroKernel>(self, kernel: K) {
        backward::run(kernel, &self.0)
    }
}

/// Computes the probabilities.
///
/// # Shapes
///
/// `query`: `[B, T, H, D]`; `key`: `[B, S, n_kv_heads, D]`; `probs`: `[B, H, T, S]`.
///
/// # Panics
///
/// If the shapes do not match each other or the slices.
pub fn attention_probs(shape: &AttentionShape<'_>, query: Heads<'_>, key: Heads<'_>, probs: &mut [f32]) {
    shape.check();
    let AttentionShape { batch, n_heads, n_kv_heads, queries, keys, head_dim, .. } = *shape;
    assert!(!query.is_paged() && !key.is_paged(), "attention_probs: no pages");
    let query = query.checked("attention_probs: query", batch, queries, None, n_heads, head_dim);
    let key = key.checked("attention_probs: key", batch, keys, None, n_kv_heads, head_dim);
    assert_eq!(
        Some(probs.len()),
        size([batch, n_heads, queries, keys]),
        "attention_probs: probs are {batch} × {n_heads} × {queries} × {keys}"
    );
    with_kernel(Probs { shape, query, key, probs });
}

struct Probs<'a> {
    shape: &'a AttentionShape<'a>,
    query: Heads<'a>,
    key: Heads<'a>,
    probs: &'a mut [f32],
}

impl KernelOp for Probs<'_> {
    type Output = ();
    fn run<K: MicroKernel>(self, kernel: K) {
        few_queries::probs(kernel, self.shape, self.query, self.key, self.probs)
    }
}
