//! Many queries: a task takes 128 of one head, in four panels that share each block of keys.

use super::Attention;
use super::heads::{Heads, HeadsMut};
use super::softmax::{BLOCK, Dropped, Masked, Rescale, Running, Update};
use super::visible::Visible;
use crate::kernels::gemm::driver::even;
use crate::kernels::gemm::micro::{MAX_MR, MicroKernel, PANEL, tile};
use crate::kernels::gemm::packing::{SLACK, Source, pack_panel, with_scratch};
use crate::kernels::parallel;
use crate::kernels::simd::Isa;

/// Panels of queries of a task.
const PANELS: usize = 4;

/// The arguments of the forward.
pub(super) struct Args<'a> {
    pub(super) shape: &'a Attention<'a>,
    pub(super) query: Heads<'a>,
    pub(super) key: Heads<'a>,
    pub(super) value: Heads<'a>,
    pub(super) out: HeadsMut<'a>,
    /// Null, or room for `[B, H, T]`.
    pub(super) lse: *mut f32,
}

// SAFETY: `lse` comes from a slice that outlives the call, each element of which belongs to one task.
unsafe impl Sync for Args<'_> {}

/// All heads and sequences.
pub(super) fn run<K: MicroKernel>(kernel: K, args: &Args<'_>) {
    let shape = args.shape;
    let blocks = shape.queries.div_ceil(PANELS * PANEL);
    parallel::for_each(shape.batch * shape.n_heads * blocks, |task| {
        let (batch, head) = (task / blocks / shape.n_heads, task / blocks % shape.n_heads);
        // The last queries first: with a causal mask they see the most keys.
        let first = (blocks - 1 - task % blocks) * PANELS * PANEL;
        block(kernel, args, batch, head, first);
    });
}

