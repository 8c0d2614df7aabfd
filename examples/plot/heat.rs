//! Attention as shades: one head with its tokens, or all heads as a map.

use std::fmt::Write as _;
use std::io;
use std::path::Path;

use crate::plot::{Anchor, Page, SIZE, escaped, shortened, text_width};

/// The probabilities of one head.
pub(crate) struct Head<'a> {
    pub(crate) layer: usize,
    pub(crate) head: usize,
    /// The layer's path in the model.
    pub(crate) path: &'a str,
    /// `[tokens, tokens]`: rows attend to columns.
    pub(crate) probs: &'a [f32],
}

/// The names of tokens have this many characters at most.
const NAME: usize = 14;
/// More tokens than this are numbered instead of named.
const NAMED: usize = 72;

/// How dark a probability is, in [0, 1]: its square root, so that small ones show.
fn shade(p: f32) -> f64 {
    f64::from(p.clamp(0.0, 1.0)).sqrt()
}

/// Draws one head, with tokens on both axes.
pub(crate) fn save_head(head: &Head<'_>, tokens: &[String], path: &Path) -> io::Result<()> {
    let n = tokens.len();
    // Whole pixels: neighbours neither overlap nor leave gaps.
    let cell = (600.0 / n as f64).floor().clamp(1.0, 44.0);
    let size = cell * n as f64;
    let names: Vec<String> = tokens.iter().map(|token| shortened(token, NAME)).collect();
    let font = SIZE.min(0.92 * cell);
    // Up to here every token has its name; beyond, positions are numbered.
    let named = n <= NAMED;
    let reach = if named { names.iter().map(|name| text_width(name, font)).fold(24.0, f64::max) } else { 34.0 };
    let slanted = named && cell >= 20.0;
    let above = if slanted {
        0.72 * reach
    } else if named {
        reach
    } else {
        12.0
    };
    let (left, top) = (20.0 + 26.0 + reach + 8.0, 84.0 + 22.0 + above + 8.0);
    let lean = if slanted { 0.72 * text_width(&names[n - 1], font) - cell / 2.0 } else { 0.0 };
    let scale = left + size + 36.0_f64.max(lean + 12.0);
    let title = format!("Attention of layer {}, head {}", head.layer, head.head);
    let subtitle = "each row: the attention of one token, which sums to 1";
    let height = top + size.max(150.0) + 28.0;
    let mut page = Page::new((scale + 80.0).max(460.0), height, &title, subtitle);
    page.text([left, 84.0], SIZE, Anchor::Start, "name", "attended token (key) →");
    page.rotated([22.0, top], 90.0, SIZE, "name", "attending token (query) →");
    for (i, name) in names.iter().enumerate().filter(|_| named) {
        let middle = (i as f64 + 0.5) * cell;
        page.text([left - 8.0, top + middle + 0.35 * font], font, Anchor::End, "word", name);
        match slanted {
            true => page.rotated([left + middle + 2.0, top - 8.0], -45.0, font, "word", name),
            false => page.rotated([left + middle + 0.35 * font, top - 8.0], -90.0, font, "word", name),
        }
    }
    for i in (0..n).step_by(if n > 250 { 50 } else { 10 }).filter(|_| !named) {
        let (at, name) = ((i as f64 + 0.5) * cell, i.to_string());
        page.text([left - 8.0, top + at + 4.5], SIZE, Anchor::End, "tick", &name);
        page.text([left + at, top - 8.0], SIZE, Anchor::Middle, "tick", &name);
    }
    match named {
        true => cells(&mut page, head, tokens, [left, top], cell),
        false => shades(&mut page, head.probs, n, [left, top], cell),
    }
    frame(&mut page, [left, top], size);
    legend(&mut page, [scale, top], size.clamp(120.0, 260.0));
    page.save(path)
}

