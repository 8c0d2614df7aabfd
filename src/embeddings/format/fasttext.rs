//! Reading of fastText's `.bin` models: words, their input rows and the rows of character n-grams.
//!
//! Little-endian. The file starts with a magic number and a version (11 or 12); older files have
//! neither and start with the dimension. Then follow the settings, the dictionary (characters up to
//! a zero byte, count, kind: word or label), and the input matrix of `words + buckets` rows. The
//! output matrix after it is not read. Quantised models (`.ftz`) are an error.
//!
//! The vector of a word is the mean of its own row and those of its n-grams, as fastText prints it
//! and writes it to `.vec`.

use std::path::Path;

use super::{Builder, ReadOptions, WordVectors};
use crate::embeddings::subwords::{Ngrams, Subwords};
use crate::mapped::{Load, MappedFile};
use crate::{Error, Result};

const MAGIC: i32 = 793_712_314;

/// Returns whether a file starts like a `.bin` of the newer layout, or of the older one: twelve
/// small settings.
pub(super) fn looks_like(head: &[u8]) -> bool {
    let int = |i: usize| head.get(i * 4..i * 4 + 4).map(|b| i32::from_le_bytes([b[0], b[1], b[2], b[3]]));
    if int(0) == Some(MAGIC) {
        return true;
    }
    // dim, ws, epoch, minCount, neg, wordNgrams, loss (1 to 4), model (1 to 3)
    let small = |i: usize, range: std::ops::RangeInclusive<i32>| int(i).is_some_and(|x| range.contains(&x));
    small(0, 1..=65_535) && small(1, 0..=1000) && small(6, 1..=4) && small(7, 1..=3)
}

impl WordVectors {
    /// Reads a fastText `.bin` model: the vectors of its words, and its character n-grams for
    /// unseen words. [`ReadOptions::limit`] is ignored for this format.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Format`] with the byte offset of the error.
    pub(crate) fn read_fasttext(path: impl AsRef<Path>, options: &ReadOptions) -> Result<Self> {
        let path = path.as_ref();
        let file = MappedFile::open(path, Load::Mmap)?;
        read(path, &file, options)
    }
}

struct Cursor<'a> {
    path: &'a Path,
    file: &'a [u8],
    at: usize,
}

impl Cursor<'_> {
    fn wrong(&self, reason: impl Into<String>) -> Error {
        Error::format(self.path, format!("byte {}: {}", self.at, reason.into()))
    }

    fn take<const N: usize>(&mut self, what: &str) -> Result<[u8; N]> {
        let bytes = self.file.get(self.at..).and_then(|rest| rest.first_chunk::<N>());
        let bytes = *bytes.ok_or_else(|| self.wrong(format!("expected {what}, found the end of the file")))?;
        self.at += N;
        Ok(bytes)
    }

    fn i32(&mut self, what: &str) -> Result<i32> {
        self.take(what).map(i32::from_le_bytes)
    }

    fn i64(&mut self, what: &str) -> Result<i64> {
        self.take(what).map(i64::from_le_bytes)
    }

    /// A number that must not be negative.
    fn size(&mut self, what: &str) -> Result<usize> {
        let n = self.i32(what)?;
        usize::try_from(n).map_err(|_| self.wrong(format!("expected {what} of at least 0, found {n}")))
    }
}

