//! The length of tasks, and slices that are cut for tasks.

use std::marker::PhantomData;
use std::ops::Range;
use std::time::Duration;

use super::threads;
use super::workers::{ROLE, Role};

/// The shortest task that is worth waking a thread.
const WORTH_A_WAKE: Duration = Duration::from_micros(25);
/// The shortest task that is worth giving to a thread that is awake.
const WORTH_IN_TEAM: Duration = Duration::from_micros(3);

/// Returns how many elements a task should have, of `len` in total that are processed in units of
/// `unit` at `ns_per_unit` nanoseconds each: enough work to repay the hand-over, but few enough
/// elements that every thread gets some.
///
/// Only for work whose bits do not depend on where it is cut.
pub fn chunk_len(len: usize, unit: usize, ns_per_unit: f32) -> usize {
    let worth = match ROLE.get() {
        Role::Calling(_) => WORTH_IN_TEAM,
        _ => WORTH_A_WAKE,
    };
    let units = len.div_ceil(unit.max(1));
    let least = ((worth.as_nanos() as f32 / ns_per_unit.max(1e-3)) as usize).saturating_add(1);
    let threads = if units <= least { 1 } else { threads() };
    if threads == 1 {
        return len.max(1);
    }
    // Four chunks per thread balance threads of unequal speed.
    units.div_ceil(4 * threads).max(least).saturating_mul(unit.max(1))
}

/// A mutable slice cut into chunks for different tasks, for kernels with several outputs.
pub struct Parts<'a, T> {
    data: *mut T,
    len: usize,
    chunk: usize,
    _slice: PhantomData<&'a mut [T]>,
}

// SAFETY: a shared `Parts` hands out `&mut T`s, disjoint by the contract of `get`, to other
// threads, which `T: Send` allows.
unsafe impl<T: Send> Sync for Parts<'_, T> {}
// SAFETY: it is a `&mut [T]`.
unsafe impl<T: Send> Send for Parts<'_, T> {}

impl<'a, T> Parts<'a, T> {
    /// Cuts `data` into chunks of `chunk` elements; the last may be shorter.
    ///
    /// # Panics
    ///
    /// If `chunk` is zero.
    pub fn new(data: &'a mut [T], chunk: usize) -> Self {
        assert!(chunk > 0, "a chunk needs an element");
        Parts { data: data.as_mut_ptr(), len: data.len(), chunk, _slice: PhantomData }
    }

    /// Returns the number of chunks.
    pub fn count(&self) -> usize {
        self.len.div_ceil(self.chunk)
    }

    /// Returns the range of chunk `i` in the slice.
    pub fn range(&self, i: usize) -> Range<usize> {
        let start = i.saturating_mul(self.chunk).min(self.len);
        start..start.saturating_add(self.chunk).min(self.len)
    }

    /// Returns chunk `i`; empty past the end.
    ///
    /// # Safety
    ///
    /// - no other reference to chunk `i` is alive.
    #[allow(clippy::mut_from_ref)]
    pub unsafe fn get(&self, i: usize) -> &mut [T] {
        // SAFETY: the contract.
        unsafe { self.slice(self.range(i)) }
    }

    /// Returns any part of the slice, for tasks that do not use chunks.
    ///
    /// # Safety
    ///
    /// - no other reference to an element of the part is alive.
    ///
    /// # Panics
    ///
    /// If the range is not within the slice.
    #[allow(clippy::mut_from_ref)]
    pub unsafe fn slice(&self, range: Range<usize>) -> &mut [T] {
        assert!(range.start <= range.end && range.end <= self.len, "a part within the slice");
        // SAFETY: the range is within the slice, which is borrowed mutably as long as `self`; the
        // rest is the contract.
        unsafe { std::slice::from_raw_parts_mut(self.data.add(range.start), range.len()) }
    }
}
