//! The iterator of token ids.

use std::ops::Deref;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::generation::beam::{BeamSearch, Hypothesis, beam_search};
use crate::generation::config::GenerationConfig;
use crate::generation::logprobs::TokenLogprob;
use crate::generation::processor::LogitsProcessor;
use crate::generation::prompt_cache::PromptCache;
use crate::generation::reader::{Reader, check_context};
use crate::generation::sequence::Sequence;
#[cfg(feature = "tokenizers")]
use crate::generation::speculation::{DRAFT_TOKENS, DraftModel, check_draft};
use crate::generation::speculation::{Drafter, PromptLookup, Speculation};
use crate::generation::stopping::StopReason;
use crate::models::{CausalLm, DecodeState};

/// An iterator of token ids that continue a prompt, computed on demand. See [`generate`].
///
/// `P` is a pointer to the model: `&M` borrows it, `Arc<M>` shares it.
///
/// # Examples
/// ```
/// # use loquat::models::{MlpConfig, MlpLm};
/// # let model = MlpLm::init(&MlpConfig::new(13, 6, 8, 3), &mut loquat::Rng::seed(1))?;
/// use loquat::GenerationConfig;
/// use loquat::generation::{StopReason, generate};
///
/// let config = GenerationConfig::default().greedy().max_new_tokens(5).logprobs(2);
/// let mut tokens = generate(&model, &[1, 2, 3], &config)?;
/// let first = tokens.next().expect("a token")?;
/// assert_eq!(tokens.ids(), [1, 2, 3, first]);
/// assert_eq!(tokens.logprobs()[0].top[0].0, first); // greedy: the most probable token
/// assert_eq!(tokens.by_ref().count(), 4);
/// assert_eq!(tokens.stop_reason(), Some(StopReason::MaxNewTokens));
/// # Ok::<(), loquat::Error>(())
/// ```
pub struct Tokens<P: Deref<Target: CausalLm>> {
    strategy: Strategy<P>,
}

/// The decoding method.
enum Strategy<P: Deref<Target: CausalLm>> {
    /// One token at a time.
    Single { model: P, reader: Reader<<P::Target as CausalLm>::State>, sequence: Box<Sequence> },
    /// Beam search.
    Beams(Box<BeamSearch<P>>),
    /// Speculative decoding.
    Speculative(Box<Speculation<P, P>>),
}

/// Continues `prompt_ids` and returns an iterator of token ids.
///
/// # Errors
/// [`Error::Argument`](crate::Error::Argument) for a setting out of range, an empty prompt, or one
/// that fills the model's context; [`Error::Id`](crate::Error::Id) for an id outside the
/// vocabulary. Errors during decoding are returned by the iterator, which then ends.
///
/// # Examples
/// ```
/// # use loquat::models::{MlpConfig, MlpLm};
/// # let model = MlpLm::init(&MlpConfig::new(13, 6, 8, 3), &mut loquat::Rng::seed(1))?;
/// use loquat::{GenerationConfig, generation::generate};
///
/// let mut tokens = generate(&model, &[1, 2, 3], &GenerationConfig::default().max_new_tokens(5))?;
/// for id in tokens.by_ref() {
///     print!("{} ", id?);
/// }
/// assert_eq!(tokens.new_ids().len(), 5);
/// # Ok::<(), loquat::Error>(())
/// ```
pub fn generate<P>(model: P, prompt_ids: &[u32], config: &GenerationConfig) -> Result<Tokens<P>>
where
    P: Deref<Target: CausalLm>,
{
    if config.beams() > 1 {
        return Ok(Tokens { strategy: Strategy::Beams(Box::new(beam_search(model, prompt_ids, config)?)) });
    }
    if let Some(count) = config.prompt_lookup_num_tokens.filter(|&count| count > 0) {
        return speculative(model, Drafter::Lookup(PromptLookup::default()), prompt_ids, config, count);
    }
    let sequence = Sequence::new(prompt_ids, Arc::new(config.clone()), model.vocab_size())?;
    check_context(&*model, prompt_ids.len())?;
    let reader = Reader::new(&*model, prompt_ids.len());
    Ok(Tokens { strategy: Strategy::Single { model, reader, sequence: Box::new(sequence) } })
}

