//! Logistic regression of a few rows on a few rows: the inner step of word2vec and fastText.
//!
//! For input rows `x_i` (m of them) and output rows `y_j` (n of them, each with a label of 0 or 1).
//! The inputs are processed one after another; each uses the outputs as updated by the previous
//! ones:
//!
//! ```text
//! e_ij = α (label_j − σ(x_i · y_j))      x_i ← x_i + Σ_j e_ij y_j      y_j ← y_j + e_ij x_i
//! ```
//!
//! For skip-gram the inputs are some words of a window and the outputs its centre with the negative
//! samples that they share, which turns vector updates into two small matrix products whose
//! operands stay in the first cache (Ji et al. 2016, "Parallelizing word2vec in shared and
//! distributed memory", <https://arxiv.org/abs/1604.04661>). There all inputs use the old outputs,
//! and vectors get other lengths and angles than those of word2vec. Here the updates are exact:
//! with the rows as they were before and `g_ik = x_i · x_k`,
//!
//! ```text
//! x_i · y_j  =  (x_i · y_j)_before + Σ_{k<i} g_ik e_kj
//! dx_i       =  Σ_j e_ij y_j + Σ_{k<i} (Σ_j e_ij e_kj) x_k          dy_j = Σ_i e_ij x_i
//! ```
//!
//! so the products remain matrix products, and only the errors are computed one after another.
//!
//! At 100 elements per row, summing across the lanes of a vector costs more than the products
//! before it. So the sums of up to a vector's worth of products are folded together: halving steps
//! that each combine two vectors into one, until lane `l` holds the sum of vector `l`.

use super::extent::size;
use super::simd::{Isa, MAX_LANES, SimdOp, dispatch};

/// Returns the padded length of a row in the buffers of [`logistic`]: `dim`, rounded up to the
/// widest vector. The padding is zero.
pub const fn padded(dim: usize) -> usize {
    dim.checked_next_multiple_of(MAX_LANES).expect("a number of elements that fits a machine word")
}

/// The largest number of input rows in one step: their products with each other fit into one
/// vector.
pub const MAX_INPUTS: usize = 6;

/// Computes one step: writes `dx` and `dy`, and returns the loss in natural logarithms, summed over
/// all pairs. Products are clamped to ±30; if a product is not finite, the loss is NaN.
///
/// # Shapes
/// `x`, `dx`: `[m, width]`; `y`, `dy`: `[n, width]`; `labels`: `[n]`, 0 or 1; `errors`: scratch,
/// resized as needed.
///
/// # Panics
/// If `width` is not a multiple of [`MAX_LANES`], there are more than [`MAX_INPUTS`] inputs, or the
/// length of a slice does not match its shape.
pub fn logistic(
    width: usize,
    x: &[f32],
    y: &[f32],
    labels: &[f32],
    alpha: f32,
    errors: &mut Vec<f32>,
    dx: &mut [f32],
    dy: &mut [f32],
) -> f64 {
    assert!(width > 0 && width.is_multiple_of(MAX_LANES), "logistic: width is no multiple of the vector");
    let (m, n) = (x.len() / width, labels.len());
    assert!(Some(x.len()) == size([m, width]) && dx.len() == x.len(), "logistic: x or dx is not [m, width]");
    assert!(Some(y.len()) == size([n, width]) && dy.len() == y.len(), "logistic: y or dy is not [n, width]");
    assert!(m <= MAX_INPUTS, "logistic: too many inputs");
    let stride = n.next_multiple_of(MAX_LANES);
    errors.resize(m * stride, 0.0);
    dispatch(Logistic { width, m, n, stride, x, y, labels, alpha, errors, dx, dy })
}

struct Logistic<'a> {
    width: usize,
    m: usize,
    n: usize,
    /// The distance between rows of errors.
    stride: usize,
    x: &'a [f32],
    y: &'a [f32],
    labels: &'a [f32],
    alpha: f32,
    errors: &'a mut [f32],
    dx: &'a mut [f32],
    dy: &'a mut [f32],
}

/// The number of output rows in a tile: with two input rows, twelve sums, two inputs and an output
/// fill sixteen registers.
const COLUMNS: usize = 6;

