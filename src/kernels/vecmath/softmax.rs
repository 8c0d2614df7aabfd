//! Softmax and its logarithm, forward and backward.
//!
//! ```text
//! y_i = e^(x_i - m) / Σ_j e^(x_j - m),  m = max x        dx_i = y_i (dy_i - Σ_j dy_j y_j)
//! y_i = x_i - m - ln Σ_j e^(x_j - m)                     dx_i = dy_i - e^(y_i) Σ_j dy_j
//! ```
//!
//! The softmax of a row whose elements are all -∞ is a row of zeros: a fully masked row yields
//! zeros. Its logarithm is a row of -∞ then, and neither has a gradient. (In PyTorch such a row is
//! NaN, which the next product spreads over the batch.)

use super::arithmetic::Scale;
use super::elementwise::{Lanes, PAST_CACHES, lanes};
use super::exp::exp_below_overflow;
use super::rows::{Dot, Fold, Max, Sum, Wide, chunk_rows, count_rows, fold_row, sum_row};
use super::rows::{map_row, map_row_past_caches, map_sum_row, update_row};
use crate::kernels::parallel::{self, Parts};
use crate::kernels::simd::{Isa, SimdOp, dispatch};

/// The longest row, in elements, that goes through a scratch buffer when its output is stored past
/// the caches.
const SCRATCH: usize = 16 << 10;

/// Computes the softmax of each row.
///
/// # Shapes
///
/// `x` and `y` `[rows, cols]`.
///
/// # Examples
///
/// ```
/// let mut y = [0.0; 4];
/// loquat::kernels::vecmath::softmax(&[1.0, 1.0, f32::NEG_INFINITY, 1.0], 2, &mut y);
/// assert_eq!(y, [0.5, 0.5, 0.0, 1.0]);
/// ```
pub fn softmax(x: &[f32], cols: usize, y: &mut [f32]) {
    assert_eq!(x.len(), y.len(), "softmax: input and output must have the same length");
    let rows = count_rows(x.len(), cols);
    if rows == 0 {
        return;
    }
    let past_caches = x.len() >= PAST_CACHES && cols <= SCRATCH;
    let y = Parts::new(y, chunk_rows(rows, cols, 8.0) * cols);
    parallel::for_each(y.count(), |i| {
        // SAFETY: each task takes the part with its own index.
        let part = unsafe { y.get(i) };
        let x = &x[y.range(i)];
        if past_caches {
            dispatch(SoftmaxPastCaches { x, y: part, cols });
        } else {
            dispatch(Softmax { x, y: part, cols });
        }
    });
}

/// Computes dx of [`softmax`] from its output.
///
/// # Shapes
///
/// All `[rows, cols]`.
pub fn softmax_backward(dy: &[f32], y: &[f32], cols: usize, dx: &mut [f32]) {
    backward(dy, y, cols, dx, |dy, y, dx| dispatch(SoftmaxBackward { dy, y, dx, cols }));
}

/// Computes the logarithm of the softmax of each row.
///
/// # Shapes
///
/// `x` and `y` `[rows, cols]`.
pub fn log_softmax(x: &[f32], cols: usize, y: &mut [f32]) {
    assert_eq!(x.len(), y.len(), "log_softmax: input and output must have the same length");
    let rows = count_rows(x.len(), cols);
    if rows == 0 {
        return;
    }
    let y = Parts::new(y, chunk_rows(rows, cols, 8.0) * cols);
    parallel::for_each(y.count(), |i| {
        // SAFETY: each task takes the part with its own index.
        let part = unsafe { y.get(i) };
        dispatch(LogSoftmax { x: &x[y.range(i)], y: part, cols });
    });
}

/// Computes dx of [`log_softmax`] from its output.
///
/// # Shapes
///
/// All `[rows, cols]`.
pub fn log_softmax_backward(dy: &[f32], y: &[f32], cols: usize, dx: &mut [f32]) {
    backward(dy, y, cols, dx, |dy, y, dx| dispatch(LogSoftmaxBackward { dy, y, dx, cols }));
}

#[track_caller]
fn backward(dy: &[f32], y: &[f32], cols: usize, dx: &mut [f32], f: impl Fn(&[f32], &[f32], &mut [f32]) + Sync) {
    assert!(dy.len() == dx.len() && y.len() == dx.len(), "softmax backward: all must have the same length");
    let rows = count_rows(dx.len(), cols);
    if rows == 0 {
        return;
    }
    let dx = Parts::new(dx, chunk_rows(rows, cols, 6.0) * cols);
    parallel::for_each(dx.count(), |i| {
        // SAFETY: each task takes the part with its own index.
        let part = unsafe { dx.get(i) };
        f(&dy[dx.range(i)], &y[dx.range(i)], part);
    });
}

/// max x
#[inline(always)]
pub(super) fn row_max<I: Isa>(isa: I, x: &[f32]) -> f32 {
    fold_row(isa, [x], Wide::splat(isa, f32::NEG_INFINITY), Max).max(isa)
}

