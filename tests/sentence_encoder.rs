//! Sentence vectors: pooling modes, order and bits, hostile folders, and the real all-MiniLM-L6-v2.

#![allow(clippy::unwrap_used)]
#![cfg(feature = "tokenizers")]

use std::path::{Path, PathBuf};

use loquat::checkpoint::{save_pretrained, write_tensors};
use loquat::models::encoder::{BertConfig, EncoderConfig, TextBatch, TextEncoder};
use loquat::nn::{LayerNorm, Linear};
use loquat::ops::Activation;
use loquat::tasks::Pooling;
use loquat::text::{Tokenizer, TokenizerTrainer};
use loquat::{IdTensor, Rng, SentenceEncoder, Tensor, no_grad};
use serde_json::{Value, json};

const TEXTS: [&str; 5] = ["the cat sat", "a dog ran on and on", "", "cat", "the dog sat on the cat"];

fn write(folder: &Path, name: &str, value: &Value) {
    let path = folder.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, value.to_string()).unwrap();
}

fn module(kind: &str, path: &str) -> Value {
    json!({"idx": 0, "name": "0", "path": path, "type": format!("sentence_transformers.models.{kind}")})
}

/// A tiny random encoder as a folder of sentence-transformers, with these modules after it.
fn folder(pooling: &Value, rest: &[Value]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let tokenizer = TokenizerTrainer::word_piece().vocab_size(60).train(TEXTS).unwrap();
    let config = BertConfig::new(tokenizer.vocab_size(), 12, 2, 3, 24);
    let model = TextEncoder::init(&EncoderConfig::from(config), false, &mut Rng::seed(5)).unwrap();
    save_pretrained(folder.path(), &model).unwrap();
    tokenizer.save_folder(folder.path()).unwrap();
    write(folder.path(), "1_Pooling/config.json", pooling);
    write(folder.path(), "sentence_bert_config.json", &json!({"max_seq_length": 5, "do_lower_case": true}));
    let modules = [&[module("Transformer", ""), module("Pooling", "1_Pooling")], rest].concat();
    write(folder.path(), "modules.json", &Value::Array(modules));
    folder
}

/// The hidden states of a text, with its ids.
fn hidden(folder: &Path, text: &str) -> Vec<Vec<f32>> {
    let tokenizer = Tokenizer::open(folder).unwrap();
    let options = loquat::text::EncodeOptions::default().truncation(loquat::text::Truncation::new(5));
    let ids = tokenizer.encode_with(text, &options).unwrap().input_ids;
    let model = TextEncoder::open(folder).unwrap();
    let x = no_grad(|| model.forward(&TextBatch::new(&IdTensor::sequence(&ids)))).unwrap();
    x.data().chunks(12).map(<[f32]>::to_vec).collect()
}

