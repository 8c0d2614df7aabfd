use half::{bf16, f16};

use super::*;
use crate::kernels::blocks::tests::random_blocks;
use crate::kernels::blocks::{self, BlockFormat};
use crate::kernels::simd::{Level, features, for_each_kernel, for_each_level, level, with_features, with_level};
use crate::kernels::vecmath;

/// Random numbers in (-1, 1), determined by `seed`.
fn random(len: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    (0..len).map(|_| next()).collect()
}

/// Returns the transpose of a `rows` × `cols` matrix.
fn transpose(x: &[f32], rows: usize, cols: usize) -> Vec<f32> {
    (0..cols * rows).map(|i| x[i % rows * cols + i / rows]).collect()
}

/// Computes one step of the chain at the current level.
fn step(a: f32, b: f32, c: f32) -> f32 {
    if level() == Level::Portable { a * b + c } else { a.mul_add(b, c) }
}

/// The definition: each element is one chain in ascending `p`.
fn naive(a: &[f32], b: &[f32], c: &mut [f32], (m, k, n): (usize, usize, usize), beta: Beta) {
    for i in 0..m {
        for j in 0..n {
            let mut sum = if beta == Beta::One { c[i * n + j] } else { 0.0 };
            for p in 0..k {
                sum = step(a[i * k + p], b[p * n + j], sum);
            }
            c[i * n + j] = sum;
        }
    }
}

fn assert_same_bits(found: &[f32], expected: &[f32], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (i, (x, y)) in found.iter().zip(expected).enumerate() {
        assert_eq!(x.to_bits(), y.to_bits(), "{what}: element {i}: {x} and {y}");
    }
}

/// Sizes around the edges of tiles and blocks.
const SHAPES: [(usize, usize, usize); 24] = [
    (0, 3, 3),
    (3, 0, 5),
    (3, 3, 0),
    (1, 1, 1),
    (1, 17, 33),
    (1, 5, 128),
    (2, 385, 31),
    (3, 64, 32),
    (4, 16, 16),
    (5, 15, 17),
    (6, 33, 48),
    (7, 31, 15),
    (8, 8, 8),
    (12, 100, 64),
    (13, 383, 65),
    (14, 384, 96),
    (15, 385, 63),
    (16, 17, 31),
    (17, 769, 40),
    (28, 50, 513),
    (29, 20, 545),
    (64, 64, 64),
    (83, 70, 100),
    (130, 129, 131),
];

