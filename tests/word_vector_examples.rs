//! The words into which the examples that train word vectors split a text.

#![allow(clippy::unwrap_used)]

use clap::Parser;

#[path = "../examples/embeddings/words.rs"]
mod words;

#[derive(Parser)]
struct Args {
    #[command(flatten)]
    words: words::Words,
}

#[test]
fn flags_determine_how_words_are_split() {
    let line = "\u{201C}Don’t!\u{201D} said Ann's cat-like 'Été', 3.14 — it.";
    for (flags, wanted) in [
        ("", "\u{201C}Don’t!\u{201D}|said|Ann's|cat-like|'Été',|3.14|—|it."),
        ("--lowercase", "\u{201C}don’t!\u{201D}|said|ann's|cat-like|'été',|3.14|—|it."),
        ("--tokenize words", "Don’t|said|Ann's|cat|like|Été|3|14|it"),
        ("--tokenize words --lowercase", "don’t|said|ann's|cat|like|été|3|14|it"),
        ("--tokenize whitespace", "\u{201C}Don’t!\u{201D}|said|Ann's|cat-like|'Été',|3.14|—|it."),
    ] {
        let args = Args::try_parse_from(["x"].into_iter().chain(flags.split_whitespace())).unwrap();
        let mut found = Vec::new();
        args.words.split(line, &mut |word| found.push(word.to_string()));
        assert_eq!(found.join("|"), wanted, "{flags}");
    }
    assert!(Args::try_parse_from(["x", "--tokenize", "letters"]).is_err());
}

#[test]
fn flags_determine_how_a_text_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("text");
    std::fs::write(&path, "\u{FEFF}The cat. The CAT!\nthe cat\n".repeat(9)).unwrap();
    let corpus = loquat::text::Corpus::open(&path).unwrap();
    for (flags, wanted) in [("--lowercase --tokenize words", 2), ("", 5)] {
        let args = Args::try_parse_from(["x"].into_iter().chain(flags.split_whitespace())).unwrap();
        let config =
            loquat::embeddings::Word2Vec::skip_gram().dim(2).min_count(1).negative_samples(1).subsample(0.0).epochs(1);
        let vectors = config.train(&args.words.text(&corpus)).unwrap();
        assert_eq!(vectors.len(), wanted, "{flags}: {:?}", vectors.words().collect::<Vec<_>>());
    }
}
