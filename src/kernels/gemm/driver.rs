//! The loops around the register tiles, and the split over threads: one driver for every precision.
//!
//! What is multiplied comes in 32-bit groups: one f32, two bf16, four int8. Packed A is `[groups, rows]`, packed B
//! `[groups, PANEL]`.
//!
//! ```text
//! tiles of C, one task each                           (threads)
//!   for pc in steps of KC                             a block of k
//!     for jc in steps of NC                           columns whose panels of B fit in the second-level cache
//!       pack B[pc.., jc..] in panels of 32 columns
//!       for ic in steps of mr                         a panel of A, packed for all jc, stays in the first-level cache
//!         for jr in steps of NR                       the register tile
//!         after the last block of k: bias, activation, residual
//! ```
//!
//! What several tasks would pack is packed once, before: every task takes part in that until nothing is
//! left, then goes on to its tile. Several products of one A lie side by side, as if their Bs were one.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::micro::{MAX_MR, MAX_NC, PANEL, TileArgs, TileKernel, within};
use super::packing::{SLACK, with_scratch};
use crate::kernels::parallel;
use crate::kernels::prefetch::prefetch_ahead;

/// Groups of a block: a panel of A of this depth stays in a first-level cache of 32 KiB.
const KC: usize = 384;
/// The most groups of a factor that are packed before the tasks' tiles: 16 MiB.
const SHARED: usize = 1 << 22;
/// Rows below which tasks share rows rather than columns, so that each packs its own B and finds it in its cache.
const FLAT: usize = 256;
/// Rows that a task has at least, if there are twice as many and B is packed: then each packs its own rows of A and waits for nobody, and
/// B is read once for so many rows; the last to end keeps the others waiting for no longer. Columns are cut as far as they are many, or threads would be left without a task.
const DOWN: usize = 64;
/// The same for a B of so many groups that every task reads it from memory: then one task a thread, since the reading costs more than
/// waiting for the last to end.
const DOWN_LARGE: usize = 256;
/// Groups of such a B.
const LARGE: usize = 1 << 21;
/// The most rows of a task, whose packed panels of A it keeps for a block of k.
const MOST_ROWS: usize = 512;

/// The factors of a product of groups.
pub(super) trait Factors: Copy + Sync {
    /// Whether `panel_b` packs; if not, it returns where the panel is.
    fn packs_b(&self) -> bool;

    /// Blocks of k begin and end at multiples of this many groups.
    fn unit(&self) -> usize {
        1
    }

    /// The factors of the `i`-th product of a batch.
    fn batch(&self, _i: usize) -> Self {
        *self
    }

    /// Packs rows of A as `[groups, rows]`, or row by row with zero rows up to a number; groups past the end are zeros.
    ///
    /// # Safety
    ///
    /// * the rows are in A; `dst` has room for the panel and the slack.
    unsafe fn pack_a(&self, rows: Range<usize>, groups: Range<usize>, rows_of_a: Option<usize>, dst: *mut u32);

    /// Columns of B as `[groups, PANEL]`: packed into `dst`, or where they are; groups past the end are zeros.
    ///
    /// # Safety
    ///
    /// * the columns, at most `PANEL`, are in B and begin at a multiple of it; `dst` has room for the panel and the slack.
    unsafe fn panel_b(&self, cols: Range<usize>, groups: Range<usize>, dst: *mut u32) -> *const u32;
}

/// One of some products of the same A.
#[derive(Clone, Copy)]
pub(super) struct Part<F, S, E> {
    /// Columns.
    pub(super) n: usize,
    pub(super) factors: F,
    /// The result, row by row.
    pub(super) c: *mut S,
    pub(super) load: bool,
    /// What is done with the parts of its rows when their sums are complete: called with row, first column and the sums.
    pub(super) finish: E,
}

// SAFETY: `c` comes from a slice that outlives the product, each element of which belongs to one task.
unsafe impl<F: Sync, S: Send, E: Sync> Sync for Part<F, S, E> {}