fn layouts<'a>(
    a: &'a [f32],
    at: &'a [f32],
    b: &'a [f32],
    bt: &'a [f32],
    (m, k, n): (usize, usize, usize),
) -> [(&'static str, Mat<'a>, Mat<'a>); 4] {
    let (a, at) = (Mat::new(a, m, k), Mat::transposed(at, m, k));
    let (b, bt) = (Mat::new(b, k, n), Mat::transposed(bt, k, n));
    [("NN", a, b), ("NT", a, bt), ("TN", at, b), ("TT", at, bt)]
}

#[test]
fn every_layout_is_the_ascending_chain_bit_for_bit() {
    for_each_level(|level| {
        for shape @ (m, k, n) in SHAPES {
            let (a, b) = (random(m * k, 1), random(k * n, 2));
            let (at, bt) = (transpose(&a, m, k), transpose(&b, k, n));
            for beta in [Beta::Zero, Beta::One] {
                let start = random(m * n, 3);
                let mut expected = start.clone();
                naive(&a, &b, &mut expected, shape, beta);
                for (name, a, b) in layouts(&a, &at, &b, &bt, shape) {
                    let mut c = start.clone();
                    gemm(a, b, &mut c, beta, Epilogue::default());
                    assert_same_bits(&c, &expected, &format!("{name} {shape:?} {beta:?} {level:?}"));
                }
            }
        }
    });
}

#[test]
fn bias_activation_and_residual_follow_the_product_in_this_order() {
    use Activation::*;
    for_each_level(|level| {
        let activations = [None, Some(Relu), Some(Gelu), Some(GeluTanh), Some(Silu), Some(Sigmoid), Some(Tanh)];
        let shapes = [(1, 5, 300), (3, 400, 33), (20, 0, 7), (40, 390, 600)];
        for (shape @ (m, k, n), activation) in shapes.into_iter().flat_map(|s| activations.map(|a| (s, a))) {
            let (a, b) = (random(m * k, 1), random(k * n, 2));
            let (bias, residual) = (random(n, 4), random(m * n, 5));
            let mut expected = vec![0.0; m * n];
            naive(&a, &b, &mut expected, shape, Beta::Zero);
            for row in expected.chunks_mut(n) {
                row.iter_mut().zip(&bias).for_each(|(y, x)| *y += x);
            }
            if let Some(activation) = activation {
                let before = expected.clone();
                vecmath::activation(activation, &before, &mut expected);
            }
            expected.iter_mut().zip(&residual).for_each(|(y, x)| *y += x);
            let epilogue = Epilogue { bias: Some(&bias), activation, residual: Some(&residual) };
            let mut c = vec![f32::NAN; m * n];
            gemm(Mat::new(&a, m, k), Mat::new(&b, k, n), &mut c, Beta::Zero, epilogue);
            assert_same_bits(&c, &expected, &format!("{shape:?} {activation:?} {level:?}"));
        }
    });
}

#[test]
fn a_window_of_wider_rows_is_used_in_place() {
    let (m, k, n) = (19, 40, 50);
    let (wide_a, wide_b) = (random(m * 64, 1), random(n * 70, 2));
    let a: Vec<f32> = (0..m * k).map(|i| wide_a[i / k * 64 + i % k]).collect();
    let b: Vec<f32> = (0..k * n).map(|i| wide_b[i % n * 70 + i / n]).collect();
    let mut expected = vec![0.0; m * n];
    naive(&a, &b, &mut expected, (m, k, n), Beta::Zero);
    let mut c = vec![0.0; m * n];
    let (a, b) = (Mat::new(&wide_a, m, k).with_ld(64), Mat::transposed(&wide_b, k, n).with_ld(70));
    gemm(a, b, &mut c, Beta::Zero, Epilogue::default());
    assert_same_bits(&c, &expected, "windows");
}

#[test]
fn a_batch_is_its_products_one_by_one() {
    for_each_level(|level| {
        for (batch, m, k, n) in [(0, 2, 3, 4), (1, 40, 40, 40), (3, 1, 300, 70), (5, 33, 20, 47), (12, 64, 64, 64)] {
            let (a, b) = (random(batch * m * k, 1), random(k * n, 2));
            let start = random(batch * m * n, 3);
            let mut expected = start.clone();
            for (i, c) in expected.chunks_mut(m * n).enumerate() {
                naive(&a[i * m * k..(i + 1) * m * k], &b, c, (m, k, n), Beta::One);
            }
            let mut c = start.clone();
            gemm_batch(batch, Mat::new(&a, m, k), m * k, Mat::new(&b, k, n), 0, &mut c, Beta::One);
            assert_same_bits(&c, &expected, &format!("{batch} of {m} × {k} × {n} {level:?}"));
        }
    });
}

/// A matrix in all its forms: f32, f16 and bf16, each stored as it is, transposed, and packed.
#[test]
fn half_precision_and_packing_change_no_bit() {
    fn check<T: PackedElement>(b: &[T], wide: &[f32], shape: (usize, usize, usize), name: &str) {
        let (m, k, n) = shape;
        let a = random(m * k, 1);
        let mut expected = random(m * n, 3);
        let start = expected.clone();
        naive(&a, wide, &mut expected, shape, Beta::One);
        let bt: Vec<T> = (0..n * k).map(|i| b[i % k * n + i / k]).collect();
        let (a, b, bt) = (Mat::new(&a, m, k), Mat::new(b, k, n), Mat::transposed(&bt, k, n));
        let results = [
            ("in place", gemm as fn(_, _, &mut [f32], _, _), b),
            ("transposed", gemm, bt),
            ("packed", |a, b, c: &mut [f32], beta, e| gemm(a, &PackedB::new(b), c, beta, e), b),
            ("transposed and packed", |a, b, c: &mut [f32], beta, e| gemm(a, &PackedB::new(b), c, beta, e), bt),
        ];
        for (how, product, b) in results {
            let mut c = start.clone();
            product(a, b, &mut c, Beta::One, Epilogue::default());
            assert_same_bits(&c, &expected, &format!("{name} {how} {shape:?} {:?}", level()));
        }
    }
    for_each_level(|_| {
        for shape @ (_, k, n) in SHAPES {
            let b = random(k * n, 2);
            check(&b, &b, shape, "f32");
            let half: Vec<f16> = b.iter().map(|&x| f16::from_f32(x)).collect();
            let wide: Vec<f32> = half.iter().map(|x| x.to_f32()).collect();
            check(&half, &wide, shape, "f16");
            let half: Vec<bf16> = b.iter().map(|&x| bf16::from_f32(x)).collect();
            let wide: Vec<f32> = half.iter().map(|x| x.to_f32()).collect();
            check(&half, &wide, shape, "bf16");
        }
    });
}

#[test]
fn blocks_give_the_bits_of_their_numbers_in_f32() {
    for format in BlockFormat::ALL {
        let unit = format.block_len();
        // Several parts of a column, and blocks of k, for each length of a block.
        let long = matches!(format, BlockFormat::Q5_1 | BlockFormat::Q4K);
        let shapes = [(1, unit), (33, 0), (70, 2 * unit), (40, 2304)];
        for (n, k) in shapes.into_iter().take(if long { 4 } else { 3 }) {
            let (data, bias) = (random_blocks(format, n * k / unit, 5), random(n, 3));
            let mut wide = vec![0.0; n * k];
            blocks::dequantize(format, &data, &mut wide);
            for_each_kernel(|| {
                for m in [1, 9, 17, 40] {
                    let (a, residual) = (random(m * k, 1), random(m * n, 4));
                    let activation = Some(Activation::Silu);
                    let epilogue = Epilogue { bias: Some(&bias), activation, residual: Some(&residual) };
                    for (precision, beta) in [(Precision::F32, Beta::One), (Precision::Bf16, Beta::Zero)] {
                        let product = |b: Factor<'_>| {
                            let mut c = vec![0.5; m * n];
                            gemm_in(precision, Mat::new(&a, m, k), b, &mut c, beta, epilogue);
                            c
                        };
                        let expected = product(Mat::transposed(&wide, k, n).into());
                        let found = product(Factor::blocks(format, &data, k, n));
                        assert_same_bits(&found, &expected, &format!("{m} × {k} × {n} in {format}, {precision:?}"));
                    }
                }
            });
        }
    }
}

