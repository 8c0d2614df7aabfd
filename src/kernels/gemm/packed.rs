//! Constant weights, packed once.

use std::sync::Arc;

use bytemuck::Zeroable;
use half::{bf16, f16};

use super::Mat;
use super::micro::{KernelOp, MicroKernel, PANEL, with_kernel};
use super::operand::{self, Element, Factor, Kind, Operand};
use super::packing::{Source, pack_panel, with_scratch};
use crate::kernels::pages::Pages;
use crate::kernels::parallel;

/// A right factor B that is used in many products, stored in the order in which the kernels read
/// it.
///
/// Panels of 32 columns are stored one after another, so that a product with few rows reads memory
/// contiguously. All instruction sets use the same packing, and the bits are those of the unpacked
/// numbers. Half-precision numbers stay in their format and are converted to f32 when they are
/// read.
///
/// # Examples
///
/// ```
/// use loquat::kernels::gemm::{Beta, Epilogue, Mat, PackedB, gemm};
///
/// let weight = PackedB::new(Mat::new(&[1.0, 2.0, 3.0, 4.0], 2, 2));
/// let mut c = [0.0; 2];
/// gemm(Mat::new(&[10.0, 1.0], 1, 2), &weight, &mut c, Beta::Zero, Epilogue::default());
/// assert_eq!(c, [13.0, 24.0]);
/// ```
#[derive(Clone)]
pub struct PackedB {
    panels: Panels,
    k: usize,
    n: usize,
}

#[derive(Clone)]
enum Panels {
    F32(Arc<Pages<Row<f32>>>),
    F16(Arc<Pages<Row<f16>>>),
    /// Two rows per 32-bit group, the first in the lower half, as needed by dot products of pairs.
    Bf16(Arc<Pages<Row<u32>>>),
}

/// A row of a panel, aligned to cache lines.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Row<T>([T; PANEL]);

// SAFETY: an array of numbers that may be zero.
unsafe impl<T: Zeroable> Zeroable for Row<T> {}
// SAFETY: an array of numbers as long as two of the lines that it is aligned to.
unsafe impl bytemuck::Pod for Row<f32> {}

/// An element type of [`PackedB`].
pub trait PackedElement: Element {
    #[doc(hidden)]
    fn pack(b: Mat<'_, Self>) -> PackedB;
}

impl PackedElement for f32 {
    fn pack(b: Mat<'_, Self>) -> PackedB {
        let panels = Panels::F32(pack(b, 1, |x, _, group| *group = x).into());
        PackedB { panels, k: b.rows, n: b.cols }
    }
}

impl PackedElement for f16 {
    fn pack(b: Mat<'_, Self>) -> PackedB {
        let panels = Panels::F16(pack(b, 1, |x, _, group| *group = x).into());
        PackedB { panels, k: b.rows, n: b.cols }
    }
}

impl PackedElement for bf16 {
    fn pack(b: Mat<'_, Self>) -> PackedB {
        let place = |x: bf16, row: usize, group: &mut u32| *group |= u32::from(x.to_bits()) << (16 * row);
        PackedB { panels: Panels::Bf16(pack(b, 2, place).into()), k: b.rows, n: b.cols }
    }
}

/// Packs the panels of `b` with `depth` rows per group; `place` puts a number into its group as one
/// of those rows.
fn pack<T: Element, G: Zeroable + Copy + Send>(
    b: Mat<'_, T>,
    depth: usize,
    place: impl Fn(T, usize, &mut G) + Sync,
) -> Pages<Row<G>> {
    let mut panels = Pages::zeroed(b.cols.div_ceil(PANEL) * b.rows.div_ceil(depth));
    fill(b, depth, place, &mut panels);
    panels
}

/// Same as [`pack`], into panels that are zero; those with one number per group may have any
/// content.
fn fill<T: Element, G: Zeroable + Copy + Send>(
    b: Mat<'_, T>,
    depth: usize,
    place: impl Fn(T, usize, &mut G) + Sync,
    panels: &mut [Row<G>],
) {
    let groups = b.rows.div_ceil(depth);
    parallel::chunks_mut(panels, groups.max(1), |panel, rows: &mut [Row<G>]| {
        let j = panel * PANEL;
        let used = PANEL.min(b.cols - j);
        if b.transposed && transpose(b, j, used, rows) {
            return;
        }
        for (group, row) in rows.iter_mut().enumerate() {
            for p in group * depth..b.rows.min((group + 1) * depth) {
                let place = |to: &mut G, x: &T| place(*x, p - group * depth, to);
                if b.transposed {
                    let column = b.data[j * b.ld + p..].iter().step_by(b.ld.max(1));
                    row.0[..used].iter_mut().zip(column).for_each(|(to, x)| place(to, x));
                } else {
                    let numbers = &b.data[p * b.ld + j..][..used];
                    row.0.iter_mut().zip(numbers).for_each(|(to, x)| place(to, x));
                }
            }
        }
    });
}

/// Calls `f` with a matrix packed into memory that the thread keeps, for several consecutive
/// products with it.
///
/// # Panics
///
/// If the data is too short for the shape of the matrix.
pub fn with_packed<R>(b: Mat<'_>, f: impl FnOnce(Factor<'_>) -> R) -> R {
    b.check("with_packed", (1, 0));
    with_scratch(b.cols.div_ceil(PANEL) * b.rows * PANEL, |scratch| {
        let panels: &mut [Row<f32>] = bytemuck::cast_slice_mut(scratch);
        fill(b, 1, |x, _, group| *group = x, panels);
        let panels = operand::Panels { data: panels.as_ptr().cast(), k: b.rows };
        f(Factor::new(Operand::PanelsF32(panels), b.rows, b.cols))
    })
}

