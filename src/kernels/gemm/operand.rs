//! The factor B as the loops read it: strided or packed, in f32 or in half precision.

use std::marker::PhantomData;

use half::{bf16, f16};

use super::Mat;
use super::blocks::Blocks;
use super::micro::{MicroKernel, PANEL};
use super::packing::{Source, pack_panel};
use crate::kernels::blocks::BlockFormat;
use crate::kernels::simd::{Isa, SimdOp};

/// An element type of B. Half precision is converted to f32, which is exact; products and sums are
/// in f32.
pub trait Element: Copy + Send + Sync + sealed::Element {}

impl Element for f32 {}
impl Element for f16 {}
impl Element for bf16 {}

pub(super) mod sealed {
    use super::{Operand, Source};
    use crate::kernels::simd::Isa;

    /// The element type, for kernels written for one instruction set.
    #[derive(Clone, Copy, PartialEq, Eq)]
    pub enum Kind {
        F32,
        F16,
        Bf16,
    }

    pub trait Element: Sized {
        #[doc(hidden)]
        const KIND: Kind;
        /// Reads `I::LANES` numbers as f32.
        ///
        /// # Safety
        ///
        /// * `x` may be read for that many elements.
        unsafe fn load<I: Isa>(isa: I, x: *const Self) -> I::F32;
        #[doc(hidden)]
        fn strided(source: Source<Self>) -> Operand;
    }
}

pub(super) use sealed::Kind;

/// The storage of B.
#[derive(Clone, Copy)]
pub enum Operand {
    F32(Source<f32>),
    F16(Source<f16>),
    Bf16(Source<bf16>),
    PanelsF32(Panels<f32>),
    PanelsF16(Panels<f16>),
    /// Two rows per 32-bit group, the first in the lower half.
    PanelsBf16(Panels<u32>),
    Blocks(Blocks),
}

/// The right factor of a product: a [`Mat`] of any element, a [`PackedB`](super::PackedB), or a
/// weight in blocks.
#[derive(Clone, Copy)]
pub struct Factor<'a> {
    pub(super) operand: Operand,
    pub(super) k: usize,
    pub(super) n: usize,
    _data: PhantomData<&'a [f32]>,
}

// SAFETY: it represents a shared reference to numbers.
unsafe impl Send for Factor<'_> {}
// SAFETY: as above.
unsafe impl Sync for Factor<'_> {}

impl<'a> Factor<'a> {
    /// Wraps `k` × `n` numbers whose columns are stored in blocks, one after another: the transpose
    /// of a weight `[n, k]`.
    ///
    /// # Panics
    ///
    /// If a column is not a whole number of blocks, or there are not `n` columns.
    pub fn blocks(format: BlockFormat, data: &'a [u8], k: usize, n: usize) -> Self {
        let expected = format.bytes_for(k).checked_mul(n);
        assert_eq!(Some(data.len()), expected, "gemm: B is {k} × {n} in {format}");
        Self::new(Operand::Blocks(Blocks::new(format, data, k)), k, n)
    }

    /// Wraps `operand`, which is `k` × `n` and whose numbers live as long as `'a`.
    pub(super) fn new(operand: Operand, k: usize, n: usize) -> Self {
        Self { operand, k, n, _data: PhantomData }
    }
}

impl<'a, T: Element> From<Mat<'a, T>> for Factor<'a> {
    /// # Panics
    ///
    /// If the matrix' data is too short for its shape.
    fn from(b: Mat<'a, T>) -> Self {
        b.check("gemm: B", (1, 0));
        Self::new(b.operand(), b.rows(), b.cols())
    }
}

/// Panels of `PANEL` columns and `k` rows, one after another.
#[derive(Clone, Copy)]
pub struct Panels<T> {
    pub data: *const T,
    /// The number of rows of a panel, in elements or groups.
    pub k: usize,
}

macro_rules! element {
    ($t:ty, $load:ident, $strided:ident) => {
        impl sealed::Element for $t {
            const KIND: Kind = Kind::$strided;
            #[inline(always)]
            unsafe fn load<I: Isa>(isa: I, x: *const Self) -> I::F32 {
                // SAFETY: the caller's promise.
                unsafe { isa.$load(x) }
            }
            fn strided(source: Source<Self>) -> Operand {
                Operand::$strided(source)
            }
        }
    };
}
element!(f32, load_ptr, F32);
element!(f16, load_f16_ptr, F16);
element!(bf16, load_bf16_ptr, Bf16);

