//! Parameters with settings of their own.

use std::sync::Arc;

use crate::error::{Error, Result};

type Select = dyn Fn(&str, &[usize]) -> bool + Send + Sync;

/// Some of the parameters, with their own learning rate or weight decay.
///
/// ```
/// use loquat::training::{AdamW, Optimizer, ParameterGroup};
///
/// let head = ParameterGroup::by_path(|path| path.starts_with("lm_head.")).lr(1e-4);
/// let optimizer = Optimizer::new(AdamW::default())?.group(head)?;
/// # Ok::<(), loquat::Error>(())
/// ```
#[derive(Clone)]
pub struct ParameterGroup {
    select: Arc<Select>,
    pub(super) lr: Option<f64>,
    pub(super) weight_decay: Option<f64>,
}

impl ParameterGroup {
    /// The parameters whose path (dotted, for example `h.0.attn.c_attn.weight`) `select` accepts.
    pub fn by_path(select: impl Fn(&str) -> bool + Send + Sync + 'static) -> Self {
        Self::by_path_and_shape(move |path, _| select(path))
    }

    /// The parameters whose path and shape `select` accepts.
    pub fn by_path_and_shape(select: impl Fn(&str, &[usize]) -> bool + Send + Sync + 'static) -> Self {
        Self { select: Arc::new(select), lr: None, weight_decay: None }
    }

    /// Biases and the weights of norms: the parameters of fewer than two axes, which are usually not decayed.
    pub fn biases_and_norms() -> Self {
        Self::by_path_and_shape(|_, shape| shape.len() < 2)
    }

    /// Their learning rate (before a schedule's factor).
    pub fn lr(self, lr: f64) -> Self {
        Self { lr: Some(lr), ..self }
    }

    /// Their weight decay.
    pub fn weight_decay(self, weight_decay: f64) -> Self {
        Self { weight_decay: Some(weight_decay), ..self }
    }

    /// Whether a parameter belongs to the group.
    pub(crate) fn selects(&self, path: &str, shape: &[usize]) -> bool {
        (self.select)(path, shape)
    }

    pub(super) fn check(&self) -> Result<()> {
        for (name, value) in [("lr of a group", self.lr), ("weight_decay of a group", self.weight_decay)] {
            if let Some(value) = value.filter(|v| *v < 0.0 || !v.is_finite()) {
                return Err(Error::argument(name, "a finite number of 0 or more", value));
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
