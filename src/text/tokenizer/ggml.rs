//! Conversion of tokenizers from and to GGUF metadata.
//!
//! | `tokenizer.ggml.model` | meaning | converted to |
//! |---|---|---|
//! | `llama` | SentencePiece BPE: merges the pair of adjacent tokens whose result has the best score | merges in the order of scores, with byte fallback |
//! | `gpt2` | byte-level BPE; `tokenizer.ggml.pre` names the pre-tokenizer | the same |
//! | `bert` | WordPiece; words start with `▁`, instead of continuations with `##` | WordPiece |
//!
//! The result has the components of the models' own `tokenizer.json`, so ids are those of
//! `transformers`.

use std::collections::HashMap;
use std::path::Path;

use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokenizers::models::wordpiece::WordPiece;
use tokenizers::normalizers::BertNormalizer;
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::processors::bert::BertProcessing;
use tokenizers::{
    AddedToken, DecoderWrapper, ModelWrapper, NormalizerWrapper, PostProcessorWrapper, PreTokenizerWrapper, decoders,
};

use super::{Special, Tokenizer, guard, words};
use crate::checkpoint::gguf::vocabulary::TokenType;
use crate::checkpoint::gguf::{GgmlVocabulary, GgufFile};
use crate::mapped::Load;
use crate::{Error, Result};

/// SentencePiece's space character.
const SPACE: char = '▁';

/// Pre-tokenizers by their names in `tokenizer.ggml.pre`: GPT-2's expression; GPT-2's with separate
/// digits; expressions of later models, used without GPT-2's.
enum Split {
    Gpt2,
    Digits,
    Expressions(&'static [&'static str]),
}

const LLAMA_3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN_2: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const GPT_2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";

impl Split {
    /// Names and pre-tokenizers; the first name is used for writing.
    const ALL: [(&'static [&'static str], Split); 7] = [
        (&["gpt-2", "phi-2", "mpt", "olmo", "jais", "roberta-bpe"], Split::Gpt2),
        (&["smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"], Split::Digits),
        (&["llama-bpe", "llama3", "llama-v3", "falcon3", "dbrx", "smaug-bpe"], Split::Expressions(&[LLAMA_3])),
        (&["qwen2", "deepseek-r1-qwen", "stablelm2", "megrez"], Split::Expressions(&[QWEN_2])),
        (&["falcon"], Split::Expressions(&[r"[\p{P}\$\+<=>\^~\|`]+", GPT_2, r"[0-9][0-9][0-9]"])),
        (
            &["deepseek-coder"],
            Split::Expressions(&[r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", "[一-龥ࠀ-一가-\u{D7FF}]+", r"\p{N}"]),
        ),
        (&["default"], Split::Expressions(&[r"[\p{P}\$\+<=>\^~\|]+", GPT_2, r"\p{N}+", r"[0-9][0-9][0-9]"])),
    ];

    fn find(name: &str) -> Option<&'static Split> {
        static ALL: [(&[&str], Split); 7] = Split::ALL;
        ALL.iter().find(|(names, _)| names.contains(&name)).map(|(_, split)| split)
    }

    /// Whether this is a split by the one expression.
    fn is(&self, expression: &str) -> bool {
        matches!(self, Split::Expressions(expressions) if *expressions == [expression])
    }

    /// Component as in `tokenizer.json`.
    fn json(&self) -> Value {
        let byte_level = |use_regex: bool| json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": use_regex });
        let sequence = |mut parts: Vec<Value>, last| {
            parts.push(last);
            json!({ "type": "Sequence", "pretokenizers": parts })
        };
        match self {
            Split::Gpt2 => byte_level(true),
            Split::Digits => sequence(vec![json!({ "type": "Digits", "individual_digits": true })], byte_level(true)),
            Split::Expressions(expressions) => {
                let split = |expression: &&str| json!({ "type": "Split", "pattern": { "Regex": expression }, "behavior": "Isolated", "invert": false });
                sequence(expressions.iter().map(split).collect(), byte_level(false))
            }
        }
    }
}

impl Tokenizer {
    /// Opens the tokenizer of a GGUF file.
    pub(super) fn open_gguf(path: &Path) -> Result<Self> {
        let file = GgufFile::open(path, Load::Mmap)?;
        match GgmlVocabulary::read(&file)? {
            Some(vocabulary) => Self::from_ggml(&vocabulary).map_err(|e| match e {
                Error::Tokenizer(reason) => Error::format(path, reason),
                other => other,
            }),
            None => Err(Error::format(path, "the file has no tokenizer (`tokenizer.ggml.tokens`)")),
        }
    }

