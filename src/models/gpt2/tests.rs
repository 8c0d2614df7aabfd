use super::*;
use crate::models::CausalLm;
use crate::nn::{KvCache, Module};
use crate::random::Rng;
use crate::tensor::{IdTensor, no_grad};

fn tiny() -> Gpt2 {
    Gpt2::init(&Gpt2Config::new(13, 16, 12, 2, 3), &mut Rng::seed(1)).unwrap()
}

#[test]
fn cached_decode_matches_full_forward_bit_for_bit() {
    let model = tiny();
    let ids = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3];
    let whole = no_grad(|| model.forward(&IdTensor::sequence(&ids))).unwrap();
    for first in [1, 4, 9] {
        let mut cache = model.new_state(1);
        let mut at = 0;
        let steps = std::iter::once(first).chain(std::iter::repeat_n(1, ids.len() - first));
        for step in steps {
            let new = IdTensor::sequence(&ids[at..at + step]);
            let logits = no_grad(|| model.decode(&new, &mut cache)).unwrap();
            at += step;
            assert_eq!(logits.data(), &whole.data()[(at - 1) * 13..at * 13], "prompt of {first}, position {at}");
        }
    }
}

#[test]
fn the_lens_at_the_last_layer_shows_the_logits() {
    let (model, ids) = (tiny(), IdTensor::sequence(&[3, 1, 4]));
    let lens = model.logit_lens(&ids).unwrap();
    assert_eq!(lens.len(), 3);
    assert_eq!(lens[0].1.shape(), [1, 3, 13]);
    assert_eq!(lens[2].1.data(), no_grad(|| model.forward(&ids)).unwrap().data());
    assert_ne!(lens[1].1.data(), lens[2].1.data());
}

#[test]
fn a_batch_gives_the_bits_of_its_rows() {
    let model = tiny();
    let rows = [[3, 1, 4, 1], [5, 9, 2, 6], [0, 0, 12, 7]];
    let batch = no_grad(|| model.forward(&IdTensor::batch(&rows).unwrap())).unwrap();
    for (row, logits) in rows.iter().zip(batch.data().chunks_exact(4 * 13)) {
        assert_eq!(no_grad(|| model.forward(&IdTensor::sequence(row))).unwrap().data(), logits);
    }
}

#[test]
fn sequences_of_different_lengths_have_the_bits_that_they_have_alone() {
    let model = tiny();
    let prompts: [&[u32]; 3] = [&[3, 1, 4, 1, 5], &[9], &[2, 6]];
    let mut states: Vec<KvCache> = prompts.iter().map(|_| model.new_state(1)).collect();
    let mut alone: Vec<KvCache> = states.clone();
    for step in 0..4 {
        let ids: Vec<Vec<u32>> = match step {
            0 => prompts.iter().map(|ids| ids.to_vec()).collect(),
            3 => vec![vec![1, 2], vec![3], vec![4, 5, 6]],
            _ => (0..3).map(|i| vec![step + i]).collect(),
        };
        let ids: Vec<&[u32]> = ids.iter().map(Vec::as_slice).collect();
        let mut together: Vec<&mut KvCache> = states.iter_mut().collect();
        let logits = no_grad(|| model.decode_batch(&ids, &mut together)).unwrap();
        for (row, (ids, state)) in ids.iter().zip(&mut alone).enumerate() {
            let logits_alone = no_grad(|| model.decode(&IdTensor::sequence(ids), state)).unwrap();
            assert_eq!(&logits.data()[row * 13..][..13], logits_alone.data(), "step {step}, row {row}");
        }
    }
    assert!(model.decode_batch(&[&[1]], &mut []).is_err());
    assert!(model.decode_batch(&[&[]], &mut [&mut states[0]]).is_err());
    assert!(model.decode_batch(&[&[0; 12]], &mut [&mut states[0]]).is_err());
}

#[test]
fn every_parameter_gets_a_gradient() {
    let model = tiny();
    let logits = model.forward(&IdTensor::sequence(&[1, 2, 3])).unwrap();
    let loss = crate::ops::cross_entropy(&logits, &IdTensor::sequence(&[2, 3, 4])).unwrap();
    let gradients = loss.backward().unwrap();
    assert_eq!(model.without_gradient(&gradients), Vec::<String>::new());
}

#[test]
fn names_are_those_of_the_checkpoint() {
    let model = tiny();
    let names: Vec<String> = model.parameters().into_iter().map(|(path, _)| path).collect();
    assert_eq!(
        names[..4],
        [
            "transformer.wte.weight",
            "transformer.wpe.weight",
            "transformer.h.0.ln_1.weight",
            "transformer.h.0.ln_1.bias"
        ]
    );
    assert!(names.contains(&"transformer.h.1.attn.c_attn.weight".to_string()));
    assert_eq!(names.len(), 2 + 2 * 12 + 2);
}

#[test]
fn unsupported_options_are_errors() {
    let init = |config: Gpt2Config| Gpt2::init(&config, &mut Rng::seed(1)).unwrap_err().to_string();
    assert!(init(Gpt2Config::new(13, 16, 10, 2, 3)).contains("config `n_head`: expected a divisor of n_embd = 10"));
    assert!(init(Gpt2Config::new(0, 16, 12, 2, 3)).contains("vocab_size"));
    assert!(init(Gpt2Config::new(13, 16, 12, 2, 3).dropout(1.0)).contains("pdrop"));
    let unknown = Gpt2Config { activation_function: "mish".into(), ..Gpt2Config::new(13, 16, 12, 2, 3) };
    assert!(init(unknown).contains("activation_function"));
    let model = tiny();
    assert!(model.forward(&IdTensor::sequence(&[0; 17])).is_err());
    assert!(model.forward(&IdTensor::sequence(&[13])).is_err());
    let mut cache = model.new_state(1);
    assert!(model.decode(&IdTensor::sequence(&[0; 17]), &mut cache).is_err());
    assert!(model.decode(&IdTensor::sequence(&[]), &mut cache).is_err());
}