#[test]
fn every_way_of_pooling_is_its_formula() {
    type Formula = fn(&[Vec<f32>], usize) -> f32;
    let ways: [(&str, Formula); 6] = [
        ("pooling_mode_cls_token", |x, i| x[0][i]),
        ("pooling_mode_max_tokens", |x, i| x.iter().map(|row| row[i]).fold(f32::MIN, f32::max)),
        ("pooling_mode_mean_tokens", |x, i| x.iter().map(|row| row[i]).sum::<f32>() / x.len() as f32),
        ("pooling_mode_mean_sqrt_len_tokens", |x, i| x.iter().map(|row| row[i]).sum::<f32>() / (x.len() as f32).sqrt()),
        ("pooling_mode_weightedmean_tokens", |x, i| {
            let weighted: f32 = x.iter().enumerate().map(|(t, row)| (t + 1) as f32 * row[i]).sum();
            weighted / (1..=x.len()).sum::<usize>() as f32
        }),
        ("pooling_mode_lasttoken", |x, i| x.last().unwrap()[i]),
    ];
    for (key, formula) in ways {
        let folder = folder(&json!({"word_embedding_dimension": 12, key: true}), &[]);
        let vectors = SentenceEncoder::open(folder.path()).unwrap().encode(&TEXTS).unwrap();
        for (text, vector) in TEXTS.iter().zip(vectors.rows()) {
            let x = hidden(folder.path(), text);
            assert!(x.len() >= 2 && x.len() <= 5);
            for (i, y) in vector.iter().enumerate() {
                assert!((y - formula(&x, i)).abs() < 1e-5, "{key}, {text}");
            }
        }
    }
    // The format of version 6 of the library.
    for (name, key) in [("mean", "pooling_mode_mean_tokens"), ("lasttoken", "pooling_mode_lasttoken")] {
        let new = folder(&json!({"embedding_dimension": 12, "pooling_mode": name, "include_prompt": true}), &[]);
        let old = folder(&json!({"word_embedding_dimension": 12, key: true}), &[]);
        let [new, old] = [new, old].map(|folder| SentenceEncoder::open(folder.path()).unwrap().encode(&TEXTS).unwrap());
        assert_eq!(new, old, "{name}");
    }
    let both = folder(&json!({"pooling_mode": ["lasttoken", "cls"]}), &[]);
    let both = SentenceEncoder::open(both.path()).unwrap().encode(&TEXTS).unwrap();
    let x = hidden(folder(&json!({"pooling_mode": "cls"}), &[]).path(), TEXTS[0]);
    assert!((both[[0, 12]] - x[0][0]).abs() < 1e-5 && (both[[0, 0]] - x[x.len() - 1][0]).abs() < 1e-5, "as listed");
    // Several modes are concatenated.
    let folder = folder(&json!({"pooling_mode_cls_token": true, "pooling_mode_lasttoken": true}), &[]);
    let encoder = SentenceEncoder::open(folder.path()).unwrap();
    assert_eq!((encoder.dimensions(), encoder.encode(&TEXTS).unwrap().ncols()), (24, 24));
}

#[test]
fn dense_layers_norms_and_cuts_follow() {
    let rest = [module("Dense", "2_Dense"), module("Normalize", "3_Normalize")];
    let folder = folder(&json!({"pooling_mode_mean_tokens": true}), &rest);
    let dense = folder.path().join("2_Dense");
    let config = json!({
        "in_features": 12, "out_features": 7, "bias": true, "activation_function": "torch.nn.modules.activation.Tanh"
    });
    write(&dense, "config.json", &config);
    let weight = Tensor::normal(&[7, 12], 1.0, &mut Rng::seed(2));
    let bias = Tensor::full(&[7], 0.1);
    write_tensors(dense.join("model.safetensors"), [("linear.weight", &weight), ("linear.bias", &bias)], None).unwrap();
    let encoder = SentenceEncoder::open(folder.path()).unwrap();
    let vectors = encoder.encode(&TEXTS).unwrap();
    assert_eq!(vectors.dim(), (5, 7));
    let x = hidden(folder.path(), TEXTS[0]);
    let mean = |i: usize| x.iter().map(|row| row[i]).sum::<f32>() / x.len() as f32;
    let mut y: Vec<f32> =
        weight.data().chunks(12).map(|w| (0..12).map(|i| w[i] * mean(i)).sum::<f32>() + 0.1).collect();
    y.iter_mut().for_each(|y| *y = y.tanh());
    let norm = y.iter().map(|y| y * y).sum::<f32>().sqrt();
    assert!(vectors.row(0).iter().zip(&y).all(|(a, b)| (a - b / norm).abs() < 1e-5));
    for without_effect in [0, 8] {
        let error = encoder.clone().truncate_dimensions(without_effect).unwrap_err().to_string();
        assert!(error.starts_with("dimensions: expected a number from 1 to 7"), "{error}");
    }
    assert!(encoder.clone().truncate_dimensions(7).is_ok());
    let cut = encoder.clone().truncate_dimensions(3).unwrap().encode(&TEXTS).unwrap();
    assert_eq!(cut.row(1).to_vec(), vectors.row(1).to_vec()[..3]);
    let cut = encoder.truncate_dimensions(3).unwrap().normalize(true).encode(&TEXTS).unwrap();
    assert!(cut.rows().into_iter().all(|row| (row.dot(&row) - 1.0).abs() < 1e-5));
}