    /// Creates a tokenizer from GGUF metadata.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] for an unsupported kind of tokenizer or an inconsistent vocabulary.
    pub fn from_ggml(vocabulary: &GgmlVocabulary) -> Result<Self> {
        let mut tokenizer = match vocabulary.model.as_str() {
            "llama" => sentence_piece(vocabulary)?,
            "gpt2" => byte_level(vocabulary)?,
            "bert" => word_piece(vocabulary)?,
            other => {
                let reason = format!("`tokenizer.ggml.model`: expected llama, gpt2 or bert, found {other}");
                return Err(Error::Tokenizer(reason));
            }
        };
        let mut config = json!({});
        for (role, name) in ROLES {
            let id = vocabulary.role(name).filter(|&id| (id as usize) < vocabulary.tokens.len());
            if let Some(token) = id.and_then(|id| tokenizer.id_to_token(id)) {
                config[role.key()] = token.into();
            }
        }
        if let Some(template) = &vocabulary.chat_template {
            config["chat_template"] = template.as_str().into();
        }
        tokenizer.apply(config, &Value::Null)?;
        Ok(tokenizer)
    }

    /// Converts the tokenizer to GGUF metadata.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] for a tokenizer that GGUF cannot represent: only BPE tokenizers with a
    /// pre-tokenizer that has a name in GGUF are supported.
    pub fn to_ggml(&self) -> Result<GgmlVocabulary> {
        let wrong = |what: &str| Err(Error::Tokenizer(format!("GGUF cannot represent {what}")));
        let json: Value = serde_json::from_str(&self.to_json()?).map_err(|e| Error::Tokenizer(e.to_string()))?;
        let ModelWrapper::BPE(bpe) = self.inner.get_model() else {
            return wrong("a tokenizer that is not a byte-pair encoding");
        };
        let mut tokens = vec![None; self.vocab_size];
        for (token, id) in self.vocab() {
            tokens[id as usize] = Some(token);
        }
        let added = self.inner.get_added_vocabulary().get_added_tokens_decoder();
        let token_type = |id: usize, token: &Option<String>| match (token, added.get(&(id as u32))) {
            (None, _) => TokenType::Unused,
            _ if Some(id as u32) == self.unk_token_id() && bpe.byte_fallback => TokenType::Unknown,
            (_, Some(token)) if token.special => TokenType::Control,
            (_, Some(_)) => TokenType::UserDefined,
            (Some(token), None) if bpe.byte_fallback && byte_of(token).is_some() => TokenType::Byte,
            _ => TokenType::Normal,
        };
        let token_types: Vec<i32> = tokens.iter().enumerate().map(|(id, token)| token_type(id, token) as i32).collect();
        let spelled = |(id, token): (usize, Option<String>)| token.unwrap_or_else(|| format!("[PAD{id}]"));
        let tokens: Vec<String> = tokens.into_iter().enumerate().map(spelled).collect();
        let merges: Vec<(String, String)> =
            serde_json::from_value(json["model"]["merges"].clone()).map_err(|e| Error::Tokenizer(e.to_string()))?;
        let ids = self.encode("a")?.input_ids;
        let first = ids.first().copied().filter(|&id| ids.len() > 1 && Some(id) == self.bos_token_id());
        let last = ids.last().copied().filter(|&id| ids.len() > 1 && Some(id) == self.eos_token_id());
        let roles = ROLES.iter().filter_map(|&(role, name)| Some((name.to_string(), self.special(role)?))).collect();
        let mut vocabulary = GgmlVocabulary {
            tokens,
            token_types,
            roles,
            add_bos: Some(first.is_some()),
            add_eos: Some(last.is_some()),
            chat_template: self.chat_template().map(String::from),
            ..GgmlVocabulary::default()
        };
        if bpe.byte_fallback {
            vocabulary.model = "llama".into();
            vocabulary.pre = Some("default".into());
            let text = json["normalizer"].to_string() + &json["pre_tokenizer"].to_string();
            let prefix = text.contains("\"Prepend\"")
                || text.contains("\"Metaspace\"")
                    && !text.contains("\"never\"")
                    && !text.contains("\"add_prefix_space\":false");
            vocabulary.add_space_prefix = Some(prefix);
            vocabulary.scores = scores(&vocabulary, &merges);
            let mut ours = merges_by_score(&vocabulary);
            let mut theirs = merges;
            ours.sort_unstable();
            theirs.sort_unstable();
            theirs.dedup();
            if ours != theirs {
                return wrong("merges whose order does not follow from token scores");
            }
            return Ok(vocabulary);
        }
        let split = Split::ALL.into_iter().find(|(_, split)| same_split(&json["pre_tokenizer"], &split.json()));
        let Some((names, _)) = split else { return wrong(&format!("the pre-tokenizer {}", json["pre_tokenizer"])) };
        vocabulary.model = "gpt2".into();
        vocabulary.pre = Some(names[0].into());
        vocabulary.merges = merges.into_iter().map(|(a, b)| format!("{a} {b}")).collect();
        Ok(vocabulary)
    }
}

