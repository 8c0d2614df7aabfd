//! Sequential reading of numbers and strings within the bounds of a file.

use std::ops::Range;

/// UTF-8 text in the file. The length has 32 bits, to keep the tables small.
#[derive(Clone, Copy, Debug)]
pub(super) struct Text {
    start: u64,
    len: u32,
}

impl Text {
    pub(super) fn range(&self) -> Range<usize> {
        self.start as usize..self.start as usize + self.len as usize
    }
}

/// A reading position in a file, which only moves forward.
pub(super) struct Cursor<'f> {
    pub(super) file: &'f [u8],
    pub(super) at: usize,
}

/// A result with the reason why the file is invalid.
pub(super) type Wrong<T> = std::result::Result<T, String>;

impl<'f> Cursor<'f> {
    pub(super) fn left(&self) -> usize {
        self.file.len() - self.at
    }

    pub(super) fn take(&mut self, len: usize, what: impl FnOnce() -> String) -> Wrong<&'f [u8]> {
        match self.file[self.at..].get(..len) {
            Some(bytes) => {
                self.at += len;
                Ok(bytes)
            }
            None => Err(format!(
                "{}: expected {len} bytes at byte {}, found {} before the end of the file",
                what(),
                self.at,
                self.left()
            )),
        }
    }

    pub(super) fn u32(&mut self, what: impl FnOnce() -> String) -> Wrong<u32> {
        let bytes = self.take(4, what)?;
        Ok(u32::from_le_bytes(bytes.try_into().expect("4 bytes")))
    }

    pub(super) fn u64(&mut self, what: impl FnOnce() -> String) -> Wrong<u64> {
        let bytes = self.take(8, what)?;
        Ok(u64::from_le_bytes(bytes.try_into().expect("8 bytes")))
    }

    /// Reads a count of items that take at least `least` bytes each; it is limited by the rest of
    /// the file.
    pub(super) fn count(&mut self, least: usize, what: impl Fn() -> String) -> Wrong<usize> {
        let count = self.u64(&what)?;
        let most = self.left() / least;
        match usize::try_from(count) {
            Ok(count) if count <= most => Ok(count),
            _ => Err(format!("{}: expected at most {most} in the rest of the file, found {count}", what())),
        }
    }

    /// Reads a non-empty string.
    pub(super) fn text(&mut self, what: impl Fn() -> String) -> Wrong<(Text, &'f str)> {
        let len = self.count(1, || format!("bytes of {}", what()))?;
        let start = self.at as u64;
        let bytes = self.take(len, &what)?;
        let text = std::str::from_utf8(bytes).map_err(|e| format!("{}: {e}", what()))?;
        match u32::try_from(len) {
            Ok(len) if len > 0 => Ok((Text { start, len }, text)),
            _ => Err(format!("{}: expected 1 to 2^32 - 1 bytes, found {len}", what())),
        }
    }
}
