//! Dropout (Srivastava et al. 2014).

use crate::error::{Error, Result};
use crate::kernels::vecmath;
use crate::random::Rng;
use crate::tensor::{Tensor, tape};

/// Sets each element to 0 with probability `p`, and divides the others by `1 - p`.
///
/// One number is drawn from `rng`. It is the key of a counter-based hash of each element's index,
/// so the zeros do not depend on the number of threads and are not stored.
///
/// # Errors
/// [`Error::Argument`] unless `p` is in `[0, 1)`.
pub fn dropout(x: &Tensor, p: f32, rng: &mut Rng) -> Result<Tensor> {
    if !(0.0..1.0).contains(&p) {
        return Err(Error::argument("dropout", "a probability in [0, 1)", p));
    }
    if p == 0.0 {
        return Ok(x.clone());
    }
    dropout_with_key(x, p, rng.next_u64())
}

/// Same as [`dropout`], with a given key instead of a drawn one.
///
/// # Errors
/// Same as [`dropout`].
pub(crate) fn dropout_with_key(x: &Tensor, p: f32, seed: u64) -> Result<Tensor> {
    if !(0.0..1.0).contains(&p) {
        return Err(Error::argument("dropout", "a probability in [0, 1)", p));
    }
    let y = Tensor::write(x.shape(), |y| vecmath::dropout(x.data(), p, seed, 0, y));
    Ok(tape::record("dropout", &[x], y, || {
        Box::new(move |dy, _| {
            let dx = Tensor::write(dy.shape(), |dx| vecmath::dropout(dy.data(), p, seed, 0, dx));
            Ok(vec![Some(dx)])
        })
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::gradient_check::{check, sample};

    #[test]
    fn gradients_match_central_differences() {
        check("dropout", &[sample(&[5, 7], 1)], |x| dropout(&x[0], 0.4, &mut Rng::seed(3)));
    }

    #[test]
    fn the_share_of_zeros_is_p_and_the_mean_stays() {
        let y = dropout(&Tensor::full(&[100_000], 1.0), 0.2, &mut Rng::seed(1)).unwrap();
        let zeros = y.data().iter().filter(|&&y| y == 0.0).count();
        assert!((19_500..20_500).contains(&zeros), "{zeros}");
        assert!(y.data().iter().all(|&y| y == 0.0 || y == 1.25));
    }

    #[test]
    fn a_probability_outside_its_range_is_an_error() {
        for p in [-0.1, 1.0, f32::NAN] {
            assert!(dropout(&Tensor::zeros(&[1]), p, &mut Rng::seed(0)).is_err());
        }
    }
}
