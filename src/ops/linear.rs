//! Products with a layer's weight.

use std::borrow::Cow;
use std::ops::Range;

use crate::error::{Error, Result};
use crate::kernels::gemm::{Beta, Epilogue, Factor, Mat, PackedB, gemm_each, gemm_in};
use crate::kernels::vecmath;
use crate::ops::activation::Activation;
use crate::ops::block_product;
use crate::ops::precision::{Precision, precision};
use crate::tensor::{HalfTensor, Tensor, Weight, tape};

/// How a layer's weight matrix is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WeightLayout {
    /// `[out_features, in_features]`, as `torch.nn.Linear` has it.
    OutIn,
    /// `[in_features, out_features]`, as GPT-2's checkpoints have it.
    InOut,
}

/// `y = x·Wᵀ + b` over the last axis.
///
/// The weight is a [`Tensor`] or a [`Weight`]; one in half precision is widened on the way, exactly, and gets no gradient.
///
/// # Shapes
/// `x: […, in_features]`, `weight` as `layout` says, `bias: [out_features]` → `[…, out_features]`.
///
/// # Errors
/// [`Error::Shape`] if they do not fit.
pub fn linear<'w>(
    x: &Tensor,
    weight: impl Into<Cow<'w, Weight>>,
    bias: Option<&Tensor>,
    layout: WeightLayout,
) -> Result<Tensor> {
    linear_then(x, weight, bias, layout, None, None)
}

/// `f(x·Wᵀ + b) + r`: [`linear`], then an activation, then a sum, in one pass over the result where no gradient is wanted, with the bits
/// of one after the other.
///
/// # Shapes
/// As for [`linear`]; `residual` as the result.
///
/// # Errors
/// As for [`linear`].
pub fn linear_then<'w>(
    x: &Tensor,
    weight: impl Into<Cow<'w, Weight>>,
    bias: Option<&Tensor>,
    layout: WeightLayout,
    activation: Option<Activation>,
    residual: Option<&Tensor>,
) -> Result<Tensor> {
    let weight = &*weight.into();
    linear_of(x, Layer { weight, packed: |_, _, _| None, bias, layout, activation }, residual)
}

/// A weight in the order in which products read it, rounded to bf16 if the precision says so; `None` for one in blocks.
pub(crate) fn pack(weight: &Weight, layout: WeightLayout, precision: Precision) -> Option<PackedB> {
    let sizes = Sizes::of(weight, layout).ok()?;
    Some(match weight {
        Weight::Blocks(_) => return None,
        Weight::Bf16(w) => PackedB::new(sizes.matrix(w.data(), Side::Forward)),
        other if precision.rounds() => {
            let rounded = HalfTensor::<half::bf16>::round(&other.to_tensor());
            PackedB::new(sizes.matrix(rounded.data(), Side::Forward))
        }
        Weight::F32(w) => PackedB::new(sizes.matrix(w.data(), Side::Forward)),
        Weight::F16(w) => PackedB::new(sizes.matrix(w.data(), Side::Forward)),
    })
}

/// What a product with a layer's weight takes beside its input.
#[derive(Clone, Copy)]
pub(crate) struct Layer<'p, P> {
    pub(crate) weight: &'p Weight,
    /// What [`pack`] made of the weight for a precision and a number of rows, if anything: used where no gradient is wanted.
    pub(crate) packed: P,
    pub(crate) bias: Option<&'p Tensor>,
    pub(crate) layout: WeightLayout,
    pub(crate) activation: Option<Activation>,
}

impl<'p, P: Fn(WeightLayout, Precision, usize) -> Option<&'p PackedB>> Layer<'p, P> {
    /// What `rows` are multiplied with where no gradient is wanted: the packed weight if there is one; `None` for one in blocks.
    fn factor(&self, sizes: Sizes, precision: Precision, rows: usize) -> Option<Factor<'p>> {
        let packed = (self.packed)(self.layout, precision, rows);
        packed.map(Factor::from).or_else(|| factor(self.weight, sizes, Side::Forward))
    }

    /// The weight as a tensor that may be trained.
    fn trained(&self) -> Option<&'p Tensor> {
        match self.weight {
            Weight::F32(w) => Some(w),
            _ => None,
        }
    }

    fn is_recording(&self, x: &Tensor, residual: Option<&Tensor>) -> bool {
        let all: Vec<&Tensor> = [Some(x), self.trained(), self.bias, residual].into_iter().flatten().collect();
        tape::is_recording(&all)
    }

    fn epilogue<'e>(&self, residual: Option<&'e Tensor>) -> Epilogue<'e>
    where
        'p: 'e,
    {
        Epilogue {
            bias: self.bias.map(Tensor::data),
            activation: self.activation,
            residual: residual.map(Tensor::data),
        }
    }
}

/// The rows of `x`, and its shape with another number of features.
fn rows_and_shape(x: &Tensor, n_out: usize) -> (usize, Vec<usize>) {
    let mut shape = x.shape().to_vec();
    shape[x.rank() - 1] = 1;
    let rows = shape.iter().product();
    shape[x.rank() - 1] = n_out;
    (rows, shape)
}

