//! Block-quantised numbers: a few bits each, with a scale for every 16 or 32 of them.
//!
//! The formats are those of ggml (`ggml-quants.c`, <https://github.com/ggml-org/ggml>), in which
//! GGUF files store weights.
//!
//! # The plain algorithm
//!
//! ```text
//! for each block, for each group of 16 or 32 numbers:
//!     scale, min = from the block's half-precision scales and the group's few bits
//!     for each number:  y = scale · q (− min)
//! ```
//!
//! A block is converted by the same steps in the same order as in the reference, so the bits are
//! the same.
//!
//! - **Each format is a plain loop** over arrays of known length, compiled once for each
//!   instruction set: the compiler vectorises it, and no format has a separate kernel for one
//!   processor.
//! - **Whole blocks only.** Rows are cut at blocks, so there are no partial blocks.
//! - **Several rows in one call** (`dequantize_rows`), so that format and instruction set are
//!   chosen once for a panel of columns of a product (`gemm/blocks.rs`).
//!
//! # Formats
//!
//! | file | formats | value of a number |
//! |---|---|---|
//! | `q4` | `Q4_0`, `Q4_1` | `d (q - 8)`, `d q + m` |
//! | `q5` | `Q5_0`, `Q5_1` | `d (q - 16)`, `d q + m` |
//! | `q8` | `Q8_0` | `d q` |
//! | `q2_k`, `q3_k`, `q6_k` | `Q2_K`, `Q3_K`, `Q6_K` | 256 in 16 groups: `(d s) q - (d' m)`, `(d s) (q - 4)`, `(d s) (q - 32)` |
//! | `q4_k` | `Q4_K`, `Q5_K` | 256 in 8 groups: `(d s) q - (d' m)` |
//!
//! ```
//! use loquat::kernels::blocks::{self, BlockFormat};
//!
//! let x: Vec<f32> = (0..32).map(|i| i as f32).collect();
//! let mut block = vec![0; BlockFormat::Q8_0.bytes_for(32)];
//! blocks::quantize_q8_0(&x, &mut block);
//! let mut y = vec![0.0; 32];
//! blocks::dequantize(BlockFormat::Q8_0, &block, &mut y);
//! // Half of 31 / 127, and the rounding of the scale.
//! assert!(x.iter().zip(&y).all(|(x, y)| (x - y).abs() < 0.13));
//! ```

mod q2_k;
mod q3_k;
mod q4;
mod q4_k;
mod q5;
mod q6_k;
mod q8;

pub use q8::quantize_q8_0;

use crate::kernels::extent::size;
use crate::kernels::parallel;
use crate::kernels::simd::{Isa, SimdOp, dispatch};

/// A format of block-quantised numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[allow(missing_docs)] // the table in the module's documentation says what each is
pub enum BlockFormat {
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q2K,
    Q3K,
    Q4K,
    Q5K,
    Q6K,
}

impl BlockFormat {
    /// All formats.
    pub const ALL: [BlockFormat; 10] = [
        Self::Q4_0,
        Self::Q4_1,
        Self::Q5_0,
        Self::Q5_1,
        Self::Q8_0,
        Self::Q2K,
        Self::Q3K,
        Self::Q4K,
        Self::Q5K,
        Self::Q6K,
    ];

