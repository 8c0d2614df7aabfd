//! Normalisation layers over the last axis.

use crate::error::Result;
use crate::nn::parameter::{Init, Parameter, Parameters};
use crate::ops;
use crate::tensor::Tensor;

/// Layer normalisation (Ba, Kiros, Hinton 2016), as `torch.nn.LayerNorm` over the last axis.
#[derive(Clone, Debug)]
pub struct LayerNorm {
    /// `[d_model]`, initially one.
    pub weight: Parameter,
    /// `[d_model]`, initially zero.
    pub bias: Option<Parameter>,
    /// Added to the variance.
    pub eps: f32,
}

crate::module!(LayerNorm { weight, bias; skip eps });

impl LayerNorm {
    /// The identity but for the normalisation.
    ///
    /// # Errors
    /// As for [`Parameters::get`].
    pub fn init<'a>(d_model: usize, eps: f32, p: impl Into<Parameters<'a>>) -> Result<Self> {
        let mut p = p.into();
        let weight = p.get("weight", &[d_model], Init::Ones)?;
        Ok(Self { weight, bias: Some(p.get("bias", &[d_model], Init::Zeros)?), eps })
    }

    /// # Shapes
    /// `x: […, d_model]`, and so the result.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) if `x` does not fit.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        ops::layer_norm(x, self.weight.tensor(), self.bias.as_ref().map(Parameter::tensor), self.eps)
    }
}

/// RMS normalisation (Zhang, Sennrich 2019), as `torch.nn.RMSNorm` over the last axis.
#[derive(Clone, Debug)]
pub struct RmsNorm {
    /// `[d_model]`, initially one.
    pub weight: Parameter,
    /// Added to the mean square.
    pub eps: f32,
}

crate::module!(RmsNorm { weight; skip eps });

impl RmsNorm {
    /// The identity but for the normalisation.
    ///
    /// # Errors
    /// As for [`Parameters::get`].
    pub fn init<'a>(d_model: usize, eps: f32, p: impl Into<Parameters<'a>>) -> Result<Self> {
        Ok(Self { weight: p.into().get("weight", &[d_model], Init::Ones)?, eps })
    }

    /// # Shapes
    /// `x: […, d_model]`, and so the result.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) if `x` does not fit.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        ops::rms_norm(x, self.weight.tensor(), self.eps)
    }
}
