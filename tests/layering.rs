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

/// The modules that code names below `crate::`, with the line of each: also those of `use
/// crate::{a, b::c}`.
fn used_modules(code: &str) -> Vec<(usize, String)> {
    let code: String = code.lines().map(|line| line.split("//").next().unwrap().to_string() + "\n").collect();
    let line = |at: usize| code[..at].matches('\n').count() + 1;
    let name = |text: &str| text.chars().take_while(|c| c.is_ascii_lowercase() || *c == '_').collect::<String>();
    let mut used = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        let Some(list) = rest.strip_prefix('{') else {
            used.push((line(at), name(rest)));
            continue;
        };
        let mut depth = 1;
        let mut start = true;
        for (i, c) in list.char_indices() {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                break;
            }
            if start && depth == 1 && !c.is_whitespace() {
                used.push((line(at), name(&list[i..])));
            }
            start = depth == 1 && (c == ',' || start && c.is_whitespace());
        }
    }
    used
}

#[test]
fn names_in_braces_are_seen() {
    let code = "use crate::{\n    Result, nn::{Linear, Module},\n    ops, // crate::tasks\n};\nlet x = crate::text::clean(y);\n";
    let names: Vec<_> = used_modules(code).into_iter().filter(|(_, name)| !name.is_empty()).collect();
    assert_eq!(names, [(1, "nn".to_string()), (1, "ops".to_string()), (5, "text".to_string())]);
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
        for (line, used) in used_modules(&fs::read_to_string(&file).unwrap()) {
            if floor(&used).is_some_and(|other| other > own) {
                wrong.push(format!("{relative}:{line}: `{module}` looks up to `{used}`"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
