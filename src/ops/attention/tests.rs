//! The fused kernel, the composed operations and a naive loop, compared with each other and with
//! central differences.

use super::*;
use crate::ops::gradient_check::{check, sample};
use crate::tensor::IdTensor;
use crate::{Capture, inspect};

/// `(name, heads, kv heads, batch, queries, keys, head_dim, value_dim, mask)`.
fn cases() -> Vec<(&'static str, [usize; 7], AttentionMask)> {
    let padding = |rows: &[[u32; 5]]| AttentionMask::padding(&IdTensor::batch(rows).unwrap());
    let right = padding(&[[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]]);
    let left = padding(&[[0, 0, 1, 1, 1], [0, 1, 1, 1, 1]]);
    let holes = padding(&[[1, 0, 1, 0, 1], [1, 1, 0, 1, 0]]);
    let window = AttentionMask::allowed(&IdTensor::batch(&[[1, 1, 0, 0, 1], [0, 1, 1, 0, 0], [0; 5]]).unwrap());
    vec![
        ("one", [1, 1, 1, 1, 1, 1, 1], AttentionMask::none()),
        ("plain", [2, 2, 2, 3, 5, 3, 3], AttentionMask::none()),
        ("other value width", [2, 2, 1, 3, 4, 3, 5], AttentionMask::none()),
        ("causal", [2, 2, 2, 5, 5, 3, 3], AttentionMask::causal()),
        ("causal with an offset", [1, 1, 2, 2, 5, 3, 3], AttentionMask::causal()),
        ("grouped", [6, 2, 1, 3, 4, 3, 3], AttentionMask::causal()),
        ("one key head", [3, 1, 2, 2, 5, 4, 4], right.clone()),
        ("right padding", [2, 2, 2, 3, 5, 3, 3], right),
        ("left padding, causal", [2, 1, 2, 5, 5, 3, 3], left.and(&AttentionMask::causal())),
        ("holes", [2, 2, 2, 3, 5, 3, 3], holes),
        ("any, a row without keys", [2, 2, 1, 3, 5, 3, 3], window),
    ]
}

fn inputs(&[h, hk, b, t, s, d, dv]: &[usize; 7]) -> [Tensor; 3] {
    [sample(&[b, t, h * d], 1), sample(&[b, s, hk * d], 2), sample(&[b, s, hk * dv], 3)]
}

fn settings(dims: &[usize; 7]) -> Attention {
    Attention { n_kv_heads: dims[1], ..Attention::new(dims[0]) }
}

#[test]
fn gradients_match_central_differences() {
    for (name, dims, mask) in cases() {
        let attention = settings(&dims);
        check(name, &inputs(&dims), |x| attention.forward(&x[0], &x[1], &x[2], &mask));
    }
    let dims = [2, 2, 1, 3, 4, 3, 3];
    let dropped = Attention { dropout: Some((0.4, 7)), scale: Some(0.3), ..settings(&dims) };
    check("dropout", &inputs(&dims), |x| dropped.forward(&x[0], &x[1], &x[2], &AttentionMask::none()));
    let [q, k, v] = inputs(&dims);
    for shape in [&[3, 4][..], &[1, 2, 3, 4], &[1, 2, 1, 4]] {
        check("bias", &[q.clone(), k.clone(), v.clone(), sample(shape, 4)], |x| {
            settings(&dims).forward(&x[0], &x[1], &x[2], &AttentionMask::additive(&x[3]))
        });
    }
    check("self-attention from one tensor", &[sample(&[2, 3, 8], 1)], |x| {
        Attention { n_kv_heads: 1, ..Attention::new(2) }.forward_packed(&x[0], &AttentionMask::causal())
    });
}

