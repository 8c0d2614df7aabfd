//! Size of a schema after merging: `allOf`, options, a `$ref` next to other keys, properties and
//! patterns of their names.
//!
//! The engine merges by copying: each option of a `oneOf` gets a copy of everything next to it.
//! Here, equal parts are stored once and counted as if they were copied, so that an excessive size
//! is detected before memory is used.

use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

use serde_json::Value;

use crate::error::{Error, Result};

/// Maximum depth of merging in the engine.
const MAX_LEVEL: usize = 128;

/// Maximum number of pairs that are merged: several times the engine's limit.
const MAX_PAIRS: usize = 200_000;

/// Copied parts allowed per part of the limit.
const COPIES_PER_PART: usize = 10;

/// Maximum number of patterns for one string: the engine tries the combinations of their
/// alternatives.
pub(super) const MAX_PATTERNS: usize = 8;

/// Length of a string that costs as much as one part to copy.
const TEXT_PER_PART: usize = 128;

/// A schema as the engine sees it.
#[derive(Clone)]
pub(super) enum Shape<'s> {
    Any,
    Never,
    /// Null, a boolean or a number.
    Plain(&'static str),
    /// A string that must match several patterns.
    Text {
        patterns: usize,
        parts: usize,
    },
    Array(Rc<Array<'s>>),
    Object(Rc<Object<'s>>),
    Options(Rc<Options<'s>>),
    Ref(&'s str),
}

pub(super) struct Array<'s> {
    first: Vec<Shape<'s>>,
    rest: Option<Shape<'s>>,
    parts: usize,
}

#[derive(Default)]
pub(super) struct Object<'s> {
    pub(super) named: BTreeMap<&'s str, Shape<'s>>,
    pub(super) patterns: BTreeMap<&'s str, Shape<'s>>,
    pub(super) rest: Option<Shape<'s>>,
    /// Number of required names.
    pub(super) required: usize,
    parts: usize,
}

pub(super) struct Options<'s> {
    /// Whether exactly one of them must match.
    one: bool,
    shapes: Vec<Shape<'s>>,
    parts: usize,
}

impl<'s> Shape<'s> {
    /// Number of parts that the engine stores.
    pub(super) fn parts(&self) -> usize {
        match self {
            Self::Any | Self::Never | Self::Ref(_) | Self::Plain(_) => 1,
            Self::Text { parts, .. } => *parts,
            Self::Array(array) => array.parts,
            Self::Object(object) => object.parts,
            Self::Options(options) => options.parts,
        }
    }

    /// A string with `patterns` patterns of total length `len`.
    pub(super) fn text(patterns: usize, len: usize) -> Self {
        Self::Text { patterns, parts: 1 + len / TEXT_PER_PART }
    }

    pub(super) fn array(first: Vec<Self>, rest: Option<Self>) -> Self {
        let parts = sum(first.iter().chain(&rest));
        Self::Array(Rc::new(Array { first, rest, parts }))
    }

    pub(super) fn object(mut object: Object<'s>) -> Self {
        let texts: usize = object.named.keys().chain(object.patterns.keys()).map(|name| name.len()).sum();
        let shapes = object.named.values().chain(object.patterns.values()).chain(&object.rest);
        object.parts = sum(shapes).saturating_add(object.required + texts / TEXT_PER_PART);
        Self::Object(Rc::new(object))
    }

    /// One of several shapes, without the impossible ones.
    pub(super) fn options(one: bool, shapes: Vec<Self>) -> Self {
        let mut kept = Vec::with_capacity(shapes.len());
        for shape in shapes {
            match shape {
                Self::Never => {}
                Self::Any if !one => return Self::Any,
                Self::Options(inner) if inner.one == one => kept.extend(inner.shapes.iter().cloned()),
                other => kept.push(other),
            }
        }
        match kept.len() {
            0 => Self::Never,
            1 => kept.remove(0),
            _ => Self::several(one, kept),
        }
    }

    fn several(one: bool, shapes: Vec<Self>) -> Self {
        let parts = sum(&shapes);
        Self::Options(Rc::new(Options { one, shapes, parts }))
    }

    /// A shape that only `value` matches; as deep as the JSON parser allows.
    pub(super) fn literal(value: &'s Value) -> Self {
        match value {
            Value::Null => Self::Plain("null"),
            Value::Bool(_) => Self::Plain("boolean"),
            Value::Number(_) => Self::Plain("number"),
            Value::String(text) => Self::text(0, text.len()),
            Value::Array(items) => Self::array(items.iter().map(Self::literal).collect(), Some(Self::Never)),
            Value::Object(map) => Self::object(Object {
                named: map.iter().map(|(name, value)| (name.as_str(), Self::literal(value))).collect(),
                rest: Some(Self::Never),
                required: map.len(),
                ..Object::default()
            }),
        }
    }
}

fn sum<'a, 's: 'a>(shapes: impl IntoIterator<Item = &'a Shape<'s>>) -> usize {
    shapes.into_iter().fold(1, |sum: usize, shape| sum.saturating_add(shape.parts()))
}

