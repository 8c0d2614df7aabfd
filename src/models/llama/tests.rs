use super::*;
use crate::models::CausalLm;
use crate::models::causal::DecodeState;
use crate::nn::Module;
use crate::random::Rng;
use crate::tensor::{IdTensor, no_grad};
use serde_json::json;

fn config(model_type: &str) -> LlamaConfig {
    let sizes = json!({
        "model_type": model_type, "vocab_size": 13, "hidden_size": 12, "intermediate_size": 20, "num_hidden_layers": 2,
        "num_attention_heads": 3, "num_key_value_heads": 1, "head_dim": 6, "max_position_embeddings": 16,
        "initializer_range": 0.3,
    });
    LlamaConfig::from_json(&sizes).unwrap()
}

fn configs() -> Vec<LlamaConfig> {
    let yarn = json!({"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 8});
    vec![
        LlamaConfig { attention_bias: true, mlp_bias: true, ..config("llama") },
        LlamaConfig { rope_scaling: yarn.as_object().cloned(), ..config("llama") },
        LlamaConfig { sliding_window: Some(4), ..config("mistral") },
        LlamaConfig {
            sliding_window: Some(3),
            use_sliding_window: true,
            max_window_layers: Some(1),
            tie_word_embeddings: true,
            ..config("qwen2")
        },
        config("qwen3"),
    ]
}

fn model(config: &LlamaConfig) -> Llama {
    Llama::init(config, &mut Rng::seed(1)).unwrap()
}

#[test]
fn cached_decode_matches_full_forward_bit_for_bit() {
    let ids = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3];
    for config in configs() {
        let model = model(&config);
        let whole = no_grad(|| model.forward(&IdTensor::sequence(&ids))).unwrap();
        for first in [1, 4, 9] {
            let mut cache = model.new_state(1);
            let mut at = 0;
            let steps = std::iter::once(first).chain(std::iter::repeat_n(1, ids.len() - first));
            for step in steps {
                let new = IdTensor::sequence(&ids[at..at + step]);
                let logits = no_grad(|| model.decode(&new, &mut cache)).unwrap();
                at += step;
                let expected = &whole.data()[(at - 1) * 13..at * 13];
                assert_eq!(logits.data(), expected, "{}, prompt of {first}, position {at}", config.model_type);
            }
            assert_eq!(DecodeState::len(&cache), ids.len());
        }
    }
}

#[test]
fn a_padded_batch_gives_the_bits_of_its_rows() {
    let rows: [&[u32]; 3] = [&[3, 1, 4, 1, 5, 9, 2], &[5, 9, 2], &[0, 12, 7, 7]];
    for config in configs() {
        let model = model(&config);
        for left in [true, false] {
            let (mut ids, mut mask) = (Vec::new(), Vec::new());
            for row in rows {
                let padding = vec![0; 7 - row.len()];
                let (first, last) = if left { (&padding[..], &[][..]) } else { (&[][..], &padding[..]) };
                ids.push([first, row, last].concat());
                mask.push([first, &vec![1; row.len()], last].concat());
            }
            let (ids, mask) = (IdTensor::batch(&ids).unwrap(), IdTensor::batch(&mask).unwrap());
            let batch = no_grad(|| model.hidden_states(&ids, Some(&mask), None)).unwrap();
            for (i, row) in rows.iter().enumerate() {
                let first = if left { 7 - row.len() } else { 0 };
                let ours = &batch.data()[(i * 7 + first) * 12..][..row.len() * 12];
                let alone = no_grad(|| model.hidden_states(&IdTensor::sequence(row), None, None)).unwrap();
                assert_eq!(ours, alone.data(), "{}, row {i}, left {left}", config.model_type);
            }
        }
    }
}

#[test]
fn every_parameter_gets_a_gradient() {
    for config in configs() {
        let model = model(&config);
        let logits = model.forward(&IdTensor::sequence(&[1, 2, 3])).unwrap();
        let loss = crate::ops::cross_entropy(&logits, &IdTensor::sequence(&[2, 3, 4])).unwrap();
        let gradients = loss.backward().unwrap();
        assert_eq!(model.without_gradient(&gradients), Vec::<String>::new());
    }
}

#[test]
fn rope_keys_that_say_the_default_change_nothing() {
    let model_of = |key: &str, dict: serde_json::Value| {
        let mut json = config("llama").to_json();
        json[key] = dict;
        model(&LlamaConfig::from_json(&json).unwrap())
    };
    let ids = IdTensor::sequence(&[3, 1, 4, 1, 5]);
    let logits = |model: Llama| no_grad(|| model.forward(&ids)).unwrap().to_vec();
    let plain = logits(model(&config("llama")));
    for dict in [
        json!({"rope_type": "default", "factor": 1.0}),
        json!({"rope_type": "default", "attention_factor": null, "rope_theta": 10000.0, "factor": 1}),
        json!({"type": "default", "original_max_position_embeddings": 16, "attention_factor": 1.0, "beta_fast": null}),
        json!({"rope_type": "linear", "factor": 1.0, "attention_factor": null, "finetuned": true}),
        json!({"rope_type": "longrope", "short_factor": [1, 1, 1], "long_factor": [1.0, 1.0, 1.0], "factor": 1.0}),
    ] {
        for key in ["rope_scaling", "rope_parameters"] {
            assert_eq!(logits(model_of(key, dict.clone())), plain, "{dict}");
        }
    }
    let divided = json!({"rope_type": "longrope", "short_factor": [2, 2, 2], "long_factor": [2, 2, 2], "factor": 1.0});
    let linear = json!({"rope_type": "linear", "factor": 2.0});
    assert_eq!(logits(model_of("rope_scaling", divided)), logits(model_of("rope_scaling", linear)));
}

#[test]
fn a_window_hides_what_lies_before_it() {
    let model = model(&LlamaConfig { sliding_window: Some(4), num_hidden_layers: 1, ..config("mistral") });
    let last = |first| {
        let ids = [first, 1, 4, 1, 5, 9];
        model.hidden_states(&IdTensor::sequence(&ids), None, None).unwrap().narrow(1, 5, 1).unwrap().to_vec()
    };
    assert_eq!(last(3), last(7));
}

#[test]
fn names_are_those_of_the_checkpoint() {
    let names = |config: &LlamaConfig| -> Vec<String> {
        model(config).parameters().into_iter().map(|(path, _)| path).collect()
    };
    let plain = names(&config("llama"));
    assert_eq!(plain[..2], ["model.embed_tokens.weight", "model.layers.0.self_attn.q_proj.weight"]);
    assert_eq!(plain[plain.len() - 2..], ["model.norm.weight", "lm_head.weight"]);
    assert_eq!(plain.len(), 1 + 2 * 9 + 2);
    let biased = |config: &LlamaConfig| names(config).iter().filter(|name| name.ends_with("bias")).count();
    assert_eq!(configs().iter().map(biased).collect::<Vec<_>>(), [14, 0, 0, 6, 0]);
    assert!(names(&config("qwen3")).contains(&"model.layers.1.self_attn.q_norm.weight".to_string()));
}

#[test]
fn unsupported_options_are_errors() {
    let open = |key: &str, value: serde_json::Value| {
        let mut json = config("qwen3").to_json();
        json[key] = value;
        LlamaConfig::from_json(&json).unwrap_err().to_string()
    };
    assert!(open("model_type", json!("gemma")).contains("llama, mistral, qwen2, qwen3"));
    assert!(open("num_key_value_heads", json!(2)).contains("a divisor of num_attention_heads = 3"));
    assert!(open("head_dim", json!(5)).contains("head_dim"));
    assert!(open("hidden_act", json!("mish")).contains("found mish"));
    assert!(open("vocab_size", json!(0)).contains("vocab_size"));
    assert!(open("vocab_size", json!("many")).contains("config.json"));
    assert!(open("mlp_bias", json!(true)).contains("mlp_bias"));
    assert!(open("layer_types", json!(["full_attention"])).contains("layer_types"));
    assert!(open("layer_types", json!(["full_attention", "chunked"])).contains("found chunked"));
    assert!(open("quantization_config", json!({"bits": 4})).contains("quantization_config"));
    assert!(open("final_logit_softcapping", json!(30.0)).contains("final_logit_softcapping"));
    assert!(open("residual_multiplier", json!(0.5)).contains("expected 1 (nothing else is supported), found 0.5"));
    assert!(open("an_option_of_tomorrow", json!("on")).contains("`an_option_of_tomorrow`: expected no such key"));
    let mut harmless = config("qwen3").to_json();
    for (key, value) in [
        ("residual_multiplier", json!(1.0)),
        ("use_cache", json!(true)),
        ("an_option_of_tomorrow", json!(false)),
        ("torch_dtype", json!("bfloat16")),
    ] {
        harmless[key] = value;
    }
    assert!(LlamaConfig::from_json(&harmless).is_ok());
    assert!(open("rope_scaling", json!({"rope_type": "su"})).contains("rope_scaling.rope_type"));
    assert!(open("rope_scaling", json!({"rope_type": "longrope"})).contains("rope_scaling.short_factor"));
    let lists = json!({"rope_type": "longrope", "factor": 2, "short_factor": [1, 1, 1], "long_factor": [1, 2, 3]});
    assert!(open("rope_scaling", lists).contains("rope_scaling.long_factor"));
    assert!(open("rope_scaling", json!({"factor": 2.0})).contains("factor"));
    assert!(
        open("rope_scaling", json!({"rope_type": "yarn", "factor": 2, "truncate": "no"}))
            .contains("rope_scaling.truncate")
    );
    assert!(open("rope_scaling", json!({"rope_type": "linear"})).contains("rope_scaling.factor"));
    assert!(open("rope_parameters", json!({"rope_type": "linear", "factor": 2, "beta": 1})).contains("beta"));
    assert!(open("rope_parameters", json!({"partial_rotary_factor": 0.5})).contains("partial_rotary_factor"));
    let model = model(&config("llama"));
    assert!(model.forward(&IdTensor::sequence(&[0; 17])).is_err());
    assert!(model.forward(&IdTensor::sequence(&[13])).is_err());
    let mask = IdTensor::batch(&[[1; 4]]).unwrap();
    assert!(model.hidden_states(&IdTensor::sequence(&[0; 5]), Some(&mask), None).is_err());
    let mut cache = model.new_state(1);
    assert!(model.decode(&IdTensor::sequence(&[]), &mut cache).is_err());
}
