//! Products with so few rows of A (in decoding: one per sequence) that reading B dominates the
//! time.
//!
//! # The plain algorithm
//!
//! ```text
//! for j in 0..n, i in 0..m:
//!     c = 0 (or C[i, j] to accumulate)
//!     for p in 0..k:  c = fma(A[i, p], B[p, j], c)
//!     C[i, j] = act(c + bias[j]) + residual[i, j]
//! ```
//!
//! B is read once, in long runs, and never copied to memory; all of A is packed first and stays in
//! cache. Threads share the columns. The loops depend on the layout of B:
//!
//! - **Packed** ([`by_panels`]): panel by panel, contiguously. This reaches the highest memory
//!   bandwidth, 57 to 66 GB/s where a plain loop over small pages reaches 41, but requires packing.
//! - **Row by row** ([`row_by_row`]): a few rows at a time are read from the first column to the
//!   last, while C, which is small, is loaded and stored in cache. The hardware prefetcher works
//!   within a row only, so tasks are wide, and for one row of A a single loop reads eight rows of
//!   B: 79 µs, where narrow tasks with a call for each tile took 107.
//! - **Stored transposed, very few rows** ([`by_columns`]): sixteen columns at a time are
//!   transposed in registers, where half-precision numbers are also converted to f32. Each
//!   multiply–add depends on the previous one, so sixteen columns limit the speed to sixteen bytes
//!   per cycle.
//! - **In blocks** ([`by_blocks`]): as stored transposed; portions of 32 columns are converted to
//!   f32 first (module `blocks`).
//! - **Stored transposed, more rows**: 32 rows of the stored matrix are transposed block by block,
//!   in registers, into a panel in the first-level cache that is used immediately.

use std::ops::Range;

use super::Beta;
use super::blocks::Blocks;
use super::micro::{MicroKernel, PANEL, TileArgs, within};
use super::operand::{Element, Group, Operand, Panels};
use super::packing::{SLACK, Source, pack_panel, with_scratch};
use super::panel_tile::{PANEL_MR, panel_tile};
use super::plan::{even, tasks_of};
use super::product::{Product, finish};
use crate::kernels::parallel;
use crate::kernels::prefetch::prefetch_ahead;
use crate::kernels::simd::{Isa, SimdOp};

/// Returns the number of rows of B that are read at the same time: few, for the hardware
/// prefetchers; more where C must be loaded and stored for several rows each time.
fn streams(m: usize, bytes: usize) -> usize {
    match m {
        // Rows at a distance of a multiple of 4 KiB would evict each other from the first-level
        // cache.
        0..=2 if bytes.is_multiple_of(2048) => 8,
        0..=2 => 16,
        3..=8 => 32,
        _ => 128,
    }
}
/// The number of elements of C that are updated while a few rows of B are read.
const RUN: usize = 8192;
/// The size, in bytes, from which on B is assumed to be in memory rather than in a cache.
const LARGE: usize = 1 << 25;
/// The number of elements from which on a row of B is long enough to be read separately.
const LONG: usize = 2048;
/// The depth of a transposed panel.
const DEPTH: usize = 64;
/// The time of one multiply–add, in nanoseconds.
const NS: f32 = 0.05;

/// Computes a product, or `batch` of them; `strides` are the distances between consecutive matrices
/// A and B.
pub(super) fn product<K: MicroKernel>(kernel: K, first: &Product<'_>, batch: usize, strides: [usize; 2]) {
    let Product { m, n, .. } = *first;
    if m == 0 || n == 0 || batch == 0 {
        return;
    }
    let width = width(first, n, batch);
    let across = n.div_ceil(width);
    parallel::for_each(batch * across, |task| {
        let (i, part) = (task / across, task % across);
        let mut one = *first;
        one.a.data = one.a.data.wrapping_add(i * strides[0]);
        one.b = one.b.offset(i * strides[1]);
        one.c = one.c.wrapping_add(i * m * n);
        // SAFETY: the tasks' columns are disjoint parts of C, inside the lengths that were checked.
        unsafe { block(kernel, &one, part * width..n.min((part + 1) * width)) };
    });
}

