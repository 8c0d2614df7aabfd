//! Rotary position embeddings, forward and backward.
//!
//! Pairs of features of each head are rotated by an angle proportional to the position (Su et al.,
//! *RoFormer*, 2021, arXiv:2104.09864):
//!
//! ```text
//! a′ = a cos θ - b sin θ,   b′ = b cos θ + a sin θ
//! ```
//!
//! The pairs are (i, i + rot_dim/2), as in GPT-NeoX and Llama, or (2i, 2i + 1), `interleaved`, as
//! in the paper and GPT-J. The backward pass is the rotation by -θ.

use super::rows::{chunk_rows, count_rows};
use crate::kernels::extent::size;
use crate::kernels::parallel::{self, Parts};
use crate::kernels::simd::{Isa, SimdOp, dispatch};

/// Rotates the first `rot_dim` features of each head in place; by the negative angle if `inverse`.
///
/// # Shapes
///
/// `x` `[rows, n_heads * head_dim]`, `positions` `[rows]`; `cos` and `sin`
/// `[n_positions, rot_dim / 2]`.
///
/// # Panics
///
/// If `rot_dim` is odd or larger than `head_dim`, a position is not in the tables, or the lengths
/// do not match.
///
/// # Examples
///
/// ```
/// // A quarter turn of one head of two features, at position 1.
/// let mut x = [3.0, 4.0];
/// let (cos, sin) = ([1.0, 0.0], [0.0, 1.0]);
/// loquat::kernels::vecmath::rope(&mut x, 1, 2, 2, &cos, &sin, &[1], false, false);
/// assert_eq!(x, [-4.0, 3.0]);
/// ```
pub fn rope(
    x: &mut [f32],
    n_heads: usize,
    head_dim: usize,
    rot_dim: usize,
    cos: &[f32],
    sin: &[f32],
    positions: &[u32],
    interleaved: bool,
    inverse: bool,
) {
    let cols = size([n_heads, head_dim]);
    let cols = cols.unwrap_or_else(|| panic!("rope: {n_heads} heads of {head_dim} overflow a machine word"));
    let rows = count_rows(x.len(), cols);
    assert_eq!(positions.len(), rows, "rope: one position for each row");
    assert!(rot_dim.is_multiple_of(2) && rot_dim <= head_dim, "rope: {rot_dim} of {head_dim} features");
    assert_eq!(cos.len(), sin.len(), "rope: tables of the same length");
    if rows == 0 || rot_dim == 0 {
        return;
    }
    let n_positions = cos.len() / (rot_dim / 2);
    for &position in positions {
        assert!((position as usize) < n_positions, "rope: position {position} of {n_positions} in the tables");
    }
    let chunk = chunk_rows(rows, cols, 3.0);
    let x = Parts::new(x, chunk * cols);
    parallel::for_each(x.count(), |i| {
        let positions = &positions[i * chunk..rows.min((i + 1) * chunk)];
        // SAFETY: each task takes the part with its own index.
        let x = unsafe { x.get(i) };
        dispatch(Rope { x, n_heads, head_dim, rot_dim, cos, sin, positions, interleaved, inverse });
    });
}

struct Rope<'a> {
    x: &'a mut [f32],
    n_heads: usize,
    head_dim: usize,
    rot_dim: usize,
    cos: &'a [f32],
    sin: &'a [f32],
    positions: &'a [u32],
    interleaved: bool,
    inverse: bool,
}

impl SimdOp for Rope<'_> {
    type Output = ();
    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        let half = self.rot_dim / 2;
        let sign = if self.inverse { -1.0 } else { 1.0 };
        for (row, &position) in self.x.chunks_exact_mut(self.n_heads * self.head_dim).zip(self.positions) {
            let table = position as usize * half..(position as usize + 1) * half;
            let (cos, sin) = (&self.cos[table.clone()], &self.sin[table]);
            for head in row.chunks_exact_mut(self.head_dim) {
                if self.interleaved {
                    rotate_interleaved(isa, &mut head[..self.rot_dim], cos, sin, sign);
                } else {
                    let (a, b) = head[..self.rot_dim].split_at_mut(half);
                    rotate_halves(isa, a, b, cos, sin, sign);
                }
            }
        }
    }
}

