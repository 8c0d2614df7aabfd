//! Test cases of a decoder's options, written by `tests/fixtures/make_gpt2.py` and `make_llama.py`:
//! a configuration for each name, the prefix of its weights in a file that several cases share, a
//! padded batch, and a prompt with its greedy text.

// Not every test that includes this module uses all of it.
#![allow(dead_code)]

use std::path::{Path, PathBuf};

use loquat::checkpoint::{Checkpoint, write_tensors};
use loquat::models::LanguageModel;
use loquat::{IdTensor, Tensor};
use serde_json::{Map, Value};

pub(crate) fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

/// The cases of a file.
pub(crate) fn cases(file: &str) -> Map<String, Value> {
    serde_json::from_str(&std::fs::read_to_string(fixture(file)).unwrap()).unwrap()
}

/// Writes the folder of a case: its configuration and its part of the weights.
pub(crate) fn folder(case: &Value, weights: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("config.json"), case["config"].to_string()).unwrap();
    let all = Checkpoint::open(fixture(weights)).unwrap();
    let prefix = format!("{}/", case["weights"].as_str().unwrap());
    let tensors: Vec<(&str, Tensor)> = all
        .names()
        .filter_map(|name| Some((name.strip_prefix(&prefix)?, all.tensor(name)?.to_tensor().unwrap())))
        .collect();
    let named = tensors.iter().map(|(name, tensor)| (*name, tensor));
    write_tensors(folder.path().join("model.safetensors"), named, None).unwrap();
    folder
}

/// The model of a case.
pub(crate) fn open(case: &Value, weights: &str) -> LanguageModel {
    LanguageModel::open(folder(case, weights).path()).unwrap()
}

pub(crate) fn rows(value: &Value) -> IdTensor {
    IdTensor::batch(&serde_json::from_value::<Vec<Vec<u32>>>(value.clone()).unwrap()).unwrap()
}

pub(crate) fn ids(value: &Value) -> Vec<u32> {
    serde_json::from_value(value.clone()).unwrap()
}

/// The rows where the mask is 1.
pub(crate) fn seen(x: &Tensor, mask: &IdTensor) -> Tensor {
    let width = x.len() / mask.len();
    let rows = x.data().chunks(width).zip(mask.data()).filter(|&(_, &m)| m != 0);
    let data: Vec<f32> = rows.flat_map(|(row, _)| row).copied().collect();
    Tensor::from_vec(data.clone(), &[data.len() / width, width]).unwrap()
}

#[track_caller]
pub(crate) fn assert_close(what: &str, ours: &Tensor, theirs: &Tensor) -> f32 {
    assert_eq!(ours.shape(), theirs.shape(), "{what}");
    let largest = theirs.data().iter().fold(0f32, |m, x| m.max(x.abs()));
    let worst = ours.data().iter().zip(theirs.data()).map(|(a, b)| (a - b).abs()).fold(0f32, f32::max);
    assert!(worst <= 1e-4 * largest.max(1.0), "{what}: off by {worst} where the largest is {largest}");
    worst
}
