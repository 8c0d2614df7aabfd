//! Tells what is in a model folder or a `.gguf` file, without loading the weights.
//!
//! ```sh
//! cargo run --release --example inspect -- PATH
//! ```
//!
//! Prints the architecture with its configuration, the tensors with their formats and sizes, the memory that the model will need, and
//! the tokenizer. Layers that are alike share a line; `--all` gives each tensor its own.

#[macro_use]
#[path = "cli/say.rs"]
mod say;
#[path = "cli/exit.rs"]
mod exit;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use loquat::checkpoint::gguf::GgmlVocabulary;
use loquat::checkpoint::{Checkpoint, OpenOptions, WeightFormat};
use loquat::models::{estimate_of, open_checkpoint, read_config};
use loquat::text::{Special, Tokenizer};
use loquat::{Error, Load, Result};
use serde_json::Value;

/// Tells what is in a model folder or a .gguf file, without loading the weights.
#[derive(Parser)]
struct Args {
    /// A folder with config.json and model.safetensors, a .safetensors file or a .gguf file.
    path: PathBuf,
    /// A line for each tensor.
    #[arg(long)]
    all: bool,
    /// The number of tokens to estimate the memory for.
    #[arg(long, default_value_t = 1024)]
    tokens: usize,
}

fn size(bytes: usize) -> String {
    let mut size = bytes as f64;
    let mut units = ["bytes", "kB", "MB", "GB", "TB"].into_iter();
    let mut unit = units.next().unwrap_or_default();
    for next in units {
        if size < 1000.0 {
            break;
        }
        (size, unit) = (size / 1000.0, next);
    }
    if unit == "bytes" { format!("{bytes} bytes") } else { format!("{size:.1} {unit}") }
}

/// The name with each number of a layer replaced by `*`.
fn pattern(name: &str) -> String {
    let segments = name.split('.').map(|s| if s.bytes().all(|b| b.is_ascii_digit()) { "*" } else { s });
    segments.collect::<Vec<_>>().join(".")
}

fn show_config(config: &Value) {
    let name = config["model_type"].as_str().unwrap_or("not named");
    say!("architecture  {name}");
    for (key, value) in config.as_object().into_iter().flatten() {
        if !matches!(key.as_str(), "model_type" | "architectures" | "id2label" | "label2id") && !value.is_null() {
            say!("  {key:32} {value}");
        }
    }
}

fn show_tensors(checkpoint: &Checkpoint, all: bool) {
    let mut rows: BTreeMap<(String, String), (usize, usize)> = BTreeMap::new();
    let mut formats: BTreeMap<String, (usize, usize, usize)> = BTreeMap::new();
    for name in checkpoint.names() {
        let Some(view) = checkpoint.tensor(name) else { continue };
        let what = format!("{:6} {:?}", view.dtype().to_string(), view.shape());
        let row = rows.entry((if all { name.into() } else { pattern(name) }, what)).or_default();
        *row = (row.0 + 1, row.1 + view.bytes().len());
        let format = formats.entry(view.dtype().to_string()).or_default();
        let numbers: usize = view.shape().iter().product();
        *format = (format.0 + 1, format.1 + numbers, format.2 + view.bytes().len());
    }
    say!("\ntensors  {}", checkpoint.names().count());
    for ((name, what), (count, bytes)) in rows {
        let times = if count > 1 { format!("× {count}") } else { String::new() };
        say!("  {name:52} {what:28} {times:6} {:>10}", size(bytes));
    }
    say!("\nformats");
    for (format, (tensors, numbers, bytes)) in formats {
        say!("  {format:6} {tensors:6} tensors {numbers:14} numbers {:>12}", size(bytes));
    }
}

fn show_memory(checkpoint: &Checkpoint, config: &Value, tokens: usize) -> Result<()> {
    let formats = [
        ("as in the file", WeightFormat::Keep),
        ("f32", WeightFormat::F32),
        ("f16", WeightFormat::F16),
        ("bf16", WeightFormat::Bf16),
    ];
    say!("\nmemory");
    for (name, format) in formats {
        let need = estimate_of(checkpoint, config, &OpenOptions::default().weights(format))?;
        if format == WeightFormat::Keep {
            say!("  {:14} parameters", need.parameters);
            say!("  {:>14} of keys and values per token", size(need.kv_cache_per_token));
            say!("  {:>14} of intermediate results per token of a prompt", size(need.activations_per_token));
        }
        say!(
            "  weights {name:15} {:>10} of memory, {:>10} in the file's own pages; with {tokens} tokens {:>10} in all",
            size(need.weights),
            size(need.mapped),
            size(need.total(tokens))
        );
    }
    Ok(())
}

fn show_tokenizer(args: &Args, checkpoint: &Checkpoint) {
    say!("\ntokenizer");
    if let Some(Ok(Some(vocabulary))) = checkpoint.gguf().map(GgmlVocabulary::read) {
        say!("  kind      {}, {}", vocabulary.model, vocabulary.pre.as_deref().unwrap_or("not said how it splits"));
    }
    let tokenizer = match Tokenizer::open(&args.path) {
        Ok(tokenizer) => tokenizer,
        Err(error) => {
            say!("  none: {error}");
            return;
        }
    };
    say!("  tokens    {}", tokenizer.vocab_size());
    for role in Special::ALL {
        if let Some(id) = tokenizer.special(role) {
            say!("  {:9} {:?}, id {id}", role.key(), tokenizer.id_to_token(id).unwrap_or_default());
        }
    }
    say!("  template  {}", if tokenizer.chat_template().is_some() { "for conversations" } else { "none" });
}

fn run(args: &Args) -> Result<()> {
    if !args.path.exists() {
        return Err(Error::Io { path: args.path.clone(), source: std::io::ErrorKind::NotFound.into() });
    }
    let checkpoint = open_checkpoint(&args.path, Load::Mmap)?;
    if let Some(gguf) = checkpoint.gguf() {
        let parts = if gguf.file_count() > 1 { format!(" in {} parts", gguf.file_count()) } else { String::new() };
        say!("file          GGUF version {}, {}{parts}", gguf.version(), size(gguf.bytes()));
        for (key, value) in gguf.metadata().filter(|(key, _)| key.starts_with("general.")) {
            say!("  {key:32} {value}");
        }
    }
    let config = read_config(&args.path);
    match &config {
        Ok(config) => show_config(config),
        Err(error) => {
            say!("architecture  not known: {error}");
        }
    }
    show_tensors(&checkpoint, args.all);
    if let Ok(config) = &config
        && let Err(error) = show_memory(&checkpoint, config, args.tokens)
    {
        say!("  not known: {error}");
    }
    show_tokenizer(args, &checkpoint);
    Ok(())
}

fn main() -> ExitCode {
    exit::exit(run(&Args::parse()))
}
