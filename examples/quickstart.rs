//! The whole way in a minute, without any file: text, tokenizer, model, training, generation.
//!
//! ```sh
//! cargo run --release --example quickstart
//! ```
//!
//! Trains a byte-level BPE tokenizer and a small GPT on stories whose grammar is known (`stories/mod.rs`), prints the validation
//! loss and how many of 200 generated sentences obey that grammar, and leaves the model folder, the history and a
//! picture of the loss in `target/quickstart/`. `--help` says so too.

#[macro_use]
#[path = "cli/say.rs"]
mod say;
#[path = "cli/exit.rs"]
mod exit;
#[path = "embeddings/report.rs"]
mod report;
mod stories;
mod training;

use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use loquat::generation::stream;
use loquat::models::{CausalLm, Gpt2, Gpt2Config, LanguageModel};
use loquat::nn::Module;
use loquat::text::{Tokenizer, TokenizerTrainer};
use loquat::training::data::{RandomWindows, SequentialWindows, TokenStream};
use loquat::training::{AdamW, Existing, Optimizer, ParameterGroup, RunFolder, Schedule, Trainer, next_token_loss};
use loquat::{GenerationConfig, Result, Rng};

/// The whole way in a minute, without any file: text, tokenizer, model, training, generation.
///
/// Trains a byte-level BPE tokenizer and a small GPT on stories whose grammar is known, prints the
/// validation loss and how many of 200 generated sentences obey that grammar, and leaves the model
/// folder, the history and a picture of the loss in target/quickstart/. It takes no arguments;
/// train_gpt trains on a text of your own.
#[derive(Parser)]
struct Args {}

const STEPS: u64 = 400;
const CONTEXT: usize = 96;

/// Writes the continuation of `prompt` to the terminal as it comes, to the end of the story.
fn tell<M: CausalLm>(model: &M, tokenizer: &Tokenizer, prompt: &str, seed: u64) -> Result<()> {
    let config = GenerationConfig::default().temperature(0.7).max_new_tokens(160).seed(seed).stop("\n");
    let mut out = std::io::stdout();
    let _ = write!(out, "{prompt}");
    for piece in stream(model, tokenizer, prompt, &config)? {
        let _ = write!(out, "{}", piece?);
        let _ = out.flush();
    }
    say!("\n");
    Ok(())
}

/// The share of `count` generated sentences that the grammar accepts.
fn grammatical<M: CausalLm>(model: &M, tokenizer: &Tokenizer, count: usize) -> Result<f64> {
    let (mut right, mut all) = (0, 0);
    for seed in 0.. {
        let config = GenerationConfig::default().temperature(0.7).max_new_tokens(160).seed(seed).stop("\n");
        let text = stream(model, tokenizer, "\n", &config)?.collect::<Result<String>>()?;
        for sentence in stories::sentences(&text).into_iter().take(count - all) {
            all += 1;
            right += usize::from(stories::is_grammatical(sentence));
        }
        if all == count || seed as usize > 4 * count {
            break;
        }
    }
    Ok(right as f64 / all.max(1) as f64)
}

fn run() -> Result<()> {
    let start = Instant::now();
    let folder = Path::new("target/quickstart"); // below the current directory

    let text = stories::corpus(4000, 1);
    let tokenizer = TokenizerTrainer::byte_level_bpe().vocab_size(512).train(text.lines())?;
    let ids = tokenizer.encode_without_special(&text)?;
    say!("4000 stories, {} characters, {} tokens of a vocabulary of {}", text.len(), ids.len(), tokenizer.vocab_size());

    let (train, validation) = TokenStream::from_ids(ids).split(0.95)?;
    let mut train = RandomWindows::new(train, CONTEXT, 16, 1)?;
    let mut validation = SequentialWindows::new(validation, CONTEXT, 32)?;
    let config = Gpt2Config::new(tokenizer.vocab_size(), CONTEXT, 128, 3, 4);
    let mut model = Gpt2::init(&config, &mut Rng::seed(1))?;
    say!("a GPT of {} parameters\n", model.parameter_count());

    let adam = AdamW { lr: 3e-3, betas: (0.9, 0.99), weight_decay: 0.1, ..AdamW::default() };
    let mut optimizer = Optimizer::new(adam)?.group(ParameterGroup::biases_and_norms().weight_decay(0.0))?;
    let mut course = training::Course::new(50);
    let run_folder = RunFolder::new(folder)
        .existing(Existing::Replace)
        .config(&model)
        .files(|folder| tokenizer.save_folder(folder).map(drop));
    let report = Trainer::steps(STEPS)
        .schedule(Schedule::cosine(STEPS).warmup(40).min_factor(0.05))
        .clip_grad_norm(1.0)
        .log_every(10)
        .validate(&mut validation, 100)
        .folder(run_folder)
        .observe(&mut course)
        .run(&mut model, &mut optimizer, &mut train, next_token_loss);
    course.finish();
    let report = report?;
    if let Err(error) = training::plot_loss(&report.history, &folder.join("loss.svg")) {
        eprintln!("warning: no picture of the loss: {error}");
    }
    if let Some(best) = report.best {
        say!("validation loss {:.4} after {} steps, {:.0} s\n", best.value, best.step, start.elapsed().as_secs_f64());
    }

    tell(&model, &tokenizer, "Once there was", 1)?;
    let share = grammatical(&model, &tokenizer, 200)?;
    say!("{:.0} % of 200 generated sentences are grammatical\n", 100.0 * share);

    say!("opened again from {}:", folder.display());
    let opened = LanguageModel::open(folder)?;
    tell(&opened, &Tokenizer::open(folder)?, "In the forest there lived", 2)?;
    say!("{:.0} s in all", start.elapsed().as_secs_f64());
    Ok(())
}

fn main() -> ExitCode {
    Args::parse();
    exit::exit(run())
}
