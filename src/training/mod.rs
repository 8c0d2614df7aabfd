//! Training: data loading, optimizers, learning rate schedules, the training loop, metrics.
//!
//! | item | what |
//! |---|---|
//! | [`data`] | batches: from examples by index, or from one long sequence of tokens |
//! | [`Trainer`] | the training loop: steps, validation, checkpoints, resuming |
//! | [`Optimizer`] | SGD, Adam, AdamW; parameter groups; gradient clipping |
//! | [`Schedule`] | the learning rate as a function of the step |
//! | [`next_token_loss`] | the loss of language modelling |
//! | [`metrics`] | mean loss, accuracy, precision, recall, F1 |
//! | [`history`] | the history of a run, as CSV and JSON |

pub mod data;
pub mod history;
mod loss;
pub mod metrics;
mod optimizer;
mod schedule;
mod trainer;

pub use history::History;
pub use loss::next_token_loss;
pub use optimizer::{Adam, AdamW, Optimizer, ParameterGroup, Rule, Sgd, clip_grad_norm};
pub use schedule::Schedule;
pub use trainer::{
    BatchSize, Best, Existing, Goal, RunFolder, TrainEnd, TrainEvent, TrainObserver, TrainReport, Trainer, evaluate,
};
