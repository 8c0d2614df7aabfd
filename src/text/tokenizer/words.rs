//! Tokenizing single words, with a cache.
//!
//! The library caches looked-up words per thread and per BPE model, and never frees them. So models
//! are built without that cache, and words are cached here, in the tokenizer.

use std::collections::HashMap;
use std::sync::Mutex;

use serde_json::Value;
use tokenizers::models::bpe::{BPE, BpeBuilder};
use tokenizers::models::wordpiece::WordPiece;
use tokenizers::{Model, ModelWrapper, Token};

use super::guard;
use super::pattern::Budget;
use crate::Result;

/// Maximum number of cached words, each shorter than `LONGEST` bytes.
const MOST: usize = 10_000;
const LONGEST: usize = 256;
const SHARDS: usize = 16;

/// A token of a word and the byte offset of its end. It starts at the end of the previous one.
type Part = (u32, u32);

/// Words with their tokens.
type Words = HashMap<Box<str>, Box<[Part]>>;

/// Cache of words tokenized by a BPE model.
#[derive(Debug, Default)]
pub(super) struct WordCache {
    shards: [Mutex<Words>; SHARDS],
    /// Length of the vocabulary's longest token in bytes.
    longest: usize,
}

impl WordCache {
    pub(super) fn new(longest: usize) -> Self {
        WordCache { longest, ..Self::default() }
    }

    /// Calls `each` for every token of a word, with its start and end in the word.
    ///
    /// # Errors
    /// Errors of the model; [`Error::Tokenizer`](crate::Error::Tokenizer) if the budget is
    /// exceeded.
    pub(super) fn tokens(
        &self,
        model: &ModelWrapper,
        word: &str,
        budget: &Budget,
        mut each: impl FnMut(u32, usize, usize),
    ) -> tokenizers::Result<()> {
        match model {
            ModelWrapper::WordPiece(model) => return Ok(self.pieces(model, word, budget, each)?),
            ModelWrapper::BPE(bpe) if bpe.dropout.is_none_or(|dropout| dropout == 0.0) && word.len() < LONGEST => {}
            model => {
                model.tokenize(word)?.iter().for_each(|token| each(token.id, token.offsets.0, token.offsets.1));
                return Ok(());
            }
        }
        let mut parts = |parts: &[Part]| {
            let mut start = 0;
            for &(id, end) in parts {
                each(id, start, end as usize);
                start = end as usize;
            }
        };
        let shard = word.bytes().fold(word.len(), |sum, byte| sum.wrapping_mul(31) ^ usize::from(byte));
        let shard = &self.shards[shard % SHARDS];
        // After a panic in another thread, the map still has only complete entries.
        let lock = || shard.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(known) = lock().get(word) {
            parts(known);
            return Ok(());
        }
        let found: Box<[Part]> = model.tokenize(word)?.iter().map(|t: &Token| (t.id, t.offsets.1 as u32)).collect();
        parts(&found);
        let mut words = lock();
        if words.len() < MOST / SHARDS {
            words.insert(word.into(), found);
        }
        Ok(())
    }

    /// Splits a word as WordPiece does: the longest token at its start, then the longest
    /// continuation, and so on; the unknown token for the whole word if a part has none. Same as
    /// the library, except that candidates are never longer than the longest token.
    fn pieces(
        &self,
        model: &WordPiece,
        word: &str,
        budget: &Budget,
        mut each: impl FnMut(u32, usize, usize),
    ) -> Result<()> {
        let prefix = &model.continuing_subword_prefix;
        let mut found = Vec::new();
        let mut start = 0;
        let mut spelled = String::new();
        if word.chars().count() <= model.max_input_chars_per_word {
            while start < word.len() {
                spelled.clear();
                spelled.push_str(if start > 0 { prefix } else { "" });
                let before = spelled.len();
                let rest = &word[start..];
                let mut most = rest.len().min(self.longest.saturating_sub(before));
                while !rest.is_char_boundary(most) {
                    most -= 1;
                }
                spelled.push_str(&rest[..most]);
                let mut id = None;
                while spelled.len() > before {
                    budget.spend_steps(1 + spelled.len() as u64 / 16)?;
                    id = model.token_to_id(&spelled);
                    if id.is_some() {
                        break;
                    }
                    spelled.pop();
                }
                let Some(id) = id else { break };
                let end = start + spelled.len() - before;
                found.push((id, start, end));
                start = end;
            }
        }
        if start == word.len() {
            found.into_iter().for_each(|(id, start, end)| each(id, start, end));
            return Ok(());
        }
        match model.token_to_id(&model.unk_token) {
            Some(unk) => each(unk, 0, word.len()),
            None => {
                let reason = format!("the vocabulary lacks its unknown token {:?}", model.unk_token);
                return Err(crate::Error::Tokenizer(reason));
            }
        }
        Ok(())
    }
}

/// Builds a BPE model without the library's cache of words.
///
/// # Errors
/// [`Error::Tokenizer`](crate::Error::Tokenizer) for merges whose tokens or concatenation are not
/// in the vocabulary.
pub(super) fn bpe(vocab: impl IntoIterator<Item = (String, u32)>, merges: Vec<(String, String)>) -> Result<BPE> {
    build(BPE::builder(), vocab, merges)
}

fn build(
    builder: BpeBuilder,
    vocab: impl IntoIterator<Item = (String, u32)>,
    merges: Vec<(String, String)>,
) -> Result<BPE> {
    // The library's hash map type cannot be named here; it is inferred from the function's
    // parameter.
    fn collected<V: FromIterator<(String, u32)>, M>(
        _: fn(V, M) -> BPE,
        vocab: impl IntoIterator<Item = (String, u32)>,
    ) -> V {
        vocab.into_iter().collect()
    }
    let vocab = collected(BPE::new, vocab);
    guard("reading a byte-pair model", || builder.vocab_and_merges(vocab, merges).cache_capacity(0).build())
}

/// Replaces a model read from JSON by one without the library's cache of words.
///
/// # Errors
/// [`Error::Tokenizer`](crate::Error::Tokenizer) for merges that are not pairs.
pub(super) fn without_word_cache(tokenizer: &mut tokenizers::Tokenizer, merges: &Value) -> Result<()> {
    let ModelWrapper::BPE(read) = tokenizer.get_model() else { return Ok(()) };
    let pair = |merge: &Value| match merge {
        Value::String(merge) => merge.split_once(' ').map(|(a, b)| (a.to_string(), b.to_string())),
        pair => Some((pair[0].as_str()?.to_string(), pair[1].as_str()?.to_string())),
    };
    let merges = merges.as_array().into_iter().flatten().filter(|merge| {
        !merge.as_str().is_some_and(|merge| merge.starts_with("#version")) // skipped by the library
    });
    let merges: Option<Vec<(String, String)>> = merges.map(pair).collect();
    let merges = merges.ok_or_else(|| crate::Error::Tokenizer("`merges`: expected pairs of tokens".into()))?;
    let mut builder =
        BPE::builder().fuse_unk(read.fuse_unk).byte_fallback(read.byte_fallback).ignore_merges(read.ignore_merges);
    if let Some(prefix) = &read.continuing_subword_prefix {
        builder = builder.continuing_subword_prefix(prefix.clone());
    }
    let mut model = build(builder, read.get_vocab(), merges)?;
    model.dropout = read.dropout;
    model.unk_token.clone_from(&read.unk_token);
    model.end_of_word_suffix.clone_from(&read.end_of_word_suffix);
    tokenizer.with_model(model);
    Ok(())
}
