//! A row of numbers that several threads read and add to concurrently: each number is an
//! [`AtomicU32`] with the bits of an `f32`.
//!
//! All functions here are, element by element, relaxed loads, additions and relaxed stores:
//!
//! ```text
//! out_i ← cells_i        cells_i ← cells_i + delta_i        sum_i ← sum_i + cells_i
//! ```
//!
//! A change by another thread between the load and the store is lost, which the caller must accept.
//!
//! The compiler does not combine relaxed atomic operations into vector instructions, although every
//! processor of these kinds moves four numbers at a time. So `load` and `store` of four are
//! assembly, with instructions that every processor of the kind has. In the language, an assembly
//! block is a sequence of operations that Rust code could have done, here four relaxed loads or
//! stores. In the processor, they are the plain moves that relaxed operations compile to: neither
//! kind tears an aligned element of 4 bytes. With AVX-512 whole loops are assembly: in fours, a
//! training run with 300 elements per row took some 7 % longer, one with 100 the same, presumably
//! because vectors of sixteen cannot be forwarded from the store buffer if they were written in
//! four pieces.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

#[cfg(all(target_arch = "x86_64", not(miri)))]
use super::simd::{Level, level};

/// The number of elements that are moved at once.
const LANES: usize = 4;

/// The method of moving numbers on this processor.
#[derive(Clone, Copy, Debug)]
pub struct Moves {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    wide: bool,
}

impl Default for Moves {
    fn default() -> Self {
        Moves {
            #[cfg(all(target_arch = "x86_64", not(miri)))]
            wide: level() >= Level::Avx512,
        }
    }
}

impl Moves {
    /// `out[i] = cells[i]`.
    ///
    /// # Panics
    /// If the lengths differ.
    #[inline]
    pub fn read(self, cells: &[AtomicU32], out: &mut [f32]) {
        assert_eq!(cells.len(), out.len(), "shared_row::read: one number for each cell");
        #[cfg(all(target_arch = "x86_64", not(miri)))]
        if self.wide {
            return avx512::read(cells, out);
        }
        let (cells, tail) = cells.as_chunks();
        let (out, rest) = out.as_chunks_mut();
        for (out, cells) in out.iter_mut().zip(cells) {
            *out = load(cells);
        }
        for (out, cell) in rest.iter_mut().zip(tail) {
            *out = f32::from_bits(cell.load(Relaxed));
        }
    }

    /// `cells[i] += delta[i]`.
    ///
    /// # Panics
    /// If the lengths differ.
    #[inline]
    pub fn add(self, cells: &[AtomicU32], delta: &[f32]) {
        assert_eq!(cells.len(), delta.len(), "shared_row::add: one number for each cell");
        #[cfg(all(target_arch = "x86_64", not(miri)))]
        if self.wide {
            return avx512::add(cells, delta);
        }
        let (cells, tail) = cells.as_chunks();
        let (delta, rest) = delta.as_chunks();
        for (cells, delta) in cells.iter().zip(delta) {
            store(cells, sum(load(cells), *delta));
        }
        for (cell, delta) in tail.iter().zip(rest) {
            cell.store((f32::from_bits(cell.load(Relaxed)) + delta).to_bits(), Relaxed);
        }
    }

    /// `sums[i] += cells[i]`.
    ///
    /// # Panics
    /// If the lengths differ.
    #[inline]
    pub fn add_to(self, cells: &[AtomicU32], sums: &mut [f32]) {
        assert_eq!(cells.len(), sums.len(), "shared_row::add_to: one number for each cell");
        #[cfg(all(target_arch = "x86_64", not(miri)))]
        if self.wide {
            return avx512::add_to(cells, sums);
        }
        let (cells, tail) = cells.as_chunks();
        let (sums, rest) = sums.as_chunks_mut();
        for (sums, cells) in sums.iter_mut().zip(cells) {
            *sums = sum(*sums, load(cells));
        }
        for (sum, cell) in rest.iter_mut().zip(tail) {
            *sum += f32::from_bits(cell.load(Relaxed));
        }
    }
}

#[inline(always)]
fn sum(a: [f32; LANES], b: [f32; LANES]) -> [f32; LANES] {
    std::array::from_fn(|i| a[i] + b[i])
}

#[cfg(all(target_arch = "x86_64", not(miri)))]
mod moves {
    use std::arch::asm;
    use std::arch::x86_64::__m128;

    use super::{AtomicU32, LANES};

    /// Four relaxed loads.
    #[inline(always)]
    pub(super) fn load(cells: &[AtomicU32; LANES]) -> [f32; LANES] {
        let x: __m128;
        // SAFETY: it reads the four cells, as relaxed loads would; SSE is part of x86-64.
        unsafe {
            asm!("movups {x}, [{p}]", x = lateout(xmm_reg) x, p = in(reg) cells, options(nostack, readonly, preserves_flags));
            std::mem::transmute(x)
        }
    }

