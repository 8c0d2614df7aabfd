//! Work handed to the threads of the caller's rayon pool.
//!
//! A kernel cuts its work into numbered tasks and calls [`for_each`]. The tasks are fixed by the shape of the data, never
//! by the number of threads, and each writes its own part of the output: who runs which task cannot change a bit.
//!
//! The thread that calls takes part in the work and never waits for a helper that has not come: helpers are invited
//! ([`rayon::spawn`]) and those that find the work done go away again. So a busy pool costs speed, not progress, and
//! nothing here can deadlock. The pool is the one that the caller is in
//! ([`rayon::ThreadPool::install`]) or the global one; with one thread nothing is spawned and the tasks run in a plain
//! loop. Calls from inside a task run serially.
//!
//! Waking a sleeping thread takes 20 to 50 µs, which is more than a small layer of a small model takes altogether. Inside
//! [`team`] the helpers stay awake between the calls: they spin for a moment, then yield the processor, and after a
//! millisecond without work they leave and will be invited anew. A call then costs about a microsecond to hand out.
//! When a team ends they wait a fifth of a millisecond for the thread's next one, unless another team asks for helpers: a
//! token follows another sooner, and on a virtual machine a thread may take half a millisecond to wake up.
//!
//! The child of a `fork` has none of the pool's threads, and would wait for them for ever: there
//! each thread works alone.
//!
//! Each thread starts in its own contiguous share of the tasks, the same for each call of a team, so what it wrote in
//! one kernel is in its own cache for the next; when the share is done it helps in the others'.
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

use std::any::Any;
use std::cell::{Cell, UnsafeCell};
use std::marker::PhantomData;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::simd::{Setting, setting, with_setting};

/// The number of threads that [`for_each`] shares the work between: 1 inside a task.
pub fn threads() -> usize {
    if FORKED.load(Ordering::Relaxed) {
        adopt();
        return 1;
    }
    match ROLE.get() {
        Role::InTask => 1,
        _ => rayon::current_num_threads(),
    }
}

/// Calls `f` with 0, 1, …, `n_tasks - 1`, on as many threads as the caller's pool has, and returns when all are done.
///
/// A task should take 20 µs or more ([`chunk_len`] helps to choose), a few inside a [`team`].
///
/// # Panics
///
/// With the panic of a task, once no task runs any more; the tasks not yet begun are dropped.
pub fn for_each(n_tasks: usize, f: impl Fn(usize) + Sync) {
    let threads = if n_tasks > 1 { threads() } else { 1 };
    if threads == 1 {
        return (0..n_tasks).for_each(f);
    }
    match ROLE.get() {
        // SAFETY: the pointer is that of the crew which `team`, further up on this thread's stack, keeps alive.
        Role::Captain(crew) => unsafe { &*crew }.run(n_tasks, &f),
        _ => Crew::new(threads, false).run(n_tasks, &f),
    }
}

/// Cuts `data` into chunks of `chunk` elements, the last maybe shorter, and calls `f` with each one's index and content.
///
/// # Panics
///
/// If `chunk` is zero, or as [`for_each`].
pub fn chunks_mut<T: Send>(data: &mut [T], chunk: usize, f: impl Fn(usize, &mut [T]) + Sync) {
    let parts = Parts::new(data, chunk);
    // SAFETY: every task takes the chunk of its own number.
    for_each(parts.count(), |i| f(i, unsafe { parts.get(i) }));
}

/// Runs `f` on this thread while the helpers of the calls inside it stay awake between them.
///
/// It does nothing where it could not help: with one thread, inside another team, inside a task.
pub fn team<R: Send>(f: impl FnOnce() -> R + Send) -> R {
    if threads() == 1 || !matches!(ROLE.get(), Role::Free) {
        return f();
    }
    let kept = KEPT.try_with(Cell::take).ok().flatten().filter(|crew| crew.0.shares.len() == threads());
    let crew = Kept(Some(kept.unwrap_or_else(|| Crew::new(threads(), true))));
    let crew = crew.0.as_ref().expect("taken when dropped");
    crew.0.rests.store(false, Ordering::Release);
    let _role = AsRole::new(Role::Captain(crew));
    f()
}

