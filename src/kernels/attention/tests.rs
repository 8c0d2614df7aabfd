use super::*;
use crate::kernels::simd::{Level, for_each_level, with_level};

/// Random numbers in (-1, 1).
fn random(len: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..len)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
        })
        .collect()
}

/// Contiguous activations of a shape, and the results of attention on them.
struct Case {
    query: Vec<f32>,
    key: Vec<f32>,
    value: Vec<f32>,
    dout: Vec<f32>,
}

#[derive(Clone, Debug, PartialEq)]
struct Results {
    out: Vec<f32>,
    lse: Vec<f32>,
    dquery: Vec<f32>,
    dkey: Vec<f32>,
    dvalue: Vec<f32>,
}

impl Case {
    fn new(shape: &AttentionShape<'_>) -> Self {
        let AttentionShape { batch, n_heads, n_kv_heads, queries, keys, head_dim, .. } = *shape;
        let (q, kv) = (batch * queries * n_heads * head_dim, batch * keys * n_kv_heads * head_dim);
        Case { query: random(q, 1), key: random(kv, 2), value: random(kv, 3), dout: random(q, 4) }
    }

    fn run(&self, shape: &AttentionShape<'_>) -> Results {
        let AttentionShape { batch, n_heads, n_kv_heads, queries, keys, head_dim, .. } = *shape;
        let q = |x| Heads::rows(x, queries, n_heads, head_dim);
        let kv = |x| Heads::rows(x, keys, n_kv_heads, head_dim);
        let mut r = Results {
            out: vec![f32::NAN; self.query.len()],
            lse: vec![f32::NAN; batch * n_heads * queries],
            dquery: vec![f32::NAN; self.query.len()],
            dkey: vec![f32::NAN; self.key.len()],
            dvalue: vec![f32::NAN; self.key.len()],
        };
        let out = HeadsMut::rows(&mut r.out, queries, n_heads, head_dim);
        attention(shape, q(&self.query), kv(&self.key), kv(&self.value), out, Some(&mut r.lse));
        attention_backward(
            shape,
            q(&self.dout),
            q(&self.query),
            kv(&self.key),
            kv(&self.value),
            q(&r.out),
            &r.lse,
            HeadsMut::rows(&mut r.dquery, queries, n_heads, head_dim),
            HeadsMut::rows(&mut r.dkey, keys, n_kv_heads, head_dim),
            HeadsMut::rows(&mut r.dvalue, keys, n_kv_heads, head_dim),
        );
        r
    }

    /// The definition, in f64, with the whole matrix of probabilities.
    fn naive(&self, shape: &AttentionShape<'_>) -> Results {
        let AttentionShape { batch, n_heads, n_kv_heads, queries, keys, head_dim: dim, .. } = *shape;
        let mut r = [self.query.len(), batch * n_heads * queries, self.query.len(), self.key.len(), self.key.len()]
            .map(|len| vec![0.0f64; len]);
        let [out, lse, dquery, dkey, dvalue] = &mut r;
        for (b, h) in (0..batch).flat_map(|b| (0..n_heads).map(move |h| (b, h))) {
            let at_q = |i: usize| ((b * queries + i) * n_heads + h) * dim;
            let at_k = |j: usize| ((b * keys + j) * n_kv_heads + h / (n_heads / n_kv_heads)) * dim;
            let dot = |x: &[f32], y: &[f32]| x.iter().zip(y).map(|(&x, &y)| x as f64 * y as f64).sum::<f64>();
            for i in 0..queries {
                let q = &self.query[at_q(i)..][..dim];
                let d = &self.dout[at_q(i)..][..dim];
                let score =
                    |j: usize| added(shape, b, h, i, j) + shape.scale as f64 * dot(q, &self.key[at_k(j)..][..dim]);
                let scores: Vec<f64> = (0..keys).map(score).collect();
                let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let base = if max == f64::NEG_INFINITY { 0.0 } else { max };
                let sum: f64 = scores.iter().map(|s| (s - base).exp()).sum();
                lse[(b * n_heads + h) * queries + i] = max + sum.ln();
                if sum == 0.0 {
                    continue;
                }
                let p: Vec<f64> = scores.iter().map(|s| (s - base).exp() / sum).collect();
                let kept: Vec<f64> =
                    (0..keys).map(|j| kept(shape, ((b * n_heads + h) * queries + i) * keys + j)).collect();
                let dp: Vec<f64> = (0..keys).map(|j| kept[j] * dot(d, &self.value[at_k(j)..][..dim])).collect();
                let delta: f64 = p.iter().zip(&dp).map(|(p, dp)| p * dp).sum();
                for j in 0..keys {
                    let ds = p[j] * (dp[j] - delta) * shape.scale as f64;
                    for x in 0..dim {
                        out[at_q(i) + x] += kept[j] * p[j] * self.value[at_k(j) + x] as f64;
                        dvalue[at_k(j) + x] += kept[j] * p[j] * d[x] as f64;
                        dquery[at_q(i) + x] += ds * self.key[at_k(j) + x] as f64;
                        dkey[at_k(j) + x] += ds * q[x] as f64;
                    }
                }
            }
        }
        let [out, lse, dquery, dkey, dvalue] = r.map(|x| x.into_iter().map(|x| x as f32).collect());
        Results { out, lse, dquery, dkey, dvalue }
    }
}

