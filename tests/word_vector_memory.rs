//! Training word vectors uses the documented memory, and no more for a longer text.
//!
//! Every allocation is counted. A single test, so that nothing else allocates at the same time.

#![allow(unsafe_code, clippy::unwrap_used)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use loquat::embeddings::{Glove, TrainingText, Word2Vec};

struct Counted;

static NOW: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is forwarded to the system allocator.
unsafe impl GlobalAlloc for Counted {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        PEAK.fetch_max(NOW.fetch_add(layout.size(), Relaxed) + layout.size(), Relaxed);
        // SAFETY: same contract as this function.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, data: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size(), Relaxed);
        // SAFETY: same contract as this function.
        unsafe { System.dealloc(data, layout) }
    }

    // Large blocks grow in place or by moving pages: the old and the new block do not coexist.
    unsafe fn realloc(&self, data: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        NOW.fetch_sub(layout.size(), Relaxed);
        PEAK.fetch_max(NOW.fetch_add(size, Relaxed) + size, Relaxed);
        // SAFETY: same contract as this function.
        unsafe { System.realloc(data, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counted = Counted;

/// Returns the peak number of bytes in use during `work`, and its result.
fn peak<R>(work: impl FnOnce() -> R) -> (usize, R) {
    let before = NOW.load(Relaxed);
    PEAK.store(before, Relaxed);
    let result = work();
    (PEAK.load(Relaxed) - before, result)
}

/// `n` sentences of twelve words of `words`.
fn text(n: usize, words: usize) -> TrainingText<'static> {
    let word = move |i: usize, k: usize| format!("w{}", (i * 7919 + k * k * 104_729 + i * k) % words);
    TrainingText::sentences(move || (0..n).map(move |i| (0..12).map(|k| word(i, k)).collect()))
}

#[test]
fn memory_is_that_of_the_settings_and_not_of_the_text() {
    const MB: usize = 1 << 20;
    let threads = 2;

    // Two tables, and buffers: 1.5 MB a thread, of which most is text.
    let word2vec = Word2Vec::skip_gram().dim(200).window(1).negative_samples(1).epochs(1).min_count(1).threads(threads);
    let tables = 10_000 * 200 * 8;
    let (short, vectors) = peak(|| word2vec.train(&text(10_000, 10_000)).unwrap());
    assert_eq!(vectors.len(), 10_000);
    let (long, _) = peak(|| word2vec.train(&text(200_000, 10_000)).unwrap());
    eprintln!("word2vec: tables {tables}, peak {short}, text 20 times as long {long}");
    assert!(long < tables * 6 / 5 + threads * 3 * MB / 2, "{long}");
    assert!(long as f64 <= 1.05 * short as f64, "{short} {long}");

    // Counting stays within its limit, which includes the vocabulary but not the text that is being
    // read.
    let mut pairs = Vec::new();
    for mb in [16, 24, 64, 400] {
        let glove = Glove::new().window(8).min_count(1).threads(threads).memory_mb(mb);
        let quiet = &mut |_: &loquat::embeddings::Progress| std::ops::ControlFlow::Continue(());
        let (peak, counts) = peak(|| glove.count(&text(150_000, 30_011), quiet).unwrap());
        eprintln!("glove: {} pairs counted in {mb} MB, peak {:.1} MB", counts.pairs(), peak as f64 / MB as f64);
        assert!(peak < (mb + threads * 3 / 2) * MB, "{mb} MB: {peak}");
        pairs.push(counts.pairs());
    }
    assert!(pairs[0] > 1_500_000 && pairs.iter().all(|n| *n == pairs[0]), "{pairs:?}");
}
