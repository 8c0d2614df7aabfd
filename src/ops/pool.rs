//! Maximum pooling over positions.

use crate::error::{Error, Result};
use crate::kernels::parallel;
use crate::tensor::{Tensor, tape};

/// One-dimensional maximum pooling, like `torch.nn.MaxPool1d`. The gradient goes to the first of
/// equal maxima.
///
/// ```
/// use loquat::{Tensor, ops::MaxPool1d};
///
/// let x = Tensor::from_vec(vec![1.0, 3.0, 2.0, 5.0, 4.0], &[1, 1, 5])?;
/// assert_eq!(MaxPool1d::new(2).forward(&x)?.to_vec(), [3.0, 5.0]);
/// assert_eq!(MaxPool1d { stride: 1, ..MaxPool1d::new(3) }.forward(&x)?.to_vec(), [3.0, 5.0, 5.0]);
/// # Ok::<(), loquat::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MaxPool1d {
    /// The number of positions in a window.
    pub kernel_size: usize,
    /// The distance between consecutive windows, in positions.
    pub stride: usize,
    /// The number of positions added on each side of the input, at most half a window; they never
    /// are the maximum.
    pub padding: usize,
    /// The distance between the elements of a window, in positions.
    pub dilation: usize,
}

impl MaxPool1d {
    /// Returns adjacent windows, without padding and with dilation 1.
    pub fn new(kernel_size: usize) -> Self {
        Self { kernel_size, stride: kernel_size, padding: 0, dilation: 1 }
    }