fn read(path: &Path, file: &[u8], options: &ReadOptions) -> Result<WordVectors> {
    let mut c = Cursor { path, file, at: 0 };
    let newer = c.i32("the magic number")? == MAGIC;
    if newer {
        let version = c.i32("the version")?;
        if !(11..=12).contains(&version) {
            return Err(c.wrong(format!("expected version 11 or 12, found {version}")));
        }
    } else {
        c.at = 0;
    }
    let dim = c.size("the dimension")?;
    for what in ["window", "epochs", "minimum count", "negative samples", "word n-grams", "loss", "model"] {
        c.i32(what)?;
    }
    let buckets = c.size("the number of buckets")?;
    let (min_n, max_n) = (c.size("the shortest n-gram")?, c.size("the longest n-gram")?);
    c.i32("the learning rate update interval")?;
    c.take::<8>("the sampling threshold")?;
    if dim == 0 {
        return Err(c.wrong("expected a dimension above 0, found 0"));
    }

    let (size, n_words, n_labels) = (c.size("the size of the dictionary")?, c.size("words")?, c.size("labels")?);
    if n_words.checked_add(n_labels) != Some(size) {
        return Err(c.wrong(format!("expected {size} words and labels, found {n_words} and {n_labels}")));
    }
    c.i64("the number of tokens")?;
    let pruned = if newer { c.i64("the size of the pruned index")? } else { -1 };
    if pruned > 0 {
        return Err(c.wrong("expected a full model, found a pruned one"));
    }
    let mut builder = Builder::new(path, options, dim);
    let (mut counts, mut kept) = (Vec::new(), Vec::new());
    for entry in 0..size {
        let len = file[c.at..].iter().position(|&b| b == 0);
        let len = len.ok_or_else(|| c.wrong(format!("expected the end of word {entry}, found the end of the file")))?;
        let (start, letters) = (c.at, &file[c.at..c.at + len]);
        c.at += len + 1;
        let count = c.i64("the count of a word")?;
        let [kind] = c.take("the kind of a word")?;
        if kind == 0 && builder.word(letters, || format!("byte {start}, word {entry}"))? {
            counts.push(count.max(0) as u64);
            kept.push(entry);
        }
    }
    if newer {
        let [quantised] = c.take("whether the matrix is quantised")?;
        if quantised != 0 {
            return Err(c.wrong("expected a matrix of f32, found a quantised one"));
        }
    }
    let (rows, columns) = (c.i64("the number of rows")?, c.i64("the number of columns")?);
    let bytes = n_words.checked_add(buckets).and_then(|n| n.checked_mul(dim)).and_then(|n| n.checked_mul(4));
    // The file of a model without n-grams may lack the rows of the buckets.
    let without = n_words.checked_mul(dim).and_then(|n| n.checked_mul(4));
    let (bytes, buckets) = match (bytes, without) {
        (Some(b), _) if rows as u64 == (n_words + buckets) as u64 => (b, buckets),
        (_, Some(b)) if rows as u64 == n_words as u64 && (max_n == 0 || buckets == 0) => (b, 0),
        _ => return Err(c.wrong(format!("expected {n_words} + {buckets} rows, found {rows}"))),
    };
    if columns as u64 != dim as u64 {
        return Err(c.wrong(format!("expected {dim} columns, found {columns}")));
    }
    let matrix = file[c.at..].get(..bytes).ok_or_else(|| {
        c.wrong(format!("expected a matrix of {bytes} bytes, found {} to the end of the file", file.len() - c.at))
    })?;
    let float = |i: usize| f32::from_le_bytes([matrix[i * 4], matrix[i * 4 + 1], matrix[i * 4 + 2], matrix[i * 4 + 3]]);

    let ngrams = Ngrams { min_n, max_n, buckets };
    let table: Vec<f32> = (n_words * dim..(n_words + buckets) * dim).map(float).collect();
    let subwords = Subwords::from_parts(ngrams, dim, table);
    for (i, &entry) in kept.iter().enumerate() {
        let mut row: Vec<f32> = (entry * dim..(entry + 1) * dim).map(float).collect();
        // In the newer layout, the end-of-sentence word has no n-grams.
        let word = builder.words.get(i);
        let n = if newer && word == "</s>" { 0 } else { subwords.add_rows(word, &mut row) };
        row.iter_mut().for_each(|x| *x *= 1.0 / (n + 1) as f32);
        builder.rows.extend(row);
    }
    let mut vectors = builder.finish()?;
    vectors.counts = Some(counts);
    vectors.subwords = (max_n > 0 && buckets > 0).then_some(subwords);
    Ok(vectors)
}
