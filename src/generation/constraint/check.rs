//! Checks a finished text against a JSON schema, independently of the constraint engine.
//!
//! Unsupported schema keys need no check here: the engine has rejected them.

use std::collections::HashMap;

use llguidance::derivre::{Regex, RegexBuilder};
use llguidance::regex_to_lark;
use serde_json::{Map, Value};

use crate::generation::constraint::schema::target;

/// Maximum nesting of a value and its schemas; deeper parts are not checked.
const MAX_DEPTH: usize = 256;

/// Step limit of an expression match; a match that needs more is not checked.
const FUEL: u64 = 1_000_000;

/// Returns the first part of `text` that violates `schema`.
pub(super) fn fault(text: &[u8], schema: &Value) -> Option<String> {
    let value = match serde_json::from_slice(text) {
        Ok(value) => value,
        // The JSON parser's own limits on depth and numbers are not errors of the text.
        Err(error)
            if ["recursion limit", "number out of range"].iter().any(|own| error.to_string().starts_with(own)) =>
        {
            return None;
        }
        Err(error) => return Some(error.to_string()),
    };
    let settings = schema.get("x-guidance");
    let lenient = ["coerce_one_of", "lenient"].iter().any(|key| settings.is_some_and(|s| s[key] == true));
    let mut check = Check { root: schema, one_of_is_any_of: lenient, expressions: HashMap::new() };
    check.fault(&value, schema, 0)
}

struct Check<'s> {
    root: &'s Value,
    one_of_is_any_of: bool,
    /// By pattern; `None` for a pattern that cannot be compiled.
    expressions: HashMap<&'s str, Option<Regex>>,
}

impl<'s> Check<'s> {
    fn fits(&mut self, value: &Value, schema: &'s Value, depth: usize) -> bool {
        self.fault(value, schema, depth).is_none()
    }

    fn fault(&mut self, value: &Value, schema: &'s Value, depth: usize) -> Option<String> {
        if depth > MAX_DEPTH {
            return None;
        }
        let keys = match schema {
            Value::Bool(false) => return Some(format!("{value} where no value is allowed")),
            Value::Object(keys) => keys,
            _ => return None,
        };
        let list = |key: &str| keys.get(key).and_then(Value::as_array);
        let violated = |key: &str| Some(format!("{value} against `{key}`"));
        if keys.get("type").is_some_and(|types| !is_of(value, types)) {
            return violated("type");
        }
        if keys.get("const").is_some_and(|literal| !equal(value, literal)) {
            return violated("const");
        }
        if list("enum").is_some_and(|literals| !literals.iter().any(|literal| equal(value, literal))) {
            return violated("enum");
        }
        if let Some(Value::String(reference)) = keys.get("$ref") {
            let named = target(self.root, reference)?;
            if let Some(fault) = self.fault(value, named, depth + 1) {
                return Some(fault);
            }
        }
        for part in list("allOf").into_iter().flatten() {
            if let Some(fault) = self.fault(value, part, depth + 1) {
                return Some(fault);
            }
        }
        if list("anyOf").is_some_and(|options| !options.iter().any(|option| self.fits(value, option, depth + 1))) {
            return violated("anyOf");
        }
        if let Some(options) = list("oneOf") {
            let fitting = options.iter().filter(|option| self.fits(value, option, depth + 1)).count();
            if fitting == 0 || fitting > 1 && !self.one_of_is_any_of {
                return violated("oneOf");
            }
        }
        match value {
            Value::Number(number) => number_fault(number.as_f64().unwrap_or(f64::NAN), keys),
            Value::String(text) => self.text_fault(text, keys),
            Value::Array(items) => self.array_fault(items, keys, depth),
            Value::Object(map) => self.object_fault(map, keys, depth),
            _ => None,
        }
    }

    fn text_fault(&mut self, text: &str, keys: &'s Map<String, Value>) -> Option<String> {
        if let Some(key) = out_of_bounds(text.chars().count(), keys, "minLength", "maxLength") {
            return Some(format!("{text:?} against `{key}`"));
        }
        match keys.get("pattern").and_then(Value::as_str) {
            Some(pattern) if !self.matches(pattern, text) => Some(format!("{text:?} against the pattern {pattern:?}")),
            _ => None,
        }
    }

