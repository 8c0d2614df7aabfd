//! Counting of co-occurrences in bounded memory.
//!
//! Each pair of words at most `window` apart adds 1/distance. Pairs of frequent words are counted
//! in a triangular array, all others in a hash table; when a table is full, its entries are sorted
//! and written to a temporary file (a *run*), and at the end all runs are merged. Sums are integers
//! in units of 2^-32, so neither the order of the text nor the number of threads changes a bit of
//! the result.
//!
//! A quarter of the memory is for the arrays and a half for the tables, divided among the threads;
//! while a table grows, the old and the new one fit into the remaining memory. After counting, the
//! merge reads through small buffers, and the merged records use the memory that arrays and tables
//! do not.
//!
//! With a symmetric window X_ij = X_ji, so each unordered pair is stored once and trained in both
//! directions.

use std::sync::{Arc, Mutex};

use super::records::{Entry, Merge, Record, Records, Run, TempFolder};
use crate::Result;
use crate::embeddings::training::lock;
use crate::embeddings::training::text::{Chunk, TrainingText, on_all_threads};
use crate::embeddings::training::vocabulary::TrainingVocabulary;

/// What to count, and with how much memory.
#[derive(Clone, Copy, Debug)]
pub(super) struct Counting {
    pub(super) window: usize,
    pub(super) symmetric: bool,
    /// In bytes, including the vocabulary.
    pub(super) memory: usize,
}

/// The minimum memory for counting in bytes, regardless of the size of the vocabulary.
const LEAST: usize = 8 << 20;

/// The counts of one thread.
struct Counter {
    counting: Counting,
    /// Words with a smaller index are counted in the array.
    frequent: usize,
    /// Row-major: with a symmetric window row `i` has the pairs with `j <= i`, otherwise all pairs.
    array: Vec<u64>,
    table: Table,
    /// The largest number of slots of the table.
    slots: usize,
    /// 2^32 / distance.
    weights: Vec<u64>,
}

/// Open addressing; a key is `first << 32 | second`, plus 1 so that 0 is free.
struct Table {
    entries: Vec<Entry>,
    used: usize,
}

impl Counter {
    fn new(counting: Counting, words: usize, memory: usize) -> Self {
        let cells = memory / 4 / 8;
        let frequent = if counting.symmetric { (2.0 * cells as f64).sqrt() } else { (cells as f64).sqrt() };
        // With more than 4000 words the array would not stay in the caches.
        let frequent = (frequent as usize).min(words).min(4000);
        let array = if counting.symmetric { frequent * (frequent + 1) / 2 } else { frequent * frequent };
        let slots = (memory / 2 / size_of::<Entry>()).max(2 * counting.window.next_power_of_two()).max(1024);
        let slots = if slots.is_power_of_two() { slots } else { slots.next_power_of_two() / 2 };
        let weights = (0..=counting.window as u64).map(|d| (1u64 << 32) / d.max(1)).collect();
        // Small texts start with a small table.
        let start = slots.min(1 << 16);
        let table = Table { entries: vec![Entry::default(); start], used: 0 };
        Counter { counting, frequent, array: vec![0; array], table, slots, weights }
    }

    /// Counts the pairs of a sentence; `spill` receives the sorted entries of a full table.
    fn sentence(&mut self, words: &[u32], spill: &mut impl FnMut(&[Entry]) -> Result<()>) -> Result<()> {
        for (i, &word) in words.iter().enumerate() {
            let start = i.saturating_sub(self.counting.window);
            if self.table.used + self.counting.window > self.table.entries.len() / 4 * 3 {
                if self.table.entries.len() < self.slots {
                    self.table.grow();
                } else {
                    spill(self.table.sorted())?;
                    self.table.clear();
                }
            }
            for (j, &before) in words[start..i].iter().enumerate() {
                let weight = self.weights[i - start - j];
                // With a symmetric window the rarer word first, otherwise the word followed by the
                // one before it.
                let (a, b) =
                    if self.counting.symmetric { (word.max(before), word.min(before)) } else { (word, before) };
                if (a as usize) < self.frequent && (b as usize) < self.frequent {
                    let cell = self.cell(a as usize, b as usize);
                    self.array[cell] += weight;
                } else {
                    self.table.add(u64::from(a) << 32 | u64::from(b), weight);
                }
            }
        }
        Ok(())
    }

    fn cell(&self, a: usize, b: usize) -> usize {
        if self.counting.symmetric { a * (a + 1) / 2 + b } else { a * self.frequent + b }
    }

