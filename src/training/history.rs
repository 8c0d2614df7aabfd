//! The history of a training run, one row per step, saved as CSV or JSON.
//!
//! A row has a fixed set of columns, any of which may be empty, and any number of additional
//! metrics (for example, an accuracy). Numbers round-trip exactly: what is written reads back with
//! the same bits.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::atomic;
use crate::{Error, Result};

/// One row of a [`History`].
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Row {
    /// The number of optimizer steps done, counted from 1.
    pub step: u64,
    /// The number of epochs done, including the fraction of the current one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epoch: Option<f64>,
    /// The training loss in nats: the mean since the last row.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub loss: Option<f64>,
    /// The validation loss, in nats.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub val_loss: Option<f64>,
    /// The learning rate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lr: Option<f64>,
    /// The norm of all gradients, before clipping.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grad_norm: Option<f64>,
    /// Training speed since the last row, in tokens per second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens_per_second: Option<f64>,
    /// Seconds since the run began.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seconds: Option<f64>,
    /// Additional metrics by name.
    #[serde(flatten, serialize_with = "finite")]
    pub metrics: BTreeMap<String, f64>,
}

/// Leaves out NaN and infinity, which JSON cannot represent.
fn finite<S: serde::Serializer>(
    metrics: &BTreeMap<String, f64>,
    serializer: S,
) -> std::result::Result<S::Ok, S::Error> {
    serializer.collect_map(metrics.iter().filter(|(_, value)| value.is_finite()))
}

/// The fixed columns after `step`, in the order of the file.
const COLUMNS: [&str; 7] = ["epoch", "loss", "val_loss", "lr", "grad_norm", "tokens_per_second", "seconds"];

impl Row {
    /// Returns an empty row for a step.
    pub fn at(step: u64) -> Self {
        Row { step, ..Row::default() }
    }

    /// Adds a metric.
    #[must_use]
    pub fn with(mut self, name: impl Into<String>, value: f64) -> Self {
        self.metrics.insert(name.into(), value);
        self
    }

    /// Returns the value of a column, fixed or additional, or `None` if it is empty.
    pub fn get(&self, column: &str) -> Option<f64> {
        match column {
            "step" => Some(self.step as f64),
            "epoch" => self.epoch,
            "loss" => self.loss,
            "val_loss" => self.val_loss,
            "lr" => self.lr,
            "grad_norm" => self.grad_norm,
            "tokens_per_second" => self.tokens_per_second,
            "seconds" => self.seconds,
            own => self.metrics.get(own).copied(),
        }
    }

    /// Returns whether `column` is one of the fixed columns.
    pub(crate) fn is_fixed(column: &str) -> bool {
        column == "step" || COLUMNS.contains(&column)
    }

    fn set(&mut self, column: &str, value: f64) {
        match column {
            "epoch" => self.epoch = Some(value),
            "loss" => self.loss = Some(value),
            "val_loss" => self.val_loss = Some(value),
            "lr" => self.lr = Some(value),
            "grad_norm" => self.grad_norm = Some(value),
            "tokens_per_second" => self.tokens_per_second = Some(value),
            "seconds" => self.seconds = Some(value),
            own => {
                self.metrics.insert(own.to_string(), value);
            }
        }
    }
}

/// The rows of a run, by ascending step.
#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct History {
    rows: Vec<Row>,
}

impl std::fmt::Debug for History {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "History({} rows)", self.rows.len())
    }
}

impl History {
    /// Returns the rows.
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// Appends a row. Rows of the same or a later step are removed first, so a run that resumes
    /// from an older checkpoint leaves no duplicates.
    pub fn push(&mut self, row: Row) {
        self.truncate(row.step.saturating_sub(1));
        self.rows.push(row);
    }

    /// Removes the rows after `step`.
    pub(crate) fn truncate(&mut self, step: u64) {
        let kept = self.rows.partition_point(|row| row.step <= step);
        self.rows.truncate(kept);
    }

