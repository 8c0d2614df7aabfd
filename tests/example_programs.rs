//! The example programs, run as a user runs them: flags that override the settings of a folder,
//! models without a tokenizer, exit codes.

#![allow(clippy::unwrap_used)]
#![cfg(all(feature = "tokenizers", feature = "constraints"))]

use std::path::{Path, PathBuf};
use std::process::Command;

use loquat::Rng;
use loquat::checkpoint::save_pretrained;
use loquat::models::encoder::{BertConfig, EncoderConfig, TextEncoder};
use loquat::models::{Gpt2, Gpt2Config};
use loquat::text::TokenizerTrainer;
use serde_json::Value;

/// Returns the path of an example; prints a note and returns `None` if it was not built (`cargo
/// test` builds all examples, `cargo test --test` none).
fn example(name: &str) -> Option<PathBuf> {
    let folder = std::env::current_exe().unwrap().parent().unwrap().parent().unwrap().join("examples");
    let path = folder.join(format!("{name}{}", std::env::consts::EXE_SUFFIX));
    if !path.exists() {
        eprintln!("SKIPPED: no {}; build it with cargo build --examples", path.display());
        return None;
    }
    Some(path)
}

/// Runs an example; returns whether it succeeded, its output and its errors.
fn program(name: &str, args: &[&str]) -> Option<(bool, String, String)> {
    let output = Command::new(example(name)?).args(args).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Some((output.status.success(), text(output.stdout), text(output.stderr)))
}

/// A small decoder whose folder sets greedy decoding.
fn decoder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let tokenizer = TokenizerTrainer::byte_level_bpe().vocab_size(260).train(["a b"]).unwrap();
    tokenizer.save_folder(folder.path()).unwrap();
    let model = Gpt2::init(&Gpt2Config::new(tokenizer.vocab_size(), 64, 8, 1, 2), &mut Rng::seed(1)).unwrap();
    save_pretrained(folder.path(), &model).unwrap();
    let settings = r#"{"do_sample": false, "temperature": 0.9, "max_new_tokens": 12}"#;
    std::fs::write(folder.path().join("generation_config.json"), settings).unwrap();
    folder
}

fn generate(folder: &Path, args: &[&str]) -> Option<(bool, String, String)> {
    program("generate", &[&["--model", folder.to_str().unwrap()], args].concat())
}

#[test]
fn flags_of_drawing_win_over_the_folder() {
    let folder = decoder();
    let ids = |args: &[&str]| -> Option<Vec<u64>> {
        let (done, out, error) = generate(folder.path(), &[args, &["--prompt", "a b", "--json"]].concat())?;
        assert!(done, "{error}");
        let object: Value = serde_json::from_str(&out).unwrap();
        Some(object["ids"].as_array().unwrap().iter().map(|id| id.as_u64().unwrap()).collect())
    };
    let Some(greedy) = ids(&[]) else { return };
    assert_eq!(greedy.len(), 12, "the folder's length");
    assert_eq!(ids(&["--greedy"]).unwrap(), greedy);
    assert_eq!(ids(&["--temperature", "0", "--seed", "3"]).unwrap(), greedy);
    for flags in
        [&["--temperature", "1.0"][..], &["--top-p", "0.9"], &["--top-k", "50"], &["--typical-p", "0.9"], &["--sample"]]
    {
        let [one, two] = ["1", "2"].map(|seed| ids(&[flags, &["--seed", seed]].concat()).unwrap());
        assert!(one != greedy && one != two, "{flags:?}");
    }
    for (flags, word) in [
        (&["--greedy", "--temperature", "0.5"][..], "temperature"),
        (&["--greedy", "--sample"], "--sample"),
        (&["--temperature", "0", "--top-k", "3"], "top_k"),
        (&["--beams", "2", "--speculate", "3"], "--speculate"),
    ] {
        let (done, _, error) = generate(folder.path(), &[flags, &["--prompt", "a"]].concat()).unwrap();
        assert!(!done && error.contains(word), "{flags:?}: {error}");
    }
    let (_, help, _) = generate(folder.path(), &["--help"]).unwrap();
    assert!(help.contains("Default: the folder's setting, or else sampling, except with --beams"), "{help}");
}

#[test]
fn ids_need_no_tokenizer() {
    let folder = decoder();
    for name in ["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.json", "merges.txt"] {
        let _ = std::fs::remove_file(folder.path().join(name));
    }
    let Some((done, out, error)) = generate(folder.path(), &["--prompt-ids", "1,2,3", "--json", "--logprobs", "1"])
    else {
        return;
    };
    assert!(done, "{error}");
    let object: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((object["ids"].as_array().unwrap().len(), &object["text"]), (12, &Value::Null));
    assert_eq!(object["logprobs"].as_array().unwrap().len(), 12);
    let (done, out, _) = generate(folder.path(), &["--prompt-ids", "1,2,3"]).unwrap();
    assert!(done && out.trim().split(',').all(|id| id.parse::<u32>().is_ok()), "{out}");
    assert!(!generate(folder.path(), &["--prompt", "a"]).unwrap().0);
    let (done, _, error) = generate(folder.path(), &["--prompt-ids", "1", "--regex", "a"]).unwrap();
    assert!(!done && error.contains("--regex"), "{error}");
    let (done, _, error) = generate(folder.path(), &["--prompt-ids", "1", "--stop", "a"]).unwrap();
    assert!(!done && error.contains("stop_strings"), "{error}");
}

