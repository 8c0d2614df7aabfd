//! Progress: a bar on a terminal, plain lines elsewhere.

use std::io::IsTerminal;

use indicatif::{ProgressBar, ProgressStyle};

pub(crate) struct Report {
    bar: Option<ProgressBar>,
}

impl Report {
    pub(crate) fn new(unit: &str) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let style =
                ProgressStyle::with_template(&format!("{{bar:30}} {{percent:>3}}% {{eta:>4}} left  {{msg}} {unit}/s"));
            ProgressBar::new(0).with_style(style.expect("the template is a constant"))
        });
        Report { bar }
    }

    pub(crate) fn show(&mut self, done: u64, total: u64, per_second: f64, what: &str) {
        if let Some(bar) = &self.bar {
            bar.set_length(total);
            bar.set_position(done);
            bar.set_message(format!("{what}  {per_second:.0}"));
        }
    }

    /// Something that should stay readable.
    pub(crate) fn line(&mut self, line: &str) {
        match &self.bar {
            Some(bar) => bar.println(line),
            None => say!("{line}"),
        }
    }

    pub(crate) fn finish(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