/// Transposes a panel of a transposed matrix in registers; returns false if the layout of its
/// numbers does not allow it.
fn transpose<T: Element, G>(b: Mat<'_, T>, j: usize, used: usize, panel: &mut [Row<G>]) -> bool {
    // Two 16-bit numbers of two rows are treated as one 32-bit number.
    let share = size_of::<f32>() / size_of::<T>();
    let data = b.data[j * b.ld..].as_ptr();
    if !b.rows.is_multiple_of(share) || !b.ld.is_multiple_of(share) || !data.cast::<f32>().is_aligned() {
        return false;
    }
    assert_eq!(size_of_val(panel), b.rows * PANEL * size_of::<T>(), "PackedB: a panel has room for all rows");
    let source = Source { data: data.cast(), along: b.ld / share, deep: 1 };
    // SAFETY: the panel's columns are in B, and the panel has room for them, as asserted.
    unsafe {
        match T::KIND {
            Kind::F32 | Kind::Bf16 => transpose_words(source, used, b.rows / share, panel.as_mut_ptr().cast()),
            Kind::F16 => {
                let panel = std::slice::from_raw_parts_mut(panel.as_mut_ptr().cast::<Row<u16>>(), b.rows);
                let mut words = [Row([0.0f32; PANEL]); BLOCK];
                for (block, rows) in panel.chunks_mut(2 * BLOCK).enumerate() {
                    let depth = rows.len() / 2;
                    transpose_words(source.at(block * BLOCK, 0), used, depth, words.as_mut_ptr().cast());
                    for (rows, words) in rows.chunks_exact_mut(2).zip(&words) {
                        for (i, word) in words.0.iter().enumerate() {
                            (rows[0].0[i], rows[1].0[i]) = (word.to_bits() as u16, (word.to_bits() >> 16) as u16);
                        }
                    }
                }
            }
        }
    }
    true
}

/// The number of rows of pairs that are transposed before they are separated.
const BLOCK: usize = 64;

/// Same as [`pack_panel`], with the kernel of the current instruction set.
///
/// # Safety
///
/// Same as [`pack_panel`], for a `dst` without slack: a store past the end of a row stays within
/// the next row.
unsafe fn transpose_words(source: Source, used: usize, k: usize, dst: *mut f32) {
    struct Transpose {
        source: Source,
        used: usize,
        k: usize,
        dst: *mut f32,
    }
    impl KernelOp for Transpose {
        type Output = ();

        fn run<K: MicroKernel>(self, kernel: K) {
            // SAFETY: the caller's promises.
            unsafe { pack_panel(kernel, self.source, self.used, PANEL, self.k, self.dst) }
        }
    }
    with_kernel(Transpose { source, used, k, dst });
}

impl PackedB {
    /// Packs a matrix of `f32`, `f16` or `bf16`.
    ///
    /// # Panics
    ///
    /// If the data is too short for the shape of the matrix.
    pub fn new<T: PackedElement>(b: Mat<'_, T>) -> PackedB {
        b.check("PackedB", (1, 0));
        T::pack(b)
    }

    /// Returns the number of rows, the `k` of a product.
    pub fn rows(&self) -> usize {
        self.k
    }

    /// Returns the number of columns.
    pub fn cols(&self) -> usize {
        self.n
    }

    /// Returns the size in memory, in bytes.
    pub fn bytes(&self) -> usize {
        self.form().bytes
    }

    /// Returns all properties that depend on the element type: a new kind of [`Panels`] needs an
    /// entry here and a [`PackedElement`] that packs it.
    fn form(&self) -> Form {
        fn panels<G, T>(panels: &[Row<G>], k: usize) -> (operand::Panels<T>, usize) {
            (operand::Panels { data: panels.as_ptr().cast(), k }, size_of_val(panels))
        }
        let k = self.k;
        let (operand, bytes, element) = match &self.panels {
            Panels::F32(rows) => {
                let (panels, bytes) = panels(rows, k);
                (Operand::PanelsF32(panels), bytes, "f32")
            }
            Panels::F16(rows) => {
                let (panels, bytes) = panels(rows, k);
                (Operand::PanelsF16(panels), bytes, "f16")
            }
            Panels::Bf16(rows) => {
                let (panels, bytes) = panels(rows, k.div_ceil(2));
                (Operand::PanelsBf16(panels), bytes, "bf16")
            }
        };
        Form { operand, bytes, element }
    }
}

/// The properties of a [`PackedB`] that the loops and `Debug` need.
struct Form {
    operand: Operand,
    /// The size in memory, in bytes.
    bytes: usize,
    /// The name of the number format.
    element: &'static str,
}

impl<'a> From<&'a PackedB> for Factor<'a> {
    fn from(b: &'a PackedB) -> Self {
        Factor::new(b.form().operand, b.k, b.n)
    }
}

impl std::fmt::Debug for PackedB {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PackedB({} × {} of {})", self.k, self.n, self.form().element)
    }
}