/// Merges shapes within limits.
pub(super) struct Merge<'s> {
    max_parts: usize,
    max_options: usize,
    /// Shape of each `$ref`.
    named: HashMap<&'s str, Shape<'s>>,
    pairs: usize,
    copied: usize,
}

impl<'s> Merge<'s> {
    /// Sets the limits: of stored parts, and of options of a `oneOf`, which the engine compares in
    /// pairs.
    pub(super) fn new(max_parts: usize, max_options: usize) -> Self {
        Self { max_parts, max_options, named: HashMap::new(), pairs: 0, copied: 0 }
    }

    /// Sets the shape of a `$ref`.
    pub(super) fn name(&mut self, reference: &'s str, shape: Shape<'s>) {
        self.named.insert(reference, shape);
    }

    /// Checks that the merged whole is within the limits.
    pub(super) fn check(&self, whole: &Shape<'_>) -> Result<()> {
        self.fits(self.named.values().fold(whole.parts(), |sum, shape| sum.saturating_add(shape.parts())))
    }

    fn fits(&self, parts: usize) -> Result<()> {
        if parts <= self.max_parts { Ok(()) } else { Err(self.too_large()) }
    }

    fn too_large(&self) -> Error {
        let expected =
            format!("at most {} parts after merging (`allOf`, options, a `$ref` next to other keys)", self.max_parts);
        Error::argument("json schema", expected, "more")
    }

    fn copy(&mut self, shape: &Shape<'s>) -> Result<Shape<'s>> {
        self.copied = self.copied.saturating_add(shape.parts());
        if self.copied > self.max_parts.saturating_mul(COPIES_PER_PART) {
            return Err(self.too_large());
        }
        Ok(shape.clone())
    }

    /// Returns the intersection of both shapes.
    ///
    /// # Errors
    /// [`Error::Argument`] if the result exceeds a limit.
    pub(super) fn both(&mut self, a: Shape<'s>, b: Shape<'s>) -> Result<Shape<'s>> {
        self.pair(a, b, 0)
    }

