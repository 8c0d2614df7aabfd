//! Tasks from text to result: text generation, sentence vectors, classification, question
//! answering.
//!
//! | file | content |
//! |---|---|
//! | `text_generator` | [`TextGenerator`]: generates text |
//! | `sentence_encoder` | [`SentenceEncoder`]: text to vector |
//! | `fill_mask` | [`FillMask`]: masked token prediction |
//! | `classification` | [`TextClassifier`], [`TokenClassifier`] |
//! | `question_answering` | [`QuestionAnswering`]: extracts answers from a text |
//! | `fit` | checks that a model, its tokenizer and labels match |
//! | `ragged` | runs an encoder over many texts without padding |

#[cfg(feature = "tokenizers")]
mod classification;
#[cfg(feature = "tokenizers")]
mod fill_mask;
#[cfg(feature = "tokenizers")]
mod fit;
#[cfg(feature = "tokenizers")]
mod question_answering;
#[cfg(feature = "tokenizers")]
mod ragged;
#[cfg(feature = "tokenizers")]
mod sentence_encoder;
#[cfg(feature = "tokenizers")]
mod text_generator;

#[cfg(feature = "tokenizers")]
pub use classification::{Class, Entity, ProblemType, TextClassifier, TokenClassifier};
#[cfg(feature = "tokenizers")]
pub use fill_mask::{FillMask, Filled};
#[cfg(feature = "tokenizers")]
pub use question_answering::{Answer, QuestionAnswering};
#[cfg(feature = "tokenizers")]
pub use sentence_encoder::{Pooling, SentenceEncoder};
#[cfg(feature = "tokenizers")]
pub use text_generator::{OwnedStream, TextGenerator};
