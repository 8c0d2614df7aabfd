//! Sizes 0 to 69, odd strides, every instruction set, in memory of exactly the required length and
//! in the middle of larger memory.
//!
//! In exact memory, an address sanitizer detects accesses outside; without one, the numbers around
//! the slices do: they are NaN, so that a result computed from them is NaN, and they must be
//! unchanged afterwards.

use half::{bf16, f16};

use crate::kernels::attention::{
    AttentionShape, Heads, HeadsMut, Mask, attention, attention_backward, attention_probs,
};
use crate::kernels::blocks::tests::random_blocks;
use crate::kernels::blocks::{self, BlockFormat};
use crate::kernels::gemm::{self, Beta, Element, Epilogue, Mat, PackedB, PackedElement, Precision};
use crate::kernels::simd::{Features, features, for_each_level, with_features};
use crate::kernels::vecmath::{self, Activation};
use crate::kernels::{adagrad, logistic, row_dots};

/// Sizes around the vectors, tiles and panels of every instruction set.
const SIZES: std::ops::Range<usize> = 0..70;
/// The number of elements before and after a slice in the middle of memory.
const AROUND: usize = 80;

/// Numbers, some of which do not belong to the slice.
struct Memory<T> {
    all: Vec<T>,
    around: usize,
}

impl<T: Copy> Memory<T> {
    fn new(numbers: Vec<T>, nan: T, around: usize) -> Self {
        let guard = vec![nan; around];
        let mut all = Vec::with_capacity(numbers.len() + 2 * around);
        all.extend(guard.iter().chain(&numbers).chain(&guard));
        Self { all, around }
    }

    fn ours(&self) -> &[T] {
        &self.all[self.around..self.all.len() - self.around]
    }

    fn ours_mut(&mut self) -> &mut [T] {
        let end = self.all.len() - self.around;
        &mut self.all[self.around..end]
    }
}

impl Memory<f32> {
    /// Returns the bits of the numbers, if nothing else was written.
    fn bits(&self) -> Vec<u32> {
        let guards = [&self.all[..self.around], &self.all[self.all.len() - self.around..]];
        assert!(guards.iter().all(|guard| guard.iter().all(|x| x.is_nan())), "numbers around the result were written");
        self.ours().iter().map(|x| x.to_bits()).collect()
    }
}

/// The memory of a test case.
#[derive(Clone, Copy)]
struct Place {
    around: usize,
    seed: u32,
}

impl Place {
    fn random(&mut self, len: usize) -> Vec<f32> {
        self.seed += 1;
        vecmath::testing::random(len, self.seed)
    }

    fn input(&mut self, len: usize) -> Memory<f32> {
        let numbers = self.random(len);
        Memory::new(numbers, f32::NAN, self.around)
    }

    fn output(&self, len: usize) -> Memory<f32> {
        Memory::new(vec![0.25; len], f32::NAN, self.around)
    }
}

/// Runs a case in both kinds of memory on every instruction set, with and without its additional
/// instructions; results must be finite, and have the same bits in both.
fn everywhere(what: &str, f: impl Fn(&mut Place) -> Vec<Memory<f32>>) {
    for_each_level(|level| {
        for kept in [features(), Features::default()] {
            with_features(kept, || {
                let run = |around| f(&mut Place { around, seed: 7 }).iter().map(Memory::bits).collect::<Vec<_>>();
                let (exact, within) = (run(0), run(AROUND));
                assert!(exact == within, "{what} at {level:?}: other bits in the middle of other numbers");
                let finite = |bits: &u32| !f32::from_bits(*bits).is_nan();
                assert!(exact.iter().all(|bits| bits.iter().all(finite)), "{what} at {level:?}: NaN");
            });
            if kept == Features::default() {
                break;
            }
        }
    });
}

/// Returns three sizes, of which the first is `n`.
fn shape(n: usize) -> [usize; 3] {
    [n, (n * 13 + 5) % 70, (n * 29 + 11) % 70]
}

