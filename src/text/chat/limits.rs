//! What a template may use: time (fuel), memory (bytes made), depth, and the length of its text.
//!
//! The engine counts its own steps and the depth of calls. It does not count bytes: `x ~ x` doubles a text in one step. So each
//! expression that makes a larger value out of others (`a ~ b`, `a + b`, `a * n`, lists, maps) goes through the filter [`GUARD`], written
//! into the source where the parser says that the expression begins and ends; functions and methods that make texts count
//! beforehand. What is printed is counted on its way, also inside `{% set %}` blocks and macros. Only a namespace can be changed, so
//! only a namespace in a namespace could hold itself: what is stored in one goes through [`STORE`].

use std::cell::Cell;
use std::io;

use minijinja::machinery::ast::{BinOpKind, CallArg, Expr, Stmt};
use minijinja::machinery::{Span, parse};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Value, ValueKind};
use minijinja::{Error, ErrorKind, Output, State};

/// Steps of a rendering.
pub(super) const FUEL: u64 = 1_000_000;
/// Bytes that a rendering may make, all together.
const MAX_MADE: usize = 128 << 20;
/// Bytes of one value, with everything in it.
const MAX_VALUE: usize = 8 << 20;
/// Lists within lists.
const MAX_DEPTH: usize = 64;
/// Bytes of a template.
const MAX_SOURCE: usize = 1 << 20;
/// Bytes of the text.
const MAX_TEXT: usize = 32 << 20;

/// The name of the filter [`bounded`]: none that a template would choose.
pub(super) const GUARD: &str = "loquat_bounded";
/// The name of the filter [`storable`].
pub(super) const STORE: &str = "loquat_storable";

thread_local! {
    /// What the running template may still make.
    static LEFT: Cell<usize> = const { Cell::new(0) };
}

fn too_much(what: &str) -> Error {
    Error::new(ErrorKind::OutOfFuel, format!("the template makes too much: {what}"))
}

/// Runs a rendering with fresh limits.
pub(super) fn render<R>(f: impl FnOnce() -> R) -> R {
    LEFT.set(MAX_MADE);
    f()
}

/// Notes that `bytes` are going to be made.
pub(super) fn spend(bytes: usize) -> Result<(), Error> {
    if bytes > MAX_VALUE {
        return Err(too_much("a text is too long"));
    }
    let left = LEFT.get().checked_sub(bytes).ok_or_else(|| too_much("its texts are too long together"))?;
    LEFT.set(left);
    Ok(())
}

/// The bytes of a value with everything in it, nearly.
pub(super) fn size(value: &Value) -> Result<usize, Error> {
    let mut total = 0;
    measure(value, 0, &mut total, false)?;
    Ok(total)
}

fn measure(value: &Value, depth: usize, total: &mut usize, storing: bool) -> Result<(), Error> {
    *total += value.as_str().map_or(16, str::len);
    if *total > MAX_VALUE {
        return Err(too_much("a value is too large"));
    }
    if depth > MAX_DEPTH {
        return Err(too_much("a value is too deep"));
    }
    if storing && value.as_object().is_some_and(|object| object.type_name().ends_with("Namespace")) {
        return Err(too_much("a namespace in a namespace"));
    }
    match value.kind() {
        ValueKind::Seq | ValueKind::Iterable => {
            value.try_iter()?.try_for_each(|item| measure(&item, depth + 1, total, storing))
        }
        ValueKind::Map => value.try_iter()?.try_for_each(|key| {
            measure(&key, depth + 1, total, storing)?;
            measure(&value.get_item(&key)?, depth + 1, total, storing)
        }),
        _ => Ok(()),
    }
}

/// The value, if it is not too large.
pub(super) fn bounded(value: &Value) -> Result<Value, Error> {
    spend(size(value)?)?;
    Ok(value.clone())
}

/// The value, if a namespace may have it.
pub(super) fn storable(value: &Value) -> Result<Value, Error> {
    let mut total = 0;
    measure(value, 0, &mut total, true)?;
    spend(total)?;
    Ok(value.clone())
}