#[cfg(feature = "tokenizers")]
/// Same as [`generate`], with a draft model as in [`speculate`](crate::generation::speculate).
pub(crate) fn generate_with_draft<P>(
    model: P,
    draft: P,
    prompt_ids: &[u32],
    config: &GenerationConfig,
) -> Result<Tokens<P>>
where
    P: Deref<Target: CausalLm>,
{
    check_draft(&*model, &*draft)?;
    let count = config.num_assistant_tokens.unwrap_or(DRAFT_TOKENS);
    let draft = Drafter::Draft(Box::new(DraftModel::new(draft, config.seed)));
    speculative(model, draft, prompt_ids, config, count)
}

fn speculative<P>(
    model: P,
    drafter: Drafter<P>,
    prompt_ids: &[u32],
    config: &GenerationConfig,
    count: usize,
) -> Result<Tokens<P>>
where
    P: Deref<Target: CausalLm>,
{
    Ok(Tokens {
        strategy: Strategy::Speculative(Box::new(Speculation::new(model, drafter, prompt_ids, config, count)?)),
    })
}

impl<P: Deref<Target: CausalLm>> Tokens<P> {
    /// Adds a user-defined processor after those of the configuration.
    pub fn with_processor(mut self, processor: Box<dyn LogitsProcessor>) -> Self {
        match &mut self.strategy {
            Strategy::Single { sequence, .. } => sequence.push_processor(processor),
            Strategy::Beams(search) => search.push_processor(processor),
            Strategy::Speculative(text) => text.push_processor(processor),
        }
        self
    }

    /// Starts from a cached prompt, as far as it agrees with this one; the tokens are the same as
    /// without it. Call it before the first token is generated.
    pub fn with_cache(mut self, cache: &PromptCache<<P::Target as CausalLm>::State>) -> Self {
        if let (true, Some(reader)) = (self.new_ids().is_empty(), cache.reader(self.ids())) {
            self.set_reader(reader);
        }
        self
    }

    /// Starts from a state that the caller prepared instead of a new one: a state that holds other
    /// input, such as an encoder's output, or that has read the prompt's first
    /// [`len`](DecodeState::len) tokens. Call it before the first token is generated.
    ///
    /// # Errors
    /// [`Error::Argument`](crate::Error::Argument) if the state has read the whole prompt, or if a
    /// token was generated already.
    pub fn with_state(mut self, state: <P::Target as CausalLm>::State) -> Result<Self> {
        if !self.new_ids().is_empty() {
            return Err(Error::argument(
                "state",
                "one set before the first token",
                format!("{} tokens", self.new_ids().len()),
            ));
        }
        self.set_reader(Reader::started(state, self.ids().len())?);
        Ok(self)
    }

    fn set_reader(&mut self, reader: Reader<<P::Target as CausalLm>::State>) {
        match &mut self.strategy {
            Strategy::Single { reader: old, .. } => *old = reader,
            Strategy::Beams(search) => search.set_reader(reader),
            Strategy::Speculative(text) => text.set_reader(reader),
        }
    }

    /// Returns the model state after the tokens read so far: the prompt and all generated tokens
    /// except possibly the last. Use it for a prompt that starts with them, such as the next turn
    /// of a conversation. `None` for beam search and speculative decoding, and after a full context
    /// was shortened.
    pub fn cache(&self) -> Option<PromptCache<<P::Target as CausalLm>::State>> {
        let Strategy::Single { reader, sequence, .. } = &self.strategy else { return None };
        let read = sequence.ids().len().checked_sub(reader.unread)?;
        (read > 0 && reader.state.len() == read)
            .then(|| PromptCache::new(sequence.ids()[..read].to_vec(), reader.state.clone()))
    }

