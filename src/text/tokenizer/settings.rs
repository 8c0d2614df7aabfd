//! Supported keys of `tokenizer_config.json` and the files next to it, and their effect on a
//! `tokenizer.json`.
//!
//! As in `transformers`, the settings of BERT's and GPT-2's tokenizer classes override the
//! `tokenizer.json` next to them, unless `tokenizer_class` names the class that takes a
//! `tokenizer.json` as it is.

use serde_json::Value;
use tokenizers::{NormalizerWrapper, PreTokenizerWrapper};

use super::{Special, Tokenizer, guard};
use crate::{Error, Result};

/// Keys of `tokenizer_config.json` that are supported or do not change ids.
const KNOWN: &[&str] = &[
    "add_bos_token",
    "add_eos_token",
    "add_prefix_space",
    "added_tokens_decoder",
    "additional_special_tokens",
    "additional_special_tokens_ids",
    "audio_tokenizer",
    "auto_map",
    "backend",
    "bos",
    "chat_template",
    "clean_up_tokenization_spaces",
    "cleanup_tokenization_spaces",
    "default_chat_template",
    "device_map",
    "do_basic_tokenize",
    "do_lower_case",
    "eos",
    "errors",
    "extra_ids",
    "extra_special_tokens",
    "fix_mistral_regex",
    "from_slow",
    "full_tokenizer_file",
    "image_seq_length",
    "image_size",
    "init_inputs",
    "is_fast",
    "is_local",
    "keep_accents",
    "lang_codes",
    "language",
    "language_codes",
    "legacy",
    "legacy_behaviour",
    "local_files_only",
    "lowercase",
    "max_len",
    "max_length",
    "merges_file",
    "model_input_names",
    "model_max_length",
    "model_specific_special_tokens",
    "model_type",
    "name_or_path",
    "never_split",
    "normalization",
    "num_extra_ids",
    "pad",
    "pad_to_multiple_of",
    "padding",
    "padding_side",
    "patch_size",
    "phonemizer_lang",
    "predict_timestamps",
    "processor_class",
    "remove_space",
    "response_schema",
    "return_token_type_ids",
    "separate_vocabs",
    "sp_model_kwargs",
    "spaces_between_special_tokens",
    "special_tokens",
    "special_tokens_map_file",
    "split_special_tokens",
    "src_lang",
    "stride",
    "strip_accents",
    "target_lang",
    "task",
    "tgt_lang",
    "tokenize_chinese_chars",
    "tokenizer_class",
    "tokenizer_file",
    "tokenizer_type",
    "tokenizer_version",
    "transformers_version",
    "trim_offsets",
    "truncation",
    "truncation_side",
    "truncation_strategy",
    "trust_remote_code",
    "unk",
    "use_default_system_prompt",
    "use_fast",
    "verbose",
    "version",
    "vocab_file",
    "vocab_size",
    "word_delimiter",
    "wordpieces_prefix",
];

/// Checks the keys of `tokenizer_config.json`.
///
/// # Errors
/// A sentence that names an unknown key or an unsupported setting.
pub(super) fn check_config(config: &Value) -> std::result::Result<(), String> {
    for (key, value) in config.as_object().into_iter().flatten() {
        // Attributes that name tokens, and comments.
        let named = ["_token", "_token_id", "_tokens", "_token_ids"].iter().any(|end| key.ends_with(end));
        if !named && !key.starts_with('_') && !KNOWN.contains(&key.as_str()) {
            return Err(format!("`{key}` is not known: remove it if it changes no ids"));
        }
        let expected: &[Value] = match key.as_str() {
            "split_special_tokens" => &[Value::Null, Value::Bool(false)],
            "wordpieces_prefix" => &[Value::Null, Value::String("##".into())],
            "do_lower_case" | "strip_accents" | "add_prefix_space" | "tokenize_chinese_chars" => {
                if !(value.is_boolean() || value.is_null()) {
                    return Err(format!("`{key}`: expected true, false or null, found {value}"));
                }
                continue;
            }
            _ => continue,
        };
        if !expected.contains(value) {
            return Err(format!("`{key}`: expected {} (nothing else is supported), found {value}", expected[1]));
        }
    }
    Ok(())
}