    fn matches(&mut self, pattern: &'s str, text: &str) -> bool {
        let built = || {
            let mut builder = RegexBuilder::new();
            let expression = builder.mk_regex_for_serach(&regex_to_lark(pattern, "dw")).ok()?;
            builder.to_regex_limited(expression, FUEL).ok()
        };
        self.expressions
            .entry(pattern)
            .or_insert_with(built)
            .as_mut()
            .is_none_or(|expression| expression.is_match(text))
    }

    fn array_fault(&mut self, items: &[Value], keys: &'s Map<String, Value>, depth: usize) -> Option<String> {
        if let Some(key) = out_of_bounds(items.len(), keys, "minItems", "maxItems") {
            return Some(format!("{} items against `{key}`", items.len()));
        }
        // Older drafts list the schemas of the first items under `items`.
        let (first, rest) = match (keys.get("items"), keys.get("additionalItems")) {
            (Some(Value::Array(first)), rest) => (first.as_slice(), rest),
            (rest, Some(_)) => (&[][..], rest),
            (rest, None) => (keys.get("prefixItems").and_then(Value::as_array).map_or(&[][..], Vec::as_slice), rest),
        };
        let schemas = first.iter().map(Some).chain(std::iter::repeat(rest));
        items.iter().zip(schemas).find_map(|(item, schema)| self.fault(item, schema?, depth + 1))
    }

    fn object_fault(&mut self, map: &Map<String, Value>, keys: &'s Map<String, Value>, depth: usize) -> Option<String> {
        if let Some(key) = out_of_bounds(map.len(), keys, "minProperties", "maxProperties") {
            return Some(format!("{} properties against `{key}`", map.len()));
        }
        let required = keys.get("required").and_then(Value::as_array);
        let missing = |name: &&Value| !name.as_str().is_some_and(|name| map.contains_key(name));
        if let Some(name) = required.into_iter().flatten().find(missing) {
            return Some(format!("an object without {name}"));
        }
        let named = keys.get("properties").and_then(Value::as_object);
        let patterns = keys.get("patternProperties").and_then(Value::as_object);
        for (name, value) in map {
            let own = named.and_then(|named| named.get(name));
            let mut known = own.is_some();
            let mut fault = own.and_then(|schema| self.fault(value, schema, depth + 1));
            for (pattern, schema) in patterns.into_iter().flatten() {
                if fault.is_none() && self.matches(pattern, name) {
                    known = true;
                    fault = self.fault(value, schema, depth + 1);
                }
            }
            if let (false, Some(schema)) = (known, keys.get("additionalProperties")) {
                fault = self.fault(value, schema, depth + 1);
            }
            if fault.is_some() {
                return fault;
            }
        }
        None
    }
}

fn is_of(value: &Value, types: &Value) -> bool {
    let is = |name: &Value| match name.as_str() {
        Some("null") => value.is_null(),
        Some("boolean") => value.is_boolean(),
        Some("integer") => value.as_f64().is_some_and(|x| x.fract() == 0.0),
        Some("number") => value.is_number(),
        Some("string") => value.is_string(),
        Some("array") => value.is_array(),
        Some("object") => value.is_object(),
        _ => true,
    };
    types.as_array().map_or_else(|| is(types), |names| names.iter().any(is))
}

/// Equality as JSON Schema defines it: 1 equals 1.0.
fn equal(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a.as_f64() == b.as_f64(),
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| equal(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| equal(a, b)))
        }
        (a, b) => a == b,
    }
}

