//! Tests of the tokenizer; those with published vocabularies need the data folder (`LOQUAT_DATA`).

use std::collections::HashMap;
use std::path::PathBuf;

use serde_json::Value;

use super::*;
use crate::text::random_text::any_char;

/// Returns a file of the data folder, or reports that the test was skipped.
fn data(path: &str) -> Option<PathBuf> {
    let folder = std::env::var_os("LOQUAT_DATA").map(PathBuf::from);
    let folder = folder.unwrap_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared/data"));
    let file = folder.join(path);
    if !file.exists() {
        eprintln!("SKIPPED: no {} (set LOQUAT_DATA)", file.display());
        return None;
    }
    Some(file)
}

fn published() -> Vec<(&'static str, Tokenizer)> {
    let names = ["tokenizers/gpt2", "tokenizers/llama2", "tokenizers/t5-small", "models/all-MiniLM-L6-v2"];
    let mut all = Vec::new();
    for name in names.into_iter().chain(["models/stories260K/hf"]) {
        if let Some(path) = data(&format!("{name}/tokenizer.json")) {
            all.push((name, Tokenizer::open(path).unwrap()));
        }
    }
    all
}

fn small() -> Vec<(&'static str, Tokenizer)> {
    let text =
        ["The cat sat. The cats sat on 22 mats, größer als ein Haus — 猫 🐈‍⬛!", "the hat, the mat; The cat\n\n  ran"];
    vec![
        ("bpe", TokenizerTrainer::byte_level_bpe().vocab_size(290).train(text).unwrap()),
        ("word_piece", TokenizerTrainer::word_piece().vocab_size(100).train(text).unwrap()),
        ("unigram", TokenizerTrainer::unigram().vocab_size(60).train(text).unwrap()),
        ("word_level", TokenizerTrainer::word_level().train(text).unwrap()),
        ("chars", TokenizerTrainer::chars().train(text).unwrap()),
    ]
}

const TEXTS: [&str; 8] = [
    "",
    " ",
    "The cat sat on the mat.",
    "  two  spaces\n\nand a line ",
    "größer 猫 🐈‍⬛ ﷽ e\u{301}",
    "don't, I'll — \"quoted\" 3.14%",
    "\u{0}\u{7}\u{FFFD}\u{200B}",
    "<|endoftext|> </s> [SEP] <0xE2> ## ▁",
];

#[test]
fn byte_level_text_comes_back_as_it_was() {
    let (_, bpe) = &small()[0];
    for text in TEXTS {
        assert_eq!(bpe.decode_with_special(&bpe.encode(text).unwrap().input_ids).unwrap(), text);
    }
}

#[test]
fn short_cuts_give_the_ids_of_the_long_way() {
    let text = TEXTS.concat().repeat(3);
    let prefix = TokenizerTrainer::byte_level_bpe().vocab_size(300).prefix_space(true).train([&text]).unwrap();
    let prefixed = TokenizerTrainer::byte_level_bpe().vocab_size(300).train([format!(" {text}")]).unwrap();
    assert_eq!(prefix.vocab(), prefixed.vocab());
    let all = small().into_iter().chain(published()).chain([("prefix", prefix)]);
    for (name, tokenizer) in all {
        let plain = EncodeOptions::default().special_tokens(false);
        for text in TEXTS.into_iter().chain([text.as_str()]) {
            let long = tokenizer.encode_with(text, &plain).map(|encoding| encoding.input_ids).ok();
            assert_eq!(tokenizer.encode_without_special(text).ok(), long, "{name} {text:?}");
        }
    }
}

#[test]
fn special_tokens_are_left_out_or_kept_as_asked() {
    let (_, bpe) = &small()[0];
    let eos = bpe.eos_token_id().unwrap();
    assert_eq!((eos, bpe.bos_token_id(), bpe.pad_token_id()), (0, Some(0), None));
    assert!(bpe.is_special(eos) && !bpe.is_special(1));
    let ids = bpe.encode("a<|endoftext|>b").unwrap().input_ids;
    assert_eq!(ids[1], eos);
    assert_eq!(bpe.decode(&ids).unwrap(), "ab");
    assert_eq!(bpe.decode_with_special(&ids).unwrap(), "a<|endoftext|>b");
    assert_eq!(bpe.decode_batch(&[ids.clone(), vec![ids[0]]]).unwrap(), ["ab", "a"]);
}

#[test]
fn added_tokens_get_ids_behind_the_others_and_parts() {
    let (_, mut bpe) = small().remove(0);
    let n = bpe.vocab_size();
    assert_eq!(
        bpe.add_tokens(["zw猫lf", "the"]).unwrap(),
        2 - bpe.token_to_id("the").map_or(0, |id| usize::from((id as usize) < n))
    );
    let pad = bpe.set_special(Special::Pad, "<|pad|>").unwrap();
    assert_eq!(bpe.pad_token_id(), Some(pad));
    assert_eq!(bpe.vocab_size(), pad as usize + 1);
    let ids = bpe.encode("zw猫lf").unwrap().input_ids;
    assert_eq!((ids.len(), bpe.decode(&ids).unwrap().as_str()), (1, "zw猫lf"));
    let copy = Tokenizer::from_bytes(bpe.to_json().unwrap()).unwrap();
    assert_eq!(copy.pad_token_id(), Some(pad));
}

#[test]
fn offsets_are_bytes_of_the_text() {
    for (name, tokenizer) in small() {
        let text = "The 猫 sat größer";
        let Ok(encoding) = tokenizer.encode(text) else { panic!("{name}") };
        let words: Vec<&str> =
            encoding.offsets.iter().map(|&(a, b)| &text[a..b]).filter(|token| !token.is_empty()).collect();
        assert!(words.iter().any(|token| token.trim() == "猫" || token.contains('猫')), "{name}: {words:?}");
        assert_eq!(encoding.offsets.len(), encoding.len());
    }
}

#[test]
fn chars_are_the_sorted_characters_of_the_text() {
    let text = "First Citizen:\nBefore we proceed any further, hear me speak.\n";
    let tokenizer = TokenizerTrainer::chars().train([text]).unwrap();
    let mut chars: Vec<char> = text.chars().collect();
    chars.sort();
    chars.dedup();
    assert_eq!(tokenizer.vocab_size(), chars.len());
    for (i, c) in chars.iter().enumerate() {
        assert_eq!(tokenizer.token_to_id(&c.to_string()), Some(i as u32));
    }
    let ids = tokenizer.encode_without_special(text).unwrap();
    assert_eq!(ids, tokenizer.encode(text).unwrap().input_ids, "short cut and library");
    assert_eq!(tokenizer.decode(&ids).unwrap(), text);
    for encode in [tokenizer.encode_without_special("hé").unwrap_err(), tokenizer.encode("hé").unwrap_err()] {
        assert!(encode.to_string().contains("'é' at byte 1"), "{encode}");
    }
}

