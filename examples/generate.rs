//! Continues a prompt with a pretrained model, and streams the text.
//!
//! ```sh
//! cargo run --release --example generate -- --model DIR --prompt "Once upon a time" --max-new-tokens 200 --top-p 0.9
//! ```
//!
//! Needs a folder with `config.json`, `model.safetensors` and `tokenizer.json`, such as Hugging Face has and `train_gpt` or `quickstart`
//! write, or a `.gguf` file. Prints the prompt and its continuation; with `--json` one object with `prompt_ids`, `ids`, `text`, `stop_reason`,
//! `tokens_per_second` and, if asked for, `logprobs` and `beams` (the n best texts with their scores). What no flag says, the folder's `generation_config.json` says.
//! `--regex` and `--json-schema` hold the text to a form. `--precision` says in what format the weights are held, and `bf16` also that
//! products are computed in it; unless given, weights are held as the files have them and products computed in f32.

#[path = "cli/exit.rs"]
mod exit;
#[path = "cli/precision.rs"]
mod precision;
#[path = "cli/threads.rs"]
mod threads;

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use loquat::checkpoint::OpenOptions;
use loquat::models::LanguageModel;
use loquat::ops::with_precision;
use loquat::{Error, GenerationConfig, Result, TextGenerator};
use precision::Precision;

/// Continues a prompt with a pretrained model.
#[derive(Parser)]
struct Args {
    /// A model folder (config.json, weights and tokenizer) or a .gguf file.
    #[arg(long)]
    model: PathBuf,
    /// The format of the weights, and of products for bf16.
    #[arg(long)]
    precision: Option<Precision>,
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
    #[arg(long)]
    temperature: Option<f32>,
    /// Draw only from this many likeliest tokens; 0 means all.
    #[arg(long)]
    top_k: Option<usize>,
    /// Draw only from the likeliest tokens that together have this probability.
    #[arg(long)]
    top_p: Option<f32>,
    /// Draw only tokens at least this times as likely as the likeliest.
    #[arg(long)]
    min_p: Option<f32>,
    /// Divides the logits of tokens in prompt and text; above 1 discourages repetition.
    #[arg(long)]
    repetition_penalty: Option<f32>,
    /// Keys the random numbers.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// A text that ends the continuation; may be given more than once.
    #[arg(long)]
    stop: Vec<String>,
    /// Take the likeliest token instead of drawing.
    #[arg(long)]
    greedy: bool,
    /// Search for the likeliest text with so many beams; with a temperature or a cut-off, draw them.
    #[arg(long, default_value_t = 1)]
    beams: usize,
    /// Guess so many next tokens and read them at once: the same text, sooner if the guesses are right. From the text itself, or by `--draft`.
    #[arg(long)]
    speculate: Option<usize>,
    /// A smaller model of the same vocabulary that guesses, 5 tokens at once unless `--speculate` says otherwise.
    #[arg(long, conflicts_with = "beams")]
    draft: Option<PathBuf>,
    /// Write only what this regular expression matches.
    #[arg(long, conflicts_with = "json_schema")]
    regex: Option<String>,
    /// Write only JSON that the schema in this file describes.
    #[arg(long)]
    json_schema: Option<PathBuf>,
    /// Give each token's log-probability and that of so many likeliest alternatives.
    #[arg(long)]
    logprobs: Option<usize>,
    /// The number of threads; all processors unless given.
    #[arg(long)]
    threads: Option<usize>,
    /// Print one JSON object instead of streaming.
    #[arg(long)]
    json: bool,
}

impl Args {
    fn options(&self) -> OpenOptions {
        OpenOptions::default().weights(Precision::weights(self.precision))
    }

