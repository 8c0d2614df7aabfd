//! Error messages for files and folders that are not models: what they are and what to do.

use std::path::Path;

use super::{INDEX, WEIGHTS, is_gguf, pretrained::CONFIG};
use crate::error::{Error, Result};
use crate::signature;

const ADAPTER: &str = "adapter_config.json";
const ADAPTER_WEIGHTS: &str = "adapter_model.safetensors";
/// How to convert a PyTorch pickle file to safetensors.
const CONVERT: &str = "open it in Python with `transformers`' `from_pretrained` and write it with `save_pretrained(folder, safe_serialization=True)`";
/// How to merge an adapter.
const MERGE: &str =
    "merge it with `peft`: `PeftModel.from_pretrained(base, folder).merge_and_unload().save_pretrained(merged)`";

/// Identifies an unsupported file format by its first bytes.
pub(crate) fn content(bytes: &[u8]) -> Option<&'static str> {
    let kinds: [(&[u8], &str); 3] = [
        (b"PK\x03\x04", "a zip archive, PyTorch's format of `.pt` and `.bin`: convert it to safetensors"),
        (&[0x80, 2], "a PyTorch pickle file: convert it to safetensors"),
        (b"\x89HDF\r\n", "an HDF5 file, TensorFlow's format of models: convert it to safetensors"),
    ];
    let own = kinds.iter().find(|(start, _)| bytes.starts_with(start)).map(|&(_, what)| what);
    own.or_else(|| signature::packed(bytes))
}

/// Returns the error for a path without a `config.json`.
///
/// # Errors
/// [`Error::Io`] if the path does not exist.
pub(crate) fn no_config(path: &Path) -> Result<Error> {
    let found = std::fs::metadata(path).map_err(|e| Error::io(path, e))?;
    let reason = if found.is_dir() { folder(path) } else { file(path) };
    Ok(Error::format(
        path,
        format!("expected a folder with `{CONFIG}` and `{WEIGHTS}` or a .gguf file, found {reason}"),
    ))
}

/// Returns the error for a folder without weights.
pub(crate) fn no_weights(path: &Path) -> Error {
    let reason = format!("expected `{WEIGHTS}` or `{INDEX}` in the folder, found {}", folder(path));
    Error::format(path, reason)
}

fn folder(path: &Path) -> String {
    let has = |name: &str| path.join(name).exists();
    if has(ADAPTER) || has(ADAPTER_WEIGHTS) {
        return adapter(path);
    }
    let mut names: Vec<String> = std::fs::read_dir(path)
        .into_iter()
        .flatten()
        .flatten()
        .map(|e| e.file_name().to_string_lossy().into())
        .collect();
    names.sort();
    let of = |ends: &[&str]| names.iter().find(|name| ends.iter().any(|end| name.to_ascii_lowercase().ends_with(end)));
    if let Some(name) = of(&[".gguf"]) {
        return format!("neither, but `{name}`: give the path of that file");
    }
    if let Some(name) = of(&[".bin", ".bin.index.json", ".pt", ".pth", ".ckpt"]) {
        return format!(
            "`{name}`, a PyTorch pickle file, which is not supported, since loading it can run code: {CONVERT}"
        );
    }
    if let Some(name) = of(&[".h5", ".msgpack", ".onnx", ".ot", ".tflite"]) {
        return format!("`{name}`, an unsupported format: {CONVERT}");
    }
    if let Some(name) = of(&[".safetensors"]).filter(|name| *name != WEIGHTS) {
        return format!("`{name}`: rename it to `{WEIGHTS}` if it has all weights");
    }
    if let Some(name) = of(&[".gz", ".zip", ".tar", ".tgz", ".xz", ".zst"]) {
        return format!("`{name}`: unpack it first");
    }
    match has(WEIGHTS) || has(INDEX) {
        true => format!("weights without `{CONFIG}`: copy it from the source of the model"),
        false if has(CONFIG) => "only the configuration: copy the weights from the source of the model".into(),
        false if names.is_empty() => "an empty folder".into(),
        false => format!("neither among its {} files", names.len()),
    }
}

/// Describes the adapter in a folder.
fn adapter(folder: &Path) -> String {
    let json = std::fs::read(folder.join(ADAPTER)).ok().and_then(|json| serde_json::from_slice(&json).ok());
    let json: serde_json::Value = json.unwrap_or_default();
    let base = match json["base_model_name_or_path"].as_str() {
        Some(base) => format!("of `{base}`"),
        None => "of another model".into(),
    };
    let kind = json["peft_type"].as_str().unwrap_or("PEFT").to_string();
    format!("an adapter ({kind}) {base}, which cannot be used without that model: {MERGE}, then open the merged folder")
}

fn file(path: &Path) -> String {
    let mut start = [0; 32];
    let read = std::fs::File::open(path).and_then(|mut file| std::io::Read::read(&mut file, &mut start)).unwrap_or(0);
    let start = &start[..read];
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
    let ends = |ends: &[&str]| ends.iter().any(|end| name.ends_with(end));
    if start.starts_with(&super::gguf::MAGIC) && !is_gguf(path) {
        return "a GGUF file whose name does not end in `.gguf`: rename it".into();
    }
    if name == ADAPTER || name.starts_with("adapter_model.") {
        return adapter(folder);
    }
    if let Some(what) = content(start).filter(|what| !what.contains("PyTorch")) {
        return what.into();
    }
    if ends(&[".bin", ".pt", ".pth", ".ckpt"]) || content(start).is_some() {
        return format!("a PyTorch pickle file, which is not supported, since loading it can run code: {CONVERT}");
    }
    if ends(&[".safetensors", ".safetensors.index.json"]) {
        return match folder.join(CONFIG).exists() {
            true => format!("a file of weights only: give the path of its folder, `{}`", folder.display()),
            false => {
                format!("a file of weights only: put it into a folder as `{WEIGHTS}` with the model's `{CONFIG}`")
            }
        };
    }
    if name == CONFIG {
        return format!("only the configuration: give the path of its folder, `{}`", folder.display());
    }
    "a file of another kind".into()
}