/// The factor of a probability under dropout.
fn kept(shape: &AttentionShape<'_>, place: usize) -> f64 {
    let Some(Dropout { p, seed, offset }) = shape.dropout else { return 1.0 };
    let mut y = [0.0];
    crate::kernels::vecmath::dropout(&[1.0], p, seed, offset + place as u64, &mut y);
    y[0] as f64
}

/// The term that the masks add to a score: 0 or −∞, or that of the user.
fn added(shape: &AttentionShape<'_>, b: usize, h: usize, i: usize, j: usize) -> f64 {
    let position = shape.positions.map_or_else(|| shape.keys.wrapping_sub(shape.queries), |p| p[b]).wrapping_add(i);
    let hidden = shape.causal && (j > position || j + shape.window.unwrap_or(usize::MAX / 2) <= position)
        || shape.key_lengths.is_some_and(|lengths| j >= lengths[b])
        || shape.key_mask.is_some_and(|mask| !mask[b * shape.keys + j]);
    let at = |batch_stride, head_stride| b * batch_stride + h * head_stride + i * shape.keys + j;
    let added = match shape.mask {
        Mask::None => 0.0,
        Mask::Add { data, batch_stride, head_stride } => data[at(batch_stride, head_stride)] as f64,
        Mask::Keep { data, batch_stride, head_stride } if !data[at(batch_stride, head_stride)] => f64::NEG_INFINITY,
        Mask::Keep { .. } => 0.0,
    };
    if hidden { f64::NEG_INFINITY } else { added }
}

fn assert_close(found: &Results, expected: &Results, what: &str) {
    let pairs = [
        ("out", &found.out, &expected.out, 2e-6),
        ("lse", &found.lse, &expected.lse, 2e-6),
        ("dquery", &found.dquery, &expected.dquery, 5e-6),
        ("dkey", &found.dkey, &expected.dkey, 1e-5),
        ("dvalue", &found.dvalue, &expected.dvalue, 1e-5),
    ];
    for (name, found, expected, tolerance) in pairs {
        for (i, (&x, &y)) in found.iter().zip(expected).enumerate() {
            let close = x == y || (x - y).abs() <= tolerance * (1.0 + y.abs());
            assert!(close, "{what}: {name}[{i}] is {x}, expected {y}");
        }
    }
}