/// The formula, one query at a time.
fn naive(dims: &[usize; 7], mask: &AttentionMask, [q, k, v]: &[Tensor; 3]) -> Vec<f32> {
    let &[h, hk, b, t, s, d, dv] = dims;
    let resolved = mask.resolve(b, h, t, s).unwrap().dense().unwrap();
    let mask = resolved.map_or(Tensor::zeros(&[b, h, t, s]), |m| m.add(&Tensor::zeros(&[b, h, t, s])).unwrap());
    let mut out = vec![0.0; b * t * h * dv];
    for (bi, hi, ti) in (0..b * h * t).map(|i| (i / (h * t), i / t % h, i % t)) {
        let group = hi / (h / hk);
        let score = |si: usize| -> f64 {
            let dot: f64 = (0..d)
                .map(|j| {
                    f64::from(
                        q.data()[(bi * t + ti) * h * d + hi * d + j] * k.data()[(bi * s + si) * hk * d + group * d + j],
                    )
                })
                .sum();
            dot / (d as f64).sqrt() + f64::from(mask.data()[((bi * h + hi) * t + ti) * s + si])
        };
        let scores: Vec<f64> = (0..s).map(score).collect();
        let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        if max == f64::NEG_INFINITY {
            continue;
        }
        let sum: f64 = scores.iter().map(|x| (x - max).exp()).sum();
        for j in 0..dv {
            let y: f64 = (0..s)
                .map(|si| {
                    (scores[si] - max).exp() / sum * f64::from(v.data()[(bi * s + si) * hk * dv + group * dv + j])
                })
                .sum();
            out[(bi * t + ti) * h * dv + hi * dv + j] = y as f32;
        }
    }
    out
}

#[test]
fn output_matches_the_formula_and_probabilities_sum_to_one_or_zero() {
    for (name, dims, mask) in cases() {
        let x = inputs(&dims);
        let y = settings(&dims).forward(&x[0], &x[1], &x[2], &mask).unwrap();
        let (again, probs) = settings(&dims).with_probs(&x[0], &x[1], &x[2], &mask).unwrap();
        for (y, expected) in [&y, &again].iter().flat_map(|y| y.data().iter().zip(naive(&dims, &mask, &x))) {
            assert!((y - expected).abs() < 1e-5, "{name}: {y}, expected {expected}");
        }
        for row in probs.data().chunks(dims[4]) {
            let sum: f32 = row.iter().sum();
            assert!((sum - 1.0).abs() < 1e-5 || sum == 0.0, "{name}: {sum}");
        }
    }
}

#[test]
fn the_future_cannot_change_the_past() {
    let (x, attention) = (sample(&[1, 9, 8], 1), Attention::new(2));
    let mut other = x.clone();
    other.make_mut()[5 * 8..].fill(7.0);
    let y = attention.forward(&x, &x, &x, &AttentionMask::causal()).unwrap();
    let z = attention.forward(&other, &other, &other, &AttentionMask::causal()).unwrap();
    assert_eq!(y.data()[..5 * 8], z.data()[..5 * 8]);
    assert_ne!(y.data()[5 * 8..], z.data()[5 * 8..]);
}

#[test]
fn shapes_that_do_not_fit_are_errors() {
    let x = Tensor::zeros(&[2, 3, 8]);
    let none = AttentionMask::none();
    assert!(Attention::new(3).forward(&x, &x, &x, &none).is_err());
    assert!(Attention::new(0).forward(&x, &x, &x, &none).is_err());
    assert!(Attention { n_kv_heads: 3, ..Attention::new(4) }.forward(&x, &x, &x, &none).is_err());
    assert!(Attention::new(2).forward(&x, &Tensor::zeros(&[2, 3, 4]), &x, &none).is_err());
    assert!(Attention::new(2).forward(&x, &x, &Tensor::zeros(&[2, 4, 8]), &none).is_err());
    assert!(Attention::new(2).forward(&Tensor::zeros(&[3, 8]), &x, &x, &none).is_err());
    assert!(Attention::new(2).forward_cached(&x.watch(), &x, &x, 2, &none).is_err());
}

/// Rows `start..` of sequence `b`, as a batch of one.
fn alone(x: &Tensor, b: usize, start: usize, len: usize) -> Tensor {
    x.narrow(0, b, 1).unwrap().narrow(1, start, len).unwrap()
}