    /// Returns the prompt and the tokens generated so far.
    pub fn ids(&self) -> &[u32] {
        match &self.strategy {
            Strategy::Single { sequence, .. } => sequence.ids(),
            Strategy::Beams(search) => search.ids(),
            Strategy::Speculative(text) => text.ids(),
        }
    }

    /// Returns the tokens generated so far, without the prompt.
    pub fn new_ids(&self) -> &[u32] {
        match &self.strategy {
            Strategy::Single { sequence, .. } => sequence.new_ids(),
            Strategy::Beams(search) => search.new_ids(),
            Strategy::Speculative(text) => text.new_ids(),
        }
    }

    /// Returns the log-probability of each of [`Tokens::new_ids`]; empty unless
    /// [`GenerationConfig::logprobs`](GenerationConfig::logprobs()) is set.
    pub fn logprobs(&self) -> &[TokenLogprob] {
        match &self.strategy {
            Strategy::Single { sequence, .. } => sequence.logprobs(),
            Strategy::Beams(search) => search.logprobs(),
            Strategy::Speculative(text) => text.logprobs(),
        }
    }

    /// Returns why generation stopped, or `None` while it goes on.
    pub fn stop_reason(&self) -> Option<StopReason> {
        match &self.strategy {
            Strategy::Single { sequence, .. } => sequence.stop_reason(),
            Strategy::Beams(search) => search.stop_reason(),
            Strategy::Speculative(text) => text.stop_reason(),
        }
    }

    /// Returns the best texts of a beam search, at most [`GenerationConfig::num_return_sequences`],
    /// best first. Empty until the search has ended, and without beam search.
    pub fn hypotheses(&self) -> Vec<Hypothesis> {
        match &self.strategy {
            Strategy::Beams(search) => search.hypotheses(),
            _ => Vec::new(),
        }
    }

    /// Ends the text with the given reason.
    pub(crate) fn stop(&mut self, reason: StopReason) {
        match &mut self.strategy {
            Strategy::Single { sequence, .. } => sequence.stop(reason),
            Strategy::Beams(search) => search.stop(reason),
            Strategy::Speculative(text) => text.stop(reason),
        }
    }

    /// Generates the next token; `None` once [`Tokens::stop_reason`] is set.
    fn advance(&mut self) -> Result<Option<u32>> {
        match &mut self.strategy {
            Strategy::Single { model, reader, sequence } => {
                let Some(logits) = reader.read(&**model, sequence)? else { return Ok(None) };
                let id = sequence.choose(logits.data())?;
                reader.unread = usize::from(id.is_some());
                Ok(id)
            }
            Strategy::Beams(search) => search.next().transpose(),
            Strategy::Speculative(text) => text.next().transpose(),
        }
    }
}

impl<P: Deref<Target: CausalLm>> Iterator for Tokens<P> {
    type Item = Result<u32>;

