//! Evaluation of word vectors: word similarity and analogies, scored as the standard tools do.
//!
//! - *Similarity sets* (WordSim-353, SimLex-999, MEN, …): two words and a human score per line. The
//!   result is Spearman's rank correlation (ties share their mean rank) between scores and cosines,
//!   over the pairs whose words both have a vector, and Pearson's correlation. Agrees with gensim's
//!   `evaluate_word_pairs`.
//! - *Analogy files* (`questions-words.txt`): `: section`, then `a b c d` per line. A question
//!   counts if all four words are in the vocabulary, and is correct if the best word other than
//!   `a`, `b` and `c` is `d`. Agrees with `compute-accuracy` and with gensim's
//!   `evaluate_word_analogies`.
//!
//! Case is ignored by default: of several words that differ only in case, the first, which is the
//! most frequent, is used.

use std::collections::HashMap;
use std::path::Path;

use rayon::prelude::*;

use super::WordVectors;
use super::similarity::{Combine, cosine};
use crate::{Error, Result};

/// Options of [`WordVectors::evaluate`].
///
/// # Examples
/// ```
/// use loquat::WordVectors;
/// use loquat::embeddings::{Evaluation, EvaluationOptions};
/// use ndarray::array;
///
/// let vectors = WordVectors::new(
///     ["king", "queen", "man", "woman"],
///     array![[1.0, 1.0], [1.0, -1.0], [0.2, 1.0], [0.2, -1.0]],
/// )?;
/// let path = std::env::temp_dir().join("loquat-evaluation-doc.txt");
/// std::fs::write(&path, ": royals\nman king woman queen\n")?;
/// let options = EvaluationOptions::default();
/// let Evaluation::Analogies(sections) = vectors.evaluate(&path, &options)? else {
///     panic!("expected analogies");
/// };
/// assert_eq!((sections[0].section.as_str(), sections[0].accuracy()), ("royals", 1.0));
/// # std::fs::remove_file(&path)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct EvaluationOptions {
    /// Whether `Paris` in a question matches `paris` in the vocabulary. Default: true.
    pub ignore_case: bool,
    /// Restricts questions and answers to the first `first_words` words (30 000 is usual for the
    /// original tool, 300 000 for gensim).
    pub first_words: usize,
    /// How analogies are ranked.
    pub combine: Combine,
}

impl Default for EvaluationOptions {
    fn default() -> Self {
        EvaluationOptions { ignore_case: true, first_words: 300_000, combine: Combine::Add }
    }
}

/// The result on a word-similarity set.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SimilarityScore {
    /// Spearman's rank correlation, in [-1, 1]; NaN for fewer than two pairs, or if all scores or
    /// all cosines are equal.
    pub spearman: f64,
    /// Pearson's correlation, in [-1, 1]; NaN in the same cases as [`SimilarityScore::spearman`].
    pub pearson: f64,
    /// The number of scored pairs.
    pub pairs: usize,
    /// The number of pairs left out because a word has no vector.
    pub missing: usize,
}

/// The result on one section of an analogy file, or on all sections.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AnalogyScore {
    /// The name of the section.
    pub section: String,
    /// The number of correct answers.
    pub correct: usize,
    /// The number of scored questions.
    pub questions: usize,
    /// The number of questions left out because a word has no vector.
    pub missing: usize,
}

impl AnalogyScore {
    /// Returns the fraction of correct answers, in [0, 1]; NaN if no question was scored.
    pub fn accuracy(&self) -> f64 {
        self.correct as f64 / self.questions as f64
    }
}

/// The result of [`WordVectors::evaluate`].
#[derive(Clone, Debug, PartialEq)]
pub enum Evaluation {
    /// The result on a word-similarity set.
    Similarity(SimilarityScore),
    /// The results on each section of an analogy file, followed by the total.
    Analogies(Vec<AnalogyScore>),
}

/// The index of each word of the vocabulary, by which questions are looked up.
struct Lookup<'a> {
    vectors: &'a WordVectors,
    first: usize,
    folded: Option<HashMap<String, usize>>,
}

impl<'a> Lookup<'a> {
    fn new(vectors: &'a WordVectors, options: &EvaluationOptions) -> Self {
        let first = options.first_words.min(vectors.len());
        let folded = options.ignore_case.then(|| {
            let mut folded = HashMap::new();
            for (i, word) in vectors.words().take(first).enumerate() {
                folded.entry(word.to_uppercase()).or_insert(i);
            }
            folded
        });
        Lookup { vectors, first, folded }
    }

    fn index(&self, word: &str) -> Option<usize> {
        match &self.folded {
            Some(folded) => folded.get(&word.to_uppercase()).copied(),
            None => self.vectors.index_of(word).filter(|&i| i < self.first),
        }
    }
}

