//! Look-up of rows of a table by id, and its gradient.

use super::arithmetic::Add;
use super::rows::{chunk_rows, update_row2};
use crate::kernels::extent::size;
use crate::kernels::parallel::{self, Parts};
use crate::kernels::simd::{Isa, SimdOp, dispatch};

/// out\[i\] = table\[ids\[i\]\]
///
/// # Shapes
///
/// `table` `[rows, dim]`, `ids` `[n]`, `out` `[n, dim]`.
///
/// # Panics
///
/// If an id is not below the number of rows.
pub fn gather(table: &[f32], dim: usize, ids: &[u32], out: &mut [f32]) {
    assert_eq!(Some(out.len()), size([ids.len(), dim]), "gather: a row of {dim} for each id");
    if out.is_empty() {
        return;
    }
    check("gather", ids, table.len() / dim);
    let chunk = chunk_rows(ids.len(), dim, 3.0);
    parallel::chunks_mut(out, chunk * dim, |i, out| {
        for (row, &id) in out.chunks_exact_mut(dim).zip(&ids[i * chunk..]) {
            row.copy_from_slice(&table[id as usize * dim..][..dim]);
        }
    });
}

/// table\[ids\[i\]\] += rows\[i\], in the order of i
///
/// Threads share the columns, not the ids, so that rows with the same id are added in order and
/// without locks.
///
/// # Shapes
///
/// `rows` `[n, dim]`, `ids` `[n]`, `table` `[m, dim]`.
///
/// # Panics
///
/// If an id is not below m.
pub fn scatter_add(rows: &[f32], dim: usize, ids: &[u32], table: &mut [f32]) {
    assert_eq!(Some(rows.len()), size([ids.len(), dim]), "scatter_add: a row of {dim} for each id");
    if rows.is_empty() {
        return;
    }
    check("scatter_add", ids, table.len() / dim);
    // Bands of whole cache lines, if there are enough elements to share.
    let band = parallel::chunk_len(dim, 16, 3.0 * ids.len() as f32);
    let table = Parts::new(table, 1);
    parallel::for_each(dim.div_ceil(band), |i| {
        let columns = i * band..dim.min((i + 1) * band);
        dispatch(ScatterAdd { rows, dim, ids, columns, table: &table });
    });
}

/// Checks that each id is that of one of `n` rows.
#[track_caller]
fn check(name: &str, ids: &[u32], n: usize) {
    for &id in ids {
        assert!((id as usize) < n, "{name}: id {id} of {n} rows");
    }
}

struct ScatterAdd<'a> {
    rows: &'a [f32],
    dim: usize,
    ids: &'a [u32],
    columns: std::ops::Range<usize>,
    table: &'a Parts<'a, f32>,
}

impl SimdOp for ScatterAdd<'_> {
    type Output = ();
    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        for (row, &id) in self.rows.chunks_exact(self.dim).zip(self.ids) {
            let start = id as usize * self.dim;
            // SAFETY: the columns belong to this task alone, and one row is borrowed at a time.
            let sums = unsafe { self.table.slice(start + self.columns.start..start + self.columns.end) };
            update_row2(isa, sums, &row[self.columns.clone()], Add);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::random;
    use super::*;
    use crate::kernels::simd::for_each_level;

    #[test]
    fn rows_are_fetched_and_added_back_in_order() {
        for_each_level(|_| {
            for dim in [1, 5, 16, 33, 200] {
                let table = random(10 * dim, 1);
                let ids: Vec<u32> = (0..300u32).map(|i| (i * i + i / 3) % 10).collect();
                let mut out = vec![7.0; ids.len() * dim];
                gather(&table, dim, &ids, &mut out);
                for (row, &id) in out.chunks(dim).zip(&ids) {
                    assert_eq!(row, &table[id as usize * dim..][..dim]);
                }
                let rows = random(ids.len() * dim, 2);
                let mut expected = table.clone();
                for (row, &id) in rows.chunks(dim).zip(&ids) {
                    expected[id as usize * dim..][..dim].iter_mut().zip(row).for_each(|(sum, x)| *sum += x);
                }
                for threads in [1, 3] {
                    let mut sums = table.clone();
                    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                    pool.install(|| scatter_add(&rows, dim, &ids, &mut sums));
                    assert_eq!(sums, expected);
                }
            }
            gather(&[], 0, &[], &mut []);
            scatter_add(&[], 3, &[], &mut []);
        });
    }

    #[test]
    #[should_panic(expected = "id 2 of 2 rows")]
    fn an_id_out_of_range_is_refused() {
        scatter_add(&[0.0; 3], 3, &[2], &mut [0.0; 6]);
    }
}
