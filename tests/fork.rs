//! The child of a `fork` has none of its parent's threads. It does not wait for them: it computes
//! on one thread, with the bits of the parent.

#![cfg(unix)]
#![allow(unsafe_code, clippy::unwrap_used)]

use std::ffi::c_int;

use loquat::kernels::parallel;
use loquat::nn::Linear;
use loquat::{Rng, Tensor};

unsafe extern "C" {
    fn fork() -> c_int;
    fn waitpid(pid: c_int, status: *mut c_int, options: c_int) -> c_int;
    fn alarm(seconds: u32) -> u32;
    fn _exit(status: c_int) -> !;
}

/// Returns the result of `f` in a child process; an alarm ends a child that hangs.
fn in_child(f: impl FnOnce() -> bool) -> bool {
    // SAFETY: the child only calls `f`, touches no other thread of the parent, and ends without
    // unwinding.
    unsafe {
        match fork() {
            0 => {
                alarm(60);
                let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(f));
                _exit(c_int::from(!outcome.unwrap_or(false)))
            }
            child => {
                assert!(child > 0, "fork failed");
                let mut status = 0;
                assert_eq!(waitpid(child, &mut status, 0), child);
                status == 0
            }
        }
    }
}

/// Products and gradients that are large enough for several threads.
fn work() -> Vec<u32> {
    let mut rng = Rng::seed(1);
    let layer = Linear::init(256, 300, true, &mut rng).unwrap();
    let x = Tensor::normal(&[400, 256], 1.0, &mut rng);
    let mut bits = Vec::new();
    parallel::team(|| {
        for _ in 0..3 {
            let y = layer.forward(&x).unwrap().gelu();
            let gradients = y.softmax().unwrap().mul(&y).unwrap().sum().unwrap().backward().unwrap();
            bits.extend(gradients.of(layer.weight.tensor()).unwrap().data().iter().map(|x| x.to_bits()));
        }
    });
    bits
}

// A single test, because a lock that another thread holds at the fork stays locked in the child.
#[test]
fn a_child_works_alone_with_its_parents_bits() {
    let expected = work();
    assert!(in_child(|| work() == expected));
    assert!(in_child(|| work() == expected && in_child(|| work() == expected)), "a child's child");
    assert_eq!(work(), expected, "the parent has its threads");
    #[cfg(feature = "tokenizers")]
    batches();
}

/// Batches of texts are distributed to the threads by another code path.
#[cfg(feature = "tokenizers")]
fn batches() {
    let texts: Vec<String> = (0..200).map(|i| format!("the cat sat on mat {i}")).collect();
    let tokenizer = loquat::text::TokenizerTrainer::byte_level_bpe().vocab_size(300).train(&texts).unwrap();
    let run = || {
        let encoded = tokenizer.encode_batch(&texts).unwrap();
        let ids: Vec<Vec<u32>> = encoded.into_iter().map(|encoding| encoding.input_ids).collect();
        tokenizer.decode_batch(&ids).unwrap()
    };
    let expected = run();
    assert!(in_child(|| run() == expected));
}
