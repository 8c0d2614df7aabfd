//! Tokenizers from file formats older than `tokenizer.json`: BERT's `vocab.txt`, GPT-2's and
//! GPT-1's `vocab.json` and `merges.txt`.

use std::collections::HashMap;
use std::path::Path;

use serde_json::Value;
use tokenizers::models::bpe::BPE;
use tokenizers::models::wordpiece::WordPiece;
use tokenizers::normalizers::BertNormalizer;
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::processors::bert::BertProcessing;
use tokenizers::processors::roberta::RobertaProcessing;
use tokenizers::{AddedToken, Model, ModelWrapper, decoders};

use super::{Special, Tokenizer, guard, stream, words};
use crate::text::Corpus;
use crate::{Error, Result};

impl Tokenizer {
    /// Opens a WordPiece tokenizer from BERT's `vocab.txt`: one token per line, whose id is the
    /// line number, counted from 0.
    ///
    /// `lowercase` also strips accents, as for BERT's uncased models.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be read, [`Error::Format`] if it lacks `[UNK]`, `[CLS]` or
    /// `[SEP]` or has a duplicate token.
    pub fn open_word_piece(vocab: impl AsRef<Path>, lowercase: bool) -> Result<Self> {
        word_piece(vocab.as_ref(), &serde_json::json!({ "do_lower_case": lowercase }))
    }

    /// Opens a byte-level BPE tokenizer from GPT-2's `vocab.json` (tokens with their ids) and
    /// `merges.txt` (two tokens per line, in the order of merging), or GPT-1's tokenizer if words
    /// end with `</w>`.
    ///
    /// # Errors
    /// [`Error::Io`] if a file cannot be read, [`Error::Format`] with the file and the reason if it
    /// is invalid.
    pub fn open_byte_level(vocab: impl AsRef<Path>, merges: impl AsRef<Path>) -> Result<Self> {
        byte_level(vocab.as_ref(), merges.as_ref(), &Value::Null)
    }

    /// Opens the tokenizer of a folder without `tokenizer.json`.
    pub(super) fn open_older(folder: &Path, config: &Value) -> Result<Self> {
        let file = |name: &str| Some(folder.join(name)).filter(|path| path.exists());
        match (file("vocab.txt"), file("vocab.json"), file("merges.txt")) {
            (Some(vocab), _, _) => word_piece(&vocab, config),
            (None, Some(vocab), Some(merges)) => byte_level(&vocab, &merges, config),
            _ => {
                let found = if file("tokenizer.model").is_some() || file("spiece.model").is_some() {
                    "a SentencePiece model, which is not supported: save it as `tokenizer.json` with transformers"
                } else {
                    "none of them"
                };
                let names = "`tokenizer.json`, `vocab.txt`, or `vocab.json` and `merges.txt`";
                Err(Error::format(folder, format!("expected {names}, found {found}")))
            }
        }
    }
}

/// Returns the tokens of a list that the vocabulary has, as special tokens.
fn special(model: &impl Model, tokens: &[&str]) -> Vec<AddedToken> {
    let known = tokens.iter().filter(|token| model.token_to_id(token).is_some());
    // The mask token includes the space before it, as it replaces a word with its space.
    known.map(|&token| AddedToken::from(token, true).lstrip(token == "<mask>")).collect()
}

