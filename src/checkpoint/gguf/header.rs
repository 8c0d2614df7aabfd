//! Reading the header: counts, metadata, tensor table.
//!
//! ```text
//! "GGUF"  version: u32  tensors: u64  pairs: u64
//! pairs × (key: string  type: u32  value)
//! tensors × (name: string  axes: u32  axes × length: u64  type: u32  offset: u64)
//! padding to the alignment, then the tensors' bytes
//! ```

use std::ops::Range;

use super::MAGIC;
use super::cursor::{Cursor, Text, Wrong};
use super::tensor_type::TensorType;
use super::value::{self, ValueType};

/// Key of the alignment of the tensors' data.
pub(super) const ALIGNMENT: &str = "general.alignment";
/// Alignment if the file does not specify one.
pub(super) const DEFAULT_ALIGNMENT: usize = 32;
/// Maximum number of axes of a tensor.
const MAX_AXES: usize = 4;
/// Minimum bytes of a pair: key length, one byte of key, type, one byte of value.
const LEAST_PAIR: usize = 8 + 1 + 4 + 1;
/// Minimum bytes of a tensor entry: name length, one byte of name, number of axes, one axis, type,
/// offset.
const LEAST_TENSOR: usize = 8 + 1 + 4 + 8 + 4 + 8;

/// A parsed header. Both tables are sorted by name.
#[derive(Debug)]
pub(super) struct Header {
    pub(super) version: u32,
    pub(super) entries: Vec<Entry>,
    pub(super) tensors: Vec<Place>,
}

/// A key and the position of its value.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) key: Text,
    pub(super) kind: ValueType,
    pub(super) value: u64,
}

/// A tensor and its position.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) name: Text,
    pub(super) tensor_type: TensorType,
    /// Index of the file that contains it; 0 when a header is read.
    pub(super) part: u16,
    axes: u8,
    lengths: [usize; MAX_AXES],
    pub(super) bytes: Range<usize>,
}

impl Place {
    pub(super) fn shape(&self) -> &[usize] {
        &self.lengths[..usize::from(self.axes)]
    }
}

/// Reads the header of a file; the error is the reason why it is invalid.
pub(super) fn read(file: &[u8]) -> Wrong<Header> {
    let mut cursor = Cursor { file, at: 0 };
    let magic = cursor.take(MAGIC.len(), || "the start of the file".into())?;
    if magic != MAGIC {
        return Err(format!("expected a GGUF file, found one that starts with {magic:?}"));
    }
    let version = cursor.u32(|| "version".into())?;
    if !(2..=3).contains(&version) {
        let hint = if (2..=3).contains(&version.swap_bytes()) { ", from a big-endian machine" } else { "" };
        return Err(format!("expected version 2 or 3 of GGUF, found {version}{hint}"));
    }
    // Each count is checked against the whole rest of the file, since the size of the other table
    // is not known yet.
    let n_tensors = cursor.count(LEAST_TENSOR, || "number of tensors".into())?;
    let n_entries = cursor.count(LEAST_PAIR, || "number of metadata keys".into())?;
    let mut entries = Vec::with_capacity(n_entries);
    let mut alignment = DEFAULT_ALIGNMENT;
    for i in 0..n_entries {
        let (key, name) = cursor.text(|| format!("metadata key {i}"))?;
        let kind = cursor.u32(|| format!("type of `{name}`"))?;
        let kind = ValueType::from_id(kind)
            .ok_or_else(|| format!("`{name}`: expected a type of metadata from 0 to 12, found {kind}"))?;
        let value = cursor.at as u64;
        value::skip(&mut cursor, kind, name)?;
        if name == ALIGNMENT {
            alignment = match value::read(file, kind, value as usize).and_then(|v| v.as_u64()) {
                Some(a) if a.is_power_of_two() && a <= 1 << 30 => a as usize,
                _ => return Err(format!("`{ALIGNMENT}`: expected a power of two up to 2^30, found something else")),
            };
        }
        entries.push(Entry { key, kind, value });
    }
    let text = |text: &Text| &file[text.range()];
    entries.sort_unstable_by(|a, b| text(&a.key).cmp(text(&b.key)));
    if let Some(pair) = entries.windows(2).find(|pair| text(&pair[0].key) == text(&pair[1].key)) {
        return Err(format!("metadata key `{}` occurs twice", String::from_utf8_lossy(text(&pair[0].key))));
    }
    let tensors = read_tensors(&mut cursor, n_tensors, alignment)?;
    Ok(Header { version, entries, tensors })
}

