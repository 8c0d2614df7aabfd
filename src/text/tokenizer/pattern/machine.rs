//! Running a pattern: backtracking with a stack of its own, and a budget.
//!
//! A set of characters repeated is one operation and one entry of the stack, whatever its length:
//! what goes back in it goes back by characters. Each operation and each character read is a step.

use super::class::Class;

/// How often a set of characters may be repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    Greedy,
    Lazy,
    /// Greedy, and nothing is given back.
    Possessive,
}

/// What may stand first in a part of a pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct First {
    pub(super) ascii: u128,
    /// Whether it may be a character above ASCII.
    pub(super) others: bool,
    /// Whether the part may be empty, so that anything may follow.
    pub(super) empty: bool,
}

impl First {
    /// Of what is empty.
    pub(super) const EMPTY: First = First { ascii: 0, others: false, empty: true };

    pub(super) fn or(self, other: First) -> First {
        First { ascii: self.ascii | other.ascii, others: self.others || other.others, empty: self.empty || other.empty }
    }

    /// Whether the part may match at a byte of the text, or at its end.
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
    /// A boundary of words: whether it must have a word on its left and its right.
    Word {
        left: Option<bool>,
        right: Option<bool>,
    },
    /// Word on one side only (or, negated, on both or none).
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
    /// Goes on, and to `other` if that fails; at once where the next character rules the one out.
    Fork {
        other: u32,
        first: First,
    },
    Jump(u32),
    /// Notes where a round of a loop begins, which may be empty.
    Round(u16),
    /// Goes back to `start` unless the round was empty.
    Again {
        slot: u16,
        start: u32,
    },
    Assert(Assertion),
    /// The operations behind it, up to `Done`, must match here, or must not.
    Ahead {
        negated: bool,
        end: u32,
    },
    /// The operations behind it, up to `Done`, must match from some place between `low` and `high`
    /// characters before this one, which the slot is for, or must not.
    Behind {
        low: u32,
        high: u32,
        slot: u16,
        negated: bool,
        end: u32,
    },
    /// This is the place that the slot holds.
    Here(u16),
    /// The operations behind it, up to `Done`, match in one way only.
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
    /// The ranges of characters that it has with its repetitions written out.
    pub(super) size: usize,
    pub(super) first: First,
    /// The characters of words, where a pattern asks for their boundaries.
    pub(super) word: Option<Class>,
}

/// What to go back to.
#[derive(Debug)]
enum Frame {
    Try {
        pc: u32,
        at: u32,
    },
    /// Go on at `pc` with one character less, down to `low`.
    Shrink {
        pc: u32,
        low: u32,
        at: u32,
    },
    /// Go on at `pc` with one character more of the repeated set before it.
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

/// Why a search was given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Exhausted {
    Steps,
    Memory,
}

/// The most entries of the stack: some 32 MB.
const MOST_FRAMES: usize = 1 << 21;

pub(super) struct Machine<'a> {
    program: &'a Program,
    text: &'a str,
    frames: Vec<Frame>,
    slots: Vec<u32>,
    steps: u64,
}

impl<'a> Machine<'a> {
    /// For a text below 4 GB, of `steps` steps.
    pub(super) fn new(program: &'a Program, text: &'a str, steps: u64) -> Self {
        Machine { program, text, frames: Vec::new(), slots: vec![0; program.slots], steps }
    }

    /// The steps that are left.
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

    /// The first match from `from` on, which is a boundary of characters.
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

    /// Runs the operations from `pc` on, up to their end: the end of the match.
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

    /// Takes the last choice back: where to go on.
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