#[test]
#[should_panic(expected = "B is 32 × 2 in Q8_0")]
fn blocks_of_another_number_are_refused() {
    let _ = Factor::blocks(BlockFormat::Q8_0, &[0; 35], 32, 2);
}

#[test]
fn neither_threads_nor_neighbouring_rows_change_a_bit() {
    for_each_level(|level| {
        for (m, k, n) in [(1, 700, 900), (5, 1000, 333), (16, 300, 700), (65, 400, 530), (300, 129, 257)] {
            let (a, b) = (random(m * k, 1), random(k * n, 2));
            let product = |rows: std::ops::Range<usize>| {
                let mut c = vec![0.0; rows.len() * n];
                let a = Mat::new(&a[rows.start * k..rows.end * k], rows.len(), k);
                gemm(a, Mat::new(&b, k, n), &mut c, Beta::Zero, Epilogue::default());
                c
            };
            let expected = product(0..m);
            for threads in 1..=4 {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a few threads");
                let c = pool.install(|| with_level(level, || product(0..m)));
                assert_same_bits(&c, &expected, &format!("{m} × {k} × {n}, {threads} threads, {level:?}"));
            }
            for i in [0, m / 2, m - 1] {
                assert_same_bits(&product(i..i + 1), &expected[i * n..(i + 1) * n], "a row alone");
            }
        }
    });
}

