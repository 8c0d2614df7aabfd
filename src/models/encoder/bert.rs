//! The configuration of BERT, RoBERTa and MPNet, and the names in their checkpoints.

use serde::{Deserialize, Serialize};

use super::config::{
    Architecture, HeadOptions, LayerNames, MlmNames, Names, activation, config_error, refuse, set_labels,
};
use crate::error::Result;
use crate::ops::Activation;

/// Hugging Face's `config.json`, key by key, of the architectures whose keys are BERT's; `model_type` tells which.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct BertConfig {
    /// `"bert"`, `"roberta"` (or `"xlm-roberta"`, `"camembert"`) or `"mpnet"`.
    pub model_type: String,
    /// The number of token ids.
    pub vocab_size: usize,
    /// Width.
    pub hidden_size: usize,
    /// The number of layers.
    pub num_hidden_layers: usize,
    /// Attention heads of each.
    pub num_attention_heads: usize,
    /// Width inside the feed-forward part.
    pub intermediate_size: usize,
    /// `"gelu"` (by erf), `"gelu_new"` (by tanh), `"relu"` or `"silu"`.
    pub hidden_act: String,
    /// Dropout after each part, in `[0, 1)`.
    pub hidden_dropout_prob: f64,
    /// Dropout of the attention probabilities, in `[0, 1)`.
    pub attention_probs_dropout_prob: f64,
    /// Rows of the table of positions.
    pub max_position_embeddings: usize,
    /// The number of token types; MPNet has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub type_vocab_size: Option<usize>,
    /// Standard deviation of fresh weights.
    pub initializer_range: f64,
    /// Added to the variance in layer normalisation.
    pub layer_norm_eps: f64,
    /// The token that fills short rows.
    pub pad_token_id: Option<u32>,
    /// Dropout in the heads; `hidden_dropout_prob` if not given.
    #[serde(default)]
    pub classifier_dropout: Option<f64>,
    /// MPNet's number of buckets of distances; always 32 in effect, as in `transformers`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub relative_attention_num_buckets: Option<usize>,
    /// Whether the last layer of the head for masked tokens is the token table.
    pub tie_word_embeddings: bool,
    /// Every other key of the file, kept as it is.
    #[serde(flatten)]
    pub other: serde_json::Map<String, serde_json::Value>,
}

impl BertConfig {
    pub(super) const KNOWN: &str = "bert, roberta, xlm-roberta, camembert, mpnet";

    /// BERT of these sizes without dropout, for at most 512 tokens.
    pub fn new(
        vocab_size: usize,
        hidden_size: usize,
        num_hidden_layers: usize,
        num_attention_heads: usize,
        intermediate_size: usize,
    ) -> Self {
        Self {
            vocab_size,
            hidden_size,
            num_hidden_layers,
            num_attention_heads,
            intermediate_size,
            hidden_dropout_prob: 0.0,
            attention_probs_dropout_prob: 0.0,
            ..Self::bert()
        }
    }

    /// Names the classes that a head is to tell apart.
    pub fn set_labels<S: AsRef<str>>(&mut self, labels: &[S]) {
        set_labels(&mut self.other, labels);
    }

    /// What `transformers` puts where the file says nothing.
    pub(super) fn defaults(model_type: &str) -> Option<Self> {
        let like = |vocab_size, pad_token_id| {
            let model_type = model_type.to_string();
            Self { model_type, vocab_size, pad_token_id: Some(pad_token_id), ..Self::bert() }
        };
        match model_type {
            "bert" => Some(Self::bert()),
            "roberta" => Some(like(50265, 1)),
            "xlm-roberta" | "camembert" => Some(like(30522, 1)),
            "mpnet" => Some(Self { type_vocab_size: None, relative_attention_num_buckets: Some(32), ..like(30527, 1) }),
            _ => None,
        }
    }

    fn bert() -> Self {
        Self {
            model_type: "bert".into(),
            vocab_size: 30522,
            hidden_size: 768,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            intermediate_size: 3072,
            hidden_act: "gelu".into(),
            hidden_dropout_prob: 0.1,
            attention_probs_dropout_prob: 0.1,
            max_position_embeddings: 512,
            type_vocab_size: Some(2),
            initializer_range: 0.02,
            layer_norm_eps: 1e-12,
            pad_token_id: Some(0),
            classifier_dropout: None,
            relative_attention_num_buckets: None,
            tie_word_embeddings: true,
            other: serde_json::Map::new(),
        }
    }

