//! Six bits: 256 numbers in 210 bytes, in 16 groups with a scale of eight bits each.

use super::{Block, K_LEN, half_at};

/// 128 bytes of two numbers' lower bits each, 64 bytes of four numbers' upper bits each, 16 scales,
/// `d: f16`.
pub(super) struct Q6K;

impl Block for Q6K {
    const LEN: usize = K_LEN;
    const BYTES: usize = 210;

    #[inline(always)]
    fn dequantize(block: &[u8], y: &mut [f32]) {
        let d = half_at(block, 208);
        for (g, y) in y.chunks_exact_mut(16).enumerate() {
            let scale = d * f32::from(block[192 + g] as i8);
            let (half, within) = (g / 8, g % 8);
            let low = &block[half * 64 + within % 4 * 16..][..16];
            let high = &block[128 + half * 32 + within % 2 * 16..][..16];
            for ((y, low), high) in y.iter_mut().zip(low).zip(high) {
                let q = low >> (within / 4 * 4) & 15 | (high >> (within / 2 * 2) & 3) << 4;
                *y = scale * f32::from(q as i8 - 32);
            }
        }
    }
}
