//! Floor 4: text in, numbers out, and back.
//!
//! - [`Corpus`]: files of text, streamed in pieces, alone or by several threads.
//!
//! What is here knows no model. Without the feature `tokenizers` everything but the tokenizer remains.

mod corpus;

pub use corpus::{Corpus, Pieces, Section};
