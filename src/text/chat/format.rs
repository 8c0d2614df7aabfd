//! Python's string formatting: `'{:>8}'.format(x)` and `'%5.2f' % x`.

use super::limits::{Budget, Result, Text, fail};
use super::runtime::{Args, Runtime};
use super::value::{Value, float_repr};

/// Maximum width of a field and maximum precision.
const MAX_WIDTH: usize = 1 << 16;
const MAX_DIGITS: usize = 1000;

/// Formats a number with a fixed number of decimals.
pub(super) fn fixed(number: f64, digits: usize) -> String {
    format!("{number:.digits$}")
}

/// Formats a number with an exponent of at least two digits.
fn exponential(number: f64, digits: usize) -> String {
    let text = format!("{number:.digits$e}");
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let (sign, exponent) = exponent.strip_prefix('-').map_or(('+', exponent), |e| ('-', e));
    format!("{digits}e{sign}{exponent:0>2}")
}

/// The shorter of both formats with `digits` significant digits; without trailing zeros unless
/// `keep`.
fn general(number: f64, digits: usize, keep: bool) -> String {
    let digits = digits.max(1);
    let scientific = exponential(number, digits - 1);
    let exponent: i64 = scientific.split_once('e').and_then(|(_, e)| e.parse().ok()).unwrap_or(0);
    let trimmed = |text: &str| {
        if keep || !text.contains('.') {
            text.into()
        } else {
            text.trim_end_matches('0').trim_end_matches('.').to_string()
        }
    };
    if exponent < -4 || exponent >= digits as i64 {
        let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "+00"));
        return format!("{}e{exponent}", trimmed(mantissa));
    }
    trimmed(&fixed(number, (digits as i64 - 1 - exponent).max(0) as usize))
}

/// A format specification.
#[derive(Debug, Default)]
struct Spec {
    fill: Option<char>,
    align: Option<char>,
    sign: Option<char>,
    alternate: bool,
    zero: bool,
    width: usize,
    separator: Option<char>,
    digits: Option<usize>,
    kind: Option<char>,
}

/// A cursor over a string.
struct Reader<'t> {
    rest: &'t str,
}

impl Reader<'_> {
    fn next_if(&mut self, accepted: impl Fn(char) -> bool) -> Option<char> {
        let c = self.rest.chars().next().filter(|&c| accepted(c))?;
        self.rest = &self.rest[c.len_utf8()..];
        Some(c)
    }

    fn next(&mut self) -> Option<char> {
        self.next_if(|_| true)
    }

    fn skip(&mut self, c: char) -> bool {
        self.next_if(|next| next == c).is_some()
    }

    fn number(&mut self) -> Option<usize> {
        let mut number = None;
        while let Some(digit) = self.next_if(|c| c.is_ascii_digit()).and_then(|c| c.to_digit(10)) {
            number = Some(number.unwrap_or(0usize).saturating_mul(10).saturating_add(digit as usize));
        }
        number
    }
}

impl Spec {
    fn parse(spec: &str) -> Result<Self> {
        let mut parsed = Self::default();
        let is_align = |c: char| "<>=^".contains(c);
        let mut chars = Reader { rest: spec };
        let mut ahead = spec.chars();
        match (ahead.next(), ahead.next()) {
            (Some(fill), Some(align)) if is_align(align) => {
                (parsed.fill, parsed.align) = (Some(fill), Some(align));
                chars.next();
                chars.next();
            }
            (Some(align), _) if is_align(align) => {
                parsed.align = Some(align);
                chars.next();
            }
            _ => {}
        }
        parsed.sign = chars.next_if(|c| "+- ".contains(c));
        parsed.alternate = chars.skip('#');
        parsed.zero = chars.skip('0');
        parsed.width = chars.number().unwrap_or(0);
        parsed.separator = chars.next_if(|c| c == ',' || c == '_');
        if chars.skip('.') {
            parsed.digits = chars.number();
            if parsed.digits.is_none() {
                return fail("format: expected digits after `.`");
            }
        }
        parsed.kind = chars.next();
        if chars.next().is_some() {
            return fail("format: expected one type letter at the end of a format specification");
        }
        parsed.checked()
    }

    fn checked(self) -> Result<Self> {
        if self.width > MAX_WIDTH {
            return fail(format!("format: expected a width of at most {MAX_WIDTH}, found {}", self.width));
        }
        if self.digits.is_some_and(|digits| digits > MAX_DIGITS) {
            return fail(format!("format: expected a precision of at most {MAX_DIGITS}"));
        }
        Ok(self)
    }

