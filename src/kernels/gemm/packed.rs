//! Constant weights, packed once.

use std::sync::Arc;

use bytemuck::Zeroable;
use half::{bf16, f16};

use super::Mat;
use super::micro::PANEL;
use super::operand::{self, Element, Factor, Operand};
use crate::kernels::pages::Pages;
use crate::kernels::parallel;

/// A matrix B that is multiplied from the right many times, in the order in which the kernels read it.
///
/// Panels of 32 columns lie one after the other, so a product with few rows reads memory from end to end. The same
/// packing serves every instruction set, and the bits are those of the same numbers unpacked. Half-precision numbers stay
/// as they are and are widened on the way, exactly.
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
    /// Two rows to a group of 32 bits, the first below: what dot products of pairs read.
    Bf16(Arc<Pages<Row<u32>>>),
}

/// A row of a panel, on cache lines of its own.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Row<T>([T; PANEL]);

// SAFETY: an array of numbers that may be zero.
unsafe impl<T: Zeroable> Zeroable for Row<T> {}

/// What [`PackedB`] can hold.
pub trait PackedElement: Element {
    #[doc(hidden)]
    fn pack(b: Mat<'_, Self>) -> PackedB;
}

macro_rules! packed_element {
    ($t:ty, $variant:ident) => {
        impl PackedElement for $t {
            fn pack(b: Mat<'_, Self>) -> PackedB {
                PackedB { panels: Panels::$variant(pack(b).into()), k: b.rows, n: b.cols }
            }
        }
    };
}
packed_element!(f32, F32);
packed_element!(f16, F16);

impl PackedElement for bf16 {
    fn pack(b: Mat<'_, Self>) -> PackedB {
        let plain = pack(b);
        let mut panels = Pages::zeroed(b.cols.div_ceil(PANEL) * b.rows.div_ceil(2));
        let rows = b.rows.max(1);
        parallel::chunks_mut(&mut panels, rows.div_ceil(2), |panel, groups: &mut [Row<u32>]| {
            for (group, pair) in groups.iter_mut().zip(plain[panel * rows..][..rows].chunks(2)) {
                for (i, group) in group.0.iter_mut().enumerate() {
                    let high = pair.get(1).map_or(0, |row| row.0[i].to_bits());
                    *group = u32::from(pair[0].0[i].to_bits()) | u32::from(high) << 16;
                }
            }
        });
        PackedB { panels: Panels::Bf16(panels.into()), k: b.rows, n: b.cols }
    }
}

fn pack<T: Element + Zeroable>(b: Mat<'_, T>) -> Pages<Row<T>> {
    let mut panels = Pages::zeroed(b.cols.div_ceil(PANEL) * b.rows);
    parallel::chunks_mut(&mut panels, b.rows.max(1), |panel, rows: &mut [Row<T>]| {
        let j = panel * PANEL;
        let used = PANEL.min(b.cols - j);
        if b.transposed {
            // Blocks of rows, so that what is written stays in cache.
            for (block, rows) in rows.chunks_mut(64).enumerate() {
                for i in 0..used {
                    let column = &b.data[(j + i) * b.ld + block * 64..];
                    for (row, &x) in rows.iter_mut().zip(column) {
                        row.0[i] = x;
                    }
                }
            }
        } else {
            for (p, row) in rows.iter_mut().enumerate() {
                row.0[..used].copy_from_slice(&b.data[p * b.ld + j..][..used]);
            }
        }
    });
    panels
}

impl PackedB {
    /// Packs a matrix of `f32`, `f16` or `bf16`.
    ///
    /// # Panics
    ///
    /// If the matrix' data is too short for its shape.
    pub fn new<T: PackedElement>(b: Mat<'_, T>) -> PackedB {
        b.check("PackedB", 0);
        T::pack(b)
    }

    /// Number of rows, the `k` of a product.
    pub fn rows(&self) -> usize {
        self.k
    }

    /// Number of columns.
    pub fn cols(&self) -> usize {
        self.n
    }

    /// Bytes in memory.
    pub fn bytes(&self) -> usize {
        match &self.panels {
            Panels::F32(panels) => size_of_val(&panels[..]),
            Panels::F16(panels) => size_of_val(&panels[..]),
            Panels::Bf16(panels) => size_of_val(&panels[..]),
        }
    }
}

impl<'a> From<&'a PackedB> for Factor<'a> {
    fn from(b: &'a PackedB) -> Self {
        let k = b.k;
        let operand = match &b.panels {
            Panels::F32(panels) => Operand::PanelsF32(operand::Panels { data: panels.as_ptr().cast(), k }),
            Panels::F16(panels) => Operand::PanelsF16(operand::Panels { data: panels.as_ptr().cast(), k }),
            Panels::Bf16(panels) => {
                Operand::PanelsBf16(operand::Panels { data: panels.as_ptr().cast(), k: k.div_ceil(2) })
            }
        };
        Factor::new(operand, k, b.n)
    }
}

impl std::fmt::Debug for PackedB {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let element = match &self.panels {
            Panels::F32(_) => "f32",
            Panels::F16(_) => "f16",
            Panels::Bf16(_) => "bf16",
        };
        write!(f, "PackedB({} × {} of {element})", self.k, self.n)
    }
}
