//! Whole files, valid and invalid.

use super::*;

/// A file with a key of every type, and tensors of several types.
fn sample() -> Vec<u8> {
    let mut writer = GgufWriter::new();
    writer.set("general.architecture", Value::String("none")).unwrap();
    writer.set("a.u8", Value::U8(200)).unwrap();
    writer.set("a.i8", Value::I8(-3)).unwrap();
    writer.set("a.u16", Value::U16(60_000)).unwrap();
    writer.set("a.i16", Value::I16(-30_000)).unwrap();
    writer.set("a.u32", Value::U32(4_000_000_000)).unwrap();
    writer.set("a.i32", Value::I32(-5)).unwrap();
    writer.set("a.f32", Value::F32(1e-5)).unwrap();
    writer.set("a.bool", Value::Bool(true)).unwrap();
    writer.set("a.u64", Value::U64(u64::MAX)).unwrap();
    writer.set("a.i64", Value::I64(i64::MIN)).unwrap();
    writer.set("a.f64", Value::F64(0.1)).unwrap();
    writer.set_strings("a.strings", &["", "two", "größer"]).unwrap();
    writer.set_i32s("a.numbers", &[1, -2, 3]).unwrap();
    writer.tensor_f32("one", &[3, 2], vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0]).unwrap();
    writer.tensor("two", TensorType::Q8_0, &[2, 64], || vec![7; 136]).unwrap();
    writer.tensor("six", TensorType::F16, &[1], || vec![0, 0x3c]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.gguf");
    writer.save(&path).unwrap();
    std::fs::read(path).unwrap()
}

/// Opens a file with the given bytes.
fn open(bytes: &[u8]) -> Result<GgufFile> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.gguf");
    std::fs::write(&path, bytes).unwrap();
    GgufFile::open(&path, Load::Read)
}

/// The reason why a header is rejected.
fn refused(bytes: &[u8]) -> String {
    header::read(bytes).map(|_| panic!("this file is broken")).unwrap_err()
}

#[test]
fn what_is_written_is_read() {
    let file = open(&sample()).unwrap();
    assert_eq!((file.version(), file.architecture(), file.tensors().len()), (3, Some("none"), 3));
    let get = |key: &str| file.get(key).unwrap();
    assert_eq!((get("a.u8"), get("a.i8"), get("a.u16")), (Value::U8(200), Value::I8(-3), Value::U16(60_000)));
    assert_eq!(
        (get("a.u32").as_u64(), get("a.i32").as_i64(), get("a.i32").as_u64()),
        (Some(4_000_000_000), Some(-5), None)
    );
    assert_eq!((get("a.u64").as_u64(), get("a.u64").as_i64()), (Some(u64::MAX), None));
    assert_eq!((get("a.f32").as_f64(), get("a.f64").as_f64()), (Some(1e-5), Some(0.1)));
    assert_eq!(
        (get("a.bool").as_bool(), get("a.bool").as_u64(), get("a.i16").as_i64()),
        (Some(true), None, Some(-30_000))
    );
    let strings: Vec<_> = get("a.strings").as_array().unwrap().strings().unwrap().collect();
    assert_eq!(strings, ["", "two", "größer"]);
    assert!(get("a.numbers").as_array().unwrap().strings().is_none());
    assert_eq!(get("a.numbers").to_string(), "[1, -2, 3]");
    assert_eq!(file.metadata().count(), 14);
    assert!(file.get("a").is_none() && file.tensor("three").is_none());
    let one = file.tensor("one").unwrap();
    assert_eq!((one.shape(), one.tensor_type(), one.bytes().len()), (&[3, 2][..], TensorType::F32, 24));
    assert_eq!(one.bytes()[20..], 6f32.to_le_bytes());
    assert_eq!(file.tensor("two").unwrap().bytes(), [7; 136]);
    assert_eq!(file.tensors().map(|t| t.name()).collect::<Vec<_>>(), ["one", "six", "two"]);
    assert_eq!(sample(), sample(), "the same bytes each time");
}

