//! Groups of parameters with their own settings.

use std::sync::Arc;

use crate::error::{Error, Result};

type Select = dyn Fn(&str, &[usize]) -> bool + Send + Sync;

/// A group of parameters with its own learning rate or weight decay.
///
/// # Examples
/// ```
/// use loquat::nn::{Linear, Module};
/// use loquat::training::{Optimizer, ParameterGroup, Sgd};
/// use loquat::{Rng, Tensor};
///
/// let mut model = Linear::init(2, 1, true, &mut Rng::seed(1))?;
/// let before = model.weight.tensor().to_vec();
/// let frozen = ParameterGroup::by_path(|path| path == "weight").lr(0.0);
/// let mut optimizer = Optimizer::new(Sgd::default())?.group(frozen)?;
/// let gradients = model.forward(&Tensor::full(&[1, 2], 1.0))?.sum()?.backward()?;
/// optimizer.step(&mut model, &gradients)?;
/// assert_eq!(model.weight.tensor().to_vec(), before);
/// # Ok::<(), loquat::Error>(())
/// ```
#[derive(Clone)]
pub struct ParameterGroup {
    select: Arc<Select>,
    pub(super) lr: Option<f64>,
    pub(super) weight_decay: Option<f64>,
}

impl ParameterGroup {
    /// Selects the parameters whose path (dotted, for example `h.0.attn.c_attn.weight`) satisfies
    /// `select`.
    pub fn by_path(select: impl Fn(&str) -> bool + Send + Sync + 'static) -> Self {
        Self::by_path_and_shape(move |path, _| select(path))
    }

    /// Selects the parameters whose path and shape satisfy `select`.
    pub fn by_path_and_shape(select: impl Fn(&str, &[usize]) -> bool + Send + Sync + 'static) -> Self {
        Self { select: Arc::new(select), lr: None, weight_decay: None }
    }

    /// Selects biases and the weights of norms, that is, parameters with fewer than two axes.
    /// Usually they get no weight decay.
    pub fn biases_and_norms() -> Self {
        Self::by_path_and_shape(|_, shape| shape.len() < 2)
    }

    /// Sets the learning rate of the group (before the factor of a schedule). Default: that of the
    /// rule.
    pub fn lr(self, lr: f64) -> Self {
        Self { lr: Some(lr), ..self }
    }

    /// Sets the weight decay of the group. Default: that of the rule.
    pub fn weight_decay(self, weight_decay: f64) -> Self {
        Self { weight_decay: Some(weight_decay), ..self }
    }

    /// Returns whether a parameter belongs to the group.
    pub(crate) fn selects(&self, path: &str, shape: &[usize]) -> bool {
        (self.select)(path, shape)
    }

    pub(super) fn check(&self) -> Result<()> {
        for (name, value) in [("lr of a group", self.lr), ("weight_decay of a group", self.weight_decay)] {
            if let Some(value) = value.filter(|v| *v < 0.0 || !v.is_finite()) {
                return Err(Error::argument(name, "a finite number ≥ 0", value));
            }
        }
        Ok(())
    }
}

impl std::fmt::Debug for ParameterGroup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ParameterGroup")
            .field("lr", &self.lr)
            .field("weight_decay", &self.weight_decay)
            .finish_non_exhaustive()
    }
}
