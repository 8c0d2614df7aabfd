//! Text to token ids and back, as the Hugging Face `tokenizer.json` of a model says.
//!
//! The work is done by the `tokenizers` crate, whose file format is the authority; this module gives it a face without
//! its types, errors instead of panics, settings per call instead of per tokenizer, training that gives the same file
//! each time, and a stream decoder whose pieces add up to the whole.
//!
//! ```
//! use loquat::text::{Tokenizer, TokenizerTrainer};
//!
//! let tokenizer = TokenizerTrainer::byte_level_bpe().vocab_size(300).train(["the cat sat on the mat, the hat"])?;
//! let encoding = tokenizer.encode("the cat")?;
//! assert_eq!(tokenizer.decode(&encoding.input_ids)?, "the cat");
//! assert_eq!(encoding.offsets[0], (0, 3)); // bytes of the text
//! # Ok::<(), loquat::Error>(())
//! ```
//!
//! Truncation and padding that a file prescribes are kept when it is saved, but (as in `transformers`) not obeyed: what
//! an [`EncodeOptions`] does not say is not done.

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

/// Text to token ids and back: one for every kind of vocabulary.
///
/// All reading methods take `&self`; one tokenizer serves any number of threads.
#[derive(Clone)]
pub struct Tokenizer {
    /// Without post-processor, truncation and padding: those three are applied here, per call.
    inner: tokenizers::Tokenizer,
    post: Option<PostProcessorWrapper>,
    /// What the file says about truncation and padding, kept for saving.
    stored: (Option<TruncationParams>, Option<PaddingParams>),
    /// `tokenizer_config.json`, as far as there is one.
    config: Value,
    /// The id of each role of [`Special::ALL`].
    roles: [Option<u32>; 7],
    vocab_size: usize,
    decoding: stream::Decoding,
    /// What is done around the model.
    pipeline: Arc<pipeline::Pipeline>,
    /// What the model made of words so far.
    known: Arc<words::KnownWords>,
    /// For tokenizers that do nothing but look characters up, the characters.
    chars: Option<chars::CharTable>,
    /// For byte-level tokenizers that do nothing but split a text, what the short cut needs.
    byte_level: Option<Arc<byte_level::ByteLevelWords>>,
}

impl Tokenizer {
    /// The id of a token, spelled as the vocabulary spells it.
    pub fn token_to_id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// The vocabulary's spelling of a token: for byte-level tokenizers that is not its text (`Ġthe` for ` the`), for
    /// which see [`decode`](Tokenizer::decode).
    pub fn id_to_token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// The number of ids, added tokens included: one more than the largest id, so that an embedding of this many rows
    /// holds them all.
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// All tokens with their ids, sorted by id.
    pub fn vocab(&self) -> Vec<(String, u32)> {
        let mut vocab: Vec<(String, u32)> = self.inner.get_vocab(true).into_iter().collect();
        vocab.sort_by(|a, b| (a.1, &a.0).cmp(&(b.1, &b.0)));
        vocab
    }

    /// The id of the token that plays a part, if one does.
    pub fn special(&self, role: Special) -> Option<u32> {
        self.roles[role as usize]
    }

    /// The id of the token that begins a text.
    pub fn bos_token_id(&self) -> Option<u32> {
        self.special(Special::Bos)
    }

    /// The id of the token that ends a text.
    pub fn eos_token_id(&self) -> Option<u32> {
        self.special(Special::Eos)
    }

    /// The id of the token that fills a batch's short rows.
    pub fn pad_token_id(&self) -> Option<u32> {
        self.special(Special::Pad)
    }

    /// The id of the token that stands for what the vocabulary lacks.
    pub fn unk_token_id(&self) -> Option<u32> {
        self.special(Special::Unk)
    }

    /// The id of the token that a masked language model guesses behind.
    pub fn mask_token_id(&self) -> Option<u32> {
        self.special(Special::Mask)
    }

    /// Whether a token is marked as special, that is, left out of decoded text on request.
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

    /// Gives a part to a token, which becomes special, and a new id if the vocabulary lacks it.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] when the token is empty.
    pub fn set_special(&mut self, role: Special, token: &str) -> Result<u32> {
        self.add_special_tokens([token])?;
        let id = self.token_to_id(token).ok_or_else(|| Error::Tokenizer("an added token has no text".into()))?;
        self.roles[role as usize] = Some(id);
        if let Value::Object(config) = &mut self.config {
            config.insert(role.key().into(), Value::String(token.into()));
        }
        Ok(id)
    }

