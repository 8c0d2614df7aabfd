use std::path::PathBuf;

use super::*;
use crate::embeddings::Storage;
use ndarray::array;

fn data(name: &str) -> Option<PathBuf> {
    let root = std::env::var_os("LOQUAT_DATA").map(PathBuf::from);
    let root = root.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data"));
    let path = root.join("vectors").join(name);
    if !path.exists() {
        eprintln!("skipped: {} is absent (set LOQUAT_DATA)", path.display());
    }
    path.exists().then_some(path)
}

fn sample() -> WordVectors {
    let matrix = array![[0.1, -2.5e-20, 3.0], [f32::MIN_POSITIVE, 1.0 / 3.0, -0.0], [7.0, 8.0, 1e30]];
    WordVectors::new(["the", "naïve", "日本"], matrix).unwrap()
}

fn assert_equal(a: &WordVectors, b: &WordVectors) {
    assert!(a.words().eq(b.words()), "{:?}\n{:?}", a.words().collect::<Vec<_>>(), b.words().collect::<Vec<_>>());
    assert_eq!(a.to_array(), b.to_array());
}

fn assert_close(a: &WordVectors, b: &WordVectors, tolerance: f32) {
    assert!(a.words().eq(b.words()));
    for (i, word) in a.words().enumerate() {
        for (x, y) in a.row(i).iter().zip(b.row(i).iter()) {
            assert!((x - y).abs() <= tolerance * y.abs().max(1.0), "{word}: {x} {y}");
        }
    }
}

#[test]
fn every_format_round_trips() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let v = sample();
    v.save_word2vec_text(at("a.txt")).unwrap();
    v.save_glove(at("b.txt")).unwrap();
    v.save_word2vec_binary(at("c.bin")).unwrap();
    v.save_numpy(at("d.npy")).unwrap();
    for name in ["a.txt", "b.txt", "c.bin", "d.npy"] {
        assert_equal(&WordVectors::open(at(name)).unwrap(), &v);
    }
    assert_equal(&WordVectors::read_glove(at("a.txt"), &ReadOptions::default()).unwrap(), &v);
    assert_eq!(WordVectors::open(at("d.npy")).unwrap().storage(), Storage::Mapped);
    let two = WordVectors::open_with(at("a.txt"), &ReadOptions::default().limit(2)).unwrap();
    assert_eq!(two.len(), 2);
    let leftovers = std::fs::read_dir(folder.path()).unwrap().count();
    assert_eq!(leftovers, 5, "four files and one list of words");
}

#[test]
fn words_that_a_format_cannot_express_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let v = WordVectors::new(["a b", "c\nd"], array![[1.0], [2.0]]).unwrap();
    for result in [
        v.save_word2vec_binary(folder.path().join("a")),
        v.save_word2vec_text(folder.path().join("a")),
        v.save_numpy(folder.path().join("a.npy")),
    ] {
        assert!(matches!(result, Err(Error::Argument { .. })), "{result:?}");
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn wrong_text_is_refused_with_its_line_or_taken_leniently() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("v.txt");
    for (name, content, wanted, lenient_words) in [
        ("ragged", &b"3 2\na 1 2\nb 1\nc 3 4\n"[..], "line 3: expected a word and 2 numbers, found 2 fields", 2),
        ("long", b"2 2\na 1 2\nb 1 2 3\n", "line 3: expected a word and 2 numbers, found 4 fields", 1),
        ("no number", b"2 2\na 1 x\nb 1 2\n", "line 2: expected a finite number, found `x`", 1),
        ("not finite", b"3 2\na 1 nan\nb 1 2\nc 1e39 2\n", "line 2: expected a finite number, found `nan`", 1),
        ("count", b"5 2\na 1 2\nb 1 2\n", "line 1: expected 5 words, as in the header, found 2", 2),
        ("few", b"1 2\na 1 2\nb 1 2\n", "line 1: expected 1 words, as in the header, found 2", 2),
        ("duplicate", b"2 2\na 1 2\na 3 4\n", "line 3: expected each word once, found `a` again (it is row 0)", 1),
        ("bytes", b"2 2\na 1 2\nb\xFF 3 4\n", "line 3: expected a word in UTF-8, found byte 0xFF", 2),
        ("empty word", b"2 2\na 1 2\n 3 4\n", "line 3: ", 1),
    ] {
        std::fs::write(&path, content).unwrap();
        let e = WordVectors::read_word2vec_text(&path, &ReadOptions::default()).unwrap_err().to_string();
        assert!(e.contains(wanted), "{name}: {e}");
        let taken = WordVectors::read_word2vec_text(&path, &ReadOptions::lenient()).unwrap();
        assert_eq!(taken.len(), lenient_words, "{name}");
    }
    for content in [&b""[..], b"\n", b"0 0\n", b"a 1 2\n", b"99999999999999999999 3\n"] {
        std::fs::write(&path, content).unwrap();
        assert!(WordVectors::read_word2vec_text(&path, &ReadOptions::default()).is_err(), "{content:?}");
    }
    std::fs::write(&path, "2 9999999999999\na 1 2\nb 3 4\n").unwrap();
    for options in [ReadOptions::default(), ReadOptions::lenient()] {
        let e = WordVectors::open_with(&path, &options).unwrap_err().to_string();
        assert!(e.contains("expected"), "{e}");
    }
    std::fs::write(&path, b". . . 1 2\nthe 3 4\n").unwrap();
    let spaced = WordVectors::read_glove(&path, &ReadOptions::default());
    // Without a header the first line determines the number of columns, so a word with spaces must
    // not be the first.
    assert!(spaced.is_err());
    std::fs::write(&path, b"the 3 4\n. . . 1 2\r\n").unwrap();
    let spaced = WordVectors::read_glove(&path, &ReadOptions::default()).unwrap();
    assert_eq!(spaced.vector(". . .").unwrap().as_ref(), [1.0, 2.0]);
}

