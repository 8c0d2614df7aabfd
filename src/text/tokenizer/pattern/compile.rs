//! Compiles the syntax tree of a regular expression to operations.

use std::collections::HashMap;

use fancy_regex::{Expr, LookAround};

use super::class::Class;
use super::machine::{Assertion, First, Mode, Op, Program};

/// Maximum number of operations and of character sets of a pattern.
const MOST_OPS: usize = 1 << 14;
const MOST_CLASSES: usize = 512;

/// Maximum number of character ranges of a pattern with its repetitions expanded, as in the
/// library.
const MOST_RANGES: usize = 1 << 17;

/// Maximum length of a pattern in bytes.
const MOST_BYTES: usize = 1 << 16;

type Compiled<T> = std::result::Result<T, String>;

/// Compiles a regular expression in the library's syntax.
///
/// # Errors
/// The reason if it is invalid, not supported or too large.
pub(super) fn compile(expression: &str) -> Compiled<Program> {
    if expression.len() > MOST_BYTES {
        return Err(format!("expected at most {MOST_BYTES} bytes, found {}", expression.len()));
    }
    let tree = Expr::parse_tree(expression).map_err(|e| e.to_string())?;
    let mut compiler = Compiler::default();
    let ranges = compiler.ranges(&tree.expr)?;
    if ranges > MOST_RANGES {
        return Err("it is too large with its repetitions".into());
    }
    compiler.put(&tree.expr)?;
    compiler.push(Op::Done)?;
    let first = compiler.first(&tree.expr)?;
    let word = compiler.word.then(|| Class::parse(r"\w", false)).transpose()?.flatten();
    Ok(Program { ops: compiler.ops, classes: compiler.classes, slots: compiler.slots, size: ranges, first, word })
}

#[derive(Default)]
struct Compiler {
    ops: Vec<Op>,
    classes: Vec<Class>,
    known: HashMap<(String, bool), u16>,
    slots: usize,
    word: bool,
}

impl Compiler {
    fn push(&mut self, op: Op) -> Compiled<usize> {
        if self.ops.len() >= MOST_OPS {
            return Err(format!("more than {MOST_OPS} operations with its repetitions"));
        }
        self.ops.push(op);
        Ok(self.ops.len() - 1)
    }

    /// Sets the target of a pushed operation to the next one.
    fn lead_here(&mut self, op: usize) {
        let here = self.ops.len() as u32;
        match &mut self.ops[op] {
            Op::Fork { other: to, .. }
            | Op::Jump(to)
            | Op::Ahead { end: to, .. }
            | Op::Behind { end: to, .. }
            | Op::Atomic { end: to } => *to = here,
            _ => {}
        }
    }

    fn slot(&mut self) -> u16 {
        self.slots += 1;
        (self.slots - 1) as u16 // fewer than operations
    }

    fn add_class(&mut self, key: (String, bool), class: Class) -> Compiled<u16> {
        if self.classes.len() >= MOST_CLASSES {
            return Err(format!("expected at most {MOST_CLASSES} sets of characters, found more"));
        }
        self.classes.push(class);
        let id = (self.classes.len() - 1) as u16;
        self.known.insert(key, id);
        Ok(id)
    }

    /// Returns the character set of an expression that matches one character.
    fn class(&mut self, expr: &Expr) -> Compiled<Option<u16>> {
        let (key, class) = match expr {
            Expr::Group(child) => return self.class(child),
            Expr::Any { newline } => (if *newline { ("(?s).".into(), false) } else { (".".into(), false) }, None),
            Expr::Delegate { inner, casei, .. } => ((inner.clone(), *casei), None),
            Expr::Literal { val, casei } if val.chars().count() == 1 => ((regex_syntax::escape(val), *casei), None),
            _ => return Ok(None),
        };
        if let Some(&id) = self.known.get(&key) {
            return Ok(Some(id));
        }
        let class: Option<Class> = class.or(match expr {
            Expr::Any { newline } => Some(Class::any(*newline)),
            _ => Class::parse(&key.0, key.1)?,
        });
        class.map(|class| self.add_class(key, class)).transpose()
    }

    /// Number of character ranges of an expression with its repetitions expanded.
    fn ranges(&mut self, expr: &Expr) -> Compiled<usize> {
        if let Some(class) = self.class(expr)? {
            return Ok(self.classes[class as usize].ranges.max(1));
        }
        Ok(match expr {
            Expr::Literal { val, .. } => val.len(),
            Expr::Concat(parts) | Expr::Alt(parts) => {
                parts.iter().try_fold(0usize, |sum, part| Compiled::Ok(sum.saturating_add(self.ranges(part)?)))?
            }
            Expr::Group(child) | Expr::LookAround(child, _) | Expr::AtomicGroup(child) => self.ranges(child)?,
            Expr::Repeat { child, lo, hi, .. } => {
                let times = if *hi == usize::MAX { lo.saturating_add(1) } else { *hi };
                self.ranges(child)?.saturating_mul(times)
            }
            _ => 1,
        })
    }

