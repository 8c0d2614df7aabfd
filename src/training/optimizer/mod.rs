//! Optimizers: rules, parameter groups, gradient clipping.

mod group;
mod rule;
mod state;

use std::collections::BTreeMap;

pub use group::ParameterGroup;
use rule::Settings;
pub use rule::{Adam, AdamW, Rule, Sgd};

use crate::error::{Error, Result};
use crate::nn::{Module, Parameter};
use crate::tensor::{Gradients, Tensor};

/// An optimizer: an update rule ([`Sgd`], [`Adam`], [`AdamW`]), parameter groups and the moments of
/// each parameter.
///
/// Moments are keyed by the path of the parameter, so they can be saved and loaded by name.
///
/// # Examples
/// ```
/// use loquat::nn::{Linear, Module};
/// use loquat::training::{AdamW, Optimizer, ParameterGroup, clip_grad_norm};
/// use loquat::{Rng, Tensor, ops};
///
/// let mut rng = Rng::seed(1);
/// let (x, y) = (Tensor::normal(&[64, 3], 1.0, &mut rng), Tensor::full(&[64, 1], 2.0));
/// let mut model = Linear::init(3, 1, true, &mut rng)?;
///
/// let rule = AdamW { lr: 0.05, weight_decay: 0.1, ..AdamW::default() };
/// let no_decay = ParameterGroup::biases_and_norms().weight_decay(0.0);
/// let mut optimizer = Optimizer::new(rule)?.group(no_decay)?;
/// let mut loss = f32::INFINITY;
/// for _ in 0..200 {
///     let mean = ops::mse_loss(&model.forward(&x)?, &y)?;
///     loss = mean.item()?;
///     let mut gradients = mean.backward()?;
///     clip_grad_norm(&mut gradients, 1.0)?;
///     optimizer.step(&mut model, &gradients)?;
/// }
/// assert!(loss < 0.01, "{loss}");
/// # Ok::<(), loquat::Error>(())
/// ```
pub struct Optimizer {
    rule: Rule,
    groups: Vec<ParameterGroup>,
    lr_factor: f64,
    /// The state of each parameter, by path.
    memory: BTreeMap<String, Memory>,
}

impl std::fmt::Debug for Optimizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (groups, parameters) = (self.groups.len(), self.memory.len());
        write!(f, "Optimizer({:?}, {groups} groups, {parameters} parameters stepped)", self.rule)
    }
}

/// What a rule remembers of a parameter.
struct Memory {
    /// The number of steps of this parameter.
    steps: u64,
    /// One tensor of the parameter's shape for each of [`Rule::moment_names`].
    moments: Vec<Tensor>,
}

impl std::fmt::Debug for Memory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Memory({} steps, {} moments)", self.steps, self.moments.len())
    }
}

impl Optimizer {
    /// Returns an optimizer without parameter groups.
    ///
    /// # Errors
    /// [`Error::Argument`] if a setting of the rule is out of range.
    pub fn new(rule: impl Into<Rule>) -> Result<Self> {
        let rule = rule.into();
        rule.check().map_err(|(name, expected, found)| Error::argument(name, expected, found))?;
        Ok(Self { rule, groups: Vec::new(), lr_factor: 1.0, memory: BTreeMap::new() })
    }

    /// Adds a parameter group. A parameter belongs to the first group that selects it, in the order
    /// of these calls. A parameter that no group selects uses the settings of the rule.
    ///
    /// # Errors
    /// [`Error::Argument`] if a setting of the group is out of range.
    pub fn group(mut self, group: ParameterGroup) -> Result<Self> {
        group.check()?;
        self.groups.push(group);
        Ok(self)
    }

    /// Sets a factor of the learning rates of all groups, from the next step on: the value of a
    /// [schedule](crate::training::Schedule).
    pub fn set_lr_factor(&mut self, factor: f64) {
        self.lr_factor = factor;
    }

    /// Returns the learning rate of the next step for parameters outside of groups.
    pub fn lr(&self) -> f64 {
        self.rule.lr() * self.lr_factor
    }