/// Named shapes around the blocks' edges, without masks of their own.
fn shapes() -> Vec<AttentionShape<'static>> {
    let with = |n_kv_heads, shape| AttentionShape { n_kv_heads, ..shape };
    vec![
        AttentionShape::new(1, 1, 1, 1, 1),
        AttentionShape::new(2, 3, 5, 5, 7),
        AttentionShape::new(1, 2, 17, 17, 16),
        AttentionShape::new(1, 1, 32, 33, 64),
        AttentionShape::new(2, 2, 31, 130, 20),
        with(2, AttentionShape::new(1, 4, 33, 127, 64)),
        with(1, AttentionShape::new(2, 3, 129, 129, 32)),
        AttentionShape::new(1, 1, 130, 260, 80),
        AttentionShape::new(1, 2, 300, 300, 24),
        with(2, AttentionShape::new(1, 4, 3, 200, 48)),
        with(1, AttentionShape::new(1, 8, 1, 300, 64)),
        AttentionShape::new(1, 1, 0, 4, 8),
        AttentionShape::new(1, 1, 4, 0, 8),
    ]
}

#[test]
fn forward_and_backward_agree_with_the_definition() {
    for_each_level(|level| {
        for shape in shapes() {
            let case = Case::new(&shape);
            assert_close(&case.run(&shape), &case.naive(&shape), &format!("{level:?} {shape:?}"));
            if shape.keys >= shape.queries {
                let shape = AttentionShape { causal: true, ..shape };
                assert_close(&case.run(&shape), &case.naive(&shape), &format!("{level:?} {shape:?}"));
                let shape = AttentionShape { window: Some(70), ..shape };
                assert_close(&case.run(&shape), &case.naive(&shape), &format!("{level:?} {shape:?}"));
            }
        }
    });
}

#[test]
fn products_of_rounded_numbers_agree_with_the_definition_on_them() {
    for_each_level(|level| {
        let rounds = Precision::Bf16.rounds();
        for shape in shapes().into_iter().flat_map(|shape| {
            let causal = shape.keys >= shape.queries;
            [Some(shape), causal.then_some(AttentionShape { causal, window: Some(70), ..shape })].into_iter().flatten()
        }) {
            let mut case = Case::new(&shape);
            let found = case.run(&AttentionShape { precision: Precision::Bf16, ..shape }).out;
            if !rounds {
                assert_eq!(found, case.run(&shape).out, "{level:?} {shape:?}");
                continue;
            }
            let round = |x: &mut f32| *x = half::bf16::from_f32(*x).to_f32();
            case.query.iter_mut().for_each(|x| *x *= shape.scale);
            [&mut case.query, &mut case.key, &mut case.value].into_iter().flatten().for_each(round);
            let expected = case.naive(&AttentionShape { scale: 1.0, ..shape }).out;
            // Probabilities are rounded after the maximum of the block is subtracted: each by at
            // most 2⁻⁹ of its value.
            for (i, (x, y)) in found.iter().zip(&expected).enumerate() {
                assert!((x - y).abs() < 2e-3, "{level:?} {shape:?}: out[{i}] is {x}, expected {y}");
            }
        }
    });
}

#[test]
fn dropout_is_that_of_the_matrix_of_probabilities() {
    for_each_level(|level| {
        let dropout = Some(Dropout { p: 0.3, seed: 5, offset: 11 });
        for (queries, keys, causal) in [(2, 140, false), (40, 40, true), (130, 150, false)] {
            let shape =
                AttentionShape { n_kv_heads: 2, causal, dropout, ..AttentionShape::new(2, 4, queries, keys, 24) };
            let case = Case::new(&shape);
            assert_close(&case.run(&shape), &case.naive(&shape), &format!("{level:?} {shape:?}"));
        }
    });
}

