//! Which weights of a run are the best, and what they are measured by.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::nn::Module;
use crate::tensor::Weight;
use crate::training::history::Row;

/// The name of the mean loss over the validation data, as in the history.
pub(super) const VAL_LOSS: &str = "val_loss";

/// Which way a number gets better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Goal {
    /// A loss, an error.
    Lowest,
    /// An accuracy, an F1.
    Highest,
}

/// The best validation of a run.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Best {
    /// The steps done when it was found.
    pub step: u64,
    /// The validation loss, natural logarithm, or the number that
    /// [`Trainer::best_by`](super::Trainer::best_by) names.
    #[serde(alias = "loss")]
    pub value: f64,
}

/// The number that decides.
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
    /// The number among a validation's.
    ///
    /// # Errors
    /// [`Error::Argument`] if it is not there; [`Error::NotFinite`] if it is none.
    pub(super) fn value(&self, step: u64, loss: Option<f64>, metrics: &[(String, f64)]) -> Result<f64> {
        let loss = loss.map(|loss| (VAL_LOSS, loss));
        let mut all = loss.into_iter().chain(metrics.iter().map(|(name, value)| (name.as_str(), *value)));
        let found = all.clone().map(|(name, _)| name).collect::<Vec<_>>().join(", ");
        let Some((name, value)) = all.find(|(name, _)| *name == self.metric) else {
            let expected = format!("`{}` among the numbers of a validation", self.metric);
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

/// # Errors
/// [`Error::Argument`] for a name that a column of the history has already, or that comes twice.
pub(super) fn check_names(metrics: &[(String, f64)]) -> Result<()> {
    for (i, (name, _)) in metrics.iter().enumerate() {
        if Row::is_fixed(name) || metrics[..i].iter().any(|(other, _)| other == name) {
            let expected = "names of their own, each once, that no column of the history has";
            return Err(Error::argument("names of metrics", expected, format!("`{name}`")));
        }
    }
    Ok(())
}

/// The weights of a model, without a copy until one of both is changed.
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
