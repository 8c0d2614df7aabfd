//! The feed-forward part of a transformer layer: two linear layers with an activation between them,
//! applied to each position separately.

use crate::error::Result;
use crate::nn::dropout::Dropout;
use crate::nn::linear::Linear;
use crate::nn::module::{Module, below};
use crate::nn::parameter::{Init, Parameter, Parameters};
use crate::ops::Activation;
use crate::ops::linear::WeightLayout;
use crate::tensor::Tensor;

/// The settings of a [`FeedForward`].
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct FeedForwardConfig {
    /// Width of input and output.
    pub d_model: usize,
    /// Inner width.
    pub d_ff: usize,
    /// The activation. Default: ReLU.
    pub activation: Activation,
    /// Whether a third layer gates the inner values. Default: false.
    pub gated: bool,
    /// Whether the layers have biases. Default: true.
    pub bias: bool,
    /// Dropout probability of the inner values, in `[0, 1)`. Default: 0.
    pub dropout: f32,
    /// How the weights are stored. Default: [`WeightLayout::OutIn`].
    pub(crate) layout: WeightLayout,
    /// The initial distributions of the inner layers and of the outer layer. Default: PyTorch's.
    pub(crate) fresh: Option<[Init; 2]>,
    pub(crate) names: FeedForwardNames,
}

/// The role of a linear layer in a [`FeedForward`].
#[derive(Clone, Copy, Debug)]
pub(crate) enum Place {
    /// Before the activation.
    Inner,
    /// Its output multiplies the activation's.
    Gate,
    /// After the activation.
    Outer,
}

/// The checkpoint names of the linear layers of a feed-forward part, below its own path, in the
/// checkpoint's order.
pub(crate) type FeedForwardNames = &'static [(Place, &'static str)];

/// The names of `torch.nn.TransformerEncoderLayer`, and `linear3` for the gate.
const PYTORCH: FeedForwardNames = &[(Place::Inner, "linear1"), (Place::Outer, "linear2"), (Place::Gate, "linear3")];

impl FeedForwardConfig {
    /// Returns settings with ReLU and biases, without gate and dropout.
    pub fn new(d_model: usize, d_ff: usize) -> Self {
        Self {
            d_model,
            d_ff,
            activation: Activation::Relu,
            gated: false,
            bias: true,
            dropout: 0.0,
            layout: WeightLayout::OutIn,
            fresh: None,
            names: PYTORCH,
        }
    }

    /// Sets the activation (default: ReLU).
    pub fn activation(self, activation: Activation) -> Self {
        Self { activation, ..self }
    }

    /// Sets whether there is a gate (default: false; Shazeer 2020, "GLU variants improve
    /// Transformer").
    pub fn gated(self, gated: bool) -> Self {
        Self { gated, ..self }
    }

    /// Sets the activation to SiLU with a gate (SwiGLU).
    pub fn swiglu(self) -> Self {
        self.activation(Activation::Silu).gated(true)
    }

    /// Sets whether the layers have biases (default: true).
    pub fn bias(self, bias: bool) -> Self {
        Self { bias, ..self }
    }

    /// Sets the dropout probability of the inner values, in `[0, 1)` (default: 0).
    pub fn dropout(self, dropout: f32) -> Self {
        Self { dropout, ..self }
    }
}

/// Two linear layers with an activation `f` between them: `linear2(f(linear1(x)))`, or with a gate
/// `linear2(f(linear1(x)) · linear3(x))`.
///
/// The names are those of `torch.nn.TransformerEncoderLayer`.
///
/// ```
/// use loquat::nn::{FeedForward, FeedForwardConfig};
/// use loquat::{Rng, Tensor};
///
/// let layer = FeedForward::init(&FeedForwardConfig::new(4, 16).swiglu(), &mut Rng::seed(1))?;
/// assert_eq!(layer.forward(&Tensor::zeros(&[2, 3, 4]))?.shape(), [2, 3, 4]);
/// # Ok::<(), loquat::Error>(())
/// ```
#[derive(Clone)]
pub struct FeedForward {
    /// The inner layer, from `d_model` to `d_ff`.
    pub linear1: Linear,
    /// The outer layer, from `d_ff` to `d_model`.
    pub linear2: Linear,
    /// The gate, from `d_model` to `d_ff`.
    pub linear3: Option<Linear>,
    /// Dropout of the inner values.
    pub dropout: Dropout,
    activation: Activation,
    names: FeedForwardNames,
}