    /// Updates every parameter of `model` that has a gradient.
    ///
    /// # Errors
    /// [`Error::Argument`] if `gradients` belong to another model: none is of a parameter of
    /// `model`. [`Error::Shape`] if the shape of a parameter changed since the last step.
    pub fn step(&mut self, model: &mut (impl Module + ?Sized), gradients: &Gradients) -> Result<()> {
        self.step_scaled(model, gradients, 1.0)
    }

    /// Same as [`Optimizer::step`], with all gradients multiplied by `scale` (for example, for
    /// clipping) within the update.
    ///
    /// # Errors
    /// Same as [`Optimizer::step`].
    pub fn step_scaled(&mut self, model: &mut (impl Module + ?Sized), gradients: &Gradients, scale: f32) -> Result<()> {
        let (mut found, mut result) = (false, Ok(()));
        model.visit_mut("", &mut |path, parameter| {
            if let (Ok(()), Some(gradient)) = (&result, gradients.of(parameter.tensor())) {
                found = true;
                result = self.update(path, parameter, gradient, scale);
            }
        });
        result?;
        if !found && !gradients.is_empty() {
            return Err(Error::argument(
                "gradients",
                "gradients of the model's parameters",
                "only gradients of others",
            ));
        }
        Ok(())
    }

    fn update(&mut self, path: &str, parameter: &mut Parameter, gradient: &Tensor, scale: f32) -> Result<()> {
        let group = self.groups.iter().find(|group| group.selects(path, parameter.shape()));
        let own = Settings {
            lr: group.and_then(|group| group.lr).unwrap_or(self.rule.lr()) * self.lr_factor,
            weight_decay: group.and_then(|group| group.weight_decay).unwrap_or(self.rule.weight_decay()),
        };
        if !self.memory.contains_key(path) {
            let moments = self.rule.moment_names().iter().map(|_| Tensor::zeros(parameter.shape())).collect();
            self.memory.insert(path.to_string(), Memory { steps: 0, moments });
        }
        let memory = self.memory.get_mut(path).expect("inserted above");
        if let Some(other) = memory.moments.iter().find(|moment| moment.shape() != parameter.shape()) {
            let what = format!("optimizer, parameter `{path}`");
            return Err(Error::shape(what, format!("{:?}", other.shape()), parameter.shape()));
        }
        memory.steps += 1;
        self.rule.update(memory.steps, own, parameter.data_mut(), gradient.data(), scale, &mut memory.moments);
        Ok(())
    }
}

/// Clips gradients: scales them together so that their Euclidean norm is at most `max_norm`
/// (Pascanu et al. 2013). Returns the norm before clipping. Same as
/// `torch.nn.utils.clip_grad_norm_`.
///
/// If the norm is not finite, it is returned and nothing is scaled.
///
/// # Errors
/// [`Error::Argument`] if `max_norm` is not above 0.
///
/// # Examples
/// ```
/// use loquat::nn::Parameter;
/// use loquat::training::clip_grad_norm;
/// use loquat::{Tensor, ops};
///
/// let x = Parameter::new(Tensor::from_vec(vec![1.5, 2.0], &[2])?);
/// let mut gradients = x.tensor().mul(x.tensor())?.sum()?.backward()?; // 2x = [3, 4]
/// assert_eq!(clip_grad_norm(&mut gradients, 1.0)?, 5.0);
/// assert!((gradients.norm() - 1.0).abs() < 1e-6);
/// # Ok::<(), loquat::Error>(())
/// ```
pub fn clip_grad_norm(gradients: &mut Gradients, max_norm: f64) -> Result<f64> {
    if max_norm.is_nan() || max_norm <= 0.0 {
        return Err(Error::argument("max_norm", "a norm above 0", max_norm));
    }
    let norm = gradients.norm();
    let factor = clip_factor(norm, max_norm);
    if norm.is_finite() && factor < 1.0 {
        gradients.scale(factor);
    }
    Ok(norm)
}

