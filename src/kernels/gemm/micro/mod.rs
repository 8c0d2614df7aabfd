//! Micro-kernels, which compute one register tile of C at a time; one file per instruction set.

mod portable;

#[cfg(target_arch = "x86_64")]
pub(super) mod amx;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
pub(in crate::kernels) mod avx512;
#[cfg(target_arch = "x86_64")]
pub(in crate::kernels) mod avx512_bf16;
#[cfg(target_arch = "aarch64")]
pub(super) mod int8_neon;
pub(super) mod int8_portable;
#[cfg(target_arch = "x86_64")]
pub(super) mod int8_x86;
#[cfg(target_arch = "aarch64")]
mod neon;

use std::mem::MaybeUninit;

use super::operand::{Element, transpose_half};
use crate::kernels::simd;

/// The width of a packed panel of B on every instruction set: a multiple of every
/// [`MicroKernel::NR`].
pub(in crate::kernels) const PANEL: usize = 32;

/// The largest number of columns of a block of B: with the depth of a block, they stay in a
/// second-level cache of 1 MiB.
pub(in crate::kernels) const MAX_NC: usize = 512;

/// The largest number of rows of a tile of any kernel.
pub(in crate::kernels) const MAX_MR: usize = 32;

/// The arguments of a register tile: `C[i, j] (+)= Σₚ A[i, p] B[p, j]`, each element one chain in
/// ascending `p`.
#[derive(Clone, Copy)]
pub(in crate::kernels) struct TileArgs<A = f32, B = A, C = f32> {
    /// The number of rows of A and C.
    pub(in crate::kernels) rows: usize,
    /// The length of a chain, in numbers or groups.
    pub(in crate::kernels) k: usize,
    /// Element `[i, p]` is at `a[p · lda + i]`; `lda` is `rows` where A is packed.
    pub(in crate::kernels) a: *const A,
    pub(in crate::kernels) lda: usize,
    /// Row `p` begins at `b[p · ldb]`; column `j` at `b[j · ldb]` if B is stored transposed.
    pub(in crate::kernels) b: *const B,
    pub(in crate::kernels) ldb: usize,
    /// Row `i` begins at `c[i · ldc]`.
    pub(in crate::kernels) c: *mut C,
    pub(in crate::kernels) ldc: usize,
    /// Whether the chains start from C instead of zero.
    pub(in crate::kernels) load: bool,
}

/// The arguments of a kernel whose factors come in 32-bit groups: one f32, two bf16, four int8.
pub(in crate::kernels) type GroupArgs<C> = TileArgs<u32, u32, C>;

impl<A, B, C> TileArgs<A, B, C> {
    /// Returns the same arguments with other element types.
    #[inline(always)]
    pub(in crate::kernels) fn cast<X, Y, Z>(self) -> TileArgs<X, Y, Z> {
        let TileArgs { rows, k, a, lda, b, ldb, c, ldc, load } = self;
        TileArgs { rows, k, a: a.cast(), lda, b: b.cast(), ldb, c: c.cast(), ldc, load }
    }
}

/// A register tile of sums of products of groups.
pub(in crate::kernels) trait TileKernel: Copy + Send + Sync {
    /// The type of the sums: 32 bits.
    type Sum: Copy + Default + Send;
    /// The largest number of rows of a tile.
    const MR: usize;
    /// The number of columns of a tile.
    const NR: usize;
    /// The number of columns of a block of B: their panels, `KC` deep, stay in the second-level
    /// cache.
    const NC: usize = MAX_NC;
    /// The number of groups in a step: packed factors are padded with zeros to a multiple.
    const STEP: usize;
    /// Whether a packed panel of A is `[MR, groups]`, padded with zero rows, instead of
    /// `[groups, rows]`; then `STEP` is 16.
    const ROWS_OF_A: bool;
    /// The approximate time of a product of groups, in nanoseconds, which determines the number of
    /// threads.
    const NS: f32;

    /// Called by each thread before its first tile; the result is dropped after the last tile.
    fn begin(self) -> impl Drop + Sized;

    /// Computes `C[i, j] (+)= Σₚ dot(A[i, p], B[p, j])` over a tile of `rows` × `NR`, ascending in
    /// `p`.
    ///
    /// # Safety
    ///
    /// * between `begin` and the drop of its result; `1 <= rows <= MR`; `k` is a multiple of
    ///   `STEP`;
    /// * `a` is a packed panel of `rows` rows and `k` groups; row `p` of B is `NR` groups at
    ///   `p · PANEL`;
    /// * `c` may be read and written for `NR` elements at each `i · ldc`, `i < rows`.
    unsafe fn tile(self, args: GroupArgs<Self::Sum>);
}

