//! Text cleaning: Unicode normal forms, case, accents, control characters, white space.
//!
//! ```
//! use loquat::text::{NormalForm, TextCleaner, WhiteSpace};
//!
//! let cleaner = TextCleaner::default()
//!     .remove_control()
//!     .normal_form(NormalForm::Nfkc)
//!     .strip_accents()
//!     .lowercase()
//!     .white_space(WhiteSpace::Collapse);
//! assert_eq!(cleaner.clean("  Ｃａｆé\u{200B}\t№ 5\r\n"), "cafe no 5");
//! ```

use std::borrow::Cow;

use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::canonical_combining_class;

/// A Unicode normal form ([UAX #15](https://unicode.org/reports/tr15/)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NormalForm {
    /// Canonical composition: é is one character.
    Nfc,
    /// Canonical decomposition: é is e and an accent.
    Nfd,
    /// Compatibility composition: ﬁ becomes fi, ² becomes 2, full-width letters become ordinary
    /// ones.
    Nfkc,
    /// Compatibility decomposition.
    Nfkd,
}

/// How white space is treated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WhiteSpace {
    /// White space is kept.
    #[default]
    Keep,
    /// Runs become one space; leading and trailing white space is removed.
    Collapse,
    /// Same as `Collapse` within lines; runs that contain a line end become one line feed.
    CollapseKeepLines,
}

/// A text cleaner. The default changes nothing; each method adds a step. Steps run in the order of
/// the methods here.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TextCleaner {
    control: bool,
    form: Option<NormalForm>,
    accents: bool,
    lowercase: bool,
    white_space: WhiteSpace,
}

impl TextCleaner {
    /// Removes invisible characters: control characters (except tab and line ends), byte order
    /// marks, zero-width spaces, soft hyphens, directional marks, non-characters. The joiners used
    /// in emoji and Persian words are kept.
    #[must_use]
    pub fn remove_control(mut self) -> Self {
        self.control = true;
        self
    }

    /// Converts text to a Unicode normal form.
    #[must_use]
    pub fn normal_form(mut self, form: NormalForm) -> Self {
        self.form = Some(form);
        self
    }

    /// Strips accents: é becomes e, ü becomes u, й becomes и. Letters without a decomposition (ø,
    /// ł, ß) are kept, and so are marks that belong to the spelling (Japanese voicing, Hebrew and
    /// Arabic points, Indic signs).
    #[must_use]
    pub fn strip_accents(mut self) -> Self {
        self.accents = true;
        self
    }

    /// Converts text to lower case.
    #[must_use]
    pub fn lowercase(mut self) -> Self {
        self.lowercase = true;
        self
    }

    /// Sets how white space is treated, in all its Unicode kinds.
    #[must_use]
    pub fn white_space(mut self, white_space: WhiteSpace) -> Self {
        self.white_space = white_space;
        self
    }

    /// Cleans a text. A text that needs no change is not copied.
    pub fn clean<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let mut clean = Cow::Borrowed(text);
        if self.control && text.chars().any(is_unseen) {
            clean = clean.chars().filter(|&c| !is_unseen(c)).collect();
        }
        // No normal form changes ASCII, and ASCII has no accents.
        if !clean.is_ascii() {
            clean = match self.form {
                None => clean,
                Some(NormalForm::Nfc) => clean.nfc().collect(),
                Some(NormalForm::Nfd) => clean.nfd().collect(),
                Some(NormalForm::Nfkc) => clean.nfkc().collect(),
                Some(NormalForm::Nfkd) => clean.nfkd().collect(),
            };
            if self.accents {
                let bare = clean.nfd().filter(|&c| !is_accent(c));
                clean = match self.form {
                    Some(NormalForm::Nfd | NormalForm::Nfkd) => bare.collect(),
                    _ => bare.nfc().collect(),
                };
            }
        }
        if self.lowercase && clean.chars().any(|c| !c.is_lowercase()) {
            clean = clean.to_lowercase().into();
        }
        match self.white_space {
            WhiteSpace::Keep => clean,
            WhiteSpace::Collapse => collapse(&clean, false).into(),
            WhiteSpace::CollapseKeepLines => collapse(&clean, true).into(),
        }
    }
}

