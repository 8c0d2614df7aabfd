//! One vector against many rows: `out[r] = x · rows[r]`, the inner loop of exact nearest-neighbour search.
//!
//! Rows may be `f32`, `f16` or `i8`; four are taken at a time, so that four sums are under way and `x` is read once for
//! all. The work is reading the rows: at 300 dimensions one thread keeps up with memory. A row's result depends on the
//! row alone, not on its neighbours.

use half::f16;

use super::simd::{Isa, SimdOp, dispatch};

/// A number that rows may consist of.
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
            // A loop of constant length becomes one widening instruction.
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
    assert_eq!(rows.len(), x.len() * out.len(), "row_dots: rows are not out.len() times x.len()");
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
        let (fours, rest) = self.out.as_chunks_mut::<4>();
        let cut = fours.len() * 4 * n;
        for (out, rows) in fours.iter_mut().zip(self.rows[..cut].chunks_exact(4 * n)) {
            *out = dots(isa, self.x, rows);
        }
        for (out, row) in rest.iter_mut().zip(self.rows[cut..].chunks_exact(n)) {
            [*out] = dots(isa, self.x, row);
        }
    }
}

#[inline(always)]
fn dots<const R: usize, T: Element, I: Isa>(isa: I, x: &[f32], rows: &[T]) -> [f32; R] {
    let n = x.len();
    let row: [&[T]; R] = std::array::from_fn(|r| &rows[r * n..(r + 1) * n]);
    let mut sums = [isa.zero(); R];
    let mut i = 0;
    while i + I::LANES <= n {
        let v = isa.load(&x[i..i + I::LANES]);
        for r in 0..R {
            // The same place of the rows after these: several short streams are too few for the processor's own prefetching.
            isa.prefetch(row[r].as_ptr().wrapping_add(i + R * n));
            sums[r] = isa.mul_add(T::load(isa, &row[r][i..i + I::LANES]), v, sums[r]);
        }
        i += I::LANES;
    }
    if i < n {
        let v = isa.load_partial(&x[i..]);
        for r in 0..R {
            sums[r] = isa.mul_add(T::load(isa, &row[r][i..]), v, sums[r]);
        }
    }
    // A loop and not `map`, whose closure would be a function of its own, without the processor's vectors.
    let mut out = [0.0; R];
    for r in 0..R {
        out[r] = isa.reduce_sum(sums[r]);
    }
    out
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