#[test]
fn padding_is_inert_to_the_bit() {
    // More than one of the kernel's blocks of keys.
    let (seq_len, lengths, width) = (200, [200usize, 3, 150], 6);
    let x = [1, 2, 3].map(|seed| sample(&[3, seq_len, width], seed));
    let packed = sample(&[3, seq_len, 3 * width], 4);
    let attention = Attention::new(2);
    for (left, causal) in [(false, false), (false, true), (true, false), (true, true)] {
        let start = |b: usize| if left { seq_len - lengths[b] } else { 0 };
        let real = |b: usize, i: usize| (start(b)..start(b) + lengths[b]).contains(&i);
        let ids = (0..3 * seq_len).map(|i| u32::from(real(i / seq_len, i % seq_len))).collect::<Vec<_>>();
        let causal = if causal { AttentionMask::causal() } else { AttentionMask::none() };
        let mask = AttentionMask::padding(&IdTensor::new(ids, &[3, seq_len]).unwrap()).and(&causal);
        // The gradient of the padding is zero.
        let mut dy = sample(&[3, seq_len, width], 5);
        for (i, row) in dy.make_mut().chunks_mut(width).enumerate() {
            if !real(i / seq_len, i % seq_len) {
                row.fill(0.0);
            }
        }
        let run = |x: &[Tensor], dy: &Tensor, mask: &AttentionMask| {
            let x: Vec<Tensor> = x.iter().map(Tensor::watch).collect();
            let y = match &x[..] {
                [q, k, v] => attention.forward(q, k, v, mask).unwrap(),
                [qkv] => attention.forward_packed(qkv, mask).unwrap(),
                _ => unreachable!(),
            };
            let gradients = y.backward_from(dy.clone()).unwrap();
            let mut all = vec![y.detach()];
            all.extend(x.iter().map(|x| gradients.of(x).unwrap().clone()));
            all
        };
        for x in [&x[..], std::slice::from_ref(&packed)] {
            let batched = run(x, &dy, &mask);
            for (b, &length) in lengths.iter().enumerate() {
                let one = |x: &Tensor| alone(x, b, start(b), length);
                let single = run(&x.iter().map(one).collect::<Vec<_>>(), &one(&dy), &causal);
                for (i, (batched, single)) in batched.iter().zip(&single).enumerate() {
                    assert_eq!(one(batched).data(), single.data(), "left {left}, {causal:?}, sequence {b}, result {i}");
                }
            }
        }
    }
}

#[test]
fn a_query_over_a_cache_has_the_bits_of_the_full_product() {
    let x = sample(&[2, 140, 12], 1);
    let attention = Attention { n_kv_heads: 1, ..Attention::new(3) };
    let kv = sample(&[2, 140, 4], 2);
    let full = attention.forward(&x, &kv, &kv, &AttentionMask::causal()).unwrap();
    for t in [0, 1, 127, 128, 139] {
        let y = attention.forward_cached(&position(&x, t), &kv, &kv, t + 1, &AttentionMask::causal()).unwrap();
        assert_eq!(y.to_vec(), position(&full, t).to_vec(), "position {t}");
    }
}

fn position(x: &Tensor, t: usize) -> Tensor {
    x.narrow(1, t, 1).unwrap()
}

#[test]
fn empty_batches_and_texts_are_allowed() {
    let none = AttentionMask::none();
    for shape in [[0, 3, 4], [2, 0, 4], [2, 3, 0]] {
        let x = Tensor::zeros(&shape);
        assert_eq!(Attention::new(2).forward(&x, &x, &x, &none).unwrap().shape(), shape);
    }
    let (q, k) = (Tensor::zeros(&[1, 2, 4]), Tensor::zeros(&[1, 0, 4]));
    assert_eq!(Attention::new(2).forward(&q, &k, &k, &none).unwrap().to_vec(), [0.0; 8]);
}

