//! Rotary position embeddings of a whole model: frequencies, their scaling for texts longer than
//! those of training, and the sine and cosine tables of the positions in a call.
//!
//! | scaling | effect on the frequencies `f = θ^(-2i / rot_dim)` |
//! |---|---|
//! | linear (kaiokendev 2023; Chen et al. 2023, "Position interpolation") | `f / factor` |
//! | dynamic (emozilla 2023, "NTK-aware") | a larger `θ` for texts longer than `max_positions` |
//! | yarn (Peng et al. 2023, "YaRN") | low frequencies as linear, high frequencies unchanged, a ramp between; rotated vectors are scaled |
//! | llama3 (Dubey et al. 2024, "The Llama 3 herd of models") | long wavelengths as linear, short ones unchanged, smooth between |
//! | longrope (Ding et al. 2024, "LongRoPE") | each pair divided by its own factor |
//!
//! Formulas and rounding agree with `modeling_rope_utils.py` of `transformers`.

use std::f64::consts::PI;

use crate::error::{Error, Result};
use crate::ops::Rope;
use crate::tensor::{IdTensor, Tensor};

/// How the frequencies of [`RotaryPositions`] are scaled. The [module](self) has a table.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub enum RopeScaling {
    /// No scaling.
    #[default]
    Default,
    /// Every frequency is divided by the same factor.
    Linear {
        /// The divisor.
        factor: f64,
    },
    /// Frequencies depend on the length of the text once it is longer than `max_positions`. They
    /// change while a text grows: keys that are already cached keep the rotation of the length at
    /// which they were computed, as in `transformers`.
    Dynamic {
        /// By how much the lowest frequency is reduced for each further `max_positions`.
        factor: f64,
        /// The longest text that is not scaled, in tokens.
        max_positions: usize,
    },
    /// YaRN.
    Yarn {
        /// The divisor of low frequencies.
        factor: f64,
        /// The longest text of the training, in tokens.
        original_max_positions: usize,
        /// The scale of rotated vectors. Default: `0.1 ln factor + 1`.
        attention_factor: Option<f64>,
        /// Pairs with more rotations than this over the longest text of the training are not
        /// scaled.
        beta_fast: f64,
        /// Pairs with fewer rotations than this are divided by `factor`.
        beta_slow: f64,
        /// Whether the ends of the ramp are rounded to whole pairs.
        truncate: bool,
    },
    /// Llama 3.1 and later.
    Llama3 {
        /// The divisor of low frequencies.
        factor: f64,
        /// Wavelengths above `original_max_positions / low_freq_factor` are divided.
        low_freq_factor: f64,
        /// Wavelengths below `original_max_positions / high_freq_factor` are not scaled.
        high_freq_factor: f64,
        /// The longest text of the training, in tokens.
        original_max_positions: usize,
    },
    /// LongRoPE, with one list of divisors for texts of every length.
    LongRope {
        /// The divisor of each pair's frequency.
        divisors: Vec<f32>,
        /// The scale of rotated vectors.
        attention_factor: f64,
    },
}

/// Rotary position embeddings without a table of all positions: a call computes the [`Rotation`] of
/// its own positions once for all layers.
///
/// ```
/// use loquat::nn::{RopeScaling, RotaryPositions};
/// use loquat::{IdTensor, Tensor};
///
/// let rotary = RotaryPositions::new(4, 10_000.0, RopeScaling::Linear { factor: 2.0 })?;
/// let rotation = rotary.at(&IdTensor::sequence(&[6]))?;
/// let y = rotation.forward(&Tensor::full(&[1, 1, 8], 1.0), 2)?; // two heads of four columns
/// assert!((y.data()[0] - (3f32.cos() - 3f32.sin())).abs() < 1e-6);
/// # Ok::<(), loquat::Error>(())
/// ```
#[derive(Clone)]
pub struct RotaryPositions {
    rot_dim: usize,
    theta: f64,
    scaling: RopeScaling,
    frequencies: Vec<f32>,
    scale: f32,
}

