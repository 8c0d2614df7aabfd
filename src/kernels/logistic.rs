//! Logistic regression of a few rows on a few rows: the inner step of word2vec and fastText.
//!
//! For input rows `x_i` (m of them) and output rows `y_j` (n of them, each with a label of 0 or 1)
//!
//! ```text
//! e_ij = α (label_j − σ(x_i · y_j))
//! dx_i = Σ_j e_ij y_j         dy_j = Σ_i e_ij x_i
//! ```
//!
//! all from the same `x` and `y`, and the loss Σ_ij −ln P(label_j | x_i · y_j). For skip-gram the inputs are the words
//! of a window and the outputs its centre with the negative samples that the window shares, which turns vector updates
//! into two small matrix products whose operands stay in the first cache (Ji et al. 2016, "Parallelizing word2vec in
//! shared and distributed memory", <https://arxiv.org/abs/1604.04661>).
//!
//! At 100 numbers a row, summing across the lanes of a vector costs more than the products before it. So the sums of up
//! to a vector's worth of products are folded together: halving steps that each take two vectors and leave one, until
//! lane `l` holds the sum of vector `l`.

use super::simd::{Isa, MAX_LANES, SimdOp, dispatch};

/// Numbers that a row takes in the buffers of [`logistic`]: `dim`, rounded up to the widest vector. The rest is zero.
pub const fn padded(dim: usize) -> usize {
    dim.next_multiple_of(MAX_LANES)
}

/// One step: writes `dx` and `dy`, returns the loss in natural logarithms, summed over all pairs.
///
/// # Shapes
/// `x`, `dx`: `[m, width]`; `y`, `dy`: `[n, width]`; `labels`: `[n]`, 0 or 1; `errors`: scratch, resized as needed.
///
/// # Panics
/// If `width` is no multiple of [`MAX_LANES`] or a slice is not as long as its shape.
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
    assert!(x.len() == m * width && dx.len() == x.len(), "logistic: x or dx is not [m, width]");
    assert!(y.len() == n * width && dy.len() == y.len(), "logistic: y or dy is not [n, width]");
    // Room for the whole vectors that the last partial tile writes.
    errors.resize((m * n).next_multiple_of(MAX_LANES) + 2 * MAX_LANES, 0.0);
    dispatch(Logistic { width, m, n, x, y, labels, alpha, errors, dx, dy })
}

struct Logistic<'a> {
    width: usize,
    m: usize,
    n: usize,
    x: &'a [f32],
    y: &'a [f32],
    labels: &'a [f32],
    alpha: f32,
    errors: &'a mut [f32],
    dx: &'a mut [f32],
    dy: &'a mut [f32],
}

/// Output rows that a tile takes: with two input rows, twelve sums, two inputs and an output fill sixteen registers.
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
        let loss = self.errors(isa);
        for first in (0..self.n).step_by(COLUMNS) {
            match self.n - first {
                1 => self.gradients::<1, I>(isa, first),
                2 => self.gradients::<2, I>(isa, first),
                3 => self.gradients::<3, I>(isa, first),
                4 => self.gradients::<4, I>(isa, first),
                5 => self.gradients::<5, I>(isa, first),
                _ => self.gradients::<COLUMNS, I>(isa, first),
            }
        }
        if self.n == 0 {
            self.dx.fill(0.0);
        }
        loss
    }
}

