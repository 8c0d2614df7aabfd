//! A set of token ids with one bit per id.

/// A set of ids below the size of a vocabulary.
#[derive(Clone, PartialEq, Eq)]
pub struct TokenSet {
    words: Vec<u64>,
    vocab_size: usize,
}

impl std::fmt::Debug for TokenSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let len: u32 = self.words.iter().map(|word| word.count_ones()).sum();
        write!(f, "TokenSet({len} of {})", self.vocab_size)
    }
}

impl TokenSet {
    /// Creates an empty set for a vocabulary of `vocab_size`.
    pub fn new(vocab_size: usize) -> Self {
        Self { words: vec![0; vocab_size.div_ceil(64)], vocab_size }
    }

    /// Inserts an id; ids outside the vocabulary are ignored.
    pub fn insert(&mut self, id: u32) {
        if (id as usize) < self.vocab_size {
            self.words[id as usize / 64] |= 1 << (id % 64);
        }
    }

    /// Removes an id.
    pub fn remove(&mut self, id: u32) {
        if (id as usize) < self.vocab_size {
            self.words[id as usize / 64] &= !(1 << (id % 64));
        }
    }

    /// Returns whether the set contains an id.
    pub fn contains(&self, id: u32) -> bool {
        (id as usize) < self.vocab_size && self.words[id as usize / 64] >> (id % 64) & 1 == 1
    }

    /// Returns whether the set is empty.
    pub fn is_empty(&self) -> bool {
        self.words.iter().all(|&word| word == 0)
    }

    /// Removes all ids.
    pub fn clear(&mut self) {
        self.words.fill(0);
    }

    /// Returns the ids in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.words.iter().enumerate().flat_map(|(i, &word)| {
            std::iter::successors(Some(word).filter(|&w| w != 0), |&w| Some(w & (w - 1)).filter(|&w| w != 0))
                .map(move |w| (i * 64) as u32 + w.trailing_zeros())
        })
    }
}

impl Extend<u32> for TokenSet {
    fn extend<I: IntoIterator<Item = u32>>(&mut self, ids: I) {
        ids.into_iter().for_each(|id| self.insert(id));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_inserted_comes_back() {
        let mut set = TokenSet::new(130);
        set.extend([0, 63, 64, 129, 130, 5]);
        assert_eq!(set.iter().collect::<Vec<_>>(), [0, 5, 63, 64, 129]);
        set.remove(63);
        assert!(!set.contains(63) && set.contains(64) && !set.contains(999) && !set.is_empty());
        set.clear();
        assert!(set.is_empty() && set.iter().next().is_none());
    }
}
