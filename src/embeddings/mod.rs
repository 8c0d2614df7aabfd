//! Floor 5: word vectors, trained and used.
//!
//! | file | what it holds |
//! |---|---|
//! | `word_vectors` | [`WordVectors`], the store: lookup, storage types, means |
//! | `similarity`, `batch_search`, `best` | cosine similarity, nearest words, analogies |
//! | `layer` | a model's embedding layer from them |
//! | `vector_index` | [`VectorIndex`]: exact search over vectors of anything; all cosines at once |
//! | `evaluation` | similarity sets and analogy files |
//! | `subwords` | character n-grams hashed into buckets |
//! | `word2vec` | [`Word2Vec`]: skip-gram, CBOW, subwords |
//! | `glove` | [`Glove`]: counting in bounded memory, AdaGrad |
//! | `checkpoint` | runs in a file, to go on from |
//! | `phrases`, `phrase_settings` | words that stand together become one, and how they are found |
//! | `training` | what trainers share: reading, counting, drawing, shared tables |
//! | `format` | files of word2vec, GloVe, fastText, NumPy |
//!
//! What is here knows kernels, text and files; training uses no tensor and no tape, because its gradients have closed forms.

mod batch_search;
mod best;
mod checkpoint;
mod evaluation;
mod format;
mod glove;
mod layer;
mod phrase_settings;
mod phrases;
mod similarity;
mod subwords;
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