    /// The number of bytes in memory.
    fn memory(&self) -> usize {
        self.array.capacity() * size_of::<u64>() + self.table.entries.capacity() * size_of::<Entry>()
    }

    /// Returns the remaining counts as two sorted runs: the array and the table.
    fn finish(mut self) -> [Run; 2] {
        let n = self.table.sorted().len();
        let mut table = std::mem::take(&mut self.table.entries);
        table.truncate(n);
        let this = Arc::new(self);
        let rows = 0..this.frequent;
        let frequent = rows.flat_map(move |a| {
            let (row, this) = (0..if this.counting.symmetric { a + 1 } else { this.frequent }, this.clone());
            let entry = move |b: usize| Entry::new((a as u64) << 32 | b as u64, this.array[this.cell(a, b)]);
            row.map(entry).filter(|entry| entry.sum > 0)
        });
        [Run::Memory(Box::new(frequent)), Run::Memory(Box::new(table.into_iter()))]
    }
}

impl Table {
    fn add(&mut self, key: u64, weight: u64) {
        let mask = self.entries.len() - 1;
        let mut slot = (key.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32) as usize & mask;
        loop {
            let entry = &mut self.entries[slot];
            if entry.key == key + 1 {
                entry.sum += weight;
                return;
            }
            if entry.key == 0 {
                *entry = Entry { key: key + 1, sum: weight };
                self.used += 1;
                return;
            }
            slot = (slot + 1) & mask;
        }
    }

    fn grow(&mut self) {
        let size = self.entries.len() * 2;
        let old = std::mem::replace(&mut self.entries, vec![Entry::default(); size]);
        self.used = 0;
        for entry in old.into_iter().filter(|e| e.key != 0) {
            self.add(entry.key - 1, entry.sum);
        }
    }

    /// Moves the entries to the front and sorts them in place.
    fn sorted(&mut self) -> &[Entry] {
        let mut n = 0;
        for i in 0..self.entries.len() {
            if self.entries[i].key != 0 {
                self.entries.swap(n, i);
                n += 1;
            }
        }
        self.entries[..n].sort_unstable_by_key(|e| e.key);
        &self.entries[..n]
    }

    fn clear(&mut self) {
        self.entries.fill(Entry::default());
        self.used = 0;
    }
}

/// Counts the pairs of a text on all threads. `report` is called with the number of bytes read so
/// far.
pub(super) fn count(
    text: &TrainingText<'_>,
    vocabulary: &TrainingVocabulary,
    counting: Counting,
    folder: &TempFolder,
    report: &(dyn Fn(u64) -> bool + Sync),
) -> Result<Option<Records>> {
    let pass = text.pass(256 << 10);
    let runs: Mutex<Vec<Run>> = Mutex::new(Vec::new());
    let keep = |run: Run| lock(&runs).push(run);
    let memory = counting.memory.saturating_sub(vocabulary.memory()).max(LEAST);
    let share = memory / rayon::current_num_threads();
    // The memory of a thread at its end, or `None` if counting was stopped.
    let thread = || -> Result<Option<usize>> {
        let mut counter = Counter::new(counting, vocabulary.len(), share);
        let (mut chunk, mut sentence) = (Chunk::default(), Vec::new());
        let mut spill = |entries: &[Entry]| {
            keep(folder.write_run(entries)?);
            Ok(())
        };
        while pass.next(&mut chunk)? {
            let mut result = Ok(());
            pass.words(&chunk, |word| match word {
                Some(word) => sentence.extend(vocabulary.words.index_of(word).map(|id| id as u32)),
                None => {
                    if result.is_ok() {
                        result = counter.sentence(&sentence, &mut spill);
                    }
                    sentence.clear();
                }
            });
            result?;
            if !report(chunk.start + chunk.len) {
                return Ok(None);
            }
        }
        let held = counter.memory();
        counter.finish().into_iter().for_each(&keep);
        Ok(Some(held))
    };
    let held = on_all_threads(|_| thread().inspect_err(|_| pass.end()))?;
    let Some(held) = held.into_iter().sum::<Option<usize>>() else { return Ok(None) };
    let runs = runs.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner());
    let buffers = memory / 16;
    let mut records = Records::writer(folder, memory.saturating_sub(held + buffers));
    for entry in Merge::new(runs, folder, buffers)? {
        let entry = entry?;
        records.push(Record::new(entry, counting.symmetric))?;
    }
    records.finish().map(Some)
}