impl std::fmt::Debug for RotaryPositions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RotaryPositions(rot_dim={}, theta={}, {:?})", self.rot_dim, self.theta, self.scaling)
    }
}

impl RopeScaling {
    /// Returns the context length, in tokens, of a model that was trained on `max_positions`.
    pub(crate) fn stretched(&self, max_positions: usize) -> usize {
        let stretched = match self {
            Self::Linear { factor } | Self::Dynamic { factor, .. } => max_positions as f64 * factor,
            Self::Yarn { factor, original_max_positions, .. } => *original_max_positions as f64 * factor,
            _ => 0.0,
        };
        max_positions.max(stretched as usize)
    }
}

impl RotaryPositions {
    /// Same as [`RopeScaling::stretched`].
    pub(crate) fn stretched(&self, max_positions: usize) -> usize {
        self.scaling.stretched(max_positions)
    }

    /// Creates the frequencies of the first `rot_dim` columns of each head; `theta` is usually
    /// 10 000.
    ///
    /// # Errors
    /// [`Error::Argument`] unless `rot_dim` is even and above 0, or if a number of the scaling is
    /// out of range.
    pub fn new(rot_dim: usize, theta: f64, scaling: RopeScaling) -> Result<Self> {
        if !(theta.is_finite() && theta > 1.0) {
            return Err(Error::argument("rope theta", "a number above 1", theta));
        }
        check(&scaling)?;
        let plain = Rope::frequencies(rot_dim, theta)?;
        let (frequencies, scale) = match &scaling {
            RopeScaling::Default | RopeScaling::Dynamic { .. } => (plain, 1.0),
            RopeScaling::Linear { factor } => (plain.iter().map(|f| f / *factor as f32).collect(), 1.0),
            RopeScaling::Yarn { .. } => yarn(&scaling, &plain, theta),
            &RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_max_positions } => {
                (llama3(&plain, factor, low_freq_factor, high_freq_factor, original_max_positions), 1.0)
            }
            RopeScaling::LongRope { divisors, attention_factor } => {
                if divisors.len() != plain.len() {
                    let expected = format!("{} of them, one per pair of columns", plain.len());
                    return Err(Error::argument("rope scaling divisors", expected, divisors.len()));
                }
                (plain.iter().zip(divisors).map(|(f, divisor)| f / divisor).collect(), *attention_factor as f32)
            }
        };
        Ok(Self { rot_dim, theta, scaling, frequencies, scale })
    }

    /// Returns whether the rotation of a position also depends on the last position of a call. Then
    /// processing the same positions in other portions gives other results.
    pub(crate) fn is_dynamic(&self) -> bool {
        matches!(self.scaling, RopeScaling::Dynamic { .. })
    }

    /// Returns the angle of each pair between consecutive positions, and the scale of rotated
    /// vectors, for texts that need no dynamic scaling.
    pub(crate) fn frequencies(&self) -> (&[f32], f32) {
        (&self.frequencies, self.scale)
    }

    /// Computes the rotation of each position.
    ///
    /// # Errors
    /// [`Error::Argument`] if the positions are so far apart that their table does not fit into
    /// memory.
    pub fn at(&self, positions: &IdTensor) -> Result<Rotation> {
        let first = positions.data().iter().copied().min().unwrap_or(0);
        let last = positions.data().iter().copied().max().unwrap_or(0);
        let longer;
        let frequencies = match self.scaling {
            RopeScaling::Dynamic { factor, max_positions } if last as usize >= max_positions => {
                let ratio = (f64::from(last) + 1.0) / max_positions as f64;
                let power = self.rot_dim as f64 / (self.rot_dim as f64 - 2.0);
                longer = Rope::frequencies(self.rot_dim, self.theta * (factor * ratio - (factor - 1.0)).powf(power))?;
                &longer
            }
            _ => &self.frequencies,
        };
        let rope = Rope::from_position(frequencies, first, (last - first) as usize + 1, self.scale)?;
        let shifted: Vec<u32> = positions.data().iter().map(|p| p - first).collect();
        Ok(Rotation { rope, positions: IdTensor::new(shifted, positions.shape())? })
    }
}

