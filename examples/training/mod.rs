//! What the training examples share: progress on the terminal, Ctrl-C, the picture of the loss.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use loquat::training::{History, TrainEvent, TrainObserver};
use plotters::prelude::*;

use crate::report::Report;

/// Shows a run, and stops it on Ctrl-C.
pub(crate) struct Course {
    report: Report,
    lines_every: u64,
    interrupted: Arc<AtomicBool>,
}

impl Course {
    /// A line every `lines_every` steps where there is no terminal.
    pub(crate) fn new(lines_every: u64) -> Self {
        let interrupted = Arc::new(AtomicBool::new(false));
        let flag = interrupted.clone();
        // A second handler in one program is refused; the first one then stops the run.
        let _ = ctrlc::set_handler(move || flag.store(true, Ordering::Relaxed));
        Self { report: Report::new("tokens"), lines_every: lines_every.max(1), interrupted }
    }

    /// Takes the bar away.
    pub(crate) fn finish(mut self) {
        self.report.finish();
    }
}

impl TrainObserver for Course {
    fn on_event(&mut self, event: &TrainEvent<'_>) -> ControlFlow<()> {
        match event {
            TrainEvent::Step { step, total_steps, loss, tokens_per_second, .. } => {
                let total = total_steps.unwrap_or(*step);
                self.report.show(*step, total, *tokens_per_second, &format!("loss {loss:.3}"));
                if step % self.lines_every == 0 && !std::io::IsTerminal::is_terminal(&std::io::stderr()) {
                    say!("step {step}/{total}  loss {loss:.4}  {tokens_per_second:.0} tokens/s");
                }
            }
            TrainEvent::Validation { step, loss, best, .. } => {
                let mark = if *best { "  (best)" } else { "" };
                let loss = loss.unwrap_or(f64::NAN);
                self.report.line(&format!("step {step}  validation loss {loss:.4}{mark}"));
            }
            TrainEvent::Saved { path, .. } => self.report.line(&format!("saved {}", path.display())),
            _ => {}
        }
        if self.interrupted.load(Ordering::Relaxed) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

/// Draws the training and validation loss over the steps.
pub(crate) fn plot_loss(history: &History, path: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let (train, validation) = (history.column("loss"), history.column("val_loss"));
    let all = || train.iter().chain(&validation);
    let last = all().map(|&(step, _)| step).max().unwrap_or(1).max(1) as f64;
    let (low, high) = all().fold((f64::INFINITY, 0f64), |(l, h), &(_, y)| (l.min(y), h.max(y)));
    let (low, high) = if low.is_finite() { (0.95 * low, 1.05 * high.max(1e-6)) } else { (0.0, 1.0) };
    let area = SVGBackend::new(path, (800, 480)).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .margin(16)
        .x_label_area_size(36)
        .y_label_area_size(48)
        .build_cartesian_2d(0.0..last, low..high)?;
    chart.configure_mesh().x_desc("step").y_desc("loss").draw()?;
    let points = |column: &[(u64, f64)]| column.iter().map(|&(x, y)| (x as f64, y)).collect::<Vec<_>>();
    chart
        .draw_series(LineSeries::new(points(&train), &BLUE))?
        .label("training")
        .legend(|(x, y)| PathElement::new([(x, y), (x + 16, y)], BLUE));
    chart
        .draw_series(LineSeries::new(points(&validation), RED.stroke_width(2)).point_size(3))?
        .label("validation")
        .legend(|(x, y)| PathElement::new([(x, y), (x + 16, y)], RED));
    chart.configure_series_labels().border_style(BLACK).background_style(WHITE).draw()?;
    area.present()?;
    Ok(())
}
