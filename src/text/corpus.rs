//! Text files as a stream of pieces: UTF-8, in order, with bounded memory.
//!
//! A [`Corpus`] is one or more files, read one after the other in *pieces*: as many whole lines as
//! fit into a given number of bytes. A longer line is split at white space, or else between two
//! characters, so a corpus that is one long line, such as text8, can be streamed too.
//!
//! ```
//! use loquat::text::Corpus;
//!
//! let path = std::env::temp_dir().join("loquat-corpus-doc.txt");
//! std::fs::write(&path, "a cat sat\na dog ran\n")?;
//! let mut words = 0;
//! for piece in Corpus::open(&path)?.pieces(1 << 20) {
//!     words += piece?.lines().map(|line| line.split_whitespace().count()).sum::<usize>();
//! }
//! assert_eq!(words, 6);
//! # std::fs::remove_file(&path)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::collections::VecDeque;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::mapped::{Load, MappedFile};
use crate::{Error, Result, signature};

/// One or more text files, read in order.
///
/// # Examples
/// ```
/// use loquat::text::Corpus;
///
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("corpus.txt");
/// std::fs::write(&path, "a cat sat\na dog ran\n")?;
/// let corpus = Corpus::open(&path)?;
/// let pieces = corpus.pieces(10).collect::<Result<Vec<String>, _>>()?;
/// assert_eq!(pieces, ["a cat sat\n", "a dog ran\n"]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct Corpus {
    files: Vec<Source>,
}

#[derive(Debug, Clone)]
struct Source {
    path: PathBuf,
    len: u64,
    map: Option<Arc<MappedFile>>,
}

/// The bytes `start..end` of a file.
#[derive(Debug, Clone)]
struct Run {
    source: Source,
    start: u64,
    end: u64,
}

/// An iterator of the pieces of a corpus, in order. It ends after an error.
///
/// The concatenation of the pieces is the unchanged text of the files; no piece is empty, and none
/// spans two files.
pub struct Pieces {
    runs: VecDeque<Run>,
    reader: Option<(Run, Box<dyn Read + Send>)>,
    /// The start of a line whose end has not been read.
    carried: Vec<u8>,
    /// Position of `carried` in its file.
    position: u64,
    limit: usize,
}

impl Corpus {
    /// Opens a corpus of one file, for streaming.
    ///
    /// # Errors
    /// Same as [`Corpus::open_all`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::open_all([path])
    }

    /// Opens a corpus of several files, to be streamed one after the other. All files are opened
    /// now, so that a wrong name does not end a long run in the middle.
    ///
    /// # Errors
    /// [`Error::Argument`] if there is no file, [`Error::Io`] for a file that cannot be opened,
    /// [`Error::Format`] for a file that is compressed or not UTF-8 according to its first bytes.
    pub fn open_all<P: AsRef<Path>>(paths: impl IntoIterator<Item = P>) -> Result<Self> {
        let mut files = Vec::new();
        for path in paths {
            let path = path.as_ref();
            let file = File::open(path).map_err(|e| Error::io(path, e))?;
            let meta = file.metadata().map_err(|e| Error::io(path, e))?;
            if meta.is_dir() {
                let kind = std::io::ErrorKind::IsADirectory;
                return Err(Error::io(path, std::io::Error::new(kind, "expected a text file, found a folder")));
            }
            let mut start = Vec::new();
            file.take(32).read_to_end(&mut start).map_err(|e| Error::io(path, e))?;
            if let Some(found) = signature::no_text(&start) {
                return Err(Error::format(path, format!("expected a text file, found {found}")));
            }
            files.push(Source { path: path.to_path_buf(), len: meta.len(), map: None });
        }
        if files.is_empty() {
            return Err(Error::argument("corpus", "at least one file", "none"));
        }
        Ok(Corpus { files })
    }

    /// Returns the same corpus with its files mapped into memory instead of read through a buffer.
    /// See [`Load`](crate::Load) for the requirements on the files.
    ///
    /// # Errors
    /// [`Error::Io`] for a file that cannot be mapped.
    pub fn mapped(mut self) -> Result<Self> {
        for file in &mut self.files {
            let map = MappedFile::open(&file.path, Load::Mmap)?;
            file.len = map.len() as u64;
            file.map = Some(Arc::new(map));
        }
        Ok(self)
    }

    /// The files, in order.
    pub(crate) fn paths(&self) -> impl Iterator<Item = &Path> {
        self.files.iter().map(|file| file.path.as_path())
    }

    /// Returns the total length of the files in bytes.
    pub fn len(&self) -> u64 {
        self.files.iter().map(|file| file.len).sum()
    }

    /// Returns whether all files are empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the text in pieces of at most `limit` bytes (at least 4, the longest character).
    pub fn pieces(&self, limit: usize) -> Pieces {
        let runs = self.files.iter().map(|file| Run { source: file.clone(), start: 0, end: file.len });
        Pieces::new(runs.collect(), limit)
    }

    /// Reads the whole text as one string.
    ///
    /// # Errors
    /// [`Error::Io`], or [`Error::Format`] with file, line and byte for text that is not UTF-8.
    pub fn read_to_string(&self) -> Result<String> {
        let mut text = String::new();
        for piece in self.pieces(1 << 20) {
            text.push_str(&piece?);
        }
        Ok(text)
    }
}

