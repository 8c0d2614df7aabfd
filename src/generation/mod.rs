//! Floor 6: writing text with a causal model.
//!
//! [`generate`] gives token ids, [`stream`] gives text; both are plain iterators that compute a token when asked for the
//! next one, and borrow the model with `&`.
//!
//! | file | what |
//! |---|---|
//! | [`config`] | [`GenerationConfig`] |
//! | [`processor`] | what changes logits before a token is drawn: penalties, biases, forced tokens, temperature, cut-offs |
//! | [`constraint`] | which tokens may come next |
//! | [`sampler`] | draws a token |
//! | `sequence` | one text that is being written, whatever the way of decoding |
//! | [`tokens`] | the decoding loop, an iterator of ids |
//! | [`logprobs`] | log-probabilities of tokens |
//! | [`stopping`] | why a text ends; cancelling; stop strings, across token borders |
//! | [`text`] | the iterator of text |
//!
//! This floor must not know which model it runs, nor the text of a task.

pub mod config;
pub mod constraint;
pub mod logprobs;
pub mod processor;
pub mod sampler;
pub(crate) mod sequence;
pub mod stopping;
#[cfg(feature = "tokenizers")]
pub mod text;
pub mod tokens;

pub use config::{GenerationConfig, Mirostat, Overflow};
pub use constraint::{TokenMask, TokenSet};
pub use logprobs::TokenLogprob;
pub use processor::LogitsProcessor;
pub use stopping::{Cancel, StopReason};
#[cfg(feature = "tokenizers")]
pub use text::{TextStream, stream};
pub use tokens::{Tokens, generate};
