use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use super::*;
use crate::kernels::simd::{Level, level, with_level};

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
fn workers_do_come() {
    pool(2).install(|| {
        let both = std::sync::Barrier::new(2);
        let meet = || {
            for_each(2, |_| {
                both.wait();
            })
        };
        meet();
        team(|| (0..100).for_each(|_| meet()));
        // The worker of the previous team may be idle, leaving or gone.
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
fn the_level_reaches_the_workers() {
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
            // Half of them inside the small pool, half outside, on the global one.
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
