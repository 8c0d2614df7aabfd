//! Nearest rows for many queries at once: a matrix product, tile by tile, and the best of each column.

use rayon::prelude::*;

use super::WordVectors;
use super::similarity::Best;
use crate::kernels::row_dots::row_dots;

/// Rows of one tile: read from memory once, then compared with every query from the cache.
const ROWS: usize = 256;

/// The best `k` of the first `n` rows for each query (all of length 1), as (row, cosine).
pub(crate) fn search_batch(vectors: &WordVectors, queries: &[Vec<f32>], n: usize, k: usize) -> Vec<Vec<(usize, f32)>> {
    let inverse = vectors.inverse_norms();
    let tiles = n.div_ceil(ROWS);
    let parts = tiles.div_ceil(16).clamp(1, rayon::current_num_threads() * 4);
    let dim = vectors.dim;
    let part = |p: usize| {
        let mut best: Vec<Best> = queries.iter().map(|_| Best::new(k)).collect();
        let (mut wide, mut scores) = (Vec::new(), vec![0.0; ROWS]);
        for tile in tiles * p / parts..tiles * (p + 1) / parts {
            let start = tile * ROWS;
            let len = ROWS.min(n - start);
            let rows = match vectors.floats() {
                Some(all) => &all[start * dim..(start + len) * dim],
                None => {
                    wide.clear();
                    (start..start + len).for_each(|i| wide.extend_from_slice(&vectors.row(i)));
                    &wide
                }
            };
            for (query, best) in queries.iter().zip(&mut best) {
                let scores = &mut scores[..len];
                row_dots(query, rows, scores);
                scores.iter_mut().zip(&inverse[start..]).for_each(|(s, i)| *s *= i);
                best.offer(start, scores, &[]);
            }
        }
        best
    };
    let empty = || queries.iter().map(|_| Best::new(k)).collect::<Vec<_>>();
    let merge = |a: Vec<Best>, b: Vec<Best>| a.into_iter().zip(b).map(|(a, b)| a.merge(b)).collect();
    let best = (0..parts).into_par_iter().map(part).reduce(empty, merge);
    best.into_iter().map(Best::into_sorted).collect()
}
