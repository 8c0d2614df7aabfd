//! The components before and after the model: those of the library, but every pattern is executed
//! within a budget, and errors that the library drops are returned.

use std::sync::{Arc, Mutex};

use serde::Serialize;
use serde_json::Value;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{
    Decoder as _, DecoderWrapper, NormalizedString, Normalizer as _, NormalizerWrapper, Offsets, PreTokenizedString,
    PreTokenizer as _, PreTokenizerWrapper, SplitDelimiterBehavior,
};

use super::gpt2_split;
use super::pattern::{Budget, Pattern, Within};
use crate::{Error, Result};

/// Components of a tokenizer around its model.
#[derive(Debug, Clone, Default)]
pub(super) struct Pipeline {
    pub(super) normalizer: Option<Normalizer>,
    pub(super) pre_tokenizer: Option<PreTokenizer>,
    decoder: Option<Decoder>,
}

impl Pipeline {
    /// # Errors
    /// [`Error::Tokenizer`] for a pattern that is not supported.
    pub(super) fn of(tokenizer: &tokenizers::Tokenizer) -> Result<Self> {
        Ok(Pipeline {
            normalizer: tokenizer.get_normalizer().map(Normalizer::of).transpose()?,
            pre_tokenizer: tokenizer.get_pre_tokenizer().map(PreTokenizer::of).transpose()?,
            decoder: tokenizer.get_decoder().map(Decoder::of).transpose()?,
        })
    }

    /// Splits a text into added tokens and the words between them.
    pub(super) fn split(
        &self,
        added: &tokenizers::AddedVocabulary,
        text: &str,
        budget: &Budget,
    ) -> tokenizers::Result<PreTokenizedString> {
        let noted = self.normalizer.as_ref().map(|normalizer| Noted { normalizer, budget, error: Mutex::new(None) });
        let mut parts = added.extract_and_normalize(noted.as_ref(), text);
        if let Some(error) = noted.and_then(|noted| noted.error.into_inner().ok().flatten()) {
            return Err(error);
        }
        if let Some(pre_tokenizer) = &self.pre_tokenizer {
            pre_tokenizer.run(&mut parts, budget)?;
        }
        Ok(parts)
    }

    /// Decodes tokens to text.
    pub(super) fn decode(&self, tokens: Vec<String>) -> tokenizers::Result<String> {
        let budget = Budget::of(tokens.iter().map(String::len).sum());
        match &self.decoder {
            Some(decoder) => Ok(decoder.run(tokens, &budget)?.concat()),
            None => Ok(tokens.join(" ")),
        }
    }
}

/// Returns the pattern of a component of the library, which exposes it only in its JSON form.
fn pattern(component: &impl Serialize) -> Result<Arc<Pattern>> {
    let json = serde_json::to_value(component).map_err(|e| Error::Tokenizer(e.to_string()))?;
    let pattern = match (&json["pattern"]["Regex"], &json["pattern"]["String"]) {
        (Value::String(expression), _) => Pattern::regex(expression)?,
        (_, Value::String(text)) => Pattern::literal(text)?,
        _ => return Err(Error::Tokenizer(format!("expected a `pattern`, found {}", json["pattern"]))),
    };
    Ok(Arc::new(pattern))
}

/// A normalizer of texts.
#[derive(Debug, Clone)]
pub(super) enum Normalizer {
    Library(NormalizerWrapper),
    Replace { pattern: Arc<Pattern>, content: String },
    Sequence(Vec<Normalizer>),
}

impl Normalizer {
    pub(super) fn of(normalizer: &NormalizerWrapper) -> Result<Self> {
        Ok(match normalizer {
            NormalizerWrapper::Sequence(parts) => {
                Normalizer::Sequence(parts.as_ref().iter().map(Self::of).collect::<Result<_>>()?)
            }
            NormalizerWrapper::Replace(replace) => {
                Normalizer::Replace { pattern: pattern(replace)?, content: replace.content.clone() }
            }
            other => Normalizer::Library(other.clone()),
        })
    }

    /// Normalizes a text.
    pub(super) fn run(&self, text: &mut NormalizedString, budget: &Budget) -> tokenizers::Result<()> {
        match self {
            Normalizer::Library(normalizer) => normalizer.normalize(text)?,
            Normalizer::Replace { pattern, content } => {
                text.replace(Within { pattern, budget, invert: false, replacement: content.len() }, content)?;
            }
            Normalizer::Sequence(parts) => {
                return parts.iter().try_for_each(|part| part.run(text, budget));
            }
        }
        Ok(budget.spend_bytes(text.get().len())?)
    }
}

/// A normalizer for the library that stores the errors that the library would drop.
struct Noted<'a> {
    normalizer: &'a Normalizer,
    budget: &'a Budget,
    error: Mutex<Option<tokenizers::Error>>,
}

