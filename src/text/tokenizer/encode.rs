//! Encoding: inputs, options, results.

use rayon::prelude::*;
use tokenizers::{Model, OffsetType, PostProcessor, Token, TruncationDirection, TruncationParams, truncate_encodings};

use super::pattern::Budget;
use super::{Tokenizer, guard};
use crate::{Error, Result};

/// An input to encode: a text, a pair of texts, or either already split into words.
///
/// `&str`, `&String` and pairs of `&str` convert to it.
#[derive(Debug, Clone)]
pub enum Input<'a> {
    /// One text.
    Text(&'a str),
    /// Two texts, for example a question and a passage.
    Pair(&'a str, &'a str),
    /// A text split into words. [`Encoding::word_ids`] then counts these words, and offsets are
    /// relative to the word.
    Words(&'a [&'a str]),
    /// Two texts, split into words.
    WordsPair(&'a [&'a str], &'a [&'a str]),
}

impl<'a> From<&'a str> for Input<'a> {
    fn from(text: &'a str) -> Self {
        Input::Text(text)
    }
}

impl<'a> From<&'a String> for Input<'a> {
    fn from(text: &'a String) -> Self {
        Input::Text(text)
    }
}

impl<'a> From<&&'a str> for Input<'a> {
    fn from(text: &&'a str) -> Self {
        Input::Text(text)
    }
}

impl<'a> From<(&'a str, &'a str)> for Input<'a> {
    fn from((first, second): (&'a str, &'a str)) -> Self {
        Input::Pair(first, second)
    }
}

impl<'a> From<&(&'a str, &'a str)> for Input<'a> {
    fn from(&(first, second): &(&'a str, &'a str)) -> Self {
        Input::Pair(first, second)
    }
}

impl<'a> From<&Input<'a>> for Input<'a> {
    fn from(input: &Input<'a>) -> Self {
        input.clone()
    }
}

/// The left or the right end of a sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Side {
    /// The start.
    Left,
    /// The end.
    #[default]
    Right,
}

/// Which text of a pair is truncated if both together are too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TruncationStrategy {
    /// The longer one until both have the same length, then both.
    #[default]
    LongestFirst,
    /// Only the first.
    OnlyFirst,
    /// Only the second, for example the passage after a question.
    OnlySecond,
}

/// How to truncate a sequence that is too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Truncation {
    max_length: usize,
    stride: usize,
    strategy: TruncationStrategy,
    side: Side,
}

impl Truncation {
    /// Truncates to at most `max_length` tokens, special tokens included. Defaults: no overlap,
    /// longest first, at the right end.
    pub fn new(max_length: usize) -> Self {
        Truncation { max_length, stride: 0, strategy: TruncationStrategy::default(), side: Side::Right }
    }

    /// Sets the number of tokens by which each window of [`Encoding::overflowing`] overlaps the
    /// previous one. Default: 0.
    #[must_use]
    pub fn stride(mut self, tokens: usize) -> Self {
        self.stride = tokens;
        self
    }

    /// Sets which text of a pair is truncated. Default: [`TruncationStrategy::LongestFirst`].
    #[must_use]
    pub fn strategy(mut self, strategy: TruncationStrategy) -> Self {
        self.strategy = strategy;
        self
    }

    /// Sets the end at which tokens are cut off. Default: [`Side::Right`].
    #[must_use]
    pub fn side(mut self, side: Side) -> Self {
        self.side = side;
        self
    }
}

/// The length to which sequences are padded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Padding {
    /// No padding.
    #[default]
    None,
    /// Pads to the longest sequence of the batch.
    Longest,
    /// Pads to this number of tokens; longer sequences stay unchanged.
    Length(usize),
}

