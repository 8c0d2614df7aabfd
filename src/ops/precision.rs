//! The precision of matrix products: a setting of the calling thread.

use std::cell::Cell;

pub use crate::kernels::gemm::Precision;

thread_local! {
    static PRECISION: Cell<Precision> = const { Cell::new(Precision::F32) };
}

/// Runs `f` with matrix products in the given precision; everything else stays in f32, and so do
/// the sums inside the products.
///
/// This applies to [`linear`](super::linear()), to [`Tensor::matmul`](crate::Tensor::matmul) with
/// one matrix, to the input products of recurrent layers, and, where no gradient is recorded, to
/// [`Attention`](super::Attention): nearly all of a model's computation. Backward products use the
/// precision in which the forward ones were recorded. On processors without bf16 instructions,
/// [`Precision::Bf16`] computes as [`Precision::F32`].
///
/// The setting belongs to the calling thread.
///
/// ```
/// use loquat::{Rng, Tensor, ops::{Precision, with_precision}};
///
/// let mut rng = Rng::seed(1);
/// let [a, b] = [(); 2].map(|()| Tensor::normal(&[64, 64], 1.0, &mut rng));
/// let exact = a.matmul(&b)?;
/// let rounded = with_precision(Precision::Bf16, || a.matmul(&b))?;
/// let error = exact.sub(&rounded)?.data().iter().fold(0.0, |max: f32, x| max.max(x.abs()));
/// assert!(error < 0.3); // of sums of 64 products
/// # Ok::<(), loquat::Error>(())
/// ```
pub fn with_precision<R>(precision: Precision, f: impl FnOnce() -> R) -> R {
    struct Restore(Precision);
    impl Drop for Restore {
        fn drop(&mut self) {
            PRECISION.set(self.0);
        }
    }
    let _restore = Restore(PRECISION.replace(precision));
    f()
}

/// Returns the current precision of products.
pub(crate) fn precision() -> Precision {
    PRECISION.get()
}
