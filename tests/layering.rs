//! Each floor of the house uses only the floors below it (`docs/architecture.md`).

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};

const FLOORS: [(&str, u8); 16] = [
    ("atomic", 0),
    ("error", 0),
    ("random", 0),
    ("mapped", 0),
    ("signature", 0),
    ("kernels", 1),
    ("tensor", 2),
    ("ops", 3),
    ("nn", 4),
    ("text", 4),
    ("checkpoint", 4),
    ("models", 5),
    ("embeddings", 5),
    ("generation", 6),
    ("training", 6),
    ("tasks", 7),
];

fn floor(module: &str) -> Option<u8> {
    FLOORS.iter().find(|(name, _)| *name == module).map(|&(_, floor)| floor)
}

fn rust_files(dir: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            rust_files(&path, files);
        } else if path.extension().is_some_and(|e| e == "rs") {
            files.push(path);
        }
    }
}

#[test]
fn every_floor_looks_down_only() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    rust_files(&src, &mut files);
    assert!(files.len() > 10, "the sources are where this test looks");
    let mut wrong = Vec::new();
    for file in files {
        let relative = file.strip_prefix(&src).unwrap().to_string_lossy().replace('\\', "/");
        let module = relative.split('/').next().unwrap().trim_end_matches(".rs").to_string();
        if module == "lib" || module == "guides" {
            continue;
        }
        let Some(own) = floor(&module) else {
            wrong.push(format!("{relative}: `{module}` has no floor"));
            continue;
        };
        for (i, line) in fs::read_to_string(&file).unwrap().lines().enumerate() {
            let code = line.split("//").next().unwrap();
            for used in code.split("crate::").skip(1) {
                let used: String = used.chars().take_while(|c| c.is_ascii_lowercase() || *c == '_').collect();
                if floor(&used).is_some_and(|other| other > own) {
                    wrong.push(format!("{relative}:{}: `{module}` looks up to `{used}`", i + 1));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
