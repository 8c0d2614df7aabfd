//! Decoding and prompt processing, with random weights of the sizes of public models.
//!
//! `cargo bench -p loquat-benches --bench decode -- [MODEL] [WEIGHTS]` prints tokens per second,
//! and the rate of reading the weights as a fraction of the memory bandwidth; WEIGHTS may end in
//! `-packed` (`Module::keep_packed`). With `--serve` it reads lines
//! `model weights decode|prefill[-bf16] tokens` from standard input and prints the seconds per
//! token for each: `benches/report` runs it in turns with its peers. With
//! `--write FOLDER MODEL WEIGHTS` it writes the model as a folder that they can open.

mod limits;

use std::io::BufRead;
use std::time::Instant;

use loquat::checkpoint::{WeightFormat, save_pretrained};
use loquat::kernels::parallel;
use loquat::models::{CausalLm, Gpt2, Gpt2Config, LanguageModel, Llama, LlamaConfig};
use loquat::nn::{Init, Module, Parameter, ParameterSource};
use loquat::ops::{Precision, with_precision};
use loquat::{IdTensor, Tensor, no_grad};

const MODELS: [&str; 3] = ["gpt2-124m", "llama-110m", "llama-1b"];
const WEIGHTS: [&str; 3] = ["f32", "f16", "bf16"];
const PROMPT: usize = 32;

/// A fast source of uniform random numbers with a given standard deviation and format.
struct Random {
    state: u64,
    weights: WeightFormat,
}

impl Random {
    fn numbers(&mut self, shape: &[usize], init: Init) -> Vec<f32> {
        let (low, high) = match init {
            Init::Zeros => (0.0, 0.0),
            Init::Ones => (1.0, 1.0),
            Init::Normal { std } | Init::NormalExceptRow { std, .. } => (-1.732 * std, 1.732 * std),
            Init::Uniform { bound } => (-bound, bound),
        };
        let len: usize = shape.iter().product();
        let mut numbers = Vec::with_capacity(len);
        numbers.extend((0..len).map(|_| {
            self.state = self.state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let uniform = (self.state >> 40) as f32 / (1u64 << 24) as f32;
            low + (high - low) * uniform
        }));
        numbers
    }
}

impl ParameterSource for Random {
    fn parameter(&mut self, _: &str, shape: &[usize], init: Init) -> loquat::Result<Parameter> {
        Ok(Parameter::new(Tensor::from_vec(self.numbers(shape, init), shape)?))
    }

    fn weight(&mut self, path: &str, shape: &[usize], init: Init) -> loquat::Result<Parameter> {
        use loquat::tensor::Weight;
        Ok(Parameter::constant(match self.weights {
            WeightFormat::F16 => Weight::F32(Tensor::from_vec(self.numbers(shape, init), shape)?).to_f16(),
            WeightFormat::Bf16 => Weight::F32(Tensor::from_vec(self.numbers(shape, init), shape)?).to_bf16(),
            _ => return self.parameter(path, shape, init),
        }))
    }
}

/// Builds a model; `weights` may end in `-packed`.
fn build(name: &str, weights: &str) -> LanguageModel {
    if let Some(weights) = weights.strip_suffix("-packed") {
        let mut model = build(name, weights);
        model.keep_packed(true);
        return model;
    }
    let weights = match weights {
        "f32" => WeightFormat::F32,
        "f16" => WeightFormat::F16,
        "bf16" => WeightFormat::Bf16,
        other => panic!("expected f32, f16 or bf16, found `{other}`"),
    };
    let mut random = Random { state: 1, weights };
    let llama = |width, layers, inner, heads, kv_heads| {
        let mut config = LlamaConfig::new(32000, width, inner, layers, heads);
        (config.num_key_value_heads, config.tie_word_embeddings) = (Some(kv_heads), false);
        config
    };
    let config = match name {
        "gpt2-124m" => {
            let model = Gpt2::init(&Gpt2Config::new(50257, 1024, 768, 12, 12), &mut random);
            return LanguageModel::new(model.expect("valid sizes"));
        }
        "llama-110m" => llama(768, 12, 2048, 12, 4),
        "llama-1b" => llama(2048, 22, 5632, 32, 4),
        other => panic!("expected one of {MODELS:?}, found `{other}`"),
    };
    LanguageModel::new(Llama::init(&config, &mut random).expect("valid sizes"))
}

