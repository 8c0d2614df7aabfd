//! Trains word vectors with word2vec, or fastText's subwords, and writes them.
//!
//!     cargo run --release --example word2vec -- --text book.txt --lowercase --tokenize words \
//!         --out vectors.txt
//!     cargo run --release --example word2vec -- --text words.txt --out vectors.bin --format binary
//!     cargo run --release --example word2vec -- --out vectors.txt            # on an embedded corpus of small stories
//!
//! Then ask them: `cargo run --release --example nearest -- --vectors vectors.bin king`.

#[macro_use]
#[path = "cli/say.rs"]
mod say;
#[path = "cli/exit.rs"]
mod exit;

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use clap::{Parser, ValueEnum};
use loquat::embeddings::{Ngrams, Phrases, TrainingText, Word2Vec};
use loquat::text::Corpus;

#[path = "embeddings/dash.rs"]
mod dash;
#[path = "embeddings/folder.rs"]
mod folder;
#[path = "embeddings/report.rs"]
mod report;
#[allow(dead_code)]
mod stories;
#[path = "embeddings/words.rs"]
mod words;

use dash::number;

#[derive(Parser)]
#[command(about = "Train word vectors (word2vec, fastText)")]
struct Args {
    /// Text files, one sentence a line; without any, an embedded corpus of small stories
    #[arg(long, num_args = 1..)]
    text: Vec<PathBuf>,
    #[command(flatten)]
    words: words::Words,
    /// The file to write
    #[arg(long)]
    out: PathBuf,
    /// Its format
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
    /// What predicts what
    #[arg(long, value_enum, default_value = "skip-gram")]
    architecture: Architecture,
    /// What stands in for the softmax
    #[arg(long, value_enum, default_value = "negative")]
    loss: Loss,
    /// The length of the vectors
    #[arg(long, default_value_t = 100)]
    dim: usize,
    /// Words to each side that may be neighbours
    #[arg(long, default_value_t = 5)]
    window: usize,
    /// Negative samples of each pair, with that loss. Default: 5
    #[arg(long)]
    negative: Option<usize>,
    /// Leave out words that stand less often
    #[arg(long, default_value_t = 5)]
    min_count: u64,
    /// Skip words at random that make up a larger part of the text
    #[arg(long, default_value_t = 1e-3)]
    subsample: f64,
    /// How often the text is gone through
    #[arg(long, default_value_t = 5)]
    epochs: usize,
    /// Learning rate at the start [default: 0.025 for skip-gram, 0.05 for CBOW and subwords]
    #[arg(long)]
    lr: Option<f32>,
    /// Threads [default: all]
    #[arg(long)]
    threads: Option<usize>,
    /// Seed of all random choices
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The same bits at any number of threads
    #[arg(long)]
    deterministic: bool,
    /// Train character n-grams of 3 to 6 letters too
    #[arg(long)]
    subwords: bool,
    /// Join words that often stand together, so often (each time pairs of what there is)
    #[arg(long, num_args = 0..=1, default_missing_value = "1", default_value_t = 0)]
    phrases: usize,
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

/// The embedded corpus: the sentences of 5000 small stories in lower case, the same each time.
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
    folder::check(&args.out)?;
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
    let began = Instant::now();
    let mut joined = Vec::new();
    for round in 1..=args.phrases {
        let phrases = Phrases::new().min_count(args.min_count).learn(&text.with_phrases(&joined))?;
        say!("phrases, round {round}: {} pairs", phrases.len());
        joined.push(phrases);
    }
    let text = text.with_phrases(&joined);

    let mut report = report::Report::new("words");
    let model = config.train_model(&text, &mut |p: &loquat::embeddings::Progress| {
        report.show(
            p.words,
            p.total_words,
            p.words_per_second,
            &format!("epoch {}/{}  loss {}", p.epoch, p.epochs, number(p.loss, 4)),
        );
        if p.epoch_end {
            report.line(&format!(
                "epoch {}/{}  loss {:.4}  {:.0} words/s",
                p.epoch, p.epochs, p.loss, p.words_per_second
            ));
        }
        ControlFlow::Continue(())
    })?;
    report.finish();
    let vectors = model.into_vectors();
    match args.format {
        Format::Text => vectors.save_word2vec_text(&args.out)?,
        Format::Binary => vectors.save_word2vec_binary(&args.out)?,
    }
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
