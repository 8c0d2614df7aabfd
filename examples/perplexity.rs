//! Measures the perplexity of a model on a text.
//!
//! ```sh
//! cargo run --release --example perplexity -- --model DIR --text FILE --context 1024 --stride 512
//! ```
//!
//! Reads the file in windows of `--context` tokens that start `--stride` tokens apart. Each token
//! is scored once, given at least `context - stride` preceding tokens. Prints the perplexity, the
//! mean negative log-likelihood per token and the number of tokens; with `--json` one object with
//! `perplexity`, `nll` (the sum), `tokens`, `context`, `stride` and `seconds`.

#[path = "cli/exit.rs"]
mod exit;
#[path = "cli/precision.rs"]
mod precision;
#[macro_use]
#[path = "cli/print.rs"]
mod print;
#[path = "cli/threads.rs"]
mod threads;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use loquat::checkpoint::OpenOptions;
use loquat::generation::perplexity_with;
use loquat::models::CausalLm;
use loquat::ops::with_precision;
use loquat::progress::ProgressReporter;
use loquat::{Error, Result, TextGenerator};
use precision::Precision;

/// Measures the perplexity of a model on a text.
#[derive(Parser)]
struct Args {
    /// A model folder (config.json, weights and tokenizer) or a .gguf file.
    #[arg(long)]
    model: PathBuf,
    /// A UTF-8 text file.
    #[arg(long)]
    text: PathBuf,
    /// Tokens per window. Default: the model's context length, at most 1024.
    #[arg(long)]
    context: Option<usize>,
    /// Tokens between the starts of two windows. Default: half of --context.
    #[arg(long)]
    stride: Option<usize>,
    /// The format of the weights; bf16 also selects bf16 matrix products. Default: as in the files.
    #[arg(long)]
    precision: Option<Precision>,
    /// The number of threads. Default: all processors.
    #[arg(long)]
    threads: Option<usize>,
    /// Prints one JSON object.
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
    let ids = lm.encode(&text)?;
    let mut progress = ProgressReporter::new("tokens");
    let found = perplexity_with(lm.model(), &ids, Some(context), Some(stride), &mut |read, so_far| {
        progress.update(read as u64, Some(ids.len() as u64), &format!("perplexity {:.4}", so_far.value()))
    })?;
    drop(progress);
    let seconds = start.elapsed().as_secs_f64();
    if args.json {
        let object = serde_json::json!({
            "perplexity": found.value(), "nll": found.nll, "tokens": found.tokens,
            "context": context, "stride": stride, "seconds": seconds,
        });
        print_line!("{object}");
    } else {
        let mean = found.nll / found.tokens as f64;
        let value = found.value();
        print_line!("perplexity {value:.4} (nll {mean:.4} per token, {} tokens, {seconds:.1} s)", found.tokens);
    }
    Ok(())
}

fn main() -> ExitCode {
    let args = Args::parse();
    let work = || with_precision(Precision::products(args.precision), || run(&args)).map_err(|error| error.to_string());
    exit::exit(threads::on_threads(args.threads, work))
}
