//! File signatures: recognises files of another kind by their first bytes, for error messages.

/// Returns what kind of file this is, if it must be unpacked or downloaded before use, and how to
/// do that.
pub(crate) fn packed(start: &[u8]) -> Option<&'static str> {
    let kinds: [(&[u8], &str); 7] = [
        (b"\x1f\x8b", "a gzip archive: unpack it with `gunzip`"),
        (b"PK\x03\x04", "a zip archive: unpack it with `unzip`"),
        (b"\x28\xb5\x2f\xfd", "a zstd archive: unpack it with `unzstd`"),
        (b"\xfd7zXZ", "an xz archive: unpack it with `unxz`"),
        (b"BZh", "a bzip2 archive: unpack it with `bunzip2`"),
        (b"version https://git-lfs", "a Git LFS pointer: download the file with `git lfs pull`"),
        (b"<!DOCTYPE html", "a web page: the download failed"),
    ];
    kinds.iter().find(|(signature, _)| start.starts_with(signature)).map(|&(_, what)| what)
}

/// Same as [`packed`], for a file that should be UTF-8 text; also recognises UTF-16.
pub(crate) fn no_text(start: &[u8]) -> Option<&'static str> {
    let is_utf16 = start.starts_with(b"\xff\xfe") || start.starts_with(b"\xfe\xff");
    // A text may begin with `BZh` or `<`.
    let begins_a_text = start.starts_with(b"BZh") || start.starts_with(b"<");
    if is_utf16 { Some("text in UTF-16: convert it to UTF-8") } else { packed(start).filter(|_| !begins_a_text) }
}
