//! One text being generated: its tokens, logits processors, random numbers and stop conditions.
//!
//! Every decoding method is a loop over this: check whether the text [is
//! active](Sequence::is_active), run a model on the unread tokens, and [choose](Sequence::choose) a
//! token from the logits. A sequence does not hold a model, so a batch is a list of sequences.

use std::sync::Arc;
use std::time::Instant;

use crate::error::{Error, Result};
use crate::generation::config::GenerationConfig;
use crate::generation::constraint::{TokenMask, TokenSet};
use crate::generation::logprobs::TokenLogprob;
use crate::generation::processor::{LogitsProcessor, Processors};
use crate::generation::sampler;
use crate::generation::stopping::StopReason;
use crate::random::Rng;
use crate::tensor::IdTensor;

/// One text being generated.
#[derive(Clone, Debug)]
pub(crate) struct Sequence {
    config: Arc<GenerationConfig>,
    processors: Processors,
    constraint: Option<Constraint>,
    rng: Rng,
    /// Prompt and generated tokens.
    ids: Vec<u32>,
    prompt_len: usize,
    limit: usize,
    deadline: Option<Instant>,
    logprobs: Vec<TokenLogprob>,
    stopped: Option<StopReason>,
}

/// A mask and the set that it fills.
#[derive(Clone, Debug)]
struct Constraint {
    mask: Box<dyn TokenMask>,
    allowed: TokenSet,
}

impl Sequence {
    /// Creates a text that starts with a prompt, for a vocabulary of `vocab_size`.
    ///
    /// # Errors
    /// [`Error::Argument`] for a setting out of range or an empty prompt, [`Error::Id`] for an id
    /// outside the vocabulary.
    pub(crate) fn new(prompt_ids: &[u32], config: Arc<GenerationConfig>, vocab_size: usize) -> Result<Self> {
        config.check()?;
        if let Some(stop) = config.stop_strings.first() {
            let expected = "none for functions that return ids (a text stream supports them)";
            return Err(Error::argument("stop_strings", expected, format!("{stop:?}")));
        }
        if prompt_ids.is_empty() {
            return Err(Error::argument("prompt", "at least one token", "none"));
        }
        IdTensor::sequence(prompt_ids).check_below(vocab_size, "prompt id")?;
        let in_time = config.max_time.and_then(|time| Instant::now().checked_add(time));
        Ok(Self {
            processors: Processors::new(&config, prompt_ids.len(), vocab_size, config.min_tokens_to_keep())?,
            constraint: config.constraint.clone().map(|mask| Constraint { mask, allowed: TokenSet::new(vocab_size) }),
            rng: Rng::seed(config.seed),
            ids: prompt_ids.to_vec(),
            prompt_len: prompt_ids.len(),
            limit: config.new_tokens_limit(prompt_ids.len()),
            deadline: in_time.into_iter().chain(config.deadline).min(),
            logprobs: Vec::new(),
            stopped: None,
            config,
        })
    }

    /// The settings.
    pub(crate) fn config(&self) -> &GenerationConfig {
        &self.config
    }

    /// Prompt and generated tokens.
    pub(crate) fn ids(&self) -> &[u32] {
        &self.ids
    }

    /// Generated tokens.
    pub(crate) fn new_ids(&self) -> &[u32] {
        &self.ids[self.prompt_len..]
    }

    /// Log-probabilities of the generated tokens, if they are kept.
    pub(crate) fn logprobs(&self) -> &[TokenLogprob] {
        &self.logprobs
    }

    /// Why the text ended.
    pub(crate) fn stop_reason(&self) -> Option<StopReason> {
        self.stopped
    }

    /// Adds a processor after those of the configuration.
    pub(crate) fn push_processor(&mut self, processor: Box<dyn LogitsProcessor>) {
        self.processors.push(processor);
    }

    /// Ends the text, unless it has ended.
    pub(crate) fn stop(&mut self, reason: StopReason) {
        self.stopped.get_or_insert(reason);
    }

    /// Ends the text, overriding an earlier reason.
    pub(crate) fn end(&mut self, reason: StopReason) {
        self.stopped = Some(reason);
    }

    /// Number of tokens that may still be generated.
    pub(crate) fn left(&self) -> usize {
        self.limit.saturating_sub(self.new_ids().len())
    }