/// Checks the keys of `special_tokens_map.json`.
///
/// # Errors
/// A sentence that names a key that is not a role of a token.
pub(super) fn check_map(map: &Value) -> std::result::Result<(), String> {
    let mut keys = map.as_object().into_iter().flat_map(|map| map.keys());
    match keys.find(|key| !key.ends_with("_token") && !key.ends_with("_tokens")) {
        Some(key) => Err(format!("`{key}` is not known: expected names of tokens, such as `{}`", Special::Eos.key())),
        None => Ok(()),
    }
}

impl Tokenizer {
    /// Applies the settings of `tokenizer_config.json`, which override the components of
    /// `tokenizer.json`.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] if the library rejects the changed components.
    pub(super) fn apply_settings(&mut self, config: &Value) -> Result<()> {
        let class = config.get("tokenizer_class").and_then(Value::as_str).unwrap_or("");
        if ["PreTrainedTokenizerFast", "TokenizersBackend"].contains(&class) {
            return Ok(());
        }
        let flag = |key: &str| config.get(key).and_then(Value::as_bool);
        let (lowercase, chinese) = (flag("do_lower_case"), flag("tokenize_chinese_chars"));
        // A byte-level tokenizer of Llama's class is not changed.
        let prefix_space = flag("add_prefix_space").filter(|_| !class.starts_with("Llama"));
        let mut normalizer = self.inner.get_normalizer().cloned();
        let mut pre_tokenizer = self.inner.get_pre_tokenizer().cloned();
        let changed = (
            normalizer.as_mut().is_some_and(|all| set_bert(all, lowercase, config.get("strip_accents"), chinese)),
            pre_tokenizer.as_mut().zip(prefix_space).is_some_and(|(all, prefix)| set_prefix_space(all, prefix)),
        );
        if changed.0 {
            guard("tokenizer_config.json", || self.inner.with_normalizer(normalizer).map(|_| ()))?;
        }
        if changed.1 {
            self.inner.with_pre_tokenizer(pre_tokenizer);
        }
        if changed.0 || changed.1 {
            self.rebuild()?;
        }
        Ok(())
    }

    /// Checks the ids of `added_tokens.json`, after missing tokens were added.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] for a token that has another id in this tokenizer.
    pub(super) fn check_added(&self, added: &[(String, u32)]) -> Result<()> {
        match added.iter().find(|(token, id)| self.token_to_id(token) != Some(*id)) {
            Some((token, id)) => {
                let found = self.token_to_id(token).map_or("none".into(), |id| id.to_string());
                Err(Error::Tokenizer(format!("`added_tokens.json`: expected id {id} of {token:?}, found {found}")))
            }
            None => Ok(()),
        }
    }
}

/// Applies BERT's settings; returns whether they change anything.
fn set_bert(
    normalizer: &mut NormalizerWrapper,
    lowercase: Option<bool>,
    strip_accents: Option<&Value>,
    chinese: Option<bool>,
) -> bool {
    match normalizer {
        NormalizerWrapper::BertNormalizer(bert) => {
            let before = (bert.lowercase, bert.handle_chinese_chars, bert.strip_accents);
            bert.lowercase = lowercase.unwrap_or(bert.lowercase);
            bert.handle_chinese_chars = chinese.unwrap_or(bert.handle_chinese_chars);
            // Null is a setting here: accents are stripped if case is.
            if let Some(strip) = strip_accents {
                bert.strip_accents = strip.as_bool();
            }
            before != (bert.lowercase, bert.handle_chinese_chars, bert.strip_accents)
        }
        NormalizerWrapper::Sequence(parts) => {
            let mut changed = false;
            for part in parts.as_mut() {
                changed |= set_bert(part, lowercase, strip_accents, chinese);
            }
            changed
        }
        _ => false,
    }
}

/// Sets the prefix space; returns whether that changes anything.
fn set_prefix_space(pre_tokenizer: &mut PreTokenizerWrapper, prefix: bool) -> bool {
    match pre_tokenizer {
        PreTokenizerWrapper::ByteLevel(split) => std::mem::replace(&mut split.add_prefix_space, prefix) != prefix,
        PreTokenizerWrapper::Sequence(parts) => {
            let mut changed = false;
            for part in parts.as_mut() {
                changed |= set_prefix_space(part, prefix);
            }
            changed
        }
        _ => false,
    }
}