    /// Returns the name in ggml, for example `Q4_K`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Q4_0 => "Q4_0",
            Self::Q4_1 => "Q4_1",
            Self::Q5_0 => "Q5_0",
            Self::Q5_1 => "Q5_1",
            Self::Q8_0 => "Q8_0",
            Self::Q2K => "Q2_K",
            Self::Q3K => "Q3_K",
            Self::Q4K => "Q4_K",
            Self::Q5K => "Q5_K",
            Self::Q6K => "Q6_K",
        }
    }

    /// Returns the number of elements in a block.
    pub const fn block_len(self) -> usize {
        match self {
            Self::Q4_0 | Self::Q4_1 | Self::Q5_0 | Self::Q5_1 | Self::Q8_0 => 32,
            _ => K_LEN,
        }
    }

    /// Returns the size of a block in bytes.
    pub const fn block_bytes(self) -> usize {
        match self {
            Self::Q4_0 => q4::Q4_0::BYTES,
            Self::Q4_1 => q4::Q4_1::BYTES,
            Self::Q5_0 => q5::Q5_0::BYTES,
            Self::Q5_1 => q5::Q5_1::BYTES,
            Self::Q8_0 => q8::Q8_0::BYTES,
            Self::Q2K => q2_k::Q2K::BYTES,
            Self::Q3K => q3_k::Q3K::BYTES,
            Self::Q4K => q4_k::Q4K::BYTES,
            Self::Q5K => q4_k::Q5K::BYTES,
            Self::Q6K => q6_k::Q6K::BYTES,
        }
    }

    /// Returns the size of `len` elements in bytes; they must fill whole blocks.
    ///
    /// # Panics
    /// If they do not, or if the size overflows.
    pub const fn bytes_for(self, len: usize) -> usize {
        assert!(len.is_multiple_of(self.block_len()), "blocks: the numbers must fill whole blocks");
        size([len / self.block_len(), self.block_bytes()]).expect("blocks: a number of bytes that fits a machine word")
    }
}

impl std::fmt::Display for BlockFormat {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// Dequantises `blocks` into `y`.
///
/// # Panics
/// If the length of `y` is not the number of elements in the blocks.
#[track_caller]
pub fn dequantize(format: BlockFormat, blocks: &[u8], y: &mut [f32]) {
    assert_eq!(format.bytes_for(y.len()), blocks.len(), "blocks: bytes and numbers must be of the same blocks");
    let len = format.block_len();
    let chunk = parallel::chunk_len(y.len(), len, 0.2 * len as f32);
    parallel::chunks_mut(y, chunk, |i, y| {
        let blocks = &blocks[format.bytes_for(i * chunk)..][..format.bytes_for(y.len())];
        let count = (1, y.len());
        dispatch(Dequantize { format, blocks: (blocks, 0), y: (y, 0), count });
    });
}

/// Same as [`dequantize`], for several rows on this thread: `count.0` rows of `count.1` numbers,
/// `blocks.1` bytes and `y.1` numbers apart.
///
/// # Panics
/// If the slices are too short.
#[inline]
pub(in crate::kernels) fn dequantize_rows<I: Isa>(
    isa: I,
    format: BlockFormat,
    blocks: (&[u8], usize),
    y: (&mut [f32], usize),
    count: (usize, usize),
) {
    isa.run(Dequantize { format, blocks, y, count });
}

/// The number of elements in a block of the K formats.
const K_LEN: usize = 256;

/// One format.
trait Block {
    const LEN: usize;
    const BYTES: usize;

    /// Dequantises one block. Implementations are `#[inline(always)]`, so that each instruction set
    /// has its own loops.
    /// `block` has `BYTES` bytes and `y` has `LEN` numbers.
    fn dequantize(block: &[u8], y: &mut [f32]);
}

/// The arguments of [`dequantize_rows`].
struct Dequantize<'a> {
    format: BlockFormat,
    blocks: (&'a [u8], usize),
    y: (&'a mut [f32], usize),
    count: (usize, usize),
}

impl SimdOp for Dequantize<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, _: I) {
        // One loop for each format, so that the choice is made outside of the loop.
        match self.format {
            BlockFormat::Q4_0 => self.rows::<q4::Q4_0>(),
            BlockFormat::Q4_1 => self.rows::<q4::Q4_1>(),
            BlockFormat::Q5_0 => self.rows::<q5::Q5_0>(),
            BlockFormat::Q5_1 => self.rows::<q5::Q5_1>(),
            BlockFormat::Q8_0 => self.rows::<q8::Q8_0>(),
            BlockFormat::Q2K => self.rows::<q2_k::Q2K>(),
            BlockFormat::Q3K => self.rows::<q3_k::Q3K>(),
            BlockFormat::Q4K => self.rows::<q4_k::Q4K>(),
            BlockFormat::Q5K => self.rows::<q4_k::Q5K>(),
            BlockFormat::Q6K => self.rows::<q6_k::Q6K>(),
        }
    }
}

