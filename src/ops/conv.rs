//! Convolution over positions, and the maximum over positions (Kim 2014, "Convolutional neural
//! networks for sentence classification").

use crate::error::{Error, Result};
use crate::kernels::gemm::{Beta, Mat, gemm_batch};
use crate::kernels::{parallel, vecmath};
use crate::tensor::{Tensor, tape};

/// Stride, padding, dilation and groups of a one-dimensional convolution.
///
/// ```text
/// y[b, o, t] = bias[o] + Σ_{i, k} weight[o, i, k] · x[b, i, t · stride + k · dilation - padding]
/// ```
///
/// computed as a matrix product of the weight with the unfolded windows (im2col). The input is
/// padded with zeros.
///
/// ```
/// use loquat::{Tensor, ops::Conv1d};
///
/// let x = Tensor::from_vec(vec![1.0, 2.0, 3.0, 4.0], &[1, 1, 4])?;
/// let sum_of_two = Tensor::full(&[1, 1, 2], 1.0);
/// let y = Conv1d::default().forward(&x, &sum_of_two, None)?;
/// assert_eq!(y.to_vec(), [3.0, 5.0, 7.0]);
/// # Ok::<(), loquat::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conv1d {
    /// The distance between consecutive windows, in positions.
    pub stride: usize,
    /// The number of zeros added on each side of the input.
    pub padding: usize,
    /// The distance between the elements of a window, in positions.
    pub dilation: usize,
    /// The number of groups that the channels are divided into; each group of outputs depends on
    /// one group of inputs.
    pub groups: usize,
}

impl Default for Conv1d {
    /// Stride 1, no padding, dilation 1, one group.
    fn default() -> Self {
        Self { stride: 1, padding: 0, dilation: 1, groups: 1 }
    }
}

/// The sizes of a convolution; `channels` and `filters` are those of one group.
#[derive(Clone, Copy)]
struct Dims {
    conv: Conv1d,
    batch: usize,
    channels: usize,
    filters: usize,
    kernel_size: usize,
    len: usize,
    windows: usize,
}

impl Conv1d {
    /// Computes the convolution.
    ///
    /// # Shapes
    /// `x: [batch, in_channels, len]`, `weight: [out_channels, in_channels / groups, kernel_size]`,
    /// `bias: [out_channels]` → `[batch, out_channels, windows]`, where
    /// `windows = (len + 2 · padding - dilation · (kernel_size - 1) - 1) / stride + 1`.
    ///
    /// # Errors
    /// [`Error::Shape`] if the shapes do not match, the input is shorter than a window, or the
    /// windows do not fit into memory; [`Error::Argument`] if stride, dilation or groups are 0, or
    /// if the number of channels is not divisible by groups.
    pub fn forward(&self, x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
        let dims = self.dims(x, weight, bias)?;
        let out_channels = weight.shape()[0];
        // Checked first: the unfolded windows of a sequence are larger than the result.
        drop(dims.room()?);
        let shape = [dims.batch, out_channels, dims.windows];
        let y = Tensor::try_write(&shape, |y| dims.forward(x, weight, bias, y))?;
        let inputs: Vec<&Tensor> = [Some(x), Some(weight), bias].into_iter().flatten().collect();
        Ok(tape::record("conv1d", &inputs, y, || {
            let (x, weight) = (x.detach(), weight.detach());
            Box::new(move |dy, needs| {
                let dx = needs[0].then(|| Tensor::write(x.shape(), |dx| dims.dx(&dy, &weight, dx)));
                let dw = needs[1].then(|| Tensor::write(weight.shape(), |dw| dims.dweight(&dy, &x, dw)));
                let mut gradients = vec![dx, dw];
                if let Some(&needed) = needs.get(2) {
                    gradients.push(needed.then(|| dims.dbias(&dy)));
                }
                Ok(gradients)
            })
        }))
    }

