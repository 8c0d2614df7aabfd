//! Prepares grammars in Lark notation for the engine: checks their size, and prepares the JSON
//! schemas in them.
//!
//! The engine compiles rules and tokens recursively, each when it is first referenced. The same
//! traversal is done here. Only names, definitions and schemas are parsed; the rest of the notation
//! is copied.

use std::collections::HashMap;

use serde_json::Value;

use crate::error::{Error, Result};
use crate::generation::constraint::limits::GrammarLimits;
use crate::generation::constraint::shape::MAX_PATTERNS;
use crate::generation::constraint::{pattern, schema};

/// Limit of the repetitions in intersected expressions, times the number of expressions: the engine
/// tracks all of them at once, without a limit of its own.
const MAX_REPEATS: u64 = 40_000;

/// Returns the text of a grammar as the engine needs it.
///
/// # Errors
/// [`Error::Argument`] for a grammar that exceeds a limit. Otherwise same as [`schema::prepared`].
pub(super) fn prepared(source: &str, limits: &GrammarLimits) -> Result<String> {
    if source.len() > limits.max_bytes {
        return Err(wrong(format!("at most {} bytes", limits.max_bytes), source.len()));
    }
    let mut scan = Scan {
        source,
        at: 0,
        out: String::with_capacity(source.len()),
        rules: vec![Rule::default()],
        names: HashMap::new(),
    };
    scan.run(limits)?;
    let mut seen = vec![false; scan.rules.len()];
    let start = scan.names.get("start").copied().unwrap_or(0);
    for first in std::iter::once(start).chain(0..scan.rules.len()) {
        check_depth(&scan.rules, first, 1, limits.max_depth, &mut seen)?;
    }
    let mut costs = vec![None; scan.rules.len()];
    (0..scan.rules.len()).try_for_each(|rule| check_repeats(cost(&scan.rules, rule, &mut costs)))?;
    Ok(scan.out)
}

fn wrong(expected: impl Into<String>, found: impl std::fmt::Display) -> Error {
    Error::argument("grammar", expected, found)
}

/// Follows the references of a rule in order.
fn check_depth(rules: &[Rule], rule: usize, depth: usize, limit: usize, seen: &mut [bool]) -> Result<()> {
    if std::mem::replace(&mut seen[rule], true) {
        return Ok(());
    }
    if depth > limit {
        return Err(wrong(format!("rules nested at most {limit} deep"), "deeper ones"));
    }
    rules[rule].names().try_for_each(|named| check_depth(rules, named, depth + 1, limit, seen))
}

/// A rule or a token.
struct Rule {
    is_token: bool,
    alternatives: Vec<Alternative>,
}

impl Default for Rule {
    fn default() -> Self {
        Self { is_token: false, alternatives: vec![Alternative::default()] }
    }
}

impl Rule {
    fn names(&self) -> impl Iterator<Item = usize> {
        self.alternatives.iter().flat_map(|alternative| alternative.names.iter().copied())
    }

    fn last(&mut self) -> &mut Alternative {
        if self.alternatives.is_empty() {
            self.alternatives.push(Alternative::default());
        }
        let last = self.alternatives.len() - 1;
        &mut self.alternatives[last]
    }
}

/// The part between two `|` outside of brackets.
#[derive(Default)]
struct Alternative {
    names: Vec<usize>,
    /// Number of `&`.
    ands: usize,
    /// Repetitions of expressions and strings.
    repeats: u64,
    /// Repetitions of anything else, which may contain repetitions.
    repeats_of_others: u64,
}

/// Cost of intersected expressions: their number and their repetitions.
#[derive(Clone, Copy, Default)]
struct Cost {
    together: usize,
    repeats: u64,
}

/// Cost of a token including the tokens that it references, or of a rule without them. The
/// recursion is bounded by [`check_depth`].
fn cost(rules: &[Rule], rule: usize, costs: &mut [Option<Cost>]) -> Cost {
    if let Some(cost) = costs[rule] {
        return cost;
    }
    // For a token that references itself, which the engine rejects.
    costs[rule] = Some(Cost::default());
    let mut whole = Cost { together: 1, repeats: 0 };
    for alternative in &rules[rule].alternatives {
        let (mut together, mut inside) = (alternative.ands + 1, alternative.repeats);
        for &name in alternative.names.iter().filter(|_| rules[rule].is_token) {
            let named = cost(rules, name, costs);
            together = together.saturating_add(named.together.saturating_sub(1));
            inside = inside.saturating_add(named.repeats);
        }
        let outside = alternative.repeats_of_others;
        whole.together = whole.together.max(together);
        whole.repeats = whole.repeats.saturating_add(outside).saturating_add(inside.saturating_mul(outside.max(1)));
    }
    costs[rule] = Some(whole);
    whole
}

fn check_repeats(cost: Cost) -> Result<()> {
    if cost.together > MAX_PATTERNS {
        let expected = format!("at most {MAX_PATTERNS} intersected expressions (`&`)");
        return Err(wrong(expected, cost.together));
    }
    let most = MAX_REPEATS / cost.together.max(1) as u64;
    if cost.together > 1 && cost.repeats > most {
        let expected = format!("at most {most} repetitions in {} intersected expressions (`&`)", cost.together);
        return Err(wrong(expected, cost.repeats));
    }
    Ok(())
}

/// A scan of the grammar's text, which copies it.
struct Scan<'s> {
    source: &'s str,
    at: usize,
    out: String,
    /// References of each rule; the first entry is for text outside of rules.
    rules: Vec<Rule>,
    names: HashMap<&'s str, usize>,
}

