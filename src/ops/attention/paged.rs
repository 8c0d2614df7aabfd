//! Attention over keys and values in pages, which a cache shares between sequences.

use super::fused::Fused;
use super::{Attention, AttentionMask};
use crate::error::{Error, Result};
use crate::kernels::attention::{AttentionShape, Heads, HeadsMut, attention};
use crate::ops::inspect::{self, Capture};
use crate::ops::precision::precision;
use crate::tensor::{Tensor, tape};

pub(crate) use crate::kernels::attention::PAGE;

/// The keys and values of several sequences, each with its own number of positions.
pub(crate) struct Paged<'a> {
    /// Pages of [`PAGE`] positions, `[PAGE, n_kv_heads · head_dim]` each; the last of a sequence
    /// may be shorter.
    pub(crate) keys: Vec<&'a [f32]>,
    /// Same as `keys`, for the values.
    pub(crate) values: Vec<&'a [f32]>,
    /// The index of the first page of each sequence, followed by the number of pages.
    pub(crate) first: Vec<usize>,
    /// The length of each sequence, in positions.
    pub(crate) lens: Vec<usize>,
    /// Widths of a position's keys and values, in numbers.
    pub(crate) widths: [usize; 2],
}

impl Attention {
    /// Computes attention of new queries over paged sequences, without gradients. Returns `None`
    /// for masks or sizes that the kernel does not support, or if the probabilities are to be
    /// recorded: then the caller copies the pages into one tensor.
    ///
    /// # Shapes
    /// `query: [sequences, queries, n_heads · head_dim]` →
    /// `[sequences, queries, n_heads · head_dim]`.
    ///
    /// # Errors
    /// Same as [`Attention::forward_cached`].
    pub(crate) fn forward_paged(
        &self,
        query: &Tensor,
        paged: &Paged<'_>,
        mask: &AttentionMask,
    ) -> Result<Option<Tensor>> {
        tape::refuse("attention over a cache", &[query])?;
        let &[batch, queries, q_width] = query.shape() else {
            return Err(Error::shape("attention over a cache", "[batch, positions, width]", query.shape()));
        };
        if batch != paged.lens.len() {
            return Err(Error::shape("attention over a cache", format!("[{}, …]", paged.lens.len()), query.shape()));
        }
        let longest = paged.lens.iter().copied().max().unwrap_or(0);
        let dims = self.checked(batch, [queries, longest], [q_width, paged.widths[0], paged.widths[1]])?;
        let shortest = paged.lens.iter().copied().min().unwrap_or(0);
        if mask.is_causal() && queries > shortest {
            return Err(Error::shape(
                "causal attention",
                format!("at most {shortest} queries, one per key"),
                [queries],
            ));
        }
        let ragged = shortest != longest;
        if ragged && !mask.is_order() {
            return Err(Error::argument(
                "attention mask",
                "a causal one, for sequences of different lengths",
                "another",
            ));
        }
        let resolved = mask.resolve(batch, dims.n_heads, queries, longest)?;
        let plain = resolved.bias.is_none() && resolved.key_mask.is_none() && resolved.starts_at_once();
        let recording = inspect::is_recording(Capture::Attention);
        if recording || !plain || self.dropout.is_some() || !Fused::supports(&dims, &resolved, self) {
            return Ok(None);
        }
        // Padding after a sequence, and positions past its length, are left out.
        let lengths = resolved.ranges.iter().zip(&paged.lens).map(|(range, &len)| range.end.min(len));
        let lengths: Vec<usize> = lengths.collect();
        let positions: Vec<usize> = paged.lens.iter().map(|len| len - queries.min(*len)).collect();
        let shape = AttentionShape {
            n_kv_heads: dims.n_kv_heads,
            scale: dims.scale,
            causal: resolved.causal.is_some(),
            window: resolved.window,
            positions: resolved.causal.is_some().then_some(&positions),
            key_lengths: Some(&lengths),
            precision: precision(),
            ..AttentionShape::new(batch, dims.n_heads, queries, longest, dims.head_dim)
        };
        let heads = |pages| Heads::paged(pages, &paged.first, dims.n_kv_heads, dims.head_dim);
        let q = Heads::rows(query.data(), queries, dims.n_heads, dims.head_dim);
        Ok(Some(Tensor::write(&[batch, queries, q_width], |y| {
            let out = HeadsMut::rows(y, queries, dims.n_heads, dims.head_dim);
            attention(&shape, q, heads(&paged.keys), heads(&paged.values), out, None);
        })))
    }
}
