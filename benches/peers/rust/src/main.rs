//! Reads lines `crate layout m k n` from standard input and prints the seconds of one product for
//! each.
//!
//! `gemm-peers [threads]`, run by `benches/report`, built with `RUSTFLAGS=-Ctarget-cpu=native`.

use std::io::BufRead;
use std::time::Instant;

fn wave(len: usize, step: f32) -> Vec<f32> {
    (0..len).map(|i| (i as f32 * step).sin()).collect()
}

/// Same as `seconds` of benches/limits.
fn seconds(mut f: impl FnMut()) -> f64 {
    let start = Instant::now();
    f();
    let once = start.elapsed().as_secs_f64().max(1e-9);
    let calls = ((5e-3 / once) as usize).clamp(1, 1_000_000);
    let mut rounds = Vec::new();
    while rounds.len() < 3 || start.elapsed().as_secs_f64() < 0.1 {
        let round = Instant::now();
        (0..calls).for_each(|_| f());
        rounds.push(round.elapsed().as_secs_f64() / calls as f64);
    }
    rounds.sort_by(f64::total_cmp);
    rounds[rounds.len() / 2]
}

fn main() {
    let threads: usize = std::env::args().nth(1).map_or(2, |x| x.parse().expect("a number of threads"));
    // SAFETY: no other thread runs yet.
    unsafe {
        std::env::set_var("RAYON_NUM_THREADS", threads.to_string());
        std::env::set_var("MATMUL_NUM_THREADS", threads.to_string());
    }
    for line in std::io::stdin().lock().lines() {
        let line = line.expect("the standard input is text");
        let words: Vec<&str> = line.split(' ').collect();
        let [name, layout, m, k, n] = words[..] else { panic!("expected `crate layout m k n`, found `{line}`") };
        let [m, k, n] = [m, k, n].map(|x| x.parse::<usize>().expect("a size"));
        let transposed = layout == "NT";
        let (a, b, mut c) = (wave(m * k, 0.731), wave(k * n, 0.0917), vec![0f32; m * n]);
        let (row_b, col_b) = if transposed { (1, k as isize) } else { (n as isize, 1) };
        let time = match name {
            "gemm" => {
                let parallelism = if threads == 1 { gemm::Parallelism::None } else { gemm::Parallelism::Rayon(threads) };
                // SAFETY: the strides and sizes are those of the vectors.
                seconds(|| unsafe {
                    let (a, b, c) = (a.as_ptr(), b.as_ptr(), c.as_mut_ptr());
                    let (row, out) = (k as isize, n as isize);
                    gemm::gemm(
                        m, n, k, c, 1, out, false, a, 1, row, b, col_b, row_b, 0f32, 1f32, false, false, false, parallelism,
                    )
                })
            }
            // SAFETY: as above.
            "matrixmultiply" => seconds(|| unsafe {
                let (a, b, c) = (a.as_ptr(), b.as_ptr(), c.as_mut_ptr());
                matrixmultiply::sgemm(m, k, n, 1.0, a, k as isize, 1, b, row_b, col_b, 0.0, c, n as isize, 1)
            }),
            "faer" => {
                use faer::{Accum, MatMut, MatRef, Par};
                let a = MatRef::from_row_major_slice(&a, m, k);
                let b = match transposed {
                    true => MatRef::from_row_major_slice(&b, n, k).transpose(),
                    false => MatRef::from_row_major_slice(&b, k, n),
                };
                let par = if threads == 1 { Par::Seq } else { Par::rayon(threads) };
                seconds(|| {
                    let c = MatMut::from_row_major_slice_mut(&mut c, m, n);
                    faer::linalg::matmul::matmul(c, Accum::Replace, a, b, 1f32, par)
                })
            }
            "candle" => {
                use candle_core::{Device::Cpu, Tensor};
                let a = Tensor::from_slice(&a, (m, k), &Cpu).expect("the shape fits");
                let b = match transposed {
                    true => Tensor::from_slice(&b, (n, k), &Cpu).and_then(|b| b.t()),
                    false => Tensor::from_slice(&b, (k, n), &Cpu),
                };
                let b = b.expect("the shape fits");
                seconds(|| drop(std::hint::black_box(a.matmul(&b))))
            }
            _ => panic!("no crate `{name}`"),
        };
        println!("{time:e}");
    }
}
