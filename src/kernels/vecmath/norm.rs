//! Layer norm and RMS norm, forward and backward.
//!
//! Layer norm (Ba, Kiros, Hinton, *Layer Normalization*, 2016, arXiv:1607.06450), with x̂ = (x -
//! mean) · rstd:
//!
//! ```text
//! y = x̂ · w + b,  rstd = 1 / √(var + ε)
//! g = dy · w:  dx = rstd · (g - mean(g) - x̂ · mean(g · x̂))
//! dw = Σ_rows dy · x̂;  db = Σ_rows dy
//! ```
//!
//! RMS norm (Zhang, Sennrich, *Root Mean Square Layer Normalization*, 2019, arXiv:1910.07467), with
//! x̂ = x · rstd:
//!
//! ```text
//! y = x̂ · w,  rstd = 1 / √(mean(x²) + ε)
//! g = dy · w:  dx = rstd · (g - x̂ · mean(g · x̂));  dw = Σ_rows dy · x̂
//! ```
//!
//! The variance is computed from the differences from the mean, in a second pass over the row,
//! which is in cache by then; the difference of two large sums would be inaccurate. The sums over
//! rows are those of 64 rows each, added in order.

use super::arithmetic::Add;
use super::elementwise::{Lanes, PAST_CACHES, lanes};
use super::reduce::{ROW_GROUP, add_groups};
use super::rows::{Dot, Fold, Sum, SumSquares, chunk_rows, sum_row};
use super::rows::{map_row, map_row_past_caches, update_row2, update_row3};
use crate::kernels::parallel::{self, Parts};
use crate::kernels::simd::{Isa, SimdOp, dispatch};

/// Computes the layer norm of each row; an empty weight stands for ones, an empty bias for zeros.
///
/// `mean` and `rstd` receive the values of each row, for [`layer_norm_backward`]; their length is
/// the number of rows.
///
/// # Shapes
///
/// `x` and `y` `[rows, cols]`, `weight` and `bias` `[cols]`, `mean` and `rstd` `[rows]`.
pub fn layer_norm(
    x: &[f32],
    weight: Option<&[f32]>,
    bias: Option<&[f32]>,
    eps: f32,
    y: &mut [f32],
    mean: &mut [f32],
    rstd: &mut [f32],
) {
    let (rows, cols) = shape(x, rstd.len());
    assert!(y.len() == x.len() && mean.len() == rows, "layer_norm: one mean and rstd for each row");
    if x.is_empty() {
        return;
    }
    let (ones, zeros);
    let weight = match weight {
        Some(weight) => weight,
        None => {
            ones = vec![1.0; cols];
            &ones
        }
    };
    let bias = match bias {
        Some(bias) => bias,
        None => {
            zeros = vec![0.0; cols];
            &zeros
        }
    };
    assert!(weight.len() == cols && bias.len() == cols, "layer_norm: one weight and bias for each of {cols} columns");
    let past_caches = x.len() >= PAST_CACHES;
    let chunk = chunk_rows(rows, cols, 6.0);
    let (y, mean, rstd) = (Parts::new(y, chunk * cols), Parts::new(mean, chunk), Parts::new(rstd, chunk));
    parallel::for_each(y.count(), |i| {
        // SAFETY: each task takes the parts with its own index.
        let (part, mean, rstd) = unsafe { (y.get(i), mean.get(i), rstd.get(i)) };
        dispatch(LayerNorm { x: &x[y.range(i)], weight, bias, eps, y: part, mean, rstd, past_caches });
    });
}

/// Computes the gradients of [`layer_norm`]. `dweight` and `dbias` are overwritten, not added to.
///
/// # Shapes
///
/// `dy`, `x` and `dx` `[rows, cols]`; `weight`, `dweight` and `dbias` `[cols]`; `mean` and `rstd`
/// `[rows]`.
pub fn layer_norm_backward(
    dy: &[f32],
    x: &[f32],
    weight: Option<&[f32]>,
    mean: &[f32],
    rstd: &[f32],
    dx: &mut [f32],
    dweight: Option<&mut [f32]>,
    dbias: Option<&mut [f32]>,
) {
    assert_eq!(mean.len(), rstd.len(), "layer_norm_backward: one mean and rstd for each row");
    backward(Some(mean), dy, x, weight, rstd, dx, dweight, dbias);
}

