//! Files of the reference implementation (`fixtures/make_checkpoint.py`) are read with the same
//! bits and written with the same bytes.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::path::PathBuf;

use loquat::checkpoint::{Checkpoint, write_tensors};
use loquat::{Load, Tensor};
use serde_json::Value;

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/checkpoint").join(name)
}

fn expected(part: &str) -> BTreeMap<String, Tensor> {
    let json: Value = serde_json::from_slice(&std::fs::read(fixture("expected.json")).unwrap()).unwrap();
    let numbers =
        |value: &Value| -> Vec<f64> { value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect() };
    let tensor = |value: &Value| {
        let shape: Vec<usize> = numbers(&value["shape"]).iter().map(|&d| d as usize).collect();
        Tensor::from_vec(numbers(&value["values"]).iter().map(|&x| x as f32).collect(), &shape).unwrap()
    };
    json[part].as_object().unwrap().iter().map(|(name, value)| (name.clone(), tensor(value))).collect()
}

#[test]
fn files_and_shards_are_read_to_the_bit() {
    for (part, path) in [("full", "full.safetensors"), ("halves", ""), ("halves", "model.safetensors.index.json")] {
        for load in [Load::Mmap, Load::Read] {
            let checkpoint = Checkpoint::open_with(fixture(path), load).unwrap();
            let expected = expected(part);
            assert!(checkpoint.names().eq(expected.keys()));
            for (name, tensor) in &expected {
                let found = checkpoint.tensor(name).unwrap().to_tensor().unwrap();
                assert_eq!(found.shape(), tensor.shape());
                assert!(found.data().iter().zip(tensor.data()).all(|(a, b)| a.to_bits() == b.to_bits()), "{name}");
            }
        }
    }
}

#[test]
fn the_same_tensors_give_the_references_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("full.safetensors");
    let tensors = expected("full");
    write_tensors(&path, tensors.iter().map(|(name, t)| (name.as_str(), t)), Some(("format", "pt"))).unwrap();
    assert_eq!(std::fs::read(path).unwrap(), std::fs::read(fixture("full.safetensors")).unwrap());
}
