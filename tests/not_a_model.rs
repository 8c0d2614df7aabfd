//! Errors for paths that are not models report what was found and what to do.

#![allow(clippy::unwrap_used)]

use std::path::Path;

use loquat::checkpoint::Checkpoint;
use loquat::models::{LanguageModel, TextEncoder};

fn message(path: &Path) -> String {
    let error = LanguageModel::open(path).unwrap_err().to_string();
    if error.contains("expected a folder with") {
        assert_eq!(TextEncoder::open(path).unwrap_err().to_string(), error);
    }
    error
}

#[test]
fn paths_that_are_not_models_are_errors_with_a_hint() {
    let place = tempfile::tempdir().unwrap();
    let write = |name: &str, content: &[u8]| {
        let path = place.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, content).unwrap();
        path
    };
    let gpt2 = br#"{"model_type": "gpt2"}"#;
    let lora = br#"{"peft_type": "LORA", "base_model_name_or_path": "meta/llama"}"#;
    write("lora/adapter_config.json", lora);
    let lora = write("lora/adapter_model.safetensors", &[0; 16]);
    write("both/config.json", gpt2);
    write("both/adapter_config.json", b"{}");
    write("torch/config.json", gpt2);
    write("torch/pytorch_model.bin", b"PK\x03\x04");
    write("shards/config.json", gpt2);
    write("shards/pytorch_model.bin.index.json", b"{}");
    write("keras/config.json", gpt2);
    write("keras/tf_model.h5", b"");
    write("named/config.json", gpt2);
    write("named/weights.safetensors", b"");
    write("inner/model.gguf", b"");
    write("packed/config.json", gpt2);
    write("packed/model.safetensors.gz", b"");
    write("bare/config.json", gpt2);
    write("unsaid/model.safetensors", b"");
    std::fs::create_dir(place.path().join("empty")).unwrap();
    let folder = |name: &str| place.path().join(name);
    let cases: Vec<(std::path::PathBuf, &[&str])> = vec![
        (folder("lora"), &["an adapter (LORA) of `meta/llama`", "merge_and_unload"]),
        (lora, &["an adapter (LORA) of `meta/llama`", "merge_and_unload"]),
        (folder("both"), &["an adapter (PEFT) of another model"]),
        (folder("torch"), &["`pytorch_model.bin`", "safe_serialization=True"]),
        (folder("shards"), &["`pytorch_model.bin.index.json`", "safe_serialization=True"]),
        (folder("keras"), &["`tf_model.h5`"]),
        (folder("named"), &["`weights.safetensors`: rename it to `model.safetensors`"]),
        (folder("inner"), &["`model.gguf`: give the path of that file"]),
        (folder("packed"), &["`model.safetensors.gz`: unpack it first"]),
        (folder("bare"), &["only the configuration"]),
        (folder("unsaid"), &["weights without `config.json`"]),
        (folder("empty"), &["an empty folder"]),
        (folder("bare/config.json"), &["give the path of its folder", "bare"]),
        (folder("named/weights.safetensors"), &["a file of weights only: give the path of its folder", "named"]),
        (folder("unsaid/model.safetensors"), &["put it into a folder as `model.safetensors`"]),
        (folder("torch/pytorch_model.bin"), &["pickle file", "safe_serialization=True"]),
        (write("model.pt", &[0x80, 2, 0x8a]), &["pickle file", "safe_serialization=True"]),
        (write("odd.name", b"PK\x03\x04...."), &["pickle file"]),
        (write("model.gguf.gz", &[0x1f, 0x8b, 8, 0]), &["a gzip archive: unpack it with `gunzip`"]),
        (write("squeezed.gguf", &[0x1f, 0x8b, 8, 0]), &["expected a GGUF file, found a gzip archive"]),
        (write("model.safetensors.gz", &[0x1f, 0x8b, 8, 0]), &["a gzip archive"]),
        (write("named-otherwise", b"GGUF\x03\0\0\0"), &["does not end in `.gguf`"]),
        (write("notes.txt", b"hello"), &["a file of another kind"]),
        (write("pointer/model.gguf", b"version https://git-lfs.github.com/spec/v1"), &["Git LFS"]),
    ];
    for (path, expected) in cases {
        let message = message(&path);
        assert!(expected.iter().all(|part| message.contains(part)), "{}: {message}", path.display());
    }
    let absent = message(&folder("absent"));
    assert!(absent.contains("absent") && !absent.contains("expected a folder"), "{absent}");
    // Files of tensors without a model.
    let packed = Checkpoint::open(write("a.safetensors", &[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0])).unwrap_err();
    assert!(packed.to_string().contains("expected a safetensors file, found a gzip archive"), "{packed}");
    let pickled = Checkpoint::open(folder("torch/pytorch_model.bin")).unwrap_err();
    assert!(pickled.to_string().contains("expected a safetensors file, found a zip archive"), "{pickled}");
}
