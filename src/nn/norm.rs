//! Normalisation layers over the last axis or the last axes.

use crate::error::{Error, Result};
use crate::nn::module::Module;
use crate::nn::parameter::{Init, Parameter, Parameters};
use crate::ops;
use crate::tensor::Tensor;

/// Layer normalisation (Ba, Kiros, Hinton 2016), like `torch.nn.LayerNorm`.
///
/// ```
/// use loquat::{Rng, Tensor, nn::LayerNorm};
///
/// let x = Tensor::normal(&[4, 3, 5], 2.0, &mut Rng::seed(1));
/// // torch.nn.LayerNorm([3, 5], bias=False)
/// let over_two = LayerNorm::over(&[3, 5], 1e-5, false, &mut Rng::seed(1))?;
/// let y = over_two.forward(&x)?;
/// assert!(y.data()[..15].iter().sum::<f32>().abs() < 1e-4);
/// # Ok::<(), loquat::Error>(())
/// ```
#[derive(Clone)]
pub struct LayerNorm {
    /// The scale, `[d_model]` or the normalised axes; initially one.
    pub weight: Parameter,
    /// The shift, of the same shape; initially zero.
    pub bias: Option<Parameter>,
    /// Added to the variance.
    pub eps: f32,
}

crate::module!(LayerNorm { weight, bias; skip eps });

impl std::fmt::Debug for LayerNorm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let bias = if self.bias.is_some() { ", bias" } else { "" };
        write!(f, "LayerNorm({:?}, eps={:?}{bias})", self.weight.shape(), self.eps)
    }
}

impl LayerNorm {
    /// Creates a layer with weight one and bias zero that normalises over the last axis.
    ///
    /// # Errors
    /// Same as [`Parameters::get`].
    pub fn init<'a>(d_model: usize, eps: f32, p: impl Into<Parameters<'a>>) -> Result<Self> {
        Self::over(&[d_model], eps, true, p)
    }

    /// Creates a layer that normalises over the last axes, of the lengths `axes`, with or without a
    /// bias.
    ///
    /// # Errors
    /// [`Error::Argument`] if `axes` is empty; also the errors of [`Parameters::get`].
    pub fn over<'a>(axes: &[usize], eps: f32, bias: bool, p: impl Into<Parameters<'a>>) -> Result<Self> {
        if axes.is_empty() {
            return Err(Error::argument("axes of a norm", "at least one", "none"));
        }
        let mut p = p.into();
        let weight = p.get("weight", axes, Init::Ones)?;
        Ok(Self { weight, bias: bias.then(|| p.get("bias", axes, Init::Zeros)).transpose()?, eps })
    }

    /// Normalises `x`, then applies weight and bias.
    ///
    /// # Shapes
    /// `x: […, d_model]` → `[…, d_model]`; the last axes are those of [`LayerNorm::over`].
    ///
    /// # Errors
    /// [`Error::Shape`] if the shape of `x` does not match.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        ops::layer_norm(x, self.weight.tensor(), self.bias.as_ref().map(Parameter::tensor), self.eps)
    }
}

/// RMS normalisation (Zhang, Sennrich 2019) over the last axis, like `torch.nn.RMSNorm`.
///
/// ```
/// use loquat::{Rng, Tensor, nn::RmsNorm};
///
/// let norm = RmsNorm::init(2, 0.0, &mut Rng::seed(1))?;
/// let y = norm.forward(&Tensor::from_vec(vec![1.0, 7.0], &[1, 2])?)?; // the mean square is 25
/// assert!((y.data()[0] - 0.2).abs() < 1e-6 && (y.data()[1] - 1.4).abs() < 1e-6);
/// # Ok::<(), loquat::Error>(())
/// ```
#[derive(Clone)]
pub struct RmsNorm {
    /// The scale, `[d_model]`, initially one.
    pub weight: Parameter,
    /// Added to the mean square.
    pub eps: f32,
}

crate::module!(RmsNorm { weight; skip eps });

impl std::fmt::Debug for RmsNorm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RmsNorm({:?}, eps={:?})", self.weight.shape(), self.eps)
    }
}

impl RmsNorm {
    /// Creates a layer with weight one.
    ///
    /// # Errors
    /// Same as [`Parameters::get`].
    pub fn init<'a>(d_model: usize, eps: f32, p: impl Into<Parameters<'a>>) -> Result<Self> {
        Ok(Self { weight: p.into().get("weight", &[d_model], Init::Ones)?, eps })
    }

    /// Normalises `x`, then multiplies by the weight.
    ///
    /// # Shapes
    /// `x: […, d_model]` → `[…, d_model]`.
    ///
    /// # Errors
    /// [`Error::Shape`] if the shape of `x` does not match.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        ops::rms_norm(x, self.weight.tensor(), self.eps)
    }
}

/// The kind of a [`Norm`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum NormType {
    /// [`LayerNorm`] with a bias.
    #[default]
    Layer,
    /// [`RmsNorm`].
    Rms,
}

/// A norm over the last axis, of either kind.
#[derive(Clone)]
#[non_exhaustive]
pub enum Norm {
    /// Layer normalisation.
    Layer(LayerNorm),
    /// RMS normalisation.
    Rms(RmsNorm),
}

impl std::fmt::Debug for Norm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Layer(norm) => write!(f, "{norm:?}"),
            Self::Rms(norm) => write!(f, "{norm:?}"),
        }
    }
}

impl Module for Norm {
    fn visit<'m>(&'m self, path: &str, f: &mut dyn FnMut(&str, &'m Parameter)) {
        match self {
            Self::Layer(norm) => norm.visit(path, f),
            Self::Rms(norm) => norm.visit(path, f),
        }
    }

    fn visit_mut(&mut self, path: &str, f: &mut dyn FnMut(&str, &mut Parameter)) {
        match self {
            Self::Layer(norm) => norm.visit_mut(path, f),
            Self::Rms(norm) => norm.visit_mut(path, f),
        }
    }
}

impl Norm {
    /// Creates a norm with weight one and bias zero.
    ///
    /// # Errors
    /// Same as [`Parameters::get`].
    pub fn init<'a>(norm: NormType, d_model: usize, eps: f32, p: impl Into<Parameters<'a>>) -> Result<Self> {
        Ok(match norm {
            NormType::Layer => Self::Layer(LayerNorm::init(d_model, eps, p)?),
            NormType::Rms => Self::Rms(RmsNorm::init(d_model, eps, p)?),
        })
    }

    /// Normalises `x`.
    ///
    /// # Shapes
    /// `x: […, d_model]` → `[…, d_model]`.
    ///
    /// # Errors
    /// [`Error::Shape`] if the shape of `x` does not match.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        match self {
            Self::Layer(norm) => norm.forward(x),
            Self::Rms(norm) => norm.forward(x),
        }
    }
}
