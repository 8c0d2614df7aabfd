//! Rotary position embeddings (Su et al. 2021, "RoFormer"): pairs of columns are rotated by an
//! angle proportional to the position.

use std::sync::Arc;

use crate::error::{Error, Result};
use crate::kernels::vecmath;
use crate::tensor::{IdTensor, Tensor, tape};

/// The largest number of elements in a table: a larger one is a mistake in a configuration.
const MAX_TABLE: usize = 1 << 30;

/// Rotary position embeddings: tables of cosines and sines for all positions, and the columns that
/// they rotate.
///
/// ```text
/// (x₁, x₂) ← (x₁ cos φ - x₂ sin φ, x₂ cos φ + x₁ sin φ),   φ = position · θ^(-2i / rot_dim)
/// ```
///
/// for pair `i` of each head. A pair consists of column `i` of the first and of the second half of
/// the rotated columns (GPT-NeoX; Llama in Hugging Face checkpoints), or of two adjacent columns
/// (the paper, GPT-J). The product of a query and a key then depends only on the difference of
/// their positions.
///
/// ```
/// use loquat::{IdTensor, Tensor, ops::Rope};
///
/// let rope = Rope::new(4, 16, 10_000.0)?;
/// let x = Tensor::full(&[1, 2, 8], 1.0); // two positions, two heads of four columns
/// let y = rope.forward(&x, 2, &IdTensor::sequence(&[0, 1]))?;
/// assert_eq!(y.data()[..8], x.data()[..8]); // position 0 is not rotated
/// assert!((y.data()[8] - (1f32.cos() - 1f32.sin())).abs() < 1e-6);
/// # Ok::<(), loquat::Error>(())
/// ```
#[derive(Clone)]
pub struct Rope {
    /// `[max_positions, rot_dim / 2]`.
    cos: Arc<[f32]>,
    sin: Arc<[f32]>,
    rot_dim: usize,
    interleaved: bool,
}

impl std::fmt::Debug for Rope {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let interleaved = if self.interleaved { ", interleaved" } else { "" };
        write!(f, "Rope(rot_dim={}, max_positions={}{interleaved})", self.rot_dim, self.max_positions())
    }
}

impl Rope {
    /// Creates tables for positions below `max_positions`; the first `rot_dim` columns of each head
    /// are rotated. `theta` is usually 10 000.
    ///
    /// # Errors
    /// [`Error::Argument`] unless `rot_dim` is even and above 0, or if the tables do not fit into
    /// memory.
    pub fn new(rot_dim: usize, max_positions: usize, theta: f64) -> Result<Self> {
        Self::from_frequencies(&Self::frequencies(rot_dim, theta)?, max_positions, 1.0)
    }

    /// Returns the angle of each pair between consecutive positions, `θ^(-2i / rot_dim)`, rounded
    /// at each step as PyTorch programs do.
    ///
    /// # Errors
    /// [`Error::Argument`] unless `rot_dim` is even and above 0.
    pub(crate) fn frequencies(rot_dim: usize, theta: f64) -> Result<Vec<f32>> {
        if !rot_dim.is_multiple_of(2) || !(2..=1 << 20).contains(&rot_dim) {
            return Err(Error::argument("rope columns", "an even number above 0", rot_dim));
        }
        let power = |i: usize| theta.powf(f64::from((2 * i) as f32 / rot_dim as f32)) as f32;
        Ok((0..rot_dim / 2).map(|i| 1.0 / power(i)).collect())
    }

    /// Creates tables from the angle of each pair between consecutive positions, for the scaled
    /// variants; cosines and sines are multiplied by `scale`.
    ///
    /// # Errors
    /// [`Error::Argument`] if there are no frequencies or the tables do not fit into memory.
    pub fn from_frequencies(frequencies: &[f32], max_positions: usize, scale: f32) -> Result<Self> {
        Self::from_position(frequencies, 0, max_positions, scale)
    }

    /// Same as [`Rope::from_frequencies`], for `max_positions` positions from `first` on: position
    /// 0 of [`Rope::forward`] has the angle of `first`.
    ///
    /// # Errors
    /// Same as [`Rope::from_frequencies`].
    pub(crate) fn from_position(frequencies: &[f32], first: u32, max_positions: usize, scale: f32) -> Result<Self> {
        let len = frequencies.len().checked_mul(max_positions).filter(|&len| len <= MAX_TABLE);
        if frequencies.is_empty() || len.is_none() {
            let found = format!("{} frequencies, {max_positions} positions", frequencies.len());
            return Err(Error::argument("rope tables", "a size that fits into memory", found));
        }
        // The angle is rounded to f32 as in PyTorch programs, with which checkpoints were trained.
        let angles = || {
            let at = |position| frequencies.iter().map(move |f| f64::from((first as usize + position) as f32 * f));
            (0..max_positions).flat_map(at)
        };
        Ok(Self {
            cos: angles().map(|a| a.cos() as f32 * scale).collect(),
            sin: angles().map(|a| a.sin() as f32 * scale).collect(),
            rot_dim: 2 * frequencies.len(),
            interleaved: false,
        })
    }

