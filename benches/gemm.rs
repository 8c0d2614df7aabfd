//! Matrix products: GFLOP/s and the fraction of the multiply–add limit; for few rows also GB/s of
//! reading B.
//!
//! `cargo bench -p loquat-benches --bench gemm` runs criterion. With `--serve` it reads lines
//! `kind layout m k n` from standard input and prints the seconds of one call for each:
//! `benches/report` runs it in turns with its peers.

mod limits;

use std::io::BufRead;
use std::time::Duration;

use criterion::{Criterion, Throughput};
use half::{bf16, f16};
use loquat::kernels::blocks::{BlockFormat, quantize_q8_0};
use loquat::kernels::gemm::{Beta, Epilogue, Factor, Mat, PackedB, Precision, gemm, gemm_in, gemm_int8};
use loquat::kernels::parallel;
use loquat::kernels::simd::{self, Level};

type Shape = (usize, usize, usize);

/// Shapes of training and of prompts, then those of decoding.
const SHAPES: [Shape; 17] = [
    (256, 256, 256),
    (512, 512, 512),
    (1024, 1024, 1024),
    (2048, 2048, 2048),
    (128, 768, 3072),
    (512, 768, 768),
    (2048, 768, 3072),
    (16, 768, 3072),
    (1, 768, 2304),
    (1, 768, 3072),
    (1, 4096, 4096),
    (1, 16384, 16384),
    (1, 2048, 32000),
    (1, 5632, 16384),
    (4, 2048, 32000),
    (8, 2048, 32000),
    (16, 2048, 32000),
];

/// The kinds of products: plain by layout, with weights in half precision (few rows only), or NT
/// with packed weights or weights in blocks.
const KINDS: [&str; 10] = [
    "f32",
    "bf16",
    "int8",
    "f32@avx2",
    "f16-weights",
    "bf16-weights",
    "packed-f32",
    "packed-bf16",
    "packed-bf16-in-bf16",
    "q8-weights",
];

/// The factors of a product, and its result.
struct Factors {
    shape: Shape,
    a: Vec<f32>,
    b: Vec<f32>,
    bytes: (Vec<i8>, Vec<i8>),
    packed: [Option<PackedB>; 2],
    halves: (Vec<f16>, Vec<bf16>),
    /// B in Q8_0.
    blocks: Vec<u8>,
    c: Vec<f32>,
    sums: Vec<i32>,
}

impl Factors {
    fn new(kind: &str, shape: Shape) -> Self {
        let (m, k, n) = shape;
        let wave = |len: usize, step: f32| (0..len).map(|i| (i as f32 * step).sin()).collect::<Vec<f32>>();
        let bytes = |x: &[f32]| x.iter().map(|x| (x * 127.0) as i8).collect::<Vec<i8>>();
        let (a, b) = (wave(m * k, 0.731), wave(k * n, 0.0917));
        let bytes = if kind == "int8" { (bytes(&a), bytes(&b)) } else { (vec![], vec![]) };
        let packed = match kind {
            "packed-f32" => [Some(PackedB::new(Mat::transposed(&b, k, n))), None],
            "packed-bf16" | "packed-bf16-in-bf16" => {
                let half: Vec<bf16> = b.iter().map(|&x| bf16::from_f32(x)).collect();
                [None, Some(PackedB::new(Mat::transposed(&half, k, n)))]
            }
            _ => [None, None],
        };
        let halves = match kind {
            "f16-weights" => (b.iter().map(|&x| f16::from_f32(x)).collect(), vec![]),
            "bf16-weights" => (vec![], b.iter().map(|&x| bf16::from_f32(x)).collect()),
            _ => (vec![], vec![]),
        };
        let mut blocks = Vec::new();
        if kind == "q8-weights" {
            blocks.resize(BlockFormat::Q8_0.bytes_for(n * k), 0);
            quantize_q8_0(&b, &mut blocks);
        }
        Factors { shape, a, b, bytes, packed, halves, blocks, c: vec![0.0; m * n], sums: vec![0; m * n] }
    }

