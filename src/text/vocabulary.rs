//! Word counts and vocabularies.
//!
//! Ids are ordered by decreasing count, then by word, so the same text always gives the same ids.
//!
//! ```
//! use loquat::text::WordCounts;
//!
//! let mut counts = WordCounts::default();
//! for line in ["the cat saw the dog", "the dog ran"] {
//!     counts.add_all(line.split_whitespace());
//! }
//! let vocabulary = counts.vocabulary(2, 1000);
//! assert_eq!(vocabulary.words().collect::<Vec<_>>(), ["the", "dog"]);
//! assert_eq!((vocabulary.id("dog"), vocabulary.count(1)), (Some(1), 2));
//! assert_eq!(vocabulary.id("ran"), None);
//! ```

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use rayon::prelude::*;

use super::Corpus;
use crate::atomic;
use crate::{Error, Result};

/// Counts of the words in a text.
#[derive(Clone, Default)]
pub struct WordCounts {
    counts: HashMap<Arc<str>, u64>,
    total: u64,
    /// Maximum number of different words; 0 means no limit.
    limit: usize,
    /// Words of at most this count are dropped when there are too many.
    floor: u64,
}

impl std::fmt::Debug for WordCounts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "WordCounts({} words, {} in all)", self.counts.len(), self.total)
    }
}

impl WordCounts {
    /// Creates counts of at most `words` different words (plus those of the piece of text being
    /// counted). When there are more, the rarest are dropped: words that occurred once, then twice,
    /// and so on. Use it for vocabularies that do not fit into memory; the counts of rare words are
    /// then too low.
    pub fn limited(words: usize) -> Self {
        WordCounts { limit: words, ..Self::default() }
    }

    /// Counts a word.
    pub fn add(&mut self, word: &str) {
        self.add_n(word, 1);
    }

    /// Counts a word `n` times.
    pub(crate) fn add_n(&mut self, word: &str, n: u64) {
        match self.counts.get_mut(word) {
            Some(count) => *count += n,
            None => {
                self.counts.insert(word.into(), n);
            }
        }
        self.total += n;
    }

    /// Counts words.
    pub fn add_all<S: AsRef<str>>(&mut self, words: impl IntoIterator<Item = S>) {
        words.into_iter().for_each(|word| self.add(word.as_ref()));
        self.shrink();
    }

    /// Counts the words of a corpus, separated by white space, on all threads of the current pool.
    ///
    /// # Errors
    /// Errors of reading the corpus; see [`Corpus::read_to_string`].
    pub fn add_corpus(&mut self, corpus: &Corpus) -> Result<()> {
        self.add_corpus_with(corpus, |line, add| line.split_whitespace().for_each(add))
    }

    /// Counts the words of a corpus, split line by line with `split`, on all threads of the current
    /// pool.
    ///
    /// # Errors
    /// Errors of reading the corpus; see [`Corpus::read_to_string`].
    pub fn add_corpus_with(
        &mut self,
        corpus: &Corpus,
        split: impl Fn(&str, &mut dyn FnMut(&str)) + Sync,
    ) -> Result<()> {
        /// Bytes in memory at once. Limited counts depend on it, so it is a constant.
        const PIECE: usize = 8 << 20;
        crate::kernels::parallel::adopt();
        for piece in corpus.pieces(PIECE) {
            let piece = piece?;
            let lines: Vec<&str> = piece.lines().collect();
            let share = lines.len().div_ceil(4 * rayon::current_num_threads()).max(1);
            let count = |lines: &[&str]| {
                let mut counts = WordCounts::default();
                lines.iter().for_each(|line| split(line, &mut |word| counts.add(word)));
                counts
            };
            for part in lines.par_chunks(share).map(count).collect::<Vec<_>>() {
                part.counts.iter().for_each(|(word, &n)| self.add_n(word, n));
            }
            self.shrink();
        }
        Ok(())
    }

    fn shrink(&mut self) {
        while self.limit > 0 && self.counts.len() > self.limit {
            self.floor += 1;
            self.counts.retain(|_, &mut n| n > self.floor);
        }
    }

    /// Returns the count of a word.
    pub fn get(&self, word: &str) -> u64 {
        self.counts.get(word).copied().unwrap_or(0)
    }

    /// Returns the number of different words.
    pub fn len(&self) -> usize {
        self.counts.len()
    }

    /// Returns whether no word was counted.
    pub fn is_empty(&self) -> bool {
        self.counts.is_empty()
    }

