//! Atomic writes of files and folders: they appear complete or not at all, even if the process or
//! the machine stops.
//!
//! New content is written under a temporary name in the same folder, synced to the disk (`fsync`)
//! and renamed, and then the folder's list of names is synced too. A rename within a folder is
//! atomic: at any moment the name refers to the old content or to the new, even after a loss of
//! power, because the content reaches the disk before the name does. A temporary name begins with
//! [`TEMPORARY`] and the id of the process, which holds a lock on the file. A process that is
//! killed leaves its temporary file behind, unlocked; the next process that writes into the folder
//! removes it.
//!
//! Nothing reads from a folder that does not have its final name yet, so there [`write_file`]
//! writes directly, and the files are synced together with their folder: most of the time that
//! saving takes is spent waiting for the disk.
//!
//! A folder cannot replace another one atomically, so [`write_folder`] never replaces one: to keep
//! several states, give each its own name and read the newest.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use crate::error::{Error, Result};

/// The prefix of the names of unfinished files and folders.
pub(crate) const TEMPORARY: &str = ".tmp-";

/// Writes the file `path`, or replaces it. Symbolic links are followed. A device or a pipe
/// (`/dev/stdout`) is written to directly.
///
/// # Errors
/// [`Error::Io`] if anything cannot be written, or on Windows if `path` is mapped into memory by
/// any process; then `path` is unchanged and no temporary file is left.
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
        let temporary = Temporary::for_path(path);
        let create = |path: &Path| {
            let file = create(path)?;
            file.sync_all().map(|()| file)
        };
        // The file stays open, and thus locked, until it is renamed.
        create(&temporary.path).and_then(|file| temporary.rename(path).map(|()| drop(file)))
    };
    written.map_err(|e| Error::io(path, e))
}

/// Gives the file `from` a second name `to`, replacing what was there: a hard link, or a copy where
/// the file system has none. Nothing may write into either file afterwards; replacing one by a
/// rename leaves the other unchanged.
///
/// # Errors
/// [`Error::Io`] if that fails; then `to` is unchanged.
pub(crate) fn link(from: impl AsRef<Path>, to: impl AsRef<Path>) -> Result<()> {
    let (from, to) = (from.as_ref(), to.as_ref());
    let temporary = Temporary::for_path(to);
    let linked = fs::hard_link(from, &temporary.path).or_else(|_| {
        fs::copy(from, &temporary.path)?;
        sync_file(&temporary.path)
    });
    linked.and_then(|()| temporary.rename(to)).map_err(|e| Error::io(to, e))
}

/// Creates the folder `path`: `fill` writes into an empty folder, which is renamed to `path` once
/// everything is on the disk.
///
/// # Errors
/// [`Error::Io`] if `path` exists or anything cannot be written; also the errors of `fill`. Nothing
/// is left behind on errors.
pub(crate) fn write_folder(path: impl AsRef<Path>, fill: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let path = path.as_ref();
    if path.exists() {
        return Err(Error::io(path, io::ErrorKind::AlreadyExists.into()));
    }
    let temporary = Temporary::for_path(path);
    fs::create_dir(&temporary.path).map_err(|e| Error::io(path, e))?;
    // Not every system can open a folder; where it can, the folder stays locked until this function
    // returns.
    let held = File::open(&temporary.path).inspect(|folder| hold(folder, &temporary.path));
    fill(&temporary.path)?;
    let _held = held;
    sync_tree(&temporary.path).and_then(|()| temporary.rename(path)).map_err(|e| Error::io(path, e))
}

/// Removes a file, or a folder with its content. A folder is renamed first, so that a partly
/// removed one is never taken for a complete one.
///
/// # Errors
/// [`Error::Io`] if it cannot be removed.
pub(crate) fn remove(path: impl AsRef<Path>) -> Result<()> {
    let path = path.as_ref();
    let temporary = Temporary::for_path(path);
    fs::rename(path, &temporary.path).and_then(|()| remove_any(&temporary.path)).map_err(|e| Error::io(path, e))
}

/// Removes the unfinished files of killed processes from `folder`. No other process may be writing
/// there.
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

/// Locks a temporary file or folder, so that other processes do not remove it as a leftover. Where
/// the system has no locks, none are removed either.
fn hold(file: &File, path: &Path) {
    if is_temporary(path) {
        let _ = file.try_lock();
    }
}

/// Removes the leftovers of killed processes from a folder, once per folder in the life of this
/// process: entries whose name contains the id of a process that no longer exists and that are not
/// locked. Entries that cannot be removed are ignored.
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

/// Returns whether a process with this id exists. Only Linux is asked; elsewhere the lock alone
/// decides.
fn is_running(process: u32) -> bool {
    process == process_id() || cfg!(target_os = "linux") && Path::new(&format!("/proc/{process}")).exists()
}

/// Returns the id of this process; on WebAssembly, which has none, a number drawn at random.
pub(crate) fn process_id() -> u32 {
    static RANDOM: OnceLock<u32> = OnceLock::new();
    if cfg!(target_family = "wasm") {
        return *RANDOM.get_or_init(|| RandomState::new().build_hasher().finish() as u32);
    }
    std::process::id()
}

/// A temporary name; the file or folder of that name is removed on drop.
struct Temporary {
    path: PathBuf,
}

impl Temporary {
    fn for_path(path: &Path) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        remove_stale(path.parent().unwrap_or(Path::new("")));
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let name = format!("{TEMPORARY}{}-{number}-{name}", process_id());
        Self { path: path.with_file_name(name) }
    }

    fn rename(&self, path: &Path) -> io::Result<()> {
        fs::rename(&self.path, path)?;
        sync_folder(path.parent().unwrap_or(Path::new("")))
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // After a rename this name no longer exists; after an error, that error is the one to
        // report.
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

/// Syncs all files below `folder`, and the lists of their names, to the disk.
fn sync_tree(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            sync_tree(&entry.path())?;
        } else {
            sync_file(&entry.path())?;
        }
    }
    sync_folder(folder)
}

/// Syncs a file to the disk. Windows syncs only what is open for writing.
fn sync_file(path: &Path) -> io::Result<()> {
    fs::OpenOptions::new().read(true).append(cfg!(windows)).open(path)?.sync_all()
}

/// Syncs a folder's list of names to the disk, where the system supports it.
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
    fn writing_one_name_of_a_file_keeps_the_other() {
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
        // No system has process ids this large.
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
    fn unwritable_paths_are_errors_that_name_them() {
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
