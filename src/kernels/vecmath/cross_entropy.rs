//! Cross-entropy of a softmax, forward and backward, without a matrix of probabilities.
//!
//! ```text
//! lse  = m + ln Σ_j e^(x_j - m),  m = max x
//! loss = (1 - ε) (lse - x_label) + ε (lse - x̄)
//! dx_j = scale · (e^(x_j - lse) - (1 - ε)·[j = label] - ε/V)
//! ```
//!
//! and with class weights w
//!
//! ```text
//! loss = (1 - ε) w_label (lse - x_label) + ε/V Σ_j w_j (lse - x_j)
//! dx_j = scale · (e^(x_j - lse) ((1 - ε) w_label + ε/V Σ w)
//!                 - (1 - ε) w_label·[j = label] - ε/V w_j)
//! ```
//!
//! with ε the label smoothing (Szegedy et al., *Rethinking the Inception Architecture*, 2016,
//! arXiv:1512.00567), V the number of classes and x̄ the mean of the row; the semantics of
//! PyTorch's `cross_entropy`. Only `lse`, one number per row, is stored for the backward pass.

use super::arithmetic::Axpy;
use super::elementwise::{Lanes, lanes};
use super::exp::exp_lanes;
use super::rows::{Fold, Sum, chunk_rows, count_rows, map_row, sum_row, update_row2};
use super::softmax::{row_max, row_sum_exp};
use crate::kernels::parallel::{self, Parts};
use crate::kernels::simd::{Isa, SimdOp, dispatch};

/// Computes the loss of each row: zero where its label is `ignore_index`, infinite where all logits
/// are -∞.
///
/// `weight` holds the weight of each class (default: one). `lse` receives the logarithm of each
/// row's sum of exponentials, for [`cross_entropy_backward`].
///
/// # Shapes
///
/// `logits` `[rows, vocab]`; `weight` `[vocab]`; `labels`, `losses` and `lse` `[rows]`.
///
/// # Panics
///
/// If a label is neither below `vocab` nor `ignore_index`.
///
/// # Examples
///
/// ```
/// use loquat::kernels::vecmath::cross_entropy;
///
/// let (mut losses, mut lse) = ([0.0; 2], [0.0; 2]);
/// let logits = [0.0, 0.0, 100.0, 0.0];
/// cross_entropy(&logits, 2, &[1, 0], None, 0.0, None, &mut losses, &mut lse);
/// assert_eq!(losses, [2f32.ln(), 0.0]);
/// ```
pub fn cross_entropy(
    logits: &[f32],
    vocab: usize,
    labels: &[u32],
    ignore_index: Option<u32>,
    smoothing: f32,
    weight: Option<&[f32]>,
    losses: &mut [f32],
    lse: &mut [f32],
) {
    let rows = check(logits, vocab, labels, ignore_index, weight);
    let total = total(weight);
    assert!(losses.len() == rows && lse.len() == rows, "cross_entropy: one loss and one lse for each row");
    if rows == 0 {
        return;
    }
    let chunk = chunk_rows(rows, vocab, 6.0);
    let (losses, lse) = (Parts::new(losses, chunk), Parts::new(lse, chunk));
    parallel::for_each(losses.count(), |i| {
        let range = losses.range(i);
        // SAFETY: each task takes the parts with its own index.
        let (losses, lse) = unsafe { (losses.get(i), lse.get(i)) };
        let logits = &logits[range.start * vocab..range.end * vocab];
        let labels = &labels[range];
        dispatch(Forward { logits, vocab, labels, ignore_index, smoothing, weight, total, losses, lse });
    });
}

/// dlogits = `scale` · ∂loss/∂logits; zero in rows whose label is `ignore_index`.
///
/// `scale` is the incoming gradient, for a mean divided by the number of labels that count: one for
/// all rows, or one for each.
///
/// # Shapes
///
/// `logits` and `dlogits` `[rows, vocab]`; `weight` `[vocab]`; `lse` and `labels` `[rows]`; `scale`
/// `[1]` or `[rows]`.
///
/// # Panics
///
/// If a label is neither below `vocab` nor `ignore_index`.
pub fn cross_entropy_backward(
    logits: &[f32],
    lse: &[f32],
    vocab: usize,
    labels: &[u32],
    ignore_index: Option<u32>,
    smoothing: f32,
    weight: Option<&[f32]>,
    scale: &[f32],
    dlogits: &mut [f32],
) {
    let rows = check(logits, vocab, labels, ignore_index, weight);
    assert!(lse.len() == rows && dlogits.len() == logits.len(), "cross_entropy_backward: lengths differ");
    assert!(scale.len() == 1 || scale.len() == rows, "cross_entropy_backward: one scale for all rows, or for each");
    let total = total(weight);
    if rows == 0 {
        return;
    }
    let chunk = chunk_rows(rows, vocab, 6.0);
    let dlogits = Parts::new(dlogits, chunk * vocab);
    parallel::for_each(dlogits.count(), |i| {
        let range = i * chunk..rows.min((i + 1) * chunk);
        // SAFETY: each task takes the part with its own index.
        let part = unsafe { dlogits.get(i) };
        dispatch(Backward {
            logits: &logits[dlogits.range(i)],
            lse: &lse[range.clone()],
            vocab,
            labels: &labels[range.clone()],
            ignore_index,
            smoothing,
            weight,
            total,
            scale: if scale.len() == 1 { scale } else { &scale[range] },
            dlogits: part,
        });
    });
}