impl tokenizers::Normalizer for Noted<'_> {
    fn normalize(&self, text: &mut NormalizedString) -> tokenizers::Result<()> {
        let mut error = self.error.lock().map_err(|e| e.to_string())?;
        if error.is_none() {
            *error = self.normalizer.run(text, self.budget).err();
        }
        Ok(())
    }
}

/// A pre-tokenizer: splits texts into words.
#[derive(Debug, Clone)]
pub(super) enum PreTokenizer {
    Library(PreTokenizerWrapper),
    /// The library's `ByteLevel` with its regular expression.
    Gpt2 {
        prefix_space: bool,
    },
    Split {
        pattern: Arc<Pattern>,
        behavior: SplitDelimiterBehavior,
        invert: bool,
    },
    Sequence(Vec<PreTokenizer>),
}

impl PreTokenizer {
    fn of(pre_tokenizer: &PreTokenizerWrapper) -> Result<Self> {
        Ok(match pre_tokenizer {
            PreTokenizerWrapper::Sequence(parts) => {
                PreTokenizer::Sequence(parts.as_ref().iter().map(Self::of).collect::<Result<_>>()?)
            }
            PreTokenizerWrapper::Split(split) => {
                PreTokenizer::Split { pattern: pattern(split)?, behavior: split.behavior, invert: split.invert }
            }
            PreTokenizerWrapper::ByteLevel(split) if split.use_regex => {
                PreTokenizer::Gpt2 { prefix_space: split.add_prefix_space }
            }
            other => PreTokenizer::Library(other.clone()),
        })
    }

    fn run(&self, parts: &mut PreTokenizedString, budget: &Budget) -> tokenizers::Result<()> {
        match self {
            PreTokenizer::Library(pre_tokenizer) => pre_tokenizer.pre_tokenize(parts),
            PreTokenizer::Gpt2 { prefix_space } => {
                parts.split(|_, mut part| {
                    if *prefix_space && !part.get().starts_with(' ') {
                        part.prepend(" ");
                    }
                    part.split(Gpt2Words, SplitDelimiterBehavior::Isolated)
                })?;
                ByteLevel::new(false, true, false).pre_tokenize(parts)
            }
            PreTokenizer::Split { pattern, behavior, invert } => parts
                .split(|_, part| part.split(Within { pattern, budget, invert: *invert, replacement: 0 }, *behavior)),
            PreTokenizer::Sequence(all) => all.iter().try_for_each(|one| one.run(parts, budget)),
        }
    }
}

/// Matches each of GPT-2's words.
struct Gpt2Words;

impl tokenizers::pattern::Pattern for Gpt2Words {
    fn find_matches(&self, inside: &str) -> tokenizers::Result<Vec<(Offsets, bool)>> {
        if inside.is_empty() {
            return Ok(vec![((0, 0), false)]);
        }
        let mut end = 0;
        let offsets = |word: &str| {
            end += word.len();
            ((end - word.len(), end), true)
        };
        Ok(gpt2_split::words(inside).map(offsets).collect())
    }
}

/// A decoder of tokens to text.
#[derive(Debug, Clone)]
enum Decoder {
    Library(DecoderWrapper),
    Replace { pattern: Arc<Pattern>, content: String },
    Sequence(Vec<Decoder>),
}

impl Decoder {
    fn of(decoder: &DecoderWrapper) -> Result<Self> {
        Ok(match decoder {
            DecoderWrapper::Sequence(parts) => {
                Decoder::Sequence(parts.get_decoders().iter().map(Self::of).collect::<Result<_>>()?)
            }
            DecoderWrapper::Replace(replace) => {
                Decoder::Replace { pattern: pattern(replace)?, content: replace.content.clone() }
            }
            other => Decoder::Library(other.clone()),
        })
    }

    fn run(&self, tokens: Vec<String>, budget: &Budget) -> tokenizers::Result<Vec<String>> {
        let tokens = match self {
            Decoder::Library(_) if tokens.is_empty() => tokens, // some underflow on an empty list
            Decoder::Library(decoder) => decoder.decode_chain(tokens)?,
            Decoder::Replace { pattern, content } => {
                let replaced = |token: String| {
                    let mut text = String::with_capacity(token.len());
                    pattern.parts(&token, budget, |(start, end), is_match| {
                        if is_match {
                            budget.spend_bytes(content.len())?;
                        }
                        text.push_str(if is_match { content } else { &token[start..end] });
                        Ok(())
                    })?;
                    Ok(text)
                };
                tokens.into_iter().map(replaced).collect::<Result<_>>()?
            }
            Decoder::Sequence(parts) => {
                return parts.iter().try_fold(tokens, |tokens, part| part.run(tokens, budget));
            }
        };
        budget.spend_bytes(tokens.iter().map(String::len).sum())?;
        Ok(tokens)
    }
}
