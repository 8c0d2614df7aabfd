//! Values of a template, with Python's semantics.

use std::cell::{Cell, RefCell};
use std::cmp::Ordering;
use std::rc::Rc;
use std::sync::Arc;

use serde_json::Value as Json;

use super::limits::{self, Budget, Result, Text, fail};
use super::parser::{self, Literal};

/// A value. Lists and dictionaries are immutable, as in Jinja's sandbox.
#[derive(Clone)]
pub(super) enum Value {
    /// A missing name or attribute.
    Undefined(Option<Arc<str>>),
    None,
    Bool(bool),
    Int(i128),
    Float(f64),
    Str(Arc<str>),
    Seq(Rc<Seq>),
    Dict(Rc<Dict>),
    Object(Rc<Object>),
}

/// Python type of a sequence.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Kind {
    List,
    Tuple,
    /// A tuple returned by `groupby`.
    Group,
    Range,
    Keys,
    Values,
    Items,
    /// The result of a filter that can be iterated once.
    Generator,
}

pub(super) struct Seq {
    pub(super) kind: Kind,
    pub(super) items: Vec<Value>,
    depth: u16,
    /// Number of consumed items of a generator.
    taken: Cell<usize>,
}

pub(super) struct Dict {
    pub(super) entries: Vec<(Value, Value)>,
    depth: u16,
}

/// A value with state, or a callable.
pub(super) enum Object {
    Namespace(RefCell<Vec<(Arc<str>, Value)>>),
    Macro(Arc<parser::Macro>, Rc<Scope>),
    Loop(Loop),
    Cycler(Vec<Value>, Cell<usize>),
    Joiner(Value, Cell<bool>),
    Function(&'static str),
    Method(Value, Arc<str>),
}

/// Names of a block: an iteration of a loop, a macro call, a `with` block.
pub(super) struct Scope {
    pub(super) names: RefCell<Vec<(Arc<str>, Value)>>,
    pub(super) parent: Option<Rc<Scope>>,
}

impl Scope {
    pub(super) fn inside(parent: &Rc<Scope>) -> Rc<Self> {
        Rc::new(Self { names: RefCell::new(Vec::new()), parent: Some(Rc::clone(parent)) })
    }
}

/// The variable `loop` in a loop's body.
pub(super) struct Loop {
    pub(super) items: Rc<Seq>,
    pub(super) index: Cell<usize>,
    pub(super) nested: usize,
    pub(super) changed: RefCell<Option<Vec<Value>>>,
    /// The loop that `loop(…)` renders.
    pub(super) recursive: Option<(Arc<parser::For>, Rc<Scope>)>,
}

/// Bytes that an item takes in a list.
const ITEM: usize = size_of::<Value>();

fn deeper(depth: u16) -> Result<u16> {
    if depth >= limits::MAX_DEPTH {
        fail("the template exceeds the memory limit: a list is nested too deeply")
    } else {
        Ok(depth + 1)
    }
}

impl Seq {
    /// Returns the remaining items and consumes them; all items for any other kind than a
    /// generator.
    pub(super) fn rest(&self) -> &[Value] {
        if self.kind == Kind::Generator { &self.items[self.taken.replace(self.items.len())..] } else { &self.items }
    }

    /// Returns the next item of a generator, or the first of any other kind.
    pub(super) fn next(&self) -> Option<&Value> {
        if self.kind != Kind::Generator {
            return self.items.first();
        }
        let item = self.items.get(self.taken.get());
        self.taken.set(self.taken.get() + usize::from(item.is_some()));
        item
    }
}

impl Dict {
    pub(super) fn get(&self, budget: &Budget, key: &Value) -> Result<Option<&Value>> {
        for (found, value) in &self.entries {
            budget.items(1)?;
            if found.equals(budget, key)? {
                return Ok(Some(value));
            }
        }
        Ok(None)
    }

    pub(super) fn get_str(&self, budget: &Budget, key: &str) -> Result<Option<&Value>> {
        let at = self.entries.iter().position(|(found, _)| matches!(found, Value::Str(found) if **found == *key));
        budget.items(at.unwrap_or(self.entries.len()) / 4)?;
        Ok(at.map(|at| &self.entries[at].1))
    }
}

impl Value {
    /// Creates a string, charged to the budget.
    pub(super) fn text(budget: &Budget, text: &str) -> Result<Self> {
        budget.make(text.len() + ITEM)?;
        Ok(Value::Str(text.into()))
    }

