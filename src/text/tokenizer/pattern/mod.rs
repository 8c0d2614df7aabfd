//! The patterns of tokenizer files: regular expressions with look-around, run within a budget.
//!
//! A tokenizer's file brings the expressions that texts are split by. An engine that goes back
//! (`\s+(?!\S)` needs one, or one that looks ahead) may take a time that grows with the square of
//! the text, or with a power of two, and the engine of the `tokenizers` library gives up after a
//! million steps back without a word, so that the rest of the text stays one piece. Here a search
//! costs at most [`Budget`] steps, a number for each byte of the text, and is an error beyond. A
//! run of one set of characters is a single choice, so the expressions of published models need
//! some ten steps for each byte.
//!
//! The syntax is that of the library: its parser makes the tree. Matches are the first from the
//! left, with the first alternative that matches, as everywhere; the tests compare.

mod class;
mod compile;
mod machine;

#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

use tokenizers::Offsets;

use machine::{Exhausted, Machine, Program};

use crate::{Error, Result};

/// What reading one text may cost.
#[derive(Debug)]
pub(super) struct Budget {
    steps: AtomicU64,
    bytes: AtomicUsize,
}

impl Budget {
    /// For a text of so many bytes: 4 million steps and 256 for each byte; 64 KB of changed text
    /// and 64 for each byte.
    pub(super) fn of(len: usize) -> Self {
        Budget {
            steps: AtomicU64::new((1 << 22) + 256 * len as u64),
            bytes: AtomicUsize::new(len.saturating_mul(64).saturating_add(1 << 16)),
        }
    }

    /// Takes some steps of another component.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] when they are more than are left.
    pub(super) fn spend_steps(&self, steps: u64) -> Result<()> {
        let left = self.steps.load(Relaxed).checked_sub(steps);
        let wrong = || Error::Tokenizer("the tokenizer's file makes too much work of the text".into());
        self.steps.store(left.ok_or_else(wrong)?, Relaxed);
        Ok(())
    }

    /// Takes the bytes of a text that a component has made.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] when they are more than are left.
    pub(super) fn spend_bytes(&self, bytes: usize) -> Result<()> {
        let left = self.bytes.load(Relaxed).checked_sub(bytes);
        let wrong = || Error::Tokenizer("the tokenizer's file makes the text too long".into());
        self.bytes.store(left.ok_or_else(wrong)?, Relaxed);
        Ok(())
    }
}

/// A compiled pattern.
#[derive(Debug, Clone)]
pub(super) struct Pattern {
    source: String,
    kind: Kind,
}

#[derive(Debug, Clone)]
enum Kind {
    /// A text that is not empty.
    Literal,
    Program(Program),
}

impl Pattern {
    /// The pattern of a regular expression.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] naming it and what is wrong with it.
    pub(super) fn regex(expression: &str) -> Result<Self> {
        let program = compile::compile(expression)
            .map_err(|reason| Error::Tokenizer(format!("pattern `{}`: {reason}", abbreviated(expression))))?;
        Ok(Pattern { source: expression.into(), kind: Kind::Program(program) })
    }

    /// The pattern of a text as it is.
    ///
    /// # Errors
    /// None for a text that is not empty.
    pub(super) fn literal(text: &str) -> Result<Self> {
        if text.is_empty() {
            return Self::regex("");
        }
        Ok(Pattern { source: text.into(), kind: Kind::Literal })
    }

    /// What the library's engine would make of it: ranges of characters, with repetitions written
    /// out.
    pub(super) fn size(&self) -> usize {
        match &self.kind {
            Kind::Literal => self.source.len(),
            Kind::Program(program) => program.size,
        }
    }

    /// Calls `each` for every part of a text in order, with whether it is a match; together they
    /// are the text.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] when the budget does not suffice.
    pub(super) fn parts(
        &self,
        text: &str,
        budget: &Budget,
        mut each: impl FnMut(Offsets, bool) -> Result<()>,
    ) -> Result<()> {
        if text.is_empty() {
            return each((0, 0), false);
        }
        let mut done = 0;
        let mut found = |(start, end): Offsets| {
            if done != start {
                each((done, start), false)?;
            }
            done = end;
            each((start, end), true)
        };
        match &self.kind {
            Kind::Literal => {
                text.match_indices(&self.source).try_for_each(|(start, m)| found((start, start + m.len())))?
            }
            Kind::Program(program) => {
                let spent = |reason| self.exhausted(reason, text.len());
                if u32::try_from(text.len()).is_err() {
                    return Err(spent(Exhausted::Memory));
                }
                let mut machine = Machine::new(program, text, budget.steps.load(Relaxed));
                let (mut from, mut last_end) = (0, None);
                while from <= text.len() {
                    let Some((start, end)) = machine.find(from).map_err(spent)? else { break };
                    if start < end {
                        from = end;
                    } else {
                        // An empty match right behind another one does not count.
                        from = text[end..].chars().next().map_or(text.len() + 1, |c| end + c.len_utf8());
                        if last_end == Some(end) {
                            continue;
                        }
                    }
                    last_end = Some(end);
                    found((start, end))?;
                }
                budget.steps.store(machine.steps(), Relaxed);
            }
        }
        if done != text.len() {
            each((done, text.len()), false)?;
        }
        Ok(())
    }

    fn exhausted(&self, reason: Exhausted, bytes: usize) -> Error {
        let what = match reason {
            Exhausted::Steps => "steps",
            Exhausted::Memory => "memory",
        };
        let source = abbreviated(&self.source);
        Error::Tokenizer(format!(
            "pattern `{source}` takes too many {what} over a text of {bytes} bytes: shorten the text"
        ))
    }
}

/// The beginning of an expression that is long.
fn abbreviated(expression: &str) -> String {
    match expression.char_indices().nth(200) {
        Some((end, _)) => format!("{}…", &expression[..end]),
        None => expression.into(),
    }
}

/// A pattern with the budget of one text, for the library's strings.
pub(super) struct Within<'a> {
    pub(super) pattern: &'a Pattern,
    pub(super) budget: &'a Budget,
    /// Whether what is between matches counts as a match, and the other way round.
    pub(super) invert: bool,
    /// The bytes that each match becomes.
    pub(super) replacement: usize,
}

impl tokenizers::pattern::Pattern for Within<'_> {
    fn find_matches(&self, inside: &str) -> tokenizers::Result<Vec<(Offsets, bool)>> {
        let mut parts = Vec::new();
        self.pattern.parts(inside, self.budget, |offsets, is_match| {
            if is_match {
                self.budget.spend_bytes(self.replacement)?;
            }
            parts.push((offsets, is_match != self.invert));
            Ok(())
        })?;
        Ok(parts)
    }
}
