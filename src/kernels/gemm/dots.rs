//! The loops around kernels of dot products: two bf16 or four int8 at a time, which one 32-bit group holds.
//!
//! As `driver`, with a group in the place of a number: packed A is `[groups, rows]`, packed B `[groups, PANEL]`.

use std::ops::Range;

use super::driver::even;
use super::micro::PANEL;
use super::packing::{SLACK, with_scratch};
use crate::kernels::parallel;

/// Groups of a block.
const KC: usize = 384;
/// Columns of a block.
const NC: usize = 512;
/// Groups times rows times columns below which a second thread does not pay.
const MIN_WORK: usize = 1 << 19;
/// The most rows of a tile, of any kernel.
const MAX_MR: usize = 32;

/// A register tile of sums of dot products of groups.
pub(super) trait DotKernel: Copy + Send + Sync {
    /// What sums are kept in: 32 bits.
    type Sum: Copy + Default + Send;
    /// Most rows of a tile.
    const MR: usize;
    /// Columns of a tile.
    const NR: usize;
    /// The number of groups that a step takes: packed factors are filled up with zeros to a multiple.
    const STEP: usize;
    /// Whether a packed panel of A is `[MR, groups]`, filled up with zero rows, instead of `[groups, rows]`.
    const ROWS_OF_A: bool;

    /// Called by each thread before its first tile; what it returns is dropped after the last.
    fn begin(self) -> impl Drop + Sized;

    /// `C[i, j] (+)= Σₚ dot(A[i, p], B[p, j])` over a tile of `rows` × `NR`, ascending in `p`.
    ///
    /// # Safety
    ///
    /// * between `begin` and the drop of its result; `1 <= rows <= MR`; `groups` is a multiple of `STEP`;
    /// * `a` is a packed panel of `rows` rows and `groups` groups; row `p` of B is `NR` groups at `p · PANEL`;
    /// * `c` may be read and written for `NR` elements at each `i · ldc`, `i < rows`.
    unsafe fn tile(
        self,
        rows: usize,
        groups: usize,
        a: *const u32,
        b: *const u32,
        c: *mut Self::Sum,
        ldc: usize,
        load: bool,
    );
}

/// The factors of a product of groups.
pub(super) trait Factors: Sync {
    /// Packs rows of A as `[groups, rows]`, or as `[MR, groups]`; groups past the end are zeros.
    ///
    /// # Safety
    ///
    /// * the rows are in A; `dst` has room for the panel and the slack.
    unsafe fn pack_a(&self, rows: Range<usize>, groups: Range<usize>, rows_of_a: bool, dst: *mut u32);
    /// Columns of B as `[groups, PANEL]`: packed into `dst`, or where they are; groups past the end are zeros.
    ///
    /// # Safety
    ///
    /// * the columns, at most `PANEL`, are in B; `dst` has room for the panel and the slack.
    unsafe fn panel_b(&self, cols: Range<usize>, groups: Range<usize>, dst: *mut u32) -> *const u32;
}

/// A result, row by row, and what is done with the parts of its rows when their sums are complete.
#[derive(Clone, Copy)]
pub(super) struct Output<S, F> {
    pub(super) c: *mut S,
    pub(super) load: bool,
    /// Called with row, first column and the sums.
    pub(super) finish: F,
}

// SAFETY: `c` comes from a slice that outlives the product, each element of which belongs to one task.
unsafe impl<S: Send, F: Sync> Sync for Output<S, F> {}

/// `C = A·B` for `m` × `k` groups and `k` groups × `n`.
///
/// # Safety
///
/// * `factors` are of these sizes; `output.c` has `m · n` elements that nothing else touches.
pub(super) unsafe fn product<K: DotKernel>(
    kernel: K,
    (m, k, n): (usize, usize, usize),
    factors: &impl Factors,
    output: &Output<K::Sum, impl Fn(usize, usize, &mut [K::Sum]) + Sync>,
) {
    if m == 0 || n == 0 {
        return;
    }
    let (tile_m, tile_n) = tiles::<K>(m, n, k);
    let (across, down) = (n.div_ceil(tile_n), m.div_ceil(tile_m));
    parallel::for_each(across * down, |task| {
        let rows = task % down * tile_m..m.min((task % down + 1) * tile_m);
        let cols = task / down * tile_n..n.min((task / down + 1) * tile_n);
        let _tiles = kernel.begin();
        // SAFETY: the tasks' tiles are disjoint parts of C.
        unsafe { block(kernel, k, n, factors, output, rows, cols) };
    });
}