impl SimdOp for Logistic<'_> {
    type Output = f64;

    #[inline(always)]
    fn eval<I: Isa>(mut self, isa: I) -> f64 {
        for first in (0..self.n).step_by(COLUMNS) {
            match self.n - first {
                1 => self.products::<1, I>(isa, first),
                2 => self.products::<2, I>(isa, first),
                3 => self.products::<3, I>(isa, first),
                4 => self.products::<4, I>(isa, first),
                5 => self.products::<5, I>(isa, first),
                _ => self.products::<COLUMNS, I>(isa, first),
            }
        }
        let gram = match self.m {
            2 => self.gram::<2, I>(isa),
            3 => self.gram::<3, I>(isa),
            4 => self.gram::<4, I>(isa),
            5 => self.gram::<5, I>(isa),
            6 => self.gram::<6, I>(isa),
            _ => [0.0; MAX_LANES],
        };
        let loss = self.errors(isa, &gram);
        let back = self.back();
        for first in (0..self.n).step_by(COLUMNS) {
            match self.n - first {
                1 => self.gradients::<1, I>(isa, first, &back),
                2 => self.gradients::<2, I>(isa, first, &back),
                3 => self.gradients::<3, I>(isa, first, &back),
                4 => self.gradients::<4, I>(isa, first, &back),
                5 => self.gradients::<5, I>(isa, first, &back),
                _ => self.gradients::<COLUMNS, I>(isa, first, &back),
            }
        }
        if self.n == 0 {
            self.dx.fill(0.0);
        }
        loss
    }
}

