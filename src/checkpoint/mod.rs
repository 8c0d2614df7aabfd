//! Checkpoints: tensors in files, by name.
//!
//! | file | content |
//! |---|---|
//! | `safetensors` | reads and writes safetensors files |
//! | [`gguf`] | reads and writes GGUF files: tensors, configuration and tokenizer |
//! | [`mod@self`] | [`Checkpoint`]: a file, or a folder with one file or several shards |
//! | `view` | [`TensorView`]: a tensor in a file |
//! | `loader` | [`Loader`]: loads the parameters of a model |
//! | `pretrained` | [`save_pretrained`]: saves a model folder that `transformers` opens |
//! | `config_keys` | keys of a `config.json` without effect |
//! | `rope_keys` | rotary position embeddings in a `config.json` |
//! | `recognise` | errors for files and folders that are not models |
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

/// File name of the tensors in a model folder.
pub(crate) const WEIGHTS: &str = "model.safetensors";
/// File name of the index of shards in a model folder.
pub(crate) const INDEX: &str = "model.safetensors.index.json";

/// Options of opening a model's files.
///
/// # Examples
/// ```
/// use loquat::checkpoint::{OpenOptions, WeightFormat, save_pretrained};
/// use loquat::models::{CausalLm, Gpt2, Gpt2Config, LanguageModel};
///
/// # let folder = tempfile::tempdir().expect("a folder");
/// # let folder = folder.path();
/// # let model = Gpt2::init(&Gpt2Config::new(65, 32, 24, 2, 3), &mut loquat::Rng::seed(1))?;
/// # save_pretrained(folder, &model)?;
/// // In f32, for further training.
/// let options = OpenOptions::default().weights(WeightFormat::F32);
/// let model = LanguageModel::open_with(folder, &options)?;
/// assert_eq!(model.vocab_size(), 65);
/// # Ok::<(), loquat::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct OpenOptions {
    /// Format of the weights. Default: [`WeightFormat::Keep`].
    pub weights: WeightFormat,
    /// Whether files are mapped into memory or read. Default: [`Load::Mmap`].
    pub load: Load,
    /// Whether weights in a mapped file are packed: copied in the order in which matrix products
    /// read them, after which the file's pages are released. Products are faster with packed
    /// weights, and only one of the two copies is in memory at a time. To spread the cost, weights
    /// are packed one by one, the first at its second product, the last at its 33rd, or at its
    /// second if that has many rows. If false, the model's memory consists of pages of the file,
    /// which processes share and the system may drop. Default: true. See [`Module::keep_packed`].
    pub packed: bool,
}

impl Default for OpenOptions {
    fn default() -> Self {
        Self { weights: WeightFormat::Keep, load: Load::default(), packed: true }
    }
}

impl OpenOptions {
    /// Sets the format of the weights. Default: [`WeightFormat::Keep`].
    pub fn weights(self, weights: WeightFormat) -> Self {
        Self { weights, ..self }
    }

    /// Sets whether files are mapped into memory or read. Default: [`Load::Mmap`].
    pub fn load(self, load: Load) -> Self {
        Self { load, ..self }
    }

    /// Sets whether mapped weights are packed. Default: true.
    pub fn packed(self, packed: bool) -> Self {
        Self { packed, ..self }
    }
}

/// The tensors of a model, in one or more files.
///
/// Opening reads only headers; with [`Load::Mmap`], a tensor's data is read on demand.
///
/// # Examples
/// ```
/// use loquat::Tensor;
/// use loquat::checkpoint::{Checkpoint, write_tensors};
///
/// # let folder = tempfile::tempdir().expect("a folder");
/// # let path = folder.path().join("model.safetensors");
/// let bias = Tensor::from_vec(vec![1.0, 2.0], &[2])?;
/// write_tensors(&path, [("bias", &bias)], None)?;
///
/// let checkpoint = Checkpoint::open(&path)?;
/// assert_eq!(checkpoint.names().collect::<Vec<_>>(), ["bias"]);
/// let view = checkpoint.tensor("bias").expect("it was written");
/// assert_eq!(view.to_tensor()?.data(), [1.0, 2.0]);
/// # Ok::<(), loquat::Error>(())
/// ```
pub struct Checkpoint {
    path: PathBuf,
    files: Vec<TensorFile>,
    /// Index of the file of each tensor.
    names: BTreeMap<String, usize>,
}

