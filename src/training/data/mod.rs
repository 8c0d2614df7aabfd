//! Batches for training: from examples by index, or from one long row of tokens.
//!
//! - [`DataLoader`]: a [`Dataset`] of examples, shuffled, in buckets of like length, filled up by a [`Collate`].
//! - [`RandomWindows`], [`SequentialWindows`]: windows into a [`TokenStream`], which may be larger than memory.
//!
//! All are a [`BatchSource`]: they say where they stand ([`DataState`]) and go on from there with exactly the next batch.

mod batch;
mod loader;
mod order;
mod tokens;
mod windows;

pub use batch::{Batch, Example, IGNORE_INDEX, Labels, PadCollator};
pub use loader::{BatchSource, Collate, DataLoader, DataState, Dataset};
pub use tokens::{TokenStream, TokenWidth, TokenWriter};
#[cfg(feature = "tokenizers")]
pub use tokens::{tokenize, tokenize_to_file};
pub use windows::{RandomWindows, SequentialWindows};