#[test]
fn chars_with_special_tokens_find_them_and_what_is_unknown() {
    let tokenizer = TokenizerTrainer::chars().special_tokens(["<unk>", "<|end|>"]).train(["ab<d"]).unwrap();
    for text in ["ab<|end|>d", "a?d<", "<|end", ""] {
        let ids = tokenizer.encode_without_special(text).unwrap();
        assert_eq!(ids, tokenizer.encode(text).unwrap().input_ids, "{text}");
    }
    assert_eq!(tokenizer.encode_without_special("a?<|end|>").unwrap(), [3, 0, 1]);
}

#[test]
fn a_length_below_the_added_tokens_is_kept_as_it_is() {
    for (name, tokenizer) in small() {
        let mut json: Value = serde_json::from_str(&tokenizer.to_json().unwrap()).unwrap();
        json["truncation"] =
            serde_json::json!({"direction": "Right", "max_length": 0, "strategy": "LongestFirst", "stride": 0});
        json["post_processor"] = serde_json::json!({"type": "BertProcessing", "sep": ["a", 1], "cls": ["b", 2]});
        let again = Tokenizer::from_bytes(json.to_string()).unwrap().to_json().unwrap();
        assert_eq!(serde_json::from_str::<Value>(&again).unwrap()["truncation"], json["truncation"], "{name}");
    }
}

#[test]
fn pairs_truncation_and_padding() {
    let tokenizer = TokenizerTrainer::word_piece().vocab_size(100).train(["a b c d e f g h ."]).unwrap();
    let id = |token: &str| tokenizer.token_to_id(token).unwrap();
    let ids = |tokens: &str| tokens.split(' ').map(id).collect::<Vec<u32>>();

    let pair = tokenizer.encode(("a b", "c")).unwrap();
    assert_eq!(pair.input_ids, ids("[CLS] a b [SEP] c [SEP]"));
    assert_eq!(pair.token_type_ids, [0, 0, 0, 0, 1, 1]);
    assert_eq!(pair.special_tokens_mask, [1, 0, 0, 1, 0, 1]);
    assert_eq!(pair.sequence_ids, [None, Some(0), Some(0), None, Some(1), None]);

    let options = EncodeOptions::default().truncation(Truncation::new(5).stride(1)).padding(Padding::Longest);
    let rows = tokenizer.encode_batch_with(&["a b c d e f", "a"], &options).unwrap();
    assert_eq!(rows[0].input_ids, ids("[CLS] a b c [SEP]"));
    assert_eq!(rows[0].overflowing[0].input_ids, ids("[CLS] c d e [SEP]"));
    assert_eq!(rows[0].overflowing[1].input_ids, ids("[CLS] e f [SEP] [PAD]"));
    assert_eq!(rows[1].input_ids, ids("[CLS] a [SEP] [PAD] [PAD]"));
    assert_eq!(rows[1].attention_mask, [1, 1, 1, 0, 0]);
    assert_eq!(rows[0].overflowing[0].offsets[1], (4, 5));

    let left = EncodeOptions::default().padding(Padding::Length(5)).pad_side(Side::Left).pad_to_multiple_of(4);
    assert_eq!(tokenizer.encode_with("a", &left).unwrap().attention_mask, [0, 0, 0, 0, 0, 1, 1, 1]);

    let second = Truncation::new(6).strategy(TruncationStrategy::OnlySecond);
    let row = tokenizer.encode_with(("a b", "c d e f"), &EncodeOptions::default().truncation(second)).unwrap();
    assert_eq!(row.input_ids, ids("[CLS] a b [SEP] c [SEP]"));
    assert_eq!(row.overflowing.len(), 3);
    assert_eq!(row.overflowing[2].token_type_ids, [0, 0, 0, 0, 1, 1]);

    let words = tokenizer.encode(Input::Words(&["a.", "c"])).unwrap();
    assert_eq!(words.word_ids, [None, Some(0), Some(0), Some(1), None]);

    // A text that fits is not truncated, whatever the stride; the shorter text of a pair stays
    // whole and needs no window.
    let (first, second) = ("a b c d e f g", "h a b c d e f");
    let wide = EncodeOptions::default().truncation(Truncation::new(19).stride(18));
    let whole = tokenizer.encode_with((first, second), &wide).unwrap();
    assert_eq!((whole.len(), whole.overflowing.len()), (17, 0));
    let nine = EncodeOptions::default().truncation(Truncation::new(12).stride(4));
    let row = tokenizer.encode_with(("a b", second), &nine).unwrap();
    assert_eq!((row.len(), row.overflowing.len()), (12, 0));
    let eight = EncodeOptions::default().truncation(Truncation::new(10).stride(4));
    let row = tokenizer.encode_with(("a b", second), &eight).unwrap();
    assert_eq!(row.input_ids, ids("[CLS] a b [SEP] h a b c d [SEP]"));
    assert_eq!(row.overflowing.last().unwrap().input_ids, ids("[CLS] a b [SEP] b c d e f [SEP]"));
    let error = tokenizer.encode_with((first, second), &eight).unwrap_err().to_string();
    assert!(error.contains("windows longer than the stride of 4, found 3 tokens"), "{error}");

    for (max_length, stride) in [(0, 0), (2, 0), (3, 1), (3, 9)] {
        let options = EncodeOptions::default().truncation(Truncation::new(max_length).stride(stride));
        assert!(
            matches!(tokenizer.encode_with("a b c", &options), Err(Error::Argument { .. })),
            "{max_length} {stride}"
        );
    }
    let huge = EncodeOptions::default().padding(Padding::Length(usize::MAX)).pad_to_multiple_of(3);
    assert!(matches!(tokenizer.encode_with("a", &huge), Err(Error::Argument { .. })));
    let (_, bpe) = &small()[0];
    let no_pad = EncodeOptions::default().padding(Padding::Longest);
    assert!(matches!(bpe.encode_with("a", &no_pad), Err(Error::Argument { .. })));
    assert_eq!(bpe.encode_with("a", &no_pad.pad_token_id(0).pad_to_multiple_of(2)).unwrap().input_ids[1], 0);
}

