//! Five bits: 32 numbers in 22 or 24 bytes; the fifth bits are stored together in four bytes.

use super::{Block, half_at, nibbles};

/// `d: f16`, 32 fifth bits, then 16 bytes of two numbers' low halves each.
pub(super) struct Q5_0;

impl Block for Q5_0 {
    const LEN: usize = 32;
    const BYTES: usize = 22;

    #[inline(always)]
    fn dequantize(block: &[u8], y: &mut [f32]) {
        let d = half_at(block, 0);
        let q = fives(&block[2..22]);
        y.iter_mut().zip(q).for_each(|(y, q)| *y = d * f32::from(q as i8 - 16));
    }
}

/// `d: f16`, `m: f16`, 32 fifth bits, then 16 bytes of two numbers' low halves each.
pub(super) struct Q5_1;

impl Block for Q5_1 {
    const LEN: usize = 32;
    const BYTES: usize = 24;

    #[inline(always)]
    fn dequantize(block: &[u8], y: &mut [f32]) {
        let (d, m) = (half_at(block, 0), half_at(block, 2));
        let q = fives(&block[4..24]);
        y.iter_mut().zip(q).for_each(|(y, q)| *y = d * f32::from(q) + m);
    }
}

#[inline(always)]
fn fives(bytes: &[u8]) -> [u8; 32] {
    let high = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    let low = nibbles(&bytes[4..20]);
    std::array::from_fn(|i| low[i] | ((high >> i) as u8 & 1) << 4)
}