    /// Minimum and maximum number of characters that an expression matches.
    fn width(&self, expr: &Expr) -> (usize, usize) {
        match expr {
            Expr::Any { .. } => (1, 1),
            Expr::Delegate { size, .. } => (*size, *size),
            Expr::Literal { val, casei } => {
                let chars = val.chars().count();
                (chars, if *casei { chars.saturating_mul(2) } else { chars })
            }
            Expr::Concat(parts) => parts.iter().map(|part| self.width(part)).fold((0, 0), |sum, width| {
                (usize::saturating_add(sum.0, width.0), usize::saturating_add(sum.1, width.1))
            }),
            Expr::Alt(parts) => {
                let widths = || parts.iter().map(|part| self.width(part));
                (widths().map(|w| w.0).min().unwrap_or(0), widths().map(|w| w.1).max().unwrap_or(0))
            }
            Expr::Group(child) | Expr::AtomicGroup(child) => self.width(child),
            Expr::Repeat { child, lo, hi, .. } => {
                let (low, high) = self.width(child);
                (low.saturating_mul(*lo), high.saturating_mul(*hi))
            }
            _ => (0, 0),
        }
    }

    /// The set of possible first characters.
    fn first(&mut self, expr: &Expr) -> Compiled<First> {
        if let Some(class) = self.class(expr)? {
            let (ascii, others) = self.classes[class as usize].first();
            return Ok(First { ascii, others, empty: false });
        }
        const NOTHING: First = First { ascii: 0, others: false, empty: false };
        Ok(match expr {
            Expr::Literal { val, casei } => match val.chars().next() {
                Some(c) => return self.first(&Expr::Literal { val: c.into(), casei: *casei }),
                None => First::EMPTY,
            },
            Expr::Concat(parts) => {
                let mut first = First::EMPTY;
                for part in parts {
                    let next = self.first(part)?;
                    first = First { empty: next.empty, ..first.or(next) };
                    if !next.empty {
                        break;
                    }
                }
                first
            }
            Expr::Alt(parts) => {
                parts.iter().try_fold(NOTHING, |first, part| Compiled::Ok(first.or(self.first(part)?)))?
            }
            Expr::Group(child) | Expr::AtomicGroup(child) => self.first(child)?,
            Expr::Repeat { child, lo, hi, .. } => {
                let first = if *hi == 0 { First::EMPTY } else { self.first(child)? };
                First { empty: first.empty || *lo == 0, ..first }
            }
            _ => First::EMPTY,
        })
    }

    fn put(&mut self, expr: &Expr) -> Compiled<()> {
        // A single character, unless case-insensitive matching gives it two spellings.
        if let Expr::Literal { val, casei: false } = expr {
            if !val.is_empty() {
                self.push(Op::Literal(val.as_str().into()))?;
            }
            return Ok(());
        }
        if let Some(class) = self.class(expr)? {
            return self.push(Op::Class(class)).map(drop);
        }
        match expr {
            Expr::Empty => {}
            Expr::Literal { val, casei } => {
                for c in val.chars() {
                    self.put(&Expr::Literal { val: c.into(), casei: *casei })?;
                }
            }
            Expr::Assertion(assertion) => {
                let assertion = self.assertion(*assertion);
                self.push(Op::Assert(assertion))?;
            }
            Expr::Concat(parts) => parts.iter().try_for_each(|part| self.put(part))?,
            Expr::Alt(parts) => {
                let mut ends = Vec::new();
                for (i, part) in parts.iter().enumerate() {
                    if i + 1 == parts.len() {
                        self.put(part)?;
                        break;
                    }
                    let first = self.first(part)?;
                    let fork = self.push(Op::Fork { other: 0, first })?;
                    self.put(part)?;
                    ends.push(self.push(Op::Jump(0))?);
                    self.lead_here(fork);
                }
                ends.into_iter().for_each(|end| self.lead_here(end));
            }
            Expr::Group(child) => self.put(child)?,
            Expr::AtomicGroup(child) => {
                if let Expr::Repeat { child, lo, hi, greedy: true } = &**child
                    && let Some(class) = self.class(child)?
                {
                    return self.repeat_class(class, *lo, *hi, Mode::Possessive);
                }
                let atomic = self.push(Op::Atomic { end: 0 })?;
                self.put(child)?;
                self.push(Op::Done)?;
                self.lead_here(atomic);
            }
            Expr::LookAround(child, kind) => self.look(child, *kind)?,
            Expr::Repeat { child, lo, hi, greedy } => match self.class(child)? {
                Some(class) => {
                    self.repeat_class(class, *lo, *hi, if *greedy { Mode::Greedy } else { Mode::Lazy })?;
                }
                None => self.repeat(child, *lo, *hi, *greedy)?,
            },
            Expr::Delegate { inner, .. } if inner == r"\n*$" => {
                let line_end = self.class(&Expr::Literal { val: "\n".into(), casei: false })?;
                if let Some(class) = line_end {
                    self.repeat_class(class, 0, usize::MAX, Mode::Greedy)?;
                }
                self.push(Op::Assert(Assertion::TextEnd))?;
            }
            Expr::Delegate { inner, .. } => return Err(format!("`{inner}` is not supported")),
            Expr::Backref { .. } | Expr::BackrefWithRelativeRecursionLevel { .. } => {
                return Err("a reference to a group is not supported".into());
            }
            Expr::KeepOut => return Err(r"`\K` is not supported".into()),
            Expr::ContinueFromPreviousMatchEnd => return Err(r"`\G` is not supported".into()),
            Expr::BackrefExistsCondition(_) | Expr::Conditional { .. } => {
                return Err("a condition (`(?(…)…|…)`) is not supported".into());
            }
            Expr::SubroutineCall(_) | Expr::UnresolvedNamedSubroutineCall { .. } => {
                return Err("a call of a group is not supported".into());
            }
            Expr::Any { .. } => return Err("`.` is not supported here".into()),
        }
        Ok(())
    }

