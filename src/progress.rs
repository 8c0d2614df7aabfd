//! The progress of a run, shown on a terminal or written to a log (feature `progress`).
//!
//! A [`ProgressReporter`] writes steps, loss, time left and speed to the standard error. It
//! observes a [`Trainer`](crate::training::Trainer) and the training of word vectors, and any loop
//! can call it. On a terminal it draws one line that fits the width; into a pipe or a file it
//! writes plain lines at intervals, without control characters. With
//! [`ProgressReporter::stop_on_ctrl_c`] a run that is interrupted saves its checkpoint and returns.
//!
//! ```
//! use loquat::progress::ProgressReporter;
//!
//! let files = ["a.txt", "b.txt", "c.txt"];
//! let mut progress = ProgressReporter::new("files");
//! for (done, file) in (1..).zip(files) {
//!     // … process the file …
//!     if progress.update(done, Some(files.len() as u64), file).is_break() {
//!         break; // only after Ctrl-C, with `stop_on_ctrl_c`
//!     }
//! }
//! progress.finish();
//! ```

use std::fmt::Write as _;
use std::io::Write;
use std::ops::ControlFlow;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use console::Term;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::embeddings;
use crate::error::{Error, Result};
use crate::training::{TrainEnd, TrainEvent, TrainObserver};

/// Shows the progress of a run: percentage, steps, loss, time left and speed.
///
/// # Examples
///
/// ```
/// use loquat::models::{MlpConfig, MlpLm};
/// use loquat::progress::ProgressReporter;
/// use loquat::training::data::{RandomWindows, TokenStream};
/// use loquat::training::{AdamW, Optimizer, Trainer, next_token_loss};
/// use loquat::Rng;
///
/// let mut model = MlpLm::init(&MlpConfig::new(5, 8, 16, 4), &mut Rng::seed(1))?;
/// let mut optimizer = Optimizer::new(AdamW::default())?;
/// let tokens = TokenStream::from_ids((0..500).map(|i| i % 5).collect());
/// let mut train = RandomWindows::new(tokens, 8, 4, 1)?;
///
/// let mut progress = ProgressReporter::new("tokens").stop_on_ctrl_c()?;
/// let report = Trainer::steps(20)
///     .observe(&mut progress)
///     .run(&mut model, &mut optimizer, &mut train, next_token_loss)?;
/// assert_eq!(report.steps, 20);
/// # Ok::<(), loquat::Error>(())
/// ```
pub struct ProgressReporter {
    unit: String,
    output: Output,
    lines_every: Duration,
    stops: bool,
    start: Option<Start>,
    /// Units per second; for a trainer, the moving average over its steps.
    rate: Option<f64>,
    /// When the last plain line was written.
    written: Option<Instant>,
    /// The latest state, if no plain line has shown it.
    unwritten: Option<String>,
}

/// Where this part of a run began.
struct Start {
    time: Instant,
    done: u64,
}

enum Output {
    Bar(Bar),
    /// Plain lines.
    Lines(Box<dyn Write + Send>),
}

/// One line of a terminal.
struct Bar {
    bar: ProgressBar,
    /// The terminal's columns now: windows change their size.
    width: Box<dyn Fn() -> usize + Send>,
    /// Columns of the bar proper, 0 for none.
    columns: Option<usize>,
}

/// Whether Ctrl-C was pressed, for all reporters of the process.
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

impl ProgressReporter {
    /// A reporter to the standard error. `unit` is the plural of what the speed counts: "tokens",
    /// "examples", "words".
    pub fn new(unit: impl Into<String>) -> Self {
        let term = Term::stderr();
        let output = if term.is_term() && std::env::var_os("TERM").is_none_or(|term| term != "dumb") {
            Output::bar(ProgressDrawTarget::stderr(), move || usize::from(term.size().1))
        } else {
            Output::Lines(Box::new(std::io::stderr()))
        };
        Self::to(output, unit)
    }

    fn to(output: Output, unit: impl Into<String>) -> Self {
        Self {
            unit: unit.into(),
            output,
            lines_every: Duration::from_secs(10),
            stops: false,
            start: None,
            rate: None,
            written: None,
            unwritten: None,
        }
    }

    /// Sets the shortest time between two plain lines, where there is no terminal. Default: 10 s.
    #[must_use]
    pub fn lines_every(mut self, interval: Duration) -> Self {
        self.lines_every = interval;
        self
    }

