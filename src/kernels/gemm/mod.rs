//! Matrix products: `C = act(A·B (+ C) + bias) + residual`.
//!
//! A and B are [`Mat`]s: slices with a shape, stored as they are or transposed, so that the three
//! products of a linear layer (`x·W`, `dy·Wᵀ`, `xᵀ·dy`) need no copy. Work is split over the
//! caller's rayon pool.
//!
//! # Same bits everywhere
//!
//! Element `C[i, j]` is one chain of fused multiply–adds
//!
//! ```text
//! c ← 0 (or C[i, j] to accumulate);  for p in 0..k { c ← fma(A[i, p], B[p, j], c) }
//! ```
//!
//! whatever the shape, the tile, the number of threads or the instruction set: vector lanes hold
//! different elements, never parts of one, and a block of k ends by storing the chain and the next
//! begins by loading it. So the result of a row does not depend on the other rows, a product with a
//! vector equals a row of a product with a matrix, and a naive loop over [`f32::mul_add`] is an
//! exact reference. ([`Level::Portable`](super::simd::Level::Portable) rounds multiplication and
//! addition separately: the same chain with other bits.)
//!
//! # How
//!
//! The blocking is that of Goto and van de Geijn, "Anatomy of high-performance matrix
//! multiplication" (2008), as in BLIS: B is packed in panels that stay in the second-level cache, A
//! in panels that stay in the first, and a micro-kernel keeps a tile of C in registers.
//!
//! | file | content |
//! |---|---|
//! | `plan` | the blocks and tasks of a product |
//! | `driver` | the loops around the register tiles |
//! | `f32`, `rounded`, `int8` | the products of each kind: what is packed, and which tile is used |
//! | `product` | the description of a product, and what follows it |
//! | `few_rows`, `panel_tile` | products with so few rows that reading B dominates the time |
//! | `operand`, `packed`, `blocks` | the formats of B: f32, f16, bf16, strided or packed; block-quantised |
//! | `packing` | copying blocks of A and B into panels |
//! | `micro` | the register tiles, one file per instruction set |
//!
//! # Examples
//!
//! ```
//! use loquat::kernels::gemm::{Beta, Epilogue, Mat, gemm};
//!
//! let a = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]; // [2, 3]
//! let w = [1.0, 0.0, 1.0, 0.0, 1.0, 1.0]; // [2, 3], used as its transpose [3, 2]
//! let mut c = [0.0; 4];
//! let bias = Epilogue { bias: Some(&[10.0, 20.0]), ..Epilogue::default() };
//! gemm(Mat::new(&a, 2, 3), Mat::transposed(&w, 3, 2), &mut c, Beta::Zero, bias);
//! assert_eq!(c, [14.0, 25.0, 20.0, 31.0]);
//! ```

mod blocks;
mod driver;
mod f32;
mod few_rows;
mod int8;
pub(in crate::kernels) mod micro;
mod operand;
mod packed;
pub(in crate::kernels) mod packing;
mod panel_tile;
pub(in crate::kernels) mod plan;
mod product;
#[cfg(target_arch = "x86_64")]
mod rounded;

#[cfg(test)]
mod tests;

pub use int8::{Int8, dot_int8, gemm_int8};
pub use operand::{Element, Factor};
pub use packed::{PackedB, PackedElement, with_packed};

use super::extent::{extent, size};
use super::vecmath::Activation;
use operand::Operand;

/// A matrix, stored row by row or transposed, possibly a part of wider rows.
#[derive(Clone, Copy, Debug)]
pub struct Mat<'a, T = f32> {
    data: &'a [T],
    rows: usize,
    cols: usize,
    /// Whether element `[i, j]` is at `j·ld + i` instead of `i·ld + j`.
    transposed: bool,
    /// The distance between stored rows, in elements.
    ld: usize,
}

impl<'a, T> Mat<'a, T> {
    /// Creates a matrix of `rows` × `cols`, stored row by row.
    pub fn new(data: &'a [T], rows: usize, cols: usize) -> Self {
        Mat { data, rows, cols, transposed: false, ld: cols }
    }

