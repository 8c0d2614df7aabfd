//! How to continue a prompt.

use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::generation::constraint::TokenMask;
use crate::generation::processor::LogitsProcessor;
use crate::generation::stopping::Cancel;

/// Settings of a generation, with the names and meaning of Hugging Face's `generation_config.json`.
///
/// `None` and an empty list mean "not said": then what a model's folder says holds
/// ([`with_defaults`](GenerationConfig::with_defaults)), and if that says nothing either, the default in each field's words.
///
/// ```
/// let config = loquat::GenerationConfig::default().max_new_tokens(64).temperature(0.8).top_p(0.9).seed(7);
/// assert!(config.check().is_ok());
/// assert!(config.temperature(-1.0).check().is_err());
/// ```
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct GenerationConfig {
    /// The largest number of tokens to write; 128.
    pub max_new_tokens: Option<usize>,
    /// The largest number of tokens, the prompt's included; without effect beside `max_new_tokens`.
    pub max_length: Option<usize>,
    /// No end token before so many were written; 0.
    pub min_new_tokens: Option<usize>,
    /// No end token before there are so many, the prompt's included; 0.
    pub min_length: Option<usize>,
    /// Whether to draw from the distribution; otherwise the likeliest token is taken. Drawn if nobody says otherwise and
    /// there are no beams.
    pub do_sample: Option<bool>,
    /// Logits are divided by it; above 0. Below 1 sharpens the distribution.
    pub temperature: Option<f32>,
    /// Only this many likeliest tokens may be drawn; 0 means all.
    pub top_k: Option<usize>,
    /// Only the likeliest tokens that together have this probability may be drawn; in `(0, 1]`.
    pub top_p: Option<f32>,
    /// Only tokens at least this times as likely as the likeliest may be drawn; in `[0, 1]`.
    pub min_p: Option<f32>,
    /// Only the most typical tokens that together have this probability may be drawn; in `(0, 1]`.
    pub typical_p: Option<f32>,
    /// Only tokens of at least this probability may be drawn; in `[0, 1)`.
    pub epsilon_cutoff: Option<f32>,
    /// As `epsilon_cutoff`, lower where the distribution is flat; in `[0, 1)`.
    pub eta_cutoff: Option<f32>,
    /// Keeps the surprise of what is drawn near a target.
    pub mirostat: Option<Mirostat>,
    /// Logits of tokens in prompt and text are divided by it (multiplied if negative); above 0, 1 changes nothing.
    pub repetition_penalty: Option<f32>,
    /// Taken off the logit of each token that was written.
    pub presence_penalty: Option<f32>,
    /// Taken off the logit of a token as often as it was written.
    pub frequency_penalty: Option<f32>,
    /// No run of so many tokens comes twice; 0 allows all.
    pub no_repeat_ngram_size: Option<usize>,
    /// Runs of tokens that are never completed.
    pub bad_words_ids: Vec<Vec<u32>>,
    /// Added to the logit of the last token of a run when the others have just been written.
    pub sequence_bias: Vec<(Vec<u32>, f32)>,
    /// Tokens that are never written.
    pub suppress_tokens: Vec<u32>,
    /// Tokens that are not written first.
    pub begin_suppress_tokens: Vec<u32>,
    /// The token that follows a prompt of one token.
    pub forced_bos_token_id: Option<u32>,
    /// The tokens of which one is written last if `max_new_tokens` are reached.
    pub forced_eos_token_ids: Vec<u32>,
    /// Tokens that are written at given places, counted from 0 at the first after the prompt.
    pub forced_tokens: Vec<(usize, u32)>,
    /// From so many written tokens on, end tokens gain: their logits by this factor to the power of the tokens since.
    pub exponential_decay_length_penalty: Option<(usize, f32)>,
    /// Makes logits that are no numbers 0 and infinite ones finite.
    pub remove_invalid_values: Option<bool>,
    /// Keys the random numbers.
    pub seed: u64,
    /// Tokens that end the text; they are not given out.
    pub eos_token_ids: Vec<u32>,
    /// Texts that end the text; neither they nor what follows is given out.
    pub stop_strings: Vec<String>,
    /// The text ends when so much time has gone by since the start.
    pub max_time: Option<Duration>,
    /// The text ends at this instant.
    pub deadline: Option<Instant>,
    /// Ends the text from another thread.
    pub cancel: Option<Cancel>,
    /// What to do when the model's context is full.
    pub overflow: Overflow,
    /// Keep the log-probability of each token, and so many likeliest alternatives.
    pub logprobs: Option<usize>,
    /// How many texts a search continues at once; 1 is no search. See [`beam`](crate::generation::beam).
    pub num_beams: Option<usize>,
    /// How many groups the beams form, a divisor of `num_beams`; 1.
    pub num_beam_groups: Option<usize>,
    /// Taken off the log-probability of a token for each time that an earlier group took it in the same step; 0.
    pub diversity_penalty: Option<f32>,
    /// The power of its length by which the score of a text is divided; 1. Above 0 favours longer texts.
    pub length_penalty: Option<f32>,
    /// When a search has found enough; [`EarlyStopping::False`].
    pub early_stopping: Option<EarlyStopping>,
    /// How many of the best texts are given; 1.
    pub num_return_sequences: Option<usize>,
    /// How many next tokens are guessed from the text itself, so that the model may read them at once; none. See
    /// [`speculation`](crate::generation::speculation): what is written is the same.
    pub prompt_lookup_num_tokens: Option<usize>,
    /// How many next tokens the smaller model of [`speculate`](crate::generation::speculate) guesses at once; 5.
    pub num_assistant_tokens: Option<usize>,
    /// Processors of one's own: after the penalties, before temperature and cut-offs, as in `transformers`.
    pub processors: Vec<Box<dyn LogitsProcessor>>,
    /// Says which tokens may come next.
    pub constraint: Option<Box<dyn TokenMask>>,
}

