//! A table of rows that several threads read and update at once, without locks ("Hogwild", Recht et
//! al. 2011).
//!
//! Word2vec's updates are sparse and small, so an update that is occasionally lost because two
//! threads add to a row at the same time does no harm, while locks would slow down all updates. In
//! C that is a data race; here it is not:
//!
//! - The table is a slice of [`AtomicU32`], each with the bits of one `f32`. There is no `&mut f32`
//!   or `&f32` into it while it is shared; rows are copied out ([`SharedTable::read`]) and added to
//!   ([`SharedTable::add`]).
//! - Both are, element by element, a relaxed load, an addition, and a relaxed store, several at a
//!   time ([`shared_row`](mod@shared_row)): one at a time, training with 100 numbers per row took
//!   1.4 times as long, with 300 1.6 times.

use std::sync::atomic::AtomicU32;

use crate::kernels::prefetch::prefetch;
use crate::kernels::shared_row::Moves;

/// Rows of `f32` shared by threads.
#[derive(Debug)]
pub(crate) struct SharedTable {
    cells: Vec<AtomicU32>,
    dim: usize,
    moves: Moves,
}

impl SharedTable {
    /// Returns a table of `values`, rows of `dim` numbers, without a copy.
    pub(crate) fn new(values: Vec<f32>, dim: usize) -> Self {
        assert!(dim > 0 && values.len().is_multiple_of(dim), "whole rows");
        // The compiler reuses the allocation.
        let cells = values.into_iter().map(|x| AtomicU32::new(x.to_bits())).collect();
        SharedTable { cells, dim, moves: Moves::default() }
    }

    /// Returns the values, no longer shared.
    pub(crate) fn into_values(self) -> Vec<f32> {
        self.cells.into_iter().map(|x| f32::from_bits(x.into_inner())).collect()
    }

    #[inline]
    fn row(&self, row: usize) -> &[AtomicU32] {
        &self.cells[row * self.dim..(row + 1) * self.dim]
    }

    /// Copies a row to the start of `out`.
    #[inline]
    pub(crate) fn read(&self, row: usize, out: &mut [f32]) {
        self.moves.read(self.row(row), &mut out[..self.dim]);
    }

    /// Adds the start of `delta` to a row.
    #[inline]
    pub(crate) fn add(&self, row: usize, delta: &[f32]) {
        self.moves.add(self.row(row), &delta[..self.dim]);
    }

    /// Adds a row to the start of `sum`.
    #[inline]
    pub(crate) fn add_to(&self, row: usize, sum: &mut [f32]) {
        self.moves.add_to(self.row(row), &mut sum[..self.dim]);
    }

    /// Prefetches a row.
    #[inline]
    pub(crate) fn prefetch(&self, row: usize) {
        prefetch(self.row(row));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::simd::for_each_level;

    #[test]
    fn rows_are_read_and_added_to_at_every_level() {
        for_each_level(|_| {
            for dim in [1, 7, 15, 16, 17, 32, 100] {
                let values: Vec<f32> = (0..3 * dim).map(|i| i as f32).collect();
                let table = SharedTable::new(values.clone(), dim);
                let mut row = vec![-1.0; dim + 5];
                table.read(1, &mut row);
                assert_eq!(row[..dim], values[dim..2 * dim]);
                assert_eq!(row[dim..], [-1.0; 5]);
                table.add_to(2, &mut row);
                assert!((0..dim).all(|i| row[i] == values[dim + i] + values[2 * dim + i]));
                table.add(1, &vec![0.5; dim + 3]);
                table.prefetch(2);
                let wanted: Vec<f32> =
                    values.iter().enumerate().map(|(i, x)| if i / dim == 1 { x + 0.5 } else { *x }).collect();
                assert_eq!(table.into_values(), wanted);
            }
        });
    }

    #[test]
    fn threads_may_add_at_once() {
        let table = SharedTable::new(vec![0.0; 40], 20);
        std::thread::scope(|scope| {
            for row in 0..2 {
                let table = &table;
                scope.spawn(move || (0..1000).for_each(|_| table.add(row, &[1.0; 20])));
            }
        });
        assert_eq!(table.into_values(), vec![1000.0; 40]);
    }
}