/// Computes the RMS norm of each row.
///
/// `rstd` receives the reciprocal of each row's root mean square, for [`rms_norm_backward`]; its
/// length is the number of rows.
///
/// # Shapes
///
/// `x` and `y` `[rows, cols]`, `weight` `[cols]`, `rstd` `[rows]`.
pub fn rms_norm(x: &[f32], weight: &[f32], eps: f32, y: &mut [f32], rstd: &mut [f32]) {
    let (rows, cols) = shape(x, rstd.len());
    assert_eq!(y.len(), x.len(), "rms_norm: input and output must have the same length");
    if x.is_empty() {
        return;
    }
    assert_eq!(weight.len(), cols, "rms_norm: one weight for each column");
    let chunk = chunk_rows(rows, cols, 5.0);
    let (y, rstd) = (Parts::new(y, chunk * cols), Parts::new(rstd, chunk));
    parallel::for_each(y.count(), |i| {
        // SAFETY: each task takes the parts with its own index.
        let (part, rstd) = unsafe { (y.get(i), rstd.get(i)) };
        dispatch(RmsNorm { x: &x[y.range(i)], weight, eps, y: part, rstd });
    });
}

/// Computes the gradients of [`rms_norm`]. `dweight` is overwritten, not added to.
///
/// # Shapes
///
/// `dy`, `x` and `dx` `[rows, cols]`; `weight` and `dweight` `[cols]`; `rstd` `[rows]`.
pub fn rms_norm_backward(
    dy: &[f32],
    x: &[f32],
    weight: &[f32],
    rstd: &[f32],
    dx: &mut [f32],
    dweight: Option<&mut [f32]>,
) {
    backward(None, dy, x, Some(weight), rstd, dx, dweight, None);
}

/// Returns the numbers of rows and columns of `x`.
#[track_caller]
fn shape(x: &[f32], rows: usize) -> (usize, usize) {
    let whole = if rows == 0 { x.is_empty() } else { x.len().is_multiple_of(rows) };
    assert!(whole, "norm: {} elements do not make {rows} rows", x.len());
    (rows, x.len() / rows.max(1))
}

/// Both backward passes; RMS norm is layer norm without a mean.
fn backward(
    mean: Option<&[f32]>,
    dy: &[f32],
    x: &[f32],
    weight: Option<&[f32]>,
    rstd: &[f32],
    dx: &mut [f32],
    mut dweight: Option<&mut [f32]>,
    mut dbias: Option<&mut [f32]>,
) {
    let (rows, cols) = shape(x, rstd.len());
    assert!(dy.len() == x.len() && dx.len() == x.len(), "norm backward: all must have the same length");
    for sums in [dweight.as_deref_mut(), dbias.as_deref_mut()].into_iter().flatten() {
        assert!(x.is_empty() || sums.len() == cols, "norm backward: one gradient for each of {cols} columns");
        sums.fill(0.0);
    }
    if x.is_empty() {
        return;
    }
    let ones;
    let weight = match weight {
        Some(weight) => weight,
        None => {
            ones = vec![1.0; cols];
            &ones
        }
    };
    assert_eq!(weight.len(), cols, "norm backward: one weight for each column");

    let groups = rows.div_ceil(ROW_GROUP);
    let mut partial_dw = vec![0.0; if dweight.is_some() { groups * cols } else { 0 }];
    let mut partial_db = vec![0.0; if dbias.is_some() { groups * cols } else { 0 }];
    let (dw, db) = (Parts::new(&mut partial_dw, cols), Parts::new(&mut partial_db, cols));
    let dx = Parts::new(dx, ROW_GROUP * cols);
    let per_task = chunk_rows(groups, ROW_GROUP * cols, 9.0);
    parallel::for_each(groups.div_ceil(per_task), |task| {
        for group in task * per_task..groups.min((task + 1) * per_task) {
            let range = dx.range(group);
            let in_rows = range.start / cols..range.end / cols;
            // SAFETY: each group belongs to one task.
            let (dx, dweight, dbias) = unsafe { (dx.get(group), dw.get(group), db.get(group)) };
            let (dy, x, rstd) = (&dy[range.clone()], &x[range], &rstd[in_rows.clone()]);
            match mean {
                Some(mean) => {
                    let mean = &mean[in_rows];
                    dispatch(LayerNormBackward { dy, x, weight, mean, rstd, dx, dweight, dbias });
                }
                None => dispatch(RmsNormBackward { dy, x, weight, rstd, dx, dweight }),
            }
        }
    });
    for (partial, sums) in [(&partial_dw, dweight), (&partial_db, dbias)] {
        if let Some(sums) = sums {
            add_groups(partial, sums);
        }
    }
}

