//! Distribution of work over the threads of the caller's rayon pool.
//!
//! A kernel cuts its work into numbered tasks and calls [`for_each`]. The tasks are determined by
//! the shape of the data, never by the number of threads, and each writes its own part of the
//! output: which thread runs a task cannot change a bit.
//!
//! The calling thread takes part in the work and never waits for a worker that has not arrived:
//! workers are invited ([`rayon::spawn`]), and those that find the work done leave again. So a busy
//! pool costs speed, not progress, and nothing here can deadlock. The pool is the one that the
//! caller is in ([`rayon::ThreadPool::install`]) or the global one; with one thread nothing is
//! spawned and the tasks run in a plain loop. Calls from inside a task run serially.
//!
//! Waking a sleeping thread takes 20 to 50 µs, which is more than a small layer of a small model
//! takes altogether. Inside [`team`] the workers stay awake between the calls: they spin for a
//! moment, then yield the processor, and after a millisecond without work they leave and are
//! invited again later. Handing out a call then takes about a microsecond. After a team ends, they
//! wait a fifth of a millisecond for the thread's next one, unless another team invites workers:
//! consecutive tokens follow each other sooner, and on a virtual machine a thread may take half a
//! millisecond to wake up.
//!
//! The child of a `fork` has none of the pool's threads and would wait for them forever: there each
//! thread works alone. So does the only thread of WebAssembly.
//!
//! Each thread starts with its own contiguous share of the tasks, the same for each call of a team,
//! so that what it wrote in one kernel is in its own cache for the next; after its share it helps
//! with those of others.
//!
//! # Examples
//!
//! ```
//! use loquat::kernels::parallel;
//!
//! let mut squares = vec![0; 1000];
//! parallel::team(|| {
//!     parallel::chunks_mut(&mut squares, 100, |chunk, part| {
//!         for (i, square) in part.iter_mut().enumerate() {
//!             *square = (100 * chunk + i).pow(2);
//!         }
//!     });
//! });
//! assert_eq!(squares[999], 998_001);
//! ```
//!
//! | file | content |
//! |---|---|
//! | [`mod@self`] | the number of threads, tasks for them, teams |
//! | `chunks` | the length of tasks, and slices that are cut for tasks |
//! | `workers` | the protocol between the calling thread and the workers |
//! | `fork` | processes without threads for the pool |

mod chunks;
mod fork;
#[cfg(test)]
mod tests;
mod workers;

use std::sync::atomic::Ordering;

pub use chunks::{Parts, chunk_len};
pub(crate) use fork::adopt;
use workers::{AsRole, Kept, ROLE, Role, Workers};

/// Returns the number of threads that [`for_each`] distributes the work over: 1 inside a task.
pub fn threads() -> usize {
    if fork::ALONE.load(Ordering::Relaxed) {
        adopt();
        return 1;
    }
    match ROLE.get() {
        Role::InTask => 1,
        _ => rayon::current_num_threads(),
    }
}

/// Calls `f` with 0, 1, …, `n_tasks - 1`, on as many threads as the caller's pool has, and returns
/// when all calls have returned.
///
/// A task should take 20 µs or more ([`chunk_len`] helps to choose), or a few inside a [`team`].
///
/// # Panics
///
/// If a task panics, with its panic, once no task runs any more; tasks that have not begun are
/// dropped.
pub fn for_each(n_tasks: usize, f: impl Fn(usize) + Sync) {
    // One body for all kernels, and one copy of each kernel's task: a call through a pointer costs
    // little compared with a task.
    for_each_task(n_tasks, &f);
}

fn for_each_task(n_tasks: usize, f: &(dyn Fn(usize) + Sync)) {
    let threads = if n_tasks > 1 { threads() } else { 1 };
    if threads == 1 {
        return (0..n_tasks).for_each(f);
    }
    match ROLE.get() {
        // SAFETY: the pointer is that of the workers which `team`, further up on this thread's
        // stack, keeps alive.
        Role::Calling(workers) => unsafe { &*workers }.run(n_tasks, f),
        _ => Workers::new(threads, false).run(n_tasks, f),
    }
}

/// Cuts `data` into chunks of `chunk` elements, the last of which may be shorter, and calls `f`
/// with the index and the content of each.
///
/// # Panics
///
/// If `chunk` is zero; also the panics of [`for_each`].
pub fn chunks_mut<T: Send>(data: &mut [T], chunk: usize, f: impl Fn(usize, &mut [T]) + Sync) {
    let parts = Parts::new(data, chunk);
    // SAFETY: every task takes the chunk with its own index.
    for_each(parts.count(), |i| f(i, unsafe { parts.get(i) }));
}

/// Runs `f` on this thread while the workers of the calls inside it stay awake between the calls.
///
/// This has no effect with one thread, inside another team, or inside a task.
pub fn team<R: Send>(f: impl FnOnce() -> R + Send) -> R {
    if threads() == 1 || !matches!(ROLE.get(), Role::Free) {
        return f();
    }
    let kept = Kept::take();
    let _role = AsRole::new(Role::Calling(kept.workers()));
    f()
}

/// Runs `f` in a new pool of `threads` threads; on WebAssembly, which has no threads, on this one.
///
/// # Errors
///
/// If the threads cannot be started.
pub(crate) fn in_new_pool<R: Send>(
    threads: usize,
    f: impl FnOnce() -> R + Send,
) -> Result<R, rayon::ThreadPoolBuildError> {
    if cfg!(target_family = "wasm") {
        adopt();
        return Ok(f());
    }
    Ok(rayon::ThreadPoolBuilder::new().num_threads(threads).build()?.install(f))
}
