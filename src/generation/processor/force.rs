//! Forced and forbidden tokens.

use std::collections::BTreeMap;

use crate::error::Result;
use crate::generation::processor::LogitsProcessor;

/// Forbids end tokens while the text, prompt included, is shorter than a length.
#[derive(Clone, Debug)]
pub(crate) struct MinLength {
    length: usize,
    eos_token_ids: Vec<u32>,
}

impl MinLength {
    /// Sets the length in tokens, prompt included.
    pub(crate) fn new(length: usize, eos_token_ids: Vec<u32>) -> Self {
        Self { length, eos_token_ids }
    }
}

impl LogitsProcessor for MinLength {
    fn process(&mut self, ids: &[u32], logits: &mut [f32]) -> Result<()> {
        if ids.len() < self.length {
            forbid(&self.eos_token_ids, logits);
        }
        Ok(())
    }
}

/// Masks all tokens but the given ones at given positions.
#[derive(Clone, Debug, Default)]
pub(crate) struct ForcedTokens(BTreeMap<usize, Vec<u32>>);

impl ForcedTokens {
    /// Forces one of `tokens` at `place`, counted from 0 at the prompt's first token.
    pub(crate) fn at(mut self, place: usize, tokens: impl Into<Vec<u32>>) -> Self {
        self.0.insert(place, tokens.into());
        self
    }

    /// Whether no position is forced.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl LogitsProcessor for ForcedTokens {
    fn process(&mut self, ids: &[u32], logits: &mut [f32]) -> Result<()> {
        if let Some(tokens) = self.0.get(&ids.len()) {
            logits.fill(f32::NEG_INFINITY);
            for &token in tokens {
                if let Some(x) = logits.get_mut(token as usize) {
                    *x = 0.0;
                }
            }
        }
        Ok(())
    }
}

/// Forbids tokens.
#[derive(Clone, Debug)]
pub(crate) struct Suppress {
    tokens: Vec<u32>,
    /// The only position where tokens are forbidden, counted from the prompt's first token.
    place: Option<usize>,
}

impl Suppress {
    /// Forbids tokens at all positions.
    pub(crate) fn always(tokens: Vec<u32>) -> Self {
        Self { tokens, place: None }
    }

    /// Forbids tokens at one position, counted from 0 at the prompt's first token.
    pub(crate) fn at(place: usize, tokens: Vec<u32>) -> Self {
        Self { tokens, place: Some(place) }
    }
}

impl LogitsProcessor for Suppress {
    fn process(&mut self, ids: &[u32], logits: &mut [f32]) -> Result<()> {
        if self.place.is_none_or(|place| place == ids.len()) {
            forbid(&self.tokens, logits);
        }
        Ok(())
    }
}

/// Adds `|logit| × (factor^(tokens beyond start) - 1)` to the end tokens.
#[derive(Clone, Debug)]
pub(crate) struct ExponentialDecay {
    start: usize,
    factor: f32,
    eos_token_ids: Vec<u32>,
}

impl ExponentialDecay {
    /// Starts after `start` tokens, prompt included.
    pub(crate) fn new(start: usize, factor: f32, eos_token_ids: Vec<u32>) -> Self {
        Self { start, factor, eos_token_ids }
    }
}

impl LogitsProcessor for ExponentialDecay {
    fn process(&mut self, ids: &[u32], logits: &mut [f32]) -> Result<()> {
        if ids.len() > self.start {
            let growth = f64::from(self.factor).powf((ids.len() - self.start) as f64) - 1.0;
            for &id in &self.eos_token_ids {
                if let Some(x) = logits.get_mut(id as usize).filter(|x| x.is_finite()) {
                    *x += x.abs() * growth as f32;
                }
            }
        }
        Ok(())
    }
}

/// Replaces NaN by 0 and infinities by the largest or smallest finite number.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RemoveInvalid;

impl LogitsProcessor for RemoveInvalid {
    fn process(&mut self, _: &[u32], logits: &mut [f32]) -> Result<()> {
        for x in logits {
            *x = if x.is_nan() { 0.0 } else { x.clamp(f32::MIN, f32::MAX) };
        }
        Ok(())
    }
}

fn forbid(tokens: &[u32], logits: &mut [f32]) {
    for &token in tokens {
        if let Some(x) = logits.get_mut(token as usize) {
            *x = f32::NEG_INFINITY;
        }
    }
}
