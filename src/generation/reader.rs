//! A model that reads a text: its memory, and what it has not read.

use crate::error::{Error, Result};
use crate::generation::config::Overflow;
use crate::generation::sequence::Sequence;
use crate::generation::stopping::StopReason;
use crate::kernels::parallel;
use crate::models::{CausalLm, DecodeState};
use crate::tensor::{IdTensor, Tensor, no_grad};

/// The most tokens of a prompt that are read at once: between parts a text may be cancelled. The bits do not depend on it.
pub(crate) const PART: usize = 512;

/// Runs a model for its output alone: nothing is recorded for gradients, and threads stay awake between its kernels.
pub(crate) fn infer<R: Send>(model: impl FnOnce() -> R + Send) -> R {
    parallel::team(|| no_grad(model))
}

/// What a model remembers of one text.
#[derive(Clone)]
pub(crate) struct Reader<S> {
    pub(crate) state: S,
    /// How many of the text's last tokens the model has not read.
    pub(crate) unread: usize,
}

impl<S: DecodeState> Reader<S> {
    /// Reads what is unread, and gives the logits of the next token; `None` if the text ends first.
    pub(crate) fn read<M>(&mut self, model: &M, text: &mut Sequence) -> Result<Option<Tensor>>
    where
        M: CausalLm<State = S> + ?Sized,
    {
        self.make_room(model, text);
        let mut logits = None;
        while self.unread > 0 && text.goes_on() {
            let part = IdTensor::sequence(self.part(text));
            let state = &mut self.state;
            logits = Some(infer(|| model.decode(&part, state))?);
            self.unread -= part.len();
        }
        Ok(logits.filter(|_| self.unread == 0))
    }

    /// Forgets, or ends the text, if the model cannot read on.
    pub(crate) fn make_room<M>(&mut self, model: &M, text: &mut Sequence)
    where
        M: CausalLm<State = S> + ?Sized,
    {
        let limit = model.max_seq_len();
        if text.goes_on() && limit.is_some_and(|limit| self.state.len() + self.unread > limit) {
            if text.config().overflow == Overflow::Stop {
                text.stop(StopReason::ContextFull);
            } else {
                self.state = model.new_state(1);
                self.unread = (limit.unwrap_or(text.ids().len()) / 2).max(1);
            }
        }
    }

    /// What is to be read next.
    pub(crate) fn part<'t>(&self, text: &'t Sequence) -> &'t [u32] {
        let start = text.ids().len() - self.unread;
        &text.ids()[start..start + self.unread.min(PART)]
    }
}

/// Makes sure that a model can read a prompt of this length.
pub(crate) fn check_context(model: &(impl CausalLm + ?Sized), prompt_len: usize) -> Result<()> {
    match model.max_seq_len().filter(|&limit| prompt_len > limit) {
        Some(limit) => {
            let expected = format!("at most {limit} tokens, the model's context");
            Err(Error::argument("prompt", expected, format!("{prompt_len} tokens")))
        }
        None => Ok(()),
    }
}
