//! What a run is judged by: mean loss and perplexity, accuracy, precision, recall, F1, confusion matrix.
//!
//! Counts are those of scikit-learn: for class c, with true positives, false positives and false negatives
//!
//! ```text
//! precision = tp / (tp + fp)    recall = tp / (tp + fn)    F1 = 2 tp / (2 tp + fp + fn)
//! ```
//!
//! averaged over the classes that occur (macro: each class alike; weighted: by its number of labels) or computed from
//! the classes' sums (micro). A quotient 0/0 is what [`ZeroDivision`] says.
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

/// A mean of losses, each counted as often as it has tokens or examples: in f64, so that a long run's mean is exact.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct LossMean {
    sum: f64,
    count: f64,
}

impl LossMean {
    /// Adds a loss that is itself the mean of `count` tokens or examples.
    pub fn add(&mut self, mean_loss: f64, count: usize) {
        if count > 0 {
            self.sum += mean_loss * count as f64;
            self.count += count as f64;
        }
    }

    /// The mean, or none before anything was added.
    pub fn mean(&self) -> Option<f64> {
        (self.count > 0.0).then(|| self.sum / self.count)
    }

    /// exp(mean), for a loss in natural logarithms.
    pub fn perplexity(&self) -> Option<f64> {
        self.mean().map(f64::exp)
    }

    /// How many tokens or examples the mean is of.
    pub fn count(&self) -> u64 {
        self.count as u64
    }
}

/// The share of right decisions among those that count.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Accuracy {
    right: u64,
    total: u64,
}

impl Accuracy {
    /// Counts decisions, but for those whose label is `ignore_index`.
    ///
    /// # Errors
    /// [`Error::Shape`] when there are more labels than predictions or fewer.
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

    /// The share, or none before the first decision.
    pub fn value(&self) -> Option<f64> {
        (self.total > 0).then(|| self.right as f64 / self.total as f64)
    }

    /// How many decisions were counted.
    pub fn count(&self) -> u64 {
        self.total
    }
}

/// Over which classes precision, recall and F1 are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Average {
    /// Of one class, the positive one; the others are all negative.
    Binary {
        /// The class.
        positive: usize,
    },
    /// Of all decisions alike: every class's counts in one sum.
    Micro,
    /// The plain mean over the classes that occur among labels or predictions.
    Macro,
    /// The mean over the classes, weighted by how many labels each has.
    Weighted,
}

/// What a quotient 0/0 counts as, for example the precision of a class that was never predicted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ZeroDivision {
    /// 0: scikit-learn's default.
    #[default]
    Zero,
    /// 1.
    One,
    /// Not a number, which is then left out of averages.
    Nan,
}

/// Precision, recall and F1, each in [0, 1].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scores {
    /// How many of the predictions are right.
    pub precision: f64,
    /// How many of the labels were found.
    pub recall: f64,
    /// Their harmonic mean.
    pub f1: f64,
}

/// How often label i was predicted as j.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfusionMatrix {
    n_classes: usize,
    counts: Vec<u64>,
}

impl ConfusionMatrix {
    /// A matrix of zeros.
    ///
    /// # Errors
    /// [`Error::Argument`] unless there are between 1 and 65 536 classes.
    pub fn new(n_classes: usize) -> Result<Self> {
        if n_classes == 0 || n_classes > 1 << 16 {
            return Err(Error::argument("n_classes", "a number in [1, 65536]", n_classes));
        }
        Ok(ConfusionMatrix { n_classes, counts: vec![0; n_classes * n_classes] })
    }

    /// Counts one decision.
    ///
    /// # Errors
    /// [`Error::Id`] for a class that there is not.
    pub fn add(&mut self, label: u32, prediction: u32) -> Result<()> {
        for (what, id) in [("label", label), ("prediction", prediction)] {
            if id as usize >= self.n_classes {
                return Err(Error::Id { what: what.into(), id: id.into(), limit: self.n_classes });
            }
        }
        self.counts[label as usize * self.n_classes + prediction as usize] += 1;
        Ok(())
    }

