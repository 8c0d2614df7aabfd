//! The ten nearest of 400 000 words of 300 dimensions, for one query and for a hundred.
//!
//! `cargo bench -p loquat-benches --bench nearest` runs criterion. With `--serve` it reads lines
//! `one`, `batch` or `limit_read` from standard input and prints the seconds for each:
//! `benches/report` runs it in turns with its peers.

mod limits;

use std::io::BufRead;
use std::time::Duration;

use criterion::Criterion;
use loquat::{Rng, WordVectors};
use ndarray::{Array2, s};

const WORDS: usize = 400_000;
const DIM: usize = 300;
const QUERIES: usize = 100;

fn vectors() -> WordVectors {
    let mut rng = Rng::seed(1);
    let matrix = Array2::from_shape_simple_fn((WORDS, DIM), || rng.uniform_f64() as f32 - 0.5);
    WordVectors::new((0..WORDS).map(|i| format!("w{i}")), matrix).expect("a row for each word")
}

fn main() {
    let vectors = vectors();
    let queries = vectors.view().expect("stored as f32").slice(s![..QUERIES, ..]).to_owned();
    let one = queries.row(0).to_vec();
    let run_one = || drop(std::hint::black_box(vectors.nearest(&one, 10)));
    let run_batch = || drop(std::hint::black_box(vectors.nearest_batch(queries.view(), 10)));
    if std::env::args().any(|arg| arg == "--serve") {
        for line in std::io::stdin().lock().lines() {
            let time = match line.expect("the standard input is text").as_str() {
                "limit_read" => 1e-9 * (WORDS * DIM * 4) as f64 / limits::read(WORDS * DIM * 4),
                "one" => limits::seconds(Duration::from_millis(500), run_one),
                "batch" => limits::seconds(Duration::from_millis(500), run_batch),
                other => panic!("expected one, batch or limit_read, found `{other}`"),
            };
            println!("{time:e}");
        }
        return;
    }
    let mut criterion = Criterion::default().configure_from_args().sample_size(10);
    criterion.bench_function("nearest to one query", |bencher| bencher.iter(run_one));
    criterion.bench_function("nearest to a hundred", |bencher| bencher.iter(run_batch));
    criterion.final_summary();
}
