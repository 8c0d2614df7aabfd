//! File formats of word vectors, one per file.

mod binary;
mod fasttext;
mod kind;
mod numpy;
mod text;

pub use numpy::save_npy;

use std::io::{BufWriter, Write};
use std::path::Path;

use kind::Kind;

use super::WordVectors;
use super::words::Words;
use crate::atomic::write_file;
use crate::mapped::{Load, MappedFile};
use crate::{Error, Result};

/// The handling, by a reader, of words that are not UTF-8.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum InvalidUtf8 {
    /// Returns an error. This is the default.
    #[default]
    Reject,
    /// Replaces invalid bytes by U+FFFD. Words that are then equal are duplicates.
    Replace,
}

/// The handling, by a reader, of duplicate words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Duplicates {
    /// Returns an error. This is the default.
    #[default]
    Reject,
    /// Keeps the first row of the word.
    KeepFirst,
}

/// The handling, by a reader, of rows of wrong length, invalid numbers, and headers whose count is
/// not the number of rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Malformed {
    /// Returns an error. This is the default.
    #[default]
    Reject,
    /// Skips the row, ignores the count of the header, and accepts a file that ends early.
    Skip,
}

/// Options of readers of word vectors: strictness and the number of words. The default is strict
/// and reads all words.
///
/// | format | reading | writing |
/// |---|---|---|
/// | word2vec text, fastText `.vec` | [`WordVectors::open`] | [`WordVectors::save_word2vec_text`] |
/// | GloVe text (no header) | [`WordVectors::open`] | [`WordVectors::save_glove`] |
/// | word2vec binary | [`WordVectors::open`] | [`WordVectors::save_word2vec_binary`] |
/// | fastText `.bin` | [`WordVectors::open`] | – |
/// | NumPy `.npy` and a list of words | [`WordVectors::open_numpy`] (mapped) | [`WordVectors::save_numpy`] |
///
/// A UTF-8 byte-order mark is skipped. Compressed files (gzip, zip, …) and text in UTF-16 are
/// errors that name the format.
///
/// Readers are strict by default: anything that violates the format is an error with its line or
/// byte offset. No memory is allocated from a length that only a header claims. Writers replace a
/// file atomically.
///
/// # Examples
/// ```
/// use loquat::WordVectors;
/// use loquat::embeddings::ReadOptions;
///
/// let path = std::env::temp_dir().join("loquat-read-options-doc.txt");
/// std::fs::write(&path, "cat 1 2\ndog 3\ncow 4 5\n")?; // the row of `dog` is too short
/// assert!(WordVectors::open(&path).is_err());
/// let vectors = WordVectors::open_with(&path, &ReadOptions::lenient())?;
/// assert_eq!(vectors.words().collect::<Vec<_>>(), ["cat", "cow"]);
/// # std::fs::remove_file(&path)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct ReadOptions {
    /// What to do with words that are not UTF-8.
    pub invalid_utf8: InvalidUtf8,
    /// What to do with duplicate words.
    pub duplicates: Duplicates,
    /// What to do with malformed rows and headers.
    pub malformed: Malformed,
    /// The largest number of words to read. Default: all.
    pub limit: Option<usize>,
}

impl ReadOptions {
    /// Returns options that read as much as possible: invalid bytes are replaced, the first of
    /// duplicates is kept, malformed rows are skipped.
    pub fn lenient() -> Self {
        ReadOptions {
            invalid_utf8: InvalidUtf8::Replace,
            duplicates: Duplicates::KeepFirst,
            malformed: Malformed::Skip,
            limit: None,
        }
    }

    /// Sets the largest number of words to read.
    pub fn limit(mut self, n: usize) -> Self {
        self.limit = Some(n);
        self
    }
}

