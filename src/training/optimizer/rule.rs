//! Update rules: SGD, Adam, AdamW.
//!
//! With parameter θ, gradient g, learning rate η, weight decay λ and step t counted from 1:
//!
//! ```text
//! SGD    g ← g + λθ
//!        b ← μb + (1-δ)g  (b = g at t = 1)
//!        θ ← θ - η b;  Nesterov: θ ← θ - η (g + μb)
//! Adam   g ← g + λθ
//!        m ← β₁m + (1-β₁)g
//!        v ← β₂v + (1-β₂)g²
//!        θ ← θ - η/(1-β₁ᵗ) · m / (√v / √(1-β₂ᵗ) + ε);  AMSGrad: the largest v so far in place of v
//! AdamW  θ ← θ - ηλθ, then Adam with λ = 0
//! ```
//!
//! where μ is the momentum and δ the dampening of SGD.
//!
//! Momentum: Polyak 1964, Sutskever et al. 2013. Adam: Kingma, Ba 2015. AdamW: Loshchilov, Hutter
//! 2019. AMSGrad: Reddi, Kale, Kumar 2018. The results agree with `torch.optim.SGD`, `Adam` and
//! `AdamW`, including precision: factors are computed in f64, elements in f32.

use serde::{Deserialize, Serialize};

use crate::kernels::vecmath;
use crate::tensor::Tensor;

/// Stochastic gradient descent, as `torch.optim.SGD`.
///
/// # Examples
/// ```
/// use loquat::training::{Optimizer, Sgd};
///
/// let rule = Sgd { lr: 0.1, momentum: 0.9, nesterov: true, ..Sgd::default() };
/// assert_eq!(rule.weight_decay, 0.0);
/// assert_eq!(Optimizer::new(rule)?.lr(), 0.1);
/// # Ok::<(), loquat::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sgd {
    /// Learning rate. Default: 1e-3.
    pub lr: f64,
    /// Momentum, in `[0, 1)`. Default: 0.
    pub momentum: f64,
    /// Dampening of momentum, in `[0, 1]`; it has no effect in the first step of a parameter.
    /// Default: 0.
    #[serde(default)]
    pub dampening: f64,
    /// Whether to use Nesterov momentum, which needs a dampening of 0. Default: false.
    pub nesterov: bool,
    /// Weight decay: `weight_decay · parameter` is added to the gradient. Default: 0.
    pub weight_decay: f64,
}

impl Default for Sgd {
    fn default() -> Self {
        Self { lr: 1e-3, momentum: 0.0, dampening: 0.0, nesterov: false, weight_decay: 0.0 }
    }
}

/// Adam (adaptive moment estimation), as `torch.optim.Adam`: weight decay is added to the gradient.
///
/// # Examples
/// ```
/// use loquat::training::{Adam, Optimizer};
///
/// let optimizer = Optimizer::new(Adam { lr: 3e-4, ..Adam::default() })?;
/// assert_eq!(optimizer.lr(), 3e-4);
/// assert!(Optimizer::new(Adam { betas: (0.9, 1.0), ..Adam::default() }).is_err());
/// # Ok::<(), loquat::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Adam {
    /// Learning rate. Default: 1e-3.
    pub lr: f64,
    /// Decay rates of the first and second moment, in `[0, 1)`. Default: (0.9, 0.999).
    pub betas: (f64, f64),
    /// Added to the root of the second moment for numerical stability. Default: 1e-8.
    pub eps: f64,
    /// Weight decay: `weight_decay · parameter` is added to the gradient. Default: 0.
    pub weight_decay: f64,
    /// Whether to divide by the largest second moment so far (AMSGrad), which keeps one more moment
    /// in memory. Default: false.
    #[serde(default)]
    pub amsgrad: bool,
}

impl Default for Adam {
    fn default() -> Self {
        Self { lr: 1e-3, betas: (0.9, 0.999), eps: 1e-8, weight_decay: 0.0, amsgrad: false }
    }
}

/// Adam with decoupled weight decay, as `torch.optim.AdamW`.
///
/// # Examples
/// ```
/// use loquat::training::{AdamW, Optimizer};
///
/// let optimizer = Optimizer::new(AdamW { lr: 3e-4, weight_decay: 0.1, ..AdamW::default() })?;
/// assert_eq!(optimizer.lr(), 3e-4);
/// # Ok::<(), loquat::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct AdamW {
    /// Learning rate. Default: 1e-3.
    pub lr: f64,
    /// Decay rates of the first and second moment, in `[0, 1)`. Default: (0.9, 0.999).
    pub betas: (f64, f64),
    /// Added to the root of the second moment for numerical stability. Default: 1e-8.
    pub eps: f64,
    /// Weight decay: each step multiplies the parameter by `1 - lr · weight_decay`. Default: 0.01.
    pub weight_decay: f64,
    /// Whether to divide by the largest second moment so far (AMSGrad), which keeps one more moment
    /// in memory. Default: false.
    #[serde(default)]
    pub amsgrad: bool,
}

impl Default for AdamW {
    fn default() -> Self {
        Self { lr: 1e-3, betas: (0.9, 0.999), eps: 1e-8, weight_decay: 1e-2, amsgrad: false }
    }
}

