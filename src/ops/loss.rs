//! Losses: cross-entropy, binary cross-entropy, mean squared error. Each returns the mean as a
//! scalar, unless another [`Reduction`] is chosen.

use crate::error::{Error, Result};
use crate::kernels::vecmath;
use crate::ops::broadcast::{broadcast_to, broadcasts_to};
use crate::tensor::{IdTensor, Tensor, tape};

/// How the losses of single rows or elements are reduced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Reduction {
    /// Their mean, a scalar.
    #[default]
    Mean,
    /// Their sum, a scalar.
    Sum,
    /// No reduction.
    None,
}

impl Reduction {
    /// Reduces losses with operations on the tape.
    fn of(self, losses: Tensor) -> Result<Tensor> {
        match self {
            Reduction::Mean => losses.mean(),
            Reduction::Sum => losses.sum(),
            Reduction::None => Ok(losses),
        }
    }

    /// Reduces losses of `shape`, detached from the tape; the mean is over `count`.
    fn off_tape(self, losses: Vec<f32>, shape: &[usize], count: f64) -> Result<Tensor> {
        match self {
            Reduction::Mean => Ok(Tensor::scalar((vecmath::sum(&losses) / count) as f32)),
            Reduction::Sum => Ok(Tensor::scalar(vecmath::sum(&losses) as f32)),
            Reduction::None => Tensor::from_vec(losses, shape),
        }
    }

    /// Returns the factors of the losses in the gradient: one for all, or one for each.
    fn scales(self, dy: &Tensor, count: f64) -> Vec<f32> {
        match self {
            Reduction::Mean => dy.data().iter().map(|dy| dy / count as f32).collect(),
            _ => dy.to_vec(),
        }
    }
}

/// Settings of [`CrossEntropy::loss`].
///
/// ```
/// use loquat::{IdTensor, Tensor, ops::{CrossEntropy, Reduction}};
///
/// let logits = Tensor::from_vec(vec![0.0, 0.0, 5.0, -5.0], &[2, 2])?;
/// let labels = IdTensor::new(vec![1, CrossEntropy::IGNORED], &[2])?;
/// let loss = CrossEntropy::default().loss(&logits, &labels)?;
/// assert!((loss.item()? - 2f32.ln()).abs() < 1e-6); // only the first row counts
///
/// let weight = Some(Tensor::from_vec(vec![1.0, 3.0], &[2])?);
/// let weighted = CrossEntropy { weight, ..CrossEntropy::default() };
/// let rows = CrossEntropy { reduction: Reduction::None, ..weighted }.loss(&logits, &labels)?;
/// assert!((rows.data()[0] - 3.0 * 2f32.ln()).abs() < 1e-6 && rows.data()[1] == 0.0);
/// # Ok::<(), loquat::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct CrossEntropy {
    /// Rows with this label are ignored. Default: [`CrossEntropy::IGNORED`].
    pub ignore_index: Option<u32>,
    /// The share of the target, in `[0, 1)`, that is spread evenly over all classes (Szegedy et al.
    /// 2016). Default: 0.
    pub label_smoothing: f32,
    /// The weight of each class, `[n_classes]`, without a gradient. The mean is then over the
    /// weights of the labels. Default: all equal.
    pub weight: Option<Tensor>,
    /// How the losses of the rows are reduced. Default: mean.
    pub reduction: Reduction,
}

impl Default for CrossEntropy {
    fn default() -> Self {
        Self { ignore_index: Some(Self::IGNORED), label_smoothing: 0.0, weight: None, reduction: Reduction::Mean }
    }
}

impl CrossEntropy {
    /// The label of ignored rows (ids are unsigned, so PyTorch's -100 cannot be used).
    pub const IGNORED: u32 = u32::MAX;

