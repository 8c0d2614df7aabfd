//! GGUF files of other programs: the reference's blocks (`tests/fixtures/make_gguf.py`), llama.cpp's vocabularies with the ids
//! that it expects, a trained model.

#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};

use loquat::checkpoint::gguf::{GgmlVocabulary, GgufFile, TensorType};
use loquat::kernels::blocks::{self, BlockFormat};
use loquat::{Load, checkpoint::DType};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

/// A file of the data folder.
fn data(path: &str) -> Option<PathBuf> {
    let root = std::env::var_os("LOQUAT_DATA").map(PathBuf::from);
    let path = root.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data")).join(path);
    if !path.exists() {
        eprintln!("SKIPPED: no {} (set LOQUAT_DATA)", path.display());
        return None;
    }
    Some(path)
}

#[test]
fn blocks_widen_to_the_references_bits() {
    for load in [Load::Mmap, Load::Read] {
        let file = GgufFile::open(fixture("gguf/blocks.gguf"), load).unwrap();
        assert_eq!(file.get("a.text").unwrap().as_str(), Some("größer"));
        let numbers = |name: &str| -> Vec<f32> {
            let tensor = file.tensor(name).unwrap();
            assert_eq!(tensor.tensor_type(), TensorType::F32);
            tensor.bytes().as_chunks().0.iter().map(|&x| f32::from_le_bytes(x)).collect()
        };
        for format in BlockFormat::ALL {
            let tensor = file.tensor(format.name()).unwrap();
            assert_eq!(tensor.tensor_type().dtype(), DType::Blocks(format));
            assert_eq!(tensor.shape(), [3, 2 * format.block_len()]);
            let mut ours = vec![0.0; tensor.shape().iter().product()];
            blocks::widen(format, tensor.bytes(), &mut ours);
            let theirs = numbers(&format!("{format}.f32"));
            let same = ours.iter().zip(&theirs).all(|(a, b)| a.to_bits() == b.to_bits());
            assert!(same && ours.iter().all(|x| x.is_finite()), "{format}");
        }
        let mut q8_0 = vec![0; 8 * 34];
        blocks::quantize_q8_0(&numbers("numbers"), &mut q8_0);
        assert_eq!(q8_0, file.tensor("numbers.q8_0").unwrap().bytes());
    }
}

#[cfg(feature = "tokenizers")]
mod tokenizers {
    use loquat::text::Tokenizer;

    use super::*;

    /// The test strings of llama.cpp with the ids that it expects.
    fn cases(name: &str) -> Option<Vec<(String, Vec<u32>)>> {
        let path = data(&format!("tokenizers/ggml/ggml-vocab-{name}.gguf"))?;
        let beside = |end: &str| std::fs::read_to_string(format!("{}.{end}", path.display())).unwrap();
        let (texts, ids) = (beside("inp"), beside("out"));
        let texts: Vec<&str> = texts.split("\n__ggml_vocab_test__\n").collect();
        let ids = ids.lines().map(|line| line.split_whitespace().map(|id| id.parse().unwrap()).collect());
        let cases: Vec<(String, Vec<u32>)> = texts.into_iter().map(String::from).zip(ids).collect();
        assert!(cases.len() > 40);
        Some(cases)
    }

    #[test]
    fn ids_are_those_that_llama_cpp_expects() {
        for name in ["llama-spm", "gpt-2", "bert-bge"] {
            let Some(cases) = cases(name) else { return };
            let path = data(&format!("tokenizers/ggml/ggml-vocab-{name}.gguf")).unwrap();
            let tokenizer = Tokenizer::open(&path).unwrap();
            for (text, expected) in cases {
                assert_eq!(tokenizer.encode_without_special(&text).unwrap(), expected, "{name}: {text:?}");
                if name == "gpt-2" || name == "llama-spm" {
                    assert_eq!(tokenizer.decode(&expected).unwrap(), text, "{name}");
                }
            }
        }
    }

    #[test]
    fn a_text_begins_and_ends_as_the_file_says() {
        let Some(path) = data("tokenizers/ggml/ggml-vocab-llama-spm.gguf") else { return };
        let file = GgufFile::open(path, Load::Mmap).unwrap();
        let mut vocabulary = GgmlVocabulary::read(&file).unwrap().unwrap();
        let ids = |vocabulary: &GgmlVocabulary| {
            Tokenizer::from_ggml(vocabulary).unwrap().encode("Hello</s>world").unwrap().input_ids
        };
        assert_eq!(ids(&vocabulary), [1, 15043, 2, 3186]);
        (vocabulary.add_bos, vocabulary.add_eos) = (Some(false), Some(true));
        assert_eq!(ids(&vocabulary), [15043, 2, 3186, 2]);
        vocabulary.add_space_prefix = Some(false);
        assert_eq!(ids(&vocabulary), [10994, 2, 11526, 2]);
        let tokenizer = Tokenizer::from_ggml(&vocabulary).unwrap();
        assert_eq!(
            (tokenizer.bos_token_id(), tokenizer.eos_token_id(), tokenizer.unk_token_id()),
            (Some(1), Some(2), Some(0))
        );
        vocabulary.model = "t5".into();
        assert!(Tokenizer::from_ggml(&vocabulary).unwrap_err().to_string().contains("found t5"));
    }

    #[test]
    fn what_is_said_of_a_tokenizer_gives_it_back() {
        for name in ["llama-spm", "gpt-2"] {
            let Some(path) = data(&format!("tokenizers/ggml/ggml-vocab-{name}.gguf")) else { return };
            let tokenizer = Tokenizer::open(path).unwrap();
            let vocabulary = tokenizer.to_ggml().unwrap();
            let again = Tokenizer::from_ggml(&vocabulary).unwrap();
            for (text, _) in cases(name).unwrap() {
                assert_eq!(
                    again.encode(&text).unwrap().input_ids,
                    tokenizer.encode(&text).unwrap().input_ids,
                    "{name}"
                );
            }
            assert_eq!(again.vocab(), tokenizer.vocab());
        }
        let Some(path) = data("models/stories260K/hf/tokenizer.json") else { return };
        let theirs = Tokenizer::open(data("models/stories260K/stories260K-f32.gguf").unwrap()).unwrap();
        let vocabulary = Tokenizer::open(path).unwrap().to_ggml().unwrap();
        assert_eq!(Tokenizer::from_ggml(&vocabulary).unwrap().vocab(), theirs.vocab());
    }
}
