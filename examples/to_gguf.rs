//! Writes a model folder as a `.gguf` file, which llama.cpp opens.
//!
//! ```sh
//! cargo run --release --example to_gguf -- --model DIR --output MODEL.gguf --format q8_0
//! ```
//!
//! Takes GPT-2, GPT-NeoX, Llama, Mistral, Qwen2 and Qwen3; prints what was written.

#[macro_use]
#[path = "cli/say.rs"]
mod say;
#[path = "cli/exit.rs"]
mod exit;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use loquat::checkpoint::gguf::{GgufFile, GgufFormat};
use loquat::models::{LanguageModel, save_gguf};
use loquat::text::Tokenizer;
use loquat::{Error, GenerationConfig, Load, Result};

/// Converts a model to a .gguf file with its tokenizer and end tokens. Other generation settings are
/// not kept.
#[derive(Parser)]
struct Args {
    /// A folder with config.json, model.safetensors and tokenizer.json, or a .gguf file.
    #[arg(long)]
    model: PathBuf,
    /// The file to write.
    #[arg(long)]
    output: PathBuf,
    /// The format of the matrices.
    #[arg(long, value_enum, default_value_t = Format::F16)]
    format: Format,
}

#[derive(Clone, Copy, ValueEnum)]
enum Format {
    F32,
    F16,
    #[value(name = "q8_0")]
    Q8_0,
}

fn run(args: &Args) -> Result<()> {
    let model = LanguageModel::open(&args.model)?;
    let mut vocabulary = Tokenizer::open(&args.model)?.to_ggml()?;
    // GGUF has three places for tokens that end a text, and none for other settings of generation.
    for id in GenerationConfig::open(&args.model)?.eos_token_ids {
        let ends = ["eos", "eot", "eom"];
        if ends.iter().any(|role| vocabulary.role(role) == Some(id)) {
            continue;
        }
        let Some(free) = ends.iter().find(|role| vocabulary.role(role).is_none()) else {
            let expected = "at most 3 with the tokenizer's, as GGUF has no place for more";
            let name = "eos_token_id of generation_config.json".to_string();
            return Err(Error::Argument { name, expected: expected.to_string(), found: format!("{id} as well") });
        };
        vocabulary.roles.push((free.to_string(), id));
    }
    let format = match args.format {
        Format::F32 => GgufFormat::F32,
        Format::F16 => GgufFormat::F16,
        Format::Q8_0 => GgufFormat::Q8_0,
    };
    save_gguf(&args.output, &model, Some(&vocabulary), format)?;
    let file = GgufFile::open(&args.output, Load::Mmap)?;
    say!("{}: {} tensors, {} bytes", args.output.display(), file.tensors().len(), file.bytes());
    Ok(())
}

fn main() -> ExitCode {
    exit::exit(run(&Args::parse()))
}
