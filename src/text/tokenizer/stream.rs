//! Decoding token by token.
//!
//! A token is not always text: a byte-level token may be a third of a character, a SentencePiece
//! token starts with the preceding space, a WordPiece token starts with `##`. [`DecodeStream`]
//! returns text as soon as no later token can change it; the concatenation of its pieces is what
//! [`Tokenizer::decode`] returns for all ids.
//!
//! - Byte-level decoders: up to three bytes are held back while they may be the start of a
//!   character.
//! - Byte fallback (`<0xE2>` tokens): the decoder of `tokenizers` converts each *run* of byte
//!   tokens as a whole, and one invalid byte invalidates the run; so a run is held back until it
//!   ends.
//! - All others: the text of a few tokens of context and the new tokens, minus the text of the
//!   context alone.

use std::ops::Deref;
use std::sync::LazyLock;

use tokenizers::{DecoderWrapper, Model};

use super::Tokenizer;
use crate::Result;

/// A streaming decoder, which decodes ids one at a time. See [`Tokenizer::decode_stream`].
///
/// `T` is a pointer to the tokenizer: `&Tokenizer` borrows it, `Arc<Tokenizer>` shares it.
#[derive(Debug, Clone)]
pub struct DecodeStream<T: Deref<Target = Tokenizer>> {
    tokenizer: T,
    skip_special: bool,
    state: State,
}

#[derive(Debug, Clone)]
enum State {
    /// Bytes that may be the start of a character.
    Bytes(Vec<u8>),
    /// Ids of the context and, from index `context`, ids whose text was not returned yet.
    Window { ids: Vec<u32>, context: usize, text: String },
}

impl Tokenizer {
    /// Returns a decoder for ids as they are generated. Special tokens are left out, as in
    /// [`decode`](Tokenizer::decode).
    ///
    /// # Examples
    /// ```
    /// # use loquat::text::TokenizerTrainer;
    /// let tokenizer = TokenizerTrainer::byte_level_bpe().vocab_size(257).train(["ä"])?;
    /// let mut stream = tokenizer.decode_stream();
    /// let ids = tokenizer.encode_without_special("ä!")?; // one token a byte
    /// assert_eq!(stream.step(ids[0])?, "");
    /// assert_eq!(stream.step(ids[1])?, "ä");
    /// assert_eq!(stream.step(ids[2])?, "!");
    /// assert_eq!(stream.finish()?, "");
    /// # Ok::<(), loquat::Error>(())
    /// ```
    pub fn decode_stream(&self) -> DecodeStream<&Tokenizer> {
        DecodeStream::new(self)
    }

    /// Returns the bytes of a token in the middle of a text; empty for special and unknown tokens.
    ///
    /// # Examples
    /// ```
    /// # use loquat::text::TokenizerTrainer;
    /// let tokenizer = TokenizerTrainer::byte_level_bpe().vocab_size(257).train(["ä"])?;
    /// let ids = tokenizer.encode_without_special("ä")?; // one token a byte
    /// assert_eq!(tokenizer.token_bytes(ids[0]), [0xC3]);
    /// # Ok::<(), loquat::Error>(())
    /// ```
    pub fn token_bytes(&self, id: u32) -> Vec<u8> {
        let Some(token) = self.decodable(id, true) else { return Vec::new() };
        match self.decoding {
            Decoding::Bytes => {
                let mut bytes = Vec::new();
                push_bytes(&token, &mut bytes);
                bytes
            }
            Decoding::ByteRuns if is_byte_token(&token) => {
                u8::from_str_radix(&token[3..5], 16).map(|byte| vec![byte]).unwrap_or_default()
            }
            _ => {
                // In the middle of a text: decoders treat the first token differently.
                let decode = |ids: &[u32]| self.decode_all(ids).unwrap_or_default();
                let (one, two) = (decode(&[id]), decode(&[id, id]));
                two.strip_prefix(one.as_str()).unwrap_or(&one).as_bytes().to_vec()
            }
        }
    }

    /// Returns the token as the decoder sees it, unless it is unknown or skipped.
    fn decodable(&self, id: u32, skip_special: bool) -> Option<String> {
        let added = self.inner.get_added_vocabulary();
        if skip_special && self.is_special(id) {
            return None;
        }
        added.simple_id_to_token(id).or_else(|| self.inner.get_model().id_to_token(id))
    }
}

impl<T: Deref<Target = Tokenizer>> DecodeStream<T> {
    /// Creates a decoder with any pointer to a tokenizer; see [`Tokenizer::decode_stream`].
    pub(crate) fn new(tokenizer: T) -> Self {
        let state = match tokenizer.decoding {
            Decoding::Bytes => State::Bytes(Vec::new()),
            _ => State::Window { ids: Vec::new(), context: 0, text: String::new() },
        };
        Self { tokenizer, skip_special: true, state }
    }

    /// Continues after a prompt. A decoder that strips the space before the first word of a text,
    /// such as SentencePiece's, then keeps the space before the next word.
    #[must_use]
    pub fn after(mut self, prompt_ids: &[u32]) -> Self {
        let last = prompt_ids.iter().rev().find(|&&id| self.tokenizer.decodable(id, self.skip_special).is_some());
        if let (State::Window { ids, context, text }, Some(&last)) = (&mut self.state, last) {
            let alone = self.tokenizer.decode_all(&[last]).unwrap_or_default();
            if !alone.is_empty() && !alone.ends_with('\u{FFFD}') {
                (*ids, *context, *text) = (vec![last], 1, alone);
            }
        }
        self
    }

    /// Decodes special tokens too, as [`Tokenizer::decode_with_special`] does.
    #[must_use]
    pub fn with_special(mut self) -> Self {
        self.skip_special = false;
        self
    }

