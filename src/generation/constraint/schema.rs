//! Prepares JSON schemas for the engine: checks their size, rejects what the engine cannot handle,
//! and rewrites patterns.
//!
//! The engine compiles a schema recursively, following each `$ref` when it is first met. The same
//! traversal is done here with a depth limit.

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value};

use crate::error::{Error, Result};
use crate::generation::constraint::limits::GrammarLimits;
use crate::generation::constraint::pattern;
use crate::generation::constraint::shape::{Merge, Object, Shape};

/// White space allowed between the parts of JSON.
const WHITE_SPACE: &str = r" |\n {0,32}";

/// Escapes allowed in strings. Without `\u`, each string has one spelling, so that names can be
/// compared; control characters without a short escape are not generated.
const ESCAPES: &str = "nrbtf\\\"";

/// The engine's own key for its settings.
const SETTINGS: &str = "x-guidance";

/// Maximum multiple: the engine needs a state per remainder.
const MAX_MULTIPLE: u64 = 10_000;

/// Maximum of all multiples together.
const MAX_MULTIPLES: u64 = 40_000;

/// Largest integer up to which floating-point arithmetic, in the engine and in readers, is exact.
const MAX_EXACT: f64 = 9_007_199_254_740_991.0;

/// Maximum length bound next to a pattern: the engine builds a state for each length.
const MAX_COUNTED: u64 = 10_000;

/// All types, for schemas that name none.
const TYPES: [&str; 6] = ["null", "boolean", "number", "string", "array", "object"];

/// Keys that restrict a value besides `type`, without those that refer to other schemas.
const DESCRIBING: [&str; 21] = [
    "type",
    "items",
    "additionalItems",
    "prefixItems",
    "minItems",
    "maxItems",
    "properties",
    "additionalProperties",
    "patternProperties",
    "required",
    "minProperties",
    "maxProperties",
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "multipleOf",
    "minLength",
    "maxLength",
    "pattern",
    "format",
];

/// Keys whose values are schemas, lists of schemas or maps of schemas.
const ONE: [&str; 4] = ["items", "additionalItems", "additionalProperties", "not"];
const LIST: [&str; 5] = ["allOf", "anyOf", "oneOf", "prefixItems", "items"];
const MAP: [&str; 4] = ["properties", "patternProperties", "$defs", "definitions"];

/// Returns the schema as the engine needs it.
///
/// # Errors
/// [`Error::Argument`] for an invalid schema, or one that exceeds a limit.
pub(super) fn prepared(schema: &Value, limits: &GrammarLimits) -> Result<Value> {
    check_size(schema, limits)?;
    if !schema.is_object() {
        return Ok(schema.clone());
    }
    let merge = Merge::new(limits.max_symbols, limits.max_members);
    let mut walk = Walk { root: schema, limits, seen: HashMap::new(), merge, multiples: Vec::new(), patterned: false };
    let (_, shape) = walk.schema(schema, 1)?;
    walk.merge.check(&shape)?;
    walk.check_multiples()?;
    let mut prepared = schema.clone();
    rewrite(&mut prepared, walk.patterned)?;
    if let Value::Object(keys) = &mut prepared {
        let settings = keys.entry(SETTINGS).or_insert_with(|| Value::Object(Map::new()));
        if let Value::Object(settings) = settings {
            if !settings.contains_key("whitespace_flexible") {
                settings.entry("whitespace_pattern").or_insert_with(|| WHITE_SPACE.into());
            }
            settings.entry("json_allowed_escapes").or_insert_with(|| ESCAPES.into());
        }
    }
    Ok(prepared)
}

/// Resolves a `$ref`: a pointer into the same document without escapes.
pub(super) fn target<'s>(root: &'s Value, reference: &str) -> Option<&'s Value> {
    parts(reference)?.iter().try_fold(root, |value, part| match value {
        Value::Array(items) => items.get(part.parse::<usize>().ok()?),
        other => other.get(part),
    })
}

fn parts(reference: &str) -> Option<Vec<&str>> {
    match reference {
        "#" | "#/" => Some(Vec::new()),
        other => Some(other.strip_prefix("#/")?.split('/').collect()),
    }
}

fn wrong(expected: impl Into<String>, found: impl std::fmt::Display) -> Error {
    Error::argument("json schema", expected, found)
}

fn shown(value: &Value) -> String {
    let text = value.to_string();
    if text.chars().count() > 80 { text.chars().take(80).chain(['…']).collect() } else { text }
}

