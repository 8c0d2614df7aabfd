//! The linear layer, `y = x·Wᵀ + b`.

use std::ops::Range;

use crate::error::Result;
use crate::nn::parameter::{Init, Parameter, Parameters};
use crate::ops::Activation;
use crate::ops::linear::{Layer, WeightLayout, multiply};
use crate::tensor::Tensor;

/// A linear layer, like `torch.nn.Linear`.
///
/// ```
/// use loquat::{Rng, Tensor, nn::Linear};
///
/// let layer = Linear::init(3, 2, true, &mut Rng::seed(1))?;
/// assert_eq!(layer.forward(&Tensor::zeros(&[4, 5, 3]))?.shape(), [4, 5, 2]);
/// # Ok::<(), loquat::Error>(())
/// ```
#[derive(Clone)]
pub struct Linear {
    /// `[out_features, in_features]`, transposed for [`WeightLayout::InOut`].
    pub weight: Parameter,
    /// `[out_features]`.
    pub bias: Option<Parameter>,
    /// How `weight` is stored.
    pub layout: WeightLayout,
}

crate::module!(Linear { weight, bias; skip layout });

impl std::fmt::Debug for Linear {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let bias = if self.bias.is_some() { ", bias" } else { "" };
        let (n_in, n_out) = (self.in_features(), self.out_features());
        write!(f, "Linear({n_in} -> {n_out}{bias}, {})", self.weight.weight().format_name())
    }
}

