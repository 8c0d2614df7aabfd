//! Reading `tokenizer.json`, and the files next to it that define the roles of special tokens.

use std::path::Path;
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use tokenizers::{
    AddedToken, DecoderWrapper, Model, ModelWrapper, NormalizerWrapper, PostProcessorWrapper, PreTokenizerWrapper,
};

use super::byte_level::ByteLevelWords;
use super::chars::CharTable;
use super::pipeline::Pipeline;
use super::words::{self, WordCache};
use super::{Special, Tokenizer, guard, settings, stream, vetting};
use crate::mapped::{Load, MappedFile};
use crate::{Error, Result};

impl Tokenizer {
    /// Opens a tokenizer from a model folder, a `tokenizer.json` or a `.gguf` file.
    ///
    /// `tokenizer_config.json` and `special_tokens_map.json` in the same folder, if they exist,
    /// define the roles of special tokens and may add tokens, as does `added_tokens.json`. The
    /// settings `do_lower_case`, `strip_accents`, `tokenize_chinese_chars` (BERT) and
    /// `add_prefix_space` (GPT-2) of `tokenizer_config.json` override `tokenizer.json`, unless its
    /// `tokenizer_class` is `PreTrainedTokenizerFast`. A folder without `tokenizer.json` may have
    /// `vocab.txt` (BERT) or `vocab.json` and `merges.txt` (GPT-2, GPT-1) instead.
    ///
    /// # Errors
    /// [`Error::Io`] for a file that cannot be read, [`Error::Format`] with the file and the reason
    /// for invalid content, unknown keys included.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        if crate::checkpoint::is_gguf(path) {
            return Self::open_gguf(path);
        }
        let folder = if path.is_dir() { Some(path) } else { path.parent() };
        let beside = |name: &str| folder.map_or(Ok(None), |folder| read_config(&folder.join(name)));
        let mut config = beside("tokenizer_config.json")?.unwrap_or_else(|| Value::Object(Map::new()));
        let map = beside("special_tokens_map.json")?.unwrap_or_default();
        let added = beside("added_tokens.json")?.unwrap_or_default();
        let named = |name: &str| folder.map_or_else(|| name.into(), |folder| folder.join(name));
        settings::check_config(&config).map_err(|reason| Error::format(named("tokenizer_config.json"), reason))?;
        settings::check_map(&map).map_err(|reason| Error::format(named("special_tokens_map.json"), reason))?;
        let added = added_with_ids(&added).map_err(|reason| Error::format(named("added_tokens.json"), reason))?;
        if let Some(template) = folder.map(|folder| folder.join("chat_template.jinja")).filter(|path| path.exists()) {
            let text = std::fs::read_to_string(&template).map_err(|e| Error::io(&template, e))?;
            config["chat_template"] = text.into();
        }
        let file = if path.is_dir() { path.join("tokenizer.json") } else { path.to_path_buf() };
        let mut tokenizer = if path.is_dir() && !file.exists() {
            Self::open_older(path, &config)?
        } else {
            let bytes = MappedFile::open(&file, Load::Read)?;
            let mut tokenizer = Self::from_bytes(&bytes).map_err(|e| match e {
                Error::Tokenizer(reason) => Error::format(&file, reason),
                other => other,
            })?;
            tokenizer.apply_settings(&config)?;
            tokenizer
        };
        let missing: Vec<AddedToken> = added
            .iter()
            .filter(|(token, _)| tokenizer.token_to_id(token).is_none())
            .map(|(token, _)| AddedToken::from(token.as_str(), false))
            .collect();
        if !missing.is_empty() {
            tokenizer.add(missing)?;
        }
        tokenizer.check_added(&added)?;
        tokenizer.apply(config, &map)?;
        Ok(tokenizer)
    }

    /// Creates a tokenizer from the content of a `tokenizer.json`.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] with the reason, including the name of an unknown component.
    pub fn from_bytes(bytes: impl AsRef<[u8]>) -> Result<Self> {
        let bytes = bytes.as_ref();
        if let Err(e) = std::str::from_utf8(bytes) {
            return Err(Error::Tokenizer(format!(
                "expected UTF-8 text, found an invalid byte at byte {}",
                e.valid_up_to()
            )));
        }
        let merges = vetting::vet(bytes)?;
        match guard("reading tokenizer.json", || tokenizers::Tokenizer::from_bytes(bytes)) {
            Ok(mut inner) => {
                words::without_word_cache(&mut inner, &merges)?;
                Self::from_inner(inner)
            }
            Err(error) => {
                let json: Value =
                    serde_json::from_slice(bytes).map_err(|e| Error::Tokenizer(format!("expected JSON: {e}")))?;
                if let Some(json) = with_merges_apart(&json)
                    && let json = json.to_string()
                    && let Ok(merges) = vetting::vet(json.as_bytes())
                    && let Ok(mut inner) = guard("", || tokenizers::Tokenizer::from_bytes(json))
                {
                    words::without_word_cache(&mut inner, &merges)?;
                    return Self::from_inner(inner);
                }
                Err(diagnose(&json).map_or(error, Error::Tokenizer))
            }
        }
    }

    /// Splits a tokenizer of the library into its parts, and derives the roles of special tokens
    /// from their spelling.
    pub(super) fn from_inner(mut inner: tokenizers::Tokenizer) -> Result<Self> {
        let post = inner.get_post_processor().cloned();
        let stored = (inner.get_truncation().cloned(), inner.get_padding().cloned());
        inner.with_post_processor(None::<PostProcessorWrapper>).with_padding(None);
        guard("reading tokenizer.json", || inner.with_truncation(None).map(|_| ()))?;
        let config = Value::Object(Map::new());
        let mut tokenizer = Tokenizer {
            inner,
            post,
            stored,
            config,
            roles: [None; 7],
            vocab_size: 0,
            decoding: stream::Decoding::Tokens,
            pipeline: Arc::default(),
            known: Arc::default(),
            chars: None,
            byte_level: None,
        };
        tokenizer.rebuild()?;
        tokenizer.guess_roles();
        Ok(tokenizer)
    }

    /// Recomputes everything that depends on the components.
    pub(super) fn rebuild(&mut self) -> Result<()> {
        self.pipeline = Arc::new(Pipeline::of(&self.inner)?);
        self.refresh()
    }

    /// Recomputes everything that depends on the vocabulary.
    pub(super) fn refresh(&mut self) -> Result<()> {
        vetting::vet_added(self.inner.get_added_vocabulary())?;
        let vocab = self.inner.get_vocab(true);
        self.vocab_size = vocab.values().max().map_or(0, |&id| id as usize + 1);
        self.decoding = stream::Decoding::of(self.inner.get_decoder());
        self.chars = CharTable::of(&self.inner, &vocab);
        self.known = Arc::new(WordCache::new(vocab.keys().map(String::len).max().unwrap_or(0)));
        self.byte_level = ByteLevelWords::of(&self.inner, &self.pipeline).map(Arc::new);
        Ok(())
    }

    fn guess_roles(&mut self) {
        for role in Special::ALL {
            let mut found = role.spellings().iter().filter_map(|token| self.token_to_id(token));
            self.roles[role as usize] = found.find(|&id| self.is_special(id));
        }
        if let Some(unk) = model_unk(self.inner.get_model()) {
            self.roles[Special::Unk as usize] = Some(unk);
        }
    }

    /// Adds the tokens of a configuration that the vocabulary lacks, as `transformers` does, and
    /// sets the roles.
    pub(super) fn apply(&mut self, config: Value, map: &Value) -> Result<()> {
        let mut added = Vec::new();
        if let Some(Value::Object(tokens)) = config.get("added_tokens_decoder") {
            let mut tokens: Vec<(u32, &Value)> =
                tokens.iter().filter_map(|(id, token)| Some((id.parse().ok()?, token))).collect();
            tokens.sort_by_key(|&(id, _)| id);
            added.extend(tokens.into_iter().filter_map(|(_, token)| added_token(token, false)));
        }
        let mut roles: [Option<String>; 7] = Default::default();
        for role in Special::ALL {
            let source = if role.in_config(&config).is_some() { &config } else { map };
            if let Some(token) = role.in_config(source) {
                roles[role as usize] = Some(token.to_string());
                let known = self.inner.get_added_vocabulary().get_vocab().contains_key(token);
                if !known && !added.iter().any(|t| t.content == token) {
                    added.extend(added_token(&source[role.key()], true));
                }
            }
        }
        // Additional special tokens: a list of tokens, or an object of names and tokens.
        for list in ["additional_special_tokens", "extra_special_tokens"] {
            for tokens in [config.get(list), map.get(list)].into_iter().flatten() {
                let tokens: Vec<&Value> = match tokens {
                    Value::Array(tokens) => tokens.iter().collect(),
                    Value::Object(tokens) => tokens.values().collect(),
                    _ => Vec::new(),
                };
                for token in tokens.into_iter().filter_map(|token| added_token(token, true)) {
                    if !added.iter().any(|t| t.content == token.content) {
                        added.push(token);
                    }
                }
            }
        }
        let known = self.inner.get_added_vocabulary().get_vocab();
        added.retain(|token| !known.contains_key(&token.content));
        if !added.is_empty() {
            self.add(added)?;
            self.guess_roles();
        }
        for (id, token) in self.roles.iter_mut().zip(&roles) {
            if let Some(token) = token {
                *id = self.inner.token_to_id(token);
            }
        }
        self.config = config;
        Ok(())
    }
}

