//! A run of word2vec in a file, to go on from: safetensors, with the settings and the position as JSON in its metadata.
//!
//! Tensors: `input`, `output` (`f32`), `counts` (`u64`), `letters` and `ends` (the words, one after the other, and where
//! each ends). The file is written under another name, synced and renamed.

use std::collections::HashMap;
use std::path::Path;

use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};

use super::training::run::{Position, Tables};
use super::training::vocabulary::Vocabulary;
use super::word2vec::{Word2Vec, Word2VecModel};
use super::words::Words;
use crate::mapped::{Load, MappedFile};
use crate::{Error, Result};

pub(super) fn save(
    path: &Path,
    config: &Word2Vec,
    vocabulary: &Vocabulary,
    tables: &Tables,
    position: &Position,
) -> Result<()> {
    let letters: String = vocabulary.words.iter().collect();
    let ends: Vec<u64> = vocabulary
        .words
        .iter()
        .scan(0, |end, word| {
            *end += word.len() as u64;
            Some(*end)
        })
        .collect();
    let view = |dtype, shape: Vec<usize>, bytes| TensorView::new(dtype, shape, bytes);
    let floats = |x: &'_ [f32]| (vec![x.len() / config.dim, config.dim], bytemuck::cast_slice::<f32, u8>(x).len());
    let (input_shape, output_shape) = (floats(&tables.input).0, floats(&tables.output).0);
    let tensors = || -> std::result::Result<Vec<(&str, TensorView<'_>)>, safetensors::SafeTensorError> {
        Ok(vec![
            ("input", view(Dtype::F32, input_shape, bytemuck::cast_slice(&tables.input))?),
            ("output", view(Dtype::F32, output_shape, bytemuck::cast_slice(&tables.output))?),
            ("counts", view(Dtype::U64, vec![ends.len()], bytemuck::cast_slice(&vocabulary.counts))?),
            ("ends", view(Dtype::U64, vec![ends.len()], bytemuck::cast_slice(&ends))?),
            ("letters", view(Dtype::U8, vec![letters.len()], letters.as_bytes())?),
        ])
    };
    let wrong = |e: &dyn std::fmt::Display| Error::format(path, e.to_string());
    let json = |value: serde_json::Result<String>| value.map_err(|e| wrong(&e));
    let metadata = HashMap::from([
        ("config".to_string(), json(serde_json::to_string(config))?),
        ("position".to_string(), json(serde_json::to_string(position))?),
        ("text".to_string(), format!("{} {}", vocabulary.text_words, vocabulary.text_bytes)),
        ("format".to_string(), "loquat word2vec 1".to_string()),
    ]);
    let temporary = path.with_extension(format!("{}.partial", std::process::id()));
    let written = tensors().map_err(|e| wrong(&e)).and_then(|tensors| {
        safetensors::serialize_to_file(tensors, Some(metadata), &temporary).map_err(|e| wrong(&e))?;
        let sync = || std::fs::File::open(&temporary)?.sync_all();
        sync().and_then(|()| std::fs::rename(&temporary, path)).map_err(|e| Error::io(path, e))
    });
    if written.is_err() {
        let _ = std::fs::remove_file(&temporary);
    }
    written
}

impl Word2VecModel {
    /// Writes all that a run has learnt: [`Word2VecModel::load`] gives it back, to train on.
    ///
    /// # Errors
    /// [`Error::Io`] or [`Error::Format`] when the file cannot be written.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        save(path.as_ref(), &self.config, &self.vocabulary, &self.tables, &self.position)
    }

    /// Reads what [`Word2VecModel::save`] or a checkpoint wrote.
    ///
    /// # Errors
    /// [`Error::Io`], or [`Error::Format`] when the file is something else.
    pub fn load(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let wrong = |reason: String| Error::format(path, reason);
        let file = MappedFile::open(path, Load::Mmap)?;
        let (_, header) = SafeTensors::read_metadata(&file).map_err(|e| wrong(e.to_string()))?;
        let tensors = SafeTensors::deserialize(&file).map_err(|e| wrong(e.to_string()))?;
        let entry = |key: &str| {
            let value = header.metadata().as_ref().and_then(|m| m.get(key));
            value.ok_or_else(|| wrong(format!("expected a word2vec checkpoint, found no `{key}`")))
        };
        let config: Word2Vec = serde_json::from_str(entry("config")?).map_err(|e| wrong(format!("config: {e}")))?;
        let position: Position =
            serde_json::from_str(entry("position")?).map_err(|e| wrong(format!("position: {e}")))?;
        let (text_words, text_bytes) = entry("text")?
            .split_once(' ')
            .and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)))
            .ok_or_else(|| wrong("text: expected two numbers".into()))?;
        let bytes = |name: &str, dtype: Dtype| {
            let tensor = tensors.tensor(name).map_err(|e| wrong(format!("{name}: {e}")))?;
            if tensor.dtype() != dtype {
                return Err(wrong(format!("{name}: expected {dtype:?}, found {:?}", tensor.dtype())));
            }
            Ok(tensor.data())
        };
        let u64s = |name: &str| -> Result<Vec<u64>> {
            let (numbers, _) = bytes(name, Dtype::U64)?.as_chunks::<8>();
            Ok(numbers.iter().map(|b| u64::from_le_bytes(*b)).collect())
        };
        let f32s = |name: &str, rows: usize| -> Result<Vec<f32>> {
            let (numbers, _) = bytes(name, Dtype::F32)?.as_chunks::<4>();
            if rows.checked_mul(config.dim) != Some(numbers.len()) {
                return Err(wrong(format!("{name}: expected {rows} rows of {}, found {}", config.dim, numbers.len())));
            }
            Ok(numbers.iter().map(|b| f32::from_le_bytes(*b)).collect())
        };
        let letters = std::str::from_utf8(bytes("letters", Dtype::U8)?).map_err(|e| wrong(format!("letters: {e}")))?;
        let (counts, ends) = (u64s("counts")?, u64s("ends")?);
        let (mut words, mut start) = (Words::default(), 0);
        for &end in &ends {
            let word = usize::try_from(end).ok().and_then(|end| letters.get(start..end));
            words.push(word.ok_or_else(|| wrong(format!("ends: expected the end of a word, found {end}")))?);
            start = end as usize;
        }
        if counts.len() != words.len() || words.duplicate().is_some() || words.len() == 0 || config.dim == 0 {
            return Err(wrong("expected a count for each word, and each word once".into()));
        }
        let buckets = config.ngrams.map_or(0, |ngrams| ngrams.buckets);
        let rows = words.len().checked_add(buckets).ok_or_else(|| wrong("expected fewer buckets".into()))?;
        let tables = Tables { input: f32s("input", rows)?, output: f32s("output", words.len())? };
        let vocabulary = Vocabulary { words, counts, text_words, text_bytes };
        Ok(Word2VecModel { config, vocabulary, tables, position })
    }
}
