//! The words of a vocabulary, in order, and the index of each.
//!
//! All words are stored in one string, and the hash table contains only their indices, so a
//! vocabulary of 400 000 words needs about 12 bytes per word in addition to its characters. The
//! table is built by the first lookup, so opening mapped vectors does not wait for it.

use std::hash::{BuildHasher, RandomState};
use std::sync::OnceLock;

/// A list of distinct words with an index by word.
#[derive(Clone, Debug, Default)]
pub(crate) struct Words {
    letters: String,
    /// The end of each word in `letters`.
    ends: Vec<usize>,
    table: OnceLock<Table>,
}

/// Open addressing: word index + 1, or 0 if free. At most half full.
#[derive(Clone, Debug)]
struct Table {
    slots: Vec<u32>,
    seed: u64,
}

impl Words {
    /// The number of words.
    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    /// The number of bytes in memory.
    pub(crate) fn memory(&self) -> usize {
        let slots = self.table.get().map_or(0, |table| table.slots.capacity());
        self.letters.capacity() + self.ends.capacity() * size_of::<usize>() + slots * size_of::<u32>()
    }

    /// Returns word `i`.
    pub(crate) fn get(&self, i: usize) -> &str {
        let start = if i == 0 { 0 } else { self.ends[i - 1] };
        &self.letters[start..self.ends[i]]
    }

    /// All words in order.
    pub(crate) fn iter(&self) -> impl ExactSizeIterator<Item = &str> + Clone {
        (0..self.len()).map(|i| self.get(i))
    }

    /// Returns the index of a word.
    pub(crate) fn index_of(&self, word: &str) -> Option<usize> {
        let table = self.table.get_or_init(|| Table::of(self));
        let mut slot = table.home(word);
        loop {
            match table.slots[slot] {
                0 => return None,
                i if self.get(i as usize - 1) == word => return Some(i as usize - 1),
                _ => slot = (slot + 1) & (table.slots.len() - 1),
            }
        }
    }

    /// Returns the index of a word, and whether it was appended because it was not in the list.
    pub(crate) fn insert(&mut self, word: &str) -> (usize, bool) {
        let mut table = self.table.take().unwrap_or_else(|| Table::of(self));
        if (self.len() + 1) * 2 > table.slots.len() {
            table = Table::with_room(self, self.len() * 2 + 16);
        }
        let mut slot = table.home(word);
        let found = loop {
            match table.slots[slot] {
                0 => break None,
                i if self.get(i as usize - 1) == word => break Some(i as usize - 1),
                _ => slot = (slot + 1) & (table.slots.len() - 1),
            }
        };
        let index = found.unwrap_or_else(|| {
            self.letters.push_str(word);
            self.ends.push(self.letters.len());
            table.slots[slot] = self.len() as u32;
            self.len() - 1
        });
        let _ = self.table.set(table);
        (index, found.is_none())
    }

    /// Removes all words and keeps the memory.
    pub(crate) fn clear(&mut self) {
        self.letters.clear();
        self.ends.clear();
        if let Some(table) = self.table.get_mut() {
            table.slots.fill(0);
        }
    }

    /// Appends a word; the caller checks for duplicates later, with [`Words::duplicate`].
    pub(crate) fn push(&mut self, word: &str) {
        self.table = OnceLock::new();
        self.letters.push_str(word);
        self.ends.push(self.letters.len());
    }

    /// Returns the first word that occurs twice, as (first index, second index).
    pub(crate) fn duplicate(&self) -> Option<(usize, usize)> {
        (0..self.len()).find_map(|i| self.index_of(self.get(i)).filter(|&j| j != i).map(|j| (j.min(i), j.max(i))))
    }
}

impl<S: AsRef<str>> FromIterator<S> for Words {
    fn from_iter<T: IntoIterator<Item = S>>(words: T) -> Self {
        let mut list = Words::default();
        for word in words {
            list.push(word.as_ref());
        }
        list
    }
}

impl Table {
    fn of(words: &Words) -> Table {
        Table::with_room(words, words.len())
    }

    fn with_room(words: &Words, room: usize) -> Table {
        let size = (room * 2 + 2).next_power_of_two();
        // Seeded at random, so that no file can be crafted to collide; the order of slots is never
        // visible.
        let mut table = Table { slots: vec![0; size], seed: RandomState::new().hash_one(0u8) };
        for (i, word) in words.iter().enumerate() {
            let mut slot = table.home(word);
            // Of two equal words, lookups find the first.
            while table.slots[slot] != 0 {
                slot = (slot + 1) & (size - 1);
            }
            table.slots[slot] = i as u32 + 1;
        }
        table
    }

    fn home(&self, word: &str) -> usize {
        hash(word.as_bytes(), self.seed) as usize & (self.slots.len() - 1)
    }
}

/// Eight bytes per step, each multiplied to 128 bits that are folded to 64.
pub(crate) fn hash(bytes: &[u8], seed: u64) -> u64 {
    const K: u64 = 0x9E37_79B9_7F4A_7C15;
    let fold = |a: u64, b: u64| {
        let p = u128::from(a) * u128::from(b);
        (p as u64) ^ (p >> 64) as u64
    };
    let mut h = seed ^ (bytes.len() as u64).wrapping_mul(K);
    let (whole, rest) = bytes.as_chunks::<8>();
    for chunk in whole {
        h = fold(h ^ u64::from_le_bytes(*chunk), K);
    }
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    h = fold(h ^ u64::from_le_bytes(last), K ^ 0x5851_F42D_4C95_7F2D);
    fold(h, K | 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_found_where_they_were_put() {
        let mut words = Words::default();
        for i in 0..5000 {
            assert_eq!(words.insert(&format!("w{}", i % 2500)), (i % 2500, i < 2500));
        }
        assert_eq!(words.len(), 2500);
        assert_eq!(words.index_of("w77"), Some(77));
        assert_eq!(words.get(77), "w77");
        assert_eq!(words.index_of("w2500"), None);
        assert_eq!(words.index_of(""), None);
        assert_eq!(words.duplicate(), None);
    }

    #[test]
    fn duplicates_are_seen() {
        let words: Words = ["a", "b", "", "b"].into_iter().collect();
        assert_eq!(words.duplicate(), Some((1, 3)));
        assert_eq!(words.index_of("b"), Some(1));
        assert_eq!(words.index_of(""), Some(2));
    }
}
