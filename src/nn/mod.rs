//! Neural network layers, under the names of `torch.nn`.
//!
//! A layer is a struct whose fields are [`Parameter`]s and other layers, with an `init` that takes
//! its parameters from a [`Parameters`] cursor (random values or a checkpoint, by the same code),
//! and a `forward`. Field names are checkpoint keys. `forward` takes `&self`; methods that change
//! parameters take `&mut self`.
//!
//! | module | content |
//! |---|---|
//! | [`parameter`] | [`Parameter`], and where its values come from: [`Parameters`], [`Init`] |
//! | [`module`] | [`Module`]: visiting the parameters of a layer or model by path |
//! | [`linear`], [`embedding`], [`norm`], [`dropout`] | basic layers |
//! | [`attention`], [`kv_cache`] | multi-head attention; cached keys and values for decoding |
//! | [`feed_forward`], [`transformer`] | transformer encoder and decoder layers, and stacks of them |
//! | [`positions`], [`rotary`] | sinusoidal and learned position embeddings; rotary ones and their scaling |
//! | [`conv`] | convolution over positions |
//! | [`Summary`] | the parameters of a layer or model as a table |
//! | [`recurrent`] | plain RNN, LSTM, GRU |

pub mod attention;
pub mod conv;
pub mod dropout;
pub mod embedding;
pub mod feed_forward;
pub mod kv_cache;
pub mod linear;
pub mod module;
pub mod norm;
pub mod parameter;
pub mod positions;
pub mod recurrent;
pub mod rotary;
mod summary;
pub mod transformer;

pub use attention::{MultiHeadAttention, MultiHeadAttentionConfig, Projections, QkNorm};
pub use conv::{Conv1d, Conv1dConfig};
pub use dropout::{Dropout, train_mode};
pub use embedding::Embedding;
pub use feed_forward::{FeedForward, FeedForwardConfig};
pub use kv_cache::{KvCache, KvLayer};
pub(crate) use kv_cache::{KvCaches, KvLayers};
pub use linear::Linear;
pub use module::Module;
pub use norm::{LayerNorm, Norm, NormType, RmsNorm};
pub use parameter::{Init, Parameter, ParameterSource, Parameters};
pub use positions::{LearnedPositions, SinusoidalPositions};
pub use recurrent::{Gru, Lstm, Recurrent, RecurrentConfig, RecurrentState, Rnn};
pub use rotary::{RopeScaling, RotaryPositions, Rotation};
pub use summary::Summary;
pub use transformer::{
    Decoder, DecoderCache, DecoderLayer, DecoderLayerCache, DecoderLayerConfig, Encoder, EncoderLayer,
    EncoderLayerConfig,
};

pub use crate::ops::{AttentionMask, MaxPool1d, Rope};
