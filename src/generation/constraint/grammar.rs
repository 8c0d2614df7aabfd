//! Constraints from a regular expression, a JSON schema or a grammar, by the `llguidance` crate (feature `constraints`).
//!
//! The tokens of a vocabulary are kept as bytes in a trie; a lexer of derivatives and an Earley parser walk it, so a mask costs
//! well below a millisecond whatever the vocabulary. Tokens may begin and end anywhere, in the middle of a character too.
//!
//! ```
//! # use loquat::{models::{MlpConfig, MlpLm}, text::TokenizerTrainer};
//! # let tokenizer = TokenizerTrainer::byte_level_bpe().vocab_size(300).train(["yes no maybe"])?;
//! # let model = MlpLm::init(&MlpConfig::new(tokenizer.vocab_size(), 6, 8, 3), &mut loquat::Rng::seed(1))?;
//! use loquat::GenerationConfig;
//! use loquat::generation::{Vocabulary, stream};
//!
//! let vocabulary = Vocabulary::of(&tokenizer)?;
//! let config = GenerationConfig::default().constraint(vocabulary.regex("yes|no")?);
//! let answer: String = stream(&model, &tokenizer, "Is it?", &config)?.collect::<Result<_, _>>()?;
//! assert!(["yes", "no"].contains(&answer.as_str()));
//! # Ok::<(), loquat::Error>(())
//! ```

use std::sync::Arc;

use llguidance::api::TopLevelGrammar;
use llguidance::toktrie::{ApproximateTokEnv, TokRxInfo, TokTrie};
use llguidance::{Matcher, ParserFactory};
use serde_json::Value;

use crate::error::{Error, Result};
use crate::generation::constraint::{TokenMask, TokenSet};
use crate::text::Tokenizer;

/// What may stand between the parts of JSON.
const WHITE_SPACE: &str = r" |\n {0,32}";

/// What the tokens of a vocabulary stand for, made ready for constraints: build it once per tokenizer.
#[derive(Clone)]
pub struct Vocabulary {
    factory: Arc<ParserFactory>,
}

/// Text of a given form: see [`Vocabulary`].
pub struct Grammar {
    matcher: Matcher,
}

impl Clone for Grammar {
    /// With caches of its own: threads do not wait for one another.
    fn clone(&self) -> Self {
        Self { matcher: self.matcher.deep_clone() }
    }
}

impl Vocabulary {
    /// The tokens of a tokenizer.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] for a vocabulary without tokens.
    pub fn of(tokenizer: &Tokenizer) -> Result<Self> {
        Self::from_bytes((0..tokenizer.vocab_size() as u32).map(|id| tokenizer.token_bytes(id)).collect())
    }

    /// The bytes of each token, by id; empty for tokens that are no text.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] for a vocabulary without tokens.
    pub fn from_bytes(tokens: Vec<Vec<u8>>) -> Result<Self> {
        if tokens.is_empty() {
            return Err(Error::Tokenizer("constraints need a vocabulary of at least one token".into()));
        }
        // The trie wants an end token: one of its own, past the vocabulary, which is never written.
        let end = tokens.len() as u32;
        let mut words = tokens;
        words.push(b"\xFF<end>".to_vec());
        let trie = TokTrie::from(&TokRxInfo::new(end + 1, end), &words);
        let mut factory = ParserFactory::new_simple(&(Arc::new(ApproximateTokEnv::new(trie)) as _))
            .map_err(|e| Error::Tokenizer(e.to_string()))?;
        factory.quiet();
        Ok(Self { factory: Arc::new(factory) })
    }

    /// Text that a regular expression (of the `regex-syntax` crate, without look-around) matches from beginning to end.
    ///
    /// # Errors
    /// [`Error::Argument`] for an expression that cannot be read.
    pub fn regex(&self, pattern: &str) -> Result<Grammar> {
        self.build("regex", TopLevelGrammar::from_regex(pattern))
    }

    /// JSON that a schema describes. Between its parts there may be a space, or a new line and an indentation: without that bound, models
    /// with little to say write white space for ever. `llguidance`'s own key `x-guidance` in the schema says otherwise.
    ///
    /// # Errors
    /// [`Error::Argument`] for a schema that cannot be read or asks for what is not supported.
    pub fn json_schema(&self, schema: &Value) -> Result<Grammar> {
        let mut schema = schema.clone();
        if let Value::Object(keys) = &mut schema {
            keys.entry("x-guidance").or_insert_with(|| serde_json::json!({ "whitespace_pattern": WHITE_SPACE }));
        }
        self.build("json schema", TopLevelGrammar::from_json_schema(schema))
    }

