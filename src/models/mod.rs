//! Language models and encoders.
//!
//! | item | content |
//! |---|---|
//! | [`CausalLm`], [`DecodeState`] | the interface of causal language models |
//! | [`LanguageModel`] | a causal language model of any family, opened from a folder or GGUF file |
//! | [`Gpt2`] | GPT-2 |
//! | [`GptNeoX`] | GPT-NeoX, Pythia |
//! | [`Llama`] | Llama, Mistral, Qwen2, Qwen3 |
//! | [`RnnLm`] | a recurrent model: plain, LSTM or GRU |
//! | [`MlpLm`] | a feed-forward model over a window (Bengio 2003) |
//! | [`Decoder`] | a decoder from parts of your own |
//! | [`encoder`] | BERT, RoBERTa, DistilBERT, MPNet, and their task heads |
//! | [`mod@estimate`] | an estimate of the memory that a model needs, before it is loaded |
//! | [`open_checkpoint`], [`save_gguf`] | tensors of a model; export to GGUF |

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
pub use families::{open_checkpoint, read_config, save_gguf, save_gguf_with};
pub use gpt_neox::{GptNeoX, GptNeoXConfig};
pub use gpt2::{Gpt2, Gpt2Config};
pub use language_model::LanguageModel;
pub use llama::{Llama, LlamaConfig};
pub use mlp::{MlpConfig, MlpLm};
pub use rnn::{CellType, RnnConfig, RnnLm};
