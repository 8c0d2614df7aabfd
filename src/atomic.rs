//! Files and folders that appear whole or not at all, whenever the process or the machine stops.
//!
//! What is new is written under a temporary name in the same folder, given to the disk (`fsync`),
//! renamed, and the folder's list of names is given to the disk too. A rename within a folder is
//! atomic: at any instant the name means the old content or the new, and after a loss of power too,
//! because the content reaches the disk before the name does. A temporary name begins with
//! [`TEMPORARY`] and the number of the process, which holds a lock on it. A process that is killed
//! leaves one behind, without a lock: the next one that writes into the folder removes it.
//!
//! Inside a folder that has no name yet nobody looks for files, so there [`write_file`] writes them
//! plainly, and they are given to the disk with their folder: waiting for the disk is what saving
//! costs.
//!
//! A folder cannot replace another one atomically, so [`write_folder`] never replaces: whoever
//! keeps several states of something gives each its own name, and reads the newest.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::error::{Error, Result};

/// How the names of unfinished files and folders begin.
pub(crate) const TEMPORARY: &str = ".tmp-";

/// Writes the file `path`, or replaces it; through a link, the file that it leads to. A device or a
/// pipe (`/dev/stdout`) is written to as it is.
///
/// # Errors
/// [`Error::Io`] if anything cannot be written; what was at `path` before is untouched then, and
/// nothing is left behind.
pub(crate) fn write_file(path: impl AsRef<Path>, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<()> {
    let path = path.as_ref();
    let create = |path: &Path| -> io::Result<File> {
        let file = File::create(path)?;
        hold(&file, path);
        let mut file = BufWriter::with_capacity(1 << 16, file);
        write(&mut file)?;
        file.into_inner().map_err(io::IntoInnerError::into_error)
    };
    let is_device = fs::metadata(path).is_ok_and(|meta| !meta.is_file() && !meta.is_dir());
    let written = if is_device || path.parent().is_some_and(is_temporary) {
        create(path).map(drop)
    } else {
        let target = fs::canonicalize(path).ok().filter(|_| path.is_symlink());
        let path = target.as_deref().unwrap_or(path);
        let temporary = Temporary::beside(path);
        let create = |path: &Path| {
            let file = create(path)?;
            file.sync_all().map(|()| file)
        };
        // Open, and so locked, until it has its name.
        create(&temporary.path).and_then(|file| temporary.rename(path).map(|()| drop(file)))
    };
    written.map_err(|e| Error::io(path, e))
}

/// Gives the file `from` the name `to` too, in place of what was there: no copy where the file
/// system can have two names for a file. Nothing may write into either afterwards; replacing one by
/// renaming leaves the other.
///
/// # Errors
/// [`Error::Io`] if that cannot be done; what was at `to` before is untouched then.
pub(crate) fn link(from: impl AsRef<Path>, to: impl AsRef<Path>) -> Result<()> {
    let (from, to) = (from.as_ref(), to.as_ref());
    let temporary = Temporary::beside(to);
    let linked = fs::hard_link(from, &temporary.path).or_else(|_| {
        fs::copy(from, &temporary.path)?;
        File::open(&temporary.path)?.sync_all()
    });
    linked.and_then(|()| temporary.rename(to)).map_err(|e| Error::io(to, e))
}

/// Makes the folder `path`: `fill` is given an empty folder to write into, which takes the name
/// when all is on the disk.
///
/// # Errors
/// [`Error::Io`] if `path` exists or anything cannot be written, and what `fill` returns; nothing
/// is left behind then.
pub(crate) fn write_folder(path: impl AsRef<Path>, fill: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let path = path.as_ref();
    if path.exists() {
        return Err(Error::io(path, io::ErrorKind::AlreadyExists.into()));
    }
    let temporary = Temporary::beside(path);
    fs::create_dir(&temporary.path).map_err(|e| Error::io(path, e))?;
    // Not every system opens a folder; where it does, it is locked until this returns.
    let held = File::open(&temporary.path).inspect(|folder| hold(folder, &temporary.path));
    fill(&temporary.path)?;
    let _held = held;
    sync_tree(&temporary.path).and_then(|()| temporary.rename(path)).map_err(|e| Error::io(path, e))
}

/// Removes a file or a folder with all it holds. A folder loses its name first, so that half of it
/// is never taken for the whole.
///
/// # Errors
/// [`Error::Io`] if it cannot be removed.
pub(crate) fn remove(path: impl AsRef<Path>) -> Result<()> {
    let path = path.as_ref();
    let temporary = Temporary::beside(path);
    fs::rename(path, &temporary.path).and_then(|()| remove_any(&temporary.path)).map_err(|e| Error::io(path, e))
}

/// Removes what processes that were killed have left unfinished in `folder`. No other process may
/// be writing there.
///
/// # Errors
/// [`Error::Io`] if something cannot be removed.
pub(crate) fn remove_leftovers(folder: impl AsRef<Path>) -> Result<()> {
    let folder = folder.as_ref();
    let entries = match fs::read_dir(folder) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(|e| Error::io(folder, e))?,
    };
    for entry in entries {
        let entry = entry.map_err(|e| Error::io(folder, e))?;
        if is_temporary(&entry.path()) {
            remove_any(&entry.path()).map_err(|e| Error::io(entry.path(), e))?;
        }
    }
    Ok(())
}

