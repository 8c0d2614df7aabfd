//! Options of generation, scores and perplexity agree with `transformers`
//! (`tests/fixtures/make_generation.py`, `make_beams.py`).

#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};

use loquat::GenerationConfig;
use loquat::generation::{StopReason, generate, perplexity, score};
use loquat::models::LanguageModel;
use serde_json::Value;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

fn expected() -> Value {
    serde_json::from_str(&std::fs::read_to_string(fixtures().join("generation.json")).unwrap()).unwrap()
}

fn model() -> LanguageModel {
    LanguageModel::open(fixtures().join("gpt2")).unwrap()
}

fn numbers(list: &Value) -> Vec<f32> {
    let number = |x: &Value| x.as_f64().map_or_else(|| x.as_str().unwrap().parse().unwrap(), |x| x as f32);
    list.as_array().unwrap().iter().map(number).collect()
}

fn ids(list: &Value) -> Vec<u32> {
    serde_json::from_value(list.clone()).unwrap()
}

#[track_caller]
fn assert_close(what: &str, ours: &[f32], theirs: &[f32]) {
    assert_eq!(ours.len(), theirs.len(), "{what}");
    for (i, (a, b)) in ours.iter().zip(theirs).enumerate() {
        assert!(a == b || (a - b).abs() <= 1e-4 * b.abs().max(1.0), "{what}: {a} at {i}, expected {b}");
    }
}

#[test]
fn greedy_text_agrees() {
    let (expected, model) = (expected(), model());
    for case in expected["greedy"].as_array().unwrap() {
        let mut options = case["options"].clone();
        let own = options.as_object_mut().unwrap().remove("prompt");
        let prompt = ids(own.as_ref().unwrap_or(&expected["prompt"]));
        let config = GenerationConfig::from_json(&options).unwrap().greedy().max_new_tokens(16);
        let mut tokens = generate(&model, &prompt, &config).unwrap();
        tokens.by_ref().for_each(|id| assert!(id.is_ok()));
        let mut theirs = ids(&case["ids"]);
        if tokens.stop_reason() == Some(StopReason::EosToken) {
            assert!(config.eos_token_ids.contains(&theirs.pop().unwrap()), "{options}");
        }
        assert_eq!(tokens.new_ids(), theirs, "{options}");
    }
}

/// The processed distribution agrees, and so do the frequencies of samples.
#[test]
fn sampled_frequencies_are_those_of_the_processed_distribution() {
    const DRAWS: u64 = 2000;
    let (expected, model) = (expected(), model());
    let prompt = ids(&expected["prompt"]);
    for case in expected["sampled"].as_array().unwrap() {
        let scores = numbers(&case["scores"]);
        let largest = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let weights: Vec<f64> = scores.iter().map(|x| f64::from(x - largest).exp()).collect();
        let sum: f64 = weights.iter().sum();
        let config = GenerationConfig::from_json(&case["options"]).unwrap().sample().max_new_tokens(1);
        let mut counts = vec![0usize; scores.len()];
        for seed in 0..DRAWS {
            let config = config.clone().seed(seed);
            counts[generate(&model, &prompt, &config).unwrap().next().unwrap().unwrap() as usize] += 1;
        }
        // Cells with fewer than five expected samples are merged.
        let (mut chi_square, mut cells, mut rest) = (0.0, 0.0, (0.0, 0.0));
        for (id, weight) in weights.iter().enumerate() {
            let (n, expected) = (counts[id] as f64, weight / sum * DRAWS as f64);
            assert!(expected > 0.0 || n == 0.0, "{id} drawn with {}", case["options"]);
            if expected < 5.0 {
                rest = (rest.0 + n, rest.1 + expected);
            } else {
                chi_square += (n - expected).powi(2) / expected;
                cells += 1.0;
            }
        }
        if rest.1 > 0.0 {
            chi_square += (rest.0 - rest.1).powi(2) / f64::max(rest.1, 1.0);
            cells += 1.0;
        }
        // Mean `f`, standard deviation √(2f): four deviations approximate the 0.999 quantile for
        // small `f`.
        let freedom = f64::max(cells - 1.0, 1.0);
        assert!(chi_square < freedom + 4.5 * (2.0 * freedom).sqrt(), "{}: {chi_square} of {cells}", case["options"]);
    }
}

