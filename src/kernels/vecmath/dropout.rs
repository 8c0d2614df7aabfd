//! Dropout with a stateless random number generator.
//!
//! Element i is kept iff hash(seed, offset + i) ≥ p · 2³², and then divided by 1 - p (Srivastava et
//! al., *Dropout*, 2014). Since the hash depends only on the index, the backward pass is the same
//! call on the gradient, no mask is stored, and the dropped elements depend neither on the number
//! of threads nor on the width of the vectors. The caller advances `offset` between calls.
//!
//! The hash is a murmur3 finaliser of the index (A. Appleby, 2011), with two words derived from the
//! seed entering at different rounds, so that the patterns of two seeds are not shifted copies of
//! each other.

use crate::kernels::parallel::{self, Parts};
use crate::kernels::simd::{Isa, MAX_LANES, SimdOp, dispatch};

/// y = x with elements dropped with probability `p`, the others scaled by 1 / (1 - p).
///
/// # Examples
///
/// ```
/// use loquat::kernels::vecmath::dropout;
///
/// let x = vec![1.0; 1000];
/// let mut y = vec![0.0; 1000];
/// dropout(&x, 0.5, 7, 0, &mut y);
/// assert!(y.iter().all(|&y| y == 0.0 || y == 2.0));
/// // The part from 600 on by itself is the same.
/// let mut part = vec![0.0; 400];
/// dropout(&x[600..], 0.5, 7, 600, &mut part);
/// assert_eq!(part, y[600..]);
/// ```
///
/// # Panics
///
/// If `p` is not in [0, 1].
pub fn dropout(x: &[f32], p: f32, seed: u64, offset: u64, y: &mut [f32]) {
    assert_eq!(x.len(), y.len(), "dropout: input and output must have the same length");
    assert!((0.0..=1.0).contains(&p), "dropout: a probability, found {p}");
    let len = x.len();
    if len == 0 {
        return;
    }
    let threshold = (p as f64 * 4_294_967_296.0) as u64;
    if threshold == 0 {
        return y.copy_from_slice(x);
    }
    // p = 1 drops all elements, although the hash is below 2³².
    let scale = if p < 1.0 { (1.0 / (1.0 - p as f64)) as f32 } else { 0.0 };
    let threshold = u32::try_from(threshold).unwrap_or(u32::MAX);
    let chunk = parallel::chunk_len(len, 16, 4.0);
    let y = Parts::new(y, chunk);
    parallel::for_each(y.count(), |i| {
        let mut x = &x[y.range(i)];
        // SAFETY: each task takes the part with its own index.
        let mut y = unsafe { y.get(i) };
        let mut place = offset.wrapping_add((i * chunk) as u64);
        // The upper half of the index is part of the key, so a part ends where it changes.
        while !x.is_empty() {
            let n = ((1 << 32) - (place & 0xffff_ffff)).min(x.len() as u64) as usize;
            let (x_part, x_rest) = x.split_at(n);
            let (y_part, y_rest) = y.split_at_mut(n);
            dispatch(Dropout {
                x: x_part,
                y: y_part,
                key: key(seed, place >> 32),
                place: place as u32,
                threshold,
                scale,
            });
            (x, y) = (x_rest, y_rest);
            place = place.wrapping_add(n as u64);
        }
    });
}

/// The factor of an index, modulo 2³², before it is hashed: so the hash input advances by
/// additions.
pub(crate) const GOLDEN: u32 = 0x9e37_79b9;
const M1: u32 = 0x85eb_ca6b;
const M2: u32 = 0xc2b2_ae35;

/// Returns the two key words of the hash, from the seed and the upper half of the index (Steele et
/// al., SplitMix64, 2014).
fn key(seed: u64, high: u64) -> [u32; 2] {
    let mut z = seed.wrapping_add(high.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^= z >> 31;
    [z as u32, (z >> 32) as u32]
}

/// The hash of [`Dropout`] in scalar code: its definition.
#[cfg(test)]
fn hash(key: [u32; 2], place: u32) -> u32 {
    let mut h = place.wrapping_mul(GOLDEN) ^ key[0];
    h = (h ^ (h >> 16)).wrapping_mul(M1) ^ key[1];
    h = (h ^ (h >> 13)).wrapping_mul(M2);
    h ^ (h >> 16)
}

/// The threshold of elements that are kept, and their factor.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Keep {
    key: [u32; 2],
    threshold: u32,
    scale: f32,
}

impl Keep {
    /// Same as [`dropout`] for `p` in (0, 1), at indices whose upper half is `high`, for kernels
    /// with fused dropout.
    pub(crate) fn new(p: f32, seed: u64, high: u64) -> Keep {
        let threshold = (p as f64 * 4_294_967_296.0) as u64;
        let scale = if p < 1.0 { (1.0 / (1.0 - p as f64)) as f32 } else { 0.0 };
        Keep { key: key(seed, high), threshold: u32::try_from(threshold).unwrap_or(u32::MAX), scale }
    }