impl Dequantize<'_> {
    #[inline(always)]
    fn rows<B: Block>(self) {
        let (rows, len) = self.count;
        for i in 0..rows {
            let blocks = &self.blocks.0[i * self.blocks.1..][..len / B::LEN * B::BYTES];
            let y = &mut self.y.0[i * self.y.1..][..len];
            for (block, y) in blocks.chunks_exact(B::BYTES).zip(y.chunks_exact_mut(B::LEN)) {
                B::dequantize(block, y);
            }
        }
    }
}

/// Returns the half-precision number at byte `at`, exactly.
#[inline(always)]
fn half_at(block: &[u8], at: usize) -> f32 {
    let bits = u32::from(u16::from_le_bytes([block[at], block[at + 1]]));
    let (sign, magnitude) = ((bits & 0x8000) << 16, (bits & 0x7FFF) << 13);
    // The exponents' biases differ by 112; for infinity and NaN the exponent is all ones in both.
    const TWO_TO_112: f32 = f32::from_bits((127 + 112) << 23);
    let magnitude = match bits & 0x7C00 {
        0x7C00 => magnitude | 0x7F80_0000,
        _ => (f32::from_bits(magnitude) * TWO_TO_112).to_bits(),
    };
    f32::from_bits(sign | magnitude)
}

/// Returns the low half of each byte for the first 16 numbers, then the high halves for the next
/// 16.
#[inline(always)]
fn nibbles(bytes: &[u8]) -> [u8; 32] {
    let bytes: &[u8; 16] = bytes.first_chunk().expect("16 bytes");
    std::array::from_fn(|i| if i < 16 { bytes[i] & 15 } else { bytes[i - 16] >> 4 })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::kernels::simd::for_each_level;

    #[test]
    fn halves_convert_exactly() {
        for bits in 0..=u16::MAX {
            let (ours, theirs) = (half_at(&bits.to_le_bytes(), 0), half::f16::from_bits(bits).to_f32_const());
            assert!(ours.to_bits() == theirs.to_bits() || ours.is_nan() && theirs.is_nan(), "{bits:x}");
        }
    }

    /// Returns blocks whose scales are ordinary numbers, with random bits otherwise.
    pub(in crate::kernels) fn random_blocks(format: BlockFormat, n: usize, seed: u64) -> Vec<u8> {
        let mut rng = crate::Rng::seed(seed);
        let mut bytes: Vec<u8> = (0..n * format.block_bytes()).map(|_| (rng.uniform() * 256.0) as u8).collect();
        let halves: &[usize] = match format {
            BlockFormat::Q4_0 | BlockFormat::Q5_0 | BlockFormat::Q8_0 => &[0],
            BlockFormat::Q4_1 | BlockFormat::Q5_1 | BlockFormat::Q4K | BlockFormat::Q5K => &[0, 2],
            BlockFormat::Q2K => &[80, 82],
            BlockFormat::Q3K => &[108],
            BlockFormat::Q6K => &[208],
        };
        for block in bytes.chunks_exact_mut(format.block_bytes()) {
            for &at in halves {
                block[at + 1] = block[at + 1] & 0x80 | (0x1F + block[at + 1] % 16);
            }
        }
        bytes
    }

    #[test]
    fn every_level_and_any_cut_gives_the_same_bits() {
        for format in BlockFormat::ALL {
            let n = 700;
            let blocks = random_blocks(format, n, 5);
            let mut one_by_one = vec![0f32; n * format.block_len()];
            crate::kernels::simd::with_level(crate::kernels::simd::Level::Portable, || {
                let parts = one_by_one.chunks_mut(format.block_len()).zip(blocks.chunks(format.block_bytes()));
                parts.for_each(|(y, block)| dequantize(format, block, y));
            });
            assert!(one_by_one.iter().all(|x| x.is_finite()), "{format}");
            for_each_level(|level| {
                let mut whole = vec![0f32; one_by_one.len()];
                dequantize(format, &blocks, &mut whole);
                assert!(whole.iter().zip(&one_by_one).all(|(a, b)| a.to_bits() == b.to_bits()), "{format} {level:?}");
            });
        }
    }
}
