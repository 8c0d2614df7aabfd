//! Sentence splitting.
//!
//! Rule-based, in one pass, for prose in European languages, Chinese and Japanese:
//!
//! - `。！？` always end a sentence. `. ! ? …` do if white space or the end of the text follows (not
//!   in `3.14` or `example.com`) and the next letter is not lower case (not in `"Why?" he asked`).
//! - Closing quotes and brackets directly after the end belong to the sentence.
//! - The full stop of an abbreviation does not end a sentence. After abbreviations that may be the
//!   last word (`etc.`, `U.S.`, a single letter) it does if the next word often starts a sentence
//!   (`The`, `He`, `But`, …).
//! - An empty line always ends a sentence.
//!
//! The rules are those that the splitter Punkt (Kiss and Strunk 2006) learns from a corpus, fixed
//! for English.
//!
//! ```
//! use loquat::text::split_sentences;
//!
//! let text = "Dr. Smith paid $3.50, i.e. too much. \"Why?\" he asked... She left. 他走了。她也走了！";
//! let sentences: Vec<&str> = split_sentences(text).collect();
//! assert_eq!(
//!     sentences,
//!     [
//!         "Dr. Smith paid $3.50, i.e. too much.",
//!         "\"Why?\" he asked...",
//!         "She left.",
//!         "他走了。",
//!         "她也走了！"
//!     ]
//! );
//! ```

use std::collections::HashSet;
use std::ops::Range;
use std::sync::LazyLock;

/// Splits a text into sentences by the rules and abbreviations of English; see [`SentenceSplitter`]
/// for others.
pub fn split_sentences(text: &str) -> impl Iterator<Item = &str> {
    static ENGLISH: LazyLock<SentenceSplitter> = LazyLock::new(SentenceSplitter::english);
    ENGLISH.split(text)
}

/// A sentence splitter with configurable abbreviations.
#[derive(Clone)]
pub struct SentenceSplitter {
    /// Without their last full stop, in lower case.
    never_last: HashSet<String>,
    perhaps_last: HashSet<String>,
    openers: HashSet<String>,
}

impl std::fmt::Debug for SentenceSplitter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let abbreviations = self.never_last.len() + self.perhaps_last.len();
        write!(f, "SentenceSplitter({abbreviations} abbreviations)")
    }
}

impl SentenceSplitter {
    /// Creates a splitter with English abbreviations.
    pub fn english() -> Self {
        let set = |words: &str| words.split_whitespace().map(str::to_string).collect();
        SentenceSplitter { never_last: set(NEVER_LAST), perhaps_last: set(PERHAPS_LAST), openers: set(OPENERS) }
    }

    /// Creates a splitter without abbreviations except for single letters.
    pub fn without_abbreviations() -> Self {
        let openers = Self::english().openers;
        SentenceSplitter { never_last: HashSet::new(), perhaps_last: HashSet::new(), openers }
    }

    /// Adds abbreviations whose full stop does not end a sentence, for example `approx`, with or
    /// without the full stop.
    #[must_use]
    pub fn with_abbreviations<S: AsRef<str>>(mut self, words: impl IntoIterator<Item = S>) -> Self {
        self.never_last.extend(words.into_iter().map(|word| word.as_ref().trim_end_matches('.').to_lowercase()));
        self
    }

