//! Trainable tensors, and the sources of their values.

use std::sync::OnceLock;

use crate::error::{Error, Result};
use crate::kernels::simd::check_environment;
use crate::ops::packed_weight::PackedWeight;
use crate::random::Rng;
use crate::tensor::{Tensor, Weight};

/// A tensor that belongs to a layer: trained, saved, loaded.
///
/// A parameter in half precision or in blocks is constant; products and look-ups read it as it is
/// stored. [`Parameter::tensor`] returns a copy in f32.
///
/// A clone is an independent parameter with the same values.
///
/// ```
/// use loquat::{Tensor, nn::Parameter};
///
/// let mut w = Parameter::new(Tensor::scalar(2.0));
/// let loss = w.tensor().mul(w.tensor())?;
/// let gradients = loss.backward()?;
/// let dw = gradients.of(w.tensor()).expect("the loss depends on it").item()?;
/// w.data_mut()[0] -= 0.1 * dw; // a step of gradient descent
/// assert!((w.tensor().item()? - 1.6).abs() < 1e-6);
/// # Ok::<(), loquat::Error>(())
/// ```
pub struct Parameter {
    weight: Weight,
    /// The f32 copy of a weight in another format, if it was requested.
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
    /// Creates a trainable parameter with the given values.
    pub fn new(value: Tensor) -> Self {
        Self::constant(value.watch())
    }

    /// Creates a parameter that is not trained, in any format.
    pub fn constant(weight: impl Into<Weight>) -> Self {
        Self { weight: weight.into(), in_f32: OnceLock::new(), packed: None }
    }

    /// Wraps a tensor of the tape, so that a test can differentiate a layer with respect to it.
    #[cfg(test)]
    pub(crate) fn from_tensor(value: Tensor) -> Self {
        Self::constant(value)
    }

    /// Returns the values, for an operation; a leaf of the tape if the parameter is trainable.
    ///
    /// For a parameter that is not in f32 this is a copy, made at the first call and kept as long
    /// as the parameter: a parameter in half precision then takes three times the memory. Products
    /// and look-ups use [`Parameter::weight`] instead.
    pub fn tensor(&self) -> &Tensor {
        match &self.weight {
            Weight::F32(value) => value,
            half => self.in_f32.get_or_init(|| half.to_tensor()),
        }
    }

    /// Returns the values as they are stored, for a product or a look-up.
    pub fn weight(&self) -> &Weight {
        &self.weight
    }

    /// Sets whether products keep a packed copy of the values: see
    /// [`Module::keep_packed`](super::Module::keep_packed).
    pub fn keep_packed(&mut self, keep: bool) {
        self.packed = keep.then(|| Box::new(PackedWeight::new()));
    }

    /// Same as [`Parameter::keep_packed`], but only while the values are in a mapped file: the copy
    /// takes the place of the file's pages in memory. The weights of a file are packed one after
    /// another, in the order of the file.
    pub(crate) fn keep_packed_while_mapped(&mut self) {
        if let Some(packed) = PackedWeight::while_mapped(&self.weight) {
            self.packed = Some(Box::new(packed));
        }
    }

    /// Returns the packed copies for products, if they are kept.
    pub(crate) fn packed(&self) -> Option<&PackedWeight> {
        self.packed.as_deref()
    }

    /// Drops copies of values that are about to change.
    fn unpack(&mut self) {
        let keep = self.packed.as_ref().is_some_and(|packed| !packed.is_while_mapped());
        self.keep_packed(keep);
    }

    /// Returns whether the values have 16 bits.
    pub fn is_half(&self) -> bool {
        self.weight.is_half()
    }

    /// Returns the length of each axis.
    pub fn shape(&self) -> &[usize] {
        self.weight.shape()
    }

    /// Returns the number of elements.
    pub fn len(&self) -> usize {
        self.weight.len()
    }

