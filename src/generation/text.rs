//! The iterator of text pieces.

use std::ops::Deref;

use crate::error::Result;
use crate::generation::beam::Hypothesis;
use crate::generation::config::GenerationConfig;
use crate::generation::logprobs::TokenLogprob;
use crate::generation::prompt_cache::PromptCache;
use crate::generation::stop_strings::{Released, StopStrings};
use crate::generation::stopping::StopReason;
use crate::generation::tokens::{Tokens, generate};
use crate::models::CausalLm;
use crate::text::{DecodeStream, Tokenizer};

/// A stream of text pieces that continue a prompt: whole characters, without the prompt, but with
/// the space between prompt and continuation. See [`stream`].
///
/// `P` and `T` are pointers to model and tokenizer: references borrow them, `Arc`s share them.
///
/// # Examples
/// ```
/// # use loquat::{models::{MlpConfig, MlpLm}, text::TokenizerTrainer};
/// # let tokenizer = TokenizerTrainer::byte_level_bpe().vocab_size(300).train(["yes no maybe"])?;
/// # let config = MlpConfig::new(tokenizer.vocab_size(), 6, 8, 3);
/// # let model = MlpLm::init(&config, &mut loquat::Rng::seed(1))?;
/// use loquat::GenerationConfig;
/// use loquat::generation::stream;
///
/// let config = GenerationConfig::default().max_new_tokens(5).seed(7);
/// let mut pieces = stream(&model, &tokenizer, "maybe", &config)?;
/// let text: String = pieces.by_ref().collect::<Result<_, _>>()?;
/// assert_eq!(pieces.new_ids().len(), 5);
/// assert!(!text.is_empty());
/// # Ok::<(), loquat::Error>(())
/// ```
pub struct TextStream<P: Deref<Target: CausalLm>, T: Deref<Target = Tokenizer>> {
    tokens: Tokens<P>,
    decoder: Option<DecodeStream<T>>,
    stops: StopStrings,
}

/// Continues `prompt` and returns an iterator of text pieces. A piece is empty while a character is
/// incomplete or a stop string may have started.
///
/// # Errors
/// Same as [`generate`]; [`Error::Tokenizer`](crate::Error::Tokenizer) if the prompt cannot be
/// encoded.
pub fn stream<P, T>(model: P, tokenizer: T, prompt: &str, config: &GenerationConfig) -> Result<TextStream<P, T>>
where
    P: Deref<Target: CausalLm>,
    T: Deref<Target = Tokenizer>,
{
    let ids = tokenizer.encode(prompt)?.input_ids;
    stream_ids(model, tokenizer, &ids, config)
}

/// Same as [`stream`], from token ids.
///
/// # Errors
/// Same as [`generate`].
pub(crate) fn stream_ids<P, T>(
    model: P,
    tokenizer: T,
    prompt_ids: &[u32],
    config: &GenerationConfig,
) -> Result<TextStream<P, T>>
where
    P: Deref<Target: CausalLm>,
    T: Deref<Target = Tokenizer>,
{
    Ok(TextStream::new(generate(model, prompt_ids, &config.for_ids())?, tokenizer, config))
}

impl<P: Deref<Target: CausalLm>, T: Deref<Target = Tokenizer>> TextStream<P, T> {
    /// Creates the stream of the text of `tokens`.
    pub(crate) fn new(tokens: Tokens<P>, tokenizer: T, config: &GenerationConfig) -> Self {
        let stops = StopStrings::new(&config.stop_strings, &tokenizer);
        let decoder = DecodeStream::new(tokenizer).after(tokens.ids());
        Self { tokens, decoder: Some(decoder), stops }
    }

    /// Starts from a cached prefix of the prompt; same as [`Tokens::with_cache`].
    pub fn with_cache(self, cache: &PromptCache<<P::Target as CausalLm>::State>) -> Self {
        Self { tokens: self.tokens.with_cache(cache), ..self }
    }

    /// Starts from a prepared state; same as [`Tokens::with_state`].
    ///
    /// # Errors
    /// Same as [`Tokens::with_state`].
    pub fn with_state(self, state: <P::Target as CausalLm>::State) -> Result<Self> {
        Ok(Self { tokens: self.tokens.with_state(state)?, ..self })
    }

    /// Returns the model state after the tokens read so far; same as [`Tokens::cache`].
    pub fn cache(&self) -> Option<PromptCache<<P::Target as CausalLm>::State>> {
        self.tokens.cache()
    }

