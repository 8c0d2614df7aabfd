//! The words of a text and their counts.

use std::collections::BTreeMap;
use std::sync::Mutex;

use super::lock;
use super::text::{Chunk, TrainingText, empty, on_all_threads};
use crate::Result;
use crate::embeddings::words::Words;

/// Words with their counts, most frequent first; equally frequent ones by their first occurrence.
#[derive(Clone, Debug, Default)]
pub(crate) struct TrainingVocabulary {
    pub(crate) words: Words,
    pub(crate) counts: Vec<u64>,
    /// The number of words in the text, kept or not.
    pub(crate) text_words: u64,
    /// The number of bytes of the text, as chunks count them.
    pub(crate) text_bytes: u64,
}

/// Which words are kept.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Keep {
    pub(crate) min_count: u64,
    /// The largest number of kept words.
    pub(crate) limit: Option<usize>,
    /// The largest number of words while counting; if there are more, the rarest are dropped.
    pub(crate) counted: usize,
}

impl Keep {
    /// About as many words as the original tool holds.
    pub(crate) const COUNTED: usize = 20_000_000;
}

/// Words in the order of their first occurrence, and their counts.
#[derive(Default)]
struct Count {
    words: Words,
    counts: Vec<u64>,
    total: u64,
}

impl Count {
    fn add(&mut self, word: &str, count: u64) {
        let (i, new) = self.words.insert(word);
        if new {
            self.counts.push(0);
        }
        self.counts[i] += count;
        self.total += count;
    }

    /// Adds the counts of `later` and clears it, keeping its memory.
    fn append(&mut self, later: &mut Count) {
        later.words.iter().zip(&later.counts).for_each(|(word, &count)| self.add(word, count));
        later.words.clear();
        later.counts.clear();
        later.total = 0;
    }

    /// Drops words that occurred at most `count` times.
    fn forget(&mut self, count: u64) {
        let kept = || (0..self.counts.len()).filter(|&i| self.counts[i] > count);
        let words = kept().map(|i| self.words.get(i)).collect();
        let counts = kept().map(|i| self.counts[i]).collect();
        *self = Count { words, counts, total: self.total };
    }
}

/// The counts of all chunks. They are added in the order of the text, regardless of the thread that
/// counted them, so neither the order of words nor the dropped words depend on threads.
#[derive(Default)]
struct All {
    count: Count,
    next: u64,
    /// The length of each chunk that is being counted.
    taken: BTreeMap<u64, u64>,
    /// Counts of chunks that wait for an earlier one: by the first of the chunks that were merged,
    /// with the number after the last.
    waiting: BTreeMap<u64, (Count, u64)>,
    /// Words that occurred at most this often were dropped.
    forgotten: u64,
}

impl All {
    fn take(&mut self, chunk: &Chunk) {
        self.taken.insert(chunk.number, chunk.len);
    }

    /// Adds the count of a chunk, which is cleared.
    fn add(&mut self, chunk: u64, part: &mut Count, most: usize) {
        self.taken.remove(&chunk);
        if chunk != self.next {
            return self.wait(chunk, part, most);
        }
        self.append(part, chunk + 1, most);
        while let Some((mut part, end)) = self.waiting.remove(&self.next) {
            self.append(&mut part, end, most);
        }
    }

    fn append(&mut self, part: &mut Count, end: u64, most: usize) {
        self.count.append(part);
        self.next = end;
        while self.count.counts.len() > most {
            self.forgotten += 1;
            self.count.forget(self.forgotten);
        }
    }

    /// Merges consecutive waiting chunks, so that other threads do not fill the memory while one is
    /// delayed; but only if no word can be dropped before they are added, since words are dropped
    /// chunk by chunk.
    fn wait(&mut self, chunk: u64, part: &mut Count, most: usize) {
        // A word has at least two bytes with the space after it, or is one of the at most 256 that
        // a tokenizer makes of single bytes.
        let to_come: u64 = self.taken.values().map(|len| len / 2 + 256).sum();
        let held: usize = self.waiting.values().map(|(part, _)| part.counts.len()).sum();
        let together = (self.count.counts.len() + held + part.counts.len()) as u64 + to_come <= most as u64;
        let mut end = chunk + 1;
        if together && let Some((mut later, later_end)) = self.waiting.remove(&end) {
            part.append(&mut later);
            end = later_end;
        }
        match self.waiting.range_mut(..chunk).next_back() {
            Some((_, (earlier, earlier_end))) if together && *earlier_end == chunk => {
                earlier.append(part);
                *earlier_end = end;
            }
            _ => {
                self.waiting.insert(chunk, (std::mem::take(part), end));
            }
        }
    }
}

