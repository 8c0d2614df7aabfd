//! The formulas by which a parameter follows its gradient.
//!
//! With parameter θ, gradient g, learning rate η, weight decay λ and the count t of steps from 1:
//!
//! ```text
//! SGD    g ← g + λθ                      b ← μb + (1-δ)g (b = g at t = 1)     θ ← θ - η b,  Nesterov: θ ← θ - η (g + μb)
//! Adam   g ← g + λθ                      m ← β₁m + (1-β₁)g   v ← β₂v + (1-β₂)g²
//!        θ ← θ - η/(1-β₁ᵗ) · m / (√v / √(1-β₂ᵗ) + ε);  AMSGrad: the largest v so far in place of v
//! AdamW  θ ← θ - ηλθ, then as Adam without the decay of g
//! ```
//!
//! with the dampening δ of SGD.
//!
//! Momentum: Polyak 1964, Sutskever et al. 2013. Adam: Kingma, Ba 2015. AdamW: Loshchilov, Hutter
//! 2019. AMSGrad: Reddi, Kale, Kumar
//! 2018. They agree with
//! `torch.optim.SGD`, `Adam` and `AdamW`, also in what is done in which precision: the factors in f64, the elements in f32.

use serde::{Deserialize, Serialize};

use crate::kernels::vecmath;
use crate::tensor::Tensor;

/// Stochastic gradient descent, as `torch.optim.SGD`.
///
/// ```
/// use loquat::training::Sgd;
///
/// let rule = Sgd { lr: 0.1, momentum: 0.9, nesterov: true, ..Sgd::default() };
/// assert_eq!(rule.weight_decay, 0.0);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sgd {
    /// Learning rate.
    pub lr: f64,
    /// Share of the last direction that is kept, in `[0, 1)`; 0 for none.
    pub momentum: f64,
    /// Share of the gradient that does not go into the direction, in `[0, 1]`; without effect in a
    /// parameter's first step.
    #[serde(default)]
    pub dampening: f64,
    /// Whether to look ahead by one step of momentum; not with dampening.
    pub nesterov: bool,
    /// Added to the gradient as `weight_decay · parameter`.
    pub weight_decay: f64,
}

impl Default for Sgd {
    fn default() -> Self {
        Self { lr: 1e-3, momentum: 0.0, dampening: 0.0, nesterov: false, weight_decay: 0.0 }
    }
}

/// Adaptive moment estimation, as `torch.optim.Adam`: weight decay is added to the gradient.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Adam {
    /// Learning rate.
    pub lr: f64,
    /// Shares of the old first and second moment that are kept, in `[0, 1)`.
    pub betas: (f64, f64),
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Added to the gradient as `weight_decay · parameter`.
    pub weight_decay: f64,
    /// Whether to divide by the largest second moment so far (AMSGrad): one moment more in memory.
    #[serde(default)]
    pub amsgrad: bool,
}

impl Default for Adam {
    fn default() -> Self {
        Self { lr: 1e-3, betas: (0.9, 0.999), eps: 1e-8, weight_decay: 0.0, amsgrad: false }
    }
}

/// Adam with decoupled weight decay, as `torch.optim.AdamW`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct AdamW {
    /// Learning rate.
    pub lr: f64,
    /// Shares of the old first and second moment that are kept, in `[0, 1)`.
    pub betas: (f64, f64),
    /// Added to the root of the second moment.
    pub eps: f64,
    /// The parameter shrinks by `lr · weight_decay` of itself each step.
    pub weight_decay: f64,
    /// Whether to divide by the largest second moment so far (AMSGrad): one moment more in memory.
    #[serde(default)]
    pub amsgrad: bool,
}

impl Default for AdamW {
    fn default() -> Self {
        Self { lr: 1e-3, betas: (0.9, 0.999), eps: 1e-8, weight_decay: 1e-2, amsgrad: false }
    }
}

/// One of the rules.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Rule {
    /// Stochastic gradient descent.
    Sgd(Sgd),
    /// Adaptive moments.
    Adam(Adam),
    /// Adaptive moments with decoupled weight decay.
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
    /// The rule's name, as in messages.
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

    /// What the moments are called in a file: PyTorch's names.
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

    /// The setting that is out of its range, what it may be, and what it is.
    pub(super) fn check(&self) -> Result<(), (&'static str, &'static str, f64)> {
        let not_negative = |name, x: f64| {
            if x >= 0.0 && x.is_finite() { Ok(()) } else { Err((name, "a finite number of 0 or more", x)) }
        };
        let share = |name, x: f64| if (0.0..1.0).contains(&x) { Ok(()) } else { Err((name, "a share in [0, 1)", x)) };
        not_negative("lr", self.lr())?;
        not_negative("weight_decay", self.weight_decay())?;
        match *self {
            Rule::Sgd(Sgd { momentum, nesterov, dampening, .. }) => {
                share("momentum", momentum)?;
                if !(0.0..=1.0).contains(&dampening) {
                    return Err(("dampening", "a share in [0, 1]", dampening));
                }
                if nesterov && dampening != 0.0 {
                    return Err(("dampening", "0 for Nesterov's step", dampening));
                }
                if nesterov && momentum == 0.0 {
                    return Err(("momentum", "a share above 0 for Nesterov's step", momentum));
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

    /// Moves `parameter` by `gradient · scale`, in step `t` (from 1) of its own.
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
            (_, moments) => unreachable!("Adam has two moments or three, not {}", moments.len()),
        }
    }
}

/// What a group of parameters may have of its own, at this step.
#[derive(Clone, Copy)]
pub(super) struct Settings {
    pub(super) lr: f64,
    pub(super) weight_decay: f64,
}