/// Roles with their keys in GGUF.
const ROLES: [(Special, &str); 7] = [
    (Special::Bos, "bos"),
    (Special::Eos, "eos"),
    (Special::Unk, "unknown"),
    (Special::Sep, "seperator"),
    (Special::Pad, "padding"),
    (Special::Cls, "cls"),
    (Special::Mask, "mask"),
];

/// Whether two pre-tokenizers split the same way, ignoring settings that only affect offsets.
fn same_split(a: &Value, b: &Value) -> bool {
    fn plain(value: &Value) -> Value {
        match value {
            Value::Object(object) => {
                let kept = object.iter().filter(|(key, _)| *key != "trim_offsets");
                Value::Object(kept.map(|(key, value)| (key.clone(), plain(value))).collect())
            }
            Value::Array(array) => Value::Array(array.iter().map(plain).collect()),
            other => other.clone(),
        }
    }
    plain(a) == plain(b)
}

/// Reads a component of the library from its `tokenizer.json` form.
fn component<T: DeserializeOwned>(json: &Value) -> Result<T> {
    let text = json.to_string();
    guard("tokenizer of a GGUF file", || Ok(serde_json::from_str(&text)?))
}

fn ids_by_token(vocabulary: &GgmlVocabulary) -> HashMap<String, u32> {
    vocabulary.tokens.iter().cloned().zip(0..).collect()
}

/// Added tokens, by id, which are matched before the text is split.
fn added_tokens(vocabulary: &GgmlVocabulary) -> Vec<AddedToken> {
    let added = |(id, token): (usize, &String)| {
        let special = vocabulary.is(id, TokenType::Control) || vocabulary.is(id, TokenType::Unknown);
        let added = (special || vocabulary.is(id, TokenType::UserDefined)) && !token.is_empty();
        added.then(|| AddedToken::from(token.as_str(), special).normalized(false))
    };
    vocabulary.tokens.iter().enumerate().filter_map(added).collect()
}

/// Post-processor that adds the begin and end tokens.
fn ends(vocabulary: &GgmlVocabulary, default: (bool, bool)) -> Result<Option<PostProcessorWrapper>> {
    let wanted = [("bos", vocabulary.add_bos.unwrap_or(default.0)), ("eos", vocabulary.add_eos.unwrap_or(default.1))];
    let token = |(role, wanted): (&str, bool)| {
        let id = vocabulary.role(role).filter(|_| wanted)?;
        Some((id, vocabulary.tokens.get(id as usize)?.as_str()))
    };
    let (bos, eos) = (token(wanted[0]), token(wanted[1]));
    if bos.is_none() && eos.is_none() {
        return Ok(None);
    }
    let special = |(_, token): (u32, &str), kind: u32| json!({ "SpecialToken": { "id": token, "type_id": kind } });
    let text = |id: &str, kind: u32| {
        let begin = bos.map(|token| special(token, kind));
        let end = eos.map(|token| special(token, kind));
        begin.into_iter().chain([json!({ "Sequence": { "id": id, "type_id": kind } })]).chain(end).collect::<Vec<_>>()
    };
    let mut tokens = json!({});
    for (id, token) in bos.into_iter().chain(eos) {
        tokens[token] = json!({ "id": token, "ids": [id], "tokens": [token] });
    }
    let (first, second) = (text("A", 0), text("B", 1));
    let pair = [first.clone(), second].concat();
    component(&json!({ "type": "TemplateProcessing", "single": first, "pair": pair, "special_tokens": tokens }))
        .map(Some)
}

/// Adds the added tokens and continues as for a `tokenizer.json`.
fn finish(mut inner: tokenizers::Tokenizer, vocabulary: &GgmlVocabulary) -> Result<Tokenizer> {
    guard("tokenizer of a GGUF file", || inner.add_tokens(added_tokens(vocabulary)).map(|_| ()))?;
    Tokenizer::from_inner(inner)
}

