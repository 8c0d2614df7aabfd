//! Renders a template's syntax tree.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use super::limits::{Budget, Failure, Result, Text, fail};
use super::parser::{Argument, Expr, For, Macro, Postfix, Stmt, StmtKind, Target};
use super::runtime::{Args, Runtime};
use super::value::{Kind, Loop, Object, Scope, Value, short};
use super::{arithmetic, filters, functions, methods, predicates};

/// Control flow after a statement.
#[derive(PartialEq)]
enum Flow {
    Next,
    Break,
    Continue,
}

/// Renders a template.
pub(super) fn render(template: &[Stmt], context: Vec<(Arc<str>, Value)>, budget: &Budget) -> Result<String> {
    let runtime = Runtime { budget, scopes: RefCell::default(), namespaces: RefCell::default() };
    let context = Rc::new(Scope { names: RefCell::new(context), parent: None });
    let mut out = Text::output(budget);
    runtime.statements(template, &Scope::inside(&context), &mut out)?;
    Ok(out.into_string())
}

impl Runtime<'_> {
    fn statements(&self, all: &[Stmt], scope: &Rc<Scope>, out: &mut Text<'_>) -> Result<Flow> {
        self.budget.frame(|| {
            for stmt in all {
                self.budget.step()?;
                let flow = self.statement(stmt, scope, out);
                let line = |failure: Failure| Failure { line: failure.line.or(Some(stmt.line)), ..failure };
                match flow.map_err(line)? {
                    Flow::Next => {}
                    other => return Ok(other),
                }
            }
            Ok(Flow::Next)
        })
    }

    /// Renders a body that cannot break or continue a loop outside of it.
    fn body(&self, all: &[Stmt], scope: &Rc<Scope>, out: &mut Text<'_>) -> Result<()> {
        self.statements(all, scope, out).map(drop)
    }

    fn captured(&self, all: &[Stmt], scope: &Rc<Scope>) -> Result<Value> {
        let mut out = Text::new(self.budget);
        self.body(all, scope, &mut out)?;
        Value::text(self.budget, &out.into_string())
    }

    fn statement(&self, stmt: &Stmt, scope: &Rc<Scope>, out: &mut Text<'_>) -> Result<Flow> {
        match &stmt.kind {
            StmtKind::Data(text) => out.push(text)?,
            StmtKind::Output(all) => {
                for expr in all {
                    self.eval(expr, scope)?.write(out)?;
                }
            }
            StmtKind::If(arms, otherwise) => {
                for (test, body) in arms {
                    if self.eval(test, scope)?.is_true() {
                        return self.statements(body, scope, out);
                    }
                }
                return self.statements(otherwise, scope, out);
            }
            StmtKind::For(of) => {
                let iter = self.eval(&of.iter, scope)?;
                self.for_loop(of, &iter, scope, 0, out)?;
            }
            StmtKind::Set(target, expr) => {
                let value = self.eval(expr, scope)?;
                self.assign(target, value, scope)?;
            }
            StmtKind::SetBlock(target, chain, body) => {
                let text = self.captured(body, &Scope::inside(scope))?;
                let text = self.chain(text, chain, scope)?;
                self.assign(target, text, scope)?;
            }
            StmtKind::With(assignments, body) => {
                let inner = Scope::inside(scope);
                for (target, expr) in assignments {
                    let value = self.eval(expr, scope)?;
                    self.assign(target, value, &inner)?;
                }
                return self.statements(body, &inner, out);
            }
            StmtKind::Macro(of) => {
                let value = self.closure(of, scope)?;
                self.name(&of.name, value, scope)?;
            }
            StmtKind::Call(callee, arguments, caller) => {
                let callee = self.eval(callee, scope)?;
                let mut args = self.arguments(arguments, scope)?;
                args.named.push(("caller".into(), self.closure(caller, scope)?));
                self.call(&callee, args)?.write(out)?;
            }
            StmtKind::FilterBlock(chain, body) => {
                let text = self.captured(body, &Scope::inside(scope))?;
                self.chain(text, chain, scope)?.write(out)?;
            }
            StmtKind::Generation(body) => self.body(body, &Scope::inside(scope), out)?,
            StmtKind::Break => return Ok(Flow::Break),
            StmtKind::Continue => return Ok(Flow::Continue),
        }
        Ok(Flow::Next)
    }

    fn for_loop(
        &self,
        of: &Arc<For>,
        iter: &Value,
        scope: &Rc<Scope>,
        nested: usize,
        out: &mut Text<'_>,
    ) -> Result<()> {
        iter_defined(iter)?;
        let mut items = iter.items(self.budget)?;
        if let Some(filter) = &of.filter {
            let mut kept = Vec::new();
            for item in items {
                let inner = Scope::inside(scope);
                self.assign(&of.target, item.clone(), &inner)?;
                if self.eval(filter, &inner)?.is_true() {
                    kept.push(item);
                }
            }
            items = kept;
        }
        let Value::Seq(items) = Value::list(self.budget, items)? else {
            return fail("internal error: the items of a loop are not a list");
        };
        let recursive = of.recursive.then(|| (Arc::clone(of), Rc::clone(scope)));
        let state =
            Loop { items: Rc::clone(&items), index: Cell::new(0), nested, changed: RefCell::default(), recursive };
        let state = Rc::new(Object::Loop(state));
        let Object::Loop(turns) = &*state else { return Ok(()) };
        let name: Arc<str> = "loop".into();
        let mut inner = Scope::inside(scope);
        // Jinja's `else` runs after a loop in which no iteration reached its end.
        let mut ended = false;
        for (i, item) in items.items.iter().enumerate() {
            turns.index.set(i);
            // Each iteration has a scope of its own, which is reused unless a macro holds the last
            // one.
            match Rc::get_mut(&mut inner) {
                Some(inner) => inner.names.get_mut().clear(),
                None => inner = Scope::inside(scope),
            }
            self.name(&name, Value::Object(Rc::clone(&state)), &inner)?;
            self.assign(&of.target, item.clone(), &inner)?;
            match self.statements(&of.body, &inner, out)? {
                Flow::Next => ended = true,
                Flow::Continue => {}
                Flow::Break => break,
            }
        }
        if ended { Ok(()) } else { self.body(&of.otherwise, &Scope::inside(scope), out) }
    }

    fn name(&self, name: &Arc<str>, value: Value, scope: &Scope) -> Result<()> {
        let mut names = scope.names.borrow_mut();
        self.budget.items(names.len() / 4)?;
        match names.iter_mut().find(|(known, _)| known == name) {
            Some((_, slot)) => *slot = value,
            None => {
                self.budget.make(48)?;
                names.push((Arc::clone(name), value));
            }
        }
        Ok(())
    }

    fn assign(&self, target: &Target, value: Value, scope: &Rc<Scope>) -> Result<()> {
        match target {
            Target::Name(name) => self.name(name, value, scope),
            Target::Attribute(name, attribute) => {
                let found = self.lookup(name, scope)?;
                found.defined()?;
                let Value::Object(object) = &found else {
                    return fail(format!("cannot assign an attribute of `{}`: it is not a namespace", short(name)));
                };
                let Object::Namespace(names) = &**object else {
                    return fail(format!("cannot assign an attribute of `{}`: it is not a namespace", short(name)));
                };
                if attribute.starts_with("__") {
                    return fail(format!("cannot assign the attribute `{}`", short(attribute)));
                }
                let mut names = names.borrow_mut();
                self.budget.items(names.len() / 4)?;
                match names.iter_mut().find(|(known, _)| known == attribute) {
                    Some((_, slot)) => {
                        let before = std::mem::replace(slot, value);
                        drop(names);
                        drop(before);
                    }
                    None => {
                        self.budget.make(48)?;
                        names.push((Arc::clone(attribute), value));
                    }
                }
                Ok(())
            }
            Target::Tuple(targets) => {
                iter_defined(&value)?;
                let items = value.items(self.budget)?;
                if items.len() != targets.len() {
                    return fail(format!("expected {} values to unpack, found {}", targets.len(), items.len()));
                }
                targets.iter().zip(items).try_for_each(|(target, item)| self.assign(target, item, scope))
            }
        }
    }

    fn lookup(&self, name: &Arc<str>, scope: &Rc<Scope>) -> Result<Value> {
        let mut at = Some(scope);
        while let Some(scope) = at {
            let names = scope.names.borrow();
            let found = names.iter().rfind(|(known, _)| known == name);
            self.budget.items(1 + names.len() / 4)?;
            if let Some((_, value)) = found {
                return Ok(value.clone());
            }
            at = scope.parent.as_ref();
        }
        Ok(match functions::named(name) {
            Some(function) => Value::Object(Rc::new(Object::Function(function))),
            None => Value::Undefined(Some(Arc::clone(name))),
        })
    }

    fn eval(&self, expr: &Expr, scope: &Rc<Scope>) -> Result<Value> {
        self.budget.step()?;
        match expr {
            Expr::Literal(literal) => Ok(Value::from_literal(literal)),
            Expr::Name(name) => self.lookup(name, scope),
            _ => self.budget.frame(|| self.compound(expr, scope)),
        }
    }

    fn all(&self, all: &[Expr], scope: &Rc<Scope>) -> Result<Vec<Value>> {
        self.budget.make(size_of_val(all))?;
        all.iter().map(|expr| self.eval(expr, scope)).collect()
    }

    fn compound(&self, expr: &Expr, scope: &Rc<Scope>) -> Result<Value> {
        match expr {
            Expr::Literal(_) | Expr::Name(_) => self.eval(expr, scope),
            Expr::List(all) => Value::list(self.budget, self.all(all, scope)?),
            Expr::Tuple(all) => Value::seq(self.budget, Kind::Tuple, self.all(all, scope)?),
            Expr::Dict(all) => {
                let mut entries = Vec::new();
                for (key, value) in all {
                    self.budget.make(64)?;
                    entries.push((self.eval(key, scope)?, self.eval(value, scope)?));
                }
                Value::dict(self.budget, entries)
            }
            Expr::Not(inner) => Ok(Value::Bool(!self.eval(inner, scope)?.is_true())),
            Expr::Negative(inner) => arithmetic::negative(&self.eval(inner, scope)?),
            Expr::Positive(inner) => arithmetic::positive(&self.eval(inner, scope)?),
            Expr::And(all) => self.first(all, scope, false),
            Expr::Or(all) => self.first(all, scope, true),
            Expr::Compare(first, chain) => {
                let mut left = self.eval(first, scope)?;
                for (comparison, right) in chain {
                    let right = self.eval(right, scope)?;
                    if !predicates::compare(self.budget, *comparison, &left, &right)? {
                        return Ok(Value::Bool(false));
                    }
                    left = right;
                }
                Ok(Value::Bool(true))
            }
            Expr::Arithmetic(first, chain) => {
                let mut left = self.eval(first, scope)?;
                for (operator, right) in chain {
                    let right = self.eval(right, scope)?;
                    left = arithmetic::apply(self.budget, *operator, &left, &right)?;
                }
                Ok(left)
            }
            Expr::Concat(all) => {
                let mut out = Text::new(self.budget);
                for expr in all {
                    self.eval(expr, scope)?.write(&mut out)?;
                }
                Value::text(self.budget, &out.into_string())
            }
            Expr::Postfix(value, chain) => {
                let value = self.eval(value, scope)?;
                self.chain(value, chain, scope)
            }
            Expr::If(arms, otherwise) => {
                for (test, value) in arms {
                    if self.eval(test, scope)?.is_true() {
                        return self.eval(value, scope);
                    }
                }
                otherwise.as_ref().map_or(Ok(Value::Undefined(None)), |value| self.eval(value, scope))
            }
        }
    }

    /// Returns the first operand with the given truth value, or the last operand.
    fn first(&self, all: &[Expr], scope: &Rc<Scope>, truth: bool) -> Result<Value> {
        let mut value = Value::None;
        for expr in all {
            value = self.eval(expr, scope)?;
            if value.is_true() == truth {
                break;
            }
        }
        Ok(value)
    }

    /// Applies postfix operations to a value.
    fn chain(&self, mut value: Value, chain: &[Postfix], scope: &Rc<Scope>) -> Result<Value> {
        for postfix in chain {
            self.budget.step()?;
            value = match postfix {
                Postfix::Attribute(name) => self.attribute(&value, name)?,
                Postfix::Item(key) => {
                    let key = self.eval(key, scope)?;
                    self.item(&value, &key)?
                }
                Postfix::Slice(parts) => {
                    let mut bounds = [Value::None, Value::None, Value::None];
                    for (bound, part) in bounds.iter_mut().zip(parts.iter()) {
                        if let Some(part) = part {
                            *bound = self.eval(part, scope)?;
                        }
                    }
                    arithmetic::slice(self.budget, &value, &bounds)?
                }
                Postfix::Call(arguments) => {
                    let args = self.arguments(arguments, scope)?;
                    self.call(&value, args)?
                }
                Postfix::Filter(name, arguments) => {
                    let args = self.arguments(arguments, scope)?;
                    filters::apply(self, name, &value, args)?
                }
                Postfix::Test { name, arguments, negated } => {
                    let args = self.arguments(arguments, scope)?;
                    Value::Bool(predicates::apply(self, name, &value, args)? != *negated)
                }
            };
        }
        Ok(value)
    }

    fn arguments(&self, all: &[Argument], scope: &Rc<Scope>) -> Result<Args> {
        let mut args = Args { positional: Vec::new(), named: Vec::new() };
        self.budget.make(all.len() * 64)?;
        for argument in all {
            match argument {
                Argument::Positional(expr) => args.positional.push(self.eval(expr, scope)?),
                Argument::Named(name, expr) => args.named.push((Arc::clone(name), self.eval(expr, scope)?)),
                Argument::Positionals(expr) => args.positional.extend(self.eval(expr, scope)?.items(self.budget)?),
                Argument::AllNamed(expr) => {
                    let Value::Dict(dict) = self.eval(expr, scope)? else { return fail("expected a dict after `**`") };
                    self.budget.make(dict.entries.len() * 64)?;
                    for (key, value) in &dict.entries {
                        let Value::Str(key) = key else { return fail("expected strings as keys of a dict after `**`") };
                        args.named.push((Arc::clone(key), value.clone()));
                    }
                }
            }
        }
        Ok(args)
    }

    pub(super) fn call(&self, callee: &Value, args: Args) -> Result<Value> {
        callee.defined()?;
        let Value::Object(object) = callee else { return fail(format!("`{}` cannot be called", callee.type_name())) };
        self.budget.step()?;
        match &**object {
            Object::Macro(of, scope) => self.budget.frame(|| self.call_macro(of, scope, args)),
            Object::Function(name) => functions::call(self, name, args),
            Object::Method(value, name) => methods::call(self, value, name, args),
            Object::Loop(Loop { recursive: Some((of, scope)), nested, .. }) => {
                let [items] = args.bind("loop", ["iterable"], 1)?.map(|value| value.unwrap_or(Value::None));
                let mut out = Text::new(self.budget);
                self.budget.frame(|| self.for_loop(of, &items, scope, nested + 1, &mut out))?;
                Value::text(self.budget, &out.into_string())
            }
            Object::Loop(_) => fail("a loop without `recursive` cannot be called"),
            Object::Joiner(separator, used) => {
                args.bind("joiner", [], 0)?;
                if used.replace(true) { Ok(separator.clone()) } else { Value::text(self.budget, "") }
            }
            Object::Namespace(_) | Object::Cycler(..) => fail(format!("`{}` cannot be called", callee.type_name())),
        }
    }

    fn call_macro(&self, of: &Arc<Macro>, scope: &Rc<Scope>, args: Args) -> Result<Value> {
        let inner = Scope::inside(scope);
        let expected = of.parameters.len();
        let mut positional = args.positional.into_iter();
        let mut values: Vec<Option<Value>> = of.parameters.iter().map(|_| positional.next()).collect();
        let further: Vec<Value> = positional.collect();
        let [varargs, kwargs, caller] = of.takes;
        if !varargs && !further.is_empty() {
            return fail(format!(
                "macro `{}`: expected at most {expected} arguments, found {}",
                short(&of.name),
                expected + further.len()
            ));
        }
        let mut others = Vec::new();
        for (name, value) in args.named {
            match of.parameters.iter().position(|known| *known == name) {
                Some(at) if values[at].is_some() => {
                    return fail(format!("macro `{}`: argument `{name}` is given twice", short(&of.name)));
                }
                Some(at) => values[at] = Some(value),
                None if caller && &*name == "caller" => self.name(&name, value, &inner)?,
                None if kwargs => others.push((Value::Str(name), value)),
                None => {
                    let (of, name) = (short(&of.name), short(&name));
                    return fail(format!("macro `{of}`: unexpected argument `{name}`"));
                }
            }
        }
        if varargs {
            self.name(&"varargs".into(), Value::seq(self.budget, Kind::Tuple, further)?, &inner)?;
        }
        if kwargs {
            self.name(&"kwargs".into(), Value::dict(self.budget, others)?, &inner)?;
        }
        let first_default = expected - of.defaults.len();
        for (i, (name, value)) in of.parameters.iter().zip(values).enumerate() {
            let value = match value {
                Some(value) => value,
                None if i >= first_default => self.eval(&of.defaults[i - first_default], &inner)?,
                None => Value::Undefined(Some(Arc::clone(name))),
            };
            self.name(name, value, &inner)?;
        }
        self.captured(&of.body, &inner)
    }
}

/// Undefined values iterate as empty; other values that are not iterable are errors.
fn iter_defined(value: &Value) -> Result<()> {
    if value.is_iterable() { Ok(()) } else { fail(format!("`{}` is not iterable", value.type_name())) }
}
