//! The decoding loop, as an iterator of token ids.

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
use crate::generation::speculation::{DraftModel, GUESSES, check_draft};
use crate::generation::speculation::{Guesses, PromptLookup, Speculation};
use crate::generation::stopping::StopReason;
use crate::models::{CausalLm, DecodeState};

/// Token ids that continue a prompt, each computed when asked for. See [`generate`].
///
/// `P` points to the model: `&M` borrows it, `Arc<M>` shares it.
pub struct Tokens<P: Deref<Target: CausalLm>> {
    way: Way<P>,
}

/// How the tokens are found.
enum Way<P: Deref<Target: CausalLm>> {
    /// One after the other.
    One { model: P, reader: Reader<<P::Target as CausalLm>::State>, sequence: Box<Sequence> },
    /// As those of the best text of a search.
    Beams(Box<BeamSearch<P>>),
    /// With guesses from the text itself or from a smaller model.
    Guesses(Box<Speculation<P, P>>),
}

/// Continues `prompt_ids`, a token at a time.
///
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
///
/// # Errors
/// [`Error::Argument`](crate::Error::Argument) for a setting out of range, an empty prompt, or one that fills the model's context;
/// [`Error::Id`](crate::Error::Id) for an id outside the vocabulary. An error while decoding is given out by the iterator, which then ends.
pub fn generate<P>(model: P, prompt_ids: &[u32], config: &GenerationConfig) -> Result<Tokens<P>>
where
    P: Deref<Target: CausalLm>,
{
    if config.beams() > 1 {
        return Ok(Tokens { way: Way::Beams(Box::new(beam_search(model, prompt_ids, config)?)) });
    }
    if let Some(count) = config.prompt_lookup_num_tokens.filter(|&count| count > 0) {
        return guessed(model, Guesses::Lookup(PromptLookup::default()), prompt_ids, config, count);
    }
    let sequence = Sequence::new(prompt_ids, Arc::new(config.clone()), model.vocab_size())?;
    check_context(&*model, prompt_ids.len())?;
    let reader = Reader::new(&*model, prompt_ids.len());
    Ok(Tokens { way: Way::One { model, reader, sequence: Box::new(sequence) } })
}

#[cfg(feature = "tokenizers")]
/// As [`generate`], with the guesses of a smaller model, as [`speculate`](crate::generation::speculate) has them.
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
    let count = config.num_assistant_tokens.unwrap_or(GUESSES);
    let draft = Guesses::Draft(Box::new(DraftModel::new(draft, config.seed)));
    guessed(model, draft, prompt_ids, config, count)
}

fn guessed<P>(
    model: P,
    guesses: Guesses<P>,
    prompt_ids: &[u32],
    config: &GenerationConfig,
    count: usize,
) -> Result<Tokens<P>>
where
    P: Deref<Target: CausalLm>,
{
    Ok(Tokens { way: Way::Guesses(Box::new(Speculation::new(model, guesses, prompt_ids, config, count)?)) })
}

impl<P: Deref<Target: CausalLm>> Tokens<P> {
    /// Adds a processor of one's own, after those of the configuration.
    pub fn with_processor(mut self, processor: Box<dyn LogitsProcessor>) -> Self {
        match &mut self.way {
            Way::One { sequence, .. } => sequence.push_processor(processor),
            Way::Beams(search) => search.push_processor(processor),
            Way::Guesses(text) => text.push_processor(processor),
        }
        self
    }

    /// Goes on from a model's memory of the prompt's beginning, as far as they agree; the tokens are the same.
    ///
    /// To be called before the first token is asked for.
    pub fn with_cache(mut self, cache: &PromptCache<<P::Target as CausalLm>::State>) -> Self {
        if let (true, Some(reader)) = (self.new_ids().is_empty(), cache.reader(self.ids())) {
            self.set_reader(reader);
        }
        self
    }