impl Source {
    fn reader(&self, start: u64, end: u64) -> Result<Box<dyn Read + Send>> {
        if let Some(map) = &self.map {
            let mut cursor = std::io::Cursor::new(Shared(map.clone()));
            cursor.set_position(start);
            return Ok(Box::new(cursor.take(end - start)));
        }
        let mut file = File::open(&self.path).map_err(|e| Error::io(&self.path, e))?;
        if start > 0 {
            file.seek(SeekFrom::Start(start)).map_err(|e| Error::io(&self.path, e))?;
        }
        // A whole file is read to its end, which may be beyond the reported length: pipes and /proc
        // report 0.
        if start == 0 && end == self.len { Ok(Box::new(file)) } else { Ok(Box::new(file.take(end - start))) }
    }

    /// Returns the line, counted from 1, that contains the byte at `position`.
    fn line_of(&self, position: u64) -> Result<u64> {
        let mut lines = LineCount(1);
        let mut reader = self.reader(0, self.len)?.take(position);
        std::io::copy(&mut reader, &mut lines).map_err(|e| Error::io(&self.path, e))?;
        Ok(lines.0)
    }
}

struct Shared(Arc<MappedFile>);

impl AsRef<[u8]> for Shared {
    fn as_ref(&self) -> &[u8] {
        self.0.as_ref().as_ref()
    }
}

struct LineCount(u64);

impl std::io::Write for LineCount {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0 += bytes.iter().filter(|&&b| b == b'\n').count() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Pieces {
    fn new(runs: VecDeque<Run>, limit: usize) -> Self {
        Pieces { runs, reader: None, carried: Vec::new(), position: 0, limit: limit.max(4) }
    }

    /// Reads the next piece into `piece`, replacing its content. Returns `false` and an empty piece
    /// at the end, which an error is too.
    pub(crate) fn read(&mut self, piece: &mut String) -> Result<bool> {
        let mut bytes = std::mem::take(piece).into_bytes();
        bytes.clear();
        *piece = self.fill(bytes).inspect_err(|_| {
            self.runs.clear();
            self.reader = None;
            self.carried.clear();
        })?;
        Ok(!piece.is_empty())
    }

    fn fill(&mut self, mut bytes: Vec<u8>) -> Result<String> {
        loop {
            if self.reader.is_none() {
                let Some(run) = self.runs.pop_front() else { return Ok(String::new()) };
                let reader = run.source.reader(run.start, run.end)?;
                self.position = run.start;
                self.reader = Some((run, reader));
            }
            let full = self.read_up_to_limit(&mut bytes)?;
            let cut = if full { cut(&bytes) } else { bytes.len() };
            self.carried.extend_from_slice(&bytes[cut..]);
            bytes.truncate(cut);
            let piece = match String::from_utf8(bytes) {
                Ok(piece) => piece,
                Err(e) => return Err(self.not_utf8(e.utf8_error().valid_up_to(), e.as_bytes())),
            };
            self.position += piece.len() as u64;
            if !full {
                self.reader = None;
            }
            if !piece.is_empty() {
                return Ok(piece);
            }
            bytes = piece.into_bytes();
        }
    }

    /// Reads the carried bytes and what follows, up to the limit; returns `false` at the end of the
    /// run.
    fn read_up_to_limit(&mut self, bytes: &mut Vec<u8>) -> Result<bool> {
        bytes.append(&mut self.carried);
        let Some((run, reader)) = &mut self.reader else { return Ok(false) };
        let want = (self.limit - bytes.len()) as u64;
        let n = reader.by_ref().take(want).read_to_end(bytes).map_err(|e| Error::io(&run.source.path, e))?;
        Ok(n as u64 == want)
    }

    fn not_utf8(&self, offset: usize, bytes: &[u8]) -> Error {
        let (run, _) = self.reader.as_ref().expect("a run is being read");
        let byte = self.position + offset as u64;
        let found = bytes[offset];
        match run.source.line_of(byte) {
            Ok(line) => Error::format(
                &run.source.path,
                format!("expected UTF-8 text, found byte 0x{found:02X} at byte {byte}, line {line}"),
            ),
            Err(e) => e,
        }
    }
}

impl Iterator for Pieces {
    type Item = Result<String>;

    fn next(&mut self) -> Option<Result<String>> {
        let mut piece = String::new();
        self.read(&mut piece).map(|more| more.then_some(piece)).transpose()
    }
}

impl std::fmt::Debug for Pieces {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pieces").field("files_left", &self.runs.len()).field("position", &self.position).finish()
    }
}

