//! Filters of Jinja, except those for HTML and terminals (`urlize`, `xmlattr`, `filesizeformat`,
//! `wordwrap`, `pprint`) and `random`.

use std::sync::Arc;

use super::lexer::is_space;
use super::limits::{Result, Text, fail};
use super::runtime::{self, Args, Runtime};
use super::value::{Kind, Value, short};
use super::{arithmetic, format, json, methods, names, predicates};

fn int(name: &str, value: Option<Value>, default: i128) -> Result<i128> {
    match value {
        None | Some(Value::None) => Ok(default),
        Some(value) => value
            .as_int()
            .map_or_else(|| fail(format!("{name}: expected an integer, found `{}`", value.type_name())), Ok),
    }
}

fn truth(value: &Option<Value>) -> bool {
    value.as_ref().is_some_and(Value::is_true)
}

/// Applies a filter to a value.
pub(super) fn apply(runtime: &Runtime<'_>, name: &str, value: &Value, args: Args) -> Result<Value> {
    let budget = runtime.budget;
    let text = || -> Result<Arc<str>> {
        let text = value.to_text(budget)?;
        budget.read(text.len() * 4)?;
        Ok(text)
    };
    match name {
        "default" | "d" => {
            let [default, boolean] = args.bind(name, ["default_value", "boolean"], 0)?;
            let missing = matches!(value, Value::Undefined(_)) || truth(&boolean) && !value.is_true();
            if missing { default.map_or_else(|| Value::text(budget, ""), Ok) } else { Ok(value.clone()) }
        }
        "map" => map(runtime, value, args),
        "select" | "reject" | "selectattr" | "rejectattr" => select(runtime, name, value, args),
        "tojson" => json::tojson(runtime, value, args),
        "format" => {
            let text = text()?;
            let values = match (args.positional.is_empty(), args.named.is_empty()) {
                (_, true) => Value::seq(budget, Kind::Tuple, args.positional)?,
                (true, false) => {
                    let named = args.named.into_iter().map(|(name, value)| (Value::Str(name), value));
                    Value::dict(budget, named.collect())?
                }
                _ => return fail("format: expected positional or keyword arguments, found both"),
            };
            format::printf(budget, &text, &values)
        }
        "length" | "count" => {
            args.bind(name, [], 0)?;
            Ok(Value::Int(value.len(budget)? as i128))
        }
        "list" => {
            args.bind(name, [], 0)?;
            Value::list(budget, value.items(budget)?)
        }
        "items" => {
            args.bind(name, [], 0)?;
            let Value::Dict(dict) = value else {
                return match value {
                    Value::Undefined(_) => Value::seq(budget, Kind::Generator, Vec::new()),
                    _ => fail(format!("items: expected a dict, found `{}`", value.type_name())),
                };
            };
            Value::seq(budget, Kind::Generator, pairs(runtime, &dict.entries)?)
        }
        "string" => {
            args.bind(name, [], 0)?;
            Ok(Value::Str(value.to_text(budget)?))
        }
        "safe" => {
            args.bind(name, [], 0)?;
            Ok(Value::Str(value.to_text(budget)?))
        }
        "trim" => {
            let [chars] = args.bind(name, ["chars"], 0)?;
            methods::stripped(budget, &text()?, chars, true, true)
        }
        "upper" | "lower" | "capitalize" | "title" | "striptags" | "urlencode" => {
            args.bind(name, [], 0)?;
            let text = text()?;
            match name {
                "upper" => Value::text(budget, &text.to_uppercase()),
                "lower" => Value::text(budget, &text.to_lowercase()),
                "capitalize" => Value::text(budget, &methods::capitalized(&text)),
                "title" => title(runtime, &text),
                "striptags" => striptags(runtime, &text),
                _ => urlencode(runtime, &text),
            }
        }
        "escape" | "e" | "forceescape" => {
            args.bind(name, [], 0)?;
            let mut out = Text::new(budget);
            for c in text()?.chars() {
                match c {
                    '&' => out.push("&amp;")?,
                    '<' => out.push("&lt;")?,
                    '>' => out.push("&gt;")?,
                    '\'' => out.push("&#39;")?,
                    '"' => out.push("&#34;")?,
                    c => out.push_char(c)?,
                }
            }
            Value::text(budget, &out.into_string())
        }
        "replace" => {
            let [from, to, count] = args.bind(name, ["old", "new", "count"], 2)?;
            let (from, to) = (from.unwrap_or(Value::None).to_text(budget)?, to.unwrap_or(Value::None).to_text(budget)?);
            methods::replaced(budget, &text()?, &from, &to, int(name, count, -1)?)
        }
        "center" => {
            let [width] = args.bind(name, ["width"], 0)?;
            methods::padded(budget, &text()?, int(name, width, 80)?, ' ', '^')
        }
        "indent" => {
            let [width, first, blank] = args.bind(name, ["width", "first", "blank"], 0)?;
            indent(runtime, &text()?, width, truth(&first), truth(&blank))
        }
        "wordcount" => {
            args.bind(name, [], 0)?;
            let text = text()?;
            let word = |c: char| c == '_' || c.is_alphanumeric();
            Ok(Value::Int(text.split(|c| !word(c)).filter(|word| !word.is_empty()).count() as i128))
        }
        "truncate" => {
            let [length, kill, end, leeway] = args.bind(name, ["length", "killwords", "end", "leeway"], 0)?;
            let end = end.map_or_else(|| Ok("...".into()), |end| end.to_text(budget))?;
            let (length, leeway) = (int(name, length, 255)?, int(name, leeway, 5)?);
            truncate(runtime, &text()?, length, truth(&kill), &end, leeway)
        }
        "int" | "float" => number(runtime, name, value, args),
        "abs" => {
            args.bind(name, [], 0)?;
            value.defined()?;
            match (value, value.as_int()) {
                (_, Some(number)) if number < 0 => arithmetic::negative(value),
                (Value::Float(number), _) => Ok(Value::Float(number.abs())),
                (_, Some(_)) => arithmetic::positive(value),
                _ => fail(format!("abs: expected a number, found `{}`", value.type_name())),
            }
        }
        "round" => {
            let [precision, method] = args.bind(name, ["precision", "method"], 0)?;
            value.defined()?;
            let Some(number) = value.as_float() else {
                return fail(format!("round: expected a number, found `{}`", value.type_name()));
            };
            let method = method.map_or_else(|| Ok("common".into()), |method| method.to_text(budget))?;
            let rounded = arithmetic::round(number, int(name, precision, 0)?, &method)?;
            match (value, &*method) {
                (Value::Int(number), "common") if rounded == *number as f64 => Ok(Value::Int(*number)),
                _ => Ok(Value::Float(rounded)),
            }
        }
        "attr" => {
            let [attribute] = args.bind(name, ["name"], 1)?;
            let attribute = attribute.unwrap_or(Value::None).to_text(budget)?;
            match value {
                // Attributes only, not the keys of a dictionary.
                Value::Dict(_) if !names::has_method(value, &attribute) => Ok(Value::Undefined(Some(attribute))),
                _ => runtime.attribute(value, &attribute),
            }
        }
        _ => of_list(runtime, name, value, args),
    }
}

