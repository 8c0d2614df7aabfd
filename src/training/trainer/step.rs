//! A training step and a validation.

use crate::error::{Error, Result};
use crate::kernels::parallel::team;
use crate::nn::{Module, train_mode};
use crate::ops::precision::{Precision, precision, with_precision};
use crate::random::Rng;
use crate::tensor::{Gradients, Tensor, no_grad};
use crate::training::Optimizer;
use crate::training::data::{Batch, BatchSource};
use crate::training::metrics::LossMean;
use crate::training::optimizer::clip_factor;

/// The size of a batch, in tokens and in labels.
pub trait BatchSize {
    /// Returns the number of tokens, from which the speed is computed.
    fn n_tokens(&self) -> usize;

    /// Returns the number of labels in the mean loss of the batch: its weight in a mean over
    /// batches.
    fn n_labels(&self) -> usize;
}

impl BatchSize for Batch {
    fn n_tokens(&self) -> usize {
        self.n_tokens()
    }

    fn n_labels(&self) -> usize {
        self.n_labels()
    }
}

/// The settings that all steps of a run share.
pub(super) struct Step<'f, F> {
    pub(super) seed: u64,
    pub(super) precision: Precision,
    pub(super) max_norm: Option<f64>,
    pub(super) loss: &'f F,
}

/// The result of a step.
pub(super) struct StepResult {
    pub(super) loss: f64,
    pub(super) grad_norm: f64,
    /// Trainable parameters without a gradient, if requested.
    pub(super) without_gradient: Vec<String>,
}

/// Separates the random numbers of dropout from those of data sources with the same seed and step.
const DROPOUT: u64 = u64::from_be_bytes(*b"dropout\0");

impl<F> Step<'_, F> {
    /// Updates the model by the mean gradient of some batches, weighted by their labels; `step`
    /// counts from 0.
    pub(super) fn run<M, B>(
        &self,
        step: u64,
        model: &mut M,
        optimizer: &mut Optimizer,
        batches: &[B],
        report: bool,
    ) -> Result<StepResult>
    where
        M: Module + Send + Sync,
        B: BatchSize + Sync,
        F: Fn(&M, &B) -> Result<Tensor> + Sync,
    {
        let mut rng = Rng::stream(self.seed ^ DROPOUT, step);
        let not_finite = |what: &str, found| Error::NotFinite { what: format!("{what} in step {}", step + 1), found };
        let labels: usize = batches.iter().map(BatchSize::n_labels).sum();
        let share = |batch: &B| match labels {
            0 => 1.0 / batches.len() as f64,
            labels => batch.n_labels() as f64 / labels as f64,
        };
        team(|| {
            let (mut mean, mut gradients) = (0.0, Gradients::default());
            for batch in batches {
                let forward = || with_precision(self.precision, || (self.loss)(model, batch));
                let loss = train_mode(&mut rng, forward)?;
                let value = f64::from(loss.item()?);
                if !value.is_finite() {
                    return Err(not_finite("loss", value));
                }
                mean += share(batch) * value;
                gradients.accumulate(loss.backward_from(Tensor::full(loss.shape(), share(batch) as f32))?)?;
            }
            let grad_norm = gradients.norm();
            if !grad_norm.is_finite() {
                return Err(not_finite("gradient norm", grad_norm));
            }
            let scale = self.max_norm.map_or(1.0, |max_norm| clip_factor(grad_norm, max_norm));
            optimizer.step_scaled(model, &gradients, scale)?;
            let without_gradient = if report { model.without_gradient(&gradients) } else { Vec::new() };
            Ok(StepResult { loss: mean, grad_norm, without_gradient })
        })
    }
}

/// Returns the mean loss over an epoch of batches, without gradients and dropout, weighted by
/// labels. Restores the position of the source. Matrix products have the precision of the calling
/// thread.
///
/// # Errors
/// [`Error::Argument`] if the source is endless; the errors of the source and of `loss`.
///
/// # Examples
/// ```
/// use loquat::models::{Gpt2, Gpt2Config};
/// use loquat::training::data::{SequentialWindows, TokenStream};
/// use loquat::training::{evaluate, next_token_loss};
///
/// let config = Gpt2Config::new(16, 8, 8, 1, 2); // tokens, positions, width, layers, heads
/// let model = Gpt2::init(&config, &mut loquat::Rng::seed(1))?;
/// let stream = TokenStream::from_ids((0..100).map(|i| i % 16).collect());
/// let mut windows = SequentialWindows::new(stream, 8, 4)?;
/// let loss = evaluate(&model, &mut windows, &next_token_loss)?;
/// assert_eq!(loss.count(), 99);
/// assert!(loss.perplexity().is_some_and(|perplexity| perplexity < 32.0));
/// # Ok::<(), loquat::Error>(())
/// ```
pub fn evaluate<M: Sync, B: BatchSize + Send + Sync>(
    model: &M,
    source: &mut (impl BatchSource<Batch = B> + ?Sized),
    loss: &(impl Fn(&M, &B) -> Result<Tensor> + Sync),
) -> Result<LossMean> {
    if source.batches_per_epoch().is_none() {
        return Err(Error::argument("validation data", "a source whose epochs end", "an endless one"));
    }
    let (start, precision) = (source.state(), precision());
    let mut mean = LossMean::default();
    while let Some(batch) = source.next_batch()? {
        let loss = team(|| with_precision(precision, || no_grad(|| loss(model, &batch))))?;
        mean.add(f64::from(loss.item()?), batch.n_labels());
    }
    source.restore(&start)?;
    Ok(mean)
}
