//! Tensors under the names that `transformers` gives them, so that a model's file needs to know nothing of GGUF.
//!
//! | architecture | `model_type` | differences besides the names |
//! |---|---|---|
//! | `llama` | `llama`, `mistral` | rows of the query and key projections are in pairs, as interleaved rotation wants them |
//! | `qwen2`, `qwen3` | the same | none |
//! | `gpt2` | `gpt2` | weights are `[out, in]`, those of `transformers` `[in, out]` |
//! | `bert` | `bert` | none |

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use super::rope::ROPE_FREQS;
use super::{GgufFile, Value};
use crate::checkpoint::{DType, TensorView};
use crate::error::{Error, Result};
use crate::mapped::MappedFile;

/// How a tensor of a file lies, against how `transformers` has it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Arrangement {
    /// The same way.
    #[default]
    Same,
    /// Each head's rows `0, d/2, 1, d/2 + 1, …`: the two halves taken in turns.
    RowsInPairs {
        /// How many heads share the rows.
        heads: usize,
    },
    /// With its two axes exchanged.
    Transposed,
}

impl Arrangement {
    /// For each row as `transformers` has it, the file's row; for [`Arrangement::RowsInPairs`] of `rows` rows.
    pub(crate) fn row_in_file(rows: usize, heads: usize, row: usize) -> usize {
        let head = rows / heads;
        let (start, within) = (row / head * head, row % head);
        start + within % (head / 2) * 2 + within / (head / 2)
    }
}

/// An architecture's names: GGUF's and those of `transformers`.
#[derive(Debug)]
pub(super) struct Architecture {
    pub(super) name: &'static str,
    /// Before the number of a block, in `transformers`.
    blocks: &'static str,
    global: &'static [(&'static str, &'static str)],
    block: &'static [(&'static str, &'static str)],
    /// Weights of blocks that are transposed.
    transposed: &'static [&'static str],
}

const LLAMA_GLOBAL: &[(&str, &str)] =
    &[("token_embd", "model.embed_tokens"), ("output_norm", "model.norm"), ("output", "lm_head")];

const LLAMA_BLOCK: &[(&str, &str)] = &[
    ("attn_norm", "input_layernorm"),
    ("attn_q", "self_attn.q_proj"),
    ("attn_k", "self_attn.k_proj"),
    ("attn_v", "self_attn.v_proj"),
    ("attn_output", "self_attn.o_proj"),
    ("attn_q_norm", "self_attn.q_norm"),
    ("attn_k_norm", "self_attn.k_norm"),
    ("ffn_norm", "post_attention_layernorm"),
    ("ffn_gate", "mlp.gate_proj"),
    ("ffn_up", "mlp.up_proj"),
    ("ffn_down", "mlp.down_proj"),
];

const LLAMA: Architecture =
    Architecture { name: "llama", blocks: "model.layers.", global: LLAMA_GLOBAL, block: LLAMA_BLOCK, transposed: &[] };

const GPT2: Architecture = Architecture {
    name: "gpt2",
    blocks: "transformer.h.",
    global: &[
        ("token_embd", "transformer.wte"),
        ("position_embd", "transformer.wpe"),
        ("output_norm", "transformer.ln_f"),
        ("output", "lm_head"),
    ],
    block: &[
        ("attn_norm", "ln_1"),
        ("attn_qkv", "attn.c_attn"),
        ("attn_output", "attn.c_proj"),
        ("ffn_norm", "ln_2"),
        ("ffn_up", "mlp.c_fc"),
        ("ffn_down", "mlp.c_proj"),
    ],
    transposed: &["attn_qkv", "attn_output", "ffn_up", "ffn_down"],
};

const BERT: Architecture = Architecture {
    name: "bert",
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
    transposed: &[],
};

const ARCHITECTURES: [Architecture; 5] =
    [LLAMA, Architecture { name: "qwen2", ..LLAMA }, Architecture { name: "qwen3", ..LLAMA }, GPT2, BERT];

