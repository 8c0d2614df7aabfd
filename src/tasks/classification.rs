//! Classes of texts, and of the tokens in them.

use std::path::Path;

use serde_json::Value;

use super::ragged::{hidden_states, probs};
use crate::error::Result;
use crate::models::encoder::{EncoderForSequenceClassification, EncoderForTokenClassification};
use crate::models::read_config;
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

/// How logits become scores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scores {
    /// One class of several.
    Softmax,
    /// Any number of classes.
    Sigmoid,
    /// A number.
    Plain,
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
#[derive(Clone, Debug)]
pub struct TextClassifier {
    model: EncoderForSequenceClassification,
    tokenizer: Tokenizer,
    labels: Vec<String>,
    scores: Scores,
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
        let labels = model.config().labels()?;
        let config = read_config(&folder)?;
        let scores = match config.get("problem_type").and_then(Value::as_str) {
            Some("regression") => Scores::Plain,
            Some("multi_label_classification") => Scores::Sigmoid,
            _ if labels.len() == 1 => Scores::Sigmoid,
            _ => Scores::Softmax,
        };
        Ok(Self { model, tokenizer: Tokenizer::open(folder)?, labels, scores })
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
        let options = EncodeOptions::default().truncation(Truncation::new(self.model.config().max_seq_len()));
        let encodings = self.tokenizer.encode_batch_with(texts, &options)?;
        let mut classes = vec![Vec::new(); texts.len()];
        hidden_states(&self.model.encoder, &encodings, |i, hidden| {
            let logits = no_grad(|| self.model.logits(&hidden.rows(0, 1)))?;
            let scores = match self.scores {
                Scores::Softmax => probs(logits.data()),
                Scores::Sigmoid => logits.data().iter().map(|x| 1.0 / (1.0 + (-x).exp())).collect(),
                Scores::Plain => logits.to_vec(),
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
#[derive(Clone, Debug)]
pub struct TokenClassifier {
    model: EncoderForTokenClassification,
    tokenizer: Tokenizer,
    labels: Vec<String>,
}

impl TokenClassifier {
    /// Opens a folder with an encoder, the head that classifies tokens, and a tokenizer.
    ///
    /// # Errors
    /// As for [`WithHead::open`](crate::models::encoder::WithHead::open) and [`Tokenizer::open`].
    pub fn open(folder: impl AsRef<Path>) -> Result<Self> {
        let model = EncoderForTokenClassification::open(&folder)?;
        let labels = model.config().labels()?;
        Ok(Self { model, tokenizer: Tokenizer::open(folder)?, labels })
    }

    /// The likeliest class of each token of a text, special tokens left out; of what is too long, the beginning.
    ///
    /// # Errors
    /// What the tokenizer cannot encode.
    pub fn tokens(&self, text: &str) -> Result<Vec<Entity>> {
        let options = EncodeOptions::default().truncation(Truncation::new(self.model.config().max_seq_len()));
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