/// What to do when the model cannot read more tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Overflow {
    /// Go on from the last half of the context, read anew.
    #[default]
    Slide,
    /// End the text.
    Stop,
}

/// When a search with beams ends that has found as many texts as it has beams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EarlyStopping {
    /// At once.
    True,
    /// When the best beam, at its present length, would not be better than the worst text found.
    #[default]
    False,
    /// When no beam can become better than the worst text found: with a `length_penalty` above 0, not even at the largest length.
    Never,
}

/// Settings of [Mirostat 2](crate::generation::processor::MirostatTwo).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mirostat {
    /// The surprise to aim at, in bits; above 0. llama.cpp takes 5.
    pub tau: f32,
    /// How fast to correct; above 0. llama.cpp takes 0.1.
    pub eta: f32,
}

/// Setters of options that take the value itself.
macro_rules! setters {
    ($($(#[$doc:meta])* $name:ident: $type:ty;)*) => {$(
        $(#[$doc])*
        pub fn $name(mut self, $name: $type) -> Self {
            self.$name = Some($name);
            self
        }
    )*};
}

impl GenerationConfig {
    setters! {
        /// Sets the largest number of tokens to write.
        max_new_tokens: usize;
        /// Allows no end token before so many were written.
        min_new_tokens: usize;
        /// Sets the temperature, above 0.
        temperature: f32;
        /// Allows only the `top_k` likeliest tokens; 0 means all.
        top_k: usize;
        /// Allows only the likeliest tokens that together have probability `top_p`, in `(0, 1]`.
        top_p: f32;
        /// Allows only tokens at least `min_p` times as likely as the likeliest; in `[0, 1]`.
        min_p: f32;
        /// Allows only the most typical tokens that together have probability `typical_p`, in `(0, 1]`.
        typical_p: f32;
        /// Allows only tokens of at least this probability; in `[0, 1)`.
        epsilon_cutoff: f32;
        /// As [`epsilon_cutoff`](Self::epsilon_cutoff), lower where the distribution is flat; in `[0, 1)`.
        eta_cutoff: f32;
        /// Divides the logits of tokens in prompt and text (negative ones are multiplied); above 0.
        repetition_penalty: f32;
        /// Is taken off the logit of each token that was written.
        presence_penalty: f32;
        /// Is taken off the logit of a token as often as it was written.
        frequency_penalty: f32;
        /// Allows no run of so many tokens twice; 0 allows all.
        no_repeat_ngram_size: usize;
        /// Searches with so many beams.
        num_beams: usize;
        /// Lets the beams form so many groups, a divisor of `num_beams`.
        num_beam_groups: usize;
        /// Is taken off the log-probability of a token for each time that an earlier group took it in the same step.
        diversity_penalty: f32;
        /// Divides the score of a text by this power of its length.
        length_penalty: f32;
        /// Says when a search has found enough.
        early_stopping: EarlyStopping;
        /// Gives so many of the best texts of a search.
        num_return_sequences: usize;
        /// Guesses so many next tokens from the text itself.
        prompt_lookup_num_tokens: usize;
        /// Lets the smaller model of a speculation guess so many next tokens.
        num_assistant_tokens: usize;
        /// Ends the text when so much time has gone by.
        max_time: Duration;
        /// Ends the text at this instant.
        deadline: Instant;
        /// Keeps the log-probability of each token and of so many likeliest alternatives.
        logprobs: usize;
    }

    /// Takes the likeliest token instead of drawing.
    pub fn greedy(mut self) -> Self {
        self.do_sample = Some(false);
        self
    }

    /// Draws from the distribution, whatever the model's folder says.
    pub fn sample(mut self) -> Self {
        self.do_sample = Some(true);
        self
    }

    /// Keeps the surprise of what is drawn near `tau` bits, correcting by `eta` of the difference.
    pub fn mirostat(mut self, tau: f32, eta: f32) -> Self {
        self.mirostat = Some(Mirostat { tau, eta });
        self
    }

    /// Adds a run of tokens that is never completed.
    pub fn bad_words(mut self, ids: impl Into<Vec<u32>>) -> Self {
        self.bad_words_ids.push(ids.into());
        self
    }

    /// Adds `bias` to the logit of a token.
    pub fn logit_bias(self, id: u32, bias: f32) -> Self {
        self.sequence_bias([id], bias)
    }

    /// Adds `bias` to the logit of the last of `ids` when the others have just been written.
    pub fn sequence_bias(mut self, ids: impl Into<Vec<u32>>, bias: f32) -> Self {
        self.sequence_bias.push((ids.into(), bias));
        self
    }

    /// Adds a token that is never written.
    pub fn suppress_token(mut self, id: u32) -> Self {
        self.suppress_tokens.push(id);
        self
    }

    /// Forces the token at a place, counted from 0 at the first after the prompt.
    pub fn forced_token(mut self, place: usize, id: u32) -> Self {
        self.forced_tokens.push((place, id));
        self
    }

    /// Sets the seed of the random numbers.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Adds a token that ends the text.
    pub fn eos_token_id(mut self, id: u32) -> Self {
        self.eos_token_ids.push(id);
        self
    }

    /// Adds a text that ends the text.
    pub fn stop(mut self, text: impl Into<String>) -> Self {
        self.stop_strings.push(text.into());
        self
    }

    /// Lets `cancel` end the text from another thread.
    pub fn cancel(mut self, cancel: &Cancel) -> Self {
        self.cancel = Some(cancel.clone());
        self
    }

    /// Sets what happens when the context is full.
    pub fn overflow(mut self, overflow: Overflow) -> Self {
        self.overflow = overflow;
        self
    }

    /// Adds a processor of one's own.
    pub fn processor(mut self, processor: impl LogitsProcessor + 'static) -> Self {
        self.processors.push(Box::new(processor));
        self
    }

    /// Lets `constraint` say which tokens may come next.
    pub fn constraint(mut self, constraint: impl TokenMask + 'static) -> Self {
        self.constraint = Some(Box::new(constraint));
        self
    }

    /// Whether tokens are drawn.
    pub(crate) fn samples(&self) -> bool {
        self.do_sample.unwrap_or(self.beams() == 1)
    }

    /// The number of beams.
    pub(crate) fn beams(&self) -> usize {
        self.num_beams.unwrap_or(1)
    }

    /// The number of groups of beams.
    pub(crate) fn beam_groups(&self) -> usize {
        self.num_beam_groups.unwrap_or(1)
    }

    /// When a search has found enough.
    pub(crate) fn stops_early(&self) -> EarlyStopping {
        self.early_stopping.unwrap_or_default()
    }

    /// What cut-offs leave: with beams, some tokens that go on, whatever ends.
    pub(crate) fn min_tokens_to_keep(&self) -> usize {
        if self.beams() > 1 { 2.max(1 + self.eos_token_ids.len()) } else { 1 }
    }

    /// How many tokens may follow a prompt of `prompt_len`.
    pub(crate) fn new_tokens_limit(&self, prompt_len: usize) -> usize {
        let by_length = || self.max_length.map(|length| length.saturating_sub(prompt_len));
        self.max_new_tokens.or_else(by_length).unwrap_or(128)
    }

    /// What is not said here, as `defaults` says it: what a model's folder prescribes, under what a caller asks for.
    ///
    /// Seed, overflow, log-probabilities, time limits and whatever is no setting of a file stay.
    pub fn with_defaults(mut self, defaults: &Self) -> Self {
        if self.max_new_tokens.is_none() && self.max_length.is_none() {
            (self.max_new_tokens, self.max_length) = (defaults.max_new_tokens, defaults.max_length);
        }
        macro_rules! options {
            ($($name:ident)*) => {$( self.$name = self.$name.or(defaults.$name); )*};
        }
        macro_rules! lists {
            ($($name:ident)*) => {$( if self.$name.is_empty() { self.$name.clone_from(&defaults.$name); } )*};
        }
        options! {
            min_new_tokens min_length do_sample temperature top_k top_p min_p typical_p epsilon_cutoff eta_cutoff mirostat
            repetition_penalty presence_penalty frequency_penalty no_repeat_ngram_size forced_bos_token_id
            exponential_decay_length_penalty remove_invalid_values max_time num_beams num_beam_groups diversity_penalty
            length_penalty early_stopping num_return_sequences
        }
        lists! {
            bad_words_ids sequence_bias suppress_tokens begin_suppress_tokens forced_eos_token_ids forced_tokens
            eos_token_ids stop_strings
        }
        self
    }

    /// Makes sure that every setting is within its range.
    ///
    /// # Errors
    /// [`Error::Argument`] with the first that is not.
    pub fn check(&self) -> Result<()> {
        let positive = |x: f32| x > 0.0 && x.is_finite();
        let range = |name: &str, value: Option<f32>, expected: &str, fits: &dyn Fn(f32) -> bool| match value {
            Some(value) if !fits(value) => Err(Error::argument(name, expected, value)),
            _ => Ok(()),
        };
        if self.samples() || self.temperature != Some(0.0) {
            range("temperature", self.temperature, "a number above 0 (use greedy for the likeliest token)", &positive)?;
        }
        let probability = |x: f32| x > 0.0 && x <= 1.0;
        range("top_p", self.top_p, "a probability in (0, 1]", &probability)?;
        range("typical_p", self.typical_p, "a probability in (0, 1]", &probability)?;
        range("min_p", self.min_p, "a number in [0, 1]", &|x| (0.0..=1.0).contains(&x))?;
        range("epsilon_cutoff", self.epsilon_cutoff, "a number in [0, 1)", &|x| (0.0..1.0).contains(&x))?;
        range("eta_cutoff", self.eta_cutoff, "a number in [0, 1)", &|x| (0.0..1.0).contains(&x))?;
        range("mirostat tau", self.mirostat.map(|m| m.tau), "a number above 0", &positive)?;
        range("mirostat eta", self.mirostat.map(|m| m.eta), "a number above 0", &positive)?;
        range("repetition_penalty", self.repetition_penalty, "a number above 0", &positive)?;
        range("presence_penalty", self.presence_penalty, "a finite number", &f32::is_finite)?;
        range("frequency_penalty", self.frequency_penalty, "a finite number", &f32::is_finite)?;
        let decay = self.exponential_decay_length_penalty.map(|(_, factor)| factor);
        range("exponential_decay_length_penalty", decay, "a factor above 0", &positive)?;
        range("diversity_penalty", self.diversity_penalty, "a number from 0 on", &|x| x >= 0.0 && x.is_finite())?;
        range("length_penalty", self.length_penalty, "a finite number", &f32::is_finite)?;
        let (beams, groups) = (self.beams(), self.beam_groups());
        if !(1..1 << 16).contains(&beams) {
            return Err(Error::argument("num_beams", "a number from 1 to 65535", beams));
        }
        if groups == 0 || beams % groups != 0 {
            return Err(Error::argument("num_beam_groups", format!("a divisor of num_beams = {beams}"), groups));
        }
        if groups > 1 && self.samples() {
            return Err(Error::argument("num_beam_groups", "1 if tokens are drawn", groups));
        }
        let wanted = self.num_return_sequences.unwrap_or(1);
        if !(1..=beams).contains(&wanted) {
            let expected = format!("a number from 1 to num_beams = {beams}");
            return Err(Error::argument("num_return_sequences", expected, wanted));
        }
        if self.bad_words_ids.iter().any(Vec::is_empty) {
            return Err(Error::argument("bad_words_ids", "runs of at least one token", "an empty one"));
        }
        if self.sequence_bias.iter().any(|(ids, bias)| ids.is_empty() || bias.is_nan()) {
            return Err(Error::argument("sequence_bias", "runs of at least one token, each with a number", "another"));
        }
        if self.stop_strings.iter().any(String::is_empty) {
            return Err(Error::argument("stop", "a text of at least one character", "an empty one"));
        }
        Ok(())
    }
}
