//! A trainable tensor, and where its values come from.

use std::sync::OnceLock;

use crate::error::{Error, Result};
use crate::kernels::simd::check_environment;
use crate::ops::packed_weight::PackedWeight;
use crate::random::Rng;
use crate::tensor::{Tensor, Weight};

/// A tensor that a layer owns: trained, saved, loaded.
///
/// It may be in half precision ([`Parameter::is_half`]): then it is a constant, which products and
/// look-ups read as it is. Whatever else asks for its [`tensor`](Parameter::tensor) gets a copy in
/// 32 bits.
///
/// A clone is another parameter with the same values.
pub struct Parameter {
    weight: Weight,
    /// The copy in 32 bits of a half weight, if it was ever asked for.
    in_f32: OnceLock<Tensor>,
    packed: Option<Box<PackedWeight>>,
}

impl std::fmt::Debug for Parameter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let frozen = if self.weight.is_f32() && !self.is_trainable() { ", frozen" } else { "" };
        write!(f, "Parameter({:?}, {}{frozen})", self.shape(), self.weight.format_name())
    }
}

impl Parameter {
    /// A trainable parameter of these values.
    pub fn new(value: Tensor) -> Self {
        Self::constant(value.watch())
    }

    /// A parameter that is not trained, in any format.
    pub fn constant(weight: impl Into<Weight>) -> Self {
        Self { weight: weight.into(), in_f32: OnceLock::new(), packed: None }
    }

    /// A parameter that stands for a tensor of the tape, so that a test can differentiate a layer
    /// by it.
    #[cfg(test)]
    pub(crate) fn from_tensor(value: Tensor) -> Self {
        Self::constant(value)
    }

    /// The values, for an operation: a leaf of the tape if the parameter is trainable.
    ///
    /// Of a half-precision parameter this is a copy, made at the first call and kept as long as the
    /// parameter: three times the memory from then on. Products and look-ups take
    /// [`Parameter::weight`] instead.
    pub fn tensor(&self) -> &Tensor {
        match &self.weight {
            Weight::F32(value) => value,
            half => self.in_f32.get_or_init(|| half.to_tensor()),
        }
    }

    /// The values as they are stored, for a product or a look-up.
    pub fn weight(&self) -> &Weight {
        &self.weight
    }

    /// Whether products keep a copy of the values in the order in which they read them: see
    /// [`Module::keep_packed`](super::Module::keep_packed).
    pub fn keep_packed(&mut self, keep: bool) {
        self.packed = keep.then(|| Box::new(PackedWeight::new()));
    }

    /// As [`Parameter::keep_packed`], if the values lie in a mapped file, and as long as they do:
    /// then the copy takes the place of the file's pages in memory. The weights of a file are
    /// packed in turn, in its order.
    pub(crate) fn keep_packed_while_mapped(&mut self) {
        if let Some(packed) = PackedWeight::while_mapped(&self.weight) {
            self.packed = Some(Box::new(packed));
        }
    }

    /// The copies that products read instead of the values, if they are kept.
    pub(crate) fn packed(&self) -> Option<&PackedWeight> {
        self.packed.as_deref()
    }

    /// Forgets copies of values that change.
    fn unpack(&mut self) {
        let keep = self.packed.as_ref().is_some_and(|packed| !packed.is_while_mapped());
        self.keep_packed(keep);
    }

    /// Whether the values have 16 bits.
    pub fn is_half(&self) -> bool {
        self.weight.is_half()
    }

    /// The length of each axis.
    pub fn shape(&self) -> &[usize] {
        self.weight.shape()
    }

    /// The number of elements.
    pub fn len(&self) -> usize {
        self.weight.len()
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.weight.is_empty()
    }

    /// The values in 32 bits for good.
    fn value_mut(&mut self) -> &mut Tensor {
        self.unpack();
        if !self.weight.is_f32() {
            self.weight = Weight::F32(self.in_f32.take().unwrap_or_else(|| self.weight.to_tensor()));
        }
        match &mut self.weight {
            Weight::F32(value) => value,
            _ => unreachable!("converted above"),
        }
    }

    /// The values, to be changed in place. The parameter keeps its identity, and so its gradients
    /// and moments. One in half precision becomes one in 32 bits.
    pub fn data_mut(&mut self) -> &mut [f32] {
        self.value_mut().make_mut()
    }