    /// Makes pairs of adjacent columns instead of one column of each half.
    pub fn interleaved(self) -> Self {
        Self { interleaved: true, ..self }
    }

    /// Returns the number of positions in the tables.
    pub(crate) fn max_positions(&self) -> usize {
        2 * self.cos.len() / self.rot_dim
    }

    /// Rotates each head of each row according to the position of the row.
    ///
    /// # Shapes
    /// `x: […, n_heads · head_dim]`, `positions: […]` → `[…, n_heads · head_dim]`.
    ///
    /// # Errors
    /// [`Error::Shape`] if the shapes do not match; [`Error::Id`] if a position is not in the
    /// tables.
    pub fn forward(&self, x: &Tensor, n_heads: usize, positions: &IdTensor) -> Result<Tensor> {
        let head_dim = x.last_dim() / n_heads.max(1);
        if x.shape().split_last().is_none_or(|(_, rows)| rows != positions.shape()) {
            let expected = format!("{:?} and the heads' columns", positions.shape());
            return Err(Error::shape("rope", expected, x.shape()));
        }
        if n_heads == 0 || !x.last_dim().is_multiple_of(n_heads) || head_dim < self.rot_dim {
            let expected = format!("{n_heads} heads of at least {} columns", self.rot_dim);
            return Err(Error::shape("rope", expected, x.shape()));
        }
        positions.check_below(self.max_positions(), "position")?;
        let turn = move |rope: &Rope, x: &mut Tensor, positions: &IdTensor, inverse| {
            let (cos, sin) = (&rope.cos, &rope.sin);
            let positions = positions.data();
            let x = x.make_mut();
            vecmath::rope(x, n_heads, head_dim, rope.rot_dim, cos, sin, positions, rope.interleaved, inverse);
        };
        let mut y = x.detach();
        turn(self, &mut y, positions, false);
        Ok(tape::record("rope", &[x], y, || {
            let (rope, positions) = (self.clone(), positions.clone());
            Box::new(move |mut dy, _| {
                turn(&rope, &mut dy, &positions, true);
                Ok(vec![Some(dy)])
            })
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::gradient_check::{check, sample};

    #[test]
    fn gradients_match_central_differences() {
        let positions = IdTensor::batch(&[[0, 5, 2], [1, 1, 9]]).unwrap();
        for (rot_dim, head_dim) in [(2, 2), (4, 4), (4, 7), (6, 6)] {
            let rope = Rope::new(rot_dim, 10, 100.0).unwrap();
            for rope in [rope.clone(), rope.interleaved()] {
                check("rope", &[sample(&[2, 3, 3 * head_dim], 1)], |x| rope.forward(&x[0], 3, &positions));
            }
        }
        let scaled = Rope::from_frequencies(&[0.5, 0.1], 10, 1.3).unwrap();
        check("scaled", &[sample(&[2, 3, 4], 1)], |x| scaled.forward(&x[0], 1, &positions));
    }

    #[test]
    fn products_depend_on_the_difference_of_positions() {
        let (q, k) = (sample(&[1, 1, 8], 1), sample(&[1, 1, 8], 2));
        for rope in [Rope::new(8, 100, 10_000.0).unwrap(), Rope::new(8, 100, 10_000.0).unwrap().interleaved()] {
            let product = |i, j| {
                let q = rope.forward(&q, 1, &IdTensor::sequence(&[i])).unwrap();
                let k = rope.forward(&k, 1, &IdTensor::sequence(&[j])).unwrap();
                q.data().iter().zip(k.data()).map(|(q, k)| q * k).sum::<f32>()
            };
            assert!((product(7, 3) - product(94, 90)).abs() < 1e-4);
            assert!((product(7, 3) - product(7, 4)).abs() > 1e-2);
        }
    }

    #[test]
    fn wrong_settings_and_positions_are_errors() {
        assert!(Rope::new(3, 4, 1e4).is_err());
        assert!(Rope::new(0, 4, 1e4).is_err());
        assert!(Rope::new(4, usize::MAX, 1e4).is_err());
        assert!(Rope::new(usize::MAX - 1, 4, 1e4).is_err());
        let rope = Rope::new(4, 3, 1e4).unwrap();
        assert!(rope.forward(&Tensor::zeros(&[1, 1, 4]), 1, &IdTensor::sequence(&[3])).is_err());
        assert!(rope.forward(&Tensor::zeros(&[1, 1, 6]), 2, &IdTensor::sequence(&[0])).is_err());
        assert!(rope.forward(&Tensor::zeros(&[1, 2, 4]), 1, &IdTensor::sequence(&[0])).is_err());
    }
}
