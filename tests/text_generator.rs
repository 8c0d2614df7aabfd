//! The trained decoder of the shared data, from its folder and from its GGUF files: greedy text,
//! scores, constraints, threads.

#![cfg(feature = "tokenizers")]
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};

use loquat::generation::StopReason;
use loquat::{GenerationConfig, TextGenerator};
use serde_json::Value;

/// The folder of the trained decoder; prints a note if it does not exist.
fn stories() -> Option<PathBuf> {
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("shared/data");
    let data = std::env::var_os("LOQUAT_DATA").map_or_else(beside, PathBuf::from);
    let folder = data.join("models/stories260K");
    if folder.join("expected.json").exists() {
        return Some(folder);
    }
    eprintln!("SKIPPED: no {} (set LOQUAT_DATA)", folder.display());
    None
}

fn expected(folder: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(folder.join("expected.json")).unwrap()).unwrap()
}

#[test]
fn greedy_text_and_perplexity_are_the_references() {
    let Some(folder) = stories() else { return };
    let expected = expected(&folder);
    for (file, weights) in [("hf", "f32"), ("stories260K-f32.gguf", "f32"), ("stories260K-q8_0.gguf", "q8_0")] {
        let lm = TextGenerator::open(folder.join(file)).unwrap();
        let theirs = &expected[weights];
        let prompt = expected["prompt"].as_str().unwrap();
        assert_eq!(
            lm.encode(prompt).unwrap(),
            serde_json::from_value::<Vec<u32>>(expected["prompt_ids"].clone()).unwrap()
        );
        let config = GenerationConfig::default().greedy().max_new_tokens(200);
        let mut stream = lm.stream(prompt, &config).unwrap();
        let text: String = stream.by_ref().map(|piece| piece.unwrap()).collect();
        assert_eq!(
            stream.new_ids(),
            serde_json::from_value::<Vec<u32>>(theirs["greedy_ids"].clone()).unwrap(),
            "{file}"
        );
        assert!(theirs["greedy_text"].as_str().unwrap().ends_with(text.trim_end()), "{file}: {text}");
        let perplexity = lm.perplexity(expected["perplexity_text"].as_str().unwrap(), Some(512), Some(512)).unwrap();
        let theirs = &theirs["perplexity"];
        assert_eq!(Some(perplexity.tokens as u64), theirs["tokens_scored"].as_u64(), "{file}");
        let theirs = theirs["perplexity"].as_f64().unwrap();
        assert!((perplexity.value() / theirs - 1.0).abs() < 1e-4, "{file}: {} and {theirs}", perplexity.value());
    }
}

#[test]
fn the_folder_determines_how_texts_end() {
    let Some(folder) = stories() else { return };
    let lm = TextGenerator::open(folder.join("hf")).unwrap();
    assert_eq!(lm.config().eos_token_ids, [1, 2]);
    // Stop strings that span several tokens.
    let prompt = "Once upon a time";
    let config = GenerationConfig::default().greedy().max_new_tokens(60);
    let whole = lm.generate(prompt, &config).unwrap();
    let stop = &whole[20..29];
    let mut stream = lm.stream(prompt, &config.stop(stop)).unwrap();
    assert_eq!(stream.by_ref().map(|piece| piece.unwrap()).collect::<String>(), whole[..whole.find(stop).unwrap()]);
    assert_eq!(stream.stop_reason(), Some(StopReason::StopString));
}

#[test]
fn eight_threads_give_the_texts_of_one() {
    let Some(folder) = stories() else { return };
    let lm = TextGenerator::open(folder.join("hf")).unwrap();
    let text = |seed: u64| {
        let config = GenerationConfig::default().temperature(0.9).top_p(0.9).max_new_tokens(60).seed(seed);
        lm.generate("Once upon a time", &config).unwrap()
    };
    let alone: Vec<String> = (0..8).map(text).collect();
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8).map(|seed| scope.spawn(move || text(seed))).collect();
        for (thread, alone) in threads.into_iter().zip(&alone) {
            assert_eq!(thread.join().unwrap(), *alone);
        }
    });
}

/// Eight threads use one model for `LOQUAT_SOAK` seconds (default: 300): same texts as one thread,
/// and no growth of memory.
///
/// `LOQUAT_SOAK=60 cargo test --release --test text_generator -- --ignored`
#[cfg(target_os = "linux")]
#[test]
#[ignore = "takes minutes"]
fn eight_threads_for_minutes_take_no_more_memory() {
    use std::time::{Duration, Instant};

    fn resident_kib() -> usize {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    let Some(folder) = stories() else { return };
    let lm = TextGenerator::open(folder.join("hf")).unwrap();
    let seconds = std::env::var("LOQUAT_SOAK").ok().and_then(|text| text.parse().ok()).unwrap_or(300);
    let text = |seed: u64| {
        let config = GenerationConfig::default().top_p(0.9).repetition_penalty(1.1).max_new_tokens(100).seed(seed);
        lm.generate("Once upon a time", &config).unwrap()
    };
    let alone: Vec<String> = (0..8).map(text).collect();
    let soak = |time: Duration| {
        let end = Instant::now() + time;
        std::thread::scope(|scope| {
            for thread in 0..8 {
                let (text, alone) = (&text, &alone);
                scope.spawn(move || {
                    for seed in (thread..8).chain(0..thread).cycle().take_while(|_| Instant::now() < end) {
                        assert_eq!(text(seed), alone[seed as usize]);
                    }
                });
            }
        });
        resident_kib()
    };
    let time = Duration::from_secs(seconds);
    let (before, after) = (soak(time / 5), soak(time - time / 5));
    println!("resident: {before} KiB after a fifth of the time, {after} KiB at its end");
    assert!(after < before + before / 20 + 1024, "{before} KiB grew to {after} KiB");
}

#[cfg(feature = "constraints")]
#[test]
fn constrained_texts_have_their_form() {
    let Some(folder) = stories() else { return };
    let lm = TextGenerator::open(folder.join("hf")).unwrap();
    let schema = serde_json::json!({
        "type": "object", "required": ["name", "age"], "additionalProperties": false,
        "properties": {"name": {"type": "string", "maxLength": 12}, "age": {"type": "integer", "minimum": 0, "maximum": 99}},
    });
    for seed in 0..5 {
        let constraint = lm.grammar_compiler().unwrap().json_schema(&schema).unwrap();
        let config = GenerationConfig::default().constraint(constraint).max_new_tokens(300).seed(seed);
        let text = lm.generate("A girl: ", &config).unwrap();
        let person: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert!(person["name"].is_string() && person["age"].as_u64().unwrap() < 100, "{text}");
        let date = lm.grammar_compiler().unwrap().regex("[0-9]{4}-[01][0-9]").unwrap();
        let text = lm.generate("It was ", &GenerationConfig::default().constraint(date).seed(seed)).unwrap();
        assert!(text.len() == 7 && text.as_bytes()[4] == b'-', "{text}");
    }
}
