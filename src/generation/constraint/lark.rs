//! Grammars in the notation of Lark made ready for the engine: measured, and the JSON schemas in
//! them prepared.
//!
//! The engine compiles a rule by recursion into the rules and tokens that it names, each when it is
//! met for the first time; so the same walk is done here. It needs no more of the notation than
//! where names, definitions and schemas are.

use std::collections::HashMap;

use serde_json::Value;

use crate::error::{Error, Result};
use crate::generation::constraint::limits::GrammarLimits;
use crate::generation::constraint::schema;

/// A grammar's text as the engine shall have it.
///
/// # Errors
/// [`Error::Argument`] for what is above a limit; what [`schema::prepared`] says of schemas.
pub(super) fn prepared(source: &str, limits: &GrammarLimits) -> Result<String> {
    if source.len() > limits.max_bytes {
        return Err(wrong(format!("at most {} bytes", limits.max_bytes), source.len()));
    }
    let mut scan = Scan {
        source,
        at: 0,
        out: String::with_capacity(source.len()),
        rules: vec![Vec::new()],
        names: HashMap::new(),
    };
    scan.run(limits)?;
    let mut seen = vec![false; scan.rules.len()];
    let start = scan.names.get("start").copied().unwrap_or(0);
    for first in std::iter::once(start).chain(0..scan.rules.len()) {
        check_depth(&scan.rules, first, 1, limits.max_depth, &mut seen)?;
    }
    Ok(scan.out)
}

fn wrong(expected: impl Into<String>, found: impl std::fmt::Display) -> Error {
    Error::argument("grammar", expected, found)
}

/// Follows the names that a rule names, in their order.
fn check_depth(rules: &[Vec<usize>], rule: usize, depth: usize, limit: usize, seen: &mut [bool]) -> Result<()> {
    if std::mem::replace(&mut seen[rule], true) {
        return Ok(());
    }
    if depth > limit {
        return Err(wrong(format!("rules that refer to rules at most {limit} deep"), "deeper ones"));
    }
    rules[rule].iter().try_for_each(|&named| check_depth(rules, named, depth + 1, limit, seen))
}

/// A walk over the text, which copies it.
struct Scan<'s> {
    source: &'s str,
    at: usize,
    out: String,
    /// The rules that each rule names; the first is what stands outside of rules.
    rules: Vec<Vec<usize>>,
    names: HashMap<&'s str, usize>,
}

impl<'s> Scan<'s> {
    fn run(&mut self, limits: &GrammarLimits) -> Result<()> {
        let mut rule = 0;
        // Names since the line began: all belong to a definition's head if a colon follows.
        let mut line: Vec<usize> = Vec::new();
        while let Some(c) = self.source[self.at..].chars().next() {
            let rest = &self.source[self.at..];
            if let Some(json) = rest.strip_prefix("%json") {
                self.copy(5);
                let (schema, len) = json_prefix(json)?;
                self.out.push(' ');
                self.out += &schema::prepared(&schema, limits)?.to_string();
                self.at += len;
            } else if let Some(json) = rest.strip_prefix("%regex").or(rest.strip_prefix("%llguidance")) {
                let keyword = rest.len() - json.len();
                self.copy(keyword + json_prefix(json)?.1);
            } else if c == '#' || rest.starts_with("//") {
                self.copy(rest.find('\n').unwrap_or(rest.len()));
            } else if c == '"' || c == '/' {
                self.copy(closed(rest, c));
            } else if c.is_ascii_alphabetic() || c == '_' {
                let len =
                    rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == '-')).unwrap_or(rest.len());
                let new = self.rules.len();
                let name = *self.names.entry(&rest[..len]).or_insert(new);
                if name == new {
                    self.rules.push(Vec::new());
                }
                line.push(name);
                self.copy(len);
            } else {
                if rest.starts_with("::") {
                    self.copy(1);
                } else if c == ':' && !line.is_empty() {
                    rule = line[0];
                    line.clear();
                } else if c == '\n' {
                    self.rules[rule].append(&mut line);
                }
                self.copy(c.len_utf8());
            }
        }
        self.rules[rule].append(&mut line);
        Ok(())
    }

    fn copy(&mut self, len: usize) {
        self.out += &self.source[self.at..self.at + len];
        self.at += len;
    }
}

/// The length of a text or expression with its two ends; what is never closed goes to the end.
fn closed(rest: &str, end: char) -> usize {
    let mut escaped = false;
    let close = rest.char_indices().skip(1).find(|&(_, c)| {
        let closes = c == end && !escaped;
        escaped = c == '\\' && !escaped;
        closes
    });
    close.map_or(rest.len(), |(at, _)| at + 1)
}

/// The JSON value at the beginning, and its length.
fn json_prefix(text: &str) -> Result<(Value, usize)> {
    let mut values = serde_json::Deserializer::from_str(text).into_iter::<Value>();
    match values.next() {
        Some(Ok(value)) => Ok((value, values.byte_offset())),
        Some(Err(error)) => Err(wrong("JSON after %json, %regex and %llguidance", error)),
        None => Err(wrong("JSON after %json, %regex and %llguidance", "nothing")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prepared(source: &str) -> Result<String> {
        super::prepared(source, &GrammarLimits::default())
    }

    #[test]
    fn chains_are_measured() {
        let chain = |n: usize, letter: &str| -> String {
            let rules: String = (0..n).map(|i| format!("{letter}{i}: \"a\" {letter}{}\n", i + 1)).collect();
            format!("start: {letter}0\n{rules}{letter}{n}: \"x\"\n")
        };
        assert!(prepared(&chain(100, "r")).is_ok());
        for letter in ["r", "T_"] {
            assert!(prepared(&chain(1000, letter)).unwrap_err().to_string().contains("at most 128 deep"));
        }
        // Many rules side by side are no chain.
        let flat: String = (0..1000).map(|i| format!("\nr{i}[max_tokens=3]: \"a: b\" /c:d/ | start // x: y")).collect();
        assert!(
            prepared(&format!("start: {}{flat}", (0..1000).map(|i| format!("r{i} | ")).collect::<String>())).is_ok()
        );
        assert!(prepared(&"a".repeat(1 << 20)).is_err());
    }

    #[test]
    fn schemas_are_prepared_and_the_rest_is_copied() {
        let source = "start: \"%json\" x # %json\nx: %json {\"pattern\": \"^[^\\\"]$\"} /%json/ %regex {\"substring_chars\": \"%json\"}\n";
        let text = prepared(source).unwrap();
        assert!(text.starts_with("start: \"%json\" x # %json\nx: %json ") && !text.contains(r#"^[^\"]$"#));
        assert!(text.ends_with("} /%json/ %regex {\"substring_chars\": \"%json\"}\n") && text.contains("x-guidance"));
        assert!(prepared("start: %json {").is_err() && prepared("start: %regex").is_err());
        for odd in ["\"a", "/a", "é: \"ä\"", ":", "a:b::c\n", ""] {
            assert_eq!(prepared(odd).unwrap(), odd);
        }
    }
}