    fn dims(&self, x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Dims> {
        let &Self { stride, padding, dilation, groups } = self;
        for (name, value) in [("stride", stride), ("dilation", dilation), ("groups", groups)] {
            if value == 0 {
                return Err(Error::argument(format!("conv1d {name}"), "at least 1", 0));
            }
        }
        let (&[batch, in_channels, len], &[out_channels, channels, kernel_size]) = (x.shape(), weight.shape()) else {
            let expected = "[batch, in_channels, len] and a weight [out_channels, in_channels / groups, kernel_size]";
            return Err(Error::shape("conv1d", expected, (x.shape(), weight.shape())));
        };
        if !in_channels.is_multiple_of(groups) || !out_channels.is_multiple_of(groups) {
            let expected = format!("a divisor of {in_channels} and {out_channels} channels");
            return Err(Error::argument("conv1d groups", expected, groups));
        }
        if channels != in_channels / groups || kernel_size == 0 {
            let expected = format!("[out_channels, {}, at least 1]", in_channels / groups);
            return Err(Error::shape("conv1d weight", expected, weight.shape()));
        }
        if let Some(bias) = bias.filter(|bias| bias.shape() != [out_channels]) {
            return Err(Error::shape("conv1d bias", format!("[{out_channels}]"), bias.shape()));
        }
        let padded = padding.checked_mul(2).and_then(|both| len.checked_add(both));
        let reach = dilation.checked_mul(kernel_size - 1).and_then(|gaps| gaps.checked_add(1));
        let windows = match (padded, reach) {
            (Some(padded), Some(reach)) if padded >= reach => (padded - reach) / stride + 1,
            _ => {
                let expected = format!(
                    "an input as long as a window ({kernel_size} positions, dilation {dilation}, padding {padding})"
                );
                return Err(Error::shape("conv1d", expected, x.shape()));
            }
        };
        Ok(Dims { conv: *self, batch, channels, filters: out_channels / groups, kernel_size, len, windows })
    }
}

impl Dims {
    /// Returns memory for the windows of a sequence: `[groups, taps, windows]`.
    fn room(&self) -> Result<Tensor> {
        Tensor::try_write(&[self.conv.groups, self.taps(), self.windows], |_| ())
    }

    /// Returns the number of rows of the matrix of windows: one for each channel and place in the
    /// window.
    fn taps(&self) -> usize {
        self.channels * self.kernel_size
    }

