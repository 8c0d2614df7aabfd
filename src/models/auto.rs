//! Opens a model folder, whatever architecture its `config.json` names.

use std::path::Path;

use serde_json::Value;

use crate::checkpoint::gguf::{self, GgufFile};
use crate::checkpoint::pretrained::CONFIG;
use crate::checkpoint::recognise;
use crate::checkpoint::{Checkpoint, OpenOptions, Pretrained, is_gguf};
use crate::error::{Error, Result};
use crate::mapped::Load;
use crate::models::causal::{CausalLm, DecodeState, LogitLens};
use crate::models::gpt2::{self, Gpt2, Gpt2Config};
use crate::models::llama::{self, Llama, LlamaConfig};
use crate::models::mlp::{self, MlpConfig, MlpLm};
use crate::models::rnn::{self, RnnConfig, RnnLm};
use crate::nn::{KvCache, Module, Parameter};
use crate::tensor::{IdTensor, Tensor};

/// A causal language model of any architecture that this crate knows.
///
/// ```no_run
/// use loquat::models::LanguageModel;
///
/// let model = LanguageModel::open("models/gpt2")?;
/// # Ok::<(), loquat::Error>(())
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum LanguageModel {
    /// GPT-2.
    Gpt2(Box<Gpt2>),
    /// Llama, Mistral, Qwen2 or Qwen3.
    Llama(Box<Llama>),
    /// A recurrent model.
    Rnn(Box<RnnLm>),
    /// A feed-forward model.
    Mlp(Box<MlpLm>),
}

/// The memory of a [`LanguageModel`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum LanguageModelState {
    /// Of [`Gpt2`].
    Gpt2(KvCache),
    /// Of [`Llama`].
    Llama(KvCache),
    /// Of [`RnnLm`].
    Rnn(rnn::Memory),
    /// Of [`MlpLm`].
    Mlp(mlp::Window),
}

/// The content of a folder's `config.json`, or what a `.gguf` file says in its stead.
///
/// # Errors
/// [`Error::Io`] if it cannot be read; [`Error::Format`] if it is no JSON object, or if there is
/// something else than a model, with what it is and what to do.
pub fn read_config(folder: impl AsRef<Path>) -> Result<Value> {
    if is_gguf(&folder) {
        return gguf::config::config_json(&GgufFile::open(folder, Load::Mmap)?);
    }
    let path = folder.as_ref().join(CONFIG);
    if !path.is_file() {
        return Err(recognise::no_config(folder.as_ref())?);
    }
    let text = std::fs::read_to_string(&path).map_err(|e| Error::io(&path, e))?;
    let config: Value = serde_json::from_str(&text).map_err(|e| Error::format(&path, e.to_string()))?;
    if !config.is_object() {
        return Err(Error::format(path, "expected a JSON object"));
    }
    Ok(config)
}

/// The configuration of an architecture out of JSON; what does not fit names its key.
fn parse<C: serde::de::DeserializeOwned>(folder: &Path, config: &Value) -> Result<C> {
    C::deserialize(config).map_err(|e| Error::format(folder.join(CONFIG), e.to_string()))
}

impl LanguageModel {
    /// Opens a folder with `config.json` and `model.safetensors`, or a `.gguf` file, mapped into memory, its weights as they are: half precision
    /// stays half, and is not trained. Training begins with [`LanguageModel::open_with`] and [`WeightFormat::F32`](crate::checkpoint::WeightFormat::F32).
    ///
    /// # Errors
    /// [`Error::Config`] for an architecture or option that is not known; [`Error::Load`] with every tensor that does not fit;
    /// [`Error::Format`] or [`Error::Io`] for files that cannot be read.
    pub fn open(folder: impl AsRef<Path>) -> Result<Self> {
        Self::open_with(folder, &OpenOptions::default())
    }

