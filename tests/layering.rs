//! Each layer uses only the layers below it (`docs/architecture.md`), and files do not depend on
//! each other in a cycle.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs;
use std::path::{Path, PathBuf};

const LAYERS: [(&str, u8); 17] = [
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
    ("progress", 7),
    ("tasks", 7),
];

fn layer(module: &str) -> Option<u8> {
    LAYERS.iter().find(|(name, _)| *name == module).map(|&(_, layer)| layer)
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

/// The modules after `crate::` in code, with the line of each; also those of
/// `use crate::{a, b::c}`.
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
fn every_layer_uses_only_lower_layers() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    rust_files(&src, &mut files);
    assert!(files.len() > 10, "the sources are in src");
    let mut wrong = Vec::new();
    for file in files {
        let relative = file.strip_prefix(&src).unwrap().to_string_lossy().replace('\\', "/");
        let module = relative.split('/').next().unwrap().trim_end_matches(".rs").to_string();
        if module == "lib" || module == "guides" {
            continue;
        }
        let Some(own) = layer(&module) else {
            wrong.push(format!("{relative}: `{module}` has no layer"));
            continue;
        };
        for (line, used) in used_modules(&fs::read_to_string(&file).unwrap()) {
            if layer(&used).is_some_and(|other| other > own) {
                wrong.push(format!("{relative}:{line}: `{module}` uses the higher layer `{used}`"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The path of a module in the crate: `["text", "chat", "date"]`.
type Module = Vec<String>;

/// Code without comments and without its module of tests.
fn without_tests(code: &str) -> String {
    let mut code: String = code.lines().map(|line| line.split("//").next().unwrap().to_string() + "\n").collect();
    while let Some(start) = code.find("#[cfg(test)]\nmod tests {\n") {
        let end = code[start..].find("\n}\n").map_or(code.len(), |end| start + end);
        code.replace_range(start..end, "");
    }
    code
}

/// The paths in code that start at `root`, as segments without the root; those of a list in braces
/// one by one.
fn paths_from(code: &str, root: &str) -> Vec<Vec<String>> {
    fn read<'c>(mut code: &'c str, mut path: Vec<String>, paths: &mut Vec<Vec<String>>) -> &'c str {
        while let Some(rest) = code.strip_prefix("::") {
            if let Some(mut list) = rest.strip_prefix('{') {
                while let Some(start) = list.find(|c: char| !c.is_whitespace() && c != ',') {
                    if list[start..].starts_with('}') {
                        return &list[start + 1..];
                    }
                    let (name, rest) = segment(&list[start..]);
                    list = read(rest, [path.clone(), vec![name]].concat(), paths);
                    list = &list[list.find([',', '}']).unwrap_or(list.len())..];
                }
                return list;
            }
            let name;
            (name, code) = segment(rest);
            path.push(name);
        }
        paths.push(path);
        code
    }
    /// A name and the code after it; `*` and `<` give an empty name.
    fn segment(code: &str) -> (String, &str) {
        let end = code.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(code.len());
        (code[..end].to_string(), code[end..].trim_start_matches('*'))
    }
    let inside = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    let mut paths = Vec::new();
    for (at, _) in code.match_indices(&format!("{root}::")) {
        if !code[..at].ends_with(inside) {
            read(&code[at + root.len()..], Vec::new(), &mut paths);
        }
    }
    paths
}

/// The modules that the code of `module` names: the deepest existing module of each path, also
/// through imported modules.
fn named_modules(module: &Module, code: &str, exists: impl Fn(&[String]) -> bool) -> BTreeSet<Module> {
    let parent = module[..module.len() - 1].to_vec();
    let mut roots =
        vec![("crate".to_string(), vec![]), ("self".to_string(), module.clone()), ("super".to_string(), parent)];
    let mut named = BTreeSet::new();
    let mut next = 0;
    while next < roots.len() {
        let (root, base) = roots[next].clone();
        next += 1;
        for path in paths_from(code, &root) {
            let mut target = base.clone();
            for (i, name) in path.iter().enumerate() {
                match name.as_str() {
                    "super" => drop(target.pop()),
                    "self" => {}
                    _ if exists(&[&target[..], &path[i..=i]].concat()) => target.push(name.clone()),
                    _ => break,
                }
            }
            // A path that ends in a module imports it.
            if let Some(name) =
                target.last().filter(|name| path.last().is_some_and(|last| last == *name || last == "self"))
            {
                let import = (name.clone(), target.clone());
                if !roots.contains(&import) {
                    roots.push(import);
                }
            }
            named.insert(target);
        }
    }
    named
}

/// For each module that is part of a cycle, the shortest such cycle; each cycle once.
fn cycles(names: &BTreeMap<Module, BTreeSet<Module>>) -> BTreeMap<BTreeSet<Module>, Vec<Module>> {
    let mut cycles = BTreeMap::new();
    for start in names.keys() {
        let mut queue = VecDeque::from([vec![start.clone()]]);
        let mut seen = BTreeSet::new();
        'search: while let Some(way) = queue.pop_front() {
            for next in names.get(way.last().unwrap()).into_iter().flatten() {
                let longer = [way.clone(), vec![next.clone()]].concat();
                if next == start {
                    cycles.entry(way.into_iter().collect()).or_insert(longer);
                    break 'search;
                }
                if seen.insert(next.clone()) {
                    queue.push_back(longer);
                }
            }
        }
    }
    cycles
}

#[test]
fn paths_are_read_to_their_modules() {
    let code = "use crate::{Result, text::{self, chat::{date, json::Json}}};\nuse super::super::nn::Linear as L; // crate::a\n\
        let x = self::inner::f(chat::date::now(), <crate::ops::Op as T>::g, my_crate::b, date::today());\n\
        #[cfg(test)]\nmod tests {\n    use crate::hidden;\n}\nuse super::{\n    b,\n    c::*,\n};\n";
    let there = [
        "text",
        "text/chat",
        "text/chat/date",
        "text/chat/json",
        "nn",
        "m",
        "m/n",
        "m/n/inner",
        "m/b",
        "m/c",
        "ops",
        "a",
        "hidden",
    ];
    let named = named_modules(&vec!["m".into(), "n".into()], &without_tests(code), |module| {
        there.contains(&module.join("/").as_str())
    });
    let named: Vec<_> = named.iter().map(|module| module.join("/")).collect();
    assert_eq!(named, ["", "m/b", "m/c", "m/n/inner", "nn", "ops", "text", "text/chat/date", "text/chat/json"]);
}

#[test]
fn cycles_are_found_once() {
    let module = |name: &str| vec![name.to_string()];
    let edges = |pairs: &[(&str, &str)]| {
        let mut names = BTreeMap::<Module, BTreeSet<Module>>::new();
        for (from, to) in pairs {
            names.entry(module(from)).or_default().insert(module(to));
        }
        cycles(&names).into_values().map(|way| way.concat().concat()).collect::<Vec<_>>()
    };
    assert_eq!(edges(&[("a", "b"), ("b", "c"), ("a", "c"), ("c", "d")]), Vec::<String>::new());
    assert_eq!(edges(&[("a", "b"), ("b", "c"), ("c", "b"), ("d", "e"), ("e", "f"), ("f", "d")]), ["bcb", "defd"]);
}

/// Two files that depend on each other are parts of one idea, or share code that belongs below
/// both. The `mod.rs` of a folder is ignored, because it re-exports, and so are names between
/// `word2vec.rs` and the files of `word2vec/`.
#[test]
fn no_files_depend_on_each_other_in_a_cycle() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    rust_files(&src, &mut files);
    let module = |file: &PathBuf| -> Module {
        let relative = file.strip_prefix(&src).unwrap().with_extension("");
        let names = relative.iter().map(|name| name.to_string_lossy().into_owned());
        names.filter(|name| name != "mod" && name != "lib").collect()
    };
    let (pages, others): (Vec<PathBuf>, Vec<PathBuf>) =
        files.into_iter().partition(|file| file.ends_with("mod.rs") || file.ends_with("lib.rs"));
    let pages: BTreeSet<Module> = pages.iter().map(module).collect();
    let modules: BTreeSet<Module> = others.iter().map(module).chain(pages.iter().cloned()).collect();
    let counts = |module: &Module| !pages.contains(module) && module.last().is_some_and(|name| name != "tests");
    let mut names = BTreeMap::new();
    for file in others {
        let module = module(&file);
        if counts(&module) {
            let code = without_tests(&fs::read_to_string(&file).unwrap());
            let mut named = named_modules(&module, &code, |other| modules.contains(other));
            named.retain(|other| counts(other) && !module.starts_with(other) && !other.starts_with(&module));
            names.insert(module, named);
        }
    }
    let way = |way: &Vec<Module>| way.iter().map(|module| module.join("/")).collect::<Vec<_>>().join(" → ");
    let ways: Vec<String> = cycles(&names).values().map(way).collect();
    assert!(ways.is_empty(), "files depend on each other in a cycle:\n{}", ways.join("\n"));
}