/// Locks what bears a temporary name, so that nobody takes it for a leftover. Where the system has
/// no locks nobody removes it either.
fn hold(file: &File, path: &Path) {
    if is_temporary(path) {
        let _ = file.try_lock();
    }
}

/// Removes what killed processes have left in a folder, once in the life of this one: what bears
/// the number of a process that is not there, and is not locked. What cannot be removed stays: it
/// is not this call's business.
fn remove_stale(folder: &Path) {
    static SEEN: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());
    if !SEEN.lock().unwrap_or_else(PoisonError::into_inner).insert(folder.to_path_buf()) {
        return;
    }
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    for path in fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()) {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let process = name.strip_prefix(TEMPORARY).and_then(|rest| rest.split('-').next()?.parse::<u32>().ok());
        if process.is_some_and(|process| !is_running(process))
            && let Ok(file) = File::open(&path)
            && file.try_lock().is_ok()
        {
            let _ = remove_any(&path);
        }
    }
}

/// Whether a process of this number runs, as far as the system says: where it does not, only the
/// lock tells.
fn is_running(process: u32) -> bool {
    process == std::process::id() || cfg!(target_os = "linux") && Path::new(&format!("/proc/{process}")).exists()
}

/// A temporary name; whatever bears it when this is dropped is removed.
struct Temporary {
    path: PathBuf,
}

impl Temporary {
    fn beside(path: &Path) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        remove_stale(path.parent().unwrap_or(Path::new("")));
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let name = format!("{TEMPORARY}{}-{number}-{name}", std::process::id());
        Self { path: path.with_file_name(name) }
    }

    fn rename(&self, path: &Path) -> io::Result<()> {
        fs::rename(&self.path, path)?;
        sync_folder(path.parent().unwrap_or(Path::new("")))
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // After a rename there is nothing by this name; after an error it is the error that is
        // told.
        let _ = remove_any(&self.path);
    }
}

fn is_temporary(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(TEMPORARY))
}

fn remove_any(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(e),
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
    }
}

/// Gives all files below `folder`, and the lists of their names, to the disk.
fn sync_tree(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            sync_tree(&entry.path())?;
        } else {
            // Windows syncs only what is open for writing.
            fs::OpenOptions::new().read(true).append(true).open(entry.path())?.sync_all()?;
        }
    }
    sync_folder(folder)
}