impl Logistic<'_> {
    /// Computes the products before any update: `errors[i, j] = x_i · y_j` for columns
    /// `first..first + N`.
    #[inline(always)]
    fn products<const N: usize, I: Isa>(&mut self, isa: I, first: usize) {
        let mut i = 0;
        while i + 2 <= self.m {
            let sums = self.tile::<2, N, I>(isa, i, first);
            for r in 0..2 {
                let at = (i + r) * self.stride + first;
                self.errors[at..at + N].copy_from_slice(&sums[r * N..(r + 1) * N]);
            }
            i += 2;
        }
        if i < self.m {
            let sums = self.tile::<1, N, I>(isa, i, first);
            let at = i * self.stride + first;
            self.errors[at..at + N].copy_from_slice(&sums[..N]);
        }
    }

    /// Computes the products of `R` inputs with `N` outputs, row by row.
    #[inline(always)]
    fn tile<const R: usize, const N: usize, I: Isa>(&self, isa: I, i: usize, first: usize) -> [f32; MAX_LANES] {
        let w = self.width;
        let (x, y) = (&self.x[i * w..(i + R) * w], &self.y[first * w..(first + N) * w]);
        let mut sums = [[isa.zero(); N]; R];
        let mut at = 0;
        while at < w {
            let mut xs = [isa.zero(); R];
            for r in 0..R {
                xs[r] = isa.load(&x[r * w + at..]);
            }
            for j in 0..N {
                let yj = isa.load(&y[j * w + at..]);
                for r in 0..R {
                    sums[r][j] = isa.mul_add(xs[r], yj, sums[r][j]);
                }
            }
            at += I::LANES;
        }
        let mut flat = [isa.zero(); MAX_LANES];
        for r in 0..R {
            for j in 0..N {
                flat[r * N + j] = sums[r][j];
            }
        }
        fold(isa, flat, R * N)
    }

    /// Computes `x_i · x_k` of all inputs `k < i`, at `below(i) + k`.
    #[inline(always)]
    fn gram<const M: usize, I: Isa>(&self, isa: I) -> [f32; MAX_LANES] {
        let w = self.width;
        let mut sums = [isa.zero(); MAX_LANES];
        let mut at = 0;
        while at < w {
            let mut x = [isa.zero(); M];
            for (i, x) in x.iter_mut().enumerate() {
                *x = isa.load(&self.x[i * w + at..]);
            }
            for i in 1..M {
                for k in 0..i {
                    sums[below(i) + k] = isa.mul_add(x[i], x[k], sums[below(i) + k]);
                }
            }
            at += I::LANES;
        }
        fold(isa, sums, below(M))
    }

    /// Converts products to errors, input by input; returns the loss.
    #[inline(always)]
    fn errors<I: Isa>(&mut self, isa: I, gram: &[f32; MAX_LANES]) -> f64 {
        let one = isa.splat(1.0);
        let mut nats = isa.zero();
        for first in (0..self.n).step_by(I::LANES) {
            let some = I::LANES.min(self.n - first);
            let label = isa.load_partial(&self.labels[first..first + some]);
            let inside = isa.first_lanes(some);
            // P(label): the sigmoid of the product, or of its negative. The error is ±(1 − P).
            let sign = isa.sub(isa.add(label, label), one);
            let mut before = [isa.zero(); MAX_INPUTS];
            for i in 0..self.m {
                let row = &mut self.errors[i * self.stride + first..][..I::LANES];
                let mut product = isa.load(row);
                for k in 0..i {
                    product = isa.mul_add(isa.splat(gram[below(i) + k]), before[k], product);
                }
                let signed = isa.mul(product, sign);
                // This order of operands propagates NaN.
                let signed = isa.max(isa.splat(-30.0), isa.min(isa.splat(30.0), signed));
                let e = exp(isa, isa.neg(signed));
                let wrong = isa.div(e, isa.add(one, e)); // 1 − P
                let error = isa.mul(isa.mul(wrong, sign), isa.splat(self.alpha));
                before[i] = isa.select(inside, error, isa.zero());
                isa.store(row, before[i]);
                // −ln P = ln(1 + e). `ln` reads bits, so values that are not finite are added
                // separately.
                let lost = isa.mul_add(product, isa.zero(), ln(isa, isa.add(one, e)));
                nats = isa.add(nats, isa.select(inside, lost, isa.zero()));
            }
        }
        f64::from(isa.reduce_sum(nats))
    }

    /// Computes `Σ_j e_ij e_kj` of all inputs `k < i`: the influence of `x_k` on `x_i` through the
    /// outputs.
    #[inline(always)]
    fn back(&self) -> [f32; MAX_LANES] {
        let mut back = [0.0; MAX_LANES];
        for i in 1..self.m {
            for k in 0..i {
                let (a, b) = (&self.errors[i * self.stride..][..self.n], &self.errors[k * self.stride..][..self.n]);
                back[below(i) + k] = a.iter().zip(b).map(|(a, b)| a * b).sum();
            }
        }
        back
    }

    /// Computes `dx_i (+)= Σ_j e_ij y_j`, with the contributions of earlier inputs in the first
    /// call, and `dy_j = Σ_i e_ij x_i`, for columns `first..first + N`.
    #[inline(always)]
    fn gradients<const N: usize, I: Isa>(&mut self, isa: I, first: usize, back: &[f32; MAX_LANES]) {
        let w = self.width;
        let mut at = 0;
        while at < w {
            let mut y = [isa.zero(); N];
            for (j, y) in y.iter_mut().enumerate() {
                *y = isa.load(&self.y[(first + j) * w + at..]);
            }
            let mut dy = [isa.zero(); N];
            let mut before = [isa.zero(); MAX_INPUTS];
            for i in 0..self.m {
                let x = isa.load(&self.x[i * w + at..][..I::LANES]);
                let errors = &self.errors[i * self.stride + first..][..N];
                let mut dx = isa.zero();
                if first == 0 {
                    for k in 0..i {
                        dx = isa.mul_add(isa.splat(back[below(i) + k]), before[k], dx);
                    }
                    before[i] = x;
                } else {
                    dx = isa.load(&self.dx[i * w + at..][..I::LANES]);
                }
                for j in 0..N {
                    let e = isa.splat(errors[j]);
                    dx = isa.mul_add(e, y[j], dx);
                    dy[j] = isa.mul_add(e, x, dy[j]);
                }
                isa.store(&mut self.dx[i * w + at..][..I::LANES], dx);
            }
            for (j, dy) in dy.into_iter().enumerate() {
                isa.store(&mut self.dy[(first + j) * w + at..][..I::LANES], dy);
            }
            at += I::LANES;
        }
    }
}