/// Checks the number of values and their depth without recursion.
fn check_size(schema: &Value, limits: &GrammarLimits) -> Result<()> {
    let mut left = vec![(schema, 1)];
    let mut count = 0;
    // One level of schema nesting takes up to three levels of values, such as a map of properties.
    let max_depth = limits.max_depth.saturating_mul(3);
    while let Some((value, depth)) = left.pop() {
        count += 1;
        if count > limits.max_values {
            return Err(wrong(format!("at most {} values", limits.max_values), "more"));
        }
        if depth > max_depth {
            return Err(wrong(format!("values nested at most {max_depth} deep"), "deeper ones"));
        }
        match value {
            Value::Array(items) => left.extend(items.iter().map(|item| (item, depth + 1))),
            Value::Object(keys) => left.extend(keys.values().map(|value| (value, depth + 1))),
            _ => {}
        }
    }
    Ok(())
}

/// Traverses a schema in the engine's order.
struct Walk<'s> {
    root: &'s Value,
    limits: &'s GrammarLimits,
    /// Number of members of each referenced schema, once it is known.
    seen: HashMap<&'s str, usize>,
    merge: Merge<'s>,
    /// Digits of each `multipleOf`, and how many of them are decimals.
    multiples: Vec<(u64, u32)>,
    /// Whether any string has a constraint besides its length.
    patterned: bool,
}

