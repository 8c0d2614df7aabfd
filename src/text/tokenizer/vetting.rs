//! Checks of a `tokenizer.json` for content on which the library would panic.
//!
//! The library trusts its files: a merge longer than any token, a table that points outside itself,
//! or a template for one text that refers to a second one cause a panic. It could be caught, but
//! only after the program's panic hook has printed it. Here such a file is an error.

use serde::Deserialize;
use serde_json::{Map, Value};
use tokenizers::normalizers::Precompiled;
use tokenizers::{AddedToken, AddedVocabulary, NormalizedString, NormalizerWrapper};

use super::guard;
use super::pattern::{Budget, Pattern};
use super::pipeline::Normalizer;
use crate::{Error, Result};

/// Maximum id. Ids are row numbers, and the library iterates up to the largest, so a small file
/// must not be able to cause large allocations.
const MAX_ID: u64 = 1 << 20;

/// Maximum bytes of an added token: the search for added tokens may go back that far.
const LONGEST_ADDED: usize = 1024;

/// Maximum bytes of a token of a unigram model, which looks that far ahead at every position.
const LONGEST_PIECE: usize = 512;

/// Maximum bytes that SentencePiece's table may substitute for a character; Unicode's own tables
/// have up to 33.
const LONGEST_REPLACEMENT: usize = 256;

/// Maximum number of character ranges in all patterns of a file, with repetitions expanded.
const MOST_RANGES: usize = 1 << 18;

/// How often a template may repeat a text.
const MOST_COPIES: usize = 4;

/// Checks the content of a `tokenizer.json`, and returns the merges of its model.
///
/// # Errors
/// [`Error::Tokenizer`] for invalid JSON, and for content on which the library would panic or take
/// too long.
pub(super) fn vet(json: &[u8]) -> Result<Value> {
    let file: File = serde_json::from_slice(json).map_err(|e| Error::Tokenizer(format!("expected JSON: {e}")))?;
    if let Some(key) = file.others.keys().find(|key| !["version", "truncation", "padding"].contains(&key.as_str())) {
        return Err(Error::Tokenizer(format!("`{key}` is not known")));
    }
    vet_keys(&file.model).map_err(|reason| Error::Tokenizer(format!("`model`: {reason}")))?;
    for (name, object, known) in [
        ("truncation", file.others.get("truncation"), &["direction", "max_length", "strategy", "stride"][..]),
        (
            "padding",
            file.others.get("padding"),
            &["strategy", "direction", "pad_to_multiple_of", "pad_id", "pad_type_id", "pad_token"],
        ),
    ] {
        check_keys(object.unwrap_or(&Value::Null), known)
            .map_err(|reason| Error::Tokenizer(format!("`{name}`: {reason}")))?;
    }
    let part = |name: &str, reason: String| Error::Tokenizer(format!("`{name}`: {reason}"));
    vet_model(&file.model, MAX_ID.max(json.len() as u64)).map_err(|reason| part("model", reason))?;
    for (name, value) in [
        ("normalizer", &file.normalizer),
        ("pre_tokenizer", &file.pre_tokenizer),
        ("post_processor", &file.post_processor),
        ("decoder", &file.decoder),
    ] {
        let mut found = Found::default();
        vet_part(value, &mut found).map_err(|reason| part(name, reason))?;
    }
    if let Value::Array(tokens) = &file.added_tokens {
        let known = ["id", "content", "single_word", "lstrip", "rstrip", "normalized", "special"];
        for token in tokens {
            check_keys(token, &known).map_err(|reason| part("added_tokens", reason))?;
        }
        let token = |value: &Value| {
            Some(
                AddedToken::from(value["content"].as_str()?, value["special"] == true)
                    .normalized(value["normalized"] == true),
            )
        };
        let tokens: Vec<AddedToken> = tokens.iter().filter_map(token).collect();
        // Parsed from text, as the library does; the library reports its errors.
        let normalizer = serde_json::from_str::<NormalizerWrapper>(&file.normalizer.to_string()).ok();
        vet_new(&tokens, normalizer.as_ref().map(Normalizer::of).transpose()?.as_ref())?;
    }
    let mut model = file.model;
    Ok(model.get_mut("merges").map(Value::take).unwrap_or_default())
}

/// Parts of a file found so far.
#[derive(Default)]
struct Found {
    templates: usize,
    ranges: usize,
}