impl std::fmt::Debug for Checkpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (tensors, files) = (self.names.len(), self.files.len());
        write!(f, "Checkpoint({:?}, tensors={tensors}, files={files})", self.path)
    }
}

impl Checkpoint {
    /// Opens a `.safetensors` file, a `.gguf` file, an index of shards (`.json`), or a folder with
    /// `model.safetensors` or `model.safetensors.index.json`; mapped into memory. Tensors of a
    /// `.gguf` file keep their names; [`open_checkpoint`](crate::models::open_checkpoint) converts
    /// them to those of `transformers`.
    ///
    /// # Errors
    /// [`Error::Io`] if a file cannot be opened, [`Error::Format`] if a file is invalid.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::open_with(path, Load::default())
    }

    /// Same as [`Checkpoint::open`], mapped or read.
    ///
    /// # Errors
    /// Same as [`Checkpoint::open`].
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

    /// Creates a checkpoint from a GGUF file, with the tensor names of `transformers` for an
    /// architecture.
    ///
    /// # Errors
    /// [`Error::Format`] if the number of heads is missing or does not divide the rows, or two
    /// tensors get the same name.
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
                let place = found.map_or("in no shard".into(), |path| format!("in {}", path.display()));
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

    /// Returns the path of the file or folder as given.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the tensors' names in alphabetical order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.names.keys().map(String::as_str)
    }

    /// Number of tensors.
    pub(crate) fn len(&self) -> usize {
        self.names.len()
    }

    /// Returns a tensor by name.
    pub fn tensor(&self, name: &str) -> Option<TensorView<'_>> {
        self.files[*self.names.get(name)?].tensor(name)
    }

    /// Returns an entry of the files' metadata, for example `pt` for `format`.
    pub fn metadata(&self, key: &str) -> Option<&str> {
        self.files.iter().find_map(|file| file.metadata(key))
    }

    /// Returns the GGUF file, if the checkpoint is one.
    pub fn gguf(&self) -> Option<&GgufFile> {
        match self.files.as_slice() {
            [TensorFile::Gguf(file)] => Some(file.file()),
            _ => None,
        }
    }

    /// Returns a loader of the parameters of a model.
    pub fn loader(&self) -> Loader<'_> {
        Loader::new(self)
    }

    /// Loads every parameter of an existing module.
    ///
    /// # Errors
    /// [`Error::Load`] with every name that is missing, unexpected or mis-shaped; the module is
    /// unchanged in that case.
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

/// Whether a path is that of a GGUF file, by its extension.
pub(crate) fn is_gguf(path: impl AsRef<Path>) -> bool {
    let path = path.as_ref();
    path.extension().is_some_and(|e| e.eq_ignore_ascii_case("gguf")) && !path.is_dir()
}

/// Reads the shard of each tensor.
fn read_index(path: &Path) -> Result<BTreeMap<String, String>> {
    #[derive(serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Index {
        weight_map: BTreeMap<String, String>,
        /// Sizes, for information only.
        #[serde(default, rename = "metadata")]
        _metadata: serde::de::IgnoredAny,
    }
    let text = std::fs::read(path).map_err(|e| Error::io(path, e))?;
    let index: Index =
        serde_json::from_slice(&text).map_err(|e| Error::format(path, format!("expected an index of shards: {e}")))?;
    for shard in index.weight_map.values() {
        // A name with folders could point anywhere in the file system.
        if Path::new(shard).file_name() != Some(shard.as_ref()) {
            return Err(Error::format(
                path,
                format!("expected the name of a file in the folder of the index, found `{shard}`"),
            ));
        }
    }
    Ok(index.weight_map)
}

#[cfg(test)]
mod tests;
