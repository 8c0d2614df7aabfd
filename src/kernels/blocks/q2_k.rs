//! Two bits: 256 numbers in 84 bytes, in 16 groups with a scale and a minimum of four bits each.

use super::{Block, K_LEN, half_at};

/// 16 bytes of scale and minimum, 64 bytes of four numbers each, `d: f16`, `d': f16`.
pub(super) struct Q2K;

impl Block for Q2K {
    const LEN: usize = K_LEN;
    const BYTES: usize = 84;

    #[inline(always)]
    fn dequantize(block: &[u8], y: &mut [f32]) {
        let (d, dmin) = (half_at(block, 80), half_at(block, 82));
        for (g, y) in y.chunks_exact_mut(16).enumerate() {
            let scale = d * f32::from(block[g] & 15);
            let min = dmin * f32::from(block[g] >> 4);
            let (q, shift) = twos(&block[16..80], g);
            y.iter_mut().zip(q).for_each(|(y, q)| *y = scale * f32::from(q >> shift & 3) - min);
        }
    }
}

/// Returns the bytes of group `g` of 16, and the shift of its two bits in them.
#[inline(always)]
pub(super) fn twos(bytes: &[u8], g: usize) -> (&[u8], usize) {
    (&bytes[g / 8 * 32 + g % 2 * 16..][..16], g % 8 / 2 * 2)
}
