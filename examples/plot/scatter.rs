//! Points in a plane, each with its name where no other point or name is.

use std::io;
use std::path::Path;

use crate::plot::{Anchor, Axis, Page, SIZE, escaped, text_width};

/// A chart of named points with one scale for both axes, so that distances can be compared.
pub(crate) struct Scatter<'a> {
    pub(crate) title: &'a str,
    pub(crate) subtitle: &'a str,
    /// What the axes show.
    pub(crate) axes: [&'a str; 2],
    pub(crate) points: Vec<(f64, f64)>,
    /// The name of each point.
    pub(crate) names: &'a [String],
}

const WIDTH: f64 = 900.0;
const RADIUS: f64 = 4.0;
/// The size of names.
const NAME: f64 = 14.0;

impl Scatter<'_> {
    /// Draws the points into an SVG file.
    pub(crate) fn save(&self, path: &Path) -> io::Result<()> {
        let range = |value: fn(&(f64, f64)) -> f64| {
            let values = self.points.iter().map(value);
            let (low, high) = values.fold((f64::MAX, f64::MIN), |(low, high), v| (low.min(v), high.max(v)));
            ((low + high) / 2.0, (high - low).max(1e-6))
        };
        let ((x_middle, x_length), (y_middle, y_length)) = (range(|p| p.0), range(|p| p.1));
        // Room for names beyond the outermost points.
        let (left, right, top, pad) = (70.0, WIDTH - 24.0, 104.0, 44.0);
        let across = right - left - 2.0 * pad;
        let down = (across * y_length / x_length).clamp(320.0, 620.0);
        let bottom = top + down + 2.0 * pad;
        let unit = (x_length / across).max(y_length / down);
        let ends = |middle: f64, pixels: f64| [middle - unit * pixels / 2.0, middle + unit * pixels / 2.0];
        let x = Axis::new(ends(x_middle, right - left), [left, right], 6.0);
        let y = Axis::new(ends(y_middle, bottom - top), [bottom, top], 5.0);

        let mut page = Page::new(WIDTH, bottom + 62.0, self.title, self.subtitle);
        for &tick in &y.ticks {
            let at = y.at(tick);
            page.add(format_args!("<path class=\"grid\" d=\"M{left:.1} {at:.1}H{right:.1}\"/>"));
            page.text([left - 10.0, at + 4.5], SIZE, Anchor::End, "tick", &y.label(tick));
        }
        for &tick in &x.ticks {
            let at = x.at(tick);
            page.add(format_args!("<path class=\"grid\" d=\"M{at:.1} {top:.1}V{bottom:.1}\"/>"));
            page.text([at, bottom + 19.0], SIZE, Anchor::Middle, "tick", &x.label(tick));
        }
        page.text([(left + right) / 2.0, bottom + 44.0], SIZE, Anchor::Middle, "name", self.axes[0]);
        page.text([20.0, top - 18.0], SIZE, Anchor::Start, "name", self.axes[1]);

        let pixels: Vec<[f64; 2]> = self.points.iter().map(|&(a, b)| [x.at(a), y.at(b)]).collect();
        let places = places(&pixels, self.names, [left, top, right, bottom]);
        for (&[a, b], place) in pixels.iter().zip(&places) {
            if let Some(end) = place.as_ref().and_then(|place| place.leader) {
                page.add(format_args!("<path class=\"axis\" d=\"M{a:.1} {b:.1}L{:.1} {:.1}\"/>", end[0], end[1]));
            }
        }
        for ((&[a, b], name), place) in pixels.iter().zip(self.names).zip(&places) {
            page.add(format_args!(
                "<circle class=\"dot blue\" cx=\"{a:.1}\" cy=\"{b:.1}\" r=\"{RADIUS}\"><title>{}</title></circle>",
                escaped(name)
            ));
            if let Some(place) = place {
                page.text([place.middle[0], place.middle[1] + 5.0], NAME, Anchor::Middle, "word", name);
            }
        }
        page.save(path)
    }
}

/// Where a name stands.
struct Place {
    middle: [f64; 2],
    /// Where a line from the point to the name ends, if they are not next to each other.
    leader: Option<[f64; 2]>,
}

/// Left, top, right and bottom.
type Box4 = [f64; 4];

fn overlap([l, t, r, b]: Box4, [left, top, right, bottom]: Box4) -> bool {
    l < right && left < r && t < bottom && top < b
}

/// A place for each name: next to its point or else as near as possible, inside `frame`, where it
/// covers no point, line or earlier name. `None` where there is no such place.
fn places(points: &[[f64; 2]], names: &[String], frame: Box4) -> Vec<Option<Place>> {
    let mut taken = Vec::new();
    // A clearance keeps a name from being read as that of another point.
    let (near, far) = (&[0.0, 8.0, 14.0][..], &[22.0, 32.0, 44.0, 60.0, 80.0, 110.0][..]);
    let mut find = |(&at, name): (&[f64; 2], &String)| {
        let rounds = [(near, 9.0), (near, 3.0), (far, 6.0), (far, 2.0)];
        rounds
            .iter()
            .find_map(|&(distances, clearance)| place(at, name, points, distances, clearance, &mut taken, frame))
    };
    points.iter().zip(names).map(&mut find).collect()
}

/// A box around its middle.
fn around([x, y]: [f64; 2], width: f64, height: f64) -> Box4 {
    [x - width / 2.0, y - height / 2.0, x + width / 2.0, y + height / 2.0]
}

/// The first free place of a name at one of the distances, which is taken from then on. Other
/// points keep a clearance.
fn place(
    at: [f64; 2],
    name: &str,
    points: &[[f64; 2]],
    distances: &[f64],
    clearance: f64,
    taken: &mut Vec<Box4>,
    frame: Box4,
) -> Option<Place> {
    let (width, height) = (text_width(name, NAME) + 4.0, NAME + 3.0);
    let near_point = |place: Box4| {
        points.iter().any(|&point| {
            let radius = RADIUS + if point == at { 0.0 } else { clearance };
            overlap(place, around(point, 2.0 * radius, 2.0 * radius))
        })
    };
    for &distance in distances {
        // To the right, left, above, below; then between these.
        for step in [0, 8, 12, 4, 14, 10, 2, 6, 15, 1, 7, 9, 13, 11, 3, 5] {
            let (sin, cos) = (f64::from(step) * std::f64::consts::PI / 8.0).sin_cos();
            let (reach, rise) = (width / 2.0 + RADIUS + 3.0, height / 2.0 + RADIUS + 3.0);
            let middle = [at[0] + cos * (reach + distance), at[1] + sin * (rise + distance)];
            let place = around(middle, width, height);
            let inside = place[0] >= frame[0] && place[1] >= frame[1] && place[2] <= frame[2] && place[3] <= frame[3];
            let end = [at[0].clamp(place[0], place[2]), at[1].clamp(place[1], place[3])];
            let line = (1..8).map(|part| {
                let part = f64::from(part) / 8.0;
                around([at[0] + part * (end[0] - at[0]), at[1] + part * (end[1] - at[1])], 2.0, 2.0)
            });
            let leader = distance > 10.0;
            let line: Vec<Box4> = line.filter(|_| leader).collect();
            let free = |place: Box4| !taken.iter().any(|&other| overlap(place, other));
            if inside && !near_point(place) && free(place) && line.iter().all(|&part| free(part)) {
                taken.push(place);
                taken.extend(line);
                return Some(Place { middle, leader: leader.then_some(end) });
            }
        }
    }
    None
}
