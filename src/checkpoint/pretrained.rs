//! Model folders: `config.json`, `model.safetensors`, and files that the caller adds, such as
//! `tokenizer.json`.

use std::path::Path;

use super::{WEIGHTS, save_module};
use crate::atomic;
use crate::error::{Error, Result};
use crate::nn::Module;

/// File name of the configuration in a model folder.
pub(crate) const CONFIG: &str = "config.json";

/// A model that can be saved as a folder.
pub trait Pretrained: Module {
    /// Returns the content of `config.json`, with the keys of `transformers`.
    fn config_json(&self) -> serde_json::Value;
}

/// Saves a model as a folder with `config.json` and `model.safetensors`. The folder is created if
/// necessary; other files in it are kept.
///
/// Each file is written atomically, the weights last.
///
/// # Errors
/// [`Error::Io`] if a file cannot be written, on Windows also if it is mapped (see
/// [`save_module`]).
///
/// # Examples
/// ```
/// use loquat::checkpoint::{Checkpoint, Pretrained, save_pretrained};
/// use loquat::{Rng, nn::Linear};
///
/// struct Line { linear: Linear }
/// loquat::module!(Line { linear });
/// impl Pretrained for Line {
///     fn config_json(&self) -> serde_json::Value {
///         serde_json::json!({ "model_type": "line" })
///     }
/// }
///
/// let folder = std::env::temp_dir().join("loquat-pretrained-doc");
/// let model = Line { linear: Linear::init(2, 1, true, &mut Rng::seed(1))? };
/// save_pretrained(&folder, &model)?;
/// let checkpoint = Checkpoint::open(&folder)?;
/// assert_eq!(checkpoint.names().collect::<Vec<_>>(), ["linear.bias", "linear.weight"]);
/// # std::fs::remove_dir_all(folder).ok();
/// # Ok::<(), loquat::Error>(())
/// ```
pub fn save_pretrained(folder: impl AsRef<Path>, model: &impl Pretrained) -> Result<()> {
    let folder = folder.as_ref();
    std::fs::create_dir_all(folder).map_err(|e| Error::io(folder, e))?;
    write_json(folder.join(CONFIG), &model.config_json())?;
    save_module(folder.join(WEIGHTS), model)
}

/// Writes indented JSON to a file, atomically.
///
/// # Errors
/// [`Error::Io`] if the file cannot be written.
pub(crate) fn write_json(path: impl AsRef<Path>, json: &serde_json::Value) -> Result<()> {
    atomic::write_file(path, |file| file.write_all(format!("{json:#}\n").as_bytes()))
}
