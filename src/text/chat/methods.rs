//! The non-mutating methods of Python's strings, lists and dictionaries.

use std::rc::Rc;
use std::sync::Arc;

use super::format;
use super::lexer::is_space;
use super::limits::{Budget, Result, Text, fail};
use super::runtime::{Args, Runtime};
use super::value::{Kind, Object, Value, is_printable, short};

pub(super) fn call(runtime: &Runtime<'_>, value: &Value, name: &str, args: Args) -> Result<Value> {
    match value {
        Value::Str(text) => of_text(runtime, text, name, args),
        Value::Dict(dict) => {
            let pair = |(key, value): &(Value, Value)| {
                Value::seq(runtime.budget, Kind::Tuple, vec![key.clone(), value.clone()])
            };
            match name {
                "get" => {
                    let [key, default] = args.bind(name, ["key", "default"], 1)?;
                    let found = dict.get(runtime.budget, &key.unwrap_or(Value::None))?.cloned();
                    Ok(found.or(default).unwrap_or(Value::None))
                }
                "keys" | "values" | "items" => {
                    args.bind(name, [], 0)?;
                    runtime.budget.make(dict.entries.len() * 32)?;
                    let (kind, items) = match name {
                        "keys" => (Kind::Keys, dict.entries.iter().map(|(key, _)| key.clone()).collect()),
                        "values" => (Kind::Values, dict.entries.iter().map(|(_, value)| value.clone()).collect()),
                        _ => (Kind::Items, dict.entries.iter().map(pair).collect::<Result<_>>()?),
                    };
                    Value::seq(runtime.budget, kind, items)
                }
                "copy" => {
                    args.bind(name, [], 0)?;
                    Ok(value.clone())
                }
                _ => changes(value, name),
            }
        }
        Value::Seq(seq) => match name {
            "count" | "index" => {
                let [item] = args.bind(name, ["value"], 1)?.map(|item| item.unwrap_or(Value::None));
                let mut count = 0;
                for (i, other) in seq.items.iter().enumerate() {
                    runtime.budget.items(1)?;
                    if other.equals(runtime.budget, &item)? {
                        if name == "index" {
                            return Ok(Value::Int(i as i128));
                        }
                        count += 1;
                    }
                }
                if name == "index" { fail("index: the value is not in the list") } else { Ok(Value::Int(count)) }
            }
            "copy" => {
                args.bind(name, [], 0)?;
                Ok(value.clone())
            }
            _ => changes(value, name),
        },
        Value::Object(object) => of_object(runtime, object, name, args),
        _ => changes(value, name),
    }
}

fn changes<T>(value: &Value, name: &str) -> Result<T> {
    fail(format!("`{}` of `{}` is not available in a template", short(name), value.type_name()))
}

fn of_object(runtime: &Runtime<'_>, object: &Rc<Object>, name: &str, args: Args) -> Result<Value> {
    match (&**object, name) {
        (Object::Loop(of), "cycle") => {
            if args.positional.is_empty() {
                return fail("cycle: expected at least one value");
            }
            Ok(args.positional[of.index.get() % args.positional.len()].clone())
        }
        (Object::Loop(of), "changed") => {
            let before = of.changed.replace(Some(args.positional.clone()));
            let Some(before) = before else { return Ok(Value::Bool(true)) };
            let mut same = before.len() == args.positional.len();
            for (a, b) in before.iter().zip(&args.positional) {
                same = same && a.equals(runtime.budget, b)?;
            }
            Ok(Value::Bool(!same))
        }
        (Object::Cycler(items, at), "next") => {
            let item = items.get(at.get()).cloned().unwrap_or(Value::Undefined(None));
            at.set((at.get() + 1) % items.len().max(1));
            Ok(item)
        }
        (Object::Cycler(_, at), "reset") => {
            at.set(0);
            Ok(Value::None)
        }
        (Object::Function(_), "fromkeys") => {
            let [keys, value] = args.bind(name, ["iterable", "value"], 1)?;
            let keys = keys.unwrap_or(Value::None).items(runtime.budget)?;
            runtime.budget.make(keys.len() * 64)?;
            let value = value.unwrap_or(Value::None);
            Value::dict(runtime.budget, keys.into_iter().map(|key| (key, value.clone())).collect())
        }
        _ => fail(format!("no method `{}`", short(name))),
    }
}

