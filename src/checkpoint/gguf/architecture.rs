//! What a model family says of itself in GGUF: the names of its tensors, how they lie, and the two
//! ways between the metadata and a `config.json`.

use serde_json::Value as Json;

pub(crate) use super::keys::{KeyWriter, Keys};
use super::{ENDS, GgufFile};
use crate::checkpoint::view::Arrangement;
use crate::error::Result;

/// An architecture of llama.cpp.
#[derive(Debug)]
pub(crate) struct Architecture {
    /// The value of `general.architecture`.
    pub(crate) name: &'static str,
    /// The values of `model_type` that are written as this architecture.
    pub(crate) model_types: &'static [&'static str],
    /// The path before the number of a block, in `transformers`.
    pub(crate) blocks: &'static str,
    /// The names of tensors outside of blocks, without `.weight` and `.bias`: GGUF's, then those of
    /// `transformers`.
    pub(crate) global: &'static [(&'static str, &'static str)],
    /// The same of a block's tensors, below the block.
    pub(crate) block: &'static [(&'static str, &'static str)],
    /// Tensors of a block that lie otherwise than in `transformers`, by their name in GGUF, or by its
    /// beginning: `attn_q` stands for weight and bias.
    pub(crate) arranged: &'static [(&'static str, Arranged)],
    /// The keys below the architecture's name that `read` reads or that change nothing, beside those
    /// that every architecture has.
    pub(crate) keys: &'static [&'static str],
    /// From the metadata to a `config.json`.
    pub(crate) read: fn(&Keys<'_>) -> Result<Json>,
    /// From a `config.json` to the metadata, if files are written. It refuses keys that the family does
    /// not know, and values that GGUF has no key for; what only training reads is left out.
    pub(crate) write: Option<fn(&mut KeyWriter<'_, '_>) -> Result<()>>,
    /// Whether a token table that is the head too is written as both.
    pub(crate) repeats_table: bool,
    /// How many tokens that end a text the `config.json` has room for.
    pub(crate) ends: usize,
    /// Whether attention is causal.
    pub(crate) causal: bool,
}

/// How a tensor of a block lies in GGUF.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Arranged {
    /// With its axes exchanged.
    Transposed,
    /// Each query head's rows in the order `0, d/2, 1, d/2 + 1, …`: rotation turns neighbours.
    PairsOfQueries,
    /// The same of the key heads.
    PairsOfKeys,
    /// All queries, all keys, all values, where `transformers` has each head's query, key and value.
    SideBySide,
}

impl Architecture {
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

    /// How a tensor of GGUF with these axes in `transformers` lies; `heads` are the numbers of query
    /// and of key heads.
    ///
    /// # Errors
    /// The reason if the heads do not divide the rows.
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

    /// The `config.json` of the model in a file.
    ///
    /// # Errors
    /// [`Error::Format`](crate::Error::Format) naming a key that is missing or wrong;
    /// [`Error::Config`](crate::Error::Config) for an option that is not known.
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
        // Instruction-tuned models end a turn with another token than a text.
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
