//! Floor 6: writing text with a causal model.
//!
//! [`generate`] gives token ids, [`stream`] gives text; both are plain iterators that compute a token when asked for the
//! next one, and borrow the model with `&` (or share it with an `Arc`).
//!
//! A step: the model reads what is new, processors change its logits, a constraint forbids what does not fit, temperature and cut-offs
//! shape what is left, a token is drawn and written. With a folder of files, [`TextGenerator`](crate::TextGenerator) does all of it.
//!
//! | file | what |
//! |---|---|
//! | `config` | [`GenerationConfig`] |
//! | `config_file` | [`GenerationConfig::open`]: a folder's `generation_config.json` |
//! | `processor` | what changes logits before a token is drawn: penalties, biases, forced tokens, temperature, cut-offs |
//! | `constraint` | which tokens may come next |
//! | `sampler` | draws a token |
//! | `sequence` | one text that is being written, whatever the way of decoding |
//! | `tokens` | the decoding loop, an iterator of ids |
//! | `beam` | beam search, beam sampling, diverse groups |
//! | `batch` | many texts at once |
//! | `speculation` | guesses of the next tokens, read all at once |
//! | `prompt_cache` | what a model remembers of a prompt, shared and saved |
//! | `logprobs` | log-probabilities of tokens |
//! | `score` | how likely a given text is; perplexity |
//! | `stopping` | why a text ends; cancelling |
//! | `stop_strings` | texts that end a text, across token borders |
//! | `text` | the iterator of text |
//!
//! This floor must not know which model it runs, nor the text of a task.

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
pub use score::{Perplexity, perplexity, score};
pub use speculation::{Speculation, speculate};
pub use stopping::{Cancel, StopReason};
#[cfg(feature = "tokenizers")]
pub use text::{TextStream, stream};
pub use tokens::{Tokens, generate};
