//! Log-probabilities and perplexity of a given text.

use std::ops::ControlFlow;

use crate::error::{Error, Result};
use crate::generation::logprobs::TokenLogprob;
use crate::generation::processor::cutoff::Distribution;
use crate::generation::reader::{check_context, infer};
use crate::models::CausalLm;
use crate::tensor::{IdTensor, Tensor};

/// Returns the log-probability of each token but the first, given the tokens before it, with the
/// `top` most probable alternatives for each.
///
/// # Errors
/// [`Error::Argument`] for a text longer than the model's context (see [`perplexity`]),
/// [`Error::Id`] for an id outside the vocabulary.
///
/// # Examples
/// ```
/// # use loquat::models::{MlpConfig, MlpLm};
/// # let model = MlpLm::init(&MlpConfig::new(13, 6, 8, 3), &mut loquat::Rng::seed(1))?;
/// use loquat::generation::score;
///
/// let scores = score(&model, &[1, 2, 3], 2)?;
/// assert_eq!((scores[0].id, scores[1].id), (2, 3));
/// assert!(scores[0].logprob <= scores[0].top[0].1); // the most probable alternative
/// # Ok::<(), loquat::Error>(())
/// ```
pub fn score(model: &(impl CausalLm + ?Sized), ids: &[u32], top: usize) -> Result<Vec<TokenLogprob>> {
    check_context(model, ids.len())?;
    let Some((_, next)) = ids.split_first() else { return Ok(Vec::new()) };
    let logits = read(model, ids)?;
    Ok(rows(model, &logits).zip(next).map(|(row, &id)| TokenLogprob::of(id, row, top)).collect())
}

/// Perplexity of a model over a text.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Perplexity {
    /// Number of scored tokens.
    pub tokens: usize,
    /// Sum of their negative log-probabilities (natural log).
    pub nll: f64,
}

impl Perplexity {
    /// Returns the perplexity: exp of the mean negative log-probability, at least 1; lower is
    /// better.
    pub fn value(&self) -> f64 {
        (self.nll / self.tokens as f64).exp()
    }
}

/// Measures the perplexity of a text of any length, with windows of `context` tokens that start
/// `stride` apart. Of each window, only the tokens after the previous window are scored, so each
/// has at least `context - stride` tokens before it.
///
/// Windows and targets are those of the guide "Perplexity of fixed-length models" of
/// `transformers`. Here every token has the same weight; the guide's mean weights a window by one
/// token less.
///
/// Default `context`: the model's context length, or 1024 if it has no limit. Default `stride`:
/// half of `context`. If `stride` equals `context`, the first token of each window is not scored.
///
/// # Errors
/// [`Error::Argument`] for a text of fewer than 2 tokens, a `context` below 2 or above the model's,
/// or a `stride` of 0 or above `context`; [`Error::Id`] for an id outside the vocabulary;
/// [`Error::NotFinite`] if the model computes NaN.
///
/// # Examples
/// ```
/// # use loquat::models::{MlpConfig, MlpLm};
/// # let model = MlpLm::init(&MlpConfig::new(13, 6, 8, 3), &mut loquat::Rng::seed(1))?;
/// use loquat::generation::perplexity;
///
/// let text: Vec<u32> = (0..40).map(|i| i % 13).collect();
/// let perplexity = perplexity(&model, &text, Some(16), Some(8))?;
/// assert_eq!(perplexity.tokens, 39); // all but the first
/// assert!(perplexity.value() > 1.0);
/// # Ok::<(), loquat::Error>(())
/// ```
pub fn perplexity(
    model: &(impl CausalLm + ?Sized),
    ids: &[u32],
    context: Option<usize>,
    stride: Option<usize>,
) -> Result<Perplexity> {
    perplexity_with(model, ids, context, stride, &mut |_, _| ControlFlow::Continue(()))
}

