//! The arguments of the forward pass, for many queries and for few.

use super::AttentionShape;
use super::heads::{Heads, HeadsMut};

/// The arguments of the forward pass.
pub(super) struct Args<'a> {
    pub(super) shape: &'a AttentionShape<'a>,
    pub(super) query: Heads<'a>,
    pub(super) key: Heads<'a>,
    pub(super) value: Heads<'a>,
    pub(super) out: HeadsMut<'a>,
    /// Null, or memory for `[B, H, T]`.
    pub(super) lse: *mut f32,
}

// SAFETY: `lse` comes from a slice that outlives the call, each element of which belongs to one
// task.
unsafe impl Sync for Args<'_> {}

/// Returns whether all numbers of a row are finite.
#[inline(always)]
pub(super) fn is_finite(row: &[f32]) -> bool {
    // Compares the bits without the sign, which vectorises: those of infinity and NaN are not below
    // those of infinity.
    let largest = row.iter().fold(0, |largest: u32, x| largest.max(x.abs().to_bits()));
    largest < f32::INFINITY.to_bits()
}
