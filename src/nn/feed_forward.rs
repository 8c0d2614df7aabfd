//! Two linear layers with a non-linearity between, applied to each position.

use crate::error::Result;
use crate::nn::dropout::Dropout;
use crate::nn::linear::Linear;
use crate::nn::parameter::Parameters;
use crate::ops::Activation;
use crate::tensor::Tensor;

/// The settings of a [`FeedForward`].
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct FeedForwardConfig {
    /// Width of input and output.
    pub d_model: usize,
    /// Width between.
    pub d_ff: usize,
    /// The non-linearity, ReLU at first.
    pub activation: Activation,
    /// Whether a third layer multiplies what comes out of it.
    pub gated: bool,
    /// Whether the layers have biases; they do at first.
    pub bias: bool,
    /// Dropout of the inner layer.
    pub dropout: f32,
}

impl FeedForwardConfig {
    /// With ReLU and biases, without dropout.
    pub fn new(d_model: usize, d_ff: usize) -> Self {
        Self { d_model, d_ff, activation: Activation::Relu, gated: false, bias: true, dropout: 0.0 }
    }

    /// Another non-linearity.
    pub fn activation(self, activation: Activation) -> Self {
        Self { activation, ..self }
    }

    /// A gate (Shazeer 2020, "GLU variants improve Transformer"): with SiLU, as [`FeedForwardConfig::swiglu`] has it, or with the
    /// activation of choice.
    pub fn gated(self, gated: bool) -> Self {
        Self { gated, ..self }
    }

    /// SwiGLU: SiLU and a gate.
    pub fn swiglu(self) -> Self {
        self.activation(Activation::Silu).gated(true)
    }

    /// With or without biases.
    pub fn bias(self, bias: bool) -> Self {
        Self { bias, ..self }
    }

    /// Dropout of the inner layer.
    pub fn dropout(self, dropout: f32) -> Self {
        Self { dropout, ..self }
    }
}

/// `linear2(f(linear1(x)))`, or with a gate `linear2(f(linear1(x)) · linear3(x))`.
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
#[derive(Clone, Debug)]
pub struct FeedForward {
    /// From `d_model` to `d_ff`.
    pub linear1: Linear,
    /// Back.
    pub linear2: Linear,
    /// The gate, from `d_model` to `d_ff`.
    pub linear3: Option<Linear>,
    /// Of the inner layer.
    pub dropout: Dropout,
    activation: Activation,
}

crate::module!(FeedForward { linear1, linear2, linear3, dropout; skip activation });

impl FeedForward {
    /// A layer with PyTorch's initial values.
    ///
    /// # Errors
    /// As for [`Parameters::get`].
    pub fn init<'a>(config: &FeedForwardConfig, p: impl Into<Parameters<'a>>) -> Result<Self> {
        let mut p = p.into();
        let &FeedForwardConfig { d_model, d_ff, activation, gated, bias, dropout } = config;
        let linear1 = Linear::init(d_model, d_ff, bias, p.at("linear1"))?;
        let linear2 = Linear::init(d_ff, d_model, bias, p.at("linear2"))?;
        let linear3 = gated.then(|| Linear::init(d_model, d_ff, bias, p.at("linear3"))).transpose()?;
        Ok(Self { linear1, linear2, linear3, dropout: Dropout::new(dropout), activation })
    }

    /// # Shapes
    /// `x: […, d_model]` and so the result.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) if `x` does not fit.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let mut inner = self.linear1.forward(x)?.activate(self.activation);
        if let Some(gate) = &self.linear3 {
            inner = inner.mul(&gate.forward(x)?)?;
        }
        self.linear2.forward(&self.dropout.forward(&inner)?)
    }
}
