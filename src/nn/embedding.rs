//! The embedding layer: one vector for each id.

use crate::error::{Error, Result};
use crate::nn::parameter::{Init, Parameter, Parameters};
use crate::ops;
use crate::ops::linear::{Layer, WeightLayout, multiply};
use crate::tensor::{IdTensor, Tensor};

/// A table of vectors, like `torch.nn.Embedding`.
///
/// ```
/// use loquat::{IdTensor, Rng, nn::Embedding};
///
/// let table = Embedding::init(10, 4, 1.0, &mut Rng::seed(1))?;
/// let vectors = table.forward(&IdTensor::batch(&[[3, 1, 3]])?)?;
/// assert_eq!(vectors.shape(), [1, 3, 4]);
/// assert_eq!(vectors.data()[..4], vectors.data()[8..]);
/// # Ok::<(), loquat::Error>(())
/// ```
#[derive(Clone)]
pub struct Embedding {
    /// `[vocab_size, d_model]`.
    pub weight: Parameter,
    /// The id used for padding, whose vector gets no gradient, if any.
    pub padding_idx: Option<u32>,
}

crate::module!(Embedding { weight; skip padding_idx });

impl std::fmt::Debug for Embedding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let padding = self.padding_idx.map_or(String::new(), |id| format!(", padding_idx={id}"));
        write!(f, "Embedding({:?}{padding}, {})", self.weight.shape(), self.weight.weight().format_name())
    }
}

impl Embedding {
    /// Creates a table of normal random numbers with standard deviation `std` (PyTorch's is 1).
    ///
    /// # Errors
    /// Same as [`Parameters::get`].
    pub fn init<'a>(vocab_size: usize, d_model: usize, std: f32, p: impl Into<Parameters<'a>>) -> Result<Self> {
        let weight = p.into().get_weight("weight", &[vocab_size, d_model], Init::Normal { std })?;
        Ok(Self { weight, padding_idx: None })
    }

    /// Same as [`Embedding::init`], with a vector of zeros for the padding id, like
    /// `torch.nn.Embedding(padding_idx=…)`. The vector gets no gradient and does not change. A
    /// table from a checkpoint keeps the checkpoint's vector.
    ///
    /// ```
    /// use loquat::{IdTensor, Rng, nn::Embedding};
    ///
    /// let table = Embedding::init_with_padding(5, 3, 1.0, 0, &mut Rng::seed(1))?;
    /// let y = table.forward(&IdTensor::sequence(&[4, 0]))?;
    /// assert_eq!(y.data()[3..], [0.0; 3]);
    /// let gradients = y.sum()?.backward()?;
    /// let dtable = gradients.of(table.weight.tensor()).expect("the table is trainable");
    /// assert_eq!((&dtable.data()[..3], &dtable.data()[12..]), (&[0.0; 3][..], &[1.0; 3][..]));
    /// # Ok::<(), loquat::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Id`] if `padding_idx` is not below `vocab_size`; also the errors of
    /// [`Parameters::get`].
    pub fn init_with_padding<'a>(
        vocab_size: usize,
        d_model: usize,
        std: f32,
        padding_idx: u32,
        p: impl Into<Parameters<'a>>,
    ) -> Result<Self> {
        if padding_idx as usize >= vocab_size {
            let id = u64::from(padding_idx);
            return Err(Error::Id { what: "padding_idx".into(), id, limit: vocab_size });
        }
        let mut p = p.into();
        let init = Init::NormalExceptRow { std, row: padding_idx as usize };
        let weight = p.get_weight("weight", &[vocab_size, d_model], init)?;
        Ok(Self { weight, padding_idx: Some(padding_idx) })
    }

    /// Returns the vectors of `ids`.
    ///
    /// # Shapes
    /// `ids: […]` → `[…, d_model]`.
    ///
    /// # Errors
    /// [`Error::Id`] if an id is not below `vocab_size`.
    pub fn forward(&self, ids: &IdTensor) -> Result<Tensor> {
        ops::embedding_with_padding(self.weight.weight(), ids, self.padding_idx)
    }

    /// Returns the logits of an output layer that shares this table: `x · tableᵀ`.
    ///
    /// # Shapes
    /// `x: […, d_model]` → `[…, vocab_size]`.
    ///
    /// # Errors
    /// [`Error::Shape`] if the shape of `x` does not match.
    pub fn logits(&self, x: &Tensor) -> Result<Tensor> {
        let table = Layer::new(self.weight.weight(), WeightLayout::OutIn);
        let [y] = multiply(x, [Layer { packed: self.weight.packed(), ..table }])?;
        Ok(y)
    }
}
