//! Extractive question answering.

use std::path::Path;

use super::fit::check_vocabulary;
use super::ragged::{hidden_states, probs};
use crate::error::Result;
use crate::models::encoder::EncoderForQuestionAnswering;
use crate::tensor::no_grad;
use crate::text::{EncodeOptions, Tokenizer, Truncation, TruncationStrategy};

/// A span of a text that answers a question.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// The text of the span.
    pub text: String,
    /// Byte range in the text.
    pub range: std::ops::Range<usize>,
    /// Probability of the span's first token times that of its last token, in [0, 1].
    pub score: f32,
}

/// An extractive question answerer: an encoder with a span classification head.
///
/// ```no_run
/// use loquat::tasks::QuestionAnswering;
///
/// let reader = QuestionAnswering::open("models/distilbert-base-cased-distilled-squad")?;
/// let answers = reader.answer("Who wrote it?", "The letter was written by Ada.", 1)?;
/// println!("{}", answers[0].text);
/// # Ok::<(), loquat::Error>(())
/// ```
///
/// With a model in memory:
///
/// ```
/// use loquat::models::{EncoderConfig, EncoderForQuestionAnswering, encoder::BertConfig};
/// use loquat::tasks::QuestionAnswering;
/// use loquat::text::TokenizerTrainer;
/// use loquat::Rng;
///
/// let text = "the letter was written by Ada";
/// let tokenizer = TokenizerTrainer::word_piece().vocab_size(60).train([text])?;
/// let config = EncoderConfig::from(BertConfig::new(tokenizer.vocab_size(), 16, 1, 2, 32));
/// let model = EncoderForQuestionAnswering::init(&config, &mut Rng::seed(1))?; // train it first
/// let reader = QuestionAnswering::new(model, tokenizer)?.max_answer_len(3);
/// let answer = &reader.answer("who wrote it", text, 1)?[0];
/// assert_eq!(answer.text, text[answer.range.clone()]);
/// # Ok::<(), loquat::Error>(())
/// ```
#[derive(Clone)]
pub struct QuestionAnswering {
    model: EncoderForQuestionAnswering,
    tokenizer: Tokenizer,
    max_answer_len: usize,
    max_seq_len: usize,
}

impl std::fmt::Debug for QuestionAnswering {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "QuestionAnswering({:?})", self.model)
    }
}

/// Tokens of a window, and tokens that it shares with the previous one: the defaults of
/// `transformers`.
const WINDOW: usize = 384;
const STRIDE: usize = 128;

impl QuestionAnswering {
    /// Opens a folder with an encoder, its question answering head and a tokenizer.
    ///
    /// # Errors
    /// Same as [`WithHead::open`](crate::models::encoder::WithHead::open) and [`Tokenizer::open`].
    pub fn open(folder: impl AsRef<Path>) -> Result<Self> {
        let tokenizer = Tokenizer::open(&folder)?;
        Self::new(EncoderForQuestionAnswering::open(folder)?, tokenizer)
    }

    /// Creates the task from a model and its tokenizer.
    ///
    /// # Errors
    /// [`Error::Argument`](crate::Error::Argument) if the tokenizer has more tokens than the
    /// model's embedding has rows.
    pub fn new(model: EncoderForQuestionAnswering, tokenizer: Tokenizer) -> Result<Self> {
        check_vocabulary(&model.encoder, &tokenizer)?;
        let max_seq_len = WINDOW.min(model.config().max_seq_len());
        Ok(Self { model, tokenizer, max_answer_len: 15, max_seq_len })
    }

    /// Sets the number of tokens of a window: the question and a part of the text together; at most
    /// the encoder's context length. Default: 384.
    #[must_use]
    pub fn max_seq_len(mut self, tokens: usize) -> Self {
        self.max_seq_len = tokens.min(self.model.config().max_seq_len());
        self
    }

    /// Returns the model.
    pub fn model(&self) -> &EncoderForQuestionAnswering {
        &self.model
    }

    /// Returns the tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// Sets the largest number of tokens in an answer. Default: 15.
    #[must_use]
    pub fn max_answer_len(mut self, tokens: usize) -> Self {
        self.max_answer_len = tokens.max(1);
        self
    }

    /// Returns the `k` best answers, best first. A long text is processed in overlapping windows.
    ///
    /// # Errors
    /// [`Error::Tokenizer`](crate::Error::Tokenizer) if a text cannot be encoded;
    /// [`Error::Argument`](crate::Error::Argument) if the question leaves no room for the text.
    pub fn answer(&self, question: &str, text: &str, k: usize) -> Result<Vec<Answer>> {
        let window = self.max_seq_len;
        let stride = STRIDE.min(window / 2);
        // The stride must be smaller than the room that the question leaves.
        let question_len = self.tokenizer.encode_without_special(question)?.len();
        let stride = stride.min(window.saturating_sub(question_len + 4) / 2);
        let truncation = Truncation::new(window).stride(stride).strategy(TruncationStrategy::OnlySecond);
        let mut first =
            self.tokenizer.encode_with((question, text), &EncodeOptions::default().truncation(truncation))?;
        let mut windows = std::mem::take(&mut first.overflowing);
        windows.insert(0, first);
        let mut answers: Vec<Answer> = Vec::new();
        hidden_states(&self.model.encoder, &windows, |i, hidden| {
            let window = &windows[i];
            let logits = no_grad(|| self.model.head.qa_outputs.forward(hidden))?; // [tokens, 2]
            let column = |c: usize| {
                let masked = |i: usize| match window.sequence_ids[i] {
                    Some(1) => logits.data()[2 * i + c],
                    _ => f32::NEG_INFINITY,
                };
                probs(&(0..window.len()).map(masked).collect::<Vec<_>>())
            };
            let (begins, ends) = (column(0), column(1));
            for (b, begin) in begins.iter().enumerate().filter(|(_, p)| **p > 0.0) {
                let last = (b + self.max_answer_len).min(window.len());
                let Some(e) = (b..last).reduce(|a, e| if ends[e] > ends[a] { e } else { a }) else { continue };
                let range = window.offsets[b].0..window.offsets[e].1;
                let Some(part) = text.get(range.clone()) else { continue };
                answers.push(Answer { text: part.to_string(), range, score: begin * ends[e] });
            }
            Ok(())
        })?;
        answers.sort_by(|a, b| b.score.total_cmp(&a.score).then(a.range.start.cmp(&b.range.start)));
        // Windows overlap: the same span may be found twice.
        let mut seen = std::collections::BTreeSet::new();
        answers.retain(|answer| seen.insert((answer.range.start, answer.range.end)));
        answers.truncate(k);
        Ok(answers)
    }
}