/// Options of encoding. Default: add special tokens, no truncation, no padding.
///
/// ```
/// use loquat::text::{EncodeOptions, Padding, TokenizerTrainer, Truncation};
///
/// let trainer = TokenizerTrainer::word_piece().vocab_size(60);
/// let tokenizer = trainer.train(["the cat sat", "a dog ran"])?;
/// let options = EncodeOptions::default().truncation(Truncation::new(6)).padding(Padding::Longest);
/// let batch = tokenizer.encode_batch_with(&["the cat sat", "a"], &options)?;
/// assert_eq!(batch[0].len(), batch[1].len());
/// # Ok::<(), loquat::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodeOptions {
    special_tokens: bool,
    truncation: Option<Truncation>,
    padding: Padding,
    pad_side: Side,
    pad_multiple: usize,
    pad_token_id: Option<u32>,
}

impl Default for EncodeOptions {
    fn default() -> Self {
        EncodeOptions {
            special_tokens: true,
            truncation: None,
            padding: Padding::None,
            pad_side: Side::Right,
            pad_multiple: 1,
            pad_token_id: None,
        }
    }
}

impl EncodeOptions {
    /// Sets whether to add the tokenizer's special tokens (`[CLS]`, `<s>` and the like).
    /// Default: true.
    #[must_use]
    pub fn special_tokens(mut self, add: bool) -> Self {
        self.special_tokens = add;
        self
    }

    /// Sets the truncation of long sequences. Default: none.
    #[must_use]
    pub fn truncation(mut self, truncation: Truncation) -> Self {
        self.truncation = Some(truncation);
        self
    }

    /// Sets the padding of short sequences. Default: [`Padding::None`].
    #[must_use]
    pub fn padding(mut self, padding: Padding) -> Self {
        self.padding = padding;
        self
    }

    /// Sets the side of the padding: right for encoders, left for generation.
    /// Default: [`Side::Right`].
    #[must_use]
    pub fn pad_side(mut self, side: Side) -> Self {
        self.pad_side = side;
        self
    }

    /// Rounds the padded length up to a multiple of `tokens`. Default: 1.
    #[must_use]
    pub fn pad_to_multiple_of(mut self, tokens: usize) -> Self {
        self.pad_multiple = tokens.max(1);
        self
    }

    /// Sets the id used for padding. Default: the tokenizer's padding token.
    #[must_use]
    pub fn pad_token_id(mut self, id: u32) -> Self {
        self.pad_token_id = Some(id);
        self
    }
}

/// An encoded text: token ids with further information per token. All lists have the same length.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Encoding {
    /// Token ids.
    pub input_ids: Vec<u32>,
    /// 1 for a token, 0 for padding.
    pub attention_mask: Vec<u32>,
    /// 0 for the first text and 1 for the second, if the tokenizer defines it so.
    pub token_type_ids: Vec<u32>,
    /// 1 for an added special token, 0 for a token of the text.
    pub special_tokens_mask: Vec<u32>,
    /// Position of the token in its text: the **byte** range `start..end`, so that
    /// `&text[start..end]` is valid. A token that is a part of a character has the range of the
    /// whole character. Special tokens have `(0, 0)`.
    pub offsets: Vec<(usize, usize)>,
    /// Index of the token's word in its text; `None` for special tokens.
    pub word_ids: Vec<Option<u32>>,
    /// Index of the token's text, 0 or 1; `None` for special tokens.
    pub sequence_ids: Vec<Option<usize>>,
    /// The truncated rest, in windows of the same length, with special tokens and padding.
    pub overflowing: Vec<Encoding>,
}

impl Encoding {
    /// Returns the number of tokens, padding included.
    pub fn len(&self) -> usize {
        self.input_ids.len()
    }

    /// Returns whether there are no tokens.
    pub fn is_empty(&self) -> bool {
        self.input_ids.is_empty()
    }

