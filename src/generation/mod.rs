//! Floor 6: writing text with a causal model.
//!
//! [`generate`] gives token ids, [`stream`] gives text; both are plain iterators that compute a token when asked for the
//! next one, and borrow the model with `&`.
//!
//! | file | what |
//! |---|---|
//! | [`config`] | [`GenerationConfig`] |
//! | [`processor`] | what changes logits before a token is drawn: temperature, top-k, top-p |
//! | [`sampler`] | draws a token |
//! | [`tokens`] | the decoding loop, an iterator of ids |
//! | [`stopping`] | stop strings, across token borders |
//! | [`text`] | the iterator of text |
//!
//! This floor must not know which model it runs, nor the text of a task.

pub mod config;
pub mod processor;
pub mod sampler;
#[cfg(feature = "tokenizers")]
pub mod stopping;
#[cfg(feature = "tokenizers")]
pub mod text;
pub mod tokens;

pub use config::{GenerationConfig, Overflow};
pub use processor::LogitsProcessor;
#[cfg(feature = "tokenizers")]
pub use text::{TextStream, stream};
pub use tokens::{StopReason, Tokens, generate};
