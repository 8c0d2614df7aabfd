//! Mirostat 2 (Basu et al. 2020, <https://arxiv.org/abs/2007.14966>, algorithm 2), as in llama.cpp.

use crate::error::Result;
use crate::generation::processor::LogitsProcessor;
use crate::generation::processor::cutoff::Distribution;

/// Keeps the surprise `-log2 p` of sampled tokens close to a target: tokens more surprising than
/// `μ` bits are cut off (the most probable token is kept), and after each token
/// `μ ← μ - η (surprise - τ)`, starting at `μ = 2τ`.
///
/// Probabilities are those after the earlier processors.
#[derive(Clone, Debug)]
pub(crate) struct MirostatTwo {
    tau: f32,
    eta: f32,
    /// Surprise above which tokens are cut off, in bits.
    mu: f32,
    /// Length of the text and the log-probabilities from which the last token was drawn.
    last: Option<(usize, Vec<f32>)>,
}

impl MirostatTwo {
    /// Sets the target `tau` in bits and the learning rate `eta`.
    pub(crate) fn new(tau: f32, eta: f32) -> Self {
        Self { tau, eta, mu: 2.0 * tau, last: None }
    }
}

impl LogitsProcessor for MirostatTwo {
    fn process(&mut self, ids: &[u32], logits: &mut [f32]) -> Result<()> {
        if let (Some((len, log_probs)), Some(&id)) = (self.last.take(), ids.last())
            && ids.len() == len + 1
            && let Some(log_prob) = log_probs.get(id as usize).filter(|x| x.is_finite())
        {
            self.mu -= self.eta * (-log_prob * std::f32::consts::LOG2_E - self.tau);
        }
        let distribution = Distribution::of(logits);
        let limit = -self.mu * std::f32::consts::LN_2;
        let largest = distribution.largest;
        logits
            .iter_mut()
            .filter(|x| distribution.log_prob(**x) < limit && **x < largest)
            .for_each(|x| *x = f32::NEG_INFINITY);
        let kept = Distribution::of(logits);
        self.last = Some((ids.len(), logits.iter().map(|&x| kept.log_prob(x)).collect()));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generation::sampler;
    use crate::random::Rng;

    /// As in llama.cpp: candidates are sorted, truncated, normalised and drawn from, and μ is
    /// corrected.
    #[test]
    fn it_cuts_and_corrects_as_the_algorithm_says() {
        let (tau, eta) = (2.0, 0.3);
        let mut mirostat = MirostatTwo::new(tau, eta);
        let (mut mu, mut ids, mut rng) = (2.0 * tau, vec![0u32], Rng::seed(6));
        for step in 0..60 {
            let raw: Vec<f32> = (0..50).map(|_| 3.0 * rng.normal()).collect();
            let mut logits = raw.clone();
            mirostat.process(&ids, &mut logits).unwrap();
            let sum: f32 = raw.iter().map(|x| x.exp()).sum();
            let best = raw.iter().copied().fold(f32::MIN, f32::max);
            let kept: Vec<usize> = (0..50).filter(|&i| -(raw[i].exp() / sum).log2() <= mu || raw[i] == best).collect();
            let left: Vec<usize> = (0..50).filter(|&i| logits[i] > f32::NEG_INFINITY).collect();
            assert_eq!(left, kept, "step {step}");
            let id = sampler::sample(&logits, &mut rng).unwrap();
            let sum: f32 = kept.iter().map(|&i| raw[i].exp()).sum();
            mu -= eta * (-(raw[id as usize].exp() / sum).log2() - tau);
            ids.push(id);
        }
        mirostat.process(&ids, &mut [0.0; 50]).unwrap();
        assert!((mirostat.mu - mu).abs() < 1e-3, "{} and {mu}", mirostat.mu);
    }

    #[test]
    fn surprise_stays_near_its_target() {
        let raw: Vec<f32> = (0..1000).map(|i| -1.1 * ((i + 1) as f32).ln()).collect();
        let (mut mirostat, mut rng, mut ids) = (MirostatTwo::new(3.0, 0.1), Rng::seed(1), vec![0]);
        let mut surprise = 0.0;
        for _ in 0..2000 {
            let mut logits = raw.clone();
            mirostat.process(&ids, &mut logits).unwrap();
            let id = sampler::sample(&logits, &mut rng).unwrap();
            surprise -= Distribution::of(&logits).log_prob(logits[id as usize]) * std::f32::consts::LOG2_E;
            ids.push(id);
        }
        assert!((surprise / 2000.0 - 3.0).abs() < 0.1, "{}", surprise / 2000.0);
    }
}
