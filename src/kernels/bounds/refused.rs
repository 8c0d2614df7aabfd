//! Lengths and strides near the largest `usize`. These tests are compiled with overflow checks, so
//! arithmetic that would wrap in a release build causes a panic of its own, which is not counted as
//! a refusal.

use std::panic::{AssertUnwindSafe, catch_unwind};

use half::{bf16, f16};

use crate::kernels::attention::{
    self, AttentionShape, Heads, HeadsMut, Mask, attention, attention_backward, attention_probs,
};
use crate::kernels::blocks::{self, BlockFormat};
use crate::kernels::gemm::{self, Beta, Epilogue, Mat, PackedB, Precision, gemm, gemm_batch, gemm_each, gemm_int8};
use crate::kernels::parallel::{Parts, chunk_len};
use crate::kernels::{adagrad, logistic, row_dots, vecmath};

const MAX: usize = usize::MAX;
/// Twice this wraps to 0.
const HALF: usize = 1 << (usize::BITS - 1);
/// The square of this wraps to 0.
const ROOT: usize = 1 << (usize::BITS / 2);

/// Checks that `f` panics with a message that contains `expected`: one of this crate, not one of an
/// arithmetic overflow.
#[track_caller]
fn refused(expected: &str, f: impl FnOnce()) {
    let Err(panic) = catch_unwind(AssertUnwindSafe(f)) else { panic!("expected a refusal by `{expected}`") };
    let message = panic.downcast_ref::<String>().cloned();
    let message = message.or_else(|| panic.downcast_ref::<&str>().map(|s| s.to_string())).unwrap_or_default();
    assert!(message.contains(expected), "expected a refusal by `{expected}`, found: {message}");
}

