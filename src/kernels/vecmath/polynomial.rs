//! Polynomials with short chains of dependent operations.

use crate::kernels::simd::Isa;

/// Computes Σ cᵢxⁱ, given x²: coefficients in pairs, then Horner's rule in x² (the first step of
/// Estrin's scheme, 1960).
///
/// Horner's rule in x needs one operation less, but each depends on the previous one. Here the
/// chain is half as long, so that a processor that executes out of order within a window of some
/// hundred instructions finds twice as many independent ones.
#[inline(always)]
pub(super) fn polynomial<I: Isa, const N: usize>(isa: I, c: [f32; N], x: I::F32, squared: I::F32) -> I::F32 {
    let mut i = N / 2 * 2;
    let mut sum = if i < N { isa.splat(c[i]) } else { isa.zero() };
    while i > 0 {
        i -= 2;
        let pair = isa.mul_add(isa.splat(c[i + 1]), x, isa.splat(c[i]));
        sum = if i + 2 < N { isa.mul_add(sum, squared, pair) } else { pair };
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::simd::{SimdOp, dispatch, for_each_level};

    struct Sums;

    impl SimdOp for Sums {
        type Output = [f32; 4];

        #[inline(always)]
        fn eval<I: Isa>(self, isa: I) -> [f32; 4] {
            let (x, squared) = (isa.splat(2.0), isa.splat(4.0));
            let sums = [
                polynomial(isa, [5.0], x, squared),
                polynomial(isa, [5.0, 3.0], x, squared),
                polynomial(isa, [5.0, 3.0, 7.0], x, squared),
                polynomial(isa, [5.0, 3.0, 7.0, 1.0], x, squared),
            ];
            sums.map(|sum| isa.reduce_sum(sum) / I::LANES as f32)
        }
    }

    #[test]
    fn it_is_the_sum_of_powers() {
        for_each_level(|_| assert_eq!(dispatch(Sums), [5.0, 11.0, 39.0, 47.0]));
    }
}