    /// Ends the run cleanly at the first Ctrl-C: a [`Trainer`](crate::training::Trainer) with a
    /// folder saves a checkpoint from which it resumes, and the training of word vectors returns
    /// the vectors so far. A second Ctrl-C ends the process at once, with exit code 130. The
    /// handler stays for the rest of the process and serves all reporters, so later runs end at
    /// their beginning.
    ///
    /// # Errors
    /// [`Error::Argument`] if the program has already installed another handler.
    pub fn stop_on_ctrl_c(mut self) -> Result<Self> {
        static HANDLER: OnceLock<std::result::Result<(), String>> = OnceLock::new();
        let install = || {
            let handler = || {
                if INTERRUPTED.swap(true, Relaxed) {
                    std::process::exit(130);
                }
            };
            ctrlc::set_handler(handler).map_err(|error| error.to_string())
        };
        if let Err(reason) = HANDLER.get_or_init(install) {
            return Err(Error::argument("Ctrl-C handler", "none installed by this program", reason));
        }
        self.stops = true;
        Ok(self)
    }

    /// Shows that `done` of `total` units are done, with a short text such as the file in progress.
    /// Speed and time left are those since the first call. Returns [`ControlFlow::Break`] after
    /// Ctrl-C, with [`ProgressReporter::stop_on_ctrl_c`].
    pub fn update(&mut self, done: u64, total: Option<u64>, text: &str) -> ControlFlow<()> {
        let (seconds, before) = self.since(done);
        self.rate = (done > before && seconds > 0.0).then(|| (done - before) as f64 / seconds);
        let left = self.left(done, total);
        self.show(done, total, text, left);
        self.flow()
    }

    /// Writes a line that stays, above the bar if there is one.
    pub fn message(&mut self, line: &str) {
        let line = line.replace(char::is_control, " ");
        match &mut self.output {
            Output::Bar(bar) => bar.bar.println(line),
            // A log that cannot be written does not end the run.
            Output::Lines(out) => drop(writeln!(out, "{line}").and_then(|()| out.flush())),
        }
    }

    /// Removes the bar, or writes the last state as a plain line. Also called when the reporter is
    /// dropped.
    pub fn finish(&mut self) {
        if let Some(line) = self.unwritten.take() {
            self.message(&line);
        }
        if let Output::Bar(bar) = &self.output {
            bar.bar.finish_and_clear();
        }
        (self.start, self.rate, self.written) = (None, None, None);
    }