#[test]
#[should_panic(expected = "C is 2 × 4")]
fn a_result_of_another_size_is_refused() {
    gemm(Mat::new(&[0.0; 6], 2, 3), Mat::new(&[0.0; 12], 3, 4), &mut [0.0; 7], Beta::Zero, Epilogue::default());
}

#[test]
#[should_panic(expected = "A is 2 × 3, B is 2 × 4")]
fn shapes_that_do_not_meet_are_refused() {
    gemm(Mat::new(&[0.0; 6], 2, 3), Mat::new(&[0.0; 8], 2, 4), &mut [0.0; 8], Beta::Zero, Epilogue::default());
}

#[test]
#[should_panic(expected = "expected 6 elements")]
fn a_slice_that_is_too_short_is_refused() {
    gemm(Mat::new(&[0.0; 5], 2, 3), Mat::new(&[0.0; 12], 3, 4), &mut [0.0; 8], Beta::Zero, Epilogue::default());
}

#[test]
fn rounded_products_are_close_and_the_same_alone_packed_or_shared() {
    for_each_kernel(|| {
        let (level, kept) = (level(), features());
        for shape @ (m, k, n) in SHAPES {
            let (a, b, start) = (random(m * k, 1), random(k * n, 2), random(m * n, 3));
            let (at, bt) = (transpose(&a, m, k), transpose(&b, k, n));
            let product = |a, b, c: &mut [f32]| gemm_in(Precision::Bf16, a, b, c, Beta::One, Epilogue::default());
            let mut expected = start.clone();
            product(Mat::new(&a, m, k), Mat::new(&b, k, n), &mut expected);
            for i in 0..m {
                for j in 0..n {
                    let terms = (0..k).map(|p| a[i * k + p] as f64 * b[p * n + j] as f64);
                    let (sum, size) = terms.fold((start[i * n + j] as f64, 1.0), |(s, t), x| (s + x, t + x.abs()));
                    let error = (expected[i * n + j] as f64 - sum).abs();
                    assert!(error <= size / 128.0, "{shape:?} {kept:?} [{i}, {j}]: error {error} of {size}");
                }
            }
            for (name, a, b) in layouts(&a, &at, &b, &bt, shape) {
                let mut c = start.clone();
                product(a, b, &mut c);
                assert_same_bits(&c, &expected, &format!("{name} {shape:?} {kept:?}"));
            }
            for i in [0, m / 2].into_iter().filter(|&i| i < m) {
                let mut row = start[i * n..(i + 1) * n].to_vec();
                product(Mat::new(&a[i * k..(i + 1) * k], 1, k), Mat::new(&b, k, n), &mut row);
                assert_same_bits(&row, &expected[i * n..(i + 1) * n], &format!("row {i} of {shape:?} {kept:?}"));
            }
            for threads in 1..=4 {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a few threads");
                let mut c = start.clone();
                let (a, b) = (Mat::new(&a, m, k), Mat::new(&b, k, n));
                pool.install(|| with_level(level, || with_features(kept, || product(a, b, &mut c))));
                assert_same_bits(&c, &expected, &format!("{threads} threads {shape:?} {kept:?}"));
            }
            if kept.avx512_bf16 {
                let half: Vec<bf16> = b.iter().map(|&x| bf16::from_f32(x)).collect();
                let half_t: Vec<bf16> = bt.iter().map(|&x| bf16::from_f32(x)).collect();
                for (name, half) in [("N", Mat::new(&half, k, n)), ("T", Mat::transposed(&half_t, k, n))] {
                    let (mut c, a) = (start.clone(), Mat::new(&a, m, k));
                    gemm_in(Precision::Bf16, a, half, &mut c, Beta::One, Epilogue::default());
                    assert_same_bits(&c, &expected, &format!("halves {name} {shape:?} {kept:?}"));
                }
                for packed in [PackedB::new(Mat::new(&half, k, n)), PackedB::new(Mat::new(&b, k, n))] {
                    let mut c = start.clone();
                    gemm_in(Precision::Bf16, Mat::new(&a, m, k), &packed, &mut c, Beta::One, Epilogue::default());
                    assert_same_bits(&c, &expected, &format!("{packed:?} {m} {kept:?}"));
                }
            }
        }
    });
}

