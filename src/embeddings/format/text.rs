//! Vectors as text: a word and its numbers per line.
//!
//! *word2vec text* (also fastText's `.vec`) starts with a line `words dim`; *GloVe* has no such
//! line, but some files of that kind have one, so the GloVe reader accepts both. Words may contain
//! spaces, as some in GloVe's 840B file do: the last `dim` fields are the numbers and the text
//! before them is the word.
//!
//! Numbers are written with the fewest digits that read back as the same `f32`.

use std::io::Write;
use std::path::Path;

use super::{Builder, Malformed, ReadOptions, WordVectors, check, header, without_mark, write_whole};
use crate::mapped::{Load, MappedFile};
use crate::{Error, Result};

impl WordVectors {
    /// Reads word2vec's text format or a fastText `.vec` file.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Format`] with the line of the error.
    pub(crate) fn read_word2vec_text(path: impl AsRef<Path>, options: &ReadOptions) -> Result<Self> {
        read(path.as_ref(), options, true)
    }

    /// Reads GloVe's text format, with or without a header line.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Format`] with the line of the error.
    pub(crate) fn read_glove(path: impl AsRef<Path>, options: &ReadOptions) -> Result<Self> {
        read(path.as_ref(), options, false)
    }

    /// Writes word2vec's text format.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Argument`] if a word is empty or contains a line feed.
    pub fn save_word2vec_text(&self, path: impl AsRef<Path>) -> Result<()> {
        write(self, path.as_ref(), true)
    }

    /// Writes GloVe's text format: word2vec's text format without the header line.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Argument`] if a word is empty or contains a line feed.
    pub fn save_glove(&self, path: impl AsRef<Path>) -> Result<()> {
        write(self, path.as_ref(), false)
    }
}

fn read(path: &Path, options: &ReadOptions, needs_header: bool) -> Result<WordVectors> {
    let mapped = MappedFile::open(path, Load::Mmap)?;
    check(path, &mapped)?;
    let file = without_mark(&mapped);
    let mut lines = file.split(|&b| b == b'\n').enumerate();
    let end = if file.last() == Some(&b'\n') { 1 } else { 0 };
    let n_lines = lines.clone().count() - end;
    let first = file.split(|&b| b == b'\n').next().unwrap_or_default();
    let (claimed, dim) = match header(first) {
        Some((n, dim)) => {
            lines.next();
            (Some(n), dim)
        }
        None if needs_header => {
            return Err(Error::format(path, "line 1: expected a header `words dimensions`, found something else"));
        }
        None => (None, fields(first).len().saturating_sub(1)),
    };
    if dim == 0 {
        return Err(Error::format(path, "line 1: expected vectors of at least one number, found none"));
    }
    let mut builder = Builder::new(path, options, dim);
    let mut n_rows = 0;
    for (i, line) in lines.take_while(|(i, _)| *i < n_lines) {
        if builder.is_full() {
            return builder.finish();
        }
        n_rows += 1;
        let place = || format!("line {}", i + 1);
        let before = builder.rows.len();
        let wanted = match row(line, dim, &mut builder.rows) {
            Ok(word) => builder.word(word, place)?,
            Err(reason) if options.malformed == Malformed::Reject => {
                return Err(Error::format(path, format!("{}: {reason}", place())));
            }
            Err(_) => false,
        };
        if !wanted {
            builder.rows.truncate(before);
        }
    }
    if builder.words.len() == 0 && n_rows > 0 {
        let reason = format!("expected rows of a word and {dim} numbers, found none in {n_rows} lines");
        return Err(Error::format(path, reason));
    }
    match claimed {
        Some(n) if n != n_rows && options.malformed == Malformed::Reject => {
            Err(Error::format(path, format!("line 1: expected {n} words, as in the header, found {n_rows}")))
        }
        _ => builder.finish(),
    }
}

/// Splits a line at white space.
fn fields(line: &[u8]) -> Vec<&[u8]> {
    line.split(|&b| b == b' ' || b == b'\t').filter(|f| !f.is_empty()).collect()
}

/// Returns the word of a line and appends its `dim` numbers to `rows`. After an error, some of the
/// numbers may have been appended.
pub(super) fn row<'l>(line: &'l [u8], dim: usize, rows: &mut Vec<f32>) -> std::result::Result<&'l [u8], String> {
    let (word, numbers) = split(line.strip_suffix(b"\r").unwrap_or(line), dim)?;
    for field in numbers {
        let number = field.parse().ok().filter(|number: &f32| number.is_finite());
        rows.push(number.ok_or_else(|| format!("expected a finite number, found `{field}`"))?);
    }
    Ok(word)
}

/// Splits a line into its word and the fields of its `dim` numbers.
fn split(line: &[u8], dim: usize) -> std::result::Result<(&[u8], Vec<&str>), String> {
    // A header may claim any `dim`; a line has no more fields than bytes.
    let mut numbers = Vec::with_capacity(dim.min(line.len()));
    let mut rest = line;
    while numbers.len() < dim {
        rest = rest.trim_ascii_end();
        let start = rest.iter().rposition(|&b| b == b' ' || b == b'\t').map_or(0, |i| i + 1);
        if start == 0 || rest.is_empty() {
            return Err(format!("expected a word and {dim} numbers, found {} fields", fields(line).len()));
        }
        numbers.push(std::str::from_utf8(&rest[start..]).map_err(|_| "expected a number, found bytes".to_string())?);
        rest = &rest[..start - 1];
    }
    numbers.reverse();
    // One space separates word and numbers; further spaces before it are ignored, unless the word
    // consists of spaces.
    let word = rest.strip_suffix(b" ").unwrap_or(rest);
    if word.is_empty() {
        return Err("expected a word, found an empty one".into());
    }
    // A word may contain spaces, but one that ends in a number is a row with too many numbers.
    let last = fields(word).pop().filter(|f| f.len() < word.len());
    if last.and_then(|f| std::str::from_utf8(f).ok()).is_some_and(|f| f.parse::<f32>().is_ok()) {
        return Err(format!("expected a word and {dim} numbers, found {} fields", fields(line).len()));
    }
    Ok((word, numbers))
}

fn write(vectors: &WordVectors, path: &Path, with_header: bool) -> Result<()> {
    for word in vectors.words() {
        if word.is_empty() || word.contains('\n') {
            return Err(Error::argument("word", "characters other than line feed", format_args!("{word:?}")));
        }
    }
    write_whole(path, |out| {
        if with_header {
            writeln!(out, "{} {}", vectors.len(), vectors.dim())?;
        }
        for (i, word) in vectors.words().enumerate() {
            out.write_all(word.as_bytes())?;
            for x in vectors.row(i).iter() {
                write!(out, " {x}")?;
            }
            out.write_all(b"\n")?;
        }
        Ok(())
    })
}
