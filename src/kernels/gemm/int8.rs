//! Products of 8-bit integers, summed exactly in 32 bits.
//!
//! Four numbers form a 32-bit group (two, extended to 16 bits, where there is no instruction for
//! four). Every kernel is exact: none saturates intermediate sums, as `vpmaddubsw` would. For an
//! instruction that needs an unsigned left factor, 128 is added to `a`, and 128 times the sum of
//! the column is subtracted from the result.

use std::ops::Range;

use super::driver::{self, Factors, Part};
#[cfg(target_arch = "x86_64")]
use super::f32::FEW_ROWS;
#[cfg(target_arch = "x86_64")]
use super::few_rows::share;
#[cfg(target_arch = "x86_64")]
use super::micro::{ColumnsKernel, TileArgs, within};
use super::micro::{KernelOp, MicroKernel, PANEL, TileKernel, int8_portable, with_kernel};
#[cfg(target_arch = "x86_64")]
use super::packing::{SLACK, with_scratch};
#[cfg(target_arch = "x86_64")]
use super::plan::even;
use crate::kernels::extent::size;
use crate::kernels::parallel;
use crate::kernels::simd;

/// An 8-bit integer type of the left factor, signed or unsigned.
pub trait Int8: Copy + Send + Sync + Into<i32> + sealed::Int8 {}
impl Int8 for i8 {}
impl Int8 for u8 {}

mod sealed {
    pub trait Int8 {
        const SIGNED: bool;
    }
    impl Int8 for i8 {
        const SIGNED: bool = true;
    }
    impl Int8 for u8 {
        const SIGNED: bool = false;
    }
}

/// Computes `c[i, j] = Σₚ a[i, p] · b[j, p]`, exact as long as the sums fit into 32 bits (always
/// for `k` up to 65 536).
///
/// # Shapes
///
/// `a: [m, k]`; `b: [n, k]`, row by row as weights are stored; `c: [m, n]`.
///
/// # Panics
///
/// If the shapes do not match the slices.
///
/// # Examples
///
/// ```
/// let mut c = [0; 2];
/// loquat::kernels::gemm::gemm_int8(&[255u8, 1, 2], &[-128i8, 0, 1, 1, 1, 1], &mut c, (1, 3, 2));
/// assert_eq!(c, [-128 * 255 + 2, 258]);
/// ```
pub fn gemm_int8<A: Int8>(a: &[A], b: &[i8], c: &mut [i32], (m, k, n): (usize, usize, usize)) {
    assert_eq!(Some(a.len()), size([m, k]), "gemm_int8: A is {m} × {k}");
    assert_eq!(Some(b.len()), size([n, k]), "gemm_int8: B is {n} × {k}");
    assert_eq!(Some(c.len()), size([m, n]), "gemm_int8: C is {m} × {n}");
    if !c.is_empty() {
        with_kernel(Run { a, b, c, shape: (m, k, n) });
    }
}

/// Computes `Σₚ a[p] · b[p]`, exact as long as the sum fits into 32 bits.
///
/// # Panics
///
/// If the lengths differ.
pub fn dot_int8<A: Int8>(a: &[A], b: &[i8]) -> i32 {
    let mut c = [0];
    assert_eq!(a.len(), b.len(), "dot_int8: two vectors of one length");
    #[cfg(target_arch = "x86_64")]
    if let Some(dot) = super::micro::int8_x86::Avx512Vnni::new() {
        return dot.dot(bytes(a), bytes(b), A::SIGNED);
    }
    if a.len() < 64 || simd::level() == simd::Level::Portable {
        return a.iter().zip(b).fold(0i32, |sum, (&a, &b)| sum.wrapping_add(a.into() * i32::from(b)));
    }
    gemm_int8(a, b, &mut c, (1, a.len(), 1));
    c[0]
}

struct Run<'a, A> {
    a: &'a [A],
    b: &'a [i8],
    c: &'a mut [i32],
    shape: (usize, usize, usize),
}

