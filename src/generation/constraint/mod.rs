//! Constraints on the tokens that may come next.
//!
//! [`TokenMask`] is the interface. With the feature `constraints`, a `GrammarCompiler` makes masks
//! from regular expressions, JSON schemas and grammars.

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

/// A constraint: determines which tokens may come next, given those generated so far.
///
/// A text ends when [`may_end`](TokenMask::may_end) is true and the model generates an end token,
/// or no other token is allowed. The mask need not allow end tokens; they are forbidden while the
/// text may not end.
///
/// # Examples
/// ```
/// # use loquat::models::{MlpConfig, MlpLm};
/// # let model = MlpLm::init(&MlpConfig::new(13, 6, 8, 3), &mut loquat::Rng::seed(1))?;
/// use loquat::generation::{TokenMask, TokenSet, generate};
/// use loquat::{GenerationConfig, Result};
///
/// /// Only tokens larger than the previous one.
/// #[derive(Clone, Default)]
/// struct Ascending(u32);
///
/// impl TokenMask for Ascending {
///     fn allow(&mut self, allowed: &mut TokenSet) -> Result<()> {
///         allowed.extend(self.0 + 1..13);
///         Ok(())
///     }
///     fn may_end(&mut self) -> bool {
///         true
///     }
///     fn accept(&mut self, id: u32) -> Result<()> {
///         self.0 = id;
///         Ok(())
///     }
/// }
///
/// let config = GenerationConfig::default().constraint(Ascending::default());
/// let ids = generate(&model, &[1], &config)?.collect::<Result<Vec<u32>>>()?;
/// assert!(ids.is_sorted_by(|a, b| a < b));
/// # Ok::<(), loquat::Error>(())
/// ```
pub trait TokenMask: BoxedMask + Send + Sync {
    /// Inserts the tokens that may come next into `allowed`, which is empty.
    ///
    /// # Errors
    /// Any error ends the text.
    fn allow(&mut self, allowed: &mut TokenSet) -> Result<()>;

    /// Returns whether the text may end here.
    fn may_end(&mut self) -> bool;

    /// Updates the state with the token that was generated.
    ///
    /// # Errors
    /// If the token is not allowed.
    fn accept(&mut self, id: u32) -> Result<()>;

    /// Checks the finished text. Called once, when the text ends because it is complete.
    /// Default: no check.
    ///
    /// # Errors
    /// If the text does not match the constraint.
    fn finish(&mut self) -> Result<()> {
        Ok(())
    }
}

/// Cloning of a boxed mask, since every text has a mask of its own. Implemented for every mask that
/// is [`Clone`].
#[doc(hidden)]
pub trait BoxedMask {
    /// Returns a boxed clone.
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
