//! Loading a model's parameters from a checkpoint.

use std::collections::{BTreeMap, BTreeSet};

use super::{Checkpoint, OpenOptions, TensorView, WeightFormat};
use crate::error::{Error, LoadReport, MisShaped, Result};
use crate::nn::{Init, Module, Parameter, ParameterSource, Parameters};
use crate::tensor::{Tensor, Weight};

/// Maximum number of missing names, beyond the number of tensors in the checkpoint, before the
/// search stops.
const MOST_MISSING: usize = 1000;

type Ignored<'c> = Box<dyn Fn(&str) -> bool + 'c>;

/// A loader of a model's parameters from a [`Checkpoint`]. Missing, unexpected and mis-shaped
/// tensors are an error, which lists all of them.
///
/// Differences between the names in the model and in the file are declared before loading:
///
/// ```
/// use loquat::checkpoint::{Checkpoint, write_tensors};
/// use loquat::nn::{Linear, Module};
/// use loquat::{Rng, Tensor};
///
/// struct Model { linear: Linear }
/// loquat::module!(Model { linear });
///
/// let path = std::env::temp_dir().join("loquat-loader-doc.safetensors");
/// let (a, b) = (Tensor::zeros(&[1, 2]), Tensor::zeros(&[1]));
/// let tensors = [("base.dense.weight", &a), ("base.dense.bias", &b), ("base.steps", &b)];
/// write_tensors(&path, tensors, None)?;
///
/// let checkpoint = Checkpoint::open(&path)?;
/// let model = checkpoint
///     .loader()
///     .optional_prefix("base.")
///     .rename("linear", "dense")
///     .ignore(|name| name.ends_with("steps"))
///     .load(|mut p| Ok(Model { linear: Linear::init(2, 1, true, p.at("linear"))? }))?;
/// assert_eq!(model.parameter_count(), 3);
/// # std::fs::remove_file(path).ok();
/// # Ok::<(), loquat::Error>(())
/// ```
pub struct Loader<'c> {
    checkpoint: &'c Checkpoint,
    prefix: String,
    renamed: Vec<(String, String)>,
    tied: Vec<(String, String)>,
    ignored: Vec<Ignored<'c>>,
    weights: WeightFormat,
    packed: bool,
    used: BTreeSet<&'c str>,
    report: LoadReport,
}

impl<'c> Loader<'c> {
    pub(super) fn new(checkpoint: &'c Checkpoint) -> Self {
        Self {
            checkpoint,
            prefix: String::new(),
            renamed: Vec::new(),
            tied: Vec::new(),
            ignored: Vec::new(),
            weights: WeightFormat::default(),
            packed: true,
            used: BTreeSet::new(),
            report: LoadReport::default(),
        }
    }

    /// Declares a prefix of names, with its dot (`transformer.`), that may be present only in the
    /// model or only in the checkpoint.
    pub fn optional_prefix(self, prefix: &str) -> Self {
        Self { prefix: prefix.to_string(), ..self }
    }

    /// Declares that one or more segments of the model's paths (`ln.weight`) have another name in
    /// the checkpoint (`ln.gamma`), or are missing there.
    pub fn rename(mut self, model: &str, checkpoint: &str) -> Self {
        self.renamed.push((model.to_string(), checkpoint.to_string()));
        self
    }

    /// Declares that two names are the same tensor, of which the checkpoint may have either or
    /// both.
    pub fn tie(mut self, a: &str, b: &str) -> Self {
        self.tied.push((a.to_string(), b.to_string()));
        self
    }

    /// Declares names of the checkpoint that the model does not need.
    pub fn ignore(mut self, names: impl Fn(&str) -> bool + 'c) -> Self {
        self.ignored.push(Box::new(names));
        self
    }

    /// Sets the format of the weights of [`Loader::load`]. Default: [`WeightFormat::F32`].
    pub fn weights(self, weights: WeightFormat) -> Self {
        Self { weights, ..self }
    }

    /// Sets format and packing of the weights of [`Loader::load`].
    pub(crate) fn options(self, options: &OpenOptions) -> Self {
        Self { weights: options.weights, packed: options.packed, ..self }
    }

