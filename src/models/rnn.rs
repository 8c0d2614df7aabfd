//! A recurrent language model: Mikolov et al., "Recurrent neural network based language model",
//! 2010; with LSTM or GRU cells as in PyTorch's `word_language_model` example.
//!
//! `logits = W·rnn(e(x)) + b`, with dropout on the embeddings, between the layers, and before the
//! output layer.
//!
//! | tensor | shape |
//! |---|---|
//! | `embedding.weight` | `[vocab_size, d_model]` |
//! | `rnn.weight_ih_l0`, `rnn.weight_hh_l0`, … | as in `torch.nn.LSTM`, `GRU`, `RNN` |
//! | `head.weight`, `.bias` | `[vocab_size, d_model]`, `[vocab_size]` |

use serde::{Deserialize, Serialize};

use crate::checkpoint::Pretrained;
use crate::checkpoint::config_keys::{check_dropout, check_sizes};
use crate::error::{Error, Result};
use crate::models::causal::{CausalLm, DecodeState};
use crate::models::family::{Family, Names};
use crate::nn::{Dropout, Embedding, Linear, Module, Parameters, Recurrent, RecurrentConfig, RecurrentState};
use crate::ops::Cell;
use crate::tensor::{IdTensor, Tensor};

/// The entry of the family registry.
pub(super) const FAMILY: Family = Family {
    model_types: &[RnnConfig::MODEL_TYPE],
    open: Some(|source| {
        let config: RnnConfig = source.config()?;
        source.load(&Names::OWN, false, |p| RnnLm::init(&config, p))
    }),
    ..Family::NONE
};

/// The recurrent cell of an [`RnnLm`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CellType {
    /// The plain (Elman) cell: `tanh` of input and state.
    Rnn,
    /// Long short-term memory.
    Lstm,
    /// Gated recurrent unit.
    Gru,
}

/// The sizes of an [`RnnLm`]: its `config.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RnnConfig {
    /// Always `"loquat-rnn"`.
    pub model_type: String,
    /// The kind of cell.
    pub cell: CellType,
    /// The number of token ids.
    pub vocab_size: usize,
    /// The width of a token embedding and of the state.
    pub d_model: usize,
    /// The number of layers.
    pub n_layers: usize,
    /// The dropout probability, in `[0, 1)`.
    pub dropout: f64,
}

impl RnnConfig {
    /// The `model_type` of this architecture.
    pub(crate) const MODEL_TYPE: &'static str = "loquat-rnn";

    /// Returns the configuration of a model of the given sizes, without dropout.
    pub fn new(cell: CellType, vocab_size: usize, d_model: usize, n_layers: usize) -> Self {
        Self { model_type: Self::MODEL_TYPE.into(), cell, vocab_size, d_model, n_layers, dropout: 0.0 }
    }

    /// Checks the sizes.
    ///
    /// # Errors
    /// [`Error::Config`] with the first key that is wrong.
    pub(crate) fn check(&self) -> Result<()> {
        if self.model_type != Self::MODEL_TYPE {
            return Err(Error::config("model_type", Self::MODEL_TYPE, &self.model_type));
        }
        check_sizes([("vocab_size", self.vocab_size), ("d_model", self.d_model), ("n_layers", self.n_layers)])?;
        check_dropout([("dropout", self.dropout)])
    }
}

/// A recurrent language model (Mikolov et al. 2010) with the cells of PyTorch: plain, LSTM or GRU.
///
/// ```
/// use loquat::models::{CausalLm, CellType, RnnConfig, RnnLm};
/// use loquat::{IdTensor, Rng};
///
/// let model = RnnLm::init(&RnnConfig::new(CellType::Gru, 20, 8, 2), &mut Rng::seed(1))?;
/// let logits = model.forward(&IdTensor::batch(&[[1, 2, 3, 4]])?)?;
/// assert_eq!(logits.shape(), [1, 4, 20]);
/// # Ok::<(), loquat::Error>(())
/// ```
#[derive(Clone)]
pub struct RnnLm {
    /// Sizes.
    pub config: RnnConfig,
    /// The token embeddings.
    pub embedding: Embedding,
    /// The recurrent layers.
    pub rnn: Recurrent,
    /// The output layer, from the state to the logits.
    pub head: Linear,
    dropout: Dropout,
}

crate::module!(RnnLm { embedding, rnn, head, dropout; skip config });

impl std::fmt::Debug for RnnLm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let RnnConfig { cell, n_layers, .. } = &self.config;
        write!(f, "RnnLm({cell:?}, {})", self.summary().of_layers(*n_layers))
    }
}

/// Prints a table of the parameters: [`Module::summary`].
impl std::fmt::Display for RnnLm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.summary())
    }
}