impl WordVectors {
    /// Evaluates the vectors on a file of word similarities or of analogies.
    ///
    /// Similarities are two words and a number per line, separated by tabs, commas or spaces; with
    /// tabs or commas, words may contain spaces (`ice cream`). Lines that start with `#` are
    /// comments, and the first line may be a header. Analogies are four words per line, in sections
    /// (`: name`). A file contains analogies if it starts with a section, or with four words while
    /// none of its first two lines has a number after two words.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be read; [`Error::Format`] with the number of a line that
    /// is neither.
    pub fn evaluate(&self, path: impl AsRef<Path>, options: &EvaluationOptions) -> Result<Evaluation> {
        let path = path.as_ref();
        if has_analogies(&read_text(path)?) {
            self.evaluate_analogies(path, options).map(Evaluation::Analogies)
        } else {
            self.evaluate_similarity(path, options).map(Evaluation::Similarity)
        }
    }

    /// Evaluates the vectors on a file of similarities.
    pub(crate) fn evaluate_similarity(
        &self,
        path: impl AsRef<Path>,
        options: &EvaluationOptions,
    ) -> Result<SimilarityScore> {
        let path = path.as_ref();
        let text = read_text(path)?;
        let lookup = Lookup::new(self, options);
        let (mut human, mut ours, mut missing) = (Vec::new(), Vec::new(), 0);
        for (i, line) in text.lines().enumerate() {
            if line.trim().is_empty() || line.starts_with('#') {
                continue;
            }
            let fields = fields(line);
            let [a, b, score, ..] = fields[..] else {
                return Err(Error::format(path, format!("line {}: expected two words and a number", i + 1)));
            };
            let Some(score) = score.parse::<f64>().ok().filter(|score| score.is_finite()) else {
                if i == 0 && fields.iter().all(|field| field.parse::<f64>().is_err()) {
                    continue; // a header
                }
                let hint = "separate words that contain spaces by tabs";
                return Err(Error::format(
                    path,
                    format!("line {}: expected a number, found `{score}` ({hint})", i + 1),
                ));
            };
            match (lookup.index(a), lookup.index(b)) {
                (Some(a), Some(b)) => {
                    human.push(score);
                    ours.push(cosine(&self.row(a), &self.row(b)));
                }
                _ => missing += 1,
            }
        }
        let spearman = pearson(&ranks(&human), &ranks(&ours));
        Ok(SimilarityScore { spearman, pearson: pearson(&human, &ours), pairs: human.len(), missing })
    }

    /// Evaluates the vectors on a file of analogies, section by section; the last result, `total`,
    /// is the sum.
    pub(crate) fn evaluate_analogies(
        &self,
        path: impl AsRef<Path>,
        options: &EvaluationOptions,
    ) -> Result<Vec<AnalogyScore>> {
        let path = path.as_ref();
        let text = read_text(path)?;
        let lookup = Lookup::new(self, options);
        let mut scores: Vec<AnalogyScore> = Vec::new();
        let mut questions = Vec::new();
        for (i, line) in text.lines().enumerate() {
            if let Some(name) = line.strip_prefix(':') {
                scores.push(AnalogyScore { section: name.trim().into(), ..AnalogyScore::default() });
                continue;
            }
            let words: Vec<&str> = line.split_whitespace().collect();
            if words.is_empty() {
                continue;
            }
            let [a, b, c, d] = words[..] else {
                let reason = format!("line {}: expected four words or `: section`, found {} words", i + 1, words.len());
                return Err(Error::format(path, reason));
            };
            if scores.is_empty() {
                scores.push(AnalogyScore::default());
            }
            let section = scores.len() - 1;
            match [a, b, c, d].map(|w| lookup.index(w)) {
                [Some(a), Some(b), Some(c), Some(d)] => questions.push((section, [a, b, c, d])),
                _ => scores[section].missing += 1,
            }
        }
        let right = self.answer(&questions, lookup.first, options.combine);
        for ((section, _), right) in questions.iter().zip(right) {
            scores[*section].questions += 1;
            scores[*section].correct += usize::from(right);
        }
        let mut total = AnalogyScore { section: "total".into(), ..AnalogyScore::default() };
        for score in &scores {
            total.correct += score.correct;
            total.questions += score.questions;
            total.missing += score.missing;
        }
        scores.push(total);
        Ok(scores)
    }

