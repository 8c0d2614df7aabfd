//! Hostile files, quickly: the corpus of `tests/fuzz`, each file unchanged, truncated, and changed
//! at random, with a limit on allocations. `LOQUAT_FUZZ_SECONDS=600` runs each target for that
//! long, and keeps the input of a failure.

#![allow(clippy::unwrap_used)]
#![cfg(all(feature = "chat", feature = "tokenizers"))]
// A test must install its own allocator to measure allocations.
#![allow(unsafe_code)]

#[path = "fuzz/targets.rs"]
mod targets;
#[path = "fuzz/templates.rs"]
mod templates;

use std::alloc::{GlobalAlloc, Layout, System};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use loquat::Rng;
use templates::below;

struct Watched;

/// The message of the last panic.
static PANIC: Mutex<Option<String>> = Mutex::new(None);

/// The largest allocated block.
static LARGEST: AtomicUsize = AtomicUsize::new(0);
/// The bytes in use, and their maximum.
static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is forwarded unchanged to the system allocator.
unsafe impl GlobalAlloc for Watched {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LARGEST.fetch_max(layout.size(), Ordering::Relaxed);
        let live = LIVE.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK.fetch_max(live, Ordering::Relaxed);
        // SAFETY: the caller's contract is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the block came from `alloc`, that is, from the system allocator.
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static WATCHED: Watched = Watched;

/// Bytes that may be allocated for any file: tables of the tokenizer library, messages, stacks of
/// threads.
const ALWAYS: usize = 4 << 20;

/// Targets that may use what their own limits allow, on a stack of 2 MB: a total of bytes, and a
/// processor time (checked only if the fuzzing is timed).
const BUDGETED: [&str; 2] = ["chat", "tokenizer"];
const STACK: usize = 2 << 20;
const MEMORY: usize = 256 << 20;
const TIME: Duration = Duration::from_secs(1);

/// The processor time of this thread, on systems that report it.
fn ran() -> Option<Duration> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    text.split(' ').next()?.parse().ok().map(Duration::from_nanos)
}

/// The number of changes of a target's files if no time is given; a tenth of it for the targets
/// with limits of their own.
const CHANGES: u64 = 10_000;

/// Replays the corpus of a target, then changes of it.
fn replay(name: &str) {
    let (_, target) = targets::TARGETS.into_iter().find(|(target, _)| *target == name).unwrap();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus").join(name);
    let mut files: Vec<PathBuf> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let corpus: Vec<Vec<u8>> = files.iter().map(|path| std::fs::read(path).unwrap()).collect();
    assert!(!corpus.is_empty());
    let seconds: Option<u64> = std::env::var("LOQUAT_FUZZ_SECONDS").ok().and_then(|s| s.parse().ok());
    let budgeted = BUDGETED.contains(&name);
    let mut slowest = Duration::ZERO;
    let mut largest_use = 0;
    let mut run = |data: &[u8]| {
        LARGEST.store(0, Ordering::Relaxed);
        let before = LIVE.load(Ordering::Relaxed);
        PEAK.store(before, Ordering::Relaxed);
        // The input is kept until it has passed.
        let failing = targets::scratch().join(format!("failing-{name}"));
        std::fs::write(&failing, data).unwrap();
        // A panic that the crate catches is a failure too: the hook has printed it to the user.
        let hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(|panic| *PANIC.lock().unwrap() = Some(panic.to_string())));
        // On a new thread, so that what a library caches per thread is freed after each file.
        let timed = || {
            target(data);
            ran().unwrap_or_default()
        };
        let time = std::thread::scope(|scope| {
            std::thread::Builder::new().stack_size(STACK).spawn_scoped(scope, timed).unwrap().join()
        });
        std::panic::set_hook(hook);
        let panic = PANIC.lock().unwrap().take();
        let Ok(time) = time else { panic!("{name}: {} over {}", panic.unwrap_or_default(), failing.display()) };
        assert!(panic.is_none(), "{name}: {} over {}", panic.unwrap_or_default(), failing.display());
        slowest = slowest.max(time);
        let used = PEAK.load(Ordering::Relaxed) - before;
        largest_use = largest_use.max(used);
        assert!(!budgeted || used <= MEMORY, "{name}: {used} bytes together for {}", failing.display());
        assert!(!budgeted || seconds.is_none() || time <= TIME, "{name}: {time:?} for {}", failing.display());
        let largest = LARGEST.load(Ordering::Relaxed);
        assert!(
            budgeted || largest <= ALWAYS + 2 * data.len(),
            "{name}: {largest} bytes for {} of {}",
            failing.display(),
            data.len()
        );
        std::fs::remove_file(failing).unwrap();
    };
    corpus.iter().for_each(|data| run(data));
    let until = seconds.map(|seconds| Instant::now() + Duration::from_secs(seconds));
    let mut rng = Rng::seed(seconds.unwrap_or(1));
    let changes = if budgeted { CHANGES / 10 } else { CHANGES };
    let mut runs = 0u64;
    while until.map_or(runs < changes, |until| Instant::now() < until) {
        let data = if name == "chat" { of_grammar(&corpus, &mut rng) } else { changed(&corpus, &mut rng) };
        run(&data);
        runs += 1;
    }
    eprintln!(
        "{name}: {} files, {runs} changes of them; at most {slowest:?} and {largest_use} bytes together",
        corpus.len()
    );
}

