//! The loops around the register tiles: one driver for every precision.
//!
//! Factors are read in 32-bit groups: one f32, two bf16, four int8. Packed A is `[groups, rows]`,
//! packed B `[groups, PANEL]`.
//!
//! # The plain algorithm
//!
//! ```text
//! for i in 0..m, j in 0..n:
//!     c = 0 (or C[i, j] to accumulate)
//!     for p in 0..k:  c = fma(A[i, p], B[p, j], c)
//!     C[i, j] = finish(c)
//! ```
//!
//! # With blocks
//!
//! ```text
//! tiles of C, one task each       (threads)
//!   for pc in steps of kc         a block of k
//!     for jc in steps of nc       columns whose panels of B fit into the second-level cache
//!       pack B[pc.., jc..] in panels of 32 columns
//!       for ic in steps of mr     a panel of A, packed for all jc, stays in the first-level cache
//!         for jr in steps of NR   the register tile
//!         after the last block of k: bias, activation, residual
//! ```
//!
//! - **Register tile.** A tile of `mr × NR` sums stays in registers for a block of `k`, so each
//!   load of A or B is used `NR` or `mr` times. A block of `k` ends by storing the sums and the
//!   next begins by loading them, so that the sums remain one chain.
//! - **Packing.** A packed panel is read contiguously, whatever the layout of the factor. Packing
//!   takes a pass over both factors: 12 % of the time in training, more in bf16, where factors are
//!   also rounded.
//! - **Shared packing.** Panels that several tasks need are packed once, before the tiles: all
//!   tasks take part in the packing, then continue with their tiles. This adds a point where tasks
//!   wait for each other, so [`Plan`] shares only what is small enough.
//! - **Several products with the same A** are computed as if their Bs were concatenated: A is
//!   packed once, and there is one wait at the end.
//! - **Prefetching C.** The next tile's part of C is prefetched while the current tile is computed,
//!   since it may not be in any cache.
//!
//! The module `plan` chooses the blocks and tasks.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::micro::{MAX_MR, MAX_NC, PANEL, TileArgs, TileKernel, within};
use super::packing::with_scratch;
use super::plan::{KC, Plan};
use crate::kernels::parallel;
use crate::kernels::prefetch::prefetch_ahead;

/// The factors of a product of groups.
pub(super) trait Factors: Copy + Sync {
    /// Returns whether `panel_b` packs; otherwise it returns the place of the panel in B.
    fn packs_b(&self) -> bool;

    /// Returns the number of groups that blocks of k begin and end at multiples of.
    fn unit(&self) -> usize {
        1
    }

    /// Returns the factors of the `i`-th product of a batch.
    fn batch(&self, _i: usize) -> Self {
        *self
    }

    /// Packs rows of A as `[groups, rows]`, or, with `rows_of_a`, row by row, with zero rows up to
    /// that number; groups past the end are zeros.
    ///
    /// # Safety
    ///
    /// * the rows are in A; `dst` has room for the panel and the slack.
    unsafe fn pack_a(&self, rows: Range<usize>, groups: Range<usize>, rows_of_a: Option<usize>, dst: *mut u32);

    /// Returns columns of B as `[groups, PANEL]`: packed into `dst`, or in place; groups past the
    /// end are zeros.
    ///
    /// # Safety
    ///
    /// * the columns, at most `PANEL`, are in B and begin at a multiple of it; `dst` has room for
    ///   the panel and the slack.
    unsafe fn panel_b(&self, cols: Range<usize>, groups: Range<usize>, dst: *mut u32) -> *const u32;
}

/// One of several products with the same A.
#[derive(Clone, Copy)]
pub(super) struct Part<F, S, E> {
    /// The number of columns.
    pub(super) n: usize,
    pub(super) factors: F,
    /// The result, row by row.
    pub(super) c: *mut S,
    pub(super) load: bool,
    /// Called with row, first column and the sums when the sums of a part of a row are complete.
    pub(super) finish: E,
}

// SAFETY: `c` comes from a slice that outlives the product, each element of which belongs to one
// task.
unsafe impl<F: Sync, S: Send, E: Sync> Sync for Part<F, S, E> {}

/// Returns, for the concatenated parts (each starting at the next whole panel), those that contain
/// some of the columns `cols`, with their first column and the range of their own columns.
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

/// Returns the number of columns of all parts together.
fn width<F, S, E>(parts: &[Part<F, S, E>]) -> usize {
    let Some((last, before)) = parts.split_last() else { return 0 };
    before.iter().map(|part| part.n.next_multiple_of(PANEL)).sum::<usize>() + last.n
}

/// The shared packing of all panels, in units that any thread can take.
struct Shared<'a, F, S, E> {
    plan: Plan,
    parts: &'a [Part<F, S, E>],
    /// Memory for the shared panels of A and of B.
    a: *mut u32,
    b: *mut u32,
    units: usize,
    next: AtomicUsize,
    done: AtomicUsize,
}

// SAFETY: every unit is packed by one thread, and read by others only after `done` has counted it.
unsafe impl<F: Sync, S: Send, E: Sync> Sync for Shared<'_, F, S, E> {}

/// The number of panels in a unit.
const UNIT: usize = 4;

impl<F: Factors, S, E> Shared<'_, F, S, E> {
    /// Takes part in the packing until it is complete.
    fn help<K: TileKernel>(&self) {
        loop {
            let unit = self.next.fetch_add(1, Ordering::Relaxed);
            if unit >= self.units {
                break;
            }
            // Counts the unit even if its packing panics, so that no thread waits for it forever.
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
        // SAFETY: the rows and columns are in the factors; each panel has room for itself and the
        // slack.
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

/// Computes [`product`] for all parts; parts that pack B are computed together, so that a task
/// packs its rows of A once and there is one wait at the end.
///
/// # Safety
///
/// Same as [`product`], but any of the parts may pack B.
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

/// Computes `C = A·B` for `m` × `k` groups and `k` groups × `n` of each part, where all or none of
/// the parts pack B; or for a batch of products of one part, with consecutive results.
///
/// # Safety
///
/// * the factors have these sizes, and A is the same in all parts; each `c` has `batch · m · n`
///   elements that nothing else accesses.
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

/// Computes one tile of the `i`-th products of the parts, on this thread.
///
/// # Safety
///
/// Same as [`product`], for these rows and columns, which begin at a multiple of `mr` and `PANEL`.
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
                    // SAFETY: the block is in B; a panel has room for itself and the slack.
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
                    // SAFETY: the block is in A; a panel has room for itself and the slack.
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
                        // The next tile's part of C may not be in any cache.
                        for row in 0..own.len() {
                            prefetch_ahead(c.wrapping_add(row * ldc + K::NR), K::NR);
                        }
                        // SAFETY: the panels are as deep and wide as the kernel reads; the tile of
                        // C is ours.
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
