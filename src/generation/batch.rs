//! Batched generation: one pass over the model's weights serves all texts.

use std::collections::VecDeque;
use std::ops::Deref;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::generation::config::GenerationConfig;
use crate::generation::logprobs::TokenLogprob;
use crate::generation::prompt_cache::PromptCache;
use crate::generation::reader::{PART, Reader, check_context, infer};
use crate::generation::sequence::Sequence;
use crate::generation::stopping::StopReason;
use crate::models::{CausalLm, DecodeState};

/// A batch of texts that are generated together: an iterator of `(text, id)`, the index of a text
/// and its next token.
///
/// There is no padding. Each text has its own model state, position, settings and random numbers,
/// and the model processes the new tokens of all texts as the rows of one call
/// ([`CausalLm::decode_batch`]). So each text gets the same tokens, bit for bit, regardless of the
/// rest of the batch. A text that ends leaves the batch; texts can join at any time.
///
/// ```
/// # use loquat::models::{MlpConfig, MlpLm};
/// # let model = MlpLm::init(&MlpConfig::new(13, 6, 8, 3), &mut loquat::Rng::seed(1))?;
/// use loquat::GenerationConfig;
/// use loquat::generation::BatchGenerator;
///
/// let mut batch = BatchGenerator::new(&model);
/// let first = batch.push(&[1, 2, 3], &GenerationConfig::default().max_new_tokens(5))?;
/// let (text, id) = batch.next().expect("a token")?;
/// assert_eq!((text, &[id][..]), (first, batch.new_ids(first)));
/// let second = batch.push(&[4], &GenerationConfig::default().max_new_tokens(2).seed(7))?; // joins
/// assert_eq!(batch.by_ref().count(), 6);
/// assert_eq!(batch.new_ids(second).len(), 2);
/// # Ok::<(), loquat::Error>(())
/// ```
pub struct BatchGenerator<P: Deref<Target: CausalLm>> {
    model: P,
    texts: Vec<Text<<P::Target as CausalLm>::State>>,
    /// Tokens that were generated but not returned yet.
    written: VecDeque<Result<(usize, u32)>>,
}

struct Text<S> {
    sequence: Sequence,
    /// `None` once the text has ended.
    reader: Option<Reader<S>>,
}

/// The generated continuation of a prompt.
#[derive(Clone, Debug)]
pub struct Generated {
    /// Generated token ids, without the prompt.
    pub ids: Vec<u32>,
    /// Why generation stopped.
    pub stop_reason: StopReason,
    /// Log-probability of each token, if [`GenerationConfig::logprobs`] is set.
    pub logprobs: Vec<TokenLogprob>,
}

/// Continues several prompts in one batch. The tokens are those that
/// [`generate`](crate::generation::generate()) returns for each prompt alone.
///
/// # Errors
/// [`Error::Prompt`] with the first error of a text; an error of the model itself is returned as it
/// is.
///
/// # Examples
/// ```
/// # use loquat::models::{MlpConfig, MlpLm};
/// # let model = MlpLm::init(&MlpConfig::new(13, 6, 8, 3), &mut loquat::Rng::seed(1))?;
/// use loquat::{GenerationConfig, generation::generate_batch};
///
/// let config = GenerationConfig::default().max_new_tokens(4);
/// let texts = generate_batch(&model, &[vec![1, 2, 3], vec![4]], &config)?;
/// assert_eq!(texts.iter().map(|text| text.ids.len()).collect::<Vec<_>>(), [4, 4]);
/// # Ok::<(), loquat::Error>(())
/// ```
pub fn generate_batch<P, I>(model: P, prompts: &[I], config: &GenerationConfig) -> Result<Vec<Generated>>
where
    P: Deref<Target: CausalLm>,
    I: AsRef<[u32]>,
{
    let mut batch = BatchGenerator::new(model);
    for (index, prompt) in prompts.iter().enumerate() {
        batch.push(prompt.as_ref(), config).map_err(Error::prompt(index))?;
    }
    batch.by_ref().try_for_each(|written| written.map(drop))?;
    let text = |text: Text<_>| Generated {
        ids: text.sequence.new_ids().to_vec(),
        stop_reason: text.sequence.stop_reason().unwrap_or(StopReason::Error),
        logprobs: text.sequence.logprobs().to_vec(),
    };
    Ok(batch.texts.into_iter().map(text).collect())
}