#[inline(always)]
fn rotate<I: Isa>(isa: I, a: I::F32, b: I::F32, cos: I::F32, sin: I::F32) -> (I::F32, I::F32) {
    (isa.neg_mul_add(b, sin, isa.mul(a, cos)), isa.mul_add(a, sin, isa.mul(b, cos)))
}

/// Rotates the pairs (a\[i\], b\[i\]).
#[inline(always)]
fn rotate_halves<I: Isa>(isa: I, a: &mut [f32], b: &mut [f32], cos: &[f32], sin: &[f32], sign: f32) {
    let sign = isa.splat(sign);
    let tables = cos.chunks(I::LANES).zip(sin.chunks(I::LANES));
    for ((a, b), (cos, sin)) in a.chunks_mut(I::LANES).zip(b.chunks_mut(I::LANES)).zip(tables) {
        if a.len() == I::LANES {
            let sin = isa.mul(isa.load(sin), sign);
            let (new_a, new_b) = rotate(isa, isa.load(a), isa.load(b), isa.load(cos), sin);
            isa.store(a, new_a);
            isa.store(b, new_b);
        } else {
            let sin = isa.mul(isa.load_partial(sin), sign);
            let (new_a, new_b) = rotate(isa, isa.load_partial(a), isa.load_partial(b), isa.load_partial(cos), sin);
            isa.store_partial(a, new_a);
            isa.store_partial(b, new_b);
        }
    }
}

/// Rotates the pairs (x\[2i\], x\[2i + 1\]).
#[inline(always)]
fn rotate_interleaved<I: Isa>(isa: I, x: &mut [f32], cos: &[f32], sin: &[f32], sign: f32) {
    let signs = isa.splat(sign);
    let tables = cos.chunks(I::LANES).zip(sin.chunks(I::LANES));
    for (x, (cos, sin)) in x.chunks_mut(2 * I::LANES).zip(tables) {
        let sin = isa.mul(isa.load_partial(sin), signs);
        let cos = isa.load_partial(cos);
        let (low, high) = x.split_at_mut(x.len().min(I::LANES));
        let (a, b) = isa.deinterleave(isa.load_partial(low), isa.load_partial(high));
        let (a, b) = rotate(isa, a, b, cos, sin);
        let (new_low, new_high) = isa.interleave(a, b);
        isa.store_partial(low, new_low);
        isa.store_partial(high, new_high);
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{assert_close, random};
    use super::*;
    use crate::kernels::simd::for_each_level;

    #[test]
    fn every_pair_turns_and_turns_back() {
        for_each_level(|_| {
            for (n_heads, head_dim, rot_dim) in [(1, 2, 2), (3, 10, 6), (2, 64, 64), (2, 40, 38), (1, 8, 0)] {
                for interleaved in [false, true] {
                    let positions = [4, 0, 2];
                    let half = rot_dim / 2;
                    let angles: Vec<f32> = random(5 * half, 1).iter().map(|x| 3.0 * x).collect();
                    let cos: Vec<f32> = angles.iter().map(|a| a.cos()).collect();
                    let sin: Vec<f32> = angles.iter().map(|a| a.sin()).collect();
                    let x = random(3 * n_heads * head_dim, 2);
                    let mut expected = x.clone();
                    for (row, position) in expected.chunks_mut(n_heads * head_dim).zip(positions) {
                        for head in row.chunks_mut(head_dim) {
                            for i in 0..half {
                                let (a, b) = if interleaved { (2 * i, 2 * i + 1) } else { (i, i + half) };
                                let (c, s) = (cos[position * half + i], sin[position * half + i]);
                                (head[a], head[b]) = (head[a] * c - head[b] * s, head[b] * c + head[a] * s);
                            }
                        }
                    }
                    let positions = positions.map(|p| p as u32);
                    let mut y = x.clone();
                    rope(&mut y, n_heads, head_dim, rot_dim, &cos, &sin, &positions, interleaved, false);
                    assert_close(&y, &expected, 1e-6);
                    rope(&mut y, n_heads, head_dim, rot_dim, &cos, &sin, &positions, interleaved, true);
                    assert_close(&y, &x, 1e-6);
                }
            }
        });
    }

    #[test]
    #[should_panic]
    fn a_position_past_the_tables_is_refused() {
        rope(&mut [0.0; 2], 1, 2, 2, &[1.0], &[0.0], &[1], false, false);
    }
}
