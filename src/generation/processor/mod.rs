//! Logits processors: change the logits before a token is chosen, in the order and with the meaning
//! of `transformers`.
//!
//! | file | content |
//! |---|---|
//! | `bias` | biases of tokens and sequences, bad words |
//! | `penalty` | repetition, presence and frequency penalties, repeated n-grams |
//! | `force` | forced and suppressed tokens, minimum length, invalid numbers |
//! | `cutoff` | temperature, top-k, top-p, min-p, typical-p, epsilon and eta cut-offs |
//! | `mirostat` | Mirostat 2 |

mod bias;
pub(crate) mod cutoff;
mod force;
mod mirostat;
mod penalty;

use bias::SequenceBias;
use cutoff::{EpsilonCutoff, EtaCutoff, MinP, Temperature, TopK, TopP, TypicalP};
use force::{ExponentialDecay, ForcedTokens, MinLength, RemoveInvalid, Suppress};
use mirostat::MirostatTwo;
use penalty::{NoRepeatNgrams, OccurrencePenalty, RepetitionPenalty};

use crate::error::{Error, Result};
use crate::generation::config::GenerationConfig;

/// A processor of the logits of the next token. A token whose logit is -∞ is never chosen.
///
/// Order: bias, repetition penalty, frequency and presence penalty, repeated n-grams, bad words,
/// minimum lengths, forced first and last tokens, invalid numbers, length penalty of end tokens,
/// suppressed tokens, user-defined processors, the constraint; then for sampling only: temperature,
/// top-k, top-p, min-p, typical-p, epsilon, eta, Mirostat.
///
/// Any `FnMut(&[u32], &mut [f32]) -> Result<()>` that is [`Clone`] is a processor:
///
/// ```
/// use loquat::GenerationConfig;
///
/// // Never token 13 after token 7.
/// let config = GenerationConfig::default().processor(|ids: &[u32], logits: &mut [f32]| {
///     if ids.last() == Some(&7) {
///         logits[13] = f32::NEG_INFINITY;
///     }
///     Ok(())
/// });
/// # assert_eq!(config.processors.len(), 1);
/// ```
pub trait LogitsProcessor: BoxedClone + Send + Sync {
    /// Changes the logits of the next token. `ids` are the prompt and the tokens generated so far;
    /// `logits` is `[vocab_size]`.
    ///
    /// # Errors
    /// Any error ends the text.
    fn process(&mut self, ids: &[u32], logits: &mut [f32]) -> Result<()>;
}

/// Cloning of a boxed processor, since every text has processors of its own. Implemented for every
/// processor that is [`Clone`].
#[doc(hidden)]
pub trait BoxedClone {
    /// Returns a boxed clone.
    fn boxed_clone(&self) -> Box<dyn LogitsProcessor>;
}

impl<P: LogitsProcessor + Clone + 'static> BoxedClone for P {
    fn boxed_clone(&self) -> Box<dyn LogitsProcessor> {
        Box::new(self.clone())
    }
}

impl Clone for Box<dyn LogitsProcessor> {
    fn clone(&self) -> Self {
        (**self).boxed_clone()
    }
}

impl std::fmt::Debug for dyn LogitsProcessor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("LogitsProcessor")
    }
}

impl<F: FnMut(&[u32], &mut [f32]) -> Result<()> + Clone + Send + Sync + 'static> LogitsProcessor for F {
    fn process(&mut self, ids: &[u32], logits: &mut [f32]) -> Result<()> {
        self(ids, logits)
    }
}

/// The processors of one text, in order: those of every decoding method, then those of sampling.
#[derive(Clone, Debug)]
pub(crate) struct Processors {
    first: Vec<Box<dyn LogitsProcessor>>,
    sampling: Vec<Box<dyn LogitsProcessor>>,
}

