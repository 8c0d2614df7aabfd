//! Trains a language model on a text file.
//!
//! ```sh
//! cargo run --release --example train_gpt -- --text shakespeare.txt --out out/shakespeare
//! cargo run --release --example generate -- --model out/shakespeare --prompt "ROMEO:"
//! ```
//!
//! The defaults are nanoGPT's recipe for a CPU: a character model of 4 layers with 128 dimensions,
//! which trains in a few minutes. Writes a model folder (for `--arch gpt`, one that `transformers`
//! opens) with `history.csv` and `loss.svg` to `--out`. Ctrl-C saves a checkpoint and exits;
//! `--resume` with the same settings continues from it, with the same bits as an uninterrupted run.

#[path = "plot/curves.rs"]
mod curves;
#[path = "cli/exit.rs"]
mod exit;
#[path = "plot/history.rs"]
mod history;
#[allow(dead_code)]
mod plot;
#[macro_use]
#[path = "cli/print.rs"]
mod print;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use loquat::models::{CellType, Gpt2, Gpt2Config, LanguageModel, MlpConfig, MlpLm, RnnConfig, RnnLm};
use loquat::nn::Module;
use loquat::ops::Precision;
use loquat::progress::ProgressReporter;
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
    /// The training text, UTF-8.
    #[arg(long)]
    text: PathBuf,
    /// The folder for the model, the history and the checkpoints.
    #[arg(long)]
    out: PathBuf,
    /// The validation text. Default: the last tenth of --text.
    #[arg(long)]
    val: Option<PathBuf>,
    /// The tokenizer: char, bpe:VOCAB_SIZE, or a tokenizer.json. Default: char; with --resume, the
    /// tokenizer of the run, and any other is an error.
    #[arg(long)]
    tokenizer: Option<String>,
    /// The architecture.
    #[arg(long, value_enum, default_value = "gpt")]
    arch: Arch,
    /// The number of layers.
    #[arg(long, default_value_t = 4)]
    layers: usize,
    /// The number of attention heads per layer.
    #[arg(long, default_value_t = 4)]
    heads: usize,
    /// The dimension of the hidden states.
    #[arg(long, default_value_t = 128)]
    dim: usize,
    /// The context length in tokens.
    #[arg(long, default_value_t = 64)]
    context: usize,
    /// The batch size: windows of --context tokens.
    #[arg(long, default_value_t = 12)]
    batch: usize,
    /// The number of training steps.
    #[arg(long, default_value_t = 2000)]
    steps: u64,
    /// The peak learning rate; it decays to a tenth of that on a cosine schedule.
    #[arg(long, default_value_t = 1e-3)]
    lr: f64,
    /// The dropout probability.
    #[arg(long, default_value_t = 0.0)]
    dropout: f64,
    /// Batches per step, whose gradients are averaged.
    #[arg(long, default_value_t = 1)]
    accumulate: usize,
    /// The seed of the random numbers.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Steps between validations.
    #[arg(long, default_value_t = 250)]
    eval_every: u64,
    /// Steps between checkpoints.
    #[arg(long, default_value_t = 500)]
    save_every: u64,
    /// The precision of matrix products; everything else is computed in f32.
    #[arg(long, value_enum, default_value = "f32")]
    precision: Products,
    /// Continues from the last checkpoint in --out.
    #[arg(long, conflicts_with = "replace")]
    resume: bool,
    /// Removes the run in --out and starts a new one.
    #[arg(long)]
    replace: bool,
}

/// The context length of the feed-forward model.
const WINDOW: usize = 8;

/// Returns the tokenizer of the run to resume, or a new one.
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
                found: format!("another vocabulary, of `{kind}`"),
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
    print_line!(
        "{} parameters, {} training tokens, {} validation tokens, vocabulary of {}",
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
    let mut progress = ProgressReporter::new("tokens").stop_on_ctrl_c()?;
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
        .observe(&mut progress)
        .run(&mut model, &mut optimizer, &mut train, next_token_loss)?;
    let plot = args.out.join("loss.svg");
    if let Err(error) = history::plot(&report.history, &plot) {
        eprintln!("warning: {}: {error}", plot.display());
    }
    if report.stop == TrainEnd::Observer {
        print_line!("stopped after {} of {} steps; continue with --resume", report.steps, args.steps);
    }
    if let Some(best) = report.best {
        print_line!("best validation loss {:.4} after {} steps", best.value, best.step);
    }
    print_line!("model saved in {}", args.out.display());
    Ok(())
}

fn main() -> ExitCode {
    exit::exit(run(&Args::parse()))
}