struct LayerNorm<'a> {
    x: &'a [f32],
    weight: &'a [f32],
    bias: &'a [f32],
    eps: f32,
    y: &'a mut [f32],
    mean: &'a mut [f32],
    rstd: &'a mut [f32],
    past_caches: bool,
}

impl SimdOp for LayerNorm<'_> {
    type Output = ();
    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        let cols = self.weight.len();
        let saved = self.mean.iter_mut().zip(self.rstd.iter_mut());
        for ((x, y), (mean, rstd)) in self.x.chunks_exact(cols).zip(self.y.chunks_exact_mut(cols)).zip(saved) {
            *mean = sum_row(isa, [x], Sum) / cols as f32;
            let squares = sum_row(isa, [x], SumSquares { centre: *mean });
            *rstd = 1.0 / (squares / cols as f32 + self.eps).sqrt();
            let f = Affine(Normed { mean: *mean, rstd: *rstd });
            if self.past_caches {
                map_row_past_caches(isa, [x, self.weight, self.bias], y, f);
            } else {
                map_row(isa, [x, self.weight, self.bias], y, f);
            }
        }
        isa.stream_fence();
    }
}

/// x̂ = (x - mean) · rstd; for RMS norm the mean is 0, whose subtraction changes no bit.
#[derive(Clone, Copy)]
struct Normed {
    mean: f32,
    rstd: f32,
}

impl Normed {
    #[inline(always)]
    fn of<I: Isa>(self, isa: I, x: I::F32) -> I::F32 {
        isa.mul(isa.sub(x, isa.splat(self.mean)), isa.splat(self.rstd))
    }
}

// x̂ · w + b
lanes!(struct Affine(Normed): 3, |self, isa, [x, w, b]| isa.mul_add(self.0.of(isa, x), w, b));

// x̂ · w
lanes!(struct Scaled(Normed): 2, |self, isa, [x, w]| isa.mul(self.0.of(isa, x), w));

struct RmsNorm<'a> {
    x: &'a [f32],
    weight: &'a [f32],
    eps: f32,
    y: &'a mut [f32],
    rstd: &'a mut [f32],
}

impl SimdOp for RmsNorm<'_> {
    type Output = ();
    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        let cols = self.weight.len();
        for ((x, y), rstd) in self.x.chunks_exact(cols).zip(self.y.chunks_exact_mut(cols)).zip(self.rstd) {
            let squares = sum_row(isa, [x], SumSquares { centre: 0.0 });
            *rstd = 1.0 / (squares / cols as f32 + self.eps).sqrt();
            map_row(isa, [x, self.weight], y, Scaled(Normed { mean: 0.0, rstd: *rstd }));
        }
    }
}

/// Σ g · x̂
#[derive(Clone, Copy)]
struct SlopeAlong(Normed);

impl Fold<3> for SlopeAlong {
    #[inline(always)]
    fn fold<I: Isa>(self, isa: I, partial: I::F32, [dy, w, x]: [I::F32; 3]) -> I::F32 {
        isa.mul_add(isa.mul(dy, w), self.0.of(isa, x), partial)
    }
}

// rstd · (g - mean(g) - x̂ · mean(g · x̂))
lanes!(struct Slope { normed: Normed, mean_g: f32, mean_g_x: f32 }: 3, |self, isa, [dy, w, x]| {
    let g = isa.sub(isa.mul(dy, w), isa.splat(self.mean_g));
    let rest = isa.neg_mul_add(self.normed.of(isa, x), isa.splat(self.mean_g_x), g);
    isa.mul(isa.splat(self.normed.rstd), rest)
});

// dw + dy · x̂
lanes!(struct WeightSlope(Normed): 3, |self, isa, [dw, dy, x]| isa.mul_add(dy, self.0.of(isa, x), dw));

