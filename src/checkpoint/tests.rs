//! Whole files and folders, valid and invalid.

use super::*;
use crate::mapped::Load;
use crate::nn::{Linear, Parameter};
use crate::random::Rng;
use crate::tensor::Tensor;

struct Model {
    up: Linear,
    down: Linear,
}
crate::module!(Model { up, down });

fn init<'a>(p: impl Into<crate::nn::Parameters<'a>>) -> Result<Model> {
    let mut p = p.into();
    Ok(Model { up: Linear::init(3, 5, true, p.at("up"))?, down: Linear::init(5, 2, false, p.at("down"))? })
}

fn saved(folder: &Path) -> (PathBuf, Model) {
    let (path, model) = (folder.join(WEIGHTS), init(&mut Rng::seed(7)).unwrap());
    save_module(&path, &model).unwrap();
    (path, model)
}

fn values(model: &Model) -> Vec<(String, Vec<f32>)> {
    model.parameters().into_iter().map(|(path, p)| (path, p.tensor().to_vec())).collect()
}

/// The bytes of a file with the given header and data.
fn file(header: &str, data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), data].concat()
}

fn report(error: Error) -> crate::LoadReport {
    match error {
        Error::Load(report) => *report,
        other => panic!("{other}"),
    }
}

#[test]
fn what_is_saved_is_loaded_to_the_bit() {
    let folder = tempfile::tempdir().unwrap();
    let (path, model) = saved(folder.path());
    for load in [Load::Mmap, Load::Read] {
        for path in [path.as_path(), folder.path()] {
            let checkpoint = Checkpoint::open_with(path, load).unwrap();
            assert_eq!(checkpoint.metadata("format"), Some("pt"));
            assert_eq!(values(&checkpoint.loader().load(|p| init(p)).unwrap()), values(&model));
            let mut other = init(&mut Rng::seed(8)).unwrap();
            checkpoint.load_into(&mut other).unwrap();
            assert_eq!(values(&other), values(&model));
        }
    }
    let first = std::fs::read(&path).unwrap();
    save_module(&path, &model).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), first, "the same tensors give the same bytes");
}

#[test]
fn half_precision_converts_to_f32_exactly() {
    let numbers: [(u16, u16, f32); 6] = [
        (0x3e00, 0x3fc0, 1.5),
        (0xc000, 0xc000, -2.0),
        (0x0000, 0x0000, 0.0),
        (0x7c00, 0x7f80, f32::INFINITY),
        (0x0400, 0x3880, 6.103_515_6e-5),
        (0x4248, 0x4049, 3.140_625),
    ];
    // One byte in front, so that nothing is aligned.
    let header = r#"{"_":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},
        "b":{"dtype":"BF16","shape":[2,3],"data_offsets":[13,25]},"h":{"dtype":"F16","shape":[6],"data_offsets":[1,13]},
        "s":{"dtype":"F32","shape":[],"data_offsets":[25,29]}}"#;
    let mut data = vec![9];
    numbers.iter().for_each(|(half, _, _)| data.extend(half.to_le_bytes()));
    numbers.iter().for_each(|(_, brain, _)| data.extend(brain.to_le_bytes()));
    data.extend(0.1f32.to_le_bytes());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("half.safetensors");
    std::fs::write(&path, file(header, &data)).unwrap();
    let checkpoint = Checkpoint::open(&path).unwrap();
    let of = |name| checkpoint.tensor(name).unwrap();
    let expected: Vec<f32> = numbers.iter().map(|n| n.2).collect();
    assert_eq!(of("h").to_tensor().unwrap().to_vec(), expected);
    assert_eq!((of("h").dtype(), of("b").dtype()), (&DType::F16, &DType::Bf16));
    assert_eq!(of("b").to_tensor().unwrap().shape(), [2, 3]);
    assert_eq!(of("s").to_tensor().unwrap().item().unwrap(), 0.1);
    let message = of("_").to_tensor().unwrap_err().to_string();
    assert!(message.ends_with("tensor `_`: expected F32, F16 or BF16 numbers or blocks, found U8"), "{message}");
    assert_eq!(of("b").to_tensor().unwrap().to_vec(), expected);
}

