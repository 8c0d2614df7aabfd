//! Checks that a model, its tokenizer and labels match.

use crate::error::{Error, Result};
use crate::models::encoder::TextEncoder;
use crate::text::Tokenizer;

/// Checks that the encoder's embedding has a row for every id of the tokenizer.
pub(super) fn check_vocabulary(encoder: &TextEncoder, tokenizer: &Tokenizer) -> Result<()> {
    let rows = encoder.embeddings.word_embeddings.weight.shape()[0];
    if tokenizer.vocab_size() <= rows {
        return Ok(());
    }
    let expected = format!("at most {rows} tokens, the rows of the model's embedding");
    Err(Error::argument("tokenizer", expected, tokenizer.vocab_size()))
}

/// Checks that there is a label for each output of a head.
pub(super) fn check_labels(labels: usize, classes: usize) -> Result<()> {
    if labels == classes {
        return Ok(());
    }
    Err(Error::argument("labels", format!("{classes} labels, one for each class of the head"), labels))
}
