//! The language of chat templates: Jinja with Python's methods, and what `transformers` adds.

use std::fmt::Write;
use std::time::{SystemTime, UNIX_EPOCH};

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Rest, Value, ValueKind};
use minijinja::{Environment, Error, ErrorKind, State};

use super::limits::{self, bounded};

/// The environment of all templates: blocks trimmed, nothing loaded, nothing escaped, everything limited.
pub(super) fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    let mut syntax = SyntaxConfig::builder();
    syntax.trim_blocks(true).lstrip_blocks(true);
    environment.set_syntax(syntax.build().expect("the usual delimiters"));
    environment.set_fuel(Some(limits::FUEL));
    environment.set_formatter(limits::emit);
    environment.set_unknown_method_callback(method);
    environment.add_function("raise_exception", raise_exception);
    environment.add_function("strftime_now", |format: &str| strftime(format, SystemTime::now()));
    environment.add_filter("tojson", tojson);
    environment.add_filter(limits::GUARD, bounded);
    environment.add_filter(limits::STORE, limits::storable);
    for name in ["dict", "namespace"] {
        let Some((_, original)) = environment.globals().find(|(global, _)| *global == name) else { continue };
        environment.add_function(name, move |state: &mut State, args: Rest<Value>, kwargs: Kwargs| {
            let args: Vec<Value> = args.0.into_iter().chain([Value::from(kwargs)]).collect();
            args.iter().try_for_each(|value| bounded(value).map(drop))?;
            original.call(state, &args)
        });
    }
    environment.add_filter("replace", |state: &mut State, text: &Value, from: &str, to: &str| {
        method(state, text, "replace", &[from.into(), to.into()])
    });
    environment.add_filter("indent", indent);
    environment.add_filter("join", join);
    environment.add_filter("string", |value: &Value| bounded(value).map(|value| value.to_string()));
    // Lazy lists of any length, and paddings of any width: no template needs them.
    for name in ["chain", "zip", "format", "pprint", "batch", "slice"] {
        environment.remove_filter(name);
    }
    environment
}

fn refused(reason: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidOperation, reason.into())
}

fn raise_exception(message: String) -> Result<Value, Error> {
    Err(refused(message))
}

/// Python's methods, with the size of what they make checked beforehand.
fn method(state: &mut State, value: &Value, method: &str, args: &[Value]) -> Result<Value, Error> {
    match (value.as_str(), method, args) {
        (Some(text), "replace", [from, to, ..]) => {
            let (Some(from), Some(to)) = (from.as_str(), to.as_str()) else {
                return Err(refused("replace: expected two texts"));
            };
            // An empty text is found before and after each character.
            let found = if from.is_empty() { text.chars().count() + 1 } else { text.matches(from).count() };
            limits::spend(text.len() + found.saturating_mul(to.len()))?;
        }
        (Some(separator), "join", [list]) => return joined(list, separator, None).map(Value::from),
        (Some(_), "format", _) => return Err(Error::from(ErrorKind::UnknownMethod)),
        (Some(text), _, _) => limits::spend(text.len())?,
        _ => {}
    }
    minijinja_contrib::pycompat::unknown_method_callback(state, value, method, args)
}

fn join(list: &Value, separator: Option<&str>, kwargs: Kwargs) -> Result<String, Error> {
    let attribute: Option<&str> = kwargs.get("attribute")?;
    kwargs.assert_all_used()?;
    joined(list, separator.unwrap_or(""), attribute)
}

fn joined(list: &Value, separator: &str, attribute: Option<&str>) -> Result<String, Error> {
    let mut text = String::new();
    for (i, item) in list.try_iter()?.enumerate() {
        let item = match attribute {
            Some(name) => item.get_attr(name)?,
            None => item,
        };
        limits::spend(limits::size(&item)? + separator.len())?;
        if i > 0 {
            text.push_str(separator);
        }
        write!(text, "{item}").map_err(|e| refused(e.to_string()))?;
    }
    Ok(text)
}

