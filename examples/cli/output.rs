//! Output paths.

use std::fs::File;
use std::path::Path;

/// Checks that a file can be written, so that a wrong path is an error before hours of work.
pub(crate) fn check(out: &Path) -> Result<(), String> {
    let folder = out.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if !folder.is_dir() {
        return Err(format!("the folder {} does not exist", folder.display()));
    }
    if out.is_dir() {
        return Err(format!("{}: expected the path of a file, found a folder", out.display()));
    }
    if out.exists() && !out.is_file() {
        return Ok(()); // a device or a pipe
    }
    // The file itself appears only when it is complete.
    let probe = folder.join(format!(".tmp-{}-probe", std::process::id()));
    File::create(&probe).map_err(|error| format!("{}: {error}", folder.display()))?;
    std::fs::remove_file(&probe).map_err(|error| format!("{}: {error}", probe.display()))
}