/// Filters of lists.
fn of_list(runtime: &Runtime<'_>, name: &str, value: &Value, args: Args) -> Result<Value> {
    let budget = runtime.budget;
    match name {
        "first" => {
            args.bind(name, [], 0)?;
            Ok(match value {
                Value::Seq(seq) => seq.next().cloned(),
                Value::Str(text) => {
                    let first = text.chars().next();
                    first.map(|c| Value::text(budget, c.encode_utf8(&mut [0; 4]))).transpose()?
                }
                _ => value.items(budget)?.into_iter().next(),
            }
            .unwrap_or(Value::Undefined(None)))
        }
        "last" => {
            args.bind(name, [], 0)?;
            match value {
                Value::Seq(seq) if seq.kind == Kind::Generator => fail("last: a generator has no last item"),
                Value::Seq(_) | Value::Str(_) => {
                    Ok(runtime::item_at(budget, value, -1)?.unwrap_or(Value::Undefined(None)))
                }
                _ => Ok(value.items(budget)?.pop().unwrap_or(Value::Undefined(None))),
            }
        }
        "join" => {
            let [separator, attribute] = args.bind(name, ["d", "attribute"], 0)?;
            let separator = separator.map_or_else(|| Ok("".into()), |separator| separator.to_text(budget))?;
            let mut out = Text::new(budget);
            for (i, item) in value.items(budget)?.into_iter().enumerate() {
                if i > 0 {
                    out.push(&separator)?;
                }
                attribute_of(runtime, &item, &attribute)?.write(&mut out)?;
            }
            Value::text(budget, &out.into_string())
        }
        "reverse" => {
            args.bind(name, [], 0)?;
            if let Value::Str(text) = value {
                budget.read(text.len() * 2)?;
                budget.make(text.len())?;
                return Value::text(budget, &text.chars().rev().collect::<String>());
            }
            let mut items = value.items(budget)?;
            items.reverse();
            Value::seq(budget, Kind::Generator, items)
        }
        "sum" => {
            let [attribute, start] = args.bind(name, ["attribute", "start"], 0)?;
            let mut sum = start.unwrap_or(Value::Int(0));
            for item in value.items(budget)? {
                budget.step()?;
                let item = attribute_of(runtime, &item, &attribute)?;
                if matches!(sum, Value::Str(_)) {
                    return fail("sum: cannot add strings, use `join`");
                }
                sum = arithmetic::apply(runtime.budget, super::parser::Operator::Add, &sum, &item)?;
            }
            Ok(sum)
        }
        "batch" | "slice" => {
            let names = [if name == "batch" { "linecount" } else { "slices" }, "fill_with"];
            let [size, fill] = args.bind(name, names, 1)?;
            let Some(size) = usize::try_from(int(name, size, 0)?).ok().filter(|&size| size > 0) else {
                return fail(format!("{name}: expected a size of at least 1"));
            };
            let items = value.items(budget)?;
            let parts = if name == "batch" { batches(&items, size) } else { slices(runtime, &items, size)? };
            let longest = if name == "batch" { size } else { items.len().div_ceil(size) };
            let mut all = Vec::new();
            for part in parts {
                let mut part = part.to_vec();
                let fills = name == "batch" || part.len() < longest;
                if let Some(fill) = fill.as_ref().filter(|fill| fills && !matches!(fill, Value::None)) {
                    budget.make(longest.saturating_mul(size_of::<Value>()))?;
                    budget.items(longest)?;
                    part.resize(longest, fill.clone());
                }
                all.push(Value::list(budget, part)?);
            }
            Value::seq(budget, Kind::Generator, all)
        }
        "dictsort" => {
            let [case, by, reverse] = args.bind(name, ["case_sensitive", "by", "reverse"], 0)?;
            let Value::Dict(dict) = value else {
                return fail(format!("dictsort: expected a dict, found `{}`", value.type_name()));
            };
            let by = by.map_or_else(|| Ok("key".into()), |by| by.to_text(budget))?;
            if !matches!(&*by, "key" | "value") {
                return fail("dictsort: expected `key` or `value`");
            }
            let mut keyed = Vec::new();
            for (pair, (key, value)) in pairs(runtime, &dict.entries)?.into_iter().zip(&dict.entries) {
                let key = if &*by == "key" { key } else { value };
                keyed.push((folded(runtime, key.clone(), truth(&case))?, pair));
            }
            let sorted = sorted(runtime, keyed, truth(&reverse))?;
            Value::list(budget, sorted.into_iter().map(|(_, pair)| pair).collect())
        }
        "sort" => {
            let [reverse, case, attribute] = args.bind(name, ["reverse", "case_sensitive", "attribute"], 0)?;
            let mut keyed = Vec::new();
            let attributes = match &attribute {
                Some(Value::Str(text)) if text.contains(',') => {
                    let parts: Result<Vec<Value>> = text.split(',').map(|part| Value::text(budget, part)).collect();
                    parts?.into_iter().map(Some).collect()
                }
                _ => vec![attribute],
            };
            for item in value.items(budget)? {
                let mut keys = Vec::new();
                for attribute in &attributes {
                    budget.step()?;
                    keys.push(folded(runtime, attribute_of(runtime, &item, attribute)?, truth(&case))?);
                }
                keyed.push((Value::list(budget, keys)?, item));
            }
            let sorted = sorted(runtime, keyed, truth(&reverse))?;
            Value::list(budget, sorted.into_iter().map(|(_, item)| item).collect())
        }
        "min" | "max" => {
            let [case, attribute] = args.bind(name, ["case_sensitive", "attribute"], 0)?;
            let mut best: Option<(Value, Value)> = None;
            for item in value.items(budget)? {
                budget.step()?;
                let key = folded(runtime, attribute_of(runtime, &item, &attribute)?, truth(&case))?;
                let better = match &best {
                    None => true,
                    Some((other, _)) => match key.compare(budget, other)? {
                        Some(order) => {
                            if name == "min" {
                                order.is_lt()
                            } else {
                                order.is_gt()
                            }
                        }
                        None => false,
                    },
                };
                if better {
                    best = Some((key, item));
                }
            }
            Ok(best.map_or(Value::Undefined(None), |(_, item)| item))
        }
        "unique" => {
            let [case, attribute] = args.bind(name, ["case_sensitive", "attribute"], 0)?;
            let mut seen: Vec<Value> = Vec::new();
            let mut all = Vec::new();
            for item in value.items(budget)? {
                budget.step()?;
                let key = folded(runtime, attribute_of(runtime, &item, &attribute)?, truth(&case))?;
                let mut new = true;
                for other in &seen {
                    budget.items(1)?;
                    new = new && !other.equals(budget, &key)?;
                }
                if new {
                    budget.make(2 * size_of::<Value>())?;
                    seen.push(key);
                    all.push(item);
                }
            }
            Value::seq(budget, Kind::Generator, all)
        }
        "groupby" => {
            let names = ["attribute", "default", "case_sensitive"];
            let [attribute, default, case] = args.bind(name, names, 1)?;
            let mut keyed = Vec::new();
            for item in value.items(budget)? {
                budget.step()?;
                let found = attribute_of(runtime, &item, &attribute)?;
                let key = if matches!(found, Value::Undefined(_)) { default.clone().unwrap_or(found) } else { found };
                keyed.push((folded(runtime, key, truth(&case))?, item));
            }
            let mut groups: Vec<(Value, Vec<Value>)> = Vec::new();
            for (key, item) in sorted(runtime, keyed, false)? {
                budget.make(4 * size_of::<Value>())?;
                match groups.last_mut() {
                    Some((last, items)) if last.equals(budget, &key)? => items.push(item),
                    _ => groups.push((key, vec![item])),
                }
            }
            let mut all = Vec::new();
            for (key, items) in groups {
                // The group has the value of its first item, in the item's case.
                let found = attribute_of(runtime, &items[0], &attribute)?;
                let key = if matches!(found, Value::Undefined(_)) { key } else { found };
                let items = Value::list(budget, items)?;
                all.push(Value::seq(budget, Kind::Group, vec![key, items])?);
            }
            Value::list(budget, all)
        }
        _ => fail(format!("no filter named `{}`", short(name))),
    }
}

