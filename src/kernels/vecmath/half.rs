//! Conversion from and to half precision and bfloat16.
//!
//! Conversion to f32 is exact; from f32 it rounds to nearest, ties to even. NaN is preserved.

use half::{bf16, f16};

use crate::kernels::parallel;
use crate::kernels::simd::{Isa, SimdOp, dispatch};

/// y = x, rounded to half precision.
pub fn f32_to_f16(x: &[f32], y: &mut [f16]) {
    convert(x, y, |x, y| dispatch(ToF16 { x, y }));
}

/// y = x
pub fn f16_to_f32(x: &[f16], y: &mut [f32]) {
    convert(x, y, |x, y| dispatch(FromF16 { x, y }));
}

/// y = x, rounded to bfloat16.
pub fn f32_to_bf16(x: &[f32], y: &mut [bf16]) {
    convert(x, y, |x, y| dispatch(ToBf16 { x, y }));
}

/// y = x
pub fn bf16_to_f32(x: &[bf16], y: &mut [f32]) {
    convert(x, y, |x, y| dispatch(FromBf16 { x, y }));
}

#[track_caller]
fn convert<A: Sync, B: Send>(x: &[A], y: &mut [B], f: impl Fn(&[A], &mut [B]) + Sync) {
    assert_eq!(x.len(), y.len(), "conversion: input and output must have the same length");
    let chunk = parallel::chunk_len(x.len(), 16, 3.0);
    parallel::chunks_mut(y, chunk, |i, y| f(&x[i * chunk..][..y.len()], y));
}

/// Defines a conversion from the methods that load and store whole vectors and parts of vectors.
macro_rules! conversion {
    ($name:ident: $from:ty => $to:ty, $load:ident, $load_partial:ident, $store:ident, $store_partial:ident) => {
        struct $name<'a> {
            x: &'a [$from],
            y: &'a mut [$to],
        }

        impl SimdOp for $name<'_> {
            type Output = ();
            #[inline(always)]
            fn eval<I: Isa>(self, isa: I) {
                let (mut x, mut y) = (self.x.chunks_exact(I::LANES), self.y.chunks_exact_mut(I::LANES));
                for (x, y) in (&mut x).zip(&mut y) {
                    isa.$store(y, isa.$load(x));
                }
                isa.$store_partial(y.into_remainder(), isa.$load_partial(x.remainder()));
            }
        }
    };
}

conversion!(ToF16: f32 => f16, load, load_partial, store_f16, store_f16_partial);
conversion!(FromF16: f16 => f32, load_f16, load_f16_partial, store, store_partial);
conversion!(ToBf16: f32 => bf16, load, load_partial, store_bf16, store_bf16_partial);
conversion!(FromBf16: bf16 => f32, load_bf16, load_bf16_partial, store, store_partial);

#[cfg(test)]
mod tests {
    use super::super::testing::{LENGTHS, random};
    use super::*;
    use crate::kernels::simd::for_each_level;

    #[test]
    fn every_length_converts() {
        // The tests of `simd` cover all half-precision numbers and ties.
        for_each_level(|_| {
            for len in LENGTHS {
                let x: Vec<f32> = random(len, 1).iter().map(|x| 100.0 * x).collect();
                let (mut h, mut b) = (vec![f16::ONE; len], vec![bf16::ONE; len]);
                f32_to_f16(&x, &mut h);
                f32_to_bf16(&x, &mut b);
                assert!(x.iter().zip(&h).all(|(&x, &h)| f16::from_f32_const(x) == h));
                assert!(x.iter().zip(&b).all(|(&x, &b)| bf16::from_f32_const(x) == b));
                let mut back = vec![7.0; len];
                f16_to_f32(&h, &mut back);
                assert!(back.iter().zip(&h).all(|(&x, h)| x == h.to_f32_const()));
                bf16_to_f32(&b, &mut back);
                assert!(back.iter().zip(&b).all(|(&x, b)| x == b.to_f32_const()));
            }
        });
    }
}
