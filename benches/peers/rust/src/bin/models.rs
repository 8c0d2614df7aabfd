//! candle's Llama and BERT, for `benches/report`: reads lines from standard input and prints
//! seconds for each.
//!
//! `models llama FOLDER`: `decode N` (seconds per greedy token, of N after a prompt of 32 tokens)
//! or `prefill N` (seconds per token of a prompt of N). `models bert FOLDER`: `TEXTS LENGTH`, from
//! token ids to normalised means, 32 texts at a time.

use std::io::BufRead;
use std::time::Instant;

use candle_core::{DType, Device, Result, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models::{bert, llama};

const DEVICE: Device = Device::Cpu;

fn weights(folder: &str) -> Result<VarBuilder<'static>> {
    // SAFETY: no program writes to the file at the same time.
    unsafe { VarBuilder::from_mmaped_safetensors(&[format!("{folder}/model.safetensors")], DType::F32, &DEVICE) }
}

fn config(folder: &str) -> serde_json::Value {
    let text = std::fs::read_to_string(format!("{folder}/config.json")).expect("a folder with config.json");
    serde_json::from_str(&text).expect("JSON")
}

fn answer(mut seconds: impl FnMut(&[&str]) -> Result<f64>) -> Result<()> {
    for line in std::io::stdin().lock().lines() {
        let line = line.expect("the standard input is text");
        println!("{:e}", seconds(&line.split(' ').collect::<Vec<_>>())?);
    }
    Ok(())
}

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let folder = args.get(1).expect("llama|bert FOLDER");
    let number = |word: &str| word.parse::<usize>().expect("a number");
    if args[0] == "bert" {
        let config: bert::Config = serde_json::from_value(config(folder)).expect("a BERT's configuration");
        let model = bert::BertModel::load(weights(folder)?, &config)?;
        return answer(|words| {
            let (texts, len) = (number(words[0]), number(words[1]));
            let ids: Vec<u32> = (0..texts * len).map(|i| 1000 + (i * 7919 % 28000) as u32).collect();
            let ids = Tensor::from_vec(ids, (texts, len), &DEVICE)?;
            let start = Instant::now();
            for first in (0..texts).step_by(32) {
                let batch = ids.narrow(0, first, 32.min(texts - first))?.contiguous()?;
                let hidden = model.forward(&batch, &batch.zeros_like()?, Some(&batch.ones_like()?))?;
                let mean = hidden.mean(1)?;
                let unit = mean.broadcast_div(&mean.sqr()?.sum_keepdim(1)?.sqrt()?)?;
                std::hint::black_box(unit.sum_all()?.to_scalar::<f32>()?);
            }
            Ok(start.elapsed().as_secs_f64())
        });
    }
    let mut config = config(folder);
    config["rope_scaling"] = serde_json::Value::Null;
    config["rope_theta"] = 10000.0.into();
    let config: llama::LlamaConfig = serde_json::from_value(config).expect("a Llama's configuration");
    let config = config.into_config(false);
    let model = llama::Llama::load(weights(folder)?, &config)?;
    answer(|words| {
        let tokens = number(words[1]);
        let mut cache = llama::Cache::new(true, DType::F32, &config, &DEVICE)?;
        let mut position = 0;
        let mut step = |ids: &[u32]| -> Result<u32> {
            let logits = model.forward(&Tensor::new(ids, &DEVICE)?.unsqueeze(0)?, position, &mut cache)?;
            position += ids.len();
            logits.flatten_all()?.argmax(0)?.to_scalar()
        };
        let prompt = |len: usize| (0..len as u32).map(|i| 5 + 17 * i % 31000).collect::<Vec<_>>();
        let start = Instant::now();
        if words[0] == "prefill" {
            step(&prompt(tokens))?;
            return Ok(start.elapsed().as_secs_f64() / tokens as f64);
        }
        let mut id = step(&prompt(32))?;
        let start = Instant::now();
        for _ in 0..tokens {
            id = step(&[id])?;
        }
        Ok(start.elapsed().as_secs_f64() / tokens as f64)
    })
}
