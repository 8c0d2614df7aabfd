//! Learned phrases: pairs of words with their scores, and joining them in a text.

use std::collections::HashMap;
use std::sync::Arc;

use super::words::Words;

/// Pairs of words that are one phrase, with their scores. Cheap to clone.
#[derive(Clone, Default)]
pub struct Phrases(pub(super) Arc<Pairs>);

impl std::fmt::Debug for Phrases {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Phrases({} pairs)", self.len())
    }
}

#[derive(Default)]
pub(super) struct Pairs {
    pub(super) words: Words,
    pub(super) scores: HashMap<(u32, u32), f64>,
}

impl std::fmt::Debug for Pairs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Pairs({})", self.scores.len())
    }
}

impl Phrases {
    /// Returns the number of pairs.
    pub fn len(&self) -> usize {
        self.0.scores.len()
    }

    /// Returns whether there are no pairs.
    pub fn is_empty(&self) -> bool {
        self.0.scores.is_empty()
    }

    /// Returns the score of a pair, or `None` if it is not joined.
    pub fn score(&self, first: &str, second: &str) -> Option<f64> {
        let pair = (self.0.words.index_of(first)? as u32, self.0.words.index_of(second)? as u32);
        self.0.scores.get(&pair).copied()
    }

    /// Returns the pairs and their scores, best first.
    pub fn pairs(&self) -> Vec<(&str, &str, f64)> {
        let word = |i: u32| self.0.words.get(i as usize);
        let mut pairs: Vec<_> = self.0.scores.iter().map(|((a, b), s)| (word(*a), word(*b), *s)).collect();
        pairs.sort_by(|a, b| b.2.total_cmp(&a.2).then((a.0, a.1).cmp(&(b.0, b.1))));
        pairs
    }

    /// Returns the words of a sentence with phrases joined by `_`.
    pub fn join<'w>(&self, words: impl IntoIterator<Item = &'w str>) -> Vec<String> {
        let mut joined = Vec::new();
        let mut pending = [String::new()];
        let mut each = |word: Option<&str>| joined.extend(word.map(String::from));
        for word in words {
            feed(std::slice::from_ref(self), &mut pending, Some(word), &mut each);
        }
        feed(std::slice::from_ref(self), &mut pending, None, &mut each);
        joined
    }
}

/// Feeds a word (or the end of a sentence) through each round of phrases and calls `each` with the
/// words that are final. `pending` has the word of each round that may still be joined; empty if
/// there is none.
pub(crate) fn feed(rounds: &[Phrases], pending: &mut [String], word: Option<&str>, each: &mut dyn FnMut(Option<&str>)) {
    let (Some((round, rounds)), Some((held, pending))) = (rounds.split_first(), pending.split_first_mut()) else {
        return each(word);
    };
    let Some(word) = word else {
        if !held.is_empty() {
            feed(rounds, pending, Some(held), each);
            held.clear();
        }
        return feed(rounds, pending, None, each);
    };
    if !held.is_empty() && round.score(held, word).is_some() {
        held.push('_');
        held.push_str(word);
        feed(rounds, pending, Some(held), each);
        held.clear();
        return;
    }
    if !held.is_empty() {
        feed(rounds, pending, Some(held), each);
        held.clear();
    }
    held.push_str(word);
}
