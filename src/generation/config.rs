//! How to continue a prompt.

use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::generation::constraint::TokenMask;
use crate::generation::processor::LogitsProcessor;
use crate::generation::stopping::Cancel;

/// The most beams, if nobody says otherwise.
const MAX_BEAMS: usize = 128;

/// Settings of a generation, with the names and meaning of Hugging Face's `generation_config.json`.
///
/// `None` and an empty list mean "not said": then what a model's folder says holds
/// ([`with_defaults`](GenerationConfig::with_defaults)), and if that says nothing either, the default in each field's words.
///
/// *Whether tokens are drawn.* [`greedy`](Self::greedy()) and a temperature of 0 take the likeliest token, [`sample`](Self::sample()) draws;
/// a temperature above 0, `top_k`, `top_p`, `min_p`, `typical_p`, a cut-off or Mirostat draws too,
/// whatever the folder says. If nothing of this is said, the folder's `do_sample` holds; without it
/// tokens are drawn, but with beams the likeliest text is searched for. To say both in one
/// configuration is an error, as is a setting of a search without beams. Only in a file may they
/// stand together: there `do_sample` decides.
///
/// ```
/// let config = loquat::GenerationConfig::default().max_new_tokens(64).temperature(0.8).top_p(0.9).seed(7);
/// assert!(config.check().is_ok());
/// assert!(config.temperature(-1.0).check().is_err());
/// ```
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct GenerationConfig {
    /// The largest number of tokens to write. Default: 128.
    pub max_new_tokens: Option<usize>,
    /// The largest number of tokens, the prompt's included; without effect beside `max_new_tokens`.
    pub max_length: Option<usize>,
    /// No end token before so many were written; 0.
    pub min_new_tokens: Option<usize>,
    /// No end token before there are so many, the prompt's included; 0.
    pub min_length: Option<usize>,
    /// Whether to draw from the distribution; otherwise the likeliest token is taken. Default: as
    /// the other settings imply (above), and if they imply nothing, true without beams.
    pub do_sample: Option<bool>,
    /// Logits are divided by it; below 1 sharpens the distribution. From 0 on; 0 takes the
    /// likeliest token. Default: 1.
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
    /// Texts that end the text; neither they nor what follows is given out. Special tokens count as
    /// they are spelled, too. An error where ids are written, not text.
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
    /// How many texts a search continues at once; 1 is no search. See
    /// [`Hypothesis`](crate::generation::Hypothesis). Default: 1.
    pub num_beams: Option<usize>,
    /// The largest [`num_beams`](Self::num_beams) that is an answer and no error: each beam costs a
    /// row of logits and a share of the model's memory. A file does not set it. Default: 128.
    pub max_beams: Option<usize>,
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
    /// [`speculate`](crate::generation::speculate): what is written is the same.
    pub prompt_lookup_num_tokens: Option<usize>,
    /// How many next tokens the smaller model of [`speculate`](crate::generation::speculate) guesses at once; 5.
    pub num_assistant_tokens: Option<usize>,
    /// Processors of one's own: after the penalties, before temperature and cut-offs, as in `transformers`.
    pub processors: Vec<Box<dyn LogitsProcessor>>,
    /// Says which tokens may come next.
    pub constraint: Option<Box<dyn TokenMask>>,
    /// Whether a file says this: there settings may stand beside others that leave them without
    /// effect.
    pub(crate) of_file: bool,
    /// Whether [`greedy`](Self::greedy()) and [`sample`](Self::sample()) were asked for.
    pub(crate) said: Said,
}

/// What a caller said of drawing.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Said {
    greedy: bool,
    sample: bool,
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

/// Settings of Mirostat 2, which keeps the surprise `-log2 p` of what is drawn near a target: tokens more surprising than
/// `μ` bits are cut off, and after each token `μ` moves against the error.
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

