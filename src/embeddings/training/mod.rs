//! What the trainers of word vectors share: reading, counting, sampling, and tables updated by
//! several threads.

pub(crate) mod huffman;
pub(crate) mod overlay;
pub(crate) mod run;
pub(crate) mod sampling;
pub(crate) mod settings;
pub(crate) mod shared_table;
pub(crate) mod text;
pub(crate) mod vocabulary;
pub(crate) mod window;

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::kernels::parallel::in_new_pool;
use crate::{Error, Result};

/// Locks a mutex even if it is poisoned: the data are valid after every operation.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs `work` in a new pool of `threads` threads, or in that of the caller.
pub(crate) fn in_pool<R: Send>(threads: Option<usize>, work: impl FnOnce() -> Result<R> + Send) -> Result<R> {
    let Some(n) = threads else { return work() };
    let done = in_new_pool(n, work);
    done.map_err(|e| Error::argument("threads", "a number of threads that can be started", e))?
}

/// A table of rows in a training loop.
pub(crate) trait Rows {
    /// Copies a row to the start of `out`.
    fn read(&self, row: usize, out: &mut [f32]);
    /// Adds the start of `delta` to a row.
    fn add(&mut self, row: usize, delta: &[f32]);
    /// Adds a row to the start of `sum`.
    fn add_to(&self, row: usize, sum: &mut [f32]);
    /// Prefetches a row.
    fn prefetch(&self, row: usize);
}

impl Rows for &shared_table::SharedTable {
    #[inline]
    fn read(&self, row: usize, out: &mut [f32]) {
        shared_table::SharedTable::read(self, row, out);
    }
    #[inline]
    fn add(&mut self, row: usize, delta: &[f32]) {
        shared_table::SharedTable::add(self, row, delta);
    }
    #[inline]
    fn add_to(&self, row: usize, sum: &mut [f32]) {
        shared_table::SharedTable::add_to(self, row, sum);
    }
    #[inline]
    fn prefetch(&self, row: usize) {
        shared_table::SharedTable::prefetch(self, row);
    }
}
