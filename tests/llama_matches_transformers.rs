//! Checkpoints of the Llama family give the hidden states, logits, gradients and greedy text of
//! `transformers` (`tests/fixtures/make_llama.py`), and so does the trained decoder in the shared
//! data, if it exists.

#![allow(clippy::unwrap_used)]

mod cases;

use std::path::{Path, PathBuf};

use cases::{assert_close, fixture, folder, ids, rows, seen};
use loquat::checkpoint::{Checkpoint, save_pretrained};
use loquat::generation::generate;
use loquat::models::{CausalLm, Decoder, LanguageModel, Llama, LlamaConfig};
use loquat::nn::Module;
use loquat::ops::cross_entropy;
use loquat::{Capture, GenerationConfig, IdTensor, inspect, no_grad};
use serde_json::{Map, Value};

const WEIGHTS: &str = "llama/weights.safetensors";
const EXPECTED: &str = "llama/expected.safetensors";

fn cases() -> Map<String, Value> {
    cases::cases("llama/cases.json")
}

fn open(case: &Value) -> Llama {
    cases::open(case, WEIGHTS).downcast_ref::<Llama>().expect("a Llama").clone()
}

#[test]
fn hidden_states_and_logits_agree() {
    let expected = Checkpoint::open(fixture(EXPECTED)).unwrap();
    let mut worst = 0f32;
    for (name, case) in cases() {
        let theirs = |what: &str| expected.tensor(&format!("{name}/{what}")).unwrap().to_tensor().unwrap();
        let model = open(&case);
        let (input_ids, mask) = (rows(&case["input_ids"]), rows(&case["attention_mask"]));
        let run = || model.hidden_states(&input_ids, Some(&mask), None);
        let (last, inside) = no_grad(|| inspect(Capture::HiddenStates, run));
        let last = last.unwrap();
        let [(_, _), (_, first), (_, _)] = &inside.hidden_states[..] else { panic!("embeddings and two layers") };
        assert_close(&format!("{name}, layer 1"), &seen(first, &mask), &theirs("hidden.1"));
        assert_close(&format!("{name}, layer 2 and norm"), &seen(&last, &mask), &theirs("hidden.2"));
        let logits = no_grad(|| model.logits(&last)).unwrap();
        worst = worst.max(assert_close(&format!("{name}, logits"), &seen(&logits, &mask), &theirs("logits")));
    }
    eprintln!("worst difference of a logit: {worst:e}");
}

#[test]
fn greedy_text_agrees() {
    for (name, case) in cases() {
        let config = GenerationConfig::default().greedy().max_new_tokens(12);
        let ours: Vec<u32> =
            generate(&open(&case), &ids(&case["prompt"]), &config).unwrap().map(|id| id.unwrap()).collect();
        assert_eq!(ours, ids(&case["greedy"]), "{name}");
    }
}

#[test]
fn loss_and_gradients_agree() {
    let expected = Checkpoint::open(fixture(EXPECTED)).unwrap();
    let case = &cases()["llama"];
    let model = open(case);
    let first = IdTensor::batch(&[&rows(&case["input_ids"]).data()[..12]]).unwrap();
    let loss = cross_entropy(&model.forward(&first).unwrap(), &rows(&case["labels"])).unwrap();
    let theirs = |name: &str| expected.tensor(&format!("llama/{name}")).unwrap().to_tensor().unwrap();
    assert!((loss.item().unwrap() - theirs("loss").item().unwrap()).abs() < 1e-5);
    let gradients = loss.backward().unwrap();
    for (path, parameter) in model.parameters() {
        let ours = gradients.of(parameter.tensor()).unwrap();
        assert_close(&path, ours, &theirs(&format!("gradient.{path}")));
    }
}

#[test]
fn saved_folders_have_the_names_shapes_bits_and_options_of_transformers() {
    for (name, case) in cases() {
        let (theirs, ours) = (folder(&case, WEIGHTS), tempfile::tempdir().unwrap());
        save_pretrained(ours.path(), &open(&case)).unwrap();
        let (a, b) = (Checkpoint::open(ours.path()).unwrap(), Checkpoint::open(theirs.path()).unwrap());
        let names: Vec<&str> = b.names().collect();
        assert_eq!(a.names().collect::<Vec<_>>(), names, "{name}");
        for tensor in names {
            let (a, b) = (a.tensor(tensor).unwrap(), b.tensor(tensor).unwrap());
            assert_eq!((a.shape(), a.bytes()), (b.shape(), b.bytes()), "{name}: {tensor}");
        }
        let saved = std::fs::read_to_string(ours.path().join("config.json")).unwrap();
        let saved: Value = serde_json::from_str(&saved).unwrap();
        for (key, value) in case["config"].as_object().unwrap() {
            assert_eq!(value, &saved[key], "{name}: {key}");
        }
        let again = LlamaConfig::from_json(&saved).unwrap();
        assert_eq!(again, LlamaConfig::from_json(&case["config"]).unwrap(), "{name}");
    }
}

/// The folder of shared data, if it exists.
fn shared(path: &str) -> Option<PathBuf> {
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("shared/data");
    let path = std::env::var_os("LOQUAT_DATA").map_or_else(beside, PathBuf::from).join(path);
    if !path.exists() {
        eprintln!("SKIPPED: {} does not exist; set LOQUAT_DATA to the folder of data", path.display());
        return None;
    }
    Some(path)
}

#[test]
fn the_trained_decoder_generates_the_expected_text() {
    let Some(root) = shared("models/stories260K") else { return };
    let expected: Value = serde_json::from_str(&std::fs::read_to_string(root.join("expected.json")).unwrap()).unwrap();
    for (file, weights) in [("hf", "f32"), ("stories260K-f32.gguf", "f32"), ("stories260K-q8_0.gguf", "q8_0")] {
        let model = LanguageModel::open(root.join(file)).unwrap();
        let theirs = &expected[weights];
        let prompt = ids(&expected["prompt_ids"]);
        let logits = no_grad(|| model.forward(&IdTensor::sequence(&prompt))).unwrap();
        let last = &logits.data()[(prompt.len() - 1) * model.vocab_size()..];
        let prompt_logits: Vec<f32> = serde_json::from_value(theirs["prompt_logits"].clone()).unwrap();
        let worst = last.iter().zip(&prompt_logits).map(|(a, b)| (a - b).abs()).fold(0f32, f32::max);
        assert!(last.len() == prompt_logits.len() && worst < 1e-4, "{file}: prompt logits are off by {worst}");
        let greedy = ids(&theirs["greedy_ids"]);
        let config = GenerationConfig::default().greedy().max_new_tokens(greedy.len());
        let ours: Vec<u32> = generate(&model, &prompt, &config).unwrap().map(|id| id.unwrap()).collect();
        assert_eq!(ours, greedy, "{file}");
        let text = ids(&expected["perplexity_ids"]);
        let logits = no_grad(|| model.forward(&IdTensor::sequence(&text[..text.len() - 1]))).unwrap();
        let loss = no_grad(|| cross_entropy(&logits, &IdTensor::sequence(&text[1..]))).unwrap().item().unwrap();
        let nll = theirs["perplexity"]["mean_nll"].as_f64().unwrap();
        assert!((f64::from(loss) - nll).abs() < 1e-5, "{file}: {loss} nats a token, expected {nll}");
        eprintln!("{file}: prompt logits within {worst:e}, {} greedy tokens, mean nll {loss}", greedy.len());
    }
}
