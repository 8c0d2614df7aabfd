//! Loops over one row, and reductions whose bits do not depend on the vector's width.
//!
//! A sum over a row has 32 partial sums, element i in number i mod 32, whatever the width of the
//! vectors: two registers of AVX-512, four of AVX2, eight of NEON. They are added as a halving
//! tree, i with i + 16, then i + 8, and so on.

use super::elementwise::{Lanes, apply, load, load_partial};
use crate::kernels::parallel;
use crate::kernels::simd::Isa;

/// The number of partial sums of a row.
pub(crate) const WIDE: usize = 32;

/// The distance of prefetches from the current element, in elements.
const AHEAD: usize = 1024;

/// The partial results of a row: `WIDE / LANES` vectors, the others unused.
#[derive(Clone, Copy)]
pub(crate) struct Wide<I: Isa>([I::F32; 8]);

impl<I: Isa> Wide<I> {
    #[inline(always)]
    pub(crate) fn splat(isa: I, x: f32) -> Self {
        Wide([isa.splat(x); 8])
    }

    /// Returns the sum, as a halving tree.
    #[inline(always)]
    pub(crate) fn sum(self, isa: I) -> f32 {
        isa.reduce_sum(self.halve(isa, Sum))
    }

    /// Returns the maximum, by the same tree.
    #[inline(always)]
    pub(crate) fn max(self, isa: I) -> f32 {
        isa.reduce_max(self.halve(isa, Max))
    }

    #[inline(always)]
    fn halve(self, isa: I, f: impl Fold<1>) -> I::F32 {
        let mut v = self.0;
        let mut n = WIDE / I::LANES;
        while n > 1 {
            n /= 2;
            for j in 0..n {
                v[j] = f.fold(isa, v[j], [v[j + n]]);
            }
        }
        v[0]
    }
}

/// `partial = f(partial, elements)`; see [`Lanes`] for why this is not a closure.
pub(crate) trait Fold<const N: usize>: Copy + Sync {
    /// The function. Implementations are `#[inline(always)]`.
    fn fold<I: Isa>(self, isa: I, partial: I::F32, x: [I::F32; N]) -> I::F32;
}

/// Σ x
#[derive(Clone, Copy)]
pub(crate) struct Sum;

impl Fold<1> for Sum {
    #[inline(always)]
    fn fold<I: Isa>(self, isa: I, partial: I::F32, [x]: [I::F32; 1]) -> I::F32 {
        isa.add(partial, x)
    }
}

/// max x
#[derive(Clone, Copy)]
pub(crate) struct Max;

impl Fold<1> for Max {
    #[inline(always)]
    fn fold<I: Isa>(self, isa: I, partial: I::F32, [x]: [I::F32; 1]) -> I::F32 {
        isa.max(partial, x)
    }
}

/// Σ x·y
#[derive(Clone, Copy)]
pub(crate) struct Dot;

impl Fold<2> for Dot {
    #[inline(always)]
    fn fold<I: Isa>(self, isa: I, partial: I::F32, [x, y]: [I::F32; 2]) -> I::F32 {
        isa.mul_add(x, y, partial)
    }
}

/// Σ (x - centre)²
#[derive(Clone, Copy)]
pub(crate) struct SumSquares {
    pub(crate) centre: f32,
}

impl Fold<1> for SumSquares {
    #[inline(always)]
    fn fold<I: Isa>(self, isa: I, partial: I::F32, [x]: [I::F32; 1]) -> I::F32 {
        let x = isa.sub(x, isa.splat(self.centre));
        isa.mul_add(x, x, partial)
    }
}

/// Sums a row, with partial sums that start at zero.
#[inline(always)]
pub(crate) fn sum_row<I: Isa, const N: usize>(isa: I, x: [&[f32]; N], f: impl Fold<N>) -> f32 {
    fold_row(isa, x, Wide::splat(isa, 0.0), f).sum(isa)
}

/// Folds the elements of rows of equal length.
#[inline(always)]
pub(crate) fn fold_row<I: Isa, const N: usize>(isa: I, x: [&[f32]; N], mut wide: Wide<I>, f: impl Fold<N>) -> Wide<I> {
    let len = x[0].len();
    assert!(x.iter().all(|x| x.len() == len));
    let rows = x.map(<[f32]>::as_ptr);
    let mut i = 0;
    while i + WIDE <= len {
        for j in 0..WIDE / I::LANES {
            // SAFETY: `i + WIDE <= len`, the length of each row.
            let v = unsafe { load(isa, rows, i + j * I::LANES) };
            wide.0[j] = f.fold(isa, wide.0[j], v);
        }
        i += WIDE;
    }
    if i < len {
        for j in 0..WIDE / I::LANES {
            let n = len.saturating_sub(i + j * I::LANES).min(I::LANES);
            // SAFETY: `n` elements from `i + j * LANES` on are within the length of each row.
            let v = unsafe { load_partial(isa, rows, i + j * I::LANES, n) };
            wide.0[j] = isa.select(isa.first_lanes(n), f.fold(isa, wide.0[j], v), wide.0[j]);
        }
    }
    wide
}