fn text_arg(method: &str, value: Option<Value>) -> Result<Arc<str>> {
    match value {
        Some(Value::Str(text)) => Ok(text),
        Some(value) => {
            value.defined()?;
            fail(format!("{method}: expected a string, found `{}`", value.type_name()))
        }
        None => fail(format!("{method}: expected a string")),
    }
}

fn int_arg(method: &str, value: Option<Value>, default: i128) -> Result<i128> {
    match value {
        None | Some(Value::None) => Ok(default),
        Some(value) => match value.as_int() {
            Some(number) => Ok(number),
            None => fail(format!("{method}: expected an integer, found `{}`", value.type_name())),
        },
    }
}

pub(super) fn is_lower(text: &str) -> bool {
    text.chars().any(char::is_lowercase) && !text.chars().any(char::is_uppercase)
}

pub(super) fn is_upper(text: &str) -> bool {
    text.chars().any(char::is_uppercase) && !text.chars().any(char::is_lowercase)
}

/// Upper-cases the first character and lower-cases the others.
pub(super) fn capitalized(text: &str) -> String {
    let mut chars = text.chars();
    let first = chars.next().into_iter().flat_map(char::to_uppercase);
    first.chain(chars.as_str().to_lowercase().chars()).collect()
}

/// Returns the part of a text between two character indices, with the meaning of Python's optional
/// arguments.
fn part(text: &str, start: i128, end: i128) -> Option<(usize, &str)> {
    if start == 0 && end == i128::MAX {
        return Some((0, text));
    }
    let len = text.chars().count() as i128;
    let clamp = |at: i128| if at < 0 { (at + len).max(0) } else { at.min(len) } as usize;
    if start > len || clamp(end) < clamp(start) {
        return None;
    }
    let place = |at: usize| text.char_indices().nth(at).map_or(text.len(), |(at, _)| at);
    Some((clamp(start), &text[place(clamp(start))..place(clamp(end))]))
}

/// Counts non-overlapping occurrences of a part; an empty part occurs before and after each
/// character.
fn occurrences(text: &str, part: &str) -> usize {
    if part.is_empty() { text.chars().count() + 1 } else { text.matches(part).count() }
}

/// `text.replace(from, to, count)`; replaces all if `count` is negative.
pub(super) fn replaced(budget: &Budget, text: &str, from: &str, to: &str, count: i128) -> Result<Value> {
    budget.read(text.len() + from.len())?;
    let limit = usize::try_from(count).unwrap_or(usize::MAX);
    let found = occurrences(text, from).min(limit);
    budget.make(text.len() - (found * from.len()).min(text.len()) + found.saturating_mul(to.len()) + 32)?;
    Ok(Value::Str(text.replacen(from, to, limit).into()))
}

/// `text.strip(chars)` on the left and right side; strips white space without `chars`.
pub(super) fn stripped(budget: &Budget, text: &str, chars: Option<Value>, left: bool, right: bool) -> Result<Value> {
    let chars = match chars {
        None | Some(Value::None) => None,
        chars => Some(text_arg("strip", chars)?),
    };
    let mut set: Vec<char> = Vec::new();
    if let Some(chars) = &chars {
        budget.make(chars.len() * 4)?;
        budget.read(chars.len() * 8 + text.len() * 4)?;
        set.extend(chars.chars());
        set.sort_unstable();
    }
    let strip = |c| if chars.is_some() { set.binary_search(&c).is_ok() } else { is_space(c) };
    let mut inner = text;
    if left {
        inner = inner.trim_start_matches(strip);
    }
    if right {
        inner = inner.trim_end_matches(strip);
    }
    Value::text(budget, inner)
}

