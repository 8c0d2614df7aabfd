//! A vector for each line of a file, with a sentence encoder.
//!
//! ```sh
//! cargo run --release --example embed -- --model DIR --input LINES.txt --output VECTORS.npy
//! ```
//!
//! Needs a folder as `sentence-transformers` has it (`modules.json`, `config.json`, `model.safetensors`, a tokenizer), or an encoder's
//! alone. Writes a NumPy array of 32-bit floats, `[lines, dimensions]`, and prints how many there are and how long it took.

#[macro_use]
#[path = "cli/say.rs"]
mod say;
#[path = "cli/exit.rs"]
mod exit;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use loquat::embeddings::save_npy;
use loquat::ops::Precision;
use loquat::{Result, SentenceEncoder};

mod lines;

/// A vector for each line of a file.
#[derive(Parser)]
struct Args {
    /// The encoder's folder.
    #[arg(long)]
    model: PathBuf,
    /// A text a line, UTF-8.
    #[arg(long)]
    input: PathBuf,
    /// The array to write.
    #[arg(long)]
    output: PathBuf,
    /// Keep only this many columns, at most as many as there are. Default: all.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    dimensions: Option<u32>,
    /// The name of a prompt of the folder, put before each line. Default: the folder's default
    /// prompt, if it has one.
    #[arg(long)]
    prompt: Option<String>,
    /// Multiply in bf16: faster where the processor can, less exact.
    #[arg(long)]
    bf16: bool,
}

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
    let vectors = match &args.prompt {
        Some(prompt) => encoder.encode_with_prompt(prompt, &lines)?,
        None => encoder.encode(&lines)?,
    };
    let seconds = start.elapsed().as_secs_f64();
    save_npy(&args.output, vectors.view())?;
    let (rows, columns) = vectors.dim();
    say!("{rows} vectors of {columns} numbers in {seconds:.2} s: {:.0} lines/s", rows as f64 / seconds);
    Ok(())
}

fn main() -> ExitCode {
    exit::exit(run(&Args::parse()))
}
