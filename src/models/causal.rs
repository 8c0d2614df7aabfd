//! What generation and training need of a model that continues a sequence.

use crate::error::{Error, Result};
use crate::nn::KvCache;
use crate::ops::{self, See, inspect};
use crate::tensor::{IdTensor, Tensor, no_grad};

/// A causal language model: the logits at a position depend on the tokens up to it.
///
/// Inference takes `&self`: one model serves many threads, each with a [`DecodeState`] of its own.
pub trait CausalLm: Send + Sync {
    /// What the model remembers of the tokens that it has read.
    type State: DecodeState;

    /// The number of token ids.
    fn vocab_size(&self) -> usize;

    /// The largest number of tokens that can be read at once, prompt and continuation together; `None` if there is no limit.
    fn max_seq_len(&self) -> Option<usize>;

    /// The logits of the next token at every position.
    ///
    /// # Shapes
    /// `input_ids: [batch, seq_len]` → `[batch, seq_len, vocab_size]`.
    ///
    /// # Errors
    /// [`Error::Id`] for an id outside the vocabulary, [`Error::Argument`] for a
    /// sequence that is too long.
    fn forward(&self, input_ids: &IdTensor) -> Result<Tensor>;

    /// A memory of nothing, for `batch` sequences.
    fn new_state(&self, batch: usize) -> Self::State;

    /// Reads more tokens and gives the logits of the one that follows the last.
    ///
    /// # Shapes
    /// `input_ids: [batch, new_len]`, `new_len ≥ 1` → `[batch, vocab_size]`.
    ///
    /// # Errors
    /// As for [`CausalLm::forward`]; after an error the state is as before.
    fn decode(&self, input_ids: &IdTensor, state: &mut Self::State) -> Result<Tensor>;

    /// As [`CausalLm::decode`], with the logits after each of the new tokens, as checking a draft needs them.
    ///
    /// # Shapes
    /// `input_ids: [batch, new_len]` → `[batch, new_len, vocab_size]`.
    ///
    /// # Errors
    /// As there; after an error the state is of no more use.
    fn decode_all(&self, input_ids: &IdTensor, state: &mut Self::State) -> Result<Tensor> {
        decode_by_token(self, input_ids, state)
    }

    /// As [`CausalLm::decode`] for several sequences at once, each with a state of its own, of any lengths and with any number of new
    /// tokens. Each gets the bits that it gets alone; there is no padding.
    ///
    /// This goes through the sequences one by one; a model that reads them together reads its weights once for all.
    ///
    /// # Shapes
    /// As many `input_ids`, each of at least one token, as `states`, each made by `new_state(1)` → `[sequences, vocab_size]`.
    ///
    /// # Errors
    /// As for [`CausalLm::decode`]; after an error the states are of no more use.
    fn decode_batch(&self, input_ids: &[&[u32]], states: &mut [&mut Self::State]) -> Result<Tensor> {
        decode_by_sequence(self, input_ids, states)
    }

    /// The logits that hidden states between two layers would give: the final norm, then the head.
    ///
    /// # Shapes
    /// `hidden_states: […, width]` → `[…, vocab_size]`.
    ///
    /// # Errors
    /// [`Error::Shape`] if they do not fit; [`Error::Argument`] for a model without layers of one
    /// width.
    fn unembed(&self, hidden_states: &Tensor) -> Result<Tensor> {
        let _ = hidden_states;
        Err(Error::argument("logit lens", "a model of Transformer layers", "another"))
    }

    /// The logits that the embeddings, and then each layer, would give if the model ended there (nostalgebraist, "interpreting GPT:
    /// the logit lens", 2020); the last are those of [`CausalLm::forward`].
    ///
    /// # Shapes
    /// `input_ids: [batch, seq_len]` → paths and `[batch, seq_len, vocab_size]`.
    ///
    /// # Errors
    /// Same as [`CausalLm::forward`] and [`CausalLm::unembed`].
    fn logit_lens(&self, input_ids: &IdTensor) -> Result<Vec<(String, Tensor)>> {
        no_grad(|| {
            let (logits, seen) = inspect(See::HiddenStates, || self.forward(input_ids));
            logits?;
            seen.hidden_states.into_iter().map(|(path, x)| Ok((path, self.unembed(&x)?))).collect()
        })
    }
}

/// [`CausalLm::decode_all`], token by token.
pub(crate) fn decode_by_token<M: CausalLm + ?Sized>(
    model: &M,
    input_ids: &IdTensor,
    state: &mut M::State,
) -> Result<Tensor> {
    let (batch, new_len) = input_ids.batch_and_len()?;
    let step = |t: usize| {
        let column: Vec<u32> = input_ids.data().iter().skip(t).step_by(new_len).copied().collect();
        model.decode(&IdTensor::new(column, &[batch, 1])?, state)
    };
    let steps = (0..new_len).map(step).collect::<Result<Vec<_>>>()?;
    ops::stack(&steps.iter().collect::<Vec<_>>(), 1)
}

/// [`CausalLm::decode_batch`], sequence by sequence.
pub(crate) fn decode_by_sequence<M: CausalLm + ?Sized>(
    model: &M,
    input_ids: &[&[u32]],
    states: &mut [&mut M::State],
) -> Result<Tensor> {
    check_batch(input_ids, states.len())?;
    let step = |(ids, state): (&&[u32], &mut &mut M::State)| model.decode(&IdTensor::sequence(ids), state);
    let rows = input_ids.iter().zip(states).map(step).collect::<Result<Vec<_>>>()?;
    ops::concat(&rows.iter().collect::<Vec<_>>(), 0)
}

/// Makes sure that there is a state for each sequence, and a token at least.
pub(crate) fn check_batch(input_ids: &[&[u32]], states: usize) -> Result<()> {
    if input_ids.len() != states || input_ids.is_empty() {
        return Err(Error::argument("input_ids", format!("{states} sequences, one per state"), input_ids.len()));
    }
    match input_ids.iter().any(|ids| ids.is_empty()) {
        true => Err(Error::argument("input_ids", "at least one token of each sequence", "none")),
        false => Ok(()),
    }
}

/// The memory of a model within a sequence: keys and values, or a hidden state.
///
/// A clone goes on by itself from the same past, and is cheap: what both have is shared.
pub trait DecodeState: Clone + Send + Sync {
    /// The number of tokens read.
    fn len(&self) -> usize;

    /// Whether no token was read.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The keys and values of one sequence, if that is all that it remembers.
    fn kv_cache(&self) -> Option<&KvCache> {
        None
    }

    /// As [`DecodeState::kv_cache`], to be filled.
    fn kv_cache_mut(&mut self) -> Option<&mut KvCache> {
        None
    }

    /// Whether it can forget the last tokens.
    fn can_truncate(&self) -> bool {
        false
    }

    /// Forgets all but the first `len` tokens. False, and nothing forgotten, for a memory that cannot.
    fn truncate(&mut self, len: usize) -> bool {
        len >= self.len()
    }
}

impl DecodeState for KvCache {
    fn len(&self) -> usize {
        KvCache::len(self)
    }

    fn kv_cache(&self) -> Option<&KvCache> {
        Some(self)
    }

    fn kv_cache_mut(&mut self) -> Option<&mut KvCache> {
        Some(self)
    }

    fn can_truncate(&self) -> bool {
        true
    }

    fn truncate(&mut self, len: usize) -> bool {
        KvCache::truncate(self, len);
        true
    }
}