#[track_caller]
fn check(logits: &[f32], vocab: usize, labels: &[u32], ignore_index: Option<u32>, weight: Option<&[f32]>) -> usize {
    let rows = count_rows(logits.len(), vocab);
    assert!(weight.is_none_or(|weight| weight.len() == vocab), "cross_entropy: one weight for each class");
    assert_eq!(labels.len(), rows, "cross_entropy: one label for each row");
    for &label in labels {
        let counts = (label as usize) < vocab || Some(label) == ignore_index;
        assert!(counts, "cross_entropy: label {label} of {vocab} classes");
    }
    rows
}

/// Σ w
fn total(weight: Option<&[f32]>) -> f32 {
    weight.map_or(0.0, |weight| super::reduce::sum(weight) as f32)
}

struct Forward<'a> {
    logits: &'a [f32],
    vocab: usize,
    labels: &'a [u32],
    ignore_index: Option<u32>,
    smoothing: f32,
    weight: Option<&'a [f32]>,
    /// Σ w
    total: f32,
    losses: &'a mut [f32],
    lse: &'a mut [f32],
}

impl SimdOp for Forward<'_> {
    type Output = ();
    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        let outputs = self.losses.iter_mut().zip(self.lse.iter_mut());
        for ((x, &label), (loss, lse)) in self.logits.chunks_exact(self.vocab).zip(self.labels).zip(outputs) {
            if Some(label) == self.ignore_index {
                (*loss, *lse) = (0.0, 0.0);
                continue;
            }
            let max = row_max(isa, x);
            if max == f32::NEG_INFINITY && !sum_row(isa, [x], Sum).is_nan() {
                (*loss, *lse) = (f32::INFINITY, 0.0);
                continue;
            }
            let log_sum = row_sum_exp(isa, x, max).ln();
            *lse = max + log_sum;
            // Not `lse - x`, which would lose the digits of log_sum if max is large.
            *loss = (max - x[label as usize]) + log_sum;
            if let Some(weight) = self.weight {
                *loss *= weight[label as usize];
            }
            if self.smoothing > 0.0 {
                let uniform = match self.weight {
                    None => sum_row(isa, [x], SumBelow(max)) / self.vocab as f32 + log_sum,
                    Some(weight) => {
                        let below = sum_row(isa, [x, weight], WeightedSumBelow(max));
                        (below + self.total * log_sum) / self.vocab as f32
                    }
                };
                *loss = (1.0 - self.smoothing) * *loss + self.smoothing * uniform;
            }
        }
    }
}

/// Σ (max - x)
#[derive(Clone, Copy)]
struct SumBelow(f32);

impl Fold<1> for SumBelow {
    #[inline(always)]
    fn fold<I: Isa>(self, isa: I, partial: I::F32, [x]: [I::F32; 1]) -> I::F32 {
        isa.add(partial, isa.sub(isa.splat(self.0), x))
    }
}

/// Σ w (max - x)
#[derive(Clone, Copy)]
struct WeightedSumBelow(f32);

impl Fold<2> for WeightedSumBelow {
    #[inline(always)]
    fn fold<I: Isa>(self, isa: I, partial: I::F32, [x, w]: [I::F32; 2]) -> I::F32 {
        isa.mul_add(w, isa.sub(isa.splat(self.0), x), partial)
    }
}

// e^(x - lse) · scale + uniform
lanes!(struct Slope { lse: f32, scale: f32, uniform: f32 }: 1, |self, isa, [x]| {
    let probability = exp_lanes(isa, isa.sub(x, isa.splat(self.lse)));
    isa.mul_add(probability, isa.splat(self.scale), isa.splat(self.uniform))
});

struct Backward<'a> {
    logits: &'a [f32],
    lse: &'a [f32],
    vocab: usize,
    labels: &'a [u32],
    ignore_index: Option<u32>,
    smoothing: f32,
    weight: Option<&'a [f32]>,
    /// Σ w
    total: f32,
    /// One for all rows, or one for each.
    scale: &'a [f32],
    dlogits: &'a mut [f32],
}

