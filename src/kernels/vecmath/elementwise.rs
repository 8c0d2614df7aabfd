//! The loop of all element-wise functions: `y[i] = f(x[i], …)`, `y[i] = f(y[i], x[i], …)`.

use std::mem::MaybeUninit;

use crate::kernels::parallel;
use crate::kernels::simd::{Isa, MAX_LANES, SimdOp, dispatch};

/// A function of `N` numbers, applied to vectors.
///
/// The result of a lane must depend only on that lane. This is a trait because a closure cannot be
/// `#[inline(always)]`, and one that is not inlined is compiled without the instruction set.
pub(crate) trait Lanes<const N: usize>: Copy + Sync {
    /// The approximate time for 16 elements in cache, in nanoseconds, which determines the number
    /// of threads.
    const NS: f32 = 3.0;

    /// Applies the function. Implementations are `#[inline(always)]`.
    fn lanes<I: Isa>(self, isa: I, x: [I::F32; N]) -> I::F32;
}

/// Defines a function of `N` numbers:
/// `lanes!(struct Add: 2 in 3.0 ns, |self, isa, [x, y]| isa.add(x, y));`
macro_rules! lanes {
    ($vis:vis struct $name:ident $(($shown:vis $field:ty))?: $n:literal $(in $ns:literal ns)?, $($function:tt)*) => {
        #[derive(Clone, Copy)]
        $vis struct $name $(($shown $field))?;
        lanes!(@impl $name: $n $(in $ns)?, $($function)*);
    };
    ($vis:vis struct $name:ident { $($field:ident: $type:ty),* }: $n:literal, $($function:tt)*) => {
        #[derive(Clone, Copy)]
        $vis struct $name { $($field: $type),* }
        lanes!(@impl $name: $n, $($function)*);
    };
    (@impl $name:ident: $n:literal $(in $ns:literal)?, |$self:ident, $isa:ident, $x:pat_param| $body:expr) => {
        impl Lanes<$n> for $name {
            $(const NS: f32 = $ns;)?
            #[inline(always)]
            fn lanes<I: Isa>($self, $isa: I, $x: [I::F32; $n]) -> I::F32 {
                $body
            }
        }
    };
}
pub(crate) use lanes;

/// `y[i] = f(x0[i], x1[i], …)`
#[track_caller]
pub(crate) fn map<const N: usize, F: Lanes<N>>(f: F, x: [&[f32]; N], y: &mut [f32]) {
    for x in x {
        assert_eq!(x.len(), y.len(), "element-wise: inputs and output must have the same length");
    }
    // SAFETY: every input has `y.len()` elements, and none overlaps `y`, which is borrowed mutably.
    unsafe { stream(f, x.map(<[f32]>::as_ptr), y.as_mut_ptr(), y.len(), y.len() >= PAST_CACHES) }
}

/// `y[i] = f(y[i])`
#[track_caller]
pub(crate) fn update<F: Lanes<1>>(f: F, y: &mut [f32]) {
    let out = y.as_mut_ptr();
    // SAFETY: the input is the output.
    unsafe { stream(f, [out], out, y.len(), false) }
}

/// `y[i] = f(y[i], x[i])`
#[track_caller]
pub(crate) fn update2<F: Lanes<2>>(f: F, y: &mut [f32], x: &[f32]) {
    assert_eq!(x.len(), y.len(), "element-wise: input and output must have the same length");
    let out = y.as_mut_ptr();
    // SAFETY: the lengths are equal; the first input is the output, the second is borrowed
    // separately.
    unsafe { stream(f, [out, x.as_ptr()], out, y.len(), false) }
}

/// `y[i] = f(y[i], a[i], b[i])`
#[track_caller]
pub(crate) fn update3<F: Lanes<3>>(f: F, y: &mut [f32], a: &[f32], b: &[f32]) {
    assert!(a.len() == y.len() && b.len() == y.len(), "element-wise: inputs and output must have the same length");
    let out = y.as_mut_ptr();
    // SAFETY: the lengths are equal; the first input is the output, the others are borrowed
    // separately.
    unsafe { stream(f, [out, a.as_ptr(), b.as_ptr()], out, y.len(), false) }
}

