//! A causal language model of any family.

use std::any::Any;
use std::fmt::{self, Debug};
use std::path::Path;

use serde_json::Value;

use crate::checkpoint::{OpenOptions, Pretrained};
use crate::error::{Error, Result};
use crate::models::causal::{CausalLm, DecodeState};
use crate::models::families;
use crate::models::family::{Family, Source};
use crate::nn::{KvCache, Module, Parameter};
use crate::tensor::{IdTensor, Tensor};

/// Methods that the boxed value implements.
macro_rules! delegate {
    ($(fn $name:ident(&self $(, $argument:ident: $type:ty)*) -> $result:ty;)*) => {
        $(fn $name(&self $(, $argument: $type)*) -> $result {
            self.0.$name($($argument),*)
        })*
    };
}

/// A causal language model of any supported family, or of your own, with its type erased.
///
/// ```
/// use loquat::models::{CausalLm, CellType, Gpt2, Gpt2Config, LanguageModel, RnnConfig, RnnLm};
/// use loquat::{IdTensor, Rng};
///
/// let mut rng = Rng::seed(1);
/// let models = [
///     LanguageModel::new(Gpt2::init(&Gpt2Config::new(65, 32, 24, 2, 3), &mut rng)?),
///     LanguageModel::new(RnnLm::init(&RnnConfig::new(CellType::Lstm, 65, 24, 1), &mut rng)?),
/// ]; // or `LanguageModel::open("models/gpt2")`
/// for model in &models {
///     assert_eq!(model.forward(&IdTensor::sequence(&[1, 2, 3]))?.shape(), [1, 3, 65]);
/// }
/// assert!(models[0].downcast_ref::<Gpt2>().is_some());
/// # Ok::<(), loquat::Error>(())
/// ```
///
/// `Debug` prints one line, `Display` a table of the parameters ([`Module::summary`]):
///
/// ```
/// use loquat::Rng;
/// use loquat::models::{Gpt2, Gpt2Config, LanguageModel};
///
/// let gpt2 = Gpt2::init(&Gpt2Config::new(65, 32, 24, 2, 3), &mut Rng::seed(1))?;
/// let model = LanguageModel::new(gpt2);
/// assert_eq!(format!("{model:?}"), "Gpt2(2 layers, 16.8K parameters, f32)");
/// assert!(model.to_string().contains("transformer.wte.weight   [65, 24]  f32          1,560"));
/// # Ok::<(), loquat::Error>(())
/// ```
pub struct LanguageModel(Box<dyn AnyModel>);

/// The decoding state of a [`LanguageModel`].
pub struct LanguageModelState(Box<dyn AnyState>);

/// The interface of the model in a [`LanguageModel`].
trait AnyModel: Pretrained + Debug + Send + Sync {
    fn boxed_clone(&self) -> Box<dyn AnyModel>;
    fn as_any(&self) -> &dyn Any;
    fn as_any_mut(&mut self) -> &mut dyn Any;
    fn vocab_size(&self) -> usize;
    fn max_seq_len(&self) -> Option<usize>;
    fn forward(&self, input_ids: &IdTensor) -> Result<Tensor>;
    fn new_state(&self, batch: usize) -> LanguageModelState;
    fn decode(&self, input_ids: &IdTensor, state: &mut LanguageModelState) -> Result<Tensor>;
    fn decode_all(&self, input_ids: &IdTensor, state: &mut LanguageModelState) -> Result<Tensor>;
    fn decode_batch(&self, input_ids: &[&[u32]], states: &mut [&mut LanguageModelState]) -> Result<Tensor>;
    fn unembed(&self, hidden_states: &Tensor) -> Result<Tensor>;
}

