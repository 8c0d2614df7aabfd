//! One run in a folder at a time.
//!
//! The file `.run.lock` holds the number of the process that trains, and is locked as long as it
//! does: the system lets go of a lock with the process, however that ends, so that nothing a killed
//! run leaves behind keeps the next one out.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::{Error, Result};

const NAME: &str = ".run.lock";
/// Attempts before another process counts as a run, and the time between them: who only looks lets
/// go at once.
const ATTEMPTS: usize = 5;
const PAUSE: Duration = Duration::from_millis(20);

/// A folder that is this run's alone until this is dropped.
#[derive(Debug)]
pub(super) struct Lock {
    path: PathBuf,
    /// Open, and so locked.
    _file: File,
}

impl Lock {
    /// Takes the folder, which exists. Where the file system knows no locks, nobody is kept out.
    ///
    /// # Errors
    /// [`Error::Argument`] naming the process that trains there; [`Error::Io`] if the file cannot
    /// be written.
    pub(super) fn take(folder: &Path) -> Result<Self> {
        let path = folder.join(NAME);
        for _ in 0..ATTEMPTS {
            let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
            let mut file = opened.map_err(|e| Error::io(&path, e))?;
            if !is_free(&file) {
                std::thread::sleep(PAUSE);
                continue;
            }
            // The run before may have removed the file between the two calls above.
            if is_at(&file, &path) {
                let number = format!("{}\n", std::process::id());
                file.set_len(0).and_then(|()| file.write_all(number.as_bytes())).map_err(|e| Error::io(&path, e))?;
                return Ok(Self { path, _file: file });
            }
        }
        Err(taken(folder, &path))
    }

    /// Makes sure that no run has the folder, which need not exist.
    ///
    /// # Errors
    /// As for [`Lock::take`].
    pub(super) fn check(folder: &Path) -> Result<()> {
        let path = folder.join(NAME);
        match File::open(&path) {
            Ok(file) if !is_free(&file) => Err(taken(folder, &path)),
            _ => Ok(()),
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Still locked: whoever opens it now finds that it is gone, and makes another.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Whether no other run has locked the file; from now on it is this one's.
fn is_free(file: &File) -> bool {
    !matches!(file.try_lock(), Err(TryLockError::WouldBlock))
}

#[cfg(unix)]
fn is_at(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    match (file.metadata(), std::fs::metadata(path)) {
        (Ok(ours), Ok(there)) => (ours.dev(), ours.ino()) == (there.dev(), there.ino()),
        _ => false,
    }
}

#[cfg(not(unix))]
fn is_at(_: &File, path: &Path) -> bool {
    path.exists()
}

fn taken(folder: &Path, path: &Path) -> Error {
    let mut number = String::new();
    let _ = File::open(path).and_then(|mut file| file.read_to_string(&mut number));
    let process = if number.trim().is_empty() { "another".into() } else { format!("process {}", number.trim()) };
    Error::argument(
        "folder of the run",
        "one in which no other run trains",
        format!("{process} in {}", folder.display()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_one_runs_until_it_ends_and_the_error_names_the_process() {
        let folder = tempfile::tempdir().unwrap();
        Lock::check(&folder.path().join("absent")).unwrap();
        let lock = Lock::take(folder.path()).unwrap();
        for error in [Lock::take(folder.path()).unwrap_err(), Lock::check(folder.path()).unwrap_err()] {
            let message = error.to_string();
            assert!(message.contains(&format!("process {} in ", std::process::id())), "{message}");
        }
        drop(lock);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        // What a killed run leaves behind keeps nobody out.
        std::fs::write(folder.path().join(NAME), "1\n").unwrap();
        Lock::check(folder.path()).unwrap();
        drop(Lock::take(folder.path()).unwrap());
    }
}
