//! Differentiable operations.
//!
//! Element-wise arithmetic, reductions, activations, changes of shape and matrix products are
//! methods of [`Tensor`](crate::Tensor); the other operations are here.
//!
//! | item | content |
//! |---|---|
//! | `arithmetic` | sums and products element by element, with NumPy's broadcasting |
//! | `operators` | `+ - * /` |
//! | `broadcast` | shapes that broadcast, elements by strides |
//! | `axis` | how an axis divides a tensor |
//! | `elementwise` | exponential, logarithm, roots, powers, limits, the larger of two |
//! | `compare` | comparisons, as masks of 0 and 1 |
//! | `select` | one of two by a mask |
//! | `shape` | reshape, squeeze, permute, narrow, split, concatenate, stack |
//! | `index` | elements by index along an axis, one-hot rows |
//! | `reduce` | sums, means, norms, log-sum-exp |
//! | `extremes` | maxima, minima, top k along an axis |
//! | `cumsum` | running sums |
//! | `einsum` | Einstein summation of two factors |
//! | `custom` | custom operations: a value and its backward formula |
//! | `gradient_check` | gradients against central differences |
//! | `activation` | ReLU and its kin, GELU, SiLU, sigmoid, tanh, softplus, softmax, log-softmax |
//! | `linear` | products with a layer's weight |
//! | `packed_weight` | copies of a weight in the order in which products read it |
//! | `matmul` | products of matrices and batches of them |
//! | `precision` | f32 or bf16 for the products |
//! | `attention` | scaled dot-product attention, and what it may see |
//! | `rope` | rotary positions |
//! | `conv` | convolution over positions, maximum over them |
//! | `pool` | maxima of windows of positions |
//! | `window` | each position with those before it |
//! | `recurrent` | plain RNN, LSTM, GRU over whole sequences |
//! | `norm` | layer and RMS normalisation |
//! | `embedding` | rows by id |
//! | `loss` | cross-entropy, binary cross-entropy, mean squared error |
//! | `dropout` | random zeros |
//! | [`mod@inspect`] | a look at attention and hidden states while a model runs |
//!
//! This floor must not know parameters or names.

mod activation;
mod arithmetic;
pub(crate) mod attention;
mod axis;
mod broadcast;
mod compare;
mod conv;
mod cumsum;
mod custom;
pub(crate) mod dropout;
mod einsum;
mod elementwise;
mod embedding;
mod extremes;
pub(crate) mod gradient_check;
mod index;
pub mod inspect;
pub(crate) mod linear;
mod loss;
mod matmul;
mod norm;
mod operators;
pub(crate) mod packed_weight;
mod pool;
pub(crate) mod precision;
pub(crate) mod recurrent;
mod reduce;
pub(crate) mod rope;
mod select;
mod shape;
mod window;

pub use activation::Activation;
pub use attention::{Attention, AttentionMask};
pub use conv::{Conv1d, max_over_time};
pub use custom::custom_op;
pub use dropout::dropout;
pub use einsum::einsum;
pub use embedding::{embedding, embedding_with_padding};
pub use gradient_check::{GradientCheck, gradient_check};
pub use index::one_hot;
pub use inspect::{Inspection, See, inspect};
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
pub use select::where_;
pub use shape::{concat, stack};
pub use window::windows;