/// Checks tokens before the library adds them, including their length after normalization.
///
/// # Errors
/// [`Error::Tokenizer`] for a token that is too long, or becomes so.
pub(super) fn vet_new(tokens: &[AddedToken], normalizer: Option<&Normalizer>) -> Result<()> {
    let budget = Budget::of(tokens.iter().map(|token| token.content.len()).sum());
    for token in tokens {
        let mut text = NormalizedString::from(token.content.as_str());
        if let (Some(normalizer), true) = (normalizer, token.normalized) {
            guard("adding tokens", || normalizer.run(&mut text, &budget))?;
        }
        for len in [token.content.len(), text.get().len()] {
            if len > LONGEST_ADDED {
                let start: String = token.content.chars().take(20).collect();
                let expected = format!("expected an added token of at most {LONGEST_ADDED} bytes");
                return Err(Error::Tokenizer(format!("{expected}, found {start:?}… of {len}")));
            }
        }
    }
    Ok(())
}

/// Checks the added tokens, which are matched before a text is split.
///
/// # Errors
/// [`Error::Tokenizer`] if one of them may include the start of another one's match, on which the
/// library fails.
pub(super) fn vet_added(added: &AddedVocabulary) -> Result<()> {
    let tokens = added.get_added_tokens_decoder();
    let of_pass = |normalized| tokens.iter().filter(move |(_, token)| token.normalized == normalized);
    for normalized in [false, true] {
        let begins_with_space = |(id, token): &(&u32, &AddedToken)| {
            let text = added.simple_id_to_token(**id).unwrap_or_else(|| token.content.clone());
            token.lstrip && text.starts_with(char::is_whitespace)
        };
        let swallows = of_pass(normalized).find(|(_, token)| token.rstrip);
        if let (Some((_, a)), Some((_, b))) = (swallows, of_pass(normalized).find(begins_with_space)) {
            let expected = "an added token that begins with a space cannot be `lstrip` where another is `rstrip`";
            return Err(Error::Tokenizer(format!("{expected}, found {:?} and {:?}", b.content, a.content)));
        }
    }
    Ok(())
}

/// The parts of the file. Duplicate keys are errors. A part of the wrong type is reported by the
/// library.
#[derive(Deserialize)]
struct File {
    #[serde(default)]
    normalizer: Value,
    #[serde(default)]
    pre_tokenizer: Value,
    #[serde(default)]
    post_processor: Value,
    #[serde(default)]
    decoder: Value,
    #[serde(default)]
    model: Value,
    #[serde(default)]
    added_tokens: Value,
    #[serde(flatten)]
    others: Map<String, Value>,
}

/// Keys of each component type, without `type`.
const KEYS: [(&str, &[&str]); 37] = [
    (
        "BPE",
        &[
            "suffix",
            "dropout",
            "unk_token",
            "continuing_subword_prefix",
            "end_of_word_suffix",
            "fuse_unk",
            "byte_fallback",
            "ignore_merges",
            "vocab",
            "merges",
        ],
    ),
    ("BPEDecoder", &["suffix"]),
    ("BertNormalizer", &["clean_text", "handle_chinese_chars", "strip_accents", "lowercase"]),
    ("BertPreTokenizer", &[]),
    ("BertProcessing", &["sep", "cls"]),
    ("ByteFallback", &[]),
    ("ByteLevel", &["add_prefix_space", "trim_offsets", "use_regex"]),
    ("CTC", &["pad_token", "word_delimiter_token", "cleanup"]),
    ("CharDelimiterSplit", &["delimiter"]),
    ("Delimiter", &["delimiter"]),
    ("Digits", &["individual_digits"]),
    ("FixedLength", &["length"]),
    ("Fuse", &[]),
    ("Lowercase", &[]),
    ("Metaspace", &["replacement", "add_prefix_space", "prepend_scheme", "split", "str_rep"]),
    ("NFC", &[]),
    ("NFD", &[]),
    ("NFKC", &[]),
    ("NFKD", &[]),
    ("Nmt", &[]),
    ("Precompiled", &["precompiled_charsmap"]),
    ("Prepend", &["prepend"]),
    ("Punctuation", &["behavior"]),
    ("Replace", &["pattern", "content"]),
    ("RobertaProcessing", &["sep", "cls", "trim_offsets", "add_prefix_space"]),
    ("Sequence", &["normalizers", "pretokenizers", "processors", "decoders"]),
    ("Split", &["pattern", "behavior", "invert"]),
    ("Strip", &["strip_left", "strip_right", "content", "start", "stop"]),
    ("StripAccents", &[]),
    ("StripNormalizer", &["strip_left", "strip_right"]),
    ("TemplateProcessing", &["single", "pair", "special_tokens"]),
    ("UnicodeScripts", &[]),
    ("Unigram", &["unk_id", "vocab", "byte_fallback"]),
    ("Whitespace", &[]),
    ("WhitespaceSplit", &[]),
    ("WordLevel", &["vocab", "unk_token"]),
    (
        "WordPiece",
        &["prefix", "cleanup", "unk_token", "continuing_subword_prefix", "max_input_chars_per_word", "vocab"],
    ),
];