#[test]
fn wrong_binary_is_refused_with_its_byte() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("v.bin");
    sample().save_word2vec_binary(&path).unwrap();
    let whole = std::fs::read(&path).unwrap();
    for cut in 0..whole.len() - 1 {
        std::fs::write(&path, &whole[..cut]).unwrap();
        let strict = WordVectors::read_word2vec_binary(&path, &ReadOptions::default());
        assert!(matches!(strict, Err(Error::Format { .. })), "cut at {cut}: {strict:?}");
        let _ = WordVectors::read_word2vec_binary(&path, &ReadOptions::lenient());
        let _ = WordVectors::open(&path);
    }
    for header in ["9999999999999 3", "3 9999999999999", "3 0", "-1 3", "3", "18446744073709551615 4611686018427387904"]
    {
        std::fs::write(&path, [header.as_bytes(), b"\nthe \0\0\0\0"].concat()).unwrap();
        assert!(WordVectors::read_word2vec_binary(&path, &ReadOptions::default()).is_err(), "{header}");
    }
    std::fs::write(&path, [&whole[..], b"more"].concat()).unwrap();
    let e = WordVectors::read_word2vec_binary(&path, &ReadOptions::default()).unwrap_err().to_string();
    assert!(e.contains("expected 3 words, as in the header, found 5 more bytes"), "{e}");
}

#[test]
fn wrong_numpy_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("v.npy");
    sample().save_numpy(&path).unwrap();
    let whole = std::fs::read(&path).unwrap();
    for cut in 0..whole.len() {
        std::fs::write(&path, &whole[..cut]).unwrap();
        assert!(matches!(WordVectors::open_numpy(&path), Err(Error::Format { .. })), "cut at {cut}");
    }
    let doubles = String::from_utf8_lossy(&whole[10..128]).replace("<f4", "<f8");
    std::fs::write(&path, [&whole[..10], doubles.as_bytes(), &whole[128..]].concat()).unwrap();
    assert!(WordVectors::open_numpy(&path).unwrap_err().to_string().contains("'<f4'"));
    std::fs::write(&path, &whole).unwrap();
    std::fs::write(folder.path().join("v.words.txt"), "one\ntwo\n").unwrap();
    assert!(WordVectors::open_numpy(&path).unwrap_err().to_string().contains("3 rows"));
}

#[test]
fn fasttext_models_give_the_vectors_of_their_vec_files() {
    // Every `.bin` that has a `.vec`: newer layout, older layout, words that are not ASCII.
    for (bin, vec) in [
        ("gensim/crime-and-punishment.bin", "gensim/crime-and-punishment.vec"),
        ("gensim/lee_fasttext.bin", "gensim/lee_fasttext.vec"),
    ] {
        let (Some(bin), Some(vec)) = (data(bin), data(vec)) else { continue };
        let model = WordVectors::open(&bin).unwrap();
        let text = WordVectors::open(&vec).unwrap();
        assert_close(&model, &text, 2e-4);
        assert!(model.count(model.word(0).unwrap()).unwrap() > 0);
        if model.subwords.is_some() {
            assert!(model.vector("unseenwords").is_some());
        }
    }
    for name in [
        "gensim/lee_fasttext_new.bin",
        "gensim/non_ascii_fasttext.bin",
        "finalfusion/fasttext.bin",
        "fasttext/cooking.model.bin",
    ] {
        let Some(path) = data(name) else { continue };
        let model = WordVectors::open_with(&path, &ReadOptions::lenient()).unwrap();
        assert!(!model.is_empty(), "{name}");
        let whole = std::fs::read(&path).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let cut_path = folder.path().join("cut.bin");
        for cut in (0..whole.len() / 2).step_by(997) {
            std::fs::write(&cut_path, &whole[..cut]).unwrap();
            assert!(WordVectors::read_fasttext(&cut_path, &ReadOptions::lenient()).is_err(), "{name} cut at {cut}");
        }
    }
}

