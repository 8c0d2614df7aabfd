//! Word vectors: the words and their rows.

use std::borrow::Cow;
use std::sync::{Arc, OnceLock};

use half::f16;
use ndarray::{Array2, ArrayView2};

use super::subwords::Subwords;
use super::words::Words;
use crate::kernels::row_dots::row_dots;
use crate::mapped::MappedFile;
use crate::{Error, Result};

/// Words and their vectors, one row per word, most frequent first if the source orders them so.
///
/// Rows are stored as `f32`, `f16`, or `i8` with a scale per row, or are the pages of a mapped
/// file. Lookups and searches work on all of them and are exact for the stored numbers. The vectors
/// are immutable, so threads can share them.
///
/// # Examples
/// ```
/// use loquat::WordVectors;
/// use loquat::ndarray::array;
///
/// let rows = array![[1.0, 0.1], [0.9, 0.2], [-0.2, 1.0]];
/// let vectors = WordVectors::new(["cat", "dog", "car"], rows)?;
/// assert_eq!(vectors.most_similar(&["cat"], &[], 1)?[0].0, "dog");
/// assert!(vectors.similarity("cat", "dog")? > 0.9);
/// assert!(vectors.vector("cow").is_none());
/// # Ok::<(), loquat::Error>(())
/// ```
#[derive(Clone)]
pub struct WordVectors {
    pub(crate) words: Words,
    pub(crate) dim: usize,
    pub(crate) rows: Rows,
    pub(crate) counts: Option<Vec<u64>>,
    pub(crate) subwords: Option<Subwords>,
    /// 1 / length of each row, 0 for rows of zeros; computed by the first search.
    inverse_norms: OnceLock<Vec<f32>>,
}

/// The rows, one after the other.
#[derive(Clone)]
pub(crate) enum Rows {
    F32(Vec<f32>),
    F16(Vec<f16>),
    /// `codes * scale of the row`
    Int8(Vec<i8>, Vec<f32>),
    /// `f32` in a file, from a byte offset that is a multiple of four.
    Mapped(Arc<MappedFile>, usize),
}

/// The storage format of [`WordVectors`].
///
/// # Examples
/// ```
/// use loquat::WordVectors;
/// use loquat::embeddings::Storage;
/// use ndarray::array;
///
/// let vectors = WordVectors::new(["cat", "dog"], array![[1.0, 0.5], [0.3, 0.2]])?;
/// let small = vectors.to_storage(Storage::F16)?;
/// assert_eq!((vectors.storage(), small.storage()), (Storage::F32, Storage::F16));
/// assert!((small.similarity("cat", "dog")? - vectors.similarity("cat", "dog")?).abs() < 1e-3);
/// # Ok::<(), loquat::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Storage {
    /// 4 bytes per number, exact.
    F32,
    /// 2 bytes per number, with a relative error of at most 2^-11.
    F16,
    /// 1 byte per number and 4 per row, with an error of at most 1/254 of the largest magnitude in
    /// the row.
    Int8,
    /// 4 bytes per number, in the pages of a mapped file.
    Mapped,
}

impl WordVectors {
    /// Returns the vectors of `words`, the rows of a matrix.
    ///
    /// # Shapes
    /// `vectors`: `[words, dim]`.
    ///
    /// # Errors
    /// [`Error::Shape`] if the numbers of words and rows differ or `dim` is 0; [`Error::Argument`]
    /// for a duplicate word.
    pub fn new<S: AsRef<str>>(words: impl IntoIterator<Item = S>, vectors: Array2<f32>) -> Result<Self> {
        let (rows, dim) = vectors.dim();
        let vectors = vectors.as_standard_layout().into_owned().into_raw_vec_and_offset().0;
        let words: Words = words.into_iter().collect();
        if words.len() != rows {
            return Err(Error::shape("vectors", format!("[{}, dim]", words.len()), [rows, dim]));
        }
        Self::from_parts(words, dim, Rows::F32(vectors), None)
    }

