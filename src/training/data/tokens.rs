//! A sequence of token ids, in memory or in a mapped file that may be larger than memory.
//!
//! The file format is that of nanoGPT's `train.bin`: the ids one after the other, little-endian, 16
//! bits each if the vocabulary is small enough and 32 bits otherwise, without a header.
//! [`TokenWriter`] writes such files; [`tokenize_to_file`] encodes text of any size into one, in
//! bounded memory.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::atomic::process_id;
use crate::mapped::{Load, MappedFile};
use crate::{Error, Result};

/// The width of an id in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenWidth {
    /// 16 bits, for vocabularies of up to 65 536 tokens.
    U16,
    /// 32 bits.
    U32,
}

impl TokenWidth {
    /// Returns the smallest width that fits every id of a vocabulary.
    pub fn of_vocab(vocab_size: usize) -> Self {
        if vocab_size <= 1 << 16 { TokenWidth::U16 } else { TokenWidth::U32 }
    }

    /// The number of bytes of an id.
    pub(crate) fn bytes(self) -> usize {
        match self {
            TokenWidth::U16 => 2,
            TokenWidth::U32 => 4,
        }
    }
}

/// A row of token ids, or a part of one. A clone shares the ids.
#[derive(Clone)]
pub struct TokenStream {
    ids: Ids,
    start: usize,
    len: usize,
}

impl std::fmt::Debug for TokenStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TokenStream({} ids)", self.len)
    }
}

#[derive(Clone)]
enum Ids {
    Memory(Arc<Vec<u32>>),
    File(Arc<MappedFile>, TokenWidth),
}

impl std::fmt::Debug for Ids {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Memory(_) => "Memory",
            Self::File(..) => "File",
        })
    }
}

impl TokenStream {
    /// Returns a sequence of ids in memory.
    pub fn from_ids(ids: Vec<u32>) -> Self {
        TokenStream { start: 0, len: ids.len(), ids: Ids::Memory(Arc::new(ids)) }
    }

    /// Maps a file of ids.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be opened; [`Error::Format`] if its length is not a
    /// multiple of the width.
    pub fn open(path: impl AsRef<Path>, width: TokenWidth) -> Result<Self> {
        Self::open_with(path, width, Load::Mmap)
    }

    /// Maps a file of ids or reads it into memory.
    ///
    /// # Errors
    /// Same as [`open`](TokenStream::open).
    pub fn open_with(path: impl AsRef<Path>, width: TokenWidth, load: Load) -> Result<Self> {
        let file = MappedFile::open(&path, load)?;
        if file.len() % width.bytes() != 0 {
            let reason = format!("expected ids of {} bytes each, found {} bytes", width.bytes(), file.len());
            return Err(Error::format(path.as_ref(), reason));
        }
        Ok(TokenStream { start: 0, len: file.len() / width.bytes(), ids: Ids::File(Arc::new(file), width) })
    }

    /// Returns the number of ids.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Returns whether there are no ids.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Returns the ids `start..start + len`.
    ///
    /// # Errors
    /// [`Error::Id`] if the range is out of bounds.
    pub fn ids(&self, start: usize, len: usize) -> Result<Vec<u32>> {
        let mut ids = Vec::new();
        self.append(start, len, &mut ids)?;
        Ok(ids)
    }

    /// Appends the ids `start..start + len` to a list.
    ///
    /// # Errors
    /// [`Error::Id`] if the range is out of bounds.
    pub(crate) fn append(&self, start: usize, len: usize, ids: &mut Vec<u32>) -> Result<()> {
        let Some(end) = start.checked_add(len).filter(|&end| end <= self.len) else {
            let id = (start as u64).saturating_add(len as u64);
            return Err(Error::Id { what: "end of a window of tokens".into(), id, limit: self.len + 1 });
        };
        let range = self.start + start..self.start + end;
        match &self.ids {
            Ids::Memory(all) => ids.extend_from_slice(&all[range]),
            Ids::File(file, TokenWidth::U16) => {
                let bytes = file[range.start * 2..range.end * 2].as_chunks::<2>().0;
                ids.extend(bytes.iter().map(|&b| u32::from(u16::from_le_bytes(b))));
            }
            Ids::File(file, TokenWidth::U32) => {
                let bytes = file[range.start * 4..range.end * 4].as_chunks::<4>().0;
                ids.extend(bytes.iter().map(|&b| u32::from_le_bytes(b)));
            }
        }
        Ok(())
    }

    /// Returns the slice `start..start + len`, which shares the ids.
    ///
    /// # Errors
    /// [`Error::Id`] if the range is out of bounds.
    pub(crate) fn slice(&self, start: usize, len: usize) -> Result<Self> {
        if start.checked_add(len).is_none_or(|end| end > self.len) {
            let id = (start as u64).saturating_add(len as u64);
            return Err(Error::Id { what: "end of a part of tokens".into(), id, limit: self.len + 1 });
        }
        Ok(TokenStream { ids: self.ids.clone(), start: self.start + start, len })
    }

