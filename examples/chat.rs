//! Chats with a pretrained model on the terminal.
//!
//! ```sh
//! cargo run --release --example chat -- --model models/SmolLM2-135M-Instruct --system "Be brief."
//! ```
//!
//! Needs a folder with `config.json`, weights, `tokenizer.json` and a chat template, or a `.gguf`
//! file. Each line is a message; the answer is streamed below it. Ctrl-C stops an answer, the end
//! of the input (Ctrl-D) ends the chat. When the context is full, the oldest messages are dropped.
//!
//! Settings that are not given as options come from the folder's `generation_config.json`.
//! `--sample`, a temperature above 0, `--top-k` and `--top-p` turn sampling on; `--greedy` and
//! `--temperature 0` turn it off.

#[path = "cli/exit.rs"]
mod exit;
#[path = "cli/threads.rs"]
mod threads;

use std::io::{BufRead as _, IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};

use clap::Parser;
use loquat::generation::{Cancel, PromptCache, StopReason};
use loquat::models::CausalLm;
use loquat::text::chat::{ChatMessage, ChatOptions, ChatTemplate};
use loquat::{Error, GenerationConfig, Result, TextGenerator};

/// Chats with a pretrained model on the terminal.
#[derive(Parser)]
struct Args {
    /// A model folder (config.json, weights, tokenizer with a chat template) or a .gguf file.
    #[arg(long)]
    model: PathBuf,
    /// The system message.
    #[arg(long)]
    system: Option<String>,
    /// A file with a chat template, which replaces that of the model.
    #[arg(long)]
    template: Option<PathBuf>,
    /// The maximum number of tokens per answer.
    #[arg(long, default_value_t = 512)]
    max_new_tokens: usize,
    /// Samples. Default: the folder's setting, or else sampling.
    #[arg(long, conflicts_with = "greedy")]
    sample: bool,
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
    /// The seed of the random numbers.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Always takes the most likely token.
    #[arg(long)]
    greedy: bool,
    /// The number of threads. Default: all processors.
    #[arg(long)]
    threads: Option<usize>,
}

/// Cancels the answer in progress, at Ctrl-C.
type Running = Arc<Mutex<Option<Cancel>>>;

fn config(args: &Args) -> GenerationConfig {
    let mut config = GenerationConfig::default().max_new_tokens(args.max_new_tokens).seed(args.seed);
    config.temperature = args.temperature;
    config.top_k = args.top_k;
    config.top_p = args.top_p;
    config.do_sample = args.sample.then_some(true).or(args.greedy.then_some(false));
    config
}

fn open(args: &Args) -> Result<TextGenerator> {
    let lm = TextGenerator::open(&args.model)?;
    let Some(path) = &args.template else { return Ok(lm) };
    let source = std::fs::read_to_string(path).map_err(|source| Error::Io { path: path.clone(), source })?;
    let tokenizer = lm.tokenizer();
    let token = |id: Option<u32>| id.and_then(|id| tokenizer.id_to_token(id));
    let tokens = [("bos_token", token(tokenizer.bos_token_id())), ("eos_token", token(tokenizer.eos_token_id()))];
    let tokens = tokens.into_iter().filter_map(|(name, token)| Some((name, token?)));
    let template = ChatTemplate::new(source, tokens)?;
    Ok(lm.with_chat_template(template))
}

/// Returns the token ids of the chat, without the oldest messages if they do not fit the context.
fn prompt(lm: &TextGenerator, messages: &mut Vec<ChatMessage>, room: usize) -> Result<Vec<u32>> {
    let first = messages.iter().take_while(|message| message.role == "system").count();
    loop {
        let ids = lm.chat_ids(messages, &ChatOptions::default())?;
        let fits = lm.model().max_seq_len().is_none_or(|limit| ids.len() + room.min(limit / 4) <= limit);
        if fits || messages.len() < first + 3 {
            return Ok(ids);
        }
        messages.drain(first..first + 2); // a message and its answer
    }
}

/// Prints the model's name and how to end the chat.
fn greet(args: &Args, lm: &TextGenerator) {
    let name = args.model.file_name().unwrap_or(args.model.as_os_str()).to_string_lossy();
    let context = lm.model().max_seq_len().map_or(String::new(), |limit| format!(" (context length {limit})"));
    eprintln!("Model: {name}{context}. Each line is a message.");
    eprintln!("Ctrl-C stops an answer, Ctrl-D ends the chat.");
}

fn chat(args: &Args, running: &Running) -> std::result::Result<(), Box<dyn std::error::Error>> {
    config(args).check()?;
    let lm = open(args)?;
    lm.chat_template().map_err(|error| format!("{error}; set one with --template FILE"))?;
    greet(args, &lm);
    let mut messages: Vec<ChatMessage> = args.system.iter().map(|text| ChatMessage::system(text.as_str())).collect();
    let mut cache: Option<PromptCache<_>> = None;
    let terminal = std::io::stdin().is_terminal();
    let mut out = std::io::stdout();
    let mut lines = std::io::stdin().lock().lines();
    loop {
        if terminal {
            eprint!("> ");
        }
        let Some(line) = lines.next() else { return Ok(()) };
        let line = line.map_err(|source| Error::Io { path: "standard input".into(), source })?;
        if line.trim().is_empty() {
            continue;
        }
        messages.push(ChatMessage::user(line));
        let cancel = Cancel::new();
        let ids = prompt(&lm, &mut messages, args.max_new_tokens)?;
        let mut pieces = lm.stream_ids(&ids, &config(args).cancel(&cancel))?;
        if let Some(cache) = &cache {
            pieces = pieces.with_cache(cache); // only new tokens are computed
        }
        *running.lock().unwrap_or_else(|e| e.into_inner()) = Some(cancel);
        let mut answer = String::new();
        for piece in pieces.by_ref() {
            let piece = piece?;
            if write!(out, "{piece}").and_then(|()| out.flush()).is_err() {
                return Ok(()); // the reader has closed the pipe
            }
            answer += &piece;
        }
        *running.lock().unwrap_or_else(|e| e.into_inner()) = None;
        let end = if pieces.stop_reason() == Some(StopReason::Cancelled) { " …" } else { "" };
        let _ = writeln!(out, "{end}");
        cache = pieces.cache();
        messages.push(ChatMessage::assistant(answer));
    }
}

fn main() -> ExitCode {
    let args = Args::parse();
    let running = Running::default();
    let answer = Arc::clone(&running);
    let handler = ctrlc::set_handler(move || match &*answer.lock().unwrap_or_else(|e| e.into_inner()) {
        Some(cancel) => cancel.cancel(),
        None => eprint!("\n(Ctrl-D ends the chat)\n> "),
    });
    if let Err(error) = handler {
        eprintln!("warning: Ctrl-C ends the program, not the answer: {error}");
    }
    let work = || chat(&args, &running).map_err(|error| error.to_string());
    exit::exit(threads::on_threads(args.threads, work))
}
