//! Tests of every operation of every instruction set against scalar code.

use half::{bf16, f16};

use super::isa::MAX_LANES;
use super::*;

/// Special values of every kind, and more than a vector of them.
fn numbers() -> Vec<f32> {
    let mut x = vec![0.0, -0.0, 1.0, -1.0, 0.5, 1.5, 2.5, -2.5, 1e-40, -1e-40, 1e30, -1e30, 65504.0, 65520.0, 65519.0];
    x.extend([f32::INFINITY, f32::NEG_INFINITY, f32::NAN, 8388607.5, 16777217.0, 3.3e-5, 6e-8, 2.9e-8, 5.96e-8]);
    x.extend((0..104).map(|i| (i as f32 - 50.0) * 0.731));
    x
}

struct Each<F>(F);

/// A test body that runs with any token.
trait Body {
    fn body<I: Isa>(&self, isa: I);
}

impl<B: Body> SimdOp for Each<B> {
    type Output = ();
    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        self.0.body(isa);
    }
}

fn at_every_level(body: impl Body + Copy) {
    for_each_level(|_| dispatch(Each(body)));
    // Of x86-64 no level uses it.
    Portable::new().run(Each(body));
}

#[track_caller]
fn same(found: f32, expected: f32, what: &str) {
    let equal = found.to_bits() == expected.to_bits() || (found.is_nan() && expected.is_nan());
    assert!(equal, "{what}: expected {expected:e}, found {found:e}");
}

#[test]
fn arithmetic_matches_scalars() {
    #[derive(Clone, Copy)]
    struct Arithmetic;
    impl Body for Arithmetic {
        fn body<I: Isa>(&self, isa: I) {
            let x = numbers();
            for shift in [0, 1, 7] {
                for (i, a) in x.chunks_exact(I::LANES).enumerate() {
                    let b: Vec<f32> = (0..I::LANES).map(|j| x[(i * I::LANES + j + shift) % x.len()]).collect();
                    let (va, vb) = (isa.load(a), isa.load(&b));
                    let check = |v: I::F32, f: &dyn Fn(f32, f32) -> f32, what: &str| {
                        for (j, found) in isa.to_array(v)[..I::LANES].iter().enumerate() {
                            same(*found, f(a[j], b[j]), &format!("{what}({:e}, {:e})", a[j], b[j]));
                        }
                    };
                    check(isa.add(va, vb), &|a, b| a + b, "add");
                    check(isa.sub(va, vb), &|a, b| a - b, "sub");
                    check(isa.mul(va, vb), &|a, b| a * b, "mul");
                    check(isa.div(va, vb), &|a, b| a / b, "div");
                    check(isa.min(va, vb), &|a, b| if a < b { a } else { b }, "min");
                    check(isa.max(va, vb), &|a, b| if a > b { a } else { b }, "max");
                    check(isa.neg(va), &|a, _| -a, "neg");
                    check(isa.abs(va), &|a, _| a.abs(), "abs");
                    check(isa.copysign(va, vb), &|a, b| a.copysign(b), "copysign");
                    check(isa.sqrt(va), &|a, _| a.sqrt(), "sqrt");
                    check(isa.round(va), &|a, _| a.round_ties_even(), "round");
                    let fma = |a: f32, b: f32, c: f32| if I::FUSED { a.mul_add(b, c) } else { a * b + c };
                    check(isa.mul_add(va, vb, va), &|a, b| fma(a, b, a), "mul_add");
                    check(isa.neg_mul_add(va, vb, va), &|a, b| fma(-a, b, a), "neg_mul_add");
                    let pick = |m| isa.select(m, va, vb);
                    check(pick(isa.lt(va, vb)), &|a, b| if a < b { a } else { b }, "lt");
                    check(pick(isa.le(va, vb)), &|a, b| if a <= b { a } else { b }, "le");
                    check(pick(isa.eq(va, vb)), &|a, b| if a == b { a } else { b }, "eq");
                    let both = isa.mask_and(isa.le(va, vb), isa.lt(isa.zero(), va));
                    check(pick(both), &|a, b| if a <= b && 0.0 < a { a } else { b }, "mask_and");
                    let either = isa.mask_or(isa.lt(va, vb), isa.lt(isa.zero(), va));
                    check(pick(either), &|a, b| if a < b || 0.0 < a { a } else { b }, "mask_or");
                    assert_eq!(isa.any(isa.lt(va, vb)), a.iter().zip(&b).any(|(a, b)| a < b));
                }
            }
        }
    }
    at_every_level(Arithmetic);
}