fn number_fault(x: f64, keys: &Map<String, Value>) -> Option<String> {
    let number = |key: &str| keys.get(key).and_then(Value::as_f64);
    // In draft 4, exclusiveness of a bound is a flag.
    let flag = |key: &str| keys.get(key) == Some(&Value::Bool(true));
    let (low, high) = (number("minimum"), number("maximum"));
    let below = |bound: Option<f64>, strict: bool| bound.is_some_and(|bound| x < bound || strict && x == bound);
    let above = |bound: Option<f64>, strict: bool| bound.is_some_and(|bound| x > bound || strict && x == bound);
    let uneven = |step: f64| {
        let steps = x / step;
        step > 0.0 && (steps - steps.round()).abs() > 1e-9 * steps.abs().max(1.0)
    };
    let faults = [
        ("minimum", below(low, flag("exclusiveMinimum"))),
        ("exclusiveMinimum", below(number("exclusiveMinimum"), true)),
        ("maximum", above(high, flag("exclusiveMaximum"))),
        ("exclusiveMaximum", above(number("exclusiveMaximum"), true)),
        ("multipleOf", number("multipleOf").is_some_and(uneven)),
    ];
    faults.iter().find(|(_, fault)| *fault).map(|(key, _)| format!("{x} against `{key}`"))
}

fn out_of_bounds<'k>(n: usize, keys: &Map<String, Value>, least: &'k str, most: &'k str) -> Option<&'k str> {
    let bound = |key: &str| keys.get(key).and_then(Value::as_u64);
    if bound(least).is_some_and(|least| (n as u64) < least) {
        return Some(least);
    }
    bound(most).is_some_and(|most| n as u64 > most).then_some(most)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn each_key_is_held_against_the_value() {
        for (schema, good, bad) in [
            (json!({"type": ["integer", "null"]}), "null", "1.5"),
            (json!({"const": {"a": [1, "x"]}}), r#"{"a": [1.0, "x"]}"#, r#"{"a": [1]}"#),
            (json!({"enum": [1, "b"]}), "1.0", "2"),
            (json!({"minimum": 2, "exclusiveMinimum": true}), "2.5", "2"),
            (json!({"exclusiveMaximum": 3}), "2.9", "3"),
            (json!({"multipleOf": 0.05}), "0.35", "0.36"),
            (json!({"minLength": 2, "maxLength": 3}), "\"\u{e9}\u{e9}\"", "\"abcd\""),
            (json!({"pattern": "^[^\"]*$"}), "\"ab\"", r#""a\"b""#),
            (json!({"pattern": "b"}), "\"abc\"", "\"ac\""),
            (json!({"items": {"type": "null"}, "maxItems": 2}), "[null]", "[null, 1]"),
            (json!({"prefixItems": [{"const": 1}], "items": false}), "[1]", "[1, 2]"),
            (json!({"items": [{"const": 1}], "additionalItems": {"const": 2}}), "[1, 2, 2]", "[1, 2, 1]"),
            (json!({"required": ["a"], "properties": {"a": {"const": 1}}}), r#"{"a": 1}"#, "{}"),
            (json!({"patternProperties": {"^a": {"const": 1}}}), r#"{"b": 2, "ab": 1}"#, r#"{"ab": 2}"#),
            (json!({"patternProperties": {"^a": {}}, "additionalProperties": false}), r#"{"ab": 1}"#, r#"{"b": 1}"#),
            (json!({"maxProperties": 1}), r#"{"a": 1}"#, r#"{"a": 1, "b": 2}"#),
            (json!({"anyOf": [{"const": 1}, {"const": 2}]}), "2", "3"),
            (json!({"oneOf": [{"minimum": 1}, {"minimum": 5}]}), "2", "6"),
            (json!({"allOf": [{"minimum": 1}, {"maximum": 5}]}), "2", "6"),
            (
                json!({"$ref": "#/$defs/a", "$defs": {"a": {"items": {"$ref": "#"}, "type": "array"}}}),
                "[[], [[]]]",
                "[1]",
            ),
            (json!(true), "1", "{"),
            (json!({"type": "number"}), "1e999", "1e"),
        ] {
            assert_eq!(fault(good.as_bytes(), &schema), None, "{schema}");
            assert!(fault(bad.as_bytes(), &schema).is_some(), "{schema} lets {bad} through");
        }
    }
}
