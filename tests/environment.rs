//! The effects of environment variables, each in a process of its own.

#![allow(clippy::unwrap_used)]

use std::process::Command;

use loquat::Rng;
use loquat::nn::Linear;

/// Runs one of the ignored tests of this file with `LOQUAT_ISA` set.
fn run(test: &str, isa: &str) -> bool {
    let this = std::env::current_exe().unwrap();
    let status = Command::new(this).args(["--exact", test, "--ignored", "--quiet"]).env("LOQUAT_ISA", isa).status();
    status.unwrap().success()
}

#[test]
fn an_instruction_set_that_is_not_there_is_an_error_and_no_panic() {
    assert!(run("a_layer_is_refused", "avx3"));
    assert!(run("a_layer_is_refused", "AVX2"));
    assert!(run("a_layer_is_made", ""));
    assert!(run("a_layer_is_made", "portable"));
}

#[test]
#[ignore = "run by the test above with a variable set"]
fn a_layer_is_refused() {
    let error = Linear::init(3, 2, true, &mut Rng::seed(1)).unwrap_err().to_string();
    let variable = std::env::var("LOQUAT_ISA").unwrap();
    assert!(error.contains("LOQUAT_ISA") && error.contains("portable") && error.contains(&variable), "{error}");
}

#[test]
#[ignore = "run by the test above with a variable set"]
fn a_layer_is_made() {
    Linear::init(3, 2, true, &mut Rng::seed(1)).unwrap();
}
