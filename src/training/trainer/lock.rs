//! A lock that allows one run in a folder at a time.
//!
//! The file `.run.lock` contains the id of the process that trains, and is locked while it trains.
//! The operating system releases the lock when the process ends, however it ends, so a killed run
//! does not block the next one.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::atomic::process_id;
use crate::error::{Error, Result};

const NAME: &str = ".run.lock";
/// Attempts before the folder counts as taken, and the delay between them: [`Lock::check`] of
/// another process holds the lock only for an instant.
const ATTEMPTS: usize = 5;
const PAUSE: Duration = Duration::from_millis(20);

/// The lock of a folder, released when it is dropped.
#[derive(Debug)]
pub(super) struct Lock {
    path: PathBuf,
    /// Open, and therefore locked.
    _file: File,
}

impl Lock {
    /// Locks an existing folder. On file systems without locks this always succeeds.
    ///
    /// # Errors
    /// [`Error::Argument`] with the id of the process that trains there; [`Error::Io`] if the file
    /// cannot be written.
    pub(super) fn take(folder: &Path) -> Result<Self> {
        let path = folder.join(NAME);
        for _ in 0..ATTEMPTS {
            let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
            let mut file = opened.map_err(|e| Error::io(&path, e))?;
            if !is_free(&file) {
                std::thread::sleep(PAUSE);
                continue;
            }
            // The previous run may have removed the file between opening and locking it.
            if is_at(&file, &path) {
                let number = format!("{}\n", process_id());
                file.set_len(0).and_then(|()| file.write_all(number.as_bytes())).map_err(|e| Error::io(&path, e))?;
                return Ok(Self { path, _file: file });
            }
        }
        Err(taken(folder, &path))
    }

    /// Checks that no run has locked the folder, which need not exist.
    ///
    /// # Errors
    /// Same as [`Lock::take`].
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
        // Removed while locked: a process that already opened it finds that it is gone and creates
        // another.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Tries to lock the file. Returns false if another run has locked it.
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
        "a folder in which no other run trains",
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
        // What a killed run leaves behind.
        std::fs::write(folder.path().join(NAME), "1\n").unwrap();
        Lock::check(folder.path()).unwrap();
        drop(Lock::take(folder.path()).unwrap());
    }
}
