//! A model's state over one text, and how much of the text is still to be read.

use crate::error::{Error, Result};
use crate::generation::config::Overflow;
use crate::generation::sequence::Sequence;
use crate::generation::stopping::StopReason;
use crate::kernels::parallel;
use crate::models::{CausalLm, DecodeState};
use crate::tensor::{IdTensor, Tensor, no_grad};

/// Maximum number of prompt tokens per call, so that generation can be cancelled between calls. The
/// results do not depend on it.
pub(crate) const PART: usize = 512;

/// Runs a model for inference: without recording gradients, and with workers kept awake between
/// kernels.
pub(crate) fn infer<R: Send>(model: impl FnOnce() -> R + Send) -> R {
    parallel::team(|| no_grad(model))
}

/// A model's state over one text.
#[derive(Clone)]
pub(crate) struct Reader<S> {
    pub(crate) state: S,
    /// Number of the text's last tokens that the model has not read.
    pub(crate) unread: usize,
    /// State to restart from when the context is full, for a state with other input than the text;
    /// `None` for an empty state.
    started: Option<S>,
}

impl<S: DecodeState> Reader<S> {
    /// Creates a reader that has read no tokens.
    pub(crate) fn new<M>(model: &M, prompt_len: usize) -> Self
    where
        M: CausalLm<State = S> + ?Sized,
    {
        Self { state: model.new_state(1), unread: prompt_len, started: None }
    }

    /// Creates a reader whose state has read all but the last `unread` tokens of a text.
    pub(crate) fn resumed(state: S, unread: usize) -> Self {
        let mut started = state.clone();
        let started = started.truncate(0).then_some(started);
        Self { state, unread, started }
    }

    /// Creates a reader from a prepared state, which has read the first [`len`](DecodeState::len)
    /// tokens of the prompt.
    ///
    /// # Errors
    /// [`Error::Argument`] if no token of the prompt is left to read.
    pub(crate) fn started(state: S, prompt_len: usize) -> Result<Self> {
        match prompt_len.checked_sub(state.len()).filter(|&unread| unread > 0) {
            Some(unread) => Ok(Self::resumed(state, unread)),
            None => {
                let expected = format!("at most {} tokens of a prompt of {prompt_len}", prompt_len.saturating_sub(1));
                Err(Error::argument("state", expected, state.len()))
            }
        }
    }

    /// Reads the unread tokens and returns the logits of the next one; `None` if the text ends
    /// first.
    pub(crate) fn read<M>(&mut self, model: &M, text: &mut Sequence) -> Result<Option<Tensor>>
    where
        M: CausalLm<State = S> + ?Sized,
    {
        self.make_room(model, text);
        let mut logits = None;
        while self.unread > 0 && text.is_active() {
            let part = IdTensor::sequence(self.part(text));
            let state = &mut self.state;
            logits = Some(infer(|| model.decode(&part, state))?);
            self.unread -= part.len();
        }
        Ok(logits.filter(|_| self.unread == 0))
    }

    /// If the model's context is full, restarts with a part of the text or ends it.
    pub(crate) fn make_room<M>(&mut self, model: &M, text: &mut Sequence)
    where
        M: CausalLm<State = S> + ?Sized,
    {
        let limit = model.max_seq_len();
        if text.is_active() && limit.is_some_and(|limit| self.state.len() + self.unread > limit) {
            if text.config().overflow == Overflow::Stop {
                text.stop(StopReason::ContextFull);
            } else {
                self.state = self.started.clone().unwrap_or_else(|| model.new_state(1));
                self.unread = (limit.unwrap_or(text.ids().len()) / 2).max(1);
            }
        }
    }

    /// Returns the tokens to read in the next call.
    pub(crate) fn part<'t>(&self, text: &'t Sequence) -> &'t [u32] {
        let start = text.ids().len() - self.unread;
        &text.ids()[start..start + self.unread.min(PART)]
    }
}