fn word_piece(path: &Path, config: &Value) -> Result<Tokenizer> {
    let text = Corpus::open(path)?.read_to_string()?;
    let mut vocab: HashMap<String, u32> = HashMap::new();
    for (line, id) in text.split_terminator('\n').zip(0..) {
        let token = line.trim_end_matches('\r');
        if vocab.insert(token.to_string(), id).is_some() {
            return Err(Error::format(path, format!("line {}: token {token:?} comes twice", id + 1)));
        }
    }
    let need = |token: &str| match vocab.get(token) {
        Some(&id) => Ok((token.to_string(), id)),
        None => Err(Error::format(path, format!("the vocabulary has no token {token}"))),
    };
    let (unk, cls, sep) = (need("[UNK]")?, need("[CLS]")?, need("[SEP]")?);
    let flag = |key: &str| config.get(key).and_then(Value::as_bool);
    let mut model = WordPiece::from_bpe(&words::bpe(vocab, Vec::new())?);
    model.unk_token = unk.0;
    let special = special(&model, &["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]);
    let mut inner = tokenizers::Tokenizer::new(model);
    let chinese = flag("tokenize_chinese_chars").unwrap_or(true);
    let lowercase = flag("do_lower_case").unwrap_or(true);
    let normalizer = BertNormalizer::new(true, chinese, flag("strip_accents"), lowercase);
    guard("reading vocab.txt", || inner.with_normalizer(Some(normalizer)).map(|_| ()))?;
    inner.with_pre_tokenizer(Some(BertPreTokenizer));
    inner.with_decoder(Some(decoders::wordpiece::WordPiece::default()));
    inner.with_post_processor(Some(BertProcessing::new(sep, cls)));
    guard("reading vocab.txt", || inner.add_special_tokens(special).map(|_| ()))?;
    Tokenizer::from_inner(inner)
}

/// The end of a word's last token in GPT-1's vocabulary.
const WORD_END: &str = "</w>";

/// GPT-1's tokenizer: BERT's words in lower case, the last token of each with `</w>`. Same as
/// `transformers` without `ftfy` and `spacy`.
fn gpt1(path: &Path, vocab: HashMap<String, u32>, merges: Vec<(String, String)>, config: &Value) -> Result<Tokenizer> {
    let unk = Special::Unk.in_config(config).unwrap_or("<unk>").to_string();
    // CLIP's and XLM's words end the same way, but are split differently.
    let other = ["<|startoftext|>", "<special0>", "<special1>"].into_iter().find(|token| vocab.contains_key(*token));
    if let Some(token) = other {
        let expected = "expected GPT-1's vocabulary, in which words end with `</w>`";
        return Err(Error::format(path, format!("{expected}, found one with {token}: save it as `tokenizer.json`")));
    }
    if !vocab.contains_key(&unk) {
        return Err(Error::format(path, format!("the vocabulary has no token {unk}")));
    }
    let mut bpe = words::bpe(vocab, merges)?;
    bpe.unk_token = Some(unk.clone());
    bpe.end_of_word_suffix = Some(WORD_END.into());
    let mut inner = tokenizers::Tokenizer::new(ModelWrapper::BPE(bpe));
    let normalizer = BertNormalizer::new(true, true, None, true);
    guard("reading vocab.json", || inner.with_normalizer(Some(normalizer)).map(|_| ()))?;
    inner.with_pre_tokenizer(Some(BertPreTokenizer));
    inner.with_decoder(Some(decoders::bpe::BPEDecoder::new(WORD_END.into())));
    guard("reading vocab.json", || inner.add_special_tokens([AddedToken::from(unk, true)]).map(|_| ()))?;
    Tokenizer::from_inner(inner)
}

fn byte_level(vocab_path: &Path, merges_path: &Path, config: &Value) -> Result<Tokenizer> {
    let json = Corpus::open(vocab_path)?.read_to_string()?;
    let vocab: HashMap<String, u32> =
        serde_json::from_str(&json).map_err(|e| Error::format(vocab_path, format!("expected tokens with ids: {e}")))?;
    let text = Corpus::open(merges_path)?.read_to_string()?;
    let mut merges = Vec::new();
    for (i, line) in text.lines().enumerate().filter(|(_, line)| !line.starts_with("#version") && !line.is_empty()) {
        let wrong =
            |expected: &str| Error::format(merges_path, format!("line {}: expected {expected}: {line:?}", i + 1));
        let (a, b) = line.split_once(' ').filter(|(_, b)| !b.contains(' ')).ok_or_else(|| wrong("two tokens"))?;
        if ![a, b, &[a, b].concat()].into_iter().all(|token| vocab.contains_key(token)) {
            return Err(wrong("two tokens of the vocabulary whose concatenation is a token"));
        }
        merges.push((a.to_string(), b.to_string()));
    }
    let reading = "reading vocab.json and merges.txt";
    if merges.iter().any(|(_, b)| b.ends_with(WORD_END)) {
        return gpt1(vocab_path, vocab, merges, config);
    }
    // A vocabulary that is not byte-level would silently drop the missing characters.
    let absent = (0..=255).map(stream::char_of).find(|c| !vocab.contains_key(c.encode_utf8(&mut [0; 4]) as &str));
    if let (Some(c), true) = (absent, vocab.len() > 256) {
        let expected = "expected a byte-level vocabulary, with the 256 characters of bytes";
        return Err(Error::format(
            vocab_path,
            format!("{expected}, found none for {c:?}: save it as `tokenizer.json`"),
        ));
    }
    let bpe = words::bpe(vocab, merges)?;
    let roberta = |model: &BPE| match (model.token_to_id("<s>"), model.token_to_id("</s>")) {
        (Some(cls), Some(sep)) if model.token_to_id("<mask>").is_some() => Some((cls, sep)),
        _ => None,
    };
    let prefix = config.get("add_prefix_space").and_then(Value::as_bool).unwrap_or(false);
    let special = special(&bpe, &["<s>", "<pad>", "</s>", "<unk>", "<mask>", "<|endoftext|>"]);
    let ends = roberta(&bpe);
    let mut inner = tokenizers::Tokenizer::new(ModelWrapper::BPE(bpe));
    inner.with_pre_tokenizer(Some(ByteLevel::default().add_prefix_space(prefix)));
    inner.with_decoder(Some(ByteLevel::default()));
    match ends {
        Some((cls, sep)) => {
            let post = RobertaProcessing::new(("</s>".into(), sep), ("<s>".into(), cls));
            inner.with_post_processor(Some(post.add_prefix_space(prefix)));
        }
        None => {
            inner.with_post_processor(Some(ByteLevel::default().trim_offsets(false)));
        }
    }
    guard(reading, || inner.add_special_tokens(special).map(|_| ()))?;
    Tokenizer::from_inner(inner)
}
