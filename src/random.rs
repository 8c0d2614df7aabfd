//! A seedable random number generator whose values are the same in all versions.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng};
use serde::{Deserialize, Serialize};

/// A seedable random number generator whose values are the same in all versions of this crate.
///
/// ChaCha with 8 rounds (Bernstein 2008; the cipher of the `rand_chacha` crate). A seed has 2^64
/// independent streams, so that a program can give each step, item or thread its own numbers and
/// the result does not depend on their order.
///
/// ```
/// let mut rng = loquat::Rng::seed(7);
/// let x = rng.uniform();
/// assert!((0.0..1.0).contains(&x));
/// assert_eq!(loquat::Rng::seed(7).uniform(), x);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rng(ChaCha8Rng);

/// The position of an [`Rng`] in its sequence, to be saved and restored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RngState {
    /// The seed.
    pub seed: u64,
    /// The stream of the seed.
    pub stream: u64,
    /// The number of 32-bit words drawn so far.
    pub position: u64,
}

impl Rng {
    /// Returns stream 0 of `seed`.
    pub fn seed(seed: u64) -> Self {
        Self::stream(seed, 0)
    }

    /// Returns stream `stream` of `seed`, which is independent of all other streams.
    pub fn stream(seed: u64, stream: u64) -> Self {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&seed.to_le_bytes());
        let mut rng = ChaCha8Rng::from_seed(key);
        rng.set_stream(stream);
        Self(rng)
    }

    /// Returns the current position.
    pub fn state(&self) -> RngState {
        let key = self.0.get_seed();
        let seed = u64::from_le_bytes(key[..8].try_into().expect("eight bytes of a 32-byte key"));
        RngState { seed, stream: self.0.get_stream(), position: self.0.get_word_pos() as u64 }
    }

    /// Returns a generator that continues from `state`.
    pub fn from_state(state: &RngState) -> Self {
        let mut rng = Self::stream(state.seed, state.stream);
        rng.0.set_word_pos(u128::from(state.position));
        rng
    }

    /// Returns the next 32 random bits.
    pub(crate) fn next_u32(&mut self) -> u32 {
        self.0.next_u32()
    }

    /// Returns the next 64 random bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// Returns a uniform number in `[0, 1)`, a multiple of 2^-24.
    pub fn uniform(&mut self) -> f32 {
        (self.next_u32() >> 8) as f32 * (1.0 / (1 << 24) as f32)
    }

    /// Returns a uniform number in `[0, 1)`, a multiple of 2^-53.
    pub fn uniform_f64(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
    }

    /// Returns a number drawn from the standard normal distribution (Box and Muller 1958).
    pub fn normal(&mut self) -> f32 {
        let radius = (-2.0 * (1.0 - self.uniform_f64()).ln()).sqrt();
        (radius * (std::f64::consts::TAU * self.uniform_f64()).cos()) as f32
    }

    /// Returns an integer in `[0, limit)`, each equally likely (Lemire 2019).
    ///
    /// # Panics
    /// If `limit` is 0.
    pub fn below(&mut self, limit: usize) -> usize {
        assert!(limit > 0, "expected a limit above 0");
        let limit = limit as u64;
        let mut product = u128::from(self.next_u64()) * u128::from(limit);
        if (product as u64) < limit {
            let threshold = limit.wrapping_neg() % limit;
            while (product as u64) < threshold {
                product = u128::from(self.next_u64()) * u128::from(limit);
            }
        }
        (product >> 64) as usize
    }

    /// Shuffles `items` (Fisher and Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i + 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_those_of_every_version() {
        let mut rng = Rng::seed(42);
        let drawn: Vec<u32> = (0..4).map(|_| rng.next_u32()).collect();
        assert_eq!(drawn, [428845191, 1495741553, 379451179, 1227066020]);
    }

    #[test]
    fn a_restored_state_continues_the_sequence() {
        let mut rng = Rng::stream(3, 9);
        rng.normal();
        rng.next_u32();
        let mut again = Rng::from_state(&rng.state());
        assert_eq!(again, rng);
        assert_eq!(again.next_u64(), rng.next_u64());
    }

    #[test]
    fn below_is_uniform() {
        let mut rng = Rng::seed(1);
        let mut counts = [0usize; 7];
        for _ in 0..70_000 {
            counts[rng.below(7)] += 1;
        }
        assert!(counts.iter().all(|&c| (9_600..10_400).contains(&c)), "{counts:?}");
    }

    #[test]
    fn normal_has_mean_zero_and_variance_one() {
        let mut rng = Rng::seed(5);
        let (mut sum, mut squares) = (0.0, 0.0);
        for _ in 0..100_000 {
            let x = f64::from(rng.normal());
            sum += x;
            squares += x * x;
        }
        assert!((sum / 1e5).abs() < 0.01 && (squares / 1e5 - 1.0).abs() < 0.02);
    }
}
