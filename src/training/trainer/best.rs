//! The best weights of a run, and the metric that decides.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::nn::Module;
use crate::tensor::Weight;
use crate::training::history::Row;

/// The name of the mean validation loss, as in the history.
pub(super) const VAL_LOSS: &str = "val_loss";

/// The direction in which a metric improves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Goal {
    /// Lower is better: a loss, an error.
    Lowest,
    /// Higher is better: an accuracy, an F1.
    Highest,
}

/// The best validation of a run.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Best {
    /// The number of steps done at that validation.
    pub step: u64,
    /// The validation loss in nats, or the metric set by
    /// [`Trainer::best_by`](super::Trainer::best_by).
    #[serde(alias = "loss")]
    pub value: f64,
}

/// The metric that decides which weights are best.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Watch {
    pub(super) metric: String,
    pub(super) goal: Goal,
}

impl Default for Watch {
    fn default() -> Self {
        Self { metric: VAL_LOSS.into(), goal: Goal::Lowest }
    }
}

impl Watch {
    /// Returns the value of the metric in a validation.
    ///
    /// # Errors
    /// [`Error::Argument`] if the validation does not have the metric; [`Error::NotFinite`] if its
    /// value is not finite.
    pub(super) fn value(&self, step: u64, loss: Option<f64>, metrics: &[(String, f64)]) -> Result<f64> {
        let loss = loss.map(|loss| (VAL_LOSS, loss));
        let mut all = loss.into_iter().chain(metrics.iter().map(|(name, value)| (name.as_str(), *value)));
        let found = all.clone().map(|(name, _)| name).collect::<Vec<_>>().join(", ");
        let Some((name, value)) = all.find(|(name, _)| *name == self.metric) else {
            let expected = format!("`{}` among the metrics of the validation", self.metric);
            return Err(Error::argument("best_by", expected, format!("[{found}]")));
        };
        if value.is_finite() {
            return Ok(value);
        }
        let what = if name == VAL_LOSS { "validation loss" } else { name };
        Err(Error::NotFinite { what: format!("{what} after step {step}"), found: value })
    }

    pub(super) fn is_better(&self, value: f64, best: f64) -> bool {
        match self.goal {
            Goal::Lowest => value < best,
            Goal::Highest => value > best,
        }
    }
}

/// Checks the names of metrics.
///
/// # Errors
/// [`Error::Argument`] for a duplicate name or that of a fixed column of the history.
pub(super) fn check_names(metrics: &[(String, f64)]) -> Result<()> {
    for (i, (name, _)) in metrics.iter().enumerate() {
        if Row::is_fixed(name) || metrics[..i].iter().any(|(other, _)| other == name) {
            let expected = "unique names that differ from the fixed columns of the history";
            return Err(Error::argument("names of metrics", expected, format!("`{name}`")));
        }
    }
    Ok(())
}

/// The weights of a model, copied only if either side changes.
pub(super) struct Kept(Vec<Weight>);

impl Kept {
    pub(super) fn of(model: &impl Module) -> Self {
        Self(model.parameters().iter().map(|(_, parameter)| parameter.weight().detach()).collect())
    }

    pub(super) fn put_back(&self, model: &mut impl Module) -> Result<()> {
        let (mut weights, mut result) = (self.0.iter(), Ok(()));
        model.visit_mut("", &mut |_, parameter| {
            if let (Ok(()), Some(weight)) = (&result, weights.next()) {
                result = parameter.set_weight(weight);
            }
        });
        result
    }
}