impl Logistic<'_> {
    /// `errors[i, j] = x_i · y_j` for columns `first..first + N`.
    #[inline(always)]
    fn products<const N: usize, I: Isa>(&mut self, isa: I, first: usize) {
        let mut i = 0;
        while i + 2 <= self.m {
            let sums = self.tile::<2, N, I>(isa, i, first);
            for r in 0..2 {
                let at = (i + r) * self.n + first;
                self.errors[at..at + N].copy_from_slice(&sums[r * N..(r + 1) * N]);
            }
            i += 2;
        }
        if i < self.m {
            let sums = self.tile::<1, N, I>(isa, i, first);
            let at = i * self.n + first;
            self.errors[at..at + N].copy_from_slice(&sums[..N]);
        }
    }

    /// The products of `R` inputs with `N` outputs, row by row.
    #[inline(always)]
    fn tile<const R: usize, const N: usize, I: Isa>(&self, isa: I, i: usize, first: usize) -> [f32; MAX_LANES] {
        let w = self.width;
        let x: [&[f32]; R] = std::array::from_fn(|r| &self.x[(i + r) * w..(i + r + 1) * w]);
        let y: [&[f32]; N] = std::array::from_fn(|j| &self.y[(first + j) * w..(first + j + 1) * w]);
        let mut sums = [[isa.zero(); N]; R];
        let mut at = 0;
        while at < w {
            let xs: [I::F32; R] = std::array::from_fn(|r| isa.load(&x[r][at..at + I::LANES]));
            for j in 0..N {
                let yj = isa.load(&y[j][at..at + I::LANES]);
                for r in 0..R {
                    sums[r][j] = isa.mul_add(xs[r], yj, sums[r][j]);
                }
            }
            at += I::LANES;
        }
        // Lane l of the result is the sum of vector l, in groups of as many vectors as there are lanes.
        let mut flat = [isa.zero(); MAX_LANES];
        for r in 0..R {
            for j in 0..N {
                flat[r * N + j] = sums[r][j];
            }
        }
        let mut out = [0.0; MAX_LANES];
        let mut group = 0;
        while group < R * N {
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

    /// Turns products into errors; the loss.
    #[inline(always)]
    fn errors<I: Isa>(&mut self, isa: I) -> f64 {
        let pairs = self.m * self.n;
        // What label each pair has, as a vector that starts anywhere in the row: with one period after the other.
        let one = isa.splat(1.0);
        let mut labels = [0.0; MAX_LANES];
        let mut loss = 0.0;
        let mut column = 0;
        let mut at = 0;
        while at < pairs {
            for l in labels.iter_mut().take(I::LANES) {
                *l = self.labels[column];
                column += 1;
                if column == self.n {
                    column = 0;
                }
            }
            let label = isa.load(&labels);
            let product = isa.load(&self.errors[at..at + I::LANES]);
            // P(label): the sigmoid of the product, or of its negative. The error is ±(1 − P).
            let sign = isa.sub(isa.add(label, label), one);
            let signed = isa.mul(product, sign);
            let signed = isa.max(isa.splat(-30.0), isa.min(signed, isa.splat(30.0)));
            let e = exp(isa, isa.neg(signed));
            let wrong = isa.div(e, isa.add(one, e)); // 1 − P
            let error = isa.mul(isa.mul(wrong, sign), isa.splat(self.alpha));
            // −ln P = ln(1 + e)
            let nats = ln(isa, isa.add(one, e));
            let inside = isa.first_lanes(pairs - at);
            isa.store(&mut self.errors[at..at + I::LANES], isa.select(inside, error, isa.zero()));
            loss += f64::from(isa.reduce_sum(isa.select(inside, nats, isa.zero())));
            at += I::LANES;
        }
        loss
    }

    /// `dx_i (+)= Σ_j e_ij y_j` and `dy_j = Σ_i e_ij x_i` for columns `first..first + N`.
    #[inline(always)]
    fn gradients<const N: usize, I: Isa>(&mut self, isa: I, first: usize) {
        let w = self.width;
        let mut at = 0;
        while at < w {
            let y: [I::F32; N] = std::array::from_fn(|j| isa.load(&self.y[(first + j) * w + at..][..I::LANES]));
            let mut dy = [isa.zero(); N];
            for i in 0..self.m {
                let x = isa.load(&self.x[i * w + at..][..I::LANES]);
                let errors = &self.errors[i * self.n + first..][..N];
                let mut dx = if first == 0 { isa.zero() } else { isa.load(&self.dx[i * w + at..][..I::LANES]) };
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

/// e^x for |x| ≤ 30, within 2·10^-7 of it: 2^n times the series of the rest, of at most ln 2 / 2, to the sixth power.
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

/// ln x for x ≥ 1, within 3·10^-7 of it or of 1: exponent times ln 2, and 2 artanh((m − 1)/(m + 1)) of the mantissa m,
/// which lies within √2 of 1.
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

    /// (dx, dy, loss), as the formula says.
    fn naive(w: usize, x: &[f32], y: &[f32], labels: &[f32], alpha: f32) -> (Vec<f64>, Vec<f64>, f64) {
        let (mut dx, mut dy, mut loss) = (vec![0.0; x.len()], vec![0.0; y.len()], 0.0);
        for i in 0..x.len() / w {
            for (j, &label) in labels.iter().enumerate() {
                let dot: f64 = (0..w).map(|c| f64::from(x[i * w + c]) * f64::from(y[j * w + c])).sum();
                let sigmoid = 1.0 / (1.0 + (-dot).exp());
                loss -= if label == 1.0 { sigmoid.ln() } else { (1.0 - sigmoid).ln() };
                let e = f64::from(alpha) * (f64::from(label) - sigmoid);
                for c in 0..w {
                    dx[i * w + c] += e * f64::from(y[j * w + c]);
                    dy[j * w + c] += e * f64::from(x[i * w + c]);
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
                for (m, n) in [(1, 1), (1, 6), (2, 5), (3, 7), (10, 6), (5, 13), (1, 36), (0, 3), (2, 0)] {
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
}