/// Returns a matrix with `gap` elements between its stored rows.
fn matrix<T>(data: &[T], rows: usize, cols: usize, transposed: bool, gap: usize) -> Mat<'_, T> {
    match transposed {
        true => Mat::transposed(data, rows, cols).with_ld(rows + gap),
        false => Mat::new(data, rows, cols).with_ld(cols + gap),
    }
}

/// Returns the number of elements that [`matrix`] needs.
fn len_of(rows: usize, cols: usize, transposed: bool, gap: usize) -> usize {
    let (stored, width) = if transposed { (cols, rows) } else { (rows, cols) };
    if stored * width == 0 { 0 } else { (stored - 1) * (width + gap) + width }
}

fn products<T: PackedElement + Element>(name: &str, nan: T, to: fn(f32) -> T) {
    for n in SIZES {
        for [m, k, n] in [shape(n), [shape(n)[1], n, shape(n)[2]], [n % 18, shape(n)[2], n]] {
            for (a_across, b_across, gap) in [(false, false, 0), (false, true, 3), (true, false, 5), (true, true, 0)] {
                everywhere(&format!("{name} {m} × {k} × {n}, {a_across} {b_across} {gap}"), |place| {
                    let a = place.input(len_of(m, k, a_across, gap));
                    let b = place.random(len_of(k, n, b_across, gap)).into_iter().map(to).collect();
                    let b = Memory::new(b, nan, place.around);
                    let (bias, residual) = (place.input(n), place.input(m * n));
                    let epilogue = Epilogue {
                        bias: Some(bias.ours()),
                        activation: Some(Activation::Silu),
                        residual: Some(residual.ours()),
                    };
                    let a = matrix(a.ours(), m, k, a_across, gap);
                    let b = matrix(b.ours(), k, n, b_across, gap);
                    let packed = PackedB::new(b);
                    let mut results = Vec::new();
                    for precision in [Precision::F32, Precision::Bf16] {
                        let mut c = [place.output(m * n), place.output(m * n)];
                        let [first, second] = &mut c;
                        gemm::gemm_in(precision, a, b, first.ours_mut(), Beta::One, epilogue);
                        gemm::gemm_in(precision, a, &packed, second.ours_mut(), Beta::Zero, epilogue);
                        results.extend(c);
                        let mut c = [place.output(m * n), place.output(m * n)];
                        let [first, second] = &mut c;
                        let each = vec![
                            (b.into(), first.ours_mut(), epilogue),
                            ((&packed).into(), second.ours_mut(), Epilogue::default()),
                        ];
                        gemm::gemm_each(precision, a, each);
                        results.extend(c);
                    }
                    results
                });
            }
        }
    }
}

#[test]
fn products_of_f32() {
    products("f32", f32::NAN, |x| x);
}

#[test]
fn products_of_f16() {
    products("f16", f16::NAN, f16::from_f32);
}

#[test]
fn products_of_bf16() {
    products("bf16", bf16::NAN, bf16::from_f32);
}

#[test]
fn products_of_blocks() {
    for n in SIZES {
        for (format, m) in [(BlockFormat::Q8_0, n % 18 + 1), (BlockFormat::Q4K, 1), (BlockFormat::Q6K, 18)] {
            let k = (n % 3 + 1) * format.block_len();
            everywhere(&format!("{format} {m} × {k} × {n}"), |place| {
                let a = place.input(m * k);
                let blocks = random_blocks(format, n * k / format.block_len(), 3);
                let blocks = Memory::new(blocks, 255, place.around);
                let b = gemm::Factor::blocks(format, blocks.ours(), k, n);
                let mut results = Vec::new();
                for precision in [Precision::F32, Precision::Bf16] {
                    let mut c = place.output(m * n);
                    let a = Mat::new(a.ours(), m, k);
                    gemm::gemm_in(precision, a, b, c.ours_mut(), Beta::One, Epilogue::default());
                    results.push(c);
                }
                results
            });
        }
    }
}