/// Up to `PANELS` panels of queries of one head, from `first` on.
fn block<K: MicroKernel>(kernel: K, args: &Args<'_>, batch: usize, head: usize, first: usize) {
    let shape = args.shape;
    let (dim, last) = (shape.head_dim, shape.queries.min(first + PANELS * PANEL));
    let (query, query_row) = args.query.at(batch, head);
    let kv_head = head / shape.group();
    let visible = Visible::new(shape, batch, head);
    let panels = (last - first).div_ceil(PANEL);
    let queries = |panel: usize| first + panel * PANEL..last.min(first + (panel + 1) * PANEL);

    // Panels of Qᵀ and Oᵀ [dim, PANEL]; a block of K, packed; scores and mask [BLOCK, PANEL].
    let panel_len = dim * PANEL + SLACK;
    let (key_len, score_len) = (keys_len(dim), BLOCK * PANEL + SLACK);
    with_scratch(2 * panels * panel_len + key_len + 2 * score_len, |scratch| {
        let (query_panels, rest) = scratch.split_at_mut(panels * panel_len);
        let (out_panels, rest) = rest.split_at_mut(panels * panel_len);
        let (keys, rest) = rest.split_at_mut(key_len);
        let (scores, added) = rest.split_at_mut(score_len);
        let mut running: [Running; PANELS] = std::array::from_fn(|_| Running::new());
        for (panel, packed) in query_panels.chunks_exact_mut(panel_len).enumerate() {
            // SAFETY: the rows are queries of this head; a panel has room for `dim` rows and the slack.
            unsafe { pack_queries(kernel, query, query_row, queries(panel), dim, shape.scale, packed) };
        }
        out_panels.fill(0.0);

        let all = visible.range(first..last);
        for first_key in (all.start / BLOCK * BLOCK..all.end).step_by(BLOCK) {
            let last_key = all.end.min(first_key + BLOCK);
            let mr = even(last_key - first_key, K::MR, 1);
            let (key, key_row) = args.key.block(batch, kv_head, first_key);
            let (value, value_row) = args.value.block(batch, kv_head, first_key);
            // SAFETY: the rows are keys of this head; `keys` has room for a block and the slack.
            unsafe { pack_keys(kernel, key, key_row, 0, last_key - first_key, mr, dim, keys) };
            for panel in 0..panels {
                let range = visible.range(queries(panel));
                let n = range.end.min(last_key).saturating_sub(first_key);
                if n == 0 || range.start >= last_key {
                    continue;
                }
                let scores = &mut scores[..n * PANEL];
                let packed = &query_panels[panel * panel_len..];
                // SAFETY: `keys` has the panels of A for `n` rows, `packed` is `dim` deep, `scores` has `n` rows.
                unsafe { product(kernel, n, mr, dim, keys, packed, scores) };

                let see = first_key..first_key + n;
                // SAFETY: the keys and queries exist, and `added` has room for a block and the slack.
                let masked = unsafe { masked(kernel, &visible, queries(panel), see, added) };
                let mut alpha = [0.0; PANEL];
                let running = &mut running[panel];
                let dropped = Dropped::new(shape, batch * shape.n_heads + head, queries(panel).start, first_key);
                let moved = kernel.isa().run(Update { scores, masked, dropped, running, alpha: &mut alpha });
                let out = &mut out_panels[panel * panel_len..][..dim * PANEL];
                if moved && first_key > all.start {
                    kernel.isa().run(Rescale { rows: out, factors: &alpha });
                }
                let dr = even(dim, K::MR, 1);
                for d in (0..dim).step_by(dr) {
                    let a = value.wrapping_add(d);
                    for i in (0..PANEL).step_by(K::NR) {
                        let (rows, c) = (dr.min(dim - d), out[d * PANEL + i..].as_mut_ptr());
                        // SAFETY: `n` rows of V from `first_key` on and of the scores; `out` has rows to `dim`.
                        unsafe { kernel.tile(rows, n, a, value_row, scores[i..].as_ptr(), PANEL, c, PANEL, true) };
                    }
                }
            }
        }

        for (panel, running) in running.iter().enumerate().take(panels) {
            let out = &mut out_panels[panel * panel_len..][..dim * PANEL];
            let factors = running.sum.map(|sum| if sum > 0.0 { 1.0 / sum } else { 0.0 });
            kernel.isa().run(Rescale { rows: out, factors: &factors });
            let (dst, row) = args.out.at(batch, head);
            // SAFETY: these rows of this head are this task's alone; so are these elements of `lse`.
            unsafe {
                unpack(kernel, out, dim, queries(panel), dst, row);
                if !args.lse.is_null() {
                    for (lane, i) in queries(panel).enumerate() {
                        let lse = running.max[lane] + running.sum[lane].ln();
                        *args.lse.add((batch * shape.n_heads + head) * shape.queries + i) = lse;
                    }
                }
            }
        }
    });
}

/// Packs `scale · Qᵀ`, `[dim, PANEL]`, the queries in the lanes.
///
/// # Safety
///
/// * the rows `queries`, at most `PANEL`, of `dim` elements may be read;
/// * `packed` has room for `dim · PANEL + SLACK` elements.
pub(super) unsafe fn pack_queries<K: MicroKernel>(
    kernel: K,
    query: *const f32,
    row: usize,
    queries: std::ops::Range<usize>,
    dim: usize,
    scale: f32,
    packed: &mut [f32],
) {
    assert!(packed.len() >= dim * PANEL + SLACK && queries.len() <= PANEL);
    let source = Source { data: query.wrapping_add(queries.start * row), along: row, deep: 1 };
    // SAFETY: the caller's promise and the assertion.
    unsafe { pack_panel(kernel, source, queries.len(), PANEL, dim, packed.as_mut_ptr()) };
    if scale != 1.0 {
        kernel.isa().run(Rescale { rows: &mut packed[..dim * PANEL], factors: &[scale; PANEL] });
    }
}

/// Elements of a packed block of keys.
pub(super) fn keys_len(dim: usize) -> usize {
    ((BLOCK + MAX_MR) * dim + SLACK).next_multiple_of(16)
}