    /// Counts decisions.
    ///
    /// # Errors
    /// [`Error::Shape`] when there are more labels than predictions or fewer, [`Error::Id`] for a class that there is
    /// not; nothing is counted then.
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

    /// How often `label` was predicted as `prediction`; 0 for classes that there are not.
    pub fn count(&self, label: usize, prediction: usize) -> u64 {
        if label < self.n_classes && prediction < self.n_classes {
            self.counts[label * self.n_classes + prediction]
        } else {
            0
        }
    }

    /// The counts, one row a label.
    pub fn rows(&self) -> impl Iterator<Item = &[u64]> {
        self.counts.chunks(self.n_classes)
    }

    /// The number of decisions.
    pub(crate) fn total(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The share of right decisions, or none before the first.
    pub fn accuracy(&self) -> Option<f64> {
        let right: u64 = (0..self.n_classes).map(|c| self.count(c, c)).sum();
        (self.total() > 0).then(|| right as f64 / self.total() as f64)
    }

    /// Precision, recall and F1 of one class against all others.
    ///
    /// # Errors
    /// [`Error::Id`] for a class that there is not.
    pub fn class_scores(&self, class: usize, zero: ZeroDivision) -> Result<Scores> {
        self.scores(Average::Binary { positive: class }, zero)
    }

    /// Precision, recall and F1.
    ///
    /// # Errors
    /// [`Error::Id`] for a positive class that there is not.
    pub fn scores(&self, average: Average, zero: ZeroDivision) -> Result<Scores> {
        let class = |c: usize| Tally {
            right: self.count(c, c),
            predicted: (0..self.n_classes).map(|label| self.count(label, c)).sum(),
            labels: (0..self.n_classes).map(|prediction| self.count(c, prediction)).sum(),
        };
        let tallies: Vec<Tally> = match average {
            Average::Binary { positive } if positive >= self.n_classes => {
                return Err(Error::Id { what: "positive class".into(), id: positive as u64, limit: self.n_classes });
            }
            Average::Binary { positive } => vec![class(positive)],
            _ => (0..self.n_classes).map(class).filter(|t| t.predicted + t.labels > 0).collect(),
        };
        Ok(match average {
            Average::Binary { .. } => tallies[0].scores(zero),
            Average::Micro => {
                let sum = |f: fn(&Tally) -> u64| tallies.iter().map(f).sum();
                Tally { right: sum(|t| t.right), predicted: sum(|t| t.predicted), labels: sum(|t| t.labels) }
                    .scores(zero)
            }
            Average::Macro => mean(tallies.iter().map(|t| (t.scores(zero), 1.0)), zero),
            Average::Weighted => mean(tallies.iter().map(|t| (t.scores(zero), t.labels as f64)), zero),
        })
    }
}

/// Decisions about one class.
struct Tally {
    right: u64,
    predicted: u64,
    labels: u64,
}

impl Tally {
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

/// The weighted mean of scores, those that are not a number left out; the plain mean of what is
/// left if that weighs nothing.
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
    fn accuracy_passes_over_what_is_ignored() {
        let mut accuracy = Accuracy::default();
        assert_eq!(accuracy.value(), None);
        accuracy.add_all(&[1, 9, 2, 2], &[1, 1, 2, 0], Some(9)).unwrap();
        assert_eq!((accuracy.value(), accuracy.count()), (Some(2.0 / 3.0), 3));
        assert!(accuracy.add_all(&[1], &[], None).is_err());
    }

    /// Expected values by scikit-learn's definitions, worked out by hand:
    /// labels 0 0 0 1 1 2, predictions 0 0 1 1 2 1 (class 3 does not occur).
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
    fn zero_divisions_count_as_asked() {
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
    /// (0, 0, 0): the only class with labels has no precision, and those that have one have no
    /// labels.
    #[test]
    fn what_is_left_and_weighs_nothing_is_averaged_plainly() {
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