    /// Computes `-ln softmax(logits)[label]` of each row, 0 for ignored rows, reduced; the mean is
    /// 0 if all rows are ignored. A row whose logits are all -∞ has an infinite loss, since its
    /// label has probability 0.
    ///
    /// # Shapes
    /// `logits: […, n_classes]`, `labels: […]` → a scalar, or `[…]` without reduction.
    ///
    /// # Errors
    /// [`Error::Shape`] if the shapes do not match or there are no classes; [`Error::Id`] if a
    /// label is not below `n_classes`; [`Error::NoGradient`] if the class weights require a
    /// gradient.
    pub fn loss(&self, logits: &Tensor, labels: &IdTensor) -> Result<Tensor> {
        let Some((&n_classes, rows)) = logits.shape().split_last().filter(|(_, rows)| *rows == labels.shape()) else {
            let expected = format!("{:?} and an axis of classes", labels.shape());
            return Err(Error::shape("cross_entropy logits", expected, logits.shape()));
        };
        if n_classes == 0 {
            return Err(Error::shape("cross_entropy logits", "at least one class", logits.shape()));
        }
        if !(0.0..1.0).contains(&self.label_smoothing) {
            return Err(Error::argument("label_smoothing", "a share in [0, 1)", self.label_smoothing));
        }
        let weight = self.weight.as_ref().map(Tensor::detach);
        if let Some(weight) = &self.weight {
            tape::refuse("cross_entropy weights of classes", &[weight])?;
            if weight.shape() != [n_classes] {
                return Err(Error::shape("cross_entropy weights", format!("[{n_classes}]"), weight.shape()));
            }
        }
        let Self { ignore_index, label_smoothing, reduction, .. } = *self;
        let ignored = |label: u32| ignore_index == Some(label);
        if let Some(at) = labels.data().iter().position(|&l| !ignored(l) && l as usize >= n_classes) {
            let what = format!("label at index {at}");
            return Err(Error::Id { what, id: u64::from(labels.data()[at]), limit: n_classes });
        }
        let counted = labels.data().iter().filter(|&&l| !ignored(l));
        let count = match &weight {
            None => counted.count() as f64,
            Some(weight) => counted.map(|&l| f64::from(weight.data()[l as usize])).sum(),
        };
        // If all rows are ignored, the loss is 0 rather than 0 / 0.
        let count = if count == 0.0 { 1.0 } else { count };
        let n_rows: usize = rows.iter().product();
        let (mut losses, mut lse) = (vec![0.0; n_rows], vec![0.0; n_rows]);
        vecmath::cross_entropy(
            logits.data(),
            n_classes,
            labels.data(),
            ignore_index,
            label_smoothing,
            weight.as_ref().map(Tensor::data),
            &mut losses,
            &mut lse,
        );
        let loss = reduction.off_tape(losses, rows, count)?;
        Ok(tape::record("cross_entropy", &[logits], loss, || {
            let (logits, labels) = (logits.detach(), labels.clone());
            Box::new(move |dy, _| {
                let scales = reduction.scales(&dy, count);
                let dlogits = Tensor::write(logits.shape(), |dlogits| {
                    vecmath::cross_entropy_backward(
                        logits.data(),
                        &lse,
                        n_classes,
                        labels.data(),
                        ignore_index,
                        label_smoothing,
                        weight.as_ref().map(Tensor::data),
                        &scales,
                        dlogits,
                    );
                });
                Ok(vec![Some(dlogits)])
            })
        }))
    }
}

/// Computes [`CrossEntropy::loss`] with the default settings.
///
/// # Errors
/// Same as [`CrossEntropy::loss`].
///
/// # Examples
/// ```
/// use loquat::{IdTensor, Tensor, ops};
///
/// let logits = Tensor::zeros(&[2, 4]); // two rows, four classes, all equally likely
/// let loss = ops::cross_entropy(&logits, &IdTensor::new(vec![0, 3], &[2])?)?;
/// assert!((loss.item()? - 4f32.ln()).abs() < 1e-6);
/// # Ok::<(), loquat::Error>(())
/// ```
pub fn cross_entropy(logits: &Tensor, labels: &IdTensor) -> Result<Tensor> {
    CrossEntropy::default().loss(logits, labels)
}

/// Settings of [`BinaryCrossEntropy::loss`].
#[derive(Clone, Debug, Default)]
pub struct BinaryCrossEntropy {
    /// The weight of positive targets, of a shape that broadcasts to that of the logits (usually
    /// `[n_classes]`), without a gradient. Default: 1.
    pub pos_weight: Option<Tensor>,
    /// How the losses of the elements are reduced. Default: mean.
    pub reduction: Reduction,
}

