//! Executes a pattern: backtracking with an explicit stack and a step limit.
//!
//! A repeated character set is one operation and one stack entry, whatever its length; backtracking
//! into it proceeds character by character. Each operation and each character read is a step.

use super::class::Class;

/// Repetition mode of a character set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    Greedy,
    Lazy,
    /// Greedy, without backtracking.
    Possessive,
}

/// Possible first characters of a part of a pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct First {
    pub(super) ascii: u128,
    /// Whether non-ASCII characters are possible.
    pub(super) others: bool,
    /// Whether the part can match the empty string, so that anything may follow.
    pub(super) empty: bool,
}

impl First {
    /// The empty part.
    pub(super) const EMPTY: First = First { ascii: 0, others: false, empty: true };

    pub(super) fn or(self, other: First) -> First {
        First { ascii: self.ascii | other.ascii, others: self.others || other.others, empty: self.empty || other.empty }
    }

    /// Whether the part can match at this byte, or at the end of the text.
    #[inline]
    fn may_match(&self, byte: Option<&u8>) -> bool {
        self.empty
            || match byte {
                Some(&byte) if byte < 128 => self.ascii >> byte & 1 == 1,
                Some(_) => self.others,
                None => false,
            }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Assertion {
    TextStart,
    TextEnd,
    LineStart {
        crlf: bool,
    },
    LineEnd {
        crlf: bool,
    },
    /// A start, end or middle of a word: whether a word character is required before and after.
    Word {
        left: Option<bool>,
        right: Option<bool>,
    },
    /// A word character on exactly one side (or, if negated, on both or none).
    WordBoundary {
        negated: bool,
    },
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Op {
    Literal(Box<str>),
    Class(u16),
    Repeat {
        class: u16,
        low: u32,
        high: u32,
        mode: Mode,
    },
    /// Continues with the next operation, and with `other` if that fails; a branch is skipped if
    /// the next character rules it out.
    Fork {
        other: u32,
        first: First,
    },
    Jump(u32),
    /// Stores the start of a loop iteration, which may be empty.
    Round(u16),
    /// Jumps back to `start` unless the iteration was empty.
    Again {
        slot: u16,
        start: u32,
    },
    Assert(Assertion),
    /// Look-ahead: the operations after it, up to `Done`, must or must not match here.
    Ahead {
        negated: bool,
        end: u32,
    },
    /// Look-behind: the operations after it, up to `Done`, must or must not match from a position
    /// between `low` and `high` characters earlier; the slot stores the current position.
    Behind {
        low: u32,
        high: u32,
        slot: u16,
        negated: bool,
        end: u32,
    },
    /// Asserts that the current position is the slot's.
    Here(u16),
    /// Atomic group: no backtracking into the operations after it, up to `Done`.
    Atomic {
        end: u32,
    },
    Done,
}

/// A compiled pattern.
#[derive(Debug, Clone)]
pub(super) struct Program {
    pub(super) ops: Vec<Op>,
    pub(super) classes: Vec<Class>,
    pub(super) slots: usize,
    /// Number of character ranges with repetitions expanded.
    pub(super) size: usize,
    pub(super) first: First,
    /// Word characters, if the pattern has word boundaries.
    pub(super) word: Option<Class>,
}

/// A choice to backtrack to.
#[derive(Debug)]
enum Frame {
    Try {
        pc: u32,
        at: u32,
    },
    /// Continue at `pc` with one character fewer, down to `low`.
    Shrink {
        pc: u32,
        low: u32,
        at: u32,
    },
    /// Continue at `pc` with one more character of the preceding repeated set.
    Grow {
        pc: u32,
        at: u32,
        left: u32,
    },
    Restore {
        slot: u16,
        at: u32,
    },
}

/// Which limit ended a search.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Exhausted {
    Steps,
    Memory,
}

/// Maximum number of stack entries, about 32 MB.
const MOST_FRAMES: usize = 1 << 21;

pub(super) struct Machine<'a> {
    program: &'a Program,
    text: &'a str,
    frames: Vec<Frame>,
    slots: Vec<u32>,
    steps: u64,
}

impl<'a> Machine<'a> {
    /// Creates a machine for a text below 4 GB, with a limit of `steps` steps.
    pub(super) fn new(program: &'a Program, text: &'a str, steps: u64) -> Self {
        Machine { program, text, frames: Vec::new(), slots: vec![0; program.slots], steps }
    }

