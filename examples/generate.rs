//! Continues a prompt with a model folder, and streams the text.
//!
//! ```sh
//! cargo run --release --example generate -- --model DIR --prompt "Once upon a time" --max-new-tokens 200 --top-p 0.9
//! ```
//!
//! Needs a folder with `config.json`, `model.safetensors` and `tokenizer.json`, such as `train_gpt` or `quickstart` write. Prints the
//! prompt and its continuation; with `--json` one object with `prompt_ids`, `ids`, `text`, `tokens_per_second`.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use loquat::generation::text::stream_ids;
use loquat::models::LanguageModel;
use loquat::text::Tokenizer;
use loquat::{GenerationConfig, Result};

/// Continues a prompt with a model folder.
#[derive(Parser)]
struct Args {
    /// A folder with config.json, model.safetensors and tokenizer.json.
    #[arg(long)]
    model: PathBuf,
    /// The text to continue.
    #[arg(long, required_unless_present = "prompt_ids", conflicts_with = "prompt_ids")]
    prompt: Option<String>,
    /// The token ids to continue, separated by commas.
    #[arg(long, value_delimiter = ',')]
    prompt_ids: Option<Vec<u32>>,
    /// The largest number of tokens to write.
    #[arg(long, default_value_t = 128)]
    max_new_tokens: usize,
    /// Divides the logits; below 1 sharpens the distribution.
    #[arg(long, default_value_t = 1.0)]
    temperature: f32,
    /// Draw only from this many likeliest tokens; 0 means all.
    #[arg(long, default_value_t = 0)]
    top_k: usize,
    /// Draw only from the likeliest tokens that together have this probability.
    #[arg(long, default_value_t = 1.0)]
    top_p: f32,
    /// Keys the random numbers.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// A text that ends the continuation; may be given more than once.
    #[arg(long)]
    stop: Vec<String>,
    /// Take the likeliest token instead of drawing.
    #[arg(long)]
    greedy: bool,
    /// Print one JSON object instead of streaming.
    #[arg(long)]
    json: bool,
}

fn run(args: &Args) -> Result<()> {
    let model = LanguageModel::open(&args.model)?;
    let tokenizer = Tokenizer::open(&args.model)?;
    let mut config = GenerationConfig::default()
        .max_new_tokens(args.max_new_tokens)
        .temperature(args.temperature)
        .top_k(args.top_k)
        .top_p(args.top_p)
        .seed(args.seed);
    config.do_sample = Some(!args.greedy);
    config.stop_strings = args.stop.clone();
    config.eos_token_ids.extend(tokenizer.eos_token_id());
    let prompt_ids = match (&args.prompt, &args.prompt_ids) {
        (Some(prompt), _) => tokenizer.encode(prompt.as_str())?.input_ids,
        (None, ids) => ids.clone().unwrap_or_default(),
    };
    let start = Instant::now();
    let mut pieces = stream_ids(&model, &tokenizer, &prompt_ids, &config)?;
    let mut out = std::io::stdout().lock();
    let mut text = String::new();
    if !args.json {
        // A closed pipe ends the program quietly.
        let _ = write!(out, "{}", args.prompt.as_deref().unwrap_or_default());
    }
    for piece in pieces.by_ref() {
        let piece = piece?;
        if args.json {
            text += &piece;
        } else if write!(out, "{piece}").and_then(|()| out.flush()).is_err() {
            return Ok(());
        }
    }
    if args.json {
        let object = serde_json::json!({
            "prompt_ids": prompt_ids,
            "ids": pieces.new_ids(),
            "text": text,
            "tokens_per_second": pieces.new_ids().len() as f64 / start.elapsed().as_secs_f64(),
        });
        let _ = writeln!(out, "{object}");
    } else {
        let _ = writeln!(out);
    }
    Ok(())
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
