//! A table of rows that several threads read and change at once, without locks ("Hogwild", Recht et al. 2011).
//!
//! Word2vec's updates are sparse and small, so a change that is lost now and then, when two threads add to one row at
//! the same instant, does no harm; waiting for each other would. In C that is a data race. Here it is none:
//!
//! - The table is a slice of [`AtomicU32`], each the bits of one `f32`. Nobody ever has a `&mut f32` or a `&f32` into it
//!   while it is shared; rows are copied out ([`SharedTable::read`]) and added to ([`SharedTable::add`]).
//! - Both are, element by element, a relaxed load, an addition, and a relaxed store. That is how they are written for
//!   processors without a vector path, and what the vector path computes.
//! - The compiler does not join relaxed atomic operations into vector instructions, so on x86-64 the same loops are
//!   written in assembly. To the language an assembly block is a sequence of operations that Rust code could have done:
//!   those relaxed loads and stores. To the processor they are the plain moves that relaxed operations compile to, only
//!   wider; x86 never tears an aligned 4-byte element of a vector move.
//!
//! The scalar loops are an instruction per element and direction, for rows whose arithmetic is an instruction per sixteen;
//! what that costs in a whole run still has to be measured on a quiet machine.

#![allow(unsafe_code)]

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use crate::kernels::prefetch::prefetch;
#[cfg(all(target_arch = "x86_64", not(miri)))]
use crate::kernels::simd::{Level, level};

/// Rows of `f32` that threads share.
#[derive(Debug)]
pub(crate) struct SharedTable {
    cells: Vec<AtomicU32>,
    dim: usize,
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    wide: bool,
}

impl SharedTable {
    /// Shares `values`, rows of `dim` numbers. Nothing is copied.
    pub(crate) fn new(values: Vec<f32>, dim: usize) -> Self {
        assert!(dim > 0 && values.len().is_multiple_of(dim), "whole rows");
        // The compiler turns this into the same allocation.
        let cells = values.into_iter().map(|x| AtomicU32::new(x.to_bits())).collect();
        SharedTable {
            cells,
            dim,
            #[cfg(all(target_arch = "x86_64", not(miri)))]
            wide: level() >= Level::Avx512,
        }
    }

    /// The values, no longer shared.
    pub(crate) fn into_values(self) -> Vec<f32> {
        self.cells.into_iter().map(|x| f32::from_bits(x.into_inner())).collect()
    }

    #[inline]
    fn row(&self, row: usize) -> &[AtomicU32] {
        &self.cells[row * self.dim..(row + 1) * self.dim]
    }

    /// Copies a row to the start of `out`.
    #[inline]
    pub(crate) fn read(&self, row: usize, out: &mut [f32]) {
        let (cells, out) = (self.row(row), &mut out[..self.dim]);
        #[cfg(all(target_arch = "x86_64", not(miri)))]
        if self.wide {
            return avx512::read(cells, out);
        }
        for (o, cell) in out.iter_mut().zip(cells) {
            *o = f32::from_bits(cell.load(Relaxed));
        }
    }

    /// Adds the start of `delta` to a row.
    #[inline]
    pub(crate) fn add(&self, row: usize, delta: &[f32]) {
        let (cells, delta) = (self.row(row), &delta[..self.dim]);
        #[cfg(all(target_arch = "x86_64", not(miri)))]
        if self.wide {
            return avx512::add(cells, delta);
        }
        for (cell, d) in cells.iter().zip(delta) {
            cell.store((f32::from_bits(cell.load(Relaxed)) + d).to_bits(), Relaxed);
        }
    }

    /// Adds a row to the start of `sum`.
    #[inline]
    pub(crate) fn add_to(&self, row: usize, sum: &mut [f32]) {
        let (cells, sum) = (self.row(row), &mut sum[..self.dim]);
        #[cfg(all(target_arch = "x86_64", not(miri)))]
        if self.wide {
            return avx512::add_to(cells, sum);
        }
        for (s, cell) in sum.iter_mut().zip(cells) {
            *s += f32::from_bits(cell.load(Relaxed));
        }
    }

    /// Tells the processor that a row will be wanted soon.
    #[inline]
    pub(crate) fn prefetch(&self, row: usize) {
        prefetch(self.row(row));
    }
}

/// The loops above, sixteen elements at a time. Registers 16 and up are used: unlike the lower ones they leave no state
/// that would slow older vector code down.
#[cfg(all(target_arch = "x86_64", not(miri)))]
mod avx512 {
    use std::arch::asm;
    use std::sync::atomic::AtomicU32;

    /// The mask of the elements behind the last whole vector.
    fn tail(n: usize) -> u32 {
        (1 << (n % 16)) - 1
    }