fn is_unseen(c: char) -> bool {
    match c {
        '\t' | '\n' | '\r' => false,
        '\u{AD}' | '\u{200B}' | '\u{200E}' | '\u{200F}' | '\u{2060}'..='\u{2064}' | '\u{FEFF}' => true,
        '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{206F}' | '\u{FDD0}'..='\u{FDEF}' => true,
        c => c.is_control() || c as u32 & 0xFFFE == 0xFFFE,
    }
}

/// Combining marks above, below or across a letter; lower combining classes contain marks that
/// belong to a script's spelling.
fn is_accent(c: char) -> bool {
    matches!(canonical_combining_class(c), 1 | 200..=240)
}

fn collapse(text: &str, keep_lines: bool) -> String {
    let mut clean = String::with_capacity(text.len());
    let (mut space, mut line) = (false, false);
    for c in text.chars() {
        if c.is_whitespace() {
            space = true;
            line |= keep_lines && matches!(c, '\n' | '\r' | '\u{2028}' | '\u{2029}' | '\u{85}' | '\u{B}' | '\u{C}');
            continue;
        }
        if space && !clean.is_empty() {
            clean.push(if line { '\n' } else { ' ' });
        }
        (space, line) = (false, false);
        clean.push(c);
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_step_alone() {
        let plain = TextCleaner::default();
        let cases: [(&str, TextCleaner, &str, &str); 14] = [
            ("nothing", plain.clone(), " É\u{0}\t", " É\u{0}\t"),
            (
                "control",
                plain.clone().remove_control(),
                "\u{FEFF}a\u{0}\u{AD}b\r\n\tc\u{FFFF}👩\u{200D}👧",
                "ab\r\n\tc👩\u{200D}👧",
            ),
            ("nfc", plain.clone().normal_form(NormalForm::Nfc), "e\u{301}ﬁ", "éﬁ"),
            ("nfd", plain.clone().normal_form(NormalForm::Nfd), "éﬁ", "e\u{301}ﬁ"),
            ("nfkc", plain.clone().normal_form(NormalForm::Nfkc), "e\u{301}ﬁ²", "éfi2"),
            ("nfkd", plain.clone().normal_form(NormalForm::Nfkd), "éﬁ", "e\u{301}fi"),
            ("accents", plain.clone().strip_accents(), "Éüñç ø ß йё", "Eunc ø ß ие"),
            ("accents spare spelling", plain.clone().strip_accents(), "がぎ שָׁ हिन्दी 한국", "がぎ שָׁ हिन्दी 한국"),
            (
                "accents decomposed",
                plain.clone().strip_accents().normal_form(NormalForm::Nfd),
                "é한",
                "e\u{1112}\u{1161}\u{11AB}",
            ),
            ("lowercase", plain.clone().lowercase(), "ÄB ΟΔΟΣ İ", "äb οδος i\u{307}"),
            ("collapse", plain.clone().white_space(WhiteSpace::Collapse), "\u{3000} a \u{A0}\n b\t", "a b"),
            ("lines", plain.clone().white_space(WhiteSpace::CollapseKeepLines), " a  b \r\n\n c \n", "a b\nc"),
            ("empty", plain.clone().white_space(WhiteSpace::Collapse), " \n ", ""),
            ("control, then space", plain.remove_control().white_space(WhiteSpace::Collapse), "a \u{200B} b", "a b"),
        ];
        for (name, cleaner, text, expected) in cases {
            assert_eq!(cleaner.clean(text), expected, "{name}");
        }
    }

    #[test]
    fn clean_text_is_not_copied() {
        let cleaner = TextCleaner::default().remove_control().normal_form(NormalForm::Nfc).strip_accents();
        assert!(matches!(cleaner.clean("plain text"), Cow::Borrowed(_)));
    }
}
