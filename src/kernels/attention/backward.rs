//! The backward pass: a task takes one key head and the query heads that share it.
//!
//! # The plain algorithm
//!
//! With `P` the probabilities, recomputed from `lse`, and `delta = rowsum(dO ∘ O)`:
//!
//! ```text
//! for each block of 128 keys, for each query that sees some of them:
//!     P  = exp(scale · Q·Kᵀ + mask − lse)
//!     dP = dO·Vᵀ
//!     dS = P ∘ (dP − delta)
//!     dV += Pᵀ·dO;   dK += dSᵀ·Q;   dQ += dS·K
//! dK *= scale;  dQ *= scale
//! ```
//!
//! # Tricks
//!
//! - **Probabilities are not stored.** They are recomputed from one number per query, `lse`, so
//!   memory is linear in the length. This costs one of the five products.
//! - **One task for the heads that share a key head.** `dK` and `dV` are accumulated in place over
//!   the queries, `dQ` in a buffer `[dim, queries]` over the blocks of keys, always in ascending
//!   order by one task: the bits do not depend on the threads. The number of tasks is limited to
//!   that of the key heads.
//! - **Four panels of queries per update.** `P` and `dS` of 128 queries are collected, so that `dK`
//!   and `dV` are loaded and stored once for all of these.
//! - **Transposed `dQ`.** `dS` has queries in the lanes, so `dQᵀ += Kᵀ·dS` reads K and `dS` as they
//!   are.
//! - **Fully masked keys** are multiplied by zeros in `dS`, which does not cancel an infinite
//!   number: if there is one, a clean copy of the block is used instead.

use super::AttentionShape;
use super::args::is_finite;
use super::forward::{keys_len, masked, pack_keys, pack_queries, product};
use super::heads::{Heads, HeadsMut};
use super::products::Exact;
use super::softmax::{BLOCK, Dropped, UpdateBackward};
use super::visible::Visible;
use crate::kernels::gemm::micro::{MAX_MR, MicroKernel, PANEL, TileArgs, within};
use crate::kernels::gemm::packing::{SLACK, Source, pack_panel, with_scratch};
use crate::kernels::gemm::plan::even;
use crate::kernels::parallel;
use crate::kernels::simd::Isa;

/// The number of panels of queries that share a block of keys before `dK` and `dV` are updated.
const PANELS: usize = 4;
/// The number of queries in these panels.
const WIDTH: usize = PANELS * PANEL;

/// The arguments of the backward pass.
pub(super) struct Args<'a> {
    pub(super) shape: &'a AttentionShape<'a>,
    pub(super) dout: Heads<'a>,
    pub(super) query: Heads<'a>,
    pub(super) key: Heads<'a>,
    pub(super) value: Heads<'a>,
    pub(super) out: Heads<'a>,
    pub(super) lse: &'a [f32],
    pub(super) dquery: HeadsMut<'a>,
    pub(super) dkey: HeadsMut<'a>,
    pub(super) dvalue: HeadsMut<'a>,
}

/// Computes all heads and sequences.
pub(super) fn run<K: MicroKernel>(kernel: K, args: &Args<'_>) {
    let shape = args.shape;
    parallel::for_each(shape.batch * shape.n_kv_heads, |task| {
        let (batch, kv_head) = (task / shape.n_kv_heads, task % shape.n_kv_heads);
        let (dkey, dkey_row) = args.dkey.at(batch, kv_head);
        let (dvalue, dvalue_row) = args.dvalue.at(batch, kv_head);
        for j in 0..shape.keys {
            for row in [dkey.wrapping_add(j * dkey_row), dvalue.wrapping_add(j * dvalue_row)] {
                // SAFETY: the rows of this head are this task's alone.
                unsafe { std::slice::from_raw_parts_mut(row, shape.head_dim).fill(0.0) };
            }
        }
        for head in kv_head * shape.group()..(kv_head + 1) * shape.group() {
            one_head(kernel, args, batch, head);
        }
        for j in 0..shape.keys {
            // SAFETY: as above.
            let row = unsafe { std::slice::from_raw_parts_mut(dkey.wrapping_add(j * dkey_row), shape.head_dim) };
            row.iter_mut().for_each(|x| *x *= shape.scale);
        }
    });
}

