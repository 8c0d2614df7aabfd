//! Chooses a token from logits.

use crate::error::{Error, Result};
use crate::generation::processor::cutoff::weights;
use crate::kernels::vecmath;
use crate::random::Rng;

/// Returns the index of the largest logit, the first of equal ones.
///
/// # Errors
/// [`Error::NotFinite`] if there is none: all are -∞, or one is NaN.
pub(crate) fn greedy(logits: &[f32]) -> Result<u32> {
    let best = vecmath::argmax(logits).ok_or_else(|| not_finite(f32::NEG_INFINITY))?;
    if logits[best].is_finite() { Ok(best as u32) } else { Err(not_finite(logits[best])) }
}

/// Draws a token with probabilities `softmax(logits)` by inverting the cumulative sum, in `f64`.
///
/// # Errors
/// Same as [`greedy`].
pub(crate) fn sample(logits: &[f32], rng: &mut Rng) -> Result<u32> {
    let largest = logits[greedy(logits)? as usize];
    let weights = weights(logits, largest);
    let mut left = rng.uniform_f64() * vecmath::sum(&weights);
    let mut drawn = 0;
    for (i, &weight) in weights.iter().enumerate() {
        if weight > 0.0 {
            drawn = i;
            if left < f64::from(weight) {
                break;
            }
            left -= f64::from(weight);
        }
    }
    Ok(drawn as u32)
}

/// Returns the softmax of the logits in `f64`.
pub(crate) fn softmax(logits: &[f32]) -> Vec<f64> {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let exps: Vec<f64> = logits.iter().map(|&x| f64::from(x - largest).exp()).collect();
    let sum: f64 = exps.iter().sum();
    exps.into_iter().map(|x| x / sum).collect()
}

fn not_finite(x: f32) -> Error {
    Error::NotFinite { what: "logits of the next token".into(), found: f64::from(x) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frequencies_are_the_probabilities() {
        let probabilities = [0.5, 0.0, 0.2, 0.3];
        let logits = probabilities.map(f32::ln);
        let mut rng = Rng::seed(3);
        let mut counts = [0usize; 4];
        for _ in 0..100_000 {
            counts[sample(&logits, &mut rng).unwrap() as usize] += 1;
        }
        // χ² with 2 degrees of freedom stays below 13.8 with probability 0.999.
        let term = |(&c, &p): (&usize, &f32)| {
            let expected = 1e5 * f64::from(p);
            if expected == 0.0 { 0.0 } else { (c as f64 - expected).powi(2) / expected }
        };
        let chi_square: f64 = counts.iter().zip(&probabilities).map(term).sum();
        assert!(counts[1] == 0 && chi_square < 13.8, "{counts:?}: {chi_square}");
    }

    #[test]
    fn logits_that_are_no_distribution_are_errors() {
        for logits in [&[][..], &[f32::NEG_INFINITY; 3], &[1.0, f32::NAN], &[f32::INFINITY]] {
            assert!(greedy(logits).is_err() && sample(logits, &mut Rng::seed(0)).is_err(), "{logits:?}");
        }
        assert_eq!(greedy(&[1.0, 2.0, 2.0]).unwrap(), 1);
    }
}
