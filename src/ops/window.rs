//! Each position concatenated with the previous ones.

use crate::error::{Error, Result};
use crate::kernels::{parallel, vecmath};
use crate::tensor::{Tensor, tape};

/// Concatenates, at every position, the last `window` positions, oldest first; positions before the
/// first are zeros.
///
/// ```text
/// y[b, t] = [x[b, t - window + 1]; …; x[b, t]]
/// ```
///
/// # Shapes
/// `x: [batch, seq_len, width]` → `[batch, seq_len, window · width]`.
///
/// # Errors
/// [`Error::Shape`] if `x` does not have three axes, or the result does not fit into memory;
/// [`Error::Argument`] if `window` is 0.
pub fn windows(x: &Tensor, window: usize) -> Result<Tensor> {
    let &[batch, seq_len, width] = x.shape() else {
        return Err(Error::shape("windows", "[batch, seq_len, width]", x.shape()));
    };
    let wide = window.checked_mul(width).filter(|&wide| wide.checked_mul(batch.max(1) * seq_len.max(1)).is_some());
    let Some(wide) = wide.filter(|_| window > 0) else {
        return Err(Error::argument("window", "at least 1, and small enough to fit into memory", window));
    };
    let (sequence, of_windows) = ((seq_len * width).max(1), (seq_len * wide).max(1));
    let y = Tensor::try_write(&[batch, seq_len, wide], |y| {
        parallel::chunks_mut(y, of_windows, |b, y| {
            let x = &x.data()[b * sequence..][..seq_len * width];
            for (t, y) in y.chunks_exact_mut(wide.max(1)).enumerate() {
                let (before, seen) = y.split_at_mut(window.saturating_sub(t + 1) * width);
                before.fill(0.0);
                seen.copy_from_slice(&x[(t + 1) * width - seen.len()..][..seen.len()]);
            }
        });
    })?;
    Ok(tape::record("windows", &[x], y, || {
        let shape = x.shape().to_vec();
        Box::new(move |dy, _| {
            let dx = Tensor::write(&shape, |dx| {
                parallel::chunks_mut(dx, sequence, |b, dx| {
                    dx.fill(0.0);
                    let dy = &dy.data()[b * of_windows..][..seq_len * wide];
                    for (t, dy) in dy.chunks_exact(wide.max(1)).enumerate() {
                        let seen = &dy[window.saturating_sub(t + 1) * width..];
                        vecmath::add_assign(&mut dx[(t + 1) * width - seen.len()..][..seen.len()], seen);
                    }
                });
            });
            Ok(vec![Some(dx)])
        })
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::gradient_check::{check, sample};

    #[test]
    fn the_past_is_oldest_first_after_zeros() {
        let x = Tensor::from_vec((1..=6).map(|i| i as f32).collect(), &[1, 3, 2]).unwrap();
        let y = windows(&x, 2).unwrap();
        assert_eq!(y.to_vec(), [0.0, 0.0, 1.0, 2.0, 1.0, 2.0, 3.0, 4.0, 3.0, 4.0, 5.0, 6.0]);
        assert_eq!(windows(&x, 1).unwrap().to_vec(), x.to_vec());
        assert_eq!(windows(&Tensor::zeros(&[2, 0, 3]), 4).unwrap().shape(), [2, 0, 12]);
    }

    #[test]
    fn gradients_match_central_differences() {
        for window in [1, 2, 5, 9] {
            check("windows", &[sample(&[2, 5, 3], window as u64)], |x| windows(&x[0], window));
        }
    }

    #[test]
    fn wrong_shapes_and_windows_are_errors() {
        assert!(windows(&Tensor::zeros(&[2, 3]), 2).is_err());
        assert!(windows(&Tensor::zeros(&[1, 2, 3]), 0).is_err());
        for huge in [1 << 38, 1 << 45, usize::MAX / 2] {
            assert!(windows(&Tensor::zeros(&[1, 2, 3]), huge).is_err());
        }
    }
}