/// Pads a text to the left, to the right or on both sides.
pub(super) fn padded(budget: &Budget, text: &str, width: i128, fill: char, align: char) -> Result<Value> {
    budget.read(text.len())?;
    let len = text.chars().count();
    let missing = usize::try_from(width).unwrap_or(0).saturating_sub(len);
    // With an odd number, the side of the extra character is Python's choice.
    let width = len.saturating_add(missing);
    let before = match align {
        '<' => 0,
        '>' => missing,
        _ => missing / 2 + (missing & width & 1),
    };
    let mut out = Text::new(budget);
    out.push_repeated(fill, before)?;
    out.push(text)?;
    out.push_repeated(fill, missing - before)?;
    Value::text(budget, &out.into_string())
}

fn texts<'t>(budget: &Budget, kind: Kind, parts: impl Iterator<Item = &'t str>) -> Result<Value> {
    let mut all = Vec::new();
    for part in parts {
        budget.make(64)?;
        all.push(Value::text(budget, part)?);
    }
    Value::seq(budget, kind, all)
}

/// Splits at white space; the last part of `limit` splits keeps its outer white space.
fn words<'t>(budget: &Budget, text: &'t str, limit: usize, right: bool) -> Result<Vec<&'t str>> {
    let mut found = Vec::new();
    let mut rest = text;
    loop {
        rest = if right { rest.trim_end_matches(is_space) } else { rest.trim_start_matches(is_space) };
        if rest.is_empty() {
            break;
        }
        budget.make(16)?;
        if found.len() == limit {
            found.push(rest);
            break;
        }
        let (word, others) = if right {
            let at = rest.char_indices().rfind(|&(_, c)| is_space(c)).map_or(0, |(at, c)| at + c.len_utf8());
            (&rest[at..], &rest[..at])
        } else {
            rest.split_at(rest.find(is_space).unwrap_or(rest.len()))
        };
        found.push(word);
        rest = others;
    }
    if right {
        found.reverse();
    }
    Ok(found)
}

/// `text.split(separator, limit)`; splits at white space without a separator.
fn split(budget: &Budget, text: &str, separator: Option<Value>, limit: i128, right: bool) -> Result<Value> {
    budget.read(text.len() * 2)?;
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let parts = limit.saturating_add(1);
    match separator {
        None | Some(Value::None) => texts(budget, Kind::List, words(budget, text, limit, right)?.into_iter()),
        separator => {
            let separator = text_arg("split", separator)?;
            if separator.is_empty() {
                return fail("split: expected a non-empty separator");
            }
            if !right {
                return texts(budget, Kind::List, text.splitn(parts, &*separator));
            }
            budget.make(text.len() / separator.len() * 16)?;
            let mut found: Vec<&str> = text.rsplitn(parts, &*separator).collect();
            found.reverse();
            texts(budget, Kind::List, found.into_iter())
        }
    }
}

/// Splits into lines, without line ends unless `keep`.
fn lines(text: &str, keep: bool) -> Vec<&str> {
    let is_end =
        |c: char| matches!(c, '\n' | '\r' | '\x0b' | '\x0c' | '\x1c'..='\x1e' | '\u{85}' | '\u{2028}' | '\u{2029}');
    let mut all = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let at = rest.find(is_end).unwrap_or(rest.len());
        let end = if rest[at..].starts_with("\r\n") { 2 } else { rest[at..].chars().next().map_or(0, char::len_utf8) };
        all.push(&rest[..if keep { at + end } else { at }]);
        rest = &rest[at + end..];
    }
    all
}

/// Python's `title`: capitalises after every character that is not a letter.
fn title(text: &str) -> String {
    let mut all = String::with_capacity(text.len());
    let mut within = false;
    for c in text.chars() {
        if within {
            all.extend(c.to_lowercase())
        } else {
            all.extend(c.to_uppercase())
        }
        within = c.is_lowercase() || c.is_uppercase();
    }
    all
}

