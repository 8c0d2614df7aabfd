//! What can go wrong, by cause.
//!
//! Every message is lower case, without a full stop, says what was expected, then what was found, and for which name.

use std::fmt;
use std::path::PathBuf;

/// What every fallible function of this crate returns.
pub type Result<T> = std::result::Result<T, Error>;

/// An error, by cause, with the data that is needed to mend it.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// A tensor, slice or array has the wrong shape.
    Shape {
        /// The operation or tensor, by name.
        what: String,
        /// The shape, or the rule for it, that was needed.
        expected: String,
        /// The shape that was given.
        found: String,
    },
    /// Shapes do not go together in an operation: `cannot broadcast [2, 5] with [3, 5]`.
    Mismatch {
        /// What was to be done with which shapes, and why that is impossible where it does not
        /// show.
        action: String,
    },
    /// An id (of a token, a position, a class) is not below its limit.
    Id {
        /// What the id selects.
        what: String,
        /// The id that was given.
        id: u64,
        /// The first id that is too large.
        limit: usize,
    },
    /// A setting or argument is outside what it may be.
    Argument {
        /// The setting's name.
        name: String,
        /// The values that it may have.
        expected: String,
        /// The value that was given.
        found: String,
    },
    /// A key of a configuration file is missing, wrong or not supported.
    Config {
        /// The key, as the file spells it.
        key: String,
        /// The values that it may have.
        expected: String,
        /// The value that was found.
        found: String,
    },
    /// An operation without a backward formula was applied to a tensor that needs gradients.
    NoGradient {
        /// The operation.
        op: &'static str,
    },
    /// `backward` was called on a tensor that no gradient can start from.
    Backward {
        /// What `backward` needs.
        expected: &'static str,
        /// What it was given.
        found: String,
    },
    /// Tensors of a checkpoint do not fit the model; every bad name is listed.
    Load(Box<LoadReport>),
    /// A tokenizer could not be built, or refused its input.
    Tokenizer(String),
    /// A chat template is none, refuses the conversation, or uses more than it may.
    Template {
        /// The template's name.
        name: String,
        /// What is wrong.
        reason: String,
    },
    /// A file's content is not what its format prescribes.
    Format {
        /// The file.
        path: PathBuf,
        /// What was expected and found, with the line or byte.
        reason: String,
    },
    /// The operating system refused to read or write a file.
    Io {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// One of several prompts could not be continued.
    Prompt {
        /// The prompt's place.
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

/// The word before a shape that was needed; none before a rule in words.
fn shape_before(expected: &str) -> &'static str {
    if expected.starts_with('[') { "shape " } else { "" }
}

/// The word before the shape that was given, if it does not stand before the other one.
fn shape_before_found(expected: &str, found: &str) -> &'static str {
    if expected.starts_with('[') { "" } else { shape_before(found) }
}

/// Every name of a checkpoint that did not fit the model.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LoadReport {
    /// Names that the model needs and the checkpoint lacks.
    pub missing: Vec<String>,
    /// Names that the checkpoint has and the model does not know.
    pub unexpected: Vec<String>,
    /// Names whose shapes differ.
    pub mis_shaped: Vec<MisShaped>,
}

/// A tensor of a checkpoint whose shape is not the model's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MisShaped {
    /// The tensor's name in the checkpoint.
    pub name: String,
    /// The shape that the model needs.
    pub expected: Vec<usize>,
    /// The shape that the checkpoint holds.
    pub found: Vec<usize>,
}

impl LoadReport {
    /// Whether every name was found with its shape and none was left over.
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
    /// An [`Error::Shape`] from anything that prints.
    pub(crate) fn shape(
        what: impl Into<String>,
        expected: impl std::fmt::Display,
        found: impl std::fmt::Debug,
    ) -> Self {
        Error::Shape { what: what.into(), expected: expected.to_string(), found: format!("{found:?}") }
    }

    /// An [`Error::Mismatch`].
    pub(crate) fn mismatch(action: impl Into<String>) -> Self {
        Error::Mismatch { action: action.into() }
    }

    /// An [`Error::Argument`] from anything that prints.
    pub(crate) fn argument(
        name: impl Into<String>,
        expected: impl Into<String>,
        found: impl std::fmt::Display,
    ) -> Self {
        Error::Argument { name: name.into(), expected: expected.into(), found: found.to_string() }
    }

    /// An [`Error::Config`] from anything that prints.
    pub(crate) fn config(key: impl Into<String>, expected: impl Into<String>, found: impl std::fmt::Display) -> Self {
        Error::Config { key: key.into(), expected: expected.into(), found: found.to_string() }
    }

    /// The error of one of several prompts.
    pub(crate) fn prompt(index: usize) -> impl FnOnce(Self) -> Self {
        move |source| Error::Prompt { index, source: Box::new(source) }
    }

    /// An [`Error::Format`] about a file.
    pub(crate) fn format(path: impl Into<PathBuf>, reason: impl Into<String>) -> Self {
        Error::Format { path: path.into(), reason: reason.into() }
    }

    /// An [`Error::Io`] about a file.
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
