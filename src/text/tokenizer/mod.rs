//! Tokenizers: text to token ids and back, compatible with Hugging Face's `tokenizer.json`.
//!
//! This module wraps the `tokenizers` crate, which defines the file format. It adds errors instead
//! of panics, settings per call instead of per tokenizer, reproducible training, and a streaming
//! decoder whose concatenated pieces equal the decoded whole.
//!
//! ```
//! use loquat::text::{Tokenizer, TokenizerTrainer};
//!
//! let trainer = TokenizerTrainer::byte_level_bpe().vocab_size(300);
//! let tokenizer = trainer.train(["the cat sat on the mat, the hat"])?;
//! let encoding = tokenizer.encode("the cat")?;
//! assert_eq!(tokenizer.decode(&encoding.input_ids)?, "the cat");
//! assert_eq!(encoding.offsets[0], (0, 3)); // bytes of the text
//! # Ok::<(), loquat::Error>(())
//! ```
//!
//! Truncation and padding stored in a file are kept when it is saved, but not applied (as in
//! `transformers`): only an [`EncodeOptions`] sets them.

mod byte_level;
mod chars;
mod encode;
mod ggml;
mod gpt2_split;
mod load;
mod pattern;
mod pipeline;
mod settings;
mod special;
mod stream;
mod train;
mod vetting;
mod vocab_files;
mod words;

#[cfg(test)]
mod tests;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use serde_json::Value;
use tokenizers::{AddedToken, Model, PaddingParams, PostProcessorWrapper, TruncationParams};

pub use encode::{EncodeOptions, Encoding, Input, Padding, Side, Truncation, TruncationStrategy};
pub use special::Special;
pub use stream::DecodeStream;
pub use train::TokenizerTrainer;

use crate::atomic;
use crate::{Error, Result};

/// A tokenizer: converts text to token ids and back.
///
/// All methods for encoding and decoding take `&self`, so a tokenizer can be shared between
/// threads.
///
/// # Examples
/// ```
/// use loquat::text::{Tokenizer, TokenizerTrainer};
///
/// let tokenizer = TokenizerTrainer::byte_level_bpe().vocab_size(300).train(["the cat sat"])?;
/// # let folder = tempfile::tempdir().expect("a folder");
/// # let folder = folder.path();
/// tokenizer.save_folder(folder)?;
///
/// let same = Tokenizer::open(folder)?;
/// let ids = same.encode("the cat")?.input_ids;
/// assert_eq!(ids, tokenizer.encode("the cat")?.input_ids);
/// assert_eq!(same.decode(&ids)?, "the cat");
/// # Ok::<(), loquat::Error>(())
/// ```
#[derive(Clone)]
pub struct Tokenizer {
    /// Without post-processor, truncation and padding, which are applied here per call.
    inner: tokenizers::Tokenizer,
    post: Option<PostProcessorWrapper>,
    /// The file's truncation and padding, kept for saving.
    stored: (Option<TruncationParams>, Option<PaddingParams>),
    /// Content of `tokenizer_config.json`; null if there is none.
    config: Value,
    /// Id of each role of [`Special::ALL`].
    roles: [Option<u32>; 7],
    vocab_size: usize,
    decoding: stream::Decoding,
    /// The components around the model.
    pipeline: Arc<pipeline::Pipeline>,
    /// Cache of tokenized words.
    known: Arc<words::WordCache>,
    /// Fast path for tokenizers that only look up characters.
    chars: Option<chars::CharTable>,
    /// Fast path for byte-level tokenizers that only split a text.
    byte_level: Option<Arc<byte_level::ByteLevelWords>>,
}

impl Tokenizer {
    /// Returns the id of a token in the vocabulary's spelling.
    pub fn token_to_id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// Returns a token in the vocabulary's spelling, which for byte-level tokenizers differs from
    /// its text (`Ġthe` for ` the`); for the text, see [`decode`](Tokenizer::decode).
    pub fn id_to_token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// Returns the number of ids, added tokens included: one more than the largest id, so that an
    /// embedding with this many rows has a row for every id.
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// Returns all tokens with their ids, sorted by id.
    pub fn vocab(&self) -> Vec<(String, u32)> {
        let mut vocab: Vec<(String, u32)> = self.inner.get_vocab(true).into_iter().collect();
        vocab.sort_by(|a, b| (a.1, &a.0).cmp(&(b.1, &b.0)));
        vocab
    }

    /// Returns the id of the token with a role, if there is one.
    pub fn special(&self, role: Special) -> Option<u32> {
        self.roles[role as usize]
    }

    /// Returns the id of the token that begins a text.
    pub fn bos_token_id(&self) -> Option<u32> {
        self.special(Special::Bos)
    }

    /// Returns the id of the token that ends a text.
    pub fn eos_token_id(&self) -> Option<u32> {
        self.special(Special::Eos)
    }