/// Packs keys (or values) as panels of A, `mr` rows each, the last one too.
///
/// # Safety
///
/// * the rows `first..last`, at most `BLOCK`, of `dim` elements may be read.
pub(super) unsafe fn pack_keys<K: MicroKernel>(
    kernel: K,
    key: *const f32,
    row: usize,
    first: usize,
    last: usize,
    mr: usize,
    dim: usize,
    packed: &mut [f32],
) {
    assert!(packed.len() >= keys_len(dim) && last - first <= BLOCK && mr <= MAX_MR);
    for j in (first..last).step_by(mr) {
        let rows = mr.min(last - j);
        let source = Source { data: key.wrapping_add(j * row), along: row, deep: 1 };
        // SAFETY: the caller's promise; the last panel ends less than `MAX_MR` rows past the block, the slack beyond.
        unsafe { pack_panel(kernel, source, rows, mr, dim, packed.as_mut_ptr().add((j - first) * dim)) };
    }
}

/// `C[n, PANEL] = A·B` of packed keys and a packed panel of queries.
///
/// # Safety
///
/// * `a` holds the panels of `mr` rows of which the first `n` rows are wanted, `k` deep; `b` is `k` rows of `PANEL`.
pub(super) unsafe fn product<K: MicroKernel>(
    kernel: K,
    n: usize,
    mr: usize,
    k: usize,
    a: &[f32],
    b: &[f32],
    c: &mut [f32],
) {
    assert!(c.len() >= n * PANEL && b.len() >= k * PANEL && a.len() >= n * k);
    for j in (0..n).step_by(mr) {
        let rows = mr.min(n - j);
        for i in (0..PANEL).step_by(K::NR) {
            let (b, c) = (b[i..].as_ptr(), c[j * PANEL + i..].as_mut_ptr());
            // SAFETY: the caller's promises and the assertion.
            unsafe { kernel.tile(rows, k, a.as_ptr().add(j * k), mr, b, PANEL, c, PANEL, false) };
        }
    }
}

/// The masks that apply to these queries and keys, if any does.
///
/// # Safety
///
/// * `buffer` has room for `keys.len() · PANEL + SLACK` elements.
pub(super) unsafe fn masked<'a, K: MicroKernel>(
    kernel: K,
    visible: &'a Visible<'a>,
    queries: std::ops::Range<usize>,
    keys: std::ops::Range<usize>,
    buffer: &'a mut [f32],
) -> Option<Masked<'a>> {
    if visible.all(queries.clone(), keys.clone()) {
        return None;
    }
    let (first_query, first_key, n) = (queries.start, keys.start, keys.len());
    assert!(buffer.len() >= n * PANEL + SLACK);
    // SAFETY: the queries and keys are those of the shape, which was checked; the buffer is long enough.
    let has = unsafe { visible.added(kernel, queries, keys, buffer.as_mut_ptr()) };
    Some(Masked { visible, first_query, first_key, added: has.then_some(&buffer[..n * PANEL]) })
}

/// Writes `[dim, PANEL]`, queries in the lanes, to the queries' rows.
///
/// # Safety
///
/// * the rows `queries`, at most `PANEL`, of `dim` elements may be written.
pub(super) unsafe fn unpack<K: MicroKernel>(
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
            // SAFETY: blocks of sixteen are written whole, smaller ones element by element, inside the rows.
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

/// [`tile`] over all columns of C: `C[rows, cols] += A·B`, B in place.
///
/// # Safety
///
/// As [`MicroKernel::tile`] for `cols` columns; if `cols` is no multiple of `NR`, `spare` has room for `k` rows of a
/// panel and the slack.
pub(super) unsafe fn row_of_tiles<K: MicroKernel>(
    kernel: K,
    rows: usize,
    k: usize,
    a: *const f32,
    b: *const f32,
    ldb: usize,
    c: *mut f32,
    ldc: usize,
    load: bool,
    cols: usize,
    spare: &mut [f32],
) {
    let whole = cols / K::NR * K::NR;
    // SAFETY: the caller's promises; columns past the last whole tile are copied first.
    unsafe {
        for j in (0..whole).step_by(K::NR) {
            kernel.tile(rows, k, a, rows, b.add(j), ldb, c.add(j), ldc, load);
        }
        if whole < cols {
            assert!(spare.len() >= k * PANEL + SLACK);
            let source = Source { data: b.add(whole), along: 1, deep: ldb };
            pack_panel(kernel, source, cols - whole, PANEL, k, spare.as_mut_ptr());
            tile(kernel, rows, k, a, rows, spare.as_ptr(), PANEL, c.add(whole), ldc, load, cols - whole);
        }
    }
}