/// A group of rows; `dweight` and `dbias` are empty if they are not needed, otherwise initially
/// zero.
struct LayerNormBackward<'a> {
    dy: &'a [f32],
    x: &'a [f32],
    weight: &'a [f32],
    mean: &'a [f32],
    rstd: &'a [f32],
    dx: &'a mut [f32],
    dweight: &'a mut [f32],
    dbias: &'a mut [f32],
}

impl SimdOp for LayerNormBackward<'_> {
    type Output = ();
    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        let cols = self.weight.len();
        let saved = self.mean.iter().zip(self.rstd);
        let rows = self.dy.chunks_exact(cols).zip(self.x.chunks_exact(cols)).zip(self.dx.chunks_exact_mut(cols));
        for (((dy, x), dx), (&mean, &rstd)) in rows.zip(saved) {
            let normed = Normed { mean, rstd };
            let mean_g = sum_row(isa, [dy, self.weight], Dot) / cols as f32;
            let mean_g_x = sum_row(isa, [dy, self.weight, x], SlopeAlong(normed)) / cols as f32;
            map_row(isa, [dy, self.weight, x], dx, Slope { normed, mean_g, mean_g_x });
            if !self.dweight.is_empty() {
                update_row3(isa, self.dweight, dy, x, WeightSlope(normed));
            }
            if !self.dbias.is_empty() {
                update_row2(isa, self.dbias, dy, Add);
            }
        }
    }
}

/// A group of rows; `dweight` is empty if it is not needed, otherwise initially zero.
struct RmsNormBackward<'a> {
    dy: &'a [f32],
    x: &'a [f32],
    weight: &'a [f32],
    rstd: &'a [f32],
    dx: &'a mut [f32],
    dweight: &'a mut [f32],
}