/// Σ e^(x - max)
#[inline(always)]
pub(super) fn row_sum_exp<I: Isa>(isa: I, x: &[f32], max: f32) -> f32 {
    sum_row(isa, [x], SumExp(max))
}

// e^(x - max), for max ≥ x
lanes!(struct ExpBelow(f32): 1, |self, isa, [x]| exp_below_overflow(isa, isa.sub(x, isa.splat(self.0))));

/// Σ e^(x - max), for max ≥ x
#[derive(Clone, Copy)]
struct SumExp(f32);

impl Fold<1> for SumExp {
    #[inline(always)]
    fn fold<I: Isa>(self, isa: I, partial: I::F32, x: [I::F32; 1]) -> I::F32 {
        isa.add(partial, ExpBelow(self.0).lanes(isa, x))
    }
}

/// y = e^(x - max); returns 1 / Σ y, or 0 for a row whose elements are all -∞.
#[inline(always)]
fn row_exp<I: Isa>(isa: I, x: &[f32], y: &mut [f32]) -> f32 {
    let max = row_max(isa, x);
    let sum = map_sum_row(isa, x, y, ExpBelow(if max == f32::NEG_INFINITY { 0.0 } else { max }));
    if sum == 0.0 { 0.0 } else { 1.0 / sum }
}

struct Softmax<'a> {
    x: &'a [f32],
    y: &'a mut [f32],
    cols: usize,
}

impl SimdOp for Softmax<'_> {
    type Output = ();
    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        for (x, y) in self.x.chunks_exact(self.cols).zip(self.y.chunks_exact_mut(self.cols)) {
            let inverse = row_exp(isa, x, y);
            update_row(isa, y, Scale(inverse));
        }
    }
}

/// Same as [`Softmax`], with the exponentials in a buffer, so that `y` is written once and not
/// read.
struct SoftmaxPastCaches<'a> {
    x: &'a [f32],
    y: &'a mut [f32],
    cols: usize,
}

impl SimdOp for SoftmaxPastCaches<'_> {
    type Output = ();
    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        let mut scratch = vec![0.0; self.cols];
        for (x, y) in self.x.chunks_exact(self.cols).zip(self.y.chunks_exact_mut(self.cols)) {
            let inverse = row_exp(isa, x, &mut scratch);
            map_row_past_caches(isa, [&scratch], y, Scale(inverse));
        }
        isa.stream_fence();
    }
}

struct SoftmaxBackward<'a> {
    dy: &'a [f32],
    y: &'a [f32],
    dx: &'a mut [f32],
    cols: usize,
}

impl SimdOp for SoftmaxBackward<'_> {
    type Output = ();
    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        let inputs = self.dy.chunks_exact(self.cols).zip(self.y.chunks_exact(self.cols));
        for ((dy, y), dx) in inputs.zip(self.dx.chunks_exact_mut(self.cols)) {
            let dot = sum_row(isa, [dy, y], Dot);
            map_row(isa, [dy, y], dx, SoftmaxSlope { dot });
        }
    }
}

lanes!(struct SoftmaxSlope { dot: f32 }: 2, |self, isa, [dy, y]| {
    isa.mul(y, isa.sub(dy, isa.splat(self.dot)))
});

struct LogSoftmax<'a> {
    x: &'a [f32],
    y: &'a mut [f32],
    cols: usize,
}

impl SimdOp for LogSoftmax<'_> {
    type Output = ();
    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        for (x, y) in self.x.chunks_exact(self.cols).zip(self.y.chunks_exact_mut(self.cols)) {
            let max = row_max(isa, x);
            // A row of only -∞, or of -∞ and NaN, which stays as it is.
            let base = if max == f32::NEG_INFINITY { 0.0 } else { max };
            let sum = row_sum_exp(isa, x, base);
            let log_sum = if sum == 0.0 { 0.0 } else { sum.ln() };
            map_row(isa, [x], y, Below { max: base, log_sum });
        }
    }
}

// x - max - log_sum
lanes!(struct Below { max: f32, log_sum: f32 }: 1, |self, isa, [x]| {
    // In this order, as in PyTorch: x - max is exact near the top, where it matters.
    isa.sub(isa.sub(x, isa.splat(self.max)), isa.splat(self.log_sum))
});

struct LogSoftmaxBackward<'a> {
    dy: &'a [f32],
    y: &'a [f32],
    dx: &'a mut [f32],
    cols: usize,
}

impl SimdOp for LogSoftmaxBackward<'_> {
    type Output = ();
    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        let inputs = self.dy.chunks_exact(self.cols).zip(self.y.chunks_exact(self.cols));
        for ((dy, y), dx) in inputs.zip(self.dx.chunks_exact_mut(self.cols)) {
            if y[0] == f32::NEG_INFINITY && y.iter().all(|&y| y == f32::NEG_INFINITY) {
                dx.fill(0.0);
                continue;
            }
            let sum = sum_row(isa, [dy], Sum);
            map_row(isa, [dy, y], dx, LogSoftmaxSlope { sum });
        }
    }
}

