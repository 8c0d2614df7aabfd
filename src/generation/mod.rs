//! Text generation with a causal language model.
//!
//! [`generate`] returns token ids, [`stream`] returns text. Both are plain iterators that compute
//! one token at a time, and borrow the model with `&` or share it with an `Arc`.
//!
//! One step: the model reads the new tokens, processors change its logits, a constraint masks
//! tokens, temperature and cut-offs reshape the distribution, and a token is chosen. For models in
//! a folder or file, [`TextGenerator`](crate::TextGenerator) does all of this.
//!
//! | file | content |
//! |---|---|
//! | `config` | [`GenerationConfig`] |
//! | `config_file` | [`GenerationConfig::open`]: reads `generation_config.json` |
//! | `processor` | changes of the logits: penalties, biases, forced tokens, temperature, cut-offs |
//! | `constraint` | restricts the tokens that may come next |
//! | `sampler` | draws a token from logits |
//! | `sequence` | one text being generated, independent of the decoding method |
//! | `tokens` | the decoding loop, an iterator of ids |
//! | `beam` | beam search, beam sampling, diverse groups |
//! | `batch` | generates many texts at once |
//! | `speculation` | speculative decoding |
//! | `prompt_cache` | model state of a prompt, for reuse and saving |
//! | `logprobs` | log-probabilities of tokens |
//! | `score` | log-probabilities and perplexity of given texts |
//! | `stopping` | stop reasons, cancelling |
//! | `stop_strings` | stop strings across token boundaries |
//! | `text` | the iterator of text pieces |

pub(crate) mod batch;
pub(crate) mod beam;
pub(crate) mod config;
mod config_file;
pub(crate) mod constraint;
pub(crate) mod logprobs;
mod processor;
pub(crate) mod prompt_cache;
mod reader;
pub(crate) mod sampler;
pub(crate) mod score;
pub(crate) mod sequence;
pub(crate) mod speculation;
#[cfg(feature = "tokenizers")]
mod stop_strings;
pub(crate) mod stopping;
#[cfg(feature = "tokenizers")]
pub(crate) mod text;
pub(crate) mod tokens;

pub use batch::{BatchGenerator, Generated, generate_batch};
pub use beam::Hypothesis;
pub use config::{EarlyStopping, GenerationConfig, Mirostat, Overflow};
#[cfg(feature = "constraints")]
pub use constraint::{Grammar, GrammarCompiler, GrammarLimits};
pub use constraint::{TokenMask, TokenSet};
pub use logprobs::TokenLogprob;
pub use processor::LogitsProcessor;
pub use prompt_cache::PromptCache;
pub use score::{Perplexity, perplexity, perplexity_with, score};
pub use speculation::{Speculation, speculate};
pub use stopping::{Cancel, StopReason};
#[cfg(feature = "tokenizers")]
pub use text::{TextStream, stream};
pub use tokens::{Tokens, generate};
