//! Convolution over positions, and features of a convolutional text classifier.

use crate::error::Result;
use crate::nn::parameter::{Init, Parameter, Parameters};
use crate::ops;
use crate::tensor::Tensor;

/// The settings of a [`Conv1d`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Conv1dConfig {
    /// The number of input channels.
    pub in_channels: usize,
    /// The number of output channels.
    pub out_channels: usize,
    /// The number of positions in a window.
    pub kernel_size: usize,
    /// Stride, padding, dilation and groups.
    pub windows: ops::Conv1d,
    /// Whether there is a bias. Default: true.
    pub bias: bool,
}

impl Conv1dConfig {
    /// Returns settings with stride 1, no padding, dilation 1, one group and a bias.
    pub fn new(in_channels: usize, out_channels: usize, kernel_size: usize) -> Self {
        Self { in_channels, out_channels, kernel_size, windows: ops::Conv1d::default(), bias: true }
    }

    /// Sets the stride: the distance between consecutive windows, in positions (default: 1).
    pub fn stride(mut self, stride: usize) -> Self {
        self.windows.stride = stride;
        self
    }

    /// Sets the number of zeros added on each side of the input (default: 0).
    pub fn padding(mut self, padding: usize) -> Self {
        self.windows.padding = padding;
        self
    }

    /// Sets the dilation: the distance between the elements of a window, in positions (default: 1).
    pub fn dilation(mut self, dilation: usize) -> Self {
        self.windows.dilation = dilation;
        self
    }

    /// Sets the number of groups that the channels are divided into (default: 1).
    pub fn groups(mut self, groups: usize) -> Self {
        self.windows.groups = groups;
        self
    }

    /// Sets whether there is a bias (default: true).
    pub fn bias(self, bias: bool) -> Self {
        Self { bias, ..self }
    }
}

crate::module!(ops::MaxPool1d {; skip kernel_size, stride, padding, dilation });

/// A one-dimensional convolution, like `torch.nn.Conv1d`; [`Conv1d::max_over_time`] computes the
/// features of a text.
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
    /// Creates a layer with PyTorch's initial values: uniform in
    /// `±1/√(kernel_size · in_channels / groups)`.
    ///
    /// # Errors
    /// Same as [`Parameters::get`].
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

    /// Applies the convolution to `x`.
    ///
    /// # Shapes
    /// `x: [batch, in_channels, len]` → `[batch, out_channels, windows]` (see
    /// [`ops::Conv1d::forward`]).
    ///
    /// # Errors
    /// Same as [`ops::Conv1d::forward`].
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.windows.forward(x, self.weight.tensor(), self.bias.as_ref().map(Parameter::tensor))
    }

    /// Returns the maximum of each output channel over all positions, after ReLU.
    ///
    /// # Shapes
    /// `x: [batch, in_channels, len]` → `[batch, out_channels]`.
    ///
    /// # Errors
    /// Same as [`Conv1d::forward`].
    pub fn max_over_time(&self, x: &Tensor) -> Result<Tensor> {
        ops::max_over_time(&self.forward(x)?.relu(), None)
    }
}