    /// Returns the prompt and the tokens generated so far.
    pub fn ids(&self) -> &[u32] {
        self.tokens.ids()
    }

    /// Returns the tokens generated so far, without the prompt.
    pub fn new_ids(&self) -> &[u32] {
        self.tokens.new_ids()
    }

    /// Returns the log-probability of each of [`TextStream::new_ids`]; empty unless
    /// [`GenerationConfig::logprobs`](GenerationConfig::logprobs()) is set.
    pub fn logprobs(&self) -> &[TokenLogprob] {
        self.tokens.logprobs()
    }

    /// Returns why generation stopped, or `None` while it goes on.
    pub fn stop_reason(&self) -> Option<StopReason> {
        self.tokens.stop_reason()
    }

    /// Returns the best texts of a beam search; same as
    /// [`Tokens::hypotheses`](crate::generation::Tokens::hypotheses).
    pub fn hypotheses(&self) -> Vec<Hypothesis> {
        self.tokens.hypotheses()
    }

    /// Returns the released text, and ends generation at a stop string.
    fn release(&mut self, released: Released) -> Result<String> {
        let (text, decoder) = match released {
            Released::Text(text) => return Ok(text),
            Released::Stopped(text) => (text, None),
            Released::StoppedAtToken(text) => (text, self.decoder.take()),
        };
        self.tokens.stop(StopReason::StopString);
        self.decoder = None;
        Ok(text + &decoder.map(DecodeStream::finish).transpose()?.unwrap_or_default())
    }
}

impl<P: Deref<Target: CausalLm>, T: Deref<Target = Tokenizer>> Iterator for TextStream<P, T> {
    type Item = Result<String>;

    fn next(&mut self) -> Option<Result<String>> {
        let decoder = self.decoder.as_mut()?;
        match self.tokens.next() {
            Some(Ok(id)) => Some(decoder.step(id).and_then(|piece| {
                let released = self.stops.push(id, &piece);
                self.release(released)
            })),
            Some(Err(error)) => {
                self.decoder = None;
                Some(Err(error))
            }
            None => {
                let decoder = self.decoder.take()?;
                Some(decoder.finish().and_then(|piece| {
                    let released = self.stops.push_last(&piece);
                    Ok(self.release(released)? + &self.stops.finish())
                }))
            }
        }
    }
}

/// One text of a batch, collected up to a stop string.
pub(crate) struct WholeText<T: Deref<Target = Tokenizer>> {
    /// `None` once the text has ended.
    decoder: Option<DecodeStream<T>>,
    stops: StopStrings,
    text: String,
}

impl<T: Deref<Target = Tokenizer>> WholeText<T> {
    pub(crate) fn new(tokenizer: T, prompt_ids: &[u32], config: &GenerationConfig) -> Self {
        let stops = StopStrings::new(&config.stop_strings, &tokenizer);
        let decoder = Some(DecodeStream::new(tokenizer).after(prompt_ids));
        Self { decoder, stops, text: String::new() }
    }

    /// Adds a token. Returns `true` if the text has ended; later tokens are ignored.
    pub(crate) fn push(&mut self, id: u32) -> Result<bool> {
        let Some(decoder) = &mut self.decoder else { return Ok(true) };
        let (text, kept) = match self.stops.push(id, &decoder.step(id)?) {
            Released::Text(text) => (text, None),
            Released::Stopped(text) => {
                self.decoder = None;
                (text, None)
            }
            Released::StoppedAtToken(text) => (text, self.decoder.take()),
        };
        self.text += &text;
        if let Some(decoder) = kept {
            self.text += &decoder.finish()?;
        }
        Ok(self.decoder.is_none())
    }

