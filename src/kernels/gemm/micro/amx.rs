//! AMX: tiles of 32 × 32 sums in four tile registers, `tdpbf16ps`, `tdpbssd` and `tdpbusd`.
//!
//! A tile register holds 16 rows of 64 bytes. For one step of 16 groups, two tiles of A (32 rows)
//! and two of B (32 columns) are loaded and four products added; the instruction takes B in packed
//! groups and A row by row. Each thread configures the tiles before its work and releases them
//! afterwards, so that no other code pays for saving them. Instructions are written in assembly,
//! because the compiler's intrinsics are not stable yet.
//!
//! With few rows, B is read in place, by tiles with that number of rows: panels of packed weights
//! are right factors, and transposed weights are left factors, row by row, of the transposed
//! product. An instruction takes sixteen cycles for a kilobyte of B, however few the rows are:
//! three times the bandwidth of a second-level cache and more than ten times that of memory.
//!
//! # Rounding
//!
//! `tdpbf16ps` sums the products of a step's sixteen even numbers and of its sixteen odd numbers,
//! each in a chain of multiply–adds from zero, adds the two sums, and adds the result to the
//! element of C. Numbers below 2⁻¹²⁶ are treated as zero. So the bits differ from those of
//! `vdpbf16ps`, which has one chain over all pairs.
//!
//! See Intel's Software Developer's Manual, volume 1, chapter 18, and volume 2, `LDTILECFG`,
//! `TILELOADD`, `TDPBF16PS`.

use std::arch::asm;

use super::{ColumnsKernel, GroupArgs, PANEL, PanelsKernel, TileArgs, TileKernel};
use crate::kernels::simd;

/// The number of rows (of 64 bytes) of a tile register.
const ROWS: usize = 16;

/// The operand of `ldtilecfg`.
#[repr(C, align(64))]
struct Config {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    bytes_per_row: [u16; 16],
    rows: [u8; 16],
}

/// Tiles that are configured on this thread until the value is dropped.
struct Configured;

impl Configured {
    /// # Safety
    ///
    /// * the processor has AMX and the system permits its use.
    unsafe fn new() -> Self {
        // SAFETY: the caller's promise.
        unsafe { Self::with([[ROWS; 2]; 8]) }
    }

    /// Configures tiles with 1 to 16 rows and 1 to 16 groups (of four bytes) per row.
    ///
    /// # Safety
    ///
    /// * as for [`Configured::new`].
    unsafe fn with(tiles: [[usize; 2]; 8]) -> Self {
        let mut config = Config { palette: 1, start_row: 0, reserved: [0; 14], bytes_per_row: [0; 16], rows: [0; 16] };
        for (tile, [rows, groups]) in tiles.into_iter().enumerate() {
            assert!((1..=ROWS).contains(&rows) && (1..=ROWS).contains(&groups), "a tile has 1 to 16 rows and groups");
            (config.rows[tile], config.bytes_per_row[tile]) = (rows as u8, 4 * groups as u16);
        }
        // SAFETY: the caller's promise; the configuration is a valid one and is only read.
        unsafe { asm!("ldtilecfg [{}]", in(reg) &config, options(nostack, readonly, preserves_flags)) };
        Configured
    }
}

impl Drop for Configured {
    fn drop(&mut self) {
        // SAFETY: the tiles were configured, so the instruction exists.
        unsafe { asm!("tilerelease", options(nostack, nomem, preserves_flags)) };
    }
}

