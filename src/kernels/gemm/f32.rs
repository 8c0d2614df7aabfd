//! Products in f32.

use std::ops::Range;

use super::Beta;
use super::driver::{self, Factors, Part};
use super::few_rows;
use super::micro::{GroupArgs, KernelOp, MicroKernel, Nothing, TileKernel, with_kernel};
use super::operand::Operand;
use super::packing::{Source, pack_panel};
use super::product::{Product, finish};

/// The largest number of rows of A for which reading B dominates the time.
pub(super) const FEW_ROWS: usize = 16;

/// Computes `batch` products; `strides` are the distances between consecutive matrices A and B.
pub(super) fn product(first: Product<'_>, batch: usize, strides: [usize; 2]) {
    with_kernel(Run { products: &[first], batch, strides });
}

/// Computes products with the same A.
pub(super) fn each(products: &[Product<'_>]) {
    with_kernel(Run { products, batch: 1, strides: [0; 2] });
}

struct Run<'a> {
    products: &'a [Product<'a>],
    batch: usize,
    strides: [usize; 2],
}

impl<'a> KernelOp for Run<'a> {
    type Output = ();

    fn run<K: MicroKernel>(self, kernel: K) {
        let Run { products, batch, strides } = self;
        let Some(&Product { m, k, .. }) = products.first() else { return };
        if m <= FEW_ROWS {
            return match products {
                [one] => few_rows::product(kernel, one, batch, strides),
                _ => few_rows::each(kernel, products),
            };
        }
        let part = |product: &Product<'a>| {
            let Product { n, a, b, c, beta, epilogue, .. } = *product;
            let finish =
                move |i: usize, col: usize, row: &mut [f32]| finish(kernel.isa(), &epilogue, row, i * n + col, col);
            Part { n, factors: Plain { kernel, a, b, strides }, c, load: beta == Beta::One, finish }
        };
        // SAFETY: the shapes and lengths were checked; C is borrowed mutably as long as the product
        // lives.
        unsafe { driver::each(Single(kernel), (m, k), batch, products.iter().map(part)) };
    }
}

/// A kernel whose groups are single numbers.
#[derive(Clone, Copy)]
struct Single<K>(K);

impl<K: MicroKernel> TileKernel for Single<K> {
    type Sum = f32;
    const MR: usize = K::MR;
    const NR: usize = K::NR;
    const NC: usize = K::NC;
    const STEP: usize = 1;
    const ROWS_OF_A: bool = false;
    const NS: f32 = 0.15 / K::NR as f32;

    fn begin(self) -> impl Drop {
        Nothing
    }

    #[inline(always)]
    unsafe fn tile(self, args: GroupArgs<f32>) {
        // SAFETY: this method's own contract; groups are the bits of numbers.
        unsafe { self.0.tile(args.cast()) }
    }
}

/// The factors, unconverted.
#[derive(Clone, Copy)]
struct Plain<K> {
    kernel: K,
    a: Source,
    b: Operand,
    /// The distances between the products of a batch in A and in B, in elements.
    strides: [usize; 2],
}

// SAFETY: the pointers come from slices that outlive the product and are only read.
unsafe impl<K: Sync> Sync for Plain<K> {}

impl<K: MicroKernel> Factors for Plain<K> {
    fn packs_b(&self) -> bool {
        !matches!(self.b, Operand::PanelsF32(_))
    }

    fn unit(&self) -> usize {
        self.b.unit()
    }

    fn batch(&self, i: usize) -> Self {
        let [a, b] = self.strides.map(|stride| i * stride);
        Plain { a: Source { data: self.a.data.wrapping_add(a), ..self.a }, b: self.b.offset(b), ..*self }
    }

    unsafe fn pack_a(&self, rows: Range<usize>, groups: Range<usize>, _: Option<usize>, dst: *mut u32) {
        let (width, source) = (rows.len(), self.a.at(groups.start, rows.start));
        // SAFETY: the caller's promises.
        unsafe { pack_panel(self.kernel, source, width, width, groups.len(), dst.cast()) }
    }

    unsafe fn panel_b(&self, cols: Range<usize>, groups: Range<usize>, dst: *mut u32) -> *const u32 {
        // SAFETY: the caller's promises.
        unsafe { self.b.panel(self.kernel, groups.start, groups.len(), cols.start, cols.len(), dst.cast()).cast() }
    }
}