/// The parts side by side, each from the next whole panel on: those that have some of the columns `cols`, where they begin, and which of
/// their own columns these are.
fn side_by_side<F, S, E>(
    parts: &[Part<F, S, E>],
    cols: Range<usize>,
) -> impl Iterator<Item = (&Part<F, S, E>, usize, Range<usize>)> {
    let mut end = 0;
    parts.iter().filter_map(move |part| {
        let start = end;
        end += part.n.next_multiple_of(PANEL);
        let own = cols.start.max(start) - start..cols.end.min(start + part.n).saturating_sub(start);
        (!own.is_empty()).then_some((part, start, own))
    })
}

/// The columns of all parts side by side.
fn width<F, S, E>(parts: &[Part<F, S, E>]) -> usize {
    let Some((last, before)) = parts.split_last() else { return 0 };
    before.iter().map(|part| part.n.next_multiple_of(PANEL)).sum::<usize>() + last.n
}

/// `total` cut into equal parts of at most `most`, rounded up to a multiple of `unit`.
pub(in crate::kernels) fn even(total: usize, most: usize, unit: usize) -> usize {
    total.div_ceil(total.div_ceil(most).max(1)).next_multiple_of(unit)
}

/// How many tasks are worth it for work that takes `ns` on one thread.
fn tasks(ns: f32) -> usize {
    const PARTS: usize = 1 << 10;
    PARTS.div_ceil(parallel::chunk_len(PARTS, 1, ns / PARTS as f32))
}

/// Nanoseconds to read a group of B from memory.
const READ_NS: f32 = 0.2;

/// How many tasks are worth it for `batch` products whose time is that of their arithmetic, `ns`
/// for a group of one row of A, or that of reading B, whichever is longer.
pub(super) fn tasks_of(ns: f32, (m, k, n): (usize, usize, usize), batch: usize) -> usize {
    tasks((ns * m as f32).max(READ_NS) * k as f32 * n as f32 * batch as f32)
}

/// How a product is cut.
#[derive(Clone, Copy)]
struct Plan {
    m: usize,
    k: usize,
    n: usize,
    /// Rows of a panel of A, groups and columns of a block.
    mr: usize,
    kc: usize,
    nc: usize,
    /// Tasks, one below the other, that share the panels of A evenly; columns of a task.
    down: usize,
    tile_n: usize,
    /// Elements of a packed panel of A or B.
    len_a: usize,
    len_b: usize,
    share_a: bool,
    share_b: bool,
}

impl Plan {
    fn new<K: TileKernel>((m, k, n): (usize, usize, usize), batch: usize, packs_b: bool, unit: usize) -> Plan {
        let wanted = tasks_of(K::NS, (m, k, n), batch).div_ceil(batch);
        let (mut down, mut tile_n) = (1, n);
        let (rows, most) = if k * n < LARGE { (DOWN, wanted) } else { (DOWN_LARGE, parallel::threads()) };
        if wanted > 1 && !packs_b && m >= 2 * rows {
            let wanted = wanted.min(most);
            down = wanted.min(m / rows);
            let wide = n.div_ceil(MAX_NC).max(parallel::threads().div_ceil(down));
            tile_n = even(n, n.div_ceil(wide.min(wanted.div_ceil(down))), PANEL);
        } else if wanted > 1 {
            let most = match m < FLAT {
                true => n.div_ceil(wanted).max(2 * PANEL),
                false => MAX_NC,
            };
            tile_n = even(n, most.min(n), PANEL);
            down = wanted.div_ceil(n.div_ceil(tile_n)).min(m.div_ceil(2 * K::MR));
        }
        let unit = unit.next_multiple_of(16);
        let kc = even(k, KC / unit * unit, unit);
        let (mr, nc) = (even(m, K::MR, 1), even(tile_n.min(n), K::NC, PANEL));
        let down = down.max(m.div_ceil(MOST_ROWS)).min(m.div_ceil(mr));
        Plan {
            m,
            k,
            n,
            mr,
            kc,
            nc,
            down,
            tile_n,
            len_a: (if K::ROWS_OF_A { K::MR } else { mr } * kc + SLACK).next_multiple_of(16),
            len_b: PANEL * kc + SLACK,
            share_a: batch == 1 && packs_b && n > tile_n && m * k <= SHARED,
            share_b: batch == 1 && down > 1 && packs_b && k * n <= SHARED,
        }
    }

