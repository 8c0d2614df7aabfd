//! Masked token prediction.

use std::path::Path;

use super::fit::check_vocabulary;
use super::ragged::{hidden_states, probs, top};
use crate::error::{Error, Result};
use crate::models::encoder::EncoderForMaskedLm;
use crate::tensor::no_grad;
use crate::text::{EncodeOptions, Tokenizer, Truncation};

/// A predicted token for a mask.
#[derive(Clone, Debug, PartialEq)]
pub struct Filled {
    /// Token id.
    pub token_id: u32,
    /// Text of the token.
    pub token: String,
    /// Probability in [0, 1].
    pub score: f32,
}

/// A predictor of masked tokens: an encoder with a masked language modelling head.
///
/// ```no_run
/// use loquat::tasks::FillMask;
///
/// let fill = FillMask::open("models/bert-base-uncased")?;
/// let masks = fill.fill("Paris is the [MASK] of France.", 5)?;
/// println!("{} {:.2}", masks[0][0].token, masks[0][0].score);
/// # Ok::<(), loquat::Error>(())
/// ```
///
/// With a model in memory:
///
/// ```
/// use loquat::models::{EncoderConfig, EncoderForMaskedLm, encoder::BertConfig};
/// use loquat::tasks::FillMask;
/// use loquat::text::TokenizerTrainer;
/// use loquat::Rng;
///
/// let text = "the cat sat on the mat";
/// let tokenizer = TokenizerTrainer::word_piece().vocab_size(60).train([text])?;
/// let config = EncoderConfig::from(BertConfig::new(tokenizer.vocab_size(), 16, 1, 2, 32));
/// let model = EncoderForMaskedLm::init(&config, &mut Rng::seed(1))?; // train it first
/// let fill = FillMask::new(model, tokenizer)?;
/// assert_eq!(fill.fill("the [MASK] sat on the [MASK]", 3)?.len(), 2);
/// # Ok::<(), loquat::Error>(())
/// ```
#[derive(Clone)]
pub struct FillMask {
    model: EncoderForMaskedLm,
    tokenizer: Tokenizer,
    mask: u32,
    max_seq_len: usize,
}

impl std::fmt::Debug for FillMask {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "FillMask({:?})", self.model)
    }
}

impl FillMask {
    /// Opens a folder with an encoder, its masked language modelling head and a tokenizer with a
    /// mask token.
    ///
    /// # Errors
    /// Same as [`EncoderForMaskedLm::open`](crate::models::encoder::WithHead::open) and
    /// [`Tokenizer::open`]; [`Error::Tokenizer`] if the tokenizer has no mask token.
    pub fn open(folder: impl AsRef<Path>) -> Result<Self> {
        let tokenizer = Tokenizer::open(&folder)?;
        mask_token(&tokenizer)?; // before the weights are read
        Self::new(EncoderForMaskedLm::open(folder)?, tokenizer)
    }

    /// Creates the task from a model and its tokenizer.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] if the tokenizer has no mask token; [`Error::Argument`] if the
    /// tokenizer has more tokens than the model's embedding has rows.
    pub fn new(model: EncoderForMaskedLm, tokenizer: Tokenizer) -> Result<Self> {
        let mask = mask_token(&tokenizer)?;
        check_vocabulary(&model.encoder, &tokenizer)?;
        let max_seq_len = model.config().max_seq_len();
        Ok(Self { model, tokenizer, mask, max_seq_len })
    }

    /// Sets the largest number of tokens per text, special tokens included; at most the encoder's
    /// context length. Default: the encoder's context length.
    #[must_use]
    pub fn max_seq_len(mut self, tokens: usize) -> Self {
        self.max_seq_len = tokens.min(self.model.config().max_seq_len());
        self
    }

    /// Returns the model.
    pub fn model(&self) -> &EncoderForMaskedLm {
        &self.model
    }

    /// Returns the tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// Returns the `k` most probable tokens for each mask in the text, highest probability first. A
    /// text that is too long is truncated.
    ///
    /// # Errors
    /// [`Error::Argument`] if the text has no mask, or one after the truncation;
    /// [`Error::Tokenizer`] if the text cannot be encoded.
    pub fn fill(&self, text: &str, k: usize) -> Result<Vec<Vec<Filled>>> {
        let options = EncodeOptions::default().truncation(Truncation::new(self.max_seq_len));
        let encoding = self.tokenizer.encode_with(text, &options)?;
        let masks = |ids: &[u32]| (0..ids.len()).filter(|&i| ids[i] == self.mask).collect::<Vec<usize>>();
        let places = masks(&encoding.input_ids);
        let cut: usize = encoding.overflowing.iter().map(|window| masks(&window.input_ids).len()).sum();
        if places.is_empty() || cut > 0 {
            let mask = self.tokenizer.id_to_token(self.mask).unwrap_or_default();
            let (expected, found) = match cut {
                0 => (format!("at least one `{mask}`"), "none".to_string()),
                cut => {
                    let expected = format!("every `{mask}` among the first {} tokens", encoding.len());
                    (expected, format!("{cut} of {} after them", places.len() + cut))
                }
            };
            return Err(Error::argument("text", expected, found));
        }
        let mut found = Vec::new();
        hidden_states(&self.model.encoder, &[encoding], |_, hidden| {
            for &place in &places {
                let probs = probs(no_grad(|| self.model.logits(&hidden.rows(place, 1)))?.data());
                let fill = |(id, score): (usize, f32)| {
                    let token = self.tokenizer.decode(&[id as u32])?.trim().to_string();
                    Ok(Filled { token_id: id as u32, token, score })
                };
                found.push(top(&probs, k).into_iter().map(fill).collect::<Result<_>>()?);
            }
            Ok(())
        })?;
        Ok(found)
    }
}

/// Returns the id of the mask token.
fn mask_token(tokenizer: &Tokenizer) -> Result<u32> {
    tokenizer.mask_token_id().ok_or_else(|| {
        Error::Tokenizer(
            "the tokenizer has no mask token: set one in `tokenizer_config.json` or with `set_special`".into(),
        )
    })
}
