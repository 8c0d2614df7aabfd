//! Train and run language models inside a Rust program: pure Rust, CPU only.

pub mod embeddings;
pub mod error;
pub mod kernels;
pub mod mapped;
pub mod random;
pub mod text;
pub mod training;

pub use embeddings::WordVectors;
pub use error::{Error, LoadReport, MisShaped, Result};
pub use random::Rng;
