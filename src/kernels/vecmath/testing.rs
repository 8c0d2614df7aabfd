//! Shared test code: inputs, distances in ulp, references in double precision.

use std::ops::Range;

use crate::kernels::simd::{Level, for_each_level};

/// Lengths around the width of every vector.
pub(crate) const LENGTHS: [usize; 14] = [0, 1, 3, 4, 5, 7, 8, 15, 16, 17, 33, 64, 67, 1000];

/// Random numbers in [-1, 1), determined by `seed`.
pub(crate) fn random(len: usize, seed: u32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..len).map(|_| next()).collect()
}

/// Returns the distance of `found` from `expected` in units of the spacing of `f32` at `expected`.
pub(crate) fn ulp(found: f32, expected: f64) -> f64 {
    let near = expected as f32;
    if found == near || (found.is_nan() && near.is_nan()) {
        return if found.is_finite() { (found as f64 - expected).abs() / spacing(near) } else { 0.0 };
    }
    (found as f64 - expected).abs() / spacing(near)
}

fn spacing(x: f32) -> f64 {
    let x = x.abs().max(f32::MIN_POSITIVE);
    (f32::from_bits(x.to_bits() + 1) - x) as f64
}

/// Returns the additional ulps that a function is allowed where multiply–add rounds twice.
pub(crate) fn slack(level: Level) -> f64 {
    if level == Level::Portable { 1.0 } else { 0.0 }
}

/// Checks `f` at every level, over a dense sweep of `range`, and at odd lengths.
#[track_caller]
pub(crate) fn check_ulp(f: impl Fn(&[f32], &mut [f32]), reference: impl Fn(f64) -> f64, range: Range<f32>, bound: f64) {
    const STEPS: usize = 200_003;
    let at = |i: usize| range.start + (range.end - range.start) * (i as f32 / STEPS as f32);
    let x: Vec<f32> = (0..STEPS).map(at).collect();
    for_each_level(|level| {
        let mut y = vec![0.0; x.len()];
        f(&x, &mut y);
        let worst = (0..x.len())
            .max_by(|&i, &j| ulp(y[i], reference(x[i] as f64)).total_cmp(&ulp(y[j], reference(x[j] as f64))));
        let worst = worst.expect("the sweep is not empty");
        let distance = ulp(y[worst], reference(x[worst] as f64));
        eprintln!("{level:?} {range:?}: {distance:.2} ulp at {:e}", x[worst]);
        assert!(distance <= bound + slack(level), "{level:?}: {distance:.2} ulp at {:e}", x[worst]);
        for len in LENGTHS {
            let mut part = vec![7.0; len + 1];
            f(&x[..len], &mut part[..len]);
            assert!(part[..len] == y[..len] && part[len] == 7.0, "{level:?}: length {len}");
        }
    });
}

/// Checks single values, bit for bit.
#[track_caller]
pub(crate) fn check_values(f: impl Fn(&[f32], &mut [f32]), values: &[(f32, f32)]) {
    for_each_level(|level| {
        for &(x, expected) in values {
            let mut y = [7.0];
            f(&[x], &mut y);
            let same = y[0].to_bits() == expected.to_bits() || (y[0].is_nan() && expected.is_nan());
            assert!(same, "{level:?}: at {x:e} expected {expected:e}, found {:e}", y[0]);
        }
    });
}

/// erf in double precision: its series below 3, the continued fraction of erfc above (both converge
/// to 1e-15 there).
pub(crate) fn erf_f64(x: f64) -> f64 {
    let t = x.abs();
    let y = if t < 3.0 {
        let (mut term, mut sum, mut n) = (t, t, 0.0);
        while term.abs() > 1e-18 * sum.abs() {
            n += 1.0;
            term *= -t * t / n;
            sum += term / (2.0 * n + 1.0);
        }
        sum * 2.0 / std::f64::consts::PI.sqrt()
    } else {
        1.0 - erfc_f64(t)
    };
    y.copysign(x)
}

/// erfc for x ≥ 3, by its continued fraction.
pub(crate) fn erfc_f64(x: f64) -> f64 {
    let fraction = (1..=60).rev().fold(x, |f, k| x + 0.5 * k as f64 / f);
    (-x * x).exp() / (fraction * std::f64::consts::PI.sqrt())
}

/// Φ in double precision.
pub(crate) fn normal_cdf_f64(x: f64) -> f64 {
    let t = x.abs() / std::f64::consts::SQRT_2;
    let tail = if t < 3.0 { 0.5 - 0.5 * erf_f64(t) } else { 0.5 * erfc_f64(t) };
    if x < 0.0 { tail } else { 1.0 - tail }
}

/// Checks that two slices agree within `tolerance`, relative to the larger of 1 and the expected
/// number.
#[track_caller]
pub(crate) fn assert_close(found: &[f32], expected: &[f32], tolerance: f32) {
    assert_eq!(found.len(), expected.len());
    for (i, (&found, &expected)) in found.iter().zip(expected).enumerate() {
        let error = (found - expected).abs() / expected.abs().max(1.0);
        assert!(error <= tolerance, "element {i}: expected {expected}, found {found}");
    }
}
