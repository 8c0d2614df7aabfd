//! B, as the loops see it: at strides or packed, in f32 or in half precision.

use std::marker::PhantomData;

use half::{bf16, f16};

use super::Mat;
use super::micro::{MicroKernel, PANEL};
use super::packing::{Source, pack_panel};
use crate::kernels::simd::{Isa, SimdOp};

/// What the elements of B may be. A half-precision number is widened, which is exact; products and sums are in f32.
pub trait Element: Copy + Send + Sync + sealed::Element {}

impl Element for f32 {}
impl Element for f16 {}
impl Element for bf16 {}

pub(super) mod sealed {
    use super::{Operand, Source};
    use crate::kernels::simd::Isa;

    /// What a kernel written for one instruction set tells apart.
    #[derive(Clone, Copy, PartialEq, Eq)]
    pub enum Kind {
        F32,
        F16,
        Bf16,
    }

    pub trait Element: Sized {
        #[doc(hidden)]
        const KIND: Kind;
        /// Reads `I::LANES` numbers.
        ///
        /// # Safety
        ///
        /// * `x` may be read for that many elements.
        unsafe fn widen<I: Isa>(isa: I, x: *const Self) -> I::F32;
        #[doc(hidden)]
        fn strided(source: Source<Self>) -> Operand;
    }
}

pub(super) use sealed::Kind;

/// Where B is.
#[derive(Clone, Copy)]
pub enum Operand {
    F32(Source<f32>),
    F16(Source<f16>),
    Bf16(Source<bf16>),
    PanelsF32(Panels<f32>),
    PanelsF16(Panels<f16>),
    /// Two rows to a group of 32 bits, the first below.
    PanelsBf16(Panels<u32>),
}

/// The right factor of a product: a [`Mat`] of any element, or a [`PackedB`](super::PackedB).
#[derive(Clone, Copy)]
pub struct Factor<'a> {
    pub(super) operand: Operand,
    pub(super) k: usize,
    pub(super) n: usize,
    _data: PhantomData<&'a [f32]>,
}

// SAFETY: it stands for a shared reference to numbers.
unsafe impl Send for Factor<'_> {}
// SAFETY: as above.
unsafe impl Sync for Factor<'_> {}

impl<'a> Factor<'a> {
    /// `operand`, whose numbers live as long as `'a`, is `k` × `n`.
    pub(super) fn new(operand: Operand, k: usize, n: usize) -> Self {
        Self { operand, k, n, _data: PhantomData }
    }
}

impl<'a, T: Element> From<Mat<'a, T>> for Factor<'a> {
    /// # Panics
    ///
    /// If the matrix' data is too short for its shape.
    fn from(b: Mat<'a, T>) -> Self {
        b.check("gemm: B", 0);
        Self::new(b.operand(), b.rows(), b.cols())
    }
}

/// Panels of `PANEL` columns, `k` rows each, one after the other.
#[derive(Clone, Copy)]
pub struct Panels<T> {
    pub data: *const T,
    /// Rows of a panel, in elements or groups.
    pub k: usize,
}