/// Computes products with the same A; the threads share the columns of all.
pub(super) fn each<K: MicroKernel>(kernel: K, products: &[Product<'_>]) {
    let Some(first) = products.first().filter(|first| first.m > 0) else { return };
    let width = width(first, products.iter().map(|product| product.n).sum(), 1);
    share_columns(products, width, |product, cols| {
        // SAFETY: the tasks' columns are disjoint parts of a C, inside the lengths that were
        // checked.
        unsafe { block(kernel, product, cols) }
    });
}

/// Calls `block` with the columns of each task: `width` columns of a product, or fewer at its end.
pub(super) fn share_columns(products: &[Product<'_>], width: usize, block: impl Fn(&Product<'_>, Range<usize>) + Sync) {
    let parts = |product: &Product<'_>| product.n.div_ceil(width);
    parallel::for_each(products.iter().map(parts).sum(), |mut part| {
        for product in products {
            if part < parts(product) {
                return block(product, part * width..product.n.min((part + 1) * width));
            }
            part -= parts(product);
        }
    });
}

/// Returns the number of columns of a task.
pub(super) fn share(m: usize, k: usize, n: usize, batch: usize) -> usize {
    let wanted = tasks_of(NS, (m, k, n), batch).div_ceil(batch);
    n.max(1).div_ceil(wanted).next_multiple_of(PANEL)
}

/// Same as [`share`], for products like `first` with `n` columns. Loops that read a part of each
/// row of B read long parts, because of the hardware prefetcher, but equally many on each thread.
fn width(first: &Product<'_>, n: usize, batch: usize) -> usize {
    let width = share(first.m, first.k, n, batch);
    if first.m > 2 || !first.b.is_row_by_row() {
        return width;
    }
    let threads = parallel::threads();
    let tasks = (n / LONG / threads).max(1) * threads;
    width.max(n.div_ceil(tasks)).next_multiple_of(PANEL)
}

/// Computes all rows of some columns of C, on this thread.
///
/// # Safety
///
/// `cols` are in C and begin at a multiple of `PANEL`, and nothing else accesses C there.
unsafe fn block<K: MicroKernel>(kernel: K, product: &Product<'_>, cols: Range<usize>) {
    let Product { m, n: ldc, k, a, b, c, beta, .. } = *product;
    // The number of rows of A at a time, and of columns of B that are read in place.
    let (mr, in_place) = match b {
        Operand::F32(Source { along: 1, .. }) => (K::MR, cols.len() / PANEL * PANEL),
        Operand::F16(Source { along: 1, .. }) | Operand::Bf16(Source { along: 1, .. }) => {
            (PANEL_MR.min(K::MR), cols.len() / PANEL * PANEL)
        }
        Operand::PanelsF16(_) | Operand::PanelsBf16(_) => (PANEL_MR.min(K::MR), cols.len() / PANEL * PANEL),
        // With more rows, or with tiles as wide as a panel, the general tiles are equally fast.
        Operand::PanelsF32(_) if K::NR < PANEL && m <= PANEL_MR => (PANEL_MR.min(K::MR), cols.len() / PANEL * PANEL),
        // With more rows, transposing into a panel is faster.
        Operand::F32(Source { deep: 1, .. }) if m <= K::COLUMNS_MR => (K::COLUMNS_MR, cols.len() / PANEL * PANEL),
        Operand::Blocks(_) if m <= K::COLUMNS_MR => (K::COLUMNS_MR, cols.len() / PANEL * PANEL),
        Operand::F16(Source { deep: 1, .. }) | Operand::Bf16(Source { deep: 1, .. }) if K::COLUMNS_MR > 0 => {
            (K::COLUMNS_MR, cols.len() / PANEL * PANEL)
        }
        _ => (K::MR, 0),
    };
    let mr = even(m, mr, 1);
    let a_len = (m * k + SLACK).next_multiple_of(16);
    let panel_depth = DEPTH.max(b.unit());
    with_scratch(a_len + PANEL * panel_depth + SLACK, |scratch| {
        let (a_packed, panel) = scratch.split_at_mut(a_len);
        let a_panels = if m == 1 && a.deep == 1 {
            a.data
        } else {
            for i in (0..m).step_by(mr) {
                let rows = mr.min(m - i);
                // SAFETY: the rows are in A; the panels before and this one have `m · k` elements,
                // the slack follows.
                unsafe { pack_panel(kernel, a.at(0, i), rows, rows, k, a_packed.as_mut_ptr().wrapping_add(i * k)) };
            }
            a_packed.as_ptr()
        };
        // Computes all rows of C at columns `j..j + used`, for `k` from `pc` to `pc + depth`.
        let rows = |j: usize, used: usize, pc: usize, depth: usize, b: *const f32| {
            for i in (0..m).step_by(mr) {
                let rows = mr.min(m - i);
                let a = a_panels.wrapping_add(i * k + pc * rows);
                let load = pc > 0 || beta == Beta::One;
                let c = c.wrapping_add(i * ldc + j);
                let args = TileArgs { rows, k: depth, a, lda: rows, b, ldb: PANEL, c, ldc, load };
                // SAFETY: the panel of A is packed for `k`; B is a panel, see the loops below; C is
                // ours.
                unsafe { within(args, (used, K::NR), |args| kernel.tile(args)) };
            }
        };
        let of_a = Rows { m, mr, k, packed: a_panels };
        let to = Tile { c, ldc, load: beta == Beta::One };
        let range = cols.start..cols.start + in_place;
        // SAFETY: whole panels of columns in B, and of C, which is ours; A is packed in panels of
        // `mr`.
        unsafe {
            match b {
                _ if in_place == 0 => {}
                Operand::F32(b) if b.along == 1 => {
                    row_by_row(kernel.isa(), &of_a, b, &to, range, |args| {
                        for j in (0..PANEL).step_by(K::NR) {
                            kernel.tile(TileArgs { b: args.b.add(j), c: args.c.add(j), ..args });
                        }
                    });
                }
                Operand::F16(b) if b.along == 1 => {
                    row_by_row(kernel.isa(), &of_a, b, &to, range, |args| panel_tile(kernel.isa(), args));
                }
                Operand::Bf16(b) if b.along == 1 => {
                    row_by_row(kernel.isa(), &of_a, b, &to, range, |args| panel_tile(kernel.isa(), args));
                }
                Operand::F32(b) => by_columns(kernel, &of_a, b, &to, range),
                Operand::F16(b) => by_columns(kernel, &of_a, b, &to, range),
                Operand::Bf16(b) => by_columns(kernel, &of_a, b, &to, range),
                Operand::Blocks(blocks) => by_blocks(kernel, &of_a, blocks, &to, range),
                Operand::PanelsF32(panels) => by_panels(kernel, &of_a, panels, &to, range),
                Operand::PanelsF16(panels) => by_panels(kernel, &of_a, panels, &to, range),
                Operand::PanelsBf16(panels) => by_panels(kernel, &of_a, panels, &to, range),
            }
        }
        for j in (cols.start + in_place..cols.end).step_by(PANEL) {
            let used = PANEL.min(cols.end - j);
            for pc in (0..k.max(1)).step_by(panel_depth) {
                let depth = panel_depth.min(k - pc);
                // SAFETY: the block is in B; the panel has room for its rows and the slack.
                let b = unsafe { b.panel(kernel, pc, depth, j, used, panel.as_mut_ptr()) };
                for jr in (0..used).step_by(K::NR) {
                    rows(j + jr, K::NR.min(used - jr), pc, depth, b.wrapping_add(jr));
                }
            }
        }
        for i in 0..m {
            // SAFETY: this part of a row is ours.
            let row = unsafe { std::slice::from_raw_parts_mut(c.wrapping_add(i * ldc + cols.start), cols.len()) };
            finish(kernel.isa(), &product.epilogue, row, i * ldc + cols.start, cols.start);
        }
    });
}

/// All of A, packed in panels of `mr` rows.
struct Rows {
    m: usize,
    mr: usize,
    k: usize,
    packed: *const f32,
}

impl Rows {
    /// Returns an iterator over the panels: first row, number of rows, and their place from column
    /// `p` on.
    fn panels(&self, p: usize) -> impl Iterator<Item = (usize, usize, *const f32)> {
        (0..self.m).step_by(self.mr).map(move |i| {
            let rows = self.mr.min(self.m - i);
            (i, rows, self.packed.wrapping_add(i * self.k + p * rows))
        })
    }
}

/// The output C.
struct Tile {
    c: *mut f32,
    ldc: usize,
    load: bool,
}

impl Rows {
    /// Calls the tile function for columns `j..j + PANEL` of C and rows `pc..pc + depth` of B at
    /// `b`: once for each panel of A.
    fn tiles<T>(
        &self,
        to: &Tile,
        j: usize,
        (pc, depth): (usize, usize),
        (b, ldb): (*const T, usize),
    ) -> impl Iterator<Item = TileArgs<f32, T>> {
        let (ldc, load) = (to.ldc, to.load || pc > 0);
        self.panels(pc).map(move |(i, rows, a)| {
            let c = to.c.wrapping_add(i * ldc + j);
            TileArgs { rows, k: depth, a, lda: rows, b, ldb, c, ldc, load }
        })
    }
}

/// Returns whether rows should be prefetched: the hardware prefetcher follows a run only within a
/// page, which is enough for a B in a cache.
#[inline(always)]
fn from_memory<T>(k: usize, b: Source<T>) -> bool {
    k * b.deep * size_of::<T>() >= LARGE
}

/// Computes columns for a B that is stored row by row; `tile` takes `PANEL` of them.
///
/// # Safety
///
/// * `cols` are whole panels in B and C, and nothing else accesses C there; `tile` accesses nothing
///   more.
unsafe fn row_by_row<I: Isa, T: Element>(
    isa: I,
    a: &Rows,
    b: Source<T>,
    to: &Tile,
    cols: Range<usize>,
    tile: impl Fn(TileArgs<f32, T>),
) {
    if a.m == 1 {
        return isa.run(OneRow { k: a.k, a: a.packed, b, c: to.c, load: to.load, cols });
    }
    let streams = streams(a.m, b.deep * size_of::<T>());
    let ahead = from_memory(a.k, b);
    let run = (RUN / a.m).next_multiple_of(PANEL);
    for jc in cols.clone().step_by(run) {
        for pc in (0..a.k.max(1)).step_by(streams) {
            let depth = streams.min(a.k - pc);
            for j in (jc..cols.end.min(jc + run)).step_by(PANEL) {
                if ahead {
                    for p in pc + depth..pc + 2 * depth {
                        prefetch_ahead(b.at(p, j).data, PANEL);
                    }
                }
                a.tiles(to, j, (pc, depth), (b.at(pc, j).data, b.deep)).for_each(&tile);
            }
        }
    }
}

/// One row of C and columns of a B that is stored row by row; panels and contract are those of
/// [`row_by_row`].
struct OneRow<T> {
    k: usize,
    a: *const f32,
    b: Source<T>,
    c: *mut f32,
    load: bool,
    cols: Range<usize>,
}

impl<T: Element> SimdOp for OneRow<T> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        /// The associativity of the first-level cache: the number of lines that it can hold at the
        /// same offset of rows at a distance of a multiple of 4 KiB.
        const ROWS: usize = 8;
        if self.k == 0 {
            return self.rows::<I, 0>(isa, 0);
        }
        let whole = self.k / ROWS * ROWS;
        for p in (0..whole).step_by(ROWS) {
            self.rows::<I, ROWS>(isa, p);
        }
        for p in whole..self.k {
            self.rows::<I, 1>(isa, p);
        }
    }
}

