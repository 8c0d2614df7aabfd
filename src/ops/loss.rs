//! Losses: cross-entropy, binary cross-entropy, mean squared error. Each is the mean over what it counts, a scalar.

use crate::error::{Error, Result};
use crate::kernels::vecmath;
use crate::tensor::{IdTensor, Tensor, tape};

/// Settings of [`CrossEntropy::loss`].
///
/// ```
/// use loquat::{IdTensor, Tensor, ops::CrossEntropy};
///
/// let logits = Tensor::from_vec(vec![0.0, 0.0, 5.0, -5.0], &[2, 2])?;
/// let labels = IdTensor::new(vec![1, CrossEntropy::IGNORED], &[2])?;
/// let loss = CrossEntropy::default().loss(&logits, &labels)?;
/// assert!((loss.item()? - 2f32.ln()).abs() < 1e-6); // only the first row counts
/// # Ok::<(), loquat::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CrossEntropy {
    /// Rows with this label count nothing.
    pub ignore_index: Option<u32>,
    /// In `[0, 1)`: this share of the target is spread evenly over all classes (Szegedy et al. 2016).
    pub label_smoothing: f32,
}

impl Default for CrossEntropy {
    fn default() -> Self {
        Self { ignore_index: Some(Self::IGNORED), label_smoothing: 0.0 }
    }
}

impl CrossEntropy {
    /// The label of rows that count nothing (PyTorch's -100 has no place among unsigned ids).
    pub const IGNORED: u32 = u32::MAX;

    /// The mean of `-ln softmax(logits)[label]` over the rows that count; 0 if none does.
    ///
    /// # Shapes
    /// `logits: […, n_classes]`, `labels: […]`.
    ///
    /// # Errors
    /// [`Error::Shape`] if they do not fit; [`Error::Id`] if a label has no class.
    pub fn loss(&self, logits: &Tensor, labels: &IdTensor) -> Result<Tensor> {
        let Some((&n_classes, rows)) = logits.shape().split_last().filter(|(_, rows)| *rows == labels.shape()) else {
            let expected = format!("{:?} and an axis of classes", labels.shape());
            return Err(Error::shape("cross_entropy logits", expected, logits.shape()));
        };
        if !(0.0..1.0).contains(&self.label_smoothing) {
            return Err(Error::argument("label_smoothing", "a share in [0, 1)", self.label_smoothing));
        }
        let ignored = |label: u32| self.ignore_index == Some(label);
        if let Some(at) = labels.data().iter().position(|&l| !ignored(l) && l as usize >= n_classes) {
            let what = format!("label at index {at}");
            return Err(Error::Id { what, id: u64::from(labels.data()[at]), limit: n_classes });
        }
        let count = labels.data().iter().filter(|&&l| !ignored(l)).count();
        let n_rows: usize = rows.iter().product();
        let Self { ignore_index, label_smoothing } = *self;
        let (mut losses, mut lse) = (vec![0.0; n_rows], vec![0.0; n_rows]);
        vecmath::cross_entropy(
            logits.data(),
            n_classes,
            labels.data(),
            ignore_index,
            label_smoothing,
            &mut losses,
            &mut lse,
        );
        let loss = Tensor::scalar((vecmath::sum(&losses) / count.max(1) as f64) as f32);
        Ok(tape::record("cross_entropy", &[logits], loss, || {
            let (logits, labels) = (logits.detach(), labels.clone());
            Box::new(move |dy, _| {
                let scale = dy.item()? / count.max(1) as f32;
                let dlogits = Tensor::write(logits.shape(), |dlogits| {
                    vecmath::cross_entropy_backward(
                        logits.data(),
                        &lse,
                        n_classes,
                        labels.data(),
                        ignore_index,
                        label_smoothing,
                        scale,
                        dlogits,
                    );
                });
                Ok(vec![Some(dlogits)])
            })
        }))
    }
}

/// [`CrossEntropy::loss`] with its default settings.
///
/// # Errors
/// As there.
pub fn cross_entropy(logits: &Tensor, labels: &IdTensor) -> Result<Tensor> {
    CrossEntropy::default().loss(logits, labels)
}