/// Gives the list of a folder's names to the disk, where the system has such a thing.
fn sync_folder(folder: &Path) -> io::Result<()> {
    if cfg!(unix) {
        let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        File::open(folder)?.sync_all()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> =
            fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_that_could_not_be_written_leaves_the_old_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        write_file(&path, |file| file.write_all(b"old")).unwrap();
        let full = |file: &mut dyn Write| {
            file.write_all(b"ne")?;
            Err(io::ErrorKind::StorageFull.into())
        };
        let error = write_file(&path, full).unwrap_err();
        assert!(matches!(&error, Error::Io { path: p, .. } if *p == path), "{error}");
        assert_eq!(fs::read(&path).unwrap(), b"old");
        write_file(&path, |file| file.write_all(b"new")).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(names(folder.path()), ["a"]);
    }

    #[cfg(unix)]
    #[test]
    fn links_are_followed_and_devices_stay() {
        let folder = tempfile::tempdir().unwrap();
        let (path, link) = (folder.path().join("a"), folder.path().join("link"));
        fs::write(&path, "old").unwrap();
        std::os::unix::fs::symlink(&path, &link).unwrap();
        write_file(&link, |file| file.write_all(b"new")).unwrap();
        assert!(link.is_symlink() && fs::read(&path).unwrap() == b"new");
        assert_eq!(names(folder.path()), ["a", "link"]);
        let full = Path::new("/dev/full");
        if fs::metadata(full).is_ok_and(|meta| !meta.is_file()) {
            assert!(write_file(full, |file| file.write_all(b"x")).is_err());
            assert!(!fs::metadata(full).unwrap().is_file());
        }
    }

    #[test]
    fn a_folder_appears_whole_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("step-1");
        let fails = |temporary: &Path| {
            fs::write(temporary.join("half"), "x").unwrap();
            assert!(!path.exists());
            Err(Error::argument("a", "b", "c"))
        };
        assert!(matches!(write_folder(&path, fails), Err(Error::Argument { .. })));
        assert!(names(folder.path()).is_empty());
        let fills = |temporary: &Path| {
            fs::create_dir(temporary.join("sub")).unwrap();
            write_file(temporary.join("plain"), |file| file.write_all(b"x"))?;
            fs::write(temporary.join("sub/whole"), "x").map_err(|e| Error::io(temporary, e))
        };
        write_folder(&path, fills).unwrap();
        assert_eq!(names(&path), ["plain", "sub"]);
        assert!(write_folder(&path, fills).is_err(), "a folder is never replaced");
        remove(&path).unwrap();
        assert!(names(folder.path()).is_empty());
    }

    #[test]
    fn two_names_of_a_file_part_when_one_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let [a, b] = ["a", "b"].map(|name| folder.path().join(name));
        for name in [&a, &b] {
            write_file(name, |file| file.write_all(name.as_os_str().as_encoded_bytes())).unwrap();
        }
        let before = fs::read(&a).unwrap();
        link(&a, &b).unwrap();
        assert_eq!(fs::read(&b).unwrap(), before);
        write_file(&a, |file| file.write_all(b"new")).unwrap();
        assert_eq!(fs::read(&b).unwrap(), before);
        assert!(link(folder.path().join("absent"), &b).is_err());
        assert_eq!(names(folder.path()), ["a", "b"]);
    }

    #[test]
    fn the_next_writer_removes_what_a_killed_one_has_left() {
        let folder = tempfile::tempdir().unwrap();
        // No system counts its processes that far.
        let (killed, running) = (u32::MAX, std::process::id());
        let file = format!(".tmp-{killed}-0-model.safetensors");
        fs::write(folder.path().join(&file), "half").unwrap();
        fs::create_dir_all(folder.path().join(format!(".tmp-{killed}-1-step-1/sub"))).unwrap();
        let kept = [format!(".tmp-{killed}-2-locked"), format!(".tmp-{running}-77777-own"), ".tmp-mine".into()];
        kept.iter().for_each(|name| fs::write(folder.path().join(name), "x").unwrap());
        let locked = File::open(folder.path().join(&kept[0])).unwrap();
        locked.try_lock().unwrap();
        write_file(folder.path().join("a"), |file| file.write_all(b"x")).unwrap();
        let mut expected = [&kept[..], &["a".into()]].concat();
        expected.sort();
        let found = names(folder.path());
        assert_eq!(found, if cfg!(unix) { expected } else { found.clone() });
        assert!(!found.contains(&file));
    }

    #[test]
    fn leftovers_are_removed_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join(".tmp-9-0-step-1/sub")).unwrap();
        fs::write(folder.path().join(".tmp-9-1-model.safetensors"), "x").unwrap();
        fs::write(folder.path().join("tmp"), "x").unwrap();
        remove_leftovers(folder.path()).unwrap();
        assert_eq!(names(folder.path()), ["tmp"]);
        remove_leftovers(folder.path().join("absent")).unwrap();
    }

    #[test]
    fn places_that_cannot_be_written_are_errors_that_name_them() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("file"), "x").unwrap();
        for path in ["absent/a", "file/a"].map(|p| folder.path().join(p)) {
            let found = [
                write_file(&path, |file| file.write_all(b"x")).unwrap_err(),
                write_folder(&path, |_| Ok(())).unwrap_err(),
                remove(&path).unwrap_err(),
            ];
            for error in found {
                assert!(matches!(&error, Error::Io { path: p, .. } if *p == path), "{error}");
            }
        }
        assert_eq!(names(folder.path()), ["file"]);
    }
}
