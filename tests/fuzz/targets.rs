//! The targets for hostile bytes: open a file and use what opens. Nothing may panic, hang, or
//! allocate more than the size of the file allows.
//!
//! `tests/fuzz_corpus.rs` replays the corpus and changes of it; `fuzz_targets/` runs the same
//! functions in libFuzzer.

use std::path::PathBuf;
use std::sync::OnceLock;

use loquat::checkpoint::gguf::{GgmlVocabulary, GgufFile};
use loquat::checkpoint::{Checkpoint, OpenOptions, save_pretrained};
use loquat::models::encoder::{BertConfig, EncoderConfig, TextEncoder};
use loquat::models::{Gpt2, Gpt2Config, LanguageModel, estimate, open_checkpoint, read_config};
use loquat::text::chat::{ChatMessage, ChatOptions, ChatTemplate};
use loquat::text::{Tokenizer, TokenizerTrainer};
use loquat::{GenerationConfig, Load, Result, Rng, SentenceEncoder, TextGenerator};

type Target = fn(&[u8]);

/// The targets by name.
#[allow(dead_code)]
pub(crate) const TARGETS: [(&str, Target); 6] = [
    ("safetensors", safetensors),
    ("gguf", gguf),
    ("config", config_json),
    ("tokenizer", tokenizer),
    ("chat", chat),
    ("folder_files", folder_files),
];

/// A folder of this process, in memory if the system provides such a folder.
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

/// Converts every tensor of a checkpoint to f32.
fn convert_all(checkpoint: &Checkpoint) {
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
            convert_all(&checkpoint);
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
        let _ = read_config(&path);
        convert_all(&open_checkpoint(&path, Load::Read)?);
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

/// A `config.json` in a folder with a file without tensors, which cannot be a model.
pub(crate) fn config_json(data: &[u8]) {
    let folder = scratch().join("model");
    std::fs::create_dir_all(&folder).expect("a scratch folder");
    std::fs::write(folder.join("config.json"), data).expect("a scratch file");
    std::fs::write(folder.join("model.safetensors"), b"\x02\0\0\0\0\0\0\0{}").expect("a scratch file");
    let _ = estimate(&folder, &OpenOptions::default());
    assert!(LanguageModel::open(&folder).is_err());
    assert!(TextEncoder::open(&folder).is_err());
}

/// A `tokenizer.json`.
pub(crate) fn tokenizer(data: &[u8]) {
    let Ok(tokenizer) = Tokenizer::from_bytes(data) else { return };
    // Many equal characters show whether patterns backtrack.
    let long = ["a".repeat(1000), " \n".repeat(500), "ab1 ".repeat(300)].concat();
    for text in ["", " ", "a", "Hello, w\u{f6}rld 123!", "\u{1F600}\u{0301}\n\n\t x", "[CLS] <s></s>", &long] {
        let _ = tokenizer.encode_without_special(text);
        if let Ok(encoding) = tokenizer.encode((text, text)) {
            let _ = tokenizer.decode(&encoding.input_ids);
        }
    }
    let mut stream = tokenizer.decode_stream();
    for id in 0..20 {
        let _ = stream.step(id);
    }
    let _ = stream.finish();
    let _ = tokenizer.to_json();
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

/// The small files of a folder, by letter.
const FOLDER_FILES: [&str; 10] = [
    "config.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "generation_config.json",
    "modules.json",
    "1_Pooling/config.json",
    "sentence_bert_config.json",
    "model.safetensors.index.json",
    "vocab.txt",
    "chat_template.jinja",
];

/// A valid folder of a decoder, and one of sentence-transformers.
fn sound_folders() -> [PathBuf; 2] {
    let make = || -> Result<[PathBuf; 2]> {
        let folders = ["decoder", "encoder"].map(|name| scratch().join(name));
        let tokenizer = TokenizerTrainer::byte_level_bpe().vocab_size(260).train(["a b"])?;
        tokenizer.save_folder(&folders[0])?;
        save_pretrained(&folders[0], &Gpt2::init(&Gpt2Config::new(260, 8, 4, 1, 1), &mut Rng::seed(1))?)?;
        let tokenizer = TokenizerTrainer::word_piece().vocab_size(20).train(["a b"])?;
        tokenizer.save_folder(&folders[1])?;
        let config = EncoderConfig::from(BertConfig::new(tokenizer.vocab_size(), 4, 1, 1, 4));
        save_pretrained(&folders[1], &TextEncoder::init(&config, false, &mut Rng::seed(1))?)?;
        Ok(folders)
    };
    static FOLDERS: OnceLock<[PathBuf; 2]> = OnceLock::new();
    FOLDERS.get_or_init(|| make().expect("sound folders")).clone()
}

/// A letter that selects a small file, and its content, in a folder that is otherwise valid.
pub(crate) fn folder_files(data: &[u8]) {
    let Some((&letter, content)) = data.split_first() else { return };
    let name = FOLDER_FILES[usize::from(letter.wrapping_sub(b'a')) % FOLDER_FILES.len()];
    let paths = sound_folders().map(|folder| folder.join(name));
    let before = paths.each_ref().map(|path| std::fs::read(path).ok());
    for path in &paths {
        std::fs::create_dir_all(path.parent().expect("a file in a folder")).expect("a scratch folder");
        std::fs::write(path, content).expect("a scratch file");
    }
    let [decoder, encoder] = sound_folders();
    if let Ok(lm) = TextGenerator::open(&decoder) {
        let _ = lm.generate("a b", &GenerationConfig::default().max_new_tokens(3));
        let _ = lm.chat_ids(&[ChatMessage::user("a")], &ChatOptions::default());
    }
    if let Ok(encoder) = SentenceEncoder::open(&encoder) {
        let _ = encoder.encode(&["a b", ""]);
    }
    let _ = Tokenizer::open_word_piece(&paths[1], true);
    for (path, before) in paths.iter().zip(before) {
        match before {
            Some(before) => std::fs::write(path, before),
            None => std::fs::remove_file(path),
        }
        .expect("a scratch file");
    }
}