/// A template of the grammar, unchanged or changed, or a changed template of the corpus.
fn of_grammar(corpus: &[Vec<u8>], rng: &mut Rng) -> Vec<u8> {
    match below(rng, 4) {
        0 => templates::template(rng).into_bytes(),
        1 => changed(&[templates::template(rng).into_bytes()], rng),
        _ => changed(corpus, rng),
    }
}

/// A file of the corpus with a few changes: bytes, numbers, digits, parts removed, repeated, or
/// taken from another file.
fn changed(corpus: &[Vec<u8>], rng: &mut Rng) -> Vec<u8> {
    let mut data = corpus[below(rng, corpus.len())].clone();
    // Half of the changes are in the first bytes, where headers are.
    for _ in 0..1 + below(rng, 4) {
        if data.is_empty() {
            return data;
        }
        let within = if rng.uniform() < 0.5 { data.len() } else { data.len().min(400) };
        let at = below(rng, within);
        match below(rng, 9) {
            0 => data[at] ^= 1 << below(rng, 8),
            1 => data[at] = below(rng, 256) as u8,
            2 => data.truncate(at),
            3 => {
                let end = (at + 8).min(data.len());
                let numbers = [0u64, 1, 255, 1 << 31, u64::from(u32::MAX), 1 << 40, 1 << 62, u64::MAX];
                let number = numbers[below(rng, numbers.len())].to_le_bytes();
                data[at..end].copy_from_slice(&number[..end - at]);
            }
            4 => {
                let end = at + below(rng, (data.len() - at).min(64) + 1);
                data.drain(at..end);
            }
            5 => {
                let end = at + below(rng, (data.len() - at).min(64) + 1);
                let part = data[at..end].to_vec();
                data.splice(at..at, part);
            }
            6 => {
                let other = &corpus[below(rng, corpus.len())];
                let start = below(rng, other.len());
                let end = start + below(rng, (other.len() - start).min(64) + 1);
                data.splice(at..at, other[start..end].iter().copied());
            }
            // A number in text.
            7 => match data[at..].iter().position(u8::is_ascii_digit) {
                Some(digit) => {
                    let numbers = ["-1", "0", "1e9", "99999999999", "18446744073709551615", "1.5", "null", "[]"];
                    let number = numbers[below(rng, numbers.len())];
                    data.splice(at + digit..at + digit + 1, number.bytes());
                }
                None => data[at] = b'9',
            },
            _ => data[at] = data[at].wrapping_add(1),
        }
    }
    data
}

/// A single test, because the scratch files and the largest block are those of the whole process.
#[test]
fn hostile_files_neither_panic_nor_allocate_beyond_their_size() {
    let only = std::env::var("LOQUAT_FUZZ_TARGET").ok();
    for (name, _) in targets::TARGETS.into_iter().filter(|(name, _)| only.as_deref().is_none_or(|only| only == *name)) {
        replay(name);
    }
    std::fs::remove_dir_all(targets::scratch()).unwrap();
}
