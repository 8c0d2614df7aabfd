//! Floor 4: tensors in files, by name.
//!
//! | file | what |
//! |---|---|
//! | `safetensors` | one file of tensors: reading and writing |
//! | [`gguf`] | one file of tensors, configuration and tokenizer: reading and writing |
//! | [`mod@self`] | [`Checkpoint`]: one such file, or a folder with one or with shards and their index |
//! | `view` | [`TensorView`]: one tensor in a file, and its way to a [`Weight`](crate::tensor::Weight) |
//! | `loader` | [`Loader`]: gives the layers of a model their parameters, strictly |
//! | `pretrained` | [`save_pretrained`]: a model as a folder that `transformers` opens |
//! | `config_keys` | which keys of a `config.json` change nothing |
//! | `rope_keys` | rotary positions in a `config.json` |
//! | `recognise` | what a file or folder is that was taken for a model |
//!
//! ```
//! use loquat::checkpoint::{Checkpoint, save_module};
//! use loquat::{Rng, nn::Linear};
//!
//! let path = std::env::temp_dir().join("loquat-checkpoint-doc.safetensors");
//! let layer = Linear::init(3, 2, true, &mut Rng::seed(1))?;
//! save_module(&path, &layer)?;
//!
//! let checkpoint = Checkpoint::open(&path)?;
//! assert_eq!(checkpoint.tensor("weight").map(|t| t.shape().to_vec()), Some(vec![2, 3]));
//! let same = checkpoint.loader().load(|p| Linear::init(3, 2, true, p))?;
//! assert_eq!(same.weight.tensor().data(), layer.weight.tensor().data());
//!
//! let error = checkpoint.loader().load(|p| Linear::init(4, 2, false, p)).unwrap_err();
//! assert_eq!(
//!     error.to_string(),
//!     "checkpoint does not fit the model: 0 missing, 1 unexpected, 1 mis-shaped; \
//!      tensor `weight`: expected shape [2, 4], found [2, 3]; unexpected `bias`"
//! );
//! # std::fs::remove_file(&path).ok();
//! # Ok::<(), loquat::Error>(())
//! ```
//!
//! This floor must not know models.

pub(crate) mod config_keys;
pub mod gguf;
mod loader;
pub(crate) mod pretrained;
pub(crate) mod recognise;
pub(crate) mod rope_keys;
pub(crate) mod safetensors;
pub(crate) mod view;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

pub use loader::Loader;
#[cfg(feature = "tokenizers")]
pub(crate) use pretrained::write_json;
pub use pretrained::{Pretrained, save_pretrained};
pub(crate) use safetensors::SafetensorsFile;
pub use safetensors::{save_module, write_tensors};
pub use view::{DType, TensorView, WeightFormat};

use gguf::GgufFile;
use gguf::architecture::Architecture;
use gguf::tensors::GgufTensors;

use crate::error::{Error, Result};
use crate::mapped::Load;
use crate::nn::Module;

/// The tensors' file in a model folder.
pub(crate) const WEIGHTS: &str = "model.safetensors";
/// The list of shards in a model folder that has several files of tensors.
pub(crate) const INDEX: &str = "model.safetensors.index.json";

/// How the files of a model come into memory.
///
/// ```no_run
/// use loquat::checkpoint::{OpenOptions, WeightFormat};
/// use loquat::models::LanguageModel;
///
/// // To be trained further: everything in 32 bits.
/// let options = OpenOptions::default().weights(WeightFormat::F32);
/// let model = LanguageModel::open_with("models/gpt2", &options)?;
/// # Ok::<(), loquat::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct OpenOptions {
    /// The format of the weights; [`WeightFormat::Keep`] unless told otherwise.
    pub weights: WeightFormat,
    /// Mapped or read whole.
    pub load: Load,
    /// Whether the weights that stay in a mapped file are copied from there, in the order in which products read them; the file's pages
    /// are given back then. They take turns: the first at their second product, the last at their 33rd, or at the second if it has
    /// many rows, so that no token of a text waits long. True unless told otherwise: products are faster with the copy, and memory
    /// is taken by one of the two at a time. Without it the model's memory stays pages of the file, which other
    /// processes share and the system may drop. See [`Module::keep_packed`].
    pub packed: bool,
}

