//! Metrics: mean loss and perplexity, accuracy, precision, recall, F1, confusion matrix.
//!
//! Definitions are those of scikit-learn. For class c, with true positives, false positives and
//! false negatives
//!
//! ```text
//! precision = tp / (tp + fp)    recall = tp / (tp + fn)    F1 = 2 tp / (2 tp + fp + fn)
//! ```
//!
//! averaged over the classes that occur (macro: unweighted; weighted: by the number of labels of
//! each class) or computed from counts summed over the classes (micro). [`ZeroDivision`] is the
//! value of 0/0.
//!
//! ```
//! use loquat::training::metrics::{Average, ConfusionMatrix, ZeroDivision};
//!
//! let mut matrix = ConfusionMatrix::new(3)?;
//! matrix.add_all(&[0, 1, 2, 0, 1, 2], &[0, 2, 1, 0, 0, 1])?;
//! let scores = matrix.scores(Average::Macro, ZeroDivision::Zero)?;
//! assert!((scores.f1 - 0.26666666).abs() < 1e-6);
//! # Ok::<(), loquat::Error>(())
//! ```

use crate::{Error, Result};

/// A running mean of losses, weighted by the number of tokens or examples of each. Summed in f64.
///
/// # Examples
/// ```
/// use loquat::training::metrics::LossMean;
///
/// let mut loss = LossMean::default();
/// loss.add(1.0, 3); // the mean loss of 3 tokens
/// loss.add(3.0, 1);
/// assert_eq!(loss.mean(), Some(1.5));
/// assert_eq!(loss.perplexity(), Some(1.5f64.exp()));
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct LossMean {
    sum: f64,
    count: f64,
}

impl LossMean {
    /// Adds a loss that is the mean over `count` tokens or examples.
    pub fn add(&mut self, mean_loss: f64, count: usize) {
        if count > 0 {
            self.sum += mean_loss * count as f64;
            self.count += count as f64;
        }
    }

    /// Returns the mean, or `None` if nothing was added.
    pub fn mean(&self) -> Option<f64> {
        (self.count > 0.0).then(|| self.sum / self.count)
    }

    /// Returns the perplexity, exp(mean), of a loss in nats.
    pub fn perplexity(&self) -> Option<f64> {
        self.mean().map(f64::exp)
    }

    /// Returns the number of tokens or examples.
    pub fn count(&self) -> u64 {
        self.count as u64
    }
}

/// The fraction of correct predictions.
///
/// # Examples
/// ```
/// use loquat::training::metrics::Accuracy;
///
/// let mut accuracy = Accuracy::default();
/// accuracy.add_all(&[1, 0, 2, 9], &[1, 1, 2, 0], Some(9))?; // label 9 is ignored
/// assert_eq!(accuracy.value(), Some(2.0 / 3.0));
/// # Ok::<(), loquat::Error>(())
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Accuracy {
    right: u64,
    total: u64,
}

impl Accuracy {
    /// Adds predictions, except those whose label is `ignore_index`.
    ///
    /// # Errors
    /// [`Error::Shape`] if the numbers of labels and predictions differ.
    pub fn add_all(&mut self, labels: &[u32], predictions: &[u32], ignore_index: Option<u32>) -> Result<()> {
        if labels.len() != predictions.len() {
            return Err(Error::shape("predictions", format!("[{}]", labels.len()), [predictions.len()]));
        }
        for (&label, prediction) in labels.iter().zip(predictions).filter(|&(&label, _)| Some(label) != ignore_index) {
            self.right += u64::from(label == *prediction);
            self.total += 1;
        }
        Ok(())
    }

    /// Returns the accuracy in [0, 1], or `None` if there are no predictions.
    pub fn value(&self) -> Option<f64> {
        (self.total > 0).then(|| self.right as f64 / self.total as f64)
    }

    /// Returns the number of predictions, without the ignored ones.
    pub fn count(&self) -> u64 {
        self.total
    }
}

/// The averaging of precision, recall and F1 over classes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Average {
    /// The scores of one class, the positive one; all others count as negative.
    Binary {
        /// The positive class.
        positive: usize,
    },
    /// The scores of the counts summed over all classes.
    Micro,
    /// The unweighted mean over the classes that occur among labels or predictions.
    Macro,
    /// The mean over the classes, weighted by the number of labels of each.
    Weighted,
}

