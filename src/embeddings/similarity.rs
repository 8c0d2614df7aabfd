//! Nearest words: exact search by cosine similarity, and analogies.
//!
//! A query is compared with every row ([`row_dots`](crate::kernels::row_dots)), in tiles; each
//! thread keeps its best `k`. The time is that of reading the vectors once. Equal scores are
//! ordered by row.
//!
//! With several words, *3CosAdd* (Mikolov et al. 2013, <https://arxiv.org/abs/1301.3781>) ranks by
//! the cosine with the sum of the unit vectors, negative words subtracted. *3CosMul* (Levy and
//! Goldberg 2014, <https://aclanthology.org/W14-1618>) ranks by Π (1 + cos)/2 over positive words,
//! divided by the same over negative words plus 10^-6. Both agree with gensim's `most_similar` and
//! `most_similar_cosmul`.

use ndarray::ArrayView2;
use rayon::prelude::*;

use super::WordVectors;
use super::top_k::TopK;
use crate::{Error, Result};

/// The combination of the words of a query into one ranking.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Combine {
    /// 3CosAdd: the cosine with the sum of unit vectors.
    #[default]
    Add,
    /// 3CosMul: the product of shifted cosines.
    Mul,
}

/// A search for the nearest words, made by [`WordVectors::query`] and run by [`Query::top`].
///
/// # Examples
/// ```
/// use loquat::WordVectors;
/// use loquat::embeddings::Combine;
/// use ndarray::array;
///
/// let vectors = WordVectors::new(
///     ["king", "queen", "man", "woman"],
///     array![[1.0, 1.0], [1.0, -1.0], [0.2, 1.0], [0.2, -1.0]],
/// )?;
/// let query = vectors.query().positive(&["king", "woman"]).negative(&["man"]);
/// assert_eq!(query.combine(Combine::Mul).top(1)?[0].0, "queen");
/// # Ok::<(), loquat::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Query<'a> {
    vectors: &'a WordVectors,
    positive: Vec<&'a str>,
    negative: Vec<&'a str>,
    combine: Combine,
    first: usize,
}

