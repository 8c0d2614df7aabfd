//! Memory for numbers that are read repeatedly from end to end: zeroed, aligned to cache lines, and
//! in large pages where the system supports them.
//!
//! At full memory bandwidth, a processor must look up an address every 4 KiB, on a virtual machine
//! through two tables. With pages of 2 MiB that is nearly free: on the machine of
//! `docs/lab/decoding.md` two threads read 68 GB/s instead of 50 in the same minute. Linux provides
//! such pages on request (`madvise(MADV_HUGEPAGE)`) and only for whole ones, so small pieces are
//! cut from shared slabs, in the order of their allocation. A slab returns to the system when its
//! last piece is dropped; parts that were never accessed cost nothing.

use std::alloc::{Layout, handle_alloc_error};
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use bytemuck::Zeroable;

/// The size of a slab that pieces share, in bytes.
const SLAB: usize = 32 << 20;
/// The size, in bytes, from which on a piece has its own slab. The memory of WebAssembly has no
/// large pages: there every piece has one.
const LARGE: usize = if cfg!(target_family = "wasm") { 0 } else { 8 << 20 };
/// The size of a large page, in bytes, which slabs are aligned to.
#[cfg(not(target_family = "wasm"))]
const PAGE: usize = 2 << 20;
/// The size of a cache line, in bytes, which pieces are aligned to.
const LINE: usize = 64;

/// A slice of numbers in memory of large pages.
pub(crate) struct Pages<T> {
    start: NonNull<T>,
    len: usize,
    _slab: Arc<Slab>,
}

// SAFETY: it owns its part of the slab, as a vector owns its elements.
unsafe impl<T: Send> Send for Pages<T> {}
// SAFETY: as above; shared references only read.
unsafe impl<T: Sync> Sync for Pages<T> {}

impl<T: Zeroable + Copy> Pages<T> {
    /// Returns `len` zeros. Aborts the process, as a vector does, if memory is exhausted.
    pub(crate) fn zeroed(len: usize) -> Self {
        const { assert!(align_of::<T>() <= LINE) };
        let layout = Layout::array::<T>(len).expect("a length that fits into memory");
        let (start, slab) = Slab::piece(layout);
        Self { start: start.cast(), len, _slab: slab }
    }
}

impl<T> Deref for Pages<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: the piece has room for `len` elements, aligned and zeroed at first, and lives as
        // long as its slab.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl<T> DerefMut for Pages<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as above; no other piece shares a byte with this one.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

#[cfg(not(target_family = "wasm"))]
type Memory = memmap2::MmapMut;
/// Cache lines from the allocator.
#[cfg(target_family = "wasm")]
type Memory = Vec<Line>;

#[cfg(target_family = "wasm")]
#[derive(Clone, Copy, Zeroable)]
#[repr(align(64))]
struct Line {
    _bytes: [u8; LINE],
}

/// Memory that only its pieces access.
struct Slab {
    start: NonNull<u8>,
    bytes: usize,
    _memory: Memory,
}

// SAFETY: the pointer is only the address of the memory, from which each piece gets a part of its
// own.
unsafe impl Send for Slab {}
// SAFETY: as above.
unsafe impl Sync for Slab {}

/// The slab that pieces are cut from, and the number of bytes in use.
static CURRENT: Mutex<(Weak<Slab>, usize)> = Mutex::new((Weak::new(), 0));

impl Slab {
    /// Returns memory for `layout` that nothing else uses, and the slab that owns it.
    fn piece(layout: Layout) -> (NonNull<u8>, Arc<Slab>) {
        let bytes = layout.size().next_multiple_of(LINE);
        if bytes >= LARGE {
            let slab = Self::new(bytes, layout);
            return (slab.start, slab);
        }
        let mut current = CURRENT.lock().unwrap_or_else(PoisonError::into_inner);
        let (slab, used) = match current.0.upgrade() {
            Some(slab) if current.1 + bytes <= slab.bytes => (slab, current.1),
            _ => (Self::new(SLAB, layout), 0),
        };
        *current = (Arc::downgrade(&slab), used + bytes);
        // SAFETY: `used + bytes <= slab.bytes`.
        (unsafe { slab.start.add(used) }, slab)
    }

    #[cfg(not(target_family = "wasm"))]
    fn new(bytes: usize, layout: Layout) -> Arc<Self> {
        let map = Memory::map_anon(bytes + PAGE);
        let mut map = map.unwrap_or_else(|_| handle_alloc_error(layout));
        // Without large pages everything works, only more slowly.
        #[cfg(target_os = "linux")]
        let _ = map.advise(memmap2::Advice::HugePage);
        let skip = map.as_ptr().align_offset(PAGE).min(PAGE);
        let start = NonNull::new(map.as_mut_ptr().wrapping_add(skip)).expect("a mapping is not at address zero");
        Arc::new(Self { start, bytes, _memory: map })
    }

    #[cfg(target_family = "wasm")]
    fn new(bytes: usize, layout: Layout) -> Arc<Self> {
        let lines = bytemuck::try_zeroed_vec::<Line>(bytes.div_ceil(LINE));
        let mut lines = lines.unwrap_or_else(|()| handle_alloc_error(layout));
        let start = NonNull::new(lines.as_mut_ptr().cast()).expect("a vector is not at address zero");
        Arc::new(Self { start, bytes, _memory: lines })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_zero_aligned_and_apart() {
        let mut pieces: Vec<Pages<u16>> = [1, 0, 31, 33, 70_000, 5 << 20, 3, 1 << 20].map(Pages::<u16>::zeroed).into();
        for (i, piece) in pieces.iter_mut().enumerate() {
            assert!(piece.iter().all(|&x| x == 0));
            assert_eq!(piece.as_ptr() as usize % LINE, 0);
            piece.fill(i as u16 + 1);
        }
        drop(pieces.remove(4));
        for (piece, i) in pieces.iter().zip([1, 2, 3, 4, 6, 7, 8]) {
            assert!(piece.iter().all(|&x| x == i));
        }
    }

    #[test]
    fn an_unused_slab_is_not_cut_further() {
        for _ in 0..100 {
            let piece = Pages::<f32>::zeroed(1 << 20);
            assert!(piece.iter().all(|&x| x == 0.0));
        }
    }
}
