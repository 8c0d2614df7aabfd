//! Model folders: `config.json`, `model.safetensors`, and what the caller adds (`tokenizer.json`).

use std::path::Path;

use super::{WEIGHTS, save_module};
use crate::atomic;
use crate::error::{Error, Result};
use crate::nn::Module;

/// The configuration's file in a model folder.
pub(crate) const CONFIG: &str = "config.json";

/// A model that a folder can hold.
pub trait Pretrained: Module {
    /// The content of `config.json`, with the keys that `transformers` uses.
    fn config_json(&self) -> serde_json::Value;
}

/// Writes a model as a folder: `config.json`, then `model.safetensors`. The folder is made if it is not there; other files in it
/// stay.
///
/// Each file appears whole or not at all, the weights last.
///
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
/// assert_eq!(Checkpoint::open(&folder)?.names().collect::<Vec<_>>(), ["linear.bias", "linear.weight"]);
/// # std::fs::remove_dir_all(folder).ok();
/// # Ok::<(), loquat::Error>(())
/// ```
///
/// # Errors
/// [`Error::Io`] if something cannot be written.
pub fn save_pretrained(folder: impl AsRef<Path>, model: &impl Pretrained) -> Result<()> {
    let folder = folder.as_ref();
    std::fs::create_dir_all(folder).map_err(|e| Error::io(folder, e))?;
    write_json(folder.join(CONFIG), &model.config_json())?;
    save_module(folder.join(WEIGHTS), model)
}

/// Writes JSON, indented. The file appears whole or not at all.
///
/// # Errors
/// [`Error::Io`] if it cannot be written.
pub(crate) fn write_json(path: impl AsRef<Path>, json: &serde_json::Value) -> Result<()> {
    atomic::write_file(path, |file| file.write_all(format!("{json:#}\n").as_bytes()))
}