impl TrainingVocabulary {
    /// Counts the words of a text on all threads.
    pub(crate) fn of(text: &TrainingText<'_>, keep: Keep) -> Result<Self> {
        let pass = text.pass(1 << 20);
        let all = Mutex::new(All::default());
        let next = |chunk: &mut Chunk| {
            let mut all = lock(&all);
            pass.next(chunk).inspect(|more| {
                if *more {
                    all.take(chunk)
                }
            })
        };
        on_all_threads(|_| {
            let (mut chunk, mut part) = (Chunk::default(), Count::default());
            while next(&mut chunk)? {
                pass.words(&chunk, |word| word.into_iter().for_each(|word| part.add(word, 1)));
                lock(&all).add(chunk.number, &mut part, keep.counted);
            }
            Ok(())
        })?;
        let all = all.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner()).count;
        if all.total == 0 {
            return Err(empty(text, "expected words to train on, found an empty text"));
        }
        let mut order: Vec<usize> = (0..all.words.len()).filter(|&i| all.counts[i] >= keep.min_count).collect();
        if order.is_empty() {
            let most = all.counts.iter().max().copied().unwrap_or_default();
            let reason = format!("expected words that occur at least {} times, found at most {most}", keep.min_count);
            return Err(empty(text, reason));
        }
        order.sort_by_key(|&i| std::cmp::Reverse(all.counts[i]));
        order.truncate(keep.limit.unwrap_or(usize::MAX));
        Ok(TrainingVocabulary {
            words: order.iter().map(|&i| all.words.get(i)).collect(),
            counts: order.iter().map(|&i| all.counts[i]).collect(),
            text_words: all.total,
            text_bytes: pass.read(),
        })
    }

    /// Same as [`TrainingVocabulary::of`], with an error for a single word, which has no context.
    pub(crate) fn of_several(self, text: &TrainingText<'_>) -> Result<Self> {
        match self.len() {
            1 => Err(empty(
                text,
                format!("expected at least two words that occur often enough, found only `{}`", self.words.get(0)),
            )),
            _ => Ok(self),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.counts.len()
    }

    /// The number of bytes in memory.
    pub(crate) fn memory(&self) -> usize {
        self.words.memory() + self.counts.capacity() * size_of::<u64>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(text: &'static str, keep: Keep) -> Result<TrainingVocabulary> {
        let sentences = move || text.lines().map(|l| l.split_whitespace().map(String::from).collect());
        TrainingVocabulary::of(&TrainingText::sentences(sentences), keep)
    }

    #[test]
    fn words_are_ordered_by_count_then_place() {
        let v = count("b a b\nc d a e", Keep { min_count: 1, limit: None, counted: 100 }).unwrap();
        assert_eq!(v.words.iter().collect::<Vec<_>>(), ["b", "a", "c", "d", "e"]);
        assert_eq!((v.counts[0], v.text_words), (2, 7));
        let v = count("b a b\nc d a e", Keep { min_count: 2, limit: Some(1), counted: 100 }).unwrap();
        assert_eq!(v.words.iter().collect::<Vec<_>>(), ["b"]);
    }

    #[test]
    fn a_cap_bounds_counting_the_same_way_at_any_number_of_threads() {
        // Two words with changing neighbours: each third word occurs once.
        let text = TrainingText::sentences(|| {
            (0..300_000).map(|i| ["often".to_string(), format!("rare{i}"), format!("some{}", i % 7)].to_vec())
        });
        let count = |threads| {
            let keep = Keep { min_count: 5, limit: None, counted: 1000 };
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let v = pool.install(|| TrainingVocabulary::of(&text, keep)).unwrap();
            (v.words.iter().map(String::from).collect::<Vec<_>>(), v.counts, v.text_words)
        };
        let (words, counts, total) = count(1);
        assert_eq!((words.len(), words[0].as_str(), counts[0], total), (8, "often", 300_000, 900_000));
        assert_eq!(count(4), (words, counts, total));
    }

    #[test]
    fn chunks_that_wait_are_held_together_and_counted_in_their_order() {
        let part = |i: u64| {
            let mut part = Count::default();
            [format!("new{i}"), "often".into(), format!("some{}", i % 3)].iter().for_each(|word| part.add(word, 1));
            part
        };
        let mut in_order = All::default();
        (0..40).for_each(|i| in_order.add(i, &mut part(i), 1000));
        for order in [[1, 0], [0, 1]] {
            let mut all = All { taken: BTreeMap::from([(0, 100)]), ..All::default() };
            // Every second pair of chunks arrives in reverse order, and the first chunk last.
            for pair in (1..39).step_by(2) {
                for i in order {
                    all.add(pair + i, &mut part(pair + i), 1000);
                }
                assert_eq!((all.waiting.len(), all.next), (1, 0));
            }
            all.add(39, &mut part(39), 1000);
            all.add(0, &mut part(0), 1000);
            assert!(all.waiting.is_empty() && all.next == 40);
            assert!(all.count.words.iter().eq(in_order.count.words.iter()));
            assert_eq!((&all.count.counts, all.count.total), (&in_order.count.counts, 120));
            // If words may have to be dropped, chunks are not merged.
            (41..45).for_each(|i| all.add(i, &mut part(i), 44));
            assert_eq!(all.waiting.len(), 4);
        }
    }

    #[test]
    fn nothing_to_train_on_is_an_error() {
        for (text, wanted) in [("", "empty text"), ("\n \n", "empty text"), ("a b", "found at most 1")] {
            let e = count(text, Keep { min_count: 2, limit: None, counted: 100 }).unwrap_err().to_string();
            assert!(e.contains(wanted), "{text:?}: {e}");
        }
    }
}
