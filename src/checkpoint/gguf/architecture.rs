//! The GGUF description of a model family: names and layout of its tensors, and the conversions
//! between metadata and `config.json`.

use serde_json::Value as Json;

pub(crate) use super::keys::{KeyWriter, Keys};
use super::{ENDS, GgufFile};
use crate::checkpoint::view::Arrangement;
use crate::error::Result;

/// An architecture of llama.cpp.
#[derive(Debug)]
pub(crate) struct Architecture {
    /// Value of `general.architecture`.
    pub(crate) name: &'static str,
    /// Values of `model_type` that are saved as this architecture.
    pub(crate) model_types: &'static [&'static str],
    /// Path before the block number in `transformers`.
    pub(crate) blocks: &'static str,
    /// Names of tensors outside of blocks, without `.weight` and `.bias`: in GGUF and in
    /// `transformers`.
    pub(crate) global: &'static [(&'static str, &'static str)],
    /// The same for a block's tensors, relative to the block.
    pub(crate) block: &'static [(&'static str, &'static str)],
    /// Tensors of a block with another layout than in `transformers`, by GGUF name or prefix:
    /// `attn_q` stands for weight and bias.
    pub(crate) arranged: &'static [(&'static str, Arranged)],
    /// Metadata keys with the architecture's prefix that `read` reads or that have no effect,
    /// besides those of every architecture.
    pub(crate) keys: &'static [&'static str],
    /// Converts the metadata to a `config.json`.
    pub(crate) read: fn(&Keys<'_>) -> Result<Json>,
    /// Converts a `config.json` to metadata; `None` if saving is not supported. Unknown keys, and
    /// values without a GGUF key, are errors; settings of training are left out.
    pub(crate) write: Option<fn(&mut KeyWriter<'_, '_>) -> Result<()>>,
    /// Whether a token embedding that is tied to the head is saved as both.
    pub(crate) repeats_table: bool,
    /// Maximum number of end tokens in the `config.json`.
    pub(crate) ends: usize,
    /// Whether attention is causal.
    pub(crate) causal: bool,
}

/// Layout of a block's tensor in GGUF.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Arranged {
    /// Axes are exchanged.
    Transposed,
    /// The rows of each query head are in the order `0, d/2, 1, d/2 + 1, …`: rotation pairs
    /// adjacent rows.
    PairsOfQueries,
    /// The same for the key heads.
    PairsOfKeys,
    /// All queries, then all keys, then all values, instead of query, key and value of each head as
    /// in `transformers`.
    SideBySide,
}

impl Architecture {
    /// Converts a GGUF tensor name to that of `transformers`.
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

    /// Converts a tensor name of `transformers` to that of GGUF.
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

    /// Returns the layout of a GGUF tensor with the given shape in `transformers`; `heads` are the
    /// numbers of query and key heads.
    ///
    /// # Errors
    /// The reason, if the number of heads does not divide the rows.
    pub(super) fn arrangement(
        &self,
        gguf: &str,
        shape: &[usize],
        heads: (usize, usize),
    ) -> std::result::Result<Arrangement, String> {
        let part = gguf.strip_prefix("blk.").and_then(|block| block.split_once('.')).map_or("", |(_, part)| part);
        let fits = |name: &str| part.strip_prefix(name).is_some_and(|end| end.is_empty() || end.starts_with('.'));
        let Some((_, arranged)) = self.arranged.iter().find(|(name, _)| fits(name)) else {
            return Ok(Arrangement::Same);
        };
        let pairs = |heads: usize| Arrangement::pairs(shape[0], heads);
        match arranged {
            Arranged::Transposed if shape.len() == 2 => Ok(Arrangement::Transposed),
            Arranged::Transposed => Ok(Arrangement::Same),
            Arranged::PairsOfQueries => pairs(heads.0),
            Arranged::PairsOfKeys => pairs(heads.1),
            Arranged::SideBySide => Arrangement::side_by_side(shape[0], heads.0),
        }
    }

    /// Returns the `config.json` of the model in a file.
    ///
    /// # Errors
    /// [`Error::Format`](crate::Error::Format) for a missing or invalid key;
    /// [`Error::Config`](crate::Error::Config) for an unsupported option.
    pub(crate) fn config_json(&self, file: &GgufFile) -> Result<Json> {
        let keys = Keys { file, architecture: self.name, known: self.keys, causal: self.causal };
        keys.check()?;
        let mut config = (self.read)(&keys)?;
        let id = |role: &str| {
            file.get(&format!("tokenizer.ggml.{role}_token_id"))?.as_u64().filter(|&id| id < u64::from(u32::MAX))
        };
        if let Some(id) = id("bos") {
            config["bos_token_id"] = id.into();
        }
        // Instruction-tuned models have different tokens for the end of a turn and of a text.
        let mut ends: Vec<u64> = Vec::new();
        for id in ENDS.iter().filter_map(|role| id(role)) {
            if !ends.contains(&id) && ends.len() < self.ends {
                ends.push(id);
            }
        }
        match *ends {
            [] => {}
            [id] => config["eos_token_id"] = id.into(),
            _ => config["eos_token_id"] = ends.into(),
        }
        if let Some(id) = file.get("tokenizer.ggml.padding_token_id").and_then(|id| id.as_u64()) {
            config["pad_token_id"] = id.into();
        }
        Ok(config)
    }
}
