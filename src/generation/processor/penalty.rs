//! Penalties on tokens that occurred before.

use crate::error::Result;
use crate::generation::processor::LogitsProcessor;

/// Divides the logits of tokens in prompt and text by a penalty above 0; multiplies negative ones
/// (CTRL, Keskar et al. 2019).
#[derive(Clone, Debug)]
pub(crate) struct RepetitionPenalty {
    penalty: f32,
    seen: Vec<u32>,
}

impl RepetitionPenalty {
    /// Sets the penalty: 1 has no effect, above 1 discourages repetition.
    pub(crate) fn new(penalty: f32) -> Self {
        Self { penalty, seen: Vec::new() }
    }
}

impl LogitsProcessor for RepetitionPenalty {
    fn process(&mut self, ids: &[u32], logits: &mut [f32]) -> Result<()> {
        self.seen.clear();
        self.seen.extend_from_slice(ids);
        self.seen.sort_unstable();
        self.seen.dedup();
        for &id in &self.seen {
            if let Some(x) = logits.get_mut(id as usize) {
                *x = if *x < 0.0 { *x * self.penalty } else { *x / self.penalty };
            }
        }
        Ok(())
    }
}

/// Subtracts `frequency × occurrences + presence` from the logit of each token generated after the
/// prompt, as in OpenAI's API and vLLM.
#[derive(Clone, Debug)]
pub(crate) struct OccurrencePenalty {
    frequency: f32,
    presence: f32,
    prompt_len: usize,
    seen: Vec<u32>,
}

impl OccurrencePenalty {
    /// Does not count the first `prompt_len` tokens.
    pub(crate) fn new(frequency: f32, presence: f32, prompt_len: usize) -> Self {
        Self { frequency, presence, prompt_len, seen: Vec::new() }
    }
}

impl LogitsProcessor for OccurrencePenalty {
    fn process(&mut self, ids: &[u32], logits: &mut [f32]) -> Result<()> {
        self.seen.clear();
        self.seen.extend_from_slice(ids.get(self.prompt_len..).unwrap_or_default());
        self.seen.sort_unstable();
        for run in self.seen.chunk_by(|a, b| a == b) {
            if let Some(x) = logits.get_mut(run[0] as usize) {
                *x -= self.frequency * run.len() as f32;
                *x -= self.presence;
            }
        }
        Ok(())
    }
}

/// Forbids a token that would complete an n-gram of this many tokens for the second time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NoRepeatNgrams(pub usize);

impl LogitsProcessor for NoRepeatNgrams {
    fn process(&mut self, ids: &[u32], logits: &mut [f32]) -> Result<()> {
        if self.0 == 0 || ids.len() + 1 < self.0 {
            return Ok(());
        }
        let begun = &ids[ids.len() + 1 - self.0..];
        for run in ids.windows(self.0) {
            if let Some((&last, before)) = run.split_last()
                && before == begun
                && let Some(x) = logits.get_mut(last as usize)
            {
                *x = f32::NEG_INFINITY;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn processed(processor: &mut dyn LogitsProcessor, ids: &[u32], logits: &[f32]) -> Vec<f32> {
        let mut logits = logits.to_vec();
        processor.process(ids, &mut logits).unwrap();
        logits
    }

    #[test]
    fn repetition_is_punished_once_however_often_it_came() {
        let mut penalty = RepetitionPenalty::new(2.0);
        assert_eq!(processed(&mut penalty, &[0, 1, 0, 0, 9], &[4.0, -4.0, 4.0]), [2.0, -8.0, 4.0]);
    }

    #[test]
    fn occurrences_count_after_the_prompt() {
        let mut penalty = OccurrencePenalty::new(0.5, 1.0, 2);
        assert_eq!(processed(&mut penalty, &[2, 2, 0, 1, 0], &[0.0; 3]), [-2.0, -1.5, 0.0]);
        assert_eq!(processed(&mut penalty, &[2], &[0.0; 3]), [0.0; 3]);
    }

    #[test]
    fn no_run_of_tokens_comes_twice() {
        let forbidden = |n: usize, ids: &[u32]| -> Vec<usize> {
            let logits = processed(&mut NoRepeatNgrams(n), ids, &[0.0; 4]);
            (0..4).filter(|&i| logits[i] == f32::NEG_INFINITY).collect()
        };
        assert_eq!(forbidden(2, &[1, 2, 3, 1]), [2]);
        assert_eq!(forbidden(3, &[1, 2, 3, 1, 2]), [3]);
        assert_eq!(forbidden(1, &[1, 3, 1]), [1, 3]);
        // One token starts a bigram, but completes none.
        assert!(forbidden(2, &[1]).is_empty() && forbidden(3, &[1]).is_empty() && forbidden(0, &[1, 1]).is_empty());
    }
}
