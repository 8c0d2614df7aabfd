//! The blocks and tasks of a product.
//!
//! They never change a bit of the result: an element of C is one chain over `k`, whatever its block
//! or task. So each number here can be chosen freely, by the size of a cache or by a measurement
//! (`docs/lab/gemm.md`).

use std::ops::Range;

use super::micro::{MAX_NC, PANEL, TileKernel};
use super::packing::SLACK;
use crate::kernels::parallel;

/// The depth of a block of `k`, in groups: a panel of A of 14 rows is then 21 KiB and stays in a
/// first-level cache of 32 KiB. With AMX, depths from 64 to 384 are equally fast.
pub(super) const KC: usize = 384;
/// The largest number of groups of a factor that are packed before the tiles: 16 MiB.
const SHARED: usize = 1 << 22;
/// The number of rows below which tasks share rows rather than columns, so that each packs its own
/// B and finds it in its cache.
const FLAT: usize = 256;
/// The smallest number of rows of a task, if there are twice as many and B is packed. Each task
/// then packs its own rows of A without waiting, B is read once for that many rows, and the others
/// wait less for the last task. 64 instead of 128 made an encoder 1.02 (f32) to 1.06 times (bf16)
/// as fast. Columns are split only if there are many, unless threads would have no task.
const DOWN: usize = 64;
/// Same as [`DOWN`], for a B of at least [`LARGE`] groups, which every task reads from memory.
/// There is then one task per thread, since reading costs more than waiting for the last task. A
/// prompt of 512 tokens at 1.1B takes 0.78 of its time with 64 rows, and 0.94 of that with 128.
const DOWN_LARGE: usize = 256;
/// The number of groups of a large B: 8 MiB.
const LARGE: usize = 1 << 21;
/// The largest number of rows of a task, which keeps their packed panels of A for a block of k: 768
/// KiB.
const MOST_ROWS: usize = 512;
/// The time to read a group of B from memory, in nanoseconds: 20 GB/s.
const READ_NS: f32 = 0.2;

/// Splits `total` into equal parts of at most `most`, rounded up to a multiple of `unit`.
pub(in crate::kernels) fn even(total: usize, most: usize, unit: usize) -> usize {
    total.div_ceil(total.div_ceil(most).max(1)).next_multiple_of(unit)
}

/// Returns the number of tasks for work that takes `ns` nanoseconds on one thread.
fn tasks(ns: f32) -> usize {
    const PARTS: usize = 1 << 10;
    PARTS.div_ceil(parallel::chunk_len(PARTS, 1, ns / PARTS as f32))
}

/// Returns the number of tasks for `batch` products whose time is that of the arithmetic, `ns`
/// nanoseconds for a group of one row of A, or that of reading B, whichever is longer.
pub(super) fn tasks_of(ns: f32, (m, k, n): (usize, usize, usize), batch: usize) -> usize {
    tasks((ns * m as f32).max(READ_NS) * k as f32 * n as f32 * batch as f32)
}

/// The blocks and tasks of a product.
#[derive(Clone, Copy)]
pub(super) struct Plan {
    pub(super) m: usize,
    pub(super) k: usize,
    pub(super) n: usize,
    /// The number of rows of a panel of A, and of groups and columns of a block.
    pub(super) mr: usize,
    pub(super) kc: usize,
    pub(super) nc: usize,
    /// The number of tasks along the rows, which share the panels of A evenly, and the columns of a
    /// task.
    pub(super) down: usize,
    pub(super) tile_n: usize,
    /// The number of elements of a packed panel of A or B.
    pub(super) len_a: usize,
    pub(super) len_b: usize,
    pub(super) share_a: bool,
    pub(super) share_b: bool,
}

impl Plan {
    pub(super) fn new<K: TileKernel>(
        (m, k, n): (usize, usize, usize),
        batch: usize,
        packs_b: bool,
        unit: usize,
    ) -> Plan {
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

    /// Returns the numbers of blocks of k, panels of A, and panels of B.
    pub(super) fn counts(&self) -> (usize, usize, usize) {
        (self.k.div_ceil(self.kc.max(1)).max(1), self.m.div_ceil(self.mr), self.n.div_ceil(PANEL))
    }

    /// Returns the rows of a task: whole panels.
    pub(super) fn rows(&self, task: usize) -> Range<usize> {
        let (_, panels, _) = self.counts();
        let row = |task: usize| self.m.min(panels * task / self.down * self.mr);
        row(task)..row(task + 1)
    }

    /// Returns the groups of a block of k, rounded up to whole steps.
    pub(super) fn groups<K: TileKernel>(&self, block: usize) -> Range<usize> {
        let start = block * self.kc;
        start..start + self.kc.min(self.k - start).next_multiple_of(K::STEP)
    }
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

    /// The work of few rows is reading B, however fast the arithmetic is.
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
                // Work that is too little for two threads stays on one.
                assert_eq!(tasks::<AmxBf16>(1, 32, 64, true), 1);
            });
        }
    }
}
