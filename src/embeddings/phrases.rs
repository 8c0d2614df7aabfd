//! Words that are joined: pairs with their scores, and the words of a text that go through them.

use std::collections::HashMap;
use std::sync::Arc;

use super::words::Words;

/// Pairs of words that are one phrase, with their scores. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Phrases(pub(super) Arc<Pairs>);

#[derive(Debug, Default)]
pub(super) struct Pairs {
    pub(super) words: Words,
    pub(super) scores: HashMap<(u32, u32), f64>,
}

impl Phrases {
    /// The number of pairs.
    pub fn len(&self) -> usize {
        self.0.scores.len()
    }

    /// Whether there is no pair.
    pub fn is_empty(&self) -> bool {
        self.0.scores.is_empty()
    }

    /// The score of a pair that is joined.
    pub fn score(&self, first: &str, second: &str) -> Option<f64> {
        let pair = (self.0.words.index_of(first)? as u32, self.0.words.index_of(second)? as u32);
        self.0.scores.get(&pair).copied()
    }

    /// The pairs and their scores, best first.
    pub fn pairs(&self) -> Vec<(&str, &str, f64)> {
        let word = |i: u32| self.0.words.get(i as usize);
        let mut pairs: Vec<_> = self.0.scores.iter().map(|((a, b), s)| (word(*a), word(*b), *s)).collect();
        pairs.sort_by(|a, b| b.2.total_cmp(&a.2).then((a.0, a.1).cmp(&(b.0, b.1))));
        pairs
    }

    /// A sentence with its phrases joined by `_`.
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

/// Takes a word (or the end of a sentence) and hands on what is sure, through each round of phrases. `pending` holds the
/// word of each round that may yet be joined; empty when there is none.
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