    /// Remaining steps.
    pub(super) fn steps(&self) -> u64 {
        self.steps
    }

    fn spend(&mut self, steps: u64) -> Result<(), Exhausted> {
        self.steps = self.steps.checked_sub(steps).ok_or(Exhausted::Steps)?;
        Ok(())
    }

    fn push(&mut self, frame: Frame) -> Result<(), Exhausted> {
        if self.frames.len() >= MOST_FRAMES {
            return Err(Exhausted::Memory);
        }
        self.frames.push(frame);
        Ok(())
    }

    /// Returns the first match at or after `from`, which must be a character boundary.
    pub(super) fn find(&mut self, from: usize) -> Result<Option<(usize, usize)>, Exhausted> {
        let bytes = self.text.as_bytes();
        let mut at = from;
        loop {
            self.spend(1)?;
            if self.program.first.may_match(bytes.get(at))
                && let Some(end) = self.run(0, at)?
            {
                return Ok(Some((at, end)));
            }
            if at >= bytes.len() {
                return Ok(None);
            }
            at = self.next(at);
        }
    }

    fn next(&self, at: usize) -> usize {
        let bytes = self.text.as_bytes();
        let mut next = at + 1;
        while next < bytes.len() && bytes[next] & 0xC0 == 0x80 {
            next += 1;
        }
        next
    }

    fn previous(&self, at: usize) -> usize {
        let bytes = self.text.as_bytes();
        let mut before = at - 1;
        while bytes[before] & 0xC0 == 0x80 {
            before -= 1;
        }
        before
    }

    /// Executes the operations from `pc` to their end, and returns the end of the match.
    fn run(&mut self, mut pc: usize, mut at: usize) -> Result<Option<usize>, Exhausted> {
        let (program, text) = (self.program, self.text);
        let base = self.frames.len();
        loop {
            self.spend(1)?;
            let went_on = match &program.ops[pc] {
                Op::Literal(literal) => {
                    let found = text.as_bytes()[at..].starts_with(literal.as_bytes());
                    at += if found { literal.len() } else { 0 };
                    found
                }
                &Op::Class(class) => match program.classes[class as usize].take(text, at) {
                    Some(end) => {
                        at = end;
                        true
                    }
                    None => false,
                },
                &Op::Repeat { class, low, high, mode } => {
                    let class = &program.classes[class as usize];
                    let (mut count, mut shortest) = (0, at);
                    let wanted = if mode == Mode::Lazy { low } else { high };
                    while count < wanted
                        && let Some(end) = class.take(text, at)
                    {
                        at = end;
                        count += 1;
                        if count == low {
                            shortest = at;
                        }
                    }
                    self.spend(u64::from(count))?;
                    let pc = pc as u32 + 1;
                    if count < low {
                        false
                    } else {
                        match mode {
                            Mode::Greedy if at > shortest => {
                                self.push(Frame::Shrink { pc, low: shortest as u32, at: at as u32 })?;
                            }
                            Mode::Lazy if high > low => {
                                self.push(Frame::Grow { pc, at: at as u32, left: high - low })?;
                            }
                            _ => {}
                        }
                        true
                    }
                }
                &Op::Fork { other, ref first } => {
                    if first.may_match(text.as_bytes().get(at)) {
                        self.push(Frame::Try { pc: other, at: at as u32 })?;
                    } else {
                        pc = other as usize;
                        continue;
                    }
                    true
                }
                &Op::Jump(to) => {
                    pc = to as usize;
                    continue;
                }
                &Op::Round(slot) => {
                    let before = std::mem::replace(&mut self.slots[slot as usize], at as u32);
                    self.push(Frame::Restore { slot, at: before })?;
                    true
                }
                &Op::Again { slot, start } => {
                    if self.slots[slot as usize] as usize != at {
                        pc = start as usize;
                        continue;
                    }
                    true
                }
                Op::Assert(assertion) => self.holds(*assertion, at),
                &Op::Ahead { negated, end } => {
                    if self.run(pc + 1, at)?.is_some() != negated {
                        pc = end as usize;
                        continue;
                    }
                    false
                }
                &Op::Behind { low, high, slot, negated, end } => {
                    let outer = std::mem::replace(&mut self.slots[slot as usize], at as u32);
                    let (mut start, mut count, mut found) = (at, 0, false);
                    loop {
                        found = found || count >= low && self.run(pc + 1, start)?.is_some();
                        if found || count >= high || start == 0 {
                            break;
                        }
                        start = self.previous(start);
                        count += 1;
                        self.spend(1)?;
                    }
                    self.slots[slot as usize] = outer;
                    if found != negated {
                        pc = end as usize;
                        continue;
                    }
                    false
                }
                &Op::Here(slot) => self.slots[slot as usize] as usize == at,
                &Op::Atomic { end } => match self.run(pc + 1, at)? {
                    Some(after) => {
                        (pc, at) = (end as usize, after);
                        continue;
                    }
                    None => false,
                },
                Op::Done => {
                    self.frames.truncate(base);
                    return Ok(Some(at));
                }
            };
            if went_on {
                pc += 1;
            } else {
                match self.back(base)? {
                    Some(place) => (pc, at) = place,
                    None => return Ok(None),
                }
            }
        }
    }