/// Setters of options that mean drawing, against what a file says too.
macro_rules! drawing_setters {
    ($($(#[$doc:meta])* $name:ident: $type:ty;)*) => {$(
        $(#[$doc])*
        pub fn $name(mut self, $name: $type) -> Self {
            self.$name = Some($name);
            self.drawn_against_a_file()
        }
    )*};
}

impl GenerationConfig {
    setters! {
        /// Sets the largest number of tokens to write.
        max_new_tokens: usize;
        /// Allows no end token before so many were written.
        min_new_tokens: usize;
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
        /// Allows so many beams.
        max_beams: usize;
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

    drawing_setters! {
        /// Sets the temperature and draws; 0 takes the likeliest token.
        temperature: f32;
        /// Draws from the `top_k` likeliest tokens; 0 means all.
        top_k: usize;
        /// Draws from the likeliest tokens that together have probability `top_p`, in `(0, 1]`.
        top_p: f32;
        /// Draws from the tokens at least `min_p` times as likely as the likeliest; in `[0, 1]`.
        min_p: f32;
        /// Draws from the most typical tokens that together have probability `typical_p`, in
        /// `(0, 1]`.
        typical_p: f32;
        /// Draws from the tokens of at least this probability; in `[0, 1)`.
        epsilon_cutoff: f32;
        /// As [`epsilon_cutoff`](Self::epsilon_cutoff), lower where the distribution is flat; in
        /// `[0, 1)`.
        eta_cutoff: f32;
    }

    /// Takes the likeliest token instead of drawing, whatever the model's folder says.
    pub fn greedy(mut self) -> Self {
        self.do_sample = Some(false);
        self.said.greedy = true;
        self
    }

    /// Draws from the distribution, whatever the model's folder says.
    pub fn sample(mut self) -> Self {
        self.do_sample = Some(true);
        self.said.sample = true;
        self
    }

    /// Keeps the surprise of what is drawn near `tau` bits, correcting by `eta` of the difference.
    pub fn mirostat(mut self, tau: f32, eta: f32) -> Self {
        self.mirostat = Some(Mirostat { tau, eta });
        self.drawn_against_a_file()
    }

    /// Lets what a caller adds to a file's settings win over its `do_sample`.
    fn drawn_against_a_file(mut self) -> Self {
        if self.of_file {
            self.do_sample = Some(self.temperature != Some(0.0));
        }
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

    /// The same for what writes ids: stop strings are the text's.
    #[cfg(feature = "tokenizers")]
    pub(crate) fn of_ids(&self) -> Self {
        Self { stop_strings: Vec::new(), ..self.clone() }
    }

    /// Whether tokens are drawn.
    pub(crate) fn samples(&self) -> bool {
        self.says_to_sample().unwrap_or(self.beams() == 1)
    }

    /// Whether tokens are to be drawn, if the settings say it.
    fn says_to_sample(&self) -> Option<bool> {
        if self.temperature == Some(0.0) {
            return Some(false);
        }
        let drawing = !self.of_file
            && (self.temperature.is_some()
                || self.top_k.is_some()
                || self.top_p.is_some()
                || self.min_p.is_some()
                || self.typical_p.is_some()
                || self.epsilon_cutoff.is_some()
                || self.eta_cutoff.is_some()
                || self.mirostat.is_some());
        self.do_sample.or(drawing.then_some(true))
    }

    /// The first setting that changes how a token is drawn.
    fn drawing(&self) -> Option<(&'static str, String)> {
        let said = |name, value: Option<f32>, neutral: f32| Some((name, value.filter(|&x| x != neutral)?.to_string()));
        said("temperature", self.temperature, 0.0)
            .or_else(|| Some(("top_k", self.top_k.filter(|&k| k > 0)?.to_string())))
            .or_else(|| said("top_p", self.top_p, 1.0))
            .or_else(|| said("min_p", self.min_p, 0.0))
            .or_else(|| said("typical_p", self.typical_p, 1.0))
            .or_else(|| said("epsilon_cutoff", self.epsilon_cutoff, 0.0))
            .or_else(|| said("eta_cutoff", self.eta_cutoff, 0.0))
            .or_else(|| Some(("mirostat", self.mirostat?.tau.to_string())))
    }

    /// The first setting that changes a search and nothing else.
    fn searching(&self) -> Option<(&'static str, String)> {
        let length = self.length_penalty.filter(|&power| power != 1.0).map(|power| power.to_string());
        let early =
            self.early_stopping.filter(|early| *early != EarlyStopping::False).map(|early| format!("{early:?}"));
        let diverse = self.diversity_penalty.filter(|&penalty| penalty != 0.0).map(|penalty| penalty.to_string());
        length
            .map(|power| ("length_penalty", power))
            .or(early.map(|early| ("early_stopping", early)))
            .or(diverse.map(|penalty| ("diversity_penalty", penalty)))
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

    /// What is not said here, as `defaults` says it: what a model's folder prescribes, under what a
    /// caller asks for. Settings of drawing are filled in if tokens are drawn, those of a search if
    /// there are beams.
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
        self.do_sample = self.says_to_sample().or(defaults.says_to_sample());
        // How many groups and texts there are goes with the number of beams.
        if self.num_beams.is_none() && defaults.beams() > 1 {
            options! { num_beam_groups num_return_sequences }
        }
        options! { num_beams max_beams }
        if self.samples() && self.temperature != Some(0.0) {
            let temperature = defaults.temperature.filter(|&temperature| temperature != 0.0);
            self.temperature = self.temperature.or(temperature);
            options! { top_k top_p min_p typical_p epsilon_cutoff eta_cutoff mirostat }
        }
        if self.beams() > 1 {
            options! { length_penalty early_stopping }
            if self.beam_groups() > 1 {
                options! { diversity_penalty }
            }
        }
        options! {
            min_new_tokens min_length repetition_penalty presence_penalty frequency_penalty no_repeat_ngram_size
            forced_bos_token_id exponential_decay_length_penalty remove_invalid_values max_time
        }
        lists! {
            bad_words_ids sequence_bias suppress_tokens begin_suppress_tokens forced_eos_token_ids forced_tokens
            eos_token_ids stop_strings
        }
        self
    }

    /// Makes sure that every setting is within its range and has an effect.
    ///
    /// # Errors
    /// [`Error::Argument`] with the first that is out of range, or that another leaves without
    /// effect.
    pub fn check(&self) -> Result<()> {
        self.check_ranges()?;
        let (beams, limit) = (self.beams(), self.max_beams.unwrap_or(MAX_BEAMS));
        if beams > limit {
            let expected = format!("at most {limit} (raise `max_beams` if the memory is there)");
            return Err(Error::argument("num_beams", expected, beams));
        }
        if self.said.greedy && self.said.sample {
            return Err(Error::argument("do_sample", "`greedy()` or `sample()`", "both"));
        }
        if self.of_file {
            return Ok(());
        }
        if let (false, Some((name, found))) = (self.samples(), self.drawing()) {
            let how = if self.temperature == Some(0.0) { "a temperature of 0" } else { "greedy decoding" };
            return Err(Error::argument(name, format!("nothing beside {how}, which draws no token"), found));
        }
        if self.temperature == Some(0.0) && self.do_sample == Some(true) {
            return Err(Error::argument("temperature", "a number above 0 where tokens are to be drawn", 0));
        }
        if let (1, Some((name, found))) = (beams, self.searching()) {
            return Err(Error::argument(name, "nothing without a search of several beams (`num_beams`)", found));
        }
        if let (1, Some(penalty)) = (self.beam_groups(), self.diversity_penalty.filter(|&penalty| penalty != 0.0)) {
            return Err(Error::argument("diversity_penalty", "0 without `num_beam_groups`", penalty));
        }
        if let (2.., Some(count)) = (beams, self.prompt_lookup_num_tokens.filter(|&count| count > 0)) {
            return Err(Error::argument("prompt_lookup_num_tokens", "nothing beside a search of several beams", count));
        }
        Ok(())
    }

    /// Makes sure that every setting is within its range.
    pub(crate) fn check_ranges(&self) -> Result<()> {
        let positive = |x: f32| x > 0.0 && x.is_finite();
        let range = |name: &str, value: Option<f32>, expected: &str, fits: &dyn Fn(f32) -> bool| match value {
            Some(value) if !fits(value) => Err(Error::argument(name, expected, value)),
            _ => Ok(()),
        };
        range("temperature", self.temperature, "a number from 0 on", &|x| x >= 0.0 && x.is_finite())?;
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

#[cfg(test)]
mod tests {
    use super::*;

    fn file(json: serde_json::Value) -> GenerationConfig {
        GenerationConfig::from_json(&json).unwrap()
    }

    #[test]
    fn what_the_caller_says_of_drawing_wins_over_the_folder() {
        use serde_json::json;
        let said = GenerationConfig::default;
        let greedy = file(json!({"do_sample": false, "temperature": 0.6, "top_p": 0.9}));
        let sampling = file(json!({"do_sample": true, "temperature": 0.6, "top_k": 5}));
        let (cold, beams) = (file(json!({"temperature": 0.0})), file(json!({"num_beams": 3, "temperature": 0.6})));
        for (asked, samples) in [
            (said(), [false, true, false, false]),
            (said().seed(2), [false, true, false, false]),
            (said().temperature(0.8), [true; 4]),
            (said().temperature(0.0), [false; 4]),
            (said().greedy(), [false; 4]),
            (said().sample(), [true; 4]),
            (said().top_k(3), [true; 4]),
            (said().top_p(0.5), [true; 4]),
            (said().min_p(0.1), [true; 4]),
            (said().typical_p(0.5), [true; 4]),
            (said().epsilon_cutoff(0.1), [true; 4]),
            (said().eta_cutoff(0.1), [true; 4]),
            (said().mirostat(5.0, 0.1), [true; 4]),
        ] {
            for (folder, samples) in [&greedy, &sampling, &cold, &beams].into_iter().zip(samples) {
                let merged = asked.clone().with_defaults(folder);
                merged.check().unwrap();
                assert_eq!(merged.samples(), samples, "{asked:?} over {folder:?}");
                let settings =
                    [merged.temperature.is_some_and(|t| t != 0.0), merged.top_k.is_some(), merged.top_p.is_some()];
                assert!(samples || settings == [false; 3], "what has no effect is left out");
            }
        }
        assert!(said().samples() && said().temperature(1.5).num_beams(2).samples() && !said().num_beams(2).samples());
        // A file's settings that a caller goes on with.
        assert!(greedy.clone().temperature(0.8).samples() && !sampling.clone().temperature(0.0).samples());
        assert!(greedy.check().is_ok() && sampling.clone().greedy().check().is_ok() && !sampling.greedy().samples());
        assert_eq!(said().sample().with_defaults(&greedy).temperature, Some(0.6));
    }

    #[test]
    fn settings_without_effect_are_errors() {
        let said = GenerationConfig::default;
        for (config, name) in [
            (said().greedy().temperature(0.8), "temperature"),
            (said().greedy().temperature(1.0), "temperature"),
            (said().top_p(0.9).greedy(), "top_p"),
            (said().temperature(0.0).top_k(4), "top_k"),
            (said().temperature(0.0).sample(), "temperature"),
            (said().greedy().mirostat(5.0, 0.1), "mirostat"),
            (said().greedy().sample(), "do_sample"),
            (said().sample().greedy().seed(3), "do_sample"),
            (said().sample().greedy().with_defaults(&file(serde_json::json!({"do_sample": true}))), "do_sample"),
            (file(serde_json::json!({"do_sample": true})).greedy().sample(), "do_sample"),
            (said().length_penalty(2.0), "length_penalty"),
            (said().early_stopping(EarlyStopping::True), "early_stopping"),
            (said().diversity_penalty(1.0), "diversity_penalty"),
            (said().num_beams(4).diversity_penalty(1.0), "diversity_penalty"),
            (said().num_beams(4).prompt_lookup_num_tokens(2), "prompt_lookup_num_tokens"),
        ] {
            let error = config.check().unwrap_err().to_string();
            assert!(error.starts_with(name), "{error}");
        }
        let neutral = said().greedy().temperature(0.0).top_p(1.0).top_k(0).min_p(0.0).typical_p(1.0);
        assert!(neutral.length_penalty(1.0).num_beam_groups(1).check().is_ok());
        let of_file = file(serde_json::json!({"do_sample": false, "temperature": 0.6, "length_penalty": 2.0}));
        assert!(of_file.check().is_ok() && said().with_defaults(&of_file).check().is_ok());
    }

    #[test]
    fn beams_have_a_budget_that_the_caller_raises() {
        let folder = file(serde_json::json!({"num_beams": 65535}));
        let error = GenerationConfig::default().with_defaults(&folder).check().unwrap_err().to_string();
        assert!(error.contains("num_beams: expected at most 128"), "{error}");
        assert!(GenerationConfig::default().num_beams(2).with_defaults(&folder).check().is_ok());
        assert!(GenerationConfig::default().max_beams(65535).with_defaults(&folder).check().is_ok());
        assert!(GenerationConfig::default().num_beams(200).max_beams(200).check().is_ok());
        let groups = file(serde_json::json!({"num_beams": 6, "num_beam_groups": 3, "num_return_sequences": 5}));
        let fewer = GenerationConfig::default().num_beams(2).with_defaults(&groups);
        assert!(fewer.check().is_ok() && fewer.num_return_sequences.is_none());
        assert_eq!(GenerationConfig::default().with_defaults(&groups).num_return_sequences, Some(5));
    }
}
