//! Prompt caches: the model state of a prompt, computed once, shared by continuations, and saved.

use std::path::Path;

use crate::checkpoint::{DType, SafetensorsFile, write_tensors};
use crate::error::{Error, Result};
use crate::generation::reader::{PART, Reader, check_context, infer};
use crate::mapped::Load;
use crate::models::{CausalLm, DecodeState};
use crate::nn::KvCache;
use crate::tensor::{IdTensor, Tensor};

/// The cached model state of the start of a prompt.
/// [`Tokens::with_cache`](crate::generation::Tokens::with_cache) and
/// [`BatchGenerator::push_with_cache`](crate::generation::BatchGenerator::push_with_cache) continue
/// from it, with the same tokens as without a cache.
///
/// A clone is cheap, and continuations share the memory of their common prefix.
///
/// ```
/// use loquat::generation::{PromptCache, generate};
/// use loquat::models::{Gpt2, Gpt2Config};
/// use loquat::{GenerationConfig, Rng};
///
/// let model = Gpt2::init(&Gpt2Config::new(65, 32, 24, 2, 3), &mut Rng::seed(1))?;
/// let cache = PromptCache::read(&model, &[1, 2, 3, 4, 5])?;
/// # let folder = tempfile::tempdir().expect("a folder");
/// # let path = folder.path().join("prompt.safetensors");
/// cache.save(&path)?;
///
/// let cache = PromptCache::open(&model, &path)?; // in a later run
/// let config = GenerationConfig::default().max_new_tokens(8);
/// for question in [[6, 7], [8, 9]] {
///     let prompt = [&[1, 2, 3, 4, 5][..], &question].concat();
///     // Reads two tokens only.
///     let tokens = generate(&model, &prompt, &config)?.with_cache(&cache);
///     assert_eq!(tokens.count(), 8);
/// }
/// # Ok::<(), loquat::Error>(())
/// ```
#[derive(Clone)]
pub struct PromptCache<S> {
    ids: Vec<u32>,
    state: S,
}

impl<S> std::fmt::Debug for PromptCache<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PromptCache({} tokens)", self.ids.len())
    }
}

/// Metadata key of the file, whose value is the prompt.
const KEY: &str = "loquat prompt cache 1";

impl<S: DecodeState> PromptCache<S> {
    /// Runs a model on a prompt and returns its state.
    ///
    /// # Errors
    /// [`Error::Argument`] for a prompt that is empty or longer than the model's context,
    /// [`Error::Id`] for an id outside the vocabulary.
    pub fn read<M: CausalLm<State = S> + ?Sized>(model: &M, prompt_ids: &[u32]) -> Result<Self> {
        Self::read_from(model, model.new_state(1), prompt_ids)
    }

    /// Same as [`PromptCache::read`], starting from a state that has read no tokens but may hold
    /// other input, such as an encoder's output.
    ///
    /// # Errors
    /// Same as [`PromptCache::read`]; [`Error::Argument`] if the state has read tokens.
    pub fn read_from<M: CausalLm<State = S> + ?Sized>(model: &M, mut state: S, prompt_ids: &[u32]) -> Result<Self> {
        if !state.is_empty() {
            return Err(Error::argument("state", "one that has read no tokens", state.len()));
        }
        if prompt_ids.is_empty() {
            return Err(Error::argument("prompt", "at least one token", "none"));
        }
        check_context(model, prompt_ids.len())?;
        for part in prompt_ids.chunks(PART) {
            let state = &mut state;
            infer(|| model.decode(&IdTensor::sequence(part), state))?;
        }
        Ok(Self { ids: prompt_ids.to_vec(), state })
    }

    /// Creates a cache from the state after `ids`.
    pub(crate) fn new(ids: Vec<u32>, state: S) -> Self {
        Self { ids, state }
    }

    /// Returns the token ids of the prompt.
    pub fn ids(&self) -> &[u32] {
        &self.ids
    }

    /// Returns a reader with the state of the longest common prefix with `prompt_ids`; at least one
    /// token is left to read.
    pub(crate) fn reader(&self, prompt_ids: &[u32]) -> Option<Reader<S>> {
        let same = self.ids.iter().zip(prompt_ids).take_while(|(a, b)| a == b).count().min(prompt_ids.len() - 1);
        let mut state = self.state.clone();
        (same > 0 && state.truncate(same)).then(|| Reader::resumed(state, prompt_ids.len() - same))
    }

