//! Floor 1: slices in, slices out; the only home of `core::arch`.
//!
//! A kernel is a safe function over slices. It checks lengths once, splits the work across threads
//! ([`parallel`]), and enters the instruction set once per chunk ([`simd::dispatch`]). Everything
//! in between is generic over an [`simd::Isa`] token, so the same text runs on AVX-512, AVX2, NEON
//! and plain scalars, and is tested on each.
//!
//! What the floor promises to those above:
//!
//! - the bits of a result depend neither on the number of threads nor on the other rows of the
//!   batch;
//! - on every instruction set with fused multiply–add (all but [`simd::Level::Portable`]) the bits
//!   are the same;
//! - no kernel allocates more than a scratch buffer per thread, and none keeps global state except
//!   the detection of the processor.
//!
//! What it must not know: tensors, gradients' bookkeeping, layers, files, random number generators
//! with state.
//!
//! | module | what it holds |
//! |---|---|
//! | [`parallel`] | work handed to the threads of the caller's pool |
//! | [`attention`] | attention, tiled over keys, forward and backward |
//! | [`blocks`] | numbers of a few bits in blocks, and their way to `f32` |
//! | [`gemm`] | matrix products |
//! | [`adagrad`] | the inner step of GloVe |
//! | `extent` | sizes of shapes and strides, without wrapping |
//! | [`logistic`](mod@logistic) | the inner step of word2vec |
//! | `pages` | memory that is quick to read from end to end |
//! | [`prefetch`](mod@prefetch) | asking the memory for data in advance |
//! | [`row_dots`](mod@row_dots) | one vector against many rows |
//! | [`shared_row`](mod@shared_row) | numbers that several threads add to |
//! | [`simd`] | instruction set tokens, detection, dispatch |
//! | [`vecmath`] | element-wise functions, reductions, softmax, norms, optimizer steps |

#![allow(unsafe_code)]

pub mod adagrad;
pub mod attention;
pub mod blocks;
#[cfg(test)]
mod bounds;
pub(crate) mod extent;
pub mod gemm;
pub mod logistic;
pub(crate) mod pages;
pub mod parallel;
pub mod prefetch;
pub mod row_dots;
pub mod shared_row;
pub mod simd;
pub mod vecmath;