    /// Returns the input of one group of one sequence.
    fn input<'a>(&self, x: &'a [f32], b: usize, group: usize) -> &'a [f32] {
        let size = self.channels * self.len;
        &x[(b * self.conv.groups + group) * size..][..size]
    }

    /// Returns the windows whose element `place` is within the input, and its position for the
    /// first of them.
    fn inside(&self, place: usize) -> (std::ops::Range<usize>, usize) {
        let Conv1d { stride, padding, dilation, .. } = self.conv;
        let at = place * dilation;
        let first = padding.saturating_sub(at).div_ceil(stride).min(self.windows);
        let end = (self.len + padding).saturating_sub(at).div_ceil(stride).clamp(first, self.windows);
        (first..end, (first * stride + at).saturating_sub(padding))
    }

    /// Unfolds the windows: `[channels · kernel_size, windows]`.
    fn unfold(&self, x: &[f32], windows: &mut [f32]) {
        for (tap, row) in windows.chunks_exact_mut(self.windows).enumerate() {
            let x = &x[tap / self.kernel_size * self.len..][..self.len];
            let (inside, from) = self.inside(tap % self.kernel_size);
            row[..inside.start].fill(0.0);
            row[inside.end..].fill(0.0);
            let row = &mut row[inside];
            if row.is_empty() {
                continue;
            }
            match self.conv.stride {
                1 => row.copy_from_slice(&x[from..][..row.len()]),
                stride => row.iter_mut().zip(x[from..].iter().step_by(stride)).for_each(|(y, &x)| *y = x),
            }
        }
    }

    /// The adjoint of [`Dims::unfold`]: adds each element of each window to its position in the
    /// input.
    fn fold(&self, windows: &[f32], dx: &mut [f32]) {
        dx.fill(0.0);
        for (tap, row) in windows.chunks_exact(self.windows).enumerate() {
            let dx = &mut dx[tap / self.kernel_size * self.len..][..self.len];
            let (inside, to) = self.inside(tap % self.kernel_size);
            let row = &row[inside];
            if row.is_empty() {
                continue;
            }
            match self.conv.stride {
                1 => vecmath::add_assign(&mut dx[to..][..row.len()], row),
                stride => dx[to..].iter_mut().step_by(stride).zip(row).for_each(|(dx, &d)| *dx += d),
            }
        }
    }

    /// Unfolds the windows of all groups of one sequence: `[groups, taps, windows]`.
    fn unfold_all(&self, x: &Tensor, b: usize) -> Tensor {
        let size = self.taps() * self.windows;
        Tensor::write(&[self.conv.groups, self.taps(), self.windows], |windows| {
            parallel::chunks_mut(windows, size, |group, windows| self.unfold(self.input(x.data(), b, group), windows));
        })
    }

    fn forward(&self, x: &Tensor, weight: &Tensor, bias: Option<&Tensor>, y: &mut [f32]) {
        let (groups, taps, filters, n) = (self.conv.groups, self.taps(), self.filters, self.windows);
        if y.is_empty() {
            return;
        }
        if taps == 0 {
            y.fill(0.0);
        }
        for (b, y) in y.chunks_exact_mut(groups * filters * n).enumerate() {
            if taps > 0 {
                let windows = self.unfold_all(x, b);
                // [filters, taps] · [taps, windows]
                let (w, columns) = (Mat::new(weight.data(), filters, taps), Mat::new(windows.data(), taps, n));
                gemm_batch(groups, w, filters * taps, columns, taps * n, y, Beta::Zero);
            }
            for (y, &bias) in y.chunks_exact_mut(n).zip(bias.map_or(&[][..], Tensor::data)) {
                y.iter_mut().for_each(|y| *y += bias);
            }
        }
    }

    fn dx(&self, dy: &Tensor, weight: &Tensor, dx: &mut [f32]) {
        let (groups, taps, filters, n) = (self.conv.groups, self.taps(), self.filters, self.windows);
        let (size, in_size) = (filters * n, self.channels * self.len);
        if dx.is_empty() {
            return;
        }
        let mut windows = Tensor::write(&[groups, taps, n], |_| ());
        for (b, dx) in dx.chunks_exact_mut(groups * in_size).enumerate() {
            let dy = Mat::new(&dy.data()[b * groups * size..], filters, n);
            // [taps, filters] · [filters, windows]
            let w = Mat::new(weight.data(), filters, taps).t();
            gemm_batch(groups, w, filters * taps, dy, size, windows.make_mut(), Beta::Zero);
            let windows = windows.data();
            parallel::chunks_mut(dx, in_size, |group, dx| self.fold(&windows[group * taps * n..][..taps * n], dx));
        }
    }

    fn dweight(&self, dy: &Tensor, x: &Tensor, dweight: &mut [f32]) {
        let (groups, taps, filters, n) = (self.conv.groups, self.taps(), self.filters, self.windows);
        let size = filters * n;
        dweight.fill(0.0);
        if dweight.is_empty() {
            return;
        }
        for b in 0..self.batch {
            let windows = self.unfold_all(x, b);
            // [filters, windows] · [windows, taps], summed over the sequences
            let dy = Mat::new(&dy.data()[b * groups * size..], filters, n);
            gemm_batch(groups, dy, size, Mat::new(windows.data(), taps, n).t(), taps * n, dweight, Beta::One);
        }
    }

    fn dbias(&self, dy: &Tensor) -> Tensor {
        let channels = self.conv.groups * self.filters;
        Tensor::write(&[channels], |db| {
            for (channel, db) in db.iter_mut().enumerate() {
                let of = |b: usize| &dy.data()[(b * channels + channel) * self.windows..][..self.windows];
                *db = (0..self.batch).map(|b| vecmath::sum(of(b))).sum::<f64>() as f32;
            }
        })
    }
}

