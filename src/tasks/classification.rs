//! Text classification and token classification.

use std::path::Path;

use serde_json::Value;

use super::fit::{check_labels, check_vocabulary};
use super::ragged::{hidden_states, probs};
use crate::error::Result;
use crate::models::encoder::{EncoderConfig, EncoderForSequenceClassification, EncoderForTokenClassification};
use crate::tensor::no_grad;
use crate::text::{EncodeOptions, Input, Tokenizer, Truncation};

/// A class with its score.
#[derive(Clone, Debug, PartialEq)]
pub struct Class {
    /// Name of the class in `id2label`.
    pub label: String,
    /// Probability in [0, 1], or the logit itself for a regression model.
    pub score: f32,
}

/// The problem that a classifier was trained for, which determines how logits are converted to
/// scores: `problem_type` of a `config.json`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProblemType {
    /// One class per text: the softmax of the logits.
    SingleLabel,
    /// Any number of classes per text: the sigmoid of each logit.
    MultiLabel,
    /// Regression: the logits themselves.
    Regression,
}

impl ProblemType {
    const NAMES: [(&str, ProblemType); 3] = [
        ("single_label_classification", ProblemType::SingleLabel),
        ("multi_label_classification", ProblemType::MultiLabel),
        ("regression", ProblemType::Regression),
    ];

    /// Problem type of a model. Default: [`ProblemType::MultiLabel`] for one label, else
    /// [`ProblemType::SingleLabel`].
    fn of(config: &EncoderConfig, labels: usize) -> Self {
        let named = config.other().get("problem_type").and_then(Value::as_str);
        let known = ProblemType::NAMES.iter().find(|(name, _)| Some(*name) == named).map(|&(_, problem)| problem);
        match known {
            Some(ProblemType::SingleLabel) | None if labels == 1 => ProblemType::MultiLabel,
            known => known.unwrap_or(ProblemType::SingleLabel),
        }
    }
}

/// A text classifier: an encoder with a sequence classification head, for single texts or pairs.
///
/// ```no_run
/// use loquat::tasks::TextClassifier;
///
/// let classifier = TextClassifier::open("models/sentiment")?;
/// for classes in classifier.classify(&["what a film", "what a waste"])? {
///     println!("{} {:.2}", classes[0].label, classes[0].score);
/// }
/// # Ok::<(), loquat::Error>(())
/// ```
///
/// With a model trained in memory:
///
/// ```
/// use loquat::models::encoder::{BertConfig, EncoderConfig};
/// use loquat::models::{EncoderForSequenceClassification, TextBatch};
/// use loquat::tasks::TextClassifier;
/// use loquat::text::TokenizerTrainer;
/// use loquat::training::{AdamW, Optimizer};
/// use loquat::{IdTensor, Rng, ops};
///
/// let texts = ["what a film", "what a waste"];
/// let tokenizer = TokenizerTrainer::word_piece().vocab_size(60).train(texts)?;
/// let mut config = EncoderConfig::from(BertConfig::new(tokenizer.vocab_size(), 16, 1, 2, 32));
/// config.set_labels(&["good", "bad"]);
/// let mut model = EncoderForSequenceClassification::init(&config, &mut Rng::seed(1))?;
///
/// let mut optimizer = Optimizer::new(AdamW { lr: 0.01, ..AdamW::default() })?;
/// for step in 0..40 {
///     let label = step % 2;
///     let ids = IdTensor::sequence(&tokenizer.encode(texts[label])?.input_ids);
///     let logits = model.forward(&TextBatch::new(&ids))?;
///     let loss = ops::cross_entropy(&logits, &IdTensor::new(vec![label as u32], &[1])?)?;
///     optimizer.step(&mut model, &loss.backward()?)?;
/// }
///
/// let classifier = TextClassifier::new(model, tokenizer)?;
/// let classes = classifier.classify(&texts)?;
/// assert_eq!((classes[0][0].label.as_str(), classes[1][0].label.as_str()), ("good", "bad"));
/// # Ok::<(), loquat::Error>(())
/// ```
#[derive(Clone)]
pub struct TextClassifier {
    model: EncoderForSequenceClassification,
    tokenizer: Tokenizer,
    labels: Vec<String>,
    problem_type: ProblemType,
    max_seq_len: usize,
}