impl Default for OpenOptions {
    fn default() -> Self {
        Self { weights: WeightFormat::Keep, load: Load::default(), packed: true }
    }
}

impl OpenOptions {
    /// Sets the format of the weights.
    pub fn weights(self, weights: WeightFormat) -> Self {
        Self { weights, ..self }
    }

    /// Sets how files are opened.
    pub fn load(self, load: Load) -> Self {
        Self { load, ..self }
    }

    /// Sets whether mapped weights are packed.
    pub fn packed(self, packed: bool) -> Self {
        Self { packed, ..self }
    }
}

/// The tensors of a model, in one file or several.
///
/// Opening reads headers only; with [`Load::Mmap`] a tensor's bytes are read when it is asked for.
pub struct Checkpoint {
    path: PathBuf,
    files: Vec<TensorFile>,
    /// From a tensor's name to its file.
    names: BTreeMap<String, usize>,
}

impl std::fmt::Debug for Checkpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (tensors, files) = (self.names.len(), self.files.len());
        write!(f, "Checkpoint({:?}, tensors={tensors}, files={files})", self.path)
    }
}

impl Checkpoint {
    /// Opens a `.safetensors` file, a `.gguf` file (whose tensors keep the names that they have there;
    /// [`open_checkpoint`](crate::models::open_checkpoint) gives them those of `transformers`), an index of shards (`.json`), or a folder that has `model.safetensors` or
    /// `model.safetensors.index.json`; mapped into memory.
    ///
    /// # Errors
    /// [`Error::Io`] if a file cannot be opened, [`Error::Format`] if one is not what it should be.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::open_with(path, Load::default())
    }

    /// As [`Checkpoint::open`], mapped or read whole by choice.
    ///
    /// # Errors
    /// As there.
    pub fn open_with(path: impl AsRef<Path>, load: Load) -> Result<Self> {
        let path = path.as_ref();
        if !path.is_dir() {
            return if is_gguf(path) {
                Self::from_gguf(GgufFile::open(path, load)?, None)
            } else if path.extension().is_some_and(|e| e == "json") {
                Self::open_shards(path, load)
            } else {
                Self::from_files(path, vec![TensorFile::Safetensors(SafetensorsFile::open(path, load)?)])
            };
        }
        let (single, index) = (path.join(WEIGHTS), path.join(INDEX));
        if single.exists() {
            Self::from_files(path, vec![TensorFile::Safetensors(SafetensorsFile::open(&single, load)?)])
        } else if index.exists() {
            Self::open_shards(&index, load)
        } else {
            Err(recognise::no_weights(path))
        }
    }

    /// The tensors of a GGUF file, under the names that `transformers` gives those of an architecture.
    ///
    /// # Errors
    /// [`Error::Format`] if the number of heads is missing or does not divide what it should, or two
    /// tensors get one name.
    pub(crate) fn from_gguf(file: GgufFile, architecture: Option<&Architecture>) -> Result<Self> {
        let path = file.path().to_path_buf();
        let file = GgufTensors::new(file, architecture)?;
        Self::from_files(&path, vec![TensorFile::Gguf(Box::new(file))])
    }

    fn open_shards(index: &Path, load: Load) -> Result<Self> {
        let folder = index.parent().unwrap_or(Path::new("."));
        let listed = read_index(index)?;
        let mut shards: Vec<&String> = listed.values().collect();
        shards.sort();
        shards.dedup();
        let open = |shard| SafetensorsFile::open(folder.join(shard), load).map(TensorFile::Safetensors);
        let files = shards.into_iter().map(open);
        let checkpoint = Self::from_files(index, files.collect::<Result<_>>()?)?;
        for (name, shard) in &listed {
            let found = checkpoint.names.get(name).map(|&file| checkpoint.files[file].path());
            if found != Some(folder.join(shard).as_path()) {
                let place = found.map_or("nowhere".into(), |path| format!("in {}", path.display()));
                return Err(Error::format(index, format!("expected tensor `{name}` in `{shard}`, found it {place}")));
            }
        }
        Ok(checkpoint)
    }

    fn from_files(path: &Path, files: Vec<TensorFile>) -> Result<Self> {
        let mut names = BTreeMap::new();
        for (i, file) in files.iter().enumerate() {
            for name in file.names() {
                if names.insert(name.to_string(), i).is_some() {
                    return Err(Error::format(file.path(), format!("tensor `{name}` is in another shard too")));
                }
            }
        }
        Ok(Self { path: path.to_path_buf(), files, names })
    }

    /// The file or folder, as it was given.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The tensors' names, in alphabetical order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.names.keys().map(String::as_str)
    }

    /// The number of tensors.
    pub(crate) fn len(&self) -> usize {
        self.names.len()
    }

    /// A tensor by name.
    pub fn tensor(&self, name: &str) -> Option<TensorView<'_>> {
        self.files[*self.names.get(name)?].tensor(name)
    }

    /// What the files say about themselves, for example `format: pt`.
    pub fn metadata(&self, key: &str) -> Option<&str> {
        self.files.iter().find_map(|file| file.metadata(key))
    }

    /// The GGUF file, if it is one.
    pub fn gguf(&self) -> Option<&GgufFile> {
        match self.files.as_slice() {
            [TensorFile::Gguf(file)] => Some(file.file()),
            _ => None,
        }
    }

    /// A source of parameters for the layers of a model.
    pub fn loader(&self) -> Loader<'_> {
        Loader::new(self)
    }

    /// Sets every parameter of a module that exists already.
    ///
    /// # Errors
    /// [`Error::Load`] with every name that is missing, unexpected or mis-shaped; the module is unchanged then.
    pub fn load_into(&self, module: &mut (impl Module + ?Sized)) -> Result<()> {
        self.loader().load_into(module)
    }
}

