//! Encoders and their heads agree with `transformers` (`tests/fixtures/make_encoders.py`): hidden
//! states of each layer, attention probabilities, logits; also with padded batches.

#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};

use loquat::checkpoint::{Checkpoint, Pretrained, save_pretrained};
use loquat::models::encoder::{
    EncoderConfig, EncoderForMaskedLm, EncoderForQuestionAnswering, EncoderForSequenceClassification,
    EncoderForTokenClassification, TextBatch, TextEncoder,
};
use loquat::nn::Module;
use loquat::{Capture, Error, IdTensor, Rng, Tensor, inspect, no_grad};

const ARCHITECTURES: [&str; 6] = ["bert", "roberta", "distilbert", "mpnet", "xlm-roberta", "camembert"];

fn folder(architecture: &str, head: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/encoders").join(architecture).join(head)
}

struct Expected(Checkpoint);

impl Expected {
    fn of(folder: &Path) -> Self {
        Self(Checkpoint::open(folder.join("expected.safetensors")).unwrap())
    }

    fn tensor(&self, name: &str) -> Tensor {
        self.0.tensor(name).unwrap_or_else(|| panic!("{name}")).to_tensor().unwrap()
    }

    fn ids(&self, name: &str) -> Option<IdTensor> {
        let view = self.0.tensor(name)?;
        let (ids, _) = view.bytes().as_chunks::<4>();
        Some(IdTensor::new(ids.iter().map(|b| u32::from_le_bytes(*b)).collect::<Vec<_>>(), view.shape()).unwrap())
    }

    fn batch(&self) -> TextBatch {
        let mut batch = TextBatch::new(&self.ids("input_ids").unwrap());
        batch.attention_mask = self.ids("attention_mask");
        batch.token_type_ids = self.ids("token_type_ids");
        batch
    }
}

/// Compares rows of `width` numbers, without those of padding (mask 0).
#[track_caller]
fn assert_close(what: &str, ours: &Tensor, theirs: &Tensor, mask: Option<&IdTensor>) {
    assert_eq!(ours.shape(), theirs.shape(), "{what}");
    let rows = mask.map_or(1, IdTensor::len);
    let width = ours.len() / rows;
    for row in (0..rows).filter(|&row| mask.is_none_or(|mask| mask.data()[row] != 0)) {
        for (a, b) in ours.data()[row * width..][..width].iter().zip(&theirs.data()[row * width..]) {
            assert!((a - b).abs() <= 1e-4, "{what}, row {row}: {a} instead of {b}");
        }
    }
}

#[test]
fn hidden_states_and_attention_agree_at_each_layer() {
    for architecture in ARCHITECTURES {
        let folder = folder(architecture, "Model");
        let (expected, model) = (Expected::of(&folder), TextEncoder::open(&folder).unwrap());
        let batch = expected.batch();
        let mask = batch.attention_mask.as_ref();
        let (y, seen) = inspect(Capture::Everything, || no_grad(|| model.forward(&batch)).unwrap());
        assert_close(architecture, &y, &expected.tensor("last_hidden_state"), mask);
        assert_eq!((seen.hidden_states.len(), seen.attention.len()), (3, 2));
        for (i, (path, x)) in seen.hidden_states.iter().enumerate() {
            assert_close(path, x, &expected.tensor(&format!("hidden_states.{i}")), mask);
        }
        for (i, (path, probs)) in seen.attention.iter().enumerate() {
            let theirs = expected.tensor(&format!("attentions.{i}"));
            // The probabilities of a padding query are not specified.
            let mask = mask.unwrap().data();
            let (t, heads) = (9, 3);
            for at in (0..probs.len()).filter(|at| mask[at / (heads * t * t) * t + at / t % t] != 0) {
                let (a, b) = (probs.data()[at], theirs.data()[at]);
                assert!((a - b).abs() <= 1e-4, "{architecture} {path} {at}: {a} instead of {b}");
            }
        }
        assert_eq!(model.pooler.is_some(), architecture != "distilbert");
        if model.pooler.is_some() {
            // The pooled output of the sequence that begins with padding is not specified.
            let first = IdTensor::new(vec![1, 0, 1], &[3]).unwrap();
            let pooled = model.pool(&y).unwrap();
            assert_close(architecture, &pooled, &expected.tensor("pooler_output"), Some(&first));
        }
    }
}