    /// Returns the maximum of each window.
    ///
    /// # Shapes
    /// `x: [batch, channels, len]` → `[batch, channels, windows]`, where
    /// `windows = (len + 2 · padding - dilation · (kernel_size - 1) - 1) / stride + 1`.
    ///
    /// # Errors
    /// [`Error::Shape`] if `x` does not have three axes or is shorter than a window;
    /// [`Error::Argument`] if size, stride or dilation are 0, or if the padding is more than half a
    /// window.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let &Self { kernel_size, stride, padding, dilation } = self;
        for (name, value) in [("kernel_size", kernel_size), ("stride", stride), ("dilation", dilation)] {
            if value == 0 {
                return Err(Error::argument(format!("max_pool1d {name}"), "at least 1", 0));
            }
        }
        if padding > kernel_size / 2 {
            return Err(Error::argument("max_pool1d padding", format!("at most {}", kernel_size / 2), padding));
        }
        let &[batch, channels, len] = x.shape() else {
            return Err(Error::shape("max_pool1d", "[batch, channels, len]", x.shape()));
        };
        let padded = padding.checked_mul(2).and_then(|both| len.checked_add(both));
        let reach = dilation.checked_mul(kernel_size - 1).and_then(|gaps| gaps.checked_add(1));
        let windows = match (padded, reach) {
            (Some(padded), Some(reach)) if padded >= reach => (padded - reach) / stride + 1,
            _ => {
                let expected = format!(
                    "an input as long as a window ({kernel_size} positions, dilation {dilation}, padding {padding})"
                );
                return Err(Error::shape("max_pool1d", expected, x.shape()));
            }
        };
        // The places of a window that are within the input.
        let places = move |window: usize| {
            let start = window * stride;
            (0..kernel_size)
                .skip(padding.saturating_sub(start).div_ceil(dilation))
                .map(move |i| start + i * dilation - padding)
                .take_while(move |&place| place < len)
        };
        // The place of a window's maximum; `None` if the window is all padding.
        let largest = move |x: &[f32], window: usize| {
            places(window).reduce(|best, j| if x[j] > x[best] || x[j].is_nan() && !x[best].is_nan() { j } else { best })
        };
        let y = Tensor::try_write(&[batch, channels, windows], |y| {
            parallel::chunks_mut(y, windows, |row, y| {
                let x = &x.data()[row * len..][..len];
                for (window, y) in y.iter_mut().enumerate() {
                    *y = largest(x, window).map_or(f32::NEG_INFINITY, |j| x[j]);
                }
            });
        })?;
        Ok(tape::record("max_pool1d", &[x], y, || {
            let x = x.detach();
            Box::new(move |dy, _| {
                let mut dx = Tensor::zeros(x.shape());
                parallel::chunks_mut(dx.make_mut(), len.max(1), |row, dx| {
                    let (x, dy) = (&x.data()[row * len..][..len], &dy.data()[row * windows..][..windows]);
                    for (window, dy) in dy.iter().enumerate() {
                        if let Some(place) = largest(x, window) {
                            dx[place] += dy;
                        }
                    }
                });
                Ok(vec![Some(dx)])
            })
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::gradient_check::check;

    fn cases() -> Vec<MaxPool1d> {
        let pool = MaxPool1d::new;
        vec![
            pool(1),
            pool(3),
            MaxPool1d { stride: 1, ..pool(2) },
            MaxPool1d { stride: 5, padding: 1, ..pool(2) },
            MaxPool1d { padding: 2, dilation: 2, ..pool(4) },
            MaxPool1d { stride: 2, padding: 2, dilation: 3, ..pool(5) },
        ]
    }

    #[test]
    fn gradients_match_central_differences() {
        // Maxima that differ by more than the step of the difference quotient.
        let x = Tensor::from_vec((0..66).map(|i| ((i * 29) % 66) as f32 * 0.3 - 9.0).collect(), &[2, 3, 11]).unwrap();
        for pool in cases() {
            check(&format!("{pool:?}"), std::slice::from_ref(&x), |x| pool.forward(&x[0]));
        }
    }

    #[test]
    fn output_is_the_maximum_of_each_window() {
        let x = Tensor::from_vec((0..33).map(|i| ((i * 7) % 33) as f32 - 16.0).collect(), &[1, 3, 11]).unwrap();
        for pool in cases() {
            let y = pool.forward(&x).unwrap();
            let windows = (11 + 2 * pool.padding - pool.dilation * (pool.kernel_size - 1) - 1) / pool.stride + 1;
            assert_eq!(y.shape(), [1, 3, windows]);
            for (at, &y) in y.data().iter().enumerate() {
                let inside = (0..pool.kernel_size)
                    .filter_map(|i| (at % windows * pool.stride + i * pool.dilation).checked_sub(pool.padding))
                    .filter(|&place| place < 11);
                let expected =
                    inside.map(|place| x.data()[at / windows * 11 + place]).fold(f32::NEG_INFINITY, f32::max);
                assert_eq!(y, expected, "{pool:?} {at}");
            }
        }
        let bad = Tensor::from_vec(vec![1.0, f32::NAN, 2.0], &[1, 1, 3]).unwrap();
        assert!(MaxPool1d::new(3).forward(&bad).unwrap().data()[0].is_nan());
    }

    #[test]
    fn windows_that_do_not_fit_are_errors() {
        let run = |pool: MaxPool1d, shape: &[usize]| pool.forward(&Tensor::zeros(shape));
        let pool = MaxPool1d::new(3);
        assert!(run(pool, &[1, 2, 2]).is_err() && run(pool, &[2, 3]).is_err());
        assert_eq!(run(pool, &[0, 2, 3]).unwrap().shape(), [0, 2, 1]);
        for bad in [
            MaxPool1d::new(0),
            MaxPool1d { stride: 0, ..pool },
            MaxPool1d { dilation: 0, ..pool },
            MaxPool1d { padding: 2, ..pool },
            MaxPool1d { dilation: usize::MAX, ..pool },
            MaxPool1d { padding: usize::MAX / 2, ..MaxPool1d::new(usize::MAX) },
        ] {
            assert!(run(bad, &[1, 2, 9]).is_err(), "{bad:?}");
        }
    }
}
