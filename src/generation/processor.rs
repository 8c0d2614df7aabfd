//! What changes the logits before a token is drawn from them, in the order and meaning of `transformers`.

use crate::error::Result;
use crate::generation::config::GenerationConfig;

/// Changes the logits of the next token. A token whose logit is -∞ is never drawn.
pub trait LogitsProcessor: Send {
    /// `ids` are the prompt and what was written so far; `logits` has one value per token of the vocabulary.
    ///
    /// # Errors
    /// Whatever the processor cannot work with.
    fn process(&mut self, ids: &[u32], logits: &mut [f32]) -> Result<()>;
}

/// The processors that `config` asks for; none for greedy decoding, which they would not change.
pub(crate) fn from_config(config: &GenerationConfig) -> Vec<Box<dyn LogitsProcessor>> {
    let mut processors: Vec<Box<dyn LogitsProcessor>> = Vec::new();
    if !config.do_sample {
        return processors;
    }
    if config.temperature != 1.0 {
        processors.push(Box::new(Temperature(config.temperature)));
    }
    if config.top_k > 0 {
        processors.push(Box::new(TopK(config.top_k)));
    }
    if config.top_p < 1.0 {
        processors.push(Box::new(TopP(config.top_p)));
    }
    processors
}

/// Divides the logits by a temperature above 0.
#[derive(Clone, Copy, Debug)]
pub struct Temperature(pub f32);

impl LogitsProcessor for Temperature {
    fn process(&mut self, _: &[u32], logits: &mut [f32]) -> Result<()> {
        logits.iter_mut().for_each(|x| *x /= self.0);
        Ok(())
    }
}

/// Keeps this many of the largest logits, and all that equal the smallest of them.
#[derive(Clone, Copy, Debug)]
pub struct TopK(pub usize);

impl LogitsProcessor for TopK {
    fn process(&mut self, _: &[u32], logits: &mut [f32]) -> Result<()> {
        if (1..logits.len()).contains(&self.0) {
            let mut sorted = logits.to_vec();
            let (_, &mut smallest, _) = sorted.select_nth_unstable_by(self.0 - 1, |a, b| b.total_cmp(a));
            logits.iter_mut().filter(|x| **x < smallest).for_each(|x| *x = f32::NEG_INFINITY);
        }
        Ok(())
    }
}

/// Keeps the largest logits whose probabilities add up to at least this (nucleus sampling, Holtzman et al. 2019); of equal
/// logits at the edge, those with the larger id.
#[derive(Clone, Copy, Debug)]
pub struct TopP(pub f32);

impl LogitsProcessor for TopP {
    fn process(&mut self, _: &[u32], logits: &mut [f32]) -> Result<()> {
        let mut order: Vec<usize> = (0..logits.len()).collect();
        // Ascending, as `transformers` does it: what is cut are the smallest whose sum is at most 1 - p.
        order.sort_by(|&a, &b| logits[a].total_cmp(&logits[b]));
        let Some(&last) = order.last() else { return Ok(()) };
        let largest = logits[last];
        let weights: Vec<f64> = order.iter().map(|&i| f64::from(logits[i] - largest).exp()).collect();
        let cut = (1.0 - f64::from(self.0)) * weights.iter().sum::<f64>();
        let mut below = 0.0;
        for (&i, weight) in order[..order.len() - 1].iter().zip(weights) {
            below += weight;
            if below > cut {
                break;
            }
            logits[i] = f32::NEG_INFINITY;
        }
        Ok(())
    }
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
        assert_eq!(kept(&mut TopP(0.5), &logits), [1]);
        assert_eq!(kept(&mut TopP(0.8), &logits), [1, 2]);
        assert_eq!(kept(&mut TopP(0.95), &logits), [0, 1, 2]);
        assert_eq!(kept(&mut TopP(1e-6), &logits), [1]);
        assert!(kept(&mut TopP(0.5), &[]).is_empty());
    }
}