#[test]
fn batches_of_products() {
    for n in SIZES {
        let [m, k, n] = shape(n);
        for (across, batch, gap) in [(false, 3, 2), (true, 2, 0), (false, 1, 9)] {
            everywhere(&format!("batch of {batch}: {m} × {k} × {n}, {across}"), |place| {
                let (a_len, b_len) = (len_of(m, k, !across, gap), len_of(k, n, across, gap));
                let strides = [a_len + gap, b_len + gap];
                let [a, b] = [(a_len, strides[0]), (b_len, strides[1])]
                    .map(|(len, stride)| if len == 0 { 0 } else { (batch - 1) * stride + len })
                    .map(|len| place.input(len));
                let mut c = place.output(batch * m * n);
                let left = matrix(a.ours(), m, k, !across, gap);
                let right = matrix(b.ours(), k, n, across, gap);
                gemm::gemm_batch(batch, left, strides[0], right, strides[1], c.ours_mut(), Beta::One);
                vec![c]
            });
        }
    }
}

#[test]
fn products_of_int8() {
    for n in SIZES {
        for (m, k, n) in [(n, shape(n)[1] * 3, shape(n)[2]), (shape(n)[1], n, shape(n)[2]), (1, n * 5, n)] {
            everywhere(&format!("int8 {m} × {k} × {n}"), |place| {
                let a: Vec<u8> = place.random(m * k).iter().map(|x| (x * 127.0) as i8 as u8).collect();
                let b: Vec<i8> = place.random(n * k).iter().map(|x| (x * 127.0) as i8).collect();
                let (a, b) = (Memory::new(a, 255, place.around), Memory::new(b, -128, place.around));
                let signed: Vec<i8> = a.ours().iter().map(|&x| x as i8).collect();
                let mut c = Memory::new(vec![7; m * n], -1, place.around);
                let mut d = Memory::new(vec![7; m * n], -1, place.around);
                gemm::gemm_int8(a.ours(), b.ours(), c.ours_mut(), (m, k, n));
                gemm::gemm_int8(&signed, b.ours(), d.ours_mut(), (m, k, n));
                let dot = if m > 0 && n > 0 { gemm::dot_int8(&a.ours()[..k], &b.ours()[..k]) } else { 0 };
                [c, d, Memory::new(vec![dot], -1, place.around)]
                    .map(|c: Memory<i32>| {
                        let around = &c.all[..c.around];
                        assert!(around.iter().all(|&x| x == -1) && c.all[c.all.len() - c.around..] == *around);
                        let numbers = c.ours().iter().map(|&x| x as f32).collect();
                        Memory::new(numbers, f32::NAN, place.around)
                    })
                    .into()
            });
        }
    }
}

/// Returns the length of strided heads, up to the last element that is read.
fn heads_len(shape: [usize; 4], strides: [usize; 3]) -> usize {
    let [batch, length, heads, dim] = shape;
    if shape.contains(&0) {
        return 0;
    }
    (batch - 1) * strides[0] + (length - 1) * strides[1] + (heads - 1) * strides[2] + dim
}

fn view(x: &Memory<f32>, [batch, row, head]: [usize; 3]) -> Heads<'_> {
    Heads::strided(x.ours(), batch, row, head)
}

