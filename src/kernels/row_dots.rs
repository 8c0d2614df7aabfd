//! Products of one vector with many rows: `out[r] = x · rows[r]`, the inner loop of exact
//! nearest-neighbour search.
//!
//! Rows may be `f32`, `f16` or `i8`. Reading them dominates the time, so they are read strictly one
//! after another as one long stream, with prefetches some pages ahead; this is as fast as reading
//! without any arithmetic. (Four rows at a time save loads of `x` but take up to twice as long,
//! because the hardware prefetcher does not follow several short streams.) The result of a row
//! depends only on that row.

use half::f16;

use super::extent::size;
use super::simd::{Isa, SimdOp, dispatch};

/// An element type of rows.
pub trait Element: Copy + Send + Sync + 'static {
    /// Reads up to `LANES` of `x` as `f32`; the other lanes are zero.
    fn load<I: Isa>(isa: I, x: &[Self]) -> I::F32;
}

impl Element for f32 {
    #[inline(always)]
    fn load<I: Isa>(isa: I, x: &[f32]) -> I::F32 {
        if x.len() >= I::LANES { isa.load(x) } else { isa.load_partial(x) }
    }
}

impl Element for f16 {
    #[inline(always)]
    fn load<I: Isa>(isa: I, x: &[f16]) -> I::F32 {
        isa.load_f16_partial(x)
    }
}

impl Element for i8 {
    #[inline(always)]
    fn load<I: Isa>(isa: I, x: &[i8]) -> I::F32 {
        let mut wide = [0.0; super::simd::MAX_LANES];
        if x.len() >= I::LANES {
            // A loop of constant length is compiled to one converting instruction.
            for (w, &c) in wide[..I::LANES].iter_mut().zip(&x[..I::LANES]) {
                *w = f32::from(c);
            }
        } else {
            for (w, &c) in wide.iter_mut().zip(x) {
                *w = f32::from(c);
            }
        }
        isa.load(&wide)
    }
}

/// `out[r] = x · rows[r]` for rows of `x.len()` numbers each.
///
/// # Panics
/// If `rows.len() != x.len() * out.len()`.
pub fn row_dots<T: Element>(x: &[f32], rows: &[T], out: &mut [f32]) {
    assert_eq!(Some(rows.len()), size([x.len(), out.len()]), "row_dots: rows are not out.len() times x.len()");
    dispatch(RowDots { x, rows, out });
}

struct RowDots<'a, T> {
    x: &'a [f32],
    rows: &'a [T],
    out: &'a mut [f32],
}

impl<T: Element> SimdOp for RowDots<'_, T> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        let n = self.x.len();
        if n == 0 {
            self.out.fill(0.0);
            return;
        }
        for (out, row) in self.out.iter_mut().zip(self.rows.chunks_exact(n)) {
            *out = row_dot(isa, self.x, row);
        }
    }
}

/// The distance of prefetches from the current element, in bytes.
const AHEAD: usize = 8 << 10;

#[inline(always)]
fn row_dot<T: Element, I: Isa>(isa: I, x: &[f32], row: &[T]) -> f32 {
    let mut sums = [isa.zero(); 2];
    let (rows, xs) = (row.chunks_exact(2 * I::LANES), x.chunks_exact(2 * I::LANES));
    let rest = (rows.remainder(), xs.remainder());
    for (row, x) in rows.zip(xs) {
        for (k, sum) in sums.iter_mut().enumerate() {
            let at = k * I::LANES..(k + 1) * I::LANES;
            isa.prefetch(row[at.clone()].as_ptr().wrapping_byte_add(AHEAD));
            *sum = isa.mul_add(T::load(isa, &row[at.clone()]), isa.load(&x[at]), *sum);
        }
    }
    for (row, x) in rest.0.chunks(I::LANES).zip(rest.1.chunks(I::LANES)) {
        isa.prefetch(row.as_ptr().wrapping_byte_add(AHEAD));
        sums[0] = isa.mul_add(T::load(isa, row), isa.load_partial(x), sums[0]);
    }
    isa.reduce_sum(isa.add(sums[0], sums[1]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::simd::for_each_level;

    #[test]
    fn equals_the_sum_of_products_at_every_level() {
        for_each_level(|level| {
            for n in [0, 1, 3, 4, 15, 16, 17, 50, 100] {
                for rows in [0, 1, 3, 4, 9] {
                    let x: Vec<f32> = (0..n).map(|i| (i as f32 * 0.7).sin()).collect();
                    let codes: Vec<i8> = (0..n * rows).map(|i| (i * 37 % 255) as u8 as i8).collect();
                    let floats: Vec<f32> = codes.iter().map(|&c| f32::from(c)).collect();
                    let halves: Vec<f16> = floats.iter().map(|&v| f16::from_f32(v)).collect();
                    let naive: Vec<f64> = (0..rows)
                        .map(|r| (0..n).map(|i| f64::from(x[i]) * f64::from(floats[r * n + i])).sum())
                        .collect();
                    let mut out = vec![9.0; rows];
                    let check = |what: &str, out: &[f32]| {
                        for (a, b) in out.iter().zip(&naive) {
                            assert!((f64::from(*a) - b).abs() < 1e-3, "{what} {level:?} n={n} rows={rows}: {a} {b}");
                        }
                    };
                    row_dots(&x, &floats, &mut out);
                    check("f32", &out);
                    row_dots(&x, &halves, &mut out);
                    check("f16", &out);
                    row_dots(&x, &codes, &mut out);
                    check("i8", &out);
                }
            }
        });
    }
}