impl<P: Deref<Target: CausalLm>> BatchGenerator<P> {
    /// Creates an empty batch.
    pub fn new(model: P) -> Self {
        Self { model, texts: Vec::new(), written: VecDeque::new() }
    }

    /// Adds a text that continues `prompt_ids`, and returns its index, counted from 0.
    ///
    /// # Errors
    /// Same as [`generate`](crate::generation::generate()); [`Error::Argument`] for beam search.
    pub fn push(&mut self, prompt_ids: &[u32], config: &GenerationConfig) -> Result<usize> {
        if config.beams() > 1 {
            return Err(Error::argument("num_beams", "1 in a batch", config.beams()));
        }
        let sequence = Sequence::new(prompt_ids, Arc::new(config.clone()), self.model.vocab_size())?;
        check_context(&*self.model, prompt_ids.len())?;
        let reader = Some(Reader::new(&*self.model, prompt_ids.len()));
        self.texts.push(Text { sequence, reader });
        Ok(self.texts.len() - 1)
    }

    /// Same as [`BatchGenerator::push`], starting from a cached prefix of the prompt.
    ///
    /// # Errors
    /// Same as [`BatchGenerator::push`].
    pub fn push_with_cache(
        &mut self,
        prompt_ids: &[u32],
        config: &GenerationConfig,
        cache: &PromptCache<<P::Target as CausalLm>::State>,
    ) -> Result<usize> {
        let text = self.push(prompt_ids, config)?;
        if let Some(reader) = cache.reader(prompt_ids) {
            self.texts[text].reader = Some(reader);
        }
        Ok(text)
    }

    /// Same as [`BatchGenerator::push`], starting from a state that the caller prepared; see
    /// [`Tokens::with_state`](crate::generation::Tokens::with_state).
    ///
    /// # Errors
    /// Same as [`BatchGenerator::push`] and
    /// [`Tokens::with_state`](crate::generation::Tokens::with_state).
    pub fn push_with_state(
        &mut self,
        prompt_ids: &[u32],
        config: &GenerationConfig,
        state: <P::Target as CausalLm>::State,
    ) -> Result<usize> {
        let reader = Reader::started(state, prompt_ids.len())?;
        let text = self.push(prompt_ids, config)?;
        self.texts[text].reader = Some(reader);
        Ok(text)
    }

    /// Returns the number of texts added so far, ended ones included.
    pub fn len(&self) -> usize {
        self.texts.len()
    }

    /// Returns whether no text was added.
    pub fn is_empty(&self) -> bool {
        self.texts.is_empty()
    }

    /// Returns the token ids generated for a text.
    ///
    /// # Panics
    /// If there is no text with this index; the same holds for the methods below.
    pub fn new_ids(&self, text: usize) -> &[u32] {
        self.texts[text].sequence.new_ids()
    }

    /// Returns the log-probability of each of [`BatchGenerator::new_ids`], if
    /// [`GenerationConfig::logprobs`] is set.
    pub fn logprobs(&self, text: usize) -> &[TokenLogprob] {
        self.texts[text].sequence.logprobs()
    }

    /// Returns why a text ended, or `None` while it is being generated.
    pub fn stop_reason(&self, text: usize) -> Option<StopReason> {
        self.texts[text].sequence.stop_reason()
    }

    /// Ends a text with the given reason. A text that has ended keeps its reason.
    pub fn stop(&mut self, text: usize, reason: StopReason) {
        self.texts[text].sequence.stop(reason);
    }

