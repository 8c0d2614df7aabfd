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

/// The trained decoder: a folder and two GGUF files, with what the reference makes of them.
mod trained {
    use loquat::checkpoint::gguf::{GgufFormat, save_gguf};
    use loquat::checkpoint::{OpenOptions, WeightFormat, save_pretrained};
    use loquat::generation::generate;
    use loquat::models::{CausalLm, LanguageModel};
    use loquat::nn::Module;
    use loquat::ops::cross_entropy;
    use loquat::{GenerationConfig, IdTensor};
    use serde_json::Value;

    use super::*;

    fn expected() -> Option<Value> {
        let text = std::fs::read_to_string(data("models/stories260K/expected.json")?).unwrap();
        Some(serde_json::from_str(&text).unwrap())
    }

    fn numbers<T: serde::de::DeserializeOwned>(value: &Value) -> Vec<T> {
        serde_json::from_value(value.clone()).unwrap()
    }

    /// Greedy tokens, logits of the prompt, perplexity.
    fn check(what: &str, model: &LanguageModel, all: &Value, form: &str) {
        let (expected, prompt) = (&all[form], numbers::<u32>(&all["prompt_ids"]));
        let greedy: Vec<u32> = numbers(&expected["greedy_ids"]);
        let config = GenerationConfig::default().greedy().max_new_tokens(greedy.len());
        let ids: Vec<u32> = generate(model, &prompt, &config).unwrap().map(|id| id.unwrap()).collect();
        assert_eq!(ids, greedy, "{what}");
        let logits = model.forward(&IdTensor::sequence(&prompt)).unwrap();
        let theirs: Vec<f32> = numbers(&expected["prompt_logits"]);
        let ours = &logits.data()[logits.len() - theirs.len()..];
        let worst = ours.iter().zip(&theirs).map(|(a, b)| (a - b).abs()).fold(0f32, f32::max);
        assert!(worst < 1e-4, "{what}: logits off by {worst}");
        let text: Vec<u32> = numbers(&all["perplexity_ids"]);
        let (inputs, labels) = (IdTensor::sequence(&text[..text.len() - 1]), IdTensor::sequence(&text[1..]));
        let loss = cross_entropy(&model.forward(&inputs).unwrap(), &labels).unwrap().data()[0];
        let nll = expected["perplexity"]["mean_nll"].as_f64().unwrap();
        assert!((f64::from(loss) - nll).abs() < 1e-5, "{what}: {loss} instead of {nll}");
    }

    #[test]
    fn every_form_gives_the_references_tokens_logits_and_perplexity() {
        let Some(all) = expected() else { return };
        let forms = [("hf", "f32"), ("stories260K-f32.gguf", "f32"), ("stories260K-q8_0.gguf", "q8_0")];
        for (name, form) in forms {
            let path = data(&format!("models/stories260K/{name}")).unwrap();
            for (weights, load) in [(WeightFormat::Keep, Load::Mmap), (WeightFormat::F32, Load::Read)] {
                let options = OpenOptions::default().weights(weights).load(load);
                let model = LanguageModel::open_with(&path, &options).unwrap();
                check(&format!("{name} {weights:?} {load:?}"), &model, &all, form);
            }
        }
    }

    #[test]
    fn blocks_that_are_kept_give_the_bits_of_widened_ones() {
        let Some(path) = data("models/stories260K/stories260K-q8_0.gguf") else { return };
        let open = |weights| LanguageModel::open_with(&path, &OpenOptions::default().weights(weights)).unwrap();
        let (kept, wide) = (open(WeightFormat::Keep), open(WeightFormat::F32));
        let ids = IdTensor::sequence(&[1, 403, 407, 261, 378]);
        assert_eq!(kept.forward(&ids).unwrap().data(), wide.forward(&ids).unwrap().data());
        let bytes = |model: &LanguageModel| model.parameters().iter().map(|(_, p)| p.weight().bytes()).sum::<usize>();
        assert!(bytes(&kept) * 3 < bytes(&wide), "{} {}", bytes(&kept), bytes(&wide));
        // A folder has no blocks: they are written in 32 bits.
        let folder = tempfile::tempdir().unwrap();
        save_pretrained(folder.path(), &kept).unwrap();
        let again = LanguageModel::open(folder.path()).unwrap();
        assert_eq!(again.forward(&ids).unwrap().data(), wide.forward(&ids).unwrap().data());
    }