    /// Creates a sequence, charged to the budget.
    pub(super) fn seq(budget: &Budget, kind: Kind, items: Vec<Value>) -> Result<Self> {
        budget.items(items.len())?;
        budget.make(items.len() * ITEM + 2 * ITEM)?;
        let depth = deeper(items.iter().map(Value::depth).max().unwrap_or(0))?;
        Ok(Value::Seq(Rc::new(Seq { kind, items, depth, taken: Cell::new(0) })))
    }

    pub(super) fn list(budget: &Budget, items: Vec<Value>) -> Result<Self> {
        Self::seq(budget, Kind::List, items)
    }

    /// Creates a dictionary; later entries replace earlier ones with the same key.
    pub(super) fn dict(budget: &Budget, all: Vec<(Value, Value)>) -> Result<Self> {
        let mut entries: Vec<(Value, Value)> = Vec::with_capacity(all.len());
        budget.make(all.len() * 2 * ITEM + 2 * ITEM)?;
        let mut depth = 0;
        for (key, value) in all {
            key.hashable()?;
            depth = depth.max(value.depth()).max(key.depth());
            budget.items(entries.len() / 4)?;
            let mut found = None;
            for (at, (other, _)) in entries.iter().enumerate() {
                if other.equals(budget, &key)? {
                    found = Some(at);
                    break;
                }
            }
            match found {
                Some(at) => entries[at].1 = value,
                None => entries.push((key, value)),
            }
        }
        Ok(Value::Dict(Rc::new(Dict { entries, depth: deeper(depth)? })))
    }

    /// Converts a value of the caller, which is not charged to the template's budget.
    pub(super) fn from_json(json: &Json) -> Result<Self> {
        Ok(match json {
            Json::Null => Value::None,
            Json::Bool(value) => Value::Bool(*value),
            Json::Number(number) => match (number.as_i64(), number.as_u64()) {
                (Some(int), _) => Value::Int(int.into()),
                (None, Some(int)) => Value::Int(int.into()),
                (None, None) => Value::Float(number.as_f64().unwrap_or(f64::NAN)),
            },
            Json::String(text) => Value::Str(text.as_str().into()),
            Json::Array(items) => {
                let items: Vec<Value> = items.iter().map(Value::from_json).collect::<Result<_>>()?;
                let depth = deeper(items.iter().map(Value::depth).max().unwrap_or(0))?;
                Value::Seq(Rc::new(Seq { kind: Kind::List, items, depth, taken: Cell::new(0) }))
            }
            Json::Object(map) => {
                let entry =
                    |(key, value): (&String, &Json)| Ok((Value::Str(key.as_str().into()), Self::from_json(value)?));
                let entries: Vec<(Value, Value)> = map.iter().map(entry).collect::<Result<_>>()?;
                let depth = deeper(entries.iter().map(|(_, value)| value.depth()).max().unwrap_or(0))?;
                Value::Dict(Rc::new(Dict { entries, depth }))
            }
        })
    }

    pub(super) fn from_literal(literal: &Literal) -> Self {
        match literal {
            Literal::None => Value::None,
            Literal::Bool(value) => Value::Bool(*value),
            Literal::Int(number) => Value::Int(*number),
            Literal::Float(number) => Value::Float(*number),
            Literal::Text(text) => Value::Str(Arc::clone(text)),
        }
    }

    fn depth(&self) -> u16 {
        match self {
            Value::Seq(seq) => seq.depth,
            Value::Dict(dict) => dict.depth,
            // A bound method holds its value.
            Value::Object(object) => match &**object {
                Object::Method(value, _) => value.depth().saturating_add(1),
                Object::Cycler(items, _) => items.iter().map(Value::depth).max().unwrap_or(0).saturating_add(1),
                Object::Joiner(value, _) => value.depth().saturating_add(1),
                Object::Loop(of) => of.items.depth.saturating_add(1),
                Object::Namespace(_) | Object::Macro(..) | Object::Function(_) => 0,
            },
            _ => 0,
        }
    }

    pub(super) fn object(budget: &Budget, object: Object) -> Result<Self> {
        budget.make(4 * ITEM)?;
        let value = Value::Object(Rc::new(object));
        deeper(value.depth())?;
        Ok(value)
    }

    /// Returns Python's name of the value's type.
    pub(super) fn type_name(&self) -> &'static str {
        match self {
            Value::Undefined(_) => "Undefined",
            Value::None => "NoneType",
            Value::Bool(_) => "bool",
            Value::Int(_) => "int",
            Value::Float(_) => "float",
            Value::Str(_) => "str",
            Value::Seq(seq) => match seq.kind {
                Kind::List => "list",
                Kind::Tuple | Kind::Group => "tuple",
                Kind::Range => "range",
                Kind::Keys => "dict_keys",
                Kind::Values => "dict_values",
                Kind::Items => "dict_items",
                Kind::Generator => "generator",
            },
            Value::Dict(_) => "dict",
            Value::Object(object) => match &**object {
                Object::Namespace(_) => "Namespace",
                Object::Macro(..) => "Macro",
                Object::Loop(_) => "LoopContext",
                Object::Cycler(..) => "Cycler",
                Object::Joiner(..) => "Joiner",
                Object::Function(_) => "function",
                Object::Method(..) => "method",
            },
        }
    }

