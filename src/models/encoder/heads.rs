//! Task heads on top of an encoder: masked language modelling, classification of texts and of
//! tokens, question answering.

use super::architecture::{Architecture, MlmNames};
use super::body::{TextBatch, TextEncoder, first_token, linear};
use super::config::EncoderConfig;
use crate::checkpoint::Pretrained;
use crate::error::{Error, Result};
use crate::nn::{Dropout, Init, LayerNorm, Linear, Module, Parameter, Parameters, module::below};
use crate::ops::Activation;
use crate::ops::linear::{WeightLayout, linear as product};
use crate::random::Rng;
use crate::tensor::Tensor;

/// A task head: layers on top of a [`TextEncoder`], with the names of each architecture.
pub trait Head: Module + Sized {
    /// The suffix of the class name in `transformers`.
    const CLASS: &'static str;

    /// Creates the layers for an encoder of this configuration.
    ///
    /// # Errors
    /// [`Error::Config`] if the configuration lacks a value; also the errors of
    /// [`Parameters::get`].
    fn init(config: &EncoderConfig, p: Parameters<'_>) -> Result<Self>;
}

/// An encoder with a task head.
///
/// ```
/// use loquat::models::encoder::{BertConfig, EncoderConfig, TextBatch, TextEncoder};
/// use loquat::models::encoder::EncoderForSequenceClassification;
/// use loquat::{IdTensor, Rng};
///
/// // A new classifier on a trained encoder.
/// let mut config = BertConfig::new(50, 12, 2, 3, 24);
/// config.set_labels(&["bad", "neutral", "good"]);
/// let mut rng = Rng::seed(1);
/// let encoder = TextEncoder::init(&EncoderConfig::from(config), false, &mut rng)?;
/// let model = EncoderForSequenceClassification::from_encoder(encoder, &mut rng)?;
/// let logits = model.forward(&TextBatch::new(&IdTensor::sequence(&[2, 7, 9, 3])))?;
/// assert_eq!(logits.shape(), [1, 3]);
/// assert_eq!(model.config().labels()?, ["bad", "neutral", "good"]);
/// # Ok::<(), loquat::Error>(())
/// ```
#[derive(Clone)]
pub struct WithHead<H> {
    /// The encoder, without pooler.
    pub encoder: TextEncoder,
    /// The task head.
    pub head: H,
    prefix: &'static str,
    class: &'static str,
}

impl<H: Head> std::fmt::Debug for WithHead<H> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let short = self.summary().of_layers(self.encoder.layers.len());
        write!(f, "{}{}({short})", self.class, H::CLASS)
    }
}

/// An encoder for masked language modelling, like `BertForMaskedLM`.
pub type EncoderForMaskedLm = WithHead<MaskedLmHead>;
/// An encoder that classifies texts or pairs of texts, like `BertForSequenceClassification`.
pub type EncoderForSequenceClassification = WithHead<SequenceClassifierHead>;
/// An encoder that classifies tokens, like `BertForTokenClassification`.
pub type EncoderForTokenClassification = WithHead<ClassifierHead>;
/// An encoder that finds the start and the end of an answer in a text, like
/// `BertForQuestionAnswering`.
pub type EncoderForQuestionAnswering = WithHead<SpanHead>;

impl<H: Head> Module for WithHead<H> {
    fn visit<'m>(&'m self, path: &str, f: &mut dyn FnMut(&str, &'m Parameter)) {
        self.encoder.visit(&below(path, self.prefix), f);
        self.head.visit(path, f);
    }

    fn visit_mut(&mut self, path: &str, f: &mut dyn FnMut(&str, &mut Parameter)) {
        self.encoder.visit_mut(&below(path, self.prefix), f);
        self.head.visit_mut(path, f);
    }
}

/// Prints a table of the parameters: [`Module::summary`].
impl<H: Head> std::fmt::Display for WithHead<H> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.summary())
    }
}

impl<H: Head> Pretrained for WithHead<H> {
    fn config_json(&self) -> serde_json::Value {
        let mut json = self.encoder.config.to_json();
        json["architectures"] = serde_json::json!([format!("{}{}", self.class, H::CLASS)]);
        json
    }
}

impl<H: Head> WithHead<H> {
    /// Creates encoder and head with random parameters or with those of a checkpoint.
    ///
    /// # Errors
    /// Same as [`TextEncoder::init`] and [`Head::init`].
    pub fn init<'a>(config: &EncoderConfig, p: impl Into<Parameters<'a>>) -> Result<Self> {
        let mut p = p.into();
        let names = config.architecture()?.names;
        let encoder = TextEncoder::init(config, false, p.at(names.prefix))?;
        Ok(Self { encoder, head: H::init(config, p)?, prefix: names.prefix, class: names.class })
    }

    /// Adds a randomly initialised head to a trained encoder, for fine-tuning. The labels are those
    /// of the encoder's configuration.
    ///
    /// # Errors
    /// Same as [`Head::init`].
    pub fn from_encoder(mut encoder: TextEncoder, rng: &mut Rng) -> Result<Self> {
        let names = encoder.config.architecture()?.names;
        let head = H::init(&encoder.config, Parameters::from(rng))?;
        encoder.pooler = None;
        Ok(Self { encoder, head, prefix: names.prefix, class: names.class })
    }

    /// Returns the configuration: sizes, options and labels.
    pub fn config(&self) -> &EncoderConfig {
        &self.encoder.config
    }
}

