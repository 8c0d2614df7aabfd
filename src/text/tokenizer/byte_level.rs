//! Byte-level tokenizers without the machinery: GPT-2's split by hand, and each word tokenized once.
//!
//! The library splits by a regular expression, builds three strings and two tables of positions for each word, and asks
//! its model for every one. But a text of a megabyte has some ten thousand different words. Here the split
//!
//! ```text
//! 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
//! ```
//!
//! is a small automaton over four classes of characters, which come from the tables of the `regex` crate, and the model
//! is asked once for each different word. The ids are the library's; the tests compare.

use std::collections::HashMap;
use std::sync::LazyLock;

use regex_syntax::hir::{Class, HirKind};
use tokenizers::{Model, ModelWrapper, PreTokenizerWrapper};

use super::{guard, stream};
use crate::Result;

/// What GPT-2's expression tells apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Other,
    Letter,
    Number,
    Space,
}

/// The kinds of the characters below U+10000, and the ranges of those above.
struct Kinds {
    low: Vec<Kind>,
    high: Vec<(char, char, Kind)>,
}

static KINDS: LazyLock<Kinds> = LazyLock::new(|| {
    let mut kinds = Kinds { low: vec![Kind::Other; 0x10000], high: Vec::new() };
    for (class, kind) in [(r"\p{L}", Kind::Letter), (r"\p{N}", Kind::Number), (r"\s", Kind::Space)] {
        let hir = regex_syntax::parse(class).expect("a class of characters that Unicode defines");
        let HirKind::Class(Class::Unicode(class)) = hir.into_kind() else { unreachable!("a class of characters") };
        for range in class.ranges() {
            let (start, end) = (range.start(), range.end());
            let low = start as usize..(end as usize + 1).min(0x10000);
            if !low.is_empty() {
                kinds.low[low].fill(kind);
            }
            if end as usize >= 0x10000 {
                kinds.high.push((start.max('\u{10000}'), end, kind));
            }
        }
    }
    kinds.high.sort_unstable_by_key(|&(start, ..)| start);
    kinds
});

impl Kinds {
    fn of(&self, c: char) -> Kind {
        match self.low.get(c as usize) {
            Some(&kind) => kind,
            None => {
                let after = self.high.partition_point(|&(start, ..)| start <= c);
                match after.checked_sub(1).map(|i| self.high[i]) {
                    Some((_, end, kind)) if c <= end => kind,
                    _ => Kind::Other,
                }
            }
        }
    }
}

/// The words of a text, in order; together they are the text.
pub(super) fn words(text: &str) -> impl Iterator<Item = &str> {
    let kinds = &*KINDS;
    let mut rest = text;
    std::iter::from_fn(move || {
        let word = &rest[..first_word(kinds, rest)?];
        rest = &rest[word.len()..];
        Some(word)
    })
}

/// The length of the first word in bytes; none at the end of the text.
fn first_word(kinds: &Kinds, text: &str) -> Option<usize> {
    let first = text.chars().next()?;
    if first == '\'' {
        let contraction = ["'s", "'t", "'re", "'ve", "'m", "'ll", "'d"].into_iter().find(|c| text.starts_with(c));
        if let Some(contraction) = contraction {
            return Some(contraction.len());
        }
    }
    let run = |from: usize, kind: Kind| {
        let end = text[from..].char_indices().find(|&(_, c)| kinds.of(c) != kind);
        end.map_or(text.len(), |(i, _)| from + i)
    };
    let kind = kinds.of(first);
    if kind != Kind::Space {
        return Some(run(0, kind));
    }
    if first == ' ' {
        match text[1..].chars().next().map(|c| kinds.of(c)) {
            None => return Some(1),
            Some(Kind::Space) => {}
            Some(kind) => return Some(run(1, kind)),
        }
    }
    // White space keeps its last character for the word behind it.
    let end = run(0, Kind::Space);
    let last = text[..end].chars().next_back().map_or(0, char::len_utf8);
    Some(if end == text.len() || end == last { end } else { end - last })
}

/// Appends a word in the alphabet of byte-level vocabularies.
pub(super) fn push_spelled(word: &str, spelled: &mut String) {
    spelled.extend(word.bytes().map(stream::char_of));
}

/// What the short cut must know of a tokenizer that it may be taken for.
#[derive(Debug, Clone)]
pub(super) struct ByteLevelWords {
    prefix_space: bool,
    /// Tokens that are looked for in the text before it is split.
    added: Vec<String>,
}