impl<'a> Query<'a> {
    /// Adds words to which the results should be similar.
    pub fn positive(mut self, words: &[&'a str]) -> Self {
        self.positive.extend_from_slice(words);
        self
    }

    /// Adds words to which the results should not be similar.
    pub fn negative(mut self, words: &[&'a str]) -> Self {
        self.negative.extend_from_slice(words);
        self
    }

    /// Sets how the words are combined. Default: [`Combine::Add`].
    pub fn combine(mut self, combine: Combine) -> Self {
        self.combine = combine;
        self
    }

    /// Restricts the search to the first `n` words, the most frequent ones if the words are sorted
    /// by frequency. Default: all words.
    pub fn within_first(mut self, n: usize) -> Self {
        self.first = n;
        self
    }

    /// Returns the `k` best words and their scores, best first, without the words of the query.
    ///
    /// # Errors
    /// [`Error::Argument`] if the query has no words or one of them has no vector.
    pub fn top(&self, k: usize) -> Result<Vec<(&'a str, f32)>> {
        let vectors = self.vectors;
        let unit = |word: &&str| Ok(unit(&vectors.vector_or_error(word)?));
        let positive = self.positive.iter().map(unit).collect::<Result<Vec<_>>>()?;
        let negative = self.negative.iter().map(unit).collect::<Result<Vec<_>>>()?;
        if positive.is_empty() && negative.is_empty() {
            return Err(Error::argument("query", "at least one word", "none"));
        }
        let own: Vec<usize> =
            self.positive.iter().chain(&self.negative).filter_map(|word| vectors.index_of(word)).collect();
        let first = self.first.min(vectors.len());
        let found = match self.combine {
            Combine::Add => {
                let mut sum = vec![0.0; vectors.dim];
                for (sign, units) in [(1.0, &positive), (-1.0, &negative)] {
                    for v in units {
                        sum.iter_mut().zip(v).for_each(|(s, x)| *s += sign * x);
                    }
                }
                let query = crate::embeddings::similarity::unit(&sum);
                search(vectors, first, k, &own, |start, scores, _| cosines(vectors, &query, start, scores))
            }
            Combine::Mul => search(vectors, first, k, &own, |start, scores, scratch| {
                scores.fill(1.0);
                scratch.resize(scores.len(), 0.0);
                for v in &positive {
                    cosines(vectors, v, start, scratch);
                    scores.iter_mut().zip(scratch.iter()).for_each(|(s, c)| *s *= (1.0 + c) / 2.0);
                }
                for v in &negative {
                    cosines(vectors, v, start, scratch);
                    scores.iter_mut().zip(scratch.iter()).for_each(|(s, c)| *s /= (1.0 + c) / 2.0 + 1e-6);
                }
            }),
        };
        Ok(found.into_iter().map(|(i, score)| (vectors.words.get(i), score)).collect())
    }
}

impl WordVectors {
    /// Starts a search for the nearest words.
    pub fn query(&self) -> Query<'_> {
        Query { vectors: self, positive: vec![], negative: vec![], combine: Combine::Add, first: usize::MAX }
    }

    /// Returns the cosine of the angle between the vectors of two words, in [-1, 1]; 0 if one of
    /// them is zero.
    ///
    /// # Errors
    /// [`Error::Argument`] with the name of a word without a vector.
    pub fn similarity(&self, a: &str, b: &str) -> Result<f32> {
        let (a, b) = (self.vector_or_error(a)?, self.vector_or_error(b)?);
        Ok(cosine(&a, &b) as f32)
    }

    /// Returns the `k` words most similar to all of `positive` and least similar to all of
    /// `negative` by 3CosAdd, best first.
    ///
    /// # Errors
    /// [`Error::Argument`] if there are no words or one of them has no vector.
    pub fn most_similar(&self, positive: &[&str], negative: &[&str], k: usize) -> Result<Vec<(&str, f32)>> {
        let found = Query { positive: positive.to_vec(), negative: negative.to_vec(), ..self.query() }.top(k)?;
        Ok(found.into_iter().map(|(word, score)| (self.own(word), score)).collect())
    }

    /// Returns the words `x` for which "`a` is to `b` as `c` is to `x`", by 3CosAdd:
    /// `analogy("man", "king", "woman", 5)` should find "queen".
    ///
    /// # Errors
    /// [`Error::Argument`] with the name of a word without a vector.
    pub fn analogy(&self, a: &str, b: &str, c: &str, k: usize) -> Result<Vec<(&str, f32)>> {
        self.most_similar(&[b, c], &[a], k)
    }

    /// Returns the word whose unit vector is farthest from the mean of all; of equally far ones the
    /// first.
    ///
    /// # Errors
    /// [`Error::Argument`] if there are no words or one of them has no vector.
    pub fn doesnt_match<'w>(&self, words: &[&'w str]) -> Result<&'w str> {
        let units: Vec<_> =
            words.iter().map(|word| Ok(unit(&self.vector_or_error(word)?))).collect::<Result<Vec<_>>>()?;
        let mut mean = vec![0.0; self.dim];
        for v in &units {
            mean.iter_mut().zip(v).for_each(|(m, x)| *m += x);
        }
        let cosines = units.iter().map(|v| cosine(v, &mean));
        let worst = cosines.enumerate().min_by(|a, b| a.1.total_cmp(&b.1));
        worst.map(|(i, _)| words[i]).ok_or_else(|| Error::argument("words", "at least one word", "none"))
    }

    /// Returns the `k` words whose vectors have the largest cosine with `query`, best first.
    ///
    /// # Errors
    /// [`Error::Shape`] if the length of `query` is not that of the vectors.
    pub fn nearest(&self, query: &[f32], k: usize) -> Result<Vec<(&str, f32)>> {
        if query.len() != self.dim {
            return Err(Error::shape("query", format!("[{}]", self.dim), [query.len()]));
        }
        let query = unit(query);
        let found = search(self, self.len(), k, &[], |start, scores, _| cosines(self, &query, start, scores));
        Ok(found.into_iter().map(|(i, score)| (self.words.get(i), score)).collect())
    }

    /// Returns, for each query, the `k` words whose vectors have the largest cosine, best first.
    /// Same as [`WordVectors::nearest`] for many queries at once, reading the vectors once.
    ///
    /// # Shapes
    /// `queries`: `[queries, dim]`.
    ///
    /// # Errors
    /// [`Error::Shape`] if the length of the queries is not that of the vectors.
    pub fn nearest_batch(&self, queries: ArrayView2<'_, f32>, k: usize) -> Result<Vec<Vec<(&str, f32)>>> {
        if queries.ncols() != self.dim {
            return Err(Error::shape("queries", format!("[queries, {}]", self.dim), queries.shape()));
        }
        let units: Vec<Vec<f32>> = queries.rows().into_iter().map(|q| unit(&q.to_vec())).collect();
        let found = super::batch_search::search_batch(self, &units, self.len(), k);
        let named = |best: Vec<(usize, f32)>| best.into_iter().map(|(i, s)| (self.words.get(i), s)).collect();
        Ok(found.into_iter().map(named).collect())
    }

    /// Returns the stored copy of a word that is in the vocabulary.
    fn own(&self, word: &str) -> &str {
        self.words.get(self.index_of(word).expect("search returns words of the vocabulary"))
    }
}