    /// Returns the (step, value) pairs of the rows in which a column is not empty.
    pub fn column(&self, name: &str) -> Vec<(u64, f64)> {
        self.rows.iter().filter_map(|row| Some((row.step, row.get(name)?))).collect()
    }

    /// Returns the step and value of the lowest validation loss.
    pub fn best_val_loss(&self) -> Option<(u64, f64)> {
        self.column("val_loss").into_iter().filter(|(_, loss)| !loss.is_nan()).min_by(|a, b| a.1.total_cmp(&b.1))
    }

    /// Returns the rows as comma-separated values with a header.
    pub(crate) fn to_csv(&self) -> String {
        let own: BTreeSet<&str> = self.rows.iter().flat_map(|row| row.metrics.keys().map(String::as_str)).collect();
        let columns: Vec<&str> = COLUMNS.into_iter().chain(own).collect();
        let mut csv = String::from("step");
        for column in &columns {
            csv.push(',');
            csv.push_str(&quoted(column));
        }
        csv.push('\n');
        for row in &self.rows {
            csv.push_str(&row.step.to_string());
            for column in &columns {
                csv.push(',');
                if let Some(value) = row.get(column) {
                    csv.push_str(&value.to_string());
                }
            }
            csv.push('\n');
        }
        csv
    }

    /// Parses comma-separated values with a header that begins with `step`.
    ///
    /// # Errors
    /// [`Error::Argument`] with the line number and the expected content.
    pub(crate) fn from_csv(csv: &str) -> Result<Self> {
        let mut lines = csv.lines().enumerate().filter(|(_, line)| !line.is_empty());
        let header = lines.next().map(|(_, line)| cells(line)).unwrap_or_default();
        if header.first().map(String::as_str) != Some("step") {
            return Err(Error::argument("history, line 1", "a header that begins with `step`", format!("{header:?}")));
        }
        let mut history = History::default();
        for (i, line) in lines {
            let wrong = |expected: &str, found: &str| {
                Error::argument(format!("history, line {}", i + 1), expected, format!("`{found}`"))
            };
            let cells = cells(line);
            if cells.len() != header.len() {
                return Err(wrong(&format!("{} cells", header.len()), line));
            }
            let mut row = Row::at(cells[0].parse().map_err(|_| wrong("a step", &cells[0]))?);
            for (column, cell) in header.iter().zip(&cells).skip(1).filter(|(_, cell)| !cell.is_empty()) {
                row.set(column, cell.parse().map_err(|_| wrong("a number", cell))?);
            }
            if history.rows.last().is_some_and(|last| last.step >= row.step) {
                return Err(wrong("a step larger than that of the line before", &cells[0]));
            }
            history.rows.push(row);
        }
        Ok(history)
    }

    /// Returns the rows as a JSON array of objects. Empty cells are left out; values that are not
    /// finite are `null` or left out.
    pub(crate) fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("rows of numbers are JSON")
    }

    /// Parses a JSON array of objects.
    ///
    /// # Errors
    /// [`Error::Argument`] if the text is not such an array or its steps do not ascend.
    pub(crate) fn from_json(json: &str) -> Result<Self> {
        let history: History =
            serde_json::from_str(json).map_err(|e| Error::argument("history", "a JSON array of rows", e))?;
        if let Some(pair) = history.rows.windows(2).find(|pair| pair[0].step >= pair[1].step) {
            return Err(Error::argument(
                "history",
                "ascending steps",
                format!("{} after {}", pair[1].step, pair[0].step),
            ));
        }
        Ok(history)
    }

    /// Saves the rows to a file: JSON if its name ends in `.json`, otherwise CSV. The file is
    /// replaced atomically.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be written.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        let text = if is_json(path) { self.to_json() } else { self.to_csv() };
        atomic::write_file(path, |file| file.write_all(text.as_bytes()))
    }

    /// Reads a file: JSON if its name ends in `.json`, otherwise CSV.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be read; [`Error::Format`] with the path and line if its
    /// content is not a history.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let text = std::fs::read_to_string(path).map_err(|e| Error::io(path, e))?;
        let history = if is_json(path) { Self::from_json(&text) } else { Self::from_csv(&text) };
        history.map_err(|e| Error::format(path, e.to_string()))
    }
}

