//! Generates text with a pretrained model, as a stream.
//!
//! ```sh
//! cargo run --release --example generate -- --model DIR --prompt "Once upon a time" \
//!     --max-new-tokens 200 --top-p 0.9
//! ```
//!
//! Needs a Hugging Face folder with `config.json`, `model.safetensors` and `tokenizer.json`, as
//! `train_gpt` and `quickstart` also write, or a `.gguf` file. Prints the prompt and its
//! continuation. With `--json`, prints one object with `prompt_ids`, `ids`, `text`, `stop_reason`,
//! `tokens_per_second` and, with the options, `logprobs` and `beams` (the texts of all beams with
//! their scores). With `--logprobs` alone, prints one line of JSON per token. `--prompt-ids` needs
//! no tokenizer: without one, `text` is null, and ids are printed in place of text.
//!
//! Settings that are not given as options come from the folder's `generation_config.json`.
//! `--sample`, a temperature above 0, `--top-k`, `--top-p`, `--min-p` and `--typical-p` turn
//! sampling on; `--greedy` and `--temperature 0` turn it off. If neither options nor folder decide,
//! tokens are sampled, or with beams searched.
//!
//! `--regex` and `--json-schema` constrain the text; if it is incomplete at its end, the program
//! reports an error. `--precision` sets the format of the weights, and with `bf16` also that of
//! matrix products. By default, weights keep the format of the files and products are computed in
//! f32.

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

/// Generates text with a pretrained model.
#[derive(Parser)]
struct Args {
    /// A model folder (config.json, weights and tokenizer) or a .gguf file.
    #[arg(long)]
    model: PathBuf,
    /// The format of the weights; bf16 also selects bf16 matrix products. Default: as in the files.
    #[arg(long)]
    precision: Option<Precision>,
    /// The prompt.
    #[arg(long, required_unless_present = "prompt_ids", conflicts_with = "prompt_ids")]
    prompt: Option<String>,
    /// The token ids of the prompt, separated by commas.
    #[arg(long, value_delimiter = ',')]
    prompt_ids: Option<Vec<u32>>,
    /// The maximum number of tokens to generate. Default: the folder's, or else 128.
    #[arg(long)]
    max_new_tokens: Option<usize>,
    /// Samples. Default: the folder's setting, or else sampling, except with --beams.
    #[arg(long, conflicts_with = "greedy")]
    sample: bool,
    /// Always takes the most likely token.
    #[arg(long)]
    greedy: bool,
    /// The sampling temperature: below 1 sharpens the distribution, 0 is the same as --greedy.
    /// Default: the folder's, or else 1.
    #[arg(long)]
    temperature: Option<f32>,
    /// Samples from the K most likely tokens; 0 means all. Default: the folder's, or else 0.
    #[arg(long, value_name = "K")]
    top_k: Option<usize>,
    /// Samples from the most likely tokens whose probabilities add up to P. Default: the folder's,
    /// or else 1.
    #[arg(long, value_name = "P")]
    top_p: Option<f32>,
    /// Samples from the tokens with at least P times the probability of the most likely one.
    /// Default: the folder's, or else 0.
    #[arg(long, value_name = "P")]
    min_p: Option<f32>,
    /// Samples from the most typical tokens whose probabilities add up to P. Default: the folder's,
    /// or else 1.
    #[arg(long, value_name = "P")]
    typical_p: Option<f32>,
    /// The penalty on tokens that occur in the prompt or the generated text; above 1 discourages
    /// repetition. Default: the folder's, or else 1.
    #[arg(long)]
    repetition_penalty: Option<f32>,
    /// The seed of the random numbers.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// A stop string, which may be the text of a special token; can be repeated.
    #[arg(long)]
    stop: Vec<String>,
    /// The number of beams of beam search; with a sampling option, of beam sampling. Default: the
    /// folder's, or else 1.
    #[arg(long, value_name = "N")]
    beams: Option<usize>,
    /// Speculative decoding: proposes N tokens at a time, from earlier text or with --draft, and
    /// checks them at once. The same text, faster if proposals are accepted.
    #[arg(long, value_name = "N", conflicts_with = "beams", value_parser = clap::value_parser!(u16).range(1..))]
    speculate: Option<u16>,
    /// A smaller model with the same vocabulary for speculative decoding. Proposes 5 tokens at a
    /// time, or the number of --speculate.
    #[arg(long, conflicts_with = "beams")]
    draft: Option<PathBuf>,
    /// Constrains the text to a regular expression.
    #[arg(long, conflicts_with = "json_schema")]
    regex: Option<String>,
    /// Constrains the text to JSON that conforms to the schema in this file.
    #[arg(long)]
    json_schema: Option<PathBuf>,
    /// Prints the log-probability of each token and of the N most likely alternatives, one line of
    /// JSON per token.
    #[arg(long, value_name = "N")]
    logprobs: Option<usize>,
    /// The number of threads. Default: all processors.
    #[arg(long)]
    threads: Option<usize>,
    /// Prints one JSON object instead of a stream.
    #[arg(long)]
    json: bool,
}

impl Args {
    fn options(&self) -> OpenOptions {
        OpenOptions::default().weights(Precision::weights(self.precision))
    }

    /// Returns the settings of the options. Constraints need the tokenizer's vocabulary.
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
            // Beams without a sampling option mean beam search.
            config.do_sample = config.do_sample.or(Some(false));
        }
        let count = self.speculate.map(usize::from);
        match &self.draft {
            Some(_) => config.num_assistant_tokens = count,
            None => config.prompt_lookup_num_tokens = count,
        }
        // Options that contradict each other are an error regardless of the folder's settings.
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

    /// Checks that constrained text is complete.
    fn check_complete(&self, reason: Option<StopReason>) -> Result<()> {
        let flag = match (&self.regex, &self.json_schema) {
            (Some(_), _) => "--regex",
            (_, Some(_)) => "--json-schema",
            _ => return Ok(()),
        };
        match reason {
            Some(StopReason::Complete | StopReason::EosToken) => Ok(()),
            Some(StopReason::MaxNewTokens) => {
                Err(argument(flag, "complete text within --max-new-tokens", "text cut at that limit"))
            }
            reason => Err(argument(flag, "complete text", format!("text that ended by {reason:?}"))),
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

/// The generated text as JSON.
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

    /// Adds log-probabilities, with the text of each token if there is a tokenizer.
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

/// Generates ids with a model that has no tokenizer.
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
        eprintln!("warning: no tokenizer, so ids are printed in place of text: {error}");
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
        // A closed pipe ends the program without an error.
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
    args.check_complete(beams.first().map(|best| best.stop_reason).or(pieces.stop_reason()))
}

fn main() -> ExitCode {
    let args = Args::parse();
    let work = || with_precision(Precision::products(args.precision), || run(&args)).map_err(|error| error.to_string());
    exit::exit(threads::on_threads(args.threads, work))
}
