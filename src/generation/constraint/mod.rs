//! Which tokens may come next: text of a given form.
//!
//! [`TokenMask`] is the seam: anything that can say which tokens may follow. With the feature `constraints`, a `GrammarCompiler` makes masks
//! of regular expressions, JSON schemas and grammars.

#[cfg(feature = "constraints")]
mod check;
#[cfg(feature = "constraints")]
mod grammar;
#[cfg(feature = "constraints")]
mod lark;
#[cfg(feature = "constraints")]
mod limits;
#[cfg(feature = "constraints")]
mod pattern;
#[cfg(feature = "constraints")]
mod schema;
#[cfg(feature = "constraints")]
mod shape;
mod token_set;

#[cfg(feature = "constraints")]
pub use grammar::{Grammar, GrammarCompiler};
#[cfg(feature = "constraints")]
pub use limits::GrammarLimits;
pub use token_set::TokenSet;

use crate::error::Result;

/// Says which tokens may come next, given those that were written.
///
/// A text ends when [`may_end`](TokenMask::may_end) and the model writes an end token, or nothing else is allowed. End tokens
/// need not be allowed for that; where the text may not end they are forbidden.
pub trait TokenMask: BoxedMask + Send + Sync {
    /// Inserts the tokens that may come next into `allowed`, which is empty.
    ///
    /// # Errors
    /// Whatever the mask cannot work with.
    fn allow(&mut self, allowed: &mut TokenSet) -> Result<()>;

    /// Whether the text may end here.
    fn may_end(&mut self) -> bool;

    /// Takes note of the token that was written.
    ///
    /// # Errors
    /// A token that was not allowed.
    fn accept(&mut self, id: u32) -> Result<()>;

    /// Holds the finished text against the constraint: called once, where the text ends because it
    /// is whole. Default: nothing to say.
    ///
    /// # Errors
    /// A text that is not what the constraint describes.
    fn finish(&mut self) -> Result<()> {
        Ok(())
    }
}

/// A copy behind a box: every text that is written has a mask of its own. Given to whatever is [`Clone`].
#[doc(hidden)]
pub trait BoxedMask {
    /// The copy.
    fn boxed_clone(&self) -> Box<dyn TokenMask>;
}

impl<M: TokenMask + Clone + 'static> BoxedMask for M {
    fn boxed_clone(&self) -> Box<dyn TokenMask> {
        Box::new(self.clone())
    }
}

impl Clone for Box<dyn TokenMask> {
    fn clone(&self) -> Self {
        (**self).boxed_clone()
    }
}

impl std::fmt::Debug for dyn TokenMask {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TokenMask")
    }
}
