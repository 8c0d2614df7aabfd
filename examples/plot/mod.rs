//! Pictures as plain SVG: the page, the axes and the text that every chart of the examples shares.
//!
//! A page follows the light or dark scheme of its viewer. Its colours are those of Okabe and Ito,
//! which colour-blind readers can tell apart, darker on white and lighter on black.

use std::fmt::Write as _;
use std::io;
use std::path::Path;

/// One rule per line: first the light scheme, which is also that of viewers without schemes, then
/// the dark one.
const STYLE: &str = "\
text{font-family:system-ui,-apple-system,'Segoe UI',Roboto,'Helvetica Neue',Arial,sans-serif;fill:#4a4a4a}
.title{font-weight:600;fill:#1a1a1a}
.page{fill:#fff}
.grid{stroke:#e4e4e4}
.axis{stroke:#9a9a9a;fill:none}
.blue{color:#0072b2}
.orange{color:#c04f00}
.heat{color:#08306b}
.line{fill:none;stroke:currentColor;stroke-linejoin:round;stroke-linecap:round}
.dot,text.label{fill:currentColor}
.label{font-weight:600}
.word{fill:#1a1a1a;paint-order:stroke;stroke:#fff;stroke-width:3px;stroke-linejoin:round}
@media (prefers-color-scheme:dark){
text{fill:#b9bcc0}
.title,.word{fill:#f2f2f2}
.page{fill:#14171a}
.word{stroke:#14171a}
.grid{stroke:#2c3136}
.axis{stroke:#747a80}
.blue{color:#56b4e9}
.orange{color:#e69f00}
.heat{color:#9bd8ff}
}
";

/// The size of text on axes and next to points, in pixels.
pub(crate) const SIZE: f64 = 13.0;

/// An SVG picture in progress.
pub(crate) struct Page {
    width: f64,
    height: f64,
    body: String,
}

/// Which part of a text is at its position.
#[derive(Clone, Copy)]
pub(crate) enum Anchor {
    Start,
    Middle,
    End,
}

impl Page {
    /// A page with a title and a line below it.
    pub(crate) fn new(width: f64, height: f64, title: &str, subtitle: &str) -> Self {
        let mut page = Self { width, height, body: String::new() };
        // A subtitle may contain a text of any length.
        let cut = |text: &str, size: f64| shortened(text, ((width - 40.0) / (0.56 * size)) as usize);
        let _ = writeln!(page.body, "<title>{}</title>", escaped(title));
        let _ = writeln!(page.body, "<rect class=\"page\" width=\"{width:.0}\" height=\"{height:.0}\"/>");
        page.text([20.0, 32.0], 18.0, Anchor::Start, "title", &cut(title, 18.0));
        page.text([20.0, 54.0], SIZE, Anchor::Start, "subtitle", &cut(subtitle, SIZE));
        page
    }

    /// Adds SVG elements.
    pub(crate) fn add(&mut self, elements: std::fmt::Arguments<'_>) {
        let _ = self.body.write_fmt(elements);
        self.body.push('\n');
    }

    /// Adds a text whose baseline is at `y`.
    pub(crate) fn text(&mut self, [x, y]: [f64; 2], size: f64, anchor: Anchor, class: &str, text: &str) {
        let (anchor, text) = (anchor.name(), escaped(text));
        self.add(format_args!(
            "<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" font-size=\"{size}\" text-anchor=\"{anchor}\">{text}</text>"
        ));
    }

    /// Adds a text that begins at a position and is rotated around it.
    pub(crate) fn rotated(&mut self, [x, y]: [f64; 2], degrees: f64, size: f64, class: &str, text: &str) {
        let text = escaped(text);
        self.add(format_args!(
            "<text class=\"{class}\" transform=\"translate({x:.1} {y:.1}) rotate({degrees})\" \
             font-size=\"{size}\">{text}</text>"
        ));
    }

    /// Writes the picture.
    pub(crate) fn save(&self, path: &Path) -> io::Result<()> {
        let Self { width, height, body } = self;
        std::fs::write(
            path,
            format!(
                "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width:.0}\" height=\"{height:.0}\" \
                 viewBox=\"0 0 {width:.0} {height:.0}\" role=\"img\">\n<style>\n{STYLE}</style>\n{body}</svg>\n"
            ),
        )
    }
}

impl Anchor {
    fn name(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Middle => "middle",
            Self::End => "end",
        }
    }
}

/// A linear axis: values to pixels, with round ticks.
pub(crate) struct Axis {
    pub(crate) ticks: Vec<f64>,
    step: f64,
    values: [f64; 2],
    pixels: [f64; 2],
}

impl Axis {
    /// An axis from `values[0]` at `pixels[0]` to `values[1]` at `pixels[1]`, with about `count`
    /// ticks between.
    pub(crate) fn new(values: [f64; 2], pixels: [f64; 2], count: f64) -> Self {
        let values = if values[1] > values[0] { values } else { [values[0] - 0.5, values[0] + 0.5] };
        let step = round_step((values[1] - values[0]) / count);
        let (first, last) = ((values[0] / step - 1e-9).ceil() as i64, (values[1] / step + 1e-9).floor() as i64);
        Self { ticks: (first..=last).map(|i| i as f64 * step).collect(), step, values, pixels }
    }

    /// Same as [`Axis::new`], from a tick at or below `values[0]` to a little above `values[1]`.
    pub(crate) fn from_tick(values: [f64; 2], pixels: [f64; 2], count: f64) -> Self {
        let step = Self::new(values, pixels, count).step;
        let low = (values[0] / step + 1e-9).floor() * step;
        let high = values[1] + 0.03 * (values[1] - low);
        Self::new([low, high.max(low + step)], pixels, (high - low).max(step) / step)
    }

    /// The pixel of a value.
    pub(crate) fn at(&self, value: f64) -> f64 {
        let [low, high] = self.values;
        self.pixels[0] + (value - low) / (high - low) * (self.pixels[1] - self.pixels[0])
    }

    /// A tick as text: `12,000`, `0.25`.
    pub(crate) fn label(&self, tick: f64) -> String {
        let digits = (-self.step.log10().floor()).max(0.0) as usize;
        let text = format!("{:.digits$}", tick.abs());
        let (whole, fraction) = text.split_at(text.find('.').unwrap_or(text.len()));
        let sign = if tick < -self.step / 2.0 { "−" } else { "" };
        format!("{sign}{}{fraction}", thousands(whole))
    }
}

/// 1, 2 or 5 times a power of ten, about `step` or the next larger one.
fn round_step(step: f64) -> f64 {
    let power = 10f64.powf(step.log10().floor());
    let times = [1.0, 2.0, 5.0].into_iter().find(|times| times * power >= step * 0.8).unwrap_or(10.0);
    times * power
}

/// Digits with commas between thousands.
pub(crate) fn thousands(digits: &str) -> String {
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Returns an estimate of a text's width in pixels.
pub(crate) fn text_width(text: &str, size: f64) -> f64 {
    let width = |c: char| match c {
        'i' | 'j' | 'l' | '.' | ',' | '\'' | '|' | '!' | ':' => 0.32,
        'f' | 't' | 'r' | ' ' | '-' | '(' | ')' => 0.42,
        'm' | 'w' | 'M' | 'W' | '@' | '%' => 0.92,
        c if c.is_uppercase() => 0.72,
        c if c.is_ascii() => 0.6,
        c if c >= '\u{1100}' => 1.05,
        _ => 0.65,
    };
    size * text.chars().map(width).sum::<f64>()
}

/// Returns the text, cut to at most `chars` characters.
pub(crate) fn shortened(text: &str, chars: usize) -> String {
    match text.char_indices().nth(chars) {
        None => text.into(),
        Some(_) => text.chars().take(chars.saturating_sub(1)).chain(['…']).collect(),
    }
}

/// Returns the text as XML, without control characters, which XML does not allow.
pub(crate) fn escaped(text: &str) -> String {
    let text = text.replace(char::is_control, " ");
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
