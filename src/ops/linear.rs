//! Products with the weight of a layer.
//!
//! [`linear`] and [`linear_then`] take one weight; layers use [`multiply`], which takes several
//! weights with the same input. Forward and backward products are [`gemm`](crate::kernels::gemm)s
//! with the weight as it is stored, in any format.

use std::borrow::Cow;
use std::ops::Range;

use crate::error::{Error, Result};
use crate::kernels::gemm::{Beta, Epilogue, Factor, Mat, PackedB, gemm_each, gemm_in};
use crate::kernels::vecmath;
use crate::ops::activation::Activation;
use crate::ops::packed_weight::PackedWeight;
use crate::ops::precision::{Precision, precision};
pub use crate::tensor::WeightLayout;
use crate::tensor::{HalfTensor, Tensor, Weight, tape};

/// Computes `y = x·Wᵀ + b` over the last axis.
///
/// The weight is a [`Tensor`] or a [`Weight`]. One in half precision or in blocks is converted to
/// f32 while it is read, exactly, and gets no gradient.
///
/// # Shapes
/// `x: […, in_features]`, `weight` as in `layout`, `bias: [out_features]` → `[…, out_features]`.
///
/// # Errors
/// [`Error::Shape`] if the shapes do not match.
///
/// # Examples
/// ```
/// use loquat::Tensor;
/// use loquat::ops::{WeightLayout, linear};
///
/// let x = Tensor::from_vec(vec![1.0, 2.0], &[1, 2])?;
/// let weight = Tensor::from_vec(vec![3.0, 4.0, 5.0, 6.0, 7.0, 8.0], &[3, 2])?;
/// let y = linear(&x, &weight, None, WeightLayout::OutIn)?;
/// assert_eq!(y.data(), [11.0, 17.0, 23.0]);
/// # Ok::<(), loquat::Error>(())
/// ```
pub fn linear<'w>(
    x: &Tensor,
    weight: impl Into<Cow<'w, Weight>>,
    bias: Option<&Tensor>,
    layout: WeightLayout,
) -> Result<Tensor> {
    linear_then(x, weight, bias, layout, None, None)
}

/// Computes `f(x·Wᵀ + b) + r`: [`linear`], then an activation, then a sum. Without gradients this
/// is one pass over the result, with the same bits as separate operations.
///
/// # Shapes
/// Same as [`linear`]; `residual` has the shape of the result.
///
/// # Errors
/// Same as [`linear`].
pub fn linear_then<'w>(
    x: &Tensor,
    weight: impl Into<Cow<'w, Weight>>,
    bias: Option<&Tensor>,
    layout: WeightLayout,
    activation: Option<Activation>,
    residual: Option<&Tensor>,
) -> Result<Tensor> {
    let weight = &*weight.into();
    let [y] = multiply(x, [Layer { bias, activation, residual, ..Layer::new(weight, layout) }])?;
    Ok(y)
}

/// The weight of a layer and the operations that follow its product.
#[derive(Clone, Copy)]
pub(crate) struct Layer<'p> {
    pub(crate) weight: &'p Weight,
    pub(crate) layout: WeightLayout,
    /// Packed copies of the weight, used instead of it if no gradient is recorded and all features
    /// are computed.
    pub(crate) packed: Option<&'p PackedWeight>,
    /// The output features that are computed. Default: all.
    pub(crate) features: Option<(usize, usize)>,
    /// The bias of all output features.
    pub(crate) bias: Option<&'p Tensor>,
    pub(crate) activation: Option<Activation>,
    /// Of the shape of the result.
    pub(crate) residual: Option<&'p Tensor>,
}

impl<'p> Layer<'p> {
    /// Returns the plain product.
    pub(crate) fn new(weight: &'p Weight, layout: WeightLayout) -> Self {
        Self { weight, layout, packed: None, features: None, bias: None, activation: None, residual: None }
    }