    fn repeat_class(&mut self, class: u16, low: usize, high: usize, mode: Mode) -> Compiled<()> {
        let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        self.push(Op::Repeat { class, low: number(low), high: number(high), mode }).map(drop)
    }

    fn repeat(&mut self, child: &Expr, low: usize, high: usize, greedy: bool) -> Compiled<()> {
        if low > MOST_OPS || (high != usize::MAX && high > MOST_OPS) {
            return Err(format!("more than {MOST_OPS} operations with its repetitions"));
        }
        for _ in 0..low {
            self.put(child)?;
        }
        let first = self.first(child)?;
        let always = First::EMPTY;
        // Lazy: tries the continuation before the child.
        let fork = |compiler: &mut Self| -> Compiled<usize> {
            if greedy {
                return compiler.push(Op::Fork { other: 0, first });
            }
            let fork = compiler.push(Op::Fork { other: 0, first: always })?;
            let end = compiler.push(Op::Jump(0))?;
            compiler.lead_here(fork);
            Ok(end)
        };
        if high == usize::MAX {
            let start = self.ops.len() as u32;
            let end = fork(self)?;
            if self.width(child).0 == 0 {
                let slot = self.slot();
                self.push(Op::Round(slot))?;
                self.put(child)?;
                self.push(Op::Again { slot, start })?;
            } else {
                self.put(child)?;
                self.push(Op::Jump(start))?;
            }
            self.lead_here(end);
            return Ok(());
        }
        let mut ends = Vec::new();
        for _ in low..high {
            ends.push(fork(self)?);
            self.put(child)?;
        }
        ends.into_iter().for_each(|end| self.lead_here(end));
        Ok(())
    }

    fn look(&mut self, child: &Expr, kind: LookAround) -> Compiled<()> {
        let (behind, negated) = match kind {
            LookAround::LookAhead => (false, false),
            LookAround::LookAheadNeg => (false, true),
            LookAround::LookBehind => (true, false),
            LookAround::LookBehindNeg => (true, true),
        };
        let look = if behind {
            let (low, high) = self.width(child);
            let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
            let slot = self.slot();
            let look = self.push(Op::Behind { low: number(low), high: number(high), slot, negated, end: 0 })?;
            self.put(child)?;
            self.push(Op::Here(slot))?;
            look
        } else {
            let look = self.push(Op::Ahead { negated, end: 0 })?;
            self.put(child)?;
            look
        };
        self.push(Op::Done)?;
        self.lead_here(look);
        Ok(())
    }

    fn assertion(&mut self, assertion: fancy_regex::Assertion) -> Assertion {
        use fancy_regex::Assertion as Theirs;
        let word = |left, right| Assertion::Word { left, right };
        let assertion = match assertion {
            Theirs::StartText => Assertion::TextStart,
            Theirs::EndText => Assertion::TextEnd,
            Theirs::StartLine { crlf } => Assertion::LineStart { crlf },
            Theirs::EndLine { crlf } => Assertion::LineEnd { crlf },
            Theirs::LeftWordBoundary => word(Some(false), Some(true)),
            Theirs::LeftWordHalfBoundary => word(Some(false), None),
            Theirs::RightWordBoundary => word(Some(true), Some(false)),
            Theirs::RightWordHalfBoundary => word(None, Some(false)),
            Theirs::WordBoundary => Assertion::WordBoundary { negated: false },
            Theirs::NotWordBoundary => Assertion::WordBoundary { negated: true },
        };
        self.word |= matches!(assertion, Assertion::Word { .. } | Assertion::WordBoundary { .. });
        assertion
    }
}