    fn from_library(encoding: tokenizers::Encoding) -> Self {
        // `get_sequence_ids` returns 0 for every token of a single text that was never given a
        // range; the mask is correct.
        let special_tokens_mask = encoding.get_special_tokens_mask().to_vec();
        let mut sequence_ids = encoding.get_sequence_ids();
        for (id, &special) in sequence_ids.iter_mut().zip(&special_tokens_mask) {
            if special == 1 {
                *id = None;
            }
        }
        Encoding {
            input_ids: encoding.get_ids().to_vec(),
            attention_mask: encoding.get_attention_mask().to_vec(),
            token_type_ids: encoding.get_type_ids().to_vec(),
            special_tokens_mask,
            offsets: encoding.get_offsets().to_vec(),
            word_ids: encoding.get_word_ids().to_vec(),
            sequence_ids,
            overflowing: encoding.get_overflowing().iter().cloned().map(Encoding::from_library).collect(),
        }
    }

    /// Pads to `len` tokens.
    fn pad(&mut self, len: usize, id: u32, side: Side) {
        fn fill<T: Clone>(list: &mut Vec<T>, n: usize, value: T, side: Side) {
            let at = if side == Side::Left { 0 } else { list.len() };
            list.splice(at..at, std::iter::repeat_n(value, n));
        }
        let n = len.saturating_sub(self.len());
        if n > 0 {
            fill(&mut self.input_ids, n, id, side);
            fill(&mut self.attention_mask, n, 0, side);
            fill(&mut self.token_type_ids, n, 0, side);
            fill(&mut self.special_tokens_mask, n, 1, side);
            fill(&mut self.offsets, n, (0, 0), side);
            fill(&mut self.word_ids, n, None, side);
            fill(&mut self.sequence_ids, n, None, side);
        }
        for window in &mut self.overflowing {
            window.pad(len, id, side);
        }
    }

    fn longest(&self) -> usize {
        self.overflowing.iter().map(Encoding::longest).fold(self.len(), usize::max)
    }
}

