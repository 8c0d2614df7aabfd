//! Three bits: 256 numbers in 110 bytes, in 16 groups with a scale of six bits each.

use super::q2_k::twos;
use super::{Block, K_LEN, half_at};

/// 32 bytes of third bits, 64 bytes of four numbers' lower bits each, 12 bytes of scales, `d: f16`.
pub(super) struct Q3K;

impl Block for Q3K {
    const LEN: usize = K_LEN;
    const BYTES: usize = 110;

    #[inline(always)]
    fn dequantize(block: &[u8], y: &mut [f32]) {
        let d = half_at(block, 108);
        let scales = &block[96..108];
        for (g, y) in y.chunks_exact_mut(16).enumerate() {
            // Four bits in the first eight bytes, two more in the last four.
            let scale = scales[g % 8] >> (g / 8 * 4) & 15 | (scales[8 + g % 4] >> (g / 4 * 2) & 3) << 4;
            let scale = d * f32::from(scale as i8 - 32);
            let (low, shift) = twos(&block[32..96], g);
            let high = &block[g % 2 * 16..][..16];
            for ((y, low), high) in y.iter_mut().zip(low).zip(high) {
                // If the third bit is set, there is no offset.
                let q = (low >> shift & 3 | (high >> (g / 2) & 1) << 2) as i8 - 4;
                *y = scale * f32::from(q);
            }
        }
    }
}
