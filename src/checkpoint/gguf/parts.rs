//! Models split into several files by llama.cpp's `gguf-split`: `name-00001-of-00003.gguf` and so
//! on. Each file has some of the tensors, the first also the metadata.

use std::path::{Path, PathBuf};

use super::GgufFile;
use crate::error::{Error, Result};
use crate::mapped::Load;

/// Key of a part's number, counted from 0.
const NUMBER: &str = "split.no";
/// Key of the number of parts.
const COUNT: &str = "split.count";
/// Key of the number of tensors of all parts.
const TENSORS: &str = "split.tensors.count";
/// Maximum number of missing parts that an error lists.
const LISTED: usize = 8;

/// Opens the other parts of a file, if there are any.
pub(super) fn with_others(file: GgufFile, load: Load) -> Result<GgufFile> {
    let Some((number, count)) = place(&file)? else { return Ok(file) };
    let paths = paths(file.path(), number, count)?;
    let missing: Vec<String> = paths.iter().filter(|path| !path.exists()).map(|path| name_of(path).into()).collect();
    if !missing.is_empty() {
        let listed = missing[..missing.len().min(LISTED)].join("`, `");
        let more = if missing.len() > LISTED { format!(" and {} more", missing.len() - LISTED) } else { String::new() };
        let reason = format!(
            "part {} of {count}: expected the other parts in the same folder, missing `{listed}`{more}",
            number + 1
        );
        return Err(Error::format(file.path(), reason));
    }
    let mut given = Some(file);
    let mut parts = (0..count).map(|i| match given.take_if(|_| i == number) {
        Some(file) => Ok(file),
        None => GgufFile::open_one(&paths[usize::from(i)], load),
    });
    // There is a first part, since the count is above 1.
    let mut whole = parts.next().expect("a count above 1")?;
    let rest = parts.collect::<Result<Vec<_>>>()?;
    for (i, part) in std::iter::once(&whole).chain(&rest).enumerate() {
        let found = place(part)?;
        if found != Some((i as u16, count)) {
            let found = found.map_or("an unsplit file".into(), |(n, count)| format!("part {} of {count}", n + 1));
            return Err(Error::format(part.path(), format!("expected part {} of {count}, found {found}", i + 1)));
        }
    }
    for (i, mut part) in (1..).zip(rest) {
        whole.files.append(&mut part.files);
        part.header.tensors.iter_mut().for_each(|place| place.part = i);
        whole.header.tensors.append(&mut part.header.tensors);
    }
    let files = &whole.files;
    let name = |place: &super::Place| &files[usize::from(place.part)][place.name.range()];
    let mut tensors = std::mem::take(&mut whole.header.tensors);
    tensors.sort_unstable_by(|a, b| name(a).cmp(name(b)));
    if let Some(pair) = tensors.windows(2).find(|pair| name(&pair[0]) == name(&pair[1])) {
        let reason = format!("tensor `{}` is in another part too", String::from_utf8_lossy(name(&pair[0])));
        return Err(Error::format(files[usize::from(pair[1].part)].path(), reason));
    }
    whole.header.tensors = tensors;
    let expected = whole.optional(TENSORS, "a whole number", |v| v.as_usize())?;
    if let Some(expected) = expected.filter(|&expected| expected != whole.tensors().len()) {
        let reason = format!("expected {expected} tensors in {count} parts, found {}", whole.tensors().len());
        return Err(Error::format(whole.path(), reason));
    }
    Ok(whole)
}

/// Returns the number of a part and the number of parts; `None` for an unsplit file.
fn place(file: &GgufFile) -> Result<Option<(u16, u16)>> {
    let number = |key: &str| file.optional(key, "a whole number below 2^16", |v| v.as_u64()?.try_into().ok());
    let Some(count) = number(COUNT)?.filter(|&count: &u16| count > 1) else { return Ok(None) };
    let found: u16 = number(NUMBER)?.unwrap_or(0);
    if found >= count {
        return Err(Error::format(file.path(), format!("`{NUMBER}`: expected a part below {count}, found {found}")));
    }
    Ok(Some((found, count)))
}

/// Returns the paths of all parts, given one of them.
fn paths(path: &Path, number: u16, count: u16) -> Result<Vec<PathBuf>> {
    let end = |i: u16| format!("-{:05}-of-{count:05}.gguf", u32::from(i) + 1);
    let Some(stem) = name_of(path).strip_suffix(&end(number)) else {
        let expected =
            format!("part {} of {count} of a model: expected a name that ends in `{}`", number + 1, end(number));
        return Err(Error::format(path, format!("{expected}, found `{}`", name_of(path))));
    };
    Ok((0..count).map(|i| path.with_file_name(format!("{stem}{}", end(i)))).collect())
}

fn name_of(path: &Path) -> &str {
    path.file_name().and_then(|name| name.to_str()).unwrap_or_default()
}
