//! Writes folders of every architecture for other programs: `LOQUAT_SAVED=DIR cargo test --test
//! saved_folders -- --ignored`, then `benches/peers/open_in_transformers.py --saved DIR`.

#![allow(clippy::unwrap_used)]

mod cases;

use std::path::{Path, PathBuf};

use loquat::checkpoint::save_pretrained;
use loquat::models::encoder::{
    EncoderForMaskedLm, EncoderForQuestionAnswering, EncoderForSequenceClassification, EncoderForTokenClassification,
    TextEncoder,
};

fn decoders(out: &Path) {
    for (name, index, weights) in [
        ("gpt2", "gpt2/options.json", "gpt2/options.safetensors"),
        ("llama", "llama/cases.json", "llama/weights.safetensors"),
    ] {
        for (case, value) in cases::cases(index) {
            save_pretrained(out.join(name).join(case), &cases::open(&value, weights)).unwrap();
        }
    }
}

fn encoders(out: &Path) {
    for architecture in std::fs::read_dir(cases::fixture("encoders")).unwrap() {
        for folder in std::fs::read_dir(architecture.unwrap().path()).unwrap() {
            let folder = folder.unwrap().path();
            let out = out.join(folder.strip_prefix(cases::fixture("")).unwrap());
            match folder.file_name().unwrap().to_str().unwrap() {
                "ForMaskedLM" | "untied" => save_pretrained(out, &EncoderForMaskedLm::open(folder).unwrap()),
                "ForSequenceClassification" => {
                    save_pretrained(out, &EncoderForSequenceClassification::open(folder).unwrap())
                }
                "ForTokenClassification" => save_pretrained(out, &EncoderForTokenClassification::open(folder).unwrap()),
                "ForQuestionAnswering" => save_pretrained(out, &EncoderForQuestionAnswering::open(folder).unwrap()),
                "Model" | "long" => save_pretrained(out, &TextEncoder::open(folder).unwrap()),
                _ => continue, // older names
            }
            .unwrap();
        }
    }
}

/// Saves the real all-MiniLM-L6-v2, with its vectors of a few texts.
#[cfg(feature = "tokenizers")]
fn sentence_encoder(out: &Path) {
    let Some(folder) = std::env::var_os("LOQUAT_MINILM") else {
        return eprintln!("SKIPPED: set LOQUAT_MINILM to the folder of all-MiniLM-L6-v2");
    };
    let encoder = loquat::SentenceEncoder::open(folder).unwrap();
    let texts = ["a cat sat on the mat", "", "Größe 123 \u{1F600}", &"long ".repeat(300)];
    let out = out.join("sentence-transformers");
    encoder.save(&out).unwrap();
    let vectors: Vec<Vec<f32>> = encoder.encode(&texts).unwrap().rows().into_iter().map(|row| row.to_vec()).collect();
    let expected = serde_json::json!({ "texts": texts, "vectors": vectors });
    std::fs::write(out.join("expected.json"), expected.to_string()).unwrap();
}

#[test]
#[ignore = "writes folders for another program"]
fn folders_for_other_programs() {
    let out = PathBuf::from(std::env::var_os("LOQUAT_SAVED").expect("LOQUAT_SAVED is the folder to write"));
    decoders(&out);
    encoders(&out);
    #[cfg(feature = "tokenizers")]
    sentence_encoder(&out);
}
