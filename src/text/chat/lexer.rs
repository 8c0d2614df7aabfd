//! Lexer of templates: Jinja's delimiters, with white space trimmed around blocks as in
//! `transformers` (`trim_blocks`, `lstrip_blocks`).

use std::sync::Arc;

use super::limits::{self, Failure, Result, fail};

/// A token of a template.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token {
    /// Text outside of tags.
    Data(Arc<str>),
    BlockBegin,
    BlockEnd,
    VariableBegin,
    VariableEnd,
    Name(Arc<str>),
    Text(Arc<str>),
    Int(i128),
    Float(f64),
    Sign(&'static str),
}

/// Two-character signs come before their prefixes: the first match is taken.
const SIGNS: [&str; 27] = [
    "//", "**", "==", "!=", ">=", "<=", "+", "-", "/", "*", "%", "~", "[", "]", "(", ")", "{", "}", ">", "<", "=", ".",
    ":", "|", ",", ";", "!",
];

/// Python's white space.
pub(super) fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\x1c'..='\x1f').contains(&c)
}

/// Returns the tokens of a template, each with its line (from 1).
pub(super) fn tokens(source: &str) -> Result<Vec<(Token, u32)>> {
    if source.len() > limits::MAX_SOURCE {
        return fail(format!("expected at most {} bytes, found {}", limits::MAX_SOURCE, source.len()));
    }
    let source = source.replace("\r\n", "\n").replace('\r', "\n");
    let source = source.strip_suffix('\n').unwrap_or(&source);
    let mut lexer = Lexer { source, at: 0, line: 1, counted: 0, line_starts: true, tokens: Vec::new() };
    match lexer.run() {
        Ok(()) => Ok(lexer.tokens),
        Err(failure) => {
            lexer.count_lines();
            Err(Failure { line: Some(lexer.line), ..failure })
        }
    }
}

struct Lexer<'s> {
    source: &'s str,
    at: usize,
    /// Line at `counted`.
    line: u32,
    counted: usize,
    /// Whether the last token read ended a line.
    line_starts: bool,
    tokens: Vec<(Token, u32)>,
}

