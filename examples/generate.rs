//! Continues a prompt with a pretrained model, and streams the text.
//!
//! ```sh
//! cargo run --release --example generate -- --model DIR --prompt "Once upon a time" --max-new-tokens 200 --top-p 0.9
//! ```
//!
//! Needs a folder with `config.json`, `model.safetensors` and `tokenizer.json`, such as Hugging
//! Face has and `train_gpt` or `quickstart` write, or a `.gguf` file. Prints the prompt and its
//! continuation; with `--json` one object with `prompt_ids`, `ids`, `text`, `stop_reason`,
//! `tokens_per_second` and, if asked for, `logprobs` and `beams` (the n best texts with their
//! scores); with `--logprobs` alone a line of JSON for each token and nothing else. `--prompt-ids`
//! works without a tokenizer too: then `text` is null, and without `--json` ids are printed.
//!
//! What no flag says, the folder's `generation_config.json` says. `--sample`, a temperature above 0
//! and each of `--top-k`, `--top-p`, `--min-p` and `--typical-p` draw tokens whatever the folder
//! says; `--greedy` and `--temperature 0` take the likeliest. If neither flags nor folder say
//! anything, tokens are drawn; with beams the likeliest text is searched for.
//!
//! `--regex` and `--json-schema` hold the text to a form; if it is not whole when it ends, the
//! program says so and fails. `--precision` says in what format the weights are held, and `bf16`
//! also that products are computed in it; unless given, weights are held as the files have them and
//! products computed in f32.

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
use loquat::generation::{Hypothesis, StopReason, TokenLogprob, generate};
use loquat::models::LanguageModel;
use loquat::ops::with_precision;
use loquat::text::Tokenizer;
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
    /// The largest number of tokens to write. Default: the folder's, else 128.
    #[arg(long)]
    max_new_tokens: Option<usize>,
    /// Draw tokens. Default: as the folder says, else yes, but with `--beams` no.
    #[arg(long, conflicts_with = "greedy")]
    sample: bool,
    /// Take the likeliest token instead of drawing.
    #[arg(long)]
    greedy: bool,
    /// Draw, with logits divided by it; below 1 sharpens the distribution, 0 is `--greedy`.
    /// Default: the folder's, else 1.
    #[arg(long)]
    temperature: Option<f32>,
    /// Draw from this many likeliest tokens; 0 means all. Default: the folder's, else 0.
    #[arg(long)]
    top_k: Option<usize>,
    /// Draw from the likeliest tokens that together have this probability. Default: the folder's,
    /// else 1.
    #[arg(long)]
    top_p: Option<f32>,
    /// Draw from the tokens at least this times as likely as the likeliest. Default: the folder's,
    /// else 0.
    #[arg(long)]
    min_p: Option<f32>,
    /// Draw from the most typical tokens that together have this probability. Default: the
    /// folder's, else 1.
    #[arg(long)]
    typical_p: Option<f32>,
    /// Divides the logits of tokens in prompt and text; above 1 discourages repetition. Default:
    /// the folder's, else 1.
    #[arg(long)]
    repetition_penalty: Option<f32>,
    /// Keys the random numbers.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// A text that ends the continuation, also one spelled like a special token; may be given more
    /// than once.
    #[arg(long)]
    stop: Vec<String>,
    /// Search for the likeliest text with so many beams; with a setting of drawing, draw them.
    /// Default: the folder's, else 1.
    #[arg(long)]
    beams: Option<usize>,
    /// Guess so many next tokens and read them at once: the same text, sooner if the guesses are right. From the text itself, or by `--draft`.
    #[arg(long, conflicts_with = "beams", value_parser = clap::value_parser!(u16).range(1..))]
    speculate: Option<u16>,
    /// A smaller model of the same vocabulary that guesses, 5 tokens at once unless `--speculate` says otherwise.
    #[arg(long, conflicts_with = "beams")]
    draft: Option<PathBuf>,
    /// Write only what this regular expression matches.
    #[arg(long, conflicts_with = "json_schema")]
    regex: Option<String>,
    /// Write only JSON that the schema in this file describes.
    #[arg(long)]
    json_schema: Option<PathBuf>,
    /// Give each token's log-probability and that of so many likeliest alternatives, a line of JSON
    /// a token.
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

    /// What the flags say; constraints need the tokenizer's vocabulary.
    fn config(&self, lm: Option<&TextGenerator>) -> Result<GenerationConfig> {
        let mut config = GenerationConfig::default().seed(self.seed);
        config.max_new_tokens = self.max_new_tokens;
        config.temperature = self.temperature;
        config.top_k = self.top_k;
        config.top_p = self.top_p;
        config.min_p = self.min_p;
        config.typical_p = self.typical_p;
        config.repetition_penalty = self.repetition_penalty;
        config.logprobs = self.logprobs;
        config.num_beams = self.beams;
        config.num_return_sequences = self.beams;
        config.stop_strings.clone_from(&self.stop);
        config.do_sample = self.sample.then_some(true).or(self.greedy.then_some(false));
        let draws = [self.temperature, self.top_p, self.min_p, self.typical_p].iter().any(Option::is_some);
        if self.beams.is_some_and(|beams| beams > 1) && !draws && self.top_k.is_none() {
            // Asking for a search is asking for the likeliest text.
            config.do_sample = config.do_sample.or(Some(false));
        }
        let count = self.speculate.map(usize::from);
        match &self.draft {
            Some(_) => config.num_assistant_tokens = count,
            None => config.prompt_lookup_num_tokens = count,
        }
        // What is contradictory is so before the folder's settings join it.
        config.check()?;
        let compiler = || match lm {
            Some(lm) => lm.grammar_compiler(),
            None => Err(argument("--regex and --json-schema", "a model with a tokenizer", "none")),
        };
        if let Some(pattern) = &self.regex {
            config = config.constraint(compiler()?.regex(pattern)?);
        }
        if let Some(path) = &self.json_schema {
            config = config.constraint(compiler()?.json_schema(&read_json(path)?)?);
        }
        Ok(config)
    }

    /// Makes sure that a text that was held to a form is whole.
    fn check_whole(&self, reason: Option<StopReason>) -> Result<()> {
        let flag = match (&self.regex, &self.json_schema) {
            (Some(_), _) => "--regex",
            (_, Some(_)) => "--json-schema",
            _ => return Ok(()),
        };
        match reason {
            Some(StopReason::Complete | StopReason::EosToken) => Ok(()),
            Some(StopReason::MaxNewTokens) => {
                Err(argument(flag, "a text that is whole within --max-new-tokens", "one cut there"))
            }
            reason => Err(argument(flag, "a whole text", format!("one that ended by {reason:?}"))),
        }
    }
}