    /// As [`LanguageModel::open`], in a format and a way of choice.
    ///
    /// # Errors
    /// As there.
    pub fn open_with(folder: impl AsRef<Path>, options: &OpenOptions) -> Result<Self> {
        let folder = folder.as_ref();
        let config = read_config(folder)?;
        let open = || Checkpoint::open_with(folder, options.load);
        match config.get("model_type").and_then(Value::as_str) {
            Some("gpt2") => {
                let config: Gpt2Config = parse(folder, &config)?;
                config.check()?;
                let checkpoint = open()?;
                let mut loader = checkpoint
                    .loader()
                    .options(options)
                    .optional_prefix(gpt2::PREFIX)
                    .ignore(|name| gpt2::IGNORED.iter().any(|end| name.ends_with(end)));
                if config.tie_word_embeddings {
                    loader = loader.tie("transformer.wte.weight", "lm_head.weight");
                }
                Ok(Self::Gpt2(Box::new(loader.load(|p| Gpt2::init(&config, p))?)))
            }
            Some(model_type) if llama::MODEL_TYPES.contains(&model_type) => {
                let config = LlamaConfig::from_json(&config)?;
                let checkpoint = open()?;
                let mut loader = checkpoint
                    .loader()
                    .options(options)
                    .optional_prefix(llama::PREFIX)
                    .ignore(|name| llama::IGNORED.iter().any(|end| name.ends_with(end)));
                if config.tie_word_embeddings {
                    loader = loader.tie("model.embed_tokens.weight", "lm_head.weight");
                }
                Ok(Self::Llama(Box::new(loader.load(|p| Llama::init(&config, p))?)))
            }
            Some(RnnConfig::MODEL_TYPE) => {
                let config: RnnConfig = parse(folder, &config)?;
                let checkpoint = open()?;
                Ok(Self::Rnn(Box::new(checkpoint.loader().options(options).load(|p| RnnLm::init(&config, p))?)))
            }
            Some(MlpConfig::MODEL_TYPE) => {
                let config: MlpConfig = parse(folder, &config)?;
                let checkpoint = open()?;
                Ok(Self::Mlp(Box::new(checkpoint.loader().options(options).load(|p| MlpLm::init(&config, p))?)))
            }
            other => Err(Error::Config {
                key: "model_type".into(),
                expected: format!(
                    "gpt2, {}, {} or {}",
                    llama::MODEL_TYPES.join(", "),
                    RnnConfig::MODEL_TYPE,
                    MlpConfig::MODEL_TYPE
                ),
                found: other.unwrap_or("none").into(),
            }),
        }
    }
}

impl Module for LanguageModel {
    fn visit<'m>(&'m self, path: &str, f: &mut dyn FnMut(&str, &'m Parameter)) {
        match self {
            Self::Gpt2(model) => model.visit(path, f),
            Self::Llama(model) => model.visit(path, f),
            Self::Rnn(model) => model.visit(path, f),
            Self::Mlp(model) => model.visit(path, f),
        }
    }

    fn visit_mut(&mut self, path: &str, f: &mut dyn FnMut(&str, &mut Parameter)) {
        match self {
            Self::Gpt2(model) => model.visit_mut(path, f),
            Self::Llama(model) => model.visit_mut(path, f),
            Self::Rnn(model) => model.visit_mut(path, f),
            Self::Mlp(model) => model.visit_mut(path, f),
        }
    }
}

impl Pretrained for LanguageModel {
    fn config_json(&self) -> Value {
        match self {
            Self::Gpt2(model) => model.config_json(),
            Self::Llama(model) => model.config_json(),
            Self::Rnn(model) => model.config_json(),
            Self::Mlp(model) => model.config_json(),
        }
    }
}

impl DecodeState for LanguageModelState {
    fn len(&self) -> usize {
        match self {
            Self::Gpt2(state) | Self::Llama(state) => state.len(),
            Self::Rnn(state) => state.len(),
            Self::Mlp(state) => state.len(),
        }
    }

    fn kv_cache(&self) -> Option<&KvCache> {
        match self {
            Self::Gpt2(state) | Self::Llama(state) => Some(state),
            Self::Rnn(_) | Self::Mlp(_) => None,
        }
    }

    fn kv_cache_mut(&mut self) -> Option<&mut KvCache> {
        match self {
            Self::Gpt2(state) | Self::Llama(state) => Some(state),
            Self::Rnn(_) | Self::Mlp(_) => None,
        }
    }

    fn can_truncate(&self) -> bool {
        matches!(self, Self::Gpt2(_) | Self::Llama(_))
    }

    fn truncate(&mut self, len: usize) -> bool {
        match self {
            Self::Gpt2(state) | Self::Llama(state) => DecodeState::truncate(state, len),
            Self::Rnn(state) => state.truncate(len),
            Self::Mlp(state) => state.truncate(len),
        }
    }
}

/// The states of an architecture, if all are.
macro_rules! states {
    ($states:ident, $architecture:ident) => {
        $states
            .iter_mut()
            .map(|state| match &mut **state {
                LanguageModelState::$architecture(state) => Ok(state),
                _ => Err(another_state()),
            })
            .collect::<Result<Vec<_>>>()?
    };
}

