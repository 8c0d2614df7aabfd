//! Floor 5: one readable file per architecture.
//!
//! | file | what |
//! |---|---|
//! | [`causal`] | what generation and training need of a model that continues text |
//! | `decoder` | the decoder that families fill in |
//! | `family` | what a family says of itself |
//! | `families` | the registry of families: opening, GGUF files, error texts |
//! | `language_model` | a causal language model of any family |
//! | [`mod@estimate`] | the memory that a model will need, before it is loaded |
//! | `gpt2` | GPT-2 |
//! | `gpt_neox` | GPT-NeoX, Pythia |
//! | `llama` | Llama, Mistral, Qwen2, Qwen3 |
//! | [`encoder`] | BERT, RoBERTa, DistilBERT, MPNet, and their heads |
//! | `rnn` | a recurrent model: plain, LSTM or GRU |
//! | `mlp` | a feed-forward model over a window (Bengio 2003) |
//!
//! This floor must not know generation or training.

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