/// The factor that scales a gradient of norm `norm` to at most `max_norm`, by PyTorch's formula.
pub(crate) fn clip_factor(norm: f64, max_norm: f64) -> f32 {
    (max_norm / (norm + 1e-6)).min(1.0) as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Two {
        weight: Parameter,
        bias: Parameter,
    }
    crate::module!(Two { weight, bias });

    fn model() -> Two {
        Two { weight: Parameter::new(Tensor::full(&[2, 2], 1.0)), bias: Parameter::new(Tensor::full(&[2], 1.0)) }
    }

    /// Returns gradients of ones.
    fn ones(model: &Two) -> Gradients {
        let sum = model.weight.tensor().sum().unwrap().add(&model.bias.tensor().sum().unwrap()).unwrap();
        sum.backward().unwrap()
    }

    #[test]
    fn the_first_group_that_selects_a_parameter_rules_it() {
        let mut model = model();
        let gradients = ones(&model);
        let mut optimizer = Optimizer::new(Sgd { lr: 0.5, weight_decay: 1.0, ..Sgd::default() })
            .and_then(|o| o.group(ParameterGroup::biases_and_norms().weight_decay(0.0)))
            .and_then(|o| o.group(ParameterGroup::by_path(|path| path.contains("bias")).lr(0.0)))
            .unwrap();
        optimizer.set_lr_factor(0.5);
        assert_eq!(optimizer.lr(), 0.25);
        optimizer.step(&mut model, &gradients).unwrap();
        assert_eq!(model.weight.tensor().to_vec(), [0.5; 4]); // 1 - 0.25 (1 + 1)
        assert_eq!(model.bias.tensor().to_vec(), [0.75; 2]); // 1 - 0.25 · 1
    }

    #[test]
    fn a_frozen_parameter_stays_and_keeps_no_moments() {
        let mut model = model();
        model.set_trainable(false, |path| path == "bias");
        let gradients = model.weight.tensor().sum().unwrap().backward().unwrap();
        let mut optimizer = Optimizer::new(AdamW::default()).unwrap();
        optimizer.step(&mut model, &gradients).unwrap();
        assert_eq!(model.bias.tensor().to_vec(), [1.0; 2]);
        assert_eq!(optimizer.memory.keys().collect::<Vec<_>>(), ["weight"]);
    }

    #[test]
    fn another_models_gradients_and_wrong_settings_are_errors() {
        let gradients = ones(&model());
        let error = Optimizer::new(Sgd::default()).unwrap().step(&mut model(), &gradients).unwrap_err();
        assert!(error.to_string().contains("gradients"), "{error}");
        assert!(Optimizer::new(Sgd { nesterov: true, ..Sgd::default() }).is_err());
        assert!(Optimizer::new(Sgd { nesterov: true, momentum: 0.9, dampening: 0.1, ..Sgd::default() }).is_err());
        assert!(Optimizer::new(Sgd { dampening: 1.5, ..Sgd::default() }).is_err());
        assert!(Optimizer::new(Adam { betas: (0.9, 1.0), ..Adam::default() }).is_err());
        assert!(Optimizer::new(AdamW { lr: f64::NAN, ..AdamW::default() }).is_err());
        let group = ParameterGroup::by_path(|_| true).lr(-1.0);
        assert!(Optimizer::new(Sgd::default()).unwrap().group(group).is_err());
    }

    #[test]
    fn clipping_keeps_the_direction_and_reports_the_norm() {
        let model = model();
        let mut gradients = ones(&model);
        let norm = clip_grad_norm(&mut gradients, 0.5).unwrap();
        assert!((norm - 6f64.sqrt()).abs() < 1e-9);
        assert!((gradients.norm() - 0.5).abs() < 1e-6);
        let untouched = gradients.norm();
        assert_eq!(clip_grad_norm(&mut gradients, 1.0).unwrap(), untouched);
        assert_eq!(gradients.norm(), untouched);
        assert!(clip_grad_norm(&mut gradients, 0.0).is_err());
    }
}