    /// Splits the sequence into the first `fraction` of the ids and the rest, for training and
    /// validation. nanoGPT uses 0.9.
    ///
    /// # Errors
    /// [`Error::Argument`] if the fraction is not in [0, 1].
    pub fn split(&self, fraction: f64) -> Result<(Self, Self)> {
        if !(0.0..=1.0).contains(&fraction) {
            return Err(Error::argument("fraction", "a number in [0, 1]", fraction));
        }
        let first = ((self.len as f64 * fraction) as usize).min(self.len);
        Ok((self.slice(0, first)?, self.slice(first, self.len - first)?))
    }

    /// Returns the largest id, or `None` if there are no ids. Reads the whole sequence.
    pub fn max_id(&self) -> Option<u32> {
        const BLOCK: usize = 1 << 16;
        let mut block = Vec::with_capacity(BLOCK.min(self.len));
        let mut max = None;
        for start in (0..self.len).step_by(BLOCK) {
            block.clear();
            self.append(start, BLOCK.min(self.len - start), &mut block).expect("the block ends within the stream");
            max = max.max(block.iter().copied().max());
        }
        max
    }
}

/// A writer of files of ids. The file appears under its name only when
/// [`finish`](TokenWriter::finish) completes it.
///
/// # Examples
/// ```
/// use loquat::training::data::{TokenWidth, TokenWriter};
///
/// let path = std::env::temp_dir().join("loquat-token-writer-doc.bin");
/// let mut writer = TokenWriter::create(&path, TokenWidth::of_vocab(50_257))?;
/// writer.push(&[15496, 995])?;
/// let stream = writer.finish()?;
/// assert_eq!(stream.ids(0, 2)?, [15496, 995]);
/// assert_eq!(std::fs::metadata(&path)?.len(), 4); // two ids of 16 bits
/// # std::fs::remove_file(&path)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct TokenWriter {
    path: PathBuf,
    temporary: PathBuf,
    file: Option<BufWriter<File>>,
    width: TokenWidth,
    len: usize,
}

impl TokenWriter {
    /// Creates a file.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be created.
    pub fn create(path: impl AsRef<Path>, width: TokenWidth) -> Result<Self> {
        let path = path.as_ref().to_path_buf();
        let mut temporary = path.clone().into_os_string();
        temporary.push(format!(".{}.tmp", process_id()));
        let temporary = PathBuf::from(temporary);
        let file = File::create(&temporary).map_err(|e| Error::io(&path, e))?;
        Ok(TokenWriter { path, temporary, file: Some(BufWriter::with_capacity(1 << 16, file)), width, len: 0 })
    }

    /// Appends ids.
    ///
    /// # Errors
    /// [`Error::Id`] if an id does not fit the width; [`Error::Io`] if writing fails.
    pub fn push(&mut self, ids: &[u32]) -> Result<()> {
        let file = self.file.as_mut().expect("the file is open until it is finished");
        let written = match self.width {
            TokenWidth::U16 => {
                if let Some(&id) = ids.iter().find(|&&id| id > u32::from(u16::MAX)) {
                    return Err(Error::Id { what: "16-bit token".into(), id: id.into(), limit: 1 << 16 });
                }
                ids.iter().try_for_each(|&id| file.write_all(&(id as u16).to_le_bytes()))
            }
            TokenWidth::U32 => ids.iter().try_for_each(|&id| file.write_all(&id.to_le_bytes())),
        };
        written.map_err(|e| Error::io(&self.path, e))?;
        self.len += ids.len();
        Ok(())
    }

    /// Completes the file and maps it.
    ///
    /// # Errors
    /// [`Error::Io`] if writing or renaming fails.
    pub fn finish(mut self) -> Result<TokenStream> {
        let file = self.file.take().expect("the file is open until it is finished");
        let place = |file: BufWriter<File>| -> std::io::Result<()> {
            file.into_inner().map_err(|e| e.into_error())?.sync_all()?;
            std::fs::rename(&self.temporary, &self.path)
        };
        place(file).map_err(|e| Error::io(&self.path, e))?;
        TokenStream::open(&self.path, self.width)
    }
}

impl Drop for TokenWriter {
    fn drop(&mut self) {
        self.file = None;
        let _ = std::fs::remove_file(&self.temporary); // does not exist any more after `finish`
    }
}

impl std::fmt::Debug for TokenWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenWriter").field("path", &self.path).field("len", &self.len).finish()
    }
}

#[cfg(feature = "tokenizers")]
pub use tokenize::{tokenize, tokenize_to_file};