    /// Pads the text to the width; the sign comes before the padding of `=`.
    fn pad(&self, text: &str, align: char, out: &mut Text<'_>) -> Result<()> {
        let fill = self.fill.unwrap_or(if self.zero { '0' } else { ' ' });
        let missing = self.width.saturating_sub(text.chars().count());
        let align = self.align.unwrap_or(align);
        if align == '=' {
            let sign = text.len() - text.trim_start_matches(['+', '-', ' ']).len();
            let prefix = if self.alternate && matches!(self.kind, Some('x' | 'X' | 'o' | 'b')) { 2 } else { 0 };
            let (sign, rest) = text.split_at((sign + prefix).min(text.len()));
            out.push(sign)?;
            out.push_repeated(fill, missing)?;
            return out.push(rest);
        }
        let before = match align {
            '<' => 0,
            '^' => missing / 2,
            _ => missing,
        };
        out.push_repeated(fill, before)?;
        out.push(text)?;
        out.push_repeated(fill, missing - before)
    }

    fn signed(&self, negative: bool) -> &'static str {
        match self.sign {
            _ if negative => "-",
            Some('+') => "+",
            Some(' ') => " ",
            _ => "",
        }
    }

    fn number(&self, negative: bool, prefix: &str, digits: &str, group: usize, out: &mut Text<'_>) -> Result<()> {
        let digits = match self.separator {
            Some(separator) => grouped(digits, separator, group),
            None => digits.into(),
        };
        let align = if self.zero { '=' } else { '>' };
        self.pad(&[self.signed(negative), prefix, &digits].concat(), align, out)
    }

    fn int(&self, number: i128, out: &mut Text<'_>) -> Result<()> {
        if self.digits.is_some() {
            return fail("format: precision is not allowed for integers");
        }
        let size = number.unsigned_abs();
        let (prefix, digits, group) = match self.kind {
            None | Some('d' | 'n') => ("", size.to_string(), 3),
            Some('x') => ("0x", format!("{size:x}"), 4),
            Some('X') => ("0X", format!("{size:X}"), 4),
            Some('o') => ("0o", format!("{size:o}"), 4),
            Some('b') => ("0b", format!("{size:b}"), 4),
            Some('c') => match u32::try_from(number).ok().and_then(char::from_u32) {
                Some(c) => return self.pad(c.encode_utf8(&mut [0; 4]), '<', out),
                None => return fail("format: expected a code point for `c`"),
            },
            Some(kind) => return fail(format!("format: unknown type `{kind}` for an integer")),
        };
        self.number(number < 0, if self.alternate { prefix } else { "" }, &digits, group, out)
    }

    fn float(&self, number: f64, out: &mut Text<'_>) -> Result<()> {
        let size = number.abs();
        let digits = self.digits.unwrap_or(6);
        let text = if !size.is_finite() {
            let text = if size.is_nan() { "nan" } else { "inf" };
            if matches!(self.kind, Some('E' | 'F' | 'G')) { text.to_uppercase() } else { text.into() }
        } else {
            match self.kind {
                None if self.digits.is_none() => float_repr(size),
                None => {
                    let text = general(size, digits, self.alternate);
                    if text.contains(['.', 'e']) { text } else { text + ".0" }
                }
                Some('f' | 'F') => fixed(size, digits),
                Some('e') => exponential(size, digits),
                Some('E') => exponential(size, digits).to_uppercase(),
                Some('g' | 'n') => general(size, digits, self.alternate),
                Some('G') => general(size, digits, self.alternate).to_uppercase(),
                Some('%') => fixed(size * 100.0, digits) + "%",
                Some(kind) => return fail(format!("format: unknown type `{kind}` for a float")),
            }
        };
        self.number(number.is_sign_negative() && !number.is_nan(), "", &text, 3, out)
    }

    fn value(&self, value: &Value, out: &mut Text<'_>) -> Result<()> {
        let float_kind = matches!(self.kind, Some('e' | 'E' | 'f' | 'F' | 'g' | 'G' | '%'));
        match (value, value.as_int()) {
            (Value::Bool(_), _) if self.kind.is_none() => {}
            (_, Some(number)) if float_kind => return self.float(number as f64, out),
            (_, Some(number)) => return self.int(number, out),
            (Value::Float(number), _) => return self.float(*number, out),
            _ => {}
        }
        if self.kind.is_some_and(|kind| kind != 's') || self.align == Some('=') || self.sign.is_some() {
            return fail(format!("format: expected a format specification of a string for `{}`", value.type_name()));
        }
        let text = value.to_text(out.budget)?;
        let text = match self.digits {
            Some(digits) => text.char_indices().nth(digits).map_or(&*text, |(at, _)| &text[..at]),
            None => &text,
        };
        self.pad(text, '<', out)
    }
}

