//! The products of an attention: in f32, or with factors rounded to bf16.
//!
//! Factors consist of 32-bit groups, as in `gemm`: one f32, or two bf16.

use super::softmax::BLOCK;
use crate::kernels::gemm::Precision;
use crate::kernels::gemm::micro::{KernelOp, MicroKernel, PANEL, TileArgs, with_kernel};
#[cfg(target_arch = "x86_64")]
use crate::kernels::gemm::micro::{TileKernel, avx512, avx512_bf16};
use crate::kernels::gemm::packing::{SLACK, Source, pack_panel};
#[cfg(target_arch = "x86_64")]
use crate::kernels::simd::Avx512;
use crate::kernels::simd::{Isa, SimdOp};

/// Packed factors and the tile that multiplies them.
pub(super) trait Products: Copy + Send + Sync {
    /// The kernel of the instruction set, for everything else.
    type Kernel: MicroKernel;
    /// The number of elements in a group. Groups of one are f32 and are read in place.
    const GROUP: usize;
    /// The largest number of rows of a tile.
    const MR: usize;
    /// The number of columns of a tile.
    const NR: usize;

    fn kernel(self) -> Self::Kernel;

    /// Packs one panel, `[len / GROUP, width]`; missing numbers of a last group are zero.
    ///
    /// # Safety
    ///
    /// * the source may be read at all `[p, i]`, `p < len`, `i < used`; `used <= width`;
    /// * `dst` may be written for `groups(len) · width + SLACK` elements; those past `used` become
    ///   arbitrary;
    /// * if `dst` is in the source, both begin at the same place, `source.along` is 1, and
    ///   `source.deep`, `used` and `width` are `PANEL`.
    unsafe fn pack(self, source: Source, used: usize, width: usize, len: usize, dst: *mut f32);

    /// Computes [`MicroKernel::tile`] of groups; `ldb` is `PANEL` if a group has more than one
    /// number.
    ///
    /// # Safety
    ///
    /// Same as [`MicroKernel::tile`].
    unsafe fn tile(self, args: TileArgs);

    /// Returns the number of groups for `len` numbers.
    #[inline]
    fn groups(len: usize) -> usize {
        len.div_ceil(Self::GROUP)
    }
}

/// Products in f32.
#[derive(Clone, Copy)]
pub(super) struct Exact<K>(pub(super) K);

impl<K: MicroKernel> Products for Exact<K> {
    type Kernel = K;
    const GROUP: usize = 1;
    const MR: usize = K::MR;
    const NR: usize = K::NR;

    #[inline]
    fn kernel(self) -> K {
        self.0
    }

    #[inline]
    unsafe fn pack(self, source: Source, used: usize, width: usize, len: usize, dst: *mut f32) {
        // SAFETY: the caller's promises.
        unsafe { pack_panel(self.0, source, used, width, len, dst) }
    }

    #[inline]
    unsafe fn tile(self, args: TileArgs) {
        // SAFETY: the caller's promises.
        unsafe { self.0.tile(args) }
    }
}

/// Products of numbers rounded to bf16 with AVX512-BF16; also used on processors with AMX, whose
/// tiles are too large for a head and round differently.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
struct Rounded {
    kernel: avx512::Tile,
    pairs: avx512_bf16::Avx512Bf16,
}

#[cfg(target_arch = "x86_64")]
impl Products for Rounded {
    type Kernel = avx512::Tile;
    const GROUP: usize = 2;
    const MR: usize = avx512_bf16::Avx512Bf16::MOST_ROWS;
    const NR: usize = PANEL;

    #[inline]
    fn kernel(self) -> avx512::Tile {
        self.kernel
    }

    #[inline]
    unsafe fn pack(self, source: Source, used: usize, width: usize, len: usize, dst: *mut f32) {
        // SAFETY: the caller's promises; the token proves the instructions.
        unsafe { avx512_bf16::round_panel(source, used, width, len, dst.cast()) }
    }

    #[inline]
    unsafe fn tile(self, args: TileArgs) {
        debug_assert_eq!(args.ldb, PANEL, "pairs are packed");
        // SAFETY: the caller's promises; this kernel takes any `lda`.
        unsafe { TileKernel::tile(self.pairs, args.cast()) }
    }
}

/// Writes rows one after another, multiplied by a number.
pub(super) struct Scaled<'a, R> {
    pub(super) rows: R,
    pub(super) factor: f32,
    pub(super) dst: &'a mut [f32],
}

