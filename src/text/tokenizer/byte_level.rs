//! Fast path of byte-level tokenizers: each distinct word is tokenized once.
//!
//! The library splits by a regular expression, builds three strings and two tables of positions per
//! word, and runs its model on every word. But a text of a megabyte has some ten thousand distinct
//! words. Here words are split by [GPT-2's rules](super::gpt2_split) or, for later models, by the
//! pattern's own engine, and the model runs once per distinct word. The ids are the library's;
//! tests compare them.

use std::collections::HashMap;
use std::sync::Arc;

use tokenizers::{ModelWrapper, NormalizerWrapper, PreTokenizerWrapper, SplitDelimiterBehavior};
use unicode_normalization::{IsNormalized, is_nfc_quick};

use super::gpt2_split::{push_spelled, words};
use super::guard;
use super::pattern::{Budget, Pattern};
use super::pipeline::{Pipeline, PreTokenizer};
use super::words::WordCache;
use crate::Result;

/// A rule for splitting a text into words.
#[derive(Debug, Clone)]
enum Split {
    /// GPT-2's rules.
    Gpt2,
    /// The matches of a pattern, and the text between them.
    Pattern(Arc<Pattern>),
    /// Each digit separately.
    Digits,
}

/// The settings of a tokenizer that has a fast path.
#[derive(Debug, Clone)]
pub(super) struct ByteLevelWords {
    prefix_space: bool,
    /// Whether texts are converted to Unicode's composed form (NFC); texts not in that form do not
    /// take the fast path.
    composed: bool,
    /// Applied in order, each within the words of the previous one.
    splits: Vec<Split>,
    /// A text that contains one of these may contain an added token.
    added: Vec<String>,
}

impl ByteLevelWords {
    /// Returns the fast path of a tokenizer that only splits a text.
    pub(super) fn of(tokenizer: &tokenizers::Tokenizer, pipeline: &Pipeline) -> Option<Self> {
        let ModelWrapper::BPE(bpe) = tokenizer.get_model() else { return None };
        if bpe.dropout.is_some_and(|dropout| dropout > 0.0) {
            return None;
        }
        let composed = match tokenizer.get_normalizer() {
            None => false,
            Some(NormalizerWrapper::NFC(_)) => true,
            Some(_) => return None,
        };
        let parts = match pipeline.pre_tokenizer.as_ref()? {
            PreTokenizer::Sequence(parts) => parts.as_slice(),
            one => std::slice::from_ref(one),
        };
        let (last, before) = parts.split_last()?;
        let (prefix_space, gpt2) = match last {
            PreTokenizer::Gpt2 { prefix_space } => (*prefix_space, Some(Split::Gpt2)),
            PreTokenizer::Library(PreTokenizerWrapper::ByteLevel(last)) => (last.add_prefix_space, None),
            _ => return None,
        };
        if prefix_space && !before.is_empty() {
            return None; // each of them adds a space before its words
        }
        let split = |part: &PreTokenizer| match part {
            PreTokenizer::Split { pattern, behavior: SplitDelimiterBehavior::Isolated, .. } => {
                Some(Split::Pattern(pattern.clone()))
            }
            PreTokenizer::Library(PreTokenizerWrapper::Digits(digits)) => {
                digits.individual_digits.then_some(Split::Digits)
            }
            _ => None,
        };
        let mut splits = before.iter().map(split).collect::<Option<Vec<_>>>()?;
        splits.extend(gpt2);
        let added = to_look_for(tokenizer.get_added_vocabulary().get_vocab().keys().map(String::as_str))?;
        if composed && !added.iter().all(|text| text.is_ascii()) {
            return None;
        }
        Some(ByteLevelWords { prefix_space, composed, splits, added })
    }

    /// Whether the fast path applies: the text contains no added token.
    pub(super) fn covers(&self, text: &str) -> bool {
        !self.added.iter().any(|token| text.contains(token.as_str()))
            && (!self.composed || text.is_ascii() || is_nfc_quick(text.chars()) == IsNormalized::Yes)
    }