/// Returns an error for a key that the component's type does not have.
fn vet_keys(component: &Value) -> std::result::Result<(), String> {
    let kind = component.get("type").and_then(Value::as_str).unwrap_or("");
    match KEYS.iter().find(|(name, _)| *name == kind) {
        Some((_, keys)) => check_keys(component, keys).map_err(|reason| format!("{kind}: {reason}")),
        None => Ok(()), // no type, where the library uses the keys; or an unknown one
    }
}

fn check_keys(object: &Value, known: &[&str]) -> std::result::Result<(), String> {
    let mut keys = object.as_object().into_iter().flat_map(|object| object.keys());
    match keys.find(|key| *key != "type" && !known.contains(&key.as_str())) {
        Some(key) => Err(format!("`{key}` is not known")),
        None => Ok(()),
    }
}

/// Checks nested components at any depth. Keys are checked even for an unknown type, since the
/// library ignores some misspelled ones.
fn vet_part(value: &Value, found: &mut Found) -> std::result::Result<(), String> {
    let number = |key: &str| value.get(key).and_then(Value::as_u64);
    vet_keys(value)?;
    if value.get("precompiled_charsmap").is_some() || value.get("type").is_some_and(|kind| kind == "Precompiled") {
        vet_charsmap(value)?;
    }
    if number("length") == Some(0) {
        return Err("expected `length` of at least 1, found 0".into());
    }
    if let Some(stop) = number("stop").filter(|&stop| stop > 0) {
        return Err(format!("expected `stop` 0, found {stop}")); // panics on shorter tokens
    }
    if value.get("single").is_some() {
        found.templates += 1;
        if found.templates > 1 {
            return Err("expected one TemplateProcessing, found two".into());
        }
        vet_template(value)?;
    }
    if let Some(pattern) = value.get("pattern") {
        vet_pattern(pattern, found)?;
    }
    match value {
        Value::Array(values) => values.iter().try_for_each(|value| vet_part(value, found)),
        Value::Object(values) => values.values().try_for_each(|value| vet_part(value, found)),
        _ => Ok(()),
    }
}

/// Checks that a pattern is supported, and that all patterns together are small enough for the
/// library to compile.
fn vet_pattern(pattern: &Value, found: &mut Found) -> std::result::Result<(), String> {
    let pattern = match (&pattern["Regex"], &pattern["String"]) {
        (Value::String(expression), _) => Pattern::regex(expression),
        (_, Value::String(text)) => Pattern::literal(text),
        _ => return Ok(()), // reported by the library
    };
    let pattern = pattern.map_err(|e| match e {
        Error::Tokenizer(reason) => reason,
        other => other.to_string(),
    })?;
    found.ranges = found.ranges.saturating_add(pattern.size().max(1));
    if found.ranges > MOST_RANGES {
        return Err("its patterns are too large together".into());
    }
    Ok(())
}

/// Checks that a template refers only to its texts and to the special tokens that it defines.
fn vet_template(template: &Value) -> std::result::Result<(), String> {
    let pieces = |key: &str| template.get(key).and_then(Value::as_array).into_iter().flatten();
    if pieces("single").any(|piece| piece["Sequence"]["id"] == "B") {
        return Err("expected `single` without a second text, found B".into());
    }
    for key in ["single", "pair"] {
        let copies = pieces(key).filter(|piece| piece.get("Sequence").is_some()).count();
        if copies > MOST_COPIES {
            return Err(format!("`{key}`: expected a text at most {MOST_COPIES} times, found {copies}"));
        }
    }
    for name in pieces("single").chain(pieces("pair")).filter_map(|piece| piece["SpecialToken"]["id"].as_str()) {
        let token = &template["special_tokens"][name];
        let count = |key: &str| token[key].as_array().map(Vec::len);
        if count("ids").is_none() || count("ids") != count("tokens") {
            return Err(format!("expected `special_tokens` with as many ids as tokens for {name:?}, found {token}"));
        }
    }
    Ok(())
}