impl<'s> Scan<'s> {
    fn run(&mut self, limits: &GrammarLimits) -> Result<()> {
        let mut rule = 0;
        // Names since the start of the line: they are the head of a definition if a colon follows.
        let mut line: Vec<usize> = Vec::new();
        let mut brackets = 0usize;
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
                let len = closed(rest, c);
                if c == '/' {
                    let repeats = pattern::repeats(rest[1..len].strip_suffix('/').unwrap_or(&rest[1..len]));
                    let last = self.rules[rule].last();
                    last.repeats = last.repeats.saturating_add(repeats);
                }
                self.copy(len);
            } else if c.is_ascii_alphabetic() || c == '_' {
                let len =
                    rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == '-')).unwrap_or(rest.len());
                let new = self.rules.len();
                let name = *self.names.entry(&rest[..len]).or_insert(new);
                if name == new {
                    let is_token = rest.trim_start_matches('_').starts_with(|c: char| c.is_ascii_uppercase());
                    self.rules.push(Rule { is_token, ..Rule::default() });
                }
                line.push(name);
                self.copy(len);
            } else {
                if rest.starts_with("::") {
                    self.copy(1);
                } else if c == ':' && !line.is_empty() {
                    rule = line[0];
                    line.clear();
                    brackets = 0;
                } else if c == '\n' || c == '|' {
                    self.rules[rule].last().names.append(&mut line);
                    if c == '|' && brackets == 0 {
                        self.rules[rule].alternatives.push(Alternative::default());
                    }
                } else if c == '&' {
                    self.rules[rule].last().ands += 1;
                } else if c == '{' || c == '~' {
                    let (most, last) = (bound(&rest[1..]), self.rules[rule].last());
                    let of_text = self.source[..self.at].trim_end().ends_with('"');
                    let repeats = if of_text { &mut last.repeats } else { &mut last.repeats_of_others };
                    *repeats = repeats.saturating_add(most);
                } else if c == '(' || c == '[' {
                    brackets += 1;
                } else if c == ')' || c == ']' {
                    brackets = brackets.saturating_sub(1);
                }
                self.copy(c.len_utf8());
            }
        }
        self.rules[rule].last().names.append(&mut line);
        Ok(())
    }

    fn copy(&mut self, len: usize) {
        self.out += &self.source[self.at..self.at + len];
        self.at += len;
    }
}

/// The larger bound of the repetition that starts here; 0 if there is none.
fn bound(rest: &str) -> u64 {
    let end = rest.find(|c: char| !(c.is_ascii_digit() || " ,.\t".contains(c))).unwrap_or(rest.len());
    let numbers = rest[..end].split(|c: char| !c.is_ascii_digit()).filter(|digits| !digits.is_empty());
    numbers.map(|digits| digits.parse().unwrap_or(u64::MAX)).max().unwrap_or(0)
}

/// Length of a string or expression with its delimiters; without a closing one, up to the end.
fn closed(rest: &str, end: char) -> usize {
    let mut escaped = false;
    let close = rest.char_indices().skip(1).find(|&(_, c)| {
        let closes = c == end && !escaped;
        escaped = c == '\\' && !escaped;
        closes
    });
    close.map_or(rest.len(), |(at, _)| at + 1)
}

/// Parses the JSON value at the start of `text`, and returns it with its length.
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
        // Many rules next to each other are not a chain.
        let flat: String = (0..1000).map(|i| format!("\nr{i}[max_tokens=3]: \"a: b\" /c:d/ | start // x: y")).collect();
        assert!(
            prepared(&format!("start: {}{flat}", (0..1000).map(|i| format!("r{i} | ")).collect::<String>())).is_ok()
        );
        assert!(prepared(&"a".repeat(1 << 20)).is_err());
    }

    #[test]
    fn repetitions_that_hold_together_are_bounded() {
        for fits in [
            "start: r{1,5000000} T\nr: \"a\" r | \"b\"\nT: \"a\"{1,5000000} | /.{5000000}/\n",
            "start: T\nT: /[a-z]{1,300}/ & /.*x.{0,30}/ & ~(\"a\" ~ 3..4000)\n",
            "start: T\nT: (A & B)\n | (B & C) | B & A\nA: /a{1,900}/\nB: /b{1,900}/\nC: A B\n",
        ] {
            assert!(prepared(fits).is_ok(), "{fits}");
        }
        let many = |n: usize| vec!["/a.*/"; n].join(" & ");
        for (refused, why) in [
            ("T: /a{1,5000000}/ & /(a|b)*c/\n".to_string(), "repetitions"),
            ("T: \"a\"{1,5000000} & /(a|b)*c/\n".into(), "repetitions"),
            ("T: A ~ 5..5000000 & B\nA: \"a\"\nB: /b/\n".into(), "repetitions"),
            ("T: (A | \"b\") & B\nA: C{1,300}\nB: /b/\nC: /.{0,300}/\n".into(), "repetitions"),
            (format!("T: {}\n", many(9)), "intersected"),
            (format!("T: (A | B) & (A | B)\nA: {}\nB: {}\n", many(3), many(4)), "intersected"),
        ] {
            let error = prepared(&format!("start: T\n{refused}")).unwrap_err().to_string();
            assert!(error.contains(why), "{error} for {refused}");
        }
        assert!(prepared(&format!("start: T\nT: {}\n", many(8))).is_ok());
        assert_eq!((bound("3, 500}"), bound(" 2..7 x"), bound("\"b\""), bound(",}")), (500, 7, 0, 0));
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
