//! The memory-bound kernels at 1 MiB and 64 MiB: GB/s and the fraction of the machine's copy
//! bandwidth.
//!
//! `cargo bench -p loquat-benches --bench vecmath` runs criterion. With `--serve` it reads lines
//! `name MiB` from standard input and prints the seconds of one call for each: `benches/report`
//! runs it in turns with its peers.

mod limits;

use std::io::BufRead;
use std::time::Duration;

use criterion::{Criterion, Throughput};
use half::bf16;
use loquat::kernels::parallel;
use loquat::kernels::simd;
use loquat::kernels::vecmath::{self, Activation, Adam};

/// Columns of two-dimensional operands.
const COLS: usize = 1024;
/// Classes of the cross-entropy.
const VOCAB: usize = 8192;

/// Arrays of `len` elements each, as many as the kernel with the most operands needs.
struct Arrays {
    a: Vec<f32>,
    b: Vec<f32>,
    c: Vec<f32>,
    d: Vec<f32>,
    half: Vec<bf16>,
    labels: Vec<u32>,
}

impl Arrays {
    fn new(mib: usize) -> Self {
        let len = mib << 18;
        let wave = |step: f32| (0..len).map(|i| 3.0 * (i as f32 * step).sin()).collect::<Vec<f32>>();
        let labels = (0..len / COLS).map(|i| (i * 77 % COLS) as u32).collect();
        let d = wave(0.013).iter().map(|x| x.abs()).collect();
        Arrays { a: wave(0.731), b: wave(0.0917), c: vec![0.0; len], d, half: vec![bf16::ZERO; len], labels }
    }
}