/// Declares a kernel around one instruction.
macro_rules! kernel {
    ($(#[$doc:meta])* $name:ident, $sum:ty, $feature:ident, $instruction:literal, turned $turned:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy)]
        pub(in crate::kernels::gemm) struct $name(());

        impl $name {
            pub(in crate::kernels::gemm) fn new() -> Option<Self> {
                simd::features().$feature.then_some($name(()))
            }
        }

        impl TileKernel for $name {
            type Sum = $sum;
            const MR: usize = 2 * ROWS;
            const NR: usize = PANEL;
            const STEP: usize = ROWS;
            const ROWS_OF_A: bool = true;
            const NS: f32 = 0.001;

            fn begin(self) -> impl Drop {
                // SAFETY: the token proves that the processor has the tiles and that the system
                // granted them.
                unsafe { Configured::new() }
            }

            #[inline]
            unsafe fn tile(self, args: GroupArgs<$sum>) {
 let TileArgs { rows, k: groups, a, b, c, ldc, load, .. } = args;
                let product = |c: *mut $sum, ldc: usize, load: bool| {
                    let (lda, ldc) = (groups * 4, ldc * 4);
                    // SAFETY: tiles are configured; A has 32 rows of `groups`, B has `groups` rows
                    // of 32, C has 32 rows of 32; no stack, flags are clobbered, and the compiler
                    // keeps nothing in tile registers.
                    unsafe {
                        asm!(
                            "test {load:e}, {load:e}",
                            "jz 2f",
                            "tileloadd tmm0, [{c} + {ldc}]",
                            "tileloadd tmm1, [{c} + {ldc} + 64]",
                            "tileloadd tmm2, [{c2} + {ldc}]",
                            "tileloadd tmm3, [{c2} + {ldc} + 64]",
                            "jmp 3f",
                            "2:",
                            "tilezero tmm0",
                            "tilezero tmm1",
                            "tilezero tmm2",
                            "tilezero tmm3",
                            "3:",
                            "test {steps}, {steps}",
                            "jz 5f",
                            "4:",
                            "tileloadd tmm4, [{a} + {lda}]",
                            "tileloadd tmm6, [{b} + {ldb}]",
                            "tileloadd tmm7, [{b} + {ldb} + 64]",
                            concat!($instruction, " tmm0, tmm4, tmm6"),
                            "tileloadd tmm5, [{a2} + {lda}]",
                            concat!($instruction, " tmm1, tmm4, tmm7"),
                            concat!($instruction, " tmm2, tmm5, tmm6"),
                            concat!($instruction, " tmm3, tmm5, tmm7"),
                            "add {a}, 64",
                            "add {a2}, 64",
                            "add {b}, 2048",
                            "dec {steps}",
                            "jnz 4b",
                            "5:",
                            "tilestored [{c} + {ldc}], tmm0",
                            "tilestored [{c} + {ldc} + 64], tmm1",
                            "tilestored [{c2} + {ldc}], tmm2",
                            "tilestored [{c2} + {ldc} + 64], tmm3",
                            load = in(reg) u32::from(load),
                            c = in(reg) c,
                            c2 = in(reg) c.wrapping_byte_add(ROWS * ldc),
                            ldc = in(reg) ldc,
                            a = inout(reg) a => _,
                            a2 = inout(reg) a.wrapping_byte_add(ROWS * lda) => _,
                            lda = in(reg) lda,
                            b = inout(reg) b => _,
                            ldb = in(reg) 4 * PANEL,
                            steps = inout(reg) groups / ROWS => _,
                            out("tmm0") _,
                            out("tmm1") _,
                            out("tmm2") _,
                            out("tmm3") _,
                            out("tmm4") _,
                            out("tmm5") _,
                            out("tmm6") _,
                            out("tmm7") _,
                            options(nostack),
                        );
                    }
                };
                if rows == Self::MR {
                    return product(c, ldc, load);
                }
                // Tiles are stored whole: rows that are not in C go to a copy.
                let mut copy = [<$sum>::default(); 2 * ROWS * PANEL];
                for i in 0..rows {
                    // SAFETY: the rows are in C, and the copy has as many.
                    unsafe { std::ptr::copy_nonoverlapping(c.add(i * ldc), copy.as_mut_ptr().add(i * PANEL), PANEL) };
                }
                product(copy.as_mut_ptr(), PANEL, load);
                for i in 0..rows {
                    // SAFETY: as above.
                    unsafe { std::ptr::copy_nonoverlapping(copy.as_ptr().add(i * PANEL), c.add(i * ldc), PANEL) };
                }
            }
        }

        impl ColumnsKernel for $name {
            type Sum = $sum;
            const ROWS: usize = ROWS;
            const STEP: usize = ROWS;

            fn begin(self, rows: usize) -> impl Drop {
                // The sums and A, sixteen groups of its rows, are transposed; B is in `tmm4` and
                // `tmm5`.
                let turned = [ROWS, rows];
                let whole = [ROWS; 2];
                // SAFETY: the token proves that the processor has the tiles and that the system
                // granted them.
                unsafe { Configured::with([turned, turned, whole, whole, whole, whole, turned, whole]) }
            }

            #[inline]
            unsafe fn columns(self, args: GroupArgs<$sum>) {
 let TileArgs { rows, k: groups, a, b, ldb, c, ldc, load, .. } = args;
                let mut sums = [<$sum>::default(); PANEL * ROWS];
                let ends = |sums: &mut [$sum; PANEL * ROWS], to_c: bool| {
                    for (i, j) in (0..rows).flat_map(|i| (0..PANEL).map(move |j| (i, j))) {
                        // SAFETY: the caller's promise about C; the sums have room for sixteen
                        // rows.
                        unsafe {
                            let (c, sum) = (c.add(i * ldc + j), &mut sums[j * rows + i]);
                            if to_c { *c = *sum } else { *sum = *c }
                        }
                    }
                };
                if load {
                    ends(&mut sums, false);
                }
                let product = |sums: &mut [$sum; PANEL * ROWS], steps: usize, a: *const u32, b: *const u32, ldb: usize| {
                    // SAFETY: tiles are configured; B has 32 columns, A and B have sixteen groups
                    // for each step; no stack, flags are clobbered, and the compiler keeps nothing
                    // in tile registers.
                    unsafe {
                        asm!(
                            "tileloadd tmm0, [{c} + {ldc}]",
                            "tileloadd tmm1, [{c2} + {ldc}]",
                            "4:",
                            "tileloadd tmm4, [{b} + {ldb}]",
                            "tileloadd tmm5, [{b2} + {ldb}]",
                            "tileloadd tmm6, [{a} + {ldc}]",
                            concat!($turned, " tmm0, tmm4, tmm6"),
                            concat!($turned, " tmm1, tmm5, tmm6"),
                            "add {a}, {step}",
                            "add {b}, 64",
                            "add {b2}, 64",
                            "dec {steps}",
                            "jnz 4b",
                            "tilestored [{c} + {ldc}], tmm0",
                            "tilestored [{c2} + {ldc}], tmm1",
                            c = in(reg) sums.as_mut_ptr(),
                            c2 = in(reg) sums.as_mut_ptr().wrapping_add(ROWS * rows),
                            ldc = in(reg) 4 * rows,
                            a = inout(reg) a => _,
                            step = in(reg) 4 * rows * ROWS,
                            b = inout(reg) b => _,
                            b2 = inout(reg) b.wrapping_add(ROWS * ldb) => _,
                            ldb = in(reg) 4 * ldb,
                            steps = inout(reg) steps => _,
                            out("tmm0") _,
                            out("tmm1") _,
                            out("tmm4") _,
                            out("tmm5") _,
                            out("tmm6") _,
                            options(nostack),
                        );
                    }
                };
                let whole = groups / ROWS * ROWS;
                if whole > 0 {
                    product(&mut sums, whole / ROWS, a, b, ldb);
                }
                if whole < groups {
                    // The bytes after the end of a column are arbitrary.
                    let mut rest = [0u32; PANEL * ROWS];
                    for j in 0..PANEL {
                        let (from, to) = (b.wrapping_add(j * ldb + whole), rest[j * ROWS..].as_mut_ptr());
                        // SAFETY: these groups are in B.
                        unsafe { std::ptr::copy_nonoverlapping(from, to, groups - whole) };
                    }
                    product(&mut sums, 1, a.wrapping_add(whole * rows), rest.as_ptr(), ROWS);
                }
                ends(&mut sums, true);
            }
        }
    };
}

kernel! {
    /// Pairs of bf16.
    AmxBf16, f32, amx_bf16, "tdpbf16ps", turned "tdpbf16ps"
}
kernel! {
    /// Groups of four signed bytes.
    AmxI8, i32, amx_int8, "tdpbssd", turned "tdpbssd"
}
kernel! {
    /// Groups of four bytes; those of the left factor are unsigned.
    AmxU8, i32, amx_int8, "tdpbusd", turned "tdpbsud"
}

impl PanelsKernel for AmxBf16 {
    const ROWS_OF_A: bool = true;

    fn begin(self, rows: usize) -> impl Drop {
        let (few, whole) = ([rows, ROWS], [ROWS; 2]);
        // SAFETY: the token proves that the processor has the tiles and that the system granted
        // them.
        unsafe { Configured::with([few, few, whole, whole, few, whole, whole, whole]) }
    }

    #[inline]
    unsafe fn panel(self, args: GroupArgs<f32>) {
        let TileArgs { k: groups, a, b, c, ldc, load, .. } = args;
        let lda = groups.next_multiple_of(ROWS);
        let product = |steps: usize, a: *const u32, b: *const u32, load: bool| {
            // SAFETY: tiles are configured; A has the rows that are configured, B 32 columns, both
            // sixteen groups for each step, C is as large as the tiles; no stack, flags are
            // clobbered, and the compiler keeps nothing in tile registers.
            unsafe {
                asm!(
                    "test {load:e}, {load:e}",
                    "jz 2f",
                    "tileloadd tmm0, [{c} + {ldc}]",
                    "tileloadd tmm1, [{c} + {ldc} + 64]",
                    "jmp 4f",
                    "2:",
                    "tilezero tmm0",
                    "tilezero tmm1",
                    "4:",
                    "tileloadd tmm4, [{a} + {lda}]",
                    "tileloadd tmm6, [{b} + {ldb}]",
                    "tileloadd tmm7, [{b} + {ldb} + 64]",
                    "tdpbf16ps tmm0, tmm4, tmm6",
                    "tdpbf16ps tmm1, tmm4, tmm7",
                    "add {a}, 64",
                    "add {b}, 2048",
                    "dec {steps}",
                    "jnz 4b",
                    "tilestored [{c} + {ldc}], tmm0",
                    "tilestored [{c} + {ldc} + 64], tmm1",
                    load = in(reg) u32::from(load),
                    c = in(reg) c,
                    ldc = in(reg) 4 * ldc,
                    a = inout(reg) a => _,
                    lda = in(reg) 4 * lda,
                    b = inout(reg) b => _,
                    ldb = in(reg) 4 * PANEL,
                    steps = inout(reg) steps => _,
                    out("tmm0") _,
                    out("tmm1") _,
                    out("tmm4") _,
                    out("tmm6") _,
                    out("tmm7") _,
                    options(nostack),
                );
            }
        };
        let whole = groups / ROWS * ROWS;
        if whole > 0 {
            product(whole / ROWS, a, b, load);
        }
        if whole < groups || groups == 0 {
            // The last group of a panel is followed by the next panel.
            let mut rest = [0u32; ROWS * PANEL];
            let (from, len) = (b.wrapping_add(whole * PANEL), (groups - whole) * PANEL);
            // SAFETY: these groups are in B.
            unsafe { std::ptr::copy_nonoverlapping(from, rest.as_mut_ptr(), len) };
            product(1, a.wrapping_add(whole), rest.as_ptr(), load || whole > 0);
        }
    }
}

/// A model of AMX for other processors, which tests how packed factors are loaded into tiles: the
/// same driver with a kernel that computes on arrays what the manual specifies for tiles.
#[cfg(test)]
pub(in crate::kernels::gemm) mod model {
    use super::*;

    type Register = [[u32; ROWS]; ROWS];

    /// A kernel of this file: the type of the sums, and the product of a group.
    #[derive(Clone, Copy)]
    pub(in crate::kernels::gemm) struct Model<S>(pub(in crate::kernels::gemm) fn(S, u32, u32) -> S);

    /// Models `tdpbssd`.
    pub(in crate::kernels::gemm) fn signed(sum: i32, a: u32, b: u32) -> i32 {
        let four = a.to_le_bytes().into_iter().zip(b.to_le_bytes());
        four.fold(sum, |sum, (a, b)| sum.wrapping_add(i32::from(a as i8) * i32::from(b as i8)))
    }

    /// Models `tdpbusd`.
    pub(in crate::kernels::gemm) fn unsigned(sum: i32, a: u32, b: u32) -> i32 {
        let four = a.to_le_bytes().into_iter().zip(b.to_le_bytes());
        four.fold(sum, |sum, (a, b)| sum.wrapping_add(i32::from(a) * i32::from(b as i8)))
    }

    /// Models `tdpbf16ps`, except for its rounding.
    pub(in crate::kernels::gemm) fn pairs(sum: f32, a: u32, b: u32) -> f32 {
        let halves = |x: u32| [f32::from_bits(x << 16), f32::from_bits(x & !0xffff)];
        halves(a).into_iter().zip(halves(b)).fold(sum, |sum, (a, b)| a.mul_add(b, sum))
    }

    /// Models `tileloadd`: rows of 64 bytes at a distance in bytes.
    ///
    /// # Safety
    ///
    /// * sixteen groups may be read at each of sixteen rows.
    unsafe fn load<T>(at: *const T, distance: usize) -> Register {
        let row = |i: usize| at.wrapping_byte_add(i * distance).cast::<[u32; ROWS]>();
        // SAFETY: the caller's promise.
        std::array::from_fn(|i| unsafe { row(i).read_unaligned() })
    }

    impl<S: Copy + Default + Send + Sync + 'static> TileKernel for Model<S> {
        type Sum = S;
        const MR: usize = 2 * ROWS;
        const NR: usize = PANEL;
        const STEP: usize = ROWS;
        const ROWS_OF_A: bool = true;
        const NS: f32 = 0.001;

        fn begin(self) -> impl Drop {
            crate::kernels::gemm::micro::Nothing
        }

        unsafe fn tile(self, args: GroupArgs<S>) {
            let TileArgs { rows, k: groups, a, b, c, ldc, load: add, .. } = args;
            const { assert!(size_of::<S>() == 4) };
            let lda = 4 * groups;
            let mut sums = [[[[S::default(); ROWS]; ROWS]; 2]; 2];
            let rows_of = |half: usize| (0..ROWS).take_while(move |i| half * ROWS + i < rows);
            // SAFETY: the contract: A has 32 rows of `groups`, B has `groups` rows of 32, C the
            // rows asked for.
            unsafe {
                for (half, other) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
                    for (i, j) in rows_of(half).flat_map(|i| (0..ROWS).map(move |j| (i, j))).filter(|_| add) {
                        sums[half][other][i][j] = *c.add((half * ROWS + i) * ldc + other * ROWS + j);
                    }
                }
                for step in 0..groups / ROWS {
                    let a: [Register; 2] =
                        std::array::from_fn(|half| load(a.wrapping_byte_add(half * ROWS * lda + 64 * step), lda));
                    let b: [Register; 2] =
                        std::array::from_fn(|half| load(b.wrapping_byte_add(64 * half + 2048 * step), 4 * PANEL));
                    for (half, other) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
                        for (i, row) in sums[half][other].iter_mut().enumerate() {
                            for (j, sum) in row.iter_mut().enumerate() {
                                *sum = (0..ROWS).fold(*sum, |sum, p| (self.0)(sum, a[half][i][p], b[other][p][j]));
                            }
                        }
                    }
                }
                for (half, other) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
                    for (i, j) in rows_of(half).flat_map(|i| (0..ROWS).map(move |j| (i, j))) {
                        *c.add((half * ROWS + i) * ldc + other * ROWS + j) = sums[half][other][i][j];
                    }
                }
            }
        }
    }
}