    /// Saves the cache as a safetensors file, with the prompt in its metadata. The file is written
    /// atomically.
    ///
    /// # Errors
    /// [`Error::Argument`] for a model whose state is not a key/value cache; [`Error::Io`] if the
    /// file cannot be written.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        let tensors = tensors(keys_and_values(&self.state)?);
        let ids = serde_json::json!(self.ids).to_string();
        write_tensors(path, tensors.iter().map(|(name, tensor)| (name.as_str(), tensor)), Some((KEY, &ids)))
    }

    /// Opens a file written by [`PromptCache::save`], for the same model. To verify that, the model
    /// reads the prompt's first token, and its keys and values in every layer are compared with the
    /// file's.
    ///
    /// # Errors
    /// [`Error::Format`] for a file of another kind, a damaged file or one of another model;
    /// [`Error::Io`] if it cannot be read.
    pub fn open<M: CausalLm<State = S> + ?Sized>(model: &M, path: impl AsRef<Path>) -> Result<Self> {
        Self::open_from(model, model.new_state(1), path)
    }

    /// Same as [`PromptCache::open`], for a cache that started from a state as in
    /// [`PromptCache::read_from`].
    ///
    /// # Errors
    /// Same as [`PromptCache::open`] and [`PromptCache::read_from`].
    pub fn open_from<M: CausalLm<State = S> + ?Sized>(model: &M, mut state: S, path: impl AsRef<Path>) -> Result<Self> {
        let file = SafetensorsFile::open(path, Load::Mmap)?;
        let wrong = |reason: String| Error::format(file.path(), reason);
        let ids = file.metadata(KEY).ok_or_else(|| wrong("expected a prompt cache".into()))?;
        let ids: Vec<u32> = serde_json::from_str(ids).map_err(|e| wrong(format!("prompt: {e}")))?;
        let vocab_size = model.vocab_size();
        if let Some(id) = ids.iter().find(|&&id| id as usize >= vocab_size) {
            return Err(wrong(format!("expected ids below {vocab_size}, found {id}")));
        }
        if ids.is_empty() || model.max_seq_len().is_some_and(|limit| ids.len() > limit) {
            return Err(wrong(format!("expected a prompt that fits the model, found {} tokens", ids.len())));
        }
        let first = Self::read_from(model, state.clone(), &ids[..1])?;
        let expected = tensors(keys_and_values(&first.state)?);
        if file.names().count() != expected.len() {
            return Err(wrong(format!("expected {} tensors, found {}", expected.len(), file.names().count())));
        }
        let mut read = Vec::with_capacity(expected.len());
        for (name, first) in &expected {
            let view = file.tensor(name).ok_or_else(|| wrong(format!("expected a tensor `{name}`, found none")))?;
            let shape = [1, ids.len(), first.last_dim()];
            if view.shape() != shape || *view.dtype() != DType::F32 {
                let (dtype, found) = (view.dtype(), view.shape());
                return Err(wrong(format!("tensor `{name}`: expected F32 {shape:?}, found {dtype:?} {found:?}")));
            }
            let tensor = view.to_tensor()?;
            // Another processor may round differently; another model differs far more.
            let near = |(a, b): (&f32, &f32)| (a - b).abs() <= 1e-3 * b.abs().max(1.0);
            if !tensor.data().iter().zip(first.data()).all(near) {
                return Err(wrong(format!(
                    "tensor `{name}`: expected the keys and values of this model, found other numbers"
                )));
            }
            read.push(tensor);
        }
        let cache = state.kv_cache_mut().ok_or_else(no_keys)?;
        for (layer, pair) in cache.layers_mut().zip(read.chunks_exact(2)) {
            layer.append(&pair[0], &pair[1])?;
        }
        Ok(Self { ids, state })
    }
}

/// Keys and values of each layer by name.
fn tensors(cache: &KvCache) -> Vec<(String, Tensor)> {
    let layers = (0..cache.n_layers()).map(|i| (i, cache.layer(i)));
    let named = layers.flat_map(|(i, layer)| [(i, "keys", layer.keys()), (i, "values", layer.values())]);
    named.filter_map(|(i, what, tensor)| Some((format!("layers.{i}.{what}"), tensor?))).collect()
}

fn keys_and_values(state: &impl DecodeState) -> Result<&KvCache> {
    state.kv_cache().ok_or_else(no_keys)
}