fn of_text(runtime: &Runtime<'_>, text: &Arc<str>, name: &str, args: Args) -> Result<Value> {
    let budget = runtime.budget;
    match name {
        "format" => return format::format(runtime, text, &args),
        "format_map" => {
            let [map] = args.bind(name, ["mapping"], 1)?;
            let Some(Value::Dict(dict)) = map else { return fail("format_map: expected a dict") };
            budget.make(dict.entries.len() * 64)?;
            let entry = |(key, value): &(Value, Value)| Some((key.as_str()?.into(), value.clone()));
            let args = Args { positional: Vec::new(), named: dict.entries.iter().filter_map(entry).collect() };
            return format::format(runtime, text, &args);
        }
        _ => {}
    }
    // Every method reads the text; a change of case may also create a slightly longer one.
    budget.read(text.len() * 2)?;
    let changed = |text: String| Value::text(budget, &text);
    let all = |accepted: fn(char) -> bool| Ok(Value::Bool(!text.is_empty() && text.chars().all(accepted)));
    match name {
        "strip" | "lstrip" | "rstrip" => {
            let [chars] = args.bind(name, ["chars"], 0)?;
            stripped(budget, text, chars, name != "rstrip", name != "lstrip")
        }
        "split" | "rsplit" => {
            let [separator, limit] = args.bind(name, ["sep", "maxsplit"], 0)?;
            split(budget, text, separator, int_arg(name, limit, -1)?, name == "rsplit")
        }
        "splitlines" => {
            let [keep] = args.bind(name, ["keepends"], 0)?;
            budget.make(text.len() / 16 * 16)?;
            texts(budget, Kind::List, lines(text, keep.is_some_and(|keep| keep.is_true())).into_iter())
        }
        "partition" | "rpartition" => {
            let [separator] = args.bind(name, ["sep"], 1)?;
            let separator = text_arg(name, separator)?;
            if separator.is_empty() {
                return fail(format!("{name}: expected a non-empty separator"));
            }
            let parts = match if name == "partition" { text.find(&*separator) } else { text.rfind(&*separator) } {
                Some(at) => [&text[..at], &separator, &text[at + separator.len()..]],
                None if name == "partition" => [text, "", ""],
                None => ["", "", text],
            };
            texts(budget, Kind::Tuple, parts.into_iter())
        }
        "replace" => {
            let [from, to, count] = args.bind(name, ["old", "new", "count"], 2)?;
            replaced(budget, text, &text_arg(name, from)?, &text_arg(name, to)?, int_arg(name, count, -1)?)
        }
        "removeprefix" | "removesuffix" => {
            let [affix] = args.bind(name, ["affix"], 1)?;
            let affix = text_arg(name, affix)?;
            let rest = if name == "removeprefix" { text.strip_prefix(&*affix) } else { text.strip_suffix(&*affix) };
            rest.map_or_else(|| Ok(Value::Str(Arc::clone(text))), |rest| Value::text(budget, rest))
        }
        "startswith" | "endswith" => {
            let [affix, start, end] = args.bind(name, ["affix", "start", "end"], 1)?;
            let part = part(text, int_arg(name, start, 0)?, int_arg(name, end, i128::MAX)?);
            let affixes = match affix {
                Some(Value::Seq(seq)) if seq.kind == Kind::Tuple => seq.items.clone(),
                affix => affix.into_iter().collect(),
            };
            let mut found = false;
            for affix in affixes {
                let affix = text_arg(name, Some(affix))?;
                budget.read(affix.len())?;
                found |= part.is_some_and(|(_, part)| {
                    if name == "startswith" { part.starts_with(&*affix) } else { part.ends_with(&*affix) }
                });
            }
            Ok(Value::Bool(found))
        }
        "find" | "rfind" | "index" | "rindex" | "count" => {
            let [item, start, end] = args.bind(name, ["sub", "start", "end"], 1)?;
            let item = text_arg(name, item)?;
            budget.read(item.len())?;
            let part = part(text, int_arg(name, start, 0)?, int_arg(name, end, i128::MAX)?);
            if name == "count" {
                return Ok(Value::Int(part.map_or(0, |(_, part)| occurrences(part, &item)) as i128));
            }
            let found = part.and_then(|(start, part)| {
                let at = if name.starts_with('r') { part.rfind(&*item) } else { part.find(&*item) }?;
                Some((start + part[..at].chars().count()) as i128)
            });
            match found {
                None if name.ends_with("index") => fail(format!("{name}: substring not found")),
                found => Ok(Value::Int(found.unwrap_or(-1))),
            }
        }
        "join" => {
            let [items] = args.bind(name, ["iterable"], 1)?;
            let mut out = Text::new(budget);
            for (i, item) in items.unwrap_or(Value::None).items(budget)?.into_iter().enumerate() {
                if i > 0 {
                    out.push(text)?;
                }
                out.push(&text_arg(name, Some(item))?)?;
            }
            changed(out.into_string())
        }
        "center" | "ljust" | "rjust" => {
            let [width, fill] = args.bind(name, ["width", "fillchar"], 1)?;
            let fill = match fill {
                None => ' ',
                fill => {
                    let fill = text_arg(name, fill)?;
                    let mut chars = fill.chars();
                    match (chars.next(), chars.next()) {
                        (Some(fill), None) => fill,
                        _ => return fail(format!("{name}: expected one fill character")),
                    }
                }
            };
            let align = match name {
                "ljust" => '<',
                "rjust" => '>',
                _ => '^',
            };
            padded(budget, text, int_arg(name, width, 0)?, fill, align)
        }
        "zfill" => {
            let [width] = args.bind(name, ["width"], 1)?;
            let sign = text.len() - text.strip_prefix(['+', '-']).map_or(text.len(), str::len);
            let (sign, digits) = text.split_at(sign);
            let width = int_arg(name, width, 0)? - sign.len() as i128;
            let digits = padded(budget, digits, width, '0', '>')?.to_text(budget)?;
            changed([sign, &digits].concat())
        }
        "expandtabs" => {
            let [size] = args.bind(name, ["tabsize"], 0)?;
            let size = usize::try_from(int_arg(name, size, 8)?).unwrap_or(0);
            let mut out = Text::new(budget);
            let mut column = 0;
            for c in text.chars() {
                if c == '\t' {
                    let spaces = if size == 0 { 0 } else { size - column % size };
                    out.push_repeated(' ', spaces)?;
                    column += spaces;
                } else {
                    out.push_char(c)?;
                    column = if matches!(c, '\n' | '\r') { 0 } else { column + 1 };
                }
            }
            changed(out.into_string())
        }
        "encode" | "translate" | "maketrans" => changes(&Value::Str(Arc::clone(text)), name),
        _ => {
            args.bind(name, [], 0)?;
            budget.read(text.len() * 4)?;
            match name {
                "upper" => changed(text.to_uppercase()),
                "lower" | "casefold" => changed(text.to_lowercase()),
                "capitalize" => changed(capitalized(text)),
                "title" => changed(title(text)),
                "swapcase" => {
                    let mut out = Text::new(budget);
                    for c in text.chars() {
                        if c.is_uppercase() {
                            c.to_lowercase().try_for_each(|c| out.push_char(c))?;
                        } else {
                            c.to_uppercase().try_for_each(|c| out.push_char(c))?;
                        }
                    }
                    changed(out.into_string())
                }
                "isalnum" => all(char::is_alphanumeric),
                "isalpha" => all(char::is_alphabetic),
                "isascii" => Ok(Value::Bool(text.is_ascii())),
                "isdigit" | "isdecimal" => all(|c| c.is_ascii_digit()),
                "isnumeric" => all(char::is_numeric),
                "isspace" => all(is_space),
                "isprintable" => Ok(Value::Bool(text.chars().all(is_printable))),
                "islower" => Ok(Value::Bool(is_lower(text))),
                "isupper" => Ok(Value::Bool(is_upper(text))),
                "istitle" => {
                    let cased = text.chars().any(|c| c.is_lowercase() || c.is_uppercase());
                    Ok(Value::Bool(cased && title(text) == **text))
                }
                "isidentifier" => Ok(Value::Bool(
                    !text.starts_with(|c: char| c.is_numeric())
                        && !text.is_empty()
                        && text.chars().all(|c| c == '_' || c.is_alphanumeric()),
                )),
                _ => fail(format!("no method `{}`", short(name))),
            }
        }
    }
}
