//! The parameters of a layer or model as a table, and in a few words.

use std::fmt::{self, Display, Formatter};

use crate::nn::parameter::Parameter;

/// A table of the parameters of a layer or model, like `summary()` of Keras. Created by
/// [`Module::summary`](super::Module::summary), printed by `Display`.
///
/// Each line has the path, shape, number format and number of elements of a parameter. Consecutive
/// layers whose parameters have the same names and shapes are folded: their lines show the shapes
/// of one layer and the number of elements in all of them. The last lines are the number of
/// elements in all parameters, that in trainable ones, and the size in bytes.
///
/// ```
/// use loquat::nn::{Linear, Module};
/// use loquat::Rng;
///
/// struct Mlp { layers: Vec<Linear>, head: Linear }
/// loquat::module!(Mlp { layers, head });
///
/// let mut rng = Rng::seed(1);
/// let mlp = Mlp {
///     layers: (0..3).map(|_| Linear::init(64, 64, true, &mut rng)).collect::<Result<_, _>>()?,
///     head: Linear::init(64, 10, false, &mut rng)?,
/// };
/// let expected = "\
/// path         shape     format  parameters
/// -----------------------------------------
/// layers.0 … layers.2 × 3
///   weight     [64, 64]  f32         12,288
///   bias       [64]      f32            192
/// head.weight  [10, 64]  f32            640
/// -----------------------------------------
/// parameters                         13,120
/// trainable                          13,120
/// bytes                              52,480
/// ";
/// assert_eq!(mlp.summary().to_string(), expected);
/// # Ok::<(), loquat::Error>(())
/// ```
#[derive(Clone)]
pub struct Summary {
    entries: Vec<Entry>,
    trainable: usize,
    bytes: usize,
}

/// A parameter, or the same parameter of several layers.
#[derive(Clone)]
struct Entry {
    path: String,
    /// The offset in the path from which on indices are searched.
    start: usize,
    /// The shape of one parameter.
    shape: Vec<usize>,
    /// The formats that occur.
    formats: Vec<&'static str>,
    /// The number of elements in all of them.
    elements: usize,
}

impl Entry {
    /// Returns the first index in the path: what precedes it, the index, and what follows it.
    fn index(&self) -> Option<(&str, usize, &str)> {
        let mut at = self.start;
        loop {
            let segment = self.path[at..].split('.').next().unwrap_or_default();
            let end = at + segment.len();
            let rest = self.path.get(end + 1..);
            if let Ok(index) = segment.parse() {
                return Some((&self.path[..at], index, rest.unwrap_or_default()));
            }
            rest?;
            at = end + 1;
        }
    }

    /// Returns whether the other entry is the same parameter of another layer.
    fn is_like(&self, other: &Self) -> bool {
        self.shape == other.shape && self.index().map(|index| index.2) == other.index().map(|index| index.2)
    }

    /// Merges the copies of a layer's parameter into one entry; if there is only one copy, its
    /// index stays in the path.
    fn merge<'e>(first: &Self, copies: impl Iterator<Item = &'e Self> + Clone) -> Self {
        let below = first.index().map_or("", |index| index.2);
        let alone = copies.clone().nth(1).is_none();
        let mut formats: Vec<&'static str> = Vec::new();
        for format in copies.clone().flat_map(|entry| &entry.formats) {
            if !formats.contains(format) {
                formats.push(format);
            }
        }
        Self {
            path: if alone { first.path.clone() } else { below.to_string() },
            start: if alone { first.path.len() - below.len() } else { 0 },
            shape: first.shape.clone(),
            formats,
            elements: copies.map(|entry| entry.elements).sum(),
        }
    }
}

/// A line of the table: path, shape, formats, elements.
struct Line([String; 4]);

impl Line {
    fn cells(path: &str, shape: &str, format: &str, elements: &str) -> Self {
        Self([path, shape, format, elements].map(str::to_string))
    }

    fn new(depth: usize, path: &str, entry: Option<&Entry>) -> Self {
        let path = format!("{:1$}{path}", "", 2 * depth);
        match entry {
            None => Self::cells(&path, "", "", ""),
            Some(entry) => {
                Self::cells(&path, &format!("{:?}", entry.shape), &entry.formats.join(", "), &grouped(entry.elements))
            }
        }
    }
}

