//! What changes in the child of a `fork`, which has none of the pool's threads.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, Ordering};

/// In the child of a `fork` that had threads at work before, makes this thread a pool of its own,
/// of one thread, so that what asks rayon for threads is done here and waits for nobody; elsewhere
/// it does nothing. To be called before rayon is.
pub(crate) fn adopt() {
    thread_local! {
        static ADOPTED: Cell<bool> = const { Cell::new(false) };
    }
    watch_forks();
    if FORKED.load(Ordering::Relaxed) && !ADOPTED.replace(true) {
        // A thread that was one of a pool is refused, and takes what it hands out itself.
        if let Ok(pool) = rayon::ThreadPoolBuilder::new().num_threads(1).use_current_thread().build() {
            std::mem::forget(pool);
        }
    }
}

/// Whether this process is the child of a `fork` since the first call that wanted threads.
pub(super) static FORKED: AtomicBool = AtomicBool::new(false);

/// Lets the system tell a child that it is one: no question to the system is cheap enough for every
/// call.
pub(super) fn watch_forks() {
    #[cfg(unix)]
    {
        type Handler = Option<unsafe extern "C" fn()>;
        unsafe extern "C" {
            fn pthread_atfork(prepare: Handler, parent: Handler, child: Handler) -> std::ffi::c_int;
        }
        unsafe extern "C" fn child() {
            FORKED.store(true, Ordering::Relaxed);
        }
        static WATCHES: std::sync::Once = std::sync::Once::new();
        // SAFETY: the system's own function, by its declaration; the handler stores a number and
        // nothing else.
        WATCHES.call_once(|| unsafe {
            pthread_atfork(None, None, Some(child));
        });
    }
}