fn is_json(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "json")
}

/// Quotes a cell for CSV if needed.
fn quoted(cell: &str) -> String {
    let cell = cell.replace(['\n', '\r'], " ");
    if cell.contains([',', '"']) { format!("\"{}\"", cell.replace('"', "\"\"")) } else { cell }
}

/// Splits a line of CSV into cells.
fn cells(line: &str) -> Vec<String> {
    let mut cells = vec![String::new()];
    let mut chars = line.chars().peekable();
    let mut inside = false;
    while let Some(c) = chars.next() {
        let cell = cells.last_mut().expect("the list of cells is never empty");
        match c {
            '"' if inside && chars.peek() == Some(&'"') => cell.extend(chars.next()),
            '"' => inside = !inside,
            ',' if !inside => cells.push(String::new()),
            c => cell.push(c),
        }
    }
    cells
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> History {
        let mut history = History::default();
        history.push(Row { loss: Some(0.1 + 0.2), lr: Some(1e-300), ..Row::at(1) });
        history.push(Row { val_loss: Some(1.0 / 3.0), ..Row::at(5) }.with("a, \"b\"", -0.0));
        history.push(
            Row { grad_norm: Some(f64::INFINITY), epoch: Some(2.5), ..Row::at(9) }
                .with("f1", 1e22)
                .with("nan", f64::INFINITY),
        );
        history
    }

    #[test]
    fn csv_comes_back_to_the_bit() {
        let history = example();
        let again = History::from_csv(&history.to_csv()).unwrap();
        assert_eq!(again, history);
        assert_eq!(again.to_csv(), history.to_csv());
        assert_eq!(again.rows()[0].loss.unwrap().to_bits(), (0.1f64 + 0.2).to_bits());
    }

    #[test]
    fn json_round_trips_except_numbers_that_are_not_finite() {
        let mut history = example();
        history.truncate(5);
        assert_eq!(History::from_json(&history.to_json()).unwrap(), history);
        let infinite = History::from_json(&example().to_json()).unwrap();
        assert_eq!(infinite.rows()[2].grad_norm, None);
    }

    #[test]
    fn the_format_of_a_file_follows_from_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let mut history = example();
        history.truncate(5);
        for name in ["history.csv", "history.json"] {
            let path = folder.path().join(name);
            history.save(&path).unwrap();
            assert_eq!(History::open(&path).unwrap(), history);
        }
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
        assert!(matches!(History::open(folder.path().join("absent")), Err(Error::Io { .. })));
    }

    #[test]
    fn a_resumed_run_replaces_its_rows() {
        let mut history = example();
        history.push(Row { loss: Some(7.0), ..Row::at(5) });
        assert_eq!(history.column("step"), [(1, 1.0), (5, 5.0)]);
        assert_eq!(history.column("loss").last(), Some(&(5, 7.0)));
        assert_eq!(history.best_val_loss(), None);
    }

    #[test]
    fn broken_files_are_errors_with_a_line() {
        let cases = [
            ("", "line 1"),
            ("loss\n1", "line 1"),
            ("step,loss\n1,2\n2", "line 3"),
            ("step,loss\n1,2,3", "line 2"),
            ("step,loss\nx,2", "a step"),
            ("step,loss\n1,y", "a number"),
            ("step,loss\n2,1\n1,1", "a step larger than that of the line before"),
        ];
        for (csv, word) in cases {
            let error = History::from_csv(csv).unwrap_err().to_string();
            assert!(error.contains(word), "{csv:?}: {error}");
        }
        for json in ["", "{}", "[1]", "[{\"step\":2},{\"step\":1}]", "[{\"step\":-1}]", "[{\"loss\":\"x\"}]"] {
            assert!(History::from_json(json).is_err(), "{json}");
        }
    }
}
