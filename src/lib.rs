//! Train and run language models inside a Rust program: pure Rust, CPU only.
//!
//! | to … | start at |
//! |---|---|
//! | open a model folder or GGUF file and write text | [`TextGenerator`], [`GenerationConfig`]; the guide [`checkpoints`](guides::checkpoints) |
//! | turn texts into vectors, search them | [`SentenceEncoder`], [`embeddings::VectorIndex`] |
//! | fill a mask, classify, answer from a text | [`tasks`] |
//! | train a model | [`training::Trainer`], over a model of [`models`] or your own layers |
//! | build a model | [`nn`], layers under the names of `torch.nn`; [`ops`], what they are made of; [`Tensor`] |
//! | train and use word vectors | [`embeddings::Word2Vec`], [`embeddings::Glove`], [`WordVectors`]; the guide [`word_vectors`](guides::word_vectors) |
//! | train or load a tokenizer, read corpora | [`text`] |
//! | look inside a model | [`inspect()`] |
//! | ask for the instruction set and the number of threads | [`cpu`] |
//!
//! A layer of one's own is a struct of layers, one `init` for random numbers and for files, and a `forward`:
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
//! **Errors.** Wrong input, from a file, a configuration, an id or a shape, is an [`Error`] that names what was expected and found.
//!
//! **Threads.** Everything runs in the caller's [rayon](https://docs.rs/rayon) pool (`RAYON_NUM_THREADS`, or `ThreadPool::install`); models are
//! `Send + Sync` and are used through `&self`. Results have the same bits whatever the number of threads and whoever else is in a batch.
//!
//! **Instruction sets.** The best that the processor has is chosen at run time. The environment variable `LOQUAT_ISA`
//! chooses a lesser one: `portable`, `avx2`, `avx512` (without AMX), `amx` (all there is on such a
//! processor) or `neon`. A name that is not in this list, or that the processor lacks, is an error
//! when a layer or model is made.
//!
//! **AMX.** Where a processor has AMX, Linux has to grant its tiles to the process, which the first product asks for, once.
//! From then on Linux refuses the whole process alternate signal stacks (`sigaltstack`) of less
//! than 11 952 bytes. If a thread already has a smaller one, Linux refuses AMX, and products run on
//! AVX-512. Programs that need small signal stacks turn AMX off with `LOQUAT_ISA=avx512`. Products
//! of bf16 have other bits on AMX than on AVX-512, since the instructions round differently; those
//! of f32 and int8 are the same.
//!
//! # Features
//!
//! | feature (all on) | adds |
//! |---|---|
//! | `tokenizers` | [`text::Tokenizer`] and what takes text: [`TextGenerator`], [`tasks`] |
//! | `chat` | chat templates: [`text::chat`] |
//! | `constraints` | text held to a regular expression, a JSON schema or a grammar: [`generation::TokenMask`] |

mod atomic;
pub mod checkpoint;
pub mod embeddings;
mod error;
pub mod generation;
#[cfg(any(doc, doctest))]
pub mod guides;
// Public for the benches, the tests and the examples in its own pages: it may change in any version.
#[doc(hidden)]
pub mod kernels;
mod mapped;
pub mod models;
pub mod nn;
pub mod ops;
mod random;
mod signature;
pub mod tasks;
pub mod tensor;
pub mod text;
pub mod training;

/// What the kernels use of the processor.
pub mod cpu {
    pub use crate::kernels::parallel::threads;
    pub use crate::kernels::simd::{Level, level};
}

pub use checkpoint::Checkpoint;
pub use embeddings::WordVectors;
pub use error::{Error, LoadReport, MisShaped, Result};
pub use generation::GenerationConfig;
pub use mapped::Load;
/// The version of [ndarray](https://docs.rs/ndarray) whose arrays this crate takes and returns: a
/// program that uses it from here needs no dependency of its own.
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
pub use ops::{AttentionMask, Inspection, See, inspect};
pub use random::{Rng, RngState};
#[cfg(feature = "tokenizers")]
pub use tasks::{SentenceEncoder, TextGenerator};
pub use tensor::{Gradients, IdTensor, Tensor, no_grad};