/// Outputs of at least this many elements are stored past the caches: their next reader would not
/// find them there, and a store that does not first fetch its line saves a third of the memory
/// traffic.
pub(crate) const PAST_CACHES: usize = 8 << 20;

/// # Safety
///
/// - each of `x` is valid for reads and `y` for writes of `len` elements, by other threads too;
/// - each of `x` is `y` itself or does not overlap it.
unsafe fn stream<const N: usize, F: Lanes<N>>(f: F, x: [*const f32; N], y: *mut f32, len: usize, past_caches: bool) {
    let chunk = parallel::chunk_len(len, 16, F::NS);
    let whole = Stream { f, x, y, len, past_caches };
    parallel::for_each(len.div_ceil(chunk), |i| dispatch(whole.part(i * chunk, chunk)));
}

/// The loop over all elements, or over one thread's part.
struct Stream<const N: usize, F> {
    f: F,
    x: [*const f32; N],
    y: *mut f32,
    len: usize,
    past_caches: bool,
}

// SAFETY: the contract of `stream` lets other threads use the pointers.
unsafe impl<const N: usize, F: Sync> Sync for Stream<N, F> {}

impl<const N: usize, F: Lanes<N>> Stream<N, F> {
    /// Returns the part from `start` on, at most `len` elements.
    fn part(&self, start: usize, len: usize) -> Self {
        let x = self.x.map(|x| x.wrapping_add(start));
        Stream { x, y: self.y.wrapping_add(start), len: len.min(self.len - start), ..*self }
    }
}

impl<const N: usize, F: Lanes<N>> SimdOp for Stream<N, F> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        let Stream { f, x, y, len, past_caches } = self;
        // SAFETY: the contract of `stream`.
        unsafe { apply(isa, f, x, y, len, past_caches) };
        if past_caches {
            isa.stream_fence();
        }
    }
}

/// Elements that are computed in the first-level cache before they are written past the caches.
const BLOCK: usize = 1024;

/// `y[i] = f(x0[i], x1[i], …)`, with [`Isa::stream_ptr`] if `past_caches`: the caller then calls
/// [`Isa::stream_fence`].
///
/// The code of `f` is compiled once for all lengths and alignments: the ends that do not fill a
/// vector, and the blocks that are stored past the caches, go through a buffer. With a copy of `f`
/// for each case and instruction set, this loop took a third of the crate's compile time.
///
/// # Safety
///
/// - each of `x` is valid for reads and `y` for writes of `len` elements;
/// - each of `x` is `y` itself or does not overlap it.
#[inline(always)]
pub(super) unsafe fn apply<I: Isa, const N: usize, F: Lanes<N>>(
    isa: I,
    f: F,
    x: [*const f32; N],
    y: *mut f32,
    len: usize,
    past_caches: bool,
) {
    let mut ends = [[0.0; MAX_LANES]; N];
    let mut block = MaybeUninit::<[f32; BLOCK]>::uninit();
    let block: *mut f32 = block.as_mut_ptr().cast();
    let mut i = 0;
    while i < len {
        let mut n = len - i;
        if past_caches {
            n = n.min(BLOCK);
            // SAFETY: `i < len`.
            let to_aligned = unsafe { y.add(i) }.align_offset(4 * I::LANES);
            if to_aligned > 0 {
                n = n.min(to_aligned);
            }
        }
        let part = n < I::LANES;
        // SAFETY: `n` elements at `i` are within `len`; a part is less than a vector, and so are
        // the ends; a block has `BLOCK` elements, a multiple of every vector.
        unsafe {
            let mut from = [std::ptr::null(); N];
            for (k, from) in from.iter_mut().enumerate() {
                *from = x[k].add(i);
                if part {
                    isa.store_ptr(ends[k].as_mut_ptr(), isa.load_partial_ptr(*from, n));
                    *from = ends[k].as_ptr();
                }
            }
            let to = if part || past_caches { block } else { y.add(i) };
            n = if part { n } else { n / I::LANES * I::LANES };
            let mut j = 0;
            while j < n {
                isa.store_ptr(to.add(j), f.lanes(isa, load(isa, from, j)));
                j += I::LANES;
            }
            if part {
                isa.store_partial_ptr(y.add(i), isa.load_ptr(block), n);
            } else if past_caches {
                for j in (0..n).step_by(I::LANES) {
                    isa.stream_ptr(y.add(i + j), isa.load_ptr(block.add(j)));
                }
            }
        }
        i += n;
    }
}

