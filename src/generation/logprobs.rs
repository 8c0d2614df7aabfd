//! Log-probabilities of tokens.

use crate::generation::processor::cutoff::Distribution;

/// Log-probability of a token in the model's distribution, before penalties, temperature, cut-offs
/// and constraint.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenLogprob {
    /// Token id.
    pub id: u32,
    /// Natural logarithm of the probability.
    pub logprob: f32,
    /// The most probable tokens with their log-probabilities, most probable first; ties by smaller
    /// id.
    pub top: Vec<(u32, f32)>,
}

impl TokenLogprob {
    /// Computes the log-probability of `id` from the logits, with `top` alternatives.
    pub(crate) fn of(id: u32, logits: &[f32], top: usize) -> Self {
        let distribution = Distribution::of(logits);
        let log_prob = |id: u32| distribution.log_prob(logits[id as usize]);
        let order = |a: &u32, b: &u32| logits[*b as usize].total_cmp(&logits[*a as usize]).then(a.cmp(b));
        let mut best: Vec<u32> = (0..logits.len() as u32).collect();
        if (1..best.len()).contains(&top) {
            best.select_nth_unstable_by(top - 1, order);
        }
        best.truncate(top);
        best.sort_unstable_by(order);
        Self { id, logprob: log_prob(id), top: best.into_iter().map(|id| (id, log_prob(id))).collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probabilities_add_up_and_the_likeliest_come_first() {
        let logits = [0.5, 2.0, -1.0, 2.0];
        let all = TokenLogprob::of(2, &logits, 9);
        assert_eq!(all.top.iter().map(|t| t.0).collect::<Vec<_>>(), [1, 3, 0, 2]);
        assert!((all.top.iter().map(|t| t.1.exp()).sum::<f32>() - 1.0).abs() < 1e-6);
        assert_eq!(all.logprob, all.top[3].1);
        assert_eq!(TokenLogprob::of(0, &logits, 2).top, all.top[..2]);
        assert!(TokenLogprob::of(0, &logits, 0).top.is_empty());
    }
}
