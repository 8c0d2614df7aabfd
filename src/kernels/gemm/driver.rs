//! The loops around the micro-kernel, and the split over threads.
//!
//! ```text
//! tiles of C, one task each                           (threads)
//!   for jc in steps of NC                             columns whose panels of B fit in the second-level cache
//!     for pc in steps of KC                           a block of k
//!       pack B[pc.., jc..] in panels of 32 columns
//!       for ic in steps of mr                         a panel of A, packed into the first-level cache
//!         for jr in steps of NR                       the micro-kernel
//!         after the last block of k: bias, activation, residual
//! ```

use std::ops::Range;

use super::micro::{KernelOp, MicroKernel, PANEL, with_kernel};
use super::operand::Operand;
use super::packing::{SLACK, Source, pack_panel, with_scratch};
use super::{Beta, Epilogue, Mat, few_rows};
use crate::kernels::parallel;
use crate::kernels::simd::{Isa, SimdOp};
use crate::kernels::vecmath::Activation;

/// Depth of a block: a panel of A of this depth stays in a first-level cache of 32 KiB.
const KC: usize = 384;
/// Columns of a block: with `KC`, what stays in a second-level cache of 1 MiB.
const NC: usize = 512;
/// Rows of A up to which the time is that of reading B.
const FEW_ROWS: usize = 16;
/// Multiply–adds below which a second thread does not pay.
const MIN_WORK: usize = 1 << 19;

/// One product, as the loops see it.
#[derive(Clone, Copy)]
pub(super) struct Product<'a> {
    pub(super) m: usize,
    pub(super) n: usize,
    pub(super) k: usize,
    pub(super) a: Source,
    pub(super) b: Operand,
    pub(super) c: *mut f32,
    pub(super) beta: Beta,
    pub(super) epilogue: Epilogue<'a>,
}

// SAFETY: the pointers come from slices that outlive the product: A and B are only read, and each element of C belongs
// to one task.
unsafe impl Sync for Product<'_> {}

impl<'a> Product<'a> {
    /// The shapes and lengths were checked by the caller.
    pub(super) fn new(a: Mat<'a>, b: Operand, n: usize, c: &'a mut [f32], beta: Beta, epilogue: Epilogue<'a>) -> Self {
        let (along, deep) = if a.transposed { (1, a.ld) } else { (a.ld, 1) };
        let source = Source { data: a.data.as_ptr(), along, deep };
        Product { m: a.rows, n, k: a.cols, a: source, b, c: c.as_mut_ptr(), beta, epilogue }
    }
}

/// Runs `batch` products; `strides` lead from one to the next in A, B and C.
pub(super) fn product(first: Product<'_>, batch: usize, strides: [usize; 3]) {
    with_kernel(Run { first, batch, strides });
}

struct Run<'a> {
    first: Product<'a>,
    batch: usize,
    strides: [usize; 3],
}

impl KernelOp for Run<'_> {
    type Output = ();

    fn run<K: MicroKernel>(self, kernel: K) {
        let Run { first, batch, strides } = self;
        let (m, n) = (first.m, first.n);
        if m == 0 || n == 0 || batch == 0 {
            return;
        }
        let few = m <= FEW_ROWS;
        let (tile_m, tile_n) =
            if few { (m, few_rows::columns(n, first.k, batch)) } else { tiles(m, n, first.k, batch, kernel) };
        let (across, down) = (n.div_ceil(tile_n), m.div_ceil(tile_m));
        let first = &first;
        parallel::for_each(batch * across * down, |task| {
            let (i, tile) = (task / (across * down), task % (across * down));
            let rows = tile % down * tile_m..m.min((tile % down + 1) * tile_m);
            let cols = tile / down * tile_n..n.min((tile / down + 1) * tile_n);
            let mut one = *first;
            one.a.data = one.a.data.wrapping_add(i * strides[0]);
            one.b = one.b.offset(i * strides[1]);
            one.c = one.c.wrapping_add(i * strides[2]);
            // SAFETY: the tasks' tiles are disjoint parts of C, inside the lengths that were checked.
            unsafe { if few { few_rows::block(kernel, &one, cols) } else { block(kernel, &one, rows, cols) } };
        });
    }
}

