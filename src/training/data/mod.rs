//! Batches for training: from examples by index, or from one long sequence of tokens.
//!
//! - [`DataLoader`]: batches of a [`Dataset`], shuffled, grouped by length, combined by a
//!   [`Collate`].
//! - [`RandomWindows`], [`SequentialWindows`]: windows of a [`TokenStream`], which may be larger
//!   than memory.
//!
//! All implement [`BatchSource`]: their position ([`DataState`]) can be saved, and a resumed source
//! continues with exactly the next batch.

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