    pub(crate) fn finish(self) -> Result<String> {
        let Self { decoder, mut stops, mut text } = self;
        if let Some(decoder) = decoder {
            match stops.push_last(&decoder.finish()?) {
                Released::Text(piece) => text = text + &piece + &stops.finish(),
                Released::Stopped(piece) | Released::StoppedAtToken(piece) => text += &piece,
            }
        }
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generation::tokens::tests::Counting;
    use crate::text::TokenizerTrainer;

    #[test]
    fn the_next_turn_goes_on_from_the_last() {
        use crate::models::{Gpt2, Gpt2Config};
        let tokenizer = TokenizerTrainer::chars().train(["abcdefghij"]).unwrap();
        let config = Gpt2Config::new(tokenizer.vocab_size(), 32, 12, 1, 2);
        let model = Gpt2::init(&config, &mut crate::random::Rng::seed(1)).unwrap();
        let config = GenerationConfig::default().greedy().max_new_tokens(5);
        let mut first = stream(&model, &tokenizer, "abc", &config).unwrap();
        assert!(first.cache().is_none(), "nothing is read yet");
        let answer: String = first.by_ref().map(|piece| piece.unwrap()).collect();
        let cache = first.cache().unwrap();
        assert_eq!(cache.ids(), &first.ids()[..7]);
        let prompt = format!("abc{answer}d");
        let alone: String = stream(&model, &tokenizer, &prompt, &config).unwrap().map(|piece| piece.unwrap()).collect();
        let mut second = stream(&model, &tokenizer, &prompt, &config).unwrap().with_cache(&cache);
        assert_eq!(second.by_ref().map(|piece| piece.unwrap()).collect::<String>(), alone);
    }

    #[test]
    fn text_streams_until_a_stop_string() {
        let tokenizer = TokenizerTrainer::chars().train(["abcdefghij"]).unwrap();
        let model = Counting { max_seq_len: None };
        let config = GenerationConfig::default().greedy().max_new_tokens(6);
        let first = tokenizer.decode(&[0]).unwrap();
        let pieces = |config: &GenerationConfig| {
            let stream = stream(&model, &tokenizer, &first, config).unwrap();
            stream.map(|piece| piece.unwrap()).collect::<Vec<_>>()
        };
        let all = pieces(&config).concat();
        assert_eq!(all, tokenizer.decode(&[1, 2, 3, 4, 5, 6]).unwrap());
        let stop: String = all.chars().skip(2).take(2).collect();
        let before: String = all.chars().take(2).collect();
        assert_eq!(pieces(&config.clone().stop(stop)).concat(), before);
        let error = generate(&model, &[1], &config.stop("a")).err().unwrap();
        assert!(error.to_string().starts_with("stop_strings"), "{error}");
    }

    #[test]
    fn a_stop_string_may_be_spelled_like_a_special_token() {
        // Of ten ids, 4 is special; the model counts.
        let mut tokenizer = TokenizerTrainer::chars().train(["abcd"]).unwrap();
        let special = "<|im_end|>";
        tokenizer.add_special_tokens([special]).unwrap();
        let at = tokenizer.token_to_id(special).unwrap();
        assert!((2..9).contains(&at), "among the ids that are written");
        let model = Counting { max_seq_len: None };
        let write = |config: &GenerationConfig| {
            let mut text = stream_ids(&model, &tokenizer, &[0], config).unwrap();
            let pieces: String = text.by_ref().map(|piece| piece.unwrap()).collect();
            (pieces, text.stop_reason())
        };
        let config = GenerationConfig::default().greedy().max_new_tokens(at as usize + 1);
        let before = tokenizer.decode(&(1..at).collect::<Vec<_>>()).unwrap();
        assert_eq!(write(&config.clone().stop(special)), (before.clone(), Some(StopReason::StopString)));
        assert_eq!(write(&config.clone().stop("<|im_end|>x")).1, Some(StopReason::MaxNewTokens));
        let beams = config.clone().num_beams(2).stop(special);
        assert_eq!(write(&beams), (before.clone(), Some(StopReason::StopString)));
        let mut whole = WholeText::new(&tokenizer, &[0], &config.stop(special));
        assert!((1..at).all(|id| !whole.push(id).unwrap()) && whole.push(at).unwrap());
        assert_eq!(whole.finish().unwrap(), before);
    }

    #[test]
    fn what_a_decoder_keeps_back_stands_before_a_special_stop() {
        // Half a character, then the special token.
        let mut tokenizer = TokenizerTrainer::byte_level_bpe().vocab_size(257).train(["\u{e4}"]).unwrap();
        tokenizer.add_special_tokens(["<s>"]).unwrap();
        let ids = tokenizer.encode_without_special("a\u{e4}").unwrap();
        let mut whole = WholeText::new(&tokenizer, &[], &GenerationConfig::default().stop("<s>"));
        assert!(ids[..2].iter().all(|&id| !whole.push(id).unwrap()));
        assert!(whole.push(tokenizer.token_to_id("<s>").unwrap()).unwrap());
        assert_eq!(whole.finish().unwrap(), "a\u{FFFD}");
    }
}