    /// The text's random numbers.
    pub(crate) fn rng(&mut self) -> &mut Rng {
        &mut self.rng
    }

    /// Keeps the first `len` generated tokens.
    pub(crate) fn truncate(&mut self, len: usize) {
        self.ids.truncate(self.prompt_len + len);
        self.logprobs.truncate(len);
    }

    /// Whether another token is to be generated; otherwise the text ends at a limit of length or
    /// time, or was cancelled.
    pub(crate) fn is_active(&mut self) -> bool {
        if self.stopped.is_none() {
            if self.new_ids().len() >= self.limit {
                self.stopped = Some(StopReason::MaxNewTokens);
            } else if self.config.cancel.as_ref().is_some_and(|cancel| cancel.is_cancelled()) {
                self.stopped = Some(StopReason::Cancelled);
            } else if self.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                self.stopped = Some(StopReason::Deadline);
            }
        }
        self.stopped.is_none()
    }

    /// Chooses the next token from the model's logits and appends it, or ends the text.
    ///
    /// # Errors
    /// [`Error::NotFinite`] for logits that are no distribution; errors of processors and
    /// constraint.
    pub(crate) fn choose(&mut self, logits: &[f32]) -> Result<Option<u32>> {
        let mut processed = logits.to_vec();
        if !self.process(&mut processed)? {
            return Ok(None);
        }
        let id = if self.config.samples() {
            sampler::sample(&processed, &mut self.rng)?
        } else {
            sampler::greedy(&processed)?
        };
        self.take(id, logits)
    }

    /// Applies processors and constraint to the logits. Returns `false` if the text ended because
    /// no token is allowed.
    ///
    /// # Errors
    /// Errors of processors and constraint.
    pub(crate) fn process(&mut self, logits: &mut [f32]) -> Result<bool> {
        self.processors.process_first(&self.ids, logits)?;
        if let Some(constraint) = &mut self.constraint
            && !constraint.process(&self.config.eos_token_ids, logits)?
        {
            constraint.mask.finish()?;
            self.stopped = Some(StopReason::Complete);
            return Ok(false);
        }
        self.processors.process_sampling(&self.ids, logits)?;
        Ok(true)
    }

    /// Appends a chosen token, or ends the text if it is an end token. `logits` are the model's.
    ///
    /// # Errors
    /// If the constraint does not allow the token.
    pub(crate) fn take(&mut self, id: u32, logits: &[f32]) -> Result<Option<u32>> {
        if self.config.eos_token_ids.contains(&id) {
            if let Some(constraint) = &mut self.constraint {
                constraint.mask.finish()?;
            }
            self.stopped = Some(StopReason::EosToken);
            return Ok(None);
        }
        if let Some(constraint) = &mut self.constraint {
            constraint.mask.accept(id)?;
        }
        if let Some(top) = self.config.logprobs {
            self.logprobs.push(TokenLogprob::of(id, logits, top));
        }
        self.ids.push(id);
        if let (0, Some(constraint)) = (self.left(), &mut self.constraint)
            && constraint.is_done(&self.config.eos_token_ids)?
        {
            // The text is complete with the last token that fits the limit.
            constraint.mask.finish()?;
            self.stopped = Some(StopReason::Complete);
        }
        Ok(Some(id))
    }
}

impl Constraint {
    /// Whether the text may end, and only an end token may follow.
    fn is_done(&mut self, eos: &[u32]) -> Result<bool> {
        self.allowed.clear();
        self.mask.allow(&mut self.allowed)?;
        eos.iter().for_each(|&id| self.allowed.remove(id));
        Ok(self.allowed.is_empty() && self.mask.may_end())
    }

    /// Masks the tokens that the constraint forbids. Returns `false` if none is allowed and the
    /// text may end.
    fn process(&mut self, eos: &[u32], logits: &mut [f32]) -> Result<bool> {
        let done = self.is_done(eos)?;
        if done || self.mask.may_end() {
            self.allowed.extend(eos.iter().copied());
        }
        let mut some = false;
        for (id, x) in logits.iter_mut().enumerate() {
            if !self.allowed.contains(id as u32) {
                *x = f32::NEG_INFINITY;
            }
            some |= *x > f32::NEG_INFINITY;
        }
        if !some && !done {
            return Err(Error::argument("constraint", "a next token that no processor forbids", "none"));
        }
        Ok(!done)
    }
}
