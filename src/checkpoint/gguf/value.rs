//! Values of the metadata: numbers, booleans, strings and lists.

use super::cursor::Cursor;

/// Maximum nesting of lists; ggml itself reads none.
const MAX_DEPTH: usize = 4;

/// The type of a [`Value`], with GGUF's numbers.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // self-explanatory names
pub enum ValueType {
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    F32,
    Bool,
    String,
    Array,
    U64,
    I64,
    F64,
}

/// A value of the metadata. Strings and lists borrow from the file.
#[doc(hidden)]
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)] // self-explanatory names
pub enum Value<'a> {
    U8(u8),
    I8(i8),
    U16(u16),
    I16(i16),
    U32(u32),
    I32(i32),
    F32(f32),
    Bool(bool),
    String(&'a str),
    Array(Array<'a>),
    U64(u64),
    I64(i64),
    F64(f64),
}

/// A list of values of one type.
#[doc(hidden)]
#[derive(Clone, PartialEq)]
pub struct Array<'a> {
    pub(super) kind: ValueType,
    pub(super) len: usize,
    /// The elements as stored in the file.
    pub(super) bytes: &'a [u8],
}

impl std::fmt::Debug for Array<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Array({} of {:?})", self.len, self.kind)
    }
}

impl ValueType {
    const ALL: [ValueType; 13] = [
        Self::U8,
        Self::I8,
        Self::U16,
        Self::I16,
        Self::U32,
        Self::I32,
        Self::F32,
        Self::Bool,
        Self::String,
        Self::Array,
        Self::U64,
        Self::I64,
        Self::F64,
    ];

    /// Returns the type with an id of the file format.
    pub(crate) fn from_id(id: u32) -> Option<Self> {
        Self::ALL.get(id as usize).copied()
    }

    /// Returns the id in the file format.
    pub(crate) fn id(self) -> u32 {
        self as u32
    }

    /// Bytes of a value, for types of fixed size.
    fn bytes(self) -> Option<usize> {
        match self {
            Self::U8 | Self::I8 | Self::Bool => Some(1),
            Self::U16 | Self::I16 => Some(2),
            Self::U32 | Self::I32 | Self::F32 => Some(4),
            Self::U64 | Self::I64 | Self::F64 => Some(8),
            Self::String | Self::Array => None,
        }
    }

    /// Minimum bytes of a value.
    fn least(self) -> usize {
        match self {
            Self::Array => 12,
            other => other.bytes().unwrap_or(8),
        }
    }
}

impl<'a> Value<'a> {
    /// Returns the type.
    pub(crate) fn value_type(&self) -> ValueType {
        match self {
            Value::U8(_) => ValueType::U8,
            Value::I8(_) => ValueType::I8,
            Value::U16(_) => ValueType::U16,
            Value::I16(_) => ValueType::I16,
            Value::U32(_) => ValueType::U32,
            Value::I32(_) => ValueType::I32,
            Value::F32(_) => ValueType::F32,
            Value::Bool(_) => ValueType::Bool,
            Value::String(_) => ValueType::String,
            Value::Array(_) => ValueType::Array,
            Value::U64(_) => ValueType::U64,
            Value::I64(_) => ValueType::I64,
            Value::F64(_) => ValueType::F64,
        }
    }

    /// Returns the value if it is a non-negative integer.
    pub fn as_u64(&self) -> Option<u64> {
        match *self {
            Value::U64(x) => Some(x),
            _ => self.as_i64()?.try_into().ok(),
        }
    }

    /// Returns the value if it is an integer.
    pub(crate) fn as_i64(&self) -> Option<i64> {
        match *self {
            Value::U8(x) => Some(x.into()),
            Value::I8(x) => Some(x.into()),
            Value::U16(x) => Some(x.into()),
            Value::I16(x) => Some(x.into()),
            Value::U32(x) => Some(x.into()),
            Value::I32(x) => Some(x.into()),
            Value::I64(x) => Some(x),
            Value::U64(x) => x.try_into().ok(),
            _ => None,
        }
    }

    /// Returns the value if it is a non-negative integer that fits `usize`.
    pub(crate) fn as_usize(&self) -> Option<usize> {
        self.as_u64()?.try_into().ok()
    }

    /// Returns the value if it is a float. An f32 is converted through its shortest decimal form,
    /// so that `1e-5` stays `1e-5`.
    pub fn as_f64(&self) -> Option<f64> {
        match *self {
            Value::F32(x) if x.is_finite() => x.to_string().parse().ok(),
            Value::F32(x) => Some(x.into()),
            Value::F64(x) => Some(x),
            _ => None,
        }
    }

    /// Returns the value if it is a boolean.
    pub fn as_bool(&self) -> Option<bool> {
        match *self {
            Value::Bool(x) => Some(x),
            _ => None,
        }
    }

    /// Returns the value if it is a string.
    pub fn as_str(&self) -> Option<&'a str> {
        match *self {
            Value::String(x) => Some(x),
            _ => None,
        }
    }

    /// Returns the value if it is a list.
    pub fn as_array(&self) -> Option<Array<'a>> {
        match self {
            Value::Array(x) => Some(x.clone()),
            _ => None,
        }
    }
}

