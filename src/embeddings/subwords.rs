//! Character n-grams, hashed into buckets (Bojanowski et al. 2017, "Enriching word vectors with
//! subword information", <https://arxiv.org/abs/1607.04606>; agrees with fastText's
//! `dictionary.cc`).
//!
//! The n-grams of `<word>` of `min_n` to `max_n` characters are hashed by FNV-1a into `buckets`
//! rows. The vector of a word is the mean of its own row (if it has one) and the rows of its
//! n-grams, so unseen words have vectors too.

/// The lengths of character n-grams, and the number of rows into which they are hashed.
///
/// # Examples
/// ```
/// use loquat::embeddings::{Ngrams, TrainingText, Word2Vec};
///
/// let sentences = || (0..50).map(|_| ["reading", "books"].map(String::from).to_vec());
/// let ngrams = Ngrams { buckets: 1000, ..Ngrams::default() };
/// let config = Word2Vec::skip_gram().dim(8).negative_samples(1).subsample(0.0).subwords(ngrams);
/// let vectors = config.train(&TrainingText::sentences(sentences))?;
/// assert!(!vectors.contains("reader") && vectors.vector("reader").is_some());
/// # Ok::<(), loquat::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Ngrams {
    /// The length of the shortest n-gram in characters; 0 or above `max_n` for no n-grams.
    pub min_n: usize,
    /// The length of the longest n-gram in characters.
    pub max_n: usize,
    /// The number of rows that n-grams share.
    pub buckets: usize,
}

impl Default for Ngrams {
    /// fastText's defaults: 3 to 6 characters, two million buckets.
    fn default() -> Self {
        Ngrams { min_n: 3, max_n: 6, buckets: 2_000_000 }
    }
}

impl Ngrams {
    /// Calls `f` with each n-gram of `word` and its bucket, in the order of fastText.
    pub(crate) fn for_each(&self, word: &str, mut f: impl FnMut(&str, usize)) {
        if self.buckets == 0 || self.max_n == 0 {
            return;
        }
        let bracketed = format!("<{word}>");
        let size = bracketed.len();
        for (i, _) in bracketed.char_indices() {
            let ends = bracketed[i..].char_indices().skip(1).map(|(j, _)| i + j).chain([size]);
            for (n, end) in (1..=self.max_n).zip(ends) {
                if n >= self.min_n.max(1) && !(n == 1 && (i == 0 || end == size)) {
                    let ngram = &bracketed[i..end];
                    f(ngram, fnv1a(ngram.as_bytes()) as usize % self.buckets);
                }
            }
        }
    }

    /// The buckets of all n-grams of `word`.
    pub(crate) fn buckets_of(&self, word: &str) -> Vec<u32> {
        let mut buckets = Vec::new();
        self.for_each(word, |_, bucket| buckets.push(bucket as u32));
        buckets
    }
}

/// 32-bit FNV-1a as fastText computes it: each byte is extended with its sign.
pub(crate) fn fnv1a(bytes: &[u8]) -> u32 {
    bytes.iter().fold(2_166_136_261, |h: u32, &b| (h ^ b as i8 as u32).wrapping_mul(16_777_619))
}

/// The n-grams of trained vectors, with their rows.
#[derive(Clone, Debug)]
pub(crate) struct Subwords {
    ngrams: Ngrams,
    dim: usize,
    rows: Vec<f32>,
}

impl Subwords {
    /// The caller checks that there are `buckets * dim` numbers.
    pub(crate) fn from_parts(ngrams: Ngrams, dim: usize, rows: Vec<f32>) -> Self {
        assert_eq!(rows.len(), ngrams.buckets * dim, "one row per bucket");
        Subwords { ngrams, dim, rows }
    }

    /// The row of a bucket.
    ///
    /// # Panics
    /// If the bucket is out of range.
    pub(crate) fn row(&self, bucket: usize) -> &[f32] {
        &self.rows[bucket * self.dim..(bucket + 1) * self.dim]
    }

    /// Returns the mean of the rows of the word's n-grams, or `None` for a word without n-grams.
    pub(crate) fn vector(&self, word: &str) -> Option<Vec<f32>> {
        let mut sum = vec![0.0; self.dim];
        let n = self.add_rows(word, &mut sum);
        (n > 0).then(|| {
            sum.iter_mut().for_each(|x| *x *= 1.0 / n as f32);
            sum
        })
    }

    /// Adds the rows of the word's n-grams to `sum` and returns their number.
    pub(crate) fn add_rows(&self, word: &str, sum: &mut [f32]) -> usize {
        let mut n = 0;
        self.ngrams.for_each(word, |_, bucket| {
            sum.iter_mut().zip(self.row(bucket)).for_each(|(s, x)| *s += x);
            n += 1;
        });
        n
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ngrams_are_those_of_the_paper() {
        let mut found = Vec::new();
        Ngrams { min_n: 3, max_n: 3, buckets: 10 }.for_each("where", |ngram, _| found.push(ngram.to_string()));
        assert_eq!(found, ["<wh", "whe", "her", "ere", "re>"]);
    }

    #[test]
    fn ngrams_count_characters_and_leave_out_lone_brackets() {
        let mut found = Vec::new();
        Ngrams { min_n: 1, max_n: 2, buckets: 10 }.for_each("äß", |ngram, _| found.push(ngram.to_string()));
        assert_eq!(found, ["<ä", "ä", "äß", "ß", "ß>"]);
    }

    #[test]
    fn hashes_are_those_of_fasttext() {
        // Computed by fastText, from the tests of gensim.
        assert_eq!(fnv1a("тест".as_bytes()), 1_643_354_476);
        assert_eq!(fnv1a(b"test"), 2_949_673_445);
    }

    #[test]
    fn no_ngrams_no_vector() {
        let none = Ngrams { min_n: 0, max_n: 0, buckets: 5 };
        assert!(none.buckets_of("word").is_empty());
        let subwords = Subwords::from_parts(none, 1, vec![0.0; 5]);
        assert_eq!(subwords.vector("word"), None);
    }
}
