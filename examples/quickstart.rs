//! From text to generated text in about a minute, without any files: tokenizer, model, training,
//! generation.
//!
//! ```sh
//! cargo run --release --example quickstart
//! ```
//!
//! Trains a byte-level BPE tokenizer and a small GPT on stories with a known grammar
//! (`stories/mod.rs`). Prints the validation loss and the share of grammatical sentences among 200
//! generated ones. Writes the model folder, the history and a plot of the loss to
//! `target/quickstart/`.

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
mod stories;

use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use loquat::generation::stream;
use loquat::models::{CausalLm, Gpt2, Gpt2Config, LanguageModel};
use loquat::nn::Module;
use loquat::progress::ProgressReporter;
use loquat::text::{Tokenizer, TokenizerTrainer};
use loquat::training::data::{RandomWindows, SequentialWindows, TokenStream};
use loquat::training::{
    AdamW, Existing, Optimizer, ParameterGroup, RunFolder, Schedule, TrainEnd, Trainer, next_token_loss,
};
use loquat::{GenerationConfig, Result, Rng};

/// From text to generated text in about a minute, without any files: tokenizer, model, training,
/// generation.
///
/// Trains a byte-level BPE tokenizer and a small GPT on stories with a known grammar. Prints the
/// validation loss and the share of grammatical sentences among 200 generated ones. Writes the
/// model folder, the history and a plot of the loss to target/quickstart/. There are no options;
/// the example train_gpt trains on your own text.
#[derive(Parser)]
struct Args {}

const STEPS: u64 = 400;
const CONTEXT: usize = 96;

/// Prints a story that continues `prompt`, as it is generated.
fn print_story<M: CausalLm>(model: &M, tokenizer: &Tokenizer, prompt: &str, seed: u64) -> Result<()> {
    let config = GenerationConfig::default().temperature(0.7).max_new_tokens(160).seed(seed).stop("\n");
    let mut out = std::io::stdout();
    let _ = write!(out, "{prompt}");
    for piece in stream(model, tokenizer, prompt, &config)? {
        let _ = write!(out, "{}", piece?);
        let _ = out.flush();
    }
    print_line!("\n");
    Ok(())
}

/// Returns the share of grammatical sentences among `count` generated ones.
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
    let size = tokenizer.vocab_size();
    print_line!("4000 stories: {} bytes, {} tokens, vocabulary of {size}", text.len(), ids.len());

    let (train, validation) = TokenStream::from_ids(ids).split(0.95)?;
    let mut train = RandomWindows::new(train, CONTEXT, 16, 1)?;
    let mut validation = SequentialWindows::new(validation, CONTEXT, 32)?;
    let config = Gpt2Config::new(tokenizer.vocab_size(), CONTEXT, 128, 3, 4);
    let mut model = Gpt2::init(&config, &mut Rng::seed(1))?;
    print_line!("GPT with {} parameters\n", model.parameter_count());

    let adam = AdamW { lr: 3e-3, betas: (0.9, 0.99), weight_decay: 0.1, ..AdamW::default() };
    let mut optimizer = Optimizer::new(adam)?.group(ParameterGroup::biases_and_norms().weight_decay(0.0))?;
    let mut progress = ProgressReporter::new("tokens").stop_on_ctrl_c()?;
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
        .observe(&mut progress)
        .run(&mut model, &mut optimizer, &mut train, next_token_loss)?;
    let plot = folder.join("loss.svg");
    if let Err(error) = history::plot(&report.history, &plot) {
        eprintln!("warning: {}: {error}", plot.display());
    }
    if report.stop == TrainEnd::Observer {
        return Ok(()); // Ctrl-C
    }
    if let Some(best) = report.best {
        print_line!(
            "validation loss {:.4} after {} steps, {:.0} s\n",
            best.value,
            best.step,
            start.elapsed().as_secs_f64()
        );
    }

    print_story(&model, &tokenizer, "Once there was", 1)?;
    let share = grammatical(&model, &tokenizer, 200)?;
    print_line!("{:.0} % of 200 generated sentences are grammatical\n", 100.0 * share);

    print_line!("the same model, opened from {}:", folder.display());
    let opened = LanguageModel::open(folder)?;
    print_story(&opened, &Tokenizer::open(folder)?, "In the forest there lived", 2)?;
    print_line!("{:.0} s in total", start.elapsed().as_secs_f64());
    Ok(())
}

fn main() -> ExitCode {
    Args::parse();
    exit::exit(run())
}