    /// Checks the shapes of `x`, bias and residual, and returns the part of the weight that is
    /// used.
    fn check(&self, x: &Tensor) -> Result<Part> {
        let whole = Part::whole(self.weight, self.layout)?;
        if x.shape().last() != Some(&whole.n_in) {
            return Err(Error::shape("linear", format!("[…, {}]", whole.n_in), x.shape()));
        }
        if let Some(bias) = self.bias.filter(|b| b.shape() != [whole.n_out]) {
            return Err(Error::shape("linear bias", format!("[{}]", whole.n_out), bias.shape()));
        }
        let (start, end) = self.features.unwrap_or((0, whole.n_out));
        if start > end || end > whole.n_out {
            let expected = format!("a range of the {} output features", whole.n_out);
            return Err(Error::argument("rows", expected, format!("{start}..{end}")));
        }
        let part = Part { start, n_out: end - start, ..whole };
        if let Some(residual) = self.residual
            && residual.shape() != part.shape_of_result(x)
        {
            let expected = format!("{:?}", part.shape_of_result(x));
            return Err(Error::shape("linear residual", expected, residual.shape()));
        }
        Ok(part)
    }

    fn is_recording(&self, x: &Tensor) -> bool {
        let weight = if let Weight::F32(w) = self.weight { Some(w) } else { None };
        let inputs: Vec<&Tensor> = [Some(x), weight, self.bias, self.residual].into_iter().flatten().collect();
        tape::is_recording(&inputs)
    }

    /// Computes the same, recorded on the tape operation by operation.
    fn record(&self, x: &Tensor, part: Part) -> Result<Tensor> {
        let Part { start, n_out, layout, .. } = part;
        let bias = match self.bias {
            Some(bias) if self.features.is_some() => Some(&bias.narrow(0, start, n_out)?),
            bias => bias,
        };
        let mut y = match (self.weight, self.features) {
            // The gradient is zero outside of the range.
            (Weight::F32(w), Some(_)) => {
                let weight = Weight::F32(w.narrow(if layout == WeightLayout::OutIn { 0 } else { 1 }, start, n_out)?);
                record(x, &weight, bias, Part::whole(&weight, layout)?)?
            }
            _ => record(x, self.weight, bias, part)?,
        };
        y = self.activation.map_or(y.clone(), |f| y.activate(f));
        self.residual.map_or(Ok(y.clone()), |residual| residual.add(&y))
    }
}

/// Computes `fᵢ(x·Wᵢᵀ + bᵢ) + rᵢ` with each of several layers; without gradients, as one parallel
/// job.
///
/// # Shapes
/// `x: […, in_features]` → `[…, out_features]` for each layer, or `[…, range length]`.
///
/// # Errors
/// [`Error::Shape`] if the shapes do not match; [`Error::Argument`] if a range exceeds the layer's
/// features.
pub(crate) fn multiply<const N: usize>(x: &Tensor, layers: [Layer<'_>; N]) -> Result<[Tensor; N]> {
    let mut ys = std::array::from_fn(|_| None);
    if layers.iter().any(|layer| layer.is_recording(x)) {
        for (y, layer) in ys.iter_mut().zip(&layers) {
            *y = Some(layer.record(x, layer.check(x)?)?);
        }
    } else {
        let precision = precision();
        let mut rows = 0;
        let mut weights = std::array::from_fn::<_, N, _>(|_| None);
        for ((y, weight), layer) in ys.iter_mut().zip(&mut weights).zip(&layers) {
            let part = layer.check(x)?;
            rows = part.rows(x);
            *weight = Some((part, readable(layer.weight, layer.layout, Side::Forward)));
            // The product below writes all elements.
            *y = Some(Tensor::try_write(&part.shape_of_result(x), |_| {})?);
        }
        let products = ys.iter_mut().zip(&weights).zip(&layers).filter_map(|((y, weight), layer)| {
            let ((part, weight), y) = (weight.as_ref()?, y.as_mut()?);
            let packed = layer.packed.filter(|_| layer.features.is_none());
            let pack = || pack(layer.weight, layer.layout, precision);
            let packed = packed.and_then(|packed| packed.get(layer.weight, layer.layout, precision, rows, pack));
            let epilogue = Epilogue {
                bias: layer.bias.map(|bias| &bias.data()[part.start..part.start + part.n_out]),
                activation: layer.activation,
                residual: layer.residual.map(Tensor::data),
            };
            let factor = packed.map_or_else(|| part.factor(weight, Side::Forward), Factor::from);
            Some((factor, y.make_mut(), epilogue))
        });
        gemm_each(precision, Mat::new(x.data(), rows, x.last_dim()), products);
    }
    Ok(ys.map(|y| y.expect("one result of each layer")))
}

/// Computes a product with part of a weight and records it on the tape; a trainable weight is used
/// as a whole.
fn record(x: &Tensor, weight: &Weight, bias: Option<&Tensor>, part: Part) -> Result<Tensor> {
    let precision = precision();
    let Part { n_in, n_out, layout, .. } = part;
    let rows = part.rows(x);
    let product = move |left: Mat<'_>, weight: &Weight, side: Side, y: &mut [f32], bias: Option<&Tensor>| {
        let epilogue = Epilogue { bias: bias.map(Tensor::data), ..Epilogue::default() };
        gemm_in(precision, left, part.factor(&readable(weight, layout, side), side), y, Beta::Zero, epilogue);
    };
    let y = Tensor::try_write(&part.shape_of_result(x), |y| {
        product(Mat::new(x.data(), rows, n_in), weight, Side::Forward, y, bias);
    })?;
    let trained = if let Weight::F32(w) = weight { Some(w) } else { None };
    let inputs: Vec<&Tensor> = [Some(x), trained, bias].into_iter().flatten().collect();
    Ok(tape::record("linear", &inputs, y, || {
        let (x, w) = (x.detach(), weight.detach());
        Box::new(move |dy, needs| {
            let (x_mat, dy_mat) = (Mat::new(x.data(), rows, n_in), Mat::new(dy.data(), rows, n_out));
            let dx = |dx: &mut [f32]| product(dy_mat, &w, Side::Backward, dx, None);
            let mut gradients = vec![needs[0].then(|| Tensor::write(x.shape(), dx))];
            if let Weight::F32(w) = &w {
                let (a, b) = match layout {
                    WeightLayout::OutIn => (dy_mat, x_mat),
                    WeightLayout::InOut => (x_mat, dy_mat),
                };
                let dw = |dw: &mut [f32]| gemm_in(precision, a.t(), b, dw, Beta::Zero, Epilogue::default());
                gradients.push(needs[1].then(|| Tensor::write(w.shape(), dw)));
            }
            if let Some(&needed) = needs.get(gradients.len()) {
                let sum = |db: &mut [f32]| vecmath::sum_rows(dy.data(), n_out, db, false);
                gradients.push(needed.then(|| Tensor::write(&[n_out], sum)));
            }
            Ok(gradients)
        })
    }))
}

