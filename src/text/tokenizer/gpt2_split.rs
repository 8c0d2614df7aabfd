//! GPT-2's pre-tokenizer without a regular expression engine.
//!
//! ```text
//! 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
//! ```
//!
//! is implemented as a small automaton over four character classes, which come from the tables of
//! the `regex` crate. Tests compare the words with the library's.

use std::sync::LazyLock;

use regex_syntax::hir::{Class, HirKind};

use super::stream;

/// Character classes of GPT-2's expression.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Other,
    Letter,
    Number,
    Space,
}

/// Class of each character below U+10000, and ranges for the others.
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

/// Returns the words of a text in order; their concatenation is the text.
pub(super) fn words(text: &str) -> impl Iterator<Item = &str> {
    let kinds = &*KINDS;
    let mut rest = text;
    std::iter::from_fn(move || {
        let word = &rest[..first_word(kinds, rest)?];
        rest = &rest[word.len()..];
        Some(word)
    })
}

/// Length of the first word in bytes; `None` at the end of the text.
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
    // The last white space character belongs to the next word.
    let end = run(0, Kind::Space);
    let last = text[..end].chars().next_back().map_or(0, char::len_utf8);
    Some(if end == text.len() || end == last { end } else { end - last })
}

/// Appends a word in the byte-level alphabet.
pub(super) fn push_spelled(word: &str, spelled: &mut String) {
    spelled.extend(word.bytes().map(stream::char_of));
}

#[cfg(test)]
mod tests {
    use tokenizers::pre_tokenizers::byte_level::ByteLevel;
    use tokenizers::{OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer};

    use super::*;
    use crate::text::random_text::random_text;

    /// The library's split, in the byte-level alphabet.
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
        // After a letter, a number and a mark, the split shows the class of a character.
        let all: Vec<char> = ('\0'..=char::MAX).collect();
        for chars in all.chunks(4096) {
            let text: String = chars.iter().flat_map(|&c| ['a', c, '1', c, '!', c]).collect();
            assert!(ours(&text) == library(&text), "{:?}", chars[0]);
        }
    }

    #[test]
    fn words_of_any_text_are_those_of_the_library() {
        let mut rng = crate::Rng::seed(7);
        let pieces = [" ", "'", "\n", "\t", "a", "z", "Q", "7", ".", "'s", "'t", "'re", "'ve", "'m", "'ll", "'d"];
        for _ in 0..2000 {
            let text = random_text(&mut rng, &pieces, 40);
            assert_eq!(ours(&text), library(&text), "{text:?}");
        }
    }
}