impl std::fmt::Debug for TextClassifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { model, labels, problem_type, .. } = self;
        write!(f, "TextClassifier({model:?}, labels={}, {problem_type:?})", labels.len())
    }
}

impl TextClassifier {
    /// Opens a folder with an encoder, its sequence classification head and a tokenizer.
    ///
    /// As in `transformers`, scores are softmax probabilities by default; sigmoid probabilities for
    /// one label or `problem_type` `multi_label_classification`; the logits for `regression`.
    ///
    /// # Errors
    /// Same as [`WithHead::open`](crate::models::encoder::WithHead::open) and [`Tokenizer::open`].
    pub fn open(folder: impl AsRef<Path>) -> Result<Self> {
        let model = EncoderForSequenceClassification::open(&folder)?;
        Self::new(model, Tokenizer::open(folder)?)
    }

    /// Creates a classifier from a model and its tokenizer. The labels and the problem type come
    /// from the model's configuration ([`EncoderConfig::labels`]; see [`TextClassifier::open`]).
    ///
    /// # Errors
    /// [`Error::Argument`](crate::Error::Argument) if the tokenizer has more tokens than the
    /// model's embedding has rows, or the number of labels differs from that of the head's classes.
    /// Otherwise same as [`EncoderConfig::labels`].
    pub fn new(model: EncoderForSequenceClassification, tokenizer: Tokenizer) -> Result<Self> {
        check_vocabulary(&model.encoder, &tokenizer)?;
        let labels = model.config().labels()?;
        check_labels(labels.len(), model.head.out.out_features())?;
        let problem_type = ProblemType::of(model.config(), labels.len());
        let max_seq_len = model.config().max_seq_len();
        Ok(Self { model, tokenizer, labels, problem_type, max_seq_len })
    }

    /// Sets the labels of the classes, in the order of the logits, also in the model's
    /// configuration.
    ///
    /// # Errors
    /// [`Error::Argument`](crate::Error::Argument) if there are more or fewer labels than classes.
    pub fn labels<S: AsRef<str>>(mut self, labels: &[S]) -> Result<Self> {
        check_labels(labels.len(), self.labels.len())?;
        self.model.encoder.config.set_labels(labels);
        self.labels = labels.iter().map(|label| label.as_ref().to_string()).collect();
        Ok(self)
    }

    /// Sets how logits are converted to scores, also in the model's configuration. For a head with
    /// one class, [`ProblemType::SingleLabel`] means [`ProblemType::MultiLabel`], as in
    /// `transformers`.
    #[must_use]
    pub fn problem_type(mut self, problem_type: ProblemType) -> Self {
        let config = &mut self.model.encoder.config;
        for (name, _) in ProblemType::NAMES.iter().filter(|(_, known)| *known == problem_type) {
            config.other_mut().insert("problem_type".into(), (*name).into());
        }
        self.problem_type = ProblemType::of(config, self.labels.len());
        self
    }

    /// Sets the largest number of tokens per text, special tokens included; at most the encoder's
    /// context length. Default: the encoder's context length.
    #[must_use]
    pub fn max_seq_len(mut self, tokens: usize) -> Self {
        self.max_seq_len = tokens.min(self.model.config().max_seq_len());
        self
    }

    /// Returns the model.
    pub fn model(&self) -> &EncoderForSequenceClassification {
        &self.model
    }

