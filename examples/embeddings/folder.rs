//! Where results go.

use std::fs::File;
use std::path::Path;

/// Reports before hours of work that their result cannot be written.
pub(crate) fn check(out: &Path) -> Result<(), String> {
    let folder = out.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if !folder.is_dir() {
        return Err(format!("{}: expected a folder, found none", folder.display()));
    }
    if out.is_dir() {
        return Err(format!("{}: expected the name of a file, found a folder", out.display()));
    }
    if out.exists() && !out.is_file() {
        return Ok(()); // a device or a pipe
    }
    // The file itself is made when it is whole.
    let probe = folder.join(format!(".tmp-{}-probe", std::process::id()));
    File::create(&probe).map_err(|error| format!("{}: {error}", folder.display()))?;
    std::fs::remove_file(&probe).map_err(|error| format!("{}: {error}", probe.display()))
}