fn argument(name: &str, expected: &str, found: impl ToString) -> Error {
    Error::Argument { name: name.into(), expected: expected.into(), found: found.to_string() }
}

fn read_json(path: &PathBuf) -> Result<serde_json::Value> {
    let text = std::fs::read_to_string(path).map_err(|source| Error::Io { path: path.clone(), source })?;
    serde_json::from_str(&text).map_err(|error| Error::Format { path: path.clone(), reason: error.to_string() })
}

/// What was written, as it is printed.
struct Report {
    object: serde_json::Value,
    logprobs: Vec<serde_json::Value>,
}

impl Report {
    fn new(prompt_ids: &[u32], ids: &[u32], reason: Option<StopReason>, seconds: f64) -> Self {
        let object = serde_json::json!({
            "prompt_ids": prompt_ids,
            "ids": ids,
            "text": null,
            "stop_reason": reason.map(|reason| format!("{reason:?}")),
            "tokens_per_second": ids.len() as f64 / seconds,
        });
        Self { object, logprobs: Vec::new() }
    }

    /// Adds log-probabilities, with what each token stands for if there is a tokenizer.
    fn logprobs(mut self, logprobs: &[TokenLogprob], tokenizer: Option<&Tokenizer>) -> Self {
        let named = |id: u32, logprob: f32| {
            let token = tokenizer.map(|tokenizer| String::from_utf8_lossy(&tokenizer.token_bytes(id)).into_owned());
            serde_json::json!({ "id": id, "token": token, "logprob": logprob })
        };
        let line = |written: &TokenLogprob| {
            let mut token = named(written.id, written.logprob);
            token["top"] = written.top.iter().map(|&(id, logprob)| named(id, logprob)).collect();
            token
        };
        self.logprobs = logprobs.iter().map(line).collect();
        self
    }