#[test]
fn json_that_is_cut_off_is_reported_and_fails() {
    let folder = decoder();
    let schema = folder.path().join("schema.json");
    std::fs::write(&schema, r#"{"enum": ["a long text that does not fit"]}"#).unwrap();
    let with = |limit: &str| {
        let schema = schema.to_str().unwrap();
        generate(folder.path(), &["--prompt", "a", "--json-schema", schema, "--max-new-tokens", limit, "--json"])
    };
    let Some((done, out, error)) = with("5") else { return };
    assert!(!done && error.contains("--json-schema") && error.contains("--max-new-tokens"), "{error}");
    assert!(serde_json::from_str::<Value>(&out).is_ok(), "what there is is printed");
    let (done, out, error) = with("40").unwrap();
    assert!(done, "{error}");
    // Complete with the last token that fits.
    let object: Value = serde_json::from_str(&out).unwrap();
    let count = object["ids"].as_array().unwrap().len().to_string();
    assert!(with(&count).unwrap().0);
}

#[test]
fn log_probabilities_are_lines_of_json() {
    let folder = decoder();
    let Some((done, out, error)) = generate(folder.path(), &["--prompt", "a b", "--logprobs", "2"]) else { return };
    assert!(done, "{error}");
    assert_eq!(out.lines().count(), 12);
    for line in out.lines() {
        let token: Value = serde_json::from_str(line).unwrap();
        assert!(token["logprob"].is_number() && token["top"].as_array().unwrap().len() == 2);
    }
}

#[test]
fn more_dimensions_than_there_are_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let tokenizer = TokenizerTrainer::word_piece().vocab_size(20).train(["a b"]).unwrap();
    tokenizer.save_folder(folder.path()).unwrap();
    let config = EncoderConfig::from(BertConfig::new(tokenizer.vocab_size(), 4, 1, 1, 4));
    save_pretrained(folder.path(), &TextEncoder::init(&config, false, &mut Rng::seed(1)).unwrap()).unwrap();
    let lines = folder.path().join("lines.txt");
    std::fs::write(&lines, "a\nb\n").unwrap();
    let (model, output) = (folder.path().to_str().unwrap(), folder.path().join("out.npy"));
    let embed = |dimensions: &str| {
        let [input, output] = [&lines, &output].map(|path| path.to_str().unwrap());
        program("embed", &["--model", model, "--input", input, "--output", output, "--dimensions", dimensions])
    };
    let Some((done, _, error)) = embed("10000") else { return };
    assert!(!done && error.contains("dimensions: expected a number from 1 to 4"), "{error}");
    assert!(embed("3").unwrap().0);
}

/// Trains on a small text until Ctrl-C, then to the end; the log is a pipe's.
#[cfg(unix)]
#[test]
fn ctrl_c_saves_a_run_that_resumes() {
    use std::io::{BufRead as _, BufReader};
    use std::process::Stdio;

    let folder = tempfile::tempdir().unwrap();
    let [text, out] = ["text.txt", "run"].map(|name| folder.path().join(name));
    std::fs::write(&text, "to be or not to be, that is the question\n".repeat(50)).unwrap();
    let flags = |steps: &'static str, last: &'static str| {
        let [text, out] = [&text, &out].map(|path| path.to_str().unwrap().to_string());
        let small = ["--dim", "8", "--layers", "1", "--heads", "1", "--context", "8", "--eval-every", "1000000"];
        let all = ["--text", &text, "--out", &out, "--steps", steps, last];
        [&all[..if last.is_empty() { 6 } else { 7 }], &small].concat().into_iter().map(String::from).collect::<Vec<_>>()
    };
    let Some(path) = example("train_gpt") else { return };
    let mut run =
        Command::new(&path).args(flags("100000000", "")).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut log = BufReader::new(run.stderr.take().unwrap()).lines();
    // The first line is that of the first step: from then on Ctrl-C stops the run.
    let first = log.next().unwrap().unwrap();
    assert!(first.contains("step 1/100000000") && first.contains("loss"), "{first}");
    assert!(Command::new("kill").args(["-INT", &run.id().to_string()]).status().unwrap().success());
    let rest: Vec<String> = log.map(Result::unwrap).collect();
    assert!(run.wait().unwrap().success(), "{rest:?}");
    assert!(rest.iter().any(|line| line.contains("  saved ")), "{rest:?}");
    let step: u64 = rest.last().unwrap().strip_prefix("interrupted after step ").unwrap().parse().unwrap();
    assert!(rest.iter().all(|line| !line.contains(char::is_control)), "{rest:?}");

    let steps: &str = (step + 3).to_string().leak();
    let args = flags(steps, "--resume");
    let (done, out, log) = program("train_gpt", &args.iter().map(String::as_str).collect::<Vec<_>>()).unwrap();
    assert!(done && out.contains("model saved in"), "{log}");
    assert!(
        log.contains(&format!("resuming after step {step}")) && log.contains(&format!("step {steps}/{steps}")),
        "{log}"
    );
}
