//! Reductions of whole slices, and of columns.
//!
//! A slice is cut into groups of 8192 elements, a matrix into groups of 64 rows, whatever the
//! number of threads. A group is reduced in `f32` with 32 partial sums; the results of the groups
//! are added in order, those of slices in `f64`. So the error of a sum of n numbers is about n/8192
//! roundings of `f64` and at most 261 of `f32`. A group of a slice whose partial sums overflow
//! `f32` is added in `f64`.

use super::arithmetic::Add;
use super::rows::{Dot, Fold, Max, Sum, SumSquares, Wide, count_rows, fold_row, sum_row, update_row2};
use crate::kernels::parallel::{self, Parts};
use crate::kernels::simd::{Isa, SimdOp, dispatch};

/// The number of elements that are reduced in `f32`.
const GROUP: usize = 8192;
/// The number of rows in a group whose columns are summed first.
pub(super) const ROW_GROUP: usize = 64;
/// The number of columns in a task.
const COLUMN_BAND: usize = 4096;

/// Σ x
pub fn sum(x: &[f32]) -> f64 {
    reduce(Sum, [x], |[x]| x)
}

/// Σ x²
pub fn sum_squares(x: &[f32]) -> f64 {
    reduce(SumSquares { centre: 0.0 }, [x], |[x]| x * x)
}

/// Σ x·y
pub fn dot(x: &[f32], y: &[f32]) -> f32 {
    assert_eq!(x.len(), y.len(), "dot: both must have the same length");
    reduce(Dot, [x, y], |[x, y]| x * y) as f32
}

/// Returns the largest element; NaN if there is one, -∞ if there are no elements.
pub fn max(x: &[f32]) -> f32 {
    dispatch(Largest(x))
}

/// Returns the first index of the largest element, or of the first NaN if there is one. `None` if
/// there are no elements.
pub fn argmax(x: &[f32]) -> Option<usize> {
    let largest = max(x);
    x.iter().position(|&x| x == largest || x.is_nan())
}

/// out\[c\] = Σ over rows of x\[row, c\]; added to `out` if `accumulate`.
///
/// # Shapes
///
/// `x` `[rows, cols]`, `out` `[cols]`.
pub fn sum_rows(x: &[f32], cols: usize, out: &mut [f32], accumulate: bool) {
    assert_eq!(out.len(), cols, "sum_rows: one sum for each column");
    let rows = count_rows(x.len(), cols);
    if !accumulate {
        out.fill(0.0);
    }
    if rows == 0 {
        return;
    }
    let groups = rows.div_ceil(ROW_GROUP);
    let bands = cols.div_ceil(COLUMN_BAND);
    // Row `g` receives the sums of group `g`; bands of columns are disjoint.
    let mut partial = vec![0.0; groups * cols];
    let group_rows = Parts::new(&mut partial, cols);
    let work = |group: usize, sums: &mut [f32]| {
        let rows = group * ROW_GROUP..rows.min((group + 1) * ROW_GROUP);
        for band in 0..bands {
            let columns = band * COLUMN_BAND..cols.min((band + 1) * COLUMN_BAND);
            dispatch(AddRows { x, rows: rows.clone(), cols, columns: columns.clone(), sums: &mut sums[columns] });
        }
    };
    let per_task = parallel::chunk_len(groups, 1, (ROW_GROUP * cols) as f32 * 0.15);
    parallel::for_each(groups.div_ceil(per_task), |task| {
        for group in task * per_task..groups.min((task + 1) * per_task) {
            // SAFETY: each group belongs to one task.
            work(group, unsafe { group_rows.get(group) });
        }
    });
    add_groups(&partial, out);
}

/// out += the rows of `partial`, in order.
pub(super) fn add_groups(partial: &[f32], out: &mut [f32]) {
    let cols = out.len();
    let rows = count_rows(partial.len(), cols);
    dispatch(AddRows { x: partial, rows: 0..rows, cols, columns: 0..cols, sums: out });
}

/// sums\[c\] += x\[row, c\], row by row.
struct AddRows<'a> {
    x: &'a [f32],
    rows: std::ops::Range<usize>,
    cols: usize,
    columns: std::ops::Range<usize>,
    sums: &'a mut [f32],
}

impl SimdOp for AddRows<'_> {
    type Output = ();
    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        for row in self.rows {
            let x = &self.x[row * self.cols..][self.columns.clone()];
            update_row2(isa, self.sums, x, Add);
        }
    }
}

/// `wide` computes in `f64` what `f` adds.
fn reduce<const N: usize, F: Fold<N>>(f: F, x: [&[f32]; N], wide: fn([f64; N]) -> f64) -> f64 {
    let group = |x: [&[f32]; N]| {
        let sum = dispatch(Group { f, x });
        if sum.is_finite() {
            return sum as f64;
        }
        // Infinite or NaN: either an element is, or a partial sum overflowed.
        (0..x[0].len()).map(|i| wide(x.map(|x| x[i] as f64))).sum()
    };
    let len = x[0].len();
    if len <= GROUP {
        return group(x);
    }
    let mut sums = vec![0.0f64; len.div_ceil(GROUP)];
    let per_task = parallel::chunk_len(sums.len(), 1, GROUP as f32 * 0.1);
    parallel::chunks_mut(&mut sums, per_task, |task, sums| {
        for (i, sum) in sums.iter_mut().enumerate() {
            let start = (task * per_task + i) * GROUP;
            *sum = group(x.map(|x| &x[start..len.min(start + GROUP)]));
        }
    });
    sums.iter().sum()
}

