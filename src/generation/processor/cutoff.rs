//! Temperature and cut-offs of improbable tokens.

use std::cmp::Ordering;

use crate::error::Result;
use crate::generation::processor::LogitsProcessor;
use crate::kernels::vecmath;

/// The terms that convert a logit to its log-probability.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Distribution {
    /// Largest logit.
    pub(crate) largest: f32,
    /// Natural logarithm of Σ exp(logit - largest).
    log_sum: f32,
}

impl Distribution {
    pub(crate) fn of(logits: &[f32]) -> Self {
        let largest = vecmath::max(logits);
        if !largest.is_finite() {
            return Self { largest, log_sum: 0.0 };
        }
        Self { largest, log_sum: vecmath::sum(&weights(logits, largest)).ln() as f32 }
    }

    /// Log-probability of a token with this logit.
    pub(crate) fn log_prob(&self, logit: f32) -> f32 {
        (logit - self.largest) - self.log_sum
    }
}

/// Tokens at least this many times as probable as the most probable one are tried first.
const LIKELY: f32 = 1e-3;

/// exp(logit - largest) for each logit.
pub(crate) fn weights(logits: &[f32], largest: f32) -> Vec<f32> {
    let shifted: Vec<f32> = logits.iter().map(|x| x - largest).collect();
    let mut weights = vec![0.0; logits.len()];
    vecmath::exp(&shifted, &mut weights);
    weights
}

/// Divides the logits by a temperature above 0.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Temperature(pub f32);

impl LogitsProcessor for Temperature {
    fn process(&mut self, _: &[u32], logits: &mut [f32]) -> Result<()> {
        logits.iter_mut().for_each(|x| *x /= self.0);
        Ok(())
    }
}

/// Keeps this number of largest logits, and all that are equal to the smallest of them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TopK(pub usize);

impl LogitsProcessor for TopK {
    fn process(&mut self, _: &[u32], logits: &mut [f32]) -> Result<()> {
        if self.0 < logits.len() {
            let smallest = nth_largest(logits, self.0);
            cut(logits, |x| x < smallest);
        }
        Ok(())
    }
}

/// A cut-off with a threshold and a minimum number of tokens to keep.
macro_rules! cutoffs {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug)]
        pub(crate) struct $name {
            threshold: f32,
            min_tokens_to_keep: usize,
        }

        impl $name {
            /// Sets the threshold; at least one token is kept.
            pub(crate) fn new(threshold: f32) -> Self {
                Self { threshold, min_tokens_to_keep: 1 }
            }

            /// Sets the minimum number of tokens to keep.
            pub(crate) fn keep(mut self, min_tokens_to_keep: usize) -> Self {
                self.min_tokens_to_keep = min_tokens_to_keep.max(1);
                self
            }
        }
    )*};
}

cutoffs! {
    /// Keeps the largest logits whose probabilities sum to at least this (nucleus sampling,
    /// Holtzman et al. 2019); among equal logits at the boundary, those with the larger id.
    TopP;
    /// Keeps tokens at least this many times as probable as the most probable one (Nguyen et al.
    /// 2024).
    MinP;
    /// Keeps the tokens whose surprise is closest to the entropy and whose probabilities sum to at
    /// least this (Meister et al. 2022).
    TypicalP;
    /// Keeps tokens of at least this probability (Hewitt et al. 2022).
    EpsilonCutoff;
    /// Keeps tokens of at least probability `min(ε, √ε · exp(-entropy))` (Hewitt et al. 2022).
    EtaCutoff;
}

impl LogitsProcessor for TopP {
    fn process(&mut self, _: &[u32], logits: &mut [f32]) -> Result<()> {
        let largest = vecmath::max(logits);
        if !largest.is_finite() {
            return Ok(());
        }
        let weights = weights(logits, largest);
        let enough = f64::from(self.threshold) * vecmath::sum(&weights);
        // `transformers` cuts the smallest logits whose sum is at most 1 - p, so a token is cut if
        // those above it sum to at least p.
        let mut kept = vec![false; logits.len()];
        let mut above = 0.0;
        let mut left = self.min_tokens_to_keep;
        let by_logit = |&a: &u32, &b: &u32| {
            let (x, y) = (logits[a as usize], logits[b as usize]);
            y.total_cmp(&x).then(b.cmp(&a))
        };
        let mut visit = |id: usize| {
            if left == 0 && above >= enough {
                return false;
            }
            kept[id] = true;
            above += f64::from(weights[id]);
            left = left.saturating_sub(1);
            true
        };
        // Usually a few tokens are far more probable than the others, which then need not be
        // sorted.
        if in_order(logits, |id| weights[id] >= LIKELY, by_logit, &mut visit) {
            in_order(logits, |id| weights[id] < LIKELY, by_logit, &mut visit);
        }
        logits.iter_mut().zip(kept).filter(|(_, kept)| !kept).for_each(|(x, _)| *x = f32::NEG_INFINITY);
        Ok(())
    }
}

