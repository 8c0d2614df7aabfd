//! A trainable tensor, and where its values come from.

use crate::error::{Error, Result};
use crate::random::Rng;
use crate::tensor::Tensor;

/// A tensor that a layer owns: trained, saved, loaded.
///
/// A clone is another parameter with the same values.
#[derive(Debug)]
pub struct Parameter {
    value: Tensor,
}

impl Parameter {
    /// A trainable parameter of these values.
    pub fn new(value: Tensor) -> Self {
        Self { value: value.watch() }
    }

    /// A parameter that stands for a tensor of the tape, so that a test can differentiate a layer by it.
    #[cfg(test)]
    pub(crate) fn from_tensor(value: Tensor) -> Self {
        Self { value }
    }

    /// The values, for an operation: a leaf of the tape if the parameter is trainable.
    pub fn tensor(&self) -> &Tensor {
        &self.value
    }

    /// The length of each axis.
    pub fn shape(&self) -> &[usize] {
        self.value.shape()
    }

    /// The number of elements.
    pub fn len(&self) -> usize {
        self.value.len()
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.value.is_empty()
    }

    /// The values, to be changed in place. The parameter keeps its identity, and so its gradients and moments.
    pub fn data_mut(&mut self) -> &mut [f32] {
        self.value.make_mut()
    }

    /// Other values of the same shape.
    ///
    /// # Errors
    /// [`Error::Shape`] if the shape differs.
    pub fn set(&mut self, value: &Tensor) -> Result<()> {
        if value.shape() != self.shape() {
            return Err(Error::shape("parameter", format!("{:?}", self.shape()), value.shape()));
        }
        let node = self.value.node.take();
        self.value = value.detach();
        self.value.node = node;
        Ok(())
    }

    /// Whether it gets a gradient.
    pub fn is_trainable(&self) -> bool {
        self.value.requires_grad()
    }

    /// Freezes the parameter (`false`) or lets it be trained (`true`).
    pub fn set_trainable(&mut self, trainable: bool) {
        if trainable != self.is_trainable() {
            self.value = if trainable { self.value.watch() } else { self.value.detach() };
        }
    }
}

impl Clone for Parameter {
    fn clone(&self) -> Self {
        let value = if self.is_trainable() { self.value.watch() } else { self.value.detach() };
        Self { value }
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
    /// Whatever keeps the source from giving one at all; a source that reads a file notes bad names and reports them together at
    /// the end.
    fn parameter(&mut self, path: &str, shape: &[usize], init: Init) -> Result<Parameter>;
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
    /// As for [`ParameterSource::parameter`].
    pub fn get(&mut self, name: &str, shape: &[usize], init: Init) -> Result<Parameter> {
        self.source.parameter(&join(&self.path, name), shape, init)
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
}
