//! Guides, one for each subject.

#[doc = include_str!("../docs/checkpoints.md")]
pub mod checkpoints {}

#[doc = include_str!("../docs/word_vectors.md")]
pub mod word_vectors {}

/// The front page's code runs too.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub mod readme {}
