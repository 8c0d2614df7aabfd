//! Floor 6: from data and a model to a better model.
//!
//! | file | what |
//! |---|---|
//! | [`data`] | batches: from examples by index, from one long row of tokens |
//! | `trainer` | the loop: steps, validation, checkpoints, resuming |
//! | `optimizer` | SGD, Adam, AdamW; groups of parameters; clipping |
//! | `schedule` | the learning rate as a function of the step |
//! | `loss` | the loss of language modelling |
//! | [`metrics`] | mean loss, accuracy, precision, recall, F1 |
//! | [`history`] | what a run did, step by step, as CSV and JSON |
//!
//! This floor must not know the text of a task, nor which model it trains.

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