impl LogitsProcessor for MinP {
    fn process(&mut self, _: &[u32], logits: &mut [f32]) -> Result<()> {
        let distribution = Distribution::of(logits);
        if self.threshold <= 0.0 || !distribution.largest.is_finite() {
            return Ok(());
        }
        let best = distribution.log_prob(distribution.largest).exp();
        let least = self.threshold * best;
        let always = nth_largest(logits, self.min_tokens_to_keep);
        cut(logits, |x| x < always && distribution.log_prob(x).exp() < least);
        Ok(())
    }
}

impl LogitsProcessor for TypicalP {
    fn process(&mut self, _: &[u32], logits: &mut [f32]) -> Result<()> {
        let distribution = Distribution::of(logits);
        if !distribution.largest.is_finite() {
            return Ok(());
        }
        let entropy = entropy(logits, &distribution);
        let distance: Vec<f32> = logits.iter().map(|&x| (-distribution.log_prob(x) - entropy).abs()).collect();
        let by_distance = |&a: &u32, &b: &u32| distance[a as usize].total_cmp(&distance[b as usize]).then(a.cmp(&b));
        let (mut mass, mut seen, mut farthest) = (0.0, 0, f32::INFINITY);
        in_order(
            logits,
            |_| true,
            by_distance,
            |id| {
                mass += f64::from(distribution.log_prob(logits[id])).exp();
                seen += 1;
                farthest = distance[id];
                mass < f64::from(self.threshold) || seen < self.min_tokens_to_keep
            },
        );
        logits.iter_mut().zip(&distance).filter(|(_, d)| **d > farthest).for_each(|(x, _)| *x = f32::NEG_INFINITY);
        Ok(())
    }
}

impl LogitsProcessor for EpsilonCutoff {
    fn process(&mut self, _: &[u32], logits: &mut [f32]) -> Result<()> {
        let distribution = Distribution::of(logits);
        cut_below(logits, &distribution, self.threshold, self.min_tokens_to_keep);
        Ok(())
    }
}

impl LogitsProcessor for EtaCutoff {
    fn process(&mut self, _: &[u32], logits: &mut [f32]) -> Result<()> {
        let distribution = Distribution::of(logits);
        let eta = self.threshold.min(self.threshold.sqrt() * (-entropy(logits, &distribution)).exp());
        cut_below(logits, &distribution, eta, self.min_tokens_to_keep);
        Ok(())
    }
}

/// Masks tokens below a probability, except for the `keep` most probable.
fn cut_below(logits: &mut [f32], distribution: &Distribution, probability: f32, keep: usize) {
    if distribution.largest.is_finite() {
        let always = nth_largest(logits, keep);
        cut(logits, |x| x < always && distribution.log_prob(x).exp() < probability);
    }
}

/// Returns -Σ p log p.
fn entropy(logits: &[f32], distribution: &Distribution) -> f32 {
    let allowed = logits.iter().filter(|x| **x > f32::NEG_INFINITY);
    let terms = allowed.map(|&x| f64::from(distribution.log_prob(x))).map(|log_p| log_p * log_p.exp());
    -terms.sum::<f64>() as f32
}

fn cut(logits: &mut [f32], below: impl Fn(f32) -> bool) {
    logits.iter_mut().filter(|x| below(**x)).for_each(|x| *x = f32::NEG_INFINITY);
}

/// Returns the `n`-th largest logit, counted from 1; -∞ if there are fewer.
fn nth_largest(logits: &[f32], n: usize) -> f32 {
    if n <= 1 || n > logits.len() {
        return if n == 1 { vecmath::max(logits) } else { f32::NEG_INFINITY };
    }
    // The largest so far and candidates that may be among them: most logits are compared once and
    // skipped.
    let (mut best, mut least) = (Vec::with_capacity(2 * n), f32::NEG_INFINITY);
    let keep = |best: &mut Vec<f32>| {
        best.select_nth_unstable_by(n - 1, |a, b| b.total_cmp(a));
        best.truncate(n);
        best[n - 1]
    };
    for &x in logits {
        if x > least {
            best.push(x);
            if best.len() == 2 * n {
                least = keep(&mut best);
            }
        }
    }
    if best.len() < n { f32::NEG_INFINITY } else { keep(&mut best) }
}