/// An update rule.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Rule {
    /// Stochastic gradient descent.
    Sgd(Sgd),
    /// Adam.
    Adam(Adam),
    /// Adam with decoupled weight decay.
    AdamW(AdamW),
}

impl From<Sgd> for Rule {
    fn from(rule: Sgd) -> Self {
        Rule::Sgd(rule)
    }
}

impl From<Adam> for Rule {
    fn from(rule: Adam) -> Self {
        Rule::Adam(rule)
    }
}

impl From<AdamW> for Rule {
    fn from(rule: AdamW) -> Self {
        Rule::AdamW(rule)
    }
}

impl Rule {
    /// The name of the rule, for messages.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Rule::Sgd(_) => "SGD",
            Rule::Adam(_) => "Adam",
            Rule::AdamW(_) => "AdamW",
        }
    }

    /// The learning rate.
    pub(crate) fn lr(&self) -> f64 {
        match self {
            Rule::Sgd(rule) => rule.lr,
            Rule::Adam(rule) => rule.lr,
            Rule::AdamW(rule) => rule.lr,
        }
    }

    /// The weight decay.
    pub(crate) fn weight_decay(&self) -> f64 {
        match self {
            Rule::Sgd(rule) => rule.weight_decay,
            Rule::Adam(rule) => rule.weight_decay,
            Rule::AdamW(rule) => rule.weight_decay,
        }
    }

    /// The names of the moments in a file, those of PyTorch.
    pub(super) fn moment_names(&self) -> &'static [&'static str] {
        match self {
            Rule::Sgd(Sgd { momentum: 0.0, .. }) => &[],
            Rule::Sgd(_) => &["momentum_buffer"],
            Rule::Adam(Adam { amsgrad: true, .. }) | Rule::AdamW(AdamW { amsgrad: true, .. }) => {
                &["exp_avg", "exp_avg_sq", "max_exp_avg_sq"]
            }
            Rule::Adam(_) | Rule::AdamW(_) => &["exp_avg", "exp_avg_sq"],
        }
    }

    /// Returns the first setting that is out of range: its name, the expected range and its value.
    pub(super) fn check(&self) -> Result<(), (&'static str, &'static str, f64)> {
        let not_negative = |name, x: f64| {
            if x >= 0.0 && x.is_finite() { Ok(()) } else { Err((name, "a finite number ≥ 0", x)) }
        };
        let share = |name, x: f64| if (0.0..1.0).contains(&x) { Ok(()) } else { Err((name, "a number in [0, 1)", x)) };
        not_negative("lr", self.lr())?;
        not_negative("weight_decay", self.weight_decay())?;
        match *self {
            Rule::Sgd(Sgd { momentum, nesterov, dampening, .. }) => {
                share("momentum", momentum)?;
                if !(0.0..=1.0).contains(&dampening) {
                    return Err(("dampening", "a number in [0, 1]", dampening));
                }
                if nesterov && dampening != 0.0 {
                    return Err(("dampening", "0 with Nesterov momentum", dampening));
                }
                if nesterov && momentum == 0.0 {
                    return Err(("momentum", "a number above 0 with Nesterov momentum", momentum));
                }
                Ok(())
            }
            Rule::Adam(Adam { betas, eps, .. }) | Rule::AdamW(AdamW { betas, eps, .. }) => {
                share("betas.0", betas.0)?;
                share("betas.1", betas.1)?;
                not_negative("eps", eps)
            }
        }
    }

    /// Updates `parameter` by `gradient · scale` in its step `t`, counted from 1.
    pub(super) fn update(
        &self,
        t: u64,
        own: Settings,
        parameter: &mut [f32],
        gradient: &[f32],
        scale: f32,
        moments: &mut [Tensor],
    ) {
        let Settings { lr, weight_decay } = own;
        match (*self, moments) {
            (Rule::Sgd(Sgd { momentum, nesterov, dampening, .. }), moments) => {
                let dampening = if t == 1 { 0.0 } else { dampening };
                let sgd = vecmath::Sgd { lr, momentum, dampening, weight_decay, nesterov };
                let buffer = moments.first_mut().map_or(&mut [][..], Tensor::make_mut);
                vecmath::sgd_step(&sgd, scale, parameter, gradient, buffer);
            }
            (
                Rule::Adam(Adam { betas, eps, .. }) | Rule::AdamW(AdamW { betas, eps, .. }),
                [first, second, largest @ ..],
            ) => {
                let decoupled = matches!(self, Rule::AdamW(_));
                let adam = vecmath::Adam { lr, betas, eps, weight_decay, decoupled };
                let largest = largest.first_mut().map_or(&mut [][..], Tensor::make_mut);
                let (first, second) = (first.make_mut(), second.make_mut());
                vecmath::adam_step(&adam, t, scale, parameter, gradient, first, second, largest);
            }
            (_, moments) => unreachable!("Adam has two or three moments, not {}", moments.len()),
        }
    }
}

/// The settings of a group of parameters in one step.
#[derive(Clone, Copy)]
pub(super) struct Settings {
    pub(super) lr: f64,
    pub(super) weight_decay: f64,
}