/// The size of a task's tile of C.
fn tiles<K: DotKernel>(m: usize, n: usize, k: usize) -> (usize, usize) {
    let threads = parallel::threads();
    let work = m.saturating_mul(n).saturating_mul(k.max(1));
    if threads == 1 || work.max(n.saturating_mul(k) * 8) < MIN_WORK {
        return (m, n);
    }
    let wanted = (2 * threads).min((work.max(n * k * 8) / (MIN_WORK / 2)).max(1));
    let across = wanted.min(n.div_ceil(2 * PANEL)).max(1);
    let tile_n = n.div_ceil(across).next_multiple_of(PANEL);
    let down = wanted.div_ceil(n.div_ceil(tile_n)).min(m.div_ceil(2 * K::MR)).max(1);
    (m.div_ceil(down).next_multiple_of(K::MR).min(m), tile_n.min(n))
}

/// One tile of C, on this thread.
///
/// # Safety
///
/// As [`product`], for these rows and columns, which begin at a multiple of `PANEL`.
unsafe fn block<K: DotKernel>(
    kernel: K,
    k: usize,
    ldc: usize,
    factors: &impl Factors,
    output: &Output<K::Sum, impl Fn(usize, usize, &mut [K::Sum])>,
    rows: Range<usize>,
    cols: Range<usize>,
) {
    const { assert!(K::MR <= MAX_MR && PANEL.is_multiple_of(K::NR) && KC.is_multiple_of(K::STEP)) };
    let mr = even(rows.len(), K::MR, 1);
    let kc = even(k, KC, 16);
    let nc = even(cols.len(), NC, PANEL);
    let a_len = (K::MR * kc + SLACK).next_multiple_of(16);
    with_scratch(a_len + nc * kc + SLACK, |scratch| {
        let (a_panel, b_block) = scratch.split_at_mut(a_len);
        let mut panels = [std::ptr::null(); NC / PANEL];
        for jc in cols.clone().step_by(nc) {
            let nc = nc.min(cols.end - jc);
            for pc in (0..k.max(1)).step_by(kc.max(1)) {
                let last = pc + kc >= k;
                // Up to the end of the step: the packing fills up with zeros.
                let groups = pc..pc + kc.min(k - pc).next_multiple_of(K::STEP);
                for (panel, j) in panels.iter_mut().zip((0..nc).step_by(PANEL)) {
                    let dst = &mut b_block[j * kc..];
                    assert!(dst.len() >= PANEL * groups.len() + SLACK, "a panel of B with its slack");
                    let cols = jc + j..jc + nc.min(j + PANEL);
                    // SAFETY: the block lies in B; the length was just checked.
                    *panel = unsafe { factors.panel_b(cols, groups.clone(), dst.as_mut_ptr().cast()) };
                }
                for ic in rows.clone().step_by(mr) {
                    let own = ic..rows.end.min(ic + mr);
                    assert!(a_panel.len() >= K::MR * groups.len() + SLACK, "a panel of A with its slack");
                    let a = a_panel.as_mut_ptr().cast();
                    // SAFETY: the block lies in A; the length was just checked.
                    unsafe { factors.pack_a(own.clone(), groups.clone(), K::ROWS_OF_A, a) };
                    let load = pc > 0 || output.load;
                    for j in (0..nc).step_by(K::NR) {
                        let b = panels[j / PANEL].wrapping_add(j % PANEL);
                        let c = output.c.wrapping_add(ic * ldc + jc + j);
                        // SAFETY: the panels are as deep and wide as the kernel reads; the tile of C is ours.
                        unsafe { tile(kernel, own.len(), groups.len(), a, b, c, ldc, load, K::NR.min(nc - j)) };
                    }
                    if last {
                        for i in own {
                            // SAFETY: this part of a row is in our tile.
                            let row = unsafe { std::slice::from_raw_parts_mut(output.c.add(i * ldc + jc), nc) };
                            (output.finish)(i, jc, row);
                        }
                    }
                }
            }
        }
    });
}

/// [`DotKernel::tile`] for a tile of which only `cols` columns are in C.
///
/// # Safety
///
/// As there, C restricted to `cols` columns.
#[inline]
unsafe fn tile<K: DotKernel>(
    kernel: K,
    rows: usize,
    groups: usize,
    a: *const u32,
    b: *const u32,
    c: *mut K::Sum,
    ldc: usize,
    load: bool,
    cols: usize,
) {
    // SAFETY: the caller's promises; the copy has room for `MAX_MR` rows of a panel.
    unsafe {
        if cols == K::NR {
            return kernel.tile(rows, groups, a, b, c, ldc, load);
        }
        let mut copy = [K::Sum::default(); MAX_MR * PANEL];
        if load {
            for i in 0..rows {
                std::ptr::copy_nonoverlapping(c.add(i * ldc), copy.as_mut_ptr().add(i * PANEL), cols);
            }
        }
        kernel.tile(rows, groups, a, b, copy.as_mut_ptr(), PANEL, load);
        for i in 0..rows {
            std::ptr::copy_nonoverlapping(copy.as_ptr().add(i * PANEL), c.add(i * ldc), cols);
        }
    }
}
