//! One pair of rows under a weighted least-squares loss, by AdaGrad: the inner step of GloVe.
//!
//! A row is `[w(0..d), b, s(0..d), s_b]`: a vector, its bias, and for each of them the sum of squared steps so far, which
//! starts at 1. With `δ = x·y + b_x + b_y − target`
//!
//! ```text
//! loss = ½ weight δ²      t_x = α weight δ y       dx = −t_x / √s_x       ds_x = t_x²      (and the same for y)
//! ```
//!
//! where the vector that a bias is multiplied with is 1. As in the original `glove.c`, the learning rate α is inside of
//! the accumulated squares.

use super::simd::{Isa, SimdOp, dispatch};

/// Numbers of a row for vectors of `dim`.
pub const fn row_len(dim: usize) -> usize {
    2 * (dim + 1)
}

/// One step: writes what is to be added to the rows `x` and `y` into `dx` and `dy`; the loss.
///
/// # Panics
/// If the four rows are not `row_len(dim)` long.
pub fn adagrad_pair(
    dim: usize,
    x: &mut [f32],
    y: &mut [f32],
    target: f32,
    weight: f32,
    alpha: f32,
    dx: &mut [f32],
    dy: &mut [f32],
) -> f32 {
    let len = row_len(dim);
    assert!([x.len(), y.len(), dx.len(), dy.len()] == [len; 4], "adagrad_pair: rows are not row_len(dim) long");
    dispatch(Pair { n: dim + 1, x, y, target, weight, alpha, dx, dy })
}

struct Pair<'a> {
    n: usize,
    x: &'a mut [f32],
    y: &'a mut [f32],
    target: f32,
    weight: f32,
    alpha: f32,
    dx: &'a mut [f32],
    dy: &'a mut [f32],
}

impl SimdOp for Pair<'_> {
    type Output = f32;

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) -> f32 {
        let n = self.n;
        // Each bias multiplies a 1 in the other row; with that in place the biases are ordinary numbers below.
        let biases = self.x[n - 1] + self.y[n - 1];
        (self.x[n - 1], self.y[n - 1]) = (1.0, 1.0);
        let (x, sx) = self.x.split_at(n);
        let (y, sy) = self.y.split_at(n);
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
            sums[0] = isa.mul_add(isa.load_partial(&x[i..]), isa.load_partial(&y[i..]), sums[0]);
            i += I::LANES;
        }
        // The last place added 1 · 1.
        let delta = isa.reduce_sum(isa.add(sums[0], sums[1])) - 1.0 + biases - self.target;
        let step = isa.splat(self.alpha * self.weight * delta);
        let (dx, dsx) = self.dx.split_at_mut(n);
        let (dy, dsy) = self.dy.split_at_mut(n);
        let mut i = 0;
        while i + I::LANES <= n {
            let range = i..i + I::LANES;
            let (tx, ty) = (isa.mul(step, isa.load(&y[range.clone()])), isa.mul(step, isa.load(&x[range.clone()])));
            let (rx, ry) = (isa.sqrt(isa.load(&sx[range.clone()])), isa.sqrt(isa.load(&sy[range.clone()])));
            isa.store(&mut dx[range.clone()], isa.neg(isa.div(tx, rx)));
            isa.store(&mut dy[range.clone()], isa.neg(isa.div(ty, ry)));
            isa.store(&mut dsx[range.clone()], isa.mul(tx, tx));
            isa.store(&mut dsy[range.clone()], isa.mul(ty, ty));
            i += I::LANES;
        }
        if i < n {
            let (tx, ty) = (isa.mul(step, isa.load_partial(&y[i..])), isa.mul(step, isa.load_partial(&x[i..])));
            let (rx, ry) = (isa.sqrt(isa.load_partial_or(&sx[i..], 1.0)), isa.sqrt(isa.load_partial_or(&sy[i..], 1.0)));
            isa.store_partial(&mut dx[i..], isa.neg(isa.div(tx, rx)));
            isa.store_partial(&mut dy[i..], isa.neg(isa.div(ty, ry)));
            isa.store_partial(&mut dsx[i..], isa.mul(tx, tx));
            isa.store_partial(&mut dsy[i..], isa.mul(ty, ty));
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
                let (mut dx, mut dy) = (vec![9.0; len], vec![9.0; len]);
                let (target, weight, alpha) = (0.7, 0.4, 0.05);
                let loss = adagrad_pair(dim, &mut x.clone(), &mut y.clone(), target, weight, alpha, &mut dx, &mut dy);
                let dot: f64 = (0..dim).map(|i| f64::from(x[i]) * f64::from(y[i])).sum();
                let delta = dot + f64::from(x[dim] + y[dim] - target);
                assert!((f64::from(loss) - 0.5 * f64::from(weight) * delta * delta).abs() < 1e-5, "{level:?} {dim}");
                for (a, b, da) in [(&x, &y, &dx), (&y, &x, &dy)] {
                    for i in 0..=dim {
                        let other = if i == dim { 1.0 } else { f64::from(b[i]) };
                        let t = f64::from(alpha * weight) * delta * other;
                        let wanted = -t / f64::from(a[dim + 1 + i]).sqrt();
                        assert!((f64::from(da[i]) - wanted).abs() < 1e-6, "{level:?} {dim} {i}");
                        assert!((f64::from(da[dim + 1 + i]) - t * t).abs() < 1e-7, "{level:?} {dim} {i}");
                    }
                }
            }
        });
    }
}
