//! How well a model foretells a text.
//!
//! ```sh
//! cargo run --release --example perplexity -- --model DIR --text FILE --context 1024 --stride 512
//! ```
//!
//! Reads the file in windows of `--context` tokens that begin `--stride` apart, and counts each token once, so that it is foretold from at least
//! `context - stride` others. Prints the perplexity, its logarithm per token and the number of tokens; with `--json` one object with
//! `perplexity`, `nll`, `tokens`, `context`, `stride`, `seconds`.

#[path = "cli/exit.rs"]
mod exit;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use loquat::models::CausalLm;
use loquat::{Error, Result, TextGenerator};

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
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

fn run(args: &Args) -> Result<()> {
    let lm = TextGenerator::open(&args.model)?;
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
        println!("{object}");
    } else {
        let mean = found.nll / found.tokens as f64;
        println!("perplexity {:.4} (nll {mean:.4} per token, {} tokens, {seconds:.1} s)", found.value(), found.tokens);
    }
    Ok(())
}

fn main() -> ExitCode {
    exit::exit(run(&Args::parse()))
}