/// The value of 0/0, for example the precision of a class that was never predicted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ZeroDivision {
    /// 0, scikit-learn's default.
    #[default]
    Zero,
    /// 1.
    One,
    /// NaN, which averages leave out.
    Nan,
}

/// Precision, recall and F1, each in [0, 1].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scores {
    /// The fraction of predictions of the class that are correct.
    pub precision: f64,
    /// The fraction of labels of the class that were predicted.
    pub recall: f64,
    /// The harmonic mean of precision and recall.
    pub f1: f64,
}

/// A confusion matrix: how often label `i` was predicted as `j`.
///
/// # Examples
/// ```
/// use loquat::training::metrics::ConfusionMatrix;
///
/// let mut matrix = ConfusionMatrix::new(2)?;
/// matrix.add_all(&[0, 0, 1, 1], &[0, 1, 1, 1])?;
/// assert_eq!(matrix.count(0, 1), 1);
/// assert_eq!(matrix.accuracy(), Some(0.75));
/// # Ok::<(), loquat::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfusionMatrix {
    n_classes: usize,
    counts: Vec<u64>,
}

impl ConfusionMatrix {
    /// Returns a matrix of zeros.
    ///
    /// # Errors
    /// [`Error::Argument`] unless the number of classes is in [1, 65 536].
    pub fn new(n_classes: usize) -> Result<Self> {
        if n_classes == 0 || n_classes > 1 << 16 {
            return Err(Error::argument("n_classes", "a number in [1, 65536]", n_classes));
        }
        Ok(ConfusionMatrix { n_classes, counts: vec![0; n_classes * n_classes] })
    }

    /// Adds one prediction.
    ///
    /// # Errors
    /// [`Error::Id`] if a class is out of range.
    pub fn add(&mut self, label: u32, prediction: u32) -> Result<()> {
        for (what, id) in [("label", label), ("prediction", prediction)] {
            if id as usize >= self.n_classes {
                return Err(Error::Id { what: what.into(), id: id.into(), limit: self.n_classes });
            }
        }
        self.counts[label as usize * self.n_classes + prediction as usize] += 1;
        Ok(())
    }

    /// Adds predictions. After an error the matrix is unchanged.
    ///
    /// # Errors
    /// [`Error::Shape`] if the numbers of labels and predictions differ; [`Error::Id`] if a class
    /// is out of range.
    pub fn add_all(&mut self, labels: &[u32], predictions: &[u32]) -> Result<()> {
        if labels.len() != predictions.len() {
            return Err(Error::shape("predictions", format!("[{}]", labels.len()), [predictions.len()]));
        }
        let before = self.counts.clone();
        for (&label, &prediction) in labels.iter().zip(predictions) {
            if let Err(e) = self.add(label, prediction) {
                self.counts = before;
                return Err(e);
            }
        }
        Ok(())
    }

    /// Returns how often `label` was predicted as `prediction`; 0 if a class is out of range.
    pub fn count(&self, label: usize, prediction: usize) -> u64 {
        if label < self.n_classes && prediction < self.n_classes {
            self.counts[label * self.n_classes + prediction]
        } else {
            0
        }
    }

    /// Returns the rows of the matrix, one per label.
    pub fn rows(&self) -> impl Iterator<Item = &[u64]> {
        self.counts.chunks(self.n_classes)
    }

