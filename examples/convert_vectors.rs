//! Writes word vectors in another format.
//!
//!     cargo run --release --example convert_vectors -- GoogleNews-vectors-negative300.bin google.npy
//!     cargo run --release --example convert_vectors -- wiki.en.bin wiki.en.vec --limit 100000 --lenient
//!
//! Reads word2vec text and binary, GloVe, fastText `.vec` and `.bin`, NumPy `.npy`. What is written follows from the name:
//! `.bin` word2vec binary, `.npy` NumPy with the words beside, `.glove` GloVe, anything else word2vec text.

#[macro_use]
#[path = "cli/say.rs"]
mod say;
#[path = "cli/exit.rs"]
mod exit;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use loquat::WordVectors;
use loquat::embeddings::ReadOptions;

#[derive(Parser)]
#[command(about = "Write word vectors in another format")]
struct Args {
    /// The file of vectors
    from: PathBuf,
    /// The file to write
    to: PathBuf,
    /// Read no more than so many words
    #[arg(long)]
    limit: Option<usize>,
    /// Take what can be taken of a file that is not as its format says
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
    say!("{} words of {} dimensions written to {}", vectors.len(), vectors.dim(), args.to.display());
    Ok(())
}

fn main() -> ExitCode {
    exit::exit(run())
}