    /// Other values of the same shape, in 32 bits.
    ///
    /// # Errors
    /// [`Error::Shape`] if the shape differs.
    pub fn set(&mut self, value: &Tensor) -> Result<()> {
        self.check_shape(value.shape())?;
        let node = match &mut self.weight {
            Weight::F32(old) => old.node.take(),
            _ => None,
        };
        let mut value = value.detach();
        value.node = node;
        (self.weight, self.in_f32) = (Weight::F32(value), OnceLock::new());
        self.unpack();
        Ok(())
    }

    /// Other values of the same shape, in any format. In half precision they are not trainable.
    ///
    /// # Errors
    /// [`Error::Shape`] if the shape differs.
    pub fn set_weight(&mut self, weight: &Weight) -> Result<()> {
        if let Weight::F32(value) = weight {
            return self.set(value);
        }
        self.check_shape(weight.shape())?;
        (self.weight, self.in_f32) = (weight.clone(), OnceLock::new());
        self.unpack();
        Ok(())
    }

    fn check_shape(&self, shape: &[usize]) -> Result<()> {
        if shape == self.shape() {
            return Ok(());
        }
        Err(Error::shape("parameter", format!("{:?}", self.shape()), shape))
    }

    /// Whether it gets a gradient.
    pub fn is_trainable(&self) -> bool {
        matches!(&self.weight, Weight::F32(value) if value.requires_grad())
    }

    /// Freezes the parameter (`false`) or lets it be trained (`true`); what is trained has 32 bits
    /// from then on.
    pub fn set_trainable(&mut self, trainable: bool) {
        if trainable != self.is_trainable() {
            let value = self.value_mut();
            *value = if trainable { value.watch() } else { value.detach() };
        }
    }
}

impl Clone for Parameter {
    fn clone(&self) -> Self {
        let mut clone = match &self.weight {
            Weight::F32(value) if self.is_trainable() => Self::new(value.clone()),
            weight => Self::constant(weight.detach()),
        };
        match &self.packed {
            Some(packed) if packed.is_while_mapped() => clone.keep_packed_while_mapped(),
            packed => clone.keep_packed(packed.is_some()),
        }
        clone
    }
}

/// The distribution that a fresh parameter is drawn from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Init {
    /// All zero.
    Zeros,
    /// All one.
    Ones,
    /// Normal, mean 0.
    Normal {
        /// Standard deviation.
        std: f32,
    },
    /// Normal, mean 0, but for one row of zeros.
    NormalButRow {
        /// Standard deviation.
        std: f32,
        /// The place along the first axis of what is zero.
        row: usize,
    },
    /// Uniform in `[-bound, bound)`.
    Uniform {
        /// The largest magnitude.
        bound: f32,
    },
}

/// Gives a layer that is being built its parameters, by path.
pub trait ParameterSource {
    /// The parameter `path` (dotted, for example `h.0.attn.c_attn.weight`) of `shape`.
    ///
    /// # Errors
    /// Whatever keeps the source from giving one at all; a source that reads a file notes bad names
    /// and reports them together at the end.
    fn parameter(&mut self, path: &str, shape: &[usize], init: Init) -> Result<Parameter>;

    /// As [`ParameterSource::parameter`], for a factor of products or a table of vectors: it may
    /// come in half precision.
    ///
    /// # Errors
    /// As there.
    fn weight(&mut self, path: &str, shape: &[usize], init: Init) -> Result<Parameter> {
        self.parameter(path, shape, init)
    }
}

/// Random values.
impl ParameterSource for Rng {
    fn parameter(&mut self, path: &str, shape: &[usize], init: Init) -> Result<Parameter> {
        let bytes = shape.iter().try_fold(4usize, |len, &d| len.checked_mul(d)).filter(|&b| b <= isize::MAX as usize);
        if bytes.is_none() {
            return Err(Error::shape(format!("parameter `{path}`"), "one that fits the memory", shape));
        }
        Ok(Parameter::new(match init {
            Init::Zeros => Tensor::zeros(shape),
            Init::Ones => Tensor::full(shape, 1.0),
            Init::Normal { std } => Tensor::normal(shape, std, self),
            Init::NormalButRow { std, row } => {
                let mut x = Tensor::normal(shape, std, self);
                let width = x.len() / shape.first().copied().unwrap_or(1).max(1);
                let zeros = row.saturating_mul(width)..row.saturating_add(1).saturating_mul(width);
                if let Some(row) = x.make_mut().get_mut(zeros) {
                    row.fill(0.0);
                }
                x
            }
            Init::Uniform { bound } => Tensor::uniform(shape, -bound, bound, self),
        }))
    }
}

