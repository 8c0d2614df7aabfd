//! Calls of the fused kernel: which sequences, queries and keys they cover, and where these are
//! stored.

use std::ops::Range;

use super::Dims;
use super::mask::Resolved;
use crate::kernels::attention::{AttentionShape, Dropout, Heads, HeadsMut, Mask, attention, attention_backward};
use crate::ops::broadcast::broadcast_to;
use crate::ops::precision::{Precision, precision};
use crate::tensor::{Tensor, tape};

/// Where queries, keys or values are stored in a tensor: the offset of the first element, and the
/// strides of sequences and of positions.
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub(super) first: usize,
    pub(super) batch: usize,
    pub(super) row: usize,
}

/// Where the gradients of queries, keys and values are stored.
pub(super) enum Gradients<'a> {
    Apart([&'a mut [f32]; 3]),
    /// Concatenated in each row, with their widths; only if the keys of all sequences start at 0.
    Packed(&'a mut [f32], [usize; 3]),
}

/// An attention that the kernel supports.
pub(super) struct Fused {
    dims: Dims,
    mask: Resolved,
    dropout: Option<(f32, u64)>,
}

/// One call of the kernel: a range of sequences, their queries from one on, and a range of their
/// keys.
struct Call {
    sequences: Range<usize>,
    first_query: usize,
    keys: Range<usize>,
    /// The position of the first query among the keys, unless the queries are the last positions.
    position: Option<[usize; 1]>,
}

impl Fused {
    /// Returns whether the kernel supports the attention.
    pub(super) fn supports(dims: &Dims, mask: &Resolved, attention: &super::Attention) -> bool {
        // Dropout is keyed by the place in the whole matrix.
        let places = || [dims.batch, dims.n_heads, dims.queries, dims.keys].map(|n| n as u64).iter().product::<u64>();
        (attention.dropout.is_none() || mask.starts_at_once() && places() < 1 << 32)
            && attention.softcap.is_none()
            && attention.sinks.is_none()
            && dims.value_dim == dims.head_dim
            && [dims.batch, dims.queries, dims.keys, dims.head_dim].iter().all(|&n| n > 0)
            && mask.bias.as_ref().is_none_or(|bias| !tape::is_recording(&[bias]))
    }

    pub(super) fn new(dims: Dims, mut mask: Resolved, dropout: Option<(f32, u64)>) -> Self {
        // The kernel takes whole matrices of queries by keys, shared by heads or sequences.
        mask.bias = mask.bias.map(|b| broadcast_to(&b, &[b.shape()[0], b.shape()[1], dims.queries, dims.keys]));
        let dropout = dropout.filter(|&(p, _)| p > 0.0);
        Self { dims, mask, dropout }
    }

    /// Returns one call for all sequences if the keys of all start at 0; otherwise one call per
    /// sequence, without the padding before it, so that the kernel's blocks of keys start where
    /// they would without padding.
    fn calls(&self) -> Vec<Call> {
        let Dims { batch, queries, keys, .. } = self.dims;
        if self.mask.starts_at_once() {
            return vec![Call { sequences: 0..batch, first_query: 0, keys: 0..keys, position: None }];
        }
        let call = |(b, keys): (usize, &Range<usize>)| match self.mask.causal {
            None => Call { sequences: b..b + 1, first_query: 0, keys: keys.clone(), position: None },
            Some(offset) => {
                // Queries before the first key attend to nothing.
                let first_query = keys.start.saturating_sub(offset).min(queries);
                let position = Some([(first_query + offset).saturating_sub(keys.start)]);
                Call { sequences: b..b + 1, first_query, keys: keys.clone(), position }
            }
        };
        self.mask.ranges.iter().enumerate().map(call).collect()
    }

    /// Calls `f` with the kernel's description of a call.
    fn with_shape(&self, call: &Call, precision: Precision, f: impl FnOnce(&AttentionShape<'_>)) {
        let (dims, mask) = (&self.dims, &self.mask);
        let alone = !mask.starts_at_once();
        let lengths: Vec<usize> = mask.ranges.iter().map(|range| range.end).collect();
        let seen = mask.key_mask.as_ref().map(|seen| match alone {
            true => &seen[call.sequences.start * dims.keys..][call.keys.clone()],
            false => seen,
        });
        let added = mask.bias.as_ref().map_or(Mask::None, |bias| {
            let matrix = dims.queries * dims.keys;
            let [batch_stride, head_stride] = [(bias.shape()[0], bias.shape()[1] * matrix), (bias.shape()[1], matrix)]
                .map(|(len, stride)| if len == 1 { 0 } else { stride });
            Mask::Add { data: bias.data(), batch_stride, head_stride }
        });
        let queries = dims.queries - call.first_query;
        f(&AttentionShape {
            n_kv_heads: dims.n_kv_heads,
            scale: dims.scale,
            causal: mask.causal.is_some(),
            window: mask.window,
            positions: call.position.as_ref().map(|p| &p[..]),
            key_lengths: (!alone).then_some(&lengths),
            key_mask: seen,
            mask: added,
            dropout: self.dropout.map(|(p, seed)| Dropout { p, seed, offset: 0 }),
            precision,
            ..AttentionShape::new(call.sequences.len(), dims.n_heads, queries, call.keys.len(), dims.head_dim)
        });
    }

    fn heads<'a>(&self, data: &'a [f32], place: Place, call: &Call, position: usize) -> Heads<'a> {
        let first = place.first + call.sequences.start * place.batch + position * place.row;
        Heads::strided(data.get(first..).unwrap_or(&[]), place.batch, place.row, self.dims.head_dim)
    }

    /// Returns queries, keys and values of a call.
    fn inputs<'a>(&self, data: [&'a [f32]; 3], places: [Place; 3], call: &Call) -> [Heads<'a>; 3] {
        let positions = [call.first_query, call.keys.start, call.keys.start];
        std::array::from_fn(|i| self.heads(data[i], places[i], call, positions[i]))
    }

    /// Returns the part of `lse` that belongs to a call.
    fn lse_range(&self, call: &Call) -> Range<usize> {
        let Dims { n_heads, queries, .. } = self.dims;
        let start = call.sequences.start * n_heads * queries;
        start..start + call.sequences.len() * n_heads * (queries - call.first_query)
    }

    /// Returns the output and, if `keep` is set, the log-sum-exp of each row for the backward pass.
    pub(super) fn forward(&self, data: [&[f32]; 3], places: [Place; 3], keep: bool) -> (Tensor, Vec<f32>) {
        let Dims { n_heads, head_dim, batch, queries, .. } = self.dims;
        let mut lse = vec![0.0; if keep { batch * n_heads * queries } else { 0 }];
        let y = Tensor::write(&[batch, queries, n_heads * head_dim], |y| {
            self.forward_into(data, places, y, keep.then_some(&mut lse));
        });
        (y, lse)
    }

    /// Same as [`Fused::forward`], into `y: [batch, queries, n_heads · head_dim]`.
    pub(super) fn forward_into(
        &self,
        data: [&[f32]; 3],
        places: [Place; 3],
        y: &mut [f32],
        mut lse: Option<&mut Vec<f32>>,
    ) {
        let Dims { n_heads, head_dim, queries, .. } = self.dims;
        let width = n_heads * head_dim;
        // The backward pass is in f32 and needs the same probabilities.
        let precision = if lse.is_some() { Precision::F32 } else { precision() };
        for call in self.calls() {
            let [q, k, v] = self.inputs(data, places, &call);
            let rows = call.sequences.start * queries..call.sequences.end * queries;
            let (unseeing, y) = y[rows.start * width..rows.end * width].split_at_mut(call.first_query * width);
            unseeing.fill(0.0);
            let out = HeadsMut::rows(y, queries - call.first_query, n_heads, head_dim);
            let lse = lse.as_mut().map(|lse| &mut lse[self.lse_range(&call)]);
            self.with_shape(&call, precision, |shape| attention(shape, q, k, v, out, lse));
        }
    }

    /// Returns memory for the gradient of `x`, zero where no call writes.
    pub(super) fn gradient_of(&self, x: &Tensor) -> Tensor {
        if self.mask.starts_at_once() { Tensor::write(x.shape(), |_| ()) } else { Tensor::zeros(x.shape()) }
    }

    pub(super) fn backward(
        &self,
        data: [&[f32]; 3],
        places: [Place; 3],
        dy: &Tensor,
        y: &Tensor,
        lse: &[f32],
        mut gradients: Gradients<'_>,
    ) {
        let Dims { n_heads, n_kv_heads, head_dim, queries, keys, .. } = self.dims;
        let width = n_heads * head_dim;
        let output = Place { first: 0, batch: queries * width, row: width };
        for call in self.calls() {
            let [q, k, v] = self.inputs(data, places, &call);
            let [y, dy] = [y, dy].map(|x| self.heads(x.data(), output, &call, call.first_query));
            let [dq, dk, dv] = match &mut gradients {
                Gradients::Packed(dqkv, widths) => HeadsMut::split_columns(dqkv, queries, *widths, head_dim),
                Gradients::Apart([dq, dk, dv]) => {
                    let part = |dx, len, positions, heads| part(dx, &call, len, positions, heads, head_dim);
                    [
                        part(dq, queries, call.first_query..queries, n_heads),
                        part(dk, keys, call.keys.clone(), n_kv_heads),
                        part(dv, keys, call.keys.clone(), n_kv_heads),
                    ]
                }
            };
            let lse = &lse[self.lse_range(&call)];
            self.with_shape(&call, Precision::F32, |shape| attention_backward(shape, dy, q, k, v, y, lse, dq, dk, dv));
        }
    }
}

/// Returns the positions of a call's sequences in a gradient `[batch, len, heads · head_dim]`: all
/// of them, or those of one sequence.
fn part<'a>(
    dx: &'a mut [f32],
    call: &Call,
    len: usize,
    positions: Range<usize>,
    heads: usize,
    head_dim: usize,
) -> HeadsMut<'a> {
    let row = heads * head_dim;
    let (first, last) = (call.sequences.start * len + positions.start, (call.sequences.end - 1) * len + positions.end);
    HeadsMut::rows(&mut dx[first * row..last * row], positions.len(), heads, head_dim)
}
