//! The protocol between the calling thread and its workers.
//!
//! ```text
//! calling thread                               worker, invited to the pool
//!   write the job                                loop
//!   open it                                        wait until a job is open that it has not seen
//!   invite the missing workers                     enter, if it is still open
//!   take tasks until none is left                  take tasks until none is left
//!   close it                                       leave
//!   wait until no worker is inside               until it has waited too long, or the team ends
//! ```
//!
//! - **One atomic number** holds whether a job is open, which one, and how many workers are inside:
//!   there is no order between several variables to get wrong.
//! - **Shares.** Each thread first takes the tasks of a contiguous share, the same in each call of
//!   a team, so that what it wrote in one kernel is in its own cache for the next; then it helps
//!   with those of others.
//! - **Waiting.** A worker of a team spins, then yields the processor, then leaves: handing out a
//!   job then takes about a microsecond, whereas waking a thread takes 20 to 50, and up to half a
//!   millisecond on a virtual machine.

use std::any::Any;
use std::cell::{Cell, UnsafeCell};
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::fork::watch_forks;
use super::threads;
use crate::kernels::simd::{Setting, setting, with_setting};

/// How long a worker of a team spins before it yields.
const SPIN: Duration = Duration::from_micros(100);
/// How long a worker of a team waits before it leaves.
const PATIENCE: Duration = Duration::from_millis(1);
/// How long a worker waits after the team has ended.
const IDLE: Duration = Duration::from_micros(200);

/// What this thread is doing.
#[derive(Clone, Copy)]
pub(super) enum Role {
    /// Neither inside `team` nor inside a task.
    Free,
    /// Inside `team`, outside `for_each`.
    Calling(*const Workers),
    /// Inside a task, or waiting for one as a worker.
    InTask,
}

thread_local! {
    pub(super) static ROLE: Cell<Role> = const { Cell::new(Role::Free) };
    /// The workers of this thread's last team: a thread belongs to one pool for its lifetime.
    static KEPT: Cell<Option<Workers>> = const { Cell::new(None) };
}

/// The number of invitations that no thread has accepted yet, of all teams in all pools.
static INVITATIONS: AtomicUsize = AtomicUsize::new(0);

/// Sets the role until it is dropped.
pub(super) struct AsRole(Role);

impl AsRole {
    pub(super) fn new(role: Role) -> Self {
        AsRole(ROLE.replace(role))
    }
}

impl Drop for AsRole {
    fn drop(&mut self) {
        ROLE.set(self.0);
    }
}

/// The tasks of one call.
#[derive(Clone, Copy)]
struct Job {
    f: *const (dyn Fn(usize) + Sync),
    n_tasks: usize,
    setting: Setting,
}

/// A value on its own cache line, or pair of lines, so that threads that count in adjacent values
/// do not slow each other down.
#[repr(align(128))]
struct Padded<T>(T);

/// The workers of a calling thread, which owns this value exclusively.
pub(super) struct Workers(Arc<State>);

/// The state shared by the calling thread and the workers.
///
/// `state` is the whole protocol: `epoch << 32 | OPEN | inside`. The calling thread writes `job`
/// while the state is not open and no worker is inside; opens it, which also increments the epoch;
/// works; closes it; and waits until no worker is inside. A worker increments `inside` and checks
/// the previous value: only if that was open may it read `job`, otherwise it decrements `inside`
/// again. All of that happens to one atomic number, so there is no order to get wrong.
struct State {
    state: Padded<AtomicU64>,
    shares: Box<[Padded<Share>]>,
    job: UnsafeCell<Option<Job>>,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
    /// Whether workers wait for the next job.
    stays: bool,
    /// Whether the team has ended, and another may follow.
    idle: AtomicBool,
    dismissed: AtomicBool,
}

/// The contiguous part of the tasks that one thread processes first.
struct Share {
    /// The next task.
    next: AtomicUsize,
    /// Whether a worker was invited to it and has not left.
    taken: AtomicBool,
}