/// Returns keys and values as tuples.
fn pairs(runtime: &Runtime<'_>, entries: &[(Value, Value)]) -> Result<Vec<Value>> {
    let pair =
        |(key, value): &(Value, Value)| Value::seq(runtime.budget, Kind::Tuple, vec![key.clone(), value.clone()]);
    runtime.budget.make(size_of_val(entries) / 2)?;
    entries.iter().map(pair).collect()
}

/// Returns the attribute of an item that a filter's argument names: `a.b.0`, a number, or the item
/// itself.
fn attribute_of(runtime: &Runtime<'_>, item: &Value, attribute: &Option<Value>) -> Result<Value> {
    let path = match attribute {
        None | Some(Value::None) => return Ok(item.clone()),
        Some(Value::Str(path)) => path,
        Some(key) => return runtime.item(item, key),
    };
    let mut value = item.clone();
    for part in path.split('.') {
        runtime.budget.step()?;
        let key = match part.parse::<i128>() {
            Ok(index) => Value::Int(index),
            Err(_) => Value::text(runtime.budget, part)?,
        };
        value = runtime.item(&value, &key)?;
    }
    Ok(value)
}

/// Returns a sort key: strings are lower-cased unless `case_sensitive`.
fn folded(runtime: &Runtime<'_>, key: Value, case_sensitive: bool) -> Result<Value> {
    match &key {
        Value::Str(text) if !case_sensitive => {
            runtime.budget.read(text.len() * 4)?;
            Value::text(runtime.budget, &text.to_lowercase())
        }
        _ => Ok(key),
    }
}