/// Checks that a prompt of this length fits a model's context.
pub(crate) fn check_context(model: &(impl CausalLm + ?Sized), prompt_len: usize) -> Result<()> {
    match model.max_seq_len().filter(|&limit| prompt_len > limit) {
        Some(limit) => {
            let expected = format!("at most {limit} tokens, the model's context length");
            Err(Error::argument("prompt", expected, format!("{prompt_len} tokens")))
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generation::{BatchGenerator, GenerationConfig, PromptCache, generate};

    /// Predicts the token that its state contains, times the number of tokens in the context.
    struct Mock;

    const VOCAB: u32 = 23;
    const LIMIT: usize = 8;

    #[derive(Clone, Debug)]
    struct State {
        memory: u32,
        read: usize,
    }

    impl DecodeState for State {
        fn len(&self) -> usize {
            self.read
        }

        fn truncate(&mut self, len: usize) -> bool {
            self.read = self.read.min(len);
            true
        }
    }

    impl CausalLm for Mock {
        type State = State;

        fn vocab_size(&self) -> usize {
            VOCAB as usize
        }

        fn max_seq_len(&self) -> Option<usize> {
            Some(LIMIT)
        }

        fn forward(&self, _input_ids: &IdTensor) -> Result<Tensor> {
            unreachable!("generation decodes")
        }

        fn new_state(&self, _batch: usize) -> State {
            State { memory: 1, read: 0 }
        }

        fn decode(&self, input_ids: &IdTensor, state: &mut State) -> Result<Tensor> {
            state.read += input_ids.len();
            let next = (state.memory as usize * state.read) % VOCAB as usize;
            Tensor::from_vec((0..VOCAB as usize).map(|id| if id == next { 9.0 } else { 0.0 }).collect(), &[1, 23])
        }
    }

    fn config() -> GenerationConfig {
        GenerationConfig::default().greedy().max_new_tokens(10)
    }

    #[test]
    fn a_started_state_is_kept_in_every_way_of_decoding() {
        let state = || State { memory: 5, read: 0 };
        let expected: Vec<u32> = [3u32, 4, 5, 6, 7, 8, 4, 5, 6, 7].iter().map(|read| 5 * read % VOCAB).collect();
        let sliding = config().overflow(Overflow::Slide);
        let tokens = generate(&Mock, &[1, 2, 3], &sliding).unwrap().with_state(state()).unwrap();
        assert_eq!(tokens.map(|id| id.unwrap()).collect::<Vec<_>>(), expected);

        let mut batch = BatchGenerator::new(&Mock);
        let other = batch.push(&[1, 2, 3], &sliding).unwrap();
        let text = batch.push_with_state(&[1, 2, 3], &sliding, state()).unwrap();
        batch.by_ref().for_each(|step| assert!(step.is_ok()));
        assert_eq!(batch.new_ids(text), expected);
        assert_eq!(batch.new_ids(other)[..3], [3, 4, 5]);

        let beams = config().max_new_tokens(4).num_beams(2);
        let mut search = generate(&Mock, &[1, 2, 3], &beams).unwrap().with_state(state()).unwrap();
        search.by_ref().for_each(|id| assert!(id.is_ok()));
        assert_eq!(search.new_ids(), &expected[..4]);

        let lookup = config().max_new_tokens(4).prompt_lookup_num_tokens(2);
        let tokens = generate(&Mock, &[1, 2, 3], &lookup).unwrap().with_state(state()).unwrap();
        assert_eq!(tokens.map(|id| id.unwrap()).collect::<Vec<_>>(), expected[..4]);

        let cache = PromptCache::read_from(&Mock, state(), &[1, 2]).unwrap();
        let tokens = generate(&Mock, &[1, 2, 3], &sliding).unwrap().with_cache(&cache);
        assert_eq!(tokens.map(|id| id.unwrap()).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn a_state_may_have_read_the_beginning_of_the_prompt_but_not_all() {
        let tokens = |read| {
            generate(&Mock, &[1, 2, 3], &config().max_new_tokens(1)).unwrap().with_state(State { memory: 5, read })
        };
        assert_eq!(tokens(2).unwrap().map(|id| id.unwrap()).collect::<Vec<_>>(), [15]);
        assert!(tokens(3).is_err() && tokens(9).is_err());
    }
}
