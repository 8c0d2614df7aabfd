//! Floor 5: one readable file per architecture.
//!
//! | file | what |
//! |---|---|
//! | [`causal`] | what generation and training need of a model that continues text |
//!
//! This floor must not know generation or training.

pub mod causal;

pub use causal::{CausalLm, DecodeState};
