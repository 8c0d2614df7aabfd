//! Opening, using and dropping tokenizers leaks no memory.
//!
//! Every allocation is counted. A single test, so that nothing else allocates at the same time.

#![cfg(feature = "tokenizers")]
#![allow(unsafe_code, clippy::unwrap_used)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use loquat::text::{Tokenizer, TokenizerTrainer};

struct Counted;

static NOW: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is forwarded to the system allocator.
unsafe impl GlobalAlloc for Counted {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        NOW.fetch_add(layout.size(), Relaxed);
        // SAFETY: same contract as this function.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, data: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size(), Relaxed);
        // SAFETY: same contract as this function.
        unsafe { System.dealloc(data, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counted = Counted;

#[test]
fn twelve_thousand_tokenizers_leak_no_memory() {
    let text = ["The cat sat on the mat, größer 猫 22!", "  two  spaces\n\nand a line"];
    let bpe = TokenizerTrainer::byte_level_bpe().vocab_size(270).train(text).unwrap().to_json().unwrap();
    // With a custom split, and byte-pair tokens that are not bytes.
    let split = r#"{"type":"Split","pattern":{"Regex":"\\s+(?!\\S)|\\w+"},"behavior":"Isolated","invert":false}"#;
    let plain = format!(
        r#"{{"version":"1.0","added_tokens":[],"normalizer":null,"pre_tokenizer":{split},"post_processor":null,
        "decoder":null,"model":{{"type":"BPE","unk_token":"a","vocab":{{"a":0,"b":1,"ab":2}},"merges":["a b"]}}}}"#
    );
    let pieces = TokenizerTrainer::word_piece().vocab_size(60).train(text).unwrap().to_json().unwrap();
    let unigram = TokenizerTrainer::unigram().vocab_size(60).train(text).unwrap().to_json().unwrap();
    let all = [bpe, plain, pieces, unigram];
    let open = |json: &String| {
        let tokenizer = Tokenizer::from_bytes(json).unwrap();
        for text in text {
            let ids = tokenizer.encode_without_special(text).unwrap();
            let _ = tokenizer.decode(&ids).unwrap();
            assert!(!tokenizer.encode(text).unwrap().is_empty());
        }
    };
    // After a few openings the libraries have allocated what they keep for the process and this
    // thread.
    (0..50).for_each(|i| open(&all[i % 4]));
    let before = NOW.load(Relaxed);
    (0..12_000).for_each(|i| open(&all[if i % 100 < 97 { i % 2 } else { i % 4 }]));
    let after = NOW.load(Relaxed);
    assert!(after < before + 4096, "{} bytes more", after - before);
}
