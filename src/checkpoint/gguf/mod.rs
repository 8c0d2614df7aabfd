//! The GGUF format, versions 2 and 3: a model's tensors, its configuration and its tokenizer in one
//! file, or in several parts (<https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>).
//!
//! | file | what |
//! |---|---|
//! | [`mod@self`] | [`GgufFile`]: the file, open and checked |
//! | `header` | reading the header, field by field |
//! | `parts` | the other files of a model that is split over several |
//! | `value` | [`Value`]: what the file says about itself |
//! | `tensor_type` | [`TensorType`]: how a tensor's numbers are written |
//! | `architecture` | what a model family says of itself in GGUF |
//! | `tensors` | a file's tensors under the names that `transformers` gives them |
//! | `keys`, `rope` | between metadata and a `config.json`; rotary positions, both ways |
//! | `vocabulary` | the tokenizer in a file |
//! | `write` | writing files |
//! | `save` | writing whole models |
//!
//! Everything is checked when the file is opened: every count, length, offset and type, against the file's size and
//! against each other, before anything is allocated by it. What stays in memory is a table of places; strings and arrays are read
//! from the file when they are asked for.

pub(crate) mod tensor_type;
pub(crate) mod value;
pub(crate) mod vocabulary;
pub(crate) mod write;

pub(crate) mod architecture;
mod cursor;
mod header;
mod keys;
mod parts;
pub(crate) mod rope;
mod save;
pub(crate) mod tensors;

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use header::{Entry, Header, Place};
pub use save::GgufFormat;
pub(crate) use save::save;
// Inner parts of a file, public for tests that make and read files by hand: they may change in any version.
pub use tensor_type::TensorType;
pub use value::{Array, Value, ValueType};
pub use vocabulary::GgmlVocabulary;
pub use write::GgufWriter;

use super::recognise;
use crate::error::{Error, Result};
use crate::mapped::{Load, MappedFile};

/// The first bytes of every GGUF file.
pub(crate) const MAGIC: [u8; 4] = *b"GGUF";
/// The key that names the architecture.
pub(crate) const ARCHITECTURE: &str = "general.architecture";
/// Roles of tokens that end a text.
const ENDS: [&str; 3] = ["eos", "eot", "eom"];

/// A GGUF file, open; if it is one part of several (`model-00001-of-00003.gguf`), all of them as
/// one, with the metadata of the first.
///
/// ```
/// use loquat::Load;
/// use loquat::checkpoint::gguf::{GgufFile, GgufWriter, Value};
///
/// let path = std::env::temp_dir().join("loquat-gguf-doc.gguf");
/// let mut writer = GgufWriter::new();
/// writer.set("general.architecture", Value::String("llama"))?;
/// writer.set("llama.block_count", Value::U32(2))?;
/// writer.save(&path)?;
///
/// let file = GgufFile::open(&path, Load::Mmap)?;
/// assert_eq!(file.architecture(), Some("llama"));
/// assert_eq!(file.get("llama.block_count").and_then(|v| v.as_u64()), Some(2));
/// # std::fs::remove_file(&path).ok();
/// # Ok::<(), loquat::Error>(())
/// ```
pub struct GgufFile {
    /// The parts, in their order.
    files: Vec<Arc<MappedFile>>,
    /// Of the first part, with the tensors of all.
    header: Header,
}

impl std::fmt::Debug for GgufFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (entries, tensors) = (self.header.entries.len(), self.header.tensors.len());
        write!(f, "GgufFile({:?}, keys={entries}, tensors={tensors})", self.path())
    }
}

/// A tensor of a [`GgufFile`], under the name that the file has for it.
#[doc(hidden)]
#[derive(Clone, Debug)]
pub struct GgufTensor<'a> {
    pub(super) file: &'a Arc<MappedFile>,
    place: &'a Place,
}

impl GgufFile {
    /// Opens a file and checks its header; the other parts too if it is one of several, whichever
    /// of them is given.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be opened, [`Error::Format`] if it is cut short, not of the
    /// format or of another version, or contradicts itself; also with the names of parts that are
    /// missing, or if parts do not belong to each other.
    pub fn open(path: impl AsRef<Path>, load: Load) -> Result<Self> {
        let file = Self::open_one(path.as_ref(), load)?;
        parts::with_others(file, load)
    }