impl WordVectors {
    /// Reads a file of word vectors. Strict; the format is detected from the name and the content:
    /// NumPy (`.npy`, mapped), fastText (its magic number), word2vec text and fastText `.vec` (a
    /// header followed by text), word2vec binary (a header followed by anything else), otherwise
    /// GloVe.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Format`] with the line or byte offset of the error, or with the
    /// detected format if the file must be converted first (for example, a compressed file).
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::open_with(path, &ReadOptions::default())
    }

    /// Same as [`WordVectors::open`], with options.
    ///
    /// # Errors
    /// Same as [`WordVectors::open`].
    pub fn open_with(path: impl AsRef<Path>, options: &ReadOptions) -> Result<Self> {
        let path = path.as_ref();
        if path.extension().is_some_and(|e| e == "npy") {
            return Self::open_numpy(path);
        }
        let file = MappedFile::open(path, Load::Mmap)?;
        check(path, &file)?;
        match kind::of(&file) {
            Kind::FastText => Self::read_fasttext(path, options),
            Kind::Word2VecText => Self::read_word2vec_text(path, options),
            Kind::Word2VecBinary => Self::read_word2vec_binary(path, options),
            Kind::Glove => Self::read_glove(path, options),
        }
    }
}

/// Parses a header line, `words dim`.
fn header(line: &[u8]) -> Option<(usize, usize)> {
    let mut fields = std::str::from_utf8(line).ok()?.split_ascii_whitespace();
    let both = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    fields.next().is_none().then_some(both)
}

/// Collects words and rows while a file is read.
struct Builder<'a> {
    path: &'a Path,
    options: &'a ReadOptions,
    words: Words,
    rows: Vec<f32>,
    dim: usize,
}

impl<'a> Builder<'a> {
    fn new(path: &'a Path, options: &'a ReadOptions, dim: usize) -> Self {
        Builder { path, options, words: Words::default(), rows: Vec::new(), dim }
    }

    /// Whether the limit is reached.
    fn is_full(&self) -> bool {
        self.options.limit.is_some_and(|limit| self.words.len() >= limit)
    }

    /// Adds a word; `place` describes its position. Returns false if its row is to be skipped.
    fn word(&mut self, bytes: &[u8], place: impl Fn() -> String) -> Result<bool> {
        let word = match (std::str::from_utf8(bytes), self.options.invalid_utf8) {
            (Ok(word), _) => word.into(),
            (Err(_), InvalidUtf8::Replace) => String::from_utf8_lossy(bytes),
            (Err(e), InvalidUtf8::Reject) => {
                let found = bytes[e.valid_up_to()];
                return Err(Error::format(
                    self.path,
                    format!("{}: expected a word in UTF-8, found byte 0x{found:02X}", place()),
                ));
            }
        };
        let (first, new) = self.words.insert(&word);
        if !new && self.options.duplicates == Duplicates::Reject {
            let reason = format!("{}: expected each word once, found `{word}` again (it is row {first})", place());
            return Err(Error::format(self.path, reason));
        }
        Ok(new)
    }

    fn finish(self) -> Result<WordVectors> {
        if self.dim == 0 {
            return Err(Error::format(self.path, "expected vectors of at least one number, found none"));
        }
        WordVectors::from_parts(self.words, self.dim, super::word_vectors::Rows::F32(self.rows), None)
    }
}

/// Writes a file atomically, through a buffer.
pub(crate) fn write_whole(
    path: &Path,
    write: impl FnOnce(&mut BufWriter<&mut dyn Write>) -> std::io::Result<()>,
) -> Result<()> {
    write_file(path, |file| {
        let mut out = BufWriter::with_capacity(1 << 20, file);
        write(&mut out)?;
        out.flush()
    })
}

#[cfg(test)]
mod tests;

/// The first bytes of a NumPy array.
const NUMPY: &[u8] = b"\x93NUMPY";

/// Returns an error if the file is in a format that must be converted first.
fn check(path: &Path, file: &[u8]) -> Result<()> {
    let numpy = "a NumPy array: rename it to end in .npy, with its words in .words.txt";
    let found = crate::signature::no_text(file).or(file.starts_with(NUMPY).then_some(numpy));
    found.map_or(Ok(()), |found| Err(Error::format(path, format!("expected a file of word vectors, found {found}"))))
}

/// The text after a UTF-8 byte-order mark.
fn without_mark(file: &[u8]) -> &[u8] {
    file.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(file)
}