/// Tokens of `added_tokens.json` with their ids.
fn added_with_ids(added: &Value) -> std::result::Result<Vec<(String, u32)>, String> {
    let mut tokens = Vec::new();
    for (token, id) in added.as_object().into_iter().flatten() {
        let number = id.as_u64().and_then(|id| u32::try_from(id).ok());
        let number = number.ok_or_else(|| format!("{token:?}: expected an id, found {id}"))?;
        tokens.push((token.clone(), number));
    }
    tokens.sort_by_key(|&(_, id)| id);
    Ok(tokens)
}

/// Reads a token of a configuration: a string, or an object with `content` and flags.
fn added_token(value: &Value, special: bool) -> Option<AddedToken> {
    let flag = |key: &str, default| value.get(key).and_then(Value::as_bool).unwrap_or(default);
    let content = value.as_str().or_else(|| value.get("content")?.as_str()).filter(|content| !content.is_empty())?;
    let special = special || flag("special", false);
    Some(
        AddedToken::from(content, special)
            .lstrip(flag("lstrip", false))
            .rstrip(flag("rstrip", false))
            .single_word(flag("single_word", false))
            .normalized(flag("normalized", !special)),
    )
}

/// Reads a JSON file next to the tokenizer; `None` if there is none.
fn read_config(path: &Path) -> Result<Option<Value>> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(Error::io(path, e)),
    };
    let value: Value = serde_json::from_slice(&bytes).map_err(|e| Error::format(path, e.to_string()))?;
    if !value.is_object() {
        return Err(Error::format(path, "expected a JSON object"));
    }
    Ok(Some(value))
}

