//! Floor 4: text in, numbers out, and back.
//!
//! - [`Tokenizer`]: `tokenizer.json`, trained, read, written; [`DecodeStream`] decodes what is being generated.
//! - [`Corpus`]: files of text, streamed in pieces, alone or by several threads.
//! - [`WordCounts`], [`Vocabulary`]: words, how often they occur, their ids.
//! - [`TextCleaner`], [`StopWords`], [`split_sentences`]: text made even, thinned, cut up.
//! - [`chat`]: chat templates, rendered as `transformers` does.
//!
//! What is here knows no model. Without the feature `chat` there are no templates; without the feature `tokenizers` everything but the tokenizer remains.

#[cfg(feature = "chat")]
pub mod chat;
mod clean;
mod corpus;
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
