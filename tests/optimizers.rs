//! Ten steps of each optimizer and thirty of each schedule agree with PyTorch
//! (`fixtures/make_optimizers.py`).

#![allow(clippy::unwrap_used)]

use loquat::nn::{Module, Parameter};
use loquat::training::{Adam, AdamW, Optimizer, ParameterGroup, Rule, Schedule, Sgd, clip_grad_norm};
use loquat::{Gradients, Tensor};
use serde_json::Value;

struct Layer {
    weight: Parameter,
    bias: Parameter,
}
loquat::module!(Layer { weight, bias });

fn fixture() -> Value {
    serde_json::from_str(include_str!("fixtures/optimizers.json")).unwrap()
}

fn numbers(value: &Value) -> Vec<f32> {
    value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap() as f32).collect()
}

fn layer(fixture: &Value) -> Layer {
    let of = |name: &str, shape: &[usize]| Parameter::new(Tensor::from_vec(numbers(&fixture[name]), shape).unwrap());
    Layer { weight: of("weight", &[3, 5]), bias: of("bias", &[5]) }
}

/// Gradients with given values: those of Σ g·p.
fn gradients(layer: &Layer, values: &[f32]) -> Gradients {
    let g = |values: &[f32], shape: &[usize]| Tensor::from_vec(values.to_vec(), shape).unwrap();
    let weight = layer.weight.tensor().mul(&g(&values[..15], &[3, 5])).unwrap().sum().unwrap();
    let bias = layer.bias.tensor().mul(&g(&values[15..], &[5])).unwrap().sum().unwrap();
    weight.add(&bias).unwrap().backward().unwrap()
}

fn assert_close(what: &str, found: &[f32], expected: &[f32]) {
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(expected) {
        assert!((found - expected).abs() <= 1e-6 * expected.abs().max(1.0), "{what}: {found} for {expected}");
    }
}

#[test]
fn ten_steps_agree_with_pytorch() {
    let fixture = fixture();
    let momentum = Sgd { lr: 0.1, momentum: 0.9, weight_decay: 0.2, ..Sgd::default() };
    let adam = Adam { lr: 0.1, betas: (0.8, 0.99), eps: 1e-6, weight_decay: 0.2, ..Adam::default() };
    let group = ParameterGroup::biases_and_norms().weight_decay(0.0).lr(0.02);
    let cosine = Schedule::cosine(10).min_factor(0.1).warmup(3);
    let amsgrad = Adam { lr: 0.1, betas: (0.8, 0.5), amsgrad: true, ..Adam::default() };
    let cases: [(&str, Rule, Option<ParameterGroup>, Schedule); 13] = [
        ("sgd", Sgd { lr: 0.1, ..Sgd::default() }.into(), None, Schedule::constant()),
        ("sgd_decay", Sgd { lr: 0.1, weight_decay: 0.2, ..Sgd::default() }.into(), None, Schedule::constant()),
        ("sgd_momentum", momentum.into(), None, Schedule::constant()),
        ("sgd_nesterov", Sgd { nesterov: true, ..momentum }.into(), None, Schedule::constant()),
        ("sgd_dampening", Sgd { dampening: 0.3, ..momentum }.into(), None, Schedule::constant()),
        ("sgd_dampening_only", Sgd { lr: 0.1, dampening: 0.3, ..Sgd::default() }.into(), None, Schedule::constant()),
        ("adam_amsgrad", amsgrad.into(), None, Schedule::constant()),
        (
            "adamw_amsgrad",
            AdamW { lr: 0.1, betas: (0.8, 0.5), weight_decay: 0.2, amsgrad: true, ..AdamW::default() }.into(),
            None,
            Schedule::constant(),
        ),
        ("adam", Adam { lr: 0.1, ..Adam::default() }.into(), None, Schedule::constant()),
        ("adam_decay", adam.into(), None, Schedule::constant()),
        ("adamw", AdamW { lr: 0.1, ..AdamW::default() }.into(), None, Schedule::constant()),
        (
            "adamw_groups",
            AdamW { lr: 0.1, betas: (0.9, 0.95), weight_decay: 0.2, ..AdamW::default() }.into(),
            Some(group),
            Schedule::constant(),
        ),
        ("adamw_cosine", AdamW { lr: 0.1, weight_decay: 0.1, ..AdamW::default() }.into(), None, cosine),
    ];
    assert_eq!(cases.len(), fixture["optimizers"].as_object().unwrap().len());
    for (name, rule, group, schedule) in cases {
        let mut layer = layer(&fixture);
        let mut optimizer = Optimizer::new(rule).unwrap();
        if let Some(group) = group {
            optimizer = optimizer.group(group).unwrap();
        }
        let after = fixture["optimizers"][name].as_array().unwrap();
        assert_eq!(after.len(), 10);
        for (step, expected) in after.iter().enumerate() {
            let gradients = gradients(&layer, &numbers(&fixture["gradients"][step]));
            optimizer.set_lr_factor(schedule.factor(step as u64));
            optimizer.step(&mut layer, &gradients).unwrap();
            let found: Vec<f32> = layer.parameters().iter().flat_map(|(_, p)| p.tensor().to_vec()).collect();
            assert_close(&format!("{name}, step {step}"), &found, &numbers(expected));
        }
    }
}

#[test]
fn clipping_agrees_with_pytorch() {
    let fixture = fixture();
    let layer = layer(&fixture);
    let mut gradients = gradients(&layer, &numbers(&fixture["gradients"][0]));
    let norm = clip_grad_norm(&mut gradients, 1.5).unwrap();
    let expected = &fixture["clipped"];
    assert!((norm - expected["norm"].as_f64().unwrap()).abs() < 1e-5);
    let found: Vec<f32> =
        [&layer.weight, &layer.bias].iter().flat_map(|p| gradients.of(p.tensor()).unwrap().to_vec()).collect();
    assert_close("clipped", &found, &numbers(&expected["gradients"]));
}

#[test]
fn schedules_agree_with_pytorch() {
    let fixture = fixture();
    let cases = [
        ("constant", Schedule::constant()),
        ("constant_warm", Schedule::constant().warmup(5)),
        ("linear", Schedule::linear(20)),
        ("linear_warm", Schedule::linear(25).min_factor(0.1).warmup(5)),
        ("cosine_torch", Schedule::cosine(30).min_factor(0.1)),
        ("cosine_warm", Schedule::cosine(25).min_factor(0.1).warmup(5)),
        ("inverse_sqrt_warm", Schedule::inverse_sqrt().warmup(5)),
    ];
    assert_eq!(cases.len(), fixture["schedules"].as_object().unwrap().len());
    for (name, schedule) in cases {
        let expected = fixture["schedules"][name].as_array().unwrap();
        assert_eq!(expected.len(), 30);
        for (step, expected) in expected.iter().enumerate() {
            let (found, expected) = (schedule.factor(step as u64), expected.as_f64().unwrap());
            assert!((found - expected).abs() < 1e-9, "{name}, step {step}: {found} for {expected}");
        }
    }
}
