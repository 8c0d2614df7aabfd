//! Differentiable operations, one family per file, forward and backward next to each other.
//!
//! Each operation checks the shapes of its inputs, calls kernels, and records its backward formula
//! on the tape. The gradient of `x` is named `dx`. Every operation is tested against central
//! differences.
//!
//! | file | content |
//! |---|---|
//! | `arithmetic` | element-wise arithmetic with NumPy's broadcasting |
//! | `shape` | reshape, permute, narrow, concat, stack |
//! | `reduce` | sums and means |
//! | `activation` | ReLU and its variants, GELU, SiLU, sigmoid, tanh, softplus, softmax, log-softmax |
//! | `linear` | products with the weight of a layer |
//! | `packed_weight` | copies of a weight in the order in which products read it |
//! | `matmul` | products of matrices and batches of them |
//! | `precision` | f32 or bf16 products |
//! | `attention` | scaled dot-product attention and its masks |
//! | `rope` | rotary position embeddings |
//! | `conv` | convolution over positions, maximum over positions |
//! | `pool` | maximum pooling over positions |
//! | `window` | each position concatenated with the previous ones |
//! | `recurrent` | plain RNN, LSTM, GRU over whole sequences |
//! | `norm` | layer and RMS normalisation |
//! | `embedding` | look-up of rows by id |
//! | `loss` | cross-entropy, binary cross-entropy, mean squared error |
//! | `dropout` | dropout |
//! | [`mod@inspect`] | recording of attention probabilities and hidden states |
//!

mod activation;
mod arithmetic;
pub(crate) mod attention;
mod conv;
pub(crate) mod dropout;
mod embedding;
#[cfg(test)]
pub(crate) mod gradient_check;
pub mod inspect;
pub(crate) mod linear;
mod loss;
mod matmul;
mod norm;
pub(crate) mod packed_weight;
mod pool;
pub(crate) mod precision;
pub(crate) mod recurrent;
mod reduce;
pub(crate) mod rope;
mod shape;
mod window;

pub use activation::Activation;
pub use attention::{Attention, AttentionMask};
pub use conv::{Conv1d, max_over_time};
pub use dropout::dropout;
pub use embedding::{embedding, embedding_with_padding};
pub use inspect::{Capture, Inspection, inspect};
pub use linear::{WeightLayout, linear, linear_then};
pub use loss::{
    BinaryCrossEntropy, CrossEntropy, Reduction, binary_cross_entropy_with_logits, cross_entropy, mse_loss,
    mse_loss_with,
};
pub use norm::{layer_norm, rms_norm};
pub use pool::MaxPool1d;
pub use precision::{Precision, with_precision};
pub use recurrent::Cell;
pub(crate) use recurrent::{Recurrent, RecurrentWeights};
pub use rope::Rope;
pub use shape::{concat, stack};
pub use window::windows;