/// Short form: only the first elements of a list.
impl std::fmt::Display for Value<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Value::U8(x) => x.fmt(f),
            Value::I8(x) => x.fmt(f),
            Value::U16(x) => x.fmt(f),
            Value::I16(x) => x.fmt(f),
            Value::U32(x) => x.fmt(f),
            Value::I32(x) => x.fmt(f),
            Value::F32(x) => x.fmt(f),
            Value::Bool(x) => x.fmt(f),
            Value::U64(x) => x.fmt(f),
            Value::I64(x) => x.fmt(f),
            Value::F64(x) => x.fmt(f),
            Value::String(x) => {
                let shown: String = x.chars().take(80).collect();
                write!(f, "{shown:?}{}", if shown.len() < x.len() { "…" } else { "" })
            }
            Value::Array(array) => {
                write!(f, "[")?;
                for (i, value) in array.values().take(6).enumerate() {
                    write!(f, "{}{value}", if i > 0 { ", " } else { "" })?;
                }
                if array.len > 6 { write!(f, ", … {} in all]", array.len) } else { write!(f, "]") }
            }
        }
    }
}

impl<'a> Array<'a> {
    /// Returns the number of elements.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Returns whether the list is empty.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Returns the elements, up to the first string that is not UTF-8.
    pub fn values(&self) -> impl Iterator<Item = Value<'a>> + use<'a> {
        let (file, kind) = (self.bytes, self.kind);
        let mut at = 0;
        (0..self.len).map_while(move |_| {
            let value = read(file, kind, at)?;
            let mut cursor = Cursor { file, at };
            skip(&mut cursor, kind, "").ok()?;
            at = cursor.at;
            Some(value)
        })
    }

    /// Returns the elements of a list of strings, with invalid UTF-8 replaced by U+FFFD; `None` for
    /// a list of another type.
    pub fn strings(&self) -> Option<impl Iterator<Item = std::borrow::Cow<'a, str>> + use<'a>> {
        let mut cursor = Cursor { file: self.bytes, at: 0 };
        let next = move |_| {
            let len = cursor.u64(String::new).expect("checked when the file was opened") as usize;
            let bytes = cursor.take(len, String::new).expect("checked when the file was opened");
            String::from_utf8_lossy(bytes)
        };
        (self.kind == ValueType::String).then(|| (0..self.len).map(next))
    }
}

/// Skips and validates a value.
pub(super) fn skip(cursor: &mut Cursor<'_>, kind: ValueType, name: &str) -> Result<(), String> {
    skip_nested(cursor, kind, name, 0)
}

fn skip_nested(cursor: &mut Cursor<'_>, kind: ValueType, name: &str, depth: usize) -> Result<(), String> {
    let what = || format!("value of `{name}`");
    match kind {
        ValueType::Bool => match cursor.take(1, what)? {
            [0 | 1] => Ok(()),
            other => Err(format!("`{name}`: expected a boolean, 0 or 1, found {}", other[0])),
        },
        ValueType::String => {
            let len = cursor.count(1, || format!("bytes of the value of `{name}`"))?;
            let bytes = cursor.take(len, what)?;
            // A token in a list may be a part of a character.
            if depth == 0 {
                std::str::from_utf8(bytes).map_err(|e| format!("`{name}`: expected UTF-8: {e}"))?;
            }
            Ok(())
        }
        ValueType::Array if depth == MAX_DEPTH => {
            Err(format!("`{name}`: expected lists nested at most {MAX_DEPTH} deep, found a deeper one"))
        }
        ValueType::Array => {
            let id = cursor.u32(what)?;
            let kind = ValueType::from_id(id)
                .ok_or_else(|| format!("`{name}`: expected a type of elements from 0 to 12, found {id}"))?;
            let len = cursor.count(kind.least(), || format!("elements of `{name}`"))?;
            match kind.bytes() {
                Some(bytes) if kind != ValueType::Bool => cursor.take(len * bytes, what).map(drop),
                _ => (0..len).try_for_each(|_| skip_nested(cursor, kind, name, depth + 1)),
            }
        }
        other => cursor.take(other.least(), what).map(drop),
    }
}

/// Returns the value at a byte offset, if it is complete.
pub(super) fn read(file: &[u8], kind: ValueType, at: usize) -> Option<Value<'_>> {
    fn fixed<const N: usize>(file: &[u8], at: usize) -> Option<[u8; N]> {
        file.get(at..)?.first_chunk().copied()
    }
    Some(match kind {
        ValueType::U8 => Value::U8(u8::from_le_bytes(fixed(file, at)?)),
        ValueType::I8 => Value::I8(i8::from_le_bytes(fixed(file, at)?)),
        ValueType::U16 => Value::U16(u16::from_le_bytes(fixed(file, at)?)),
        ValueType::I16 => Value::I16(i16::from_le_bytes(fixed(file, at)?)),
        ValueType::U32 => Value::U32(u32::from_le_bytes(fixed(file, at)?)),
        ValueType::I32 => Value::I32(i32::from_le_bytes(fixed(file, at)?)),
        ValueType::F32 => Value::F32(f32::from_le_bytes(fixed(file, at)?)),
        ValueType::U64 => Value::U64(u64::from_le_bytes(fixed(file, at)?)),
        ValueType::I64 => Value::I64(i64::from_le_bytes(fixed(file, at)?)),
        ValueType::F64 => Value::F64(f64::from_le_bytes(fixed(file, at)?)),
        ValueType::Bool => Value::Bool(fixed::<1>(file, at)? == [1]),
        ValueType::String => {
            let len = usize::try_from(u64::from_le_bytes(fixed(file, at)?)).ok()?;
            Value::String(std::str::from_utf8(file[at + 8..].get(..len)?).ok()?)
        }
        ValueType::Array => {
            let kind = ValueType::from_id(u32::from_le_bytes(fixed(file, at)?))?;
            let len = usize::try_from(u64::from_le_bytes(fixed(file, at + 4)?)).ok()?;
            let mut end = Cursor { file, at };
            skip(&mut end, ValueType::Array, "").ok()?;
            Value::Array(Array { kind, len, bytes: &file[at + 12..end.at] })
        }
    })
}
