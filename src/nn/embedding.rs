//! A vector for each id.

use crate::error::Result;
use crate::nn::parameter::{Init, Parameter, Parameters};
use crate::ops;
use crate::ops::linear::{Layer, WeightLayout, linear_of};
use crate::tensor::{IdTensor, Tensor};

/// A table of vectors, as `torch.nn.Embedding`.
#[derive(Clone, Debug)]
pub struct Embedding {
    /// `[vocab_size, d_model]`.
    pub weight: Parameter,
}

crate::module!(Embedding { weight });

impl Embedding {
    /// A table of normal numbers of standard deviation `std` (PyTorch's is 1).
    ///
    /// # Errors
    /// As for [`Parameters::get`].
    pub fn init<'a>(vocab_size: usize, d_model: usize, std: f32, p: impl Into<Parameters<'a>>) -> Result<Self> {
        Ok(Self { weight: p.into().get_weight("weight", &[vocab_size, d_model], Init::Normal { std })? })
    }

    /// # Shapes
    /// `ids: […]` → `[…, d_model]`.
    ///
    /// # Errors
    /// [`Error::Id`](crate::Error::Id) if an id has no row.
    pub fn forward(&self, ids: &IdTensor) -> Result<Tensor> {
        ops::embedding(self.weight.weight(), ids)
    }

    /// The logits of a head that shares this table: `x · tableᵀ`.
    ///
    /// # Shapes
    /// `x: […, d_model]` → `[…, vocab_size]`.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) if `x` does not fit.
    pub fn logits(&self, x: &Tensor) -> Result<Tensor> {
        let packed = |layout, precision, rows| self.weight.packed(layout, precision, rows);
        let weight = self.weight.weight();
        linear_of(x, Layer { weight, packed, bias: None, layout: WeightLayout::OutIn, activation: None }, None)
    }
}
