//! What a run tells while it goes on.

use std::ops::ControlFlow;
use std::path::Path;

/// Something that happened in a run.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum TrainEvent<'a> {
    /// The run begins, or goes on.
    #[non_exhaustive]
    Start {
        /// Steps done before: 0 for a new run.
        step: u64,
        /// Steps in all, if they are known beforehand.
        total_steps: Option<u64>,
    },
    /// The parameters were moved.
    #[non_exhaustive]
    Step {
        /// Steps done, this one included.
        step: u64,
        /// Steps in all, if they are known beforehand.
        total_steps: Option<u64>,
        /// Epochs done, with the part of the present one where its length is known.
        epoch: f64,
        /// The mean training loss of this step's batches, natural logarithm.
        loss: f64,
        /// The learning rate.
        lr: f64,
        /// The norm of all gradients, before clipping.
        grad_norm: f64,
        /// Tokens of this step's batches.
        tokens: usize,
        /// Speed of this step.
        tokens_per_second: f64,
    },
    /// The first step found trainable parameters that the loss does not depend on. Told once, if there are any: a part of the
    /// model that is not used, or a mistake.
    #[non_exhaustive]
    WithoutGradient {
        /// Steps done.
        step: u64,
        /// The parameters' paths.
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
        /// The mean loss over the validation data, natural logarithm, if there are such data.
        loss: Option<f64>,
        /// What [`Trainer::validate_by`](super::Trainer::validate_by) measured.
        metrics: &'a [(String, f64)],
        /// Whether it is the best so far, by the number that
        /// [`Trainer::best_by`](super::Trainer::best_by) names.
        best: bool,
    },
    /// A checkpoint was written.
    #[non_exhaustive]
    Saved {
        /// Steps done.
        step: u64,
        /// Its folder.
        path: &'a Path,
    },
    /// The run is over.
    #[non_exhaustive]
    End {
        /// Steps done.
        step: u64,
        /// Why.
        reason: TrainEnd,
    },
}

/// Why a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TrainEnd {
    /// All steps or epochs are done.
    Finished,
    /// The validation loss, or the number that [`Trainer::best_by`](super::Trainer::best_by) names,
    /// did not get better any more. The model holds the best weights, unless
    /// [`Trainer::restore_best`](super::Trainer::restore_best) says no.
    EarlyStopping,
    /// The observer asked for it.
    Observer,
}

/// Listens to a run, and may stop it: after [`ControlFlow::Break`] the run saves its checkpoint and ends.
///
/// Closures are observers:
///
/// ```
/// use std::ops::ControlFlow;
/// use loquat::training::{TrainEvent, TrainObserver};
///
/// let mut steps = 0;
/// let mut count = |event: &TrainEvent<'_>| {
///     steps += u32::from(matches!(event, TrainEvent::Step { .. }));
///     if steps < 10 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
/// };
/// let observer: &mut dyn TrainObserver = &mut count;
/// # let _ = observer;
/// ```
pub trait TrainObserver {
    /// Called on the thread that trains.
    fn on_event(&mut self, event: &TrainEvent<'_>) -> ControlFlow<()>;
}

impl<F: FnMut(&TrainEvent<'_>) -> ControlFlow<()>> TrainObserver for F {
    fn on_event(&mut self, event: &TrainEvent<'_>) -> ControlFlow<()> {
        self(event)
    }
}
