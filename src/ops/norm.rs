//! Layer normalisation (Ba, Kiros, Hinton 2016) and RMS normalisation (Zhang, Sennrich 2019), over
//! the last axis or the last axes.

use crate::error::{Error, Result};
use crate::kernels::vecmath;
use crate::tensor::{Tensor, tape};

/// Checks that a weight or bias has the shape of the last axes, and returns its number of elements.
fn check_columns(op: &str, x: &Tensor, columns: &Tensor) -> Result<usize> {
    match columns.shape() {
        shape if !shape.is_empty() && x.shape().ends_with(shape) => Ok(columns.len()),
        shape => Err(Error::shape(op, format!("the last axes of {:?}", x.shape()), shape)),
    }
}

/// Computes `(x - mean) / √(variance + eps) · weight + bias`, with mean and variance over the axes
/// that `weight` has.
///
/// # Shapes
/// `x: […, d_model]`, `weight: [d_model]`, `bias: [d_model]` → `[…, d_model]`; `d_model` may stand
/// for several axes, the same in all tensors.
///
/// # Errors
/// [`Error::Shape`] if the shapes do not match.
pub fn layer_norm(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>, eps: f32) -> Result<Tensor> {
    let cols = check_columns("layer_norm weight", x, weight)?;
    if let Some(bias) = bias.filter(|bias| bias.shape() != weight.shape()) {
        return Err(Error::shape("layer_norm bias", format!("{:?}", weight.shape()), bias.shape()));
    }
    let rows = x.len() / cols.max(1);
    let mut mean = vec![0.0; rows];
    let mut rstd = vec![0.0; rows];
    let y = Tensor::write(x.shape(), |y| {
        vecmath::layer_norm(x.data(), Some(weight.data()), bias.map(Tensor::data), eps, y, &mut mean, &mut rstd);
    });
    let inputs: Vec<&Tensor> = [Some(x), Some(weight), bias].into_iter().flatten().collect();
    Ok(tape::record("layer_norm", &inputs, y, || {
        let (x, weight) = (x.detach(), weight.detach());
        Box::new(move |dy, needs| {
            let mut dx = Tensor::write(x.shape(), |_| ());
            let mut dw = needs[1].then(|| Tensor::zeros(weight.shape()));
            let mut db = (needs.get(2) == Some(&true)).then(|| Tensor::zeros(weight.shape()));
            vecmath::layer_norm_backward(
                dy.data(),
                x.data(),
                Some(weight.data()),
                &mean,
                &rstd,
                dx.make_mut(),
                dw.as_mut().map(Tensor::make_mut),
                db.as_mut().map(Tensor::make_mut),
            );
            let mut gradients = vec![Some(dx), dw];
            if needs.len() == 3 {
                gradients.push(db);
            }
            Ok(gradients)
        })
    }))
}

/// Computes `x / √(mean of x² + eps) · weight`, with the mean over the axes that `weight` has.
///
/// # Shapes
/// `x: […, d_model]`, `weight: [d_model]` → `[…, d_model]`; `d_model` may stand for several axes,
/// the same in both tensors.
///
/// # Errors
/// [`Error::Shape`] if the shapes do not match.
pub fn rms_norm(x: &Tensor, weight: &Tensor, eps: f32) -> Result<Tensor> {
    let cols = check_columns("rms_norm weight", x, weight)?;
    let mut rstd = vec![0.0; x.len() / cols.max(1)];
    let y = Tensor::write(x.shape(), |y| vecmath::rms_norm(x.data(), weight.data(), eps, y, &mut rstd));
    Ok(tape::record("rms_norm", &[x, weight], y, || {
        let (x, weight) = (x.detach(), weight.detach());
        Box::new(move |dy, needs| {
            let mut dx = Tensor::write(x.shape(), |_| ());
            let mut dw = needs[1].then(|| Tensor::zeros(weight.shape()));
            let dw_slice = dw.as_mut().map(Tensor::make_mut);
            vecmath::rms_norm_backward(dy.data(), x.data(), weight.data(), &rstd, dx.make_mut(), dw_slice);
            Ok(vec![Some(dx), dw])
        })
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::gradient_check::{check, sample};

    #[test]
    fn gradients_match_central_differences() {
        for (shape, axes) in [(&[3, 5][..], 1), (&[2, 2, 17], 1), (&[1, 33], 1), (&[2, 3, 5], 2), (&[2, 3], 2)] {
            let cols = &shape[shape.len() - axes..];
            let inputs = [sample(shape, 1), sample(cols, 2), sample(cols, 3)];
            check("layer_norm", &inputs, |x| layer_norm(&x[0], &x[1], Some(&x[2]), 1e-5));
            check("layer_norm without bias", &inputs[..2], |x| layer_norm(&x[0], &x[1], None, 1e-5));
            check("rms_norm", &inputs[..2], |x| rms_norm(&x[0], &x[1], 1e-6));
        }
    }

    #[test]
    fn shapes_that_do_not_fit_are_errors() {
        let x = Tensor::zeros(&[2, 3]);
        assert!(layer_norm(&x, &Tensor::zeros(&[2]), None, 1e-5).is_err());
        assert!(layer_norm(&x, &Tensor::zeros(&[3]), Some(&Tensor::zeros(&[1, 3])), 1e-5).is_err());
        assert!(layer_norm(&x, &Tensor::zeros(&[3]), Some(&Tensor::zeros(&[2, 3])), 1e-5).is_err());
        assert!(layer_norm(&x, &Tensor::scalar(1.0), None, 1e-5).is_err());
        assert!(layer_norm(&x, &Tensor::zeros(&[2, 2, 3]), None, 1e-5).is_err());
        assert!(rms_norm(&Tensor::scalar(1.0), &Tensor::zeros(&[1]), 1e-5).is_err());
    }
}
