//! The interface of causal language models, for generation and training.

use crate::error::{Error, Result};
use crate::nn::KvCache;
use crate::ops::{self, Capture, inspect};
use crate::tensor::{IdTensor, Tensor, no_grad};

/// A causal language model: the logits at a position depend on the tokens up to and including it.
///
/// Inference takes `&self`: one model can serve many threads, each with its own [`DecodeState`].
///
/// ```
/// use loquat::models::{CausalLm, DecodeState, Gpt2, Gpt2Config};
/// use loquat::{IdTensor, Rng, no_grad};
///
/// let model = Gpt2::init(&Gpt2Config::new(65, 32, 24, 2, 3), &mut Rng::seed(1))?;
/// let logits = no_grad(|| model.forward(&IdTensor::sequence(&[1, 2, 3])))?;
/// assert_eq!(logits.shape(), [1, 3, 65]);
///
/// // Decoding with a state gives the same bits.
/// let mut state = model.new_state(1);
/// no_grad(|| model.decode(&IdTensor::sequence(&[1, 2]), &mut state))?;
/// let next = no_grad(|| model.decode(&IdTensor::sequence(&[3]), &mut state))?;
/// assert_eq!(next.data(), &logits.data()[2 * 65..]);
/// assert_eq!(state.len(), 3);
/// # Ok::<(), loquat::Error>(())
/// ```
pub trait CausalLm: Send + Sync {
    /// The state of the model after the tokens that it has processed.
    type State: DecodeState;

    /// Returns the number of token ids.
    fn vocab_size(&self) -> usize;

    /// Returns the context length: the largest number of tokens, prompt plus generated tokens;
    /// `None` if it is unlimited.
    fn max_seq_len(&self) -> Option<usize>;

    /// Returns the logits of the next token at every position.
    ///
    /// # Shapes
    /// `input_ids: [batch, seq_len]` → `[batch, seq_len, vocab_size]`.
    ///
    /// # Errors
    /// [`Error::Id`] if an id is not below the vocabulary size, [`Error::Argument`] if a sequence
    /// is longer than the context length.
    fn forward(&self, input_ids: &IdTensor) -> Result<Tensor>;

    /// Returns an empty state for `batch` sequences.
    fn new_state(&self, batch: usize) -> Self::State;

    /// Processes new tokens and returns the logits of the token that follows the last one.
    ///
    /// # Shapes
    /// `input_ids: [batch, new_len]`, `new_len ≥ 1` → `[batch, vocab_size]`.
    ///
    /// # Errors
    /// Same as [`CausalLm::forward`]; the state is unchanged after an error.
    fn decode(&self, input_ids: &IdTensor, state: &mut Self::State) -> Result<Tensor>;

    /// Same as [`CausalLm::decode`], but returns the logits at every new token, as needed to verify
    /// a draft.
    ///
    /// # Shapes
    /// `input_ids: [batch, new_len]` → `[batch, new_len, vocab_size]`.
    ///
    /// # Errors
    /// Same as [`CausalLm::decode`]; the state must not be used after an error.
    fn decode_all(&self, input_ids: &IdTensor, state: &mut Self::State) -> Result<Tensor> {
        decode_by_token(self, input_ids, state)
    }

    /// Same as [`CausalLm::decode`] for several sequences at once, each with its own state and of
    /// any length, and with any number of new tokens. There is no padding; each sequence has the
    /// same bits as in a call of its own.
    ///
    /// By default the sequences are processed one after another. A model that processes them
    /// together reads its weights once for all.
    ///
    /// # Shapes
    /// `input_ids` and `states` of the same length; at least one token in each of `input_ids`; each
    /// state from `new_state(1)` → `[sequences, vocab_size]`.
    ///
    /// # Errors
    /// Same as [`CausalLm::decode`]; the states must not be used after an error.
    fn decode_batch(&self, input_ids: &[&[u32]], states: &mut [&mut Self::State]) -> Result<Tensor> {
        decode_by_sequence(self, input_ids, states)
    }

    /// Applies the final norm and the LM head to hidden states between two layers.
    ///
    /// # Shapes
    /// `hidden_states: […, width]` → `[…, vocab_size]`.
    ///
    /// # Errors
    /// [`Error::Shape`] if the shapes do not match; [`Error::Argument`] if the model does not
    /// consist of layers of the same width.
    fn unembed(&self, hidden_states: &Tensor) -> Result<Tensor> {
        let _ = hidden_states;
        Err(Error::argument("logit lens", "a model of transformer layers", "another model"))
    }

    /// Returns the logits that the model would have if it ended after the embeddings, and after
    /// each layer (nostalgebraist, "interpreting GPT: the logit lens", 2020); the last are those of
    /// [`CausalLm::forward`].
    ///
    /// # Shapes
    /// `input_ids: [batch, seq_len]` → paths, and logits `[batch, seq_len, vocab_size]`.
    ///
    /// # Errors
    /// Same as [`CausalLm::forward`] and [`CausalLm::unembed`].
    fn logit_lens(&self, input_ids: &IdTensor) -> Result<Vec<(String, Tensor)>> {
        no_grad(|| {
            let (logits, seen) = inspect(Capture::HiddenStates, || self.forward(input_ids));
            logits?;
            seen.hidden_states.into_iter().map(|(path, x)| Ok((path, self.unembed(&x)?))).collect()
        })
    }
}

/// Computes [`CausalLm::decode_all`] token by token.
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

/// Computes [`CausalLm::decode_batch`] sequence by sequence.
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

/// Checks that there is a state for each sequence, and at least one token in each.
pub(crate) fn check_batch(input_ids: &[&[u32]], states: usize) -> Result<()> {
    if input_ids.len() != states || input_ids.is_empty() {
        return Err(Error::argument("input_ids", format!("{states} sequences, one per state"), input_ids.len()));
    }
    match input_ids.iter().any(|ids| ids.is_empty()) {
        true => Err(Error::argument("input_ids", "at least one token of each sequence", "none")),
        false => Ok(()),
    }
}

/// The state of a model within a sequence: cached keys and values, or a hidden state.
///
/// A clone is independent and cheap: it shares the memory of the past.
pub trait DecodeState: Clone + Send + Sync {
    /// Returns the number of tokens processed.
    fn len(&self) -> usize;

    /// Returns whether no token was processed.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the cached keys and values, if the state consists of those of one sequence.
    fn kv_cache(&self) -> Option<&KvCache> {
        None
    }

    /// Same as [`DecodeState::kv_cache`], for changes.
    fn kv_cache_mut(&mut self) -> Option<&mut KvCache> {
        None
    }

    /// Returns whether the last tokens can be removed.
    fn can_truncate(&self) -> bool {
        false
    }

    /// Removes all but the first `len` tokens. Returns false, without a change, if the state does
    /// not support it.
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