    /// Returns an error for an undefined value.
    pub(super) fn defined(&self) -> Result<()> {
        match self {
            Value::Undefined(Some(name)) => fail(format!("`{}` is undefined", short(name))),
            Value::Undefined(None) => fail("the value is undefined"),
            _ => Ok(()),
        }
    }

    pub(super) fn as_str(&self) -> Option<&str> {
        if let Value::Str(text) = self { Some(text) } else { None }
    }

    /// Returns an integer; a boolean counts as 0 or 1.
    pub(super) fn as_int(&self) -> Option<i128> {
        match self {
            Value::Int(number) => Some(*number),
            Value::Bool(value) => Some((*value).into()),
            _ => None,
        }
    }

    pub(super) fn as_float(&self) -> Option<f64> {
        match self {
            Value::Float(number) => Some(*number),
            _ => self.as_int().map(|number| number as f64),
        }
    }

    pub(super) fn is_true(&self) -> bool {
        match self {
            Value::Undefined(_) | Value::None => false,
            Value::Bool(value) => *value,
            Value::Int(number) => *number != 0,
            Value::Float(number) => *number != 0.0,
            Value::Str(text) => !text.is_empty(),
            Value::Seq(seq) => seq.kind == Kind::Generator || !seq.items.is_empty(),
            Value::Dict(dict) => !dict.entries.is_empty(),
            Value::Object(_) => true,
        }
    }

    fn hashable(&self) -> Result<()> {
        match self {
            Value::Seq(seq) if matches!(seq.kind, Kind::Tuple | Kind::Group) => {
                seq.items.iter().try_for_each(Value::hashable)
            }
            Value::Seq(_) | Value::Dict(_) => fail(format!("unhashable type: `{}`", self.type_name())),
            _ => Ok(()),
        }
    }

    /// Number of items or characters.
    pub(super) fn len(&self, budget: &Budget) -> Result<usize> {
        match self {
            Value::Undefined(_) => Ok(0),
            Value::Str(text) => {
                budget.read(text.len() / 8)?;
                Ok(text.chars().count())
            }
            Value::Seq(seq) if seq.kind != Kind::Generator => Ok(seq.items.len()),
            Value::Dict(dict) => Ok(dict.entries.len()),
            Value::Object(object) => match &**object {
                Object::Loop(of) => Ok(of.items.items.len()),
                _ => fail(format!("object of type `{}` has no length", self.type_name())),
            },
            _ => fail(format!("object of type `{}` has no length", self.type_name())),
        }
    }

    /// Returns the items: the characters of a string, the keys of a dictionary.
    pub(super) fn items(&self, budget: &Budget) -> Result<Vec<Value>> {
        let items = match self {
            Value::Undefined(_) => Vec::new(),
            Value::Str(text) => {
                budget.read(text.len())?;
                let count = text.chars().count();
                budget.make(count * (ITEM + 20))?;
                let mut all = Vec::with_capacity(count);
                all.extend(text.chars().map(|c| Value::Str((&*c.encode_utf8(&mut [0; 4])).into())));
                return Ok(all);
            }
            Value::Seq(seq) => {
                let rest = seq.rest();
                budget.items(rest.len())?;
                budget.make(rest.len() * ITEM)?;
                rest.to_vec()
            }
            Value::Dict(dict) => {
                budget.items(dict.entries.len())?;
                budget.make(dict.entries.len() * ITEM)?;
                dict.entries.iter().map(|(key, _)| key.clone()).collect()
            }
            _ => return fail(format!("`{}` is not iterable", self.type_name())),
        };
        Ok(items)
    }

    pub(super) fn is_iterable(&self) -> bool {
        matches!(self, Value::Undefined(_) | Value::Str(_) | Value::Seq(_) | Value::Dict(_))
    }