/// Jinja's `indent`: a width or a text before each line but the first and the empty ones.
fn indent(text: &str, width: Option<Value>, first: Option<bool>, blank: Option<bool>) -> Result<String, Error> {
    let width = match width {
        None => " ".repeat(4),
        Some(width) => match (width.as_str(), width.as_usize()) {
            (Some(text), _) => text.into(),
            (None, Some(width)) if width <= 1024 => " ".repeat(width),
            _ => return Err(refused("indent: expected a width of at most 1024")),
        },
    };
    limits::spend(text.len() + text.lines().count().saturating_mul(width.len()))?;
    let mut indented = String::new();
    for (i, line) in text.split('\n').enumerate() {
        if i > 0 {
            indented.push('\n');
        }
        let wanted = if i == 0 { first.unwrap_or(false) } else { blank.unwrap_or(false) || !line.is_empty() };
        if wanted {
            indented.push_str(&width);
        }
        indented.push_str(line);
    }
    Ok(indented)
}

/// Python's `json.dumps`, as `transformers` calls it: nothing escaped that need not be, spaces after `,` and `:`.
fn tojson(value: &Value, rest: Rest<Value>, kwargs: Kwargs) -> Result<Value, Error> {
    let argument = |i: usize, name: &str| -> Result<Option<Value>, Error> {
        let named: Option<Value> = kwargs.get(name)?;
        Ok(named.or_else(|| rest.get(i).cloned()).filter(|value| !value.is_none() && !value.is_undefined()))
    };
    let ensure_ascii = argument(0, "ensure_ascii")?.is_some_and(|v| v.is_true());
    let indent = match argument(1, "indent")? {
        None => None,
        Some(text) if text.as_str().is_some() => Some(text.to_string()),
        Some(width) => {
            let width = width.as_usize().filter(|&width| width <= 64);
            Some(" ".repeat(width.ok_or_else(|| refused("tojson: expected an indent of at most 64"))?))
        }
    };
    let (mut item, mut key) = (if indent.is_some() { "," } else { ", " }.to_string(), ": ".to_string());
    if let Some(separators) = argument(2, "separators")? {
        (item, key) = (separators.get_item_by_index(0)?.to_string(), separators.get_item_by_index(1)?.to_string());
    }
    let sort_keys = argument(3, "sort_keys")?.is_some_and(|v| v.is_true());
    kwargs.assert_all_used()?;
    bounded(value)?;
    let mut json = Json { text: String::new(), ensure_ascii, indent, item, key, sort_keys };
    json.value(value, 0)?;
    Ok(Value::from(json.text))
}

/// A JSON text in the making.
struct Json {
    text: String,
    ensure_ascii: bool,
    indent: Option<String>,
    item: String,
    key: String,
    sort_keys: bool,
}

impl Json {
    fn value(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        let before = self.text.len();
        match value.kind() {
            ValueKind::None => self.text.push_str("null"),
            ValueKind::Bool => self.text.push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number => match value.as_i64() {
                Some(number) if value.is_integer() => self.text.push_str(&number.to_string()),
                _ => match f64::try_from(value.clone()) {
                    Ok(number) if !value.is_integer() => self.text.push_str(&python_float(number)),
                    _ => self.text.push_str(&value.to_string()),
                },
            },
            ValueKind::String => self.string(value.as_str().unwrap_or_default()),
            ValueKind::Seq | ValueKind::Iterable => {
                let items: Vec<Value> = value.try_iter()?.collect();
                self.list('[', ']', &items, depth, |json, item| json.value(item, depth + 1))?;
            }
            ValueKind::Map => {
                let mut keys: Vec<Value> = value.try_iter()?.collect();
                if self.sort_keys {
                    keys.sort();
                }
                self.list('{', '}', &keys, depth, |json, key| {
                    json.string(&key.to_string());
                    json.text.push_str(&json.key.clone());
                    json.value(&value.get_item(key)?, depth + 1)
                })?;
            }
            kind => return Err(refused(format!("tojson: expected what JSON knows, found {kind}"))),
        }
        limits::spend(self.text.len() - before)
    }

    fn list(
        &mut self,
        open: char,
        close: char,
        items: &[Value],
        depth: usize,
        mut write: impl FnMut(&mut Self, &Value) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.text.push(open);
        for (i, item) in items.iter().enumerate() {
            if i > 0 {
                self.text.push_str(&self.item.clone());
            }
            self.new_line(depth + 1);
            write(self, item)?;
        }
        if !items.is_empty() {
            self.new_line(depth);
        }
        self.text.push(close);
        Ok(())
    }

    fn new_line(&mut self, depth: usize) {
        if let Some(indent) = &self.indent {
            self.text.push('\n');
            self.text.push_str(&indent.repeat(depth));
        }
    }