fn sentence_piece(vocabulary: &GgmlVocabulary) -> Result<Tokenizer> {
    if vocabulary.scores.len() != vocabulary.tokens.len() {
        return Err(Error::Tokenizer("the tokens have no scores (`tokenizer.ggml.scores`)".into()));
    }
    let merges = merges_by_score(vocabulary);
    let reading = "tokenizer of a GGUF file";
    let mut bpe = words::bpe(ids_by_token(vocabulary), merges)?;
    bpe.unk_token = vocabulary.role("unknown").and_then(|id| vocabulary.tokens.get(id as usize).cloned());
    bpe.fuse_unk = true;
    bpe.byte_fallback = (0..vocabulary.tokens.len()).any(|id| vocabulary.is(id, TokenType::Byte));
    let prefix = vocabulary.add_space_prefix.unwrap_or(true);
    let replace = json!({ "type": "Replace", "pattern": { "String": " " }, "content": SPACE });
    let normalizers =
        if prefix { vec![json!({ "type": "Prepend", "prepend": SPACE }), replace] } else { vec![replace] };
    let mut decoders = vec![
        json!({ "type": "Replace", "pattern": { "String": SPACE }, "content": " " }),
        json!({ "type": "ByteFallback" }),
        json!({ "type": "Fuse" }),
    ];
    if prefix {
        decoders.push(json!({ "type": "Strip", "content": " ", "start": 1, "stop": 0 }));
    }
    let mut inner = tokenizers::Tokenizer::new(ModelWrapper::BPE(bpe));
    let normalizer: NormalizerWrapper = component(&json!({ "type": "Sequence", "normalizers": normalizers }))?;
    guard(reading, || inner.with_normalizer(Some(normalizer)).map(|_| ()))?;
    inner.with_decoder(Some(component::<DecoderWrapper>(&json!({ "type": "Sequence", "decoders": decoders }))?));
    inner.with_post_processor(ends(vocabulary, (true, false))?);
    finish(inner, vocabulary)
}

/// Every pair of tokens whose concatenation is a token, in the order in which SentencePiece merges
/// them: best score first.
fn merges_by_score(vocabulary: &GgmlVocabulary) -> Vec<(String, String)> {
    let normal = |id: &usize| vocabulary.is(*id, TokenType::Normal) || vocabulary.is(*id, TokenType::UserDefined);
    let known: HashMap<&str, usize> =
        (0..vocabulary.tokens.len()).filter(normal).map(|id| (vocabulary.tokens[id].as_str(), id)).collect();
    let mut merges = Vec::new();
    for (id, token) in vocabulary.tokens.iter().enumerate() {
        if known.get(token.as_str()) != Some(&id) || !vocabulary.is(id, TokenType::Normal) {
            continue;
        }
        let start = merges.len();
        for (at, _) in token.char_indices().skip(1) {
            let (left, right) = token.split_at(at);
            if let (Some(&l), Some(&r)) = (known.get(left), known.get(right)) {
                merges.push((vocabulary.scores[id], left, right, l, r));
            }
        }
        merges[start..].sort_unstable_by_key(|&(.., l, r)| (l, r));
    }
    // For equal scores, the longer first part first, as in `transformers`.
    merges.sort_by(|a, b| b.0.total_cmp(&a.0).then(b.1.chars().count().cmp(&a.1.chars().count())));
    merges.into_iter().map(|(_, left, right, ..)| (left.to_string(), right.to_string())).collect()
}

/// Returns scores that reproduce the merges: the negative index of the first merge that yields the
/// token.
fn scores(vocabulary: &GgmlVocabulary, merges: &[(String, String)]) -> Vec<f32> {
    let mut rank: HashMap<String, usize> = HashMap::new();
    for (i, (a, b)) in merges.iter().enumerate() {
        rank.entry([a.as_str(), b].concat()).or_insert(i);
    }
    let score = |(id, token): (usize, &String)| match rank.get(token) {
        _ if !vocabulary.is(id, TokenType::Normal) => 0.0,
        Some(&rank) => -(rank as f32),
        None => -(merges.len() as f32 + 1.0),
    };
    vocabulary.tokens.iter().enumerate().map(score).collect()
}

/// Byte of a token such as `<0xE2>`.
fn byte_of(token: &str) -> Option<u8> {
    let digits = token.strip_prefix("<0x")?.strip_suffix('>')?;
    u8::from_str_radix(digits, 16).ok().filter(|_| digits.len() == 2)
}