/// Returns the number of pairs `(i, k)` with `k < i` that precede those of `i`.
const fn below(i: usize) -> usize {
    i * i.saturating_sub(1) / 2
}

/// Sums across the lanes of the first `n` vectors, in groups of as many vectors as there are lanes.
#[inline(always)]
fn fold<I: Isa>(isa: I, mut flat: [I::F32; MAX_LANES], n: usize) -> [f32; MAX_LANES] {
    let mut out = [0.0; MAX_LANES];
    let mut group = 0;
    while group < n {
        let mut count = I::LANES;
        while count > 1 {
            for p in 0..count / 2 {
                let (even, odd) = isa.deinterleave(flat[group + 2 * p], flat[group + 2 * p + 1]);
                flat[group + p] = isa.add(even, odd);
            }
            count /= 2;
        }
        isa.store(&mut out[group..], flat[group]);
        group += I::LANES;
    }
    out
}

/// e^x for |x| ≤ 30, with a relative error of 2·10^-7: 2^n times the series, to the sixth power, of
/// the remainder, which is at most ln 2 / 2.
#[inline(always)]
fn exp<I: Isa>(isa: I, x: I::F32) -> I::F32 {
    let n = isa.round(isa.mul(x, isa.splat(std::f32::consts::LOG2_E)));
    let r = isa.neg_mul_add(n, isa.splat(0.693_359_4), x);
    let r = isa.neg_mul_add(n, isa.splat(-2.121_944_4e-4), r);
    let mut p = isa.splat(1.0 / 720.0);
    for c in [1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
        p = isa.mul_add(p, r, isa.splat(c));
    }
    let power = isa.shl(isa.add_i32(isa.to_i32(n), isa.splat_i32(127)), 23);
    isa.mul(p, isa.from_bits(power))
}