fn read_tensors(cursor: &mut Cursor<'_>, n: usize, alignment: usize) -> Wrong<Vec<Place>> {
    let file = cursor.file;
    // A table of twice the file's size would be too large, and this is the larger one.
    if n > cursor.left() / LEAST_TENSOR {
        return Err(format!("expected {n} tensors, found only {} bytes for their entries", cursor.left()));
    }
    let mut tensors = Vec::with_capacity(n);
    for i in 0..n {
        let (text, name) = cursor.text(|| format!("name of tensor {i}"))?;
        let wrong = |expected: &str, found: String| Err(format!("tensor `{name}`: expected {expected}, found {found}"));
        let axes = cursor.u32(|| format!("axes of tensor `{name}`"))? as usize;
        if !(1..=MAX_AXES).contains(&axes) {
            return wrong("1 to 4 axes", axes.to_string());
        }
        let mut lengths = [0; MAX_AXES];
        for length in lengths[..axes].iter_mut().rev() {
            let found = cursor.u64(|| format!("shape of tensor `{name}`"))?;
            *length = match usize::try_from(found) {
                Ok(length) if length > 0 => length,
                _ => return wrong("axes of at least 1", found.to_string()),
            };
        }
        let shape = &lengths[..axes];
        let id = cursor.u32(|| format!("type of tensor `{name}`"))?;
        let Some(tensor_type) = TensorType::from_id(id) else {
            return wrong("a tensor type of ggml", format!("type {id}"));
        };
        let block = tensor_type.block_len();
        if !shape[axes - 1].is_multiple_of(block) {
            return wrong(&format!("rows of whole blocks of {block} numbers ({tensor_type})"), format!("{shape:?}"));
        }
        let bytes = shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d));
        let bytes = bytes.and_then(|n| (n / block).checked_mul(tensor_type.block_bytes()));
        let Some(len) = bytes.filter(|&len| len <= file.len()) else {
            return wrong("a shape that fits the file", format!("{shape:?} of {tensor_type}"));
        };
        let offset = cursor.u64(|| format!("offset of tensor `{name}`"))?;
        let Some(start) = usize::try_from(offset).ok().filter(|start| *start <= file.len()) else {
            return wrong("an offset inside the file", offset.to_string());
        };
        if !start.is_multiple_of(alignment) {
            return wrong(&format!("an offset that is a multiple of {alignment}"), start.to_string());
        }
        let bytes = start..start + len;
        tensors.push(Place { name: text, tensor_type, part: 0, axes: axes as u8, lengths, bytes });
    }
    // Offsets are relative to the first multiple of the alignment after the header.
    let data = cursor.at.next_multiple_of(alignment);
    for place in &mut tensors {
        place.bytes = place.bytes.start + data..place.bytes.end + data;
        if place.bytes.end > file.len() {
            return Err(format!(
                "tensor `{}`: expected its data at bytes {:?}, found a file of {} bytes",
                String::from_utf8_lossy(&file[place.name.range()]),
                place.bytes,
                file.len()
            ));
        }
    }
    let name = |place: &Place| String::from_utf8_lossy(&file[place.name.range()]).into_owned();
    tensors.sort_unstable_by_key(|place| (place.bytes.start, place.bytes.end));
    if let Some(pair) = tensors.windows(2).find(|pair| pair[0].bytes.end > pair[1].bytes.start) {
        return Err(format!("tensors `{}` and `{}` overlap", name(&pair[0]), name(&pair[1])));
    }
    tensors.sort_unstable_by(|a, b| file[a.name.range()].cmp(&file[b.name.range()]));
    if let Some(pair) = tensors.windows(2).find(|pair| file[pair[0].name.range()] == file[pair[1].name.range()]) {
        return Err(format!("tensor `{}` occurs twice", name(&pair[0])));
    }
    Ok(tensors)
}