/// Returns `x` scaled to length 1; zeros stay zeros.
pub(crate) fn unit(x: &[f32]) -> Vec<f32> {
    let squares: f64 = x.iter().map(|&v| f64::from(v) * f64::from(v)).sum();
    let inverse = if squares > 0.0 { (1.0 / squares.sqrt()) as f32 } else { 0.0 };
    x.iter().map(|v| v * inverse).collect()
}

/// The cosine of two vectors, 0 if one is zero.
pub(crate) fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let (mut ab, mut aa, mut bb) = (0.0, 0.0, 0.0);
    for (&x, &y) in a.iter().zip(b) {
        let (x, y) = (f64::from(x), f64::from(y));
        ab += x * y;
        aa += x * x;
        bb += y * y;
    }
    if aa > 0.0 && bb > 0.0 { ab / (aa * bb).sqrt() } else { 0.0 }
}

fn cosines(vectors: &WordVectors, unit: &[f32], start: usize, scores: &mut [f32]) {
    vectors.dots(unit, start, scores);
    let inverse = &vectors.inverse_norms()[start..];
    scores.iter_mut().zip(inverse).for_each(|(s, i)| *s *= i);
}

/// The number of rows whose scores are computed together: the scores stay in the first-level cache.
pub(crate) const TILE: usize = 1024;

