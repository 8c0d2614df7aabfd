//! Floor 4: text in, numbers out, and back.
//!
//! - [`Tokenizer`]: `tokenizer.json`, trained, read, written; [`DecodeStream`] decodes what is being generated.
//! - [`Corpus`]: files of text, streamed in pieces, alone or by several threads.
//!
//! What is here knows no model. Without the feature `tokenizers` everything but the tokenizer remains.

mod corpus;
#[cfg(feature = "tokenizers")]
mod tokenizer;

pub use corpus::{Corpus, Pieces, Section};
#[cfg(feature = "tokenizers")]
pub use tokenizer::{
    DecodeStream, EncodeOptions, Encoding, Input, Padding, Side, Special, Tokenizer, TokenizerTrainer, Truncation,
    TruncationStrategy,
};