#[test]
fn products_of_extreme_shapes() {
    let x = [1.0f32; 16];
    let product = |a: Mat<'_>, b: Mat<'_>, len: usize| gemm(a, b, &mut vec![0.0; len], Beta::Zero, Epilogue::default());
    for far in [MAX, HALF, MAX / 2, MAX - 3] {
        refused("gemm: A", || product(Mat::new(&x, 3, 4).with_ld(far), Mat::new(&x, 4, 4), 12));
        refused("gemm: A", || product(Mat::transposed(&x, 4, 3).with_ld(far), Mat::new(&x, 3, 4), 16));
        refused("gemm: B", || product(Mat::new(&x, 4, 4), Mat::new(&x, 4, 3).with_ld(far), 12));
        refused("gemm: B", || product(Mat::new(&x, 4, 4), Mat::transposed(&x, 4, 3).with_ld(far), 12));
        refused("gemm: B", || product(Mat::new(&x, 4, 4), Mat::new(&x, 4, far), 16));
        refused("gemm: A", || product(Mat::new(&x, 1, far), Mat::new(&[], far, 0), 0));
        refused("PackedB", || drop(PackedB::new(Mat::new(&x, 3, 4).with_ld(far))));
        refused("PackedB", || drop(PackedB::new(Mat::transposed(&[f16::ONE; 16], 4, 3).with_ld(far))));
        refused("PackedB", || drop(PackedB::new(Mat::new(&[bf16::ONE; 16], far, 2))));
        refused("with_packed", || gemm::with_packed(Mat::new(&x, 3, 4).with_ld(far), |_| ()));
        for strides in [(far, 0), (0, far), (far, far)] {
            let expected = if strides.0 == 0 { "gemm_batch: B" } else { "gemm_batch: A" };
            let (a, b) = (Mat::new(&x, 2, 2), Mat::new(&x, 2, 2));
            refused(expected, || gemm_batch(3, a, strides.0, b, strides.1, &mut [0.0; 12], Beta::Zero));
        }
    }
    // Sizes whose product wraps to that of an empty result, or to one.
    let none = Mat::new(&[], 0, 0);
    refused("gemm: C", || product(Mat::new(&[], ROOT, 0), Mat::new(&[], 0, ROOT), 0));
    refused("gemm: C", || product(Mat::new(&[], MAX, 0), Mat::new(&[], 0, MAX), 1));
    refused("gemm_batch: C", || gemm_batch(HALF, Mat::new(&[], 2, 0), 0, Mat::new(&[], 0, 1), 0, &mut [], Beta::Zero));
    refused("gemm: C", || {
        let products = vec![(Mat::new(&[] as &[f32], 0, ROOT).into(), &mut [][..], Epilogue::default())];
        gemm_each(Precision::Bf16, Mat::new(&[], ROOT, 0), products);
    });
    refused("gemm_int8: A", || gemm_int8(&[] as &[u8], &[], &mut [], (ROOT, ROOT, 1)));
    refused("gemm_int8: B", || gemm_int8(&[] as &[i8], &[], &mut [], (0, ROOT, ROOT)));
    refused("gemm_int8: C", || gemm_int8(&[] as &[i8], &[], &mut [], (ROOT, 0, ROOT)));
    let residual = Epilogue { residual: Some(&[]), ..Epilogue::default() };
    refused("gemm: C", || gemm(Mat::new(&[], HALF, 0), Mat::new(&[] as &[f32], 0, 2), &mut [], Beta::Zero, residual));

    // Nothing to write: any other size is valid, and nothing is done.
    product(Mat::new(&[], 0, MAX), Mat::new(&x, MAX, 0), 0);
    product(Mat::new(&[], 0, 0), Mat::new(&[], 0, MAX), 0);
    product(Mat::new(&[], MAX, 0), none, 0);
    gemm_batch(MAX, none, MAX, none, MAX, &mut [], Beta::One);
    gemm_batch(0, Mat::new(&x, 4, 4), MAX, Mat::new(&x, 4, 4), MAX, &mut [], Beta::One);
    gemm_int8(&[] as &[u8], &[], &mut [], (0, 0, MAX));
    gemm_int8(&[] as &[u8], &[], &mut [], (MAX, 0, 0));
    for precision in [Precision::F32, Precision::Bf16] {
        let products = vec![(Mat::new(&[] as &[f32], 0, MAX).into(), &mut [][..], Epilogue::default())];
        gemm_each(precision, none, products);
    }
    let packed = PackedB::new(Mat::new(&[] as &[bf16], MAX, 0));
    gemm(Mat::new(&[], 0, MAX), &packed, &mut [], Beta::Zero, Epilogue::default());

    // A stride of a second row or matrix that does not exist.
    let expected = [4.0; 4];
    let mut c = [0.0; 4];
    gemm(Mat::new(&x, 1, 4).with_ld(MAX), Mat::new(&x, 4, 4), &mut c, Beta::Zero, Epilogue::default());
    assert_eq!(c, expected);
    gemm_batch(1, Mat::new(&x, 1, 4), MAX, Mat::new(&x, 4, 4), MAX, &mut c, Beta::Zero);
    assert_eq!(c, expected);
    for m in [1, 40] {
        let (a, mut c) = ([1.0; 40], vec![0.0; m]);
        let column = Mat::transposed(&x[..1], 1, 1).with_ld(MAX);
        gemm(Mat::new(&a[..m], m, 1), column, &mut c, Beta::Zero, Epilogue::default());
        assert_eq!(c, vec![1.0; m]);
        // No summands: zeros, whatever the strides.
        let (a, b) = (Mat::new(&[], m, 0).with_ld(MAX), Mat::new(&[], 0, 1).with_ld(MAX));
        gemm_batch(3, a, MAX, b, MAX, &mut vec![1.0; 3 * m], Beta::Zero);
    }
}