/// The factor that a layer's weight is multiplied with.
#[derive(Clone, Copy)]
enum Side {
    /// `x`
    Forward,
    /// `dy`
    Backward,
}

/// The output features of a weight that are computed.
#[derive(Clone, Copy)]
struct Part {
    layout: WeightLayout,
    n_in: usize,
    /// The number of all output features.
    stored_out: usize,
    /// The first feature that is computed, and the number of them.
    start: usize,
    n_out: usize,
}

impl Part {
    fn whole(weight: &Weight, layout: WeightLayout) -> Result<Self> {
        let (n_in, n_out) = match (weight.shape(), layout) {
            (&[n_out, n_in], WeightLayout::OutIn) | (&[n_in, n_out], WeightLayout::InOut) => (n_in, n_out),
            (other, _) => return Err(Error::shape("linear weight", "two axes", other)),
        };
        Ok(Self { layout, n_in, stored_out: n_out, start: 0, n_out })
    }

    fn rows(&self, x: &Tensor) -> usize {
        x.shape()[..x.rank() - 1].iter().product()
    }

    fn shape_of_result(&self, x: &Tensor) -> Vec<usize> {
        let mut shape = x.shape().to_vec();
        shape[x.rank() - 1] = self.n_out;
        shape
    }

    /// Returns the range of the part's numbers in a weight that is stored by output features.
    fn stored(&self) -> Range<usize> {
        self.start * self.n_in..(self.start + self.n_out) * self.n_in
    }

    /// Returns the part as the right factor: `[in, out]`, or `[out, in]` for the backward pass.
    fn matrix<'w, T>(&self, w: &'w [T], side: Side) -> Mat<'w, T> {
        let w = match self.layout {
            WeightLayout::OutIn => Mat::transposed(&w[self.stored()], self.n_in, self.n_out),
            // A weight without inputs has no element to start at.
            WeightLayout::InOut => {
                Mat::new(&w[self.start.min(w.len())..], self.n_in, self.n_out).with_ld(self.stored_out)
            }
        };
        match side {
            Side::Forward => w,
            Side::Backward => w.t(),
        }
    }

    /// Same as [`Part::matrix`], of a [`readable`] weight in any format.
    fn factor<'w>(&self, w: &'w Weight, side: Side) -> Factor<'w> {
        match w {
            Weight::F32(w) => self.matrix(w.data(), side).into(),
            Weight::F16(w) => self.matrix(w.data(), side).into(),
            Weight::Bf16(w) => self.matrix(w.data(), side).into(),
            Weight::Blocks(w) => {
                let (format, numbers) = (w.format(), self.stored());
                let blocks = &w.bytes()[format.bytes_for(numbers.start)..format.bytes_for(numbers.end)];
                Factor::blocks(format, blocks, self.n_in, self.n_out)
            }
        }
    }
}