impl<'s> Walk<'s> {
    /// Checks a schema, and returns the number of its members and its shape.
    fn schema(&mut self, schema: &'s Value, depth: usize) -> Result<(usize, Shape<'s>)> {
        if depth > self.limits.max_depth {
            return Err(wrong(
                format!("schemas nested at most {} deep, `$ref`s counted", self.limits.max_depth),
                "deeper ones",
            ));
        }
        let keys = match schema {
            Value::Bool(any) => return Ok((0, if *any { Shape::Any } else { Shape::Never })),
            Value::Object(keys) => keys,
            other => return Err(wrong("an object, true or false as a schema", shown(other))),
        };
        check_kinds(keys)?;
        self.patterned |= ["pattern", "format", "const", "enum"].iter().any(|key| keys.contains_key(*key));
        let types: Vec<&str> = match keys.get("type") {
            Some(Value::String(name)) => vec![name],
            Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).collect(),
            _ => TYPES.to_vec(),
        };
        let is = |name: &str| types.contains(&name);
        let mut members = 0;
        let mut whole = Shape::Any;
        // Keys are compiled in order; the keys of arrays and of objects as one group each, before
        // the next other key.
        let mut group: Vec<(&'s str, &'s Value)> = Vec::new();
        for (key, value) in keys {
            let in_place = ["const", "enum", "allOf", "anyOf", "oneOf", "$ref"].contains(&key.as_str());
            if in_place {
                let (count, shape) = self.group(&mut group, &types, depth)?;
                members += count;
                whole = self.merge.both(whole, shape)?;
            }
            match (key.as_str(), value) {
                ("allOf", Value::Array(parts)) => {
                    for part in parts {
                        let (count, shape) = self.schema(part, depth + 1)?;
                        members += count;
                        whole = self.merge.both(whole, shape)?;
                    }
                }
                ("anyOf" | "oneOf", Value::Array(options)) => {
                    let mut most = options.len();
                    let mut shapes = Vec::with_capacity(options.len());
                    for option in options {
                        let (count, shape) = self.schema(option, depth + 1)?;
                        most = most.max(count);
                        shapes.push(shape);
                    }
                    members += most;
                    whole = self.merge.both(whole, Shape::options(key == "oneOf", shapes))?;
                }
                ("$ref", Value::String(reference)) => {
                    members += self.reference(reference, depth)?;
                    whole = self.merge.both(whole, Shape::Ref(reference))?;
                }
                ("const", value) => {
                    check_literal(value)?;
                    whole = self.merge.both(whole, Shape::literal(value))?;
                }
                ("enum", Value::Array(values)) => {
                    values.iter().try_for_each(check_literal)?;
                    let options = Shape::options(false, values.iter().map(Shape::literal).collect());
                    whole = self.merge.both(whole, options)?;
                }
                ("multipleOf", Value::Number(number)) if is("number") || is("integer") => {
                    self.multiples.push(multiple(number.as_f64().unwrap_or(0.0))?);
                }
                _ => {}
            }
            if !in_place {
                group.push((key, value));
            }
        }
        let (count, shape) = self.group(&mut group, &types, depth)?;
        members += count;
        whole = self.merge.both(whole, shape)?;
        if members > self.limits.max_members {
            let expected = format!("at most {} properties, items or options in one place", self.limits.max_members);
            return Err(wrong(expected, members));
        }
        Ok((members, whole))
    }

    /// Compiles the keys of arrays, then those of objects.
    fn group(
        &mut self,
        group: &mut Vec<(&'s str, &'s Value)>,
        types: &[&str],
        depth: usize,
    ) -> Result<(usize, Shape<'s>)> {
        let group = std::mem::take(group);
        let is = |name: &str| types.contains(&name);
        let (mut first, mut rest, mut object) = (Vec::new(), None, Object::default());
        let of =
            |names: &'static [&'static str]| names.iter().filter_map(|name| group.iter().find(|(key, _)| key == name));
        let mut members = 0;
        for (_, value) in of(&["prefixItems", "items", "additionalItems"]).filter(|_| is("array")) {
            match value {
                Value::Array(items) => {
                    members += items.len();
                    for item in items {
                        first.push(self.schema(item, depth + 1)?.1);
                    }
                }
                one => rest = Some(self.schema(one, depth + 1)?.1),
            }
        }
        for (key, value) in of(&["properties", "patternProperties", "additionalProperties"]).filter(|_| is("object")) {
            match value {
                Value::Object(map) if *key != "additionalProperties" => {
                    members += map.len();
                    let shapes = if *key == "properties" { &mut object.named } else { &mut object.patterns };
                    for (name, schema) in map {
                        shapes.insert(name, self.schema(schema, depth + 1)?.1);
                    }
                }
                one => object.rest = Some(self.schema(one, depth + 1)?.1),
            }
        }
        if let Some((_, Value::Array(names))) = of(&["required"]).next() {
            let listed = of(&["properties"]).next().map(|(_, map)| map);
            let known =
                |name: &Value| name.as_str().is_some_and(|name| listed.is_some_and(|map| map.get(name).is_some()));
            members += names.iter().filter(|name| !known(name)).count();
            object.required = names.len();
        }
        if group.iter().all(|(key, _)| !DESCRIBING.contains(key)) {
            return Ok((members, Shape::Any));
        }
        let patterns: Vec<usize> =
            of(&["pattern", "format"]).map(|(_, text)| text.as_str().map_or(0, str::len)).collect();
        let text = Shape::text(patterns.len(), patterns.iter().sum());
        let (array, object) = (Shape::array(first, rest), self.merge.object(object)?);
        let shape = |name: &&str| match *name {
            "null" => Shape::Plain("null"),
            "boolean" => Shape::Plain("boolean"),
            "string" => text.clone(),
            "array" => array.clone(),
            "object" => object.clone(),
            _ => Shape::Plain("number"),
        };
        Ok((members, Shape::options(false, types.iter().map(shape).collect())))
    }

    fn reference(&mut self, reference: &'s str, depth: usize) -> Result<usize> {
        if let Some(&members) = self.seen.get(reference) {
            return Ok(members);
        }
        let expected = "`$ref`s of the form #/… to a part of the schema";
        let named = target(self.root, reference).ok_or_else(|| wrong(expected, reference))?;
        self.seen.insert(reference, 0);
        let (members, shape) = self.schema(named, depth + 1)?;
        self.seen.insert(reference, members);
        self.merge.name(reference, shape);
        Ok(members)
    }

    /// Checks that remainders are representable, also for two multiples at once.
    fn check_multiples(&self) -> Result<()> {
        let decimals = self.multiples.iter().map(|&(_, decimals)| decimals).max().unwrap_or(0);
        let mut together = 1u64;
        for &(digits, own) in &self.multiples {
            let digits = digits.saturating_mul(10u64.saturating_pow(decimals - own));
            together = (together / gcd(together, digits)).saturating_mul(digits);
        }
        let sum: u64 = self.multiples.iter().map(|&(digits, _)| digits).sum();
        let distinct: HashSet<_> = self.multiples.iter().collect();
        if sum > MAX_MULTIPLES || (distinct.len() > 1 && together > MAX_MULTIPLE) {
            let expected =
                format!("`multipleOf`s with a common multiple of at most {MAX_MULTIPLE} units of the last decimal");
            return Err(wrong(expected, if sum > MAX_MULTIPLES { sum } else { together }));
        }
        Ok(())
    }
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// Returns a multiple as an integer, and how many of its digits are decimals.
fn multiple(number: f64) -> Result<(u64, u32)> {
    let expected = || format!("a `multipleOf` above 0 of at most {MAX_MULTIPLE} units of its last decimal");
    let (mut value, mut decimals) = (number.abs(), 0);
    while value.fract() != 0.0 && decimals < 9 {
        value *= 10.0;
        decimals += 1;
    }
    if value.fract() == 0.0 && value > 0.0 && value <= MAX_MULTIPLE as f64 {
        Ok((value as u64, decimals))
    } else {
        Err(wrong(expected(), number))
    }
}