/// The rotations of the positions of a call, for the queries and keys of every layer.
#[derive(Clone)]
pub struct Rotation {
    rope: Rope,
    /// Relative to the first position of the table.
    positions: IdTensor,
}

impl std::fmt::Debug for Rotation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Rotation({:?})", self.positions.shape())
    }
}

impl Rotation {
    /// Creates the rotation of `positions` from a table that contains them.
    pub(crate) fn new(rope: Rope, positions: IdTensor) -> Self {
        Self { rope, positions }
    }

    /// Rotates each head of each row according to the position of the row.
    ///
    /// # Shapes
    /// `x: […, n_heads · head_dim]` for positions `[…]` → `[…, n_heads · head_dim]`.
    ///
    /// # Errors
    /// [`Error::Shape`] if the shape of `x` does not match.
    pub fn forward(&self, x: &Tensor, n_heads: usize) -> Result<Tensor> {
        self.rope.forward(x, n_heads, &self.positions)
    }
}

/// Checks that every number of a scaling is in its range.
fn check(scaling: &RopeScaling) -> Result<()> {
    let above = |name: &str, value: f64, least: f64| match value.is_finite() && value >= least {
        true => Ok(()),
        false => {
            Err(Error::argument(format!("rope scaling {name}"), format!("a finite number, at least {least}"), value))
        }
    };
    let positions = |value: usize| above("positions", value as f64, 1.0);
    match *scaling {
        RopeScaling::LongRope { ref divisors, attention_factor } => {
            above("attention_factor", attention_factor, 0.0)?;
            divisors.iter().try_for_each(|&divisor| above("divisors", divisor.into(), f64::from(f32::MIN_POSITIVE)))
        }
        RopeScaling::Default => Ok(()),
        RopeScaling::Linear { factor } => above("factor", factor, f64::MIN_POSITIVE),
        RopeScaling::Dynamic { factor, max_positions } => {
            above("factor", factor, 1.0)?;
            positions(max_positions)
        }
        RopeScaling::Yarn { factor, original_max_positions, attention_factor, beta_fast, beta_slow, .. } => {
            above("factor", factor, f64::MIN_POSITIVE)?;
            above("attention_factor", attention_factor.unwrap_or(1.0), 0.0)?;
            above("beta_fast", beta_fast, f64::MIN_POSITIVE)?;
            above("beta_slow", beta_slow, f64::MIN_POSITIVE)?;
            positions(original_max_positions)
        }
        RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_max_positions } => {
            above("factor", factor, f64::MIN_POSITIVE)?;
            above("low_freq_factor", low_freq_factor, f64::MIN_POSITIVE)?;
            above("high_freq_factor", high_freq_factor, f64::MIN_POSITIVE)?;
            if high_freq_factor <= low_freq_factor {
                let expected = format!("a number above low_freq_factor = {low_freq_factor}");
                return Err(Error::argument("rope scaling high_freq_factor", expected, high_freq_factor));
            }
            positions(original_max_positions)
        }
    }
}

/// Returns `0.1 · mscale · ln factor + 1`, the factor of the attention scores for texts longer by
/// `factor` (YaRN, eq. 22).
pub(crate) fn yarn_attention_factor(factor: f64, mscale: f64) -> f64 {
    if factor <= 1.0 { 1.0 } else { 0.1 * mscale * factor.ln() + 1.0 }
}

fn yarn(scaling: &RopeScaling, plain: &[f32], theta: f64) -> (Vec<f32>, f32) {
    let &RopeScaling::Yarn { factor, original_max_positions, attention_factor, beta_fast, beta_slow, truncate } =
        scaling
    else {
        unreachable!("called for YaRN")
    };
    let dim = (2 * plain.len()) as f64;
    // The index of the pair that makes `turns` rotations over the longest text of the training.
    let pair = |turns: f64| dim * (original_max_positions as f64 / (turns * 2.0 * PI)).ln() / (2.0 * theta.ln());
    let (mut low, mut high) = (pair(beta_fast), pair(beta_slow));
    if truncate {
        (low, high) = (low.floor(), high.ceil());
    }
    (low, high) = (low.max(0.0), high.min(dim - 1.0));
    if low == high {
        high += 0.001;
    }
    let ramp = |i: usize| ((i as f32 - low as f32) / (high - low) as f32).clamp(0.0, 1.0);
    let mix = |(i, &f): (usize, &f32)| {
        let kept = 1.0 - ramp(i);
        f / factor as f32 * (1.0 - kept) + f * kept
    };
    let scale = attention_factor.unwrap_or_else(|| yarn_attention_factor(factor, 1.0));
    (plain.iter().enumerate().map(mix).collect(), scale as f32)
}

