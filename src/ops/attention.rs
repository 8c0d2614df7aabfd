//! Scaled dot-product attention with many heads (Vaswani et al. 2017, "Attention is all you need").
//!
//! ```text
//! scores = q·kᵀ · scale + mask,   probs = softmax(scores),   output = probs·v
//! ```
//!
//! for each head, a head being `head_dim` neighbouring columns of `[batch, seq_len, n_heads · head_dim]`. Keys and values may
//! have fewer heads, each shared by a group of neighbouring query heads (Ainslie et al. 2023, "GQA"). What a query may see is an
//! [`AttentionMask`].
//!
//! ```
//! use loquat::{Rng, Tensor, ops::{Attention, AttentionMask}};
//!
//! let x = Tensor::normal(&[2, 5, 12], 1.0, &mut Rng::seed(1));
//! let y = Attention::new(3).forward(&x, &x, &x, &AttentionMask::causal())?;
//! assert_eq!(y.shape(), [2, 5, 12]);
//! // The first token sees only itself.
//! assert!(y.data()[..12].iter().zip(x.data()).all(|(y, x)| (y - x).abs() < 1e-6));
//! # Ok::<(), loquat::Error>(())
//! ```

use crate::error::{Error, Result};
use crate::ops::dropout::dropout_with_key;
use crate::ops::mask::{AttentionMask, Resolved};
use crate::tensor::{Tensor, tape};

/// The settings of an attention.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Attention {
    /// Heads of the queries.
    pub n_heads: usize,
    /// Heads of the keys and values, a divisor of `n_heads`.
    pub n_kv_heads: usize,
    /// What scores are multiplied by; `1/√head_dim` if not given.
    pub scale: Option<f32>,
    /// Dropout of the probabilities: the share that becomes zero, in `[0, 1)`, and the key of the random numbers.
    pub dropout: Option<(f32, u64)>,
}

/// Lengths of the axes.
struct Dims {
    batch: usize,
    queries: usize,
    keys: usize,
    head_dim: usize,
    value_dim: usize,
    scale: f32,
}

impl Attention {
    /// `n_heads` heads of queries, keys and values, the usual scale, no dropout.
    pub fn new(n_heads: usize) -> Self {
        Self { n_heads, n_kv_heads: n_heads, scale: None, dropout: None }
    }

    /// # Shapes
    /// `query: [batch, queries, n_heads · head_dim]`, `key: [batch, keys, n_kv_heads · head_dim]`,
    /// `value: [batch, keys, n_kv_heads · value_dim]` → `[batch, queries, n_heads · value_dim]`.
    ///
    /// # Errors
    /// [`Error::Shape`] if the shapes or the mask do not fit; [`Error::Argument`] if heads do not divide.
    pub fn forward(&self, query: &Tensor, key: &Tensor, value: &Tensor, mask: &AttentionMask) -> Result<Tensor> {
        Ok(self.with_probs(query, key, value, mask)?.0)
    }

    /// As [`Attention::forward`], with the probabilities (before dropout) beside.
    ///
    /// This is the formula in small operations, with a matrix of queries by keys in memory.
    ///
    /// # Shapes
    /// As there; the probabilities are `[batch, n_heads, queries, keys]`.
    ///
    /// # Errors
    /// As there.
    pub fn with_probs(
        &self,
        query: &Tensor,
        key: &Tensor,
        value: &Tensor,
        mask: &AttentionMask,
    ) -> Result<(Tensor, Tensor)> {
        let dims = self.dims(query, key, value)?;
        let mask = mask.resolve(dims.batch, self.n_heads, dims.queries, dims.keys)?;
        self.composed(query, key, value, &dims, &mask)
    }