    /// Returns the tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// Returns the classes of each text, highest score first. A text that is too long is truncated.
    ///
    /// # Errors
    /// [`Error::Tokenizer`](crate::Error::Tokenizer) if a text cannot be encoded.
    pub fn classify<'a, I>(&self, texts: &'a [I]) -> Result<Vec<Vec<Class>>>
    where
        &'a I: Into<Input<'a>>,
        I: Sync,
    {
        let options = EncodeOptions::default().truncation(Truncation::new(self.max_seq_len));
        let encodings = self.tokenizer.encode_batch_with(texts, &options)?;
        let mut classes = vec![Vec::new(); texts.len()];
        hidden_states(&self.model.encoder, &encodings, |i, hidden| {
            let logits = no_grad(|| self.model.logits(&hidden.rows(0, 1)))?;
            let scores = match self.problem_type {
                ProblemType::SingleLabel => probs(logits.data()),
                ProblemType::MultiLabel => logits.data().iter().map(|x| 1.0 / (1.0 + (-x).exp())).collect(),
                ProblemType::Regression => logits.to_vec(),
            };
            let named = self.labels.iter().zip(scores).map(|(label, score)| Class { label: label.clone(), score });
            classes[i] = named.collect();
            classes[i].sort_by(|a: &Class, b| b.score.total_cmp(&a.score));
            Ok(())
        })?;
        Ok(classes)
    }
}

/// A classified token, or a group of adjacent tokens with the same class.
#[derive(Clone, Debug, PartialEq)]
pub struct Entity {
    /// The class; without the prefix `B-` or `I-` for a group.
    pub label: String,
    /// Probability of the class in [0, 1]; the mean over the tokens of a group.
    pub score: f32,
    /// Byte range in the text.
    pub range: std::ops::Range<usize>,
}

/// A token classifier, for example for named entities: an encoder with a token classification
/// head.
///
/// ```
/// use loquat::models::{EncoderConfig, EncoderForTokenClassification, encoder::BertConfig};
/// use loquat::tasks::TokenClassifier;
/// use loquat::text::TokenizerTrainer;
/// use loquat::Rng;
///
/// // A model in memory, with random weights here; `TokenClassifier::open` reads a folder.
/// let tokenizer = TokenizerTrainer::word_piece().vocab_size(60).train(["Ada wrote to Charles"])?;
/// let mut config = EncoderConfig::from(BertConfig::new(tokenizer.vocab_size(), 16, 1, 2, 32));
/// config.set_labels(&["O", "B-PER", "I-PER"]);
/// let model = EncoderForTokenClassification::init(&config, &mut Rng::seed(1))?;
/// let classifier = TokenClassifier::new(model, tokenizer)?;
/// for entity in classifier.entities("Ada wrote to Charles")? {
///     assert_eq!(entity.label, "PER");
/// }
/// # Ok::<(), loquat::Error>(())
/// ```
#[derive(Clone)]
pub struct TokenClassifier {
    model: EncoderForTokenClassification,
    tokenizer: Tokenizer,
    labels: Vec<String>,
    max_seq_len: usize,
}

impl std::fmt::Debug for TokenClassifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TokenClassifier({:?}, labels={})", self.model, self.labels.len())
    }
}

impl TokenClassifier {
    /// Opens a folder with an encoder, its token classification head and a tokenizer.
    ///
    /// # Errors
    /// Same as [`WithHead::open`](crate::models::encoder::WithHead::open) and [`Tokenizer::open`].
    pub fn open(folder: impl AsRef<Path>) -> Result<Self> {
        let model = EncoderForTokenClassification::open(&folder)?;
        Self::new(model, Tokenizer::open(folder)?)
    }

    /// Creates a classifier from a model and its tokenizer. The labels come from the model's
    /// configuration ([`EncoderConfig::labels`]).
    ///
    /// # Errors
    /// Same as [`TextClassifier::new`].
    pub fn new(model: EncoderForTokenClassification, tokenizer: Tokenizer) -> Result<Self> {
        check_vocabulary(&model.encoder, &tokenizer)?;
        let labels = model.config().labels()?;
        check_labels(labels.len(), model.head.classifier.out_features())?;
        let max_seq_len = model.config().max_seq_len();
        Ok(Self { model, tokenizer, labels, max_seq_len })
    }