impl Processors {
    /// Creates the processors that `config` specifies, for a prompt of `prompt_len` tokens.
    /// Cut-offs keep at least `min_tokens_to_keep`.
    ///
    /// # Errors
    /// [`Error::Id`] for a token outside the vocabulary.
    pub(crate) fn new(
        config: &GenerationConfig,
        prompt_len: usize,
        vocab_size: usize,
        min_tokens_to_keep: usize,
    ) -> Result<Self> {
        check_ids(config, vocab_size)?;
        let eos = &config.eos_token_ids;
        let mut first: Vec<Box<dyn LogitsProcessor>> = Vec::new();
        let mut add = |processor: Box<dyn LogitsProcessor>| first.push(processor);
        if !config.sequence_bias.is_empty() {
            add(Box::new(SequenceBias::new(config.sequence_bias.iter().cloned())));
        }
        if let Some(penalty) = config.repetition_penalty.filter(|&penalty| penalty != 1.0) {
            add(Box::new(RepetitionPenalty::new(penalty)));
        }
        let (frequency, presence) = (config.frequency_penalty.unwrap_or(0.0), config.presence_penalty.unwrap_or(0.0));
        if frequency != 0.0 || presence != 0.0 {
            add(Box::new(OccurrencePenalty::new(frequency, presence, prompt_len)));
        }
        if let Some(n) = config.no_repeat_ngram_size.filter(|&n| n > 0) {
            add(Box::new(NoRepeatNgrams(n)));
        }
        if !config.bad_words_ids.is_empty() {
            let is_end = |ids: &[u32]| matches!(ids, [id] if eos.contains(id));
            let bad = config.bad_words_ids.iter().filter(|ids| !is_end(ids));
            add(Box::new(SequenceBias::new(bad.map(|ids| (ids.clone(), f32::NEG_INFINITY)))));
        }
        let least =
            config.min_length.unwrap_or(0).max(config.min_new_tokens.map_or(0, |n| prompt_len.saturating_add(n)));
        if least > prompt_len && !eos.is_empty() {
            add(Box::new(MinLength::new(least, eos.clone())));
        }
        let last = prompt_len.saturating_add(config.new_tokens_limit(prompt_len)).saturating_sub(1);
        let mut forced = ForcedTokens::default();
        if let Some(id) = config.forced_bos_token_id {
            forced = forced.at(1, [id]);
        }
        for &(place, id) in &config.forced_tokens {
            forced = forced.at(prompt_len.saturating_add(place), [id]);
        }
        if !config.forced_eos_token_ids.is_empty() {
            forced = forced.at(last, config.forced_eos_token_ids.clone());
        }
        if !forced.is_empty() {
            add(Box::new(forced));
        }
        if config.remove_invalid_values == Some(true) {
            add(Box::new(RemoveInvalid));
        }
        if let Some((start, factor)) = config.exponential_decay_length_penalty.filter(|_| !eos.is_empty()) {
            add(Box::new(ExponentialDecay::new(prompt_len.saturating_add(start), factor, eos.clone())));
        }
        if !config.suppress_tokens.is_empty() {
            add(Box::new(Suppress::always(config.suppress_tokens.clone())));
        }
        if !config.begin_suppress_tokens.is_empty() {
            let begin = prompt_len + usize::from(prompt_len <= 1 && config.forced_bos_token_id.is_some());
            add(Box::new(Suppress::at(begin, config.begin_suppress_tokens.clone())));
        }
        config.processors.iter().for_each(|own| first.push(own.clone()));
        Ok(Self { first, sampling: if config.samples() { sampling(config, min_tokens_to_keep) } else { Vec::new() } })
    }

    /// Adds a processor after those of every decoding method.
    pub(crate) fn push(&mut self, processor: Box<dyn LogitsProcessor>) {
        self.first.push(processor);
    }

    /// Runs the processors of every decoding method: penalties, biases, forced and suppressed
    /// tokens, user-defined ones.
    pub(crate) fn process_first(&mut self, ids: &[u32], logits: &mut [f32]) -> Result<()> {
        self.first.iter_mut().try_for_each(|processor| processor.process(ids, logits))
    }

    /// Runs the processors of sampling: temperature and cut-offs. Does nothing for greedy decoding.
    pub(crate) fn process_sampling(&mut self, ids: &[u32], logits: &mut [f32]) -> Result<()> {
        self.sampling.iter_mut().try_for_each(|processor| processor.process(ids, logits))
    }
}

/// Creates temperature and cut-offs.
fn sampling(config: &GenerationConfig, keep: usize) -> Vec<Box<dyn LogitsProcessor>> {
    let mut processors: Vec<Box<dyn LogitsProcessor>> = Vec::new();
    let mut add = |processor: Box<dyn LogitsProcessor>| processors.push(processor);
    if let Some(temperature) = config.temperature.filter(|&t| t != 1.0) {
        add(Box::new(Temperature(temperature)));
    }
    if let Some(k) = config.top_k.filter(|&k| k > 0) {
        add(Box::new(TopK(k.max(keep))));
    }
    if let Some(p) = config.top_p.filter(|&p| p < 1.0) {
        add(Box::new(TopP::new(p).keep(keep)));
    }
    if let Some(p) = config.min_p.filter(|&p| p > 0.0) {
        add(Box::new(MinP::new(p).keep(keep)));
    }
    if let Some(p) = config.typical_p.filter(|&p| p < 1.0) {
        add(Box::new(TypicalP::new(p).keep(keep)));
    }
    if let Some(epsilon) = config.epsilon_cutoff.filter(|&epsilon| epsilon > 0.0) {
        add(Box::new(EpsilonCutoff::new(epsilon).keep(keep)));
    }
    if let Some(epsilon) = config.eta_cutoff.filter(|&epsilon| epsilon > 0.0) {
        add(Box::new(EtaCutoff::new(epsilon).keep(keep)));
    }
    if let Some(mirostat) = config.mirostat {
        add(Box::new(MirostatTwo::new(mirostat.tau, mirostat.eta)));
    }
    processors
}

/// Checks that the ids in `config` are in the vocabulary. End tokens are not checked: others can
/// never be generated.
fn check_ids(config: &GenerationConfig, vocab_size: usize) -> Result<()> {
    let named: [(&str, &mut dyn Iterator<Item = u32>); 7] = [
        ("sequence_bias", &mut config.sequence_bias.iter().flat_map(|(ids, _)| ids.iter().copied())),
        ("bad_words_ids", &mut config.bad_words_ids.iter().flatten().copied()),
        ("forced_bos_token_id", &mut config.forced_bos_token_id.into_iter()),
        ("forced_eos_token_id", &mut config.forced_eos_token_ids.iter().copied()),
        ("forced_tokens", &mut config.forced_tokens.iter().map(|&(_, id)| id)),
        ("suppress_tokens", &mut config.suppress_tokens.iter().copied()),
        ("begin_suppress_tokens", &mut config.begin_suppress_tokens.iter().copied()),
    ];
    for (what, ids) in named {
        for id in ids {
            if id as usize >= vocab_size {
                return Err(Error::Id { what: what.into(), id: u64::from(id), limit: vocab_size });
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
