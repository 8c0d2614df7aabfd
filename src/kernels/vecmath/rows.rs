//! What the functions of rows share: loops over one row, and reductions whose bits do not depend on the vector's width.
//!
//! A sum over a row keeps 32 partial sums, element i in number i mod 32, whatever the vector: two registers of AVX-512,
//! four of AVX2, eight of NEON. They are added as a halving tree, i with i + 16, then i + 8, and so on.

use crate::kernels::parallel;
use crate::kernels::simd::Isa;

/// Partial sums of a row.
pub(crate) const WIDE: usize = 32;

/// The partial results of a row: `WIDE / LANES` vectors, the others unused.
#[derive(Clone, Copy)]
pub(crate) struct Wide<I: Isa>([I::F32; 8]);

impl<I: Isa> Wide<I> {
    #[inline(always)]
    pub(crate) fn splat(isa: I, x: f32) -> Self {
        Wide([isa.splat(x); 8])
    }

    /// The sum, as a halving tree.
    #[inline(always)]
    pub(crate) fn sum(self, isa: I) -> f32 {
        isa.reduce_sum(self.halve(|a, b| isa.add(a, b)))
    }

    /// The maximum, by the same tree.
    #[inline(always)]
    pub(crate) fn max(self, isa: I) -> f32 {
        isa.reduce_max(self.halve(|a, b| isa.max(a, b)))
    }

    #[inline(always)]
    fn halve(self, f: impl Fn(I::F32, I::F32) -> I::F32) -> I::F32 {
        let mut v = self.0;
        let mut n = WIDE / I::LANES;
        while n > 1 {
            n /= 2;
            for j in 0..n {
                v[j] = f(v[j], v[j + n]);
            }
        }
        v[0]
    }
}

/// Folds the elements of rows of equal length: `partial = f(partial, elements)`.
#[inline(always)]
pub(crate) fn fold_row<I: Isa, const N: usize>(
    isa: I,
    x: [&[f32]; N],
    mut wide: Wide<I>,
    f: impl Fn(I::F32, [I::F32; N]) -> I::F32,
) -> Wide<I> {
    let len = x[0].len();
    assert!(x.iter().all(|x| x.len() == len));
    let mut i = 0;
    while i + WIDE <= len {
        for j in 0..WIDE / I::LANES {
            // SAFETY: `i + WIDE <= len`, the length of each row.
            let v = x.map(|x| unsafe { isa.load_ptr(x.as_ptr().add(i + j * I::LANES)) });
            wide.0[j] = f(wide.0[j], v);
        }
        i += WIDE;
    }
    if i < len {
        for j in 0..WIDE / I::LANES {
            let n = len.saturating_sub(i + j * I::LANES).min(I::LANES);
            // SAFETY: `n` elements from `i + j * LANES` on are within the length of each row.
            let v = x.map(|x| unsafe { isa.load_partial_ptr(x.as_ptr().wrapping_add(i + j * I::LANES), n) });
            wide.0[j] = isa.select(isa.first_lanes(n), f(wide.0[j], v), wide.0[j]);
        }
    }
    wide
}

/// `y[i] = f(x0[i], x1[i], …)` over one row.
#[inline(always)]
pub(crate) fn map_row<I: Isa, const N: usize>(
    isa: I,
    x: [&[f32]; N],
    y: &mut [f32],
    f: impl Fn([I::F32; N]) -> I::F32,
) {
    let len = y.len();
    assert!(x.iter().all(|x| x.len() == len));
    // SAFETY: every row has `len` elements, and `y` is borrowed mutably.
    unsafe { map_ptr(isa, x.map(<[f32]>::as_ptr), y.as_mut_ptr(), len, f) }
}

/// `y[i] = f(y[i])` over one row.
#[inline(always)]
pub(crate) fn update_row<I: Isa>(isa: I, y: &mut [f32], f: impl Fn(I::F32) -> I::F32) {
    let out = y.as_mut_ptr();
    // SAFETY: the input is the output.
    unsafe { map_ptr(isa, [out.cast_const()], out, y.len(), |[y]| f(y)) }
}

/// `y[i] = f(y[i], x[i])` over one row.
#[inline(always)]
pub(crate) fn update_row2<I: Isa>(isa: I, y: &mut [f32], x: &[f32], f: impl Fn(I::F32, I::F32) -> I::F32) {
    assert_eq!(x.len(), y.len());
    let out = y.as_mut_ptr();
    // SAFETY: the lengths are equal; the first input is the output.
    unsafe { map_ptr(isa, [out.cast_const(), x.as_ptr()], out, y.len(), |[y, x]| f(y, x)) }
}