    fn pair(&mut self, a: Shape<'s>, b: Shape<'s>, level: usize) -> Result<Shape<'s>> {
        self.pairs += 1;
        if self.pairs > MAX_PAIRS || level > MAX_LEVEL {
            return Err(self.too_large());
        }
        let merged = match (a, b) {
            (Shape::Any, other) | (other, Shape::Any) => other,
            (Shape::Never, _) | (_, Shape::Never) => Shape::Never,
            (Shape::Ref(reference), other) | (other, Shape::Ref(reference)) => {
                let named = self.named.get(reference).cloned().unwrap_or(Shape::Any);
                let named = self.copy(&named)?;
                self.pair(named, other, level + 2)?
            }
            (Shape::Options(options), other) | (other, Shape::Options(options)) if options.one => {
                self.each(&options, &other, level)?
            }
            (Shape::Options(options), other) | (other, Shape::Options(options)) => {
                self.each(&options, &other, level)?
            }
            (Shape::Plain(a), Shape::Plain(b)) if a == b => Shape::Plain(a),
            (Shape::Text { patterns, parts }, Shape::Text { patterns: more, parts: other }) => {
                if patterns + more > MAX_PATTERNS {
                    let expected = format!("at most {MAX_PATTERNS} patterns for one string");
                    return Err(Error::argument("json schema", expected, patterns + more));
                }
                Shape::Text { patterns: patterns + more, parts: parts.saturating_add(other) }
            }
            (Shape::Array(a), Shape::Array(b)) => self.arrays(&a, &b, level + 1)?,
            (Shape::Object(a), Shape::Object(b)) => self.objects(&a, &b, level + 1)?,
            _ => Shape::Never,
        };
        self.fits(merged.parts())?;
        Ok(merged)
    }

    fn each(&mut self, options: &Options<'s>, other: &Shape<'s>, level: usize) -> Result<Shape<'s>> {
        let mut merged = Vec::with_capacity(options.shapes.len());
        let mut parts = 0usize;
        for option in &options.shapes {
            let copy = self.copy(other)?;
            let shape = self.pair(option.clone(), copy, level + 1)?;
            parts = parts.saturating_add(shape.parts());
            self.fits(parts)?;
            merged.push(shape);
        }
        let merged = Shape::options(options.one, merged);
        match &merged {
            Shape::Options(all) if all.one && all.shapes.len() > self.max_options => {
                let expected = format!("at most {} options in one place after merging", self.max_options);
                Err(Error::argument("json schema", expected, all.shapes.len()))
            }
            _ => Ok(merged),
        }
    }

    fn maybe(&mut self, a: Option<&Shape<'s>>, b: Option<&Shape<'s>>, level: usize) -> Result<Option<Shape<'s>>> {
        match (a, b) {
            (Some(a), Some(b)) => Ok(Some(self.pair(a.clone(), b.clone(), level)?)),
            (one, other) => Ok(one.or(other).cloned()),
        }
    }

    fn arrays(&mut self, a: &Array<'s>, b: &Array<'s>, level: usize) -> Result<Shape<'s>> {
        let mut first = Vec::new();
        for i in 0..a.first.len().max(b.first.len()) {
            let of = |array: &Array<'s>| array.first.get(i).or(array.rest.as_ref()).cloned().unwrap_or(Shape::Any);
            let (a, b) = (self.copy(&of(a))?, self.copy(&of(b))?);
            first.push(self.pair(a, b, level)?);
        }
        let rest = self.maybe(a.rest.as_ref(), b.rest.as_ref(), level)?;
        Ok(Shape::array(first, rest))
    }

    fn objects(&mut self, a: &Object<'s>, b: &Object<'s>, level: usize) -> Result<Shape<'s>> {
        let mut merged = Object { required: a.required.saturating_add(b.required), ..Object::default() };
        let mut parts = 0usize;
        for (own, other) in [(a, b), (b, a)] {
            for (&name, shape) in &own.named {
                if !merged.named.contains_key(name) {
                    let shape = self.beside(name, shape, other, level)?;
                    parts = parts.saturating_add(shape.parts());
                    self.fits(parts)?;
                    merged.named.insert(name, shape);
                }
            }
            for (&pattern, shape) in &own.patterns {
                if !merged.patterns.contains_key(pattern) {
                    let counterpart = other.patterns.get(pattern).or(other.rest.as_ref());
                    let counterpart = self.copy(counterpart.unwrap_or(&Shape::Any))?;
                    merged.patterns.insert(pattern, self.pair(shape.clone(), counterpart, level)?);
                }
            }
        }
        merged.rest = self.maybe(a.rest.as_ref(), b.rest.as_ref(), level)?;
        Ok(Shape::object(merged))
    }

    /// Merges a property with what another object requires of it.
    fn beside(&mut self, name: &str, shape: &Shape<'s>, other: &Object<'s>, level: usize) -> Result<Shape<'s>> {
        match other.named.get(name) {
            Some(counterpart) => {
                let counterpart = self.copy(counterpart)?;
                self.pair(shape.clone(), counterpart, level)
            }
            None => {
                let rest = self.copy(other.rest.as_ref().unwrap_or(&Shape::Any))?;
                let rest = self.pair(shape.clone(), rest, level)?;
                self.matched(shape, rest, &other.patterns, level)
            }
        }
    }

    /// A property that may match patterns: at most the intersection of all of them.
    fn matched(
        &mut self,
        shape: &Shape<'s>,
        otherwise: Shape<'s>,
        patterns: &BTreeMap<&'s str, Shape<'s>>,
        level: usize,
    ) -> Result<Shape<'s>> {
        if patterns.is_empty() {
            return Ok(otherwise);
        }
        let mut all = vec![otherwise];
        for pattern in patterns.values() {
            let pattern = self.copy(pattern)?;
            all.push(self.pair(shape.clone(), pattern, level)?);
        }
        Ok(Shape::several(false, all))
    }

    /// An object with its properties merged with the patterns that their names may match.
    pub(super) fn object(&mut self, mut object: Object<'s>) -> Result<Shape<'s>> {
        let mut parts = 0usize;
        for (_, shape) in object.named.iter_mut().filter(|_| !object.patterns.is_empty()) {
            *shape = self.matched(shape, shape.clone(), &object.patterns, 0)?;
            parts = parts.saturating_add(shape.parts());
            self.fits(parts)?;
        }
        Ok(Shape::object(object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn objects<'s>(names: &[&'s str], shape: &Shape<'s>) -> Shape<'s> {
        let named = names.iter().map(|&name| (name, shape.clone())).collect();
        Shape::object(Object { named, ..Object::default() })
    }

    #[test]
    fn options_are_counted_with_a_copy_of_what_stands_beside_them() {
        let options = || Shape::options(false, vec![objects(&["x"], &Shape::Any), objects(&["y"], &Shape::Any)]);
        let wide = || objects(&["a", "b", "c"], &objects(&["d"], &Shape::Plain("null")));
        let mut merge = Merge::new(1000, 10);
        let both = merge.both(wide(), options()).unwrap();
        // Two options, each with three objects of a property, and with its own.
        assert_eq!(both.parts(), 1 + 2 * (1 + 3 * 2 + 1));
        assert!(matches!(merge.both(Shape::Plain("null"), options()).unwrap(), Shape::Never));
        assert!(Merge::new(16, 10).both(wide(), options()).is_err());
        // A referenced shape is merged where it has keys next to it.
        merge.name("#/a", wide());
        assert_eq!(merge.both(Shape::Ref("#/a"), Shape::Any).unwrap().parts(), 1);
        assert_eq!(merge.both(Shape::Ref("#/a"), options()).unwrap().parts(), both.parts());
        assert!(merge.check(&both).is_ok() && Merge::new(15, 10).check(&both).is_err());
        let one = |n: i32| Shape::options(true, (0..n).map(|_| objects(&["x"], &Shape::Any)).collect());
        assert!(merge.both(one(5), one(3)).is_err() && merge.both(one(3), one(3)).is_ok());
    }

    #[test]
    fn names_get_a_copy_of_the_patterns_that_they_may_match() {
        let named = |rest, patterns| Object { rest, patterns, ..Object::default() };
        let wide = || objects(&["a", "b", "c"], &Shape::Any);
        let few = || objects(&["x", "y"], &Shape::Any);
        let mut merge = Merge::new(1000, 10);
        let rest = merge.both(few(), Shape::object(named(Some(wide()), BTreeMap::new()))).unwrap();
        assert_eq!(rest.parts(), 1 + 2 * 4 + 4);
        let patterns = BTreeMap::from([("^x", wide())]);
        let matched = merge.both(few(), Shape::object(named(None, patterns.clone()))).unwrap();
        assert!(matched.parts() > 1 + 2 * 4 + 4);
        let own = Object { named: BTreeMap::from([("x", Shape::Any)]), patterns, ..Object::default() };
        assert!(merge.object(own).unwrap().parts() > 4 + 4);
    }
}