#[test]
fn a_folder_saved_is_the_tokenizer_opened() {
    let folder = tempfile::tempdir().unwrap();
    for (name, mut tokenizer) in small() {
        tokenizer.set_special(Special::Eos, "<stop>").unwrap();
        tokenizer.save_folder(folder.path().join(name)).unwrap();
        let copy = Tokenizer::open(folder.path().join(name)).unwrap();
        assert_eq!(copy.to_json().unwrap(), tokenizer.to_json().unwrap(), "{name}");
        assert_eq!(copy.roles, tokenizer.roles, "{name}");
        let text = "The cat sat";
        assert_eq!(copy.encode(text).unwrap(), tokenizer.encode(text).unwrap());
    }
}

/// All pieces of a stream, none of which may end in the middle of a character.
fn streamed(tokenizer: &Tokenizer, ids: &[u32], special: bool) -> String {
    let mut stream = tokenizer.decode_stream();
    if special {
        stream = stream.with_special();
    }
    let mut text = String::new();
    for &id in ids {
        text += &stream.step(id).unwrap();
    }
    text + &stream.finish().unwrap()
}

#[test]
fn a_stream_gives_characters_whole_and_all_of_the_text() {
    for (name, tokenizer) in small().into_iter().chain(published()) {
        for text in TEXTS.into_iter().chain(["👩‍👩‍👧 日本語 и кириллица — a😀b"]) {
            let Ok(encoding) = tokenizer.encode(text) else { continue };
            let ids = encoding.input_ids;
            assert_eq!(streamed(&tokenizer, &ids, false), tokenizer.decode(&ids).unwrap(), "{name} {text:?}");
            let whole = tokenizer.decode_with_special(&ids).unwrap();
            assert_eq!(streamed(&tokenizer, &ids, true), whole, "{name} {text:?}");
            if !text.contains('\u{FFFD}') && !whole.contains('\u{FFFD}') {
                let mut stream = tokenizer.decode_stream();
                assert!(ids.iter().all(|&id| !stream.step(id).unwrap().contains('\u{FFFD}')), "{name} {text:?}");
            }
        }
    }
}

#[test]
fn any_ids_stream_to_their_decoded_text() {
    let all: Vec<(&str, Tokenizer)> = small().into_iter().chain(published()).collect();
    let mut rng = crate::Rng::seed(11);
    for _ in 0..300 {
        let seed: Vec<(u32, usize)> = (0..rng.below(40)).map(|_| (rng.next_u32(), rng.below(4))).collect();
        for (name, tokenizer) in &all {
            let n = tokenizer.vocab_size() as u32;
            // Low ids are special tokens and bytes, which cause most problems.
            let id = |&(x, kind): &(u32, usize)| match kind {
                0 => x % n.min(300),
                1 => x % n.min(8),
                2 => n + x % 3,
                _ => x % n,
            };
            let ids: Vec<u32> = seed.iter().map(id).collect();
            for special in [false, true] {
                let whole = tokenizer.decode_ids(&ids, !special).unwrap();
                assert_eq!(streamed(tokenizer, &ids, special), whole, "{name} {ids:?}");
            }
        }
    }
}

#[test]
fn byte_level_text_of_any_kind_comes_back() {
    let bpe = small().remove(0).1;
    let mut rng = crate::Rng::seed(13);
    for _ in 0..300 {
        let text: String = (0..rng.below(100)).map(|_| any_char(&mut rng)).collect();
        let ids = bpe.encode_without_special(&text).unwrap();
        assert_eq!(bpe.decode_with_special(&ids).unwrap(), text);
        let encoding = bpe.encode(&text).unwrap();
        assert_eq!(encoding.input_ids, ids);
        assert!(encoding.offsets.iter().all(|&(a, b)| text.get(a..b).is_some()), "{text:?}");
    }
}

#[test]
fn training_gives_the_same_file_each_time_and_at_any_number_of_threads() {
    let text: Vec<String> =
        (0..400).map(|i| format!("word{} und größer {} été猫{}\n", i % 37, i * i % 101, i % 5)).collect();
    type Train = fn() -> TokenizerTrainer;
    let kinds: [(&str, Train, usize); 5] = [
        ("bpe", TokenizerTrainer::byte_level_bpe, 300),
        ("word_piece", TokenizerTrainer::word_piece, 90),
        ("unigram", TokenizerTrainer::unigram, 70),
        ("word_level", TokenizerTrainer::word_level, 50),
        ("chars", TokenizerTrainer::chars, 100),
    ];
    for (name, trainer, size) in kinds {
        let train = || trainer().vocab_size(size).train(&text).unwrap().to_json().unwrap();
        let first = train();
        for threads in [1, 2, 3, 5] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            assert!(pool.install(train) == first, "{name} differs");
        }
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("text"), text.concat()).unwrap();
        let tokenizer = trainer().vocab_size(size).train_files([folder.path().join("text")]).unwrap();
        assert!(tokenizer.to_json().unwrap() == first, "{name} from a file differs");
        assert!(tokenizer.vocab_size() <= size);
    }
}

#[test]
fn frequency_limits_and_sizes_are_kept() {
    let text = ["aa aa aa bb bb cc"];
    let words = |min| TokenizerTrainer::word_level().min_frequency(min).train(text).unwrap();
    assert_eq!(words(0).vocab(), [("<unk>".into(), 0), ("aa".into(), 1), ("bb".into(), 2), ("cc".into(), 3)]);
    assert_eq!(words(2).vocab_size(), 3);
    assert_eq!(TokenizerTrainer::word_level().vocab_size(2).train(text).unwrap().vocab_size(), 2);
    let bpe = TokenizerTrainer::byte_level_bpe().min_frequency(3).train(text).unwrap();
    assert!(bpe.token_to_id("aa").is_some() && bpe.token_to_id("bb").is_none());
}

#[test]
fn training_on_what_is_no_text_is_an_error_that_names_it() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, content: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    };
    let bpe = TokenizerTrainer::byte_level_bpe();
    let error = bpe.train_files([file("empty", b"")]).unwrap_err().to_string();
    assert!(error.contains("empty: expected text"), "{error}");
    let error = bpe.train_files([file("good", b"fine"), file("bad", b"ok\n\xFF\n")]).unwrap_err().to_string();
    assert!(error.contains("bad: expected UTF-8 text, found byte 0xFF at byte 3, line 2"), "{error}");
    assert!(matches!(bpe.train_files([folder.path().join("absent")]), Err(Error::Io { .. })));
    assert!(matches!(bpe.train([""; 0]), Err(Error::Argument { .. })));
    for trainer in [TokenizerTrainer::byte_level_bpe(), TokenizerTrainer::word_piece(), TokenizerTrainer::unigram()] {
        assert!(matches!(trainer.vocab_size(7).train(["some text"]), Err(Error::Argument { .. })));
    }
    assert!(matches!(TokenizerTrainer::unigram().special_tokens(["<s>"]).train(["a"]), Err(Error::Argument { .. })));
    assert!(matches!(bpe.special_tokens(["a", "a"]).train(["a"]), Err(Error::Argument { .. })));
}

