//! Floor 5: word vectors, trained and used.
//!
//! | file | what it holds |
//! |---|---|
//! | `word_vectors` | [`WordVectors`], the store: lookup, storage types, means |
//! | `similarity`, `batch_search` | cosine similarity, nearest words, analogies |
//! | `evaluation` | similarity sets and analogy files |
//! | `subwords` | character n-grams hashed into buckets |
//! | [`format`] | files of word2vec, GloVe, fastText, NumPy |
//!
//! What is here knows kernels, text and files; it uses no tensor and no tape, because its gradients have closed forms.

mod batch_search;
mod evaluation;
pub mod format;
mod similarity;
mod subwords;
mod word_vectors;
mod words;

pub use evaluation::{AnalogyScore, EvaluationOptions, SimilarityScore};
pub use format::{Duplicates, InvalidUtf8, Malformed, ReadOptions};
pub use similarity::{Combine, Query};
pub use subwords::{Ngrams, Subwords};
pub use word_vectors::{Storage, WordVectors};
