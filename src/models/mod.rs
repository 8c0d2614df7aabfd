//! Language models and encoders, one file per architecture.
//!
//! | file | content |
//! |---|---|
//! | [`causal`] | the interface of causal language models |
//! | `decoder` | the shared decoder of the transformer families |
//! | `family` | the description of a family |
//! | `families` | the registry of families: opening, GGUF files, error texts |
//! | `language_model` | a causal language model of any family |
//! | [`mod@estimate`] | an estimate of the memory that a model needs, before it is loaded |
//! | `gpt2` | GPT-2 |
//! | `gpt_neox` | GPT-NeoX, Pythia |
//! | `llama` | Llama, Mistral, Qwen2, Qwen3 |
//! | [`encoder`] | BERT, RoBERTa, DistilBERT, MPNet, and their task heads |
//! | `rnn` | a recurrent model: plain, LSTM or GRU |
//! | `mlp` | a feed-forward model over a window (Bengio 2003) |
//!

pub mod causal;
mod decoder;
pub mod encoder;
pub mod estimate;
mod families;
mod family;
mod gpt2;
mod gpt_neox;
mod language_model;
mod llama;
mod mlp;
mod rnn;

pub use causal::{CausalLm, DecodeState};
pub use decoder::Decoder;
pub use encoder::{
    EncoderConfig, EncoderForMaskedLm, EncoderForQuestionAnswering, EncoderForSequenceClassification,
    EncoderForTokenClassification, TextBatch, TextEncoder,
};
pub use estimate::{MemoryEstimate, estimate, estimate_of};
pub use families::{open_checkpoint, read_config, save_gguf};
pub use gpt_neox::{GptNeoX, GptNeoXConfig};
pub use gpt2::{Gpt2, Gpt2Config};
pub use language_model::LanguageModel;
pub use llama::{Llama, LlamaConfig};
pub use mlp::{MlpConfig, MlpLm};
pub use rnn::{CellType, RnnConfig, RnnLm};