    /// Begins from a state that the caller prepared, instead of a new one: a state that remembers
    /// something beside the text, as the output of an encoder, or that has read the prompt's first
    /// [`len`](DecodeState::len) tokens. Call it before the first token is asked for.
    ///
    /// # Errors
    /// [`Error::Argument`](crate::Error::Argument) if the state has read the whole prompt, or if a
    /// token was generated already.
    pub fn with_state(mut self, state: <P::Target as CausalLm>::State) -> Result<Self> {
        if !self.new_ids().is_empty() {
            return Err(Error::argument(
                "state",
                "one before the first token",
                format!("{} tokens", self.new_ids().len()),
            ));
        }
        self.set_reader(Reader::started(state, self.ids().len())?);
        Ok(self)
    }

    fn set_reader(&mut self, reader: Reader<<P::Target as CausalLm>::State>) {
        match &mut self.way {
            Way::One { reader: old, .. } => *old = reader,
            Way::Beams(search) => search.set_reader(reader),
            Way::Guesses(text) => text.set_reader(reader),
        }
    }

    /// The model's memory of what it has read: the prompt, and what was written but perhaps the last token. For a prompt that begins so, as
    /// the next turn of a conversation does. `None` for beams and guesses, and where a full context slid.
    pub fn cache(&self) -> Option<PromptCache<<P::Target as CausalLm>::State>> {
        let Way::One { reader, sequence, .. } = &self.way else { return None };
        let read = sequence.ids().len().checked_sub(reader.unread)?;
        (read > 0 && reader.state.len() == read)
            .then(|| PromptCache::new(sequence.ids()[..read].to_vec(), reader.state.clone()))
    }

    /// The prompt and what was written so far.
    pub fn ids(&self) -> &[u32] {
        match &self.way {
            Way::One { sequence, .. } => sequence.ids(),
            Way::Beams(search) => search.ids(),
            Way::Guesses(text) => text.ids(),
        }
    }

    /// What was written so far.
    pub fn new_ids(&self) -> &[u32] {
        match &self.way {
            Way::One { sequence, .. } => sequence.new_ids(),
            Way::Beams(search) => search.new_ids(),
            Way::Guesses(text) => text.new_ids(),
        }
    }

    /// The log-probability of each of [`Tokens::new_ids`]; empty unless
    /// [`GenerationConfig::logprobs`](GenerationConfig::logprobs()) asks for them.
    pub fn logprobs(&self) -> &[TokenLogprob] {
        match &self.way {
            Way::One { sequence, .. } => sequence.logprobs(),
            Way::Beams(search) => search.logprobs(),
            Way::Guesses(text) => text.logprobs(),
        }
    }

    /// Why the text ended; `None` while it goes on.
    pub fn stop_reason(&self) -> Option<StopReason> {
        match &self.way {
            Way::One { sequence, .. } => sequence.stop_reason(),
            Way::Beams(search) => search.stop_reason(),
            Way::Guesses(text) => text.stop_reason(),
        }
    }

    /// The best texts of a search with beams, [`GenerationConfig::num_return_sequences`] at most, the best first: those that
    /// were found when the search has ended, none before and none without beams.
    pub fn hypotheses(&self) -> Vec<Hypothesis> {
        match &self.way {
            Way::Beams(search) => search.hypotheses(),
            _ => Vec::new(),
        }
    }

    /// Ends the text for a reason that lies outside the loop.
    pub(crate) fn stop(&mut self, reason: StopReason) {
        match &mut self.way {
            Way::One { sequence, .. } => sequence.stop(reason),
            Way::Beams(search) => search.stop(reason),
            Way::Guesses(text) => text.stop(reason),
        }
    }

    /// The next token, or `None` with [`Tokens::stop_reason`] set.
    fn advance(&mut self) -> Result<Option<u32>> {
        match &mut self.way {
            Way::One { model, reader, sequence } => {
                let Some(logits) = reader.read(&**model, sequence)? else { return Ok(None) };
                let id = sequence.choose(logits.data())?;
                reader.unread = usize::from(id.is_some());
                Ok(id)
            }
            Way::Beams(search) => search.next().transpose(),
            Way::Guesses(text) => text.next().transpose(),
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

    /// A model that wants token `t + 1` after token `t`, of a vocabulary of 10, and remembers what it has read.
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