/// Calls `visit` with the ids that `fits` accepts, in sorted order, until it returns `false`;
/// returns whether it never did. Only a prefix is selected and sorted, then further parts of
/// growing size, since the tail is usually cut off.
fn in_order(
    logits: &[f32],
    fits: impl Fn(usize) -> bool,
    order: impl Fn(&u32, &u32) -> Ordering,
    mut visit: impl FnMut(usize) -> bool,
) -> bool {
    let allowed = |&id: &u32| logits[id as usize] > f32::NEG_INFINITY && fits(id as usize);
    let mut ids: Vec<u32> = (0..logits.len() as u32).filter(allowed).collect();
    let (mut start, mut part) = (0, 64);
    while start < ids.len() {
        let rest = &mut ids[start..];
        let len = part.min(rest.len());
        if len < rest.len() {
            rest.select_nth_unstable_by(len, &order);
        }
        rest[..len].sort_unstable_by(&order);
        if !rest[..len].iter().all(|&id| visit(id as usize)) {
            return false;
        }
        start += len;
        part *= 8;
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(processor: &mut dyn LogitsProcessor, logits: &[f32]) -> Vec<usize> {
        let mut logits = logits.to_vec();
        processor.process(&[], &mut logits).unwrap();
        (0..logits.len()).filter(|&i| logits[i] > f32::NEG_INFINITY).collect()
    }

    #[test]
    fn top_k_keeps_the_largest_and_their_equals() {
        assert_eq!(kept(&mut TopK(2), &[1.0, 3.0, 2.0, 0.0]), [1, 2]);
        assert_eq!(kept(&mut TopK(1), &[1.0, 3.0, 3.0]), [1, 2]);
        assert_eq!(kept(&mut TopK(9), &[1.0, 3.0]), [0, 1]);
    }

    #[test]
    fn top_p_keeps_the_smallest_set_that_reaches_p() {
        let logits = [0.1f32.ln(), 0.6f32.ln(), 0.3f32.ln()];
        assert_eq!(kept(&mut TopP::new(0.5), &logits), [1]);
        assert_eq!(kept(&mut TopP::new(0.8), &logits), [1, 2]);
        assert_eq!(kept(&mut TopP::new(0.95), &logits), [0, 1, 2]);
        assert_eq!(kept(&mut TopP::new(1e-6), &logits), [1]);
        assert_eq!(kept(&mut TopP::new(1e-6).keep(2), &logits), [1, 2]);
        assert_eq!(kept(&mut TopP::new(0.5), &[1.0, 1.0, 1.0, 1.0]), [2, 3]);
        assert!(kept(&mut TopP::new(0.5), &[]).is_empty());
    }

    #[test]
    fn a_long_tail_is_handed_out_in_order() {
        let logits: Vec<f32> = (0..5000).map(|i| ((i * 7919) % 5000) as f32).collect();
        let mut sorted: Vec<usize> = (0..5000).collect();
        sorted.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]));
        let mut seen = Vec::new();
        let order = |&a: &u32, &b: &u32| logits[b as usize].total_cmp(&logits[a as usize]);
        in_order(
            &logits,
            |_| true,
            order,
            |id| {
                seen.push(id);
                seen.len() < 4321
            },
        );
        assert_eq!(seen, sorted[..4321]);
        for n in [1, 2, 7, 2499, 2500, 4999, 5000] {
            assert_eq!(nth_largest(&logits, n), logits[sorted[n - 1]], "{n}");
        }
        assert_eq!(nth_largest(&[1.0, f32::NEG_INFINITY, 1.0], 2), 1.0);
        assert_eq!(nth_largest(&[1.0, f32::NEG_INFINITY, 1.0], 3), f32::NEG_INFINITY);
    }

    #[test]
    fn cutoffs_leave_the_likeliest_whatever_the_threshold() {
        let logits = [0.0, 1.0, 0.9];
        for processor in [
            &mut MinP::new(1.0) as &mut dyn LogitsProcessor,
            &mut EpsilonCutoff::new(0.99),
            &mut EtaCutoff::new(0.99),
            &mut TopP::new(0.01),
        ] {
            assert!(kept(processor, &logits).contains(&1));
            processor.process(&[], &mut [f32::NEG_INFINITY; 2]).unwrap();
        }
        assert_eq!(kept(&mut MinP::new(1.0).keep(2), &logits), [1, 2]);
        assert_eq!(kept(&mut EpsilonCutoff::new(0.99).keep(2), &logits), [1, 2]);
    }
}