impl Summary {
    pub(crate) fn new(parameters: &[(String, &Parameter)]) -> Self {
        let entry = |(path, parameter): &(String, &Parameter)| Entry {
            path: path.clone(),
            start: 0,
            shape: parameter.shape().to_vec(),
            formats: vec![parameter.weight().format_name()],
            elements: parameter.len(),
        };
        let trainable = parameters.iter().filter(|(_, p)| p.is_trainable());
        Self {
            entries: parameters.iter().map(entry).collect(),
            trainable: trainable.map(|(_, p)| p.len()).sum(),
            bytes: parameters.iter().map(|(_, p)| p.weight().bytes()).sum(),
        }
    }

    fn elements(&self) -> usize {
        self.entries.iter().map(|entry| entry.elements).sum()
    }

    /// Returns the number of layers, then [`Summary::in_short`].
    pub(crate) fn of_layers(&self, layers: usize) -> String {
        format!("{layers} layer{}, {}", if layers == 1 { "" } else { "s" }, self.in_short())
    }

    /// Returns the number of elements and the most frequent format: `110M parameters, bf16`.
    pub(crate) fn in_short(&self) -> String {
        let of =
            |format: &str| self.entries.iter().filter(|e| e.formats[0] == format).map(|e| e.elements).sum::<usize>();
        let most = self.entries.iter().map(|entry| entry.formats[0]).max_by_key(|format| of(format));
        let elements = count(self.elements());
        most.map_or(format!("{elements} parameters"), |format| format!("{elements} parameters, {format}"))
    }
}

/// Appends the lines of entries, with repeated layers folded.
fn fold(entries: &[Entry], depth: usize, lines: &mut Vec<Line>) {
    let mut rest = entries;
    while let Some(first) = rest.first() {
        let Some((head, index, _)) = first.index() else {
            lines.push(Line::new(depth, &first.path, Some(first)));
            rest = &rest[1..];
            continue;
        };
        let len = layer(rest, head, index).len();
        let repeats = |copy: &usize| {
            let other = layer(&rest[copy * len..], head, index + copy);
            other.len() == len && rest.iter().zip(other).all(|(a, b)| a.is_like(b))
        };
        let copies = 1 + (1..rest.len() / len).take_while(repeats).count();
        let (all, behind) = rest.split_at(copies * len);
        let merged: Vec<Entry> = (0..len).map(|i| Entry::merge(&all[i], all[i..].iter().step_by(len))).collect();
        let range = format!("{head}{index} … {head}{} × {copies}", index + copies - 1);
        match &merged[..] {
            alone if copies == 1 => fold(alone, depth, lines),
            [entry] if entry.path.is_empty() => lines.push(Line::new(depth, &range, Some(entry))),
            several => {
                lines.push(Line::new(depth, &range, None));
                fold(several, depth + 1, lines);
            }
        }
        rest = behind;
    }
}

/// Returns the leading entries whose path is `head`, then `index`.
fn layer<'e>(entries: &'e [Entry], head: &str, index: usize) -> &'e [Entry] {
    let is_of = |entry: &&Entry| entry.index().is_some_and(|(h, i, _)| (h, i) == (head, index));
    &entries[..entries.iter().take_while(is_of).count()]
}

impl Display for Summary {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let mut lines = Vec::new();
        fold(&self.entries, 0, &mut lines);
        let totals = [("parameters", self.elements()), ("trainable", self.trainable), ("bytes", self.bytes)];
        let totals: Vec<Line> = totals.into_iter().map(|(name, n)| Line::cells(name, "", "", &grouped(n))).collect();
        let head = Line::cells("path", "shape", "format", "parameters");
        let mut widths = [0; 4];
        // The name of repeated layers has its own line, and may be wider than the column.
        for line in lines.iter().chain(&totals).chain([&head]).filter(|line| !line.0[3].is_empty()) {
            for (width, cell) in widths.iter_mut().zip(&line.0) {
                *width = (*width).max(cell.chars().count());
            }
        }
        let rule = "-".repeat(widths.iter().sum::<usize>() + 2 * (widths.len() - 1));
        let [path, shape, format, elements] = widths;
        let mut write = |line: &Line| {
            let [a, b, c, d] = &line.0;
            writeln!(f, "{}", format!("{a:path$}  {b:shape$}  {c:format$}  {d:>elements$}").trim_end())
        };
        write(&head)?;
        write(&Line::cells(&rule, "", "", ""))?;
        lines.iter().try_for_each(&mut write)?;
        write(&Line::cells(&rule, "", "", ""))?;
        totals.iter().try_for_each(write)
    }
}