fn best(logits: &Tensor) -> u32 {
    let data = logits.data();
    (0..data.len()).fold(0, |best, i| if data[i] > data[best] { i } else { best }) as u32
}

/// The seconds per token of `tokens` greedy tokens after a prompt.
fn decode(model: &LanguageModel, tokens: usize, precision: Precision) -> f64 {
    let prompt: Vec<u32> = (0..PROMPT as u32).map(|i| 5 + 17 * i).collect();
    with_precision(precision, || {
        let mut state = model.new_state(1);
        let mut step = |ids: &[u32]| {
            best(&parallel::team(|| no_grad(|| model.decode(&IdTensor::sequence(ids), &mut state))).expect("ids fit"))
        };
        let mut id = step(&prompt);
        let start = Instant::now();
        for _ in 0..tokens {
            id = step(&[id]);
        }
        start.elapsed().as_secs_f64() / tokens as f64
    })
}

/// The seconds per token of a prompt, with logits for its last token.
fn prefill(model: &LanguageModel, tokens: usize, precision: Precision) -> f64 {
    let prompt: Vec<u32> = (0..tokens as u32).map(|i| 5 + 17 * i % 31000).collect();
    let start = Instant::now();
    let read = || model.decode(&IdTensor::sequence(&prompt), &mut model.new_state(1));
    let run = || parallel::team(|| no_grad(read));
    let logits = with_precision(precision, run).expect("ids fit");
    std::hint::black_box(best(&logits));
    start.elapsed().as_secs_f64() / tokens as f64
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args[..] {
        ["--serve"] => return serve(),
        ["--write", folder, model, weights] => {
            return save_pretrained(folder, &build(model, weights)).expect("the folder can be written");
        }
        _ => {}
    }
    println!("{} threads", parallel::threads());
    for name in MODELS {
        for weights in args.get(1).map_or(&WEIGHTS[..], std::slice::from_ref) {
            if args.first().is_some_and(|&a| a != name) {
                continue;
            }
            let model = build(name, weights);
            let parameters = model.parameters();
            let skipped = |path: &str| path.ends_with("embed_tokens.weight") || path.ends_with("wpe.weight");
            let read = parameters.iter().filter(|(path, _)| !skipped(path)).map(|(_, p)| p.weight().bytes());
            let bytes = read.sum::<usize>() as f64;
            decode(&model, 4, Precision::F32);
            for _ in 0..3 {
                let limit = limits::read(1 << 28);
                let time = decode(&model, if name == "llama-1b" { 32 } else { 128 }, Precision::F32);
                let rate = bytes / time / 1e9;
                println!(
                    "{name} {weights}: decode {:.1} tokens/s, weights at {rate:.1} of {limit:.1} GB/s, {:.0} %",
                    1.0 / time,
                    100.0 * rate / limit
                );
            }
            for precision in [Precision::F32, Precision::Bf16] {
                prefill(&model, 64, precision);
                let time = prefill(&model, 512, precision).min(prefill(&model, 512, precision));
                println!("{name} {weights}: prefill {:.0} tokens/s in {precision:?}", 1.0 / time);
            }
        }
    }
}

fn serve() {
    let mut last: Option<(String, LanguageModel)> = None;
    for line in std::io::stdin().lock().lines() {
        let line = line.expect("the standard input is text");
        let words: Vec<&str> = line.split(' ').collect();
        let time = match words[..] {
            ["limit_read"] => 1e-9 / limits::read(1 << 28),
            [name, weights, what, tokens] => {
                let key = format!("{name} {weights}");
                if last.as_ref().is_none_or(|(old, _)| *old != key) {
                    drop(last.take());
                    last = Some((key, build(name, weights)));
                }
                let (_, model) = last.as_ref().expect("made above");
                let tokens = tokens.parse().expect("a number of tokens");
                let (what, precision) = match what.strip_suffix("-bf16") {
                    Some(what) => (what, Precision::Bf16),
                    None => (what, Precision::F32),
                };
                match what {
                    "decode" => decode(model, tokens, precision),
                    "prefill" => prefill(model, tokens, precision),
                    other => panic!("expected decode or prefill, with `-bf16` or without, found `{other}`"),
                }
            }
            _ => panic!("expected `model weights decode|prefill[-bf16] tokens`, found `{line}`"),
        };
        println!("{time:e}");
    }
}