/// Returns the best `k` of the first `n` rows except `excluded`, by the scores that
/// `score(first row, scores, scratch)` writes.
fn search(
    vectors: &WordVectors,
    n: usize,
    k: usize,
    excluded: &[usize],
    score: impl Fn(usize, &mut [f32], &mut Vec<f32>) + Sync,
) -> Vec<(usize, f32)> {
    vectors.inverse_norms();
    let tiles = n.div_ceil(TILE);
    crate::kernels::parallel::adopt();
    // Many parts, so that threads with slower memory access can process fewer of them.
    let parts = tiles.div_ceil(4).clamp(1, rayon::current_num_threads() * 16);
    let part = |p: usize| {
        let mut best = TopK::new(k);
        let (mut scores, mut scratch) = (vec![0.0; TILE], Vec::new());
        for tile in tiles * p / parts..tiles * (p + 1) / parts {
            let start = tile * TILE;
            let scores = &mut scores[..TILE.min(n - start)];
            score(start, scores, &mut scratch);
            best.offer(start, scores, excluded);
        }
        best
    };
    let best = (0..parts).into_par_iter().map(part).reduce(|| TopK::new(k), TopK::merge);
    best.into_sorted()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::embeddings::Storage;
    use ndarray::{Array2, array};

    fn random(n: usize, dim: usize) -> WordVectors {
        let mut state = 1u64;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / (1 << 23) as f32 - 1.0
        };
        let matrix = Array2::from_shape_fn((n, dim), |_| next());
        WordVectors::new((0..n).map(|i| format!("w{i}")), matrix).unwrap()
    }

    fn naive(v: &WordVectors, query: &[f32], k: usize) -> Vec<(String, f64)> {
        let mut all: Vec<_> =
            (0..v.len()).map(|i| (v.word(i).unwrap().to_string(), cosine(query, &v.row(i)))).collect();
        all.sort_by(|a, b| b.1.total_cmp(&a.1));
        all.truncate(k);
        all
    }

    #[test]
    fn nearest_is_the_naive_search_in_every_storage() {
        let exact = random(5000, 37);
        for storage in [Storage::F32, Storage::F16, Storage::Int8] {
            let v = exact.to_storage(storage).unwrap();
            for k in [0, 1, 10, 6000] {
                let query = v.row(77).into_owned();
                let (found, wanted) = (v.nearest(&query, k).unwrap(), naive(&v, &query, k));
                assert_eq!(found.len(), wanted.len());
                for (f, w) in found.iter().zip(&wanted) {
                    assert!((f64::from(f.1) - w.1).abs() < 1e-5, "{storage:?} {f:?} {w:?}");
                }
                let batch = v.nearest_batch(array![[1.0; 37], [0.5; 37]].view(), k).unwrap();
                assert_eq!(batch.len(), 2);
                for (f, w) in batch[0].iter().zip(v.nearest(&[1.0; 37], k).unwrap()) {
                    assert!((f.1 - w.1).abs() < 1e-5);
                }
            }
        }
    }

    #[test]
    fn analogies_follow_their_formulas() {
        let v = random(300, 20);
        let u = |w: &str| unit(&v.vector(w).unwrap());
        let (a, b, c) = (u("w1"), u("w2"), u("w3"));
        let sum: Vec<f32> = (0..20).map(|i| b[i] + c[i] - a[i]).collect();
        let add = v.analogy("w1", "w2", "w3", 3).unwrap();
        let wanted = naive(&v, &sum, 6);
        let wanted: Vec<_> = wanted.iter().filter(|w| !["w1", "w2", "w3"].contains(&w.0.as_str())).take(3).collect();
        for (f, w) in add.iter().zip(wanted) {
            assert_eq!(f.0, w.0);
        }
        let mul = v.query().positive(&["w2", "w3"]).negative(&["w1"]).combine(Combine::Mul).top(300).unwrap();
        assert_eq!(mul.len(), 297);
        let shifted = |x: &[f32], w: &str| (1.0 + cosine(x, &v.vector(w).unwrap())) / 2.0;
        for (word, score) in mul {
            let wanted = shifted(&b, word) * shifted(&c, word) / (shifted(&a, word) + 1e-6);
            assert!((f64::from(score) - wanted).abs() < 1e-3 * wanted.max(1.0), "{word} {score} {wanted}");
        }
        assert!(v.query().positive(&["w1"]).within_first(10).top(300).unwrap().len() == 9);
    }

    #[test]
    fn the_odd_one_out_is_found() {
        let v = WordVectors::new(["a", "b", "c"], array![[1.0, 0.1], [1.0, 0.0], [0.0, 1.0]]).unwrap();
        assert_eq!(v.doesnt_match(&["a", "c", "b"]).unwrap(), "c");
        assert!(v.doesnt_match(&[]).is_err());
    }

    #[test]
    fn unknown_words_are_named() {
        let e = random(3, 2).most_similar(&["w0", "no"], &[], 1).unwrap_err().to_string();
        assert_eq!(e, "word: expected a word of the vocabulary, found `no`");
        assert!(random(3, 2).most_similar(&[], &[], 1).is_err());
        assert!(random(3, 2).nearest(&[1.0], 1).is_err());
    }

    #[test]
    fn equal_scores_are_ordered_by_row() {
        let v = WordVectors::new(["a", "b", "c", "d"], array![[0.0], [1.0], [1.0], [2.0]]).unwrap();
        let found: Vec<_> = v.nearest(&[1.0], 2).unwrap().into_iter().map(|f| f.0).collect();
        assert_eq!(found, ["b", "c"]);
    }
}
