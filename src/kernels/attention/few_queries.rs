//! Few queries (decoding): the keys are in the lanes.
//!
//! # The plain algorithm
//!
//! Same as in `forward`, with products and sums in the same order, so the bits are the same:
//!
//! ```text
//! for each block of 128 keys:
//!     for each head of keys, for each row r (a query of one of the heads that share it):
//!         s = scale · q[r] · K[block]ᵀ + mask
//!         update m[r], l[r];  o[r] = α · o[r] + p · V[block]
//! out[r] = o[r] / l[r]
//! ```
//!
//! # Tricks
//!
//! - **All rows of a head together.** K and V are read once for all queries of all heads that share
//!   them, since reading dominates the time.
//! - **Keys in the lanes.** With one query, lanes of queries would be empty. For up to eight rows,
//!   the keys are transposed in registers on their way to the products; more rows use a panel.
//! - **Several key heads in a task.** The numbers of a position that a task reads are contiguous,
//!   and each page of memory is visited once: one query over 4096 keys takes 355 µs where it took
//!   450.
//! - **Prefetching** of this block's values and the next block's keys, which are short pieces far
//!   from each other. Together with the transposition in registers: 1.13 times the speed over 128
//!   keys, 1.33 over 4096.

use std::ops::Range;

use super::AttentionShape;
use super::args::{Args, is_finite};
use super::heads::Heads;
use super::products::{Exact, Products, Scaled, Values, out_width};
use super::softmax::{BLOCK, Dropped, UpdateRow};
use super::visible::Visible;
use crate::kernels::gemm::micro::{MicroKernel, PANEL, TileArgs};
use crate::kernels::gemm::packing::{SLACK, Source, with_scratch};
use crate::kernels::gemm::plan::even;
use crate::kernels::parallel;
use crate::kernels::prefetch::prefetch_ahead;
use crate::kernels::simd::Isa;

/// The largest number of rows (queries times the heads that share keys) for this loop.
pub(super) const MAX_ROWS: usize = 16;

/// Queries that read the same keys: row `r` is query `queries.start + r % queries.len()` of the
/// head `first_head + r / queries.len()`.
struct Rows<'a> {
    shape: &'a AttentionShape<'a>,
    batch: usize,
    first_head: usize,
    heads: usize,
    queries: Range<usize>,
}

impl Rows<'_> {
    fn count(&self) -> usize {
        self.heads * self.queries.len()
    }

    fn head_and_query(&self, r: usize) -> (usize, usize) {
        (self.first_head + r / self.queries.len(), self.queries.start + r % self.queries.len())
    }

    /// Packs the scaled queries as panels of A, `mr` rows each.
    fn pack<P: Products>(&self, products: P, query: Heads<'_>, mr: usize, scaled: &mut [f32], packed: &mut [f32]) {
        let (dim, n) = (self.shape.head_dim, self.count());
        let rows = (0..n).map(|r| {
            let (head, i) = self.head_and_query(r);
            let (data, row) = query.at(self.batch, head);
            // SAFETY: a row of a head that was checked.
            unsafe { std::slice::from_raw_parts(data.wrapping_add(i * row), dim) }
        });
        products.kernel().isa().run(Scaled { rows, factor: self.shape.scale, dst: scaled });
        let k = P::groups(dim);
        assert!(packed.len() >= n * k + SLACK);
        for r in (0..n).step_by(mr) {
            let (rows, source) = (mr.min(n - r), Source { data: scaled[r * dim..].as_ptr(), along: dim, deep: 1 });
            // SAFETY: the rows are `dim` long; the panels have room, the slack behind the last.
            unsafe { products.pack(source, rows, rows, dim, packed.as_mut_ptr().add(r * k)) };
        }
    }

    /// Computes the masked scores of the keys `first..last`, at most `BLOCK`, of which `key` is the
    /// first; those of row `r` are at `r · BLOCK`.
    fn scores<P: Products>(
        &self,
        products: P,
        (key, key_row): (*const f32, usize),
        keys: Range<usize>,
        mr: usize,
        packed: &[f32],
        panel: &mut [f32],
        scores: &mut [f32],
    ) {
        let (dim, k, kernel) = (self.shape.head_dim, P::groups(self.shape.head_dim), products.kernel());
        assert!(panel.len() >= k * PANEL + SLACK && scores.len() >= self.count() * BLOCK && keys.len() <= BLOCK);
        for j in (0..keys.len()).step_by(PANEL) {
            let used = PANEL.min(keys.len() - j);
            if P::GROUP == 1 && used == PANEL && self.count() <= P::Kernel::COLUMNS_MR {
                // Few rows are transposed in registers. Otherwise all rows are one panel of A.
                let (rows, a) = (self.count(), packed.as_ptr());
                let (b, c) = (key.wrapping_add(j * key_row), scores[j..].as_mut_ptr());
                let args = TileArgs { rows, k: dim, a, lda: rows, b, ldb: key_row, c, ldc: BLOCK, load: false };
                // SAFETY: the keys exist; the rows are packed `dim` deep; the scores have room for
                // the block.
                unsafe { kernel.columns(args) };
                continue;
            }
            let source = Source { data: key.wrapping_add(j * key_row), along: key_row, deep: 1 };
            // SAFETY: the keys exist; the panel has room for `dim` rows and the slack.
            unsafe { products.pack(source, used, PANEL, dim, panel.as_mut_ptr()) };
            for r in (0..self.count()).step_by(mr) {
                let rows = mr.min(self.count() - r);
                for i in (0..used).step_by(P::NR) {
                    let (a, b) = (packed[r * k..].as_ptr(), panel.as_ptr().wrapping_add(i));
                    let c = scores[r * BLOCK + j + i..].as_mut_ptr();
                    // SAFETY: both panels are `dim` deep; the scores have room for a whole block,
                    // whatever the panel has past `used`.
                    unsafe {
                        products.tile(TileArgs { rows, k, a, lda: rows, b, ldb: PANEL, c, ldc: BLOCK, load: false })
                    };
                }
            }
        }
        for r in 0..self.count() {
            let (head, i) = self.head_and_query(r);
            let row = &mut scores[r * BLOCK..][..keys.len()];
            Visible::new(self.shape, self.batch, head).mask_row(i, keys.start, row);
        }
    }
}

