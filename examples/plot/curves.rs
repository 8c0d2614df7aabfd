//! Curves over a common axis, each with its name at its end.

use std::io;
use std::path::Path;

use crate::plot::{Anchor, Axis, Page, SIZE, text_width};

/// A chart of curves.
pub(crate) struct Curves<'a> {
    pub(crate) title: &'a str,
    pub(crate) subtitle: &'a str,
    /// What the axes show, with units.
    pub(crate) axes: [&'a str; 2],
    pub(crate) curves: Vec<Curve<'a>>,
}

/// A curve by ascending x.
pub(crate) struct Curve<'a> {
    pub(crate) name: &'a str,
    /// A class of the style sheet.
    pub(crate) colour: &'a str,
    pub(crate) points: Vec<(f64, f64)>,
}

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 500.0;
/// Curves of more points are drawn as means of stretches, with a band of their range; those of few
/// points have their points marked.
const MANY: usize = 600;
const FEW: usize = 24;

impl Curves<'_> {
    /// Draws the curves into an SVG file.
    pub(crate) fn save(mut self, path: &Path) -> io::Result<()> {
        for curve in &mut self.curves {
            curve.points.retain(|(x, y)| x.is_finite() && y.is_finite());
        }
        self.curves.retain(|curve| !curve.points.is_empty());
        let range = |value: fn(&(f64, f64)) -> f64| {
            let values = self.curves.iter().flat_map(|curve| &curve.points).map(value);
            values.fold(None, |range: Option<[f64; 2]>, v| {
                let [low, high] = range.unwrap_or([v, v]);
                Some([low.min(v), high.max(v)])
            })
        };
        let (x_range, y_range) = (range(|p| p.0).unwrap_or([0.0, 1.0]), range(|p| p.1).unwrap_or([0.0, 1.0]));
        let lines: Vec<Line> = self.curves.iter().map(Line::of).collect();
        let label = |(line, curve): (&Line, &Curve<'_>)| format!("{} {}", curve.name, four_digits(line.end()));
        let labels: Vec<String> = lines.iter().zip(&self.curves).map(label).collect();
        let room = labels.iter().map(|label| text_width(label, SIZE + 1.0)).fold(0.0, f64::max);
        let (left, right, top, bottom) = (70.0, WIDTH - 32.0 - room, 104.0, HEIGHT - 62.0);
        // A curve that begins near 0 has an axis from 0.
        let x_low = if x_range[0] > 0.0 && x_range[0] < 0.1 * x_range[1] { 0.0 } else { x_range[0] };
        // Steps and epochs are whole.
        let x = Axis::new([x_low, x_range[1]], [left, right], (x_range[1] - x_low).clamp(1.0, 6.0));
        let y = Axis::from_tick(y_range, [bottom, top], 5.0);

        let mut page = Page::new(WIDTH, HEIGHT, self.title, self.subtitle);
        for &tick in &y.ticks {
            let at = y.at(tick);
            page.add(format_args!("<path class=\"grid\" d=\"M{left:.1} {at:.1}H{right:.1}\"/>"));
            page.text([left - 10.0, at + 4.5], SIZE, Anchor::End, "tick", &y.label(tick));
        }
        page.add(format_args!("<path class=\"axis\" d=\"M{left:.1} {bottom:.1}H{right:.1}\"/>"));
        for &tick in &x.ticks {
            let at = x.at(tick);
            page.add(format_args!("<path class=\"axis\" d=\"M{at:.1} {bottom:.1}v5\"/>"));
            page.text([at, bottom + 21.0], SIZE, Anchor::Middle, "tick", &x.label(tick));
        }
        page.text([(left + right) / 2.0, HEIGHT - 18.0], SIZE, Anchor::Middle, "name", self.axes[0]);
        page.text([20.0, top - 18.0], SIZE, Anchor::Start, "name", self.axes[1]);

        let ends: Vec<f64> = lines.iter().map(|line| y.at(line.end())).collect();
        let path_of = |points: &mut dyn Iterator<Item = (f64, f64)>| {
            points.map(|(a, b)| format!("{:.1} {:.1}", x.at(a), y.at(b))).collect::<Vec<_>>().join("L")
        };
        for (i, height) in apart(&ends, SIZE + 5.0, bottom).into_iter().enumerate() {
            let Line { points, low, high } = &lines[i];
            page.add(format_args!("<g class=\"{}\">", self.curves[i].colour));
            if !low.is_empty() {
                let band = path_of(&mut low.iter().chain(high.iter().rev()).copied());
                page.add(format_args!("<path fill=\"currentColor\" fill-opacity=\"0.2\" d=\"M{band}z\"/>"));
            }
            let few = points.len() <= FEW;
            let (line, width) = (path_of(&mut points.iter().copied()), if few { 2.5 } else { 1.5 });
            page.add(format_args!("<path class=\"line\" stroke-width=\"{width}\" d=\"M{line}\"/>"));
            for (a, b) in points.iter().filter(|_| few) {
                page.add(format_args!(
                    "<circle class=\"dot\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"3.5\"/>",
                    x.at(*a),
                    y.at(*b)
                ));
            }
            page.text([right + 12.0, height + 4.5], SIZE + 1.0, Anchor::Start, "label", &labels[i]);
            page.add(format_args!("</g>"));
        }
        page.save(path)
    }
}

/// A curve as it is drawn.
struct Line {
    points: Vec<(f64, f64)>,
    /// The lowest and the highest values of stretches, if the points are their means.
    low: Vec<(f64, f64)>,
    high: Vec<(f64, f64)>,
}

impl Line {
    fn of(curve: &Curve<'_>) -> Self {
        let all = &curve.points;
        if all.len() <= MANY {
            return Self { points: all.clone(), low: Vec::new(), high: Vec::new() };
        }
        let mut line = Self { points: Vec::new(), low: Vec::new(), high: Vec::new() };
        for stretch in all.chunks(all.len().div_ceil(MANY / 2)) {
            // The ends of the curve stay where they are.
            let place = line.points.len() as f64 / (MANY / 2 - 1) as f64;
            let x = stretch[((stretch.len() - 1) as f64 * place.min(1.0)).round() as usize].0;
            let values = stretch.iter().map(|point| point.1);
            line.points.push((x, values.clone().sum::<f64>() / stretch.len() as f64));
            line.low.push((x, values.clone().fold(f64::INFINITY, f64::min)));
            line.high.push((x, values.fold(f64::NEG_INFINITY, f64::max)));
        }
        line
    }

    /// The last value.
    fn end(&self) -> f64 {
        self.points[self.points.len() - 1].1
    }
}

/// A number with four significant digits.
fn four_digits(x: f64) -> String {
    let digits = (3.0 - x.abs().max(1e-9).log10().floor()).clamp(0.0, 9.0) as usize;
    format!("{x:.digits$}")
}

/// Heights of labels, as near to the given ones as texts of a height allow, none below `bottom`.
fn apart(heights: &[f64], height: f64, bottom: f64) -> Vec<f64> {
    let mut order: Vec<usize> = (0..heights.len()).collect();
    order.sort_by(|&a, &b| heights[b].total_cmp(&heights[a]));
    let (mut placed, mut free) = (heights.to_vec(), bottom);
    for i in order {
        placed[i] = heights[i].min(free);
        free = placed[i] - height;
    }
    placed
}