fn llama3(plain: &[f32], factor: f64, low_freq: f64, high_freq: f64, original: usize) -> Vec<f32> {
    let (factor, original) = (factor as f32, original as f64);
    let (longest, shortest) = ((original / low_freq) as f32, (original / high_freq) as f32);
    let scaled = |&f: &f32| {
        let wave = (2.0 * PI) as f32 / f;
        if wave > longest {
            return f / factor;
        }
        if wave < shortest {
            return f;
        }
        let smooth = (original as f32 / wave - low_freq as f32) / (high_freq - low_freq) as f32;
        (1.0 - smooth) * f / factor + smooth * f
    };
    plain.iter().map(scaled).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::gradient_check::{check as check_gradient, sample};

    #[test]
    fn a_rotation_has_the_bits_of_the_whole_table() {
        let rotary = RotaryPositions::new(6, 10_000.0, RopeScaling::Default).unwrap();
        let whole = Rope::new(6, 4000, 10_000.0).unwrap();
        let positions = IdTensor::batch(&[[3001, 3000, 3999], [3700, 3701, 3702]]).unwrap();
        let x = sample(&[2, 3, 12], 1);
        let ours = rotary.at(&positions).unwrap().forward(&x, 2).unwrap();
        assert_eq!(ours.to_vec(), whole.forward(&x, 2, &positions).unwrap().to_vec());
    }

    #[test]
    fn gradients_match_central_differences() {
        let rotary = RotaryPositions::new(4, 100.0, RopeScaling::Dynamic { factor: 2.0, max_positions: 4 }).unwrap();
        let rotation = rotary.at(&IdTensor::batch(&[[2, 3, 9]]).unwrap()).unwrap();
        check_gradient("rotation", &[sample(&[1, 3, 8], 1)], |x| rotation.forward(&x[0], 2));
    }

    #[test]
    fn dynamic_scaling_begins_after_the_longest_text_of_the_training() {
        let turned = |scaling, position| {
            let rotary = RotaryPositions::new(4, 100.0, scaling).unwrap();
            rotary.at(&IdTensor::sequence(&[position])).unwrap().forward(&sample(&[1, 1, 4], 1), 1).unwrap().to_vec()
        };
        let dynamic = RopeScaling::Dynamic { factor: 2.0, max_positions: 8 };
        assert_eq!(turned(dynamic.clone(), 7), turned(RopeScaling::Default, 7));
        assert_ne!(turned(dynamic, 8), turned(RopeScaling::Default, 8));
    }

    #[test]
    fn numbers_out_of_range_are_errors() {
        let new = |theta, scaling| RotaryPositions::new(4, theta, scaling);
        assert!(new(f64::NAN, RopeScaling::Default).is_err());
        assert!(new(0.0, RopeScaling::Default).is_err());
        assert!(new(1e4, RopeScaling::Linear { factor: 0.0 }).is_err());
        assert!(new(1e4, RopeScaling::Dynamic { factor: 2.0, max_positions: 0 }).is_err());
        let llama3 = |high_freq_factor| RopeScaling::Llama3 {
            factor: 8.0,
            low_freq_factor: 1.0,
            high_freq_factor,
            original_max_positions: 8192,
        };
        assert!(new(1e4, llama3(4.0)).is_ok());
        assert!(new(1e4, llama3(1.0)).is_err());
        let rotary = new(1e4, RopeScaling::Default).unwrap();
        assert!(rotary.at(&IdTensor::sequence(&[0, u32::MAX])).is_err());
    }
}