    /// Creates a matrix of `rows` × `cols`, stored column by column: `data` holds its transpose,
    /// `cols` × `rows`.
    pub fn transposed(data: &'a [T], rows: usize, cols: usize) -> Self {
        Mat { data, rows, cols, transposed: true, ld: rows }
    }

    /// Sets the distance between stored rows to `ld` elements; it has no effect on a single row.
    pub fn with_ld(self, ld: usize) -> Self {
        let (rows, cols) = self.stored();
        if rows > 1 && cols > 0 { Mat { ld, ..self } } else { self }
    }

    /// Returns the numbers of stored rows and columns.
    fn stored(&self) -> (usize, usize) {
        if self.transposed { (self.cols, self.rows) } else { (self.rows, self.cols) }
    }

    /// Returns the transpose, a view of the same data.
    pub fn t(self) -> Self {
        Mat { rows: self.cols, cols: self.rows, transposed: !self.transposed, ..self }
    }

    /// Returns the number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Returns the number of columns.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Returns the matrix as a right factor.
    fn operand(&self) -> Operand
    where
        T: Element,
    {
        let (along, deep) = if self.transposed { (self.ld, 1) } else { (1, self.ld) };
        T::strided(packing::Source { data: self.data.as_ptr(), along, deep })
    }

    /// Checks that the data contains `batch.0` matrices at a distance of `batch.1` elements.
    fn check(&self, name: &str, batch: (usize, usize)) {
        let (rows, cols) = self.stored();
        assert!(self.ld >= cols || rows <= 1, "{name}: rows of {cols} elements overlap at a distance of {}", self.ld);
        let needed = extent([batch, (rows, self.ld), (cols, 1)]);
        assert!(
            needed.is_some_and(|needed| needed <= self.data.len()),
            "{name}: expected {} elements for {} × {}, found {}",
            needed.map_or("more than there can be".into(), |needed| needed.to_string()),
            self.rows,
            self.cols,
            self.data.len()
        );
    }
}

/// The precision of the factors of a product.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Precision {
    /// Factors are not rounded.
    #[default]
    F32,
    /// Factors are rounded to bf16 on processors that multiply bf16 faster; sums are in f32.
    Bf16,
}

impl Precision {
    /// Returns whether factors are rounded in this precision on this processor.
    pub fn rounds(self) -> bool {
        #[cfg(target_arch = "x86_64")]
        if self == Precision::Bf16 {
            return micro::avx512_bf16::Avx512Bf16::new().is_some();
        }
        false
    }
}

/// Whether a product overwrites C or adds to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Beta {
    /// Overwrites C.
    #[default]
    Zero,
    /// Adds to C.
    One,
}

/// The operations that follow a product while its block is still in cache:
/// `act(c + bias) + residual`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Epilogue<'a> {
    /// Added to each row: one value per column.
    pub bias: Option<&'a [f32]>,
    /// Applied to each element after the bias.
    pub activation: Option<Activation>,
    /// Added last: as many elements as in C.
    pub residual: Option<&'a [f32]>,
}

impl Epilogue<'_> {
    fn check(&self, m: usize, n: usize) {
        if let Some(bias) = self.bias {
            assert_eq!(bias.len(), n, "gemm: the bias has one value per column");
        }
        if let Some(residual) = self.residual {
            assert_eq!(Some(residual.len()), size([m, n]), "gemm: the residual is as large as C");
        }
    }
}

/// Computes `C = act(A·B + bias) + residual`, or adds C to the product.
///
/// B may be in half precision, which is converted to f32 when it is read, or a [`PackedB`].
///
/// # Shapes
///
/// `a: [m, k]`, `b: [k, n]`, `c: [m, n]` row by row.
///
/// # Panics
///
/// If the shapes do not match each other or the slices.
pub fn gemm<'b>(a: Mat<'_>, b: impl Into<Factor<'b>>, c: &mut [f32], beta: Beta, epilogue: Epilogue<'_>) {
    gemm_in(Precision::F32, a, b, c, beta, epilogue);
}