impl std::fmt::Debug for FeedForward {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (d_model, d_ff) = (self.linear1.in_features(), self.linear1.out_features());
        write!(f, "FeedForward(d_model={d_model}, d_ff={d_ff}, {:?}", self.activation)?;
        let gated = if self.linear3.is_some() { ", gated" } else { "" };
        let bias = if self.linear1.bias.is_some() { ", bias" } else { "" };
        write!(f, "{gated}{bias}, {})", self.linear1.weight.weight().format_name())
    }
}

impl Module for FeedForward {
    fn visit<'m>(&'m self, path: &str, f: &mut dyn FnMut(&str, &'m Parameter)) {
        for (place, name) in self.names {
            let path = below(path, name);
            match place {
                Place::Inner => self.linear1.visit(&path, f),
                Place::Outer => self.linear2.visit(&path, f),
                Place::Gate => self.linear3.visit(&path, f),
            }
        }
    }

    fn visit_mut(&mut self, path: &str, f: &mut dyn FnMut(&str, &mut Parameter)) {
        for (place, name) in self.names {
            let path = below(path, name);
            match place {
                Place::Inner => self.linear1.visit_mut(&path, f),
                Place::Outer => self.linear2.visit_mut(&path, f),
                Place::Gate => self.linear3.visit_mut(&path, f),
            }
        }
    }
}

impl FeedForward {
    /// Creates a layer with PyTorch's initial values.
    ///
    /// # Errors
    /// Same as [`Parameters::get`].
    pub fn init<'a>(config: &FeedForwardConfig, p: impl Into<Parameters<'a>>) -> Result<Self> {
        let mut p = p.into();
        let &FeedForwardConfig { d_model, d_ff, activation, gated, bias, dropout, layout, fresh, names } = config;
        let mut linear = |n_in: usize, n_out: usize, fresh: Option<Init>, name: &str| match fresh {
            Some(fresh) => Linear::init_with(n_in, n_out, layout, fresh, bias.then_some(Init::Zeros), p.at(name)),
            None => Linear::init(n_in, n_out, bias, p.at(name)),
        };
        let [mut linear1, mut linear2, mut linear3] = [None, None, None];
        for &(place, name) in names {
            let inner = fresh.map(|[inner, _]| inner);
            match place {
                Place::Inner => linear1 = Some(linear(d_model, d_ff, inner, name)?),
                Place::Outer => linear2 = Some(linear(d_ff, d_model, fresh.map(|[_, outer]| outer), name)?),
                Place::Gate if gated => linear3 = Some(linear(d_model, d_ff, inner, name)?),
                Place::Gate => {}
            }
        }
        let named = "an inner and an outer layer are named";
        Ok(Self {
            linear1: linear1.expect(named),
            linear2: linear2.expect(named),
            linear3,
            dropout: Dropout::new(dropout),
            activation,
            names,
        })
    }

    /// Applies the layers to each position of `x`.
    ///
    /// # Shapes
    /// `x: […, d_model]` → `[…, d_model]`.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) if the shape of `x` does not match.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.linear2.forward(&self.inner(x)?)
    }

    /// Returns `residual + dropout(forward(x))`.
    pub(crate) fn forward_added(&self, residual: &Tensor, x: &Tensor, dropout: &Dropout) -> Result<Tensor> {
        dropout.added(residual, &self.linear2, &self.inner(x)?)
    }

    /// Returns the inner values, `[…, d_ff]`.
    fn inner(&self, x: &Tensor) -> Result<Tensor> {
        let inner = match &self.linear3 {
            None => self.linear1.forward_then(x, Some(self.activation), None)?,
            Some(gate) => {
                let both = [(&self.linear1, Some(self.activation)), (gate, None)];
                let [inner, gate] = Linear::forward_each(both, x)?;
                inner.mul(&gate)?
            }
        };
        self.dropout.forward(&inner)
    }
}
