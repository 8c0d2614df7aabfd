//! Trains GloVe word vectors and writes them as text.
//!
//! ```sh
//! cargo run --release --example glove -- --text book.txt --lowercase --tokenize words --x-max 10 \
//!     --out vectors.txt
//! ```
//!
//! Counting co-occurrences uses at most `--memory-mb` of memory, and temporary files beyond that.
//! Ctrl-C ends the training and writes the vectors trained so far.

#[path = "plot/curves.rs"]
mod curves;
#[path = "plot/epochs.rs"]
mod epochs;
#[path = "cli/exit.rs"]
mod exit;
#[path = "cli/output.rs"]
mod output;
#[allow(dead_code)]
mod plot;
#[macro_use]
#[path = "cli/print.rs"]
mod print;
#[path = "embeddings/words.rs"]
mod words;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use loquat::embeddings::Glove;
use loquat::progress::ProgressReporter;
use loquat::text::Corpus;

/// Trains GloVe word vectors.
#[derive(Parser)]
struct Args {
    /// UTF-8 text files; a context window does not cross the end of a line.
    #[arg(long, num_args = 1.., required = true)]
    text: Vec<PathBuf>,
    #[command(flatten)]
    words: words::Words,
    /// The file of vectors to write.
    #[arg(long)]
    out: PathBuf,
    /// The dimension of the vectors.
    #[arg(long, default_value_t = 100)]
    dim: usize,
    /// The largest distance between a word and its context words.
    #[arg(long, default_value_t = 15)]
    window: usize,
    /// Ignores words with fewer occurrences.
    #[arg(long, default_value_t = 5)]
    min_count: u64,
    /// The co-occurrence count above which all pairs have the same weight.
    #[arg(long, default_value_t = 100.0)]
    x_max: f32,
    /// The exponent of the weights of counts below --x-max.
    #[arg(long, default_value_t = 0.75)]
    alpha: f32,
    /// Passes over all pairs.
    #[arg(long, default_value_t = 25)]
    epochs: usize,
    /// The learning rate of AdaGrad.
    #[arg(long, default_value_t = 0.05)]
    lr: f32,
    /// The memory for counting and shuffling, in megabytes.
    #[arg(long, default_value_t = 1024)]
    memory_mb: usize,
    /// The number of threads. Default: all processors.
    #[arg(long)]
    threads: Option<usize>,
    /// The seed of the random numbers.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Plots the loss of each epoch and writes this SVG file.
    #[arg(long, value_name = "LOSS.svg")]
    plot: Option<PathBuf>,
}

fn run() -> Result<(), Box<dyn std::error::Error>> {
    let args = Args::parse();
    output::check(&args.out)?;
    let mut glove = Glove::new().dim(args.dim).window(args.window).min_count(args.min_count).x_max(args.x_max);
    glove = glove.alpha(args.alpha).epochs(args.epochs).lr(args.lr).memory_mb(args.memory_mb).seed(args.seed);
    if let Some(threads) = args.threads {
        glove = glove.threads(threads);
    }
    let corpus = Corpus::open_all(&args.text)?;
    let start = Instant::now();

    let counts = glove.count(&args.words.text(&corpus), &mut ProgressReporter::new("words"))?;
    print_line!("{} words, {} pairs counted in {:.1} s", counts.len(), counts.pairs(), start.elapsed().as_secs_f64());

    let mut progress = ProgressReporter::new("pairs").stop_on_ctrl_c()?;
    let model = glove.fit(&counts, &mut progress)?;
    drop(progress);
    if let Some(path) = &args.plot {
        epochs::plot("Loss of GloVe", "weighted squared error per pair", model.losses(), path)?;
    }
    if !model.is_finished() {
        print_line!("interrupted: these are the vectors so far");
    }
    let vectors = model.into_vectors();
    vectors.save_word2vec_text(&args.out)?;
    let seconds = start.elapsed().as_secs_f64();
    print_line!("{} words of {} dimensions in {seconds:.1} s: {}", vectors.len(), vectors.dim(), args.out.display());
    Ok(())
}

fn main() -> ExitCode {
    exit::exit(run())
}