#[test]
fn every_bad_name_is_reported_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bad.safetensors");
    let tensor = |shape: &[usize]| Tensor::zeros(shape);
    let (weight, bias, wrong) = (tensor(&[5, 3]), tensor(&[5]), tensor(&[5, 2]));
    let tensors = [("up.weight", &weight), ("up.biass", &bias), ("down.weight", &wrong), ("step", &bias)];
    write_tensors(&path, tensors, None).unwrap();
    let checkpoint = Checkpoint::open(&path).unwrap();
    let mut existing = init(&mut Rng::seed(1)).unwrap();
    let before = values(&existing);
    let found = [
        report(checkpoint.loader().load(|p| init(p)).err().unwrap()),
        report(checkpoint.load_into(&mut existing).unwrap_err()),
    ];
    assert_eq!(values(&existing), before, "a module that could not be loaded is unchanged");
    for report in found {
        assert_eq!(report.missing, ["up.bias"]);
        assert_eq!(report.unexpected, ["step", "up.biass"]);
        let mis_shaped = &report.mis_shaped[0];
        assert_eq!((mis_shaped.name.as_str(), &mis_shaped.expected[..]), ("down.weight", &[2, 5][..]));
        assert_eq!((&mis_shaped.found[..], report.mis_shaped.len()), (&[5, 2][..], 1));
    }
    let mended = checkpoint
        .loader()
        .rename("bias", "biass")
        .ignore(|name| name == "step")
        .load(|mut p| Ok((Linear::init(3, 5, true, p.at("up"))?, Linear::init(2, 5, false, p.at("down"))?)));
    assert!(mended.is_ok());
}

#[test]
fn a_configuration_that_asks_for_the_moon_is_an_error_without_an_allocation() {
    let folder = tempfile::tempdir().unwrap();
    let (path, _) = saved(folder.path());
    let loader = Checkpoint::open(path).unwrap();
    let error = loader.loader().load(|mut p| Linear::init(1 << 40, 1 << 20, true, p.at("up"))).unwrap_err();
    assert_eq!(report(error).mis_shaped.len(), 2);
}

#[test]
fn a_constructors_own_error_comes_through() {
    let folder = tempfile::tempdir().unwrap();
    let (path, _) = saved(folder.path());
    let checkpoint = Checkpoint::open(path).unwrap();
    let error = checkpoint.loader().load(|_| Err::<Model, _>(Error::argument("heads", "a divisor", 3))).err().unwrap();
    assert!(matches!(error, Error::Argument { .. }));
}

struct Tied {
    wte: Parameter,
    head: Option<Parameter>,
}

#[test]
fn prefixes_and_ties_are_found_either_way() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tied.safetensors");
    let (a, b) = (Tensor::full(&[2, 2], 1.0), Tensor::full(&[2, 2], 2.0));
    let build = |with_head: bool, prefix: bool| {
        let checkpoint = Checkpoint::open(&path).unwrap();
        let loader =
            checkpoint.loader().optional_prefix("transformer.").tie("lm_head.weight", "transformer.wte.weight");
        let path = if prefix { "transformer.wte" } else { "wte" };
        loader.load(|mut p| {
            let mut get = |at: &str| p.at(at).get("weight", &[2, 2], crate::nn::Init::Zeros);
            Ok(Tied { wte: get(path)?, head: with_head.then(|| get("lm_head")).transpose()? })
        })
    };
    for names in [
        &["transformer.wte.weight"][..],
        &["wte.weight"],
        &["transformer.wte.weight", "lm_head.weight"],
        &["wte.weight", "lm_head.weight"],
        &["lm_head.weight"],
    ] {
        write_tensors(&path, names.iter().map(|&name| (name, &a)), None).unwrap();
        for with_head in [false, true] {
            let tied = build(with_head, true).unwrap();
            assert_eq!(tied.wte.tensor().to_vec(), a.to_vec(), "{names:?}");
            assert_eq!(tied.head.map(|h| h.tensor().to_vec()), with_head.then(|| a.to_vec()));
        }
        assert_eq!(build(false, false).is_ok(), names != ["lm_head.weight"], "{names:?}");
    }
    write_tensors(&path, [("wte.weight", &a), ("lm_head.weight", &b)], None).unwrap();
    let message = build(false, true).err().unwrap().to_string();
    assert!(message.contains("`lm_head.weight` and `wte.weight`: expected equal tensors"), "{message}");
    write_tensors(&path, [("wte.weight", &a), ("other", &b)], None).unwrap();
    assert_eq!(report(build(false, true).err().unwrap()).unexpected, ["other"]);
}

