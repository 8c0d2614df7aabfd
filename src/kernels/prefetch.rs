//! Asking the memory for data before it is needed.

/// Asks for all of `data`, a line of the cache at a time; nothing where the processor has no
/// instruction for it.
#[inline]
pub fn prefetch<T>(data: &[T]) {
    /// Bytes of a line.
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

/// Asks for `len` elements from `at` on, which need not exist, into the second-level cache.
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