/// A kernel, and the number of times it reads or writes an array.
type Case = (&'static str, f64, fn(&mut Arrays));

const CASES: &[Case] = &[
    ("exp", 2.0, |s| vecmath::exp(&s.a, &mut s.c)),
    ("tanh", 2.0, |s| vecmath::tanh(&s.a, &mut s.c)),
    ("sigmoid", 2.0, |s| vecmath::sigmoid(&s.a, &mut s.c)),
    ("relu", 2.0, |s| vecmath::activation(Activation::Relu, &s.a, &mut s.c)),
    ("gelu", 2.0, |s| vecmath::activation(Activation::Gelu, &s.a, &mut s.c)),
    ("gelu_tanh", 2.0, |s| vecmath::activation(Activation::GeluTanh, &s.a, &mut s.c)),
    ("silu", 2.0, |s| vecmath::activation(Activation::Silu, &s.a, &mut s.c)),
    ("gelu_backward", 3.0, |s| vecmath::activation_backward(Activation::Gelu, &s.b, &s.a, &mut s.c)),
    ("gelu_tanh_backward", 3.0, |s| vecmath::activation_backward(Activation::GeluTanh, &s.b, &s.a, &mut s.c)),
    ("silu_backward", 3.0, |s| vecmath::activation_backward(Activation::Silu, &s.b, &s.a, &mut s.c)),
    ("add", 3.0, |s| vecmath::add(&s.a, &s.b, &mut s.c)),
    ("add_assign", 3.0, |s| vecmath::add_assign(&mut s.c, &s.b)),
    ("sum", 1.0, |s| {
        std::hint::black_box(vecmath::sum(&s.a));
    }),
    ("sum_rows", 1.0, |s| vecmath::sum_rows(&s.a, COLS, &mut s.c[..COLS], false)),
    ("softmax", 2.0, |s| vecmath::softmax(&s.a, COLS, &mut s.c)),
    ("softmax_backward", 3.0, |s| vecmath::softmax_backward(&s.b, &s.d, COLS, &mut s.c)),
    ("log_softmax", 2.0, |s| vecmath::log_softmax(&s.a, COLS, &mut s.c)),
    ("cross_entropy", 3.0, |s| {
        let rows = s.a.len() / VOCAB;
        let (losses, lse) = s.d[..2 * rows].split_at_mut(rows);
        let labels = &s.labels[..rows];
        vecmath::cross_entropy(&s.a, VOCAB, labels, None, 0.0, None, losses, lse);
        vecmath::cross_entropy_backward(&s.a, lse, VOCAB, labels, None, 0.0, None, &[1.0], &mut s.c);
    }),
    ("layer_norm", 2.0, |s| {
        let rows = s.a.len() / COLS;
        let (mean, rstd) = s.d[..2 * rows].split_at_mut(rows);
        vecmath::layer_norm(&s.a, Some(&s.b[..COLS]), Some(&s.b[COLS..2 * COLS]), 1e-5, &mut s.c, mean, rstd);
    }),
    ("layer_norm_backward", 3.0, |s| {
        let rows = s.a.len() / COLS;
        let (mut dw, mut db) = ([0.0; COLS], [0.0; COLS]);
        let (mean, rstd) = (&s.d[..rows], &s.d[rows..2 * rows]);
        let (dw, db) = (Some(&mut dw[..]), Some(&mut db[..]));
        vecmath::layer_norm_backward(&s.b, &s.a, Some(&s.b[..COLS]), mean, rstd, &mut s.c, dw, db);
    }),
    ("rms_norm", 2.0, |s| {
        let rows = s.a.len() / COLS;
        vecmath::rms_norm(&s.a, &s.b[..COLS], 1e-5, &mut s.c, &mut s.d[..rows]);
    }),
    ("dropout", 2.0, |s| vecmath::dropout(&s.a, 0.1, 7, 0, &mut s.c)),
    ("adamw", 7.0, |s| {
        let adam = Adam { lr: 1e-4, betas: (0.9, 0.95), eps: 1e-8, weight_decay: 0.1, decoupled: true };
        vecmath::adam_step(&adam, 10, 1.0, &mut s.a, &s.b, &mut s.c, &mut s.d, &mut []);
    }),
    ("f32_to_bf16", 1.5, |s| vecmath::f32_to_bf16(&s.a, &mut s.half)),
    ("bf16_to_f32", 1.5, |s| vecmath::bf16_to_f32(&s.half, &mut s.c)),
];

const SIZES: [usize; 2] = [1, 64];

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
    eprintln!("{:?}, {} threads, {:.0} GFLOP/s", simd::level(), parallel::threads(), limits::fma());
    for mib in SIZES {
        let bytes = mib << 20;
        let (read, copy) = (limits::read(bytes), limits::copy(bytes));
        eprintln!("limits at {mib} MiB: read {read:.1} GB/s, copy {copy:.1} GB/s");
        let mut arrays = Arrays::new(mib);
        let mut group = criterion.benchmark_group(format!("vecmath/{mib}MiB"));
        for (name, passes, run) in CASES {
            let moved = passes * bytes as f64;
            group.throughput(Throughput::Bytes(moved as u64));
            let mut best = f64::INFINITY;
            group.bench_function(*name, |bencher| {
                bencher.iter_custom(|calls| {
                    let start = std::time::Instant::now();
                    parallel::team(|| (0..calls).for_each(|_| run(&mut arrays)));
                    best = best.min(start.elapsed().as_secs_f64() / calls as f64);
                    start.elapsed()
                });
            });
            if best.is_finite() {
                let rate = moved / best / 1e9;
                let limit = if *passes == 1.0 { read } else { copy };
                println!("{name:>20} {mib:>3} MiB: {rate:6.1} GB/s, {:3.0} % of the limit", 100.0 * rate / limit);
            }
        }
        group.finish();
    }
    criterion.final_summary();
}

fn serve() {
    let mut arrays: Option<(usize, Arrays)> = None;
    for line in std::io::stdin().lock().lines() {
        let line = line.expect("the standard input is text");
        let (name, mib) = line.split_once(' ').expect("a name and a size in MiB");
        let mib: usize = mib.parse().expect("a size in MiB");
        if arrays.as_ref().is_none_or(|(size, _)| *size != mib) {
            arrays = Some((mib, Arrays::new(mib)));
        }
        let (_, arrays) = arrays.as_mut().expect("made above");
        let time = match name {
            "limit_read" => 1e-9 * (mib << 20) as f64 / limits::read(mib << 20),
            "limit_copy" => 2e-9 * (mib << 20) as f64 / limits::copy(mib << 20),
            _ => {
                let (_, _, run) = CASES.iter().find(|case| case.0 == name).expect("a known case");
                let mut time = 0.0;
                parallel::team(|| time = limits::seconds(Duration::from_millis(100), || run(arrays)));
                time
            }
        };
        println!("{time:e}");
    }
}