#[test]
fn masks_hide_keys_and_a_query_without_keys_gets_zeros() {
    for_each_level(|level| {
        for (queries, keys) in [(4, 150), (40, 150), (150, 150)] {
            let base = AttentionShape { n_kv_heads: 2, ..AttentionShape::new(2, 4, queries, keys, 24) };
            let case = Case::new(&base);
            let mut add = random(2 * queries * keys, 7);
            add[5..5 + keys].fill(f32::NEG_INFINITY);
            add[keys..3 * keys].fill(f32::NEG_INFINITY);
            let keep: Vec<bool> = random(4 * queries * keys, 8).iter().map(|&x| x > 0.3).collect();
            let key_mask: Vec<bool> = random(2 * keys, 9).iter().map(|&x| x > 0.0).collect();
            let cases = [
                AttentionShape { key_lengths: Some(&[77, 0]), ..base },
                AttentionShape { key_mask: Some(&key_mask), ..base },
                AttentionShape { key_mask: Some(&key_mask), key_lengths: Some(&[149, 30]), causal: true, ..base },
                AttentionShape { mask: Mask::Add { data: &add, batch_stride: queries * keys, head_stride: 0 }, ..base },
                AttentionShape {
                    mask: Mask::Keep { data: &keep, batch_stride: 0, head_stride: queries * keys },
                    ..base
                },
                AttentionShape {
                    mask: Mask::Keep { data: &keep, batch_stride: 0, head_stride: 0 },
                    causal: true,
                    window: Some(9),
                    positions: Some(&[0, 3]),
                    ..base
                },
            ];
            for shape in cases {
                let found = case.run(&shape);
                let plain = AttentionShape { mask: Mask::None, key_mask: None, ..shape };
                assert_close(&found, &case.naive(&shape), &format!("{level:?} {plain:?}"));
                assert!(found.out.iter().chain(&found.dquery).all(|x| x.is_finite()));
            }
        }
    });
}

#[test]
fn one_query_over_the_cache_has_the_bits_of_the_whole() {
    for_each_level(|level| {
        let shapes = [(4, 64, None), (2, 20, None), (1, 15, Some(150))];
        let shapes =
            shapes.iter().flat_map(|&shape| [Precision::F32, Precision::Bf16].map(|precision| (shape, precision)));
        for ((n_kv_heads, dim, window), precision) in shapes {
            let (length, n_heads, capacity) = (300, 4, 320);
            let plain = AttentionShape::new(1, n_heads, length, length, dim);
            let whole = AttentionShape { n_kv_heads, causal: true, window, precision, ..plain };
            let case = Case::new(&whole);
            let expected = case.run(&whole).out;
            // The cache stores its heads separately.
            let mut caches = [vec![0.0; n_kv_heads * capacity * dim], vec![0.0; n_kv_heads * capacity * dim]];
            for (cache, x) in caches.iter_mut().zip([&case.key, &case.value]) {
                for (i, &x) in x.iter().enumerate() {
                    let (j, head, d) = (i / (n_kv_heads * dim), i / dim % n_kv_heads, i % dim);
                    cache[(head * capacity + j) * dim + d] = x;
                }
            }
            let [key, value] = caches.each_ref().map(|cache| Heads::cache(cache, n_kv_heads, capacity, dim));
            for (first, queries) in [(0, 1), (1, 1), (127, 1), (128, 1), (200, 3), (295, 5), (250, 40), (299, 1)] {
                let shape = AttentionShape { queries, keys: first + queries, ..whole };
                let (from, to) = (first * n_heads * dim, (first + queries) * n_heads * dim);
                let mut out = vec![0.0; to - from];
                let query = Heads::rows(&case.query[from..to], queries, n_heads, dim);
                attention(&shape, query, key, value, HeadsMut::rows(&mut out, queries, n_heads, dim), None);
                assert_eq!(
                    out,
                    expected[from..to],
                    "{queries} queries at {first}, {n_kv_heads} kv heads, {level:?}, {precision:?}"
                );
            }
        }
    });
}

