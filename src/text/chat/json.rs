//! The filter `tojson`: Python's `json.dumps`, with the arguments that `transformers` uses.

use super::limits::{Result, Text, fail};
use super::runtime::{Args, Runtime};
use super::value::{Kind, Value, float_repr};

/// Without unnecessary escapes, with spaces after `,` and `:`.
pub(super) fn tojson(runtime: &Runtime<'_>, value: &Value, args: Args) -> Result<Value> {
    let names = ["ensure_ascii", "indent", "separators", "sort_keys"];
    let [ensure_ascii, indent, separators, sort_keys] = args.bind("tojson", names, 0)?;
    let truth = |value: Option<Value>| value.is_some_and(|value| value.is_true());
    let indent = match indent {
        None | Some(Value::None) => None,
        Some(Value::Str(text)) => Some(text.to_string()),
        Some(width) => match width.as_int() {
            Some(width) if width <= 1024 => Some(" ".repeat(usize::try_from(width).unwrap_or(0))),
            _ => return fail("tojson: expected an indent of at most 1024"),
        },
    };
    let mut between = [if indent.is_some() { "," } else { ", " }.to_string(), ": ".to_string()];
    match separators {
        None | Some(Value::None) => {}
        Some(separators) => match &separators.items(runtime.budget)?[..] {
            [Value::Str(item), Value::Str(key)] => between = [item.to_string(), key.to_string()],
            _ => return fail("tojson: expected two strings as separators"),
        },
    }
    let [item, key] = between;
    let out = Text::new(runtime.budget);
    let mut json = Json { out, ensure_ascii: truth(ensure_ascii), indent, item, key, sort_keys: truth(sort_keys) };
    json.value(value, 0)?;
    Value::text(runtime.budget, &json.out.into_string())
}

/// Writes JSON.
struct Json<'b> {
    out: Text<'b>,
    ensure_ascii: bool,
    indent: Option<String>,
    item: String,
    key: String,
    sort_keys: bool,
}

impl Json<'_> {
    fn value(&mut self, value: &Value, depth: usize) -> Result<()> {
        self.out.budget.items(1)?;
        match value {
            Value::None => self.out.push("null"),
            Value::Bool(value) => self.out.push(if *value { "true" } else { "false" }),
            Value::Int(number) => self.out.push(&number.to_string()),
            Value::Float(number) => self.out.push(&float(*number)),
            Value::Str(text) => self.string(text),
            Value::Seq(seq) if matches!(seq.kind, Kind::List | Kind::Tuple | Kind::Group) => {
                self.list(['[', ']'], &seq.items, depth, |json, item| json.value(item, depth + 1))
            }
            Value::Dict(dict) => {
                let mut entries: Vec<&(Value, Value)> = Vec::new();
                self.out.budget.make(dict.entries.len() * 8)?;
                entries.extend(&dict.entries);
                if self.sort_keys {
                    let mut error = Ok(());
                    let budget = self.out.budget;
                    let texts = entries.iter().all(|(key, _)| key.as_str().is_some());
                    if !texts && entries.len() > 1 {
                        return fail("tojson: expected strings as keys to sort");
                    }
                    entries.sort_by(|(a, _), (b, _)| {
                        if error.is_ok() {
                            error = budget.read(a.as_str().map_or(0, str::len));
                        }
                        a.as_str().cmp(&b.as_str())
                    });
                    error?;
                }
                self.list(['{', '}'], &entries, depth, |json, (key, value)| {
                    match key {
                        Value::Str(key) => json.string(key)?,
                        Value::None => json.string("null")?,
                        Value::Bool(key) => json.string(if *key { "true" } else { "false" })?,
                        Value::Int(key) => json.string(&key.to_string())?,
                        Value::Float(key) => json.string(&float(*key))?,
                        _ => return fail(format!("tojson: `{}` cannot be a key", key.type_name())),
                    }
                    let between = json.key.clone();
                    json.out.push(&between)?;
                    json.value(value, depth + 1)
                })
            }
            _ => {
                value.defined()?;
                fail(format!("tojson: `{}` cannot be converted to JSON", value.type_name()))
            }
        }
    }

    fn list<T>(
        &mut self,
        [open, close]: [char; 2],
        items: &[T],
        depth: usize,
        mut write: impl FnMut(&mut Self, &T) -> Result<()>,
    ) -> Result<()> {
        self.out.push_char(open)?;
        for (i, item) in items.iter().enumerate() {
            if i > 0 {
                let between = self.item.clone();
                self.out.push(&between)?;
            }
            self.new_line(depth + 1)?;
            write(self, item)?;
        }
        if !items.is_empty() {
            self.new_line(depth)?;
        }
        self.out.push_char(close)
    }

    fn new_line(&mut self, depth: usize) -> Result<()> {
        let Some(indent) = &self.indent else { return Ok(()) };
        self.out.push("\n")?;
        (0..depth).try_for_each(|_| self.out.push(indent))
    }

    fn string(&mut self, string: &str) -> Result<()> {
        self.out.budget.read(string.len())?;
        self.out.push_char('"')?;
        for c in string.chars() {
            match c {
                '"' => self.out.push("\\\"")?,
                '\\' => self.out.push("\\\\")?,
                '\n' => self.out.push("\\n")?,
                '\r' => self.out.push("\\r")?,
                '\t' => self.out.push("\\t")?,
                '\u{8}' => self.out.push("\\b")?,
                '\u{c}' => self.out.push("\\f")?,
                c if c < ' ' || self.ensure_ascii && !matches!(c, ' '..='~') => {
                    for unit in c.encode_utf16(&mut [0; 2]) {
                        self.out.push(&format!("\\u{unit:04x}"))?;
                    }
                }
                c => self.out.push_char(c)?,
            }
        }
        self.out.push_char('"')
    }
}

/// Formats a float as JavaScript does, except for Python's names of infinity and NaN.
fn float(number: f64) -> String {
    match number {
        f64::INFINITY => "Infinity".into(),
        f64::NEG_INFINITY => "-Infinity".into(),
        number if number.is_nan() => "NaN".into(),
        number => float_repr(number),
    }
}