fn no_keys() -> Error {
    Error::argument("prompt cache", "a model with a key/value cache", "a model without one")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generation::batch::BatchGenerator;
    use crate::generation::config::GenerationConfig;
    use crate::generation::tokens::generate;
    use crate::models::{Gpt2, Gpt2Config, LanguageModel, MlpConfig, MlpLm};
    use crate::random::Rng;

    fn model(seed: u64) -> Gpt2 {
        let config = Gpt2Config { initializer_range: 0.3, ..Gpt2Config::new(11, 24, 12, 2, 3) };
        Gpt2::init(&config, &mut Rng::seed(seed)).unwrap()
    }

    fn config() -> GenerationConfig {
        GenerationConfig::default().max_new_tokens(6).seed(2)
    }

    fn check<M: CausalLm>(model: &M, cache: &PromptCache<M::State>) {
        for prompt in [&[1, 2, 3, 4, 5, 6][..], &[1, 2, 3], &[1, 2, 9, 9], &[7], &[1]] {
            for config in [config(), config().num_beams(3), config().prompt_lookup_num_tokens(3)] {
                let plain: Vec<u32> = generate(model, prompt, &config).unwrap().map(|id| id.unwrap()).collect();
                let cached = generate(model, prompt, &config).unwrap().with_cache(cache);
                assert_eq!(cached.map(|id| id.unwrap()).collect::<Vec<_>>(), plain, "{prompt:?}");
            }
            let mut batch = BatchGenerator::new(model);
            batch.push_with_cache(prompt, &config(), cache).unwrap();
            let plain: Vec<u32> = generate(model, prompt, &config()).unwrap().map(|id| id.unwrap()).collect();
            assert_eq!(batch.map(|written| written.unwrap().1).collect::<Vec<_>>(), plain);
        }
    }

    #[test]
    fn continuations_are_those_without_a_cache() {
        let model = LanguageModel::new(model(1));
        let cache = PromptCache::read(&model, &[1, 2, 3, 4]).unwrap();
        check(&model, &cache);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cache");
        cache.save(&path).unwrap();
        let cache = PromptCache::open(&model, &path).unwrap();
        assert_eq!(cache.ids(), [1, 2, 3, 4]);
        check(&model, &cache);
        let mlp = MlpLm::init(&MlpConfig::new(11, 6, 9, 3), &mut Rng::seed(1)).unwrap();
        let cache = PromptCache::read(&mlp, &[1, 2, 3, 4]).unwrap();
        check(&mlp, &cache);
        assert!(cache.save(&path).is_err());
    }

    #[test]
    fn files_of_others_and_damaged_ones_are_errors() {
        let (ours, folder) = (model(1), tempfile::tempdir().unwrap());
        let path = folder.path().join("cache");
        PromptCache::read(&ours, &[1, 2, 3]).unwrap().save(&path).unwrap();
        let err = |model: &Gpt2, path: &Path| PromptCache::open(model, path).unwrap_err().to_string();
        assert!(err(&model(2), &path).contains("keys and values of this model"));
        let narrow = Gpt2::init(&Gpt2Config::new(11, 24, 6, 2, 3), &mut Rng::seed(1)).unwrap();
        assert!(err(&narrow, &path).contains("expected F32 [1, 3, 6]"));
        let deep = Gpt2::init(&Gpt2Config::new(11, 24, 12, 3, 3), &mut Rng::seed(1)).unwrap();
        assert!(err(&deep, &path).contains("expected 6 tensors, found 4"));
        let short = Gpt2::init(&Gpt2Config::new(11, 2, 12, 2, 3), &mut Rng::seed(1)).unwrap();
        assert!(err(&short, &path).contains("fits the model"));
        let few = Gpt2::init(&Gpt2Config::new(3, 24, 12, 2, 3), &mut Rng::seed(1)).unwrap();
        assert!(err(&few, &path).contains("ids below 3"));
        assert!(PromptCache::read(&ours, &[]).is_err() && PromptCache::read(&ours, &[0; 25]).is_err());

        // Any changed byte of the header and any shorter length gives an error or the same cache.
        let (whole, damaged) = (std::fs::read(&path).unwrap(), folder.path().join("damaged"));
        let header = 8 + u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize;
        for at in 0..header {
            std::fs::write(&damaged, &whole[..at]).unwrap();
            assert!(PromptCache::open(&ours, &damaged).is_err(), "cut at {at}");
            for flip in [0x01, 0x10, 0xff] {
                let mut bytes = whole.clone();
                bytes[at] ^= flip;
                std::fs::write(&damaged, bytes).unwrap();
                let _ = PromptCache::open(&ours, &damaged).map(|cache| assert_eq!(cache.ids().len(), 3));
            }
        }
        std::fs::write(&damaged, &whole[..whole.len() - 1]).unwrap();
        assert!(PromptCache::open(&ours, &damaged).is_err());
    }
}
