//! The description of a product, and the operations that follow it.

use super::operand::Operand;
use super::packing::Source;
use super::{Beta, Epilogue, Mat};
use crate::kernels::simd::{Isa, SimdOp};
use crate::kernels::vecmath::Activation;

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
    /// Creates a product whose shapes and lengths the caller has checked.
    pub(super) fn new(a: Mat<'a>, b: Operand, n: usize, c: &'a mut [f32], beta: Beta, epilogue: Epilogue<'a>) -> Self {
        let (along, deep) = if a.transposed { (1, a.ld) } else { (a.ld, 1) };
        let source = Source { data: a.data.as_ptr(), along, deep };
        Product { m: a.rows, n, k: a.cols, a: source, b, c: c.as_mut_ptr(), beta, epilogue }
    }
}

/// Applies bias, activation and residual to part of a row of C.
struct Finish<'a> {
    row: &'a mut [f32],
    bias: Option<&'a [f32]>,
    activation: Option<Activation>,
    residual: Option<&'a [f32]>,
}

/// Same as [`Finish`], for part of a row that begins at column `col`, element `at` of C.
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
        // One loop for each activation, so that the choice is made outside of the loop.
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
