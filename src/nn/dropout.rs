//! Dropout, active only inside [`train_mode`].

use std::cell::RefCell;

use crate::error::Result;
use crate::nn::linear::Linear;
use crate::ops;
use crate::random::Rng;
use crate::tensor::Tensor;

thread_local! {
    static TRAINING: RefCell<Option<Rng>> = const { RefCell::new(None) };
}

/// Runs `f` with dropout enabled. The dropped elements are drawn from `rng`, which is advanced by
/// the draws.
///
/// The mode belongs to the calling thread: layers that `f` calls on other threads run without
/// dropout.
///
/// ```
/// use loquat::{Rng, Tensor, nn::{Dropout, train_mode}};
///
/// let (dropout, x) = (Dropout::new(0.5), Tensor::full(&[64], 1.0));
/// assert_eq!(dropout.forward(&x)?.to_vec(), x.to_vec());
/// let y = train_mode(&mut Rng::seed(1), || dropout.forward(&x))?;
/// assert!(y.data().contains(&0.0));
/// # Ok::<(), loquat::Error>(())
/// ```
pub fn train_mode<R>(rng: &mut Rng, f: impl FnOnce() -> R) -> R {
    struct Restore<'a>(&'a mut Rng, Option<Rng>);
    impl Drop for Restore<'_> {
        fn drop(&mut self) {
            let ours = TRAINING.replace(self.1.take());
            if let Some(ours) = ours {
                *self.0 = ours;
            }
        }
    }
    let outer = TRAINING.replace(Some(rng.clone()));
    let _restore = Restore(rng, outer);
    f()
}

/// Dropout: zeroes elements at random during training, like `torch.nn.Dropout`.
///
/// ```
/// use loquat::{Rng, Tensor, nn::{Dropout, train_mode}};
///
/// let (dropout, x) = (Dropout::new(0.25), Tensor::full(&[1000], 3.0));
/// let y = train_mode(&mut Rng::seed(1), || dropout.forward(&x))?;
/// assert!(y.data().iter().all(|&y| y == 0.0 || y == 4.0)); // the others are divided by 0.75
/// # Ok::<(), loquat::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq)]
pub struct Dropout {
    /// The probability that an element becomes zero, in `[0, 1)`.
    pub p: f32,
}

crate::module!(Dropout {; skip p });

impl std::fmt::Debug for Dropout {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Dropout(p={})", self.p)
    }
}

impl Dropout {
    /// Creates a layer of dropout probability `p`, in `[0, 1)`.
    pub fn new(p: f32) -> Self {
        Self { p }
    }

    /// Applies dropout; outside of [`train_mode`] returns `x` unchanged.
    ///
    /// # Errors
    /// [`Error::Argument`](crate::Error::Argument) if the probability is out of range, in training
    /// only.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        TRAINING.with_borrow_mut(|rng| match rng {
            Some(rng) => ops::dropout(x, self.p, rng),
            None => Ok(x.clone()),
        })
    }

    /// Returns `x + dropout(linear(y))`, in one pass if dropout is inactive.
    pub(crate) fn added(&self, x: &Tensor, linear: &Linear, y: &Tensor) -> Result<Tensor> {
        match self.is_active() {
            true => x.add(&self.forward(&linear.forward(y)?)?),
            false => linear.forward_then(y, None, Some(x)),
        }
    }

    /// Returns whether [`Dropout::forward`] changes its input now.
    fn is_active(&self) -> bool {
        self.p != 0.0 && TRAINING.with_borrow(Option::is_some)
    }

    /// Returns a key for dropout inside a fused operation, or `None` if dropout is inactive.
    pub(crate) fn key(&self) -> Option<u64> {
        if self.p == 0.0 {
            return None;
        }
        TRAINING.with_borrow_mut(|rng| rng.as_mut().map(Rng::next_u64))
    }
}
