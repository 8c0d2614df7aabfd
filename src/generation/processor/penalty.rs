//! Penalties on what has been written already.

use crate::error::Result;
use crate::generation::processor::LogitsProcessor;

/// Divides the logits of tokens in prompt and text by a penalty above 0; negative ones are multiplied (CTRL, Keskar et al.
/// 2019).
#[derive(Clone, Debug)]
pub struct RepetitionPenalty {
    penalty: f32,
    seen: Vec<u32>,
}

impl RepetitionPenalty {
    /// 1 changes nothing, above 1 discourages repetition.
    pub fn new(penalty: f32) -> Self {
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

/// Takes `frequency × occurrences + presence` off the logit of each token that was written after the prompt, as OpenAI's
/// interface and vLLM do.
#[derive(Clone, Debug)]
pub struct OccurrencePenalty {
    frequency: f32,
    presence: f32,
    prompt_len: usize,
    seen: Vec<u32>,
}

impl OccurrencePenalty {
    /// The first `prompt_len` tokens do not count.
    pub fn new(frequency: f32, presence: f32, prompt_len: usize) -> Self {
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

/// Forbids the token that would complete a run of this many tokens for the second time.
#[derive(Clone, Copy, Debug)]
pub struct NoRepeatNgrams(pub usize);

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