#[test]
fn heads_agree() {
    for architecture in ARCHITECTURES {
        let tokens = |folder: &Path, forward: &dyn Fn(&TextBatch) -> (Tensor, &'static str, bool)| {
            let expected = Expected::of(folder);
            let batch = expected.batch();
            let (ours, name, by_token) = no_grad(|| forward(&batch));
            let first = IdTensor::new(vec![1, 0, 1], &[3]).unwrap();
            let mask = if by_token { batch.attention_mask.as_ref() } else { Some(&first) };
            assert_close(&format!("{} {name}", folder.display()), &ours, &expected.tensor(name), mask);
        };
        let at = folder(architecture, "ForMaskedLM");
        let model = EncoderForMaskedLm::open(&at).unwrap();
        tokens(&at, &|batch| (model.forward(batch).unwrap(), "logits", true));
        let at = folder(architecture, "ForSequenceClassification");
        let model = EncoderForSequenceClassification::open(&at).unwrap();
        tokens(&at, &|batch| (model.forward(batch).unwrap(), "logits", false));
        let at = folder(architecture, "ForTokenClassification");
        let model = EncoderForTokenClassification::open(&at).unwrap();
        tokens(&at, &|batch| (model.forward(batch).unwrap(), "logits", true));
        assert_eq!(model.config().labels().unwrap(), ["O", "PER", "ORG"]);
        let at = folder(architecture, "ForQuestionAnswering");
        let model = EncoderForQuestionAnswering::open(&at).unwrap();
        tokens(&at, &|batch| (model.forward(batch).unwrap().0, "start_logits", true));
        tokens(&at, &|batch| (model.forward(batch).unwrap().1, "end_logits", true));
        if architecture != "distilbert" {
            let at = folder(architecture, "untied");
            let model = EncoderForMaskedLm::open(&at).unwrap();
            assert!(model.head.decoder.is_some());
            tokens(&at, &|batch| (model.forward(batch).unwrap(), "logits", true));
        }
    }
}

#[test]
fn far_distances_fall_into_the_same_buckets() {
    let folder = folder("mpnet", "long");
    let (expected, model) = (Expected::of(&folder), TextEncoder::open(&folder).unwrap());
    let y = no_grad(|| model.forward(&expected.batch())).unwrap();
    assert_close("mpnet", &y, &expected.tensor("last_hidden_state"), None);
}

#[test]
fn names_of_old_open_with_the_same_bits() {
    let [old, new] = ["old", "Model"].map(|name| TextEncoder::open(folder("bert", name)).unwrap());
    let ids = TextBatch::new(&IdTensor::sequence(&[7, 9, 11]));
    assert_eq!(old.forward(&ids).unwrap().data(), new.forward(&ids).unwrap().data());
    // A body loaded from a folder of a model with a head.
    for architecture in ARCHITECTURES {
        let body = TextEncoder::open(folder(architecture, "ForMaskedLM")).unwrap();
        let whole = EncoderForMaskedLm::open(folder(architecture, "ForMaskedLM")).unwrap();
        assert_eq!(body.forward(&ids).unwrap().data(), whole.encoder.forward(&ids).unwrap().data());
        let error = EncoderForTokenClassification::open(folder(architecture, "ForMaskedLM")).unwrap_err().to_string();
        assert!(error.contains("missing `classifier.weight`"), "{error}");
    }
}

/// Checks that a saved model has the names, shapes and numbers of the folder that `transformers`
/// saved.
fn assert_same_folder(theirs: &Path, model: &impl Pretrained) {
    let folder = tempfile::tempdir().unwrap();
    save_pretrained(folder.path(), model).unwrap();
    let [ours, theirs_tensors] =
        [folder.path(), theirs].map(|f| Checkpoint::open(f.join("model.safetensors")).unwrap());
    let names: Vec<&str> = theirs_tensors.names().collect();
    assert_eq!(ours.names().collect::<Vec<_>>(), names, "{}", theirs.display());
    for name in names {
        let [ours, theirs] = [&ours, &theirs_tensors].map(|c| c.tensor(name).unwrap());
        assert_eq!((ours.shape(), ours.bytes()), (theirs.shape(), theirs.bytes()), "{name}");
    }
    let config = |dir: &Path| -> serde_json::Value {
        serde_json::from_str(&std::fs::read_to_string(dir.join("config.json")).unwrap()).unwrap()
    };
    let (ours, theirs) = (config(folder.path()), config(theirs));
    for (key, value) in theirs.as_object().unwrap() {
        assert_eq!(value, &ours[key], "{key}");
    }
}

#[test]
fn saved_folders_have_the_names_and_config_of_transformers() {
    for architecture in ARCHITECTURES {
        let at = |head: &str| folder(architecture, head);
        assert_same_folder(&at("Model"), &TextEncoder::open(at("Model")).unwrap());
        assert_same_folder(&at("ForMaskedLM"), &EncoderForMaskedLm::open(at("ForMaskedLM")).unwrap());
        let head = "ForSequenceClassification";
        assert_same_folder(&at(head), &EncoderForSequenceClassification::open(at(head)).unwrap());
        let head = "ForTokenClassification";
        assert_same_folder(&at(head), &EncoderForTokenClassification::open(at(head)).unwrap());
        let head = "ForQuestionAnswering";
        assert_same_folder(&at(head), &EncoderForQuestionAnswering::open(at(head)).unwrap());
    }
}