/// [`linear_then`] with each of several layers of one input; where no gradient is wanted, they are one piece of work for the threads.
pub(crate) fn linear_each<'p, P, const N: usize>(x: &Tensor, layers: [Layer<'p, P>; N]) -> Result<[Tensor; N]>
where
    P: Fn(WeightLayout, Precision, usize) -> Option<&'p PackedB>,
{
    let precision = precision();
    let recording = layers.iter().any(|layer| layer.is_recording(x, None));
    let mut ys = std::array::from_fn(|_| Tensor::scalar(0.0));
    let (mut rows, mut products) = (0, Vec::with_capacity(N));
    for (y, layer) in ys.iter_mut().zip(&layers).filter(|_| !recording) {
        let sizes = Sizes::of(layer.weight, layer.layout)?;
        sizes.check(x, layer.bias)?;
        let shape;
        (rows, shape) = rows_and_shape(x, sizes.n_out);
        if let Some(factor) = layer.factor(sizes, precision, rows) {
            // The product below writes it.
            *y = Tensor::write(&shape, |_| {});
            products.push((factor, y.make_mut(), layer.epilogue(None)));
        }
    }
    if products.len() == N {
        gemm_each(precision, Mat::new(x.data(), rows, x.last_dim()), products);
        return Ok(ys);
    }
    for (y, layer) in ys.iter_mut().zip(layers) {
        *y = linear_of(x, layer, None)?;
    }
    Ok(ys)
}

/// [`linear_then`] with a layer.
pub(crate) fn linear_of<'p, P>(x: &Tensor, layer: Layer<'p, P>, residual: Option<&Tensor>) -> Result<Tensor>
where
    P: Fn(WeightLayout, Precision, usize) -> Option<&'p PackedB>,
{
    let sizes = Sizes::of(layer.weight, layer.layout)?;
    sizes.check(x, layer.bias)?;
    let (rows, shape) = rows_and_shape(x, sizes.n_out);
    if let Some(residual) = residual.filter(|r| r.shape() != shape) {
        return Err(Error::shape("linear residual", format!("{shape:?}"), residual.shape()));
    }
    let Layer { weight, bias, layout, activation, .. } = layer;
    if !layer.is_recording(x, residual) {
        let (precision, left) = (precision(), Mat::new(x.data(), rows, sizes.n_in));
        let epilogue = layer.epilogue(residual);
        return Tensor::try_write(&shape, |y| match layer.factor(sizes, precision, rows) {
            Some(factor) => gemm_in(precision, left, factor, y, Beta::Zero, epilogue),
            None => product(precision, left, weight, sizes, Side::Forward, y, epilogue),
        });
    }
    if activation.is_some() || residual.is_some() {
        let mut y = linear(x, Cow::Borrowed(weight), bias, layout)?;
        y = activation.map_or(y.clone(), |f| y.activate(f));
        return residual.map_or(Ok(y.clone()), |r| r.add(&y));
    }
    recorded(x, weight, bias, sizes)
}

/// [`linear`] with a range of the output features alone, and that part of the bias: the bits of those columns of the whole.
///
/// The gradients of weight and bias are zero outside the range.
///
/// # Shapes
/// `x: […, in_features]` → `[…, rows.len()]`; weight and bias as for [`linear`].
///
/// # Errors
/// [`Error::Argument`] if the layer does not have these features; as for [`linear`].
pub(crate) fn linear_rows(
    x: &Tensor,
    weight: &Weight,
    bias: Option<&Tensor>,
    layout: WeightLayout,
    rows: Range<usize>,
) -> Result<Tensor> {
    let whole = Sizes::of(weight, layout)?;
    whole.check(x, bias)?;
    if rows.start > rows.end || rows.end > whole.n_out {
        return Err(Error::argument("rows", format!("a range of {} features", whole.n_out), format!("{rows:?}")));
    }
    let bias = bias.map(|bias| bias.narrow(0, rows.start, rows.len())).transpose()?;
    match weight {
        Weight::F32(w) if tape::is_recording(&[w]) => {
            let axis = if layout == WeightLayout::OutIn { 0 } else { 1 };
            linear(x, &w.narrow(axis, rows.start, rows.len())?, bias.as_ref(), layout)
        }
        _ => recorded(x, weight, bias.as_ref(), Sizes { start: rows.start, n_out: rows.len(), ..whole }),
    }
}