    /// Returns the total number of words.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// Returns a vocabulary of the words with a count of at least `min_count`, at most `max_size`
    /// of them, most frequent first.
    pub fn vocabulary(&self, min_count: u64, max_size: usize) -> Vocabulary {
        let mut words: Vec<(Arc<str>, u64)> =
            self.counts.iter().filter(|&(_, &n)| n >= min_count).map(|(word, &n)| (word.clone(), n)).collect();
        words.par_sort_unstable_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        words.truncate(max_size.min(u32::MAX as usize));
        Vocabulary::from_pairs(words)
    }
}

impl<S: AsRef<str>> FromIterator<S> for WordCounts {
    fn from_iter<I: IntoIterator<Item = S>>(words: I) -> Self {
        let mut counts = WordCounts::default();
        counts.add_all(words);
        counts
    }
}

/// Words with ids and counts. A clone shares the words.
///
/// # Examples
/// ```
/// use loquat::text::Vocabulary;
///
/// let vocabulary = Vocabulary::new([("the", 3), ("cat", 1)])?;
/// assert_eq!(vocabulary.encode("the cat sat".split(' ')), [0, 1]); // `sat` is skipped
/// assert_eq!(vocabulary.word(1), Some("cat"));
/// # Ok::<(), loquat::Error>(())
/// ```
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Vocabulary {
    words: Vec<Arc<str>>,
    counts: Vec<u64>,
    ids: HashMap<Arc<str>, u32>,
}

impl std::fmt::Debug for Vocabulary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Vocabulary({} words)", self.words.len())
    }
}

impl Vocabulary {
    fn from_pairs(pairs: Vec<(Arc<str>, u64)>) -> Self {
        let ids = pairs.iter().zip(0..).map(|((word, _), id)| (word.clone(), id)).collect();
        let (words, counts) = pairs.into_iter().unzip();
        Vocabulary { words, counts, ids }
    }

    /// Creates a vocabulary of words in the given order, with their counts.
    ///
    /// # Errors
    /// [`Error::Argument`] for a word that occurs twice.
    pub fn new<S: AsRef<str>>(words: impl IntoIterator<Item = (S, u64)>) -> Result<Self> {
        let mut vocabulary = Vocabulary::default();
        for (word, count) in words {
            vocabulary.push(word.as_ref(), count)?;
        }
        Ok(vocabulary)
    }

    /// Appends a word and returns its id.
    ///
    /// # Errors
    /// [`Error::Argument`] if the vocabulary has the word already, or no ids are left.
    pub fn push(&mut self, word: &str, count: u64) -> Result<u32> {
        let id = u32::try_from(self.words.len())
            .map_err(|_| Error::argument("vocabulary", "at most 4294967296 words", "one more"))?;
        if self.ids.contains_key(word) {
            return Err(Error::argument("vocabulary", "different words", format!("{word:?} twice")));
        }
        let word: Arc<str> = word.into();
        self.words.push(word.clone());
        self.counts.push(count);
        self.ids.insert(word, id);
        Ok(id)
    }

    /// Adds the counts of more text. Existing words keep their ids; new words with a count of at
    /// least `min_count` are appended, most frequent first.
    pub fn extend(&mut self, counts: &WordCounts, min_count: u64) {
        let new = counts.vocabulary(min_count, usize::MAX);
        for (word, count) in self.words.iter().zip(&mut self.counts) {
            *count += counts.get(word);
        }
        for (word, count) in new.iter() {
            if !self.ids.contains_key(word) {
                let word: Arc<str> = word.into();
                self.ids.insert(word.clone(), self.words.len() as u32);
                self.words.push(word);
                self.counts.push(count);
            }
        }
    }

    /// Returns the number of words.
    pub fn len(&self) -> usize {
        self.words.len()
    }

    /// Returns whether the vocabulary is empty.
    pub fn is_empty(&self) -> bool {
        self.words.is_empty()
    }

    /// Returns the id of a word.
    pub fn id(&self, word: &str) -> Option<u32> {
        self.ids.get(word).copied()
    }

    /// Returns the word with an id.
    pub fn word(&self, id: u32) -> Option<&str> {
        self.words.get(id as usize).map(|word| &**word)
    }

    /// Returns the count of the word with an id; 0 for an unknown id.
    pub fn count(&self, id: u32) -> u64 {
        self.counts.get(id as usize).copied().unwrap_or(0)
    }

    /// Returns the words in the order of their ids.
    pub fn words(&self) -> impl ExactSizeIterator<Item = &str> {
        self.words.iter().map(|word| &**word)
    }