/// Loads a vector of each of `x`, at `i`.
///
/// # Safety
///
/// - each of `x` is valid for reads of `LANES` elements at `i`.
#[inline(always)]
pub(super) unsafe fn load<I: Isa, const N: usize>(isa: I, x: [*const f32; N], i: usize) -> [I::F32; N] {
    let mut v = [isa.zero(); N];
    for k in 0..N {
        // SAFETY: the contract.
        v[k] = unsafe { isa.load_ptr(x[k].add(i)) };
    }
    v
}

/// Loads the first `n` lanes of a vector of each of `x`, at `i`; the others are zero.
///
/// # Safety
///
/// - `n <= LANES`, and each of `x` is valid for reads of `n` elements at `i`.
#[inline(always)]
pub(super) unsafe fn load_partial<I: Isa, const N: usize>(
    isa: I,
    x: [*const f32; N],
    i: usize,
    n: usize,
) -> [I::F32; N] {
    let mut v = [isa.zero(); N];
    for k in 0..N {
        // SAFETY: the contract.
        v[k] = unsafe { isa.load_partial_ptr(x[k].wrapping_add(i), n) };
    }
    v
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::simd::for_each_level;

    #[derive(Clone, Copy)]
    struct MulAdd;

    impl Lanes<3> for MulAdd {
        const NS: f32 = 1.0;
        #[inline(always)]
        fn lanes<I: Isa>(self, isa: I, [y, a, b]: [I::F32; 3]) -> I::F32 {
            isa.mul_add(a, b, y)
        }
    }

    #[test]
    fn every_length_and_alignment_is_covered_once() {
        for_each_level(|_| {
            for len in (0..140).chain([1000]) {
                for past_caches in [false, true] {
                    for start in [0, 1, 5] {
                        let a: Vec<f32> = (0..start + len).map(|i| i as f32).collect();
                        let mut y = vec![1.0; start + len + 1];
                        let out = y[start..].as_mut_ptr();
                        let x = [out.cast_const(), a[start..].as_ptr(), a[start..].as_ptr()];
                        // SAFETY: `len` elements from `start` are within both vectors.
                        unsafe { stream(MulAdd, x, out, len, past_caches) };
                        let last = start + len;
                        assert!((start..last).all(|i| y[i] == 1.0 + (i * i) as f32), "{len} {start}");
                        assert!(y[..start].iter().chain(&y[last..]).all(|&y| y == 1.0), "{len} {start}");
                    }
                }
            }
        });
    }

    #[test]
    fn threads_do_not_change_a_bit() {
        let a: Vec<f32> = (0..300_001).map(|i| (i as f32).sin()).collect();
        let run = |threads| {
            let mut y = a.clone();
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| update3(MulAdd, &mut y, &a, &a));
            y
        };
        let alone = run(1);
        assert!((2..=4).all(|threads| run(threads) == alone));
    }

    #[test]
    #[should_panic(expected = "same length")]
    fn unequal_lengths_are_refused() {
        map(MulAdd, [&[1.0], &[1.0], &[1.0]], &mut [0.0; 2]);
    }
}
