//! Settings of text generation.

use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::generation::constraint::TokenMask;
use crate::generation::processor::LogitsProcessor;
use crate::generation::stopping::Cancel;

/// Default maximum number of beams.
const MAX_BEAMS: usize = 128;

/// Settings of text generation, with the names and meaning of Hugging Face's
/// `generation_config.json`.
///
/// `None` and an empty list mean "not set": then the value of the model's folder applies
/// ([`with_defaults`](GenerationConfig::with_defaults)), then the default given for each field.
///
/// *Sampling or not.* [`greedy`](Self::greedy()) and a temperature of 0 take the most probable
/// token, [`sample`](Self::sample()) draws. A temperature above 0, `top_k`, `top_p`, `min_p`,
/// `typical_p`, a cut-off or Mirostat implies sampling, whatever the folder says. If none of these
/// is set, the folder's `do_sample` applies; without it, tokens are sampled, or searched for if
/// there are several beams. Contradictory settings in one configuration are an error, as are
/// settings of beam search without beams; in a file they are allowed, and `do_sample` decides.
///
/// ```
/// use loquat::GenerationConfig;
///
/// let config = GenerationConfig::default().max_new_tokens(64).temperature(0.8).top_p(0.9).seed(7);
/// assert!(config.check().is_ok());
/// assert!(config.temperature(-1.0).check().is_err());
/// ```
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct GenerationConfig {
    /// Maximum number of tokens to generate. Default: 128.
    pub max_new_tokens: Option<usize>,
    /// Maximum number of tokens, prompt included. Ignored if `max_new_tokens` is set.
    pub max_length: Option<usize>,
    /// Minimum number of generated tokens before an end token is allowed. Default: 0.
    pub min_new_tokens: Option<usize>,
    /// Minimum number of tokens, prompt included, before an end token is allowed. Default: 0.
    pub min_length: Option<usize>,
    /// Whether to sample; otherwise the most probable token is taken. Default: as implied by the
    /// other settings (see above), otherwise true without beams.
    pub do_sample: Option<bool>,
    /// Divides the logits; values below 1 sharpen the distribution. At least 0; 0 takes the most
    /// probable token. Default: 1.
    pub temperature: Option<f32>,
    /// Samples from this number of most probable tokens only; 0 means all. Default: 0.
    pub top_k: Option<usize>,
    /// Samples from the most probable tokens whose probabilities sum to at least this; in (0, 1].
    /// Default: 1.
    pub top_p: Option<f32>,
    /// Samples from tokens at least this many times as probable as the most probable one; in
    /// [0, 1]. Default: 0.
    pub min_p: Option<f32>,
    /// Samples from the most typical tokens whose probabilities sum to at least this; in (0, 1].
    /// Default: 1.
    pub typical_p: Option<f32>,
    /// Samples from tokens of at least this probability; in [0, 1). Default: 0.
    pub epsilon_cutoff: Option<f32>,
    /// Same as `epsilon_cutoff`, with a lower threshold for flat distributions; in [0, 1).
    /// Default: 0.
    pub eta_cutoff: Option<f32>,
    /// Keeps the surprise of sampled tokens close to a target. Default: off.
    pub mirostat: Option<Mirostat>,
    /// Divides the logits of tokens in prompt and text (multiplies negative ones); above 0.
    /// Default: 1, no penalty.
    pub repetition_penalty: Option<f32>,
    /// Is subtracted from the logit of every token already generated. Default: 0.
    pub presence_penalty: Option<f32>,
    /// Is subtracted from the logit of a token once for each time that it was generated.
    /// Default: 0.
    pub frequency_penalty: Option<f32>,
    /// No n-gram of this many tokens occurs twice; 0 allows all. Default: 0.
    pub no_repeat_ngram_size: Option<usize>,
    /// Token sequences that are never generated.
    pub bad_words_ids: Vec<Vec<u32>>,
    /// Is added to the logit of the last token of a sequence if the tokens before it were just
    /// generated.
    pub sequence_bias: Vec<(Vec<u32>, f32)>,
    /// Tokens that are never generated.
    pub suppress_tokens: Vec<u32>,
    /// Tokens that are not generated as the first.
    pub begin_suppress_tokens: Vec<u32>,
    /// Token that follows a prompt of one token.
    pub forced_bos_token_id: Option<u32>,
    /// If `max_new_tokens` is reached, the last token is one of these.
    pub forced_eos_token_ids: Vec<u32>,
    /// Tokens forced at given positions, counted from 0 at the first token after the prompt.
    pub forced_tokens: Vec<(usize, u32)>,
    /// `(start, factor)`: after `start` generated tokens, raises the logits of end tokens by
    /// `factor` to the power of the number of tokens since.
    pub exponential_decay_length_penalty: Option<(usize, f32)>,
    /// Replaces NaN logits by 0 and infinite ones by finite ones. Default: false.
    pub remove_invalid_values: Option<bool>,
    /// Seed of the random numbers. Default: 0.
    pub seed: u64,
    /// Tokens that end the text; they are not returned.
    pub eos_token_ids: Vec<u32>,
    /// Strings that end the text; neither they nor the text after them is returned. Special tokens
    /// match by their spelling, too. An error in functions that return ids instead of text.
    pub stop_strings: Vec<String>,
    /// Ends the text after this time since the start.
    pub max_time: Option<Duration>,
    /// Ends the text at this instant.
    pub deadline: Option<Instant>,
    /// Ends the text from another thread.
    pub cancel: Option<Cancel>,
    /// What to do when the model's context is full. Default: [`Overflow::Slide`].
    pub overflow: Overflow,
    /// Records the log-probability of each token and of this number of most probable alternatives.
    /// Default: off.
    pub logprobs: Option<usize>,
    /// Number of beams; 1 means no beam search. See [`Hypothesis`](crate::generation::Hypothesis).
    /// Default: 1.
    pub num_beams: Option<usize>,
    /// Maximum of [`num_beams`](Self::num_beams), since each beam costs a row of logits and a share
    /// of the cache. Cannot be set by a file. Default: 128.
    pub max_beams: Option<usize>,
    /// Number of groups that the beams form, a divisor of `num_beams`. Default: 1.
    pub num_beam_groups: Option<usize>,
    /// Is subtracted from the log-probability of a token for each time that an earlier group chose
    /// it in the same step. Default: 0.
    pub diversity_penalty: Option<f32>,
    /// Exponent of the length by which the score of a text is divided; values above 0 favour longer
    /// texts. Default: 1.
    pub length_penalty: Option<f32>,
    /// When beam search stops. Default: [`EarlyStopping::False`].
    pub early_stopping: Option<EarlyStopping>,
    /// Number of texts that beam search returns. Default: 1.
    pub num_return_sequences: Option<usize>,
    /// Number of tokens to propose from the text itself for speculative decoding; see
    /// [`speculate`](crate::generation::speculate). The generated text stays the same.
    /// Default: off.
    pub prompt_lookup_num_tokens: Option<usize>,
    /// Number of tokens that the draft model of [`speculate`](crate::generation::speculate)
    /// proposes at a time. Default: 5.
    pub num_assistant_tokens: Option<usize>,
    /// User-defined processors. They run after the penalties and before temperature and cut-offs,
    /// as in `transformers`.
    pub processors: Vec<Box<dyn LogitsProcessor>>,
    /// Restricts the tokens that may come next.
    pub constraint: Option<Box<dyn TokenMask>>,
    /// Whether the settings come from a file, where settings without effect are allowed.
    pub(crate) from_file: bool,
    /// Whether [`greedy`](Self::greedy()) and [`sample`](Self::sample()) were called.
    pub(crate) sampling_calls: SamplingCalls,
}