/// A product with a weight, or some of its output features, and its node on the tape if a gradient is wanted.
fn recorded(x: &Tensor, weight: &Weight, bias: Option<&Tensor>, sizes: Sizes) -> Result<Tensor> {
    let precision = precision();
    let Sizes { n_in, n_out, layout, .. } = sizes;
    let (rows, shape) = rows_and_shape(x, n_out);
    let bias_only = Epilogue { bias: bias.map(Tensor::data), ..Epilogue::default() };
    let left = Mat::new(x.data(), rows, n_in);
    let y = Tensor::try_write(&shape, |y| product(precision, left, weight, sizes, Side::Forward, y, bias_only))?;
    let trained = match weight {
        // Part of a weight that is trained is one of its own.
        Weight::F32(w) if w.len() == n_in * n_out => Some(w),
        _ => None,
    };
    let inputs: Vec<&Tensor> = [Some(x), trained, bias].into_iter().flatten().collect();
    Ok(tape::record("linear", &inputs, y, || {
        let (x, w, has_weight) = (x.detach(), weight.detach(), trained.is_some());
        Box::new(move |dy, needs| {
            let (x_mat, dy_mat) = (Mat::new(x.data(), rows, n_in), Mat::new(dy.data(), rows, n_out));
            let none = Epilogue::default();
            let dx = |dx: &mut [f32]| product(precision, dy_mat, &w, sizes, Side::Backward, dx, none);
            let mut gradients = vec![needs[0].then(|| Tensor::write(x.shape(), dx))];
            if has_weight {
                gradients.push(needs[1].then(|| {
                    Tensor::write(w.shape(), |dw| match layout {
                        WeightLayout::OutIn => gemm_in(precision, dy_mat.t(), x_mat, dw, Beta::Zero, none),
                        WeightLayout::InOut => gemm_in(precision, x_mat.t(), dy_mat, dw, Beta::Zero, none),
                    })
                }));
            }
            if let Some(&needed) = needs.get(gradients.len()) {
                let sum = |db: &mut [f32]| vecmath::sum_rows(dy.data(), n_out, db, false);
                gradients.push(needed.then(|| Tensor::write(&[n_out], sum)));
            }
            Ok(gradients)
        })
    }))
}

/// What a layer's weight is multiplied with.
#[derive(Clone, Copy)]
enum Side {
    /// `x`
    Forward,
    /// `dy`
    Backward,
}

/// How a weight is stored, and which of its output features a product takes.
#[derive(Clone, Copy)]
struct Sizes {
    n_in: usize,
    /// Output features from one stored row of inputs to the next.
    stride: usize,
    layout: WeightLayout,
    /// The first output feature, and how many.
    start: usize,
    n_out: usize,
}

impl Sizes {
    /// All of a weight.
    fn of(weight: &Weight, layout: WeightLayout) -> Result<Self> {
        let (n_in, n_out) = match (weight.shape(), layout) {
            (&[n_out, n_in], WeightLayout::OutIn) | (&[n_in, n_out], WeightLayout::InOut) => (n_in, n_out),
            (other, _) => return Err(Error::shape("linear weight", "two axes", other)),
        };
        Ok(Self { n_in, stride: n_out, layout, start: 0, n_out })
    }

    /// Whether input and bias fit the whole weight.
    fn check(&self, x: &Tensor, bias: Option<&Tensor>) -> Result<()> {
        if x.shape().last() != Some(&self.n_in) {
            return Err(Error::shape("linear", format!("[…, {}]", self.n_in), x.shape()));
        }
        match bias.filter(|b| b.shape() != [self.n_out]) {
            Some(bias) => Err(Error::shape("linear bias", format!("[{}]", self.n_out), bias.shape())),
            None => Ok(()),
        }
    }

    /// The weight as the right factor `[in, out]`, or `[out, in]` for the way back.
    fn matrix<'w, T>(&self, w: &'w [T], side: Side) -> Mat<'w, T> {
        let &Sizes { n_in, stride, start, n_out, .. } = self;
        let w = match self.layout {
            WeightLayout::OutIn => Mat::transposed(&w[start * n_in..(start + n_out) * n_in], n_in, n_out),
            WeightLayout::InOut => Mat::new(&w[start.min(w.len())..], n_in, n_out).with_ld(stride),
        };
        match side {
            Side::Forward => w,
            Side::Backward => w.t(),
        }
    }
}

/// The same of a weight that products read as it is stored; `None` for one in blocks.
fn factor(w: &Weight, sizes: Sizes, side: Side) -> Option<Factor<'_>> {
    match w {
        Weight::F32(w) => Some(sizes.matrix(w.data(), side).into()),
        Weight::F16(w) => Some(sizes.matrix(w.data(), side).into()),
        Weight::Bf16(w) => Some(sizes.matrix(w.data(), side).into()),
        Weight::Blocks(_) => None,
    }
}

/// `x` times the weight, or `dy` times its transpose.
fn product(
    precision: Precision,
    x: Mat<'_>,
    w: &Weight,
    sizes: Sizes,
    side: Side,
    y: &mut [f32],
    epilogue: Epilogue<'_>,
) {
    match (factor(w, sizes, side), w) {
        (Some(w), _) => gemm_in(precision, x, w, y, Beta::Zero, epilogue),
        (None, Weight::Blocks(w)) if matches!((sizes.layout, side), (WeightLayout::OutIn, Side::Forward)) => {
            block_product::product(precision, x, w, sizes.start..sizes.start + sizes.n_out, y, epilogue);
        }
        (None, w) => {
            let w = w.to_tensor();
            gemm_in(precision, x, sizes.matrix(w.data(), side), y, Beta::Zero, epilogue);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::gradient_check::{check, sample};
    use crate::ops::precision::with_precision;

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
        // Forward, the factors are the rounded ones; backward, so is the gradient.
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
}