/// The size of a task's tile of C.
fn tiles<K: MicroKernel>(m: usize, n: usize, k: usize, batch: usize, _: K) -> (usize, usize) {
    let threads = parallel::threads();
    let work = m.saturating_mul(n).saturating_mul(k.max(1)).saturating_mul(batch);
    if threads == 1 || work < MIN_WORK || batch >= 4 * threads {
        return (m, n);
    }
    // Two tasks a thread, so that one that is held up does not hold up all; columns first: B is packed by column.
    let wanted = (2 * threads).div_ceil(batch).min(work / (MIN_WORK / 2));
    let across = wanted.min(n.div_ceil(2 * PANEL)).max(1);
    let tile_n = n.div_ceil(across).next_multiple_of(PANEL);
    let down = wanted.div_ceil(n.div_ceil(tile_n)).min(m.div_ceil(2 * K::MR)).max(1);
    (m.div_ceil(down).next_multiple_of(K::MR).min(m), tile_n.min(n))
}

/// `total` cut into equal parts of at most `most`, rounded up to a multiple of `unit`.
pub(in crate::kernels) fn even(total: usize, most: usize, unit: usize) -> usize {
    total.div_ceil(total.div_ceil(most).max(1)).next_multiple_of(unit)
}

/// One tile of C, on this thread.
///
/// # Safety
///
/// `rows` and `cols` are in C, `cols` begins at a multiple of `PANEL`, and nothing else touches C there.
unsafe fn block<K: MicroKernel>(kernel: K, product: &Product<'_>, rows: Range<usize>, cols: Range<usize>) {
    let Product { n: ldc, k, a, b, c, beta, .. } = *product;
    let mr = even(rows.len(), K::MR, 1);
    let kc = even(k, KC, 8);
    let nc = even(cols.len(), NC, PANEL);
    let a_len = (mr * kc.min(k) + SLACK).next_multiple_of(16);
    let b_len = nc * kc.min(k) + SLACK;
    with_scratch(a_len + b_len, |scratch| {
        let (a_panel, b_block) = scratch.split_at_mut(a_len);
        let mut panels = [std::ptr::null(); NC / PANEL];
        for jc in cols.clone().step_by(nc) {
            let nc = nc.min(cols.end - jc);
            for pc in (0..k.max(1)).step_by(kc.max(1)) {
                let kc = kc.min(k - pc);
                for (panel, j) in panels.iter_mut().zip((0..nc).step_by(PANEL)) {
                    let dst = &mut b_block[j * kc..];
                    assert!(dst.len() >= PANEL * kc + SLACK, "a panel of B with its slack");
                    // SAFETY: the block lies in B; the length was just checked.
                    *panel = unsafe { b.panel(kernel, pc, kc, jc + j, PANEL.min(nc - j), dst.as_mut_ptr()) };
                }
                for ic in rows.clone().step_by(mr) {
                    let mr = mr.min(rows.end - ic);
                    assert!(a_panel.len() >= mr * kc + SLACK, "a panel of A with its slack");
                    // SAFETY: the block lies in A; the length was just checked.
                    unsafe { pack_panel(kernel, a.at(pc, ic), mr, mr, kc, a_panel.as_mut_ptr()) };
                    let load = pc > 0 || beta == Beta::One;
                    for j in (0..nc).step_by(K::NR) {
                        let b = panels[j / PANEL].wrapping_add(j % PANEL);
                        let c = c.wrapping_add(ic * ldc + jc + j);
                        // SAFETY: the panels are as deep and wide as the kernel reads; the tile of C is ours.
                        unsafe {
                            tile(kernel, mr, kc, a_panel.as_ptr(), mr, b, PANEL, c, ldc, load, K::NR.min(nc - j))
                        };
                    }
                    if pc + kc == k {
                        for i in ic..ic + mr {
                            // SAFETY: this part of a row is in our tile.
                            let row = unsafe { std::slice::from_raw_parts_mut(c.wrapping_add(i * ldc + jc), nc) };
                            finish(kernel.isa(), &product.epilogue, row, i * ldc + jc, jc);
                        }
                    }
                }
            }
        }
    });
}