/// Stable sort by keys whose comparison may fail.
fn sorted(runtime: &Runtime<'_>, all: Vec<(Value, Value)>, reverse: bool) -> Result<Vec<(Value, Value)>> {
    let mut from = all;
    let mut width = 1;
    // A bottom-up merge sort: the standard library's sort may panic without a total order, for
    // example with NaN.
    while width < from.len() {
        runtime.budget.make(from.len() * 2 * size_of::<Value>())?;
        let mut merged = Vec::with_capacity(from.len());
        for pair in from.chunks(2 * width) {
            let (left, right) = pair.split_at(width.min(pair.len()));
            let (mut i, mut j) = (0, 0);
            while i < left.len() || j < right.len() {
                runtime.budget.items(1)?;
                let take_right = match (left.get(i), right.get(j)) {
                    (Some((a, _)), Some((b, _))) => {
                        let (a, b) = if reverse { (b, a) } else { (a, b) };
                        let order = if reverse { a.compare(runtime.budget, b)? } else { b.compare(runtime.budget, a)? };
                        order.is_some_and(|order| if reverse { order.is_gt() } else { order.is_lt() })
                    }
                    (None, _) => true,
                    _ => false,
                };
                if take_right {
                    merged.push(right[j].clone());
                    j += 1;
                } else {
                    merged.push(left[i].clone());
                    i += 1;
                }
            }
        }
        from = merged;
        width *= 2;
    }
    Ok(from)
}