    /// Returns the words with their counts, in the order of their ids.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, u64)> {
        self.words().zip(self.counts.iter().copied())
    }

    /// Returns the ids of words; words that are not in the vocabulary are skipped.
    pub fn encode<'a>(&self, words: impl IntoIterator<Item = &'a str>) -> Vec<u32> {
        words.into_iter().filter_map(|word| self.id(word)).collect()
    }

    /// Saves one line per word: the word, a tab, its count. Tabs, line ends and backslashes in
    /// words are written as `\t`, `\n`, `\r` and `\\`.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be written.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        atomic::write_file(path, |file| {
            self.iter().try_for_each(|(word, count)| writeln!(file, "{}\t{count}", escape(word)))
        })
    }

    /// Opens a file written by [`save`](Vocabulary::save).
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be read, [`Error::Format`] with the line that is not a word
    /// with a count.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let text = Corpus::open(path)?.read_to_string()?;
        let mut vocabulary = Vocabulary::default();
        for (i, line) in text.split_terminator('\n').enumerate() {
            let wrong = |reason: String| Error::format(path, format!("line {}: {reason}", i + 1));
            let (word, count) = line
                .rsplit_once('\t')
                .and_then(|(word, count)| Some((word, count.trim_end_matches('\r').parse().ok()?)))
                .ok_or_else(|| wrong(format!("expected a word, a tab and a count, found {line:?}")))?;
            vocabulary.push(&unescape(word), count).map_err(|e| wrong(e.to_string()))?;
        }
        Ok(vocabulary)
    }
}

fn escape(word: &str) -> String {
    word.replace('\\', "\\\\").replace('\t', "\\t").replace('\n', "\\n").replace('\r', "\\r")
}

fn unescape(word: &str) -> String {
    let mut chars = word.chars();
    let mut plain = String::with_capacity(word.len());
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some('t') => plain.push('\t'),
                Some('n') => plain.push('\n'),
                Some('r') => plain.push('\r'),
                Some(c) => plain.push(c),
                None => plain.push('\\'),
            },
            c => plain.push(c),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_go_by_count_then_by_word() {
        let counts: WordCounts = "b a c a b d d a".split(' ').collect();
        assert_eq!((counts.total(), counts.len(), counts.get("a")), (8, 4, 3));
        let words = |min, max| counts.vocabulary(min, max).words().map(str::to_string).collect::<Vec<_>>();
        assert_eq!(words(0, 9), ["a", "b", "d", "c"]);
        assert_eq!(words(2, 9), ["a", "b", "d"]);
        assert_eq!(words(0, 2), ["a", "b"]);
        assert_eq!(words(9, 9).len(), 0);
        assert_eq!(counts.vocabulary(0, 9).encode(["d", "x", "a"]), [2, 0]);
    }

    #[test]
    fn files_are_counted_the_same_at_any_number_of_threads() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("text");
        let text: String = (0..5000).map(|i| format!("w{} é w{}\n", i % 91, i * i % 17)).collect();
        std::fs::write(&path, &text).unwrap();
        let expected: WordCounts = text.split_whitespace().collect();
        for threads in [1, 3] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let mut counts = WordCounts::default();
            pool.install(|| counts.add_corpus(&Corpus::open(&path).unwrap()).unwrap());
            assert_eq!(counts.vocabulary(0, 1000), expected.vocabulary(0, 1000));
            assert_eq!(counts.total(), expected.total());
        }
    }

    #[test]
    fn limited_counts_forget_the_rarest() {
        let mut counts = WordCounts::limited(3);
        for line in ["a a a b b", "c d e a", "f g b"] {
            counts.add_all(line.split(' '));
        }
        assert!(counts.len() <= 3 && counts.get("a") == 4, "{counts:?}");
        assert_eq!(counts.total(), 12);
    }

    #[test]
    fn more_text_keeps_ids_and_adds_words() {
        let mut vocabulary = "a a b".split(' ').collect::<WordCounts>().vocabulary(1, 9);
        vocabulary.extend(&"c b b c d".split(' ').collect(), 2);
        assert_eq!(vocabulary.iter().collect::<Vec<_>>(), [("a", 2), ("b", 3), ("c", 2)]);
        assert_eq!((vocabulary.id("c"), vocabulary.word(2), vocabulary.word(3)), (Some(2), Some("c"), None));
        assert!(vocabulary.push("a", 1).is_err());
    }

    #[test]
    fn files_come_back_with_any_word() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("vocab.txt");
        let words = [("two words", 7), ("tab\there", 5), ("line\nend\r", 4), ("back\\slash\\n", 3), ("", 2), ("猫", 1)];
        let vocabulary = Vocabulary::new(words).unwrap();
        vocabulary.save(&path).unwrap();
        assert_eq!(Vocabulary::open(&path).unwrap(), vocabulary);
        for (text, expected) in
            [("a\t1\nb", "line 2"), ("a 1\n", "line 1"), ("a\t1\na\t2\n", "line 2"), ("a\t-1\n", "line 1")]
        {
            std::fs::write(&path, text).unwrap();
            let error = Vocabulary::open(&path).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