/// The caller's explicit choice between greedy decoding and sampling.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct SamplingCalls {
    greedy: bool,
    sample: bool,
}

/// What to do when the model's context is full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Overflow {
    /// Continue with the last half of the context, which the model reads again.
    #[default]
    Slide,
    /// End the text.
    Stop,
}

/// When beam search stops after it has found as many finished texts as it has beams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EarlyStopping {
    /// Immediately.
    True,
    /// When the best beam, at its current length, would not be better than the worst text found.
    #[default]
    False,
    /// When no beam can become better than the worst text found. With a `length_penalty` above 0,
    /// this considers the maximum length.
    Never,
}

/// Settings of Mirostat 2, which keeps the surprise `-log2 p` of sampled tokens close to a target:
/// tokens more surprising than `μ` bits are cut off, and `μ` is corrected after each token.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mirostat {
    /// Target surprise in bits; above 0. llama.cpp's default is 5.
    pub tau: f32,
    /// Learning rate of the correction; above 0. llama.cpp's default is 0.1.
    pub eta: f32,
}

/// Setters that take the value itself.
macro_rules! setters {
    ($($(#[$doc:meta])* $name:ident: $type:ty;)*) => {$(
        $(#[$doc])*
        pub fn $name(mut self, $name: $type) -> Self {
            self.$name = Some($name);
            self
        }
    )*};
}

/// Setters that imply sampling, overriding a file's `do_sample`.
macro_rules! sampling_setters {
    ($($(#[$doc:meta])* $name:ident: $type:ty;)*) => {$(
        $(#[$doc])*
        pub fn $name(mut self, $name: $type) -> Self {
            self.$name = Some($name);
            self.override_file()
        }
    )*};
}

impl GenerationConfig {
    setters! {
        /// Sets the maximum number of tokens to generate.
        max_new_tokens: usize;
        /// Sets the minimum number of generated tokens before an end token is allowed.
        min_new_tokens: usize;
        /// Sets the factor by which logits of tokens in prompt and text are divided (negative ones
        /// multiplied); above 0.
        repetition_penalty: f32;
        /// Sets what is subtracted from the logit of every token already generated.
        presence_penalty: f32;
        /// Sets what is subtracted from the logit of a token for each time that it was generated.
        frequency_penalty: f32;
        /// Forbids n-grams of this many tokens to occur twice; 0 allows all.
        no_repeat_ngram_size: usize;
        /// Sets the number of beams.
        num_beams: usize;
        /// Sets the maximum number of beams.
        max_beams: usize;
        /// Sets the number of beam groups, a divisor of `num_beams`.
        num_beam_groups: usize;
        /// Sets what is subtracted from a token's log-probability for each time that an earlier
        /// group chose it in the same step.
        diversity_penalty: f32;
        /// Sets the exponent of the length by which the score of a text is divided.
        length_penalty: f32;
        /// Sets when beam search stops.
        early_stopping: EarlyStopping;
        /// Sets the number of texts that beam search returns.
        num_return_sequences: usize;
        /// Sets the number of tokens to propose from the text itself.
        prompt_lookup_num_tokens: usize;
        /// Sets the number of tokens that a draft model proposes at a time.
        num_assistant_tokens: usize;
        /// Ends the text after this time since the start.
        max_time: Duration;
        /// Ends the text at this instant.
        deadline: Instant;
        /// Records the log-probability of each token and of this number of most probable
        /// alternatives.
        logprobs: usize;
    }

    sampling_setters! {
        /// Sets the temperature and samples; 0 takes the most probable token.
        temperature: f32;
        /// Samples from the `top_k` most probable tokens; 0 means all.
        top_k: usize;
        /// Samples from the most probable tokens whose probabilities sum to `top_p`, in (0, 1].
        top_p: f32;
        /// Samples from tokens at least `min_p` times as probable as the most probable one; in
        /// [0, 1].
        min_p: f32;
        /// Samples from the most typical tokens whose probabilities sum to `typical_p`, in (0, 1].
        typical_p: f32;
        /// Samples from tokens of at least this probability; in [0, 1).
        epsilon_cutoff: f32;
        /// Same as [`epsilon_cutoff`](Self::epsilon_cutoff), with a lower threshold for flat
        /// distributions; in [0, 1).
        eta_cutoff: f32;
    }

    /// Takes the most probable token instead of sampling, whatever the model's folder says.
    pub fn greedy(mut self) -> Self {
        self.do_sample = Some(false);
        self.sampling_calls.greedy = true;
        self
    }

    /// Samples, whatever the model's folder says.
    pub fn sample(mut self) -> Self {
        self.do_sample = Some(true);
        self.sampling_calls.sample = true;
        self
    }

    /// Keeps the surprise of sampled tokens close to `tau` bits, with learning rate `eta`.
    pub fn mirostat(mut self, tau: f32, eta: f32) -> Self {
        self.mirostat = Some(Mirostat { tau, eta });
        self.override_file()
    }

    /// Makes a caller's additions to a file's settings override its `do_sample`.
    fn override_file(mut self) -> Self {
        if self.from_file {
            self.do_sample = Some(self.temperature != Some(0.0));
        }
        self
    }

    /// Adds a token sequence that is never generated.
    pub fn bad_words(mut self, ids: impl Into<Vec<u32>>) -> Self {
        self.bad_words_ids.push(ids.into());
        self
    }

    /// Adds `bias` to the logit of a token.
    pub fn logit_bias(self, id: u32, bias: f32) -> Self {
        self.sequence_bias([id], bias)
    }

    /// Adds `bias` to the logit of the last of `ids` if the others were just generated.
    pub fn sequence_bias(mut self, ids: impl Into<Vec<u32>>, bias: f32) -> Self {
        self.sequence_bias.push((ids.into(), bias));
        self
    }

    /// Adds a token that is never generated.
    pub fn suppress_token(mut self, id: u32) -> Self {
        self.suppress_tokens.push(id);
        self
    }

    /// Forces a token at a position, counted from 0 at the first token after the prompt.
    pub fn forced_token(mut self, place: usize, id: u32) -> Self {
        self.forced_tokens.push((place, id));
        self
    }

    /// Sets the seed of the random numbers. Default: 0.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Adds a token that ends the text.
    pub fn eos_token_id(mut self, id: u32) -> Self {
        self.eos_token_ids.push(id);
        self
    }

    /// Adds a string that ends the text.
    pub fn stop(mut self, text: impl Into<String>) -> Self {
        self.stop_strings.push(text.into());
        self
    }

    /// Allows `cancel` to end the text from another thread.
    pub fn cancel(mut self, cancel: &Cancel) -> Self {
        self.cancel = Some(cancel.clone());
        self
    }

    /// Sets what happens when the context is full. Default: [`Overflow::Slide`].
    pub fn overflow(mut self, overflow: Overflow) -> Self {
        self.overflow = overflow;
        self
    }

    /// Adds a user-defined processor.
    pub fn processor(mut self, processor: impl LogitsProcessor + 'static) -> Self {
        self.processors.push(Box::new(processor));
        self
    }

    /// Constrains the text to the tokens that `constraint` allows.
    pub fn constraint(mut self, constraint: impl TokenMask + 'static) -> Self {
        self.constraint = Some(Box::new(constraint));
        self
    }

    /// The same settings for functions that return ids: without stop strings, which the text stream
    /// handles.
    #[cfg(feature = "tokenizers")]
    pub(crate) fn for_ids(&self) -> Self {
        Self { stop_strings: Vec::new(), ..self.clone() }
    }

    /// Whether tokens are sampled.
    pub(crate) fn samples(&self) -> bool {
        self.sampling_choice().unwrap_or(self.beams() == 1)
    }

    /// Whether the settings choose sampling or greedy decoding, and which.
    fn sampling_choice(&self) -> Option<bool> {
        if self.temperature == Some(0.0) {
            return Some(false);
        }
        let sampling = !self.from_file
            && (self.temperature.is_some()
                || self.top_k.is_some()
                || self.top_p.is_some()
                || self.min_p.is_some()
                || self.typical_p.is_some()
                || self.epsilon_cutoff.is_some()
                || self.eta_cutoff.is_some()
                || self.mirostat.is_some());
        self.do_sample.or(sampling.then_some(true))
    }

    /// The first setting that only affects sampling.
    fn sampling_setting(&self) -> Option<(&'static str, String)> {
        let changed =
            |name, value: Option<f32>, neutral: f32| Some((name, value.filter(|&x| x != neutral)?.to_string()));
        changed("temperature", self.temperature, 0.0)
            .or_else(|| Some(("top_k", self.top_k.filter(|&k| k > 0)?.to_string())))
            .or_else(|| changed("top_p", self.top_p, 1.0))
            .or_else(|| changed("min_p", self.min_p, 0.0))
            .or_else(|| changed("typical_p", self.typical_p, 1.0))
            .or_else(|| changed("epsilon_cutoff", self.epsilon_cutoff, 0.0))
            .or_else(|| changed("eta_cutoff", self.eta_cutoff, 0.0))
            .or_else(|| Some(("mirostat", self.mirostat?.tau.to_string())))
    }

    /// The first setting that only affects beam search.
    fn search_setting(&self) -> Option<(&'static str, String)> {
        let length = self.length_penalty.filter(|&power| power != 1.0).map(|power| power.to_string());
        let early =
            self.early_stopping.filter(|early| *early != EarlyStopping::False).map(|early| format!("{early:?}"));
        let diverse = self.diversity_penalty.filter(|&penalty| penalty != 0.0).map(|penalty| penalty.to_string());
        length
            .map(|power| ("length_penalty", power))
            .or(early.map(|early| ("early_stopping", early)))
            .or(diverse.map(|penalty| ("diversity_penalty", penalty)))
    }

    /// Number of beams.
    pub(crate) fn beams(&self) -> usize {
        self.num_beams.unwrap_or(1)
    }

    /// Number of beam groups.
    pub(crate) fn beam_groups(&self) -> usize {
        self.num_beam_groups.unwrap_or(1)
    }

    /// When beam search stops.
    pub(crate) fn stops_early(&self) -> EarlyStopping {
        self.early_stopping.unwrap_or_default()
    }

    /// Minimum number of tokens that cut-offs keep: with beams, enough unfinished ones even if all
    /// end tokens are kept.
    pub(crate) fn min_tokens_to_keep(&self) -> usize {
        if self.beams() > 1 { 2.max(1 + self.eos_token_ids.len()) } else { 1 }
    }

    /// Maximum number of new tokens after a prompt of `prompt_len`.
    pub(crate) fn new_tokens_limit(&self, prompt_len: usize) -> usize {
        let by_length = || self.max_length.map(|length| length.saturating_sub(prompt_len));
        self.max_new_tokens.or_else(by_length).unwrap_or(128)
    }

    /// Completes the settings with `defaults`, for example those of a model's folder. Sampling
    /// settings are completed if tokens are sampled, settings of beam search if there are several
    /// beams.
    ///
    /// Seed, overflow, log-probabilities, time limits and everything that a file cannot set stay
    /// unchanged.
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
        self.do_sample = self.sampling_choice().or(defaults.sampling_choice());
        // The numbers of groups and returned texts belong to the number of beams.
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

    /// Checks that every setting is in its range and has an effect.
    ///
    /// # Errors
    /// [`Error::Argument`] for the first setting that is out of range, or that another one leaves
    /// without effect.
    pub fn check(&self) -> Result<()> {
        self.check_ranges()?;
        let (beams, limit) = (self.beams(), self.max_beams.unwrap_or(MAX_BEAMS));
        if beams > limit {
            let expected = format!("at most {limit} (raise `max_beams` if memory allows)");
            return Err(Error::argument("num_beams", expected, beams));
        }
        if self.sampling_calls.greedy && self.sampling_calls.sample {
            return Err(Error::argument("do_sample", "either `greedy()` or `sample()`", "both"));
        }
        if self.from_file {
            return Ok(());
        }
        if let (false, Some((name, found))) = (self.samples(), self.sampling_setting()) {
            let how = if self.temperature == Some(0.0) { "a temperature of 0" } else { "greedy decoding" };
            return Err(Error::argument(name, format!("no value with {how}, which does not sample"), found));
        }
        if self.temperature == Some(0.0) && self.do_sample == Some(true) {
            return Err(Error::argument("temperature", "a number above 0 for sampling", 0));
        }
        if let (1, Some((name, found))) = (beams, self.search_setting()) {
            return Err(Error::argument(name, "no value without beam search (`num_beams`)", found));
        }
        if let (1, Some(penalty)) = (self.beam_groups(), self.diversity_penalty.filter(|&penalty| penalty != 0.0)) {
            return Err(Error::argument("diversity_penalty", "0 without `num_beam_groups`", penalty));
        }
        if let (2.., Some(count)) = (beams, self.prompt_lookup_num_tokens.filter(|&count| count > 0)) {
            return Err(Error::argument("prompt_lookup_num_tokens", "no value with beam search", count));
        }
        Ok(())
    }

    /// Checks that every setting is in its range.
    pub(crate) fn check_ranges(&self) -> Result<()> {
        let positive = |x: f32| x > 0.0 && x.is_finite();
        let range = |name: &str, value: Option<f32>, expected: &str, fits: &dyn Fn(f32) -> bool| match value {
            Some(value) if !fits(value) => Err(Error::argument(name, expected, value)),
            _ => Ok(()),
        };
        range("temperature", self.temperature, "a number of at least 0", &|x| x >= 0.0 && x.is_finite())?;
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
        range("diversity_penalty", self.diversity_penalty, "a number of at least 0", &|x| x >= 0.0 && x.is_finite())?;
        range("length_penalty", self.length_penalty, "a finite number", &f32::is_finite)?;
        let (beams, groups) = (self.beams(), self.beam_groups());
        if !(1..1 << 16).contains(&beams) {
            return Err(Error::argument("num_beams", "a number from 1 to 65535", beams));
        }
        if groups == 0 || beams % groups != 0 {
            return Err(Error::argument("num_beam_groups", format!("a divisor of num_beams = {beams}"), groups));
        }
        if groups > 1 && self.samples() {
            return Err(Error::argument("num_beam_groups", "1 for sampling", groups));
        }
        let wanted = self.num_return_sequences.unwrap_or(1);
        if !(1..=beams).contains(&wanted) {
            let expected = format!("a number from 1 to num_beams = {beams}");
            return Err(Error::argument("num_return_sequences", expected, wanted));
        }
        if self.bad_words_ids.iter().any(Vec::is_empty) {
            return Err(Error::argument("bad_words_ids", "sequences of at least one token", "an empty one"));
        }
        if self.sequence_bias.iter().any(|(ids, bias)| ids.is_empty() || bias.is_nan()) {
            return Err(Error::argument(
                "sequence_bias",
                "sequences of at least one token with a bias that is not NaN",
                "another value",
            ));
        }
        if self.stop_strings.iter().any(String::is_empty) {
            return Err(Error::argument("stop", "a string of at least one character", "an empty one"));
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
        let config = GenerationConfig::default;
        let greedy = file(json!({"do_sample": false, "temperature": 0.6, "top_p": 0.9}));
        let sampling = file(json!({"do_sample": true, "temperature": 0.6, "top_k": 5}));
        let (cold, beams) = (file(json!({"temperature": 0.0})), file(json!({"num_beams": 3, "temperature": 0.6})));
        for (asked, samples) in [
            (config(), [false, true, false, false]),
            (config().seed(2), [false, true, false, false]),
            (config().temperature(0.8), [true; 4]),
            (config().temperature(0.0), [false; 4]),
            (config().greedy(), [false; 4]),
            (config().sample(), [true; 4]),
            (config().top_k(3), [true; 4]),
            (config().top_p(0.5), [true; 4]),
            (config().min_p(0.1), [true; 4]),
            (config().typical_p(0.5), [true; 4]),
            (config().epsilon_cutoff(0.1), [true; 4]),
            (config().eta_cutoff(0.1), [true; 4]),
            (config().mirostat(5.0, 0.1), [true; 4]),
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
        assert!(
            config().samples() && config().temperature(1.5).num_beams(2).samples() && !config().num_beams(2).samples()
        );
        // A file's settings with additions by a caller.
        assert!(greedy.clone().temperature(0.8).samples() && !sampling.clone().temperature(0.0).samples());
        assert!(greedy.check().is_ok() && sampling.clone().greedy().check().is_ok() && !sampling.greedy().samples());
        assert_eq!(config().sample().with_defaults(&greedy).temperature, Some(0.6));
    }

    #[test]
    fn settings_without_effect_are_errors() {
        let config = GenerationConfig::default;
        for (config, name) in [
            (config().greedy().temperature(0.8), "temperature"),
            (config().greedy().temperature(1.0), "temperature"),
            (config().top_p(0.9).greedy(), "top_p"),
            (config().temperature(0.0).top_k(4), "top_k"),
            (config().temperature(0.0).sample(), "temperature"),
            (config().greedy().mirostat(5.0, 0.1), "mirostat"),
            (config().greedy().sample(), "do_sample"),
            (config().sample().greedy().seed(3), "do_sample"),
            (config().sample().greedy().with_defaults(&file(serde_json::json!({"do_sample": true}))), "do_sample"),
            (file(serde_json::json!({"do_sample": true})).greedy().sample(), "do_sample"),
            (config().length_penalty(2.0), "length_penalty"),
            (config().early_stopping(EarlyStopping::True), "early_stopping"),
            (config().diversity_penalty(1.0), "diversity_penalty"),
            (config().num_beams(4).diversity_penalty(1.0), "diversity_penalty"),
            (config().num_beams(4).prompt_lookup_num_tokens(2), "prompt_lookup_num_tokens"),
        ] {
            let error = config.check().unwrap_err().to_string();
            assert!(error.starts_with(name), "{error}");
        }
        let neutral = config().greedy().temperature(0.0).top_p(1.0).top_k(0).min_p(0.0).typical_p(1.0);
        assert!(neutral.length_penalty(1.0).num_beam_groups(1).check().is_ok());
        let from_file = file(serde_json::json!({"do_sample": false, "temperature": 0.6, "length_penalty": 2.0}));
        assert!(from_file.check().is_ok() && config().with_defaults(&from_file).check().is_ok());
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
