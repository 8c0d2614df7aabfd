//! Train and run language models inside a Rust program: pure Rust, CPU only.

pub mod checkpoint;
pub mod embeddings;
pub mod error;
pub mod generation;
#[cfg(any(doc, doctest))]
pub mod guides;
pub mod kernels;
pub mod mapped;
pub mod models;
pub mod nn;
pub mod ops;
pub mod random;
pub mod tasks;
pub mod tensor;
pub mod text;
pub mod training;

pub use checkpoint::Checkpoint;
pub use embeddings::WordVectors;
pub use error::{Error, LoadReport, MisShaped, Result};
pub use generation::GenerationConfig;
pub use mapped::{Load, MappedFile};
pub use ops::{AttentionMask, Inspection, See, inspect};
pub use random::Rng;
#[cfg(feature = "tokenizers")]
pub use tasks::{SentenceEncoder, TextGenerator};
pub use tensor::{Gradients, IdTensor, Tensor, no_grad};
