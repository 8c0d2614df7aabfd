//! The iterator of text.

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

/// Pieces of text that continue a prompt: whole characters, without the prompt, but with the space between the two. See [`stream`].
///
/// `P` and `T` point to the model and the tokenizer: references borrow them, `Arc`s share them.
pub struct TextStream<P: Deref<Target: CausalLm>, T: Deref<Target = Tokenizer>> {
    tokens: Tokens<P>,
    decoder: Option<DecodeStream<T>>,
    stops: StopStrings,
}

/// Continues `prompt`, piece by piece. A piece may be empty while a character is incomplete or a stop string may have begun.
///
/// # Errors
/// As for [`generate`], and what the tokenizer cannot encode.
pub fn stream<P, T>(model: P, tokenizer: T, prompt: &str, config: &GenerationConfig) -> Result<TextStream<P, T>>
where
    P: Deref<Target: CausalLm>,
    T: Deref<Target = Tokenizer>,
{
    let ids = tokenizer.encode(prompt)?.input_ids;
    stream_ids(model, tokenizer, &ids, config)
}

/// As [`stream`], from token ids.
///
/// # Errors
/// As for [`generate`].
pub fn stream_ids<P, T>(
    model: P,
    tokenizer: T,
    prompt_ids: &[u32],
    config: &GenerationConfig,
) -> Result<TextStream<P, T>>
where
    P: Deref<Target: CausalLm>,
    T: Deref<Target = Tokenizer>,
{
    Ok(TextStream::new(generate(model, prompt_ids, config)?, tokenizer, config))
}

impl<P: Deref<Target: CausalLm>, T: Deref<Target = Tokenizer>> TextStream<P, T> {
    /// The text of these tokens.
    pub(crate) fn new(tokens: Tokens<P>, tokenizer: T, config: &GenerationConfig) -> Self {
        let stops = StopStrings::new(config.stop_strings.clone());
        let decoder = DecodeStream::new(tokenizer).after(tokens.ids());
        Self { tokens, decoder: Some(decoder), stops }
    }

    /// As [`Tokens::with_cache`].
    pub fn with_cache(self, cache: &PromptCache<<P::Target as CausalLm>::State>) -> Self {
        Self { tokens: self.tokens.with_cache(cache), ..self }
    }

    /// As [`Tokens::cache`].
    pub fn cache(&self) -> Option<PromptCache<<P::Target as CausalLm>::State>> {
        self.tokens.cache()
    }

    /// The prompt and what was written so far.
    pub fn ids(&self) -> &[u32] {
        self.tokens.ids()
    }

    /// What was written so far.
    pub fn new_ids(&self) -> &[u32] {
        self.tokens.new_ids()
    }

    /// The log-probability of each of [`TextStream::new_ids`]; empty unless
    /// [`GenerationConfig::logprobs`](GenerationConfig::logprobs()) asks for them.
    pub fn logprobs(&self) -> &[TokenLogprob] {
        self.tokens.logprobs()
    }

    /// Why the text ended; `None` while it goes on.
    pub fn stop_reason(&self) -> Option<StopReason> {
        self.tokens.stop_reason()
    }

    /// The best texts of a search with beams, as [`BeamSearch::hypotheses`](crate::generation::BeamSearch::hypotheses).
    pub fn hypotheses(&self) -> Vec<Hypothesis> {
        self.tokens.hypotheses()
    }

    fn release(&mut self, piece: &str) -> String {
        match self.stops.push(piece) {
            Released::Text(text) => text,
            Released::Stopped(text) => {
                self.tokens.stop(StopReason::StopString);
                self.decoder = None;
                text
            }
        }
    }
}

impl<P: Deref<Target: CausalLm>, T: Deref<Target = Tokenizer>> Iterator for TextStream<P, T> {
    type Item = Result<String>;

    fn next(&mut self) -> Option<Result<String>> {
        let decoder = self.decoder.as_mut()?;
        match self.tokens.next() {
            Some(Ok(id)) => Some(decoder.step(id).map(|piece| self.release(&piece))),
            Some(Err(error)) => {
                self.decoder = None;
                Some(Err(error))
            }
            None => {
                let decoder = self.decoder.take()?;
                Some(decoder.finish().map(|piece| {
                    let text = self.release(&piece);
                    text + &self.stops.finish()
                }))
            }
        }
    }
}

/// One text of many, put together until a stop string.
pub(crate) struct WholeText<T: Deref<Target = Tokenizer>> {
    decoder: DecodeStream<T>,
    stops: StopStrings,
    text: String,
    stopped: bool,
}

impl<T: Deref<Target = Tokenizer>> WholeText<T> {
    pub(crate) fn new(tokenizer: T, prompt_ids: &[u32], config: &GenerationConfig) -> Self {
        let stops = StopStrings::new(config.stop_strings.clone());
        let decoder = DecodeStream::new(tokenizer).after(prompt_ids);
        Self { decoder, stops, text: String::new(), stopped: false }
    }

    /// Takes a token in. True if the text has ended: what comes later is passed over.
    pub(crate) fn push(&mut self, id: u32) -> Result<bool> {
        if !self.stopped {
            match self.stops.push(&self.decoder.step(id)?) {
                Released::Text(piece) => self.text += &piece,
                Released::Stopped(piece) => {
                    self.text += &piece;
                    self.stopped = true;
                }
            }
        }
        Ok(self.stopped)
    }

    pub(crate) fn finish(self) -> Result<String> {
        let Self { decoder, mut stops, mut text, stopped } = self;
        if !stopped {
            match stops.push(&decoder.finish()?) {
                Released::Text(piece) => text = text + &piece + &stops.finish(),
                Released::Stopped(piece) => text += &piece,
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
        assert_eq!(pieces(&config.stop(stop)).concat(), before);
    }
}