fn another_state() -> Error {
    Error::argument("state", "one made by this model's new_state", "another architecture's")
}

impl LogitLens for LanguageModel {
    /// # Errors
    /// As there; [`Error::Config`] for a model without layers of one width.
    fn unembed(&self, hidden_states: &Tensor) -> Result<Tensor> {
        match self {
            Self::Gpt2(model) => model.unembed(hidden_states),
            Self::Llama(model) => model.unembed(hidden_states),
            Self::Rnn(_) | Self::Mlp(_) => Err(Error::Config {
                key: "model_type".into(),
                expected: "a Transformer, for the logit lens".into(),
                found: "a recurrent or feed-forward model".into(),
            }),
        }
    }
}

impl CausalLm for LanguageModel {
    type State = LanguageModelState;

    fn vocab_size(&self) -> usize {
        match self {
            Self::Gpt2(model) => model.vocab_size(),
            Self::Llama(model) => model.vocab_size(),
            Self::Rnn(model) => model.vocab_size(),
            Self::Mlp(model) => model.vocab_size(),
        }
    }

    fn max_seq_len(&self) -> Option<usize> {
        match self {
            Self::Gpt2(model) => model.max_seq_len(),
            Self::Llama(model) => model.max_seq_len(),
            Self::Rnn(model) => model.max_seq_len(),
            Self::Mlp(model) => model.max_seq_len(),
        }
    }

    fn forward(&self, input_ids: &IdTensor) -> Result<Tensor> {
        match self {
            Self::Gpt2(model) => model.forward(input_ids),
            Self::Llama(model) => model.forward(input_ids),
            Self::Rnn(model) => model.forward(input_ids),
            Self::Mlp(model) => model.forward(input_ids),
        }
    }

    fn new_state(&self, batch: usize) -> LanguageModelState {
        match self {
            Self::Gpt2(model) => LanguageModelState::Gpt2(model.new_state(batch)),
            Self::Llama(model) => LanguageModelState::Llama(model.new_state(batch)),
            Self::Rnn(model) => LanguageModelState::Rnn(model.new_state(batch)),
            Self::Mlp(model) => LanguageModelState::Mlp(model.new_state(batch)),
        }
    }

    fn decode(&self, input_ids: &IdTensor, state: &mut LanguageModelState) -> Result<Tensor> {
        match (self, state) {
            (Self::Gpt2(model), LanguageModelState::Gpt2(state)) => model.decode(input_ids, state),
            (Self::Llama(model), LanguageModelState::Llama(state)) => model.decode(input_ids, state),
            (Self::Rnn(model), LanguageModelState::Rnn(state)) => model.decode(input_ids, state),
            (Self::Mlp(model), LanguageModelState::Mlp(state)) => model.decode(input_ids, state),
            _ => Err(another_state()),
        }
    }

    fn decode_all(&self, input_ids: &IdTensor, state: &mut LanguageModelState) -> Result<Tensor> {
        match (self, state) {
            (Self::Gpt2(model), LanguageModelState::Gpt2(state)) => model.decode_all(input_ids, state),
            (Self::Llama(model), LanguageModelState::Llama(state)) => model.decode_all(input_ids, state),
            (Self::Rnn(model), LanguageModelState::Rnn(state)) => model.decode_all(input_ids, state),
            (Self::Mlp(model), LanguageModelState::Mlp(state)) => model.decode_all(input_ids, state),
            _ => Err(another_state()),
        }
    }