impl Linear {
    /// Creates a layer with PyTorch's initial values: weight and bias uniform in `±1/√in_features`.
    ///
    /// # Errors
    /// Same as [`Parameters::get`].
    pub fn init<'a>(n_in: usize, n_out: usize, bias: bool, p: impl Into<Parameters<'a>>) -> Result<Self> {
        let bound = Init::Uniform { bound: 1.0 / (n_in.max(1) as f32).sqrt() };
        Self::init_with(n_in, n_out, WeightLayout::OutIn, bound, bias.then_some(bound), p)
    }

    /// Creates a layer with the given initial distributions; without a bias if `bias` is `None`.
    ///
    /// # Errors
    /// Same as [`Parameters::get`].
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

    /// Returns the width of the input.
    pub fn in_features(&self) -> usize {
        self.axis(match self.layout {
            WeightLayout::OutIn => 1,
            WeightLayout::InOut => 0,
        })
    }

    /// Returns the width of the output.
    pub fn out_features(&self) -> usize {
        self.axis(match self.layout {
            WeightLayout::OutIn => 0,
            WeightLayout::InOut => 1,
        })
    }

    /// Returns the length of an axis of the weight; 0 if the weight was given fewer axes.
    fn axis(&self, axis: usize) -> usize {
        self.weight.shape().get(axis).copied().unwrap_or(0)
    }

    /// Returns `x·Wᵀ + b`.
    ///
    /// # Shapes
    /// `x: […, in_features]` → `[…, out_features]`.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) if the shape of `x` does not match.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.forward_then(x, None, None)
    }

    /// Same as [`Linear::forward`], then applies an activation, then adds `residual`. Without
    /// gradients this is one pass over the output, with the same bits as separate operations.
    ///
    /// # Shapes
    /// Same as [`Linear::forward`]; `residual` has the shape of the result.
    ///
    /// # Errors
    /// Same as [`Linear::forward`].
    pub fn forward_then(
        &self,
        x: &Tensor,
        activation: Option<Activation>,
        residual: Option<&Tensor>,
    ) -> Result<Tensor> {
        let [y] = multiply(x, [Layer { activation, residual, ..self.layer() }])?;
        Ok(y)
    }

    /// Applies several layers to the same input, each with its activation. Without gradients this
    /// is one parallel job; the bits are those of [`Linear::forward_then`] with each layer.
    ///
    /// # Shapes
    /// Same as [`Linear::forward`], for each layer.
    ///
    /// # Errors
    /// Same as [`Linear::forward`].
    pub fn forward_each<const N: usize>(layers: [(&Self, Option<Activation>); N], x: &Tensor) -> Result<[Tensor; N]> {
        multiply(x, layers.map(|(layer, activation)| Layer { activation, ..layer.layer() }))
    }

    /// Same as [`Linear::forward`], but computes only some of the output features, with the same
    /// bits: attention computes queries, keys or values with their part of a packed weight.
    /// Gradients of weight and bias are zero outside of the range. The packed copy of the weight is
    /// not used.
    ///
    /// # Shapes
    /// `x: […, in_features]` → `[…, rows.len()]`.
    ///
    /// # Errors
    /// [`Error::Argument`](crate::Error::Argument) if the layer has fewer features; also the errors
    /// of [`Linear::forward`].
    pub(crate) fn forward_rows(&self, x: &Tensor, rows: Range<usize>) -> Result<Tensor> {
        let [y] = multiply(x, [Layer { features: Some((rows.start, rows.end)), ..self.layer() }])?;
        Ok(y)
    }

    fn layer(&self) -> Layer<'_> {
        let bias = self.bias.as_ref().map(Parameter::tensor);
        Layer { packed: self.weight.packed(), bias, ..Layer::new(self.weight.weight(), self.layout) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::blocks::{BlockFormat, quantize_q8_0};
    use crate::nn::Module;
    use crate::ops::gradient_check::sample;
    use crate::ops::{Precision, with_precision};
    use crate::tensor::{BlockTensor, Weight, no_grad};

    #[test]
    fn a_packed_weight_gives_the_same_bits_in_every_format() {
        for (layout, shape) in [(WeightLayout::OutIn, [70, 45]), (WeightLayout::InOut, [45, 70])] {
            let weight = Weight::from(sample(&shape, 1));
            for weight in [weight.to_f16(), weight.to_bf16(), weight] {
                let bias = Some(Parameter::new(sample(&[70], 2)));
                let mut layer = Linear { weight: Parameter::constant(weight), bias, layout };
                for precision in [Precision::F32, Precision::Bf16] {
                    for rows in [1, 2, 7, 16, 17, 130] {
                        let (x, residual) = (sample(&[rows, 45], 3), sample(&[rows, 70], 4));
                        let mut run = |keep: bool| {
                            layer.keep_packed(keep);
                            let forward = || layer.forward_then(&x, Some(Activation::Silu), Some(&residual));
                            // The second product packs the weight.
                            [(); 2].map(|()| no_grad(|| with_precision(precision, forward)).unwrap().to_vec())
                        };
                        let [first, second] = run(true);
                        assert!(first == second, "{rows} rows, {layout:?}, {precision:?}");
                        assert!([first, second] == run(false), "{rows} rows, {layout:?}, {precision:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_range_of_features_has_the_bits_and_gradients_of_those_columns() {
        for (layout, shape) in [(WeightLayout::OutIn, [64, 96]), (WeightLayout::InOut, [96, 64])] {
            let weight = Weight::from(sample(&shape, 1));
            let mut bytes = vec![0; BlockFormat::Q8_0.bytes_for(weight.len())];
            quantize_q8_0(weight.to_tensor().data(), &mut bytes);
            let blocks = Weight::Blocks(BlockTensor::from_vec(BlockFormat::Q8_0, bytes, &shape).unwrap());
            for weight in [weight.to_f16(), weight.to_bf16(), blocks, weight] {
                let format = format!("{weight:?}, {layout:?}");
                let trained = weight.is_f32();
                let mut weight = Parameter::constant(weight);
                weight.set_trainable(trained);
                let layer = Linear { weight, bias: Some(Parameter::new(sample(&[64], 2))), layout };
                for rows in [0..64, 0..32, 32..64, 5..47, 63..64, 7..7] {
                    for (m, precision) in
                        [(1, Precision::F32), (5, Precision::F32), (40, Precision::F32), (40, Precision::Bf16)]
                    {
                        let x = sample(&[m, 96], 3).watch();
                        let run = |part: bool| {
                            with_precision(precision, || {
                                let y = match part {
                                    true => layer.forward_rows(&x, rows.clone())?,
                                    false => layer.forward(&x)?.narrow(1, rows.start, rows.len())?,
                                };
                                let weighed = y.mul(&sample(&[m, rows.len()], 4))?;
                                let gradients = weighed.sum()?.backward()?;
                                let of = |x: &Tensor| gradients.of(x).map(Tensor::to_vec);
                                let [w, b] =
                                    [Some(&layer.weight), layer.bias.as_ref()].map(|p| p.map(|p| of(p.tensor())));
                                Ok::<_, crate::Error>((
                                    y.to_vec(),
                                    no_grad(|| layer.forward_rows(&x, rows.clone()))?.to_vec(),
                                    of(&x),
                                    w,
                                    b,
                                ))
                            })
                            .unwrap()
                        };
                        let (part, whole) = (run(true), run(false));
                        assert!(part.0 == whole.0 && part.1 == whole.0, "{format}, {rows:?} of {m} rows");
                        assert!((part.3, part.4) == (whole.3, whole.4), "{format}, {rows:?} of {m} rows");
                        assert_eq!(part.2.is_some(), whole.2.is_some());
                        // The whole product adds terms that are zero, so the gradients of the
                        // inputs agree only approximately.
                        let close = |(a, b): (&f32, &f32)| (a - b).abs() <= 1e-5 * (1.0 + b.abs());
                        let (dx, whole) = (part.2.unwrap(), whole.2.unwrap());
                        assert!(dx.iter().zip(&whole).all(close), "{format}, {rows:?} of {m} rows");
                    }
                }
                assert!(layer.forward_rows(&sample(&[2, 96], 5), 60..65).is_err());
                assert!(layer.forward_rows(&sample(&[2, 95], 5), 0..5).is_err());
                #[expect(clippy::reversed_empty_ranges)]
                let reversed = 5..4;
                assert!(layer.forward_rows(&sample(&[2, 96], 5), reversed).is_err());
            }
        }
    }

    #[test]
    fn a_packed_weight_that_changes_is_packed_anew() {
        let mut layer = Linear::init(3, 2, false, &mut crate::random::Rng::seed(1)).unwrap();
        layer.keep_packed(true);
        let x = Tensor::full(&[4, 3], 1.0);
        let y = |layer: &Linear| no_grad(|| layer.forward(&x).and_then(|_| layer.forward(&x))).unwrap().data()[0];
        assert_ne!(y(&layer), 0.0);
        layer.weight.data_mut().fill(0.0);
        assert_eq!(y(&layer), 0.0);
        layer.weight.set(&Tensor::full(&[2, 3], 1.0)).unwrap();
        assert_eq!((y(&layer), y(&layer.clone())), (3.0, 3.0));
        // Training reads the weight itself.
        assert!(layer.forward(&x).unwrap().sum().unwrap().backward().unwrap().of(layer.weight.tensor()).is_some());
    }
}
