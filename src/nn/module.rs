//! The [`Module`] trait: visiting the parameters of a layer or model by path, as optimizers and
//! checkpoints do.

use crate::error::Result;
use crate::nn::parameter::{Parameter, join};
use crate::nn::summary::Summary;
use crate::tensor::Gradients;

/// A layer or model that owns parameters. Implement it with [`module!`](crate::module).
///
/// ```
/// use loquat::Rng;
/// use loquat::nn::{Linear, Module};
///
/// let mut layer = Linear::init(3, 2, true, &mut Rng::seed(1))?;
/// let paths: Vec<String> = layer.parameters().into_iter().map(|(path, _)| path).collect();
/// assert_eq!(paths, ["weight", "bias"]);
/// assert_eq!(layer.parameter_count(), 8);
/// layer.set_trainable(false, |path| path == "bias");
/// assert!(!layer.bias.is_some_and(|bias| bias.is_trainable()));
/// # Ok::<(), loquat::Error>(())
/// ```
pub trait Module {
    /// Calls `f` with each parameter and its path below `path`, in the order of the fields.
    fn visit<'m>(&'m self, path: &str, f: &mut dyn FnMut(&str, &'m Parameter));

    /// Same as [`Module::visit`], with mutable parameters.
    fn visit_mut(&mut self, path: &str, f: &mut dyn FnMut(&str, &mut Parameter));

    /// Returns all parameters with their paths.
    fn parameters(&self) -> Vec<(String, &Parameter)> {
        let mut all = Vec::new();
        self.visit("", &mut |path, parameter| all.push((path.to_string(), parameter)));
        all
    }

    /// Returns the number of elements in all parameters.
    fn parameter_count(&self) -> usize {
        self.parameters().iter().map(|(_, p)| p.len()).sum()
    }

    /// Returns a table of the parameters. `Display` of a model prints the same table; `Debug` of a
    /// layer or model is one short line.
    ///
    /// ```
    /// use loquat::nn::{Linear, Module};
    /// use loquat::Rng;
    ///
    /// let layer = Linear::init(768, 3072, true, &mut Rng::seed(1))?;
    /// assert_eq!(format!("{layer:?}"), "Linear(768 -> 3072, bias, f32)");
    /// let table = layer.summary().to_string();
    /// assert_eq!(table.lines().nth(2), Some("weight      [3072, 768]  f32      2,359,296"));
    /// # Ok::<(), loquat::Error>(())
    /// ```
    fn summary(&self) -> Summary {
        Summary::new(&self.parameters())
    }

    /// Makes every parameter whose path `select` accepts trainable (`true`) or freezes it
    /// (`false`).
    fn set_trainable(&mut self, trainable: bool, select: impl Fn(&str) -> bool)
    where
        Self: Sized,
    {
        self.visit_mut("", &mut |path, parameter| {
            if select(path) {
                parameter.set_trainable(trainable);
            }
        });
    }

    /// Sets whether products of linear layers and output layers keep a packed copy of each weight,
    /// in the order in which they read it. The copy is made by the second product outside of
    /// training. Prompts and texts are processed faster, since the weight is not packed again in
    /// each product; decoding is faster, since it reads contiguous memory in large pages. A copy
    /// takes as much memory as the weight, or half as much for f32 weights that are multiplied in
    /// [`Precision::Bf16`](crate::ops::Precision); no copy is made that would leave less than an
    /// eighth of the machine's memory free. The results have the same bits. A parameter that
    /// changes drops its copy; `false` drops all copies.
    ///
    /// Weights in a mapped file are packed by default
    /// ([`OpenOptions`](crate::checkpoint::OpenOptions)): there the copy takes the place of the
    /// file's pages in memory.
    fn keep_packed(&mut self, keep: bool) {
        self.visit_mut("", &mut |_, parameter| parameter.keep_packed(keep && parameter.shape().len() == 2));
    }

    /// Returns the paths of trainable parameters that have no gradient in `gradients`: parts of the
    /// model that the loss does not depend on.
    fn without_gradient(&self, gradients: &Gradients) -> Vec<String> {
        let missing = |p: &Parameter| p.is_trainable() && gradients.of(p.tensor()).is_none();
        self.parameters().into_iter().filter(|(_, p)| missing(p)).map(|(path, _)| path).collect()
    }

    /// Copies the values of another module that has the same paths and shapes.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) if they differ.
    fn copy_from(&mut self, other: &Self) -> Result<()>
    where
        Self: Sized,
    {
        let mut theirs = other.parameters().into_iter();
        let mut result = Ok(());
        self.visit_mut("", &mut |_, parameter| {
            if let (Ok(()), Some((_, value))) = (&result, theirs.next()) {
                result = parameter.set_weight(value.weight());
            }
        });
        result
    }
}

impl Module for Parameter {
    fn visit<'m>(&'m self, path: &str, f: &mut dyn FnMut(&str, &'m Parameter)) {
        f(path, self);
    }