lanes!(struct LogSoftmaxSlope { sum: f32 }: 2, |self, isa, [dy, y]| {
    isa.neg_mul_add(exp_below_overflow(isa, y), isa.splat(self.sum), dy)
});

#[cfg(test)]
mod tests {
    use super::super::testing::{assert_close, random};
    use super::*;
    use crate::kernels::simd::for_each_level;

    const COLS: [usize; 9] = [1, 2, 7, 16, 31, 33, 65, 100, 1000];

    fn reference(x: &[f32], cols: usize, log: bool) -> Vec<f32> {
        let row = |x: &[f32]| -> Vec<f32> {
            let max = x.iter().copied().fold(f32::NEG_INFINITY, f32::max) as f64;
            let sum: f64 = x.iter().map(|&x| (x as f64 - max).exp()).sum();
            let log_y = x.iter().map(|&x| x as f64 - max - sum.ln());
            log_y.map(|y| if log { y as f32 } else { y.exp() as f32 }).collect()
        };
        x.chunks(cols).flat_map(row).collect()
    }

    #[test]
    fn both_match_double_precision() {
        for_each_level(|_| {
            for cols in COLS {
                let x: Vec<f32> = random(5 * cols, 1).iter().map(|x| 20.0 * x).collect();
                let mut y = vec![7.0; x.len()];
                softmax(&x, cols, &mut y);
                assert_close(&y, &reference(&x, cols, false), 1e-6);
                for row in y.chunks(cols) {
                    assert!((row.iter().sum::<f32>() - 1.0).abs() < 1e-5);
                }
                log_softmax(&x, cols, &mut y);
                assert_close(&y, &reference(&x, cols, true), 1e-6);
            }
        });
    }

    #[test]
    fn backward_matches_the_formula() {
        for_each_level(|_| {
            for cols in COLS {
                let (x, dy) = (random(3 * cols, 1), random(3 * cols, 2));
                for log in [false, true] {
                    let y = reference(&x, cols, log);
                    let mut dx = vec![7.0; x.len()];
                    if log {
                        log_softmax_backward(&dy, &y, cols, &mut dx)
                    } else {
                        softmax_backward(&dy, &y, cols, &mut dx)
                    }
                    let mut expected = Vec::new();
                    for (dy, y) in dy.chunks(cols).zip(y.chunks(cols)) {
                        let dot: f32 = dy.iter().zip(y).map(|(dy, y)| dy * y).sum();
                        let sum: f32 = dy.iter().sum();
                        let slope = |(&dy, &y): (&f32, &f32)| if log { dy - y.exp() * sum } else { y * (dy - dot) };
                        expected.extend(dy.iter().zip(y).map(slope));
                    }
                    assert_close(&dx, &expected, 1e-4);
                }
            }
        });
    }

    #[test]
    fn past_the_caches_the_bits_are_the_same() {
        for_each_level(|_| {
            for cols in COLS {
                let x = random(5 * cols, 1);
                let (mut y, mut past) = (vec![7.0; x.len() + 1], vec![7.0; x.len() + 1]);
                dispatch(Softmax { x: &x, y: &mut y[1..], cols });
                dispatch(SoftmaxPastCaches { x: &x, y: &mut past[1..], cols });
                assert_eq!(y, past);
            }
        });
    }

    #[test]
    fn extremes() {
        for_each_level(|_| {
            let inf = f32::INFINITY;
            let mut y = [7.0; 4];
            softmax(&[1e30, -1e30, -inf, 1e30], 4, &mut y);
            assert_eq!(y, [0.5, 0.0, 0.0, 0.5]);
            softmax(&[-inf; 4], 4, &mut y);
            assert_eq!(y, [0.0; 4]);
            softmax(&[0.0, f32::NAN, 0.0, 0.0], 4, &mut y);
            assert!(y.iter().all(|y| y.is_nan()));
            log_softmax(&[0.0, -inf], 2, &mut y[..2]);
            assert_eq!(y[..2], [0.0, -inf]);
            softmax(&[], 4, &mut []);
            for cols in [1, 3, 16, 37] {
                let (x, dy) = (vec![-inf; cols], vec![2.0; cols]);
                let (mut y, mut dx) = (vec![7.0; cols], vec![7.0; cols]);
                log_softmax(&x, cols, &mut y);
                assert_eq!(y, x);
                log_softmax_backward(&dy, &y, cols, &mut dx);
                assert_eq!(dx, vec![0.0; cols]);
            }
            log_softmax(&[-inf, f32::NAN], 2, &mut y[..2]);
            assert!(y[1].is_nan());
        });
    }
}
