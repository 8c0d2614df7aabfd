//! Absolute position embeddings. (For rotary ones see [`Rope`](crate::ops::Rope).)

use crate::error::{Error, Result};
use crate::nn::parameter::{Init, Parameter, Parameters};
use crate::tensor::Tensor;

/// Sinusoidal position embeddings (Vaswani et al. 2017), added to the input: column `2i` of
/// position `p` is `sin(p / 10000^(2i / d_model))`, column `2i + 1` the cosine.
///
/// ```
/// use loquat::{Tensor, nn::SinusoidalPositions};
///
/// let positions = SinusoidalPositions::new(4, 16)?;
/// let y = positions.forward(&Tensor::zeros(&[1, 2, 4]), 0)?;
/// assert_eq!(y.data()[..4], [0.0, 1.0, 0.0, 1.0]);
/// # Ok::<(), loquat::Error>(())
/// ```
#[derive(Clone)]
pub struct SinusoidalPositions {
    /// `[max_seq_len, d_model]`.
    table: Tensor,
}

impl std::fmt::Debug for SinusoidalPositions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SinusoidalPositions({:?})", self.table.shape())
    }
}

/// The largest number of elements in a table: a larger one is a mistake in a configuration.
const MAX_TABLE: usize = 1 << 30;

impl SinusoidalPositions {
    /// Creates the vectors of the positions below `max_seq_len`.
    ///
    /// # Errors
    /// [`Error::Argument`] if the table is too large.
    pub fn new(d_model: usize, max_seq_len: usize) -> Result<Self> {
        if d_model.checked_mul(max_seq_len).is_none_or(|len| len > MAX_TABLE) {
            let found = format!("{max_seq_len} positions of {d_model}");
            return Err(Error::argument("sinusoidal positions", "a table that fits into memory", found));
        }
        let value = |at: usize| {
            let (position, column) = (at / d_model, at % d_model);
            let angle = position as f64 / 10_000f64.powf((column / 2 * 2) as f64 / d_model as f64);
            (if column % 2 == 0 { angle.sin() } else { angle.cos() }) as f32
        };
        let table = Tensor::from_vec((0..d_model * max_seq_len).map(value).collect(), &[max_seq_len, d_model])?;
        Ok(Self { table })
    }

    /// Adds the vectors of the positions from `start` on to `x`.
    ///
    /// # Shapes
    /// `x: [batch, seq_len, d_model]` → `[batch, seq_len, d_model]`.
    ///
    /// # Errors
    /// [`Error::Argument`] if a position is not below `max_seq_len`; [`Error::Shape`] if the width
    /// does not match.
    pub fn forward(&self, x: &Tensor, start: usize) -> Result<Tensor> {
        add_rows(x, &self.table, start)
    }
}

/// Learned position embeddings, added to the input, as in GPT-2 and BERT.
#[derive(Clone)]
pub struct LearnedPositions {
    /// `[max_seq_len, d_model]`.
    pub weight: Parameter,
}

crate::module!(LearnedPositions { weight });

impl std::fmt::Debug for LearnedPositions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "LearnedPositions({:?}, {})", self.weight.shape(), self.weight.weight().format_name())
    }
}

impl LearnedPositions {
    /// Creates a table of normal random numbers with standard deviation `std`.
    ///
    /// # Errors
    /// Same as [`Parameters::get`].
    pub fn init<'a>(d_model: usize, max_seq_len: usize, std: f32, p: impl Into<Parameters<'a>>) -> Result<Self> {
        Ok(Self { weight: p.into().get("weight", &[max_seq_len, d_model], Init::Normal { std })? })
    }

    /// Adds the vectors of the positions from `start` on to `x`.
    ///
    /// # Shapes
    /// `x: [batch, seq_len, d_model]` → `[batch, seq_len, d_model]`.
    ///
    /// # Errors
    /// Same as [`SinusoidalPositions::forward`].
    pub fn forward(&self, x: &Tensor, start: usize) -> Result<Tensor> {
        add_rows(x, self.weight.tensor(), start)
    }
}

fn add_rows(x: &Tensor, table: &Tensor, start: usize) -> Result<Tensor> {
    let (max_seq_len, d_model) = (table.shape()[0], table.shape()[1]);
    let seq_len = match *x.shape() {
        [_, seq_len, width] if width == d_model => seq_len,
        _ => return Err(Error::shape("positions", format!("[batch, seq_len, {d_model}]"), x.shape())),
    };
    if start.checked_add(seq_len).is_none_or(|end| end > max_seq_len) {
        let expected = format!("at most {max_seq_len} positions");
        return Err(Error::argument("positions", expected, start.saturating_add(seq_len)));
    }
    x.add(&table.narrow(0, start, seq_len)?)
}

/// Returns the bucket of the relative position of a key `distance` positions before its query. Half
/// of the buckets are for each direction; of these, half are for small distances one by one, and
/// the rest for larger ones on a logarithmic scale up to 128 (T5 and MPNet, with the reference's
/// arithmetic).
pub(crate) fn relative_bucket(distance: isize, buckets: u32) -> u32 {
    let half = buckets / 2;
    let (exact, n) = (half / 2, distance.unsigned_abs() as u32);
    let within = if n < exact {
        n
    } else {
        let log = (n as f32 / exact as f32).ln() / (128.0 / f64::from(exact)).ln() as f32;
        (exact + (log * (half - exact) as f32) as u32).min(half - 1)
    };
    if distance > 0 { half + within } else { within }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::gradient_check::{check, sample};
    use crate::random::Rng;

    #[test]
    fn gradients_match_central_differences() {
        check("learned", &[sample(&[2, 3, 4], 1), sample(&[7, 4], 2)], |x| {
            LearnedPositions { weight: Parameter::from_tensor(x[1].clone()) }.forward(&x[0], 2)
        });
    }

    #[test]
    fn positions_past_the_table_are_errors() {
        let positions = LearnedPositions::init(4, 8, 0.02, &mut Rng::seed(1)).unwrap();
        assert!(positions.forward(&Tensor::zeros(&[1, 3, 4]), 5).is_ok());
        assert!(positions.forward(&Tensor::zeros(&[1, 3, 4]), 6).is_err());
        assert!(positions.forward(&Tensor::zeros(&[1, 3, 4]), usize::MAX).is_err());
        assert!(positions.forward(&Tensor::zeros(&[1, 3, 5]), 0).is_err());
        assert!(SinusoidalPositions::new(1 << 20, 1 << 20).is_err());
    }

    #[test]
    fn waves_of_an_odd_width_end_with_a_sine() {
        let y = SinusoidalPositions::new(3, 4).unwrap().forward(&Tensor::zeros(&[1, 1, 3]), 2).unwrap();
        let expected = [2f32.sin(), 2f32.cos(), (2.0 / 10_000f32.powf(2.0 / 3.0)).sin()];
        assert!(y.data().iter().zip(expected).all(|(y, e)| (y - e).abs() < 1e-6));
    }
}