    fn decode_batch(&self, input_ids: &[&[u32]], states: &mut [&mut LanguageModelState]) -> Result<Tensor> {
        match self {
            Self::Gpt2(model) => model.decode_batch(input_ids, &mut states!(states, Gpt2)),
            Self::Llama(model) => model.decode_batch(input_ids, &mut states!(states, Llama)),
            Self::Rnn(model) => model.decode_batch(input_ids, &mut states!(states, Rnn)),
            Self::Mlp(model) => model.decode_batch(input_ids, &mut states!(states, Mlp)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::{WeightFormat, save_pretrained};
    use crate::mapped::Load;
    use crate::models::rnn::CellType;
    use crate::random::Rng;
    use crate::tensor::Weight;

    #[test]
    fn what_is_saved_opens_with_the_same_bits() {
        let mut rng = Rng::seed(3);
        let models = [
            LanguageModel::Gpt2(Box::new(Gpt2::init(&Gpt2Config::new(13, 16, 12, 2, 3), &mut rng).unwrap())),
            LanguageModel::Llama(Box::new(Llama::init(&LlamaConfig::new(13, 12, 20, 2, 3), &mut rng).unwrap())),
            LanguageModel::Rnn(Box::new(RnnLm::init(&RnnConfig::new(CellType::Gru, 13, 6, 2), &mut rng).unwrap())),
            LanguageModel::Mlp(Box::new(MlpLm::init(&MlpConfig::new(13, 6, 8, 3), &mut rng).unwrap())),
        ];
        let ids = IdTensor::sequence(&[1, 5, 12, 0]);
        for model in models {
            let folder = tempfile::tempdir().unwrap();
            save_pretrained(folder.path(), &model).unwrap();
            let opened = LanguageModel::open(folder.path()).unwrap();
            assert_eq!(opened.forward(&ids).unwrap().data(), model.forward(&ids).unwrap().data());
        }
    }

    #[test]
    fn halves_stay_halves_and_give_the_bits_of_their_numbers_in_32_bits() {
        let config = Gpt2Config::new(13, 16, 12, 2, 3);
        let mut model = Gpt2::init(&config, &mut Rng::seed(3)).unwrap();
        model.visit_mut("", &mut |path, parameter| {
            if parameter.shape().len() == 2 {
                let weight = parameter.weight();
                let half = if path.contains("mlp") { weight.to_f16() } else { weight.to_bf16() };
                parameter.set_weight(&half).unwrap();
            }
        });
        let folder = tempfile::tempdir().unwrap();
        save_pretrained(folder.path(), &model).unwrap();
        let (ids, expected) = (IdTensor::sequence(&[1, 5, 12, 0]), model.forward(&IdTensor::sequence(&[1, 5, 12, 0])));
        let expected = expected.unwrap();
        for load in [Load::Mmap, Load::Read] {
            let keep = OpenOptions::default().load(load);
            let opened = LanguageModel::open_with(folder.path(), &keep).unwrap();
            for (path, parameter) in opened.parameters() {
                let mapped = match parameter.weight() {
                    Weight::F16(half) => half.is_mapped(),
                    Weight::Bf16(half) => half.is_mapped(),
                    _ => load == Load::Mmap,
                };
                assert_eq!(parameter.is_half(), parameter.shape().len() == 2, "{path}");
                assert_eq!(mapped, load == Load::Mmap, "{path}");
            }
            assert_eq!(opened.forward(&ids).unwrap().data(), expected.data());
            let again = tempfile::tempdir().unwrap();
            save_pretrained(again.path(), &opened).unwrap();
            let file = |folder: &Path| std::fs::read(folder.join(crate::checkpoint::WEIGHTS)).unwrap();
            assert_eq!(file(again.path()), file(folder.path()));
            let wide = LanguageModel::open_with(folder.path(), &keep.weights(WeightFormat::F32)).unwrap();
            assert!(wide.parameters().iter().all(|(_, p)| p.is_trainable() && !p.is_half()));
            assert_eq!(wide.forward(&ids).unwrap().data(), expected.data());
            let rounded = LanguageModel::open_with(folder.path(), &keep.weights(WeightFormat::Bf16)).unwrap();
            assert!(rounded.parameters().iter().all(|(_, p)| p.is_half() == (p.shape().len() == 2)));
        }
    }

    #[test]
    fn folders_that_hold_no_model_are_errors() {
        let folder = tempfile::tempdir().unwrap();
        let open = |config: &str| {
            std::fs::write(folder.path().join(CONFIG), config).unwrap();
            LanguageModel::open(folder.path()).unwrap_err().to_string()
        };
        assert!(LanguageModel::open(folder.path()).is_err());
        assert!(open("[1]").contains("JSON object"));
        assert!(open("{").contains("config.json"));
        assert!(open(r#"{"model_type": "mamba"}"#).contains("found mamba"));
        assert!(open(r#"{"model_type": "gpt2", "n_embd": "wide"}"#).contains("config.json"));
        assert!(open(r#"{"model_type": "gpt2", "n_embd": 99999999999}"#).contains("n_embd"));
        assert!(open(r#"{"model_type": "gpt2"}"#).contains("model.safetensors"));
        assert!(open(r#"{"model_type": "loquat-mlp", "wide": 1}"#).contains("wide"));
    }
}
