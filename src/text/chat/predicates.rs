//! Jinja's tests: `x is defined`.

use super::limits::{Budget, Result, fail};
use super::parser::Comparison;
use super::runtime::{Args, Runtime};
use super::value::{Kind, Object, Value, short};
use super::{methods, names};

/// Evaluates a test.
pub(super) fn apply(runtime: &Runtime<'_>, name: &str, value: &Value, args: Args) -> Result<bool> {
    let comparison = match name {
        "eq" | "equalto" | "==" => Some(Comparison::Equal),
        "ne" | "!=" => Some(Comparison::NotEqual),
        "lt" | "lessthan" | "<" => Some(Comparison::Less),
        "le" | "<=" => Some(Comparison::LessEqual),
        "gt" | "greaterthan" | ">" => Some(Comparison::Greater),
        "ge" | ">=" => Some(Comparison::GreaterEqual),
        "in" => Some(Comparison::In),
        _ => None,
    };
    if let Some(comparison) = comparison {
        let [other] = args.bind(name, ["other"], 1)?.map(|other| other.unwrap_or(Value::None));
        return compare(runtime.budget, comparison, value, &other);
    }
    match name {
        "divisibleby" => {
            let [number] = args.bind(name, ["num"], 1)?;
            let number = number.as_ref().and_then(Value::as_int);
            match (value.as_int(), number) {
                (Some(value), Some(number)) if number != 0 => Ok(value.checked_rem(number).unwrap_or(0) == 0),
                _ => fail("divisibleby: expected integers, the second not 0"),
            }
        }
        "sameas" => {
            let [other] = args.bind(name, ["other"], 1)?.map(|other| other.unwrap_or(Value::None));
            Ok(same(value, &other))
        }
        _ => {
            args.bind(name, [], 0)?;
            simple(runtime, name, value)
        }
    }
}

/// Evaluates a comparison.
pub(super) fn compare(budget: &Budget, comparison: Comparison, left: &Value, right: &Value) -> Result<bool> {
    Ok(match comparison {
        Comparison::Equal => left.equals(budget, right)?,
        Comparison::NotEqual => !left.equals(budget, right)?,
        Comparison::In => right.contains(budget, left)?,
        Comparison::NotIn => !right.contains(budget, left)?,
        Comparison::Less => left.compare(budget, right)?.is_some_and(|order| order.is_lt()),
        Comparison::LessEqual => left.compare(budget, right)?.is_some_and(|order| order.is_le()),
        Comparison::Greater => left.compare(budget, right)?.is_some_and(|order| order.is_gt()),
        Comparison::GreaterEqual => left.compare(budget, right)?.is_some_and(|order| order.is_ge()),
    })
}

/// Whether two values are identical; for strings and numbers, whether they are equal.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Undefined(_), Value::Undefined(_)) | (Value::None, Value::None) => true,
        (Value::Bool(a), Value::Bool(b)) => a == b,
        (Value::Int(a), Value::Int(b)) => a == b,
        (Value::Str(a), Value::Str(b)) => std::sync::Arc::ptr_eq(a, b) || a.len() <= 1 && a == b,
        (Value::Seq(a), Value::Seq(b)) => std::rc::Rc::ptr_eq(a, b),
        (Value::Dict(a), Value::Dict(b)) => std::rc::Rc::ptr_eq(a, b),
        (Value::Object(a), Value::Object(b)) => std::rc::Rc::ptr_eq(a, b),
        _ => false,
    }
}

fn simple(runtime: &Runtime<'_>, name: &str, value: &Value) -> Result<bool> {
    let parity = |odd: i128| {
        value.defined()?;
        match (value, value.as_int()) {
            (_, Some(number)) => Ok(number & 1 == odd),
            (Value::Float(number), _) => Ok(number.rem_euclid(2.0) == odd as f64),
            _ => fail(format!("{name}: expected a number, found `{}`", value.type_name())),
        }
    };
    let case = |accepted: fn(&str) -> bool| {
        let text = value.to_text(runtime.budget)?;
        runtime.budget.read(text.len() * 2)?;
        Ok(accepted(&text))
    };
    match name {
        "defined" => Ok(!matches!(value, Value::Undefined(_))),
        "undefined" => Ok(matches!(value, Value::Undefined(_))),
        "none" => Ok(matches!(value, Value::None)),
        "boolean" => Ok(matches!(value, Value::Bool(_))),
        "true" => Ok(matches!(value, Value::Bool(true))),
        "false" => Ok(matches!(value, Value::Bool(false))),
        "integer" => Ok(matches!(value, Value::Int(_))),
        "float" => Ok(matches!(value, Value::Float(_))),
        "number" => Ok(matches!(value, Value::Bool(_) | Value::Int(_) | Value::Float(_))),
        "string" => Ok(matches!(value, Value::Str(_))),
        "mapping" => Ok(matches!(value, Value::Dict(_))),
        "iterable" => Ok(value.is_iterable()),
        // Everything with a length and items: also strings, dictionaries and undefined values.
        "sequence" => Ok(match value {
            Value::Seq(seq) => matches!(seq.kind, Kind::List | Kind::Tuple | Kind::Group | Kind::Range),
            Value::Undefined(_) | Value::Str(_) | Value::Dict(_) => true,
            _ => false,
        }),
        "callable" => {
            Ok(matches!(value, Value::Object(object) if !matches!(**object, Object::Namespace(_) | Object::Cycler(..))))
        }
        "escaped" => Ok(false),
        "even" => parity(0),
        "odd" => parity(1),
        "lower" => case(methods::is_lower),
        "upper" => case(methods::is_upper),
        "filter" => Ok(value.as_str().is_some_and(names::is_filter)),
        "test" => Ok(value.as_str().is_some_and(names::is_test)),
        _ => fail(format!("no test named `{}`", short(name))),
    }
}
