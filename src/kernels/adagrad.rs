//! One pair of rows under a weighted least-squares loss, by AdaGrad: the inner step of GloVe.
//!
//! A row is `[w(0..d), b, s(0..d), s_b]`: a vector, its bias, and for each of them the sum of
//! squared steps so far, which starts at 1. With `δ = x·y + b_x + b_y − target`
//!
//! ```text
//! loss = ½ weight δ²
//! t_x = α weight δ y      x ← x − t_x / √s_x      s_x ← s_x + t_x²      (and the same for y)
//! ```
//!
//! As in the authors' `glove.c`, the learning rate α is part of the accumulated squares, and a
//! bias, whose factor in the other row is 1, has a rate of 1: it soon represents the frequency of
//! its word, so that vectors need not.

use super::simd::{Isa, SimdOp, dispatch};

/// Returns the number of elements in a row for vectors of `dim`.
pub const fn row_len(dim: usize) -> usize {
    assert!(dim < usize::MAX / 2, "a number of elements that fits a machine word");
    2 * (dim + 1)
}

/// Computes one step: updates the rows `x` and `y`, and returns the loss before the update.
///
/// # Panics
/// If the rows are not `row_len(dim)` long.
pub fn adagrad_pair(dim: usize, x: &mut [f32], y: &mut [f32], target: f32, weight: f32, alpha: f32) -> f32 {
    let len = row_len(dim);
    assert!([x.len(), y.len()] == [len; 2], "adagrad_pair: rows are not row_len(dim) long");
    dispatch(Pair { n: dim, x, y, target, weight, alpha })
}

struct Pair<'a> {
    n: usize,
    x: &'a mut [f32],
    y: &'a mut [f32],
    target: f32,
    weight: f32,
    alpha: f32,
}

impl SimdOp for Pair<'_> {
    type Output = f32;

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) -> f32 {
        let n = self.n;
        let (x, sx) = self.x.split_at_mut(n + 1);
        let (y, sy) = self.y.split_at_mut(n + 1);
        let mut sums = [isa.zero(); 2];
        let mut i = 0;
        while i + 2 * I::LANES <= n {
            for (k, sum) in sums.iter_mut().enumerate() {
                let at = i + k * I::LANES;
                *sum = isa.mul_add(isa.load(&x[at..at + I::LANES]), isa.load(&y[at..at + I::LANES]), *sum);
            }
            i += 2 * I::LANES;
        }
        while i < n {
            sums[0] = isa.mul_add(isa.load_partial(&x[i..n]), isa.load_partial(&y[i..n]), sums[0]);
            i += I::LANES;
        }
        let delta = isa.reduce_sum(isa.add(sums[0], sums[1])) + x[n] + y[n] - self.target;
        let slope = self.weight * delta;
        let step = isa.splat(self.alpha * slope);
        let mut i = 0;
        while i + I::LANES <= n {
            let at = i..i + I::LANES;
            let (vx, vy) = (isa.load(&x[at.clone()]), isa.load(&y[at.clone()]));
            let (qx, qy) = (isa.load(&sx[at.clone()]), isa.load(&sy[at.clone()]));
            let (tx, ty) = (isa.mul(step, vy), isa.mul(step, vx));
            isa.store(&mut x[at.clone()], isa.sub(vx, isa.div(tx, isa.sqrt(qx))));
            isa.store(&mut y[at.clone()], isa.sub(vy, isa.div(ty, isa.sqrt(qy))));
            isa.store(&mut sx[at.clone()], isa.mul_add(tx, tx, qx));
            isa.store(&mut sy[at], isa.mul_add(ty, ty, qy));
            i += I::LANES;
        }
        if i < n {
            let (vx, vy) = (isa.load_partial(&x[i..n]), isa.load_partial(&y[i..n]));
            let (qx, qy) = (isa.load_partial_or(&sx[i..n], 1.0), isa.load_partial_or(&sy[i..n], 1.0));
            let (tx, ty) = (isa.mul(step, vy), isa.mul(step, vx));
            isa.store_partial(&mut x[i..n], isa.sub(vx, isa.div(tx, isa.sqrt(qx))));
            isa.store_partial(&mut y[i..n], isa.sub(vy, isa.div(ty, isa.sqrt(qy))));
            isa.store_partial(&mut sx[i..n], isa.mul_add(tx, tx, qx));
            isa.store_partial(&mut sy[i..n], isa.mul_add(ty, ty, qy));
        }
        for (bias, squares) in [(&mut x[n], &mut sx[n]), (&mut y[n], &mut sy[n])] {
            *bias -= slope / squares.sqrt();
            *squares += slope * slope;
        }
        0.5 * self.weight * delta * delta
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::simd::for_each_level;

    #[test]
    fn equals_the_formula_at_every_level() {
        for_each_level(|level| {
            for dim in [1, 3, 15, 16, 31, 32, 100] {
                let len = row_len(dim);
                let row = |salt: usize| -> Vec<f32> {
                    let at = |i: usize| ((i * 7919 + salt * 31) % 100) as f32 / 100.0;
                    (0..len).map(|i| if i <= dim { at(i) - 0.5 } else { 1.0 + at(i) }).collect()
                };
                let (x, y) = (row(1), row(2));
                let (mut new_x, mut new_y) = (x.clone(), y.clone());
                let (target, weight, alpha) = (0.7, 0.4, 0.05);
                let loss = adagrad_pair(dim, &mut new_x, &mut new_y, target, weight, alpha);
                let dot: f64 = (0..dim).map(|i| f64::from(x[i]) * f64::from(y[i])).sum();
                let delta = dot + f64::from(x[dim] + y[dim] - target);
                assert!((f64::from(loss) - 0.5 * f64::from(weight) * delta * delta).abs() < 1e-5, "{level:?} {dim}");
                for (a, b, new) in [(&x, &y, &new_x), (&y, &x, &new_y)] {
                    for i in 0..=dim {
                        let other = if i == dim { 1.0 } else { f64::from(alpha * b[i]) };
                        let t = f64::from(weight) * delta * other;
                        let wanted = f64::from(a[i]) - t / f64::from(a[dim + 1 + i]).sqrt();
                        assert!((f64::from(new[i]) - wanted).abs() < 1e-6, "{level:?} {dim} {i}");
                        let wanted = f64::from(a[dim + 1 + i]) + t * t;
                        assert!((f64::from(new[dim + 1 + i]) - wanted).abs() < 1e-6, "{level:?} {dim} {i}");
                    }
                }
            }
        });
    }
}
