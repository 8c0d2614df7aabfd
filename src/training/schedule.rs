//! Learning rate schedules.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// A learning rate schedule: a factor of the learning rate for each step.
///
/// ```text
/// warm-up       (s + 1) / (w + 1)                            for s < w
/// constant      1
/// linear        1 - (1 - min) · r                            r = min((s - w) / (n - w), 1)
/// cosine        min + (1 - min) · (1 + cos πr) / 2           Loshchilov, Hutter 2017, one period
/// inverse root  √(w / s), and 1 / √(s + 1) without warm-up   Vaswani et al. 2017
/// ```
///
/// for step s counted from 0, w warm-up steps and n steps in total. Warm-up begins above zero, as
/// in nanoGPT, so that the first step changes the weights. The factors agree with those of
/// `torch.optim.lr_scheduler`: `LinearLR(start_factor=1/(w+1), total_iters=w)` followed by
/// `ConstantLR(1)`, `LinearLR`, `CosineAnnealingLR` or `LambdaLR`.
///
/// # Examples
/// ```
/// use loquat::training::Schedule;
///
/// // nanoGPT: from 1e-3 to 1e-4 by a cosine over 2000 steps, 100 of them warm-up
/// let schedule = Schedule::cosine(2000).min_factor(0.1).warmup(100);
/// assert!((schedule.factor(50) - 51.0 / 101.0).abs() < 1e-12);
/// assert_eq!(schedule.factor(100), 1.0);
/// assert!((schedule.factor(2000) - 0.1).abs() < 1e-12);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Schedule {
    curve: Curve,
    warmup_steps: u64,
    /// The factor at the end.
    min_factor: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Curve {
    Constant,
    Linear { total_steps: u64 },
    Cosine { total_steps: u64 },
    InverseSqrt,
}

impl Default for Schedule {
    fn default() -> Self {
        Self::constant()
    }
}

impl Schedule {
    /// Returns a schedule with a constant learning rate.
    pub fn constant() -> Self {
        Self { curve: Curve::Constant, warmup_steps: 0, min_factor: 0.0 }
    }

    /// Returns a schedule that falls linearly to [`Schedule::min_factor`] (default: 0) at step
    /// `total_steps` (warm-up included).
    pub fn linear(total_steps: u64) -> Self {
        Self { curve: Curve::Linear { total_steps }, ..Self::constant() }
    }

    /// Returns a schedule that falls along half a cosine to [`Schedule::min_factor`] (default: 0)
    /// at step `total_steps` (warm-up included).
    pub fn cosine(total_steps: u64) -> Self {
        Self { curve: Curve::Cosine { total_steps }, ..Self::constant() }
    }

    /// Returns a schedule that falls with the inverse square root of the step, without end.
    pub fn inverse_sqrt() -> Self {
        Self { curve: Curve::InverseSqrt, ..Self::constant() }
    }

    /// Sets the number of warm-up steps, in which the factor rises to 1. Default: 0.
    pub fn warmup(self, steps: u64) -> Self {
        Self { warmup_steps: steps, ..self }
    }

    /// Sets the smallest factor after warm-up, in [0, 1]. Default: 0.
    pub fn min_factor(self, factor: f64) -> Self {
        Self { min_factor: factor, ..self }
    }

    /// Returns the factor of step `step`, counted from 0.
    pub fn factor(&self, step: u64) -> f64 {
        let warmup = self.warmup_steps;
        if step < warmup {
            return (step + 1) as f64 / (warmup + 1) as f64;
        }
        let progress = |total: u64| {
            if step >= total { 1.0 } else { (step - warmup) as f64 / total.saturating_sub(warmup).max(1) as f64 }
        };
        let min = self.min_factor;
        match self.curve {
            Curve::Constant => 1.0,
            Curve::Linear { total_steps } => 1.0 - (1.0 - min) * progress(total_steps),
            Curve::Cosine { total_steps } => {
                min + (1.0 - min) * 0.5 * (1.0 + (std::f64::consts::PI * progress(total_steps)).cos())
            }
            Curve::InverseSqrt if warmup == 0 => (1.0 / (step as f64 + 1.0).sqrt()).max(min),
            Curve::InverseSqrt => (warmup as f64 / step as f64).sqrt().max(min),
        }
    }

    /// Checks that the smallest factor is in [0, 1].
    ///
    /// # Errors
    /// [`Error::Argument`] if it is not.
    pub(crate) fn check(&self) -> Result<()> {
        if (0.0..=1.0).contains(&self.min_factor) {
            Ok(())
        } else {
            Err(Error::argument("min_factor", "a number in [0, 1]", self.min_factor))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_curve_rises_to_one_and_never_passes_it() {
        for curve in [Schedule::constant(), Schedule::linear(50), Schedule::cosine(50), Schedule::inverse_sqrt()] {
            for warmup in [0, 1, 10, 50, 60] {
                let schedule = curve.warmup(warmup).min_factor(0.2);
                let factors: Vec<f64> = (0..100).map(|s| schedule.factor(s)).collect();
                assert!(factors.iter().all(|f| *f > 0.0 && *f <= 1.0), "{schedule:?}: {factors:?}");
                assert!(factors[..warmup as usize].is_sorted());
                assert!(factors[warmup as usize..].iter().rev().is_sorted(), "{schedule:?}");
                assert!(factors[warmup as usize..].iter().all(|f| *f >= 0.1), "{schedule:?}");
            }
        }
    }

    #[test]
    fn the_end_is_the_smallest_factor_and_stays() {
        for curve in [Schedule::linear(10), Schedule::cosine(10)] {
            for step in [10, 11, 1000, u64::MAX] {
                assert!((curve.min_factor(0.25).factor(step) - 0.25).abs() < 1e-12);
                assert!(curve.factor(step).abs() < 1e-12);
            }
        }
        assert!(Schedule::cosine(10).min_factor(1.5).check().is_err());
    }
}