/// Position at which to split a full buffer: after its last line, its last white space or its last
/// whole character.
fn cut(bytes: &[u8]) -> usize {
    if let Some(i) = bytes.iter().rposition(|&b| b == b'\n') {
        return i + 1;
    }
    if let Some(i) = bytes.iter().rposition(u8::is_ascii_whitespace)
        && i > 0
    {
        return i; // white space starts the next piece, as byte-level tokenizers need it
    }
    // The first byte of a character is at most three bytes before the end; a whole character need
    // not be carried.
    let tail = bytes.len().saturating_sub(3);
    match std::str::from_utf8(bytes) {
        Err(e) if e.error_len().is_none() && e.valid_up_to() >= tail && e.valid_up_to() > 0 => e.valid_up_to(),
        _ => bytes.len(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(folder: &tempfile::TempDir, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    }

    #[test]
    fn pieces_are_the_files_in_order_at_any_limit() {
        let folder = tempfile::tempdir().unwrap();
        let texts = ["one two\nthree\r\n\nfour", "", "fünf 六七八九十 seven\n", "\n\n"];
        let paths: Vec<_> = texts.iter().enumerate().map(|(i, t)| write(&folder, &i.to_string(), t)).collect();
        let streamed = Corpus::open_all(&paths).unwrap();
        for corpus in [streamed.clone(), streamed.mapped().unwrap()] {
            assert_eq!(corpus.len(), texts.concat().len() as u64);
            for limit in 0..40 {
                let pieces: Vec<String> = corpus.pieces(limit).map(Result::unwrap).collect();
                assert_eq!(pieces.concat(), texts.concat(), "limit {limit}");
                assert!(pieces.iter().all(|p| !p.is_empty() && p.len() <= limit.max(4)), "{limit}: {pieces:?}");
            }
            assert_eq!(corpus.read_to_string().unwrap(), texts.concat());
        }
    }

    #[test]
    fn lines_stay_whole_when_they_fit() {
        let folder = tempfile::tempdir().unwrap();
        let corpus = Corpus::open(write(&folder, "a", "aaa bbb\nccc ddd\neee fff ggg hhh")).unwrap();
        let pieces: Vec<String> = corpus.pieces(12).map(Result::unwrap).collect();
        assert_eq!(pieces, ["aaa bbb\n", "ccc ddd\n", "eee fff ggg", " hhh"]);
    }

    #[test]
    fn bytes_that_are_no_text_are_named_by_file_line_and_byte() {
        let folder = tempfile::tempdir().unwrap();
        let good = write(&folder, "good", "fine\n");
        let bad = write(&folder, "bad", b"one\ntwo \xE9t\xE9\nthree");
        for limit in [4, 5, 8, 1000] {
            let mut pieces = Corpus::open_all([&good, &bad]).unwrap().pieces(limit);
            let error = pieces.by_ref().find_map(Result::err).unwrap().to_string();
            assert!(error.contains("bad: expected UTF-8 text, found byte 0xE9 at byte 8, line 2"), "{error}");
            assert!(pieces.next().is_none(), "ends after an error");
        }
        let cut = write(&folder, "cut", &"abc\u{20AC}".as_bytes()[..5]);
        for limit in [4, 5, 100] {
            let error = Corpus::open(&cut).unwrap().pieces(limit).find_map(Result::err).unwrap().to_string();
            assert!(error.contains("byte 0xE2 at byte 3, line 1"), "{error}");
        }
    }

    #[test]
    fn missing_files_are_errors_before_anything_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let good = write(&folder, "good", "fine\n");
        let absent = folder.path().join("absent");
        let error = Corpus::open_all([&good, &absent]).unwrap_err().to_string();
        assert!(error.contains("absent"), "{error}");
        assert!(Corpus::open(folder.path()).unwrap_err().to_string().contains("found a folder"));
        assert!(Corpus::open_all(Vec::<PathBuf>::new()).is_err());
    }

    #[test]
    fn a_file_that_is_no_text_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("corpus.txt");
        for (bytes, found) in [
            (&b"\x1f\x8b\x08\0\0\0\0\0"[..], "a gzip archive: unpack it with `gunzip`"),
            (b"\x28\xb5\x2f\xfd\0", "a zstd archive: unpack it with `unzstd`"),
            (b"\xff\xfea\0", "text in UTF-16: convert it to UTF-8"),
        ] {
            std::fs::write(&path, bytes).unwrap();
            let error = Corpus::open(&path).unwrap_err().to_string();
            assert!(error.contains("corpus.txt") && error.ends_with(&format!("found {found}")), "{error}");
        }
        for text in ["", "BZh is a word", "<!DOCTYPE html>"] {
            std::fs::write(&path, text).unwrap();
            assert_eq!(Corpus::open(&path).unwrap().read_to_string().unwrap(), text);
        }
    }
}