/// The masked-LM head of an [`EncoderForMaskedLm`]: a linear layer, a norm, and an output layer
/// that is usually tied to the token embeddings.
#[derive(Clone)]
pub struct MaskedLmHead {
    /// `[C, C]`
    pub dense: Linear,
    /// The norm after the activation.
    pub layer_norm: LayerNorm,
    /// The weight of the output layer, `[vocab_size, C]`, if it is not tied to the token
    /// embeddings.
    pub decoder: Option<Parameter>,
    /// The bias of the output layer, `[vocab_size]`.
    pub bias: Parameter,
    activation: Activation,
    names: &'static MlmNames,
}

impl std::fmt::Debug for MaskedLmHead {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let tied = if self.decoder.is_none() { ", tied" } else { "" };
        write!(f, "MaskedLmHead({} -> {}{tied})", self.dense.in_features(), self.bias.len())
    }
}

/// The bias of an untied output layer is stored with that layer, otherwise with the head.
fn bias_name(names: &MlmNames, tied: bool) -> String {
    if tied { names.bias.to_string() } else { format!("{}.bias", names.decoder) }
}

crate::module!(MaskedLmHead {
    dense = names.dense,
    layer_norm = names.norm,
    decoder = &format!("{}.weight", names.decoder),
    bias = &bias_name(names, decoder.is_none());
    skip activation, names
});

impl Head for MaskedLmHead {
    const CLASS: &'static str = "ForMaskedLM";

    fn init(config: &EncoderConfig, mut p: Parameters<'_>) -> Result<Self> {
        let a = config.architecture()?;
        let names = &a.names.mlm;
        let shape = [a.vocab_size, a.d_model];
        let weight = Init::Normal { std: a.initializer_range };
        Ok(Self {
            dense: linear(&a, a.d_model, a.d_model, p.at(names.dense))?,
            layer_norm: LayerNorm::init(a.d_model, a.eps, p.at(names.norm))?,
            decoder: (!a.tie_word_embeddings)
                .then(|| p.at(names.decoder).get_weight("weight", &shape, weight))
                .transpose()?,
            bias: p.get(&bias_name(names, a.tie_word_embeddings), &[a.vocab_size], Init::Zeros)?,
            activation: a.heads.mlm_activation,
            names,
        })
    }
}

impl EncoderForMaskedLm {
    /// Returns the logits of the token at each position.
    ///
    /// # Shapes
    /// `[batch, seq_len]` → `[batch, seq_len, vocab_size]`.
    ///
    /// # Errors
    /// Same as [`TextEncoder::forward`].
    pub fn forward(&self, batch: &TextBatch) -> Result<Tensor> {
        self.logits(&self.encoder.forward(batch)?)
    }

    /// Returns the logits for hidden states, those of all positions or of the masked ones only,
    /// which is much faster.
    ///
    /// # Shapes
    /// `hidden_states: […, hidden_size]` → `[…, vocab_size]`.
    ///
    /// # Errors
    /// [`Error::Shape`] if the shape does not match.
    pub fn logits(&self, hidden_states: &Tensor) -> Result<Tensor> {
        let head = &self.head;
        let x = head.layer_norm.forward(&head.dense.forward(hidden_states)?.activate(head.activation))?;
        match &head.decoder {
            Some(weight) => product(&x, weight.weight(), Some(head.bias.tensor()), WeightLayout::OutIn),
            None => self.encoder.embeddings.word_embeddings.logits(&x)?.add(head.bias.tensor()),
        }
    }
}

/// The head of an [`EncoderForSequenceClassification`]: two linear layers, applied to the hidden
/// state of the first token.
#[derive(Clone)]
pub struct SequenceClassifierHead {
    /// The first layer, `[C, C]`; the pooler of BERT.
    pub dense: Linear,
    /// The output layer, `[labels, C]`.
    pub out: Linear,
    activation: Activation,
    dropout: Dropout,
    dropout_first: bool,
    names: [&'static str; 2],
}

crate::module!(SequenceClassifierHead {
    dense = names[0],
    out = names[1],
    dropout;
    skip activation, dropout_first, names
});

impl std::fmt::Debug for SequenceClassifierHead {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SequenceClassifierHead({} -> {})", self.dense.in_features(), self.out.out_features())
    }
}