    fn next(&mut self) -> Option<Result<u32>> {
        if self.stop_reason().is_some() {
            return None;
        }
        let next = self.advance();
        if next.is_err() {
            self.stop(StopReason::Error);
        }
        next.transpose()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::generation::config::Overflow;
    use crate::tensor::{IdTensor, Tensor};

    /// A model that predicts token `t + 1` after token `t`, with a vocabulary of 10 and the tokens
    /// read as its state.
    pub(crate) struct Counting {
        pub(crate) max_seq_len: Option<usize>,
    }

    #[derive(Clone)]
    pub(crate) struct Read(Vec<u32>);

    impl DecodeState for Read {
        fn len(&self) -> usize {
            self.0.len()
        }
    }

    impl CausalLm for Counting {
        type State = Read;

        fn vocab_size(&self) -> usize {
            10
        }

        fn max_seq_len(&self) -> Option<usize> {
            self.max_seq_len
        }

        fn forward(&self, _: &IdTensor) -> Result<Tensor> {
            unreachable!("generation decodes")
        }

        fn new_state(&self, _: usize) -> Read {
            Read(Vec::new())
        }

        fn decode(&self, input_ids: &IdTensor, state: &mut Read) -> Result<Tensor> {
            state.0.extend_from_slice(input_ids.data());
            assert!(self.max_seq_len.is_none_or(|limit| state.0.len() <= limit), "the context is respected");
            let next = (state.0.last().expect("something was read") + 1) % 10;
            Tensor::from_vec((0..10).map(|t| if t == next { 5.0 } else { 0.0 }).collect(), &[1, 10])
        }
    }

    fn ids(tokens: Tokens<&Counting>) -> Vec<u32> {
        tokens.map(|id| id.unwrap()).collect()
    }

    #[test]
    fn greedy_decoding_takes_the_likeliest_until_told_to_stop() {
        let model = Counting { max_seq_len: None };
        let config = GenerationConfig::default().greedy().max_new_tokens(5);
        let mut tokens = generate(&model, &[3], &config).unwrap();
        assert_eq!(tokens.by_ref().map(|id| id.unwrap()).collect::<Vec<_>>(), [4, 5, 6, 7, 8]);
        assert_eq!(tokens.stop_reason(), Some(StopReason::MaxNewTokens));
        assert_eq!((tokens.ids(), tokens.new_ids()), (&[3, 4, 5, 6, 7, 8][..], &[4, 5, 6, 7, 8][..]));
        assert!(tokens.next().is_none());
        let mut tokens = generate(&model, &[3], &config.eos_token_id(6)).unwrap();
        assert_eq!(tokens.by_ref().count(), 2);
        assert_eq!(tokens.stop_reason(), Some(StopReason::EosToken));
    }

    #[test]
    fn a_full_context_slides_or_stops() {
        let model = Counting { max_seq_len: Some(4) };
        let config = GenerationConfig::default().greedy().max_new_tokens(12);
        assert_eq!(ids(generate(&model, &[0], &config).unwrap()), (1..=12).map(|i| i % 10).collect::<Vec<u32>>());
        let mut tokens = generate(&model, &[0], &config.overflow(Overflow::Stop)).unwrap();
        assert_eq!(tokens.by_ref().count(), 4);
        assert_eq!(tokens.stop_reason(), Some(StopReason::ContextFull));
    }

    #[test]
    fn a_seed_gives_the_same_text_each_time() {
        let model = Counting { max_seq_len: None };
        let config = GenerationConfig::default().temperature(4.0).max_new_tokens(50);
        let text = |seed| ids(generate(&model, &[0], &config.clone().seed(seed)).unwrap());
        assert_eq!(text(1), text(1));
        assert_ne!(text(1), text(2));
    }

    #[test]
    fn many_threads_share_a_model() {
        let model = Counting { max_seq_len: Some(16) };
        let config = GenerationConfig::default().temperature(2.0).max_new_tokens(40).seed(5);
        let alone = ids(generate(&model, &[1], &config).unwrap());
        std::thread::scope(|scope| {
            let threads: Vec<_> =
                (0..4).map(|_| scope.spawn(|| ids(generate(&model, &[1], &config).unwrap()))).collect();
            threads.into_iter().for_each(|t| assert_eq!(t.join().unwrap(), alone));
        });
    }

    #[test]
    fn prompts_that_cannot_be_read_are_errors() {
        let model = Counting { max_seq_len: Some(4) };
        let config = GenerationConfig::default();
        assert!(generate(&model, &[], &config).is_err());
        assert!(generate(&model, &[10], &config).is_err());
        assert!(generate(&model, &[0; 5], &config).is_err());
        assert!(generate(&model, &[0], &config.top_p(0.0)).is_err());
    }
}