/// How many elements a task should have, of `len` in all that are done in units of `unit` at `ns_per_unit` each: at least
/// as much work as handing it out is worth, few enough that every thread gets some.
///
/// Only for work whose bits do not depend on where it is cut.
pub fn chunk_len(len: usize, unit: usize, ns_per_unit: f32) -> usize {
    let worth = match ROLE.get() {
        Role::Captain(_) => WORTH_IN_TEAM,
        _ => WORTH_A_WAKE,
    };
    let units = len.div_ceil(unit.max(1));
    let least = ((worth.as_nanos() as f32 / ns_per_unit.max(1e-3)) as usize).saturating_add(1);
    let threads = if units <= least { 1 } else { threads() };
    if threads == 1 {
        return len.max(1);
    }
    // Four chunks a thread even out threads of unequal speed.
    units.div_ceil(4 * threads).max(least).saturating_mul(unit.max(1))
}

/// A task shorter than this is not worth a sleeping thread.
const WORTH_A_WAKE: Duration = Duration::from_micros(25);
/// A task shorter than this is not worth a thread that is awake.
const WORTH_IN_TEAM: Duration = Duration::from_micros(3);
/// How long a helper of a team spins before it yields.
const SPIN: Duration = Duration::from_micros(100);
/// How long a helper of a team waits before it leaves.
const PATIENCE: Duration = Duration::from_millis(1);
/// How long it waits when the team has ended.
const REST: Duration = Duration::from_micros(200);

/// A mutable slice cut into chunks that different tasks take, for kernels with several outputs.
pub struct Parts<'a, T> {
    data: *mut T,
    len: usize,
    chunk: usize,
    _slice: PhantomData<&'a mut [T]>,
}

// SAFETY: a shared `Parts` gives out `&mut T`s, disjoint by the contract of `get`, to other threads: what `T: Send` allows.
unsafe impl<T: Send> Sync for Parts<'_, T> {}
// SAFETY: it is a `&mut [T]`.
unsafe impl<T: Send> Send for Parts<'_, T> {}

impl<'a, T> Parts<'a, T> {
    /// Chunks of `chunk` elements, the last maybe shorter.
    ///
    /// # Panics
    ///
    /// If `chunk` is zero.
    pub fn new(data: &'a mut [T], chunk: usize) -> Self {
        assert!(chunk > 0, "a chunk needs an element");
        Parts { data: data.as_mut_ptr(), len: data.len(), chunk, _slice: PhantomData }
    }

    /// The number of chunks.
    pub fn count(&self) -> usize {
        self.len.div_ceil(self.chunk)
    }

    /// Where chunk `i` lies in the slice.
    pub fn range(&self, i: usize) -> Range<usize> {
        let start = i.saturating_mul(self.chunk).min(self.len);
        start..start.saturating_add(self.chunk).min(self.len)
    }

    /// Chunk `i`; empty past the end.
    ///
    /// # Safety
    ///
    /// - no other reference to chunk `i` is alive.
    #[allow(clippy::mut_from_ref)]
    pub unsafe fn get(&self, i: usize) -> &mut [T] {
        // SAFETY: the contract.
        unsafe { self.slice(self.range(i)) }
    }

    /// Any part of the slice, for tasks that do not take chunks.
    ///
    /// # Safety
    ///
    /// - no other reference to an element of the part is alive.
    ///
    /// # Panics
    ///
    /// If the range is not within the slice.
    #[allow(clippy::mut_from_ref)]
    pub unsafe fn slice(&self, range: Range<usize>) -> &mut [T] {
        assert!(range.start <= range.end && range.end <= self.len, "a part within the slice");
        // SAFETY: the range is within the slice, which is borrowed mutably as long as `self`; the rest is the contract.
        unsafe { std::slice::from_raw_parts_mut(self.data.add(range.start), range.len()) }
    }
}

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
static FORKED: AtomicBool = AtomicBool::new(false);

/// Lets the system tell a child that it is one: no question to the system is cheap enough for every
/// call.
fn watch_forks() {
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
        // SAFETY: the system's own function, by its declaration; the handler stores a number and nothing else.
        WATCHES.call_once(|| unsafe {
            pthread_atfork(None, None, Some(child));
        });
    }
}

// ---- how

/// What this thread is doing.
#[derive(Clone, Copy)]
enum Role {
    /// Nothing of ours.
    Free,
    /// Inside `team`, outside `for_each`.
    Captain(*const Crew),
    /// Inside a task, or waiting for one as a helper.
    InTask,
}

thread_local! {
    static ROLE: Cell<Role> = const { Cell::new(Role::Free) };
    /// The crew of this thread's last team: a thread belongs to one pool as long as it lives.
    static KEPT: Cell<Option<Crew>> = const { Cell::new(None) };
}

