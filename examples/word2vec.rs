//! Trains word vectors with word2vec, or with fastText's subwords, and writes them to a file.
//!
//! ```sh
//! cargo run --release --example word2vec -- --text book.txt --lowercase --tokenize words \
//!     --out vectors.txt
//! cargo run --release --example word2vec -- --text words.txt --out vectors.bin --format binary \
//!     --plot LOSS.svg
//! cargo run --release --example word2vec -- --out vectors.txt # on embedded small stories
//! ```
//!
//! Query the vectors with `cargo run --release --example nearest -- --vectors vectors.txt king`.
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
#[allow(dead_code)]
mod stories;
#[path = "embeddings/words.rs"]
mod words;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use clap::{Parser, ValueEnum};
use loquat::embeddings::{Ngrams, Phrases, TrainingText, Word2Vec};
use loquat::progress::ProgressReporter;
use loquat::text::Corpus;

/// Trains word vectors with word2vec, or with fastText's subwords.
#[derive(Parser)]
struct Args {
    /// UTF-8 text files, one sentence per line. Default: an embedded corpus of small stories.
    #[arg(long, num_args = 1..)]
    text: Vec<PathBuf>,
    #[command(flatten)]
    words: words::Words,
    /// The file of vectors to write.
    #[arg(long)]
    out: PathBuf,
    /// The file format: word2vec text or binary.
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
    /// Skip-gram predicts the context from a word, CBOW a word from its context.
    #[arg(long, value_enum, default_value = "skip-gram")]
    architecture: Architecture,
    /// The approximation of the softmax: negative sampling or hierarchical softmax.
    #[arg(long, value_enum, default_value = "negative")]
    loss: Loss,
    /// The dimension of the vectors.
    #[arg(long, default_value_t = 100)]
    dim: usize,
    /// The largest distance between a word and its context words.
    #[arg(long, default_value_t = 5)]
    window: usize,
    /// Negative samples per pair, with --loss negative. Default: 5.
    #[arg(long)]
    negative: Option<usize>,
    /// Ignores words with fewer occurrences.
    #[arg(long, default_value_t = 5)]
    min_count: u64,
    /// The threshold for subsampling of frequent words, as a fraction of the text; 0 turns it off.
    #[arg(long, default_value_t = 1e-3)]
    subsample: f64,
    /// Passes over the text.
    #[arg(long, default_value_t = 5)]
    epochs: usize,
    /// The initial learning rate. Default: 0.025 for skip-gram, 0.05 for CBOW and with --subwords.
    #[arg(long)]
    lr: Option<f32>,
    /// The number of threads. Default: all processors.
    #[arg(long)]
    threads: Option<usize>,
    /// The seed of the random numbers.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Gives the same bits at any number of threads; slower.
    #[arg(long)]
    deterministic: bool,
    /// Also trains vectors of character n-grams of 3 to 6 letters (fastText).
    #[arg(long)]
    subwords: bool,
    /// Joins frequent word pairs into phrases, N times; each pass can make longer phrases.
    #[arg(long, value_name = "N", num_args = 0..=1, default_missing_value = "1", default_value_t = 0)]
    phrases: usize,
    /// Plots the loss of each epoch and writes this SVG file.
    #[arg(long, value_name = "LOSS.svg")]
    plot: Option<PathBuf>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Format {
    Text,
    Binary,
}

#[derive(Clone, Copy, ValueEnum)]
enum Architecture {
    SkipGram,
    Cbow,
}

#[derive(Clone, Copy, ValueEnum)]
enum Loss {
    Negative,
    Hierarchical,
}

/// Returns the sentences of the embedded corpus: 5000 small stories in lower case, always the same.
fn embedded(split: words::Words) -> impl Iterator<Item = Vec<String>> + Send {
    let stories = stories::corpus(5000, 1);
    let sentences = stories::sentences(&stories);
    let words = |s: &&str| {
        let mut words = Vec::new();
        split.split(&s.to_lowercase(), &mut |word| words.push(word.into()));
        words
    };
    sentences.iter().map(words).collect::<Vec<_>>().into_iter()
}

fn run() -> Result<(), Box<dyn std::error::Error>> {
    let args = Args::parse();
    output::check(&args.out)?;
    let mut config = match args.architecture {
        Architecture::SkipGram => Word2Vec::skip_gram(),
        Architecture::Cbow => Word2Vec::cbow(),
    };
    config = config.dim(args.dim).window(args.window).min_count(args.min_count).subsample(args.subsample);
    config = config.epochs(args.epochs).seed(args.seed).deterministic(args.deterministic);
    config = match (args.loss, args.negative) {
        (Loss::Negative, negative) => config.negative_samples(negative.unwrap_or(5)),
        (Loss::Hierarchical, None) => config.hierarchical_softmax(),
        (Loss::Hierarchical, Some(_)) => return Err("--negative has no effect with --loss hierarchical".into()),
    };
    if args.subwords {
        config = config.subwords(Ngrams::default()).lr(0.05);
    }
    if let Some(lr) = args.lr {
        config = config.lr(lr);
    }
    if let Some(threads) = args.threads {
        config = config.threads(threads);
    }

    let corpus = if args.text.is_empty() { None } else { Some(Corpus::open_all(&args.text)?) };
    let text = match &corpus {
        Some(corpus) => args.words.text(corpus),
        None => TrainingText::sentences(move || embedded(args.words)),
    };
    let start = Instant::now();
    let mut joined = Vec::new();
    for pass in 1..=args.phrases {
        let phrases = Phrases::new().min_count(args.min_count).learn(&text.with_phrases(&joined))?;
        print_line!("phrases, pass {pass}: {} pairs", phrases.len());
        joined.push(phrases);
    }
    let text = text.with_phrases(&joined);

    let mut progress = ProgressReporter::new("words").stop_on_ctrl_c()?;
    let model = config.train_model(&text, &mut progress)?;
    drop(progress);
    if let Some(path) = &args.plot {
        epochs::plot("Loss of word2vec", "loss per pair (nats)", model.losses(), path)?;
    }
    if !model.is_finished() {
        print_line!("interrupted: these are the vectors so far");
    }
    let vectors = model.into_vectors();
    match args.format {
        Format::Text => vectors.save_word2vec_text(&args.out)?,
        Format::Binary => vectors.save_word2vec_binary(&args.out)?,
    }
    let seconds = start.elapsed().as_secs_f64();
    print_line!("{} words of {} dimensions in {seconds:.1} s: {}", vectors.len(), vectors.dim(), args.out.display());
    Ok(())
}

fn main() -> ExitCode {
    exit::exit(run())
}