#[test]
fn attentions() {
    for n in SIZES {
        for (queries, keys, dim) in [(n, n + 3, shape(n)[1]), (1, 3 * n, n), (n % 5, n, shape(n)[2]), (n, 140, 3)] {
            let (batch, heads, kv_heads) = (2, 2, 1);
            for precision in [Precision::F32, Precision::Bf16] {
                everywhere(&format!("attention of {queries} to {keys} of {dim}, {precision:?}"), |place| {
                    let strides = |length: usize, heads: usize| {
                        let row = heads * (dim + 1) + 2;
                        [length * row + 5, row, dim + 1]
                    };
                    let (of_q, of_k) = (strides(queries, heads), strides(keys, kv_heads));
                    let (q_shape, k_shape) = ([batch, queries, heads, dim], [batch, keys, kv_heads, dim]);
                    let q = [(); 3].map(|()| place.input(heads_len(q_shape, of_q)));
                    let k = [(); 2].map(|()| place.input(heads_len(k_shape, of_k)));
                    let added = place.input(queries * keys);
                    let mask = Mask::Add { data: added.ours(), batch_stride: 0, head_stride: 0 };
                    let lengths = [keys, keys.min(1)];
                    let shape = AttentionShape {
                        n_kv_heads: kv_heads,
                        causal: keys >= queries,
                        window: (keys >= queries && n % 3 == 0).then_some(5),
                        key_lengths: Some(&lengths),
                        mask: if n % 2 == 0 { mask } else { Mask::None },
                        precision,
                        ..AttentionShape::new(batch, heads, queries, keys, dim)
                    };
                    let mut out = place.output(batch * queries * heads * dim);
                    let mut lse = place.output(batch * heads * queries);
                    let (query, key, value) = (view(&q[0], of_q), view(&k[0], of_k), view(&k[1], of_k));
                    let written = HeadsMut::rows(out.ours_mut(), queries, heads, dim);
                    attention(&shape, query, key, value, written, Some(lse.ours_mut()));
                    let mut d = [queries * heads, keys * kv_heads, keys * kv_heads]
                        .map(|rows| place.output(batch * rows * dim));
                    let [dq, dk, dv] = &mut d;
                    attention_backward(
                        &shape,
                        view(&q[1], of_q),
                        query,
                        key,
                        value,
                        view(&q[2], of_q),
                        lse.ours(),
                        HeadsMut::rows(dq.ours_mut(), queries, heads, dim),
                        HeadsMut::rows(dk.ours_mut(), keys, kv_heads, dim),
                        HeadsMut::rows(dv.ours_mut(), keys, kv_heads, dim),
                    );
                    let mut probs = place.output(batch * heads * queries * keys);
                    attention_probs(&shape, query, key, probs.ours_mut());
                    // Pages: the positions of a sequence in pieces of the exact length.
                    let row = kv_heads * dim;
                    let pages: Vec<Memory<f32>> = (0..batch)
                        .flat_map(|_| (0..keys).step_by(128).map(|from| 128.min(keys - from) * row).collect::<Vec<_>>())
                        .map(|len| place.input(len))
                        .collect();
                    let slices: Vec<&[f32]> = pages.iter().map(Memory::ours).collect();
                    let per = keys.div_ceil(128);
                    let first = [0, per, 2 * per];
                    let paged = Heads::paged(&slices, &first, kv_heads, dim);
                    let mut from_pages = place.output(batch * queries * heads * dim);
                    let written = HeadsMut::rows(from_pages.ours_mut(), queries, heads, dim);
                    attention(&shape, query, paged, paged, written, None);
                    let mut results = vec![out, lse, probs, from_pages];
                    results.extend(d);
                    results
                });
            }
        }
    }
}

