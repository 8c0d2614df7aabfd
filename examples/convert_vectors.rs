//! Converts word vectors to another format.
//!
//! ```sh
//! cargo run --release --example convert_vectors -- GoogleNews.bin google.npy
//! cargo run --release --example convert_vectors -- wiki.bin wiki.vec --limit 100000 --lenient
//! ```
//!
//! Reads word2vec text and binary, GloVe, fastText `.vec` and `.bin`, and NumPy `.npy`. The
//! extension selects the format to write: `.bin` word2vec binary, `.npy` NumPy with a file of the
//! words next to it, `.glove` GloVe, any other word2vec text.

#[path = "cli/exit.rs"]
mod exit;
#[macro_use]
#[path = "cli/print.rs"]
mod print;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use loquat::WordVectors;
use loquat::embeddings::ReadOptions;

/// Converts word vectors to another format.
#[derive(Parser)]
struct Args {
    /// The file of vectors.
    from: PathBuf,
    /// The file to write; its extension selects the format.
    to: PathBuf,
    /// Reads the first N words only. Default: all.
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Reads as much as possible of a file that does not conform to its format.
    #[arg(long)]
    lenient: bool,
}

fn run() -> Result<(), Box<dyn std::error::Error>> {
    let args = Args::parse();
    let mut options = if args.lenient { ReadOptions::lenient() } else { ReadOptions::default() };
    options.limit = args.limit;
    let vectors = WordVectors::open_with(&args.from, &options)?;
    match args.to.extension().and_then(|e| e.to_str()) {
        Some("bin") => vectors.save_word2vec_binary(&args.to)?,
        Some("npy") => vectors.save_numpy(&args.to)?,
        Some("glove") => vectors.save_glove(&args.to)?,
        _ => vectors.save_word2vec_text(&args.to)?,
    }
    print_line!("{} words of {} dimensions written to {}", vectors.len(), vectors.dim(), args.to.display());
    Ok(())
}

fn main() -> ExitCode {
    exit::exit(run())
}