#[test]
fn attention_of_extreme_shapes() {
    let x = [0.5f32; 64];
    let plain = AttentionShape::new(2, 1, 2, 2, 4);
    let rows = || Heads::rows(&x, 2, 1, 4);
    let run = |shape: &AttentionShape<'_>, views: [Heads<'_>; 3], out: HeadsMut<'_>| {
        attention(shape, views[0], views[1], views[2], out, None);
    };
    let with_query = |query: Heads<'_>| run(&plain, [query, rows(), rows()], HeadsMut::rows(&mut [0.0; 16], 2, 1, 4));
    let with_key = |key: Heads<'_>| run(&plain, [rows(), key, rows()], HeadsMut::rows(&mut [0.0; 16], 2, 1, 4));
    with_query(rows());
    for far in [MAX, HALF, MAX - 7] {
        for (batch, row, head) in [(far, 4, 4), (8, far, 4), (far, far, far)] {
            refused("attention: query", || with_query(Heads::strided(&x, batch, row, head)));
            refused("attention: key", || with_key(Heads::strided(&x, batch, row, head)));
        }
        refused("attention: query", || with_query(Heads::rows(&x, far, 1, 4)));
        refused("attention: query", || with_query(Heads::rows(&x, far, far, far)));
        refused("attention: query", || with_query(Heads::columns(&x, far, far, 0, 4)));
        refused("attention: query", || with_query(Heads::cache(&x, far, 3, 4)));
        let page: &[f32] = &x;
        refused("attention: key", || with_key(Heads::paged(&[page, page], &[0, 1, 2], far, 4)));
        // The output.
        for (length, heads, dim) in [(far, 1, 4), (2, far, 4), (2, 1, far), (far, far, far), (ROOT, ROOT, 4)] {
            refused("attention: out", || {
                run(&plain, [rows(); 3], HeadsMut::rows(&mut [0.0; 16], length, heads, dim));
            });
        }
        refused("attention: out", || {
            let mut x = [0.0; 32];
            let [out, _] = HeadsMut::split_columns(&mut x, far, [4, 4], 4);
            run(&plain, [rows(); 3], out);
        });
        refused("machine word", || {
            HeadsMut::split_columns(&mut [0.0; 16], 2, [far, HALF], 1);
        });
        // Shapes.
        let shapes =
            [(far, 1, 2, 2, 4), (2, far, 2, 2, 4), (2, 1, far, 2, 4), (2, 1, 2, 2, far), (far, far, far, far, far)];
        for (batch, heads, queries, keys, dim) in shapes {
            let shape = AttentionShape::new(batch, heads, queries, keys, dim);
            refused("attention: query", || run(&shape, [rows(); 3], HeadsMut::rows(&mut [0.0; 16], 2, 1, 4)));
        }
        refused("attention: key", || {
            run(&AttentionShape::new(2, 1, 2, far, 4), [rows(); 3], HeadsMut::rows(&mut [0.0; 16], 2, 1, 4));
        });
        // Masks.
        let (data, keep) = ([0.0; 8], [true; 8]);
        for (batch_stride, head_stride) in [(far, 0), (far, far)] {
            for mask in [
                Mask::Add { data: &data, batch_stride, head_stride },
                Mask::Keep { data: &keep, batch_stride, head_stride },
            ] {
                let shape = AttentionShape { mask, ..plain };
                refused("attention: the mask", || run(&shape, [rows(); 3], HeadsMut::rows(&mut [0.0; 16], 2, 1, 4)));
            }
        }
    }
    let positions = [MAX, 0];
    let causal = AttentionShape { causal: true, positions: Some(&positions), ..plain };
    for window in [None, Some(1), Some(MAX)] {
        let shape = AttentionShape { window, ..causal };
        refused("attention: the positions", || run(&shape, [rows(); 3], HeadsMut::rows(&mut [0.0; 16], 2, 1, 4)));
    }
    refused("attention: the key mask", || {
        let shape = AttentionShape { key_mask: Some(&[]), ..AttentionShape::new(ROOT, 1, 0, ROOT, 4) };
        run(&shape, [rows(); 3], HeadsMut::rows(&mut [], 0, 1, 4));
    });
    refused("attention: lse", || {
        let shape = AttentionShape::new(ROOT, ROOT, 1, 0, 0);
        let (none, out) = (Heads::rows(&[], 1, 1, 0), HeadsMut::rows(&mut [], MAX, MAX, 0));
        attention(&shape, none, none, none, out, Some(&mut []));
    });
    refused("attention_probs: probs", || {
        attention_probs(
            &AttentionShape::new(1, 1, ROOT, ROOT, 0),
            Heads::rows(&[], 1, 1, 0),
            Heads::rows(&[], 1, 1, 0),
            &mut [],
        );
    });
    refused("attention_backward: dquery", || {
        let (mut a, mut b, mut c) = ([0.0; 16], [0.0; 16], [0.0; 16]);
        let out = |x| HeadsMut::rows(x, 2, 1, 4);
        let wraps = HeadsMut::rows(&mut a, HALF, 2, 4);
        attention_backward(&plain, rows(), rows(), rows(), rows(), rows(), &[0.0; 4], wraps, out(&mut b), out(&mut c));
    });

    // Queries at the largest positions attend to every key without a window, and to none with one.
    for (last, window, seen) in [(MAX - 2, None, 0.5), (MAX - 2, Some(MAX), 0.5), (MAX - 2, Some(9), 0.0)] {
        for queries in [1, 2, 40] {
            let (data, mut out) = (vec![0.5; queries * 4], vec![1.0; queries * 4]);
            let positions = [last.min(MAX - queries)];
            let shape = AttentionShape {
                causal: true,
                window,
                positions: Some(&positions),
                ..AttentionShape::new(1, 1, queries, 3, 4)
            };
            let views = [Heads::rows(&data, queries, 1, 4), Heads::rows(&x, 3, 1, 4), Heads::rows(&x, 3, 1, 4)];
            run(&shape, views, HeadsMut::rows(&mut out, queries, 1, 4));
            assert!(out.iter().all(|o| (o - seen).abs() < 1e-6), "{queries} queries, {window:?}: {out:?}");
        }
    }
    // Nothing to write, or nothing to read: the other sizes and all strides may be anything.
    let far = Heads::strided(&[], MAX, MAX, MAX);
    for shape in [(0, MAX, MAX, MAX, MAX), (MAX, 0, MAX, MAX, MAX), (MAX, MAX, 0, 0, MAX), (3, 2, 5, 4, 0)] {
        let (batch, heads, queries, keys, dim) = shape;
        let shape = AttentionShape::new(batch, heads, queries, keys, dim);
        run(&shape, [far; 3], HeadsMut::rows(&mut [], MAX, MAX, dim));
        let out = || HeadsMut::rows(&mut [], MAX, MAX, dim);
        let lse = vec![0.0; if dim == 0 { 30 } else { 0 }];
        attention_backward(&shape, far, far, far, far, far, &lse, out(), out(), out());
    }
    for queries in [1, 40] {
        let (data, shape) = (vec![0.5; 3 * queries * 4], AttentionShape::new(3, 1, queries, 0, 4));
        let (mut out, mut lse) = (vec![1.0; 3 * queries * 4], vec![1.0; 3 * queries]);
        let (query, mask) =
            (Heads::rows(&data, queries, 1, 4), Mask::Add { data: &[], batch_stride: MAX, head_stride: MAX });
        let shape = AttentionShape { mask, ..shape };
        attention(&shape, query, far, far, HeadsMut::rows(&mut out, queries, 1, 4), Some(&mut lse));
        assert!(out.iter().all(|&o| o == 0.0) && lse.iter().all(|&l| l == f32::NEG_INFINITY));
    }
    // One sequence, position and head: no stride is used.
    let (mut out, one) = ([0.0; 4], Heads::strided(&x[..4], MAX, MAX, MAX));
    run(&AttentionShape::new(1, 1, 1, 1, 4), [one; 3], HeadsMut::rows(&mut out, 1, 1, 4));
    assert_eq!(out, [0.5; 4]);
    let mut probs = [0.0];
    attention_probs(&AttentionShape::new(1, 1, 1, 1, 4), one, one, &mut probs);
    assert_eq!(probs, [1.0]);
    let pages = [&x[..4]];
    let paged = Heads::paged(&pages, &[0, 1], MAX, 4);
    run(&AttentionShape::new(1, 1, 1, 1, 4), [one, paged, paged], HeadsMut::rows(&mut out, 1, 1, 4));
    assert_eq!((out, attention::PAGE), ([0.5; 4], 128));
}

