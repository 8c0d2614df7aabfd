//! Prefetching of data before it is needed.

/// Prefetches all of `data`, one cache line at a time; does nothing on processors without such an
/// instruction.
#[inline]
pub fn prefetch<T>(data: &[T]) {
    /// The size of a cache line, in bytes.
    const LINE: usize = 64;
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        let start = data.as_ptr().cast::<i8>();
        for byte in (0..size_of_val(data)).step_by(LINE) {
            // SAFETY: every x86-64 processor has the instruction, it changes nothing, and the
            // address is in `data`.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(start.add(byte)) };
        }
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    let _ = (data, LINE);
}

/// Prefetches `len` elements from `at` on into the second-level cache; they need not exist.
#[inline]
pub(in crate::kernels) fn prefetch_ahead<T>(at: *const T, len: usize) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        for byte in (0..len * size_of::<T>()).step_by(64) {
            // SAFETY: every x86-64 processor has the instruction, and it changes nothing whatever
            // the address.
            unsafe { _mm_prefetch::<_MM_HINT_T1>(at.cast::<i8>().wrapping_add(byte)) };
        }
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    let _ = (at, len);
}
