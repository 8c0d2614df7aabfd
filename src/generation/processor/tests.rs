//! Compares the processors with those of `transformers` (`tests/fixtures/make_generation.py`).

use serde_json::Value;

use super::*;

fn numbers(list: &Value) -> Vec<f32> {
    let number = |x: &Value| x.as_f64().map_or_else(|| x.as_str().unwrap().parse().unwrap(), |x| x as f32);
    list.as_array().unwrap().iter().map(number).collect()
}

fn processor(name: &str) -> Box<dyn LogitsProcessor> {
    let bias = |pairs: &[(&[u32], f32)]| SequenceBias::new(pairs.iter().map(|(ids, bias)| (ids.to_vec(), *bias)));
    match name {
        "temperature 0.7" => Box::new(Temperature(0.7)),
        "top_k 5" => Box::new(TopK(5)),
        "top_p 0.9" => Box::new(TopP::new(0.9)),
        "top_p 0.1" => Box::new(TopP::new(0.1)),
        "top_p 0.3 keep 4" => Box::new(TopP::new(0.3).keep(4)),
        "min_p 0.1" => Box::new(MinP::new(0.1)),
        "min_p 0.9 keep 3" => Box::new(MinP::new(0.9).keep(3)),
        "typical_p 0.9" => Box::new(TypicalP::new(0.9)),
        "typical_p 0.2" => Box::new(TypicalP::new(0.2)),
        "typical_p 0.1 keep 6" => Box::new(TypicalP::new(0.1).keep(6)),
        "epsilon_cutoff 0.02" => Box::new(EpsilonCutoff::new(0.02)),
        "epsilon_cutoff 0.5 keep 2" => Box::new(EpsilonCutoff::new(0.5).keep(2)),
        "eta_cutoff 0.02" => Box::new(EtaCutoff::new(0.02)),
        "eta_cutoff 0.3" => Box::new(EtaCutoff::new(0.3)),
        "repetition_penalty 1.3" => Box::new(RepetitionPenalty::new(1.3)),
        "repetition_penalty 0.8" => Box::new(RepetitionPenalty::new(0.8)),
        "no_repeat_ngram_size 1" => Box::new(NoRepeatNgrams(1)),
        "no_repeat_ngram_size 2" => Box::new(NoRepeatNgrams(2)),
        "no_repeat_ngram_size 3" => Box::new(NoRepeatNgrams(3)),
        // The configuration removes the end token 66: see `greedy_text_agrees`.
        "bad_words" => {
            let bad: [&[u32]; 4] = [&[7], &[9, 40], &[5, 9, 41], &[2, 42]];
            Box::new(SequenceBias::new(bad.map(|run| (run.to_vec(), f32::NEG_INFINITY))))
        }
        "sequence_bias" => Box::new(bias(&[(&[7], 1.5), (&[9, 40], -2.0), (&[5, 9, 40], 0.5), (&[2, 42], 3.0)])),
        "min_length 11" => Box::new(MinLength::new(11, vec![66, 3])),
        "min_length 10" => Box::new(MinLength::new(10, vec![66, 3])),
        "forced 10" => Box::new(ForcedTokens::default().at(10, [66, 3])),
        "suppress" => Box::new(Suppress::always(vec![1, 2, 60])),
        "suppress at 10" => Box::new(Suppress::at(10, vec![1, 2, 60])),
        "suppress at 9" => Box::new(Suppress::at(9, vec![1, 2, 60])),
        "exponential_decay" => Box::new(ExponentialDecay::new(3 + 4, 1.2, vec![66, 3])),
        "remove_invalid" => Box::new(RemoveInvalid),
        other => panic!("{other}"),
    }
}

#[test]
fn every_processor_gives_the_same_logits() {
    let fixture = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/generation.json");
    let expected: Value = serde_json::from_str(&std::fs::read_to_string(fixture).unwrap()).unwrap();
    let ids: Vec<u32> = serde_json::from_value(expected["ids"].clone()).unwrap();
    for case in expected["processors"].as_array().unwrap() {
        let (name, which) = (case["processor"].as_str().unwrap(), case["logits"].as_str().unwrap());
        let mut logits = numbers(&expected["logits"][which]);
        processor(name).process(&ids, &mut logits).unwrap();
        let theirs = numbers(&case["expected"]);
        assert_eq!(logits.len(), theirs.len(), "{name}, {which}");
        for (i, (a, b)) in logits.iter().zip(&theirs).enumerate() {
            assert!(a == b || (a - b).abs() <= 1e-4 * b.abs().max(1.0), "{name}, {which}: {a} at {i}, expected {b}");
        }
    }
}

fn processed(config: &GenerationConfig, ids: &[u32], prompt_len: usize, logits: &[f32]) -> Vec<f32> {
    let mut logits = logits.to_vec();
    let mut processors = Processors::new(config, prompt_len, logits.len(), 1).unwrap();
    processors.process_first(ids, &mut logits).unwrap();
    processors.process_sampling(ids, &mut logits).unwrap();
    logits
}

#[test]
fn greedy_decoding_has_penalties_and_no_cutoffs() {
    let config = GenerationConfig::default().repetition_penalty(2.0).temperature(0.5).top_k(1);
    assert_eq!(processed(&config.clone().greedy(), &[0], 1, &[4.0, 3.0]), [2.0, 3.0]);
    assert_eq!(processed(&config, &[0], 1, &[4.0, 3.0]), [f32::NEG_INFINITY, 6.0]);
}

#[test]
fn processors_of_ones_own_come_before_the_temperature() {
    let own = |_: &[u32], logits: &mut [f32]| {
        logits[0] += 1.0;
        Ok(())
    };
    let config = GenerationConfig::default().temperature(0.5).logit_bias(0, 1.0).processor(own);
    assert_eq!(processed(&config, &[1], 1, &[0.0, 0.0]), [4.0, 0.0]);
}

#[test]
fn places_count_from_the_prompt() {
    let mut config = GenerationConfig::default().forced_token(1, 2).max_new_tokens(3).eos_token_id(0).min_new_tokens(1);
    config.forced_eos_token_ids = vec![0];
    config.begin_suppress_tokens = vec![1];
    let allowed = |ids: &[u32]| -> Vec<usize> {
        let logits = processed(&config, ids, 2, &[0.0; 4]);
        (0..4).filter(|&i| logits[i] > f32::NEG_INFINITY).collect()
    };
    assert_eq!(allowed(&[1, 1]), [2, 3], "neither the end nor what is not written first");
    assert_eq!(allowed(&[1, 1, 3]), [2], "forced");
    assert_eq!(allowed(&[1, 1, 3, 2]), [0], "the end where the text must end");
}

#[test]
fn tokens_outside_the_vocabulary_are_errors() {
    for config in [
        GenerationConfig::default().logit_bias(9, 1.0),
        GenerationConfig::default().bad_words([1, 9]),
        GenerationConfig::default().suppress_token(9),
        GenerationConfig::default().forced_token(0, 9),
    ] {
        assert!(matches!(Processors::new(&config, 1, 9, 1), Err(Error::Id { id: 9, limit: 9, .. })));
    }
}
