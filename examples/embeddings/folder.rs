//! Where results go.

use std::path::Path;

/// Says before hours of work that there is no folder for the file that will hold their result.
pub(crate) fn check(out: &Path) -> Result<(), String> {
    match out.parent() {
        Some(folder) if !folder.as_os_str().is_empty() && !folder.is_dir() => {
            Err(format!("{}: expected a folder, found none", folder.display()))
        }
        _ => Ok(()),
    }
}
