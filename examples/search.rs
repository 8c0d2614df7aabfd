//! Searches the lines of a file by meaning, with a sentence encoder.
//!
//! ```sh
//! cargo run --release --example search -- --model DIR --corpus LINES.txt --query "how to stop"
//! ```
//!
//! Needs a `sentence-transformers` folder, or a folder of an encoder alone. Prints the cosine
//! similarity, the line number (from 1) and the line, best first.

#[path = "cli/exit.rs"]
mod exit;
#[path = "cli/lines.rs"]
mod lines;

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use loquat::embeddings::VectorIndex;
use loquat::{Result, SentenceEncoder};

/// Searches the lines of a file by meaning, with a sentence encoder.
#[derive(Parser)]
struct Args {
    /// The encoder's folder.
    #[arg(long)]
    model: PathBuf,
    /// A UTF-8 file, one text per line; blank lines are skipped.
    #[arg(long)]
    corpus: PathBuf,
    /// The text to search for.
    #[arg(long)]
    query: String,
    /// The number of lines to print.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    top: u32,
}

fn run(args: &Args) -> Result<()> {
    let lines = lines::read(&args.corpus)?;
    let (numbers, lines): (Vec<usize>, Vec<String>) =
        (1..).zip(lines).filter(|(_, line)| !line.trim().is_empty()).unzip();
    let encoder = SentenceEncoder::open(&args.model)?;
    let index = VectorIndex::new(encoder.encode(&lines)?);
    let query = encoder.encode(&[&args.query])?;
    let mut out = std::io::stdout().lock();
    for (row, score) in &index.search(query.view(), args.top as usize)?[0] {
        if writeln!(out, "{score:.4}\t{}\t{}", numbers[*row], lines[*row]).is_err() {
            break; // a closed pipe ends the program quietly
        }
    }
    Ok(())
}

fn main() -> ExitCode {
    exit::exit(run(&Args::parse()))
}