#[test]
fn scores_and_perplexity_agree() {
    let (expected, model) = (expected(), model());
    let text = ids(&expected["text"]);
    let scores = score(&model, &text[..24], 3).unwrap();
    let ours: Vec<f32> = scores.iter().map(|token| token.logprob).collect();
    assert_close("log-probabilities", &ours, &numbers(&expected["token_log_probs"]));
    for (token, theirs) in scores.iter().zip(expected["top"].as_array().unwrap()) {
        let theirs: Vec<(u32, f32)> = serde_json::from_value(theirs.clone()).unwrap();
        assert_eq!(token.top.iter().map(|t| t.0).collect::<Vec<_>>(), theirs.iter().map(|t| t.0).collect::<Vec<_>>());
        assert!(token.top.iter().zip(&theirs).all(|(a, b)| (a.1 - b.1).abs() < 1e-4));
    }
    for case in expected["perplexity"].as_array().unwrap() {
        let size = |key: &str| case[key].as_u64().map(|n| n as usize);
        let ours = perplexity(&model, &text, size("context"), size("stride")).unwrap();
        assert_eq!(Some(ours.tokens), size("tokens"), "{case}");
        assert!((ours.value() / case["perplexity"].as_f64().unwrap() - 1.0).abs() < 1e-4, "{case}: {}", ours.value());
    }
}

#[test]
fn logprobs_of_generated_tokens_equal_their_scores() {
    let (expected, model) = (expected(), model());
    let prompt = ids(&expected["prompt"]);
    // Before penalties, temperature, top-k and top-p.
    let config = GenerationConfig::default().temperature(0.5).top_k(9).repetition_penalty(1.3).logprobs(4).seed(3);
    let mut tokens = generate(&model, &prompt, &config.max_new_tokens(12)).unwrap();
    tokens.by_ref().for_each(|id| assert!(id.is_ok()));
    let scored = score(&model, tokens.ids(), 4).unwrap();
    assert_eq!(tokens.logprobs(), &scored[prompt.len() - 1..]);
}

#[test]
fn eight_threads_give_the_answers_of_one() {
    let (expected, model) = (expected(), model());
    let prompt = ids(&expected["prompt"]);
    let text = |seed: u64| {
        let config = GenerationConfig::default().temperature(0.9).top_p(0.95).repetition_penalty(1.1).seed(seed);
        let tokens = generate(&model, &prompt, &config.max_new_tokens(40)).unwrap();
        tokens.map(|id| id.unwrap()).collect::<Vec<_>>()
    };
    let alone: Vec<Vec<u32>> = (0..8).map(text).collect();
    std::thread::scope(|scope| {
        let text = &text;
        let threads: Vec<_> =
            (0..8).map(|i| scope.spawn(move || (0..8).map(|j| text((i + j) % 8)).collect())).collect();
        for (i, thread) in threads.into_iter().enumerate() {
            let answers: Vec<Vec<u32>> = thread.join().unwrap();
            for (j, answer) in answers.iter().enumerate() {
                assert_eq!(*answer, alone[(i + j) % 8]);
            }
        }
    });
}

#[test]
fn beams_agree() {
    let text = std::fs::read_to_string(fixtures().join("beams.json")).unwrap();
    let cases: Vec<Value> = serde_json::from_str(&text).unwrap();
    let model = model();
    for case in &cases {
        let options = &case["options"];
        let mut config = GenerationConfig::from_json(options).unwrap().greedy();
        config.num_return_sequences = config.num_beams;
        let mut search = generate(&model, &ids(&case["prompt"]), &config).unwrap();
        let given: Vec<u32> = search.by_ref().map(|id| id.unwrap()).collect();
        let (ours, theirs) = (search.hypotheses(), case["texts"].as_array().unwrap());
        let of = |texts: &[Value]| texts.iter().map(|text| ids(&text["ids"])).collect::<Vec<_>>();
        assert_eq!(ours.iter().map(|text| text.ids.clone()).collect::<Vec<_>>(), of(theirs), "{options}");
        assert_eq!(given, ours[0].ids);
        let scores: Vec<f32> = theirs.iter().map(|text| text["score"].as_f64().unwrap() as f32).collect();
        let what = options.to_string();
        assert_close(&what, &ours.iter().map(|text| text.score).collect::<Vec<_>>(), &scores);
    }
    assert!(cases.len() > 40);
}
