//! Eight bits: 32 numbers in 34 bytes.

use half::f16;

use super::{Block, half_at};
use crate::kernels::parallel;

/// `d: f16`, then 32 bytes.
pub(super) struct Q8_0;

impl Block for Q8_0 {
    const LEN: usize = 32;
    const BYTES: usize = 34;

    #[inline(always)]
    fn dequantize(block: &[u8], y: &mut [f32]) {
        let d = half_at(block, 0);
        y.iter_mut().zip(&block[2..34]).for_each(|(y, &q)| *y = f32::from(q as i8) * d);
    }
}

/// Quantises `x` to `Q8_0`: the scale is the largest magnitude divided by 127; ties round away from
/// zero, as in the reference.
///
/// # Panics
/// If `x` does not fill whole blocks, or `blocks` has another length.
#[track_caller]
pub fn quantize_q8_0(x: &[f32], blocks: &mut [u8]) {
    assert_eq!(super::BlockFormat::Q8_0.bytes_for(x.len()), blocks.len(), "blocks: one block for 32 numbers");
    let chunk = parallel::chunk_len(blocks.len(), Q8_0::BYTES, 40.0);
    parallel::chunks_mut(blocks, chunk, |i, blocks| {
        let x = &x[i * chunk / Q8_0::BYTES * Q8_0::LEN..];
        for (x, block) in x.chunks_exact(Q8_0::LEN).zip(blocks.chunks_exact_mut(Q8_0::BYTES)) {
            let d = x.iter().fold(0f32, |max, x| max.max(x.abs())) / 127.0;
            let inverse = if d == 0.0 { 0.0 } else { 1.0 / d };
            block[..2].copy_from_slice(&f16::from_f32(d).to_le_bytes());
            block[2..].iter_mut().zip(x).for_each(|(q, x)| *q = (x * inverse).round() as i8 as u8);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::blocks::{BlockFormat, dequantize};

    #[test]
    fn a_round_trip_stays_within_half_a_step() {
        let mut rng = crate::Rng::seed(1);
        let mut x: Vec<f32> = (0..32 * 500).map(|i| rng.normal() * 2f32.powi(i / 1600 - 5)).collect();
        x[..32].fill(0.0);
        let mut blocks = vec![1; BlockFormat::Q8_0.bytes_for(x.len())];
        quantize_q8_0(&x, &mut blocks);
        let mut y = vec![1.0; x.len()];
        dequantize(BlockFormat::Q8_0, &blocks, &mut y);
        for (x, y) in x.chunks(32).zip(y.chunks(32)) {
            let max = x.iter().fold(0f32, |max, x| max.max(x.abs()));
            // Half a step of the scale, and 127 times the rounding of the scale itself (2^-11).
            let bound = max / 127.0 * 0.5 + max * 2f32.powi(-11) + 1e-7;
            assert!(x.iter().zip(y).all(|(x, y)| (x - y).abs() <= bound), "{max}");
        }
        // Quantising again changes nothing.
        let mut again = vec![0; blocks.len()];
        quantize_q8_0(&y, &mut again);
        let mut z = vec![0.0; x.len()];
        dequantize(BlockFormat::Q8_0, &again, &mut z);
        assert!(y.iter().zip(&z).all(|(y, z)| (y - z).abs() <= y.abs() * 1e-3 + 1e-7));
    }
}