fn byte_level(vocabulary: &GgmlVocabulary) -> Result<Tokenizer> {
    let pre = vocabulary.pre.as_deref().unwrap_or("default");
    let Some(split) = Split::find(pre) else {
        let known: Vec<&str> = Split::ALL.iter().flat_map(|(names, _)| names.iter().copied()).collect();
        let reason = format!("`tokenizer.ggml.pre`: expected one of {}, found {pre}", known.join(", "));
        return Err(Error::Tokenizer(reason));
    };
    let ids = ids_by_token(vocabulary);
    let mut merges = Vec::with_capacity(vocabulary.merges.len());
    for (i, merge) in vocabulary.merges.iter().enumerate() {
        // The first character may be an encoded space, never a plain one, so the second space
        // separates the tokens.
        let pair = merge
            .split_once(' ')
            .filter(|(a, b)| [*a, *b, &[*a, *b].concat()].into_iter().all(|token| ids.contains_key(token)));
        let Some((a, b)) = pair else {
            let expected = "expected two tokens of the vocabulary whose concatenation is a token";
            return Err(Error::Tokenizer(format!("`tokenizer.ggml.merges`: merge {i}: {expected}, found {merge:?}")));
        };
        merges.push((a.to_string(), b.to_string()));
    }
    let reading = "tokenizer of a GGUF file";
    let mut bpe = words::bpe(ids, merges)?;
    bpe.ignore_merges = split.is(LLAMA_3);
    let mut inner = tokenizers::Tokenizer::new(ModelWrapper::BPE(bpe));
    if split.is(QWEN_2) {
        guard(reading, || {
            inner.with_normalizer(Some(component::<NormalizerWrapper>(&json!({ "type": "NFC" }))?)).map(|_| ())
        })?;
    }
    inner.with_pre_tokenizer(Some(component::<PreTokenizerWrapper>(&split.json())?));
    inner.with_decoder(Some(decoders::byte_level::ByteLevel::default()));
    let default = split.is(LLAMA_3);
    match ends(vocabulary, (default, false))? {
        Some(ends) => inner.with_post_processor(Some(ends)),
        None => inner.with_post_processor(Some(decoders::byte_level::ByteLevel::default().trim_offsets(false))),
    };
    finish(inner, vocabulary)
}

fn word_piece(vocabulary: &GgmlVocabulary) -> Result<Tokenizer> {
    let bracketed = |token: &str| token.starts_with('[') && token.ends_with(']');
    let spelling = |(id, token): (usize, &String)| match token.strip_prefix(SPACE) {
        Some(word) if !word.is_empty() => word.to_string(),
        _ if bracketed(token) || !vocabulary.is(id, TokenType::Normal) => token.clone(),
        _ => format!("##{token}"),
    };
    let tokens: Vec<String> = vocabulary.tokens.iter().enumerate().map(spelling).collect();
    let role = |names: [&str; 2], what: &str| {
        let id = names.iter().find_map(|name| vocabulary.role(name));
        let found = id.and_then(|id| Some((tokens.get(id as usize)?.clone(), id)));
        found.ok_or_else(|| Error::Tokenizer(format!("the metadata has no id of the token {what}")))
    };
    let (unk, cls, sep) =
        (role(["unknown", "unk"], "[UNK]")?, role(["cls", "bos"], "[CLS]")?, role(["seperator", "eos"], "[SEP]")?);
    // The file does not specify it; a vocabulary with capital letters is taken as cased.
    let cased = tokens.iter().any(|token| !bracketed(token) && token.bytes().any(|b| b.is_ascii_uppercase()));
    let reading = "tokenizer of a GGUF file";
    let mut model = WordPiece::from_bpe(&words::bpe(tokens.iter().cloned().zip(0..), Vec::new())?);
    model.unk_token = unk.0;
    let mut inner = tokenizers::Tokenizer::new(model);
    let normalizer = BertNormalizer::new(true, true, None, !cased);
    guard(reading, || inner.with_normalizer(Some(normalizer)).map(|_| ()))?;
    inner.with_pre_tokenizer(Some(BertPreTokenizer));
    inner.with_decoder(Some(decoders::wordpiece::WordPiece::default()));
    inner.with_post_processor(Some(BertProcessing::new(sep, cls)));
    finish(inner, &GgmlVocabulary { tokens, ..vocabulary.clone() })
}