/// ln x for x ≥ 1, with an absolute or relative error of 3·10^-7: exponent times ln 2, plus 2
/// artanh((m − 1)/(m + 1)) of the mantissa m, which is within a factor of √2 of 1.
#[inline(always)]
fn ln<I: Isa>(isa: I, x: I::F32) -> I::F32 {
    let one = isa.splat(1.0);
    let bits = isa.add_i32(isa.bits(x), isa.splat_i32(0x3f80_0000 - 0x3f35_04f3));
    let exponent = isa.from_i32(isa.sub_i32(isa.shr(bits, 23), isa.splat_i32(127)));
    let mantissa = isa.add_i32(isa.and(bits, isa.splat_i32(0x007f_ffff)), isa.splat_i32(0x3f35_04f3));
    let m = isa.from_bits(mantissa);
    let s = isa.div(isa.sub(m, one), isa.add(m, one));
    let s2 = isa.mul(s, s);
    let mut p = isa.splat(2.0 / 9.0);
    for c in [2.0 / 7.0, 2.0 / 5.0, 2.0 / 3.0, 2.0] {
        p = isa.mul_add(p, s2, isa.splat(c));
    }
    isa.mul_add(exponent, isa.splat(std::f32::consts::LN_2), isa.mul(p, s))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::simd::for_each_level;

    /// (dx, dy, loss) by the formula, input after input.
    fn naive(w: usize, x: &[f32], y: &[f32], labels: &[f32], alpha: f32) -> (Vec<f64>, Vec<f64>, f64) {
        let (mut dx, mut dy, mut loss) = (vec![0.0; x.len()], vec![0.0; y.len()], 0.0);
        for i in 0..x.len() / w {
            for (j, &label) in labels.iter().enumerate() {
                let (x, y, dy) = (&x[i * w..][..w], &y[j * w..][..w], &mut dy[j * w..][..w]);
                let now: Vec<f64> = y.iter().zip(&*dy).map(|(&y, dy)| f64::from(y) + dy).collect();
                let dot: f64 = x.iter().zip(&now).map(|(&x, y)| f64::from(x) * y).sum();
                let sigmoid = 1.0 / (1.0 + (-dot).exp());
                loss -= if label == 1.0 { sigmoid.ln() } else { (1.0 - sigmoid).ln() };
                let e = f64::from(alpha) * (f64::from(label) - sigmoid);
                for c in 0..w {
                    dx[i * w + c] += e * now[c];
                    dy[c] += e * f64::from(x[c]);
                }
            }
        }
        (dx, dy, loss)
    }

    #[test]
    fn equals_the_formula_at_every_level() {
        for_each_level(|level| {
            for dim in [1, 15, 16, 17, 100] {
                let w = padded(dim);
                for (m, n) in [(1, 1), (1, 6), (2, 5), (3, 7), (4, 6), (5, 13), (6, 20), (1, 36), (0, 3), (2, 0)] {
                    let fill = |rows: usize, salt: usize| -> Vec<f32> {
                        let at = |i: usize| ((i * 7919 + salt * 104_729) % 1000) as f32 / 1000.0 - 0.5;
                        (0..rows * w).map(|i| if i % w < dim { at(i) } else { 0.0 }).collect()
                    };
                    let (x, y) = (fill(m, 1), fill(n, 2));
                    let labels: Vec<f32> = (0..n).map(|j| (j % 3 == 0) as u8 as f32).collect();
                    let (mut dx, mut dy, mut errors) = (vec![9.0; m * w], vec![9.0; n * w], Vec::new());
                    let loss = logistic(w, &x, &y, &labels, 0.1, &mut errors, &mut dx, &mut dy);
                    let wanted = naive(w, &x, &y, &labels, 0.1);
                    let what = format!("{level:?} dim={dim} m={m} n={n}");
                    assert!((loss - wanted.2).abs() <= 1e-5 * (1.0 + wanted.2), "{what}: {loss} {}", wanted.2);
                    for (a, b) in dx.iter().chain(&dy).zip(wanted.0.iter().chain(&wanted.1)) {
                        assert!((f64::from(*a) - b).abs() < 2e-6, "{what}: {a} {b}");
                    }
                }
            }
        });
    }

    #[test]
    fn large_products_saturate() {
        let w = padded(1);
        let row = |v: f32| [vec![v], vec![0.0; w - 1]].concat();
        let (mut dx, mut dy) = (row(0.0), row(0.0));
        for (v, label, wanted) in [(1e4, 1.0, 0.0), (-1e4, 1.0, 30.0), (1e4, 0.0, 30.0), (-1e4, 0.0, 0.0)] {
            let loss = logistic(w, &row(v), &row(1.0), &[label], 1.0, &mut Vec::new(), &mut dx, &mut dy);
            assert!((loss - wanted).abs() < 1e-4, "{v} {label}: {loss}");
            assert!(dx[0].is_finite() && dy[0].is_finite());
        }
    }

    #[test]
    fn products_that_are_not_finite_make_the_loss_nan() {
        for_each_level(|level| {
            let w = padded(20);
            for wrong in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 3e38] {
                // In the first input or the last, at an output of the first vector or of the next
                // one.
                for (i, j) in [(0, 0), (2, 1), (1, 16), (2, 18)] {
                    let (mut x, mut y) = (vec![0.1; 3 * w], vec![0.1; 19 * w]);
                    (x[i * w + 3], y[j * w + 3]) = (wrong, 2.0);
                    let labels: Vec<f32> = (0..19).map(|j| (j % 2) as f32).collect();
                    let (mut dx, mut dy) = (vec![0.0; 3 * w], vec![0.0; 19 * w]);
                    let loss = logistic(w, &x, &y, &labels, 0.1, &mut Vec::new(), &mut dx, &mut dy);
                    assert!(loss.is_nan(), "{level:?} {wrong} at {i}, {j}: {loss}");
                }
            }
            let (mut dx, mut dy, mut errors) = (vec![0.0; w], vec![0.0; w], Vec::new());
            logistic(w, &vec![f32::NAN; w], &vec![1.0; w], &[0.0], 0.1, &mut errors, &mut dx, &mut dy);
            assert!(errors[0].is_nan(), "{level:?}: a NaN is no certainty, found an error of {}", errors[0]);
        });
    }
}