impl fmt::Debug for Summary {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "Summary({})", self.in_short())
    }
}

/// Formats a number as `1,234,567`.
fn grouped(n: usize) -> String {
    let digits = n.to_string();
    let groups = digits.as_bytes().rchunks(3).rev().map(String::from_utf8_lossy);
    groups.collect::<Vec<_>>().join(",")
}

/// Formats a number as `1.23M`, with three digits.
fn count(n: usize) -> String {
    let x = n as f64;
    let Some((unit, name)) = [(1e9, "B"), (1e6, "M"), (1e3, "K")].into_iter().find(|(unit, _)| x >= 0.9995 * unit)
    else {
        return n.to_string();
    };
    let x = x / unit;
    let decimals = [9.995, 99.95].into_iter().filter(|&limit| x < limit).count();
    let number = format!("{x:.decimals$}");
    let number = if decimals > 0 { number.trim_end_matches('0').trim_end_matches('.') } else { &number };
    format!("{number}{name}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::{Embedding, Linear, Module};
    use crate::random::Rng;
    use crate::tensor::Tensor;

    struct Layer {
        experts: Vec<Linear>,
        scale: Parameter,
    }
    crate::module!(Layer { experts, scale });

    struct Model {
        table: Embedding,
        layers: Vec<Layer>,
        tail: Vec<Linear>,
        gains: Vec<Parameter>,
    }
    crate::module!(Model { table, layers, tail, gains });

    fn linear(n_in: usize, n_out: usize) -> Linear {
        Linear::init(n_in, n_out, false, &mut Rng::seed(1)).unwrap()
    }

    fn model() -> Model {
        let gain = || Parameter::new(Tensor::zeros(&[4]));
        let layer = |n: usize| Layer { experts: (0..n).map(|_| linear(4, 8)).collect(), scale: gain() };
        let mut model = Model {
            table: Embedding::init(1000, 4, 1.0, &mut Rng::seed(1)).unwrap(),
            layers: vec![layer(3), layer(3), layer(2), layer(1)],
            tail: vec![linear(4, 5), linear(5, 4)],
            gains: vec![gain(), gain()],
        };
        model.table.weight.set_trainable(false);
        let half = model.layers[1].experts[2].weight.weight().to_bf16();
        model.layers[1].experts[2].weight.set_weight(&half).unwrap();
        model
    }

    #[test]
    fn layers_are_folded_where_they_are_alike_and_nowhere_else() {
        let expected = "\
path                       shape      format     parameters
-----------------------------------------------------------
table.weight               [1000, 4]  f32             4,000
layers.0 … layers.1 × 2
  experts.0 … experts.2 × 3
    weight                 [8, 4]     f32, bf16         192
  scale                    [4]        f32                 8
layers.2.experts.0 … layers.2.experts.1 × 2
  weight                   [8, 4]     f32                64
layers.2.scale             [4]        f32                 4
layers.3.experts.0.weight  [8, 4]     f32                32
layers.3.scale             [4]        f32                 4
tail.0.weight              [5, 4]     f32                20
tail.1.weight              [4, 5]     f32                20
gains.0 … gains.1 × 2      [4]        f32                 8
-----------------------------------------------------------
parameters                                            4,352
trainable                                               320
bytes                                                17,344
";
        assert_eq!(model().summary().to_string(), expected);
        assert_eq!(format!("{:?}", model().summary()), "Summary(4.35K parameters, f32)");
        assert!(Vec::<Linear>::new().summary().to_string().contains("bytes"));
    }

    #[test]
    fn numbers_are_short_or_grouped() {
        let short = [
            (7, "7"),
            (999, "999"),
            (1000, "1K"),
            (1234, "1.23K"),
            (12_000, "12K"),
            (99_949, "99.9K"),
            (999_499, "999K"),
            (999_500, "1M"),
            (110_000_000, "110M"),
            (1_240_000_000, "1.24B"),
        ];
        short.iter().for_each(|&(n, expected)| assert_eq!(count(n), expected));
        let groups = [(0, "0"), (999, "999"), (1000, "1,000"), (1_234_567, "1,234,567")];
        groups.iter().for_each(|&(n, expected)| assert_eq!(grouped(n), expected));
    }
}
