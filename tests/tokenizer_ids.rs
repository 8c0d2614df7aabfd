//! Ids of 10 MB of mixed text against those of the reference tokenizers, which
//! `benches/peers/tokenizer_ids.py` writes to the folder `LOQUAT_IDS`; skipped without it.

#![cfg(feature = "tokenizers")]
#![allow(clippy::unwrap_used)]

use std::path::PathBuf;
use std::time::Instant;

use loquat::text::Tokenizer;

#[test]
fn ids_of_mixed_text_are_the_references() {
    let Some(folder) = std::env::var_os("LOQUAT_IDS").map(PathBuf::from) else {
        return eprintln!("SKIPPED: no references (set LOQUAT_IDS, see benches/peers/tokenizer_ids.py)");
    };
    let data = std::env::var_os("LOQUAT_DATA").map(PathBuf::from);
    let data = data.unwrap_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared/data"));
    let texts = std::fs::read_to_string(folder.join("texts.jsonl")).unwrap();
    let texts: Vec<String> = texts.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let bytes: usize = texts.iter().map(String::len).sum();
    let mut files: Vec<PathBuf> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|e| e == "ids"));
    files.sort();
    let mut differ = Vec::new();
    for file in files {
        let name = file.file_stem().unwrap().to_string_lossy().into_owned();
        let lines = std::fs::read_to_string(&file).unwrap();
        let mut lines = lines.split_terminator('\n');
        let tokenizer = Tokenizer::open(data.join(lines.next().unwrap())).unwrap();
        let expected: Vec<Vec<u32>> =
            lines.map(|line| line.split_whitespace().map(|id| id.parse().unwrap()).collect()).collect();
        assert_eq!(expected.len(), texts.len(), "{name}");
        let start = Instant::now();
        let ours: Vec<Vec<u32>> = texts.iter().map(|text| tokenizer.encode_without_special(text).unwrap()).collect();
        let seconds = start.elapsed().as_secs_f64();
        let wrong: Vec<usize> = (0..texts.len()).filter(|&i| ours[i] != expected[i]).collect();
        let speed = bytes as f64 / seconds / 1e6;
        eprintln!("{name:28} {bytes} bytes, {} of {} texts differ, {speed:.1} MB/s", wrong.len(), texts.len());
        for &i in wrong.iter().take(3) {
            let at = ours[i].iter().zip(&expected[i]).position(|(a, b)| a != b).unwrap_or(0);
            let near = |ids: &[u32]| ids[at.saturating_sub(2)..(at + 6).min(ids.len())].to_vec();
            let spelled = |ids: &[u32]| near(ids).iter().map(|&id| tokenizer.id_to_token(id)).collect::<Vec<_>>();
            eprintln!("  {:?}\n  instead of {:?}", spelled(&ours[i]), spelled(&expected[i]));
        }
        if !wrong.is_empty() {
            differ.push(name);
        }
    }
    assert!(differ.is_empty(), "{differ:?}");
}