#[test]
fn norms_and_dropout_follow_and_are_saved() {
    let rest = [module("Dropout", "2_Dropout"), module("LayerNorm", "3_LayerNorm")];
    let folder = folder(&json!({"pooling_mode_mean_tokens": true}), &rest);
    write(folder.path(), "2_Dropout/config.json", &json!({"dropout": 0.25}));
    let norm = folder.path().join("3_LayerNorm");
    write(&norm, "config.json", &json!({"dimension": 12}));
    let mut rng = Rng::seed(2);
    let (weight, bias) = (Tensor::normal(&[12], 1.0, &mut rng), Tensor::normal(&[12], 1.0, &mut rng));
    write_tensors(norm.join("model.safetensors"), [("norm.weight", &weight), ("norm.bias", &bias)], None).unwrap();
    let encoder = SentenceEncoder::open(folder.path()).unwrap();
    let vectors = encoder.encode(&TEXTS).unwrap();
    let x = hidden(folder.path(), TEXTS[0]);
    let pooled: Vec<f64> =
        (0..12).map(|i| x.iter().map(|row| f64::from(row[i])).sum::<f64>() / x.len() as f64).collect();
    let mean = pooled.iter().sum::<f64>() / 12.0;
    let deviation = (pooled.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / 12.0 + 1e-5).sqrt();
    for (i, found) in vectors.row(0).iter().enumerate() {
        let expected = (pooled[i] - mean) / deviation * f64::from(weight.data()[i]) + f64::from(bias.data()[i]);
        assert!((f64::from(*found) - expected).abs() < 1e-4, "{i}: {found}, not {expected}");
    }
    let ours = tempfile::tempdir().unwrap();
    encoder.save(ours.path()).unwrap();
    assert!(std::fs::read_to_string(ours.path().join("2_Dropout/config.json")).unwrap().contains("0.25"));
    assert_eq!(SentenceEncoder::open(ours.path()).unwrap().encode(&TEXTS).unwrap(), vectors);
    write(&norm, "config.json", &json!({"dimension": 13}));
    assert!(SentenceEncoder::open(folder.path()).unwrap_err().to_string().contains("dimension"));
}

/// With `include_prompt: false` the pooling mask is 0 for the prompt and the special token before
/// it.
#[test]
fn a_prompt_may_be_left_out_of_the_pooling() {
    for (name, way) in [("mean", 0), ("weightedmean", 1), ("max", 2), ("cls", 3), ("lasttoken", 4)] {
        let pooling = json!({"embedding_dimension": 12, "pooling_mode": name, "include_prompt": false});
        let folder = folder(&pooling, &[]);
        let prompts = json!({"prompts": {"query": "the ", "long": "the cat sat "}});
        write(folder.path(), "config_sentence_transformers.json", &prompts);
        let encoder = SentenceEncoder::open(folder.path()).unwrap();
        let found = encoder.encode_with_prompt("query", &["cat"]).unwrap();
        let x = hidden(folder.path(), "the cat"); // [CLS] the cat [SEP]
        assert_eq!(x.len(), 4);
        for (i, found) in found.row(0).iter().enumerate() {
            let expected = match way {
                0 => (x[2][i] + x[3][i]) / 2.0,
                1 => (3.0 * x[2][i] + 4.0 * x[3][i]) / 7.0,
                2 => x[2][i].max(x[3][i]),
                3 => x[0][i],
                _ => x[3][i],
            };
            assert!((found - expected).abs() < 1e-5, "{name} {i}: {found}, not {expected}");
        }
        let plain = encoder.encode(&["the cat"]).unwrap();
        let ours = tempfile::tempdir().unwrap();
        encoder.save(ours.path()).unwrap();
        let again = SentenceEncoder::open(ours.path()).unwrap();
        assert_eq!(again.encode_with_prompt("query", &["cat"]).unwrap().row(0), found.row(0));
        assert_eq!(again.encode(&["the cat"]).unwrap(), plain);
        let short = SentenceEncoder::open(ours.path()).unwrap().max_seq_len(4);
        assert!(short.encode_with_prompt("long", &["cat"]).unwrap_err().to_string().contains("not pooled"));
    }
    let odd = folder(&json!({"pooling_mode_mean_tokens": true, "include_prompt": 3}), &[]);
    assert!(SentenceEncoder::open(odd.path()).unwrap_err().to_string().contains("include_prompt"));
}