#[test]
fn shards_are_one_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let model = init(&mut Rng::seed(7)).unwrap();
    let parameters = model.parameters();
    let part = |range: std::ops::Range<usize>, name: &str| {
        let tensors = parameters[range].iter().map(|(path, p)| (path.as_str(), p.tensor()));
        write_tensors(folder.path().join(name), tensors, None).unwrap();
    };
    part(0..2, "model-1.safetensors");
    part(2..3, "model-2.safetensors");
    let index = |map: &str| std::fs::write(folder.path().join(INDEX), format!("{{\"weight_map\":{map}}}")).unwrap();
    let good =
        r#"{"up.weight":"model-1.safetensors","up.bias":"model-1.safetensors","down.weight":"model-2.safetensors"}"#;
    index(good);
    let checkpoint = Checkpoint::open(folder.path()).unwrap();
    assert_eq!(values(&checkpoint.loader().load(|p| init(p)).unwrap()), values(&model));
    for (map, word) in [
        (good.replace("model-2", "model-3"), "model-3"),
        (good.replace("model-2.safetensors", "../model-2.safetensors"), "in the folder of the index"),
        (good.replace("model-2.safetensors", "/etc/passwd"), "in the folder of the index"),
        (good.replace("down", "side"), "`side.weight`"),
        (good.replace("\"up.bias\":\"model-1", "\"up.bias\":\"model-2"), "`up.bias` in `model-2.safetensors`"),
        ("[]".into(), "expected an index"),
    ] {
        index(&map);
        let message = Checkpoint::open(folder.path()).unwrap_err().to_string();
        assert!(message.contains(word), "{map}: {message}");
    }
    index(good);
    part(1..3, "model-2.safetensors");
    let message = Checkpoint::open(folder.path()).unwrap_err().to_string();
    assert!(message.contains("`up.bias` is in another shard too"), "{message}");
}

#[test]
fn a_file_cut_short_at_any_byte_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let (path, _) = saved(folder.path());
    let whole = std::fs::read(&path).unwrap();
    for len in 0..whole.len() {
        std::fs::write(&path, &whole[..len]).unwrap();
        let load = if len % 2 == 0 { Load::Mmap } else { Load::Read };
        let error = Checkpoint::open_with(&path, load).unwrap_err();
        assert!(matches!(error, Error::Format { .. }), "{len}: {error}");
    }
    std::fs::write(&path, [&whole[..], &[0]].concat()).unwrap();
    assert!(Checkpoint::open(&path).is_err(), "a byte too many");
}

