//! Differentiable operations.
//!
//! Element-wise arithmetic, reductions, activations, changes of shape and matrix products are
//! methods of [`Tensor`](crate::Tensor); the other operations are here.
//!
//! | item | content |
//! |---|---|
//! | methods of [`Tensor`](crate::Tensor) | arithmetic, functions, comparisons, indexing, reductions, shapes, matrix products |
//! | [`concat()`], [`stack`], [`windows`] | joined tensors; each position with the previous ones |
//! | [`einsum`] | Einstein summation of two factors |
//! | [`custom_op`], [`gradient_check`] | an operation of a program, and the check of its gradient |
//! | [`linear()`], [`linear_then`] | products with the weight of a layer |
//! | [`with_precision`] | f32 or bf16 products |
//! | [`Attention`], [`AttentionMask`], [`Rope`] | attention; rotary position embeddings |
//! | [`Conv1d`], [`MaxPool1d`], [`max_over_time`] | convolution and pooling over positions |
//! | [`layer_norm`], [`rms_norm`], [`dropout()`] | normalisation; dropout |
//! | [`embedding()`] | look-up of rows by id |
//! | [`CrossEntropy`], [`BinaryCrossEntropy`], [`mse_loss`] | losses |
//! | [`mod@inspect`] | recording of attention probabilities and hidden states |

// One family per file, forward and backward next to each other. Each operation checks the shapes of
// its inputs, calls kernels, and records its backward formula on the tape. The gradient of `x` is
// named `dx`. Every operation is tested against central differences.

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
pub use select::where_;
pub use shape::{concat, stack};
pub use window::windows;
