//! Resource limits of a template: time, memory, depth and length.
//!
//! Every step of rendering is charged before it is taken: evaluating an expression, visiting an
//! item, reading a byte, producing a byte. One unit of fuel is about a nanosecond on a slow
//! processor, so the limits below keep a rendering within a second and 256 MB. They grow with the
//! conversation, so that a template can always read all of it several times.

use std::cell::Cell;

/// Maximum size of a template in bytes.
pub(super) const MAX_SOURCE: usize = 1 << 20;
/// Maximum number of tokens of a template; bounds the size of its syntax tree.
pub(super) const MAX_TOKENS: usize = 200_000;
/// Maximum nesting of brackets and blocks. Chains (`a.b.c`, `a + b + c`, `elif`) are lists in the
/// tree and do not count.
pub(super) const MAX_NESTING: usize = 80;
/// Maximum nesting of lists.
pub(super) const MAX_DEPTH: u16 = 128;
/// Maximum number of nested expressions, statements and calls during evaluation.
const MAX_FRAMES: usize = 320;
/// Maximum bytes of stack that they use. An optimized build needs half of that for the maximum
/// number of frames; an unoptimized build reaches this limit first.
const MAX_STACK: usize = 700 << 10;
/// Fuel of a rendering, and additional fuel per byte of the conversation.
const FUEL: u64 = 250_000_000;
const FUEL_PER_BYTE: u64 = 200;
/// Maximum bytes that a rendering may produce in total, and additional bytes per byte of the
/// conversation.
const MAX_MADE: usize = 64 << 20;
const MADE_PER_BYTE: usize = 32;
/// Maximum bytes of one string or list, and additional bytes per byte of the conversation.
const MAX_VALUE: usize = 8 << 20;
const VALUE_PER_BYTE: usize = 4;

const STEP: u64 = 120;
const ITEM: u64 = 25;
const READ: u64 = 2;
const PUSH: u64 = 8;

/// Why a template cannot be compiled or rendered.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) line: Option<u32>,
    pub(super) reason: String,
}

pub(super) type Result<T> = std::result::Result<T, Failure>;

/// Returns an error without a line; the enclosing statement adds its line.
pub(super) fn fail<T>(reason: impl Into<String>) -> Result<T> {
    Err(Failure { line: None, reason: reason.into() })
}

/// Approximate address of the end of the stack.
#[inline(never)]
fn stack_address() -> usize {
    let local = 0u8;
    std::ptr::from_ref(std::hint::black_box(&local)).addr()
}

/// Remaining resources of a rendering.
pub(super) struct Budget {
    fuel: Cell<u64>,
    made: Cell<usize>,
    frames: Cell<usize>,
    /// Stack address at the start of rendering.
    stack: usize,
    max_value: usize,
}

impl Budget {
    /// Creates the budget for rendering `bytes` of conversation.
    pub(super) fn new(bytes: usize) -> Self {
        Self {
            fuel: Cell::new(FUEL.saturating_add((bytes as u64).saturating_mul(FUEL_PER_BYTE))),
            made: Cell::new(MAX_MADE.saturating_add(bytes.saturating_mul(MADE_PER_BYTE))),
            frames: Cell::new(0),
            stack: stack_address(),
            max_value: MAX_VALUE.saturating_add(bytes.saturating_mul(VALUE_PER_BYTE)),
        }
    }

    fn burn(&self, count: u64, each: u64) -> Result<()> {
        match self.fuel.get().checked_sub(count.saturating_mul(each)) {
            Some(left) => {
                self.fuel.set(left);
                Ok(())
            }
            None => fail("the template takes too long: it loops, recurses or reads too much"),
        }
    }

    /// Charges the evaluation of one expression or statement.
    pub(super) fn step(&self) -> Result<()> {
        self.burn(1, STEP)
    }

    /// Charges a visit of `n` items.
    pub(super) fn items(&self, n: usize) -> Result<()> {
        self.burn(n as u64, ITEM)
    }

    /// Charges reading `bytes`.
    pub(super) fn read(&self, bytes: usize) -> Result<()> {
        self.burn(bytes as u64, READ)
    }

    /// Charges a value of `bytes`, before it is created.
    pub(super) fn make(&self, bytes: usize) -> Result<()> {
        if bytes > self.max_value {
            return fail("the template exceeds the memory limit: a string or list is too long");
        }
        self.grow(bytes)
    }

    /// Charges `bytes` more of a text being built.
    pub(super) fn grow(&self, bytes: usize) -> Result<()> {
        self.burn(bytes as u64, 1)?;
        match self.made.get().checked_sub(bytes) {
            Some(left) => {
                self.made.set(left);
                Ok(())
            }
            None => fail("the template exceeds the memory limit: its strings and lists are too long in total"),
        }
    }

    /// Runs `f` one frame deeper.
    pub(super) fn frame<T>(&self, f: impl FnOnce() -> Result<T>) -> Result<T> {
        let frames = self.frames.get();
        if frames >= MAX_FRAMES || stack_address().abs_diff(self.stack) > MAX_STACK {
            return fail("the template is nested too deeply or recurses without end");
        }
        self.frames.set(frames + 1);
        let result = f();
        self.frames.set(frames);
        result
    }
}

/// A text being built; each piece is charged before it is appended.
pub(super) struct Text<'b> {
    pub(super) budget: &'b Budget,
    text: String,
    max: usize,
}

impl<'b> Text<'b> {
    /// Creates a value of the template.
    pub(super) fn new(budget: &'b Budget) -> Self {
        Self { budget, text: String::new(), max: budget.max_value }
    }

    /// Creates the rendered text, which may be twice as long as a value.
    pub(super) fn output(budget: &'b Budget) -> Self {
        Self { budget, text: String::new(), max: budget.max_value * 2 }
    }

    pub(super) fn push(&mut self, piece: &str) -> Result<()> {
        if piece.len() > self.max - self.text.len() {
            return fail("the template exceeds the memory limit: its text is too long");
        }
        self.budget.burn(1, PUSH)?;
        self.budget.grow(piece.len())?;
        self.text.push_str(piece);
        Ok(())
    }

    pub(super) fn push_char(&mut self, c: char) -> Result<()> {
        self.push(c.encode_utf8(&mut [0; 4]))
    }

    pub(super) fn push_repeated(&mut self, c: char, n: usize) -> Result<()> {
        self.budget.make(n.saturating_mul(c.len_utf8()))?;
        (0..n).try_for_each(|_| self.push_char(c))
    }

    pub(super) fn into_string(self) -> String {
        self.text
    }
}