/// Invitations that no thread has followed yet: of all teams, in any pool.
static INVITATIONS: AtomicUsize = AtomicUsize::new(0);

/// Sets the role until dropped.
struct AsRole(Role);

impl AsRole {
    fn new(role: Role) -> Self {
        AsRole(ROLE.replace(role))
    }
}

impl Drop for AsRole {
    fn drop(&mut self) {
        ROLE.set(self.0);
    }
}

/// The tasks of one call, with the type of the function taken away.
#[derive(Clone, Copy)]
struct Job {
    f: *const (),
    call: unsafe fn(*const (), usize),
    n_tasks: usize,
    setting: Setting,
}

/// On its own cache line, or pair of them, so that threads that count in neighbours do not disturb each other.
#[repr(align(128))]
struct Padded<T>(T);

/// One captain, who has the `Crew`, and the helpers, who share its state.
struct Crew(Arc<CrewState>);

/// What captain and helpers share.
///
/// `state` is the whole protocol: `epoch << 32 | OPEN | inside`. The captain writes `job` while the state is not open and
/// nobody is inside; opens it, which also counts the epoch up; works; closes it; waits until nobody is inside. A helper
/// adds itself to those inside and looks at what it added to: only if that was open may it read `job`, otherwise it takes
/// itself off again. All of that happens to one atomic number, so there is no order to get wrong.
struct CrewState {
    state: Padded<AtomicU64>,
    shares: Box<[Padded<Share>]>,
    job: UnsafeCell<Option<Job>>,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
    /// Whether helpers wait for the next job.
    stays: bool,
    /// Whether the team has ended, and another may follow.
    rests: AtomicBool,
    dismissed: AtomicBool,
}

/// The contiguous part of the tasks that one thread does first.
struct Share {
    /// The next task.
    next: AtomicUsize,
    /// Whether a helper was invited to it and has not left.
    taken: AtomicBool,
}

// SAFETY: `job` is the only field that is not `Sync`, and `state` keeps its writes from its reads, see above. What the
// job points to is `Sync` (`for_each` asks for it) and alive as long as the state is open or somebody is inside.
unsafe impl Sync for CrewState {}
// SAFETY: as above.
unsafe impl Send for CrewState {}

const OPEN: u64 = 1 << 31;
const INSIDE: u64 = OPEN - 1;
const EPOCH: u64 = 1 << 32;

impl Crew {
    fn new(threads: usize, stays: bool) -> Crew {
        watch_forks();
        let share = |_| Padded(Share { next: AtomicUsize::new(0), taken: AtomicBool::new(false) });
        Crew(Arc::new(CrewState {
            state: Padded(AtomicU64::new(0)),
            shares: (0..threads).map(share).collect(),
            job: UnsafeCell::new(None),
            panic: Mutex::new(None),
            stays,
            rests: AtomicBool::new(false),
            dismissed: AtomicBool::new(false),
        }))
    }

    /// The captain's part of a job. There is one captain, and it is inside one job at a time: `Crew` is not shared.
    fn run<F: Fn(usize) + Sync>(&self, n_tasks: usize, f: &F) {
        unsafe fn call<F: Fn(usize)>(f: *const (), task: usize) {
            // SAFETY: `f` was made from a `&F` below, which outlives the job.
            unsafe { (*f.cast::<F>())(task) }
        }
        let crew = &*self.0;
        let job = Job { f: (f as *const F).cast(), call: call::<F>, n_tasks, setting: setting() };
        // SAFETY: not open and nobody inside: before the first job, and whenever `Close` was dropped.
        unsafe { *crew.job.get() = Some(job) };
        for (i, share) in crew.shares.iter().enumerate() {
            share.0.next.store(crew.tasks(n_tasks, i).start, Ordering::Relaxed);
        }
        {
            crew.state.0.fetch_add(EPOCH | OPEN, Ordering::SeqCst);
            let _close = Close(crew);
            self.invite(n_tasks);
            let _role = AsRole::new(Role::InTask);
            crew.work(&job, 0);
        }
        let panic = crew.panic.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(panic) = panic {
            resume_unwind(panic);
        }
    }

    /// Asks the pool for the helpers that are missing.
    fn invite(&self, n_tasks: usize) {
        let useful = self.0.shares.len().min(n_tasks);
        for i in 1..useful {
            if !self.0.shares[i].0.taken.swap(true, Ordering::SeqCst) {
                let crew = Arc::clone(&self.0);
                INVITATIONS.fetch_add(1, Ordering::Relaxed);
                rayon::spawn(move || {
                    INVITATIONS.fetch_sub(1, Ordering::Relaxed);
                    crew.help(i);
                });
            }
        }
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        self.0.dismissed.store(true, Ordering::Release);
    }
}