    /// Builds a model with `init`, the constructor of the model.
    ///
    /// # Errors
    /// [`Error::Load`] with every name that is missing, unexpected or mis-shaped; [`Error::Format`]
    /// for a parameter that is not floating-point, or for two different tensors under tied names;
    /// errors of `init`.
    pub fn load<M>(mut self, init: impl FnOnce(Parameters<'_>) -> Result<M>) -> Result<M> {
        let model = init(Parameters::from(&mut self));
        if model.is_err() && self.report.is_clean() {
            return model;
        }
        self.finish()?;
        model
    }

    /// Loads every parameter of an existing module.
    ///
    /// # Errors
    /// Same as [`Loader::load`]; the module is unchanged in that case.
    pub fn load_into(mut self, module: &mut (impl Module + ?Sized)) -> Result<()> {
        let mut values = BTreeMap::new();
        for (path, parameter) in module.parameters() {
            if let Some(view) = self.find_shaped(&path, parameter.shape()) {
                values.insert(path, view.to_tensor()?);
            }
        }
        self.finish()?;
        let mut result = Ok(());
        module.visit_mut("", &mut |path, parameter| {
            if let (Ok(()), Some(value)) = (&result, values.remove(path)) {
                result = parameter.set(&value);
            }
        });
        result
    }

    /// Finishes loading if [`Loader::load`] is not used. Call it after the last parameter.
    ///
    /// # Errors
    /// Same as [`Loader::load`].
    pub(crate) fn finish(mut self) -> Result<()> {
        for (a, b) in &self.tied {
            let (Some(a), Some(b)) = (self.find(a), self.find(b)) else { continue };
            if (a.dtype(), a.shape(), a.bytes()) != (b.dtype(), b.shape(), b.bytes()) {
                let reason =
                    format!("tensors `{}` and `{}`: expected equal tensors, found different ones", a.name(), b.name());
                return Err(Error::format(self.checkpoint.path(), reason));
            }
            if self.used.contains(a.name()) || self.used.contains(b.name()) {
                self.used.extend([a.name(), b.name()]);
            }
        }
        let needed = |name: &&str| !self.used.contains(name) && !self.ignored.iter().any(|ignored| ignored(name));
        self.report.unexpected = self.checkpoint.names().filter(needed).map(String::from).collect();
        if self.report.is_clean() { Ok(()) } else { Err(Error::Load(Box::new(self.report))) }
    }

    /// Returns the tensor with a name, with or without the optional prefix.
    fn find(&self, name: &str) -> Option<TensorView<'c>> {
        let checkpoint = self.checkpoint;
        let with = || checkpoint.tensor(&format!("{}{name}", self.prefix));
        let without = || checkpoint.tensor(name.strip_prefix(&self.prefix)?);
        checkpoint.tensor(name).or_else(with).or_else(without)
    }

    /// Returns the tensor of a parameter if it exists with this shape; otherwise adds the problem
    /// to the report.
    fn find_shaped(&mut self, path: &str, shape: &[usize]) -> Option<TensorView<'c>> {
        let mut name = path.to_string();
        for (ours, theirs) in &self.renamed {
            name = replace_segments(&name, ours, theirs);
        }
        let twin = |(a, b): &(String, String)| match () {
            () if *a == name => self.find(b),
            () if *b == name => self.find(a),
            () => None,
        };
        let Some(view) = self.find(&name).or_else(|| self.tied.iter().find_map(twin)) else {
            self.report.missing.push(name);
            return None;
        };
        self.used.insert(view.name());
        if view.shape() != shape {
            let (expected, found) = (shape.to_vec(), view.shape().to_vec());
            self.report.mis_shaped.push(MisShaped { name: view.name().to_string(), expected, found });
            return None;
        }
        Some(view)
    }

    fn get(&mut self, path: &str, shape: &[usize], format: WeightFormat) -> Result<Parameter> {
        // A configuration may specify any number of layers: stop before memory is full of missing
        // names.
        if self.report.missing.len() > self.checkpoint.len() + MOST_MISSING {
            return Err(Error::Load(Box::new(self.report.clone())));
        }
        let weight = match self.find_shaped(path, shape) {
            Some(view) => view.to_weight(format)?,
            None => Weight::F32(Tensor::zeros(&[0])),
        };
        Ok(match weight {
            Weight::F32(value) => Parameter::new(value),
            half => Parameter::constant(half),
        })
    }
}

/// A missing parameter is replaced by an empty one, so that a wrong configuration cannot allocate
/// memory; `Loader::finish` ensures that it is never used.
impl ParameterSource for Loader<'_> {
    fn parameter(&mut self, path: &str, shape: &[usize], _init: Init) -> Result<Parameter> {
        self.get(path, shape, WeightFormat::F32)
    }

    fn weight(&mut self, path: &str, shape: &[usize], _init: Init) -> Result<Parameter> {
        let mut parameter = self.get(path, shape, self.weights)?;
        if self.packed {
            parameter.keep_packed_while_mapped();
        }
        Ok(parameter)
    }
}

/// Replaces `from` by `to` where it is delimited by dots or the ends of the path.
fn replace_segments(path: &str, from: &str, to: &str) -> String {
    let segments: Vec<&str> = path.split('.').collect();
    let from: Vec<&str> = from.split('.').collect();
    let mut replaced = Vec::new();
    let mut rest = segments.as_slice();
    while let Some((&first, behind)) = rest.split_first() {
        if let Some(behind) = rest.strip_prefix(from.as_slice()) {
            replaced.extend((!to.is_empty()).then_some(to));
            rest = behind;
        } else {
            replaced.push(first);
            rest = behind;
        }
    }
    replaced.join(".")
}

#[cfg(test)]
mod tests {
    use super::replace_segments;

    #[test]
    fn segments_are_replaced_whole() {
        let cases = [
            ("h.0.ln.weight", "ln.weight", "ln.gamma", "h.0.ln.gamma"),
            ("h.0.ln.weight", "n.weight", "x", "h.0.ln.weight"),
            ("h.0.h", "h", "layer", "layer.0.layer"),
            ("wte", "wte", "embed.tokens", "embed.tokens"),
            ("a.b", "a.b.c", "x", "a.b"),
            ("model.a", "model", "", "a"),
        ];
        for (path, from, to, expected) in cases {
            assert_eq!(replace_segments(path, from, to), expected);
        }
    }
}