    /// Backtracks to the last choice, and returns where to continue.
    fn back(&mut self, base: usize) -> Result<Option<(usize, usize)>, Exhausted> {
        while self.frames.len() > base {
            let Some(frame) = self.frames.pop() else { break };
            self.spend(1)?;
            match frame {
                Frame::Try { pc, at } => return Ok(Some((pc as usize, at as usize))),
                Frame::Shrink { pc, low, at } => {
                    let at = self.previous(at as usize) as u32;
                    if at > low {
                        self.frames.push(Frame::Shrink { pc, low, at });
                    }
                    return Ok(Some((pc as usize, at as usize)));
                }
                Frame::Grow { pc, at, left } => {
                    let Op::Repeat { class, .. } = self.program.ops[pc as usize - 1] else { continue };
                    let Some(at) = self.program.classes[class as usize].take(self.text, at as usize) else { continue };
                    if left > 1 {
                        self.frames.push(Frame::Grow { pc, at: at as u32, left: left - 1 });
                    }
                    return Ok(Some((pc as usize, at)));
                }
                Frame::Restore { slot, at } => self.slots[slot as usize] = at,
            }
        }
        Ok(None)
    }

    fn holds(&self, assertion: Assertion, at: usize) -> bool {
        let bytes = self.text.as_bytes();
        let (before, after) = (at.checked_sub(1).map(|i| bytes[i]), bytes.get(at).copied());
        let is_word = |at: usize| self.program.word.as_ref().is_some_and(|word| word.take(self.text, at).is_some());
        let left = || at > 0 && is_word(self.previous(at));
        let right = || is_word(at);
        match assertion {
            Assertion::TextStart => before.is_none(),
            Assertion::TextEnd => after.is_none(),
            Assertion::LineStart { crlf: false } => matches!(before, None | Some(b'\n')),
            Assertion::LineEnd { crlf: false } => matches!(after, None | Some(b'\n')),
            Assertion::LineStart { crlf: true } => match before {
                None | Some(b'\n') => true,
                Some(b'\r') => after != Some(b'\n'),
                _ => false,
            },
            Assertion::LineEnd { crlf: true } => match after {
                None | Some(b'\r') => true,
                Some(b'\n') => before != Some(b'\r'),
                _ => false,
            },
            Assertion::Word { left: want_left, right: want_right } => {
                want_left.is_none_or(|want| want == left()) && want_right.is_none_or(|want| want == right())
            }
            Assertion::WordBoundary { negated } => (left() != right()) != negated,
        }
    }
}