fn json(path: &str) -> Option<Value> {
    Some(serde_json::from_slice(&std::fs::read(data(path)?).unwrap()).unwrap())
}

fn ids(value: &Value) -> Vec<u32> {
    serde_json::from_value(value.clone()).unwrap()
}

/// The tokenizers of the files of expected ids, by the names used there.
fn references() -> Option<HashMap<&'static str, Tokenizer>> {
    let open = |path: &str| Some(Tokenizer::open(data(path)?).unwrap());
    let word_piece = |path: &str, lower| Some(Tokenizer::open_word_piece(data(path)?, lower).unwrap());
    Some(HashMap::from([
        ("gpt2", open("tokenizers/gpt2/tokenizer.json")?),
        ("t5", open("tokenizers/t5-small")?),
        ("llama", open("tokenizers/llama2")?),
        ("bert-base-uncased", word_piece("tokenizers/bert-base-uncased/vocab.txt", true)?),
        ("bert-base-cased", word_piece("tokenizers/bert-base-cased/vocab.txt", false)?),
    ]))
}

#[test]
fn ids_of_a_french_text_are_the_references() {
    let Some(tokenizers) = references() else { return };
    for (name, file) in [
        ("gpt2", "gpt2_encoded_tokens"),
        ("t5", "t5_base_encoded"),
        ("llama", "llama_encoded"),
        ("bert-base-uncased", "bert_uncased_encoded"),
    ] {
        let Some(json) = json(&format!("tokenizers/expected/swift/{file}.json")) else { return };
        let found = tokenizers[name].encode(json["text"].as_str().unwrap()).unwrap().input_ids;
        assert_eq!(found, ids(&json["token_ids"]), "{name}");
    }
}

#[test]
fn ids_of_edge_cases_are_the_references() {
    let Some(tokenizers) = references() else { return };
    let Some(cases) = json("tokenizers/expected/swift/tokenizer_tests.json") else { return };
    for (name, key) in [
        ("bert-base-uncased", "google-bert/bert-base-uncased"),
        ("bert-base-uncased", "bert-base-uncased"),
        ("gpt2", "distilgpt2"),
        ("llama", "coreml-projects/Llama-2-7b-chat-coreml"),
        ("t5", "t5-base"),
    ] {
        for case in cases[key].as_array().unwrap() {
            let (tokenizer, text) = (&tokenizers[name], case["input"].as_str().unwrap());
            if name == "llama" && text.contains('\u{A0}') {
                continue; // the file has lost its no-break spaces
            }
            let encoding = tokenizer.encode(text).unwrap();
            assert_eq!(encoding.input_ids, ids(&case["encoded"]["input_ids"]), "{name} {text:?}");
            assert_eq!(encoding.attention_mask, ids(&case["encoded"]["attention_mask"]));
            // `transformers` cleans up the decoded text of the others by rules of its own.
            if name == "llama" {
                assert_eq!(tokenizer.decode(&encoding.input_ids).unwrap(), case["decoded_without_special"]);
            }
        }
    }
}

#[test]
fn ids_of_whole_pages_are_the_references() {
    let Some(tokenizers) = references() else { return };
    for (text, name) in [
        ("Metal_umlaut", "bert-base-uncased"),
        ("Rust_programming_language", "bert-base-cased"),
        ("Rust_programming_language", "bert-base-uncased"),
        ("monty-python-credits", "bert-base-uncased"),
        ("monty-python-credits", "gpt2"),
    ] {
        let Some(json) = json(&format!("tokenizers/expected/rten/{text}-{name}.json")) else { return };
        let text = std::fs::read_to_string(data(&format!("tokenizers/expected/rten/{text}.txt")).unwrap()).unwrap();
        assert_eq!(tokenizers[name].encode(&text).unwrap().input_ids, ids(&json["token_ids"]), "{name}");
    }
    let Some(questions) = json("tokenizers/expected/swift/question_tokens.json") else { return };
    let Some(expected) = json("tokenizers/expected/swift/tokenized_questions.json") else { return };
    for (question, expected) in questions.as_array().unwrap().iter().zip(expected.as_array().unwrap()) {
        let text = question["original"].as_str().unwrap();
        assert_eq!(tokenizers["bert-base-uncased"].encode_without_special(text).unwrap(), ids(expected), "{text}");
    }
}

#[test]
fn older_files_give_the_tokenizer_of_the_newer() {
    let Some(folder) = data("tokenizers/gpt2") else { return };
    let new = Tokenizer::open(folder.join("tokenizer.json")).unwrap();
    let old = Tokenizer::open_byte_level(folder.join("vocab.json"), folder.join("merges.txt")).unwrap();
    let Some(path) = data("models/all-MiniLM-L6-v2") else { return };
    let bert = Tokenizer::open(&path).unwrap();
    let copy = tempfile::tempdir().unwrap();
    std::fs::copy(path.join("vocab.txt"), copy.path().join("vocab.txt")).unwrap();
    std::fs::copy(path.join("tokenizer_config.json"), copy.path().join("tokenizer_config.json")).unwrap();
    let old_bert = Tokenizer::open(copy.path()).unwrap();
    for (a, b) in [(&new, &old), (&bert, &old_bert)] {
        assert_eq!((a.vocab_size(), a.eos_token_id(), a.roles[5]), (b.vocab_size(), b.eos_token_id(), b.roles[5]));
        for text in TEXTS {
            assert_eq!(a.encode(text).unwrap().input_ids, b.encode(text).unwrap().input_ids, "{text:?}");
        }
    }
}