impl<A: Int8> KernelOp for Run<'_, A> {
    type Output = ();

    fn run<K: MicroKernel>(self, pack: K) {
        #[cfg(target_arch = "x86_64")]
        {
            use super::micro::amx::{AmxI8, AmxU8};
            use super::micro::int8_x86::{Avx2Int8, Avx512Vnni, AvxVnni};
            if let Some(kernel) = AmxI8::new().filter(|_| A::SIGNED) {
                return fours(kernel, false, pack, self);
            }
            if let Some(kernel) = AmxU8::new() {
                return fours(kernel, true, pack, self);
            }
            if let Some(kernel) = Avx512Vnni::new() {
                return fours(kernel, true, pack, self);
            }
            if let Some(kernel) = AvxVnni::new() {
                return run(kernel, Groups::Four { unsigned: true }, pack, self);
            }
            if let Some(kernel) = Avx2Int8::new() {
                return run(kernel, Groups::Two, pack, self);
            }
        }
        #[cfg(target_arch = "aarch64")]
        if let Some(kernel) = super::micro::int8_neon::Dotprod::new() {
            return run(kernel, Groups::Four { unsigned: false }, pack, self);
        }
        run(int8_portable::Portable, Groups::Two, pack, self)
    }
}

/// The content of a group.
#[derive(Clone, Copy, PartialEq)]
enum Groups {
    /// Two numbers of 16 bits.
    Two,
    /// Four numbers of 8 bits; those of the left factor are unsigned or signed.
    #[cfg_attr(not(any(target_arch = "x86_64", target_arch = "aarch64")), expect(dead_code))]
    Four { unsigned: bool },
}

impl Groups {
    fn numbers(self) -> usize {
        match self {
            Groups::Two => 2,
            Groups::Four { .. } => 4,
        }
    }
}

