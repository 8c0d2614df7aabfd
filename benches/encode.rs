//! Sentences per second through all-MiniLM-L6-v2, from token ids to normalised means: 512 of 32
//! tokens and 64 of 256.
//!
//! ```sh
//! LOQUAT_MINILM=DIR cargo bench -p loquat-benches --bench encode     # a table
//! benches/report --rows vectors/minilm --minilm DIR                  # in turns with its peers
//! ```
//!
//! `-packed` means `Module::keep_packed`. With `--serve` it reads lines `f32 512 32` (precision,
//! texts, tokens) from standard input and prints the seconds for each. Without the folder of the
//! model it uses random weights of the same sizes.

use std::io::BufRead as _;
use std::time::Instant;

use loquat::kernels::parallel;
use loquat::models::encoder::{BertConfig, EncoderConfig, TextEncoder};
use loquat::nn::Module as _;
use loquat::ops::{Precision, with_precision};
use loquat::{IdTensor, Rng, no_grad};

/// Tokens per forward pass, as in `SentenceEncoder`.
const TOKENS: usize = 512;

fn model() -> TextEncoder {
    match std::env::var_os("LOQUAT_MINILM") {
        Some(folder) => TextEncoder::open(folder).expect("LOQUAT_MINILM is the folder of an encoder"),
        None => {
            let config = EncoderConfig::from(BertConfig::new(30522, 384, 6, 12, 1536));
            TextEncoder::init(&config, false, &mut Rng::seed(1)).expect("valid sizes")
        }
    }
}

/// The seconds for `texts` texts of `len` tokens.
fn run(model: &TextEncoder, precision: Precision, texts: usize, len: usize) -> f64 {
    let start = Instant::now();
    let mut sum = 0.0;
    let at_once = (TOKENS / len).max(1);
    for first in (0..texts).step_by(at_once) {
        let count = at_once.min(texts - first);
        let ids: Vec<u32> = (0..count * len).map(|i| (1000 + (first * len + i) * 7919 % 28000) as u32).collect();
        let ids = IdTensor::new(ids, &[count * len]).expect("one axis");
        let lengths = vec![len; count];
        let hidden = with_precision(precision, || no_grad(|| model.forward_ragged(&ids, None, &lengths)));
        let hidden = hidden.expect("ids of the vocabulary");
        let width = hidden.shape()[1];
        for text in hidden.data().chunks_exact(len * width) {
            let mut mean = vec![0.0f32; width];
            for row in text.chunks_exact(width) {
                mean.iter_mut().zip(row).for_each(|(m, x)| *m += x);
            }
            let norm = mean.iter().map(|m| m * m).sum::<f32>().sqrt();
            sum += mean[0] / norm;
        }
    }
    assert!(f32::is_finite(sum));
    start.elapsed().as_secs_f64()
}

fn precision(name: &str) -> Precision {
    if name == "bf16" { Precision::Bf16 } else { Precision::F32 }
}

fn main() {
    let models = [false, true].map(|packed| {
        let mut model = model();
        model.keep_packed(packed);
        model
    });
    let run = |name: &str, texts, len| {
        let packed = name.ends_with("-packed");
        let model = &models[usize::from(packed)];
        parallel::team(|| run(model, precision(name.trim_end_matches("-packed")), texts, len))
    };
    if std::env::args().any(|arg| arg == "--serve") {
        for line in std::io::stdin().lock().lines() {
            let line = line.expect("the standard input is text");
            let words: Vec<&str> = line.split(' ').collect();
            let number = |i: usize| words[i].parse().expect("a number");
            println!("{:e}", run(words[0], number(1), number(2)));
        }
        return;
    }
    for name in ["f32", "f32-packed", "bf16", "bf16-packed"] {
        for (texts, len) in [(512, 32), (64, 256)] {
            run(name, texts.min(64), len);
            let mut seconds: Vec<f64> = (0..3).map(|_| run(name, texts, len)).collect();
            seconds.sort_by(f64::total_cmp);
            println!("{name} {texts} x {len}: {:.1} sentences/s", texts as f64 / seconds[1]);
        }
    }
}
