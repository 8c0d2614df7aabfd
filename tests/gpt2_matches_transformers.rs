//! A checkpoint of `transformers` gives the same logits, gradients and greedy text
//! (`tests/fixtures/make_gpt2.py`).

#![allow(clippy::unwrap_used)]

mod cases;

use std::path::{Path, PathBuf};

use loquat::checkpoint::{Checkpoint, save_pretrained};
use loquat::generation::generate;
use loquat::models::{CausalLm, Decoder, Gpt2, LanguageModel};
use loquat::nn::Module;
use loquat::ops::cross_entropy;
use loquat::{Capture, GenerationConfig, IdTensor, Tensor, inspect, no_grad};

fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/gpt2")
}

struct Expected {
    tensors: Checkpoint,
    ids: serde_json::Value,
}

impl Expected {
    fn open() -> Self {
        let ids = std::fs::read_to_string(fixture().join("expected.json")).unwrap();
        Self {
            tensors: Checkpoint::open(fixture().join("expected.safetensors")).unwrap(),
            ids: serde_json::from_str(&ids).unwrap(),
        }
    }

    fn tensor(&self, name: &str) -> Tensor {
        self.tensors.tensor(name).unwrap_or_else(|| panic!("{name}")).to_tensor().unwrap()
    }

    fn rows(&self, name: &str) -> IdTensor {
        IdTensor::batch(&serde_json::from_value::<Vec<Vec<u32>>>(self.ids[name].clone()).unwrap()).unwrap()
    }
}

#[track_caller]
fn assert_close(what: &str, ours: &Tensor, theirs: &Tensor, tolerance: f32) {
    assert_eq!(ours.len(), theirs.len(), "{what}");
    let largest = theirs.data().iter().fold(0f32, |m, x| m.max(x.abs()));
    let worst = ours.data().iter().zip(theirs.data()).map(|(a, b)| (a - b).abs()).fold(0f32, f32::max);
    assert!(worst <= tolerance * largest.max(1e-3), "{what}: off by {worst} where the largest is {largest}");
}

#[test]
fn logits_hidden_states_loss_and_gradients_agree() {
    let expected = Expected::open();
    let model = LanguageModel::open(fixture()).unwrap();
    let input_ids = expected.rows("input_ids");
    let logits = model.forward(&input_ids).unwrap();
    assert_close("logits", &logits, &expected.tensor("logits"), 1e-5);
    let gpt2: &Gpt2 = model.downcast_ref().expect("a GPT-2");
    let hidden = gpt2.hidden_states(&input_ids, None, None).unwrap();
    assert_close("hidden states", &hidden, &expected.tensor("hidden_states"), 1e-5);
    let loss = cross_entropy(&logits, &expected.rows("labels")).unwrap();
    assert_close("loss", &loss, &expected.tensor("loss"), 1e-6);
    let gradients = loss.backward().unwrap();
    for (path, parameter) in model.parameters() {
        let ours = gradients.of(parameter.tensor()).unwrap();
        assert_close(&path, ours, &expected.tensor(&format!("gradient.{path}")), 1e-4);
    }
}

#[test]
fn greedy_text_agrees() {
    let expected = Expected::open();
    let model = LanguageModel::open(fixture()).unwrap();
    let prompt = &expected.rows("input_ids").data()[..4].to_vec();
    let config = GenerationConfig::default().greedy().max_new_tokens(12);
    let ids: Vec<u32> = generate(&model, prompt, &config).unwrap().map(|id| id.unwrap()).collect();
    assert_eq!(ids, serde_json::from_value::<Vec<u32>>(expected.ids["greedy"].clone()).unwrap());
}

#[test]
fn every_option_gives_their_hidden_states_logits_and_text() {
    const FILE: &str = "gpt2/options.safetensors";
    let expected = Checkpoint::open(cases::fixture(FILE)).unwrap();
    for (name, case) in cases::cases("gpt2/options.json") {
        let theirs = |what: &str| expected.tensor(&format!("{name}/{what}")).unwrap().to_tensor().unwrap();
        let model = cases::open(&case, FILE);
        let gpt2: &Gpt2 = model.downcast_ref().expect("a GPT-2");
        let (input_ids, mask) = (cases::rows(&case["input_ids"]), cases::rows(&case["attention_mask"]));
        let run = || gpt2.hidden_states(&input_ids, Some(&mask), None);
        let (last, inside) = no_grad(|| inspect(Capture::HiddenStates, run));
        let last = last.unwrap();
        assert_eq!(inside.hidden_states.len(), 3);
        for (i, (path, x)) in inside.hidden_states.iter().enumerate().take(2) {
            cases::assert_close(&format!("{name}: {path}"), &cases::seen(x, &mask), &theirs(&format!("hidden.{i}")));
        }
        cases::assert_close(&format!("{name}: ln_f"), &cases::seen(&last, &mask), &theirs("hidden.2"));
        let logits = no_grad(|| gpt2.logits(&last)).unwrap();
        cases::assert_close(&format!("{name}: logits"), &cases::seen(&logits, &mask), &theirs("logits"));
        let config = GenerationConfig::default().greedy().max_new_tokens(12);
        let prompt = cases::ids(&case["prompt"]);
        let text: Vec<u32> = generate(&model, &prompt, &config).unwrap().map(|id| id.unwrap()).collect();
        assert_eq!(text, cases::ids(&case["greedy"]), "{name}");
        // Token by token: the same bits as for the whole sequence.
        let whole = no_grad(|| model.forward(&IdTensor::sequence(&prompt))).unwrap();
        let mut state = model.new_state(1);
        for (id, row) in prompt.iter().zip(whole.data().chunks(model.vocab_size())) {
            let logits = no_grad(|| model.decode(&IdTensor::sequence(&[*id]), &mut state)).unwrap();
            assert_eq!(logits.data(), row, "{name}");
        }
    }
}

#[test]
fn saved_folders_have_the_names_shapes_and_bits_of_transformers() {
    let folder = tempfile::tempdir().unwrap();
    save_pretrained(folder.path(), &LanguageModel::open(fixture()).unwrap()).unwrap();
    let (ours, theirs) = (Checkpoint::open(folder.path()).unwrap(), Checkpoint::open(fixture()).unwrap());
    let names: Vec<&str> = theirs.names().collect();
    assert_eq!(ours.names().collect::<Vec<_>>(), names);
    for name in names {
        let (ours, theirs) = (ours.tensor(name).unwrap(), theirs.tensor(name).unwrap());
        assert_eq!((ours.shape(), ours.bytes()), (theirs.shape(), theirs.bytes()), "{name}");
    }
    let config = |dir: &Path| -> serde_json::Value {
        serde_json::from_str(&std::fs::read_to_string(dir.join("config.json")).unwrap()).unwrap()
    };
    let (ours, theirs) = (config(folder.path()), config(&fixture()));
    for (key, value) in theirs.as_object().unwrap() {
        assert_eq!(value, &ours[key], "{key}");
    }
}