    fn run(&mut self, kind: &str, layout: &str) {
        let (m, k, n) = self.shape;
        let a = if layout.starts_with('T') { Mat::transposed(&self.a, m, k) } else { Mat::new(&self.a, m, k) };
        let b = right(&self.b, layout, self.shape);
        let precision = if kind.ends_with("bf16") { Precision::Bf16 } else { Precision::F32 };
        let (zero, none) = (Beta::Zero, Epilogue::default());
        if !self.blocks.is_empty() {
            let b = Factor::blocks(BlockFormat::Q8_0, &self.blocks, k, n);
            return gemm(a, b, &mut self.c, zero, none);
        }
        let packed = self.packed.iter().flatten().next();
        match (kind, packed) {
            ("int8", _) => gemm_int8(&self.bytes.0, &self.bytes.1, &mut self.sums, self.shape),
            ("f16-weights", _) => gemm(a, right(&self.halves.0, layout, self.shape), &mut self.c, zero, none),
            ("bf16-weights", _) => gemm(a, right(&self.halves.1, layout, self.shape), &mut self.c, zero, none),
            ("f32@avx2", _) => simd::with_level(Level::Avx2, || gemm_in(precision, a, b, &mut self.c, zero, none)),
            ("packed-bf16", Some(packed)) => gemm_in(Precision::F32, a, packed, &mut self.c, zero, none),
            (_, Some(packed)) => gemm_in(precision, a, packed, &mut self.c, zero, none),
            _ => gemm_in(precision, a, b, &mut self.c, zero, none),
        }
    }
}

fn right<'b, T>(b: &'b [T], layout: &str, (_, k, n): Shape) -> Mat<'b, T> {
    if layout.ends_with('T') { Mat::transposed(b, k, n) } else { Mat::new(b, k, n) }
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
    eprintln!("{:?}, {:?}, {} threads", simd::level(), simd::features(), parallel::threads());
    for kind in KINDS {
        let mut group = criterion.benchmark_group(format!("gemm/{kind}"));
        let layouts: &[&str] = match kind {
            "f32" | "bf16" => &["NN", "NT", "TN"],
            "f16-weights" | "bf16-weights" => &["NN", "NT"],
            _ => &["NT"],
        };
        for shape @ (m, k, n) in SHAPES {
            let few = matches!(kind, "f16-weights" | "bf16-weights");
            if kind == "int8" && m < 128 || n == 16384 && !kind.starts_with("f32") && !few || few && m > 16 {
                continue;
            }
            let limit = limits::fma();
            let reading = limits::read(1 << 28);
            let mut factors = Factors::new(kind, shape);
            for layout in layouts {
                let flops = 2.0 * (m * k * n) as f64;
                group.throughput(Throughput::Elements(flops as u64));
                let mut best = f64::INFINITY;
                group.bench_function(format!("{layout} {m}x{k}x{n}"), |bencher| {
                    bencher.iter_custom(|calls| {
                        let start = std::time::Instant::now();
                        parallel::team(|| (0..calls).for_each(|_| factors.run(kind, layout)));
                        best = best.min(start.elapsed().as_secs_f64() / calls as f64);
                        start.elapsed()
                    });
                });
                if best.is_finite() {
                    let rate = flops / best / 1e9;
                    let share = 100.0 * rate / limit;
                    let bytes = match kind {
                        "q8-weights" => BlockFormat::Q8_0.bytes_for(k * n),
                        _ if kind.starts_with("packed-bf16") || few => 2 * k * n,
                        _ => 4 * k * n,
                    } as f64
                        / best
                        / 1e9;
                    println!(
                        "{kind:>20} {layout} {m}x{k}x{n}: {rate:7.1} GFLOP/s, {share:4.0} % of the f32 limit, B at {bytes:.1} of {reading:.1} GB/s"
                    );
                }
            }
        }
        group.finish();
    }
    criterion.final_summary();
}

fn serve() {
    let mut factors: Option<(String, Factors)> = None;
    for line in std::io::stdin().lock().lines() {
        let line = line.expect("the standard input is text");
        let words: Vec<&str> = line.split(' ').collect();
        let time = match words[..] {
            ["limit_fma"] => 1e-9 / limits::fma(),
            ["limit_read", mib] => {
                let bytes = mib.parse::<usize>().expect("a size in MiB") << 20;
                1e-9 * bytes as f64 / limits::read(bytes)
            }
            [kind, layout, m, k, n] => {
                let [m, k, n] = [m, k, n].map(|x| x.parse().expect("a size"));
                if factors.as_ref().is_none_or(|(old, factors)| old != kind || factors.shape != (m, k, n)) {
                    drop(factors.take());
                    factors = Some((kind.to_string(), Factors::new(kind, (m, k, n))));
                }
                let (_, factors) = factors.as_mut().expect("made above");
                let call = || factors.run(kind, layout);
                parallel::team(|| limits::seconds(Duration::from_millis(100), call))
            }
            _ => panic!("expected `kind layout m k n`, found `{line}`"),
        };
        println!("{time:e}");
    }
}
