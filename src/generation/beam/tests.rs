use super::*;
use crate::generation::stopping::Cancel;
use crate::generation::tokens::generate;
use crate::models::{Gpt2, Gpt2Config};

fn model() -> Gpt2 {
    let config = Gpt2Config { initializer_range: 0.5, ..Gpt2Config::new(11, 16, 12, 2, 3) };
    Gpt2::init(&config, &mut Rng::seed(1)).unwrap()
}

fn config() -> GenerationConfig {
    of_beams().greedy()
}

fn of_beams() -> GenerationConfig {
    GenerationConfig::default().num_beams(4).num_return_sequences(4).max_new_tokens(5)
}

fn found(model: &Gpt2, config: &GenerationConfig) -> (Vec<u32>, Vec<Hypothesis>) {
    let mut search = beam_search(model, &[1, 2], config).unwrap();
    let given = search.by_ref().map(|id| id.unwrap()).collect();
    (given, search.hypotheses())
}

/// Score of a text, from the model's forward pass.
fn score(model: &Gpt2, ids: &[u32], power: f32) -> f32 {
    let all: Vec<u32> = [&[1, 2], ids].concat();
    let logits = model.forward(&crate::tensor::IdTensor::sequence(&all)).unwrap();
    let row = |t: usize| &logits.data()[t * 11..][..11];
    let sum: f32 = ids.iter().zip(1..).map(|(&id, t)| Distribution::of(row(t)).log_prob(row(t)[id as usize])).sum();
    sum / (ids.len() as f32).powf(power)
}

#[test]
fn as_many_beams_as_texts_find_the_likeliest_of_all() {
    let model = model();
    let wide = GenerationConfig { num_beams: Some(121), num_return_sequences: Some(121), ..config().max_new_tokens(3) };
    let (given, best) = found(&model, &wide);
    let all = (0..11 * 11 * 11).map(|i| [i / 121, i / 11 % 11, i % 11]);
    let mut scores: Vec<f32> = all.map(|ids| score(&model, &ids, 1.0)).collect();
    scores.sort_by(|a, b| b.total_cmp(a));
    assert_eq!(best[0].ids, given);
    for (found, expected) in best.iter().zip(&scores).take(20) {
        assert!((found.score - expected).abs() < 1e-4, "{} instead of {expected}", found.score);
        assert!((found.score - score(&model, &found.ids, 1.0)).abs() < 1e-4);
    }
}

#[test]
fn what_is_given_out_early_is_the_best_text() {
    let model = model();
    for penalty in [0.0, 1.0, 2.0] {
        for early in [EarlyStopping::True, EarlyStopping::False, EarlyStopping::Never] {
            let config = config().max_new_tokens(12).eos_token_id(3).length_penalty(penalty).early_stopping(early);
            let (given, best) = found(&model, &config);
            assert_eq!(given, best[0].ids, "{penalty} {early:?}");
            assert!(best.is_sorted_by(|a, b| a.score >= b.score));
        }
    }
}

#[test]
fn generate_takes_the_best_text_of_a_search() {
    let model = model();
    let mut tokens = generate(&model, &[1, 2], &config().logprobs(1)).unwrap();
    let ids: Vec<u32> = tokens.by_ref().map(|id| id.unwrap()).collect();
    assert_eq!(ids, found(&model, &config()).0);
    assert_eq!((tokens.ids(), tokens.logprobs().len()), (&[&[1, 2], &ids[..]].concat()[..], 5));
    assert_eq!(tokens.stop_reason(), Some(StopReason::MaxNewTokens));
    let sum: f32 = tokens.logprobs().iter().map(|token| token.logprob).sum();
    assert!((sum / 5.0 - tokens.hypotheses()[0].score).abs() < 1e-5);
}

#[test]
fn a_group_alone_is_the_search_and_a_penalty_parts_them() {
    let model = model();
    let groups = config().num_beam_groups(2).diversity_penalty(100.0);
    let (_, diverse) = found(&model, &groups);
    let two = GenerationConfig { num_beams: Some(2), num_return_sequences: Some(2), ..config() };
    let (_, alone) = found(&model, &two);
    let of = |texts: &[Hypothesis]| texts.iter().map(|text| text.ids.clone()).collect::<Vec<_>>();
    assert!(of(&alone).iter().all(|ids| of(&diverse).contains(ids)), "the first group searches as if alone");
    let (_, same) = found(&model, &groups.diversity_penalty(0.0));
    assert_eq!(of(&same)[0], of(&alone)[0]);
}

#[test]
fn drawn_continuations_have_their_probabilities() {
    let rows =
        [vec![0.5f32.ln(), f32::NEG_INFINITY, 0.2f32.ln()], vec![0.3f32.ln(), f32::NEG_INFINITY, f32::NEG_INFINITY]];
    let mut rng = Rng::seed(1);
    let mut counts = [0.0f64; 3];
    for _ in 0..30_000 {
        let pair = drawn(&rows, 2, &mut rng).unwrap();
        counts[match (pair[0].beam, pair[0].id) {
            (0, 0) => 0,
            (0, 2) => 1,
            (1, 0) => 2,
            other => unreachable!("{other:?} has no probability"),
        }] += 1.0;
        assert!(pair.len() == 2 && (pair[0].beam, pair[0].id) != (pair[1].beam, pair[1].id));
    }
    let chi_square: f64 = counts.iter().zip([0.5, 0.2, 0.3]).map(|(c, p)| (c - 3e4 * p).powi(2) / (3e4 * p)).sum();
    assert!(chi_square < 13.8, "{counts:?}: {chi_square}");
    assert_eq!(drawn(&rows, 9, &mut rng).unwrap().len(), 3);
}

#[test]
fn a_seed_gives_the_same_beams_each_time() {
    let model = model();
    let config = of_beams().sample().temperature(1.5).max_new_tokens(8);
    let of = |seed| found(&model, &config.clone().seed(seed)).0;
    assert_eq!(of(1), of(1));
    assert!((2..6).any(|seed| of(seed) != of(1)));
}

#[test]
fn a_search_ends_where_the_context_does_or_at_a_switch() {
    let model = model();
    let (given, best) = found(&model, &config().max_new_tokens(100));
    assert_eq!((given.len(), best[0].stop_reason), (15, StopReason::ContextFull));
    assert!(found(&model, &config().max_new_tokens(0)).0.is_empty());

    let cancel = Cancel::new();
    let mut search = beam_search(&model, &[1, 2], &config().max_new_tokens(14).cancel(&cancel)).unwrap();
    let first = search.next().unwrap().unwrap();
    cancel.cancel();
    let rest: Vec<u32> = search.by_ref().map(|id| id.unwrap()).collect();
    assert_eq!(search.stop_reason(), Some(StopReason::Cancelled));
    assert_eq!(search.hypotheses()[0].ids, [&[first], &rest[..]].concat());
    let late = config().deadline(std::time::Instant::now());
    assert!(found(&model, &late).0.is_empty());
}

#[test]
fn settings_that_cannot_be_are_errors() {
    let model = model();
    let err = |config: GenerationConfig| beam_search(&model, &[1], &config).is_err();
    assert!(err(config().num_beams(0)) && err(config().num_beam_groups(3)) && err(config().num_return_sequences(5)));
    assert!(err(of_beams().sample().num_beam_groups(2)) && err(config().length_penalty(f32::NAN)));
    assert!(err(config().diversity_penalty(-1.0)));
}