#[test]
fn integers_match_scalars() {
    #[derive(Clone, Copy)]
    struct Integers;
    impl Body for Integers {
        fn body<I: Isa>(&self, isa: I) {
            let a: Vec<i32> = (0..I::LANES as i32).map(|i| i.wrapping_mul(-1640531535).wrapping_add(7)).collect();
            let mut b: Vec<i32> = a.iter().rev().map(|x| x.wrapping_mul(69069)).collect();
            b[1] = a[1];
            let (va, vb) = (isa.load_i32(&a), isa.load_i32(&b));
            let check = |v: I::I32, f: &dyn Fn(i32, i32) -> i32, what: &str| {
                let mut found = [0; MAX_LANES];
                isa.store_i32(&mut found, v);
                for j in 0..I::LANES {
                    assert_eq!(found[j], f(a[j], b[j]), "{what}");
                }
            };
            check(isa.add_i32(va, vb), &i32::wrapping_add, "add");
            check(isa.sub_i32(va, vb), &i32::wrapping_sub, "sub");
            check(isa.mul_i32(va, vb), &i32::wrapping_mul, "mul");
            check(isa.and(va, vb), &|a, b| a & b, "and");
            check(isa.or(va, vb), &|a, b| a | b, "or");
            check(isa.xor(va, vb), &|a, b| a ^ b, "xor");
            check(isa.shl(va, 5), &|a, _| a << 5, "shl");
            check(isa.shr(va, 9), &|a, _| ((a as u32) >> 9) as i32, "shr");
            check(isa.splat_i32(-3), &|_, _| -3, "splat");
            check(isa.select_i32(isa.lt_i32(va, vb), va, vb), &i32::min, "lt");
            check(isa.select_i32(isa.eq_i32(va, vb), va, isa.splat_i32(9)), &|a, b| if a == b { a } else { 9 }, "eq");
            check(isa.bits(isa.from_i32(va)), &|a, _| (a as f32).to_bits() as i32, "from_i32");
            check(
                isa.to_i32(isa.mul(isa.from_i32(va), isa.splat(0.4e-4))),
                &|a, _| (a as f32 * 0.4e-4).round_ties_even() as i32,
                "to_i32",
            );
            check(isa.bits(isa.from_bits(va)), &|a, _| a, "bits");
        }
    }
    at_every_level(Integers);
}

#[test]
fn partial_loads_and_stores_touch_only_their_part() {
    #[derive(Clone, Copy)]
    struct Partial;
    impl Body for Partial {
        fn body<I: Isa>(&self, isa: I) {
            for n in 0..=I::LANES + 1 {
                let x: Vec<f32> = (0..n).map(|i| i as f32 + 1.0).collect();
                let zeros = isa.to_array(isa.load_partial(&x));
                let filled = isa.to_array(isa.load_partial_or(&x, -7.0));
                for lane in 0..I::LANES {
                    let own = lane as f32 + 1.0;
                    assert_eq!(zeros[lane], if lane < n { own } else { 0.0 });
                    assert_eq!(filled[lane], if lane < n { own } else { -7.0 });
                }
                let mut y = vec![5.0; n + 1];
                isa.store_partial(&mut y[..n], isa.splat(2.0));
                let mut expected = vec![2.0; n.min(I::LANES)];
                expected.resize(n + 1, 5.0);
                assert_eq!(y, expected);
                let x16: Vec<f16> = x.iter().map(|&x| f16::from_f32(x)).collect();
                let xb16: Vec<bf16> = x.iter().map(|&x| bf16::from_f32(x)).collect();
                assert_eq!(isa.to_array(isa.load_f16_partial(&x16)), zeros);
                assert_eq!(isa.to_array(isa.load_bf16_partial(&xb16)), zeros);
                let m = n.min(I::LANES);
                let mut y16 = vec![f16::NEG_ONE; n + 1];
                isa.store_f16_partial(&mut y16[..n], isa.load_partial(&x));
                assert_eq!(y16[..m], x16[..m]);
                assert_eq!(y16[n], f16::NEG_ONE);
                let mut yb16 = vec![bf16::NEG_ONE; n + 1];
                isa.store_bf16_partial(&mut yb16[..n], isa.load_partial(&x));
                assert_eq!(yb16[..m], xb16[..m]);
                assert_eq!(yb16[n], bf16::NEG_ONE);
            }
        }
    }
    at_every_level(Partial);
}

