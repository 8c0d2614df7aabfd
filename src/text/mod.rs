//! Text processing: tokenizers, corpora, vocabularies, cleaning, chat templates.
//!
//! - [`Tokenizer`]: opens, trains and saves `tokenizer.json`; [`DecodeStream`] decodes token by
//!   token.
//! - [`Corpus`]: streams text files in pieces.
//! - [`WordCounts`], [`Vocabulary`]: words with counts and ids.
//! - [`TextCleaner`], [`StopWords`], [`split_sentences`]: cleaning, filtering and splitting.
//! - [`chat`]: chat templates, rendered as in `transformers`.
//!
//! Chat templates need the feature `chat`, the tokenizer needs the feature `tokenizers`.

#[cfg(feature = "chat")]
pub mod chat;
mod clean;
mod corpus;
#[cfg(test)]
mod random_text;
mod sentences;
mod stop_words;
#[cfg(feature = "tokenizers")]
mod tokenizer;
mod vocabulary;

pub use clean::{NormalForm, TextCleaner, WhiteSpace};
pub use corpus::{Corpus, Pieces};
pub use sentences::{SentenceSplitter, split_sentences};
pub use stop_words::StopWords;
#[cfg(feature = "tokenizers")]
pub use tokenizer::{
    DecodeStream, EncodeOptions, Encoding, Input, Padding, Side, Special, Tokenizer, TokenizerTrainer, Truncation,
    TruncationStrategy,
};
pub use vocabulary::{Vocabulary, WordCounts};
