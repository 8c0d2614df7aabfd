//! Lists the contents of a model folder or a `.gguf` file, without loading the weights.
//!
//! ```sh
//! cargo run --release --example inspect -- PATH
//! ```
//!
//! Prints the architecture with its configuration, the tensors with their formats and sizes, the
//! estimated memory, and the tokenizer. Identical layers share a line; `--all` prints each tensor.

#[path = "cli/exit.rs"]
mod exit;
#[macro_use]
#[path = "cli/print.rs"]
mod print;

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

/// Lists the contents of a model folder or a .gguf file, without loading the weights.
#[derive(Parser)]
struct Args {
    /// A folder with config.json and model.safetensors, a .safetensors file or a .gguf file.
    path: PathBuf,
    /// Prints a line for each tensor.
    #[arg(long)]
    all: bool,
    /// The number of tokens of the memory estimate.
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

/// Returns the name with layer numbers replaced by `*`.
fn pattern(name: &str) -> String {
    let segments = name.split('.').map(|s| if s.bytes().all(|b| b.is_ascii_digit()) { "*" } else { s });
    segments.collect::<Vec<_>>().join(".")
}

fn print_config(config: &Value) {
    let name = config["model_type"].as_str().unwrap_or("unknown");
    print_line!("architecture  {name}");
    for (key, value) in config.as_object().into_iter().flatten() {
        if !matches!(key.as_str(), "model_type" | "architectures" | "id2label" | "label2id") && !value.is_null() {
            print_line!("  {key:32} {value}");
        }
    }
}

fn print_tensors(checkpoint: &Checkpoint, all: bool) {
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
    print_line!("\ntensors  {}", checkpoint.names().count());
    for ((name, what), (count, bytes)) in rows {
        let times = if count > 1 { format!("× {count}") } else { String::new() };
        print_line!("  {name:52} {what:28} {times:6} {:>10}", size(bytes));
    }
    print_line!("\nformats");
    for (format, (tensors, numbers, bytes)) in formats {
        print_line!("  {format:6} {tensors:6} tensors {numbers:14} numbers {:>12}", size(bytes));
    }
}

fn print_memory(checkpoint: &Checkpoint, config: &Value, tokens: usize) -> Result<()> {
    let formats = [
        ("as in the file", WeightFormat::Keep),
        ("f32", WeightFormat::F32),
        ("f16", WeightFormat::F16),
        ("bf16", WeightFormat::Bf16),
    ];
    print_line!("\nmemory");
    for (name, format) in formats {
        let need = estimate_of(checkpoint, config, &OpenOptions::default().weights(format))?;
        if format == WeightFormat::Keep {
            print_line!("  {:14} parameters", need.parameters);
            print_line!("  {:>14} of key/value cache per token", size(need.kv_cache_per_token));
            print_line!("  {:>14} of activations per prompt token", size(need.activations_per_token));
        }
        print_line!(
            "  weights {name:15} {:>10} allocated, {:>10} mapped from the file; {:>10} in total with {tokens} tokens",
            size(need.weights),
            size(need.mapped),
            size(need.total(tokens))
        );
    }
    Ok(())
}

fn print_tokenizer(args: &Args, checkpoint: &Checkpoint) {
    print_line!("\ntokenizer");
    if let Some(Ok(Some(vocabulary))) = checkpoint.gguf().map(GgmlVocabulary::read) {
        print_line!("  kind      {}, {}", vocabulary.model, vocabulary.pre.as_deref().unwrap_or("no pre-tokenizer"));
    }
    let tokenizer = match Tokenizer::open(&args.path) {
        Ok(tokenizer) => tokenizer,
        Err(error) => {
            print_line!("  none: {error}");
            return;
        }
    };
    print_line!("  tokens    {}", tokenizer.vocab_size());
    for role in Special::ALL {
        if let Some(id) = tokenizer.special(role) {
            print_line!("  {:9} {:?}, id {id}", role.key(), tokenizer.id_to_token(id).unwrap_or_default());
        }
    }
    print_line!("  template  {}", if tokenizer.chat_template().is_some() { "chat template" } else { "none" });
}

fn run(args: &Args) -> Result<()> {
    if !args.path.exists() {
        return Err(Error::Io { path: args.path.clone(), source: std::io::ErrorKind::NotFound.into() });
    }
    let checkpoint = open_checkpoint(&args.path, Load::Mmap)?;
    if let Some(gguf) = checkpoint.gguf() {
        let parts = if gguf.file_count() > 1 { format!(" in {} parts", gguf.file_count()) } else { String::new() };
        print_line!("file          GGUF version {}, {}{parts}", gguf.version(), size(gguf.bytes()));
        for (key, value) in gguf.metadata().filter(|(key, _)| key.starts_with("general.")) {
            print_line!("  {key:32} {value}");
        }
    }
    let config = read_config(&args.path);
    match &config {
        Ok(config) => print_config(config),
        Err(error) => {
            print_line!("architecture  unknown: {error}");
        }
    }
    print_tensors(&checkpoint, args.all);
    if let Ok(config) = &config
        && let Err(error) = print_memory(&checkpoint, config, args.tokens)
    {
        print_line!("  unknown: {error}");
    }
    print_tokenizer(args, &checkpoint);
    Ok(())
}

fn main() -> ExitCode {
    exit::exit(run(&Args::parse()))
}
