//! The file of a Word2Vec run.
//!
//! Arrays: `input`, `output`, `counts`, `letters` and `ends` (the concatenated words, and the end
//! of each).

use std::path::Path;

use super::{Word2Vec, Word2VecModel};
use crate::Result;
use crate::embeddings::checkpoint::{Array, Notes, Saved, write};
use crate::embeddings::training::run::{Position, Tables};
use crate::embeddings::training::vocabulary::TrainingVocabulary;
use crate::embeddings::words::Words;

const FORMAT: &str = "loquat word2vec 1";

pub(super) fn save(
    path: &Path,
    config: &Word2Vec,
    vocabulary: &TrainingVocabulary,
    tables: &Tables,
    position: &Position,
) -> Result<()> {
    let letters: String = vocabulary.words.iter().collect();
    let end = |end: &mut u64, word: &str| {
        *end += word.len() as u64;
        Some(*end)
    };
    let ends: Vec<u64> = vocabulary.words.iter().scan(0, end).collect();
    let arrays = vec![
        Array::rows("input", &tables.input, config.dim),
        Array::rows("output", &tables.output, config.dim),
        Array::counts("counts", &vocabulary.counts),
        Array::counts("ends", &ends),
        Array::text("letters", &letters),
    ];
    let text = (vocabulary.text_words, vocabulary.text_bytes);
    let notes = Notes::default().with("format", &FORMAT)?.with("config", config)?;
    write(path, &arrays, &notes.with("position", position)?.with("text", &text)?)
}

impl Word2VecModel {
    /// Saves the model. [`Word2VecModel::load`] reads it for further training.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io) or [`Error::Format`](crate::Error::Format) if the file
    /// cannot be written.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        save(path.as_ref(), &self.config, &self.vocabulary, &self.tables, &self.position)
    }

    /// Loads a model written by [`Word2VecModel::save`] or as a checkpoint.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io); [`Error::Format`](crate::Error::Format) if the file has
    /// another format.
    pub fn load(path: impl AsRef<Path>) -> Result<Self> {
        let saved = Saved::open(path.as_ref(), FORMAT)?;
        let config: Word2Vec = saved.note("config")?;
        config.check().map_err(|e| saved.wrong(e.to_string()))?;
        let position: Position = saved.note("position")?;
        let (text_words, text_bytes) = saved.note("text")?;
        let letters = saved.text("letters")?;
        let (counts, ends) = (saved.counts("counts")?, saved.counts("ends")?);
        let (mut words, mut start) = (Words::default(), 0);
        for &end in &ends {
            let word = usize::try_from(end).ok().and_then(|end| letters.get(start..end));
            words.push(word.ok_or_else(|| saved.wrong(format!("ends: expected the end of a word, found {end}")))?);
            start = end as usize;
        }
        if counts.len() != words.len() || words.duplicate().is_some() || words.len() == 0 || config.dim == 0 {
            return Err(saved.wrong("expected one count per word and no duplicate words"));
        }
        let buckets = config.ngrams.map_or(0, |ngrams| ngrams.buckets);
        let rows = words.len().checked_add(buckets).ok_or_else(|| saved.wrong("expected fewer buckets"))?;
        let input = saved.rows("input", rows, config.dim)?;
        let tables = Tables { input, output: saved.rows("output", words.len(), config.dim)? };
        let vocabulary = TrainingVocabulary { words, counts, text_words, text_bytes };
        Ok(Word2VecModel { config, vocabulary, tables, position })
    }
}
