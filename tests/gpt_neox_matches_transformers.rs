//! Checkpoints of GPT-NeoX give the hidden states, logits, gradients and greedy text of
//! `transformers` (`tests/fixtures/make_gpt_neox.py`), whole, cached, in a batch, saved and as a
//! GGUF file.

#![allow(clippy::unwrap_used)]

mod cases;

use cases::{assert_close, fixture, folder, ids, rows, seen};
use loquat::checkpoint::gguf::GgufFormat;
use loquat::checkpoint::{Checkpoint, save_pretrained};
use loquat::generation::generate;
use loquat::models::{CausalLm, Decoder, GptNeoX, GptNeoXConfig, LanguageModel, estimate, save_gguf};
use loquat::nn::Module;
use loquat::ops::cross_entropy;
use loquat::{Capture, GenerationConfig, IdTensor, Rng, inspect, no_grad};
use serde_json::{Map, Value, json};

const WEIGHTS: &str = "gpt_neox/weights.safetensors";
const EXPECTED: &str = "gpt_neox/expected.safetensors";

fn cases() -> Map<String, Value> {
    cases::cases("gpt_neox/cases.json")
}

fn open(case: &Value) -> GptNeoX {
    cases::open(case, WEIGHTS).downcast_ref::<GptNeoX>().expect("a GPT-NeoX").clone()
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
    let mut compared = 0;
    for (name, case) in cases().into_iter().filter(|(_, case)| !case["labels"].is_null()) {
        let model = open(&case);
        let loss = cross_entropy(&model.forward(&rows(&case["ids"])).unwrap(), &rows(&case["labels"])).unwrap();
        let theirs = |what: &str| expected.tensor(&format!("{name}/{what}")).unwrap().to_tensor().unwrap();
        assert!((loss.item().unwrap() - theirs("loss").item().unwrap()).abs() < 1e-5);
        let gradients = loss.backward().unwrap();
        for (path, parameter) in model.parameters() {
            let ours = gradients.of(parameter.tensor()).unwrap();
            assert_close(&format!("{name}: {path}"), ours, &theirs(&format!("gradient.{path}")));
            compared += 1;
        }
    }
    assert_eq!(compared, 2 * (2 + 2 * 12 + 2));
}

/// Token by token, in parts, and in a batch with other texts: the same bits.
#[test]
fn cached_and_batched_decoding_match_the_whole_sequence() {
    for (name, case) in cases() {
        let model = open(&case);
        let ids = ids(&case["prompt"]);
        let vocab = CausalLm::vocab_size(&model);
        let whole = no_grad(|| model.forward(&IdTensor::sequence(&ids))).unwrap();
        let dynamic = case["config"]["rope_parameters"]["rope_type"] == "dynamic";
        for first in [1, 3, 6].into_iter().filter(|_| !dynamic) {
            let (mut cache, mut at) = (model.new_state(1), 0);
            for step in std::iter::once(first).chain(std::iter::repeat_n(1, ids.len() - first)) {
                let logits = no_grad(|| model.decode(&IdTensor::sequence(&ids[at..at + step]), &mut cache)).unwrap();
                at += step;
                assert_eq!(logits.data(), &whole.data()[(at - 1) * vocab..at * vocab], "{name}: position {at}");
            }
        }
        let parts: [&[u32]; 3] = [&ids, &ids[..2], &ids[3..]];
        let mut states = [(); 3].map(|()| model.new_state(1));
        let mut together: Vec<_> = states.iter_mut().collect();
        let logits = no_grad(|| model.decode_batch(&parts, &mut together)).unwrap();
        for (part, row) in parts.iter().zip(logits.data().chunks(vocab)) {
            let alone = no_grad(|| model.decode(&IdTensor::sequence(part), &mut model.new_state(1))).unwrap();
            assert_eq!(alone.data(), row, "{name}");
        }
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
            let same = value == &saved[key] || value.as_f64().is_some_and(|x| Some(x) == saved[key].as_f64());
            assert!(same, "{name}: {key}");
        }
        assert!(estimate(ours.path(), &Default::default()).unwrap().kv_cache_per_token > 0);
    }
}

/// What GGUF has no key for is an error; everything else has the same bits after saving and
/// opening.
#[test]
fn gguf_files_come_back_to_the_same_logits() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.gguf");
    for (name, case) in cases() {
        let model = open(&case);
        let saved = save_gguf(&path, &model, None, GgufFormat::F32);
        if name.contains("tanh") || name == "dynamic" {
            assert!(saved.unwrap_err().to_string().contains("GGUF"), "{name}");
            continue;
        }
        saved.unwrap();
        let again = LanguageModel::open(&path).unwrap();
        let ids = IdTensor::sequence(&ids(&case["prompt"]));
        let [a, b] = [no_grad(|| model.forward(&ids)), no_grad(|| again.forward(&ids))].map(Result::unwrap);
        assert_eq!(a.data(), b.data(), "{name}");
    }
}

#[test]
fn every_parameter_gets_a_gradient_and_dropout_acts_in_training_only() {
    let mut config = GptNeoXConfig::new(13, 24, 2, 3);
    (config.hidden_dropout, config.attention_dropout) = (0.3, 0.2);
    let model = GptNeoX::init(&config, &mut Rng::seed(1)).unwrap();
    let ids = IdTensor::sequence(&[1, 2, 3]);
    let loss = cross_entropy(&model.forward(&ids).unwrap(), &IdTensor::sequence(&[2, 3, 4])).unwrap();
    assert_eq!(model.without_gradient(&loss.backward().unwrap()), Vec::<String>::new());
    let run = || model.forward(&ids).unwrap().to_vec();
    assert_eq!(run(), run());
    assert_ne!(loquat::nn::train_mode(&mut Rng::seed(1), run), run());
}

#[test]
fn invalid_configurations_are_errors() {
    let error = |changes: Value| {
        let mut config = json!(GptNeoXConfig::new(13, 24, 2, 3));
        changes.as_object().unwrap().iter().for_each(|(key, value)| config[key] = value.clone());
        GptNeoXConfig::from_json(&config).unwrap_err().to_string()
    };
    assert!(error(json!({ "num_attention_heads": 5 })).contains("a divisor of hidden_size = 24"));
    assert!(error(json!({ "rotary_pct": 0.1 })).contains("config `rotary_pct`"));
    assert!(error(json!({ "rotary_pct": 1.5 })).contains("config `rotary_pct`"));
    assert!(error(json!({ "hidden_act": "mish" })).contains("hidden_act"));
    assert!(error(json!({ "hidden_dropout": 1.0 })).contains("hidden_dropout"));
    assert!(error(json!({ "vocab_size": 0 })).contains("vocab_size"));
    assert!(error(json!({ "clip_qkv": 3.0 })).contains("clip_qkv"));
    assert!(error(json!({ "rope_scaling": { "type": "stretched" } })).contains("rope_type"));
}