    fn visit_mut(&mut self, path: &str, f: &mut dyn FnMut(&str, &mut Parameter)) {
        f(path, self);
    }
}

impl<M: Module> Module for Option<M> {
    fn visit<'m>(&'m self, path: &str, f: &mut dyn FnMut(&str, &'m Parameter)) {
        self.iter().for_each(|module| module.visit(path, f));
    }

    fn visit_mut(&mut self, path: &str, f: &mut dyn FnMut(&str, &mut Parameter)) {
        self.iter_mut().for_each(|module| module.visit_mut(path, f));
    }
}

impl<M: Module> Module for Vec<M> {
    fn visit<'m>(&'m self, path: &str, f: &mut dyn FnMut(&str, &'m Parameter)) {
        self.iter().enumerate().for_each(|(i, module)| module.visit(&join(path, i), f));
    }

    fn visit_mut(&mut self, path: &str, f: &mut dyn FnMut(&str, &mut Parameter)) {
        self.iter_mut().enumerate().for_each(|(i, module)| module.visit_mut(&join(path, i), f));
    }
}

/// Implements [`Module`](crate::nn::Module) for a struct: lists the fields that hold parameters or
/// other modules, and after `; skip` the remaining fields. Every field must be in one of the two
/// lists, so that none can be forgotten.
///
/// ```
/// use loquat::nn::{Linear, Module};
/// use loquat::Rng;
///
/// struct Mlp { up: Linear, down: Linear, width: usize }
/// loquat::module!(Mlp { up, down; skip width });
///
/// let mut rng = Rng::seed(0);
/// let up = Linear::init(2, 8, true, &mut rng)?;
/// let mlp = Mlp { up, down: Linear::init(8, 2, false, &mut rng)?, width: 8 };
/// let paths: Vec<String> = mlp.parameters().into_iter().map(|(path, _)| path).collect();
/// assert_eq!(paths, ["up.weight", "up.bias", "down.weight"]);
/// # Ok::<(), loquat::Error>(())
/// ```
///
/// The name of a field is its segment of the path. `=` sets another one, an expression that may use
/// the skipped fields; an empty one adds no segment:
///
/// ```
/// # use loquat::nn::{Linear, Module};
/// # use loquat::Rng;
/// struct Named { inner: Linear, head: Linear, head_name: &'static str }
/// loquat::module!(Named { inner = "", head = head_name; skip head_name });
///
/// let mut rng = Rng::seed(0);
/// let inner = Linear::init(2, 2, false, &mut rng)?;
/// let head = Linear::init(2, 2, false, &mut rng)?;
/// let named = Named { inner, head, head_name: "lm_head" };
/// let paths: Vec<String> = named.parameters().into_iter().map(|(path, _)| path).collect();
/// assert_eq!(paths, ["weight", "lm_head.weight"]);
/// # Ok::<(), loquat::Error>(())
/// ```
///
/// A field that is in neither list does not compile:
///
/// ```compile_fail,E0027
/// # use loquat::nn::Linear;
/// struct Mlp { up: Linear, down: Linear }
/// loquat::module!(Mlp { up });
/// ```
#[macro_export]
macro_rules! module {
    (@name $field:ident) => { stringify!($field) };
    (@name $field:ident $name:expr) => { $name };
    ($type:ty { $($field:ident $(= $name:expr)?),* $(,)? $(; skip $($skip:ident),+ $(,)?)? }) => {
        impl $crate::nn::Module for $type {
            fn visit<'m>(&'m self, path: &str, f: &mut dyn FnMut(&str, &'m $crate::nn::Parameter)) {
                let Self { $($field,)* $($($skip,)+)? } = self;
                let _ = (path, &f $($(, &$skip)+)?);
                $({
                    let path = $crate::nn::module::below(path, $crate::module!(@name $field $($name)?));
                    $crate::nn::Module::visit($field, &path, f);
                })*
            }

            fn visit_mut(&mut self, path: &str, f: &mut dyn FnMut(&str, &mut $crate::nn::Parameter)) {
                let Self { $($field,)* $($($skip,)+)? } = self;
                let _ = (path, &f $($(, &$skip)+)?);
                $({
                    let path = $crate::nn::module::below(path, $crate::module!(@name $field $($name)?));
                    $crate::nn::Module::visit_mut($field, &path, f);
                })*
            }
        }
    };
}

/// Returns the path of a field; an empty name adds no segment. For [`module!`](crate::module).
#[doc(hidden)]
pub fn below(path: &str, name: &str) -> String {
    join(path, name)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Empty {}
    crate::module!(Empty {});

    struct Skipping {
        f: Parameter,
        path: usize,
    }
    crate::module!(Skipping { f; skip path });

    #[test]
    fn a_struct_may_be_empty_and_its_fields_may_have_any_name() {
        assert!(Empty {}.parameters().is_empty());
        let module = Skipping { f: Parameter::new(crate::tensor::Tensor::zeros(&[2])), path: 3 };
        assert_eq!(module.parameters()[0].0, "f");
        assert_eq!((module.parameter_count(), module.path), (2, 3));
    }
}
