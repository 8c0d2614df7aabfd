//! Draws the attention of a model on a text, as SVG.
//!
//! ```sh
//! cargo run --release --example attention -- --model DIR --text "the cat sat" --out MAP.svg
//! cargo run --release --example attention -- --model DIR --text "the cat sat" --out HEAD.svg \
//!     --layers 3 --heads 0
//! ```
//!
//! Needs a model folder with `config.json`, `model.safetensors` and a tokenizer, or a `.gguf` file,
//! of a language model or an encoder. The map has a row for each layer and a column for each head.
//! One head alone is drawn large, with the tokens on both axes.

#[path = "cli/exit.rs"]
mod exit;
#[path = "plot/heat.rs"]
mod heat;
#[allow(dead_code)]
mod plot;
#[macro_use]
#[path = "cli/print.rs"]
mod print;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

use heat::Head;
use loquat::models::encoder::{EncoderConfig, TextBatch, TextEncoder};
use loquat::models::{CausalLm, LanguageModel, read_config};
use loquat::text::Tokenizer;
use loquat::{Capture, Error, IdTensor, Result, Tensor, inspect, no_grad};

/// Draws the attention of a model on a text, as SVG.
#[derive(Parser)]
struct Args {
    /// The model folder, or a .gguf file.
    #[arg(long)]
    model: PathBuf,
    /// The input text.
    #[arg(long)]
    text: String,
    /// The SVG file to write.
    #[arg(long)]
    out: PathBuf,
    /// The layers to draw, counted from 0, separated by commas. Default: all.
    #[arg(long, value_delimiter = ',')]
    layers: Option<Vec<usize>>,
    /// The heads to draw, counted from 0, separated by commas. Default: all.
    #[arg(long, value_delimiter = ',')]
    heads: Option<Vec<usize>>,
}

/// Returns the path and the attention probabilities `[1, heads, tokens, tokens]` of each layer.
fn attention(args: &Args, ids: &IdTensor) -> Result<Vec<(String, Tensor)>> {
    let config = read_config(&args.model)?;
    let encoder = config["model_type"].as_str().is_some_and(EncoderConfig::supports);
    let (result, seen) = if encoder {
        let model = TextEncoder::open(&args.model)?;
        inspect(Capture::Attention, || no_grad(|| model.forward(&TextBatch::new(ids))))
    } else {
        let model = LanguageModel::open(&args.model)?;
        inspect(Capture::Attention, || no_grad(|| model.forward(ids)))
    };
    result?;
    Ok(seen.attention)
}

fn argument(name: &str, expected: String, found: impl std::fmt::Display) -> Error {
    Error::Argument { name: name.into(), expected, found: found.to_string() }
}

/// Returns the selected indices below `count`. Default: all.
fn selected(name: &str, indices: &Option<Vec<usize>>, count: usize) -> Result<Vec<usize>> {
    let indices = indices.clone().unwrap_or((0..count).collect());
    match indices.iter().find(|&&i| i >= count) {
        Some(i) => Err(argument(name, format!("numbers below {count}"), i)),
        None => Ok(indices),
    }
}

/// The largest number of squares in a picture: viewers do not open larger files.
const MAX_SQUARES: usize = 4_000_000;

fn run(args: &Args) -> Result<()> {
    let tokenizer = Tokenizer::open(&args.model)?;
    let ids = tokenizer.encode(args.text.as_str())?.input_ids;
    if ids.is_empty() {
        return Err(argument("--text", "at least one token".into(), "none"));
    }
    let seen = attention(args, &IdTensor::sequence(&ids))?;
    let n_heads = seen.first().map_or(0, |(_, probs)| probs.shape()[1]);
    if n_heads == 0 {
        return Err(argument("--model", "a model with attention".into(), "one without"));
    }
    let layers = selected("--layers", &args.layers, seen.len())?;
    let heads = selected("--heads", &args.heads, n_heads)?;
    let n = ids.len();
    let squares = layers.len() * heads.len() * n * n;
    if squares > MAX_SQUARES {
        return Err(argument("text, layers and heads", format!("at most {MAX_SQUARES} squares"), squares));
    }
    let token = |&id: &u32| {
        let token = tokenizer.decode_with_special(&[id])?;
        // White space is a token as well.
        Ok(if token.trim().is_empty() { token.replace(' ', "␣").replace('\n', "⏎") } else { token.trim().into() })
    };
    let tokens = ids.iter().map(token).collect::<Result<Vec<String>>>()?;
    let rows: Vec<Vec<Head<'_>>> = layers
        .iter()
        .map(|&layer| {
            let (path, probs) = &seen[layer];
            let head = |&head: &usize| Head { layer, head, path, probs: &probs.data()[head * n * n..][..n * n] };
            heads.iter().map(head).collect()
        })
        .collect();
    let saved = match &rows[..] {
        [heads] if heads.len() == 1 => heat::save_head(&heads[0], &tokens, &args.out),
        _ => heat::save_map(&rows, &tokens, &args.out),
    };
    saved.map_err(|source| Error::Io { path: args.out.clone(), source })?;
    print_line!("{} layers × {} heads, {n} tokens: {}", layers.len(), heads.len(), args.out.display());
    Ok(())
}

fn main() -> ExitCode {
    exit::exit(run(&Args::parse()))
}