#[test]
fn a_wrong_key_is_named() {
    let file = open(&sample()).unwrap();
    let message = |e: Error| e.to_string();
    let error = message(file.require("a.none", "a number", |v| v.as_f64()).unwrap_err());
    assert!(error.ends_with("`a.none`: expected a number, found none"), "{error}");
    let error = message(file.optional("a.bool", "a number", |v| v.as_f64()).unwrap_err());
    assert!(error.ends_with("`a.bool`: expected a number, found true"), "{error}");
}

#[test]
fn a_file_cut_anywhere_is_refused() {
    let bytes = sample();
    assert!(header::read(&bytes).is_ok());
    // The last tensor ends before the padding.
    let end = header::read(&bytes).unwrap().tensors.iter().map(|place| place.bytes.end).max().unwrap();
    for len in 0..end {
        refused(&bytes[..len]);
    }
}

#[test]
fn a_changed_byte_of_the_header_never_panics() {
    let bytes = sample();
    let header_end = header::read(&bytes).unwrap().tensors.iter().map(|place| place.bytes.start).min().unwrap();
    for at in 0..header_end {
        for value in [0, 1, 2, 9, 127, 128, 255, bytes[at] ^ 1, bytes[at] ^ 0x80, bytes[at].wrapping_add(1)] {
            let mut changed = bytes.clone();
            changed[at] = value;
            if let Ok(file) = header::read(&changed).and_then(|_| open(&changed).map_err(|e| e.to_string())) {
                // A file that is accepted can be read.
                file.metadata().for_each(|(_, value)| drop(value.to_string()));
                assert!(file.tensors().all(|tensor| !tensor.bytes().is_empty()));
            }
        }
    }
}

/// A header of the given counts, keys and tensors.
fn header_of(tensors: u64, pairs: u64, rest: &[&[u8]]) -> Vec<u8> {
    let mut bytes = [&MAGIC[..], &3u32.to_le_bytes(), &tensors.to_le_bytes(), &pairs.to_le_bytes()].concat();
    rest.iter().for_each(|part| bytes.extend(*part));
    bytes
}

fn string(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat()
}

/// A tensor's entry.
fn entry(name: &str, shape: &[u64], tensor_type: u32, offset: u64) -> Vec<u8> {
    let mut bytes = string(name);
    bytes.extend((shape.len() as u32).to_le_bytes());
    shape.iter().for_each(|d| bytes.extend(d.to_le_bytes()));
    bytes.extend(tensor_type.to_le_bytes());
    bytes.extend(offset.to_le_bytes());
    bytes
}