    /// Self-attention from the output of one projection: each row is the query, the key and the value of a position, one after
    /// the other.
    ///
    /// # Shapes
    /// `qkv: [batch, seq_len, (n_heads + 2 · n_kv_heads) · head_dim]` → `[batch, seq_len, n_heads · head_dim]`.
    ///
    /// # Errors
    /// As for [`Attention::forward`].
    pub fn forward_packed(&self, qkv: &Tensor, mask: &AttentionMask) -> Result<Tensor> {
        let heads = self.n_heads + 2 * self.n_kv_heads;
        let width = qkv.last_dim();
        if qkv.rank() != 3 || heads == 0 || width % heads != 0 {
            return Err(Error::shape("attention", format!("[batch, seq_len, {heads} · head_dim]"), qkv.shape()));
        }
        let (query, kv) = (width / heads * self.n_heads, width / heads * self.n_kv_heads);
        let q = qkv.narrow(-1, 0, query)?;
        self.forward(&q, &qkv.narrow(-1, query, kv)?, &qkv.narrow(-1, query + kv, kv)?, mask)
    }

    /// Attention of new queries over the first `len` positions of a cache, which may have room for more; without gradients.
    ///
    /// # Shapes
    /// As for [`Attention::forward`], `keys` and `values` with at least `len` positions.
    ///
    /// # Errors
    /// As there; [`Error::NoGradient`] if an input needs a gradient.
    pub fn forward_cached(
        &self,
        query: &Tensor,
        keys: &Tensor,
        values: &Tensor,
        len: usize,
        mask: &AttentionMask,
    ) -> Result<Tensor> {
        tape::refuse("attention over a cache", &[query, keys, values])?;
        self.forward(query, &keys.narrow(1, 0, len)?, &values.narrow(1, 0, len)?, mask)
    }

    fn dims(&self, query: &Tensor, key: &Tensor, value: &Tensor) -> Result<Dims> {
        let &[batch, queries, q_width] = query.shape() else {
            return Err(Error::shape("attention query", "[batch, queries, n_heads · head_dim]", query.shape()));
        };
        if self.n_kv_heads == 0 || self.n_heads % self.n_kv_heads != 0 {
            let expected = format!("a divisor of the {} query heads", self.n_heads);
            return Err(Error::argument("attention key/value heads", expected, self.n_kv_heads));
        }
        if self.n_heads == 0 || q_width % self.n_heads != 0 {
            return Err(Error::argument("attention heads", format!("a divisor of the width {q_width}"), self.n_heads));
        }
        let head_dim = q_width / self.n_heads;
        let keys = match *key.shape() {
            [b, keys, width] if b == batch && width == self.n_kv_heads * head_dim => keys,
            _ => {
                let expected = format!("[{batch}, keys, {}]", self.n_kv_heads * head_dim);
                return Err(Error::shape("attention key", expected, key.shape()));
            }
        };
        let value_dim = match *value.shape() {
            [b, s, width] if b == batch && s == keys && width % self.n_kv_heads == 0 => width / self.n_kv_heads,
            _ => {
                let expected = format!("[{batch}, {keys}, a multiple of {}]", self.n_kv_heads);
                return Err(Error::shape("attention value", expected, value.shape()));
            }
        };
        let scale = self.scale.unwrap_or(1.0 / (head_dim.max(1) as f32).sqrt());
        Ok(Dims { batch, queries, keys, head_dim, value_dim, scale })
    }