impl SimdOp for RmsNormBackward<'_> {
    type Output = ();
    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        let cols = self.weight.len();
        let rows = self.dy.chunks_exact(cols).zip(self.x.chunks_exact(cols)).zip(self.dx.chunks_exact_mut(cols));
        for (((dy, x), dx), &rstd) in rows.zip(self.rstd) {
            let normed = Normed { mean: 0.0, rstd };
            let mean_g_x = sum_row(isa, [dy, self.weight, x], SlopeAlong(normed)) / cols as f32;
            map_row(isa, [dy, self.weight, x], dx, Slope { normed, mean_g: 0.0, mean_g_x });
            if !self.dweight.is_empty() {
                update_row3(isa, self.dweight, dy, x, WeightSlope(normed));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{assert_close, random};
    use super::*;
    use crate::kernels::simd::for_each_level;

    const EPS: f32 = 1e-5;

    /// y, mean (zero for RMS norm) and rstd in double precision.
    fn reference(x: &[f64], w: &[f64], b: &[f64], rms: bool) -> (Vec<f64>, f64, f64) {
        let n = x.len() as f64;
        let mean = if rms { 0.0 } else { x.iter().sum::<f64>() / n };
        let var = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n;
        let rstd = 1.0 / (var + EPS as f64).sqrt();
        ((0..x.len()).map(|i| (x[i] - mean) * rstd * w[i] + b[i]).collect(), mean, rstd)
    }

    fn wide(x: &[f32]) -> Vec<f64> {
        x.iter().map(|&x| x as f64).collect()
    }

    #[test]
    fn values_and_gradients_match_double_precision() {
        for_each_level(|_| {
            for cols in [1, 2, 15, 16, 33, 100] {
                for rows in [1, 3, 65] {
                    for rms in [false, true] {
                        check(rows, cols, rms);
                    }
                }
            }
        });
    }

    fn check(rows: usize, cols: usize, rms: bool) {
        let x: Vec<f32> = random(rows * cols, 1).iter().map(|x| 3.0 * x + 1.5).collect();
        let (w, b, dy) = (random(cols, 2), random(cols, 3), random(rows * cols, 4));
        let b = if rms { vec![0.0; cols] } else { b };
        let (mut y, mut mean, mut rstd) = (vec![7.0; x.len()], vec![7.0; rows], vec![7.0; rows]);
        let (mut dx, mut dw, mut db) = (vec![7.0; x.len()], vec![7.0; cols], vec![7.0; cols]);
        if rms {
            rms_norm(&x, &w, EPS, &mut y, &mut rstd);
            rms_norm_backward(&dy, &x, &w, &rstd, &mut dx, Some(&mut dw));
        } else {
            layer_norm(&x, Some(&w), Some(&b), EPS, &mut y, &mut mean, &mut rstd);
            layer_norm_backward(&dy, &x, Some(&w), &mean, &rstd, &mut dx, Some(&mut dw), Some(&mut db));
        }
        let (w, b) = (wide(&w), wide(&b));
        let (mut expected_dw, mut expected_db) = (vec![0.0; cols], vec![0.0; cols]);
        for row in 0..rows {
            let at = row * cols..(row + 1) * cols;
            let (x, dy) = (wide(&x[at.clone()]), wide(&dy[at.clone()]));
            let (expected, m, r) = reference(&x, &w, &b, rms);
            let narrow: Vec<f32> = expected.iter().map(|&y| y as f32).collect();
            assert_close(&y[at.clone()], &narrow, if cols == 1 { 1e-4 } else { 1e-5 });
            assert_close(&rstd[row..=row], &[r as f32], 1e-5);
            let loss = |x: &[f64]| -> f64 { reference(x, &w, &b, rms).0.iter().zip(&dy).map(|(y, dy)| y * dy).sum() };
            for j in 0..cols {
                expected_dw[j] += dy[j] * (x[j] - m) * r;
                expected_db[j] += dy[j];
                if j % 7 == 0 && cols > 1 {
                    let (mut up, mut down) = (x.clone(), x.clone());
                    up[j] += 1e-5;
                    down[j] -= 1e-5;
                    let slope = (loss(&up) - loss(&down)) / 2e-5;
                    assert_close(&dx[row * cols + j..][..1], &[slope as f32], 1e-4);
                }
            }
        }
        let narrow = |x: &[f64]| -> Vec<f32> { x.iter().map(|&x| x as f32).collect() };
        assert_close(&dw, &narrow(&expected_dw), 1e-4);
        if !rms {
            assert_close(&db, &narrow(&expected_db), 1e-5);
        }
    }

    #[test]
    fn a_large_mean_keeps_the_variance() {
        for_each_level(|_| {
            let x: Vec<f32> = (0..64).map(|i| 10_000.0 + (i % 2) as f32).collect();
            let (mut y, mut mean, mut rstd) = (vec![0.0; 64], [0.0], [0.0]);
            layer_norm(&x, None, None, 0.0, &mut y, &mut mean, &mut rstd);
            assert!(y.iter().enumerate().all(|(i, &y)| y == if i % 2 == 0 { -1.0 } else { 1.0 }));
        });
    }

    #[test]
    fn neither_threads_nor_other_rows_nor_caches_change_a_bit() {
        let (rows, cols) = (1000, 48);
        let (x, dy, w) = (random(rows * cols, 1), random(rows * cols, 2), random(cols, 3));
        let run = |threads| {
            let (mut y, mut mean, mut rstd) = (vec![0.0; x.len()], vec![0.0; rows], vec![0.0; rows]);
            let (mut dx, mut dw, mut db) = (vec![0.0; x.len()], vec![0.0; cols], vec![0.0; cols]);
            rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(|| {
                layer_norm(&x, Some(&w), None, EPS, &mut y, &mut mean, &mut rstd);
                layer_norm_backward(&dy, &x, Some(&w), &mean, &rstd, &mut dx, Some(&mut dw), Some(&mut db));
            });
            (y, dx, dw, db)
        };
        let alone = run(1);
        assert!((2..=4).all(|threads| run(threads) == alone));
        let (mut y, mut mean, mut rstd) = (vec![0.0; cols], [0.0], [0.0]);
        layer_norm(&x[..cols], Some(&w), None, EPS, &mut y, &mut mean, &mut rstd);
        assert_eq!(y, alone.0[..cols]);
        let (bias, past_caches) = (vec![0.0; cols], true);
        let (mut y, mut mean, mut rstd) = (vec![0.0; x.len()], vec![0.0; rows], vec![0.0; rows]);
        let (mean, rstd) = (&mut mean[..], &mut rstd[..]);
        dispatch(LayerNorm { x: &x, weight: &w, bias: &bias, eps: EPS, y: &mut y, mean, rstd, past_caches });
        assert_eq!(y, alone.0);
    }
}