/// Computes all heads and sequences. A task takes several key heads, which are adjacent, so that
/// the numbers of a position that it reads are contiguous, and each page of memory is visited once.
pub(super) fn run<P: Products>(products: P, args: &Args<'_>) {
    let AttentionShape { batch, n_kv_heads, .. } = *args.shape;
    let threads = parallel::threads();
    let parts = if batch == 1 { threads } else { (2 * threads).div_ceil(batch.max(1)) };
    let heads = n_kv_heads.div_ceil(parts).max(1);
    let parts = n_kv_heads.div_ceil(heads);
    parallel::for_each(batch * parts, |task| {
        let first = task % parts * heads;
        block(products, args, task / parts, first..n_kv_heads.min(first + heads));
    });
}

/// The rows of one key head, and the state of their softmax.
struct Head<'s> {
    packed: &'s mut [f32],
    out: &'s mut [f32],
    max: &'s mut [f32],
    sum: &'s mut [f32],
}

impl<'s> Head<'s> {
    /// Returns the size of the buffer for `n` rows of `dim`, packed in as many groups or fewer.
    fn len(n: usize, dim: usize) -> usize {
        n * (dim + out_width(dim) + 2) + SLACK
    }

    fn of(state: &'s mut [f32], n: usize, dim: usize) -> Head<'s> {
        let (packed, rest) = state.split_at_mut(n * dim + SLACK);
        let (out, rest) = rest.split_at_mut(n * out_width(dim));
        let (max, sum) = rest.split_at_mut(n);
        Head { packed, out, max, sum }
    }
}

/// Computes the queries of some key heads of a sequence.
fn block<P: Products>(products: P, args: &Args<'_>, batch: usize, kv_heads: Range<usize>) {
    let (shape, isa) = (args.shape, products.kernel().isa());
    let rows_of = |kv_head: usize| Rows {
        shape,
        batch,
        first_head: kv_head * shape.group(),
        heads: shape.group(),
        queries: 0..shape.queries,
    };
    let (dim, n) = (shape.head_dim, shape.group() * shape.queries);
    let mr = even(n, P::MR, 1);

    let state_len = Head::len(n, dim);
    let (panel_len, value_len) = (P::groups(dim) * PANEL + SLACK, Values::<P>::len(dim));
    let (width, probs_len) = (out_width(dim), MAX_ROWS * BLOCK + SLACK);
    let mut not_finite = Vec::new();
    with_scratch(kv_heads.len() * state_len + panel_len + value_len + n * (BLOCK + dim) + probs_len, |scratch| {
        let (states, rest) = scratch.split_at_mut(kv_heads.len() * state_len);
        let (panel, rest) = rest.split_at_mut(panel_len);
        let (values, rest) = rest.split_at_mut(value_len);
        let (scores, rest) = rest.split_at_mut(n * BLOCK);
        let (scaled, probs) = rest.split_at_mut(n * dim);
        for (kv_head, state) in kv_heads.clone().zip(states.chunks_mut(state_len)) {
            let Head { packed, out, max, sum } = Head::of(state, n, dim);
            rows_of(kv_head).pack(products, args.query, mr, scaled, packed);
            out.fill(0.0);
            max.fill(f32::NEG_INFINITY);
            sum.fill(0.0);
        }

        let all = Visible::new(shape, batch, kv_heads.start * shape.group()).range(0..shape.queries);
        for first in (all.start / BLOCK * BLOCK..all.end).step_by(BLOCK) {
            let keys = first..all.end.min(first + BLOCK);
            for (kv_head, state) in kv_heads.clone().zip(states.chunks_mut(state_len)) {
                let rows = rows_of(kv_head);
                let Head { packed, out, max, sum } = Head::of(state, n, dim);
                let key = args.key.block(batch, kv_head, first);
                let value = args.value.block(batch, kv_head, first);
                // Short pieces far from each other, which the hardware prefetcher does not detect:
                // these values, and the next keys.
                let fetch = |(data, row): (*const f32, usize), n: usize| {
                    (0..n).for_each(|j| prefetch_ahead(data.wrapping_add(j * row), dim));
                };
                fetch(value, keys.len());
                if keys.end < all.end {
                    fetch(args.key.block(batch, kv_head, keys.end), BLOCK.min(all.end - keys.end));
                }
                rows.scores(products, key, keys.clone(), mr, packed, panel, scores);
                for r in 0..n {
                    let scores = &mut scores[r * BLOCK..][..keys.len()];
                    let (head, i) = rows.head_and_query(r);
                    let dropped = Dropped::new(shape, batch * shape.n_heads + head, i, first);
                    let (max, sum) = (&mut max[r], &mut sum[r]);
                    let factor = isa.run(UpdateRow { scores, dropped, max, sum });
                    if factor != 1.0 {
                        out[r * width..][..dim].iter_mut().for_each(|o| *o *= factor);
                    }
                }
                // SAFETY: V has rows for the keys; there is room for a block of them.
                let values = unsafe { Values::new(products, value, keys.len(), dim, values) };
                for r in (0..n).step_by(mr) {
                    let rows = mr.min(n - r);
                    let source = Source { data: scores[r * BLOCK..].as_ptr(), along: BLOCK, deep: 1 };
                    // SAFETY: `probs` has room for the panel and the slack; `out` has the rows.
                    unsafe {
                        products.pack(source, rows, rows, keys.len(), probs.as_mut_ptr());
                        values.weigh(rows, keys.len(), probs.as_ptr(), rows, out[r * width..].as_mut_ptr());
                    }
                }
            }
        }

        for (kv_head, state) in kv_heads.clone().zip(states.chunks_mut(state_len)) {
            let rows = rows_of(kv_head);
            let Head { out, max, sum, .. } = Head::of(state, n, dim);
            for r in 0..n {
                let (head, i) = rows.head_and_query(r);
                let (dst, row) = args.out.at(batch, head);
                // SAFETY: these rows of these heads are this task's alone; so are these elements of
                // `lse`.
                unsafe {
                    let dst = std::slice::from_raw_parts_mut(dst.wrapping_add(i * row), dim);
                    let factor = if sum[r] > 0.0 { 1.0 / sum[r] } else { 0.0 };
                    for (dst, o) in dst.iter_mut().zip(&out[r * width..]) {
                        *dst = o * factor;
                    }
                    if !is_finite(dst) {
                        not_finite.push((head, i));
                    }
                    if !args.lse.is_null() {
                        *args.lse.add((batch * shape.n_heads + head) * shape.queries + i) = max[r] + sum[r].ln();
                    }
                }
            }
        }
    });
    not_finite.into_iter().for_each(|(head, i)| again(products, args, batch, head, i));
}

/// Recomputes a query whose output is not finite, with zeros for the values of masked keys: a
/// probability of zero times an infinite value is not zero. Other values are added as before, so
/// the bits are those that the query has if the masked values are finite.
pub(super) fn again<P: Products>(products: P, args: &Args<'_>, batch: usize, head: usize, query: usize) {
    let (shape, isa) = (args.shape, products.kernel().isa());
    let (dim, kv_head) = (shape.head_dim, head / shape.group());
    let rows = Rows { shape, batch, first_head: head, heads: 1, queries: query..query + 1 };
    let (panel_len, value_len) = (P::groups(dim) * PANEL + SLACK, Values::<P>::len(dim));
    let (packed_len, width, probs_len) = (dim + SLACK, out_width(dim), BLOCK + SLACK);
    let len = packed_len + width + panel_len + value_len + BLOCK + dim + BLOCK * dim + probs_len;
    with_scratch(len, |scratch| {
        let (packed, rest) = scratch.split_at_mut(packed_len);
        let (out, rest) = rest.split_at_mut(width);
        let (panel, rest) = rest.split_at_mut(panel_len);
        let (values, rest) = rest.split_at_mut(value_len);
        let (scores, rest) = rest.split_at_mut(BLOCK);
        let (scaled, rest) = rest.split_at_mut(dim);
        let (seen, probs) = rest.split_at_mut(BLOCK * dim);
        rows.pack(products, args.query, 1, scaled, packed);
        out.fill(0.0);
        let (mut max, mut sum) = (f32::NEG_INFINITY, 0.0);
        let all = Visible::new(shape, batch, head).range(query..query + 1);
        for first in (all.start / BLOCK * BLOCK..all.end).step_by(BLOCK) {
            let keys = first..all.end.min(first + BLOCK);
            let n = keys.len();
            rows.scores(products, args.key.block(batch, kv_head, first), keys, 1, packed, panel, scores);
            let (value, value_row) = args.value.block(batch, kv_head, first);
            for (j, (score, seen)) in scores[..n].iter().zip(seen.chunks_exact_mut(dim)).enumerate() {
                match *score == f32::NEG_INFINITY {
                    true => seen.fill(0.0),
                    // SAFETY: the value of this key, which was checked.
                    false => seen
                        .copy_from_slice(unsafe { std::slice::from_raw_parts(value.wrapping_add(j * value_row), dim) }),
                }
            }
            let dropped = Dropped::new(shape, batch * shape.n_heads + head, query, first);
            let factor = isa.run(UpdateRow { scores: &mut scores[..n], dropped, max: &mut max, sum: &mut sum });
            if factor != 1.0 {
                out[..dim].iter_mut().for_each(|o| *o *= factor);
            }
            let source = Source { data: scores.as_ptr(), along: BLOCK, deep: 1 };
            // SAFETY: `seen` has rows for the keys, `values` room for a block of them, `probs` for
            // the panel and the slack; `out` is a row.
            unsafe {
                let values = Values::new(products, (seen.as_ptr(), dim), n, dim, values);
                products.pack(source, 1, 1, n, probs.as_mut_ptr());
                values.weigh(1, n, probs.as_ptr(), 1, out.as_mut_ptr());
            }
        }
        let (dst, row) = args.out.at(batch, head);
        let factor = if sum > 0.0 { 1.0 / sum } else { 0.0 };
        // SAFETY: this row of this head is this task's alone.
        let dst = unsafe { std::slice::from_raw_parts_mut(dst.wrapping_add(query * row), dim) };
        dst.iter_mut().zip(&*out).for_each(|(dst, o)| *dst = o * factor);
    });
}

/// Computes the probabilities of all heads and sequences.
pub(super) fn probs<K: MicroKernel>(
    kernel: K,
    shape: &AttentionShape<'_>,
    query: Heads<'_>,
    key: Heads<'_>,
    probs: &mut [f32],
) {
    let AttentionShape { n_heads, queries, keys, head_dim: dim, .. } = *shape;
    if probs.is_empty() {
        return;
    }
    parallel::chunks_mut(probs, queries * keys, |matrix, probs| {
        let (batch, head) = (matrix / n_heads, matrix % n_heads);
        with_scratch(MAX_ROWS * (2 * dim + BLOCK) + dim * PANEL + 2 * SLACK, |scratch| {
            let (packed, rest) = scratch.split_at_mut(MAX_ROWS * dim + SLACK);
            let (scaled, rest) = rest.split_at_mut(MAX_ROWS * dim);
            let (scores, panel) = rest.split_at_mut(MAX_ROWS * BLOCK);
            for (part, probs) in probs.chunks_mut(MAX_ROWS * keys).enumerate() {
                let first = part * MAX_ROWS;
                let queries = first..queries.min(first + MAX_ROWS);
                let rows = Rows { shape, batch, first_head: head, heads: 1, queries };
                let mr = even(rows.count(), K::MR, 1);
                rows.pack(Exact(kernel), query, mr, scaled, packed);
                for j in (0..keys).step_by(BLOCK) {
                    let block = j..keys.min(j + BLOCK);
                    let key = key.block(batch, head / shape.group(), j);
                    rows.scores(Exact(kernel), key, block.clone(), mr, packed, panel, scores);
                    for (row, scores) in probs.chunks_mut(keys).zip(scores.chunks(BLOCK)) {
                        row[block.clone()].copy_from_slice(&scores[..block.len()]);
                    }
                }
                for row in probs.chunks_mut(keys) {
                    let (mut max, mut sum) = (f32::NEG_INFINITY, 0.0);
                    kernel.isa().run(UpdateRow { scores: row, dropped: None, max: &mut max, sum: &mut sum });
                    let factor = if sum > 0.0 { 1.0 / sum } else { 0.0 };
                    row.iter_mut().for_each(|p| *p *= factor);
                }
            }
        });
    });
}