#[test]
fn hostile_headers_are_errors() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("hostile.safetensors");
    let one = |dtype: &str, shape: &str, places: &str| {
        file(&format!(r#"{{"a":{{"dtype":"{dtype}","shape":{shape},"data_offsets":{places}}}}}"#), &[0; 8])
    };
    let length = |length: u64| [&length.to_le_bytes()[..], b"{}"].concat();
    let cases = [
        ("no bytes", vec![]),
        ("a length beyond the file", length(3)),
        ("a length beyond the limit", length(100_000_001)),
        ("the greatest length", length(u64::MAX)),
        ("a length that would overflow", length(u64::MAX - 7)),
        ("no JSON", file("{", &[])),
        ("no UTF-8", [&2u64.to_le_bytes()[..], &[0xff, 0xfe]].concat()),
        ("a list", file("[]", &[])),
        ("nesting", file(&"[".repeat(100_000), &[])),
        ("another dtype", one("F33", "[2]", "[0,8]")),
        ("a shape that overflows", one("F32", "[4611686018427387904,4]", "[0,8]")),
        ("a shape that is negative", one("F32", "[-2]", "[0,8]")),
        ("a shape too large for its place", one("F32", "[1000000000000]", "[0,8]")),
        ("a place beyond the file", one("F32", "[1000]", "[0,4000]")),
        ("a place that overflows", one("F32", "[2]", "[18446744073709551608,18446744073709551615]")),
        ("a place that ends before it begins", one("F32", "[2]", "[8,0]")),
        ("a hole in front", one("F32", "[1]", "[4,8]")),
        ("bytes left over", one("F32", "[1]", "[0,4]")),
    ];
    for (what, bytes) in cases {
        std::fs::write(&path, bytes).unwrap();
        for load in [Load::Mmap, Load::Read] {
            let error = Checkpoint::open_with(&path, load).unwrap_err();
            assert!(matches!(&error, Error::Format { path: p, .. } if *p == path), "{what}: {error}");
        }
    }
}

#[test]
fn changed_header_bytes_never_panic() {
    let folder = tempfile::tempdir().unwrap();
    let (path, _) = saved(folder.path());
    let whole = std::fs::read(&path).unwrap();
    let header = 8 + u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize;
    let mut rng = Rng::seed(1);
    for at in 0..header {
        let mut bytes = whole.clone();
        bytes[at] = rng.next_u32() as u8;
        std::fs::write(&path, &bytes).unwrap();
        if let Ok(checkpoint) = Checkpoint::open(&path) {
            let _ = checkpoint.loader().load(|p| init(p));
        }
    }
}

#[test]
fn an_empty_folder_says_what_it_lacks() {
    let folder = tempfile::tempdir().unwrap();
    let message = Checkpoint::open(folder.path()).unwrap_err().to_string();
    assert!(
        message.ends_with("`model.safetensors` or `model.safetensors.index.json` in the folder, found an empty folder")
    );
    assert!(matches!(Checkpoint::open(folder.path().join("absent")), Err(Error::Io { .. })));
}

#[test]
fn a_name_twice_and_a_place_that_cannot_be_written_are_errors() {
    let folder = tempfile::tempdir().unwrap();
    let a = Tensor::zeros(&[1]);
    let twice = write_tensors(folder.path().join("a"), [("x", &a), ("x", &a)], None);
    assert!(matches!(twice, Err(Error::Argument { .. })));
    assert!(matches!(write_tensors(folder.path().join("b/c"), [("x", &a)], None), Err(Error::Io { .. })));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn mapped_weights_are_packed_in_turn_and_stay_what_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let (path, _) = saved(folder.path());
    let x = Tensor::uniform(&[4, 3], -1.0, 1.0, &mut Rng::seed(2));
    let open = |load, packed| {
        let options = OpenOptions::default().packed(packed);
        Checkpoint::open_with(&path, load).unwrap().loader().options(&options).load(|p| init(p)).unwrap()
    };
    let layout = crate::ops::linear::WeightLayout::OutIn;
    let is_packed_for = |layer: &Linear, rows| {
        let (weight, precision) = (layer.weight.weight(), crate::ops::Precision::F32);
        layer.weight.packed().is_some_and(|packed| {
            let pack = || crate::ops::linear::pack(weight, layout, precision);
            packed.get(weight, layout, precision, rows, pack).is_some()
        })
    };
    let is_packed = |layer: &Linear| is_packed_for(layer, 1);
    let fresh = open(Load::Mmap, true);
    let turns: Vec<usize> = [&fresh.up, &fresh.down].map(|layer| (0..).find(|_| is_packed(layer)).unwrap()).into();
    assert!(turns.iter().all(|turn| (1..=32).contains(turn)) && turns[0] != turns[1], "{turns:?}");
    let fresh = open(Load::Mmap, true);
    for layer in [&fresh.up, &fresh.down] {
        assert!(!is_packed_for(layer, 1000) && is_packed_for(layer, 1000), "many rows do not wait");
    }
    let run = |model: &Model| {
        crate::no_grad(|| [(); 33].map(|()| model.down.forward(&model.up.forward(&x).unwrap()).unwrap().to_vec()))
    };
    let (mut mapped, plain, read) = (open(Load::Mmap, true), open(Load::Mmap, false), open(Load::Read, true));
    assert_eq!(run(&mapped), run(&read));
    assert_eq!(run(&mapped), run(&plain));
    assert!(is_packed(&mapped.up) && !is_packed(&plain.up) && !is_packed(&read.up));
    assert_eq!(values(&mapped), values(&read), "the file is read again");
    mapped.up.weight.data_mut()[0] += 1.0;
    assert!(!is_packed(&mapped.up) && !is_packed(&mapped.up), "it left the file");
    assert_ne!(run(&mapped), run(&read));
}