impl<'s> Lexer<'s> {
    fn rest(&self) -> &'s str {
        &self.source[self.at..]
    }

    fn count_lines(&mut self) {
        let lines = self.source[self.counted..self.at].bytes().filter(|&b| b == b'\n').count();
        self.line += lines as u32;
        self.counted = self.at;
    }

    fn push(&mut self, token: Token) -> Result<()> {
        if self.tokens.len() >= limits::MAX_TOKENS {
            return fail(format!("expected at most {} tokens, found more", limits::MAX_TOKENS));
        }
        self.count_lines();
        self.tokens.push((token, self.line));
        Ok(())
    }

    fn data(&mut self, text: &str) -> Result<()> {
        if text.is_empty() { Ok(()) } else { self.push(Token::Data(text.into())) }
    }

    fn skip(&mut self, len: usize) {
        self.line_starts = self.rest()[..len].ends_with('\n');
        self.at += len;
    }

    fn skip_spaces(&mut self) {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_start_matches(is_space).len();
    }

    fn run(&mut self) -> Result<()> {
        loop {
            let rest = self.rest();
            let tag =
                |(at, _): (usize, _)| matches!(rest.as_bytes().get(at + 1), Some(b'%' | b'{' | b'#')).then_some(at);
            let Some(at) = rest.match_indices('{').find_map(tag) else { return self.data(rest) };
            let kind = rest.as_bytes()[at + 1];
            let sign = rest.as_bytes().get(at + 2).copied().filter(|sign| b"+-".contains(sign));
            self.data(self.stripped(&rest[..at], sign, kind != b'{'))?;
            self.skip(at);
            let begin = 2 + usize::from(sign.is_some());
            match kind {
                b'#' => {
                    let inner = &self.rest()[begin..];
                    let Some(end) = inner.find("#}") else { return fail("a comment `{#` is not closed by `#}`") };
                    self.skip(begin + end);
                    let sign = inner[..end].bytes().next_back();
                    self.end(2, sign, true);
                }
                b'{' => {
                    self.skip(begin);
                    self.push(Token::VariableBegin)?;
                    self.tag("}}", Token::VariableEnd)?;
                }
                _ => {
                    if let Some(len) = tag_of(self.rest(), "raw") {
                        self.skip(len);
                        if self.source[..self.at].ends_with("-%}") {
                            self.skip_spaces();
                        }
                        self.raw()?;
                    } else {
                        self.skip(begin);
                        self.push(Token::BlockBegin)?;
                        self.tag("%}", Token::BlockEnd)?;
                    }
                }
            }
        }
    }

    /// Returns the text before a tag without the white space that the tag removes.
    fn stripped(&self, text: &'s str, sign: Option<u8>, block: bool) -> &'s str {
        let line = text.rfind('\n').map_or(0, |at| at + 1);
        match sign {
            Some(b'-') => text.trim_end_matches(is_space),
            None if block && (line > 0 || self.line_starts) && text[line..].chars().all(is_space) => &text[..line],
            _ => text,
        }
    }

    /// Skips the end of a tag, `len` bytes with the sign before it, and the white space that it
    /// removes.
    fn end(&mut self, len: usize, sign: Option<u8>, block: bool) {
        self.skip(len);
        match sign {
            Some(b'-') => {
                let rest = self.rest();
                let spaces = rest.len() - rest.trim_start_matches(is_space).len();
                self.skip(spaces);
            }
            Some(b'+') => {}
            _ if block && self.rest().starts_with('\n') => self.skip(1),
            _ => {}
        }
    }

    /// `{% raw %}`: reads the text up to its end.
    fn raw(&mut self) -> Result<()> {
        let rest = self.rest();
        let found = rest.match_indices("{%").find_map(|(at, _)| Some((at, tag_of(&rest[at..], "endraw")?)));
        let Some((at, len)) = found else { return fail("`{% raw %}` is not closed by `{% endraw %}`") };
        let sign = rest.as_bytes().get(at + 2).copied();
        let sign = sign.filter(|sign| b"+-".contains(sign));
        self.data(self.stripped(&rest[..at], sign, true))?;
        self.skip(at);
        let end = rest.as_bytes()[at + len - 3];
        self.end(len, Some(end).filter(|sign| b"+-".contains(sign)), true);
        Ok(())
    }

    /// Reads the tokens of a tag and its end.
    fn tag(&mut self, end: &str, token: Token) -> Result<()> {
        let mut open: Vec<u8> = Vec::new();
        loop {
            self.skip_spaces();
            let rest = self.rest();
            let Some(first) = rest.chars().next() else { return fail(format!("a tag is not closed by `{end}`")) };
            if open.is_empty() {
                let sign = rest.bytes().next().filter(|sign| *sign == b'-' || *sign == b'+' && end == "%}");
                let before = usize::from(sign.is_some());
                if rest[before..].starts_with(end) {
                    self.push(token)?;
                    self.end(before + 2, sign, end == "%}");
                    return Ok(());
                }
            }
            if first.is_ascii_digit() {
                self.number()?;
            } else if first == '_' || first.is_alphabetic() {
                let len = rest.find(|c: char| c != '_' && !c.is_alphanumeric()).unwrap_or(rest.len());
                self.push(Token::Name(rest[..len].into()))?;
                self.at += len;
            } else if first == '"' || first == '\'' {
                self.text(first)?;
            } else {
                let Some(sign) = SIGNS.into_iter().find(|sign| rest.starts_with(sign)) else {
                    return fail(format!("unexpected character `{first}`"));
                };
                match sign {
                    "(" => open.push(b')'),
                    "[" => open.push(b']'),
                    "{" => open.push(b'}'),
                    ")" | "]" | "}" if open.pop() != sign.bytes().next() => {
                        return fail(format!("unexpected `{sign}`"));
                    }
                    _ => {}
                }
                self.push(Token::Sign(sign))?;
                self.at += sign.len();
            }
        }
    }

    fn number(&mut self) -> Result<()> {
        let rest = self.rest();
        let digits = |text: &str, radix: u32| text.find(|c: char| c != '_' && !c.is_digit(radix)).unwrap_or(text.len());
        let radix = match rest.get(..2).map(str::to_ascii_lowercase).as_deref() {
            Some("0x") => 16,
            Some("0o") => 8,
            Some("0b") => 2,
            _ => 10,
        };
        let mut len = if radix == 10 { digits(rest, 10) } else { 2 + digits(&rest[2..], radix) };
        let mut float = false;
        if radix == 10 && !self.source[..self.at].ends_with('.') {
            let digit = |at: usize| rest.as_bytes().get(at).is_some_and(u8::is_ascii_digit);
            if rest[len..].starts_with('.') && digit(len + 1) {
                float = true;
                len += 1 + digits(&rest[len + 1..], 10);
            }
            let sign = usize::from(rest[len..].get(1..2).is_some_and(|sign| sign == "-" || sign == "+"));
            if rest[len..].starts_with(['e', 'E']) && digit(len + 1 + sign) {
                float = true;
                len += 1 + sign + digits(&rest[len + 1 + sign..], 10);
            }
        }
        let text = rest[..len].replace('_', "");
        let wrong = || Failure { line: None, reason: format!("expected a number of at most 127 bits, found {text}") };
        let token = if float {
            Token::Float(text.parse().map_err(|_| wrong())?)
        } else {
            let text = if radix == 10 { &text } else { &text[2..] };
            Token::Int(i128::from_str_radix(text, radix).map_err(|_| wrong())?)
        };
        self.push(token)?;
        self.at += len;
        Ok(())
    }

    /// Reads a quoted string with Python's escapes.
    fn text(&mut self, quote: char) -> Result<()> {
        let inner = &self.rest()[1..];
        let mut text = String::new();
        let mut chars = inner.char_indices();
        loop {
            let Some((at, c)) = chars.next() else { return fail("unterminated string") };
            if c == quote {
                self.push(Token::Text(text.into()))?;
                self.at += at + 2;
                return Ok(());
            }
            if c != '\\' {
                text.push(c);
                continue;
            }
            let Some((at, c)) = chars.next() else { return fail("unterminated string") };
            let number = |from: usize, len: usize, radix: u32| {
                let digits = inner.get(from..from + len).filter(|d| d.chars().all(|c| c.is_digit(radix)));
                digits.and_then(|digits| u32::from_str_radix(digits, radix).ok()).and_then(char::from_u32)
            };
            let width = match c {
                'x' => 2,
                'u' => 4,
                'U' => 8,
                _ => 0,
            };
            match c {
                '\n' => {}
                '\\' | '\'' | '"' => text.push(c),
                'a' => text.push('\x07'),
                'b' => text.push('\x08'),
                'f' => text.push('\x0c'),
                'n' => text.push('\n'),
                'r' => text.push('\r'),
                't' => text.push('\t'),
                'v' => text.push('\x0b'),
                '0'..='7' => {
                    let len = inner[at..].bytes().take(3).take_while(|b| (b'0'..=b'7').contains(b)).count();
                    text.extend(number(at, len, 8));
                    (1..len).for_each(|_| _ = chars.next());
                }
                'x' | 'u' | 'U' => {
                    let Some(c) = number(at + 1, width, 16) else {
                        return fail(format!("expected {width} hexadecimal digits after `\\{c}`"));
                    };
                    text.push(c);
                    (0..width).for_each(|_| _ = chars.next());
                }
                'N' => return fail("character names (`\\N{…}`) are not supported"),
                _ => text.extend(['\\', c]),
            }
        }
    }
}

/// Length of `{% name %}` at the start of a text, with its signs.
fn tag_of(text: &str, name: &str) -> Option<usize> {
    let inner = text.strip_prefix("{%")?;
    let inner = inner.strip_prefix(['-', '+']).unwrap_or(inner).trim_start_matches(is_space);
    let rest = inner.strip_prefix(name)?.trim_start_matches(is_space);
    let rest = rest.strip_prefix(['-', '+']).unwrap_or(rest).strip_prefix("%}")?;
    Some(text.len() - rest.len())
}
