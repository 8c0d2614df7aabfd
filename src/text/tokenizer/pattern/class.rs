//! Character sets.

use regex_syntax::ParserBuilder;
use regex_syntax::hir::{Class as Ranges, Hir, HirKind};

/// Number of ranges from which characters below U+10000 are stored as bits.
const MANY: usize = 8;

/// A set of characters: bits for ASCII, and below U+10000 for large sets; ranges for the others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Class {
    ascii: u128,
    /// One bit for each character below U+10000; empty for small sets.
    low: Box<[u64]>,
    high: Box<[(char, char)]>,
    /// Number of ranges, which determines the cost in other engines.
    pub(super) ranges: usize,
}

impl Class {
    /// Parses a regular expression for one character; `None` if it can match anything else.
    pub(super) fn parse(expression: &str, ignore_case: bool) -> std::result::Result<Option<Self>, String> {
        let mut parser = ParserBuilder::new().case_insensitive(ignore_case).build();
        Ok(Self::of(&parser.parse(expression).map_err(|e| e.to_string())?))
    }

    fn of(hir: &Hir) -> Option<Self> {
        match hir.kind() {
            HirKind::Class(Ranges::Unicode(class)) => {
                Some(Self::from_ranges(class.ranges().iter().map(|range| (range.start(), range.end()))))
            }
            HirKind::Literal(literal) => {
                let mut chars = std::str::from_utf8(&literal.0).ok()?.chars();
                match (chars.next(), chars.next()) {
                    (Some(c), None) => Some(Self::from_ranges([(c, c)])),
                    _ => None,
                }
            }
            HirKind::Capture(group) => Self::of(&group.sub),
            _ => None,
        }
    }

    /// All characters, with or without line ends.
    pub(super) fn any(line_ends: bool) -> Self {
        if line_ends {
            return Self::from_ranges([('\0', char::MAX)]);
        }
        Self::from_ranges([('\0', '\t'), ('\u{B}', char::MAX)])
    }

    fn from_ranges(ranges: impl IntoIterator<Item = (char, char)>) -> Self {
        let ranges: Vec<(char, char)> = ranges.into_iter().collect();
        let mut class = Class { ascii: 0, low: Box::default(), high: Box::default(), ranges: ranges.len() };
        if ranges.len() > MANY {
            class.low = vec![0; 1024].into();
        }
        // The first character without a bit.
        let rest = if class.low.is_empty() { '\u{80}' } else { '\u{10000}' };
        let mut high = Vec::new();
        for (start, end) in ranges {
            let (first, last) = (start as u32, end as u32);
            if first < 128 {
                class.ascii |= (u128::MAX << first) & (u128::MAX >> (127 - last.min(127)));
            }
            if !class.low.is_empty() && first < 0x10000 {
                for c in first.max(128)..=last.min(0xFFFF) {
                    class.low[c as usize / 64] |= 1 << (c % 64);
                }
            }
            if end >= rest {
                high.push((start.max(rest), end));
            }
        }
        class.high = high.into();
        class
    }

    /// The ASCII characters of the set, and whether there are others.
    pub(super) fn first(&self) -> (u128, bool) {
        (self.ascii, !self.low.is_empty() || !self.high.is_empty())
    }

    /// Returns the end of the character at `at`, if there is one and it is in the set.
    #[inline]
    pub(super) fn take(&self, text: &str, at: usize) -> Option<usize> {
        let &byte = text.as_bytes().get(at)?;
        if byte < 128 {
            return (self.ascii >> byte & 1 == 1).then_some(at + 1);
        }
        let c = text[at..].chars().next()?;
        let found = match self.low.get(c as usize / 64) {
            Some(bits) => bits >> (c as u32 % 64) & 1 == 1,
            None => {
                let after = self.high.partition_point(|&(start, _)| start <= c);
                after > 0 && c <= self.high[after - 1].1
            }
        };
        found.then_some(at + c.len_utf8())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_character_is_in_its_classes_and_in_no_other() {
        for expression in [
            r"\p{L}",
            r"\s",
            r"[^\r\n\p{L}\p{N}]",
            "[a-zé一-龥𝔘-𝟙]",
            "x",
            r"\w",
            r"\p{Greek}",
            "[^\u{10000}-\u{10FFFF}]",
        ] {
            let class = Class::parse(expression, false).unwrap().unwrap();
            let hir = regex_syntax::parse(expression).unwrap();
            let expected = |c: char| match hir.kind() {
                HirKind::Class(Ranges::Unicode(ranges)) => {
                    ranges.ranges().iter().any(|range| (range.start()..=range.end()).contains(&c))
                }
                _ => c == 'x',
            };
            for c in ('\0'..='\u{20FFF}').chain(['\u{E0001}', char::MAX]) {
                let text = c.to_string();
                assert_eq!(class.take(&text, 0), expected(c).then_some(text.len()), "{expression} {c:?}");
            }
        }
        assert_eq!(Class::parse("ab", false), Ok(None));
        assert!(Class::parse("k", true).unwrap().unwrap().take("\u{212A}", 0).is_some(), "the Kelvin sign is a k");
        assert!(Class::any(false).take("\n", 0).is_none() && Class::any(true).take("\n", 0).is_some());
    }
}