    /// Text of a context-free grammar in the notation of Lark, with the beginning at `start`.
    ///
    /// # Errors
    /// [`Error::Argument`] for a grammar that cannot be read.
    pub fn grammar(&self, lark: &str) -> Result<Grammar> {
        self.build("grammar", TopLevelGrammar::from_lark(lark.to_string()))
    }

    fn build(&self, name: &str, grammar: TopLevelGrammar) -> Result<Grammar> {
        let mut matcher = Matcher::new(self.factory.create_parser(grammar));
        // What is wrong with the grammar shows when it is asked for the first time.
        match matcher.compute_mask() {
            Ok(_) => Ok(Grammar { matcher }),
            Err(error) => {
                let words: Vec<String> = error.to_string().split_whitespace().map(str::to_string).collect();
                Err(Error::argument(name, "one that can be read", words.join(" ")))
            }
        }
    }
}

impl TokenMask for Grammar {
    fn allow(&mut self, allowed: &mut TokenSet) -> Result<()> {
        if self.matcher.is_stopped() && !self.matcher.is_error() {
            return Ok(());
        }
        let mask = self.matcher.compute_mask().map_err(failed)?;
        allowed.extend(mask.iter());
        Ok(())
    }

    fn may_end(&mut self) -> bool {
        (self.matcher.is_stopped() && !self.matcher.is_error()) || self.matcher.is_accepting().unwrap_or(false)
    }

    fn accept(&mut self, id: u32) -> Result<()> {
        self.matcher.consume_token(id).map_err(failed)
    }
}

fn failed(error: impl std::fmt::Display) -> Error {
    Error::argument("constraint", "a text that it can follow", error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// One token a byte of ASCII, some words, and one that is no text.
    fn vocabulary() -> Vocabulary {
        let mut tokens: Vec<Vec<u8>> = (0..128u8).map(|byte| vec![byte]).collect();
        tokens.extend(["true", "\": ", "ab", "é"].map(|text| text.as_bytes().to_vec()));
        tokens.push(Vec::new());
        Vocabulary::from_bytes(tokens).unwrap()
    }

    fn allowed(grammar: &mut Grammar) -> Vec<u32> {
        let mut set = TokenSet::new(133);
        grammar.allow(&mut set).unwrap();
        set.iter().collect()
    }

    fn accepts(grammar: &Grammar, text: &str) -> bool {
        let mut grammar = grammar.clone();
        text.bytes().all(|byte| allowed(&mut grammar).contains(&u32::from(byte)) && grammar.accept(byte.into()).is_ok())
            && grammar.may_end()
    }

    #[test]
    fn a_regular_expression_allows_what_it_matches() {
        let mut grammar = vocabulary().regex("(ab)+c?").unwrap();
        assert_eq!(allowed(&mut grammar), [u32::from(b'a'), 130]);
        assert!(!grammar.may_end());
        grammar.accept(130).unwrap();
        assert_eq!(allowed(&mut grammar), [u32::from(b'a'), u32::from(b'c'), 130]);
        assert!(grammar.may_end());
        let before = grammar.clone();
        grammar.accept(b'c'.into()).unwrap();
        assert!(allowed(&mut grammar).is_empty() && grammar.may_end());
        assert!(accepts(&before, "ab") && !accepts(&before, "b"), "a copy is a text of its own");
        assert!(grammar.accept(b'c'.into()).is_err());
    }

    #[test]
    fn a_schema_allows_json_that_it_describes() {
        let schema = json!({
            "type": "object", "required": ["n"], "additionalProperties": false,
            "properties": {"n": {"type": "integer"}, "ok": {"type": "boolean"}},
        });
        let grammar = vocabulary().json_schema(&schema).unwrap();
        assert!(accepts(&grammar, "{\n  \"n\": 12\n}") && !accepts(&grammar, "{  \"n\":1}"));
        assert!(accepts(&grammar, r#"{"n": 12}"#) && accepts(&grammar, r#"{"n": -1, "ok": true}"#));
        assert!(!accepts(&grammar, r#"{"n": "x"}"#) && !accepts(&grammar, r#"{"ok": true}"#));
    }

    #[test]
    fn a_grammar_may_nest() {
        let grammar = vocabulary().grammar("start: \"(\" start \")\" | \"x\"").unwrap();
        assert!(accepts(&grammar, "((x))") && !accepts(&grammar, "((x)"));
    }

    #[test]
    fn what_cannot_be_read_is_an_error() {
        let vocabulary = vocabulary();
        assert!(vocabulary.regex("(").is_err());
        assert!(vocabulary.json_schema(&json!({"type": "nothing"})).is_err());
        assert!(vocabulary.grammar("start: nowhere").is_err());
        assert!(Vocabulary::from_bytes(Vec::new()).is_err());
    }
}