/// [`MicroKernel::tile`] for a tile of which only `cols` columns are in C.
///
/// # Safety
///
/// As there, C restricted to `cols` columns.
#[inline]
pub(in crate::kernels) unsafe fn tile<K: MicroKernel>(
    kernel: K,
    rows: usize,
    k: usize,
    a: *const f32,
    lda: usize,
    b: *const f32,
    ldb: usize,
    c: *mut f32,
    ldc: usize,
    load: bool,
    cols: usize,
) {
    // SAFETY: the caller's promises; the copy has room for `MAX_MR` rows of a panel.
    unsafe {
        if cols == K::NR {
            return kernel.tile(rows, k, a, lda, b, ldb, c, ldc, load);
        }
        let mut copy = [0.0f32; super::micro::MAX_MR * PANEL];
        if load {
            for i in 0..rows {
                std::ptr::copy_nonoverlapping(c.add(i * ldc), copy.as_mut_ptr().add(i * PANEL), cols);
            }
        }
        kernel.tile(rows, k, a, lda, b, ldb, copy.as_mut_ptr(), PANEL, load);
        for i in 0..rows {
            std::ptr::copy_nonoverlapping(copy.as_ptr().add(i * PANEL), c.add(i * ldc), cols);
        }
    }
}

/// Bias, activation and residual on part of a row of C.
struct Finish<'a> {
    row: &'a mut [f32],
    bias: Option<&'a [f32]>,
    activation: Option<Activation>,
    residual: Option<&'a [f32]>,
}

/// The same on part of a row that begins at column `col`, element `at` of C.
#[inline]
pub(in crate::kernels) fn finish<I: Isa>(isa: I, epilogue: &Epilogue<'_>, row: &mut [f32], at: usize, col: usize) {
    let Epilogue { bias, activation, residual } = *epilogue;
    if bias.is_some() || activation.is_some() || residual.is_some() {
        let end = row.len();
        let (bias, residual) = (bias.map(|bias| &bias[col..col + end]), residual.map(|r| &r[at..at + end]));
        isa.run(Finish { row, bias, activation, residual });
    }
}

impl SimdOp for Finish<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        // One loop for each activation: the choice is outside.
        match self.activation {
            None => self.apply(isa, |x| x),
            Some(Activation::Relu) => self.apply(isa, |x| Activation::Relu.lanes(isa, x)),
            Some(Activation::Gelu) => self.apply(isa, |x| Activation::Gelu.lanes(isa, x)),
            Some(Activation::GeluTanh) => self.apply(isa, |x| Activation::GeluTanh.lanes(isa, x)),
            Some(Activation::Silu) => self.apply(isa, |x| Activation::Silu.lanes(isa, x)),
            Some(Activation::Sigmoid) => self.apply(isa, |x| Activation::Sigmoid.lanes(isa, x)),
            Some(Activation::Tanh) => self.apply(isa, |x| Activation::Tanh.lanes(isa, x)),
        }
    }
}

impl Finish<'_> {
    #[inline(always)]
    fn apply<I: Isa>(self, isa: I, activation: impl Fn(I::F32) -> I::F32) {
        let Finish { row, bias, residual, .. } = self;
        for (i, part) in row.chunks_mut(I::LANES).enumerate() {
            let lanes = i * I::LANES..i * I::LANES + part.len();
            let mut x = isa.load_partial(part);
            if let Some(bias) = bias {
                x = isa.add(x, isa.load_partial(&bias[lanes.clone()]));
            }
            x = activation(x);
            if let Some(residual) = residual {
                x = isa.add(x, isa.load_partial(&residual[lanes]));
            }
            isa.store_partial(part, x);
        }
    }
}