/// A crew in a team, which rests when it is dropped.
struct Kept(Option<Crew>);

impl Drop for Kept {
    fn drop(&mut self) {
        if let Some(crew) = self.0.take() {
            crew.0.rests.store(true, Ordering::Release);
            // A thread that ends keeps nothing.
            let _ = KEPT.try_with(|kept| kept.set(Some(crew)));
        }
    }
}

/// Ends a job, also when the captain panics: lets nobody in, waits until all are out.
struct Close<'a>(&'a CrewState);

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

impl CrewState {
    /// The tasks of share `i`.
    fn tasks(&self, n_tasks: usize, i: usize) -> Range<usize> {
        let shares = self.shares.len();
        n_tasks * i / shares..n_tasks * (i + 1) / shares
    }

    /// Takes tasks until none is left: of the own share first, then of the others'. Keeps a panic for the captain.
    fn work(&self, job: &Job, own: usize) {
        let shares = self.shares.len();
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            for i in (own..shares).chain(0..own) {
                let end = self.tasks(job.n_tasks, i).end;
                let next = &self.shares[i].0.next;
                // Looking before counting leaves the line of a finished share shared.
                while next.load(Ordering::Relaxed) < end {
                    let task = next.fetch_add(1, Ordering::Relaxed);
                    if task < end {
                        // SAFETY: `job` is open or we are counted inside, so its function is alive.
                        unsafe { (job.call)(job.f, task) };
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

    /// A helper's part, on a thread of the pool.
    fn help(&self, own: usize) {
        // A captain that waits for something else of rayon's may find its own invitation; it must not wait for itself.
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
                    // SAFETY: we are inside an open job: the captain wrote it before and will not until we leave.
                    let job = unsafe { (*self.job.get()).expect("an open crew has a job") };
                    with_setting(job.setting, || self.work(&job, own));
                }
                self.state.0.fetch_sub(1, Ordering::AcqRel);
                if !self.stays {
                    return;
                }
            }
            // A job that was opened while we made up our mind saw the share taken and invited nobody: look again after
            // giving it back. Either we see the job or the captain sees the share free, hence the strict order.
            let share = &self.shares[own].0;
            share.taken.store(false, Ordering::SeqCst);
            let state = self.state.0.load(Ordering::SeqCst);
            let missed = state & OPEN != 0 && state / EPOCH != epoch_done;
            if !missed || share.taken.swap(true, Ordering::SeqCst) {
                return;
            }
        }
    }

    /// Waits until a job after `epoch_done` is open; false if it is time to leave.
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
            let rests = self.rests.load(Ordering::Acquire);
            let waited = since.get_or_insert_with(Instant::now).elapsed();
            if waited > if rests { REST } else { PATIENCE } || rests && INVITATIONS.load(Ordering::Relaxed) > 0 {
                return false;
            }
            if waited > SPIN {
                std::thread::yield_now();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::simd::{Level, level, with_level};
    use super::*;

    fn pool(threads: usize) -> rayon::ThreadPool {
        rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap()
    }

    #[test]
    fn every_task_runs_once() {
        for threads in 1..=4 {
            pool(threads).install(|| {
                for n in [0, 1, 2, 3, 7, 64, 1000] {
                    let counts: Vec<AtomicUsize> = (0..n).map(|_| AtomicUsize::new(0)).collect();
                    let count = |i: usize| {
                        counts[i].fetch_add(1, Ordering::Relaxed);
                    };
                    for_each(n, count);
                    team(|| (0..50).for_each(|_| for_each(n, count)));
                    assert!(counts.iter().all(|c| c.load(Ordering::Relaxed) == 51), "{threads} threads, {n} tasks");
                }
            });
        }
    }

    #[test]
    fn callers_outside_a_pool_are_served() {
        let sum = AtomicUsize::new(0);
        for_each(100, |i| {
            sum.fetch_add(i, Ordering::Relaxed);
        });
        team(|| {
            for_each(100, |i| {
                sum.fetch_add(i, Ordering::Relaxed);
            })
        });
        assert_eq!(sum.into_inner(), 2 * 4950);
    }

    #[test]
    fn chunks_cover_the_slice() {
        pool(3).install(|| {
            let mut x = vec![0usize; 1001];
            chunks_mut(&mut x, 10, |chunk, part| part.iter_mut().enumerate().for_each(|(i, x)| *x = 10 * chunk + i));
            assert!(x.iter().enumerate().all(|(i, &x)| i == x));
            chunks_mut(&mut x[..0], 10, |_, _| panic!("an empty slice has no chunks"));
        });
    }

    #[test]
    fn one_thread_runs_in_order_on_the_caller() {
        pool(1).install(|| {
            let here = std::thread::current().id();
            let seen = Mutex::new(Vec::new());
            team(|| {
                for_each(5, |i| {
                    assert_eq!(std::thread::current().id(), here);
                    seen.lock().unwrap().push(i);
                })
            });
            assert_eq!(seen.into_inner().unwrap(), [0, 1, 2, 3, 4]);
        });
    }

    #[test]
    fn helpers_do_come() {
        pool(2).install(|| {
            let both = std::sync::Barrier::new(2);
            let meet = || {
                for_each(2, |_| {
                    both.wait();
                })
            };
            meet();
            team(|| (0..100).for_each(|_| meet()));
            // The helper of the team before may rest, leave or be gone.
            for pause in [0, 0, 50, 190, 200, 210, 400] {
                std::thread::sleep(Duration::from_micros(pause));
                team(|| (0..3).for_each(|_| meet()));
            }
        });
    }

    #[test]
    fn calls_inside_a_task_run_on_its_thread() {
        pool(4).install(|| {
            for_each(8, |_| {
                let here = std::thread::current().id();
                assert_eq!(threads(), 1);
                team(|| for_each(8, |_| assert_eq!(std::thread::current().id(), here)));
            });
            assert_eq!(threads(), 4);
        });
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_team_lives_on() {
        pool(3).install(|| {
            team(|| {
                for bad in [0, 17, 99] {
                    let outcome = catch_unwind(AssertUnwindSafe(|| {
                        for_each(100, |i| {
                            if i == bad {
                                panic!("task {i}")
                            }
                        });
                    }));
                    let message = outcome.unwrap_err().downcast::<String>().unwrap();
                    assert_eq!(*message, format!("task {bad}"));
                }
                let count = AtomicUsize::new(0);
                for_each(100, |_| {
                    count.fetch_add(1, Ordering::Relaxed);
                });
                assert_eq!(count.into_inner(), 100);
            });
            assert!(matches!(ROLE.get(), Role::Free));
        });
    }

    #[test]
    fn the_level_reaches_the_helpers() {
        pool(2).install(|| {
            let both = std::sync::Barrier::new(2);
            with_level(Level::Portable, || {
                for_each(2, |_| {
                    both.wait();
                    assert_eq!(level(), Level::Portable);
                })
            });
            let best = level();
            for_each(2, |_| {
                both.wait();
                assert_eq!(level(), best);
            });
        });
    }

    #[test]
    fn a_team_may_use_rayon_itself() {
        pool(2).install(|| {
            team(|| {
                for _ in 0..20 {
                    let count = AtomicUsize::new(0);
                    let work = || {
                        for_each(4, |_| {
                            count.fetch_add(1, Ordering::Relaxed);
                        })
                    };
                    rayon::join(work, work);
                    work();
                    assert_eq!(count.into_inner(), 12);
                }
            })
        });
    }

    #[test]
    fn many_teams_on_a_small_pool_finish() {
        let pool = pool(2);
        let total = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for thread in 0..8 {
                let (pool, total) = (&pool, &total);
                let call = move || {
                    for_each(5, |_| {
                        total.fetch_add(1, Ordering::Relaxed);
                    });
                };
                let job = move || (0..20).for_each(|_| team(|| (0..10).for_each(|_| call())));
                // Half of them as guests of the small pool, half outside, on the global one.
                scope.spawn(move || if thread % 2 == 0 { pool.install(job) } else { job() });
            }
        });
        assert_eq!(total.into_inner(), 8 * 200 * 5);
    }

    #[test]
    fn chunks_are_worth_their_thread() {
        pool(2).install(|| {
            assert_eq!(chunk_len(0, 1, 1.0), 1);
            assert_eq!(chunk_len(1000, 1, 1.0), 1000);
            let alone = chunk_len(100_000, 8, 8.0);
            let in_team = team(|| chunk_len(100_000, 8, 8.0));
            assert!(in_team <= alone && alone < 100_000 && in_team % 8 == 0, "{in_team} {alone}");
        });
    }
}
