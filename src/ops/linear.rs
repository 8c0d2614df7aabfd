//! Products with a layer's weight.

use std::borrow::Cow;

use crate::error::{Error, Result};
use crate::kernels::gemm::{Beta, Element, Epilogue, Mat, PackedB, gemm_in, gemm_packed_in};
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
    linear_packed(x, &weight.into(), |_, _| None, bias, layout, activation, residual)
}

/// A weight in the order in which products read it, rounded to bf16 if the precision says so; `None` for one in blocks.
pub(crate) fn pack(weight: &Weight, layout: WeightLayout, precision: Precision) -> Option<PackedB> {
    let (n_out, n_in) = match (weight.shape(), layout) {
        (&[n_out, n_in], WeightLayout::OutIn) | (&[n_in, n_out], WeightLayout::InOut) => (n_out, n_in),
        _ => return None,
    };
    let shape = (n_in, n_out, layout);
    Some(match weight {
        Weight::Blocks(_) => return None,
        Weight::Bf16(w) => PackedB::new(right(w.data(), shape, Side::Forward)),
        other if precision.rounds() => {
            let rounded = HalfTensor::<half::bf16>::round(&other.to_tensor());
            PackedB::new(right(rounded.data(), shape, Side::Forward))
        }
        Weight::F32(w) => PackedB::new(right(w.data(), shape, Side::Forward)),
        Weight::F16(w) => PackedB::new(right(w.data(), shape, Side::Forward)),
    })
}

/// As [`linear_then`]; where no gradient is wanted, with what `packed` gives for this precision, if anything: what [`pack`] made of
/// the weight.
pub(crate) fn linear_packed<'p>(
    x: &Tensor,
    weight: &Weight,
    packed: impl FnOnce(WeightLayout, Precision) -> Option<&'p PackedB>,
    bias: Option<&Tensor>,
    layout: WeightLayout,
    activation: Option<Activation>,
    residual: Option<&Tensor>,
) -> Result<Tensor> {
    let (n_out, n_in) = match (weight.shape(), layout) {
        (&[n_out, n_in], WeightLayout::OutIn) => (n_out, n_in),
        (&[n_in, n_out], WeightLayout::InOut) => (n_out, n_in),
        (other, _) => return Err(Error::shape("linear weight", "two axes", other)),
    };
    if x.shape().last() != Some(&n_in) {
        return Err(Error::shape("linear", format!("[…, {n_in}]"), x.shape()));
    }
    if let Some(bias) = bias.filter(|b| b.shape() != [n_out]) {
        return Err(Error::shape("linear bias", format!("[{n_out}]"), bias.shape()));
    }
    let rows: usize = x.shape()[..x.rank() - 1].iter().product();
    let mut shape = x.shape().to_vec();
    shape[x.rank() - 1] = n_out;
    if let Some(residual) = residual.filter(|r| r.shape() != shape) {
        return Err(Error::shape("linear residual", format!("{shape:?}"), residual.shape()));
    }
    let trained = match weight {
        Weight::F32(w) => Some(w),
        _ => None,
    };
    let all: Vec<&Tensor> = [Some(x), trained, bias, residual].into_iter().flatten().collect();
    let recording = tape::is_recording(&all);
    if recording && (activation.is_some() || residual.is_some()) {
        let mut y = linear(x, Cow::Borrowed(weight), bias, layout)?;
        y = activation.map_or(y.clone(), |f| y.activate(f));
        return residual.map_or(Ok(y.clone()), |r| r.add(&y));
    }
    let precision = precision();
    // Few rows of pairs of bf16 are quicker to read where the weight lies than to widen from panels.
    let in_place = rows <= 16 && matches!(weight, Weight::Bf16(_));
    if !recording
        && !in_place
        && let Some(packed) = packed(layout, precision)
    {
        let epilogue = Epilogue { bias: bias.map(Tensor::data), activation, residual: residual.map(Tensor::data) };
        let x = Mat::new(x.data(), rows, n_in);
        return Ok(Tensor::write(&shape, |y| gemm_packed_in(precision, x, packed, y, Beta::Zero, epilogue)));
    }
    // x times W as the right factor [in, out], or dy times its transpose.
    let product = move |x: &Tensor, w: &Weight, side: Side, y: &mut [f32], epilogue: Epilogue<'_>| {
        let x = Mat::new(x.data(), rows, x.last_dim());
        let shape = (n_in, n_out, layout);
        match w {
            Weight::F32(w) => gemm_in(precision, x, right(w.data(), shape, side), y, Beta::Zero, epilogue),
            Weight::F16(w) => gemm_in(precision, x, right(w.data(), shape, side), y, Beta::Zero, epilogue),
            Weight::Bf16(w) => gemm_in(precision, x, right(w.data(), shape, side), y, Beta::Zero, epilogue),
            Weight::Blocks(w) if layout == WeightLayout::OutIn && matches!(side, Side::Forward) => {
                block_product::product(precision, x, w, y, epilogue);
            }
            Weight::Blocks(w) => {
                let w = w.widen();
                gemm_in(precision, x, right(w.data(), shape, side), y, Beta::Zero, epilogue);
            }
        }
    };
    let y = Tensor::write(&shape, |y| {
        let epilogue = Epilogue { bias: bias.map(Tensor::data), activation, residual: residual.map(Tensor::data) };
        product(x, weight, Side::Forward, y, epilogue);
    });
    let inputs: Vec<&Tensor> = [Some(x), trained, bias].into_iter().flatten().collect();
    Ok(tape::record("linear", &inputs, y, || {
        let (x, w) = (x.detach(), weight.detach());
        Box::new(move |dy, needs| {
            let dx = needs[0]
                .then(|| Tensor::write(x.shape(), |dx| product(&dy, &w, Side::Backward, dx, Epilogue::default())));
            let mut gradients = vec![dx];
            if let Weight::F32(w) = &w {
                gradients.push(needs[1].then(|| {
                    let (x, dy) = (Mat::new(x.data(), rows, n_in), Mat::new(dy.data(), rows, n_out));
                    Tensor::write(w.shape(), |dw| match layout {
                        WeightLayout::OutIn => gemm_in(precision, dy.t(), x, dw, Beta::Zero, Epilogue::default()),
                        WeightLayout::InOut => gemm_in(precision, x.t(), dy, dw, Beta::Zero, Epilogue::default()),
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

/// The weight as the right factor `[in, out]`, or `[out, in]` for the way back.
fn right<T: Element>(w: &[T], (n_in, n_out, layout): (usize, usize, WeightLayout), side: Side) -> Mat<'_, T> {
    let w = match layout {
        WeightLayout::OutIn => Mat::transposed(w, n_in, n_out),
        WeightLayout::InOut => Mat::new(w, n_in, n_out),
    };
    match side {
        Side::Forward => w,
        Side::Backward => w.t(),
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