/// Checks SentencePiece's replacement table: a size in bytes, a double array of that size, and
/// zero-terminated strings.
///
/// For any next byte, the target unit must be in the array, and a unit with a leaf must point at a
/// string. Units with the highest bit are values, except for the first.
fn vet_charsmap(normalizer: &Value) -> std::result::Result<(), String> {
    let bytes = normalizer["precompiled_charsmap"].as_str().and_then(base64);
    let bytes = bytes.ok_or("expected `precompiled_charsmap` in base 64")?;
    let table = || {
        let (size, rest) = bytes.split_first_chunk::<4>()?;
        let (array, texts) = rest.split_at_checked(u32::from_le_bytes(*size) as usize / 4 * 4)?;
        let (units, _) = array.as_chunks::<4>();
        Some((units.iter().map(|unit| u32::from_le_bytes(*unit)).collect::<Vec<_>>(), str::from_utf8(texts).ok()?))
    };
    let (units, texts) = table().ok_or("expected `precompiled_charsmap` with a double array and texts")?;
    let sound = units.iter().enumerate().filter(|&(i, unit)| i == 0 || unit >> 31 == 0).all(|(i, &unit)| {
        let base = i ^ ((unit as usize >> 10) << ((unit & 1 << 9) >> 6));
        let leads_to_text = || texts.is_char_boundary((units[base] & !(1 << 31)) as usize);
        base | 255 < units.len() && (unit >> 8 & 1 == 0 || leads_to_text())
    });
    if !sound || units.is_empty() {
        return Err("expected `precompiled_charsmap` without pointers outside of it".into());
    }
    let longest = texts.split('\0').map(str::len).max().unwrap_or(0);
    if longest > LONGEST_REPLACEMENT {
        let expected = format!("expected `precompiled_charsmap` with texts of at most {LONGEST_REPLACEMENT} bytes");
        return Err(format!("{expected}, found one of {longest}"));
    }
    // The library's further checks, now that the size is known to be right.
    serde_json::from_str::<Precompiled>(&normalizer.to_string()).map(drop).map_err(|e| e.to_string())
}

/// Decodes base64 (RFC 4648).
fn base64(text: &str) -> Option<Vec<u8>> {
    let digit = |c: u8| match c {
        b'A'..=b'Z' => Some(u32::from(c - b'A')),
        b'a'..=b'z' => Some(u32::from(c - b'a') + 26),
        b'0'..=b'9' => Some(u32::from(c - b'0') + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    };
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    let text = text.trim_end_matches('=').as_bytes();
    for digits in text.chunks(4) {
        let bits = digits.iter().try_fold(0, |bits, &c| Some(bits << 6 | digit(c)?))? << (6 * (4 - digits.len()));
        bytes.extend(&bits.to_be_bytes()[1..digits.len()]);
    }
    Some(bytes)
}

/// Checks that merges are no longer than the longest token, and that ids are small.
fn vet_model(model: &Value, max_id: u64) -> std::result::Result<(), String> {
    let vocab = || model.get("vocab").and_then(Value::as_object).into_iter().flatten();
    let largest_id = vocab().filter_map(|(_, id)| id.as_u64()).max().unwrap_or(0);
    if largest_id >= max_id {
        return Err(format!("`vocab`: expected ids below {max_id}, found {largest_id}"));
    }
    if let Some(Value::Array(pieces)) = model.get("vocab") {
        let longest = pieces.iter().filter_map(|piece| piece[0].as_str()).map(str::len).max().unwrap_or(0);
        if longest > LONGEST_PIECE {
            return Err(format!("`vocab`: expected tokens of at most {LONGEST_PIECE} bytes, found one of {longest}"));
        }
    }
    let longest = vocab().map(|(token, _)| token.len()).max().unwrap_or(0);
    // The second token of a pair loses this prefix.
    let prefix = model.get("continuing_subword_prefix").and_then(Value::as_str).unwrap_or("");
    for merge in model.get("merges").and_then(Value::as_array).into_iter().flatten() {
        let pair = match merge {
            Value::String(pair) => pair.split_once(' '),
            pair => pair[0].as_str().zip(pair[1].as_str()),
        };
        let Some((a, b)) = pair else { continue }; // reported by the library
        match b.split_at_checked(prefix.len()) {
            Some((_, b)) if a.len() + b.len() <= longest => {}
            Some(_) => {
                return Err(format!("`merges`: expected pairs whose concatenation is in `vocab`, found {merge}"));
            }
            None => {
                return Err(format!("`merges`: expected a second token that begins with {prefix:?}, found {merge}"));
            }
        }
    }
    Ok(())
}
