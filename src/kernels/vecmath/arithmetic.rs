//! Element-wise and row-wise arithmetic.

use super::elementwise::{Lanes, lanes, map, update, update2, update3};
use super::rows::{chunk_rows, map_row};
use crate::kernels::parallel::{self, Parts};
use crate::kernels::simd::{Isa, SimdOp, dispatch};

/// out = x + y
pub fn add(x: &[f32], y: &[f32], out: &mut [f32]) {
    map(Add, [x, y], out);
}

/// out = x - y
pub fn sub(x: &[f32], y: &[f32], out: &mut [f32]) {
    map(Sub, [x, y], out);
}

/// out = x · y
pub fn mul(x: &[f32], y: &[f32], out: &mut [f32]) {
    map(Mul, [x, y], out);
}

/// out = x / y
pub fn div(x: &[f32], y: &[f32], out: &mut [f32]) {
    map(Div, [x, y], out);
}

/// y += x
pub fn add_assign(y: &mut [f32], x: &[f32]) {
    update2(Add, y, x);
}

/// y -= x
pub fn sub_assign(y: &mut [f32], x: &[f32]) {
    update2(Sub, y, x);
}

/// y ·= x
pub fn mul_assign(y: &mut [f32], x: &[f32]) {
    update2(Mul, y, x);
}

/// y += α x, with one rounding
pub fn axpy(alpha: f32, x: &[f32], y: &mut [f32]) {
    update2(Axpy(alpha), y, x);
}

/// x ·= α
pub fn scale(alpha: f32, x: &mut [f32]) {
    update(Scale(alpha), x);
}

/// y = α x
pub fn scale_into(alpha: f32, x: &[f32], y: &mut [f32]) {
    map(Scale(alpha), [x], y);
}

/// x += α
pub fn shift(alpha: f32, x: &mut [f32]) {
    update(Shift(alpha), x);
}

/// y += a · b, with one rounding
pub fn mul_add_assign(a: &[f32], b: &[f32], y: &mut [f32]) {
    update3(MulAdd, y, a, b);
}

/// y = √x
pub fn sqrt(x: &[f32], y: &mut [f32]) {
    map(Sqrt, [x], y);
}

/// Adds `row` to each row of `x`.
///
/// # Shapes
///
/// `x` and `out` `[rows, cols]`, `row` `[cols]`.
pub fn add_row(x: &[f32], row: &[f32], out: &mut [f32]) {
    map_rows(Add, x, row, out);
}

/// Multiplies each row of `x` by `row`, element by element.
///
/// # Shapes
///
/// `x` and `out` `[rows, cols]`, `row` `[cols]`.
pub fn mul_row(x: &[f32], row: &[f32], out: &mut [f32]) {
    map_rows(Mul, x, row, out);
}

#[track_caller]
fn map_rows<F: Lanes<2>>(f: F, x: &[f32], row: &[f32], out: &mut [f32]) {
    assert_eq!(x.len(), out.len(), "input and output must have the same length");
    if x.is_empty() {
        return;
    }
    let cols = row.len();
    assert!(cols > 0 && x.len().is_multiple_of(cols), "{} elements do not make rows of {cols}", x.len());
    let chunk = chunk_rows(x.len() / cols, cols, F::NS) * cols;
    let out = Parts::new(out, chunk);
    parallel::for_each(out.count(), |i| {
        // SAFETY: each task takes the part with its own index.
        let part = unsafe { out.get(i) };
        dispatch(MapRows { f, x: &x[out.range(i)], row, out: part });
    });
}

struct MapRows<'a, F> {
    f: F,
    x: &'a [f32],
    row: &'a [f32],
    out: &'a mut [f32],
}

impl<F: Lanes<2>> SimdOp for MapRows<'_, F> {
    type Output = ();
    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        let cols = self.row.len();
        for (x, out) in self.x.chunks_exact(cols).zip(self.out.chunks_exact_mut(cols)) {
            map_row(isa, [x, self.row], out, self.f);
        }
    }
}

lanes!(pub(super) struct Add: 2 in 3.0 ns, |self, isa, [x, y]| isa.add(x, y));

lanes!(struct Sub: 2 in 3.0 ns, |self, isa, [x, y]| isa.sub(x, y));