impl<M> AnyModel for M
where
    M: CausalLm<State: Debug + 'static> + Pretrained + Clone + Debug + 'static,
{
    fn boxed_clone(&self) -> Box<dyn AnyModel> {
        Box::new(self.clone())
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }

    fn vocab_size(&self) -> usize {
        CausalLm::vocab_size(self)
    }

    fn max_seq_len(&self) -> Option<usize> {
        CausalLm::max_seq_len(self)
    }

    fn forward(&self, input_ids: &IdTensor) -> Result<Tensor> {
        CausalLm::forward(self, input_ids)
    }

    fn new_state(&self, batch: usize) -> LanguageModelState {
        LanguageModelState(Box::new(CausalLm::new_state(self, batch)))
    }

    fn decode(&self, input_ids: &IdTensor, state: &mut LanguageModelState) -> Result<Tensor> {
        CausalLm::decode(self, input_ids, state.of::<M>()?)
    }

    fn decode_all(&self, input_ids: &IdTensor, state: &mut LanguageModelState) -> Result<Tensor> {
        CausalLm::decode_all(self, input_ids, state.of::<M>()?)
    }

    fn decode_batch(&self, input_ids: &[&[u32]], states: &mut [&mut LanguageModelState]) -> Result<Tensor> {
        let mut states = states.iter_mut().map(|state| state.of::<M>()).collect::<Result<Vec<_>>>()?;
        CausalLm::decode_batch(self, input_ids, &mut states)
    }

    fn unembed(&self, hidden_states: &Tensor) -> Result<Tensor> {
        CausalLm::unembed(self, hidden_states)
    }
}

/// The interface of the state in a [`LanguageModelState`].
trait AnyState: Debug + Send + Sync {
    fn boxed_clone(&self) -> Box<dyn AnyState>;
    fn as_any_mut(&mut self) -> &mut dyn Any;
    fn len(&self) -> usize;
    fn kv_cache(&self) -> Option<&KvCache>;
    fn kv_cache_mut(&mut self) -> Option<&mut KvCache>;
    fn can_truncate(&self) -> bool;
    fn truncate(&mut self, len: usize) -> bool;
}

impl<S: DecodeState + Debug + 'static> AnyState for S {
    fn boxed_clone(&self) -> Box<dyn AnyState> {
        Box::new(self.clone())
    }

    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }

    fn len(&self) -> usize {
        DecodeState::len(self)
    }

    fn kv_cache(&self) -> Option<&KvCache> {
        DecodeState::kv_cache(self)
    }

    fn kv_cache_mut(&mut self) -> Option<&mut KvCache> {
        DecodeState::kv_cache_mut(self)
    }

    fn can_truncate(&self) -> bool {
        DecodeState::can_truncate(self)
    }

    fn truncate(&mut self, len: usize) -> bool {
        DecodeState::truncate(self, len)
    }
}

impl LanguageModelState {
    /// Returns the state of a model of type `M`.
    fn of<M: CausalLm<State: 'static>>(&mut self) -> Result<&mut M::State> {
        let another = || Error::argument("state", "a state from this model's new_state", "a state of another model");
        self.0.as_any_mut().downcast_mut().ok_or_else(another)
    }
}

impl Clone for LanguageModelState {
    fn clone(&self) -> Self {
        Self(self.0.boxed_clone())
    }
}

impl Debug for LanguageModelState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl DecodeState for LanguageModelState {
    delegate! {
        fn len(&self) -> usize;
        fn kv_cache(&self) -> Option<&KvCache>;
        fn can_truncate(&self) -> bool;
    }

    fn kv_cache_mut(&mut self) -> Option<&mut KvCache> {
        self.0.kv_cache_mut()
    }

    fn truncate(&mut self, len: usize) -> bool {
        self.0.truncate(len)
    }
}

impl LanguageModel {
    /// Erases the type of a model.
    pub fn new<M>(model: M) -> Self
    where
        M: CausalLm<State: Debug + 'static> + Pretrained + Clone + Debug + 'static,
    {
        Self(Box::new(model))
    }

