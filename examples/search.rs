//! The lines of a file that mean most nearly what a query says.
//!
//! ```sh
//! cargo run --release --example search -- --model DIR --corpus LINES.txt --query "how do I stop it" --top 5
//! ```
//!
//! Needs a folder as `sentence-transformers` has it, or an encoder's alone. Prints the cosine, the line's number (counted from 1) and the
//! line, best first.

#[path = "cli/exit.rs"]
mod exit;

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use loquat::embeddings::VectorIndex;
use loquat::{Result, SentenceEncoder};

mod lines;

/// The lines of a file that mean most nearly what a query says.
#[derive(Parser)]
struct Args {
    /// The encoder's folder.
    #[arg(long)]
    model: PathBuf,
    /// A text a line, UTF-8; blank lines are passed over.
    #[arg(long)]
    corpus: PathBuf,
    /// What to look for.
    #[arg(long)]
    query: String,
    /// How many lines to print.
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
