//! Asks word vectors: nearest words, analogies, evaluations, and a picture.
//!
//!     cargo run --release --example nearest -- --vectors vectors.bin king queen
//!     cargo run --release --example nearest -- --vectors vectors.bin --analogy man king woman
//!     cargo run --release --example nearest -- --vectors vectors.bin --evaluate wordsim353.txt questions-words.txt
//!     cargo run --release --example nearest -- --vectors vectors.bin cat dog cow --plot animals.svg
//!
//! The file may be word2vec text or binary, GloVe, fastText `.vec` or `.bin`, or NumPy `.npy`.

#[macro_use]
#[path = "cli/say.rs"]
mod say;
#[path = "embeddings/dash.rs"]
mod dash;
#[path = "cli/exit.rs"]
mod exit;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use dash::number;
use loquat::WordVectors;
use loquat::embeddings::{Evaluation, EvaluationOptions};
use plotters::prelude::*;

#[derive(Parser)]
#[command(about = "Ask word vectors: nearest words, analogies, evaluations, a picture")]
struct Args {
    /// The file of vectors
    #[arg(long)]
    vectors: PathBuf,
    /// Words whose neighbours are wanted, or that are drawn
    word: Vec<String>,
    /// What is to C as B is to A
    #[arg(long, num_args = 3, value_names = ["A", "B", "C"])]
    analogy: Option<Vec<String>>,
    /// Files of word pairs with scores, or of analogies
    #[arg(long, num_args = 1.., value_name = "FILE")]
    evaluate: Vec<PathBuf>,
    /// Draws the words in two dimensions (principal components) into this SVG file
    #[arg(long, value_name = "WORDS.svg")]
    plot: Option<PathBuf>,
    /// How many neighbours are shown
    #[arg(long, default_value_t = 10)]
    top: usize,
}

fn run() -> Result<(), Box<dyn std::error::Error>> {
    let args = Args::parse();
    let vectors = WordVectors::open(&args.vectors)?;
    say!("{} words of {} dimensions", vectors.len(), vectors.dim());
    if let Some([a, b, c]) = args.analogy.as_deref() {
        say!("\n{a} : {b} = {c} : ?");
        show(&vectors.analogy(a, b, c, args.top)?);
    }
    for file in &args.evaluate {
        evaluate(&vectors, file)?;
    }
    match &args.plot {
        Some(path) => {
            plot(&vectors, &args.word, path).map_err(|e| format!("{}: {e}", path.display()))?;
            say!("\n{} words drawn into {}", args.word.len(), path.display());
        }
        None => {
            for word in &args.word {
                say!("\n{word}");
                show(&vectors.most_similar(&[word], &[], args.top)?);
            }
        }
    }
    Ok(())
}

fn show(found: &[(&str, f32)]) {
    for (word, score) in found {
        say!("  {score:.4}  {word}");
    }
}

fn evaluate(vectors: &WordVectors, file: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let evaluation = vectors.evaluate(file, &EvaluationOptions::default())?;
    say!("\n{}", file.display());
    match evaluation {
        Evaluation::Analogies(sections) => {
            say!("  {:<32} {:>8} {:>8} {:>8} {:>8}", "section", "right", "asked", "missing", "accuracy");
            for s in sections {
                let accuracy = number(s.accuracy() * 100.0, 2);
                say!("  {:<32} {:>8} {:>8} {:>8} {accuracy:>7}%", s.section, s.correct, s.questions, s.missing);
            }
        }
        Evaluation::Similarity(s) => {
            let (spearman, pearson) = (number(s.spearman, 4), number(s.pearson, 4));
            say!("  Spearman {spearman}  Pearson {pearson}  {} pairs, {} missing", s.pairs, s.missing);
        }
    }
    Ok(())
}

