//! Fast path of character-level tokenizers: one look-up per character.
//!
//! The library splits a text by a regular expression and looks up each piece, which for single
//! characters takes about a hundred times as long. The ids are the library's; tests compare them.

use std::collections::HashMap;

use tokenizers::{ModelWrapper, PreTokenizerWrapper};

use crate::{Error, Result};

/// The pattern that splits after every character, line ends included, in syntax that every regular
/// expression engine supports.
pub(super) const EVERY_CHAR: &str = r"[\s\S]";

/// The ids of single characters.
#[derive(Debug, Clone)]
pub(super) struct CharTable {
    ids: HashMap<char, u32>,
    unk: Option<u32>,
    /// Added tokens, which are matched before the text is split.
    added: Vec<String>,
}

impl CharTable {
    /// Returns the table of a tokenizer that only looks up characters.
    pub(super) fn of(tokenizer: &tokenizers::Tokenizer, vocab: &HashMap<String, u32>) -> Option<Self> {
        let ModelWrapper::WordLevel(model) = tokenizer.get_model() else { return None };
        let PreTokenizerWrapper::Split(split) = tokenizer.get_pre_tokenizer()? else { return None };
        let json = serde_json::to_value(split).ok()?;
        if tokenizer.get_normalizer().is_some()
            || json["pattern"]["Regex"] != EVERY_CHAR
            || json["behavior"] != "Isolated"
            || json["invert"] != false
        {
            return None;
        }
        let added = tokenizer.get_added_vocabulary().get_vocab();
        let mut ids = HashMap::new();
        for (token, &id) in vocab {
            let mut chars = token.chars();
            if let (Some(c), None) = (chars.next(), chars.next()) {
                ids.insert(c, id);
            }
        }
        let unk = vocab.get(&model.unk_token).copied();
        Some(CharTable { ids, unk, added: added.keys().cloned().collect() })
    }

    /// Whether the fast path applies: the text contains no added token.
    pub(super) fn covers(&self, text: &str) -> bool {
        !self.added.iter().any(|token| text.contains(token.as_str()))
    }

    /// # Errors
    /// [`Error::Tokenizer`] for a character that is not in the vocabulary.
    pub(super) fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let id = |(byte, c)| {
            self.ids.get(&c).copied().or(self.unk).ok_or_else(|| {
                Error::Tokenizer(format!(
                    "character {c:?} at byte {byte} is not in the vocabulary, which has no unknown token"
                ))
            })
        };
        text.char_indices().map(id).collect()
    }
}