    /// Returns the id of the padding token.
    pub fn pad_token_id(&self) -> Option<u32> {
        self.special(Special::Pad)
    }

    /// Returns the id of the token for text that is not in the vocabulary.
    pub fn unk_token_id(&self) -> Option<u32> {
        self.special(Special::Unk)
    }

    /// Returns the id of the mask token of masked language models.
    pub fn mask_token_id(&self) -> Option<u32> {
        self.special(Special::Mask)
    }

    /// Whether a token is marked as special, and therefore left out of decoded text.
    pub(crate) fn is_special(&self, id: u32) -> bool {
        self.inner.get_added_vocabulary().get_added_tokens_decoder().get(&id).is_some_and(|token| token.special)
    }

    /// Ids of all special tokens, ascending.
    pub(crate) fn special_ids(&self) -> Vec<u32> {
        let added = self.inner.get_added_vocabulary().get_added_tokens_decoder();
        let mut ids: Vec<u32> = added.iter().filter(|(_, token)| token.special).map(|(&id, _)| id).collect();
        ids.sort_unstable();
        ids
    }

    /// Sets the token of a role, and returns its id. The token becomes special; if it is not in the
    /// vocabulary, it is added with a new id.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] if the token is empty.
    pub fn set_special(&mut self, role: Special, token: &str) -> Result<u32> {
        self.add_special_tokens([token])?;
        let id = self.token_to_id(token).ok_or_else(|| Error::Tokenizer("an added token must not be empty".into()))?;
        self.roles[role as usize] = Some(id);
        if let Value::Object(config) = &mut self.config {
            config.insert(role.key().into(), Value::String(token.into()));
        }
        Ok(id)
    }

    /// Adds special tokens. They are matched in a text before it is split, and left out of decoded
    /// text.
    ///
    /// Returns the number of new tokens. Their ids follow the largest id.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] if the `tokenizers` library rejects a token.
    pub fn add_special_tokens<S: AsRef<str>>(&mut self, tokens: impl IntoIterator<Item = S>) -> Result<usize> {
        self.add(tokens.into_iter().map(|token| AddedToken::from(token.as_ref(), true)).collect())
    }

    /// Adds ordinary tokens. They are matched in a text before it is split.
    ///
    /// Returns the number of new tokens. Their ids follow the largest id.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] if the `tokenizers` library rejects a token.
    pub fn add_tokens<S: AsRef<str>>(&mut self, tokens: impl IntoIterator<Item = S>) -> Result<usize> {
        self.add(tokens.into_iter().map(|token| AddedToken::from(token.as_ref(), false)).collect())
    }

    fn add(&mut self, tokens: Vec<AddedToken>) -> Result<usize> {
        let before = self.vocab_size;
        vetting::vet_new(&tokens, self.pipeline.normalizer.as_ref())?;
        guard("adding tokens", || self.inner.add_tokens(tokens))?;
        self.refresh()?;
        Ok(self.vocab_size - before)
    }

    /// Decodes ids to text, without special tokens. Unknown ids are skipped, as in `transformers`.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] if the tokenizer's decoder fails.
    ///
    /// # Examples
    /// ```
    /// # use loquat::text::TokenizerTrainer;
    /// let tokenizer = TokenizerTrainer::byte_level_bpe().vocab_size(260).train(["a b"])?;
    /// let end = tokenizer.eos_token_id().unwrap();
    /// let ids = [tokenizer.encode_without_special("b")?, vec![end]].concat();
    /// assert_eq!(tokenizer.decode(&ids)?, "b");
    /// assert_eq!(tokenizer.decode_with_special(&ids)?, "b<|endoftext|>");
    /// # Ok::<(), loquat::Error>(())
    /// ```
    pub fn decode(&self, ids: &[u32]) -> Result<String> {
        self.decode_ids(ids, true)
    }

    /// Decodes ids to text, with special tokens.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] if the tokenizer's decoder fails.
    pub fn decode_with_special(&self, ids: &[u32]) -> Result<String> {
        self.decode_ids(ids, false)
    }

    /// Decodes each list of ids to text, on all threads of the current pool.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] if the tokenizer's decoder fails.
    pub fn decode_batch<I: AsRef<[u32]> + Sync>(&self, batch: &[I]) -> Result<Vec<String>> {
        use rayon::prelude::*;
        crate::kernels::parallel::adopt();
        batch.par_iter().map(|ids| self.decode(ids.as_ref())).collect()
    }

    fn decode_ids(&self, ids: &[u32], skip_special: bool) -> Result<String> {
        if skip_special && ids.iter().any(|&id| self.is_special(id)) {
            // By id: the library compares texts, and misses special tokens that a normalizer
            // changes, such as Llama 2's `<s>`.
            let ordinary: Vec<u32> = ids.iter().copied().filter(|&id| !self.is_special(id)).collect();
            return self.decode_all(&ordinary);
        }
        self.decode_all(ids)
    }