// SAFETY: `job` is the only field that is not `Sync`, and `state` separates its writes from its
// reads, see above. What the job points to is `Sync` (required by `for_each`) and alive as long as
// the state is open or a worker is inside.
unsafe impl Sync for State {}
// SAFETY: as above.
unsafe impl Send for State {}

const OPEN: u64 = 1 << 31;
const INSIDE: u64 = OPEN - 1;
const EPOCH: u64 = 1 << 32;

impl Workers {
    pub(super) fn new(threads: usize, stays: bool) -> Workers {
        watch_forks();
        let share = |_| Padded(Share { next: AtomicUsize::new(0), taken: AtomicBool::new(false) });
        Workers(Arc::new(State {
            state: Padded(AtomicU64::new(0)),
            shares: (0..threads).map(share).collect(),
            job: UnsafeCell::new(None),
            panic: Mutex::new(None),
            stays,
            idle: AtomicBool::new(false),
            dismissed: AtomicBool::new(false),
        }))
    }

    /// Runs the calling thread's part of a job. There is one job at a time, since `Workers` is not
    /// shared.
    pub(super) fn run(&self, n_tasks: usize, f: &(dyn Fn(usize) + Sync)) {
        let workers = &*self.0;
        // SAFETY: only the lifetime changes, and `f` outlives the job: this function returns when
        // it is closed and no worker is inside.
        let f = unsafe { std::mem::transmute::<&(dyn Fn(usize) + Sync), &'static (dyn Fn(usize) + Sync)>(f) };
        let job = Job { f, n_tasks, setting: setting() };
        // SAFETY: not open and no worker inside: before the first job, and whenever `Close` was
        // dropped.
        unsafe { *workers.job.get() = Some(job) };
        for (i, share) in workers.shares.iter().enumerate() {
            share.0.next.store(workers.tasks(n_tasks, i).start, Ordering::Relaxed);
        }
        {
            workers.state.0.fetch_add(EPOCH | OPEN, Ordering::SeqCst);
            let _close = Close(workers);
            self.invite(n_tasks);
            let _role = AsRole::new(Role::InTask);
            workers.work(&job, 0);
        }
        let panic = workers.panic.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(panic) = panic {
            resume_unwind(panic);
        }
    }

    /// Invites the missing workers from the pool.
    fn invite(&self, n_tasks: usize) {
        let useful = self.0.shares.len().min(n_tasks);
        for i in 1..useful {
            if !self.0.shares[i].0.taken.swap(true, Ordering::SeqCst) {
                let workers = Arc::clone(&self.0);
                INVITATIONS.fetch_add(1, Ordering::Relaxed);
                rayon::spawn(move || {
                    INVITATIONS.fetch_sub(1, Ordering::Relaxed);
                    workers.help(i);
                });
            }
        }
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.0.dismissed.store(true, Ordering::Release);
    }
}

/// The workers of a team, which become idle when this is dropped.
pub(super) struct Kept(Option<Workers>);

impl Kept {
    /// Returns the workers of this thread's last team, or new ones.
    pub(super) fn take() -> Kept {
        let kept = KEPT.try_with(Cell::take).ok().flatten().filter(|workers| workers.0.shares.len() == threads());
        let workers = kept.unwrap_or_else(|| Workers::new(threads(), true));
        workers.0.idle.store(false, Ordering::Release);
        Kept(Some(workers))
    }

    pub(super) fn workers(&self) -> &Workers {
        self.0.as_ref().expect("taken when dropped")
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        if let Some(workers) = self.0.take() {
            workers.0.idle.store(true, Ordering::Release);
            // A thread that ends keeps nothing.
            let _ = KEPT.try_with(|kept| kept.set(Some(workers)));
        }
    }
}

/// Ends a job, even if the calling thread panics: closes it and waits until no worker is inside.
struct Close<'a>(&'a State);