impl Head for SequenceClassifierHead {
    const CLASS: &'static str = "ForSequenceClassification";

    fn init(config: &EncoderConfig, mut p: Parameters<'_>) -> Result<Self> {
        let a = config.architecture()?;
        let names = [a.names.pooled, a.names.classifier];
        Ok(Self {
            dense: linear(&a, a.d_model, a.d_model, p.at(names[0]))?,
            out: linear(&a, a.d_model, config.labels()?.len(), p.at(names[1]))?,
            activation: a.heads.pooled_activation,
            dropout: Dropout::new(a.heads.sequence_dropout),
            dropout_first: a.heads.dropout_first,
            names,
        })
    }
}

impl EncoderForSequenceClassification {
    /// Returns the logits of the classes for each text.
    ///
    /// # Shapes
    /// `[batch, seq_len]` → `[batch, labels]`.
    ///
    /// # Errors
    /// Same as [`TextEncoder::forward`].
    pub fn forward(&self, batch: &TextBatch) -> Result<Tensor> {
        self.logits(&first_token(&self.encoder.forward(batch)?)?)
    }

    /// Returns the logits for the hidden state of the first token.
    ///
    /// # Shapes
    /// `first: [batch, hidden_size]` → `[batch, labels]`.
    ///
    /// # Errors
    /// [`Error::Shape`] if the shape does not match.
    pub fn logits(&self, first: &Tensor) -> Result<Tensor> {
        let head = &self.head;
        let x = if head.dropout_first { head.dropout.forward(first)? } else { first.clone() };
        let x = head.dense.forward(&x)?.activate(head.activation);
        head.out.forward(&head.dropout.forward(&x)?)
    }
}

/// The head of an [`EncoderForTokenClassification`]: a linear layer, applied to every hidden state.
#[derive(Clone)]
pub struct ClassifierHead {
    /// The output layer, `[labels, C]`.
    pub classifier: Linear,
    dropout: Dropout,
}

crate::module!(ClassifierHead { classifier, dropout });

impl std::fmt::Debug for ClassifierHead {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ClassifierHead({} -> {})", self.classifier.in_features(), self.classifier.out_features())
    }
}

impl Head for ClassifierHead {
    const CLASS: &'static str = "ForTokenClassification";

    fn init(config: &EncoderConfig, mut p: Parameters<'_>) -> Result<Self> {
        let a = config.architecture()?;
        let dropout = Dropout::new(a.heads.token_dropout);
        Ok(Self { classifier: linear(&a, a.d_model, config.labels()?.len(), p.at("classifier"))?, dropout })
    }
}

impl EncoderForTokenClassification {
    /// Returns the logits of the classes for each token.
    ///
    /// # Shapes
    /// `[batch, seq_len]` → `[batch, seq_len, labels]`.
    ///
    /// # Errors
    /// Same as [`TextEncoder::forward`].
    pub fn forward(&self, batch: &TextBatch) -> Result<Tensor> {
        let x = self.encoder.forward(batch)?;
        self.head.classifier.forward(&self.head.dropout.forward(&x)?)
    }
}

/// The head of an [`EncoderForQuestionAnswering`].
#[derive(Clone)]
pub struct SpanHead {
    /// The output layer, `[2, C]`: start and end.
    pub qa_outputs: Linear,
    dropout: Dropout,
}

crate::module!(SpanHead { qa_outputs, dropout });

impl std::fmt::Debug for SpanHead {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SpanHead({} -> 2)", self.qa_outputs.in_features())
    }
}

impl Head for SpanHead {
    const CLASS: &'static str = "ForQuestionAnswering";

    fn init(config: &EncoderConfig, mut p: Parameters<'_>) -> Result<Self> {
        let a: Architecture = config.architecture()?;
        let dropout = Dropout::new(a.heads.span_dropout);
        Ok(Self { qa_outputs: linear(&a, a.d_model, 2, p.at("qa_outputs"))?, dropout })
    }
}

impl EncoderForQuestionAnswering {
    /// Returns the logits of the first and of the last token of the answer.
    ///
    /// # Shapes
    /// `[batch, seq_len]` → two tensors `[batch, seq_len]`.
    ///
    /// # Errors
    /// Same as [`TextEncoder::forward`].
    pub fn forward(&self, batch: &TextBatch) -> Result<(Tensor, Tensor)> {
        let x = self.encoder.forward(batch)?;
        let logits = self.head.qa_outputs.forward(&self.head.dropout.forward(&x)?)?; // [B, T, 2]
        let shape = &logits.shape()[..2].to_vec();
        match &logits.split(2, -1)?[..] {
            [start, end] => Ok((start.reshape(shape)?, end.reshape(shape)?)),
            _ => Err(Error::shape("qa_outputs", "[batch, seq_len, 2]", logits.shape())),
        }
    }
}