    pub(crate) fn from_parts(words: Words, dim: usize, rows: Rows, counts: Option<Vec<u64>>) -> Result<Self> {
        if dim == 0 {
            return Err(Error::shape("vectors", "[words, dim] with dim above 0", [words.len(), dim]));
        }
        // The words of mapped vectors are checked by the first lookup, because opening them must
        // not read all words.
        if !matches!(rows, Rows::Mapped(..))
            && let Some((i, j)) = words.duplicate()
        {
            let found = format!("`{}` in rows {i} and {j}", words.get(i));
            return Err(Error::argument("words", "each word once", found));
        }
        Ok(WordVectors { words, dim, rows, counts, subwords: None, inverse_norms: OnceLock::new() })
    }

    /// Returns the number of words.
    pub fn len(&self) -> usize {
        self.words.len()
    }

    /// Returns whether there are no words.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the length of each vector.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// Returns the storage format.
    pub fn storage(&self) -> Storage {
        match self.rows {
            Rows::F32(_) => Storage::F32,
            Rows::F16(_) => Storage::F16,
            Rows::Int8(..) => Storage::Int8,
            Rows::Mapped(..) => Storage::Mapped,
        }
    }

    /// Returns the words in the order of their rows.
    pub fn words(&self) -> impl ExactSizeIterator<Item = &str> + Clone {
        self.words.iter()
    }

    /// Returns the word of row `i`, or `None` if `i` is out of range.
    pub fn word(&self, i: usize) -> Option<&str> {
        (i < self.len()).then(|| self.words.get(i))
    }

    /// Returns the row of a word.
    pub fn index_of(&self, word: &str) -> Option<usize> {
        self.words.index_of(word)
    }

    /// Returns whether the word has a row of its own.
    pub fn contains(&self, word: &str) -> bool {
        self.index_of(word).is_some()
    }

    /// Returns the number of occurrences of the word in the training text, if it is known.
    pub fn count(&self, word: &str) -> Option<u64> {
        Some(self.counts.as_ref()?[self.index_of(word)?])
    }