macro_rules! element {
    ($t:ty, $load:ident, $strided:ident) => {
        impl sealed::Element for $t {
            const KIND: Kind = Kind::$strided;
            #[inline(always)]
            unsafe fn widen<I: Isa>(isa: I, x: *const Self) -> I::F32 {
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

impl Operand {
    /// Whether it is read as it is stored, row by row.
    pub(super) fn is_row_by_row(&self) -> bool {
        match self {
            Operand::F32(source) => source.along == 1,
            Operand::F16(source) => source.along == 1,
            Operand::Bf16(source) => source.along == 1,
            _ => false,
        }
    }

    /// The matrix that begins `elements` later.
    pub(super) fn offset(self, elements: usize) -> Operand {
        fn later<T>(source: Source<T>, elements: usize) -> Source<T> {
            Source { data: source.data.wrapping_add(elements), ..source }
        }
        match self {
            Operand::F32(source) => Operand::F32(later(source, elements)),
            Operand::F16(source) => Operand::F16(later(source, elements)),
            Operand::Bf16(source) => Operand::Bf16(later(source, elements)),
            packed => packed,
        }
    }

    /// Columns `j..j + used` of rows `pc..pc + depth` as a panel in f32: where it is, or packed into `dst`.
    ///
    /// # Safety
    ///
    /// * the block is in B; `j` is a multiple of `PANEL` if B is packed;
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
                Operand::PanelsF16(panels) => widen(kernel.isa(), panels.at(pc, j), depth * PANEL, dst),
                Operand::PanelsBf16(panels) => {
                    debug_assert!(pc.is_multiple_of(2));
                    kernel.isa().run(WidenPairs { src: panels.at(pc / 2, j), depth, dst });
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

struct Widen<T> {
    src: *const T,
    len: usize,
    dst: *mut f32,
}

impl<T: Element> SimdOp for Widen<T> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        let whole = self.len / I::LANES * I::LANES;
        for i in (0..whole).step_by(I::LANES) {
            // SAFETY: the contract of `widen`.
            unsafe { isa.store_ptr(self.dst.add(i), T::widen(isa, self.src.add(i))) };
        }
        if whole < self.len {
            let n = self.len - whole;
            // SAFETY: as above, the last elements by way of whole vectors.
            unsafe {
                let (mut x, mut y) = ([std::mem::zeroed::<T>(); 16], [0.0f32; 16]);
                std::ptr::copy_nonoverlapping(self.src.add(whole), x.as_mut_ptr(), n);
                isa.store_ptr(y.as_mut_ptr(), T::widen(isa, x.as_ptr()));
                std::ptr::copy_nonoverlapping(y.as_ptr(), self.dst.add(whole), n);
            }
        }
    }
}

/// Rows `0..depth` of a panel of pairs of bf16, the contract that of [`Operand::panel`].
struct WidenPairs {
    src: *const u32,
    depth: usize,
    dst: *mut f32,
}

impl SimdOp for WidenPairs {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        for p in (0..self.depth).step_by(2) {
            for i in (0..PANEL).step_by(I::LANES) {
                // SAFETY: the panel has a group for each begun pair, `dst` a row for each of `depth`.
                unsafe {
                    let pair = isa.load_i32_ptr(self.src.add(p / 2 * PANEL + i).cast());
                    isa.store_ptr(self.dst.add(p * PANEL + i), isa.from_bits(isa.shl(pair, 16)));
                    if p + 1 < self.depth {
                        let high = isa.and(pair, isa.splat_i32(!0xffff));
                        isa.store_ptr(self.dst.add((p + 1) * PANEL + i), isa.from_bits(high));
                    }
                }
            }
        }
    }
}

/// `dst[i] = src[i]`, widened.
///
/// # Safety
///
/// * `src` may be read and `dst` written for `len` elements.
#[inline]
unsafe fn widen<I: Isa, T: Element>(isa: I, src: *const T, len: usize, dst: *mut f32) {
    isa.run(Widen { src, len, dst });
}

/// [`pack_panel`] of a panel of B in half precision.
///
/// # Safety
///
/// As there.
unsafe fn pack_half<K: MicroKernel, T: Element>(kernel: K, source: Source<T>, used: usize, k: usize, dst: *mut f32) {
    // SAFETY: the caller's promises.
    unsafe {
        if source.along == 1 {
            for p in 0..k {
                widen(kernel.isa(), source.at(p, 0).data, used, dst.add(p * PANEL));
            }
            return;
        }
        for i in (0..used).step_by(16) {
            kernel.transpose_half(source.at(0, i).data, source.along, (used - i).min(16), k, dst.add(i), PANEL);
        }
    }
}

/// [`MicroKernel::transpose_half`] by way of a copy on the stack.
///
/// # Safety
///
/// As there.
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
                widen(kernel.isa(), src.add(row * lds + p), cols, block[row * 16..].as_mut_ptr());
            }
            kernel.transpose(block.as_ptr(), 16, rows, cols, dst.add(p * ldd), ldd);
        }
    }
}

/// Most rows of [`half_tile`].
pub(super) const HALF_MR: usize = 6;

/// [`MicroKernel::tile`] for `PANEL` columns of a B in half precision.
///
/// # Safety
///
/// As there, with `rows <= HALF_MR`.
pub(super) unsafe fn half_tile<I: Isa, T: Element>(
    isa: I,
    rows: usize,
    k: usize,
    a: *const f32,
    b: (*const T, usize),
    c: (*mut f32, usize),
    load: bool,
) {
    match rows {
        1 => isa.run(HalfTile::<T, 1> { k, a, b, c, load }),
        2 => isa.run(HalfTile::<T, 2> { k, a, b, c, load }),
        3 => isa.run(HalfTile::<T, 3> { k, a, b, c, load }),
        4 => isa.run(HalfTile::<T, 4> { k, a, b, c, load }),
        5 => isa.run(HalfTile::<T, 5> { k, a, b, c, load }),
        6 => isa.run(HalfTile::<T, 6> { k, a, b, c, load }),
        rows => unreachable!("a tile of {rows} rows"),
    }
}