struct Group<'a, const N: usize, F> {
    f: F,
    x: [&'a [f32]; N],
}

impl<const N: usize, F: Fold<N>> SimdOp for Group<'_, N, F> {
    type Output = f32;
    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) -> f32 {
        sum_row(isa, self.x, self.f)
    }
}

struct Largest<'a>(&'a [f32]);

impl SimdOp for Largest<'_> {
    type Output = f32;
    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) -> f32 {
        // In the plain maximum, NaN replaces a number, but the next number replaces NaN.
        if sum_row(isa, [self.0], CountNans) > 0.0 {
            return f32::NAN;
        }
        fold_row(isa, [self.0], Wide::splat(isa, f32::NEG_INFINITY), Max).max(isa)
    }
}

#[derive(Clone, Copy)]
struct CountNans;

impl Fold<1> for CountNans {
    #[inline(always)]
    fn fold<I: Isa>(self, isa: I, partial: I::F32, [x]: [I::F32; 1]) -> I::F32 {
        isa.select(isa.eq(x, x), partial, isa.splat(1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{LENGTHS, assert_close, random};
    use super::*;
    use crate::kernels::simd::for_each_level;

    #[test]
    fn sums_match_double_precision() {
        for_each_level(|_| {
            for len in LENGTHS.into_iter().chain([8191, 8192, 8193, 100_001]) {
                let (x, y) = (random(len, 1), random(len, 2));
                let wide = |f: &dyn Fn(f64, f64) -> f64| -> f64 {
                    x.iter().zip(&y).map(|(&x, &y)| f(x as f64, y as f64)).sum()
                };
                let bound = 1e-6 * (len as f64).max(1.0);
                assert!((sum(&x) - wide(&|x, _| x)).abs() <= bound);
                assert!((sum_squares(&x) - wide(&|x, _| x * x)).abs() <= bound);
                assert!((dot(&x, &y) as f64 - wide(&|x, y| x * y)).abs() <= bound);
            }
        });
    }

    #[test]
    fn partial_sums_past_the_range_of_f32_are_added_in_f64() {
        for_each_level(|_| {
            for len in [3, 8192, 20_000] {
                let mut x = vec![0.0; len];
                (x[0], x[len / 2], x[len - 1]) = (1e38, -1e38, 3e38);
                assert_eq!(sum(&x) as f32, 3e38);
                assert!((sum(&vec![3e38; len]) / len as f64 - f64::from(3e38f32)).abs() < 1e30);
                let squares = sum_squares(&x);
                assert!((squares / 1.1e77 - 1.0).abs() < 1e-6, "{squares}");
                x[1] = f32::NAN;
                assert!(sum(&x).is_nan() && sum_squares(&x).is_nan());
                x[1] = f32::INFINITY;
                assert_eq!((sum(&x), sum_squares(&x)), (f64::INFINITY, f64::INFINITY));
            }
            let found = dot(&[1e20, 1e15, -1e20], &[1e20, 1e15, 1e20]);
            assert!((found / 1e30 - 1.0).abs() < 1e-5, "{found}");
        });
    }

    #[test]
    fn maxima_and_their_places() {
        for_each_level(|_| {
            assert_eq!((max(&[]), argmax(&[])), (f32::NEG_INFINITY, None));
            for len in 1..100 {
                let x = random(len, 5);
                let expected = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                assert_eq!(max(&x), expected);
                assert_eq!(argmax(&x), x.iter().position(|&x| x == expected));
                let mut bad = x.clone();
                bad[len / 2] = f32::NAN;
                assert!(max(&bad).is_nan());
                assert_eq!(argmax(&bad), Some(len / 2));
            }
            assert_eq!(argmax(&[1.0, 3.0, 3.0]), Some(1));
        });
    }

    #[test]
    fn columns_are_added_in_fixed_groups() {
        for_each_level(|_| {
            for (rows, cols) in [(0, 3), (1, 1), (5, 7), (63, 16), (64, 33), (65, 65), (300, 20), (3, 9001)] {
                let x = random(rows * cols, 1);
                let mut expected = vec![0.0; cols];
                for group in x.chunks(ROW_GROUP * cols) {
                    let mut sums = vec![0.0; cols];
                    group.chunks(cols).for_each(|row| row.iter().zip(&mut sums).for_each(|(x, sum)| *sum += x));
                    sums.iter().zip(&mut expected).for_each(|(sum, out)| *out += sum);
                }
                let mut out = vec![7.0; cols];
                sum_rows(&x, cols, &mut out, false);
                assert_eq!(out, expected);
                sum_rows(&x, cols, &mut out, true);
                let twice: Vec<f32> = expected.iter().map(|x| 2.0 * x).collect();
                assert_close(&out, &twice, 1e-5);
            }
        });
    }

    #[test]
    fn threads_do_not_change_a_bit() {
        let x = random(1 << 20, 1);
        let run = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| {
                let mut columns = vec![0.0; 256];
                sum_rows(&x, 256, &mut columns, false);
                (sum(&x), dot(&x, &x), columns)
            })
        };
        let alone = run(1);
        assert!((2..=4).all(|threads| run(threads) == alone));
    }
}
