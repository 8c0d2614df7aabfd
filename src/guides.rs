//! Guides, one for each subject.

#[doc = include_str!("../docs/checkpoints.md")]
pub mod checkpoints {}

#[doc = include_str!("../docs/word_vectors.md")]
pub mod word_vectors {}
