//! A model that is split over several files, as llama.cpp's `gguf-split` writes it:
//! `name-00001-of-00003.gguf` and so on, of which each has some of the tensors, and the first all
//! the metadata.

use std::path::{Path, PathBuf};

use super::GgufFile;
use crate::error::{Error, Result};
use crate::mapped::Load;

/// The number of a part, from 0 on.
const NUMBER: &str = "split.no";
/// How many parts there are.
const COUNT: &str = "split.count";
/// How many tensors all parts have.
const TENSORS: &str = "split.tensors.count";
/// Names of missing parts that an error lists.
const LISTED: usize = 8;

/// A file with the other parts, if there are some.
pub(super) fn with_others(file: GgufFile, load: Load) -> Result<GgufFile> {
    let Some((number, count)) = place(&file)? else { return Ok(file) };
    let paths = paths(file.path(), number, count)?;
    let missing: Vec<String> = paths.iter().filter(|path| !path.exists()).map(|path| name_of(path).into()).collect();
    if !missing.is_empty() {
        let listed = missing[..missing.len().min(LISTED)].join("`, `");
        let more = if missing.len() > LISTED { format!(" and {} more", missing.len() - LISTED) } else { String::new() };
        let reason =
            format!("part {} of {count}: expected the other parts beside it, missing `{listed}`{more}", number + 1);
        return Err(Error::format(file.path(), reason));
    }
    let mut given = Some(file);
    let mut parts = (0..count).map(|i| match given.take_if(|_| i == number) {
        Some(file) => Ok(file),
        None => GgufFile::open_one(&paths[usize::from(i)], load),
    });
    // There is a first: a count is above 1.
    let mut whole = parts.next().expect("a count above 1")?;
    let rest = parts.collect::<Result<Vec<_>>>()?;
    for (i, part) in std::iter::once(&whole).chain(&rest).enumerate() {
        let found = place(part)?;
        if found != Some((i as u16, count)) {
            let found = found.map_or("a file that is whole".into(), |(n, count)| format!("part {} of {count}", n + 1));
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

/// Which part of how many a file is; none if it is whole.
fn place(file: &GgufFile) -> Result<Option<(u16, u16)>> {
    let number = |key: &str| file.optional(key, "a whole number below 2^16", |v| v.as_u64()?.try_into().ok());
    let Some(count) = number(COUNT)?.filter(|&count: &u16| count > 1) else { return Ok(None) };
    let found: u16 = number(NUMBER)?.unwrap_or(0);
    if found >= count {
        return Err(Error::format(file.path(), format!("`{NUMBER}`: expected a part below {count}, found {found}")));
    }
    Ok(Some((found, count)))
}

/// The paths of all parts, by that of one.
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
