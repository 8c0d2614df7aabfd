//! A training step of a character GPT: forward, backward, clipping, AdamW. Milliseconds, tokens per
//! second, and the fraction of the multiply–add limit.
//!
//! `cargo bench -p loquat-benches --bench train_step` runs criterion. With `--serve` it reads lines
//! `recipe precision` from standard input and prints the seconds of a step for each:
//! `benches/report` runs it in turns with its peers.

mod limits;

use std::io::BufRead;
use std::time::Duration;

use criterion::{Criterion, Throughput};
use loquat::kernels::parallel;
use loquat::kernels::simd;
use loquat::models::{CausalLm, Gpt2, Gpt2Config};
use loquat::nn::{Module, train_mode};
use loquat::ops::{Precision, cross_entropy, with_precision};
use loquat::training::{AdamW, Optimizer, ParameterGroup};
use loquat::{IdTensor, Rng};

const VOCABULARY: usize = 65;

/// The sizes of a character model of nanoGPT.
struct Recipe {
    name: &'static str,
    layers: usize,
    heads: usize,
    dim: usize,
    context: usize,
    batch: usize,
    dropout: f64,
}

const RECIPES: [Recipe; 3] = [
    Recipe { name: "cpu", layers: 4, heads: 4, dim: 128, context: 64, batch: 12, dropout: 0.0 },
    Recipe { name: "small", layers: 6, heads: 6, dim: 384, context: 256, batch: 12, dropout: 0.0 },
    Recipe { name: "gpu", layers: 6, heads: 6, dim: 384, context: 256, batch: 64, dropout: 0.2 },
];

struct Run {
    recipe: &'static Recipe,
    model: Gpt2,
    optimizer: Optimizer,
    ids: IdTensor,
    labels: IdTensor,
    rng: Rng,
}

impl Run {
    fn new(recipe: &'static Recipe) -> Self {
        let mut rng = Rng::seed(1);
        let Recipe { layers, heads, dim, context, batch, dropout, .. } = *recipe;
        let config = Gpt2Config::new(VOCABULARY, context, dim, layers, heads).dropout(dropout);
        let model = Gpt2::init(&config, &mut rng).expect("the sizes fit each other");
        let adam = AdamW { lr: 1e-3, betas: (0.9, 0.99), weight_decay: 0.1, ..AdamW::default() };
        let optimizer = Optimizer::new(adam)
            .and_then(|o| o.group(ParameterGroup::biases_and_norms().weight_decay(0.0)))
            .expect("the settings are in range");
        let rows = |step: u32| -> Vec<Vec<u32>> {
            let row = |b: u32| (0..context as u32).map(|i| (b * 31 + i * step + i / 3) % VOCABULARY as u32).collect();
            (0..batch as u32).map(row).collect()
        };
        let [ids, labels] = [7, 11].map(|step| IdTensor::batch(&rows(step)).expect("rows of one length"));
        Self { recipe, model, optimizer, ids, labels, rng }
    }

    fn tokens(&self) -> usize {
        self.recipe.context * self.recipe.batch
    }

    /// Twice the number of multiply–adds of the products, forward and backward, and of causal
    /// attention.
    fn flops(&self) -> f64 {
        let Recipe { layers, dim, context, .. } = *self.recipe;
        let products = (12 * layers * dim * dim + VOCABULARY * dim) as f64;
        self.tokens() as f64 * (6.0 * products + 7.0 * (layers * dim * context) as f64)
    }

    fn step(&mut self, precision: Precision) {
        let Self { model, optimizer, ids, labels, rng, .. } = self;
        let forward = || with_precision(precision, || cross_entropy(&model.forward(ids)?, labels));
        let gradients = train_mode(rng, forward).and_then(|loss| loss.backward()).expect("shapes and ids fit");
        let scale = (1.0 / gradients.norm()).min(1.0) as f32;
        optimizer.step_scaled(model, &gradients, scale).expect("every parameter has a gradient");
    }
}

fn precision(name: &str) -> Precision {
    match name {
        "f32" => Precision::F32,
        "bf16" => Precision::Bf16,
        other => panic!("expected f32 or bf16, found `{other}`"),
    }
}

fn main() {
    if std::env::args().any(|arg| arg == "--serve") {
        return serve();
    }
    let mut criterion = Criterion::default().configure_from_args().sample_size(10);
    println!("{} threads, {:?}", parallel::threads(), simd::level());
    let mut group = criterion.benchmark_group("train_step");
    for recipe in &RECIPES {
        let mut run = Run::new(recipe);
        group.throughput(Throughput::Elements(run.tokens() as u64));
        for name in ["f32", "bf16"] {
            let limit = limits::fma();
            let mut best = f64::INFINITY;
            group.bench_function(
                format!("{} {name}, {} parameters", recipe.name, run.model.parameter_count()),
                |bencher| {
                    bencher.iter_custom(|calls| {
                        let start = std::time::Instant::now();
                        parallel::team(|| (0..calls).for_each(|_| run.step(precision(name))));
                        best = best.min(start.elapsed().as_secs_f64() / calls as f64);
                        start.elapsed()
                    });
                },
            );
            if best.is_finite() {
                let (rate, tokens) = (run.flops() / best / 1e9, run.tokens() as f64 / best);
                let share = 100.0 * rate / limit;
                println!(
                    "{} {name}: {rate:.0} GFLOP/s, {share:.0} % of the f32 limit, {tokens:.0} tokens/s",
                    recipe.name
                );
            }
        }
    }
    group.finish();
    criterion.final_summary();
}

fn serve() {
    let mut run: Option<Run> = None;
    for line in std::io::stdin().lock().lines() {
        let line = line.expect("the standard input is text");
        let words: Vec<&str> = line.split(' ').collect();
        let answer = match words[..] {
            ["limit_fma"] => 1e-9 / limits::fma(),
            ["flops", name] => Run::new(recipe(name)).flops(),
            [name, in_precision] => {
                if run.as_ref().is_none_or(|run| run.recipe.name != name) {
                    drop(run.take());
                    run = Some(Run::new(recipe(name)));
                }
                let run = run.as_mut().expect("made above");
                let step = || run.step(precision(in_precision));
                parallel::team(|| limits::seconds(Duration::from_millis(500), step))
            }
            _ => panic!("expected `recipe precision`, found `{line}`"),
        };
        println!("{answer:e}");
    }
}

fn recipe(name: &str) -> &'static Recipe {
    RECIPES.iter().find(|recipe| recipe.name == name).unwrap_or_else(|| panic!("no recipe `{name}`"))
}
