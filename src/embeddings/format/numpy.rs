//! NumPy: the matrix as `NAME.npy`, the words as `NAME.words.txt`, one per line.
//!
//! Each is read by one line of Python, and the matrix is mapped without a copy, so opening 400 000
//! vectors takes milliseconds and processes share its pages. See [`MappedFile`] for the
//! requirements on mapped files.

use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ndarray::ArrayView2;

use super::{WordVectors, write_whole};
use crate::embeddings::word_vectors::Rows;
use crate::embeddings::words::Words;
use crate::mapped::{Load, MappedFile};
use crate::{Error, Result};

const MAGIC: &[u8] = b"\x93NUMPY";

impl WordVectors {
    /// Writes `path` (a `.npy` file of `[words, dim]` numbers, `<f4`) and the words to a second
    /// file with `.words.txt` in place of `.npy`.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Argument`] if a word contains a line feed.
    pub fn save_numpy(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        if let Some(word) = self.words().find(|w| w.contains('\n')) {
            return Err(Error::argument("word", "characters other than line feed", format_args!("{word:?}")));
        }
        write_npy(path, self.len(), self.dim(), |out| {
            (0..self.len()).try_for_each(|i| self.row(i).iter().try_for_each(|x| out.write_all(&x.to_le_bytes())))?;
            out.flush()?;
            // Both files are complete before they are renamed, the words first and the numbers
            // right after.
            let words = |out: &mut BufWriter<&mut dyn Write>| self.words().try_for_each(|word| writeln!(out, "{word}"));
            match write_whole(&words_path(path), words) {
                Err(Error::Io { source, .. }) => Err(source),
                other => other.map_err(std::io::Error::other),
            }
        })
    }

    /// Maps a `.npy` file of `[words, dim]` numbers (`<f4`, row-major) and reads the words from its
    /// `.words.txt`.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Format`] if the array has another type or the numbers of words and
    /// rows differ.
    pub fn open_numpy(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let file = MappedFile::open(path, Load::Mmap)?;
        let (n, dim, start) = header(&file).map_err(|reason| Error::format(path, reason))?;
        let words_path = words_path(path);
        let text = std::fs::read(&words_path).map_err(|e| Error::io(&words_path, e))?;
        let text = String::from_utf8(text).map_err(|e| {
            Error::format(&words_path, format!("byte {}: expected UTF-8", e.utf8_error().valid_up_to()))
        })?;
        let words: Words = text.trim_start_matches('\u{FEFF}').lines().collect();
        if words.len() != n {
            let reason =
                format!("expected a word for each of the {n} rows of {}, found {}", path.display(), words.len());
            return Err(Error::format(words_path, reason));
        }
        let rows = if start % 4 == 0 && cfg!(target_endian = "little") {
            Rows::Mapped(Arc::new(file), start)
        } else {
            let (floats, _) = file[start..].as_chunks::<4>();
            Rows::F32(floats.iter().take(n * dim).map(|b| f32::from_le_bytes(*b)).collect())
        };
        Self::from_parts(words, dim, rows, None)
    }
}

/// Writes a matrix as a `.npy` file of `<f4`, row-major. The file is replaced atomically.
///
/// # Errors
/// [`Error::Io`] if the file cannot be written.
///
/// # Examples
/// ```
/// use ndarray::array;
///
/// let path = std::env::temp_dir().join("loquat-save-npy-doc.npy");
/// loquat::embeddings::save_npy(&path, array![[1.0, 2.0], [3.0, 4.0]].view())?;
/// assert!(std::fs::read(&path)?.starts_with(b"\x93NUMPY"));
/// # std::fs::remove_file(&path)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn save_npy(path: impl AsRef<Path>, matrix: ArrayView2<'_, f32>) -> Result<()> {
    write_npy(path.as_ref(), matrix.nrows(), matrix.ncols(), |out| {
        matrix.iter().try_for_each(|x| out.write_all(&x.to_le_bytes()))
    })
}

/// Writes the header, then what `numbers` writes.
fn write_npy(
    path: &Path,
    rows: usize,
    columns: usize,
    numbers: impl FnOnce(&mut BufWriter<&mut dyn Write>) -> std::io::Result<()>,
) -> Result<()> {
    write_whole(path, |out| {
        let shape = format!("({rows}, {columns})");
        let mut header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}");
        // Magic number, version and length are 10 bytes; the numbers start at a multiple of 64.
        let padded = (10 + header.len() + 1).next_multiple_of(64) - 10;
        header.extend(std::iter::repeat_n(' ', padded - header.len() - 1));
        header.push('\n');
        out.write_all(MAGIC)?;
        out.write_all(&[1, 0])?;
        out.write_all(&(header.len() as u16).to_le_bytes())?;
        out.write_all(header.as_bytes())?;
        numbers(out)
    })
}

fn words_path(path: &Path) -> PathBuf {
    path.with_extension("words.txt")
}

/// Parses the header. Returns rows, columns and the byte offset of the numbers.
fn header(file: &[u8]) -> std::result::Result<(usize, usize, usize), String> {
    let rest = file.strip_prefix(MAGIC).ok_or("byte 0: expected the magic number of NumPy, found something else")?;
    let (len, start) = match rest {
        [1, _, a, b, ..] => (usize::from(u16::from_le_bytes([*a, *b])), 10),
        [2 | 3, _, a, b, c, d, ..] => (u32::from_le_bytes([*a, *b, *c, *d]) as usize, 12),
        _ => return Err("byte 6: expected version 1, 2 or 3 of the format".into()),
    };
    let end = len
        .checked_add(start)
        .filter(|&end| end <= file.len())
        .ok_or("expected a header, found the end of the file")?;
    let text = std::str::from_utf8(&file[start..end]).map_err(|_| "expected a header in ASCII")?;
    let value = |key: &str| {
        let at = text.find(&format!("'{key}':"))? + key.len() + 3;
        Some(text[at..].trim_start())
    };
    if !value("descr").is_some_and(|v| v.starts_with("'<f4'")) {
        return Err(format!("expected numbers of type '<f4', found {}", text.trim_end()));
    }
    if !value("fortran_order").is_some_and(|v| v.starts_with("False")) {
        return Err("expected row-major order (fortran_order False)".into());
    }
    let shape = value("shape").and_then(|v| v.strip_prefix('(')?.split_once(')')).map(|(inside, _)| inside);
    let size = |field: &str| field.trim().parse().ok();
    let sizes: Option<Vec<usize>> = shape.and_then(|s| s.trim_end_matches([',', ' ']).split(',').map(size).collect());
    let Some([n, dim]) = sizes.as_deref() else {
        return Err(format!("expected a matrix, found the shape ({})", shape.unwrap_or_default()));
    };
    let bytes = n.checked_mul(*dim).and_then(|x| x.checked_mul(4)).filter(|&bytes| bytes == file.len() - end);
    if bytes.is_none() {
        return Err(format!("expected {n} * {dim} numbers, found {} bytes", file.len() - end));
    }
    Ok((*n, *dim, end))
}
