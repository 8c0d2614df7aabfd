//! Batches for training: from examples by index, or from one long row of tokens.

mod order;
mod tokens;

pub use tokens::{TokenStream, TokenWidth, TokenWriter};
#[cfg(feature = "tokenizers")]
pub use tokens::{tokenize, tokenize_to_file};