/// Recording does not change the bits of the output, and the recorded probabilities are those of
/// `with_probs`.
#[test]
fn recording_changes_nothing_and_returns_the_probabilities() {
    for (name, dims, mask) in cases() {
        let [q, k, v] = inputs(&dims);
        let attention = settings(&dims);
        let (y, seen) = inspect(Capture::Attention, || attention.forward(&q, &k, &v, &mask).unwrap());
        assert_eq!(y.data(), attention.forward(&q, &k, &v, &mask).unwrap().data(), "{name}");
        assert_eq!(seen.attention.len(), 1, "{name}");
        let (_, probs) = attention.with_probs(&q, &k, &v, &mask).unwrap();
        assert_eq!(seen.attention[0].1.data(), probs.data(), "{name}");
        let (y, seen) = inspect(Capture::Everything, || attention.forward_cached(&q, &k, &v, dims[4], &mask).unwrap());
        assert_eq!((y.shape(), seen.attention.len()), (&[dims[2], dims[3], dims[0] * dims[6]][..], 1), "{name}");
        assert_eq!(seen.attention[0].1.data(), probs.data(), "{name}");
    }
    let qkv = sample(&[2, 3, 8], 1).watch();
    let attention = Attention { n_kv_heads: 1, ..Attention::new(2) };
    let (_, seen) = inspect(Capture::Attention, || attention.forward_packed(&qkv, &AttentionMask::causal()).unwrap());
    assert_eq!((seen.attention[0].1.shape(), seen.attention[0].1.requires_grad()), (&[2, 2, 3, 3][..], false));
}

#[test]
fn more_heads_than_a_width_has_are_errors() {
    let mask = AttentionMask::none();
    for width in [0, 1, 12] {
        let x = Tensor::zeros(&[1, 2, width]);
        for n in [if width == 0 { 1 << 17 } else { 13 }, 1 << 40, usize::MAX / 2, usize::MAX / 3 + 1, usize::MAX] {
            let attention = Attention::new(n);
            assert!(attention.forward(&x, &x, &x, &mask).is_err());
            assert!(attention.forward_packed(&x, &mask).is_err());
            assert!(attention.with_probs(&x, &x, &x, &mask).is_err());
            assert!(attention.forward_cached(&x, &x, &x, 2, &mask).is_err());
            let rows = Tensor::zeros(&[2, width]);
            let span = Span { sequences: 1, len: 2, mask: mask.clone() };
            assert!(attention.forward_spans(&rows, &rows, &rows, &[span]).is_err());
            assert!(Attention { n_kv_heads: n, ..Attention::new(1) }.forward(&x, &x, &x, &mask).is_err());
        }
    }
}

/// Every query of a sequence attends to the same keys.
fn allowed(seen: &IdTensor) -> IdTensor {
    let (batch, keys) = seen.batch_and_len().unwrap();
    let rows = seen.data().chunks(keys).flat_map(|row| row.repeat(keys)).collect::<Vec<_>>();
    IdTensor::new(rows, &[batch, keys, keys]).unwrap()
}

