//! Constraints from regular expressions, JSON schemas and grammars, by the `llguidance` crate
//! (feature `constraints`).

use std::sync::Arc;

use llguidance::api::{GrammarInit, ParserLimits, TopLevelGrammar};
use llguidance::toktrie::{ApproximateTokEnv, InferenceCapabilities, TokRxInfo, TokTrie};
use llguidance::{Logger, Matcher, ParserFactory};
use serde_json::Value;

use crate::error::{Error, Result};
use crate::generation::constraint::{GrammarLimits, TokenMask, TokenSet, check, lark, pattern, schema};
use crate::text::Tokenizer;

/// Bytes of stack per level of the engine's recursion, enough for unoptimized builds.
const STACK_PER_LEVEL: usize = 256 << 10;

/// Maximum number of lexer states for one text, 1 to 2 kB each.
const MAX_LEXER_STATES: usize = 50_000;

/// A compiler of grammars for the tokens of a vocabulary. Build it once per tokenizer.
///
/// Tokens are kept as bytes in a trie, which a lexer of derivatives and an Earley parser traverse:
/// a mask takes well below a millisecond for any vocabulary. Token boundaries are independent of
/// the grammar's, even in the middle of a character.
///
/// ```
/// # use loquat::{models::{MlpConfig, MlpLm}, text::TokenizerTrainer};
/// # let tokenizer = TokenizerTrainer::byte_level_bpe().vocab_size(300).train(["yes no maybe"])?;
/// # let config = MlpConfig::new(tokenizer.vocab_size(), 6, 8, 3);
/// # let model = MlpLm::init(&config, &mut loquat::Rng::seed(1))?;
/// use loquat::GenerationConfig;
/// use loquat::generation::{GrammarCompiler, stream};
///
/// let compiler = GrammarCompiler::of(&tokenizer)?;
/// let config = GenerationConfig::default().constraint(compiler.regex("yes|no")?);
/// let answer: String = stream(&model, &tokenizer, "Is it?", &config)?.collect::<Result<_, _>>()?;
/// assert!(["yes", "no"].contains(&answer.as_str()));
/// # Ok::<(), loquat::Error>(())
/// ```
#[derive(Clone)]
pub struct GrammarCompiler {
    factory: Arc<ParserFactory>,
    limits: GrammarLimits,
}

/// A constraint on text, compiled by a [`GrammarCompiler`].
///
/// # Examples
/// ```
/// use loquat::generation::{GrammarCompiler, TokenMask, TokenSet};
///
/// // One token per byte.
/// let compiler = GrammarCompiler::from_bytes((0..=255u8).map(|byte| vec![byte]).collect())?;
/// let mut grammar = compiler.grammar("start: \"a\" (\"b\" | \"c\")")?;
/// grammar.accept(u32::from(b'a'))?;
/// let mut allowed = TokenSet::new(256);
/// grammar.allow(&mut allowed)?;
/// assert_eq!(allowed.iter().collect::<Vec<_>>(), [u32::from(b'b'), u32::from(b'c')]);
/// # Ok::<(), loquat::Error>(())
/// ```
pub struct Grammar {
    matcher: Matcher,
    written: Option<Written>,
}

/// JSON text generated so far, and the schema that it is checked against when it is complete.
#[derive(Clone)]
struct Written {
    factory: Arc<ParserFactory>,
    schema: Arc<Value>,
    text: Vec<u8>,
}

impl Clone for Grammar {
    /// Clones the caches too, so that threads do not wait for each other.
    fn clone(&self) -> Self {
        Self { matcher: self.matcher.deep_clone(), written: self.written.clone() }
    }
}

impl GrammarCompiler {
    /// Creates a compiler for the tokens of a tokenizer.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] for an empty vocabulary.
    pub fn of(tokenizer: &Tokenizer) -> Result<Self> {
        Self::from_bytes((0..tokenizer.vocab_size() as u32).map(|id| tokenizer.token_bytes(id)).collect())
    }

    /// Creates a compiler from the bytes of each token, by id; empty for tokens that are not text.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] for an empty vocabulary.
    pub fn from_bytes(tokens: Vec<Vec<u8>>) -> Result<Self> {
        if tokens.is_empty() {
            return Err(Error::Tokenizer("constraints need a vocabulary of at least one token".into()));
        }
        // The trie needs an end token: an id past the vocabulary, which is never generated.
        let end = tokens.len() as u32;
        let mut words = tokens;
        words.push(b"\xFF<end>".to_vec());
        let trie = TokTrie::from(&TokRxInfo::new(end + 1, end), &words);
        let mut factory = ParserFactory::new_simple(&(Arc::new(ApproximateTokEnv::new(trie)) as _))
            .map_err(|e| Error::Tokenizer(e.to_string()))?;
        factory.quiet();
        Ok(Self { factory: Arc::new(factory), limits: GrammarLimits::default() })
    }