    /// Blocks of k, panels of A, panels of B.
    fn counts(&self) -> (usize, usize, usize) {
        (self.k.div_ceil(self.kc.max(1)).max(1), self.m.div_ceil(self.mr), self.n.div_ceil(PANEL))
    }

    /// The rows of a task: whole panels.
    fn rows(&self, task: usize) -> Range<usize> {
        let (_, panels, _) = self.counts();
        let row = |task: usize| self.m.min(panels * task / self.down * self.mr);
        row(task)..row(task + 1)
    }

    /// The groups of a block of k, filled up to whole steps.
    fn groups<K: TileKernel>(&self, block: usize) -> Range<usize> {
        let start = block * self.kc;
        start..start + self.kc.min(self.k - start).next_multiple_of(K::STEP)
    }
}

/// The packing that is shared: of all panels, in units that any thread takes.
struct Shared<'a, F, S, E> {
    plan: Plan,
    parts: &'a [Part<F, S, E>],
    /// Room for all panels of A and of B, as far as they are shared.
    a: *mut u32,
    b: *mut u32,
    units: usize,
    next: AtomicUsize,
    done: AtomicUsize,
}

// SAFETY: every unit is packed by one thread, and read by others only after `done` says so.
unsafe impl<F: Sync, S: Send, E: Sync> Sync for Shared<'_, F, S, E> {}

/// Panels of a unit.
const UNIT: usize = 4;

impl<F: Factors, S, E> Shared<'_, F, S, E> {
    /// Takes part in the packing until all of it is done.
    fn help<K: TileKernel>(&self) {
        loop {
            let unit = self.next.fetch_add(1, Ordering::Relaxed);
            if unit >= self.units {
                break;
            }
            // Counts the unit even if its packing panics, so that nobody waits for it.
            struct Done<'a>(&'a AtomicUsize);
            impl Drop for Done<'_> {
                fn drop(&mut self) {
                    self.0.fetch_add(1, Ordering::Release);
                }
            }
            let _done = Done(&self.done);
            self.pack::<K>(unit);
        }
        let mut rounds = 0;
        while self.done.load(Ordering::Acquire) < self.units {
            rounds += 1;
            if rounds < 1000 { std::hint::spin_loop() } else { std::thread::yield_now() }
        }
    }

    fn pack<K: TileKernel>(&self, unit: usize) {
        let plan = &self.plan;
        let (_, panels_a, panels_b) = plan.counts();
        let per_block = |shared: bool, panels: usize| if shared { panels.div_ceil(UNIT) } else { 0 };
        let (units_a, units_b) = (per_block(plan.share_a, panels_a), per_block(plan.share_b, panels_b));
        let (block, unit) = (unit / (units_a + units_b), unit % (units_a + units_b));
        let groups = plan.groups::<K>(block);
        // SAFETY: the rows and columns are in the factors; each panel has room for itself and the slack.
        unsafe {
            if unit < units_a {
                for panel in unit * UNIT..panels_a.min((unit + 1) * UNIT) {
                    let rows = panel * plan.mr..plan.m.min((panel + 1) * plan.mr);
                    let dst = self.a.add((block * panels_a + panel) * plan.len_a);
                    self.parts[0].factors.pack_a(rows, groups.clone(), K::ROWS_OF_A.then_some(K::MR), dst);
                }
            } else {
                let unit = unit - units_a;
                for panel in unit * UNIT..panels_b.min((unit + 1) * UNIT) {
                    let dst = self.b.add((block * panels_b + panel) * plan.len_b);
                    for (part, _, cols) in side_by_side(self.parts, panel * PANEL..(panel + 1) * PANEL) {
                        part.factors.panel_b(cols, groups.clone(), dst);
                    }
                }
            }
        }
    }
}