/// The words at their first two principal components.
fn plot(vectors: &WordVectors, words: &[String], path: &Path) -> Result<(), Box<dyn std::error::Error>> {
    if words.len() < 2 {
        return Err("--plot: expected at least two words".into());
    }
    let mut rows = Vec::new();
    for word in words {
        let row = vectors.vector(word).ok_or_else(|| format!("`{word}` has no vector"))?;
        rows.push(row.into_owned());
    }
    let (x, y) = principal_components(rows);
    let range = |v: &[f32]| {
        let (low, high) = v.iter().fold((f32::MAX, f32::MIN), |(l, h), &x| (l.min(x), h.max(x)));
        let margin = 0.1 * (high - low) + 1e-6;
        low - margin..high + margin
    };
    let area = SVGBackend::new(path, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area).margin(20).build_cartesian_2d(range(&x), range(&y))?;
    chart.draw_series(x.iter().zip(&y).map(|(&x, &y)| Circle::new((x, y), 3, BLUE.filled())))?;
    let points: Vec<(i32, i32)> = x.iter().zip(&y).map(|(&x, &y)| chart.backend_coord(&(x, y))).collect();
    for (word, corner) in words.iter().zip(corners(words, &points)) {
        area.draw(&Text::new(word.clone(), corner, ("sans-serif", 16)))?;
    }
    area.present()?;
    Ok(())
}

/// Width and height of a picture.
const SIZE: (u32, u32) = (900, 700);

/// The upper left corner of each word's label: to the right of its point, or else left of it, above or below, where the
/// label covers no point and no earlier label.
fn corners(words: &[String], points: &[(i32, i32)]) -> Vec<(i32, i32)> {
    // Left, top, right and bottom of what must stay visible.
    let mut taken: Vec<[i32; 4]> = points.iter().map(|&(x, y)| [x - 3, y - 3, x + 3, y + 3]).collect();
    let mut corners = Vec::new();
    for (word, &(x, y)) in words.iter().zip(points) {
        let (width, height) = (8 * word.chars().count() as i32, 14);
        let label = |(left, top): (i32, i32)| [left, top, left + width, top + height];
        let is_free = |&corner: &(i32, i32)| {
            let [left, top, right, bottom] = label(corner);
            let inside = left >= 0 && top >= 0 && right <= SIZE.0 as i32 && bottom <= SIZE.1 as i32;
            inside && taken.iter().all(|&[l, t, r, b]| right < l || r < left || bottom < t || b < top)
        };
        let middle = x - width / 2;
        let places = [(x + 6, y - 6), (x - 6 - width, y - 6), (middle, y - 20), (middle, y + 7)];
        let corner = places.into_iter().find(is_free).unwrap_or(places[0]);
        taken.push(label(corner));
        corners.push(corner);
    }
    corners
}

/// Each row's coordinates along the two directions of largest variance, found by power iteration.
fn principal_components(mut rows: Vec<Vec<f32>>) -> (Vec<f32>, Vec<f32>) {
    let (n, dim) = (rows.len(), rows[0].len());
    for c in 0..dim {
        let mean = rows.iter().map(|row| row[c]).sum::<f32>() / n as f32;
        rows.iter_mut().for_each(|row| row[c] -= mean);
    }
    let mut component = || {
        let mut axis: Vec<f32> = (0..dim).map(|c| 1.0 + (c as f32).sin()).collect();
        for _ in 0..200 {
            let along: Vec<f32> = rows.iter().map(|row| row.iter().zip(&axis).map(|(r, a)| r * a).sum()).collect();
            axis = (0..dim).map(|c| rows.iter().zip(&along).map(|(row, a)| row[c] * a).sum()).collect();
            let length = axis.iter().map(|a| a * a).sum::<f32>().sqrt().max(1e-20);
            axis.iter_mut().for_each(|a| *a /= length);
        }
        let along: Vec<f32> = rows.iter().map(|row| row.iter().zip(&axis).map(|(r, a)| r * a).sum()).collect();
        // What the first axis explains is taken out before the second is sought.
        for (row, a) in rows.iter_mut().zip(&along) {
            row.iter_mut().zip(&axis).for_each(|(r, x)| *r -= a * x);
        }
        along
    };
    (component(), component())
}

fn main() -> ExitCode {
    exit::exit(run())
}