/// Same as [`gemm`], in a precision.
///
/// # Panics
///
/// Same as [`gemm`].
pub fn gemm_in<'b>(
    precision: Precision,
    a: Mat<'_>,
    b: impl Into<Factor<'b>>,
    c: &mut [f32],
    beta: Beta,
    epilogue: Epilogue<'_>,
) {
    each(precision, checked(a, b.into(), c, beta, epilogue).as_slice());
}

/// Computes several products with the same A: `Cᵢ = actᵢ(A·Bᵢ + biasᵢ) + residualᵢ`, each as in
/// [`gemm_in`]; as one parallel job if there are few rows or the factors are packed.
///
/// # Shapes
///
/// `a: [m, k]`; for each product `b: [k, nᵢ]`, `c: [m, nᵢ]`.
///
/// # Panics
///
/// Same as [`gemm`].
pub fn gemm_each<'a>(
    precision: Precision,
    a: Mat<'a>,
    products: impl IntoIterator<Item = (Factor<'a>, &'a mut [f32], Epilogue<'a>)>,
) {
    let checked = |(b, c, epilogue)| checked(a, b, c, Beta::Zero, epilogue);
    let products: Vec<_> = products.into_iter().filter_map(checked).collect();
    each(precision, &products);
}

/// Computes several products with the same A, rounded if the precision requires it and the
/// processor supports it. All products go through this function.
fn each(precision: Precision, products: &[product::Product<'_>]) {
    #[cfg(target_arch = "x86_64")]
    if precision == Precision::Bf16 && rounded::each(products) {
        return;
    }
    let _ = precision;
    f32::each(products);
}

/// Checks the shapes of a product; returns `None` if its result has no elements.
fn checked<'a>(
    a: Mat<'a>,
    b: Factor<'a>,
    c: &'a mut [f32],
    beta: Beta,
    epilogue: Epilogue<'a>,
) -> Option<product::Product<'a>> {
    let (m, k, n) = (a.rows, a.cols, b.n);
    assert_eq!(k, b.k, "gemm: A is {m} × {k}, B is {} × {n}", b.k);
    assert_eq!(Some(c.len()), size([m, n]), "gemm: C is {m} × {n}");
    a.check("gemm: A", (1, 0));
    epilogue.check(m, n);
    (!c.is_empty()).then(|| product::Product::new(a, b.operand, n, c, beta, epilogue))
}

/// Computes `batch` products of the same shape: `Cᵢ = Aᵢ·Bᵢ`, or adds Cᵢ to them.
///
/// `a` and `b` describe the first matrices; the i-th begin `i · stride_a` and `i · stride_b`
/// elements later. A stride of 0 uses one matrix for all.
///
/// # Shapes
///
/// `a: [batch, m, k]`, `b: [batch, k, n]`, `c: [batch, m, n]`.
///
/// # Panics
///
/// If the shapes do not match each other or the slices.
pub fn gemm_batch(batch: usize, a: Mat<'_>, stride_a: usize, b: Mat<'_>, stride_b: usize, c: &mut [f32], beta: Beta) {
    let (m, k, n) = (a.rows, a.cols, b.cols);
    assert_eq!(k, b.rows, "gemm_batch: A is {m} × {k}, B is {} × {n}", b.rows);
    assert_eq!(Some(c.len()), size([batch, m, n]), "gemm_batch: C is {batch} × {m} × {n}");
    a.check("gemm_batch: A", (batch, stride_a));
    b.check("gemm_batch: B", (batch, stride_b));
    if c.is_empty() {
        return;
    }
    // The strides of a single matrix, or of empty ones, are not multiplied: they may be anything.
    let strides = if batch == 1 || k == 0 { [0; 2] } else { [stride_a, stride_b] };
    f32::product(product::Product::new(a, b.operand(), n, c, beta, Epilogue::default()), batch, strides);
}
