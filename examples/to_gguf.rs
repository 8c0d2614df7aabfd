//! Converts a model folder to a `.gguf` file, which llama.cpp opens.
//!
//! ```sh
//! cargo run --release --example to_gguf -- --model DIR --output MODEL.gguf --format q8_0
//! ```
//!
//! Supports GPT-2, GPT-NeoX, Llama, Mistral, Qwen2 and Qwen3. Prints the number of tensors and the
//! size of the file.

#[path = "cli/exit.rs"]
mod exit;
#[macro_use]
#[path = "cli/print.rs"]
mod print;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use loquat::checkpoint::gguf::{GgufFile, GgufFormat};
use loquat::models::{LanguageModel, save_gguf_with};
use loquat::progress::ProgressReporter;
use loquat::text::Tokenizer;
use loquat::{Error, GenerationConfig, Load, Result};

/// Converts a model to a .gguf file with its tokenizer and its end tokens. Other generation
/// settings are not written.
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
    // GGUF has keys for three end tokens, and none for other generation settings.
    for id in GenerationConfig::open(&args.model)?.eos_token_ids {
        let ends = ["eos", "eot", "eom"];
        if ends.iter().any(|role| vocabulary.role(role) == Some(id)) {
            continue;
        }
        let Some(free) = ends.iter().find(|role| vocabulary.role(role).is_none()) else {
            let expected = "at most 3 end tokens with the tokenizer's (GGUF has no key for more)";
            let name = "eos_token_id of generation_config.json".to_string();
            return Err(Error::Argument { name, expected: expected.to_string(), found: format!("{id} in addition") });
        };
        vocabulary.roles.push((free.to_string(), id));
    }
    let format = match args.format {
        Format::F32 => GgufFormat::F32,
        Format::F16 => GgufFormat::F16,
        Format::Q8_0 => GgufFormat::Q8_0,
    };
    let mut progress = ProgressReporter::new("bytes");
    save_gguf_with(&args.output, &model, Some(&vocabulary), format, &mut |written, all| {
        let _ = progress.update(written, Some(all), "writing");
    })?;
    drop(progress);
    let file = GgufFile::open(&args.output, Load::Mmap)?;
    print_line!("{}: {} tensors, {} bytes", args.output.display(), file.tensors().len(), file.bytes());
    Ok(())
}

fn main() -> ExitCode {
    exit::exit(run(&Args::parse()))
}
