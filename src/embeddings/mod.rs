//! Word vectors: training (Word2Vec, GloVe, subwords, phrases), files, search and evaluation.
//!
//! | item | what |
//! |---|---|
//! | [`WordVectors`] | words and their vectors: lookup, files, storage formats, means, analogies |
//! | [`Word2Vec`] | skip-gram and CBOW, with negative sampling, hierarchical softmax or subwords |
//! | [`Glove`] | counting in bounded memory, fitting by AdaGrad |
//! | [`Phrases`] | joins words that often occur together, such as `new_york` |
//! | [`Query`] | nearest words and analogies by cosine similarity |
//! | [`VectorIndex`] | exact search over vectors of any kind |
//! | [`Evaluation`] | similarity sets and analogy files |
//!
//! Training uses no tensor and no tape: its gradients have closed forms.

mod batch_search;
mod checkpoint;
mod evaluation;
mod format;
mod glove;
mod layer;
mod phrase_settings;
mod phrases;
mod similarity;
mod subwords;
mod top_k;
mod training;
mod vector_index;
mod word2vec;
mod word_vectors;
mod words;

pub use evaluation::{AnalogyScore, Evaluation, EvaluationOptions, SimilarityScore};
pub use format::{Duplicates, InvalidUtf8, Malformed, ReadOptions, save_npy};
pub use glove::{Cooccurrences, Glove, GloveModel};
pub use phrase_settings::PhraseSettings;
pub use phrases::Phrases;
pub use similarity::{Combine, Query};
pub use subwords::Ngrams;
pub use training::run::{Observer, Progress};
pub use training::text::{Split, TrainingText};
pub use vector_index::{VectorIndex, cosine_similarities};
pub use word_vectors::{Storage, WordVectors};
pub use word2vec::{Word2Vec, Word2VecModel};
