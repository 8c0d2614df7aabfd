//! What a file or folder is that was taken for a model, and what to do with it.

use std::path::Path;

use super::{INDEX, WEIGHTS, is_gguf, pretrained::CONFIG};
use crate::error::{Error, Result};
use crate::signature;

const ADAPTER: &str = "adapter_config.json";
const ADAPTER_WEIGHTS: &str = "adapter_model.safetensors";
/// How to get safetensors out of what PyTorch has pickled.
const CONVERT: &str = "open it in Python with `transformers`' `from_pretrained` and write it with `save_pretrained(folder, safe_serialization=True)`";
/// How to merge an adapter.
const MERGE: &str =
    "merge it with `peft`: `PeftModel.from_pretrained(base, folder).merge_and_unload().save_pretrained(merged)`";

/// What a file is by its first bytes, if it is of a kind that is not read.
pub(crate) fn content(bytes: &[u8]) -> Option<&'static str> {
    let kinds: [(&[u8], &str); 3] = [
        (b"PK\x03\x04", "a zip archive, as PyTorch writes `.pt` and `.bin`: write it as safetensors"),
        (&[0x80, 2], "pickled Python objects, as PyTorch writes them: write them as safetensors"),
        (b"\x89HDF\r\n", "an HDF5 file, as TensorFlow writes models: write it as safetensors"),
    ];
    let own = kinds.iter().find(|(start, _)| bytes.starts_with(start)).map(|&(_, what)| what);
    own.or_else(|| signature::packed(bytes))
}

/// Says of a path without a `config.json` what it is.
///
/// # Errors
/// [`Error::Format`] with what was found and what to do; [`Error::Io`] if there is nothing.
pub(crate) fn no_config(path: &Path) -> Result<Error> {
    let found = std::fs::metadata(path).map_err(|e| Error::io(path, e))?;
    let reason = if found.is_dir() { folder(path) } else { file(path) };
    Ok(Error::format(
        path,
        format!("expected a folder with `{CONFIG}` and `{WEIGHTS}` or a .gguf file, found {reason}"),
    ))
}

/// Says of a folder without weights what it has instead.
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
        return format!("`{name}`, which PyTorch has pickled and is not read, since it can run programs: {CONVERT}");
    }
    if let Some(name) = of(&[".h5", ".msgpack", ".onnx", ".ot", ".tflite"]) {
        return format!("`{name}`, a format that is not read: {CONVERT}");
    }
    if let Some(name) = of(&[".safetensors"]).filter(|name| *name != WEIGHTS) {
        return format!("`{name}`: call it `{WEIGHTS}` if it has all weights");
    }
    if let Some(name) = of(&[".gz", ".zip", ".tar", ".tgz", ".xz", ".zst"]) {
        return format!("`{name}`: unpack it first");
    }
    match has(WEIGHTS) || has(INDEX) {
        true => format!("weights without `{CONFIG}`: copy it from where the model comes from"),
        false if has(CONFIG) => "the configuration alone: copy the weights from where the model comes from".into(),
        false if names.is_empty() => "an empty folder".into(),
        false => format!("neither among its {} files", names.len()),
    }
}

/// An adapter, by its folder.
fn adapter(folder: &Path) -> String {
    let json = std::fs::read(folder.join(ADAPTER)).ok().and_then(|json| serde_json::from_slice(&json).ok());
    let json: serde_json::Value = json.unwrap_or_default();
    let base = match json["base_model_name_or_path"].as_str() {
        Some(base) => format!("of `{base}`"),
        None => "of another model".into(),
    };
    let kind = json["peft_type"].as_str().unwrap_or("PEFT").to_string();
    format!(
        "an adapter ({kind}) {base}, which has a few weights beside those of that model: {MERGE}, then give the merged folder"
    )
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
        return format!("a file that PyTorch has pickled and is not read, since it can run programs: {CONVERT}");
    }
    if ends(&[".safetensors", ".safetensors.index.json"]) {
        return match folder.join(CONFIG).exists() {
            true => format!("a file of weights alone: give the path of its folder, `{}`", folder.display()),
            false => {
                format!("a file of weights alone: put it into a folder as `{WEIGHTS}` with the model's `{CONFIG}`")
            }
        };
    }
    if name == CONFIG {
        return format!("the configuration alone: give the path of its folder, `{}`", folder.display());
    }
    "a file of another kind".into()
}