/// An element of a panel: one number, or those of several rows in a column.
pub(super) trait Group: Copy {
    /// The number of rows in a group.
    const ROWS: usize;

    /// Returns row `row` of `I::LANES` groups, as f32.
    ///
    /// # Safety
    ///
    /// * `group` may be read for `I::LANES` groups.
    unsafe fn row<I: Isa>(isa: I, group: *const Self, row: usize) -> I::F32;
}

macro_rules! number {
    ($($t:ty),*) => {$(
        impl Group for $t {
            const ROWS: usize = 1;

            #[inline(always)]
            unsafe fn row<I: Isa>(isa: I, number: *const Self, _: usize) -> I::F32 {
                // SAFETY: the caller's promise.
                unsafe { <$t as sealed::Element>::load(isa, number) }
            }
        }
    )*};
}
number!(f32, f16, bf16);

/// Two bf16 numbers, the first in the lower half.
impl Group for u32 {
    const ROWS: usize = 2;

    #[inline(always)]
    unsafe fn row<I: Isa>(isa: I, pair: *const Self, row: usize) -> I::F32 {
        // SAFETY: the caller's promise.
        let pair = unsafe { isa.load_i32_ptr(pair.cast()) };
        isa.from_bits(if row == 0 { isa.shl(pair, 16) } else { isa.and(pair, isa.splat_i32(!0xffff)) })
    }
}

impl Operand {
    /// Returns whether B is stored row by row.
    pub(super) fn is_row_by_row(&self) -> bool {
        match self {
            Operand::F32(source) => source.along == 1,
            Operand::F16(source) => source.along == 1,
            Operand::Bf16(source) => source.along == 1,
            _ => false,
        }
    }

    /// Returns the number of rows that parts of a panel begin and end at multiples of.
    pub(super) fn unit(&self) -> usize {
        match self {
            Operand::PanelsBf16(_) => 2,
            Operand::Blocks(blocks) => blocks.unit(),
            _ => 1,
        }
    }

    /// Returns the matrix that begins `elements` later.
    pub(super) fn offset(self, elements: usize) -> Operand {
        fn later<T>(source: Source<T>, elements: usize) -> Source<T> {
            Source { data: source.data.wrapping_add(elements), ..source }
        }
        match self {
            Operand::F32(source) => Operand::F32(later(source, elements)),
            Operand::F16(source) => Operand::F16(later(source, elements)),
            Operand::Bf16(source) => Operand::Bf16(later(source, elements)),
            // Batches consist of strided matrices.
            other => other,
        }
    }

    /// Returns columns `j..j + used` of rows `pc..pc + depth` as a panel in f32: in place, or
    /// packed into `dst`.
    ///
    /// # Safety
    ///
    /// * the block is in B; `j` is a multiple of `PANEL` if B is packed; `pc` and `pc + depth`, if
    ///   that is not the end of B, are multiples of [`Operand::unit`];
    /// * `dst` may be written for `depth · PANEL + SLACK` elements.
    #[inline]
    pub(super) unsafe fn panel<K: MicroKernel>(
        &self,
        kernel: K,
        pc: usize,
        depth: usize,
        j: usize,
        used: usize,
        dst: *mut f32,
    ) -> *const f32 {
        // SAFETY: the caller's promises; a packed panel holds all of its `PANEL` columns.
        unsafe {
            match *self {
                Operand::PanelsF32(panels) => return panels.at(pc, j),
                Operand::PanelsF16(panels) => to_f32(kernel.isa(), panels.at(pc, j), depth * PANEL, dst),
                Operand::PanelsBf16(panels) => {
                    debug_assert!(pc.is_multiple_of(2));
                    kernel.isa().run(PairsToF32 { src: panels.at(pc / 2, j), depth, dst });
                }
                Operand::Blocks(blocks) => {
                    blocks.columns(kernel.isa(), pc..pc + depth, j..j + used, |part, source| {
                        pack_panel(kernel, source, used, PANEL, part.len(), dst.add((part.start - pc) * PANEL));
                    });
                }
                Operand::F32(source) => pack_panel(kernel, source.at(pc, j), used, PANEL, depth, dst),
                Operand::F16(source) => pack_half(kernel, source.at(pc, j), used, depth, dst),
                Operand::Bf16(source) => pack_half(kernel, source.at(pc, j), used, depth, dst),
            }
        }
        dst
    }
}

