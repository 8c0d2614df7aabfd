//! Files of word vectors, one format a file.

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

/// What a reader does with bytes that are not UTF-8, in a word.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum InvalidUtf8 {
    /// The file is refused.
    #[default]
    Reject,
    /// They become U+FFFD. Two words that then are equal count as duplicates.
    Replace,
}

/// What a reader does with a word that was there before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Duplicates {
    /// The file is refused.
    #[default]
    Reject,
    /// The first stays.
    KeepFirst,
}

/// What a reader does with a row of another length, a number that is none, or a header whose count is not the number
/// of rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Malformed {
    /// The file is refused.
    #[default]
    Reject,
    /// The row is left out; the header's count is not believed; a file that ends early ends.
    Skip,
}

/// How strict a reader is, and how much it reads. The default is strict and reads all.
///
/// | format | reading | writing |
/// |---|---|---|
/// | word2vec text, fastText `.vec` | [`WordVectors::open`] | [`WordVectors::save_word2vec_text`] |
/// | GloVe text (no header) | [`WordVectors::open`] | [`WordVectors::save_glove`] |
/// | word2vec binary | [`WordVectors::open`] | [`WordVectors::save_word2vec_binary`] |
/// | fastText `.bin` | [`WordVectors::open`] | – |
/// | NumPy `.npy` with the words beside | [`WordVectors::open_numpy`] (mapped) | [`WordVectors::save_numpy`] |
///
/// Text may start with a byte-order mark of UTF-8, which is passed over. A packed file (gzip, zip,
/// …) and text in UTF-16 are refused by name.
///
/// Readers are strict unless [`ReadOptions`] says otherwise: whatever is not as the format prescribes is an error with
/// its line or byte. Nothing is allocated from a length that a header merely claims. Writers write beside the target
/// and rename, so a file is either the old one or the whole new one.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct ReadOptions {
    /// Words that are not UTF-8.
    pub invalid_utf8: InvalidUtf8,
    /// Words that stand twice.
    pub duplicates: Duplicates,
    /// Rows and headers that are wrong.
    pub malformed: Malformed,
    /// Reads no more than so many words.
    pub limit: Option<usize>,
}

impl ReadOptions {
    /// Takes what can be taken: replaces bytes, keeps the first of duplicates, leaves out wrong rows.
    pub fn lenient() -> Self {
        ReadOptions {
            invalid_utf8: InvalidUtf8::Replace,
            duplicates: Duplicates::KeepFirst,
            malformed: Malformed::Skip,
            limit: None,
        }
    }

    /// Reads no more than `n` words.
    pub fn limit(mut self, n: usize) -> Self {
        self.limit = Some(n);
        self
    }
}

impl WordVectors {
    /// Reads a file of word vectors, strictly, in the format that its name and its first bytes
    /// tell: NumPy (`.npy`, mapped), fastText (its magic number), word2vec text and fastText `.vec`
    /// (a header, and behind it a word and its numbers, or at least text), word2vec binary (a
    /// header, and behind it anything else), else GloVe.
    ///
    /// # Errors
    /// [`Error::Io`], or [`Error::Format`] with the line or byte of what is wrong, or with what the
    /// file is when it holds no vectors as it is, for example a packed one.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::open_with(path, &ReadOptions::default())
    }

    /// The same with options.
    ///
    /// # Errors
    /// As for [`WordVectors::open`].
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

/// The two numbers of a header line, `words dim`.
fn header(line: &[u8]) -> Option<(usize, usize)> {
    let mut fields = std::str::from_utf8(line).ok()?.split_ascii_whitespace();
    let both = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    fields.next().is_none().then_some(both)
}

/// Words and rows as they come in.
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

    /// Adds a word; `place` tells where it stands. `false` if its row is not wanted.
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

/// Writes a file that appears whole or not at all, in large steps.
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

/// The first bytes of an array of NumPy.
const NUMPY: &[u8] = b"\x93NUMPY";

/// Says what a file is that holds no vectors as it is.
fn check(path: &Path, file: &[u8]) -> Result<()> {
    let numpy = "a NumPy array: let its name end in .npy, and have its words beside it";
    let found = crate::signature::no_text(file).or(file.starts_with(NUMPY).then_some(numpy));
    found.map_or(Ok(()), |found| Err(Error::format(path, format!("expected a file of word vectors, found {found}"))))
}

/// The text behind a byte-order mark of UTF-8.
fn without_mark(file: &[u8]) -> &[u8] {
    file.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(file)
}