impl Architecture {
    pub(super) fn find(name: &str) -> Option<&'static Self> {
        static ALL: [Architecture; 5] = ARCHITECTURES;
        ALL.iter().find(|architecture| architecture.name == name)
    }

    /// The name in `transformers` of a tensor of GGUF.
    pub(super) fn to_transformers(&self, gguf: &str) -> Option<String> {
        let (stem, end) = gguf.rsplit_once('.')?;
        if let Some(block) = stem.strip_prefix("blk.") {
            let (number, stem) = block.split_once('.')?;
            let (_, theirs) = self.block.iter().find(|(ours, _)| *ours == stem)?;
            return Some(format!("{}{number}.{theirs}.{end}", self.blocks));
        }
        let (_, theirs) = self.global.iter().find(|(ours, _)| *ours == stem)?;
        Some(format!("{theirs}.{end}"))
    }

    /// The name in GGUF of a tensor of `transformers`.
    pub(super) fn to_gguf(&self, theirs: &str) -> Option<String> {
        let (stem, end) = theirs.rsplit_once('.')?;
        if let Some(block) = stem.strip_prefix(self.blocks) {
            let (number, stem) = block.split_once('.')?;
            let (ours, _) = self.block.iter().find(|(_, name)| *name == stem)?;
            return Some(format!("blk.{number}.{ours}.{end}"));
        }
        let (ours, _) = self.global.iter().find(|(_, name)| *name == stem)?;
        Some(format!("{ours}.{end}"))
    }

    /// How a tensor of GGUF lies; the numbers are those of the heads of queries and of keys.
    pub(super) fn arrangement(&self, gguf: &str, heads: (usize, usize)) -> Arrangement {
        let part = gguf.strip_prefix("blk.").and_then(|block| block.split('.').nth(1)).unwrap_or_default();
        match part {
            "attn_q" if self.name == LLAMA.name => Arrangement::RowsInPairs { heads: heads.0 },
            "attn_k" if self.name == LLAMA.name => Arrangement::RowsInPairs { heads: heads.1 },
            part if self.transposed.contains(&part) && gguf.ends_with(".weight") => Arrangement::Transposed,
            _ => Arrangement::Same,
        }
    }
}

/// A file whose tensors go by the names of `transformers`; those of an architecture that is not known, and tensors that its
/// table lacks, by their own. The divisors of rotary frequencies are not among them: they are part of the configuration.
#[derive(Debug)]
pub struct GgufTensors {
    file: GgufFile,
    tensors: BTreeMap<String, Place>,
}

#[derive(Debug)]
struct Place {
    file: Arc<MappedFile>,
    bytes: Range<usize>,
    dtype: DType,
    shape: Vec<usize>,
    arrangement: Arrangement,
}

impl GgufTensors {
    /// Finds the names of a file's tensors.
    ///
    /// # Errors
    /// [`Error::Format`] if the number of heads is missing or does not divide what it should, or two tensors get one name.
    pub fn new(file: GgufFile) -> Result<Self> {
        let architecture = file.architecture().and_then(Architecture::find);
        let heads = architecture.map_or(Ok((0, 0)), |architecture| heads(&file, architecture.name))?;
        let mut tensors = BTreeMap::new();
        for tensor in file.tensors().filter(|tensor| architecture.is_none() || tensor.name() != ROPE_FREQS) {
            let mut shape = tensor.shape().to_vec();
            let known = architecture.and_then(|a| Some((a.to_transformers(tensor.name())?, a)));
            let (name, mut arrangement) = match known {
                Some((name, architecture)) => (name, architecture.arrangement(tensor.name(), heads)),
                None => (tensor.name().to_string(), Arrangement::Same),
            };
            let wrong =
                |reason: String| Err(Error::format(file.path(), format!("tensor `{}`: {reason}", tensor.name())));
            match arrangement {
                Arrangement::Transposed if shape.len() == 2 => shape.swap(0, 1),
                Arrangement::Transposed => arrangement = Arrangement::Same,
                Arrangement::RowsInPairs { heads } if heads == 0 || !shape[0].is_multiple_of(2 * heads) => {
                    return wrong(format!("expected pairs of rows for {heads} heads, found {} rows", shape[0]));
                }
                _ => {}
            }
            let (file_of, dtype) = (tensor.file.clone(), tensor.tensor_type().dtype());
            let place = Place { file: file_of, bytes: tensor.range(), dtype, shape, arrangement };
            if tensors.insert(name.clone(), place).is_some() {
                return wrong(format!("expected one tensor for `{name}`, found two"));
            }
        }
        Ok(Self { file, tensors })
    }