    /// Four relaxed stores.
    #[inline(always)]
    pub(super) fn store(cells: &[AtomicU32; LANES], x: [f32; LANES]) {
        // SAFETY: it writes the four cells, as relaxed stores would, through a pointer that may
        // write because atomics allow it.
        unsafe {
            let x: __m128 = std::mem::transmute(x);
            asm!("movups [{p}], {x}", x = in(xmm_reg) x, p = in(reg) cells, options(nostack, preserves_flags));
        }
    }
}

#[cfg(all(target_arch = "aarch64", not(miri)))]
mod moves {
    use std::arch::aarch64::float32x4_t;
    use std::arch::asm;

    use super::{AtomicU32, LANES};

    /// Four relaxed loads.
    #[inline(always)]
    pub(super) fn load(cells: &[AtomicU32; LANES]) -> [f32; LANES] {
        let x: float32x4_t;
        // SAFETY: it reads the four cells, each at once since the instruction's elements have 32
        // bits; NEON is part of aarch64.
        unsafe {
            asm!("ld1 {{{x:v}.4s}}, [{p}]", x = lateout(vreg) x, p = in(reg) cells, options(nostack, readonly, preserves_flags));
            std::mem::transmute(x)
        }
    }

    /// Four relaxed stores.
    #[inline(always)]
    pub(super) fn store(cells: &[AtomicU32; LANES], x: [f32; LANES]) {
        // SAFETY: it writes the four cells, each at once, through a pointer that may write because
        // atomics allow it.
        unsafe {
            let x: float32x4_t = std::mem::transmute(x);
            asm!("st1 {{{x:v}.4s}}, [{p}]", x = in(vreg) x, p = in(reg) cells, options(nostack, preserves_flags));
        }
    }
}

#[cfg(not(all(any(target_arch = "x86_64", target_arch = "aarch64"), not(miri))))]
mod moves {
    use super::{AtomicU32, LANES, Relaxed};

    /// Four relaxed loads.
    pub(super) fn load(cells: &[AtomicU32; LANES]) -> [f32; LANES] {
        std::array::from_fn(|i| f32::from_bits(cells[i].load(Relaxed)))
    }

    /// Four relaxed stores.
    pub(super) fn store(cells: &[AtomicU32; LANES], x: [f32; LANES]) {
        cells.iter().zip(x).for_each(|(cell, x)| cell.store(x.to_bits(), Relaxed));
    }
}

use moves::{load, store};

/// The same functions, sixteen numbers at a time. They use registers from 16 on: unlike the lower
/// ones, these leave no state that would slow down older vector code.
#[cfg(all(target_arch = "x86_64", not(miri)))]
mod avx512 {
    use std::arch::asm;

    use super::AtomicU32;

    /// Returns the mask of the elements after the last whole vector.
    fn tail(n: usize) -> u32 {
        (1 << (n % 16)) - 1
    }

    #[inline]
    pub(super) fn read(cells: &[AtomicU32], out: &mut [f32]) {
        assert_eq!(cells.len(), out.len());
        let (n, tail) = (cells.len(), tail(cells.len()));
        // SAFETY: `Moves` has seen that the processor has AVX-512. Whole vectors are moved while
        // `i + 16 <= n`, and the mask of the last covers the rest alone, so `n` elements of each
        // slice are touched. Reads of `cells` are relaxed loads of each element; `out` is
        // exclusively ours.
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
        // SAFETY: both pointers are valid for as many elements; each element of `cells` is loaded
        // and stored as a relaxed atomic would be, through a pointer that may write because atomics
        // allow it.
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
    /// The caller has checked that the processor has AVX-512; `n` elements from either pointer may
    /// be read, and those from `dst` written, by relaxed loads and stores of each element.
    #[inline]
    unsafe fn accumulate(n: usize, src: *const f32, dst: *mut f32) {
        // SAFETY: whole vectors are moved while `i + 16 <= n`, and the mask of the last covers the
        // rest alone.
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
    fn each_number_is_moved_and_no_other() {
        for_each_level(|_| moves_each_number(Moves::default()));
    }

    fn moves_each_number(moves: Moves) {
        for len in [0, 1, 3, 4, 5, 15, 16, 17, 100] {
            let number = |i: usize| i as f32 + 0.25;
            let cells: Vec<AtomicU32> = (0..len + 2).map(|i| AtomicU32::new(number(i).to_bits())).collect();
            let values = || cells.iter().map(|cell| f32::from_bits(cell.load(Relaxed))).collect::<Vec<_>>();
            let row = &cells[1..1 + len];
            let mut out = vec![-1.0; len];
            moves.read(row, &mut out);
            assert_eq!(out, values()[1..1 + len]);
            moves.add_to(row, &mut out);
            assert!((0..len).all(|i| out[i] == 2.0 * number(i + 1)));
            moves.add(row, &out);
            let wanted: Vec<f32> =
                (0..len + 2).map(|i| if (1..=len).contains(&i) { 3.0 * number(i) } else { number(i) }).collect();
            assert_eq!(values(), wanted);
        }
    }
}
