//! Floor 6: training.

pub mod data;
pub mod history;
pub mod metrics;