impl RnnLm {
    /// Creates a model with random parameters or with those of a checkpoint.
    ///
    /// # Errors
    /// [`Error::Config`] if sizes are invalid; also the errors of [`Parameters::get`].
    pub fn init<'a>(config: &RnnConfig, p: impl Into<Parameters<'a>>) -> Result<Self> {
        config.check()?;
        let mut p = p.into();
        let &RnnConfig { cell, vocab_size, d_model, n_layers, dropout, .. } = config;
        let cell = match cell {
            CellType::Rnn => Cell::RnnTanh,
            CellType::Lstm => Cell::Lstm,
            CellType::Gru => Cell::Gru,
        };
        let between = if n_layers > 1 { dropout as f32 } else { 0.0 };
        let layers = RecurrentConfig::new(d_model, d_model).layers(n_layers).dropout(between);
        Ok(Self {
            embedding: Embedding::init(vocab_size, d_model, 1.0, p.at("embedding"))?,
            rnn: Recurrent::init(cell, &layers, p.at("rnn"))?,
            head: Linear::init(d_model, vocab_size, true, p.at("head"))?,
            dropout: Dropout::new(dropout as f32),
            config: config.clone(),
        })
    }

    /// Returns the top layer's state at every position, and the state after the last position.
    fn hidden_states(&self, ids: &IdTensor, state: Option<&RecurrentState>) -> Result<(Tensor, RecurrentState)> {
        let x = self.dropout.forward(&self.embedding.forward(ids)?)?; // [B, T, C]
        let (x, state) = self.rnn.forward(&x, state, None)?;
        Ok((self.dropout.forward(&x)?, state))
    }
}

impl Pretrained for RnnLm {
    fn config_json(&self) -> serde_json::Value {
        serde_json::json!(self.config)
    }
}

/// The decoding state of an [`RnnLm`]: the states of the layers.
#[derive(Clone, Debug)]
pub struct RnnState {
    state: Option<RecurrentState>,
    batch: usize,
    read: usize,
}

impl DecodeState for RnnState {
    fn len(&self) -> usize {
        self.read
    }
}

impl CausalLm for RnnLm {
    type State = RnnState;

    fn vocab_size(&self) -> usize {
        self.config.vocab_size
    }

    fn max_seq_len(&self) -> Option<usize> {
        None
    }

    fn forward(&self, input_ids: &IdTensor) -> Result<Tensor> {
        input_ids.batch_and_len()?;
        self.head.forward(&self.hidden_states(input_ids, None)?.0)
    }

    fn new_state(&self, batch: usize) -> RnnState {
        RnnState { state: None, batch, read: 0 }
    }

    fn decode(&self, input_ids: &IdTensor, state: &mut RnnState) -> Result<Tensor> {
        let (batch, new_len) = input_ids.batch_and_len()?;
        if batch != state.batch || new_len == 0 {
            return Err(Error::shape("input_ids", format!("[{}, at least 1]", state.batch), input_ids.shape()));
        }
        let (x, after) = self.hidden_states(input_ids, state.state.as_ref())?;
        state.state = Some(after);
        state.read += new_len;
        let last = x.narrow(1, new_len - 1, 1)?.reshape(&[batch, self.config.d_model])?;
        self.head.forward(&last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::Module;
    use crate::random::Rng;
    use crate::tensor::no_grad;

    #[test]
    fn decoding_token_by_token_gives_the_bits_of_the_whole() {
        for cell in [CellType::Rnn, CellType::Lstm, CellType::Gru] {
            let model = RnnLm::init(&RnnConfig::new(cell, 11, 6, 2), &mut Rng::seed(1)).unwrap();
            let ids = [3, 1, 4, 1, 5, 9, 2, 6];
            let whole = no_grad(|| model.forward(&IdTensor::sequence(&ids))).unwrap();
            let mut state = model.new_state(1);
            for (t, &id) in ids.iter().enumerate() {
                let logits = no_grad(|| model.decode(&IdTensor::sequence(&[id]), &mut state)).unwrap();
                assert_eq!(logits.data(), &whole.data()[t * 11..][..11], "{cell:?}, position {t}");
            }
        }
    }

    #[test]
    fn every_parameter_gets_a_gradient() {
        let model = RnnLm::init(&RnnConfig::new(CellType::Lstm, 11, 6, 2), &mut Rng::seed(1)).unwrap();
        let logits = model.forward(&IdTensor::sequence(&[1, 2, 3])).unwrap();
        let loss = crate::ops::cross_entropy(&logits, &IdTensor::sequence(&[2, 3, 4])).unwrap();
        assert!(model.without_gradient(&loss.backward().unwrap()).is_empty());
    }
}