    /// Returns whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.weight.is_empty()
    }

    /// Converts the values to f32 permanently, and returns them.
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

    /// Returns the values for a change in place. The parameter keeps its identity, and thus its
    /// gradients and optimizer state. A parameter in another format is converted to f32.
    pub fn data_mut(&mut self) -> &mut [f32] {
        self.value_mut().make_mut()
    }

    /// Replaces the values by others of the same shape, in f32.
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

    /// Replaces the values by others of the same shape, in any format. Only f32 values stay
    /// trainable.
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

    /// Returns whether the parameter gets a gradient.
    pub fn is_trainable(&self) -> bool {
        matches!(&self.weight, Weight::F32(value) if value.requires_grad())
    }

    /// Makes the parameter trainable (`true`) or freezes it (`false`). A parameter that becomes
    /// trainable is converted to f32.
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

/// The initial distribution of a parameter.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Init {
    /// All zeros.
    Zeros,
    /// All ones.
    Ones,
    /// Normal with mean 0.
    Normal {
        /// Standard deviation.
        std: f32,
    },
    /// Normal with mean 0, except for one row of zeros.
    NormalExceptRow {
        /// Standard deviation.
        std: f32,
        /// The index of the row along the first axis.
        row: usize,
    },
    /// Uniform in `[-bound, bound)`.
    Uniform {
        /// The largest magnitude.
        bound: f32,
    },
}

/// A source of the parameters of a layer that is being built, by path.
pub trait ParameterSource {
    /// Returns the parameter `path` (dotted, for example `h.0.attn.c_attn.weight`) of `shape`.
    ///
    /// # Errors
    /// If the source cannot provide a parameter at all. A source that reads a file collects bad
    /// names and reports them together at the end.
    fn parameter(&mut self, path: &str, shape: &[usize], init: Init) -> Result<Parameter>;

    /// Same as [`ParameterSource::parameter`], for a factor of products or a table of vectors,
    /// which may be in half precision or in blocks.
    ///
    /// # Errors
    /// Same as [`ParameterSource::parameter`].
    fn weight(&mut self, path: &str, shape: &[usize], init: Init) -> Result<Parameter> {
        self.parameter(path, shape, init)
    }
}

/// Random initial values.
impl ParameterSource for Rng {
    fn parameter(&mut self, path: &str, shape: &[usize], init: Init) -> Result<Parameter> {
        let bytes = shape.iter().try_fold(4usize, |len, &d| len.checked_mul(d)).filter(|&b| b <= isize::MAX as usize);
        if bytes.is_none() {
            return Err(Error::shape(format!("parameter `{path}`"), "one that fits into memory", shape));
        }
        Ok(Parameter::new(match init {
            Init::Zeros => Tensor::zeros(shape),
            Init::Ones => Tensor::full(shape, 1.0),
            Init::Normal { std } => Tensor::normal(shape, std, self),
            Init::NormalExceptRow { std, row } => {
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
/// let normal = Init::Normal { std: 0.02 };
/// let weight = p.at("h").at("0").get("weight", &[3, 2], normal)?; // `h.0.weight`
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
    /// Returns the cursor one level below, at `name`; an empty name stays at the same level.
    pub fn at(&mut self, name: impl std::fmt::Display) -> Parameters<'_> {
        Parameters { path: join(&self.path, name), source: self.source }
    }

    /// Returns the parameter `name` below this path.
    ///
    /// # Errors
    /// Same as [`ParameterSource::parameter`]; also if the environment variable `LOQUAT_ISA` is not
    /// the name of a supported instruction set.
    pub fn get(&mut self, name: &str, shape: &[usize], init: Init) -> Result<Parameter> {
        check_environment()?;
        self.source.parameter(&join(&self.path, name), shape, init)
    }

    /// Same as [`Parameters::get`], for a parameter that is used only through
    /// [`Parameter::weight`]: it may be in half precision or in blocks.
    ///
    /// # Errors
    /// Same as [`ParameterSource::weight`] and [`Parameters::get`].
    pub fn get_weight(&mut self, name: &str, shape: &[usize], init: Init) -> Result<Parameter> {
        check_environment()?;
        self.source.weight(&join(&self.path, name), shape, init)
    }
}

/// Returns `path.name`; `name` at the root, and `path` for an empty name.
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
