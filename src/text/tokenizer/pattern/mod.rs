//! Regular expressions of tokenizer files, with look-around, executed within a budget.
//!
//! The expressions come with the tokenizer file. A backtracking engine (`\s+(?!\S)` needs one, or
//! look-ahead) may take time quadratic or exponential in the length of the text, and the engine of
//! the `tokenizers` library silently gives up after a million steps, leaving the rest of the text
//! as one piece. Here a search costs at most the steps of a [`Budget`], proportional to the length
//! of the text; exceeding it is an error. A run of one character set is a single choice, so the
//! expressions of published models need about ten steps per byte.
//!
//! The syntax tree comes from the library's parser. Matches are leftmost-first; tests compare them
//! with the library's.

mod class;
mod compile;
mod machine;

#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

use tokenizers::Offsets;

use machine::{Exhausted, Machine, Program};

use crate::{Error, Result};

/// Limits on the work for one text.
#[derive(Debug)]
pub(super) struct Budget {
    steps: AtomicU64,
    bytes: AtomicUsize,
}

impl Budget {
    /// Creates the budget for a text of `len` bytes: 4 million steps plus 256 per byte; 64 KB of
    /// produced text plus 64 bytes per byte.
    pub(super) fn of(len: usize) -> Self {
        Budget {
            steps: AtomicU64::new((1 << 22) + 256 * len as u64),
            bytes: AtomicUsize::new(len.saturating_mul(64).saturating_add(1 << 16)),
        }
    }

    /// Charges the steps of another component.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] if the budget is exceeded.
    pub(super) fn spend_steps(&self, steps: u64) -> Result<()> {
        let left = self.steps.load(Relaxed).checked_sub(steps);
        let wrong = || Error::Tokenizer("the tokenizer takes too many steps for the text".into());
        self.steps.store(left.ok_or_else(wrong)?, Relaxed);
        Ok(())
    }

    /// Charges the bytes of a text produced by a component.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] if the budget is exceeded.
    pub(super) fn spend_bytes(&self, bytes: usize) -> Result<()> {
        let left = self.bytes.load(Relaxed).checked_sub(bytes);
        let wrong = || Error::Tokenizer("the tokenizer makes the text too long".into());
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
    /// A non-empty string.
    Literal,
    Program(Program),
}

impl Pattern {
    /// Compiles a regular expression.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] with the expression and the reason if it is invalid or not supported.
    pub(super) fn regex(expression: &str) -> Result<Self> {
        let program = compile::compile(expression)
            .map_err(|reason| Error::Tokenizer(format!("pattern `{}`: {reason}", abbreviated(expression))))?;
        Ok(Pattern { source: expression.into(), kind: Kind::Program(program) })
    }

    /// Creates a pattern that matches a string literally.
    ///
    /// # Errors
    /// Never for a non-empty string.
    pub(super) fn literal(text: &str) -> Result<Self> {
        if text.is_empty() {
            return Self::regex("");
        }
        Ok(Pattern { source: text.into(), kind: Kind::Literal })
    }

    /// Cost of the pattern in the library's engine: character ranges with repetitions expanded.
    pub(super) fn size(&self) -> usize {
        match &self.kind {
            Kind::Literal => self.source.len(),
            Kind::Program(program) => program.size,
        }
    }

    /// Calls `each` for every part of a text in order, with whether it is a match. The
    /// concatenation of the parts is the text.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] if the budget is exceeded.
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
                        // An empty match directly after another match does not count.
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
            "pattern `{source}` takes too many {what} for a text of {bytes} bytes: shorten the text"
        ))
    }
}

/// Returns the start of a long expression.
fn abbreviated(expression: &str) -> String {
    match expression.char_indices().nth(200) {
        Some((end, _)) => format!("{}…", &expression[..end]),
        None => expression.into(),
    }
}

/// A pattern with the budget of one text, as the library's pattern trait.
pub(super) struct Within<'a> {
    pub(super) pattern: &'a Pattern,
    pub(super) budget: &'a Budget,
    /// Whether matches and the text between them are swapped.
    pub(super) invert: bool,
    /// Number of bytes that replace each match.
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
