//! Character-level tokenizers without the machinery: one look-up a character.
//!
//! The library splits a text by a regular expression and looks each piece up, which for single characters is a hundred
//! times the work that it need be. What this shortcut gives is what the library gives; the tests compare.

use std::collections::HashMap;

use tokenizers::{ModelWrapper, PreTokenizerWrapper};

use crate::{Error, Result};

/// The split behind every character, line ends included, in words that every engine of regular expressions understands.
pub(super) const EVERY_CHAR: &str = r"[\s\S]";

/// The ids of single characters.
#[derive(Debug, Clone)]
pub(super) struct CharTable {
    ids: HashMap<char, u32>,
    unk: Option<u32>,
    /// Tokens that are looked for in the text before it is split.
    added: Vec<String>,
}

impl CharTable {
    /// The table of a tokenizer that looks characters up and does nothing else to a text.
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

    /// Whether the shortcut may be taken: no added token is in the text.
    pub(super) fn covers(&self, text: &str) -> bool {
        !self.added.iter().any(|token| text.contains(token.as_str()))
    }

    /// # Errors
    /// [`Error::Tokenizer`] naming a character that the vocabulary lacks.
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
