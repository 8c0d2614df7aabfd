//! How well a model foretells a text.
//!
//! ```sh
//! cargo run --release --example perplexity -- --model DIR --text FILE --context 1024 --stride 512
//! ```
//!
//! Reads the file in windows of `--context` tokens that begin `--stride` apart, and counts each token once, so that it is foretold from at least
//! `context - stride` others. Prints the perplexity, its logarithm per token and the number of tokens; with `--json` one object with
//! `perplexity`, `nll`, `tokens`, `context`, `stride`, `seconds`.

#[macro_use]
#[path = "cli/say.rs"]
mod say;
#[path = "cli/exit.rs"]
mod exit;
#[path = "cli/precision.rs"]
mod precision;
#[path = "cli/threads.rs"]
mod threads;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use loquat::checkpoint::OpenOptions;
use loquat::models::CausalLm;
use loquat::ops::with_precision;
use loquat::{Error, Result, TextGenerator};
use precision::Precision;

/// How well a model foretells a text.
#[derive(Parser)]
struct Args {
    /// A model folder (config.json, weights and tokenizer) or a .gguf file.
    #[arg(long)]
    model: PathBuf,
    /// A file of text.
    #[arg(long)]
    text: PathBuf,
    /// Tokens read at once; the model's context (at most 1024) unless given.
    #[arg(long)]
    context: Option<usize>,
    /// Tokens between the beginnings of windows; half the context unless given.
    #[arg(long)]
    stride: Option<usize>,
    /// The format of the weights, and of products for bf16; as the files have them unless given.
    #[arg(long)]
    precision: Option<Precision>,
    /// The number of threads; all processors unless given.
    #[arg(long)]
    threads: Option<usize>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

fn run(args: &Args) -> Result<()> {
    let options = OpenOptions::default().weights(Precision::weights(args.precision));
    let lm = TextGenerator::open_with(&args.model, &options)?;
    let io = |source| Error::Io { path: args.text.clone(), source };
    let text = std::fs::read_to_string(&args.text).map_err(io)?;
    let context = args.context.unwrap_or_else(|| lm.model().max_seq_len().unwrap_or(1024).min(1024));
    let stride = args.stride.unwrap_or((context / 2).max(1));
    let start = Instant::now();
    let found = lm.perplexity(&text, Some(context), Some(stride))?;
    let seconds = start.elapsed().as_secs_f64();
    if args.json {
        let object = serde_json::json!({
            "perplexity": found.value(), "nll": found.nll, "tokens": found.tokens,
            "context": context, "stride": stride, "seconds": seconds,
        });
        say!("{object}");
    } else {
        let mean = found.nll / found.tokens as f64;
        say!("perplexity {:.4} (nll {mean:.4} per token, {} tokens, {seconds:.1} s)", found.value(), found.tokens);
    }
    Ok(())
}

fn main() -> ExitCode {
    let args = Args::parse();
    let work = || with_precision(Precision::products(args.precision), || run(&args)).map_err(|error| error.to_string());
    exit::exit(threads::on_threads(args.threads, work))
}
