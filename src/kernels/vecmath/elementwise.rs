//! The loop of every element-wise function: `y[i] = f(x[i], …)`, `y[i] = f(y[i], x[i], …)`.

use crate::kernels::parallel;
use crate::kernels::simd::{Isa, SimdOp, dispatch};

/// A function of `N` numbers, on a vector of each.
///
/// The result of a lane must depend on that lane alone. A trait and not a closure, because a
/// closure cannot be `#[inline(always)]`, and one that is not inlined is compiled without the
/// instructions.
pub(crate) trait Lanes<const N: usize>: Copy + Sync {
    /// Nanoseconds for 16 elements in cache, roughly: what the decision to use threads needs.
    const NS: f32 = 3.0;

    /// The function. Implementations are `#[inline(always)]`.
    fn lanes<I: Isa>(self, isa: I, x: [I::F32; N]) -> I::F32;
}

/// Defines a function of `N` numbers: `lanes!(struct Add: 2 in 3.0 ns, |self, isa, [x, y]| isa.add(x, y));`
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
    // SAFETY: the lengths are equal; the first input is the output, the second is borrowed beside
    // it.
    unsafe { stream(f, [out, x.as_ptr()], out, y.len(), false) }
}

/// `y[i] = f(y[i], a[i], b[i])`
#[track_caller]
pub(crate) fn update3<F: Lanes<3>>(f: F, y: &mut [f32], a: &[f32], b: &[f32]) {
    assert!(a.len() == y.len() && b.len() == y.len(), "element-wise: inputs and output must have the same length");
    let out = y.as_mut_ptr();
    // SAFETY: the lengths are equal; the first input is the output, the others are borrowed beside
    // it.
    unsafe { stream(f, [out, a.as_ptr(), b.as_ptr()], out, y.len(), false) }
}

/// Outputs of this many elements go past the caches: they would not be found there by whoever reads
/// them next, and a store that does not first fetch its line saves a third of the traffic.
pub(crate) const PAST_CACHES: usize = 8 << 20;

/// # Safety
///
/// - each of `x` is valid for reads and `y` for writes of `len` elements, by other threads too;
/// - each of `x` is `y` itself or does not overlap it.
unsafe fn stream<const N: usize, F: Lanes<N>>(f: F, x: [*const f32; N], y: *mut f32, len: usize, past_caches: bool) {
    let chunk = parallel::chunk_len(len, 16, F::NS);
    let whole = Stream { f, x, y, len, past_caches };
    if chunk >= len {
        return dispatch(whole);
    }
    parallel::for_each(len.div_ceil(chunk), |i| dispatch(whole.part(i * chunk, chunk)));
}

/// The loop, over all or one thread's part.
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
    /// From `start` on, at most `len` elements.
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
        let mut i = 0;
        if past_caches {
            let to_aligned = y.align_offset(4 * I::LANES);
            if to_aligned <= len {
                if to_aligned > 0 {
                    // SAFETY: `to_aligned < LANES` elements at 0, within `len`.
                    unsafe { partial(isa, f, x, y, 0, to_aligned) };
                }
                i = to_aligned;
                while i + 4 * I::LANES <= len {
                    // SAFETY: four vectors at `i` are within `len`, and `y + i` is aligned to a
                    // vector.
                    unsafe { four(isa, f, x, i, |j, v| isa.stream_ptr(y.add(j), v)) };
                    i += 4 * I::LANES;
                }
                isa.stream_fence();
            }
        }
        while i + 4 * I::LANES <= len {
            // SAFETY: four vectors at `i` are within `len`.
            unsafe { four(isa, f, x, i, |j, v| isa.store_ptr(y.add(j), v)) };
            i += 4 * I::LANES;
        }
        while i < len {
            let n = (len - i).min(I::LANES);
            // SAFETY: `n` elements at `i` are within `len`.
            unsafe { partial(isa, f, x, y, i, n) };
            i += n;
        }
    }
}

/// Four vectors at `i`: enough that the latency of one hides behind the others.
///
/// # Safety
///
/// - each of `x` is readable, and `store` may be called, from `i` to `i + 4 * LANES`.
#[inline(always)]
unsafe fn four<I: Isa, const N: usize, F: Lanes<N>>(
    isa: I,
    f: F,
    x: [*const f32; N],
    i: usize,
    store: impl Fn(usize, I::F32),
) {
    let at = |j: usize| {
        let i = i + j * I::LANES;
        // SAFETY: within the four vectors.
        f.lanes(isa, x.map(|x| unsafe { isa.load_ptr(x.add(i)) }))
    };
    let (y0, y1, y2, y3) = (at(0), at(1), at(2), at(3));
    store(i, y0);
    store(i + I::LANES, y1);
    store(i + 2 * I::LANES, y2);
    store(i + 3 * I::LANES, y3);
}

/// `n <= LANES` elements at `i`.
///
/// # Safety
///
/// - `n <= LANES`; each of `x` is readable and `y` writable from `i` to `i + n`.
#[inline(always)]
unsafe fn partial<I: Isa, const N: usize, F: Lanes<N>>(
    isa: I,
    f: F,
    x: [*const f32; N],
    y: *mut f32,
    i: usize,
    n: usize,
) {
    // SAFETY: the contract.
    unsafe {
        let v = f.lanes(isa, x.map(|x| isa.load_partial_ptr(x.add(i), n)));
        isa.store_partial_ptr(y.add(i), v, n);
    }
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
