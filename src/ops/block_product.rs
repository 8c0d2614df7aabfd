//! Products with a weight in blocks: some of its rows are widened at a time, into memory that stays in the cache, and multiplied with.
//!
//! Each element of the result is the same chain as with the widened weight, so the bits are the same.

use crate::kernels::gemm::{Beta, Epilogue, Mat, gemm_in};
use crate::kernels::parallel;
use crate::ops::precision::Precision;
use crate::tensor::{BlockTensor, Buffer};
use std::ops::Range;

/// Numbers that are widened at a time, by one thread: 256 KiB.
const WIDENED: usize = 1 << 16;
/// Rows of the weight that all threads share, if `x` has several rows.
const SHARED_ROWS: usize = 512;

/// `y = act(x·wᵀ + bias) + residual`: `x: [m, k]`, `w: [n, k]` some rows of the weight.
pub(super) fn product(
    precision: Precision,
    x: Mat<'_>,
    w: &BlockTensor,
    of_w: Range<usize>,
    y: &mut [f32],
    epilogue: Epilogue<'_>,
) {
    let (n, k) = (of_w.len(), x.cols());
    let part = |rows: Range<usize>, residual: Option<&[f32]>, widened: &mut [f32], y: &mut [f32]| {
        let widened = &mut widened[..rows.len() * k];
        w.widen_rows(of_w.start + rows.start..of_w.start + rows.end, widened);
        let epilogue = Epilogue { bias: epilogue.bias.map(|bias| &bias[rows.clone()]), residual, ..epilogue };
        gemm_in(precision, x, Mat::transposed(widened, k, rows.len()), y, Beta::Zero, epilogue);
    };
    if x.rows() == 1 {
        let at_once = (WIDENED / k.max(1)).clamp(1, n.max(1));
        let chunk = parallel::chunk_len(n, at_once, 0.2 * (at_once * k) as f32);
        return parallel::chunks_mut(y, chunk, |i, y| {
            let mut widened = Buffer::scratch(at_once * k);
            for (j, y) in y.chunks_mut(at_once).enumerate() {
                let start = i * chunk + j * at_once;
                let rows = start..start + y.len();
                part(rows.clone(), epilogue.residual.map(|r| &r[rows]), widened.as_mut_slice(), y);
            }
        });
    }
    let at_once = SHARED_ROWS.min(n);
    let (mut widened, mut columns) = (Buffer::scratch(at_once * k), Buffer::scratch(x.rows() * at_once));
    for start in (0..n).step_by(at_once.max(1)) {
        let len = at_once.min(n - start);
        let columns = &mut columns.as_mut_slice()[..x.rows() * len];
        part(start..start + len, None, widened.as_mut_slice(), columns);
        for (i, (y, columns)) in y.chunks_exact_mut(n).zip(columns.chunks_exact(len)).enumerate() {
            let y = &mut y[start..start + len];
            y.copy_from_slice(columns);
            if let Some(residual) = epilogue.residual {
                let residual = &residual[i * n + start..];
                y.iter_mut().zip(residual).for_each(|(y, residual)| *y += residual);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::kernels::blocks::{BlockFormat, quantize_q8_0};
    use crate::ops::Activation;
    use crate::ops::gradient_check::sample;
    use crate::ops::linear::{WeightLayout, linear, linear_then};
    use crate::tensor::{BlockTensor, Tensor, Weight};

    #[test]
    fn blocks_give_the_bits_of_their_numbers_in_32_bits() {
        for (n, k) in [(1, 32), (7, 64), (1100, 96), (40, 4096)] {
            let w = sample(&[n, k], 1);
            let mut bytes = vec![0; BlockFormat::Q8_0.bytes_for(n * k)];
            quantize_q8_0(w.data(), &mut bytes);
            let blocks = BlockTensor::from_vec(BlockFormat::Q8_0, bytes, &[n, k]).unwrap();
            let (wide, blocks) = (Weight::F32(blocks.widen()), Weight::Blocks(blocks));
            let bias = sample(&[n], 2);
            for rows in [1, 2, 9] {
                let x = sample(&[rows, k], 3).watch();
                let run = |w: &Weight| {
                    let y = linear(&x, w, Some(&bias), WeightLayout::OutIn).unwrap();
                    let dx = y.sum().unwrap().backward().unwrap().of(&x).unwrap().to_vec();
                    (y.to_vec(), dx)
                };
                assert!(run(&blocks) == run(&wide), "{rows} × {k} × {n}");
                let (x, residual) = (x.detach(), sample(&[rows, n], 4));
                let run = |w: &Weight| {
                    let activation = Some(Activation::Silu);
                    linear_then(&x, w, Some(&bias), WeightLayout::OutIn, activation, Some(&residual)).unwrap().to_vec()
                };
                assert!(run(&blocks) == run(&wide), "{rows} × {k} × {n}, joined");
            }
        }
        let blocks = Weight::Blocks(BlockTensor::from_vec(BlockFormat::Q8_0, vec![1; 34 * 32], &[32, 32]).unwrap());
        let x = Tensor::full(&[2, 32], 1.0);
        let run = |w: &Weight| linear(&x, w, None, WeightLayout::InOut).unwrap().to_vec();
        assert_eq!(run(&blocks), run(&Weight::F32(blocks.to_tensor())));
    }
}