#[test]
fn older_files_that_are_wrong_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        std::fs::write(folder.path().join(name), text).unwrap();
        folder.path().join(name)
    };
    let says = |result: Result<Tokenizer>, word: &str| {
        let error = result.unwrap_err().to_string();
        assert!(error.contains(word), "{error}");
    };
    says(Tokenizer::open(folder.path()), "found none of them");
    write("tokenizer.model", "");
    says(Tokenizer::open(folder.path()), "SentencePiece");
    says(Tokenizer::open_word_piece(write("a", "[UNK]\n[CLS]\n"), true), "has no token [SEP]");
    says(Tokenizer::open_word_piece(write("a", "[UNK]\nx\nx\n"), true), "line 3");
    let vocab = write("vocab.json", r#"{"a":0,"b":1,"ab":2}"#);
    says(Tokenizer::open_byte_level(&vocab, write("m", "#version: 0.2\na b\na c\n")), "line 3");
    says(Tokenizer::open_byte_level(&vocab, write("m", "a b c\n")), "line 1");
    says(Tokenizer::open_byte_level(write("v", "[1]"), write("m", "a b\n")), "tokens with ids");
    assert_eq!(Tokenizer::open_byte_level(&vocab, write("m", "a b\n")).unwrap().encode("ab").unwrap().input_ids, [2]);
}

#[test]
fn a_continuation_keeps_the_space_between() {
    for (name, tokenizer) in small() {
        let ids = tokenizer.encode_without_special("the cat sat on the mat").unwrap();
        let whole = tokenizer.decode(&ids).unwrap();
        for (prompt, rest) in (1..ids.len()).map(|cut| ids.split_at(cut)) {
            let mut stream = tokenizer.decode_stream().after(prompt);
            let pieces: String = rest.iter().map(|&id| stream.step(id).unwrap()).collect();
            let text = tokenizer.decode(prompt).unwrap() + &pieces + &stream.finish().unwrap();
            assert_eq!(text, whole, "{name} behind {prompt:?}");
        }
    }
}

/// A `tokenizer.json` is not trusted: any invalid content is an error.
#[test]
fn hostile_files_are_errors() {
    let good = small();
    for (name, tokenizer) in &good {
        let json = tokenizer.to_json().unwrap();
        let step = (json.len() / 60).max(1);
        for end in (0..json.len() - 1).step_by(step) {
            assert!(Tokenizer::from_bytes(&json.as_bytes()[..end]).is_err(), "{name} cut at {end}");
        }
        let whole: Value = serde_json::from_str(&json).unwrap();
        let nasty = [
            Value::Null,
            true.into(),
            (-1).into(),
            1e300.into(),
            u64::MAX.into(),
            "x".into(),
            serde_json::json!([]),
            serde_json::json!({}),
            serde_json::json!([[[0]]]),
            serde_json::json!({"type": "Nonsense"}),
        ];
        for key in whole.as_object().unwrap().keys() {
            for value in &nasty {
                let mut json = whole.clone();
                json[key] = value.clone();
                exercise(&json.to_string());
                if let Some(inner) = whole[key].as_object() {
                    for key2 in inner.keys() {
                        let mut json = whole.clone();
                        json[key][key2] = value.clone();
                        exercise(&json.to_string());
                    }
                }
            }
        }
    }
    let deep = format!("{{\"model\":{}1{}}}", "[".repeat(100_000), "]".repeat(100_000));
    let nested = "{\"type\":\"Sequence\",\"decoders\":[".repeat(5000) + &"]}".repeat(5000);
    for json in
        ["", "null", "[]", "{}", "{\"model\":{}}", "\u{FEFF}", deep.as_str(), &format!("{{\"decoder\":{nested}}}")]
    {
        assert!(Tokenizer::from_bytes(json).is_err());
    }
    assert!(Tokenizer::from_bytes(b"{\"version\":\"\xFF\"}").unwrap_err().to_string().contains("byte 12"));
    let unknown = r#"{"version":"1.0","added_tokens":[],"normalizer":null,"pre_tokenizer":{"type":"Telepathy"},
        "post_processor":null,"decoder":null,"model":{"type":"WordLevel","vocab":{"a":0},"unk_token":"a"}}"#;
    let error = Tokenizer::from_bytes(unknown).unwrap_err().to_string();
    assert!(error.contains("`pre_tokenizer` of type `Telepathy`"), "{error}");
}