/// Uses a kernel that reads B in place if there are few rows.
#[cfg(target_arch = "x86_64")]
fn fours<D, K: MicroKernel, A: Int8>(kernel: D, unsigned: bool, pack: K, product: Run<'_, A>)
where
    D: TileKernel<Sum = i32> + ColumnsKernel<Sum = i32>,
{
    let groups = Groups::Four { unsigned };
    let (m, k, _) = product.shape;
    match (1..=FEW_ROWS).contains(&m) && k.is_multiple_of(4) {
        true => few_rows(kernel, groups, pack, product),
        false => run(kernel, groups, pack, product),
    }
}

/// Returns what is added to A to get the sign that the instruction needs, and what this adds to
/// each column of C.
fn offset<A: Int8>(groups: Groups, b: &[i8], k: usize, n: usize) -> (i32, Vec<i32>) {
    let offset: i32 = match groups {
        Groups::Four { unsigned: true } if A::SIGNED => 128,
        Groups::Four { unsigned: false } if !A::SIGNED => -128,
        _ => 0,
    };
    let mut sums = vec![0i32; if offset == 0 { 0 } else { n }];
    parallel::chunks_mut(&mut sums, 64, |chunk, sums| {
        for (i, sum) in sums.iter_mut().enumerate() {
            let row = &b[(chunk * 64 + i) * k..][..k];
            *sum = offset.wrapping_mul(row.iter().map(|&x| i32::from(x)).fold(0, i32::wrapping_add));
        }
    });
    (offset, sums)
}

fn run<D: TileKernel<Sum = i32>, K: MicroKernel, A: Int8>(kernel: D, groups: Groups, pack: K, product: Run<'_, A>) {
    let Run { a, b, c, shape: (m, k, n) } = product;
    let (offset, sums) = offset::<A>(groups, b, k, n);
    let factors = Bytes { pack, a: bytes(a), b: bytes(b), k, groups, signed: A::SIGNED, flip: offset != 0 };
    let finish = |_: usize, col: usize, row: &mut [i32]| take_off(row, sums.get(col..).unwrap_or_default());
    let part = Part { n, factors, c: c.as_mut_ptr(), load: false, finish };
    // SAFETY: the lengths were checked; C is borrowed mutably.
    unsafe { driver::each(kernel, (m, k.div_ceil(groups.numbers())), 1, std::iter::once(part)) };
}

/// Subtracts the sums, if there are any, from a row of C.
fn take_off(row: &mut [i32], sums: &[i32]) {
    for (c, sum) in row.iter_mut().zip(sums) {
        *c = c.wrapping_sub(*sum);
    }
}

/// Computes a product with few rows of A whose numbers form whole groups.
#[cfg(target_arch = "x86_64")]
fn few_rows<D, K: MicroKernel, A: Int8>(kernel: D, groups: Groups, pack: K, product: Run<'_, A>)
where
    D: ColumnsKernel<Sum = i32>,
{
    let Run { a, b, c, shape: (m, k, n) } = product;
    let (offset, sums) = offset::<A>(groups, b, k, n);
    let len = k / groups.numbers();
    let factors = Bytes { pack, a: bytes(a), b: bytes(b), k, groups, signed: A::SIGNED, flip: offset != 0 };
    let (padded, mr) = (len.next_multiple_of(D::STEP), even(m, D::ROWS, 1));
    let width = share(m, len, n, 1);
    let a_len = (m * padded + SLACK).next_multiple_of(16);
    let c = &Shared(c.as_mut_ptr());
    parallel::for_each(n.div_ceil(width), |task| {
        let cols = task * width..n.min((task + 1) * width);
        with_scratch(a_len + PANEL * len, |scratch| {
            let (packed, copy) = scratch.split_at_mut(a_len);
            let packed: *mut u32 = packed.as_mut_ptr().cast();
            for i in (0..m).step_by(mr) {
                // SAFETY: the rows are in A; the panels before and this one have `m · padded`
                // elements, the slack follows.
                unsafe { factors.pack_a(i..m.min(i + mr), 0..padded, None, packed.add(i * padded)) };
            }
            let _begun = kernel.begin(mr);
            for j in cols.clone().step_by(PANEL) {
                let used = PANEL.min(cols.end - j);
                let rows = &bytes(b)[j * k..][..used * k];
                let mut source = rows.as_ptr();
                if used < PANEL {
                    // Tiles are as wide as a panel.
                    let copy: &mut [u8] = bytemuck::cast_slice_mut(copy);
                    copy[..rows.len()].copy_from_slice(rows);
                    source = copy.as_ptr();
                }
                for i in (0..m).step_by(mr) {
                    let (rows, a, c) = (mr.min(m - i), packed.wrapping_add(i * padded), c.at(i * n + j));
                    // SAFETY: A is packed for these rows, B has `PANEL` columns, and this tile of C
                    // is ours.
                    unsafe {
                        let b = source.cast();
                        let args = TileArgs { rows, k: len, a, lda: rows, b, ldb: len, c, ldc: n, load: false };
                        within(args, (used, PANEL), |args| kernel.columns(args))
                    };
                }
            }
            for i in 0..m {
                // SAFETY: this part of a row is ours.
                let row = unsafe { std::slice::from_raw_parts_mut(c.at(i * n + cols.start), cols.len()) };
                take_off(row, sums.get(cols.clone()).unwrap_or_default());
            }
        });
    });
}

/// C, of which each task writes its own columns.
#[cfg(target_arch = "x86_64")]
struct Shared(*mut i32);

// SAFETY: it comes from a slice that outlives the product, each element of which belongs to one
// task.
#[cfg(target_arch = "x86_64")]
unsafe impl Sync for Shared {}

#[cfg(target_arch = "x86_64")]
impl Shared {
    fn at(&self, i: usize) -> *mut i32 {
        self.0.wrapping_add(i)
    }
}

/// Returns the numbers as bytes.
fn bytes<A: Int8>(x: &[A]) -> &[u8] {
    // SAFETY: `i8` and `u8`, the only types of the sealed trait, are bytes.
    unsafe { std::slice::from_raw_parts(x.as_ptr().cast(), x.len()) }
}

#[derive(Clone, Copy)]
struct Bytes<'a, K> {
    /// The kernel that transposes.
    pack: K,
    a: &'a [u8],
    b: &'a [u8],
    k: usize,
    groups: Groups,
    /// Whether the left factor is signed.
    signed: bool,
    /// Whether the top bit of the left factor is flipped, which converts between signed and
    /// unsigned by a shift of 128.
    flip: bool,
}

/// The number of groups that are transposed at a time.
const CHUNK: usize = 16;

impl<K: MicroKernel> Bytes<'_, K> {
    /// Writes groups `groups` of a row, with zeros past its end.
    #[inline]
    fn row(&self, row: &[u8], groups: Range<usize>, signed: bool, flip: bool, out: &mut [u32]) {
        let numbers = self.groups.numbers();
        let (first, end) = ((groups.start * numbers).min(row.len()), (groups.end * numbers).min(row.len()));
        let row = &row[first..end];
        match self.groups {
            Groups::Four { .. } => {
                let flip = if flip { 0x8080_8080 } else { 0 };
                let whole = row.len() / 4;
                for (out, four) in out.iter_mut().zip(row.chunks_exact(4)) {
                    *out = u32::from_le_bytes([four[0], four[1], four[2], four[3]]) ^ flip;
                }
                out[whole..].fill(0);
                for (i, &x) in row[whole * 4..].iter().enumerate() {
                    out[whole] |= u32::from(x ^ (flip as u8)) << (8 * i);
                }
            }
            Groups::Two => {
                let wide = |x: u8| if signed { x as i8 as i16 as u16 } else { u16::from(x) };
                out.fill(0);
                for (i, &x) in row.iter().enumerate() {
                    out[i / 2] |= u32::from(wide(x)) << (16 * (i % 2));
                }
            }
        }
    }

    /// Packs rows of `x` as `[groups, width]`.
    ///
    /// # Safety
    ///
    /// * `dst` has room for the panel and the slack.
    unsafe fn pack(
        &self,
        x: &[u8],
        rows: Range<usize>,
        width: usize,
        groups: Range<usize>,
        signed: bool,
        flip: bool,
        dst: *mut u32,
    ) {
        let mut block = [[0u32; CHUNK]; CHUNK];
        for (chunk, first) in groups.clone().step_by(CHUNK).enumerate() {
            let n = CHUNK.min(groups.end - first);
            for i in (0..rows.len()).step_by(CHUNK) {
                let used = CHUNK.min(rows.len() - i);
                for (j, out) in block.iter_mut().enumerate().take(used) {
                    let row = &x[(rows.start + i + j) * self.k..][..self.k];
                    self.row(row, first..first + n, signed, flip, &mut out[..n]);
                }
                // SAFETY: the block is whole; `dst` is as the caller promises. Transposing moves
                // bits and no numbers.
                unsafe {
                    let dst = dst.add(chunk * CHUNK * width + i).cast();
                    self.pack.transpose(block.as_ptr().cast(), CHUNK, used, n, dst, width);
                }
            }
        }
    }
}