    /// Returns the sentences of a text in order, without surrounding white space.
    pub fn split<'a>(&'a self, text: &'a str) -> impl Iterator<Item = &'a str> + 'a {
        self.ranges(text).map(move |range| &text[range])
    }

    /// Returns the byte ranges of the sentences.
    pub(crate) fn ranges<'a>(&'a self, text: &'a str) -> impl Iterator<Item = Range<usize>> + 'a {
        let mut start = 0;
        std::iter::from_fn(move || {
            loop {
                start += text[start..].len() - text[start..].trim_start().len();
                if start == text.len() {
                    return None;
                }
                let end = self.end(text, start);
                let sentence = start..start + text[start..end].trim_end().len();
                start = end;
                if !sentence.is_empty() {
                    return Some(sentence);
                }
            }
        })
    }

    /// Returns the end of the sentence that starts at `start`.
    fn end(&self, text: &str, start: usize) -> usize {
        let mut rest = text[start..].char_indices().map(|(i, c)| (start + i, c)).peekable();
        while let Some((i, c)) = rest.next() {
            if c == '\n' && empty_line(&text[i + 1..]) {
                return i;
            }
            if !is_end(c) {
                continue;
            }
            // Includes all of `?!`, `...`, `。」` and the like.
            let (mut last, mut end, mut closed) = (c, i + c.len_utf8(), false);
            let mut wide = is_wide_end(c);
            while let Some(&(j, next)) = rest.peek() {
                if is_end(next) && !closed {
                    last = next;
                    wide |= is_wide_end(next);
                } else if is_closing(next, &text[j + next.len_utf8()..]) {
                    closed = true;
                } else {
                    break;
                }
                end = j + next.len_utf8();
                rest.next();
            }
            let after = &text[end..];
            if wide || after.trim_start().is_empty() {
                return end;
            }
            let breaks = after.starts_with(char::is_whitespace);
            let dots = &text[i..end];
            if breaks && self.ends_before(&text[start..i], last, dots, after) {
                return end;
            }
        }
        text.len()
    }

    /// Whether a stop is the end of a sentence, given the text before and after it.
    fn ends_before(&self, before: &str, last: char, dots: &str, after: &str) -> bool {
        if after.trim_start_matches([' ', '\t', '\r']).starts_with('\n') && empty_line_within(after) {
            return true;
        }
        let next = after.trim_start().trim_start_matches(is_opening);
        if next.starts_with(char::is_lowercase) {
            return false;
        }
        if last != '.' || dots.trim_end_matches(|c| is_closing(c, "")) != "." {
            return true; // `!`, `?`, `…`, `...`
        }
        let word = before.rsplit(|c: char| c.is_whitespace() || is_opening(c) || c == '—').next().unwrap_or_default();
        let folded = word.to_lowercase();
        if self.never_last.contains(&folded) {
            // `No.` is an abbreviation only before a number.
            return folded == "no" && !next.starts_with(|c: char| c.is_ascii_digit());
        }
        let letter = word.chars().count() == 1 && word.starts_with(char::is_uppercase);
        let initials = folded.contains('.') && folded.split('.').all(|part| part.chars().count() <= 2);
        if letter || initials || self.perhaps_last.contains(&folded) {
            let opener = next.split(|c: char| !c.is_alphanumeric() && c != '\'').next().unwrap_or_default();
            return self.openers.contains(opener);
        }
        // `1. First`: a number alone is a list marker.
        !(word.len() == before.trim_start().len() && word.starts_with(|c: char| c.is_ascii_digit()))
    }
}

impl Default for SentenceSplitter {
    fn default() -> Self {
        Self::english()
    }
}

/// Whether a line is empty: only white space up to the next line feed.
fn empty_line(text: &str) -> bool {
    text.trim_start_matches([' ', '\t', '\r']).starts_with('\n')
}

/// Whether the leading white space contains an empty line.
fn empty_line_within(text: &str) -> bool {
    let space = &text[..text.len() - text.trim_start().len()];
    space.matches('\n').count() > 1
}

fn is_end(c: char) -> bool {
    matches!(c, '.' | '!' | '?' | '…' | '‽' | '⁇' | '⁈' | '⁉' | '؟' | '۔' | '।') || is_wide_end(c)
}

/// End marks that need no white space after them.
fn is_wide_end(c: char) -> bool {
    matches!(c, '。' | '！' | '？' | '｡' | '．')
}

/// Whether a quote or bracket closes; straight quotes do if no letter follows.
fn is_closing(c: char, after: &str) -> bool {
    match c {
        ')' | ']' | '}' | '”' | '’' | '»' | '›' | '」' | '』' | '）' | '】' | '》' | '〉' | '］' | '〕' => {
            true
        }
        '"' | '\'' => !after.starts_with(char::is_alphanumeric),
        _ => false,
    }
}

fn is_opening(c: char) -> bool {
    matches!(
        c,
        '(' | '['
            | '{'
            | '"'
            | '\''
            | '“'
            | '‘'
            | '«'
            | '‹'
            | '„'
            | '‚'
            | '「'
            | '『'
            | '（'
            | '【'
            | '《'
            | '¿'
            | '¡'
    )
}

/// Abbreviations that are never the last word of a sentence.
const NEVER_LAST: &str = "
mr mrs ms mx dr prof rev hon fr sr. st mt ft gen col maj capt cmdr lt sgt cpl pvt adm gov sen rep pres supt messrs mme mlle
mgr insp det
e.g i.e eg ie viz cf vs v al ca approx c
fig figs eq eqs no nos vol vols ch chap sec pp p pg par ed eds trans op ser art
jan feb mar apr jun jul aug sep sept oct nov dec mon tue tues wed thu thur thurs fri sat sun
";

/// Abbreviations that may be the last word of a sentence.
const PERHAPS_LAST: &str = "
etc inc ltd co corp llc bros plc jr sr esq phd ph.d m.d b.a m.a b.sc m.sc d.c u.s u.k u.n u.s.a e.u a.m p.m am pm a.d b.c
ave blvd rd dept univ est assn bldg min max hr hrs mins secs sq cu oz lb lbs ft km cm mm kg mg
";