    /// Sets the resource limits of compilation.
    pub fn with_limits(mut self, limits: GrammarLimits) -> Self {
        self.limits = limits;
        self
    }

    /// Compiles a regular expression (syntax of the `regex-syntax` crate, without look-around) that
    /// the whole text must match.
    ///
    /// # Errors
    /// [`Error::Argument`] for an invalid expression, or one that exceeds the [`GrammarLimits`].
    pub fn regex(&self, expression: &str) -> Result<Grammar> {
        if expression.len() > self.limits.max_bytes {
            let expected = format!("at most {} bytes", self.limits.max_bytes);
            return Err(Error::argument("regex", expected, expression.len()));
        }
        let whole =
            pattern::whole(expression).map_err(|why| Error::argument("regex", "a valid regular expression", why))?;
        self.build("regex", TopLevelGrammar::from_regex(&whole))
    }

    /// Compiles a JSON schema. Between the parts of JSON, a space or a line break with indentation
    /// is allowed; without this limit, some models would generate white space forever.
    /// `llguidance`'s key `x-guidance` in the schema overrides it.
    ///
    /// Each character of a string is generated as itself or, where JSON requires an escape, with a
    /// short one: `\" \\ \b \f \n \r \t`. Other control characters are not generated. A `pattern`
    /// has the syntax of `regex-syntax`, but `\d` and `\w` match ASCII only, as in ECMA 262. The
    /// finished value is checked against the schema once more. Bounds of numbers beyond ±(2⁵³ - 1)
    /// are clamped to that.
    ///
    /// # Errors
    /// [`Error::Argument`] for a schema that is invalid, uses unsupported keys, or exceeds the
    /// [`GrammarLimits`].
    pub fn json_schema(&self, schema: &Value) -> Result<Grammar> {
        let prepared = schema::prepared(schema, &self.limits)?;
        let mut grammar = self.build("json schema", TopLevelGrammar::from_json_schema(prepared))?;
        let (factory, schema) = (Arc::clone(&self.factory), Arc::new(schema.clone()));
        grammar.written = Some(Written { factory, schema, text: Vec::new() });
        Ok(grammar)
    }

    /// Compiles a context-free grammar in Lark notation, with the start rule `start`. `%json` may
    /// be followed by a schema; see [`GrammarCompiler::json_schema`]. At most eight expressions may
    /// be intersected (`&`), and their repetitions may sum to at most 40 000 divided by the number
    /// of expressions.
    ///
    /// In a grammar with `%ignore`, do not use a nested grammar (`%json`, `%lark`) as an
    /// alternative to a part of the grammar itself, as in `"a" ("b" | %json {})`: after ignored
    /// text the engine panics. The panic is caught, and the text ends with an error; but in a
    /// program built with `panic = "abort"`, the program aborts. Spell out the ignored text
    /// instead, as in `"a" " "* ("b" | %json {})`.
    ///
    /// # Errors
    /// [`Error::Argument`] for an invalid grammar, or one that exceeds the [`GrammarLimits`].
    pub fn grammar(&self, lark: &str) -> Result<Grammar> {
        self.build("grammar", TopLevelGrammar::from_lark(lark::prepared(lark, &self.limits)?))
    }

