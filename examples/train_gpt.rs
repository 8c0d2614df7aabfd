//! Trains a language model on a text file.
//!
//! ```sh
//! cargo run --release --example train_gpt -- --text shakespeare.txt --out out/shakespeare
//! cargo run --release --example generate -- --model out/shakespeare --prompt "ROMEO:"
//! ```
//!
//! The defaults are nanoGPT's recipe for a CPU: a character model of 4 layers, 128 wide, some minutes. Writes the model folder (which
//! `transformers` opens, for `--arch gpt`), `history.csv` and `loss.svg` into `--out`. Ctrl-C saves and exits; `--resume` with the
//! same settings goes on bit for bit, `--replace` begins anew.

#[macro_use]
#[path = "cli/say.rs"]
mod say;
#[path = "cli/exit.rs"]
mod exit;
#[path = "embeddings/report.rs"]
mod report;
mod training;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use loquat::models::{CellType, Gpt2, Gpt2Config, LanguageModel, MlpConfig, MlpLm, RnnConfig, RnnLm};
use loquat::nn::Module;
use loquat::ops::Precision;
use loquat::text::{Corpus, Tokenizer, TokenizerTrainer};
use loquat::training::data::{RandomWindows, SequentialWindows, TokenStream, tokenize_to_file};
use loquat::training::{
    AdamW, Existing, Optimizer, ParameterGroup, RunFolder, Schedule, TrainEnd, Trainer, next_token_loss,
};
use loquat::{Error, Result, Rng};

#[derive(Clone, Copy, ValueEnum)]
enum Arch {
    Gpt,
    Rnn,
    Lstm,
    Gru,
    Mlp,
}

#[derive(Clone, Copy, ValueEnum)]
enum Products {
    F32,
    Bf16,
}

/// Trains a language model on a text file.
#[derive(Parser)]
struct Args {
    /// The text to learn from, UTF-8.
    #[arg(long)]
    text: PathBuf,
    /// The folder for model, history and checkpoints.
    #[arg(long)]
    out: PathBuf,
    /// The text to validate on; the last tenth of --text if not given.
    #[arg(long)]
    val: Option<PathBuf>,
    /// char, bpe:VOCABULARY, or a tokenizer.json. Default: char; with --resume, the tokenizer of the
    /// run, and any other is an error.
    #[arg(long)]
    tokenizer: Option<String>,
    /// The architecture.
    #[arg(long, value_enum, default_value = "gpt")]
    arch: Arch,
    /// How many layers.
    #[arg(long, default_value_t = 4)]
    layers: usize,
    /// Attention heads of each layer.
    #[arg(long, default_value_t = 4)]
    heads: usize,
    /// Width of the model.
    #[arg(long, default_value_t = 128)]
    dim: usize,
    /// Tokens that the model sees at once.
    #[arg(long, default_value_t = 64)]
    context: usize,
    /// Windows in a batch.
    #[arg(long, default_value_t = 12)]
    batch: usize,
    /// How many steps.
    #[arg(long, default_value_t = 2000)]
    steps: u64,
    /// The highest learning rate; it falls to a tenth along a cosine.
    #[arg(long, default_value_t = 1e-3)]
    lr: f64,
    /// The probability of dropout.
    #[arg(long, default_value_t = 0.0)]
    dropout: f64,
    /// Batches whose gradients make one step.
    #[arg(long, default_value_t = 1)]
    accumulate: usize,
    /// Keys all chance.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Steps from validation to validation.
    #[arg(long, default_value_t = 250)]
    eval_every: u64,
    /// Steps from checkpoint to checkpoint.
    #[arg(long, default_value_t = 500)]
    save_every: u64,
    /// What matrix products are rounded to; all else stays in f32.
    #[arg(long, value_enum, default_value = "f32")]
    precision: Products,
    /// Go on from the last checkpoint in --out, which must be there.
    #[arg(long, conflicts_with = "replace")]
    resume: bool,
    /// Remove the run that --out holds, and begin anew.
    #[arg(long)]
    replace: bool,
}

/// How many tokens the feed-forward model sees.
const WINDOW: usize = 8;

/// The run's tokenizer, or a new one.
fn tokenizer(args: &Args) -> Result<Tokenizer> {
    let of_run = args.resume && args.out.join("tokenizer.json").exists();
    match (of_run, &args.tokenizer) {
        (true, None) => Tokenizer::open(&args.out),
        (true, Some(kind)) => {
            let (saved, asked) = (Tokenizer::open(&args.out)?, new_tokenizer(args, kind)?);
            let vocabulary = |tokenizer: &Tokenizer| {
                let mut all = tokenizer.vocab();
                all.sort();
                all
            };
            if vocabulary(&saved) == vocabulary(&asked) {
                return Ok(saved);
            }
            Err(Error::Argument {
                name: "--tokenizer with --resume".into(),
                expected: format!("the vocabulary of {}", args.out.join("tokenizer.json").display()),
                found: format!("another one from `{kind}`"),
            })
        }
        (false, kind) => new_tokenizer(args, kind.as_deref().unwrap_or("char")),
    }
}