#[test]
fn a_saved_encoder_opens_with_the_same_bits() {
    let rest = [module("Dense", "2_Dense"), module("Normalize", "3_Normalize")];
    let theirs = folder(&json!({"pooling_mode_cls_token": true, "pooling_mode_mean_tokens": true}), &rest);
    let dense = theirs.path().join("2_Dense");
    let activation = "torch.nn.modules.activation.SiLU";
    write(&dense, "config.json", &json!({"in_features": 24, "out_features": 5, "activation_function": activation}));
    let (weight, bias) = (Tensor::full(&[5, 24], 0.1), Tensor::full(&[5], 0.2));
    write_tensors(dense.join("model.safetensors"), [("linear.weight", &weight), ("linear.bias", &bias)], None).unwrap();
    let prompts = json!({"prompts": {"query": "the ", "none": ""}, "default_prompt_name": "query"});
    write(theirs.path(), "config_sentence_transformers.json", &prompts);
    let encoder = SentenceEncoder::open(theirs.path()).unwrap();
    let ours = tempfile::tempdir().unwrap();
    encoder.save(ours.path()).unwrap();
    let again = SentenceEncoder::open(ours.path()).unwrap();
    assert_eq!(again.encode(&TEXTS).unwrap(), encoder.encode(&TEXTS).unwrap());
    assert_eq!(again.encode_with_prompt("none", &TEXTS).unwrap(), encoder.encode_with_prompt("none", &TEXTS).unwrap());
    assert!(encoder.clone().truncate_dimensions(3).unwrap().save(ours.path()).is_err());
    encoder.clone().normalize(true).save(ours.path()).unwrap();
    assert!(!ours.path().join("4_Normalize").exists(), "once is enough");
}

#[test]
fn a_text_has_the_same_bits_regardless_of_the_batch() {
    let folder = folder(&json!({"pooling_mode_mean_tokens": true}), &[]);
    let encoder = SentenceEncoder::open(folder.path()).unwrap();
    let many: Vec<&str> = TEXTS.iter().copied().cycle().take(700).collect();
    let together = encoder.encode(&many).unwrap();
    for (text, row) in many.iter().zip(together.rows()) {
        assert_eq!(encoder.encode(&[text]).unwrap().row(0), row);
    }
    assert_eq!(encoder.encode::<&str>(&[]).unwrap().dim(), (0, 12));
    // Lower-cased, as the folder specifies.
    assert_eq!(encoder.encode(&["THE CAT sat"]).unwrap(), encoder.encode(&["the cat sat"]).unwrap());
}

#[test]
fn prompts_are_put_before_the_text() {
    let folder = folder(&json!({"pooling_mode_mean_tokens": true}), &[]);
    write(folder.path(), "config_sentence_transformers.json", &json!({"prompts": {"query": "the "}}));
    let encoder = SentenceEncoder::open(folder.path()).unwrap();
    let plain = encoder.encode(&["the cat"]).unwrap();
    assert_eq!(encoder.encode_with_prompt("query", &["cat"]).unwrap(), plain);
    assert!(encoder.encode_with_prompt("passage", &["cat"]).unwrap_err().to_string().contains("one of [query]"));
    let always = json!({"prompts": {"query": "the "}, "default_prompt_name": "query"});
    write(folder.path(), "config_sentence_transformers.json", &always);
    assert_eq!(SentenceEncoder::open(folder.path()).unwrap().encode(&["cat"]).unwrap(), plain);
}

#[test]
fn unknown_keys_are_errors_with_their_file() {
    let mean = json!({"pooling_mode_mean_tokens": true});
    for (file, content) in [
        ("sentence_bert_config.json", json!({"max_seq_length": 8, "zzz": 1})),
        ("config_sentence_transformers.json", json!({"prompts": {}, "__version__": {}, "zzz": 1})),
        ("1_Pooling/config.json", json!({"pooling_mode_mean_tokens": true, "zzz": 1})),
    ] {
        let folder = folder(&mean, &[]);
        SentenceEncoder::open(folder.path()).unwrap();
        write(folder.path(), file, &content);
        let error = SentenceEncoder::open(folder.path()).unwrap_err().to_string();
        assert!(error.contains("`zzz`"), "{file}: {error}");
    }
}

#[test]
fn vectors_that_are_no_numbers_are_an_error() {
    let folder = folder(&json!({"pooling_mode_mean_tokens": true}), &[]);
    let path = folder.path().join("model.safetensors");
    let mut weights = std::fs::read(&path).unwrap();
    let len = weights.len();
    weights[len - 4000..].fill(0xff);
    std::fs::write(&path, weights).unwrap();
    let error = SentenceEncoder::open(folder.path()).unwrap().encode(&["cat"]).unwrap_err().to_string();
    assert!(error.contains("vector of text 0") && error.contains("finite"), "{error}");
}

