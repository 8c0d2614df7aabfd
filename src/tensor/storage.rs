//! A memory pool for tensors.
//!
//! A training step makes and drops the same sizes again and again. The system allocator maps each
//! large block each time, zeroes it page by page and unmaps it (filling 32 MiB takes eight
//! times longer in a fresh allocation than in a reused one); this can cost more than the
//! computation. So a dropped [`Buffer`] is kept in a pool by size class, and the next one of that
//! class reuses it.
//!
//! Memory in use and idle memory together never exceed 1.25 times the largest amount that was in
//! use; [`release_unused`] returns the idle part to the system.

use std::collections::BTreeMap;
use std::sync::Mutex;

use super::memory;
use super::weight::FileNumbers;

/// Smaller buffers, in numbers, come from the system allocator, which is fast for them.
const POOLED_FROM: usize = 4096;
/// Blocks from this size on, in numbers, may exceed the available memory.
const ASKED_FROM: usize = 1 << 20;
/// Blocks from this size on, in numbers, are compared with the memory that exists: a system may
/// promise more than it has.
const LARGE: usize = 1 << 28;

/// A block of `f32` that returns to the pool when dropped, or a part of a mapped file.
pub(crate) struct Buffer {
    data: Vec<f32>,
    len: usize,
    pooled: bool,
    /// The place of the numbers in a mapped file, where they are read only, instead of `data`.
    file: Option<FileNumbers>,
}

struct Pool {
    /// Idle blocks by capacity.
    idle: BTreeMap<usize, Vec<Vec<f32>>>,
    /// The size of the idle blocks, in numbers.
    idle_len: usize,
    /// The size of the blocks in use, in numbers: now, and at most so far.
    live_len: usize,
    peak_len: usize,
}

static POOL: Mutex<Pool> = Mutex::new(Pool { idle: BTreeMap::new(), idle_len: 0, live_len: 0, peak_len: 0 });

/// Returns the smallest of the size classes `{8, 9, … 15} · 2^k` that holds `len`; at most an
/// eighth is wasted. `None` if its size in bytes overflows.
fn size_class(len: usize) -> Option<usize> {
    let shift = (usize::BITS - 1 - len.leading_zeros()).saturating_sub(3);
    let class = len.checked_next_multiple_of(1usize << shift)?;
    class.checked_mul(size_of::<f32>()).filter(|&bytes| bytes <= isize::MAX as usize).map(|_| class)
}

/// Returns whether a block of `len` numbers can be allocated: the system allows it, and the machine
/// or the container has as much memory in total.
fn fits(len: usize) -> bool {
    let given = || Vec::<f32>::new().try_reserve_exact(len).is_ok();
    let exists = || memory::largest().is_none_or(|all| len <= all / size_of::<f32>());
    len < ASKED_FROM || given() && (len < LARGE || exists())
}

impl Pool {
    /// Returns an idle block of `class`, or a new one.
    fn take(&mut self, class: usize) -> Option<Vec<f32>> {
        self.live_len += class;
        self.peak_len = self.peak_len.max(self.live_len);
        if let Some(blocks) = self.idle.get_mut(&class) {
            let block = blocks.pop();
            if blocks.is_empty() {
                self.idle.remove(&class);
            }
            self.idle_len -= class;
            return block;
        }
        while self.live_len + self.idle_len > self.limit() {
            let Some(mut largest) = self.idle.last_entry() else { break };
            self.idle_len -= *largest.key();
            largest.get_mut().pop();
            if largest.get().is_empty() {
                largest.remove();
            }
        }
        None
    }

    fn give(&mut self, block: Vec<f32>) {
        let class = block.len();
        self.live_len -= class;
        if self.live_len + self.idle_len + class <= self.limit() {
            self.idle_len += class;
            self.idle.entry(class).or_default().push(block);
        }
    }

    /// A quarter above the peak: blocks of sizes that alternate within a step can all stay.
    fn limit(&self) -> usize {
        self.peak_len + self.peak_len / 4
    }
}

