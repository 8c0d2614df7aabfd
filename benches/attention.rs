//! Attention: milliseconds, GFLOP/s and the fraction of the multiply–add limit; 8 heads of 64,
//! causal.
//!
//! `cargo bench -p loquat-benches --bench attention` runs criterion. With `--serve` it reads lines
//! `what length` from standard input and prints the seconds of one call for each: `benches/report`
//! runs it in turns with its peers.

mod limits;

use std::io::BufRead;
use std::time::Duration;

use criterion::{Criterion, Throughput};
use loquat::kernels::attention::{AttentionShape, Heads, HeadsMut, attention, attention_backward};
use loquat::kernels::parallel;
use loquat::kernels::simd;

const HEADS: usize = 8;
const DIM: usize = 64;
const LENGTHS: [usize; 3] = [128, 1024, 4096];
/// The forward pass, forward and backward, and one query over a cache of the given length.
const WHAT: [&str; 3] = ["forward", "both", "one"];

struct Arrays {
    length: usize,
    inputs: [Vec<f32>; 4],
    outputs: [Vec<f32>; 4],
    lse: Vec<f32>,
}

impl Arrays {
    fn new(length: usize) -> Self {
        let wave = |step: f32| (0..length * HEADS * DIM).map(|i| (i as f32 * step).sin()).collect::<Vec<f32>>();
        let zeros = || vec![0.0; length * HEADS * DIM];
        Arrays {
            length,
            inputs: [wave(0.731), wave(0.0917), wave(0.0371), wave(0.513)],
            outputs: [zeros(), zeros(), zeros(), zeros()],
            lse: vec![0.0; HEADS * length],
        }
    }

    fn run(&mut self, what: &str) {
        let length = self.length;
        let view = |x| Heads::rows(x, length, HEADS, DIM);
        let [query, key, value, dout] = self.inputs.each_ref().map(|x| view(&x[..]));
        let [out, dquery, dkey, dvalue] = &mut self.outputs;
        let [dquery, dkey, dvalue] = [dquery, dkey, dvalue].map(|x| HeadsMut::rows(x, length, HEADS, DIM));
        if what == "one" {
            let shape = AttentionShape { causal: true, ..AttentionShape::new(1, HEADS, 1, length, DIM) };
            let (query, out) = (Heads::rows(&self.inputs[0], 1, HEADS, DIM), HeadsMut::rows(out, 1, HEADS, DIM));
            return attention(&shape, query, key, value, out, None);
        }
        let shape = AttentionShape { causal: true, ..AttentionShape::new(1, HEADS, length, length, DIM) };
        attention(&shape, query, key, value, HeadsMut::rows(out, length, HEADS, DIM), Some(&mut self.lse));
        if what == "both" {
            attention_backward(&shape, dout, query, key, value, view(out), &self.lse, dquery, dkey, dvalue);
        }
    }
}

/// Twice the number of multiply–adds of the scores that a causal mask keeps.
fn flops(what: &str, length: usize) -> f64 {
    let scores = (HEADS * DIM) as f64 * length as f64 * (length + 1) as f64 / 2.0;
    match what {
        "forward" => 4.0 * scores,
        "both" => 14.0 * scores,
        _ => 4.0 * (HEADS * DIM * length) as f64,
    }
}

fn main() {
    if std::env::args().any(|arg| arg == "--serve") {
        return serve();
    }
    let mut criterion = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(100))
        .measurement_time(Duration::from_millis(500))
        .without_plots()
        .configure_from_args();
    eprintln!("{:?}, {} threads", simd::level(), parallel::threads());
    for length in LENGTHS {
        let limit = limits::fma();
        let mut arrays = Arrays::new(length);
        let mut group = criterion.benchmark_group(format!("attention/{length}"));
        for what in WHAT {
            group.throughput(Throughput::Elements(flops(what, length) as u64));
            let mut best = f64::INFINITY;
            group.bench_function(what, |bencher| {
                bencher.iter_custom(|calls| {
                    let start = std::time::Instant::now();
                    parallel::team(|| (0..calls).for_each(|_| arrays.run(what)));
                    best = best.min(start.elapsed().as_secs_f64() / calls as f64);
                    start.elapsed()
                });
            });
            if best.is_finite() {
                let rate = flops(what, length) / best / 1e9;
                let share = 100.0 * rate / limit;
                println!("{what:>10} {length}: {:8.3} ms, {rate:6.1} GFLOP/s, {share:3.0} % of the limit", best * 1e3);
            }
        }
        group.finish();
    }
    criterion.final_summary();
}

fn serve() {
    let mut arrays: Option<Arrays> = None;
    for line in std::io::stdin().lock().lines() {
        let line = line.expect("the standard input is text");
        let time = match line.split_once(' ') {
            Some((what, length)) => {
                let length = length.parse().expect("a length");
                if arrays.as_ref().is_none_or(|arrays| arrays.length != length) {
                    arrays = Some(Arrays::new(length));
                }
                let arrays = arrays.as_mut().expect("made above");
                parallel::team(|| limits::seconds(Duration::from_millis(100), || arrays.run(what)))
            }
            None => 1e-9 / limits::fma(),
        };
        println!("{time:e}");
    }
}
