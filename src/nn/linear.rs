//! `y = x·Wᵀ + b`.

use crate::error::Result;
use crate::nn::parameter::{Init, Parameter, Parameters};
use crate::ops;
use crate::ops::Activation;
use crate::ops::matmul::WeightLayout;
use crate::tensor::Tensor;

/// A linear layer, as `torch.nn.Linear`.
///
/// ```
/// use loquat::{Rng, Tensor, nn::Linear};
///
/// let layer = Linear::init(3, 2, true, &mut Rng::seed(1))?;
/// assert_eq!(layer.forward(&Tensor::zeros(&[4, 5, 3]))?.shape(), [4, 5, 2]);
/// # Ok::<(), loquat::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Linear {
    /// `[out_features, in_features]`, or the other way round in [`WeightLayout::InOut`].
    pub weight: Parameter,
    /// `[out_features]`.
    pub bias: Option<Parameter>,
    /// How `weight` is stored.
    pub layout: WeightLayout,
}

crate::module!(Linear { weight, bias });

impl Linear {
    /// A layer with PyTorch's initial values: weight and bias uniform within `1/√in_features`.
    ///
    /// # Errors
    /// As for [`Parameters::get`].
    pub fn init<'a>(n_in: usize, n_out: usize, bias: bool, p: impl Into<Parameters<'a>>) -> Result<Self> {
        let bound = Init::Uniform { bound: 1.0 / (n_in.max(1) as f32).sqrt() };
        Self::init_with(n_in, n_out, WeightLayout::OutIn, bound, bias.then_some(bound), p)
    }

    /// A layer with initial values of choice; `bias` is `None` for a layer without one.
    ///
    /// # Errors
    /// As for [`Parameters::get`].
    pub fn init_with<'a>(
        n_in: usize,
        n_out: usize,
        layout: WeightLayout,
        weight: Init,
        bias: Option<Init>,
        p: impl Into<Parameters<'a>>,
    ) -> Result<Self> {
        let mut p = p.into();
        let shape = match layout {
            WeightLayout::OutIn => [n_out, n_in],
            WeightLayout::InOut => [n_in, n_out],
        };
        let weight = p.get_weight("weight", &shape, weight)?;
        let bias = bias.map(|init| p.get("bias", &[n_out], init)).transpose()?;
        Ok(Self { weight, bias, layout })
    }

    /// # Shapes
    /// `x: […, in_features]` → `[…, out_features]`.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) if `x` does not fit.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        ops::linear(x, self.weight.weight(), self.bias.as_ref().map(Parameter::tensor), self.layout)
    }

    /// As [`Linear::forward`], then an activation, then a sum with `residual`: in one pass where no gradient is wanted, with the bits of
    /// one after the other.
    ///
    /// # Shapes
    /// As there; `residual` as the result.
    ///
    /// # Errors
    /// As there.
    pub fn forward_then(
        &self,
        x: &Tensor,
        activation: Option<Activation>,
        residual: Option<&Tensor>,
    ) -> Result<Tensor> {
        let bias = self.bias.as_ref().map(Parameter::tensor);
        ops::linear_then(x, self.weight.weight(), bias, self.layout, activation, residual)
    }
}
