//! Floor 5: one readable file per architecture.
//!
//! | file | what |
//! |---|---|
//! | [`causal`] | what generation and training need of a model that continues text |
//! | [`auto`] | opens a folder, whatever architecture its `config.json` names |
//! | [`mod@estimate`] | the memory that a model will need, before it is loaded |
//! | [`gpt2`] | GPT-2 |
//! | [`llama`] | Llama, Mistral, Qwen2, Qwen3 |
//! | [`encoder`] | BERT, RoBERTa, DistilBERT, MPNet, and their heads |
//! | [`rnn`] | a recurrent model: plain, LSTM or GRU |
//! | [`mlp`] | a feed-forward model over a window (Bengio 2003) |
//!
//! This floor must not know generation or training.

pub mod auto;
pub mod causal;
pub mod encoder;
pub mod estimate;
pub mod gpt2;
pub mod llama;
pub mod mlp;
pub mod rnn;

pub use auto::LanguageModel;
pub use causal::{CausalLm, DecodeState, LogitLens};
pub use encoder::{
    EncoderConfig, EncoderForMaskedLm, EncoderForQuestionAnswering, EncoderForSequenceClassification,
    EncoderForTokenClassification, TextBatch, TextEncoder,
};
pub use estimate::{MemoryEstimate, estimate, estimate_of};
pub use gpt2::{Gpt2, Gpt2Config};
pub use llama::{Llama, LlamaConfig};
pub use mlp::{MlpConfig, MlpLm};
pub use rnn::{CellType, RnnConfig, RnnLm};