    /// # Errors
    /// Errors of the model; [`Error::Tokenizer`](crate::Error::Tokenizer) if the budget is
    /// exceeded.
    pub(super) fn encode(
        &self,
        model: &ModelWrapper,
        known: &WordCache,
        text: &str,
        budget: &Budget,
    ) -> Result<Vec<u32>> {
        let prefixed;
        let text = if self.prefix_space && !text.is_empty() && !text.starts_with(' ') {
            prefixed = format!(" {text}");
            &prefixed
        } else {
            text
        };
        // Range of a word's ids at its first occurrence.
        let mut seen: HashMap<&str, (usize, usize)> = HashMap::new();
        let mut ids: Vec<u32> = Vec::with_capacity(text.len() / 3);
        let mut spelled = String::new();
        let mut add = |word| {
            if let Some(&(start, end)) = seen.get(word) {
                ids.extend_from_within(start..end);
                return Ok(());
            }
            spelled.clear();
            push_spelled(word, &mut spelled);
            let start = ids.len();
            guard("encoding", || known.tokens(model, &spelled, budget, |id, _, _| ids.push(id)))?;
            seen.insert(word, (start, ids.len()));
            Ok(())
        };
        split(&self.splits, text, budget, &mut add)?;
        Ok(ids)
    }
}

/// Calls `each` for every word of a text.
fn split<'a>(
    splits: &[Split],
    text: &'a str,
    budget: &Budget,
    each: &mut impl FnMut(&'a str) -> Result<()>,
) -> Result<()> {
    let Some((first, rest)) = splits.split_first() else {
        return if text.is_empty() { Ok(()) } else { each(text) };
    };
    match first {
        Split::Gpt2 => words(text).try_for_each(|word| split(rest, word, budget, each)),
        Split::Pattern(pattern) => {
            pattern.parts(text, budget, |(start, end), _| split(rest, &text[start..end], budget, each))
        }
        Split::Digits => {
            let mut words = text.split_inclusive(char::is_numeric).flat_map(|word| match word.chars().next_back() {
                Some(c) if c.is_numeric() => {
                    let (before, digit) = word.split_at(word.len() - c.len_utf8());
                    [before, digit]
                }
                _ => [word, ""],
            });
            words.try_for_each(|word| if word.is_empty() { Ok(()) } else { split(rest, word, budget, each) })
        }
    }
}

/// Strings of which at least one is in every text that contains an added token: the tokens
/// themselves or, if there are many, the common prefixes of those with the same first character.
/// `None` if that is still many: then the library's search for all at once is faster.
fn to_look_for<'a>(tokens: impl Iterator<Item = &'a str>) -> Option<Vec<String>> {
    const MOST: usize = 8;
    let mut tokens: Vec<&str> = tokens.collect();
    if tokens.len() > MOST {
        tokens.sort_unstable();
        tokens.dedup_by(|token, kept| {
            let mut chars = kept.char_indices().zip(token.chars());
            let end = chars.find(|&((_, a), b)| a != b).map_or(kept.len().min(token.len()), |((i, _), _)| i);
            *kept = &kept[..if end > 0 { end } else { kept.len() }];
            end > 0
        });
    }
    (tokens.len() <= MOST).then(|| tokens.into_iter().map(String::from).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_looked_for_is_in_every_added_token() {
        let of = |tokens: &[&str]| to_look_for(tokens.iter().copied());
        assert_eq!(of(&["b", "<s>"]), Some(vec!["b".into(), "<s>".into()]));
        let many: Vec<String> =
            (0..300).map(|i| format!("<|reserved_{i}|>")).chain(["<|end|>".into(), "<".into()]).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert_eq!(of(&many), Some(vec!["<".into()]));
        assert_eq!(of(&many[..301]), Some(vec!["<|".into()]));
        assert_eq!(of(&["é1", "é2", "ê", "a", "b", "c", "d", "e", "f", "g"]), None);
        assert_eq!(of(&["a1", "a2", "a", "b", "c", "d", "e", "f", "g", "ab"]).map(|all| all.len()), Some(7));
    }
}
