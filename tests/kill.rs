//! A run that is killed with SIGKILL at any time can be resumed, and ends with the bits of a run
//! that was not.
//!
//! The test starts its own program as the run, kills it repeatedly, and lets the last one finish.

#![cfg(unix)]
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use loquat::checkpoint::Checkpoint;
use loquat::nn::{Dropout, Embedding, Linear};
use loquat::training::data::{Batch, SequentialWindows, TokenStream};
use loquat::training::{AdamW, Existing, Optimizer, RunFolder, Trainer};
use loquat::{Result, Rng, Tensor, ops};

/// The environment variable with the folder of the run.
const FOLDER: &str = "LOQUAT_TEST_KILL_FOLDER";
/// The environment variable that makes the program stop halfway and wait to be killed.
const WAITS: &str = "LOQUAT_TEST_KILL_WAITS";
const STEPS: u64 = 2000;

struct Bigram {
    embedding: Embedding,
    dropout: Dropout,
    head: Linear,
}
loquat::module!(Bigram { embedding, dropout, head });

fn loss(model: &Bigram, batch: &Batch) -> Result<Tensor> {
    let hidden = model.dropout.forward(&model.embedding.forward(&batch.input_ids)?)?;
    ops::cross_entropy(&model.head.forward(&hidden)?, batch.labels.as_ref().unwrap())
}

fn model() -> Bigram {
    let mut rng = Rng::seed(1);
    Bigram {
        embedding: Embedding::init(50, 32, 0.5, &mut rng).unwrap(),
        dropout: Dropout::new(0.1),
        head: Linear::init(32, 50, true, &mut rng).unwrap(),
    }
}

/// Trains to the end from the last checkpoint, saving a checkpoint every few milliseconds.
fn run(folder: &Path) -> Result<()> {
    let windows = |from: u32, to: u32| {
        let ids = (from..to).map(|i| i.wrapping_mul(2_654_435_761) % 50).collect();
        SequentialWindows::new(TokenStream::from_ids(ids), 16, 4)
    };
    let (mut train, mut validation) = (windows(0, 3000)?.shuffle(7), windows(3000, 3100)?);
    let mut optimizer = Optimizer::new(AdamW::default())?;
    let (waits, calls) = (std::env::var_os(WAITS).is_some(), AtomicU64::new(0));
    let loss = |model: &Bigram, batch: &Batch| {
        // Two calls per step.
        if waits && calls.fetch_add(1, Ordering::Relaxed) > STEPS {
            std::thread::sleep(Duration::MAX);
        }
        loss(model, batch)
    };
    let report = Trainer::steps(STEPS)
        .accumulate(2)
        .validate(&mut validation, 50)
        .save_every(20)
        .folder(RunFolder::new(folder).existing(Existing::ResumeOrBegin).file("config.json", "{}"))
        .run(&mut model(), &mut optimizer, &mut train, loss)?;
    assert_eq!(report.steps, STEPS);
    Ok(())
}

/// Not a test itself: the program that [`a_killed_run_always_resumes`] starts and kills.
#[test]
fn child() {
    if let Some(folder) = std::env::var_os(FOLDER) {
        run(Path::new(&folder)).unwrap();
    }
}

fn program(folder: &Path) -> Command {
    let mut program = Command::new(std::env::current_exe().unwrap());
    program.args(["child", "--exact", "--test-threads=1"]).env(FOLDER, folder).stdout(Stdio::null());
    program
}

fn start(folder: &Path) -> std::process::Child {
    program(folder).stderr(Stdio::piped()).spawn().unwrap()
}

fn last_step(folder: &Path) -> Option<PathBuf> {
    RunFolder::new(folder).last_checkpoint().unwrap()
}

#[test]
fn a_killed_run_always_resumes() {
    let folder = tempfile::tempdir().unwrap();
    let (killed, whole) = (folder.path().join("killed"), folder.path().join("whole"));
    let mut rng = Rng::seed(2026);
    // First killed between two checkpoints, then at random times.
    let mut child = program(&killed).env(WAITS, "").spawn().unwrap();
    while last_step(&killed).is_none() {
        assert!(child.try_wait().unwrap().is_none(), "the run ended before its first checkpoint");
        std::thread::sleep(Duration::from_millis(1));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(!last_step(&killed).unwrap().ends_with(format!("step-{STEPS:08}")), "the run stops before its end");
    let mut kills = 0;
    while kills < 20 {
        let mut child = start(&killed);
        std::thread::sleep(Duration::from_micros(5_000 + rng.below(120_000) as u64));
        child.kill().unwrap();
        let output = child.wait_with_output().unwrap();
        let messages = String::from_utf8_lossy(&output.stderr);
        assert!(!messages.contains("panicked"), "{messages}");
        kills += 1;
        // At any time, a checkpoint under its final name is complete.
        if let Some(checkpoint) = last_step(&killed) {
            Checkpoint::open(&checkpoint).unwrap().load_into(&mut model()).unwrap();
        }
        if killed.join("model.safetensors").exists() {
            Checkpoint::open(&killed).unwrap().load_into(&mut model()).unwrap();
        }
    }
    for folder in [&killed, &whole] {
        let output = start(folder).wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    let bytes = |folder: &Path, name: &str| std::fs::read(last_step(folder).unwrap().join(name)).unwrap();
    for name in ["model.safetensors", "optimizer.safetensors"] {
        assert_eq!(bytes(&killed, name), bytes(&whole, name), "{name}");
    }
    let best = |folder: &Path| std::fs::read(folder.join("model.safetensors")).unwrap();
    assert_eq!(best(&killed), best(&whole));
    for entry in std::fs::read_dir(killed.join("checkpoints")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(name.starts_with("step-"), "left behind: {name}");
    }
}

/// Limits the size of files by the shell, which has the effect of a full disk. The last checkpoint
/// stays complete.
#[test]
fn a_write_that_fails_halfway_leaves_the_last_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let program = std::env::current_exe().unwrap();
    let mut child = start(folder.path());
    while last_step(folder.path()).is_none() {
        std::thread::sleep(Duration::from_millis(1));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let before = last_step(folder.path()).unwrap();
    // 8 blocks of 512 or 1024 bytes: less than the weights.
    let output = Command::new("sh")
        .arg("-c")
        .arg(format!("trap '' XFSZ; ulimit -f 8; exec '{}' child --exact --test-threads=1", program.display()))
        .env(FOLDER, folder.path())
        .output()
        .unwrap();
    assert!(!output.status.success());
    let messages = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(messages.contains("File too large"), "{messages}");
    assert_eq!(last_step(folder.path()), Some(before.clone()));
    Checkpoint::open(before).unwrap().load_into(&mut model()).unwrap();
    Checkpoint::open(folder.path()).map(|best| best.load_into(&mut model()).unwrap()).ok();
}