impl Drop for Close<'_> {
    fn drop(&mut self) {
        self.0.state.0.fetch_sub(OPEN, Ordering::AcqRel);
        let mut rounds = 0u32;
        while self.0.state.0.load(Ordering::Acquire) & INSIDE != 0 {
            rounds = rounds.saturating_add(1);
            if rounds < 2000 { std::hint::spin_loop() } else { std::thread::yield_now() }
        }
    }
}

impl State {
    /// Returns the tasks of share `i`.
    fn tasks(&self, n_tasks: usize, i: usize) -> Range<usize> {
        let shares = self.shares.len();
        n_tasks * i / shares..n_tasks * (i + 1) / shares
    }

    /// Runs tasks until none is left: first those of its own share, then those of others. Stores a
    /// panic for the calling thread.
    fn work(&self, job: &Job, own: usize) {
        let shares = self.shares.len();
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            for i in (own..shares).chain(0..own) {
                let end = self.tasks(job.n_tasks, i).end;
                let next = &self.shares[i].0.next;
                // Reading before counting keeps the cache line of a finished share in the shared
                // state.
                while next.load(Ordering::Relaxed) < end {
                    let task = next.fetch_add(1, Ordering::Relaxed);
                    if task < end {
                        // SAFETY: `job` is open or we are counted inside, so its function is alive.
                        unsafe { (*job.f)(task) };
                    }
                }
            }
        }));
        if let Err(panic) = outcome {
            for (i, share) in self.shares.iter().enumerate() {
                share.0.next.store(self.tasks(job.n_tasks, i).end, Ordering::Relaxed);
            }
            self.panic.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(panic);
        }
    }

    /// Runs a worker's part, on a thread of the pool.
    fn help(&self, own: usize) {
        // A calling thread that waits for something else in rayon may find its own invitation; it
        // must not wait for itself.
        if !matches!(ROLE.get(), Role::Free) {
            return self.shares[own].0.taken.store(false, Ordering::Release);
        }
        let _role = AsRole::new(Role::InTask);
        let mut epoch_done = 0;
        loop {
            while self.wait_for_job(epoch_done) {
                let before = self.state.0.fetch_add(1, Ordering::AcqRel);
                if before & OPEN != 0 {
                    epoch_done = before / EPOCH;
                    // SAFETY: we are inside an open job: the calling thread wrote it before and
                    // will not until we leave.
                    let job = unsafe { (*self.job.get()).expect("what is open has a job") };
                    with_setting(job.setting, || self.work(&job, own));
                }
                self.state.0.fetch_sub(1, Ordering::AcqRel);
                if !self.stays {
                    return;
                }
            }
            // A job that was opened meanwhile saw the share taken and invited no worker, so check
            // again after releasing the share. Either this thread sees the job or the calling
            // thread sees the share free, hence the strict order.
            let share = &self.shares[own].0;
            share.taken.store(false, Ordering::SeqCst);
            let state = self.state.0.load(Ordering::SeqCst);
            let missed = state & OPEN != 0 && state / EPOCH != epoch_done;
            if !missed || share.taken.swap(true, Ordering::SeqCst) {
                return;
            }
        }
    }

    /// Waits until a job after `epoch_done` is open; returns false if it is time to leave.
    fn wait_for_job(&self, epoch_done: u64) -> bool {
        let mut since = None;
        loop {
            for _ in 0..64 {
                let state = self.state.0.load(Ordering::Acquire);
                if state & OPEN != 0 && state / EPOCH != epoch_done {
                    return true;
                }
                std::hint::spin_loop();
            }
            if !self.stays || self.dismissed.load(Ordering::Acquire) {
                return false;
            }
            let idle = self.idle.load(Ordering::Acquire);
            let waited = since.get_or_insert_with(Instant::now).elapsed();
            if waited > if idle { IDLE } else { PATIENCE } || idle && INVITATIONS.load(Ordering::Relaxed) > 0 {
                return false;
            }
            if waited > SPIN {
                std::thread::yield_now();
            }
        }
    }
}