/// Returns the weight, dequantised if the product would read its blocks across.
fn readable(w: &Weight, layout: WeightLayout, side: Side) -> Cow<'_, Weight> {
    match (w, layout, side) {
        (Weight::Blocks(_), WeightLayout::OutIn, Side::Forward) => Cow::Borrowed(w),
        (Weight::Blocks(w), _, _) => Cow::Owned(Weight::F32(w.dequantize())),
        _ => Cow::Borrowed(w),
    }
}

/// Packs a weight into the order in which products read it, rounded to bf16 if `precision` does so;
/// `None` for block formats.
pub(crate) fn pack(weight: &Weight, layout: WeightLayout, precision: Precision) -> Option<PackedB> {
    let whole = Part::whole(weight, layout).ok()?;
    Some(match weight {
        Weight::Blocks(_) => return None,
        Weight::Bf16(w) => PackedB::new(whole.matrix(w.data(), Side::Forward)),
        other if precision.rounds() => {
            let rounded = HalfTensor::<half::bf16>::round(&other.to_tensor());
            PackedB::new(whole.matrix(rounded.data(), Side::Forward))
        }
        Weight::F32(w) => PackedB::new(whole.matrix(w.data(), Side::Forward)),
        Weight::F16(w) => PackedB::new(whole.matrix(w.data(), Side::Forward)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::blocks::{BlockFormat, quantize_q8_0};
    use crate::ops::gradient_check::{check, sample};
    use crate::ops::precision::with_precision;
    use crate::tensor::BlockTensor;

    #[test]
    fn gradients_match_central_differences() {
        let layer = [sample(&[2, 3, 4], 1), sample(&[5, 4], 2), sample(&[5], 3)];
        check("linear", &layer, |x| linear(&x[0], &x[1], Some(&x[2]), WeightLayout::OutIn));
        check("no bias", &layer[..2], |x| linear(&x[0], &x[1], None, WeightLayout::OutIn));
        let layer = [sample(&[7, 4], 1), sample(&[4, 5], 2), sample(&[5], 3)];
        check("linear in-out", &layer, |x| linear(&x[0], &x[1], Some(&x[2]), WeightLayout::InOut));
    }

    #[test]
    fn rounded_products_are_those_of_rounded_factors_forward_and_backward() {
        let (x, w) = (sample(&[5, 40], 1), sample(&[7, 40], 2));
        let gradients = |precision, x: &Tensor, w: &Tensor| {
            let (x, w) = (x.watch(), w.watch());
            let y = with_precision(precision, || linear(&x, &w, None, WeightLayout::OutIn)).unwrap();
            let gradients = y.mul(&sample(&[5, 7], 3)).unwrap().sum().unwrap().backward().unwrap();
            [y.to_vec(), gradients.of(&x).unwrap().to_vec(), gradients.of(&w).unwrap().to_vec()]
        };
        let round = |x: &Tensor| {
            let data = x.data().iter().map(|&x| half::bf16::from_f32(x).to_f32()).collect();
            Tensor::from_vec(data, x.shape()).unwrap()
        };
        let exact = gradients(Precision::F32, &x, &w);
        let of_rounded = gradients(Precision::F32, &round(&x), &round(&w));
        let rounded = gradients(Precision::Bf16, &x, &w);
        let close = |a: &[f32], b: &[f32], by: f32| a.iter().zip(b).all(|(a, b)| (a - b).abs() <= by);
        // In the forward pass the factors are rounded; in the backward pass the gradient is rounded
        // too.
        assert!(close(&rounded[0], &of_rounded[0], 1e-5) || rounded[0] == exact[0]);
        for (exact, rounded) in exact.iter().zip(&rounded) {
            assert!(close(exact, rounded, 0.1));
        }
    }

    #[test]
    fn a_half_weight_gives_the_bits_of_its_numbers_in_32_bits() {
        let (x, dy, bias) = (sample(&[7, 4], 1).watch(), sample(&[7, 5], 2), sample(&[5], 3).watch());
        for (layout, shape) in [(WeightLayout::OutIn, [5, 4]), (WeightLayout::InOut, [4, 5])] {
            let weight = Weight::from(sample(&shape, 4));
            for half in [weight.to_f16(), weight.to_bf16()] {
                let run = |weight: &Weight| {
                    let y = linear(&x, weight, Some(&bias), layout).unwrap();
                    let gradients = y.mul(&dy).unwrap().sum().unwrap().backward().unwrap();
                    [&y, gradients.of(&x).unwrap(), gradients.of(&bias).unwrap()].map(Tensor::to_vec)
                };
                assert_eq!(run(&half), run(&Weight::F32(half.to_tensor())));
            }
        }
    }

    #[test]
    fn an_epilogue_has_the_bits_of_one_step_after_the_other() {
        let (w, bias) = (sample(&[37, 24], 2), sample(&[37], 3));
        for rows in [1, 3, 50] {
            let (x, residual) = (sample(&[rows, 24], 1), sample(&[rows, 37], 4));
            let y = linear(&x, &w, Some(&bias), WeightLayout::OutIn).unwrap();
            for f in [Activation::Gelu, Activation::GeluTanh, Activation::Silu, Activation::Relu] {
                let fused = linear_then(&x, &w, Some(&bias), WeightLayout::OutIn, Some(f), Some(&residual)).unwrap();
                assert_eq!(fused.data(), y.activate(f).add(&residual).unwrap().data(), "{f:?}, {rows} rows");
            }
        }
        let inputs = [sample(&[3, 24], 1), w, bias, sample(&[3, 37], 4)];
        check("linear_then", &inputs, |x| {
            linear_then(&x[0], &x[1], Some(&x[2]), WeightLayout::OutIn, Some(Activation::Tanh), Some(&x[3]))
        });
        assert!(linear_then(&inputs[0], &inputs[1], None, WeightLayout::OutIn, None, Some(&inputs[0])).is_err());
    }

    #[test]
    fn shapes_that_do_not_fit_are_errors() {
        let x = Tensor::zeros(&[2, 3]);
        assert!(linear(&x, &Tensor::zeros(&[4, 2]), None, WeightLayout::OutIn).is_err());
        let w = Tensor::zeros(&[4, 3]);
        assert!(linear(&x, &w, Some(&Tensor::zeros(&[3])), WeightLayout::OutIn).is_err());
    }

    #[test]
    fn blocks_give_the_bits_of_their_numbers_in_32_bits() {
        for (n, k) in [(1, 32), (7, 64), (1100, 96), (40, 4096)] {
            let w = sample(&[n, k], 1);
            let mut bytes = vec![0; BlockFormat::Q8_0.bytes_for(n * k)];
            quantize_q8_0(w.data(), &mut bytes);
            let blocks = BlockTensor::from_vec(BlockFormat::Q8_0, bytes, &[n, k]).unwrap();
            let (wide, blocks) = (Weight::F32(blocks.dequantize()), Weight::Blocks(blocks));
            let bias = sample(&[n], 2);
            for rows in [1, 2, 9] {
                let x = sample(&[rows, k], 3).watch();
                let run = |w: &Weight| {
                    let y = linear(&x, w, Some(&bias), WeightLayout::OutIn).unwrap();
                    let dx = y.sum().unwrap().backward().unwrap().of(&x).unwrap().to_vec();
                    (y.to_vec(), dx)
                };
                assert!(run(&blocks) == run(&wide), "{rows} × {k} × {n}");
                let (x, residual) = (x.detach(), sample(&[rows, n], 4));
                let run = |w: &Weight| {
                    let activation = Some(Activation::Silu);
                    linear_then(&x, w, Some(&bias), WeightLayout::OutIn, activation, Some(&residual)).unwrap().to_vec()
                };
                assert!(run(&blocks) == run(&wide), "{rows} × {k} × {n}, joined");
            }
        }
        let blocks = Weight::Blocks(BlockTensor::from_vec(BlockFormat::Q8_0, vec![1; 34 * 32], &[32, 32]).unwrap());
        let x = Tensor::full(&[2, 32], 1.0);
        let run = |w: &Weight| linear(&x, w, None, WeightLayout::InOut).unwrap().to_vec();
        assert_eq!(run(&blocks), run(&Weight::F32(blocks.to_tensor())));
    }
}
