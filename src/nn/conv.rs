//! Convolution over positions, and the features of a text convolutional network.

use crate::error::Result;
use crate::nn::parameter::{Init, Parameter, Parameters};
use crate::ops;
use crate::tensor::Tensor;

/// The settings of a [`Conv1d`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Conv1dConfig {
    /// Channels of the input.
    pub in_channels: usize,
    /// Channels of the output.
    pub out_channels: usize,
    /// Positions of a window.
    pub kernel_size: usize,
    /// How the windows lie.
    pub windows: ops::Conv1d,
    /// Whether there is a bias; there is at first.
    pub bias: bool,
}

impl Conv1dConfig {
    /// Every window, no zeros around, no gaps, one group, a bias.
    pub fn new(in_channels: usize, out_channels: usize, kernel_size: usize) -> Self {
        Self { in_channels, out_channels, kernel_size, windows: ops::Conv1d::default(), bias: true }
    }

    /// Positions from a window to the next.
    pub fn stride(mut self, stride: usize) -> Self {
        self.windows.stride = stride;
        self
    }

    /// Zeros before and after the input.
    pub fn padding(mut self, padding: usize) -> Self {
        self.windows.padding = padding;
        self
    }

    /// Positions from an element of a window to the next.
    pub fn dilation(mut self, dilation: usize) -> Self {
        self.windows.dilation = dilation;
        self
    }

    /// Parts that the channels are cut into.
    pub fn groups(mut self, groups: usize) -> Self {
        self.windows.groups = groups;
        self
    }

    /// With or without bias.
    pub fn bias(self, bias: bool) -> Self {
        Self { bias, ..self }
    }
}

crate::module!(ops::MaxPool1d {; skip kernel_size, stride, padding, dilation });

/// Convolution, as `torch.nn.Conv1d`; the features of a text are [`Conv1d::max_over_time`].
///
/// ```
/// use loquat::nn::{Conv1d, Conv1dConfig};
/// use loquat::{Rng, Tensor};
///
/// let mut rng = Rng::seed(1);
/// let words = Tensor::normal(&[2, 7, 4], 1.0, &mut rng); // [batch, seq_len, d_model]
/// let trigrams = Conv1d::init(&Conv1dConfig::new(4, 10, 3), &mut rng)?;
/// let features = trigrams.max_over_time(&words.transpose(1, 2)?)?;
/// assert_eq!(features.shape(), [2, 10]);
/// # Ok::<(), loquat::Error>(())
/// ```
#[derive(Clone)]
pub struct Conv1d {
    /// `[out_channels, in_channels / groups, kernel_size]`.
    pub weight: Parameter,
    /// `[out_channels]`.
    pub bias: Option<Parameter>,
    windows: ops::Conv1d,
}

crate::module!(Conv1d { weight, bias; skip windows });

impl std::fmt::Debug for Conv1d {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ops::Conv1d { stride, padding, dilation, groups } = self.windows;
        let [n_out, n_in, kernel] = [0, 1, 2].map(|axis| self.weight.shape().get(axis).copied().unwrap_or(0));
        write!(f, "Conv1d({} -> {n_out}, kernel_size={kernel}", n_in * groups)?;
        for (name, value, usual) in
            [("stride", stride, 1), ("padding", padding, 0), ("dilation", dilation, 1), ("groups", groups, 1)]
        {
            if value != usual {
                write!(f, ", {name}={value}")?;
            }
        }
        let bias = if self.bias.is_some() { ", bias" } else { "" };
        write!(f, "{bias}, {})", self.weight.weight().format_name())
    }
}

impl Conv1d {
    /// A layer with PyTorch's initial values: uniform within `1/√(kernel_size · in_channels / groups)`.
    ///
    /// # Errors
    /// As for [`Parameters::get`].
    pub fn init<'a>(config: &Conv1dConfig, p: impl Into<Parameters<'a>>) -> Result<Self> {
        let mut p = p.into();
        let &Conv1dConfig { in_channels, out_channels, kernel_size, windows, bias } = config;
        let channels = in_channels / windows.groups.max(1);
        let fan_in = channels.saturating_mul(kernel_size).max(1);
        let uniform = Init::Uniform { bound: 1.0 / (fan_in as f32).sqrt() };
        let weight = p.get("weight", &[out_channels, channels, kernel_size], uniform)?;
        let bias = bias.then(|| p.get("bias", &[out_channels], uniform)).transpose()?;
        Ok(Self { weight, bias, windows })
    }

    /// # Shapes
    /// `x: [batch, in_channels, len]` → `[batch, out_channels, windows]`, see [`ops::Conv1d::forward`].
    ///
    /// # Errors
    /// As there.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.windows.forward(x, self.weight.tensor(), self.bias.as_ref().map(Parameter::tensor))
    }

    /// The largest response of each filter, after ReLU, over all positions.
    ///
    /// # Shapes
    /// `x: [batch, in_channels, len]` → `[batch, out_channels]`.
    ///
    /// # Errors
    /// As for [`Conv1d::forward`].
    pub fn max_over_time(&self, x: &Tensor) -> Result<Tensor> {
        ops::max_over_time(&self.forward(x)?.relu(), None)
    }
}