/// Draws heads as a map: a row a layer, a column a head.
pub(crate) fn save_map(rows: &[Vec<Head<'_>>], tokens: &[String], path: &Path) -> io::Result<()> {
    let (n, columns) = (tokens.len(), rows[0].len());
    let size = (960.0 / columns as f64 - 10.0).clamp(36.0, 180.0);
    let (cell, gap) = (size / n as f64, 10.0);
    let (left, top) = (104.0, 106.0);
    let across = columns as f64 * (size + gap) - gap;
    let down = rows.len() as f64 * (size + gap) - gap;
    let text = tokens.join(" ");
    let subtitle = format!("{n} tokens: {}", text.split_whitespace().collect::<Vec<_>>().join(" "));
    let title = "Attention by layer and head";
    let scale = left + across + 36.0;
    let mut page = Page::new(scale + 80.0, top + down.max(150.0) + 52.0, title, &subtitle);
    // A name at each head where there is room, else its number.
    let wordy = size >= 56.0;
    if !wordy {
        page.text([left, top - 28.0], SIZE, Anchor::Start, "name", "head →");
    }
    for (i, heads) in rows.iter().enumerate() {
        let y = top + i as f64 * (size + gap);
        let name = format!("layer {}", heads[0].layer);
        page.text([left - 14.0, y + size / 2.0 + 4.5], SIZE, Anchor::End, "tick", &name);
        for (j, head) in heads.iter().enumerate() {
            let x = left + j as f64 * (size + gap);
            if i == 0 {
                let name = if wordy { format!("head {}", head.head) } else { head.head.to_string() };
                page.text([x + size / 2.0, top - 10.0], SIZE, Anchor::Middle, "tick", &name);
            }
            page.add(format_args!("<g><title>{}, head {}</title>", escaped(head.path), head.head));
            shades(&mut page, head.probs, n, [x, y], cell);
            frame(&mut page, [x, y], size);
            page.add(format_args!("</g>"));
        }
    }
    let axes = "in each square: rows are attending tokens (queries), columns are attended tokens (keys)";
    page.text([20.0, top + down.max(150.0) + 30.0], SIZE, Anchor::Start, "name", axes);
    legend(&mut page, [scale, top], down.clamp(120.0, 260.0));
    page.save(path)
}

fn frame(page: &mut Page, [x, y]: [f64; 2], size: f64) {
    page.add(format_args!("<rect class=\"axis\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{size:.1}\" height=\"{size:.1}\"/>"));
}

/// A square for each pair of tokens, which shows its numbers when pointed at.
fn cells(page: &mut Page, head: &Head<'_>, tokens: &[String], [left, top]: [f64; 2], cell: f64) {
    let n = tokens.len();
    page.add(format_args!("<g class=\"heat\" fill=\"currentColor\" shape-rendering=\"crispEdges\">"));
    for (i, &p) in head.probs.iter().enumerate().filter(|(_, p)| **p >= 5e-4) {
        let (x, y) = (left + (i % n) as f64 * cell, top + (i / n) as f64 * cell);
        let (query, key) = (escaped(&tokens[i / n]), escaped(&tokens[i % n]));
        page.add(format_args!(
            "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{cell:.1}\" height=\"{cell:.1}\" fill-opacity=\"{:.3}\">\
             <title>{query} → {key}: {p:.3}</title></rect>",
            shade(p)
        ));
    }
    page.add(format_args!("</g>"));
}

/// Shades that a page distinguishes where it has many squares.
const LEVELS: usize = 24;

/// Squares in few elements: a path for each shade, in which neighbours in a row are one stretch.
fn shades(page: &mut Page, probs: &[f32], n: usize, [left, top]: [f64; 2], cell: f64) {
    let mut paths = vec![String::new(); LEVELS + 1];
    for (row, probs) in probs.chunks_exact(n).enumerate() {
        let level = |p: &f32| (shade(*p) * LEVELS as f64).round() as usize;
        let mut column = 0;
        for stretch in probs.chunk_by(|a, b| level(a) == level(b)) {
            let _ = write!(paths[level(&stretch[0])], "M{column} {row}h{}v1h-{}z", stretch.len(), stretch.len());
            column += stretch.len();
        }
    }
    page.add(format_args!(
        "<g class=\"heat\" fill=\"currentColor\" transform=\"translate({left:.1} {top:.1}) scale({cell:.4})\" \
         shape-rendering=\"crispEdges\">"
    ));
    for (level, path) in paths.iter().enumerate().skip(1).filter(|(_, path)| !path.is_empty()) {
        page.add(format_args!("<path fill-opacity=\"{:.3}\" d=\"{path}\"/>", level as f64 / LEVELS as f64));
    }
    page.add(format_args!("</g>"));
}

/// The scale from probabilities to shades.
fn legend(page: &mut Page, [x, y]: [f64; 2], height: f64) {
    let steps = 64;
    page.text([x, y - 12.0], SIZE, Anchor::Start, "name", "probability");
    page.add(format_args!("<g class=\"heat\" fill=\"currentColor\" shape-rendering=\"crispEdges\">"));
    for i in 0..steps {
        let (part, length) = ((f64::from(i) + 0.5) / f64::from(steps), height / f64::from(steps));
        let at = y + height - f64::from(i + 1) * length;
        page.add(format_args!(
            "<rect x=\"{x:.1}\" y=\"{at:.2}\" width=\"16\" height=\"{length:.2}\" fill-opacity=\"{part:.3}\"/>"
        ));
    }
    page.add(format_args!("</g>"));
    page.add(format_args!("<rect class=\"axis\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"16\" height=\"{height:.1}\"/>"));
    for p in [0.0, 0.1, 0.25, 0.5, 1.0] {
        let at = y + height * (1.0 - shade(p));
        page.add(format_args!("<path class=\"axis\" d=\"M{:.1} {at:.1}h4\"/>", x + 16.0));
        page.text([x + 25.0, at + 4.5], SIZE, Anchor::Start, "tick", &p.to_string());
    }
}