#[cfg(feature = "tokenizers")]
mod tokenize {
    use rayon::prelude::*;

    use super::*;
    use crate::text::{Corpus, Tokenizer};

    /// Bytes of text in memory at once.
    const PIECE: usize = 4 << 20;

    /// Encodes a corpus into memory. The token `end`, if given, is appended after each file.
    ///
    /// # Errors
    /// The errors of the corpus and the tokenizer; [`Error::Format`] if there is no text.
    ///
    /// # Examples
    /// ```
    /// use loquat::text::{Corpus, TokenizerTrainer};
    /// use loquat::training::data::tokenize;
    ///
    /// let path = std::env::temp_dir().join("loquat-tokenize-doc.txt");
    /// std::fs::write(&path, "abba")?;
    /// let tokenizer = TokenizerTrainer::chars().train_files([&path])?;
    /// let stream = tokenize(&Corpus::open(&path)?, &tokenizer, None)?;
    /// assert_eq!(tokenizer.decode(&stream.ids(0, 4)?)?, "abba");
    /// # std::fs::remove_file(&path)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn tokenize(corpus: &Corpus, tokenizer: &Tokenizer, end: Option<u32>) -> Result<TokenStream> {
        let mut all = Vec::new();
        encode(corpus, tokenizer, end, |ids| {
            all.extend_from_slice(ids);
            Ok(())
        })?;
        Ok(TokenStream::from_ids(all))
    }

    /// Encodes a corpus into a file of ids, in memory that does not grow with the corpus. The token
    /// `end`, if given, is appended after each file.
    ///
    /// The text is encoded in blocks that end at the end of a line without other white space around
    /// it. Tokenizers that split at such a place anyway (byte-level, WordPiece, characters) give
    /// the same ids as for the whole text at once; tokenizers that insert a space before every text
    /// (Llama-2, T5) insert one at the beginning of each block.
    ///
    /// # Errors
    /// The errors of the corpus and the tokenizer; [`Error::Format`] if there is no text;
    /// [`Error::Io`] if writing fails. No file is left behind after an error.
    pub fn tokenize_to_file(
        corpus: &Corpus,
        tokenizer: &Tokenizer,
        end: Option<u32>,
        path: impl AsRef<Path>,
    ) -> Result<TokenStream> {
        let mut writer = TokenWriter::create(path, TokenWidth::of_vocab(tokenizer.vocab_size()))?;
        encode(corpus, tokenizer, end, |ids| writer.push(ids))?;
        writer.finish()
    }

    fn encode(
        corpus: &Corpus,
        tokenizer: &Tokenizer,
        end: Option<u32>,
        mut put: impl FnMut(&[u32]) -> Result<()>,
    ) -> Result<()> {
        let mut any = false;
        for path in corpus.paths() {
            let mut text = String::new();
            for piece in Corpus::open(path)?.pieces(PIECE) {
                text.push_str(&piece?);
                let whole = encode_blocks(&text, tokenizer, false, &mut put)?;
                text.drain(..whole);
                any = true;
            }
            encode_blocks(&text, tokenizer, true, &mut put)?;
            if let Some(end) = end {
                put(&[end])?;
            }
        }
        if !any {
            let path = corpus.paths().next().unwrap_or(Path::new(""));
            return Err(Error::format(path, "expected text, found an empty file"));
        }
        Ok(())
    }

    /// Encodes the blocks of a text and returns the end of the last one, which is the end of the
    /// text if `all` is set.
    fn encode_blocks(
        text: &str,
        tokenizer: &Tokenizer,
        all: bool,
        put: &mut impl FnMut(&[u32]) -> Result<()>,
    ) -> Result<usize> {
        let block = tokenizer.block_bytes();
        let mut blocks = Vec::new();
        let mut start = 0;
        while start < text.len() {
            let end = match border(text, start + block) {
                Some(end) => end,
                None if all => text.len(),
                None => break,
            };
            blocks.push(&text[start..end]);
            start = end;
        }
        crate::kernels::parallel::adopt();
        let ids: Vec<Vec<u32>> =
            blocks.par_iter().map(|block| tokenizer.encode_without_special(block)).collect::<Result<_>>()?;
        ids.iter().try_for_each(|ids| put(ids))?;
        Ok(start)
    }

    /// Returns the first end of a block at or after `from`: after a line feed between characters
    /// that are not white space (a run of white space is split depending on what follows it). If
    /// the next few blocks have none, as in a text of one very long line: before a single space
    /// between two words.
    fn border(text: &str, from: usize) -> Option<usize> {
        const LOOK: usize = 1 << 18;
        let bytes = text.as_bytes();
        let no_space = |i: usize| bytes.get(i).is_some_and(|b| !b.is_ascii_whitespace() && b.is_ascii());
        let line = |i: usize| bytes[i - 1] == b'\n' && no_space(i - 2) && no_space(i);
        let line = (from.max(2)..bytes.len()).take(LOOK).find(|&i| line(i));
        let enough = bytes.len() > from.saturating_add(LOOK);
        line.or_else(|| {
            let space = |i: usize| bytes[i] == b' ' && no_space(i - 1) && no_space(i + 1);
            enough.then(|| (from.max(1)..bytes.len()).find(|&i| space(i))).flatten()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_round_trip_in_both_widths() {
        let folder = tempfile::tempdir().unwrap();
        for (width, top) in [(TokenWidth::U16, 65_535), (TokenWidth::U32, u32::MAX)] {
            let path = folder.path().join("ids.bin");
            let ids = [0, 1, 500, top, 7];
            let mut writer = TokenWriter::create(&path, width).unwrap();
            writer.push(&ids[..2]).unwrap();
            writer.push(&ids[2..]).unwrap();
            let stream = writer.finish().unwrap();
            assert_eq!(stream.ids(0, 5).unwrap(), ids);
            assert_eq!(stream.ids(3, 2).unwrap(), ids[3..]);
            assert_eq!(stream.slice(1, 3).unwrap().ids(1, 2).unwrap(), ids[2..4]);
            assert_eq!(stream.max_id(), Some(top));
            assert!(matches!(stream.ids(3, 3), Err(Error::Id { .. })));
            assert!(stream.ids(usize::MAX, 2).is_err() && stream.slice(2, usize::MAX).is_err());
            let read = TokenStream::open_with(&path, width, Load::Read).unwrap();
            assert_eq!(read.ids(0, 5).unwrap(), ids);
            assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "no temporary file");
        }
    }

    #[test]
    fn ids_that_do_not_fit_are_errors_and_leave_no_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ids.bin");
        let mut writer = TokenWriter::create(&path, TokenWidth::U16).unwrap();
        assert!(matches!(writer.push(&[65_536]), Err(Error::Id { id: 65_536, .. })));
        drop(writer);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        std::fs::write(&path, [1, 2, 3]).unwrap();
        for width in [TokenWidth::U16, TokenWidth::U32] {
            assert!(matches!(TokenStream::open(&path, width), Err(Error::Format { .. })));
        }
    }

    #[test]
    fn a_split_is_two_parts_of_one_stream() {
        let stream = TokenStream::from_ids((0..11).collect());
        let (a, b) = stream.split(0.9).unwrap();
        assert_eq!([a.ids(0, 9).unwrap(), b.ids(0, 2).unwrap()].concat(), stream.ids(0, 11).unwrap());
        assert!(stream.split(1.5).is_err() && stream.split(f64::NAN).is_err());
        assert_eq!(stream.split(1.0).unwrap().1.len(), 0);
        assert_eq!(TokenStream::from_ids(vec![]).max_id(), None);
    }

    #[cfg(feature = "tokenizers")]
    #[test]
    fn a_text_encoded_in_blocks_has_the_ids_of_the_whole_text() {
        use crate::text::{Corpus, TokenizerTrainer};
        let folder = tempfile::tempdir().unwrap();
        let lines: String = (0..9000)
            .map(|i| format!("line {i} of größer{}\n{}", i % 13, ["", "\n", " \n  x", "  \n"][i % 4]))
            .collect();
        let endless = lines.replace('\n', " ");
        for (name, text) in [("lines", lines), ("endless", endless)] {
            let path = folder.path().join(name);
            std::fs::write(&path, &text).unwrap();
            let corpus = Corpus::open(&path).unwrap();
            for trainer in [TokenizerTrainer::byte_level_bpe().vocab_size(400), TokenizerTrainer::chars()] {
                let tokenizer = trainer.train_files([&path]).unwrap();
                let whole = tokenizer.encode_without_special(&text).unwrap();
                let stream = tokenize(&corpus, &tokenizer, Some(3)).unwrap();
                assert_eq!(stream.len(), whole.len() + 1);
                assert!(stream.ids(0, whole.len()).unwrap() == whole, "{name}");
                assert_eq!(stream.ids(whole.len(), 1).unwrap(), [3]);
                let file = tokenize_to_file(&corpus, &tokenizer, None, folder.path().join("ids")).unwrap();
                assert!(file.ids(0, file.len()).unwrap() == whole);
            }
        }
        let empty = folder.path().join("empty");
        std::fs::write(&empty, "").unwrap();
        let tokenizer = TokenizerTrainer::chars().train(["ab"]).unwrap();
        assert!(matches!(tokenize(&Corpus::open(&empty).unwrap(), &tokenizer, None), Err(Error::Format { .. })));
    }
}
