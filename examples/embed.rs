//! Encodes each line of a file as a vector, with a sentence encoder.
//!
//! ```sh
//! cargo run --release --example embed -- --model DIR --input LINES.txt --output VECTORS.npy
//! ```
//!
//! Needs a `sentence-transformers` folder (`modules.json`, `config.json`, `model.safetensors`, a
//! tokenizer), or a folder of an encoder alone. Writes a NumPy array of 32-bit floats,
//! `[lines, dimensions]`, and prints its shape and the speed.

#[path = "cli/exit.rs"]
mod exit;
#[path = "cli/lines.rs"]
mod lines;
#[macro_use]
#[path = "cli/print.rs"]
mod print;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use loquat::embeddings::save_npy;
use loquat::ops::Precision;
use loquat::progress::ProgressReporter;
use loquat::{Result, SentenceEncoder};
use ndarray::{Axis, concatenate};

/// Encodes each line of a file as a vector, with a sentence encoder.
#[derive(Parser)]
struct Args {
    /// The encoder's folder.
    #[arg(long)]
    model: PathBuf,
    /// A UTF-8 file, one text per line.
    #[arg(long)]
    input: PathBuf,
    /// The .npy file to write.
    #[arg(long)]
    output: PathBuf,
    /// Keeps the first N dimensions only. Default: all.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    dimensions: Option<u32>,
    /// The name of a prompt of the folder, which is put before each line. Default: the folder's
    /// default prompt, if it has one.
    #[arg(long)]
    prompt: Option<String>,
    /// Computes matrix products in bf16: faster on processors that support it, less exact.
    #[arg(long)]
    bf16: bool,
}

/// Lines encoded in one call. A line's vector has the same bits in any batch.
const LINES: usize = 512;

fn run(args: &Args) -> Result<()> {
    let lines = lines::read(&args.input)?;
    let mut encoder = SentenceEncoder::open(&args.model)?;
    if let Some(dimensions) = args.dimensions {
        encoder = encoder.truncate_dimensions(dimensions as usize)?;
    }
    if args.bf16 {
        encoder = encoder.precision(Precision::Bf16);
    }
    let start = Instant::now();
    let mut progress = ProgressReporter::new("lines");
    let mut parts = Vec::new();
    for (i, lines_now) in lines.chunks(LINES).enumerate() {
        let done = i * LINES;
        let _ = progress.update(done as u64, Some(lines.len() as u64), &format!("{done}/{} lines", lines.len()));
        parts.push(match &args.prompt {
            Some(prompt) => encoder.encode_with_prompt(prompt, lines_now)?,
            None => encoder.encode(lines_now)?,
        });
    }
    drop(progress);
    let seconds = start.elapsed().as_secs_f64();
    let parts: Vec<_> = parts.iter().map(|part| part.view()).collect();
    let vectors = concatenate(Axis(0), &parts).expect("all parts have the same columns");
    save_npy(&args.output, vectors.view())?;
    let (rows, columns) = vectors.dim();
    print_line!("{rows} vectors of {columns} dimensions in {seconds:.2} s: {:.0} lines/s", rows as f64 / seconds);
    Ok(())
}

fn main() -> ExitCode {
    exit::exit(run(&Args::parse()))
}
