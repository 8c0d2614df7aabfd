//! A feed-forward language model over a window of token embeddings.
//!
//! `logits = W·tanh(H·[e(xₜ₋ₙ₊₁); …; e(xₜ)] + d) + b`: Bengio, Ducharme, Vincent, Jauvin, "A Neural
//! Probabilistic Language Model", 2003 (<https://www.jmlr.org/papers/v3/bengio03a.html>), without
//! its optional direct connections, with dropout on the embeddings and the hidden layer. Positions
//! before the start of a text have embeddings of zeros.
//!
//! | tensor | shape |
//! |---|---|
//! | `embedding.weight` | `[vocab_size, d_model]` |
//! | `hidden.weight`, `.bias` | `[d_ff, window · d_model]`, `[d_ff]` |
//! | `head.weight`, `.bias` | `[vocab_size, d_ff]`, `[vocab_size]` |

use serde::{Deserialize, Serialize};

use crate::checkpoint::Pretrained;
use crate::checkpoint::config_keys::{check_dropout, check_sizes};
use crate::error::{Error, Result};
use crate::models::causal::{CausalLm, DecodeState};
use crate::models::family::{Family, Names};
use crate::nn::{Dropout, Embedding, Linear, Module, Parameters};
use crate::ops;
use crate::tensor::{IdTensor, Tensor};

/// The entry of the family registry.
pub(super) const FAMILY: Family = Family {
    model_types: &[MlpConfig::MODEL_TYPE],
    open: Some(|source| {
        let config: MlpConfig = source.config()?;
        source.load(&Names::OWN, false, |p| MlpLm::init(&config, p))
    }),
    ..Family::NONE
};

/// The sizes of an [`MlpLm`]: its `config.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MlpConfig {
    /// Always `"loquat-mlp"`.
    pub model_type: String,
    /// The number of token ids.
    pub vocab_size: usize,
    /// The width of a token embedding.
    pub d_model: usize,
    /// The width of the hidden layer.
    pub d_ff: usize,
    /// The number of tokens in the window.
    pub window: usize,
    /// The dropout probability, in `[0, 1)`.
    pub dropout: f64,
}

impl MlpConfig {
    /// The `model_type` of this architecture.
    pub(crate) const MODEL_TYPE: &'static str = "loquat-mlp";

    /// Returns the configuration of a model of the given sizes, without dropout.
    pub fn new(vocab_size: usize, d_model: usize, d_ff: usize, window: usize) -> Self {
        Self { model_type: Self::MODEL_TYPE.into(), vocab_size, d_model, d_ff, window, dropout: 0.0 }
    }

    /// Checks the sizes.
    ///
    /// # Errors
    /// [`Error::Config`] with the first key that is wrong.
    pub(crate) fn check(&self) -> Result<()> {
        if self.model_type != Self::MODEL_TYPE {
            return Err(Error::config("model_type", Self::MODEL_TYPE, &self.model_type));
        }
        check_sizes([
            ("vocab_size", self.vocab_size),
            ("d_model", self.d_model),
            ("d_ff", self.d_ff),
            ("window", self.window),
        ])?;
        check_dropout([("dropout", self.dropout)])
    }
}

/// A feed-forward language model over a window of token embeddings (Bengio et al. 2003,
/// <https://www.jmlr.org/papers/v3/bengio03a.html>).
///
/// ```
/// use loquat::models::{CausalLm, MlpConfig, MlpLm};
/// use loquat::{IdTensor, Rng};
///
/// let model = MlpLm::init(&MlpConfig::new(20, 8, 16, 3), &mut Rng::seed(1))?;
/// let logits = model.forward(&IdTensor::batch(&[[1, 2, 3, 4]])?)?;
/// assert_eq!(logits.shape(), [1, 4, 20]);
/// # Ok::<(), loquat::Error>(())
/// ```
#[derive(Clone)]
pub struct MlpLm {
    /// Sizes.
    pub config: MlpConfig,
    /// The token embeddings.
    pub embedding: Embedding,
    /// The hidden layer, which reads the window.
    pub hidden: Linear,
    /// The output layer, from the hidden layer to the logits.
    pub head: Linear,
    dropout: Dropout,
}

crate::module!(MlpLm { embedding, hidden, head, dropout; skip config });

impl std::fmt::Debug for MlpLm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "MlpLm(window={}, {})", self.config.window, self.summary().in_short())
    }
}

