//! Queries word vectors: nearest words, analogies, evaluations, and a plot.
//!
//! ```sh
//! cargo run --release --example nearest -- --vectors vectors.bin king queen
//! cargo run --release --example nearest -- --vectors vectors.bin --analogy man king woman
//! cargo run --release --example nearest -- --vectors vectors.bin \
//!     --evaluate wordsim353.txt questions-words.txt
//! cargo run --release --example nearest -- --vectors vectors.bin cat dog cow --plot animals.svg
//! ```
//!
//! Reads word2vec text and binary, GloVe, fastText `.vec` and `.bin`, and NumPy `.npy`.

#[path = "cli/exit.rs"]
mod exit;
#[path = "embeddings/number.rs"]
mod number;
#[allow(dead_code)]
mod plot;
#[macro_use]
#[path = "cli/print.rs"]
mod print;
#[path = "plot/scatter.rs"]
mod scatter;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use loquat::WordVectors;
use loquat::embeddings::{Evaluation, EvaluationOptions};
use number::number;
use scatter::Scatter;

/// Queries word vectors: nearest words, analogies, evaluations, and a plot.
#[derive(Parser)]
struct Args {
    /// The file of vectors.
    #[arg(long)]
    vectors: PathBuf,
    /// Words: their nearest words are printed, or they are plotted.
    word: Vec<String>,
    /// Finds D such that A is to B as C is to D.
    #[arg(long, num_args = 3, value_names = ["A", "B", "C"])]
    analogy: Option<Vec<String>>,
    /// Evaluates on files of word pairs with scores, or of analogies.
    #[arg(long, num_args = 1.., value_name = "FILE")]
    evaluate: Vec<PathBuf>,
    /// Plots the words in two dimensions (principal components) and writes this SVG file.
    #[arg(long, value_name = "WORDS.svg")]
    plot: Option<PathBuf>,
    /// The number of nearest words to print.
    #[arg(long, default_value_t = 10)]
    top: usize,
}

fn run() -> Result<(), Box<dyn std::error::Error>> {
    let args = Args::parse();
    let vectors = WordVectors::open(&args.vectors)?;
    print_line!("{} words of {} dimensions", vectors.len(), vectors.dim());
    if let Some([a, b, c]) = args.analogy.as_deref() {
        print_line!("\n{a} : {b} = {c} : ?");
        print_words(&vectors.analogy(a, b, c, args.top)?);
    }
    for file in &args.evaluate {
        evaluate(&vectors, file)?;
    }
    match &args.plot {
        Some(path) => {
            plot_words(&vectors, &args.word, path).map_err(|e| format!("{}: {e}", path.display()))?;
            print_line!("\nplot of {} words written to {}", args.word.len(), path.display());
        }
        None => {
            for word in &args.word {
                print_line!("\n{word}");
                print_words(&vectors.most_similar(&[word], &[], args.top)?);
            }
        }
    }
    Ok(())
}

fn print_words(found: &[(&str, f32)]) {
    for (word, score) in found {
        print_line!("  {score:.4}  {word}");
    }
}

fn evaluate(vectors: &WordVectors, file: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let evaluation = vectors.evaluate(file, &EvaluationOptions::default())?;
    print_line!("\n{}", file.display());
    match evaluation {
        Evaluation::Analogies(sections) => {
            print_line!("  {:<32} {:>9} {:>9} {:>9} {:>9}", "section", "correct", "questions", "missing", "accuracy");
            for s in sections {
                let accuracy = number(s.accuracy() * 100.0, 2);
                print_line!("  {:<32} {:>9} {:>9} {:>9} {accuracy:>8}%", s.section, s.correct, s.questions, s.missing);
            }
        }
        Evaluation::Similarity(s) => {
            let (spearman, pearson) = (number(s.spearman, 4), number(s.pearson, 4));
            print_line!("  Spearman {spearman}  Pearson {pearson}  {} pairs, {} missing", s.pairs, s.missing);
        }
    }
    Ok(())
}

/// Draws the words at their first two principal components.
fn plot_words(vectors: &WordVectors, words: &[String], path: &Path) -> Result<(), Box<dyn std::error::Error>> {
    if words.len() < 2 {
        return Err("--plot: expected at least two words".into());
    }
    let mut rows = Vec::new();
    for word in words {
        let row = vectors.vector(word).ok_or_else(|| format!("`{word}` has no vector"))?;
        rows.push(row.into_owned());
    }
    let total = centre(&mut rows);
    let [(x, x_part), (y, y_part)] = principal_components(rows).map(|along| {
        let part = along.iter().map(|x| x * x).sum::<f64>() / total.max(1e-20);
        (along, 100.0 * part)
    });
    let scatter = Scatter {
        title: "Word vectors in two dimensions",
        subtitle: &format!("{} words of {} dimensions, in the plane of largest variance", words.len(), vectors.dim()),
        axes: [
            &format!("first principal component ({x_part:.0}% of the variance)"),
            &format!("second principal component ({y_part:.0}% of the variance)"),
        ],
        points: x.into_iter().zip(y).collect(),
        names: words,
    };
    Ok(scatter.save(path)?)
}

/// Subtracts the mean row, and returns the sum of squares of the rest.
fn centre(rows: &mut [Vec<f32>]) -> f64 {
    for column in 0..rows[0].len() {
        let mean = rows.iter().map(|row| row[column]).sum::<f32>() / rows.len() as f32;
        rows.iter_mut().for_each(|row| row[column] -= mean);
    }
    rows.iter().flatten().map(|&x| f64::from(x) * f64::from(x)).sum()
}

/// Returns the coordinates of each centred row along the two directions of largest variance, found
/// by power iteration.
fn principal_components(mut rows: Vec<Vec<f32>>) -> [Vec<f64>; 2] {
    let dim = rows[0].len();
    let mut component = || {
        let mut axis: Vec<f32> = (0..dim).map(|c| 1.0 + (c as f32).sin()).collect();
        for _ in 0..200 {
            let along: Vec<f32> = rows.iter().map(|row| row.iter().zip(&axis).map(|(r, a)| r * a).sum()).collect();
            axis = (0..dim).map(|c| rows.iter().zip(&along).map(|(row, a)| row[c] * a).sum()).collect();
            let length = axis.iter().map(|a| a * a).sum::<f32>().sqrt().max(1e-20);
            axis.iter_mut().for_each(|a| *a /= length);
        }
        let along: Vec<f32> = rows.iter().map(|row| row.iter().zip(&axis).map(|(r, a)| r * a).sum()).collect();
        // The second direction is that of what the first one does not explain.
        for (row, a) in rows.iter_mut().zip(&along) {
            row.iter_mut().zip(&axis).for_each(|(r, x)| *r -= a * x);
        }
        along.into_iter().map(f64::from).collect()
    };
    [component(), component()]
}

fn main() -> ExitCode {
    exit::exit(run())
}
