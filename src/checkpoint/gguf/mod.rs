//! The GGUF format, versions 2 and 3: a model's tensors, configuration and tokenizer in one file,
//! or split into several parts (<https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>).
//!
//! | file | content |
//! |---|---|
//! | [`mod@self`] | [`GgufFile`]: an open, validated file |
//! | `header` | reads the header |
//! | `parts` | models that are split into several files |
//! | `value` | [`Value`]: values of the metadata |
//! | `tensor_type` | [`TensorType`]: number formats of tensors |
//! | `architecture` | GGUF description of a model family |
//! | `tensors` | a file's tensors by their names in `transformers` |
//! | `keys`, `rope` | conversion between metadata and `config.json`; rotary position embeddings |
//! | `vocabulary` | the tokenizer's metadata |
//! | `write` | writes files |
//! | `save` | saves whole models |
//!
//! A file is validated when it is opened: every count, length, offset and type is checked against
//! the file's size and for consistency before anything is allocated. Only a table of positions is
//! kept in memory; strings and arrays are read from the file on demand.

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
// Building blocks, public for tests that create and read files themselves: they may change in any
// version.
pub use tensor_type::TensorType;
pub use value::{Array, Value, ValueType};
pub use vocabulary::GgmlVocabulary;
pub use write::GgufWriter;

use super::recognise;
use crate::error::{Error, Result};
use crate::mapped::{Load, MappedFile};

/// The first bytes of every GGUF file.
pub(crate) const MAGIC: [u8; 4] = *b"GGUF";
/// Key of the architecture's name.
pub(crate) const ARCHITECTURE: &str = "general.architecture";
/// Roles of tokens that end a text.
const ENDS: [&str; 3] = ["eos", "eot", "eom"];

/// An open GGUF file. If it is one part of several (`model-00001-of-00003.gguf`), all parts as one
/// file with the metadata of the first.
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
    /// The parts, in order.
    files: Vec<Arc<MappedFile>>,
    /// Header of the first part, with the tensors of all.
    header: Header,
}

impl std::fmt::Debug for GgufFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (entries, tensors) = (self.header.entries.len(), self.header.tensors.len());
        write!(f, "GgufFile({:?}, keys={entries}, tensors={tensors})", self.path())
    }
}

/// A tensor of a [`GgufFile`], with its name in the file.
#[doc(hidden)]
#[derive(Clone, Debug)]
pub struct GgufTensor<'a> {
    pub(super) file: &'a Arc<MappedFile>,
    place: &'a Place,
}

impl GgufFile {
    /// Opens a file and validates its header. If it is one part of several, the other parts are
    /// opened too.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be opened, [`Error::Format`] if it is truncated, of another
    /// format or version, or inconsistent, or if parts are missing or do not belong together.
    pub fn open(path: impl AsRef<Path>, load: Load) -> Result<Self> {
        let file = Self::open_one(path.as_ref(), load)?;
        parts::with_others(file, load)
    }

    /// Opens a single file.
    fn open_one(path: &Path, load: Load) -> Result<Self> {
        let file = Arc::new(MappedFile::open(path, load)?);
        let wrong = |reason: String| match recognise::content(&file) {
            Some(what) => format!("expected a GGUF file, found {what}"),
            None => reason,
        };
        let header = header::read(&file).map_err(|reason| Error::format(file.path(), wrong(reason)))?;
        Ok(Self { files: vec![file], header })
    }

    /// Returns the path of the file as given; for several parts, that of the first.
    #[doc(hidden)]
    pub fn path(&self) -> &Path {
        self.files[0].path()
    }

    /// Returns the number of files: 1, or the number of parts.
    pub fn file_count(&self) -> usize {
        self.files.len()
    }

    /// Returns the version of the format: 2 or 3.
    pub fn version(&self) -> u32 {
        self.header.version
    }

    /// Returns the name of the architecture, for example `llama`.
    pub fn architecture(&self) -> Option<&str> {
        self.get(ARCHITECTURE)?.as_str()
    }

    /// Returns the size of the file, or the total of all parts, in bytes.
    pub fn bytes(&self) -> usize {
        self.files.iter().map(|file| file.len()).sum()
    }

    /// Returns the metadata as keys and values, sorted by key.
    pub fn metadata(&self) -> impl Iterator<Item = (&str, Value<'_>)> {
        self.header.entries.iter().map(|entry| (self.text(&entry.key), self.value(entry)))
    }

    /// Returns the value of a key.
    #[doc(hidden)]
    pub fn get(&self, key: &str) -> Option<Value<'_>> {
        let entries = &self.header.entries;
        let i = entries.binary_search_by(|entry| self.text(&entry.key).cmp(key)).ok()?;
        Some(self.value(&entries[i]))
    }

    /// Returns the tensors, sorted by name.
    #[doc(hidden)]
    pub fn tensors(&self) -> impl ExactSizeIterator<Item = GgufTensor<'_>> {
        self.header.tensors.iter().map(|place| self.at(place))
    }

    /// Returns a tensor by its name in the file.
    #[doc(hidden)]
    pub fn tensor(&self, name: &str) -> Option<GgufTensor<'_>> {
        let tensors = &self.header.tensors;
        let i = tensors.binary_search_by(|place| self.at(place).name().cmp(name)).ok()?;
        Some(self.at(&tensors[i]))
    }

    fn at<'a>(&'a self, place: &'a Place) -> GgufTensor<'a> {
        GgufTensor { file: &self.files[usize::from(place.part)], place }
    }

    /// Returns the value of a required key, converted with `read`.
    ///
    /// # Errors
    /// [`Error::Format`] with the key if it is missing or `read` returns `None`.
    pub(crate) fn require<'a, T>(
        &'a self,
        key: &str,
        expected: &str,
        read: impl FnOnce(Value<'a>) -> Option<T>,
    ) -> Result<T> {
        self.optional(key, expected, read)?
            .ok_or_else(|| Error::format(self.path(), format!("`{key}`: expected {expected}, found none")))
    }

    /// Same as [`GgufFile::require`], for an optional key.
    ///
    /// # Errors
    /// Same as [`GgufFile::require`].
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
    /// Returns the name in the file.
    pub fn name(&self) -> &'a str {
        std::str::from_utf8(&self.file[self.place.name.range()]).expect("checked when the file was opened")
    }

    /// Returns the number format.
    pub fn tensor_type(&self) -> TensorType {
        self.place.tensor_type
    }

    /// Returns the shape, slowest axis first (the file stores it in reverse order).
    pub fn shape(&self) -> &'a [usize] {
        self.place.shape()
    }

    /// Returns the data as stored in the file.
    pub fn bytes(&self) -> &'a [u8] {
        &self.file[self.range()]
    }

    /// Byte range of the data in its file.
    pub(crate) fn range(&self) -> Range<usize> {
        self.place.bytes.clone()
    }
}

#[cfg(test)]
mod tests;
