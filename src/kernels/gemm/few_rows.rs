//! Products with so few rows of A (decoding: one a sequence) that the time is that of reading B.
//!
//! B is read once, in long runs, and never copied to memory; all of A is packed first and stays in cache. Threads share
//! the columns.
//!
//! - B row by row: a few rows at a time are read side by side from the first column to the last, while C, which is
//!   small, is loaded and stored from cache.
//! - B stored transposed, very few rows: sixteen columns at a time are transposed in registers.
//! - B stored transposed: 32 of its rows are transposed block by block, through registers, into a panel in the
//!   first-level cache that is used at once.

use std::ops::Range;

use super::Beta;
use super::driver::{even, tasks};
use super::f32::{Product, finish};
use super::micro::{MicroKernel, PANEL, tile};
use super::operand::Operand;
use super::packing::{SLACK, Source, pack_panel, with_scratch};
use crate::kernels::parallel;

/// Rows of B that are read side by side: few for the sake of the memory's prefetchers, more where C must be loaded and
/// stored for several rows each time.
fn streams(m: usize, ldb: usize) -> usize {
    match m {
        // Rows at a multiple of 4 KiB would push each other out of the first-level cache.
        0..=2 if (4 * ldb).is_multiple_of(2048) => 8,
        0..=2 => 16,
        3..=8 => 32,
        _ => 128,
    }
}
/// Elements of C that are updated while a few rows of B are read.
const RUN: usize = 8192;
/// Depth of a transposed panel.
const DEPTH: usize = 64;
/// Nanoseconds to read an element of B.
const NS: f32 = 0.2;

/// All of a product, or `batch` of them; `strides` lead from one to the next in A and B.
pub(super) fn product<K: MicroKernel>(kernel: K, first: &Product<'_>, batch: usize, strides: [usize; 2]) {
    let Product { m, n, k, .. } = *first;
    if m == 0 || n == 0 || batch == 0 {
        return;
    }
    let wanted = tasks(NS * batch as f32 * n as f32 * (k * m.div_ceil(4)) as f32).div_ceil(batch);
    let width = n.div_ceil(wanted).next_multiple_of(PANEL);
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

/// All rows of some columns of C, on this thread.
///
/// # Safety
///
/// `cols` are in C and begin at a multiple of `PANEL`, and nothing else touches C there.
unsafe fn block<K: MicroKernel>(kernel: K, product: &Product<'_>, cols: Range<usize>) {
    let Product { m, n: ldc, k, a, b, c, beta, .. } = *product;
    let mr = even(m, K::MR, 1);
    let a_len = (m * k + SLACK).next_multiple_of(16);
    with_scratch(a_len + PANEL * DEPTH + SLACK, |scratch| {
        let (a_packed, panel) = scratch.split_at_mut(a_len);
        let a_panels = if m == 1 && a.deep == 1 {
            a.data
        } else {
            for i in (0..m).step_by(mr) {
                let rows = mr.min(m - i);
                // SAFETY: the rows are in A; the panels before and this one have `m · k` elements, the slack follows.
                unsafe { pack_panel(kernel, a.at(0, i), rows, rows, k, a_packed.as_mut_ptr().wrapping_add(i * k)) };
            }
            a_packed.as_ptr()
        };
        // All rows of C at columns `j..j + used`, `k` from `pc` to `pc + depth`.
        let rows = |j: usize, used: usize, pc: usize, depth: usize, b: *const f32, ldb: usize| {
            for i in (0..m).step_by(mr) {
                let rows = mr.min(m - i);
                let a = a_panels.wrapping_add(i * k + pc * rows);
                let load = pc > 0 || beta == Beta::One;
                // SAFETY: the panel of A is packed for `k`; B is as `block`'s loops below say; C is ours.
                unsafe { tile(kernel, rows, depth, a, rows, b, ldb, c.wrapping_add(i * ldc + j), ldc, load, used) };
            }
        };
        let mut in_place = 0;
        if let Operand::F32(b @ Source { along: 1, .. }) = b {
            // Columns that whole tiles read in place.
            in_place = cols.len() / PANEL * PANEL;
            let streams = streams(m, b.deep);
            let run = (RUN / m).next_multiple_of(PANEL);
            for jc in (cols.start..cols.start + in_place).step_by(run) {
                let end = (jc + run).min(cols.start + in_place);
                for pc in (0..k.max(1)).step_by(streams) {
                    let depth = streams.min(k - pc);
                    for j in (jc..end).step_by(K::NR) {
                        rows(j, K::NR, pc, depth, b.at(pc, j).data, b.deep);
                    }
                }
            }
        }
        if let Operand::F32(b @ Source { deep: 1, .. }) = b
            && m <= K::COLUMNS_MR
        {
            // Columns that are transposed in registers.
            in_place = cols.len() / PANEL * PANEL;
            for j in (cols.start..cols.start + in_place).step_by(PANEL) {
                let (source, load) = (b.at(0, j).data, beta == Beta::One);
                // SAFETY: all of A is packed as one panel; the columns are in B and the tile of C is ours.
                unsafe { kernel.columns(m, k, a_panels, m, source, b.along, c.wrapping_add(j), ldc, load) };
            }
        }
        for j in (cols.start + in_place..cols.end).step_by(PANEL) {
            let used = PANEL.min(cols.end - j);
            for pc in (0..k.max(1)).step_by(DEPTH) {
                let depth = DEPTH.min(k - pc);
                // SAFETY: the block lies in B; the panel has room for `DEPTH` rows and the slack.
                let b = unsafe { b.panel(kernel, pc, depth, j, used, panel.as_mut_ptr()) };
                for jr in (0..used).step_by(K::NR) {
                    rows(j + jr, K::NR.min(used - jr), pc, depth, b.wrapping_add(jr), PANEL);
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