/// Groups the digits before the decimal point.
fn grouped(text: &str, separator: char, group: usize) -> String {
    let whole = text.find(|c: char| !c.is_ascii_hexdigit()).unwrap_or(text.len());
    let whole = if group == 3 { text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()) } else { whole };
    let mut all = String::new();
    for (i, c) in text[..whole].chars().enumerate() {
        if i > 0 && (whole - i).is_multiple_of(group) {
            all.push(separator);
        }
        all.push(c);
    }
    all + &text[whole..]
}

/// `'…'.format(…)`.
pub(super) fn format(runtime: &Runtime<'_>, template: &str, args: &Args) -> Result<Value> {
    let mut out = Text::new(runtime.budget);
    let mut fields = Fields { runtime, args, next: 0 };
    fields.write(template, 0, &mut out)?;
    Value::text(runtime.budget, &out.into_string())
}

struct Fields<'a, 'b> {
    runtime: &'a Runtime<'b>,
    args: &'a Args,
    /// Index of the next automatically numbered argument.
    next: usize,
}

impl Fields<'_, '_> {
    fn write(&mut self, template: &str, nested: usize, out: &mut Text<'_>) -> Result<()> {
        let mut rest = template;
        self.runtime.budget.read(template.len())?;
        while let Some(at) = rest.find(['{', '}']) {
            out.push(&rest[..at])?;
            let bracket = &rest[at..=at];
            rest = &rest[at + 1..];
            if let Some(after) = rest.strip_prefix(bracket).filter(|_| nested == 0) {
                out.push(bracket)?;
                rest = after;
                continue;
            }
            if bracket == "}" {
                return fail("format: unmatched `}`");
            }
            let mut depth = 1;
            let end = rest.find(|c| {
                depth += i32::from(c == '{') - i32::from(c == '}');
                depth == 0
            });
            let Some(end) = end else { return fail("format: unmatched `{`") };
            if nested == 2 {
                return fail("format: fields are nested too deeply");
            }
            self.field(&rest[..end], nested, out)?;
            rest = &rest[end + 1..];
        }
        out.push(rest)
    }

    fn field(&mut self, field: &str, nested: usize, out: &mut Text<'_>) -> Result<()> {
        let budget = self.runtime.budget;
        budget.step()?;
        // The first `:` or `!` outside of `[]`.
        let mut within = false;
        let end = field.find(|c| {
            within = c == '[' || within && c != ']';
            !within && (c == ':' || c == '!')
        });
        let (name, rest) = field.split_at(end.unwrap_or(field.len()));
        let mut value = self.named(name)?;
        let mut rest = rest;
        if let Some(after) = rest.strip_prefix('!') {
            let mut chars = after.chars();
            value = match chars.next() {
                Some('s') => Value::Str(value.to_text(budget)?),
                Some('r' | 'a') => {
                    let mut repr = Text::new(budget);
                    value.write_repr(&mut repr)?;
                    Value::text(budget, &repr.into_string())?
                }
                _ => return fail("format: expected `s`, `r` or `a` after `!`"),
            };
            rest = chars.as_str();
        }
        let spec = rest.strip_prefix(':').unwrap_or(rest);
        if spec.is_empty() {
            return value.write(out);
        }
        let mut expanded = Text::new(budget);
        self.write(spec, nested + 1, &mut expanded)?;
        Spec::parse(&expanded.into_string())?.value(&value, out)
    }

    /// Returns the argument that a field names: `0`, `name`, `0.attribute`, `name[key]`.
    fn named(&mut self, name: &str) -> Result<Value> {
        let end = name.find(['.', '[']).unwrap_or(name.len());
        let (first, mut rest) = name.split_at(end);
        let index = match first {
            "" => {
                self.next += 1;
                Some(self.next - 1)
            }
            _ => first.parse().ok(),
        };
        let found = match index {
            Some(index) => self.args.positional.get(index),
            None => self.args.named.iter().find(|(known, _)| **known == *first).map(|(_, value)| value),
        };
        let Some(value) = found else { return fail("format: a field names a missing argument") };
        let mut value = value.clone();
        while !rest.is_empty() {
            self.runtime.budget.step()?;
            let (key, after) = if let Some(inner) = rest.strip_prefix('[') {
                let Some((key, after)) = inner.split_once(']') else { return fail("format: `[` without `]`") };
                (key, after)
            } else {
                let inner = rest.strip_prefix('.').unwrap_or(rest);
                inner.split_at(inner.find(['.', '[']).unwrap_or(inner.len()))
            };
            value = match (rest.starts_with('['), key.parse::<i128>()) {
                (true, Ok(index)) => self.runtime.item(&value, &Value::Int(index))?,
                (true, Err(_)) => self.runtime.item(&value, &Value::text(self.runtime.budget, key)?)?,
                (false, _) => self.runtime.attribute(&value, &key.into())?,
            };
            value.defined()?;
            rest = after;
        }
        Ok(value)
    }
}

