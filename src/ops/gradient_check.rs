//! Central differences, against which every backward formula is tested.

use crate::error::Result;
use crate::random::Rng;
use crate::tensor::{Tensor, no_grad};

/// Compares the gradients of `Σ cᵢ f(inputs)ᵢ`, with random `c`, with central differences for every
/// element of every input.
///
/// In `f32`, a difference quotient has about three correct digits: the step is 1/128 and the
/// tolerance 2 % of the largest gradient.
#[track_caller]
pub(crate) fn check(name: &str, inputs: &[Tensor], f: impl Fn(&[Tensor]) -> Result<Tensor>) {
    let watched: Vec<Tensor> = inputs.iter().map(Tensor::watch).collect();
    let y = f(&watched).unwrap_or_else(|e| panic!("{name}: {e}"));
    let c = Tensor::uniform(y.shape(), 0.5, 1.5, &mut Rng::seed(17));
    let gradients = y.backward_from(c.clone()).unwrap_or_else(|e| panic!("{name}: {e}"));
    let value = |inputs: &[Tensor]| -> f64 {
        let y = no_grad(|| f(inputs)).expect("it worked before");
        y.data().iter().zip(c.data()).map(|(&y, &c)| f64::from(y) * f64::from(c)).sum()
    };
    const STEP: f32 = 1.0 / 128.0;
    for (i, x) in watched.iter().enumerate() {
        let dx = gradients.of(x).unwrap_or_else(|| panic!("{name}: input {i} has no gradient"));
        assert_eq!(dx.shape(), x.shape(), "{name}: shape of the gradient of input {i}");
        let numeric: Vec<f64> = (0..x.len())
            .map(|j| {
                let mut shifted = inputs.to_vec();
                let (high, low) = (x.data()[j] + STEP, x.data()[j] - STEP);
                shifted[i].make_mut()[j] = high;
                let above = value(&shifted);
                shifted[i].make_mut()[j] = low;
                let below = value(&shifted);
                (above - below) / f64::from(high - low)
            })
            .collect();
        let largest = numeric.iter().fold(1e-2f64, |m, g| m.max(g.abs()));
        for (j, (&dx, numeric)) in dx.data().iter().zip(numeric).enumerate() {
            let error = (f64::from(dx) - numeric).abs();
            assert!(
                error <= 0.02 * largest,
                "{name}: input {i} element {j}: gradient {dx}, difference quotient {numeric}"
            );
        }
    }
}

/// Returns a tensor of normal numbers that is the same in every run.
pub(crate) fn sample(shape: &[usize], seed: u64) -> Tensor {
    Tensor::normal(shape, 1.0, &mut Rng::seed(seed))
}
