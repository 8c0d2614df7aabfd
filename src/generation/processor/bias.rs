//! Biases of tokens and of runs of tokens.

use std::collections::BTreeMap;

use crate::error::Result;
use crate::generation::processor::LogitsProcessor;

/// Adds a bias to the logit of the last token of a run when the others have just been written; a run of one token is
/// biased always. A bias of -∞ forbids the run.
#[derive(Clone, Debug)]
pub(crate) struct SequenceBias {
    /// Run → bias; of a run that is named twice the later holds.
    biases: Vec<(Vec<u32>, f32)>,
}

impl SequenceBias {
    /// From runs of at least one token.
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