/// `template % values`: a tuple of values, a dict for `%(name)s`, or one value.
pub(super) fn printf(budget: &Budget, template: &str, values: &Value) -> Result<Value> {
    budget.read(template.len())?;
    let mut out = Text::new(budget);
    let one = std::slice::from_ref(values);
    let positional = match values {
        Value::Seq(seq) if values.type_name() == "tuple" => &seq.items[..],
        _ => one,
    };
    let mut used = 0;
    let mut next = || {
        used += 1;
        match positional.get(used - 1) {
            Some(value) => Ok(value.clone()),
            None => fail("not enough values for a format string with `%`"),
        }
    };
    let mut rest = template;
    while let Some(at) = rest.find('%') {
        out.push(&rest[..at])?;
        rest = &rest[at + 1..];
        budget.step()?;
        let mut given = None;
        if let Some(inner) = rest.strip_prefix('(') {
            let (Some((name, after)), Value::Dict(dict)) = (inner.split_once(')'), values) else {
                return fail("expected a dict of values for a format string with `%(name)`");
            };
            let Some(value) = dict.get_str(budget, name)? else {
                return fail("a format string with `%(name)` names a missing value");
            };
            given = Some(value.clone());
            rest = after;
        }
        let mut spec = Spec::default();
        let mut chars = Reader { rest };
        while let Some(flag) = chars.next_if(|c| "-+ #0".contains(c)) {
            match flag {
                '-' => spec.align = Some('<'),
                '#' => spec.alternate = true,
                '0' => spec.zero = true,
                sign => spec.sign = Some(sign),
            }
        }
        if chars.skip('*') {
            let width = next()?.as_int().unwrap_or(0);
            spec.align = if width < 0 { Some('<') } else { spec.align };
            spec.width = usize::try_from(width.unsigned_abs()).unwrap_or(usize::MAX);
        } else {
            spec.width = chars.number().unwrap_or(0);
        }
        if chars.skip('.') {
            spec.digits = Some(chars.number().unwrap_or(0));
        }
        while chars.next_if(|c| "hlL".contains(c)).is_some() {}
        let Some(kind) = chars.next() else { return fail("a format string ends within a `%` field") };
        rest = chars.rest;
        let mut spec = spec.checked()?;
        if spec.align == Some('<') {
            spec.zero = false;
        }
        if kind == '%' {
            out.push("%")?;
            continue;
        }
        let value = match given {
            Some(value) => value,
            None => next()?,
        };
        printf_field(spec, kind, &value, &mut out)?;
    }
    out.push(rest)?;
    if used < positional.len() && !(used == 0 && matches!(values, Value::Dict(_))) {
        return fail("not all values were used by a format string with `%`");
    }
    Value::text(budget, &out.into_string())
}

fn printf_field(mut spec: Spec, kind: char, value: &Value, out: &mut Text<'_>) -> Result<()> {
    match kind {
        's' | 'r' | 'a' => {
            let budget = out.budget;
            let mut text = Text::new(budget);
            if kind == 's' {
                value.write(&mut text)?
            } else {
                value.write_repr(&mut text)?
            }
            let text = text.into_string();
            let text = match spec.digits {
                Some(digits) => text.char_indices().nth(digits).map_or(&*text, |(at, _)| &text[..at]),
                None => &text,
            };
            spec.zero = false;
            spec.pad(text, '>', out)
        }
        'd' | 'i' | 'u' | 'x' | 'X' | 'o' | 'c' => {
            let number = match (value, kind) {
                (Value::Str(text), 'c') if text.chars().count() == 1 => return spec.pad(text, '>', out),
                (Value::Float(number), 'd' | 'i' | 'u') if number.abs() < 1e38 => Some(*number as i128),
                _ => value.as_int(),
            };
            let Some(number) = number else {
                return fail(format!("expected a number for `%{kind}`, found `{}`", value.type_name()));
            };
            let digits = spec.digits.take();
            spec.kind = Some(if matches!(kind, 'i' | 'u') { 'd' } else { kind });
            match digits {
                Some(digits) if kind != 'c' => {
                    let text = format!("{:0>digits$}", number.unsigned_abs());
                    spec.number(number < 0, "", &text, 3, out)
                }
                _ => spec.int(number, out),
            }
        }
        'e' | 'E' | 'f' | 'F' | 'g' | 'G' => match value.as_float() {
            Some(number) => {
                spec.kind = Some(kind);
                spec.float(number, out)
            }
            None => fail(format!("expected a number for `%{kind}`, found `{}`", value.type_name())),
        },
        _ => fail(format!("unknown type `{kind}` after `%`")),
    }
}