impl BinaryCrossEntropy {
    /// Computes `-(w t ln σ(x) + (1 - t) ln(1 - σ(x)))` of each logit `x` and target `t`, with `w`
    /// its [`BinaryCrossEntropy::pos_weight`], reduced; without overflow for any `x`. The loss of
    /// an infinite logit of the correct sign is 0.
    ///
    /// # Shapes
    /// `logits` and `targets` of the same shape → a scalar, or that shape without reduction;
    /// targets are in `[0, 1]` and have no gradient.
    ///
    /// # Errors
    /// [`Error::Shape`] if the shapes do not match; [`Error::NoGradient`] if the targets or weights
    /// require a gradient.
    pub fn loss(&self, logits: &Tensor, targets: &Tensor) -> Result<Tensor> {
        const NAME: &str = "binary_cross_entropy_with_logits";
        same_shape(NAME, logits, targets)?;
        tape::refuse("binary_cross_entropy_with_logits targets", &[targets])?;
        let weight = match &self.pos_weight {
            None => None,
            Some(weight) if broadcasts_to(weight.shape(), logits.shape()) => {
                tape::refuse("binary_cross_entropy_with_logits weights", &[weight])?;
                Some(broadcast_to(weight, logits.shape()))
            }
            Some(weight) => {
                let expected = format!("one that broadcasts to {:?}", logits.shape());
                return Err(Error::shape(format!("{NAME} pos_weight"), expected, weight.shape()));
            }
        };
        let weight_at = |weight: &Option<Tensor>, i: usize| weight.as_ref().map_or(1.0, |weight| weight.data()[i]);
        let (count, reduction) = (logits.len().max(1) as f64, self.reduction);
        let elements = logits.data().iter().zip(targets.data()).enumerate();
        // x > 0: (1 - t) x + (1 - t + w t) ln(1 + e^-x);  x ≤ 0: -w t x + (1 - t + w t) ln(1 + e^x)
        let losses = elements.map(|(i, (&x, &t))| {
            let w = weight_at(&weight, i);
            let slope = if x > 0.0 { 1.0 - t } else { w * t };
            // A term with slope 0 is 0, even for infinite `x`.
            let linear = if slope == 0.0 { 0.0 } else { slope * x.abs() };
            linear + (1.0 - t + w * t) * (-x.abs()).exp().ln_1p()
        });
        let loss = reduction.off_tape(losses.collect(), logits.shape(), count)?;
        Ok(tape::record(NAME, &[logits], loss, || {
            let (logits, targets) = (logits.detach(), targets.detach());
            Box::new(move |dy, _| {
                // dx = (1 - t + w t) σ(x) - w t
                let (mut dx, scales) = (logits.sigmoid(), reduction.scales(&dy, count));
                for (i, (dx, &t)) in dx.make_mut().iter_mut().zip(targets.data()).enumerate() {
                    let w = weight_at(&weight, i);
                    *dx = ((1.0 - t + w * t) * *dx - w * t) * scales[if scales.len() == 1 { 0 } else { i }];
                }
                Ok(vec![Some(dx)])
            })
        }))
    }
}

/// Computes [`BinaryCrossEntropy::loss`] with the default settings.
///
/// # Errors
/// Same as [`BinaryCrossEntropy::loss`].
pub fn binary_cross_entropy_with_logits(logits: &Tensor, targets: &Tensor) -> Result<Tensor> {
    BinaryCrossEntropy::default().loss(logits, targets)
}

/// Computes the mean of `(x - target)²`.
///
/// # Errors
/// [`Error::Shape`] if the shapes differ.
pub fn mse_loss(x: &Tensor, target: &Tensor) -> Result<Tensor> {
    mse_loss_with(x, target, Reduction::Mean)
}