    /// Returns x or 0, for indices multiplied by [`GOLDEN`].
    #[inline(always)]
    pub(crate) fn lanes<I: Isa>(self, isa: I, x: I::F32, place: I::I32) -> I::F32 {
        let word = |x: u32| isa.splat_i32(x as i32);
        let h = isa.xor(place, word(self.key[0]));
        let h = isa.mul_i32(isa.xor(h, isa.shr(h, 16)), word(M1));
        let h = isa.xor(h, word(self.key[1]));
        let h = isa.mul_i32(isa.xor(h, isa.shr(h, 13)), word(M2));
        let h = isa.xor(h, isa.shr(h, 16));
        // To compare unsigned numbers as signed ones, their top bit is flipped.
        let dropped = isa.lt_i32(isa.xor(h, word(1 << 31)), word(self.threshold ^ 1 << 31));
        isa.select(dropped, isa.zero(), isa.mul(x, isa.splat(self.scale)))
    }
}

struct Dropout<'a> {
    x: &'a [f32],
    y: &'a mut [f32],
    key: [u32; 2],
    place: u32,
    threshold: u32,
    scale: f32,
}

impl SimdOp for Dropout<'_> {
    type Output = ();
    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        let keep = Keep { key: self.key, threshold: self.threshold, scale: self.scale };
        let mut places = [0; MAX_LANES];
        (0u32..).zip(&mut places).for_each(|(i, p)| *p = self.place.wrapping_add(i).wrapping_mul(GOLDEN) as i32);
        // The multiplied index advances by an addition.
        let step = isa.splat_i32(GOLDEN.wrapping_mul(I::LANES as u32) as i32);
        let mut place = isa.load_i32(&places);
        let mut inputs = self.x.chunks_exact(I::LANES);
        let mut outputs = self.y.chunks_exact_mut(I::LANES);
        for (x, y) in (&mut inputs).zip(&mut outputs) {
            isa.store(y, keep.lanes(isa, isa.load(x), place));
            place = isa.add_i32(place, step);
        }
        let (x, y) = (inputs.remainder(), outputs.into_remainder());
        isa.store_partial(y, keep.lanes(isa, isa.load_partial(x), place));
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{LENGTHS, random};
    use super::*;
    use crate::kernels::simd::for_each_level;

    #[test]
    fn every_level_drops_what_the_hash_says() {
        for_each_level(|_| {
            for len in LENGTHS {
                for offset in [0, 5, (1 << 32) - 9, (1 << 32) + 1, u64::MAX - 3] {
                    let (x, p, seed) = (random(len, 1), 0.3f32, 42);
                    let mut y = vec![7.0; len];
                    dropout(&x, p, seed, offset, &mut y);
                    for i in 0..len {
                        let place = offset.wrapping_add(i as u64);
                        let kept =
                            hash(key(seed, place >> 32), place as u32) as f64 >= (p as f64 * 2f64.powi(32)).floor();
                        assert_eq!(y[i], if kept { x[i] * (1.0 / 0.7) } else { 0.0 }, "place {place}");
                    }
                }
            }
        });
    }

    #[test]
    fn the_share_dropped_is_p_and_patterns_are_independent() {
        let n = 1 << 20;
        let x = vec![1.0; n];
        for p in [0.1, 0.5, 0.9] {
            let kept = |seed, offset| {
                let mut y = vec![0.0; n];
                dropout(&x, p, seed, offset, &mut y);
                y.into_iter().map(|y| (y != 0.0) as u32 as f64).collect::<Vec<_>>()
            };
            let share = 1.0 - p as f64;
            // Five standard deviations of a mean, or of a covariance, of n independent choices.
            let bound = 5.0 * (share * p as f64 / n as f64).sqrt();
            let covariance = |a: &[f64], b: &[f64]| {
                a.iter().zip(b).map(|(a, b)| (a - share) * (b - share)).sum::<f64>() / a.len() as f64
            };
            let a = kept(1, 0);
            assert!((a.iter().sum::<f64>() / n as f64 - share).abs() < bound);
            for lag in [1, 2, 3, 4, 8, 16, 64, 384, 4096] {
                assert!(covariance(&a[lag..], &a[..n - lag]).abs() < bound, "p {p}, lag {lag}");
            }
            for other in [kept(2, 0), kept(1, n as u64), kept(1 << 32 | 1, 0), kept(3, 7), kept(1, 1 << 32)] {
                assert!(covariance(&a, &other).abs() < bound, "p {p}");
            }
        }
    }

    #[test]
    fn zero_keeps_all_and_one_keeps_none() {
        let x = random(100, 1);
        let mut y = vec![7.0; 100];
        dropout(&x, 0.0, 1, 0, &mut y);
        assert_eq!(y, x);
        dropout(&x, 1.0, 1, 0, &mut y);
        assert!(y.iter().all(|&y| y == 0.0));
    }
}
