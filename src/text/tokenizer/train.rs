//! Training a tokenizer from text.
//!
//! Words are counted here, from files in bounded memory or from an iterator; merges and likelihoods
//! are computed by the `tokenizers` crate. That crate iterates over hash maps in an order that
//! differs between runs; its input and output are sorted here, so that a text always gives the same
//! `tokenizer.json`, at any number of threads.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;

use rayon::prelude::*;
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::models::unigram::{Unigram, UnigramTrainer};
use tokenizers::models::wordlevel::WordLevel;
use tokenizers::models::wordpiece::WordPiece;
use tokenizers::normalizers::{BertNormalizer, Lowercase, NFKC, Nmt, Replace};
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::metaspace::{Metaspace, PrependScheme};
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::pre_tokenizers::whitespace::Whitespace;
use tokenizers::processors::template::TemplateProcessing;
use tokenizers::{
    AddedToken, ModelWrapper, NormalizedString, Normalizer, NormalizerWrapper, OffsetReferential, OffsetType,
    PreTokenizedString, PreTokenizer, SplitDelimiterBehavior, decoders, normalizers,
};

use super::chars::EVERY_CHAR;
use super::{Special, Tokenizer, gpt2_split, guard};
use crate::kernels::parallel::in_new_pool;
use crate::text::Corpus;
use crate::{Error, Result};

/// Counts of the words of a text.
type Counts = HashMap<String, u64>;

/// A trainer of [`Tokenizer`]s. Create it with the kind of tokenizer, then change its defaults.
///
/// | kind | split by | default special tokens | used by |
/// |---|---|---|---|
/// | [`byte_level_bpe`](Self::byte_level_bpe) | GPT-2's pattern, bytes | `<\|endoftext\|>` | GPT-2 |
/// | [`word_piece`](Self::word_piece) | words and punctuation | `[PAD] [UNK] [CLS] [SEP] [MASK]` | BERT |
/// | [`unigram`](Self::unigram) | white space | `<pad> </s> <unk>` | T5 |
/// | [`word_level`](Self::word_level) | words and punctuation | `<unk>` | – |
/// | [`chars`](Self::chars) | every character | none | nanoGPT |
///
/// ```
/// use loquat::text::TokenizerTrainer;
///
/// let tokenizer = TokenizerTrainer::chars().train(["hello", "world"])?;
/// assert_eq!(tokenizer.encode("hold")?.input_ids, [2, 4, 3, 0]); // of "dehlorw", sorted
/// # Ok::<(), loquat::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct TokenizerTrainer {
    kind: Kind,
    vocab_size: usize,
    min_frequency: u64,
    special_tokens: Vec<String>,
    alphabet_limit: usize,
    lowercase: bool,
    prefix_space: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    ByteLevelBpe,
    WordPiece,
    Unigram,
    WordLevel,
    Chars,
}

impl TokenizerTrainer {
    fn new(kind: Kind, vocab_size: usize, special_tokens: &[&str]) -> Self {
        TokenizerTrainer {
            kind,
            vocab_size,
            min_frequency: 0,
            special_tokens: special_tokens.iter().map(|&token| token.to_string()).collect(),
            alphabet_limit: usize::MAX,
            lowercase: false,
            prefix_space: false,
        }
    }

    /// Creates a trainer of byte-level BPE as in GPT-2: every text can be encoded, and decodes to
    /// itself. Default: 30 000 tokens.
    ///
    /// P. Gage 1994; R. Sennrich, B. Haddow, A. Birch,
    /// [arXiv:1508.07909](https://arxiv.org/abs/1508.07909).
    pub fn byte_level_bpe() -> Self {
        Self::new(Kind::ByteLevelBpe, 30_000, &["<|endoftext|>"])
    }