    /// Same as [`TextClassifier::labels`].
    ///
    /// # Errors
    /// Same as [`TextClassifier::labels`].
    pub fn labels<S: AsRef<str>>(mut self, labels: &[S]) -> Result<Self> {
        check_labels(labels.len(), self.labels.len())?;
        self.model.encoder.config.set_labels(labels);
        self.labels = labels.iter().map(|label| label.as_ref().to_string()).collect();
        Ok(self)
    }

    /// Same as [`TextClassifier::max_seq_len`].
    #[must_use]
    pub fn max_seq_len(mut self, tokens: usize) -> Self {
        self.max_seq_len = tokens.min(self.model.config().max_seq_len());
        self
    }

    /// Returns the model.
    pub fn model(&self) -> &EncoderForTokenClassification {
        &self.model
    }

    /// Returns the tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// Returns the most probable class of each token, without special tokens. A text that is too
    /// long is truncated.
    ///
    /// # Errors
    /// [`Error::Tokenizer`](crate::Error::Tokenizer) if the text cannot be encoded.
    pub fn tokens(&self, text: &str) -> Result<Vec<Entity>> {
        let options = EncodeOptions::default().truncation(Truncation::new(self.max_seq_len));
        let encoding = self.tokenizer.encode_with(text, &options)?;
        let mut tokens = Vec::new();
        hidden_states(&self.model.encoder, std::slice::from_ref(&encoding), |_, hidden| {
            let logits = no_grad(|| self.model.head.classifier.forward(hidden))?;
            for (i, logits) in logits.data().chunks_exact(self.labels.len()).enumerate() {
                if encoding.special_tokens_mask[i] == 1 {
                    continue;
                }
                let probs = probs(logits);
                let best = (0..probs.len()).reduce(|a, b| if probs[b] > probs[a] { b } else { a }).unwrap_or(0);
                let (start, end) = encoding.offsets[i];
                tokens.push(Entity { label: self.labels[best].clone(), score: probs[best], range: start..end });
            }
            Ok(())
        })?;
        Ok(tokens)
    }

    /// Returns groups of adjacent tokens with the same class, without class `O`: `B-X` starts a
    /// group `X`, `I-X` continues it. This is the `simple` aggregation strategy of `transformers`.
    ///
    /// # Errors
    /// Same as [`TokenClassifier::tokens`].
    pub fn entities(&self, text: &str) -> Result<Vec<Entity>> {
        Ok(aggregate(self.tokens(text)?))
    }
}

fn aggregate(tokens: Vec<Entity>) -> Vec<Entity> {
    let mut groups: Vec<(Entity, usize)> = Vec::new();
    let mut previous = None;
    for token in tokens {
        let (begins, label) = match token.label.split_once('-') {
            Some(("B", label)) => (true, label.to_string()),
            Some(("I", label)) => (false, label.to_string()),
            _ => (false, token.label.clone()),
        };
        let is_active = !begins && previous.as_ref() == Some(&label);
        previous = Some(label.clone());
        match groups.last_mut() {
            Some((group, count)) if is_active => {
                group.range.end = token.range.end;
                group.score += token.score;
                *count += 1;
            }
            _ => groups.push((Entity { label, ..token }, 1)),
        }
    }
    let mean = |(group, count): (Entity, usize)| Entity { score: group.score / count as f32, ..group };
    groups.into_iter().map(mean).filter(|group| group.label != "O").collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_of_one_class_come_together() {
        let token = |label: &str, range: std::ops::Range<usize>| Entity { label: label.into(), score: 0.5, range };
        let tokens = vec![
            token("B-PER", 0..2),
            token("I-PER", 2..4),
            token("O", 5..6),
            token("I-LOC", 7..9),
            token("B-LOC", 9..12),
            token("I-PER", 12..14),
        ];
        let found: Vec<(String, std::ops::Range<usize>)> =
            aggregate(tokens).into_iter().map(|e| (e.label, e.range)).collect();
        let expected = [("PER", 0..4), ("LOC", 7..9), ("LOC", 9..12), ("PER", 12..14)];
        assert_eq!(found, expected.map(|(label, range)| (label.to_string(), range)));
    }
}
