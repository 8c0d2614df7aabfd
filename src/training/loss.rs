//! The loss of language modelling.

use crate::error::Result;
use crate::models::CausalLm;
use crate::ops;
use crate::tensor::Tensor;
use crate::training::data::Batch;

/// Returns the mean cross-entropy, in nats, of the labels of a batch. In a batch of windows, the
/// label of a position is the next token.
///
/// # Shapes
/// `batch.input_ids` and `batch.labels`: `[batch, seq_len]`; the result is a scalar.
///
/// # Errors
/// [`Error::Argument`](crate::Error::Argument) if the batch has no labels; the errors of the model.
///
/// # Examples
/// ```
/// use loquat::models::{Gpt2, Gpt2Config};
/// use loquat::training::data::{BatchSource, RandomWindows, TokenStream};
/// use loquat::training::next_token_loss;
///
/// let config = Gpt2Config::new(16, 8, 8, 1, 2); // tokens, positions, width, layers, heads
/// let model = Gpt2::init(&config, &mut loquat::Rng::seed(1))?;
/// let stream = TokenStream::from_ids((0..100).map(|i| i % 16).collect());
/// let batch = RandomWindows::new(stream, 8, 2, 42)?.next_batch()?.expect("an endless source");
/// let loss = next_token_loss(&model, &batch)?.item()?;
/// assert!((loss - 16f32.ln()).abs() < 0.5); // untrained: all tokens are about equally likely
/// # Ok::<(), loquat::Error>(())
/// ```
pub fn next_token_loss<M: CausalLm>(model: &M, batch: &Batch) -> Result<Tensor> {
    ops::cross_entropy(&model.forward(&batch.input_ids)?, batch.labels()?)
}
