//! Attention as small operations, with a matrix of queries by keys in memory. It serves as the
//! reference for the fused kernel, and computes what the kernel does not support.

use super::mask::Resolved;
use super::{Attention, Dims};
use crate::error::Result;
use crate::ops::dropout::dropout_with_key;
use crate::ops::matmul::weigh;
use crate::ops::shape::concat;
use crate::tensor::Tensor;

/// [B, S, H·D] → [B, H, S, D]
fn heads(x: &Tensor, batch: usize, len: usize, heads: usize, dim: usize) -> Result<Tensor> {
    x.reshape(&[batch, len, heads, dim])?.permute(&[0, 2, 1, 3])
}

/// Returns the probabilities `[B, H, T, S]`.
pub(super) fn probs(
    attention: &Attention,
    dims: &Dims,
    query: &Tensor,
    key: &Tensor,
    mask: &Resolved,
) -> Result<Tensor> {
    let &Dims { n_heads, n_kv_heads, batch, queries, keys, head_dim, scale, .. } = dims;
    // The queries of the heads that share a key head are stacked: [B, n_kv_heads, group·T, D].
    let grouped = [batch, n_kv_heads, n_heads / n_kv_heads * queries, head_dim];
    let q = heads(query, batch, queries, n_heads, head_dim)?.reshape(&grouped)?;
    let k = heads(key, batch, keys, n_kv_heads, head_dim)?;
    let mut scores = q.matmul_transposed(&k)?.scale(scale).reshape(&[batch, n_heads, queries, keys])?;
    if let Some(cap) = attention.softcap {
        scores = scores.scale(1.0 / cap).tanh().scale(cap);
    }
    if let Some(mask) = mask.dense()? {
        scores = scores.add(&mask)?;
    }
    let Some(sinks) = &attention.sinks else { return scores.softmax() };
    // The sink is the first column, so that the order of the sum does not depend on the number of
    // keys.
    let sinks = sinks.reshape(&[1, n_heads, 1, 1])?.add(&Tensor::zeros(&[batch, n_heads, queries, 1]))?;
    concat(&[&sinks, &scores], -1)?.softmax()?.narrow(-1, 1, keys)
}

/// Returns output and probabilities.
pub(super) fn attention(
    settings: &Attention,
    dims: &Dims,
    query: &Tensor,
    key: &Tensor,
    value: &Tensor,
    mask: &Resolved,
) -> Result<(Tensor, Tensor)> {
    let &Dims { n_heads, n_kv_heads, batch, queries, keys, value_dim, .. } = dims;
    let probs = probs(settings, dims, query, key, mask)?;
    let dropped = match settings.dropout {
        Some((p, key)) => dropout_with_key(&probs, p, key)?,
        None => probs.clone(),
    };
    let v = heads(value, batch, keys, n_kv_heads, value_dim)?;
    let output = dropped.reshape(&[batch, n_kv_heads, n_heads / n_kv_heads * queries, keys])?;
    let output = weigh(&output, &v)?
        .reshape(&[batch, n_heads, queries, value_dim])?
        .permute(&[0, 2, 1, 3])?
        .reshape(&[batch, queries, n_heads * value_dim])?;
    Ok((output, probs))
}
