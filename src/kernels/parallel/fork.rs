//! Processes without threads for the pool: the child of a `fork`, and WebAssembly.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, Ordering};

/// On WebAssembly, and in the child of a `fork` whose parent had threads at work, makes this thread
/// a rayon pool of one thread, so that parallel work runs on it and waits for no other; elsewhere
/// this does nothing. Must be called before rayon is used.
pub(crate) fn adopt() {
    thread_local! {
        static ADOPTED: Cell<bool> = const { Cell::new(false) };
    }
    watch_forks();
    if ALONE.load(Ordering::Relaxed) && !ADOPTED.replace(true) {
        // A thread that was one of a pool is refused, and runs its tasks itself.
        if let Ok(pool) = rayon::ThreadPoolBuilder::new().num_threads(1).use_current_thread().build() {
            std::mem::forget(pool);
        }
    }
}

/// Whether this process has no threads for the pool: on WebAssembly, and after a fork in a child
/// whose parent had used threads.
pub(super) static ALONE: AtomicBool = AtomicBool::new(cfg!(target_family = "wasm"));

/// Registers a handler with the system that runs in the child: no system call is cheap enough to
/// detect a fork in every call.
pub(super) fn watch_forks() {
    #[cfg(unix)]
    {
        type Handler = Option<unsafe extern "C" fn()>;
        unsafe extern "C" {
            fn pthread_atfork(prepare: Handler, parent: Handler, child: Handler) -> std::ffi::c_int;
        }
        unsafe extern "C" fn child() {
            ALONE.store(true, Ordering::Relaxed);
        }
        static WATCHES: std::sync::Once = std::sync::Once::new();
        // SAFETY: the system's own function, by its declaration; the handler stores a number and
        // nothing else.
        WATCHES.call_once(|| unsafe {
            pthread_atfork(None, None, Some(child));
        });
    }
}
