//! Copying blocks of A and B into panels.
//!
//! A panel is `width` rows of A (or columns of B), `k` elements deep, stored with the short side
//! contiguous: element `[p, i]` at `p·width + i`, the order in which a micro-kernel reads. The
//! source either has the same layout (and is copied) or the other one (and is transposed in
//! registers, 16 × 16 elements at a time).

use std::cell::Cell;

use super::micro::MicroKernel;
use crate::kernels::prefetch::prefetch_ahead;

/// The number of elements past its last panel that a packing may write.
pub(in crate::kernels) const SLACK: usize = 16;

/// A matrix as a source of packing: `[p, i]` at `p·deep + i·along`, where one of the two strides is
/// 1.
#[derive(Clone, Copy)]
pub struct Source<T = f32> {
    pub data: *const T,
    /// The distance between elements along the panel's short side.
    pub along: usize,
    /// The distance between elements in the direction of k.
    pub deep: usize,
}

impl<T> Source<T> {
    /// Returns the source that begins at `[p, i]`.
    pub(in crate::kernels) fn at(self, p: usize, i: usize) -> Source<T> {
        Source { data: self.data.wrapping_add(p * self.deep + i * self.along), ..self }
    }
}

/// Packs one panel, `k` deep: `used` elements of the source, followed by arbitrary ones up to
/// `width`.
///
/// Elements past `used` (old numbers, possibly NaN) only affect columns of the tile that are not
/// stored.
///
/// # Safety
///
/// * the source may be read at all `[p, i]`, `p < k`, `i < used`; `used <= width`;
/// * `dst` may be written for `k · width + SLACK` elements.
#[inline]
pub(in crate::kernels) unsafe fn pack_panel<K: MicroKernel>(
    kernel: K,
    source: Source,
    used: usize,
    width: usize,
    k: usize,
    dst: *mut f32,
) {
    // SAFETY: indices stay below `k` and `used`; what is written past a row is overwritten by the
    // next or in the slack.
    unsafe {
        if source.along == 1 {
            return kernel.copy(source.data, source.deep, used, width, k, dst);
        }
        for p in (0..k).step_by(16) {
            // Prefetch the next panel.
            for i in width..width + used {
                prefetch_ahead(source.at(p, i).data, 16);
            }
            for i in (0..used).step_by(16) {
                let (rows, cols) = ((used - i).min(16), (k - p).min(16));
                kernel.transpose(source.at(p, i).data, source.along, rows, cols, dst.add(p * width + i), width);
            }
        }
    }
}

/// A cache line of f32. Buffers consist of these, so that panels are aligned.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([f32; 16]);

thread_local! {
    /// The buffers that this thread does not use at the moment.
    static SPARE: Cell<Vec<Vec<Line>>> = const { Cell::new(Vec::new()) };
}

/// Calls `f` with a buffer of at least `len` elements, aligned to 64 bytes, its content arbitrary.
///
/// The thread keeps the buffer for its next call.
pub(in crate::kernels) fn with_scratch<R>(len: usize, f: impl FnOnce(&mut [f32]) -> R) -> R {
    f(Scratch::take(len).elements())
}

/// A buffer of this thread, which is returned to it on drop.
struct Scratch {
    lines: Vec<Line>,
    used: usize,
}

impl Scratch {
    fn take(len: usize) -> Scratch {
        let mut spare = SPARE.take();
        let mut lines = spare.pop().unwrap_or_default();
        SPARE.set(spare);
        let used = len.div_ceil(16);
        if lines.len() < used {
            lines.resize(used, Line([0.0; 16]));
        }
        Scratch { lines, used }
    }

    fn elements(&mut self) -> &mut [f32] {
        // SAFETY: `Line` is sixteen `f32` without padding, and there are `used` of them.
        unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast::<f32>(), self.used * 16) }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let mut spare = SPARE.take();
        spare.push(std::mem::take(&mut self.lines));
        SPARE.set(spare);
    }
}
