//! A picture of where a model looks: the attention of each layer and head on a text.
//!
//! ```sh
//! cargo run --release --example attention -- --model DIR --text "the cat sat on the mat" --out HEATMAP.svg
//! cargo run --release --example attention -- --model DIR --text "the cat sat" --out HEATMAP.svg --layers 0,1 --heads 3
//! ```
//!
//! Needs a folder with `config.json`, `model.safetensors` and a tokenizer: a language model's or an encoder's. A row of small pictures is
//! a layer, a column a head; in each, rows are the tokens that look and columns those that are looked at, and darker is more. Pictures of
//! few heads get the tokens written beside them.

#[macro_use]
#[path = "cli/say.rs"]
mod say;
#[path = "cli/exit.rs"]
mod exit;

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

use loquat::models::encoder::{EncoderConfig, TextBatch, TextEncoder};
use loquat::models::{CausalLm, LanguageModel, read_config};
use loquat::text::Tokenizer;
use loquat::{Capture, Error, IdTensor, Result, Tensor, inspect, no_grad};

/// A picture of where a model looks.
#[derive(Parser)]
struct Args {
    /// The model's folder.
    #[arg(long)]
    model: PathBuf,
    /// The text to read.
    #[arg(long)]
    text: String,
    /// The picture to write.
    #[arg(long)]
    out: PathBuf,
    /// Only these layers, counted from 0, separated by commas.
    #[arg(long, value_delimiter = ',')]
    layers: Option<Vec<usize>>,
    /// Only these heads, counted from 0, separated by commas.
    #[arg(long, value_delimiter = ',')]
    heads: Option<Vec<usize>>,
}

/// The attention `[1, heads, tokens, tokens]` of each layer.
fn look(args: &Args, ids: &IdTensor) -> Result<Vec<(String, Tensor)>> {
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

/// The chosen of `count`, or all.
fn chosen(name: &str, wanted: &Option<Vec<usize>>, count: usize) -> Result<Vec<usize>> {
    let wanted = wanted.clone().unwrap_or((0..count).collect());
    match wanted.iter().find(|&&i| i >= count) {
        Some(i) => Err(argument(name, format!("numbers below {count}"), i)),
        None => Ok(wanted),
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// Squares in all pictures together: more make a file that no viewer opens.
const MAX_SQUARES: usize = 4_000_000;

fn run(args: &Args) -> Result<()> {
    let tokenizer = Tokenizer::open(&args.model)?;
    let ids = tokenizer.encode(args.text.as_str())?.input_ids;
    if ids.is_empty() {
        return Err(argument("--text", "at least one token".into(), "none"));
    }
    let seen = look(args, &IdTensor::sequence(&ids))?;
    let n_heads = seen.first().map_or(0, |(_, probs)| probs.shape()[1]);
    if n_heads == 0 {
        return Err(argument("--model", "a model with attention".into(), "one without"));
    }
    let layers = chosen("--layers", &args.layers, seen.len())?;
    let heads = chosen("--heads", &args.heads, n_heads)?;
    let n = ids.len();
    let squares = layers.len() * heads.len() * n * n;
    if squares > MAX_SQUARES {
        return Err(argument("text, layers and heads", format!("at most {MAX_SQUARES} squares"), squares));
    }
    let tokens = ids.iter().map(|&id| tokenizer.decode_with_special(&[id])).collect::<Result<Vec<_>>>()?;
    // Tokens are written where there is room for them.
    let labelled = heads.len() <= 4 && n <= 64;
    let square = if labelled { 12 } else { (120 / n).clamp(1, 12) };
    let (margin, title) = (if labelled { 90 } else { 10 }, 16);
    let (width, height) = (n * square + margin, n * square + margin + title);
    let (total_width, total_height) = (width * heads.len() + 10, height * layers.len() + 10);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{total_width}\" height=\"{total_height}\" \
         font-family=\"sans-serif\" font-size=\"9\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    for (row, &layer) in layers.iter().enumerate() {
        let (path, probs) = &seen[layer];
        for (column, &head) in heads.iter().enumerate() {
            let (x, y) = (column * width + margin, row * height + margin + title);
            let size = n * square;
            let _ = writeln!(svg, "<g transform=\"translate({x} {y})\">");
            let name = escaped(path);
            let _ = writeln!(svg, "<title>{name}, head {head}</title>");
            let above = if labelled { margin } else { 4 };
            let _ = writeln!(svg, "<text x=\"0\" y=\"-{above}\">{layer}.{head}</text>");
            let _ = writeln!(svg, "<rect width=\"{size}\" height=\"{size}\" fill=\"none\" stroke=\"#ccc\"/>");
            for i in 0..n * n {
                let p = probs.data()[head * n * n + i];
                if p >= 0.004 {
                    let (x, y) = (i % n * square, i / n * square);
                    let _ = writeln!(
                        svg,
                        "<rect x=\"{x}\" y=\"{y}\" width=\"{square}\" height=\"{square}\" fill=\"#08306b\" \
                         fill-opacity=\"{p:.3}\"/>"
                    );
                }
            }
            for (i, token) in tokens.iter().enumerate().filter(|_| labelled) {
                let (token, at) = (escaped(token.trim()), i * square + 9);
                let _ = writeln!(svg, "<text x=\"-4\" y=\"{at}\" text-anchor=\"end\">{token}</text>");
                let _ = writeln!(svg, "<text transform=\"translate({at} -4) rotate(-90)\">{token}</text>");
            }
            svg += "</g>\n";
        }
    }
    svg += "</svg>\n";
    std::fs::write(&args.out, svg).map_err(|source| Error::Io { path: args.out.clone(), source })?;
    say!("{} layers x {} heads of {n} tokens: {}", layers.len(), heads.len(), args.out.display());
    Ok(())
}

fn main() -> ExitCode {
    exit::exit(run(&Args::parse()))
}