    /// The formula in small operations: output and probabilities.
    fn composed(
        &self,
        query: &Tensor,
        key: &Tensor,
        value: &Tensor,
        dims: &Dims,
        mask: &Resolved,
    ) -> Result<(Tensor, Tensor)> {
        let &Dims { batch, queries, keys, head_dim, value_dim, scale } = dims;
        let (n_heads, n_kv_heads) = (self.n_heads, self.n_kv_heads);
        // [B, S, H·D] → [B, H, S, D]
        let heads = |x: &Tensor, len, heads, dim| x.reshape(&[batch, len, heads, dim])?.permute(&[0, 2, 1, 3]);
        // The queries of one group of heads stand below each other: [B, n_kv_heads, group·T, D].
        let grouped = [batch, n_kv_heads, n_heads / n_kv_heads * queries];
        let q = heads(query, queries, n_heads, head_dim)?.reshape(&[&grouped[..], &[head_dim]].concat())?;
        let k = heads(key, keys, n_kv_heads, head_dim)?;
        let v = heads(value, keys, n_kv_heads, value_dim)?;
        let mut scores = q.matmul_transposed(&k)?.scale(scale).reshape(&[batch, n_heads, queries, keys])?;
        if let Some(mask) = mask.dense()? {
            scores = scores.add(&mask)?;
        }
        let probs = scores.softmax()?;
        let dropped = match self.dropout {
            Some((p, key)) => dropout_with_key(&probs, p, key)?,
            None => probs.clone(),
        };
        let output = dropped
            .reshape(&[&grouped[..], &[keys]].concat())?
            .matmul(&v)?
            .reshape(&[batch, n_heads, queries, value_dim])?
            .permute(&[0, 2, 1, 3])?
            .reshape(&[batch, queries, n_heads * value_dim])?;
        Ok((output, probs))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::gradient_check::{check, sample};
    use crate::tensor::IdTensor;

    /// `(name, heads, kv heads, batch, queries, keys, head_dim, value_dim, mask)`.
    fn cases() -> Vec<(&'static str, [usize; 7], AttentionMask)> {
        let padding = |rows: &[[u32; 5]]| AttentionMask::padding(&IdTensor::batch(rows).unwrap());
        let right = padding(&[[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]]);
        let left = padding(&[[0, 0, 1, 1, 1], [0, 1, 1, 1, 1]]);
        let holes = padding(&[[1, 0, 1, 0, 1], [1, 1, 0, 1, 0]]);
        let window = AttentionMask::allowed(&IdTensor::batch(&[[1, 1, 0, 0, 1], [0, 1, 1, 0, 0], [0; 5]]).unwrap());
        vec![
            ("one", [1, 1, 1, 1, 1, 1, 1], AttentionMask::none()),
            ("plain", [2, 2, 2, 3, 5, 3, 3], AttentionMask::none()),
            ("other value width", [2, 2, 1, 3, 4, 3, 5], AttentionMask::none()),
            ("causal", [2, 2, 2, 5, 5, 3, 3], AttentionMask::causal()),
            ("causal with an offset", [1, 1, 2, 2, 5, 3, 3], AttentionMask::causal()),
            ("grouped", [6, 2, 1, 3, 4, 3, 3], AttentionMask::causal()),
            ("one key head", [3, 1, 2, 2, 5, 4, 4], right.clone()),
            ("right padding", [2, 2, 2, 3, 5, 3, 3], right),
            ("left padding, causal", [2, 1, 2, 5, 5, 3, 3], left.and(&AttentionMask::causal())),
            ("holes", [2, 2, 2, 3, 5, 3, 3], holes),
            ("any, a row without keys", [2, 2, 1, 3, 5, 3, 3], window),
        ]
    }

    fn inputs(&[h, hk, b, t, s, d, dv]: &[usize; 7]) -> [Tensor; 3] {
        [sample(&[b, t, h * d], 1), sample(&[b, s, hk * d], 2), sample(&[b, s, hk * dv], 3)]
    }

    fn settings(dims: &[usize; 7]) -> Attention {
        Attention { n_kv_heads: dims[1], ..Attention::new(dims[0]) }
    }

    #[test]
    fn gradients_match_central_differences() {
        for (name, dims, mask) in cases() {
            let attention = settings(&dims);
            check(name, &inputs(&dims), |x| attention.forward(&x[0], &x[1], &x[2], &mask));
        }
        let dims = [2, 2, 1, 3, 4, 3, 3];
        let dropped = Attention { dropout: Some((0.4, 7)), scale: Some(0.3), ..settings(&dims) };
        check("dropout", &inputs(&dims), |x| dropped.forward(&x[0], &x[1], &x[2], &AttentionMask::none()));
        let [q, k, v] = inputs(&dims);
        for shape in [&[3, 4][..], &[1, 2, 3, 4], &[1, 2, 1, 4]] {
            check("bias", &[q.clone(), k.clone(), v.clone(), sample(shape, 4)], |x| {
                settings(&dims).forward(&x[0], &x[1], &x[2], &AttentionMask::additive(&x[3]))
            });
        }
        check("self-attention from one tensor", &[sample(&[2, 3, 8], 1)], |x| {
            Attention { n_kv_heads: 1, ..Attention::new(2) }.forward_packed(&x[0], &AttentionMask::causal())
        });
    }

    /// The formula, one query at a time.
    fn naive(dims: &[usize; 7], mask: &AttentionMask, [q, k, v]: &[Tensor; 3]) -> Vec<f32> {
        let &[h, hk, b, t, s, d, dv] = dims;
        let resolved = mask.resolve(b, h, t, s).unwrap().dense().unwrap();
        let mask = resolved.map_or(Tensor::zeros(&[b, h, t, s]), |m| m.add(&Tensor::zeros(&[b, h, t, s])).unwrap());
        let mut out = vec![0.0; b * t * h * dv];
        for (bi, hi, ti) in (0..b * h * t).map(|i| (i / (h * t), i / t % h, i % t)) {
            let group = hi / (h / hk);
            let score = |si: usize| -> f64 {
                let dot: f64 = (0..d)
                    .map(|j| {
                        f64::from(
                            q.data()[(bi * t + ti) * h * d + hi * d + j]
                                * k.data()[(bi * s + si) * hk * d + group * d + j],
                        )
                    })
                    .sum();
                dot / (d as f64).sqrt() + f64::from(mask.data()[((bi * h + hi) * t + ti) * s + si])
            };
            let scores: Vec<f64> = (0..s).map(score).collect();
            let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            if max == f64::NEG_INFINITY {
                continue;
            }
            let sum: f64 = scores.iter().map(|x| (x - max).exp()).sum();
            for j in 0..dv {
                let y: f64 = (0..s)
                    .map(|si| {
                        (scores[si] - max).exp() / sum * f64::from(v.data()[(bi * s + si) * hk * dv + group * dv + j])
                    })
                    .sum();
                out[(bi * t + ti) * h * dv + hi * dv + j] = y as f32;
            }
        }
        out
    }

    #[test]
    fn output_matches_the_formula_and_probabilities_sum_to_one_or_zero() {
        for (name, dims, mask) in cases() {
            let x = inputs(&dims);
            let y = settings(&dims).forward(&x[0], &x[1], &x[2], &mask).unwrap();
            let (again, probs) = settings(&dims).with_probs(&x[0], &x[1], &x[2], &mask).unwrap();
            for (y, expected) in [&y, &again].iter().flat_map(|y| y.data().iter().zip(naive(&dims, &mask, &x))) {
                assert!((y - expected).abs() < 1e-5, "{name}: {y}, expected {expected}");
            }
            for row in probs.data().chunks(dims[4]) {
                let sum: f32 = row.iter().sum();
                assert!((sum - 1.0).abs() < 1e-5 || sum == 0.0, "{name}: {sum}");
            }
        }
    }

    #[test]
    fn the_future_cannot_change_the_past() {
        let (x, attention) = (sample(&[1, 9, 8], 1), Attention::new(2));
        let mut other = x.clone();
        other.make_mut()[5 * 8..].fill(7.0);
        let y = attention.forward(&x, &x, &x, &AttentionMask::causal()).unwrap();
        let z = attention.forward(&other, &other, &other, &AttentionMask::causal()).unwrap();
        assert_eq!(y.data()[..5 * 8], z.data()[..5 * 8]);
        assert_ne!(y.data()[5 * 8..], z.data()[5 * 8..]);
    }

    #[test]
    fn shapes_that_do_not_fit_are_errors() {
        let x = Tensor::zeros(&[2, 3, 8]);
        let none = AttentionMask::none();
        assert!(Attention::new(3).forward(&x, &x, &x, &none).is_err());
        assert!(Attention::new(0).forward(&x, &x, &x, &none).is_err());
        assert!(Attention { n_kv_heads: 3, ..Attention::new(4) }.forward(&x, &x, &x, &none).is_err());
        assert!(Attention::new(2).forward(&x, &Tensor::zeros(&[2, 3, 4]), &x, &none).is_err());
        assert!(Attention::new(2).forward(&x, &x, &Tensor::zeros(&[2, 4, 8]), &none).is_err());
        assert!(Attention::new(2).forward(&Tensor::zeros(&[3, 8]), &x, &x, &none).is_err());
        assert!(Attention::new(2).forward_cached(&x.watch(), &x, &x, 2, &none).is_err());
    }
}