impl ByteLevelWords {
    /// For tokenizers that split a text as GPT-2 does and do nothing else to it.
    pub(super) fn of(tokenizer: &tokenizers::Tokenizer) -> Option<Self> {
        /// With more it is quicker to let the library look for all of them at once.
        const MOST_ADDED: usize = 8;
        let ModelWrapper::BPE(bpe) = tokenizer.get_model() else { return None };
        let PreTokenizerWrapper::ByteLevel(split) = tokenizer.get_pre_tokenizer()? else { return None };
        let added = tokenizer.get_added_vocabulary().get_vocab();
        if bpe.dropout.is_some_and(|dropout| dropout > 0.0)
            || !split.use_regex
            || tokenizer.get_normalizer().is_some()
            || added.len() > MOST_ADDED
        {
            return None;
        }
        Some(ByteLevelWords { prefix_space: split.add_prefix_space, added: added.keys().cloned().collect() })
    }

    /// Whether the short cut may be taken: no added token is in the text.
    pub(super) fn covers(&self, text: &str) -> bool {
        !self.added.iter().any(|token| text.contains(token.as_str()))
    }

    /// # Errors
    /// Those of the model.
    pub(super) fn encode(&self, model: &ModelWrapper, text: &str) -> Result<Vec<u32>> {
        let prefixed;
        let text = if self.prefix_space && !text.is_empty() && !text.starts_with(' ') {
            prefixed = format!(" {text}");
            &prefixed
        } else {
            text
        };
        // Where a word's ids were put the first time that it came.
        let mut seen: HashMap<&str, (usize, usize)> = HashMap::new();
        let mut ids: Vec<u32> = Vec::with_capacity(text.len() / 3);
        let mut spelled = String::new();
        for word in words(text) {
            if let Some(&(start, end)) = seen.get(word) {
                ids.extend_from_within(start..end);
                continue;
            }
            spelled.clear();
            push_spelled(word, &mut spelled);
            let start = ids.len();
            ids.extend(guard("encoding", || model.tokenize(&spelled))?.iter().map(|token| token.id));
            seen.insert(word, (start, ids.len()));
        }
        Ok(ids)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokenizers::pre_tokenizers::byte_level::ByteLevel;
    use tokenizers::{OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer};

    use super::*;

    /// The library's split, spelled in the byte-level alphabet.
    fn library(text: &str) -> Vec<String> {
        let mut split = PreTokenizedString::from(text);
        ByteLevel::default().add_prefix_space(false).pre_tokenize(&mut split).unwrap();
        let splits = split.get_splits(OffsetReferential::Original, OffsetType::None);
        splits.into_iter().map(|(word, ..)| word.to_string()).collect()
    }

    fn ours(text: &str) -> Vec<String> {
        let spell = |word| {
            let mut spelled = String::new();
            push_spelled(word, &mut spelled);
            spelled
        };
        words(text).map(spell).collect()
    }

    #[test]
    fn words_are_the_librarys() {
        for text in [
            "",
            " ",
            "   ",
            "a  b\n\n c \t\n",
            "don't I'll we've 'tis 's'S ''re x'd",
            "1,234.5 ½ ² Ⅷ ٣ a1b",
            "größer 猫が、 e\u{301} ﷽ 𝔘𝟙𒐀\u{1F600}\u{10FFFF}",
            "\u{A0}x \u{A0}\u{3000}y\u{85}\u{200B}z \r\n",
        ] {
            assert_eq!(ours(text), library(text), "{text:?}");
        }
    }

    #[test]
    fn every_character_is_of_its_kind() {
        // Behind a letter, a number and a mark, a character's kind shows in what it joins.
        let all: Vec<char> = ('\0'..=char::MAX).collect();
        for chars in all.chunks(4096) {
            let text: String = chars.iter().flat_map(|&c| ['a', c, '1', c, '!', c]).collect();
            assert!(ours(&text) == library(&text), "{:?}", chars[0]);
        }
    }

    proptest! {
        #[test]
        fn words_of_any_text_are_the_librarys(text in r"([ '\n\ta-zA-Z0-9.]|'(s|t|re|ve|m|ll|d)|\PC|\s){0,40}") {
            prop_assert_eq!(ours(&text), library(&text));
        }
    }
}