/// Computes `(x - target)²` of each element, reduced.
///
/// # Errors
/// Same as [`mse_loss`].
pub fn mse_loss_with(x: &Tensor, target: &Tensor, reduction: Reduction) -> Result<Tensor> {
    same_shape("mse_loss", x, target)?;
    let difference = x.sub(target)?;
    reduction.of(difference.mul(&difference)?)
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
        let positive = |shape: &[usize], seed| Tensor::uniform(shape, 0.2, 2.0, &mut crate::random::Rng::seed(seed));
        let targets = Tensor::uniform(&[3, 3], 0.0, 1.0, &mut crate::random::Rng::seed(2));
        for reduction in [Reduction::Mean, Reduction::Sum, Reduction::None] {
            for (label_smoothing, weight) in [(0.0, None), (0.1, None), (0.0, Some(3)), (0.2, Some(4))] {
                let weight = weight.map(|seed| positive(&[5], seed));
                let settings = CrossEntropy { label_smoothing, weight, reduction, ..CrossEntropy::default() };
                check("cross_entropy", &[sample(&[2, 2, 5], 1)], |x| settings.loss(&x[0], &labels));
            }
            for pos_weight in [None, Some(positive(&[3], 5)), Some(positive(&[3, 1], 6))] {
                let settings = BinaryCrossEntropy { pos_weight, reduction };
                check("bce", &[sample(&[3, 3], 1)], |x| settings.loss(&x[0], &targets));
            }
            check("mse", &[sample(&[3, 3], 1), sample(&[3, 3], 2)], |x| mse_loss_with(&x[0], &x[1], reduction));
        }
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

    #[test]
    fn an_infinite_logit_that_is_right_costs_nothing() {
        let inf = f32::INFINITY;
        let (x, t) = ([inf, inf, -inf, -inf, inf, -inf], [1.0, 0.0, 0.0, 1.0, 0.5, 0.5]);
        let [x, t] = [x, t].map(|x| Tensor::from_vec(x.to_vec(), &[6]).unwrap());
        for pos_weight in [None, Some(Tensor::full(&[1], 2.0))] {
            let loss = BinaryCrossEntropy { pos_weight, reduction: Reduction::None };
            let x = x.watch();
            let y = loss.loss(&x, &t).unwrap();
            assert_eq!(y.to_vec(), [0.0, inf, 0.0, inf, inf, inf]);
            let gradients = y.backward_from(Tensor::full(&[6], 1.0)).unwrap();
            assert!(gradients.of(&x).unwrap().data().iter().all(|dx| dx.is_finite()));
            assert_eq!(gradients.of(&x).unwrap().data()[..3], [0.0, 1.0, 0.0]);
        }
        let both = Tensor::from_vec(vec![inf, -inf], &[2]).unwrap();
        let targets = Tensor::from_vec(vec![1.0, 0.0], &[2]).unwrap();
        assert_eq!(binary_cross_entropy_with_logits(&both, &targets).unwrap().item().unwrap(), 0.0);
    }

    #[test]
    fn a_row_of_nothing_but_minus_infinity_has_no_probability_for_its_label() {
        let mut x = sample(&[2, 3], 1);
        x.make_mut()[..3].fill(f32::NEG_INFINITY);
        let (x, labels) = (x.watch(), IdTensor::new(vec![1, 1], &[2]).unwrap());
        let y = CrossEntropy { reduction: Reduction::None, ..CrossEntropy::default() }.loss(&x, &labels).unwrap();
        assert!(y.data()[0] == f32::INFINITY && y.data()[1].is_finite());
        let gradients = y.backward_from(Tensor::full(&[2], 1.0)).unwrap();
        assert_eq!(gradients.of(&x).unwrap().data()[..3], [0.0, -1.0, 0.0]);
    }

    #[test]
    fn logits_without_a_class_and_weights_that_do_not_fit_are_errors() {
        let ignored =
            |shape: &[usize]| IdTensor::new(vec![CrossEntropy::IGNORED; shape.iter().product()], shape).unwrap();
        for shape in [&[0][..], &[2, 0], &[0, 0]] {
            let error = cross_entropy(&Tensor::zeros(shape), &ignored(&shape[..shape.len() - 1])).unwrap_err();
            assert!(error.to_string().contains("expected at least one class"), "{error}");
        }
        let weight = Some(Tensor::zeros(&[2]));
        let settings = CrossEntropy { weight, ..CrossEntropy::default() };
        assert!(settings.loss(&Tensor::zeros(&[1, 3]), &ignored(&[1])).is_err());
        assert_eq!(
            settings.loss(&Tensor::zeros(&[1, 2]), &IdTensor::new(vec![0], &[1]).unwrap()).unwrap().item().unwrap(),
            0.0
        );
        let settings = BinaryCrossEntropy { pos_weight: Some(Tensor::zeros(&[2])), ..BinaryCrossEntropy::default() };
        assert!(settings.loss(&Tensor::zeros(&[1, 3]), &Tensor::zeros(&[1, 3])).is_err());
    }
}
