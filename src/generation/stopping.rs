//! Stop reasons and cancelling.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Why generation of a text stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StopReason {
    /// The model generated an end token.
    EosToken,
    /// A stop string occurred.
    StopString,
    /// The limit [`GenerationConfig::max_new_tokens`](crate::GenerationConfig::max_new_tokens) was
    /// reached.
    MaxNewTokens,
    /// The context is full ([`Overflow::Stop`](crate::generation::Overflow::Stop)).
    ContextFull,
    /// The constraint allows no further token.
    Complete,
    /// A time limit was reached.
    Deadline,
    /// [`Cancel::cancel`] was called.
    Cancelled,
    /// An error was returned.
    Error,
}

/// A switch that ends generation from another thread. Clones share one state.
///
/// ```
/// use loquat::GenerationConfig;
/// use loquat::generation::Cancel;
///
/// let cancel = Cancel::new();
/// let config = GenerationConfig::default().cancel(&cancel);
/// std::thread::spawn(move || cancel.cancel()).join().expect("the thread ends");
/// assert!(config.cancel.is_some_and(|cancel| cancel.is_cancelled()));
/// ```
#[derive(Clone, Debug, Default)]
pub struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// Creates a switch that is off.
    pub fn new() -> Self {
        Self::default()
    }

    /// Ends every text that uses this switch, before its next token.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Returns whether [`Cancel::cancel`] was called.
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