    fn flow(&self) -> ControlFlow<()> {
        if self.stops && INTERRUPTED.load(Relaxed) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    /// Seconds since this part of the run began, and what was done before it.
    fn since(&mut self, done: u64) -> (f64, u64) {
        let start = self.start.get_or_insert_with(|| Start { time: Instant::now(), done });
        (start.time.elapsed().as_secs_f64(), start.done)
    }

    /// The remaining time at the mean speed so far, validation and checkpoints included.
    fn left(&mut self, done: u64, total: Option<u64>) -> Option<Duration> {
        let (seconds, before) = self.since(done);
        let rest = total?.saturating_sub(done) as f64;
        let now = done.checked_sub(before).filter(|&now| now > 0)? as f64;
        Duration::try_from_secs_f64(seconds / now * rest).ok()
    }

    fn show(&mut self, done: u64, total: Option<u64>, text: &str, left: Option<Duration>) {
        let mut parts = Vec::new();
        if let Some(total) = total {
            // Rounded down: 100% means finished.
            parts.push(format!("{:>3}%", (u128::from(done) * 100 / u128::from(total.max(1))).min(100)));
        }
        parts.push(text.replace(char::is_control, " "));
        parts.extend(left.map(|left| format!("{} left", duration(left))));
        parts.extend(self.rate.map(|rate| format!("{} {}/s", with_prefix(rate), self.unit)));
        match &mut self.output {
            Output::Bar(bar) => bar.draw(&parts, done, total),
            Output::Lines(_) => {
                let line = parts.join("  ").trim_start().to_string();
                if self.written.is_none_or(|written| written.elapsed() >= self.lines_every) {
                    (self.written, self.unwritten) = (Some(Instant::now()), None);
                    self.message(&line);
                } else {
                    self.unwritten = Some(line);
                }
            }
        }
    }
}

impl Drop for ProgressReporter {
    fn drop(&mut self) {
        self.finish();
    }
}

impl Output {
    fn bar(target: ProgressDrawTarget, width: impl Fn() -> usize + Send + 'static) -> Self {
        let bar = ProgressBar::with_draw_target(None, target);
        Self::Bar(Bar { bar, width: Box::new(width), columns: None })
    }
}

impl Bar {
    /// Draws as many of the parts as fit, the most important first, and a bar if there is room for
    /// it.
    fn draw(&mut self, parts: &[String], done: u64, total: Option<u64>) {
        // Some terminals wrap a line that fills their last column.
        let width = (self.width)().saturating_sub(1);
        let text = fitting(parts, width);
        let room = width.saturating_sub(text.chars().count() + 2).min(30);
        let columns = if total.is_some() && room >= 10 { room } else { 0 };
        if self.columns != Some(columns) {
            let template = if columns > 0 { format!("{{bar:{columns}}}  {{msg}}") } else { "{msg}".into() };
            let style = ProgressStyle::with_template(&template).expect("the template is well formed");
            self.bar.set_style(style.progress_chars("█▉▊▋▌▍▎▏ "));
            self.columns = Some(columns);
        }
        match total {
            Some(total) => self.bar.set_length(total),
            None => self.bar.unset_length(),
        }
        self.bar.set_message(text);
        self.bar.set_position(done);
    }
}

/// The first parts that fit into `width` columns together; the first one is cut if it does not.
fn fitting(parts: &[String], width: usize) -> String {
    let mut text = String::new();
    for part in parts {
        let gap = if text.is_empty() { "" } else { "  " };
        if text.chars().count() + gap.len() + part.chars().count() > width {
            break;
        }
        text += gap;
        text += part;
    }
    match parts.first() {
        Some(first) if text.is_empty() => first.chars().take(width).collect(),
        _ => text,
    }
}

/// A duration with the two largest of its units: `1h 05m`.
fn duration(duration: Duration) -> String {
    match duration.as_secs() {
        s if s < 60 => format!("{s}s"),
        s if s < 3600 => format!("{}m {:02}s", s / 60, s % 60),
        s if s < 86_400 => format!("{}h {:02}m", s / 3600, s / 60 % 60),
        s => format!("{}d {:02}h", s / 86_400, s / 3600 % 24),
    }
}

/// Three significant digits with a prefix: `45.1k`.
fn with_prefix(x: f64) -> String {
    let (x, prefix) = match x {
        x if x < 999.5 => (x, ""),
        x if x < 999.5e3 => (x / 1e3, "k"),
        x if x < 999.5e6 => (x / 1e6, "M"),
        x => (x / 1e9, "G"),
    };
    let digits = if x < 9.995 { 2 } else { usize::from(x < 99.95) };
    format!("{x:.digits$}{prefix}")
}

impl TrainObserver for ProgressReporter {
    fn on_event(&mut self, event: &TrainEvent<'_>) -> ControlFlow<()> {
        match event {
            TrainEvent::Start { step, .. } => {
                self.start = Some(Start { time: Instant::now(), done: *step });
                if *step > 0 {
                    self.message(&format!("resuming after step {step}"));
                }
            }
            TrainEvent::Step { step, total_steps, loss, tokens_per_second, .. } => {
                let mean = self.rate.map_or(*tokens_per_second, |mean| 0.95 * mean + 0.05 * tokens_per_second);
                self.rate = Some(mean);
                let of = total_steps.map_or(String::new(), |total| format!("/{total}"));
                let left = self.left(*step, *total_steps);
                self.show(*step, *total_steps, &format!("step {step}{of}  loss {loss:.4}"), left);
            }
            TrainEvent::WithoutGradient { paths, .. } => {
                let (shown, rest) = paths.split_at(paths.len().min(3));
                let rest = if rest.is_empty() { String::new() } else { format!(" and {} more", rest.len()) };
                self.message(&format!("warning: the loss does not depend on {}{rest}", shown.join(", ")));
            }
            TrainEvent::Validation { step, loss, metrics, best } => {
                let mut line = format!("step {step}");
                if let Some(loss) = loss {
                    let _ = write!(line, "  validation loss {loss:.4}");
                }
                for (name, value) in *metrics {
                    let _ = write!(line, "  {name} {value:.4}");
                }
                self.message(&(line + if *best { "  (best)" } else { "" }));
            }
            TrainEvent::Saved { step, path } => self.message(&format!("step {step}  saved {}", path.display())),
            TrainEvent::End { step, reason } => {
                self.finish();
                match reason {
                    TrainEnd::Finished => {}
                    TrainEnd::EarlyStopping => self.message(&format!("stopped early after step {step}")),
                    TrainEnd::Observer => self.message(&format!("interrupted after step {step}")),
                }
            }
            TrainEvent::Epoch { .. } => {}
        }
        self.flow()
    }
}

impl embeddings::Observer for ProgressReporter {
    fn progress(&mut self, progress: &embeddings::Progress) -> ControlFlow<()> {
        let &embeddings::Progress { epoch, epochs, words, total_words, words_per_second, loss, eta, .. } = progress;
        self.rate = Some(words_per_second).filter(|rate| *rate > 0.0);
        let mut text = if epoch == 0 { "counting".to_string() } else { format!("epoch {epoch}/{epochs}") };
        if !loss.is_nan() {
            let _ = write!(text, "  loss {loss:.4}");
        }
        if progress.epoch_end {
            let rate = with_prefix(words_per_second);
            self.message(&format!("{text}  {rate} {}/s", self.unit));
            self.unwritten = None;
        } else {
            self.show(words, Some(total_words), &text, Some(eta));
        }
        self.flow()
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use indicatif::TermLike;

    use super::*;
    use crate::models::{MlpConfig, MlpLm};
    use crate::random::Rng;
    use crate::training::data::{RandomWindows, SequentialWindows, TokenStream};
    use crate::training::{AdamW, Existing, Optimizer, RunFolder, TrainReport, Trainer, next_token_loss};

    /// A terminal or a pipe that remembers what was written.
    #[derive(Clone, Debug, Default)]
    struct Screen {
        written: Arc<Mutex<Vec<String>>>,
        columns: usize,
    }

    impl Screen {
        fn lines(&self) -> Vec<String> {
            self.written.lock().unwrap().clone()
        }

        /// A reporter to a pipe.
        fn pipe(&self, lines_every: Duration) -> ProgressReporter {
            ProgressReporter::to(Output::Lines(Box::new(self.clone())), "tokens").lines_every(lines_every)
        }

        /// A reporter to a terminal.
        fn terminal(columns: usize) -> (Self, ProgressReporter) {
            let screen = Self { columns, ..Self::default() };
            let target = ProgressDrawTarget::term_like_with_hz(Box::new(screen.clone()), 255);
            (screen, ProgressReporter::to(Output::bar(target, move || columns), "tokens"))
        }
    }

    impl Write for Screen {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.written.lock().unwrap().push(String::from_utf8(bytes.into()).unwrap());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl TermLike for Screen {
        fn width(&self) -> u16 {
            self.columns as u16
        }

        fn move_cursor_up(&self, _: usize) -> io::Result<()> {
            Ok(())
        }

        fn move_cursor_down(&self, _: usize) -> io::Result<()> {
            Ok(())
        }

        fn move_cursor_right(&self, _: usize) -> io::Result<()> {
            Ok(())
        }

        fn move_cursor_left(&self, _: usize) -> io::Result<()> {
            Ok(())
        }

        fn write_line(&self, line: &str) -> io::Result<()> {
            self.write_str(line)
        }

        fn write_str(&self, text: &str) -> io::Result<()> {
            self.written.lock().unwrap().push(text.into());
            Ok(())
        }

        fn clear_line(&self) -> io::Result<()> {
            Ok(())
        }

        fn flush(&self) -> io::Result<()> {
            Ok(())
        }
    }

    fn train(steps: u64, folder: Option<RunFolder<'_>>, observer: &mut dyn TrainObserver) -> TrainReport {
        let mut model = MlpLm::init(&MlpConfig::new(5, 4, 8, 2), &mut Rng::seed(1)).unwrap();
        let mut optimizer = Optimizer::new(AdamW::default()).unwrap();
        let tokens = || TokenStream::from_ids((0..200).map(|i| i % 5).collect());
        let mut train = RandomWindows::new(tokens(), 8, 2, 1).unwrap();
        let mut validation = SequentialWindows::new(tokens(), 8, 2).unwrap();
        let mut trainer = Trainer::steps(steps).validate(&mut validation, 4).observe(observer);
        if let Some(folder) = folder {
            trainer = trainer.folder(folder);
        }
        trainer.run(&mut model, &mut optimizer, &mut train, next_token_loss).unwrap()
    }

    /// Whole lines: a number of writes may make one.
    fn log(screen: &Screen) -> Vec<String> {
        screen.lines().concat().lines().map(String::from).collect()
    }

    #[test]
    fn a_pipe_gets_plain_lines_without_control_characters() {
        let screen = Screen::default();
        train(8, None, &mut screen.pipe(Duration::ZERO));
        let log = log(&screen);
        assert_eq!(log.iter().filter(|line| line.contains("loss") && line.contains("tokens/s")).count(), 8, "{log:?}");
        assert_eq!(log.iter().filter(|line| line.contains("validation loss")).count(), 2, "{log:?}");
        assert!(log[0].starts_with("12%  step 1/8  loss 1."), "{log:?}");
        let mut reporter = screen.pipe(Duration::ZERO);
        reporter.message("a\u{1b}[31mb\rc\td");
        assert!(reporter.update(1, None, "x\u{7}\n").is_continue());
        reporter.finish();
        let text = screen.lines().concat();
        assert!(text.chars().all(|c| c == '\n' || !c.is_control()), "{text:?}");
    }

    #[test]
    fn a_pipe_gets_the_first_and_the_last_state_at_least() {
        let screen = Screen::default();
        train(3, None, &mut screen.pipe(Duration::MAX));
        let log = log(&screen);
        let steps: Vec<&String> = log.iter().filter(|line| line.contains("tokens/s")).collect();
        assert!(steps.len() == 2 && steps[0].contains("step 1/3") && steps[1].contains("step 3/3"), "{log:?}");
    }

    #[test]
    fn a_line_fits_a_terminal_of_any_width() {
        for columns in [1, 5, 12, 24, 40, 60, 80, 200] {
            let (screen, mut reporter) = Screen::terminal(columns);
            for step in [1, 50_000, 100_000] {
                reporter.rate = Some(45_100.0);
                reporter.show(step, Some(100_000), "step 1/100000  loss 2.3121", Some(Duration::from_secs(185)));
                let Output::Bar(bar) = &reporter.output else { unreachable!("a terminal") };
                bar.bar.force_draw();
            }
            let lines = screen.lines();
            assert!(lines.iter().all(|line| line.chars().count() < columns.max(2)), "{columns}: {lines:?}");
            let shows = |text: &str| lines.iter().any(|line| line.contains(text));
            let (loss, left, speed, bar) =
                (shows("loss 2.3121"), shows("3m 05s left"), shows("45.1k tokens/s"), shows("█"));
            // A bar takes the room that is left.
            let expected = [columns >= 40, columns >= 60, columns >= 80, [24, 60, 80, 200].contains(&columns)];
            assert_eq!([loss, left, speed, bar], expected, "{columns}: {lines:?}");
        }
    }

    #[test]
    fn a_training_on_a_narrow_terminal_writes_no_longer_line() {
        let (screen, mut reporter) = Screen::terminal(200);
        train(8, None, &mut reporter);
        assert!(screen.lines().iter().any(|line| line.contains("validation loss")));
        let (screen, mut reporter) = Screen::terminal(20);
        for done in 0..50 {
            assert!(reporter.update(done, Some(50), "a file with a long name").is_continue());
        }
        reporter.finish();
        assert!(screen.lines().iter().all(|line| line.chars().count() < 20), "{:?}", screen.lines());
    }

    #[test]
    fn an_interrupted_run_saves_and_resumes() {
        let folder = tempfile::tempdir().unwrap();
        let run = |existing| Some(RunFolder::new(folder.path()).existing(existing));
        let screen = Screen::default();
        let mut reporter = screen.pipe(Duration::MAX);
        reporter.stops = true;
        let report = train(10, run(Existing::Refuse), &mut |event: &TrainEvent<'_>| {
            INTERRUPTED.store(matches!(event, TrainEvent::Step { step: 3, .. }), Relaxed);
            let flow = reporter.on_event(event);
            INTERRUPTED.store(false, Relaxed);
            flow
        });
        assert_eq!((report.steps, report.stop), (3, TrainEnd::Observer));
        let log = log(&screen);
        assert!(log.iter().any(|line| line.starts_with("step 3  saved ")), "{log:?}");
        assert_eq!(log.last().unwrap(), "interrupted after step 3");
        let report = train(10, run(Existing::Resume), &mut screen.pipe(Duration::MAX));
        assert_eq!((report.steps, report.stop), (10, TrainEnd::Finished));
        assert!(self::log(&screen).contains(&"resuming after step 3".to_string()));
        let whole = train(10, None, &mut screen.pipe(Duration::MAX));
        assert_eq!(whole.history.column("loss"), report.history.column("loss"));
    }

    #[test]
    fn numbers_are_short() {
        let cases =
            [(0.0, "0.00"), (9.996, "10.0"), (99.96, "100"), (812.4, "812"), (999.6, "1.00k"), (45_123.0, "45.1k")];
        for (x, text) in cases {
            assert_eq!(with_prefix(x), text);
        }
        assert_eq!((with_prefix(1.234e6), with_prefix(5e9)), ("1.23M".into(), "5.00G".into()));
        let cases = [(59, "59s"), (60, "1m 00s"), (3_605, "1h 00m"), (90_000, "1d 01h")];
        for (seconds, text) in cases {
            assert_eq!(duration(Duration::from_secs(seconds)), text);
        }
    }
}
