//! What generation and training need of a model that continues a sequence.

use crate::error::Result;
use crate::ops::{See, inspect};
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
    /// [`Error::Id`](crate::Error::Id) for an id outside the vocabulary, [`Error::Argument`](crate::Error::Argument) for a
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
}

/// The memory of a model within a sequence: keys and values, or a hidden state.
pub trait DecodeState: Send {
    /// The number of tokens read.
    fn len(&self) -> usize;

    /// Whether no token was read.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A model whose layers all write into the stream that its head reads, so that the head can read it between layers too.
pub trait LogitLens: CausalLm {
    /// What the head, with the norm before it, makes of hidden states.
    ///
    /// # Shapes
    /// `hidden_states: […, width]` → `[…, vocab_size]`.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) if they do not fit.
    fn unembed(&self, hidden_states: &Tensor) -> Result<Tensor>;

    /// The logits that the embeddings, and then each layer, would give if the model ended there (nostalgebraist, "interpreting GPT:
    /// the logit lens", 2020); the last are those of [`CausalLm::forward`].
    ///
    /// # Shapes
    /// `input_ids: [batch, seq_len]` → paths and `[batch, seq_len, vocab_size]`.
    ///
    /// # Errors
    /// As for [`CausalLm::forward`].
    fn logit_lens(&self, input_ids: &IdTensor) -> Result<Vec<(String, Tensor)>> {
        no_grad(|| {
            let (logits, seen) = inspect(See::HiddenStates, || self.forward(input_ids));
            logits?;
            seen.hidden_states.into_iter().map(|(path, x)| Ok((path, self.unembed(&x)?))).collect()
        })
    }
}
