//! Events of a run, and their observers.

use std::ops::ControlFlow;
use std::path::Path;

/// An event of a run.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum TrainEvent<'a> {
    /// The run begins or resumes.
    #[non_exhaustive]
    Start {
        /// Steps already done: 0 for a new run.
        step: u64,
        /// Total number of steps, if it is known in advance.
        total_steps: Option<u64>,
    },
    /// The optimizer stepped.
    #[non_exhaustive]
    Step {
        /// Steps done, including this one.
        step: u64,
        /// Total number of steps, if it is known in advance.
        total_steps: Option<u64>,
        /// Epochs done, including the fraction of the current one if the length of an epoch is
        /// known.
        epoch: f64,
        /// The mean training loss of the batches of this step, in nats.
        loss: f64,
        /// The learning rate.
        lr: f64,
        /// The norm of all gradients, before clipping.
        grad_norm: f64,
        /// The number of tokens in the batches of this step.
        tokens: usize,
        /// The speed of this step, in tokens per second.
        tokens_per_second: f64,
    },
    /// Trainable parameters had no gradient in the first step: the loss does not depend on them.
    /// Sent once, only if there are any. Either a part of the model is not used, or there is a
    /// mistake.
    #[non_exhaustive]
    WithoutGradient {
        /// Steps done.
        step: u64,
        /// The paths of the parameters.
        paths: &'a [String],
    },
    /// An epoch ended.
    #[non_exhaustive]
    Epoch {
        /// Steps done.
        step: u64,
        /// Epochs done.
        epoch: u64,
    },
    /// The model was validated.
    #[non_exhaustive]
    Validation {
        /// Steps done.
        step: u64,
        /// The mean loss over the validation data, in nats, if there are such data.
        loss: Option<f64>,
        /// The metrics of [`Trainer::validate_by`](super::Trainer::validate_by).
        metrics: &'a [(String, f64)],
        /// Whether this is the best validation so far, by the metric of
        /// [`Trainer::best_by`](super::Trainer::best_by).
        best: bool,
    },
    /// A checkpoint was written.
    #[non_exhaustive]
    Saved {
        /// Steps done.
        step: u64,
        /// The folder of the checkpoint.
        path: &'a Path,
    },
    /// The run ended.
    #[non_exhaustive]
    End {
        /// Steps done.
        step: u64,
        /// Why the run ended.
        reason: TrainEnd,
    },
}

/// The reason why a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TrainEnd {
    /// All steps or epochs are done.
    Finished,
    /// The validation loss, or the metric of [`Trainer::best_by`](super::Trainer::best_by), stopped
    /// improving. The model holds the best weights, unless
    /// [`Trainer::restore_best`](super::Trainer::restore_best) is false.
    EarlyStopping,
    /// The observer stopped the run.
    Observer,
}

/// An observer of a run. It can stop the run by [`ControlFlow::Break`]: the run then saves a
/// checkpoint and ends.
///
/// Closures are observers.
///
/// # Examples
/// ```
/// use std::ops::ControlFlow;
/// use loquat::models::{Gpt2, Gpt2Config};
/// use loquat::training::data::{RandomWindows, TokenStream};
/// use loquat::training::{AdamW, Optimizer, TrainEnd, TrainEvent, Trainer, next_token_loss};
///
/// let mut steps = 0;
/// let mut observer = |event: &TrainEvent<'_>| {
///     steps += u32::from(matches!(event, TrainEvent::Step { .. }));
///     if steps < 10 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
/// };
/// let mut model = Gpt2::init(&Gpt2Config::new(16, 8, 8, 1, 2), &mut loquat::Rng::seed(1))?;
/// let mut optimizer = Optimizer::new(AdamW::default())?;
/// let stream = TokenStream::from_ids((0..100).map(|i| i % 16).collect());
/// let mut windows = RandomWindows::new(stream, 8, 2, 42)?;
/// let trainer = Trainer::steps(100).observe(&mut observer);
/// let report = trainer.run(&mut model, &mut optimizer, &mut windows, next_token_loss)?;
/// assert_eq!((report.steps, report.stop), (10, TrainEnd::Observer));
/// # Ok::<(), loquat::Error>(())
/// ```
pub trait TrainObserver {
    /// Handles an event. Called on the thread that trains.
    fn on_event(&mut self, event: &TrainEvent<'_>) -> ControlFlow<()>;
}

impl<F: FnMut(&TrainEvent<'_>) -> ControlFlow<()>> TrainObserver for F {
    fn on_event(&mut self, event: &TrainEvent<'_>) -> ControlFlow<()> {
        self(event)
    }
}