#[test]
fn a_ragged_batch_has_the_bits_of_its_texts_alone() {
    for architecture in ARCHITECTURES {
        let model = TextEncoder::open(folder(architecture, "Model")).unwrap();
        let texts: [&[u32]; 5] = [&[7], &[8, 9, 10, 30, 11], &[5, 6, 7], &[31, 32, 33], &[40, 4, 8, 9, 17, 20, 21]];
        let lengths = texts.map(<[u32]>::len);
        let ids = texts.concat();
        let ids = IdTensor::new(ids.clone(), &[ids.len()]).unwrap();
        let ragged = no_grad(|| model.forward_ragged(&ids, None, &lengths)).unwrap();
        let mut rest = ragged.data();
        for text in texts {
            let alone = no_grad(|| model.forward(&TextBatch::new(&IdTensor::sequence(text)))).unwrap();
            let (ours, behind) = rest.split_at(alone.len());
            assert_eq!(ours, alone.data(), "{architecture} {text:?}");
            rest = behind;
        }
        assert!(model.forward_ragged(&ids, None, &lengths).is_err(), "gradients would be cut");
        assert!(no_grad(|| model.forward_ragged(&ids, None, &lengths[1..])).is_err());
    }
}

#[test]
fn every_parameter_gets_a_gradient() {
    for architecture in ARCHITECTURES {
        let config = TextEncoder::open(folder(architecture, "ForTokenClassification")).unwrap().config;
        let model = EncoderForSequenceClassification::init(&config, &mut Rng::seed(1)).unwrap();
        let ids = IdTensor::batch(&[[7, 8, 9], [10, 11, 12]]).unwrap();
        let logits = model.forward(&TextBatch::new(&ids)).unwrap();
        let loss = loquat::ops::cross_entropy(&logits, &IdTensor::new(vec![0, 2], &[2]).unwrap()).unwrap();
        let gradients = loss.backward().unwrap();
        assert_eq!(model.without_gradient(&gradients), Vec::<String>::new(), "{architecture}");
        // A new head on a trained body.
        let body = TextEncoder::open(folder(architecture, "Model")).unwrap();
        assert!(
            EncoderForSequenceClassification::from_encoder(body, &mut Rng::seed(1))
                .unwrap()
                .forward(&TextBatch::new(&ids))
                .is_ok()
        );
    }
}

#[test]
fn unknown_options_are_errors_with_their_name() {
    let error = |json: serde_json::Value| match EncoderConfig::from_json(&json).unwrap_err() {
        Error::Config { key, .. } => key,
        other => panic!("{other}"),
    };
    let bert = |key: &str, value: serde_json::Value| {
        let mut json = serde_json::json!({"model_type": "bert"});
        json[key] = value;
        json
    };
    assert_eq!(error(serde_json::json!({"model_type": "electra"})), "model_type");
    assert_eq!(error(bert("hidden_act", "mish".into())), "hidden_act");
    assert_eq!(error(bert("position_embedding_type", "relative_key".into())), "position_embedding_type");
    assert_eq!(error(bert("is_decoder", true.into())), "is_decoder");
    assert_eq!(error(bert("an_option_of_tomorrow", 3.into())), "an_option_of_tomorrow");
    let distil = serde_json::json!({"model_type": "distilbert", "sparse": true});
    assert_eq!(error(distil), "sparse");
    assert_eq!(error(bert("num_attention_heads", 7.into())), "number of heads");
    assert_eq!(error(bert("hidden_size", 99_999_999_999u64.into())), "hidden size");
    assert_eq!(error(bert("hidden_dropout_prob", 1.5.into())), "dropout");
    assert_eq!(error(bert("relative_attention_num_buckets", 32.into())), "relative_attention_num_buckets");
    let labels = |value| EncoderConfig::from_json(&bert("id2label", value)).unwrap().labels();
    assert!(labels(serde_json::json!({"0": "a", "2": "b"})).is_err());
    assert!(labels(serde_json::json!({})).is_err());
    assert_eq!(labels(serde_json::json!({"1": "b", "0": "a"})).unwrap(), ["a", "b"]);
}

#[test]
fn inputs_that_do_not_fit_are_errors() {
    let model = TextEncoder::open(folder("roberta", "Model")).unwrap();
    assert_eq!(model.config.max_seq_len(), 24 - 5);
    let forward = |ids: &[u32]| model.forward(&TextBatch::new(&IdTensor::sequence(ids)));
    assert!(forward(&[7; 19]).is_ok());
    assert!(forward(&[7; 20]).is_err());
    assert!(forward(&[41]).is_err());
    let ids = IdTensor::sequence(&[7, 8]);
    let other = IdTensor::sequence(&[1, 1, 1]);
    assert!(model.forward(&TextBatch::new(&ids).attention_mask(&other)).is_err());
    assert!(model.forward(&TextBatch::new(&ids).token_type_ids(&other)).is_err());
    assert!(model.forward(&TextBatch::new(&ids).token_type_ids(&IdTensor::sequence(&[0, 1]))).is_err());
}
