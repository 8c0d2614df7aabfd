//! The error type of the crate, one variant per cause.
//!
//! Messages are lower case, without a full stop. One about a value states what was expected, then
//! what was found, and for which name; one about a missing thing is a sentence that says what to
//! do.

use std::fmt;
use std::path::PathBuf;

/// The result of every fallible function of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// An error of this crate, with the data needed to fix its cause.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// A tensor, slice or array has the wrong shape.
    Shape {
        /// The operation or tensor, by name.
        what: String,
        /// The required shape, or the rule for it.
        expected: String,
        /// The shape that was given.
        found: String,
    },
    /// The shapes of several arguments are incompatible: `cannot broadcast [2, 5] with [3, 5]`.
    Mismatch {
        /// The operation and the shapes, and the reason where it is not obvious.
        action: String,
    },
    /// An id (of a token, a position, a class) is not below its limit.
    Id {
        /// What the id selects, for example a token.
        what: String,
        /// The id that was given.
        id: u64,
        /// The smallest id that is too large.
        limit: usize,
    },
    /// A setting or argument is out of range.
    Argument {
        /// The setting's name.
        name: String,
        /// The values that are allowed.
        expected: String,
        /// The value that was given.
        found: String,
    },
    /// A key of a configuration file is missing, wrong or not supported.
    Config {
        /// The key, as the file spells it.
        key: String,
        /// The values that are allowed.
        expected: String,
        /// The value that was found.
        found: String,
    },
    /// An operation without a backward formula was applied to a tensor that needs gradients.
    NoGradient {
        /// The operation.
        op: &'static str,
    },
    /// A gradient differs from the difference quotient of a gradient check.
    Gradient {
        /// The input, counted from 0.
        input: usize,
        /// The element of the input: its index along each axis.
        element: Vec<usize>,
        /// The difference quotient.
        expected: f64,
        /// How far the gradient may be from it.
        tolerance: f64,
        /// The gradient.
        found: f64,
    },
    /// `backward` was called on a tensor that no gradient can start from.
    Backward {
        /// What `backward` requires.
        expected: &'static str,
        /// What it was given.
        found: String,
    },
    /// The tensors of a checkpoint do not match the model; every bad name is listed.
    Load(Box<LoadReport>),
    /// A tokenizer could not be built, or rejected its input.
    Tokenizer(String),
    /// A chat template is missing or malformed, rejects the conversation, or exceeds its limits.
    Template {
        /// The template's name.
        name: String,
        /// What is wrong.
        reason: String,
    },
    /// The content of a file does not conform to its format.
    Format {
        /// The file.
        path: PathBuf,
        /// What was expected and what was found, with the line or byte.
        reason: String,
    },
    /// The operating system could not read or write a file.
    Io {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// One of several prompts could not be processed.
    Prompt {
        /// The index of the prompt, counted from 0.
        index: usize,
        /// What is wrong with it.
        source: Box<Error>,
    },
    /// A number that must be finite is not, for example a training loss.
    NotFinite {
        /// The quantity.
        what: String,
        /// Its value.
        found: f64,
    },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Shape { what, expected, found } => {
                let (before, before_found) = (shape_before(expected), shape_before_found(expected, found));
                write!(f, "{what}: expected {before}{expected}, found {before_found}{found}")
            }
            Error::Mismatch { action } => write!(f, "cannot {action}"),
            Error::Id { what, id, limit } => write!(f, "{what}: expected an id below {limit}, found {id}"),
            Error::Argument { name, expected, found } => write!(f, "{name}: expected {expected}, found {found}"),
            Error::Config { key, expected, found } => write!(f, "config `{key}`: expected {expected}, found {found}"),
            Error::NoGradient { op } => write!(f, "operation `{op}` has no gradient, but its input needs one"),
            Error::Gradient { input, element, expected, tolerance, found } => {
                let place = format!("gradient of input {input} at {element:?}");
                write!(f, "{place}: expected {expected} within {tolerance}, found {found}")
            }
            Error::Backward { expected, found } => write!(f, "backward: expected {expected}, found {found}"),
            Error::Load(report) => report.fmt(f),
            Error::Tokenizer(reason) => write!(f, "tokenizer: {reason}"),
            Error::Template { name, reason } => write!(f, "chat template `{name}`: {reason}"),
            Error::Format { path, reason } => write!(f, "{}: {reason}", path.display()),
            Error::Io { path, source } => write!(f, "{}: {source}", path.display()),
            Error::Prompt { index, source } => write!(f, "prompt {index} (counted from 0): {source}"),
            Error::NotFinite { what, found } => write!(f, "{what}: expected a finite number, found {found}"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::Io { source, .. } => Some(source),
            Error::Prompt { source, .. } => Some(source),
            _ => None,
        }
    }
}

