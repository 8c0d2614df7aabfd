//! Encoders of text: BERT and those built like it, with their heads.
//!
//! ```text
//! x ← norm(words + positions + types)
//! for each layer:  x ← norm(x + attention(x));  x ← norm(x + feed_forward(x))
//! ```
//!
//! - BERT: Devlin et al., "BERT: Pre-training of Deep Bidirectional Transformers", 2018, <https://arxiv.org/abs/1810.04805>
//! - RoBERTa: Liu et al. 2019, <https://arxiv.org/abs/1907.11692>: positions count from `pad_token_id + 1`, no types in effect
//!   (XLM-RoBERTa and CamemBERT are built the same)
//! - DistilBERT: Sanh et al. 2019, <https://arxiv.org/abs/1910.01108>: no types, no pooler, names of its own
//! - MPNet: Song et al. 2020, <https://arxiv.org/abs/2004.09297>: no types; scores get a number for each head that hangs on the
//!   distance between query and key
//!
//! They differ in names and a few numbers, so there is one body, [`TextEncoder`], which takes both from the [`EncoderConfig`]; a saved
//! folder has the names of its architecture and opens in `transformers`, with which hidden states and logits agree.
//!
//! | file | what |
//! |---|---|
//! | `architecture` | what the architectures have in common, and the names of labels |
//! | `config` | [`EncoderConfig`]: `config.json`, whichever architecture it is of |
//! | `bert`, `distilbert` | the configurations, and the names in their checkpoints |
//! | `body` | [`TextEncoder`]: token ids to hidden states |
//! | `heads` | [`EncoderForMaskedLm`], [`EncoderForSequenceClassification`], [`EncoderForTokenClassification`], [`EncoderForQuestionAnswering`] |
//! | `open` | folders, with and without heads, with the names of old |
//!
//! ```
//! use loquat::models::encoder::{BertConfig, EncoderConfig, EncoderForSequenceClassification, TextBatch};
//! use loquat::{IdTensor, Rng};
//!
//! let mut config = BertConfig::new(50, 12, 2, 3, 24);
//! config.set_labels(&["bad", "good"]);
//! let model = EncoderForSequenceClassification::init(&EncoderConfig::from(config), &mut Rng::seed(1))?;
//! let ids = IdTensor::batch(&[[2, 7, 9, 3], [2, 8, 3, 0]])?;
//! let mask = IdTensor::batch(&[[1, 1, 1, 1], [1, 1, 1, 0]])?;
//! let logits = model.forward(&TextBatch::new(&ids).attention_mask(&mask))?;
//! assert_eq!(logits.shape(), [2, 2]);
//! # Ok::<(), loquat::Error>(())
//! ```

mod architecture;
pub(super) mod bert;
mod body;
mod config;
pub(super) mod distilbert;
mod heads;
mod open;

pub use bert::BertConfig;
pub use body::{TextBatch, TextEncoder};
pub use config::EncoderConfig;
pub use distilbert::DistilBertConfig;
pub use heads::{
    EncoderForMaskedLm, EncoderForQuestionAnswering, EncoderForSequenceClassification, EncoderForTokenClassification,
    Head, WithHead,
};
