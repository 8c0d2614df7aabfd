//! What ends a text: reasons, and cancelling.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Why a text ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StopReason {
    /// The model wrote an end token.
    EosToken,
    /// A stop string appeared.
    StopString,
    /// [`GenerationConfig::max_new_tokens`](crate::GenerationConfig::max_new_tokens) were written.
    MaxNewTokens,
    /// The context is full ([`Overflow::Stop`](crate::generation::Overflow::Stop)).
    ContextFull,
    /// The constraint allows no further token.
    Complete,
    /// The time is up.
    Deadline,
    /// [`Cancel::cancel`] was called.
    Cancelled,
    /// An error was given out.
    Error,
}

/// Ends texts from another thread; clones are one switch.
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
    /// A switch that was not thrown.
    pub fn new() -> Self {
        Self::default()
    }

    /// Ends every text that has this switch, before its next token.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether the switch was thrown.
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