/// Prints a value, as Python does.
pub(super) fn emit(out: &mut Output, _: &mut State, value: &Value) -> Result<(), Error> {
    spend(size(value)?)?;
    let written = match value.kind() {
        ValueKind::Undefined => Ok(()),
        ValueKind::None => out.write_str("None"),
        ValueKind::Bool => out.write_str(if value.is_true() { "True" } else { "False" }),
        _ => write!(out, "{value}"),
    };
    written.map_err(|_| too_much("its text is too long"))
}

/// Takes a template's text up to the limit.
pub(super) struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    pub(super) fn new() -> Self {
        Self { bytes: Vec::new() }
    }

    pub(super) fn into_text(self) -> Result<String, Error> {
        String::from_utf8(self.bytes).map_err(|e| Error::new(ErrorKind::WriteFailure, e.to_string()))
    }
}

impl io::Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.bytes.len() + bytes.len() > MAX_TEXT {
            return Err(io::Error::other("the template's text is too long"));
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The template with [`GUARD`] around every expression that makes a larger value.
pub(super) fn guarded(source: &str, syntax: &SyntaxConfig) -> Result<String, Error> {
    if source.len() > MAX_SOURCE {
        return Err(too_much("it is too long itself"));
    }
    let source = plain_generation(source);
    let template = parse(&source, "chat template", syntax.clone())?;
    let mut found = Found { source: &source, marks: Vec::new() };
    found.statement(&template);
    let mut marks = found.marks;
    // Of expressions that begin or end together, the inner one's bracket is the nearer.
    marks.sort_unstable_by_key(|mark| (mark.at, mark.filter.is_none(), mark.order));
    let mut text = String::with_capacity(source.len() + marks.len() * GUARD.len());
    let mut done = 0;
    for Mark { at, filter, .. } in marks {
        text.push_str(source.get(done..at).ok_or_else(|| too_much("an expression that cannot be bounded"))?);
        done = at;
        match filter {
            None => text.push_str("(("),
            Some(name) => text.extend([")|", name, ")"]),
        }
    }
    text.push_str(&source[done..]);
    Ok(text)
}

/// A place where a bracket opens, or closes with a filter.
struct Mark {
    at: usize,
    filter: Option<&'static str>,
    order: usize,
}

/// `{% generation %}` marks the assistant's tokens for training; in the text it is nothing.
fn plain_generation(source: &str) -> String {
    let mut text = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(at) = rest.find("{%") {
        let (before, tag) = rest.split_at(at + 2);
        text.push_str(before);
        let inner = tag.split("%}").next().unwrap_or("");
        let name = inner.trim_matches(['-', '+', ' ', '\t', '\n', '\r']);
        match name {
            "generation" => text.push_str(&inner.replacen("generation", "if true", 1)),
            "endgeneration" => text.push_str(&inner.replacen("endgeneration", "endif", 1)),
            _ => text.push_str(inner),
        }
        rest = &tag[inner.len()..];
    }
    text + rest
}

/// Collects the places of a template's expressions.
struct Found<'s> {
    source: &'s str,
    marks: Vec<Mark>,
}