#[test]
fn what_the_library_would_panic_over_is_refused() {
    let bpe = |more: serde_json::Value| {
        let mut json = serde_json::json!({
            "version": "1.0", "added_tokens": [], "normalizer": null, "pre_tokenizer": null, "post_processor": null,
            "decoder": null, "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": [["a", "b"]]},
        });
        for (key, value) in more.as_object().unwrap() {
            json[key] = value.clone();
        }
        json.to_string()
    };
    assert_eq!(Tokenizer::from_bytes(bpe(serde_json::json!({}))).unwrap().encode("ab").unwrap().input_ids, [2]);
    let added = |content: &str, lstrip: bool, rstrip: bool| {
        serde_json::json!({"id": 9, "content": content, "single_word": false, "lstrip": lstrip, "rstrip": rstrip,
            "normalized": false, "special": true})
    };
    let template = serde_json::json!({"type": "TemplateProcessing", "single": [{"Sequence": {"id": "B", "type_id": 0}}],
        "pair": [], "special_tokens": {}});
    for (reason, more) in [
        (
            "concatenation is in `vocab`",
            serde_json::json!({"model": {"type": "BPE", "vocab": {"a": 0, "b": 1}, "merges": [["a", "b"]]}}),
        ),
        (
            "begins with \"###\"",
            serde_json::json!({"model": {"type": "BPE", "vocab": {"a": 0, "b": 1}, "merges": ["a b"],
            "continuing_subword_prefix": "###"}}),
        ),
        ("ids below", serde_json::json!({"model": {"type": "BPE", "vocab": {"a": 4_000_000_000u32}, "merges": []}})),
        ("`stop` 0", serde_json::json!({"decoder": {"type": "Strip", "content": " ", "start": 0, "stop": 1}})),
        ("`length` of at least 1", serde_json::json!({"pre_tokenizer": {"type": "FixedLength", "length": 0}})),
        ("a second text", serde_json::json!({"post_processor": template})),
        (
            "as many ids as tokens for \"x\"",
            serde_json::json!({"post_processor": {"type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "x", "type_id": 0}}], "pair": [], "special_tokens": {}}}),
        ),
        (
            "one TemplateProcessing",
            serde_json::json!({"post_processor": {"type": "Sequence", "processors": [
            {"type": "TemplateProcessing", "single": []}, {"type": "TemplateProcessing", "single": []}]}}),
        ),
        (
            "precompiled_charsmap",
            serde_json::json!({"normalizer": {"type": "Precompiled", "precompiled_charsmap": "AAAAAA=="}}),
        ),
        ("lstrip", serde_json::json!({"added_tokens": [added("x", false, true), added(" y", true, false)]})),
    ] {
        let error = Tokenizer::from_bytes(bpe(more)).unwrap_err().to_string();
        assert!(error.contains(reason), "{error}");
    }
}

/// Loads a file and, if that succeeds, uses it: neither may panic.
fn exercise(json: &str) {
    if let Ok(tokenizer) = Tokenizer::from_bytes(json) {
        for text in TEXTS {
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
}

/// GPT-2's tokenizer with other components.
fn gpt2_with(parts: &[(&str, Value)]) -> Option<Tokenizer> {
    let mut whole = json("tokenizers/gpt2/tokenizer.json")?;
    for (key, value) in parts {
        whole[key] = value.clone();
    }
    Some(Tokenizer::from_bytes(whole.to_string()).unwrap())
}

fn splits(expressions: &[&str]) -> Value {
    let split = |expression: &&str| serde_json::json!({"type": "Split", "pattern": {"Regex": expression}, "behavior": "Isolated", "invert": false});
    let mut parts: Vec<Value> = expressions.iter().map(split).collect();
    parts.push(
        serde_json::json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false}),
    );
    serde_json::json!({"type": "Sequence", "pretokenizers": parts})
}

const LLAMA_3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

#[test]
fn a_text_behind_a_million_spaces_is_split_as_any_other() {
    let text = " ".repeat(1_100_000) + "Hello world, how are you today? It is 12345.";
    let Some(llama) = gpt2_with(&[("pre_tokenizer", splits(&[LLAMA_3]))]) else { return };
    let Some(gpt2) = gpt2_with(&[]) else { return };
    for (tokenizer, end) in [(llama, &[318, 220, 10163, 2231, 13][..]), (gpt2, &[318, 17031, 2231, 13])] {
        let ids = tokenizer.encode_without_special(&text).unwrap();
        assert!(ids.ends_with(end), "{:?}", &ids[ids.len() - 6..]);
        let short = tokenizer.encode_without_special("  Hello world, how are you today? It is 12345.").unwrap();
        assert_eq!(ids[ids.len() - 14..], short[short.len() - 14..]);
        assert_eq!(tokenizer.encode(&text).unwrap().input_ids, ids);
    }
}

#[test]
fn later_splits_give_the_same_ids_by_the_short_cut() {
    let text = TEXTS.concat() + "I'LL 12345 HTTPServer\r\n\r\n e\u{301}";
    for parts in [
        vec![("pre_tokenizer", splits(&[LLAMA_3]))],
        vec![
            ("pre_tokenizer", splits(&[r"\p{N}{1,3}", r"\s?\p{L}+"])),
            ("normalizer", serde_json::json!({"type": "NFC"})),
        ],
    ] {
        let Some(tokenizer) = gpt2_with(&parts) else { return };
        assert!(tokenizer.byte_level.is_some());
        for text in TEXTS.into_iter().chain([text.as_str()]) {
            let long = tokenizer.encode(text).unwrap().input_ids;
            assert_eq!(tokenizer.encode_without_special(text).unwrap(), long, "{text:?}");
        }
    }
}

/// A small byte-pair model with one hostile part.
fn hostile(key: &str, value: Value) -> String {
    let mut json = serde_json::json!({
        "version": "1.0", "added_tokens": [], "normalizer": null, "pre_tokenizer": null, "post_processor": null,
        "decoder": null, "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": [["a", "b"]]},
    });
    json[key] = value;
    json.to_string()
}

#[test]
fn a_file_that_makes_much_of_a_text_is_an_error() {
    let regex = |expression: &str| serde_json::json!({"Regex": expression});
    let replace =
        |pattern: Value, content: &str| serde_json::json!({"type": "Replace", "pattern": pattern, "content": content});
    let split = |expression: &str| serde_json::json!({"type": "Split", "pattern": regex(expression), "behavior": "Isolated", "invert": false});
    let all = |key: &str, parts: Vec<Value>| serde_json::json!({"type": "Sequence", key: parts});
    let text = "a".repeat(200_000);
    for (key, value) in [
        ("pre_tokenizer", split(r"(?=(a+)+$)a")),
        ("pre_tokenizer", split("(a|a)+b(?!c)")),
        ("normalizer", replace(regex("(?=(a+)+$)a"), "b")),
        ("normalizer", replace(regex("a"), &"b".repeat(1000))),
        ("normalizer", all("normalizers", vec![replace(regex("."), "aa"); 40])),
        (
            "normalizer",
            all("normalizers", vec![serde_json::json!({"type": "Prepend", "prepend": "a".repeat(100_000)}); 200]),
        ),
        ("normalizer", all("normalizers", vec![replace(serde_json::json!({"String": "a"}), "aaa"); 40])),
    ] {
        let tokenizer = Tokenizer::from_bytes(hostile(key, value)).unwrap();
        for error in [tokenizer.encode(&text).unwrap_err(), tokenizer.encode_without_special(&text).unwrap_err()] {
            assert!(error.to_string().contains("too"), "{error}");
        }
        let _ = tokenizer.encode("ab");
    }
    let suffix = serde_json::json!({"type": "BPEDecoder", "suffix": ""});
    for decoder in [
        all("decoders", vec![suffix; 60]),
        all("decoders", vec![serde_json::json!({"type": "Fuse"}), replace(regex("(?=([ab]+)+$)a"), "x")]),
        all("decoders", vec![replace(regex("a"), "aa"); 40]),
    ] {
        let tokenizer = Tokenizer::from_bytes(hostile("decoder", decoder)).unwrap();
        assert!(tokenizer.decode(&vec![0; 100_000]).unwrap_err().to_string().contains("too"));
        assert_eq!(tokenizer.decode(&[]).unwrap(), "");
    }
    let token = |content: &str, normalized: bool| {
        serde_json::json!([{"id": 9, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": normalized, "special": false}])
    };
    let mut grows: Value = serde_json::from_str(&hostile("added_tokens", token("aa", true))).unwrap();
    grows["normalizer"] = all("normalizers", vec![replace(regex("a"), "aa"); 40]);
    let template = serde_json::json!({"type": "TemplateProcessing", "pair": [], "special_tokens": {},
        "single": vec![serde_json::json!({"Sequence": {"id": "A", "type_id": 0}}); 1000]});
    let long = serde_json::json!({"type": "Unigram", "unk_id": 0, "vocab": [["a".repeat(2000), 0.0]]});
    for (json, reason) in [
        (hostile("pre_tokenizer", split(r"(a)\1")), "a reference to a group"),
        (hostile("pre_tokenizer", all("pretokenizers", vec![split(r"\w{100}"); 9])), "too large together"),
        (hostile("pre_tokenizer", split(r"(?:(?=a)b{1000}){1000}")), "repetitions"),
        (hostile("added_tokens", token(&"a".repeat(5000), false)), "at most 1024 bytes"),
        (grows.to_string(), "too long"),
        (hostile("post_processor", template), "at most 4 times"),
        (hostile("model", long), "at most 512 bytes"),
    ] {
        let error = Tokenizer::from_bytes(json).unwrap_err().to_string();
        assert!(error.contains(reason), "{error}");
    }
}

#[test]
fn keys_that_are_not_known_are_named() {
    for (key, value) in [
        ("post_processors", Value::Null),
        (
            "normalizer",
            serde_json::json!({"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true,
            "strip_accents": null, "lowercase": true, "uppercase": true}),
        ),
        (
            "pre_tokenizer",
            serde_json::json!({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regexp": false}),
        ),
        ("model", serde_json::json!({"type": "BPE", "vocab": {}, "merges": [], "ignore_merge": true})),
        (
            "truncation",
            serde_json::json!({"direction": "Right", "max_length": 9, "strategy": "LongestFirst", "stride": 0, "side": 1}),
        ),
        (
            "added_tokens",
            serde_json::json!([{"id": 9, "content": "x", "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true, "strip": true}]),
        ),
    ] {
        let name = if key == "post_processors" {
            key
        } else {
            ["uppercase", "use_regexp", "ignore_merge", "side", "strip"]
                .into_iter()
                .find(|name| value.to_string().contains(&format!("{name:?}")))
                .unwrap()
        };
        let error = Tokenizer::from_bytes(hostile(key, value)).unwrap_err().to_string();
        assert!(error.contains(&format!("`{name}` is not known")), "{error}");
    }
    let folder = tempfile::tempdir().unwrap();
    small()[0].1.save(folder.path().join("tokenizer.json")).unwrap();
    for (file, content, named) in [
        ("tokenizer_config.json", r#"{"do_lower_cased": true}"#, "`do_lower_cased` is not known"),
        ("tokenizer_config.json", r#"{"do_lower_case": "no"}"#, "`do_lower_case`: expected true, false or null"),
        ("tokenizer_config.json", r#"{"split_special_tokens": true}"#, "`split_special_tokens`: expected false"),
        ("special_tokens_map.json", r#"{"eos": "x"}"#, "`eos` is not known"),
        ("added_tokens.json", r#"{"new": "x"}"#, "\"new\": expected an id"),
        ("added_tokens.json", r#"{"new": 5}"#, "expected id 5 of \"new\""),
    ] {
        std::fs::write(folder.path().join(file), content).unwrap();
        let error = Tokenizer::open(folder.path()).unwrap_err().to_string();
        assert!(error.contains(named), "{error}");
        std::fs::remove_file(folder.path().join(file)).unwrap();
    }
    let next = Tokenizer::open(folder.path()).unwrap().vocab_size();
    std::fs::write(folder.path().join("added_tokens.json"), format!("{{\"new\": {next}}}")).unwrap();
    let map = r#"{"additional_special_tokens": ["<one>", {"content": "<two>", "lstrip": true}]}"#;
    std::fs::write(folder.path().join("special_tokens_map.json"), map).unwrap();
    let tokenizer = Tokenizer::open(folder.path()).unwrap();
    assert_eq!(tokenizer.encode("new").unwrap().input_ids, [next as u32]);
    assert!(tokenizer.is_special(next as u32 + 1) && tokenizer.token_to_id("<two>") == Some(next as u32 + 2));
}

#[test]
fn settings_beside_a_tokenizer_win_as_in_transformers() {
    // Tokens are those of `BertTokenizer` and `GPT2Tokenizer` of transformers 5.24 over the same
    // files.
    let folder = tempfile::tempdir().unwrap();
    let tokens = |file: &str, config: &str, text: &str| {
        std::fs::copy(data(file)?, folder.path().join("tokenizer.json")).unwrap();
        std::fs::write(folder.path().join("tokenizer_config.json"), config).unwrap();
        let tokenizer = Tokenizer::open(folder.path()).unwrap();
        let ids = tokenizer.encode_without_special(text).unwrap();
        let options = EncodeOptions::default().special_tokens(false);
        assert_eq!(tokenizer.encode_with(text, &options).unwrap().input_ids, ids, "{config}");
        Some(ids.iter().map(|&id| tokenizer.id_to_token(id).unwrap()).collect::<Vec<_>>().join(" "))
    };
    for (config, expected) in [
        ("{}", "hello world 日 本"),
        (r#"{"do_lower_case": false}"#, "[UNK] [UNK] 日 本"),
        (r#"{"strip_accents": false}"#, "[UNK] [UNK] 日 本"),
        (r#"{"strip_accents": true}"#, "hello world 日 本"),
        (r#"{"do_lower_case": false, "strip_accents": true, "tokenizer_class": "BertTokenizer"}"#, "[UNK] [UNK] 日 本"),
        (r#"{"tokenize_chinese_chars": false}"#, "hello world 日 ##本"),
        (r#"{"do_lower_case": false, "tokenizer_class": "PreTrainedTokenizerFast"}"#, "hello world 日 本"),
        (r#"{"do_lower_case": false, "tokenizer_class": "TokenizersBackend"}"#, "hello world 日 本"),
    ] {
        let Some(found) = tokens("models/all-MiniLM-L6-v2/tokenizer.json", config, "Héllo WÖRLD 日本") else {
            return;
        };
        assert_eq!(found, expected, "{config}");
    }
    for (config, expected) in [
        ("{}", "hello Ġworld"),
        (r#"{"add_prefix_space": true}"#, "Ġhello Ġworld"),
        (r#"{"add_prefix_space": true, "tokenizer_class": "GPT2Tokenizer"}"#, "Ġhello Ġworld"),
        (r#"{"add_prefix_space": false}"#, "hello Ġworld"),
        (r#"{"add_prefix_space": true, "tokenizer_class": "PreTrainedTokenizerFast"}"#, "hello Ġworld"),
        (r#"{"add_prefix_space": true, "tokenizer_class": "LlamaTokenizerFast"}"#, "hello Ġworld"),
    ] {
        let Some(found) = tokens("tokenizers/gpt2/tokenizer.json", config, "hello world") else { return };
        assert_eq!(found, expected, "{config}");
    }
}

#[test]
fn a_gpt1_folder_is_read_as_transformers_does() {
    // Ids are those of `OpenAIGPTTokenizer` of transformers 5.24 over the same vocabulary.
    let folder = tempfile::tempdir().unwrap();
    let merges = ["h e", "l l", "he ll", "hell o</w>", "o r", "w or", "l d</w>", "wor ld</w>", "h e</w>", "t he</w>"];
    let chars = "abcdefghijklmnopqrstuvwxyz,.!'0123456789";
    let tokens = ["<unk>".to_string()].into_iter().chain(chars.chars().map(String::from));
    let tokens =
        tokens.chain(chars.chars().map(|c| format!("{c}</w>"))).chain(merges.map(|merge| merge.replace(' ', "")));
    let mut vocab: serde_json::Map<String, Value> = tokens.zip(0..).map(|(token, id)| (token, id.into())).collect();
    let write = |vocab: &serde_json::Map<String, Value>| {
        std::fs::write(folder.path().join("vocab.json"), serde_json::to_string(vocab).unwrap()).unwrap();
    };
    std::fs::write(folder.path().join("merges.txt"), format!("#version: 0.2\n{}\n", merges.join("\n"))).unwrap();
    write(&vocab);
    let tokenizer = Tokenizer::open(folder.path()).unwrap();
    for (text, ids, decoded) in [
        ("hello world, Hello World!", vec![84, 88, 67, 84, 88, 69], "hello world , hello world !"),
        (
            "The cat's 42 hats — é 猫",
            vec![90, 3, 1, 60, 70, 59, 35, 73, 8, 1, 20, 59, 0, 45, 0],
            "the cat ' s 42 hats e ",
        ),
        ("", vec![], ""),
    ] {
        assert_eq!(tokenizer.encode(text).unwrap().input_ids, ids, "{text}");
        assert_eq!(tokenizer.encode_without_special(text).unwrap(), ids, "{text}");
        assert_eq!(tokenizer.decode(&ids).unwrap().trim_end(), decoded.trim_end(), "{text}");
    }
    let copy = tempfile::tempdir().unwrap();
    tokenizer.save_folder(copy.path()).unwrap();
    assert_eq!(Tokenizer::open(copy.path()).unwrap().encode("hello").unwrap().input_ids, [84]);
    vocab.insert("<|startoftext|>".into(), 91.into());
    write(&vocab);
    assert!(Tokenizer::open(folder.path()).unwrap_err().to_string().contains("<|startoftext|>"));
    // A vocabulary of words is not a byte-level one.
    let words: serde_json::Map<String, Value> = (0..300).map(|id| (format!("w{id}"), id.into())).collect();
    write(&words);
    std::fs::write(folder.path().join("merges.txt"), "").unwrap();
    assert!(Tokenizer::open(folder.path()).unwrap_err().to_string().contains("expected a byte-level vocabulary"));
}

#[test]
fn words_of_pieces_are_the_librarys() {
    let text = "the unaffable cats are un-affable: ungecat éa catsunable cats###s a##b";
    let tokenizer =
        TokenizerTrainer::word_piece().vocab_size(60).train(["the cats un able affable a b c é s # :"]).unwrap();
    let tokenizers::ModelWrapper::WordPiece(model) = tokenizer.inner.get_model() else { panic!("word pieces") };
    let budget = pattern::Budget::of(1000);
    for word in text.split(' ').chain(["", "猫", &"cats".repeat(30), &"a".repeat(100), &"a".repeat(101)]) {
        let mut found = Vec::new();
        let each = |id, start, end| found.push((id, (start, end)));
        tokenizer.known.tokens(tokenizer.inner.get_model(), word, &budget, each).unwrap();
        let expected: Vec<_> =
            model.tokenize(word).unwrap().into_iter().map(|token| (token.id, token.offsets)).collect();
        assert_eq!(found, expected, "{word}");
    }
}

#[test]
fn gguf_splits_of_falcon_and_deepseek_coder() {
    // Ids by the reference library with llama.cpp's expressions, one after the other, over GPT-2's
    // vocabulary.
    let Some(vocab) = json("tokenizers/gpt2/vocab.json") else { return };
    let merges = std::fs::read_to_string(data("tokenizers/gpt2/merges.txt").unwrap()).unwrap();
    let mut tokens: Vec<(&String, u64)> =
        vocab.as_object().unwrap().iter().map(|(t, id)| (t, id.as_u64().unwrap())).collect();
    tokens.sort_by_key(|&(_, id)| id);
    let mut vocabulary = crate::checkpoint::gguf::GgmlVocabulary {
        model: "gpt2".into(),
        tokens: tokens.into_iter().map(|(token, _)| token.clone()).collect(),
        merges: merges.lines().filter(|line| !line.starts_with("#version")).map(String::from).collect(),
        ..Default::default()
    };
    let text = "Hello, world! I'm 12345 years`old` == 3.1415\n\n  x = [1,  2]; 日本語 가나 é\t\"quoted\"  ";
    for (pre, expected) in [
        (
            "falcon",
            vec![
                15496, 11, 995, 0, 314, 6, 76, 220, 10163, 2231, 812, 63, 727, 63, 220, 855, 513, 13, 23756, 20, 628,
                220, 2124, 220, 28, 220, 58, 16, 11, 220, 362, 11208, 10545, 245, 98, 17312, 105, 45739, 252, 220, 166,
                108, 222, 167, 224, 246, 38251, 197, 1, 421, 5191, 1, 220, 220,
            ],
        ),
        (
            "deepseek-coder",
            vec![
                15496, 11, 995, 0, 314, 6, 76, 220, 16, 17, 18, 19, 20, 812, 63, 727, 63, 6624, 220, 18, 13, 16, 19,
                16, 20, 198, 198, 220, 2124, 796, 685, 16, 11, 220, 220, 17, 11208, 220, 33768, 98, 17312, 105, 45739,
                252, 220, 166, 108, 222, 167, 224, 246, 38251, 197, 1, 421, 5191, 1, 220, 220,
            ],
        ),
    ] {
        vocabulary.pre = Some(pre.into());
        let tokenizer = Tokenizer::from_ggml(&vocabulary).unwrap();
        assert_eq!(tokenizer.encode_without_special(text).unwrap(), expected, "{pre}");
        assert_eq!(tokenizer.encode(text).unwrap().input_ids, expected, "{pre}");
        assert_eq!(tokenizer.to_ggml().unwrap().pre.as_deref(), Some(pre));
    }
    vocabulary.pre = Some("telepathy".into());
    assert!(Tokenizer::from_ggml(&vocabulary).unwrap_err().to_string().contains("found telepathy"));
}
