//! A full disk during the training of word vectors: an error that names the file, and no file left
//! behind.
//!
//! The test starts its own program with a limit on the size of files.

#![cfg(unix)]
#![allow(clippy::unwrap_used)]

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use loquat::embeddings::{Cooccurrences, Glove, Progress, TrainingText, Word2Vec};
use loquat::{Error, WordVectors};
use ndarray::Array2;

/// The environment variable with the folder of the program whose files are limited.
const FOLDER: &str = "LOQUAT_TEST_DISK_FULL";

fn quiet(_: &Progress) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

fn text() -> TrainingText<'static> {
    let word = |i: usize, k: usize| format!("w{}", (i * 7919 + k * k * 104_729 + i * k) % 30_011);
    TrainingText::sentences(move || (0..60_000).map(move |i| (0..12).map(|k| word(i, k)).collect()))
}

/// The number of files in a folder, recursively.
fn files(folder: &Path) -> usize {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.map(|path| if path.is_dir() { files(&path) } else { 1 }).sum()
}

/// Tries to write each kind of file.
fn write_all(folder: &Path) {
    let fails = |what: &str, result: Result<(), Error>| {
        let error = result.expect_err(what);
        assert!(matches!(error, Error::Io { .. }), "{what}: {error}");
        let message = error.to_string();
        assert!(message.contains(folder.to_str().unwrap()), "{what}: {message}");
        assert_eq!(files(folder), 0, "{what} left something behind");
    };
    let glove = Glove::new().window(8).dim(50).epochs(1).threads(2).temporary_folder(folder);
    let spilling = glove.clone().memory_mb(16).count(&text(), &mut quiet);
    fails("spilling", spilling.map(drop));
    let counts: Cooccurrences = glove.count(&text(), &mut quiet).unwrap();
    fails("shuffling", glove.clone().memory_mb(16).fit(&counts, &mut quiet).map(drop));
    fails("saving counts", counts.save(folder.join("counts")));
    let checkpoint = folder.join("checkpoint");
    fails("a checkpoint", glove.clone().checkpoint(&checkpoint, Duration::MAX).fit(&counts, &mut quiet).map(drop));
    let word2vec = Word2Vec::skip_gram().window(1).epochs(1).threads(2).checkpoint(&checkpoint, Duration::MAX);
    fails("a checkpoint of word2vec", word2vec.train(&text()).map(drop));
    let vectors = WordVectors::new((0..1000).map(|i| format!("w{i}")), Array2::ones((1000, 50))).unwrap();
    fails("text", vectors.save_word2vec_text(folder.join("text")));
    fails("binary", vectors.save_word2vec_binary(folder.join("binary")));
    fails("NumPy", vectors.save_numpy(folder.join("vectors.npy")));
}

#[test]
fn a_full_disk_is_an_error_and_leaves_no_file() {
    if let Some(folder) = std::env::var_os(FOLDER) {
        return write_all(&PathBuf::from(folder));
    }
    let folder = tempfile::tempdir().unwrap();
    // Beyond the limit a write is an error if the signal is ignored.
    let script = "trap '' XFSZ; ulimit -f 8; exec \"$0\" --nocapture";
    let program = std::env::current_exe().unwrap();
    let out = Command::new("sh").args(["-c", script]).arg(program).env(FOLDER, folder.path()).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
}