/// The mean of `-(t ln σ(x) + (1 - t) ln(1 - σ(x)))`, without overflow for any `x`.
///
/// # Shapes
/// `logits` and `targets` alike; targets in `[0, 1]`, without a gradient.
///
/// # Errors
/// [`Error::Shape`] if they differ; [`Error::NoGradient`] if the targets need one.
pub fn binary_cross_entropy_with_logits(logits: &Tensor, targets: &Tensor) -> Result<Tensor> {
    same_shape("binary_cross_entropy_with_logits", logits, targets)?;
    tape::refuse("binary_cross_entropy_with_logits targets", &[targets])?;
    let count = logits.len().max(1) as f64;
    // max(x, 0) - x t + ln(1 + e^-|x|)
    let term = |(&x, &t): (&f32, &f32)| f64::from(x.max(0.0) - x * t + (-x.abs()).exp().ln_1p());
    let sum: f64 = logits.data().iter().zip(targets.data()).map(term).sum();
    Ok(tape::record("binary_cross_entropy_with_logits", &[logits], Tensor::scalar((sum / count) as f32), || {
        let (logits, targets) = (logits.detach(), targets.detach());
        Box::new(move |dy, _| {
            // dx = (σ(x) - t) / count
            let mut dx = logits.sigmoid().sub(&targets)?;
            vecmath::scale(dy.item()? / count as f32, dx.make_mut());
            Ok(vec![Some(dx)])
        })
    }))
}

/// The mean of `(x - target)²`.
///
/// # Errors
/// [`Error::Shape`] if the shapes differ.
pub fn mse_loss(x: &Tensor, target: &Tensor) -> Result<Tensor> {
    same_shape("mse_loss", x, target)?;
    let difference = x.sub(target)?;
    difference.mul(&difference)?.mean()
}

fn same_shape(op: &str, a: &Tensor, b: &Tensor) -> Result<()> {
    if a.shape() == b.shape() { Ok(()) } else { Err(Error::shape(op, format!("{:?}", a.shape()), b.shape())) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::gradient_check::{check, sample};

    #[test]
    fn gradients_match_central_differences() {
        let labels = IdTensor::new(vec![2, CrossEntropy::IGNORED, 0, 4], &[2, 2]).unwrap();
        for label_smoothing in [0.0, 0.1] {
            let settings = CrossEntropy { label_smoothing, ..CrossEntropy::default() };
            check("cross_entropy", &[sample(&[2, 2, 5], 1)], |x| settings.loss(&x[0], &labels));
        }
        let targets = Tensor::uniform(&[3, 3], 0.0, 1.0, &mut crate::random::Rng::seed(2));
        check("bce", &[sample(&[3, 3], 1)], |x| binary_cross_entropy_with_logits(&x[0], &targets));
        check("mse", &[sample(&[3, 3], 1), sample(&[3, 3], 2)], |x| mse_loss(&x[0], &x[1]));
    }

    #[test]
    fn large_logits_do_not_overflow() {
        let logits = Tensor::from_vec(vec![1e4, -1e4, 3e4, 0.0], &[2, 2]).unwrap();
        let labels = IdTensor::new(vec![1, 0], &[2]).unwrap();
        assert_eq!(cross_entropy(&logits, &labels).unwrap().item().unwrap(), 1e4);
        let targets = Tensor::zeros(&[2, 2]);
        assert_eq!(binary_cross_entropy_with_logits(&logits, &targets).unwrap().item().unwrap().round(), 1e4);
    }

    #[test]
    fn nothing_to_count_is_a_loss_of_zero() {
        let labels = IdTensor::new(vec![CrossEntropy::IGNORED; 2], &[2]).unwrap();
        assert_eq!(cross_entropy(&sample(&[2, 3], 1), &labels).unwrap().item().unwrap(), 0.0);
    }

    #[test]
    fn labels_without_a_class_and_targets_with_a_gradient_are_errors() {
        let x = sample(&[1, 3], 1).watch();
        assert!(cross_entropy(&x, &IdTensor::new(vec![3], &[1]).unwrap()).is_err());
        assert!(cross_entropy(&x, &IdTensor::new(vec![0, 0], &[2]).unwrap()).is_err());
        assert!(matches!(binary_cross_entropy_with_logits(&x, &x), Err(Error::NoGradient { .. })));
    }
}
