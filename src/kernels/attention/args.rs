//! The arguments of the forward, for many queries and for few.

use super::AttentionShape;
use super::heads::{Heads, HeadsMut};

/// The arguments of the forward.
pub(super) struct Args<'a> {
    pub(super) shape: &'a AttentionShape<'a>,
    pub(super) query: Heads<'a>,
    pub(super) key: Heads<'a>,
    pub(super) value: Heads<'a>,
    pub(super) out: HeadsMut<'a>,
    /// Null, or room for `[B, H, T]`.
    pub(super) lse: *mut f32,
}

// SAFETY: `lse` comes from a slice that outlives the call, each element of which belongs to one
// task.
unsafe impl Sync for Args<'_> {}

/// Whether all numbers of a row are.
#[inline(always)]
pub(super) fn is_finite(row: &[f32]) -> bool {
    // Of the bits without the sign, which vectors compare; no finite number has those of infinity
    // or more.
    let largest = row.iter().fold(0, |largest: u32, x| largest.max(x.abs().to_bits()));
    largest < f32::INFINITY.to_bits()
}
