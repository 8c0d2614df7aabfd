//! The words of a text and how often each stands there.

use super::text::{TrainingText, empty, on_all_threads};
use crate::Result;
use crate::embeddings::words::Words;

/// Words with their counts, most frequent first; equally frequent ones in the order in which they first stood.
#[derive(Clone, Debug, Default)]
pub(crate) struct Vocabulary {
    pub(crate) words: Words,
    pub(crate) counts: Vec<u64>,
    /// Words in the text, kept or not.
    pub(crate) text_words: u64,
    /// Bytes of the text, as chunks count them.
    pub(crate) text_bytes: u64,
}

/// Which words are kept.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Keep {
    pub(crate) min_count: u64,
    /// The most words that are kept.
    pub(crate) limit: Option<usize>,
}

/// Counts of a run of chunks. Each word remembers the chunk and place where it first stood, so that the order of the
/// vocabulary does not depend on which thread read what.
#[derive(Default)]
struct Count {
    words: Words,
    counts: Vec<u64>,
    first: Vec<(u64, u32)>,
    total: u64,
}

impl Count {
    fn add(&mut self, word: &str, count: u64, first: (u64, u32)) {
        let (i, new) = self.words.insert(word);
        if new {
            self.counts.push(0);
            self.first.push(first);
        }
        self.counts[i] += count;
        self.first[i] = self.first[i].min(first);
    }
}

impl Vocabulary {
    /// Counts the words of a text, on all threads.
    pub(crate) fn of(text: &TrainingText<'_>, keep: Keep) -> Result<Self> {
        let pass = text.pass(1 << 20);
        let parts = on_all_threads(|_| {
            let mut part = Count::default();
            while let Some(chunk) = pass.next()? {
                let mut place = 0;
                pass.words(&chunk, |word| {
                    if let Some(word) = word {
                        part.add(word, 1, (chunk.number, place));
                        part.total += 1;
                        place += 1;
                    }
                });
            }
            Ok(part)
        })?;
        let mut parts = parts.into_iter();
        let mut all = parts.next().unwrap_or_default();
        for part in parts {
            for (i, word) in part.words.iter().enumerate() {
                all.add(word, part.counts[i], part.first[i]);
            }
            all.total += part.total;
        }
        if all.total == 0 {
            return Err(empty(text, "expected words to train on, found an empty text"));
        }
        let mut order: Vec<usize> = (0..all.words.len()).filter(|&i| all.counts[i] >= keep.min_count).collect();
        if order.is_empty() {
            let most = all.counts.iter().max().copied().unwrap_or_default();
            let reason = format!("expected words that stand at least {} times, found {most} at most", keep.min_count);
            return Err(empty(text, reason));
        }
        order.sort_unstable_by_key(|&i| (std::cmp::Reverse(all.counts[i]), all.first[i]));
        order.truncate(keep.limit.unwrap_or(usize::MAX));
        Ok(Vocabulary {
            words: order.iter().map(|&i| all.words.get(i)).collect(),
            counts: order.iter().map(|&i| all.counts[i]).collect(),
            text_words: all.total,
            text_bytes: pass.read(),
        })
    }

    pub(crate) fn len(&self) -> usize {
        self.counts.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(text: &'static str, keep: Keep) -> Result<Vocabulary> {
        let sentences = move || text.lines().map(|l| l.split_whitespace().map(String::from).collect());
        Vocabulary::of(&TrainingText::sentences(sentences), keep)
    }

    #[test]
    fn words_are_ordered_by_count_then_place() {
        let v = count("b a b\nc d a e", Keep { min_count: 1, limit: None }).unwrap();
        assert_eq!(v.words.iter().collect::<Vec<_>>(), ["b", "a", "c", "d", "e"]);
        assert_eq!((v.counts[0], v.text_words), (2, 7));
        let v = count("b a b\nc d a e", Keep { min_count: 2, limit: Some(1) }).unwrap();
        assert_eq!(v.words.iter().collect::<Vec<_>>(), ["b"]);
    }

    #[test]
    fn nothing_to_train_on_is_an_error() {
        for (text, wanted) in [("", "empty text"), ("\n \n", "empty text"), ("a b", "found 1 at most")] {
            let e = count(text, Keep { min_count: 2, limit: None }).unwrap_err().to_string();
            assert!(e.contains(wanted), "{text:?}: {e}");
        }
    }
}
