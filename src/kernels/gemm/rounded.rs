//! Products of bf16 factors on processors that have instructions for them.
//!
//! Factors are rounded to bf16 (to nearest even) while they are packed, two to a 32-bit group. An
//! element of C is then one chain over the pairs in ascending order, as the instruction rounds it.
//! For `vdpbf16ps` of AVX-512 that is a chain over pairs; for `tdpbf16ps` of AMX a chain over steps
//! of 32 numbers, each the sum of an even and an odd chain of 16 (`micro/amx.rs`). So an element's
//! bits do not depend on the other rows, the tile or the threads, but they differ between a
//! processor with AMX and one with AVX-512 alone.

use std::ops::Range;

use super::Beta;
use super::driver::{self, Factors, Part};
use super::f32::FEW_ROWS;
use super::few_rows::{share, share_columns};
use super::micro::amx::AmxBf16;
use super::micro::avx512;
use super::micro::avx512_bf16::{Avx512Bf16, round_panel, round_run};
use super::micro::{ColumnsKernel, MicroKernel, PANEL, PanelsKernel, TileArgs, TileKernel, within};
use super::operand::{Operand, Panels};
use super::packing::{SLACK, Source, pack_panel, with_scratch};
use super::plan::even;
use super::product::{Product, finish};
use crate::kernels::simd::Avx512;

