//! Phrases: words that occur together more often than by chance are joined to one word, `new_york`.
//!
//! A pair scores (count(ab) − min_count) · words / (count(a) · count(b)) and is joined if its score
//! is above a threshold (Mikolov et al. 2013, <https://arxiv.org/abs/1310.4546>, section 4; agrees
//! with the original `word2phrase`). Pairs are joined greedily from left to right. Learning again
//! from the joined text finds phrases of three and four words.

use std::collections::HashMap;
use std::sync::Arc;

use super::phrases::{Pairs, Phrases};
use super::training::text::{Chunk, TrainingText};
use super::training::vocabulary::{Keep, TrainingVocabulary};
use crate::{Error, Result};

/// A builder of [`Phrases`], with the settings by which they are found.
///
/// # Examples
/// ```
/// use loquat::embeddings::{Phrases, TrainingText};
///
/// let text = TrainingText::sentences(|| (0..100).map(|i| {
///     let (a, b) = (format!("a{}", i % 10), format!("b{}", i % 9));
///     vec![a, "new".to_string(), "york".to_string(), b]
/// }));
/// let phrases = Phrases::new().min_count(5).threshold(2.0).learn(&text)?;
/// assert_eq!(phrases.join(["to", "new", "york", "today"]), ["to", "new_york", "today"]);
/// # Ok::<(), loquat::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct PhraseSettings {
    min_count: u64,
    threshold: f64,
    max_pairs: usize,
}

impl Phrases {
    /// Returns a builder with the defaults of the original tool: words and pairs that occur at
    /// least 5 times, a threshold of 100.
    #[allow(clippy::new_ret_no_self)]
    pub fn new() -> PhraseSettings {
        PhraseSettings { min_count: 5, threshold: 100.0, max_pairs: 20_000_000 }
    }
}

impl PhraseSettings {
    /// Sets the smallest count of words and pairs, which is also subtracted from the count of each
    /// pair. Default: 5.
    pub fn min_count(mut self, count: u64) -> Self {
        self.min_count = count;
        self
    }

    /// Sets the score above which pairs are joined; a higher threshold gives fewer phrases.
    /// Default: 100.
    pub fn threshold(mut self, score: f64) -> Self {
        self.threshold = score;
        self
    }

    /// Sets the largest number of pairs that are counted at a time (about 20 bytes each), and the
    /// largest number of words. If there are more, the rarest are dropped.
    pub fn max_pairs(mut self, n: usize) -> Self {
        self.max_pairs = n;
        self
    }

    /// Finds the phrases of a text.
    ///
    /// # Errors
    /// [`Error::Argument`] if `max_pairs` is 0; [`Error::Io`] and [`Error::Format`] from reading
    /// the text.
    pub fn learn(&self, text: &TrainingText<'_>) -> Result<Phrases> {
        if self.max_pairs == 0 {
            return Err(Error::argument("max_pairs", "a number above 0", 0));
        }
        let vocabulary =
            TrainingVocabulary::of(text, Keep { min_count: self.min_count, limit: None, counted: self.max_pairs })?;
        let mut counts: HashMap<(u32, u32), u64> = HashMap::new();
        let (mut before, mut forgotten) = (None, 1);
        let pass = text.pass(1 << 20);
        let mut chunk = Chunk::default();
        while pass.next(&mut chunk)? {
            pass.words(&chunk, |word| {
                let id = word.and_then(|word| vocabulary.words.index_of(word)).map(|id| id as u32);
                if let (Some(a), Some(b)) = (before, id) {
                    *counts.entry((a, b)).or_default() += 1;
                }
                before = id;
            });
            while counts.len() > self.max_pairs {
                counts.retain(|_, count| *count > forgotten);
                forgotten += 1;
            }
        }
        let total = vocabulary.text_words as f64;
        let mut pairs = Pairs { words: vocabulary.words, scores: HashMap::new() };
        for ((a, b), count) in counts.into_iter().filter(|(_, count)| *count >= self.min_count) {
            let both = vocabulary.counts[a as usize] as f64 * vocabulary.counts[b as usize] as f64;
            let score = (count - self.min_count) as f64 / both * total;
            if score > self.threshold {
                pairs.scores.insert((a, b), score);
            }
        }
        Ok(Phrases(Arc::new(pairs)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text() -> TrainingText<'static> {
        TrainingText::sentences(|| {
            (0..300usize).map(|i| {
                let filler = |k: usize| format!("w{}", (i * i * k * k * 31 + i / k) % 41);
                [filler(1), "new".into(), "york".into(), "times".into(), filler(2), filler(3)].to_vec()
            })
        })
    }

    #[test]
    fn two_rounds_join_three_words() {
        let one = Phrases::new().threshold(5.0).learn(&text()).unwrap();
        assert!(one.score("new", "york").is_some() && one.score("york", "new").is_none());
        assert!(one.pairs().iter().all(|p| ["new", "york"].contains(&p.0)), "{:?}", one.pairs());
        assert_eq!(one.join(["a", "new", "york", "times"]), ["a", "new_york", "times"]);
        let rounds = [one.clone()];
        let two = Phrases::new().threshold(3.0).learn(&text().with_phrases(&rounds)).unwrap();
        assert!(two.score("new_york", "times").is_some());
        let rounds = [one, two];
        let all = TrainingVocabulary::of(
            &text().with_phrases(&rounds),
            Keep { min_count: 1, limit: None, counted: Keep::COUNTED },
        )
        .unwrap();
        assert_eq!(all.words.get(0), "new_york_times");
        assert_eq!(all.words.index_of("york"), None);
    }

    #[test]
    fn pairs_do_not_cross_sentences_and_scores_are_the_formula() {
        let text = TrainingText::sentences(|| (0..20).map(|_| ["a", "b"].map(String::from).to_vec()));
        let phrases = Phrases::new().min_count(5).threshold(0.0).learn(&text).unwrap();
        assert_eq!(phrases.len(), 1);
        let score = phrases.score("a", "b").unwrap();
        assert!((score - (20.0 - 5.0) / 400.0 * 40.0).abs() < 1e-12);
        assert!(Phrases::new().max_pairs(0).learn(&text).is_err());
    }
}