/// Computes the queries of one head.
fn one_head<K: MicroKernel>(kernel: K, args: &Args<'_>, batch: usize, head: usize) {
    let shape = args.shape;
    let (dim, total) = (shape.head_dim, shape.queries);
    let kv_head = head / shape.group();
    let (query, query_row) = args.query.at(batch, head);
    let (dout, dout_row) = args.dout.at(batch, head);
    let (out, out_row) = args.out.at(batch, head);
    let (key, key_row) = args.key.at(batch, kv_head);
    let (value, value_row) = args.value.at(batch, kv_head);
    let (dkey, dkey_row) = args.dkey.at(batch, kv_head);
    let (dvalue, dvalue_row) = args.dvalue.at(batch, kv_head);
    let visible = Visible::new(shape, batch, head);
    let panels = total.div_ceil(PANEL);
    let queries = |panel: usize| panel * PANEL..total.min((panel + 1) * PANEL);
    let all = visible.range(0..total);

    // For every panel of queries: scaled Qᵀ, dOᵀ, dQᵀ [dim, PANEL], lse and delta [PANEL].
    let panel_len = dim * PANEL + SLACK;
    // For a block of keys: K and V packed, scores, dP, mask [BLOCK, PANEL], P and dS [BLOCK,
    // WIDTH], one of them packed.
    let score_len = BLOCK * PANEL + SLACK;
    let packed_len = (BLOCK + MAX_MR) * WIDTH + SLACK;
    let spare_len = WIDTH * PANEL + SLACK;
    let block_len =
        2 * keys_len::<Exact<K>>(dim) + 3 * score_len + 2 * BLOCK * WIDTH + packed_len + spare_len + PANEL * dim;
    with_scratch(panels * (3 * panel_len + 2 * PANEL) + block_len, |scratch| {
        let (query_panels, rest) = scratch.split_at_mut(panels * panel_len);
        let (dout_panels, rest) = rest.split_at_mut(panels * panel_len);
        let (dquery_panels, rest) = rest.split_at_mut(panels * panel_len);
        let (lse_panels, rest) = rest.split_at_mut(panels * PANEL);
        let (delta_panels, rest) = rest.split_at_mut(panels * PANEL);
        let (keys, rest) = rest.split_at_mut(keys_len::<Exact<K>>(dim));
        let (values, rest) = rest.split_at_mut(keys_len::<Exact<K>>(dim));
        let (scores, rest) = rest.split_at_mut(score_len);
        let (dp, rest) = rest.split_at_mut(score_len);
        let (added, rest) = rest.split_at_mut(score_len);
        let (p, rest) = rest.split_at_mut(BLOCK * WIDTH);
        let (ds, rest) = rest.split_at_mut(BLOCK * WIDTH);
        let (packed, rest) = rest.split_at_mut(packed_len);
        let (spare, scaled) = rest.split_at_mut(spare_len);

        let lse = &args.lse[(batch * shape.n_heads + head) * total..][..total];
        for panel in 0..panels {
            let (own, lanes) = (panel * panel_len, queries(panel));
            // SAFETY: the rows are queries of this head; a panel has room for `dim` rows and the
            // slack.
            unsafe {
                // O temporarily uses the memory of dQ.
                let mut pack = |data: *const f32, row: usize, scale: f32, packed: &mut [f32]| {
                    let first = data.wrapping_add(lanes.start * row);
                    pack_queries(
                        Exact(kernel),
                        first,
                        row,
                        lanes.len(),
                        dim,
                        scale,
                        scaled,
                        &mut packed[own..][..panel_len],
                    );
                };
                pack(out, out_row, 1.0, dquery_panels);
                pack(dout, dout_row, 1.0, dout_panels);
                pack(query, query_row, shape.scale, query_panels);
            }
            let delta = &mut delta_panels[panel * PANEL..][..PANEL];
            delta.fill(0.0);
            let (o, d) = (&mut dquery_panels[own..][..dim * PANEL], &dout_panels[own..][..dim * PANEL]);
            for (o, d) in o.chunks_exact(PANEL).zip(d.chunks_exact(PANEL)) {
                for ((delta, o), d) in delta.iter_mut().zip(o).zip(d) {
                    *delta += o * d;
                }
            }
            o.fill(0.0);
            let unseen = |&x: &f32| if x == f32::NEG_INFINITY { f32::INFINITY } else { x };
            for (lane, x) in lse_panels[panel * PANEL..][..PANEL].iter_mut().enumerate() {
                *x = lse.get(panel * PANEL + lane).map_or(f32::INFINITY, unseen);
            }
        }

        for first_key in (all.start / BLOCK * BLOCK..all.end).step_by(BLOCK) {
            let last_key = all.end.min(first_key + BLOCK);
            let block = last_key - first_key;
            let mr = even(block, K::MR, 1);
            // SAFETY: the rows are keys of this head.
            unsafe {
                pack_keys(Exact(kernel), key.wrapping_add(first_key * key_row), key_row, block, dim, keys);
                pack_keys(Exact(kernel), value.wrapping_add(first_key * value_row), value_row, block, dim, values);
            }
            // A key that every query masks is multiplied by zeros in dS, which does not cancel an
            // infinite number: it is replaced by zeros.
            let mut clean = Vec::new();
            // SAFETY: a row of this head.
            let row = |j: usize| unsafe { std::slice::from_raw_parts(key.wrapping_add(j * key_row), dim) };
            if (first_key..last_key).any(|j| visible.hides(j) && !is_finite(row(j))) {
                (first_key..last_key).for_each(|j| match visible.hides(j) {
                    true => clean.resize(clean.len() + dim, 0.0),
                    false => clean.extend_from_slice(row(j)),
                });
            }
            let (seen_keys, seen_row) = match clean.is_empty() {
                true => (key.wrapping_add(first_key * key_row), key_row),
                false => (clean.as_ptr(), dim),
            };
            for first in (0..total).step_by(WIDTH) {
                let last = total.min(first + WIDTH);
                let range = visible.range(first..last);
                if range.end <= first_key || range.start >= last_key {
                    continue;
                }
                for column in 0..(last - first).div_ceil(PANEL) {
                    let panel = first / PANEL + column;
                    let (own, column) = (panel * panel_len, column * PANEL);
                    let range = visible.range(queries(panel));
                    let n = match range.start < last_key {
                        true => range.end.min(last_key).saturating_sub(first_key),
                        false => 0,
                    };
                    for j in n..block {
                        p[j * WIDTH + column..][..PANEL].fill(0.0);
                        ds[j * WIDTH + column..][..PANEL].fill(0.0);
                    }
                    if n == 0 {
                        continue;
                    }
                    let (scores, dp) = (&mut scores[..n * PANEL], &mut dp[..n * PANEL]);
                    // SAFETY: the packed keys have `n` rows, the packed panels are `dim` deep.
                    unsafe {
                        product(Exact(kernel), n, dim, keys, &query_panels[own..], scores);
                        product(Exact(kernel), n, dim, values, &dout_panels[own..], dp);
                    }
                    let see = first_key..first_key + n;
                    // SAFETY: `added` has room for a block and the slack.
                    let masked = unsafe { masked(kernel, &visible, queries(panel), see, added) };
                    let lanes = |x: &[f32]| std::array::from_fn(|lane| x[panel * PANEL + lane]);
                    kernel.isa().run(UpdateBackward {
                        scores,
                        dp,
                        masked,
                        dropped: Dropped::new(shape, batch * shape.n_heads + head, queries(panel).start, first_key),
                        lse: &lanes(lse_panels),
                        delta: &lanes(delta_panels),
                        p: &mut p[column..],
                        ds: &mut ds[column..],
                        ld: WIDTH,
                    });
                    let dr = even(dim, K::MR, 1);
                    for d in (0..dim).step_by(dr) {
                        for i in (0..PANEL).step_by(K::NR) {
                            let a = seen_keys.wrapping_add(d);
                            let b = ds[column + i..].as_ptr();
                            let c = dquery_panels[own + d * PANEL + i..].as_mut_ptr();
                            // SAFETY: `n` rows of K from `first_key` on and of dS; dQᵀ has rows to
                            // `dim`.
                            unsafe {
                                let (rows, k, lda, ldb) = (dr.min(dim - d), n, seen_row, WIDTH);
                                kernel.tile(TileArgs { rows, k, a, lda, b, ldb, c, ldc: PANEL, load: true });
                            };
                        }
                    }
                }
                // dV += Pᵀ·dO and dK += dSᵀ·Q over these queries.
                for (x, b, ldb, c, ldc) in
                    [(&*p, dout, dout_row, dvalue, dvalue_row), (&*ds, query, query_row, dkey, dkey_row)]
                {
                    for j in (0..block).step_by(mr) {
                        let rows = mr.min(block - j);
                        let source = Source { data: x[j * WIDTH..].as_ptr(), along: WIDTH, deep: 1 };
                        let (b, c) = (b.wrapping_add(first * ldb), c.wrapping_add((first_key + j) * ldc));
                        // SAFETY: `packed` has room for the panel; B has rows for the queries; the
                        // rows of C are ours.
                        unsafe {
                            pack_panel(kernel, source, rows, rows, last - first, packed.as_mut_ptr());
                            let a = packed.as_ptr();
                            let args = TileArgs { rows, k: last - first, a, lda: rows, b, ldb, c, ldc, load: true };
                            row_of_tiles(kernel, args, dim, spare);
                        }
                    }
                }
            }
        }

        let (dquery, dquery_row) = args.dquery.at(batch, head);
        for panel in 0..panels {
            let dq = &mut dquery_panels[panel * panel_len..][..dim * PANEL];
            dq.iter_mut().for_each(|x| *x *= shape.scale);
            // SAFETY: the rows of this head are this task's alone.
            unsafe { unpack(kernel, dq, dim, queries(panel), dquery, dquery_row) };
        }
    });
}