/// `map('upper')`, `map(attribute='name', default=…)`.
fn map(runtime: &Runtime<'_>, value: &Value, args: Args) -> Result<Value> {
    let budget = runtime.budget;
    let Args { mut positional, named } = args;
    let mut all = Vec::new();
    if positional.is_empty() {
        let args = Args { positional, named };
        let [attribute, default] = args.bind("map", ["attribute", "default"], 1)?;
        for item in value.items(budget)? {
            let found = attribute_of(runtime, &item, &attribute)?;
            all.push(if matches!(found, Value::Undefined(_)) { default.clone().unwrap_or(found) } else { found });
        }
    } else {
        let name = positional.remove(0).to_text(budget)?;
        for item in value.items(budget)? {
            budget.step()?;
            budget.make((positional.len() + named.len()) * 64)?;
            let args = Args { positional: positional.clone(), named: named.clone() };
            all.push(budget.frame(|| apply(runtime, &name, &item, args))?);
        }
    }
    Value::seq(budget, Kind::Generator, all)
}

/// `select('odd')`, `selectattr('role', 'equalto', 'user')` and their opposites.
fn select(runtime: &Runtime<'_>, name: &str, value: &Value, args: Args) -> Result<Value> {
    let budget = runtime.budget;
    let Args { positional, named } = args;
    let mut positional = positional.into_iter();
    let attribute = if name.ends_with("attr") {
        let Some(attribute) = positional.next() else { return fail(format!("{name}: expected an attribute")) };
        Some(attribute)
    } else {
        None
    };
    let test = positional.next().map(|test| test.to_text(budget)).transpose()?;
    let wanted = name.starts_with("select");
    let mut all = Vec::new();
    for item in value.items(budget)? {
        budget.step()?;
        let of_item = attribute_of(runtime, &item, &attribute)?;
        let holds = match &test {
            None => of_item.is_true(),
            Some(test) => {
                budget.make((positional.len() + named.len()) * 64)?;
                let args = Args { positional: positional.as_slice().to_vec(), named: named.clone() };
                predicates::apply(runtime, test, &of_item, args)?
            }
        };
        if holds == wanted {
            all.push(item);
        }
    }
    Value::seq(budget, Kind::Generator, all)
}

fn batches(items: &[Value], size: usize) -> Vec<&[Value]> {
    items.chunks(size).collect()
}

/// Distributes items over columns; the first ones are longer by one.
fn slices<'v>(runtime: &Runtime<'_>, items: &'v [Value], columns: usize) -> Result<Vec<&'v [Value]>> {
    runtime.budget.make(columns.saturating_mul(3 * size_of::<Value>()))?;
    let (each, more) = (items.len() / columns, items.len() % columns);
    let mut rest = items;
    Ok((0..columns)
        .map(|column| {
            let (part, others) = rest.split_at(each + usize::from(column < more));
            rest = others;
            part
        })
        .collect())
}

/// Jinja's `title`: capitalises after white space, hyphens and opening brackets.
fn title(runtime: &Runtime<'_>, text: &str) -> Result<Value> {
    let mut out = Text::new(runtime.budget);
    let mut starts = true;
    for c in text.chars() {
        let separates = is_space(c) || matches!(c, '-' | '(' | '{' | '[' | '<');
        if starts && !separates {
            c.to_uppercase().try_for_each(|c| out.push_char(c))?;
        } else {
            c.to_lowercase().try_for_each(|c| out.push_char(c))?;
        }
        starts = separates;
    }
    Value::text(runtime.budget, &out.into_string())
}