#[test]
fn a_masked_value_that_is_no_number_adds_nothing() {
    let seen = IdTensor::batch(&[[1, 1, 1, 0], [1, 1, 1, 1]]).unwrap();
    for value_dim in [3, 5] {
        let (q, k) = (sample(&[2, 4, 6], 1), sample(&[2, 4, 6], 2));
        let mut v = sample(&[2, 4, 2 * value_dim], 3);
        let run = |v: &Tensor, mask: &AttentionMask| {
            let (q, k) = (q.watch(), k.watch());
            let fused = Attention::new(2).forward(&q, &k, v, mask).unwrap();
            let (composed, _) = Attention::new(2).with_probs(&q, &k, v, mask).unwrap();
            [fused, composed].map(|y| {
                let rows = y.narrow(0, 0, 1).unwrap().narrow(1, 0, 3).unwrap();
                let gradients = rows.sum().unwrap().backward().unwrap();
                let dq = gradients.of(&q).unwrap().data()[..3 * 6].to_vec();
                // The fourth query attends to its own key, even if that is in the future of the
                // others.
                let dk = gradients.of(&k).unwrap().data()[..if mask.is_causal() { 0 } else { 3 * 6 }].to_vec();
                [rows.to_vec(), dq, dk]
            })
        };
        let middle = IdTensor::batch(&[[1, 1, 1, 0], [1, 0, 1, 1]]).unwrap();
        let masks = [AttentionMask::padding(&seen), AttentionMask::allowed(&allowed(&middle)), AttentionMask::causal()];
        let clean = masks.each_ref().map(|mask| run(&v, mask));
        // The last key of the first sequence: padding, or the future of its first three queries.
        v.make_mut()[3 * 2 * value_dim..4 * 2 * value_dim].fill(f32::NAN);
        for (mask, clean) in masks.iter().zip(&clean) {
            for (found, clean) in run(&v, mask).iter().zip(clean) {
                assert!(found.iter().flatten().all(|x| x.is_finite()), "{value_dim}");
                assert!(found.iter().flatten().zip(clean.iter().flatten()).all(|(a, b)| (a - b).abs() < 1e-5));
            }
        }
    }
}

fn capped(sinks: &Tensor) -> Attention {
    Attention { n_kv_heads: 1, softcap: Some(1.5), sinks: Some(sinks.clone()), ..Attention::new(2) }
}

#[test]
fn capped_scores_and_sinks_match_the_formula_and_have_gradients() {
    let [q, k, v, sinks] = [sample(&[1, 3, 6], 1), sample(&[1, 4, 3], 2), sample(&[1, 4, 3], 3), sample(&[2], 4)];
    let none = AttentionMask::none();
    check("softcap and sinks", &[q.clone(), k.clone(), v.clone(), sinks.clone()], |x| {
        capped(&x[3]).forward(&x[0], &x[1], &x[2], &AttentionMask::causal())
    });
    let y = capped(&sinks).forward(&q, &k, &v, &none).unwrap();
    for (t, h) in [(0, 0), (1, 1), (2, 0)] {
        let q = &q.data()[t * 6 + h * 3..][..3];
        let score = |key: &[f32]| {
            let dot: f32 = q.iter().zip(key).map(|(a, b)| a * b).sum::<f32>() / 3f32.sqrt();
            (1.5 * (dot / 1.5).tanh()).exp()
        };
        let weights: Vec<f32> = k.data().chunks(3).map(score).collect();
        let sum = weights.iter().sum::<f32>() + sinks.data()[h].exp();
        for column in 0..3 {
            let value = weights.iter().zip(v.data().chunks(3)).map(|(w, v)| w / sum * v[column]).sum::<f32>();
            assert!((y.data()[t * 6 + h * 3 + column] - value).abs() < 1e-6, "query {t}, head {h}");
        }
    }
    // A query without a key attends to its sink only, which has no value.
    let unseen = AttentionMask::padding(&IdTensor::batch(&[[0; 4]]).unwrap());
    assert_eq!(capped(&sinks).forward(&q, &k, &v, &unseen).unwrap().to_vec(), [0.0; 18]);
    let wrong = |attention: Attention| attention.forward(&q, &k, &v, &none).is_err();
    assert!(wrong(Attention { softcap: Some(0.0), ..capped(&sinks) }));
    assert!(wrong(capped(&Tensor::zeros(&[3]))));
}

#[test]
fn capped_scores_and_sinks_over_a_cache_have_the_bits_of_the_whole() {
    let (x, kv, sinks) = (sample(&[2, 70, 8], 1), sample(&[2, 70, 4], 2), sample(&[2], 3));
    let (attention, causal) = (capped(&sinks), AttentionMask::causal());
    let full = attention.forward(&x, &kv, &kv, &causal).unwrap();
    for t in [0, 1, 16, 63, 69] {
        let y = attention.forward_cached(&position(&x, t), &kv, &kv, t + 1, &causal).unwrap();
        assert_eq!(y.to_vec(), position(&full, t).to_vec(), "position {t}");
    }
}
