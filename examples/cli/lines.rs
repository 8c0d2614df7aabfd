//! Reading a file of texts, one per line.

use std::path::Path;

use loquat::{Error, Result};

/// Returns all lines of a UTF-8 file. A file without lines is an error.
pub(crate) fn read(path: &Path) -> Result<Vec<String>> {
    let bytes = std::fs::read(path).map_err(|source| Error::Io { path: path.into(), source })?;
    let text = String::from_utf8(bytes).map_err(|e| {
        let at = e.utf8_error().valid_up_to();
        Error::Format { path: path.into(), reason: format!("byte {at}: expected UTF-8 text, found other bytes") }
    })?;
    let lines: Vec<String> = text.lines().map(String::from).collect();
    if lines.is_empty() {
        let reason = "expected at least one line, found none".into();
        return Err(Error::Format { path: path.into(), reason });
    }
    Ok(lines)
}
