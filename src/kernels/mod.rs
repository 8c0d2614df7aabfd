//! Computational kernels: functions from slices to slices, and the only code that uses
//! `core::arch`.
//!
//! A kernel is a safe function over slices. It checks lengths once, splits the work across threads
//! ([`parallel`]), and enters the instruction set once per chunk ([`simd::dispatch`]). Everything
//! in between is generic over an [`simd::Isa`] token, so the same code runs on AVX-512, AVX2, NEON
//! and plain scalars, and is tested on each.
//!
//! Guarantees:
//!
//! - the bits of a result depend neither on the number of threads nor on the other rows of the
//!   batch;
//! - on every instruction set with fused multiply–add (all but [`simd::Level::Portable`]) the bits
//!   are the same;
//! - no kernel allocates more than a scratch buffer per thread, and none has global state except
//!   for the detection of the processor.
//!
//!
//! | module | content |
//! |---|---|
//! | [`parallel`] | distribution of work over the threads of the caller's pool |
//! | [`attention`] | attention, tiled over keys, forward and backward |
//! | [`blocks`] | block-quantised numbers, and their conversion to `f32` |
//! | [`gemm`] | matrix products |
//! | [`adagrad`] | the inner step of GloVe |
//! | `extent` | sizes of shapes and strides, with overflow checks |
//! | [`logistic`](mod@logistic) | the inner step of word2vec |
//! | `pages` | memory of large pages |
//! | [`prefetch`](mod@prefetch) | prefetching |
//! | [`row_dots`](mod@row_dots) | products of one vector with many rows |
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