    /// Decodes the next id and returns the text that is now certain: often that of this token,
    /// sometimes empty, sometimes that of several tokens.
    ///
    /// # Errors
    /// [`Error::Tokenizer`](crate::Error::Tokenizer) if the tokenizer's decoder fails.
    pub fn step(&mut self, id: u32) -> Result<String> {
        let Some(token) = self.tokenizer.decodable(id, self.skip_special) else { return Ok(String::new()) };
        match &mut self.state {
            State::Bytes(pending) => {
                push_bytes(&token, pending);
                Ok(take_text(pending))
            }
            State::Window { ids, context, text } => {
                ids.push(id);
                if self.tokenizer.decoding == Decoding::ByteRuns && is_byte_token(&token) {
                    return Ok(String::new());
                }
                let decode = |ids: &[u32]| self.tokenizer.decode_all(ids);
                let whole = decode(ids)?;
                if whole.ends_with('\u{FFFD}') {
                    return Ok(String::new()); // possibly an incomplete character
                }
                let new = match whole.strip_prefix(text.as_str()) {
                    Some(new) if !new.is_empty() => new.to_string(),
                    _ => return Ok(String::new()),
                };
                // From here, the new tokens are the context, if they decode to text by themselves:
                // a decoder that strips a leading space must have stripped it there.
                let alone = decode(&ids[*context..])?;
                if alone.is_empty() {
                    *text = whole;
                } else {
                    ids.drain(..*context);
                    *text = alone;
                }
                *context = ids.len();
                Ok(new)
            }
        }
    }

    /// Ends the stream and returns the text held back; an incomplete character becomes U+FFFD.
    ///
    /// # Errors
    /// [`Error::Tokenizer`](crate::Error::Tokenizer) if the tokenizer's decoder fails.
    pub fn finish(self) -> Result<String> {
        match self.state {
            State::Bytes(pending) => Ok(String::from_utf8_lossy(&pending).into_owned()),
            State::Window { ids, text, .. } => {
                let whole = self.tokenizer.decode_all(&ids)?;
                Ok(whole.strip_prefix(text.as_str()).unwrap_or_default().to_string())
            }
        }
    }
}

/// How a tokenizer's decoder converts tokens to text, as far as it matters for streaming.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Decoding {
    /// Every token is bytes; the text is their concatenation.
    Bytes,
    /// Runs of byte tokens are decoded as a whole.
    ByteRuns,
    /// Token by token.
    Tokens,
}

impl Decoding {
    pub(super) fn of(decoder: Option<&DecoderWrapper>) -> Self {
        fn has_byte_fallback(decoder: &DecoderWrapper) -> bool {
            match decoder {
                DecoderWrapper::ByteFallback(_) => true,
                DecoderWrapper::Sequence(sequence) => sequence.get_decoders().iter().any(has_byte_fallback),
                _ => false,
            }
        }
        match decoder {
            Some(DecoderWrapper::ByteLevel(_)) => Decoding::Bytes,
            Some(decoder) if has_byte_fallback(decoder) => Decoding::ByteRuns,
            _ => Decoding::Tokens,
        }
    }
}

/// Whether a token has the form `<0xE2>`, by exactly the library's test.
fn is_byte_token(token: &str) -> bool {
    token.len() == 6
        && token.starts_with("<0x")
        && token.ends_with('>')
        && token.get(3..5).is_some_and(|hex| u8::from_str_radix(hex, 16).is_ok())
}

/// GPT-2's byte-level alphabet: the character for each byte. Printable characters represent
/// themselves.
static CHAR_OF: LazyLock<[char; 256]> = LazyLock::new(|| {
    let mut next = 0x100;
    std::array::from_fn(|byte| {
        if matches!(byte as u8, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF) {
            return byte as u8 as char;
        }
        next += 1;
        char::from_u32(next - 1).expect("one of the 68 characters from U+0100 on")
    })
});

/// The inverse; all characters are below U+0144.
static BYTE_OF: LazyLock<[Option<u8>; 0x144]> = LazyLock::new(|| {
    let mut bytes = [None; 0x144];
    for byte in 0..=255u8 {
        bytes[char_of(byte) as usize] = Some(byte);
    }
    bytes
});

/// Returns the character for a byte in byte-level vocabularies.
pub(super) fn char_of(byte: u8) -> char {
    CHAR_OF[usize::from(byte)]
}

/// Appends the bytes of a byte-level token; a token with any other character, such as an added
/// token, is appended as it is.
pub(super) fn push_bytes(token: &str, bytes: &mut Vec<u8>) {
    let start = bytes.len();
    for c in token.chars() {
        match BYTE_OF.get(c as usize).copied().flatten() {
            Some(byte) => bytes.push(byte),
            None => {
                bytes.truncate(start);
                bytes.extend_from_slice(token.as_bytes());
                return;
            }
        }
    }
}

/// Removes the text that further bytes cannot change from the front; invalid bytes become U+FFFD.
fn take_text(pending: &mut Vec<u8>) -> String {
    let mut text = String::new();
    let mut done = 0;
    for chunk in pending.utf8_chunks() {
        text.push_str(chunk.valid());
        done += chunk.valid().len();
        let invalid = chunk.invalid();
        let at_end = done + invalid.len() == pending.len();
        // At the end, an incomplete character is not an error yet.
        if at_end && std::str::from_utf8(invalid).is_err_and(|e| e.error_len().is_none()) {
            break;
        }
        if !invalid.is_empty() {
            text.push('\u{FFFD}');
            done += invalid.len();
        }
    }
    pending.drain(..done);
    text
}