impl<T: Element> OneRow<T> {
    /// Adds the products with `R` rows of B, starting at row `p`.
    #[inline(always)]
    fn rows<I: Isa, const R: usize>(&self, isa: I, p: usize) {
        let ahead = from_memory(self.k, self.b);
        // SAFETY: the element is in A.
        let x: [_; R] = std::array::from_fn(|i| isa.splat(unsafe { *self.a.add(p + i) }));
        for j in self.cols.clone().step_by(2 * I::LANES) {
            // SAFETY: the rows and columns are in B and C; two vectors divide a panel.
            unsafe {
                let c = self.c.add(j);
                let mut acc = [isa.zero(); 2];
                if p > 0 || self.load {
                    acc = [isa.load_ptr(c), isa.load_ptr(c.add(I::LANES))];
                }
                for (i, &x) in x.iter().enumerate() {
                    let row = self.b.at(p + i, j).data;
                    if ahead {
                        prefetch_ahead(row.wrapping_add(R * self.b.deep), 2 * I::LANES);
                    }
                    acc[0] = isa.mul_add(x, T::load(isa, row), acc[0]);
                    acc[1] = isa.mul_add(x, T::load(isa, row.add(I::LANES)), acc[1]);
                }
                isa.store_ptr(c, acc[0]);
                isa.store_ptr(c.add(I::LANES), acc[1]);
            }
        }
    }
}