    /// Runs the model on the unread tokens of all texts and chooses a token for each text that was
    /// read completely. Returns `false` if no text is being generated.
    fn step(&mut self) -> Result<bool> {
        let mut places = Vec::new();
        let mut parts: Vec<&[u32]> = Vec::new();
        let mut readers: Vec<&mut Reader<_>> = Vec::new();
        let mut room = PART;
        for (place, text) in self.texts.iter_mut().enumerate() {
            let Some(mut reader) = text.reader.take() else { continue };
            reader.make_room(&*self.model, &mut text.sequence);
            if !text.sequence.is_active() {
                continue;
            }
            let reader = text.reader.insert(reader);
            // A prompt is split into the same parts as when it is read alone; the number of texts
            // per call is free.
            let part = reader.part(&text.sequence);
            if part.len() > room && !parts.is_empty() {
                continue;
            }
            room = room.saturating_sub(part.len());
            parts.push(part);
            places.push(place);
            readers.push(reader);
        }
        if parts.is_empty() {
            return Ok(false);
        }
        let mut states: Vec<_> = readers.iter_mut().map(|reader| &mut reader.state).collect();
        let model = &*self.model;
        let logits = infer(|| model.decode_batch(&parts, &mut states))?;
        for (reader, part) in readers.iter_mut().zip(&parts) {
            reader.unread -= part.len();
        }
        for (place, row) in places.into_iter().zip(logits.data().chunks_exact(self.model.vocab_size())) {
            let Text { sequence, reader: Some(reader) } = &mut self.texts[place] else { continue };
            if reader.unread > 0 {
                continue;
            }
            match sequence.choose(row) {
                Ok(Some(id)) => {
                    reader.unread = 1;
                    self.written.push_back(Ok((place, id)));
                }
                Ok(None) => {}
                Err(error) => {
                    sequence.stop(StopReason::Error);
                    self.written.push_back(Err(Error::prompt(place)(error)));
                }
            }
        }
        Ok(true)
    }
}

impl<P: Deref<Target: CausalLm>> Iterator for BatchGenerator<P> {
    type Item = Result<(usize, u32)>;

    /// Returns the next token of any text. An error of a text's processors ends that text
    /// ([`Error::Prompt`]); an error of the model ends all.
    fn next(&mut self) -> Option<Self::Item> {
        while self.written.is_empty() {
            match self.step() {
                Ok(true) => {}
                Ok(false) => return None,
                Err(error) => {
                    self.texts.iter_mut().for_each(|text| text.sequence.stop(StopReason::Error));
                    return Some(Err(error));
                }
            }
        }
        self.written.pop_front()
    }
}

