//! Files as byte slices, memory-mapped or read into memory.
//!
//! The pages of a mapped file are loaded when they are first accessed and can be released at any
//! time, so a corpus or a checkpoint may be larger than memory. A file that is read is a private
//! copy.

// Outside `kernels/`, this is the only file with unsafe blocks: mapping a file cannot be made safe,
// see the hazard of [`Load`].
#![allow(unsafe_code)]

use std::fs::File;
use std::io::Read;
use std::ops::Deref;
use std::path::{Path, PathBuf};

use crate::{Error, Result};

/// How a file is brought into memory.
///
/// **Hazard.** The memory of a mapped file is the file itself. If another process writes to the
/// file, this process sees the change; if the file is truncated, accessing the lost part ends the
/// process with a bus error. No program can prevent this, because operating systems offer no lock
/// that all writers respect. Use [`Load::Read`] where it cannot be ruled out (a file on a network
/// share, a folder that others write to). Replacing a file by renaming a new one over it, as this
/// crate does when it saves, is safe: the mapping keeps the old file. Windows refuses to replace or
/// remove a file while it is mapped: saving over it is an error, and the old file is unchanged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Load {
    /// Map the file: nothing is copied, and pages are loaded when they are accessed. WebAssembly
    /// has no mappings: there the file is read.
    #[default]
    Mmap,
    /// Read the whole file into private memory.
    Read,
}

impl Load {
    /// For a file that is replaced or removed while its bytes are in use.
    pub(crate) const REPLACEABLE: Load = if cfg!(windows) { Load::Read } else { Load::Mmap };
}

/// The bytes of a file, read-only. Their address is a multiple of 8.
#[doc(hidden)]
pub struct MappedFile {
    bytes: Bytes,
    path: PathBuf,
}

enum Bytes {
    #[cfg(not(target_family = "wasm"))]
    Mapped(memmap2::Mmap),
    /// `u64` words, so that the start is aligned for any number format; the last word may extend
    /// past the end of the file.
    Owned(Vec<u64>, usize),
}

impl MappedFile {
    /// Opens a file.
    ///
    /// With [`Load::Mmap`], empty files and anything but regular files (a pipe, a device) are read
    /// instead, because they cannot be mapped; on WebAssembly, all files are.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be opened, mapped or read, or does not fit into memory.
    pub fn open(path: impl AsRef<Path>, load: Load) -> Result<Self> {
        let path = path.as_ref().to_path_buf();
        let bytes = Bytes::open(&path, load).map_err(|source| Error::io(&path, source))?;
        Ok(MappedFile { bytes, path })
    }

    /// Returns the file's path as it was given to [`MappedFile::open`].
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Releases the memory of a part of a mapped file; the system reads it again on the next
    /// access.
    pub(crate) fn give_back(&self, bytes: std::ops::Range<usize>) {
        #[cfg(unix)]
        if let Bytes::Mapped(map) = &self.bytes {
            // SAFETY: nothing was written to the mapping, so a later read gives the file's content
            // as before.
            let advised =
                unsafe { map.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, bytes.start, bytes.len()) };
            // The advice is optional: a system that ignores it keeps the pages.
            drop(advised);
        }
        #[cfg(not(unix))]
        let _ = bytes;
    }

    /// Returns whether the bytes are the file's own pages rather than a copy.
    pub fn is_mapped(&self) -> bool {
        !matches!(self.bytes, Bytes::Owned(..))
    }
}

impl Bytes {
    fn open(path: &Path, load: Load) -> std::io::Result<Self> {
        let mut file = File::open(path)?;
        let meta = file.metadata()?;
        if meta.is_dir() {
            return Err(std::io::Error::new(std::io::ErrorKind::IsADirectory, "expected a file, found a folder"));
        }
        if !meta.is_file() {
            return Self::read_stream(file);
        }
        #[cfg(not(target_family = "wasm"))]
        if load == Load::Mmap && meta.len() > 0 {
            // SAFETY: the mapping is private and read-only, and no `&mut` to it exists. No program
            // can guarantee that the file keeps its length and content; the hazard is documented on
            // [`Load`], and `Load::Read` avoids it.
            return Ok(Bytes::Mapped(unsafe { memmap2::Mmap::map(&file)? }));
        }
        #[cfg(target_family = "wasm")]
        let _ = load;
        let len = usize::try_from(meta.len()).map_err(|_| std::io::Error::from(std::io::ErrorKind::OutOfMemory))?;
        let mut words = words(len)?;
        file.read_exact(&mut bytemuck::cast_slice_mut(&mut words)[..len])?;
        Ok(Bytes::Owned(words, len))
    }

    /// Reads a stream of unknown length to its end.
    fn read_stream(mut file: File) -> std::io::Result<Self> {
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        let mut words = words(bytes.len())?;
        bytemuck::cast_slice_mut(&mut words)[..bytes.len()].copy_from_slice(&bytes);
        Ok(Bytes::Owned(words, bytes.len()))
    }
}

/// Returns zeroed words for `len` bytes, or an error where an allocation would abort the process.
fn words(len: usize) -> std::io::Result<Vec<u64>> {
    let mut words = Vec::new();
    words.try_reserve_exact(len.div_ceil(8)).map_err(|_| std::io::Error::from(std::io::ErrorKind::OutOfMemory))?;
    words.resize(len.div_ceil(8), 0);
    Ok(words)
}

impl AsRef<[u8]> for MappedFile {
    fn as_ref(&self) -> &[u8] {
        match &self.bytes {
            #[cfg(not(target_family = "wasm"))]
            Bytes::Mapped(map) => map,
            Bytes::Owned(words, len) => &bytemuck::cast_slice(words)[..*len],
        }
    }
}

impl Deref for MappedFile {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.as_ref()
    }
}

impl std::fmt::Debug for MappedFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MappedFile")
            .field("path", &self.path)
            .field("len", &self.len())
            .field("mapped", &self.is_mapped())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mapped_and_read_files_have_the_same_aligned_bytes() {
        let folder = tempfile::tempdir().unwrap();
        for len in [0usize, 1, 7, 8, 9, 4096, 10_001] {
            let path = folder.path().join(len.to_string());
            let content: Vec<u8> = (0..len).map(|i| (i * 7) as u8).collect();
            std::fs::write(&path, &content).unwrap();
            for load in [Load::Mmap, Load::Read] {
                let file = MappedFile::open(&path, load).unwrap();
                assert_eq!(file.as_ref(), content, "{load:?} {len}");
                assert_eq!(file.is_mapped(), load == Load::Mmap && len > 0);
                assert_eq!(file.as_ptr() as usize % 8, 0);
                assert_eq!(file.path(), path);
            }
        }
    }

    #[test]
    fn a_missing_file_and_a_folder_are_errors_that_name_them() {
        let folder = tempfile::tempdir().unwrap();
        for path in [folder.path().join("absent"), folder.path().to_path_buf()] {
            for load in [Load::Mmap, Load::Read] {
                let error = MappedFile::open(&path, load).unwrap_err();
                assert!(matches!(&error, Error::Io { path: p, .. } if *p == path), "{error}");
            }
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_mapping_survives_the_replacement_of_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let (path, new) = (folder.path().join("a"), folder.path().join("b"));
        std::fs::write(&path, "old").unwrap();
        std::fs::write(&new, "new!").unwrap();
        let file = MappedFile::open(&path, Load::Mmap).unwrap();
        std::fs::rename(&new, &path).unwrap();
        assert_eq!(file.as_ref(), b"old");
    }
}