    /// RoBERTa's positions begin behind that of the padding token; MPNet's always behind 1.
    fn pad_position(&self) -> Option<u32> {
        match self.model_type.as_str() {
            "bert" => None,
            "mpnet" => Some(1),
            _ => self.pad_token_id,
        }
    }

    pub(super) fn max_seq_len(&self) -> usize {
        let before = self.pad_position().map_or(0, |pad| pad as usize + 1);
        self.max_position_embeddings.saturating_sub(before)
    }

    pub(super) fn architecture(&self) -> Result<Architecture> {
        refuse(&self.other)?;
        let names = match self.model_type.as_str() {
            "bert" => &BERT,
            "roberta" => &ROBERTA,
            "xlm-roberta" => &XLM_ROBERTA,
            "camembert" => &CAMEMBERT,
            "mpnet" => &MPNET,
            other => return Err(config_error("model_type", Self::KNOWN, other)),
        };
        let mpnet = self.model_type == "mpnet";
        match (mpnet, self.relative_attention_num_buckets) {
            // The reference cuts distances into 32 buckets whatever this says.
            (true, Some(32)) | (false, None) => {}
            (_, found) => {
                let expected = if mpnet { "32" } else { "no such key" };
                return Err(config_error("relative_attention_num_buckets", expected, found.unwrap_or(0)));
            }
        }
        if names.class != "Bert" && !mpnet && self.pad_token_id.is_none() {
            return Err(config_error("pad_token_id", "the id that positions count from", "null"));
        }
        let hidden_act = activation("hidden_act", &self.hidden_act)?;
        let bert = self.model_type == "bert";
        let dropout = self.hidden_dropout_prob as f32;
        let head_dropout = self.classifier_dropout.map_or(dropout, |p| p as f32);
        Ok(Architecture {
            names,
            vocab_size: self.vocab_size,
            d_model: self.hidden_size,
            n_layers: self.num_hidden_layers,
            n_heads: self.num_attention_heads,
            d_ff: self.intermediate_size,
            max_positions: self.max_position_embeddings,
            token_types: self.type_vocab_size.filter(|_| !mpnet).unwrap_or(0),
            relative_buckets: self.relative_attention_num_buckets,
            pad_position: self.pad_position(),
            activation: hidden_act,
            eps: self.layer_norm_eps as f32,
            initializer_range: self.initializer_range as f32,
            dropout,
            attention_dropout: self.attention_probs_dropout_prob as f32,
            tie_word_embeddings: self.tie_word_embeddings,
            heads: HeadOptions {
                mlm_activation: if bert { hidden_act } else { Activation::Gelu },
                pooled_activation: Activation::Tanh,
                dropout_first: !bert,
                sequence_dropout: if mpnet { dropout } else { head_dropout },
                token_dropout: if mpnet { dropout } else { head_dropout },
                span_dropout: 0.0,
            },
        })
    }
}

const BERT_LAYER: LayerNames = LayerNames {
    query: "attention.self.query",
    key: "attention.self.key",
    value: "attention.self.value",
    attention_output: "attention.output.dense",
    attention_norm: "attention.output.LayerNorm",
    intermediate: "intermediate.dense",
    output: "output.dense",
    norm: "output.LayerNorm",
};

const LM_HEAD: MlmNames =
    MlmNames { dense: "lm_head.dense", norm: "lm_head.layer_norm", decoder: "lm_head.decoder", bias: "lm_head.bias" };

static BERT: Names = Names {
    class: "Bert",
    prefix: "bert",
    layers: "encoder.layer",
    layer: BERT_LAYER,
    mlm: MlmNames {
        dense: "cls.predictions.transform.dense",
        norm: "cls.predictions.transform.LayerNorm",
        decoder: "cls.predictions.decoder",
        bias: "cls.predictions.bias",
    },
    pooled: "bert.pooler.dense",
    classifier: "classifier",
};

const fn roberta(class: &'static str) -> Names {
    Names {
        class,
        prefix: "roberta",
        layers: "encoder.layer",
        layer: BERT_LAYER,
        mlm: LM_HEAD,
        pooled: "classifier.dense",
        classifier: "classifier.out_proj",
    }
}

static ROBERTA: Names = roberta("Roberta");
static XLM_ROBERTA: Names = roberta("XLMRoberta");
static CAMEMBERT: Names = roberta("Camembert");

static MPNET: Names = Names {
    class: "MPNet",
    prefix: "mpnet",
    layer: LayerNames {
        query: "attention.attn.q",
        key: "attention.attn.k",
        value: "attention.attn.v",
        attention_output: "attention.attn.o",
        attention_norm: "attention.LayerNorm",
        ..BERT_LAYER
    },
    ..roberta("MPNet")
};