    fn print(mut self, args: &Args) {
        let mut out = std::io::stdout().lock();
        if args.json {
            if args.logprobs.is_some() {
                self.object["logprobs"] = self.logprobs.into();
            }
            let _ = writeln!(out, "{}", self.object);
        } else {
            for token in self.logprobs {
                let _ = writeln!(out, "{token}");
            }
        }
    }
}

/// Continues ids with a model that has no tokenizer.
fn run_ids(args: &Args, prompt_ids: &[u32]) -> Result<()> {
    let model = LanguageModel::open_with(&args.model, &args.options())?;
    let config = args.config(None)?.with_defaults(&GenerationConfig::open(&args.model)?);
    if args.draft.is_some() {
        return Err(argument("--draft", "a model with a tokenizer", "none"));
    }
    let start = Instant::now();
    let mut tokens = generate(&model, prompt_ids, &config)?;
    tokens.by_ref().try_for_each(|id| id.map(drop))?;
    let report = Report::new(prompt_ids, tokens.new_ids(), tokens.stop_reason(), start.elapsed().as_secs_f64());
    let mut report = report.logprobs(tokens.logprobs(), None);
    let beams = tokens.hypotheses();
    if !beams.is_empty() {
        let beam = |found: &Hypothesis| serde_json::json!({ "ids": found.ids, "text": null, "score": found.score });
        report.object["beams"] = beams.iter().map(beam).collect();
    }
    if !args.json && args.logprobs.is_none() {
        let ids: Vec<String> = tokens.new_ids().iter().map(u32::to_string).collect();
        let _ = writeln!(std::io::stdout(), "{}", ids.join(","));
    }
    report.print(args);
    Ok(())
}

fn run(args: &Args) -> Result<()> {
    if let (Some(ids), Err(error)) = (&args.prompt_ids, Tokenizer::open(&args.model)) {
        eprintln!("no tokenizer, only ids are written: {error}");
        return run_ids(args, ids);
    }
    let mut lm = TextGenerator::open_with(&args.model, &args.options())?;
    if let Some(draft) = &args.draft {
        lm = lm.with_draft(LanguageModel::open_with(draft, &args.options())?)?;
    }
    let config = args.config(Some(&lm))?;
    let prompt_ids = match (&args.prompt, &args.prompt_ids) {
        (Some(prompt), _) => lm.encode(prompt)?,
        (None, ids) => ids.clone().unwrap_or_default(),
    };
    let start = Instant::now();
    let mut pieces = lm.stream_ids(&prompt_ids, &config)?;
    let mut out = std::io::stdout().lock();
    let mut text = String::new();
    let streams = !args.json && args.logprobs.is_none();
    if streams {
        // A closed pipe ends the program quietly.
        let _ = write!(out, "{}", args.prompt.as_deref().unwrap_or_default());
    }
    for piece in pieces.by_ref() {
        let piece = piece?;
        if !streams {
            text += &piece;
        } else if write!(out, "{piece}").and_then(|()| out.flush()).is_err() {
            return Ok(());
        }
    }
    if streams {
        let _ = writeln!(out);
    }
    drop(out);
    let report = Report::new(&prompt_ids, pieces.new_ids(), pieces.stop_reason(), start.elapsed().as_secs_f64());
    let mut report = report.logprobs(pieces.logprobs(), Some(lm.tokenizer()));
    report.object["text"] = text.into();
    let beams = pieces.hypotheses();
    let beam = |found: &Hypothesis| -> Result<serde_json::Value> {
        let text = lm.text_after(&prompt_ids, &found.ids, &config)?;
        Ok(serde_json::json!({ "ids": found.ids, "text": text, "score": found.score }))
    };
    if !beams.is_empty() {
        report.object["beams"] = beams.iter().map(beam).collect::<Result<_>>()?;
    }
    report.print(args);
    args.check_whole(beams.first().map(|best| best.stop_reason).or(pieces.stop_reason()))
}

fn main() -> ExitCode {
    let args = Args::parse();
    let work = || with_precision(Precision::products(args.precision), || run(&args)).map_err(|error| error.to_string());
    exit::exit(threads::on_threads(args.threads, work))
}
