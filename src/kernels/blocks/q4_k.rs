//! Four or five bits: 256 numbers in 144 or 176 bytes, in eight groups with a scale and a minimum
//! of six bits each.

use super::{Block, K_LEN, half_at};

/// `d: f16`, `d': f16`, 12 bytes of scales and minima, 128 bytes of two numbers each.
pub(super) struct Q4K;

impl Block for Q4K {
    const LEN: usize = K_LEN;
    const BYTES: usize = 144;

    #[inline(always)]
    fn dequantize(block: &[u8], y: &mut [f32]) {
        let (d, dmin) = (half_at(block, 0), half_at(block, 2));
        for (g, y) in y.chunks_exact_mut(32).enumerate() {
            let (scale, min) = scale_and_min(&block[4..16], g);
            let (scale, min) = (d * f32::from(scale), dmin * f32::from(min));
            let q = &block[16 + g / 2 * 32..][..32];
            y.iter_mut().zip(q).for_each(|(y, q)| *y = scale * f32::from(q >> (g % 2 * 4) & 15) - min);
        }
    }
}

/// Same as [`Q4K`], with 32 bytes of fifth bits before the numbers' lower bits.
pub(super) struct Q5K;

impl Block for Q5K {
    const LEN: usize = K_LEN;
    const BYTES: usize = 176;

    #[inline(always)]
    fn dequantize(block: &[u8], y: &mut [f32]) {
        let (d, dmin) = (half_at(block, 0), half_at(block, 2));
        let high = &block[16..48];
        for (g, y) in y.chunks_exact_mut(32).enumerate() {
            let (scale, min) = scale_and_min(&block[4..16], g);
            let (scale, min) = (d * f32::from(scale), dmin * f32::from(min));
            let low = &block[48 + g / 2 * 32..][..32];
            for ((y, low), high) in y.iter_mut().zip(low).zip(high) {
                let q = low >> (g % 2 * 4) & 15 | (high >> g & 1) << 4;
                *y = scale * f32::from(q) - min;
            }
        }
    }
}

/// Groups 0 to 3 have six bits in one byte; groups 4 to 7 have four bits in the last bytes and two
/// in the top of the first ones.
#[inline(always)]
fn scale_and_min(bytes: &[u8], g: usize) -> (u8, u8) {
    if g < 4 {
        return (bytes[g] & 63, bytes[g + 4] & 63);
    }
    let (low, scale_high, min_high) = (bytes[g + 4], bytes[g - 4] >> 6, bytes[g] >> 6);
    (low & 15 | scale_high << 4, low >> 4 | min_high << 4)
}