#[test]
fn rows_and_elements() {
    for n in SIZES {
        let (rows, cols) = (n % 7 + 1, n);
        everywhere(&format!("rows of {n}"), |place| {
            let len = rows * cols;
            let [x, dy, third] = [(); 3].map(|()| place.input(len));
            let (weight, bias) = (place.input(cols), place.input(cols));
            let mut results = Vec::new();
            let mut each = |f: &mut dyn FnMut(&mut [f32])| {
                let mut y = place.output(len);
                f(y.ours_mut());
                results.push(y);
            };
            let (x, dy, third, weight, bias) = (x.ours(), dy.ours(), third.ours(), weight.ours(), bias.ours());
            each(&mut |y| vecmath::add(x, dy, y));
            each(&mut |y| vecmath::axpy(0.5, x, y));
            each(&mut |y| vecmath::mul_add_assign(x, dy, y));
            each(&mut |y| vecmath::scale(0.5, y));
            each(&mut |y| vecmath::exp(x, y));
            each(&mut |y| vecmath::erf(x, y));
            each(&mut |y| vecmath::tanh(x, y));
            each(&mut |y| vecmath::sigmoid(x, y));
            each(&mut |y| vecmath::activation(Activation::Gelu, x, y));
            each(&mut |y| vecmath::activation_backward(Activation::GeluTanh, dy, x, y));
            each(&mut |y| vecmath::dropout(x, 0.3, 1, u64::MAX - 3, y));
            each(&mut |y| vecmath::softmax(x, cols, y));
            each(&mut |y| vecmath::softmax_backward(dy, third, cols, y));
            each(&mut |y| vecmath::log_softmax(x, cols, y));
            each(&mut |y| vecmath::log_softmax_backward(dy, third, cols, y));
            each(&mut |y| vecmath::add_row(x, bias, y));
            each(&mut |y| vecmath::mul_row(x, bias, y));
            each(&mut |y| {
                let (mut mean, mut rstd) = (vec![0.0; rows], vec![0.0; rows]);
                vecmath::layer_norm(x, Some(weight), Some(bias), 1e-5, y, &mut mean, &mut rstd);
                let (mut dw, mut db) = (vec![0.0; cols], vec![0.0; cols]);
                vecmath::layer_norm_backward(dy, x, None, &mean, &rstd, y, Some(&mut dw), Some(&mut db));
            });
            each(&mut |y| {
                let mut rstd = vec![0.0; rows];
                vecmath::rms_norm(x, weight, 1e-5, y, &mut rstd);
                vecmath::rms_norm_backward(dy, x, weight, &rstd, y, Some(&mut vec![0.0; cols]));
            });
            each(&mut |y| {
                let ids: Vec<u32> = (0..rows as u32).rev().collect();
                vecmath::gather(x, cols, &ids, y);
                vecmath::scatter_add(dy, cols, &ids, y);
            });
            each(&mut |y| {
                let mut sums = vec![0.0; cols];
                vecmath::sum_rows(x, cols, &mut sums, false);
                assert!((vecmath::sum(x) - sums.iter().map(|&s| f64::from(s)).sum::<f64>()).abs() < 1e-3);
                assert!(vecmath::dot(x, dy).is_finite() && vecmath::sum_squares(x).is_finite());
                assert!(x.is_empty() || vecmath::max(x) == x[vecmath::argmax(x).unwrap()]);
                if cols > 0 {
                    let (labels, mut losses, mut lse) = (vec![0; rows], vec![0.0; rows], vec![0.0; rows]);
                    vecmath::cross_entropy(x, cols, &labels, None, 0.1, None, &mut losses, &mut lse);
                    vecmath::cross_entropy_backward(x, &lse, cols, &labels, None, 0.1, None, &[1.0], y);
                }
            });
            each(&mut |y| {
                let (mut half, mut brain) = (vec![f16::ZERO; len], vec![bf16::ZERO; len]);
                vecmath::f32_to_f16(x, &mut half);
                vecmath::f32_to_bf16(x, &mut brain);
                vecmath::f16_to_f32(&half, y);
                vecmath::bf16_to_f32(&brain, y);
                row_dots::row_dots(&x[..cols], &half, &mut vec![0.0; rows]);
                row_dots::row_dots(&x[..cols], &vec![1i8; len], &mut vec![0.0; rows]);
            });
            each(&mut |y| {
                let mut momentum = vec![0.0; len];
                let sgd = vecmath::Sgd { lr: 0.1, momentum: 0.9, weight_decay: 0.1, nesterov: true, dampening: 0.0 };
                vecmath::sgd_step(&sgd, 1.0, y, x, &mut momentum);
                let adam = vecmath::Adam { lr: 0.1, betas: (0.9, 0.99), eps: 1e-8, weight_decay: 0.1, decoupled: true };
                vecmath::adam_step(&adam, 1, 1.0, y, x, &mut momentum, &mut vec![0.0; len], &mut vec![0.0; len]);
            });
            for interleaved in [false, true] {
                each(&mut |y| {
                    let rot_dim = cols / 2 * 2;
                    let positions: Vec<u32> = (0..if cols == 0 { 0 } else { rows as u32 }).collect();
                    let tables = vec![0.6; rows * rot_dim / 2];
                    vecmath::rope(y, 1, cols, rot_dim, &tables, &tables, &positions, interleaved, false);
                });
            }
            results
        });
    }
}

