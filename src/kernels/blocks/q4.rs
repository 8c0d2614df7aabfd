//! Four bits: 32 numbers in 18 or 20 bytes.

use super::{Block, half_at, nibbles};

/// `d: f16`, then 16 bytes of two numbers each.
pub(super) struct Q4_0;

impl Block for Q4_0 {
    const LEN: usize = 32;
    const BYTES: usize = 18;

    #[inline(always)]
    fn dequantize(block: &[u8], y: &mut [f32]) {
        let d = half_at(block, 0);
        let q = nibbles(&block[2..18]);
        y.iter_mut().zip(q).for_each(|(y, q)| *y = d * f32::from(q as i8 - 8));
    }
}

/// `d: f16`, `m: f16`, then 16 bytes of two numbers each.
pub(super) struct Q4_1;

impl Block for Q4_1 {
    const LEN: usize = 32;
    const BYTES: usize = 20;

    #[inline(always)]
    fn dequantize(block: &[u8], y: &mut [f32]) {
        let (d, m) = (half_at(block, 0), half_at(block, 2));
        let q = nibbles(&block[4..20]);
        y.iter_mut().zip(q).for_each(|(y, q)| *y = d * f32::from(q) + m);
    }
}
