//! Floor 7: text in, answers out.

#[cfg(feature = "tokenizers")]
mod text_generator;

#[cfg(feature = "tokenizers")]
pub use text_generator::{BorrowedStream, OwnedStream, TextGenerator};
