//! Powers with one exponent for all.
//!
//! xᵖ = e^(p ln x) in double precision, which leaves enough digits for every exponent. ln x is
//! k ln 2 + 2 artanh s with s = (m - 1)/(m + 1) and m in [√½, √2), and eᵗ = 2ⁿ·eʳ with
//! |r| ≤ ln 2 / 2: the series of both, in additions, products and quotients that every processor
//! rounds alike. So all instruction sets give the same bits, the portable one too.

use crate::kernels::parallel;
use std::f64::consts::{FRAC_1_SQRT_2, LN_2, LOG2_E};

/// 1/(2k + 1): artanh s = s Σ s²ᵏ/(2k + 1); what is left out is below 3e-15 of it.
const ARTANH: [f64; 9] =
    [1.0, 1.0 / 3.0, 1.0 / 5.0, 1.0 / 7.0, 1.0 / 9.0, 1.0 / 11.0, 1.0 / 13.0, 1.0 / 15.0, 1.0 / 17.0];
/// 1/k!: what is left out is below 1e-14 of eʳ.
const EXP: [f64; 12] = [
    1.0,
    1.0,
    1.0 / 2.0,
    1.0 / 6.0,
    1.0 / 24.0,
    1.0 / 120.0,
    1.0 / 720.0,
    1.0 / 5040.0,
    1.0 / 40_320.0,
    1.0 / 362_880.0,
    1.0 / 3_628_800.0,
    1.0 / 39_916_800.0,
];
/// Beyond this, both ways, eᵗ is infinite or zero in `f32`.
const LARGEST: f64 = 200.0;
/// Adding this to a number below 2⁵¹ leaves it rounded to a whole one.
const ROUNDER: f64 = 6_755_399_441_055_744.0;

/// y = xᵖ
///
/// Within 0.51 ulp. Zeros, infinities, negative numbers and NaN as for `powf` of C and Rust: 1 for
/// p = 0, NaN for a negative number to a power that is not whole.
///
/// # Panics
///
/// If the slices differ in length.
pub fn powf(x: &[f32], p: f32, y: &mut [f32]) {
    assert_eq!(x.len(), y.len(), "powf: input and output must have the same length");
    let chunk = parallel::chunk_len(x.len(), 16, 250.0);
    parallel::chunks_mut(y, chunk, |i, y| {
        for (y, &x) in y.iter_mut().zip(&x[i * chunk..]) {
            *y = power(x, p);
        }
    });
}

fn power(x: f32, p: f32) -> f32 {
    let magnitude = x.abs();
    if magnitude == 0.0 || !magnitude.is_finite() || !p.is_finite() || p == 0.0 {
        // Exact in every library.
        return x.powf(p);
    }
    if x < 0.0 && p != p.trunc() {
        return f32::NAN;
    }
    let y = exp((f64::from(p) * ln(f64::from(magnitude))).clamp(-LARGEST, LARGEST)) as f32;
    let odd = p.abs() < (1u32 << 24) as f32 && p as i32 & 1 == 1;
    if x < 0.0 && odd { -y } else { y }
}

/// ln x of a positive normal number.
fn ln(x: f64) -> f64 {
    let base = FRAC_1_SQRT_2.to_bits();
    let k = x.to_bits().wrapping_sub(base) as i64 >> 52;
    let m = f64::from_bits(x.to_bits().wrapping_sub((k << 52) as u64));
    let s = (m - 1.0) / (m + 1.0);
    let z = s * s;
    let sum = ARTANH.iter().rev().fold(0.0, |sum, c| sum * z + c);
    k as f64 * LN_2 + 2.0 * s * sum
}

/// eᵗ for |t| ≤ 700
fn exp(t: f64) -> f64 {
    let n = (t * LOG2_E + ROUNDER) - ROUNDER;
    let r = t - n * LN_2;
    let sum = EXP.iter().rev().fold(0.0, |sum, c| sum * r + c);
    sum * f64::from_bits(((n as i64 + 1023) << 52) as u64)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{check_ulp, check_values};
    use super::*;
    use crate::kernels::simd::for_each_level;

    #[test]
    fn powers_are_within_their_bound() {
        for p in [0.3, 1.5, 2.0, -1.0, -2.7, 10.0] {
            check_ulp(|x, y| powf(x, p, y), |x| x.powf(f64::from(p)), 0.01..100.0, 0.51);
        }
        check_ulp(|x, y| powf(x, 3.0, y), |x| x.powf(3.0), -3.0..3.0, 0.51);
        check_ulp(|x, y| powf(x, 1000.0, y), |x| x.powf(1000.0), 0.95..1.05, 0.51);
        check_ulp(|x, y| powf(x, -0.5, y), |x| x.powf(-0.5), 1e-45..1e-38, 0.51);
    }

    #[test]
    fn special_values_are_those_of_the_standard_library() {
        let x = [0.0, -0.0, 1.0, -1.0, 2.0, -2.0, 0.5, -0.5, f32::INFINITY, f32::NEG_INFINITY, f32::NAN, 1e30, -1e-30];
        let p = [0.0, 1.0, -1.0, 2.0, -2.0, 3.0, -3.0, 0.5, -0.5, 1e9, 16_777_217.0, f32::INFINITY, f32::NAN];
        for p in p {
            check_values(|x, y| powf(x, p, y), &x.map(|x| (x, x.powf(p))));
        }
    }

    #[test]
    fn every_level_has_the_same_bits() {
        let x: Vec<f32> = (1..5000).map(|i| i as f32 * 0.013).collect();
        let mut seen: Option<Vec<f32>> = None;
        for_each_level(|_| {
            let mut y = vec![0.0; x.len()];
            powf(&x, 0.37, &mut y);
            assert_eq!(seen.get_or_insert_with(|| y.clone()), &y);
        });
    }
}