#[test]
fn folders_with_unknown_options_are_errors() {
    let mean = json!({"pooling_mode_mean_tokens": true});
    let open = |pooling: &Value, rest: &[Value]| {
        let folder = folder(pooling, rest);
        SentenceEncoder::open(folder.path()).unwrap_err().to_string()
    };
    assert!(open(&json!({}), &[]).contains("pooling_mode"));
    assert!(open(&json!({"pooling_mode_attention": true}), &[]).contains("pooling_mode_attention"));
    assert!(open(&json!({"word_embedding_dimension": 13, "pooling_mode_cls_token": true}), &[]).contains("found 13"));
    assert!(open(&mean, &[module("LSTM", "2_LSTM")]).contains("LSTM at index 2"));
    assert!(open(&mean, &[module("Dense", "../../etc")]).contains("expected the name of a subfolder"));
    assert!(open(&mean, &[module("Dense", "2_Dense")]).contains("Dense module"));
    assert!(open(&mean, &[json!({"type": 3})]).contains("modules.json"));
}

/// The folder of the real model: `LOQUAT_MINILM`, or the developers' data.
fn minilm() -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let data = std::env::var_os("LOQUAT_DATA").map_or(root.join("../shared/data"), PathBuf::from);
    let beside = data.join("models/all-MiniLM-L6-v2");
    let folder = std::env::var_os("LOQUAT_MINILM").map_or(beside, PathBuf::from);
    let there = folder.join("model.safetensors").exists();
    if !there {
        eprintln!("SKIPPED: no model.safetensors of all-MiniLM-L6-v2; set LOQUAT_MINILM to its folder");
    }
    there.then_some(folder)
}

#[track_caller]
fn assert_same_vector(what: &str, ours: &[f32], theirs: &[f32]) {
    assert_eq!(ours.len(), theirs.len());
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(a * b)).sum::<f64>();
    let cosine = dot(ours, theirs) / (dot(ours, ours) * dot(theirs, theirs)).sqrt();
    let worst = ours.iter().zip(theirs).map(|(a, b)| (a - b).abs()).fold(0f32, f32::max);
    assert!(cosine >= 0.99999 && worst <= 1e-4, "{what}: cosine {cosine}, off by {worst}");
    eprintln!("{what}: cosine {cosine:.9}, off by {worst:.1e} at most");
}

#[test]
fn the_real_minilm_agrees_with_transformers() {
    let Some(folder) = minilm() else { return };
    let expected = include_str!("fixtures/minilm.json");
    let expected: Value = serde_json::from_str(expected).unwrap();
    let texts: Vec<String> = serde_json::from_value(expected["texts"].clone()).unwrap();
    let theirs: Vec<Vec<f32>> = serde_json::from_value(expected["vectors"].clone()).unwrap();
    let encoder = SentenceEncoder::open(folder).unwrap();
    let ours = encoder.encode(&texts).unwrap();
    for ((text, ours), theirs) in texts.iter().zip(ours.rows()).zip(&theirs) {
        assert_same_vector(&format!("{text:.30}"), ours.as_slice().unwrap(), theirs);
    }
}