#[test]
fn neither_threads_nor_the_instruction_set_change_a_bit() {
    let shape = AttentionShape { causal: true, n_kv_heads: 2, ..AttentionShape::new(2, 4, 200, 200, 40) };
    let case = Case::new(&shape);
    let mut fused: Option<Results> = None;
    for_each_level(|level| {
        let expected = case.run(&shape);
        for threads in 1..=4 {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a few threads");
            let found = pool.install(|| with_level(level, || case.run(&shape)));
            assert_eq!(found, expected, "{threads} threads, {level:?}");
        }
        if level != Level::Portable {
            assert_eq!(*fused.get_or_insert_with(|| expected.clone()), expected, "{level:?}");
        }
    });
}

#[test]
fn a_joint_projection_is_read_and_written_in_place() {
    let (batch, length, n_heads, n_kv_heads, dim) = (2, 40, 4, 2, 8);
    let (wide, kv_wide) = (n_heads * dim, n_kv_heads * dim);
    let width = wide + 2 * kv_wide;
    let shape = AttentionShape { n_kv_heads, causal: true, ..AttentionShape::new(batch, n_heads, length, length, dim) };
    let joint = random(batch * length * width, 1);
    let columns = |from: usize, to: usize| -> Vec<f32> {
        joint.chunks(width).flat_map(|row| row[from..to].iter().copied()).collect()
    };
    let (first_key, first_value) = (wide, wide + kv_wide);
    let case = Case {
        query: columns(0, first_key),
        key: columns(first_key, first_value),
        value: columns(first_value, width),
        dout: random(batch * length * wide, 4),
    };
    let expected = case.run(&shape);

    let mut out = vec![0.0; batch * length * wide];
    let mut lse = vec![0.0; batch * n_heads * length];
    let mut djoint = vec![f32::NAN; joint.len()];
    let part = |first| Heads::columns(&joint, length, width, first, dim);
    let (query, key, value) = (part(0), part(first_key), part(first_value));
    attention(&shape, query, key, value, HeadsMut::rows(&mut out, length, n_heads, dim), Some(&mut lse));
    assert_eq!(out, expected.out);
    let [dquery, dkey, dvalue] = HeadsMut::split_columns(&mut djoint, length, [wide, kv_wide, kv_wide], dim);
    let (dout, out) = (Heads::rows(&case.dout, length, n_heads, dim), Heads::rows(&out, length, n_heads, dim));
    attention_backward(&shape, dout, query, key, value, out, &lse, dquery, dkey, dvalue);
    let dcolumns = |from: usize, to: usize| -> Vec<f32> {
        djoint.chunks(width).flat_map(|row| row[from..to].iter().copied()).collect()
    };
    assert_eq!(dcolumns(0, first_key), expected.dquery);
    assert_eq!(dcolumns(first_key, first_value), expected.dkey);
    assert_eq!(dcolumns(first_value, width), expected.dvalue);
}

#[test]
fn probabilities_sum_to_one_and_weigh_the_values() {
    let shape = AttentionShape { causal: true, n_kv_heads: 1, ..AttentionShape::new(2, 2, 37, 150, 16) };
    let case = Case::new(&shape);
    let expected = case.run(&shape).out;
    let mut probs = vec![f32::NAN; 2 * 2 * 37 * 150];
    attention_probs(&shape, Heads::rows(&case.query, 37, 2, 16), Heads::rows(&case.key, 150, 1, 16), &mut probs);
    for (r, row) in probs.chunks(150).enumerate() {
        let (batch, head, i) = (r / 74, r / 37 % 2, r % 37);
        assert!((row.iter().sum::<f32>() - 1.0).abs() < 1e-5);
        assert!(row[150 - 37 + i + 1..].iter().all(|&p| p == 0.0));
        for d in 0..16 {
            let out: f32 = (0..150).map(|j| row[j] * case.value[(batch * 150 + j) * 16 + d]).sum();
            assert!((out - expected[((batch * 37 + i) * 2 + head) * 16 + d]).abs() < 1e-5);
        }
    }
}

