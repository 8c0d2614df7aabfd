//! Classes of texts, and of the tokens in them.

use std::path::Path;

use serde_json::Value;

use super::fit::{check_labels, check_vocabulary};
use super::ragged::{hidden_states, probs};
use crate::error::Result;
use crate::models::encoder::{EncoderConfig, EncoderForSequenceClassification, EncoderForTokenClassification};
use crate::tensor::no_grad;
use crate::text::{EncodeOptions, Input, Tokenizer, Truncation};

/// A class and how sure the model is of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Class {
    /// Its name in `id2label`.
    pub label: String,
    /// A probability, or the number itself where the model was trained to give numbers.
    pub score: f32,
}

/// What a classifier was trained for, and so how its logits become scores: `problem_type` of a
/// `config.json`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProblemType {
    /// One class of several: the softmax of the logits.
    SingleLabel,
    /// Any number of classes: the sigmoid of each logit.
    MultiLabel,
    /// Numbers: the logits themselves.
    Regression,
}

impl ProblemType {
    const NAMES: [(&str, ProblemType); 3] = [
        ("single_label_classification", ProblemType::SingleLabel),
        ("multi_label_classification", ProblemType::MultiLabel),
        ("regression", ProblemType::Regression),
    ];

    /// The problem of a model. Default: [`ProblemType::MultiLabel`] for one label, else
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

/// Classifies texts, or pairs of texts, with an encoder and its head for that.
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
/// A model that was trained in this program needs no folder:
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
    /// Opens a folder with an encoder, the head that classifies sequences, and a tokenizer.
    ///
    /// Scores are probabilities of one class of several, or with `problem_type` `multi_label_classification` (and with a single label)
    /// each class's own, or with `regression` the numbers themselves: as `transformers` has it.
    ///
    /// # Errors
    /// As for [`WithHead::open`](crate::models::encoder::WithHead::open) and [`Tokenizer::open`].
    pub fn open(folder: impl AsRef<Path>) -> Result<Self> {
        let model = EncoderForSequenceClassification::open(&folder)?;
        Self::new(model, Tokenizer::open(folder)?)
    }

    /// Makes a classifier from a model and its tokenizer. The names of the classes and the problem
    /// type are those of the model's configuration ([`EncoderConfig::labels`]; see
    /// [`TextClassifier::open`]).
    ///
    /// # Errors
    /// [`Error::Argument`](crate::Error::Argument) if the tokenizer has more tokens than the
    /// model's embedding has rows, or the number of labels is not that of the head's classes; same
    /// as [`EncoderConfig::labels`].
    pub fn new(model: EncoderForSequenceClassification, tokenizer: Tokenizer) -> Result<Self> {
        check_vocabulary(&model.encoder, &tokenizer)?;
        let labels = model.config().labels()?;
        check_labels(labels.len(), model.head.out.out_features())?;
        let problem_type = ProblemType::of(model.config(), labels.len());
        let max_seq_len = model.config().max_seq_len();
        Ok(Self { model, tokenizer, labels, problem_type, max_seq_len })
    }

    /// Sets the names of the classes, in the order of the logits, here and in the model's
    /// configuration.
    ///
    /// # Errors
    /// [`Error::Argument`](crate::Error::Argument) if there are more or fewer names than classes.
    pub fn labels<S: AsRef<str>>(mut self, labels: &[S]) -> Result<Self> {
        check_labels(labels.len(), self.labels.len())?;
        self.model.encoder.config.set_labels(labels);
        self.labels = labels.iter().map(|label| label.as_ref().to_string()).collect();
        Ok(self)
    }

    /// Sets how logits become scores, here and in the model's configuration. The only logit of a
    /// head with one class has a sigmoid or is a number, as in `transformers`:
    /// [`ProblemType::SingleLabel`] is [`ProblemType::MultiLabel`] there.
    #[must_use]
    pub fn problem_type(mut self, problem_type: ProblemType) -> Self {
        let config = &mut self.model.encoder.config;
        for (name, _) in ProblemType::NAMES.iter().filter(|(_, known)| *known == problem_type) {
            config.other_mut().insert("problem_type".into(), (*name).into());
        }
        self.problem_type = ProblemType::of(config, self.labels.len());
        self
    }

    /// Sets the number of tokens of a text that are read, special tokens included (default, and at
    /// most: what the encoder can read).
    #[must_use]
    pub fn max_seq_len(mut self, tokens: usize) -> Self {
        self.max_seq_len = tokens.min(self.model.config().max_seq_len());
        self
    }

    /// The model.
    pub fn model(&self) -> &EncoderForSequenceClassification {
        &self.model
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// The classes of each text, likeliest first; what is too long is cut.
    ///
    /// # Errors
    /// What the tokenizer cannot encode.
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

/// A token, or several together, and its class.
#[derive(Clone, Debug, PartialEq)]
pub struct Entity {
    /// The class; of tokens together without `B-` or `I-`.
    pub label: String,
    /// Its probability, of tokens together the mean.
    pub score: f32,
    /// The bytes of the text.
    pub range: std::ops::Range<usize>,
}

/// Classifies the tokens of texts, as for names of persons and places.
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
    /// Opens a folder with an encoder, the head that classifies tokens, and a tokenizer.
    ///
    /// # Errors
    /// As for [`WithHead::open`](crate::models::encoder::WithHead::open) and [`Tokenizer::open`].
    pub fn open(folder: impl AsRef<Path>) -> Result<Self> {
        let model = EncoderForTokenClassification::open(&folder)?;
        Self::new(model, Tokenizer::open(folder)?)
    }

    /// Makes a classifier from a model and its tokenizer. The names of the classes are those of the
    /// model's configuration ([`EncoderConfig::labels`]).
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

    /// The model.
    pub fn model(&self) -> &EncoderForTokenClassification {
        &self.model
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// The likeliest class of each token of a text, special tokens left out; of what is too long, the beginning.
    ///
    /// # Errors
    /// What the tokenizer cannot encode.
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

    /// Neighbouring tokens of one class together, those of class `O` left out: `B-X` begins an `X`, `I-X` goes on with it. It is the
    /// `simple` aggregation of `transformers`.
    ///
    /// # Errors
    /// As for [`TokenClassifier::tokens`].
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
        let goes_on = !begins && previous.as_ref() == Some(&label);
        previous = Some(label.clone());
        match groups.last_mut() {
            Some((group, count)) if goes_on => {
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