    /// The number of predictions.
    pub(crate) fn total(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Returns the fraction of correct predictions, or `None` if there are no predictions.
    pub fn accuracy(&self) -> Option<f64> {
        let right: u64 = (0..self.n_classes).map(|c| self.count(c, c)).sum();
        (self.total() > 0).then(|| right as f64 / self.total() as f64)
    }

    /// Returns precision, recall and F1 of one class against all others.
    ///
    /// # Errors
    /// [`Error::Id`] if the class is out of range.
    pub fn class_scores(&self, class: usize, zero: ZeroDivision) -> Result<Scores> {
        self.scores(Average::Binary { positive: class }, zero)
    }

    /// Returns precision, recall and F1.
    ///
    /// # Errors
    /// [`Error::Id`] if the positive class is out of range.
    pub fn scores(&self, average: Average, zero: ZeroDivision) -> Result<Scores> {
        let class = |c: usize| ClassCounts {
            right: self.count(c, c),
            predicted: (0..self.n_classes).map(|label| self.count(label, c)).sum(),
            labels: (0..self.n_classes).map(|prediction| self.count(c, prediction)).sum(),
        };
        let tallies: Vec<ClassCounts> = match average {
            Average::Binary { positive } if positive >= self.n_classes => {
                return Err(Error::Id { what: "positive class".into(), id: positive as u64, limit: self.n_classes });
            }
            Average::Binary { positive } => vec![class(positive)],
            _ => (0..self.n_classes).map(class).filter(|t| t.predicted + t.labels > 0).collect(),
        };
        Ok(match average {
            Average::Binary { .. } => tallies[0].scores(zero),
            Average::Micro => {
                let sum = |f: fn(&ClassCounts) -> u64| tallies.iter().map(f).sum();
                ClassCounts { right: sum(|t| t.right), predicted: sum(|t| t.predicted), labels: sum(|t| t.labels) }
                    .scores(zero)
            }
            Average::Macro => mean(tallies.iter().map(|t| (t.scores(zero), 1.0)), zero),
            Average::Weighted => mean(tallies.iter().map(|t| (t.scores(zero), t.labels as f64)), zero),
        })
    }
}

/// The counts of one class: correct predictions, predictions, labels.
struct ClassCounts {
    right: u64,
    predicted: u64,
    labels: u64,
}

impl ClassCounts {
    fn scores(&self, zero: ZeroDivision) -> Scores {
        let quotient = |a: u64, b: u64| if b == 0 { zero.value() } else { a as f64 / b as f64 };
        Scores {
            precision: quotient(self.right, self.predicted),
            recall: quotient(self.right, self.labels),
            f1: quotient(2 * self.right, self.predicted + self.labels),
        }
    }
}

impl ZeroDivision {
    fn value(self) -> f64 {
        match self {
            ZeroDivision::Zero => 0.0,
            ZeroDivision::One => 1.0,
            ZeroDivision::Nan => f64::NAN,
        }
    }
}

/// Returns the weighted mean of scores without NaN; the unweighted mean if the remaining weights
/// are all zero.
fn mean(scores: impl Iterator<Item = (Scores, f64)> + Clone, zero: ZeroDivision) -> Scores {
    let of = |part: fn(&Scores) -> f64| {
        let values =
            || scores.clone().map(|(scores, weight)| (part(&scores), weight)).filter(|(value, _)| !value.is_nan());
        let (weights, count) =
            values().fold((0.0, 0.0), |(weights, count), (_, weight)| (weights + weight, count + 1.0));
        match (weights > 0.0, count > 0.0) {
            (true, _) => values().map(|(value, weight)| value * weight).sum::<f64>() / weights,
            (false, true) => values().map(|(value, _)| value).sum::<f64>() / count,
            (false, false) => zero.value(),
        }
    };
    Scores { precision: of(|s| s.precision), recall: of(|s| s.recall), f1: of(|s| s.f1) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loss_is_the_mean_over_tokens() {
        let mut loss = LossMean::default();
        assert_eq!((loss.mean(), loss.perplexity()), (None, None));
        loss.add(1.0, 3);
        loss.add(3.0, 1);
        loss.add(f64::NAN, 0);
        assert_eq!((loss.mean(), loss.count()), (Some(1.5), 4));
        assert!((loss.perplexity().unwrap() - 1.5f64.exp()).abs() < 1e-12);
    }

    #[test]
    fn accuracy_skips_ignored_labels() {
        let mut accuracy = Accuracy::default();
        assert_eq!(accuracy.value(), None);
        accuracy.add_all(&[1, 9, 2, 2], &[1, 1, 2, 0], Some(9)).unwrap();
        assert_eq!((accuracy.value(), accuracy.count()), (Some(2.0 / 3.0), 3));
        assert!(accuracy.add_all(&[1], &[], None).is_err());
    }

    /// Expected values computed by hand from scikit-learn's definitions: labels 0 0 0 1 1 2,
    /// predictions 0 0 1 1 2 1 (class 3 does not occur).
    #[test]
    fn averages_are_scikit_learns() {
        let mut matrix = ConfusionMatrix::new(4).unwrap();
        matrix.add_all(&[0, 0, 0, 1, 1, 2], &[0, 0, 1, 1, 2, 1]).unwrap();
        assert_eq!(matrix.rows().next().unwrap(), [2, 1, 0, 0]);
        assert_eq!(matrix.accuracy(), Some(0.5));
        let close = |average, p: f64, r: f64, f: f64| {
            let s = matrix.scores(average, ZeroDivision::Zero).unwrap();
            for (found, expected) in [(s.precision, p), (s.recall, r), (s.f1, f)] {
                assert!((found - expected).abs() < 1e-12, "{average:?}: {found} {expected}");
            }
        };
        // class 0: p 1, r 2/3, f 4/5; class 1: p 1/3, r 1/2, f 2/5; class 2: 0, 0, 0.
        close(Average::Binary { positive: 0 }, 1.0, 2.0 / 3.0, 0.8);
        close(Average::Binary { positive: 2 }, 0.0, 0.0, 0.0);
        close(Average::Micro, 0.5, 0.5, 0.5);
        close(Average::Macro, 4.0 / 9.0, 7.0 / 18.0, 0.4);
        close(Average::Weighted, (3.0 + 2.0 / 3.0) / 6.0, 0.5, (2.4 + 0.8) / 6.0);
    }

    #[test]
    fn zero_divisions_have_the_chosen_value() {
        let mut matrix = ConfusionMatrix::new(3).unwrap();
        matrix.add_all(&[0, 1], &[0, 0]).unwrap(); // class 1 is never predicted
        let precision = |zero| matrix.class_scores(1, zero).unwrap().precision;
        assert_eq!((precision(ZeroDivision::Zero), precision(ZeroDivision::One)), (0.0, 1.0));
        assert!(precision(ZeroDivision::Nan).is_nan());
        let average = |zero| matrix.scores(Average::Macro, zero).unwrap().precision;
        assert_eq!((average(ZeroDivision::Zero), average(ZeroDivision::One)), (0.25, 0.75));
        assert_eq!(average(ZeroDivision::Nan), 0.5);
        let empty = ConfusionMatrix::new(2).unwrap();
        assert_eq!(empty.accuracy(), None);
        assert_eq!(empty.scores(Average::Macro, ZeroDivision::One).unwrap().f1, 1.0);
    }

    /// `precision_recall_fscore_support([4, 4], [1, 2], average="weighted", zero_division=nan)` is
    /// (0, 0, 0): the only class with labels has no precision, and the classes with a precision
    /// have no labels.
    #[test]
    fn scores_with_zero_weights_are_averaged_without_weights() {
        let mut matrix = ConfusionMatrix::new(5).unwrap();
        matrix.add_all(&[4, 4], &[1, 2]).unwrap();
        let zeros = Scores { precision: 0.0, recall: 0.0, f1: 0.0 };
        assert_eq!(matrix.scores(Average::Weighted, ZeroDivision::Nan).unwrap(), zeros);
        assert_eq!(matrix.scores(Average::Macro, ZeroDivision::Nan).unwrap(), zeros);
        let empty = ConfusionMatrix::new(2).unwrap().scores(Average::Weighted, ZeroDivision::Nan).unwrap();
        assert!(empty.precision.is_nan() && empty.recall.is_nan() && empty.f1.is_nan());
    }

    #[test]
    fn classes_out_of_range_are_errors_and_count_nothing() {
        let mut matrix = ConfusionMatrix::new(2).unwrap();
        assert!(matches!(matrix.add_all(&[0, 2], &[0, 0]), Err(Error::Id { id: 2, .. })));
        assert!(matches!(matrix.add_all(&[0], &[0, 0]), Err(Error::Shape { .. })));
        assert_eq!(matrix.total(), 0);
        assert!(matrix.class_scores(2, ZeroDivision::Zero).is_err());
        assert!(ConfusionMatrix::new(0).is_err() && ConfusionMatrix::new(usize::MAX).is_err());
    }
}