    /// Whether each question is answered correctly. Questions are processed in blocks: each row is
    /// compared with all words of the block while it is in the cache.
    fn answer(&self, questions: &[(usize, [usize; 4])], first: usize, combine: Combine) -> Vec<bool> {
        const BLOCK: usize = 64;
        let inverse = self.inverse_norms();
        let block = |questions: &[(usize, [usize; 4])]| {
            let unit = |i: usize| self.row(i).iter().map(|x| x * inverse[i]).collect::<Vec<f32>>();
            let units: Vec<[Vec<f32>; 3]> = questions.iter().map(|(_, [a, b, c, _])| [*a, *b, *c].map(unit)).collect();
            let sums: Vec<Vec<f32>> =
                units.iter().map(|[a, b, c]| (0..self.dim).map(|i| b[i] + c[i] - a[i]).collect()).collect();
            let mut best = vec![(usize::MAX, f32::NEG_INFINITY); questions.len()];
            let mut scores = vec![[0.0; 256]; 3];
            for start in (0..first).step_by(256) {
                let n = 256.min(first - start);
                for (q, (_, [a, b, c, _])) in questions.iter().enumerate() {
                    match combine {
                        Combine::Add => {
                            self.dots(&sums[q], start, &mut scores[0][..n]);
                            (0..n).for_each(|i| scores[0][i] *= inverse[start + i]);
                        }
                        Combine::Mul => {
                            for (word, scores) in units[q].iter().zip(&mut scores) {
                                self.dots(word, start, &mut scores[..n]);
                                (0..n).for_each(|i| scores[i] = (1.0 + scores[i] * inverse[start + i]) / 2.0);
                            }
                            (0..n).for_each(|i| {
                                scores[0][i] = scores[1][i] * scores[2][i] / (scores[0][i] + 1e-6);
                            });
                        }
                    }
                    for (i, &s) in scores[0][..n].iter().enumerate() {
                        if s > best[q].1 && ![*a, *b, *c].contains(&(start + i)) {
                            best[q] = (start + i, s);
                        }
                    }
                }
            }
            questions.iter().zip(best).map(|((_, [.., d]), (found, _))| found == *d).collect::<Vec<_>>()
        };
        crate::kernels::parallel::adopt();
        questions.par_chunks(BLOCK).flat_map_iter(block).collect()
    }
}

/// Whether the lines of a file are analogies rather than similarities.
fn has_analogies(text: &str) -> bool {
    let lines = text.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#'));
    let mut lines = lines.take(2).map(|line| (line, fields(line)));
    let Some((first, words)) = lines.next() else { return false };
    let has_score = |fields: &[&str]| fields.iter().skip(2).any(|field| field.parse::<f64>().is_ok());
    let scores = has_score(&words) || lines.next().is_some_and(|(_, second)| has_score(&second));
    first.starts_with(':') || words.len() == 4 && !scores
}

/// Splits a line into fields: at tabs if that gives three or more, otherwise at commas if that
/// does, otherwise at tabs, commas and spaces.
fn fields(line: &str) -> Vec<&str> {
    let split = |at: &[char]| line.split(at).map(str::trim).filter(|field| !field.is_empty()).collect::<Vec<_>>();
    let coarse = [['\t'], [',']].iter().map(|at| split(at)).find(|fields| fields.len() > 2);
    coarse.unwrap_or_else(|| split(&[' ', '\t', ',']))
}

/// Reads a text file, without its byte-order mark.
fn read_text(path: &Path) -> Result<String> {
    let text = std::fs::read_to_string(path).map_err(|e| Error::io(path, e))?;
    Ok(text.strip_prefix('\u{FEFF}').map(String::from).unwrap_or(text))
}

/// Pearson's correlation.
fn pearson(x: &[f64], y: &[f64]) -> f64 {
    let n = x.len() as f64;
    if x.len() < 2 {
        return f64::NAN;
    }
    let (mx, my) = (x.iter().sum::<f64>() / n, y.iter().sum::<f64>() / n);
    let (mut xy, mut xx, mut yy) = (0.0, 0.0, 0.0);
    for (a, b) in x.iter().zip(y) {
        xy += (a - mx) * (b - my);
        xx += (a - mx) * (a - mx);
        yy += (b - my) * (b - my);
    }
    xy / (xx * yy).sqrt()
}

