//! What stands behind a mask.

use std::path::Path;

use super::ragged::{hidden_states, probs, top};
use crate::error::{Error, Result};
use crate::models::encoder::EncoderForMaskedLm;
use crate::tensor::no_grad;
use crate::text::{EncodeOptions, Tokenizer, Truncation};

/// A token that may stand behind a mask.
#[derive(Clone, Debug, PartialEq)]
pub struct Filled {
    /// Its id.
    pub token_id: u32,
    /// Its text.
    pub token: String,
    /// Its probability.
    pub score: f32,
}

/// Guesses masked tokens with an encoder and its head for that.
///
/// ```no_run
/// use loquat::tasks::FillMask;
///
/// let fill = FillMask::open("models/bert-base-uncased")?;
/// let masks = fill.fill("Paris is the [MASK] of France.", 5)?;
/// println!("{} {:.2}", masks[0][0].token, masks[0][0].score);
/// # Ok::<(), loquat::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct FillMask {
    model: EncoderForMaskedLm,
    tokenizer: Tokenizer,
    mask: u32,
}

impl FillMask {
    /// Opens a folder with an encoder, the head for masked tokens, and a tokenizer that has a mask.
    ///
    /// # Errors
    /// As for [`EncoderForMaskedLm::open`](crate::models::encoder::WithHead::open) and [`Tokenizer::open`]; [`Error::Tokenizer`] without
    /// a mask.
    pub fn open(folder: impl AsRef<Path>) -> Result<Self> {
        let tokenizer = Tokenizer::open(&folder)?;
        let mask = tokenizer.mask_token_id();
        let mask = mask.ok_or_else(|| Error::Tokenizer("expected a token that masks, found none".into()))?;
        Ok(Self { model: EncoderForMaskedLm::open(folder)?, tokenizer, mask })
    }

    /// For each mask in the text the `k` likeliest tokens, likeliest first. What is longer than the
    /// model reads is cut off.
    ///
    /// # Errors
    /// [`Error::Argument`] if there is no mask, or one stands behind the tokens that the model
    /// reads; what the tokenizer cannot encode.
    pub fn fill(&self, text: &str, k: usize) -> Result<Vec<Vec<Filled>>> {
        let options = EncodeOptions::default().truncation(Truncation::new(self.model.config().max_seq_len()));
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
                    (expected, format!("{cut} of {} behind them", places.len() + cut))
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