/// Returns the word before the expected shape; empty if `expected` is a rule in words.
fn shape_before(expected: &str) -> &'static str {
    if expected.starts_with('[') { "shape " } else { "" }
}

/// Returns the word before the shape that was found; empty if "shape" already precedes the expected
/// one.
fn shape_before_found(expected: &str, found: &str) -> &'static str {
    if expected.starts_with('[') { "" } else { shape_before(found) }
}

/// The names in a checkpoint that do not match the model.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LoadReport {
    /// Names that the model needs and the checkpoint lacks.
    pub missing: Vec<String>,
    /// Names that are in the checkpoint but not in the model.
    pub unexpected: Vec<String>,
    /// Names whose shapes differ.
    pub mis_shaped: Vec<MisShaped>,
}

/// A tensor of a checkpoint whose shape differs from the model's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MisShaped {
    /// The tensor's name in the checkpoint.
    pub name: String,
    /// The shape that the model needs.
    pub expected: Vec<usize>,
    /// The shape in the checkpoint.
    pub found: Vec<usize>,
}

impl LoadReport {
    /// Returns whether every name was found with its shape and none was unexpected.
    pub fn is_clean(&self) -> bool {
        self.missing.is_empty() && self.unexpected.is_empty() && self.mis_shaped.is_empty()
    }
}

impl std::fmt::Display for LoadReport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "checkpoint does not fit the model: {} missing, {} unexpected, {} mis-shaped",
            self.missing.len(),
            self.unexpected.len(),
            self.mis_shaped.len()
        )?;
        for m in &self.mis_shaped {
            write!(f, "; tensor `{}`: expected shape {:?}, found {:?}", m.name, m.expected, m.found)?;
        }
        for name in &self.missing {
            write!(f, "; missing `{name}`")?;
        }
        for name in &self.unexpected {
            write!(f, "; unexpected `{name}`")?;
        }
        Ok(())
    }
}

impl Error {
    /// Builds an [`Error::Shape`].
    pub(crate) fn shape(
        what: impl Into<String>,
        expected: impl std::fmt::Display,
        found: impl std::fmt::Debug,
    ) -> Self {
        Error::Shape { what: what.into(), expected: expected.to_string(), found: format!("{found:?}") }
    }

    /// Builds an [`Error::Mismatch`].
    pub(crate) fn mismatch(action: impl Into<String>) -> Self {
        Error::Mismatch { action: action.into() }
    }

    /// Builds an [`Error::Argument`].
    pub(crate) fn argument(
        name: impl Into<String>,
        expected: impl Into<String>,
        found: impl std::fmt::Display,
    ) -> Self {
        Error::Argument { name: name.into(), expected: expected.into(), found: found.to_string() }
    }

    /// Builds an [`Error::Config`].
    pub(crate) fn config(key: impl Into<String>, expected: impl Into<String>, found: impl std::fmt::Display) -> Self {
        Error::Config { key: key.into(), expected: expected.into(), found: found.to_string() }
    }

    /// Returns a function that marks an error as that of prompt `index`.
    pub(crate) fn prompt(index: usize) -> impl FnOnce(Self) -> Self {
        move |source| Error::Prompt { index, source: Box::new(source) }
    }

    /// Builds an [`Error::Format`].
    pub(crate) fn format(path: impl Into<PathBuf>, reason: impl Into<String>) -> Self {
        Error::Format { path: path.into(), reason: reason.into() }
    }

    /// Builds an [`Error::Io`].
    pub(crate) fn io(path: impl Into<PathBuf>, source: std::io::Error) -> Self {
        Error::Io { path: path.into(), source }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_shape_are_sentences() {
        let cases = [
            (Error::shape("linear", "[…, 5]", [2, 3]), "linear: expected shape […, 5], found [2, 3]"),
            (Error::shape("item", "one element", [2, 3]), "item: expected one element, found shape [2, 3]"),
            (Error::mismatch("broadcast [2, 5] with [3, 5]"), "cannot broadcast [2, 5] with [3, 5]"),
        ];
        for (error, expected) in cases {
            assert_eq!(error.to_string(), expected);
        }
    }
}