/// One file of a checkpoint.
#[derive(Debug)]
enum TensorFile {
    Safetensors(SafetensorsFile),
    Gguf(Box<GgufTensors>),
}

impl TensorFile {
    fn path(&self) -> &Path {
        match self {
            Self::Safetensors(file) => file.path(),
            Self::Gguf(file) => file.file().path(),
        }
    }

    fn names(&self) -> Vec<&str> {
        match self {
            Self::Safetensors(file) => file.names().collect(),
            Self::Gguf(file) => file.names().collect(),
        }
    }

    fn tensor(&self, name: &str) -> Option<TensorView<'_>> {
        match self {
            Self::Safetensors(file) => file.tensor(name),
            Self::Gguf(file) => file.tensor(name),
        }
    }

    fn metadata(&self, key: &str) -> Option<&str> {
        match self {
            Self::Safetensors(file) => file.metadata(key),
            Self::Gguf(file) => file.file().get(key)?.as_str(),
        }
    }
}

/// Whether a path is that of a GGUF file, by its name.
pub(crate) fn is_gguf(path: impl AsRef<Path>) -> bool {
    let path = path.as_ref();
    path.extension().is_some_and(|e| e.eq_ignore_ascii_case("gguf")) && !path.is_dir()
}

/// From each tensor's name to its shard.
fn read_index(path: &Path) -> Result<BTreeMap<String, String>> {
    #[derive(serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Index {
        weight_map: BTreeMap<String, String>,
        /// Sizes, for information.
        #[serde(default, rename = "metadata")]
        _metadata: serde::de::IgnoredAny,
    }
    let text = std::fs::read(path).map_err(|e| Error::io(path, e))?;
    let index: Index =
        serde_json::from_slice(&text).map_err(|e| Error::format(path, format!("expected an index of shards: {e}")))?;
    for shard in index.weight_map.values() {
        // A name with folders in it could point anywhere on the machine.
        if Path::new(shard).file_name() != Some(shard.as_ref()) {
            return Err(Error::format(path, format!("expected the name of a file beside the index, found `{shard}`")));
        }
    }
    Ok(index.weight_map)
}

#[cfg(test)]
mod tests;
