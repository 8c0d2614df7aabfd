//! The configuration of BERT, RoBERTa and MPNet, and the names in their checkpoints.

use serde::{Deserialize, Serialize};

use serde_json::{Value, json};

use super::EncoderConfig;
use super::architecture::{Architecture, HeadOptions, LayerNames, MlmNames, Names, set_labels};
use crate::checkpoint::config_keys::{activation, check_other, overlaid};
use crate::checkpoint::gguf::architecture::{Architecture as GgufArchitecture, Keys};
use crate::error::{Error, Result};
use crate::models::family::{Family, SizeKeys};
use crate::nn::attention::{AttentionNames, ProjectionNames};
use crate::nn::feed_forward::Place;
use crate::ops::Activation;

/// The family in the registry.
pub(crate) const FAMILY: Family = Family {
    model_types: &["bert", "roberta", "xlm-roberta", "camembert", "mpnet"],
    sizes: Some(SizeKeys::USUAL),
    encoder: Some(|json| {
        let model_type = json["model_type"].as_str().unwrap_or("none");
        Ok(EncoderConfig::Bert(overlaid(&Variant::find(model_type)?.defaults(), json)?))
    }),
    gguf: &[GGUF],
    ..Family::NONE
};

/// In what the architectures whose keys are BERT's differ.
struct Variant {
    model_type: &'static str,
    names: &'static Names,
    positions: FirstPosition,
    /// Whether there are token types.
    token_types: bool,
    /// Whether scores get a number by the distance of query and key.
    relative: bool,
    /// Whether the heads are BERT's: the head of masked tokens has the body's non-linearity, and no
    /// dropout comes before the sequence classifier.
    bert_heads: bool,
    /// Whether `classifier_dropout` is a key.
    classifier_dropout: bool,
    /// The defaults of `transformers`.
    vocab_size: usize,
    pad_token_id: u32,
}

/// Where the positions of a text begin.
#[derive(Clone, Copy)]
enum FirstPosition {
    /// At 0.
    Zero,
    /// Behind this, which is the position of padding.
    Behind(u32),
    /// Behind the id of the token that fills short rows, which is the position of padding.
    BehindPadding,
}

static VARIANTS: [Variant; 5] = [
    Variant {
        model_type: "bert",
        names: &BERT,
        positions: FirstPosition::Zero,
        token_types: true,
        relative: false,
        bert_heads: true,
        classifier_dropout: true,
        vocab_size: 30522,
        pad_token_id: 0,
    },
    Variant { model_type: "roberta", names: &ROBERTA, vocab_size: 50265, ..LIKE_ROBERTA },
    Variant { model_type: "xlm-roberta", names: &XLM_ROBERTA, ..LIKE_ROBERTA },
    Variant { model_type: "camembert", names: &CAMEMBERT, ..LIKE_ROBERTA },
    Variant {
        model_type: "mpnet",
        names: &MPNET,
        positions: FirstPosition::Behind(1),
        token_types: false,
        relative: true,
        classifier_dropout: false,
        vocab_size: 30527,
        ..LIKE_ROBERTA
    },
];

const LIKE_ROBERTA: Variant = Variant {
    model_type: "roberta",
    names: &ROBERTA,
    positions: FirstPosition::BehindPadding,
    token_types: true,
    relative: false,
    bert_heads: false,
    classifier_dropout: true,
    vocab_size: 30522,
    pad_token_id: 1,
};