/// Computes products of rounded factors with the same A; returns false if the processor has no
/// instruction for them.
pub(super) fn each(products: &[Product<'_>]) -> bool {
    // Packing rounds with AVX512-BF16, which every processor with AMX has.
    let (Some(kernel), Some(isa)) = (Avx512Bf16::new(), Avx512::new()) else { return false };
    let pack = avx512::Tile(isa);
    let is_read_in_place = |product: &Product<'_>| product.m <= FEW_ROWS && Pairs::of(product.b, product.k).is_some();
    // Few rows use the instruction of many rows, because AMX tiles round differently from vectors.
    match (AmxBf16::new(), products.iter().all(is_read_in_place)) {
        (Some(kernel), true) => few_rows(kernel, pack, products),
        (Some(kernel), false) => run(kernel, pack, products),
        (None, true) => few_rows(kernel, pack, products),
        (None, false) => run(kernel, pack, products),
    }
    true
}

/// Computes products with few rows and a B in bf16 that is stored transposed or packed, and is read
/// in place as in `few_rows`.
fn few_rows<D: PanelsKernel<Sum = f32>>(kernel: D, pack: avx512::Tile, products: &[Product<'_>]) {
    let Some(&Product { m, k, .. }) = products.first().filter(|first| first.m > 0) else { return };
    let width = share(m, k, products.iter().map(|product| product.n).sum(), 1);
    share_columns(products, width, |product, cols| {
        // SAFETY: the tasks' columns are disjoint parts of a C, inside the lengths that were
        // checked.
        unsafe { block(kernel, pack, product, cols) }
    });
}

/// Computes all rows of some columns of C, on this thread.
///
/// # Safety
///
/// * `cols` are in C and begin at a multiple of `PANEL`, and nothing else accesses C there; B is
///   one of [`Pairs`].
unsafe fn block<D: PanelsKernel<Sum = f32>>(kernel: D, pack: avx512::Tile, product: &Product<'_>, cols: Range<usize>) {
    let Product { m, n, k, a, b, c, beta, epilogue } = *product;
    let pairs = Pairs::of(b, k).expect("the caller has looked");
    let (groups, load) = (k.div_ceil(2), beta == Beta::One);
    let padded = groups.next_multiple_of(D::STEP);
    let factors = Rounded { pack, a, b, k };
    let mr = even(m, D::ROWS, 1);
    // A last panel with fewer columns is packed.
    let in_place = match pairs {
        Pairs::Columns(_) => cols.start + cols.len() / PANEL * PANEL,
        Pairs::Panels(_) => cols.start,
    };
    let a_len = (m * padded + SLACK).next_multiple_of(16);
    with_scratch(a_len + PANEL * groups + SLACK, |scratch| {
        let (a_packed, panel) = scratch.split_at_mut(a_len);
        let (a_packed, panel): (*mut u32, *mut f32) = (a_packed.as_mut_ptr().cast(), panel.as_mut_ptr());
        let pack_a = |as_rows: bool| {
            for i in (0..m).step_by(mr) {
                let rows = i..m.min(i + mr);
                // SAFETY: the rows are in A; the panels before and this one have `m · padded`
                // elements, the slack follows.
                unsafe {
                    factors.pack_a(rows.clone(), 0..padded, as_rows.then_some(rows.len()), a_packed.add(i * padded))
                };
            }
        };
        // Computes rows starting at `i` and columns starting at `j`, for a B that is packed.
        let args = |i: usize, j: usize| {
            let (rows, a, c) = (mr.min(m - i), a_packed.wrapping_add(i * padded), c.wrapping_add(i * n + j));
            TileArgs { rows, k: groups, a, lda: rows, b: std::ptr::null(), ldb: PANEL, c, ldc: n, load }
        };
        if let Pairs::Columns(pairs) = pairs
            && in_place > cols.start
        {
            pack_a(false);
            let _begun = ColumnsKernel::begin(kernel, mr);
            for j in (cols.start..in_place).step_by(PANEL) {
                let source = pairs.at(0, j);
                for i in (0..m).step_by(mr) {
                    let (b, ldb) = (source.data.cast(), source.along);
                    // SAFETY: A is packed for these rows, the columns are in B, and this tile of C
                    // is ours.
                    unsafe { kernel.columns(TileArgs { b, ldb, ..args(i, j) }) };
                }
            }
        }
        if in_place < cols.end {
            pack_a(D::ROWS_OF_A);
            let _begun = PanelsKernel::begin(kernel, mr);
            for j in (in_place..cols.end).step_by(PANEL) {
                let used = PANEL.min(cols.end - j);
                let panel = match pairs {
                    Pairs::Panels(panels) => panels.at(0, j),
                    Pairs::Columns(pairs) => {
                        // SAFETY: the columns are in B; the panel has room for all pairs and the
                        // slack.
                        unsafe { pack_panel(pack, pairs.at(0, j), used, PANEL, groups, panel) };
                        panel.cast_const().cast()
                    }
                };
                for i in (0..m).step_by(mr) {
                    // SAFETY: A is packed for these rows, and this tile of C is ours.
                    unsafe { within(TileArgs { b: panel, ..args(i, j) }, (used, PANEL), |args| kernel.panel(args)) };
                }
            }
        }
        for i in 0..m {
            let at = i * n + cols.start;
            // SAFETY: this part of a row is ours.
            let row = unsafe { std::slice::from_raw_parts_mut(c.wrapping_add(at), cols.len()) };
            finish(pack.isa(), &epilogue, row, at, cols.start);
        }
    });
}

/// A B in bf16 in which two numbers that are adjacent in a column form a 32-bit group in memory.
#[derive(Clone, Copy)]
enum Pairs {
    /// Stored transposed.
    Columns(Source),
    /// Packed.
    Panels(Panels<u32>),
}

impl Pairs {
    fn of(b: Operand, k: usize) -> Option<Pairs> {
        match b {
            Operand::PanelsBf16(panels) => Some(Pairs::Panels(panels)),
            _ => pairs_of(b, k).map(Pairs::Columns),
        }
    }
}

/// Returns a B that is stored transposed in bf16 as a source of pairs of numbers, treated as 32-bit
/// numbers; `None` for any other B.
fn pairs_of(b: Operand, k: usize) -> Option<Source> {
    match b {
        Operand::Bf16(Source { data, along, deep: 1 }) if k.is_multiple_of(2) && along.is_multiple_of(2) => {
            Some(Source { data: data.cast(), along: along / 2, deep: 1 })
        }
        _ => None,
    }
}

fn run<D: TileKernel<Sum = f32>>(kernel: D, pack: avx512::Tile, products: &[Product<'_>]) {
    let Some(&Product { m, k, .. }) = products.first() else { return };
    let parts = products.iter().map(|product| {
        let Product { n, a, b, c, beta, epilogue, .. } = *product;
        let finish = move |i: usize, col: usize, row: &mut [f32]| finish(pack.isa(), &epilogue, row, i * n + col, col);
        Part { n, factors: Rounded { pack, a, b, k }, c, load: beta == Beta::One, finish }
    });
    // SAFETY: the products' shapes and lengths were checked; C is borrowed mutably as long as they
    // live.
    unsafe { driver::each(kernel, (m, k.div_ceil(2)), 1, parts) };
}

/// The factors, rounded during packing.
#[derive(Clone, Copy)]
struct Rounded {
    /// The kernel that transposes and converts to f32.
    pack: avx512::Tile,
    a: Source,
    b: Operand,
    /// The number of elements in a row of A.
    k: usize,
}

// SAFETY: the pointers come from slices that outlive the product and are only read.
unsafe impl Sync for Rounded {}

/// The number of groups that are converted at a time through f32 or rows.
const CHUNK: usize = 16;

impl Rounded {
    /// Returns the number of elements in a range of groups, up to the end of k.
    fn numbers(&self, groups: &Range<usize>) -> usize {
        self.k.saturating_sub(2 * groups.start).min(2 * groups.len())
    }

    /// Packs columns of a factor in f32 as `[groups, width]`; groups past the end of k are zeros.
    ///
    /// # Safety
    ///
    /// * the source begins with the first column and group, and has `used <= width` columns; `dst`
    ///   has room for the groups and the slack.
    unsafe fn pack(&self, source: Source, used: usize, width: usize, groups: Range<usize>, dst: *mut u32) {
        let numbers = self.numbers(&groups);
        let full = numbers.div_ceil(2);
        // SAFETY: the caller's promises; the token of `pack` comes with that of AVX512-BF16.
        unsafe {
            round_panel(source, used, width, numbers, dst);
            std::ptr::write_bytes(dst.add(full * width), 0, (groups.len() - full) * width);
        }
    }

    /// Packs A row by row, `groups` to a row, and zero rows up to `mr`.
    ///
    /// # Safety
    ///
    /// * the rows are in A; the number of groups is a multiple of `CHUNK`; `dst` has room for `mr`
    ///   rows and the slack.
    unsafe fn pack_rows(&self, rows: Range<usize>, groups: Range<usize>, mr: usize, dst: *mut u32) {
        let (width, len) = (rows.len(), groups.len());
        // SAFETY: the caller's promises; the buffer has room for a chunk and the slack.
        unsafe {
            if self.a.deep == 1 {
                let numbers = self.numbers(&groups);
                let used = numbers.div_ceil(2);
                for i in 0..width {
                    let row = dst.add(i * len);
                    round_run(self.a.at(2 * groups.start, rows.start + i).data, numbers, row);
                    std::ptr::write_bytes(row.add(used), 0, len - used);
                }
            } else {
                let mut buffer = [0u32; CHUNK * PANEL + SLACK];
                for first in (0..len).step_by(CHUNK) {
                    let chunk = groups.start + first..groups.start + first + CHUNK;
                    self.pack(self.a.at(2 * chunk.start, rows.start), width, width, chunk, buffer.as_mut_ptr());
                    for i in (0..width).step_by(16) {
                        let (src, dst) = (buffer.as_ptr().add(i), dst.add(i * len + first));
                        self.pack.transpose(src.cast(), width, CHUNK, (width - i).min(16), dst.cast(), len);
                    }
                }
            }
            std::ptr::write_bytes(dst.add(width * len), 0, (mr - width) * len);
        }
    }
}

impl Factors for Rounded {
    fn packs_b(&self) -> bool {
        !matches!(self.b, Operand::PanelsBf16(_))
    }

    fn unit(&self) -> usize {
        self.b.unit().div_ceil(2)
    }

    unsafe fn pack_a(&self, rows: Range<usize>, groups: Range<usize>, rows_of_a: Option<usize>, dst: *mut u32) {
        // SAFETY: the caller's promises.
        unsafe {
            match rows_of_a {
                Some(mr) => self.pack_rows(rows, groups, mr, dst),
                None => {
                    self.pack(self.a.at(2 * groups.start, rows.start), rows.len(), rows.len(), groups, dst);
                }
            }
        }
    }

    unsafe fn panel_b(&self, cols: Range<usize>, groups: Range<usize>, dst: *mut u32) -> *const u32 {
        match self.b {
            Operand::PanelsBf16(panels) if groups.end <= panels.k => return panels.at(groups.start, cols.start),
            // SAFETY: the caller's promises.
            Operand::F32(source) => unsafe {
                self.pack(source.at(2 * groups.start, cols.start), cols.len(), PANEL, groups, dst);
                return dst;
            },
            Operand::Blocks(blocks) => {
                let numbers = 2 * groups.start..2 * groups.start + self.numbers(&groups);
                let round = |part: Range<usize>, source: Source| {
                    let end = if part.end == numbers.end { groups.end } else { part.end / 2 };
                    let dst = dst.wrapping_add((part.start / 2 - groups.start) * PANEL);
                    // SAFETY: the caller's promises; the source has these columns' part of the
                    // numbers.
                    unsafe { self.pack(source, cols.len(), PANEL, part.start / 2..end, dst) };
                };
                // SAFETY: the numbers and columns are in B; blocks of k begin and end at whole
                // blocks.
                unsafe { blocks.columns(self.pack.isa(), numbers.clone(), cols.clone(), round) };
                return dst;
            }
            _ => {}
        }
        if let Some(pairs) = pairs_of(self.b, self.k)
            && 2 * groups.end <= self.k
        {
            // SAFETY: the caller's promises; pairs of numbers are transposed like single ones.
            unsafe {
                let source = pairs.at(groups.start, cols.start);
                pack_panel(self.pack, source, cols.len(), PANEL, groups.len(), dst.cast());
            }
            return dst;
        }
        // Converted through f32.
        let mut buffer = [0.0f32; 2 * CHUNK * PANEL + SLACK];
        for first in groups.clone().step_by(CHUNK) {
            let chunk = first..groups.end.min(first + CHUNK);
            // SAFETY: the caller's promises; the buffer has room for a chunk and the slack.
            unsafe {
                let (depth, buffer) = (self.numbers(&chunk), buffer.as_mut_ptr());
                let data = self.b.panel(self.pack, 2 * first, depth, cols.start, cols.len(), buffer);
                let source = Source { data, along: 1, deep: PANEL };
                self.pack(source, cols.len(), PANEL, chunk, dst.add((first - groups.start) * PANEL));
            }
        }
        dst
    }
}

#[cfg(test)]
mod tests {
    use half::bf16;

    use super::*;
    use crate::kernels::gemm::micro::amx::model::{Model, pairs};
    use crate::kernels::gemm::{Epilogue, Mat};

    /// Tests the layout of the pairs in AMX tiles, on processors that can round to bf16.
    #[test]
    fn amx_tiles_are_loaded_with_the_right_pairs() {
        let (Some(_), Some(isa)) = (Avx512Bf16::new(), Avx512::new()) else { return };
        for (m, k, n) in [(1, 1, 1), (3, 5, 7), (32, 32, 32), (33, 33, 31), (40, 130, 70), (70, 900, 40)] {
            let wave = |len: usize, step: f32| (0..len).map(|i| (i as f32 * step).sin()).collect::<Vec<_>>();
            let (a, b) = (wave(m * k, 0.731), wave(k * n, 0.0917));
            let half = |x: f32| bf16::from_f32(x).to_f32();
            for (turned_a, turned_b) in [(false, false), (false, true), (true, false), (true, true)] {
                let of = |x, turned, rows, cols| {
                    if turned { Mat::transposed(x, rows, cols) } else { Mat::new(x, rows, cols) }
                };
                let (left, right) = (of(&a, turned_a, m, k), of(&b, turned_b, k, n));
                let mut c = vec![7.0; m * n];
                let product = Product::new(left, right.operand(), n, &mut c, Beta::Zero, Epilogue::default());
                run(Model(pairs), avx512::Tile(isa), &[product]);
                for (i, j) in (0..m).flat_map(|i| (0..n).map(move |j| (i, j))) {
                    let expected = (0..k).fold(0.0f32, |sum, p| {
                        let x = if turned_a { a[p * m + i] } else { a[i * k + p] };
                        let y = if turned_b { b[j * k + p] } else { b[p * n + j] };
                        half(x).mul_add(half(y), sum)
                    });
                    assert_eq!(c[i * n + j], expected, "{i} {j} of {m} × {k} × {n}, {turned_a} {turned_b}");
                }
            }
        }
    }

    /// Computes an element as `tdpbf16ps` does: for each 32 numbers one chain of the even ones and
    /// one of the odd ones.
    fn element_of_tiles(c: f32, a: &[f32], b: &[f32]) -> f32 {
        let half = |x: f32| bf16::from_f32(x).to_f32();
        a.chunks(32).zip(b.chunks(32)).fold(c, |c, (a, b)| {
            let chain = |first: usize| {
                let pairs = a.iter().zip(b).skip(first).step_by(2);
                pairs.fold(0.0f32, |sum, (&x, &y)| half(x).mul_add(half(y), sum))
            };
            c + (chain(0) + chain(1))
        })
    }

    #[test]
    fn tiles_of_amx_round_as_their_documentation_says() {
        if AmxBf16::new().is_none() {
            eprintln!("SKIPPED: this processor has no AMX");
            return;
        }
        for (m, k, n) in [(1, 1, 1), (1, 96, 64), (3, 65, 45), (16, 34, 40), (17, 130, 33), (40, 900, 70)] {
            let wave = |len: usize, step: f32| (0..len).map(|i| (i as f32 * step).sin()).collect::<Vec<_>>();
            let (a, b, start) = (wave(m * k, 0.731), wave(n * k, 0.0917), wave(m * n, 1.3));
            let halves: Vec<bf16> = b.iter().map(|&x| bf16::from_f32(x)).collect();
            let packed = crate::kernels::gemm::PackedB::new(Mat::transposed(&halves, k, n));
            let factors: [crate::kernels::gemm::Factor<'_>; 3] =
                [Mat::transposed(&b, k, n).into(), Mat::transposed(&halves, k, n).into(), (&packed).into()];
            for factor in factors {
                let mut c = start.clone();
                let precision = crate::kernels::gemm::Precision::Bf16;
                crate::kernels::gemm::gemm_in(
                    precision,
                    Mat::new(&a, m, k),
                    factor,
                    &mut c,
                    Beta::One,
                    Epilogue::default(),
                );
                for (i, j) in (0..m).flat_map(|i| (0..n).map(move |j| (i, j))) {
                    let expected = element_of_tiles(start[i * n + j], &a[i * k..][..k], &b[j * k..][..k]);
                    assert_eq!(c[i * n + j].to_bits(), expected.to_bits(), "{i} {j} of {m} × {k} × {n}");
                }
            }
        }
    }
}