/// Computes columns for a B that is stored column by column.
///
/// # Safety
///
/// * `cols` are whole panels in B and C, and nothing else accesses C there; the panels of A have
///   `COLUMNS_MR` rows at most.
unsafe fn by_columns<K: MicroKernel, T: Element>(kernel: K, a: &Rows, b: Source<T>, to: &Tile, cols: Range<usize>) {
    for j in cols.step_by(PANEL) {
        for args in a.tiles(to, j, (0, a.k), (b.at(0, j).data, b.along)) {
            // SAFETY: the caller's promises.
            unsafe { kernel.columns(args) };
        }
    }
}

/// Computes columns for a B in blocks.
///
/// # Safety
///
/// Same as [`by_columns`].
unsafe fn by_blocks<K: MicroKernel>(kernel: K, a: &Rows, b: Blocks, to: &Tile, cols: Range<usize>) {
    for j in cols.step_by(PANEL) {
        let tiles = |part: Range<usize>, source: Source| {
            for args in a.tiles(to, j, (part.start, part.len()), (source.data, source.along)) {
                // SAFETY: the caller's promises; the source has these rows of the panel's columns.
                unsafe { kernel.columns(args) };
            }
        };
        // SAFETY: the caller's promises.
        unsafe { b.columns(kernel.isa(), 0..a.k, j..j + PANEL, tiles) };
    }
}

/// Computes columns for a packed B.
///
/// # Safety
///
/// * `cols` are whole panels in B and C, and nothing else accesses C there; the panels of A have
///   `PANEL_MR` rows at most.
unsafe fn by_panels<K: MicroKernel, G: Group>(kernel: K, a: &Rows, b: Panels<G>, to: &Tile, cols: Range<usize>) {
    for j in cols.step_by(PANEL) {
        for args in a.tiles(to, j, (0, a.k), (b.at(0, j), PANEL)) {
            // SAFETY: the caller's promises.
            unsafe { panel_tile(kernel.isa(), args) };
        }
    }
}