    fn string(&mut self, string: &str) {
        self.text.push('"');
        for c in string.chars() {
            match c {
                '"' => self.text.push_str("\\\""),
                '\\' => self.text.push_str("\\\\"),
                '\n' => self.text.push_str("\\n"),
                '\r' => self.text.push_str("\\r"),
                '\t' => self.text.push_str("\\t"),
                '\u{8}' => self.text.push_str("\\b"),
                '\u{c}' => self.text.push_str("\\f"),
                c if c < ' ' || self.ensure_ascii && !c.is_ascii() => {
                    for unit in c.encode_utf16(&mut [0; 2]) {
                        self.text.push_str(&format!("\\u{unit:04x}"));
                    }
                }
                c => self.text.push(c),
            }
        }
        self.text.push('"');
    }
}

/// Python's `repr` of a float.
fn python_float(x: f64) -> String {
    if !x.is_finite() {
        return if x.is_nan() {
            "NaN"
        } else if x > 0.0 {
            "Infinity"
        } else {
            "-Infinity"
        }
        .into();
    }
    if x != 0.0 && !(1e-4..1e16).contains(&x.abs()) {
        let text = format!("{x:e}");
        let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let (sign, exponent) = exponent.strip_prefix('-').map_or(('+', exponent), |e| ('-', e));
        return format!("{digits}e{sign}{exponent:0>2}");
    }
    format!("{x:?}")
}

/// `strftime` of a time in UTC. (A template asks for the date of today, at most.)
pub(super) fn strftime(format: &str, time: SystemTime) -> Result<String, Error> {
    const DAYS: [&str; 7] = ["Thursday", "Friday", "Saturday", "Sunday", "Monday", "Tuesday", "Wednesday"];
    const MONTHS: [&str; 12] = [
        "January",
        "February",
        "March",
        "April",
        "May",
        "June",
        "July",
        "August",
        "September",
        "October",
        "November",
        "December",
    ];
    let seconds = time.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    let (days, of_day) = (seconds / 86_400, seconds % 86_400);
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    let (year, month, day, of_year) = civil(days);
    let (weekday, month_name) = (DAYS[(days % 7) as usize], MONTHS[month - 1]);
    let hour12 = (hour + 11) % 12 + 1;
    let mut text = String::new();
    let mut rest = format.chars();
    while let Some(c) = rest.next() {
        if c != '%' {
            text.push(c);
            continue;
        }
        let mut letter = rest.next();
        let bare = letter == Some('-');
        if bare {
            letter = rest.next();
        }
        let number = |value: u64, width: usize| if bare { value.to_string() } else { format!("{value:0width$}") };
        text += &match letter {
            Some('Y') => year.to_string(),
            Some('y') => number(year % 100, 2),
            Some('m') => number(month as u64, 2),
            Some('d') => number(day, 2),
            Some('e') => format!("{day:>2}"),
            Some('j') => number(of_year + 1, 3),
            Some('H') => number(hour, 2),
            Some('I') => number(hour12, 2),
            Some('M') => number(minute, 2),
            Some('S') => number(second, 2),
            Some('p') => if hour < 12 { "AM" } else { "PM" }.into(),
            Some('A') => weekday.into(),
            Some('a') => weekday[..3].into(),
            Some('B') => month_name.into(),
            Some('b' | 'h') => month_name[..3].into(),
            Some('F') => format!("{year}-{month:02}-{day:02}"),
            Some('T') => format!("{hour:02}:{minute:02}:{second:02}"),
            Some('Z') => "UTC".into(),
            Some('z') => "+0000".into(),
            Some('%') => "%".into(),
            other => return Err(refused(format!("strftime_now: %{} is not known", other.unwrap_or(' ')))),
        };
    }
    Ok(text)
}

/// Year, month (from 1), day (from 1) and day of the year (from 0) of a day since 1970.
fn civil(mut days: u64) -> (u64, usize, u64, u64) {
    let leap = |year: u64| year.is_multiple_of(4) && !year.is_multiple_of(100) || year.is_multiple_of(400);
    // Four centuries have 146 097 days.
    let mut year = 1970 + days / 146_097 * 400;
    days %= 146_097;
    while days >= 365 + u64::from(leap(year)) {
        days -= 365 + u64::from(leap(year));
        year += 1;
    }
    let of_year = days;
    for month in 1..12 {
        let len = match month {
            2 => 28 + u64::from(leap(year)),
            4 | 6 | 9 | 11 => 30,
            _ => 31,
        };
        if days < len {
            return (year, month, days + 1, of_year);
        }
        days -= len;
    }
    (year, 12, days + 1, of_year)
}