/// The rank of each number, counted from 1; equal numbers share the mean of their ranks.
fn ranks(x: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..x.len()).collect();
    order.sort_by(|&a, &b| x[a].total_cmp(&x[b]));
    let (mut ranks, mut below) = (vec![0.0; x.len()], 0);
    for group in order.chunk_by(|&a, &b| x[a] == x[b]) {
        let mean = below as f64 + (group.len() as f64 + 1.0) / 2.0;
        group.iter().for_each(|&i| ranks[i] = mean);
        below += group.len();
    }
    ranks
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::array;

    #[test]
    fn ranks_of_ties_are_means() {
        assert_eq!(ranks(&[3.0, 1.0, 3.0, 2.0]), [3.5, 1.0, 3.5, 2.0]);
        // scipy.stats.spearmanr([1, 2, 3, 4, 5], [5, 6, 7, 8, 7]).statistic
        let rho = pearson(&ranks(&[1.0, 2.0, 3.0, 4.0, 5.0]), &ranks(&[5.0, 6.0, 7.0, 8.0, 7.0]));
        assert!((rho - 0.820_782_681_668_123_3).abs() < 1e-12);
        assert!(pearson(&[1.0], &[1.0]).is_nan());
    }

    fn vectors() -> WordVectors {
        let matrix = array![[1.0, 0.0, 0.1], [1.0, 1.0, 0.1], [0.0, 0.1, 1.0], [0.0, 1.1, 1.0], [-1.0, -1.0, 0.0]];
        WordVectors::new(["man", "king", "woman", "queen", "tree"], matrix).unwrap()
    }

    #[test]
    fn analogies_are_counted_by_section() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("questions");
        std::fs::write(&path, ": royal\nMan King Woman Queen\nman king woman tree\n: other\nman king boy prince\n")
            .unwrap();
        for combine in [Combine::Add, Combine::Mul] {
            let options = EvaluationOptions { combine, ..EvaluationOptions::default() };
            let scores = vectors().evaluate_analogies(&path, &options).unwrap();
            let counts: Vec<_> =
                scores.iter().map(|s| (s.section.as_str(), s.correct, s.questions, s.missing)).collect();
            assert_eq!(counts, [("royal", 1, 2, 0), ("other", 0, 0, 1), ("total", 1, 2, 1)], "{combine:?}");
        }
        let exact = EvaluationOptions { ignore_case: false, ..EvaluationOptions::default() };
        assert_eq!(vectors().evaluate_analogies(&path, &exact).unwrap()[0].missing, 1);
        std::fs::write(&path, "one two three\n").unwrap();
        let e = vectors().evaluate_analogies(&path, &exact).unwrap_err().to_string();
        assert!(e.contains("line 1: expected four words"), "{e}");
    }

    #[test]
    fn similarity_counts_missing_pairs() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pairs");
        std::fs::write(&path, "man king 9\nman,tree,1\nking\tqueen\t7.5\nman boy 8\n").unwrap();
        let score = vectors().evaluate_similarity(&path, &EvaluationOptions::default()).unwrap();
        assert_eq!((score.pairs, score.missing), (3, 1));
        assert!((score.spearman - 0.5).abs() < 1e-12 || score.spearman == 1.0, "{score:?}");
        std::fs::write(&path, "a b 1\nman king\n").unwrap();
        assert!(vectors().evaluate_similarity(&path, &EvaluationOptions::default()).is_err());
    }

    #[test]
    fn the_kind_of_a_file_follows_from_its_numbers() {
        for (text, analogies) in [
            (": capitals\nAthens Greece Oslo Norway\n", true),
            ("# a comment\n\nman king woman queen\n", true),
            ("man\tking\twoman\tqueen\n", true),
            ("man king 9.5\n", false),
            ("ice cream\tcold\t7.5\n", false),
            ("ice cream,hot dog,7.5\n", false),
            ("tiger cat\t7.35\n", false),
            ("word1\tword2\tPOS\tscore\nold\tnew\tA\t1.58\n", false),
            ("first word second word\nold new 1.58\n", false),
            ("ice cream cold 7.5\n", false),
            ("", false),
        ] {
            assert_eq!(has_analogies(text), analogies, "{text:?}");
        }
    }

    #[test]
    fn words_of_a_pair_may_hold_blanks() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pairs");
        let matrix = array![[1.0, 0.0], [1.0, 0.5], [0.0, 1.0]];
        let vectors = WordVectors::new(["ice cream", "cold", "fire"], matrix).unwrap();
        for text in [
            "ice cream\tcold\t7.5\nice cream\tfire\t1\ncold\tfire\t2\n",
            "\u{FEFF}word 1,word 2,score\nice cream, cold, 7.5\nice cream, fire, 1\ncold, fire, 2\n",
            "word 1\tword 2\tscore\r\nice cream\tcold\t7.5\r\nice cream\tfire\t1\r\ncold\tfire\t2\r\n",
        ] {
            std::fs::write(&path, text).unwrap();
            let score = vectors.evaluate_similarity(&path, &EvaluationOptions::default()).unwrap();
            assert_eq!((score.pairs, score.missing, score.spearman), (3, 0, 1.0), "{text:?}");
            let either = vectors.evaluate(&path, &EvaluationOptions::default()).unwrap();
            assert_eq!(either, Evaluation::Similarity(score), "{text:?}");
        }
        // Not a header: it has a number, after more than two words.
        std::fs::write(&path, "ice cream cold 7.5\ncold fire 2\n").unwrap();
        let e = vectors.evaluate_similarity(&path, &EvaluationOptions::default()).unwrap_err().to_string();
        assert!(
            e.contains("line 1: expected a number, found `cold` (separate words that contain spaces by tabs"),
            "{e}"
        );
    }
}