#[test]
fn cells_and_steps_of_word_vectors() {
    for n in SIZES {
        everywhere(&format!("cells of {n}"), |place| {
            let rows = n % 4 + 1;
            let of = |place: &mut Place, gates: usize| place.input(rows * gates * n);
            let mut results = Vec::new();
            let (mut gates, c_prev) = (of(place, 4), of(place, 1));
            let (mut c, mut h, mut dgates) = (of(place, 1), of(place, 1), of(place, 4));
            vecmath::lstm_step(n, gates.ours_mut(), c_prev.ours(), c.ours_mut(), h.ours_mut());
            let mut dc = of(place, 1);
            let (dc_now, dg) = (dc.ours_mut(), dgates.ours_mut());
            vecmath::lstm_step_backward(n, h.ours(), gates.ours(), c_prev.ours(), c.ours(), dc_now, dg);
            results.extend([gates, c, h, dc, dgates]);
            let (products, h_prev) = (of(place, 3), of(place, 1));
            let (mut gates, mut kept, mut h) = (of(place, 3), of(place, 1), of(place, 1));
            let (g, k) = (gates.ours_mut(), kept.ours_mut());
            vecmath::gru_step(n, products.ours(), h_prev.ours(), g, k, h.ours_mut());
            let (mut dgates, mut dproducts) = (of(place, 3), of(place, 3));
            let (dg, dp) = (dgates.ours_mut(), dproducts.ours_mut());
            vecmath::gru_step_backward(n, gates.ours(), kept.ours(), h_prev.ours(), h.ours_mut(), dg, dp);
            results.extend([gates, kept, h, dgates, dproducts]);

            let width = logistic::padded(n.max(1));
            for m in [0, 1, n % 7, 6] {
                let outputs = n % 20;
                let (x, y) = (place.input(m.min(6) * width), place.input(outputs * width));
                let labels = vec![1.0; outputs];
                let (mut dx, mut dy) = (place.output(x.ours().len()), place.output(y.ours().len()));
                let (dx_now, dy_now) = (dx.ours_mut(), dy.ours_mut());
                logistic::logistic(width, x.ours(), y.ours(), &labels, 0.1, &mut Vec::new(), dx_now, dy_now);
                results.extend([dx, dy]);
            }
            let mut pair = [place.input(adagrad::row_len(n)), place.input(adagrad::row_len(n))];
            pair.iter_mut().for_each(|row| row.ours_mut()[n + 1..].fill(1.0));
            let [x, y] = &mut pair;
            adagrad::adagrad_pair(n, x.ours_mut(), y.ours_mut(), 0.5, 1.0, 0.05);
            results.extend(pair);
            results
        });
    }
}

#[test]
fn blocks_of_every_format() {
    for format in BlockFormat::ALL {
        for n in 0..5 {
            everywhere(&format!("{n} blocks of {format}"), |place| {
                let len = n * format.block_len();
                let mut y = place.output(len);
                let mut bytes = vec![0x11; format.bytes_for(len)].into_boxed_slice();
                if format == BlockFormat::Q8_0 {
                    blocks::quantize_q8_0(place.input(len).ours(), &mut bytes);
                }
                blocks::dequantize(format, &bytes, y.ours_mut());
                vec![y]
            });
        }
    }
}