lanes!(pub(super) struct Mul: 2 in 3.0 ns, |self, isa, [x, y]| isa.mul(x, y));

lanes!(struct Div: 2 in 5.0 ns, |self, isa, [x, y]| isa.div(x, y));

lanes!(pub(super) struct Axpy(pub(super) f32): 2 in 3.0 ns, |self, isa, [y, x]| isa.mul_add(isa.splat(self.0), x, y));

#[derive(Clone, Copy)]
pub(super) struct Scale(pub(super) f32);

impl Lanes<1> for Scale {
    const NS: f32 = 2.0;
    #[inline(always)]
    fn lanes<I: Isa>(self, isa: I, [x]: [I::F32; 1]) -> I::F32 {
        isa.mul(isa.splat(self.0), x)
    }
}

lanes!(struct Shift(f32): 1 in 2.0 ns, |self, isa, [x]| isa.add(isa.splat(self.0), x));

lanes!(pub(super) struct MulAdd: 3 in 4.0 ns, |self, isa, [y, a, b]| isa.mul_add(a, b, y));

lanes!(struct Sqrt: 1 in 5.0 ns, |self, isa, [x]| isa.sqrt(x));

#[cfg(test)]
mod tests {
    use super::super::testing::{LENGTHS, assert_close, random};
    use super::*;
    use crate::kernels::simd::for_each_level;

    #[test]
    fn every_operation_matches_its_scalar() {
        type Binary = (fn(&[f32], &[f32], &mut [f32]), fn(f32, f32) -> f32);
        let into: [Binary; 4] = [(add, |x, y| x + y), (sub, |x, y| x - y), (mul, |x, y| x * y), (div, |x, y| x / y)];
        type Update = (fn(&mut [f32], &[f32]), fn(f32, f32) -> f32);
        let updates: [Update; 4] = [
            (add_assign, |y, x| y + x),
            (sub_assign, |y, x| y - x),
            (mul_assign, |y, x| y * x),
            (|y, x| axpy(0.5, x, y), |y, x| 0.5 * x + y),
        ];
        let in_place: [Update; 4] = [
            (|y, _| scale(3.0, y), |y, _| 3.0 * y),
            (|y, _| shift(3.0, y), |y, _| 3.0 + y),
            (|y, x| scale_into(-2.0, x, y), |_, x| -2.0 * x),
            (|y, x| mul_add_assign(x, x, y), |y, x| x.mul_add(x, y)),
        ];
        for_each_level(|_| {
            for len in LENGTHS {
                let (x, y) = (random(len, 1), random(len, 2));
                for (f, scalar) in into {
                    let mut out = vec![7.0; len];
                    f(&x, &y, &mut out);
                    let expected: Vec<f32> = x.iter().zip(&y).map(|(&x, &y)| scalar(x, y)).collect();
                    assert_eq!(out, expected);
                }
                for (f, scalar) in updates.into_iter().chain(in_place) {
                    let mut out = y.clone();
                    f(&mut out, &x);
                    let expected: Vec<f32> = x.iter().zip(&y).map(|(&x, &y)| scalar(y, x)).collect();
                    assert_close(&out, &expected, 2e-7);
                }
                let mut roots = vec![7.0; len];
                let squares: Vec<f32> = x.iter().map(|x| x * x).collect();
                sqrt(&squares, &mut roots);
                assert!(squares.iter().zip(&roots).all(|(s, r)| s.sqrt() == *r));
            }
        });
    }

    #[test]
    fn rows_are_added_and_multiplied() {
        for_each_level(|_| {
            for cols in [1, 3, 16, 33, 65] {
                for rows in [0, 1, 5] {
                    let (x, row) = (random(rows * cols, 1), random(cols, 2));
                    let (mut sum, mut product) = (vec![7.0; x.len()], vec![7.0; x.len()]);
                    add_row(&x, &row, &mut sum);
                    mul_row(&x, &row, &mut product);
                    assert!((0..x.len()).all(|i| sum[i] == x[i] + row[i % cols]));
                    assert!((0..x.len()).all(|i| product[i] == x[i] * row[i % cols]));
                }
            }
        });
    }
}
