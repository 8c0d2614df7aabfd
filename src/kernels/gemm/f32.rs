//! Products in f32, and what follows a product.

use std::ops::Range;

use super::driver::{self, Factors, Part};
use super::few_rows;
use super::micro::{GroupArgs, KernelOp, MicroKernel, Nothing, TileKernel, with_kernel};
use super::operand::Operand;
use super::packing::{Source, pack_panel};
use super::{Beta, Epilogue, Mat};
use crate::kernels::simd::{Isa, SimdOp};
use crate::kernels::vecmath::Activation;

/// Rows of A up to which the time is that of reading B.
pub(super) const FEW_ROWS: usize = 16;

/// One product, or the first of a batch.
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

// SAFETY: the pointers come from slices that outlive the product: A and B are only read, and each
// element of C belongs to one task.
unsafe impl Sync for Product<'_> {}

impl<'a> Product<'a> {
    /// The shapes and lengths were checked by the caller.
    pub(super) fn new(a: Mat<'a>, b: Operand, n: usize, c: &'a mut [f32], beta: Beta, epilogue: Epilogue<'a>) -> Self {
        let (along, deep) = if a.transposed { (1, a.ld) } else { (a.ld, 1) };
        let source = Source { data: a.data.as_ptr(), along, deep };
        Product { m: a.rows, n, k: a.cols, a: source, b, c: c.as_mut_ptr(), beta, epilogue }
    }
}

/// Runs `batch` products; `strides` lead from one to the next in A and B.
pub(super) fn product(first: Product<'_>, batch: usize, strides: [usize; 2]) {
    with_kernel(Run { products: &[first], batch, strides });
}

/// Products with one A.
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

/// A kernel for groups of one number.
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

/// The factors as they are.
#[derive(Clone, Copy)]
struct Plain<K> {
    kernel: K,
    a: Source,
    b: Operand,
    /// Elements of A and of B from one product of the batch to the next.
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

/// Bias, activation and residual on part of a row of C.
struct Finish<'a> {
    row: &'a mut [f32],
    bias: Option<&'a [f32]>,
    activation: Option<Activation>,
    residual: Option<&'a [f32]>,
}

/// The same on part of a row that begins at column `col`, element `at` of C.
#[inline]
pub(super) fn finish<I: Isa>(isa: I, epilogue: &Epilogue<'_>, row: &mut [f32], at: usize, col: usize) {
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