/// A tile of a few rows and `PANEL` columns of a B in groups that is stored transposed and read in
/// place.
#[cfg(target_arch = "x86_64")]
pub(super) trait ColumnsKernel: Copy + Send + Sync {
    /// The type of the sums: 32 bits.
    type Sum: Copy + Default + Send;
    /// The largest number of rows of a tile.
    const ROWS: usize;
    /// The number of groups in a step: a packed A is padded with zeros to a multiple.
    const STEP: usize;

    /// Called by each thread before its first tile of `rows` rows; the result is dropped after the
    /// last tile.
    fn begin(self, rows: usize) -> impl Drop;

    /// Computes `C[i, j] (+)= Σₚ dot(A[i, p], B[p, j])`, ascending in `p`.
    ///
    /// # Safety
    ///
    /// * between `begin` with these rows and the drop of its result; `1 <= rows <= ROWS`;
    /// * group `p` of row `i` of A is at `a[p · rows + i]`, zeros past `k` up to whole steps;
    /// * `b` may be read for `k` elements at each `j · ldb`, `j < PANEL`;
    /// * `c` may be read and written for `PANEL` elements at each `i · ldc`, `i < rows`.
    unsafe fn columns(self, args: GroupArgs<Self::Sum>);
}

/// A tile of a few rows and a packed panel of groups that is read in place.
#[cfg(target_arch = "x86_64")]
pub(super) trait PanelsKernel: ColumnsKernel {
    /// Whether group `p` of row `i` of A is at `a[i · k + p]`, with `k` rounded up to whole steps.
    const ROWS_OF_A: bool;

    /// Same as [`ColumnsKernel::begin`].
    fn begin(self, rows: usize) -> impl Drop;

    /// Same as [`ColumnsKernel::columns`], for a panel `[k, PANEL]`.
    ///
    /// # Safety
    ///
    /// * as for [`ColumnsKernel::columns`], after this trait's `begin`; A is stored according to
    ///   [`PanelsKernel::ROWS_OF_A`].
    unsafe fn panel(self, args: GroupArgs<Self::Sum>);
}

/// The tile of C that fits into the vector registers, and its update.
pub(in crate::kernels) trait MicroKernel: Copy + Send + Sync {
    /// The instruction set, for operations that follow a product.
    type Isa: simd::Isa;
    /// The largest number of rows of a tile.
    const MR: usize;
    /// The number of columns of a tile.
    const NR: usize;
    /// The number of columns of a block of B: their panels stay in the second-level cache.
    const NC: usize = MAX_NC;

    /// Returns the token of the instruction set.
    fn isa(self) -> Self::Isa;

    /// Computes `C[i, j] (+)= Σₚ A[i, p] B[p, j]` over one tile of `rows` × `NR`; each element is
    /// one chain in ascending `p`.
    ///
    /// # Safety
    ///
    /// * `1 <= rows <= MR`;
    /// * `a` may be read for `rows` elements at each `p · lda`, `b` for `NR` elements at each
    ///   `p · ldb`, `p < k`;
    /// * `c` may be read and written for `NR` elements at each `i · ldc`, `i < rows`, and nothing
    ///   else accesses them.
    unsafe fn tile(self, args: TileArgs);

    /// The largest number of rows of [`MicroKernel::columns`]; 0 if there is no such kernel.
    const COLUMNS_MR: usize = 0;

    /// Computes [`MicroKernel::tile`] of a packed A for `PANEL` columns of a B that is stored
    /// transposed, column `j` at `b[j·ldb]`, in any format.
    ///
    /// # Safety
    ///
    /// Same as [`MicroKernel::tile`], but `1 <= rows <= COLUMNS_MR`, and `b` may be read for `k`
    /// elements at each `j · ldb`, `j < PANEL`.
    unsafe fn columns<T: Element>(self, _args: TileArgs<f32, T>) {
        unreachable!("a kernel without columns")
    }

    /// Transposes a block: `dst[p·ldd + i] = src[i·lds + p]` for `i < rows`, `p < cols`.
    ///
    /// Elements `rows..16` of each row of `dst` may be overwritten with arbitrary values, in
    /// ascending `p`. Blocks are written from left to right and from top to bottom, so only
    /// elements past the end of a panel keep such values.
    ///
    /// # Safety
    ///
    /// * `1 <= rows <= 16`, `cols <= 16`; `src` may be read at `i·lds + p` for all `i < rows`,
    ///   `p < cols`;
    /// * `dst` may be written at `p·ldd + i` for all `p < cols`, `i < 16`.
    #[inline]
    unsafe fn transpose(self, src: *const f32, lds: usize, rows: usize, cols: usize, dst: *mut f32, ldd: usize) {
        for p in 0..cols {
            for i in 0..rows {
                // SAFETY: the caller's promises, index by index.
                unsafe { *dst.add(p * ldd + i) = *src.add(i * lds + p) };
            }
        }
    }

