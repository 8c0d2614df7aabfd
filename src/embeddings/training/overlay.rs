//! A frozen table and the changes of one thread, for training whose bits do not depend on the
//! number of threads.
//!
//! In a *round*, several chunks of text are trained at once, each from the same frozen table: a
//! chunk sees its own changes (rows that it updates are copied first) and those of no other chunk.
//! Then the changes are added to the table, chunk by chunk in the order of the text ([`merge`]).
//! The result does not depend on which thread computed what.

use rayon::prelude::*;

use super::Rows;

/// A frozen table with the changes of one chunk.
#[derive(Debug)]
pub(crate) struct Overlay<'t> {
    table: &'t [f32],
    dim: usize,
    changes: Changes,
}

/// The rows that a chunk changed. Reused from round to round to keep its memory.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    /// The changed rows, in the order of their first change.
    touched: Vec<u32>,
    /// The values of the rows, and after [`Overlay::finish`] their differences from the table.
    values: Vec<f32>,
    /// Open addressing: index in `touched` + 1, or 0 if free.
    slots: Vec<u32>,
}

impl Changes {
    fn find(&self, row: u32) -> Result<usize, usize> {
        let mask = self.slots.len() - 1;
        let mut slot = (row.wrapping_mul(0x9E37_79B9) >> 7) as usize & mask;
        loop {
            match self.slots[slot] {
                0 => return Err(slot),
                place if self.touched[place as usize - 1] == row => return Ok(place as usize - 1),
                _ => slot = (slot + 1) & mask,
            }
        }
    }

    fn grow(&mut self) {
        self.slots = vec![0; (self.slots.len() * 2).max(1024)];
        for place in 0..self.touched.len() {
            if let Err(slot) = self.find(self.touched[place]) {
                self.slots[slot] = place as u32 + 1;
            }
        }
    }
}

impl<'t> Overlay<'t> {
    pub(crate) fn new(table: &'t [f32], dim: usize, mut changes: Changes) -> Self {
        changes.touched.clear();
        changes.values.clear();
        if changes.slots.is_empty() {
            changes.grow();
        }
        changes.slots.fill(0);
        Overlay { table, dim, changes }
    }

    fn current(&self, row: usize) -> &[f32] {
        match self.changes.find(row as u32) {
            Ok(place) => &self.changes.values[place * self.dim..(place + 1) * self.dim],
            Err(_) => &self.table[row * self.dim..(row + 1) * self.dim],
        }
    }

    /// Returns the differences from the table.
    pub(crate) fn finish(mut self) -> Changes {
        for (place, &row) in self.changes.touched.iter().enumerate() {
            let old = &self.table[row as usize * self.dim..];
            let new = &mut self.changes.values[place * self.dim..(place + 1) * self.dim];
            new.iter_mut().zip(old).for_each(|(n, o)| *n -= o);
        }
        self.changes
    }
}

impl Rows for Overlay<'_> {
    fn read(&self, row: usize, out: &mut [f32]) {
        out[..self.dim].copy_from_slice(self.current(row));
    }

    fn add(&mut self, row: usize, delta: &[f32]) {
        if (self.changes.touched.len() + 1) * 2 > self.changes.slots.len() {
            self.changes.grow();
        }
        let place = self.changes.find(row as u32).unwrap_or_else(|slot| {
            self.changes.touched.push(row as u32);
            self.changes.values.extend_from_slice(&self.table[row * self.dim..(row + 1) * self.dim]);
            self.changes.slots[slot] = self.changes.touched.len() as u32;
            self.changes.touched.len() - 1
        });
        let values = &mut self.changes.values[place * self.dim..(place + 1) * self.dim];
        values.iter_mut().zip(delta).for_each(|(v, d)| *v += d);
    }

    fn add_to(&self, row: usize, sum: &mut [f32]) {
        sum.iter_mut().zip(self.current(row)).for_each(|(s, x)| *s += x);
    }

    fn prefetch(&self, _row: usize) {}
}

/// Adds the changes of all chunks to the table, in their order. The rows are divided among the
/// threads, which changes no sum.
pub(crate) fn merge<'c>(
    table: &mut [f32],
    dim: usize,
    changes: impl Iterator<Item = &'c Changes> + Clone + Sync + Send,
) {
    let rows = table.len() / dim;
    crate::kernels::parallel::adopt();
    let part = rows.div_ceil(rayon::current_num_threads()).max(1);
    table.par_chunks_mut(part * dim).enumerate().for_each(|(p, table)| {
        let first = p * part;
        for changes in changes.clone() {
            for (place, &row) in changes.touched.iter().enumerate() {
                let row = row as usize;
                if row >= first && row - first < part {
                    let at = (row - first) * dim;
                    let delta = &changes.values[place * dim..(place + 1) * dim];
                    table[at..at + dim].iter_mut().zip(delta).for_each(|(t, d)| *t += d);
                }
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_seen_by_their_chunk_and_merged_in_order() {
        let mut table: Vec<f32> = (0..3000).map(|i| i as f32).collect();
        let lane = |row: usize| {
            let mut overlay = Overlay::new(&table, 3, Changes::default());
            for _ in 0..2 {
                overlay.add(row, &[1.0, 2.0, 3.0]);
                overlay.add(7, &[0.5; 3]);
            }
            let mut out = [0.0; 4];
            overlay.read(row, &mut out);
            assert_eq!(out[0], (row * 3) as f32 + 2.0);
            (0..900).for_each(|r| overlay.add(r, &[0.0; 3]));
            overlay.finish()
        };
        let changes = [lane(1), lane(990)];
        merge(&mut table, 3, changes.iter());
        assert_eq!(table[3..6], [5.0, 8.0, 11.0]);
        assert_eq!(table[2970..2973], [2972.0, 2975.0, 2978.0]);
        assert_eq!(table[21], 23.0);
        assert_eq!(table[30], 30.0);
    }
}