/// [`product`] of all parts: together where B is packed in each, so that a task packs its rows of A once and there is one end to wait for.
///
/// # Safety
///
/// As there, but any of them may pack B.
pub(super) unsafe fn each<K: TileKernel, F: Factors, E: Fn(usize, usize, &mut [K::Sum]) + Sync>(
    kernel: K,
    shape: (usize, usize),
    batch: usize,
    parts: impl Iterator<Item = Part<F, K::Sum, E>>,
) {
    let parts: Vec<_> = parts.collect();
    let together = if parts.iter().any(|part| part.factors.packs_b()) { 1 } else { parts.len().max(1) };
    // SAFETY: the caller's promises.
    parts.chunks(together).for_each(|parts| unsafe { product(kernel, shape, batch, parts) });
}

/// `C = A·B` for `m` × `k` groups and `k` groups × `n` of each part, all of which pack B or none; or `batch` of one part, the results one
/// after the other.
///
/// # Safety
///
/// * the factors are of these sizes, A the same in all; each `c` has `batch · m · n` elements that nothing else touches.
unsafe fn product<K: TileKernel, F: Factors, E: Fn(usize, usize, &mut [K::Sum]) + Sync>(
    kernel: K,
    (m, k): (usize, usize),
    batch: usize,
    parts: &[Part<F, K::Sum, E>],
) {
    let n = width(parts);
    if m == 0 || n == 0 || batch == 0 {
        return;
    }
    let unit = parts.iter().map(|part| part.factors.unit()).max().unwrap_or(1);
    let plan = Plan::new::<K>((m, k, n), batch, parts[0].factors.packs_b(), unit);
    let (blocks, panels_a, panels_b) = plan.counts();
    let len = |shared: bool, panels: usize, len: usize| if shared { blocks * panels * len } else { 0 };
    let (a_len, b_len) = (len(plan.share_a, panels_a, plan.len_a), len(plan.share_b, panels_b, plan.len_b));
    with_scratch(a_len + b_len, |scratch| {
        let (a, b) = scratch.split_at_mut(a_len);
        let units = |shared: bool, panels: usize| if shared { blocks * panels.div_ceil(UNIT) } else { 0 };
        let shared = &Shared {
            plan,
            parts,
            a: a.as_mut_ptr().cast(),
            b: b.as_mut_ptr().cast(),
            units: units(plan.share_a, panels_a) + units(plan.share_b, panels_b),
            next: AtomicUsize::new(0),
            done: AtomicUsize::new(0),
        };
        let (across, down) = (n.div_ceil(plan.tile_n), plan.down);
        parallel::for_each(batch * across * down, |task| {
            let (i, tile) = (task / (across * down), task % (across * down));
            let rows = plan.rows(tile % down);
            let cols = tile / down * plan.tile_n..n.min((tile / down + 1) * plan.tile_n);
            shared.help::<K>();
            let _begun = kernel.begin();
            // SAFETY: the tasks' tiles are disjoint parts of C.
            unsafe { block(kernel, shared, i, rows, cols) };
        });
    });
}