impl SimdOp for Backward<'_> {
    type Output = ();
    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        let inputs = self.logits.chunks_exact(self.vocab).zip(self.lse).zip(self.labels);
        for ((((x, &lse), &label), dx), &scale) in
            inputs.zip(self.dlogits.chunks_exact_mut(self.vocab)).zip(self.scale.iter().cycle())
        {
            if Some(label) == self.ignore_index {
                dx.fill(0.0);
                continue;
            }
            let uniform = -scale * self.smoothing / self.vocab as f32;
            let Some(weight) = self.weight else {
                map_row(isa, [x], dx, Slope { lse, scale, uniform });
                dx[label as usize] -= scale * (1.0 - self.smoothing);
                continue;
            };
            let of_label = scale * (1.0 - self.smoothing) * weight[label as usize];
            map_row(isa, [x], dx, Slope { lse, scale: of_label - uniform * self.total, uniform: 0.0 });
            if uniform != 0.0 {
                update_row2(isa, dx, weight, Axpy(uniform));
            }
            dx[label as usize] -= of_label;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{assert_close, random};
    use super::*;
    use crate::kernels::simd::for_each_level;

    fn loss_f64(x: &[f64], label: usize, smoothing: f64, w: &[f64]) -> f64 {
        let max = x.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let lse = max + x.iter().map(|x| (x - max).exp()).sum::<f64>().ln();
        let spread: f64 = x.iter().zip(w).map(|(x, w)| w * (lse - x)).sum();
        (1.0 - smoothing) * w[label] * (lse - x[label]) + smoothing * spread / x.len() as f64
    }

    #[test]
    fn losses_and_gradients_match_double_precision() {
        for_each_level(|_| {
            for vocab in [1, 2, 17, 65, 300] {
                for smoothing in [0.0, 0.1] {
                    for ignore_index in [None, Some(u32::MAX), Some(0)] {
                        for weighted in [false, true] {
                            check_case(vocab, smoothing, ignore_index, weighted);
                        }
                    }
                }
            }
        });
    }

    fn check_case(vocab: usize, smoothing: f32, ignore_index: Option<u32>, weighted: bool) {
        let rows = 6;
        let x: Vec<f32> = random(rows * vocab, 9).iter().map(|x| 5.0 * x + 3.0).collect();
        let mut labels: Vec<u32> = (0..rows as u32).map(|i| i * 7 % vocab as u32).collect();
        if ignore_index == Some(u32::MAX) {
            labels[2] = u32::MAX;
        }
        let weight: Vec<f32> = random(vocab, 4).iter().map(|x| if weighted { x.abs() } else { 1.0 }).collect();
        let some = weighted.then_some(&weight[..]);
        // One scale for each row, or for all.
        let scales: Vec<f32> = if weighted { (1..=rows).map(|i| 0.2 * i as f32).collect() } else { vec![0.5] };
        let (mut losses, mut lse) = (vec![7.0; rows], vec![7.0; rows]);
        cross_entropy(&x, vocab, &labels, ignore_index, smoothing, some, &mut losses, &mut lse);
        let mut dx = vec![7.0; x.len()];
        cross_entropy_backward(&x, &lse, vocab, &labels, ignore_index, smoothing, some, &scales, &mut dx);
        let weight: Vec<f64> = weight.iter().map(|&w| w as f64).collect();
        for row in 0..rows {
            let at = row * vocab..(row + 1) * vocab;
            if Some(labels[row]) == ignore_index {
                assert!(losses[row] == 0.0 && dx[at].iter().all(|&dx| dx == 0.0));
                continue;
            }
            let wide: Vec<f64> = x[at.clone()].iter().map(|&x| x as f64).collect();
            let loss = |x: &[f64]| loss_f64(x, labels[row] as usize, smoothing as f64, &weight);
            assert_close(&losses[row..=row], &[loss(&wide) as f32], 2e-6);
            let scale = f64::from(scales[if weighted { row } else { 0 }]);
            let slope = |j: usize| {
                let (mut up, mut down) = (wide.clone(), wide.clone());
                up[j] += 1e-5;
                down[j] -= 1e-5;
                (scale * (loss(&up) - loss(&down)) / 2e-5) as f32
            };
            let expected: Vec<f32> = (0..vocab).map(slope).collect();
            assert_close(&dx[at], &expected, 2e-6);
        }
    }

    #[test]
    fn a_row_without_probabilities_has_an_infinite_loss() {
        for_each_level(|_| {
            for cols in [1, 5, 33] {
                let x = vec![f32::NEG_INFINITY; cols];
                let (mut loss, mut lse, mut dx) = ([7.0], [7.0], vec![7.0; cols]);
                cross_entropy(&x, cols, &[0], None, 0.0, None, &mut loss, &mut lse);
                assert_eq!(loss, [f32::INFINITY]);
                cross_entropy_backward(&x, &lse, cols, &[0], None, 0.0, None, &[1.0], &mut dx);
                assert!(dx[0] == -1.0 && dx[1..].iter().all(|&dx| dx == 0.0));
                let mut bad = x.clone();
                bad[cols / 2] = f32::NAN;
                cross_entropy(&bad, cols, &[0], None, 0.0, None, &mut loss, &mut lse);
                assert!(loss[0].is_nan());
            }
        });
    }

    #[test]
    #[should_panic(expected = "label 3 of 3 classes")]
    fn a_label_out_of_range_is_refused() {
        cross_entropy(&[0.0; 3], 3, &[3], None, 0.0, None, &mut [0.0], &mut [0.0]);
    }
}