#[test]
fn files_of_other_tools_are_opened() {
    for (name, words, dim) in [
        ("gensim/EN.1-10.cbow1_wind5_hs0_neg10_size300_smpl1e-05.txt", 20, 300),
        ("gensim/euclidean_vectors.bin", 2747, 10),
        ("gensim/high_precision.kv.bin", 2, 2),
        ("gensim/high_precision.kv.txt", 2, 2),
        ("gensim/test_glove.txt", 76, 50),
        ("finalfusion/similarity.bin", 41, 100),
        ("finalfusion/similarity.nodims", 41, 100),
        ("finalfusion/similarity.txt", 41, 100),
        ("fasttext/wiki.en.sample.vec", 99, 300),
        ("word2vec/googlenews-top1000-300d.txt", 1000, 300),
    ] {
        let Some(path) = data(name) else { continue };
        match WordVectors::open(&path) {
            Ok(v) => assert_eq!((v.len(), v.dim()), (words, dim), "{name}"),
            Err(e) => panic!("{e}"),
        }
    }
    if let (Some(a), Some(b), Some(c)) =
        (data("finalfusion/similarity.bin"), data("finalfusion/similarity.txt"), data("finalfusion/similarity.nodims"))
    {
        let [a, b, c] = [a, b, c].map(|p| WordVectors::open(p).unwrap());
        assert_close(&a.normalized(), &b.normalized(), 1e-5);
        assert_equal(&b, &c);
    }
}

#[test]
fn the_format_of_a_file_is_not_guessed_wrongly() {
    let folder = tempfile::tempdir().unwrap();
    let (path, copy) = (folder.path().join("v"), folder.path().join("copy"));
    let strict = ReadOptions::default();
    let wanted = WordVectors::new(["a", "été"], array![[1.0, 2.0, 33.0], [4.0, 5.0, 6.0]]).unwrap();
    for text in
        ["2 3\na 1 2 33\nété 4 5 6\n", "\u{FEFF}2 3\r\na 1 2 33\r\nété 4 5 6\r\n", "\u{FEFF}a 1 2 33\nété 4 5 6"]
    {
        std::fs::write(&path, text).unwrap();
        for options in [strict, ReadOptions::lenient()] {
            let opened = WordVectors::open_with(&path, &options).unwrap();
            assert_equal(&opened, &wanted);
            opened.save_word2vec_binary(&copy).unwrap();
            assert_equal(&WordVectors::open_with(&copy, &options).unwrap(), &wanted);
        }
    }
    std::fs::write(&path, "2 3\na 1 2 33\nété 4 5 6\n").unwrap();
    for options in [strict, ReadOptions::lenient()] {
        let e = WordVectors::read_word2vec_binary(&path, &options).unwrap_err().to_string();
        assert!(e.contains("byte 4: expected a row of word2vec's binary format, found text"), "{e}");
    }
    wanted.save_numpy(folder.path().join("v.npy")).unwrap();
    std::fs::write(folder.path().join("v.words.txt"), "\u{FEFF}a\nété\n").unwrap();
    assert_equal(&WordVectors::open(folder.path().join("v.npy")).unwrap(), &wanted);
}

#[test]
fn files_without_vectors_are_errors_that_name_their_format() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("v.txt");
    for (bytes, wanted) in [
        (&b"\x1F\x8B\x08\0\0\0\0\0\0\x03line\nline"[..], "found a gzip archive: unpack it with `gunzip`"),
        (b"PK\x03\x04\x14\0glove.6B.50d.txt", "found a zip archive: unpack it with `unzip`"),
        (b"\xFF\xFEa\0 \x001\0", "found text in UTF-16: convert it to UTF-8"),
        (b"\x93NUMPY\x01\0", "found a NumPy array: rename it to end in .npy, with its words in .words.txt"),
        (b"2 3\nno row\nat all\n", "expected "),
        (b"1\n2\n3\n", "expected "),
    ] {
        std::fs::write(&path, bytes).unwrap();
        for options in [ReadOptions::default(), ReadOptions::lenient()] {
            for result in [WordVectors::open_with(&path, &options), WordVectors::read_glove(&path, &options)] {
                let e = result.unwrap_err().to_string();
                assert!(e.contains(wanted), "{e}");
            }
        }
    }
    if let Some(path) = data("glove/glove.6B.100d.sample.txt.gz") {
        let e = WordVectors::open_with(path, &ReadOptions::lenient()).unwrap_err().to_string();
        assert!(e.contains("found a gzip archive"), "{e}");
    }
}
