//! word2vec's binary format: a line `words dim`, then for each word its characters, a space and
//! `dim` little-endian `f32`.
//!
//! The original tool ends each row with a line feed, gensim does not; both are read, and the
//! original's format is written.

use std::io::Write;
use std::path::Path;

use super::{Builder, Malformed, ReadOptions, WordVectors, check, header, kind, write_whole};
use crate::mapped::{Load, MappedFile};
use crate::{Error, Result};

impl WordVectors {
    /// Reads word2vec's binary format.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Format`] with the byte offset of the error.
    pub(crate) fn read_word2vec_binary(path: impl AsRef<Path>, options: &ReadOptions) -> Result<Self> {
        read(path.as_ref(), options)
    }

    /// Writes word2vec's binary format.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Argument`] if a word is empty or contains a space or a line feed,
    /// which the format cannot represent.
    pub fn save_word2vec_binary(&self, path: impl AsRef<Path>) -> Result<()> {
        for word in self.words() {
            if word.is_empty() || word.contains([' ', '\n']) {
                return Err(Error::argument(
                    "word",
                    "characters other than space and line feed",
                    format_args!("{word:?}"),
                ));
            }
        }
        write_whole(path.as_ref(), |out| {
            writeln!(out, "{} {}", self.len(), self.dim())?;
            for (i, word) in self.words().enumerate() {
                out.write_all(word.as_bytes())?;
                out.write_all(b" ")?;
                self.row(i).iter().try_for_each(|x| out.write_all(&x.to_le_bytes()))?;
                out.write_all(b"\n")?;
            }
            Ok(())
        })
    }
}

fn read(path: &Path, options: &ReadOptions) -> Result<WordVectors> {
    let file = MappedFile::open(path, Load::Mmap)?;
    let wrong = |byte: usize, reason: String| Error::format(path, format!("byte {byte}: {reason}"));
    check(path, &file)?;
    let line_end = file.iter().take(64).position(|&b| b == b'\n');
    let (n, dim) = line_end
        .and_then(|end| header(&file[..end]))
        .ok_or_else(|| wrong(0, "expected a header `words dimensions`, found something else".into()))?;
    let mut at = line_end.map_or(0, |end| end + 1);
    // A lenient reader would otherwise read characters as numbers.
    if kind::starts_as_text(&file[at..], dim) {
        return Err(wrong(at, "expected a row of word2vec's binary format, found text".into()));
    }
    let row_bytes = dim.checked_mul(4).filter(|&b| b > 0 && b <= file.len());
    let row_bytes = row_bytes
        .ok_or_else(|| wrong(0, format!("expected vectors of 1 to {} numbers, found {dim}", file.len() / 4)))?;
    let mut builder = Builder::new(path, options, dim);
    for row in 0..n {
        if builder.is_full() {
            return builder.finish();
        }
        while file.get(at) == Some(&b'\n') {
            at += 1;
        }
        let word_len = file[at..].iter().position(|&b| b == b' ');
        let numbers = word_len.map(|len| at + len + 1);
        let numbers = match numbers.filter(|&start| file.len() - start >= row_bytes) {
            Some(start) => start,
            None if options.malformed == Malformed::Skip => return builder.finish(),
            None => {
                return Err(wrong(
                    at,
                    format!("expected {n} words, as in the header, found the end of the file in word {row}"),
                ));
            }
        };
        if builder.word(&file[at..numbers - 1], || format!("byte {at}, word {row}"))? {
            let (floats, _) = file[numbers..numbers + row_bytes].as_chunks::<4>();
            builder.rows.extend(floats.iter().map(|b| f32::from_le_bytes(*b)));
        }
        at = numbers + row_bytes;
    }
    if options.malformed == Malformed::Reject && file[at..].iter().any(|b| !b.is_ascii_whitespace()) {
        return Err(wrong(at, format!("expected {n} words, as in the header, found {} more bytes", file.len() - at)));
    }
    builder.finish()
}