    #[test]
    fn what_we_write_is_what_the_references_writer_writes() {
        let Some(hf) = data("models/stories260K/hf") else { return };
        let model = LanguageModel::open(hf).unwrap();
        let folder = tempfile::tempdir().unwrap();
        for (format, name) in [(GgufFormat::F32, "f32"), (GgufFormat::Q8_0, "q8_0")] {
            let path = folder.path().join("a.gguf");
            save_gguf(&path, &model, None, format).unwrap();
            let ours = GgufFile::open(&path, Load::Mmap).unwrap();
            let theirs = data(&format!("models/stories260K/stories260K-{name}.gguf")).unwrap();
            let theirs = GgufFile::open(theirs, Load::Mmap).unwrap();
            assert_eq!(ours.tensor_count(), theirs.tensor_count());
            for (ours, theirs) in ours.tensors().zip(theirs.tensors()) {
                assert_eq!((ours.name(), ours.shape()), (theirs.name(), theirs.shape()));
                assert_eq!(ours.tensor_type(), theirs.tensor_type(), "{}", ours.name());
                assert!(ours.bytes() == theirs.bytes(), "{} {name}", ours.name());
            }
            for (key, value) in theirs.metadata().filter(|(key, _)| key.starts_with("llama.")) {
                assert_eq!(ours.get(key).as_ref(), Some(&value), "{key}");
            }
        }
    }

    #[cfg(feature = "tokenizers")]
    #[test]
    fn the_tokenizer_in_the_file_is_the_folders() {
        let Some(all) = expected() else { return };
        let open =
            |name: &str| loquat::text::Tokenizer::open(data(&format!("models/stories260K/{name}")).unwrap()).unwrap();
        let (folder, file) = (open("hf"), open("stories260K-q8_0.gguf"));
        for case in all["tokenizer"].as_array().unwrap() {
            let (text, ids) = (case["text"].as_str().unwrap(), numbers::<u32>(&case["ids"]));
            assert_eq!(folder.encode(text).unwrap().input_ids, ids, "{text:?}");
            assert_eq!(file.encode(text).unwrap().input_ids, ids, "{text:?}");
            assert_eq!(file.decode(&ids).unwrap(), case["decoded"].as_str().unwrap(), "{text:?}");
        }
    }
}

/// Models of every architecture through a file and back.
mod round_trip {
    use loquat::checkpoint::gguf::{GgufFormat, GgufWriter, Value, save_gguf};
    use loquat::checkpoint::{Pretrained, WeightFormat};
    use loquat::models::{CausalLm, EncoderConfig, Gpt2, Gpt2Config, LanguageModel, Llama, LlamaConfig};
    use loquat::models::{TextBatch, TextEncoder};
    use loquat::{IdTensor, Rng};
    use serde_json::json;

    fn there_and_back(model: &(impl CausalLm + Pretrained)) -> LanguageModel {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.gguf");
        save_gguf(&path, model, None, GgufFormat::F32).unwrap();
        let again = LanguageModel::open(&path).unwrap();
        let ids = IdTensor::sequence(&[1, 5, 12, 0, 7, 7]);
        assert_eq!(again.forward(&ids).unwrap().data(), model.forward(&ids).unwrap().data());
        for format in [GgufFormat::F16, GgufFormat::Q8_0] {
            save_gguf(&path, model, None, format).unwrap();
            let again = LanguageModel::open(&path).unwrap();
            let wide = loquat::checkpoint::OpenOptions::default().weights(WeightFormat::F32);
            let wide = LanguageModel::open_with(&path, &wide).unwrap();
            assert_eq!(again.forward(&ids).unwrap().data(), wide.forward(&ids).unwrap().data(), "{format:?}");
        }
        again
    }

    #[test]
    fn gpt2() {
        for tied in [true, false] {
            let mut config = Gpt2Config::new(13, 16, 32, 2, 4);
            config.tie_word_embeddings = tied;
            config.n_inner = Some(48);
            let again = there_and_back(&Gpt2::init(&config, &mut Rng::seed(1)).unwrap());
            assert_eq!(again.config_json()["tie_word_embeddings"], tied);
        }
    }

