use fancy_regex::Regex;

use super::*;
use crate::text::random_text::random_text;

/// Expressions of published tokenizers, and others that use further syntax.
const PATTERNS: [&str; 42] = [
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]|\s+(?!\S)|\s",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    r"[!-/:-@\[-`{-~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    r"[\r\n]|\s?[A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿ]+|\s?[!-/:-~！-／：-～‘-‟　-。]+|\s+$|[一-龥ࠀ-一가-퟿]+|\p{N}+",
    r" ?[^(\s|[.,!?…。，、।۔،])]+",
    r"\p{N}+| (?=(\d{3})+(?!\d))",
    r"\d{1,3}(?=(?:\d{3})*\b)",
    r"[\p{Han}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{L}&&[^\p{Han}]]*[\p{Ll}\p{M}&&[^\p{Han}]]+|\p{N}{1,3}",
    r"[0-9][0-9][0-9]",
    r"[\p{P}\$\+<=>\^~\|]+",
    r"[\s\S]",
    r"\s{2,}[\r\n]",
    " {2,}",
    r"\s+",
    r"^\s*|\s*$",
    r"(?m)^ *\S+?$",
    r"\b\w+\b",
    r"\B.",
    r"(?<=[a-z])(?=[A-Z0-9])",
    r"(?<!\p{L})\p{Lu}",
    r"(?<=a|bb|\s{1,3})\w",
    r"(?<=x+)y",
    "(?s).",
    ".",
    "",
    "a*",
    "a*?b",
    "(?:ab|a)(?:c|bcd)?",
    "(?>a+|ab)b",
    "(?:a{2}|b){1,3}c?",
    "[ab]{2,4}?c",
    "(?i)straße|k",
    r"(?:\r\n|\r|\n)+",
    r"(?x) \p{L} +  # letters",
    r"[^\W\d_]+|\d{2}",
    r"(?:a|b)+c|x(?:yz)*",
    r"(?=a)a|(?!b)\w",
    r"\Aab|c\z|d\Z",
    r"(?m:^)x|y(?m:$)",
];

fn library(expression: &str, text: &str) -> Vec<(Offsets, bool)> {
    let regex = Regex::new(expression).unwrap();
    tokenizers::pattern::Pattern::find_matches(&Whole(regex), text).unwrap()
}

struct Whole(Regex);

impl tokenizers::pattern::Pattern for Whole {
    fn find_matches(&self, inside: &str) -> tokenizers::Result<Vec<(Offsets, bool)>> {
        if inside.is_empty() {
            return Ok(vec![((0, 0), false)]);
        }
        let (mut done, mut parts) = (0, Vec::new());
        for found in self.0.find_iter(inside) {
            let found = found?;
            if done != found.start() {
                parts.push(((done, found.start()), false));
            }
            parts.push(((found.start(), found.end()), true));
            done = found.end();
        }
        if done != inside.len() {
            parts.push(((done, inside.len()), false));
        }
        Ok(parts)
    }
}

fn ours(pattern: &Pattern, text: &str) -> Result<Vec<(Offsets, bool)>> {
    let mut parts = Vec::new();
    pattern.parts(text, &Budget::of(text.len()), |offsets, is_match| {
        parts.push((offsets, is_match));
        Ok(())
    })?;
    Ok(parts)
}

#[test]
fn matches_are_those_of_the_librarys_engine() {
    let texts = [
        "",
        " ",
        "   ",
        "a",
        "Hello world, how are you today? It is 12345.",
        "  two  spaces\n\nand a\r\n line \t",
        "I'LL don't WE'VE 'tis 's''re x'd iPhone4S HTTPServer",
        "1234567 12 123 1,234.5 ½ ² Ⅷ ٣ a1b 1000000 ",
        "größer 猫が、 e\u{301} ﷽ 𝔘𝟙𒐀\u{1F600}\u{10FFFF} 日本語 и кириллица — STRASSE straße \u{212A}",
        "\u{A0}x \u{A0}\u{3000}y\u{85}\u{200B}z \r\n",
        "abab abcabcd aab aabbc bbac aaaab xyyy xxy xyzyz y\nx\n",
        "foo.bar(baz)[0] += \"qux\";\n\n\n\treturn x;\n",
    ];
    for expression in PATTERNS {
        let pattern = Pattern::regex(expression).unwrap();
        for text in texts {
            assert_eq!(ours(&pattern, text).unwrap(), library(expression, text), "{expression} over {text:?}");
        }
    }
}

#[test]
fn matches_of_any_text_are_those_of_the_engine_of_the_library() {
    let all: Vec<(Pattern, Regex)> =
        PATTERNS.iter().map(|p| (Pattern::regex(p).unwrap(), Regex::new(p).unwrap())).collect();
    let mut rng = crate::Rng::seed(3);
    let pieces = [
        " ", "'", "\n", "\r", "\t", "a", "b", "c", "d", "x", "y", "z", "A", "Q", "Z", "0", "7", ".", "'s", "'T", "'re",
        "'ve", "'m", "'LL", "'d", "2024", "abab",
    ];
    for round in 0..40 * PATTERNS.len() {
        let which = round % PATTERNS.len();
        let text = random_text(&mut rng, &pieces, 30);
        let found = ours(&all[which].0, &text).unwrap();
        assert_eq!(found, library(PATTERNS[which], &text), "{} over {text:?}", PATTERNS[which]);
    }
}

#[test]
fn a_text_as_it_is_is_found_as_the_library_finds_it() {
    for literal in [" ", "ab", "", ".", "é"] {
        for text in ["", "a b.ab é  abab", "\u{e9}"] {
            let expected = library(&fancy_regex::escape(literal), text);
            assert_eq!(ours(&Pattern::literal(literal).unwrap(), text).unwrap(), expected, "{literal:?} in {text:?}");
        }
    }
}

#[test]
fn long_runs_are_split_to_their_end() {
    for expression in &PATTERNS[..6] {
        let pattern = Pattern::regex(expression).unwrap();
        for run in [" ", "a", "1", "\n ", "!", "\u{3000}", "'s"] {
            let times = if run == " " { 1_100_000 } else { 200_000 };
            let text = run.repeat(times) + "Hello world, how are you today? It is 12345.";
            let parts = ours(&pattern, &text).unwrap();
            let words: Vec<&str> = parts.iter().rev().take(20).map(|&((a, b), _)| &text[a..b]).collect();
            assert!(words.contains(&" how") && words.contains(&" today"), "{expression}: {words:?}");
        }
    }
}

#[test]
fn a_pattern_that_goes_back_too_often_is_an_error() {
    let long = "a".repeat(200_000);
    for expression in
        [r"(?=(a+)+$)a", "(a+)+b", "(a|a)+b(?!c)", ".*b|a*c", r"(?<=a*)b|(?<=^a*)a{3}", "(?:a?){50}c(?=d)", "(a*)*b"]
    {
        let error = ours(&Pattern::regex(expression).unwrap(), &long).unwrap_err().to_string();
        assert!(error.contains("takes too many") && error.contains(expression), "{expression}: {error}");
    }
}

#[test]
fn patterns_that_are_not_supported_or_too_large_are_named() {
    for (expression, reason) in [
        (r"(a)\1", "a reference to a group"),
        (r"a\Kb", r"`\K`"),
        (r"\Ga", r"`\G`"),
        ("(a)?(?(1)b|c)", "a condition"),
        ("(?:a{1000}b){1000}", "repetitions"),
        (r"\w{1,1000}", "repetitions"),
        ("(?:(?=a)b){20000}", "repetitions"),
        ("(", "Parsing error"),
        ("[b-a]", "invalid"),
    ] {
        let error = Pattern::regex(expression).unwrap_err().to_string();
        assert!(error.contains(reason) && error.contains("pattern `"), "{expression}: {error}");
    }
    let many: String = (0..600).map(|i| format!("[\\x{{{:x}}}-\\x{{{:x}}}]", 0x1000 + 3 * i, 0x1001 + 3 * i)).collect();
    assert!(Pattern::regex(&many).unwrap_err().to_string().contains("sets of characters"));
}
