//! The configuration of DistilBERT, and the names in its checkpoints.

use serde::{Deserialize, Serialize};

use super::EncoderConfig;
use super::architecture::{Architecture, HeadOptions, LayerNames, MlmNames, Names};
use crate::checkpoint::config_keys::{activation, check_other, overlaid};
use crate::error::{Error, Result};
use crate::models::family::{Family, SizeKeys};
use crate::nn::attention::{AttentionNames, ProjectionNames};
use crate::nn::feed_forward::Place;
use crate::ops::Activation;

/// The entry of the family registry.
pub(crate) const FAMILY: Family = Family {
    model_types: &["distilbert"],
    sizes: Some(SizeKeys {
        hidden: "dim",
        layers: "n_layers",
        heads: "n_heads",
        kv_heads: "n_heads",
        intermediate: "hidden_dim",
    }),
    encoder: Some(|json| Ok(EncoderConfig::DistilBert(overlaid(&DistilBertConfig::default(), json)?))),
    ..Family::NONE
};

/// The configuration of DistilBERT: Hugging Face's `config.json`, key by key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct DistilBertConfig {
    /// Always `"distilbert"`.
    pub model_type: String,
    /// The number of token ids.
    pub vocab_size: usize,
    /// The number of rows of the position table.
    pub max_position_embeddings: usize,
    /// Whether the position table was initialised with sines. It is in the checkpoint either way;
    /// the initial table of a new model is random.
    pub sinusoidal_pos_embds: bool,
    /// The number of layers.
    pub n_layers: usize,
    /// The number of attention heads in each layer.
    pub n_heads: usize,
    /// The width of the hidden states.
    pub dim: usize,
    /// The inner width of the feed-forward layer.
    pub hidden_dim: usize,
    /// Dropout probability of the output of each sublayer, in `[0, 1)`.
    pub dropout: f64,
    /// Dropout probability of the attention probabilities, in `[0, 1)`.
    pub attention_dropout: f64,
    /// The activation: `"gelu"` (exact), `"gelu_new"` (tanh approximation), `"relu"` or `"silu"`.
    pub activation: String,
    /// The standard deviation of initial weights.
    pub initializer_range: f64,
    /// Dropout probability in the question-answering head.
    pub qa_dropout: f64,
    /// Dropout probability in the sequence classification head.
    pub seq_classif_dropout: f64,
    /// The padding token.
    pub pad_token_id: Option<u32>,
    /// Whether the last layer of the masked-LM head is tied to the token embeddings.
    pub tie_word_embeddings: bool,
    /// All other keys of the file, kept unchanged.
    #[serde(flatten)]
    pub other: serde_json::Map<String, serde_json::Value>,
}

impl Default for DistilBertConfig {
    /// Returns the configuration of `distilbert-base-uncased`, with 66 million parameters.
    fn default() -> Self {
        Self {
            model_type: "distilbert".into(),
            vocab_size: 30522,
            max_position_embeddings: 512,
            sinusoidal_pos_embds: false,
            n_layers: 6,
            n_heads: 12,
            dim: 768,
            hidden_dim: 3072,
            dropout: 0.1,
            attention_dropout: 0.1,
            activation: "gelu".into(),
            initializer_range: 0.02,
            qa_dropout: 0.1,
            seq_classif_dropout: 0.2,
            pad_token_id: Some(0),
            tie_word_embeddings: true,
            other: serde_json::Map::new(),
        }
    }
}

impl DistilBertConfig {
    pub(super) fn architecture(&self) -> Result<Architecture> {
        if self.model_type != "distilbert" {
            return Err(Error::config("model_type", "distilbert", &self.model_type));
        }
        check_other(&self.other)?;
        let function = activation("activation", &self.activation)?;
        Ok(Architecture {
            names: &NAMES,
            vocab_size: self.vocab_size,
            d_model: self.dim,
            n_layers: self.n_layers,
            n_heads: self.n_heads,
            d_ff: self.hidden_dim,
            max_positions: self.max_position_embeddings,
            token_types: 0,
            relative_buckets: None,
            pad_position: None,
            activation: function,
            eps: 1e-12,
            initializer_range: self.initializer_range as f32,
            dropout: self.dropout as f32,
            attention_dropout: self.attention_dropout as f32,
            tie_word_embeddings: self.tie_word_embeddings,
            heads: HeadOptions {
                mlm_activation: function,
                pooled_activation: Activation::Relu,
                dropout_first: false,
                sequence_dropout: self.seq_classif_dropout as f32,
                token_dropout: self.dropout as f32,
                span_dropout: self.qa_dropout as f32,
            },
        })
    }
}

static NAMES: Names = Names {
    class: "DistilBert",
    prefix: "distilbert",
    layers: "transformer.layer",
    layer: LayerNames {
        attention: AttentionNames {
            projections: ProjectionNames::Separate(["attention.q_lin", "attention.k_lin", "attention.v_lin"]),
            out: "attention.out_lin",
            ..AttentionNames::PYTORCH
        },
        attention_norm: "sa_layer_norm",
        feed_forward: &[(Place::Inner, "ffn.lin1"), (Place::Outer, "ffn.lin2")],
        norm: "output_layer_norm",
    },
    mlm: MlmNames {
        dense: "vocab_transform",
        norm: "vocab_layer_norm",
        decoder: "vocab_projector",
        bias: "vocab_projector.bias",
    },
    pooled: "pre_classifier",
    classifier: "classifier",
};