    #[inline]
    pub(super) fn read(cells: &[AtomicU32], out: &mut [f32]) {
        assert_eq!(cells.len(), out.len());
        let (n, tail) = (cells.len(), tail(cells.len()));
        // SAFETY: the caller has seen that the processor has AVX-512. Whole vectors are moved while `i + 16 <= n`, and
        // the mask of the last covers the rest alone, so `n` elements of each slice are touched. Reads of `cells` are
        // relaxed loads of each element; `out` is exclusively ours.
        unsafe {
            asm!(
                "kmovw k1, {tail:e}",
                "xor {i}, {i}",
                "cmp {i}, {whole}",
                "jae 3f",
                "2:",
                "vmovups zmm16, [{src} + {i}*4]",
                "vmovups [{dst} + {i}*4], zmm16",
                "add {i}, 16",
                "cmp {i}, {whole}",
                "jb 2b",
                "3:",
                "vmovups zmm16{{k1}}{{z}}, [{src} + {i}*4]",
                "vmovups [{dst} + {i}*4]{{k1}}, zmm16",
                tail = in(reg) tail,
                i = out(reg) _,
                whole = in(reg) n & !15,
                src = in(reg) cells.as_ptr(),
                dst = in(reg) out.as_mut_ptr(),
                out("xmm16") _,
                out("k1") _,
                options(nostack),
            );
        }
    }

    #[inline]
    pub(super) fn add(cells: &[AtomicU32], delta: &[f32]) {
        assert_eq!(cells.len(), delta.len());
        // SAFETY: as many elements stand behind either pointer; each element of `cells` is loaded and stored as a relaxed
        // atomic would be, through a pointer that may write because atomics allow it.
        unsafe { accumulate(cells.len(), delta.as_ptr(), cells.as_ptr().cast_mut().cast()) }
    }

    #[inline]
    pub(super) fn add_to(cells: &[AtomicU32], sum: &mut [f32]) {
        assert_eq!(cells.len(), sum.len());
        // SAFETY: as in `add`, with the roles exchanged; `sum` is exclusively ours.
        unsafe { accumulate(cells.len(), cells.as_ptr().cast(), sum.as_mut_ptr()) }
    }

    /// `dst[i] += src[i]` for all `i < n`.
    ///
    /// # Safety
    /// The caller has seen that the processor has AVX-512; `n` elements behind either pointer may be read, and those
    /// behind `dst` written, by relaxed loads and stores of each element.
    #[inline]
    unsafe fn accumulate(n: usize, src: *const f32, dst: *mut f32) {
        // SAFETY: whole vectors are moved while `i + 16 <= n`, and the mask of the last covers the rest alone.
        unsafe {
            asm!(
                "kmovw k1, {tail:e}",
                "xor {i}, {i}",
                "cmp {i}, {whole}",
                "jae 3f",
                "2:",
                "vmovups zmm16, [{src} + {i}*4]",
                "vaddps zmm16, zmm16, [{dst} + {i}*4]",
                "vmovups [{dst} + {i}*4], zmm16",
                "add {i}, 16",
                "cmp {i}, {whole}",
                "jb 2b",
                "3:",
                "vmovups zmm16{{k1}}{{z}}, [{src} + {i}*4]",
                "vmovups zmm17{{k1}}{{z}}, [{dst} + {i}*4]",
                "vaddps zmm16, zmm16, zmm17",
                "vmovups [{dst} + {i}*4]{{k1}}, zmm16",
                tail = in(reg) tail(n),
                i = out(reg) _,
                whole = in(reg) n & !15,
                src = in(reg) src,
                dst = in(reg) dst,
                out("xmm16") _,
                out("xmm17") _,
                out("k1") _,
                options(nostack),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::simd::for_each_level;

    #[test]
    fn rows_are_read_and_added_to_at_every_level() {
        for_each_level(|_| {
            for dim in [1, 7, 15, 16, 17, 32, 100] {
                let values: Vec<f32> = (0..3 * dim).map(|i| i as f32).collect();
                let table = SharedTable::new(values.clone(), dim);
                let mut row = vec![-1.0; dim + 5];
                table.read(1, &mut row);
                assert_eq!(row[..dim], values[dim..2 * dim]);
                assert_eq!(row[dim..], [-1.0; 5]);
                table.add_to(2, &mut row);
                assert!((0..dim).all(|i| row[i] == values[dim + i] + values[2 * dim + i]));
                table.add(1, &vec![0.5; dim + 3]);
                table.prefetch(2);
                let wanted: Vec<f32> =
                    values.iter().enumerate().map(|(i, x)| if i / dim == 1 { x + 0.5 } else { *x }).collect();
                assert_eq!(table.into_values(), wanted);
            }
        });
    }

    #[test]
    fn threads_may_add_at_once() {
        let table = SharedTable::new(vec![0.0; 40], 20);
        std::thread::scope(|scope| {
            for row in 0..2 {
                let table = &table;
                scope.spawn(move || (0..1000).for_each(|_| table.add(row, &[1.0; 20])));
            }
        });
        assert_eq!(table.into_values(), vec![1000.0; 40]);
    }
}