/// Same as [`perplexity`], and calls `observer` after each window, with the number of tokens read
/// and their perplexity. [`ControlFlow::Break`] ends the reading and returns the perplexity so far.
///
/// ```
/// use std::ops::ControlFlow;
/// use loquat::generation::perplexity_with;
/// use loquat::models::{MlpConfig, MlpLm};
/// use loquat::Rng;
///
/// let model = MlpLm::init(&MlpConfig::new(5, 8, 16, 4), &mut Rng::seed(1))?;
/// let ids: Vec<u32> = (0..100).map(|i| i % 5).collect();
/// let mut read = Vec::new();
/// let found = perplexity_with(&model, &ids, Some(40), Some(20), &mut |tokens, so_far| {
///     read.push((tokens, so_far.tokens));
///     ControlFlow::Continue(())
/// })?;
/// assert_eq!(read, [(40, 39), (60, 59), (80, 79), (100, 99)]);
/// assert_eq!(found.tokens, 99);
/// # Ok::<(), loquat::Error>(())
/// ```
///
/// # Errors
/// Same as [`perplexity`].
pub fn perplexity_with(
    model: &(impl CausalLm + ?Sized),
    ids: &[u32],
    context: Option<usize>,
    stride: Option<usize>,
    observer: &mut dyn FnMut(usize, &Perplexity) -> ControlFlow<()>,
) -> Result<Perplexity> {
    let limit = model.max_seq_len();
    let context = context.or(limit).unwrap_or(1024);
    if context < 2 || limit.is_some_and(|limit| context > limit) {
        let expected = format!("from 2 to {} tokens", limit.map_or("any number of".into(), |limit| limit.to_string()));
        return Err(Error::argument("context", expected, context));
    }
    let stride = stride.unwrap_or(context / 2);
    if !(1..=context).contains(&stride) {
        return Err(Error::argument("stride", format!("from 1 to {context} tokens, the window"), stride));
    }
    if ids.len() < 2 {
        return Err(Error::argument("text", "at least 2 tokens", ids.len()));
    }
    let mut sum = Perplexity { tokens: 0, nll: 0.0 };
    let (mut begin, mut counted) = (0, 0);
    loop {
        let end = ids.len().min(begin + context);
        // The first token of the text has no context, and neither has the first of a window.
        let first = counted.max(begin + 1);
        if first < end {
            let logits = read(model, &ids[begin..end])?;
            for (row, &id) in rows(model, &logits).skip(first - begin - 1).zip(&ids[first..end]) {
                sum.nll -= f64::from(Distribution::of(row).log_prob(row[id as usize]));
            }
            sum.tokens += end - first;
            if sum.nll.is_nan() {
                let what = format!("log-probability of the tokens from {first} to {end}");
                return Err(Error::NotFinite { what, found: sum.nll });
            }
        }
        counted = end;
        if observer(end, &sum).is_break() || end == ids.len() {
            return Ok(sum);
        }
        begin += stride;
    }
}

fn read(model: &(impl CausalLm + ?Sized), ids: &[u32]) -> Result<Tensor> {
    let ids = IdTensor::sequence(ids);
    ids.check_below(model.vocab_size(), "token id")?;
    infer(|| model.forward(&ids))
}

/// Returns the logits after each token.
fn rows<'l>(model: &(impl CausalLm + ?Sized), logits: &'l Tensor) -> impl Iterator<Item = &'l [f32]> {
    logits.data().chunks_exact(model.vocab_size().max(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::{MlpConfig, MlpLm};
    use crate::random::Rng;

    #[test]
    fn windows_count_each_token_once() {
        let model = MlpLm::init(&MlpConfig::new(13, 6, 8, 3), &mut Rng::seed(1)).unwrap();
        let ids: Vec<u32> = (0..40).map(|i| i * i % 13).collect();
        let whole: f64 = score(&model, &ids, 0).unwrap().iter().map(|t| -f64::from(t.logprob)).sum();
        let once = perplexity(&model, &ids, Some(40), None).unwrap();
        assert_eq!(once.tokens, 39);
        assert!((once.nll - whole).abs() < 1e-4);
        assert!((once.value() - (whole / 39.0).exp()).abs() < 1e-4);
        assert_eq!(perplexity(&model, &ids, Some(10), Some(3)).unwrap().tokens, 39);
        // Five windows without overlap; the first token of each is not scored.
        assert_eq!(perplexity(&model, &ids, Some(8), Some(8)).unwrap().tokens, 35);
    }

    #[test]
    fn what_cannot_be_scored_is_an_error() {
        let model = MlpLm::init(&MlpConfig::new(13, 6, 8, 3), &mut Rng::seed(1)).unwrap();
        assert!(score(&model, &[], 1).unwrap().is_empty() && score(&model, &[1], 1).unwrap().is_empty());
        assert!(score(&model, &[1, 13], 1).is_err());
        for (context, stride) in [(Some(1), None), (Some(4), Some(0)), (Some(4), Some(5))] {
            assert!(perplexity(&model, &[1, 2, 3], context, stride).is_err());
        }
        assert!(perplexity(&model, &[1], None, None).is_err());
    }
}
