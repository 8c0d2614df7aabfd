//! Encoders of the BERT family, with their task heads.
//!
//! ```text
//! x ← norm(words + positions + types)
//! for each layer:  x ← norm(x + attention(x));  x ← norm(x + feed_forward(x))
//! ```
//!
//! - BERT: Devlin et al., "BERT: Pre-training of Deep Bidirectional Transformers", 2018,
//!   <https://arxiv.org/abs/1810.04805>
//! - RoBERTa: Liu et al. 2019, <https://arxiv.org/abs/1907.11692>: positions start at
//!   `pad_token_id + 1`, only one token type (also XLM-RoBERTa and CamemBERT)
//! - DistilBERT: Sanh et al. 2019, <https://arxiv.org/abs/1910.01108>: no token types, no pooler,
//!   different names
//! - MPNet: Song et al. 2020, <https://arxiv.org/abs/2004.09297>: no token types; a relative
//!   position bias for each head
//!
//! They differ in names and a few options, so there is one body, [`TextEncoder`], configured by an
//! [`EncoderConfig`]. A saved folder has the names of its architecture and opens in `transformers`,
//! with the same hidden states and logits.
//!
//! | item | content |
//! |---|---|
//! | [`BertConfig`], [`DistilBertConfig`], [`EncoderConfig`] | the configurations |
//! | [`TextBatch`] | the input of an encoder |
//! | [`TextEncoder`] | an encoder without a task head |
//! | [`EncoderForMaskedLm`] | predicts masked tokens |
//! | [`EncoderForSequenceClassification`] | classifies texts or pairs of texts |
//! | [`EncoderForTokenClassification`] | classifies tokens |
//! | [`EncoderForQuestionAnswering`] | finds the answer to a question in a text |
//!
//! ```
//! use loquat::models::encoder::EncoderForSequenceClassification;
//! use loquat::models::encoder::{BertConfig, EncoderConfig, TextBatch};
//! use loquat::{IdTensor, Rng};
//!
//! let mut config = BertConfig::new(50, 12, 2, 3, 24);
//! config.set_labels(&["bad", "good"]);
//! let config = EncoderConfig::from(config);
//! let model = EncoderForSequenceClassification::init(&config, &mut Rng::seed(1))?;
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