#[test]
fn every_field_that_lies_is_named() {
    let u32s = |x: u32| x.to_le_bytes();
    let u64s = |x: u64| x.to_le_bytes();
    let pair = |key: &str, kind: u32, value: &[u8]| [&string(key)[..], &u32s(kind), value].concat();
    let mut nested = u64s(0).to_vec();
    for _ in 0..6 {
        nested = [&u32s(9)[..], &u64s(1), &nested].concat();
    }
    let pad = [0u8; 512];
    let cases: Vec<(Vec<u8>, &str)> = vec![
        (b"GGML".to_vec(), "starts with"),
        (vec![], "before the end of the file"),
        ([&MAGIC[..], &u32s(1)].concat(), "found 1"),
        ([&MAGIC[..], &u32s(3 << 24)].concat(), "big-endian"),
        (header_of(u64::MAX, 0, &[&pad]), "number of tensors"),
        (header_of(0, u64::MAX, &[&pad]), "number of metadata keys"),
        (header_of(0, 1, &[&u64s(u64::MAX), &pad]), "bytes of metadata key 0"),
        (header_of(0, 1, &[&u64s(0), &pad]), "metadata key 0: expected 1"),
        (header_of(0, 1, &[&u64s(2), &[0xc3, 0x28], &pad]), "utf-8"),
        (header_of(0, 1, &[&pair("k", 13, &pad)]), "`k`: expected a type"),
        (header_of(0, 1, &[&pair("k", 7, &[2])]), "boolean"),
        (header_of(0, 1, &[&pair("k", 8, &u64s(1 << 60))]), "bytes of the value of `k`"),
        (header_of(0, 1, &[&pair("k", 9, &[&u32s(4)[..], &u64s(1 << 62)].concat())]), "elements of `k`"),
        (header_of(0, 1, &[&pair("k", 9, &[&u32s(8)[..], &u64s(u64::MAX)].concat())]), "elements of `k`"),
        (header_of(0, 1, &[&pair("k", 9, &[&u32s(99)[..], &u64s(1)].concat())]), "type of elements"),
        (header_of(0, 1, &[&pair("k", 9, &nested)]), "deeper"),
        (header_of(0, 2, &[&pair("k", 0, &[1]), &pair("k", 0, &[1])]), "`k` occurs twice"),
        (header_of(0, 1, &[&pair("general.alignment", 4, &u32s(24))]), "power of two"),
        (header_of(0, 1, &[&pair("general.alignment", 4, &u32s(0))]), "power of two"),
        (header_of(0, 1, &[&pair("general.alignment", 8, &string("x"))]), "power of two"),
        (header_of(1, 0, &[&entry("t", &[], 0, 0), &pad]), "1 to 4 axes"),
        (header_of(1, 0, &[&entry("t", &[1; 5], 0, 0), &pad]), "1 to 4 axes"),
        (header_of(1, 0, &[&entry("t", &[0], 0, 0), &pad]), "axes of at least 1"),
        (header_of(1, 0, &[&entry("t", &[1 << 40, 1 << 40], 0, 0), &pad]), "fits the file"),
        (header_of(1, 0, &[&entry("t", &[u64::MAX], 0, 0), &pad]), "fits the file"),
        (header_of(1, 0, &[&entry("t", &[33], 8, 0), &pad]), "whole blocks of 32"),
        (header_of(1, 0, &[&entry("t", &[4], 4, 0), &pad]), "type 4"),
        (header_of(1, 0, &[&entry("t", &[4], 1000, 0), &pad]), "type 1000"),
        (header_of(1, 0, &[&entry("t", &[4], 0, 8), &pad]), "multiple of 32"),
        (header_of(1, 0, &[&entry("t", &[4], 0, 512), &pad]), "found a file of"),
        (header_of(1, 0, &[&entry("t", &[4], 0, u64::MAX - 31), &pad]), "inside the file"),
        (header_of(2, 0, &[&entry("t", &[4], 0, 0), &entry("t", &[4], 0, 32), &pad]), "`t` occurs twice"),
        (header_of(2, 0, &[&entry("t", &[9], 0, 0), &entry("u", &[4], 0, 32), &pad]), "overlap"),
        (header_of(2, 0, &[&entry("t", &[4], 0, 0), &entry("u", &[4], 0, 0), &pad]), "overlap"),
    ];
    for (bytes, expected) in cases {
        let reason = refused(&bytes);
        assert!(reason.contains(expected), "expected {expected:?} in: {reason}");
    }
    // The same file with valid fields.
    let sound = header_of(2, 1, &[&pair("k", 0, &[1]), &entry("t", &[4], 0, 0), &entry("u", &[4], 0, 32), &pad]);
    assert_eq!(open(&sound).unwrap().tensors().len(), 2);
}

#[test]
fn a_writer_refuses_what_no_reader_takes() {
    let mut writer = GgufWriter::new();
    writer.set("a", Value::U8(1)).unwrap();
    assert!(writer.set("a", Value::U8(1)).is_err() && writer.set("", Value::U8(1)).is_err());
    assert!(writer.set("general.alignment", Value::U32(64)).is_err());
    assert!(writer.tensor("t", TensorType::Q8_0, &[2, 33], Vec::new).is_err());
    assert!(writer.tensor("t", TensorType::F32, &[], Vec::new).is_err());
    assert!(writer.tensor("t", TensorType::F32, &[0], Vec::new).is_err());
    assert!(writer.tensor_f32("t", &[2], vec![1.0]).is_err());
    writer.tensor_f32("t", &[1], vec![1.0]).unwrap();
    assert!(writer.tensor_f32("t", &[1], vec![1.0]).is_err());
}