#[test]
fn rows_of_extreme_shapes() {
    let rope = |x: &mut [f32], heads, dim, rot, tables: &[f32], position| {
        vecmath::rope(x, heads, dim, rot, tables, tables, &[position], false, false);
    };
    refused("rope", || rope(&mut [0.0; 4], HALF, 2, 2, &[1.0], 0));
    refused("rope", || rope(&mut [0.0; 4], ROOT, ROOT, 2, &[1.0], 0));
    refused("rope: position", || rope(&mut [0.0; 4], 1, 4, 4, &[1.0; 6], u32::MAX));
    refused("rope: position", || rope(&mut [0.0; 4], 1, 4, 4, &[1.0; 6], 3));
    for dim in [HALF, ROOT, MAX] {
        refused("gather", || vecmath::gather(&[0.0; 4], dim, &[0, 0], &mut []));
        refused("scatter_add", || vecmath::scatter_add(&[], dim, &[0, 0], &mut [0.0; 4]));
        refused("recurrent cell", || vecmath::lstm_step(dim, &mut [0.0; 4], &[0.0], &mut [0.0], &mut [0.0]));
        refused("recurrent cell", || vecmath::gru_step(dim, &[0.0; 3], &[0.0], &mut [0.0; 3], &mut [0.0], &mut [0.0]));
        refused("do not make rows", || vecmath::softmax(&[0.0; 4], dim, &mut [0.0; 4]));
        refused("do not make rows", || vecmath::log_softmax(&[0.0; 4], dim, &mut [0.0; 4]));
        refused("sum_rows", || vecmath::sum_rows(&[0.0; 4], dim, &mut [0.0; 4], false));
        refused("do not make rows", || {
            vecmath::cross_entropy(&[0.0; 4], dim, &[0], None, 0.0, None, &mut [0.0], &mut [0.0]);
        });
    }
    vecmath::lstm_step(MAX, &mut [], &[], &mut [], &mut []);
    refused("gather: id", || vecmath::gather(&[0.0; 4], 2, &[u32::MAX], &mut [0.0; 2]));
    refused("gather: id", || vecmath::gather(&[0.0; 5], 2, &[2], &mut [0.0; 2]));
    refused("scatter_add: id", || vecmath::scatter_add(&[0.0; 2], 2, &[u32::MAX], &mut [0.0; 4]));
    let width = 1 << (usize::BITS - 4);
    refused("logistic", || {
        logistic::logistic(width, &[], &[], &[0.0; 16], 0.1, &mut Vec::new(), &mut [], &mut []);
    });
    refused("machine word", || _ = logistic::padded(MAX));
    refused("machine word", || _ = adagrad::row_len(HALF));
    refused("machine word", || _ = adagrad::adagrad_pair(MAX, &mut [], &mut [], 0.0, 0.0, 0.0));
    refused("row_dots", || row_dots::row_dots(&[0.0; 3], &[0.0f32; 5], &mut [0.0; 2]));
    refused("blocks", || _ = BlockFormat::Q8_0.bytes_for(MAX - 31));
    refused("blocks", || blocks::dequantize(BlockFormat::Q6K, &[], &mut [0.0; 256]));
}

#[test]
fn chunks_of_extreme_numbers() {
    let mut data = [0u8; 10];
    let parts = Parts::new(&mut data, 2);
    for i in [5, HALF, MAX, MAX / 2 + 1] {
        assert_eq!(parts.range(i), 10..10, "chunk {i} is past the end, not the first again");
    }
    assert_eq!(Parts::new(&mut data, MAX).range(1), 10..10);
    for (len, unit, ns) in [(MAX, 1, 1.0), (MAX, MAX, 1e9), (MAX, 3, 1e9), (MAX, MAX - 1, f32::MAX), (1, MAX, 0.0)] {
        assert!(chunk_len(len, unit, ns) > 0);
    }
}
