//! What is done with hostile bytes: open them, use what opens. Nothing may panic, hang, or allocate more than the file's size allows.
//!
//! `tests/fuzz_corpus.rs` replays the corpus and changes of it; `fuzz_targets/` hands the same functions to libFuzzer.

use std::path::PathBuf;

use loquat::checkpoint::gguf::{GgmlVocabulary, GgufFile, config};
use loquat::checkpoint::{Checkpoint, OpenOptions};
use loquat::models::{LanguageModel, estimate};
use loquat::text::Tokenizer;
use loquat::text::chat::{ChatMessage, ChatOptions, ChatTemplate};
use loquat::{Load, Result};

type Target = fn(&[u8]);

/// The targets by name.
#[allow(dead_code)]
pub(crate) const TARGETS: [(&str, Target); 5] =
    [("safetensors", safetensors), ("gguf", gguf), ("config", config_json), ("tokenizer", tokenizer), ("chat", chat)];

/// A folder of this process, in memory where the system has such a place.
pub(crate) fn scratch() -> PathBuf {
    let root = Some(PathBuf::from("/dev/shm")).filter(|root| root.is_dir()).unwrap_or_else(std::env::temp_dir);
    let folder = root.join(format!("loquat-fuzz-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder for scratch files");
    folder
}

fn written(name: &str, data: &[u8]) -> PathBuf {
    let path = scratch().join(name);
    std::fs::write(&path, data).expect("a scratch file");
    path
}

/// Every tensor of a checkpoint, in 32 bits.
fn widen_all(checkpoint: &Checkpoint) {
    for name in checkpoint.names() {
        let view = checkpoint.tensor(name).expect("a tensor that is listed");
        assert!(!view.dtype().to_string().is_empty());
        if let Ok(tensor) = view.to_tensor() {
            assert_eq!(tensor.shape(), view.shape());
        }
    }
}

/// A file of tensors.
pub(crate) fn safetensors(data: &[u8]) {
    let path = written("a.safetensors", data);
    for load in [Load::Read, Load::Mmap] {
        if let Ok(checkpoint) = Checkpoint::open_with(&path, load) {
            widen_all(&checkpoint);
        }
    }
}

/// A file of tensors, a configuration and a tokenizer.
pub(crate) fn gguf(data: &[u8]) {
    let path = written("a.gguf", data);
    let use_it = || -> Result<()> {
        let file = GgufFile::open(&path, Load::Read)?;
        file.metadata().for_each(|(key, value)| assert!(!key.is_empty() && !value.to_string().is_empty()));
        let vocabulary = GgmlVocabulary::read(&file);
        let _ = config::config_json(&file);
        widen_all(&Checkpoint::open(&path)?);
        let _ = estimate(&path, &OpenOptions::default());
        let _ = LanguageModel::open(&path);
        if let Some(vocabulary) = vocabulary? {
            let tokenizer = Tokenizer::from_ggml(&vocabulary)?;
            let ids = tokenizer.encode("a b\u{e4}\u{1F600}<s>")?.input_ids;
            let _ = tokenizer.decode(&ids);
        }
        Ok(())
    };
    let _ = use_it();
}

/// A `config.json` beside a file without tensors: no model can come of it.
pub(crate) fn config_json(data: &[u8]) {
    let folder = scratch().join("model");
    std::fs::create_dir_all(&folder).expect("a scratch folder");
    std::fs::write(folder.join("config.json"), data).expect("a scratch file");
    std::fs::write(folder.join("model.safetensors"), b"\x02\0\0\0\0\0\0\0{}").expect("a scratch file");
    let _ = estimate(&folder, &OpenOptions::default());
    assert!(LanguageModel::open(&folder).is_err());
}

/// A `tokenizer.json`.
pub(crate) fn tokenizer(data: &[u8]) {
    let Ok(tokenizer) = Tokenizer::from_bytes(data) else { return };
    for text in ["", " ", "a", "Hello, w\u{f6}rld 123!", "\u{1F600}\u{0301}\n\n\t x", "[CLS] <s></s>"] {
        if let Ok(encoding) = tokenizer.encode((text, text)) {
            let _ = tokenizer.decode(&encoding.input_ids);
        }
    }
    let mut stream = tokenizer.decode_stream();
    for id in 0..20 {
        let _ = stream.step(id);
    }
    let _ = stream.finish();
}

/// A chat template.
pub(crate) fn chat(data: &[u8]) {
    let Ok(source) = std::str::from_utf8(data) else { return };
    let Ok(template) = ChatTemplate::new(source, [("bos_token", "<s>"), ("eos_token", "</s>")]) else { return };
    let messages = [
        ChatMessage::system("Be brief."),
        ChatMessage::user("2 < 3?"),
        ChatMessage::assistant("Yes."),
        ChatMessage::user(" w\u{f6}rld "),
    ];
    let _ = template.render(&messages, &ChatOptions::default());
    let _ = template.render(&messages[1..2], &ChatOptions::default());
}
