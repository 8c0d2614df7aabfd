//! Co-occurrence counts: in memory, in a temporary file, or saved for later.

use std::io::{BufReader, Read, Write};
use std::path::Path;
use std::sync::Mutex;

use serde::{Deserialize, Serialize};

use super::records::{Record, Records, TempFolder};
use crate::embeddings::format::write_whole;
use crate::embeddings::training::lock;
use crate::embeddings::training::vocabulary::TrainingVocabulary;
use crate::embeddings::words::Words;
use crate::{Error, Result};

/// Which words stand near each other, and how often.
pub struct Cooccurrences {
    vocabulary: TrainingVocabulary,
    /// Locked because records in a file have a single read position.
    records: Mutex<Records>,
    window: usize,
    symmetric: bool,
    diagonal: u64,
}

impl std::fmt::Debug for Cooccurrences {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Cooccurrences({} words, window={})", self.vocabulary.len(), self.window)
    }
}

const MAGIC: &[u8; 8] = b"LQCOOC01";

/// The header of a file, before the records.
#[derive(Serialize, Deserialize)]
struct Header {
    window: usize,
    symmetric: bool,
    records: u64,
    diagonal: u64,
    text_words: u64,
    text_bytes: u64,
    words: Vec<String>,
    counts: Vec<u64>,
}

impl Cooccurrences {
    pub(super) fn new(
        vocabulary: TrainingVocabulary,
        mut records: Records,
        window: usize,
        symmetric: bool,
    ) -> Result<Self> {
        let mut diagonal = 0;
        records.for_each(|some| {
            diagonal += some.iter().filter(|r| r.first == r.second).count() as u64;
            Ok(())
        })?;
        let records = Mutex::new(records);
        Ok(Cooccurrences { vocabulary, records, window, symmetric, diagonal })
    }

    /// Returns the number of words.
    pub fn len(&self) -> usize {
        self.vocabulary.len()
    }

    /// Returns whether there are no words.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the number of stored pairs: unordered ones with a symmetric window.
    pub fn pairs(&self) -> u64 {
        self.lock().len()
    }

    /// Whether words after a word count in the same way as those before it.
    pub(crate) fn symmetric(&self) -> bool {
        self.symmetric
    }

    pub(super) fn diagonal(&self) -> u64 {
        self.diagonal
    }

    pub(super) fn vocabulary(&self) -> &TrainingVocabulary {
        &self.vocabulary
    }

    pub(super) fn with_records<R>(&self, use_them: impl FnOnce(&mut Records) -> Result<R>) -> Result<R> {
        use_them(&mut self.lock())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Records> {
        lock(&self.records)
    }

    /// Saves the counts and the vocabulary, for [`Cooccurrences::open`].
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be written.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        let header = Header {
            window: self.window,
            symmetric: self.symmetric,
            records: self.pairs(),
            diagonal: self.diagonal,
            text_words: self.vocabulary.text_words,
            text_bytes: self.vocabulary.text_bytes,
            words: self.vocabulary.words.iter().map(String::from).collect(),
            counts: self.vocabulary.counts.clone(),
        };
        let header = serde_json::to_vec(&header).map_err(|e| Error::format(path, e.to_string()))?;
        let mut records = self.lock();
        write_whole(path, |out| {
            out.write_all(MAGIC)?;
            out.write_all(&(header.len() as u64).to_le_bytes())?;
            out.write_all(&header)?;
            let written =
                records.for_each(|some| out.write_all(bytemuck::cast_slice(some)).map_err(|e| Error::io(path, e)));
            match written {
                Err(Error::Io { source, .. }) => Err(source),
                _ => Ok(()),
            }
        })
    }

    /// Reads counts that [`Cooccurrences::save`] wrote. Counts that do not fit into `memory_mb`
    /// megabytes are copied to a temporary file.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Format`] if the file has another format.
    pub fn open(path: impl AsRef<Path>, memory_mb: usize) -> Result<Self> {
        let path = path.as_ref();
        let wrong = |reason: String| Error::format(path, reason);
        let io = |e| Error::io(path, e);
        let file = std::fs::File::open(path).map_err(io)?;
        let size = file.metadata().map_err(io)?.len();
        let mut file = BufReader::with_capacity(1 << 20, file);
        let mut start = [0; 16];
        let n = file.read(&mut start).map_err(io)?;
        let header_len = match start.split_first_chunk::<8>() {
            Some((magic, len)) if n == 16 && magic == MAGIC => {
                u64::from_le_bytes(len.try_into().expect("eight of sixteen bytes"))
            }
            _ => return Err(wrong("byte 0: expected co-occurrence counts, found something else".into())),
        };
        if header_len > size - 16 {
            return Err(wrong(format!("byte 8: expected a header of {header_len} bytes, found the end of the file")));
        }
        let mut header = vec![0; header_len as usize];
        file.read_exact(&mut header).map_err(io)?;
        let header: Header = serde_json::from_slice(&header).map_err(|e| wrong(format!("header: {e}")))?;
        let record = size_of::<Record>() as u64;
        if header.records.checked_mul(record) != Some(size - 16 - header_len) {
            let found = (size - 16 - header_len) / record;
            return Err(wrong(format!("expected {} records, found {found}", header.records)));
        }
        let words: Words = header.words.iter().collect();
        if header.counts.len() != words.len() || words.duplicate().is_some() || words.len() == 0 {
            return Err(wrong("header: expected one count per word and no duplicate words".into()));
        }
        let folder = TempFolder::new(&std::env::temp_dir())?;
        let mut writer = Records::writer(&folder, memory_mb.saturating_mul(1 << 20));
        let mut diagonal = 0;
        for i in 0..header.records {
            let mut next = Record::default();
            file.read_exact(bytemuck::bytes_of_mut(&mut next)).map_err(io)?;
            let Record { first, second, x } = next;
            if first as usize >= words.len() || second as usize >= words.len() || !(x > 0.0 && x.is_finite()) {
                return Err(wrong(format!("record {i}: expected two words and a number above 0, found {next:?}")));
            }
            diagonal += u64::from(first == second);
            writer.push(next)?;
        }
        let vocabulary = TrainingVocabulary {
            words,
            counts: header.counts,
            text_words: header.text_words,
            text_bytes: header.text_bytes,
        };
        let records = Mutex::new(writer.finish()?);
        let (window, symmetric) = (header.window, header.symmetric);
        Ok(Cooccurrences { vocabulary, records, window, symmetric, diagonal })
    }
}