impl<T> Panels<T> {
    pub(super) fn at(&self, pc: usize, j: usize) -> *const T {
        debug_assert!(j.is_multiple_of(PANEL));
        self.data.wrapping_add(j * self.k + pc * PANEL)
    }
}

struct ToF32<T> {
    src: *const T,
    len: usize,
    dst: *mut f32,
}

impl<T: Element> SimdOp for ToF32<T> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        let whole = self.len / I::LANES * I::LANES;
        for i in (0..whole).step_by(I::LANES) {
            // SAFETY: the contract of `to_f32`.
            unsafe { isa.store_ptr(self.dst.add(i), T::load(isa, self.src.add(i))) };
        }
        if whole < self.len {
            let n = self.len - whole;
            // SAFETY: as above, the last elements by way of whole vectors.
            unsafe {
                let (mut x, mut y) = ([std::mem::zeroed::<T>(); 16], [0.0f32; 16]);
                std::ptr::copy_nonoverlapping(self.src.add(whole), x.as_mut_ptr(), n);
                isa.store_ptr(y.as_mut_ptr(), T::load(isa, x.as_ptr()));
                std::ptr::copy_nonoverlapping(y.as_ptr(), self.dst.add(whole), n);
            }
        }
    }
}

/// Converts rows `0..depth` of a panel of bf16 pairs to f32; the contract is that of
/// [`Operand::panel`].
struct PairsToF32 {
    src: *const u32,
    depth: usize,
    dst: *mut f32,
}

impl SimdOp for PairsToF32 {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        for p in (0..self.depth).step_by(2) {
            for i in (0..PANEL).step_by(I::LANES) {
                for row in 0..self.depth.min(p + 2) - p {
                    // SAFETY: the panel has a group for each begun pair, `dst` a row for each of
                    // `depth`.
                    unsafe {
                        let numbers = Group::row(isa, self.src.add(p / 2 * PANEL + i), row);
                        isa.store_ptr(self.dst.add((p + row) * PANEL + i), numbers);
                    }
                }
            }
        }
    }
}

/// Computes `dst[i] = src[i]`, converted to f32.
///
/// # Safety
///
/// * `src` may be read and `dst` written for `len` elements.
#[inline]
unsafe fn to_f32<I: Isa, T: Element>(isa: I, src: *const T, len: usize, dst: *mut f32) {
    isa.run(ToF32 { src, len, dst });
}

/// Same as [`pack_panel`], for a panel of B in half precision.
///
/// # Safety
///
/// Same as [`pack_panel`].
unsafe fn pack_half<K: MicroKernel, T: Element>(kernel: K, source: Source<T>, used: usize, k: usize, dst: *mut f32) {
    // SAFETY: the caller's promises.
    unsafe {
        if source.along == 1 {
            for p in 0..k {
                to_f32(kernel.isa(), source.at(p, 0).data, used, dst.add(p * PANEL));
            }
            return;
        }
        for i in (0..used).step_by(16) {
            kernel.transpose_half(source.at(0, i).data, source.along, (used - i).min(16), k, dst.add(i), PANEL);
        }
    }
}

/// Computes [`MicroKernel::transpose_half`] through a copy on the stack.
///
/// # Safety
///
/// Same as [`MicroKernel::transpose_half`].
pub(super) unsafe fn transpose_half<K: MicroKernel, T: Element>(
    kernel: K,
    src: *const T,
    lds: usize,
    rows: usize,
    k: usize,
    dst: *mut f32,
    ldd: usize,
) {
    let mut block = [0.0f32; 16 * 16];
    for p in (0..k).step_by(16) {
        let cols = (k - p).min(16);
        // SAFETY: the caller's promises, block by block.
        unsafe {
            for row in 0..rows {
                to_f32(kernel.isa(), src.add(row * lds + p), cols, block[row * 16..].as_mut_ptr());
            }
            kernel.transpose(block.as_ptr(), 16, rows, cols, dst.add(p * ldd), ldd);
        }
    }
}
