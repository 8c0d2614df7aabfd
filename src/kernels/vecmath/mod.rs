//! Memory-bound kernels: element-wise functions, reductions, softmax, norms, optimizer steps,
//! conversions.
//!
//! Each family is a file: cited method, named constants, body generic over
//! [`Isa`](super::simd::Isa), naive reference and a test on every instruction set. The public
//! functions are safe, check lengths once, split large slices across threads, and enter the
//! instruction set once per part. They panic if slices differ in length.
//!
//! An element-wise function depends only on that element, a function of a row only on that row.
//! Reductions over rows (`sum_rows`, the gradients of norms, losses) add fixed groups of rows in a
//! fixed order. So no result depends on the number of threads. Sums within a row have the same 32
//! partial sums whatever the vector's width, so the bits agree between AVX-512, AVX2 and NEON as
//! well.
//!
//! Accuracy is stated in ulp, the distance to the next `f32`, with fused multiply–add; without it
//! ([`Level::Portable`](super::simd::Level::Portable)), bounds are about one ulp wider.
//!
//! | file | content |
//! |---|---|
//! | `exp` | `exp` |
//! | `ln` | the natural logarithm |
//! | `power` | powers with one exponent for all |
//! | `tanh` | `tanh`, `sigmoid` |
//! | `erf` | `erf`, the normal distribution |
//! | `activation` | [`Activation`], forward and backward: ReLU, GELU, SiLU, … |
//! | `arithmetic` | sums, products, `axpy`, rows added to matrices |
//! | `reduce` | sums, maxima, column sums |
//! | `softmax` | softmax and log-softmax, forward and backward |
//! | `cross_entropy` | softmax and cross-entropy in one, without a matrix of probabilities |
//! | `norm` | layer norm and RMS norm |
//! | `rope` | rotary position embeddings |
//! | `dropout` | dropout by a hash of the index |
//! | `recurrent` | the gates of LSTM and GRU |
//! | `embedding` | look-up of rows by id, and its gradient |
//! | `optimizer` | steps of SGD, Adam and AdamW |
//! | `half` | conversion from and to f16 and bf16 |
//! | `polynomial` | polynomials with short dependency chains |
//! | `elementwise`, `rows` | the loops of all other files |

mod activation;
mod arithmetic;
mod cross_entropy;
mod dropout;
mod elementwise;
mod embedding;
mod erf;
mod exp;
mod half;
mod ln;
mod norm;
mod optimizer;
mod polynomial;
mod power;
mod recurrent;
mod reduce;
mod rope;
mod rows;
mod softmax;
mod tanh;

#[cfg(test)]
pub(crate) mod testing;

pub use activation::{
    Activation, activation, activation_backward, elu, elu_backward, leaky_relu, leaky_relu_backward, softplus,
    softplus_backward,
};
pub use arithmetic::{
    add, add_assign, add_row, axpy, div, mul, mul_add_assign, mul_assign, mul_row, scale, scale_into, shift, sqrt, sub,
    sub_assign,
};
pub use cross_entropy::{cross_entropy, cross_entropy_backward};
pub use dropout::dropout;
pub use embedding::{gather, scatter_add};
pub use erf::erf;
pub use exp::exp;
pub use half::{bf16_to_f32, f16_to_f32, f32_to_bf16, f32_to_f16};
pub use ln::ln;
pub use norm::{layer_norm, layer_norm_backward, rms_norm, rms_norm_backward};
pub use optimizer::{Adam, Sgd, adam_step, sgd_step};
pub use power::powf;
pub use recurrent::{gru_step, gru_step_backward, lstm_step, lstm_step_backward};
pub use reduce::{argmax, dot, max, sum, sum_rows, sum_squares};
pub use rope::rope;
pub use softmax::{log_softmax, log_softmax_backward, softmax, softmax_backward};
pub use tanh::{sigmoid, tanh};

#[allow(unused_imports)]
pub(crate) use self::{
    dropout::GOLDEN, dropout::Keep, erf::normal_cdf_lanes, exp::exp_below_overflow, exp::exp_lanes,
    tanh::sigmoid_lanes, tanh::tanh_lanes,
};