impl Buffer {
    /// Returns `len` numbers of any value, all of which the caller must write.
    ///
    /// # Panics
    /// If memory is exhausted.
    pub(crate) fn scratch(len: usize) -> Self {
        Self::try_scratch(len).unwrap_or_else(|| panic!("out of memory: cannot allocate {len} numbers"))
    }

    /// Same as [`Buffer::scratch`]; `None` if memory is exhausted.
    pub(crate) fn try_scratch(len: usize) -> Option<Self> {
        if len < POOLED_FROM {
            return Some(Self::from_vec(vec![0.0; len]));
        }
        let class = size_class(len)?;
        let reused = {
            let mut pool = lock();
            if !pool.idle.contains_key(&class) && !fits(class) {
                return None;
            }
            pool.take(class)
        };
        Some(Self { data: reused.unwrap_or_else(|| vec![0.0; class]), len, pooled: true, file: None })
    }

    /// Returns `len` zeros.
    pub(crate) fn zeros(len: usize) -> Self {
        let mut buffer = Self::scratch(len);
        buffer.as_mut_slice().fill(0.0);
        buffer
    }

    /// Takes over the caller's numbers.
    pub(crate) fn from_vec(data: Vec<f32>) -> Self {
        let len = data.len();
        Self { data, len, pooled: false, file: None }
    }

    /// Wraps numbers in a mapped file.
    pub(crate) fn in_file(numbers: FileNumbers) -> Self {
        Self { data: Vec::new(), len: numbers.get::<f32>().len(), pooled: false, file: Some(numbers) }
    }

    /// Returns the place of the numbers in a mapped file, if they are in one.
    pub(crate) fn file_numbers(&self) -> Option<&FileNumbers> {
        self.file.as_ref()
    }

    /// Returns whether the numbers may be changed.
    pub(crate) fn is_writable(&self) -> bool {
        self.file.is_none()
    }

    pub(crate) fn as_slice(&self) -> &[f32] {
        match &self.file {
            None => &self.data[..self.len],
            Some(numbers) => numbers.get(),
        }
    }

    /// Returns the numbers of a writable buffer.
    pub(crate) fn as_mut_slice(&mut self) -> &mut [f32] {
        &mut self.data[..self.len]
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if self.pooled {
            lock().give(std::mem::take(&mut self.data));
        }
    }
}

/// A panic cannot leave the pool in an inconsistent state, so a poisoned lock can be used.
fn lock() -> std::sync::MutexGuard<'static, Pool> {
    POOL.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Returns the memory of dropped tensors, which the pool keeps for reuse, to the system.
pub fn release_unused() {
    let mut pool = lock();
    pool.idle.clear();
    pool.idle_len = 0;
    pool.peak_len = pool.live_len;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn size_classes_hold_their_length_and_waste_little() {
        for len in [1, 7, 8, 9, 15, 16, 17, 4096, 4097, 5000, 65_535, 65_536, 65_537, 1_000_000] {
            let class = size_class(len).unwrap();
            assert!(class >= len && class <= len + len / 8 + 1, "{len} -> {class}");
            assert_eq!(size_class(class), Some(class));
        }
        assert_eq!((size_class(usize::MAX), size_class(usize::MAX / 4)), (None, None));
    }

    #[test]
    fn what_has_no_room_is_refused_and_leaves_the_pool_as_it_was() {
        for len in [1 << 45, 1 << 60, usize::MAX / 4, usize::MAX] {
            assert!(Buffer::try_scratch(len).is_none());
        }
        let pool = lock();
        assert!(pool.live_len < 1 << 40, "{}", pool.live_len);
    }

    #[test]
    fn a_reused_buffer_of_zeros_is_zero() {
        let mut first = Buffer::scratch(1_234_567);
        first.as_mut_slice().fill(3.0);
        drop(first);
        let second = Buffer::zeros(1_234_560);
        assert!(second.as_slice().iter().all(|&x| x == 0.0));
        assert_eq!(second.as_slice().len(), 1_234_560);
    }
}