/// `y[i] = f(y[i], a[i], b[i])` over one row.
#[inline(always)]
pub(crate) fn update_row3<I: Isa>(
    isa: I,
    y: &mut [f32],
    a: &[f32],
    b: &[f32],
    f: impl Fn(I::F32, I::F32, I::F32) -> I::F32,
) {
    assert!(a.len() == y.len() && b.len() == y.len());
    let out = y.as_mut_ptr();
    let inputs = [out.cast_const(), a.as_ptr(), b.as_ptr()];
    // SAFETY: the lengths are equal; the first input is the output.
    unsafe { map_ptr(isa, inputs, out, y.len(), |[y, a, b]| f(y, a, b)) }
}

/// # Safety
///
/// - each of `x` is valid for reads and `y` for writes of `len` elements;
/// - each of `x` is `y` itself or does not overlap it.
#[inline(always)]
unsafe fn map_ptr<I: Isa, const N: usize>(
    isa: I,
    x: [*const f32; N],
    y: *mut f32,
    len: usize,
    f: impl Fn([I::F32; N]) -> I::F32,
) {
    let mut i = 0;
    // Two at a time: short rows are common, long chains of latency are not.
    while i + 2 * I::LANES <= len {
        // SAFETY: two vectors at `i` are within `len`.
        unsafe {
            let a = f(x.map(|x| isa.load_ptr(x.add(i))));
            let b = f(x.map(|x| isa.load_ptr(x.add(i + I::LANES))));
            isa.store_ptr(y.add(i), a);
            isa.store_ptr(y.add(i + I::LANES), b);
        }
        i += 2 * I::LANES;
    }
    while i < len {
        let n = (len - i).min(I::LANES);
        // SAFETY: `n` elements at `i` are within `len`.
        unsafe {
            let v = f(x.map(|x| isa.load_partial_ptr(x.add(i), n)));
            isa.store_partial_ptr(y.add(i), v, n);
        }
        i += n;
    }
}

/// As [`map_row`], but past the caches: for rows of an output larger than they are. The caller fences
/// ([`Isa::stream_fence`]) after the last row.
#[inline(always)]
pub(crate) fn map_row_past_caches<I: Isa, const N: usize>(
    isa: I,
    x: [&[f32]; N],
    y: &mut [f32],
    f: impl Fn([I::F32; N]) -> I::F32,
) {
    let len = y.len();
    assert!(x.iter().all(|x| x.len() == len));
    let mut i = 0;
    let mut stop = y.as_ptr().align_offset(4 * I::LANES).min(len);
    while i < len {
        let n = (stop - i).min(I::LANES);
        // SAFETY: `n` elements at `i` are within every row; whole vectors begin where `y` is aligned.
        unsafe {
            let v = f(x.map(|x| isa.load_partial_ptr(x.as_ptr().add(i), n)));
            if n == I::LANES {
                isa.stream_ptr(y.as_mut_ptr().add(i), v);
            } else {
                isa.store_partial_ptr(y.as_mut_ptr().add(i), v, n);
            }
        }
        i += n;
        stop = len;
    }
}

/// How many rows a task takes, at `ns` nanoseconds for 16 elements.
pub(crate) fn chunk_rows(rows: usize, cols: usize, ns: f32) -> usize {
    parallel::chunk_len(rows, 1, ns * cols as f32 / 16.0 + 5.0)
}

/// The number of rows of `cols` elements in `len`.
#[track_caller]
pub(crate) fn count_rows(len: usize, cols: usize) -> usize {
    if len == 0 {
        return 0;
    }
    assert!(cols > 0 && len.is_multiple_of(cols), "{len} elements do not make rows of {cols}");
    len / cols
}

#[cfg(test)]
mod tests {
    use super::super::testing::random;
    use super::*;
    use crate::kernels::simd::{SimdOp, dispatch, for_each_level};

    struct Sum<'a>(&'a [f32]);

    impl SimdOp for Sum<'_> {
        type Output = f32;
        #[inline(always)]
        fn eval<I: Isa>(self, isa: I) -> f32 {
            fold_row(isa, [self.0], Wide::splat(isa, 0.0), |sum, [x]| isa.add(sum, x)).sum(isa)
        }
    }

    #[test]
    fn the_sum_of_a_row_has_the_same_bits_at_every_width() {
        for len in (0..130).chain([1001]) {
            let x = random(len, 3);
            let mut partial = [0.0; WIDE];
            x.iter().enumerate().for_each(|(i, x)| partial[i % WIDE] += x);
            let mut tree = partial.to_vec();
            while tree.len() > 1 {
                let half = tree.len() / 2;
                tree = (0..half).map(|i| tree[i] + tree[i + half]).collect();
            }
            for_each_level(|level| assert_eq!(dispatch(Sum(&x)), tree[0], "{level:?}, {len} elements"));
        }
    }
}
