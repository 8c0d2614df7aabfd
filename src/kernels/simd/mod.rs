//! Vectors of `f32` and `i32` lanes: algorithms are written once and run on every instruction set.
//!
//! An [`Isa`] value is a token that can only be created after the processor was checked, so a
//! function that takes one may use its instructions. An algorithm is a [`SimdOp`], generic over the
//! token; [`dispatch`] calls it inside a function compiled for the best instruction set that the
//! machine has and that the caller allows. A binary built for plain x86-64 is therefore fast by
//! itself.
//!
//! The pattern is that of rten's `rten-simd` and of `pulp`. It needs two rules. Everything that
//! runs inside [`SimdOp::eval`] is `#[inline(always)]`: a function that is not inlined is compiled
//! without the instructions and costs a call per vector. Closures cannot have the attribute; use a
//! struct with a method. And dispatch happens once per chunk of work, never once per row.
//!
//! | file | content |
//! |---|---|
//! | `detect` | detection of the instruction set; [`Level`], [`Features`], lowering |
//! | `isa` | the [`Isa`] trait: the operations of vectors |
//! | `portable`, `sse2`, `avx2`, `avx512`, `neon` | its implementations |
//! | `table` | the macros of their tables |
//!
//! # Examples
//!
//! ```
//! use loquat::kernels::simd::{Isa, SimdOp, dispatch};
//!
//! struct Double<'a>(&'a mut [f32]);
//!
//! impl SimdOp for Double<'_> {
//!     type Output = ();
//!     #[inline(always)]
//!     fn eval<I: Isa>(self, isa: I) {
//!         let mut chunks = self.0.chunks_exact_mut(I::LANES);
//!         for chunk in &mut chunks {
//!             let x = isa.load(chunk);
//!             isa.store(chunk, isa.add(x, x));
//!         }
//!         let tail = chunks.into_remainder();
//!         let x = isa.load_partial(tail);
//!         isa.store_partial(tail, isa.add(x, x));
//!     }
//! }
//!
//! let mut x = vec![1.5; 21];
//! dispatch(Double(&mut x));
//! assert_eq!(x, vec![3.0; 21]);
//! ```

#[macro_use]
mod table;

mod detect;
mod isa;
mod portable;

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "aarch64")]
mod neon;
#[cfg(target_arch = "x86_64")]
mod sse2;

#[cfg(test)]
mod tests;

#[cfg(test)]
pub(crate) use detect::for_each_kernel;
pub use detect::{Features, Level, check_environment, features, for_each_level, level, with_features, with_level};
pub(crate) use detect::{Setting, setting, with_setting};
pub use isa::{Isa, MAX_LANES, SimdOp};
pub use portable::Portable;
/// The token of [`Level::Portable`].
#[cfg(not(target_arch = "x86_64"))]
pub use portable::Portable as Baseline;
/// The token of [`Level::Portable`].
#[cfg(target_arch = "x86_64")]
pub use sse2::Sse2 as Baseline;

#[cfg(target_arch = "x86_64")]
pub use avx2::Avx2;
#[cfg(target_arch = "x86_64")]
pub use avx512::Avx512;
#[cfg(target_arch = "aarch64")]
pub use neon::Neon;

/// Runs `op` with the instructions of the current [`level`].
pub fn dispatch<Op: SimdOp>(op: Op) -> Op::Output {
    match level() {
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => match Avx512::new() {
            Some(isa) => isa.run(op),
            None => Baseline::new().run(op),
        },
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => match Avx2::new() {
            Some(isa) => isa.run(op),
            None => Baseline::new().run(op),
        },
        #[cfg(target_arch = "aarch64")]
        Level::Neon => match Neon::new() {
            Some(isa) => isa.run(op),
            None => Baseline::new().run(op),
        },
        _ => Baseline::new().run(op),
    }
}