    #[test]
    fn the_llama_family() {
        let scalings = [
            json!(null),
            json!({ "rope_type": "linear", "factor": 2.0 }),
            json!({ "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64 }),
            json!({ "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                "original_max_position_embeddings": 8192 }),
        ];
        let cases = ["llama", "mistral", "qwen2", "qwen3"].into_iter().map(|t| (t, &scalings[0]));
        for (model_type, scaling) in cases.chain(scalings[1..].iter().map(|s| ("llama", s))) {
            let mut config = json!({
                "model_type": model_type, "vocab_size": 13, "hidden_size": 32, "intermediate_size": 40,
                "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "rms_norm_eps": 1e-5,
                "max_position_embeddings": 64, "rope_theta": 500000.0, "rope_scaling": scaling, "hidden_act": "silu",
                "tie_word_embeddings": model_type == "qwen2",
            });
            match model_type {
                "mistral" => config["sliding_window"] = 3.into(),
                "qwen3" => config["head_dim"] = 16.into(),
                "llama" => config["attention_bias"] = true.into(),
                _ => {}
            }
            let config = LlamaConfig::from_json(&config).unwrap();
            let mut model = Llama::init(&config, &mut Rng::seed(1)).unwrap();
            // Biases begin as zeros, which could be anywhere.
            let mut rng = Rng::seed(2);
            loquat::nn::Module::visit_mut(&mut model, "", &mut |_, p| {
                if p.shape().len() == 1 {
                    p.data_mut().iter_mut().for_each(|x| *x += 0.1 * rng.normal());
                }
            });
            let again = there_and_back(&model);
            assert_eq!(again.config_json()["model_type"], model_type);
        }
    }

    /// The names of GGUF for parts of BERT.
    const BERT: [(&str, &str); 12] = [
        ("embeddings.word_embeddings", "token_embd"),
        ("embeddings.position_embeddings", "position_embd"),
        ("embeddings.token_type_embeddings", "token_types"),
        ("embeddings.LayerNorm", "token_embd_norm"),
        ("attention.self.query", "attn_q"),
        ("attention.self.key", "attn_k"),
        ("attention.self.value", "attn_v"),
        ("attention.output.dense", "attn_output"),
        ("attention.output.LayerNorm", "attn_output_norm"),
        ("intermediate.dense", "ffn_up"),
        ("output.dense", "ffn_down"),
        ("output.LayerNorm", "layer_output_norm"),
    ];

    #[test]
    fn bert() {
        let config = json!({
            "model_type": "bert", "vocab_size": 13, "hidden_size": 32, "intermediate_size": 40, "num_hidden_layers": 2,
            "num_attention_heads": 4, "max_position_embeddings": 16, "type_vocab_size": 2, "hidden_act": "gelu",
            "layer_norm_eps": 1e-12,
        });
        let config = EncoderConfig::from_json(&config).unwrap();
        let model = TextEncoder::init(&config, false, &mut Rng::seed(1)).unwrap();
        let mut writer = GgufWriter::new();
        writer.set("general.architecture", Value::String("bert")).unwrap();
        let sizes = [("context_length", 16), ("embedding_length", 32), ("block_count", 2), ("feed_forward_length", 40)];
        for (key, size) in sizes.into_iter().chain([("attention.head_count", 4)]) {
            writer.set(&format!("bert.{key}"), Value::U32(size)).unwrap();
        }
        writer.set("bert.attention.layer_norm_epsilon", Value::F32(1e-12)).unwrap();
        for (path, parameter) in loquat::nn::Module::parameters(&model) {
            let path = path.trim_start_matches("bert.");
            let (stem, end) = path.rsplit_once('.').unwrap();
            let (block, part) = match stem.strip_prefix("encoder.layer.").and_then(|block| block.split_once('.')) {
                Some((block, part)) => (format!("blk.{block}."), part),
                None => (String::new(), stem),
            };
            let (_, gguf) = BERT.iter().find(|(theirs, _)| *theirs == part).unwrap_or_else(|| panic!("{path}"));
            let (shape, data) = (parameter.shape(), parameter.tensor().to_vec());
            writer.tensor_f32(&format!("{block}{gguf}.{end}"), shape, data).unwrap();
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.gguf");
        writer.save(&path).unwrap();
        let again = TextEncoder::open(&path).unwrap();
        let batch = TextBatch::new(&IdTensor::sequence(&[1, 5, 12, 0, 7, 7]));
        assert_eq!(again.forward(&batch).unwrap().data(), model.forward(&batch).unwrap().data());
    }

    #[test]
    fn what_gguf_cannot_say_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let mut config = Gpt2Config::new(13, 16, 32, 2, 4);
        config.activation_function = "relu".into();
        let model = Gpt2::init(&config, &mut Rng::seed(1)).unwrap();
        let error = save_gguf(folder.path().join("a.gguf"), &model, None, GgufFormat::F32).unwrap_err();
        assert!(error.to_string().contains("activation_function"), "{error}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
