//! An estimate of the memory that a model needs, before it is loaded.

use std::path::Path;

use serde_json::Value;

use super::families::{self, open_checkpoint, read_config};
use super::family::{Family, SizeKeys};
use crate::checkpoint::config_keys::MAX_SIZE;
use crate::checkpoint::{Checkpoint, DType, OpenOptions, TensorView, WeightFormat};
use crate::error::{Error, Result};
use crate::mapped::Load;

/// The memory that a model needs, in bytes unless stated otherwise. See [`estimate`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemoryEstimate {
    /// The number of elements in all tensors.
    pub parameters: usize,
    /// Weights in private memory: converted copies, and the whole files if they are read instead of
    /// mapped.
    pub weights: usize,
    /// Weights that stay in mapped files, or whose packed copies take the place of the file's pages
    /// ([`OpenOptions::packed`]).
    pub mapped: usize,
    /// Keys and values of one position, in all layers.
    pub kv_cache_per_token: usize,
    /// Intermediate results for one position of a prompt.
    pub activations_per_token: usize,
    /// The logits of one position.
    pub logits: usize,
}

impl MemoryEstimate {
    /// Returns the total for a prompt of `tokens` tokens that is processed at once.
    ///
    /// ```no_run
    /// use loquat::checkpoint::OpenOptions;
    /// use loquat::models::estimate;
    ///
    /// let need = estimate("models/gpt2", &OpenOptions::default())?;
    /// println!("{} MB for 1024 tokens", need.total(1024) / 1_000_000);
    /// # Ok::<(), loquat::Error>(())
    /// ```
    pub fn total(&self, tokens: usize) -> usize {
        let per_token = self.kv_cache_per_token.saturating_add(self.activations_per_token);
        [self.mapped, self.logits, per_token.saturating_mul(tokens)]
            .into_iter()
            .fold(self.weights, usize::saturating_add)
    }
}

/// Estimates the memory of the model in a folder or `.gguf` file, opened with `options`. Only the
/// configuration and the headers of the files are read.
///
/// # Errors
/// [`Error::Config`] if the configuration lacks a size; [`Error::Format`] or [`Error::Io`] if a
/// file cannot be read.
///
/// # Examples
/// ```
/// use loquat::checkpoint::{OpenOptions, save_pretrained};
/// use loquat::models::{Gpt2, Gpt2Config, estimate};
///
/// let folder = std::env::temp_dir().join(format!("loquat-estimate-doc-{}", std::process::id()));
/// let model = Gpt2::init(&Gpt2Config::new(65, 32, 24, 2, 3), &mut loquat::Rng::seed(1))?;
/// save_pretrained(&folder, &model)?;
/// let memory = estimate(&folder, &OpenOptions::default())?;
/// assert_eq!(memory.kv_cache_per_token, 2 * 2 * 24 * 4); // layers, keys and values, width, bytes
/// assert!(memory.total(32) > memory.total(1));
/// # std::fs::remove_dir_all(&folder).ok();
/// # Ok::<(), loquat::Error>(())
/// ```
pub fn estimate(path: impl AsRef<Path>, options: &OpenOptions) -> Result<MemoryEstimate> {
    let config = read_config(&path)?;
    let checkpoint = open_checkpoint(&path, Load::Mmap)?;
    estimate_of(&checkpoint, &config, options)
}

/// Same as [`estimate`], for files that are already open.
///
/// # Errors
/// Same as [`estimate`].
pub fn estimate_of(checkpoint: &Checkpoint, config: &Value, options: &OpenOptions) -> Result<MemoryEstimate> {
    let mut need = MemoryEstimate::default();
    for name in checkpoint.names() {
        let Some(view) = checkpoint.tensor(name) else { continue };
        let len: usize = view.shape().iter().product();
        need.parameters += len;
        match memory(&view, options.weights) {
            Some(bytes) => need.weights += bytes,
            None if options.load == Load::Mmap => need.mapped += view.bytes().len(),
            None => {}
        }
        if options.load == Load::Read {
            need.weights += view.bytes().len();
        }
    }
    let sizes = Sizes::read(config)?;
    let f32s = size_of::<f32>();
    let cache_width = 2 * sizes.kv_heads * sizes.head_dim;
    need.kv_cache_per_token = f32s * sizes.layers * cache_width;
    // The residual stream, its normalised copy and the sum; the projections and the attention
    // output; the feed-forward layer.
    let attention = 2 * sizes.heads * sizes.head_dim + cache_width;
    need.activations_per_token = f32s * (3 * sizes.hidden + attention + 3 * sizes.intermediate);
    need.logits = f32s * sizes.vocab;
    Ok(need)
}