impl Found<'_> {
    fn wrap(&mut self, start: usize, end: usize, filter: &'static str) {
        let len = end.saturating_sub(start);
        self.marks.push(Mark { at: start, filter: None, order: usize::MAX - len });
        self.marks.push(Mark { at: end, filter: Some(filter), order: len });
    }

    fn bound(&mut self, span: Span) {
        self.wrap(span.start_offset as usize, span.end_offset as usize, GUARD);
    }

    /// What is stored in a namespace: all behind the `=` of `{% set ns.x = … %}`.
    fn store(&mut self, target: &Expr<'_>, stmt: Span) {
        let targets = match target {
            Expr::List(list) => &list.items[..],
            Expr::Tuple(tuple) => &tuple.items[..],
            one => std::slice::from_ref(one),
        };
        let (target, dotted) = (targets.last(), targets.iter().any(|item| matches!(item, Expr::GetAttr(_))));
        let end = match target {
            Some(Expr::GetAttr(e)) => e.span().end_offset as usize,
            Some(Expr::Var(e)) => e.span().end_offset as usize,
            _ => return,
        };
        if let (true, Some(equals)) = (dotted, self.source.get(end..).and_then(|rest| rest.find('='))) {
            self.wrap(end + equals + 1, stmt.end_offset as usize, STORE);
        }
    }

    fn expressions(&mut self, all: &[Expr<'_>]) {
        all.iter().for_each(|e| self.expression(e));
    }

    fn statements(&mut self, all: &[Stmt<'_>]) {
        all.iter().for_each(|stmt| self.statement(stmt));
    }

    fn statement(&mut self, stmt: &Stmt<'_>) {
        match stmt {
            Stmt::Template(s) => self.statements(&s.children),
            Stmt::EmitExpr(s) => self.expression(&s.expr),
            Stmt::ForLoop(s) => {
                self.expression(&s.iter);
                s.filter_expr.iter().for_each(|e| self.expression(e));
                self.statements(&s.body);
                self.statements(&s.else_body);
            }
            Stmt::IfCond(s) => {
                self.expression(&s.expr);
                self.statements(&s.true_body);
                self.statements(&s.false_body);
            }
            Stmt::WithBlock(s) => {
                s.assignments.iter().for_each(|(_, e)| self.expression(e));
                self.statements(&s.body);
            }
            Stmt::Set(s) => {
                self.expression(&s.expr);
                self.store(&s.target, s.span());
            }
            Stmt::SetBlock(s) => {
                s.filter.iter().for_each(|e| self.expression(e));
                self.statements(&s.body);
            }
            Stmt::AutoEscape(s) => self.statements(&s.body),
            Stmt::FilterBlock(s) => {
                self.expression(&s.filter);
                self.statements(&s.body);
            }
            Stmt::Macro(s) => {
                s.defaults.iter().for_each(|e| self.expression(e));
                self.statements(&s.body);
            }
            Stmt::CallBlock(s) => {
                self.arguments(&s.call.args);
                self.statements(&s.macro_decl.body);
            }
            Stmt::Do(s) => self.arguments(&s.call.args),
            _ => {}
        }
    }

    fn arguments(&mut self, args: &[CallArg<'_>]) {
        for arg in args {
            match arg {
                CallArg::Pos(e) | CallArg::Kwarg(_, e) | CallArg::PosSplat(e) | CallArg::KwargSplat(e) => {
                    self.expression(e);
                }
            }
        }
    }

    fn expression(&mut self, expr: &Expr<'_>) {
        match expr {
            Expr::Var(_) | Expr::Const(_) => {}
            Expr::Slice(e) => {
                self.expression(&e.expr);
                [&e.start, &e.stop, &e.step].into_iter().flatten().for_each(|e| self.expression(e));
            }
            Expr::UnaryOp(e) => self.expression(&e.expr),
            Expr::BinOp(e) => {
                self.expression(&e.left);
                self.expression(&e.right);
                if matches!(e.op, BinOpKind::Concat | BinOpKind::Add | BinOpKind::Mul) {
                    self.bound(e.span());
                }
            }
            Expr::Compare(e) => {
                self.expression(&e.expr);
                e.ops.iter().for_each(|op| self.expression(&op.expr));
            }
            Expr::IfExpr(e) => {
                self.expression(&e.test_expr);
                self.expression(&e.true_expr);
                e.false_expr.iter().for_each(|e| self.expression(e));
            }
            Expr::Filter(e) => {
                e.expr.iter().for_each(|e| self.expression(e));
                self.arguments(&e.args);
            }
            Expr::Test(e) => {
                self.expression(&e.expr);
                self.arguments(&e.args);
            }
            Expr::GetAttr(e) => self.expression(&e.expr),
            Expr::GetItem(e) => {
                self.expression(&e.expr);
                self.expression(&e.subscript_expr);
            }
            Expr::Call(e) => {
                self.expression(&e.expr);
                self.arguments(&e.args);
            }
            Expr::List(e) => {
                self.expressions(&e.items);
                self.bound(e.span());
            }
            Expr::Tuple(e) => {
                self.expressions(&e.items);
                self.bound(e.span());
            }
            Expr::Map(e) => {
                self.expressions(&e.keys);
                self.expressions(&e.values);
                self.bound(e.span());
            }
        }
    }
}