impl<'r, R: Iterator<Item = &'r [f32]>> SimdOp for Scaled<'_, R> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        let Scaled { rows, factor, mut dst } = self;
        for row in rows {
            let (own, rest) = dst.split_at_mut(row.len());
            for (dst, x) in own.chunks_mut(I::LANES).zip(row.chunks(I::LANES)) {
                isa.store_partial(dst, isa.mul(isa.load_partial(x), isa.splat(factor)));
            }
            dst = rest;
        }
    }
}

/// An operation that needs the products of a precision.
pub(super) trait ProductsOp {
    fn run<P: Products>(self, products: P);
}

/// Calls `op` with the products of a precision on the current instruction set.
pub(super) fn with_products<Op: ProductsOp>(precision: Precision, op: Op) {
    struct InF32<Op>(Op);
    impl<Op: ProductsOp> KernelOp for InF32<Op> {
        type Output = ();
        fn run<K: MicroKernel>(self, kernel: K) {
            self.0.run(Exact(kernel));
        }
    }
    #[cfg(target_arch = "x86_64")]
    if precision == Precision::Bf16
        && let (Some(pairs), Some(isa)) = (avx512_bf16::Avx512Bf16::new(), Avx512::new())
    {
        return op.run(Rounded { kernel: avx512::Tile(isa), pairs });
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = precision;
    with_kernel(InF32(op));
}

/// A block of values as factor B of a product: panels of columns, in place if they can be read
/// there, otherwise packed.
pub(super) struct Values<P> {
    products: P,
    value: *const f32,
    row: usize,
    dim: usize,
    packed: *const f32,
    panel_len: usize,
}

/// Returns the number of columns of a block of outputs: whole panels, so that a tile may write past
/// the last column.
pub(super) fn out_width(dim: usize) -> usize {
    dim.next_multiple_of(PANEL)
}

impl<P: Products> Values<P> {
    /// Returns the number of columns that are read in place.
    fn in_place(dim: usize) -> usize {
        if P::GROUP == 1 { dim / PANEL * PANEL } else { 0 }
    }

    /// Returns the number of elements for packing.
    pub(super) fn len(dim: usize) -> usize {
        match out_width(dim) - Self::in_place(dim) {
            0 => 0,
            width => P::groups(BLOCK) * width + SLACK,
        }
    }

    /// Wraps `n` values, at most `BLOCK`, from the place of the first and the distance between
    /// them.
    ///
    /// # Safety
    ///
    /// * the rows, of `dim` elements, may be read as long as this value lives, and nothing else
    ///   accesses `packed`.
    pub(super) unsafe fn new(
        products: P,
        (value, row): (*const f32, usize),
        n: usize,
        dim: usize,
        packed: &mut [f32],
    ) -> Self {
        assert!(packed.len() >= Self::len(dim) && n <= BLOCK);
        let panel_len = P::groups(n) * PANEL;
        for (panel, j) in (Self::in_place(dim)..dim).step_by(PANEL).enumerate() {
            let source = Source { data: value.wrapping_add(j), along: 1, deep: row };
            let dst = packed.as_mut_ptr().wrapping_add(panel * panel_len);
            // SAFETY: the caller's promise; there is memory for the panels and the slack after the
            // last.
            unsafe { products.pack(source, PANEL.min(dim - j), PANEL, n, dst) };
        }
        Values { products, value, row, dim, packed: packed.as_ptr(), panel_len }
    }

    /// Computes `C += A·B`: adds the first `n` values, each times a number, to `rows` rows of
    /// [`out_width`] columns. The group of numbers for row `i` and values from `j·GROUP` on is at
    /// `a[j·lda + i]`.
    ///
    /// # Safety
    ///
    /// * `1 <= rows <= P::MR`; there are `n` values, or as many as `groups(n)` groups have if they
    ///   were packed, where those past `n` have a factor of zero; `a` may be read at these places;
    ///   `c` has these rows, and nothing else accesses them.
    #[inline]
    pub(super) unsafe fn weigh(&self, rows: usize, n: usize, a: *const f32, lda: usize, c: *mut f32) {
        let (width, in_place) = (out_width(self.dim), Self::in_place(self.dim));
        for j in (0..width).step_by(P::NR) {
            let (b, ldb) = match j < in_place {
                true => (self.value.wrapping_add(j), self.row),
                false => (self.packed.wrapping_add((j - in_place) / PANEL * self.panel_len + j % PANEL), PANEL),
            };
            // SAFETY: the caller's promises; columns in place are within the values' rows, the
            // others were packed.
            unsafe {
                let (k, c) = (P::groups(n), c.wrapping_add(j));
                self.products.tile(TileArgs { rows, k, a, lda, b, ldb, c, ldc: width, load: true });
            };
        }
    }
}
