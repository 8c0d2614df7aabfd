//! State of a rendering: its budget, reference cycles to break at the end, and access to attributes
//! and items of values.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use super::limits::{Budget, Result, fail};
use super::names;
use super::parser::Macro;
use super::value::{Kind, Loop, Object, Scope, Seq, Value, short};

/// Arguments of a function, filter, test or method.
pub(super) struct Args {
    pub(super) positional: Vec<Value>,
    pub(super) named: Vec<(Arc<str>, Value)>,
}

impl Args {
    /// Assigns the arguments to parameter names, in order; the first `required` must be present.
    pub(super) fn bind<const N: usize>(
        self,
        callee: &str,
        names: [&str; N],
        required: usize,
    ) -> Result<[Option<Value>; N]> {
        let mut bound = [const { None }; N];
        if self.positional.len() > N {
            return fail(format!("{}: expected at most {N} arguments, found {}", short(callee), self.positional.len()));
        }
        for (slot, value) in bound.iter_mut().zip(self.positional) {
            *slot = Some(value);
        }
        for (name, value) in self.named {
            let Some(at) = names.iter().position(|known| **known == *name) else {
                return fail(format!("{}: unexpected argument `{}`", short(callee), short(&name)));
            };
            if bound[at].replace(value).is_some() {
                return fail(format!("{}: argument `{name}` is given twice", short(callee)));
            }
        }
        match bound[..required].iter().position(Option::is_none) {
            Some(at) => fail(format!("{}: expected an argument `{}`", short(callee), names[at])),
            None => Ok(bound),
        }
    }
}

/// The state of a rendering.
pub(super) struct Runtime<'a> {
    pub(super) budget: &'a Budget,
    /// Scopes held by macros and namespaces, which could form reference cycles. They are emptied at
    /// the end.
    pub(super) scopes: RefCell<Vec<Rc<Scope>>>,
    pub(super) namespaces: RefCell<Vec<Rc<Object>>>,
}

impl Drop for Runtime<'_> {
    fn drop(&mut self) {
        for scope in self.scopes.take() {
            drop(scope.names.take());
        }
        // All are kept alive until the last is empty, so that dropping one never drops another
        // recursively.
        let namespaces = self.namespaces.take();
        for namespace in &namespaces {
            if let Object::Namespace(names) = &**namespace {
                drop(names.take());
            }
        }
    }
}

impl Runtime<'_> {
    /// Creates a macro with its enclosing scope.
    pub(super) fn closure(&self, of: &Arc<Macro>, scope: &Rc<Scope>) -> Result<Value> {
        let held = self.scopes.borrow().last().is_some_and(|last| Rc::ptr_eq(last, scope));
        if !held {
            self.budget.make(64)?;
            self.scopes.borrow_mut().push(Rc::clone(scope));
        }
        Value::object(self.budget, Object::Macro(Arc::clone(of), Rc::clone(scope)))
    }

    pub(super) fn namespace(&self, names: Vec<(Arc<str>, Value)>) -> Result<Value> {
        self.budget.make(names.len() * 64 + 128)?;
        let object = Rc::new(Object::Namespace(RefCell::new(names)));
        self.namespaces.borrow_mut().push(Rc::clone(&object));
        Ok(Value::Object(object))
    }

    /// `value.name`: methods take precedence over items.
    pub(super) fn attribute(&self, value: &Value, name: &Arc<str>) -> Result<Value> {
        value.defined()?;
        if let Some(found) = self.own_attribute(value, name)? {
            return Ok(found);
        }
        if let Value::Dict(dict) = value
            && let Some(found) = dict.get_str(self.budget, name)?
        {
            return Ok(found.clone());
        }
        Ok(Value::Undefined(Some(Arc::clone(name))))
    }

    /// `value[key]`: items take precedence over methods.
    pub(super) fn item(&self, value: &Value, key: &Value) -> Result<Value> {
        value.defined()?;
        let found = match (value, key) {
            (Value::Dict(dict), Value::Str(key)) => dict.get_str(self.budget, key)?.cloned(),
            (Value::Dict(dict), key) => dict.get(self.budget, key)?.cloned(),
            (Value::Seq(_) | Value::Str(_), key) => match key.as_int() {
                Some(index) => item_at(self.budget, value, index)?,
                None => None,
            },
            _ => None,
        };
        match (found, key) {
            (Some(found), _) => Ok(found),
            (None, Value::Str(name)) => {
                Ok(self.own_attribute(value, name)?.unwrap_or_else(|| Value::Undefined(Some(Arc::clone(name)))))
            }
            (None, _) => Ok(Value::Undefined(None)),
        }
    }

    /// Returns a method, or an attribute of an object.
    fn own_attribute(&self, value: &Value, name: &Arc<str>) -> Result<Option<Value>> {
        if names::has_method(value, name) {
            let method = Object::Method(value.clone(), Arc::clone(name));
            return Value::object(self.budget, method).map(Some);
        }
        let index = |of: &Seq, at: usize| Some(of.items.get(at).cloned().unwrap_or(Value::Undefined(None)));
        match value {
            Value::Seq(group) if group.kind == Kind::Group => Ok(match &**name {
                "grouper" => index(group, 0),
                "list" => index(group, 1),
                _ => None,
            }),
            Value::Object(object) => match &**object {
                Object::Namespace(names) => {
                    let names = names.borrow();
                    self.budget.items(names.len() / 4)?;
                    Ok(names.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone()))
                }
                Object::Loop(of) => Ok(loop_attribute(of, name)),
                Object::Cycler(items, at) if &**name == "current" => Ok(items.get(at.get()).cloned()),
                Object::Macro(of, _) if &**name == "name" => Ok(Some(Value::Str(Arc::clone(&of.name)))),
                _ => Ok(None),
            },
            _ => Ok(None),
        }
    }
}

fn loop_attribute(of: &Loop, name: &str) -> Option<Value> {
    let (index, len) = (of.index.get(), of.items.items.len());
    let number = |number: usize| Some(Value::Int(number as i128));
    let item =
        |at: Option<usize>| Some(at.and_then(|at| of.items.items.get(at)).cloned().unwrap_or(Value::Undefined(None)));
    match name {
        "index" => number(index + 1),
        "index0" => number(index),
        "revindex" => number(len - index),
        "revindex0" => number(len - index - 1),
        "first" => Some(Value::Bool(index == 0)),
        "last" => Some(Value::Bool(index + 1 == len)),
        "length" => number(len),
        "depth" => number(of.nested + 1),
        "depth0" => number(of.nested),
        "previtem" => item(index.checked_sub(1)),
        "nextitem" => item(Some(index + 1)),
        _ => None,
    }
}

/// Returns an item of a list or a character of a string; negative indices count from the end.
pub(super) fn item_at(budget: &Budget, value: &Value, index: i128) -> Result<Option<Value>> {
    let len = match value {
        Value::Seq(seq) if seq.kind == Kind::Generator => return Ok(None),
        _ => value.len(budget)?,
    };
    let at = if index < 0 { index + len as i128 } else { index };
    let Some(at) = usize::try_from(at).ok().filter(|&at| at < len) else { return Ok(None) };
    Ok(match value {
        Value::Seq(seq) => seq.items.get(at).cloned(),
        Value::Str(text) => {
            budget.read(text.len())?;
            let c = text.chars().nth(at);
            c.map(|c| Value::text(budget, c.encode_utf8(&mut [0; 4]))).transpose()?
        }
        _ => None,
    })
}