#[test]
fn products_with_one_left_factor_have_the_bits_of_each_alone() {
    let k = 70;
    let w: Vec<f32> = random(k * 500, 2);
    let half: Vec<f16> = w.iter().map(|&x| f16::from_f32(x)).collect();
    for_each_kernel(|| {
        for m in [0, 1, 5, 16, 40] {
            let (a, bias, residual) = (random(m * k, 1), random(500, 3), random(m * 500, 4));
            let a = Mat::new(&a, m, k);
            let packed = PackedB::new(Mat::transposed(&half, k, 500));
            let factors: [Factor<'_>; 3] =
                [Mat::transposed(&w[..33 * k], k, 33).into(), (&packed).into(), Mat::new(&w[..0], k, 0).into()];
            let epilogues = [
                Epilogue::default(),
                Epilogue { bias: Some(&bias), activation: Some(Activation::Silu), residual: Some(&residual) },
                Epilogue::default(),
            ];
            for precision in [Precision::F32, Precision::Bf16] {
                let mut each = [vec![9.0; m * 33], vec![9.0; m * 500], vec![]];
                let [x, y, z] = &mut each;
                let [f, g, h] = factors;
                let [d, e, _] = epilogues;
                gemm_each(precision, a, vec![(f, &mut x[..], d), (g, y, e), (h, z, d)]);
                for i in 0..3 {
                    let mut alone = vec![9.0; each[i].len()];
                    gemm_in(precision, a, factors[i], &mut alone, Beta::Zero, epilogues[i]);
                    assert_same_bits(&each[i], &alone, &format!("{m} rows, {i}, {precision:?}, {:?}", features()));
                }
            }
        }
    });
}

#[test]
fn packed_right_factors_side_by_side_have_the_bits_of_each_alone() {
    let (k, widths) = (900, [33, 700, 0, 64]);
    let w: Vec<f32> = random(k * 700, 2);
    let half: Vec<bf16> = w.iter().map(|&x| bf16::from_f32(x)).collect();
    let packed = widths.map(|n| PackedB::new(Mat::new(&w[..k * n], k, n)));
    let packed_half = widths.map(|n| PackedB::new(Mat::new(&half[..k * n], k, n)));
    for_each_kernel(|| {
        for (m, (precision, packed)) in [17, 129, 600]
            .into_iter()
            .flat_map(|m| [(m, (Precision::F32, &packed)), (m, (Precision::Bf16, &packed_half))])
        {
            let (a, bias) = (random(m * k, 1), random(700, 3));
            let a = Mat::new(&a, m, k);
            let epilogue = |n: usize| Epilogue { bias: Some(&bias[..n]), ..Epilogue::default() };
            let mut each = widths.map(|n| vec![9.0; m * n]);
            let products = packed.iter().zip(&mut each);
            gemm_each(precision, a, products.map(|(b, c)| (b.into(), &mut c[..], epilogue(b.cols()))));
            for (b, c) in packed.iter().zip(&each) {
                let mut alone = vec![9.0; c.len()];
                gemm_in(precision, a, b, &mut alone, Beta::Zero, epilogue(b.cols()));
                assert_same_bits(c, &alone, &format!("{m} rows, {b:?}, {precision:?}, {:?}", features()));
            }
        }
    });
}