    /// The file.
    pub fn file(&self) -> &GgufFile {
        &self.file
    }

    /// The tensors' names, in alphabetical order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// A tensor by name.
    pub fn tensor(&self, name: &str) -> Option<TensorView<'_>> {
        let (name, Place { file, bytes, dtype, shape, arrangement }) = self.tensors.get_key_value(name)?;
        let (bytes, arrangement) = (bytes.clone(), *arrangement);
        Some(TensorView { name, dtype, shape, file, bytes, arrangement })
    }
}

/// The heads of queries and of keys.
pub(super) fn heads(file: &GgufFile, architecture: &str) -> Result<(usize, usize)> {
    let whole = "a whole number, the same for every layer";
    let read = |value: Value<'_>| match value.as_array() {
        // One number for each layer; only equal ones fit one configuration.
        Some(array) => {
            let mut numbers = array.values().map(|value| value.as_usize());
            let first = numbers.next()??;
            numbers.all(|n| n == Some(first)).then_some(first)
        }
        None => value.as_usize(),
    };
    let heads = file.optional(&format!("{architecture}.attention.head_count"), whole, read)?;
    let key_heads = file.optional(&format!("{architecture}.attention.head_count_kv"), whole, read)?;
    let heads = heads.unwrap_or(0);
    Ok((heads, key_heads.unwrap_or(heads)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_go_both_ways() {
        let cases = [
            ("llama", "blk.11.attn_q.weight", "model.layers.11.self_attn.q_proj.weight"),
            ("qwen2", "blk.0.attn_k.bias", "model.layers.0.self_attn.k_proj.bias"),
            ("qwen3", "blk.0.attn_q_norm.weight", "model.layers.0.self_attn.q_norm.weight"),
            ("llama", "output.weight", "lm_head.weight"),
            ("gpt2", "blk.3.ffn_down.bias", "transformer.h.3.mlp.c_proj.bias"),
            ("gpt2", "position_embd.weight", "transformer.wpe.weight"),
            ("bert", "blk.1.layer_output_norm.bias", "encoder.layer.1.output.LayerNorm.bias"),
            ("bert", "token_embd_norm.weight", "embeddings.LayerNorm.weight"),
        ];
        for (architecture, gguf, theirs) in cases {
            let architecture = Architecture::find(architecture).unwrap();
            assert_eq!(architecture.to_transformers(gguf).as_deref(), Some(theirs));
            assert_eq!(architecture.to_gguf(theirs).as_deref(), Some(gguf));
        }
        for name in ["blk.0", "blk.x.", "blk..attn_q.weight", "weight", "", ".", "attn_q.weight"] {
            let name = LLAMA.to_transformers(name);
            assert!(name.is_none_or(|name| name.starts_with("model.layers..")), "no panic");
        }
    }

    #[test]
    fn pairs_of_rows_are_taken_apart() {
        // Two heads of six rows: the file has 0 3 1 4 2 5 of each.
        let file: Vec<usize> = [0, 3, 1, 4, 2, 5, 6, 9, 7, 10, 8, 11].into();
        let ours: Vec<usize> = (0..12).map(|row| file[Arrangement::row_in_file(12, 2, row)]).collect();
        assert_eq!(ours, (0..12).collect::<Vec<_>>());
    }
}