    /// Returns row `i`.
    ///
    /// # Panics
    /// If `i` is not below [`WordVectors::len`].
    pub fn row(&self, i: usize) -> Cow<'_, [f32]> {
        let range = i * self.dim..(i + 1) * self.dim;
        match &self.rows {
            Rows::F32(rows) => Cow::Borrowed(&rows[range]),
            Rows::F16(rows) => Cow::Owned(rows[range].iter().map(|x| x.to_f32()).collect()),
            Rows::Int8(codes, scales) => Cow::Owned(codes[range].iter().map(|&c| f32::from(c) * scales[i]).collect()),
            Rows::Mapped(file, start) => Cow::Borrowed(&mapped_floats(file, *start, self.len() * self.dim)[range]),
        }
    }

    /// Returns the vector of a word: its row, or the mean of its character n-grams if the vectors
    /// have subwords, or `None`.
    pub fn vector(&self, word: &str) -> Option<Cow<'_, [f32]>> {
        match self.index_of(word) {
            Some(i) => Some(self.row(i)),
            None => self.subwords.as_ref()?.vector(word).map(Cow::Owned),
        }
    }

    /// Same as [`WordVectors::vector`], with an error that names the word.
    pub(crate) fn vector_or_error(&self, word: &str) -> Result<Cow<'_, [f32]>> {
        self.vector(word).ok_or_else(|| Error::argument("word", "a word of the vocabulary", format_args!("`{word}`")))
    }

    /// Returns all vectors as a matrix, `[words, dim]`.
    pub fn to_array(&self) -> Array2<f32> {
        let all: Vec<f32> = (0..self.len()).flat_map(|i| self.row(i).into_owned()).collect();
        Array2::from_shape_vec((self.len(), self.dim), all).expect("every row has `dim` numbers")
    }

    /// Returns a view of all vectors, `[words, dim]`, if they are stored as `f32` in memory or in a
    /// mapped file.
    pub fn view(&self) -> Option<ArrayView2<'_, f32>> {
        let all = self.floats()?;
        Some(ArrayView2::from_shape((self.len(), self.dim), all).expect("every row has `dim` numbers"))
    }

    pub(crate) fn floats(&self) -> Option<&[f32]> {
        match &self.rows {
            Rows::F32(rows) => Some(rows),
            Rows::Mapped(file, start) => Some(mapped_floats(file, *start, self.len() * self.dim)),
            _ => None,
        }
    }

    /// Returns the mean of the words' vectors, weighted by `weight` of each word, or `None` if no
    /// word has a vector. Words without a vector are left out, as in the usual sentence baseline;
    /// weights of `a / (a + frequency)` give "smooth inverse frequency" (Arora et al. 2017).
    pub fn mean<'a>(&self, words: impl IntoIterator<Item = &'a str>, weight: impl Fn(&str) -> f32) -> Option<Vec<f32>> {
        let mut sum = vec![0.0f32; self.dim];
        let mut total = 0.0;
        for word in words {
            if let Some(v) = self.vector(word) {
                let w = weight(word);
                sum.iter_mut().zip(v.iter()).for_each(|(s, x)| *s += w * x);
                total += w;
            }
        }
        (total != 0.0).then(|| {
            sum.iter_mut().for_each(|s| *s /= total);
            sum
        })
    }

    /// Converts the vectors to another storage format. [`Storage::Mapped`] is only returned by
    /// [`WordVectors::open_numpy`].
    ///
    /// # Errors
    /// [`Error::Argument`] for [`Storage::Mapped`].
    pub fn to_storage(&self, storage: Storage) -> Result<Self> {
        let all = || (0..self.len()).flat_map(|i| self.row(i).into_owned());
        let rows = match storage {
            Storage::F32 => Rows::F32(all().collect()),
            Storage::F16 => Rows::F16(all().map(f16::from_f32).collect()),
            Storage::Int8 => {
                let (mut codes, mut scales) = (Vec::with_capacity(self.len() * self.dim), Vec::new());
                for i in 0..self.len() {
                    let row = self.row(i);
                    let largest = row.iter().fold(0.0f32, |m, x| m.max(x.abs()));
                    let scale = largest / 127.0;
                    codes.extend(row.iter().map(|x| if scale > 0.0 { (x / scale).round() as i8 } else { 0 }));
                    scales.push(scale);
                }
                Rows::Int8(codes, scales)
            }
            Storage::Mapped => return Err(Error::argument("storage", "F32, F16 or Int8", "Mapped")),
        };
        Ok(WordVectors { rows, inverse_norms: OnceLock::new(), ..self.clone() })
    }

    /// Returns the vectors scaled to length 1, as `f32` (rows of zeros stay zero).
    pub fn normalized(&self) -> Self {
        let inverse = self.inverse_norms();
        let all = (0..self.len()).flat_map(|i| self.row(i).iter().map(|x| x * inverse[i]).collect::<Vec<_>>());
        WordVectors { rows: Rows::F32(all.collect()), inverse_norms: OnceLock::new(), ..self.clone() }
    }

    /// The dot products of `x` with rows `first..first + out.len()`.
    pub(crate) fn dots(&self, x: &[f32], first: usize, out: &mut [f32]) {
        let range = first * self.dim..(first + out.len()) * self.dim;
        match &self.rows {
            Rows::F32(rows) => row_dots(x, &rows[range], out),
            Rows::Mapped(file, start) => row_dots(x, &mapped_floats(file, *start, self.len() * self.dim)[range], out),
            Rows::F16(rows) => row_dots(x, &rows[range], out),
            Rows::Int8(codes, scales) => {
                row_dots(x, &codes[range], out);
                out.iter_mut().zip(&scales[first..]).for_each(|(o, s)| *o *= s);
            }
        }
    }

    /// 1 / length of each row, 0 for rows of zeros.
    pub(crate) fn inverse_norms(&self) -> &[f32] {
        self.inverse_norms.get_or_init(|| {
            let inverse = |i: usize| {
                let squares: f64 = self.row(i).iter().map(|&x| f64::from(x) * f64::from(x)).sum();
                if squares > 0.0 { (1.0 / squares.sqrt()) as f32 } else { 0.0 }
            };
            use rayon::prelude::*;
            crate::kernels::parallel::adopt();
            (0..self.len()).into_par_iter().with_min_len(1024).map(inverse).collect()
        })
    }
}

