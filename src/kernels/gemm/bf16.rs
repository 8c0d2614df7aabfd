//! Products of bf16, summed in f32: twice the rate of f32 and more where the processor has an instruction for them.
//!
//! Factors are rounded to bf16 (to nearest even) while they are packed, two to a 32-bit group. An element of C is then
//! one chain over the pairs in ascending order, as the instruction rounds it: its bits do not depend on the other rows,
//! the tile or the threads, but they do on the instruction. Without one the factors are not rounded and the product is
//! that in f32.

use std::ops::Range;

use super::Beta;
use super::driver::{self, Factors, Output, TileKernel};
use super::f32::{self, FEW_ROWS, Product, finish};
use super::micro::{MicroKernel, PANEL};
use super::operand::Operand;
use super::packing::{SLACK, Source, pack_panel};

/// How exactly the factors of a product are read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Precision {
    /// As they are.
    #[default]
    F32,
    /// Rounded to bf16 where the processor multiplies that faster; sums are in f32.
    Bf16,
}

impl Precision {
    /// Whether factors are rounded in this precision, on this processor.
    pub fn rounds(self) -> bool {
        self == Precision::Bf16 && has_instruction()
    }
}

#[cfg(target_arch = "x86_64")]
fn has_instruction() -> bool {
    super::micro::avx512_bf16::Avx512Bf16::new().is_some()
}

#[cfg(not(target_arch = "x86_64"))]
fn has_instruction() -> bool {
    false
}

/// One product.
pub(super) fn product(precision: Precision, product: Product<'_>) {
    if precision == Precision::F32 || !rounded(&product) {
        f32::product(product, 1, [0; 2]);
    }
}

/// One product of rounded factors; false if the processor has no instruction for it.
#[cfg(target_arch = "x86_64")]
fn rounded(product: &Product<'_>) -> bool {
    use super::micro::{amx::AmxBf16, avx512, avx512_bf16::Avx512Bf16};
    use crate::kernels::simd::Avx512;
    // The packing rounds with AVX512-BF16, which every processor with AMX has.
    let (Some(kernel), Some(isa)) = (Avx512Bf16::new(), Avx512::new()) else { return false };
    let pack = avx512::Tile(isa);
    match (AmxBf16::new(), pairs_of(product.b, product.k)) {
        (Some(kernel), _) => run(kernel, pack, product),
        // The instruction of few rows is that of many here; a tile of AMX rounds otherwise.
        (None, Some(pairs)) if product.m <= FEW_ROWS => few_rows(kernel, pack, product, pairs),
        (None, _) => run(kernel, pack, product),
    }
    true
}

/// Products with few rows of a B that is stored transposed in bf16: read where it lies, as in `few_rows`.
#[cfg(target_arch = "x86_64")]
fn few_rows(
    kernel: super::micro::avx512_bf16::Avx512Bf16,
    pack: super::micro::avx512::Tile,
    product: &Product<'_>,
    pairs: Source,
) {
    use super::few_rows::share;
    use super::micro::avx512_bf16::Avx512Bf16;
    use super::packing::with_scratch;
    use crate::kernels::parallel;

    let Product { m, n, k, a, b, beta, epilogue, .. } = *product;
    if m == 0 || n == 0 {
        return;
    }
    /// The pointer is the product's.
    struct Shared(Source);
    // SAFETY: as for `Product`.
    unsafe impl Sync for Shared {}
    let (groups, load, pairs) = (k / 2, beta == Beta::One, &Shared(pairs));
    let factors = Rounded { pack, a, b, k };
    let width = share(m, k, n, 1);
    parallel::for_each(n.div_ceil(width), |part| {
        let (factors, product) = (&factors, product);
        let cols = part * width..n.min((part + 1) * width);
        let a_len = (m * groups + SLACK).next_multiple_of(16);
        let mr = driver::even(m, Avx512Bf16::COLUMNS_MR, 1);
        with_scratch(a_len + PANEL * groups + SLACK, |scratch| {
            let (a_packed, panel) = scratch.split_at_mut(a_len);
            let a_packed: *mut u32 = a_packed.as_mut_ptr().cast();
            for i in (0..m).step_by(mr) {
                // SAFETY: the rows are in A; the panels before and this one have `m · groups` elements, the slack follows.
                unsafe { factors.pack_a(i..m.min(i + mr), 0..groups, None, a_packed.add(i * groups)) };
            }
            for j in cols.clone().step_by(PANEL) {
                let used = PANEL.min(cols.end - j);
                let source = pairs.0.at(0, j);
                for i in (0..m).step_by(mr) {
                    let (rows, c) = (mr.min(m - i), product.c.wrapping_add(i * n + j));
                    // SAFETY: A is packed for these rows, the columns are in B, and this tile of C is ours; a panel has room for
                    // all pairs and the slack.
                    unsafe {
                        let a = a_packed.add(i * groups);
                        if used == PANEL {
                            kernel.columns(rows, groups, a, source.data.cast(), source.along, c, n, load);
                        } else {
                            let panel = panel.as_mut_ptr();
                            pack_panel(pack, source, used, PANEL, groups, panel);
                            driver::tile(kernel, rows, groups, a, panel.cast(), c, n, load, used);
                        }
                    }
                }
            }
            for i in 0..m {
                let at = i * n + cols.start;
                // SAFETY: this part of a row is ours.
                let row = unsafe { std::slice::from_raw_parts_mut(product.c.wrapping_add(at), cols.len()) };
                finish(pack.isa(), &epilogue, row, at, cols.start);
            }
        });
    });
}

