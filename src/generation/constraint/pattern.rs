//! Prepares regular expressions for the engine: rewrites or rejects what has another meaning there.

use regex_syntax::ParserBuilder;
use regex_syntax::hir::{Class, ClassUnicode, ClassUnicodeRange, Hir, HirKind, Repetition};

/// Converts an expression for a whole text. Groups lose their names: the engine reads `stop` as a
/// look-ahead.
///
/// # Errors
/// The reason why the expression is invalid.
pub(super) fn whole(pattern: &str) -> Result<String, String> {
    Ok(written(without_groups(parsed(pattern, false)?, &|class| class)))
}

/// Converts a pattern for JSON strings. In them, the engine allows every short escape (`\"`, `\\`,
/// …) once a class contains all control characters, or all but the line feed. So U+0000, which
/// constrained strings never contain, is removed from classes without the quote or the backslash.
/// As in ECMA 262, `\d` and `\w` match ASCII only, and `.` matches no line terminator.
///
/// # Errors
/// The reason why the pattern is invalid.
pub(super) fn in_strings(pattern: &str) -> Result<String, String> {
    let hir = parsed(&llguidance::regex_to_lark(pattern, "dw"), true)?;
    Ok(written(without_groups(hir, &|class| {
        let mut kept = class;
        if kept == all_but(&['\n', '\r']) {
            kept = all_but(&['\n', '\r', '\u{2028}', '\u{2029}']);
        }
        if !(holds(&kept, '"') && holds(&kept, '\\')) {
            kept.difference(&ClassUnicode::new([ClassUnicodeRange::new('\0', '\0')]));
        }
        kept
    })))
}

/// Sums the bounds of all repetitions in an expression; 0 for an invalid one.
pub(super) fn repeats(pattern: &str) -> u64 {
    parsed(pattern, false).map_or(0, |hir| counted(&hir))
}

fn counted(hir: &Hir) -> u64 {
    let sum = |parts: &[Hir]| parts.iter().map(counted).fold(0, u64::saturating_add);
    match hir.kind() {
        HirKind::Repetition(repeated) => {
            let most = u64::from(repeated.max.unwrap_or(repeated.min));
            most.saturating_add(counted(&repeated.sub).saturating_mul(most.max(1)))
        }
        HirKind::Capture(group) => counted(&group.sub),
        HirKind::Concat(parts) | HirKind::Alternation(parts) => sum(parts),
        _ => 0,
    }
}

fn parsed(pattern: &str, crlf: bool) -> Result<Hir, String> {
    let parsed = ParserBuilder::new().crlf(crlf).build().parse(pattern);
    // The parser's message has several lines; the last one states the error.
    parsed.map_err(|error| error.to_string().lines().last().unwrap_or("cannot be read").trim().to_string())
}

fn written(hir: Hir) -> String {
    hir.to_string()
}

fn all_but(chars: &[char]) -> ClassUnicode {
    let mut class = ClassUnicode::new(chars.iter().map(|&c| ClassUnicodeRange::new(c, c)));
    class.negate();
    class
}

fn holds(class: &ClassUnicode, c: char) -> bool {
    class.iter().any(|range| (range.start()..=range.end()).contains(&c))
}

/// Returns the expression without groups and with changed classes. The recursion is bounded by the
/// parser's nesting limit.
fn without_groups(hir: Hir, change: &dyn Fn(ClassUnicode) -> ClassUnicode) -> Hir {
    let inner = |hir: Hir| without_groups(hir, change);
    match hir.into_kind() {
        HirKind::Empty => Hir::empty(),
        HirKind::Literal(literal) => {
            // A literal character is a class of one, so that a union cannot add U+0000 again.
            let single = |c: char| change(ClassUnicode::new([ClassUnicodeRange::new(c, c)]));
            match std::str::from_utf8(&literal.0) {
                Ok(text) if text.chars().any(|c| single(c).ranges().is_empty()) => Hir::fail(),
                _ => Hir::literal(literal.0),
            }
        }
        HirKind::Class(Class::Unicode(class)) => Hir::class(Class::Unicode(change(class))),
        HirKind::Class(Class::Bytes(class)) => match class.to_unicode_class() {
            Some(class) => Hir::class(Class::Unicode(change(class))),
            None => Hir::class(Class::Bytes(class)),
        },
        HirKind::Look(look) => Hir::look(look),
        HirKind::Repetition(repeated) => {
            let sub = Box::new(inner(*repeated.sub));
            Hir::repetition(Repetition { sub, ..repeated })
        }
        HirKind::Capture(group) => inner(*group.sub),
        HirKind::Concat(parts) => Hir::concat(parts.into_iter().map(inner).collect()),
        HirKind::Alternation(parts) => Hir::alternation(parts.into_iter().map(inner).collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_as_the_same() {
        for pattern in
            ["", "a/b\\/c", "(?<stop>a|b)+c{2,5}?", "[^\"]\\.\\\\[\\d\\-]\u{e9}|^x$", "(?i)stra\u{df}e", "\n\t "]
        {
            let text = whole(pattern).unwrap();
            assert_eq!(whole(&text).unwrap(), text, "{pattern}");
            assert!(!text.contains("stop") && in_strings(pattern).is_ok());
        }
        assert!(whole("(").unwrap_err().contains("unclosed group"));
        assert!(whole("(?=a)").is_err() && in_strings("(?!a)").is_err());
    }

    #[test]
    fn repetitions_are_counted() {
        for (pattern, count) in [("a*b+", 1), ("a{2,30}|b{3}", 33), ("(a{1,20}b){1,30}", 630), ("(", 0)] {
            assert_eq!(repeats(pattern), count, "{pattern}");
        }
    }

    #[test]
    fn classes_that_lack_the_quote_or_the_backslash_lose_nul() {
        let class = |pattern: &str| match parsed(&in_strings(pattern).unwrap(), false).unwrap().into_kind() {
            HirKind::Class(Class::Unicode(class)) => class,
            other => panic!("{other:?}"),
        };
        assert!(!holds(&class("[^\"]"), '\0') && holds(&class("[^\"]"), '\u{1}'));
        assert!(!holds(&class("[^\\\\]"), '\0') && holds(&class("[^x]"), '\0'));
        assert!(!holds(&class("[^\"]|\\x00"), '\0'), "no union brings it back");
        assert!(!holds(&class("."), '\u{2028}') && !holds(&class("."), '\r') && holds(&class("(?s:.)"), '\n'));
        assert!(!holds(&class("\\d"), '\u{664}') && !holds(&class("\\w"), '\u{e9}'));
    }
}
