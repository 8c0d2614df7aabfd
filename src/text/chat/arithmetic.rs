//! Operators and slices with Python's semantics; integers have 128 bits.

use super::format::{self, printf};
use super::limits::{Budget, Failure, Result, fail};
use super::parser::Operator;
use super::value::{Kind, Value};

pub(super) fn negative(value: &Value) -> Result<Value> {
    value.defined()?;
    match (value, value.as_int()) {
        (_, Some(number)) => number.checked_neg().map(Value::Int).ok_or_else(too_large),
        (Value::Float(number), _) => Ok(Value::Float(-number)),
        _ => fail(format!("expected a number after `-`, found `{}`", value.type_name())),
    }
}

pub(super) fn positive(value: &Value) -> Result<Value> {
    value.defined()?;
    match (value, value.as_int()) {
        (_, Some(number)) => Ok(Value::Int(number)),
        (Value::Float(number), _) => Ok(Value::Float(*number)),
        _ => fail(format!("expected a number after `+`, found `{}`", value.type_name())),
    }
}

fn too_large() -> Failure {
    Failure { line: None, reason: "an integer is too large: expected at most 127 bits".into() }
}

pub(super) fn apply(budget: &Budget, operator: Operator, left: &Value, right: &Value) -> Result<Value> {
    left.defined()?;
    // The left operand of `%` may be a format string for an undefined value.
    if let (Operator::Modulo, Value::Str(text)) = (operator, left) {
        return printf(budget, text, right);
    }
    right.defined()?;
    match (operator, left, right) {
        (Operator::Add, Value::Str(a), Value::Str(b)) => {
            budget.make(a.len() + b.len() + 32)?;
            Ok(Value::Str([&**a, &**b].concat().into()))
        }
        (Operator::Add, Value::Seq(a), Value::Seq(b))
            if matches!((a.kind, b.kind), (Kind::List, Kind::List) | (Kind::Tuple, Kind::Tuple)) =>
        {
            budget.make((a.items.len() + b.items.len()) * size_of::<Value>())?;
            Value::seq(budget, a.kind, [&a.items[..], &b.items[..]].concat())
        }
        (Operator::Multiply, many @ (Value::Str(_) | Value::Seq(_)), count)
        | (Operator::Multiply, count, many @ (Value::Str(_) | Value::Seq(_)))
            if count.as_int().is_some() =>
        {
            repeated(budget, many, count.as_int().unwrap_or(0))
        }
        _ => match (left.as_int(), right.as_int(), left.as_float(), right.as_float()) {
            (Some(a), Some(b), _, _) => integers(operator, a, b),
            (_, _, Some(a), Some(b)) => floats(operator, a, b).map(Value::Float),
            _ => fail(format!("no operator for `{}` and `{}`", left.type_name(), right.type_name())),
        },
    }
}

fn repeated(budget: &Budget, value: &Value, count: i128) -> Result<Value> {
    let count = usize::try_from(count.max(0)).unwrap_or(usize::MAX);
    match value {
        Value::Str(text) => {
            budget.make(text.len().saturating_mul(count).saturating_add(32))?;
            Ok(Value::Str(text.repeat(if text.is_empty() { 0 } else { count }).into()))
        }
        Value::Seq(seq) if matches!(seq.kind, Kind::List | Kind::Tuple) => {
            let count = if seq.items.is_empty() { 0 } else { count };
            budget.make(seq.items.len().saturating_mul(count).saturating_mul(size_of::<Value>()))?;
            let items = std::iter::repeat_n(&seq.items, count).flatten().cloned().collect();
            Value::seq(budget, seq.kind, items)
        }
        _ => fail(format!("cannot repeat `{}`", value.type_name())),
    }
}

fn integers(operator: Operator, a: i128, b: i128) -> Result<Value> {
    if matches!(operator, Operator::Divide | Operator::FloorDivide | Operator::Modulo) && b == 0 {
        return fail("division by zero");
    }
    let int = |number: Option<i128>| number.map(Value::Int).ok_or_else(too_large);
    match operator {
        Operator::Add => int(a.checked_add(b)),
        Operator::Subtract => int(a.checked_sub(b)),
        Operator::Multiply => int(a.checked_mul(b)),
        Operator::Divide => Ok(Value::Float(a as f64 / b as f64)),
        // The remainder of Euclidean division is never negative; Python's has the divisor's sign.
        Operator::FloorDivide => {
            let quotient = a.checked_div(b).ok_or_else(too_large)?;
            int(Some(quotient - i128::from(a % b != 0 && (a < 0) != (b < 0))))
        }
        Operator::Modulo => {
            let rest = a.checked_rem(b).unwrap_or(0);
            int(Some(if rest != 0 && (rest < 0) != (b < 0) { rest + b } else { rest }))
        }
        Operator::Power if b >= 0 => match a {
            0 | 1 => Ok(Value::Int(if b == 0 { 1 } else { a })),
            -1 => Ok(Value::Int(if b % 2 == 0 { 1 } else { -1 })),
            _ => int(u32::try_from(b).ok().and_then(|b| a.checked_pow(b))),
        },
        Operator::Power => floats(operator, a as f64, b as f64).map(Value::Float),
    }
}