    fn build(&self, name: &str, grammar: TopLevelGrammar) -> Result<Grammar> {
        let limits = ParserLimits {
            max_grammar_size: self.limits.max_symbols,
            max_lexer_states: MAX_LEXER_STATES,
            verbose_errors: false,
            ..ParserLimits::default()
        };
        let (init, caps) = (GrammarInit::Serialized(grammar), InferenceCapabilities::default());
        let compile = || {
            let parser = self.factory.create_parser_from_init_ext(init, Logger::new(0, 0), caps, limits);
            let mut matcher = Matcher::new(parser);
            // Errors of the grammar are reported by the first mask.
            let first = matcher.compute_mask().map(drop);
            first.map(|()| matcher).map_err(|error| error.to_string())
        };
        // The engine compiles recursively, and the caller's stack may be small.
        let stack = STACK_PER_LEVEL.saturating_mul(self.limits.max_depth.clamp(64, 1 << 16));
        let compiled = std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().stack_size(stack).spawn_scoped(scope, compile);
            thread
                .map_err(|error| error.to_string())?
                .join()
                .unwrap_or_else(|_| Err("the constraint engine panicked".into()))
        });
        match compiled {
            Ok(matcher) => Ok(Grammar { matcher, written: None }),
            Err(error) => Err(Error::argument(name, "a valid one", words(&error))),
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
        self.matcher.consume_token(id).map_err(failed)?;
        if let Some(written) = &mut self.written {
            written.text.extend_from_slice(written.factory.tok_env().tok_trie().token(id));
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<()> {
        if !self.may_end() {
            return Err(failed("the text ended before it was complete"));
        }
        let fault = self.written.as_ref().and_then(|written| check::fault(&written.text, &written.schema));
        fault.map_or(Ok(()), |fault| Err(Error::argument("json schema", "a text that matches it", fault)))
    }
}

fn failed(error: impl std::fmt::Display) -> Error {
    Error::argument("constraint", "a text that it allows", words(&error.to_string()))
}

/// The engine's error in one line, without its stack trace.
fn words(error: &str) -> String {
    let error = error.split("<backtrace>").next().unwrap_or_default();
    error.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// One token per ASCII byte, some words, and one token without text.
    fn compiler() -> GrammarCompiler {
        let mut tokens: Vec<Vec<u8>> = (0..128u8).map(|byte| vec![byte]).collect();
        tokens.extend(["true", "\": ", "ab", "é"].map(|text| text.as_bytes().to_vec()));
        tokens.push(Vec::new());
        GrammarCompiler::from_bytes(tokens).unwrap()
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
        let mut grammar = compiler().regex("(ab)+c?").unwrap();
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
        let grammar = compiler().json_schema(&schema).unwrap();
        assert!(accepts(&grammar, "{\n  \"n\": 12\n}") && !accepts(&grammar, "{  \"n\":1}"));
        assert!(accepts(&grammar, r#"{"n": 12}"#) && accepts(&grammar, r#"{"n": -1, "ok": true}"#));
        assert!(!accepts(&grammar, r#"{"n": "x"}"#) && !accepts(&grammar, r#"{"ok": true}"#));
    }

    #[test]
    fn strings_hold_nothing_that_their_pattern_excludes() {
        let compiler = compiler();
        for (pattern, good, bad) in [
            (r#"^[^"]*$"#, vec!["\"ab\"", "\"a\\\\b\""], vec!["\"a\\\"b\"", "\"a\\u0022b\""]),
            (r"^[^\\]*$", vec!["\"ab\"", "\"a\\\"b\""], vec!["\"a\\\\b\"", "\"a\\u005cb\""]),
            (r#"^[^<>&"']{1,20}$"#, vec!["\"ab\"", "\"a\\tb\""], vec!["\"a\\\"b\"", "\"\"", "\"<\"", "\"\\u003c\""]),
            (r#"^[^\n"]+$"#, vec!["\"ab\"", "\"\\t\""], vec!["\"a\\nb\"", "\"a\\\"b\""]),
            (r#"^([^"]|\x00)$"#, vec!["\"a\""], vec!["\"\\\"\""]),
            (r"^[^x]$", vec!["\"\\\"\"", "\"\\\\\"", "\"\\n\""], vec!["\"x\"", "\"\\u0078\""]),
            (r"^(?<stop>a)b$", vec!["\"ab\""], vec!["\"a\""]),
        ] {
            let schemas = [
                json!({"type": "string", "pattern": pattern}),
                json!({"allOf": [{"pattern": pattern}, {"type": "string", "maxLength": 20}]}),
            ];
            for grammar in schemas.map(|schema| compiler.json_schema(&schema).unwrap()) {
                good.iter().for_each(|text| assert!(accepts(&grammar, text), "{pattern} refuses {text}"));
                bad.iter().for_each(|text| assert!(!accepts(&grammar, text), "{pattern} accepts {text}"));
            }
            // Also in a grammar, and as names of properties.
            let lark = format!("start: %json {}", json!({"type": "string", "pattern": pattern}));
            let grammar = compiler.grammar(&lark).unwrap();
            bad.iter().for_each(|text| assert!(!accepts(&grammar, text), "{pattern} accepts {text} in a grammar"));
            let names = json!({"type": "object", "patternProperties": {pattern: {"const": 1}}, "additionalProperties": {"const": 2}});
            let grammar = compiler.json_schema(&names).unwrap();
            for (texts, value) in [(&good, 1), (&bad, 2)] {
                for name in texts.iter().filter(|name| !name.contains("\\u")) {
                    assert!(accepts(&grammar, &format!("{{{name}: {value}}}")), "{pattern}: {name} is {value}");
                    assert!(
                        !accepts(&grammar, &format!("{{{name}: {}}}", 3 - value)),
                        "{pattern}: {name} is not {}",
                        3 - value
                    );
                }
            }
        }
    }

    #[test]
    fn a_name_has_one_spelling() {
        let schema = json!({"type": "object", "properties": {"a": {"type": "integer"}}, "additionalProperties": {"type": "string"}});
        let grammar = compiler().json_schema(&schema).unwrap();
        assert!(accepts(&grammar, r#"{"a": 1, "b": "x"}"#) && !accepts(&grammar, r#"{"\u0061": "x"}"#));
    }

    #[test]
    fn a_finished_value_is_checked() {
        let compiler = compiler();
        let mut grammar = compiler.json_schema(&json!({"type": "integer"})).unwrap();
        grammar.accept(u32::from(b'7')).unwrap();
        assert!(grammar.finish().is_ok());
        let written = grammar.written.as_mut().unwrap();
        written.schema = Arc::new(json!({"maximum": 5}));
        assert!(grammar.finish().unwrap_err().to_string().contains("7 against `maximum`"));
        let mut expression = compiler.regex("ab").unwrap();
        assert!(expression.finish().is_err() && expression.accept(130).is_ok() && expression.finish().is_ok());
    }

    /// A chain of `levels` definitions or rules, made by `link`.
    fn chain(levels: usize, link: impl Fn(usize) -> String) -> String {
        (0..levels).map(link).collect()
    }

    #[test]
    fn hostile_schemas_and_grammars_are_errors_on_a_small_stack() {
        let run = || {
            let compiler = compiler();
            let schema = |text: String| compiler.json_schema(&serde_json::from_str(&text).unwrap()).err();
            let nested = |i: usize| {
                format!(r##""d{i}": {{"type": "object", "properties": {{"a": {{"$ref": "#/$defs/d{}"}}}}}}, "##, i + 1)
            };
            let flat = |i: usize| format!(r##""d{i}": {{"$ref": "#/$defs/d{}"}}, "##, i + 1);
            for (levels, link) in [(300, &nested as &dyn Fn(usize) -> String), (1000, &flat)] {
                let of = |levels| {
                    format!(r##"{{"$ref": "#/$defs/d0", "$defs": {{{}"d{levels}": {{}}}}}}"##, chain(levels, link))
                };
                assert!(schema(of(levels)).unwrap().to_string().contains("deep"));
                assert!(schema(of(50)).is_none(), "what is not deep is compiled");
            }
            let rule = |i: usize| format!("r{i}: \"a\" r{}\n", i + 1);
            let token = |i: usize| format!("T{i}: \"a\" T{}\n", i + 1);
            for (first, link) in [("r", &rule as &dyn Fn(usize) -> String), ("T", &token)] {
                let of = |levels| format!("start: {first}0\n{}{first}{levels}: \"x\"\n", chain(levels, link));
                assert!(compiler.grammar(&of(1000)).err().unwrap().to_string().contains("deep"));
                assert!(compiler.grammar(&of(50)).is_ok());
            }
            let properties = chain(5000, |i| format!(r#""p{i}": {{"type": "integer"}}, "#));
            let wide = schema(format!(r#"{{"type": "object", "properties": {{{properties}"last": {{}}}}}}"#));
            assert!(wide.unwrap().to_string().contains("at most 1000 properties"));
            assert!(compiler.regex(&"(".repeat(1000)).is_err() && compiler.regex(&"a".repeat(1 << 20)).is_err());
            assert!(schema(r#"{"multipleOf": 4000000007}"#.into()).is_some());
        };
        std::thread::Builder::new().stack_size(2 << 20).spawn(run).unwrap().join().unwrap();
    }

    #[test]
    fn a_grammar_may_nest() {
        let grammar = compiler().grammar("start: \"(\" start \")\" | \"x\"").unwrap();
        assert!(accepts(&grammar, "((x))") && !accepts(&grammar, "((x)"));
    }

    #[test]
    fn where_the_engine_loses_its_place_the_text_ends_with_an_error() {
        let follow = |lark: &str| {
            let mut grammar = compiler().grammar(lark).unwrap();
            let mut set = TokenSet::new(133);
            "a 5".bytes().try_for_each(|byte| {
                grammar.allow(&mut set)?;
                grammar.accept(byte.into())
            })
        };
        let beside = "start: \"a\" (\"b\" | %json {\"type\": \"integer\"})\n%ignore / /\n";
        assert!(follow(beside).is_err());
        assert!(follow("start: \"a\" \" \"* (\"b\" | %json {\"type\": \"integer\"})\n").is_ok());
    }

    #[test]
    fn what_cannot_be_read_is_an_error() {
        let compiler = compiler();
        assert!(compiler.regex("(").is_err());
        assert!(compiler.json_schema(&json!({"type": "nothing"})).is_err());
        assert!(compiler.grammar("start: nowhere").is_err());
        assert!(GrammarCompiler::from_bytes(Vec::new()).is_err());
    }
}