/// A B that is stored transposed in bf16, its rows as pairs of numbers that pass for one of 32 bits; `None` if it is another.
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
fn pairs_of(b: Operand, k: usize) -> Option<Source> {
    match b {
        Operand::Bf16(Source { data, along, deep: 1 }) if k.is_multiple_of(2) && along.is_multiple_of(2) => {
            Some(Source { data: data.cast(), along: along / 2, deep: 1 })
        }
        _ => None,
    }
}

/// One product of rounded factors; false if the processor has no instruction for it.
#[cfg(not(target_arch = "x86_64"))]
fn rounded(_: &Product<'_>) -> bool {
    false
}

#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
fn run<D: TileKernel<Sum = f32>, K: MicroKernel>(kernel: D, pack: K, product: &Product<'_>) {
    let Product { m, n, k, a, b, c, beta, epilogue } = *product;
    let factors = Rounded { pack, a, b, k };
    let finish = |i: usize, col: usize, row: &mut [f32]| finish(pack.isa(), &epilogue, row, i * n + col, col);
    let output = Output { c, load: beta == Beta::One, finish };
    // SAFETY: the product's shapes and lengths were checked; C is borrowed mutably as long as it lives.
    unsafe { driver::product(kernel, (m, k.div_ceil(2), n), 1, &factors, &output) };
}

/// The factors, rounded as they are packed.
#[derive(Clone, Copy)]
struct Rounded<K> {
    /// What transposes and widens.
    pack: K,
    a: Source,
    b: Operand,
    /// Elements of a row of A.
    k: usize,
}

// SAFETY: the pointers come from slices that outlive the product and are only read.
unsafe impl<K: Sync> Sync for Rounded<K> {}

/// Groups that pass through f32 at a time.
const CHUNK: usize = 16;

