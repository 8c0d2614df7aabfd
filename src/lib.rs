//! Train and run language models inside a Rust program. Pure Rust, CPU only.
//!
//! | to … | start at |
//! |---|---|
//! | open a model folder or GGUF file and generate text | [`TextGenerator`], [`GenerationConfig`]; the guide [`checkpoints`](guides::checkpoints) |
//! | encode texts as vectors and search them | [`SentenceEncoder`], [`embeddings::VectorIndex`] |
//! | fill masks, classify text, answer questions | [`tasks`] |
//! | train a model | [`training::Trainer`], with a model of [`models`] or your own layers |
//! | build a model | the layers of [`nn`], named as in `torch.nn`; the operations of [`ops`]; [`Tensor`] |
//! | train and use word vectors | [`embeddings::Word2Vec`], [`embeddings::Glove`], [`WordVectors`]; the guide [`word_vectors`](guides::word_vectors) |
//! | train or load a tokenizer, read corpora | [`text`] |
//! | inspect activations and attention probabilities | [`inspect()`] |
//! | read a guide, from the first program to a server | [`guides`] |
//! | query the instruction set and the number of threads | [`cpu`] |
//!
//! A custom model is a struct of layers with one `init`, for random values and for checkpoints, and
//! a `forward`:
//!
//! ```
//! use loquat::nn::{Embedding, Linear, Lstm, Parameters, RecurrentConfig};
//! use loquat::training::{AdamW, Optimizer};
//! use loquat::{IdTensor, Result, Rng, Tensor, ops};
//!
//! struct Model { embedding: Embedding, lstm: Lstm, head: Linear }
//! loquat::module!(Model { embedding, lstm, head });
//!
//! impl Model {
//!     fn init<'a>(p: impl Into<Parameters<'a>>) -> Result<Self> {
//!         let mut p = p.into();
//!         Ok(Self {
//!             embedding: Embedding::init(10, 16, 0.1, p.at("embedding"))?,
//!             lstm: Lstm::init(&RecurrentConfig::new(16, 32), p.at("lstm"))?,
//!             head: Linear::init(32, 10, true, p.at("head"))?,
//!         })
//!     }
//!
//!     fn forward(&self, ids: &IdTensor) -> Result<Tensor> {
//!         let (states, _) = self.lstm.forward(&self.embedding.forward(ids)?, None, None)?;
//!         self.head.forward(&states) // [batch, seq_len, vocabulary]
//!     }
//! }
//!
//! let mut model = Model::init(&mut Rng::seed(1))?;
//! let mut optimizer = Optimizer::new(AdamW { lr: 0.03, ..AdamW::default() })?;
//! let row = |from: u32| (from..from + 8).map(|i| i % 10).collect::<Vec<_>>();
//! let (ids, labels) = (IdTensor::batch(&[row(0), row(5)])?, IdTensor::batch(&[row(1), row(6)])?);
//! let mut losses = Vec::new();
//! for _ in 0..30 {
//!     let loss = ops::cross_entropy(&model.forward(&ids)?, &labels)?;
//!     optimizer.step(&mut model, &loss.backward()?)?;
//!     losses.push(loss.item()?);
//! }
//! assert!(losses[29] < 0.1 * losses[0]);
//! # Ok::<(), loquat::Error>(())
//! ```
//!
//! **Errors.** Invalid input (a file, a configuration, a token id, a shape) gives an [`Error`] that
//! names what was expected and what was found.
//!
//! **Threads.** Everything runs in the caller's [rayon](https://docs.rs/rayon) pool
//! (`RAYON_NUM_THREADS`, or `ThreadPool::install`); models are `Send + Sync` and are used through
//! `&self`. Results have the same bits at any number of threads and regardless of the rest of the
//! batch.
//!
//! **Instruction sets.** The best one that the processor supports is chosen at run time. The
//! environment variable `LOQUAT_ISA` selects a lower one: `portable`, `avx2`, `avx512` (without
//! AMX), `amx` (everything that such a processor has) or `neon`. An unknown name, or one that the
//! processor does not support, is an error when a layer or model is created.
//!
//! **AMX.** On processors with AMX, a process has to request the use of the tile registers from
//! Linux; the first matrix product does so, once per process. From then on Linux refuses alternate
//! signal stacks (`sigaltstack`) smaller than 11 952 bytes in the whole process. If a thread
//! already has a smaller one, Linux refuses AMX instead, and products run on AVX-512. Programs that
//! need small signal stacks turn AMX off with `LOQUAT_ISA=avx512`. Products of bf16 matrices differ
//! in their last bits between AMX and AVX-512, because the instructions round differently; those of
//! f32 and int8 are identical.
//!
//! # Features
//!
//! | feature | adds |
//! |---|---|
//! | `tokenizers` (default) | [`text::Tokenizer`] and everything that takes text: [`TextGenerator`], [`tasks`] |
//! | `chat` (default) | chat templates: [`text::chat`] |
//! | `progress` | the progress of a run on a terminal or in a log, and saving at Ctrl-C: `progress::ProgressReporter` |
//! | `constraints` | text constrained to a regular expression, a JSON schema or a grammar: [`generation::TokenMask`] |

mod atomic;
pub mod checkpoint;
pub mod embeddings;
mod error;
pub mod generation;
#[cfg(any(doc, doctest))]
pub mod guides;
// Public only for benchmarks, tests and doc examples: it may change in any version.
#[doc(hidden)]
pub mod kernels;
mod mapped;
pub mod models;
pub mod nn;
pub mod ops;
#[cfg(feature = "progress")]
pub mod progress;
mod random;
mod signature;
pub mod tasks;
pub mod tensor;
pub mod text;
pub mod training;

/// The instruction set and the number of threads that the kernels use.
pub mod cpu {
    pub use crate::kernels::parallel::threads;
    pub use crate::kernels::simd::{Level, level};
}

pub use checkpoint::Checkpoint;
pub use embeddings::WordVectors;
pub use error::{Error, LoadReport, MisShaped, Result};
pub use generation::GenerationConfig;
pub use mapped::Load;
/// The version of [ndarray](https://docs.rs/ndarray) whose arrays this crate takes and returns. A
/// program that uses it from here needs no dependency on `ndarray`.
///
/// ```
/// use loquat::ndarray::{Array2, Ix2, array};
/// use loquat::Tensor;
///
/// let x = Tensor::from(array![[1.0, 2.0], [3.0, 4.0]]);
/// let doubled: Array2<f32> = x.add(&x)?.to_array::<Ix2>()?;
/// assert_eq!(doubled, array![[2.0, 4.0], [6.0, 8.0]]);
/// # Ok::<(), loquat::Error>(())
/// ```
pub use ndarray;
pub use ops::{AttentionMask, Capture, Inspection, inspect};
pub use random::{Rng, RngState};
#[cfg(feature = "tokenizers")]
pub use tasks::{SentenceEncoder, TextGenerator};
pub use tensor::{Gradients, IdTensor, Tensor, no_grad};
