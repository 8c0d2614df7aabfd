//! Mirostat 2 (Basu et al. 2020, <https://arxiv.org/abs/2007.14966>, algorithm 2), as llama.cpp has it.

use crate::error::Result;
use crate::generation::processor::LogitsProcessor;
use crate::generation::processor::cutoff::Distribution;

/// Keeps the surprise `-log2 p` of what is drawn near a target: tokens more surprising than `μ` bits are cut off (the likeliest
/// stays), and after each token `μ` moves against the error, `μ ← μ - η (surprise - τ)`, from `μ = 2τ`.
///
/// Takes what earlier processors left as the distribution.
#[derive(Clone, Debug)]
pub struct MirostatTwo {
    tau: f32,
    eta: f32,
    mu: f32,
    /// The length of the text and the log-probabilities that the last token was drawn from.
    last: Option<(usize, Vec<f32>)>,
}

impl MirostatTwo {
    /// A target of `tau` bits, and a rate of correction.
    pub fn new(tau: f32, eta: f32) -> Self {
        Self { tau, eta, mu: 2.0 * tau, last: None }
    }

    /// The surprise at which tokens are cut off, in bits.
    pub fn mu(&self) -> f32 {
        self.mu
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