/// Id of the model's own unknown token.
fn model_unk(model: &ModelWrapper) -> Option<u32> {
    match model {
        ModelWrapper::BPE(bpe) => bpe.token_to_id(bpe.unk_token.as_deref()?),
        ModelWrapper::WordPiece(model) => model.token_to_id(&model.unk_token),
        ModelWrapper::WordLevel(model) => model.token_to_id(&model.unk_token),
        // The library does not expose a unigram model's `unk_id`, but returns it for a character
        // that no vocabulary has.
        ModelWrapper::Unigram(model) => match &guard("", || model.tokenize("\u{10FFFE}")).ok()?[..] {
            [unknown] => Some(unknown.id),
            _ => None, // byte fallback
        },
    }
}

/// Names the part of a `tokenizer.json` that is invalid, where the library's error does not.
fn diagnose(json: &Value) -> Option<String> {
    fn part<T: DeserializeOwned>(json: &Value, key: &str) -> Option<String> {
        let value = json.get(key).filter(|value| !value.is_null())?;
        // Via text: some of the library's deserializers need borrowed strings, and keys in the
        // file's order.
        let text = serde_json::to_string(value).ok()?;
        let reason = match guard("", || Ok(serde_json::from_str::<T>(&text)?)) {
            Ok(_) => return None,
            Err(Error::Tokenizer(reason)) => reason,
            Err(other) => other.to_string(),
        };
        let kind = match value.get("type") {
            Some(Value::String(kind)) => format!(" of type `{kind}`"),
            _ => String::new(),
        };
        Some(format!("`{key}`{kind} is unknown or incomplete{reason}"))
    }
    if !json.is_object() {
        return Some("expected a JSON object".into());
    }
    if json.get("model").is_none_or(Value::is_null) {
        return Some("the file has no `model`".into());
    }
    part::<ModelWrapper>(json, "model")
        .or_else(|| part::<NormalizerWrapper>(json, "normalizer"))
        .or_else(|| part::<PreTokenizerWrapper>(json, "pre_tokenizer"))
        .or_else(|| part::<PostProcessorWrapper>(json, "post_processor"))
        .or_else(|| part::<DecoderWrapper>(json, "decoder"))
}

/// Converts merges of older files, strings of two tokens separated by a space, to pairs. They are
/// ambiguous if a token contains a space, as in Llama 2. If only one split gives two tokens whose
/// concatenation is a token, it is the right one.
fn with_merges_apart(json: &Value) -> Option<Value> {
    let merges = json["model"]["merges"].as_array()?;
    let vocab = json["model"]["vocab"].as_object()?;
    let mut apart = Vec::with_capacity(merges.len());
    for merge in merges {
        let merge = merge.as_str()?;
        let mut cuts = merge.match_indices(' ').map(|(i, _)| (&merge[..i], &merge[i + 1..]));
        let pair = if merge.matches(' ').count() == 1 {
            cuts.next()?
        } else {
            let known = |a: &str, b: &str| [a, b, &[a, b].concat()].into_iter().all(|token| vocab.contains_key(token));
            let mut known = cuts.filter(|(a, b)| known(a, b));
            let pair = known.next()?;
            if known.next().is_some() {
                return None;
            }
            pair
        };
        apart.push(serde_json::json!([pair.0, pair.1]));
    }
    let mut json = json.clone();
    json["model"]["merges"] = Value::Array(apart);
    Some(json)
}