/// Prints a table of the parameters: [`Module::summary`].
impl std::fmt::Display for MlpLm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.summary())
    }
}

impl MlpLm {
    /// Creates a model with random parameters or with those of a checkpoint.
    ///
    /// # Errors
    /// [`Error::Config`] if sizes are invalid; also the errors of [`Parameters::get`].
    pub fn init<'a>(config: &MlpConfig, p: impl Into<Parameters<'a>>) -> Result<Self> {
        config.check()?;
        let mut p = p.into();
        let &MlpConfig { vocab_size, d_model, d_ff, window, dropout, .. } = config;
        Ok(Self {
            embedding: Embedding::init(vocab_size, d_model, 1.0, p.at("embedding"))?,
            hidden: Linear::init(window.saturating_mul(d_model), d_ff, true, p.at("hidden"))?,
            head: Linear::init(d_ff, vocab_size, true, p.at("head"))?,
            dropout: Dropout::new(dropout as f32),
            config: config.clone(),
        })
    }

    /// Returns the output of the hidden layer at every position.
    fn hidden_states(&self, input_ids: &IdTensor) -> Result<Tensor> {
        let x = self.dropout.forward(&self.embedding.forward(input_ids)?)?; // [B, T, C]
        let x = ops::windows(&x, self.config.window)?; // [B, T, window · C]
        self.dropout.forward(&self.hidden.forward(&x)?.tanh())
    }
}

impl Pretrained for MlpLm {
    fn config_json(&self) -> serde_json::Value {
        serde_json::json!(self.config)
    }
}

/// The decoding state of an [`MlpLm`]: the last tokens of each sequence.
#[derive(Clone, Debug)]
pub struct MlpState {
    tokens: Vec<Vec<u32>>,
    read: usize,
}

impl DecodeState for MlpState {
    fn len(&self) -> usize {
        self.read
    }
}

impl CausalLm for MlpLm {
    type State = MlpState;

    fn vocab_size(&self) -> usize {
        self.config.vocab_size
    }

    fn max_seq_len(&self) -> Option<usize> {
        None
    }

    fn forward(&self, input_ids: &IdTensor) -> Result<Tensor> {
        self.head.forward(&self.hidden_states(input_ids)?)
    }

    fn new_state(&self, batch: usize) -> MlpState {
        MlpState { tokens: vec![Vec::new(); batch], read: 0 }
    }

    fn decode(&self, input_ids: &IdTensor, state: &mut MlpState) -> Result<Tensor> {
        let (batch, new_len) = input_ids.batch_and_len()?;
        if batch != state.tokens.len() || new_len == 0 {
            return Err(Error::shape("input_ids", format!("[{}, at least 1]", state.tokens.len()), input_ids.shape()));
        }
        input_ids.check_below(self.config.vocab_size, "token id")?;
        for (tokens, new) in state.tokens.iter_mut().zip(input_ids.data().chunks_exact(new_len)) {
            tokens.extend_from_slice(new);
            tokens.drain(..tokens.len().saturating_sub(self.config.window));
        }
        state.read += new_len;
        let x = self.hidden_states(&IdTensor::batch(&state.tokens)?)?;
        let last = x.narrow(1, x.shape()[1] - 1, 1)?.reshape(&[batch, self.config.d_ff])?;
        self.head.forward(&last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Rng;

    #[test]
    fn decoding_token_by_token_gives_the_bits_of_the_whole() {
        let model = MlpLm::init(&MlpConfig::new(11, 6, 9, 3), &mut Rng::seed(1)).unwrap();
        let ids = [3, 1, 4, 1, 5, 9, 2, 6];
        let whole = model.forward(&IdTensor::sequence(&ids)).unwrap();
        let mut state = model.new_state(1);
        for (t, &id) in ids.iter().enumerate() {
            let logits = model.decode(&IdTensor::sequence(&[id]), &mut state).unwrap();
            assert_eq!(logits.data(), &whole.data()[t * 11..][..11], "position {t}");
        }
        let mut state = model.new_state(1);
        let logits = model.decode(&IdTensor::sequence(&ids), &mut state).unwrap();
        assert_eq!(logits.data(), &whole.data()[7 * 11..]);
    }

    #[test]
    fn invalid_sizes_are_errors() {
        let config = MlpConfig { window: 0, ..MlpConfig::new(11, 6, 9, 3) };
        assert!(MlpLm::init(&config, &mut Rng::seed(1)).is_err());
    }
}