    /// Decodes all ids, special tokens included.
    fn decode_all(&self, ids: &[u32]) -> Result<String> {
        let added = self.inner.get_added_vocabulary();
        let token = |&id: &u32| added.simple_id_to_token(id).or_else(|| self.inner.get_model().id_to_token(id));
        guard("decoding", || self.pipeline.decode(ids.iter().filter_map(token).collect()))
    }

    /// Saves `tokenizer.json`. The same tokenizer always gives the same bytes. The file is replaced
    /// atomically.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be written.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        let json = self.to_json()?;
        atomic::write_file(path, |file| file.write_all(json.as_bytes()))
    }

    /// Saves `tokenizer.json` and `tokenizer_config.json` to a folder, which is created if
    /// necessary. `transformers` opens it with `AutoTokenizer.from_pretrained`.
    ///
    /// # Errors
    /// [`Error::Io`] if a file cannot be written.
    pub fn save_folder(&self, folder: impl AsRef<Path>) -> Result<()> {
        let folder = folder.as_ref();
        std::fs::create_dir_all(folder).map_err(|e| Error::io(folder, e))?;
        self.save(folder.join("tokenizer.json"))?;
        let mut config = self.config.clone();
        if let Value::Object(config) = &mut config {
            config.entry("tokenizer_class").or_insert("PreTrainedTokenizerFast".into());
            config.entry("clean_up_tokenization_spaces").or_insert(false.into());
            for role in Special::ALL {
                if let Some(token) = self.special(role).and_then(|id| self.id_to_token(id)) {
                    config.entry(role.key()).or_insert(token.into());
                }
            }
        }
        let json = serde_json::to_string_pretty(&config).map_err(|e| Error::Tokenizer(e.to_string()))?;
        atomic::write_file(folder.join("tokenizer_config.json"), |file| file.write_all(json.as_bytes()))
    }

    /// Returns the content of `tokenizer.json`.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] if the tokenizer cannot be represented in JSON.
    pub fn to_json(&self) -> Result<String> {
        let mut whole = self.inner.clone();
        let (truncation, padding) = self.stored.clone();
        guard("saving", || {
            // Before the post-processor is set: the library subtracts its added tokens from the
            // length, which may be smaller.
            whole.with_truncation(truncation)?.with_padding(padding);
            whole.with_post_processor(self.post.clone());
            whole.to_string(true)
        })
    }

    /// The model's context length according to `tokenizer_config.json`; `None` if absent or the
    /// huge number that stands for "no limit". It is not applied unless a caller does so.
    pub(crate) fn model_max_length(&self) -> Option<usize> {
        self.config.get("model_max_length")?.as_u64().and_then(|length| usize::try_from(length).ok())
    }

    /// Content of `tokenizer_config.json`, or the corresponding metadata of a GGUF file.
    #[cfg(feature = "chat")]
    pub(super) fn config(&self) -> &Value {
        &self.config
    }

    /// Returns the model's chat template (`chat_template.jinja` or the key of
    /// `tokenizer_config.json`; of several, the one named `default`).
    pub fn chat_template(&self) -> Option<&str> {
        match self.config.get("chat_template")? {
            Value::String(template) => Some(template),
            Value::Array(named) => {
                let default = named.iter().find(|entry| entry["name"] == "default").or(named.first())?;
                default["template"].as_str()
            }
            _ => None,
        }
    }
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut debug = f.debug_struct("Tokenizer");
        debug.field("vocab_size", &self.vocab_size);
        for role in Special::ALL {
            if let Some(token) = self.special(role).and_then(|id| self.id_to_token(id)) {
                debug.field(role.key(), &token);
            }
        }
        debug.finish()
    }
}

/// Calls the library and converts its errors, and its panics on invalid files, to
/// [`Error::Tokenizer`].
fn guard<T>(what: &str, run: impl FnOnce() -> tokenizers::Result<T>) -> Result<T> {
    // Unwind safety: the library's only shared state are caches behind locks, which are not used
    // once poisoned.
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(e)) => Err(match e.downcast::<Error>() {
            Ok(ours) => *ours,
            Err(e) => Error::Tokenizer(format!("{what}: {e}")),
        }),
        Err(panic) => {
            let reason = panic.downcast_ref::<String>().map(String::as_str);
            let reason = reason.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no reason given");
            Err(Error::Tokenizer(format!("{what}: the tokenizer file is invalid: {reason}")))
        }
    }
}

#[cfg(test)]
const _: fn() = || {
    fn shared<T: Send + Sync>() {}
    shared::<Tokenizer>();
};