impl Tokenizer {
    /// Encodes a text, a pair or words, with special tokens.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] if a part of the text is not in the vocabulary and there is no unknown
    /// token.
    pub fn encode<'a>(&self, input: impl Into<Input<'a>>) -> Result<Encoding> {
        self.encode_with(input, &EncodeOptions::default())
    }

    /// Encodes with options. [`Padding::Longest`] refers to the windows of this input.
    ///
    /// # Errors
    /// Same as [`encode`](Tokenizer::encode); [`Error::Argument`] for contradicting options, or for
    /// padding without a padding token.
    pub fn encode_with<'a>(&self, input: impl Into<Input<'a>>, options: &EncodeOptions) -> Result<Encoding> {
        let mut encoding = self.encode_one(input.into(), options)?;
        self.pad_all(std::slice::from_mut(&mut encoding), options)?;
        Ok(encoding)
    }

    /// Encodes each input with special tokens, on all threads of the current pool.
    ///
    /// # Errors
    /// Same as [`encode`](Tokenizer::encode).
    pub fn encode_batch<'a, I>(&self, inputs: &'a [I]) -> Result<Vec<Encoding>>
    where
        &'a I: Into<Input<'a>>,
        I: Sync,
    {
        self.encode_batch_with(inputs, &EncodeOptions::default())
    }

    /// Encodes each input with options, on all threads of the current pool. [`Padding::Longest`]
    /// includes the windows of [`Encoding::overflowing`].
    ///
    /// # Errors
    /// Same as [`encode_with`](Tokenizer::encode_with).
    pub fn encode_batch_with<'a, I>(&self, inputs: &'a [I], options: &EncodeOptions) -> Result<Vec<Encoding>>
    where
        &'a I: Into<Input<'a>>,
        I: Sync,
    {
        crate::kernels::parallel::adopt();
        let mut encodings: Vec<Encoding> =
            inputs.par_iter().map(|input| self.encode_one(input.into(), options)).collect::<Result<_>>()?;
        self.pad_all(&mut encodings, options)?;
        Ok(encodings)
    }

    /// Returns the ids of a text without special tokens, truncation, padding and offsets, which is
    /// faster.
    ///
    /// # Errors
    /// Same as [`encode`](Tokenizer::encode).
    pub fn encode_without_special(&self, text: &str) -> Result<Vec<u32>> {
        if let Some(chars) = &self.chars
            && chars.covers(text)
        {
            return chars.encode(text);
        }
        let budget = Budget::of(text.len());
        if let Some(words) = &self.byte_level
            && words.covers(text)
        {
            return words.encode(self.inner.get_model(), &self.known, text, &budget);
        }
        let encoding = self.encode_text(text, None, &budget, OffsetType::None);
        Ok(encoding.map_err(|e| self.explain(text, e))?.get_ids().to_vec())
    }

    /// Bytes of text to encode at once: few if the library needs some hundred bytes of memory for
    /// each, many if each distinct word is looked up once.
    pub(crate) fn block_bytes(&self) -> usize {
        if self.chars.is_some() || self.byte_level.is_some() { 1 << 20 } else { 1 << 16 }
    }

    fn encode_one(&self, input: Input<'_>, options: &EncodeOptions) -> Result<Encoding> {
        enum Sequence<'a> {
            Text(&'a str),
            Words(&'a [&'a str]),
        }
        let (first, second) = match input {
            Input::Text(text) => (Sequence::Text(text), None),
            Input::Pair(a, b) => (Sequence::Text(a), Some(Sequence::Text(b))),
            Input::Words(words) => (Sequence::Words(words), None),
            Input::WordsPair(a, b) => (Sequence::Words(a), Some(Sequence::Words(b))),
        };
        let encode = |sequence| match sequence {
            Sequence::Text(text) => self.encode_text(text, None, &Budget::of(text.len()), OffsetType::Byte),
            Sequence::Words(words) => {
                let budget = Budget::of(words.iter().map(|word| word.len()).sum());
                let encode = |(i, word): (usize, &&str)| {
                    let i = u32::try_from(i).map_err(|_| Error::argument("words", "fewer than 2^32", words.len()))?;
                    self.encode_text(word, Some(i), &budget, OffsetType::Byte)
                };
                words.iter().enumerate().map(encode).collect()
            }
        };
        let explain = |e| match input {
            Input::Text(text) => self.explain(text, e),
            Input::Pair(a, b) => self.explain(&format!("{a}{b}"), e),
            Input::Words(words) => self.explain(&words.concat(), e),
            Input::WordsPair(a, b) => self.explain(&(a.concat() + &b.concat()), e),
        };
        let first = encode(first).map_err(explain)?;
        let mut second = second.map(encode).transpose().map_err(explain)?;
        if let Some(second) = &mut second {
            second.set_type_ids(vec![1; second.len()]); // before truncation: windows inherit them
        }
        let (first, second) = self.truncate(first, second, options)?;
        let whole = guard("encoding", || match &self.post {
            Some(post) => post.process(first, second, options.special_tokens),
            None => tokenizers::PostProcessorWrapper::from(tokenizers::processors::sequence::Sequence::new(Vec::new()))
                .process(first, second, false),
        })?;
        Ok(Encoding::from_library(whole))
    }

    /// Returns the tokens of a text without special tokens; if `word` is given, all are of that
    /// word.
    fn encode_text(
        &self,
        text: &str,
        word: Option<u32>,
        budget: &Budget,
        offsets: OffsetType,
    ) -> Result<tokenizers::Encoding> {
        let model = self.inner.get_model();
        guard("encoding", || {
            let mut parts = self.pipeline.split(self.inner.get_added_vocabulary(), text, budget)?;
            parts.tokenize(|part| {
                let mut tokens = Vec::new();
                self.known.tokens(model, part.get(), budget, |id, start, end| {
                    // Post-processors trim offsets by the token's spelling.
                    let value = if offsets == OffsetType::None { None } else { model.id_to_token(id) };
                    tokens.push(Token::new(id, value.unwrap_or_default(), (start, end)));
                })?;
                Ok(tokens)
            })?;
            parts.into_encoding(word, 0, offsets)
        })
    }

    fn truncate(
        &self,
        first: tokenizers::Encoding,
        second: Option<tokenizers::Encoding>,
        options: &EncodeOptions,
    ) -> Result<(tokenizers::Encoding, Option<tokenizers::Encoding>)> {
        let Some(truncation) = options.truncation else { return Ok((first, second)) };
        let added = match &self.post {
            Some(post) if options.special_tokens => post.added_tokens(second.is_some()),
            _ => 0,
        };
        let Truncation { stride, .. } = truncation;
        let max_length = truncation.max_length.saturating_sub(added);
        let lengths = [first.get_ids().len(), second.as_ref().map_or(0, |second| second.get_ids().len())];
        if max_length > 0 && lengths[0] + lengths[1] <= max_length {
            return Ok((first, second));
        }
        let left = truncated(lengths, second.is_some().then_some(truncation.strategy), max_length);
        // Windows of a truncated text must have more tokens than they share with the next.
        let narrowest = lengths.iter().zip(left).filter(|(len, left)| left < *len).map(|(_, left)| left).min();
        if max_length == 0 || narrowest.is_some_and(|narrowest| stride >= narrowest.max(1)) {
            let narrowest = narrowest.unwrap_or(0);
            return Err(Error::argument(
                "truncation",
                format!("windows longer than the stride of {stride}"),
                format!(
                    "{narrowest} tokens for the truncated text, of max_length {} with {added} special tokens",
                    truncation.max_length
                ),
            ));
        }
        let params = TruncationParams {
            direction: match truncation.side {
                Side::Left => TruncationDirection::Left,
                Side::Right => TruncationDirection::Right,
            },
            max_length,
            strategy: match truncation.strategy {
                TruncationStrategy::LongestFirst => tokenizers::TruncationStrategy::LongestFirst,
                TruncationStrategy::OnlyFirst => tokenizers::TruncationStrategy::OnlyFirst,
                TruncationStrategy::OnlySecond => tokenizers::TruncationStrategy::OnlySecond,
            },
            stride,
        };
        guard("truncating", || truncate_encodings(first, second, &params))
    }

    fn pad_all(&self, encodings: &mut [Encoding], options: &EncodeOptions) -> Result<()> {
        /// Larger than any model's context: a mistake.
        const LONGEST: usize = 1 << 26;
        let len = match options.padding {
            Padding::None => return Ok(()),
            Padding::Longest => encodings.iter().map(Encoding::longest).max().unwrap_or(0),
            Padding::Length(len) => len,
        };
        let len = len.checked_next_multiple_of(options.pad_multiple).unwrap_or(usize::MAX);
        if len > LONGEST {
            return Err(Error::argument("padding", format!("at most {LONGEST} tokens"), len));
        }
        let Some(id) = options.pad_token_id.or(self.pad_token_id()) else {
            return Err(Error::argument("padding", "a tokenizer with a padding token, or a `pad_token_id`", "neither"));
        };
        for encoding in encodings {
            encoding.pad(len, id, options.pad_side);
        }
        Ok(())
    }

    /// Names the character that is missing in a character-level vocabulary.
    fn explain(&self, text: &str, error: Error) -> Error {
        match &self.chars {
            Some(chars) => chars.encode(text).err().unwrap_or(error),
            None => error,
        }
    }
}

/// Returns the number of tokens that each text keeps so that both fit `max_length`; `strategy` is
/// for a pair.
fn truncated([first, second]: [usize; 2], strategy: Option<TruncationStrategy>, max_length: usize) -> [usize; 2] {
    let to_remove = (first + second).saturating_sub(max_length);
    match strategy {
        None => [first.min(max_length), second],
        Some(TruncationStrategy::OnlyFirst) => [first.saturating_sub(to_remove), second],
        Some(TruncationStrategy::OnlySecond) => [first, second.saturating_sub(to_remove)],
        Some(TruncationStrategy::LongestFirst) => {
            let half = max_length / 2;
            match (first.min(second), first <= second) {
                // The shorter one is not truncated.
                (shorter, true) if shorter <= half => [shorter, max_length - shorter],
                (shorter, false) if shorter <= half => [max_length - shorter, shorter],
                (_, true) => [half, max_length - half],
                (_, false) => [max_length - half, half],
            }
        }
    }
}