/// The numbers of a mapped file. The reader of the file has checked length and alignment.
fn mapped_floats(file: &MappedFile, start: usize, n: usize) -> &[f32] {
    bytemuck::cast_slice(&file[start..start + n * 4])
}

impl std::fmt::Debug for WordVectors {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let subwords = if self.subwords.is_some() { ", subwords" } else { "" };
        write!(f, "WordVectors({} words, dim={}, {:?}{subwords})", self.len(), self.dim, self.storage())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::array;

    fn three() -> WordVectors {
        WordVectors::new(["a", "b", "c"], array![[3.0, 4.0], [0.0, 0.0], [-1.0, 0.5]]).unwrap()
    }

    #[test]
    fn lookups_find_rows() {
        let v = three();
        assert_eq!((v.len(), v.dim(), v.storage()), (3, 2, Storage::F32));
        assert_eq!(v.vector("c").unwrap().as_ref(), [-1.0, 0.5]);
        assert_eq!(v.word(1), Some("b"));
        assert_eq!(v.word(3), None);
        assert_eq!(v.inverse_norms()[..2], [0.2, 0.0]);
        assert_eq!(v.normalized().row(0).as_ref(), [0.6, 0.8]);
        assert_eq!(v.view().unwrap(), v.to_array());
    }

    #[test]
    fn smaller_storage_stays_within_its_error() {
        let v = three();
        assert_eq!(v.to_storage(Storage::F16).unwrap().to_array(), v.to_array());
        let small = v.to_storage(Storage::Int8).unwrap();
        for (a, b) in small.to_array().iter().zip(v.to_array().iter()) {
            assert!((a - b).abs() <= 4.0 / 254.0 + 1e-6);
        }
        assert_eq!(small.row(1).as_ref(), [0.0, 0.0]);
        assert!(v.to_storage(Storage::Mapped).is_err());
    }

    #[test]
    fn means_leave_out_unknown_words() {
        let v = three();
        assert_eq!(v.mean(["a", "x", "c"], |_| 1.0), Some(vec![1.0, 2.25]));
        assert_eq!(v.mean(["a", "c"], |w| if w == "a" { 3.0 } else { 1.0 }), Some(vec![2.0, 3.125]));
        assert_eq!(v.mean(["x"], |_| 1.0), None);
    }

    #[test]
    fn an_embedding_matrix_reports_missing_tokens() {
        let (matrix, missing) = three().embedding_matrix(["[PAD]", "c", "a"]);
        assert_eq!(matrix, array![[0.0, 0.0], [-1.0, 0.5], [3.0, 4.0]]);
        assert_eq!(missing, [0]);
    }

    #[test]
    fn wrong_parts_are_errors() {
        let e = WordVectors::new(["a", "a"], array![[1.0], [2.0]]).unwrap_err().to_string();
        assert_eq!(e, "words: expected each word once, found `a` in rows 0 and 1");
        assert!(WordVectors::new(["a"], array![[1.0], [2.0]]).is_err());
        assert!(WordVectors::new(["a"], Array2::zeros((1, 0))).is_err());
    }
}