/// Returns the maximum over the last axis, over the first `lengths[b]` positions of each sequence
/// if lengths are given; 0 if a length is 0. The gradient goes to the first of equal maxima.
///
/// # Shapes
/// `x: [batch, …, len]`, `lengths: [batch]` → `[batch, …]`.
///
/// # Errors
/// [`Error::Shape`] if `x` has less than two axes or the number of lengths differs from the batch
/// size; [`Error::Argument`] if a length is above `len`.
pub fn max_over_time(x: &Tensor, lengths: Option<&[usize]>) -> Result<Tensor> {
    let Some((&len, rows)) = x.shape().split_last().filter(|(_, rows)| !rows.is_empty()) else {
        return Err(Error::shape("max_over_time", "[batch, …, len]", x.shape()));
    };
    if let Some(lengths) = lengths {
        if lengths.len() != rows[0] {
            return Err(Error::shape("max_over_time lengths", format!("[{}]", rows[0]), [lengths.len()]));
        }
        if let Some(&wrong) = lengths.iter().find(|&&l| l > len) {
            return Err(Error::argument("max_over_time length", format!("at most {len}"), wrong));
        }
    }
    let per_sequence: usize = rows[1..].iter().product();
    let count: usize = rows.iter().product();
    let place = |i: usize| {
        let row = &x.data()[i * len..][..lengths.map_or(len, |lengths| lengths[i / per_sequence])];
        (1..row.len()).fold((!row.is_empty()).then_some(0), |best, j| {
            best.map(|best: usize| if row[j] > row[best] || row[j].is_nan() { j } else { best })
        })
    };
    let places: Vec<Option<usize>> = (0..count).map(place).collect();
    let y = Tensor::write(rows, |y| {
        for (i, (y, place)) in y.iter_mut().zip(&places).enumerate() {
            *y = place.map_or(0.0, |place| x.data()[i * len + place]);
        }
    });
    Ok(tape::record("max_over_time", &[x], y, || {
        let shape = x.shape().to_vec();
        Box::new(move |dy, _| {
            let mut dx = Tensor::zeros(&shape);
            let data = dx.make_mut();
            for (i, (&dy, place)) in dy.data().iter().zip(&places).enumerate() {
                if let Some(place) = place {
                    data[i * len + place] = dy;
                }
            }
            Ok(vec![Some(dx)])
        })
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::gradient_check::{check, sample};

    /// `(batch, in, out, len, kernel)` and the settings.
    fn cases() -> Vec<([usize; 5], Conv1d)> {
        let conv = Conv1d::default();
        vec![
            ([1, 1, 1, 1, 1], conv),
            ([2, 3, 5, 7, 3], conv),
            ([2, 3, 2, 7, 3], Conv1d { padding: 1, ..conv }),
            ([2, 3, 2, 8, 3], Conv1d { stride: 2, padding: 2, ..conv }),
            ([1, 2, 3, 9, 3], Conv1d { dilation: 2, padding: 4, ..conv }),
            ([2, 4, 6, 6, 2], Conv1d { groups: 2, ..conv }),
            ([1, 3, 3, 11, 4], Conv1d { groups: 3, stride: 3, dilation: 2, padding: 5 }),
            ([1, 2, 2, 1, 3], Conv1d { padding: 4, stride: 5, ..conv }),
        ]
    }

    fn inputs(&([b, c, f, len, k], conv): &([usize; 5], Conv1d)) -> [Tensor; 3] {
        [sample(&[b, c, len], 1), sample(&[f, c / conv.groups, k], 2), sample(&[f], 3)]
    }

    #[test]
    fn gradients_match_central_differences() {
        for case in cases() {
            let name = format!("{case:?}");
            check(&name, &inputs(&case), |x| case.1.forward(&x[0], &x[1], Some(&x[2])));
            check(&name, &inputs(&case)[..2], |x| case.1.forward(&x[0], &x[1], None));
        }
        // Maxima that differ by more than the step of the difference quotient.
        let x = Tensor::from_vec((0..24).map(|i| ((i * 7) % 24) as f32 * 0.3).collect(), &[2, 3, 4]).unwrap();
        check("max", std::slice::from_ref(&x), |x| max_over_time(&x[0], None));
        check("max of some", &[x], |x| max_over_time(&x[0], Some(&[0, 3])));
    }

    #[test]
    fn output_matches_the_formula() {
        for case in cases() {
            let ([batch, c, f, len, k], conv) = case;
            let [x, w, bias] = inputs(&case);
            let y = conv.forward(&x, &w, Some(&bias)).unwrap();
            let windows = y.shape()[2];
            assert_eq!(windows, (len + 2 * conv.padding - conv.dilation * (k - 1) - 1) / conv.stride + 1);
            let (per_group, filters) = (c / conv.groups, f / conv.groups);
            for (at, &y) in y.data().iter().enumerate() {
                let (b, o, t) = (at / (f * windows), at / windows % f, at % windows);
                let mut expected = bias.data()[o];
                for (i, j) in (0..per_group * k).map(|tap| (tap / k, tap % k)) {
                    let place = (t * conv.stride + j * conv.dilation).checked_sub(conv.padding).filter(|&p| p < len);
                    let channel = o / filters * per_group + i;
                    let x = place.map_or(0.0, |place| x.data()[(b * c + channel) * len + place]);
                    expected += x * w.data()[(o * per_group + i) * k + j];
                }
                assert!((y - expected).abs() < 1e-4, "{case:?} at {at}: {y}, expected {expected}");
            }
            assert_eq!(y.shape()[0], batch);
        }
    }

    #[test]
    fn maxima_ignore_what_is_past_the_end() {
        let x = Tensor::from_vec(vec![1.0, 5.0, 9.0, -3.0, -2.0, 9.0], &[2, 1, 3]).unwrap();
        assert_eq!(max_over_time(&x, Some(&[2, 0])).unwrap().to_vec(), [5.0, 0.0]);
        assert_eq!(max_over_time(&x, Some(&[3, 2])).unwrap().to_vec(), [9.0, -2.0]);
        assert!(max_over_time(&x, Some(&[4, 1])).is_err());
        assert!(max_over_time(&x, Some(&[1])).is_err());
        assert!(max_over_time(&Tensor::zeros(&[3]), None).is_err());
    }

    #[test]
    fn empty_inputs_are_allowed_and_windows_that_do_not_fit_are_errors() {
        let conv = Conv1d::default();
        let run = |conv: Conv1d, x: &[usize], w: &[usize]| conv.forward(&Tensor::zeros(x), &Tensor::zeros(w), None);
        assert_eq!(run(conv, &[0, 2, 5], &[3, 2, 3]).unwrap().shape(), [0, 3, 3]);
        assert_eq!(run(conv, &[1, 0, 5], &[3, 0, 3]).unwrap().to_vec(), [0.0; 9]);
        assert!(run(conv, &[1, 2, 2], &[3, 2, 3]).is_err());
        assert!(run(conv, &[1, 2, 5], &[3, 3, 3]).is_err());
        assert!(run(conv, &[1, 2, 5], &[3, 2, 0]).is_err());
        assert!(run(Conv1d { stride: 0, ..conv }, &[1, 2, 5], &[3, 2, 3]).is_err());
        assert!(run(Conv1d { groups: 2, ..conv }, &[1, 2, 5], &[3, 1, 3]).is_err());
        for padding in [1 << 36, 1 << 45, usize::MAX / 16, usize::MAX / 2, usize::MAX] {
            assert!(run(Conv1d { padding, ..conv }, &[1, 2, 5], &[3, 2, 3]).is_err(), "{padding}");
        }
        assert!(run(Conv1d { dilation: usize::MAX, ..conv }, &[1, 2, 5], &[3, 2, 3]).is_err());
    }
}