    /// Transposes rows of half-precision numbers as f32: `dst[p·ldd + i] = src[i·lds + p]`
    /// for `i < rows`, `p < k`.
    ///
    /// # Safety
    ///
    /// Same as [`MicroKernel::transpose`], for any number of columns.
    #[inline]
    unsafe fn transpose_half<T: Element>(
        self,
        src: *const T,
        lds: usize,
        rows: usize,
        k: usize,
        dst: *mut f32,
        ldd: usize,
    ) {
        // SAFETY: the same contract.
        unsafe { transpose_half(self, src, lds, rows, k, dst, ldd) }
    }

    /// Copies `k` rows of `used <= width` elements: `dst[p·width + i] = src[p·lds + i]`.
    ///
    /// Elements `used..width` and up to 16 past the end may be overwritten with arbitrary values.
    ///
    /// # Safety
    ///
    /// * `used <= width`; `src` may be read at `p·lds + i` for all `p < k`, `i < used`;
    /// * `dst` may be written for `k · width + 16` elements.
    #[inline]
    unsafe fn copy(self, src: *const f32, lds: usize, used: usize, width: usize, k: usize, dst: *mut f32) {
        for p in 0..k {
            // SAFETY: the caller's promises, row by row.
            unsafe { std::ptr::copy_nonoverlapping(src.add(p * lds), dst.add(p * width), used) };
        }
    }
}

/// The result of [`TileKernel::begin`] of kernels that need no preparation.
pub(super) struct Nothing;

impl Drop for Nothing {
    fn drop(&mut self) {}
}

/// Calls `tile` with a tile of C of `width` columns, of which only `cols` are in C: in place if
/// these are all, otherwise with a copy that is written back.
///
/// # Safety
///
/// * `1 <= rows <= MAX_MR`, `1 <= cols <= width <= PANEL`; C may be read and written for `cols`
///   elements of these rows;
/// * `tile` accesses no more than these rows of the C that it is given, and `PANEL` columns of the
///   copy.
#[inline]
pub(in crate::kernels) unsafe fn within<A, B, S: Copy + Default>(
    args: TileArgs<A, B, S>,
    (cols, width): (usize, usize),
    tile: impl FnOnce(TileArgs<A, B, S>),
) {
    if cols == width {
        return tile(args);
    }
    let TileArgs { rows, c, ldc, load, .. } = args;
    let mut copy = [const { MaybeUninit::<S>::uninit() }; MAX_MR * PANEL];
    copy[..rows * PANEL].fill(MaybeUninit::new(S::default()));
    let copy: *mut S = copy.as_mut_ptr().cast();
    // SAFETY: the caller's promises; the copy has these rows, and zeros where nothing else is
    // written.
    unsafe {
        if load {
            for i in 0..rows {
                std::ptr::copy_nonoverlapping(c.add(i * ldc), copy.add(i * PANEL), cols);
            }
        }
        tile(TileArgs { c: copy, ldc: PANEL, ..args });
        for i in 0..rows {
            std::ptr::copy_nonoverlapping(copy.add(i * PANEL), c.add(i * ldc), cols);
        }
    }
}

/// An operation that needs the micro-kernel of the current instruction set.
pub(in crate::kernels) trait KernelOp {
    /// The result.
    type Output;
    /// Runs the operation.
    fn run<K: MicroKernel>(self, kernel: K) -> Self::Output;
}

/// Calls `op` with the micro-kernel of the current level.
pub(in crate::kernels) fn with_kernel<Op: KernelOp>(op: Op) -> Op::Output {
    match simd::level() {
        #[cfg(target_arch = "x86_64")]
        simd::Level::Avx512 => match simd::Avx512::new() {
            Some(isa) => op.run(avx512::Tile(isa)),
            None => op.run(portable::Tile),
        },
        #[cfg(target_arch = "x86_64")]
        simd::Level::Avx2 => match simd::Avx2::new() {
            Some(isa) => op.run(avx2::Tile(isa)),
            None => op.run(portable::Tile),
        },
        #[cfg(target_arch = "aarch64")]
        simd::Level::Neon => match simd::Neon::new() {
            Some(isa) => op.run(neon::Tile(isa)),
            None => op.run(portable::Tile),
        },
        _ => op.run(portable::Tile),
    }
}

/// Calls `$tile::<R>` with the arguments, for the `R` in the list that equals their number of rows.
macro_rules! by_rows {
    ([$($n:literal)*], $tile:ident, $args:ident) => {
        match $args.rows {
            $($n => $tile::<$n>($args),)*
            rows => unreachable!("a tile of {rows} rows"),
        }
    };
    ([$($n:literal)*], $tile:ident<$t:ident>, $args:ident) => {
        match $args.rows {
            $($n => $tile::<$n, $t>($args),)*
            rows => unreachable!("a tile of {rows} rows"),
        }
    };
}
use by_rows;