    /// Adds tokens that are found in text before anything else is, and are left out of decoded text on request.
    ///
    /// Returns how many were new. Ids follow the largest so far.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] when the underlying library refuses one.
    pub fn add_special_tokens<S: AsRef<str>>(&mut self, tokens: impl IntoIterator<Item = S>) -> Result<usize> {
        self.add(tokens.into_iter().map(|token| AddedToken::from(token.as_ref(), true)).collect())
    }

    /// Adds ordinary tokens that are found whole in text, whatever the model would have made of it.
    ///
    /// Returns how many were new. Ids follow the largest so far.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] when the underlying library refuses one.
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

    /// Turns ids into text. Ids that the vocabulary lacks are passed over, as the reference does.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] when the file's decoder fails.
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

    /// Turns ids into text, special tokens included.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] when the file's decoder fails.
    pub fn decode_with_special(&self, ids: &[u32]) -> Result<String> {
        self.decode_ids(ids, false)
    }

    /// Turns each list of ids into text, on all threads of the current pool.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] when the file's decoder fails.
    pub fn decode_batch<I: AsRef<[u32]> + Sync>(&self, batch: &[I]) -> Result<Vec<String>> {
        use rayon::prelude::*;
        crate::kernels::parallel::adopt();
        batch.par_iter().map(|ids| self.decode(ids.as_ref())).collect()
    }

    fn decode_ids(&self, ids: &[u32], skip_special: bool) -> Result<String> {
        if skip_special && ids.iter().any(|&id| self.is_special(id)) {
            // By id: the library goes by text, and misses special tokens that a normalizer changes, as Llama-2's `<s>`.
            let ordinary: Vec<u32> = ids.iter().copied().filter(|&id| !self.is_special(id)).collect();
            return self.decode_all(&ordinary);
        }
        self.decode_all(ids)
    }

    /// The text of ids, special or not.
    fn decode_all(&self, ids: &[u32]) -> Result<String> {
        let added = self.inner.get_added_vocabulary();
        let token = |&id: &u32| added.simple_id_to_token(id).or_else(|| self.inner.get_model().id_to_token(id));
        guard("decoding", || self.pipeline.decode(ids.iter().filter_map(token).collect()))
    }

    /// Writes `tokenizer.json`. The same tokenizer gives the same bytes each time. The file is replaced as a whole: a
    /// reader sees the old one or the new one.
    ///
    /// # Errors
    /// [`Error::Io`] when the file cannot be written.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        let json = self.to_json()?;
        atomic::write_file(path, |file| file.write_all(json.as_bytes()))
    }

    /// Writes `tokenizer.json` and `tokenizer_config.json` into a folder, which is made if need be; `transformers` opens
    /// it with `AutoTokenizer.from_pretrained`.
    ///
    /// # Errors
    /// [`Error::Io`] when a file cannot be written.
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

    /// The content of `tokenizer.json`.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] when the tokenizer holds what JSON cannot.
    pub fn to_json(&self) -> Result<String> {
        let mut whole = self.inner.clone();
        let (truncation, padding) = self.stored.clone();
        guard("saving", || {
            // Before the post-processor is there: the library subtracts the tokens that it adds from the length, which may be less.
            whole.with_truncation(truncation)?.with_padding(padding);
            whole.with_post_processor(self.post.clone());
            whole.to_string(true)
        })
    }

    /// The number of tokens that `tokenizer_config.json` says a model reads; `None` where it says none, or the huge number that stands
    /// for none. Nothing is cut by it unless a caller does.
    pub(crate) fn model_max_length(&self) -> Option<usize> {
        self.config.get("model_max_length")?.as_u64().and_then(|length| usize::try_from(length).ok())
    }

    /// `tokenizer_config.json`, or what a GGUF file says of it.
    #[cfg(feature = "chat")]
    pub(super) fn config(&self) -> &Value {
        &self.config
    }

    /// The template by which a conversation becomes a text (`chat_template.jinja` or the key of
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

/// Runs the library, turning its errors and its panics (on hostile files) into ours.
fn guard<T>(what: &str, run: impl FnOnce() -> tokenizers::Result<T>) -> Result<T> {
    // Unwind safety: the library keeps only caches behind locks; those poison and are then passed over.
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(e)) => Err(match e.downcast::<Error>() {
            Ok(ours) => *ours,
            Err(e) => Error::Tokenizer(format!("{what}: {e}")),
        }),
        Err(panic) => {
            let reason = panic.downcast_ref::<String>().map(String::as_str);
            let reason = reason.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no reason given");
            Err(Error::Tokenizer(format!("{what}: the tokenizer's file asks for the impossible: {reason}")))
        }
    }
}

#[cfg(test)]
const _: fn() = || {
    fn shared<T: Send + Sync>() {}
    shared::<Tokenizer>();
};
