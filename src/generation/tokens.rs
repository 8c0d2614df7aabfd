//! The decoding loop, as an iterator of token ids.

use crate::error::{Error, Result};
use crate::generation::config::{GenerationConfig, Overflow};
use crate::generation::processor::{self, LogitsProcessor};
use crate::generation::sampler;
use crate::kernels::parallel;
use crate::models::CausalLm;
use crate::random::Rng;
use crate::tensor::{IdTensor, no_grad};

/// Why a text ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopReason {
    /// The model wrote an end token.
    EosToken,
    /// A stop string appeared.
    StopString,
    /// [`GenerationConfig::max_new_tokens`] were written.
    MaxNewTokens,
    /// The context is full ([`Overflow::Stop`]).
    ContextFull,
    /// An error was given out.
    Error,
}

/// Token ids that continue a prompt, each computed when asked for. See [`generate`].
pub struct Tokens<'m, M: CausalLm> {
    model: &'m M,
    config: GenerationConfig,
    processors: Vec<Box<dyn LogitsProcessor>>,
    state: M::State,
    rng: Rng,
    /// The prompt and what was written.
    ids: Vec<u32>,
    prompt_len: usize,
    /// How many of `ids` the model has not read.
    unread: usize,
    stopped: Option<StopReason>,
}

/// Continues `prompt_ids`, a token at a time.
///
/// # Errors
/// [`Error::Argument`] for a setting out of range, an empty prompt, or one that fills the model's context;
/// [`Error::Id`] for an id outside the vocabulary. An error while decoding is given out by the iterator, which then ends.
pub fn generate<'m, M: CausalLm>(model: &'m M, prompt_ids: &[u32], config: &GenerationConfig) -> Result<Tokens<'m, M>> {
    config.check()?;
    if prompt_ids.is_empty() {
        return Err(Error::argument("prompt", "at least one token", "none"));
    }
    IdTensor::sequence(prompt_ids).check_below(model.vocab_size(), "prompt id")?;
    if let Some(limit) = model.max_seq_len().filter(|&limit| prompt_ids.len() > limit) {
        let expected = format!("at most {limit} tokens, the model's context");
        return Err(Error::argument("prompt", expected, format!("{} tokens", prompt_ids.len())));
    }
    Ok(Tokens {
        model,
        processors: processor::from_config(config),
        state: model.new_state(1),
        rng: Rng::seed(config.seed),
        ids: prompt_ids.to_vec(),
        prompt_len: prompt_ids.len(),
        unread: prompt_ids.len(),
        stopped: None,
        config: config.clone(),
    })
}

impl<M: CausalLm> Tokens<'_, M> {
    /// Adds a processor of one's own, after those of the configuration.
    pub fn with_processor(mut self, processor: Box<dyn LogitsProcessor>) -> Self {
        self.processors.push(processor);
        self
    }

    /// The prompt and what was written so far.
    pub fn ids(&self) -> &[u32] {
        &self.ids
    }

    /// What was written so far.
    pub fn new_ids(&self) -> &[u32] {
        &self.ids[self.prompt_len..]
    }

    /// Why the text ended; `None` while it goes on.
    pub fn stop_reason(&self) -> Option<StopReason> {
        self.stopped
    }

    /// The next token, or `None` with [`Tokens::stop_reason`] set.
    fn advance(&mut self) -> Result<Option<u32>> {
        if self.ids.len() - self.prompt_len >= self.config.max_new_tokens {
            self.stopped = Some(StopReason::MaxNewTokens);
            return Ok(None);
        }
        if self.model.max_seq_len().is_some_and(|limit| self.ids_in_context() > limit) {
            if self.config.overflow == Overflow::Stop {
                self.stopped = Some(StopReason::ContextFull);
                return Ok(None);
            }
            let keep = (self.model.max_seq_len().unwrap_or(self.ids.len()) / 2).max(1);
            self.state = self.model.new_state(1);
            self.unread = keep;
        }
        let (model, state) = (self.model, &mut self.state);
        let unread = IdTensor::sequence(&self.ids[self.ids.len() - self.unread..]);
        let logits = parallel::team(|| no_grad(|| model.decode(&unread, state)))?;
        self.unread = 0;
        let mut logits = logits.to_vec();
        for processor in &mut self.processors {
            processor.process(&self.ids, &mut logits)?;
        }
        let id =
            if self.config.do_sample { sampler::sample(&logits, &mut self.rng)? } else { sampler::greedy(&logits)? };
        if self.config.eos_token_ids.contains(&id) {
            self.stopped = Some(StopReason::EosToken);
            return Ok(None);
        }
        self.ids.push(id);
        self.unread = 1;
        Ok(Some(id))
    }

    /// How many tokens the model will have read after the next step.
    fn ids_in_context(&self) -> usize {
        use crate::models::DecodeState;
        self.state.len() + self.unread
    }

    /// Ends the text for a reason that lies outside the loop.
    #[cfg(feature = "tokenizers")]
    pub(crate) fn stop(&mut self, reason: StopReason) {
        self.stopped.get_or_insert(reason);
    }
}

impl<M: CausalLm> Iterator for Tokens<'_, M> {
    type Item = Result<u32>;

    fn next(&mut self) -> Option<Result<u32>> {
        if self.stopped.is_some() {
            return None;
        }
        let next = self.advance();
        if next.is_err() {
            self.stopped = Some(StopReason::Error);
        }
        next.transpose()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::models::DecodeState;
    use crate::tensor::Tensor;

    /// A model that wants token `t + 1` after token `t`, of a vocabulary of 10, and remembers what it has read.
    pub(crate) struct Counting {
        pub(crate) max_seq_len: Option<usize>,
    }

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

    fn ids(tokens: Tokens<'_, Counting>) -> Vec<u32> {
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
