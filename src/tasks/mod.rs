//! Floor 7: text in, answers out.
//!
//! | file | what |
//! |---|---|
//! | `text_generator` | [`TextGenerator`]: writes text |
//! | `sentence_encoder` | [`SentenceEncoder`]: a vector for a text |
//! | `fill_mask` | [`FillMask`]: what stands behind a mask |
//! | `classification` | [`TextClassifier`], [`TokenClassifier`] |
//! | `question_answering` | [`QuestionAnswering`]: where in a text an answer stands |
//! | `fit` | whether a model, a tokenizer and labels fit together |
//! | `ragged` | many texts through an encoder, without padding |

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
