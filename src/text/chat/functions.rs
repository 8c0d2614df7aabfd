//! Functions of a template: those of Jinja, and `raise_exception` and `strftime_now` of
//! `transformers`.

use std::cell::Cell;
use std::time::SystemTime;

use super::date::strftime;
use super::limits::{Result, fail};
use super::runtime::{Args, Runtime};
use super::value::{Kind, Object, Value};

const NAMES: [&str; 7] = ["cycler", "dict", "joiner", "namespace", "raise_exception", "range", "strftime_now"];

/// Maximum number of items of a range, as in Jinja's sandbox.
const MAX_RANGE: i128 = 100_000;

/// Returns the function of a name.
pub(super) fn named(name: &str) -> Option<&'static str> {
    NAMES.into_iter().find(|known| *known == name)
}

pub(super) fn call(runtime: &Runtime<'_>, name: &str, args: Args) -> Result<Value> {
    let budget = runtime.budget;
    match name {
        "range" => {
            let given = args.positional.len();
            let [first, second, step] = args.bind(name, ["start", "stop", "step"], 1)?;
            let int = |value: Option<Value>, default: i128| match value {
                None => Ok(default),
                Some(value) => value
                    .as_int()
                    .map_or_else(|| fail(format!("range: expected integers, found `{}`", value.type_name())), Ok),
            };
            let step = int(step, 1)?;
            let (start, stop) = if given < 2 { (0, int(first, 0)?) } else { (int(first, 0)?, int(second, 0)?) };
            if step == 0 {
                return fail("range: expected a step other than 0");
            }
            let distance = if step > 0 { stop.saturating_sub(start) } else { start.saturating_sub(stop) };
            let len = if distance <= 0 { 0 } else { (distance - 1) / step.saturating_abs() + 1 };
            if len > MAX_RANGE {
                return fail(format!("range: expected at most {MAX_RANGE} numbers, found {len}"));
            }
            budget.make(len as usize * size_of::<Value>())?;
            Value::seq(budget, Kind::Range, (0..len).map(|i| Value::Int(start + i * step)).collect())
        }
        "dict" => {
            let mut entries = Vec::new();
            let [first] = Args { positional: args.positional, named: Vec::new() }.bind(name, ["mapping"], 0)?;
            match first {
                None => {}
                Some(Value::Dict(dict)) => {
                    budget.make(size_of_val(&dict.entries[..]))?;
                    entries.extend(dict.entries.iter().cloned());
                }
                Some(list) => {
                    for pair in list.items(budget)? {
                        let pair = pair.items(budget)?;
                        let [key, value] = &pair[..] else { return fail("dict: expected pairs of keys and values") };
                        budget.make(2 * size_of::<Value>())?;
                        entries.push((key.clone(), value.clone()));
                    }
                }
            }
            entries.extend(args.named.into_iter().map(|(name, value)| (Value::Str(name), value)));
            Value::dict(budget, entries)
        }
        "namespace" => {
            let Value::Dict(dict) = call(runtime, "dict", args)? else { return fail("namespace: expected a dict") };
            let mut names = Vec::new();
            for (key, value) in &dict.entries {
                let Value::Str(key) = key else { return fail("namespace: expected strings as keys") };
                names.push((key.clone(), value.clone()));
            }
            runtime.namespace(names)
        }
        "cycler" => {
            if args.positional.is_empty() || !args.named.is_empty() {
                return fail("cycler: expected at least one value and no keyword arguments");
            }
            Value::object(budget, Object::Cycler(args.positional, Cell::new(0)))
        }
        "joiner" => {
            let [separator] = args.bind(name, ["sep"], 0)?;
            let separator = separator.map_or_else(|| Value::text(budget, ", "), Ok)?;
            Value::object(budget, Object::Joiner(separator, Cell::new(false)))
        }
        "raise_exception" => {
            let [message] = args.bind(name, ["message"], 1)?;
            fail(message.unwrap_or(Value::None).to_text(budget)?.to_string())
        }
        _ => {
            let [format] = args.bind(name, ["format"], 1)?;
            match format {
                Some(Value::Str(format)) => {
                    budget.make(format.len() * 8)?;
                    Value::text(budget, &strftime(&format, SystemTime::now())?)
                }
                _ => fail("strftime_now: expected a string"),
            }
        }
    }
}