/// Checks the type of each key's value.
fn check_kinds(keys: &Map<String, Value>) -> Result<()> {
    let texts = |value: &Value| value.as_array().is_some_and(|list| list.iter().all(Value::is_string));
    for (key, value) in keys {
        let (fits, expected) = match key.as_str() {
            "$ref" | "pattern" | "format" | "$schema" => (value.is_string(), "a string"),
            "minimum" | "maximum" | "multipleOf" => (value.is_number(), "a number"),
            "exclusiveMinimum" | "exclusiveMaximum" => (value.is_number() || value.is_boolean(), "a number"),
            "minLength" | "maxLength" | "minItems" | "maxItems" | "minProperties" | "maxProperties" => {
                (value.as_u64().is_some_and(|n| n <= u64::from(u32::MAX) / 2), "a whole number below 2147483648")
            }
            "required" => (texts(value), "a list of strings"),
            "type" => (value.is_string() || texts(value), "the name of a type or a list of them"),
            "allOf" | "anyOf" | "oneOf" | "prefixItems" | "enum" => (value.is_array(), "a list"),
            "properties" | "patternProperties" => (value.is_object(), "an object"),
            _ => continue,
        };
        if !fits {
            return Err(wrong(format!("`{key}` with {expected}"), shown(value)));
        }
    }
    Ok(())
}

/// Checks that the strings of a literal can be generated and its numbers are exact.
fn check_literal(value: &Value) -> Result<()> {
    let mut left = vec![value];
    while let Some(value) = left.pop() {
        match value {
            Value::String(text) => {
                let unwritten = |c: char| (c < ' ' || c == '\u{7f}') && !"\n\r\u{8}\t\u{c}".contains(c);
                if let Some(c) = text.chars().find(|&c| unwritten(c)) {
                    let expected = "strings in `const` and `enum` without control characters that have no short escape";
                    return Err(wrong(expected, format!("U+{:04X}", c as u32)));
                }
            }
            Value::Number(number) if number.as_f64().is_none_or(|x| x.abs() > MAX_EXACT) => {
                return Err(wrong(format!("numbers within ±{MAX_EXACT} in `const` and `enum`"), number));
            }
            Value::Array(items) => left.extend(items),
            Value::Object(keys) => left.extend(keys.values()),
            _ => {}
        }
    }
    Ok(())
}

/// Rewrites the patterns and bounds of all schemas in a document, nested and referenced ones.
fn rewrite(root: &mut Value, patterned: bool) -> Result<()> {
    let mut seen: HashSet<Vec<String>> = HashSet::new();
    let mut left: Vec<Vec<String>> = vec![Vec::new()];
    while let Some(path) = left.pop() {
        if !seen.insert(path.clone()) {
            continue;
        }
        let Some(Value::Object(keys)) = path.iter().try_fold(&mut *root, |value, part| match value {
            Value::Array(items) => items.get_mut(part.parse::<usize>().ok()?),
            other => other.get_mut(part),
        }) else {
            continue;
        };
        let below = |parts: &[&str]| path.iter().cloned().chain(parts.iter().map(|part| part.to_string())).collect();
        if let Some(Value::String(reference)) = keys.get("$ref") {
            left.extend(parts(reference).map(|parts| parts.into_iter().map(str::to_string).collect::<Vec<_>>()));
        }
        if let Some(Value::String(text)) = keys.get_mut("pattern") {
            *text = rewritten(text)?;
        }
        if let Some(Value::Object(map)) = keys.get_mut("patternProperties") {
            let old = std::mem::take(map);
            for (text, schema) in old {
                map.insert(rewritten(&text)?, schema);
            }
        }
        if patterned && keys.get("minLength").and_then(Value::as_u64).is_some_and(|n| n > MAX_COUNTED) {
            return Err(wrong(
                format!("a `minLength` of at most {MAX_COUNTED} in a schema with patterns"),
                &keys["minLength"],
            ));
        }
        if let Some(most) = keys.get_mut("maxLength").filter(|n| patterned && n.as_u64() > Some(MAX_COUNTED)) {
            *most = MAX_COUNTED.into();
        }
        for (key, far) in BOUNDS {
            if let Some(bound) = keys.get_mut(key).filter(|bound| bound.is_number()) {
                *bound = exact(key, bound, far)?;
            }
        }
        for key in ONE {
            if keys.get(key).is_some_and(Value::is_object) {
                left.push(below(&[key]));
            }
        }
        for key in LIST {
            let count = keys.get(key).and_then(Value::as_array).map_or(0, Vec::len);
            left.extend((0..count).map(|i| below(&[key, &i.to_string()])));
        }
        for key in MAP {
            if let Some(Value::Object(map)) = keys.get(key) {
                left.extend(map.keys().map(|name| below(&[key, name])));
            }
        }
    }
    Ok(())
}

