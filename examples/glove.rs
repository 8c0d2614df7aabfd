//! Trains GloVe vectors and writes them as text.
//!
//!     cargo run --release --example glove -- --text book.txt --lowercase --tokenize words \
//!         --out vectors.txt --x-max 10
//!
//! Counting takes no more memory than `--memory-mb`; what does not fit goes to temporary files.

#[macro_use]
#[path = "cli/say.rs"]
mod say;
#[path = "cli/exit.rs"]
mod exit;

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use loquat::embeddings::{Glove, Progress};
use loquat::text::Corpus;

#[path = "embeddings/folder.rs"]
mod folder;
#[path = "embeddings/report.rs"]
mod report;
#[path = "embeddings/words.rs"]
mod words;

#[derive(Parser)]
#[command(about = "Train GloVe word vectors")]
struct Args {
    /// Text files, a paragraph or a document a line: windows end there
    #[arg(long, num_args = 1.., required = true)]
    text: Vec<PathBuf>,
    #[command(flatten)]
    words: words::Words,
    /// The file to write
    #[arg(long)]
    out: PathBuf,
    /// The length of the vectors
    #[arg(long, default_value_t = 100)]
    dim: usize,
    /// Words to each side that are near
    #[arg(long, default_value_t = 15)]
    window: usize,
    /// Leave out words that stand less often
    #[arg(long, default_value_t = 5)]
    min_count: u64,
    /// The co-occurrence from which on a pair has full weight
    #[arg(long, default_value_t = 100.0)]
    x_max: f32,
    /// The power by which the weight of rarer pairs falls
    #[arg(long, default_value_t = 0.75)]
    alpha: f32,
    /// How often all pairs are gone through
    #[arg(long, default_value_t = 25)]
    epochs: usize,
    /// Learning rate of AdaGrad, for vectors
    #[arg(long, default_value_t = 0.05)]
    lr: f32,
    /// Megabytes for counting and shuffling
    #[arg(long, default_value_t = 1024)]
    memory_mb: usize,
    /// Threads [default: all]
    #[arg(long)]
    threads: Option<usize>,
    /// Seed of all random choices
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

fn run() -> Result<(), Box<dyn std::error::Error>> {
    let args = Args::parse();
    folder::check(&args.out)?;
    let mut glove = Glove::new().dim(args.dim).window(args.window).min_count(args.min_count).x_max(args.x_max);
    glove = glove.alpha(args.alpha).epochs(args.epochs).lr(args.lr).memory_mb(args.memory_mb).seed(args.seed);
    if let Some(threads) = args.threads {
        glove = glove.threads(threads);
    }
    let corpus = Corpus::open_all(&args.text)?;
    let began = Instant::now();

    let mut report = report::Report::new("words");
    let counts = glove.count(&args.words.text(&corpus), &mut |p: &Progress| {
        report.show(p.words, p.total_words, p.words_per_second, "counting");
        ControlFlow::Continue(())
    })?;
    report.finish();
    say!("{} words, {} pairs counted in {:.1} s", counts.len(), counts.pairs(), began.elapsed().as_secs_f64());

    let mut report = report::Report::new("pairs");
    let model = glove.fit(&counts, &mut |p: &Progress| {
        let what = format!("epoch {}/{}  loss {:.5}", p.epoch, p.epochs, p.loss);
        report.show(p.words, p.total_words, p.words_per_second, &what);
        if p.epoch_end {
            report.line(&format!("{what}  {:.0} pairs/s", p.words_per_second));
        }
        ControlFlow::Continue(())
    })?;
    report.finish();
    let vectors = model.into_vectors();
    vectors.save_word2vec_text(&args.out)?;
    let seconds = began.elapsed().as_secs_f64();
    say!(
        "{} words of {} dimensions in {seconds:.1} s, written to {}",
        vectors.len(),
        vectors.dim(),
        args.out.display()
    );
    Ok(())
}

fn main() -> ExitCode {
    exit::exit(run())
}