/// Capitalised words that often start a sentence and are rarely names.
const OPENERS: &str = "
The A An This That These Those There Here He She It We They I You His Her Its Our Their My Your One
And But Or So Yet For Nor If When While Although Though Because As Since Until Unless After Before
In On At By To From With Without Of About Under Over Between During
What Why Who Where How Which Whose
However Then Now Still Thus Therefore Moreover Meanwhile Instead Perhaps Today Yesterday Tomorrow
Not No Yes All Many Most Some Each Every Such Another Both Few Several
Is Was Are Were Do Does Did Has Have Had Can Could Will Would Should May Might Must Let It's I'm He's She's That's
";

#[cfg(test)]
mod tests {
    use super::super::random_text::random_text;
    use super::*;

    fn check(cases: &[&[&str]]) {
        for sentences in cases {
            let text = sentences.join(" ");
            assert_eq!(split_sentences(&text).collect::<Vec<_>>(), *sentences, "{text}");
        }
    }

    #[test]
    fn plain_ends() {
        check(&[
            &["One.", "Two!", "Three?", "Four"],
            &["Really?!", "Yes!!!", "Well."],
            &["It was 1999.", "Then came 2000."],
            &["¿Qué?", "¡Hola!", "Ça va."],
        ]);
    }

    #[test]
    fn abbreviations_and_numbers() {
        check(&[
            &["Mr. and Mrs. Jones met Dr. No.", "They left."],
            &["It costs $3.50 (ca. 4.2 %) at example.com today."],
            &["J. R. R. Tolkien wrote it.", "C. S. Lewis did not."],
            &["He moved to the U.S. in May.", "She stayed in the U.S.", "He wrote."],
            &["The U.S. Army came.", "See Fig. 3 and No. 7, p. 12."],
            &["We met at 5 p.m. on Monday.", "It ended at 6 p.m.", "Then we ate, drank, etc.", "The bill came."],
            &["1. First things first.", "2. Then the rest."],
            &["She has a Ph.D. in physics, i.e. she knows."],
            &["No.", "Never."],
            &["Version 2.0.1 is out.", "Get it from a.b.c now."],
        ]);
    }

    #[test]
    fn quotes_brackets_and_ellipses() {
        check(&[
            &["\"Why?\" he asked.", "\"Because.\"", "She left."],
            &["“Stop!” she cried.", "“Now.”", "(He did.)", "It ended."],
            &["Well... perhaps not.", "And so...", "The end…", "Or… not."],
            &["'Tis odd.'", "It's John's.", "Don't!"],
        ]);
    }

    #[test]
    fn chinese_and_japanese() {
        let text = "他说：“走吧！”她笑了。真的吗？！是……的。3.5元。「行く。」と言った。終わり";
        let sentences: Vec<&str> = split_sentences(text).collect();
        assert_eq!(
            sentences,
            ["他说：“走吧！”", "她笑了。", "真的吗？！", "是……的。", "3.5元。", "「行く。」", "と言った。", "終わり"]
        );
    }

    #[test]
    fn empty_lines_end_sentences_and_line_ends_do_not() {
        let text = " A title\n\nIt goes\nover two lines. Etc.\n \nlower case after an empty line\r\n\r\nLast";
        let sentences: Vec<&str> = split_sentences(text).collect();
        assert_eq!(
            sentences,
            ["A title", "It goes\nover two lines.", "Etc.", "lower case after an empty line", "Last"]
        );
        assert_eq!(split_sentences("").count() + split_sentences(" \n\n ").count(), 0);
    }

    #[test]
    fn own_abbreviations() {
        let text = "Siehe Abb. 4 und Nr. 5. Ende.";
        let german = SentenceSplitter::without_abbreviations().with_abbreviations(["Abb.", "nr"]);
        assert_eq!(german.split(text).collect::<Vec<_>>(), ["Siehe Abb. 4 und Nr. 5.", "Ende."]);
        assert_eq!(german.ranges(text).map(|r| r.start).collect::<Vec<_>>(), [0, 24]);
    }

    #[test]
    fn nothing_but_white_space_is_lost() {
        let splitter = SentenceSplitter::english();
        let mut rng = crate::Rng::seed(5);
        let pieces = ["a", "Z", "9", " ", ".", "!", "?", "…", "。", "」", "\"", "'", "(", ")", "\n", "\r"];
        for _ in 0..2000 {
            let text = random_text(&mut rng, &pieces, 60);
            let mut end = 0;
            for range in splitter.ranges(&text) {
                assert!(text[end..range.start].trim().is_empty(), "{text:?}");
                let sentence = &text[range.clone()];
                assert!(!sentence.is_empty() && sentence.trim() == sentence, "{text:?}");
                end = range.end;
            }
            assert!(text[end..].trim().is_empty(), "{text:?}");
        }
    }
}