    /// Creates a trainer of WordPiece as in BERT: words are split into pieces, of which all but the
    /// first start with `##`. Default: 30 000 tokens, lower case.
    pub fn word_piece() -> Self {
        let trainer = Self::new(Kind::WordPiece, 30_000, &["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]);
        trainer.lowercase(true)
    }

    /// Creates a trainer of a unigram language model as in SentencePiece and T5. Default: 8000
    /// tokens.
    ///
    /// T. Kudo, [arXiv:1804.10959](https://arxiv.org/abs/1804.10959).
    pub fn unigram() -> Self {
        Self::new(Kind::Unigram, 8_000, &["<pad>", "</s>", "<unk>"])
    }

    /// Creates a trainer with one token per word, most frequent first. Default: 30 000 tokens.
    pub fn word_level() -> Self {
        Self::new(Kind::WordLevel, 30_000, &["<unk>"])
    }

    /// Creates a trainer with one token per character of the text, in the order of code points, as
    /// in nanoGPT. Other characters cannot be encoded, unless there is a special token `<unk>`. The
    /// vocabulary size is the number of different characters.
    pub fn chars() -> Self {
        Self::new(Kind::Chars, usize::MAX, &[])
    }

    /// Sets the number of tokens to train, special tokens included. A text with little variety
    /// gives fewer.
    #[must_use]
    pub fn vocab_size(mut self, tokens: usize) -> Self {
        self.vocab_size = tokens;
        self
    }

    /// Sets the minimum count of words (word level), pairs (BPE and WordPiece) or characters.
    /// Default: no minimum.
    #[must_use]
    pub fn min_frequency(mut self, occurrences: u64) -> Self {
        self.min_frequency = occurrences;
        self
    }

    /// Replaces the kind's special tokens. They get the first ids, in this order, and the roles
    /// that their spellings imply; [`Tokenizer::set_special`] sets others.
    #[must_use]
    pub fn special_tokens<S: Into<String>>(mut self, tokens: impl IntoIterator<Item = S>) -> Self {
        self.special_tokens = tokens.into_iter().map(Into::into).collect();
        self
    }

    /// Keeps only the `chars` most frequent characters (WordPiece); a word with any other character
    /// becomes the unknown token.
    #[must_use]
    pub fn alphabet_limit(mut self, chars: usize) -> Self {
        self.alphabet_limit = chars;
        self
    }

    /// Sets whether text is converted to lower case (and, for WordPiece, stripped of accents).
    #[must_use]
    pub fn lowercase(mut self, fold: bool) -> Self {
        self.lowercase = fold;
        self
    }

    /// Sets whether the first word of a text is encoded as if a space preceded it (byte-level BPE).
    /// Default: false.
    #[must_use]
    pub fn prefix_space(mut self, add: bool) -> Self {
        self.prefix_space = add;
        self
    }

    /// Trains on files, which are streamed: memory is bounded by the number of different words.
    ///
    /// # Errors
    /// [`Error::Io`] for a file that cannot be read; [`Error::Format`] with file, line and byte for
    /// text that is not UTF-8; [`Error::Argument`] if the files are empty or a setting is
    /// impossible.
    pub fn train_files<P: AsRef<Path>>(&self, paths: impl IntoIterator<Item = P>) -> Result<Tokenizer> {
        /// Bytes of text in memory at once: enough work for all threads.
        const PIECE: usize = 4 << 20;
        let corpus = Corpus::open_all(paths)?;
        let frame = self.frame()?;
        let mut counts = Counts::new();
        for piece in corpus.pieces(PIECE) {
            let piece = piece?;
            let lines: Vec<&str> = piece.split_inclusive('\n').collect();
            self.count(&frame, &lines, &mut counts)?;
        }
        if counts.is_empty() {
            let path = corpus.paths().next().unwrap_or(Path::new(""));
            return Err(Error::format(path, "expected text to train a tokenizer on, found none"));
        }
        self.finish(frame, counts)
    }

    /// Trains on texts.
    ///
    /// # Errors
    /// [`Error::Argument`] if there is no text or a setting is impossible.
    pub fn train<S: AsRef<str>>(&self, texts: impl IntoIterator<Item = S>) -> Result<Tokenizer> {
        /// Maximum bytes and number of texts counted at once.
        const BYTES: usize = 4 << 20;
        const TEXTS: usize = 1 << 16;
        let frame = self.frame()?;
        let mut counts = Counts::new();
        let (mut batch, mut bytes) = (Vec::new(), 0);
        for text in texts {
            bytes += text.as_ref().len();
            batch.push(text.as_ref().to_string());
            if bytes >= BYTES || batch.len() >= TEXTS {
                self.count(&frame, &batch, &mut counts)?;
                batch.clear();
                bytes = 0;
            }
        }
        self.count(&frame, &batch, &mut counts)?;
        if counts.is_empty() {
            return Err(Error::argument("text to train a tokenizer on", "at least one word", "none"));
        }
        self.finish(frame, counts)
    }

    /// Creates the tokenizer without its model: normalizer, pre-tokenizer, post-processor and
    /// decoder.
    fn frame(&self) -> Result<tokenizers::Tokenizer> {
        let mut seen = BTreeSet::new();
        if let Some(token) = self.special_tokens.iter().find(|token| token.is_empty() || !seen.insert(*token)) {
            return Err(Error::argument("special_tokens", "distinct, non-empty tokens", format!("{token:?}")));
        }
        let mut frame = tokenizers::Tokenizer::new(BPE::default());
        let mut normalizer: Option<NormalizerWrapper> = self.lowercase.then(|| Lowercase.into());
        match self.kind {
            Kind::ByteLevelBpe => {
                frame.with_pre_tokenizer(Some(ByteLevel::default().add_prefix_space(self.prefix_space)));
                frame.with_decoder(Some(ByteLevel::default()));
                frame.with_post_processor(Some(ByteLevel::default().trim_offsets(false)));
            }
            Kind::WordPiece => {
                normalizer = Some(BertNormalizer::new(true, true, None, self.lowercase).into());
                frame.with_pre_tokenizer(Some(BertPreTokenizer));
                frame.with_decoder(Some(decoders::wordpiece::WordPiece::default()));
            }
            Kind::Unigram => {
                let spaces = guard("training", || {
                    Replace::new(normalizers::replace::ReplacePattern::Regex(" {2,}".into()), " ")
                })?;
                let mut steps: Vec<NormalizerWrapper> = vec![Nmt.into(), NFKC.into(), spaces.into()];
                steps.extend(normalizer);
                normalizer = Some(normalizers::Sequence::new(steps).into());
                let metaspace = Metaspace::new('\u{2581}', PrependScheme::Always, true);
                frame.with_pre_tokenizer(Some(metaspace.clone()));
                frame.with_decoder(Some(metaspace));
            }
            Kind::WordLevel => {
                frame.with_pre_tokenizer(Some(Whitespace));
            }
            Kind::Chars => {
                let pattern = SplitPattern::Regex(EVERY_CHAR.into());
                let split = guard("training", || Split::new(pattern, SplitDelimiterBehavior::Isolated, false))?;
                frame.with_pre_tokenizer(Some(split));
                frame.with_decoder(Some(decoders::fuse::Fuse::new()));
            }
        }
        guard("training", || frame.with_normalizer(normalizer).map(|_| ()))?;
        Ok(frame)
    }

    /// Adds the words of texts to the counts, on all threads of the current pool.
    fn count<S: AsRef<str> + Sync>(
        &self,
        frame: &tokenizers::Tokenizer,
        texts: &[S],
        counts: &mut Counts,
    ) -> Result<()> {
        let count = |texts: &[S]| -> Result<Counts> {
            if self.kind == Kind::ByteLevelBpe && !self.lowercase {
                return Ok(count_byte_level(texts, self.prefix_space));
            }
            let mut counts = Counts::new();
            for text in texts {
                if self.kind == Kind::Chars && !self.lowercase {
                    count_chars(text.as_ref(), &mut counts);
                } else {
                    guard("training", || count_words(frame, text.as_ref(), &mut counts))?;
                }
            }
            Ok(counts)
        };
        crate::kernels::parallel::adopt();
        let share = texts.len().div_ceil(4 * rayon::current_num_threads()).max(1);
        for part in texts.par_chunks(share).map(count).collect::<Result<Vec<_>>>()? {
            for (word, n) in part {
                *counts.entry(word).or_default() += n;
            }
        }
        Ok(())
    }

    /// Trains the model and inserts it into the tokenizer.
    fn finish(&self, mut frame: tokenizers::Tokenizer, counts: Counts) -> Result<Tokenizer> {
        let mut words: Vec<(String, u64)> = counts.into_iter().collect();
        words.sort_unstable();
        if words.iter().map(|(word, n)| word.chars().count() as u64 * n).fold(0, u64::saturating_add) > i32::MAX as u64
            && matches!(self.kind, Kind::ByteLevelBpe | Kind::WordPiece | Kind::Unigram)
        {
            return Err(Error::argument(
                "text to train a tokenizer on",
                "at most 2147483647 characters (use a sample of the text)",
                "more",
            ));
        }
        let model = match self.kind {
            Kind::ByteLevelBpe => self.byte_level(&words)?,
            Kind::WordPiece => self.pieces(words)?,
            Kind::Unigram => self.likelihood(words)?,
            Kind::WordLevel | Kind::Chars => self.lookup(words)?,
        };
        frame.with_model(model);
        let special: Vec<AddedToken> = self.special_tokens.iter().map(|token| AddedToken::from(token, true)).collect();
        guard("training", || frame.add_special_tokens(special).map(|_| ()))?;
        self.wrap(&mut frame)?;
        // Serialized and parsed, so that the trained tokenizer equals the one that is opened later.
        let json = guard("training", || frame.to_string(false))?;
        Tokenizer::from_bytes(json)
    }

    /// Sets the special tokens around an encoder's input.
    fn wrap(&self, frame: &mut tokenizers::Tokenizer) -> Result<()> {
        let id = |token: &str| self.special_tokens.iter().position(|t| t == token).map(|id| id as u32);
        let template = match (self.kind, id("[CLS]"), id("[SEP]"), id("</s>")) {
            (Kind::WordPiece, Some(cls), Some(sep), _) => guard("training", || {
                let mut builder = TemplateProcessing::builder();
                builder.try_single("[CLS]:0 $A:0 [SEP]:0")?.try_pair("[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1")?;
                Ok(builder.special_tokens(vec![("[CLS]", cls), ("[SEP]", sep)]).build()?)
            })?,
            (Kind::Unigram, _, _, Some(end)) => guard("training", || {
                let mut builder = TemplateProcessing::builder();
                builder.try_single("$A:0 </s>:0")?.try_pair("$A:0 </s>:0 $B:0 </s>:0")?;
                Ok(builder.special_tokens(vec![("</s>", end)]).build()?)
            })?,
            _ => return Ok(()),
        };
        frame.with_post_processor(Some(template));
        Ok(())
    }

    /// The unknown token among the special ones, in the kind's spelling.
    fn unk(&self) -> Option<&String> {
        self.special_tokens.iter().find(|token| Special::Unk.spellings().contains(&token.as_str()))
    }

    fn byte_level(&self, words: &[(String, u64)]) -> Result<ModelWrapper> {
        self.needs(self.special_tokens.len() + 256)?;
        let trainer = BpeTrainer::builder()
            .vocab_size(self.vocab_size)
            .min_frequency(self.min_frequency)
            .show_progress(false)
            .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
            .special_tokens(self.special_tokens.iter().map(|token| AddedToken::from(token, true)).collect())
            .build();
        let counts = words.iter().map(|(word, n)| (word.as_str().into(), *n)).collect();
        let mut bpe = BPE::default();
        guard("training", || trainer.do_train(&counts, &mut bpe))?;
        Ok(bpe.into())
    }

    fn pieces(&self, mut words: Vec<(String, u64)>) -> Result<ModelWrapper> {
        let Some(unk) = self.unk() else {
            return Err(Error::argument(
                "special_tokens",
                "the unknown token `[UNK]`",
                format!("{:?}", self.special_tokens),
            ));
        };
        let mut alphabet: HashMap<char, u64> = HashMap::new();
        for (word, n) in &words {
            word.chars().for_each(|c| *alphabet.entry(c).or_default() += n);
        }
        let mut kept: Vec<(char, u64)> = alphabet.into_iter().collect();
        kept.sort_unstable_by_key(|&(c, n)| (std::cmp::Reverse(n), c));
        kept.truncate(self.alphabet_limit);
        let kept: BTreeSet<char> = kept.into_iter().map(|(c, _)| c).collect();
        words.retain(|(word, _)| word.chars().all(|c| kept.contains(&c)));
        let inner: BTreeSet<char> = words.iter().flat_map(|(word, _)| word.chars().skip(1)).collect();
        // The library would assign ids to the pieces `##x` in the order of a hash map. "Special
        // tokens" of its trainer, which only means that they come first, keep their order.
        let single = kept.iter().map(char::to_string).chain(inner.iter().map(|c| format!("##{c}")));
        let first: Vec<AddedToken> =
            self.special_tokens.iter().cloned().chain(single).map(|token| AddedToken::from(token, true)).collect();
        self.needs(first.len())?;
        let trainer = BpeTrainer::builder()
            .vocab_size(self.vocab_size)
            .min_frequency(self.min_frequency)
            .show_progress(false)
            .continuing_subword_prefix("##".into())
            .special_tokens(first)
            .build();
        let counts = words.iter().map(|(word, n)| (word.as_str().into(), *n)).collect();
        let mut bpe = BPE::default();
        guard("training", || trainer.do_train(&counts, &mut bpe))?;
        let mut model = WordPiece::from_bpe(&bpe);
        model.unk_token = unk.clone();
        Ok(model.into())
    }

    fn likelihood(&self, words: Vec<(String, u64)>) -> Result<ModelWrapper> {
        let Some(unk) = self.unk() else {
            return Err(Error::argument(
                "special_tokens",
                "the unknown token `<unk>`",
                format!("{:?}", self.special_tokens),
            ));
        };
        let chars: BTreeSet<char> = words.iter().flat_map(|(word, _)| word.chars()).collect();
        self.needs(self.special_tokens.len() + chars.len() + 1)?;
        let special: Vec<AddedToken> = self.special_tokens.iter().map(|token| AddedToken::from(token, true)).collect();
        let trainer = guard("training", || {
            Ok(UnigramTrainer::builder()
                .vocab_size(u32::try_from(self.vocab_size)?)
                .show_progress(false)
                .special_tokens(special)
                .unk_token(Some(unk.clone()))
                .build()?)
        })?;
        let words = words.into_iter().map(|(word, n)| (word, n as u32)).collect();
        let mut model = Unigram::default();
        // One thread: the library's floating-point sums depend on the number of threads.
        guard("training", || in_new_pool(1, || trainer.do_train(words, &mut model))?)?;
        let pieces: Vec<(String, f64)> = model.iter().cloned().collect();
        let unk_id = self.special_tokens.iter().position(|token| token == unk);
        let pieces = in_order(pieces, self.special_tokens.len());
        Ok(guard("training", || Unigram::from(pieces, unk_id, false))?.into())
    }

    fn lookup(&self, mut words: Vec<(String, u64)>) -> Result<ModelWrapper> {
        words.retain(|(word, n)| *n >= self.min_frequency && !self.special_tokens.contains(word));
        if self.kind == Kind::WordLevel {
            words.sort_by_key(|(_, n)| std::cmp::Reverse(*n)); // stable for equal counts
        }
        self.needs(self.special_tokens.len() + 1)?;
        let tokens = self.special_tokens.iter().cloned().chain(words.into_iter().map(|(word, _)| word));
        let vocab = tokens.take(self.vocab_size).zip(0..).collect();
        let unk = self.unk().cloned().unwrap_or_else(|| "<unk>".into());
        let model = guard("training", || WordLevel::builder().vocab(vocab).unk_token(unk).build())?;
        Ok(model.into())
    }

    fn needs(&self, least: usize) -> Result<()> {
        if self.vocab_size < least {
            let expected = format!("at least {least} (special tokens and single characters)");
            return Err(Error::argument("vocab_size", expected, self.vocab_size));
        }
        Ok(())
    }
}

fn count_chars(text: &str, counts: &mut Counts) {
    let mut ascii = [0u64; 128];
    let mut rest: HashMap<char, u64> = HashMap::new();
    for c in text.chars() {
        match ascii.get_mut(c as usize) {
            Some(n) => *n += 1,
            None => *rest.entry(c).or_default() += 1,
        }
    }
    let ascii = (0..128u8).map(char::from).zip(ascii).filter(|&(_, n)| n > 0);
    for (c, n) in ascii.chain(rest) {
        *counts.entry(c.to_string()).or_default() += n;
    }
}

fn count_byte_level<S: AsRef<str>>(texts: &[S], prefix_space: bool) -> Counts {
    let mut counts: HashMap<&str, u64> = HashMap::new();
    let mut prefixed: Counts = Counts::new();
    for text in texts.iter().map(AsRef::as_ref) {
        if prefix_space && !text.is_empty() && !text.starts_with(' ') {
            gpt2_split::words(&format!(" {text}")).for_each(|word| *prefixed.entry(word.into()).or_default() += 1);
        } else {
            gpt2_split::words(text).for_each(|word| *counts.entry(word).or_default() += 1);
        }
    }
    let mut spelled = Counts::with_capacity(counts.len());
    for (word, n) in counts.into_iter().chain(prefixed.iter().map(|(word, &n)| (word.as_str(), n))) {
        let mut key = String::with_capacity(2 * word.len());
        gpt2_split::push_spelled(word, &mut key);
        *spelled.entry(key).or_default() += n;
    }
    spelled
}

fn count_words(frame: &tokenizers::Tokenizer, text: &str, counts: &mut Counts) -> tokenizers::Result<()> {
    let mut normalized = NormalizedString::from(text);
    if let Some(normalizer) = frame.get_normalizer() {
        normalizer.normalize(&mut normalized)?;
    }
    let mut words = PreTokenizedString::from(normalized);
    if let Some(pre_tokenizer) = frame.get_pre_tokenizer() {
        pre_tokenizer.pre_tokenize(&mut words)?;
    }
    for (word, _, _) in words.get_splits(OffsetReferential::Original, OffsetType::None) {
        match counts.get_mut(word) {
            Some(n) => *n += 1,
            None => {
                counts.insert(word.to_string(), 1);
            }
        }
    }
    Ok(())
}

/// Sorts a trained unigram model's pieces where the library's order comes from a hash map.
///
/// Characters dropped by training are added again with the lowest score m, m + δ, m + 2δ, … in the
/// map's order; here these scores are assigned in the order of code points. Pieces of equal score
/// are sorted by their text.
fn in_order(mut pieces: Vec<(String, f64)>, n_special: usize) -> Vec<(String, f64)> {
    const DELTA: f64 = 0.0001;
    let trained = &mut pieces[n_special..];
    let lowest = trained.iter().map(|(_, score)| *score).fold(f64::INFINITY, f64::min);
    let single = |text: &str| text.chars().nth(1).is_none();
    let mut scores = Vec::new();
    let mut taken_back: Vec<usize> = Vec::new();
    let mut penalty = 0.0;
    loop {
        let score: f64 = lowest + penalty;
        let matching =
            trained.iter().enumerate().filter(|(_, (text, s))| single(text) && s.to_bits() == score.to_bits());
        let before = taken_back.len();
        taken_back.extend(matching.map(|(i, _)| i));
        if taken_back.len() == before {
            break;
        }
        scores.resize(taken_back.len(), score);
        penalty += DELTA;
    }
    taken_back.sort_unstable_by(|&a, &b| trained[a].0.cmp(&trained[b].0));
    for (i, score) in taken_back.into_iter().zip(scores) {
        trained[i].1 = score;
    }
    trained.sort_by(|a, b| b.1.total_cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    pieces
}