impl<K: MicroKernel> Rounded<K> {
    /// Packs groups `[groups, width]`; `rows` gives rows `pc..pc + depth` in f32, in its buffer or elsewhere.
    ///
    /// # Safety
    ///
    /// * `dst` has room for the groups and the slack; `rows` returns `depth` rows of `width`, of which `used` matter.
    unsafe fn pack(
        &self,
        width: usize,
        groups: Range<usize>,
        dst: *mut u32,
        rows: impl Fn(usize, usize, *mut f32) -> *const f32,
    ) {
        let mut buffer = [0.0f32; 2 * CHUNK * PANEL + SLACK];
        for (chunk, first) in groups.clone().step_by(CHUNK).enumerate() {
            let n = CHUNK.min(groups.end - first);
            let depth = self.k.saturating_sub(2 * first).min(2 * n);
            let mut src = buffer.as_ptr();
            if depth > 0 {
                src = rows(2 * first, depth, buffer.as_mut_ptr());
            }
            // SAFETY: the caller's promises; `join_rows` runs where the kernel does.
            unsafe {
                let dst = dst.add(chunk * CHUNK * width);
                if depth < 2 * n {
                    // The end of k: what is missing is zero.
                    std::ptr::copy(src, buffer.as_mut_ptr(), depth * width);
                    buffer[depth * width..2 * n * width].fill(0.0);
                    src = buffer.as_ptr();
                }
                join_rows(src, width, n, dst);
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
use super::micro::avx512_bf16::{join_rows, round_run};

/// See `micro::avx512_bf16::join_rows`.
///
/// # Safety
///
/// As there.
#[cfg(not(target_arch = "x86_64"))]
unsafe fn join_rows(src: *const f32, width: usize, groups: usize, dst: *mut u32) {
    for (p, i) in (0..groups).flat_map(|p| (0..width).map(move |i| (p, i))) {
        // SAFETY: the caller's promise.
        unsafe {
            let half = |row: usize| half::bf16::from_f32(*src.add(row * width + i)).to_bits();
            *dst.add(p * width + i) = u32::from(half(2 * p)) | u32::from(half(2 * p + 1)) << 16;
        }
    }
}

/// See `micro::avx512_bf16::round_run`.
///
/// # Safety
///
/// As there.
#[cfg(not(target_arch = "x86_64"))]
unsafe fn round_run(x: *const f32, len: usize, groups: *mut u32) {
    for i in 0..len.div_ceil(2) {
        // SAFETY: the caller's promise.
        unsafe {
            let half = |i: usize| if i < len { half::bf16::from_f32(*x.add(i)).to_bits() } else { 0 };
            *groups.add(i) = u32::from(half(2 * i)) | u32::from(half(2 * i + 1)) << 16;
        }
    }
}

impl<K: MicroKernel> Rounded<K> {
    /// Packs A row by row, `groups` to a row, and zero rows up to `mr`.
    ///
    /// # Safety
    ///
    /// * the rows are in A; the number of groups is a multiple of `CHUNK`; `dst` has room for `mr` rows and the slack.
    unsafe fn pack_rows(&self, rows: Range<usize>, groups: Range<usize>, mr: usize, dst: *mut u32) {
        let (width, len) = (rows.len(), groups.len());
        let elements = self.k.saturating_sub(2 * groups.start).min(2 * len);
        // SAFETY: the caller's promises; the buffer has room for a chunk and the slack.
        unsafe {
            if self.a.deep == 1 {
                for i in 0..width {
                    let row = dst.add(i * len);
                    round_run(self.a.at(2 * groups.start, rows.start + i).data, elements, row);
                    let used = elements.div_ceil(2);
                    std::ptr::write_bytes(row.add(used), 0, len - used);
                }
            } else {
                let mut buffer = [0u32; CHUNK * PANEL + SLACK];
                for first in (0..len).step_by(CHUNK) {
                    let chunk = groups.start + first..groups.start + first + CHUNK;
                    self.pack(width, chunk, buffer.as_mut_ptr(), |pc, depth, buffer| {
                        pack_panel(self.pack, self.a.at(pc, rows.start), width, width, depth, buffer);
                        buffer
                    });
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

impl<K: MicroKernel> Factors for Rounded<K> {
    fn packs_b(&self) -> bool {
        !matches!(self.b, Operand::PanelsBf16(_))
    }

    unsafe fn pack_a(&self, rows: Range<usize>, groups: Range<usize>, rows_of_a: Option<usize>, dst: *mut u32) {
        if let Some(mr) = rows_of_a {
            // SAFETY: the caller's promises.
            return unsafe { self.pack_rows(rows, groups, mr, dst) };
        }
        let width = rows.len();
        // SAFETY: the caller's promises; the buffer has room for the chunk and the slack.
        unsafe {
            self.pack(width, groups, dst, |pc, depth, buffer| {
                pack_panel(self.pack, self.a.at(pc, rows.start), width, width, depth, buffer);
                buffer
            })
        }
    }

    unsafe fn panel_b(&self, cols: Range<usize>, groups: Range<usize>, dst: *mut u32) -> *const u32 {
        if let Operand::PanelsBf16(panels) = self.b
            && groups.end <= panels.k
        {
            return panels.at(groups.start, cols.start);
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
        // SAFETY: as above.
        unsafe {
            self.pack(PANEL, groups, dst, |pc, depth, buffer| {
                self.b.panel(self.pack, pc, depth, cols.start, cols.len(), buffer)
            });
        }
        dst
    }
}