#[test]
fn lanes_are_reduced_and_shuffled_in_order() {
    #[derive(Clone, Copy)]
    struct Across;
    impl Body for Across {
        fn body<I: Isa>(&self, isa: I) {
            let x: Vec<f32> = (0..2 * I::LANES).map(|i| (i as f32 + 0.1) * 1.7).collect();
            let (a, b) = (isa.load(&x), isa.load(&x[I::LANES..]));
            let mut tree = x[..I::LANES].to_vec();
            while tree.len() > 1 {
                let half = tree.len() / 2;
                tree = (0..half).map(|i| tree[i] + tree[i + half]).collect();
            }
            same(isa.reduce_sum(a), tree[0], "reduce_sum");
            same(isa.reduce_max(isa.neg(a)), -x[0], "reduce_max");
            let (even, odd) = isa.deinterleave(a, b);
            for i in 0..I::LANES {
                same(isa.to_array(even)[i], x[2 * i], "even");
                same(isa.to_array(odd)[i], x[2 * i + 1], "odd");
            }
            let (low, high) = isa.interleave(even, odd);
            assert_eq!(isa.to_array(low), isa.to_array(a));
            assert_eq!(isa.to_array(high), isa.to_array(b));
            isa.prefetch(x.as_ptr());
            let mut room = [0f32; 2 * MAX_LANES];
            let start = room.as_ptr().align_offset(64);
            // SAFETY: aligned to 64 bytes within an array that has 16 elements to spare.
            unsafe { isa.stream_ptr(room.as_mut_ptr().add(start), a) };
            isa.stream_fence();
            assert_eq!(room[start..start + I::LANES], x[..I::LANES]);
        }
    }
    at_every_level(Across);
}

#[test]
fn every_half_number_converts_both_ways() {
    #[derive(Clone, Copy)]
    struct Halves;
    impl Body for Halves {
        fn body<I: Isa>(&self, isa: I) {
            let all: Vec<u16> = (0..=u16::MAX).collect();
            for bits in all.chunks_exact(I::LANES) {
                let h: Vec<f16> = bits.iter().map(|&b| f16::from_bits(b)).collect();
                let wide = isa.load_f16(&h);
                let mut back = [f16::ZERO; MAX_LANES];
                isa.store_f16(&mut back, wide);
                let b: Vec<bf16> = bits.iter().map(|&b| bf16::from_bits(b)).collect();
                let wide_b = isa.load_bf16(&b);
                let mut back_b = [bf16::ZERO; MAX_LANES];
                isa.store_bf16(&mut back_b, wide_b);
                for i in 0..I::LANES {
                    same(isa.to_array(wide)[i], h[i].to_f32_const(), "f16");
                    same(isa.to_array(wide_b)[i], b[i].to_f32_const(), "bf16");
                    let quiet = if h[i].is_nan() { h[i].to_bits() | 0x200 } else { h[i].to_bits() };
                    assert_eq!(back[i].to_bits(), quiet);
                    let quiet = if b[i].is_nan() { b[i].to_bits() | 0x40 } else { b[i].to_bits() };
                    assert_eq!(back_b[i].to_bits(), quiet);
                }
            }
            // Between two adjacent numbers: below, at and above the middle.
            let mut x: Vec<f32> = (0..0x7c00u16)
                .flat_map(|b| {
                    let (low, high) = (f16::from_bits(b).to_f32_const(), f16::from_bits(b + 1).to_f32_const());
                    let middle = if high.is_finite() { (low + high) / 2.0 } else { 65520.0 };
                    [middle, middle.next_down(), -middle.next_up()]
                })
                .chain((0..0x7f80u32).flat_map(|b| {
                    let middle = f32::from_bits(b << 16 | 0x8000);
                    [-middle, middle.next_down(), middle.next_up()]
                }))
                .chain(numbers())
                .collect();
            x.resize(x.len().next_multiple_of(MAX_LANES), 1e20);
            for x in x.chunks_exact(I::LANES) {
                let (mut h, mut b) = ([f16::ZERO; MAX_LANES], [bf16::ZERO; MAX_LANES]);
                isa.store_f16(&mut h, isa.load(x));
                isa.store_bf16(&mut b, isa.load(x));
                for i in 0..I::LANES {
                    assert_eq!(h[i].to_bits(), f16::from_f32_const(x[i]).to_bits(), "{:e}", x[i]);
                    assert_eq!(b[i].to_bits(), bf16::from_f32_const(x[i]).to_bits(), "{:e}", x[i]);
                }
            }
        }
    }
    at_every_level(Halves);
}
