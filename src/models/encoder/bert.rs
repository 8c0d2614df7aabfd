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

/// The entry of the family registry.
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

/// The differences between the architectures that have the keys of BERT.
struct Variant {
    model_type: &'static str,
    names: &'static Names,
    positions: FirstPosition,
    /// Whether there are token types.
    token_types: bool,
    /// Whether there is a relative position bias.
    relative: bool,
    /// Whether the heads are those of BERT: the masked-LM head has the activation of the body, and
    /// there is no dropout before the sequence classifier.
    bert_heads: bool,
    /// Whether `classifier_dropout` is a key.
    classifier_dropout: bool,
    /// The defaults of `transformers`.
    vocab_size: usize,
    pad_token_id: u32,
}

/// The position of the first token of a text.
#[derive(Clone, Copy)]
enum FirstPosition {
    /// At 0.
    Zero,
    /// One after the given position, which is that of padding.
    Behind(u32),
    /// One after the id of the padding token, which is the position of padding.
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

    /// Returns the default values of `transformers`.
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

/// The configuration of BERT, RoBERTa or MPNet, according to `model_type`: Hugging Face's
/// `config.json`, key by key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct BertConfig {
    /// `"bert"`, `"roberta"` (or `"xlm-roberta"`, `"camembert"`) or `"mpnet"`.
    pub model_type: String,
    /// The number of token ids.
    pub vocab_size: usize,
    /// The width of the hidden states.
    pub hidden_size: usize,
    /// The number of layers.
    pub num_hidden_layers: usize,
    /// The number of attention heads in each layer.
    pub num_attention_heads: usize,
    /// The inner width of the feed-forward layer.
    pub intermediate_size: usize,
    /// The activation: `"gelu"` (exact), `"gelu_new"` (tanh approximation), `"relu"` or `"silu"`.
    pub hidden_act: String,
    /// Dropout probability of the output of each sublayer, in `[0, 1)`.
    pub hidden_dropout_prob: f64,
    /// Dropout probability of the attention probabilities, in `[0, 1)`.
    pub attention_probs_dropout_prob: f64,
    /// The number of rows of the position table.
    pub max_position_embeddings: usize,
    /// The number of token types; MPNet has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub type_vocab_size: Option<usize>,
    /// The standard deviation of initial weights.
    pub initializer_range: f64,
    /// Added to the variance in layer normalisation.
    pub layer_norm_eps: f64,
    /// The padding token.
    pub pad_token_id: Option<u32>,
    /// Dropout probability in the heads. Default: `hidden_dropout_prob`.
    #[serde(default)]
    pub classifier_dropout: Option<f64>,
    /// The number of buckets of MPNet's relative position bias; `transformers` always uses 32.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub relative_attention_num_buckets: Option<usize>,
    /// Whether the last layer of the masked-LM head is tied to the token embeddings.
    pub tie_word_embeddings: bool,
    /// All other keys of the file, kept unchanged.
    #[serde(flatten)]
    pub other: serde_json::Map<String, serde_json::Value>,
}

impl BertConfig {
    /// Returns the configuration of a BERT of the given sizes, without dropout, for at most 512
    /// tokens.
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

    /// Sets the class names of a head.
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

    /// Returns the position of padding, which precedes that of the first token.
    fn pad_position(&self) -> Result<Option<u32>> {
        Ok(match Variant::find(&self.model_type)?.positions {
            FirstPosition::Zero => None,
            FirstPosition::Behind(position) => Some(position),
            FirstPosition::BehindPadding => Some(
                self.pad_token_id
                    .ok_or_else(|| Error::config("pad_token_id", "the id of the padding token", "null"))?,
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
            // The reference uses 32 buckets regardless of this key.
            (true, Some(32)) | (false, None) => {}
            (relative, found) => {
                let expected = if relative { "32" } else { "none, since only MPNet has this key" };
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

/// The architecture `bert` of llama.cpp, which is only read.
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
