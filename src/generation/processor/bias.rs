//! Biases of tokens and token sequences.

use std::collections::BTreeMap;

use crate::error::Result;
use crate::generation::processor::LogitsProcessor;

/// Adds a bias to the logit of the last token of a sequence if the tokens before it were just
/// generated; a sequence of one token is always biased. A bias of -∞ forbids the sequence.
#[derive(Clone, Debug)]
pub(crate) struct SequenceBias {
    /// Sequence and bias; for a sequence that occurs twice, the later bias applies.
    biases: Vec<(Vec<u32>, f32)>,
}

impl SequenceBias {
    /// Creates the processor from sequences of at least one token.
    pub(crate) fn new(biases: impl IntoIterator<Item = (Vec<u32>, f32)>) -> Self {
        let mut last: BTreeMap<Vec<u32>, f32> = BTreeMap::new();
        last.extend(biases.into_iter().filter(|(ids, _)| !ids.is_empty()));
        Self { biases: last.into_iter().collect() }
    }
}

impl LogitsProcessor for SequenceBias {
    fn process(&mut self, ids: &[u32], logits: &mut [f32]) -> Result<()> {
        let mut sums: BTreeMap<u32, f32> = BTreeMap::new();
        for (run, bias) in &self.biases {
            let Some((&last, before)) = run.split_last() else { continue };
            if ids.ends_with(before) {
                *sums.entry(last).or_insert(0.0) += bias;
            }
        }
        for (id, sum) in sums {
            if let Some(logit) = logits.get_mut(id as usize) {
                *logit += sum;
            }
        }
        Ok(())
    }
}
