//! Softmax and cross-entropy in one, forward and backward, without a matrix of probabilities.
//!
//! ```text
//! lse  = m + ln Σ_j e^(x_j - m),  m = max x
//! loss = (1 - ε) (lse - x_label) + ε (lse - x̄)
//! dx_j = scale · (e^(x_j - lse) - (1 - ε)·[j = label] - ε/V)
//! ```
//!
//! with ε the label smoothing (Szegedy et al., *Rethinking the Inception Architecture*, 2016, arXiv:1512.00567), V the
//! number of classes and x̄ the mean of the row; the semantics of PyTorch's `cross_entropy`. Only `lse`, one number a row,
//! is kept for the backward pass.

use super::elementwise::Lanes;
use super::exp::exp_lanes;
use super::rows::{Fold, chunk_rows, count_rows, map_row, sum_row};
use super::softmax::{row_max, row_sum_exp};
use crate::kernels::parallel::{self, Parts};
use crate::kernels::simd::{Isa, SimdOp, dispatch};

/// The loss of each row, zero where its label is `ignore_index`.
///
/// `lse` receives the logarithm of each row's sum of exponentials, for [`cross_entropy_backward`].
///
/// # Shapes
///
/// `logits` `[rows, vocab]`; `labels`, `losses` and `lse` `[rows]`.
///
/// # Panics
///
/// If a label is neither below `vocab` nor `ignore_index`.
///
/// # Examples
///
/// ```
/// let (mut losses, mut lse) = ([0.0; 2], [0.0; 2]);
/// let logits = [0.0, 0.0, 100.0, 0.0];
/// loquat::kernels::vecmath::cross_entropy(&logits, 2, &[1, 0], None, 0.0, &mut losses, &mut lse);
/// assert_eq!(losses, [2f32.ln(), 0.0]);
/// ```
pub fn cross_entropy(
    logits: &[f32],
    vocab: usize,
    labels: &[u32],
    ignore_index: Option<u32>,
    smoothing: f32,
    losses: &mut [f32],
    lse: &mut [f32],
) {
    let rows = check(logits, vocab, labels, ignore_index);
    assert!(losses.len() == rows && lse.len() == rows, "cross_entropy: one loss and one lse for each row");
    if rows == 0 {
        return;
    }
    let chunk = chunk_rows(rows, vocab, 6.0);
    let (losses, lse) = (Parts::new(losses, chunk), Parts::new(lse, chunk));
    parallel::for_each(losses.count(), |i| {
        let range = losses.range(i);
        // SAFETY: each task takes the parts of its own number.
        let (losses, lse) = unsafe { (losses.get(i), lse.get(i)) };
        let logits = &logits[range.start * vocab..range.end * vocab];
        dispatch(Forward { logits, vocab, labels: &labels[range], ignore_index, smoothing, losses, lse });
    });
}

/// dlogits = `scale` · ∂loss/∂logits; zero in rows whose label is `ignore_index`.
///
/// `scale` carries the incoming gradient, and for a mean 1 / (number of labels that count).
///
/// # Shapes
///
/// `logits` and `dlogits` `[rows, vocab]`; `lse` and `labels` `[rows]`.
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
    scale: f32,
    dlogits: &mut [f32],
) {
    let rows = check(logits, vocab, labels, ignore_index);
    assert!(lse.len() == rows && dlogits.len() == logits.len(), "cross_entropy_backward: lengths differ");
    if rows == 0 {
        return;
    }
    let chunk = chunk_rows(rows, vocab, 6.0);
    let dlogits = Parts::new(dlogits, chunk * vocab);
    parallel::for_each(dlogits.count(), |i| {
        let range = i * chunk..rows.min((i + 1) * chunk);
        // SAFETY: each task takes the part of its own number.
        let part = unsafe { dlogits.get(i) };
        dispatch(Backward {
            logits: &logits[dlogits.range(i)],
            lse: &lse[range.clone()],
            vocab,
            labels: &labels[range],
            ignore_index,
            smoothing,
            scale,
            dlogits: part,
        });
    });
}

#[track_caller]
fn check(logits: &[f32], vocab: usize, labels: &[u32], ignore_index: Option<u32>) -> usize {
    let rows = count_rows(logits.len(), vocab);
    assert_eq!(labels.len(), rows, "cross_entropy: one label for each row");
    for &label in labels {
        let counts = (label as usize) < vocab || Some(label) == ignore_index;
        assert!(counts, "cross_entropy: label {label} of {vocab} classes");
    }
    rows
}

