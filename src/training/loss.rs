//! The loss of language modelling.

use crate::error::{Error, Result};
use crate::models::CausalLm;
use crate::ops;
use crate::tensor::Tensor;
use crate::training::data::Batch;

/// The mean cross-entropy, in nats, of the label of each position: in a batch of windows, of the token after it.
///
/// # Errors
/// [`Error::Argument`] for a batch without labels; what the model returns.
pub fn next_token_loss<M: CausalLm>(model: &M, batch: &Batch) -> Result<Tensor> {
    let labels = batch.labels.as_ref().ok_or_else(|| Error::argument("batch", "one with labels", "one without"))?;
    ops::cross_entropy(&model.forward(&batch.input_ids)?, labels)
}