    /// Returns the model as type `M`, for example [`Gpt2`](crate::models::Gpt2), if it is of that
    /// type.
    pub fn downcast_ref<M: CausalLm + 'static>(&self) -> Option<&M> {
        self.0.as_any().downcast_ref()
    }

    /// Same as [`LanguageModel::downcast_ref`], for changes.
    pub fn downcast_mut<M: CausalLm + 'static>(&mut self) -> Option<&mut M> {
        self.0.as_any_mut().downcast_mut()
    }

    /// Opens a folder with `config.json` and `model.safetensors`, or a `.gguf` file. The file is
    /// mapped into memory and weights keep their format; those in half precision are not trainable.
    /// To train a model, open it with [`LanguageModel::open_with`] and
    /// [`WeightFormat::F32`](crate::checkpoint::WeightFormat::F32).
    ///
    /// # Errors
    /// [`Error::Config`] if the architecture or an option is not supported; [`Error::Load`] with
    /// every tensor that does not match; [`Error::Format`] or [`Error::Io`] if a file cannot be
    /// read.
    pub fn open(folder: impl AsRef<Path>) -> Result<Self> {
        Self::open_with(folder, &OpenOptions::default())
    }

    /// Same as [`LanguageModel::open`], with options.
    ///
    /// # Errors
    /// Same as [`LanguageModel::open`].
    pub fn open_with(folder: impl AsRef<Path>, options: &OpenOptions) -> Result<Self> {
        let path = folder.as_ref();
        let config = families::read_config(path)?;
        let decodes = |family: &Family| family.open.is_some();
        match families::of(&config).ok().and_then(|family| family.open) {
            Some(open) => {
                let checkpoint = |path: &Path, load| families::open_checkpoint(path, load);
                open(&Source { path, config: &config, options, checkpoint })
            }
            None => Err(families::unknown(&config, decodes)),
        }
    }
}

impl Clone for LanguageModel {
    fn clone(&self) -> Self {
        Self(self.0.boxed_clone())
    }
}

impl Debug for LanguageModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Prints a table of the parameters: [`Module::summary`].
impl std::fmt::Display for LanguageModel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.summary())
    }
}

impl Module for LanguageModel {
    fn visit<'m>(&'m self, path: &str, f: &mut dyn FnMut(&str, &'m Parameter)) {
        self.0.visit(path, f);
    }

    fn visit_mut(&mut self, path: &str, f: &mut dyn FnMut(&str, &mut Parameter)) {
        self.0.visit_mut(path, f);
    }
}

impl Pretrained for LanguageModel {
    fn config_json(&self) -> Value {
        self.0.config_json()
    }
}

impl CausalLm for LanguageModel {
    type State = LanguageModelState;

    delegate! {
        fn vocab_size(&self) -> usize;
        fn max_seq_len(&self) -> Option<usize>;
        fn forward(&self, input_ids: &IdTensor) -> Result<Tensor>;
        fn new_state(&self, batch: usize) -> LanguageModelState;
        fn decode(&self, input_ids: &IdTensor, state: &mut LanguageModelState) -> Result<Tensor>;
        fn decode_all(&self, input_ids: &IdTensor, state: &mut LanguageModelState) -> Result<Tensor>;
        fn decode_batch(&self, input_ids: &[&[u32]], states: &mut [&mut LanguageModelState]) -> Result<Tensor>;
        fn unembed(&self, hidden_states: &Tensor) -> Result<Tensor>;
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::LanguageModel;
    use crate::checkpoint::pretrained::CONFIG;
    use crate::checkpoint::{OpenOptions, WeightFormat, save_pretrained};
    use crate::mapped::Load;
    use crate::models::CellType;
    use crate::models::{CausalLm, Gpt2, Gpt2Config, Llama, LlamaConfig, MlpConfig, MlpLm, RnnConfig, RnnLm};
    use crate::nn::Module;
    use crate::random::Rng;
    use crate::tensor::{IdTensor, Weight};

    #[test]
    fn what_is_saved_opens_with_the_same_bits() {
        let mut rng = Rng::seed(3);
        let models = [
            LanguageModel::new(Gpt2::init(&Gpt2Config::new(13, 16, 12, 2, 3), &mut rng).unwrap()),
            LanguageModel::new(Llama::init(&LlamaConfig::new(13, 12, 20, 2, 3), &mut rng).unwrap()),
            LanguageModel::new(RnnLm::init(&RnnConfig::new(CellType::Gru, 13, 6, 2), &mut rng).unwrap()),
            LanguageModel::new(MlpLm::init(&MlpConfig::new(13, 6, 8, 3), &mut rng).unwrap()),
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