/// Bounds of numbers, and the direction in which a distant bound has no effect.
const BOUNDS: [(&str, f64); 4] =
    [("minimum", -1.0), ("exclusiveMinimum", -1.0), ("maximum", 1.0), ("exclusiveMaximum", 1.0)];

/// Clamps a bound to the exact range where it has no effect beyond it.
fn exact(key: &str, bound: &Value, far: f64) -> Result<Value> {
    let x = bound.as_f64().unwrap_or(f64::NAN);
    if x.abs() <= MAX_EXACT {
        return Ok(bound.clone());
    }
    if x * far > 0.0 {
        return Ok(Value::from((far * MAX_EXACT) as i64));
    }
    Err(wrong(format!("`{key}` within ±{MAX_EXACT}"), bound))
}

fn rewritten(text: &str) -> Result<String> {
    pattern::in_strings(text).map_err(|why| wrong("a valid `pattern`", format!("{text:?}: {why}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn refused(schema: &Value) -> String {
        prepared(schema, &GrammarLimits::default()).unwrap_err().to_string()
    }

    #[test]
    fn patterns_are_rewritten_where_they_are_patterns() {
        let schema = json!({
            "properties": {"pattern": {"type": "string", "pattern": "^[^\"]$"}, "b": {"const": {"pattern": "^[^\"]$"}}},
            "patternProperties": {"^[^\\\\]$": {"$ref": "#/components/a"}},
            "components": {"a": {"pattern": "^.$"}},
        });
        let prepared = prepared(&schema, &GrammarLimits::default()).unwrap();
        assert_ne!(prepared["properties"]["pattern"]["pattern"], "^[^\"]$");
        assert_eq!(prepared["properties"]["b"], schema["properties"]["b"]);
        assert_ne!(prepared["components"]["a"]["pattern"], "^.$");
        assert!(prepared["patternProperties"].get("^[^\\\\]$").is_none());
        assert_eq!(prepared[SETTINGS]["json_allowed_escapes"], ESCAPES);
        assert_eq!(self::prepared(&json!(true), &GrammarLimits::default()).unwrap(), json!(true));
    }

    #[test]
    fn what_is_too_deep_too_wide_or_too_large_is_refused() {
        let chain = |levels: usize| {
            let refs = (0..levels).map(|i| (format!("d{i}"), json!({"$ref": format!("#/$defs/d{}", i + 1)})));
            let last = std::iter::once((format!("d{levels}"), json!({"type": "null"})));
            json!({"$ref": "#/$defs/d0", "$defs": refs.chain(last).collect::<Map<_, _>>()})
        };
        assert!(prepared(&chain(100), &GrammarLimits::default()).is_ok());
        assert!(refused(&chain(1000)).contains("at most 128 deep"));
        let mut nested = json!({});
        for _ in 0..200 {
            nested = json!({ "items": nested });
        }
        assert!(refused(&nested).contains("at most 128 deep"));
        let wide: Map<String, Value> = (0..2000).map(|i| (format!("p{i}"), json!({}))).collect();
        assert!(refused(&json!({ "properties": wide })).contains("at most 1000 properties"));
        let part = |from: usize| -> Value {
            json!({"properties": (from..from + 600).map(|i| (format!("p{i}"), json!({}))).collect::<Map<_, _>>()})
        };
        assert!(refused(&json!({"allOf": [part(0), part(600)]})).contains("at most 1000 properties"));
        assert!(refused(&json!({ "enum": vec![0; 30_000] })).contains("at most 20000 values"));
        let wider = GrammarLimits { max_members: 4000, ..GrammarLimits::default() };
        assert!(prepared(&json!({ "properties": wide }), &wider).is_ok());
    }

    #[test]
    fn what_grows_when_it_is_merged_is_refused() {
        let options = |n: usize| -> Vec<Value> {
            (0..n).map(|i| json!({"type": "object", "properties": {"k": {"const": i}}, "required": ["k"]})).collect()
        };
        let named = |n: usize| -> Map<String, Value> {
            let value = json!({"pattern": "a", "properties": {"b": {"type": "null"}, "c": {"type": "integer"}}});
            (0..n).map(|i| (format!("p{i}"), value.clone())).collect()
        };
        // Next to the options, in a `$ref`, and a level deeper.
        let beside = |n: usize, m: usize| json!({"properties": named(n), "oneOf": options(m)});
        let referred = |n: usize, m: usize| {
            let defs = json!({"a": {"oneOf": options(m)}});
            json!({"properties": named(n), "$ref": "#/$defs/a", "$defs": defs})
        };
        let deeper = |n: usize, m: usize| {
            let parts = [json!({"properties": named(n)}), json!({"oneOf": options(m)})];
            json!({"allOf": parts.map(|part| json!({"properties": {"a": {"items": part}}}))})
        };
        for schema in [&beside as &dyn Fn(usize, usize) -> Value, &referred, &deeper] {
            assert!(prepared(&schema(200, 4), &GrammarLimits::default()).is_ok());
            assert!(refused(&schema(500, 133)).contains("at most 100000 parts after merging"));
        }
        let patterns =
            |n: usize| json!({"allOf": (0..n).map(|i| json!({"pattern": format!("a{i}")})).collect::<Vec<_>>()});
        assert!(prepared(&patterns(8), &GrammarLimits::default()).is_ok());
        assert!(refused(&patterns(9)).contains("at most 8 patterns"));
        // Descriptions that refer to one another, and to themselves, do not grow.
        let defs: Map<String, Value> = (0..40)
            .map(|i| {
                let next = json!({"$ref": format!("#/$defs/d{}", i * 7 % 40)});
                let all = json!([{"$ref": "#/$defs/base"}, {"properties": {"next": next, "kind": {"const": i}}}]);
                (format!("d{i}"), json!({ "allOf": all }))
            })
            .chain([("base".to_string(), json!({"type": "object", "properties": named(20)}))])
            .collect();
        let all: Vec<Value> = (0..40).map(|i| json!({"$ref": format!("#/$defs/d{i}")})).collect();
        assert!(prepared(&json!({"anyOf": all, "$defs": defs}), &GrammarLimits::default()).is_ok());
    }

    #[test]
    fn what_the_engine_would_stumble_over_is_named() {
        for (schema, word) in [
            (json!({"minimum": "é".repeat(200)}), "minimum"),
            (json!({"multipleOf": 0}), "multipleOf"),
            (json!({"multipleOf": 4_000_000_007u64}), "multipleOf"),
            (json!({"allOf": [{"multipleOf": 9973}, {"multipleOf": 9967}]}), "multipleOf"),
            (json!({"maxLength": -1}), "maxLength"),
            (json!({"const": "\u{1}"}), "U+0001"),
            (json!({"enum": [1, i64::MIN]}), "-9223372036854775808"),
            (json!({"type": "integer", "const": 1e308}), "1e+308"),
            (json!({"minimum": u64::MAX}), "minimum"),
            (json!({"$ref": "other.json"}), "other.json"),
            (json!({"pattern": "("}), "unclosed group"),
            (json!([]), "schema"),
        ] {
            let error = match prepared(&schema, &GrammarLimits::default()) {
                Err(error) => error.to_string(),
                Ok(_) => continue,
            };
            assert!(error.contains(word), "{error}");
        }
        assert_eq!(multiple(0.05).unwrap(), (5, 2));
        let long = prepared(&json!({"maxLength": 5804846, "pattern": "a"}), &GrammarLimits::default());
        assert_eq!(long.unwrap()["maxLength"], 10_000);
        assert!(refused(&json!({"minLength": 5804846, "pattern": "a"})).contains("minLength"));
        let wide = json!({"minimum": i64::MIN, "maximum": i64::MAX, "exclusiveMaximum": 5});
        let wide = prepared(&wide, &GrammarLimits::default()).unwrap();
        assert_eq!((&wide["minimum"], &wide["maximum"]), (&json!(-9007199254740991i64), &json!(9007199254740991i64)));
    }
}
