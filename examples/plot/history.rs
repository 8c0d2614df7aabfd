//! The loss of a training run.

use std::io;
use std::path::Path;

use loquat::training::History;

use crate::curves::{Curve, Curves};
use crate::plot::thousands;

/// Draws the training and validation loss of a run over its steps.
pub(crate) fn plot(history: &History, path: &Path) -> io::Result<()> {
    let column = |name| history.column(name).iter().map(|&(step, loss)| (step as f64, loss)).collect();
    let best = history.best_val_loss();
    let best = best
        .map(|(step, loss)| format!("lowest validation loss {loss:.4} after step {}", thousands(&step.to_string())));
    let curves = Curves {
        title: "Loss during training",
        subtitle: &best.unwrap_or_else(|| "without validation".into()),
        axes: ["training step", "loss (nats per token)"],
        curves: vec![
            Curve { name: "training", colour: "blue", points: column("loss") },
            Curve { name: "validation", colour: "orange", points: column("val_loss") },
        ],
    };
    curves.save(path)
}
