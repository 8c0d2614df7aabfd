//! How to continue a prompt.

use crate::error::{Error, Result};

/// Settings of a generation, with the names of Hugging Face's `generation_config.json`.
///
/// ```
/// let config = loquat::GenerationConfig::default().max_new_tokens(64).temperature(0.8).top_p(0.9).seed(7);
/// assert!(config.check().is_ok());
/// assert!(config.temperature(-1.0).check().is_err());
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct GenerationConfig {
    /// The largest number of tokens to write.
    pub max_new_tokens: usize,
    /// Whether to draw from the distribution; otherwise the likeliest token is taken.
    pub do_sample: bool,
    /// Logits are divided by it; above 0. Below 1 sharpens the distribution.
    pub temperature: f32,
    /// Only this many likeliest tokens may be drawn; 0 means all.
    pub top_k: usize,
    /// Only the likeliest tokens that together have this probability may be drawn; in `(0, 1]`.
    pub top_p: f32,
    /// Keys the random numbers.
    pub seed: u64,
    /// Tokens that end the text; they are not given out.
    pub eos_token_ids: Vec<u32>,
    /// Texts that end the text; neither they nor what follows is given out.
    pub stop_strings: Vec<String>,
    /// What to do when the model's context is full.
    pub overflow: Overflow,
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

impl Default for GenerationConfig {
    /// 128 tokens, drawn from the model's own distribution with seed 0.
    fn default() -> Self {
        Self {
            max_new_tokens: 128,
            do_sample: true,
            temperature: 1.0,
            top_k: 0,
            top_p: 1.0,
            seed: 0,
            eos_token_ids: Vec::new(),
            stop_strings: Vec::new(),
            overflow: Overflow::default(),
        }
    }
}

impl GenerationConfig {
    /// Sets the largest number of tokens to write.
    pub fn max_new_tokens(mut self, max_new_tokens: usize) -> Self {
        self.max_new_tokens = max_new_tokens;
        self
    }

    /// Takes the likeliest token instead of drawing.
    pub fn greedy(mut self) -> Self {
        self.do_sample = false;
        self
    }

    /// Sets the temperature, above 0.
    pub fn temperature(mut self, temperature: f32) -> Self {
        self.temperature = temperature;
        self
    }

    /// Allows only the `top_k` likeliest tokens; 0 means all.
    pub fn top_k(mut self, top_k: usize) -> Self {
        self.top_k = top_k;
        self
    }

    /// Allows only the likeliest tokens that together have probability `top_p`, in `(0, 1]`.
    pub fn top_p(mut self, top_p: f32) -> Self {
        self.top_p = top_p;
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

    /// Sets what happens when the context is full.
    pub fn overflow(mut self, overflow: Overflow) -> Self {
        self.overflow = overflow;
        self
    }

    /// Makes sure that every setting is within its range.
    ///
    /// # Errors
    /// [`Error::Argument`] with the first that is not.
    pub fn check(&self) -> Result<()> {
        if !(self.temperature > 0.0 && self.temperature.is_finite()) {
            return Err(Error::argument(
                "temperature",
                "a number above 0 (use greedy for the likeliest token)",
                self.temperature,
            ));
        }
        if !(self.top_p > 0.0 && self.top_p <= 1.0) {
            return Err(Error::argument("top_p", "a probability in (0, 1]", self.top_p));
        }
        if self.stop_strings.iter().any(String::is_empty) {
            return Err(Error::argument("stop", "a text of at least one character", "an empty one"));
        }
        Ok(())
    }
}