/// One tile of the parts' `i`-th products, on this thread.
///
/// # Safety
///
/// As [`product`], for these rows and columns, which begin at a multiple of `mr` and `PANEL`.
unsafe fn block<K: TileKernel, F: Factors, E: Fn(usize, usize, &mut [K::Sum])>(
    kernel: K,
    shared: &Shared<'_, F, K::Sum, E>,
    i: usize,
    rows: Range<usize>,
    cols: Range<usize>,
) {
    const { assert!(K::MR <= MAX_MR && K::NC <= MAX_NC && PANEL.is_multiple_of(K::NR) && KC.is_multiple_of(K::STEP)) };
    let plan = shared.plan;
    let (blocks, panels_a, panels_b) = plan.counts();
    let nc = plan.nc;
    let own_a = if plan.share_a { 0 } else { rows.len().div_ceil(plan.mr) * plan.len_a };
    let own_b = if plan.share_b { 0 } else { nc / PANEL * plan.len_b };
    with_scratch(own_a + own_b, |scratch| {
        let (own_a, own_b) = scratch.split_at_mut(own_a);
        let mut panels = [std::ptr::null(); MAX_NC / PANEL];
        for block in 0..blocks {
            let groups = plan.groups::<K>(block);
            let of_parts = side_by_side(shared.parts, cols.clone());
            for (part, start, jc, nc) in of_parts.flat_map(|(part, start, cols)| {
                cols.clone().step_by(nc).map(move |jc| (part, start, jc, nc.min(cols.end - jc)))
            }) {
                let (factors, c, ldc) = (part.factors.batch(i), part.c.wrapping_add(i * plan.m * part.n), part.n);
                for (panel, j) in (0..nc).step_by(PANEL).enumerate() {
                    let cols = jc + j..jc + nc.min(j + PANEL);
                    // SAFETY: the block lies in B; a panel has room for itself and the slack.
                    panels[panel] = unsafe {
                        if plan.share_b {
                            let panel = (start + cols.start) / PANEL;
                            shared.b.add((block * panels_b + panel) * plan.len_b).cast_const()
                        } else {
                            let dst = own_b[panel * plan.len_b..][..plan.len_b].as_mut_ptr().cast();
                            factors.panel_b(cols, groups.clone(), dst)
                        }
                    };
                }
                for (panel, ic) in rows.clone().step_by(plan.mr).enumerate() {
                    let own = ic..rows.end.min(ic + plan.mr);
                    // SAFETY: the block lies in A; a panel has room for itself and the slack.
                    let a = unsafe {
                        if plan.share_a {
                            shared.a.add((block * panels_a + ic / plan.mr) * plan.len_a)
                        } else {
                            let dst = own_a[panel * plan.len_a..][..plan.len_a].as_mut_ptr().cast();
                            if start + jc == cols.start {
                                factors.pack_a(own.clone(), groups.clone(), K::ROWS_OF_A.then_some(K::MR), dst);
                            }
                            dst
                        }
                    };
                    let load = block > 0 || part.load;
                    for j in (0..nc).step_by(K::NR) {
                        let b = panels[j / PANEL].wrapping_add(j % PANEL);
                        let c = c.wrapping_add(ic * ldc + jc + j);
                        // The next tile's part of C may be in no cache.
                        for row in 0..own.len() {
                            prefetch_ahead(c.wrapping_add(row * ldc + K::NR), K::NR);
                        }
                        // SAFETY: the panels are as deep and wide as the kernel reads; the tile of C is ours.
                        unsafe {
                            let (rows, k) = (own.len(), groups.len());
                            let args = TileArgs { rows, k, a, lda: rows, b, ldb: PANEL, c, ldc, load };
                            within(args, (K::NR.min(nc - j), K::NR), |args| kernel.tile(args));
                        };
                    }
                    if block + 1 == blocks {
                        for i in own {
                            // SAFETY: this part of a row is in our tile.
                            let row = unsafe { std::slice::from_raw_parts_mut(c.add(i * ldc + jc), nc) };
                            (part.finish)(i, jc, row);
                        }
                    }
                }
            }
        }
    });
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::*;
    use crate::kernels::gemm::micro::amx::{AmxBf16, AmxI8};
    use crate::kernels::gemm::micro::avx512_bf16::Avx512Bf16;
    use crate::kernels::gemm::micro::int8_x86::Avx2Int8;

    fn tasks<K: TileKernel>(m: usize, k: usize, n: usize, packs_b: bool) -> usize {
        let plan = Plan::new::<K>((m, k, n), 1, packs_b, 1);
        plan.down * n.div_ceil(plan.tile_n)
    }

    /// However fast its arithmetic is: the work of few rows is reading B.
    #[test]
    fn few_rows_get_every_thread_whatever_the_instruction() {
        for threads in [2, 8, 56] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads");
            pool.install(|| {
                for (m, packs_b) in [1, 4, 16].into_iter().flat_map(|m| [(m, false), (m, true)]) {
                    let found = [
                        tasks::<AmxBf16>(m, 2048, 4096, packs_b),
                        tasks::<AmxI8>(m, 2048, 4096, packs_b),
                        tasks::<Avx512Bf16>(m, 2048, 4096, packs_b),
                        tasks::<Avx2Int8>(m, 2048, 4096, packs_b),
                    ];
                    assert!(found.iter().all(|&n| n >= threads), "{m} rows, {threads} threads: {found:?} tasks");
                }
                // What is no work for two threads stays on one.
                assert_eq!(tasks::<AmxBf16>(1, 32, 64, true), 1);
            });
        }
    }
}