/// Returns the size of a tensor's copy in bytes, or `None` if it is used in place.
fn memory(view: &TensorView<'_>, format: WeightFormat) -> Option<usize> {
    let len: usize = view.shape().iter().product();
    let as_it_is = match (view.dtype(), format) {
        // Norms and biases are f32.
        _ if view.shape().len() < 2 => false,
        (_, WeightFormat::Keep) => true,
        (DType::F16, WeightFormat::F16) | (DType::Bf16, WeightFormat::Bf16) => true,
        _ => false,
    };
    match (as_it_is, format) {
        (true, _) if matches!(view.dtype(), DType::Blocks(_)) && view.is_transposed() => Some(4 * len),
        (true, _) => view.must_be_copied().then_some(view.bytes().len()),
        (false, WeightFormat::F16 | WeightFormat::Bf16) if view.shape().len() >= 2 => Some(2 * len),
        (false, _) => Some(4 * len),
    }
}

/// The sizes of a model.
struct Sizes {
    hidden: usize,
    layers: usize,
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    intermediate: usize,
    vocab: usize,
}

impl Sizes {
    fn read(config: &Value) -> Result<Self> {
        let sized = |family: &Family| family.sizes.is_some();
        let keys = families::of(config)?.sizes.as_ref().ok_or_else(|| families::unknown(config, sized))?;
        let get = |key: &str| config.get(key)?.as_u64().and_then(|x| usize::try_from(x).ok()).filter(|&x| x < MAX_SIZE);
        let need = |key: &str| {
            let wrong = || Error::config(key, "a number from 0 to 2^28 - 1", config.get(key).unwrap_or(&Value::Null));
            get(key).ok_or_else(wrong)
        };
        let SizeKeys { hidden, layers, heads, kv_heads, intermediate } = keys;
        let (hidden, heads) = (need(hidden)?, get(heads).unwrap_or(0));
        Ok(Self {
            hidden,
            heads,
            layers: need(layers)?,
            kv_heads: get(kv_heads).unwrap_or(heads),
            head_dim: get("head_dim").or(hidden.checked_div(heads)).unwrap_or(0),
            intermediate: get(intermediate).unwrap_or(4 * hidden),
            vocab: need("vocab_size")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::save_pretrained;
    use crate::models::{Gpt2, Gpt2Config};
    use crate::random::Rng;

    #[test]
    fn weights_are_counted_in_their_format() {
        let folder = tempfile::tempdir().unwrap();
        let model = Gpt2::init(&Gpt2Config::new(13, 16, 12, 2, 3), &mut Rng::seed(3)).unwrap();
        save_pretrained(folder.path(), &model).unwrap();
        let all = crate::nn::Module::parameter_count(&model);
        let matrices = 13 * 12 + 16 * 12 + 2 * (12 * 36 + 12 * 12 + 2 * 12 * 48);
        let with = |options: OpenOptions| estimate(folder.path(), &options).unwrap();
        let keep = with(OpenOptions::default());
        assert_eq!((keep.parameters, keep.weights, keep.mapped), (all, 4 * (all - matrices), 4 * matrices));
        assert_eq!((keep.kv_cache_per_token, keep.logits), (4 * 2 * 2 * 12, 4 * 13));
        assert_eq!(keep.total(0), 4 * all + 4 * 13);
        let f32 = with(OpenOptions::default().weights(WeightFormat::F32));
        assert_eq!((f32.weights, f32.mapped), (4 * all, 0));
        let f16 = with(OpenOptions::default().weights(WeightFormat::F16));
        assert_eq!((f16.weights, f16.mapped), (4 * all - 2 * matrices, 0));
        let read = with(OpenOptions::default().load(Load::Read));
        assert_eq!((read.weights, read.mapped), (4 * all + 4 * (all - matrices), 0));
        std::fs::write(folder.path().join("config.json"), r#"{"model_type": "llama", "hidden_size": -1}"#).unwrap();
        assert!(estimate(folder.path(), &OpenOptions::default()).unwrap_err().to_string().contains("hidden_size"));
    }
}
