//! The guides in `docs/`: their length, and the length of their programs.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};

fn guides() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let names = "chat checkpoints determinism fast quick_start sentence_search server tensors train_classifier \
                 train_gpt translator word_vectors";
    names.split_whitespace().map(|name| root.join("docs").join(name).with_extension("md")).collect()
}

/// The Rust programs of a page.
fn programs(path: &Path) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap();
    let parts = text.split("\n```rust").skip(1);
    parts.map(|part| part.split_once('\n').unwrap().1.split("\n```").next().unwrap().to_string()).collect()
}

/// Lines of user code: without blank lines, comments and the frame of `main`.
fn code_lines(program: &str) -> usize {
    let frame = ["fn main() -> loquat::Result<()> {", "    Ok(())", "}"];
    let counts = |line: &&str| !line.trim().is_empty() && !line.trim().starts_with("//") && !frame.contains(line);
    program.lines().filter(counts).count()
}

#[test]
fn programs_are_short() {
    for (guide, program, limit) in [
        ("quick_start", 0, 4),
        ("sentence_search", 0, 8),
        ("word_vectors", 0, 4),
        ("train_classifier", 0, 60),
        ("train_classifier", 1, 35),
        ("translator", 0, 80),
    ] {
        let path = guides().into_iter().find(|path| path.file_stem().unwrap() == guide).unwrap();
        let lines = code_lines(&programs(&path)[program]);
        assert!(lines <= limit, "{guide}, program {program}: {lines} lines of code, at most {limit}");
    }
}

#[test]
fn guides_are_short_and_hide_no_lines() {
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    for path in guides().into_iter().chain([readme]) {
        let lines = fs::read_to_string(&path).unwrap().lines().count();
        assert!(lines <= 150, "{}: {lines} lines, at most 150", path.display());
        for program in programs(&path) {
            let hidden = program.lines().find(|line| line.trim() == "#" || line.trim().starts_with("# "));
            assert_eq!(hidden, None, "{}: Markdown shows this line", path.display());
        }
    }
}