/// Writes `[dim, PANEL]`, queries in the lanes, to the queries' rows.
///
/// # Safety
///
/// * the rows `queries`, at most `PANEL`, of `dim` elements may be written.
unsafe fn unpack<K: MicroKernel>(
    kernel: K,
    packed: &[f32],
    dim: usize,
    queries: std::ops::Range<usize>,
    dst: *mut f32,
    row: usize,
) {
    assert!(packed.len() >= dim * PANEL && queries.len() <= PANEL);
    for lane in (0..queries.len()).step_by(16) {
        let n = (queries.len() - lane).min(16);
        let dst = dst.wrapping_add((queries.start + lane) * row);
        for d in (0..dim).step_by(16) {
            // SAFETY: blocks of sixteen are written whole, smaller ones element by element, inside
            // the rows.
            unsafe {
                let src = packed.as_ptr().add(d * PANEL + lane);
                if dim - d >= 16 {
                    kernel.transpose(src, PANEL, 16, n, dst.add(d), row);
                } else {
                    for i in 0..n {
                        for d2 in 0..dim - d {
                            *dst.add(i * row + d + d2) = *src.add(d2 * PANEL + i);
                        }
                    }
                }
            }
        }
    }
}

/// Computes [`MicroKernel::tile`] over all columns of C: `C[rows, cols] += A·B`, with B in place.
///
/// # Safety
///
/// Same as [`MicroKernel::tile`] for `cols` columns; if `cols` is no multiple of `NR`, `spare` has
/// room for `k` rows of a panel and the slack.
unsafe fn row_of_tiles<K: MicroKernel>(kernel: K, args: TileArgs, cols: usize, spare: &mut [f32]) {
    let TileArgs { k, b, ldb, c, .. } = args;
    let whole = cols / K::NR * K::NR;
    // SAFETY: the caller's promises; columns past the last whole tile are copied first.
    unsafe {
        for j in (0..whole).step_by(K::NR) {
            kernel.tile(TileArgs { b: b.add(j), c: c.add(j), ..args });
        }
        if whole < cols {
            assert!(spare.len() >= k * PANEL + SLACK);
            let source = Source { data: b.add(whole), along: 1, deep: ldb };
            pack_panel(kernel, source, cols - whole, PANEL, k, spare.as_mut_ptr());
            let last = TileArgs { b: spare.as_ptr(), ldb: PANEL, c: c.add(whole), ..args };
            within(last, (cols - whole, K::NR), |args| kernel.tile(args));
        }
    }
}
