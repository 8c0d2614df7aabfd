//! What a template may use: time, memory, depth and length.
//!
//! Every step of a rendering is paid for before it is taken: evaluating an expression, visiting an
//! item, reading a byte, making a byte. Fuel is about a nanosecond of a slow processor, so that the
//! limits below keep a rendering within a second and 256 MB. They grow with the conversation, which
//! is the caller's own: a template may always read all of it several times.

use std::cell::Cell;

/// Bytes of a template.
pub(super) const MAX_SOURCE: usize = 1 << 20;
/// Names, numbers, texts and signs of a template: bounds the size of its tree.
pub(super) const MAX_TOKENS: usize = 200_000;
/// Brackets and blocks within each other. Chains (`a.b.c`, `a + b + c`, `elif`) are lists in the
/// tree and need no depth.
pub(super) const MAX_NESTING: usize = 80;
/// Lists within lists.
pub(super) const MAX_DEPTH: u16 = 128;
/// Expressions, statements and calls that are being evaluated within each other.
const MAX_FRAMES: usize = 320;
/// Bytes of the stack that they take. An optimized build needs half of it for so many frames; a
/// build without optimization stops here, earlier.
const MAX_STACK: usize = 700 << 10;
/// Time of a rendering, and per byte of the conversation.
const FUEL: u64 = 250_000_000;
const FUEL_PER_BYTE: u64 = 200;
/// Bytes that a rendering may make, all together, and per byte of the conversation.
const MAX_MADE: usize = 64 << 20;
const MADE_PER_BYTE: usize = 32;
/// Bytes of one text or list, and per byte of the conversation.
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

/// An error without a line; the statement that it stops adds its own.
pub(super) fn fail<T>(reason: impl Into<String>) -> Result<T> {
    Err(Failure { line: None, reason: reason.into() })
}

/// About where the stack ends.
#[inline(never)]
fn stack_address() -> usize {
    let local = 0u8;
    std::ptr::from_ref(std::hint::black_box(&local)).addr()
}

/// What a rendering may still use.
pub(super) struct Budget {
    fuel: Cell<u64>,
    made: Cell<usize>,
    frames: Cell<usize>,
    /// Where the stack was when the rendering began.
    stack: usize,
    max_value: usize,
}

impl Budget {
    /// The budget of a rendering of `bytes` of conversation.
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

    /// Pays for the evaluation of one expression or statement.
    pub(super) fn step(&self) -> Result<()> {
        self.burn(1, STEP)
    }

    /// Pays for a visit of `n` items.
    pub(super) fn items(&self, n: usize) -> Result<()> {
        self.burn(n as u64, ITEM)
    }

    /// Pays for reading `bytes`.
    pub(super) fn read(&self, bytes: usize) -> Result<()> {
        self.burn(bytes as u64, READ)
    }

    /// Pays for a value of `bytes`, before it is made.
    pub(super) fn make(&self, bytes: usize) -> Result<()> {
        if bytes > self.max_value {
            return fail("the template makes too much: a text or list is too long");
        }
        self.grow(bytes)
    }

    /// Pays for `bytes` more of a text that is being written.
    pub(super) fn grow(&self, bytes: usize) -> Result<()> {
        self.burn(bytes as u64, 1)?;
        match self.made.get().checked_sub(bytes) {
            Some(left) => {
                self.made.set(left);
                Ok(())
            }
            None => fail("the template makes too much: its texts and lists are too long together"),
        }
    }

    /// Runs `f` one frame deeper.
    pub(super) fn frame<T>(&self, f: impl FnOnce() -> Result<T>) -> Result<T> {
        let frames = self.frames.get();
        if frames >= MAX_FRAMES || stack_address().abs_diff(self.stack) > MAX_STACK {
            return fail("the template is too deep: it calls itself without end, or nests too much");
        }
        self.frames.set(frames + 1);
        let result = f();
        self.frames.set(frames);
        result
    }
}

/// A text that is being written, each piece paid for before it is added.
pub(super) struct Text<'b> {
    pub(super) budget: &'b Budget,
    text: String,
    max: usize,
}

impl<'b> Text<'b> {
    /// A value of the template.
    pub(super) fn new(budget: &'b Budget) -> Self {
        Self { budget, text: String::new(), max: budget.max_value }
    }

    /// The rendered text: may be twice as long as a value.
    pub(super) fn output(budget: &'b Budget) -> Self {
        Self { budget, text: String::new(), max: budget.max_value * 2 }
    }

    pub(super) fn push(&mut self, piece: &str) -> Result<()> {
        if piece.len() > self.max - self.text.len() {
            return fail("the template makes too much: its text is too long");
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