impl Variant {
    fn find(model_type: &str) -> Result<&'static Self> {
        VARIANTS
            .iter()
            .find(|variant| variant.model_type == model_type)
            .ok_or_else(|| Error::config("model_type", FAMILY.model_types.join(", "), model_type))
    }

    /// The keys that a file lacks, as `transformers` has them.
    fn defaults(&self) -> BertConfig {
        BertConfig {
            model_type: self.model_type.into(),
            vocab_size: self.vocab_size,
            pad_token_id: Some(self.pad_token_id),
            type_vocab_size: self.token_types.then_some(2),
            relative_attention_num_buckets: self.relative.then_some(32),
            ..BertConfig::bert()
        }
    }
}

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

    /// The position of padding, behind which the others begin.
    fn pad_position(&self) -> Result<Option<u32>> {
        Ok(match Variant::find(&self.model_type)?.positions {
            FirstPosition::Zero => None,
            FirstPosition::Behind(position) => Some(position),
            FirstPosition::BehindPadding => Some(
                self.pad_token_id
                    .ok_or_else(|| Error::config("pad_token_id", "the id that positions count from", "null"))?,
            ),
        })
    }

    pub(super) fn max_seq_len(&self) -> usize {
        let before = self.pad_position().ok().flatten().map_or(0, |pad| pad as usize + 1);
        self.max_position_embeddings.saturating_sub(before)
    }

    pub(super) fn architecture(&self) -> Result<Architecture> {
        check_other(&self.other)?;
        let variant = Variant::find(&self.model_type)?;
        match (variant.relative, self.relative_attention_num_buckets) {
            // The reference cuts distances into 32 buckets whatever this says.
            (true, Some(32)) | (false, None) => {}
            (relative, found) => {
                let expected = if relative { "32" } else { "no such key" };
                return Err(Error::config("relative_attention_num_buckets", expected, found.unwrap_or(0)));
            }
        }
        let hidden_act = activation("hidden_act", &self.hidden_act)?;
        let dropout = self.hidden_dropout_prob as f32;
        let head_dropout = self.classifier_dropout.filter(|_| variant.classifier_dropout);
        let head_dropout = head_dropout.map_or(dropout, |p| p as f32);
        Ok(Architecture {
            names: variant.names,
            vocab_size: self.vocab_size,
            d_model: self.hidden_size,
            n_layers: self.num_hidden_layers,
            n_heads: self.num_attention_heads,
            d_ff: self.intermediate_size,
            max_positions: self.max_position_embeddings,
            token_types: self.type_vocab_size.filter(|_| variant.token_types).unwrap_or(0),
            relative_buckets: self.relative_attention_num_buckets,
            pad_position: self.pad_position()?,
            activation: hidden_act,
            eps: self.layer_norm_eps as f32,
            initializer_range: self.initializer_range as f32,
            dropout,
            attention_dropout: self.attention_probs_dropout_prob as f32,
            tie_word_embeddings: self.tie_word_embeddings,
            heads: HeadOptions {
                mlm_activation: if variant.bert_heads { hidden_act } else { Activation::Gelu },
                pooled_activation: Activation::Tanh,
                dropout_first: !variant.bert_heads,
                sequence_dropout: head_dropout,
                token_dropout: head_dropout,
                span_dropout: 0.0,
            },
        })
    }
}

const BERT_LAYER: LayerNames = LayerNames {
    attention: AttentionNames {
        projections: ProjectionNames::Separate(["attention.self.query", "attention.self.key", "attention.self.value"]),
        out: "attention.output.dense",
        ..AttentionNames::PYTORCH
    },
    attention_norm: "attention.output.LayerNorm",
    feed_forward: &[(Place::Inner, "intermediate.dense"), (Place::Outer, "output.dense")],
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
        attention: AttentionNames {
            projections: ProjectionNames::Separate(["attention.attn.q", "attention.attn.k", "attention.attn.v"]),
            out: "attention.attn.o",
            ..AttentionNames::PYTORCH
        },
        attention_norm: "attention.LayerNorm",
        ..BERT_LAYER
    },
    ..roberta("MPNet")
};

/// llama.cpp's `bert`, which is read only.
const GGUF: GgufArchitecture = GgufArchitecture {
    name: "bert",
    model_types: &[],
    blocks: "encoder.layer.",
    global: &[
        ("token_embd", "embeddings.word_embeddings"),
        ("position_embd", "embeddings.position_embeddings"),
        ("token_types", "embeddings.token_type_embeddings"),
        ("token_embd_norm", "embeddings.LayerNorm"),
    ],
    block: &[
        ("attn_q", "attention.self.query"),
        ("attn_k", "attention.self.key"),
        ("attn_v", "attention.self.value"),
        ("attn_output", "attention.output.dense"),
        ("attn_output_norm", "attention.output.LayerNorm"),
        ("ffn_up", "intermediate.dense"),
        ("ffn_down", "output.dense"),
        ("layer_output_norm", "output.LayerNorm"),
    ],
    arranged: &[],
    keys: &["classifier.output_labels", "pooling_type"],
    read: read_gguf,
    write: None,
    repeats_table: false,
    ends: 3,
    causal: false,
};

fn read_gguf(keys: &Keys<'_>) -> Result<Value> {
    let types = keys.file.tensor("token_types.weight").map(|t| t.shape()[0]);
    Ok(json!({
        "model_type": "bert",
        "architectures": ["BertModel"],
        "vocab_size": keys.rows("token_embd.weight")?,
        "max_position_embeddings": keys.size("context_length")?,
        "hidden_size": keys.size("embedding_length")?,
        "num_hidden_layers": keys.size("block_count")?,
        "num_attention_heads": keys.heads()?.0,
        "intermediate_size": keys.size("feed_forward_length")?,
        "type_vocab_size": types.unwrap_or(1),
        "hidden_act": "gelu",
        "layer_norm_eps": keys.number("attention.layer_norm_epsilon")?,
    }))
}
