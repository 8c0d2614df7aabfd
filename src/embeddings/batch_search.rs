//! Nearest rows for many queries at once: a matrix product in tiles, of which the best rows of each
//! query are kept.

use std::borrow::Cow;
use std::ops::Range;

use super::WordVectors;
use super::top_k::TopK;
use crate::kernels::gemm::{Beta, Epilogue, Mat, gemm};
use crate::kernels::{parallel, vecmath};

/// The number of scores of one tile, for all queries together: they fit in the second-level caches.
const SCORES: usize = 1 << 18;

/// Returns the `k` rows with the largest cosine among the first `n`, for each query (queries have
/// length 1), as (row, cosine).
pub(crate) fn search_batch(vectors: &WordVectors, queries: &[Vec<f32>], n: usize, k: usize) -> Vec<Vec<(usize, f32)>> {
    let dim = vectors.dim;
    search_rows(dim, &vectors.inverse_norms()[..n], queries, k, |rows| match vectors.floats() {
        Some(all) => Cow::Borrowed(&all[rows.start * dim..rows.end * dim]),
        None => Cow::Owned(rows.flat_map(|i| vectors.row(i).into_owned()).collect()),
    })
}

/// Same as [`search_batch`], over rows of `dim` numbers that `rows` returns together with their
/// inverse norms.
pub(crate) fn search_rows<'r>(
    dim: usize,
    inverse: &[f32],
    queries: &[Vec<f32>],
    k: usize,
    rows: impl Fn(Range<usize>) -> Cow<'r, [f32]> + Sync,
) -> Vec<Vec<(usize, f32)>> {
    let n = inverse.len();
    let mut best: Vec<TopK> = queries.iter().map(|_| TopK::new(k)).collect();
    if queries.is_empty() || n == 0 {
        return best.into_iter().map(TopK::into_sorted).collect();
    }
    let units = queries.concat();
    let tile = (SCORES / queries.len()).next_multiple_of(64).min(n);
    let mut scores = vec![0.0; queries.len() * tile];
    parallel::team(|| {
        for start in (0..n).step_by(tile) {
            let len = tile.min(n - start);
            let rows = rows(start..start + len);
            let scores = &mut scores[..queries.len() * len];
            let (a, b) = (Mat::new(&units, queries.len(), dim), Mat::transposed(&rows, dim, len));
            gemm(a, b, scores, Beta::Zero, Epilogue::default());
            parallel::chunks_mut(&mut best, 1, |query, best| {
                let mut cosines = vec![0.0; len];
                vecmath::mul(&scores[query * len..][..len], &inverse[start..start + len], &mut cosines);
                best[0].offer(start, &cosines, &[]);
            });
        }
    });
    best.into_iter().map(TopK::into_sorted).collect()
}