    /// Python's `==`.
    pub(super) fn equals(&self, budget: &Budget, other: &Value) -> Result<bool> {
        Ok(match (self, other) {
            (Value::Undefined(_), Value::Undefined(_)) | (Value::None, Value::None) => true,
            (Value::Str(a), Value::Str(b)) => {
                if a.len() != b.len() {
                    return Ok(false);
                }
                budget.read(a.len() / 8)?;
                a == b
            }
            (Value::Seq(a), Value::Seq(b)) => {
                if Rc::ptr_eq(a, b) {
                    return Ok(true);
                }
                let tuple = |kind| matches!(kind, Kind::Tuple | Kind::Group);
                let like = match a.kind {
                    Kind::Values | Kind::Generator => false,
                    kind => kind == b.kind || tuple(kind) && tuple(b.kind),
                };
                if !like || a.items.len() != b.items.len() {
                    return Ok(false);
                }
                for (a, b) in a.items.iter().zip(&b.items) {
                    budget.items(1)?;
                    if !a.equals(budget, b)? {
                        return Ok(false);
                    }
                }
                true
            }
            (Value::Dict(a), Value::Dict(b)) => {
                if Rc::ptr_eq(a, b) {
                    return Ok(true);
                }
                if a.entries.len() != b.entries.len() {
                    return Ok(false);
                }
                for (key, value) in &a.entries {
                    budget.items(1)?;
                    match b.get(budget, key)? {
                        Some(other) if value.equals(budget, other)? => {}
                        _ => return Ok(false),
                    }
                }
                true
            }
            (Value::Object(a), Value::Object(b)) => Rc::ptr_eq(a, b),
            _ => match (self.as_int(), other.as_int()) {
                (Some(a), Some(b)) => a == b,
                _ => self.as_float().is_some_and(|a| other.as_float() == Some(a)),
            },
        })
    }

    /// Python's order; an error for types without one, `None` for NaN.
    pub(super) fn compare(&self, budget: &Budget, other: &Value) -> Result<Option<Ordering>> {
        Ok(match (self, other) {
            (Value::Str(a), Value::Str(b)) => {
                budget.read(a.len().min(b.len()) / 8)?;
                Some(a.cmp(b))
            }
            (Value::Seq(a), Value::Seq(b))
                if matches!(a.kind, Kind::List | Kind::Tuple | Kind::Group)
                    && (a.kind == Kind::List) == (b.kind == Kind::List) =>
            {
                for (a, b) in a.items.iter().zip(&b.items) {
                    budget.items(1)?;
                    if !a.equals(budget, b)? {
                        return a.compare(budget, b);
                    }
                }
                Some(a.items.len().cmp(&b.items.len()))
            }
            _ => match (self.as_int(), other.as_int(), self.as_float(), other.as_float()) {
                (Some(a), Some(b), _, _) => Some(a.cmp(&b)),
                (_, _, Some(a), Some(b)) => a.partial_cmp(&b),
                _ => {
                    self.defined()?;
                    other.defined()?;
                    return fail(format!("cannot compare `{}` with `{}`", self.type_name(), other.type_name()));
                }
            },
        })
    }

    /// Whether a container has an item.
    pub(super) fn contains(&self, budget: &Budget, item: &Value) -> Result<bool> {
        match self {
            Value::Undefined(_) => Ok(false),
            Value::Str(text) => {
                let Some(part) = item.as_str() else {
                    item.defined()?;
                    return fail(format!("expected a string before `in` a string, found `{}`", item.type_name()));
                };
                budget.read(text.len() + part.len())?;
                Ok(text.contains(part))
            }
            Value::Seq(seq) => {
                for other in seq.rest() {
                    budget.items(1)?;
                    if other.equals(budget, item)? {
                        return Ok(true);
                    }
                }
                Ok(false)
            }
            Value::Dict(dict) => {
                item.hashable()?;
                Ok(dict.get(budget, item)?.is_some())
            }
            _ => fail(format!("`{}` is not iterable", self.type_name())),
        }
    }

    /// Writes Python's `str`.
    pub(super) fn write(&self, out: &mut Text<'_>) -> Result<()> {
        match self {
            Value::Str(text) => out.push(text),
            Value::Undefined(_) => Ok(()),
            _ => self.write_repr(out),
        }
    }

    /// Returns Python's `str`.
    pub(super) fn to_text(&self, budget: &Budget) -> Result<Arc<str>> {
        if let Value::Str(text) = self {
            return Ok(Arc::clone(text));
        }
        let mut out = Text::new(budget);
        self.write(&mut out)?;
        let text = out.into_string();
        budget.make(text.len())?;
        Ok(text.into())
    }