/// A cursor into the names of a [`ParameterSource`].
///
/// ```
/// use loquat::{Rng, nn::{Init, Parameters}};
///
/// let mut rng = Rng::seed(1);
/// let mut p = Parameters::from(&mut rng);
/// let weight = p.at("h").at("0").get("weight", &[3, 2], Init::Normal { std: 0.02 })?; // `h.0.weight`
/// assert_eq!(weight.shape(), [3, 2]);
/// # Ok::<(), loquat::Error>(())
/// ```
pub struct Parameters<'a> {
    path: String,
    source: &'a mut dyn ParameterSource,
}

impl<'a, S: ParameterSource> From<&'a mut S> for Parameters<'a> {
    fn from(source: &'a mut S) -> Self {
        Self { path: String::new(), source }
    }
}

impl Parameters<'_> {
    /// The cursor one name further down; an empty name stays here.
    pub fn at(&mut self, name: impl std::fmt::Display) -> Parameters<'_> {
        Parameters { path: join(&self.path, name), source: self.source }
    }

    /// The parameter `name` below this path.
    ///
    /// # Errors
    /// Same as [`ParameterSource::parameter`]; also if the environment variable `LOQUAT_ISA` names
    /// an instruction set that there is not.
    pub fn get(&mut self, name: &str, shape: &[usize], init: Init) -> Result<Parameter> {
        check_environment()?;
        self.source.parameter(&join(&self.path, name), shape, init)
    }

    /// As [`Parameters::get`], for a parameter that is only used through [`Parameter::weight`]: it
    /// may come in half precision.
    ///
    /// # Errors
    /// Same as [`ParameterSource::weight`] and [`Parameters::get`].
    pub fn get_weight(&mut self, name: &str, shape: &[usize], init: Init) -> Result<Parameter> {
        check_environment()?;
        self.source.weight(&join(&self.path, name), shape, init)
    }
}

/// `path.name`; `name` at the root, and `path` for an empty name.
pub(crate) fn join(path: &str, name: impl std::fmt::Display) -> String {
    let name = name.to_string();
    match (path, name.as_str()) {
        ("", _) => name,
        (_, "") => path.to_string(),
        _ => format!("{path}.{name}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clone_is_another_parameter() {
        let a = Parameter::new(Tensor::full(&[2], 3.0));
        let b = a.clone();
        let gradients = a.tensor().mul(a.tensor()).unwrap().sum().unwrap().backward().unwrap();
        assert!(gradients.of(a.tensor()).is_some() && gradients.of(b.tensor()).is_none());
    }

    #[test]
    fn new_values_keep_the_identity_and_a_frozen_parameter_gets_no_gradient() {
        let mut a = Parameter::new(Tensor::full(&[2], 3.0));
        let gradients = a.tensor().sum().unwrap().backward().unwrap();
        a.set(&Tensor::zeros(&[2])).unwrap();
        a.data_mut()[0] = 1.0;
        assert!(gradients.of(a.tensor()).is_some());
        assert!(a.set(&Tensor::zeros(&[3])).is_err());
        a.set_trainable(false);
        assert!(a.tensor().sum().unwrap().backward().is_err());
    }

    #[test]
    fn a_half_parameter_is_constant_until_it_is_trained() {
        let half = Weight::from(Tensor::full(&[2, 3], 1.5)).to_bf16();
        let mut a = Parameter::constant(half.clone());
        assert!(a.is_half() && !a.is_trainable() && !a.tensor().requires_grad());
        assert!(std::ptr::eq(a.tensor(), a.tensor()), "converted once");
        a.set_trainable(false);
        assert!(a.is_half() && a.clone().is_half());
        a.set_trainable(true);
        assert!(!a.is_half() && a.is_trainable());
        assert_eq!(a.tensor().to_vec(), [1.5; 6]);
        a.set_weight(&half).unwrap();
        assert!(a.is_half());
        a.data_mut()[0] = 2.0;
        assert_eq!((a.is_half(), a.is_trainable(), a.tensor().data()[0]), (false, false, 2.0));
        assert!(a.set_weight(&Weight::from(Tensor::zeros(&[3])).to_f16()).is_err());
    }
}