fn floats(operator: Operator, a: f64, b: f64) -> Result<f64> {
    let divides = matches!(operator, Operator::Divide | Operator::FloorDivide | Operator::Modulo);
    if divides && b == 0.0 || operator == Operator::Power && a == 0.0 && b < 0.0 {
        return fail("division by zero");
    }
    Ok(match operator {
        Operator::Add => a + b,
        Operator::Subtract => a - b,
        Operator::Multiply => a * b,
        Operator::Divide => a / b,
        Operator::FloorDivide => ((a - modulo(a, b)) / b).round(),
        Operator::Modulo => modulo(a, b),
        Operator::Power => {
            let power = a.powf(b);
            if power.is_infinite() && a.is_finite() && b.is_finite() {
                return fail("the result of a power is too large");
            }
            power
        }
    })
}

/// Remainder with the divisor's sign.
fn modulo(a: f64, b: f64) -> f64 {
    let rest = a % b;
    if rest == 0.0 {
        return 0f64.copysign(b);
    }
    if (rest < 0.0) != (b < 0.0) { rest + b } else { rest }
}

/// `value[start:stop:step]`.
pub(super) fn slice(budget: &Budget, value: &Value, bounds: &[Value; 3]) -> Result<Value> {
    value.defined()?;
    let mut numbers = [None; 3];
    for (number, bound) in numbers.iter_mut().zip(bounds) {
        bound.defined()?;
        *number = bound.as_int();
        if number.is_none() && !matches!(bound, Value::None) {
            return fail(format!("expected integers in a slice, found `{}`", bound.type_name()));
        }
    }
    let [start, stop, step] = numbers;
    let step = step.unwrap_or(1);
    if step == 0 {
        return fail("expected a step other than 0 in a slice");
    }
    let len = match value {
        Value::Seq(seq) if seq.kind != Kind::Generator => seq.items.len(),
        Value::Str(_) => value.len(budget)?,
        _ => return Ok(Value::Undefined(None)),
    } as i128;
    let (least, most) = if step > 0 { (0, len) } else { (-1, len - 1) };
    let clamp = |at: i128| if at < 0 { at.saturating_add(len).max(least) } else { at.min(most) };
    let start = start.map_or(if step > 0 { 0 } else { most }, clamp);
    let stop = stop.map_or(if step > 0 { len } else { least }, clamp);
    let distance = if step > 0 { stop - start } else { start - stop };
    let count = if distance <= 0 { 0 } else { (distance - 1) / step.saturating_abs() + 1 };
    let at = |i: i128| (start + i * step) as usize;
    match value {
        Value::Str(text) if step == 1 => {
            budget.read(text.len())?;
            let mut places = text.char_indices().map(|(at, _)| at).chain([text.len()]);
            let from = places.nth(at(0).min(len as usize)).unwrap_or(text.len());
            let to = if count == 0 { from } else { places.nth(count as usize - 1).unwrap_or(text.len()) };
            Value::text(budget, &text[from..to])
        }
        Value::Str(text) => {
            budget.read(text.len())?;
            budget.make(text.len() * 5)?;
            let chars: Vec<char> = text.chars().collect();
            let text: String = (0..count).map(|i| chars[at(i)]).collect();
            Value::text(budget, &text)
        }
        Value::Seq(seq) => {
            budget.make(count as usize * size_of::<Value>())?;
            Value::seq(budget, seq.kind, (0..count).map(|i| seq.items[at(i)].clone()).collect())
        }
        _ => Ok(Value::Undefined(None)),
    }
}

/// Python's `round`.
pub(super) fn round(number: f64, digits: i128, method: &str) -> Result<f64> {
    if !number.is_finite() {
        return Ok(number);
    }
    let digits = digits.clamp(-400, 400) as i32;
    match method {
        "common" if digits >= 0 => Ok(format::fixed(number, digits as usize).parse().unwrap_or(number)),
        "common" => {
            let unit = 10f64.powi(-digits);
            let rounded = (number / unit).round_ties_even() * unit;
            Ok(if rounded.is_finite() { rounded } else { 0f64.copysign(number) })
        }
        "ceil" | "floor" => {
            let unit = 10f64.powi(digits);
            let scaled = number * unit;
            let rounded = if method == "ceil" { scaled.ceil() } else { scaled.floor() } / unit;
            Ok(if rounded.is_finite() { rounded } else { number })
        }
        _ => fail("round: expected the method `common`, `ceil` or `floor`"),
    }
}