#[test]
#[should_panic(expected = "attention: key: expected 16 elements")]
fn a_slice_that_is_too_short_is_refused() {
    let (x, mut out) = ([0.0; 16], [0.0; 16]);
    let view = |x| Heads::rows(x, 2, 2, 4);
    let shape = AttentionShape::new(1, 2, 2, 2, 4);
    attention(&shape, view(&x), view(&x[..15]), view(&x), HeadsMut::rows(&mut out, 2, 2, 4), None);
}

#[test]
#[should_panic(expected = "attention: out: expected 4 rows")]
fn a_result_of_fewer_rows_is_refused() {
    let (x, mut out) = ([0.0; 64], [0.0; 64]);
    let view = |x| Heads::rows(x, 4, 2, 4);
    let shape = AttentionShape::new(2, 2, 4, 4, 4);
    attention(&shape, view(&x), view(&x), view(&x), HeadsMut::rows(&mut out, 2, 2, 4), None);
}

/// Returns the rows of `dim` numbers of a position, in every sequence and head.
fn rows_at(x: &mut [f32], length: usize, heads: usize, dim: usize, position: usize) -> impl Iterator<Item = &mut f32> {
    let row = heads * dim;
    x.chunks_exact_mut(length * row).flat_map(move |x| &mut x[position * row..(position + 1) * row])
}

#[test]
fn a_masked_key_adds_nothing_even_if_it_is_no_number() {
    for_each_level(|level| {
        for (queries, keys, dim) in [(1, 5, 7), (3, 140, 24), (33, 40, 20), (65, 140, 16)] {
            for precision in [Precision::F32, Precision::Bf16] {
                let shape = AttentionShape { precision, ..AttentionShape::new(2, 2, queries, keys, dim) };
                let hidden = keys / 2;
                let key_mask: Vec<bool> = (0..2 * keys).map(|j| j % keys != hidden).collect();
                let keep: Vec<bool> = (0..queries * keys).map(|at| at % keys != hidden).collect();
                let add: Vec<f32> = keep.iter().map(|&keep| if keep { 0.25 } else { f32::NEG_INFINITY }).collect();
                let (batch_stride, head_stride) = (0, 0);
                let masks = [
                    AttentionShape { key_mask: Some(&key_mask), ..shape },
                    AttentionShape { mask: Mask::Keep { data: &keep, batch_stride, head_stride }, ..shape },
                    AttentionShape { mask: Mask::Add { data: &add, batch_stride, head_stride }, ..shape },
                ];
                for (m, shape) in masks.into_iter().enumerate() {
                    let mut case = Case::new(&shape);
                    let clean = case.run(&shape);
                    for bad in [f32::NAN, f32::INFINITY] {
                        rows_at(&mut case.value, keys, 2, dim, hidden).for_each(|x| *x = bad);
                        assert_eq!(case.run(&shape), clean, "{level:?} {m} {shape:?}");
                    }
                    rows_at(&mut case.key, keys, 2, dim, hidden).for_each(|x| *x = f32::NAN);
                    let found = case.run(&shape);
                    assert_eq!((&found.out, &found.lse), (&clean.out, &clean.lse), "{level:?} {m} {shape:?}");
                    if m == 0 {
                        assert_eq!(found, clean, "{level:?} {shape:?}");
                    }
                }
                // The future of a causal query.
                let shape = AttentionShape { causal: true, ..shape };
                let mut case = Case::new(&shape);
                let clean = case.run(&shape);
                rows_at(&mut case.value, keys, 2, dim, keys - 1).for_each(|x| *x = f32::NAN);
                let found = case.run(&shape);
                for (x, clean) in [(&found.out, &clean.out), (&found.dquery, &clean.dquery)] {
                    for (x, clean) in x.chunks(queries * 2 * dim).zip(clean.chunks(queries * 2 * dim)) {
                        let past = (queries - 1) * 2 * dim;
                        assert_eq!(x[..past], clean[..past], "{level:?} {shape:?}");
                        assert!(x[past..].iter().all(|x| x.is_nan()), "the last query sees it");
                    }
                }
            }
        }
    });
}