    /// Writes Python's `repr`.
    pub(super) fn write_repr(&self, out: &mut Text<'_>) -> Result<()> {
        out.budget.items(1)?;
        match self {
            Value::Undefined(_) => out.push("Undefined"),
            Value::None => out.push("None"),
            Value::Bool(value) => out.push(if *value { "True" } else { "False" }),
            Value::Int(number) => out.push(&number.to_string()),
            Value::Float(number) => out.push(&float_repr(*number)),
            Value::Str(text) => string_repr(text, out),
            Value::Seq(seq) => match seq.kind {
                Kind::List => write_items(&seq.items, ["[", "]"], out),
                Kind::Tuple | Kind::Group if seq.items.len() == 1 => write_items(&seq.items, ["(", ",)"], out),
                Kind::Tuple | Kind::Group => write_items(&seq.items, ["(", ")"], out),
                Kind::Keys => write_items(&seq.items, ["dict_keys([", "])"], out),
                Kind::Values => write_items(&seq.items, ["dict_values([", "])"], out),
                Kind::Items => write_items(&seq.items, ["dict_items([", "])"], out),
                Kind::Generator => out.push("<generator object>"),
                Kind::Range => {
                    let at = |i: usize| seq.items.get(i).and_then(Value::as_int);
                    let step = at(0).zip(at(1)).map_or(1, |(a, b)| b.saturating_sub(a));
                    let start = at(0).unwrap_or(0);
                    let stop = step.saturating_mul(seq.items.len() as i128).saturating_add(start);
                    out.push(&format!("range({start}, {stop}"))?;
                    out.push(&if step == 1 { ")".into() } else { format!(", {step})") })
                }
            },
            Value::Dict(dict) => {
                out.push("{")?;
                for (i, (key, value)) in dict.entries.iter().enumerate() {
                    out.push(if i > 0 { ", " } else { "" })?;
                    key.write_repr(out)?;
                    out.push(": ")?;
                    value.write_repr(out)?;
                }
                out.push("}")
            }
            Value::Object(object) => match &**object {
                Object::Macro(of, _) => {
                    out.push("<Macro ")?;
                    string_repr(&of.name, out)?;
                    out.push(">")
                }
                Object::Loop(of) => out.push(&format!("<LoopContext {}/{}>", of.index.get() + 1, of.items.items.len())),
                _ => out.push(&format!("<{} object>", self.type_name())),
            },
        }
    }
}

fn write_items(items: &[Value], [open, close]: [&str; 2], out: &mut Text<'_>) -> Result<()> {
    out.push(open)?;
    for (i, item) in items.iter().enumerate() {
        out.push(if i > 0 { ", " } else { "" })?;
        item.write_repr(out)?;
    }
    out.push(close)
}

/// Returns the start of a name, for error messages.
pub(super) fn short(name: &str) -> String {
    if name.chars().count() <= 60 { name.into() } else { name.chars().take(60).chain(['…']).collect() }
}

/// Writes Python's `repr` of a string.
fn string_repr(text: &str, out: &mut Text<'_>) -> Result<()> {
    out.budget.read(text.len())?;
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    out.push_char(quote)?;
    for c in text.chars() {
        match c {
            '\\' => out.push("\\\\")?,
            '\n' => out.push("\\n")?,
            '\r' => out.push("\\r")?,
            '\t' => out.push("\\t")?,
            c if c == quote => {
                out.push_char('\\')?;
                out.push_char(c)?;
            }
            c if is_printable(c) => out.push_char(c)?,
            c => out.push(&match u32::from(c) {
                code @ 0..0x100 => format!("\\x{code:02x}"),
                code @ 0x100..0x10000 => format!("\\u{code:04x}"),
                code => format!("\\U{code:08x}"),
            })?,
        }
    }
    out.push_char(quote)
}

/// Whether Python's `repr` does not escape a character.
pub(super) fn is_printable(c: char) -> bool {
    if c.is_ascii() {
        return !c.is_ascii_control();
    }
    if c.is_whitespace() || c.is_control() {
        return false;
    }
    // A mark after another character is not escaped by Rust: if it is escaped here, it is not
    // printable.
    let mut pair = [0; 5];
    pair[0] = b'a';
    let len = c.encode_utf8(&mut pair[1..]).len();
    std::str::from_utf8(&pair[..=len]).is_ok_and(|pair| pair.escape_debug().count() == 2)
}

/// Returns Python's `repr` of a float.
pub(super) fn float_repr(x: f64) -> String {
    if x.is_nan() {
        return "nan".into();
    }
    if x.is_infinite() {
        return if x > 0.0 { "inf" } else { "-inf" }.into();
    }
    if x != 0.0 && !(1e-4..1e16).contains(&x.abs()) {
        let text = format!("{x:e}");
        let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let (sign, exponent) = exponent.strip_prefix('-').map_or(('+', exponent), |e| ('-', e));
        return format!("{digits}e{sign}{exponent:0>2}");
    }
    format!("{x:?}")
}
