//! Texts out of a file, one a line.

use std::path::Path;

use loquat::{Error, Result};

/// Every line; the file must have one.
pub(crate) fn read(path: &Path) -> Result<Vec<String>> {
    let bytes = std::fs::read(path).map_err(|source| Error::Io { path: path.into(), source })?;
    let text = String::from_utf8(bytes).map_err(|e| {
        let at = e.utf8_error().valid_up_to();
        Error::Format { path: path.into(), reason: format!("byte {at}: expected UTF-8 text, found something else") }
    })?;
    let lines: Vec<String> = text.lines().map(String::from).collect();
    if lines.is_empty() {
        let reason = "expected at least one line, found none".into();
        return Err(Error::Format { path: path.into(), reason });
    }
    Ok(lines)
}
