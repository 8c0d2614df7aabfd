//! Exact search over vectors of any kind: sentences, paragraphs, images.

use std::borrow::Cow;

use ndarray::{Array2, ArrayView2};

use super::batch_search::search_rows;
use super::similarity::unit;
use crate::kernels::gemm::{Beta, Epilogue, Mat, gemm};
use crate::{Error, Result};

/// An index for exact search by cosine similarity, over rows of numbers.
///
/// # Examples
/// ```
/// use loquat::embeddings::VectorIndex;
/// use loquat::ndarray::array;
///
/// let index = VectorIndex::new(array![[1.0, 0.0], [0.0, 2.0], [3.0, 3.1]]);
/// let best = index.search(array![[0.0, 1.0]].view(), 2)?;
/// assert_eq!(best[0].iter().map(|(row, _)| *row).collect::<Vec<_>>(), [1, 2]);
/// # Ok::<(), loquat::Error>(())
/// ```
#[derive(Clone)]
pub struct VectorIndex {
    vectors: Array2<f32>,
    inverse_norms: Vec<f32>,
}

impl std::fmt::Debug for VectorIndex {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "VectorIndex({:?})", self.vectors.shape())
    }
}

impl VectorIndex {
    /// Returns an index of the rows of `vectors`, `[rows, dim]`. Copies them if they are not
    /// contiguous.
    pub fn new(vectors: Array2<f32>) -> Self {
        let vectors = if vectors.is_standard_layout() { vectors } else { vectors.as_standard_layout().to_owned() };
        let inverse = |row: ndarray::ArrayView1<'_, f32>| {
            let squares: f64 = row.iter().map(|&x| f64::from(x) * f64::from(x)).sum();
            if squares > 0.0 { (1.0 / squares.sqrt()) as f32 } else { 0.0 }
        };
        let inverse_norms = vectors.rows().into_iter().map(inverse).collect();
        Self { vectors, inverse_norms }
    }

    /// Returns the number of rows.
    pub fn len(&self) -> usize {
        self.vectors.nrows()
    }

    /// Returns whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns, for each query, the `k` rows with the largest cosine, exactly, best first; equal
    /// ones are ordered by row. Rows and queries of zeros have a cosine of 0.
    ///
    /// # Shapes
    /// `queries`: `[queries, dim]`.
    ///
    /// # Errors
    /// [`Error::Shape`] if the lengths of queries and rows differ.
    pub fn search(&self, queries: ArrayView2<'_, f32>, k: usize) -> Result<Vec<Vec<(usize, f32)>>> {
        let dim = self.vectors.ncols();
        if queries.ncols() != dim {
            return Err(Error::shape("queries", format!("[queries, {dim}]"), queries.shape()));
        }
        let units: Vec<Vec<f32>> = queries.rows().into_iter().map(|query| unit(&query.to_vec())).collect();
        let all = self.vectors.as_slice().expect("the rows are contiguous");
        Ok(search_rows(dim, &self.inverse_norms, &units, k, |rows| {
            Cow::Borrowed(&all[rows.start * dim..rows.end * dim])
        }))
    }
}

/// Returns the cosine of every row of `a` with every row of `b`; 0 for a row of zeros.
///
/// # Shapes
/// `a`: `[m, dim]`, `b`: `[n, dim]`; the result is `[m, n]`.
///
/// # Errors
/// [`Error::Shape`] if the lengths of the rows differ.
///
/// # Examples
/// ```
/// use loquat::embeddings::cosine_similarities;
/// use ndarray::array;
///
/// let (a, b) = (array![[1.0, 0.0], [0.0, 2.0]], array![[0.0, 3.0]]);
/// assert_eq!(cosine_similarities(a.view(), b.view())?, array![[0.0], [1.0]]);
/// # Ok::<(), loquat::Error>(())
/// ```
pub fn cosine_similarities(a: ArrayView2<'_, f32>, b: ArrayView2<'_, f32>) -> Result<Array2<f32>> {
    if a.ncols() != b.ncols() {
        return Err(Error::shape("cosine similarities", format!("[rows, {}]", a.ncols()), b.shape()));
    }
    let units = |x: ArrayView2<'_, f32>| -> Vec<f32> { x.rows().into_iter().flat_map(|r| unit(&r.to_vec())).collect() };
    let (m, n, k) = (a.nrows(), b.nrows(), a.ncols());
    let (a, b) = (units(a), units(b));
    let mut y = vec![0.0; m * n];
    gemm(Mat::new(&a, m, k), Mat::transposed(&b, k, n), &mut y, Beta::Zero, Epilogue::default());
    Ok(Array2::from_shape_vec((m, n), y).expect("a product has m rows of n"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Rng;
    use crate::tensor::Tensor;
    use ndarray::{Ix2, array};

    #[test]
    fn the_search_is_exact() {
        let mut rng = Rng::seed(1);
        let corpus = Tensor::normal(&[1000, 19], 1.0, &mut rng).to_array::<Ix2>().unwrap();
        let queries = Tensor::normal(&[5, 19], 1.0, &mut rng).to_array::<Ix2>().unwrap();
        let scores = cosine_similarities(queries.view(), corpus.view()).unwrap();
        let found = VectorIndex::new(corpus).search(queries.view(), 7).unwrap();
        for (row, found) in scores.rows().into_iter().zip(found) {
            let mut order: Vec<usize> = (0..1000).collect();
            order.sort_by(|&a, &b| row[b].total_cmp(&row[a]));
            assert_eq!(found.iter().map(|f| f.0).collect::<Vec<_>>(), order[..7]);
            assert!(found.iter().all(|&(i, score)| (score - row[i]).abs() < 1e-5));
        }
    }

    #[test]
    fn zeros_and_nothing_are_allowed_and_other_widths_are_not() {
        let index = VectorIndex::new(array![[0.0, 0.0], [1.0, 1.0]]);
        assert_eq!(index.search(array![[1.0, 0.0]].view(), 9).unwrap()[0].len(), 2);
        assert!(index.search(array![[1.0]].view(), 1).is_err());
        assert!(cosine_similarities(array![[1.0]].view(), array![[1.0, 2.0]].view()).is_err());
        let empty = VectorIndex::new(Array2::zeros((0, 2)));
        assert!(empty.is_empty() && empty.search(array![[1.0, 0.0]].view(), 3).unwrap()[0].is_empty());
    }
}