struct Forward<'a> {
    logits: &'a [f32],
    vocab: usize,
    labels: &'a [u32],
    ignore_index: Option<u32>,
    smoothing: f32,
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
            let log_sum = row_sum_exp(isa, x, max).ln();
            *lse = max + log_sum;
            // Not `lse - x`, which would lose log_sum's digits when max is large.
            *loss = (max - x[label as usize]) + log_sum;
            if self.smoothing > 0.0 {
                let uniform = sum_row(isa, [x], SumBelow(max)) / self.vocab as f32 + log_sum;
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

/// e^(x - lse) · scale + uniform
#[derive(Clone, Copy)]
struct Slope {
    lse: f32,
    scale: f32,
    uniform: f32,
}

impl Lanes<1> for Slope {
    #[inline(always)]
    fn lanes<I: Isa>(self, isa: I, [x]: [I::F32; 1]) -> I::F32 {
        let probability = exp_lanes(isa, isa.sub(x, isa.splat(self.lse)));
        isa.mul_add(probability, isa.splat(self.scale), isa.splat(self.uniform))
    }
}

struct Backward<'a> {
    logits: &'a [f32],
    lse: &'a [f32],
    vocab: usize,
    labels: &'a [u32],
    ignore_index: Option<u32>,
    smoothing: f32,
    scale: f32,
    dlogits: &'a mut [f32],
}

impl SimdOp for Backward<'_> {
    type Output = ();
    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        let uniform = -self.scale * self.smoothing / self.vocab as f32;
        let inputs = self.logits.chunks_exact(self.vocab).zip(self.lse).zip(self.labels);
        for (((x, &lse), &label), dx) in inputs.zip(self.dlogits.chunks_exact_mut(self.vocab)) {
            if Some(label) == self.ignore_index {
                dx.fill(0.0);
                continue;
            }
            map_row(isa, [x], dx, Slope { lse, scale: self.scale, uniform });
            dx[label as usize] -= self.scale * (1.0 - self.smoothing);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{assert_close, random};
    use super::*;
    use crate::kernels::simd::for_each_level;

    fn loss_f64(x: &[f64], label: usize, smoothing: f64) -> f64 {
        let max = x.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let lse = max + x.iter().map(|x| (x - max).exp()).sum::<f64>().ln();
        let mean = x.iter().sum::<f64>() / x.len() as f64;
        (1.0 - smoothing) * (lse - x[label]) + smoothing * (lse - mean)
    }

    #[test]
    fn losses_and_gradients_match_double_precision() {
        for_each_level(|_| {
            for vocab in [1, 2, 17, 65, 300] {
                for smoothing in [0.0, 0.1] {
                    for ignore_index in [None, Some(u32::MAX), Some(0)] {
                        let rows = 6;
                        let x: Vec<f32> = random(rows * vocab, 9).iter().map(|x| 5.0 * x + 3.0).collect();
                        let mut labels: Vec<u32> = (0..rows as u32).map(|i| i * 7 % vocab as u32).collect();
                        if ignore_index == Some(u32::MAX) {
                            labels[2] = u32::MAX;
                        }
                        let (mut losses, mut lse) = (vec![7.0; rows], vec![7.0; rows]);
                        cross_entropy(&x, vocab, &labels, ignore_index, smoothing, &mut losses, &mut lse);
                        let mut dx = vec![7.0; x.len()];
                        cross_entropy_backward(&x, &lse, vocab, &labels, ignore_index, smoothing, 0.5, &mut dx);
                        for row in 0..rows {
                            let at = row * vocab..(row + 1) * vocab;
                            if Some(labels[row]) == ignore_index {
                                assert!(losses[row] == 0.0 && dx[at].iter().all(|&dx| dx == 0.0));
                                continue;
                            }
                            let wide: Vec<f64> = x[at.clone()].iter().map(|&x| x as f64).collect();
                            let loss = |x: &[f64]| loss_f64(x, labels[row] as usize, smoothing as f64);
                            assert_close(&losses[row..=row], &[loss(&wide) as f32], 1e-6);
                            let slope = |j: usize| {
                                let (mut up, mut down) = (wide.clone(), wide.clone());
                                up[j] += 1e-5;
                                down[j] -= 1e-5;
                                (0.5 * (loss(&up) - loss(&down)) / 2e-5) as f32
                            };
                            let expected: Vec<f32> = (0..vocab).map(slope).collect();
                            assert_close(&dx[at], &expected, 1e-6);
                        }
                    }
                }
            }
        });
    }

    #[test]
    #[should_panic(expected = "label 3 of 3 classes")]
    fn a_label_out_of_range_is_refused() {
        cross_entropy(&[0.0; 3], 3, &[3], None, 0.0, &mut [0.0], &mut [0.0]);
    }
}