fn new_tokenizer(args: &Args, kind: &str) -> Result<Tokenizer> {
    let texts = [Some(&args.text), args.val.as_ref()].into_iter().flatten();
    match kind.split_once(':') {
        None if kind == "char" => TokenizerTrainer::chars().train_files(texts),
        Some(("bpe", size)) => {
            let size = size.parse().map_err(|_| Error::Argument {
                name: "--tokenizer bpe:N".into(),
                expected: "a number of tokens".into(),
                found: size.into(),
            })?;
            TokenizerTrainer::byte_level_bpe().vocab_size(size).train_files([&args.text])
        }
        _ => Tokenizer::open(kind),
    }
}

fn model(args: &Args, vocab_size: usize) -> Result<LanguageModel> {
    let rng = &mut Rng::seed(args.seed);
    let cell = match args.arch {
        Arch::Gpt => {
            let config = Gpt2Config::new(vocab_size, args.context, args.dim, args.layers, args.heads);
            return Ok(LanguageModel::new(Gpt2::init(&config.dropout(args.dropout), rng)?));
        }
        Arch::Mlp => {
            let mut config = MlpConfig::new(vocab_size, args.dim, args.dim.saturating_mul(4), WINDOW);
            config.dropout = args.dropout;
            return Ok(LanguageModel::new(MlpLm::init(&config, rng)?));
        }
        Arch::Rnn => CellType::Rnn,
        Arch::Lstm => CellType::Lstm,
        Arch::Gru => CellType::Gru,
    };
    let mut config = RnnConfig::new(cell, vocab_size, args.dim, args.layers);
    config.dropout = args.dropout;
    Ok(LanguageModel::new(RnnLm::init(&config, rng)?))
}

fn run(args: &Args) -> Result<()> {
    let existing = match (args.resume, args.replace) {
        (true, _) => Existing::Resume,
        (_, true) => Existing::Replace,
        _ => Existing::Refuse,
    };
    RunFolder::new(&args.out).existing(existing).check()?;
    let tokenizer = tokenizer(args)?;
    std::fs::create_dir_all(&args.out).map_err(|source| Error::Io { path: args.out.clone(), source })?;
    let tokens = |text: &PathBuf, name: &str| -> Result<TokenStream> {
        tokenize_to_file(&Corpus::open(text)?, &tokenizer, None, args.out.join(name))
    };
    let text = tokens(&args.text, "train.tokens")?;
    let (train, validation) = match &args.val {
        Some(val) => (text, tokens(val, "val.tokens")?),
        None => text.split(0.9)?,
    };
    let mut model = model(args, tokenizer.vocab_size())?;
    say!(
        "{} parameters, {} tokens to learn from, {} to validate, a vocabulary of {}",
        model.parameter_count(),
        train.len(),
        validation.len(),
        tokenizer.vocab_size()
    );
    let mut train = RandomWindows::new(train, args.context, args.batch, args.seed)?;
    let mut validation = SequentialWindows::new(validation, args.context, 64)?;
    let adam = AdamW { lr: args.lr, betas: (0.9, 0.99), weight_decay: 0.1, ..AdamW::default() };
    let mut optimizer = Optimizer::new(adam)?.group(ParameterGroup::biases_and_norms().weight_decay(0.0))?;
    let folder = RunFolder::new(&args.out)
        .existing(existing)
        .config(&model)
        .files(|folder| tokenizer.save_folder(folder).map(drop));
    let mut course = training::Course::new(50);
    let warmup = 100.min(args.steps / 10);
    let report = Trainer::steps(args.steps)
        .seed(args.seed)
        .precision(match args.precision {
            Products::F32 => Precision::F32,
            Products::Bf16 => Precision::Bf16,
        })
        .accumulate(args.accumulate)
        .clip_grad_norm(1.0)
        .schedule(Schedule::cosine(args.steps).warmup(warmup).min_factor(0.1))
        .validate(&mut validation, args.eval_every)
        .save_every(args.save_every)
        .folder(folder)
        .observe(&mut course)
        .run(&mut model, &mut optimizer, &mut train, next_token_loss);
    course.finish();
    let report = report?;
    let picture = args.out.join("loss.svg");
    if let Err(error) = training::plot_loss(&report.history, &picture) {
        eprintln!("warning: {}: {error}", picture.display());
    }
    if report.stop == TrainEnd::Observer {
        say!("stopped after {} of {} steps; --resume goes on", report.steps, args.steps);
    }
    if let Some(best) = report.best {
        say!("best validation loss {:.4} after {} steps", best.value, best.step);
    }
    say!("model in {}", args.out.display());
    Ok(())
}

fn main() -> ExitCode {
    exit::exit(run(&Args::parse()))
}