/// [`half_tile`] of a panel of pairs of bf16, with the bits of the numbers one by one.
///
/// # Safety
///
/// As there; `b` has a group for each begun pair of `k`.
pub(super) unsafe fn pair_tile<I: Isa>(
    isa: I,
    rows: usize,
    k: usize,
    a: *const f32,
    b: *const u32,
    c: (*mut f32, usize),
    load: bool,
) {
    match rows {
        1 => isa.run(PairTile::<1> { k, a, b, c, load }),
        2 => isa.run(PairTile::<2> { k, a, b, c, load }),
        3 => isa.run(PairTile::<3> { k, a, b, c, load }),
        4 => isa.run(PairTile::<4> { k, a, b, c, load }),
        5 => isa.run(PairTile::<5> { k, a, b, c, load }),
        6 => isa.run(PairTile::<6> { k, a, b, c, load }),
        rows => unreachable!("a tile of {rows} rows"),
    }
}

struct PairTile<const R: usize> {
    k: usize,
    /// `[k, R]`.
    a: *const f32,
    b: *const u32,
    c: (*mut f32, usize),
    load: bool,
}

impl<const R: usize> SimdOp for PairTile<R> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        let PairTile { k, a, b, c: (c, ldc), load } = self;
        let high = isa.splat_i32(!0xffff);
        for j in (0..PANEL).step_by(2 * I::LANES) {
            // SAFETY: the contract of `pair_tile`; two vectors divide a panel.
            unsafe {
                let mut acc = [[isa.zero(); 2]; R];
                if load {
                    for (i, acc) in acc.iter_mut().enumerate() {
                        *acc = [isa.load_ptr(c.add(i * ldc + j)), isa.load_ptr(c.add(i * ldc + j + I::LANES))];
                    }
                }
                for p in (0..k).step_by(2) {
                    let pairs = b.add(p / 2 * PANEL + j).cast();
                    let pairs = [isa.load_i32_ptr(pairs), isa.load_i32_ptr(pairs.add(I::LANES))];
                    let row = pairs.map(|pair| isa.from_bits(isa.shl(pair, 16)));
                    for (i, acc) in acc.iter_mut().enumerate() {
                        let x = isa.splat(*a.add(p * R + i));
                        *acc = [isa.mul_add(x, row[0], acc[0]), isa.mul_add(x, row[1], acc[1])];
                    }
                    if p + 1 == k {
                        break;
                    }
                    let row = pairs.map(|pair| isa.from_bits(isa.and(pair, high)));
                    for (i, acc) in acc.iter_mut().enumerate() {
                        let x = isa.splat(*a.add((p + 1) * R + i));
                        *acc = [isa.mul_add(x, row[0], acc[0]), isa.mul_add(x, row[1], acc[1])];
                    }
                }
                for (i, acc) in acc.iter().enumerate() {
                    isa.store_ptr(c.add(i * ldc + j), acc[0]);
                    isa.store_ptr(c.add(i * ldc + j + I::LANES), acc[1]);
                }
            }
        }
    }
}

struct HalfTile<T, const R: usize> {
    k: usize,
    /// `[k, R]`.
    a: *const f32,
    b: (*const T, usize),
    c: (*mut f32, usize),
    load: bool,
}

impl<T: Element, const R: usize> SimdOp for HalfTile<T, R> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        let HalfTile { k, a, b: (b, ldb), c: (c, ldc), load } = self;
        for j in (0..PANEL).step_by(2 * I::LANES) {
            // SAFETY: the contract of `half_tile`; two vectors divide a panel.
            unsafe {
                let mut acc = [[isa.zero(); 2]; R];
                if load {
                    for (i, acc) in acc.iter_mut().enumerate() {
                        *acc = [isa.load_ptr(c.add(i * ldc + j)), isa.load_ptr(c.add(i * ldc + j + I::LANES))];
                    }
                }
                for p in 0..k {
                    let row = b.add(p * ldb + j);
                    let row = [T::widen(isa, row), T::widen(isa, row.add(I::LANES))];
                    for (i, acc) in acc.iter_mut().enumerate() {
                        let x = isa.splat(*a.add(p * R + i));
                        *acc = [isa.mul_add(x, row[0], acc[0]), isa.mul_add(x, row[1], acc[1])];
                    }
                }
                for (i, acc) in acc.iter().enumerate() {
                    isa.store_ptr(c.add(i * ldc + j), acc[0]);
                    isa.store_ptr(c.add(i * ldc + j + I::LANES), acc[1]);
                }
            }
        }
    }
}