    /// Opens a file by itself.
    fn open_one(path: &Path, load: Load) -> Result<Self> {
        let file = Arc::new(MappedFile::open(path, load)?);
        let wrong = |reason: String| match recognise::content(&file) {
            Some(what) => format!("expected a GGUF file, found {what}"),
            None => reason,
        };
        let header = header::read(&file).map_err(|reason| Error::format(file.path(), wrong(reason)))?;
        Ok(Self { files: vec![file], header })
    }

    /// The file's path, as it was given; of several parts that of the first.
    #[doc(hidden)]
    pub fn path(&self) -> &Path {
        self.files[0].path()
    }

    /// How many files there are: 1, or the number of parts.
    pub fn file_count(&self) -> usize {
        self.files.len()
    }

    /// The version of the format: 2 or 3.
    pub fn version(&self) -> u32 {
        self.header.version
    }

    /// The architecture, for example `llama`.
    pub fn architecture(&self) -> Option<&str> {
        self.get(ARCHITECTURE)?.as_str()
    }

    /// The size of the file, or of all parts, in bytes.
    pub fn bytes(&self) -> usize {
        self.files.iter().map(|file| file.len()).sum()
    }

    /// The metadata: keys and values, by key.
    pub fn metadata(&self) -> impl Iterator<Item = (&str, Value<'_>)> {
        self.header.entries.iter().map(|entry| (self.text(&entry.key), self.value(entry)))
    }

    /// The value of a key.
    #[doc(hidden)]
    pub fn get(&self, key: &str) -> Option<Value<'_>> {
        let entries = &self.header.entries;
        let i = entries.binary_search_by(|entry| self.text(&entry.key).cmp(key)).ok()?;
        Some(self.value(&entries[i]))
    }

    /// The tensors, by name.
    #[doc(hidden)]
    pub fn tensors(&self) -> impl ExactSizeIterator<Item = GgufTensor<'_>> {
        self.header.tensors.iter().map(|place| self.at(place))
    }

    /// A tensor by the name that the file has for it.
    #[doc(hidden)]
    pub fn tensor(&self, name: &str) -> Option<GgufTensor<'_>> {
        let tensors = &self.header.tensors;
        let i = tensors.binary_search_by(|place| self.at(place).name().cmp(name)).ok()?;
        Some(self.at(&tensors[i]))
    }

    fn at<'a>(&'a self, place: &'a Place) -> GgufTensor<'a> {
        GgufTensor { file: &self.files[usize::from(place.part)], place }
    }

    /// The value of a key, which must be there and of a kind that `read` takes.
    ///
    /// # Errors
    /// [`Error::Format`] naming the key.
    pub(crate) fn require<'a, T>(
        &'a self,
        key: &str,
        expected: &str,
        read: impl FnOnce(Value<'a>) -> Option<T>,
    ) -> Result<T> {
        self.optional(key, expected, read)?
            .ok_or_else(|| Error::format(self.path(), format!("`{key}`: expected {expected}, found none")))
    }

    /// As [`GgufFile::require`], for a key that may be missing.
    ///
    /// # Errors
    /// As there.
    pub(crate) fn optional<'a, T>(
        &'a self,
        key: &str,
        expected: &str,
        read: impl FnOnce(Value<'a>) -> Option<T>,
    ) -> Result<Option<T>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        match read(value.clone()) {
            Some(read) => Ok(Some(read)),
            None => Err(Error::format(self.path(), format!("`{key}`: expected {expected}, found {value}"))),
        }
    }

    fn value(&self, entry: &Entry) -> Value<'_> {
        value::read(&self.files[0], entry.kind, entry.value as usize).expect("checked when the file was opened")
    }

    fn text(&self, range: &cursor::Text) -> &str {
        std::str::from_utf8(&self.files[0][range.range()]).expect("checked when the file was opened")
    }
}

impl<'a> GgufTensor<'a> {
    /// The name in the file.
    pub fn name(&self) -> &'a str {
        std::str::from_utf8(&self.file[self.place.name.range()]).expect("checked when the file was opened")
    }

    /// How the numbers are written.
    pub fn tensor_type(&self) -> TensorType {
        self.place.tensor_type
    }

    /// The length of each axis, slowest first. (The file has them the other way round.)
    pub fn shape(&self) -> &'a [usize] {
        self.place.shape()
    }

    /// The numbers as the file has them.
    pub fn bytes(&self) -> &'a [u8] {
        &self.file[self.range()]
    }

    /// Where in their file the numbers are.
    pub(crate) fn range(&self) -> Range<usize> {
        self.place.bytes.clone()
    }
}

#[cfg(test)]
mod tests;
