//! The loss of the training of word vectors.

use std::path::Path;

use crate::curves::{Curve, Curves};

/// Draws the mean loss of each epoch; `loss` names it with its unit.
pub(crate) fn plot(title: &str, loss: &str, losses: &[f64], path: &Path) -> Result<(), String> {
    let points = (1..).zip(losses).map(|(epoch, &loss)| (f64::from(epoch), loss)).collect();
    let curves = Curves {
        title,
        subtitle: "mean of each epoch",
        axes: ["epoch", loss],
        curves: vec![Curve { name: "loss", colour: "blue", points }],
    };
    curves.save(path).map_err(|error| format!("{}: {error}", path.display()))
}