impl<S: DecodeState> std::fmt::Debug for Text<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Text({} tokens)", self.sequence.ids().len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generation::config::Overflow;
    use crate::generation::stopping::Cancel;
    use crate::generation::tokens::generate;
    use crate::models::CellType;
    use crate::models::{Gpt2, Gpt2Config, Llama, LlamaConfig, MlpConfig, MlpLm, RnnConfig, RnnLm};
    use crate::random::Rng;

    fn check(model: &impl CausalLm) {
        let prompts: Vec<Vec<u32>> = vec![vec![1, 2, 3, 4, 5], vec![9], vec![7, 7, 0], vec![3, 1]];
        let config = GenerationConfig::default().max_new_tokens(9).eos_token_id(5).logprobs(2);
        let drawn = config.clone().temperature(1.3);
        for config in [drawn.clone().seed(3), drawn.seed(4).repetition_penalty(1.3), config.greedy()] {
            let together = generate_batch(model, &prompts, &config).unwrap();
            for (prompt, text) in prompts.iter().zip(together) {
                let mut alone = generate(model, prompt, &config).unwrap();
                let ids: Vec<u32> = alone.by_ref().map(|id| id.unwrap()).collect();
                assert_eq!((ids, alone.stop_reason()), (text.ids, Some(text.stop_reason)));
                assert_eq!(alone.logprobs(), text.logprobs);
            }
        }
    }

    #[test]
    fn texts_are_those_that_each_prompt_has_alone() {
        let rng = || Rng::seed(2);
        check(
            &Gpt2::init(&Gpt2Config { initializer_range: 0.3, ..Gpt2Config::new(11, 9, 12, 2, 3) }, &mut rng())
                .unwrap(),
        );
        let llama = LlamaConfig { num_key_value_heads: Some(1), ..LlamaConfig::new(11, 12, 16, 2, 3) };
        check(&Llama::init(&LlamaConfig { initializer_range: 0.3, ..llama }, &mut rng()).unwrap());
        check(&RnnLm::init(&RnnConfig::new(CellType::Lstm, 11, 6, 2), &mut rng()).unwrap());
        check(&MlpLm::init(&MlpConfig::new(11, 6, 9, 3), &mut rng()).unwrap());
    }

    #[test]
    fn long_prompts_are_read_in_parts_while_others_write() {
        let model = RnnLm::init(&RnnConfig::new(CellType::Gru, 11, 6, 1), &mut Rng::seed(1)).unwrap();
        let long: Vec<u32> = (0..1300).map(|i| i % 11).collect();
        let config = GenerationConfig::default().greedy().max_new_tokens(4);
        let texts = generate_batch(&model, &[&long[..], &[1], &long[..700]], &config).unwrap();
        for (prompt, text) in [&long[..], &[1], &long[..700]].into_iter().zip(texts) {
            let alone: Vec<u32> = generate(&model, prompt, &config).unwrap().map(|id| id.unwrap()).collect();
            assert_eq!(alone, text.ids);
        }
    }

    #[test]
    fn a_text_ends_for_reasons_of_its_own() {
        let model = Gpt2::init(&Gpt2Config::new(11, 8, 12, 1, 3), &mut Rng::seed(1)).unwrap();
        let cancel = Cancel::new();
        let config = GenerationConfig::default().max_new_tokens(40).overflow(Overflow::Stop);
        let mut batch = BatchGenerator::new(&model);
        batch.push(&[1], &config).unwrap();
        batch.push(&[1, 2], &config.clone().cancel(&cancel)).unwrap();
        let broken = |_: &[u32], _: &mut [f32]| -> Result<()> { Err(Error::argument("test", "nothing", "all")) };
        batch.push(&[1, 2, 3], &config.clone().processor(broken)).unwrap();
        batch.push(&[1, 2, 3], &config.clone().deadline(std::time::Instant::now())).unwrap();
        let first: Vec<_> = batch.by_ref().take(3).collect();
        assert!(first[0].is_ok() && first[1].is_ok());
        assert!(first[2].as_ref().unwrap_err().to_string().starts_with("prompt 2 (counted from 0): test"));
        cancel.cancel();
        assert!(batch.by_ref().all(|written| written.unwrap().0 == 0));
        let reasons: Vec<_> = (0..4).map(|text| batch.stop_reason(text).unwrap()).collect();
        let expected = [StopReason::ContextFull, StopReason::Cancelled, StopReason::Error, StopReason::Deadline];
        assert_eq!(reasons, expected);
        assert_eq!((batch.new_ids(0).len(), batch.new_ids(1).len()), (8, 1));
        batch.stop(1, StopReason::StopString);
        assert_eq!(batch.stop_reason(1), Some(StopReason::Cancelled), "what ended first");
        let stopped = batch.push(&[1], &config).unwrap();
        batch.stop(stopped, StopReason::StopString);
        assert_eq!((batch.next().is_none(), batch.stop_reason(stopped)), (true, Some(StopReason::StopString)));
        assert!(batch.push(&[1], &config.clone().num_beams(2)).is_err());
        assert!(batch.push(&[11], &config).is_err() && batch.len() == 5);
        let error = generate_batch(&model, &[vec![1], vec![]], &config).unwrap_err().to_string();
        assert!(error.starts_with("prompt 1 (counted from 0): prompt: expected at least one token"), "{error}");
    }
}
