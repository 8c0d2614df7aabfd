//! GGUF files of other programs: the blocks of the reference (`tests/fixtures/make_gguf.py`),
//! llama.cpp's vocabularies with the expected ids, a trained model.

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
fn blocks_dequantize_to_the_bits_of_the_reference() {
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
            blocks::dequantize(format, tensor.bytes(), &mut ours);
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

    /// The test strings of llama.cpp with their expected ids.
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
    fn the_file_determines_begin_and_end_tokens() {
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
    fn tokenizer_metadata_round_trips() {
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

/// The trained decoder: a folder and two GGUF files, with the results of the reference.
mod trained {
    use loquat::checkpoint::gguf::GgufFormat;
    use loquat::checkpoint::{OpenOptions, WeightFormat, save_pretrained};
    use loquat::generation::generate;
    use loquat::models::{CausalLm, LanguageModel, save_gguf};
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
    fn kept_blocks_give_the_bits_of_dequantized_ones() {
        let Some(path) = data("models/stories260K/stories260K-q8_0.gguf") else { return };
        let open = |weights| LanguageModel::open_with(&path, &OpenOptions::default().weights(weights)).unwrap();
        let (kept, wide) = (open(WeightFormat::Keep), open(WeightFormat::F32));
        let ids = IdTensor::sequence(&[1, 403, 407, 261, 378]);
        assert_eq!(kept.forward(&ids).unwrap().data(), wide.forward(&ids).unwrap().data());
        let bytes = |model: &LanguageModel| model.parameters().iter().map(|(_, p)| p.weight().bytes()).sum::<usize>();
        assert!(bytes(&kept) * 3 < bytes(&wide), "{} {}", bytes(&kept), bytes(&wide));
        // A folder has no blocks: they are written as f32.
        let folder = tempfile::tempdir().unwrap();
        save_pretrained(folder.path(), &kept).unwrap();
        let again = LanguageModel::open(folder.path()).unwrap();
        assert_eq!(again.forward(&ids).unwrap().data(), wide.forward(&ids).unwrap().data());
    }

    #[test]
    fn written_blocks_equal_those_of_the_reference() {
        let Some(hf) = data("models/stories260K/hf") else { return };
        let model = LanguageModel::open(hf).unwrap();
        let folder = tempfile::tempdir().unwrap();
        for (format, name) in [(GgufFormat::F32, "f32"), (GgufFormat::Q8_0, "q8_0")] {
            let path = folder.path().join("a.gguf");
            save_gguf(&path, &model, None, format).unwrap();
            let ours = GgufFile::open(&path, Load::Mmap).unwrap();
            let theirs = data(&format!("models/stories260K/stories260K-{name}.gguf")).unwrap();
            let theirs = GgufFile::open(theirs, Load::Mmap).unwrap();
            assert_eq!(ours.tensors().len(), theirs.tensors().len());
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

/// Models of every architecture, saved as a file and opened again.
mod round_trip {
    use loquat::checkpoint::gguf::{GgufFormat, GgufWriter, Value};
    use loquat::checkpoint::{Pretrained, WeightFormat};
    use loquat::models::{CausalLm, EncoderConfig, Gpt2, Gpt2Config, LanguageModel, Llama, LlamaConfig};
    use loquat::models::{TextBatch, TextEncoder, save_gguf};
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
            // Biases are initialised to zero, which would hide a wrong one.
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

    /// The names in GGUF of the parts of BERT.
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
    fn options_that_gguf_cannot_represent_are_errors() {
        let folder = tempfile::tempdir().unwrap();
        let mut config = Gpt2Config::new(13, 16, 32, 2, 4);
        config.activation_function = "relu".into();
        let model = Gpt2::init(&config, &mut Rng::seed(1)).unwrap();
        let error = save_gguf(folder.path().join("a.gguf"), &model, None, GgufFormat::F32).unwrap_err();
        assert!(error.to_string().contains("activation_function"), "{error}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}

/// Options of configurations, saved and opened again, and files of other programs.
mod options {
    use loquat::checkpoint::Pretrained;
    use loquat::checkpoint::gguf::{GgufFormat, GgufWriter, Value};
    use loquat::models::{CausalLm, Gpt2, Gpt2Config, LanguageModel, Llama, LlamaConfig, save_gguf};
    use loquat::nn::Module;
    use loquat::{IdTensor, Result, Rng};
    use serde_json::{Value as Json, json};

    use super::*;

    fn base(model_type: &str) -> Json {
        match model_type {
            "gpt2" => json!({
                "model_type": "gpt2", "vocab_size": 13, "n_positions": 64, "n_embd": 32, "n_layer": 2, "n_head": 4,
            }),
            _ => json!({
                "model_type": model_type, "vocab_size": 13, "hidden_size": 32, "intermediate_size": 40,
                "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8,
                "max_position_embeddings": 64, "initializer_range": 0.3, "rms_norm_eps": 1e-5, "hidden_act": "silu",
                "sliding_window": null, "rope_theta": 10000.0, "tie_word_embeddings": false,
            }),
        }
    }

    /// A model of a configuration, with random norms and biases.
    fn model(config: &Json) -> LanguageModel {
        let mut rng = Rng::seed(1);
        let mut model = match config["model_type"].as_str() {
            Some("gpt2") => {
                let config: Gpt2Config = serde_json::from_value(config.clone()).unwrap();
                LanguageModel::new(Gpt2::init(&config, &mut rng).unwrap())
            }
            _ => {
                let config = LlamaConfig::from_json(config).unwrap();
                LanguageModel::new(Llama::init(&config, &mut rng).unwrap())
            }
        };
        model.visit_mut("", &mut |_, p| {
            if p.shape().len() == 1 {
                p.data_mut().iter_mut().for_each(|x| *x += 0.1 * rng.normal());
            }
        });
        model
    }

    fn logits(model: &LanguageModel) -> Vec<f32> {
        let ids: Vec<u32> = (0..24).map(|i| i * 5 % 12).collect();
        model.forward(&IdTensor::sequence(&ids)).unwrap().to_vec()
    }

    fn there_and_back(model: &LanguageModel) -> Result<LanguageModel> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.gguf");
        save_gguf(&path, model, None, GgufFormat::F32)?;
        Ok(LanguageModel::open(&path).unwrap())
    }

    /// Options, with the key that the error names if GGUF cannot represent them.
    fn options(model_type: &str) -> Vec<(Json, Option<&'static str>)> {
        let written = |json: Json| (json, None);
        if model_type == "gpt2" {
            return vec![
                written(json!({ "vocab_size": 17, "n_positions": 50, "n_embd": 24, "n_layer": 3, "n_head": 3 })),
                written(json!({ "n_inner": 20, "layer_norm_epsilon": 0.1 })),
                written(json!({ "tie_word_embeddings": false })),
                written(json!({ "activation_function": "gelu_pytorch_tanh", "reorder_and_upcast_attn": true })),
                (json!({ "activation_function": "gelu" }), Some("activation_function")),
                (json!({ "activation_function": "relu" }), Some("activation_function")),
                (json!({ "scale_attn_weights": false }), Some("scale_attn_weights")),
                (json!({ "scale_attn_by_inverse_layer_idx": true }), Some("scale_attn_by_inverse_layer_idx")),
                // Used in training only.
                written(json!({ "attn_pdrop": 0.5, "embd_pdrop": 0.5, "resid_pdrop": 0.5, "initializer_range": 0.3 })),
            ];
        }
        let rope = |scaling: Json| json!({ "rope_scaling": scaling });
        let yarn = |more: Json| {
            let mut dict = json!({ "rope_type": "yarn", "factor": 3.3, "original_max_position_embeddings": 16 });
            dict.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            rope(dict)
        };
        let llama3 = |original: usize, high: f64| {
            rope(json!({
                "rope_type": "llama3", "factor": 7.7, "low_freq_factor": 1.1, "high_freq_factor": high,
                "original_max_position_embeddings": original,
            }))
        };
        let longrope = |attention_factor: Json| {
            rope(json!({
                "rope_type": "longrope", "short_factor": [1.0, 1.3, 2.7, 9.1], "long_factor": [1.0, 1.3, 2.7, 9.1],
                "factor": 2.0, "attention_factor": attention_factor,
            }))
        };
        let mut all = vec![
            written(json!({ "vocab_size": 17, "hidden_size": 48, "intermediate_size": 24, "num_hidden_layers": 3 })),
            written(json!({ "num_attention_heads": 8, "num_key_value_heads": 8, "head_dim": 6 })),
            written(json!({ "num_key_value_heads": null, "head_dim": null })),
            written(json!({ "max_position_embeddings": 100, "rms_norm_eps": 0.1, "tie_word_embeddings": true })),
            written(json!({ "hidden_act": "swish", "residual_multiplier": 1.0, "partial_rotary_factor": 1 })),
            (json!({ "hidden_act": "gelu" }), Some("hidden_act")),
            written(json!({ "attention_dropout": 0.5, "use_cache": true, "torch_dtype": "bfloat16" })),
            written(json!({ "rope_theta": 123_456.789_012_345 })),
            written(json!({ "rope_theta": null, "rope_parameters": { "rope_type": "default", "rope_theta": 77.7 } })),
            written(json!({
                "rope_theta": 500.0, "rope_scaling": { "type": "linear", "factor": 3.3 },
                "rope_parameters": { "rope_type": "yarn", "factor": 9.0, "rope_theta": 77.7 },
            })),
            (rope(json!({ "rope_type": "dynamic", "factor": 2.0 })), Some("rope_scaling.rope_type")),
            written(yarn(json!({}))),
            written(yarn(json!({ "attention_factor": 1.0 }))),
            written(yarn(json!({ "attention_factor": 1.512_345_678_9 }))),
            written(yarn(json!({ "attention_factor": 0.1 }))),
            written(yarn(json!({ "mscale": 0.707, "mscale_all_dim": 1.3 }))),
            written(yarn(json!({ "beta_fast": 17.3, "beta_slow": 2.7, "rope_theta": 333.3 }))),
            written(yarn(json!({ "original_max_position_embeddings": null, "factor": 2.0 }))),
            written(json!({
                "rope_scaling": { "rope_type": "yarn" }, "original_max_position_embeddings": 48,
            })),
            (yarn(json!({ "truncate": false })), Some("rope_scaling.truncate")),
            written(llama3(8192, 4.0)),
            written(llama3(64, 4.0)),
            written(llama3(16, 2.3)),
            written(longrope(json!(1.0))),
            (longrope(json!(1.2)), Some("rope_scaling.attention_factor")),
        ];
        match model_type {
            "llama" => all.extend([
                written(json!({ "attention_bias": true })),
                written(json!({ "attention_bias": true, "mlp_bias": true })),
            ]),
            "mistral" => {
                all.extend([written(json!({ "sliding_window": 5 })), written(json!({ "sliding_window": 4096 }))])
            }
            _ => {
                let slides = |layers: Json, types: Json| {
                    json!({
                        "sliding_window": 5, "use_sliding_window": true, "num_hidden_layers": 3,
                        "max_window_layers": layers, "layer_types": types,
                    })
                };
                let (full, window) = ("full_attention", "sliding_attention");
                all.extend([
                    written(json!({ "sliding_window": 5, "use_sliding_window": false, "max_window_layers": 0 })),
                    written(slides(json!(0), Json::Null)),
                    written(slides(json!(1), Json::Null)),
                    written(slides(json!(3), Json::Null)),
                    written(slides(json!(28), Json::Null)),
                    written(slides(json!(0), json!([window, full, window]))),
                    written(slides(json!(2), json!([full, full, full]))),
                    written(slides(json!(2), json!([window, window, window]))),
                ]);
                if model_type == "qwen3" {
                    all.push(written(json!({ "attention_bias": true })));
                }
            }
        }
        all
    }

    /// Keys of configurations that do not change a model's logits; those of tokens have their own
    /// tests.
    const NO_OPTIONS: [&str; 5] = ["architectures", "model_type", "bos_token_id", "eos_token_id", "initializer_range"];

    #[test]
    fn every_option_comes_back_to_the_same_logits_or_is_refused_by_name() {
        for model_type in ["gpt2", "llama", "mistral", "qwen2", "qwen3"] {
            let mut seen: Vec<String> = NO_OPTIONS.map(String::from).into();
            for (option, refused) in options(model_type) {
                let mut config = base(model_type);
                for (key, value) in option.as_object().unwrap() {
                    config[key] = value.clone();
                    seen.push(key.clone());
                }
                let model = model(&config);
                match (there_and_back(&model), refused) {
                    (Ok(again), None) => {
                        assert!(logits(&again) == logits(&model), "{model_type} {option}: other logits");
                        assert!(logits(&there_and_back(&again).unwrap()) == logits(&model), "{model_type} {option}");
                    }
                    (Err(error), Some(key)) => {
                        assert!(error.to_string().contains(&format!("`{key}`")), "{model_type} {option}: {error}");
                    }
                    (Ok(_), Some(key)) => panic!("{model_type} {option}: expected a refusal of {key}"),
                    (Err(error), None) => panic!("{model_type} {option}: {error}"),
                }
            }
            let all = model(&base(model_type)).config_json();
            let untried: Vec<_> = all.as_object().unwrap().keys().filter(|key| !seen.contains(key)).collect();
            assert_eq!(untried, Vec::<&String>::new(), "keys of {model_type} that no option tries");
        }
    }

    #[test]
    fn unknown_keys_are_errors() {
        struct Another(LanguageModel, Json);
        impl Module for Another {
            fn visit<'m>(&'m self, path: &str, f: &mut dyn FnMut(&str, &'m loquat::nn::Parameter)) {
                self.0.visit(path, f);
            }
            fn visit_mut(&mut self, path: &str, f: &mut dyn FnMut(&str, &mut loquat::nn::Parameter)) {
                self.0.visit_mut(path, f);
            }
        }
        impl Pretrained for Another {
            fn config_json(&self) -> Json {
                self.1.clone()
            }
        }
        for (model_type, key, value) in [
            ("gpt2", "a_key_of_tomorrow", json!("on")),
            ("llama", "final_logit_softcapping", json!(30.0)),
            ("llama", "sliding_window", json!(4)),
            ("qwen2", "residual_multiplier", json!(0.5)),
        ] {
            let model = model(&base(model_type));
            let mut config = model.config_json();
            config[key] = value;
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("a.gguf");
            let error = save_gguf(path, &Another(model, config), None, GgufFormat::F32).unwrap_err().to_string();
            assert!(error.contains(&format!("`{key}`")), "{error}");
        }
    }

    #[test]
    fn tokens_that_end_a_text_come_back() {
        let vocabulary = |roles: &[(&str, u32)]| GgmlVocabulary {
            model: "gpt2".into(),
            pre: Some("default".into()),
            tokens: (0..13).map(|i| format!("t{i}")).collect(),
            roles: roles.iter().map(|&(role, id)| (role.to_string(), id)).collect(),
            add_bos: Some(false),
            ..GgmlVocabulary::default()
        };
        let (none, own, two) = (vocabulary(&[]), vocabulary(&[("eos", 5)]), vocabulary(&[("eos", 5), ("eot", 6)]));
        let cases: [(&str, Json, Option<&GgmlVocabulary>, Json); 14] = [
            ("llama", json!(7), None, json!(7)),
            ("llama", json!([7, 8, 9]), None, json!([7, 8, 9])),
            ("llama", json!([7, 7]), None, json!(7)),
            ("llama", json!(7), Some(&none), json!(7)),
            ("llama", json!(5), Some(&own), json!(5)),
            ("llama", json!([8, 5]), Some(&own), json!([5, 8])),
            ("llama", json!(7), Some(&own), json!([5, 7])),
            ("llama", json!([6, 7]), Some(&two), json!([5, 6, 7])),
            ("llama", json!(null), Some(&own), json!(5)),
            ("llama", json!(13), None, json!(2)),
            ("qwen2", json!([0, 12]), None, json!([0, 12])),
            ("qwen2", json!(null), None, json!(null)),
            ("gpt2", json!(11), None, json!(11)),
            ("gpt2", json!(11), Some(&none), json!(11)),
        ];
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.gguf");
        for (model_type, ends, vocabulary, expected) in cases {
            let mut config = base(model_type);
            config["eos_token_id"] = ends.clone();
            save_gguf(&path, &model(&config), vocabulary, GgufFormat::F32).unwrap();
            let found = LanguageModel::open(&path).unwrap().config_json()["eos_token_id"].clone();
            assert_eq!(found, expected, "{model_type} {ends}");
        }
        let mut config = base("llama");
        config["eos_token_id"] = json!([1, 2, 3]);
        config["bos_token_id"] = json!(4);
        let error = save_gguf(&path, &model(&config), Some(&own), GgufFormat::F32).unwrap_err().to_string();
        assert!(error.contains("eos_token_id"), "{error}");
        save_gguf(&path, &model(&config), None, GgufFormat::F32).unwrap();
        assert_eq!(LanguageModel::open(&path).unwrap().config_json()["bos_token_id"], 4);
    }

    /// Rewrites a file with other metadata: `change` receives each key and value and returns the
    /// new value; then `more` is appended.
    fn rewritten(
        from: &Path,
        to: &Path,
        change: impl for<'v> Fn(&str, Value<'v>) -> Option<Value<'v>>,
        more: &[(&str, Value<'_>)],
    ) {
        let file = GgufFile::open(from, Load::Read).unwrap();
        let mut writer = GgufWriter::new();
        for (key, value) in file.metadata() {
            if let Some(value) = change(key, value) {
                writer.set(key, value).unwrap();
            }
        }
        more.iter().for_each(|(key, value)| writer.set(key, value.clone()).unwrap());
        for tensor in file.tensors() {
            let bytes = tensor.bytes();
            writer.tensor(tensor.name(), tensor.tensor_type(), tensor.shape(), move || bytes.to_vec()).unwrap();
        }
        writer.save(to).unwrap();
    }

    const EXACT: &str = "loquat.rope_scaling";

    #[test]
    fn files_of_other_programs_are_read_by_their_divisors_and_factors() {
        let folder = tempfile::tempdir().unwrap();
        let (ours, theirs) = (folder.path().join("ours.gguf"), folder.path().join("theirs.gguf"));
        for scaling in [
            json!({ "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                "original_max_position_embeddings": 8192 }),
            json!({ "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                "original_max_position_embeddings": 64 }),
            json!({ "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16, "attention_factor": 0.8 }),
        ] {
            let mut config = base("llama");
            config["rope_scaling"] = scaling.clone();
            let model = model(&config);
            save_gguf(&ours, &model, None, GgufFormat::F32).unwrap();
            rewritten(&ours, &theirs, |key, value| (key != EXACT).then_some(value), &[]);
            let again = LanguageModel::open(&theirs).unwrap();
            let worst = logits(&again).iter().zip(logits(&model)).map(|(a, b)| (a - b).abs()).fold(0f32, f32::max);
            assert!(worst < 1e-3, "{scaling}: {worst}");
            // A model opened in this way can be saved again, as a file and as a folder.
            assert!(logits(&there_and_back(&again).unwrap()) == logits(&again));
            let saved = folder.path().join("saved");
            loquat::checkpoint::save_pretrained(&saved, &again).unwrap();
            assert!(logits(&LanguageModel::open(&saved).unwrap()) == logits(&again));
            // Our key does not override the others.
            let other = r#"{"rope_type": "linear", "factor": 2.0, "rope_theta": 10000.0}"#;
            rewritten(&ours, &theirs, |key, value| Some(if key == EXACT { Value::String(other) } else { value }), &[]);
            let error = LanguageModel::open(&theirs).unwrap_err().to_string();
            assert!(error.contains(EXACT), "{error}");
        }
    }

    #[test]
    fn keys_of_other_programs_are_read_or_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let (ours, theirs) = (folder.path().join("ours.gguf"), folder.path().join("theirs.gguf"));
        let mut config = base("qwen2");
        (config["sliding_window"], config["use_sliding_window"]) = (5.into(), true.into());
        (config["max_window_layers"], config["num_hidden_layers"]) = (0.into(), 4.into());
        save_gguf(&ours, &model(&config), None, GgufFormat::F32).unwrap();
        // Every second layer has full attention.
        config["layer_types"] = ["sliding_attention", "full_attention"].repeat(2).into();
        rewritten(&ours, &theirs, |_, value| Some(value), &[("qwen2.attention.sliding_window_pattern", Value::U32(2))]);
        assert!(logits(&LanguageModel::open(&theirs).unwrap()) == logits(&model(&config)));
        let cases = [
            ("qwen2.attention.scale", Value::F32(0.5), true),
            ("qwen2.logit_scale", Value::F32(0.5), true),
            ("qwen2.rope.scaling.attn_factor", Value::F32(1.5), true),
            ("qwen2.rope.scaling.yarn_attn_factor", Value::F32(1.5), true),
            ("qwen2.attention.causal", Value::Bool(false), true),
            ("qwen2.attention.sliding_window_pattern", Value::String("x"), true),
            ("qwen2.expert_used_count", Value::U32(0), false),
            ("qwen2.attention.causal", Value::Bool(true), false),
            ("qwen2.rope.scaling.yarn_attn_factor", Value::F32(1.0), false),
            ("qwen2.use_parallel_residual", Value::Bool(false), false),
            ("general.anything", Value::U32(9), false),
        ];
        for (key, value, is_refused) in cases {
            rewritten(&ours, &theirs, |_, value| Some(value), &[(key, value)]);
            match LanguageModel::open(&theirs) {
                Err(error) => assert!(is_refused && error.to_string().contains(key), "{key}: {error}"),
                Ok(_) => assert!(!is_refused, "{key}"),
            }
        }
    }

    /// Splits a file as `gguf-split` does.
    fn split(from: &Path, to: &Path, stem: &str, count: u16) -> Vec<PathBuf> {
        let file = GgufFile::open(from, Load::Read).unwrap();
        let part = |i: u16| {
            let mut writer = GgufWriter::new();
            if i == 0 {
                file.metadata().for_each(|(key, value)| writer.set(key, value).unwrap());
            }
            writer.set("split.no", Value::U16(i)).unwrap();
            writer.set("split.count", Value::U16(count)).unwrap();
            writer.set("split.tensors.count", Value::I32(file.tensors().len() as i32)).unwrap();
            for tensor in
                file.tensors().enumerate().filter(|(n, _)| n % usize::from(count) == usize::from(i)).map(|(_, t)| t)
            {
                let bytes = tensor.bytes();
                writer.tensor(tensor.name(), tensor.tensor_type(), tensor.shape(), move || bytes.to_vec()).unwrap();
            }
            let path = to.join(format!("{stem}-{:05}-of-{count:05}.gguf", i + 1));
            writer.save(&path).unwrap();
            path
        };
        (0..count).map(part).collect()
    }

    #[test]
    fn a_model_in_parts_opens_by_any_of_them() {
        let folder = tempfile::tempdir().unwrap();
        let whole = folder.path().join("whole.gguf");
        let mut config = base("llama");
        config["rope_scaling"] = json!({ "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
            "high_freq_factor": 4.0, "original_max_position_embeddings": 32 });
        let model = model(&config);
        save_gguf(&whole, &model, None, GgufFormat::F32).unwrap();
        let parts = split(&whole, folder.path(), "model", 3);
        for load in [Load::Mmap, Load::Read] {
            for path in &parts {
                let options = loquat::checkpoint::OpenOptions::default().load(load);
                let again = LanguageModel::open_with(path, &options).unwrap();
                assert!(logits(&again) == logits(&model));
            }
        }
        let file = GgufFile::open(&parts[1], Load::Mmap).unwrap();
        assert_eq!((file.file_count(), file.path()), (3, parts[0].as_path()));
        assert_eq!(file.tensors().len(), GgufFile::open(&whole, Load::Mmap).unwrap().tensors().len());
        let sizes = parts.iter().map(|path| std::fs::metadata(path).unwrap().len() as usize);
        assert_eq!(file.bytes(), sizes.sum::<usize>());

        let refused = |path: &Path, expected: &[&str]| {
            let error = LanguageModel::open(path).unwrap_err().to_string();
            assert!(expected.iter().all(|part| error.contains(part)), "{error}");
        };
        let away = folder.path().join("away");
        std::fs::rename(&parts[1], &away).unwrap();
        refused(&parts[0], &["part 1 of 3", "missing `model-00002-of-00003.gguf`"]);
        refused(&parts[2], &["part 3 of 3", "missing `model-00002-of-00003.gguf`"]);
        // Another part under this name.
        std::fs::copy(&parts[0], &parts[1]).unwrap();
        refused(&parts[0], &["model-00002-of-00003.gguf", "expected part 2 of 3, found part 1 of 3"]);
        std::fs::copy(&whole, &parts[1]).unwrap();
        refused(&parts[0], &["expected part 2 of 3, found an unsplit file"]);
        std::fs::write(&parts[1], b"GGUF").unwrap();
        refused(&parts[0], &["model-00002-of-00003.gguf", "version"]);
        // A name from which the other parts cannot be found.
        let alone = folder.path().join("alone.gguf");
        std::fs::copy(&parts[0], &alone).unwrap();
        refused(&alone, &["part 1 of 3", "ends in `-00001-of-00003.gguf`, found `alone.gguf`"]);
    }

    #[test]
    fn parts_with_wrong_metadata_are_errors() {
        let folder = tempfile::tempdir().unwrap();
        let whole = folder.path().join("whole.gguf");
        save_gguf(&whole, &model(&base("gpt2")), None, GgufFormat::F32).unwrap();
        let parts = split(&whole, folder.path(), "model", 2);
        let change = |name: &str, change: &dyn for<'v> Fn(&str, Value<'v>) -> Option<Value<'v>>| {
            let place = folder.path().join(name);
            std::fs::create_dir_all(&place).unwrap();
            std::fs::copy(&parts[1], place.join(parts[1].file_name().unwrap())).unwrap();
            let mut writer = GgufWriter::new();
            let file = GgufFile::open(&parts[0], Load::Read).unwrap();
            for (key, value) in file.metadata() {
                if let Some(value) = change(key, value) {
                    writer.set(key, value).unwrap();
                }
            }
            let path = place.join(parts[0].file_name().unwrap());
            writer.save(&path).unwrap();
            GgufFile::open(&path, Load::Read).unwrap_err().to_string()
        };
        let count = change("count", &|key, value| Some(if key == "split.count" { Value::U16(3) } else { value }));
        assert!(count.contains("ends in `-00001-of-00003.gguf`"), "{count}");
        let number = change("number", &|key, value| Some(if key == "split.no" { Value::U16(2) } else { value }));
        assert!(number.contains("`split.no`: expected a part below 2, found 2"), "{number}");
        let tensors = change("tensors", &|_, value| Some(value));
        assert!(tensors.contains("tensors in 2 parts, found"), "{tensors}");
        let large = change("large", &|key, value| Some(if key == "split.count" { Value::U32(70_000) } else { value }));
        assert!(large.contains("`split.count`: expected a whole number below 2^16"), "{large}");
    }
}