impl<K: MicroKernel> Factors for Bytes<'_, K> {
    fn packs_b(&self) -> bool {
        true
    }

    unsafe fn pack_a(&self, rows: Range<usize>, groups: Range<usize>, rows_of_a: Option<usize>, dst: *mut u32) {
        let (width, len) = (rows.len(), groups.len());
        if let Some(mr) = rows_of_a {
            // SAFETY: the caller's promise: room for `mr` rows.
            let dst = unsafe { std::slice::from_raw_parts_mut(dst, mr * len) };
            for (i, out) in dst.chunks_exact_mut(len.max(1)).enumerate() {
                match i < width {
                    true => {
                        let row = &self.a[(rows.start + i) * self.k..][..self.k];
                        self.row(row, groups.clone(), self.signed, self.flip, out);
                    }
                    false => out.fill(0),
                }
            }
            return;
        }
        // SAFETY: the caller's promise.
        unsafe { self.pack(self.a, rows, width, groups, self.signed, self.flip, dst) }
    }

    unsafe fn panel_b(&self, cols: Range<usize>, groups: Range<usize>, dst: *mut u32) -> *const u32 {
        // SAFETY: the caller's promise.
        unsafe { self.pack(self.b, cols, PANEL, groups, true, false, dst) };
        dst
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::simd::{features, for_each_kernel};

    fn naive<A: Int8>(a: &[A], b: &[i8], (m, k, n): (usize, usize, usize)) -> Vec<i32> {
        let dot = |i: usize| (0..k).map(|p| a[i / n * k + p].into() * i32::from(b[i % n * k + p])).sum();
        (0..m * n).map(dot).collect()
    }

    fn numbers(len: usize, seed: u32) -> Vec<u8> {
        let mut state = seed;
        (0..len)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                // Every third number is at an end of the range, where saturation would show.
                if state >> 30 == 0 { [0, 127, 128, 255][(state >> 28 & 3) as usize] } else { (state >> 24) as u8 }
            })
            .collect()
    }

    #[test]
    fn products_are_exact() {
        for_each_kernel(|| {
            for shape @ (m, k, n) in [
                (0, 3, 2),
                (2, 0, 3),
                (1, 1, 1),
                (3, 5, 7),
                (1, 64, 33),
                (1, 132, 70),
                (5, 68, 95),
                (16, 60, 64),
                (11, 1028, 97),
                (6, 63, 16),
                (14, 65, 32),
                (15, 130, 31),
                (17, 1537, 40),
                (33, 40, 513),
            ] {
                let (a, b) = (numbers(m * k, 1), numbers(n * k, 2));
                let signed: Vec<i8> = a.iter().map(|&x| x as i8).collect();
                let b: Vec<i8> = b.iter().map(|&x| x as i8).collect();
                let mut c = vec![7; m * n];
                gemm_int8(&a, &b, &mut c, shape);
                assert_eq!(c, naive(&a, &b, shape), "u8 {shape:?} {:?}", features());
                gemm_int8(&signed, &b, &mut c, shape);
                assert_eq!(c, naive(&signed, &b, shape), "i8 {shape:?} {:?}", features());
            }
        });
    }

    /// Tests the layout of the bytes in AMX tiles, on any processor.
    #[cfg(target_arch = "x86_64")]
    #[test]
    fn amx_tiles_are_loaded_with_the_right_bytes() {
        use crate::kernels::gemm::micro::amx::model::{Model, signed, unsigned};

        struct Through<'a, A>(Run<'a, A>);
        impl<A: Int8> KernelOp for Through<'_, A> {
            type Output = ();
            fn run<K: MicroKernel>(self, pack: K) {
                let model = Model(if A::SIGNED { signed } else { unsigned });
                run(model, Groups::Four { unsigned: !A::SIGNED }, pack, self.0);
            }
        }
        for shape @ (m, k, n) in [(1, 1, 1), (3, 5, 7), (32, 64, 32), (33, 65, 31), (40, 130, 70), (70, 1700, 40)] {
            let (a, b) = (numbers(m * k, 1), numbers(n * k, 2));
            let (signed, b): (Vec<i8>, Vec<i8>) =
                (a.iter().map(|&x| x as i8).collect(), b.iter().map(|&x| x as i8).collect());
            let mut c = vec![7; m * n];
            with_kernel(Through(Run { a: &a, b: &b, c: &mut c, shape }));
            assert_eq!(c, naive(&a, &b, shape), "u8 {shape:?}");
            with_kernel(Through(Run { a: &signed, b: &b, c: &mut c, shape }));
            assert_eq!(c, naive(&signed, &b, shape), "i8 {shape:?}");
        }
    }

    #[test]
    fn dots_are_exact_where_partial_sums_would_saturate() {
        for_each_kernel(|| {
            for len in [0, 1, 31, 63, 64, 65, 127, 128, 1000, 65_536] {
                for (a, b) in [(255, -128), (255, 127), (128, -128), (127, 127)] {
                    let (left, right) = (vec![a as u8; len], vec![b as i8; len]);
                    assert_eq!(dot_int8(&left, &right), len as i32 * a * b, "u8 {len} {:?}", features());
                    let signed = vec![a as u8 as i8; len];
                    assert_eq!(dot_int8(&signed, &right), len as i32 * i32::from(a as u8 as i8) * b, "i8 {len}");
                }
                let (a, b) = (numbers(len, 3), numbers(len, 4));
                let b: Vec<i8> = b.iter().map(|&x| x as i8).collect();
                assert_eq!(dot_int8(&a, &b), a.iter().zip(&b).map(|(&a, &b)| i32::from(a) * i32::from(b)).sum::<i32>());
            }
        });
    }
}