    fn config(&self, lm: &TextGenerator) -> Result<GenerationConfig> {
        let mut config = GenerationConfig::default().max_new_tokens(self.max_new_tokens).seed(self.seed);
        config.temperature = self.temperature;
        config.top_k = self.top_k;
        config.top_p = self.top_p;
        config.min_p = self.min_p;
        config.repetition_penalty = self.repetition_penalty;
        config.logprobs = self.logprobs;
        config.stop_strings.clone_from(&self.stop);
        let draws = self.temperature.is_some() || self.top_k.is_some() || self.top_p.is_some() || self.min_p.is_some();
        if self.greedy || self.beams > 1 && !draws {
            config = config.greedy();
        }
        if self.beams != 1 {
            config.do_sample = config.do_sample.or(Some(true));
            config = config.num_beams(self.beams).num_return_sequences(self.beams);
        }
        match self.speculate {
            Some(count) if self.draft.is_some() => config = config.num_assistant_tokens(count),
            Some(count) if count > 0 => config = config.prompt_lookup_num_tokens(count),
            _ => {}
        }
        if let Some(pattern) = &self.regex {
            config = config.constraint(lm.vocabulary()?.regex(pattern)?);
        }
        if let Some(path) = &self.json_schema {
            config = config.constraint(lm.vocabulary()?.json_schema(&read_json(path)?)?);
        }
        Ok(config)
    }
}

fn read_json(path: &PathBuf) -> Result<serde_json::Value> {
    let text = std::fs::read_to_string(path).map_err(|source| Error::Io { path: path.clone(), source })?;
    serde_json::from_str(&text).map_err(|error| Error::Format { path: path.clone(), reason: error.to_string() })
}

fn run(args: &Args) -> Result<()> {
    let mut lm = TextGenerator::open_with(&args.model, &args.options())?;
    if let Some(draft) = &args.draft {
        lm = lm.with_draft(LanguageModel::open_with(draft, &args.options())?)?;
    }
    let config = args.config(&lm)?;
    let prompt_ids = match (&args.prompt, &args.prompt_ids) {
        (Some(prompt), _) => lm.encode(prompt)?,
        (None, ids) => ids.clone().unwrap_or_default(),
    };
    let start = Instant::now();
    let mut pieces = lm.stream_ids(&prompt_ids, &config)?;
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
    let seconds = start.elapsed().as_secs_f64();
    let named = |id: u32, logprob: f32| {
        let token = String::from_utf8_lossy(&lm.tokenizer().token_bytes(id)).into_owned();
        serde_json::json!({ "id": id, "token": token, "logprob": logprob })
    };
    let logprobs = pieces.logprobs().iter().map(|written| {
        let mut token = named(written.id, written.logprob);
        token["top"] = written.top.iter().map(|&(id, logprob)| named(id, logprob)).collect();
        token
    });
    if args.json {
        let mut object = serde_json::json!({
            "prompt_ids": prompt_ids,
            "ids": pieces.new_ids(),
            "text": text,
            "stop_reason": pieces.stop_reason().map(|reason| format!("{reason:?}")),
            "tokens_per_second": pieces.new_ids().len() as f64 / seconds,
        });
        let beam = |found: loquat::generation::Hypothesis| -> Result<serde_json::Value> {
            let mut stream = lm.tokenizer().decode_stream().after(&prompt_ids);
            let pieces: Result<String> = found.ids.iter().map(|&id| stream.step(id)).collect();
            let text = pieces? + &stream.finish()?;
            Ok(serde_json::json!({ "ids": found.ids, "text": text, "score": found.score }))
        };
        if args.beams > 1 {
            object["beams"] = pieces.hypotheses().into_iter().map(beam).collect::<Result<_>>()?;
        }
        if args.logprobs.is_some() {
            object["logprobs"] = logprobs.collect();
        }
        let _ = writeln!(out, "{object}");
    } else {
        let _ = writeln!(out);
        for token in logprobs {
            let _ = writeln!(out, "{token}");
        }
    }
    Ok(())
}

fn main() -> ExitCode {
    let args = Args::parse();
    let work = || with_precision(Precision::products(args.precision), || run(&args)).map_err(|error| error.to_string());
    exit::exit(threads::on_threads(args.threads, work))
}