/// Removes tags and comments, and collapses white space.
fn striptags(runtime: &Runtime<'_>, text: &str) -> Result<Value> {
    let mut out = Text::new(runtime.budget);
    let mut plain = Text::new(runtime.budget);
    let mut rest = text;
    let mut comments = true;
    while let Some(at) = rest.find('<') {
        let comment = comments && rest[at..].starts_with("<!--");
        let end =
            if comment { rest[at..].find("-->").map(|end| end + 3) } else { rest[at..].find('>').map(|end| end + 1) };
        let Some(end) = end else {
            if comment {
                comments = false;
                continue;
            }
            break;
        };
        plain.push(&rest[..at])?;
        rest = &rest[at + end..];
    }
    plain.push(rest)?;
    for (i, word) in plain.into_string().split(is_space).filter(|word| !word.is_empty()).enumerate() {
        out.push(if i > 0 { " " } else { "" })?;
        out.push(word)?;
    }
    Value::text(runtime.budget, &out.into_string())
}

fn urlencode(runtime: &Runtime<'_>, text: &str) -> Result<Value> {
    let mut out = Text::new(runtime.budget);
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"_.-~/".contains(&byte) {
            out.push_char(byte.into())?;
        } else {
            out.push(&format!("%{byte:02X}"))?;
        }
    }
    Value::text(runtime.budget, &out.into_string())
}

/// Indents each line, except for the first and empty ones, by a width or a string.
fn indent(runtime: &Runtime<'_>, text: &str, width: Option<Value>, first: bool, blank: bool) -> Result<Value> {
    let width: Arc<str> = match width {
        None => "    ".into(),
        Some(Value::Str(text)) => text,
        Some(width) => {
            let width = usize::try_from(int("indent", Some(width), 4)?).unwrap_or(0);
            runtime.budget.make(width)?;
            " ".repeat(width).into()
        }
    };
    let mut out = Text::new(runtime.budget);
    for (i, line) in text.split('\n').enumerate() {
        out.push(if i > 0 { "\n" } else { "" })?;
        if if i == 0 { first } else { blank || !line.is_empty() } {
            out.push(&width)?;
        }
        out.push(line)?;
    }
    Value::text(runtime.budget, &out.into_string())
}

fn truncate(
    runtime: &Runtime<'_>,
    text: &str,
    length: i128,
    kill_words: bool,
    end: &str,
    leeway: i128,
) -> Result<Value> {
    let end_len = end.chars().count() as i128;
    if length < end_len || leeway < 0 {
        return fail(format!("truncate: expected a length of at least {end_len} and a leeway of at least 0"));
    }
    if text.chars().count() as i128 <= length.saturating_add(leeway) {
        return Value::text(runtime.budget, text);
    }
    let kept = (length - end_len) as usize;
    let mut kept = text.char_indices().nth(kept).map_or(text, |(at, _)| &text[..at]);
    if !kill_words {
        kept = kept.rfind(' ').map_or(kept, |at| &kept[..at]);
    }
    runtime.budget.make(kept.len() + end.len())?;
    Value::text(runtime.budget, &[kept, end].concat())
}

/// The filters `int` and `float`, with a default for values that are not numbers.
fn number(runtime: &Runtime<'_>, name: &str, value: &Value, args: Args) -> Result<Value> {
    value.defined()?;
    if name == "float" {
        let [default] = args.bind(name, ["default"], 0)?;
        let number = value.as_float().or_else(|| value.as_str().and_then(|text| python_float(runtime, text)));
        return Ok(number.map(Value::Float).unwrap_or(default.unwrap_or(Value::Float(0.0))));
    }
    let [default, base] = args.bind(name, ["default", "base"], 0)?;
    let base = int(name, base, 10)?;
    let Some(base) = u32::try_from(base).ok().filter(|base| (2..=36).contains(base)) else {
        return fail("int: expected a base between 2 and 36");
    };
    let whole = |number: f64| (number.abs() < 1e38).then_some(number as i128);
    let number = match value {
        Value::Str(text) => {
            runtime.budget.read(text.len())?;
            let plain = text.trim_matches(is_space).replace('_', "");
            let lower = plain.to_ascii_lowercase();
            let prefix = match base {
                16 => "0x",
                8 => "0o",
                2 => "0b",
                _ => "",
            };
            let digits = lower.strip_prefix(prefix).unwrap_or(&lower);
            let exact = i128::from_str_radix(digits, base).ok();
            exact.or_else(|| python_float(runtime, text).and_then(whole))
        }
        Value::Float(number) => whole(*number),
        _ => value.as_int(),
    };
    Ok(number.map(Value::Int).unwrap_or(default.unwrap_or(Value::Int(0))))
}

fn python_float(runtime: &Runtime<'_>, text: &str) -> Option<f64> {
    runtime.budget.read(text.len()).ok()?;
    text.trim_matches(is_space).replace('_', "").parse().ok()
}