/// Computes `y[i] = f(x[i])` over one row; returns Σ y.
#[inline(always)]
pub(crate) fn map_sum_row<I: Isa>(isa: I, x: &[f32], y: &mut [f32], f: impl Lanes<1>) -> f32 {
    assert_eq!(x.len(), y.len());
    let mut wide = Wide::splat(isa, 0.0);
    let (mut inputs, mut outputs) = (x.chunks_exact(WIDE), y.chunks_exact_mut(WIDE));
    for (x, y) in (&mut inputs).zip(&mut outputs) {
        // The hardware prefetcher stops at the end of a page; this fetches the row after this one.
        (0..WIDE).step_by(16).for_each(|line| isa.prefetch(x.as_ptr().wrapping_add(AHEAD + line)));
        for j in 0..WIDE / I::LANES {
            let v = f.lanes(isa, [isa.load(&x[j * I::LANES..])]);
            isa.store(&mut y[j * I::LANES..], v);
            wide.0[j] = isa.add(wide.0[j], v);
        }
    }
    let (x, y) = (inputs.remainder(), outputs.into_remainder());
    for (j, (x, y)) in x.chunks(I::LANES).zip(y.chunks_mut(I::LANES)).enumerate() {
        let v = f.lanes(isa, [isa.load_partial(x)]);
        isa.store_partial(y, v);
        wide.0[j] = isa.add(wide.0[j], isa.select(isa.first_lanes(x.len()), v, isa.zero()));
    }
    wide.sum(isa)
}

/// `y[i] = f(x0[i], x1[i], …)` over one row.
#[inline(always)]
pub(crate) fn map_row<I: Isa, const N: usize>(isa: I, x: [&[f32]; N], y: &mut [f32], f: impl Lanes<N>) {
    let len = y.len();
    assert!(x.iter().all(|x| x.len() == len));
    // SAFETY: every row has `len` elements, and `y` is borrowed mutably.
    unsafe { apply(isa, f, x.map(<[f32]>::as_ptr), y.as_mut_ptr(), len, false) }
}

/// `y[i] = f(y[i])` over one row.
#[inline(always)]
pub(crate) fn update_row<I: Isa>(isa: I, y: &mut [f32], f: impl Lanes<1>) {
    let out = y.as_mut_ptr();
    // SAFETY: the input is the output.
    unsafe { apply(isa, f, [out.cast_const()], out, y.len(), false) }
}

/// `y[i] = f(y[i], x[i])` over one row.
#[inline(always)]
pub(crate) fn update_row2<I: Isa>(isa: I, y: &mut [f32], x: &[f32], f: impl Lanes<2>) {
    assert_eq!(x.len(), y.len());
    let out = y.as_mut_ptr();
    // SAFETY: the lengths are equal; the first input is the output.
    unsafe { apply(isa, f, [out.cast_const(), x.as_ptr()], out, y.len(), false) }
}

/// `y[i] = f(y[i], a[i], b[i])` over one row.
#[inline(always)]
pub(crate) fn update_row3<I: Isa>(isa: I, y: &mut [f32], a: &[f32], b: &[f32], f: impl Lanes<3>) {
    assert!(a.len() == y.len() && b.len() == y.len());
    let out = y.as_mut_ptr();
    let inputs = [out.cast_const(), a.as_ptr(), b.as_ptr()];
    // SAFETY: the lengths are equal; the first input is the output.
    unsafe { apply(isa, f, inputs, out, y.len(), false) }
}

/// Same as [`map_row`], but stores past the caches, for rows of an output larger than they are. The
/// caller fences ([`Isa::stream_fence`]) after the last row.
#[inline(always)]
pub(crate) fn map_row_past_caches<I: Isa, const N: usize>(isa: I, x: [&[f32]; N], y: &mut [f32], f: impl Lanes<N>) {
    let len = y.len();
    assert!(x.iter().all(|x| x.len() == len));
    // SAFETY: every row has `len` elements, and `y` is borrowed mutably.
    unsafe { apply(isa, f, x.map(<[f32]>::as_ptr), y.as_mut_ptr(), len, true) }
}

/// Returns the number of rows in a task, at `ns` nanoseconds for 16 elements.
pub(crate) fn chunk_rows(rows: usize, cols: usize, ns: f32) -> usize {
    parallel::chunk_len(rows, 1, ns * cols as f32 / 16.0 + 5.0)
}

/// Returns the number of rows of `cols` elements in `len`.
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

    struct RowSum<'a>(&'a [f32]);

    impl SimdOp for RowSum<'_> {
        type Output = [f32; 2];
        #[inline(always)]
        fn eval<I: Isa>(self, isa: I) -> [f32; 2] {
            let mut copy = vec![0.0; self.0.len()];
            let sum = map_sum_row(isa, self.0, &mut copy, Same);
            assert_eq!(copy, self.0);
            [sum_row(isa, [self.0], Sum), sum]
        }
    }

    #[derive(Clone, Copy)]
    struct Same;

    impl Lanes<1> for Same {
        #[inline(always)]
        fn lanes<I: Isa>(self, _isa: I, [x]: [I::F32; 1]) -> I::F32 {
            x
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
            for_each_level(|level| assert_eq!(dispatch(RowSum(&x)), [tree[0]; 2], "{level:?}, {len} elements"));
        }
    }
}