#[test]
fn the_real_minilm_agrees_with_the_snapshots() {
    let Some(folder) = minilm() else { return };
    let snapshots = folder.parent().unwrap().join("all-MiniLM-L6-v2-expected");
    let data = std::env::var_os("LOQUAT_DATA");
    let data = data.map_or(Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data"), PathBuf::from);
    let snapshots = if snapshots.exists() { snapshots } else { data.join("models/all-MiniLM-L6-v2-expected") };
    let read = |name: &str| -> Option<Vec<f32>> {
        let text = std::fs::read_to_string(snapshots.join(name)).ok()?;
        let number = |line: &str| -> f32 {
            // `- - - -0.59`: list markers, then a number that may be negative.
            let mut rest = line.trim_start();
            while let Some(behind) = rest.strip_prefix("- ") {
                rest = behind.trim_start();
            }
            rest.parse().unwrap()
        };
        Some(text.lines().skip_while(|line| !line.starts_with("- ")).map(number).collect())
    };
    let (Some(pooled), Some(raw)) = (read("bert_single.snap"), read("bert_single_raw.snap")) else {
        eprintln!("SKIPPED: no snapshots of all-MiniLM-L6-v2; set LOQUAT_DATA to the folder of data");
        return;
    };
    let encoder = SentenceEncoder::open(folder).unwrap();
    let ids = encoder.tokenizer().encode("What is Deep Learning?").unwrap().input_ids;
    let hidden = no_grad(|| encoder.encoder().forward(&TextBatch::new(&IdTensor::sequence(&ids)))).unwrap();
    assert_eq!(raw.len(), ids.len() * 384);
    // The program that made the snapshots differs in the fifth digit.
    let cosine = |a: &[f32], b: &[f32]| {
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(a * b)).sum::<f64>();
        dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
    };
    for (ours, theirs) in hidden.data().chunks(384).zip(raw.chunks(384)) {
        assert!(cosine(ours, theirs) >= 0.99999);
    }
    let mean: Vec<f32> =
        (0..384).map(|i| hidden.data().chunks(384).map(|row| row[i]).sum::<f32>() / ids.len() as f32).collect();
    assert!(cosine(&mean, &pooled) >= 0.99999);
}

#[test]
fn an_encoder_in_memory_gives_the_vectors_of_the_same_one_saved_and_opened() {
    let mut rng = Rng::seed(8);
    let tokenizer = TokenizerTrainer::word_piece().vocab_size(60).train(TEXTS).unwrap();
    let config = EncoderConfig::from(BertConfig::new(tokenizer.vocab_size(), 12, 2, 3, 24));
    let body = TextEncoder::init(&config, false, &mut rng).unwrap();
    let new = |pooling: &[Pooling]| SentenceEncoder::new(body.clone(), tokenizer.clone(), pooling).unwrap();
    let dense = |n_in, n_out| Linear::init(n_in, n_out, true, &mut Rng::seed(9)).unwrap();
    let norm = |width| LayerNorm::init(width, 1e-5, &mut Rng::seed(9)).unwrap();
    let cases = [
        new(&[Pooling::Mean]),
        new(&[Pooling::Last, Pooling::Cls]).normalize(true),
        new(&[Pooling::Mean, Pooling::Mean]).max_seq_len(4),
        new(&[Pooling::Cls, Pooling::Max]).dense(dense(24, 7), Some(Activation::Tanh)).unwrap().normalize(true),
        new(&[Pooling::Mean]).layer_norm(norm(12)).unwrap().dense(dense(12, 5), None).unwrap().lower_case(true),
        new(&[Pooling::Mean]).prompt("query", "a dog ").default_prompt("query").unwrap().include_prompt(false),
    ];
    for (i, encoder) in cases.iter().enumerate() {
        let folder = tempfile::tempdir().unwrap();
        encoder.save(folder.path()).unwrap();
        let opened = SentenceEncoder::open(folder.path()).unwrap();
        let texts = ["the cat sat", "A Dog ran on and on", "the dog sat on the cat"];
        assert_eq!(encoder.encode(&texts).unwrap(), opened.encode(&texts).unwrap(), "case {i}");
        assert_eq!(encoder.dimensions(), opened.dimensions());
    }
    let wrong = |result: loquat::Result<SentenceEncoder>| result.unwrap_err().to_string();
    let error = wrong(new(&[Pooling::Mean]).dense(dense(13, 5), None));
    assert_eq!(error, "dense: expected an input of 12 columns, the vectors' width, found 13");
    let error = wrong(new(&[Pooling::Mean]).layer_norm(norm(2)));
    assert_eq!(error, "layer_norm: expected an input of 12 columns, the vectors' width, found 2");
    let error = wrong(new(&[Pooling::Mean]).default_prompt("passage"));
    assert_eq!(error, "prompt: expected one of [], found passage");
    let error = wrong(SentenceEncoder::new(body.clone(), tokenizer.clone(), &[]));
    assert_eq!(error, "pooling: expected at least one mode, found none");
    let mut larger = tokenizer.clone();
    larger.add_tokens(["loquat"]).unwrap();
    let error = wrong(SentenceEncoder::new(body.clone(), larger, &[Pooling::Mean]));
    assert!(error.contains("the rows of the model's embedding"), "{error}");
}
